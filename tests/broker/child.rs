//! Processes of the binary under test, killed when the test lets go of them.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::TcpListener;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long anything may take that is waited for; generous, because a machine of two cores runs a broker,
/// workers and other tests besides.
pub const WAIT_MAX: Duration = Duration::from_secs(60);

/// How often a test looks again.
pub const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A process, and what it has written so far.
pub struct Process {
    child: Child,
    name: &'static str,
    stdout: Written,
    stderr: Written,
    /// Read until the process closes its streams.
    readers: Vec<JoinHandle<()>>,
}

/// What a process has written to one of its streams.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<String>>);

impl Written {
    fn text(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn read(&self, stream: impl std::io::Read + Send + 'static) -> JoinHandle<()> {
        let written = self.clone();
        std::thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            while matches!(stream.read_until(b'\n', &mut line), Ok(1..)) {
                let mut text = written.0.lock().unwrap_or_else(PoisonError::into_inner);
                text.push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        })
    }
}

/// The binary, with an environment that holds nothing of the worker's.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_okta-worker"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("OKTA_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
    command
}

impl Process {
    /// Starts the command.
    pub fn start(name: &'static str, command: &mut Command) -> Self {
        Self::start_reading(name, command, Stdio::null())
    }

    /// Starts the command with this standard input.
    pub fn start_reading(name: &'static str, command: &mut Command, stdin: impl Into<Stdio>) -> Self {
        let piped = command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = piped.spawn().expect("the binary under test can be run");
        let (stdout, stderr) = (Written::default(), Written::default());
        let readers = vec![
            stdout.read(child.stdout.take().expect("it is piped")),
            stderr.read(child.stderr.take().expect("it is piped")),
        ];
        Self { child, name, stdout, stderr, readers }
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Its exit status, once it has one; all that it has written is there then.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().expect("a child of ours can be waited for")?;
        self.readers.drain(..).for_each(|reader| reader.join().expect("a reader ends with its stream"));
        Some(status)
    }

    /// Waits until it has ended.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(Instant::now() < deadline, "{} did not end:\n{}", self.name, self.stderr());
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(sent.expect("`kill` can be run").success(), "{} is gone", self.name);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            /// Enough to see what the process was about.
            const LINES_MAX: usize = 40;
            let stderr = self.stderr();
            let lines: Vec<_> = stderr.lines().rev().take(LINES_MAX).collect();
            eprintln!("--- the last lines of {}:", self.name);
            lines.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

fn read(mut stream: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("it writes UTF-8");
        text
    })
}

/// What a command that ends by itself came to: exit code, standard output, standard error.
pub fn ran(command: &mut Command) -> (i32, String, String) {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary under test can be run");
    // Read meanwhile: who has much to say waits until it is read.
    let stdout = read(child.stdout.take().expect("it is piped"));
    let stderr = read(child.stderr.take().expect("it is piped"));
    let deadline = Instant::now() + WAIT_MAX;
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child of ours can be waited for") {
            break status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
        }
        std::thread::sleep(LOOK_AGAIN);
    };
    let text = |reading: JoinHandle<String>| reading.join().expect("it writes UTF-8");
    let (stdout, stderr) = (text(stdout), text(stderr));
    (status.code().unwrap_or(-1), stdout, stderr)
}

/// Asks over HTTP/1.1 and returns status and body, or nothing when nobody answers.
pub fn http(port: u16, method: &str, path: &str, body: &str) -> Option<(u16, String)> {
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(WAIT_MAX)).expect("a timeout can be set");
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {length}\r\n");
    stream.write_all(format!("{head}connection: close\r\n\r\n{body}").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    // Bodies of a known length only: neither the worker nor the sandbox's back door sends another.
    Some((status, body.to_owned()))
}

/// A port of the loopback interface that was free a moment ago, below those that systems hand out.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = 12_000 + u16::try_from(std::process::id() % 8_000).expect("it is below 8,000");
    loop {
        let port = start + NEXT.fetch_add(1, Ordering::Relaxed) % 2_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
