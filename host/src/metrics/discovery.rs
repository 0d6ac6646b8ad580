//! `host.discovery.*`: what the host knows of others.

use plugin_api::metrics::{Attribute, Metric, MetricKind, Point, Visit};
use tokio::sync::watch;

use crate::{
    discovery::{Health, Member},
    stack::Directory,
};

/// Where it knows that from.
#[derive(Debug)]
pub(super) struct Discovery {
    pub(super) directory: Directory,
    pub(super) health: watch::Receiver<Health>,
}

/// A gauge by service group, with what it counts of a member.
type ByGroup = (&'static str, &'static str, &'static str, fn(&Member) -> u32);

const BY_GROUP: [ByGroup; 3] = [
    (
        "host.discovery.instances",
        "{instance}",
        "Instances that service discovery knows, by service group.",
        |_| 1,
    ),
    (
        "host.discovery.ejected",
        "{instance}",
        "Instances that are left alone because no connection could be made, by service group.",
        |member| member.is_ejected().into(),
    ),
    (
        "host.discovery.in_flight",
        "{request}",
        "Requests that were sent to instances and whose response has not ended, by service group.",
        Member::in_flight,
    ),
];

impl Discovery {
    pub(super) fn visit(&self, visit: Visit<'_>) {
        let table = self.directory.table();
        let attributes: Vec<_> =
            table.groups().map(|(group, _)| [Attribute::text("service.group", group)]).collect();
        let gauge = |name, unit, description| {
            Metric::new(MetricKind::GAUGE, name, unit, description).whole()
        };
        for (name, unit, description, count) in BY_GROUP {
            let counts = table.groups().map(|(_, members)| members.iter().map(count).sum::<u32>());
            let points = attributes.iter().zip(counts);
            let points: Vec<_> =
                points.map(|(attributes, count)| Point::new(attributes, count.into())).collect();
            visit(&gauge(name, unit, description).with_points(&points));
        }
        let reachable = f64::from(u8::from(self.health.borrow().is_reachable()));
        let description = "Whether the store of service discovery answers: 1, or 0.";
        let store = gauge("host.discovery.reachable", "", description);
        visit(&store.with_points(&[Point::new(&[], reachable)]));
    }
}
