//! Reasons to pause a whole connection: no request of any caller would succeed.

use crate::domain::result::ErrorCode;

/// A reason to pause a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::IntoStaticStr, strum::EnumCount)]
#[strum(serialize_all = "snake_case")]
pub enum PauseReason {
    /// Okta refuses the credential.
    Unauthorized,
    /// Okta has revoked a scope that worked.
    Forbidden,
    /// Okta cannot be reached.
    Unreachable,
    /// Okta is read-only for maintenance.
    ReadOnly,
}

impl PauseReason {
    /// Every reason.
    pub const ALL: [Self; <Self as strum::EnumCount>::COUNT] =
        [Self::Unauthorized, Self::Forbidden, Self::Unreachable, Self::ReadOnly];

    /// Returns the reason as a metric label.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Returns the error code of an interactive invocation that the pause stops.
    pub fn code(self) -> ErrorCode {
        match self {
            Self::Unauthorized => ErrorCode::Unauthorized,
            Self::Forbidden => ErrorCode::Forbidden,
            Self::Unreachable | Self::ReadOnly => ErrorCode::OktaUnavailable,
        }
    }

    /// Returns the reason as the end of an error message.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Unauthorized => "Okta refuses its credential",
            Self::Forbidden => "Okta has revoked a scope of its credential",
            Self::Unreachable => "Okta is not reached",
            Self::ReadOnly => "Okta is read-only for now",
        }
    }
}
