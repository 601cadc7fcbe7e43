//! Refusals: Okta's error codes with their texts.
//!
//! Codes, statuses and recorded texts are Okta's. Okta guarantees only the code; a text that was never recorded is
//! worded like the error catalogue or close to it.

use serde::Serialize;

/// A refusal: one of Okta's error objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OktaRefusal {
    pub(super) status: u16,
    pub(super) code: String,
    pub(super) summary: String,
    pub(super) causes: Vec<String>,
}

impl OktaRefusal {
    /// Creates a refusal without causes.
    pub(super) fn new(status: u16, code: &str, summary: &str) -> Self {
        Self { status, code: code.to_owned(), summary: summary.to_owned(), causes: Vec::new() }
    }

    fn because(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    /// Creates a validation failure of an object, with each reason.
    pub(super) fn invalid(what: &str, causes: Vec<String>) -> Self {
        let summary = format!("Api validation failed: {what}");
        Self { causes, ..Self::new(400, "E0000001", &summary) }
    }

    /// Creates the refusal of a name or login that is taken.
    pub(super) fn taken(field: &str) -> Self {
        let cause = format!("{field}: An object with this field already exists in the current organization");
        Self::invalid(field, vec![cause])
    }

    pub(super) fn malformed() -> Self {
        Self::new(400, "E0000003", "The request body was not well-formed.")
    }

    /// Creates the refusal of a missing object; `kind` is Okta's name for it, such as `UserGroup`.
    pub(super) fn missing(id: &str, kind: &str) -> Self {
        Self::new(404, "E0000007", &format!("Not found: Resource not found: {id} ({kind})"))
    }

    pub(super) fn forbidden() -> Self {
        Self::new(403, "E0000006", "You do not have permission to perform the requested action")
    }

    pub(super) fn unauthorized() -> Self {
        Self::new(401, "E0000011", "Invalid token provided")
    }

    pub(super) fn wrong_method() -> Self {
        Self::new(405, "E0000022", "The endpoint does not support the provided HTTP method")
    }

    pub(super) fn no_such_path() -> Self {
        Self::new(404, "E0000008", "The requested path was not found")
    }

    pub(super) fn too_many_requests() -> Self {
        Self::new(429, "E0000047", "API call exceeded rate limit due to too many requests.")
    }

    pub(super) fn unsupported_media() -> Self {
        Self::new(
            400,
            "E0000019",
            "Bad request. Accept and/or Content-Type headers likely do not match supported values.",
        )
    }

    pub(super) fn changed_meanwhile() -> Self {
        Self::new(412, "E0000001", "Precondition failed: the resource was changed meanwhile")
    }

    pub(super) fn already_active() -> Self {
        Self::new(403, "E0000016", "Activation failed because the user is already active")
    }

    pub(super) fn reset_refused() -> Self {
        Self::new(403, "E0000017", "Password reset failed")
            .because("The password of a user in this status or without a password cannot be reset.")
    }

    pub(super) fn not_locked() -> Self {
        Self::new(403, "E0000032", "Unlock is not allowed for this user.")
            .because("The user is not locked out.")
    }

    pub(super) fn wrong_status() -> Self {
        Self::new(403, "E0000038", "This operation is not allowed in the user's current status.")
    }

    pub(super) fn inactive_user() -> Self {
        Self::new(
            403,
            "E0000117",
            "The application cannot be assigned to the user while the user is inactive.",
        )
    }

    pub(super) fn granted_by_group() -> Self {
        Self::new(403, "E0000046", "Deactivate application for user forbidden.").because(
            "User application cannot be unassigned while group memberships grant access to the application.",
        )
    }

    pub(super) fn active_app() -> Self {
        Self::new(403, "E0000056", "Delete application forbidden.")
            .because("The application must be deactivated before deletion.")
    }

    /// Creates the refusal of an app without a label.
    pub(super) fn no_label() -> Self {
        Self::invalid("label", vec!["label: The field cannot be left blank".to_owned()])
    }

    pub(super) fn bad_cursor() -> Self {
        Self::new(400, "E0000029", "Invalid paging request.").because("Invalid cursor.")
    }

    pub(super) fn bad_search(cause: &str) -> Self {
        Self::new(400, "E0000031", "Invalid search criteria.").because(cause)
    }

    pub(super) fn search_and_filter() -> Self {
        Self::new(
            400,
            "E0000033",
            "Bad request. Can't specify a search query and filter in the same request.",
        )
    }

    pub(super) fn unsupported_filter(cause: &str) -> Self {
        Self::new(400, "E0000094", "Unsupported filter. Only certain filters are supported.").because(cause)
    }

    pub(super) fn bad_log_filter(cause: &str) -> Self {
        Self::new(400, "E0000053", "The SCIM filter is invalid.").because(cause)
    }

    pub(super) fn wrong_type(field: &str) -> Self {
        Self::new(400, "E0000037", "Type mismatch exception.")
            .because(format!("{field}: the value does not have the attribute's type"))
    }

    pub(super) fn too_many_groups() -> Self {
        Self::new(400, "E0000093", "Target count limit exceeded")
    }

    pub(super) fn next_login_without_password() -> Self {
        Self::new(
            400,
            "E0000124",
            "Could not create user. To create a user and expire their password immediately, a password must be specified",
        )
    }

    pub(super) fn next_login_without_activation() -> Self {
        Self::new(
            400,
            "E0000125",
            "Could not create user. To create a user and expire their password immediately, \"activate\" must be true",
        )
    }

    /// Creates the refusal of another user type in a partial update. That Okta takes one by PUT alone is documented;
    /// its answer to POST is a guess.
    pub(super) fn type_kept() -> Self {
        Self::invalid("type", vec!["type: the user type cannot be changed by a partial update".to_owned()])
    }

    pub(super) fn read_only() -> Self {
        Self::new(503, "E0000010", "Service is in read only mode")
    }

    /// Creates an error with the status that a test asks for.
    pub(super) fn of_status(status: u16) -> Self {
        match status {
            401 => Self::unauthorized(),
            403 => Self::forbidden(),
            409 => Self::new(
                409,
                "E0000112",
                "Unable to update the user. The user is still being activated. Please try again in a few minutes.",
            ),
            429 => Self::too_many_requests(),
            503 => Self::read_only(),
            _ => Self::new(status, "E0000009", "Internal Server Error"),
        }
    }

    /// Returns the body of the answer.
    pub(super) fn body(&self, error_id: &str) -> Vec<u8> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Body<'a> {
            error_code: &'a str,
            error_summary: &'a str,
            error_link: &'a str,
            error_id: &'a str,
            error_causes: Vec<Cause<'a>>,
        }
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Cause<'a> {
            error_summary: &'a str,
        }
        serde_json::to_vec(&Body {
            error_code: &self.code,
            error_summary: &self.summary,
            error_link: &self.code,
            error_id,
            error_causes: self.causes.iter().map(|error_summary| Cause { error_summary }).collect(),
        })
        .expect("texts are JSON")
    }
}
