//! `okta-worker dead replay`: sends parked messages back to their work queues.
//!
//! A copy is published and confirmed before the parked message is removed, so it is never lost. If the command is
//! killed in between, the message is both parked and in its queue, and may be replayed again: the worker treats it as
//! the same invocation, redelivered.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use crate::config::Config;
use crate::domain::ids::{ConnectionName, Lane};
use crate::domain::message::{Address, Publish, Published};
use crate::domain::topology::{INVOCATIONS, work_key, work_queue};
use crate::rabbit::DeadLetterHandle;
use crate::worker::ports::Outbox as _;

use super::choice::{Choice, Filters};
use super::entry::{ParkedEntry, plain};
use super::form::Form;
use super::session::{DeadSession, WalkEnd, name_missing, print, print_json};
use crate::cli::exit::{DONE, FAILED, NotBegun};

/// The most copies in flight: as many as the publisher has channels.
const ON_THEIR_WAY_MAX: usize = 32;

/// The default replay rate per minute: the size of a bucket of a small org.
const RATE: &str = "600/min";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Ids of invocations, as `list` shows them.
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// Replays all parked messages.
    #[arg(long)]
    all: bool,
    /// Sends the messages to this lane instead of their own. In `bulk`, only the message's own deadline applies.
    #[arg(long, value_name = "LANE", value_parser = lane)]
    lane: Option<Lane>,
    /// The most messages per minute (`600/min`) or per second (`10/s`); `0`: as fast as the broker confirms.
    #[arg(long, value_name = "N/min", default_value = RATE)]
    rate: ReplayRate,
    /// Only lists the messages that would be replayed, and those that cannot be, with the reason.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    form: Form,
    #[command(flatten)]
    filters: Filters,
}

impl Arguments {
    pub fn choice(&self) -> Result<Choice, NotBegun> {
        Choice::deliberate(&self.ids, &self.filters, self.all)
    }
}

fn lane(text: &str) -> Result<Lane, String> {
    Lane::parse(text).ok_or_else(|| "known are `interactive` and `bulk`".to_owned())
}

/// The replay rate, as the interval between two messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ReplayRate(Duration);

impl FromStr for ReplayRate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = match text.split_once('/') {
            Some((number, "min" | "m")) => (number, Duration::from_secs(60)),
            Some((number, "s")) => (number, Duration::from_secs(1)),
            None => (text, Duration::from_secs(60)),
            Some(_) => return Err("must look like `600/min`, `10/s` or `0`".to_owned()),
        };
        let number: u32 = number.parse().map_err(|_| format!("`{number}` is not a number of messages"))?;
        Ok(Self(unit.checked_div(number).unwrap_or_default()))
    }
}

/// The outcome of a copy: its report, its result, and the parked message if it stays.
type Landed = (ReplayLine, Result<(), String>, Option<DeadLetterHandle>);

/// The data to print of a message.
struct ReplayLine {
    id: Option<String>,
    name: String,
    key: Option<String>,
    note: Option<String>,
}

pub(super) async fn run(
    session: &mut DeadSession,
    config: &Config,
    arguments: &Arguments,
    choice: Choice,
) -> Result<u8, WalkEnd> {
    let mut replay = ReplayCommand {
        config,
        arguments,
        on_their_way: JoinSet::new(),
        queues: HashMap::new(),
        refused: HashSet::new(),
        done: 0,
        failed: 0,
    };
    let mut choice = choice;
    let ended = replay.walk(session, &mut choice).await;
    let landed = replay.land(session, 0).await; // what was begun is finished, whatever stopped the walk
    let (done, failed) = (replay.done, replay.failed);
    match arguments.dry_run {
        true => complain!("okta-worker: {done} would be replayed, {failed} cannot be; nothing was"),
        false => complain!("okta-worker: {done} replayed, {failed} failed and stay parked"),
    }
    ended.and(landed)?;
    let is_missing = name_missing(&choice);
    Ok(if failed > 0 || is_missing { FAILED } else { DONE })
}

