//! The decision of steering that a viewer comes by, as a URL carries it and the log repeats it:
//! `NUMBER.RANKcause.SECONDS.HOST`, and `.SEAL` where there is a secret.
//!
//! Says why the appliance was chosen, so that the one that serves can tell whose a miss is. It
//! opens nothing and names no object: who forges one, where nothing is sealed, is counted wrongly.
//! Pure, and read without an allocation.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::target::{decision_in, host_and_port};
use crate::limits::{DECISION_BYTES_MAX, DECISION_EARLY_SECONDS_MAX, DECISION_SECONDS_MAX};

/// Why an appliance is the first for a viewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// None would be better for him, or what would be does not have it: a miss is the content's.
    Content,
    /// What would be better is ill, full, near its limit, starting or leaving.
    Health,
    /// No route is known of him where others have some, or what would be better by its route has
    /// no pathway or no address for him.
    Route,
}

/// A decision, for one of the appliances it ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Given {
    /// Its number.
    pub number: u64,
    /// The appliance's place in it; 0 is the best.
    pub rank: usize,
    /// Why the best is the first.
    pub cause: Cause,
    /// When it was made, since 1970.
    pub made_seconds: u64,
    /// For which appliance.
    pub host: Host,
}

/// Where an appliance is reached, as far as it has to be told from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host(u32);

/// What decisions are sealed with by who has the secret.
#[derive(Clone)]
pub struct Seal(Key);

impl Cause {
    const ALL: [(Cause, u8); 3] =
        [(Cause::Content, b'c'), (Cause::Health, b'h'), (Cause::Route, b'r')];

    fn letter(self) -> char {
        Cause::ALL[self as usize].1.into()
    }
}

impl Host {
    /// Of an authority; one that is none is nobody's.
    pub fn of(authority: &str) -> Host {
        host_and_port(authority.as_bytes()).map_or(Host(0), |(host, port)| Host::new(&host, port))
    }

    /// Of a host in lower case, without a final dot. The usual ports are as good as none: players
    /// leave them out.
    pub fn new(host: &str, port: Option<u16>) -> Host {
        let port = port.filter(|port| ![80, 443].contains(port)).unwrap_or(0);
        Host(xxh3_64_with_seed(host.as_bytes(), port.into()) as u32)
    }
}

impl Seal {
    /// Of a secret that nothing else is sealed with.
    pub fn new(secret: &[u8]) -> Seal {
        Seal(Key::new(HMAC_SHA256, secret))
    }

    fn of(&self, text: &str) -> [u8; SEAL_CHARACTERS] {
        let (tag, mut seal) = (sign(&self.0, text.as_bytes()), [0; SEAL_CHARACTERS]);
        let tag = &tag.as_ref()[..SEAL_BYTES];
        let written = URL_SAFE_NO_PAD.encode_slice(tag, &mut seal);
        written.expect("eight bytes are eleven characters");
        seal
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seal")
    }
}

impl Given {
    /// As a URL carries it: no character needs an escape.
    pub fn text(&self, seal: Option<&Seal>) -> String {
        let Given { number, rank, cause, made_seconds, host: Host(host) } = *self;
        let text = format!("{number:016x}.{rank}{}.{made_seconds:x}.{host:08x}", cause.letter());
        match seal.map(|seal| seal.of(&text)) {
            Some(seal) => text + "." + str::from_utf8(&seal).expect("base64 is ASCII"),
            None => text,
        }
    }

    /// Reads one; with a seal, only what was sealed by it.
    fn read(text: &str, seal: Option<&Seal>) -> Option<Given> {
        let mut parts = text.split('.');
        let number = hex(parts.next().filter(|number| number.len() == 16)?)?;
        let (rank, cause) = parts.next()?.split_at_checked(1)?;
        let cause = Cause::ALL.into_iter().find(|(_, letter)| cause.as_bytes() == [*letter])?.0;
        let rank = usize::from(rank.parse::<u8>().ok()?);
        let made_seconds = hex(parts.next()?)?;
        let host = hex(parts.next().filter(|host| host.len() == 8)?)?;
        let (host, shown) = (Host(u32::try_from(host).ok()?), parts.next());
        if let Some(seal) = seal {
            let sealed = &text[..text.rfind('.')?];
            verify_slices_are_equal(&seal.of(sealed), shown?.as_bytes()).ok()?;
        }
        parts.next().is_none().then_some(Given { number, rank, cause, made_seconds, host })
    }
}

/// Why who asks `host` with this query was sent there; `None`: he comes without a decision, by one
/// for another appliance or an old one, or his player has left the one that was the best.
pub fn cause(
    query: Option<&str>,
    host: impl FnOnce() -> Host,
    now_seconds: u64,
    seal: Option<&Seal>,
) -> Option<Cause> {
    let given = Given::read(logged(query)?, seal)?;
    let oldest = now_seconds.saturating_sub(DECISION_SECONDS_MAX);
    let latest = now_seconds.saturating_add(DECISION_EARLY_SECONDS_MAX);
    let is_of_now = (oldest..=latest).contains(&given.made_seconds);
    (is_of_now && given.rank == 0 && given.host == host()).then_some(given.cause)
}

