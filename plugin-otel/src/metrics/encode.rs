//! Metrics as OTLP has them: `opentelemetry/proto/metrics/v1/metrics.proto`.

use std::mem;

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value},
    metrics::v1::{
        AggregationTemporality, Exemplar, Gauge, Histogram, HistogramDataPoint, Metric,
        NumberDataPoint, Sum, exemplar, metric, number_data_point,
    },
};
use plugin_api::metrics::{self, Attribute, AttributeValue, MetricKind, Point};
use prost::Message as _;

use crate::otlp;

/// The tag of `ScopeMetrics.metrics`.
const METRICS: u8 = 0x12;
const CUMULATIVE: i32 = AggregationTemporality::Cumulative as i32;

/// A part that is as large takes no more metrics, in bytes: receivers over gRPC take 4 MiB by default, and
/// one metric with all the sets of attributes that it may have can take more than one.
const FULL: usize = 512 * 1024;

/// One collection, in parts that are exported one by one.
pub(super) struct Encoder {
    now: u64,
    exemplars: bool,
    parts: Vec<Part>,
}

/// Some metrics: fields of a `ScopeMetrics`.
#[derive(Debug, Default)]
pub(super) struct Part {
    /// How many data points it has.
    pub(super) points: usize,
    pub(super) bytes: Vec<u8>,
}

impl Encoder {
    /// A collection of this moment, in nanoseconds since 1970, with or without exemplars.
    pub(super) const fn new(now: u64, exemplars: bool) -> Self {
        Self { now, exemplars, parts: Vec::new() }
    }

    /// Adds a metric; one of a kind that nobody knows yet is left out.
    pub(super) fn add(&mut self, metric: &metrics::Metric<'_>) {
        let Some(encoded) = self.metric(metric) else { return };
        let mut part = self.parts.pop().unwrap_or_default();
        if part.bytes.len() >= FULL {
            self.parts.push(mem::take(&mut part));
        }
        part.points += metric.points().len();
        otlp::bytes(&mut part.bytes, METRICS, &encoded.encode_to_vec());
        self.parts.push(part);
    }

    /// The whole collection.
    pub(super) fn finish(self) -> Vec<Part> {
        self.parts
    }

    fn metric(&self, metric: &metrics::Metric<'_>) -> Option<Metric> {
        let data = match metric.kind() {
            kind @ (MetricKind::COUNTER | MetricKind::UP_DOWN_COUNTER) => metric::Data::Sum(Sum {
                data_points: self.numbers(metric),
                aggregation_temporality: CUMULATIVE,
                is_monotonic: kind == MetricKind::COUNTER,
            }),
            MetricKind::GAUGE => metric::Data::Gauge(Gauge { data_points: self.numbers(metric) }),
            MetricKind::HISTOGRAM => {
                let point = |point: &Point<'_>| self.histogram(metric, point);
                let data_points = metric.points().iter().map(point).collect();
                let aggregation_temporality = CUMULATIVE;
                metric::Data::Histogram(Histogram { data_points, aggregation_temporality })
            }
            _ => return None,
        };
        Some(Metric {
            name: metric.name().to_owned(),
            description: metric.description().to_owned(),
            unit: metric.unit().to_owned(),
            data: Some(data),
            metadata: Vec::new(),
        })
    }

    fn numbers(&self, metric: &metrics::Metric<'_>) -> Vec<NumberDataPoint> {
        let value = |value: f64| match metric.is_whole() {
            #[allow(clippy::cast_possible_truncation, reason = "whoever counts says it is whole")]
            true => number_data_point::Value::AsInt(value as i64),
            false => number_data_point::Value::AsDouble(value),
        };
        let point = |point: &Point<'_>| NumberDataPoint {
            attributes: pairs(point.attributes()),
            start_time_unix_nano: metric.start(),
            time_unix_nano: self.now,
            exemplars: Vec::new(),
            flags: 0,
            value: Some(value(point.value())),
        };
        metric.points().iter().map(point).collect()
    }

    fn histogram(&self, metric: &metrics::Metric<'_>, point: &Point<'_>) -> HistogramDataPoint {
        let exemplars = if self.exemplars { point.exemplars() } else { &[] };
        HistogramDataPoint {
            attributes: pairs(point.attributes()),
            start_time_unix_nano: metric.start(),
            time_unix_nano: self.now,
            count: point.counts().iter().sum(),
            sum: Some(point.value()),
            bucket_counts: point.counts().to_vec(),
            explicit_bounds: metric.bounds().to_vec(),
            exemplars: exemplars.iter().map(exemplar).collect(),
            flags: 0,
            min: None,
            max: None,
        }
    }
}

fn exemplar(exemplar: &metrics::Exemplar) -> Exemplar {
    Exemplar {
        filtered_attributes: Vec::new(),
        time_unix_nano: exemplar.time,
        span_id: exemplar.span_id.to_vec(),
        trace_id: exemplar.trace_id.to_vec(),
        value: Some(exemplar::Value::AsDouble(exemplar.value)),
    }
}

