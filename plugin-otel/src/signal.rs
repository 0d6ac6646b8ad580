//! The kinds of telemetry that are exported, and what tells them apart on the way.

use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
    trace::v1::ExportTraceServiceRequest,
};
use prost::Message as _;
use serde_json::Value;

/// One kind of telemetry. Each has a pipeline of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// Spans.
    Traces,
    /// Log records.
    Logs,
    /// Metrics; an item is all of one moment, or a part of it.
    Metrics,
}

/// The names in OTLP's JSON that lead to what is exported.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names {
    /// The list of a request.
    pub(crate) resources: &'static str,
    /// The list of a resource.
    pub(crate) scopes: &'static str,
    /// The list of a scope.
    pub(crate) items: &'static str,
    /// One of them.
    pub(crate) item: &'static str,
    /// In an answer: how many were not taken.
    pub(crate) rejected: &'static str,
}

impl Signal {
    /// What is exported, in the plural, for sentences.
    pub(crate) const fn noun(self) -> &'static str {
        match self {
            Self::Traces => "spans",
            Self::Logs => "log records",
            Self::Metrics => "collections of metrics",
        }
    }

    /// The path of exports over HTTP, below the base.
    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Traces => "v1/traces",
            Self::Logs => "v1/logs",
            Self::Metrics => "v1/metrics",
        }
    }

    /// The method of exports over gRPC.
    pub(crate) const fn method(self) -> &'static str {
        match self {
            Self::Traces => "opentelemetry.proto.collector.trace.v1.TraceService/Export",
            Self::Logs => "opentelemetry.proto.collector.logs.v1.LogsService/Export",
            Self::Metrics => "opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        }
    }

    /// The variable of this signal that has the meaning which `name` has for traces, if there is one.
    pub(crate) fn variable(self, name: &str) -> Option<String> {
        match self {
            Self::Traces => Some(name.to_owned()),
            Self::Logs => Some(name.replace("_TRACES_", "_LOGS_").replace("_BSP_", "_BLRP_")),
            Self::Metrics if name.contains("_BSP_") => None,
            Self::Metrics => Some(name.replace("_TRACES_", "_METRICS_")),
        }
    }

    /// The names in OTLP's JSON.
    pub(crate) const fn names(self) -> Names {
        match self {
            Self::Traces => Names {
                resources: "resourceSpans",
                scopes: "scopeSpans",
                items: "spans",
                item: "span",
                rejected: "rejectedSpans",
            },
            Self::Logs => Names {
                resources: "resourceLogs",
                scopes: "scopeLogs",
                items: "logRecords",
                item: "log",
                rejected: "rejectedLogRecords",
            },
            Self::Metrics => Names {
                resources: "resourceMetrics",
                scopes: "scopeMetrics",
                items: "metrics",
                item: "metric",
                rejected: "rejectedDataPoints",
            },
        }
    }

    /// A request in OTLP's JSON: ids in hexadecimal digits, 64-bit numbers as text.
    ///
    /// # Errors
    /// The bytes are no request of this signal.
    pub(crate) fn to_json(self, request: &[u8]) -> Result<Value, String> {
        let wrong = |error: prost::DecodeError| {
            format!("{} that cannot be read back: {error}", self.noun())
        };
        let json = match self {
            Self::Traces => {
                serde_json::to_value(ExportTraceServiceRequest::decode(request).map_err(wrong)?)
            }
            Self::Logs => {
                serde_json::to_value(ExportLogsServiceRequest::decode(request).map_err(wrong)?)
            }
            Self::Metrics => {
                serde_json::to_value(ExportMetricsServiceRequest::decode(request).map_err(wrong)?)
            }
        };
        json.map_err(|error| format!("{} that JSON cannot hold: {error}", self.noun()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_signal_has_variables_of_its_own() {
        for (name, of_logs, of_metrics) in [
            ("OTEL_TRACES_EXPORTER", "OTEL_LOGS_EXPORTER", Some("OTEL_METRICS_EXPORTER")),
            (
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
                "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
                Some("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"),
            ),
            (
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                Some("OTEL_EXPORTER_OTLP_ENDPOINT"),
            ),
            ("OTEL_BSP_SCHEDULE_DELAY", "OTEL_BLRP_SCHEDULE_DELAY", None),
        ] {
            assert_eq!(Signal::Traces.variable(name).as_deref(), Some(name));
            assert_eq!(Signal::Logs.variable(name).as_deref(), Some(of_logs));
            assert_eq!(Signal::Metrics.variable(name).as_deref(), of_metrics);
        }
    }
}