/// The decision in a query, if a log may repeat it: it is no longer than any of ours and made of
/// the same characters.
pub fn logged(query: Option<&str>) -> Option<&str> {
    let text = decision_in(query?)?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let fits = (1..=DECISION_BYTES_MAX).contains(&text.len()) && text.bytes().all(plain);
    fits.then_some(text)
}

/// Digits as they are written here, and in no other way.
fn hex(digits: &str) -> Option<u64> {
    let plain = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let fits = (1..=16).contains(&digits.len()) && digits.bytes().all(plain);
    u64::from_str_radix(digits, 16).ok().filter(|_| fits)
}

/// Too many to try out where all that can be won is to be counted wrongly.
const SEAL_BYTES: usize = 8;
const SEAL_CHARACTERS: usize = 11;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn given() -> Given {
        let (number, host) = (0x0123_4567_89ab_cdef, Host::of("Edge-1.example:8443"));
        Given { number, rank: 0, cause: Cause::Health, made_seconds: NOW, host }
    }

    fn cause_of(text: &str, host: &str, now: u64, seal: Option<&Seal>) -> Option<Cause> {
        cause(Some(&format!("a=b&tidegate-decision={text}")), || Host::of(host), now, seal)
    }

    #[test]
    fn a_decision_counts_where_it_was_made_for_and_while_it_is_new() {
        let text = given().text(None);
        assert!(text.starts_with("0123456789abcdef.0h.6b49d200."), "{text}");
        let at = |host, now| cause_of(&text, host, now, None);
        let (host, most) = ("edge-1.example:8443", DECISION_SECONDS_MAX);
        for now in [NOW, NOW + most, NOW - DECISION_EARLY_SECONDS_MAX] {
            assert_eq!(at(host, now), Some(Cause::Health), "{now}");
        }
        for (host, now) in [
            ("edge-1.example", NOW),
            ("edge-2.example:8443", NOW),
            ("", NOW),
            (host, NOW + most + 1),
            (host, NOW - DECISION_EARLY_SECONDS_MAX - 1),
            (host, 0),
        ] {
            assert_eq!(at(host, now), None, "{host} {now}");
        }
        let second = Given { rank: 1, ..given() }.text(None);
        assert_eq!(cause_of(&second, host, NOW, None), None, "his player left the best one");
        for (one, other) in [("a.test", "A.test.:443"), ("[2001:db8::1]:80", "[2001:db8::1]")] {
            assert_eq!(Host::of(one), Host::of(other));
        }
        let asked = || Host::of(host);
        assert_eq!(cause(None, asked, NOW, None), None);
        assert_eq!(cause(Some("a=b&tidegate-decisions=c"), asked, NOW, None), None);
    }

    #[test]
    fn who_has_the_secret_counts_what_was_sealed_with_it_alone() {
        let (seal, other) = (Seal::new(b"one"), Seal::new(b"other"));
        let text = given().text(Some(&seal));
        let at = |text: &str, seal| cause_of(text, "edge-1.example:8443", NOW, seal);
        assert_eq!(at(&text, Some(&seal)), Some(Cause::Health));
        assert_eq!(at(&text, None), Some(Cause::Health), "who has none believes it");
        assert_eq!(at(&text, Some(&other)), None);
        assert_eq!(at(&given().text(None), Some(&seal)), None);
        assert_eq!(at(&text.replace(".0h.", ".0c."), Some(&seal)), None);
        assert_eq!(at(&format!("{text}A"), Some(&seal)), None);
        assert_eq!(format!("{seal:?}"), "Seal");
    }

    #[test]
    fn what_is_no_decision_is_none_and_what_no_log_should_repeat_is_not_repeated() {
        let (text, host) = (given().text(None), "edge-1.example:8443");
        for wrong in [
            "",
            "old.1",
            "0123456789abcdef.0",
            &text.replace(".0h", ".0x"),
            &text.replace(".0h", ".h"),
            &text.replace(".0h", ".0hh"),
            &text.replace(".0h", ".\u{e9}h"),
            &text.replace("0123456789abcdef", "0123456789ABCDEF"),
            &text.replace("0123456789abcdef", "+123456789abcdef"),
            &text.replace("0123456789abcdef", "1"),
            &text.replace("6b49d200", "fffffffffffffffff"),
            &text.replace("6b49d200", ""),
            &format!("{text}.a.b"),
        ] {
            assert_eq!(cause_of(wrong, host, NOW, None), None, "{wrong}");
        }
        let logged = |text: &str| logged(Some(&format!("tidegate-decision={text}"))).is_some();
        assert!(logged(&text) && logged("old.1"));
        let long = "a".repeat(DECISION_BYTES_MAX);
        assert!(logged(&long) && !logged(&format!("{long}a")));
        let longest = Given { number: u64::MAX, rank: 255, made_seconds: u64::MAX, ..given() };
        assert!(logged(&longest.text(Some(&Seal::new(b"a")))));
        for wrong in ["", "a b", "a%0a", "a\"b", "\u{e9}", "a,b"] {
            assert!(!logged(wrong), "{wrong}");
        }
    }
}
