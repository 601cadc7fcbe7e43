//! Shared code of the commands: the walk along the queue, the renewal of often-returned messages, and stopping.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::config::Config;
use crate::domain::json;
use crate::domain::message::{Address, Publish, Published};
use crate::domain::text::json_escaped;
use crate::domain::topology::DEAD;
use crate::event::{Event, Observer};
use crate::rabbit::{DeadLetters, own_user};

use super::choice::Choice;
use super::entry::ParkedEntry;
use crate::cli::exit::{FAILED, INTERRUPTED, NotBegun};
use crate::cli::signals::StopRequests;

/// The number of returns after which a copy at the end of the queue replaces a message, so that it is not returned
/// again. RabbitMQ 4 drops a message at the 21st delivery; a killed walk counts too, so a wide margin remains.
const RENEWED_FROM: u32 = 8;

/// The reason that a walk ended early.
pub(super) enum WalkEnd {
    /// A signal told the command to stop.
    Interrupted,
    /// The reader of the output is gone.
    Unread,
    /// The broker delivers no more messages.
    Lost(String),
}

impl WalkEnd {
    /// Reports the reason, and returns the exit code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Interrupted => {
                complain!("okta-worker: interrupted; what was not done is parked as before");
                INTERRUPTED
            }
            Self::Unread => FAILED,
            Self::Lost(why) => {
                complain!("okta-worker: {why}; what was not done is parked as before");
                FAILED
            }
        }
    }
}

/// The walk along the queue of parked messages.
pub(super) struct DeadSession {
    /// The queue.
    pub dead_letters: DeadLetters,
    /// The worker's own broker user.
    pub own_user: String,
    kept: Duration,
    stop: StopRequests,
}

/// An observer that reports when the broker takes no messages.
struct BlockedNotice;

impl Observer for BlockedNotice {
    fn note(&self, event: &Event<'_>) {
        if let Event::Blocked { blocked: true, why } = event {
            complain!("okta-worker: the broker takes no messages ({why}): waiting");
        }
    }
}

impl DeadSession {
    /// Connects.
    pub async fn open(config: &Config) -> Result<Self, NotBegun> {
        let own_user = own_user(config.broker.url.expose()).map_err(|ended| NotBegun(ended.to_string()))?;
        let stop = StopRequests::listen()?;
        let mut again = stop.clone();
        tokio::spawn(async move {
            again.reach(2).await;
            std::process::exit(INTERRUPTED.into()); // the broker returns what was taken
        });
        let observer: Arc<dyn Observer> = Arc::new(BlockedNotice);
        let dead_letters = DeadLetters::open(&config.broker, &observer).await.map_err(NotBegun)?;
        Ok(Self { dead_letters, own_user, kept: config.broker.dead_ttl, stop })
    }

    /// Returns the next selected message, and leaves all messages before it parked.
    pub async fn next(&mut self, choice: &mut Choice) -> Result<Option<ParkedEntry>, WalkEnd> {
        while !choice.is_spent() {
            let found = tokio::select! {
                biased;
                () = self.stop.reach(1) => return Err(WalkEnd::Interrupted),
                found = self.dead_letters.next() => found.map_err(WalkEnd::Lost)?,
            };
            let Some(found) = found else { return Ok(None) };
            let entry = ParkedEntry::new(found, &self.own_user);
            if choice.takes(&entry) {
                return Ok(Some(entry));
            }
            self.leave_alone(entry).await;
        }
        Ok(None)
    }

    /// Leaves a message parked: in its place, or as a copy with no returns counted yet.
    pub async fn leave_alone(&mut self, entry: ParkedEntry) {
        if entry.parked.looks >= RENEWED_FROM {
            let properties = entry.parked.renewed(&self.own_user, self.kept, Timestamp::now());
            let to = Address::Queue(DEAD.to_owned());
            let posted = self.dead_letters.post(&Publish { to, properties, body: entry.body }).await;
            if posted == Ok(Published::Confirmed) {
                entry.slip.take_off().await; // killed before this, there are two of it: better than none
                return;
            }
        }
        self.dead_letters.leave_alone(entry.slip);
    }

    /// Waits for the signal to stop.
    pub async fn told_to_stop(&self) -> WalkEnd {
        self.stop.clone().reach(1).await;
        WalkEnd::Interrupted
    }
}

/// Prints a line.
pub(super) fn print(line: &str) -> Result<(), WalkEnd> {
    writeln!(std::io::stdout(), "{}", json_escaped(line)).map_err(|_| WalkEnd::Unread)
}

/// Prints a value as a line of JSON.
pub(super) fn print_json(value: &impl Serialize) -> Result<(), WalkEnd> {
    print(&String::from_utf8_lossy(&json::to_vec(value)))
}

/// Reports the requested ids that were not found; returns true if there were any.
pub(super) fn name_missing(choice: &Choice) -> bool {
    let mut any = false;
    for id in choice.missing() {
        complain!(
            "okta-worker: no parked message that was asked for has the id `{}`",
            super::entry::plain(id)
        );
        any = true;
    }
    any
}
