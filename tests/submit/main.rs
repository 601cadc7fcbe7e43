//! `submit` as a process, with the worker inside and the simulated org over HTTP: what it refuses, what it writes, and
//! how it goes on after it was stopped or killed.

#[path = "../broker/child.rs"]
mod child;
#[path = "../support/limited.rs"]
mod limited;
#[path = "../broker/org.rs"]
#[expect(dead_code, reason = "the broker tests use more of it")]
mod org;
mod rows;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};
use tempfile::TempDir;

use child::{LOOK_AGAIN, Process, WAIT_MAX, command, ran};
use limited::limited;
use org::{Org, TOKEN};

/// A folder with a configuration, and an org.
struct World {
    org: Org,
    dir: TempDir,
}

impl World {
    fn new(org: &[&str]) -> Self {
        let arguments = [&["--window", "2", "--limit", "all=20000"], org].concat();
        let world = Self {
            org: Org::start(&arguments),
            dir: tempfile::tempdir().expect("a temporary directory can be made"),
        };
        let settings = format!(
            "[connections.prod]\nbase_url = \"{}\"\napi_token = {{ env = \"TEST_OKTA_TOKEN\" }}\n\
             subtools = [\"all\"]\nrate_limit_window = \"2s\"\n",
            world.org.url()
        );
        world.write("worker.toml", &settings);
        world
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.file(name), text).expect("a file can be written");
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).unwrap_or_default()
    }

    /// A submit in that folder, without any secret.
    fn submit(&self, arguments: &[&str]) -> Command {
        let mut command = command();
        command.current_dir(self.dir.path()).args(["--config", "worker.toml", "submit"]).args(arguments);
        command
    }

    /// The same with the worker inside.
    fn embedded(&self, arguments: &[&str]) -> Command {
        let mut command = self.submit(arguments);
        command.args(["--connection", "prod", "--embedded"]).env("TEST_OKTA_TOKEN", TOKEN);
        command
    }

    fn results(&self, name: &str) -> Vec<Value> {
        let text = self.read(name);
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).expect("a result is JSON")).collect()
    }

    fn created(&self) -> usize {
        self.org.effects().iter().filter(|kind| *kind == "group.created").count()
    }

    fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + WAIT_MAX;
        while !holds() {
            assert!(Instant::now() < deadline, "{what}: not within {WAIT_MAX:?}");
            std::thread::sleep(LOOK_AGAIN);
        }
    }
}

/// So many groups to be created.
fn groups(count: usize) -> String {
    (0..count).fold("name\n".to_owned(), |text, row| format!("{text}group {row}\n"))
}

#[test]
fn what_cannot_be_run_is_refused_before_anything_is_sent() {
    let world = World::new(&[]);
    world.write("good.csv", "user_id\nana@x.example\n");
    world.write("bad.csv", "user_id,send_emial\nana@x.example,x\nme,\n");
    world.write("bad.jsonl", "{\"user_id\":\"ana@x.example\"}\n{\"user_id\":1}\n{\"usr_id\":\"x\"}\n");
    world.write("empty.csv", "user_id\n");
    let rows: [(&[&str], &[&str]); 9] = [
        (&["good.csv"], &["a CSV file needs `--subtool`"]),
        (&["good.csv", "--subtool", "get_usr"], &["unknown subtool `get_usr`, did you mean `get_user`?"]),
        (&["none.csv", "--subtool", "get_user"], &["failed to read `none.csv`"]),
        (&["empty.csv", "--subtool", "get_user"], &["has no rows"]),
        (&["good.csv", "--subtool", "get_user", "--lane", "fast"], &["must be `bulk` or `interactive`"]),
        (
            &["bad.csv", "--subtool", "activate_user"],
            &[
                "line 1, column 2 (`send_emial`): `activate_user` has no such argument, did you mean `send_email`?",
            ],
        ),
        (
            &["bad.jsonl", "--subtool", "get_user"],
            &["line 2: ", "line 3: unknown field `usr_id`, did you mean `user_id`? (`arguments.usr_id`)"],
        ),
        (&["bad.jsonl"], &["line 1: unknown field `user_id`", "line 2: ", "line 3: "]),
        (
            &["good.csv", "--subtool", "get_user", "--results", "good.csv"],
            &["the results file `good.csv`: line 1: it is no result"],
        ),
    ];
    for (arguments, words) in rows {
        let (code, stdout, stderr) = ran(&mut world.embedded(arguments));
        assert_eq!((code, stdout.as_str()), (2, ""), "{arguments:?}: {stderr}");
        for words in words {
            assert!(stderr.contains(words), "{arguments:?}: {stderr}");
        }
    }
    let other = ["good.csv", "--subtool", "get_user", "--connection", "prd"];
    let (code, _, stderr) = ran(&mut world.submit(&other));
    assert!(code == 2 && stderr.contains("unknown connection `prd`, did you mean `prod`?"), "{stderr}");
    assert_eq!(world.org.requests(), 0);
    assert!(!world.file("bad.csv.journal").exists() && !world.file("bad.csv.results.jsonl").exists());
}

