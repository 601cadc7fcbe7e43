//! The selection of parked messages for a command.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;

use crate::config;
use crate::domain::ids::ConnectionName;
use crate::event::ParkReason;

use super::entry::ParkedEntry;
use crate::cli::exit::NotBegun;

/// Filters: a message must pass all that are given.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Filters (a message must pass all that are given)")]
pub(super) struct Filters {
    /// The reason why the message was parked.
    #[arg(long, value_name = "REASON", value_parser = reasons())]
    reason: Option<String>,
    /// The subtool that it names, such as `create_user`.
    #[arg(long, value_name = "NAME")]
    subtool: Option<String>,
    /// The connection it was for.
    #[arg(long, value_name = "NAME", value_parser = ConnectionName::parse)]
    connection: Option<ConnectionName>,
    /// The broker user that published it.
    #[arg(long, value_name = "USER")]
    caller: Option<String>,
    /// Parked longer ago than this, such as `30m`, `12h` or `7d`.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    older_than: Option<Duration>,
    /// Parked no longer ago than this.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    newer_than: Option<Duration>,
    /// At most this many messages: the first ones in the queue.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
}

fn reasons() -> clap::builder::PossibleValuesParser {
    ParkReason::ALL.map(ParkReason::as_str).into()
}

fn duration(text: &str) -> Result<Duration, String> {
    config::duration(text).ok_or_else(|| "must look like `30m`, `12h` or `7d`".to_owned())
}

/// A selection of messages, and the ids found so far.
pub(super) struct Choice {
    ids: BTreeSet<String>,
    found: BTreeSet<String>,
    filters: Filters,
    left: u32,
    now: Timestamp,
}

impl Choice {
    /// Selects messages that have one of these ids, or any id if there are none, and pass the filters.
    pub fn new(ids: &[String], filters: &Filters) -> Self {
        Self {
            ids: ids.iter().cloned().collect(),
            found: BTreeSet::new(),
            left: filters.limit.unwrap_or(u32::MAX),
            filters: filters.clone(),
            now: Timestamp::now(),
        }
    }

    /// Selects messages for a command that changes something: selecting all messages must be explicit.
    pub fn deliberate(ids: &[String], filters: &Filters, all: bool) -> Result<Self, NotBegun> {
        let Filters { reason, subtool, connection, caller, older_than, newer_than, limit } = filters;
        let is_any = reason.is_some()
            || subtool.is_some()
            || connection.is_some()
            || caller.is_some()
            || older_than.is_some()
            || newer_than.is_some()
            || limit.is_some();
        match (!ids.is_empty() || is_any, all) {
            (false, false) => Err(NotBegun(
                "nothing is chosen: give ids, filters, or `--all` for all that is parked".into(),
            )),
            (true, true) => {
                Err(NotBegun("`--all` is for all that is parked: leave out ids and filters".into()))
            }
            (true, false) | (false, true) => Ok(Self::new(ids, filters)),
        }
    }

    /// Returns true if the limit is reached.
    pub fn is_spent(&self) -> bool {
        self.left == 0
    }

    /// Returns true if a message is selected, and counts it.
    pub fn takes(&mut self, entry: &ParkedEntry) -> bool {
        let is_taken = !self.is_spent() && self.matches(entry);
        if is_taken {
            self.left -= 1;
            self.found.extend(entry.parked.id.clone());
        }
        is_taken
    }

    fn matches(&self, entry: &ParkedEntry) -> bool {
        let Filters { reason, subtool, connection, caller, older_than, newer_than, limit: _ } = &self.filters;
        let is_text = |wanted: &Option<String>, is: &Option<String>| wanted.is_none() || wanted == is;
        let age = entry.parked.since().map(|at| self.now.duration_since(at));
        let age = age.map(|age| Duration::try_from(age).unwrap_or_default());
        let address = entry.parked.address.as_ref().ok();
        (self.ids.is_empty() || entry.parked.id.as_ref().is_some_and(|id| self.ids.contains(id)))
            && is_text(reason, &entry.parked.reason)
            && is_text(subtool, &entry.content.subtool)
            && is_text(caller, &entry.parked.caller)
            && connection.as_ref().is_none_or(|wanted| address.is_some_and(|(name, _)| name == wanted))
            && older_than.is_none_or(|wanted| age.is_some_and(|age| age > wanted))
            && newer_than.is_none_or(|wanted| age.is_some_and(|age| age <= wanted))
    }

    /// Returns the ids that no selected message has.
    pub fn missing(&self) -> impl Iterator<Item = &str> {
        self.ids.difference(&self.found).map(String::as_str)
    }
}
