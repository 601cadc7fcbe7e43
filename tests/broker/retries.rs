//! Okta fails or limits: what is tried again, what is waited for, and what is said at once.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::caller::Message;
use super::world::{Start, World};

#[tokio::test]
async fn a_read_that_failed_is_sent_again() {
    let world = World::new().await;
    let worker = world.worker();
    let mut caller = world.caller().await;
    world
        .org
        .fault(&json!({"method": "GET", "route": "/api/v1/groups", "times": 2, "what": {"status": 500}}));
    let reply = caller.call(&Message::new("prod", "list_groups", &json!({}))).await;
    let body = reply.body();
    assert_eq!(
        (&body["status"], &body["attempts"], &body["okta_calls"]),
        (&json!("succeeded"), &json!(3), &json!(3))
    );
    let retries = "okta_worker_retries_total{connection=\"prod\",reason=\"server_error\"} 2";
    assert!(worker.metrics().contains(retries), "{}", worker.metrics());
    world.org.fault(&json!({"route": "/api/v1/groups", "times": 5, "what": "lost"}));
    let body = caller.call(&Message::new("prod", "list_groups", &json!({}))).await.body();
    assert_eq!((&body["error"]["code"], &body["attempts"]), (&json!("okta_unavailable"), &json!(5)));
    assert_eq!((&body["effect"], &body["error"]["retryable"]), (&json!("none"), &json!(true)));
}

#[tokio::test]
async fn a_create_that_may_have_happened_is_sent_once_more_and_recognized() {
    let world = World::new().await;
    let _worker = world.worker();
    let mut caller = world.caller().await;
    for (login, when, requests) in [("a@example.com", "before", 2), ("b@example.com", "after", 3)] {
        world.org.fault(&json!({"method": "POST", "when": when, "what": {"bare": 504}}));
        let profile = json!({"firstName": "A", "lastName": "B", "login": login, "email": login});
        let credentials = json!({"password": {"value": "Hunter2-Hunter2"}});
        let arguments = json!({"profile": profile, "credentials": credentials});
        let (before, done) = (world.org.requests(), world.org.effects().len());
        let body = caller.call(&Message::new("prod", "create_user", &arguments)).await.body();
        assert_eq!((&body["status"], &body["effect"]), (&json!("succeeded"), &json!("applied")), "{body}");
        assert_eq!(
            (&body["result"]["profile"]["login"], &body["attempts"]),
            (&json!(login), &json!(2)),
            "{body}"
        );
        assert_eq!(world.org.requests(), before + requests);
        assert_eq!(world.org.effects()[done..], ["user.created", "user.activated"], "{when}");
    }
}

#[tokio::test]
async fn a_spent_window_is_waited_out_without_a_429_and_without_spending_attempts() {
    let world = World::with(&["--limit", "groups=4", "--window", "2"]).await;
    let _worker = world.worker();
    let mut caller = world.caller().await;
    let message = Message::new("prod.bulk", "list_groups", &json!({"limit": 1}));
    let mut begun = Vec::new();
    for _ in 0..6 {
        begun.push(caller.begin(&message).await);
    }
    let mut bodies = Vec::new();
    for correlation in begun {
        bodies.push(caller.end(&correlation).await.body());
    }
    for body in &bodies {
        assert_eq!((&body["status"], &body["attempts"]), (&json!("succeeded"), &json!(1)), "{body}");
    }
    let waited = |body: &&Value| body["waited_ms"].as_u64() > Some(500);
    assert!(bodies.iter().any(|body| waited(&body)), "{bodies:?}");
    assert_eq!(world.org.refused(), 0);
}

#[tokio::test]
async fn a_429_of_somebody_elses_making_costs_no_attempt() {
    let world = World::new().await;
    let _worker = world.worker();
    let mut caller = world.caller().await;
    world.org.fault(&json!({"route": "/api/v1/groups", "what": {"status": 429}}));
    let body = caller.call(&Message::new("prod", "list_groups", &json!({"limit": 1}))).await.body();
    assert_eq!(
        (&body["status"], &body["attempts"], &body["okta_calls"]),
        (&json!("succeeded"), &json!(1), &json!(2))
    );
}

#[tokio::test]
async fn whoever_cannot_wait_for_the_next_window_is_told_at_once_when_it_comes() {
    let world = World::with(&["--limit", "groups=2", "--window", "60"]).await;
    let window = [("OKTA_WORKER__CONNECTIONS__PROD__RATE_LIMIT_WINDOW", "60s")];
    let _worker = world.worker_with(&Start { variables: &window, ..Start::default() });
    let mut caller = world.caller().await;
    let message = Message::new("prod", "list_groups", &json!({"limit": 1}));
    assert_eq!(caller.call(&message).await.body()["status"], "succeeded");
    let deadline = Timestamp::now() + jiff::SignedDuration::from_secs(20);
    let asked = Instant::now();
    let reply = caller.call(&message.options(json!({"deadline": deadline.to_string()}))).await;
    assert!(asked.elapsed() < Duration::from_secs(10), "it was told after {:?}", asked.elapsed());
    let (code, path) = reply.error();
    assert_eq!((code.as_str(), path.as_deref()), ("rate_limited", Some("options.deadline")));
    let error = &reply.body()["error"];
    let retry_at: Timestamp = error["retry_at"].as_str().expect("it says when").parse().unwrap();
    assert!(retry_at > deadline && error["retryable"] == true, "{error}");
    assert_eq!(world.org.refused(), 0);
}
