//! A process that is measured or needed, ended when it is dropped.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;

/// A running process.
pub struct Process {
    /// What the operating system calls it.
    pub child: Child,
}

impl Process {
    /// Starts it with both its outputs in a file.
    pub fn start(mut command: Command, log: &Path) -> anyhow::Result<Self> {
        let log = File::create(log).context("failed to make a log file")?;
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        Ok(Self { child: child.with_context(|| format!("failed to start {command:?}"))? })
    }

    /// Starts it and waits for the first line it prints.
    pub fn start_and_read_line(mut command: Command, log: &Path) -> anyhow::Result<(Self, String)> {
        let log = File::create(log).context("failed to make a log file")?;
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn();
        let mut this = Self { child: child.with_context(|| format!("failed to start {command:?}"))? };
        let stdout = this.child.stdout.as_mut().context("the output is piped")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        Ok((this, line))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
