//! Okta's `Link` headers, which name the next page.
//!
//! Only path and query of a link are used. Its host is the org's own name, which may differ from
//! the domain that was called, and the credential goes to the configured host alone.

use http::HeaderMap;

/// Path and decoded query of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The path, still percent-encoded; begins with `/api/v1/`.
    pub path: String,
    /// The query's names and values, decoded, in order.
    pub query: Vec<(String, String)>,
}

/// Returns the link with `rel="next"`, if there is one.
///
/// `self` and `next` come as separate headers in modern answers and joined by a comma in older ones;
/// the order is not fixed, and a URL may hold commas of its own.
pub fn next(headers: &HeaderMap) -> Option<Link> {
    headers
        .get_all(http::header::LINK)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(split)
        .find(|(_, parameters)| is_next(parameters))
        .and_then(|(target, _)| parse(target))
}

/// Splits one header value into (target, parameters) pairs; commas inside `<>` or quotes do not count.
fn split(value: &str) -> Vec<(&str, &str)> {
    let mut links = Vec::new();
    let mut rest = value;
    while let Some(open) = rest.find('<') {
        let Some(close) = rest[open..].find('>').map(|at| open + at) else { break };
        let target = &rest[open + 1..close];
        let after = &rest[close + 1..];
        let mut quoted = false;
        let end = after
            .char_indices()
            .find(|(_, c)| {
                quoted ^= *c == '"';
                *c == ',' && !quoted
            })
            .map_or(after.len(), |(at, _)| at);
        links.push((target, &after[..end]));
        rest = &after[end..];
    }
    links
}

/// Returns true if the parameters of a link hold `rel` with `next` among its values.
fn is_next(parameters: &str) -> bool {
    parameters.split(';').any(|parameter| {
        parameter.split_once('=').is_some_and(|(name, value)| {
            name.trim().eq_ignore_ascii_case("rel")
                && value
                    .trim()
                    .trim_matches('"')
                    .split_whitespace()
                    .any(|rel| rel.eq_ignore_ascii_case("next"))
        })
    })
}

/// Parses path and query of a target; `None` if the path is not below `/api/v1/`.
fn parse(target: &str) -> Option<Link> {
    let below_host = match target.find("://") {
        Some(at) => {
            let rest = &target[at + 3..];
            &rest[rest.find('/')?..]
        }
        None => target,
    };
    let below_host = below_host.split('#').next().unwrap_or_default();
    let (path, query) = below_host.split_once('?').unwrap_or((below_host, ""));
    let climbs = path.split('/').any(|segment| {
        let decoded = percent_encoding::percent_decode_str(segment).decode_utf8_lossy();
        decoded == "." || decoded == ".."
    });
    if !path.starts_with("/api/v1/") || climbs {
        return None;
    }
    let query = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    Some(Link { path: path.to_owned(), query })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for value in values {
            map.append("link", value.parse().unwrap());
        }
        map
    }

    #[test]
    fn next_is_found_in_any_order_and_either_form() {
        let own = r#"<https://acme.okta.com/api/v1/users?limit=2>; rel="self""#;
        let next_link = r#"<https://acme.okta.com/api/v1/users?after=00u1&limit=2>; rel="next""#;
        let joined = format!("{own}, {next_link}");
        for values in [vec![own, next_link], vec![next_link, own], vec![joined.as_str()]] {
            let link = next(&headers(&values)).unwrap();
            assert_eq!(link.path, "/api/v1/users");
            assert_eq!(link.query, [("after".into(), "00u1".into()), ("limit".into(), "2".into())]);
        }
        assert_eq!(next(&headers(&[own])), None);
    }

    #[test]
    fn commas_inside_the_target_or_quotes_do_not_split() {
        let value = r#"<https://a.okta.com/api/v1/users?search=a,b>; title="x, y"; rel="self", <https://a.okta.com/api/v1/users?after=c,d>; rel=next"#;
        assert_eq!(next(&headers(&[value])).unwrap().query[0].1, "c,d");
    }

    #[test]
    fn a_foreign_host_leaves_only_path_and_query() {
        let link = next(&headers(&[r#"<https://evil.example/api/v1/users?after=x>; rel="next""#])).unwrap();
        assert_eq!(link.path, "/api/v1/users");
    }

    #[test]
    fn a_path_outside_the_api_is_no_link() {
        for target in
            ["https://a.okta.com/", "//evil.example/api/v1/users", "/api/v1/../../x", "/api/v1/%2e%2e/x"]
        {
            let value = format!(r#"<{target}>; rel="next""#);
            assert_eq!(next(&headers(&[&value])), None, "{target}");
        }
    }

    #[test]
    fn queries_are_decoded() {
        let link =
            next(&headers(&[r#"</api/v1/users?search=a+eq%20%22b%22&after=%2B>; rel="next""#])).unwrap();
        assert_eq!(link.query, [("search".into(), r#"a eq "b""#.into()), ("after".into(), "+".into())]);
    }
}
