//! Writes whose answer never came, and messages that come twice: each has its effect once.

use std::time::Duration;

use okta_worker::domain::bucket::Bucket;
use okta_worker::domain::message::{HeaderValue, Properties};
use okta_worker::sandbox::{InjectedFault, Trouble, UserStatus};
use okta_worker::tools::ToolKind;
use okta_worker::tools::catalogue;
use serde_json::{Value, json};

use crate::world::{REPLIES, SAM, Setup, World, brief};

/// How the user stands before.
#[derive(Debug, Clone, Copy)]
enum Before {
    As(UserStatus),
    LockedOut,
    /// In the group and assigned to the app.
    Member,
    /// With a session.
    SignedIn,
    /// With a factor.
    Enrolled,
    /// The app is the group's.
    GroupAssigned,
}

/// One write: subtool, arguments, what comes before, and what Okta does.
type Row = (&'static str, &'static str, Before, &'static [&'static str]);

const ACTIVE: Before = Before::As(UserStatus::Active);

const ROWS: [Row; 25] = [
    ("clear_user_sessions", r#"{"user_id":"$U"}"#, Before::SignedIn, &["user.sessions_cleared"]),
    ("reset_user_factors", r#"{"user_id":"$U"}"#, Before::Enrolled, &["user.factors_reset"]),
    (
        "reactivate_user",
        r#"{"user_id":"$U"}"#,
        Before::As(UserStatus::Provisioned),
        &["user.reactivated", "mail.activation"],
    ),
    ("assign_group_to_app", r#"{"app_id":"$A","group_id":"$G"}"#, ACTIVE, &["app.group_assigned"]),
    (
        "remove_group_from_app",
        r#"{"app_id":"$A","group_id":"$G"}"#,
        Before::GroupAssigned,
        &["app.group_unassigned"],
    ),
    (
        "create_user",
        r#"{"profile":{"firstName":"J","lastName":"D","login":"j@example.com","email":"j@example.com"},"activate":false}"#,
        ACTIVE,
        &["user.created"],
    ),
    (
        "create_user",
        r#"{"profile":{"firstName":"J","lastName":"D","login":"j@example.com","email":"j@example.com"},"group_ids":["$G"]}"#,
        ACTIVE,
        &["user.created", "user.activated", "mail.activation", "member.added"],
    ),
    ("update_user", r#"{"user_id":"$U","profile":{"title":"Night Owl"}}"#, ACTIVE, &["user.updated"]),
    ("delete_user", r#"{"user_id":"$U"}"#, Before::As(UserStatus::Deprovisioned), &["user.deleted"]),
    (
        "activate_user",
        r#"{"user_id":"$U"}"#,
        Before::As(UserStatus::Staged),
        &["user.activated", "mail.activation"],
    ),
    ("deactivate_user", r#"{"user_id":"$U"}"#, ACTIVE, &["user.deactivated"]),
    ("suspend_user", r#"{"user_id":"$U"}"#, ACTIVE, &["user.suspended"]),
    ("unsuspend_user", r#"{"user_id":"$U"}"#, Before::As(UserStatus::Suspended), &["user.unsuspended"]),
    ("unlock_user", r#"{"user_id":"$U"}"#, Before::LockedOut, &["user.unlocked"]),
    ("reset_user_password", r#"{"user_id":"$U"}"#, ACTIVE, &["user.password_reset", "mail.password_reset"]),
    ("expire_user_password", r#"{"user_id":"$U"}"#, ACTIVE, &["user.password_expired"]),
    ("create_group", r#"{"name":"Night shift","description":"They watch"}"#, ACTIVE, &["group.created"]),
    ("update_group", r#"{"group_id":"$G","description":"They sleep"}"#, ACTIVE, &["group.updated"]),
    ("delete_group", r#"{"group_id":"$G"}"#, ACTIVE, &["group.deleted"]),
    ("add_user_to_group", r#"{"group_id":"$G","user_id":"$U"}"#, ACTIVE, &["member.added"]),
    ("remove_user_from_group", r#"{"group_id":"$G","user_id":"$U"}"#, Before::Member, &["member.removed"]),
    ("assign_user_to_app", r#"{"app_id":"$A","user_id":"$U"}"#, ACTIVE, &["app.assigned"]),
    ("remove_user_from_app", r#"{"app_id":"$A","user_id":"$U"}"#, Before::Member, &["app.unassigned"]),
    // By login, as people name each other.
    ("suspend_user", r#"{"user_id":"$L"}"#, ACTIVE, &["user.suspended"]),
    ("delete_user", r#"{"user_id":"$L"}"#, Before::As(UserStatus::Deprovisioned), &["user.deleted"]),
];

/// A world before a row, and the row's arguments in it.
async fn before(row: &Row) -> (World, Value, usize) {
    let mut world = Setup::default().open();
    let (user, group) = {
        let org = world.org();
        (org.user_id(SAM).unwrap(), org.group_id("Sales").unwrap())
    };
    let app = world.org().create_app("Nightly");
    match row.2 {
        Before::As(status) => drop(world.org().set_status(user, status)),
        Before::LockedOut => drop(world.org().lock_out(user)),
        Before::SignedIn => drop(world.org().sign_in(user)),
        Before::Enrolled => drop(world.org().enroll_factor(user, "sms")),
        Before::GroupAssigned => drop(world.org().assign_group_to_app(app, group)),
        Before::Member => {
            let (user, group, app) = (user.to_string(), group.to_string(), app.to_string());
            world.ask("add_user_to_group", json!({ "group_id": group, "user_id": user }));
            world.ask("assign_user_to_app", json!({ "app_id": app, "user_id": user }));
            world.rest().await;
            world.answers(2);
        }
    }
    world.run_for(Duration::from_secs(3600)).await; // long before
    world.tape();
    let arguments = row.1.replace("$U", user.as_str()).replace("$G", group.as_str());
    let arguments = arguments.replace("$A", app.as_str()).replace("$L", SAM);
    let done = world.effects().len();
    (world, serde_json::from_str(&arguments).unwrap(), done)
}

/// What Okta did since, in any order.
fn done_since(world: &World, before: usize) -> Vec<&'static str> {
    let mut effects = world.effects()[before..].to_vec();
    effects.sort_unstable();
    effects
}

fn sorted(effects: &[&'static str]) -> Vec<&'static str> {
    let mut effects = effects.to_vec();
    effects.sort_unstable();
    effects
}

const WRITES: [&str; 3] = ["POST", "PUT", "DELETE"];

#[test]
fn every_write_has_a_row() {
    for entry in &catalogue::CATALOGUE {
        let is_there = ROWS.iter().any(|row| row.0 == entry.manifest.name);
        assert_eq!(is_there, entry.manifest.kind != ToolKind::Read, "{}", entry.manifest.name);
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_answer_was_lost_had_its_effect_once() {
    effects_once(&[Trouble::Bare(504), Trouble::Html(502), Trouble::Lost, Trouble::Status(500)]).await;
}

#[tokio::test(start_paused = true)]
async fn a_write_that_a_page_answered_had_its_effect_once() {
    let error_object = Trouble::Code { status: 200, code: "E0000009".to_owned() };
    effects_once(&[Trouble::Html(200), error_object, Trouble::Bare(200)]).await;
    effects_once(&[Trouble::Html(302), Trouble::Html(404), Trouble::Bare(404), Trouble::Html(407)]).await;
}

/// Each write, answered like this when it is done and when it is not.
async fn effects_once(troubles: &[Trouble]) {
    for trouble in troubles {
        for row in &ROWS {
            for is_done in [true, false] {
                let (mut world, arguments, begin) = before(row).await;
                let write = WRITES.into_iter().map(|method| {
                    let fault = InjectedFault::next(trouble.clone());
                    let fault = InjectedFault { method: Some(method.to_owned()), ..fault };
                    if is_done { fault.after_effect() } else { fault }
                });
                // One of them strikes; the others never see a request of their method.
                let method = method_of(row.0);
                write
                    .filter(|fault| fault.method.as_deref() == Some(method))
                    .for_each(|fault| world.fault(fault));
                world.ask(row.0, arguments);
                world.rest().await;
                let tape = world.tape();
                let answer = brief(&world.answer());
                let what = format!("{} {trouble:?} done: {is_done}: {answer}\n{tape}", row.0);
                // A second activation leaves no trace but the log's, and an empty log may only be late.
                if row.0 == "reactivate_user" && !is_done {
                    assert!(answer.ends_with("failed outcome_unknown unknown"), "{what}");
                    assert!(done_since(&world, begin).is_empty(), "{what}");
                } else {
                    assert!(answer.ends_with("succeeded applied"), "{what}");
                    assert_eq!(done_since(&world, begin), sorted(row.3), "{what}");
                }
                world.close();
            }
        }
    }
}

fn method_of(subtool: &str) -> &'static str {
    match subtool {
        "delete_user"
        | "delete_group"
        | "remove_user_from_group"
        | "remove_user_from_app"
        | "remove_group_from_app"
        | "clear_user_sessions" => "DELETE",
        "update_group" | "add_user_to_group" | "assign_group_to_app" => "PUT",
        _ => "POST",
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_sent_again_by_an_unsure_producer_has_its_effect_once() {
    for row in &ROWS {
        let (mut world, arguments, begin) = before(row).await;
        let body = json!({ "subtool": row.0, "arguments": arguments }).to_string();
        let sent = Some(u64::try_from(world.now().as_second()).unwrap());
        let to_replies =
            || Properties { reply_to: Some(REPLIES.to_owned()), timestamp: sent, ..Properties::default() };
        world.send_raw("prod", to_replies(), body.clone());
        world.rest().await;
        assert!(brief(&world.answer()).ends_with("succeeded applied"), "{}", row.0);
        world.run_for(Duration::from_secs(20)).await;
        world.replace_worker(); // one that remembers nothing
        let resent = [("okta-resent".to_owned(), HeaderValue::Bool(true))].into();
        world.send_raw("prod", Properties { headers: resent, ..to_replies() }, body);
        world.rest().await;
        let (tape, answer) = (world.tape(), brief(&world.answer()));
        let what = format!("{}: {answer}\n{tape}", row.0);
        assert!(answer.ends_with("succeeded applied"), "{what}");
        assert_eq!(done_since(&world, begin), sorted(row.3), "{what}");
        world.close();
    }
}

#[tokio::test(start_paused = true)]
async fn what_somebody_undid_since_is_not_done_again() {
    let rows = [
        ("suspend_user", "unsuspend_user", ACTIVE),
        ("deactivate_user", "activate_user", ACTIVE),
        ("add_user_to_group", "remove_user_from_group", ACTIVE),
        ("remove_user_from_group", "add_user_to_group", Before::Member),
        ("remove_user_from_app", "assign_user_to_app", Before::Member),
        ("remove_group_from_app", "assign_group_to_app", Before::GroupAssigned),
    ];
    for (first, then, stands) in rows {
        let row = ROWS.iter().find(|row| row.0 == first).unwrap();
        let (mut world, arguments, begin) = before(&(row.0, row.1, stands, row.3)).await;
        let sent = Some(u64::try_from(world.now().as_second()).unwrap());
        let to_replies =
            || Properties { reply_to: Some(REPLIES.to_owned()), timestamp: sent, ..Properties::default() };
        let body = json!({ "subtool": first, "arguments": arguments }).to_string();
        world.send_raw("prod", to_replies(), body.clone());
        world.rest().await;
        world.run_for(Duration::from_secs(5)).await;
        world.ask(then, arguments);
        world.rest().await;
        world.answers(2);
        let both = world.effects().len();
        world.replace_worker();
        let resent = [("okta-resent".to_owned(), HeaderValue::Bool(true))].into();
        world.send_raw("prod", Properties { headers: resent, ..to_replies() }, body);
        world.rest().await;
        let (tape, answer) = (world.tape(), brief(&world.answer()));
        assert!(answer.ends_with("succeeded applied"), "{first}: {answer}\n{tape}");
        assert!(both > begin && world.effects().len() == both, "{first}:\n{tape}");
        world.close();
    }
}

#[tokio::test(start_paused = true)]
async fn a_login_that_was_taken_before_is_somebody_elses() {
    let jane = json!({ "profile": { "firstName": "J", "lastName": "D", "login": "j@example.com", "email": "j@example.com" } });
    let mut world = Setup::default().open();
    world.ask("create_user", jane.clone());
    world.rest().await;
    assert_eq!(world.answers(1), ["m1 succeeded applied"]);
    world.run_for(Duration::from_secs(60)).await;
    world.fault(InjectedFault::next(Trouble::Bare(504)).on("POST", "/api/v1/users"));
    world.ask("create_user", jane.clone());
    world.rest().await;
    world.tape();
    assert_eq!(world.answers(1), ["m2 failed already_exists none"]);
    // Created since, but with something else in it.
    let mut other = jane;
    other["profile"]["lastName"] = json!("Doe");
    other["profile"]["login"] = json!("k@example.com");
    world.fault(InjectedFault::next(Trouble::Bare(504)).on("POST", "/api/v1/users").after_effect());
    world.ask("create_user", other.clone());
    world.rest().await;
    assert_eq!(world.answers(1), ["m3 succeeded applied"]);
    other["profile"]["firstName"] = json!("K");
    world.fault(InjectedFault::next(Trouble::Bare(504)).on("POST", "/api/v1/users"));
    world.ask("create_user", other);
    world.rest().await;
    world.tape();
    assert_eq!(world.answers(1), ["m4 failed already_exists none"]);
    world.close();
}

/// A worker is killed between the confirm of a copy and the acknowledgement of the original; two others run them.
#[tokio::test(start_paused = true)]
async fn a_creation_whose_original_and_copy_are_both_run_gives_the_same_answer_twice() {
    let jane =
        json!({ "firstName": "J", "lastName": "D", "login": "j@example.com", "email": "j@example.com" });
    let rows = [
        ("create_user", Bucket::Users, json!({ "profile": jane })),
        ("create_group", Bucket::Groups, json!({ "name": "Sales EMEA" })),
    ];
    for (subtool, bucket, arguments) in rows {
        let mut world = Setup::default().open();
        let body = json!({ "subtool": subtool, "arguments": arguments }).to_string();
        let (message_id, reply_to) = (Some("m1".to_owned()), Some(REPLIES.to_owned()));
        let original = Properties { message_id, reply_to, ..Properties::default() };
        world.delay_for_budget(bucket, Duration::from_secs(5));
        world.send_raw("prod.bulk", original.clone(), body.clone());
        world.run_for(Duration::from_secs(1)).await;
        world.replace_worker();
        world.send_again("prod.bulk", original, body);
        world.run_for(Duration::from_secs(2)).await;
        assert_eq!(world.answers(1), ["m1 succeeded applied"], "{subtool}");
        world.replace_worker();
        world.rest().await;
        assert_eq!(world.answers(1), ["m1 succeeded applied"], "{subtool}\n{}", world.tape());
        world.tape();
        world.close();
    }
}

#[tokio::test(start_paused = true)]
async fn a_delayed_creation_that_finds_an_older_or_another_user_is_refused() {
    let jane = |first: &str| json!({ "profile": { "firstName": first, "lastName": "D", "login": "j@example.com", "email": "j@example.com" } });
    let mut world = Setup::default().open();
    world.ask("create_user", jane("J"));
    world.rest().await;
    assert_eq!(world.answers(1), ["m1 succeeded applied"]);
    world.run_for(Duration::from_secs(60)).await;
    // The user is older than the delayed message.
    world.delay_for_budget(Bucket::Users, Duration::from_secs(5));
    world.ask_bulk("create_user", jane("J"));
    world.rest().await;
    assert_eq!(world.answers(1), ["m2 failed already_exists none"]);
    // It came during the delay, with another profile.
    world.tape();
    world.close();
    let mut world = Setup::default().open();
    world.delay_for_budget(Bucket::Users, Duration::from_secs(5));
    world.ask_bulk("create_user", jane("K"));
    world.run_for(Duration::from_secs(1)).await;
    world.ask("create_user", jane("J"));
    world.rest().await;
    assert_eq!(world.answers(2), ["m2 succeeded applied", "m1 failed already_exists none"]);
    world.tape();
    world.close();
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_was_lost_is_minted_anew_where_that_is_harmless_and_else_unknown() {
    let rows = [
        (
            "activate_user",
            json!({ "user_id": SAM, "send_email": false }),
            UserStatus::Staged,
            "succeeded applied",
        ),
        (
            "reset_user_password",
            json!({ "user_id": SAM, "send_email": false }),
            UserStatus::Active,
            "failed outcome_unknown unknown",
        ),
        (
            "reactivate_user",
            json!({ "user_id": SAM, "send_email": false }),
            UserStatus::Provisioned,
            "failed outcome_unknown unknown",
        ),
        (
            "expire_user_password",
            json!({ "user_id": SAM, "temp_password": true }),
            UserStatus::Active,
            "failed outcome_unknown unknown",
        ),
    ];
    for (subtool, arguments, status, expected) in rows {
        let mut world = Setup::default().open();
        let sam = world.org().user_id(SAM).unwrap();
        world.org().set_status(sam, status);
        world.run_for(Duration::from_secs(60)).await;
        world.fault(
            InjectedFault { method: Some("POST".to_owned()), ..InjectedFault::next(Trouble::Lost) }
                .after_effect(),
        );
        world.ask(subtool, arguments);
        world.rest().await;
        let (tape, answer) = (world.tape(), world.answer());
        assert_eq!(brief(&answer), format!("m1 {expected}"), "{tape}");
        let changes = world.effects().iter().filter(|effect| effect.starts_with("user.")).count();
        assert!(changes <= 2, "{:?}", world.effects());
        world.close();
    }
}

#[tokio::test(start_paused = true)]
async fn a_mail_that_nobody_can_be_sure_of_is_not_sent_again() {
    let mut world = Setup::default().open();
    let sam = world.org().user_id(SAM).unwrap();
    world.org().set_status(sam, UserStatus::Recovery);
    world.run_for(Duration::from_secs(60)).await;
    // In recovery already, so that the status tells nothing, and the log is shut.
    world.fault(
        InjectedFault::next(Trouble::Lost)
            .on("POST", "/api/v1/users/{userId}/lifecycle/reset_password")
            .after_effect(),
    );
    world.fault(
        InjectedFault::next(Trouble::Code { status: 403, code: "E0000006".to_owned() })
            .on("GET", "/api/v1/logs"),
    );
    world.ask("reset_user_password", json!({ "user_id": SAM }));
    world.rest().await;
    world.tape();
    assert_eq!(world.answers(1), ["m1 failed outcome_unknown unknown"]);
    assert_eq!(world.effects().iter().filter(|effect| **effect == "mail.password_reset").count(), 1);
    world.close();
}

#[tokio::test(start_paused = true)]
async fn another_write_that_is_refused_proves_nothing_of_the_one_in_doubt() {
    let mut world = Setup::default().open();
    let jane = "jane@example.com"; // she has no password yet, so that a link is minted
    let profile = json!({ "firstName": "J", "lastName": "D", "login": jane, "email": jane });
    world.ask("create_user", json!({ "profile": profile, "activate": false }));
    world.run_for(Duration::from_secs(60)).await;
    assert_eq!(world.answers(1), ["m1 succeeded applied"]);
    world.fault(
        InjectedFault::next(Trouble::Bare(504))
            .on("POST", "/api/v1/users/{userId}/lifecycle/activate")
            .after_effect(),
    );
    let refused = Trouble::Code { status: 403, code: "E0000006".to_owned() };
    world.fault(InjectedFault::next(refused).on("POST", "/api/v1/users/{userId}/lifecycle/reactivate"));
    world.ask("activate_user", json!({ "user_id": jane, "send_email": false }));
    world.rest().await;
    let tape = world.tape();
    assert_eq!(world.answers(1), ["m2 failed forbidden unknown"], "it is activated:\n{tape}");
    world.close();
}
