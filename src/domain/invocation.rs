//! The body of an invocation: subtool, arguments and options.
//!
//! Parsed in two stages: first the envelope here, later the raw arguments by the subtool's own type, so
//! that invalid arguments can still be answered, counted and labelled by subtool.

use std::fmt;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::json::{self, Fields};
use super::opposite::is_opposite;
use super::result::{ErrorCode, Failure};
use super::text::{excerpt, is_repeatable};

/// The largest body, in bytes.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;

/// The deepest nesting of a body, including the outer object.
pub const BODY_DEPTH_MAX: usize = 64;

/// The longest `options.reason`, in characters.
pub const REASON_CHARS_MAX: usize = 1024;

/// The most paths in `options.fields`.
pub const FIELDS_MAX: usize = 256;

/// The mark that some tools write before UTF-8, and that JSON does not allow.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// The parsed body of an invocation.
pub struct Envelope {
    /// The name of the subtool, known or not.
    pub subtool: String,
    /// The arguments, a JSON object not yet parsed.
    pub arguments: Box<RawValue>,
    /// The options.
    pub options: Options,
}

/// Shows no values: arguments may be secrets.
impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with {} bytes of arguments", excerpt(&self.subtool), self.arguments.get().len())
    }
}

/// The largest `options.max_bytes`: RabbitMQ 4 refuses messages over 16 MiB.
pub const RESULT_BYTES_MAX: u32 = 8 * 1024 * 1024;

/// Default for `options.max_bytes`.
pub const RESULT_BYTES_USUAL: u32 = 1024 * 1024;

/// The options of an invocation: execution and answer.
#[derive(Debug, Clone)]
pub struct Options {
    /// The time after which work is no longer begun.
    pub deadline: Option<Timestamp>,
    /// True if a write is only planned (dry run).
    pub dry_run: bool,
    /// The fields kept of each object in the result.
    pub fields: Fields,
    /// True if a list is only counted.
    pub count_only: bool,
    /// The largest result message, in bytes.
    pub bytes_max: u32,
    /// True if each page of a list is sent as its own message.
    pub stream: bool,
    /// Free text for the audit trail.
    pub reason: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            deadline: None,
            dry_run: false,
            fields: Fields::Whole,
            count_only: false,
            bytes_max: RESULT_BYTES_USUAL,
            stream: false,
            reason: None,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body<'a> {
    subtool: String,
    /// Serializers of other languages write `null` for an absent value.
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
    #[serde(borrow)]
    options: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawOptions {
    deadline: Option<String>,
    #[serde(default)]
    dry_run: bool,
    fields: Option<Vec<String>>,
    #[serde(default)]
    count_only: bool,
    max_bytes: Option<u32>,
    #[serde(default)]
    stream: bool,
    reason: Option<String>,
}

impl Envelope {
    /// Parses a body.
    ///
    /// # Errors
    /// `invalid_message`, with the path of the fault.
    pub fn decode(body: &[u8]) -> Result<Self, Failure> {
        if body.len() > BODY_BYTES_MAX {
            let message = format!("the body has {} bytes, at most {BODY_BYTES_MAX} are read", body.len());
            return Err(invalid(message, None));
        }
        let body = without_mark(body);
        let text = std::str::from_utf8(body).map_err(|error| {
            invalid(format!("the body is not UTF-8 (byte {})", error.valid_up_to()), None)
        })?;
        if json::is_deeper_than(body, BODY_DEPTH_MAX) {
            return Err(invalid(format!("the body nests deeper than {BODY_DEPTH_MAX}"), None));
        }
        if !text.trim_start().starts_with('{') {
            return Err(invalid("the body is not a JSON object".to_owned(), None));
        }
        let body: Body<'_> = parse(text, "", &["subtool", "arguments", "options"])?;
        let arguments = object(body.arguments, "arguments")?;
        let options = match body.options {
            None => Options::default(),
            Some(options) => Options::decode(object(Some(options), "options")?.get())?,
        };
        Ok(Self { subtool: body.subtool, arguments, options })
    }
}

/// Returns the body without a byte order mark.
fn without_mark(body: &[u8]) -> &[u8] {
    body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body)
}

