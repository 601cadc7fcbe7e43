//! `okta-worker dead show`: the whole of some messages, with secrets masked unless asked for.

use serde_json::{Map, Value, json};

use super::parked::header_shown;
use crate::domain::message::{HeaderValue, Properties};
use crate::domain::secret::Secrets;

use super::choice::{Choice, Filters};
use super::entry::{ParkedEntry, indented, plain};
use super::form::Form;
use super::session::{DeadSession, WalkEnd, name_missing, print, print_json};
use crate::cli::exit::{DONE, FAILED};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Ids of invocations, as `list` shows them.
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    /// Shows the body unchanged, and all secrets. Protect the screen and the output.
    #[arg(long)]
    raw: bool,
    #[command(flatten)]
    form: Form,
}

pub(super) async fn run(session: &mut DeadSession, arguments: &Arguments) -> Result<u8, WalkEnd> {
    let Arguments { ids, raw, form } = arguments;
    let mut choice = Choice::new(ids, &Filters::default());
    while let Some(entry) = session.next(&mut choice).await? {
        let view = MessageView { entry: &entry, raw: *raw };
        if form.json {
            print_json(&view.json())?
        } else {
            print(&view.text())?
        }
        session.leave_alone(entry).await;
    }
    Ok(if name_missing(&choice) { FAILED } else { DONE })
}

/// One message, with secrets masked unless `raw`.
struct MessageView<'a> {
    entry: &'a ParkedEntry,
    raw: bool,
}

impl MessageView<'_> {
    fn json(&self) -> Value {
        let mut all = self.entry.json();
        let headers: Map<String, Value> = self.headers().into_iter().collect();
        let properties: Map<String, Value> = self
            .properties()
            .into_iter()
            .map(|(name, text)| (name.to_owned(), Value::String(text)))
            .collect();
        all.insert("address_fault".into(), json!(self.entry.parked.address.as_ref().err()));
        all.insert("properties".into(), Value::Object(properties));
        all.insert("headers".into(), Value::Object(headers));
        all.insert("body_fault".into(), json!(self.entry.content.fault));
        all.insert("body".into(), self.entry.content.masked.clone().unwrap_or(Value::Null));
        if self.raw {
            all.remove("body");
            self.entry.add_raw_body(&mut all);
        }
        Value::Object(all)
    }

    fn text(&self) -> String {
        let ParkedEntry { parked, content, body, .. } = self.entry;
        let or_dash = |text: Option<String>| text.map_or_else(|| "-".to_owned(), |text| plain(&text));
        let place = match &parked.address {
            Ok((connection, lane)) => format!("{connection}.{lane}"),
            Err(why) => format!("unknown: {}", plain(why)),
        };
        let mut lines = vec![format!("message {}", self.entry.name())];
        let mut say = |name: &str, text: String| lines.push(format!("  {name:<18} {text}"));
        say("reason", or_dash(parked.reason.clone()));
        say("parked", or_dash(parked.parked.map(|at| format!("{at:.0}"))));
        say("first sent", or_dash(parked.sent.map(|at| format!("{at:.0}"))));
        say("connection.lane", place);
        say("subtool", or_dash(content.subtool.clone()));
        say("caller", or_dash(parked.caller.clone()));
        say("attempts", parked.attempts.to_string());
        say("redeliveries", parked.redeliveries.to_string());
        for (name, text) in self.properties() {
            say(&format!("property {name}"), plain(&text));
        }
        for (name, value) in self.headers() {
            say(&format!("header {}", plain(&name)), plain(&value.to_string()));
        }
        if let Some(why) = &content.fault {
            say("cannot be read", plain(why));
        }
        say("body", format!("{} bytes", body.len()));
        lines.push(self.body());
        lines.join("\n")
    }

    /// Returns the body, with each line harmless to a terminal.
    fn body(&self) -> String {
        let text = match (&self.entry.content.masked, self.raw) {
            (_, true) => return self.entry.raw_body_shown(),
            (Some(value), false) => format!("{value:#}"),
            (None, false) => {
                return "  (no JSON object, so nothing in it can be masked: `--raw` shows it)".to_owned();
            }
        };
        indented(&text)
    }

    fn secrets(&self) -> Secrets {
        if self.raw { Secrets::default() } else { self.entry.content.secrets.clone() }
    }

    fn headers(&self) -> Vec<(String, Value)> {
        let secrets = self.secrets();
        let shown = |(name, value): (&String, &HeaderValue)| {
            let value = match (self.raw, value) {
                (true, HeaderValue::Text(text)) => Value::String(text.clone()),
                _ => header_shown(name, value, &secrets),
            };
            (secrets.mask(name), value)
        };
        self.entry.parked.properties().headers.iter().map(shown).collect()
    }

    fn properties(&self) -> Vec<(&'static str, String)> {
        let Properties { message_id, correlation_id, reply_to, user_id, kind, .. } =
            self.entry.parked.properties();
        let Properties { content_type, content_encoding, timestamp, expiration, .. } =
            self.entry.parked.properties();
        let timestamp = timestamp.map(|at| at.to_string());
        let all = [
            ("message_id", message_id),
            ("correlation_id", correlation_id),
            ("reply_to", reply_to),
            ("user_id", user_id),
            ("type", kind),
            ("content_type", content_type),
            ("content_encoding", content_encoding),
            ("timestamp", &timestamp),
            ("expiration", expiration),
        ];
        let secrets = self.secrets();
        let present = all.into_iter().filter_map(|(name, text)| Some((name, secrets.mask(text.as_deref()?))));
        present.collect()
    }
}
