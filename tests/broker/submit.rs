//! `submit` by the broker: under a user of its own, without any secret of Okta's.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::caller::until;
use super::child::{Process, command, ran};
use super::limited::limited;
use super::node::{User, ours};
use super::org::{Org, TOKEN};
use super::world::{BROKER_URL, Start, Worker, World};

/// What the broker user of a submit needs: configure, write, read.
const RIGHTS: [&str; 3] =
    ["^okta\\.replies\\.submit\\.", "^okta\\.invocations$", "^okta\\.replies\\.submit\\."];

/// A submit of a file with this text, and the file.
fn submit(world: &World, url: &str, name: &str, text: &str) -> (Command, PathBuf) {
    submit_on("prod", world, url, name, text)
}

/// The same on another connection.
fn submit_on(connection: &str, world: &World, url: &str, name: &str, text: &str) -> (Command, PathBuf) {
    let (file, settings) = (world.file(name), world.file("submit.toml"));
    // A file that is written again has changed, though it says the same.
    if std::fs::read_to_string(&file).ok().as_deref() != Some(text) {
        std::fs::write(&file, text).expect("a file can be written");
    }
    let mut text = format!("broker.url = {{ env = \"{BROKER_URL}\" }}\n");
    for name in ["prod", "second"] {
        text += &format!("[connections.{name}]\ndomain = \"acme.okta.com\"\nsubtools = [\"all\"]\n");
    }
    std::fs::write(&settings, text).expect("a file can be written");
    let mut command = command();
    command.arg("--config").arg(settings).arg("submit").arg(&file);
    command.args(["--connection", connection]).env(BROKER_URL, url);
    (command, file)
}

