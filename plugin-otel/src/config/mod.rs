//! The plugin's settings: its table of the host's configuration, with the `OTEL_*` variables and the
//! defaults behind it.

mod destination;
mod endpoint;
mod parse;
mod read;
mod settings;
mod tables;
#[cfg(test)]
mod tests;
mod tls;

use std::{collections::BTreeMap, fmt, path::Path, time::Duration};

use http::HeaderMap;
use plugin_api::{Level, PluginError};

use self::read::Reader;
pub(crate) use self::{
    settings::SETTINGS,
    tls::{File, Tls},
};
use crate::{
    methods::KnownMethods, networks::Networks, policy::Policy, propagation::Propagators,
    redact::Redaction, response_header::ResponseHeader, sampling::Sampler, signal::Signal,
};

/// What the plugin does, completely decided.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// `OTEL_SDK_DISABLED`: no layer, no thread.
    pub(crate) disabled: bool,
    /// What becomes of spans.
    pub(crate) traces: Destination,
    /// What becomes of the host's log.
    pub(crate) logs: Destination,
    /// The least serious lines of the host's log that are exported; `None`: no line is.
    pub(crate) log_level: Option<Level>,
    /// What becomes of metrics.
    pub(crate) metrics: Destination,
    /// How often metrics are exported; `None`: never.
    pub(crate) metric_interval: Option<Duration>,
    /// Whether metrics name spans that they were measured in.
    pub(crate) exemplars: bool,
    /// Which spans are recorded.
    pub(crate) sampler: Sampler,
    /// Which headers carry the context.
    pub(crate) propagators: Propagators,
    /// What becomes of incoming requests: `exclude`, `incoming`, `trust`, `rule`.
    pub(crate) policy: Policy,
    /// Proxies whose word on the client counts.
    pub(crate) trusted_proxies: Networks,
    /// The request methods that are told apart.
    pub(crate) known_methods: KnownMethods,
    /// What is taken out of URLs and headers.
    pub(crate) redaction: Redaction,
    /// Which headers are recorded.
    pub(crate) capture: Capture,
    /// Which requests are kept that nobody samples.
    pub(crate) keep: Keep,
    /// Tells clients their trace.
    pub(crate) response_header: ResponseHeader,
    /// How many routes, and how many values of one header, are told apart; at least 1.
    pub(crate) max_distinct: usize,
    /// Attributes that the operator wants on the resource.
    pub(crate) resource: BTreeMap<String, String>,
    /// What was wrong in the environment and was therefore ignored, one line each.
    pub(crate) warnings: Vec<String>,
}

/// Where the exports of one signal go, how they are sent, and what may wait for that.
///
/// The values of `headers` are marked as sensitive, so that `Debug` does not print them.
#[derive(Clone, Debug)]
pub(crate) struct Destination {
    /// What kind of place it is.
    pub(crate) exporter: Exporter,
    /// The URL of exports, path included; checked.
    pub(crate) endpoint: String,
    /// How exports are sent.
    pub(crate) protocol: Protocol,
    /// Files for an `https` endpoint.
    pub(crate) tls: Tls,
    /// Sent with every export.
    pub(crate) headers: HeaderMap,
    /// For one export with its retries.
    pub(crate) timeout: Duration,
    /// Whether exports are compressed with gzip.
    pub(crate) gzip: bool,
    /// How many finished items may wait, those on their way included, at least 1.
    pub(crate) max_queue_size: usize,
    /// How many bytes they may take, at least 1.
    pub(crate) max_queue_bytes: usize,
    /// How many of them one export holds at most, from 1 to `max_queue_size`.
    pub(crate) max_export_batch_size: usize,
    /// How long one waits at most, longer than nothing.
    pub(crate) schedule_delay: Duration,
}

/// Which headers are recorded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Capture {
    /// Lower-case names.
    pub(crate) request_headers: Vec<String>,
    /// Lower-case names.
    pub(crate) response_headers: Vec<String>,
}

/// Which requests are kept that nobody samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Keep {
    /// Traces whose local root failed.
    pub(crate) errors: bool,
    /// Traces whose local root took longer.
    pub(crate) slower_than: Option<Duration>,
    /// How many spans may wait for the end of their local root, at least 1.
    pub(crate) max_spans: usize,
    /// How many bytes they may take, at least 1.
    pub(crate) max_bytes: usize,
}

/// What kind of place exports go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exporter {
    /// To a collector.
    Otlp,
    /// To the standard output.
    Console,
    /// Nowhere.
    None,
}

/// How exports are sent to a collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// OTLP over gRPC.
    Grpc,
    /// OTLP over HTTP, in protobuf.
    HttpProtobuf,
    /// OTLP over HTTP, in JSON.
    HttpJson,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Grpc => "grpc",
            Self::HttpProtobuf => "http/protobuf",
            Self::HttpJson => "http/json",
        })
    }
}

impl Config {
    /// Lets relative paths of settings start at `folder`.
    pub(crate) fn start_paths_at(&mut self, folder: &Path) {
        for destination in [&mut self.traces, &mut self.logs, &mut self.metrics] {
            destination.tls.start_paths_at(folder);
        }
    }

    /// Reads the settings (a JSON object), behind them the variables, behind them the defaults.
    ///
    /// A variable that is empty counts as not set. One whose number or name cannot be understood is
    /// ignored with a warning, as the OpenTelemetry specification wants.
    ///
    /// # Errors
    /// The first setting that is wrong; what was wanted and what was found.
    pub(crate) fn read(
        settings: &str,
        env: &impl Fn(&str) -> Option<String>,
    ) -> Result<Self, PluginError> {
        let mut reader = Reader::new(settings, env)?;
        reader.check_metrics();
        let config = Self {
            disabled: reader.is_disabled(),
            traces: destination::read(&mut reader, Signal::Traces)?,
            logs: destination::read(&mut reader, Signal::Logs)?,
            log_level: reader.value("log-level", parse::level, Some(Level::INFO))?,
            metrics: destination::read(&mut reader, Signal::Metrics)?,
            metric_interval: reader.value(
                "metric-interval",
                parse::optional_duration,
                Some(Duration::from_secs(60)),
            )?,
            exemplars: reader.value("exemplar-filter", parse::exemplar_filter, true)?,
            sampler: reader.sampler()?,
            propagators: reader.propagators()?,
            policy: reader.policy()?,
            trusted_proxies: reader.value(
                "trusted-proxies",
                parse::networks,
                Networks::default(),
            )?,
            known_methods: reader.value(
                "known-methods",
                parse::known_methods,
                KnownMethods::default(),
            )?,
            redaction: reader.value(
                "redact-query-keys",
                |raw| parse::names(raw).map(Redaction::and),
                Redaction::default(),
            )?,
            capture: reader.capture()?,
            keep: reader.keep()?,
            response_header: reader.value(
                "response-header",
                parse::response_header,
                ResponseHeader::Off,
            )?,
            max_distinct: reader.value("max-distinct", parse::count, 1000)?,
            resource: reader.resource()?,
            warnings: std::mem::take(&mut reader.warnings),
        };
        reader.nothing_is_left()?;
        Ok(config)
    }
}
