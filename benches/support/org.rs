//! The simulated org, served by the worker's own binary.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use super::process::Process;

/// The worker's binary, built as a release is.
pub const WORKER: &str = env!("CARGO_BIN_EXE_okta-worker");

/// The token of whoever is measured. The org takes any.
pub const TOKEN: &str = "bench-token";

#[derive(Deserialize)]
struct User {
    id: String,
}

/// A simulated org, gone when it is dropped.
pub struct Org {
    _process: Process,
    base_url: String,
}

impl Org {
    /// Starts one with these arguments of `okta-worker sandbox` on top.
    pub fn start(arguments: &[String], folder: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(WORKER);
        command.args(["sandbox", "--listen", "127.0.0.1:0"]).args(arguments);
        let (process, line) = Process::start_and_read_line(command, &folder.join("sandbox.log"))?;
        let at = line.find("http://").with_context(|| format!("the sandbox said `{line}`"))?;
        Ok(Self { _process: process, base_url: line[at..].trim().to_owned() })
    }

    /// Scheme, host and port.
    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    /// The ids of its first users.
    pub async fn user_ids(&self) -> anyhow::Result<Vec<String>> {
        let answer = reqwest::Client::new()
            .get(format!("{}/api/v1/users?limit=200", self.base_url))
            .header("authorization", format!("SSWS {TOKEN}"))
            .send()
            .await?;
        let body = answer.error_for_status()?.bytes().await?;
        let found: Vec<User> = serde_json::from_slice(&body)?;
        ensure!(!found.is_empty(), "the org has no users");
        Ok(found.into_iter().map(|user| user.id).collect())
    }
}
