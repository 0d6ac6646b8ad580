//! `http.server.*`: what was asked of this instance.

use std::{
    hash::{Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use http::{StatusCode, Version};
use plugin_api::{
    End, SpanContext,
    metrics::{Attribute, Metric, MetricKind, Point, Visit},
};

use super::{
    method::{self, Method},
    series::{self, Ended, Names, Table},
    shards::Shards,
};

const NAMES: Names = Names {
    duration: ("http.server.request.duration", "Duration of HTTP server requests."),
    request_size: ("http.server.request.body.size", "Size of HTTP server request bodies."),
    response_size: ("http.server.response.body.size", "Size of HTTP server response bodies."),
};

const SCHEMES: [&str; 2] = ["http", "https"];

/// All incoming requests.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    table: Table<Key>,
    /// By method and scheme. A request may end on another thread than it began on.
    begun: Shards<Counters>,
    ended: Shards<Counters>,
}

type Counters = [[AtomicU64; SCHEMES.len()]; Method::COUNT];

/// What requests are told apart by.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    method: Method,
    is_https: bool,
    version: Version,
    status: Option<StatusCode>,
    route: Option<Arc<str>>,
    fault: Option<&'static str>,
}

/// Of what tells most of them apart: what is left out costs hardly ever a comparison more.
impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.method.hash_with(self.status, state);
        self.route.hash(state);
    }
}

impl Key {
    fn counter<'a>(&self, counters: &'a Shards<Counters>) -> &'a AtomicU64 {
        &counters.here()[self.method.place()][usize::from(self.is_https)]
    }

    fn attributes(&self) -> Vec<Attribute<'_>> {
        let mut attributes = vec![
            Attribute::text("http.request.method", self.method.name()),
            Attribute::text("url.scheme", SCHEMES[usize::from(self.is_https)]),
            Attribute::text("network.protocol.version", method::version(self.version)),
        ];
        attributes.extend(self.route.as_deref().map(|route| Attribute::text("http.route", route)));
        attributes.extend(series::end_attributes(self.status.as_ref(), self.fault, 500));
        attributes
    }
}

impl Requests {
    /// A request has come, at this time of the monotonic clock.
    pub(crate) fn begin<B>(
        self: &Arc<Self>,
        head: &http::Request<B>,
        is_https: bool,
        began: u64,
    ) -> Request {
        let key = Key {
            method: Method::of(head.method()),
            is_https,
            version: head.version(),
            status: None,
            route: None,
            fault: None,
        };
        key.counter(&self.begun).fetch_add(1, Ordering::Relaxed);
        Request { began, key, requests: Arc::clone(self) }
    }

    pub(crate) fn visit(&self, visit: Visit<'_>) {
        self.table.visit(&NAMES, Key::attributes, visit);
        self.visit_active(visit);
    }

    fn visit_active(&self, visit: Visit<'_>) {
        // In this order: a request begins before it ends.
        let (ended, begun) = (sums(&self.ended), sums(&self.begun));
        let all = begun.iter().zip(&ended).filter(|((_, begun), _)| *begun > 0);
        let rows: Vec<_> = all
            .map(|(((method, scheme), begun), (_, ended))| {
                let method = Attribute::text("http.request.method", method.name());
                ([method, Attribute::text("url.scheme", scheme)], begun.saturating_sub(*ended))
            })
            .collect();
        let points: Vec<_> = rows
            .iter()
            .map(|(attributes, active)| Point::new(attributes, *active as f64))
            .collect();
        let metric = Metric::new(
            MetricKind::UP_DOWN_COUNTER,
            "http.server.active_requests",
            "{request}",
            "Number of active HTTP server requests.",
        );
        visit(&metric.whole().with_points(&points));
    }
}

