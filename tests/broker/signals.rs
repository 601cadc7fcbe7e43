//! What workers tell each other, and whom they believe.

use std::time::Duration;

use lapin::ExchangeKind;
use lapin::options::ExchangeDeclareOptions;
use lapin::types::{FieldTable, ShortString};
use okta_worker::budget::pure::signal::Signal;
use okta_worker::domain::topology::SIGNALS;
use serde_json::{Value, json};

use super::caller::{Caller, Message, until};
use super::fellow::{Fellow, Note};
use super::node::{Alarm, Node, Place, User, alone, ours};
use super::world::{Start, World};

/// What README.md says that the worker's broker user needs.
const NEEDED: [&str; 3] = [r"^(okta\.|amq\.gen)", r"^(okta\.|amq\.(gen|default))", r"^(okta\.|amq\.gen)"];

fn signal(worker: u32) -> Signal {
    Signal {
        worker,
        ledger: "users".to_owned(),
        reset: 1_772_442_060,
        limit: 600,
        remaining: 12,
        age: Duration::from_millis(150),
        to_end: Duration::from_secs(20),
        in_flight: 2,
        rate: 1.5,
        at_work: true,
    }
}

/// Waits until all listen, which they do before they are counted.
async fn gathered<const N: usize>(fellows: [Fellow; N]) -> [Fellow; N] {
    until("they have gathered", async || fellows.iter().all(|fellow| fellow.workers() > 0)).await;
    fellows
}

fn heard(fellow: &Fellow) -> Vec<Note> {
    fellow.notes().into_iter().filter(|note| matches!(note, Note::Heard(..))).collect()
}

/// The queues that signals are heard from, with their arguments.
fn listening(node: &Node, place: &Place) -> Vec<Value> {
    let vhost = place.vhost.as_deref().expect("a node of ours has virtual hosts");
    let columns = ["name", "arguments", "exclusive", "auto_delete", "durable"];
    let arguments = [&["-q", "list_queues", "-p", vhost, "--formatter", "json"][..], &columns].concat();
    let queues: Vec<Value> = serde_json::from_str(&node.run("ctl", &arguments)).expect("it is JSON");
    let is_own = |queue: &Value| queue["name"].as_str().is_some_and(|name| name.starts_with("amq.gen"));
    queues.into_iter().filter(is_own).collect()
}

#[tokio::test]
async fn a_signal_is_heard_by_all_for_its_connection() {
    let place = Place::take().await;
    let url = place.url(User::Worker);
    let [one, two, three] = gathered([(); 3].map(|()| Fellow::start(&url))).await;
    until("the others hear both", async || {
        one.tell("prod", &signal(1));
        one.tell("other", &signal(2));
        [&two, &three].iter().all(|to| to.has_heard("prod", &signal(1)) && to.has_heard("other", &signal(2)))
    })
    .await;
    for fellow in [&one, &two, &three] {
        assert!(!fellow.has_heard("prod", &signal(2)) && !fellow.has_heard("other", &signal(1)));
    }
}

#[tokio::test]
async fn what_anybody_else_says_is_not_heard() {
    if ours().is_none() {
        return;
    }
    let place = Place::take().await;
    let url = place.url(User::Worker);
    let [one, two] = gathered([(); 2].map(|()| Fellow::start(&url))).await;
    let forged = |key: &str, user: Option<&str>, body: Vec<u8>| {
        let message = Message { exchange: SIGNALS.to_owned(), ..Message::of(key, body) };
        message.with(|properties| {
            let properties = properties.with_type("okta.signal".into());
            match user {
                Some(user) => properties.with_user_id(ShortString::from(user)),
                None => properties,
            }
        })
    };
    let operator = Caller::new(&place.url(User::Operator)).await;
    operator.send(&forged("prod", Some("operator"), signal(66).encode())).await;
    operator.send(&forged("prod", None, signal(66).encode())).await;
    // Even in the right name: of a connection that is not known, and no signal at all.
    let namesake = Caller::new(&url).await;
    namesake.send(&forged("acme", Some("worker"), signal(66).encode())).await;
    namesake.send(&forged("prod", Some("worker"), b"{}".to_vec())).await;
    namesake.send(&forged("prod", Some("worker"), signal(7).encode())).await;
    until("the true one is heard", async || two.has_heard("prod", &signal(7))).await;
    until("by all", async || one.has_heard("prod", &signal(7))).await;
    assert_eq!(heard(&two), [Note::Heard("prod", signal(7))]);
    assert_eq!(heard(&one), [Note::Heard("prod", signal(7))]);
}

