//! Lists: pages, links, cuts and cursors.

use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::domain::result::{ErrorCode, Failure};
use crate::tools::Pager;

/// A list's result.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    items: Vec<Box<RawValue>>,
    count: usize,
    complete: bool,
    next: Option<String>,
    #[serde(default)]
    needs_max_bytes: Option<usize>,
    #[serde(default)]
    left_out: Vec<String>,
    #[serde(default)]
    stopped: Option<serde_json::Value>,
}

impl Listed {
    fn texts(&self) -> Vec<&str> {
        self.items.iter().map(|item| item.get()).collect()
    }
}

fn listed(told: &Told) -> Listed {
    let result = told.end.strip_prefix("none ").unwrap_or_else(|| panic!("not a list: {told:?}"));
    let listed: Listed = serde_json::from_str(result).unwrap();
    assert_eq!(listed.count, listed.items.len());
    listed
}

fn list(name: &str, arguments: &str, script: &[Answer]) -> (Vec<String>, Listed) {
    let told = tell(name, arguments, script);
    let listed = listed(&told);
    (told.asked, listed)
}

/// Returns the same call, continued at a cursor.
fn at(arguments: &str, cursor: &str) -> String {
    let mut object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(arguments).unwrap();
    object.insert("after".into(), cursor.into());
    serde_json::to_string(&object).unwrap()
}

#[test]
fn links_are_found_in_every_form_and_lead_to_the_configured_host_alone() {
    let own = r#"<https://acme.okta.com/api/v1/users?limit=200&search=a>; rel="self""#;
    let next = r#"<https://other.host.example:8443/api/v1/users?after=c%2C1&limit=7&search=a,b>; title="x, y"; rel="next""#;
    let forms: [&[&str]; 3] = [&[own, next], &[next, own], &[&format!("{own}, {next}")]];
    for links in forms {
        let first = links.iter().fold(ok("[1]"), |answer, link| answer.link(link));
        let arguments = r#"{"search":"a,b","sort_by":"profile.login","sort_order":"desc"}"#;
        let (asked, listed) = list("list_users", arguments, &[first, ok("[2]")]);
        // `sortBy` and `sortOrder` were not in the link; the page size is again ours.
        assert_eq!(
            asked,
            [
                "GET /users?search=a%2Cb&sortBy=profile.login&sortOrder=desc&limit=200",
                "GET /users?after=c%2C1&search=a%2Cb&sortBy=profile.login&sortOrder=desc&limit=199"
            ]
        );
        assert_eq!(listed.texts(), ["1", "2"]);
        assert_eq!((listed.complete, listed.next), (true, None));
    }
}

#[test]
fn what_okta_drops_from_its_links_is_put_back() {
    let arguments = r#"{"app_id":"$A","expand":"user"}"#;
    let link = r#"<https://acme.okta.com/api/v1/apps/$A/users?after=c&limit=500>; rel="next""#;
    let (asked, _) = list("list_app_users", arguments, &[ok("[1]").link(link), ok("[]")]);
    assert_eq!(asked[1], "GET /apps/$A/users?after=c&expand=user&limit=199");
}

