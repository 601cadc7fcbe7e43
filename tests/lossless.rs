//! What Okta sends comes out byte for byte, however odd.

use okta_worker::domain::http::{Exchange, Request, Response};
use okta_worker::domain::json::Fields;
use okta_worker::tools::{Bounds, HistoryEntry, Move, Setting, catalogue};
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Text of a JSON value, with everything a parser is tempted to tidy up.
fn json() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        Just("null"),
        Just("true"),
        Just("1e3"),
        Just("-0"),
        Just("1.0"),
        Just("0.1000000000000000055511151231257827"),
        Just("12345678901234567890"),
        Just("-1E-400"),
        Just(r#""""#),
        Just(r#""\u0041\/\ud83d\ude00""#),
        Just(r#""\ud800""#),
        Just(r#""NEW_STATUS""#),
        Just("\"ä\u{2028}\u{7f}€\""),
        Just("{}"),
        Just("[ ]"),
    ];
    let leaf = scalar.prop_map(str::to_owned);
    leaf.prop_recursive(12, 48, 5, |inner| {
        prop_oneof![
            (prop::collection::vec(inner.clone(), 0..4), space())
                .prop_map(|(items, space)| format!("[{space}{}]", items.join(&format!("{space},")))),
            object(inner),
        ]
    })
}

fn space() -> impl Strategy<Value = &'static str> {
    prop_oneof![4 => Just(""), 1 => Just(" "), 1 => Just("\n\t"), 1 => Just("\r\n")]
}

/// A key as it is written, and as it is read.
const KEYS: [(&str, &str); 8] = [
    (r#""id""#, "id"),
    (r#""profile""#, "profile"),
    (r#""\u0065mail""#, "email"),
    (r#""z""#, "z"),
    (r#""a b""#, "a b"),
    (r#""""#, ""),
    (r#""_links""#, "_links"),
    (r#""uuid""#, "uuid"),
];

/// An object with each key at most once, in any order.
fn object(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let keys = prop::sample::subsequence(KEYS.to_vec(), 0..=5).prop_shuffle();
    (keys, prop::collection::vec(value, 5), space()).prop_map(|(keys, values, space)| {
        let entries: Vec<String> = keys
            .iter()
            .zip(&values)
            .map(|((key, _), value)| format!("{space}{key}{space}:{space}{value}"))
            .collect();
        format!("{{{}{space}}}", entries.join(","))
    })
}

/// What a subtool makes of one answer.
fn result(name: &str, arguments: &str, fields: &Fields, body: &str) -> Box<RawValue> {
    let bounds = Bounds { fields, ..Bounds::whole(1 << 20) };
    let entry = catalogue::find(name).expect("a subtool of that name");
    let arguments = RawValue::from_string(arguments.to_owned()).expect("arguments are JSON");
    let tool = entry.read(&arguments).expect("arguments are read");
    let Move::Send(request) = tool.next(&[], Setting::first(bounds)) else { panic!("{name} asks nothing") };
    let response = Response::new(200, http::HeaderMap::new(), body.to_owned());
    match tool.next(
        &[HistoryEntry::Answered(Exchange { request: Request::clone(&request), response })],
        Setting::first(bounds),
    ) {
        Move::Done(done, _) => done.output,
        other => panic!("{name} does not end with {body}: {other:?}"),
    }
}

fn get_user(fields: &Fields, body: &str) -> Box<RawValue> {
    result("get_user", r#"{"user_id":"jane@example.com"}"#, fields, body)
}

#[derive(Deserialize)]
struct Listed<'a> {
    #[serde(borrow)]
    items: Vec<&'a RawValue>,
}

/// The entries of an object as (key read, value written), found with a parser of our own: serde_json is
/// what is tested here.
fn entries(text: &str) -> Vec<(String, String)> {
    let bytes = text.as_bytes();
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    let (mut parts, mut start) = (Vec::new(), 1);
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    parts.push(text[start..at].trim());
                }
            }
            b':' | b',' if depth == 1 => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    let read = |written: &str| {
        let known = KEYS.iter().find(|(known, _)| *known == written);
        known.unwrap_or_else(|| panic!("a key that was never written: {written}")).1.to_owned()
    };
    let pairs = parts.chunks(2).filter(|pair| pair.len() == 2);
    pairs.map(|pair| (read(pair[0]), pair[1].to_owned())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_object_comes_out_as_it_came_in(before in space(), user in object(json()), after in space()) {
        let result = get_user(&Fields::Whole, &format!("{before}{user}{after}"));
        prop_assert_eq!(result.get(), user);
    }

    #[test]
    fn items_come_out_as_they_came_in(
        users in prop::collection::vec(prop_oneof![9 => object(json()).boxed(), 1 => json().boxed()], 0..6),
        space in space(),
    ) {
        let body = format!("[{space}{}{space}]", users.join(&format!("{space},{space}")));
        let result = result("list_users", r#"{"search":"status pr"}"#, &Fields::Whole, &body);
        let listed: Listed<'_> = serde_json::from_str(result.get()).expect("a list");
        let items: Vec<&str> = listed.items.iter().map(|item| item.get()).collect();
        prop_assert_eq!(items, users);
    }

    #[test]
    fn fields_keep_what_they_name_byte_for_byte(user in object(json())) {
        let fields = Fields::parse(&["id".into(), "email".into(), "profile".into()]).expect("paths");
        let wanted: Vec<(String, String)> = entries(&user)
            .into_iter()
            .filter(|(key, _)| ["id", "email", "profile"].contains(&key.as_str()))
            .collect();
        let expected: Vec<String> =
            wanted.iter().map(|(key, value)| format!("\"{key}\":{value}")).collect();
        let result = get_user(&fields, &user);
        prop_assert_eq!(result.get(), format!("{{{}}}", expected.join(",")));

        let listed = self::result("list_users", "{}", &fields, &format!("[{user}]"));
        let listed: Listed<'_> = serde_json::from_str(listed.get()).expect("a list");
        prop_assert_eq!(listed.items[0].get(), result.get());
    }

    #[test]
    fn fields_reach_into_objects_and_lists(profile in object(json())) {
        let fields = Fields::parse(&["profile.id".into()]).expect("paths");
        let inner: Vec<String> = entries(&profile)
            .into_iter()
            .filter(|(key, _)| key == "id")
            .map(|(_, value)| format!("\"id\":{value}"))
            .collect();
        let kept = format!("{{{}}}", inner.join(","));
        let user = format!(r#"{{"profile":{profile},"id":1}}"#);
        let result = get_user(&fields, &user);
        prop_assert_eq!(result.get(), format!(r#"{{"profile":{kept}}}"#));
        let user = format!(r#"{{"profile":[{profile},7,{profile}]}}"#);
        let result = get_user(&fields, &user);
        prop_assert_eq!(result.get(), format!(r#"{{"profile":[{kept},7,{kept}]}}"#));
    }
}
