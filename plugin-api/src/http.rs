//! What a plugin sees of an HTTP exchange: the heads of its messages, and how it ended.

use std::{fmt, net::SocketAddr};

use abi_stable::{
    StableAbi,
    std_types::{RSlice, RStr},
};

/// One header field: a lower-case name and the value's bytes as they came.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct Header<'a> {
    name: RStr<'a>,
    value: RSlice<'a, u8>,
}

impl<'a> Header<'a> {
    /// A header that borrows from the message.
    #[must_use]
    pub const fn new(name: &'a str, value: &'a [u8]) -> Self {
        Self { name: RStr::from_str(name), value: RSlice::from_slice(value) }
    }

    /// The name, in lower case.
    #[must_use]
    pub fn name(&self) -> &'a str {
        self.name.as_str()
    }

    /// The value; not always UTF-8.
    #[must_use]
    pub fn value(&self) -> &'a [u8] {
        self.value.as_slice()
    }
}

impl fmt::Debug for Header<'_> {
    // Values may be secrets, so only the name is printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Header").field("name", &self.name()).finish_non_exhaustive()
    }
}

/// The HTTP version of a message; an open set.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version(u32);

impl Version {
    /// HTTP/1.0
    pub const HTTP_10: Self = Self(10);
    /// HTTP/1.1
    pub const HTTP_11: Self = Self(11);
    /// HTTP/2
    pub const HTTP_2: Self = Self(20);
    /// HTTP/3
    pub const HTTP_3: Self = Self(30);
}

/// A socket address as plain data; [`Peer::NONE`] when it is not known.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct Peer {
    ip: [u8; 16],
    port: u32,
    /// 0: not known, 4 or 6: the IP version.
    family: u32,
}

impl Peer {
    /// The address is not known.
    pub const NONE: Self = Self { ip: [0; 16], port: 0, family: 0 };

    /// The address, where it is known.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        let port = u16::try_from(self.port).ok()?;
        match self.family {
            4 => {
                let [a, b, c, d, ..] = self.ip;
                Some(SocketAddr::from(([a, b, c, d], port)))
            }
            6 => Some(SocketAddr::from((self.ip, port))),
            _ => None,
        }
    }
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        let mut ip = [0; 16];
        let family = match address {
            SocketAddr::V4(v4) => {
                ip[..4].copy_from_slice(&v4.ip().octets());
                4
            }
            SocketAddr::V6(v6) => {
                ip = v6.ip().octets();
                6
            }
        };
        Self { ip, port: address.port().into(), family }
    }
}

/// The head of a request, borrowed for the call: a plugin copies what it keeps.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    method: RStr<'a>,
    scheme: RStr<'a>,
    authority: RStr<'a>,
    path: RStr<'a>,
    query: RStr<'a>,
    service: RStr<'a>,
    headers: RSlice<'a, Header<'a>>,
    version: Version,
    peer: Peer,
    reserved: [u64; 4],
}

