//! The answers, one kind each, and what comes of them.

use std::io::Write as _;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::server::{Answer, Part};
use crate::world::{ANSWER_BYTES_MAX, JANE, Patience};

/// What is to come of a kind of answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It is not Okta's: a failed attempt, a paused connection, a write that is looked for.
    NotOkta,
    /// It is not the answer to this request, and good enough for a probe: the invocation fails alone.
    Another,
    /// There is no whole answer: the same.
    NoAnswer,
    /// It is larger than any answer: it would be so again.
    TooLarge,
    /// It is what was asked for, for a read of a user.
    Good,
    /// Okta refuses: what a read is told, and a write.
    Refused(&'static str, &'static str),
    /// Okta refuses the credential.
    Unauthorized,
    /// Okta's limit: whoever waits for two seconds only is told when to come again.
    Limited,
    /// Okta asks for more time than there is: the same.
    Later,
}

/// A kind of answer.
#[derive(Clone)]
pub struct Kind {
    pub name: String,
    pub answer: Answer,
    pub end: End,
    pub when_busy: Patience,
}

/// What a sign-in page, a captive portal or a proxy says. It echoes what was asked.
const PAGE: &str = "<html><head><title>Sign in</title></head><body>$ECHO</body></html>";

/// The user of the org.
pub fn user(status: &str) -> String {
    format!(r#"{{"id":"{JANE}","status":"{status}","profile":{{"login":"jane@example.com"}}}}"#)
}

/// A whole answer with these headers.
pub fn whole(status: &str, headers: &str, body: impl AsRef<[u8]>) -> Answer {
    let body = body.as_ref();
    let head =
        format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
    vec![Part::Send([head.as_bytes(), body].concat())]
}

/// A whole answer of Okta's.
pub fn json_answer(status: &str, headers: &str, body: impl AsRef<[u8]>) -> Answer {
    whole(status, &format!("content-type: application/json\r\n{headers}"), body)
}

fn page(status: &str, headers: &str) -> Answer {
    // Of the page's own length, whatever is echoed: the end of the connection is its end.
    let head =
        format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-type: text/html\r\n{headers}\r\n{PAGE}");
    vec![Part::Send(head.into_bytes())]
}

/// The first bytes of an answer that says it has JSON in pieces.
fn chunked(bytes: &str) -> Part {
    Part::Send(
        format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n{bytes}"
        )
        .into_bytes(),
    )
}

