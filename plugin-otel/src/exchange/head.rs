//! What both kinds of spans say of the heads of an exchange.

use plugin_api::{Peer, Version};

use crate::{record::Record, semconv, short::Short};

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
