//! The simulated Okta: an org as a state machine, with a thin HTTP layer.
//!
//! ```text
//! settings  the settings of an org          call      a request, and the operation it asks for
//! ids       ids, and all randomness         refusal   Okta's error codes
//! lagging_index  objects, and the lag of    reply     answers and their headers
//!           the search index behind them    limits    buckets, windows, requests in flight
//! effects   the effects, in order           clients   the callers, as numbers
//! faults    fault injection                 history   the last windows, by client
//! oauth     tokens for service apps         public_key  verification of their assertions
//! service_app  authorizations               (the apps, and the tokens issued to them)
//! possession  verification of proofs of possession of a key     proofs  (the proofs and nonces seen)
//! app  assignment  group  system_log        (objects and their JSON, without the operations on them)
//!
//! users  profile  lifecycle  people         groups    apps  assignments    log
//! expression  search  pages                 (the query language, lists, cursors and links)
//!
//! org       the handling of a request       world     changes without a request
//! seed      the initial directory           server    the org over HTTP
//! ```
//!
//! Only `server` performs IO or reads a clock: [`Org::answer`] takes a call and the time and returns the answer. Any
//! difference from Okta is a bug.

mod app;
mod app_changes;
mod app_groups;
mod apps;
mod assignment;
mod assignments;
mod authorizations;
mod call;
mod clients;
mod expression;
mod factor;
mod factors;
mod faults;
mod group;
mod groups;
mod history;
mod ids;
mod effects;
mod lifecycle;
mod limits;
mod log;
mod oauth;
mod org;
mod pages;
mod people;
mod possession;
mod profile;
mod proofs;
mod public_key;
mod refusal;
mod reply;
mod search;
mod seed;
mod server;
mod service_app;
mod settings;
mod system_log;
mod lagging_index;
mod user_schema;
mod users;
mod world;

pub use crate::sandbox::effects::RecordedEffect;
pub use app::NewApp;
pub use call::{Handled, HttpCall};
pub use faults::{InjectedFault, Trouble, When};
pub use history::{ClientRequests, PastWindow};
pub use ids::Id;
pub use limits::BucketCounter;
pub use org::Org;
pub use public_key::PublicKey;
pub use server::serve;
pub use service_app::Client;
pub use settings::{Attribute, AttributeKind, OrgSettings, ProofDemand};
pub use users::UserStatus;
