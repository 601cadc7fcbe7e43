//! What commands say. `println!` and its like panic when nobody reads any more, as in `okta-worker check | head -1`;
//! whoever stops reading has read enough.

use std::io::Write;
use std::sync::mpsc::channel;
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
    print(std::io::stdout(), text);
}

/// Prints a text to standard error.
pub(super) fn mutter(text: &[u8]) {
    print(std::io::stderr(), text);
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

fn print(mut out: impl Write, text: &[u8]) {
    let _ = out.write_all(text).and_then(|()| out.flush());
}
