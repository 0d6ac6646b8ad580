//! Tracing as a file: the host's plugin that turns HTTP exchanges into OpenTelemetry spans.
//!
//! The only room that knows OpenTelemetry. The way of a span:
//!
//! ```text
//! request head ─► policy (who is heard?) ─► propagation (who calls?) ─► sampling ─► exchange
//! exchange ─► record (a finished span as plain data) ─► pipeline (queue, thread) ─► collector
//! ```
//!
//! `telemetry` takes what happens inside the host: `spans` become records, `logs` log records, each in
//! a pipeline of its own.
//!
//! `config` decides everything once, `plugin` holds it together, `provider` lets spans of the
//! OpenTelemetry API join, `log` brings what the OpenTelemetry crates say into the host's log.
#![forbid(unsafe_code)]

mod callsite;
mod cardinality;
mod clock;
mod config;
mod exchange;
#[cfg(test)]
mod figures;
mod forwarded;
mod live;
mod log;
mod logs;
mod methods;
mod metrics;
mod networks;
mod otlp;
mod pipeline;
mod plugin;
mod policy;
mod propagation;
mod provider;
mod rate;
mod ratio;
mod record;
mod redact;
mod remote_sampler;
mod response_header;
mod rules;
mod sampling;
mod semconv;
mod short;
mod signal;
mod spans;
mod telemetry;
mod template;
#[cfg(test)]
mod testing;
mod trust;
mod xray;

plugin_api::export_plugin!(plugin::Otel);
