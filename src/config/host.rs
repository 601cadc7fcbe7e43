//! The address of an org: its domain, or a base URL instead.
//!
//! The mistakes refused here are common ones of users of Okta's SDKs, so each has its own message. A
//! faulty text is never repeated (it may hold a password), only the host that was probably meant.

use crate::domain::http::is_loopback;

use http::Uri;

/// The longest host name, in bytes (RFC 1035).
const HOST_BYTES_MAX: usize = 253;

/// The longest label of a host name, in bytes (RFC 1035).
const LABEL_BYTES_MAX: usize = 63;

/// The placeholders for the reader's own name in examples and manuals, as a whole part of the host.
const PLACEHOLDERS: [&str; 8] = [
    "youroktadomain",
    "your-okta-domain",
    "yourdomain",
    "your-domain",
    "yourorg",
    "your-org",
    "yoursubdomain",
    "your-subdomain",
];

const PLACEHOLDER: &str = "still holds the placeholder of an example";
const ADMIN_CONSOLE: &str = "must be the host of the org, not of its admin console";

/// Parses a domain such as `acme.okta.com`; it is lower-cased.
///
/// # Errors
/// The fault, and the domain that was probably meant.
pub(super) fn domain(text: &str) -> Result<String, String> {
    let domain = text.to_ascii_lowercase();
    let Some(fault) = fault(&domain) else { return Ok(domain) };
    let meant = bare(&domain);
    match self::fault(&meant) {
        None => Err(format!("{fault}, did you mean `{meant}`?")),
        Some(_) => Err(fault.to_owned()),
    }
}

/// Returns the fault of a lower-cased domain.
fn fault(domain: &str) -> Option<&'static str> {
    let has = |part: &str| domain.contains(part);
    let label_is_fine = |label: &str| {
        !label.is_empty()
            && label.len() <= LABEL_BYTES_MAX
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let rows = [
        (domain.is_empty(), "must not be empty"),
        (holds_placeholder(domain), PLACEHOLDER),
        (domain.contains(char::is_whitespace), "must not hold white space"),
        (has("://"), "must be a host without a scheme"),
        (has("@"), "must be a host without a user"),
        (domain.contains(['/', '?', '#', '\\']), "must be a host without a path"),
        (has(":"), "must be a host without a port"),
        (has("-admin."), ADMIN_CONSOLE),
        (has(".com.com"), "holds `.com` twice"),
        (!has("."), "must be a whole host name such as `acme.okta.com`"),
        (
            domain.len() > HOST_BYTES_MAX || !domain.split('.').all(label_is_fine),
            "must be a host name such as `acme.okta.com`",
        ),
    ];
    rows.into_iter().find(|(is_so, _)| *is_so).map(|(_, fault)| fault)
}

/// Returns true if a lower-cased text holds an example's placeholder.
fn holds_placeholder(text: &str) -> bool {
    text.contains(['{', '<', '$']) || text.split(['.', '/', ':']).any(|part| PLACEHOLDERS.contains(&part))
}

/// Extracts the host from a pasted URL.
fn bare(text: &str) -> String {
    let text = text.trim();
    let text = text.split_once("://").map_or(text, |(_, rest)| rest);
    let text = text.split(['/', '?', '#', '\\']).next().unwrap_or(text);
    let text = text.rsplit('@').next().unwrap_or(text);
    let text = text.split(':').next().unwrap_or(text);
    text.replace("-admin.", ".").replace(".com.com", ".com")
}

/// A base URL, and the reach of the requests to it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BaseUrl {
    pub(super) text: String,
    pub(super) reach: Reach,
}

/// The reach of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// Requests stay on this machine.
    Loopback,
    /// Requests leave this machine.
    Network,
}

/// Parses a base URL: `https`, or plain `http` to loopback; a trailing slash is dropped.
///
/// # Errors
/// The fault.
pub(super) fn base_url(text: &str) -> Result<BaseUrl, String> {
    let lower = text.to_ascii_lowercase();
    if holds_placeholder(&lower) {
        return Err(PLACEHOLDER.to_owned());
    }
    if text.contains('@') {
        return Err("must not hold a user or password".to_owned());
    }
    let shape = "must be a URL such as `https://acme.okta.com`";
    let uri: Uri = text.parse().map_err(|_| shape.to_owned())?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(shape.to_owned());
    };
    if uri.path() != "/" || uri.query().is_some() || text.contains('#') {
        return Err("must not hold a path, a query or a fragment".to_owned());
    }
    let host = authority.host().to_ascii_lowercase();
    let port = &authority.as_str()[host.len()..];
    if host.is_empty() || !(port.is_empty() || authority.port_u16().is_some_and(|port| port > 0)) {
        return Err(shape.to_owned());
    }
    if host.contains("-admin.") {
        return Err(format!("{ADMIN_CONSOLE}, did you mean `https://{}{port}`?", bare(&host)));
    }
    let reach = reach(&host);
    match (scheme, reach) {
        ("https", Reach::Loopback | Reach::Network) | ("http", Reach::Loopback) => {
            Ok(BaseUrl { text: format!("{scheme}://{host}{port}"), reach })
        }
        ("http", Reach::Network) => Err(
            "must be https: plain http would show the token to the network; it is accepted for loopback only"
                .to_owned(),
        ),
        _ => Err(shape.to_owned()),
    }
}

fn reach(host: &str) -> Reach {
    if is_loopback(host) { Reach::Loopback } else { Reach::Network }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_was_pasted_the_host_is_suggested() {
        for pasted in [
            "https://acme.okta.com",
            "https://acme-admin.okta.com/admin/users?x=1",
            "acme.okta.com/",
            "jane:hunter2@acme.okta.com",
            "acme.okta.com:443",
            " acme.okta.com",
            "ACME-admin.okta.com",
            "acme.okta.com.com",
        ] {
            let message = domain(pasted).unwrap_err();
            assert!(message.ends_with("did you mean `acme.okta.com`?"), "{pasted}: {message}");
        }
        assert_eq!(domain("Acme.Okta.com").unwrap(), "acme.okta.com");
    }

    #[test]
    fn plain_http_stays_on_this_machine() {
        for local in
            ["http://127.0.0.1:8085", "http://127.9.9.9", "http://[::1]:80", "http://LocalHost:8085/"]
        {
            assert_eq!(base_url(local).unwrap().reach, Reach::Loopback, "{local}");
        }
        for remote in [
            "http://acme.okta.com",
            "http://10.0.0.1",
            "http://localhost.example.com",
            "http://127.0.0.1.example.com",
            "http://0.0.0.0",
            "http://127.0.0.1@acme.okta.com",
            "http://[::2]",
        ] {
            assert!(base_url(remote).is_err(), "{remote}");
        }
        let url = base_url("https://Gateway.example.com:8443/").unwrap();
        assert_eq!(url, BaseUrl { text: "https://gateway.example.com:8443".into(), reach: Reach::Network });
    }

    #[test]
    fn a_base_url_is_scheme_host_and_port() {
        for bad in [
            "",
            "acme.okta.com",
            "ftp://acme.okta.com",
            "https://",
            "https://acme.okta.com/api/v1",
            "https://acme.okta.com?x",
            "https://acme.okta.com/#x",
            "https://acme.okta.com:",
            "https://acme.okta.com:0",
            "https://acme.okta.com:99999",
            "https://acme-admin.okta.com",
            "https://{yourOktaDomain}",
            "https://a b",
            "/path",
            "https://acme.okta.com//",
        ] {
            assert!(base_url(bad).is_err(), "{bad}");
        }
    }
}