/// Returns a body as JSON even if it is otherwise invalid; `None` if it is not JSON, too large or too deep.
pub fn raw(body: &[u8]) -> Option<&RawValue> {
    let body = without_mark(body);
    let is_small = body.len() <= BODY_BYTES_MAX && !json::is_deeper_than(body, BODY_DEPTH_MAX);
    is_small.then(|| serde_json::from_slice(body).ok()).flatten()
}

/// Returns the subtool that a body names, even if the body is otherwise invalid; `None` if that is unreadable.
pub fn named(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        subtool: String,
    }
    let object = raw(body).filter(|raw| raw.get().starts_with('{'))?;
    serde_json::from_str(object.get()).ok().map(|Named { subtool }| subtool)
}

impl Options {
    fn decode(text: &str) -> Result<Self, Failure> {
        const NAMES: [&str; 7] =
            ["deadline", "dry_run", "fields", "count_only", "max_bytes", "stream", "reason"];
        if let Ok(raw) = serde_json::from_str::<json::Object>(text)
            && let Some(name) =
                NAMES.iter().find(|name| raw.get(name).is_some_and(|value| value.get() == "null"))
        {
            return Err(invalid(
                format!("`{name}` may be absent, never null"),
                Some(format!("options.{name}")),
            ));
        }
        let raw: RawOptions = parse(text, "options", &NAMES)?;
        if raw.max_bytes.is_some_and(|bytes| !(1..=RESULT_BYTES_MAX).contains(&bytes)) {
            let message = format!("must be between 1 and {RESULT_BYTES_MAX}");
            return Err(invalid(message, Some("options.max_bytes".into())));
        }
        if raw.count_only && raw.stream {
            let message = "`stream` sends the items that `count_only` leaves out: give one of them";
            return Err(invalid(message.into(), Some("options.stream".into())));
        }
        let deadline = raw.deadline.as_deref().map(deadline).transpose()?;
        let paths = raw.fields;
        if paths.as_ref().is_some_and(|paths| paths.len() > FIELDS_MAX) {
            return Err(invalid(format!("at most {FIELDS_MAX} paths"), Some("options.fields".into())));
        }
        let fields = match paths.map(|paths| Fields::parse(&paths)).transpose() {
            Ok(fields) => fields.unwrap_or_default(),
            Err(at) => {
                let path = format!("options.fields.{at}");
                return Err(invalid("a field is a dotted path such as `profile.email`".into(), Some(path)));
            }
        };
        if raw.reason.as_ref().is_some_and(|reason| reason.chars().count() > REASON_CHARS_MAX) {
            let message = format!("the reason is longer than {REASON_CHARS_MAX} characters");
            return Err(invalid(message, Some("options.reason".into())));
        }
        let RawOptions { dry_run, count_only, max_bytes, stream, reason, .. } = raw;
        let bytes_max = max_bytes.unwrap_or(RESULT_BYTES_USUAL);
        Ok(Self { deadline, dry_run, fields, count_only, bytes_max, stream, reason })
    }
}

fn deadline(text: &str) -> Result<Timestamp, Failure> {
    rfc3339(text).ok_or_else(|| {
        let message = "must be an RFC 3339 time such as `2026-11-23T12:00:00Z`".to_owned();
        invalid(message, Some("options.deadline".into()))
    })
}

