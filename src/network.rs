//! Networks of addresses, as access lists write them, and what is spoken at an address.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// What is spoken at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ListenerKind {
    /// HTTP/1.1 and cleartext HTTP/2 for viewers.
    Http,
    /// The same over TLS.
    Https,
    /// Metrics, health and status, for operators.
    Admin,
    /// Where viewers ask whom they are to go to.
    Steering,
    /// The same over TLS.
    SteeringTls,
}

impl ListenerKind {
    /// Every kind.
    pub const ALL: [ListenerKind; 5] = [
        ListenerKind::Http,
        ListenerKind::Https,
        ListenerKind::Admin,
        ListenerKind::Steering,
        ListenerKind::SteeringTls,
    ];

    /// The one of this name.
    pub fn named(name: &str) -> Option<ListenerKind> {
        ListenerKind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Its setting's name, which is also the name systemd gives its sockets.
    pub fn name(self) -> &'static str {
        match self {
            ListenerKind::Http => "http",
            ListenerKind::Https => "https",
            ListenerKind::Admin => "admin",
            ListenerKind::Steering => "steering",
            ListenerKind::SteeringTls => "steering_tls",
        }
    }

    /// Whether content is served there, by every worker; else a thread of its own answers.
    pub fn is_of_workers(self) -> bool {
        matches!(self, ListenerKind::Http | ListenerKind::Https)
    }

    /// Whether TLS is spoken there.
    pub fn is_tls(self) -> bool {
        matches!(self, ListenerKind::Https | ListenerKind::SteeringTls)
    }
}

/// The addresses whose first bits are these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Whether `address` is one of them. An IPv4 address is never one of IPv6's.
    pub fn holds(&self, address: IpAddr) -> bool {
        let same = |ours: u128, theirs: u128, width: u32| {
            let shift = width - u32::from(self.bits);
            ours.checked_shr(shift) == theirs.checked_shr(shift)
        };
        match (self.address, address) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                same(ours.to_bits().into(), theirs.to_bits().into(), 32)
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => same(ours.to_bits(), theirs.to_bits(), 128),
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = ();

    /// `192.0.2.0/24`, `2001:db8::/32`, or one address.
    fn from_str(text: &str) -> Result<Network, ()> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(drop)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => {
                bits.parse().map_err(drop)?
            }
            Some(_) => return Err(()),
        };
        (bits <= most).then_some(Network { address, bits }).ok_or(())
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_the_addresses_that_begin_as_it_does() {
        for (network, address, holds) in [
            ("192.0.2.0/24", "192.0.2.255", true),
            ("192.0.2.0/24", "192.0.3.0", false),
            ("192.0.2.9/24", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("0.0.0.0/0", "255.1.2.3", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "127.0.0.1", false),
            ("2001:db8::/33", "2001:db8:7fff::1", true),
            ("2001:db8::/33", "2001:db8:8000::1", false),
            ("::1", "::1", true),
        ] {
            let found = network.parse::<Network>().unwrap().holds(address.parse().unwrap());
            assert_eq!(found, holds, "{network} {address}");
        }
        for wrong in ["", "a", "1.2.3.4/33", "::1/129", "1.2.3.4/", "1.2.3.4/+8", "1.2.3/8"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }
}
