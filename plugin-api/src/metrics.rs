//! Measurements, as one side shows them to the other: plain data, borrowed for one call.
//!
//! Whoever measures keeps the values and calls a visitor with each [`Metric`] when it is asked;
//! whoever asks copies what it wants to keep. The host shows what it counts of its requests by
//! [`Host::metrics`](crate::Host::metrics), a plugin what it counts of itself by
//! [`Plugin::metrics`](crate::Plugin::metrics). Names, units and attributes are those of
//! OpenTelemetry's semantic conventions; values are totals since [`Metric::start`] (cumulative
//! temporality).

use std::fmt;

use abi_stable::{
    StableAbi,
    std_types::{RSlice, RStr},
};

/// Receives metrics, one at a time.
pub type Visit<'v> = &'v mut dyn FnMut(&Metric<'_>);

/// How the values of a metric are to be read; an open set.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricKind(u32);

impl MetricKind {
    /// A sum that only grows.
    pub const COUNTER: Self = Self(1);
    /// A sum that grows and shrinks, and may be added over instances.
    pub const UP_DOWN_COUNTER: Self = Self(2);
    /// A value that says nothing when it is added to another.
    pub const GAUGE: Self = Self(3);
    /// How many values fell between each two of [`Metric::bounds`], and their sum.
    pub const HISTOGRAM: Self = Self(4);
}

/// One metric with all its points.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct Metric<'a> {
    name: RStr<'a>,
    unit: RStr<'a>,
    description: RStr<'a>,
    kind: MetricKind,
    is_whole: u32,
    start: u64,
    bounds: RSlice<'a, f64>,
    points: RSlice<'a, Point<'a>>,
    reserved: [u64; 4],
}

impl<'a> Metric<'a> {
    /// A metric without a point. `unit` is UCUM text such as `s`, `By` or `{request}`.
    #[must_use]
    pub const fn new(kind: MetricKind, name: &'a str, unit: &'a str, description: &'a str) -> Self {
        Self {
            name: RStr::from_str(name),
            unit: RStr::from_str(unit),
            description: RStr::from_str(description),
            kind,
            is_whole: 0,
            start: 0,
            bounds: RSlice::EMPTY,
            points: RSlice::EMPTY,
            reserved: [0; 4],
        }
    }

    /// The same metric, whose values are whole numbers.
    #[must_use]
    pub const fn whole(self) -> Self {
        Self { is_whole: 1, ..self }
    }

    /// The same metric, counted since `start`, in nanoseconds since 1970.
    #[must_use]
    pub const fn since(self, start: u64) -> Self {
        Self { start, ..self }
    }

    /// The same metric with the bounds of a histogram: upper ones, inclusive, ascending, finite.
    #[must_use]
    pub const fn with_bounds(self, bounds: &'a [f64]) -> Self {
        Self { bounds: RSlice::from_slice(bounds), ..self }
    }

    /// The same metric with these points, no two of which have the same attributes.
    #[must_use]
    pub const fn with_points(self, points: &'a [Point<'a>]) -> Self {
        Self { points: RSlice::from_slice(points), ..self }
    }

    /// The name, in the form of the semantic conventions: `http.server.request.duration`.
    #[must_use]
    pub fn name(&self) -> &'a str {
        self.name.as_str()
    }

    /// The unit, in UCUM's notation.
    #[must_use]
    pub fn unit(&self) -> &'a str {
        self.unit.as_str()
    }

    /// What is measured, in one sentence.
    #[must_use]
    pub fn description(&self) -> &'a str {
        self.description.as_str()
    }

    /// How the values are to be read.
    #[must_use]
    pub const fn kind(&self) -> MetricKind {
        self.kind
    }

    /// Whether the values are whole numbers.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.is_whole != 0
    }

    /// Since when the values count, in nanoseconds since 1970; 0 where that says nothing.
    #[must_use]
    pub const fn start(&self) -> u64 {
        self.start
    }

    /// The upper bounds of a histogram's buckets, inclusive; one more bucket is without a bound.
    #[must_use]
    pub fn bounds(&self) -> &'a [f64] {
        self.bounds.as_slice()
    }

    /// The points.
    #[must_use]
    pub fn points(&self) -> &'a [Point<'a>] {
        self.points.as_slice()
    }
}

/// The value of a metric for one set of attributes.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct Point<'a> {
    attributes: RSlice<'a, Attribute<'a>>,
    value: f64,
    counts: RSlice<'a, u64>,
    exemplars: RSlice<'a, Exemplar>,
    reserved: [u64; 2],
}