#[tokio::test]
async fn the_queue_that_signals_are_heard_from_is_bounded_and_goes_with_its_worker() {
    let Some(node) = ours() else { return };
    let place = Place::take().await;
    let [fellow] = gathered([Fellow::start(&place.url(User::Worker))]).await;
    let queues = listening(node, &place);
    assert_eq!(queues.len(), 1, "{queues:?}");
    let queue = &queues[0];
    let arguments = queue["arguments"].to_string();
    for bound in ["x-max-length", "x-message-ttl", "x-expires", "classic"] {
        assert!(arguments.contains(bound), "{arguments}");
    }
    let kept = [&queue["exclusive"], &queue["auto_delete"], &queue["durable"]];
    assert_eq!(kept, [&json!(true), &json!(true), &json!(false)]);
    fellow.stop().await;
    until("it is gone", async || listening(node, &place).is_empty()).await;
}

#[tokio::test]
async fn a_queue_of_signals_that_is_deleted_is_replaced_and_the_work_goes_on() {
    let Some(node) = ours() else { return };
    let place = Place::take().await;
    let url = place.url(User::Worker);
    let [one, two] = gathered([(); 2].map(|()| Fellow::start(&url))).await;
    // Exclusive queues are deleted by their own connection alone, or by the broker itself.
    let vhost = place.vhost.as_deref().expect("a node of ours has virtual hosts");
    let delete = format!(
        "[rabbit_amqqueue:delete(Q, false, false, <<\"test\">>) || Q <- rabbit_amqqueue:list(<<\"{vhost}\">>), \
         binary:match(element(4, amqqueue:get_name(Q)), <<\"amq.gen\">>) =/= nomatch]."
    );
    let before: Vec<_> = listening(node, &place).iter().map(|queue| queue["name"].to_string()).collect();
    node.run("eval", &[&delete]);
    until("both have another", async || {
        let there = listening(node, &place);
        there.len() == 2 && there.iter().all(|queue| !before.contains(&queue["name"].to_string()))
    })
    .await;
    until("it is heard again", async || {
        one.tell("prod", &signal(3));
        two.has_heard("prod", &signal(3))
    })
    .await;
    assert_eq!((one.generations(), two.generations()), (1, 1), "neither has left its work");
}

#[tokio::test]
async fn an_exchange_of_signals_that_is_another_one_stops_no_worker() {
    let place = Place::take().await;
    let caller = Caller::new(&place.url(User::Operator)).await;
    let channel = caller.open_channel().await;
    let (kind, options) = (ExchangeKind::Direct, ExchangeDeclareOptions::default());
    channel.exchange_declare(SIGNALS.into(), kind, options, FieldTable::default()).await.unwrap();
    let url = place.url(User::Worker);
    let [one, two] = gathered([(); 2].map(|()| Fellow::start(&url))).await;
    until("both know of two", async || one.workers() == 2 && two.workers() == 2).await;
    let refused = |note: &Note| matches!(note, Note::Refused(why) if why.contains(SIGNALS));
    assert_eq!(one.notes().iter().filter(|note| refused(note)).count(), 1, "{:?}", one.notes());
    caller.send(&Message::new("prod.bulk", "list_groups", &json!({}))).await;
    until("one of them takes it", async || one.taken() + two.taken() == 1).await;
}

#[tokio::test]
async fn a_worker_whose_user_may_have_no_queue_of_its_own_works_and_says_so_once() {
    let Some(node) = ours() else { return };
    let world = World::new().await;
    let url = world.place.url_with(node, [r"^okta\.", ".*", ".*"]);
    let worker = world.worker_with(&Start { variables: &[("TEST_AMQP_URL", &url)], ..Start::default() });
    let mut caller = world.caller().await;
    caller.ask("prod", "list_groups", &json!({"limit": 1})).await;
    assert_eq!(caller.consumers("okta.presence.prod").await, Some(1));
    assert_eq!(listening(node, &world.place), [Value::Null; 0]);
    // A new connection, and it is not said again.
    let connected = || worker.process.stderr().matches("declared and consuming").count();
    let vhost = world.place.vhost.as_deref().expect("a node of ours has virtual hosts");
    node.run("ctl", &["-q", "close_all_connections", "-p", vhost, "test"]);
    until("it has connected again", async || connected() == 2).await;
    let stderr = worker.process.stderr();
    assert_eq!(stderr.matches("cannot tell each other").count(), 1, "{stderr}");
    assert!(stderr.contains("ACCESS_REFUSED") && stderr.contains("amq.gen"), "{stderr}");
    worker.stop();
}

