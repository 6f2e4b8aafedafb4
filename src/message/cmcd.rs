//! What a player tells of itself: Common Media Client Data, CTA-5004 (version 1) and CTA-5004-B
//! (version 2), read from the fields of a request or from its query.
//!
//! Structured fields. A closed set of keys is read, each of the type and length that the standard
//! gives it; others, and those a publisher made up, are left out. What is told in a version that is
//! not known yet is not understood at all. It never chooses bytes: it is logged, counted, and a
//! hint what is needed soon.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName};
use sfv::{BareItem, Dictionary, InnerList, Item, ListEntry, Parser};

use crate::message::target::{decoded, told_by_player};

/// What a player told with one request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cmcd {
    /// By key, in the order of [`KEYS`].
    told: Vec<(&'static str, Told)>,
    /// What it will ask for next, at most [`NEXT_MAX`].
    pub next: Vec<Next>,
}

/// A value, of the type its key has.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// At most 64 bytes.
    Text(Box<str>),
    /// One of a few.
    Word(&'static str),
    /// Milliseconds, kbit/s, or what its key counts.
    Number(u64),
    /// A ratio, in thousandths.
    Thousandths(u64),
    /// Yes or no.
    Flag(bool),
}

/// An object that a player will ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Next {
    /// Relative to the request's; escapes of the transport are undone. `None`: the same object.
    pub path: Option<Box<str>>,
    /// As `Range` writes it after `bytes=`; `None`: all of it.
    pub range: Option<Box<str>>,
}

impl Cmcd {
    /// What a request tells; `None`: nothing. Its fields count, else its query.
    ///
    /// Costs a look at each name where there is nothing.
    pub fn of(headers: &HeaderMap, query: Option<&str>) -> Option<Cmcd> {
        let is_told = |name: &HeaderName| name.as_str().starts_with("cmcd-");
        if headers.keys().any(is_told) {
            let fields = FIELDS.iter().filter_map(|name| dictionary_of(headers, name));
            return Cmcd::read(fields);
        }
        let value = decoded(told_by_player(query?)?)?;
        Cmcd::read(Parser::new(&value).parse().ok().into_iter())
    }

    fn read(dictionaries: impl Iterator<Item = Dictionary>) -> Option<Cmcd> {
        let mut whole = Dictionary::new();
        dictionaries.for_each(|dictionary| whole.extend(dictionary));
        let version = whole.get("v").and_then(|value| number_of(value, None)).unwrap_or(1);
        if version == 0 || version > VERSION_MAX {
            return None;
        }
        let object_type = whole.get("ot").and_then(|value| word_of(value, &OBJECT_TYPES));
        let read = |(key, kind): &(&'static str, Kind)| {
            Some((*key, kind.read(whole.get(*key)?, object_type)?))
        };
        let told: Vec<_> = KEYS.iter().filter_map(read).collect();
        let next = next_of(&whole);
        (!told.is_empty() || !next.is_empty()).then_some(Cmcd { told, next })
    }

    /// All of it, for the log.
    pub fn told(&self) -> impl Iterator<Item = (&'static str, &Told)> {
        self.told.iter().map(|(key, told)| (*key, told))
    }

    /// The number under a key.
    pub fn number(&self, key: &str) -> Option<u64> {
        match self.get(key)? {
            Told::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// The word under a key.
    pub fn word(&self, key: &str) -> Option<&'static str> {
        match self.get(key)? {
            Told::Word(word) => Some(word),
            _ => None,
        }
    }

    /// Whether a key says yes.
    pub fn says(&self, key: &str) -> bool {
        self.get(key) == Some(&Told::Flag(true))
    }

    fn get(&self, key: &str) -> Option<&Told> {
        self.told.iter().find(|(known, _)| *known == key).map(|(_, told)| told)
    }
}

/// The type of a key's value.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Text,
    Word(&'static [&'static str]),
    Number,
    Ratio,
    Flag,
}