impl<'a> RequestHead<'a> {
    /// A head of this method, path and these headers; the other parts are empty until set.
    #[must_use]
    pub const fn new(method: &'a str, path: &'a str, headers: &'a [Header<'a>]) -> Self {
        let empty = RStr::from_str("");
        Self {
            method: RStr::from_str(method),
            scheme: empty,
            authority: empty,
            path: RStr::from_str(path),
            query: empty,
            service: empty,
            headers: RSlice::from_slice(headers),
            version: Version::HTTP_11,
            peer: Peer::NONE,
            reserved: [0; 4],
        }
    }

    /// The same head to this scheme and authority.
    #[must_use]
    pub const fn to(self, scheme: &'a str, authority: &'a str) -> Self {
        let (scheme, authority) = (RStr::from_str(scheme), RStr::from_str(authority));
        Self { scheme, authority, ..self }
    }

    /// The same head with a query, without its question mark.
    #[must_use]
    pub const fn with_query(self, query: &'a str) -> Self {
        Self { query: RStr::from_str(query), ..self }
    }

    /// The same head for a service group.
    #[must_use]
    pub const fn with_service(self, service: &'a str) -> Self {
        Self { service: RStr::from_str(service), ..self }
    }

    /// The same head over this connection.
    #[must_use]
    pub const fn over(self, version: Version, peer: Peer) -> Self {
        Self { version, peer, ..self }
    }

    /// The method as it came, case kept.
    #[must_use]
    pub fn method(&self) -> &'a str {
        self.method.as_str()
    }

    /// `http` or `https`.
    #[must_use]
    pub fn scheme(&self) -> &'a str {
        self.scheme.as_str()
    }

    /// Host and port as the client named them; may be empty in a server's request.
    #[must_use]
    pub fn authority(&self) -> &'a str {
        self.authority.as_str()
    }

    /// The path, percent-encoded as it came.
    #[must_use]
    pub fn path(&self) -> &'a str {
        self.path.as_str()
    }

    /// The query without its question mark; empty when there is none.
    #[must_use]
    pub fn query(&self) -> &'a str {
        self.query.as_str()
    }

    /// The service group that a client's request goes to; empty in a server's request.
    #[must_use]
    pub fn service(&self) -> &'a str {
        self.service.as_str()
    }

    /// The same head as the attempt of a call after this many others.
    #[must_use]
    pub const fn resent(mut self, times: u32) -> Self {
        self.reserved[0] = times as u64;
        self
    }

    /// How many attempts of the same call went before this one. Since 1.1: 0 from an older host.
    #[must_use]
    pub fn resend_count(&self) -> u32 {
        u32::try_from(self.reserved[0]).unwrap_or(u32::MAX)
    }

    /// The same head, seen at this time of `CLOCK_MONOTONIC`, in nanoseconds.
    #[must_use]
    pub const fn seen_at(mut self, monotonic: u64) -> Self {
        self.reserved[1] = monotonic;
        self
    }

    /// When the host saw it, on `CLOCK_MONOTONIC`, in nanoseconds. Since 1.1: `None` from an older
    /// host.
    #[must_use]
    pub const fn monotonic(&self) -> Option<u64> {
        told(self.reserved[1])
    }

    /// All header lines in order, repeated names included.
    #[must_use]
    pub fn headers(&self) -> &'a [Header<'a>] {
        self.headers.as_slice()
    }

    /// The version of the message.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// The other end of the socket; not known for a client's request, which has no connection yet.
    #[must_use]
    pub const fn peer(&self) -> Peer {
        self.peer
    }
}

/// The head of a response, borrowed for the call.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct ResponseHead<'a> {
    headers: RSlice<'a, Header<'a>>,
    status: u32,
    version: Version,
    peer: Peer,
    reserved: [u64; 4],
}

impl<'a> ResponseHead<'a> {
    /// A head of this status code and these headers.
    #[must_use]
    pub const fn new(status: u16, headers: &'a [Header<'a>]) -> Self {
        Self {
            headers: RSlice::from_slice(headers),
            status: status as u32,
            version: Version::HTTP_11,
            peer: Peer::NONE,
            reserved: [0; 4],
        }
    }

    /// The same head over this connection.
    #[must_use]
    pub const fn over(self, version: Version, peer: Peer) -> Self {
        Self { version, peer, ..self }
    }

    /// The same head over a connection that was new, or that had carried an exchange before.
    #[must_use]
    pub const fn over_pooled(mut self, is_pooled: bool) -> Self {
        self.reserved[0] = if is_pooled { 2 } else { 1 };
        self
    }

    /// Whether a client's connection came from the pool; `None` where it is not known. Since 1.1.
    #[must_use]
    pub const fn is_pooled(&self) -> Option<bool> {
        is_pooled(self.reserved[0])
    }

    /// The status code.
    #[must_use]
    pub const fn status(&self) -> u32 {
        self.status
    }

    /// All header lines in order, repeated names included.
    #[must_use]
    pub fn headers(&self) -> &'a [Header<'a>] {
        self.headers.as_slice()
    }

    /// The version of the message.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// The other end of the socket; known for a client's response.
    #[must_use]
    pub const fn peer(&self) -> Peer {
        self.peer
    }
}

/// How an exchange ended; an open set.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome(u32);

