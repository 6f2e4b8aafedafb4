//! What is too much, and what one client may have; the order of refusals is `src/overload.rs`'s.

use std::time::Duration;

use super::TIMEOUTS;
use super::raw::Section;

/// What is too much; none: nothing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overload {
    /// How late a worker may be.
    pub lag: Duration,
    /// What may be sent in a second.
    pub egress_bytes: Option<u64>,
    /// TLS handshakes in a second.
    pub handshakes: Option<u32>,
    /// What one client may have.
    pub client: Client,
}

/// What one client may have, and who is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Connections at once; 0: no limit.
    pub connections: u32,
    /// Requests in a second; 0: no limit.
    pub requests: u32,
    /// Bits of an IPv4 address that tell one from another.
    pub bits_v4: u8,
    /// Bits of an IPv6 address.
    pub bits_v6: u8,
}

/// Reads what the section `limits` says of it.
pub(super) fn read(section: &Section<'_>) -> Overload {
    let handshakes = section.count("handshakes", 0, 0..=MANY);
    Overload {
        lag: section.duration("lag", LAG, TIMEOUTS),
        egress_bytes: section
            .setting("egress")
            .and_then(|setting| setting.bytes_per_second("a rate such as \"40 Gbit/s\"")),
        handshakes: (handshakes > 0).then_some(handshakes as u32),
        client: section.section("client", |client| Client {
            connections: client.count("connections", 0, 0..=MANY) as u32,
            requests: client.count("requests", 0, 0..=MANY) as u32,
            bits_v4: client.count("bits_v4", 32, 1..=32) as u8,
            bits_v6: client.count("bits_v6", 64, 1..=128) as u8,
        }),
    }
}

const LAG: Duration = Duration::from_millis(250);
const MANY: u64 = 1_000_000;
