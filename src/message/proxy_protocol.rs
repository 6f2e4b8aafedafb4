//! What a load balancer says in front of a connection: the PROXY protocol, version 2.
//!
//! Sixteen bytes tell how long the header is; all of it is read before anything of it is believed.
//! Version 1, a line of text without a length, is told apart and refused. What is said beside the
//! address is skipped, but a checksum is checked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crc_fast::{CrcAlgorithm, checksum};

use crate::limits::PROXY_HEADER_BYTES_MAX;

/// The part of a header that tells how long it is.
pub const START_BYTES: usize = 16;

/// Whom a connection is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Brought {
    /// This viewer.
    Viewer(SocketAddr),
    /// The load balancer itself, which looks whether we live, or somebody without an IP address.
    Nobody,
}

/// What is wrong with a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyFault {
    /// The connection begins with something else.
    Missing,
    /// It is of version 1.
    Version1,
    /// It is none that the specification knows, or longer than we read.
    Malformed,
    /// It is not what was sent.
    Checksum,
}

impl ProxyFault {
    /// In words, for a log.
    pub fn words(self) -> &'static str {
        match self {
            ProxyFault::Missing => "no PROXY protocol header; have it send one (version 2)",
            ProxyFault::Version1 => "a PROXY protocol header of version 1; have it send version 2",
            ProxyFault::Malformed => "a PROXY protocol header that cannot be read",
            ProxyFault::Checksum => "a PROXY protocol header whose checksum is wrong",
        }
    }
}

/// How many bytes the whole header has, by its start.
///
/// # Errors
/// It is no header of version 2, or longer than we read.
pub fn length_bytes(start: &[u8; START_BYTES]) -> Result<usize, ProxyFault> {
    if start.starts_with(VERSION_1) {
        return Err(ProxyFault::Version1);
    }
    if !start.starts_with(SIGNATURE) {
        return Err(ProxyFault::Missing);
    }
    let length = START_BYTES + usize::from(u16::from_be_bytes([start[14], start[15]]));
    let is_version_2 = start[12] >> 4 == 2;
    let fits = is_version_2 && length <= PROXY_HEADER_BYTES_MAX;
    if fits { Ok(length) } else { Err(ProxyFault::Malformed) }
}

/// Whom a whole header brings.
///
/// # Errors
/// It does not keep to the specification, or its checksum is wrong.
pub fn read(header: &[u8]) -> Result<Brought, ProxyFault> {
    let (start, rest) = header.split_first_chunk().ok_or(ProxyFault::Malformed)?;
    if length_bytes(start)? != header.len() {
        return Err(ProxyFault::Malformed);
    }
    match start[12] & 0xf {
        LOCAL => return Ok(Brought::Nobody),
        PROXY => {}
        _ => return Err(ProxyFault::Malformed),
    }
    let (brought, addresses_bytes) = match (start[13] >> 4, start[13] & 0xf) {
        (UNKNOWN, _) => return Ok(Brought::Nobody),
        (IPV4, STREAM) => (Brought::Viewer(ipv4(rest)?), 12),
        (IPV6, STREAM) => (Brought::Viewer(ipv6(rest)?), 36),
        (UNIX, STREAM) => (Brought::Nobody, 216),
        _ => return Err(ProxyFault::Malformed),
    };
    check(header, START_BYTES + addresses_bytes)?;
    Ok(brought)
}

/// Source address, destination address, source port, destination port.
fn ipv4(rest: &[u8]) -> Result<SocketAddr, ProxyFault> {
    let ([a, b, c, d, _, _, _, _, high, low], _) = parts(rest)?;
    let ip = IpAddr::V4(Ipv4Addr::new(a, b, c, d));
    Ok(SocketAddr::new(ip, u16::from_be_bytes([high, low])))
}

fn ipv6(rest: &[u8]) -> Result<SocketAddr, ProxyFault> {
    let (source, rest): ([u8; 16], _) = parts(rest)?;
    let (_, rest): ([u8; 16], _) = parts(rest)?;
    let (port, _): ([u8; 2], _) = parts(rest)?;
    let ip = IpAddr::V6(Ipv6Addr::from(source)).to_canonical();
    Ok(SocketAddr::new(ip, u16::from_be_bytes(port)))
}

fn parts<const N: usize>(bytes: &[u8]) -> Result<([u8; N], &[u8]), ProxyFault> {
    let (first, rest) = bytes.split_first_chunk().ok_or(ProxyFault::Malformed)?;
    Ok((*first, rest))
}

