//! What may be sent when, of what Okta allows: pure, over what the answers and the other workers told.
//!
//! [`ledger::Ledger`] is one bucket: the hard bound of its window, and within it the pace. Nothing here
//! knows of `governor`, which holds the ceilings outside.

pub mod constants;
pub mod crew;
pub mod flow;
pub mod keys;
pub mod ledger;
pub mod okta_clock;
pub mod signal;
pub mod slots;
pub mod told;
pub mod window;
