//! Masking of credentials that an answer repeats, such as an error that quotes a header, or a gateway's page about a
//! request: this file masks them before any other code reads the answer.

use http::header::{HeaderMap, HeaderValue};

use crate::domain::http::{NoAnswer, Response};
use crate::domain::secret::Redactor;

/// The shortest token that is masked by itself. A shorter one, such as a test's, is masked only together with its
/// scheme, because masking it alone would mask every equal word.
const BARE_BYTES_MIN: usize = 8;

/// The shortest line of a private key that is masked.
const KEY_LINE_BYTES_MIN: usize = 32;

/// The secrets that no answer may repeat.
#[derive(Debug)]
pub(super) struct Echoes(Redactor);

impl Echoes {
    /// Collects the credential in an `Authorization` header.
    pub fn of_header(authorization: &HeaderValue) -> Self {
        let whole = authorization.to_str().expect("it was made of visible characters");
        let bare = whole.split_once(' ').map_or(whole, |(_, token)| token);
        Self(Redactor::new(
            [whole, bare].into_iter().filter(|text| *text == whole || text.len() >= BARE_BYTES_MIN),
        ))
    }

    /// Collects a service app's assertion and the key that signed it.
    pub fn of_assertion(assertion: &str, private_key: &str) -> Self {
        let lines = private_key.lines().map(str::trim).filter(|line| line.len() >= KEY_LINE_BYTES_MIN);
        Self(Redactor::new([assertion, private_key].into_iter().chain(lines)))
    }

    /// Returns the answer with these secrets masked.
    pub fn hidden_in(&self, answer: Result<Response, NoAnswer>) -> Result<Response, NoAnswer> {
        let Self(redactor) = self;
        match answer {
            Ok(mut response) => {
                if let Some(body) = redactor.bytes(&response.body) {
                    response.body = body.into();
                }
                self.hide_in_headers(&mut response.headers);
                Ok(response)
            }
            Err(NoAnswer::NotSent(why)) => Err(NoAnswer::NotSent(redactor.text(why))),
            Err(NoAnswer::MaybeSent(why)) => Err(NoAnswer::MaybeSent(redactor.text(why))),
            Err(NoAnswer::Local(why)) => Err(NoAnswer::Local(redactor.text(why))),
            Err(no_answer @ NoAnswer::TooLarge(_)) => Err(no_answer),
        }
    }

    fn hide_in_headers(&self, headers: &mut HeaderMap) {
        for value in headers.values_mut() {
            if let Some(masked) = self.0.bytes(value.as_bytes()) {
                *value = HeaderValue::from_bytes(&masked).expect("a mask can stand in a header");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE};

    use super::*;
    use crate::domain::secret::MASK;

    const TOKEN: &str = "00aBcDeF/hIjKlM+oPqRsTuVwXyZ-012345_78\"9abc";

    fn header() -> HeaderValue {
        HeaderValue::try_from(format!("SSWS {TOKEN}")).unwrap()
    }

    /// The forms in which a gateway may repeat a header.
    fn forms() -> Vec<String> {
        let mut forms =
            vec![TOKEN.to_owned(), format!("SSWS {TOKEN}"), format!("authorization: SSWS {TOKEN}")];
        for text in [
            TOKEN.to_owned(),
            format!("SSWS {TOKEN}"),
            format!("x{TOKEN}y"),
            format!("GET / SSWS {TOKEN}\r\n"),
        ] {
            forms.push(STANDARD.encode(&text));
            forms.push(URL_SAFE.encode(&text));
            forms.push(text.bytes().map(|byte| format!("{byte:02x}")).collect());
            forms.push(
                percent_encoding::utf8_percent_encode(&text, percent_encoding::NON_ALPHANUMERIC).to_string(),
            );
            forms.push(serde_json::to_string(&text).unwrap().trim_matches('"').to_owned());
        }
        forms
    }

    #[test]
    fn no_form_of_the_credential_passes() {
        let echoes = Echoes::of_header(&header());
        for form in forms() {
            let quoted = serde_json::to_string(&form).unwrap();
            let body = format!(r#"{{"errorCode":"E0000001","errorSummary":{quoted},"n":1e3}}"#);
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::try_from(&form) {
                headers.insert("location", value);
            }
            let answer = Response::new(400, headers, body);
            let shown = echoes.hidden_in(Ok(answer)).unwrap();
            let body = String::from_utf8(shown.body.to_vec()).unwrap();
            let value: serde_json::Value = serde_json::from_str(&body).expect("it is JSON still");
            let said = format!("{} {:?}", value["errorSummary"], shown.headers);
            assert!(body.contains(MASK) && body.ends_with(r#","n":1e3}"#), "{form}: {body}");
            for part in [&TOKEN[..8], &TOKEN[9..18], &TOKEN[20..30]] {
                assert!(!said.contains(part), "{form}: {said}");
            }
            let why = echoes.hidden_in(Err(NoAnswer::MaybeSent(form.clone()))).unwrap_err();
            assert!(!why.to_string().contains(&form) && why.to_string().contains(MASK), "{why}");
        }
    }

    #[test]
    fn what_repeats_nothing_passes_byte_for_byte() {
        let echoes = Echoes::of_header(&header());
        let body = bytes::Bytes::from_static(b"{\"id\":\"00u1\",\"profile\":{\"nickName\":\"SSWS\"}} \xff");
        let shown = echoes.hidden_in(Ok(Response::new(200, HeaderMap::new(), body.clone()))).unwrap();
        assert_eq!(shown.body.as_ptr(), body.as_ptr(), "nothing was copied");
    }

    #[test]
    fn a_short_token_is_masked_behind_its_scheme_only() {
        let echoes = Echoes::of_header(&HeaderValue::from_static("SSWS test"));
        let answer = Response::new(200, HeaderMap::new(), "a test, SSWS test");
        assert_eq!(echoes.hidden_in(Ok(answer)).unwrap().body, "a test, ***");
    }

    #[test]
    fn neither_an_assertion_nor_a_line_of_its_key_passes() {
        let line = "MHcCAQEEIPy0wq0qbOV4mCxVhQuqQ1d0p0oQnQvYw2Zk1o0v1b2coAoGCCqGSM49";
        let key = format!("-----BEGIN EC PRIVATE KEY-----\n{line}\n-----END EC PRIVATE KEY-----");
        let echoes = Echoes::of_assertion("eyJhbGciOiJFUzI1NiJ9.e30.c2lnbmF0dXJl", &key);
        let body = format!(
            r#"{{"error":"invalid_client","error_description":"eyJhbGciOiJFUzI1NiJ9.e30.c2lnbmF0dXJl {line}"}}"#
        );
        let shown = echoes.hidden_in(Ok(Response::new(400, HeaderMap::new(), body))).unwrap();
        assert_eq!(shown.body, r#"{"error":"invalid_client","error_description":"*** ***"}"#);
    }
}
