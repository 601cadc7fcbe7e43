//! Output of the commands. `println!` and its like panic on a closed pipe, as in `okta-worker check | head -1`; here a
//! reader that stops reading is no failure.

use std::io::{ErrorKind, Write};
use std::sync::mpsc::channel;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::domain::text::json_escaped;

/// The time that a command that ends waits for its last output to be read.
const LAST_WORDS_MAX: Duration = Duration::from_secs(2);

/// Prints a line to standard output.
macro_rules! tell {
    ($($words:tt)*) => {
        $crate::cli::output::say(format!("{}\n", format_args!($($words)*)).as_bytes())
    };
}

/// Prints a line to standard error.
macro_rules! complain {
    ($($words:tt)*) => {
        $crate::cli::output::mutter(format!("{}\n", format_args!($($words)*)).as_bytes())
    };
}

/// Prints a text to standard output.
pub(super) fn say(text: &[u8]) {
    if let Err(error) = print(std::io::stdout(), text)
        && error.kind() != ErrorKind::BrokenPipe
    {
        UNSAID.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error.to_string());
    }
}

/// Prints a text to standard error.
pub(super) fn mutter(text: &[u8]) {
    let _ = print(std::io::stderr(), text); // where else should it be said?
}

/// Prints a text to standard error before the process ends; gives up if nothing reads it.
pub(super) fn last_words(text: String) {
    let (said, heard) = channel();
    std::thread::spawn(move || {
        mutter(text.as_bytes());
        let _ = said.send(());
    });
    let _ = heard.recv_timeout(LAST_WORDS_MAX);
}

/// The first reason that printing to standard output failed, such as a full disk.
static UNSAID: Mutex<Option<String>> = Mutex::new(None);

/// Returns the reason that printing to standard output failed. A closed pipe is no failure.
pub(super) fn unsaid() -> Option<String> {
    UNSAID.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Writes a text in a form that is harmless to a terminal: it may hold data from Okta or a queue. Escapes as in JSON,
/// so that JSON stays equivalent for a program that reads it from a pipe.
fn print(mut out: impl Write, text: &[u8]) -> std::io::Result<()> {
    let text = String::from_utf8_lossy(text);
    out.write_all(json_escaped(&text).as_bytes()).and_then(|()| out.flush())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_does_nothing_to_a_terminal_and_stays_the_same_json() {
        let value =
            serde_json::json!({ "name\u{2066}": "Jane \u{202e}\u{e0041}\u{9b}31m \u{1b}[31m\u{200b}\n" });
        let mut out = Vec::new();
        print(&mut out, format!("{value}\n").as_bytes()).unwrap();
        let printed = String::from_utf8(out).unwrap();
        assert!(printed.trim_end().bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '), "{printed}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&printed).unwrap(), value);
        let mut out = Vec::new();
        print(&mut out, "a\tb\u{1b}[2J\r\nZoë\n".as_bytes()).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "a\tb\\u001b[2J\\u000d\nZoë\n");
    }
}
