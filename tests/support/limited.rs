//! A command whose files may not grow beyond a size: what a full disk is, for any user and without a disk.

use std::process::Command;

/// The same command where no file may have more than so many KiB.
pub fn limited(command: &Command, kib: u32) -> Command {
    let mut limited = Command::new("bash");
    limited.args(["-c", &format!("ulimit -f {kib} && exec \"$0\" \"$@\"")]);
    limited.arg(command.get_program()).args(command.get_args());
    if let Some(folder) = command.get_current_dir() {
        limited.current_dir(folder);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    limited
}
