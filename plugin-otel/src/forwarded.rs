//! Who sent a request that came through proxies: `Forwarded` (RFC 7239), or the `X-Forwarded-…`
//! headers that went before it.
//!
//! Each proxy adds at the right end whom it had the request from. So the way is walked from the right,
//! as long as those who tell of it are trusted; what stands further left may be anyone's invention.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
};

use plugin_api::Header;

use crate::networks::Networks;

const FORWARDED: &str = "forwarded";
const X_FORWARDED_FOR: &str = "x-forwarded-for";
const X_FORWARDED_HOST: &str = "x-forwarded-host";
const X_FORWARDED_PROTO: &str = "x-forwarded-proto";

/// How many proxies are looked at; of a longer way, only the end is.
const MOST_HOPS: usize = 16;

/// Where a request comes from, as far as trusted proxies say it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Origin<'a> {
    /// The furthest address that is known for sure. An IPv4 address is told as one.
    pub(crate) client: Option<IpAddr>,
    /// Its port, where it is known.
    pub(crate) port: Option<u16>,
    /// What the client named as host, with a port if it named one.
    pub(crate) host: Option<Cow<'a, str>>,
    /// `http` or `https`, as the client speaks it.
    pub(crate) scheme: Option<&'static str>,
}

/// Where a request with these headers from this peer comes from.
///
/// The peer itself, unless it is a trusted proxy. `Forwarded` goes before the other headers; if it is
/// malformed, none of it counts.
pub(crate) fn origin<'a>(
    headers: &[Header<'a>],
    peer: Option<SocketAddr>,
    trusted: &Networks,
) -> Origin<'a> {
    let mut origin = Origin {
        client: peer.map(|peer| peer.ip().to_canonical()),
        port: peer.map(|peer| peer.port()),
        ..Origin::default()
    };
    if origin.client.is_none_or(|peer| !trusted.contains(peer)) {
        return origin;
    }
    if headers.iter().any(|header| header.name() == FORWARDED) {
        follow_forwarded(headers, trusted, &mut origin);
    } else {
        follow_x_forwarded(headers, trusted, &mut origin);
    }
    origin
}

/// One step back; tells whether the one who is there is trusted to tell of the next.
fn step(origin: &mut Origin<'_>, node: Option<Node>, trusted: &Networks) -> bool {
    // Someone hides: whoever told so is the last one that is known.
    let Some(Node { address, port }) = node else { return false };
    origin.client = Some(address);
    origin.port = port;
    trusted.contains(address)
}

fn follow_forwarded<'a>(headers: &[Header<'a>], trusted: &Networks, origin: &mut Origin<'a>) {
    let mut hops = Hops::default();
    for line in lines(headers, FORWARDED) {
        if elements(line, &mut hops).is_none() {
            return;
        }
    }
    for hop in hops.backwards() {
        // Each hop says what it was asked for, so the last one that is trusted says it best.
        origin.host = hop.host.as_ref().map(Text::text);
        origin.scheme = hop.proto.as_ref().and_then(|proto| scheme(&proto.text()));
        let node = hop.node.as_ref().and_then(|node| Node::parse(&node.text()));
        if !step(origin, node, trusted) {
            return;
        }
    }
}

fn follow_x_forwarded<'a>(headers: &[Header<'a>], trusted: &Networks, origin: &mut Origin<'a>) {
    let mut nth = None;
    for member in from_the_right(headers, X_FORWARDED_FOR).take(MOST_HOPS) {
        nth = Some(nth.map_or(0, |nth| nth + 1));
        if !step(origin, Node::parse(member), trusted) {
            break;
        }
    }
    let nth = nth.unwrap_or(0);
    let host = at(headers, X_FORWARDED_HOST, nth).filter(|host| is_host(host));
    origin.host = host.map(Cow::Borrowed);
    origin.scheme = at(headers, X_FORWARDED_PROTO, nth).and_then(scheme);
}

/// The lines of a header that are text, in order. A line that is not stands for nothing.
fn lines<'a>(headers: &[Header<'a>], name: &str) -> impl DoubleEndedIterator<Item = &'a str> {
    headers
        .iter()
        .filter(move |header| header.name() == name)
        .map(|header| std::str::from_utf8(header.value()).unwrap_or_default())
}

fn from_the_right<'a>(headers: &[Header<'a>], name: &str) -> impl Iterator<Item = &'a str> {
    lines(headers, name).rev().flat_map(|line| line.rsplit(',')).map(str::trim)
}

