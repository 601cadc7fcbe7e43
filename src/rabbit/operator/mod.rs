//! The tools of operators: dead letters, and the inspection of the broker.

pub(super) mod dead_letters;
pub(super) mod inspection;
