//! Settings, from files and the environment, as the typed values that the other layers take.
//!
//! Three sources: the defaults ([`DEFAULT`]), the user's files by name, the environment. They are merged
//! first and read once, so every rule applies to the result, not to a single source. All
//! problems are reported together. Nothing here reads the process's environment: it is an argument.

mod broker;
mod callers;
mod change;
mod connection;
mod credential;
mod duration;
mod entry;
mod host;
mod layers;
mod okta;
mod problem;
mod retry;
mod secret;
mod section;
mod settings;
mod spot;
mod telemetry;
mod tree;

pub use crate::telemetry::log::LogFormat;
pub use change::ConfigChange;
pub use connection::ConnectionSection;
pub use duration::parse as duration;
pub use layers::DEFAULT;
pub use problem::{ConfigProblem, ConfigProblems};
pub use settings::{Config, Loaded, NOT_YET, NotYet, load, load_without_tokens};
pub use telemetry::Telemetry;
