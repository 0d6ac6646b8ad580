//! What a request is a part of, and what is said of it: its trace context and the log.

pub(crate) mod bridge;
pub mod context;
mod fields;
pub(crate) mod log;
