//! Answers that are not Okta's, or are absurd, through the real client and over a socket: what the caller is
//! told, how many requests were sent, whether the connection is paused, and how much memory it takes.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod kinds;
mod server;
mod world;

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use kinds::{End, Kind, good_org, json_answer, kinds, user};
use server::{Answer, Server};
use tokio::task::JoinSet;
use world::{ANSWER_BYTES_MAX, ATTEMPTS, JANE, Patience, TOKEN, World};

/// An answer as `failed okta_unavailable none`.
fn brief(answer: &Value) -> String {
    let texts = [&answer["status"], &answer["error"]["code"], &answer["effect"]];
    texts.into_iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
}

/// The options of a caller who waits for two seconds.
fn hurried() -> Value {
    let deadline = Timestamp::now().checked_add(Duration::from_secs(2)).unwrap();
    json!({ "deadline": deadline })
}

/// What holds of every answer, whatever the server said.
fn check_text(name: &str, answer: &Value) {
    let text = answer.to_string();
    assert!(!text.contains(TOKEN), "{name}: the token came out: {text}");
    assert!(text.len() < 16 * 1024, "{name}: {} bytes", text.len());
}

/// The requests of the invocation itself, and how often the connection was probed.
fn requests(world: &World) -> (Vec<String>, usize) {
    let (probes, own): (Vec<_>, Vec<_>) =
        world.server.requests().into_iter().partition(|asked| asked == "GET /api/v1/users?limit=1");
    (own, probes.len())
}

/// Every request is answered so: a read.
async fn a_read(kind: Kind) {
    let Kind { name, answer, end, when_busy } = kind;
    let world = World::open(Server::start(move |_, _| answer.clone()), when_busy);
    let told = world.ask("get_user", json!({ "user_id": JANE }), options(end)).await;
    let (expected, attempts) = match end {
        // A probe finds nobody there either.
        End::NotOkta | End::Another | End::NoAnswer => ("failed okta_unavailable none", ATTEMPTS),
        End::TooLarge => ("failed okta_unavailable none", 1),
        End::Good => ("succeeded none", 1),
        End::Refused(code, _) => (code, 1),
        End::Unauthorized => ("failed unauthorized none", 1),
        End::Limited => ("failed rate_limited none", 1),
        End::Later => ("failed okta_unavailable none", 1),
    };
    assert_eq!(brief(&told), expected, "{name}: {told}");
    let is_nobody = matches!(end, End::NotOkta | End::NoAnswer);
    assert_eq!(world.is_paused(), is_nobody || end == End::Unauthorized, "{name}: {told}");
    let (own, probes) = requests(&world);
    let is_probed = is_nobody || end == End::Another;
    assert_eq!((own.len(), probes > 0), (usize::try_from(attempts).unwrap(), is_probed), "{name}: {told}");
    assert_eq!(told["okta_calls"], json!(attempts), "{name}: {told}");
    let is_told_when = is_nobody || matches!(end, End::Unauthorized | End::Limited | End::Later);
    assert_eq!(told["error"]["retry_at"].is_string(), is_told_when, "{name}: {told}");
    if is_nobody {
        let message = told["error"]["message"].as_str().unwrap();
        assert!(message.contains("Okta is not reached"), "{name}: {told}");
        // A page is counted by its status, and where there is none, as no answer.
        let is_counted = world.statuses().iter().all(|status| status.is_some() == (end == End::NotOkta));
        assert!(is_counted, "{name}: {:?}", world.statuses());
    }
    check_text(&name, &told);
}

/// What a caller asks for besides.
fn options(end: End) -> Value {
    match end {
        End::Limited | End::Later => hurried(),
        End::NotOkta
        | End::Another
        | End::NoAnswer
        | End::TooLarge
        | End::Good
        | End::Refused(..)
        | End::Unauthorized => json!({}),
    }
}