impl Outcome {
    /// The last byte of the response body was handed over.
    pub const COMPLETE: Self = Self(0);
    /// Whoever asked went away: the future or the body was dropped before its end.
    pub const CLIENT_GONE: Self = Self(1);
    /// The connection to the upstream broke after it was made.
    pub const UPSTREAM_GONE: Self = Self(2);
    /// A deadline of the host passed.
    pub const TIMEOUT: Self = Self(3);
    /// The host was full and refused the request.
    pub const SHED: Self = Self(4);
    /// The handler panicked.
    pub const PANIC: Self = Self(5);
    /// No connection to the upstream could be made.
    pub const CONNECT_FAILED: Self = Self(6);
    /// The host stopped before it was over. Since 1.1.
    pub const STOPPED: Self = Self(7);
}

/// The end of an exchange.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct End {
    /// How it ended.
    pub outcome: Outcome,
    /// Bytes of request body that were read (server) or sent (client).
    pub request_bytes: u64,
    /// Bytes of response body that were sent (server) or read (client).
    pub response_bytes: u64,
    reserved: [u64; 5],
}

impl End {
    /// An end with the sizes of both bodies.
    #[must_use]
    pub const fn new(outcome: Outcome, request_bytes: u64, response_bytes: u64) -> Self {
        Self { outcome, request_bytes, response_bytes, reserved: [0; 5] }
    }

    /// The same end, at this time of `CLOCK_MONOTONIC`, in nanoseconds.
    #[must_use]
    pub const fn seen_at(mut self, monotonic: u64) -> Self {
        self.reserved[4] = monotonic;
        self
    }

    /// When it was, on `CLOCK_MONOTONIC`, in nanoseconds. Since 1.1: `None` from an older host.
    #[must_use]
    pub const fn monotonic(&self) -> Option<u64> {
        told(self.reserved[4])
    }

    /// The same end over this connection, which brought no response head.
    #[must_use]
    pub fn over(mut self, peer: Peer) -> Self {
        let [a, b, c, d, e, f, g, h, low @ ..] = peer.ip;
        self.reserved[1] = u64::from_ne_bytes([a, b, c, d, e, f, g, h]);
        self.reserved[2] = u64::from_ne_bytes(low);
        self.reserved[3] = u64::from(peer.port) << 32 | u64::from(peer.family);
        self
    }

    /// The same end over a connection that was new, or that had carried an exchange before.
    #[must_use]
    pub const fn over_pooled(mut self, is_pooled: bool) -> Self {
        self.reserved[0] = if is_pooled { 2 } else { 1 };
        self
    }

    /// The other end of the connection of a client's attempt that had one and brought no response
    /// head; otherwise not known. Since 1.1.
    #[must_use]
    pub fn peer(&self) -> Peer {
        let [_, high, low, rest, _] = self.reserved;
        let mut ip = [0; 16];
        ip[..8].copy_from_slice(&high.to_ne_bytes());
        ip[8..].copy_from_slice(&low.to_ne_bytes());
        let word = |word: u64| u32::try_from(word).unwrap_or_default();
        Peer { ip, port: word(rest >> 32), family: word(rest & u64::from(u32::MAX)) }
    }

    /// Whether that connection came from the pool; `None` where it is not known. Since 1.1.
    #[must_use]
    pub const fn is_pooled(&self) -> Option<bool> {
        is_pooled(self.reserved[0])
    }
}

const fn is_pooled(word: u64) -> Option<bool> {
    match word {
        1 => Some(false),
        2 => Some(true),
        _ => None,
    }
}

/// A time, where it was told: the clock begins with the system, long before any host.
const fn told(monotonic: u64) -> Option<u64> {
    match monotonic {
        0 => None,
        time => Some(time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_the_crossing() {
        for text in ["127.0.0.1:80", "[2001:db8::1]:65535"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(Peer::from(address).address(), Some(address));
        }
        assert_eq!(Peer::NONE.address(), None);
    }

    #[test]
    fn a_header_does_not_print_its_value() {
        let header = Header::new("authorization", b"secret");
        assert!(!format!("{header:?}").contains("secret"));
    }
}
