//! What commands say. `println!` and its like panic when nobody reads any more, as in `okta-worker check | head -1`;
//! whoever stops reading has read enough.

use std::io::{ErrorKind, Write};
use std::sync::mpsc::channel;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::domain::text::json_escaped;

/// How long a command that ends waits for whoever reads its last words.
const LAST_WORDS_MAX: Duration = Duration::from_secs(2);

/// Prints a line to standard output.
macro_rules! tell {
    ($($words:tt)*) => {
        $crate::cli::speech::say(format!("{}\n", format_args!($($words)*)).as_bytes())
    };
}

/// Prints a line to standard error.
macro_rules! complain {
    ($($words:tt)*) => {
        $crate::cli::speech::mutter(format!("{}\n", format_args!($($words)*)).as_bytes())
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

/// Prints a text to standard error before the process ends, which it does although nobody reads.
pub(super) fn last_words(text: String) {
    let (said, heard) = channel();
    std::thread::spawn(move || {
        mutter(text.as_bytes());
        let _ = said.send(());
    });
    let _ = heard.recv_timeout(LAST_WORDS_MAX);
}

/// Why something could not be printed to standard output, once: a disk that is full, say.
static UNSAID: Mutex<Option<String>> = Mutex::new(None);

/// Returns why something could not be printed to standard output. That nobody reads any more is no failure.
pub(super) fn unsaid() -> Option<String> {
    UNSAID.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Writes a text, harmless to a terminal: it may hold what came from Okta or from a queue. What is escaped is escaped
/// as JSON has it, so that JSON stays the same JSON for whoever reads it from a pipe.
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
