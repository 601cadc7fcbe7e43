//! What commands say. `println!` and its like panic when nobody reads any more, as in `okta-worker check | head -1`;
//! whoever stops reading has read enough.

use std::io::{ErrorKind, Write};
use std::sync::mpsc::channel;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

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

fn print(mut out: impl Write, text: &[u8]) -> std::io::Result<()> {
    out.write_all(text).and_then(|()| out.flush())
}
