//! Tracing as a file: the host's plugin that turns HTTP exchanges into OpenTelemetry spans.
//!
//! The only room that knows OpenTelemetry. The way of a span:
//!
//! ```text
//! request head ─► propagation (who calls?) ─► sampling (is it recorded?) ─► exchange
//! exchange ─► record (a finished span as plain data) ─► pipeline (queue, thread) ─► collector
//! ```
//!
//! `config` decides everything once, `plugin` holds it together, `provider` lets spans of the
//! OpenTelemetry API join, `log` brings what the OpenTelemetry crates say into the host's log.
#![forbid(unsafe_code)]

mod clock;
mod config;
mod exchange;
mod log;
mod otlp;
mod pipeline;
mod plugin;
mod propagation;
mod provider;
mod record;
mod redact;
mod sampling;
mod semconv;
mod short;
#[cfg(test)]
mod testing;

plugin_api::export_plugin!(plugin::Otel);
