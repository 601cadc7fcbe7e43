//! Invocations of one subject run in the order they were published in.

use lapin::types::FieldTable;
use serde_json::{Value, json};

use super::caller::{Caller, Message};
use super::world::World;

/// Publishes to the bulk lane, to be answered to `answers`.
async fn send(caller: &Caller, id: &str, subtool: &str, arguments: &Value) {
    caller.send(&Message::new("prod.bulk", subtool, arguments).id(id).answer_to("answers")).await;
}

/// The ids of the next answers in the order they came in; all have succeeded.
async fn succeeded(caller: &Caller, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    while ids.len() < count {
        let body = caller.take("answers").await.body();
        assert_eq!(body["status"], "succeeded", "{body}");
        ids.push(body["id"].as_str().expect("an answer has an id").to_owned());
    }
    ids
}

fn person(login: &str) -> Value {
    let profile = json!({ "login": login, "email": login, "firstName": "S", "lastName": "T" });
    json!({ "profile": profile, "activate": false })
}

#[tokio::test]
async fn thirty_updates_of_one_user_leave_the_last_value_although_some_are_delayed() {
    const UPDATES: usize = 30;
    let world = World::with(&["--limit", "user_write=12", "--window", "2"]).await;
    let _worker = world.worker();
    let mut caller = world.caller().await;
    caller.queue("answers", FieldTable::default(), None).await;
    send(&caller, "new", "create_user", &person("ann@example.com")).await;
    let mut expected = vec!["new".to_owned()];
    for number in 0..UPDATES {
        let id = format!("t{number}");
        let update = json!({ "user_id": "Ann@example.com", "profile": { "title": id } });
        send(&caller, &id, "update_user", &update).await;
        expected.push(id);
    }
    assert_eq!(succeeded(&caller, UPDATES + 1).await, expected);
    let ann = caller.ask("prod", "get_user", &json!({ "user_id": "ann@example.com" })).await;
    assert_eq!(ann["profile"]["title"], format!("t{}", UPDATES - 1));
    assert_eq!(world.org.refused(), 0);
}

#[tokio::test]
async fn rows_about_the_same_people_find_what_the_rows_before_have_made() {
    const PEOPLE: usize = 8;
    let world = World::new().await;
    let _worker = world.worker();
    let mut caller = world.caller().await;
    caller.queue("answers", FieldTable::default(), None).await;
    let group = caller.ask("prod", "create_group", &json!({ "name": "Ordered" })).await["id"].clone();
    for number in 0..PEOPLE {
        let login = format!("step{number}@example.com");
        send(&caller, &format!("{number}.1"), "create_user", &person(&login)).await;
        let member = json!({ "user_id": login, "group_id": group });
        send(&caller, &format!("{number}.2"), "add_user_to_group", &member).await;
        let update = json!({ "user_id": login, "profile": { "department": "Sales" } });
        send(&caller, &format!("{number}.3"), "update_user", &update).await;
    }
    let ids = succeeded(&caller, 3 * PEOPLE).await;
    for number in 0..PEOPLE {
        let own: Vec<_> = ids.iter().filter(|id| id.starts_with(&format!("{number}."))).collect();
        assert!(own.is_sorted(), "{own:?}");
    }
    let members = caller.ask("prod", "list_group_members", &json!({ "group_id": group })).await;
    assert_eq!(members["count"], PEOPLE);
}
