//! Okta's error in an answer that is not a success, parsed leniently.

use http::HeaderMap;
use serde::{Deserialize, Serialize};

use super::http::Response;
use super::secret::CUT;

/// The longest error text that is kept, in characters.
const TEXT_CHARS_MAX: usize = 1000;

/// Okta's error, from its error object, the `WWW-Authenticate` header or the status alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct OktaError {
    /// The HTTP status.
    pub status: u16,
    /// Okta's code, such as `E0000007`.
    pub error_code: Option<String>,
    /// Okta's one-line summary.
    pub summary: Option<String>,
    /// The causes, often `field: text`.
    pub causes: Vec<String>,
    /// Okta's id for this error.
    pub error_id: Option<String>,
}

/// Okta's error object. `errorCauses` is an array of objects; one documented example has a single object.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ErrorObject {
    error_code: String,
    #[serde(default)]
    error_summary: Option<String>,
    #[serde(default)]
    error_id: Option<String>,
    #[serde(default)]
    error_causes: serde_json::Value,
}

impl OktaError {
    /// Returns true if an answer that is not 2xx is a refusal by Okta itself: it holds Okta's error object, or it
    /// is empty and its header names the refused token scheme. Any other answer comes from an intermediary.
    pub fn is_in(response: &Response) -> bool {
        if response.body.is_empty() {
            return matches!(response.status, 401 | 403) && is_challenge(&response.headers);
        }
        serde_json::from_slice::<ErrorObject>(&response.body).is_ok_and(|error| !error.error_code.is_empty())
    }

    /// Parses an answer that is not 2xx.
    pub fn read(response: &Response) -> Self {
        let status = response.status;
        if let Ok(object) = serde_json::from_slice::<ErrorObject>(&response.body) {
            return Self {
                status,
                error_code: Some(short(&object.error_code)),
                summary: object.error_summary.as_deref().map(short),
                causes: causes(&object.error_causes),
                error_id: object.error_id.as_deref().map(short),
            };
        }
        let summary = authenticate(&response.headers).unwrap_or_else(|| describe(response));
        Self { status, error_code: None, summary: Some(short(&summary)), causes: Vec::new(), error_id: None }
    }

    /// Returns true if the error code is this one.
    pub fn is(&self, code: &str) -> bool {
        self.error_code.as_deref() == Some(code)
    }

    /// Returns true if a cause begins with this text, such as `login:`.
    pub fn has_cause(&self, prefix: &str) -> bool {
        self.causes.iter().any(|cause| cause.starts_with(prefix))
    }

    /// Returns id and type of the missing resource of a 404: `Resource not found: 00u… (User)`.
    pub fn missing(&self) -> Option<(&str, &str)> {
        let text = self.summary.as_deref()?.split_once("Resource not found: ")?.1;
        let (id, kind) = text.rsplit_once(" (")?;
        Some((id, kind.strip_suffix(')')?))
    }
}

fn causes(value: &serde_json::Value) -> Vec<String> {
    let cause = |value: &serde_json::Value| match value {
        serde_json::Value::String(text) => Some(short(text)),
        other => other.get("errorSummary").and_then(serde_json::Value::as_str).map(short),
    };
    match value {
        serde_json::Value::Array(items) => items.iter().filter_map(cause).collect(),
        other => cause(other).into_iter().collect(),
    }
}

/// Returns true if `WWW-Authenticate` names one of Okta's schemes.
fn is_challenge(headers: &HeaderMap) -> bool {
    let header = headers.get(http::header::WWW_AUTHENTICATE).and_then(|header| header.to_str().ok());
    let scheme = header.and_then(|header| header.split_whitespace().next());
    scheme
        .is_some_and(|scheme| ["SSWS", "Bearer", "DPoP"].iter().any(|okta| okta.eq_ignore_ascii_case(scheme)))
}

/// Returns the error described by a `WWW-Authenticate` header: `insufficient_scope: …, needs …`.
fn authenticate(headers: &HeaderMap) -> Option<String> {
    let header = headers.get(http::header::WWW_AUTHENTICATE)?.to_str().ok()?;
    let value = |name: &str| {
        let start = header.find(&format!("{name}=\""))? + name.len() + 2;
        header[start..].split('"').next().filter(|text| !text.is_empty())
    };
    let mut text = value("error")?.to_owned();
    if let Some(description) = value("error_description") {
        text = format!("{text}: {description}");
    }
    if let Some(scope) = value(" scope").or_else(|| value(",scope")) {
        text = format!("{text}, needs {scope}");
    }
    Some(text)
}

