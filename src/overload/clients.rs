//! What each client has at once: a table that never grows.
//!
//! A client is the first bits of an address: with IPv6 one household has a network. Places are in
//! sets of eight, found by a keyed hash. Where all eight have connections, another client is not
//! counted and so not limited: who comes from so many networks is not held by a limit of one.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Overload;
use super::rate::Bucket;
use crate::limits::CLIENTS_MAX;

/// What one client may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientLimits {
    /// Connections at once; 0: as many as he likes.
    pub connections_max: u32,
    /// Requests in a second, those of two at once; 0: as many as he likes.
    pub requests_per_second: u32,
    /// The bits of an IPv4 address that tell one client from another.
    pub bits_v4: u8,
    /// The bits of an IPv6 address.
    pub bits_v6: u8,
}

impl Default for ClientLimits {
    fn default() -> ClientLimits {
        ClientLimits { connections_max: 0, requests_per_second: 0, bits_v4: 32, bits_v6: 64 }
    }
}

impl ClientLimits {
    /// What all addresses of one client have in common.
    fn prefix(&self, address: IpAddr) -> (u8, u128) {
        let first = |bits: u128, width: u32, count: u8| {
            bits.checked_shr(width - u32::from(count)).unwrap_or_default()
        };
        match address.to_canonical() {
            IpAddr::V4(ip) => (4, first(ip.to_bits().into(), 32, self.bits_v4)),
            IpAddr::V6(ip) => (6, first(ip.to_bits(), 128, self.bits_v6)),
        }
    }
}

/// One client; nobody where `key` is 0.
#[derive(Clone, Copy, Default)]
struct Client {
    key: u64,
    connections: u32,
    requests: Bucket,
}

type Set = [Client; SET];

pub(super) struct Clients {
    sets: Box<[Mutex<Set>]>,
    hasher: RandomState,
    uncounted: AtomicU64,
}

impl Clients {
    pub(super) fn new() -> Clients {
        let sets = (0..CLIENTS_MAX / SET).map(|_| Mutex::default()).collect();
        Clients { sets, hasher: RandomState::new(), uncounted: AtomicU64::new(0) }
    }

    pub(super) fn uncounted(&self) -> u64 {
        self.uncounted.load(Ordering::Relaxed)
    }

    /// One connection more.
    pub(super) fn connect(
        shared: &Arc<Overload>,
        address: IpAddr,
        limits: &ClientLimits,
    ) -> Result<Option<Place>, ()> {
        let (key, mut set) = shared.clients.set_of(limits.prefix(address));
        let Some(client) = shared.clients.place(&mut set, key) else { return Ok(None) };
        if client.connections >= limits.connections_max {
            return Err(());
        }
        client.connections += 1;
        Ok(Some(Place { shared: Arc::clone(shared), key }))
    }

    /// One request more, or how long until he may.
    pub(super) fn ask(
        &self,
        address: IpAddr,
        limits: &ClientLimits,
        now: Duration,
    ) -> Result<(), Duration> {
        let (key, mut set) = self.set_of(limits.prefix(address));
        let Some(client) = self.place(&mut set, key) else { return Ok(()) };
        client.requests.take(now, limits.requests_per_second)
    }

    fn set_of(&self, prefix: (u8, u128)) -> (u64, MutexGuard<'_, Set>) {
        let key = self.hasher.hash_one(prefix).max(1);
        (key, self.set(key))
    }

    fn set(&self, key: u64) -> MutexGuard<'_, Set> {
        let set = &self.sets[key as usize % self.sets.len()];
        set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// His place, or one of somebody who has no connection: of those who have asked least.
    fn place<'a>(&self, set: &'a mut Set, key: u64) -> Option<&'a mut Client> {
        let known = set.iter().position(|client| client.key == key);
        let idle = || {
            let idle = set.iter().enumerate().filter(|(_, client)| client.connections == 0);
            idle.min_by_key(|(_, client)| client.requests.full_at_us()).map(|(at, _)| at)
        };
        let Some(at) = known.or_else(idle) else {
            self.uncounted.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        if known.is_none() {
            set[at] = Client { key, ..Client::default() };
        }
        Some(&mut set[at])
    }
}