impl Kind {
    /// Of version 1, or of version 2: a list with one value for each type of object.
    fn read(self, value: &ListEntry, object_type: Option<&str>) -> Option<Told> {
        match self {
            Kind::Text => match &item_of(value, object_type)?.bare_item {
                BareItem::String(text) => short(text.as_str(), TEXT_BYTES_MAX).map(Told::Text),
                _ => None,
            },
            Kind::Word(words) => word_of(value, words).map(Told::Word),
            Kind::Number => number_of(value, object_type).map(Told::Number),
            Kind::Ratio => match item_of(value, object_type)?.bare_item {
                BareItem::Decimal(ratio) => {
                    u64::try_from(i64::from(ratio.as_integer_scaled_1000())).ok()
                }
                BareItem::Integer(ratio) => u64::try_from(i64::from(ratio)).ok()?.checked_mul(1000),
                _ => None,
            }
            .map(Told::Thousandths),
            Kind::Flag => match item_of(value, object_type)?.bare_item {
                BareItem::Boolean(flag) => Some(Told::Flag(flag)),
                _ => None,
            },
        }
    }
}

/// The value itself, or of a list the one for this type of object, else the first.
fn item_of<'a>(value: &'a ListEntry, object_type: Option<&str>) -> Option<&'a Item> {
    match value {
        ListEntry::Item(item) => Some(item),
        ListEntry::InnerList(InnerList { items, .. }) => {
            let fits =
                |item: &&Item| object_type.is_some_and(|kind| item.params.contains_key(kind));
            items.iter().find(fits).or(items.first())
        }
    }
}

/// A number that is not negative; of one that is not whole what stands before the point.
fn number_of(value: &ListEntry, object_type: Option<&str>) -> Option<u64> {
    match item_of(value, object_type)?.bare_item {
        BareItem::Integer(number) => u64::try_from(i64::from(number)).ok(),
        BareItem::Decimal(number) => {
            u64::try_from(i64::from(number.as_integer_scaled_1000())).ok().map(|n| n / 1000)
        }
        _ => None,
    }
}

