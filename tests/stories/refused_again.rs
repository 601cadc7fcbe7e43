//! A message that may have been run before and is refused now: nobody is told that it has changed nothing, unless it
//! surely has not.

use std::collections::HashMap;

use okta_worker::domain::ids::ConnectionName;
use okta_worker::domain::message::{HeaderValue, Headers, Properties};
use okta_worker::domain::topology::DEAD;
use okta_worker::policy::authorization::{AllowList, CallerPermissions, Callers};
use serde_json::{Value, json};

use crate::world::{REPLIES, SAM, Setup, WORKER, World, body, prod};

const PAST: &str = "2020-01-01T00:00:00Z";

/// Why a message may have been run before, or that it was not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Past {
    None,
    /// The broker delivers it again.
    Redelivered,
    /// Its producer sends it again, being unsure.
    Resent,
    /// A worker has published a copy of it.
    Copied,
}

impl Past {
    const ALL: [Self; 4] = [Self::None, Self::Redelivered, Self::Resent, Self::Copied];

    fn properties(self, world: &World) -> Properties {
        let int = |number| HeaderValue::Int(number);
        let headers: &[(&str, HeaderValue)] = match self {
            Self::None | Self::Redelivered => &[],
            Self::Resent => &[("okta-resent", HeaderValue::Bool(true))],
            Self::Copied => &[
                ("okta-redeliveries", int(1)),
                ("okta-first-sent", int(world.now().as_millisecond())),
                ("okta-caller", HeaderValue::Text("helpdesk".to_owned())),
            ],
        };
        let headers: Headers =
            headers.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let user = if self == Self::Copied { WORKER } else { "helpdesk" };
        Properties {
            reply_to: Some(REPLIES.to_owned()),
            user_id: Some(user.to_owned()),
            headers,
            ..Properties::default()
        }
    }
}

/// One way to be refused.
struct Refusal {
    key: &'static str,
    change: fn(&mut Properties),
    body: Value,
    code: &'static str,
    /// The effect when it may have been run before.
    effect: &'static str,
}

fn refusal(key: &'static str, body: Value, code: &'static str, effect: &'static str) -> Refusal {
    Refusal { key, change: |_| {}, body, code, effect }
}

fn refusals() -> Vec<Refusal> {
    let delete = || json!({ "subtool": "delete_group", "arguments": { "group_id": "00g1" } });
    let suspend = || json!({ "subtool": "suspend_user", "arguments": { "user_id": SAM } });
    let with = |mut body: Value, name: &str, value: Value| {
        body[name] = value;
        body
    };
    let minting =
        json!({ "subtool": "reset_user_password", "arguments": { "user_id": SAM, "send_email": false } });
    let late = || json!({ "deadline": PAST });
    let mut rows = vec![
        refusal("prod", with(suspend(), "option", json!({})), "invalid_message", "unknown"),
        refusal("prod", with(suspend(), "options", json!({ "x": 1 })), "invalid_message", "unknown"),
        refusal("prod", with(suspend(), "options", json!({ "stream": true })), "invalid_message", "unknown"),
        refusal("prod", json!({ "workflow": "offboarding" }), "invalid_message", "unknown"),
        refusal("prod.vip", suspend(), "invalid_message", "unknown"),
        refusal("gone", suspend(), "unknown_connection", "unknown"),
        refusal("gone.bulk", suspend(), "unknown_connection", "unknown"),
        refusal("prod", json!({ "subtool": "later_tool", "arguments": {} }), "unknown_subtool", "unknown"),
        refusal("prod", delete(), "not_permitted", "unknown"),
        refusal("prod.bulk", suspend(), "not_permitted", "unknown"),
        refusal("prod", with(suspend(), "arguments", json!({ "x": 1 })), "invalid_arguments", "unknown"),
        refusal("prod", with(suspend(), "options", late()), "deadline_exceeded", "unknown"),
        // What reads, plans or is no invocation for anybody changes nothing, however often it comes.
        refusal("prod", json!({ "subtool": "get_user", "extra": 1 }), "invalid_message", "none"),
        refusal("prod", json!(["suspend_user"]), "invalid_message", "none"),
        refusal("gone", json!({ "subtool": "list_users" }), "unknown_connection", "none"),
        refusal("prod", with(delete(), "options", json!({ "dry_run": true })), "not_permitted", "none"),
        refusal("prod", json!({ "subtool": "get_user", "arguments": {} }), "invalid_arguments", "none"),
    ];
    let mut to_results = refusal("prod", minting, "invalid_message", "unknown");
    to_results.change = |properties| properties.reply_to = None;
    let mut encoded = refusal("prod", suspend(), "invalid_message", "unknown");
    encoded.change = |properties| properties.content_encoding = Some("gzip".to_owned());
    let mut to_a_queue_of_ours = refusal("prod", suspend(), "not_permitted", "unknown");
    to_a_queue_of_ours.change = |properties| properties.reply_to = Some(DEAD.to_owned());
    rows.extend([to_results, encoded, to_a_queue_of_ours]);
    rows
}

fn setup() -> Setup {
    let helpdesk = CallerPermissions {
        connections: vec![prod(), ConnectionName::parse("gone").unwrap()],
        subtools: AllowList::all(),
        lanes: vec![okta_worker::domain::ids::Lane::Interactive],
        max_per_minute: None,
    };
    Setup {
        subtools: AllowList::parse(&["read", "write", "credentials"]).unwrap(),
        callers: Callers(HashMap::from([("helpdesk".to_owned(), helpdesk)])),
        ..Setup::default()
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_refuses_a_write_that_may_have_been_run_says_that_its_effect_is_unknown() {
    for past in Past::ALL {
        for Refusal { key, change, body: sent, code, effect } in refusals() {
            let mut world = setup().open();
            let mut properties = past.properties(&world);
            change(&mut properties);
            let is_answered = properties.reply_to.as_deref() == Some(REPLIES);
            let place = format!("{past:?} {key} {sent}");
            match past {
                Past::Redelivered => world.send_again(key, properties, sent.to_string()),
                Past::None | Past::Resent | Past::Copied => world.send_raw(key, properties, sent.to_string()),
            }
            world.rest().await;
            let answer = if is_answered { world.answer() } else { body(&world.result()) };
            let expected = if past == Past::None { "none" } else { effect };
            let told = (&answer["error"]["code"], &answer["effect"], &answer["okta_calls"]);
            assert_eq!(told, (&json!(code), &json!(expected), &json!(0)), "{place}");
            world.tape();
            world.close();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_was_done_and_is_delivered_to_a_worker_that_may_not_do_it_is_unknown() {
    let mut world = Setup::default().open();
    let suspend = json!({ "subtool": "suspend_user", "arguments": { "user_id": SAM } }).to_string();
    let properties = || Properties { reply_to: Some(REPLIES.to_owned()), ..Properties::default() };
    world.send_raw("prod", properties(), suspend.clone());
    world.rest().await;
    assert_eq!(world.answers(1), ["m1 succeeded applied"]);
    world.replace_worker_that_enables(&["read"]);
    let message_id = Some("m1".to_owned());
    world.send_again("prod", Properties { message_id, ..properties() }, suspend);
    world.rest().await;
    assert_eq!(world.answers(1), ["m1 failed not_permitted unknown"]);
    world.tape();
    world.close();
}
