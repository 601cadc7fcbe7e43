//! The tools of operators: dead letters, and what the broker holds.

pub(super) mod dead_letters;
pub(super) mod inspection;
