//! A metric's point as it arrives at the collector.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Exemplar, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    metric::Data, number_data_point,
};
use serde_json::Value;

use crate::collector::{hex, plain};

/// The value of one metric for one set of attributes.
#[derive(Clone, Debug)]
pub struct MetricPoint {
    /// The metric's name.
    pub name: String,
    /// Its unit.
    pub unit: String,
    /// Whether it is a sum that only grows, a sum, a gauge or a histogram.
    pub kind: MetricKind,
    /// The attributes; JSON values compare with plain ones.
    pub attributes: BTreeMap<String, Value>,
    /// Nanoseconds since 1970.
    pub start: u64,
    /// Nanoseconds since 1970.
    pub time: u64,
    /// The value; of a histogram the sum.
    pub value: f64,
    /// How many values each bucket of a histogram has.
    pub counts: Vec<u64>,
    /// The upper bounds of a histogram.
    pub bounds: Vec<f64>,
    /// The trace ids and span ids that a histogram names.
    pub exemplars: Vec<(String, String)>,
    /// The instrumentation scope's name.
    pub scope: String,
    /// The attributes of the resource.
    pub resource: BTreeMap<String, Value>,
}

/// What a point is one of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// A cumulative sum that only grows.
    Counter,
    /// A cumulative sum.
    UpDownCounter,
    /// A gauge.
    Gauge,
    /// A cumulative histogram.
    Histogram,
}

impl MetricPoint {
    /// How many values a histogram has.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The value of the attribute `name`; null if there is none.
    #[must_use]
    pub fn attribute(&self, name: &str) -> &Value {
        self.attributes.get(name).unwrap_or(&Value::Null)
    }
}

/// All points of one resource.
pub(crate) fn flatten(metrics: ResourceMetrics) -> Vec<MetricPoint> {
    let resource = plain(metrics.resource.map(|resource| resource.attributes).unwrap_or_default());
    let mut points = Vec::new();
    for scope_metrics in metrics.scope_metrics {
        let scope = scope_metrics.scope.map(|scope| scope.name).unwrap_or_default();
        let of_scope = scope_metrics.metrics.into_iter().flat_map(of_metric);
        points.extend(of_scope.map(|point| MetricPoint {
            scope: scope.clone(),
            resource: resource.clone(),
            ..point
        }));
    }
    points
}

fn of_metric(metric: Metric) -> Vec<MetricPoint> {
    let (name, unit) = (metric.name, metric.unit);
    let cumulative = AggregationTemporality::Cumulative as i32;
    let points: Vec<_> = match metric.data.expect("a metric with data") {
        Data::Sum(sum) => {
            assert_eq!(sum.aggregation_temporality, cumulative, "{name}");
            let kind =
                if sum.is_monotonic { MetricKind::Counter } else { MetricKind::UpDownCounter };
            sum.data_points.into_iter().map(|point| of_number(kind, point)).collect()
        }
        Data::Gauge(gauge) => {
            gauge.data_points.into_iter().map(|one| of_number(MetricKind::Gauge, one)).collect()
        }
        Data::Histogram(histogram) => {
            assert_eq!(histogram.aggregation_temporality, cumulative, "{name}");
            histogram.data_points.into_iter().map(of_histogram).collect()
        }
        other => panic!("a metric of another kind: {other:?}"),
    };
    let named = |point| MetricPoint { name: name.clone(), unit: unit.clone(), ..point };
    points.into_iter().map(named).collect()
}

fn of_number(kind: MetricKind, point: NumberDataPoint) -> MetricPoint {
    let value = match point.value.expect("a point with a value") {
        number_data_point::Value::AsDouble(value) => value,
        number_data_point::Value::AsInt(value) => value as f64,
    };
    let (start, time) = (point.start_time_unix_nano, point.time_unix_nano);
    let attributes = plain(point.attributes);
    MetricPoint { attributes, start, time, value, ..empty(kind) }
}

fn of_histogram(point: HistogramDataPoint) -> MetricPoint {
    let of_exemplar = |one: &Exemplar| (hex(&one.trace_id), hex(&one.span_id));
    assert_eq!(point.bucket_counts.iter().sum::<u64>(), point.count);
    assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
    MetricPoint {
        attributes: plain(point.attributes),
        start: point.start_time_unix_nano,
        time: point.time_unix_nano,
        value: point.sum.unwrap_or_default(),
        counts: point.bucket_counts,
        bounds: point.explicit_bounds,
        exemplars: point.exemplars.iter().map(of_exemplar).collect(),
        ..empty(MetricKind::Histogram)
    }
}

fn empty(kind: MetricKind) -> MetricPoint {
    MetricPoint {
        name: String::new(),
        unit: String::new(),
        kind,
        attributes: BTreeMap::new(),
        start: 0,
        time: 0,
        value: 0.0,
        counts: Vec::new(),
        bounds: Vec::new(),
        exemplars: Vec::new(),
        scope: String::new(),
        resource: BTreeMap::new(),
    }
}
