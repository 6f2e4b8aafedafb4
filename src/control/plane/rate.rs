//! How often each client may ask: so many requests a second, and as many again at once.
//!
//! A client is who shows a certificate, wherever he asks from; of all others an address of IPv4, or
//! a network of 64 bits of IPv6. Those that are watched are bounded: who has not asked for a while
//! is forgotten, and where all ask without end, those who come new share one rate.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use crate::limits::PLANE_CLIENTS_MAX;

/// Whose rate it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Client {
    /// Whom a certificate names.
    Named(String),
    /// Who asks from there, without one.
    At(IpAddr),
}

impl Client {
    /// Who asks from there.
    pub(super) fn at(ip: IpAddr) -> Client {
        let network = |ip: Ipv6Addr| Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX));
        Client::At(match ip {
            IpAddr::V4(_) => ip,
            IpAddr::V6(ip) => IpAddr::V6(network(ip)),
        })
    }
}

/// What each client has left.
pub(super) struct Rates {
    per_second: f64,
    clients: HashMap<Client, Bucket>,
    /// Of all for whom there is no room.
    others: Option<Bucket>,
}

#[derive(Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Rates {
    pub(super) fn new(per_second: u32) -> Rates {
        Rates { per_second: f64::from(per_second.max(1)), clients: HashMap::new(), others: None }
    }

    /// Whether one more request of this client is within its rate.
    pub(super) fn is_let_in(&mut self, client: &Client, now: Instant) -> bool {
        let per_second = self.per_second;
        if self.clients.len() >= PLANE_CLIENTS_MAX && !self.clients.contains_key(client) {
            self.clients.retain(|_, bucket| now.duration_since(bucket.at) < FORGOTTEN_AFTER);
        }
        let full = Bucket { left: per_second * BURST_SECONDS, at: now };
        let bucket = match self.clients.len() < PLANE_CLIENTS_MAX {
            true => self.clients.entry(client.clone()).or_insert(full),
            false => match self.clients.get_mut(client) {
                Some(bucket) => bucket,
                None => self.others.get_or_insert(full),
            },
        };
        let since = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.left = (bucket.left + since * per_second).min(per_second * BURST_SECONDS);
        bucket.at = now;
        let is_let_in = bucket.left >= 1.0;
        bucket.left -= f64::from(u8::from(is_let_in));
        is_let_in
    }
}

/// So many seconds' requests at once.
const BURST_SECONDS: f64 = 2.0;
/// Then a bucket is full again.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_its_rate_and_gets_it_back() {
        let (mut rates, start) = (Rates::new(5), Instant::now());
        let [one, other] = ["192.0.2.1", "192.0.2.2"].map(|ip| Client::at(ip.parse().unwrap()));
        let let_in =
            |rates: &mut Rates, who, at| (0..20).filter(|_| rates.is_let_in(who, at)).count();
        assert_eq!(let_in(&mut rates, &one, start), 10);
        assert_eq!(let_in(&mut rates, &other, start), 10);
        let named = Client::Named("edge-1".to_owned());
        assert_eq!(let_in(&mut rates, &named, start), 10);
        assert_eq!(let_in(&mut rates, &one, start + Duration::from_secs(1)), 5);
        assert_eq!(let_in(&mut rates, &one, start + Duration::from_secs(60)), 10);
    }

    #[test]
    fn addresses_of_one_network_of_ipv6_are_one_client() {
        let (mut rates, start) = (Rates::new(1), Instant::now());
        let ips = ["2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8:0:1::1"];
        let let_in = ips.map(|ip| rates.is_let_in(&Client::at(ip.parse().unwrap()), start));
        assert_eq!(let_in, [true, true, false, true]);
    }

    #[test]
    fn clients_are_bounded_and_who_comes_new_shares_what_there_is_for_them() {
        let (mut rates, start) = (Rates::new(1), Instant::now());
        let at = |n: u32| Client::at(IpAddr::V4(n.into()));
        for n in 0..PLANE_CLIENTS_MAX as u32 {
            assert!(rates.is_let_in(&at(n), start));
        }
        let new = (0..9).map(|n| at(0xffff_0000 + n));
        let let_in = new.filter(|client| rates.is_let_in(client, start)).count();
        assert_eq!((let_in, rates.clients.len()), (2, PLANE_CLIENTS_MAX));
        assert!(rates.is_let_in(&at(0), start), "who was there keeps his own");
        assert!(rates.is_let_in(&at(u32::MAX), start + FORGOTTEN_AFTER));
        assert_eq!(rates.clients.len(), 1);
    }
}