/// Every request is answered so: a write.
async fn a_write(kind: Kind) {
    let Kind { name, answer, end, when_busy } = kind;
    let (expected, writes_only) = match end {
        End::NotOkta | End::Another | End::NoAnswer => ("failed outcome_unknown unknown", false),
        End::TooLarge => ("failed outcome_unknown unknown", false),
        End::Refused(_, code) => (code, false),
        End::Unauthorized => ("failed unauthorized none", true),
        End::Limited => ("failed rate_limited none", true),
        // What is good for a read of a user is good for nothing here; the others wait in hand once they wrote.
        End::Good | End::Later => return,
    };
    let world = World::open(Server::start(move |_, _| answer.clone()), when_busy);
    let told = world.ask("deactivate_user", json!({ "user_id": JANE }), options(end)).await;
    assert_eq!(brief(&told), expected, "{name}: {told}");
    let (own, _) = requests(&world);
    let writes = own.iter().filter(|asked| asked.starts_with("POST")).count();
    assert_eq!(writes, 1, "{name}: {own:?}");
    assert!(!writes_only || own.len() == 1, "{name}: {own:?}");
    if matches!(end, End::NotOkta | End::Another | End::NoAnswer) {
        // Once more than there are attempts: the write, and the look for what it has done.
        assert_eq!(own.len(), usize::try_from(ATTEMPTS).unwrap() + 1, "{name}: {own:?}");
        assert!(world.is_paused() != (end == End::Another), "{name}: {told}");
        assert_eq!(told["error"]["retryable"], false, "{name}: {told}");
    }
    check_text(&name, &told);
}

/// Only the write itself is answered so, and the org is there: the look finds nothing of it.
async fn a_write_looked_for(kind: Kind) {
    let Kind { name, answer, end, when_busy } = kind;
    if !matches!(end, End::NotOkta | End::Another | End::NoAnswer | End::TooLarge) {
        return;
    }
    let script = move |asked: &str, number: usize| if number == 0 { answer.clone() } else { good_org(asked) };
    let world = World::open(Server::start(script), when_busy);
    let told = world.ask("deactivate_user", json!({ "user_id": JANE }), json!({})).await;
    assert_eq!(brief(&told), "succeeded applied", "{name}: {told}");
    let deactivate = format!("POST /api/v1/users/{JANE}/lifecycle/deactivate?sendEmail=false");
    let look = format!("GET /api/v1/users/{JANE}");
    assert_eq!(world.server.requests(), [&*deactivate, &*look, &*deactivate], "{name}");
    assert!(!world.is_paused(), "{name}");
}

/// The most memory that this process had, in KiB.
fn peak_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The client wants one, though nothing here is encrypted.
fn with_tls() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_answer_is_never_a_result_and_never_blamed_on_a_user() {
    with_tls();
    let kinds = kinds();
    assert!(kinds.len() >= 45, "{}", kinds.len());
    let mut names: Vec<_> = kinds.iter().map(|kind| kind.name.clone()).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), kinds.len(), "two kinds have one name");
    let before = peak_kib();
    let mut running = JoinSet::new();
    for kind in kinds {
        while running.len() >= 12 {
            running.join_next().await.unwrap().unwrap();
        }
        running.spawn(a_read(kind.clone()));
        running.spawn(a_write(kind.clone()));
        running.spawn(a_write_looked_for(kind));
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
    // Twelve at once, each with the largest answer and what is read of it.
    const PEAK_KIB_MAX: usize = 12 * 8 * ANSWER_BYTES_MAX / 1024;
    let taken = peak_kib().saturating_sub(before);
    assert!(taken < PEAK_KIB_MAX, "{taken} KiB at the peak");
}

/// One page of a list, and where the next one is said to be.
fn listed(items: &str, next: Option<&str>) -> Answer {
    let link = next.map_or_else(String::new, |next| format!("link: <{next}>; rel=\"next\"\r\n"));
    json_answer("200 OK", &link, format!("[{items}]"))
}

