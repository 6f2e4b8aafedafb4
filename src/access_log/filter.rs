//! Which requests a reader of the log wants: `status >= 500 or path ~ seg and not cache = hit`.
//!
//! `not` binds closest, then `and`, then `or`; parentheses as usual. What a request does not have
//! equals nothing, and is no smaller or larger than anything. `parse.rs` reads a filter; here is
//! what was read, and whether a request is one of those. Bounded in length and depth. Pure.

mod parse;

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use super::entry::{Entry, Outcome, PlayerTold};
use super::personal::{ClientBits, Discretion};
use crate::metrics::labels::Tier;
pub use parse::{Fault, FilterError};

/// What a request must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// All of these; there may be none.
    All(Vec<Filter>),
    /// One of these.
    Any(Vec<Filter>),
    /// Anything but this.
    Not(Box<Filter>),
    /// As one comparison says.
    Is(Test),
}

/// One comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Test {
    field: Field,
    operator: Operator,
    value: Value,
}

/// What can be asked of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Status,
    Method,
    Host,
    Path,
    Site,
    Tier,
    Cache,
    Bytes,
    Duration,
    FirstByte,
    Client,
    Session,
    Protocol,
    Outcome,
}

impl Field {
    const ALL: [(Field, &'static str); 14] = [
        (Field::Status, "status"),
        (Field::Method, "method"),
        (Field::Host, "host"),
        (Field::Path, "path"),
        (Field::Site, "site"),
        (Field::Tier, "tier"),
        (Field::Cache, "cache"),
        (Field::Bytes, "bytes"),
        (Field::Duration, "duration"),
        (Field::FirstByte, "ttfb"),
        (Field::Client, "client"),
        (Field::Session, "sid"),
        (Field::Protocol, "protocol"),
        (Field::Outcome, "outcome"),
    ];

    fn word(self) -> &'static str {
        let named = Field::ALL.iter().find(|(field, _)| *field == self);
        named.map_or("", |(_, word)| word)
    }
}

/// How a field is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equals,
    Differs,
    Below,
    AtMost,
    Above,
    AtLeast,
    Holds,
}

impl Operator {
    const ALL: [(Operator, &'static str); 7] = [
        // The longer of two that begin alike comes first.
        (Operator::Differs, "!="),
        (Operator::AtMost, "<="),
        (Operator::AtLeast, ">="),
        (Operator::Equals, "="),
        (Operator::Below, "<"),
        (Operator::Above, ">"),
        (Operator::Holds, "~"),
    ];

    fn word(self) -> &'static str {
        let named = Operator::ALL.iter().find(|(operator, _)| *operator == self);
        named.map_or("", |(_, word)| word)
    }

    fn holds(self, order: std::cmp::Ordering) -> bool {
        match self {
            Operator::Equals => order.is_eq(),
            Operator::Differs => order.is_ne(),
            Operator::Below => order.is_lt(),
            Operator::AtMost => order.is_le(),
            Operator::Above => order.is_gt(),
            Operator::AtLeast => order.is_ge(),
            Operator::Holds => false,
        }
    }
}

/// What a field is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Number(u64),
    Micros(u64),
    /// For `~`, a `*` stands for any characters.
    Text(String),
    Network {
        address: IpAddr,
        bits: u8,
    },
}

impl Filter {
    /// Every request.
    pub const EVERYTHING: Filter = Filter::All(Vec::new());

    /// Whether a request is one of those.
    ///
    /// It is asked as it is told: nobody learns by asking what the log keeps back.
    pub(super) fn admits(&self, entry: &Entry<'_>, told: &Discretion) -> bool {
        match self {
            Filter::All(all) => all.iter().all(|one| one.admits(entry, told)),
            Filter::Any(any) => any.iter().any(|one| one.admits(entry, told)),
            Filter::Not(not) => !not.admits(entry, told),
            Filter::Is(test) => test.admits(entry, told),
        }
    }
}