#[tokio::test]
async fn a_worker_with_the_permissions_of_the_readme_works_and_listens() {
    let Some(node) = ours() else { return };
    let world = World::new().await;
    let url = world.place.url_with(node, NEEDED);
    let worker = world.worker_with(&Start { variables: &[("TEST_AMQP_URL", &url)], ..Start::default() });
    let mut caller = world.caller().await;
    caller.ask("prod", "list_groups", &json!({"limit": 1})).await;
    assert_eq!(listening(node, &world.place).len(), 1);
    assert!(!worker.process.stderr().contains("cannot tell each other"), "{}", worker.process.stderr());
    worker.stop();
}

#[tokio::test]
async fn a_worker_whose_user_may_not_tell_hears_and_is_counted_and_says_so_once() {
    let Some(node) = ours() else { return };
    let place = Place::take().await;
    let url = place.url_with(node, [".*", r"^(amq\.|okta\.[^s])", ".*"]);
    let [mute, other] = gathered([Fellow::start(&url), Fellow::start(&url)]).await;
    let refusals =
        |fellow: &Fellow| fellow.notes().iter().filter(|note| matches!(note, Note::Refused(_))).count();
    until("it is refused", async || {
        mute.tell("prod", &signal(1));
        refusals(&mute) == 1
    })
    .await;
    for _ in 0..3 {
        mute.tell("prod", &signal(1));
        until("it goes on", async || mute.has_told()).await;
    }
    until("it is refused, too: it may not tell that it is there", async || refusals(&other) == 1).await;
    assert_eq!(refusals(&mute), 1);
    assert_eq!(heard(&other), []);
    until("they are counted", async || mute.workers() == 2).await;
    other.stop().await;
    until("it is counted alone", async || mute.workers() == 1).await;
}

#[tokio::test]
async fn after_its_broker_was_away_a_worker_is_counted_and_heard_again() {
    let Some(node) = alone().await else { return };
    let place = Place::on(&node);
    let url = place.url(User::Worker);
    let [one, two] = gathered([(); 2].map(|()| Fellow::start(&url))).await;
    node.run("stop", &[]);
    one.tell("prod", &signal(1)); // to nobody
    node.run("start", &[]);
    until("it is heard again", async || {
        one.tell("prod", &signal(2));
        two.has_heard("prod", &signal(2))
    })
    .await;
    let caller = Caller::new(&place.url(User::Operator)).await;
    until("both are back", async || caller.consumers("okta.presence.prod").await == Some(2)).await;
    let counts = one.notes().len();
    until("they are counted", async || one.notes().len() > counts && one.workers() == 2).await;
}

#[tokio::test]
async fn while_the_broker_takes_no_messages_signals_are_dropped_and_workers_counted() {
    let Some(node) = alone().await else { return };
    let place = Place::on(&node);
    let url = place.url(User::Worker);
    let [one, two] = gathered([(); 2].map(|()| Fellow::start(&url))).await;
    until("it is heard", async || {
        one.tell("prod", &signal(1));
        two.has_heard("prod", &signal(1))
    })
    .await;
    let alarm = Alarm::raise(&node);
    for worker in 2..20 {
        one.tell("prod", &signal(worker));
        until("nothing waits", async || one.has_told()).await;
    }
    let counts =
        |fellow: &Fellow| fellow.notes().iter().filter(|note| matches!(note, Note::Counted(..))).count();
    let before = counts(&one);
    until("it is counted", async || counts(&one) >= before + 2).await;
    drop(alarm);
    until("it is heard again", async || {
        one.tell("prod", &signal(99));
        two.has_heard("prod", &signal(99))
    })
    .await;
    assert_eq!((one.workers(), two.workers()), (2, 2));
}

#[tokio::test]
async fn a_worker_that_may_tell_only_later_is_heard_from_then_on() {
    let Some(node) = ours() else { return };
    let place = Place::take().await;
    let url = place.url_with(node, [".*", r"^(amq\.|okta\.[^s])", ".*"]);
    let [one, two] = gathered([Fellow::start(&url), Fellow::start(&url)]).await;
    let is_refused = |fellow: &Fellow| fellow.notes().iter().any(|note| matches!(note, Note::Refused(_)));
    until("both are refused", async || {
        one.tell("prod", &signal(1));
        is_refused(&one) && is_refused(&two)
    })
    .await;
    let vhost = place.vhost.as_deref().expect("a node of ours has virtual hosts");
    let user = url.trim_start_matches("amqp://").split(':').next().expect("a user");
    node.run("ctl", &["-q", "set_permissions", "-p", vhost, user, ".*", ".*", ".*"]);
    until("it is heard", async || {
        one.tell("prod", &signal(2));
        two.has_heard("prod", &signal(2))
    })
    .await;
}