struct ReplayCommand<'a> {
    config: &'a Config,
    arguments: &'a Arguments,
    on_their_way: JoinSet<Landed>,
    /// The known queues, each with true if it exists.
    queues: HashMap<(ConnectionName, Lane), bool>,
    /// The refused messages already reported: a long walk that begins anew meets them again.
    refused: HashSet<u64>,
    done: u32,
    failed: u32,
}

impl ReplayCommand<'_> {
    async fn walk(&mut self, session: &mut DeadSession, choice: &mut Choice) -> Result<(), WalkEnd> {
        let mut next = Instant::now();
        loop {
            if session.dead_letters.is_due() && !self.arguments.dry_run {
                self.land(session, 0).await?;
                session.dead_letters.begin_again().await.map_err(WalkEnd::Lost)?;
            }
            let Some(entry) = session.next(choice).await? else { return Ok(()) };
            match self.plan(session, &entry).await? {
                Err(why) => {
                    if self.refused.insert(fingerprint(&entry)) {
                        self.failed += 1;
                        self.say(&ReplayLine::of(&entry, None, None), Err(&why))?;
                    }
                    session.leave_alone(entry).await;
                }
                Ok((post, said)) if self.arguments.dry_run => {
                    drop(post);
                    self.done += 1;
                    self.say(&said, Ok(()))?;
                    session.leave_alone(entry).await;
                }
                Ok((post, said)) => {
                    self.wait_until(next, session).await?;
                    next = Instant::now().max(next + self.arguments.rate.0);
                    self.land(session, ON_THEIR_WAY_MAX - 1).await?;
                    let publisher = session.dead_letters.publisher();
                    self.on_their_way.spawn(async move {
                        match publisher.post(&post).await {
                            Ok(Published::Confirmed) => {
                                let is_off = entry.slip.take_off().await;
                                let stays = "it is back at work, and parked as well: the broker is gone";
                                (said, is_off.then_some(()).ok_or_else(|| stays.to_owned()), None)
                            }
                            Ok(Published::Unroutable | Published::Refused | Published::TooLarge) => {
                                (said, Err("the broker refuses it".to_owned()), Some(entry.slip))
                            }
                            Err(_) => (said, Err("the broker is gone".to_owned()), Some(entry.slip)),
                        }
                    });
                }
            }
        }
    }

    /// Waits until it is time for the next message, and meanwhile reports finished copies.
    async fn wait_until(&mut self, at: Instant, session: &mut DeadSession) -> Result<(), WalkEnd> {
        loop {
            let landed = tokio::select! {
                biased;
                stop = session.told_to_stop() => return Err(stop),
                Some(landed) = self.on_their_way.join_next() => landed,
                () = sleep_until(at) => return Ok(()),
            };
            self.landed(session, landed)?;
        }
    }

    /// Waits until at most this many copies are in flight.
    async fn land(&mut self, session: &mut DeadSession, most: usize) -> Result<(), WalkEnd> {
        let mut said = Ok(());
        while self.on_their_way.len() > most {
            let Some(landed) = self.on_their_way.join_next().await else { break };
            said = said.and(self.landed(session, landed));
        }
        said
    }

    fn landed(
        &mut self,
        session: &mut DeadSession,
        landed: Result<Landed, JoinError>,
    ) -> Result<(), WalkEnd> {
        let (said, ended, slip) =
            landed.map_err(|_| WalkEnd::Lost("a bug of ours stopped a copy on its way".to_owned()))?;
        if let Some(slip) = slip {
            session.dead_letters.leave_alone(slip);
        }
        match ended {
            Ok(()) => {
                self.done += 1;
                self.say(&said, Ok(()))
            }
            Err(why) => {
                self.failed += 1;
                self.say(&said, Err(&why))
            }
        }
    }

    /// Returns the message to publish, or the reason that it cannot be replayed.
    async fn plan(
        &mut self,
        session: &DeadSession,
        entry: &ParkedEntry,
    ) -> Result<Result<(Publish, ReplayLine), String>, WalkEnd> {
        let (connection, lane) = match entry.parked.address.clone() {
            Ok((connection, lane)) => (connection, self.arguments.lane.unwrap_or(lane)),
            Err(why) => return Ok(Err(why)),
        };
        if !self.config.connections.iter().any(|known| known.name == connection) {
            return Ok(Err(format!("the connection `{connection}` is not configured")));
        }
        let properties = match entry.parked.replayed(&session.own_user) {
            Ok(properties) => properties,
            Err(why) => return Ok(Err(why)),
        };
        let place = (connection.clone(), lane);
        let is_there = match self.queues.get(&place) {
            Some(is_there) => *is_there,
            None => {
                let queue = work_queue(&connection, lane);
                let is_there = session.dead_letters.has_queue(&queue).await.map_err(WalkEnd::Lost)?;
                self.queues.insert(place, is_there);
                is_there
            }
        };
        if !is_there {
            let queue = work_queue(&connection, lane);
            return Ok(Err(format!("there is no queue `{queue}`: no worker has served the connection yet")));
        }
        let key = work_key(&connection, lane);
        let said = ReplayLine::of(entry, Some(key.clone()), self.foresee(entry, lane));
        let to = Address::Exchange(INVOCATIONS, key);
        Ok(Ok((Publish { to, properties, body: entry.body.clone() }, said)))
    }

    /// Predicts a refusal by the worker, as far as it is known already.
    fn foresee(&self, entry: &ParkedEntry, lane: Lane) -> Option<String> {
        if let Some(fault) = &entry.content.fault {
            return Some(format!("will be refused again: {fault}"));
        }
        let by_lane = match lane {
            Lane::Interactive => {
                entry.parked.sent.and_then(|sent| sent.checked_add(self.config.interactive_deadline).ok())
            }
            Lane::Bulk => None,
        };
        let deadline = entry.content.deadline.or(by_lane)?;
        (deadline <= Timestamp::now())
            .then(|| format!("will be answered `deadline_exceeded`: its deadline {deadline:.0} has passed"))
    }

    fn say(&self, entry: &ReplayLine, ended: Result<(), &str>) -> Result<(), WalkEnd> {
        let Arguments { dry_run, form, .. } = self.arguments;
        let action = match (ended, dry_run) {
            (Ok(()), true) => "would_replay",
            (Ok(()), false) => "replayed",
            (Err(_), true) => "cannot_replay",
            (Err(_), false) => "failed",
        };
        let ReplayLine { id, name, key, note } = entry;
        let why = ended.err().map(str::to_owned).or_else(|| note.clone());
        if form.json {
            return print_json(&json!({ "id": id, "key": key, "action": action, "note": why }));
        }
        let why = why.map(|why| format!("  {}", plain(&why))).unwrap_or_default();
        let key = key.as_deref().unwrap_or("-");
        print(&format!("{name}  {key}  {}{why}", action.replace('_', " ")))
    }
}

impl ReplayLine {
    fn of(entry: &ParkedEntry, key: Option<String>, note: Option<String>) -> Self {
        Self { id: entry.parked.id.clone(), name: entry.name(), key, note }
    }
}

/// Returns a hash that identifies a message with high probability.
fn fingerprint(entry: &ParkedEntry) -> u64 {
    let mut hasher = DefaultHasher::new();
    entry.parked.id.hash(&mut hasher);
    entry.body.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_the_time_from_one_message_to_the_next() {
        let rows = [("600/min", 100), ("600", 100), ("10/s", 100), ("1/min", 60_000), ("0", 0), ("0/min", 0)];
        for (text, millis) in rows {
            assert_eq!(text.parse::<ReplayRate>().map(|rate| rate.0.as_millis()), Ok(millis), "{text}");
        }
        for text in ["", "fast", "-1", "10/h", "10/", "1/min/s"] {
            assert!(text.parse::<ReplayRate>().is_err(), "{text}");
        }
    }
}
