//! What is counted without a plugin too: responses by class, and what is open.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use http::StatusCode;
use plugin_api::metrics::{Attribute, Metric, MetricKind, Point, Visit};

use super::shards::Shards;

/// The classes of RFC 9110, section 15, and what had no response head.
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// The requests and connections of the public listener.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    begun: Shards<AtomicU64>,
    /// By class.
    ended: Shards<[AtomicU64; CLASSES.len()]>,
    opened: AtomicU64,
    closed: AtomicU64,
}

impl Traffic {
    /// A request has come.
    pub(crate) fn request(self: &Arc<Self>) -> Ticket {
        self.begun.here().fetch_add(1, Ordering::Relaxed);
        Ticket { traffic: Arc::clone(self), class: 0 }
    }

    /// A connection was accepted; it is open until the answer is dropped.
    pub(crate) fn connection(self: &Arc<Self>) -> Connection {
        self.opened.fetch_add(1, Ordering::Relaxed);
        Connection(Arc::clone(self))
    }

    pub(super) fn visit(&self, visit: Visit<'_>) {
        // In this order: what ends has begun before, though not all memory shows it in that order.
        let ended: Vec<u64> = (0..CLASSES.len())
            .map(|class| self.ended.iter().map(|shard| load(&shard[class])).sum())
            .collect();
        let begun: u64 = self.begun.iter().map(load).sum();
        let closed = load(&self.closed);
        let attributes = CLASSES.map(|class| [Attribute::text("class", class)]);
        let points = attributes.iter().zip(&ended);
        let points: Vec<_> =
            points.map(|(attributes, count)| Point::new(attributes, *count as f64)).collect();
        let metric = Metric::new(
            MetricKind::COUNTER,
            "host.requests",
            "{request}",
            "Requests by the class of their status; none: cut before there was a response head.",
        );
        visit(&metric.whole().with_points(&points));
        let mut open = |name, unit, description, open: u64| {
            let metric = Metric::new(MetricKind::UP_DOWN_COUNTER, name, unit, description);
            visit(&metric.whole().with_points(&[Point::new(&[], open as f64)]));
        };
        let active = begun.saturating_sub(ended.iter().sum());
        let description = "Requests that have no response head yet.";
        open("host.requests.active", "{request}", description, active);
        let connections = load(&self.opened).saturating_sub(closed);
        open("host.connections", "{connection}", "Open connections.", connections);
    }
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// A request that has no response head yet, unless it is dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    traffic: Arc<Traffic>,
    class: usize,
}

impl Ticket {
    /// The response head goes.
    pub(crate) fn answered(mut self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100);
        // Whatever HTTP may allow one day counts as the server's.
        self.class = class.min(CLASSES.len() - 1);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.traffic.ended.here()[self.class].fetch_add(1, Ordering::Relaxed);
    }
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Connection(Arc<Traffic>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.closed.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::testing::shown;

    #[test]
    fn a_request_is_active_until_its_head_and_counted_by_its_class() {
        let traffic = Arc::<Traffic>::default();
        let values = || -> Vec<f64> {
            let metrics = shown(|visit| traffic.visit(visit));
            metrics.iter().flat_map(|metric| &metric.points).map(|point| point.1).collect()
        };
        let [one, two, three] = [(); 3].map(|()| traffic.request());
        let connection = traffic.connection();
        assert_eq!(values(), [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 3.0, 1.0]);
        one.answered(StatusCode::NOT_FOUND);
        two.answered(StatusCode::from_u16(999).unwrap());
        drop(three);
        drop(connection);
        assert_eq!(values(), [1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn an_end_that_is_seen_before_its_beginning_leaves_nothing_open() {
        let traffic = Traffic::default();
        traffic.ended.here()[0].fetch_add(1, Ordering::Relaxed);
        traffic.closed.fetch_add(1, Ordering::Relaxed);
        let metrics = shown(|visit| traffic.visit(visit));
        let open = metrics[1..].iter().map(|metric| metric.points[0].1);
        assert_eq!(open.collect::<Vec<_>>(), [0.0, 0.0]);
    }
}
