//! One broker session: connecting, declaring, publishing, and classifying errors.

pub(super) mod blocked;
pub(super) mod connect;
pub(super) mod convert;
pub(super) mod declare;
pub(super) mod error;
pub(super) mod management;
pub(super) mod probe;
pub(super) mod publisher;
pub(super) mod stream;
pub(super) mod supervisor_end;
pub(super) mod utf8_repair;
