//! The result of an invocation, as producers read it.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::bucket::Bucket;
use super::okta_error::OktaError;
use super::secret::{ErrorTexts, Secrets};

/// How an invocation ended.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, strum::IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Status {
    /// Done; `result` holds the answer.
    Succeeded,
    /// Not done; `error` says why.
    Failed,
    /// A dry run; `result` holds the plan.
    Planned,
}

impl Status {
    /// Returns the name of the status in results, routing keys and labels.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// What an invocation changed.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema, strum::IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Effect {
    /// Nothing: a read, a plan, or refused before anything changed.
    None,
    /// Okta changed what was asked, or, where it does not tell, accepted it.
    Applied,
    /// Okta was already in the wanted state.
    Unchanged,
    /// It may have happened and Okta could not be asked.
    Unknown,
}

impl Effect {
    /// Returns the name of the effect in results and labels.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why an invocation failed: a closed list, in the order of the contract's table.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum ErrorCode { $($(#[$doc])* $name,)* }

        impl ErrorCode {
            /// Every code, in the order of the contract's table.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Returns the name of the code in results and labels.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

error_codes! {
    /// The message cannot be read, or asks for secrets without a place to send them.
    InvalidMessage = "invalid_message",
    /// No such connection.
    UnknownConnection = "unknown_connection",
    /// No such subtool.
    UnknownSubtool = "unknown_subtool",
    /// An argument is missing, wrong or unknown.
    InvalidArguments = "invalid_arguments",
    /// Connection or caller may not use this subtool, or the message came or answers where it must not.
    NotPermitted = "not_permitted",
    /// Okta has no such thing.
    NotFound = "not_found",
    /// A login or name that is not ours.
    AlreadyExists = "already_exists",
    /// The wrong status for the operation.
    PreconditionFailed = "precondition_failed",
    /// Okta refused for another reason.
    OktaRejected = "okta_rejected",
    /// The credential is bad.
    Unauthorized = "unauthorized",
    /// Okta refuses the credential this operation.
    Forbidden = "forbidden",
    /// The budget cannot make it before the deadline.
    RateLimited = "rate_limited",
    /// The deadline passed before work began.
    DeadlineExceeded = "deadline_exceeded",
    /// Attempts used up on 5xx or network failures.
    OktaUnavailable = "okta_unavailable",
    /// A write may have happened and could not be verified.
    OutcomeUnknown = "outcome_unknown",
    /// The caller took it back before it began.
    Cancelled = "cancelled",
    /// A bug, or a message that crashed workers.
    Internal = "internal",
}

/// A failure: data, not an exception.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    /// What kind of failure.
    pub code: ErrorCode,
    /// What failed, with names in backticks; never a secret.
    pub message: String,
    /// Whether the same message may succeed later.
    pub retryable: bool,
    /// When to try again, where that is known.
    #[schemars(with = "Option<String>", extend("format" = "date-time"))]
    pub retry_at: Option<Timestamp>,
    /// The dotted path of what is wrong in the message.
    pub path: Option<String>,
    /// What Okta said.
    pub okta: Option<OktaError>,
}

impl Failure {
    /// Creates a failure with this code, which decides if it is retryable.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let retryable =
            matches!(code, ErrorCode::RateLimited | ErrorCode::DeadlineExceeded | ErrorCode::OktaUnavailable);
        Self { code, message: message.into(), retryable, retry_at: None, path: None, okta: None }
    }

    /// Sets the path of the fault in the message.
    #[must_use]
    pub fn at(mut self, path: Option<impl Into<String>>) -> Self {
        self.path = path.map(Into::into);
        self
    }

    /// Adds Okta's error.
    #[must_use]
    pub fn with_okta(mut self, error: OktaError) -> Self {
        self.okta = Some(error);
        self
    }

    /// Sets the time of the next useful retry.
    #[must_use]
    pub fn retry_at(mut self, at: Timestamp) -> Self {
        self.retry_at = Some(at);
        self
    }

