//! Shared code of the commands: the walk along the queue, the renewal of often-returned messages, and stopping.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::config::Config;
use crate::domain::json;
use crate::domain::message::{Address, Post, Posted};
use crate::domain::text::json_escaped;
use crate::domain::topology::DEAD;
use crate::event::{Event, Observer};
use crate::rabbit::{Shelf, own_user};

use super::choice::Choice;
use super::entry::Entry;
use super::{FAILED, INTERRUPTED, Refusal};

/// The number of returns after which a copy at the end of the queue replaces a message, so that it is not returned
/// again. RabbitMQ 4 drops a message at the 21st delivery; a killed walk counts too, so a wide margin remains.
const RENEWED_FROM: u32 = 8;

/// The reason that a walk ended early.
pub(super) enum Stop {
    /// A signal told the command to stop.
    Interrupted,
    /// The reader of the output is gone.
    Unread,
    /// The broker delivers no more messages.
    Lost(String),
}

impl Stop {
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
pub(super) struct Desk {
    /// The queue.
    pub shelf: Shelf,
    /// The worker's own broker user.
    pub own_user: String,
    kept: Duration,
    stopping: watch::Receiver<bool>,
}

/// An observer that reports when the broker takes no messages.
struct Voice;

impl Observer for Voice {
    fn note(&self, event: &Event<'_>) {
        if let Event::Blocked { blocked: true, why } = event {
            complain!("okta-worker: the broker takes no messages ({why}): waiting");
        }
    }
}

impl Desk {
    /// Connects.
    pub async fn open(config: &Config) -> Result<Self, Refusal> {
        let own_user = own_user(config.broker.url.expose()).map_err(|ended| Refusal(ended.to_string()))?;
        let failed = |error| Refusal(format!("failed to listen for signals: {error}"));
        let [mut terminate, mut interrupt] = [
            signal(SignalKind::terminate()).map_err(failed)?,
            signal(SignalKind::interrupt()).map_err(failed)?,
        ];
        let (stop, stopping) = watch::channel(false);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                if stop.send_replace(true) {
                    std::process::exit(INTERRUPTED.into()); // told twice: the broker returns what was taken
                }
            }
        });
        let observer: Arc<dyn Observer> = Arc::new(Voice);
        let shelf = Shelf::open(&config.broker, &observer).await.map_err(Refusal)?;
        Ok(Self { shelf, own_user, kept: config.broker.dead_ttl, stopping })
    }

    /// Returns the next selected message, and leaves all messages before it parked.
    pub async fn next(&mut self, choice: &mut Choice) -> Result<Option<Entry>, Stop> {
        while !choice.is_spent() {
            let mut stopping = self.stopping.clone();
            let found = tokio::select! {
                biased;
                _ = stopping.wait_for(|is_told| *is_told) => return Err(Stop::Interrupted),
                found = self.shelf.next() => found.map_err(Stop::Lost)?,
            };
            let Some(found) = found else { return Ok(None) };
            let entry = Entry::new(found, &self.own_user);
            if choice.takes(&entry) {
                return Ok(Some(entry));
            }
            self.leave_alone(entry).await;
        }
        Ok(None)
    }

    /// Leaves a message parked: in its place, or as a copy with no returns counted yet.
    pub async fn leave_alone(&mut self, entry: Entry) {
        if entry.parked.looks >= RENEWED_FROM {
            let properties = entry.parked.renewed(&self.own_user, self.kept, Timestamp::now());
            let to = Address::Queue(DEAD.to_owned());
            let posted = self.shelf.post(&Post { to, properties, body: entry.body }).await;
            if posted == Ok(Posted::Confirmed) {
                entry.slip.take_off().await; // killed before this, there are two of it: better than none
                return;
            }
        }
        self.shelf.leave_alone(entry.slip);
    }

    /// Waits for the signal to stop.
    pub async fn told_to_stop(&self) -> Stop {
        let _ = self.stopping.clone().wait_for(|is_told| *is_told).await;
        Stop::Interrupted
    }
}

/// Prints a line.
pub(super) fn print(line: &str) -> Result<(), Stop> {
    writeln!(std::io::stdout(), "{}", json_escaped(line)).map_err(|_| Stop::Unread)
}

/// Prints a value as a line of JSON.
pub(super) fn print_json(value: &impl Serialize) -> Result<(), Stop> {
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