/// The entry of the proxy that stands at this place from the right. A proxy that sets such a header
/// anew leaves a list that is shorter than the way: then it is the entry that is furthest left.
fn at<'a>(headers: &[Header<'a>], name: &str, nth: usize) -> Option<&'a str> {
    from_the_right(headers, name).take(nth + 1).last()
}

fn scheme(text: &str) -> Option<&'static str> {
    ["http", "https"].into_iter().find(|known| text.eq_ignore_ascii_case(known))
}

/// What may stand in `Host`: RFC 9110, section 7.2. Nothing that could be more than a host.
fn is_host(text: &str) -> bool {
    let is_good = |byte: u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']')
    };
    !text.is_empty() && text.len() <= 255 && text.bytes().all(is_good)
}

/// One end of a hop: an address, perhaps with a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Node {
    address: IpAddr,
    port: Option<u16>,
}

impl Node {
    /// `None` for `unknown`, for names that begin with `_`, and for anything else that is no address.
    fn parse(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Some(Self { address: address.to_canonical(), port: None });
        }
        let (address, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, after) = rest.split_once(']')?;
                let port = if after.is_empty() { None } else { Some(after.strip_prefix(':')?) };
                (IpAddr::V6(address.parse().ok()?), port)
            }
            None => {
                let (address, port) = text.split_once(':')?;
                (IpAddr::V4(address.parse().ok()?), Some(port))
            }
        };
        let port = match port {
            None => None,
            // A port may hide behind a name, too.
            Some(hidden) if hidden.starts_with('_') => None,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(digits.parse().ok()?)
            }
            Some(_) => return None,
        };
        Some(Self { address: address.to_canonical(), port })
    }
}

/// A token, or what stands between quotes with its backslashes.
#[derive(Clone, Copy, Debug)]
struct Text<'a>(&'a str);

impl<'a> Text<'a> {
    fn text(&self) -> Cow<'a, str> {
        if !self.0.contains('\\') {
            return Cow::Borrowed(self.0);
        }
        let mut text = String::with_capacity(self.0.len());
        let mut chars = self.0.chars();
        while let Some(char) = chars.next() {
            text.extend(if char == '\\' { chars.next() } else { Some(char) });
        }
        Cow::Owned(text)
    }
}

/// What one proxy says.
#[derive(Clone, Copy, Debug, Default)]
struct Hop<'a> {
    node: Option<Text<'a>>,
    host: Option<Text<'a>>,
    proto: Option<Text<'a>>,
}

/// The last hops of a way.
#[derive(Debug, Default)]
struct Hops<'a> {
    ring: [Hop<'a>; MOST_HOPS],
    count: usize,
}

impl<'a> Hops<'a> {
    fn push(&mut self, hop: Hop<'a>) {
        self.ring[self.count % MOST_HOPS] = hop;
        self.count += 1;
    }

    fn backwards(&self) -> impl Iterator<Item = &Hop<'a>> {
        let kept = self.count.min(MOST_HOPS);
        (self.count - kept..self.count).rev().map(|nth| &self.ring[nth % MOST_HOPS])
    }
}

/// Reads `pair;pair, pair;…` of one line; `None` when it is malformed.
fn elements<'a>(line: &'a str, hops: &mut Hops<'a>) -> Option<()> {
    let mut rest = line;
    let mut hop = None;
    loop {
        rest = rest.trim_start_matches([' ', '\t']);
        match rest.chars().next() {
            None => {
                hop.into_iter().for_each(|hop| hops.push(hop));
                return Some(());
            }
            Some(',') => {
                hop.take().into_iter().for_each(|hop| hops.push(hop));
                rest = &rest[1..];
            }
            Some(';') => rest = &rest[1..],
            Some(_) => rest = pair(rest, hop.get_or_insert_default())?,
        }
    }
}

/// Reads one `name=value` and what must follow it.
fn pair<'a>(text: &'a str, hop: &mut Hop<'a>) -> Option<&'a str> {
    let (name, text) = text.split_once('=')?;
    let (value, rest) = match text.strip_prefix('"') {
        Some(text) => {
            let end = closing_quote(text)?;
            (&text[..end], &text[end + 1..])
        }
        None => text.split_at(text.find([';', ',', ' ', '\t']).unwrap_or(text.len())),
    };
    let rest = rest.trim_start_matches([' ', '\t']);
    let is_over = rest.is_empty() || rest.starts_with([',', ';']);
    if value.is_empty() || !is_over || !is_token(name) {
        return None;
    }
    for (known, place) in
        [("for", &mut hop.node), ("host", &mut hop.host), ("proto", &mut hop.proto)]
    {
        // No parameter may come twice in one element.
        if name.eq_ignore_ascii_case(known) && place.replace(Text(value)).is_some() {
            return None;
        }
    }
    if hop.host.is_some_and(|host| !is_host(&host.text())) {
        return None;
    }
    Some(rest)
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    text.bytes().position(|byte| {
        let closes = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        closes
    })
}

