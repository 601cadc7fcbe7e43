//! The options of an invocation as schemas: all of them, and those that an agent may choose.

use serde_json::{Map, Value, json};

use crate::domain::invocation::{FIELDS_MAX, REASON_CHARS_MAX, RESULT_BYTES_MAX, RESULT_BYTES_USUAL};
use crate::tools::ToolKind;
use crate::tools::catalogue::CatalogueEntry;

/// Returns the schema of all options.
pub(super) fn all() -> Value {
    let mut all = object(&["deadline", "dry_run", "fields", "count_only", "max_bytes", "stream", "reason"]);
    // A counted list has no pages.
    let yes = json!({ "const": true });
    all["not"] =
        json!({ "properties": { "count_only": yes, "stream": yes }, "required": ["count_only", "stream"] });
    all
}

/// Returns the schema of the options of a subtool that a caller of the tool may choose. The server decides on
/// the rest. `bytes_usual` is the default size limit of a result.
pub(super) fn of_a_tool(entry: &CatalogueEntry, bytes_usual: u32) -> Value {
    let mut names = vec!["fields"];
    if entry.is_list {
        names.push("count_only");
    }
    names.push("max_bytes");
    if entry.manifest.kind != ToolKind::Read {
        names.push("dry_run");
    }
    names.push("reason");
    let mut options = object(&names);
    options["properties"]["max_bytes"]["default"] = bytes_usual.into();
    options
}

/// Returns the same with a few words on each option, for the list of all tools.
pub(super) fn brief_of_a_tool(entry: &CatalogueEntry, bytes_usual: u32) -> Value {
    let mut options = of_a_tool(entry, bytes_usual);
    let part = options.as_object_mut().expect("a schema is an object");
    part.remove("description");
    for (name, option) in part["properties"].as_object_mut().into_iter().flatten() {
        let option = option.as_object_mut().expect("a schema is an object");
        match in_brief(name) {
            Some(words) => option.insert("description".into(), words.into()),
            None => option.remove("description"),
        };
        for keyword in ["minimum", "maximum", "maxItems"] {
            option.remove(keyword);
        }
    }
    options
}

/// Returns the few words on an option whose name does not say enough.
fn in_brief(name: &str) -> Option<&'static str> {
    match name {
        "dry_run" => Some("Only plan it."),
        "fields" => Some("Such as `profile.email`."),
        _ => None,
    }
}

fn object(names: &[&str]) -> Value {
    let properties: Map<String, Value> = names.iter().map(|name| ((*name).to_owned(), one(name))).collect();
    json!({
        "type": "object",
        "description": "How to run it and what to answer; each may be absent, none may be `null`.",
        "properties": properties,
        "additionalProperties": false,
    })
}

fn one(name: &str) -> Value {
    match name {
        "deadline" => json!({
            "type": "string", "format": "date-time",
            "description": "Work that has not begun by then is not begun: `deadline_exceeded`, or `rate_limited` at once when the budget cannot make it.",
        }),
        "dry_run" => json!({
            "type": "boolean", "default": false,
            "description": "Whether a write is only planned: it reads what it needs, writes nothing and answers `planned`. A read is simply done.",
        }),
        "fields" => json!({
            "type": "array", "items": { "type": "string", "minLength": 1 }, "maxItems": FIELDS_MAX,
            "description": "Dotted paths kept of each object in the result, such as `profile.email`; the rest is dropped, one-time secrets never.",
        }),
        "count_only" => json!({
            "type": "boolean", "default": false,
            "description": "Of a list only `count`, and no items; `limit` is then 100000 by default.",
        }),
        "max_bytes" => json!({
            "type": "integer", "minimum": 1, "maximum": RESULT_BYTES_MAX, "default": RESULT_BYTES_USUAL,
            "description": "The largest result. A list that would be larger is cut at an item and goes on at `next`, and without room for one item says what it needs (`needs_max_bytes`); a single object is left out (`result_omitted`).",
        }),
        "stream" => json!({
            "type": "boolean", "default": false,
            "description": "Of a list one result message per page, with `page.index` and `page.last`.",
        }),
        "reason" => json!({
            "type": "string", "maxLength": REASON_CHARS_MAX,
            "description": "Free text for the audit trail: a ticket number, an HR event.",
        }),
        other => unreachable!("`{other}` is no option"),
    }
}
