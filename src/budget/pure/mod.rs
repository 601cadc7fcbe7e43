//! The budget within Okta's rate limits, computed purely from the answers and the other workers' signals.
//!
//! [`ledger::Ledger`] is the account of one bucket: its window as a hard bound, and the pace within it. This folder
//! does not know `governor`, which enforces additional ceilings.

pub mod constants;
pub mod replicas;
pub mod pace;
pub mod bucket_map;
pub mod ledger;
pub mod okta_clock;
pub mod signal;
pub mod slots;
pub mod observation;
pub mod window;
