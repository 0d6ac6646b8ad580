//! `host.discovery.*`: what the host knows of others.

use plugin_api::metrics::{Attribute, Metric, MetricKind, Point, Visit};
use tokio::sync::watch;

use crate::{discovery::Health, stack::Directory};

/// Where it knows that from.
#[derive(Debug)]
pub(super) struct Discovery {
    pub(super) directory: Directory,
    pub(super) health: watch::Receiver<Health>,
}

impl Discovery {
    pub(super) fn visit(&self, visit: Visit<'_>) {
        let groups = self.directory.groups();
        let attributes: Vec<_> =
            groups.keys().map(|group| [Attribute::text("service.group", group)]).collect();
        let counts = attributes.iter().zip(groups.values().map(Vec::len));
        let points: Vec<_> =
            counts.map(|(attributes, count)| Point::new(attributes, count as f64)).collect();
        let gauge = |name, unit, description| {
            Metric::new(MetricKind::GAUGE, name, unit, description).whole()
        };
        let description = "Instances that service discovery knows, by service group.";
        let instances = gauge("host.discovery.instances", "{instance}", description);
        visit(&instances.with_points(&points));
        let reachable = f64::from(u8::from(self.health.borrow().is_reachable()));
        let description = "Whether the store of service discovery answers: 1, or 0.";
        let store = gauge("host.discovery.reachable", "", description);
        visit(&store.with_points(&[Point::new(&[], reachable)]));
    }
}
