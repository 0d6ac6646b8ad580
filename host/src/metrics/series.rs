//! Exchanges by what they are told apart by: a bounded number of series of each kind.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
};

use http::StatusCode;
use plugin_api::{
    End, Outcome, SpanContext,
    metrics::{Attribute, Metric, MetricKind, Point, Visit},
};
use rustc_hash::FxHashMap;

use super::{
    histogram::{BYTES, Bounds, Histogram, SECONDS},
    shards::Shards,
};
use crate::monotonic;

/// How many sets of attributes are told apart; all further ones are one series.
const MOST: usize = 1000;

/// How an exchange went.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    /// From the request head to the last byte of the response, or to where it was cut.
    seconds: f64,
    /// The end on the monotonic clock.
    at: u64,
    request_bytes: u64,
    response_bytes: u64,
    /// The span of the exchange, where one is recorded.
    span: Option<SpanContext>,
}

impl Ended {
    /// It began then, on the monotonic clock.
    pub(super) fn after(began: u64, end: &End, span: Option<SpanContext>) -> Self {
        let at = end.monotonic().unwrap_or_else(monotonic::now);
        let seconds = monotonic::seconds(began, at);
        let (request_bytes, response_bytes) = (end.request_bytes, end.response_bytes);
        Self { seconds, at, request_bytes, response_bytes, span }
    }
}

/// `error.type` of an outcome that is a fault. Someone who goes away is none.
pub(super) const fn fault(outcome: Outcome) -> Option<&'static str> {
    match outcome {
        Outcome::UPSTREAM_GONE => Some("upstream_gone"),
        Outcome::TIMEOUT => Some("timeout"),
        Outcome::SHED => Some("shed"),
        Outcome::PANIC => Some("panic"),
        Outcome::CONNECT_FAILED => Some("connect_failed"),
        Outcome::STOPPED => Some("stopped"),
        _ => None,
    }
}

/// The status code and `error.type`, which the status is where nothing else is; from `bad` on.
pub(super) fn end_attributes<'a>(
    status: Option<&'a StatusCode>,
    fault: Option<&'a str>,
    bad: u16,
) -> impl Iterator<Item = Attribute<'a>> {
    let code = status.map(|status| status.as_u16());
    let is_bad = |status: &&StatusCode| status.as_u16() >= bad;
    let fault = fault.or_else(|| status.filter(is_bad).map(StatusCode::as_str));
    let code = code.map(|code| Attribute::number("http.response.status_code", code.into()));
    code.into_iter().chain(fault.map(|fault| Attribute::text("error.type", fault)))
}

/// What all exchanges of the same attributes were like.
#[derive(Clone, Debug, Default)]
struct Series {
    duration: Histogram,
    request_size: Histogram,
    response_size: Histogram,
}

impl Series {
    fn record(&mut self, ended: &Ended) {
        let bucket = self.duration.record(&SECONDS, ended.seconds);
        if let Some(span) = &ended.span {
            self.duration.keep(bucket, ended.seconds, span, ended.at);
        }
        self.request_size.record(&BYTES, ended.request_bytes as f64);
        self.response_size.record(&BYTES, ended.response_bytes as f64);
    }

    fn add(&mut self, other: &Self) {
        self.duration.add(&other.duration);
        self.request_size.add(&other.request_size);
        self.response_size.add(&other.response_size);
    }
}

/// The series of one kind of exchange. To record allocates only where a thread meets a key, or a
/// sampled exchange of it, for the first time.
#[derive(Debug)]
pub(super) struct Table<K> {
    /// A thread's lock is taken by others only where there are more threads than shards, and by
    /// whoever reads.
    shards: Shards<Mutex<Shard<K>>>,
    /// Every key that any shard has.
    known: Mutex<HashSet<K>>,
}

#[derive(Debug)]
struct Shard<K> {
    /// Its hash is the quick kind: keys are made of routes and instances, which nobody else chooses.
    series: FxHashMap<K, Series>,
    overflow: Option<Series>,
}

impl<K> Default for Shard<K> {
    fn default() -> Self {
        Self { series: FxHashMap::default(), overflow: None }
    }
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self { shards: Shards::default(), known: Mutex::default() }
    }
}

impl<K: Eq + Hash + Clone> Table<K> {
    /// Counts an exchange of these attributes.
    pub(super) fn record(&self, key: &K, ended: &Ended) {
        let mut shard = lock(self.shards.here());
        match shard.series.get_mut(key) {
            Some(series) => series.record(ended),
            None => self.record_first(&mut shard, key, ended),
        }
    }

