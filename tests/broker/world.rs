//! One test's world: a virtual host, an org, and the workers between them.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use tempfile::TempDir;

use super::caller::Caller;
use super::child::{LOOK_AGAIN, Process, WAIT_MAX, command, free_port, http};
use super::node::{Node, Place, User};
use super::org::{Org, TOKEN};
use super::proxy::Proxy;

/// A virtual host and an org.
pub struct World {
    /// The virtual host.
    pub place: Place,
    /// The org behind every connection.
    pub org: Org,
    dir: TempDir,
}

/// How a worker is started.
#[derive(Default)]
pub struct Start<'a> {
    /// Settings besides those of every worker.
    pub settings: &'a str,
    /// The list of subtools of connection `prod`; empty: all.
    pub subtools: &'a str,
    /// Environment variables on top.
    pub variables: &'a [(&'a str, &'a str)],
}

/// The variable that names the broker to a worker.
pub const BROKER_URL: &str = "TEST_AMQP_URL";

/// A running worker.
pub struct Worker {
    /// The process.
    pub process: Process,
    port: u16,
    file: PathBuf,
}

impl World {
    /// A world whose org has some people in it.
    pub async fn new() -> Self {
        Self::with(&[]).await
    }

    /// A world whose org was started with these arguments on top.
    pub async fn with(org: &[&str]) -> Self {
        Self::at(Place::take().await, org)
    }

    /// A world in this virtual host.
    pub fn at(place: Place, org: &[&str]) -> Self {
        let people: &[&str] = if org.contains(&"--users") { &[] } else { &["--users", "40"] };
        let arguments = [people, org].concat();
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        Self { place, org: Org::start(&arguments), dir }
    }

    /// The command of a worker that is not started yet, and the port it will report on.
    pub fn command(&self, start: &Start<'_>) -> (Command, u16) {
        let port = free_port();
        let (org, Start { settings, subtools, variables }) = (self.org.url(), start);
        let subtools = if subtools.is_empty() { r#"["all"]"# } else { subtools };
        let text = format!(
            r#"
[broker]
url = {{ env = "{BROKER_URL}" }}
[connections.prod]
base_url = "{org}"
api_token = {{ env = "TEST_OKTA_TOKEN" }}
subtools = {subtools}
rate_limit_window = "2s"
[connections.other]
base_url = "{org}"
api_token = {{ env = "TEST_OKTA_TOKEN" }}
subtools = ["read"]
rate_limit_window = "2s"
[retry]
base = "10ms"
cap = "50ms"
[telemetry]
listen = "127.0.0.1:{port}"
{settings}
"#
        );
        let file = self.settings_file(port);
        std::fs::write(&file, text).expect("a file can be written");
        let mut command = command();
        command
            .args(["run", "--config"])
            .arg(file)
            .env(BROKER_URL, self.place.url(User::Worker))
            .env("TEST_OKTA_TOKEN", TOKEN)
            .envs(variables.iter().copied());
        (command, port)
    }

    /// Starts a worker without waiting for it.
    pub fn start(&self, start: &Start<'_>) -> Worker {
        let (mut command, port) = self.command(start);
        let process = Process::start("the worker", &mut command);
        Worker { process, port, file: self.settings_file(port) }
    }

    /// Where a file of this name may be written.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn settings_file(&self, port: u16) -> PathBuf {
        self.file(&format!("{port}.toml"))
    }

    /// A worker that is ready.
    pub fn worker(&self) -> Worker {
        self.worker_with(&Start::default())
    }

    /// A worker started this way that is ready.
    pub fn worker_with(&self, start: &Start<'_>) -> Worker {
        let mut worker = self.start(start);
        worker.await_ready();
        worker
    }

    /// A proxy before the broker, and the worker's way to the broker through it.
    pub fn proxied(&self, node: &Node) -> (Proxy, String) {
        let proxy = Proxy::start(free_port(), node.port());
        let url = self.place.url(User::Worker);
        let url = url.replace(&format!(":{}/", node.port()), &format!(":{}/", proxy.port()));
        (proxy, url)
    }

    /// A producer that may do everything.
    pub async fn caller(&self) -> Caller {
        Caller::new(&self.place.url(User::Operator)).await
    }
}

impl Worker {
    /// Whether it says that it is ready.
    pub fn is_ready(&self) -> bool {
        http(self.port, "GET", "/readyz", "").is_some_and(|(status, _)| status == 200)
    }

    /// Waits until it is ready.
    pub fn await_ready(&mut self) {
        let deadline = Instant::now() + WAIT_MAX;
        while !self.is_ready() {
            assert!(self.process.ended().is_none(), "the worker ended: {}", self.process.stderr());
            assert!(Instant::now() < deadline, "the worker is not ready: {}", self.process.stderr());
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Tells it to stop and waits until it has, with nothing left undone.
    pub fn stop(mut self) {
        self.process.signal("TERM");
        let status = self.process.wait();
        assert_eq!(status.code(), Some(0), "{}", self.process.stderr());
    }

    /// The text of its configuration.
    pub fn settings(&self) -> String {
        std::fs::read_to_string(&self.file).expect("it was written")
    }

    /// Writes another configuration in its place.
    pub fn write(&self, settings: &str) {
        std::fs::write(&self.file, settings).expect("a file can be written");
    }

    /// How often it has lost the broker so far, or not found it.
    pub fn lost_so_far(&self) -> usize {
        self.process.stderr().matches("lost the broker").count()
    }

    /// Returns the body of its `/readyz`.
    pub fn readiness(&self) -> String {
        http(self.port, "GET", "/readyz", "").expect("the worker answers").1
    }

    /// Its metrics.
    pub fn metrics(&self) -> String {
        http(self.port, "GET", "/metrics", "").expect("the worker answers").1
    }
}