fn pairs(attributes: &[Attribute<'_>]) -> Vec<KeyValue> {
    let pair = |attribute: &Attribute<'_>| {
        let value = match attribute.value() {
            AttributeValue::Text(text) => any_value::Value::StringValue(text.to_owned()),
            AttributeValue::Number(number) => any_value::Value::IntValue(number),
            AttributeValue::Flag(flag) => any_value::Value::BoolValue(flag),
        };
        let value = Some(AnyValue { value: Some(value) });
        KeyValue { key: attribute.key().to_owned(), value, ..KeyValue::default() }
    };
    attributes.iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::metrics::v1::ScopeMetrics;

    use super::*;

    fn decoded(encoder: Encoder) -> Vec<Metric> {
        encoder.finish().iter().flat_map(metrics_of).collect()
    }

    fn metrics_of(Part { points, bytes }: &Part) -> Vec<Metric> {
        let metrics = ScopeMetrics::decode(&**bytes).unwrap().metrics;
        let each = metrics.iter().map(|metric| match metric.data.as_ref().unwrap() {
            metric::Data::Sum(sum) => sum.data_points.len(),
            metric::Data::Gauge(gauge) => gauge.data_points.len(),
            metric::Data::Histogram(histogram) => histogram.data_points.len(),
            other => panic!("{other:?}"),
        });
        assert_eq!(each.sum::<usize>(), *points);
        metrics
    }

    #[test]
    fn numbers_keep_their_kind() {
        let attributes = [Attribute::text("a", "b"), Attribute::flag("c", true)];
        let points = [Point::new(&attributes, 7.0), Point::new(&[], 8.0)];
        let mut encoder = Encoder::new(9, true);
        for kind in [MetricKind::COUNTER, MetricKind::UP_DOWN_COUNTER, MetricKind::GAUGE] {
            let metric = metrics::Metric::new(kind, "x.y", "By", "How many.");
            encoder.add(&metric.whole().since(5).with_points(&points));
        }
        let seconds = metrics::Metric::new(MetricKind::COUNTER, "z", "s", "");
        encoder.add(&seconds.with_points(&points[1..]));
        let [counter, up_down, gauge, seconds] = &decoded(encoder)[..] else { panic!("four") };
        assert_eq!((&*counter.name, &*counter.unit), ("x.y", "By"));
        assert_eq!(counter.description, "How many.");
        let Some(metric::Data::Sum(sum)) = &counter.data else { panic!("{counter:?}") };
        assert!(sum.is_monotonic && sum.aggregation_temporality == CUMULATIVE);
        let point = &sum.data_points[0];
        assert_eq!((point.start_time_unix_nano, point.time_unix_nano), (5, 9));
        assert_eq!(point.value, Some(number_data_point::Value::AsInt(7)));
        assert_eq!(point.attributes[1].key, "c");
        let Some(metric::Data::Sum(sum)) = &up_down.data else { panic!("{up_down:?}") };
        assert!(!sum.is_monotonic && sum.data_points.len() == 2);
        let Some(metric::Data::Gauge(values)) = &gauge.data else { panic!("{gauge:?}") };
        assert_eq!(values.data_points.len(), 2);
        let Some(metric::Data::Sum(sum)) = &seconds.data else { panic!("{seconds:?}") };
        assert_eq!(sum.data_points[0].value, Some(number_data_point::Value::AsDouble(8.0)));
    }

    #[test]
    fn a_histogram_has_its_exemplars_where_they_are_wanted() {
        let exemplars =
            [metrics::Exemplar { trace_id: [1; 16], span_id: [2; 8], time: 3, value: 4.5 }];
        let points = [Point::histogram(&[], &[1, 0, 2], 6.5, &exemplars)];
        let metric = metrics::Metric::new(MetricKind::HISTOGRAM, "x", "s", "");
        let metric = metric.with_bounds(&[1.0, 2.0]).with_points(&points);
        for wanted in [true, false] {
            let mut encoder = Encoder::new(9, wanted);
            encoder.add(&metric);
            let metric = decoded(encoder).remove(0);
            let Some(metric::Data::Histogram(histogram)) = metric.data else { panic!("{wanted}") };
            let point = &histogram.data_points[0];
            assert_eq!((point.count, point.sum), (3, Some(6.5)));
            assert_eq!(point.bucket_counts, [1, 0, 2]);
            assert_eq!(point.explicit_bounds, [1.0, 2.0]);
            let named: Vec<_> = point.exemplars.iter().map(|one| one.trace_id.clone()).collect();
            assert_eq!(named, Vec::from_iter(wanted.then(|| vec![1; 16])));
        }
    }

    #[test]
    fn a_large_collection_comes_in_parts_that_any_receiver_takes() {
        let route = "/".repeat(200);
        let attributes = [Attribute::text("http.route", &route)];
        let points = vec![Point::new(&attributes, 7.0); 1000];
        let mut encoder = Encoder::new(9, true);
        for _ in 0..10 {
            let metric = metrics::Metric::new(MetricKind::COUNTER, "x.y", "By", "How many.");
            encoder.add(&metric.with_points(&points));
        }
        let parts = encoder.finish();
        assert!(parts.len() > 1 && parts.iter().all(|part| part.bytes.len() < 2 * FULL));
        assert_eq!(parts.iter().flat_map(metrics_of).count(), 10);
    }
}