/// Parses an RFC 3339 time: `Timestamp` alone also accepts other forms of ISO 8601. The RFC allows letters in either
/// case, a space for the `T` and any number of decimals.
fn rfc3339(text: &str) -> Option<Timestamp> {
    const SECONDS: usize = "0000-00-00T00:00:00".len();
    const DECIMALS_MAX: usize = 9;
    let digit_as_0 = |c: char| if c.is_ascii_digit() { '0' } else { c.to_ascii_uppercase() };
    let shape: String = text.chars().map(digit_as_0).collect();
    let rest =
        ["0000-00-00T00:00:00", "0000-00-00 00:00:00"].iter().find_map(|date| shape.strip_prefix(date))?;
    let decimals = rest.strip_prefix('.').map(|rest| rest.len() - rest.trim_start_matches('0').len());
    let zone = decimals.map_or(rest, |decimals| &rest[1 + decimals..]);
    if decimals == Some(0) || !matches!(zone, "Z" | "+00:00" | "-00:00") {
        return None;
    }
    let kept = decimals.map_or(SECONDS, |decimals| SECONDS + 1 + decimals.min(DECIMALS_MAX));
    format!("{}{}", &text[..kept], &text[text.len() - zone.len()..]).parse().ok()
}

fn object(raw: Option<&RawValue>, path: &str) -> Result<Box<RawValue>, Failure> {
    match raw {
        None => Ok(RawValue::from_string("{}".to_owned()).expect("an empty object is JSON")),
        Some(raw) if raw.get().starts_with('{') => Ok(raw.to_owned()),
        Some(_) => Err(invalid(format!("`{path}` must be an object, or absent"), Some(path.to_owned()))),
    }
}

fn parse<'a, T: Deserialize<'a>>(text: &'a str, under: &str, names: &[&str]) -> Result<T, Failure> {
    read(text, under, names).map_err(|DecodeError { message, path }| invalid(message, path))
}

/// A fault in a JSON document of ours, and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError {
    /// The fault, in words that a caller can act on.
    pub message: String,
    /// The dotted path, with list items by index.
    pub path: Option<String>,
}

/// Parses JSON into one of our own types and reports where it does not fit. `under` is the path of the
/// document itself; `names` are its fields, from which the nearest is suggested for an unknown one.
///
/// # Errors
/// The first fault.
pub fn read<'a, T: Deserialize<'a>>(text: &'a str, under: &str, names: &[&str]) -> Result<T, DecodeError> {
    // The path is tracked only if there is a fault.
    if let Ok(value) = serde_json::from_str(text) {
        return Ok(value);
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let mut track = serde_path_to_error::Track::new();
    let document = Decode { text, under, names };
    let value = T::deserialize(serde_path_to_error::Deserializer::new(&mut deserializer, &mut track));
    match value {
        Ok(value) => match deserializer.end() {
            Ok(()) => Ok(value),
            Err(error) => Err(describe(&error, Vec::new(), document)),
        },
        Err(error) => Err(describe(&error, parts(&track.path()), document)),
    }
}

/// Returns the parts of a path in the contract's notation: `items.3`, not `items[3]`.
fn parts(path: &serde_path_to_error::Path) -> Vec<String> {
    use serde_path_to_error::Segment;
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(index.to_string()),
            Segment::Map { key } => Some(key.clone()),
            Segment::Enum { variant } => Some(variant.clone()),
            Segment::Unknown => None,
        })
        .collect()
}

/// Rephrases serde's error in the words of the contract. The message repeats no text of the caller's, since it may be a
/// secret in a wrong place: serde quotes values, and names that it does not know.
fn describe(error: &serde_json::Error, place: Vec<String>, document: Decode<'_>) -> DecodeError {
    let text = error.to_string();
    let text = text.rfind(" at line ").map_or(text.as_str(), |at| &text[..at]);
    if error.is_syntax() || error.is_eof() {
        // serde_json reports a list in place of an enum value as a syntax error.
        if serde_json::from_str::<serde::de::IgnoredAny>(document.text).is_ok() {
            let message = "invalid type, expected one of its values".to_owned();
            return DecodeError { message, path: document.path(place, None) };
        }
        return DecodeError {
            message: format!("the body is not JSON ({text}, line {})", error.line()),
            path: None,
        };
    }
    let quoted = || text.split('`').nth(1).unwrap_or_default().to_owned();
    let is_missing = text.starts_with("missing field");
    if is_missing || text.starts_with("duplicate field") {
        let name = quoted(); // one of our own
        let message = if is_missing { "is missing" } else { "stands there twice" };
        return DecodeError {
            message: format!("`{name}` {message}"),
            path: document.path(place, Some(&name)),
        };
    }
    if text.starts_with("unknown field") {
        return document.unknown_member(place);
    }
    DecodeError { message: without_values(text), path: document.path(place, None) }
}

