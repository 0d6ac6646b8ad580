//! Heads of messages in the form that crosses to a plugin: everything borrowed, nothing copied.

use std::cell::RefCell;

use bytes::BytesMut;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request,
    header::{HOST, InvalidHeaderValue},
};
use plugin_api::{Header, Peer, RequestHead, Version};
use smallvec::SmallVec;

use crate::server;

/// Lends the headers to `body`. There is room for those of nearly every message on the stack: 2 KiB,
/// which are not moved.
pub(super) fn with_headers<R>(map: &HeaderMap, body: impl FnOnce(&[Header<'_>]) -> R) -> R {
    let mut headers = SmallVec::<[Header<'_>; 64]>::new();
    headers.extend(map.iter().map(|(name, value)| Header::new(name.as_str(), value.as_bytes())));
    body(&headers)
}

pub(super) const fn version(version: http::Version) -> Version {
    match version {
        http::Version::HTTP_10 => Version::HTTP_10,
        http::Version::HTTP_2 => Version::HTTP_2,
        http::Version::HTTP_3 => Version::HTTP_3,
        _ => Version::HTTP_11,
    }
}

/// The head of an incoming or outgoing request, whose scheme and headers these are.
pub(super) fn request<'a, B>(
    request: &'a Request<B>,
    scheme: &'static str,
    headers: &'a [Header<'a>],
) -> RequestHead<'a> {
    let uri = request.uri();
    RequestHead::new(request.method().as_str(), uri.path(), headers)
        .to(scheme, authority(request))
        .with_query(uri.query().unwrap_or_default())
}

/// The other end of the connection that an incoming request came by.
pub(super) fn peer<B>(request: &Request<B>) -> Peer {
    request.extensions().get().map_or(Peer::NONE, |server::Peer(peer)| (*peer).into())
}

/// HTTP/2 has the scheme in the target, HTTP/1.1 mostly nowhere: there the connection tells it, as
/// where a client has made one up.
pub(super) fn scheme<B>(request: &Request<B>) -> &'static str {
    let by_tls = || request.extensions().get().is_some_and(|server::ByTls| true);
    match request.uri().scheme_str() {
        Some("http") => "http",
        Some("https") => "https",
        _ if by_tls() => "https",
        _ => "http",
    }
}

/// HTTP/2 has the authority in the target, HTTP/1.1 mostly in `Host`: RFC 9110, section 7.2. A `Host`
/// that cannot be one names nobody.
fn authority<B>(request: &Request<B>) -> &str {
    if let Some(authority) = request.uri().authority() {
        return authority.as_str();
    }
    let host = hosts(request).next().filter(|host| may_be_host(host));
    host.and_then(|host| host.to_str().ok()).unwrap_or_default()
}

/// The lines of `Host`. It is mostly the first header, so that a look-up by hash would take longer.
fn hosts<B>(request: &Request<B>) -> impl Iterator<Item = &HeaderValue> {
    let lines = request.headers().iter();
    lines.filter(|(name, _)| *name == HOST).map(|(_, value)| value)
}

/// Whether a request says whom it is to as its version wants: RFC 9112, section 3.2, for those that
/// came by a socket. One that was made inside the process may leave it out.
pub(super) fn has_its_host<B>(request: &Request<B>) -> bool {
    let version = request.version();
    if version >= http::Version::HTTP_2 {
        return true;
    }
    let mut lines = hosts(request);
    let is_right = match (lines.next(), lines.next()) {
        (None, _) => version < http::Version::HTTP_11,
        (Some(host), None) => may_be_host(host),
        (Some(_), Some(_)) => false,
    };
    is_right || request.extensions().get::<server::Peer>().is_none()
}

fn may_be_host(host: &HeaderValue) -> bool {
    host.as_bytes().iter().all(|byte| IS_OF_HOST[usize::from(*byte)])
}

/// RFC 3986, section 3.2.2, and the port after it; without user info, which `Host` has not.
const IS_OF_HOST: [bool; 256] = {
    let (mut all, mut byte) = ([false; 256], u8::MAX);
    while byte > 0 {
        let may_be_name = matches!(byte, b'!' | b'$'..=b'.' | b';' | b'=' | b'_' | b'~');
        let is_address = matches!(byte, b':' | b'[' | b']');
        all[byte as usize] = byte.is_ascii_alphanumeric() || may_be_name || is_address;
        byte -= 1;
    }
    all
};

/// What a plugin wants changed in the headers of a message. The headers themselves are lent to it at
/// the same time, so the changes wait until it has returned.
#[derive(Default)]
pub(super) struct Changes(SmallVec<[(HeaderName, Change); 4]>);

enum Change {
    Set(HeaderValue),
    Append(HeaderValue),
    Remove,
}

impl Changes {
    pub(super) fn apply(&mut self, headers: &mut HeaderMap) {
        for (name, change) in self.0.drain(..) {
            match change {
                Change::Set(value) => drop(headers.insert(name, value)),
                Change::Append(value) => _ = headers.append(name, value),
                Change::Remove => drop(headers.remove(name)),
            }
        }
    }

