//! Whom a request is of, where it comes from proxies that are believed: `Forwarded` (RFC 7239) or
//! `X-Forwarded-For`.
//!
//! Each proxy adds the address that it was asked from at the end. Read from there: as long as who
//! spoke is believed, what he says counts. What stands before that anybody can have written.

use std::net::{IpAddr, SocketAddr};

use http::header::{FORWARDED, HeaderMap, HeaderName};

use crate::limits::FORWARDED_HOPS_MAX;
use crate::network::Network;

/// Who is believed, and where he says it.
#[derive(Clone, Debug)]
pub struct Forwarders {
    /// Their networks.
    pub networks: Vec<Network>,
    /// The field they write.
    pub field: HeaderName,
}

impl Forwarders {
    /// The address of who asks, through the proxies that are believed, the nearest of which is
    /// `peer`.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        if !self.believe(peer) {
            return peer;
        }
        let lines = headers.get_all(&self.field).into_iter().rev();
        let elements = lines.flat_map(|line| Elements(Some(line.as_bytes())));
        let mut client = peer;
        for element in elements.take(FORWARDED_HOPS_MAX) {
            let text = std::str::from_utf8(element.trim_ascii()).unwrap_or_default();
            let said = if self.field == FORWARDED { said_for(text) } else { Some(text) };
            // He does not say: the last one we know of it is.
            let Some(ip) = said.and_then(address) else { break };
            client = ip;
            if !self.believe(client) {
                break;
            }
        }
        client
    }

    /// Whether this is the address of a proxy that is believed.
    pub fn believe(&self, peer: IpAddr) -> bool {
        self.networks.iter().any(|network| network.holds(peer))
    }
}

/// The elements of a list from its end; commas between quotes part nothing.
struct Elements<'a>(Option<&'a [u8]>);

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.0?;
        let mut is_quoted = false;
        let comma = rest.iter().rposition(|byte| {
            is_quoted ^= *byte == b'"';
            *byte == b',' && !is_quoted
        });
        self.0 = comma.map(|at| &rest[..at]);
        Some(&rest[comma.map_or(0, |at| at + 1)..])
    }
}

/// The value of `for` (RFC 7239 section 5.2), if there is one.
fn said_for(element: &str) -> Option<&str> {
    let mut said = element.split(';').filter_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        name.eq_ignore_ascii_case("for").then_some(value)
    });
    let value = said.next().filter(|_| said.next().is_none())?;
    match value.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"'),
        None => Some(value),
    }
}

/// An address with or without a port; IPv6 with brackets, or bare as `X-Forwarded-For` has it.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let ip = bare.unwrap_or(text).parse::<IpAddr>();
    let ip = ip.ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()));
    ip.map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn client(field: HeaderName, peer: &str, lines: &[&str]) -> String {
        let networks = ["10.0.0.0/8", "fd00::/8"].map(|text| text.parse().unwrap()).to_vec();
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(&field, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        Forwarders { networks, field }.client(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn the_last_address_that_is_no_proxys_is_the_viewers() {
        let field = HeaderName::from_static("x-forwarded-for");
        for (peer, lines, expected) in [
            ("192.0.2.9", &["198.51.100.1"][..], "192.0.2.9"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["203.0.113.5, 198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["203.0.113.5", "198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["198.51.100.1", "10.0.0.2"], "198.51.100.1"),
            ("10.0.0.1", &["203.0.113.5, 198.51.100.1 , 10.3.0.2"], "198.51.100.1"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
            ("10.0.0.1", &["198.51.100.1:5000"], "198.51.100.1"),
            ("10.0.0.1", &["2001:db8::1"], "2001:db8::1"),
            ("10.0.0.1", &["[2001:db8::1]"], "2001:db8::1"),
            ("10.0.0.1", &["[2001:db8::1]:5000"], "2001:db8::1"),
            ("10.0.0.1", &["::ffff:198.51.100.1"], "198.51.100.1"),
            ("fd00::1", &["2001:db8::1, fd00::2"], "2001:db8::1"),
            ("10.0.0.1", &["198.51.100.1, nonsense"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1, unknown, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["198.51.100.1,"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1\u{e9}"], "10.0.0.1"),
        ] {
            assert_eq!(client(field.clone(), peer, lines), expected, "{peer} {lines:?}");
        }
        let many = vec!["10.0.0.2"; FORWARDED_HOPS_MAX + 5].join(",");
        let sent = format!("198.51.100.1,{many}");
        assert_eq!(client(field, "10.0.0.1", &[&sent]), "10.0.0.2", "no further than the bound");
    }

    #[test]
    fn forwarded_is_read_as_rfc_7239_has_it() {
        for (lines, expected) in [
            (&["for=198.51.100.1"][..], "198.51.100.1"),
            (&["proto=https;For=\"198.51.100.1:80\"; by=10.0.0.1"], "198.51.100.1"),
            (&["for=\"[2001:db8::1]:4711\""], "2001:db8::1"),
            (&["for=203.0.113.5, for=198.51.100.1"], "198.51.100.1"),
            (&["for=198.51.100.1, for=10.0.0.2;host=\"a,b\""], "198.51.100.1"),
            (&["for=\"203.0.113.5", "for=198.51.100.1"], "198.51.100.1"),
            (&["for=\"203.0.113.5, for=198.51.100.1"], "198.51.100.1"),
            (&["for=198.51.100.1;for=203.0.113.5"], "10.0.0.1"),
            (&["for=198.51.100.1, for=_hidden"], "10.0.0.1"),
            (&["for=198.51.100.1, for=unknown, for=10.0.0.2"], "10.0.0.2"),
            (&["by=198.51.100.1"], "10.0.0.1"),
            (&["198.51.100.1"], "10.0.0.1"),
        ] {
            assert_eq!(client(FORWARDED, "10.0.0.1", lines), expected, "{lines:?}");
        }
    }
}
