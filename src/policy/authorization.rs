//! Permissions: allow-lists of subtools, and callers with their connections and lanes.
//!
//! Only listed subtools are allowed: there is no default list.

use std::collections::HashMap;

use crate::domain::ids::{ConnectionName, Lane, excerpt};
use crate::domain::invocation::nearest;
use crate::tools::hint::meant;
use crate::tools::{Manifest, ToolKind, catalogue};

/// The subtools that one entry of an allow-list permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Permission {
    All,
    Kind(ToolKind),
    Tool(&'static str),
}

/// The subtools that a connection or a caller may use, by kind or by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowList(Vec<Permission>);

impl AllowList {
    /// Returns the list that allows everything.
    pub fn all() -> Self {
        Self(vec![Permission::All])
    }

    /// Parses kinds (`read`, `write`, `destructive`, `credentials`, `all`) and names of subtools.
    ///
    /// # Errors
    /// The index of the first entry that is neither, and a message.
    pub fn parse(entries: &[impl AsRef<str>]) -> Result<Self, (usize, String)> {
        let grant = |(at, entry): (usize, &str)| {
            if entry == "all" {
                return Ok(Permission::All);
            }
            if let Some(kind) = ToolKind::ALL.into_iter().find(|kind| kind.as_str() == entry) {
                return Ok(Permission::Kind(kind));
            }
            if let Some(tool) = catalogue::find(entry) {
                return Ok(Permission::Tool(tool.manifest.name));
            }
            let kinds = ToolKind::ALL.into_iter().map(ToolKind::as_str).chain(["all"]);
            let hint = nearest(entry, kinds)
                .or_else(|| meant(entry, |_| true))
                .map_or_else(String::new, |near| format!(", did you mean `{near}`?"));
            Err((at, format!("`{}` is neither a kind nor a subtool{hint}", excerpt(entry))))
        };
        entries.iter().map(AsRef::as_ref).enumerate().map(grant).collect::<Result<_, _>>().map(Self)
    }

    /// Returns true if the subtool may be used.
    pub fn allows(&self, tool: &Manifest) -> bool {
        self.0.iter().any(|grant| match grant {
            Permission::All => true,
            Permission::Kind(kind) => *kind == tool.kind,
            Permission::Tool(name) => *name == tool.name,
        })
    }

    /// Returns true if a whole kind of subtools is allowed; a single subtool of that kind is not enough.
    pub fn allows_kind(&self, wanted: ToolKind) -> bool {
        self.0.iter().any(|grant| match grant {
            Permission::All => true,
            Permission::Kind(kind) => *kind == wanted,
            Permission::Tool(_) => false,
        })
    }

    /// Returns true if nothing is allowed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The permissions of one caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallerPermissions {
    /// The allowed connections.
    pub connections: Vec<ConnectionName>,
    /// The allowed subtools.
    pub subtools: AllowList,
    /// The allowed lanes.
    pub lanes: Vec<Lane>,
    /// The most requests to Okta per minute, on all connections and from all workers together.
    pub max_per_minute: Option<u32>,
}

/// All callers, by the broker user that they publish as. If there are none, every publisher may call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Callers(pub HashMap<String, CallerPermissions>);

impl Callers {
    /// Returns true if every publisher may call.
    pub fn is_open(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns true if a caller may use a connection at all.
    pub fn may_use(&self, caller: Option<&str>, connection: &ConnectionName) -> bool {
        let known = caller.and_then(|name| self.0.get(name));
        self.is_open() || known.is_some_and(|caller| caller.connections.contains(connection))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(entries: &[&str], name: &str) -> bool {
        AllowList::parse(entries).unwrap().allows(catalogue::find(name).unwrap().manifest)
    }

    #[test]
    fn kinds_do_not_include_one_another() {
        let rows = [
            (&["read"][..], "get_user", true),
            (&["read"], "create_user", false),
            (&["write"], "get_user", false),
            (&["write"], "create_user", true),
            (&["write"], "delete_user", false),
            (&["write"], "reset_user_password", false),
            (&["destructive"], "deactivate_user", true),
            (&["credentials"], "expire_user_password", true),
            (&["reset_user_password"], "reset_user_password", true),
            (&["reset_user_password"], "expire_user_password", false),
            (&["all"], "delete_group", true),
            (&[], "get_user", false),
        ];
        for (entries, name, expected) in rows {
            assert_eq!(allows(entries, name), expected, "{entries:?} {name}");
        }
    }

    #[test]
    fn naming_a_subtool_gives_no_whole_kind() {
        assert!(!AllowList::parse(&["update_user"]).unwrap().allows_kind(ToolKind::Credentials));
        assert!(AllowList::parse(&["all"]).unwrap().allows_kind(ToolKind::Credentials));
    }

    #[test]
    fn an_unknown_entry_suggests_the_nearest() {
        let fault = AllowList::parse(&["read", "crate_user"]).unwrap_err();
        assert_eq!(
            fault,
            (1, "`crate_user` is neither a kind nor a subtool, did you mean `create_user`?".into())
        );
    }
}