    /// Returns the failure with the invocation's secrets masked in every text.
    #[must_use]
    pub fn masked(mut self, secrets: &Secrets) -> Self {
        self.path = self.path.map(|path| secrets.mask(&path));
        self.without_values(secrets)
    }

    /// Returns the failure with these values masked in its texts. Its path stays: it names places, not values.
    #[must_use]
    pub fn without_values(mut self, values: &Secrets) -> Self {
        self.message = values.mask(&self.message);
        if let Some(okta) = &mut self.okta {
            let masked = |text: &Option<String>| text.as_deref().map(|text| values.mask(text));
            okta.error_code = masked(&okta.error_code);
            okta.summary = masked(&okta.summary);
            okta.error_id = masked(&okta.error_id);
            okta.causes = okta.causes.iter().map(|cause| values.mask(cause)).collect();
        }
        self
    }

    /// Returns all its texts.
    pub fn said(&self) -> ErrorTexts {
        let okta = self.okta.iter().flat_map(|okta| {
            let one = [&okta.error_code, &okta.summary, &okta.error_id];
            one.into_iter().flatten().chain(&okta.causes)
        });
        ErrorTexts::new(std::iter::once(&self.message).chain(okta).map(String::as_str))
    }
}

/// The bucket's window as the last answer told it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RateLimit {
    /// The bucket of the last request.
    #[serde(with = "bucket_name")]
    #[schemars(with = "String")]
    pub bucket: Bucket,
    /// Requests per window.
    pub limit: u32,
    /// Requests left in the window.
    pub remaining: u32,
    /// When the window ends.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub reset: Timestamp,
}

mod bucket_name {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::domain::bucket::Bucket;

    pub fn serialize<S: Serializer>(bucket: &Bucket, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(bucket.as_str())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bucket, D::Error> {
        let text = String::deserialize(deserializer)?;
        Bucket::parse(&text).ok_or_else(|| D::Error::custom("unknown bucket"))
    }
}

/// The outcome of a finished invocation, before it becomes a message.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The operation was done.
    Succeeded {
        /// The change in Okta.
        effect: Effect,
        /// The result, as specified for the subtool in the contract's table.
        result: Box<RawValue>,
    },
    /// The plan of a dry run.
    Planned(Box<RawValue>),
    /// The operation was not done.
    Failed {
        /// `none`, or `unknown` when a write may have happened.
        effect: Effect,
        /// The reason.
        failure: Failure,
    },
}

/// Where a page of a list stands among the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PageMark {
    /// Counted from 0; 0 again means that the list begins anew, and that earlier pages are to be forgotten.
    pub index: u32,
    /// Whether no other follows.
    pub last: bool,
}

/// The body of a result message.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ResultMessage {
    /// The invocation's id.
    pub id: String,
    /// True when the message had no id and the worker made one.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub id_generated: bool,
    /// True when this is the result of the same invocation, run at most ten minutes ago, and nothing was run for it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub deduplicated: bool,
    /// The connection; `null` when the message named none that is ours.
    pub connection: Option<String>,
    /// The subtool as it was named; `null` when it could not be read.
    pub subtool: Option<String>,
    /// How it ended.
    pub status: Status,
    /// What changed.
    pub effect: Effect,
    /// The result of a success.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<serde_json::Value>")]
    pub result: Option<Box<RawValue>>,
    /// Which page of a list that comes in pages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page: Option<PageMark>,
    /// True when the result is a single object too large to send; `result` is then `null`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub result_omitted: bool,
    /// The reason of a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// Attempts, failed ones included; a wait for the budget is none.
    pub attempts: u32,
    /// Requests that may have reached Okta.
    pub okta_calls: u32,
    /// Time spent waiting for the budget, in the worker or put aside, in milliseconds.
    pub waited_ms: u64,
    /// From the first receipt to this answer, in milliseconds.
    pub duration_ms: u64,
    /// The bucket of the last request; `null` when Okta was not asked.
    pub rate_limit: Option<RateLimit>,
    /// Okta's ids of the last requests, in order.
    pub okta_request_ids: Vec<String>,
}