fn results(file: &Path, ending: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(format!("{}{ending}", file.display())).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The id that a journal gives its job.
fn job_id(file: &Path, ending: &str) -> String {
    let journal = std::fs::read_to_string(format!("{}{ending}", file.display())).expect("there is a journal");
    let begun: Value =
        serde_json::from_str(journal.lines().next().expect("it has a line")).expect("it is JSON");
    begun["job"]["id"].as_str().expect("a job has an id").to_owned()
}

#[tokio::test]
async fn a_user_with_few_rights_and_no_secret_submits_and_the_worker_knows_who_it_is() {
    let Some(node) = ours() else { return };
    let world = World::new().await;
    let url = world.place.url_with(node, RIGHTS);
    let user = url.split(['/', ':']).nth(3).expect("the URL names a user");
    let callers = format!("[callers.\"{user}\"]\nconnections = [\"prod\"]\nsubtools = [\"create_group\"]\n");
    let _worker = world.worker_with(&Start { settings: &callers, ..Start::default() });

    let rows = "name,description\nAlpha,first\nBeta,\n\"Del\nta\",third\n";
    let (mut command, file) = submit(&world, &url, "groups.csv", rows);
    let (code, stdout, stderr) = ran(command.args(["--subtool", "create_group"]));
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert!(stdout.contains("3 rows: 3 applied"), "{stdout}");
    let mut names: Vec<_> = results(&file, ".results.jsonl")
        .iter()
        .map(|it| (it["row"].as_u64(), it["result"]["profile"]["name"].to_string()))
        .collect();
    names.sort();
    let expected = [(1, "\"Alpha\""), (2, "\"Beta\""), (3, "\"Del\\nta\"")];
    assert_eq!(names, expected.map(|(row, name)| (Some(row), name.to_owned())));

    // What the caller may not do, the worker refuses; the rows have failed and the command says so.
    let (mut command, file) = submit(&world, &url, "users.csv", "user_id\nana@x.example\n");
    let (code, stdout, stderr) = ran(command.args(["--subtool", "get_user"]));
    assert_eq!(code, 1, "{stdout}{stderr}");
    assert!(stdout.contains("1 not_permitted"), "{stdout}");
    assert_eq!(results(&file, ".results.jsonl")[0]["error"]["code"], "not_permitted");
}

#[tokio::test]
async fn a_dry_run_has_ids_files_and_a_queue_of_its_own_and_changes_nothing() {
    let world = World::new().await;
    let _worker = world.worker();
    let url = world.place.url(User::Operator);
    let (mut command, file) = submit(&world, &url, "groups.csv", "name\nAlpha\nBeta\n");
    let (code, stdout, stderr) = ran(command.args(["--subtool", "create_group", "--dry-run"]));
    let dry = results(&file, ".dry.results.jsonl");
    assert_eq!((code, dry.len()), (0, 2), "{stdout}{stderr}");
    for result in &dry {
        assert_eq!(result["id"], format!("{}.{}", job_id(&file, ".dry.journal"), result["row"]), "{result}");
        assert_eq!((&result["status"], &result["effect"]), (&json!("planned"), &json!("none")), "{result}");
    }
    assert!(!world.org.effects().iter().any(|kind| kind == "group.created"), "{:?}", world.org.effects());
    // Then for real.
    let (mut command, file) = submit(&world, &url, "groups.csv", "name\nAlpha\nBeta\n");
    let (code, stdout, stderr) = ran(command.args(["--subtool", "create_group"]));
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert_eq!(results(&file, ".results.jsonl").len(), 2);
    assert_ne!(job_id(&file, ".journal"), job_id(&file, ".dry.journal"));
}

#[tokio::test]
async fn what_the_broker_has_is_awaited_and_not_sent_again() {
    let world = World::new().await;
    let caller = world.caller().await;
    drop(world.worker()); // it declares the queues, and is gone
    let work = "okta.invocations.prod.interactive";
    until("the broker has noticed", async || caller.consumers(work).await == Some(0)).await;
    let url = world.place.url(User::Operator);
    let rows = (0..20).fold("name\n".to_owned(), |text, row| format!("{text}group {row}\n"));
    let run = || {
        let (mut command, _) = submit(&world, &url, "groups.csv", &rows);
        command.args(["--subtool", "create_group"]);
        command
    };
    let lane = "okta.invocations.prod.bulk";
    let mut first = Process::start("submit", &mut run());
    until("all are in the queue", async || caller.count(lane).await == Some(20)).await;
    // Nobody else may collect the results meanwhile, by the same journal or by a copy of it.
    let (code, _, stderr) = ran(&mut run());
    assert!(code == 2 && stderr.contains("another `submit`"), "{code}: {stderr}");
    let (mut elsewhere, copy) = submit(&world, &url, "copy.csv", &rows);
    let journal = |of: &Path| format!("{}.journal", of.display());
    std::fs::copy(journal(&world.file("groups.csv")), journal(&copy)).unwrap();
    let (code, _, stderr) = ran(elsewhere.args(["--subtool", "create_group"]));
    assert!(code == 2 && stderr.contains("another process still reads the results"), "{code}: {stderr}");
    first.signal("INT");
    assert_eq!(first.wait().code(), Some(3), "{}", first.stderr());
    assert!(first.stdout().contains("0 of 20 rows have a result"), "{}", first.stdout());
    assert!(first.stdout().contains("20 rows are still in the queue"), "{}", first.stdout());

    let mut second = Process::start("submit", &mut run());
    let _worker = world.worker();
    assert_eq!(second.wait().code(), Some(0), "{}", second.stderr());
    let created = world.org.effects().iter().filter(|kind| *kind == "group.created").count();
    assert_eq!(created, 20);
    assert_eq!(world.org.requests(), 20, "no row was looked for: none was sent again");
}

#[tokio::test]
async fn results_that_can_no_longer_come_are_not_waited_for() {
    let world = World::new().await;
    let caller = world.caller().await;
    drop(world.worker());
    let url = world.place.url(User::Operator);
    let run = || {
        let (mut command, file) = submit(&world, &url, "groups.csv", "name\nAlpha\n");
        command.args(["--subtool", "create_group"]);
        (command, file)
    };
    let mut first = Process::start("submit", &mut run().0);
    until("it is in the queue", async || caller.count("okta.invocations.prod.bulk").await == Some(1)).await;
    first.signal("TERM");
    assert_eq!(first.wait().code(), Some(3), "{}", first.stderr());
    let journal = std::fs::read_to_string(format!("{}.journal", run().1.display())).unwrap();
    let queue = format!("okta.replies.submit.{}", job_id(&run().1, ".journal"));
    let channel = caller.open_channel().await;
    channel.queue_delete(queue.as_str().into(), Default::default()).await.unwrap();
    let (code, _, stderr) = ran(&mut run().0);
    assert!(code == 2 && stderr.contains(&queue), "{code}: {stderr}");
    // As it says itself: without the lines of what was confirmed the row is in doubt, and is sent once more.
    let doubtful: String = journal
        .lines()
        .filter(|line| !line.contains("confirmed"))
        .fold(String::new(), |text, line| format!("{text}{line}\n"));
    std::fs::write(format!("{}.journal", run().1.display()), doubtful).unwrap();
    let _worker = world.worker();
    let (code, stdout, stderr) = ran(&mut run().0);
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert_eq!(world.org.effects().iter().filter(|kind| *kind == "group.created").count(), 1);
}

/// A worker of two connections, each to an org of its own, and the second org.
fn two_orgs(world: &World) -> (Worker, Org) {
    let second = Org::start(&["--window", "2", "--limit", "all=20000"]);
    let settings = format!(
        "[connections.second]\nbase_url = \"{}\"\napi_token = {{ env = \"TEST_OKTA_TOKEN\" }}\n\
         subtools = [\"all\"]\nrate_limit_window = \"2s\"\n",
        second.url()
    );
    (world.worker_with(&Start { settings: &settings, ..Start::default() }), second)
}

/// Every row of a job has a result of this job's, for its own name.
fn assert_own(file: &Path, rows: usize) {
    let (results, job) = (results(file, ".results.jsonl"), job_id(file, ".journal"));
    let seen: BTreeSet<u64> =
        results.iter().map(|result| result["row"].as_u64().expect("it has a row")).collect();
    assert_eq!((results.len(), seen.len()), (rows, rows), "each row once");
    for result in &results {
        assert_eq!(result["id"], format!("{job}.{}", result["row"]), "{result}");
        assert!(result.get("deduplicated").is_none(), "{result}");
    }
}

fn created(org: &Org) -> usize {
    org.effects().iter().filter(|kind| *kind == "group.created").count()
}

#[tokio::test]
async fn jobs_of_the_same_rows_keep_to_their_own_results() {
    const ROWS: usize = 400;
    let world = World::with(&["--window", "2", "--limit", "all=20000"]).await;
    let (_worker, second) = two_orgs(&world);
    let url = world.place.url(User::Operator);
    let rows = (0..ROWS).fold("name\n".to_owned(), |text, row| format!("{text}group {row}\n"));
    let run = |name: &str, connection: &str| {
        let (mut command, file) = submit_on(connection, &world, &url, name, &rows);
        command.args(["--subtool", "create_group"]);
        (command, file)
    };
    let (mut on_prod, first) = run("one.csv", "prod");
    let (mut on_second, other) = run("two.csv", "second");
    // Both at once; one is killed in the middle, and goes on while the other does.
    let killed = Process::start("submit", &mut on_prod);
    let mut through = Process::start("submit", &mut on_second);
    until("some rows have results", async || results(&first, ".results.jsonl").len() > 20).await;
    drop(killed);
    let (code, stdout, stderr) = ran(&mut on_prod);
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert_eq!(through.wait().code(), Some(0), "{}", through.stderr());
    for (file, org) in [(&first, &world.org), (&other, &second)] {
        assert_own(file, ROWS);
        assert_eq!(created(org), ROWS);
    }
    // Somebody deletes a group; the same rows as another file are asked of Okta again, every one.
    let gone = results(&first, ".results.jsonl").swap_remove(0)["result"]["id"].as_str().unwrap().to_owned();
    let settings = world.file("call.toml");
    let text = format!(
        "[connections.prod]\nbase_url = \"{}\"\napi_token = \"{TOKEN}\"\nsubtools = [\"all\"]\n",
        world.org.url()
    );
    std::fs::write(&settings, text).unwrap();
    let mut call = command();
    call.arg("--config").arg(&settings).args(["call", "delete_group", "--connection", "prod", "--args"]);
    let (code, stdout, stderr) = ran(call.arg(json!({ "group_id": gone }).to_string()));
    assert_eq!(code, 0, "{stdout}{stderr}");
    let before = world.org.requests();
    let (mut again, copy) = run("three.csv", "prod");
    let (code, stdout, stderr) = ran(&mut again);
    assert!(code == 1 && stdout.contains("400 rows: 1 applied, 399 failed"), "{code}: {stdout}{stderr}");
    assert_own(&copy, ROWS);
    assert_eq!(created(&world.org), ROWS + 1);
    assert!(world.org.requests() >= before + ROWS as u64);
}

#[tokio::test]
async fn results_that_could_not_be_written_wait_in_their_queue() {
    const ROWS: usize = 120;
    let world = World::with(&["--window", "2", "--limit", "all=20000"]).await;
    let _worker = world.worker();
    let url = world.place.url(User::Operator);
    let rows = (0..ROWS).fold("name\n".to_owned(), |text, row| format!("{text}group {row}\n"));
    let (mut command, file) = submit(&world, &url, "groups.csv", &rows);
    command.args(["--subtool", "create_group"]);
    let (code, stdout, stderr) = ran(&mut limited(&command, 16));
    assert_eq!(code, 3, "{stdout}{stderr}");
    assert!(stderr.contains("make room and run the same command again"), "{stderr}");
    assert!(results(&file, ".results.jsonl").len() < ROWS);
    let (code, stdout, stderr) = ran(&mut command);
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert_own(&file, ROWS);
    assert_eq!(created(&world.org), ROWS);
}

#[tokio::test]
async fn a_stopped_job_says_what_is_queued_and_cancelling_drops_what_has_not_begun() {
    // One group in half a minute: what waits for the next one surely has not begun.
    let world = World::with(&["--limit", "groups=2", "--window", "30"]).await;
    let caller = world.caller().await;
    drop(world.worker()); // it declares the queues, and is gone
    let url = world.place.url(User::Operator);
    let rows = (0..20).fold("name\n".to_owned(), |text, row| format!("{text}group {row}\n"));
    let run = || {
        let (mut command, file) = submit(&world, &url, "groups.csv", &rows);
        command.args(["--subtool", "create_group"]);
        (command, file)
    };
    let mut first = Process::start("submit", &mut run().0);
    let lane = "okta.invocations.prod.bulk";
    until("all are in the queue", async || caller.count(lane).await == Some(20)).await;
    first.signal("INT");
    assert_eq!(first.wait().code(), Some(3), "{}", first.stderr());
    assert!(first.stderr().contains("no worker consumes `prod` now"), "{}", first.stderr());
    for said in ["20 rows are still in the queue", "cancel   the same command with --cancel"] {
        assert!(first.stdout().contains(said), "{}", first.stdout());
    }
    // Nobody is there to drop them, and nobody says that they are dropped.
    let (code, stdout, stderr) = ran(run().0.arg("--cancel"));
    assert!(code == 3 && stdout.contains("20 rows are still in the queue"), "{code}: {stdout}{stderr}");

    // Room for all of them: none is put aside, from where it would come back only later.
    let room = [("OKTA_WORKER__BROKER__PREFETCH", "100")];
    let _worker = world.worker_with(&Start { variables: &room, ..Start::default() });
    let (mut command, file) = run();
    let (code, stdout, stderr) = ran(command.arg("--cancel"));
    assert!(code == 1 && stdout.starts_with("cancelled"), "{code}: {stdout}{stderr}");
    assert_own(&file, 20);
    let results = results(&file, ".results.jsonl");
    let is_cancelled = |result: &&Value| result["error"]["code"] == "cancelled" && result["effect"] == "none";
    let cancelled = results.iter().filter(is_cancelled).count();
    assert!(cancelled >= 16, "{cancelled}");
    assert_eq!(created(&world.org), 20 - cancelled, "the others were done");
}

#[tokio::test]
async fn rows_about_one_user_keep_their_order_across_workers_and_a_kill() {
    const PEOPLE: usize = 15;
    const TITLES: usize = 5;
    let world = World::with(&["--window", "2", "--limit", "all=20000", "--latency", "20"]).await;
    let (_one, _other) = (world.worker(), world.worker());
    let url = world.place.url(User::Operator);
    let mut rows = String::new();
    for person in 0..PEOPLE {
        let login = format!("step{person}@example.com");
        let profile = json!({"login": login, "email": login, "firstName": "S", "lastName": "0"});
        let create = json!({"subtool": "create_user", "arguments": {"profile": profile, "activate": false}});
        rows += &format!("{create}\n");
        for title in 1..=TITLES {
            let arguments = json!({"user_id": login, "profile": {"title": title.to_string()}});
            rows += &format!("{}\n", json!({"subtool": "update_user", "arguments": arguments}));
        }
        rows += &format!("{}\n", json!({"subtool": "get_user", "arguments": {"user_id": login}}));
    }
    let all = PEOPLE * (TITLES + 2);
    let (mut command, file) = submit(&world, &url, "rows.jsonl", &rows);
    let running = Process::start("submit", &mut command);
    until("some have results", async || results(&file, ".results.jsonl").len() > all / 3).await;
    drop(running); // by SIGKILL
    let (code, stdout, stderr) = ran(&mut command);
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert_own(&file, all);
    let read: Vec<_> = results(&file, ".results.jsonl");
    for read in read.iter().filter(|result| result["subtool"] == "get_user") {
        assert_eq!(read["result"]["profile"]["title"], TITLES.to_string(), "{read}");
    }
}
