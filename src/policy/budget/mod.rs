//! What may be sent when, of what Okta allows: pure, over what the answers and the other workers told.

pub mod signal;
