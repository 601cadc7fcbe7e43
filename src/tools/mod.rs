//! The subtools, each a pure value that states its next move.
//!
//! A subtool has no IO, no clock and no retries. It is parsed from arguments, gets Okta's answers so
//! far, and returns the next request or its end. Its body is written as a straight sequence of requests
//! (`okta.ask(request)?`) that is replayed from the start after each answer: an answered question
//! returns at once, the first unanswered one becomes the next move. Paging, read-merge-write,
//! preconditions and reconciliation need no further mechanism.

mod absence;
mod app_groups;
mod apps;
pub mod catalogue;
mod converge;
mod cost;
mod create_user;
mod cursor;
mod dry_run;
mod events;
mod factors;
mod group_reads;
mod groups;
pub mod hint;
mod history;
mod lifecycle;
mod list;
mod list_rules;
mod manifest;
mod members;
mod next_move;
pub mod output;
mod pager;
mod passwords;
pub mod plan;
mod reactivation;
pub mod reading;
mod replay;
mod resolve;
mod run;
mod sessions;
mod setting;
mod steps;
pub mod subject;
mod subtool;
#[cfg(test)]
mod tests;
mod tool;
mod update_user;
mod user_state;
mod users;

pub use cost::Cost;
pub use history::{HistoryEntry, OktaReply};
pub use manifest::{Idempotency, Manifest, ToolKind};
pub use next_move::Move;
pub use pager::Pager;
pub use replay::Replay;
pub use run::{Done, Run, Stop};
pub use setting::{Bounds, Listing, SETTLING, Setting};
pub use subtool::Subtool;
pub use tool::Tool;