    fn push(&mut self, name: &str, value: &str, change: fn(HeaderValue) -> Change) {
        match (header_name(name), header_value(value)) {
            (Some(name), Ok(value)) => self.0.push((name, change(value))),
            _ => tracing::warn!(name, "the plugin set a header that HTTP does not allow"),
        }
    }
}

impl plugin_api::adapter::HeaderMap for Changes {
    fn set(&mut self, name: &str, value: &str) {
        self.push(name, value, Change::Set);
    }

    fn remove(&mut self, name: &str) {
        self.0.extend(header_name(name).map(|name| (name, Change::Remove)));
    }

    fn append(&mut self, name: &str, value: &str) {
        self.push(name, value, Change::Append);
    }
}

/// How much room for values is made at a time.
const ROOM: usize = 4096;

thread_local! {
    static VALUES: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// Values stand one after the other in room that is made for dozens of them: an allocation for each
/// would be the only one that an unrecorded request costs.
fn header_value(value: &str) -> Result<HeaderValue, InvalidHeaderValue> {
    let copy = VALUES.with_borrow_mut(|room| {
        if room.capacity() < value.len() {
            *room = BytesMut::with_capacity(ROOM.max(value.len()));
        }
        room.extend_from_slice(value.as_bytes());
        room.split().freeze()
    });
    HeaderValue::from_maybe_shared(copy)
}

/// The names that propagation sets are ready-made: any other is allocated anew each time.
fn header_name(name: &str) -> Option<HeaderName> {
    static READY: [HeaderName; 12] = [
        HeaderName::from_static("traceparent"),
        HeaderName::from_static("tracestate"),
        HeaderName::from_static("baggage"),
        HeaderName::from_static("traceresponse"),
        HeaderName::from_static("server-timing"),
        HeaderName::from_static("b3"),
        HeaderName::from_static("x-b3-traceid"),
        HeaderName::from_static("x-b3-spanid"),
        HeaderName::from_static("x-b3-parentspanid"),
        HeaderName::from_static("x-b3-sampled"),
        HeaderName::from_static("x-b3-flags"),
        HeaderName::from_static("uber-trace-id"),
    ];
    let ready = READY.iter().find(|ready| ready.as_str() == name).cloned();
    ready.or_else(|| HeaderName::from_bytes(name.as_bytes()).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_cannot_be_one_names_nobody() {
        for (host, wanted) in [
            ("there:81", "there:81"),
            ("[::1]:81", "[::1]:81"),
            ("a-b.example%2d", "a-b.example%2d"),
            ("", ""),
            ("a b", ""),
            ("a<b>", ""),
            ("a/b", ""),
            ("me:secret@there", ""),
            ("th\u{e9}re", ""),
        ] {
            let host = HeaderValue::from_bytes(host.as_bytes()).unwrap();
            let request = Request::get("/").header("accept", "*/*").header(HOST, &host);
            assert_eq!(authority(&request.body(()).unwrap()), wanted, "{host:?}");
        }
    }

    #[test]
    fn a_request_of_http_1_1_has_one_host_and_an_older_one_at_most_one() {
        use http::Version;
        for (version, hosts, wanted) in [
            (Version::HTTP_11, &["here"][..], true),
            (Version::HTTP_11, &["here:80"], true),
            (Version::HTTP_11, &[""], true),
            (Version::HTTP_11, &[], false),
            (Version::HTTP_11, &["here", "here"], false),
            (Version::HTTP_11, &["he re"], false),
            (Version::HTTP_11, &["me@here"], false),
            (Version::HTTP_10, &[], true),
            (Version::HTTP_10, &["here"], true),
            (Version::HTTP_10, &["here", "there"], false),
            (Version::HTTP_2, &[], true),
            (Version::HTTP_2, &["here"], true),
        ] {
            let mut request = Request::builder().version(version);
            for host in hosts {
                request = request.header("host", *host);
            }
            let mut request = request.body(()).unwrap();
            assert!(has_its_host(&request), "nobody sent it: {version:?} {hosts:?}");
            request.extensions_mut().insert(server::Peer(([127, 0, 0, 1], 1).into()));
            assert_eq!(has_its_host(&request), wanted, "{version:?} {hosts:?}");
        }
    }

    #[test]
    fn the_scheme_is_that_of_the_target_or_of_the_connection() {
        for (target, by_tls, wanted) in [
            ("/", false, "http"),
            ("/", true, "https"),
            ("http://there/", true, "http"),
            ("HTTPS://there/", false, "https"),
            ("made-up://there/", false, "http"),
            ("made-up://there/", true, "https"),
        ] {
            let mut request = Request::get(target).body(()).unwrap();
            if by_tls {
                request.extensions_mut().insert(server::ByTls);
            }
            assert_eq!(scheme(&request), wanted, "{target} {by_tls}");
        }
    }
}
