//! What a line may tell of who a viewer is: all of it, a hash, or nothing.
//!
//! The key of the hashes is random, made anew each day (UTC) and at each start, and kept nowhere:
//! equal values of one day have equal hashes, and nobody can try values against them later.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use aws_lc_rs::{hmac, rand};

use crate::moment::unix_seconds;

/// How much is told of what may tell who a viewer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Personal {
    /// Of his address.
    pub client_bits: ClientBits,
    /// Of the query of what he asked for.
    pub query: Shown,
    /// Of the page he came from; its query is never told.
    pub referer: Shown,
    /// Of what his player says it is.
    pub user_agent: Shown,
    /// Of the playback's id (CMCD `sid`).
    pub session: Shown,
}

/// How many leading bits of a viewer's address are written; the rest becomes zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientBits {
    /// Of an IPv4 address, at most 32.
    pub v4: u8,
    /// Of an IPv6 address, at most 128.
    pub v6: u8,
}

impl ClientBits {
    /// Whole addresses.
    pub const ALL: ClientBits = ClientBits { v4: 32, v6: 128 };

    /// In one number.
    fn packed(self) -> u16 {
        u16::from_be_bytes([self.v4, self.v6])
    }

    /// What was packed.
    fn unpacked(packed: u16) -> ClientBits {
        let [v4, v6] = packed.to_be_bytes();
        ClientBits { v4, v6 }
    }

    /// The part of `address` that may be written.
    pub fn of(self, address: IpAddr) -> IpAddr {
        // An IPv4 viewer of an IPv6 listener is still an IPv4 viewer.
        match address.to_canonical() {
            IpAddr::V4(v4) => {
                let dropped = 32u32.saturating_sub(self.v4.into());
                let kept = u32::MAX.checked_shl(dropped).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & kept))
            }
            IpAddr::V6(v6) => {
                let dropped = 128u32.saturating_sub(self.v6.into());
                let kept = u128::MAX.checked_shl(dropped).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & kept))
            }
        }
    }
}

/// How much of one field is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shown {
    /// All of it.
    #[default]
    Whole,
    /// A hash: who is the same is seen, for a day.
    Hashed,
    /// Nothing.
    Off,
}

impl Shown {
    /// Each by its word.
    pub const ALL: [(&'static str, Shown); 3] =
        [("whole", Shown::Whole), ("hashed", Shown::Hashed), ("off", Shown::Off)];

    /// The word for it.
    pub fn word(self) -> &'static str {
        let found = Shown::ALL.iter().find(|(_, one)| *one == self);
        found.map(|(word, _)| *word).expect("each has a word")
    }

    fn of(packed: u32) -> Shown {
        Shown::ALL.get(packed as usize & 3).map_or(Shown::Off, |(_, one)| *one)
    }
}

impl Personal {
    /// Everything is told.
    pub const WHOLE: Personal = Personal {
        client_bits: ClientBits::ALL,
        query: Shown::Whole,
        referer: Shown::Whole,
        user_agent: Shown::Whole,
        session: Shown::Whole,
    };

    fn packed(self) -> u32 {
        let Personal { client_bits, query, referer, user_agent, session } = self;
        let of = |fields: u32, one: Shown| fields << 2 | one as u32;
        let fields = [query, referer, user_agent, session].into_iter().fold(0, of);
        fields << 16 | u32::from(client_bits.packed())
    }

    fn unpacked(packed: u32) -> Personal {
        let field = |number: u32| Shown::of(packed >> (16 + 2 * number));
        Personal {
            client_bits: ClientBits::unpacked(packed as u16),
            query: field(3),
            referer: field(2),
            user_agent: field(1),
            session: field(0),
        }
    }
}

/// What is told now, and the key of the day.
#[derive(Debug)]
pub(super) struct Discretion {
    /// [`Personal`] in one number: looked at for each request.
    personal: AtomicU32,
    daily: ArcSwap<Daily>,
}

struct Daily {
    /// Since 1970.
    day: u64,
    /// Old enough, it goes whatever day the clock says: that may have been turned back.
    made: Instant,
    key: hmac::Key,
}

impl fmt::Debug for Daily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Daily").field("day", &self.day).finish_non_exhaustive()
    }
}

impl Daily {
    fn new(day: u64, made: Instant) -> Daily {
        Daily { day, made, key: hmac::Key::new(hmac::HMAC_SHA256, &random::<32>()) }
    }

    fn is_over(&self, day: u64, now: Instant) -> bool {
        self.day < day || now.saturating_duration_since(self.made) >= DAY
    }
}

impl Discretion {
    pub(super) fn new(personal: Personal) -> Discretion {
        let personal = AtomicU32::new(personal.packed());
        Discretion { personal, daily: ArcSwap::from_pointee(Daily::new(0, Instant::now())) }
    }

    pub(super) fn personal(&self) -> Personal {
        Personal::unpacked(self.personal.load(Ordering::Relaxed))
    }

