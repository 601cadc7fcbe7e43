//! Single runs: the requests in order, and the end.

use super::*;

/// A fact, the call, Okta's answers, the requests, the end.
type Story<'a> = (&'a str, &'a str, &'a str, Vec<Answer>, &'a [&'a str], &'a str);

fn check(stories: &[Story<'_>]) {
    for (fact, name, arguments, script, asked, end) in stories {
        let expected =
            Told { asked: asked.iter().map(|line| (*line).to_owned()).collect(), end: (*end).to_owned() };
        assert_eq!(tell(name, arguments, script), expected, "{fact}");
    }
}

const ACTIVE: &str = r#"{"id":"$U","status":"ACTIVE","profile":{"login":"jane@example.com"}}"#;

#[test]
fn another_user_type_takes_the_whole_profile_and_the_same_one_does_not() {
    let there = r#"{"id":"$U","status":"ACTIVE","type":{"id":"oty1"},"profile":{"login":"j@x.example","n":1e3,"a":"b"}}"#;
    let read = "GET /users/$U";
    check(&[
        (
            "another type: what is not sent would be cleared",
            "update_user",
            r#"{"user_id":"$U","type_id":"oty2","realm_id":"guo1","profile":{"a":null,"c":"d"}}"#,
            vec![ok(there), ok(ACTIVE)],
            &[
                read,
                r#"PUT /users/$U {"type":{"id":"oty2"},"realmId":"guo1","profile":{"login":"j@x.example","n":1e3,"a":null,"c":"d"}}"#,
            ],
            &format!("applied {ACTIVE}"),
        ),
        (
            "the type that the user has",
            "update_user",
            r#"{"user_id":"$U","type_id":"oty1","profile":{"c":"d"}}"#,
            vec![ok(there), ok(ACTIVE)],
            &[read, r#"POST /users/$U {"type":{"id":"oty1"},"profile":{"c":"d"}}"#],
            &format!("applied {ACTIVE}"),
        ),
        (
            "a realm alone needs no read",
            "update_user",
            r#"{"user_id":"$U","realm_id":"guo1"}"#,
            vec![ok(ACTIVE)],
            &[r#"POST /users/$U {"realmId":"guo1"}"#],
            &format!("applied {ACTIVE}"),
        ),
        (
            "a user that is not there",
            "update_user",
            r#"{"user_id":"$U","type_id":"oty1"}"#,
            vec![refusal(404, "E0000007")],
            &[read],
            "refused 404 E0000007",
        ),
    ]);
}

#[test]
fn an_update_of_a_user_merges_and_explains_a_deactivated_one() {
    let department = r#"{"user_id":"$U","profile":{"department":"Support"}}"#;
    let post = r#"POST /users/$U {"profile":{"department":"Support"}}"#;
    check(&[
        (
            "POST merges; `null` clears and an empty text is sent as it is",
            "update_user",
            r#"{"user_id":"$U","profile":{"department":"Support","mobilePhone":null,"title":"","n":1e3}}"#,
            vec![ok(ACTIVE)],
            &[r#"POST /users/$U {"profile":{"department":"Support","mobilePhone":null,"title":"","n":1e3}}"#],
            &format!("applied {ACTIVE}"),
        ),
        (
            "credentials go beside the profile",
            "update_user",
            r#"{"user_id":"jane@example.com","credentials":{"password":{"value":"x"}}}"#,
            vec![ok(ACTIVE)],
            &[r#"POST /users/jane%40example.com {"credentials":{"password":{"value":"x"}}}"#],
            &format!("applied {ACTIVE}"),
        ),
        (
            "Okta's 404 of a deactivated user is a precondition",
            "update_user",
            department,
            vec![refusal(404, "E0000007"), user("DEPROVISIONED")],
            &[post, "GET /users/$U"],
            "precondition_failed: failed to update user `$U`: it is DEPROVISIONED",
        ),
        (
            "a missing user stays a 404",
            "update_user",
            department,
            vec![refusal(404, "E0000007"), refusal(404, "E0000007")],
            &[post, "GET /users/$U"],
            "refused 404 E0000007",
        ),
        (
            "any other 404 is Okta's own",
            "update_user",
            department,
            vec![refusal(404, "E0000008"), user("ACTIVE")],
            &[post, "GET /users/$U"],
            "refused 404 E0000008",
        ),
        (
            "other refusals need no read",
            "update_user",
            department,
            vec![refusal(400, "E0000001")],
            &[post],
            "refused 400 E0000001",
        ),
        (
            "nothing to change is a wrong call",
            "update_user",
            r#"{"user_id":"$U"}"#,
            vec![],
            &[],
            "invalid_arguments at arguments.profile: give `profile`, `credentials`, `type_id` or `realm_id`",
        ),
    ]);
}

#[test]
fn an_update_of_a_group_reads_merges_and_replaces() {
    let group = r#"{"id":"$G","type":"OKTA_GROUP","profile":{"name":"Sales","description":null,"big":12345678901234567890,"n":1e3,"s":"\u0041","l":[ 1 , 2 ]}}"#;
    check(&[
        (
            "custom attributes go back byte for byte",
            "update_group",
            r#"{"group_id":"$G","name":"Sales EMEA","profile":{"costCenter":"42"}}"#,
            vec![ok(group), ok("{}")],
            &[
                "GET /groups/$G",
                r#"PUT /groups/$G {"profile":{"name":"Sales EMEA","description":null,"big":12345678901234567890,"n":1e3,"s":"\u0041","l":[ 1 , 2 ],"costCenter":"42"}}"#,
            ],
            "applied {}",
        ),
        (
            "`null` clears: the PUT leaves the attribute out",
            "update_group",
            r#"{"group_id":"$G","description":null,"profile":{"big":null,"n":null,"none":null}}"#,
            vec![ok(group), ok("{}")],
            &["GET /groups/$G", r#"PUT /groups/$G {"profile":{"name":"Sales","s":"\u0041","l":[ 1 , 2 ]}}"#],
            "applied {}",
        ),
        (
            "an application's group is not changed",
            "update_group",
            r#"{"group_id":"$G","description":"x"}"#,
            vec![ok(r#"{"id":"$G","type":"APP_GROUP","profile":{"name":"AD"}}"#)],
            &["GET /groups/$G"],
            "precondition_failed: failed to update group `$G`: it is of type APP_GROUP",
        ),
        (
            "a missing group is Okta's 404",
            "update_group",
            r#"{"group_id":"$G","description":"x"}"#,
            vec![refusal(404, "E0000007")],
            &["GET /groups/$G"],
            "refused 404 E0000007",
        ),
        (
            "nothing to change is a wrong call",
            "update_group",
            r#"{"group_id":"$G","name":null}"#,
            vec![],
            &[],
            "invalid_arguments at arguments.name: give `name`, `description` or `profile`",
        ),
        (
            "a group keeps a name: an empty one is as good as none",
            "update_group",
            r#"{"group_id":"$G","name":""}"#,
            vec![],
            &[],
            "invalid_arguments at arguments.name: give `name`, `description` or `profile`",
        ),
        (
            "a description is said once",
            "update_group",
            r#"{"group_id":"$G","profile":{"description":"x"}}"#,
            vec![],
            &[],
            "invalid_arguments at arguments.profile.description: `profile` is for custom attributes: give `description` beside it",
        ),
    ]);
}

#[test]
fn a_group_is_created_with_its_custom_attributes() {
    let long = format!(r#"{{"name":"{}"}}"#, "ä".repeat(256));
    let wordy = format!(r#"{{"name":"x","description":"{}"}}"#, "x".repeat(1025));
    check(&[
        (
            "name and description first, then the rest",
            "create_group",
            r#"{"name":"Sales","description":"d","profile":{"costCenter":1e3}}"#,
            vec![ok(r#"{"id":"$G"}"#)],
            &[r#"POST /groups {"profile":{"name":"Sales","description":"d","costCenter":1e3}}"#],
            r#"applied {"id":"$G"}"#,
        ),
        (
            "a taken name is Okta's refusal",
            "create_group",
            r#"{"name":"Sales"}"#,
            vec![refusal(400, "E0000001")],
            &[r#"POST /groups {"profile":{"name":"Sales"}}"#],
            "refused 400 E0000001",
        ),
        (
            "the longest name has 255 characters",
            "create_group",
            &long,
            vec![],
            &[],
            "invalid_arguments at arguments.name: must not be longer than 255 characters",
        ),
        (
            "the longest description has 1,024",
            "create_group",
            &wordy,
            vec![],
            &[],
            "invalid_arguments at arguments.description: must not be longer than 1024 characters",
        ),
    ]);
}

#[test]
fn a_group_is_deleted_only_when_it_is_okta_s_own() {
    let mut stories = vec![
        (
            "read, then deleted",
            "delete_group",
            r#"{"group_id":"$G"}"#,
            vec![ok(r#"{"type":"OKTA_GROUP","profile":{}}"#), no_content()],
            &["GET /groups/$G", "DELETE /groups/$G"] as &[&str],
            "applied {}",
        ),
        (
            "gone in between is a 404",
            "delete_group",
            r#"{"group_id":"$G"}"#,
            vec![ok(r#"{"type":"OKTA_GROUP","profile":{}}"#), refusal(404, "E0000007")],
            &["GET /groups/$G", "DELETE /groups/$G"],
            "refused 404 E0000007",
        ),
    ];
    for (kind, end) in [
        ("APP_GROUP", "precondition_failed: failed to delete group `$G`: it is of type APP_GROUP"),
        ("BUILT_IN", "precondition_failed: failed to delete group `$G`: it is of type BUILT_IN"),
    ] {
        let group = ok(&format!(r#"{{"type":"{kind}","profile":{{}}}}"#));
        stories.push((kind, "delete_group", r#"{"group_id":"$G"}"#, vec![group], &["GET /groups/$G"], end));
    }
    check(&stories);
}

#[test]
fn a_user_is_deleted_only_when_deactivated_and_the_deletion_is_verified() {
    let (read, delete) = ("GET /users/$U", "DELETE /users/$U");
    let gone = || refusal(404, "E0000007");
    let there = || user("DEPROVISIONED");
    let call = r#"{"user_id":"$U"}"#;
    check(&[
        (
            "the 404 afterwards is the proof",
            "delete_user",
            call,
            vec![there(), no_content(), gone()],
            &[read, delete, read],
            "applied {}",
        ),
        (
            "a late 404 is one too",
            "delete_user",
            call,
            vec![there(), no_content(), there(), there(), gone()],
            &[read, delete, read, read, read],
            "applied {}",
        ),
        (
            "a user who stays is an unknown outcome",
            "delete_user",
            call,
            vec![there(), no_content(), there(), there(), there()],
            &[read, delete, read, read, read],
            "outcome_unknown: user `$U` is still there after Okta accepted to delete it",
        ),
        (
            "a refused look is an unknown outcome",
            "delete_user",
            call,
            vec![there(), no_content(), refusal(403, "E0000006")],
            &[read, delete, read],
            "outcome_unknown: failed to verify that user `$U` is deleted",
        ),
        (
            "an active user is not touched",
            "delete_user",
            call,
            vec![user("ACTIVE")],
            &[read],
            "precondition_failed: failed to delete user `$U`: it is ACTIVE, deactivate it first",
        ),
        ("a missing user is a 404", "delete_user", call, vec![gone()], &[read], "refused 404 E0000007"),
        (
            "a login is read once and deleted by id",
            "delete_user",
            r#"{"user_id":"jane@example.com"}"#,
            vec![there(), no_content(), gone()],
            &["GET /users/jane%40example.com", delete, read],
            "applied {}",
        ),
    ]);
}

#[test]
fn only_the_later_reads_after_a_deletion_wait() {
    let tool = tool("delete_user", r#"{"user_id":"$U"}"#);
    let mut script =
        [user("DEPROVISIONED"), no_content(), user("DEPROVISIONED"), refusal(404, "E0000007")].into_iter();
    let (asked, _) = drive(&*tool, WHOLE, |_| script.next().map(|answer| answer.response()));
    let pauses: Vec<u128> = asked.iter().map(|turn| turn.request().pause.as_millis()).collect();
    assert_eq!(pauses, [0, 0, 0, 500]);
}

#[test]
fn a_step_that_is_done_already_is_unchanged() {
    let call = r#"{"user_id":"$U"}"#;
    /// The subtool, its request, Okta's refusal, the statuses that mean "already done", one that does not, and one
    /// that the step starts from.
    type Row<'a> = (&'a str, &'a str, (u16, &'a str), &'a [&'a str], (&'a str, &'a str));
    let rows: [Row<'_>; 6] = [
        (
            "activate_user",
            "POST /users/$U/lifecycle/activate?sendEmail=true",
            (403, "E0000016"),
            &["ACTIVE", "PROVISIONED"],
            ("SUSPENDED", "STAGED"),
        ),
        (
            "deactivate_user",
            "POST /users/$U/lifecycle/deactivate?sendEmail=false",
            (404, "E0000007"),
            &["DEPROVISIONED"],
            ("ACTIVATING", "ACTIVE"),
        ),
        (
            "suspend_user",
            "POST /users/$U/lifecycle/suspend",
            (400, "E0000001"),
            &["SUSPENDED"],
            ("STAGED", "ACTIVE"),
        ),
        (
            "unsuspend_user",
            "POST /users/$U/lifecycle/unsuspend",
            (400, "E0000001"),
            &["ACTIVE", "PASSWORD_EXPIRED", "STAGED", "PROVISIONED", "RECOVERY", "LOCKED_OUT"],
            ("DEPROVISIONED", "SUSPENDED"),
        ),
        (
            "unlock_user",
            "POST /users/$U/lifecycle/unlock",
            (403, "E0000032"),
            &["ACTIVE", "PASSWORD_EXPIRED"],
            ("DEPROVISIONED", "LOCKED_OUT"),
        ),
        (
            "expire_user_password",
            "POST /users/$U/lifecycle/expire_password",
            (403, "E0000038"),
            &["PASSWORD_EXPIRED"],
            ("STAGED", "ACTIVE"),
        ),
    ];
    for (name, post, (status, code), already, (other, fitting)) in rows {
        let refused = || refusal(status, code);
        for state in already {
            let told = tell(name, call, &[refused(), user(state)]);
            assert_eq!(told.asked, [post, "GET /users/$U"], "{name}");
            let result = match (name, *state) {
                ("expire_user_password", _) => shortened(&user(state).body),
                ("activate_user", "PROVISIONED") => continue, // nobody is mailed: a fact of its own
                _ => "{}".to_owned(),
            };
            assert_eq!(told.end, format!("unchanged {result}"), "{name} of a {state} user");
        }
        // The status is not why Okta refuses a step from it.
        let told = tell(name, call, &[refused(), user(fitting)]);
        assert_eq!(told.end, format!("refused {status} {code}"), "{name} of a {fitting} user");
        let told = tell(name, call, &[refused(), user(other)]);
        assert!(told.end.starts_with("precondition_failed: failed to "), "{name}: {}", told.end);
        assert!(told.end.ends_with(&format!("user `$U`: it is {other}")), "{name}: {}", told.end);

        let told = tell(name, call, &[refused(), refusal(404, "E0000007")]);
        assert_eq!(told.end, "refused 404 E0000007", "{name} of a missing user");
        let told = tell(name, call, &[refusal(403, "E0000006")]);
        assert_eq!(told.end, "refused 403 E0000006", "{name} without the right");
    }
}

#[test]
fn a_step_that_okta_takes_is_applied() {
    let call = r#"{"user_id":"$U"}"#;
    for name in ["suspend_user", "unsuspend_user", "unlock_user", "deactivate_user", "activate_user"] {
        assert_eq!(tell(name, call, &[ok("{}")]).end, "applied {}", "{name}");
    }
    assert_eq!(tell("reset_user_password", call, &[ok("{}")]).end, "applied {}");
}

#[test]
fn a_link_that_okta_did_not_give_is_said_to_be_missing() {
    let silent = r#"{"user_id":"$U","send_email":false}"#;
    let nulls = r#"{"activationUrl":null,"activationToken":null}"#;
    for answer in ["{}", nulls, r#"{"activationUrl":""}"#] {
        let end = tell("activate_user", silent, &[ok(answer)]).end;
        assert!(end.starts_with("applied {") && end.contains(r#""link_missing":true"#), "{answer}: {end}");
        assert!(end.contains("`reactivate_user`"), "how to get one: {end}");
    }
    for answer in ["{}", r#"{"resetPasswordUrl":null}"#] {
        let end = tell("reset_user_password", silent, &[ok(answer)]).end;
        assert!(end.starts_with(r#"applied {"link_missing":true,"note":""#), "{answer}: {end}");
        assert!(end.contains("run `reset_user_password` again"), "how to get one: {end}");
    }
    let whole = tell("reset_user_password", silent, &[ok(r#"{"resetPasswordUrl":"u"}"#)]).end;
    assert_eq!(whole, r#"applied {"reset_password_url":"u"}"#);
}

#[test]
fn who_waits_for_an_activation_is_not_mailed_again_and_the_result_says_so() {
    let refused = || refusal(403, "E0000016");
    let mailed = tell("activate_user", r#"{"user_id":"$U"}"#, &[refused(), user("PROVISIONED")]).end;
    assert!(mailed.starts_with(r#"unchanged {"note":"nothing was mailed: "#), "{mailed}");
    let silent = r#"{"user_id":"$U","send_email":false}"#;
    let linked = tell("activate_user", silent, &[refused(), user("PROVISIONED")]).end;
    assert!(
        linked.starts_with(r#"unchanged {"link_missing":true,"note":"there is no new link: "#),
        "{linked}"
    );
    assert_eq!(tell("activate_user", silent, &[refused(), user("ACTIVE")]).end, "unchanged {}");
}

#[test]
fn a_one_time_secret_comes_out_whatever_fields_are_wanted() {
    let fields = crate::domain::json::Fields::parse(&["id".to_owned()]).unwrap();
    let bounds = Bounds { fields: &fields, ..WHOLE };
    let minted = [
        (
            "activate_user",
            r#"{"user_id":"$U","send_email":false}"#,
            r#"{"activationUrl":"u","activationToken":"t"}"#,
        ),
        ("reset_user_password", r#"{"user_id":"$U","send_email":false}"#, r#"{"resetPasswordUrl":"u"}"#),
        ("expire_user_password", r#"{"user_id":"$U","temp_password":true}"#, r#"{"tempPassword":"p"}"#),
    ];
    for (name, arguments, answer) in minted {
        let whole = tell(name, arguments, &[ok(answer)]);
        assert_eq!(tell_within(name, arguments, bounds, &[ok(answer)]), whole, "{name}");
    }
    let expired = tell_within("expire_user_password", r#"{"user_id":"$U"}"#, bounds, &[user("ACTIVE")]);
    assert_eq!(expired.end, r#"applied {"id":"$U"}"#);
}

#[test]
fn one_time_secrets_come_out_under_our_names_and_only_when_asked_for() {
    let activated =
        ok(r#"{"activationUrl":"https://example.okta.com/tokens/t0k/verify","activationToken":"t0k"}"#);
    check(&[
        (
            "an activation without mail",
            "activate_user",
            r#"{"user_id":"$U","send_email":false}"#,
            vec![activated.clone()],
            &["POST /users/$U/lifecycle/activate?sendEmail=false"],
            r#"applied {"activation_url":"https://example.okta.com/tokens/t0k/verify","activation_token":"t0k"}"#,
        ),
        (
            "a token that nobody asked for stays inside",
            "activate_user",
            r#"{"user_id":"$U"}"#,
            vec![activated],
            &["POST /users/$U/lifecycle/activate?sendEmail=true"],
            "applied {}",
        ),
        (
            "a reset without mail",
            "reset_user_password",
            r#"{"user_id":"$U","send_email":false,"revoke_sessions":true}"#,
            vec![ok(r#"{"resetPasswordUrl":"https://example.okta.com/reset_password/r"}"#)],
            &["POST /users/$U/lifecycle/reset_password?sendEmail=false&revokeSessions=true"],
            r#"applied {"reset_password_url":"https://example.okta.com/reset_password/r"}"#,
        ),
        (
            "a reset in the wrong status",
            "reset_user_password",
            r#"{"user_id":"$U"}"#,
            vec![refusal(403, "E0000017")],
            &["POST /users/$U/lifecycle/reset_password?sendEmail=true"],
            "refused 403 E0000017",
        ),
        (
            "a temporary password has its own path",
            "expire_user_password",
            r#"{"user_id":"$U","temp_password":true,"revoke_sessions":true}"#,
            vec![ok(r#"{"tempPassword":"Abcd1234"}"#)],
            &["POST /users/$U/lifecycle/expire_password_with_temp_password?revokeSessions=true"],
            r#"applied {"temp_password":"Abcd1234"}"#,
        ),
        (
            "an expired password answers with the user",
            "expire_user_password",
            r#"{"user_id":"$U"}"#,
            vec![user("PASSWORD_EXPIRED")],
            &["POST /users/$U/lifecycle/expire_password"],
            r#"applied {"id":"$U","status":"PASSWORD_EXPIRED","profile":{"login":"jane@example.com"}}"#,
        ),
        (
            "sessions are only revoked with a temporary password",
            "expire_user_password",
            r#"{"user_id":"$U","revoke_sessions":true}"#,
            vec![],
            &[],
            "invalid_arguments at arguments.revoke_sessions: `revoke_sessions` needs `temp_password: true`",
        ),
    ]);
}

#[test]
fn a_write_whose_answer_cannot_be_read_has_an_unknown_outcome() {
    let unknown = "outcome_unknown: failed to read Okta's answer to a write: it is not the JSON expected";
    let page = || ok("<html></html>");
    for (name, arguments) in [
        ("create_group", r#"{"name":"Sales"}"#),
        ("update_user", r#"{"user_id":"$U","profile":{}}"#),
        ("activate_user", r#"{"user_id":"$U","send_email":false}"#),
        ("expire_user_password", r#"{"user_id":"$U","temp_password":true}"#),
    ] {
        assert_eq!(tell(name, arguments, &[page()]).end, unknown, "{name}");
    }
    for (name, arguments) in [("get_user", r#"{"user_id":"$U"}"#), ("list_users", "{}")] {
        let end = tell(name, arguments, &[page()]).end;
        assert!(end.starts_with("okta_unavailable: "), "{name}: {end}");
    }
}

#[test]
fn a_user_is_found_by_whatever_names_it_safely() {
    let jane = || user("ACTIVE");
    let suspend = "POST /users/$U/lifecycle/suspend";
    check(&[
        (
            "a login is one encoded segment",
            "suspend_user",
            r#"{"user_id":"j#a?n e@example.com"}"#,
            vec![ok("{}")],
            &["POST /users/j%23a%3Fn%20e%40example.com/lifecycle/suspend"],
            "applied {}",
        ),
        (
            "a login with a slash is found by search, quotes escaped",
            "suspend_user",
            r#"{"user_id":"te\"am/jane@example.com"}"#,
            vec![
                ok(
                    r#"[{"id":"00u0","status":"ACTIVE","profile":{"login":"x"}},{"id":"$U","status":"ACTIVE","profile":{"login":"Te\"am/Jane@example.com"}}]"#,
                ),
                ok("{}"),
            ],
            &[
                "GET /users?search=profile.login%20eq%20%22te%5C%22am%2Fjane%40example.com%22&limit=2",
                suspend,
            ],
            "applied {}",
        ),
        (
            "reads find it the same way",
            "get_user",
            r#"{"user_id":"team/jane@example.com"}"#,
            vec![
                ok(r#"[{"id":"$U","status":"ACTIVE","profile":{"login":"team/jane@example.com"}}]"#),
                ok("{}"),
            ],
            &[
                "GET /users?search=profile.login%20eq%20%22team%2Fjane%40example.com%22&limit=2",
                "GET /users/$U",
            ],
            "none {}",
        ),
        (
            "a search without it is not found",
            "suspend_user",
            r#"{"user_id":"team/jane@example.com"}"#,
            vec![ok(r#"[{"id":"$U","status":"ACTIVE","profile":{"login":"other@example.com"}}]"#)],
            &["GET /users?search=profile.login%20eq%20%22team%2Fjane%40example.com%22&limit=2"],
            "not_found at arguments.user_id: failed to find user `team/jane@example.com`",
        ),
        (
            "a short name is read and refused by a write",
            "suspend_user",
            r#"{"user_id":"jane"}"#,
            vec![jane()],
            &["GET /users/jane"],
            "invalid_arguments at arguments.user_id: `jane` is neither an id nor a whole login",
        ),
        (
            "unless it is the login",
            "suspend_user",
            r#"{"user_id":"JANE"}"#,
            vec![ok(r#"{"id":"$U","status":"ACTIVE","profile":{"login":"jane"}}"#), ok("{}")],
            &["GET /users/JANE", suspend],
            "applied {}",
        ),
        (
            "or the id in a shape of its own",
            "suspend_user",
            r#"{"user_id":"12345"}"#,
            vec![ok(r#"{"id":"12345","status":"ACTIVE","profile":{"login":"jane"}}"#), ok("{}")],
            &["GET /users/12345", "POST /users/12345/lifecycle/suspend"],
            "applied {}",
        ),
        (
            "get_user takes a short name",
            "get_user",
            r#"{"user_id":"jane"}"#,
            vec![jane()],
            &["GET /users/jane"],
            r#"none {"id":"$U","status":"ACTIVE","profile":{"login":"jane@example.com"}}"#,
        ),
        (
            "an id that Okta could not have sent stops there",
            "suspend_user",
            r#"{"user_id":"jane"}"#,
            vec![ok(r#"{"id":"../x","status":"ACTIVE","profile":{"login":"jane"}}"#)],
            &["GET /users/jane"],
            "okta_unavailable: failed to read Okta's answer: it is not the JSON expected",
        ),
    ]);
}

#[test]
fn groups_and_applications_take_real_ids_only() {
    let login = r#""user_id":"jane@example.com""#;
    let rows = [
        ("add_user_to_group", r#""group_id":"$G""#, "PUT /groups/$G/users/$U", no_content(), "{}"),
        ("remove_user_from_group", r#""group_id":"$G""#, "DELETE /groups/$G/users/$U", no_content(), "{}"),
        (
            "assign_user_to_app",
            r#""app_id":"$A""#,
            r#"POST /apps/$A/users {"id":"$U","scope":"USER"}"#,
            ok("{}"),
            "{}",
        ),
        ("remove_user_from_app", r#""app_id":"$A""#, "DELETE /apps/$A/users/$U", no_content(), "{}"),
    ];
    for (name, other, request, answer, result) in rows {
        let told = tell(name, &format!("{{{other},{login}}}"), &[user("ACTIVE"), answer.clone()]);
        assert_eq!(told.asked, ["GET /users/jane%40example.com", request], "{name}");
        assert_eq!(told.end, format!("applied {result}"), "{name}");
        let told = tell(name, &format!(r#"{{{other},"user_id":"$U"}}"#), &[answer]);
        assert_eq!(told.asked, [request], "{name}");
    }
}

#[test]
fn assignments_are_upserts_and_their_removal_tells_three_404s_apart() {
    let delete = "DELETE /apps/$A/users/$U";
    let call = r#"{"app_id":"$A","user_id":"$U"}"#;
    let gone = || refusal(404, "E0000007");
    check(&[
        (
            "already assigned is a success with the assignment",
            "assign_user_to_app",
            call,
            vec![refusal(409, "E0000062"), ok(r#"{"id":"$U","scope":"USER"}"#)],
            &[r#"POST /apps/$A/users {"id":"$U","scope":"USER"}"#, "GET /apps/$A/users/$U"],
            r#"unchanged {"id":"$U","scope":"USER"}"#,
        ),
        (
            "credentials and profile go along",
            "assign_user_to_app",
            r#"{"app_id":"$A","user_id":"$U","scope":"GROUP","credentials":{"userName":"j"},"profile":{"n":1e3}}"#,
            vec![ok(r#"{"id":"$U"}"#)],
            &[
                r#"POST /apps/$A/users {"id":"$U","scope":"GROUP","credentials":{"userName":"j"},"profile":{"n":1e3}}"#,
            ],
            r#"applied {"id":"$U"}"#,
        ),
        (
            "no assignment, but user and application: nothing to do",
            "remove_user_from_app",
            call,
            vec![gone(), user("ACTIVE"), ok(r#"{"id":"$A"}"#)],
            &[delete, "GET /users/$U", "GET /apps/$A"],
            "unchanged {}",
        ),
        (
            "no user",
            "remove_user_from_app",
            call,
            vec![gone(), gone()],
            &[delete, "GET /users/$U"],
            "refused 404 E0000007",
        ),
        (
            "no application",
            "remove_user_from_app",
            call,
            vec![gone(), user("ACTIVE"), gone()],
            &[delete, "GET /users/$U", "GET /apps/$A"],
            "refused 404 E0000007",
        ),
        (
            "access by a group is Okta's refusal",
            "remove_user_from_app",
            r#"{"app_id":"$A","user_id":"$U","send_email":true}"#,
            vec![refusal(403, "E0000046")],
            &["DELETE /apps/$A/users/$U?sendEmail=true"],
            "refused 403 E0000046",
        ),
    ]);
}

#[test]
fn a_user_is_created_with_what_was_given_and_no_more() {
    let groups = vec![r#""$G""#; 21].join(",");
    let too_many = format!(r#"{{"profile":{{}},"group_ids":[{groups}]}}"#);
    check(&[
        (
            "everything has its place",
            "create_user",
            r#"{"profile":{"login":"j@x.example","n":1e3},"activate":false,"credentials":{"provider":{"type":"SOCIAL","name":"x"}},"group_ids":["$G"],"provider":true,"type_id":"oty1","realm_id":"guo1"}"#,
            vec![ok("{}")],
            &[
                r#"POST /users?activate=false&provider=true {"profile":{"login":"j@x.example","n":1e3},"credentials":{"provider":{"type":"SOCIAL","name":"x"}},"groupIds":["$G"],"type":{"id":"oty1"},"realmId":"guo1"}"#,
            ],
            "applied {}",
        ),
        (
            "a taken login is Okta's refusal",
            "create_user",
            r#"{"profile":{"login":"j@x.example"}}"#,
            vec![refusal(400, "E0000001")],
            &[r#"POST /users?activate=true {"profile":{"login":"j@x.example"}}"#],
            "refused 400 E0000001",
        ),
        (
            "at most 20 groups",
            "create_user",
            &too_many,
            vec![],
            &[],
            "invalid_arguments at arguments.group_ids: at most 20 groups, not 21",
        ),
    ]);
}

#[test]
fn an_assignment_that_came_between_two_looks_is_no_doubt() {
    let tool = tool("assign_user_to_app", r#"{"app_id":"$A","user_id":"$U"}"#);
    let given = ok(r#"{"id":"$U","scope":"USER","status":"ACTIVE","created":"2026-01-01T00:00:00.000Z"}"#);
    let event = ok(
        r#"[{"uuid":"1","published":"2026-01-01T00:00:00.000Z","outcome":{"result":"SUCCESS"},"target":[{"id":"$U"},{"id":"$A"}]}]"#,
    );
    let setting = Setting {
        maybe_since: Some("2025-12-31T23:59:00Z".parse().unwrap()),
        is_settled: true,
        ..Setting::first(WHOLE)
    };
    let end = |last: &Answer| {
        let mut script = [refusal(404, "E0000007"), event.clone(), last.clone()].into_iter();
        let mut history = Vec::new();
        loop {
            match tool.next(&history, setting) {
                Move::Send(request) => {
                    assert!(request.is_read(), "it is not written again");
                    let response = script.next().expect("it asks no more").response();
                    history.push(HistoryEntry::Answered(Exchange { request: *request, response }));
                }
                end => return told(&[], &end).end,
            }
        }
    };
    assert!(end(&given).starts_with("applied "), "{}", end(&given));
    assert!(end(&refusal(404, "E0000007")).starts_with("outcome_unknown"), "taken away since");
}

/// Returns the requests and the end of a run in which no answer comes where the script says `None`.
fn end_of(name: &str, arguments: &str, script: &[Option<Answer>]) -> (Vec<String>, String) {
    let (tool, mut left, mut history) = (tool(name, arguments), script.iter(), Vec::new());
    loop {
        match tool.next(&history, Setting::first(WHOLE)) {
            Move::Send(request) => match left.next().expect("it asks no more") {
                Some(answer) => {
                    history.push(HistoryEntry::Answered(Exchange {
                        request: *request,
                        response: answer.response(),
                    }));
                }
                None => {
                    let sent = "2026-01-01T00:00:00Z".parse().unwrap();
                    history.push(HistoryEntry::Unknown { request: *request, sent });
                }
            },
            end => {
                assert_eq!(left.len(), 0, "answers are left over: {:?}", told(&history, &end));
                let Told { asked, end } = told(&history, &end);
                return (asked, end);
            }
        }
    }
}

#[test]
fn an_activation_under_way_is_waited_for_and_not_begun_again() {
    let changing = ok(r#"{"id":"$U","status":"STAGED","transitioningToStatus":"ACTIVE"}"#);
    let active = ok(r#"{"id":"$U","status":"ACTIVE","statusChanged":"2026-01-01T00:00:03.000Z"}"#);
    for send_email in [true, false] {
        let arguments = format!(r#"{{"user_id":"$U","send_email":{send_email}}}"#);
        let done = [None, Some(changing.clone()), Some(changing.clone()), Some(active.clone())];
        let (asked, end) = end_of("activate_user", &arguments, &done);
        assert_eq!(end, "applied {}", "{asked:?}");
        let slow = [&[None][..], &[(); 4].map(|()| Some(changing.clone()))].concat();
        let (asked, end) = end_of("activate_user", &arguments, &slow);
        assert_eq!(end, "applied {}", "{asked:?}");
        assert_eq!(asked.iter().filter(|line| line.starts_with("POST")).count(), 1, "{asked:?}");
    }
}

#[test]
fn a_group_that_searches_do_not_show_yet_may_be_ours() {
    let taken = || {
        Some(Answer::new(
            400,
            r#"{"errorCode":"E0000001","errorSummary":"no","errorCauses":[{"errorSummary":"name: An object with this field already exists in the current organization"}]}"#,
        ))
    };
    let (none, arguments) = (Some(ok("[]")), r#"{"name":"Sales"}"#);
    let group = |id: &str, created: &str| {
        format!(r#"{{"id":"{id}","created":"{created}","profile":{{"name":"Sales","description":null}}}}"#)
    };
    let lagging = [&[None, taken()][..], &[(); 4].map(|()| none.clone())].concat();
    assert!(end_of("create_group", arguments, &lagging).1.starts_with("outcome_unknown"));
    let (old, ours) = (group("old", "2020-01-01T00:00:00.000Z"), group("ours", "2026-01-01T00:00:01.000Z"));
    let both = [None, taken(), none, Some(ok(&format!("[{old},{ours}]")))];
    assert!(end_of("create_group", arguments, &both).1.starts_with(r#"applied {"id":"ours""#));
    let theirs = [None, taken(), Some(ok(&format!("[{old}]")))];
    assert_eq!(end_of("create_group", arguments, &theirs).1, "refused 400 E0000001");
}

#[test]
fn a_list_of_groups_that_leads_back_to_itself_ends() {
    let page = ok(r#"[{"id":"00g000000000000other"}]"#)
        .link(r#"<https://x.example/api/v1/users/$U/groups?after=a>; rel="next""#);
    let user = ok(
        r#"{"id":"$U","status":"ACTIVE","created":"2026-01-01T00:00:01.000Z","profile":{"login":"j@x.example"}}"#,
    );
    let taken = Answer::new(
        400,
        r#"{"errorCode":"E0000001","errorSummary":"no","errorCauses":[{"errorSummary":"login: An object with this field already exists in the current organization"}]}"#,
    );
    let arguments = r#"{"profile":{"login":"j@x.example"},"group_ids":["$G"]}"#;
    let script = [None, Some(taken), Some(user), Some(page.clone()), Some(page)];
    let (asked, end) = end_of("create_user", arguments, &script);
    assert!(end.starts_with("outcome_unknown"), "{asked:?} {end}");
}