/// Skips what follows the addresses, each with a type and a length, and checks a checksum.
fn check(header: &[u8], mut at: usize) -> Result<(), ProxyFault> {
    let mut rest = header.get(at..).ok_or(ProxyFault::Malformed)?;
    while let [kind, high, low, after @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let value = after.get(..length).ok_or(ProxyFault::Malformed)?;
        at += 3;
        if *kind == CHECKSUM {
            let told = <[u8; 4]>::try_from(value).map_err(|_| ProxyFault::Malformed)?;
            // As it was before it was written.
            let mut sent = header.to_vec();
            sent[at..at + 4].fill(0);
            let found = checksum(CrcAlgorithm::Crc32Iscsi, &sent);
            if found != u64::from(u32::from_be_bytes(told)) {
                return Err(ProxyFault::Checksum);
            }
        }
        at += length;
        rest = &after[length..];
    }
    if rest.is_empty() { Ok(()) } else { Err(ProxyFault::Malformed) }
}

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const VERSION_1: &[u8] = b"PROXY ";
const LOCAL: u8 = 0;
const PROXY: u8 = 1;
const UNKNOWN: u8 = 0;
const IPV4: u8 = 1;
const IPV6: u8 = 2;
const UNIX: u8 = 3;
const STREAM: u8 = 1;
/// The type of a CRC32c.
const CHECKSUM: u8 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = (rest.len() as u16).to_be_bytes();
        [SIGNATURE, &[0x20 | command, family], &length, rest].concat()
    }

    const V4: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x34, 0, 80];

    fn v6(source: &str) -> Vec<u8> {
        let source: Ipv6Addr = source.parse().unwrap();
        [source.octets().as_slice(), &[0; 16], &[0x12, 0x34, 0, 80]].concat()
    }

    #[test]
    fn a_header_brings_whom_it_names_and_what_is_no_header_brings_nobody() {
        let viewer = |text: &str| Ok(Brought::Viewer(text.parse().unwrap()));
        let (nobody, malformed) = (Ok(Brought::Nobody), Err(ProxyFault::Malformed));
        let noop: &[u8] = &[4, 0, 2, 9, 9];
        let unix = vec![0; 216];
        for (command, family, rest, expected) in [
            (PROXY, 0x11, V4.to_vec(), viewer("192.0.2.7:4660")),
            (PROXY, 0x11, [&V4, noop, noop].concat(), viewer("192.0.2.7:4660")),
            (PROXY, 0x21, v6("2001:db8::7"), viewer("[2001:db8::7]:4660")),
            (PROXY, 0x21, v6("::ffff:192.0.2.7"), viewer("192.0.2.7:4660")),
            (PROXY, 0x31, unix, nobody),
            (PROXY, 0x00, Vec::new(), nobody),
            (PROXY, 0x00, vec![1, 2], nobody),
            (LOCAL, 0x00, Vec::new(), nobody),
            (LOCAL, 0x11, V4.to_vec(), nobody),
            (2, 0x11, V4.to_vec(), malformed),
            (PROXY, 0x12, V4.to_vec(), malformed),
            (PROXY, 0x41, V4.to_vec(), malformed),
            (PROXY, 0x11, V4[..11].to_vec(), malformed),
            (PROXY, 0x21, V4.to_vec(), malformed),
            (PROXY, 0x31, V4.to_vec(), malformed),
            (PROXY, 0x11, [&V4, &noop[..4]].concat(), malformed),
            (PROXY, 0x11, [&V4, &noop[..2]].concat(), malformed),
        ] {
            let header = header(command, family, &rest);
            assert_eq!(read(&header), expected, "{command} {family:x} {rest:?}");
        }
        let good = header(PROXY, 0x11, &V4);
        assert_eq!(read(&good[..good.len() - 1]), malformed);
        assert_eq!(read(&[&good[..], b"GET"].concat()), malformed);
    }

    #[test]
    fn its_start_tells_how_long_it_is_and_what_is_none() {
        let start = |bytes: &[u8]| length_bytes(bytes[..START_BYTES].try_into().unwrap());
        let mut good = header(PROXY, 0x11, &V4);
        assert_eq!(start(&good), Ok(28));
        assert_eq!(start(b"PROXY TCP4 192.0.2.7"), Err(ProxyFault::Version1));
        assert_eq!(start(b"GET / HTTP/1.1\r\n"), Err(ProxyFault::Missing));
        assert_eq!(
            start(b"\x16\x03\x01\x02\x00\x01\0\0\0\0\0\0\0\0\0\0"),
            Err(ProxyFault::Missing)
        );
        good[14..16].copy_from_slice(&[0x0f, 0xf0]);
        assert_eq!(start(&good), Ok(PROXY_HEADER_BYTES_MAX));
        good[15] += 1;
        assert_eq!(start(&good), Err(ProxyFault::Malformed));
        good[12] = 0x11;
        assert_eq!(start(&good), Err(ProxyFault::Malformed));
    }

    /// The example of RFC 3720 appendix B.4 says which CRC it is.
    #[test]
    fn a_checksum_that_is_there_must_be_right() {
        assert_eq!(checksum(CrcAlgorithm::Crc32Iscsi, &[0; 32]), 0x8a91_36aa);
        let empty = header(PROXY, 0x11, &[&V4, &[CHECKSUM, 0, 4, 0, 0, 0, 0][..]].concat());
        let sum = checksum(CrcAlgorithm::Crc32Iscsi, &empty) as u32;
        let mut good = empty.clone();
        good[31..35].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(read(&good), Ok(Brought::Viewer("192.0.2.7:4660".parse().unwrap())));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let found = read(&bad);
            // Where it says that nobody is brought, nothing else of it is looked at, and a field
            // of another type is no checksum.
            let is_other = matches!(found, Ok(Brought::Nobody)) || bit / 8 == 28;
            assert!(found.is_err() || is_other, "bit {bit}: {found:?}");
        }
        let short = header(PROXY, 0x11, &[&V4, &[CHECKSUM, 0, 3, 0, 0, 0][..]].concat());
        assert_eq!(read(&short), Err(ProxyFault::Malformed));
    }
}
