//! Exchanges made up from a seed: a request and its response, another request later, and what the
//! origin says when it is asked then.
//!
//! Each is written plainly, in the one spelling that nobody misreads. Every third has one oddity
//! besides: then there are two writings of it, and an RFC says that they mean the same.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};

use crate::oddities::{ODDITIES, Oddity};

/// A stream of numbers that a seed repeats.
#[derive(Clone, Copy)]
pub(crate) struct Chance(pub(crate) u64);

impl Chance {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    pub(crate) fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    fn seconds(&mut self) -> u64 {
        self.pick(&[0, 1, 5, 9, 10, 11, 50, 60, 61, 100, 3600, 100_000])
    }
}

/// The lines of a head, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields(pub(crate) Vec<(&'static str, String)>);

impl Fields {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(held, _)| *held == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    pub(crate) fn set(&mut self, name: &'static str, value: impl Into<String>) {
        self.0.retain(|(held, _)| *held != name);
        self.0.push((name, value.into()));
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.0.retain(|(held, _)| *held != name);
    }

    /// One more member of a list.
    pub(crate) fn add(&mut self, name: &'static str, member: &str) {
        match self.0.iter_mut().find(|(held, _)| *held == name) {
            Some((_, value)) => value.extend([", ", member]),
            None => self.set(name, member),
        }
    }

    /// The argument of a directive of a plain `Cache-Control`; empty where it has none.
    pub(crate) fn argument(&self, directive: &str) -> Option<&str> {
        let members = self.get("cache-control")?.split(", ");
        let mut split = members.map(|member| member.split_once('=').unwrap_or((member, "")));
        split.find(|(name, _)| *name == directive).map(|(_, argument)| argument)
    }

    pub(crate) fn says(&self, directive: &str) -> bool {
        self.argument(directive).is_some()
    }

    pub(crate) fn number(&self, directive: &str) -> Option<u64> {
        self.argument(directive)?.parse().ok()
    }

    pub(crate) fn date(&self, name: &str) -> Option<SystemTime> {
        httpdate::parse_http_date(self.get(name)?).ok()
    }

    pub(crate) fn map(&self) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in &self.0 {
            let value = HeaderValue::from_str(value).expect("cases hold plain text");
            map.append(HeaderName::from_static(name), value);
        }
        map
    }

    pub(crate) fn json(&self) -> Value {
        let pairs = self.0.iter().map(|(name, value)| ((*name).to_owned(), value.clone().into()));
        Value::Object(Map::from_iter(pairs))
    }
}

/// A response without its body, which is always complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) fields: Fields,
}

/// What is asked and answered, in one writing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exchange {
    pub(crate) first: Fields,
    pub(crate) stored: Reply,
    pub(crate) second: Fields,
    pub(crate) told: Reply,
}

/// One case: the same exchange in two writings.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) number: u64,
    pub(crate) plain: Exchange,
    pub(crate) written: Exchange,
    pub(crate) oddity: Option<&'static Oddity>,
    /// How long after the first exchange the second request comes.
    pub(crate) later: Duration,
}

/// When every first response arrives.
pub(crate) fn stored_at() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_700_000_000)
}

impl Case {
    pub(crate) fn asked_at(&self) -> SystemTime {
        stored_at() + self.later
    }

    pub(crate) fn of(seed: u64, number: u64) -> Case {
        let mut chance = Chance(seed.wrapping_mul(1_000_003).wrapping_add(number << 20));
        let later = Duration::from_secs(if chance.one_in(5) { 0 } else { chance.seconds() });
        let first = request(&mut chance, Freely::Seldom);
        let stored = reply(&mut chance, stored_at());
        let mut second = request(&mut chance, Freely::Often);
        if !chance.one_in(4) {
            for name in ["accept-language", "accept-encoding", "x-a"] {
                second.remove(name);
                if let Some(value) = first.get(name) {
                    second.set(name, value);
                }
            }
        }
        let told = told(&mut chance, &stored, stored_at() + later);
        let mut plain = Exchange { first, stored, second, told };
        let mut written = plain.clone();
        let mut oddity = None;
        if chance.one_in(3) {
            let odd = &ODDITIES[chance.below(ODDITIES.len() as u64) as usize];
            (odd.write)(&mut chance, &mut written, &mut plain);
            oddity = Some(odd);
        }
        Case { number, plain, written, oddity, later }
    }
}

/// How often a request says how it wants to be answered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Freely {
    Seldom,
    Often,
}

fn request(chance: &mut Chance, freely: Freely) -> Fields {
    let mut fields = Fields::default();
    fields.set("host", "a.test");
    let languages = [None, None, Some("en"), Some("de")];
    let codings = [None, None, Some("br"), Some("gzip")];
    for (name, values) in [("accept-language", languages), ("accept-encoding", codings)] {
        if let Some(value) = chance.pick(&values) {
            fields.set(name, value);
        }
    }
    if chance.one_in(8) {
        fields.set("x-a", chance.pick(&["1", "2", ""]));
    }
    if chance.one_in(12) {
        fields.set("x-forwarded-for", chance.pick(&["10.0.0.1", "10.0.0.2"]));
    }
    if chance.one_in(10) {
        fields.set("authorization", "Basic eA==");
    }
    let says = if freely == Freely::Often { chance.below(4) } else { chance.below(10) / 9 };
    for _ in 0..says {
        let number = chance.seconds();
        let directive = match chance.below(9) {
            0 => "no-cache".to_owned(),
            1 if chance.one_in(2) => "no-store".to_owned(),
            2 => "max-stale".to_owned(),
            3 | 4 => format!("max-stale={number}"),
            5 if chance.one_in(2) => "max-age=0".to_owned(),
            5 | 6 => format!("max-age={number}"),
            7 => format!("min-fresh={number}"),
            _ => "x-unknown".to_owned(),
        };
        let name = directive.split('=').next().expect("a split has a first part");
        if !fields.says(name) {
            fields.add("cache-control", &directive);
        }
    }
    if chance.one_in(20) && !fields.has("cache-control") {
        fields.set("pragma", "no-cache");
    }
    fields
}

