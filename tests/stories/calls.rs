//! Calls from their message to their answer.

use okta_worker::domain::mail::Properties;
use serde_json::json;

use crate::world::{SAM, Setup, body};

#[tokio::test(start_paused = true)]
async fn a_call_is_asked_answered_and_acknowledged() {
    let mut world = Setup::default().open();
    world.ask("get_user", json!({ "user_id": SAM }));
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @r"
    +0.000s prod interactive received
    +0.100s prod user_read asked GET: 200
    +0.100s m1 get_user succeeded, effect none, attempts 1, calls 1
    ");
    let answer = world.answer();
    assert_eq!(answer["result"]["profile"]["login"], SAM);
    assert_eq!(answer["rate_limit"]["remaining"], 999);
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_group_is_read_merged_and_replaced() {
    let mut world = Setup::default().open();
    world.ask("create_group", json!({ "name": "Night shift", "description": "Those who are up late" }));
    world.rest().await;
    let id = world.answer()["result"]["id"].as_str().unwrap().to_owned();
    world.tape();
    world.ask("update_group", json!({ "group_id": id, "name": "Late shift" }));
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @r"
    +0.150s prod interactive received
    +0.250s prod group asked GET: 200
    +0.350s prod group asked PUT: 200
    +0.350s m2 update_group succeeded, effect applied, attempts 1, calls 2
    ");
    assert_eq!(world.answer()["result"]["profile"]["description"], "Those who are up late");
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_user_who_is_not_deactivated_is_never_deleted() {
    let mut world = Setup::default().open();
    world.ask("delete_user", json!({ "user_id": SAM }));
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @r"
    +0.000s prod interactive received
    +0.100s prod user_read asked GET: 200
    +0.100s m1 delete_user failed precondition_failed, effect none, attempts 1, calls 1
    ");
    assert_eq!(world.answers(1), ["m1 failed precondition_failed none"]);
    assert!(world.effects().is_empty());
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_deactivated_user_is_deleted_and_looked_for() {
    let mut world = Setup::default().open();
    let profile =
        json!({ "firstName": "A", "lastName": "B", "email": "a@example.com", "login": "a@example.com" });
    world.ask("create_user", json!({ "profile": profile, "activate": false }));
    world.rest().await;
    world.ask("deactivate_user", json!({ "user_id": "a@example.com" }));
    world.rest().await;
    world.tape();
    world.ask("delete_user", json!({ "user_id": "a@example.com" }));
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @r"
    +0.300s prod interactive received
    +0.400s prod user_read asked GET: 200
    +0.500s prod user_write asked DELETE: 204
    +0.600s prod user_read asked GET: 404
    +0.600s m3 delete_user succeeded, effect applied, attempts 1, calls 3
    ");
    assert_eq!(world.answers(3).last().unwrap(), "m3 succeeded applied");
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_list_follows_its_pages_and_goes_on_where_it_stopped() {
    let mut setup = Setup::default();
    setup.org.users = 450;
    let mut world = setup.open();
    let fields = json!({ "fields": ["id"] });
    world.send("prod", json!({ "subtool": "list_users", "arguments": { "limit": 250 }, "options": fields }));
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @r"
    +0.000s prod interactive received
    +0.100s prod users asked GET: 200
    +0.200s prod users asked GET: 200
    +0.200s m1 list_users succeeded, effect none, attempts 1, calls 2
    ");
    let first = world.answer();
    let next = first["result"]["next"].as_str().unwrap().to_owned();
    let rest = json!({ "limit": 1000, "after": next });
    world.send("prod", json!({ "subtool": "list_users", "arguments": rest, "options": fields }));
    world.rest().await;
    world.tape();
    let second = world.answer();
    assert_eq!(second["result"]["complete"], true);
    let mut ids: Vec<String> = [&first, &second]
        .iter()
        .flat_map(|answer| answer["result"]["items"].as_array().unwrap())
        .map(|item| item["id"].as_str().unwrap().to_owned())
        .collect();
    let count = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), count, "nobody twice");
    world.close();
}

#[tokio::test(start_paused = true)]
async fn without_a_reply_queue_the_result_goes_to_the_results_exchange() {
    let mut world = Setup::default().open();
    let body_text = json!({ "subtool": "get_user", "arguments": { "user_id": SAM } }).to_string();
    world.send_raw("prod.bulk", Properties::default(), body_text);
    world.rest().await;
    world.tape();
    let result = world.result();
    assert_eq!(result.routing_key, "prod.get_user.succeeded");
    assert_eq!(result.properties.message_id.as_deref(), Some("m1.result"));
    assert_eq!(body(&result)["status"], "succeeded");
    world.close();
}

#[tokio::test(start_paused = true)]
async fn an_answer_nobody_is_there_for_goes_to_the_results_exchange_without_its_secret() {
    let mut world = Setup::default().open();
    let profile =
        json!({ "firstName": "A", "lastName": "B", "email": "a@example.com", "login": "a@example.com" });
    world.ask("create_user", json!({ "profile": profile, "activate": false }));
    world.rest().await;
    world.answer();
    world.tape();
    let text = json!({ "subtool": "activate_user", "arguments": { "user_id": "a@example.com", "send_email": false } });
    let gone = Properties { reply_to: Some("gone".into()), ..Properties::default() };
    world.send_raw("prod", gone, text.to_string());
    world.rest().await;
    insta::assert_snapshot!(world.tape(), @r"
    +0.150s prod interactive received
    +0.250s prod users asked POST: 200
    +0.250s m2 undeliverable
    +0.250s m2 activate_user succeeded, effect applied, attempts 1, calls 1
    ");
    let result = world.result();
    assert!(result.properties.headers.contains_key("okta-undeliverable"));
    assert_eq!(body(&result)["result"], json!({ "activation_url": "***", "activation_token": "***" }));
    world.close();
}

#[tokio::test(start_paused = true)]
async fn what_has_not_begun_is_handed_back_when_the_worker_stops() {
    let mut world = Setup::default().limit(okta_worker::domain::bucket::Bucket::UserRead, 2).open();
    for _ in 0..4 {
        world.ask("get_user", json!({ "user_id": SAM }));
    }
    world.run_for(std::time::Duration::from_secs(1)).await;
    world.replace_worker();
    world.rest().await;
    let tape = world.tape();
    assert_eq!(tape.matches("handed back").count(), 2, "{tape}");
    assert_eq!(tape.matches("received again").count(), 2, "{tape}");
    assert_eq!(world.answers(4).len(), 4);
    world.close();
}
