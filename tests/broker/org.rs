//! The simulated org, served by the binary's own `sandbox` command, and its back door.

use std::time::Instant;

use serde_json::Value;

use super::child::{LOOK_AGAIN, Process, WAIT_MAX, command, http};

/// The only token the org takes.
pub const TOKEN: &str = "00planted-api-token-of-the-tests";

/// A simulated org.
pub struct Org {
    _process: Process,
    port: u16,
}

impl Org {
    /// Starts one with these arguments of `okta-worker sandbox` on top.
    pub fn start(arguments: &[&str]) -> Self {
        let mut command = command();
        command.args(["sandbox", "--listen", "127.0.0.1:0", "--token", TOKEN]).args(arguments);
        let mut process = Process::start("the sandbox", &mut command);
        let deadline = Instant::now() + WAIT_MAX;
        let port = loop {
            let said = process.stdout();
            if let Some((_, port)) = said.lines().next().and_then(|line| line.rsplit_once(':')) {
                break port.trim().parse().expect("the sandbox says where it listens");
            }
            assert!(process.ended().is_none(), "the sandbox ended: {}", process.stderr());
            assert!(Instant::now() < deadline, "the sandbox does not say where it listens");
            std::thread::sleep(LOOK_AGAIN);
        };
        Self { _process: process, port }
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn ask(&self, path: &str) -> Vec<Value> {
        let (status, body) = http(self.port, "GET", path, "").expect("the sandbox answers");
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).expect("the back door speaks JSON")
    }

    /// What was really done so far, in order.
    pub fn effects(&self) -> Vec<String> {
        let kind = |effect: &Value| effect["kind"].as_str().expect("an effect has a kind").to_owned();
        self.ask("/sandbox/effects").iter().map(kind).collect()
    }

    /// How many requests it has seen so far, refused ones included.
    pub fn requests(&self) -> u64 {
        let sum = |counter: &Value| {
            ["accepted", "refused", "refused_concurrent"]
                .iter()
                .map(|name| counter[name].as_u64().expect("a counter counts"))
                .sum::<u64>()
        };
        self.ask("/sandbox/counters").iter().map(sum).sum()
    }

    /// How many requests it has refused because a window was spent.
    pub fn refused(&self) -> u64 {
        let counters = self.ask("/sandbox/counters");
        counters.iter().map(|counter| counter["refused"].as_u64().expect("a counter counts")).sum()
    }

    /// Orders a fault.
    pub fn fault(&self, fault: &Value) {
        let answer = http(self.port, "POST", "/sandbox/faults", &fault.to_string());
        assert_eq!(answer.expect("the sandbox answers").0, 204, "{fault}");
    }
}
