//! Sets of IP networks, as `10.0.0.0/8`.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

/// Networks that belong together. An IPv4 address that came over IPv6 is an IPv4 address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Networks(Vec<IpNet>);

/// An IPv4 network that is written in IPv6 has this many bits in front.
const MAPPED_BITS: u8 = 96;

impl Networks {
    /// Adds a network, or an address that is one by itself.
    ///
    /// # Errors
    /// What was wanted and what was found.
    pub(crate) fn add(&mut self, text: &str) -> Result<(), String> {
        let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let wanted = |_| format!("wanted a network such as \"10.0.0.0/8\", found {text:?}");
        self.0.push(canonical(network.map_err(wanted)?));
        Ok(())
    }

    /// Whether the address is in any of the networks.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// `::ffff:10.0.0.0/104` is `10.0.0.0/8`.
fn canonical(network: IpNet) -> IpNet {
    match (network.addr().to_canonical(), network.prefix_len().checked_sub(MAPPED_BITS)) {
        (IpAddr::V4(address), Some(bits)) if network.addr().is_ipv6() => {
            Ipv4Net::new(address, bits).map_or(network, IpNet::V4)
        }
        _ => network,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(networks: &[&str]) -> Networks {
        let mut all = Networks::default();
        for network in networks {
            all.add(network).unwrap();
        }
        all
    }

    #[test]
    fn an_address_is_in_a_network_or_not() {
        for (networks, good, bad) in [
            (
                &["10.0.0.0/8"][..],
                &["10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3"][..],
                &["11.0.0.0", "::10.1.2.3"][..],
            ),
            (&["10.1.2.3/8"], &["10.9.9.9"], &["11.0.0.0"]),
            (&["::ffff:10.0.0.0/104"], &["10.1.2.3", "::ffff:10.1.2.3"], &["11.0.0.0", "::1"]),
            (&["192.0.2.1"], &["192.0.2.1"], &["192.0.2.2"]),
            (
                &["2001:db8::/32", "::1"],
                &["2001:db8::1", "::1"],
                &["2001:db9::1", "::2", "127.0.0.1"],
            ),
            (&["0.0.0.0/0"], &["1.2.3.4", "::ffff:1.2.3.4"], &["::1"]),
            (&["::/0"], &["::1"], &["1.2.3.4"]),
            (&[], &[], &["1.2.3.4", "::1"]),
        ] {
            let networks = of(networks);
            for address in good {
                assert!(networks.contains(address.parse().unwrap()), "{networks:?} {address}");
            }
            for address in bad {
                assert!(!networks.contains(address.parse().unwrap()), "{networks:?} {address}");
            }
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for bad in
            ["", "10.0.0.0/33", "10.0.0/8", "localhost", "10.0.0.0/", "::1/129", "10.0.0.0/8/8"]
        {
            let error = Networks::default().add(bad).unwrap_err();
            assert_eq!(error, format!("wanted a network such as \"10.0.0.0/8\", found {bad:?}"));
        }
    }
}
