//! The subtools as tools of the Model Context Protocol.
//!
//! A tool's input is the subtool's arguments and one more property, [`OPTIONS`], which is no argument's
//! name; its output is the part of the result message that an agent needs.

use serde_json::{Value, json};

use crate::tools::catalogue::CatalogueEntry;
use crate::tools::{Idempotency, ToolKind};

use super::message;
use super::options;
use super::schema::{bare, brief, plain};

/// The property of a tool's input that holds the invocation's options.
pub const OPTIONS: &str = "options";

/// Default size limit of a tool's result: the amount that a model can afford to read.
pub const RESULT_BYTES_USUAL: u32 = 64 * 1024;

/// Returns the result of `tools/list` for these subtools.
pub fn tools<'a>(entries: impl IntoIterator<Item = &'a CatalogueEntry>) -> Value {
    json!({ "tools": entries.into_iter().map(tool).collect::<Vec<_>>() })
}

/// Returns one subtool as a tool.
pub fn tool(entry: &CatalogueEntry) -> Value {
    json!({
        "name": entry.manifest.name,
        "description": entry.manifest.description(),
        "inputSchema": input(entry),
        "outputSchema": message::of_a_tool(entry),
        "annotations": annotations(entry),
    })
}

/// Returns the hints about a tool. Those about writes have no meaning for a tool that only reads.
fn annotations(entry: &CatalogueEntry) -> Value {
    // A tool talks to one org, a closed world of its users, groups and applications.
    if entry.manifest.kind == ToolKind::Read {
        return json!({ "readOnlyHint": true, "openWorldHint": false });
    }
    json!({
        "readOnlyHint": false,
        "destructiveHint": is_destructive(entry),
        "idempotentHint": is_idempotent(entry.repeat()),
        "openWorldHint": false,
    })
}

fn input(entry: &CatalogueEntry) -> Value {
    let mut input = brief(plain(bare((entry.arguments)())));
    let part = input.as_object_mut().expect("arguments are an object");
    part.remove("description"); // the tool's own says more
    let properties = part.entry("properties").or_insert_with(|| json!({}));
    properties[OPTIONS] = brief(options::brief_of_a_tool(entry, RESULT_BYTES_USUAL));
    input
}

/// Returns the schema of the options that a caller of the tool may choose.
pub fn options(entry: &CatalogueEntry) -> Value {
    plain(options::of_a_tool(entry, RESULT_BYTES_USUAL))
}

/// Returns true if a call may destroy something for good. That includes a password that is reset, expired or
/// replaced, so the kind `credentials` counts, and a subtool that needs it for some arguments; changes of the
/// kind `write` can be undone.
fn is_destructive(entry: &CatalogueEntry) -> bool {
    let takes_away = |kind: ToolKind| match kind {
        ToolKind::Read | ToolKind::Write => false,
        ToolKind::Destructive | ToolKind::Credentials => true,
    };
    takes_away(entry.manifest.kind) || entry.may_also_need().is_some_and(takes_away)
}

/// Returns true if a second call with the same arguments changes nothing more. Okta refuses to create the same
/// object twice, and a step taken twice is recognized; subtools that send e-mail or create a secret do so each time.
fn is_idempotent(repeat: Idempotency) -> bool {
    match repeat {
        Idempotency::Read | Idempotency::Set | Idempotency::Create | Idempotency::Transition => true,
        Idempotency::NonIdempotent => false,
    }
}
