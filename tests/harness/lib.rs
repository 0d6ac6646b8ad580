//! What the end-to-end tests stand on: the real programs, and the world around them.
//!
//! [`artifacts`] finds or builds the programs, [`Process`] runs one of them and [`HostProcess`] a
//! host that is ready to serve. Around it stand an [`Upstream`] behind it, a [`Client`] in front of
//! it, and a [`Collector`] (with [`Rotel`] before it, if wanted) that its spans arrive at.
//!
//! Nothing here sleeps: whoever waits names a condition and has a deadline, see [`wait`].
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a harness that cannot go on fails the test that uses it"
)]

pub mod artifacts;
mod client;
mod collector;
mod config;
pub mod conventions;
mod host;
pub mod jaeger;
mod load;
mod logs;
mod metric;
mod ports;
mod process;
mod python;
mod raw;
mod rotel;
mod store;
mod tls;
mod traceparent;
mod trial;
mod upstream;
mod variant;
pub mod wait;

pub use client::{Answer, Body, Call, Client};
pub use collector::{Absent, Collector, Export, Protocol, Span, SpanEvent, SpanKind};
pub use config::Config;
pub use host::{HostProcess, Launch, run, run_as};
pub use load::Load;
pub use logs::LogRecord;
pub use metric::{MetricKind, MetricPoint};
pub use ports::{free, hold};
pub use process::{Output, Process, Signal};
pub use python::Python;
pub use raw::{RawUpstream, exchange, read_until};
pub use rotel::Rotel;
pub use store::{Kind, Store};
pub use tls::{Authority, Handshake, Pair, Terminator};
pub use traceparent::Traceparent;
pub use trial::{Skipped, Verdict, trial};
pub use upstream::{Gate, Received, Upstream, body, channel, text};
pub use variant::Variant;