fn word_of(value: &ListEntry, words: &[&'static str]) -> Option<&'static str> {
    let ListEntry::Item(Item { bare_item: BareItem::Token(token), .. }) = value else {
        return None;
    };
    words.iter().find(|word| **word == token.as_str()).copied()
}

/// `nor` and `nrr` of version 1, which are two texts, or `nor` of version 2, a list of texts.
fn next_of(told: &Dictionary) -> Vec<Next> {
    let text = |item: &BareItem| match item {
        BareItem::String(text) => Some(text.as_str().to_owned()),
        _ => None,
    };
    let of = |path: Option<String>, range: Option<String>| {
        let path = match path {
            Some(path) => Some(short(&String::from_utf8(decoded(&path)?).ok()?, NEXT_BYTES_MAX)?),
            None => None,
        };
        let range = match range {
            Some(range) => Some(is_range(&range).then(|| range.into_boxed_str())?),
            None => None,
        };
        (path.is_some() || range.is_some()).then_some(Next { path, range })
    };
    match told.get("nor") {
        Some(ListEntry::InnerList(list)) => {
            let range = |item: &Item| item.params.get("r").and_then(text);
            let next = |item: &Item| of(Some(text(&item.bare_item)?), range(item));
            list.items.iter().take(NEXT_MAX).filter_map(next).collect()
        }
        nor => {
            let item = |value: Option<&ListEntry>| match value {
                Some(ListEntry::Item(item)) => text(&item.bare_item),
                _ => None,
            };
            of(item(nor), item(told.get("nrr"))).into_iter().collect()
        }
    }
}

/// `FIRST-LAST`, `FIRST-` or `-LENGTH`.
fn is_range(text: &str) -> bool {
    let digits = |part: &str| part.len() <= 19 && part.bytes().all(|byte| byte.is_ascii_digit());
    let both = |(first, last)| digits(first) && digits(last) && text.len() > 1;
    text.split_once('-').is_some_and(both)
}

fn short(text: &str, bytes_max: usize) -> Option<Box<str>> {
    (text.len() <= bytes_max).then(|| text.into())
}

fn dictionary_of(headers: &HeaderMap, name: &HeaderName) -> Option<Dictionary> {
    let mut lines = headers.get_all(name).iter().map(|line| line.as_bytes());
    let first = Cow::Borrowed(lines.next()?);
    let whole = lines.fold(first, |whole, line| Cow::Owned([&*whole, b", ", line].concat()));
    Parser::new(&whole).parse().ok()
}

/// A key is taken from any of them.
static FIELDS: [HeaderName; 4] = [
    HeaderName::from_static("cmcd-request"),
    HeaderName::from_static("cmcd-object"),
    HeaderName::from_static("cmcd-status"),
    HeaderName::from_static("cmcd-session"),
];

/// The types of objects, as `ot` tells them.
pub const OBJECT_TYPES: [&str; 9] = ["m", "a", "v", "av", "i", "c", "tt", "k", "o"];

/// The keys that are read, `nor` and `nrr` excepted.
const KEYS: [(&str, Kind); 16] = [
    ("sid", Kind::Text),
    ("cid", Kind::Text),
    ("ot", Kind::Word(&OBJECT_TYPES)),
    ("br", Kind::Number),
    ("tb", Kind::Number),
    ("bl", Kind::Number),
    ("bs", Kind::Flag),
    ("su", Kind::Flag),
    ("rtp", Kind::Number),
    ("mtp", Kind::Number),
    ("dl", Kind::Number),
    ("d", Kind::Number),
    ("sf", Kind::Word(&["d", "h", "s", "e", "o"])),
    ("st", Kind::Word(&["v", "l", "ll"])),
    ("pr", Kind::Ratio),
    ("v", Kind::Number),
];

const VERSION_MAX: u64 = 2;
/// Of an id, as the standard has it.
const TEXT_BYTES_MAX: usize = 64;
/// Of the path of what is asked for next.
const NEXT_BYTES_MAX: usize = 1024;
/// Of a list, so many objects are looked at.
pub const NEXT_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn shown(cmcd: Option<Cmcd>) -> String {
        let Some(cmcd) = cmcd else { return "nothing".to_owned() };
        let told = cmcd.told.iter().map(|(key, told)| match told {
            Told::Text(text) => format!("{key}={text:?}"),
            Told::Word(word) => format!("{key}={word}"),
            Told::Number(number) => format!("{key}={number}"),
            Told::Thousandths(number) => format!("{key}={number}/1000"),
            Told::Flag(flag) => format!("{key}={flag}"),
        });
        let part = |part: &Option<Box<str>>| part.as_deref().unwrap_or("?").to_owned();
        let next =
            cmcd.next.iter().map(|next| format!("then {} {}", part(&next.path), part(&next.range)));
        told.chain(next).collect::<Vec<_>>().join(" ")
    }

    fn by_field(lines: &[(&'static str, &str)]) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        shown(Cmcd::of(&headers, Some("CMCD=br%3D1")))
    }

    #[test]
    fn version_1_is_read_from_its_fields() {
        let (request, object) = ("cmcd-request", "cmcd-object");
        let (status, session) = ("cmcd-status", "cmcd-session");
        for (lines, expected) in [
            (
                &[(session, "sid=\"6e2fb550-c457-11e9-bb97-0800200c9a66\"")][..],
                "sid=\"6e2fb550-c457-11e9-bb97-0800200c9a66\"",
            ),
            (
                &[
                    (object, "br=3200,d=4004,ot=v,tb=6000"),
                    (request, "bl=21300,dl=18500,mtp=48100,su"),
                    (status, "bs,rtp=15000"),
                    (session, "cid=\"c\",pr=1.08,sf=h,sid=\"s\",st=l,v=1"),
                ],
                "sid=\"s\" cid=\"c\" ot=v br=3200 tb=6000 bl=21300 bs=true su=true rtp=15000 \
                 mtp=48100 dl=18500 d=4004 sf=h st=l pr=1080/1000 v=1",
            ),
            // A key is taken wherever it stands.
            (&[(status, "br=1, pr=2"), (request, "sid=\"s\"")], "sid=\"s\" br=1 pr=2000/1000"),
            (&[(request, "nor=\"..%2F300kbps%2Ftrack.m4v\"")], "then ../300kbps/track.m4v ?"),
            (&[(request, "nor=\"a.m4v\",nrr=\"12323-48763\"")], "then a.m4v 12323-48763"),
            (&[(request, "nrr=\"12323-\"")], "then ? 12323-"),
            (&[(request, "nor=\"a\",nrr=\"1,2\"")], "nothing"),
            (&[(request, "nor=\"a%zz\"")], "nothing"),
            (&[(request, "nrr=\"-\"")], "nothing"),
            // Several lines are one; what is told last counts.
            (&[(request, "bl=1"), (request, "mtp=2, bl=3")], "bl=3 mtp=2"),
            // Not known, made up, or of another type.
            (&[(request, "com.example-a=\"x\",bl=1,zz=2")], "bl=1"),
            (&[(request, "bl=\"1\",mtp=?1,dl=-5,d=1.9,ot=x,sf=\"h\",su=1,sid=a")], "d=1"),
            (&[(status, "bs=?0")], "bs=false"),
            (&[(request, "com.example-a=1")], "nothing"),
            (&[(request, "")], "nothing"),
            // One that is broken leaves the others; the query does not count beside any.
            (&[(request, "bl=,"), (object, "br=5")], "br=5"),
            (&[(request, "BL=1")], "nothing"),
            (&[("cmcd-other", "bl=1")], "nothing"),
            (&[(object, "br=2")], "br=2"),
            (&[], "br=1"),
        ] {
            assert_eq!(by_field(lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn version_2_has_lists_and_a_newer_one_is_not_understood() {
        let object = "cmcd-object";
        for (value, expected) in [
            ("br=(5000;v 320;a),ot=a,v=2", "ot=a br=320 v=2"),
            ("br=(5000;v 320;a),ot=v,v=2", "ot=v br=5000 v=2"),
            ("br=(5000;v 320;a),ot=i,v=2", "ot=i br=5000 v=2"),
            ("bl=(2000),mtp=(15000),v=2", "bl=2000 mtp=15000 v=2"),
            ("bl=(),v=2", "v=2"),
            (
                "nor=(\"seg6.m4v\" \"seg7.m4v\";r=\"0-999\"),v=2",
                "v=2 then seg6.m4v ? then seg7.m4v 0-999",
            ),
            ("nor=(1 \"a\";r=5 \"b\";r=\"x\"),v=2", "v=2 then a ?"),
            ("nor=(\"1\" \"2\" \"3\" \"4\" \"5\")", "then 1 ? then 2 ? then 3 ? then 4 ?"),
            ("st=ll,v=2", "st=ll v=2"),
            ("br=1,v=3", "nothing"),
            ("br=1,v=0", "nothing"),
            ("br=1,v=\"3\"", "br=1"),
            ("br=1,v=-1", "br=1"),
        ] {
            assert_eq!(by_field(&[(object, value)]), expected, "{value}");
        }
    }

    #[test]
    fn it_is_read_from_the_query_too() {
        let fields = HeaderMap::new();
        // CTA-5004-B 8.1.1.
        let example = "CMCD=bl%3D%282000%29%2Cbr%3D%283000%3Bv%29%2Ccid%3D%22content-id-123%22%2C\
            d%3D4000%2Cdl%3D1000%2Cmtp%3D%2815000%29%2Cnor%3D%28%22next-seg.mp4%22%29%2Cot%3Dv%2C\
            rtp%3D12000%2Csf%3Dd%2Csid%3D%22session-id-123%22%2Cst%3Dv%2Csta%3Dp%2C\
            tb%3D%286000%3Bv%29%2Cv%3D2";
        for (query, expected) in [
            (
                example,
                "sid=\"session-id-123\" cid=\"content-id-123\" ot=v br=3000 tb=6000 bl=2000 \
                       rtp=12000 mtp=15000 dl=1000 d=4000 sf=d st=v v=2 then next-seg.mp4 ?",
            ),
            ("a=1&CMCD=br%3D1&b", "br=1"),
            ("CMCD=br=1,su", "br=1 su=true"),
            ("%43MCD=br%3D1", "br=1"),
            ("CMCD=br%3D1&CMCD=br%3D2", "br=1"),
            ("cmcd=br%3D1", "nothing"),
            ("CMCD", "nothing"),
            ("CMCD=", "nothing"),
            ("CMCD=%zz", "nothing"),
            ("CMCD=%ff", "nothing"),
            ("CMCD=br%253D1", "nothing"),
            ("", "nothing"),
        ] {
            assert_eq!(shown(Cmcd::of(&fields, Some(query))), expected, "{query}");
        }
        assert_eq!(Cmcd::of(&fields, None), None);
    }

    #[test]
    fn what_is_longer_than_the_standard_lets_it_be_is_left_out() {
        let (fits, longer) = ("s".repeat(TEXT_BYTES_MAX), "s".repeat(TEXT_BYTES_MAX + 1));
        let session = |sid: &str| by_field(&[("cmcd-session", &format!("sid=\"{sid}\",br=1"))]);
        assert_eq!(session(&fits), format!("sid={fits:?} br=1"));
        assert_eq!(session(&longer), "br=1");
        let next = "n".repeat(NEXT_BYTES_MAX + 1);
        assert_eq!(by_field(&[("cmcd-request", &format!("nor={next:?}"))]), "nothing");
    }
}
