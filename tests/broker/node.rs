//! The broker of this test process: a private node, or the one that the environment names.
//!
//! A node of our own is stopped by a small shell that waits for the pipe from us to end: so it goes away
//! however this process ends.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::{Mutex, MutexGuard};

/// A broker user; its name is its password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum User {
    /// The worker's own.
    Worker,
    /// A producer that may publish for connection `prod` and no more.
    Caller,
    /// One that may do everything.
    Operator,
}

impl User {
    fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Caller => "caller",
            Self::Operator => "operator",
        }
    }
}

/// A node that `tests/support/broker` started.
pub struct Node {
    dir: PathBuf,
    port: u16,
    /// Ends the node when this process ends, and with it the pipe to it.
    _keeper: Option<Child>,
}

/// A second node, this test's own for as long as this is there: it may be stopped, killed and starved while all
/// other tests go on.
pub struct Alone {
    node: &'static Node,
    _turn: MutexGuard<'static, ()>,
}

impl Deref for Alone {
    type Target = Node;

    fn deref(&self) -> &Node {
        self.node
    }
}

/// The broker that the tests use.
pub enum Broker {
    /// Ours: with virtual hosts and users.
    Ours(Node),
    /// Somebody's, with one virtual host, so that the tests take turns.
    Given { url: String, turn: Mutex<()> },
}

/// The broker of this process, started when it is asked for first.
pub fn broker() -> &'static Broker {
    static BROKER: OnceLock<Broker> = OnceLock::new();
    BROKER.get_or_init(|| {
        let given = std::env::var("AMQP_URL").ok();
        let dir = std::env::var_os("OKTA_WORKER_TEST_BROKER_DIR").map(PathBuf::from);
        match (given, dir) {
            (Some(_), Some(dir)) => Broker::Ours(Node::found(dir, None)),
            (Some(url), None) => Broker::Given { url, turn: Mutex::new(()) },
            (None, _) => Broker::Ours(Node::start("shared")),
        }
    })
}

/// The node, when it is ours; says so when it is not.
pub fn ours() -> Option<&'static Node> {
    match broker() {
        Broker::Ours(node) => Some(node),
        Broker::Given { .. } => {
            println!("not run: AMQP_URL names a broker that is not ours to set up or stop");
            None
        }
    }
}

/// The second node, once nobody else has it; none where the broker is not ours, and it says so.
pub async fn alone() -> Option<Alone> {
    static TURN: Mutex<()> = Mutex::const_new(());
    static NODE: OnceLock<Node> = OnceLock::new();
    ours()?;
    let turn = TURN.lock().await;
    Some(Alone { node: NODE.get_or_init(|| Node::start("alone")), _turn: turn })
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/broker")
}

impl Node {
    fn start(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("okta-worker-broker-{}-{name}", std::process::id()));
        let started = Command::new(script()).arg("start").arg(&dir).stdin(Stdio::null()).output();
        let started = started.expect("`tests/support/broker` can be run");
        assert!(
            started.status.success(),
            "not run: AMQP_URL is not set, and no node can be started: {}",
            String::from_utf8_lossy(&started.stderr)
        );
        let keeper = Command::new("setsid")
            .args(["sh", "-c", r#"cat >/dev/null; "$0" stop "$1"; rm -rf "$1""#])
            .arg(script())
            .arg(&dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("`setsid` can be run");
        Self::found(dir, Some(keeper))
    }

    fn found(dir: PathBuf, keeper: Option<Child>) -> Self {
        let env = std::fs::read_to_string(dir.join("env")).expect("a started node has its `env`");
        let port = env.lines().find_map(|line| line.strip_prefix("export BROKER_PORT='")?.strip_suffix('\''));
        let port = port.and_then(|port| port.parse().ok()).expect("`env` names the port");
        Self { dir, port, _keeper: keeper }
    }

    /// Runs `tests/support/broker` and returns what it says.
    pub fn run(&self, command: &str, arguments: &[&str]) -> String {
        let ran = Command::new(script()).arg(command).arg(&self.dir).args(arguments).output();
        let ran = ran.expect("`tests/support/broker` can be run");
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert!(ran.status.success(), "{command} {arguments:?}: {said}");
        String::from_utf8(ran.stdout).expect("the broker's tools speak UTF-8")
    }

    /// How many messages of a queue are delivered and not acknowledged.
    pub fn unacknowledged(&self, place: &Place, queue: &str) -> usize {
        let vhost = place.vhost.as_deref().expect("a node of ours has virtual hosts");
        let count = format!(
            "{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<\"{vhost}\">>, queue, <<\"{queue}\">>)), \
             [{{_, N}}] = rabbit_amqqueue:info(Q, [messages_unacknowledged]), N."
        );
        self.run("eval", &[&count]).trim().parse().expect("a queue has a number of messages")
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// A broker short of memory, until this is dropped.
pub struct Alarm<'a>(&'a Alone);

impl<'a> Alarm<'a> {
    /// Raises it.
    pub fn raise(node: &'a Alone) -> Self {
        Self::watermark(node, "0.000001");
        Self(node)
    }

    fn watermark(node: &Node, fraction: &str) {
        node.run("eval", &[&format!("vm_memory_monitor:set_vm_memory_high_watermark({fraction}).")]);
    }
}

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        Self::watermark(self.0, "0.4");
    }
}

/// A virtual host for one test.
pub struct Place {
    /// Its name; of a broker that is not ours, none is known.
    pub vhost: Option<String>,
    url: String,
    /// Where there is no more than one place.
    _turn: Option<MutexGuard<'static, ()>>,
}

impl Place {
    /// A virtual host that nobody else uses, empty.
    pub async fn take() -> Self {
        match broker() {
            Broker::Ours(node) => Self::on(node),
            Broker::Given { url, turn } => {
                let turn = turn.lock().await;
                crate::caller::wipe(url).await;
                Self { vhost: None, url: url.clone(), _turn: Some(turn) }
            }
        }
    }

    /// The same of this node.
    pub fn on(node: &Node) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let vhost = format!("t{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let url = node.run("vhost", &[&vhost]).trim().to_owned();
        Self { vhost: Some(vhost), url, _turn: None }
    }

    /// The way in for one more broker user, who may configure, write and read these.
    pub fn url_with(&self, node: &Node, [configure, write, read]: [&str; 3]) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let vhost = self.vhost.as_deref().expect("a node of ours has virtual hosts");
        let user = format!("{vhost}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let add = format!(
            "ok = rabbit_auth_backend_internal:add_user(<<\"{user}\">>, <<\"{user}\">>, <<\"test\">>), \
             rabbit_auth_backend_internal:set_permissions(<<\"{user}\">>, <<\"{vhost}\">>, <<\"{configure}\">>, \
             <<\"{write}\">>, <<\"{read}\">>, <<\"test\">>)."
        );
        node.run("eval", &[&add]);
        self.url.replace("worker:worker@", &format!("{user}:{user}@"))
    }

    /// The way in for a user; a broker that is not ours has one for all.
    pub fn url(&self, user: User) -> String {
        match self.vhost {
            None => self.url.clone(),
            Some(_) => self.url.replace("worker:worker@", &format!("{0}:{0}@", user.name())),
        }
    }
}