impl Test {
    fn admits(&self, entry: &Entry<'_>, told: &Discretion) -> bool {
        let micros = |time: std::time::Duration| time.as_micros() as u64;
        match self.field {
            Field::Status => self.compares(entry.status.map(|status| status.as_u16().into())),
            Field::Bytes => self.compares(Some(entry.body_bytes)),
            Field::Duration => self.compares(Some(micros(entry.duration))),
            Field::FirstByte => self.compares(entry.time_to_first_byte.map(micros)),
            Field::Method => self.reads(Some(entry.method)),
            Field::Host => self.reads(Some(entry.host)),
            Field::Path => self.reads(Some(&told.target(entry.time, entry.target.as_logged()))),
            Field::Site => self.reads(entry.site),
            Field::Cache => self.reads(entry.lookup.map(|lookup| lookup.label())),
            Field::Protocol => self.reads(Some(entry.protocol)),
            Field::Session => self.reads(session(entry, told).as_deref()),
            Field::Outcome => self.reads(Some(match entry.outcome {
                Outcome::Complete => "complete",
                Outcome::ClientLeft => "client_left",
                Outcome::CutShort(_) => "cut_short",
            })),
            Field::Tier => {
                let Value::Text(wanted) = &self.value else { return false };
                let is_it = |tier: &Tier| entry.tiers[*tier as usize] && tier.label() == wanted;
                Tier::ALL.iter().any(is_it) == (self.operator == Operator::Equals)
            }
            Field::Client => self.is_within(told.personal().client_bits.of(entry.client)),
        }
    }

    fn compares(&self, told: Option<u64>) -> bool {
        let (Value::Number(wanted) | Value::Micros(wanted)) = self.value else { return false };
        told.map_or(self.operator == Operator::Differs, |told| {
            self.operator.holds(told.cmp(&wanted))
        })
    }

    fn reads(&self, told: Option<&str>) -> bool {
        let Value::Text(wanted) = &self.value else { return false };
        match (self.operator, told) {
            (Operator::Holds, told) => told.is_some_and(|told| holds(told, wanted)),
            (Operator::Differs, told) => told != Some(wanted),
            (_, told) => told == Some(wanted),
        }
    }

    fn is_within(&self, client: IpAddr) -> bool {
        let Value::Network { address, bits } = self.value else { return false };
        let kept = ClientBits { v4: bits, v6: bits };
        let is_within = client.is_ipv4() == address.is_ipv4() && kept.of(client) == address;
        is_within == (self.operator == Operator::Equals)
    }
}

/// What is told of the playback's id.
fn session<'a>(entry: &Entry<'a>, told: &Discretion) -> Option<Cow<'a, str>> {
    let sid = entry.cmcd.iter().find_map(|one| match one {
        ("sid", PlayerTold::Text(sid)) => Some(*sid),
        _ => None,
    })?;
    told.told(told.personal().session, entry.time, sid.into())
}

/// Whether `text` holds the parts of `wanted` between its stars, in their order.
fn holds(text: &str, wanted: &str) -> bool {
    let mut rest = text;
    wanted.split('*').all(|part| match rest.find(part) {
        Some(at) => {
            rest = &rest[at + part.len()..];
            true
        }
        None => false,
    })
}

/// As it can be read again.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = |f: &mut fmt::Formatter<'_>, parts: &[Filter], word: &str| {
            for (number, part) in parts.iter().enumerate() {
                f.write_str(if number == 0 { "" } else { word })?;
                // `and` within `or` needs none; `or` within `and` does.
                match part {
                    Filter::Any(_) => write!(f, "({part})")?,
                    part => write!(f, "{part}")?,
                }
            }
            Ok(())
        };
        match self {
            Filter::All(parts) => joined(f, parts, " and "),
            Filter::Any(parts) => joined(f, parts, " or "),
            Filter::Not(not) => match &**not {
                Filter::All(_) | Filter::Any(_) => write!(f, "not ({not})"),
                not => write!(f, "not {not}"),
            },
            Filter::Is(Test { field, operator, value }) => {
                write!(f, "{} {} {value}", field.word(), operator.word())
            }
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Number(number) => write!(f, "{number}"),
            Value::Micros(micros) => write!(f, "{micros}us"),
            Value::Text(text) if text.contains('"') => write!(f, "'{text}'"),
            Value::Text(text) => write!(f, "\"{text}\""),
            Value::Network { address, bits } => write!(f, "{address}/{bits}"),
        }
    }
}

