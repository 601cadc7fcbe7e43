//! The 28 as tools of the Model Context Protocol.
//!
//! A tool's input is the subtool's arguments and beside them one property, [`OPTIONS`], which no argument is
//! called; its output is what an agent should see of the result message.

use serde_json::{Value, json};

use crate::tools::catalogue::Entry;
use crate::tools::{Kind, Repeat};

use super::message;
use super::options;
use super::schema::{bare, plain};

/// The property of a tool's input that holds the invocation's options.
pub const OPTIONS: &str = "options";

/// The largest result of a tool when nobody says how large: what a model can afford to read.
pub const RESULT_BYTES_USUAL: u32 = 64 * 1024;

/// The result of `tools/list` for these subtools.
pub fn tools<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Value {
    json!({ "tools": entries.into_iter().map(tool).collect::<Vec<_>>() })
}

/// One subtool as a tool.
pub fn tool(entry: &Entry) -> Value {
    let title = title(entry.manifest.name);
    json!({
        "name": entry.manifest.name,
        "title": title,
        "description": entry.manifest.description(),
        "inputSchema": input(entry),
        "outputSchema": message::of_a_tool(entry),
        "annotations": {
            "title": title,
            "readOnlyHint": entry.manifest.kind == Kind::Read,
            "destructiveHint": is_destructive(entry),
            "idempotentHint": is_idempotent(entry.repeat()),
            // A tool talks with one org, whose users, groups and applications are all there is to it.
            "openWorldHint": false,
        },
    })
}

fn input(entry: &Entry) -> Value {
    let mut input = plain(bare((entry.arguments)()));
    let part = input.as_object_mut().expect("arguments are an object");
    part.remove("description"); // the tool's own says more
    let properties = part.entry("properties").or_insert_with(|| json!({}));
    properties[OPTIONS] = options(entry);
    input
}

/// The schema of the options that whoever calls a subtool as a tool may choose.
pub fn options(entry: &Entry) -> Value {
    plain(options::of_a_tool(entry))
}

/// Whether something may be taken away that cannot be given back. A password that was reset, expired or set
/// anew is, so the kind `credentials` counts, and a subtool that needs it for some arguments; what the kind
/// `write` changes can be changed back.
fn is_destructive(entry: &Entry) -> bool {
    let takes_away = |kind: Kind| match kind {
        Kind::Read | Kind::Write => false,
        Kind::Destructive | Kind::Credentials => true,
    };
    takes_away(entry.manifest.kind) || entry.may_also_need().is_some_and(takes_away)
}

/// Whether a second call with the same arguments changes nothing more. Okta refuses to make the same thing
/// twice, and a step that was taken is found taken; what mails or mints does so each time.
fn is_idempotent(repeat: Repeat) -> bool {
    match repeat {
        Repeat::Read | Repeat::Set | Repeat::Create | Repeat::Transition => true,
        Repeat::Emit => false,
    }
}

/// The name as people read it: `List user groups`.
fn title(name: &str) -> String {
    let words = name.replace('_', " ");
    let mut letters = words.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
