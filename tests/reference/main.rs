//! The subtools against Okta's own words: its OpenAPI document and recorded traffic.
//!
//! Both are other people's data and stay outside this repository. `OKTA_REFERENCE` names the folder that
//! holds `okta-28.openapi.json`, `okta-more.openapi.json` and `recordings/`; without it these tests say so and check nothing.

mod openapi;
mod recordings;
mod requests;
mod simulated;

use std::path::PathBuf;

use http::{HeaderMap, HeaderName, HeaderValue};
use okta_worker::domain::http::{Exchange, Request, Response};
use okta_worker::tools::{Bounds, HistoryEntry, Move, Setting, Tool, catalogue};
use serde_json::value::RawValue;

/// The folder with Okta's document and the recordings, if it is there to be read.
fn reference() -> Option<PathBuf> {
    let folder = std::env::var_os("OKTA_REFERENCE").filter(|name| !name.is_empty()).map(PathBuf::from);
    if folder.is_none() {
        eprintln!("not run: OKTA_REFERENCE is not set");
    }
    folder
}

/// Whole objects, and room for every recorded list.
const WHOLE: Bounds<'static> = Bounds::whole(64 << 20);

/// More questions than any conversation here has.
const QUESTIONS_MAX: usize = 20;

fn tool(name: &str, arguments: &str) -> Box<dyn Tool> {
    let entry = catalogue::find(name).unwrap_or_else(|| panic!("no subtool `{name}`"));
    let arguments = RawValue::from_string(arguments.to_owned()).expect("arguments are JSON");
    entry.read(&arguments).unwrap_or_else(|fault| panic!("{name} {arguments}: {fault:?}"))
}

/// Drives a conversation to its end with whoever answers.
fn drive(tool: &dyn Tool, mut answer: impl FnMut(&Request) -> Response) -> (Vec<HistoryEntry>, Move) {
    let mut history = Vec::new();
    for _ in 0..QUESTIONS_MAX {
        match tool.next(&history, Setting::first(WHOLE)) {
            Move::Send(request) => {
                let response = answer(&request);
                history.push(HistoryEntry::Answered(Exchange { request: *request, response }));
            }
            end => return (history, end),
        }
    }
    panic!("no end after {QUESTIONS_MAX} questions, the last was {:?}", history.last());
}

fn response(status: u16, headers: &[(&str, &str)], body: &str) -> Response {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a header's name");
        map.append(name, HeaderValue::from_str(value).expect("a header's value"));
    }
    Response::new(status, map, body.to_owned())
}
