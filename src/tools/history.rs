//! The history of a conversation: the questions, and Okta's answers to them.

use jiff::Timestamp;
use serde::de::DeserializeOwned;

use crate::domain::http::{Exchange, Request, Response};
use crate::domain::okta_error::OktaError;
use crate::domain::result::ErrorCode;

use super::run::Stop;

/// One question and its outcome.
#[derive(Debug, Clone)]
pub enum HistoryEntry {
    /// Okta answered.
    Answered(Exchange),
    /// No answer came, and Okta may have executed the request.
    Unknown {
        /// The request.
        request: Request,
        /// The time of sending, by our clock.
        sent: Timestamp,
    },
}

impl HistoryEntry {
    /// Returns the request.
    pub fn request(&self) -> &Request {
        match self {
            Self::Answered(exchange) => &exchange.request,
            Self::Unknown { request, .. } => request,
        }
    }

    /// Returns Okta's answer, if there is one.
    pub fn response(&self) -> Option<&Response> {
        match self {
            Self::Answered(exchange) => Some(&exchange.response),
            Self::Unknown { .. } => None,
        }
    }
}

/// Okta's answer to one question: a success or a refusal, never a transient failure.
#[derive(Debug, Clone, Copy)]
pub struct OktaReply<'a>(pub(super) &'a Exchange);

impl<'a> OktaReply<'a> {
    /// Returns the request, with the page size that Okta answered.
    pub(super) fn request(self) -> &'a Request {
        &self.0.request
    }

    /// Returns true if Okta answered with success.
    pub fn is_success(self) -> bool {
        self.0.response.is_success()
    }

    /// Returns the success, or stops at Okta's refusal.
    pub fn success(self) -> Result<&'a Response, Stop> {
        if self.is_success() { Ok(&self.0.response) } else { Err(self.refused()) }
    }

    /// Returns the body of a success as JSON, byte for byte.
    pub fn json(self) -> Result<Box<serde_json::value::RawValue>, Stop> {
        self.success()?.raw().map(ToOwned::to_owned).ok_or_else(|| self.unreadable())
    }

    /// Parses the body of a success into `T`, ignoring unknown fields.
    pub fn read<T: DeserializeOwned>(self) -> Result<T, Stop> {
        self.success()?.read().ok_or_else(|| self.unreadable())
    }

    /// Returns Okta's refusal.
    pub fn error(self) -> OktaError {
        OktaError::read(&self.0.response)
    }

    /// Stops at a success status whose body is not the expected one. After a write it is then unclear if
    /// Okta answered, or an intermediary.
    pub fn unreadable(self) -> Stop {
        if self.0.request.is_read() {
            return Stop::unreadable();
        }
        let message = "failed to read Okta's answer to a write: it is not the JSON expected";
        Stop::fail(ErrorCode::OutcomeUnknown, message)
    }

    /// Stops at Okta's refusal.
    pub fn refused(self) -> Stop {
        Stop::Refused(Box::new(self.error()))
    }
}