/// What the fuzz target `log_filter` runs: any text is a filter that is read again as what it is
/// shown as, or has a fault within it.
pub fn fuzz(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Filter::parse(text) {
        Ok(filter) => {
            let again = Filter::read(&filter.to_string());
            assert_eq!(again.as_ref(), Ok(&filter), "{filter}");
        }
        Err(error) => {
            let columns = text.chars().count();
            assert!((1..=columns + 1).contains(&error.column), "{error} of {columns}");
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::StatusCode;

    use super::super::entry::tests::entry;
    use super::super::personal::{Personal, Shown};
    use super::super::target::Target;
    use super::*;
    use crate::message::fuzz::tests::seeds;
    use crate::metrics::labels::Lookup;
    use crate::object::{ObjectKey, SiteId};

    fn admits(filter: &str, entry: &Entry<'_>) -> bool {
        let filter = Filter::parse(filter).unwrap_or_else(|error| panic!("{filter}: {error}"));
        let client_bits = ClientBits { v4: 24, v6: 48 };
        told(&filter, entry, Personal { client_bits, ..Personal::WHOLE })
    }

    fn told(filter: &Filter, entry: &Entry<'_>, personal: Personal) -> bool {
        filter.admits(entry, &Discretion::new(personal))
    }

    #[test]
    fn nobody_learns_by_asking_what_the_log_keeps_back() {
        let key = ObjectKey::new(SiteId(1), "/film?signature=xyz");
        let cmcd = [("sid", PlayerTold::Text("viewer"))];
        let mut entry = entry("/");
        (entry.target, entry.cmcd) = (Target::Object(&key), &cmcd);
        for (filter, is_whole, is_kept_back) in [
            ("path ~ xyz", true, false),
            ("path ~ signature", true, false),
            ("path ~ /film", true, true),
            ("sid = viewer", true, false),
            ("sid ~ v*r", true, false),
            ("sid != viewer", false, true),
        ] {
            let asked = Filter::parse(filter).unwrap();
            assert_eq!(told(&asked, &entry, Personal::WHOLE), is_whole, "{filter}");
            for shown in [Shown::Hashed, Shown::Off] {
                let personal = Personal { query: shown, session: shown, ..Personal::WHOLE };
                assert_eq!(told(&asked, &entry, personal), is_kept_back, "{filter}, {shown:?}");
            }
        }
    }

    #[test]
    fn a_request_is_one_of_those_or_not() {
        let cmcd = [("br", PlayerTold::Number(1)), ("sid", PlayerTold::Text("a b"))];
        let mut entry = entry("/film/seg-12.m4s");
        (entry.cmcd, entry.lookup) = (&cmcd, Some(Lookup::HitSsd));
        entry.duration = Duration::from_millis(1_500);
        for (filter, expected) in [
            ("", true),
            ("status = 206", true),
            ("status>=500 or path ~ seg", true),
            ("status>=500 and path ~ seg", false),
            ("not status >= 500", true),
            ("not (status = 206 or bytes > 5)", false),
            // `and` binds closer.
            ("status = 206 or status = 206 and status = 200", true),
            ("(status = 206 or status = 206) and status = 200", false),
            ("path ~ seg-*.m4s", true),
            ("path ~ m4s*seg", false),
            ("path = /film/seg-12.m4s", true),
            ("path != /film", true),
            ("path ~ ''", true),
            ("bytes < 101 and bytes <= 100 and bytes >= 100 and not bytes > 100", true),
            ("duration > 1s and duration < 1501ms and duration = 1500000us", true),
            ("duration > 1.5s", false),
            ("ttfb <= 250us", true),
            ("tier = ssd", true),
            ("tier = fill", false),
            ("tier != ram", false),
            ("cache = hit_ssd", true),
            ("cache != hit", true),
            ("sid = 'a b'", true),
            ("sid ~ \" \"", true),
            ("client = 192.0.2.0/24", true),
            ("client = 192.0.0.0/8 and client != 10.0.0.0/8", true),
            // The log keeps back which one of these he is.
            ("client = 192.0.2.77", false),
            ("client = 192.0.2.0", true),
            ("client = ::/0", false),
            ("protocol = http2 and method = GET and host ~ films and site = films", true),
            ("outcome = complete", true),
            ("not not status = 206", true),
        ] {
            assert_eq!(admits(filter, &entry), expected, "{filter}");
        }
    }

    #[test]
    fn what_a_request_does_not_have_equals_nothing() {
        let mut entry = entry("/");
        (entry.status, entry.time_to_first_byte, entry.site) = (None, None, None);
        entry.lookup = None;
        for field in ["status = 0", "status < 999", "ttfb >= 0us", "site ~ ''", "cache = miss"] {
            assert!(!admits(field, &entry), "{field}");
        }
        for field in ["status != 200", "ttfb != 1us", "site != a", "cache != miss", "sid != a"] {
            assert!(admits(field, &entry), "{field}");
        }
        entry.status = Some(StatusCode::OK);
        assert!(!admits("status != 200", &entry));
    }

    #[test]
    fn the_seeds_keep_its_promises() {
        seeds("log_filter", 5).iter().for_each(|seed| fuzz(seed));
    }

    proptest::proptest! {
        #[test]
        fn no_text_breaks_a_promise(
            text in "(status|path|client|ttfb|sid|tier|[ ]|and |or |not |[(]|[)]|=|!=|<=|~|\
                [0-9]{1,4}|ms|s|[.]|/|ssd|\"|'|[*]|1[.]2[.]3[.]4|::1|é|\u{0})*",
        ) {
            fuzz(text.as_bytes());
        }
    }
}