/// What stands behind `after=`.
fn cursor(asked: &str) -> Option<&str> {
    asked.split("after=").nth(1)?.split('&').next()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_that_never_ends_is_ended() {
    with_tls();
    let jane = user("ACTIVE");
    let elsewhere = Server::start(|_, _| json_answer("200 OK", "", "[]"));
    let other_host = format!("{}/api/v1/users?after=x", elsewhere.url());
    type Script = Box<dyn Fn(&str, usize) -> Answer + Send + Sync>;
    // The name, the pages, items, whether it is complete, requests.
    let rows: Vec<(&str, Script, u64, bool, usize)> = vec![
        (
            "a page that leads to itself",
            {
                let jane = jane.clone();
                Box::new(move |_, _| listed(&jane, Some("/api/v1/users?after=x")))
            },
            2,
            false,
            2,
        ),
        (
            "two pages that lead to each other",
            {
                let jane = jane.clone();
                Box::new(move |asked, _| {
                    let next = if cursor(asked) == Some("a") { "b" } else { "a" };
                    listed(&jane, Some(&format!("/api/v1/users?after={next}")))
                })
            },
            3,
            false,
            3,
        ),
        (
            "an empty page before the last one",
            {
                let jane = jane.clone();
                Box::new(move |asked, _| match cursor(asked) {
                    None => listed("", Some("/api/v1/users?after=x")),
                    Some(_) => listed(&jane, None),
                })
            },
            1,
            true,
            2,
        ),
        (
            "a page on another host",
            {
                let jane = jane.clone();
                Box::new(move |asked, _| match cursor(asked) {
                    None => listed(&jane, Some(&other_host)),
                    Some(_) => listed(&jane, None),
                })
            },
            2,
            true,
            2,
        ),
        (
            "a page above the API",
            {
                let jane = jane.clone();
                Box::new(move |_, _| listed(&jane, Some("/api/v1/../../oauth2/v1/token?after=x")))
            },
            1,
            true,
            1,
        ),
        (
            "a page without a cursor",
            {
                let jane = jane.clone();
                Box::new(move |_, _| listed(&jane, Some("/api/v1/users?limit=1")))
            },
            1,
            false,
            1,
        ),
    ];
    for (name, script, count, complete, requests) in rows {
        let world = World::open(Server::start(script), Patience::Usual);
        let told = world.ask("list_users", json!({ "limit": 1000 }), json!({})).await;
        let result = &told["result"];
        assert_eq!(
            (&result["count"], &result["complete"]),
            (&json!(count), &json!(complete)),
            "{name}: {told}"
        );
        assert_eq!(world.server.requests().len(), requests, "{name}: {:?}", world.server.requests());
        check_text(name, &told);
    }
    assert_eq!(elsewhere.requests(), [""; 0], "another host was asked");
    // New cursors for ever: the time for a list ends it, and it can be gone on with.
    let script = |_: &str, number: usize| listed("", Some(&format!("/api/v1/users?after=c{number}")));
    let world = World::open(Server::start(script), Patience::Usual);
    let told = world.ask("list_users", json!({ "limit": 1000 }), json!({})).await;
    let result = &told["result"];
    assert_eq!((&result["count"], &result["complete"]), (&json!(0), &json!(false)), "{told}");
    assert!(result["next"].is_string() && world.server.requests().len() > 1, "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_another_shape_is_no_list() {
    with_tls();
    for body in ["{}", "null", "[null]", "[1]", "[\"x\"]", "[[]]", "<html>", "", "[{}", "{\"items\":[]}"] {
        let world = World::open(Server::start(move |_, _| json_answer("200 OK", "", body)), Patience::Usual);
        let told = world.ask("list_groups", json!({}), json!({})).await;
        assert_eq!(brief(&told), "failed okta_unavailable none", "{body}: {told}");
        assert!(world.is_paused(), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_of_an_answer_is_taken_than_may_be() {
    with_tls();
    let endless = kinds().into_iter().find(|kind| kind.name == "a body without an end").unwrap();
    let answer = endless.answer;
    let world = World::open(Server::start(move |_, _| answer.clone()), Patience::Usual);
    let told = world.ask("get_user", json!({ "user_id": JANE }), json!({})).await;
    assert_eq!(brief(&told), "failed okta_unavailable none");
    // What lies in the sockets between is taken, too.
    const SOCKETS: usize = 8 << 20;
    let taken = world.server.sent(); // first, because the paused connection is probed meanwhile
    let answers = world.server.requests().len();
    assert!(taken < answers * (ANSWER_BYTES_MAX + SOCKETS), "{taken} bytes of {answers} answers");
}