/// Returns serde's message about a value without the value, if that is a string.
fn without_values(text: &str) -> String {
    // The expected type comes last, in our own words.
    let expected = text.rfind(", expected ").map_or("", |at| &text[at..]);
    if text.starts_with("unknown variant") {
        return format!("unknown value{expected}");
    }
    for kind in ["invalid type: string", "invalid value: string", "invalid type: character"] {
        if text.starts_with(kind) {
            return format!("{kind}{expected}");
        }
    }
    text.to_owned()
}

/// A JSON object that is parsed into one of our own types.
#[derive(Clone, Copy)]
struct Decode<'a> {
    text: &'a str,
    /// The path of the object itself.
    under: &'a str,
    /// The names of its known fields.
    names: &'a [&'a str],
}

impl Decode<'_> {
    /// Returns the dotted path of a place in the document.
    fn path(self, mut place: Vec<String>, name: Option<&str>) -> Option<String> {
        place.extend(name.map(str::to_owned));
        let under = Some(self.under.to_owned()).filter(|under| !under.is_empty());
        let parts: Vec<String> = under.into_iter().chain(place).collect();
        (!parts.is_empty()).then(|| parts.join("."))
    }

    /// Reports an unknown member: by its name if that cannot be a secret, otherwise by its number.
    fn unknown_member(self, mut place: Vec<String>) -> DecodeError {
        let members = serde_json::from_str::<json::Names>(self.text).unwrap_or_default().0;
        let found = members.iter().enumerate().find(|(_, name)| !self.names.contains(&name.as_str()));
        let (number, name) = found.map_or((0, ""), |(at, name)| (at + 1, name.as_str()));
        // If serde knew the member, it is the last part of the place.
        if place.last().is_some_and(|last| last == name) {
            place.pop();
        }
        let near = nearest(name, self.names.iter().copied());
        let hint = match near {
            Some(near) => format!(", did you mean `{near}`?"),
            None if self.names.is_empty() => String::new(),
            None => format!(", known are {}", list(self.names)),
        };
        if is_repeatable(name) {
            let message = format!("unknown field `{name}`{hint}");
            return DecodeError {
                message,
                path: self.path(place, Some(name).filter(|name| !name.is_empty())),
            };
        }
        DecodeError {
            message: format!("unknown field, number {number} here{hint}"),
            path: self.path(place, None),
        }
    }
}

/// Returns the names in backticks, separated by commas.
pub fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// Returns the known name nearest to a wrong one, if it is near enough and does not mean the opposite.
pub fn nearest<'a>(wrong: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    /// The least similarity: a name with half of its letters wrong is a guess, not a slip.
    const SIMILARITY_MIN: f64 = 0.6;
    let wrong: String = wrong.chars().take(64).collect();
    names
        .map(|name| (strsim::normalized_damerau_levenshtein(&wrong, name), name))
        .filter(|(similarity, name)| *similarity >= SIMILARITY_MIN && !is_opposite(&wrong, name))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

