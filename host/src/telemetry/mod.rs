//! What a request is a part of, and what is said of it: its trace context, the spans of the code that
//! works for it, and the log.
//!
//! # For authors of services
//!
//! Instrument with `tracing` alone; nothing of OpenTelemetry is named, and without a plugin nothing of
//! it is there. With one, this is one trace:
//!
//! - the SERVER span of the request and the CLIENT span of each call, which the host makes;
//! - between them a span for each `#[tracing::instrument]`, or `tracing::info_span!`, of level INFO or
//!   above that runs meanwhile; a call made inside is its child;
//! - the lines written meanwhile (`tracing::info!` and its like), as log records with the ids of the
//!   innermost span, where `otel.log-level` lets them through, and as events of that span.
//!
//! The context goes with a handler's future through awaits and threads. What runs elsewhere is given
//! it:
//!
//! ```
//! use host::telemetry::context::{FnOnceExt as _, FutureExt as _};
//!
//! # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
//! # runtime.block_on(async {
//! # let (work, compute) = (async {}, || 7);
//! let task = tokio::spawn(work.with_current_context());
//! let answer = tokio::task::spawn_blocking(compute.with_current_context());
//! # (task.await.unwrap(), answer.await.unwrap()) });
//! ```
//!
//! A span's parent is the span or the exchange that the code was in when the span was made; with
//! `parent:` it is that span, and with `parent: None` the span begins a trace. Spans below a request
//! that is not sampled are not recorded, unless it is kept for its error or its duration. A span that
//! is open when its request ends is exported when it closes.
//!
//! Fields become attributes of their own type: `bool`, integers, floats and text; errors given as
//! `&dyn Error` become `exception.message` and, with their sources, `exception.stacktrace`, beside
//! which a field `exception.type` may say what they do not, their type; whatever else is shown as
//! text. These speak to OpenTelemetry: `otel.name`, `otel.kind` (`server`, `client`, `producer`,
//! `consumer`, `internal`), `otel.status_code` (`ok`, `error`), `otel.status_description`. An event of
//! level ERROR makes its span's status Error; `#[instrument(err)]` says why. `follows_from` is a link.
//! A span keeps 128 events and counts those that it drops.
//!
//! `log.level` filters the lines on standard error, and nothing else. Lines of the plugin itself go
//! there alone.
//!
//! `host/examples/service.rs` shows all of it.

pub(crate) mod bridge;
pub mod context;
mod directives;
mod entered;
mod fields;
mod ids;
#[cfg(test)]
mod journal;
mod known;
pub(crate) mod log;
mod place;
#[cfg(test)]
mod plain;
mod spans;
mod tap;
#[cfg(test)]
mod tests;
