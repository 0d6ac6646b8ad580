//! What the host counts and times, shown as `GET /metrics` and to the plugin.
//!
//! [`Traffic`] and the process are always measured. [`Requests`] and [`Calls`] are fed by the layers
//! of an exchange, which are there with a plugin only, for every exchange whether it is sampled or
//! not. Nothing here is exported by itself: whoever asks is shown every metric by a visitor.

mod calls;
mod discovery;
mod exposition;
mod format;
mod histogram;
mod method;
mod names;
mod process;
mod requests;
mod series;
mod shards;
#[cfg(test)]
pub(crate) mod testing;
mod traffic;

use std::{
    sync::{Arc, OnceLock},
    time::{Instant, SystemTime},
};

use plugin_api::metrics::{Metric, MetricKind, Visit};
use tokio::sync::watch;

use self::discovery::Discovery;
pub(crate) use self::{
    calls::{Call, Calls},
    exposition::Exposition,
    format::Format,
    requests::{Request, Requests},
    traffic::{Ticket, Traffic},
};
use crate::{discovery::Health, stack::Directory};

/// Every measurement of this process.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// In nanoseconds since 1970.
    start: u64,
    began: Instant,
    pub(crate) traffic: Arc<Traffic>,
    pub(crate) requests: Arc<Requests>,
    pub(crate) calls: Arc<Calls>,
    discovery: OnceLock<Discovery>,
}

impl Metrics {
    /// Begins to count.
    pub(crate) fn new() -> Self {
        Self {
            start: unix_nanos(),
            began: Instant::now(),
            traffic: Arc::default(),
            requests: Arc::default(),
            calls: Arc::default(),
            discovery: OnceLock::new(),
        }
    }

    /// Shows what discovery knows too, from now on.
    pub(crate) fn observe(&self, directory: Directory, health: watch::Receiver<Health>) {
        // A second one would be a second start-up, which nothing can bring about.
        let _ = self.discovery.set(Discovery { directory, health });
    }

    /// Shows every metric that has a point.
    pub(crate) fn visit(&self, visit: Visit<'_>) {
        let mut since = |metric: &Metric<'_>| {
            let sum = metric.kind() != MetricKind::GAUGE;
            let start = if sum { self.start } else { 0 };
            if !metric.points().is_empty() {
                visit(&metric.since(start));
            }
        };
        self.requests.visit(&mut since);
        self.calls.visit(&mut since);
        self.traffic.visit(&mut since);
        if let Some(discovery) = self.discovery.get() {
            discovery.visit(&mut since);
        }
        process::visit(self.began, &mut since);
    }
}

fn unix_nanos() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use http::{StatusCode, Version};
    use plugin_api::{End, Outcome, SpanContext};

    use super::{testing::allocations, *};

    fn head(path: &str) -> http::Request<()> {
        let uri = format!("http://there:80{path}");
        http::Request::get(uri).body(()).unwrap()
    }

    #[test]
    fn to_measure_allocates_nothing_once_the_attributes_are_known() {
        let metrics = Metrics::new();
        let (incoming, outgoing) = (head("/a/7"), head("/x"));
        let route = Arc::from("/a/{b}");
        let span = SpanContext::new([1; 16], [2; 8], SpanContext::SAMPLED);
        let end = End::new(Outcome::COMPLETE, 3, 5);
        let exchange = || {
            let ticket = metrics.traffic.request();
            let mut request = metrics.requests.begin(&incoming, false, 0);
            request.route(&route);
            let mut call = metrics.calls.begin(&outgoing, 0);
            call.answered(StatusCode::OK, Version::HTTP_11);
            call.measure(&end, Some(span));
            request.answered(StatusCode::OK);
            request.measure(&end, Some(span));
            ticket.answered(StatusCode::OK);
        };
        assert!(allocations(exchange) > 0, "the first one does");
        assert_eq!(allocations(|| (0..1000).for_each(|_| exchange())), 0);
    }

    #[test]
    fn only_sums_have_a_beginning() {
        let metrics = Metrics::new();
        let mut kinds = Vec::new();
        metrics.visit(&mut |metric| {
            assert!(!metric.points().is_empty(), "{}", metric.name());
            assert_eq!(metric.start() == 0, metric.kind() == MetricKind::GAUGE);
            kinds.push(metric.kind());
        });
        for kind in [MetricKind::COUNTER, MetricKind::UP_DOWN_COUNTER, MetricKind::GAUGE] {
            assert!(kinds.contains(&kind), "{kind:?}");
        }
    }
}
