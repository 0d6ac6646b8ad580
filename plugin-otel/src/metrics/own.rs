//! What the plugin counts of itself: the conventions for metrics of an SDK, `otel.sdk.*`.

use std::sync::Arc;

use plugin_api::metrics::{Attribute, Metric, MetricKind, Point, Visit};

use crate::{
    clock::Clock,
    config::{Destination, Exporter, Protocol},
    pipeline::{Counts, Pipeline},
    semconv::{ERROR_TYPE, OTEL_COMPONENT_NAME, OTEL_COMPONENT_TYPE, OTEL_SPAN_SAMPLING_RESULT},
};

const SPANS: Names = Names {
    unit: "{span}",
    processor: Some(Processor {
        component: ("batching_span_processor", "batching_span_processor/0"),
        queue_size: "otel.sdk.processor.span.queue.size",
        queue_capacity: "otel.sdk.processor.span.queue.capacity",
        processed: "otel.sdk.processor.span.processed",
    }),
    inflight: "otel.sdk.exporter.span.inflight",
    exported: "otel.sdk.exporter.span.exported",
    exporters: [
        ("otlp_grpc_span_exporter", "otlp_grpc_span_exporter/0"),
        ("otlp_http_span_exporter", "otlp_http_span_exporter/0"),
        ("otlp_http_json_span_exporter", "otlp_http_json_span_exporter/0"),
        ("console_span_exporter", "console_span_exporter/0"),
    ],
};

const LOGS: Names = Names {
    unit: "{log_record}",
    processor: Some(Processor {
        component: ("batching_log_processor", "batching_log_processor/0"),
        queue_size: "otel.sdk.processor.log.queue.size",
        queue_capacity: "otel.sdk.processor.log.queue.capacity",
        processed: "otel.sdk.processor.log.processed",
    }),
    inflight: "otel.sdk.exporter.log.inflight",
    exported: "otel.sdk.exporter.log.exported",
    exporters: [
        ("otlp_grpc_log_exporter", "otlp_grpc_log_exporter/0"),
        ("otlp_http_log_exporter", "otlp_http_log_exporter/0"),
        ("otlp_http_json_log_exporter", "otlp_http_json_log_exporter/0"),
        ("console_log_exporter", "console_log_exporter/0"),
    ],
};

const METRICS: Names = Names {
    unit: "{data_point}",
    processor: None,
    inflight: "otel.sdk.exporter.metric_data_point.inflight",
    exported: "otel.sdk.exporter.metric_data_point.exported",
    exporters: [
        ("otlp_grpc_metric_exporter", "otlp_grpc_metric_exporter/0"),
        ("otlp_http_metric_exporter", "otlp_http_metric_exporter/0"),
        ("otlp_http_json_metric_exporter", "otlp_http_json_metric_exporter/0"),
        ("console_metric_exporter", "console_metric_exporter/0"),
    ],
};

/// The names of one signal.
#[derive(Debug)]
struct Names {
    unit: &'static str,
    /// `None` for metrics, which a reader collects.
    processor: Option<Processor>,
    inflight: &'static str,
    exported: &'static str,
    /// Type and name, over gRPC, in protobuf and in JSON over HTTP, and on the console.
    exporters: [(&'static str, &'static str); 4],
}

/// The names of what puts items in a queue.
#[derive(Debug)]
struct Processor {
    /// Type and name.
    component: (&'static str, &'static str),
    queue_size: &'static str,
    queue_capacity: &'static str,
    processed: &'static str,
}

/// The pipelines that are counted.
#[derive(Clone, Debug)]
pub(crate) struct Own {
    /// In nanoseconds since 1970.
    start: u64,
    spans: Counted,
    others: Vec<Counted>,
}

#[derive(Clone, Debug)]
struct Counted {
    names: &'static Names,
    exporter: (&'static str, &'static str),
    pipeline: Arc<Pipeline>,
}

impl Counted {
    fn new(names: &'static Names, to: &Destination, pipeline: &Arc<Pipeline>) -> Self {
        let [grpc, protobuf, json, console] = names.exporters;
        let exporter = match (to.exporter, to.protocol) {
            (Exporter::Console | Exporter::None, _) => console,
            (Exporter::Otlp, Protocol::Grpc) => grpc,
            (Exporter::Otlp, Protocol::HttpProtobuf) => protobuf,
            (Exporter::Otlp, Protocol::HttpJson) => json,
        };
        Self { names, exporter, pipeline: Arc::clone(pipeline) }
    }
}