fn is_token(text: &str) -> bool {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_good)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn trusted() -> Networks {
        let mut networks = Networks::default();
        networks.add("10.0.0.0/8").unwrap();
        networks.add("2001:db8:1::/48").unwrap();
        networks
    }

    const PROXY: &str = "10.0.0.1:999";

    /// Client, port, host and scheme with a blank in between, `-` for what is not known.
    fn told(peer: &str, lines: &[(&'static str, &str)]) -> String {
        let headers: Vec<Header<'_>> =
            lines.iter().map(|(name, value)| Header::new(name, value.as_bytes())).collect();
        let origin = origin(&headers, peer.parse().ok(), &trusted());
        let shown = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let client = shown(origin.client.map(|client| client.to_string()));
        let port = shown(origin.port.map(|port| port.to_string()));
        let host = shown(origin.host.map(Cow::into_owned));
        format!("{client} {port} {host} {}", origin.scheme.unwrap_or("-"))
    }

    #[test]
    fn without_a_trusted_proxy_the_peer_is_the_client() {
        let lies =
            [("forwarded", "for=1.2.3.4;host=x;proto=https"), ("x-forwarded-for", "1.2.3.4")];
        for (peer, wanted) in [
            ("192.0.2.1:80", "192.0.2.1 80 - -"),
            ("[2001:db8:2::1]:80", "2001:db8:2::1 80 - -"),
            ("[::ffff:192.0.2.1]:80", "192.0.2.1 80 - -"),
            ("", "- - - -"),
        ] {
            assert_eq!(told(peer, &lies), wanted);
        }
        assert_eq!(told(PROXY, &[]), "10.0.0.1 999 - -");
    }

    #[test]
    fn forwarded_is_followed_from_the_right_as_long_as_it_is_trusted() {
        for (value, wanted) in [
            ("for=192.0.2.1", "192.0.2.1 - - -"),
            (
                "for=192.0.2.1;host=a.example:8080;proto=https;by=10.0.0.1",
                "192.0.2.1 - a.example:8080 https",
            ),
            (
                "For=\"192.0.2.1:47011\";HOST=\"a.example\";Proto=HTTP",
                "192.0.2.1 47011 a.example http",
            ),
            ("for=\"[2001:db8::1]:80\"", "2001:db8::1 80 - -"),
            ("for=\"[2001:db8::1]\"", "2001:db8::1 - - -"),
            ("for=\"[::ffff:192.0.2.1]:80\"", "192.0.2.1 80 - -"),
            ("for=\"192.0.2.1:_port\"", "192.0.2.1 - - -"),
            ("for=\"192.0.2\\.1\"", "192.0.2.1 - - -"),
            ("for=1.1.1.1, for=192.0.2.1", "192.0.2.1 - - -"),
            ("for=1.1.1.1;host=lie, for=192.0.2.1;host=a , for=10.0.0.2;host=b", "192.0.2.1 - a -"),
            ("for=10.0.0.3, for=10.0.0.2", "10.0.0.3 - - -"),
            ("for=192.0.2.1,,", "192.0.2.1 - - -"),
            ("for=1.1.1.1, for=unknown", "10.0.0.1 999 - -"),
            ("for=1.1.1.1, for=_hidden, for=10.0.0.2", "10.0.0.2 - - -"),
            ("for=1.1.1.1, proto=https", "10.0.0.1 999 - https"),
            ("for=unknown;proto=https;host=a", "10.0.0.1 999 a https"),
            ("for=192.0.2.1;proto=gopher", "192.0.2.1 - - -"),
            ("for=\"a,b;c=\\\"d\", for=192.0.2.1", "192.0.2.1 - - -"),
            ("for=192.0.2.1 ; proto=https", "192.0.2.1 - - https"),
            ("", "10.0.0.1 999 - -"),
        ] {
            assert_eq!(told(PROXY, &[("forwarded", value)]), wanted, "{value}");
        }
        let lines = [
            ("forwarded", "for=192.0.2.1"),
            ("forwarded", "for=10.0.0.2"),
            ("x-forwarded-for", "1.1.1.1"),
        ];
        assert_eq!(told(PROXY, &lines), "192.0.2.1 - - -");
    }

    #[test]
    fn nothing_of_a_malformed_header_counts() {
        for value in [
            "for",
            "for=",
            "=192.0.2.1",
            "for=\"192.0.2.1",
            "for=\"192.0.2.1\"x",
            "for=192.0.2.1;for=192.0.2.2",
            "for=192.0.2.1 proto=https",
            "f or=192.0.2.1",
            "for=192.0.2.1;host=\"a b\"",
            "for=192.0.2.1;host=\"user@a\"",
            "for=1.1.1.1\", for=192.0.2.1, for",
        ] {
            assert_eq!(told(PROXY, &[("forwarded", value)]), "10.0.0.1 999 - -", "{value}");
        }
    }

    #[test]
    fn x_forwarded_headers_are_followed_where_there_is_no_other() {
        for (ways, host, proto, wanted) in [
            ("192.0.2.1", "a.example", "https", "192.0.2.1 - a.example https"),
            ("192.0.2.1:80", "", "", "192.0.2.1 80 - -"),
            ("2001:db8::1", "", "", "2001:db8::1 - - -"),
            ("[2001:db8::1]:80", "", "", "2001:db8::1 80 - -"),
            ("1.1.1.1, 192.0.2.1", "lie, a", "http, https", "192.0.2.1 - a https"),
            ("1.1.1.1, 192.0.2.1, 10.0.0.2", "a", "https", "192.0.2.1 - a https"),
            ("1.1.1.1,192.0.2.1,10.0.0.2", "lie,a,b", "http,https,http", "192.0.2.1 - a https"),
            ("10.0.0.3,2001:db8:1::1", "", "", "10.0.0.3 - - -"),
            ("1.1.1.1, unknown", "", "", "10.0.0.1 999 - -"),
            ("1.1.1.1, _hidden", "", "", "10.0.0.1 999 - -"),
            ("1.1.1.1, 192.0.2.1:99999", "", "", "10.0.0.1 999 - -"),
            ("1.1.1.1,", "", "", "10.0.0.1 999 - -"),
            ("", "a", "https", "10.0.0.1 999 a https"),
            ("192.0.2.1", "a b", "ftp", "192.0.2.1 - - -"),
        ] {
            let lines = [
                ("x-forwarded-for", ways),
                ("x-forwarded-host", host),
                ("x-forwarded-proto", proto),
            ];
            assert_eq!(told(PROXY, &lines), wanted, "{ways}");
        }
        let lines = [("x-forwarded-for", "1.1.1.1, 192.0.2.1"), ("x-forwarded-for", "10.0.0.2")];
        assert_eq!(told(PROXY, &lines), "192.0.2.1 - - -");
    }

    #[test]
    fn of_a_very_long_way_the_end_is_looked_at() {
        let long = |hop: &str| [hop; 40].join(",");
        let forwarded = format!("for=192.0.2.1,{}", long("for=10.0.0.2"));
        assert_eq!(told(PROXY, &[("forwarded", &forwarded)]), "10.0.0.2 - - -");
        let x_forwarded = format!("192.0.2.1,{}", long("10.0.0.2"));
        assert_eq!(told(PROXY, &[("x-forwarded-for", &x_forwarded)]), "10.0.0.2 - - -");
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_origin_that_is_clean(
            name in prop::sample::select(vec![FORWARDED, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO]),
            value in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..60),
                "[a-z0-9.:_=;, \"\\\\\\[\\]]{0,60}".prop_map(String::into_bytes),
                "(for=(\"\\[::[0-9]\\]\"|1[0-2].0.0.[0-9]);?(host=[a-z ]{1,3})?[,;]?){0,6}".prop_map(String::into_bytes),
            ],
        ) {
            let headers = [Header::new(name, &value)];
            let origin = origin(&headers, PROXY.parse().ok(), &trusted());
            prop_assert!(origin.client.is_some());
            prop_assert!(origin.host.is_none_or(|host| is_host(&host)));
        }

        #[test]
        fn nobody_can_pretend_from_the_left(lie in "[a-z0-9.:_=;, ]{0,60}") {
            let value = format!("{lie},for=192.0.2.1");
            let told_forwarded = told(PROXY, &[("forwarded", &value)]);
            prop_assert!(
                told_forwarded == "192.0.2.1 - - -" || told_forwarded == "10.0.0.1 999 - -",
                "{}", told_forwarded
            );
            let value = format!("{lie},192.0.2.1");
            prop_assert_eq!(told(PROXY, &[("x-forwarded-for", &value)]), "192.0.2.1 - - -");
        }
    }
}
