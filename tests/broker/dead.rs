//! Parked messages, looked at and sent back to work by the command `dead`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Instant;

use lapin::types::{AMQPValue, FieldTable};
use okta_worker::domain::topology::DEAD;
use serde_json::{Value, json};

use super::caller::{Caller, Message, Reply, text, until};
use super::child::{LOOK_AGAIN, Process, WAIT_MAX, command, ran};
use super::node::{User, ours};
use super::wire::Wire;
use super::world::{BROKER_URL, World};

const SECRET: &str = "planted-hunter2-of-the-dead";

/// Milliseconds since 1970, in 2026.
const LONG_AGO: i64 = 1_770_000_000_000;

/// A world with its queues, and nothing that consumes.
async fn world() -> (World, Caller) {
    let world = World::with(&["--limit", "all=100000"]).await;
    world.worker().stop();
    let caller = world.caller().await;
    caller.queue("answers", FieldTable::default(), None).await;
    (world, caller)
}

/// A message as a worker parks it.
fn parked(id: &str, key: &str, body: impl Into<Vec<u8>>) -> Message {
    let mut message = Message::of(DEAD, body);
    message.exchange = String::new();
    let message = message.header("okta-reason", text("internal")).header("okta-routing-key", text(key));
    let message = message.header("okta-caller", text("operator")).header("okta-attempts", number(2));
    let message = message.header("okta-redeliveries", number(0)).header("okta-first-sent", number(LONG_AGO));
    let seconds = u64::try_from(LONG_AGO / 1000).expect("it is after 1970");
    message.id(id).with(|properties| properties.with_timestamp(seconds).with_delivery_mode(2))
}

fn number(value: i64) -> AMQPValue {
    AMQPValue::LongLongInt(value)
}

fn invocation(subtool: &str, arguments: &Value) -> String {
    json!({ "subtool": subtool, "arguments": arguments }).to_string()
}

/// The command, where no token of Okta's is.
fn dead(world: &World, arguments: &[&str]) -> Command {
    let file = world.file("dead.toml");
    let settings = format!(
        "[broker]\nurl = {{ env = \"{BROKER_URL}\" }}\n[connections.prod]\nbase_url = \"{}\"\n\
         api_token = {{ env = \"NOWHERE\" }}\nsubtools = [\"all\"]\n",
        world.org.url()
    );
    std::fs::write(&file, settings).expect("a file can be written");
    let mut command = command();
    command.arg("--config").arg(file).arg("dead").args(arguments);
    command.env(BROKER_URL, world.place.url(User::Worker));
    command
}

fn run(world: &World, arguments: &[&str]) -> (i32, String, String) {
    ran(&mut dead(world, arguments))
}

/// Runs it and reads its lines as JSON.
pub fn lines(world: &World, arguments: &[&str], code: i32) -> Vec<Value> {
    let (ended, stdout, stderr) = run(world, &[arguments, &["--json"]].concat());
    assert_eq!(ended, code, "{arguments:?}: {stdout}{stderr}");
    stdout.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

fn ids(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["id"].as_str().expect("it has an id")).collect()
}

/// Waits until as many are parked, and none of them is in anybody's hands.
async fn settled(caller: &Caller, count: u32) {
    until(&format!("{count} are parked"), async || caller.count(DEAD).await == Some(count)).await;
}

