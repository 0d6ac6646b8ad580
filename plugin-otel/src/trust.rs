//! What is done with the context that a caller sends: by its network, by the path that it asks for.

use std::net::IpAddr;

use plugin_api::RequestHead;

use crate::{networks::Networks, template::Template};

/// What is done with a caller's context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Trust {
    /// Its trace goes on, with trace state and baggage.
    #[default]
    Continue,
    /// A new trace begins whose first span is linked to the caller's; nothing else is kept.
    Link,
    /// It is not looked at.
    Ignore,
}

impl Trust {
    /// The names that [`Trust::of`] knows.
    pub(crate) const NAMES: [&str; 3] = ["continue", "link", "ignore"];

    /// The trust of this name.
    pub(crate) fn of(name: &str) -> Option<Self> {
        match name {
            "continue" => Some(Self::Continue),
            "link" => Some(Self::Link),
            "ignore" => Some(Self::Ignore),
            _ => None,
        }
    }
}

/// Who is trusted how far; the first entry that matches decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TrustTable {
    /// In the operator's order.
    pub(crate) entries: Vec<Entry>,
    /// Where no entry matches.
    pub(crate) otherwise: Trust,
}

/// One entry: it matches where all of its conditions hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The other end of the socket is in one of these; a peer that is not known never is.
    pub(crate) peers: Option<Networks>,
    /// The path is one of these.
    pub(crate) route: Option<Template>,
    /// What is done then.
    pub(crate) trust: Trust,
}

impl TrustTable {
    /// How far the caller of this request is trusted.
    pub(crate) fn of(&self, head: &RequestHead<'_>) -> Trust {
        if self.entries.is_empty() {
            return self.otherwise;
        }
        let peer = head.peer().address().map(|peer| peer.ip());
        let entry = self.entries.iter().find(|entry| entry.matches(peer, head.path()));
        entry.map_or(self.otherwise, |entry| entry.trust)
    }
}

impl Entry {
    fn matches(&self, peer: Option<IpAddr>, path: &str) -> bool {
        let is_peer = |peers: &Networks| peer.is_some_and(|peer| peers.contains(peer));
        self.peers.as_ref().is_none_or(is_peer)
            && self.route.as_ref().is_none_or(|route| route.matches(path))
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use plugin_api::{Peer, Version};

    use super::*;

    fn entry(peer: &str, route: &str, trust: &str) -> Entry {
        let networks = |peer: &str| {
            let mut networks = Networks::default();
            networks.add(peer).unwrap();
            networks
        };
        Entry {
            peers: Some(peer).filter(|peer| !peer.is_empty()).map(networks),
            route: Some(route)
                .filter(|route| !route.is_empty())
                .map(|route| Template::compile(route).unwrap()),
            trust: Trust::of(trust).unwrap(),
        }
    }

    #[test]
    fn the_first_entry_whose_conditions_all_hold_decides() {
        let table = TrustTable {
            entries: vec![
                entry("10.0.0.0/8", "/admin", "link"),
                entry("10.0.0.0/8", "", "continue"),
                entry("", "/open", "link"),
            ],
            otherwise: Trust::Ignore,
        };
        for (peer, path, wanted) in [
            (Some([10, 0, 0, 1]), "/admin/x", Trust::Link),
            (Some([10, 0, 0, 1]), "/x", Trust::Continue),
            (Some([10, 0, 0, 1]), "/open", Trust::Continue),
            (Some([192, 0, 2, 1]), "/open/x", Trust::Link),
            (Some([192, 0, 2, 1]), "/admin", Trust::Ignore),
            (None, "/admin", Trust::Ignore),
            (None, "/open", Trust::Link),
        ] {
            let peer = peer.map_or(Peer::NONE, |ip| Peer::from(SocketAddr::from((ip, 1))));
            let head = RequestHead::new("GET", path, &[]).over(Version::HTTP_11, peer);
            assert_eq!(table.of(&head), wanted, "{peer:?} {path}");
        }
        let mapped = Peer::from("[::ffff:10.0.0.1]:1".parse::<SocketAddr>().unwrap());
        let head = RequestHead::new("GET", "/x", &[]).over(Version::HTTP_11, mapped);
        assert_eq!(table.of(&head), Trust::Continue);
    }

    #[test]
    fn without_entries_all_are_treated_alike() {
        let head = RequestHead::new("GET", "/", &[]);
        assert_eq!(TrustTable::default().of(&head), Trust::Continue);
        let table = TrustTable { entries: Vec::new(), otherwise: Trust::Link };
        assert_eq!(table.of(&head), Trust::Link);
    }
}