fn refusal(code: &str) -> String {
    format!(r#"{{"errorCode":"{code}","errorSummary":"Why.","errorCauses":[]}}"#)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An org with one user, who is active.
pub fn good_org(asked: &str) -> Answer {
    match asked.split(' ').next() {
        Some("GET") if asked.contains("limit=") => json_answer("200 OK", "", format!("[{}]", user("ACTIVE"))),
        Some("GET") => json_answer("200 OK", "", user("ACTIVE")),
        _ => json_answer("200 OK", "", "{}"),
    }
}

fn rate(limit: &str, remaining: &str, reset: &str) -> String {
    format!(
        "x-rate-limit-limit: {limit}\r\nx-rate-limit-remaining: {remaining}\r\nx-rate-limit-reset: {reset}\r\n"
    )
}

/// All kinds.
pub fn kinds() -> Vec<Kind> {
    [pages(), shapes(), broken(), never_ending(), absurd_headers(), refusals()].concat()
}

fn kind(name: impl Into<String>, end: End, answer: Answer) -> Kind {
    Kind { name: name.into(), answer, end, when_busy: Patience::Usual }
}

/// Pages and redirects of something in between.
fn pages() -> Vec<Kind> {
    const STATUSES: [&str; 22] = [
        "200 OK",
        "201 Created",
        "202 Accepted",
        "203 Elsewhere",
        "206 Partial Content",
        "300 Choices",
        "304 Not Modified",
        "400 Bad Request",
        "401 Unauthorized",
        "402 Pay",
        "403 Forbidden",
        "404 Not Found",
        "405 Not Allowed",
        "407 Proxy",
        "410 Gone",
        "414 Too Long",
        "429 Too Many",
        "451 Legal",
        "500 Error",
        "501 Not There",
        "503 Unavailable",
        "511 Sign In",
    ];
    let mut kinds: Vec<Kind> = STATUSES
        .iter()
        .map(|status| kind(format!("a page with {status}"), End::NotOkta, page(status, "")))
        .collect();
    for status in ["301 Moved", "302 Found", "303 Other", "307 Moved", "308 Moved"] {
        for to in ["https://evil.example/login", "/api/v1/users/me", "http://127.0.0.1:9/api/v1/users"] {
            let answer = page(status, &format!("location: {to}\r\n"));
            kinds.push(kind(format!("{status} to {to}"), End::NotOkta, answer));
        }
    }
    for status in ["502 Bad Gateway", "504 Timeout"] {
        kinds.push(kind(format!("a page with {status}"), End::NotOkta, page(status, "")));
    }
    kinds.extend([
        kind(
            "a proxy that asks for a password",
            End::NotOkta,
            page("401 Unauthorized", "www-authenticate: Basic\r\n"),
        ),
        kind(
            "an empty 401 of a proxy",
            End::NotOkta,
            whole("401 No", "www-authenticate: Basic realm=\"p\"\r\n", ""),
        ),
        kind("an empty 403", End::NotOkta, whole("403 Forbidden", "", "")),
        kind("an empty 404", End::NotOkta, whole("404 Not Found", "", "")),
        kind("an empty 405", End::NotOkta, whole("405 Not Allowed", "", "")),
        kind(
            "a gateway's 404",
            End::NotOkta,
            json_answer("404 Not Found", "", r#"{"message":"no Route matched"}"#),
        ),
        kind(
            "a gateway's 429",
            End::NotOkta,
            json_answer("429 Slow", "retry-after: 3600\r\n", r#"{"message":"slow"}"#),
        ),
        kind("a page that asks for a day", End::NotOkta, page("503 Unavailable", "retry-after: 86400\r\n")),
    ]);
    kinds
}

/// Good answers of another shape.
fn shapes() -> Vec<Kind> {
    let bodies: [(&str, String); 19] = [
        ("an error object", refusal("E0000009")),
        ("an error object with an id", format!(r#"{{"id":"{JANE}","errorCode":"E0000009"}}"#)),
        ("an empty list", "[]".into()),
        ("a list of the user", format!("[{}]", user("ACTIVE"))),
        ("null", "null".into()),
        ("a text", "\"ok\"".into()),
        ("a number", "1".into()),
        ("another object", r#"{"message":"welcome"}"#.into()),
        ("another user", user("ACTIVE").replace(JANE, "00u2abCdEfGhIjKlMnOp")),
        ("an id that is a number", r#"{"id":1,"status":"ACTIVE"}"#.into()),
        ("an id that is null", r#"{"id":null,"status":"ACTIVE"}"#.into()),
        ("an id that stands twice", format!(r#"{{"id":"{JANE}","id":"{JANE}"}}"#)),
        ("half of the JSON", user("ACTIVE").split_at(40).0.into()),
        ("JSON and more", format!("{}<!-- proxy -->", user("ACTIVE"))),
        ("a mark before the JSON", format!("\u{feff}{}", user("ACTIVE"))),
        ("a NUL in a text", user("ACTIVE").replace("jane@", "jane\0@")),
        ("JSON a hundred thousand deep", format!(r#"{{"id":"{JANE}","x":{}"#, "[".repeat(100_000))),
        ("whole JSON that is too deep", {
            format!(r#"{{"id":"{JANE}","x":{}{}}}"#, "[".repeat(200), "]".repeat(200))
        }),
        ("nothing", String::new()),
    ];
    let mut kinds: Vec<Kind> = bodies
        .into_iter()
        .map(|(name, body)| {
            // Who may see no user sees an empty list, and that is Okta's own answer to a probe.
            let end = if name.contains("list") { End::Another } else { End::NotOkta };
            kind(format!("200 with {name}"), end, json_answer("200 OK", "", body))
        })
        .collect();
    let not_utf8 = [user("ACTIVE").replace("\"}}", "").as_bytes(), b"\xff\xfe\"}}"].concat();
    kinds.extend([
        kind("200 with bytes that are no UTF-8", End::NotOkta, json_answer("200 OK", "", not_utf8)),
        kind(
            "204 for a user",
            End::NotOkta,
            vec![Part::Send(b"HTTP/1.1 204 None\r\nconnection: close\r\n\r\n".to_vec())],
        ),
        kind("204 with a body", End::NotOkta, json_answer("204 None", "", user("ACTIVE"))),
        kind(
            "a user without a profile",
            End::Good,
            json_answer("200 OK", "", format!(r#"{{"id":"{JANE}","profile":null}}"#)),
        ),
        kind("huge numbers", End::Good, {
            json_answer("200 OK", "", format!(r#"{{"id":"{JANE}","n":[1e999999,{}]}}"#, "9".repeat(400)))
        }),
        kind(
            "names that stand twice",
            End::Good,
            json_answer("200 OK", "", format!(r#"{{"id":"{JANE}","a":1,"a":2}}"#)),
        ),
        kind(
            "JSON that calls itself a page",
            End::Good,
            whole("200 OK", "content-type: text/html\r\n", user("ACTIVE")),
        ),
        kind("JSON that calls itself nothing", End::Good, whole("200 OK", "", user("ACTIVE"))),
        kind("JSON of HTTP/1.0", End::Good, {
            vec![Part::Send(format!("HTTP/1.0 200 OK\r\n\r\n{}", user("ACTIVE")).into_bytes())]
        }),
        kind(
            "gzip unasked",
            End::Good,
            json_answer("200 OK", "content-encoding: gzip\r\n", gzip(user("ACTIVE").as_bytes())),
        ),
        kind(
            "a gzipped page",
            End::NotOkta,
            whole("200 OK", "content-encoding: gzip\r\n", gzip(PAGE.as_bytes())),
        ),
        kind(
            "an encoding that nobody asked for",
            End::NotOkta,
            json_answer("200 OK", "content-encoding: br\r\n", b"\x0b\x02\x80"),
        ),
    ]);
    kinds
}

/// Answers that are cut, or are none.
fn broken() -> Vec<Kind> {
    let gzipped = gzip(user("ACTIVE").as_bytes());
    let half = gzipped[..gzipped.len() / 2].to_vec();
    let bomb = gzip(&vec![b' '; 2 * ANSWER_BYTES_MAX]);
    let answers: [(&str, Answer); 12] = [
        (
            "a body shorter than it says",
            vec![Part::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"id\":".to_vec())],
        ),
        ("a piece that is cut", vec![chunked("40\r\n{\"id\":")]),
        ("pieces without an end", vec![chunked("2\r\n{}\r\n")]),
        ("a size that is no number", vec![chunked("zz\r\n{}\r\n")]),
        ("a head that is cut", vec![Part::Send(b"HTTP/1.1 200 OK\r\ncontent-ty".to_vec())]),
        ("no head", vec![Part::Send(b"{\"id\":1}\r\n\r\n".to_vec())]),
        ("the end at once", vec![]),
        ("a reset", vec![Part::Reset]),
        ("half of a gzip", json_answer("200 OK", "content-encoding: gzip\r\n", half)),
        ("what is no gzip", json_answer("200 OK", "content-encoding: gzip\r\n", user("ACTIVE"))),
        (
            "a gzip that grows to twice the largest answer",
            json_answer("200 OK", "content-encoding: gzip\r\n", bomb),
        ),
        (
            "two lengths",
            vec![Part::Send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}".to_vec())],
        ),
    ];
    answers
        .into_iter()
        .map(|(name, answer)| {
            let end = if name.contains("largest") { End::TooLarge } else { End::NoAnswer };
            kind(name, end, answer)
        })
        .collect()
}

/// Answers that have no end.
fn never_ending() -> Vec<Kind> {
    let head = || Part::Send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n".to_vec());
    let spaces = vec![b' '; 64 * 1024];
    let now = Duration::ZERO;
    let bounded = [
        ("a body without an end", vec![head(), Part::Endless(spaces.clone(), now)]),
        (
            "a page without an end",
            vec![
                Part::Send(b"HTTP/1.1 404 Not Found\r\ncontent-type: text/html\r\n\r\n<html>".to_vec()),
                Part::Endless(spaces, now),
            ],
        ),
        (
            "headers without an end",
            vec![
                Part::Send(b"HTTP/1.1 200 OK\r\n".to_vec()),
                Part::Endless(
                    b"x-filler: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n".to_vec(),
                    now,
                ),
            ],
        ),
        (
            "a header without an end",
            vec![
                Part::Send(b"HTTP/1.1 200 OK\r\nx-filler: ".to_vec()),
                Part::Endless(vec![b'a'; 64 * 1024], now),
            ],
        ),
    ];
    let timed = [
        ("silence", vec![Part::Hang]),
        ("silence amid the head", vec![Part::Send(b"HTTP/1.1 200 OK\r\n".to_vec()), Part::Hang]),
        ("silence amid the body", vec![head(), Part::Send(b"{\"id\":".to_vec()), Part::Hang]),
        ("a drop at a time", vec![head(), Part::Endless(b" ".to_vec(), Duration::from_millis(20))]),
        (
            "interim answers without an end",
            vec![Part::Endless(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec(), Duration::from_millis(1))],
        ),
    ];
    let bounded = bounded.into_iter().map(|(name, answer)| {
        // A head without an end is none; a body is taken up to its bound.
        let end = if name.contains("header") { End::NoAnswer } else { End::TooLarge };
        kind(name, end, answer)
    });
    let timed = timed
        .into_iter()
        .map(|(name, answer)| Kind { when_busy: Patience::Short, ..kind(name, End::NoAnswer, answer) });
    bounded.chain(timed).collect()
}

/// Okta's answers with headers that say what cannot be.
fn absurd_headers() -> Vec<Kind> {
    const YEAR_9999: &str = "253402300799";
    let good: [(&str, String); 13] = [
        ("a limit below nothing", rate("-1", "-1", "-1")),
        ("a limit beyond numbers", rate("9223372036854775808", "9223372036854775808", "9223372036854775808")),
        ("a limit that is no number", rate("NaN", "inf", "soon")),
        ("a limit of nothing", rate("0", "0", "1")),
        ("a reset of 1970", rate("600", "599", "0")),
        ("a reset of the year 9999", rate("600", "599", YEAR_9999)),
        ("more left than there is", rate("1", "4294967295", "1700000000")),
        ("a reset that stands ten times", rate("600", "599", "1700000000").repeat(10)),
        ("a date of the year 9999", "date: Fri, 31 Dec 9999 23:59:59 GMT\r\n".into()),
        ("a date of 1970", "date: Thu, 01 Jan 1970 00:00:00 GMT\r\n".into()),
        ("a wait of thirty thousand years", "retry-after: 1000000000000\r\n".into()),
        ("a request id of 64 KiB", format!("x-okta-request-id: {}\r\n", "a".repeat(64 * 1024))),
        ("a cookie", "set-cookie: sid=1; Domain=evil.example\r\n".into()),
    ];
    let mut kinds: Vec<Kind> = good
        .into_iter()
        .map(|(name, headers)| kind(name, End::Good, json_answer("200 OK", &headers, user("ACTIVE"))))
        .collect();
    let links = "link: <https://evil.example/api/v1/users?after=x>; rel=\"next\"\r\n".repeat(200);
    kinds.push(kind("two hundred links", End::NoAnswer, json_answer("200 OK", &links, user("ACTIVE"))));
    for (name, reset) in [("the year 9999", YEAR_9999), ("in a hundred days", "1900000000")] {
        let answer = json_answer("429 Slow", &rate("600", "0", reset), refusal("E0000047"));
        kinds.push(kind(format!("a 429 until {name}"), End::Limited, answer));
    }
    kinds.extend([
        kind("a 429 without headers", End::Limited, json_answer("429 Slow", "", refusal("E0000047"))),
        kind("a 429 with headers that are no numbers", End::Limited, {
            json_answer("429 Slow", &rate("NaN", "-1", "soon"), refusal("E0000047"))
        }),
        kind("a 503 that asks for thirty thousand years", End::Later, {
            json_answer("503 Unavailable", "retry-after: 1000000000000\r\n", refusal("E0000013"))
        }),
    ]);
    kinds
}

/// What Okta refuses: these are its own answers.
fn refusals() -> Vec<Kind> {
    let challenge = "www-authenticate: Bearer error=\"insufficient_scope\", scope=\"okta.users.read\"\r\n";
    let missing = r#"{"errorCode":"E0000007","errorSummary":"Not found: Resource not found: x (User)"}"#;
    vec![
        kind("a user who is not there", End::Refused("failed not_found none", "failed not_found none"), {
            json_answer("404 Not Found", "", missing)
        }),
        kind("a right that is missing", End::Refused("failed forbidden none", "failed forbidden none"), {
            json_answer("403 Forbidden", "", refusal("E0000006"))
        }),
        kind("a scope that is missing", End::Refused("failed forbidden none", "failed forbidden none"), {
            whole("403 Forbidden", challenge, "")
        }),
        kind(
            "a refusal without a type",
            End::Refused("failed okta_rejected none", "failed okta_rejected none"),
            whole("400 Bad Request", "", refusal("E0000001")),
        ),
        kind("a token that is no good", End::Unauthorized, json_answer("401 No", "", refusal("E0000011"))),
        kind("an empty 401 of Okta's", End::Unauthorized, {
            whole("401 No", "www-authenticate: Bearer error=\"invalid_token\"\r\n", "")
        }),
    ]
}
