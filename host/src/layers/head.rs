//! Heads of messages in the form that crosses to a plugin: everything borrowed, nothing copied.

use http::{HeaderMap, HeaderName, HeaderValue, header, request};
use plugin_api::{Header, Peer, RequestHead, Version};
use smallvec::SmallVec;

use crate::server;

/// Room for the headers of nearly every message on the stack: 2 KiB.
pub(super) type Headers<'a> = SmallVec<[Header<'a>; 64]>;

pub(super) fn headers(map: &HeaderMap) -> Headers<'_> {
    map.iter().map(|(name, value)| Header::new(name.as_str(), value.as_bytes())).collect()
}

pub(super) const fn version(version: http::Version) -> Version {
    match version {
        http::Version::HTTP_10 => Version::HTTP_10,
        http::Version::HTTP_2 => Version::HTTP_2,
        http::Version::HTTP_3 => Version::HTTP_3,
        _ => Version::HTTP_11,
    }
}

/// The head of an incoming or outgoing request.
pub(super) fn request<'a>(parts: &'a request::Parts, headers: &'a [Header<'a>]) -> RequestHead<'a> {
    let peer = parts.extensions.get().map_or(Peer::NONE, |server::Peer(peer)| Peer::from(*peer));
    RequestHead::new(parts.method.as_str(), parts.uri.path(), headers)
        .to(scheme(parts), authority(parts))
        .with_query(parts.uri.query().unwrap_or_default())
        .over(version(parts.version), peer)
}

/// HTTP/2 has the scheme in the target, HTTP/1.1 mostly nowhere: there the connection tells it.
pub(super) fn scheme(parts: &request::Parts) -> &str {
    let by_tls = || parts.extensions.get().is_some_and(|server::ByTls| true);
    parts.uri.scheme_str().unwrap_or_else(|| if by_tls() { "https" } else { "http" })
}

/// HTTP/2 has the authority in the target, HTTP/1.1 mostly in `Host`: RFC 9110, section 7.2.
fn authority(parts: &request::Parts) -> &str {
    let host = || parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    parts.uri.authority().map(http::uri::Authority::as_str).or_else(host).unwrap_or_default()
}

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
    pub(super) fn apply(self, headers: &mut HeaderMap) {
        for (name, change) in self.0 {
            match change {
                Change::Set(value) => drop(headers.insert(name, value)),
                Change::Append(value) => _ = headers.append(name, value),
                Change::Remove => drop(headers.remove(name)),
            }
        }
    }

    fn push(&mut self, name: &str, value: &str, change: fn(HeaderValue) -> Change) {
        match (header_name(name), HeaderValue::from_str(value)) {
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
