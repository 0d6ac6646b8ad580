//! Every key that the plugin knows.

use plugin_api::Setting;

/// Every key, with its default and the variables that stand in for it.
pub(crate) const SETTINGS: &[Setting] = &[
    Setting::new("exporter", "\"otlp\"", "where spans, log records and metrics go: otlp, console or none")
        .or_variable("OTEL_TRACES_EXPORTER"),
    Setting::new(
        "endpoint",
        "\"http://localhost:4317\"",
        "the collector; port 4318 is the default of the http protocols, which add v1/traces, v1/logs and v1/metrics",
    )
    .or_variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT OTEL_EXPORTER_OTLP_ENDPOINT"),
    Setting::new("protocol", "\"grpc\"", "grpc, http/protobuf or http/json")
        .or_variable("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL OTEL_EXPORTER_OTLP_PROTOCOL"),
    Setting::new("headers", "{}", "sent to the collector with every export")
        .or_variable("OTEL_EXPORTER_OTLP_TRACES_HEADERS OTEL_EXPORTER_OTLP_HEADERS")
        .secret(),
    Setting::new(
        "tls",
        "{}",
        "files in PEM for an https endpoint: { ca, cert, key }; ca in place of the system's roots",
    )
    .or_variable(
        "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE OTEL_EXPORTER_OTLP_CERTIFICATE \
         OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE \
         OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY OTEL_EXPORTER_OTLP_CLIENT_KEY",
    ),
    Setting::new("timeout", "\"10s\"", "for one export with its retries")
        .or_variable("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT OTEL_EXPORTER_OTLP_TIMEOUT"),
    Setting::new("compression", "\"none\"", "of exports: none or gzip")
        .or_variable("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION OTEL_EXPORTER_OTLP_COMPRESSION"),
    Setting::new(
        "max-queue-size",
        "65536",
        "how many finished spans may wait, those on their way included; as many log records",
    )
    .or_variable("OTEL_BSP_MAX_QUEUE_SIZE"),
    Setting::new(
        "max-queue-bytes",
        "8388608",
        "how many bytes the finished spans that wait may take; log records as many",
    ),
    Setting::new("max-export-batch-size", "4096", "how many spans one export holds at most")
        .or_variable("OTEL_BSP_MAX_EXPORT_BATCH_SIZE"),
    Setting::new("schedule-delay", "\"5s\"", "how long a finished span waits at most")
        .or_variable("OTEL_BSP_SCHEDULE_DELAY"),
    Setting::new(
        "log-level",
        "\"INFO\"",
        "the host's log lines that are exported: ERROR, WARN, INFO, DEBUG, TRACE or OFF",
    ),
    Setting::new(
        "metric-interval",
        "\"60s\"",
        "how often metrics are exported: a duration, or none",
    )
    .or_variable("OTEL_METRIC_EXPORT_INTERVAL"),
    Setting::new(
        "exemplar-filter",
        "\"trace_based\"",
        "whether metrics name spans that are sampled: trace_based or always_off",
    )
    .or_variable("OTEL_METRICS_EXEMPLAR_FILTER"),
    Setting::new(
        "sampler",
        "\"parentbased_always_on\"",
        "which spans are recorded: always_on, always_off, traceidratio or jaeger_remote, each also \
         with parentbased_ before it, or xray",
    )
        .or_variable("OTEL_TRACES_SAMPLER"),
    Setting::new(
        "sampler-arg",
        "1.0",
        "the ratio of the traceidratio samplers, 0 to 1; of jaeger_remote the server: \
         \"endpoint=http://localhost:5778/sampling,pollingIntervalMs=60000,initialSamplingRate=0.001\", \
         over gRPC \"endpoint=grpc://localhost:14250\"; \
         of xray: \"endpoint=http://localhost:2000,polling_interval=300\"",
    )
        .or_variable("OTEL_TRACES_SAMPLER_ARG"),
    Setting::new(
        "propagators",
        "[\"tracecontext\", \"baggage\"]",
        "which headers carry the context, read in this order: tracecontext, baggage, b3, b3multi, \
         jaeger, or none alone",
    )
    .or_variable("OTEL_PROPAGATORS"),
    Setting::new("resource", "{}", "attributes of this instance; added to those of the variables")
        .or_variable("OTEL_RESOURCE_ATTRIBUTES OTEL_SERVICE_NAME"),
    Setting::new(
        "rule",
        "[]",
        "sampling ratios by { route, method, header = \"name\" or \"name=value\" }; the first that \
         matches stands in place of the sampler's own ratio",
    ),
    Setting::new(
        "incoming",
        "\"continue\"",
        "what is done with a caller's context: continue, link (a new trace, linked to it) or ignore",
    ),
    Setting::new(
        "trust",
        "[]",
        "incoming by { peer, route, incoming }; the first that matches stands in place of incoming",
    ),
    Setting::new(
        "exclude",
        "[]",
        "route templates or path prefixes that are not recorded, but pass their context on",
    ),
    Setting::new("trusted-proxies", "[]", "networks whose Forwarded and X-Forwarded-For count"),
    Setting::new(
        "known-methods",
        "[\"GET\", \"POST\", \"PUT\", \"DELETE\", \"HEAD\", \"OPTIONS\", \"PATCH\", \"CONNECT\", \
         \"TRACE\"]",
        "request methods that are told apart; all others are _OTHER",
    )
    .or_variable("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS"),
    Setting::new(
        "redact-query-keys",
        "[\"AWSAccessKeyId\", \"Signature\", \"X-Amz-Credential\", \"X-Amz-Security-Token\", \
         \"X-Amz-Signature\", \"X-Goog-Signature\", \"sig\"]",
        "query keys whose values are redacted, beside those of the default, which always are",
    ),
    Setting::new("capture-request-headers", "[]", "request headers that are recorded, by name"),
    Setting::new("capture-response-headers", "[]", "response headers that are recorded, by name"),
    Setting::new("keep-errors", "false", "export traces that failed although they are not sampled"),
    Setting::new(
        "keep-slower-than",
        "\"none\"",
        "export requests that took longer although they are not sampled: a duration, or none",
    ),
    Setting::new(
        "keep-max-spans",
        "8192",
        "how many spans may wait for the end of their request for the two above",
    ),
    Setting::new("keep-max-bytes", "8388608", "and how many bytes they may take"),
    Setting::new(
        "response-header",
        "\"off\"",
        "tells the client its trace: traceresponse, server-timing or off",
    ),
    Setting::new(
        "max-distinct",
        "1000",
        "how many routes and values of a captured header are told apart; all further are one",
    ),
];
