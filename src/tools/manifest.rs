//! The properties of a subtool that do not depend on its arguments: its manifest, the kind of power, the
//! idempotency class.

use super::cost::Cost;

/// The kind of power that a subtool needs; allow-lists name kinds or subtools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::IntoStaticStr, strum::EnumCount)]
#[strum(serialize_all = "snake_case")]
pub enum ToolKind {
    /// Changes nothing.
    Read,
    /// Makes changes that can be undone.
    Write,
    /// Makes changes that cannot be undone.
    Destructive,
    /// Changes a user's credentials.
    Credentials,
}

impl ToolKind {
    /// Every kind.
    pub const ALL: [Self; <Self as strum::EnumCount>::COUNT] =
        [Self::Read, Self::Write, Self::Destructive, Self::Credentials];

    /// Returns the name of the kind in allow-lists.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The idempotency class of a request: it decides on a retry if Okta may have executed the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Idempotency {
    /// Changes nothing: retry.
    Read,
    /// Sets a state: retry, Okta answers the same.
    Set,
    /// Creates an object with a natural key: Okta refuses a second one.
    Create,
    /// Moves from one state to the next: read before a retry.
    Transition,
    /// Sends an e-mail or creates a one-time secret each time: never retry blindly.
    NonIdempotent,
}

impl Idempotency {
    /// Returns the name of the class in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Set => "set",
            Self::Create => "create",
            Self::Transition => "transition",
            Self::NonIdempotent => "emit",
        }
    }

    /// Returns true if a request that may have been executed may be retried without a read.
    pub fn is_safe(self) -> bool {
        match self {
            Self::Read | Self::Set => true,
            Self::Create | Self::Transition | Self::NonIdempotent => false,
        }
    }
}

/// The properties of a subtool that do not depend on its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manifest {
    /// The name in messages.
    pub name: &'static str,
    /// The kind of power that it needs.
    pub kind: ToolKind,
    /// The OAuth scope that it needs.
    pub scope: &'static str,
    /// A summary in one or two sentences, for choosing among the subtools.
    pub summary: &'static str,
    /// The cases for other subtools, and which ones: a sentence.
    pub not_for: &'static str,
    /// The cost in requests.
    pub cost: Cost,
    /// The content of a successful result, as the end of a sentence.
    pub returns: &'static str,
    /// Examples of arguments, as JSON; the simplest comes first.
    pub examples: &'static [&'static str],
}

impl Manifest {
    /// Returns a description of three to five sentences, for choosing among the subtools.
    pub fn description(&self) -> String {
        let Self { summary, not_for, cost, returns, .. } = self;
        format!("{summary} {not_for} Costs {cost}. Returns {returns}.")
    }
}
