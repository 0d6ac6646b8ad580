//! Whom a request is to: `server.address` and `server.port`.

use std::cell::RefCell;

use crate::{
    otlp::{self, Place},
    record::{Kind, Record},
    semconv,
};

/// The host and the port that a client named; the scheme's port where it named none.
pub(crate) fn host_and_port<'a>(authority: &'a str, scheme: &str) -> (&'a str, Option<u16>) {
    split(authority, port_of(scheme))
}

fn port_of(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

fn split(authority: &str, default: Option<u16>) -> (&str, Option<u16>) {
    let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    let (host, port) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':')),
        None => place.rsplit_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
    };
    (host, port.map_or(default, |port| port.parse().ok()))
}

/// An authority and the attributes that say it, ready to be sent.
#[derive(Debug, Default)]
struct Told {
    authority: String,
    default_port: Option<u16>,
    attributes: u32,
    encoded: Vec<u8>,
}

/// A longer authority is hardly named again, and would be kept.
const LONGEST_KEPT: usize = 128;

thread_local! {
    /// What the last incoming and the last outgoing request on this thread named: mostly the next one
    /// names it too.
    static LAST: RefCell<[Told; 2]> = RefCell::default();
}

impl Told {
    fn is_of(&self, authority: &str, default_port: Option<u16>) -> bool {
        self.authority == authority && self.default_port == default_port
    }

    fn tell(&mut self, authority: &str, default_port: Option<u16>) {
        authority.clone_into(&mut self.authority);
        self.default_port = default_port;
        self.attributes = 0;
        self.encoded.clear();
        let (host, port) = split(authority, default_port);
        if host.is_empty() {
            return;
        }
        self.attributes += 1;
        otlp::text(&mut self.encoded, Place::Span, semconv::SERVER_ADDRESS, host);
        if let Some(port) = port {
            self.attributes += 1;
            otlp::number(&mut self.encoded, Place::Span, semconv::SERVER_PORT, port.into());
        }
    }
}

impl Record {
    /// Adds whom the request is to.
    pub(super) fn server(&mut self, authority: &str, scheme: &str) {
        let (side, default_port) = (usize::from(self.kind == Kind::Client), port_of(scheme));
        let mut add = |told: &mut Told| {
            if !told.is_of(authority, default_port) {
                told.tell(authority, default_port);
            }
            self.encoded(told.attributes, &told.encoded);
        };
        let mut add_kept = |last: &RefCell<[Told; 2]>| add(&mut last.borrow_mut()[side]);
        // Where a thread ends nothing is kept any more.
        if authority.len() > LONGEST_KEPT || LAST.try_with(&mut add_kept).is_err() {
            add(&mut Told::default());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use plugin_api::Context;

    use super::*;

    #[test]
    fn a_place_is_taken_apart() {
        for (authority, scheme, wanted) in [
            ("host:8080", "http", ("host", Some(8080))),
            ("host", "http", ("host", Some(80))),
            ("host", "https", ("host", Some(443))),
            ("host", "", ("host", None)),
            ("[::1]:8080", "http", ("::1", Some(8080))),
            ("[::1]", "https", ("::1", Some(443))),
            ("user:pass@host:1", "http", ("host", Some(1))),
            ("user:pass@host", "http", ("host", Some(80))),
            ("a@b@host:1", "http", ("host", Some(1))),
            ("u:p@[::1]:8080", "http", ("::1", Some(8080))),
            ("host:none", "http", ("host", None)),
            ("host:", "http", ("host", None)),
            ("user@", "http", ("", Some(80))),
            ("", "http", ("", Some(80))),
        ] {
            assert_eq!(host_and_port(authority, scheme), wanted, "{authority}");
        }
    }

    /// The spans of such requests, one after the other on this thread.
    fn told(requests: &[(Kind, &str, &str)]) -> Vec<String> {
        let record = |(kind, authority, scheme): &(Kind, &str, &str)| {
            let mut record = Record::begin(*kind, &Context::default(), None, "GET", 0);
            record.server(authority, scheme);
            format!("{record:?}")
        };
        requests.iter().map(record).collect()
    }

    /// As [`told`], each on a thread of its own, which has nothing to repeat.
    fn told_apart(requests: &[(Kind, &str, &str)]) -> Vec<String> {
        let apart = |request| thread::scope(|scope| scope.spawn(|| told(&[request])).join());
        requests.iter().flat_map(|request| apart(*request).unwrap()).collect()
    }

    #[test]
    fn what_a_span_says_does_not_depend_on_those_before_it() {
        let long = "x".repeat(LONGEST_KEPT + 1);
        let requests = [
            (Kind::Server, "here:1", "http"),
            (Kind::Client, "there", "http"),
            (Kind::Server, "here:1", "http"),
            (Kind::Client, "there", "https"),
            (Kind::Server, "", "http"),
            (Kind::Server, "here:1", "http"),
            (Kind::Client, "there", "https"),
            (Kind::Client, &long, "https"),
        ];
        assert_eq!(told(&requests), told_apart(&requests));
        let [nobody] = &told(&[(Kind::Server, "", "http")])[..] else { panic!("one span") };
        assert!(nobody.contains("fields: []"), "{nobody}");
        assert_eq!(
            LAST.with_borrow(|[_, last]| last.authority.clone()),
            "there",
            "not the long one"
        );
    }

    #[test]
    fn an_authority_that_is_named_again_is_not_taken_apart() {
        told(&[(Kind::Server, "here:1", "http")]);
        LAST.with_borrow_mut(|[last, _]| last.encoded.clear());
        let [again] = &told(&[(Kind::Server, "here:1", "http")])[..] else { panic!("one span") };
        assert!(again.contains("fields: []"), "{again}");
        let [client] = &told(&[(Kind::Client, "here:1", "http")])[..] else { panic!("one span") };
        assert!(!client.contains("fields: []"), "each side has its own");
    }
}