impl Own {
    /// The counters of spans, which go there.
    pub(crate) fn new(to: &Destination, spans: &Arc<Pipeline>) -> Self {
        let spans = Counted::new(&SPANS, to, spans);
        Self { start: Clock::new().now(), spans, others: Vec::new() }
    }

    /// The same with those of log records.
    pub(crate) fn with_logs(mut self, to: &Destination, logs: &Arc<Pipeline>) -> Self {
        self.others.push(Counted::new(&LOGS, to, logs));
        self
    }

    /// The same with those of metrics.
    pub(crate) fn with_metrics(mut self, to: &Destination, metrics: &Arc<Pipeline>) -> Self {
        self.others.push(Counted::new(&METRICS, to, metrics));
        self
    }

    /// Shows them.
    pub(crate) fn visit(&self, visit: Visit<'_>) {
        let mut since = |metric: &Metric<'_>| visit(&metric.whole().since(self.start));
        let counts = self.spans.pipeline.counts();
        spans(&counts, &mut since);
        processor(&self.spans, &counts, &mut since);
        exporter(&self.spans, &counts, &mut since);
        for other in &self.others {
            let counts = other.pipeline.counts();
            processor(other, &counts, &mut since);
            exporter(other, &counts, &mut since);
        }
    }
}

fn spans(counts: &Counts, visit: Visit<'_>) {
    let [sampled, dropped] = ["RECORD_AND_SAMPLE", "DROP"]
        .map(|result| [Attribute::text(OTEL_SPAN_SAMPLING_RESULT, result)]);
    let started = [
        point(&sampled, counts.sampled),
        point(&dropped, counts.started.saturating_sub(counts.sampled)),
    ];
    let metric = |kind, name, description| Metric::new(kind, name, SPANS.unit, description);
    let description = "The number of created spans.";
    let metric_of_started = metric(MetricKind::COUNTER, "otel.sdk.span.started", description);
    visit(&metric_of_started.with_points(&started));
    let description = "The number of created spans that are recorded and have not ended.";
    let live = metric(MetricKind::UP_DOWN_COUNTER, "otel.sdk.span.live", description);
    visit(&live.with_points(&[point(&sampled, counts.live)]));
}

fn processor(counted: &Counted, counts: &Counts, visit: Visit<'_>) {
    let Counted { names, pipeline, .. } = counted;
    let Some(processor) = &names.processor else { return };
    let component = component(processor.component);
    let full = [component[0], component[1], Attribute::text(ERROR_TYPE, "queue_full")];
    let mut show = |kind, name, description, points: &[Point<'_>]| {
        visit(&Metric::new(kind, name, names.unit, description).with_points(points));
    };
    let waiting = point(&component, counts.queued.saturating_sub(counts.inflight));
    let up_down = MetricKind::UP_DOWN_COUNTER;
    show(up_down, processor.queue_size, "How many wait to be exported.", &[waiting]);
    let most = point(&component, pipeline.capacity() as u64);
    let description = "How many may wait, those on their way included.";
    show(up_down, processor.queue_capacity, description, &[most]);
    let failed = counts.dropped.saturating_sub(counts.refused);
    let processed = [point(&component, counts.exported + failed), point(&full, counts.refused)];
    let description = "How many the exporter was given, or the queue had no room for.";
    show(MetricKind::COUNTER, processor.processed, description, &processed);
}

fn exporter(counted: &Counted, counts: &Counts, visit: Visit<'_>) {
    let Counted { names, exporter, .. } = counted;
    let component = component(*exporter);
    let [rejected, failed] = ["rejected", "_OTHER"]
        .map(|error| [component[0], component[1], Attribute::text(ERROR_TYPE, error)]);
    let exported = [
        point(&component, counts.units.taken),
        point(&rejected, counts.units.rejected),
        point(&failed, counts.units.failed),
    ];
    let mut show = |kind, name, description, points: &[Point<'_>]| {
        visit(&Metric::new(kind, name, names.unit, description).with_points(points));
    };
    let description = "How many have been exported, or given up after all attempts.";
    show(MetricKind::COUNTER, names.exported, description, &exported);
    let description = "How many are on their way, attempts that follow included.";
    let inflight = [point(&component, counts.units.inflight)];
    show(MetricKind::UP_DOWN_COUNTER, names.inflight, description, &inflight);
}