    pub(super) fn set(&self, personal: Personal) {
        self.personal.store(personal.packed(), Ordering::Relaxed);
    }

    /// What is told of `value` in a request of that time.
    pub(super) fn told<'a>(
        &self,
        shown: Shown,
        time: SystemTime,
        value: Cow<'a, str>,
    ) -> Option<Cow<'a, str>> {
        match shown {
            Shown::Whole => Some(value),
            Shown::Hashed => Some(self.hash(time, value.as_bytes()).into()),
            Shown::Off => None,
        }
    }

    /// What is told of a path and query.
    pub(super) fn target<'a>(&self, time: SystemTime, target: Cow<'a, str>) -> Cow<'a, str> {
        let shown = self.personal().query;
        match target.split_once('?') {
            Some((path, query)) if shown != Shown::Whole => {
                match self.told(shown, time, query.into()) {
                    Some(hash) => format!("{path}?{hash}").into(),
                    None => path.to_owned().into(),
                }
            }
            _ => target,
        }
    }

    /// That of a request of that time.
    fn daily(&self, time: SystemTime, now: Instant) -> Arc<Daily> {
        let day = unix_seconds(time) / DAY.as_secs();
        let daily = self.daily.load_full();
        if !daily.is_over(day, now) {
            return daily;
        }
        // Of those that threads make at once the first counts.
        let new = Arc::new(Daily::new(day, now));
        self.daily.rcu(|one| if one.is_over(day, now) { new.clone() } else { one.clone() });
        self.daily.load_full()
    }

    fn hash(&self, time: SystemTime, value: &[u8]) -> String {
        let tag = hmac::sign(&self.daily(time, Instant::now()).key, value);
        let first = tag.as_ref().first_chunk().expect("a tag of SHA-256 has 32 bytes");
        format!("{:016x}", u64::from_be_bytes(*first))
    }
}

const DAY: Duration = Duration::from_secs(86_400);

/// A random UUID as a URN (RFC 9562 section 5.4).
pub(super) fn random_uuid() -> String {
    let mut number = u128::from_be_bytes(random::<16>());
    number = number & !(0xf << 76) | 4 << 76;
    number = number & !(0b11 << 62) | 0b10 << 62;
    let digits = format!("{number:032x}");
    let (a, b, c) = (&digits[..8], &digits[8..12], &digits[12..16]);
    format!("urn:uuid:{a}-{b}-{c}-{}-{}", &digits[16..20], &digits[20..])
}

fn random<const LENGTH: usize>() -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    rand::fill(&mut bytes).expect("the system has random bytes");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_what_is_read() {
        let shown = [Shown::Whole, Shown::Hashed, Shown::Off];
        for (number, query) in shown.into_iter().enumerate() {
            let [referer, user_agent] = [1, 2].map(|more| shown[(number + more) % 3]);
            let client_bits = ClientBits { v4: 24, v6: 48 };
            let session = query;
            let personal = Personal { client_bits, query, referer, user_agent, session };
            assert_eq!(Discretion::new(personal).personal(), personal);
        }
        assert_eq!(Discretion::new(Personal::WHOLE).personal(), Personal::WHOLE);
    }

    #[test]
    fn a_hash_is_the_same_for_a_day_and_then_another() {
        let discretion = Discretion::new(Personal { query: Shown::Hashed, ..Personal::WHOLE });
        let at = |hours: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(hours * 3_600);
        let told = |hours, value| discretion.target(at(hours), format!("/a?{value}").into());
        let first = told(24_000, "sid=1");
        assert_eq!(first.len(), "/a?".len() + 16);
        assert!(!first.contains("sid"));
        assert_eq!(told(24_023, "sid=1"), first);
        assert_ne!(told(24_023, "sid=2"), first);
        let next = told(24_024, "sid=1");
        assert_ne!(next, first);
        // Who came before midnight and ends after it.
        assert_eq!(told(24_023, "sid=1"), next);
        let another = Discretion::new(Personal { query: Shown::Hashed, ..Personal::WHOLE });
        assert_ne!(another.target(at(24_024), "/a?sid=1".into()), next);
    }
    #[test]
    fn a_key_is_renewed_after_a_day_though_the_clock_was_turned_back() {
        let discretion = Discretion::new(Personal::WHOLE);
        let (now, wrong) = (Instant::now(), SystemTime::UNIX_EPOCH + 20_000 * DAY);
        let first = discretion.daily(wrong, now);
        let right = wrong - 3_000 * DAY;
        assert!(Arc::ptr_eq(&first, &discretion.daily(right, now)));
        let next = discretion.daily(right, now + DAY);
        assert!(!Arc::ptr_eq(&first, &next));
        assert!(Arc::ptr_eq(&next, &discretion.daily(right, now + DAY)));
        assert!(!Arc::ptr_eq(&next, &discretion.daily(right + DAY, now + DAY)));
    }
}