#[test]
fn a_list_stops_at_its_limit_and_goes_on_exactly_there() {
    let link = |cursor: &str| format!(r#"<https://acme.okta.com/api/v1/groups?after={cursor}>; rel="next""#);
    let arguments = r#"{"limit":2}"#;
    let (asked, first) = list("list_groups", arguments, &[ok("[1,2]").link(&link("c1"))]);
    assert_eq!(asked, ["GET /groups?limit=2"]);
    assert_eq!((first.texts(), first.complete), (vec!["1", "2"], false));

    let arguments = at(arguments, &first.next.unwrap());
    let (asked, second) = list("list_groups", &arguments, &[ok("[3]").link(&link("c2")), ok("[4]")]);
    assert_eq!(asked, ["GET /groups?after=c1&limit=2", "GET /groups?after=c2&limit=1"]);
    assert_eq!((second.texts(), second.complete, second.next.as_deref()), (vec!["3", "4"], true, None));
}

#[test]
fn page_sizes_are_the_best_the_route_takes() {
    let rows = [
        ("list_users", r#"{"limit":100000}"#, "GET /users?limit=200"),
        ("list_users", r#"{"q":"a","limit":100000}"#, "GET /users?q=a&limit=200"),
        ("list_groups", r#"{"limit":100000}"#, "GET /groups?limit=200"),
        ("list_groups", r#"{"q":"a","limit":100000}"#, "GET /groups?q=a&limit=10000"),
        ("list_groups", r#"{"q":"a"}"#, "GET /groups?q=a&limit=200"),
        ("list_group_members", r#"{"group_id":"$G","limit":100000}"#, "GET /groups/$G/users?limit=1000"),
        ("list_user_groups", r#"{"user_id":"$U","limit":100000}"#, "GET /users/$U/groups"),
        ("list_user_apps", r#"{"user_id":"$U","limit":5}"#, "GET /users/$U/appLinks"),
        ("list_apps", r#"{"limit":100000}"#, "GET /apps?limit=200"),
        (
            "list_apps",
            r#"{"q":"a","filter":"status eq \"ACTIVE\""}"#,
            "GET /apps?q=a&filter=status%20eq%20%22ACTIVE%22&limit=200",
        ),
        ("list_app_users", r#"{"app_id":"$A","limit":100000}"#, "GET /apps/$A/users?limit=500"),
        ("list_events", r#"{"limit":100000}"#, "GET /logs?limit=1000"),
    ];
    for (name, arguments, request) in rows {
        assert_eq!(tell(name, arguments, &[]).asked, [request]);
    }
}

#[test]
fn a_cursor_that_points_at_itself_ends_the_list_and_says_so() {
    let link = r#"<https://acme.okta.com/api/v1/users?after=same>; rel="next""#;
    let (asked, listed) = list("list_users", "{}", &[ok("[1]").link(link), ok("[2]").link(link)]);
    assert_eq!(asked.len(), 2);
    assert_eq!((listed.texts(), listed.complete, listed.next.as_deref()), (vec!["1", "2"], false, None));

    // Nor does a link without a cursor continue the list.
    let (_, listed) =
        list("list_users", "{}", &[ok("[1]").link(r#"<https://a.example/api/v1/users>; rel="next""#)]);
    assert_eq!((listed.complete, listed.next), (false, None));
}

#[test]
fn a_poll_of_the_system_log_ends_at_the_first_empty_page() {
    let link = |cursor: &str| format!(r#"<https://acme.okta.com/api/v1/logs?after={cursor}>; rel="next""#);
    let arguments = r#"{"since":"2026-11-01T00:00:00Z","limit":9}"#;
    let script = [
        ok(r#"[{"uuid":"a"},{"uuid":"b"}]"#).link(&link("c1")),
        ok(r#"[{"uuid":"b"},{"uuid":"c"},{"x":1},{"x":1}]"#).link(&link("c2")),
        ok("[]").link(&link("c3")),
    ];
    let (asked, listed) = list("list_events", arguments, &script);
    assert_eq!(
        asked,
        [
            "GET /logs?since=2026-11-01T00%3A00%3A00Z&limit=9",
            "GET /logs?after=c1&limit=7", // `since` and `after` exclude each other
            "GET /logs?after=c2&limit=4",
        ]
    );
    // Deduplicated by `uuid`; items without one are kept.
    assert_eq!(
        listed.texts(),
        [r#"{"uuid":"a"}"#, r#"{"uuid":"b"}"#, r#"{"uuid":"c"}"#, r#"{"x":1}"#, r#"{"x":1}"#]
    );
    assert_eq!((listed.complete, listed.next), (true, None));

    // With an upper bound, an empty page is nothing special: Okta names no next one at the end.
    let bounded = r#"{"until":"2026-11-02T00:00:00Z"}"#;
    let script = [ok("[]").link(&link("c1")), ok(r#"[{"uuid":"a"}]"#)];
    assert_eq!(list("list_events", bounded, &script).1.count, 1);
}

#[test]
fn q_shows_the_first_matches_and_no_more() {
    for name in ["list_users", "list_groups"] {
        let (_, full) = list(name, r#"{"q":"jan","limit":2}"#, &[ok("[1,2]")]);
        assert_eq!((full.complete, full.next), (false, None), "{name}");
        let (_, all) = list(name, r#"{"q":"jan","limit":3}"#, &[ok("[1,2]")]);
        assert_eq!((all.complete, all.next), (true, None), "{name}");
    }
}

#[test]
fn users_that_okta_leaves_out_are_named() {
    let left_out = |arguments: &str| list("list_users", arguments, &[ok("[]")]);
    assert_eq!(left_out("{}").1.left_out, ["DEPROVISIONED"]);
    assert_eq!(left_out(r#"{"q":"jan"}"#).1.left_out, ["DEPROVISIONED"]);
    for arguments in [
        r#"{"search":"status pr"}"#,
        r#"{"filter":"status eq \"ACTIVE\""}"#,
        r#"{"include_deprovisioned":true}"#,
    ] {
        assert!(left_out(arguments).1.left_out.is_empty(), "{arguments}");
    }
    let (asked, _) = left_out(r#"{"include_deprovisioned":true}"#);
    assert_eq!(asked, ["GET /users?filter=lastUpdated%20gt%20%221970-01-01T00%3A00%3A00.000Z%22&limit=200"]);
}

#[test]
fn ways_to_choose_exclude_each_other() {
    let rows = [
        ("list_users", r#"{"search":"a","filter":"b"}"#, "filter", "give one of `search`, `filter` and `q`"),
        ("list_users", r#"{"search":"a","q":"b"}"#, "q", "give one of `search`, `filter` and `q`"),
        ("list_groups", r#"{"search":"a","q":"b"}"#, "q", "give one of `search`, `filter` and `q`"),
        ("list_users", r#"{"filter":"a","sort_by":"id"}"#, "sort_by", "`sort_by` needs `search`"),
        ("list_groups", r#"{"q":"a","sort_order":"asc"}"#, "sort_order", "`sort_order` needs `search`"),
        (
            "list_users",
            r#"{"filter":"a","include_deprovisioned":true}"#,
            "include_deprovisioned",
            "`include_deprovisioned` goes without `search`, `filter` and `q`",
        ),
    ];
    for (name, arguments, path, message) in rows {
        let end = format!("invalid_arguments at arguments.{path}: {message}");
        assert_eq!(tell(name, arguments, &[]), Told { asked: vec![], end });
    }
}

#[test]
fn a_cursor_is_good_only_with_the_arguments_it_came_from() {
    let link = r#"<https://acme.okta.com/api/v1/users?after=c1>; rel="next""#;
    let (_, first) = list("list_users", r#"{"search":"status pr","limit":1}"#, &[ok("[1]").link(link)]);
    let cursor = first.next.unwrap();
    let foreign = "invalid_arguments at arguments.after: this cursor belongs to a list with other arguments";
    for (name, arguments) in [
        ("list_users", "{}"),
        ("list_users", r#"{"search":"status pr","sort_by":"id"}"#),
        ("list_groups", r#"{"search":"status pr"}"#),
    ] {
        assert_eq!(tell(name, &at(arguments, &cursor), &[]).end, foreign, "{name} {arguments}");
    }
    // Another limit continues the same list.
    let (asked, _) = list("list_users", &at(r#"{"search":"status pr","limit":7}"#, &cursor), &[ok("[]")]);
    assert_eq!(asked, ["GET /users?search=status%20pr&after=c1&limit=7"]);

    for garbage in ["c1", "eyJhIjoiYyJ9", &cursor[..cursor.len() - 2], &format!("{cursor}A")] {
        let end = tell("list_users", &at("{}", garbage), &[]).end;
        assert_eq!(
            end, "invalid_arguments at arguments.after: not a cursor: give the `next` of an earlier result",
            "{garbage}"
        );
        // Before any request for the user.
        for name in ["list_user_groups", "list_user_apps"] {
            let told = tell(name, &at(r#"{"user_id":"jane"}"#, garbage), &[]);
            assert_eq!(told, Told { asked: vec![], end: end.clone() }, "{name} {garbage}");
        }
    }
}

#[test]
fn a_list_out_of_time_ends_with_every_page_it_has() {
    let link = |cursor: &str| format!(r#"<https://acme.okta.com/api/v1/users?after={cursor}>; rel="next""#);
    let tool = tool("list_users", "{}");
    let mut script = [ok("[1]").link(&link("c1")), ok("[2]").link(&link("c2"))].into_iter();
    let (history, waiting) = drive(&*tool, WHOLE, |_| script.next().map(|answer| answer.response()));
    assert!(matches!(waiting, Move::Send(_)));

    let late = Bounds { is_overdue: true, ..WHOLE };
    let listed = listed(&told(&history, &tool.next(&history, Setting::first(late))));
    assert_eq!((listed.texts(), listed.complete), (vec!["1", "2"], false));
    let why = "the list ran for as long as `broker.list_time_max` lets it";
    let stopped = serde_json::json!({ "page": 3, "code": "deadline_exceeded", "message": why });
    assert_eq!(listed.stopped, Some(stopped));
    let (asked, _) = list("list_users", &at("{}", &listed.next.unwrap()), &[ok("[]")]);
    assert_eq!(asked, ["GET /users?after=c2&limit=200"]);

    // Even a list that is overdue from the start returns its first page.
    assert!(matches!(tool.next(&[], Setting::first(late)), Move::Send(_)));
}

#[test]
fn a_list_whose_next_item_does_not_fit_says_how_much_it_needs() {
    let big = format!(r#"{{"id":"{}"}}"#, "x".repeat(5000));
    let page = [ok(&format!("[1,{big},2]"))];
    let plain = r#"{"user_id":"$U"}"#;
    let within = |arguments: &str, bytes_max| {
        listed(&tell_within("list_user_groups", arguments, Bounds { bytes_max, ..WHOLE }, &page))
    };
    let first = within(plain, 2048);
    assert_eq!((first.texts(), first.complete, first.needs_max_bytes), (vec!["1"], false, None));

    // The large item is next: the list stays there until a larger result is allowed.
    let after = at(plain, &first.next.unwrap());
    let stuck = within(&after, 2048);
    assert_eq!((stuck.texts(), stuck.complete), (vec![], false));
    let needs = stuck.needs_max_bytes.unwrap();
    assert!(needs > big.len() && needs < big.len() + 500, "{needs}");
    let after = at(plain, &stuck.next.unwrap());
    assert_eq!(within(&after, needs - 1).needs_max_bytes, Some(needs));
    assert_eq!(within(&after, needs).texts(), [&big]);
    assert_eq!(within(&after, 8192).texts(), [&big, "2"]);

    // With each page as its own message, too: that page is the last.
    let bounds = Bounds { bytes_max: 2048, listing: crate::tools::Listing::Paged, ..WHOLE };
    let tool = tool("list_user_groups", &after);
    let (_, end) = drive(&*tool, bounds, |_| Some(page[0].response()));
    assert!(matches!(&end, Move::Done(_, crate::tools::output::Remaining::Nothing)), "{end:?}");
}

#[test]
fn a_small_result_is_filled() {
    let item = |letter: &str| format!(r#""{}""#, letter.repeat(2200));
    let page = [ok(&format!("[{},{},{}]", item("a"), item("b"), item("c")))];
    let bounds = Bounds { bytes_max: 5000, ..WHOLE };
    let told = tell_within("list_user_groups", r#"{"user_id":"$U"}"#, bounds, &page);
    assert_eq!(listed(&told).count, 2);
}

#[test]
fn a_cut_list_asks_for_the_smaller_page_and_stops_there() {
    let bounds = Bounds { bytes_max: 2500, ..WHOLE };
    let item = |letter: &str| format!(r#""{}""#, letter.repeat(1000));
    let page = |letters: &[&str]| {
        ok(&format!("[{}]", letters.iter().map(|letter| item(letter)).collect::<Vec<_>>().join(",")))
    };
    let link = r#"<https://acme.okta.com/api/v1/users?after=c2&limit=2>; rel="next""#;
    let arguments = r#"{"search":"status pr"}"#;
    let script = [page(&["a", "b", "c"]), page(&["a", "b"]).link(link)];
    let told = tell_within("list_users", arguments, bounds, &script);
    assert_eq!(
        told.asked,
        ["GET /users?search=status%20pr&limit=200", "GET /users?search=status%20pr&limit=2"]
    );
    let cut = listed(&told);
    assert_eq!((cut.texts(), cut.complete), (vec![&*item("a"), &*item("b")], false));
    let (asked, _) = list("list_users", &at(arguments, &cut.next.unwrap()), &[ok("[]")]);
    assert_eq!(asked, ["GET /users?search=status%20pr&after=c2&limit=200"]);

    // An item that has grown between the two requests is cut off again.
    let grown = ok(&format!("[{},\"{}\"]", item("a"), "b".repeat(2000))).link(link);
    let cut = listed(&tell_within("list_users", arguments, bounds, &[page(&["a", "b", "c"]), grown]));
    assert_eq!((cut.texts(), cut.complete), (vec![&*item("a")], false));
    let (asked, rest) = list("list_users", &at(arguments, &cut.next.unwrap()), &[page(&["a", "b"])]);
    assert_eq!(asked, ["GET /users?search=status%20pr&limit=200"]);
    assert_eq!(rest.texts(), [item("b")]);
}

#[test]
fn a_cut_list_by_q_goes_on_behind_what_was_given() {
    let bounds = Bounds { bytes_max: 2500, ..WHOLE };
    let items = ["1", "2", "3", "4"].map(|digit| digit.repeat(1000));
    let page = |count| ok(&format!("[{}]", items[..count].join(",")));
    let arguments = r#"{"q":"jan","limit":3}"#;
    let cut = listed(&tell_within("list_users", arguments, bounds, &[page(3)]));
    assert_eq!((cut.texts(), cut.complete), (vec![&*items[0], &*items[1]], false));
    let (asked, rest) = list("list_users", &at(arguments, &cut.next.unwrap()), &[page(4)]);
    assert_eq!(asked, ["GET /users?q=jan&limit=5"]);
    assert_eq!(
        (rest.texts(), rest.complete, rest.next.as_deref()),
        (vec![&*items[2], &*items[3]], true, None)
    );
}

#[test]
fn a_continued_system_log_leaves_since_to_its_cursor() {
    let link = r#"<https://acme.okta.com/api/v1/logs?after=c1>; rel="next""#;
    let arguments = r#"{"since":"2026-11-01","until":"2026-11-02","limit":1}"#;
    let (_, first) = list("list_events", arguments, &[ok(r#"[{"uuid":"a"}]"#).link(link)]);
    let (asked, _) = list("list_events", &at(arguments, &first.next.unwrap()), &[ok("[]")]);
    assert_eq!(asked, ["GET /logs?until=2026-11-02&after=c1&limit=1"]);
}

/// Returns the link to a page of users.
fn link_to(cursor: &str) -> String {
    format!(r#"<https://acme.okta.com/api/v1/users?after={cursor}>; rel="next""#)
}

/// Asks for a page from an Okta that gives at most this many items, as after a failure at a larger page.
fn answered(pager: &mut Option<Box<Pager>>, tool: &dyn Tool, most: u32, answer: &Answer) -> String {
    let Move::Send(mut request) = tool.resume(pager, &[], Setting::first(WHOLE)) else { panic!("it ends") };
    while request.query_value("limit").and_then(|limit| limit.parse().ok()).unwrap_or(0) > most {
        assert!(request.shrink_page(), "{request:?}");
    }
    let asked = line(&request);
    let turn = HistoryEntry::Answered(Exchange { request: *request, response: answer.response() });
    drop(tool.resume(pager, &[turn], Setting::first(WHOLE)));
    asked
}

fn failure(message: &str) -> Failure {
    Failure::new(ErrorCode::OktaUnavailable, message)
}

#[test]
fn pages_stay_as_small_as_okta_made_them() {
    let (tool, mut pager) = (tool("list_users", r#"{"limit":500}"#), None);
    let asked = [
        answered(&mut pager, &*tool, 50, &ok("[1]").link(&link_to("c1"))),
        answered(&mut pager, &*tool, 200, &ok("[2]").link(&link_to("c2"))),
    ];
    assert_eq!(asked, ["GET /users?limit=50", "GET /users?after=c1&limit=50"]);
}

#[test]
fn what_was_given_of_a_large_page_is_not_given_again_by_smaller_ones() {
    let cursor = crate::tools::cursor::Cursor {
        after: None,
        skip: 15,
        of: crate::tools::cursor::fingerprint(&Request::get("/api/v1/users", &[])),
    };
    let (tool, mut pager) = (tool("list_users", &at("{}", &cursor.encode())), None);
    let ten = |from: usize| {
        let items: Vec<String> = (from..from + 10).map(|item| item.to_string()).collect();
        ok(&format!("[{}]", items.join(",")))
    };
    answered(&mut pager, &*tool, 10, &ten(0).link(&link_to("c1")));
    answered(&mut pager, &*tool, 10, &ten(10).link(&link_to("c2")));
    let kept = pager.unwrap().give_up(&failure("no"), WHOLE).unwrap();
    let listed: Listed = serde_json::from_str(kept.get()).unwrap();
    assert_eq!(listed.texts(), ["15", "16", "17", "18", "19"]);
}

#[test]
fn a_list_that_fails_late_keeps_what_it_has_and_says_where_it_stopped() {
    let plain = r#"{"search":"status pr"}"#;
    let (tool, mut pager) = (tool("list_users", plain), None);
    let nothing_read = || Box::new(failure("Okta answered 500"));
    assert!(matches!(tool.resume(&mut pager, &[], Setting::first(WHOLE)), Move::Send(_)));
    assert!(pager.as_mut().unwrap().give_up(&nothing_read(), WHOLE).is_none(), "nothing was read");

    answered(&mut pager, &*tool, 200, &ok("[1,2]").link(&link_to("c1")));
    answered(&mut pager, &*tool, 200, &ok("[3]").link(&link_to("c2")));
    let kept = pager.unwrap().give_up(&failure("Okta answered 500"), WHOLE).unwrap();
    let listed: Listed = serde_json::from_str(kept.get()).unwrap();
    assert_eq!((listed.texts(), listed.complete), (vec!["1", "2", "3"], false));
    let stopped =
        serde_json::json!({ "page": 3, "code": "okta_unavailable", "message": "Okta answered 500" });
    assert_eq!(listed.stopped, Some(stopped));
    let (asked, rest) = list("list_users", &at(plain, &listed.next.unwrap()), &[ok("[4]")]);
    assert_eq!(asked, ["GET /users?search=status%20pr&after=c2&limit=200"]);
    assert_eq!((rest.texts(), rest.complete), (vec!["4"], true));
    assert!(rest.stopped.is_none());
}

#[test]
fn what_fitted_of_a_page_is_kept_when_the_smaller_page_fails() {
    let bounds = Bounds { bytes_max: 2500, ..WHOLE };
    let item = |letter: &str| format!(r#""{}""#, letter.repeat(1000));
    let page = ok(&format!("[{},{},{}]", item("a"), item("b"), item("c")));
    let (tool, mut pager) = (tool("list_users", "{}"), None);
    let Move::Send(request) = tool.resume(&mut pager, &[], Setting::first(bounds)) else { panic!() };
    let turn = HistoryEntry::Answered(Exchange { request: *request, response: page.response() });
    assert!(matches!(tool.resume(&mut pager, &[turn], Setting::first(bounds)), Move::Send(_)));
    let long = "why it failed ".repeat(100);
    let kept = pager.unwrap().give_up(&failure(&long), bounds).unwrap();
    assert!(kept.get().len() <= 2500, "{} bytes", kept.get().len());
    let listed: Listed = serde_json::from_str(kept.get()).unwrap();
    assert_eq!((listed.texts(), listed.complete), (vec![&*item("a"), &*item("b")], false));
    assert!(listed.stopped.unwrap()["message"].as_str().unwrap().starts_with("why it failed"));
    let (_, rest) = list("list_users", &at("{}", &listed.next.unwrap()), &[page]);
    assert_eq!(rest.texts(), [item("c")]);
}

#[test]
fn a_list_of_two_thousand_pages_takes_two_thousand_steps() {
    const PAGES: usize = 2000;
    let tool = tool("list_users", r#"{"limit":100000}"#);
    let (mut history, mut list) = (Vec::new(), None);
    let (mut steps, mut told_again) = (0, 0);
    let end = loop {
        steps += 1;
        told_again += history.len();
        let next = tool.resume(&mut list, &history, Setting::first(WHOLE));
        history.truncate(list.as_ref().map_or(usize::MAX, |list| list.turns_before()));
        let Move::Send(request) = next else { break next };
        let answer = ok("[1,2,3]");
        let answer = if steps < PAGES { answer.link(&link_to(&format!("c{steps}"))) } else { answer };
        history.push(HistoryEntry::Answered(Exchange { request: *request, response: answer.response() }));
    };
    let listed = listed(&told(&[], &end));
    assert_eq!((listed.count, listed.complete), (3 * PAGES, true));
    assert_eq!((steps, told_again), (PAGES + 1, PAGES), "each page is told once");
}

/// The paging of a simulated Okta.
#[derive(Debug, Clone, Copy)]
enum Paging {
    /// `limit` items and a link to the rest.
    Sized,
    /// This many items and a link to the rest, whatever the `limit`.
    Fixed(usize),
    /// `limit` items and no more, as `q` does.
    First,
}

/// Answers as Okta does for a list of these items: the cursor is the index to continue at.
fn page(items: &[String], request: &Request, paging: Paging) -> Response {
    let number = |name: &str| request.query_value(name).map(|text| text.parse::<usize>().unwrap());
    let from = number("after").unwrap_or(0);
    let size = match paging {
        Paging::Sized | Paging::First => number("limit").unwrap(),
        Paging::Fixed(size) => size,
    };
    let to = items.len().min(from + size);
    let mut answer = ok(&format!("[{}]", items[from..to].join(",")));
    if to < items.len() && !matches!(paging, Paging::First) {
        answer = answer.link(&format!(r#"<https://acme.okta.com{}?after={to}>; rel="next""#, request.path));
    }
    answer.response()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn continued_lists_leave_no_gap_and_repeat_nothing(
        sizes in prop::collection::vec(1_usize..900, 0..60),
        limits in prop::collection::vec(1_u32..40, 1..4),
        bytes_max in 0_usize..6000,
        paging in prop_oneof![
            Just(Paging::Sized),
            (1_usize..20).prop_map(Paging::Fixed),
            Just(Paging::First),
        ],
        late in any::<bool>(),
    ) {
        let items: Vec<String> =
            sizes.iter().enumerate().map(|(at, size)| format!(r#""{at:03}{}""#, "x".repeat(*size))).collect();
        let (name, plain) = match paging {
            Paging::Sized => ("list_users", r#"{"search":"status pr"}"#),
            Paging::Fixed(_) => ("list_user_groups", r#"{"user_id":"$U"}"#),
            Paging::First => ("list_users", r#"{"q":"x"}"#),
        };
        let mut bytes_max = bytes_max;
        let mut seen: Vec<String> = Vec::new();
        let mut cursor: Option<String> = None;
        let mut calls = 0;
        let complete = loop {
            let limit = limits[calls % limits.len()];
            let mut arguments: serde_json::Map<String, serde_json::Value> =
                serde_json::from_str(plain).unwrap();
            arguments.insert("limit".into(), limit.into());
            if let Some(cursor) = &cursor {
                arguments.insert("after".into(), cursor.as_str().into());
            }
            let tool = tool(name, &serde_json::to_string(&arguments).unwrap());
            let bounds = Bounds { bytes_max, is_overdue: late, ..WHOLE };
            let (asked, end) = drive(&*tool, bounds, |request| Some(page(&items, request, paging)));
            let told = told(&asked, &end);
            let result = listed(&told);
            calls += 1;
            prop_assert!(calls <= 2 * items.len() + 2, "no end in sight");
            prop_assert!(result.count <= limit as usize);
            prop_assert!(result.count == 0 || told.end.len() <= bytes_max + "none ".len());
            if let Some(needs) = result.needs_max_bytes {
                prop_assert!(needs > bytes_max && result.count == 0 && !result.complete);
                bytes_max = needs;
                cursor = result.next;
                continue;
            }
            seen.extend(result.items.iter().map(|item| item.get().to_owned()));
            match result.next {
                Some(next) => {
                    prop_assert!(!result.complete);
                    prop_assert!(result.count > 0, "a step that goes nowhere");
                    cursor = Some(next);
                }
                None => break result.complete,
            }
        };
        if let Paging::First = paging {
            prop_assert!(items.starts_with(&seen));
            prop_assert!(seen.len() >= items.len().min(limits.iter().copied().min().unwrap_or(0) as usize));
            prop_assert!(!complete || seen.len() == items.len());
        } else {
            prop_assert!(complete);
            prop_assert_eq!(seen, items);
        }
    }
}
