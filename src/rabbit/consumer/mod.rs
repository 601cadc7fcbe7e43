//! The consuming side: consumes queues, hands deliveries to the worker, counts the workers and exchanges signals.

pub(super) mod consuming;
pub(super) mod generation;
pub(super) mod governed;
pub(super) mod heartbeats;
pub(super) mod presence;
pub(super) mod quarantine;
pub(super) mod removed;
pub(super) mod restoring;
pub(super) mod served;
pub(super) mod serving;
pub(super) mod signals;
pub(super) mod site;
pub(super) mod supervisor;
