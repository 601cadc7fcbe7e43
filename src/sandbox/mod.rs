//! The world, simulated: an Okta org as a state machine, with a thin skin of HTTP.
//!
//! ```text
//! settings  what an org is made with        call      a request, and the operation it asks for
//! ids       ids, and all that is random     refusal   Okta's error codes
//! shelf     things, and how the index       reply     answers and their headers
//!           still sees them                 limits    buckets, windows, requests in flight
//! ledger    what was really done            clients   who calls, as numbers
//! faults    failures on order               history   the last windows, by client
//! oauth     tokens for service apps         public_key  what their assertions are verified with
//!
//! users  profile  lifecycle  people         groups    apps  assignments    log
//! expression  search  pages                 (the query language, lists, cursors and links)
//!
//! org       a request's way through it      world     what happens without a request
//! seed      the directory it begins with    server    the same over HTTP
//! ```
//!
//! Nothing but `server` performs IO or reads a clock: [`Org::answer`] takes a call and the time and
//! returns the answer. Where it disagrees with Okta, it is wrong.

mod apps;
mod assignments;
mod call;
mod clients;
mod expression;
mod faults;
mod groups;
mod history;
mod ids;
mod ledger;
mod lifecycle;
mod limits;
mod log;
mod oauth;
mod org;
mod pages;
mod people;
mod profile;
mod public_key;
mod refusal;
mod reply;
mod search;
mod seed;
mod server;
mod settings;
mod shelf;
mod users;
mod world;

pub use apps::NewApp;
pub use call::{Answer, Call};
pub use faults::{Fault, Trouble, When};
pub use history::{Past, Tally};
pub use ids::Id;
pub use ledger::Effect;
pub use limits::Counter;
pub use oauth::Client;
pub use org::Org;
pub use public_key::PublicKey;
pub use server::serve;
pub use settings::{Attribute, AttributeKind, Settings};
pub use users::Status;
