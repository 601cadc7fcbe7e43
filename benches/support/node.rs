//! The broker: one that is given, or a private node that lives as long as the measurement.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

/// What starts and stops a node in a folder.
pub const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/broker");

/// A broker.
pub enum Node {
    /// Somebody else's, by its URL.
    Given(String),
    /// Ours.
    Private {
        /// Where it keeps everything.
        folder: PathBuf,
        /// How to reach it.
        url: String,
    },
}

impl Node {
    /// Starts a node in a folder.
    pub fn start(folder: &Path) -> anyhow::Result<Self> {
        let started = Command::new(SCRIPT).arg("start").arg(folder).status();
        ensure!(started.context("failed to run tests/support/broker")?.success(), "failed to start a node");
        let this = |url| Self::Private { folder: folder.to_owned(), url };
        let env = std::fs::read_to_string(folder.join("env")).context("the node has no `env`")?;
        let url = env.lines().find_map(|line| line.strip_prefix("export AMQP_URL='")?.strip_suffix('\''));
        Ok(this(url.context("the node told no AMQP_URL")?.to_owned()))
    }

    /// How to reach it.
    pub fn url(&self) -> &str {
        match self {
            Self::Given(url) | Self::Private { url, .. } => url,
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Self::Private { folder, .. } = self {
            let _ = Command::new(SCRIPT).arg("stop").arg(folder).status();
        }
    }
}