impl<'a> Point<'a> {
    /// A point of a sum or a gauge.
    #[must_use]
    pub const fn new(attributes: &'a [Attribute<'a>], value: f64) -> Self {
        Self {
            attributes: RSlice::from_slice(attributes),
            value,
            counts: RSlice::EMPTY,
            exemplars: RSlice::EMPTY,
            reserved: [0; 2],
        }
    }

    /// A point of a histogram: how many values each bucket has, and the sum of all.
    #[must_use]
    pub const fn histogram(
        attributes: &'a [Attribute<'a>],
        counts: &'a [u64],
        sum: f64,
        exemplars: &'a [Exemplar],
    ) -> Self {
        let (counts, exemplars) = (RSlice::from_slice(counts), RSlice::from_slice(exemplars));
        Self { counts, exemplars, ..Self::new(attributes, sum) }
    }

    /// The attributes, each key once.
    #[must_use]
    pub fn attributes(&self) -> &'a [Attribute<'a>] {
        self.attributes.as_slice()
    }

    /// The value; of a histogram the sum of all values.
    #[must_use]
    pub const fn value(&self) -> f64 {
        self.value
    }

    /// How many values each bucket of a histogram has: one more than there are bounds.
    #[must_use]
    pub fn counts(&self) -> &'a [u64] {
        self.counts.as_slice()
    }

    /// Values whose trace is known, at most one for each bucket.
    #[must_use]
    pub fn exemplars(&self) -> &'a [Exemplar] {
        self.exemplars.as_slice()
    }
}

/// One value that was measured, and the span that it was measured in.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug, PartialEq)]
pub struct Exemplar {
    /// Big endian as on the wire.
    pub trace_id: [u8; 16],
    /// Big endian as on the wire.
    pub span_id: [u8; 8],
    /// When it was measured, in nanoseconds since 1970.
    pub time: u64,
    /// The value.
    pub value: f64,
}

/// What a point is told apart by.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct Attribute<'a> {
    key: RStr<'a>,
    text: RStr<'a>,
    number: i64,
    /// 0: text, 1: number, 2: flag. A reader that does not know the form takes it as text.
    form: u32,
}

/// The value of an [`Attribute`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttributeValue<'a> {
    /// Text.
    Text(&'a str),
    /// A whole number.
    Number(i64),
    /// Yes or no.
    Flag(bool),
}

impl<'a> Attribute<'a> {
    /// An attribute that is text.
    #[must_use]
    pub const fn text(key: &'a str, text: &'a str) -> Self {
        Self { key: RStr::from_str(key), text: RStr::from_str(text), number: 0, form: 0 }
    }

    /// An attribute that is a whole number.
    #[must_use]
    pub const fn number(key: &'a str, number: i64) -> Self {
        Self { key: RStr::from_str(key), text: RStr::from_str(""), number, form: 1 }
    }

    /// An attribute that is yes or no.
    #[must_use]
    pub const fn flag(key: &'a str, flag: bool) -> Self {
        Self { form: 2, ..Self::number(key, flag as i64) }
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> &'a str {
        self.key.as_str()
    }

    /// The value.
    #[must_use]
    pub fn value(&self) -> AttributeValue<'a> {
        match self.form {
            1 => AttributeValue::Number(self.number),
            2 => AttributeValue::Flag(self.number != 0),
            _ => AttributeValue::Text(self.text.as_str()),
        }
    }
}

impl fmt::Debug for Attribute<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={:?}", self.key(), self.value())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Host, Level, Service,
        adapter::{HostServices, host_object},
    };

    struct Counting;

    impl HostServices for Counting {
        fn log(&self, _: Level, _: &str, _: &str) {}

        fn service(&self) -> Service {
            Service::default()
        }

        fn metrics(&self, visit: Visit<'_>) {
            let attributes = [Attribute::text("a", "b"), Attribute::flag("c", true)];
            let exemplars = [Exemplar { trace_id: [1; 16], span_id: [2; 8], time: 3, value: 4.0 }];
            let points = [Point::histogram(&attributes, &[5, 6], 7.5, &exemplars)];
            let metric = Metric::new(MetricKind::HISTOGRAM, "x.y", "s", "How long.");
            visit(&metric.since(8).with_bounds(&[9.0]).with_points(&points));
            visit(&Metric::new(MetricKind::COUNTER, "z", "{it}", "How many.").whole());
            panic!("what was shown before is shown");
        }
    }

    #[test]
    fn a_metric_crosses_as_it_is() {
        let host = Host::new(host_object(Counting));
        let mut seen = Vec::new();
        host.metrics(&mut |metric| {
            let kind = (metric.kind(), metric.is_whole(), metric.start());
            seen.push((metric.name().to_owned(), kind, metric.points().len()));
            for point in metric.points() {
                assert_eq!((point.counts(), point.value()), (&[5, 6][..], 7.5));
                assert_eq!(format!("{:?}", point.attributes()), r#"[a=Text("b"), c=Flag(true)]"#);
                assert_eq!((point.exemplars()[0].time, metric.bounds()), (3, &[9.0][..]));
            }
            panic!("and the next one comes all the same");
        });
        let histogram = ("x.y".to_owned(), (MetricKind::HISTOGRAM, false, 8), 1);
        let counter = ("z".to_owned(), (MetricKind::COUNTER, true, 0), 0);
        assert_eq!(seen, [histogram, counter]);
    }
}