fn reply(chance: &mut Chance, at: SystemTime) -> Reply {
    const STATUSES: [u16; 31] = [
        201, 203, 204, 299, 300, 301, 302, 303, 307, 308, 400, 401, 403, 404, 405, 407, 410, 412,
        414, 416, 418, 429, 431, 500, 501, 502, 503, 504, 511, 599, 200,
    ];
    let status = if chance.one_in(3) { chance.pick(&STATUSES) } else { 200 };
    let mut fields = Fields::default();
    directives(chance, &mut fields);
    let date = |by: i64| {
        let by_seconds = Duration::from_secs(by.unsigned_abs());
        httpdate::fmt_http_date(if by < 0 { at - by_seconds } else { at + by_seconds })
    };
    match chance.below(6) {
        0 => {}
        1 => fields.set("date", date(-(chance.seconds() as i64))),
        2 => fields.set("date", date(chance.seconds() as i64)),
        _ => fields.set("date", date(0)),
    }
    if chance.one_in(4) {
        let expires = match chance.below(6) {
            0 => chance.pick(&["0", "-1", "never"]).to_owned(),
            1 => date(-(chance.seconds() as i64)),
            2 => rfc850(at + Duration::from_secs(chance.seconds())),
            _ => date(chance.seconds() as i64),
        };
        fields.set("expires", expires);
    }
    if chance.one_in(4) {
        fields.set("age", chance.pick(&["0", "5", "50", "100", "x"]));
    }
    if chance.one_in(2) {
        fields.set("etag", chance.pick(&["\"1\"", "\"1\"", "W/\"1\"", "W/\"2\"", "\"2\""]));
    }
    if chance.one_in(2) {
        fields.set("last-modified", date(-chance.pick(&[-50, 0, 10, 50, 600, 36_000, 36_000_000])));
    }
    if chance.one_in(4) {
        let vary = ["accept-language", "Accept-Encoding, Accept-Language", "x-a", "*", "x-b, *"];
        fields.set("vary", if chance.one_in(5) { "x-forwarded-for" } else { chance.pick(&vary) });
    }
    if chance.one_in(12) {
        fields.set("set-cookie", "a=b");
    }
    Reply { status, fields }
}

fn directives(chance: &mut Chance, fields: &mut Fields) {
    for _ in 0..chance.below(5) {
        let number = chance.seconds();
        let directive = match chance.below(24) {
            0..=4 => format!("max-age={number}"),
            5 => format!("max-age={number}, immutable"),
            6..=8 => format!("s-maxage={number}"),
            9 | 10 => "public".to_owned(),
            11 => chance.pick(&["private", "no-store", "max-age=x", "max-age"]).to_owned(),
            12 => "no-cache".to_owned(),
            13 => "must-revalidate".to_owned(),
            14 => "proxy-revalidate".to_owned(),
            15 => chance.pick(&["must-understand", "no-store, must-understand"]).to_owned(),
            16 => "immutable".to_owned(),
            17..=19 => format!("stale-while-revalidate={number}"),
            20..=22 => format!("stale-if-error={number}"),
            _ => chance.pick(&["x-unknown", "x-unknown=1", "no-transform"]).to_owned(),
        };
        let names = directive.split(", ").map(|part| part.split('=').next().unwrap_or(part));
        if names.into_iter().all(|name| !fields.says(name)) {
            fields.add("cache-control", &directive);
        }
    }
}

/// What the origin says of a stored response; mostly that it still is what it was.
fn told(chance: &mut Chance, stored: &Reply, at: SystemTime) -> Reply {
    let mut told = reply(chance, at);
    told.status = chance.pick(&[304, 304, 304, 304, 200, 404, 500, 503]);
    if told.status != 304 || chance.one_in(3) {
        return told;
    }
    told.fields.remove("vary");
    for name in ["etag", "last-modified"] {
        if chance.one_in(10) {
            continue;
        }
        told.fields.remove(name);
        if let Some(value) = stored.fields.get(name) {
            told.fields.set(name, value);
        }
    }
    told
}

/// The second of the three forms of a date (RFC 9110 section 5.6.7).
fn rfc850(time: SystemTime) -> String {
    const DAYS: [(&str, &str); 7] = [
        ("Mon", "Monday"),
        ("Tue", "Tuesday"),
        ("Wed", "Wednesday"),
        ("Thu", "Thursday"),
        ("Fri", "Friday"),
        ("Sat", "Saturday"),
        ("Sun", "Sunday"),
    ];
    let fixed = httpdate::fmt_http_date(time);
    let (_, day) = DAYS.iter().find(|(short, _)| fixed.starts_with(short)).expect("a day");
    let (date, month, year) = (&fixed[5..7], &fixed[8..11], &fixed[14..16]);
    format!("{day}, {date}-{month}-{year} {}", &fixed[17..])
}
