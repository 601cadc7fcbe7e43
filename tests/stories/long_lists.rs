//! Long lists that fail on the way: smaller pages, and what was read is kept.

use std::time::Duration;

use okta_worker::sandbox::{InjectedFault, Trouble};
use serde_json::{Value, json};

use crate::world::{Mishap, SAM, Setup, World, body};

const LIST: (&str, &str) = ("GET", "/api/v1/users");

/// An org of so many users, the administrator included, in which an invocation gives up after three attempts.
fn crowd(users: usize) -> World {
    let mut setup = Setup::default();
    setup.org.users = users - 1;
    setup.retry.attempts_max = 3;
    setup.open()
}

fn failing(status: u16, times: u32, skip: u32) -> InjectedFault {
    InjectedFault::next(Trouble::Status(status)).on(LIST.0, LIST.1).times(times, skip)
}

async fn answer(world: &mut World, key: &str, body: Value) -> Value {
    world.send(key, body);
    world.rest().await;
    drop(world.tape());
    world.answer()
}

fn everybody(after: &Value) -> Value {
    let mut arguments = json!({ "include_deprovisioned": true, "limit": 100_000 });
    if let Some(after) = after.as_str() {
        arguments["after"] = json!(after);
    }
    json!({ "subtool": "list_users", "arguments": arguments, "options": { "fields": ["id"] } })
}

fn ids(result: &Value) -> Vec<String> {
    let items = result["items"].as_array().unwrap();
    items.iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_last_page_that_fails_for_good_leaves_those_before_it() {
    for (key, status) in [("prod.interactive", 500), ("prod.bulk", 504)] {
        let mut world = crowd(600);
        world.fault(failing(status, 3, 2));
        let first = answer(&mut world, key, everybody(&Value::Null)).await;
        assert_eq!((&first["status"], &first["effect"]), (&json!("succeeded"), &json!("none")), "{first}");
        let result = &first["result"];
        assert_eq!((&result["count"], &result["complete"]), (&json!(400), &json!(false)), "{result}");
        assert_eq!(result["stopped"]["page"], 3);
        assert_eq!(result["stopped"]["code"], "okta_unavailable");
        let message = result["stopped"]["message"].as_str().unwrap();
        assert!(message.contains(&format!("Okta answered {status}")), "{message}");

        let rest = answer(&mut world, key, everybody(&result["next"])).await["result"].clone();
        assert_eq!((&rest["complete"], &rest["stopped"]), (&json!(true), &Value::Null));
        let mut all = [ids(result), ids(&rest)].concat();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 600, "no gap and no repeat");
        world.close();
    }
}

#[tokio::test(start_paused = true)]
async fn a_first_page_that_fails_for_good_fails_the_list() {
    let mut world = crowd(600);
    world.fault(failing(500, 3, 0));
    let answer = answer(&mut world, "prod.interactive", everybody(&Value::Null)).await;
    assert_eq!((&answer["status"], &answer["error"]["code"]), (&json!("failed"), &json!("okta_unavailable")));
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_page_that_is_too_large_for_okta_is_asked_for_again_by_halves() {
    let mut world = crowd(1000);
    world.fails_at_pages_of(1000);
    let group_id = world.org().group_id("Everyone").unwrap().to_string();
    let members = |limit: u32| {
        let arguments = json!({ "group_id": group_id, "limit": limit });
        json!({ "subtool": "list_group_members", "arguments": arguments, "options": { "count_only": true } })
    };
    let answered = answer(&mut world, "prod.interactive", members(100_000)).await;
    // All but the 14 that are deactivated: the group is `Everyone`.
    assert_eq!(answered["result"]["count"], 986, "{answered}");
    assert_eq!(answered["result"]["complete"], true);
    // One that failed, and two pages of 500.
    assert_eq!((&answered["okta_calls"], &answered["attempts"]), (&json!(3), &json!(2)));
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_list_whose_connection_is_paused_answers_what_it_has() {
    let mut world = crowd(600);
    world.fault(failing(401, 2, 2));
    let answer = answer(&mut world, "prod.interactive", everybody(&Value::Null)).await;
    let result = &answer["result"];
    assert_eq!((&result["count"], &result["complete"]), (&json!(400), &json!(false)), "{answer}");
    assert_eq!((&result["stopped"]["page"], &result["stopped"]["code"]), (&json!(3), &json!("unauthorized")));
    assert!(result["next"].is_string());
    world.run_for(Duration::from_secs(60)).await; // until a probe gets through
    drop(world.tape());
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_a_later_page_keeps_those_before_it() {
    let mut world = crowd(600);
    world.fault(failing(404, 1, 1));
    let answer = answer(&mut world, "prod.interactive", everybody(&Value::Null)).await;
    let result = &answer["result"];
    assert_eq!(
        (&result["count"], &result["stopped"]["code"]),
        (&json!(200), &json!("not_found")),
        "{answer}"
    );
    world.close();
}

#[tokio::test(start_paused = true)]
async fn the_last_page_of_a_stream_says_where_it_stopped() {
    let mut world = crowd(600);
    world.fault(failing(500, 3, 2));
    let mut message = everybody(&Value::Null);
    message["options"]["stream"] = json!(true);
    world.send("prod.interactive", message);
    world.rest().await;
    drop(world.tape());
    let mut pages = Vec::new();
    for index in 0..3 {
        let page = body(&world.reply());
        assert_eq!(page["page"], json!({ "index": index, "last": index == 2 }));
        pages.push(page["result"].clone());
    }
    let counts: Vec<_> = pages.iter().map(|page| page["count"].as_u64()).collect();
    assert_eq!(counts, [Some(200), Some(200), Some(0)]);
    assert_eq!(pages[0]["stopped"], Value::Null);
    assert_eq!(pages[2]["stopped"]["page"], 3);
    assert_eq!((&pages[2]["complete"], &pages[2]["next"]), (&json!(false), &pages[1]["next"]));
    world.close();
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_too_large_is_asked_for_in_smaller_pages_where_there_are_pages() {
    let mut world = crowd(400);
    world.mishap(Mishap::TooLarge);
    let answered = answer(&mut world, "prod.interactive", everybody(&Value::Null)).await;
    assert_eq!((&answered["result"]["count"], &answered["result"]["complete"]), (&json!(400), &json!(true)));
    assert_eq!(answered["okta_calls"], 5, "one of 200 that failed, four of 100");

    world.mishap(Mishap::TooLarge);
    let user = json!({ "subtool": "get_user", "arguments": { "user_id": SAM } });
    let answered = answer(&mut world, "prod.interactive", user).await;
    let error = &answered["error"];
    assert_eq!((&error["code"], &error["retryable"]), (&json!("okta_unavailable"), &json!(false)));
    let message = "failed to run `get_user`: failed to read Okta's answer: it has more than 1000 bytes";
    assert_eq!((&error["message"], &answered["okta_calls"]), (&json!(message), &json!(1)));
    world.close();
}