/// A connection's place among those of its client.
pub struct Place {
    shared: Arc<Overload>,
    key: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut set = self.shared.clients.set(self.key);
        // It stays while there are connections.
        if let Some(client) = set.iter_mut().find(|client| client.key == self.key) {
            client.connections -= 1;
        }
    }
}

/// Clients that one hash may name.
const SET: usize = 8;

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::limits::CLIENTS_BYTES;
    use crate::overload::Settings;

    const LIMITS: ClientLimits =
        ClientLimits { connections_max: 2, requests_per_second: 1, bits_v4: 32, bits_v6: 56 };

    fn shared() -> Arc<Overload> {
        Overload::new(Settings::default(), Arc::default(), Instant::now())
    }

    fn connect(shared: &Arc<Overload>, ip: &str) -> Result<Option<Place>, ()> {
        Clients::connect(shared, ip.parse().unwrap(), &LIMITS)
    }

    #[test]
    fn a_client_has_so_many_connections_and_others_have_theirs() {
        let shared = shared();
        let first = connect(&shared, "192.0.2.1").unwrap();
        let _second = connect(&shared, "::ffff:192.0.2.1").unwrap();
        assert!(connect(&shared, "192.0.2.1").is_err(), "an IPv4 client in IPv6's words");
        let _other = connect(&shared, "192.0.2.2").unwrap();
        drop(first);
        let _again = connect(&shared, "192.0.2.1").unwrap();
        assert!(connect(&shared, "192.0.2.1").is_err());

        let _one = connect(&shared, "2001:db8:0:100::1").unwrap();
        let _two = connect(&shared, "2001:db8:0:1ff::2").unwrap();
        assert!(connect(&shared, "2001:db8:0:1aa::3").is_err(), "one network of 56 bits");
        assert!(connect(&shared, "2001:db8:0:200::1").is_ok());
        let none = ClientLimits { bits_v4: 0, bits_v6: 0, ..LIMITS };
        assert_eq!(none.prefix("192.0.2.1".parse().unwrap()), (4, 0));
        assert_eq!(none.prefix("2001:db8::1".parse().unwrap()), (6, 0));
    }

    #[test]
    fn a_client_asks_so_often_and_others_as_well() {
        let clients = Clients::new();
        let asked = |ip: &str, seconds| {
            let (ip, now) = (ip.parse().unwrap(), Duration::from_secs(seconds));
            (0..9).filter(|_| clients.ask(ip, &LIMITS, now).is_ok()).count()
        };
        assert_eq!(
            [asked("192.0.2.1", 5), asked("192.0.2.2", 5), asked("192.0.2.1", 6)],
            [2, 2, 1]
        );
    }

    #[test]
    fn the_table_never_grows_and_who_is_not_counted_is_not_limited() {
        let shared = shared();
        let bytes = std::mem::size_of_val(&*shared.clients.sets) as u64;
        assert!(bytes <= CLIENTS_BYTES, "{bytes}");
        let (_, mut set) = shared.clients.set_of((4, 7));
        for (at, client) in set.iter_mut().enumerate() {
            (client.key, client.connections) = (at as u64 + 1, 1);
        }
        assert!(shared.clients.place(&mut set, 99).is_none());
        assert_eq!(shared.clients.uncounted(), 1);
        // Somebody goes: his place is the next one's, who begins with nothing.
        set[3].connections = 0;
        set[3].requests.take(Duration::from_secs(9), 1).unwrap();
        set[5].connections = 0;
        let place = shared.clients.place(&mut set, 99).unwrap();
        assert_eq!((place.key, place.connections), (99, 0));
        assert_eq!(set[5].key, 99, "who has asked least recently goes first");
    }
}
