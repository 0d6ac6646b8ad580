//! A host service whose distributed tracing is a file.
//!
//! The host accepts HTTP requests, answers or forwards them, and calls other services that it finds
//! through service discovery. Tracing is a plugin: a shared library that is opened at start-up, or
//! not. This crate is the binary `host` and, for authors of services, the same life cycle around
//! any [`tower::Service`]:
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! fn main() -> ExitCode {
//!     host::main(|_config, client| {
//!         tower::service_fn(move |_request: http::Request<host::Body>| {
//!             let client = client.clone();
//!             async move { client.call("greeter", http::Request::new(host::Body::empty())).await }
//!         })
//!     })
//! }
//! ```
//!
//! # The way of a start
//!
//! ```text
//! open stacks ─► service discovery ─► plugin ─► splice ─► seal ─► serve ─► drain ─► flush
//! ```
//!
//! [`App`] is that line. What each room holds:
//!
//! - [`config`]: settings, their defaults, and where each value comes from
//! - [`stack`]: the layers around the handler and around the client, in order, open or sealed
//! - `layers`: one file per layer
//! - [`routes`]: paths that are answered here or forwarded; the binary's handler
//! - `client` and `server`: the two ends of a request; [`Client`] is what a handler calls with
//! - `connect` and `tls`: connections to instances, and certificates for either end
//! - [`discovery`]: who else is there
//! - `plugin`: from a path to a checked, running plugin
//! - [`telemetry`]: the current trace context, and the log
//! - `metrics`: what is counted and timed, for `GET /metrics` and for the plugin
//! - `admin`: what operators ask a running host
//!
//! Layers know no loader, routes know no plugin; only `app` knows them all.
#![deny(unsafe_code)]

mod app;
mod cli;
mod error;

mod admin;
mod body;
mod client;
pub mod config;
mod connect;
pub mod discovery;
mod identity;
mod layers;
mod live;
mod metrics;
mod monotonic;
mod plugin;
pub mod routes;
mod server;
mod shutdown;
pub mod stack;
pub mod telemetry;
mod tls;

pub use app::App;
pub use body::Body;
pub use cli::main;
pub use client::{CallError, Client};
pub use error::Error;
pub use identity::Identity;
pub use layers::Tunnel;
pub use plugin::{LoadError, Plugin};
pub use server::Peer;
pub use shutdown::Stopped;
pub use tls::TlsError;

/// The host's version; OpenTelemetry's `service.version`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
