//! Golden pages: the first requests of the subtools, the tables of events and retries.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

#[path = "golden/events.rs"]
mod events;
#[path = "golden/retries.rs"]
mod retries;

use okta_worker::tools::catalogue::CATALOGUE;
use okta_worker::tools::{Bounds, Move, Setting};
use serde_json::value::RawValue;

#[test]
fn first_requests() {
    let bounds = Bounds::whole(1 << 20);
    let mut page = String::new();
    for entry in &CATALOGUE {
        for example in entry.manifest.examples {
            let arguments = RawValue::from_string((*example).to_owned()).expect("examples are JSON");
            let tool = entry.read(&arguments).expect("examples are read");
            let Move::Send(request) = tool.next(&[], Setting::first(bounds)) else {
                panic!("{} {example} sends nothing", entry.manifest.name);
            };
            let body = request.body.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
            let line = format!("{} {} {body}", request.method, request.path_and_query());
            page.push_str(&format!("{} {example}\n  {}\n", entry.manifest.name, line.trim_end()));
        }
    }
    insta::assert_snapshot!("first_requests", page);
}