fn component((kind, name): (&'static str, &'static str)) -> [Attribute<'static>; 2] {
    [Attribute::text(OTEL_COMPONENT_TYPE, kind), Attribute::text(OTEL_COMPONENT_NAME, name)]
}

fn point<'a>(attributes: &'a [Attribute<'a>], value: u64) -> Point<'a> {
    Point::new(attributes, value as f64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use plugin_api::metrics::AttributeValue;

    use super::*;
    use crate::testing::{Journal, Order, PATIENCE, config, pipeline};

    /// Values by name and the last attribute, which are told apart by it.
    fn values(own: &Own) -> BTreeMap<String, f64> {
        let mut values = BTreeMap::new();
        own.visit(&mut |metric| {
            for point in metric.points() {
                let last = point.attributes().last().map(Attribute::value);
                let Some(AttributeValue::Text(last)) = last else { panic!("{metric:?}") };
                values.insert(format!("{} {last}", metric.name()), point.value());
            }
            assert!(metric.is_whole() && metric.start() > 0);
        });
        values
    }

    #[test]
    fn the_names_are_those_of_the_conventions_and_the_values_add_up() {
        let config = config("always_on");
        let (pipeline, _exporter) = pipeline(&config, &Journal::default());
        let own = Own::new(&config.traces, &pipeline);
        (0..3).for_each(|_| pipeline.started(true));
        pipeline.started(false);
        pipeline.finish_encoded(1, Vec::new());
        pipeline.flush(PATIENCE).unwrap();
        pipeline.finish_encoded(1, vec![0; 16]);
        let wanted = [
            ("otel.sdk.exporter.span.exported _OTHER", 0.0),
            ("otel.sdk.exporter.span.exported otlp_grpc_span_exporter/0", 1.0),
            ("otel.sdk.exporter.span.exported rejected", 0.0),
            ("otel.sdk.exporter.span.inflight otlp_grpc_span_exporter/0", 0.0),
            ("otel.sdk.processor.span.processed batching_span_processor/0", 1.0),
            ("otel.sdk.processor.span.processed queue_full", 0.0),
            ("otel.sdk.processor.span.queue.capacity batching_span_processor/0", 65536.0),
            ("otel.sdk.processor.span.queue.size batching_span_processor/0", 1.0),
            ("otel.sdk.span.live RECORD_AND_SAMPLE", 1.0),
            ("otel.sdk.span.started DROP", 1.0),
            ("otel.sdk.span.started RECORD_AND_SAMPLE", 3.0),
        ];
        let wanted: BTreeMap<_, _> =
            wanted.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        assert_eq!(values(&own), wanted);
        let with_logs = values(&own.with_logs(&config.logs, &pipeline));
        assert_eq!(with_logs["otel.sdk.exporter.log.exported otlp_grpc_log_exporter/0"], 1.0);
        assert_eq!(with_logs["otel.sdk.processor.log.queue.size batching_log_processor/0"], 1.0);
    }

    #[test]
    fn what_a_collector_rejects_is_no_success_and_data_points_are_counted_one_by_one() {
        let config = config("always_on");
        let (pipeline, exporter) = pipeline(&config, &Journal::default());
        let own = Own::new(&config.traces, &pipeline).with_metrics(&config.metrics, &pipeline);
        for order in [Order::Take, Order::TakeLess, Order::Fail] {
            exporter.order(order);
            pipeline.finish_encoded(7, Vec::new());
            // It says what was lost.
            _ = pipeline.flush(PATIENCE);
        }
        let values = values(&own);
        let metric = "otel.sdk.exporter.metric_data_point";
        let exported = ["otlp_grpc_metric_exporter/0", "rejected", "_OTHER"]
            .map(|which| values[&format!("{metric}.exported {which}")]);
        assert_eq!(exported, [13.0, 1.0, 7.0]);
        assert_eq!(values["otel.sdk.exporter.span.exported rejected"], 1.0);
        let counts = pipeline.counts();
        assert_eq!((counts.exported, counts.dropped), (2, 1), "a collection that is taken in part");

        exporter.order(Order::Block);
        pipeline.finish_encoded(7, Vec::new());
        pipeline.export_now();
        exporter.wait_for_calls(4);
        let inflight = format!("{metric}.inflight otlp_grpc_metric_exporter/0");
        assert_eq!(self::values(&own)[&inflight], 7.0);
        exporter.order(Order::Take);
    }
}
