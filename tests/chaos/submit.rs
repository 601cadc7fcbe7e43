//! `submit` is killed, cut off and run again: every row has one result, and nothing is done twice.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use okta_worker::worker::failpoint::Point;
use serde_json::{Value, json};

use super::child::{LOOK_AGAIN, Process, command, http};
use super::judge::{CHAOS, Judge};
use super::load::{org_arguments, texts};
use super::node::{User, ours};
use super::org::TOKEN;
use super::proxy::Which;
use super::report::{is_long, passed};
use super::world::{BROKER_URL, World};

/// Rows of the file; one in four resets a password.
fn rows_in_all() -> usize {
    if is_long() { 2_000 } else { 800 }
}

/// People in the org: enough of them may have their password reset.
const PEOPLE: &str = "1000";

/// Requests in a window of 2 s: the budget is not what holds this up.
const LIMIT: u32 = 20_000;

/// How long a run may take, the machine being slow.
const PATIENCE: Duration = Duration::from_secs(300);

/// By which road the rows go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Road {
    Broker,
    Embedded,
}

/// A file to submit, and where.
struct Job<'a> {
    world: &'a World,
    road: Road,
    file: PathBuf,
    settings: PathBuf,
    url: String,
}

impl<'a> Job<'a> {
    /// A job with these bodies. The broker's road is taken without any secret of Okta's.
    fn new(world: &'a World, road: Road, bodies: &[Value]) -> Self {
        let (file, settings) = (world.file("rows.jsonl"), world.file("submit.toml"));
        let text: String = bodies.iter().map(|body| format!("{body}\n")).collect();
        std::fs::write(&file, text).expect("a file can be written");
        let text = format!(
            r#"
[broker]
url = {{ env = "{BROKER_URL}" }}
[connections.prod]
base_url = "{}"
api_token = {{ env = "SUBMIT_OKTA_TOKEN" }}
subtools = ["all"]
rate_limit_window = "2s"
"#,
            world.org.url()
        );
        std::fs::write(&settings, text).expect("a file can be written");
        Self { world, road, file, settings, url: world.place.url(User::Operator) }
    }

    /// Runs it, with a killpoint or none.
    fn start(&self, chaos: Option<&str>) -> Process {
        Process::start("submit", &mut self.command(chaos))
    }

    fn command(&self, chaos: Option<&str>) -> Command {
        let mut command = command();
        command.arg("--config").arg(&self.settings).arg("submit").arg(&self.file);
        command.args(["--connection", "prod"]).env(BROKER_URL, &self.url);
        if self.road == Road::Embedded {
            command.arg("--embedded").env("SUBMIT_OKTA_TOKEN", TOKEN);
        }
        if let Some(order) = chaos {
            command.env(CHAOS, order);
        }
        command
    }

