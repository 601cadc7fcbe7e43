//! The CPU time of another process, as Linux tells it.

use std::time::Duration;

use anyhow::Context as _;

use crate::support::process::Process;

/// `USER_HZ`: Linux tells CPU times to programs in hundredths of a second, whatever the kernel's own tick.
const TICKS_PER_SECOND: u32 = 100;

/// Where in `/proc/PID/stat` the user and the system time stand, counted behind the command's name.
const UTIME_AND_STIME: std::ops::Range<usize> = 11..13;

/// The CPU time that all threads of a process have used, in the kernel too.
pub fn used_by(process: &Process) -> anyhow::Result<Duration> {
    let path = format!("/proc/{}/stat", process.child.id());
    let text = std::fs::read_to_string(&path).context("failed to read a process's CPU time")?;
    // The command's name stands in parentheses and may hold anything, even `)`.
    let (_, fields) = text.rsplit_once(')').context("no command name")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let times = fields.get(UTIME_AND_STIME).context("too few fields")?;
    let ticks: u32 = times.iter().map(|ticks| ticks.parse::<u32>()).sum::<Result<_, _>>()?;
    Ok(Duration::from_secs(1) * ticks / TICKS_PER_SECOND)
}
