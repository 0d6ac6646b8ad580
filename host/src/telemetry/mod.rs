//! What a request is a part of, and what is said of it: its trace context and the log.

pub mod context;
pub(crate) mod log;