    #[cold]
    fn record_first(&self, shard: &mut Shard<K>, key: &K, ended: &Ended) {
        let mut known = lock(&self.known);
        let has_room = known.contains(key) || (known.len() < MOST && known.insert(key.clone()));
        drop(known);
        if has_room {
            shard.series.entry(key.clone()).or_default().record(ended);
        } else {
            shard.overflow.get_or_insert_default().record(ended);
        }
    }

    /// The sums over all threads, by key; `None` stands for the keys that found no room.
    fn sums(&self) -> HashMap<Option<K>, Series> {
        let mut sums = HashMap::<_, Series>::new();
        for shard in self.shards.iter() {
            let shard = lock(shard);
            for (key, series) in &shard.series {
                sums.entry(Some(key.clone())).or_default().add(series);
            }
            if let Some(overflow) = &shard.overflow {
                sums.entry(None).or_default().add(overflow);
            }
        }
        sums
    }

    /// Shows the three histograms under these names.
    pub(super) fn visit(
        &self,
        names: &Names,
        attributes: impl Fn(&K) -> Vec<Attribute<'_>>,
        visit: Visit<'_>,
    ) {
        let sums = self.sums();
        let attributes: Vec<_> = sums
            .keys()
            .map(|key| match key {
                Some(key) => attributes(key),
                None => vec![Attribute::flag("otel.metric.overflow", true)],
            })
            .collect();
        let mut show =
            |(name, description), unit, bounds: &Bounds, pick: fn(&Series) -> &Histogram| {
                let exemplars: Vec<_> =
                    sums.values().map(|series| pick(series).exemplars()).collect();
                let points = sums.values().map(pick).zip(&attributes).zip(&exemplars);
                let points: Vec<_> = points
                    .map(|((histogram, attributes), exemplars)| {
                        Point::histogram(attributes, histogram.counts(), histogram.sum(), exemplars)
                    })
                    .collect();
                let metric = Metric::new(MetricKind::HISTOGRAM, name, unit, description);
                visit(&metric.with_bounds(bounds).with_points(&points));
            };
        show(names.duration, "s", &SECONDS, |series| &series.duration);
        show(names.request_size, "By", &BYTES, |series| &series.request_size);
        show(names.response_size, "By", &BYTES, |series| &series.response_size);
    }
}

/// The name and the description of each histogram.
pub(super) struct Names {
    pub(super) duration: (&'static str, &'static str),
    pub(super) request_size: (&'static str, &'static str),
    pub(super) response_size: (&'static str, &'static str),
}

// No code that holds a lock can panic half-way, so a poisoned value is a good one.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const ENDED: Ended =
        Ended { seconds: 0.5, at: 0, request_bytes: 1, response_bytes: 2, span: None };

    fn count(series: &Series) -> u64 {
        series.duration.counts().iter().sum()
    }

    #[test]
    fn threads_lose_no_count() {
        let table = Table::<usize>::default();
        thread::scope(|scope| {
            for thread in 0..8 {
                let table = &table;
                scope.spawn(move || {
                    (0..3000).for_each(|n| table.record(&((n + thread) % 3), &ENDED));
                });
            }
        });
        let sums = table.sums();
        assert_eq!(sums.values().map(count).collect::<Vec<_>>(), [8000; 3]);
        assert!((sums[&Some(1)].response_size.sum() - 16000.0).abs() < 1e-9);
    }

    #[test]
    fn keys_past_the_limit_are_one_and_those_before_stay() {
        let table = Table::<usize>::default();
        (0..MOST + 5).for_each(|key| table.record(&key, &ENDED));
        // A thread that has not met a key yet must not take it for a new one.
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| [0, MOST - 1, MOST].map(|key| table.record(&key, &ENDED)));
            }
        });
        let sums = table.sums();
        assert_eq!(sums.len(), MOST + 1);
        assert_eq!(count(&sums[&None]), 5 + 4);
        assert_eq!(count(&sums[&Some(MOST - 1)]), 1 + 4);
        let mut names = 0;
        let shown =
            Names { duration: ("d", ""), request_size: ("q", ""), response_size: ("r", "") };
        table.visit(&shown, |_| Vec::new(), &mut |metric| {
            names += 1;
            assert_eq!(metric.points().len(), MOST + 1);
            let mut all = metric.points().iter().flat_map(Point::attributes);
            assert_eq!(format!("{:?}", all.next()), "Some(otel.metric.overflow=Flag(true))");
            assert!(all.next().is_none());
        });
        assert_eq!(names, 3);
    }
}
