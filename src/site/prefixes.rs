//! Networks, however many: whether one of them holds an address is found without a search through
//! them all. Written inline or in a file, a line for each:
//!
//! ```text
//! # Our own access networks.
//! 192.0.2.0/24
//! 2001:db8::/32   # and who has this
//! ```
//!
//! An IPv4 address is one however it is written, and so is a network of them. Pure.

use std::fmt;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixSet;

use crate::limits::{ENTRANCE_NETWORKS_MAX, NETWORK_TOLD_BYTES_MAX};

/// Some networks.
#[derive(Clone, Default)]
pub struct Prefixes {
    ipv4: PrefixSet<Ipv4Net>,
    ipv6: PrefixSet<Ipv6Net>,
}

/// Why a text is no list of networks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrefixFault {
    /// A line is not UTF-8.
    NoText {
        /// Counted from 1.
        line: usize,
    },
    /// A line is no network.
    NoNetwork {
        /// Counted from 1.
        line: usize,
        /// As it was written, or the beginning of that.
        written: String,
    },
    /// There is no network in it: perhaps it is still being written.
    Empty,
    /// There are too many.
    TooMany,
}

impl Prefixes {
    /// Those of a text.
    ///
    /// # Errors
    /// The first line that is wrong.
    pub fn parse(text: &[u8]) -> Result<Prefixes, PrefixFault> {
        let mut prefixes = Prefixes::default();
        for (line, bytes) in (1..).zip(text.split(|byte| *byte == b'\n')) {
            let text = str::from_utf8(bytes).map_err(|_| PrefixFault::NoText { line })?;
            let text = text.split_once('#').map_or(text, |(before, _)| before).trim();
            if text.is_empty() {
                continue;
            }
            let network = network(text).ok_or_else(|| {
                let written = text.chars().take(NETWORK_TOLD_BYTES_MAX).collect::<String>();
                PrefixFault::NoNetwork { line, written: written.escape_debug().to_string() }
            })?;
            prefixes.insert(network);
            if prefixes.count() > ENTRANCE_NETWORKS_MAX {
                return Err(PrefixFault::TooMany);
            }
        }
        if prefixes.count() == 0 { Err(PrefixFault::Empty) } else { Ok(prefixes) }
    }

    /// One more.
    pub fn insert(&mut self, network: IpNet) {
        match network {
            IpNet::V4(network) => self.ipv4.insert(network),
            IpNet::V6(network) => self.ipv6.insert(network),
        };
    }

    /// Whether one of them holds this address, which is canonical.
    pub fn hold(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.ipv4.get_lpm(&Ipv4Net::from(address)).is_some(),
            IpAddr::V6(address) => self.ipv6.get_lpm(&Ipv6Net::from(address)).is_some(),
        }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.ipv4.len() + self.ipv6.len()
    }

    /// The memory they take.
    pub fn bytes(&self) -> u64 {
        (self.ipv4.mem_size() + self.ipv6.mem_size()) as u64
    }

    /// All of them, in the order of addresses.
    pub fn iter(&self) -> impl Iterator<Item = IpNet> {
        let ipv4 = self.ipv4.iter().map(IpNet::from);
        ipv4.chain(self.ipv6.iter().map(IpNet::from))
    }
}

/// A network or one address, without what is behind its length. One of IPv6 that holds nothing but
/// IPv4 addresses written so is the network of those.
pub fn network(text: &str) -> Option<IpNet> {
    let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
    let network = text.parse().ok().or_else(address)?.trunc();
    match network {
        IpNet::V6(mapped) if mapped.prefix_len() >= MAPPED_BITS => {
            let ipv4 = mapped.network().to_ipv4_mapped();
            let bits = mapped.prefix_len() - MAPPED_BITS;
            Some(ipv4.and_then(|it| Ipv4Net::new(it, bits).ok()).map_or(network, IpNet::V4))
        }
        network => Some(network),
    }
}

impl fmt::Debug for Prefixes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} networks", self.count())
    }
}

impl fmt::Display for PrefixFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PrefixFault::NoText { line } => {
                write!(f, "line {line} is not UTF-8; save it as plain text")
            }
            PrefixFault::NoNetwork { line, written } => write!(
                f,
                "line {line}: `{written}` is no network; write one such as 192.0.2.0/24 in each \
                 line"
            ),
            PrefixFault::Empty => f.write_str(
                "there is no network in it; write one such as 192.0.2.0/24 in each line",
            ),
            PrefixFault::TooMany => write!(
                f,
                "there are more than {ENTRANCE_NETWORKS_MAX} networks in it; write larger ones \
                 that hold them"
            ),
        }
    }
}

impl std::error::Error for PrefixFault {}

/// Before an IPv4 address that is written as one of IPv6 (RFC 4291 section 2.5.5.2).
const MAPPED_BITS: u8 = 96;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_holds_the_addresses_of_its_networks_however_they_are_written() {
        let text = "# ours\r\n192.0.2.0/25\n\n198.51.100.7  # one\n::ffff:203.0.113.0/120\n\
                    2001:db8::/33\n";
        let prefixes = Prefixes::parse(text.as_bytes()).unwrap();
        assert_eq!(prefixes.count(), 4);
        for (address, holds) in [
            ("192.0.2.127", true),
            ("192.0.2.128", false),
            ("::ffff:192.0.2.1", true),
            ("198.51.100.7", true),
            ("198.51.100.8", false),
            ("203.0.113.255", true),
            ("2001:db8:7fff::1", true),
            ("2001:db8:8000::1", false),
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(prefixes.hold(address.to_canonical()), holds, "{address}");
        }
        let all: Vec<_> = prefixes.iter().map(|one| one.to_string()).collect();
        let expected = ["192.0.2.0/25", "198.51.100.7/32", "203.0.113.0/24", "2001:db8::/33"];
        assert_eq!(all, expected);
        let everybody = Prefixes::parse(b"0.0.0.0/0").unwrap();
        assert!(everybody.hold("192.0.2.1".parse().unwrap()));
        assert!(!everybody.hold("2001:db8::1".parse().unwrap()));
    }

    #[test]
    fn a_line_that_is_no_network_is_named() {
        for (text, line) in [
            (&b"192.0.2.0/24\n192.0.2.0/33\n"[..], "line 2: `192.0.2.0/33` is no network"),
            (b"192.0.2.0/24 fra-1", "line 1: `192.0.2.0/24 fra-1` is no network"),
            (b"<html>\x07", "line 1: `<html>\\u{7}` is no network"),
            (b"\n\xff\n", "line 2 is not UTF-8"),
            (b"# nothing\n\n", "there is no network in it"),
            (b"", "there is no network in it"),
        ] {
            let error = Prefixes::parse(text).unwrap_err().to_string();
            assert!(error.starts_with(line) && !error.contains('\n'), "{error}");
        }
    }
}