    /// Waits for its end, and for exit code 0 or, where something could not be known, 1.
    fn end(&self, mut process: Process) {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = process.ended() {
                break status;
            }
            assert!(Instant::now() < deadline, "{} results: {}", self.results().len(), process.stderr());
            std::thread::sleep(LOOK_AGAIN);
        };
        assert!(matches!(status.code(), Some(0 | 1)), "{status}: {}", process.stderr());
    }

    /// The whole lines of the results file.
    fn results(&self) -> Vec<Value> {
        let text =
            std::fs::read_to_string(format!("{}.results.jsonl", self.file.display())).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).expect("a result is JSON")).collect()
    }

    /// Waits until so many rows have results.
    async fn until(&self, results: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.results().len() < results {
            assert!(Instant::now() < deadline, "{} of {results} results", self.results().len());
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Each row has one result, and the org's ledger has what they say; how many resets nobody could be sure of.
    fn check(&self, bodies: &[Value]) -> usize {
        let results = self.results();
        let rows: BTreeSet<u64> =
            results.iter().map(|it| it["row"].as_u64().expect("it has a row")).collect();
        assert_eq!((results.len(), rows.len()), (bodies.len(), bodies.len()), "each row once");
        assert_eq!(rows.last().copied(), Some(bodies.len() as u64));
        let (status, body) =
            http(self.world.org.port(), "GET", "/sandbox/effects", "").expect("the sandbox answers");
        assert_eq!(status, 200, "{body}");
        let effects: Vec<Value> = serde_json::from_str(&body).expect("the back door speaks JSON");
        let mut done: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for effect in &effects {
            let text = |name: &str| effect[name].as_str().expect("it is a text");
            *done.entry((text("kind"), text("subject"))).or_default() += 1;
        }
        let (mut created, mut unknown) = (0, 0);
        for result in &results {
            let body =
                &bodies[usize::try_from(result["row"].as_u64().expect("it has a row")).expect("small") - 1];
            assert_eq!(result["subtool"], body["subtool"], "{result}");
            if body["subtool"] == "create_user" {
                assert_eq!(result["effect"], "applied", "{result}");
                let id = result["result"]["id"].as_str().expect("who was created has an id");
                assert_eq!(done.get(&("user.created", id)), Some(&1), "{result}");
                created += 1;
            } else {
                let user = body["arguments"]["user_id"].as_str().expect("it is a text");
                let mails = done.get(&("mail.password_reset", user)).copied().unwrap_or_default();
                match result["effect"].as_str() {
                    Some("applied") => assert_eq!(mails, 1, "{result}"),
                    _ => {
                        assert_eq!(result["error"]["code"], "outcome_unknown", "{result}");
                        assert!(mails <= 1, "{mails} mails: {result}");
                        unknown += 1;
                    }
                }
            }
        }
        let in_ledger = done.keys().filter(|(kind, _)| *kind == "user.created").count();
        assert_eq!(in_ledger, created, "nobody was created whom no result names");
        assert!(done.values().all(|times| *times == 1), "nothing is done twice");
        unknown
    }
}

/// A world with people, whatever its budget.
async fn world() -> World {
    let mut arguments = org_arguments(LIMIT);
    let users = arguments.iter().position(|argument| argument == "--users").expect("it is one of them");
    arguments[users + 1] = PEOPLE.to_owned();
    World::with(&texts(&arguments)).await
}

/// Three creations and one reset by turns; the resets for people who are active.
fn bodies(world: &World, rows: usize) -> Vec<Value> {
    let settings = world.file("call.toml");
    let url = world.org.url();
    let text =
        format!("[connections.prod]\nbase_url = \"{url}\"\napi_token = \"{TOKEN}\"\nsubtools = [\"all\"]\n");
    std::fs::write(&settings, text).expect("a file can be written");
    let mut call = command();
    let arguments = json!({"search": "status eq \"ACTIVE\"", "limit": 1000}).to_string();
    call.arg("--config").arg(&settings);
    call.args(["call", "list_users", "--connection", "prod", "--args", &arguments]);
    let called = call.output().expect("it can be run");
    let listed: Value = serde_json::from_slice(&called.stdout).expect("a result is JSON");
    let mut people = listed["result"]["items"].as_array().expect("a list has items").iter();
    let body = |row: usize| {
        if row % 4 == 3 {
            let id = &people.next().expect("enough people are active")["id"];
            return json!({"subtool": "reset_user_password", "arguments": {"user_id": id}});
        }
        let login = format!("row{row}@submit.example");
        let profile =
            json!({"login": login, "email": login, "firstName": "Row", "lastName": row.to_string()});
        json!({"subtool": "create_user", "arguments": {"profile": profile, "activate": false}})
    };
    (0..rows).map(body).collect()
}

/// Kills a run when a row comes to a point, after so many others.
async fn killed_at(job: &Job<'_>, point: Point, pass: usize) {
    let judge = Judge::new().await;
    let process = job.start(Some(&judge.order(point)));
    let _standing = tokio::time::timeout(PATIENCE, judge.stop(pass))
        .await
        .unwrap_or_else(|_| panic!("no row came to {point:?}: {}", process.stderr()));
    drop(process); // by SIGKILL
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submit_that_is_killed_twice_has_every_row_done_once() {
    if ours().is_none() {
        return;
    }
    let world = world().await;
    let _worker = world.worker();
    let all = rows_in_all();
    let bodies = bodies(&world, all);
    let job = Job::new(&world, Road::Broker, &bodies);
    // The broker has confirmed the row, and the journal does not say so.
    killed_at(&job, Point::Confirmed, 301).await;
    assert!(job.results().len() < all);
    let process = job.start(None);
    job.until(all / 2).await;
    drop(process);
    let after = job.results().len();
    assert!(after < all, "it was killed in the middle");
    job.end(job.start(None));
    let unknown = job.check(&bodies);
    passed(
        "35",
        &format!("{all} rows, killed with {after} results the second time; {unknown} `outcome_unknown`"),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submit_with_the_worker_inside_that_is_killed_twice_has_every_row_done_once() {
    if ours().is_none() {
        return;
    }
    let world = world().await;
    let all = rows_in_all();
    let bodies = bodies(&world, all);
    let job = Job::new(&world, Road::Embedded, &bodies);
    // Okta has done it, and nobody here knows.
    killed_at(&job, Point::Answered, 301).await;
    let process = job.start(None);
    job.until(all / 2).await;
    drop(process);
    let after = job.results().len();
    assert!(after < all, "it was killed in the middle");
    job.end(job.start(None));
    let unknown = job.check(&bodies);
    passed(
        "36",
        &format!("{all} rows, killed with {after} results the second time; {unknown} `outcome_unknown`"),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_submit_that_is_cut_off_from_the_broker_goes_on_and_has_every_row_done_once() {
    let Some(node) = ours() else { return };
    let world = world().await;
    let _worker = world.worker();
    let all = rows_in_all();
    let bodies = bodies(&world, all);
    let (proxy, url) = world.proxied(node);
    let mut job = Job::new(&world, Road::Broker, &bodies);
    job.url = url;
    let process = job.start(None);
    for results in [100, all / 2] {
        job.until(results).await;
        proxy.cut(Which::All);
    }
    job.end(process);
    let unknown = job.check(&bodies);
    assert_eq!(unknown, 0, "the worker that had them remembers");
    passed("37", &format!("{all} rows, cut off twice"));
}

/// Runs a command to its end: the most memory it has had, in KiB, as it was seen last.
fn peak(command: &mut Command) -> u64 {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("it can be run");
    let mut peak = 0;
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child of ours can be waited for") {
            break status;
        }
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let now = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
        peak = now.unwrap_or(peak);
        std::thread::sleep(LOOK_AGAIN);
    };
    assert_eq!(status.code(), Some(0));
    peak
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_times_the_rows_take_no_more_memory() {
    /// What 100,000 rows may take more than 1,000, in KiB.
    const MORE_MAX: u64 = 16 * 1024;
    if ours().is_none() {
        return;
    }
    let world = World::with(&texts(&org_arguments(10_000_000))).await;
    let _worker = world.worker();
    let mut peaks = Vec::new();
    for rows in [1_000, if is_long() { 100_000 } else { 5_000 }] {
        let body = |row: usize| {
            let reason =
                format!("row {row}: as long as rows of an onboarding are, with a profile and some groups");
            json!({"subtool": "list_groups", "arguments": {"limit": 1},
                   "options": {"reason": reason.repeat(3), "fields": ["id"]}})
        };
        let job = Job::new(&world, Road::Broker, &(0..rows).map(body).collect::<Vec<_>>());
        for file in ["journal", "results.jsonl"] {
            let _ = std::fs::remove_file(format!("{}.{file}", job.file.display()));
        }
        peaks.push(peak(&mut job.command(None)));
        assert_eq!(job.results().len(), rows);
    }
    println!("peaks: {peaks:?} KiB");
    assert!(peaks[1] <= peaks[0] + MORE_MAX, "{peaks:?} KiB");
    passed("38", &format!("{} KiB for 1,000 rows, {} KiB for the long file", peaks[0], peaks[1]));
}
