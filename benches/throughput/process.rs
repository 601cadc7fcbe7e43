//! A process that is measured or needed, ended when it is dropped.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;

/// `USER_HZ`: Linux tells CPU times to programs in hundredths of a second, whatever the kernel's own tick.
const TICKS_PER_SECOND: u32 = 100;

/// Where in `/proc/PID/stat` the user and the system time stand, counted behind the command's name.
const UTIME_AND_STIME: std::ops::Range<usize> = 11..13;

/// A running process.
pub struct Process(Child);

impl Process {
    /// Starts it with both its outputs in a file.
    pub fn start(mut command: Command, log: &Path) -> anyhow::Result<Self> {
        let log = File::create(log).context("failed to make a log file")?;
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        Ok(Self(child.with_context(|| format!("failed to start {command:?}"))?))
    }

    /// Starts it and waits for the first line it prints.
    pub fn start_and_read_line(mut command: Command, log: &Path) -> anyhow::Result<(Self, String)> {
        let log = File::create(log).context("failed to make a log file")?;
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn();
        let mut this = Self(child.with_context(|| format!("failed to start {command:?}"))?);
        let stdout = this.0.stdout.as_mut().context("the output is piped")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        Ok((this, line))
    }

    /// The CPU time that all its threads have used, in the kernel too.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        let path = format!("/proc/{}/stat", self.0.id());
        let text = std::fs::read_to_string(&path).context("failed to read a process's CPU time")?;
        // The command's name stands in parentheses and may hold anything, even `)`.
        let (_, fields) = text.rsplit_once(')').context("no command name")?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let times = fields.get(UTIME_AND_STIME).context("too few fields")?;
        let ticks: u32 = times.iter().map(|ticks| ticks.parse::<u32>()).sum::<Result<_, _>>()?;
        Ok(Duration::from_secs(1) * ticks / TICKS_PER_SECOND)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