#[test]
fn by_the_broker_no_secret_of_okta_is_needed_and_inside_it_is() {
    let world = World::new(&[]);
    world.write("good.csv", "user_id\nana@x.example\n");
    let arguments = ["good.csv", "--subtool", "get_user", "--connection", "prod"];
    let mut nobody_there = world.submit(&arguments);
    nobody_there.env("OKTA_WORKER__BROKER__URL", format!("amqp://127.0.0.1:{}", child::free_port()));
    let (code, _, stderr) = ran(&mut nobody_there);
    assert!(code == 2 && stderr.contains("failed to reach the broker"), "{code}: {stderr}");
    let (code, _, stderr) = ran(world.submit(&arguments).arg("--embedded"));
    assert!(code == 2 && stderr.contains("TEST_OKTA_TOKEN"), "{code}: {stderr}");
    // Nothing has left yet, so the other way is open.
    let (code, stdout, stderr) = ran(&mut world.embedded(&arguments[..3]));
    assert!(code == 1 && stdout.contains("1 not_found"), "{code}: {stdout}{stderr}");
}

#[test]
fn each_row_has_a_line_of_result_for_its_owner_alone() {
    let world = World::new(&["--users", "5"]);
    let rows = "{\"subtool\":\"create_group\",\"arguments\":{\"name\":\"A\"},\"options\":{\"fields\":[\"id\"]}}\n\n\
                {\"subtool\":\"get_group\",\"arguments\":{\"group_id\":\"00gNobody0000000000\"}}\n\
                {\"subtool\":\"list_users\",\"arguments\":{\"limit\":2}}\n";
    world.write("rows.jsonl", rows);
    let (code, stdout, stderr) = ran(&mut world.embedded(&["rows.jsonl", "--results", "out"]));
    assert_eq!(code, 1, "{stdout}{stderr}");
    assert!(stdout.contains("3 rows: 1 applied, 1 read, 1 failed\n  failed   1 not_found\n"), "{stdout}");
    assert!(stderr.contains("submit: 3 rows are good, 0 of them are done"), "{stderr}");
    assert!(!stderr.contains('\u{1b}') && !stdout.contains('\u{1b}'), "no colour off a terminal");
    let mut results = world.results("out");
    results.sort_by_key(|result| result["row"].as_u64());
    let seen: Vec<_> = results.iter().map(|it| (it["row"].as_u64(), it["subtool"].as_str())).collect();
    assert_eq!(
        seen,
        [(Some(1), Some("create_group")), (Some(2), Some("get_group")), (Some(3), Some("list_users"))]
    );
    for name in ["out", "rows.jsonl.journal"] {
        let mode = world.file(name).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    // Again: nothing is left to do, and it still says that one has failed.
    let before = world.org.requests();
    let (code, stdout, _) = ran(&mut world.embedded(&["rows.jsonl", "--results", "out"]));
    assert_eq!((code, world.org.requests()), (1, before), "{stdout}");
}

#[test]
fn a_job_that_is_not_done_is_refused_on_other_terms() {
    let world = World::new(&["--latency", "50"]);
    world.write("groups.csv", &groups(200));
    let arguments = ["groups.csv", "--subtool", "create_group"];
    let running = Process::start("submit", &mut world.embedded(&arguments));
    world.until("some have results", || world.results("groups.csv.results.jsonl").len() > 10);
    drop(running); // by SIGKILL
    let refused = |command: &mut Command, words: &str| {
        let (code, _, stderr) = ran(command);
        assert!(code == 2 && stderr.contains(words), "{code}: {stderr}");
    };
    refused(&mut world.embedded(&["groups.csv", "--subtool", "update_group"]), "no column `group_id`");
    refused(
        world.embedded(&arguments).args(["--lane", "interactive"]),
        "another lane (`bulk`, not `interactive`)",
    );
    refused(world.submit(&arguments).args(["--connection", "prod"]), "another way");
    let rows = world.read("groups.csv");
    world.write("groups.csv", &groups(201));
    refused(&mut world.embedded(&arguments), "the file has changed since");
    world.write("groups.csv", &rows);
    assert_eq!(ran(&mut world.embedded(&arguments)).0, 0);
    let results = world.read("groups.csv.results.jsonl");
    world.write("groups.csv.results.jsonl", results.split_inclusive('\n').next().unwrap());
    refused(&mut world.embedded(&arguments), "lacks 199 results that came already");
    world.write("groups.csv.results.jsonl", &results);
    world.write("groups.csv", &groups(201));
    refused(&mut world.embedded(&arguments), "the file has changed since its job was done");
    assert_eq!(world.created(), 200);
}

/// The ids of a results file without their rows: of one job there is one.
fn jobs(results: &[Value]) -> BTreeSet<String> {
    let job = |result: &Value| result["id"].as_str().and_then(|id| Some(id.split_once('.')?.0.to_owned()));
    results.iter().map(|result| job(result).expect("an id has a job and a row")).collect()
}

#[test]
fn the_same_rows_are_new_invocations_as_another_file_or_on_other_terms_or_without_their_journal() {
    let world = World::new(&["--users", "5"]);
    world.write("people.csv", "user_id\nsam.admin@example.com\n");
    world.write("copy.csv", "user_id\nsam.admin@example.com\n");
    let read = |arguments: &[&str]| {
        let before = world.org.requests();
        let (code, stdout, stderr) = ran(&mut world.embedded(arguments));
        assert_eq!((code, world.org.requests()), (0, before + 1), "{arguments:?}: {stdout}{stderr}");
        let results = world.results(&format!("{}.results.jsonl", arguments[0]));
        assert_eq!(results.len(), 1);
        assert!(results[0].get("deduplicated").is_none(), "{results:?}");
        (jobs(&results).pop_last().unwrap(), stderr)
    };
    let (first, _) = read(&["people.csv", "--subtool", "get_user"]);
    assert_eq!((first.len(), first.bytes().all(|byte| byte.is_ascii_hexdigit())), (16, true), "{first}");
    let (copy, _) = read(&["copy.csv", "--subtool", "get_user"]);
    let (other, said) = read(&["people.csv", "--subtool", "list_user_groups"]);
    // What came of the job before is kept.
    let kept = format!("people.csv.results.jsonl.{first}");
    assert!(said.contains(&kept), "{said}");
    assert_eq!(jobs(&world.results(&kept)), BTreeSet::from([first.clone()]));
    assert!(world.read(&format!("people.csv.journal.{first}")).contains("get_user"));
    std::fs::remove_file(world.file("people.csv.journal")).unwrap();
    let (anew, _) = read(&["people.csv", "--subtool", "list_user_groups"]);
    assert_eq!(BTreeSet::from([first, copy, other, anew]).len(), 4);
    // With its journal it is the same job, which is done.
    let (code, stdout, _) = ran(&mut world.embedded(&["copy.csv", "--subtool", "get_user"]));
    assert!(code == 0 && stdout.contains("nothing to do"), "{stdout}");
}

#[test]
fn two_submits_of_one_results_file_do_not_mix_their_lines() {
    let world = World::new(&["--latency", "50"]);
    world.write("groups.csv", &groups(200));
    world.write("others.csv", "name\nother\n");
    let arguments = ["groups.csv", "--subtool", "create_group", "--results", "out"];
    let running = Process::start("submit", &mut world.embedded(&arguments));
    world.until("some have results", || world.results("out").len() > 10);
    let others = ["others.csv", "--subtool", "create_group", "--results", "out"];
    let (code, _, stderr) = ran(&mut world.embedded(&others));
    assert!(code == 2 && stderr.contains("`out`: another `submit` is at work on it"), "{code}: {stderr}");
    drop(running);
    assert_eq!(jobs(&world.results("out")).len(), 1);
}

#[test]
fn a_dry_run_that_foresees_failures_says_so_and_ends_with_1() {
    let world = World::new(&["--users", "5"]);
    world.write("users.csv", "user_id\nsam.admin@example.com\nnobody@example.com\n");
    let (code, stdout, stderr) =
        ran(&mut world.embedded(&["users.csv", "--subtool", "suspend_user", "--dry-run"]));
    assert_eq!(code, 1, "{stdout}{stderr}");
    assert!(stdout.contains("2 rows: 1 planned, 1 would fail\n  failed   1 not_found\n"), "{stdout}");
}

/// What a user is told to do when a disk is full.
const MAKE_ROOM: &str = "make room and run the same command again";

#[test]
fn files_that_may_not_grow_stop_a_job_with_3_and_it_goes_on_without_loss() {
    const ROWS: usize = 200;
    let world = World::new(&[]);
    world.write("groups.csv", &groups(ROWS));
    let command = world.embedded(&["groups.csv", "--subtool", "create_group"]);
    // First nothing at all may be written, then the first results.
    for (kib, name) in
        [(0, "groups.csv.journal"), (16, "groups.csv.results.jsonl"), (32, "groups.csv.results.jsonl")]
    {
        let (code, stdout, stderr) = ran(&mut limited(&command, kib));
        assert_eq!(code, 3, "{kib} KiB: {stdout}{stderr}");
        assert!(stderr.contains(MAKE_ROOM) && stderr.contains(name), "{kib} KiB: {stderr}");
        assert!(world.results("groups.csv.results.jsonl").len() < ROWS);
        assert!(
            world.read("groups.csv.results.jsonl").is_empty()
                || world.read("groups.csv.results.jsonl").ends_with('\n')
        );
    }
    let (code, stdout, stderr) = ran(&mut world.embedded(&["groups.csv", "--subtool", "create_group"]));
    assert_eq!(code, 0, "{stdout}{stderr}");
    let results = world.results("groups.csv.results.jsonl");
    let rows: BTreeSet<_> = results.iter().map(|result| result["row"].as_u64().unwrap()).collect();
    assert_eq!((results.len(), rows.len(), world.created()), (ROWS, ROWS, ROWS));
}

/// A small file system of its own, gone with the test.
struct Disk(PathBuf);

impl Disk {
    /// Mounts one of so many KiB; the reason, where this user cannot.
    fn mount(at: PathBuf, kib: u32) -> Result<Self, String> {
        std::fs::create_dir(&at).expect("a folder can be made");
        Self::ran(
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={kib}k"), "tmpfs"]).arg(&at),
        )?;
        Ok(Self(at))
    }

    fn ran(command: &mut Command) -> Result<(), String> {
        let output = command.output().map_err(|error| error.to_string())?;
        output
            .status
            .success()
            .then_some(())
            .ok_or_else(|| String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Makes it larger.
    fn grow(&self, kib: u32) {
        Self::ran(Command::new("mount").args(["-o", &format!("remount,size={kib}k")]).arg(&self.0))
            .expect("what could be mounted can be mounted larger");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_stops_a_job_with_3_and_it_goes_on_without_loss() {
    const ROWS: usize = 300;
    let world = World::new(&[]);
    let disk = match Disk::mount(world.file("disk"), 64) {
        Ok(disk) => disk,
        Err(why) => return println!("skipped: no file system can be mounted here: {why}"),
    };
    world.write("disk/groups.csv", &groups(ROWS));
    std::fs::write(world.file("disk/filler"), vec![0; 64 * 1024]).unwrap_err();
    let run = || ran(&mut world.embedded(&["disk/groups.csv", "--subtool", "create_group"]));
    // No journal can be begun.
    let (code, stdout, stderr) = run();
    assert_eq!((code, world.org.requests()), (3, 0), "{stdout}{stderr}");
    assert!(stderr.contains(MAKE_ROOM) && stderr.contains("No space left"), "{stderr}");
    std::fs::remove_file(world.file("disk/filler")).unwrap();
    // Some results fit, and then, when there is a little more room, some more.
    for kib in [64, 96] {
        disk.grow(kib);
        let (code, stdout, stderr) = run();
        assert_eq!(code, 3, "{stdout}{stderr}");
        assert!(stderr.contains(MAKE_ROOM), "{stderr}");
    }
    disk.grow(8 * 1024);
    let (code, stdout, stderr) = run();
    assert_eq!(code, 0, "{stdout}{stderr}");
    let results = world.results("disk/groups.csv.results.jsonl");
    let rows: BTreeSet<_> = results.iter().map(|result| result["row"].as_u64().unwrap()).collect();
    assert_eq!((results.len(), rows.len(), world.created()), (ROWS, ROWS, ROWS));
}

#[test]
fn a_job_that_is_stopped_ends_with_3_and_goes_on_where_it_was() {
    const ROWS: usize = 300;
    let world = World::new(&["--latency", "50"]);
    world.write("groups.csv", &groups(ROWS));
    let arguments = ["groups.csv", "--subtool", "create_group"];
    for signal in ["INT", "TERM"] {
        let before = world.results("groups.csv.results.jsonl").len();
        let mut running = Process::start("submit", &mut world.embedded(&arguments));
        world.until("some have results", || world.results("groups.csv.results.jsonl").len() > before + 30);
        running.signal(signal);
        assert_eq!(running.wait().code(), Some(3), "{}", running.stderr());
        let after = world.results("groups.csv.results.jsonl").len();
        assert!(running.stdout().contains(&format!("{after} of {ROWS} rows")), "{}", running.stdout());
        assert_eq!(world.created(), after, "what was begun was finished and written");
    }
    let (code, stdout, stderr) = ran(&mut world.embedded(&arguments));
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert_eq!((world.results("groups.csv.results.jsonl").len(), world.created()), (ROWS, ROWS));
}

#[test]
fn a_job_that_is_killed_with_torn_files_goes_on_and_does_nothing_twice() {
    const ROWS: usize = 200;
    let world = World::new(&["--latency", "50"]);
    world.write("groups.csv", &groups(ROWS));
    let arguments = ["groups.csv", "--subtool", "create_group"];
    for kill in 1..=2 {
        let running = Process::start("submit", &mut world.embedded(&arguments));
        world.until("some have results", || world.results("groups.csv.results.jsonl").len() > kill * 50);
        drop(running); // by SIGKILL
        // A machine that fails may have written half a line.
        let torn = |name: &str, tail: &str| world.write(name, &format!("{}{tail}", world.read(name)));
        torn("groups.csv.journal", "{\"answered\":[[1");
        torn("groups.csv.results.jsonl", "{\"row\":7,\"id\":\"");
    }
    let (code, stdout, stderr) = ran(&mut world.embedded(&arguments));
    assert_eq!(code, 0, "{stdout}{stderr}");
    let results = world.results("groups.csv.results.jsonl");
    let rows: BTreeSet<_> = results.iter().map(|result| result["row"].as_u64().unwrap()).collect();
    assert_eq!((results.len(), rows.len(), world.created()), (ROWS, ROWS, ROWS));
    assert!(results.iter().all(|result| result["effect"] == "applied"));
}

/// The id of a group that is made for a test.
fn group(world: &World) -> String {
    world.write("group.csv", "name\nEverybody new\n");
    assert_eq!(ran(&mut world.embedded(&["group.csv", "--subtool", "create_group"])).0, 0);
    let id = world.results("group.csv.results.jsonl")[0]["result"]["id"].as_str().map(str::to_owned);
    id.expect("a group has an id")
}

/// Rows about so many people: each is created, added to a group, and gets one title after the other.
fn in_order(people: usize, group: &str) -> String {
    /// The titles that each gets.
    const TITLES: usize = 4;
    let mut text = String::new();
    let mut row = |subtool: &str, arguments: Value| {
        text += &format!("{}\n", json!({ "subtool": subtool, "arguments": arguments }));
    };
    for person in 0..people {
        let login = format!("step{person}@example.com");
        let profile = json!({"login": login, "email": login, "firstName": "S", "lastName": "0"});
        row("create_user", json!({"profile": profile, "activate": false}));
        row("add_user_to_group", json!({"user_id": login.to_uppercase(), "group_id": group}));
        for title in 1..=TITLES {
            let title = format!("title {title} of {TITLES}");
            row("update_user", json!({"user_id": login, "profile": {"title": title}}));
        }
    }
    text
}

/// Every row succeeded, and the titles of people are the last ones of the file.
fn assert_in_order(world: &World, results: &[Value], people: usize) {
    for result in results {
        assert_eq!(
            (&result["status"], &result["effect"]),
            (&json!("succeeded"), &json!("applied")),
            "{result}"
        );
    }
    assert_eq!(results.len(), people * 6);
    let logins =
        (0..people).fold("user_id\n".to_owned(), |text, person| format!("{text}step{person}@example.com\n"));
    world.write("people.csv", &logins);
    let (code, stdout, stderr) = ran(&mut world.embedded(&["people.csv", "--subtool", "get_user"]));
    assert_eq!(code, 0, "{stdout}{stderr}");
    for person in world.results("people.csv.results.jsonl") {
        assert_eq!(person["result"]["profile"]["title"], "title 4 of 4", "{person}");
    }
}

#[test]
fn rows_about_one_person_are_done_in_the_order_of_the_file() {
    const PEOPLE: usize = 20;
    let world = World::new(&["--latency", "20"]);
    world.write("rows.jsonl", &in_order(PEOPLE, &group(&world)));
    let (code, stdout, stderr) = ran(&mut world.embedded(&["rows.jsonl"]));
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert_in_order(&world, &world.results("rows.jsonl.results.jsonl"), PEOPLE);
}

#[test]
fn the_order_of_the_file_survives_a_kill() {
    const PEOPLE: usize = 20;
    let world = World::new(&["--latency", "20"]);
    world.write("rows.jsonl", &in_order(PEOPLE, &group(&world)));
    for results in [20, 60] {
        let running = Process::start("submit", &mut world.embedded(&["rows.jsonl"]));
        world.until("some have results", || world.results("rows.jsonl.results.jsonl").len() > results);
        drop(running); // by SIGKILL
    }
    let (code, stdout, stderr) = ran(&mut world.embedded(&["rows.jsonl"]));
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert_in_order(&world, &world.results("rows.jsonl.results.jsonl"), PEOPLE);
}

#[test]
fn what_failed_is_sent_again_alone_and_its_new_result_takes_the_place_of_the_earlier_one() {
    let world = World::new(&["--users", "5"]);
    let arguments = ["people.csv", "--subtool", "get_user"];
    world.write("people.csv", "user_id\nsam.admin@example.com\nnew@example.com\nnobody@example.com\n");
    let retry = || ran(world.embedded(&arguments).arg("--retry-failed"));
    let (code, _, stderr) = retry();
    assert!(code == 2 && stderr.contains("no job was begun with this file"), "{code}: {stderr}");
    assert!(!world.file("people.csv.journal").exists());
    let (code, stdout, _) = ran(&mut world.embedded(&arguments));
    assert!(code == 1 && stdout.contains("3 rows: 1 read, 2 failed"), "{stdout}");
    let first = jobs(&world.results("people.csv.results.jsonl"));

    let profile =
        json!({"login": "new@example.com", "email": "new@example.com", "firstName": "N", "lastName": "N"});
    world.write("new.jsonl", &json!({"profile": profile, "activate": false}).to_string());
    assert_eq!(ran(&mut world.embedded(&["new.jsonl", "--subtool", "create_user"])).0, 0);
    let before = world.org.requests();
    let (code, stdout, stderr) = retry();
    assert!(
        code == 1 && stdout.contains("3 rows: 2 read, 1 failed\n  failed   1 not_found"),
        "{stdout}{stderr}"
    );
    assert_eq!(world.org.requests(), before + 2, "those that had failed, and no other");
    let results = world.results("people.csv.results.jsonl");
    let rows: BTreeSet<_> = results.iter().map(|result| result["row"].as_u64().unwrap()).collect();
    assert_eq!((results.len(), rows.len()), (3, 3), "one line for each row");
    let second: BTreeSet<_> = jobs(&results).difference(&first).cloned().collect();
    assert_eq!(second.len(), 1, "they are invocations of their own");
    // The plain command has nothing to do, and another attempt is at the one that is left.
    let (code, stdout, _) = ran(&mut world.embedded(&arguments));
    assert!(code == 1 && stdout.contains("nothing to do: every row has its result"), "{stdout}");
    let before = world.org.requests();
    assert_eq!((retry().0, world.org.requests()), (1, before + 1));
    world.write("good.csv", "user_id\nsam.admin@example.com\n");
    let good = ["good.csv", "--subtool", "get_user"];
    assert_eq!(ran(&mut world.embedded(&good)).0, 0);
    let (code, stdout, _) = ran(world.embedded(&good).arg("--retry-failed"));
    assert!(code == 0 && stdout.contains("nothing to do: no row has failed"), "{stdout}");
}

#[test]
fn a_cancelled_job_has_a_result_for_every_row_and_its_rows_can_be_sent_after_all() {
    const ROWS: usize = 300;
    let world = World::new(&["--latency", "50"]);
    world.write("groups.csv", &groups(ROWS));
    let arguments = ["groups.csv", "--subtool", "create_group"];
    let mut running = Process::start("submit", &mut world.embedded(&arguments));
    world.until("some have results", || world.results("groups.csv.results.jsonl").len() > 30);
    running.signal("INT");
    assert_eq!(running.wait().code(), Some(3), "{}", running.stderr());
    assert!(running.stdout().contains("the same command with --cancel"), "{}", running.stdout());
    let (code, _, stderr) = ran(world.embedded(&arguments).arg("--retry-failed"));
    assert!(code == 2 && stderr.contains("rows have no result yet"), "{code}: {stderr}");

    let done = world.created();
    let (code, stdout, stderr) = ran(world.embedded(&arguments).arg("--cancel"));
    let said =
        format!("{ROWS} rows: {done} applied, {} failed\n  failed   {} cancelled", ROWS - done, ROWS - done);
    assert!(
        code == 1 && stdout.starts_with("cancelled") && stdout.contains(&said),
        "{code}: {stdout}{stderr}"
    );
    let results = world.results("groups.csv.results.jsonl");
    assert_eq!((results.len(), world.created()), (ROWS, done));
    let cancelled = results.iter().find(|result| result["status"] == "failed").unwrap();
    assert_eq!((&cancelled["effect"], &cancelled["subtool"]), (&json!("none"), &json!("create_group")));
    assert_eq!(
        (&cancelled["error"]["code"], &cancelled["error"]["retryable"]),
        (&json!("cancelled"), &json!(false))
    );

    let (code, stdout, stderr) = ran(world.embedded(&arguments).arg("--retry-failed"));
    assert_eq!((code, world.created()), (0, ROWS), "{stdout}{stderr}");
}
