//! A worker whose standard error nobody reads.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take that is waited for.
const WAIT_MAX: Duration = Duration::from_secs(60);

const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The worker, killed when the test lets go of it.
struct Worker(Child);

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Looks until there is something.
fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + WAIT_MAX;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// A stream with no room left, and the end that nobody reads.
fn full_stream() -> (UnixStream, UnixStream) {
    let (mut full, unread) = UnixStream::pair().unwrap();
    full.set_nonblocking(true).unwrap();
    let filled = loop {
        if let Err(error) = full.write_all(&[b'.'; 4096]) {
            break error.kind();
        }
    };
    assert_eq!(filled, ErrorKind::WouldBlock);
    full.set_nonblocking(false).unwrap();
    (full, unread)
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(WAIT_MAX)).unwrap();
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
        .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

fn run(config: &str, stderr: UnixStream) -> (Worker, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("worker.toml");
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_okta-worker"));
    command.env_clear().arg("--config").arg(&file).arg("run").stdin(Stdio::null()).stdout(Stdio::null());
    let child = command.stderr(Stdio::from(OwnedFd::from(stderr))).spawn().unwrap();
    (Worker(child), dir)
}

fn ended(worker: &mut Worker) -> ExitStatus {
    wait_for("the worker's end", || worker.0.try_wait().unwrap())
}

#[test]
fn a_worker_lives_works_and_ends_although_nobody_reads_its_log() {
    let (full, _unread) = full_stream();
    let (telemetry, broker) = (free_port(), TcpListener::bind("127.0.0.1:0").unwrap());
    // The token in the file makes for a warning at the start.
    let config = format!(
        "[broker]\nurl = \"amqp://guest:guest@127.0.0.1:{}/%2f\"\n[telemetry]\nlisten = \"127.0.0.1:{telemetry}\"\n\
         [connections.prod]\ndomain = \"acme.okta.com\"\napi_token = \"t0k\"\nsubtools = \"read\"\n",
        broker.local_addr().unwrap().port(),
    );
    let (mut worker, _dir) = run(&config, full);
    let healthy = wait_for("/healthz", || get(telemetry, "/healthz"));
    assert!(healthy.starts_with("HTTP/1.1 200 "), "{healthy}");
    // It goes to the broker again and again, although each time it has something to say.
    for _ in 0..3 {
        drop(broker.accept().unwrap());
    }
    let metrics = get(telemetry, "/metrics").unwrap();
    assert!(metrics.contains("\nokta_worker_log_lines_dropped_total 0\n"), "{metrics}");
    let told = Command::new("kill").arg(worker.0.id().to_string()).status().unwrap();
    assert!(told.success());
    assert_eq!(ended(&mut worker).code(), Some(0));
}

#[test]
fn a_worker_that_is_refused_ends_although_nobody_reads_why() {
    let (full, _unread) = full_stream();
    let (mut worker, _dir) = run("[broker]\nnonsense = 1\n", full);
    assert_eq!(ended(&mut worker).code(), Some(2));
}
