//! Runs of subtools against a script of Okta's answers.
//!
//! `$U`, `$G` and `$A` stand for a user's, a group's and an application's id, in input and in
//! output.

mod arguments;
mod lists;
mod stories;

use http::{HeaderMap, HeaderName};
use serde_json::value::RawValue;

use super::catalogue::{self, CatalogueEntry};
use super::{Bounds, HistoryEntry, Move, Setting, Tool};
use crate::domain::http::{Exchange, Request, Response};

const IDS: [(&str, &str); 3] =
    [("$U", "00u1abCdEfGhIjKlMnOp"), ("$G", "00g1emaKYZTWRYYRRTSK"), ("$A", "0oa1gjh63g214q0Hq0g4")];

/// Inserts the ids.
fn filled(text: &str) -> String {
    IDS.iter().fold(text.to_owned(), |text, (short, id)| text.replace(short, id))
}

/// Removes the ids.
fn shortened(text: &str) -> String {
    IDS.iter().fold(text.to_owned(), |text, (short, id)| text.replace(id, short))
}

/// One scripted answer.
#[derive(Debug, Clone)]
struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
}

impl Answer {
    fn new(status: u16, body: &str) -> Self {
        Self { status, headers: Vec::new(), body: filled(body) }
    }

    /// Adds one `Link` header.
    fn link(mut self, value: &str) -> Self {
        self.headers.push(("link", filled(value)));
        self
    }

    fn response(&self) -> Response {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        Response::new(self.status, headers, self.body.clone())
    }
}

fn ok(body: &str) -> Answer {
    Answer::new(200, body)
}

fn no_content() -> Answer {
    Answer::new(204, "")
}

/// Returns a user in this status.
fn user(status: &str) -> Answer {
    ok(&format!(r#"{{"id":"$U","status":"{status}","profile":{{"login":"jane@example.com"}}}}"#))
}

/// Returns Okta's error object.
fn refusal(status: u16, code: &str) -> Answer {
    Answer::new(status, &format!(r#"{{"errorCode":"{code}","errorSummary":"no","errorCauses":[]}}"#))
}

/// The requests and the end of a run.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    /// Each request, as `METHOD path?query body`, without `/api/v1`.
    asked: Vec<String>,
    /// `effect result`, `refused status code`, `code at path: message`, or `waits` without an answer.
    end: String,
}

fn entry(name: &str) -> &'static CatalogueEntry {
    catalogue::find(name).unwrap_or_else(|| panic!("no subtool `{name}`"))
}

fn raw(text: &str) -> Box<RawValue> {
    RawValue::from_string(filled(text)).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn tool(name: &str, arguments: &str) -> Box<dyn Tool> {
    entry(name).read(&raw(arguments)).unwrap_or_else(|fault| panic!("{name} {arguments}: {fault:?}"))
}

fn line(request: &Request) -> String {
    let path = request.path_and_query();
    let path = path.strip_prefix("/api/v1").expect("every path is below /api/v1");
    let body = request.body.as_deref().map_or_else(String::new, |body| {
        format!(" {}", std::str::from_utf8(body).expect("a body is JSON, so UTF-8"))
    });
    shortened(&format!("{} {path}{body}", request.method))
}

const WHOLE: Bounds<'static> = Bounds::whole(1 << 20);

/// Drives a subtool as the worker does; `answers` returns `None` if no answer comes.
fn drive(
    tool: &dyn Tool,
    bounds: Bounds<'_>,
    mut answers: impl FnMut(&Request) -> Option<Response>,
) -> (Vec<HistoryEntry>, Move) {
    let (mut asked, mut history, mut list) = (Vec::new(), Vec::new(), None);
    loop {
        let next = tool.resume(&mut list, &history, Setting::first(bounds));
        if let Some(list) = &list {
            history.truncate(list.turns_before());
        }
        match next {
            Move::Send(request) => match answers(&request) {
                Some(response) => {
                    let turn = HistoryEntry::Answered(Exchange { request: *request, response });
                    asked.push(turn.clone());
                    history.push(turn);
                }
                None => return (asked, Move::Send(request)),
            },
            end => return (asked, end),
        }
    }
}

fn told(asked: &[HistoryEntry], end: &Move) -> Told {
    let mut asked: Vec<String> = asked.iter().map(|turn| line(turn.request())).collect();
    let end = match end {
        Move::Send(request) => {
            asked.push(line(request));
            "waits".to_owned()
        }
        Move::Done(done, _) => format!("{} {}", done.effect.as_str(), done.output.get()),
        Move::Planned(plan) => format!("planned {plan:?}"),
        Move::Refused(error) => {
            format!("refused {} {}", error.status, error.error_code.as_deref().unwrap_or("-"))
        }
        Move::Fail(failure) => {
            let place = failure.path.as_ref().map_or_else(String::new, |path| format!(" at {path}"));
            format!("{}{place}: {}", failure.code.as_str(), failure.message)
        }
    };
    Told { asked, end: shortened(&end) }
}

/// Runs a subtool against a script, all of which must be used.
fn tell_within(name: &str, arguments: &str, bounds: Bounds<'_>, script: &[Answer]) -> Told {
    let mut left = script.iter();
    let (asked, end) = drive(&*tool(name, arguments), bounds, |_| left.next().map(Answer::response));
    assert_eq!(left.len(), 0, "{name} {arguments}: answers are left over after {:?}", told(&asked, &end));
    told(&asked, &end)
}

fn tell(name: &str, arguments: &str, script: &[Answer]) -> Told {
    tell_within(name, arguments, WHOLE, script)
}