fn invalid(message: String, path: Option<String>) -> Failure {
    Failure::new(ErrorCode::InvalidMessage, message).at(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(body: &str) -> (String, Option<String>) {
        let failure = Envelope::decode(body.as_bytes()).expect_err(body);
        assert_eq!(failure.code, ErrorCode::InvalidMessage);
        (failure.message, failure.path)
    }

    #[test]
    fn a_deadline_has_the_form_of_rfc_3339_and_no_other() {
        let noon: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
        for text in [
            "2026-11-23T12:00:00Z",
            "2026-11-23t12:00:00z",
            "2026-11-23 12:00:00Z",
            "2026-11-23T12:00:00.000Z",
            "2026-11-23T12:00:00.0000000000009Z",
            "2026-11-23T13:30:00+01:30",
            "2026-11-23T12:00:00-00:00",
        ] {
            assert_eq!(rfc3339(text), Some(noon), "{text}");
        }
        assert!(rfc3339("2016-12-31T23:59:60Z").is_some(), "a leap second");
        for text in [
            "20261123T120000Z",
            "2026-11-23 12:00:00+00",
            "2026-11-23T12:00:00+0000",
            "2026-11-23T12:00:00",
            "2026-11-23T12:00Z",
            "2026-11-23T12Z",
            "2026-11-23",
            "2026-11-23T12:00:00,5Z",
            "2026-11-23T12:00:00.Z",
            "2026-11-23T12:00:00Z[UTC]",
            "2026-11-23T12:00:00+01:00[Europe/Paris]",
            "+002026-11-23T12:00:00Z",
            "2026-13-23T12:00:00Z",
            "2026-11-23T25:00:00Z",
            "2026-11-23_12:00:00Z",
            " 2026-11-23T12:00:00Z",
            "２026-11-23T12:00:00Z",
            "",
        ] {
            assert_eq!(rfc3339(text), None, "{text}");
        }
    }

    #[test]
    fn the_subtool_is_named_whatever_else_is_wrong() {
        let read = [
            r#"{"subtool":"x","arguments":[1]}"#,
            r#"{"subtool":"x","options":{"max_bytes":0}}"#,
            r#"{"argument":{},"subtool":"x"}"#,
        ];
        for body in read {
            fault(body);
            assert_eq!(named(body.as_bytes()).as_deref(), Some("x"), "{body}");
        }
        for body in [r#"{"subtool":1}"#, r#"{"subtool":"x","subtool":"y"}"#, r#"{"subtool":"x""#, r#"["x"]"#]
        {
            assert_eq!(named(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn every_fault_names_the_thing_and_the_place() {
        let rows: [(&str, &str, Option<&str>); 18] = [
            ("[]", "the body is not a JSON object", None),
            ("{", "the body is not JSON (EOF while parsing an object, line 1)", None),
            ("{}", "`subtool` is missing", Some("subtool")),
            (r#"{"subtool":1}"#, "invalid type: integer `1`, expected a string", Some("subtool")),
            (r#"{"subtool":null}"#, "invalid type: null, expected a string", Some("subtool")),
            (
                r#"{"subtool":"x","argument":{}}"#,
                "unknown field `argument`, did you mean `arguments`?",
                Some("argument"),
            ),
            (
                r#"{"subtool":"x","arguments":[]}"#,
                "`arguments` must be an object, or absent",
                Some("arguments"),
            ),
            (r#"{"subtool":"x","options":[]}"#, "`options` must be an object, or absent", Some("options")),
            ("\u{feff}[]", "the body is not a JSON object", None),
            ("\u{feff}\u{feff}{}", "the body is not a JSON object", None),
            (
                r#"{"subtool":"x","options":{"x":1}}"#,
                "unknown field `x`, known are `deadline`, `dry_run`, `fields`, `count_only`, `max_bytes`, `stream`, `reason`",
                Some("options.x"),
            ),
            (
                r#"{"subtool":"x","options":{"deadline":"soon"}}"#,
                "must be an RFC 3339 time such as `2026-11-23T12:00:00Z`",
                Some("options.deadline"),
            ),
            (
                r#"{"subtool":"x","options":{"deadline":null}}"#,
                "`deadline` may be absent, never null",
                Some("options.deadline"),
            ),
            (
                r#"{"subtool":"x","options":{"fields":["id","a..b"]}}"#,
                "a field is a dotted path such as `profile.email`",
                Some("options.fields.1"),
            ),
            (
                r#"{"subtool":"x","options":{"fields":["id",3]}}"#,
                "invalid type: integer `3`, expected a string",
                Some("options.fields.1"),
            ),
            (
                r#"{"subtool":"x","options":{"max_bytes":0}}"#,
                "must be between 1 and 8388608",
                Some("options.max_bytes"),
            ),
            (r#"{"subtool":"x","subtool":"y"}"#, "`subtool` stands there twice", Some("subtool")),
            (r#"{"subtool":"x"} {}"#, "the body is not JSON (trailing characters, line 1)", None),
        ];
        for (body, message, path) in rows {
            assert_eq!(fault(body), (message.to_owned(), path.map(str::to_owned)), "{body}");
        }
    }

    #[test]
    fn size_depth_and_encoding_are_bounded() {
        assert!(fault(&" ".repeat(BODY_BYTES_MAX + 1)).0.contains("1048577 bytes"));
        assert!(fault(&"[".repeat(100_000)).0.contains("deeper than 64"));
        let failure = Envelope::decode(b"{\"subtool\":\"\xff\"}").unwrap_err();
        assert_eq!(failure.message, "the body is not UTF-8 (byte 12)");
        assert!(
            fault(&format!(r#"{{"subtool":"x","options":{{"reason":"{}"}}}}"#, "x".repeat(1025)))
                .0
                .contains("1024")
        );
    }

    #[test]
    fn what_is_absent_or_null_is_empty_and_a_byte_order_mark_is_nothing() {
        for body in [
            r#"{"subtool":"get_user"}"#,
            r#"{"subtool":"get_user","arguments":null,"options":null}"#,
            r#"{"options": null, "subtool": "get_user"}"#,
            "\u{feff}{\"subtool\":\"get_user\"}",
            "\u{feff} \r\n{\"subtool\":\"get_user\",\"options\":null}",
        ] {
            let envelope = Envelope::decode(body.as_bytes()).unwrap();
            assert_eq!(envelope.arguments.get(), "{}", "{body}");
            assert_eq!(envelope.options.fields, Fields::Whole, "{body}");
            assert_eq!(named(body.as_bytes()).as_deref(), Some("get_user"), "{body}");
        }
    }

    #[test]
    fn the_default_value_of_an_option_asks_for_nothing() {
        let body = br#"{"subtool":"x","options":{"dry_run":false,"stream":false,"count_only":false}}"#;
        assert!(Envelope::decode(body).is_ok());
    }

    #[test]
    fn no_text_of_the_callers_is_repeated() {
        let secret = "hunter2, expected \\\"` at line 7";
        let rows = [
            (r#"{"subtool":"x","options":"$"}"#, "`options` must be an object, or absent", Some("options")),
            (
                r#"{"subtool":"x","options":{"deadline":"$"}}"#,
                "must be an RFC 3339 time such as `2026-11-23T12:00:00Z`",
                Some("options.deadline"),
            ),
            (
                r#"{"subtool":"x","options":{"max_bytes":"$"}}"#,
                "invalid type: string, expected u32",
                Some("options.max_bytes"),
            ),
            (
                r#"{"subtool":"x","options":{"fields":"$"}}"#,
                "invalid type: string, expected a sequence",
                Some("options.fields"),
            ),
            (
                r#"{"subtool":"x","arguments":{},"$":1}"#,
                "unknown field, number 3 here, known are `subtool`, `arguments`, `options`",
                None,
            ),
            (
                r#"{"subtool":"x","options":{"dry_run":true,"$":1}}"#,
                "unknown field, number 2 here, known are `deadline`, `dry_run`, `fields`, `count_only`, \
                 `max_bytes`, `stream`, `reason`",
                Some("options"),
            ),
            (
                r#"{"subtool":"x","options":{"$":null}}"#,
                "unknown field, number 1 here, known are `deadline`, `dry_run`, `fields`, `count_only`, \
                 `max_bytes`, `stream`, `reason`",
                Some("options"),
            ),
            (
                r#"{"subtool":"x","argument2":{}}"#,
                "unknown field, number 2 here, did you mean `arguments`?",
                None,
            ),
            (r#"{"subtool":{"$":"$"}}"#, "invalid type: map, expected a string", Some("subtool")),
        ];
        for (body, message, path) in rows {
            let body = body.replace('$', secret);
            assert_eq!(fault(&body), (message.to_owned(), path.map(str::to_owned)), "{body}");
        }
    }
}