/// The sums over all threads, by method and scheme.
fn sums(counters: &Shards<Counters>) -> Vec<((Method, &'static str), u64)> {
    let all = Method::all().flat_map(|method| [(method, 0), (method, 1)]);
    all.map(|(method, scheme)| {
        let counters = counters.iter().map(|shard| &shard[method.place()][scheme]);
        let sum = counters.map(|counter| counter.load(Ordering::Relaxed)).sum();
        ((method, SCHEMES[scheme]), sum)
    })
    .collect()
}

/// An incoming request that is under way: active until this is dropped.
#[derive(Debug)]
pub(crate) struct Request {
    requests: Arc<Requests>,
    key: Key,
    /// On the monotonic clock.
    began: u64,
}

impl Request {
    /// The template that matched it.
    pub(crate) fn route(&mut self, route: &Arc<str>) {
        self.key.route = Some(Arc::clone(route));
    }

    /// Its response head goes.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.key.status = Some(status);
    }

    /// It is over; called once, and not at all where it is not to be measured. `span` is the one
    /// that is recorded of it.
    pub(crate) fn measure(&mut self, end: &End, span: Option<SpanContext>) {
        self.key.fault = series::fault(end.outcome);
        self.requests.table.record(&self.key, &Ended::after(self.began, end, span));
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.key.counter(&self.requests.ended).fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use plugin_api::Outcome;

    use super::*;
    use crate::metrics::testing::{Shown, shown};

    fn head(method: &str, uri: &str) -> http::Request<()> {
        http::Request::builder().method(method).uri(uri).body(()).unwrap()
    }

    fn all(requests: &Requests) -> Vec<Shown> {
        shown(|visit| requests.visit(visit))
    }

    #[test]
    fn a_request_is_told_apart_by_what_is_known_of_it() {
        let requests = Arc::<Requests>::default();
        let mut request = requests.begin(&head("GET", "/a/7"), false, 0);
        request.route(&Arc::from("/a/{b}"));
        request.answered(StatusCode::OK);
        request.measure(&End::new(Outcome::COMPLETE, 3, 5), None);
        drop(request);
        let known = "http.request.method=GET url.scheme=http network.protocol.version=1.1 \
                     http.route=/a/{b} http.response.status_code=200";
        let metrics = all(&requests);
        let names: Vec<_> = metrics.iter().map(|metric| &*metric.name).collect();
        assert_eq!(
            names,
            [
                "http.server.request.duration",
                "http.server.request.body.size",
                "http.server.response.body.size",
                "http.server.active_requests",
            ]
        );
        for (metric, sum) in metrics[1..3].iter().zip([3.0, 5.0]) {
            assert_eq!(metric.points, [(known.to_owned(), sum, 1)]);
        }
        assert_eq!(metrics[0].points[0].0, known);
    }

    #[test]
    fn the_end_says_what_went_wrong() {
        for (method, status, outcome, end) in [
            ("BREW", Some(500), Outcome::COMPLETE, "http.response.status_code=500 error.type=500"),
            ("PUT", Some(404), Outcome::COMPLETE, "http.response.status_code=404"),
            ("PUT", Some(503), Outcome::SHED, "http.response.status_code=503 error.type=shed"),
            (
                "PUT",
                Some(200),
                Outcome::UPSTREAM_GONE,
                "http.response.status_code=200 error.type=upstream_gone",
            ),
            ("PUT", None, Outcome::STOPPED, "error.type=stopped"),
            ("PUT", None, Outcome::CLIENT_GONE, ""),
        ] {
            let requests = Arc::<Requests>::default();
            let mut request = requests.begin(&head(method, "/"), true, 0);
            status
                .into_iter()
                .for_each(|status| request.answered(StatusCode::from_u16(status).unwrap()));
            request.measure(&End::new(outcome, 0, 0), None);
            let method = if method == "BREW" { "_OTHER" } else { method };
            let known = format!(
                "http.request.method={method} url.scheme=https network.protocol.version=1.1 {end}"
            );
            assert_eq!(all(&requests)[0].points[0].0, known.trim_end());
        }
    }

    #[test]
    fn a_request_is_active_until_it_is_dropped_measured_or_not() {
        let requests = Arc::<Requests>::default();
        let active = |wanted: f64| {
            let metrics = all(&requests);
            let get = "http.request.method=GET url.scheme=http".to_owned();
            assert_eq!(metrics.last().unwrap().points, [(get, wanted, 0)]);
        };
        let (one, two) = (
            requests.begin(&head("GET", "/"), false, 0),
            requests.begin(&head("GET", "/"), false, 0),
        );
        active(2.0);
        drop(one);
        active(1.0);
        std::thread::spawn(move || drop(two)).join().unwrap();
        active(0.0);
        assert_eq!(all(&requests)[0].points, []);
    }
}
