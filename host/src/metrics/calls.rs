//! `http.client.*`: what this instance asked of others, an attempt at a time.

use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};

use http::{Request, StatusCode, Version, uri::Authority};
use plugin_api::{
    End, SpanContext,
    metrics::{Attribute, Visit},
};

use super::{
    method::{self, Method},
    series::{self, Ended, Names, Table},
};

const NAMES: Names = Names {
    duration: ("http.client.request.duration", "Duration of HTTP client requests."),
    request_size: ("http.client.request.body.size", "Size of HTTP client request bodies."),
    response_size: ("http.client.response.body.size", "Size of HTTP client response bodies."),
};

/// All outgoing requests.
#[derive(Debug, Default)]
pub(crate) struct Calls(Table<Key>);

/// What calls are told apart by.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    method: Method,
    is_https: bool,
    server: Option<Server>,
    answer: Option<(StatusCode, Version)>,
    fault: Option<&'static str>,
}

/// As it stands in the URL: an `Authority` compares itself byte by byte, without regard to case.
#[derive(Clone, Debug)]
struct Server(Authority);

impl PartialEq for Server {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for Server {}

impl Hash for Server {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_str().hash(state);
    }
}

/// Of what tells most of them apart: what is left out costs hardly ever a comparison more.
impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.method.hash_with(self.answer.map(|(status, _)| status), state);
        self.server.hash(state);
    }
}

impl Key {
    fn attributes(&self) -> Vec<Attribute<'_>> {
        let mut attributes = vec![Attribute::text("http.request.method", self.method.name())];
        if let Some(Server(server)) = &self.server {
            let port = server.port_u16().unwrap_or(if self.is_https { 443 } else { 80 });
            // An IPv6 address is an address without its brackets.
            let address = server.host().trim_start_matches('[').trim_end_matches(']');
            attributes.push(Attribute::text("server.address", address));
            attributes.push(Attribute::number("server.port", port.into()));
        }
        let version = self.answer.map(|(_, version)| method::version(version));
        let version = version.map(|version| Attribute::text("network.protocol.version", version));
        attributes.extend(version);
        let status = self.answer.as_ref().map(|(status, _)| status);
        attributes.extend(series::end_attributes(status, self.fault, 400));
        attributes
    }
}

impl Calls {
    /// An attempt begins, at this time of the monotonic clock.
    pub(crate) fn begin<B>(self: &Arc<Self>, head: &Request<B>, began: u64) -> Call {
        let key = Key {
            method: Method::of(head.method()),
            is_https: head.uri().scheme_str() == Some("https"),
            server: head.uri().authority().cloned().map(Server),
            answer: None,
            fault: None,
        };
        Call { calls: Arc::clone(self), key, began }
    }

    pub(crate) fn visit(&self, visit: Visit<'_>) {
        self.0.visit(&NAMES, Key::attributes, visit);
    }
}

/// An attempt that is under way.
#[derive(Debug)]
pub(crate) struct Call {
    calls: Arc<Calls>,
    key: Key,
    /// On the monotonic clock.
    began: u64,
}

impl Call {
    /// A response head has come.
    pub(crate) fn answered(&mut self, status: StatusCode, version: Version) {
        self.key.answer = Some((status, version));
    }

    /// It is over; called once, and not at all where it is not to be measured. `span` is the one
    /// that is recorded of it.
    pub(crate) fn measure(&mut self, end: &End, span: Option<SpanContext>) {
        self.key.fault = series::fault(end.outcome);
        self.calls.0.record(&self.key, &Ended::after(self.began, end, span));
    }
}

#[cfg(test)]
mod tests {
    use plugin_api::Outcome;

    use super::*;
    use crate::metrics::testing::shown;

    #[test]
    fn a_call_is_told_apart_by_its_server_and_its_end() {
        for (uri, status, outcome, wanted) in [
            (
                "http://There:81/x",
                Some(200),
                Outcome::COMPLETE,
                "server.address=There server.port=81 network.protocol.version=1.1 \
                 http.response.status_code=200",
            ),
            (
                "http://user:pw@there/x",
                Some(404),
                Outcome::COMPLETE,
                "server.address=there server.port=80 network.protocol.version=1.1 \
                 http.response.status_code=404 error.type=404",
            ),
            (
                "https://[::1]/x",
                None,
                Outcome::CONNECT_FAILED,
                "server.address=::1 server.port=443 error.type=connect_failed",
            ),
        ] {
            let calls = Arc::<Calls>::default();
            let head = http::Request::get(uri).body(()).unwrap();
            let mut call = calls.begin(&head, 0);
            let status = status.map(|status| StatusCode::from_u16(status).unwrap());
            status.into_iter().for_each(|status| call.answered(status, Version::HTTP_11));
            call.measure(&End::new(outcome, 0, 0), None);
            let metrics = shown(|visit| calls.visit(visit));
            assert_eq!(metrics[0].points[0].0, format!("http.request.method=GET {wanted}"));
            assert_eq!(metrics[0].points[0].2, 1);
        }
    }
}
