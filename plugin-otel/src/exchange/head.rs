//! What both kinds of spans say of the heads of an exchange.

use plugin_api::{Peer, Version};

use crate::{record::Record, semconv, short::Short};

/// The host and the port that a client named; the scheme's port where it named none.
pub(crate) fn host_and_port<'a>(authority: &'a str, scheme: &str) -> (&'a str, Option<u16>) {
    // Byte by byte: a name is so short that a search by words takes longer to begin.
    let at = authority.bytes().rposition(|byte| byte == b'@');
    let place = at.map_or(authority, |at| &authority[at + 1..]);
    let default = match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    };
    let (host, port) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':')),
        None => match place.bytes().rposition(|byte| byte == b':') {
            Some(colon) => (&place[..colon], Some(&place[colon + 1..])),
            None => (place, None),
        },
    };
    (host, port.map_or(default, |port| port.parse().ok()))
}

impl Record {
    pub(super) fn method(&mut self, known: Option<&str>, method: &str) {
        match known {
            Some(known) => self.text(semconv::HTTP_REQUEST_METHOD, known),
            None => {
                self.text(semconv::HTTP_REQUEST_METHOD, semconv::OTHER_METHOD);
                self.text_if_any(semconv::HTTP_REQUEST_METHOD_ORIGINAL, method);
            }
        }
    }

    pub(super) fn server(&mut self, authority: &str, scheme: &str) {
        let (host, port) = host_and_port(authority, scheme);
        if host.is_empty() {
            return;
        }
        self.text(semconv::SERVER_ADDRESS, host);
        if let Some(port) = port {
            self.number(semconv::SERVER_PORT, port.into());
        }
    }

    pub(super) fn connection(&mut self, version: Version, peer: Peer) {
        let version = match version {
            Version::HTTP_10 => "1.0",
            Version::HTTP_11 => "1.1",
            Version::HTTP_2 => "2",
            Version::HTTP_3 => "3",
            _ => "",
        };
        self.text_if_any(semconv::NETWORK_PROTOCOL_VERSION, version);
        self.peer(peer);
    }

    pub(super) fn peer(&mut self, peer: Peer) {
        if let Some(peer) = peer.address() {
            self.shown(semconv::NETWORK_PEER_ADDRESS, &Short::of_address(peer.ip()));
            self.number(semconv::NETWORK_PEER_PORT, peer.port().into());
        }
    }
}

#[cfg(test)]
mod tests {
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
}