#[tokio::test]
async fn what_a_worker_has_parked_is_listed_and_shown_without_its_secrets() {
    let (world, caller) = world().await;
    let worker = world.worker();
    let garbled = format!(r#"{{"subtool": "create_user", "arguments": {{"credentials": "{SECRET}""#);
    caller.send(&Message::of("prod.bulk", garbled).id("garbled")).await;
    let odd = json!({ "subtool": "create_user", "argumentz": { "password": SECRET, "why": [SECRET] } });
    caller.send(&Message::of("prod.bulk", odd.to_string()).id("odd")).await;
    settled(&caller, 2).await;
    worker.stop();
    let profile = json!({ "login": "a@example.com", "nickName": format!("is {SECRET} too") });
    let credentials = json!({ "password": { "value": SECRET }, "recovery_question": { "answer": SECRET } });
    let body = invocation("create_user", &json!({ "profile": profile, "credentials": credentials }));
    let message = parked("crashed", "prod", body).header("x-api-token", text(SECRET));
    caller.send(&message.answer_to("answers")).await;
    let shown: [&[&str]; 6] = [
        &["list"],
        &["list", "--json"],
        &["show", "garbled", "odd", "crashed"],
        &["show", "garbled", "odd", "crashed", "--json"],
        &["replay", "--all", "--dry-run"],
        &["discard", "--all"],
    ];
    for arguments in shown {
        let (code, stdout, stderr) = run(&world, arguments);
        assert_eq!(code, i32::from(arguments[0] == "discard"), "{arguments:?}: {stdout}{stderr}");
        assert!(!stdout.contains(SECRET) && !stderr.contains(SECRET), "{arguments:?}: {stdout}{stderr}");
        assert!(!stdout.contains('\u{1b}') && stdout.contains("crashed"), "{arguments:?}: {stdout}");
    }
    let (_, raw, _) = run(&world, &["show", "garbled", "crashed", "--raw"]);
    assert_eq!(raw.matches(SECRET).count(), 5, "{raw}");
    let (_, raw, _) = run(&world, &["list", "--raw", "--reason", "internal"]);
    assert_eq!(raw.matches(SECRET).count(), 3, "{raw}");
    let raw = lines(&world, &["list", "--raw", "--reason", "internal"], 0);
    assert_eq!(raw[0]["body_text"].as_str().unwrap().matches(SECRET).count(), 3);
    let list = lines(&world, &["list"], 0);
    assert_eq!(
        ids(&list).into_iter().collect::<BTreeSet<_>>(),
        BTreeSet::from(["garbled", "odd", "crashed"])
    );
    let of = |id: &str| list.iter().find(|line| line["id"] == id).unwrap();
    assert_eq!((&of("odd")["reason"], &of("odd")["caller"]), (&json!("unreadable"), &Value::Null));
    assert_eq!((&of("odd")["connection"], &of("odd")["lane"]), (&json!("prod"), &json!("bulk")));
    assert!(of("odd")["parked"].is_string(), "{}", of("odd"));
    assert_eq!((&of("crashed")["subtool"], &of("crashed")["attempts"]), (&json!("create_user"), &json!(2)));
    let shown = lines(&world, &["show", "crashed"], 0);
    let arguments = &shown[0]["body"]["arguments"];
    assert_eq!(arguments["credentials"]["password"]["value"], "***");
    assert_eq!(arguments["profile"]["nickName"], "is *** too");
    assert_eq!(shown[0]["headers"]["x-api-token"], "***");
    assert_eq!(shown[0]["properties"]["reply_to"], "answers");
    let (code, _, stderr) = run(&world, &["show", "crashed", "nobody"]);
    assert!(code == 1 && stderr.contains("`nobody`"), "{code} {stderr}");
    settled(&caller, 3).await;
}

#[tokio::test]
async fn filters_choose_and_what_they_leave_stays_in_order() {
    let (world, caller) = world().await;
    let get = |id: &str| invocation("get_user", &json!({ "user_id": id }));
    caller.send(&parked("a", "prod", get("a"))).await;
    caller.send(&parked("b", "prod.bulk", get("b")).header("okta-reason", text("crash_loop"))).await;
    caller.send(&parked("c", "other.bulk", get("c")).header("okta-caller", text("helpdesk"))).await;
    let now = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    let delete = invocation("delete_group", &json!({ "group_id": "00g" }));
    caller.send(&parked("d", "prod.bulk", delete).header("okta-parked-at", number(now))).await;
    let rows: [(&[&str], &[&str]); 10] = [
        (&[], &["a", "b", "c", "d"]),
        (&["--reason", "crash_loop"], &["b"]),
        (&["--subtool", "get_user"], &["a", "b", "c"]),
        (&["--connection", "prod"], &["a", "b", "d"]),
        (&["--caller", "helpdesk"], &["c"]),
        (&["--older-than", "1h"], &["a", "b", "c"]),
        (&["--newer-than", "1h"], &["d"]),
        (&["--limit", "2"], &["a", "b"]),
        (&["--connection", "prod", "--subtool", "get_user", "--limit", "1"], &["a"]),
        (&["--caller", "nobody"], &[]),
    ];
    for (filters, expected) in rows {
        assert_eq!(ids(&lines(&world, &[&["list"], filters].concat(), 0)), expected, "{filters:?}");
        settled(&caller, 4).await;
    }
    let refused: [&[&str]; 6] = [
        &["replay"],
        &["discard", "--yes"],
        &["replay", "--all", "--caller", "x"],
        &["list", "--reason", "boredom"],
        &["list", "--older-than", "soon"],
        &["show"],
    ];
    for arguments in refused {
        let (code, stdout, _) = run(&world, arguments);
        assert_eq!((code, stdout.as_str()), (2, ""), "{arguments:?}");
    }
    let gone = lines(&world, &["discard", "--subtool", "get_user", "--caller", "operator", "--yes"], 0);
    assert_eq!(ids(&gone), ["a", "b"]);
    settled(&caller, 2).await;
    assert_eq!(ids(&lines(&world, &["discard", "d", "--yes"], 0)), ["d"]);
    assert_eq!(ids(&lines(&world, &["list"], 0)), ["c"]);
}

#[tokio::test]
async fn a_dry_run_says_what_would_come_of_it_and_changes_nothing() {
    let (world, caller) = world().await;
    let group = |name: &str| invocation("create_group", &json!({ "name": name }));
    caller.send(&parked("late", "prod", group("late"))).await;
    caller.send(&parked("good", "prod.bulk", group("good"))).await;
    caller.send(&parked("stranger", "acme.bulk", group("stranger"))).await;
    caller.send(&parked("odd", "prod.vip", group("odd"))).await;
    let of = |lines: &[Value]| -> BTreeMap<String, (String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let entry = |line: &Value| (text(&line["id"]), (text(&line["action"]), text(&line["note"])));
        lines.iter().map(entry).collect()
    };
    let plan = of(&lines(&world, &["replay", "--all", "--dry-run"], 1));
    let rows = [
        ("late", "would_replay", "deadline_exceeded"),
        ("good", "would_replay", ""),
        ("stranger", "cannot_replay", "`acme` is not configured"),
        ("odd", "cannot_replay", "routing key `prod.vip`"),
    ];
    for (id, action, note) in rows {
        assert!(plan[id].0 == action && plan[id].1.contains(note), "{id}: {:?}", plan[id]);
    }
    assert_eq!(lines(&world, &["discard", "--all"], 1).len(), 4);
    settled(&caller, 4).await;
    assert_eq!(caller.count("okta.invocations.prod.bulk").await, Some(0));

    let done = of(&lines(&world, &["replay", "--all", "--rate", "0"], 1));
    assert_eq!(done["late"].0, "replayed");
    assert_eq!(done["stranger"].0, "failed");
    let mut copies = Vec::new();
    for queue in ["okta.invocations.prod.bulk", "okta.invocations.prod.interactive"] {
        copies.push(caller.take(queue).await);
    }
    for copy in copies {
        let header = |name: &str| copy.header(name);
        assert_eq!(copy.exchange, "okta.invocations");
        assert!(["prod.bulk", "prod.interactive"].contains(&copy.key.as_str()), "{}", copy.key);
        assert_eq!(copy.properties.user_id().as_ref().map(|user| user.as_str()), Some("worker"));
        assert_eq!(copy.header_text("okta-caller").as_deref(), Some("operator"));
        assert_eq!(header("okta-attempts"), Some(number(0)));
        assert_eq!(header("okta-redeliveries"), Some(number(1)), "whoever gets it looks first");
        assert_eq!(header("okta-first-sent"), Some(number(LONG_AGO)));
        assert_eq!((header("okta-reason"), header("x-death")), (None, None));
    }
    let left = lines(&world, &["list"], 0);
    assert_eq!(ids(&left).into_iter().collect::<BTreeSet<_>>(), BTreeSet::from(["stranger", "odd"]));
}

#[tokio::test]
async fn looked_at_again_and_again_nothing_is_lost() {
    let (world, caller) = world().await;
    for name in ["a", "b", "c"] {
        let message = parked(name, "prod.bulk", invocation("get_user", &json!({ "user_id": name })));
        caller.send(&message.header("okta-redeliveries", number(1)).answer_to("answers")).await;
    }
    let first = lines(&world, &["list"], 0);
    for round in 0..25 {
        assert_eq!(lines(&world, &["show", "b"], 0).len(), 1, "round {round}");
        settled(&caller, 3).await;
    }
    let mut last = lines(&world, &["list"], 0);
    last.sort_by_key(|line| line["id"].to_string());
    for (before, mut after) in first.into_iter().zip(last) {
        after["parked"] = before["parked"].clone(); // known since the first copy
        assert_eq!(after, before);
    }
    settled(&caller, 3).await;
    let copy = caller.take(DEAD).await;
    let kept: u64 =
        copy.properties.expiration().as_ref().expect("a copy has its time").as_str().parse().unwrap();
    assert!(kept < 14 * 86_400_000, "its time goes on: {kept}");
    assert_eq!(copy.properties.reply_to().as_ref().map(|name| name.as_str()), Some("answers"));
}

#[tokio::test]
async fn properties_that_no_client_library_reads_are_listed_and_hide_nothing_behind_them() {
    let Some(node) = ours() else { return };
    let (world, caller) = world().await;
    let vhost = world.place.vhost.clone().unwrap();
    let mut wire = Wire::connect(node.port(), "operator", &vhost);
    wire.publish("", DEAD, b"\xff\xfe", br#"{"subtool":"list_groups"}"#);
    caller.send(&parked("behind", "prod.bulk", invocation("list_groups", &json!({})))).await;
    for _ in 0..2 {
        let list = lines(&world, &["list"], 0);
        assert_eq!(list.len(), 2, "{list:?}");
        assert_eq!((&list[0]["id"], &list[0]["subtool"]), (&Value::Null, &json!("list_groups")));
        assert_eq!(list[1]["id"], "behind");
        settled(&caller, 2).await;
    }
    let done = lines(&world, &["replay", "--all", "--rate", "0"], 1);
    assert_eq!((&done[0]["action"], &done[1]["action"]), (&json!("failed"), &json!("replayed")), "{done:?}");
    settled(&caller, 1).await;
    assert_eq!(lines(&world, &["discard", "--all", "--yes"], 0).len(), 1);
    settled(&caller, 0).await;
}

#[tokio::test]
async fn what_was_given_up_for_bringing_workers_down_is_tried_again_alone() {
    let (world, caller) = world().await;
    let body = invocation("create_group", &json!({ "name": "Once more" }));
    let message = parked("again", "prod.bulk", body).header("okta-reason", text("crash_loop"));
    caller.send(&message.header("okta-redeliveries", number(11)).answer_to("answers")).await;
    let _worker = world.worker();
    assert_eq!(lines(&world, &["replay", "again"], 0)[0]["action"], "replayed");
    let answer = caller.take("answers").await.body();
    assert_eq!((&answer["id"], &answer["status"]), (&json!("again"), &json!("succeeded")), "{answer}");
    assert_eq!((world.org.effects().len(), caller.count(DEAD).await), (1, Some(0)));
}

#[tokio::test]
async fn told_to_stop_a_replay_finishes_what_it_has_begun_and_leaves_the_rest() {
    let (world, caller) = world().await;
    for name in ["a", "b", "c"] {
        let body = invocation("get_user", &json!({ "user_id": name }));
        caller.send(&parked(name, "prod.bulk", body)).await;
    }
    let mut process =
        Process::start("dead replay", &mut dead(&world, &["replay", "--all", "--rate", "1/min"]));
    until("one is replayed", async || process.stdout().contains("a  prod.bulk  replayed")).await;
    process.signal("TERM");
    assert_eq!(process.wait().code(), Some(3), "{}", process.stderr());
    until("it says so", async || process.stderr().contains("1 replayed, 0 failed")).await;
    settled(&caller, 2).await;
    assert_eq!(caller.count("okta.invocations.prod.bulk").await, Some(1));
    let left = lines(&world, &["list"], 0);
    assert_eq!(ids(&left).into_iter().collect::<BTreeSet<_>>(), BTreeSet::from(["b", "c"]));
}

/// How many are replayed.
const MANY: usize = 1000;

#[tokio::test]
async fn a_replay_of_a_thousand_that_is_killed_twice_does_each_once_and_answers_each() {
    let (world, caller) = world().await;
    for row in 0..MANY {
        let body = invocation("create_group", &json!({ "name": format!("Replayed {row}") }));
        caller.send(&parked(&format!("m{row}"), "prod.bulk", body).answer_to("answers")).await;
    }
    let _worker = world.worker();
    for killed in 1..=2 {
        let mut command = dead(&world, &["replay", "--all", "--rate", "400/s"]);
        let mut process = Process::start("dead replay", &mut command);
        let deadline = Instant::now() + WAIT_MAX;
        while process.stdout().lines().count() < 250 {
            assert!(process.ended().is_none(), "{}", process.stderr());
            assert!(Instant::now() < deadline, "{}", process.stderr());
            std::thread::sleep(LOOK_AGAIN);
        }
        process.signal("KILL");
        process.wait();
        let left = caller.count(DEAD).await.unwrap();
        assert!(left > 0 && (left as usize) < MANY, "killed {killed} times, {left} are left");
    }
    let (code, _, stderr) = run(&world, &["replay", "--all", "--rate", "0"]);
    assert_eq!(code, 0, "{stderr}");
    settled(&caller, 0).await;
    let mut answered: BTreeMap<String, Reply> = BTreeMap::new();
    while answered.len() < MANY {
        let reply = caller.take("answers").await;
        let body = reply.body();
        assert_eq!((&body["status"], &body["effect"]), (&json!("succeeded"), &json!("applied")), "{body}");
        answered.insert(body["id"].as_str().unwrap().to_owned(), reply);
    }
    let effects = world.org.effects();
    assert_eq!(effects.iter().filter(|effect| *effect == "group.created").count(), MANY);
    assert_eq!(effects.len(), MANY);
    assert_eq!(lines(&world, &["list"], 0).len(), 0, "nothing is parked again");
}
