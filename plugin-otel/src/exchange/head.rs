//! What both kinds of spans say of the heads of an exchange.

use plugin_api::{Peer, Version};

use super::recording::Recording;
use crate::semconv;

/// The host and the port that a client named; the scheme's port where it named none.
fn host_and_port<'a>(authority: &'a str, scheme: &str) -> (&'a str, Option<u16>) {
    let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    let default = match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    };
    let (host, port) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => (host, rest.strip_prefix(':')),
        None => match place.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    (host, port.map_or(default, |port| port.parse().ok()))
}

impl Recording {
    pub(super) fn set_method(&mut self, known: Option<&str>, method: &str) {
        match known {
            Some(known) => self.set_text(semconv::HTTP_REQUEST_METHOD, known),
            None => {
                self.set_text(semconv::HTTP_REQUEST_METHOD, semconv::OTHER_METHOD);
                self.set_text(semconv::HTTP_REQUEST_METHOD_ORIGINAL, method);
            }
        }
    }

    pub(super) fn set_server(&mut self, authority: &str, scheme: &str) {
        let (host, port) = host_and_port(authority, scheme);
        if host.is_empty() {
            return;
        }
        self.set_text(semconv::SERVER_ADDRESS, host);
        if let Some(port) = port {
            self.set_number(semconv::SERVER_PORT, port);
        }
    }

    pub(super) fn set_connection(&mut self, version: Version, peer: Peer) {
        let version = match version {
            Version::HTTP_10 => "1.0",
            Version::HTTP_11 => "1.1",
            Version::HTTP_2 => "2",
            Version::HTTP_3 => "3",
            _ => "",
        };
        self.set_text(semconv::NETWORK_PROTOCOL_VERSION, version);
        if let Some(peer) = peer.address() {
            self.set_shown(semconv::NETWORK_PEER_ADDRESS, peer.ip());
            self.set_number(semconv::NETWORK_PEER_PORT, peer.port());
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
            ("host:none", "http", ("host", None)),
            ("", "http", ("", Some(80))),
        ] {
            assert_eq!(host_and_port(authority, scheme), wanted, "{authority}");
        }
    }
}