/// Describes a body that is not an error object, without repeating it: it may be a whole page.
fn describe(response: &Response) -> String {
    #[derive(Deserialize)]
    struct Gateway {
        message: String,
    }
    if (300..400).contains(&response.status) {
        return "a redirect, which is not followed".to_owned();
    }
    if response.body.is_empty() {
        return "an empty answer".to_owned();
    }
    if let Ok(Gateway { message }) = serde_json::from_slice(&response.body) {
        return message; // {"status":404,"message":"Resource not found"}: recorded on POST /users, 2025
    }
    let is_html = response
        .headers
        .get(http::header::CONTENT_TYPE)
        .is_some_and(|kind| kind.to_str().is_ok_and(|kind| kind.contains("html")))
        || response.body.trim_ascii_start().starts_with(b"<");
    let kind = match response.is_success() {
        _ if is_html => "an HTML page",
        true => "an answer that is not the JSON expected",
        false => "an answer that is not an Okta error object",
    };
    format!("{kind} of {} bytes", response.body.len())
}

fn short(text: &str) -> String {
    match text.char_indices().nth(TEXT_CHARS_MAX) {
        Some((end, _)) => format!("{}{CUT}", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, headers: &[(&'static str, &str)], body: &str) -> Response {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        Response::new(status, map, body.to_owned())
    }

    #[test]
    fn error_objects_are_read_with_either_form_of_causes() {
        let array = r#"{"errorCode":"E0000001","errorSummary":"s","errorId":"i","errorCauses":[{"errorSummary":"login: x"}]}"#;
        let object =
            r#"{"errorCode":"E0000041","errorSummary":"s","errorCauses":{"errorSummary":"login: x"}}"#;
        for body in [array, object] {
            assert!(OktaError::read(&response(400, &[], body)).has_cause("login:"), "{body}");
        }
    }

    #[test]
    fn an_empty_403_is_explained_by_its_header() {
        let header = r#"Bearer authorization_uri="http://acme/oauth2/v1/authorize", realm="http://acme", scope="okta.groups.read", error="insufficient_scope", error_description="The access token provided does not contain the required scopes.", resource="/api/v1/groups""#;
        let error = OktaError::read(&response(403, &[("www-authenticate", header)], ""));
        assert_eq!(
            error.summary.unwrap(),
            "insufficient_scope: The access token provided does not contain the required scopes., needs okta.groups.read"
        );
    }

    #[test]
    fn pages_and_foreign_objects_are_named_not_repeated() {
        let html = OktaError::read(&response(502, &[("content-type", "text/html")], "<html>secret</html>"));
        assert_eq!(html.summary.unwrap(), "an HTML page of 19 bytes");
        let gateway =
            OktaError::read(&response(404, &[], r#"{"status":404,"message":"Resource not found"}"#));
        assert_eq!((gateway.summary.as_deref(), gateway.error_code), (Some("Resource not found"), None));
    }

    #[test]
    fn a_refusal_is_okta_s_own_when_it_has_its_error_object_or_its_challenge() {
        let object = r#"{"errorCode":"E0000007","errorSummary":"s"}"#;
        let bearer = r#"Bearer realm="x", error="insufficient_scope""#;
        type Row<'a> = (u16, &'a [(&'static str, &'a str)], &'a str, bool);
        let rows: [Row<'_>; 14] = [
            (404, &[], object, true),
            (403, &[("content-type", "text/html")], object, true),
            (403, &[("www-authenticate", bearer)], "", true),
            (401, &[("www-authenticate", "SSWS")], "", true),
            (401, &[("www-authenticate", "Basic realm=\"proxy\"")], "", false),
            (404, &[("www-authenticate", bearer)], "", false),
            (401, &[("www-authenticate", "SSWS")], "<html>", false),
            (401, &[], "", false),
            (404, &[], "", false),
            (405, &[], "", false),
            (404, &[], "<html></html>", false),
            (404, &[], r#"{"status":404,"message":"Resource not found"}"#, false),
            (404, &[], r#"{"errorCode":7}"#, false),
            (404, &[], r#"[{"errorCode":"E0000007"}]"#, false),
        ];
        for (status, headers, body, is_own) in rows {
            assert_eq!(
                OktaError::is_in(&response(status, headers, body)),
                is_own,
                "{status} {headers:?} {body}"
            );
        }
    }

    #[test]
    fn a_404_names_what_is_missing() {
        let body =
            r#"{"errorCode":"E0000007","errorSummary":"Not found: Resource not found: 00u1 (x) (User)"}"#;
        assert_eq!(OktaError::read(&response(404, &[], body)).missing(), Some(("00u1 (x)", "User")));
    }
}
