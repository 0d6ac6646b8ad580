//! How many values fell between each two bounds, and the trace of a recent one in each bucket.

use plugin_api::{SpanContext, metrics::Exemplar};

use super::unix_nanos;
use crate::monotonic;

/// As many bounds as the conventions want for durations; one more bucket has none.
const BOUNDS: usize = 14;
const BUCKETS: usize = BOUNDS + 1;

/// Upper bounds, inclusive.
pub(super) type Bounds = [f64; BOUNDS];

/// Of durations, in seconds: HTTP metrics of the semantic conventions.
pub(super) const SECONDS: Bounds =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// Of sizes, in bytes: none, and then powers of four up to a gibibyte. The conventions name none.
pub(super) const BYTES: Bounds = [
    0.0,
    64.0,
    256.0,
    1024.0,
    4096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
    268_435_456.0,
    1_073_741_824.0,
];

/// Counts of values, whose bounds whoever records them knows.
#[derive(Clone, Debug, Default)]
pub(super) struct Histogram {
    counts: [u64; BUCKETS],
    sum: f64,
    /// Made for the first value whose trace is known; their times are of the monotonic clock.
    exemplars: Option<Box<[Option<Exemplar>; BUCKETS]>>,
}

impl Histogram {
    /// Counts a value; answers the bucket that it fell in.
    pub(super) fn record(&mut self, bounds: &Bounds, value: f64) -> usize {
        // Most values are quick answers and empty bodies.
        let is_least = value <= bounds[0];
        let bucket = if is_least { 0 } else { bounds.partition_point(|bound| *bound < value) };
        self.counts[bucket] += 1;
        self.sum += value;
        bucket
    }

    /// Keeps the span in which a value of this bucket was measured, at this time of the monotonic
    /// clock.
    pub(super) fn keep(&mut self, bucket: usize, value: f64, span: &SpanContext, time: u64) {
        let exemplar = Exemplar { trace_id: span.trace_id, span_id: span.span_id, time, value };
        self.exemplars.get_or_insert_default()[bucket] = Some(exemplar);
    }

    /// Counts all values of another one, which has the same bounds.
    pub(super) fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.sum += other.sum;
        let Some(others) = other.exemplars.as_deref() else { return };
        let own = self.exemplars.get_or_insert_default();
        for (own, other) in own.iter_mut().zip(others) {
            let time = |exemplar: &Option<Exemplar>| exemplar.map(|exemplar| exemplar.time);
            if time(own) < time(other) {
                *own = *other;
            }
        }
    }

    /// How many values each bucket has.
    pub(super) const fn counts(&self) -> &[u64; BUCKETS] {
        &self.counts
    }

    /// The sum of all values.
    pub(super) const fn sum(&self) -> f64 {
        self.sum
    }

    /// The newest value of each bucket whose trace is known, with its time in nanoseconds since 1970.
    pub(super) fn exemplars(&self) -> Vec<Exemplar> {
        let (wall, now) = (unix_nanos(), monotonic::now());
        let dated = |kept: &Exemplar| Exemplar {
            time: wall.saturating_sub(now.saturating_sub(kept.time)),
            ..*kept
        };
        self.exemplars.iter().flat_map(|all| all.iter().flatten().map(dated)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts a value that was measured in the span of this id, at this time.
    fn record(histogram: &mut Histogram, value: f64, id: u8, time: u64) {
        let bucket = histogram.record(&SECONDS, value);
        histogram.keep(bucket, value, &SpanContext::new([id; 16], [id; 8], 1), time);
    }

    #[test]
    fn a_bound_belongs_to_the_bucket_below_it() {
        for (value, bucket) in
            [(0.0, 0), (0.005, 0), (0.0051, 1), (0.1, 5), (1.0, 9), (10.0, 13), (10.1, 14)]
        {
            let mut histogram = Histogram::default();
            histogram.record(&SECONDS, value);
            let found = histogram.counts().iter().position(|count| *count == 1);
            assert_eq!(found, Some(bucket), "{value}");
        }
        let mut empty = Histogram::default();
        empty.record(&BYTES, 0.0);
        empty.record(&BYTES, 1.0);
        assert_eq!(empty.counts()[..3], [1, 1, 0]);
    }

    #[test]
    fn bounds_ascend() {
        for bounds in [SECONDS, BYTES] {
            assert!(bounds.is_sorted());
        }
    }

    #[test]
    fn a_bucket_keeps_the_newest_trace() {
        let (mut one, mut two) = (Histogram::default(), Histogram::default());
        let now = monotonic::now();
        record(&mut one, 0.001, 1, now - 4);
        record(&mut one, 0.002, 2, now - 3);
        one.record(&SECONDS, 0.003);
        record(&mut two, 3.0, 3, now - 2);
        record(&mut two, 0.004, 4, now - 1);
        one.add(&two);
        let kept: Vec<_> =
            one.exemplars().iter().map(|kept| (kept.trace_id[0], kept.value)).collect();
        assert_eq!(kept, [(4, 0.004), (3, 3.0)]);
        let age = unix_nanos().abs_diff(one.exemplars()[0].time);
        assert!(age < 60_000_000_000, "it is dated by the wall clock: {age} ns");
        assert_eq!((one.counts()[0], one.counts()[11]), (4, 1));
        assert!((one.sum() - 3.01).abs() < 1e-9);
    }
}
