//! The log line of a panic: its location, and its message only if that is a constant.
//!
//! A formatted message may hold values, such as the error of an `expect`, and those may be secrets.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::Write as _;
use std::panic::{self, PanicHookInfo};

/// Sends panics to the log, which never waits for its reader, or to stderr if no log is set up. `RUST_BACKTRACE=1`
/// adds a backtrace, which holds no values.
pub fn report() {
    panic::set_hook(Box::new(|panicked| {
        let calls = Backtrace::capture();
        let line = match calls.status() {
            BacktraceStatus::Captured => format!("{}\n{calls}", line(panicked)),
            _ => line(panicked),
        };
        if tracing::dispatcher::has_been_set() {
            tracing::error!("{line}");
        } else {
            let _ = writeln!(std::io::stderr(), "okta-worker: {line}");
        }
    }));
}

fn line(panicked: &PanicHookInfo<'_>) -> String {
    let place = panicked.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    let message = panicked.payload().downcast_ref::<&'static str>();
    let message = message.map_or("its message may hold values and is not shown", |text| text);
    format!("a bug: panicked at {place}: {message}")
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn a_message_that_was_put_together_is_not_shown() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let written = Arc::clone(&lines);
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panicked| written.lock().unwrap().push(line(panicked))));
        let failed = |text: &str| text.parse::<u8>().map_err(|_| text.to_owned()).expect("it cannot fail");
        let _ = panic::catch_unwind(|| failed("hunter2"));
        let _ = panic::catch_unwind(|| panic!("a constant"));
        panic::set_hook(before);
        // Other tests may panic meanwhile, some on purpose.
        let lines: Vec<_> =
            lines.lock().unwrap().iter().filter(|line| line.contains("panics.rs")).cloned().collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].ends_with("may hold values and is not shown"), "{lines:?}");
        assert!(lines[1].ends_with(": a constant"), "{lines:?}");
    }
}
