//! One request as one line of JSON: fields in a fixed order, pure ASCII, bounded.
//!
//! A line cannot be forged or broken by what a viewer sends: everything from outside is cut to a
//! bound and escaped. A query reaches the log only as the canonical query of an object's key. Pure.

use std::borrow::Cow;
use std::fmt::Write;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use http::StatusCode;

use super::personal::Discretion;
use super::request_id::{Ascii, RequestId};
use super::target::Target;
use crate::limits::DECISION_BYTES_MAX;
use crate::metrics::labels::{Lookup, Tier};
use crate::moment::since_1970;
use crate::object::ByteRange;

const METHOD_BYTES_MAX: usize = 32;
const HOST_BYTES_MAX: usize = 256;
const TARGET_BYTES_MAX: usize = 2 << 10;
const RANGE_BYTES_MAX: usize = 128;
const CACHE_BYTES_MAX: usize = 256;
const USER_AGENT_BYTES_MAX: usize = 256;
const REFERER_BYTES_MAX: usize = 256;
const PLAYER_TEXT_BYTES_MAX: usize = 256;
const PLAYER_BYTES_USUAL: usize = 192;
/// Room for most lines, so that they are written without growing.
const LINE_BYTES_USUAL: usize = 640;

/// What a log line says of a request.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// When the request's head had been read.
    pub time: SystemTime,
    /// Its id.
    pub request_id: RequestId,
    /// The viewer's whole address; the log's setting decides how much of it is written.
    pub client: IpAddr,
    /// The site's name; `None` when no site has the host.
    pub site: Option<&'a str>,
    /// The method as it was sent.
    pub method: &'a str,
    /// The host asked for, without port.
    pub host: &'a str,
    /// What was asked for.
    pub target: Target<'a>,
    /// `http1` or `http2`.
    pub protocol: &'static str,
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// The status sent; `None` to a viewer who left before there was one.
    pub status: Option<StatusCode>,
    /// Body bytes handed to the connection.
    pub body_bytes: u64,
    /// Those of them that were read from an ssd.
    pub ssd_bytes: u64,
    /// Whether it had bytes from each, in the order of [`Tier::ALL`].
    pub tiers: [bool; Tier::ALL.len()],
    /// The range that was answered; `None` for whole objects, and for several ranges.
    pub range: Option<ByteRange>,
    /// The `Range` field's value, whatever came of it.
    pub range_asked: Option<&'a [u8]>,
    /// What the look-up found, as the metrics count it; `None` when the cache was not asked.
    pub lookup: Option<Lookup>,
    /// Our member of `Cache-Status`, likewise.
    pub cache: Option<&'a str>,
    /// From the head being read to the first body byte; `None` without any but words of ours.
    pub time_to_first_byte: Option<Duration>,
    /// From the head being read to the end of the body.
    pub duration: Duration,
    /// How long of this there were no bytes for him because an origin was asked.
    pub origin_wait: Duration,
    /// The same because a volume was.
    pub ssd_wait: Duration,
    /// Fill requests this request caused.
    pub origin_requests: u32,
    /// The `User-Agent` field's value.
    pub user_agent: Option<&'a [u8]>,
    /// The `Referer` field's value; its query is not written.
    pub referer: Option<&'a [u8]>,
    /// What the player told of itself (CMCD); empty: nothing.
    pub cmcd: &'a [(&'static str, PlayerTold<'a>)],
    /// Why he did not come in, by where he is and when; `None`: he did.
    pub barred: Option<&'static str>,
    /// What his token was found to be, and why he was denied if he was; `None` where no token is
    /// asked for.
    pub token: Option<(Code, Option<&'static str>)>,
    /// By which decision of steering he says that he comes, checked to be short and plain, and why
    /// he is here.
    pub decision: Option<(&'a str, &'static str)>,
    /// How it ended.
    pub outcome: Outcome,
}

/// What a token was found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// `s-uri-signing` (RFC 9246 section 4.5).
    UriSigning(u16),
    /// Of a Common Access Token: `ok`, or the claim that was not met.
    Cat(&'static str),
}

/// A value of what a player tells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PlayerTold<'a> {
    /// Its own words.
    Text(&'a str),
    /// One of a few words of ours.
    Word(&'static str),
    /// A whole number.
    Number(u64),
    /// A ratio.
    Ratio(f64),
    /// Yes or no.
    Flag(bool),
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All of the response was handed to the connection.
    Complete,
    /// The viewer left first.
    ClientLeft,
    /// We cut the body short, for this reason.
    CutShort(&'static str),
}

impl Entry<'_> {
    /// The line, with its line feed.
    pub(super) fn to_line(&self, discretion: &Discretion) -> String {
        let personal = discretion.personal();
        let mut line = Line(String::with_capacity(LINE_BYTES_USUAL));
        line.plain("time", rfc3339(self.time).as_text());
        line.plain("request_id", self.request_id.to_text().as_text());
        match personal.client_bits.of(self.client) {
            IpAddr::V4(v4) => line.dotted("client", v4.octets()),
            IpAddr::V6(v6) => line.shown("client", v6),
        }
        line.outside("site", self.site, HOST_BYTES_MAX);
        line.outside("method", Some(self.method), METHOD_BYTES_MAX);
        line.outside("host", Some(self.host), HOST_BYTES_MAX);
        let target = discretion.target(self.time, self.target.as_logged());
        line.outside("path", Some(&target), TARGET_BYTES_MAX);
        line.plain("protocol", self.protocol);
        line.bare("tls", if self.tls { "true" } else { "false" });
        line.number("status", self.status.map(|status| status.as_u16().into()));
        line.number("bytes", Some(self.body_bytes));
        line.number("ssd_bytes", Some(self.ssd_bytes));
        match self.range {
            Some(range) => line.shown("range", format_args!("{}-{}", range.start(), range.last())),
            None => line.bare("range", "null"),
        }
        if let Some(asked) = self.range_asked {
            let asked = String::from_utf8_lossy(&asked[..asked.len().min(RANGE_BYTES_MAX + 4)]);
            line.outside("range_asked", Some(&asked), RANGE_BYTES_MAX);
        }
        line.outside("lookup", self.lookup.map(Lookup::label), CACHE_BYTES_MAX);
        line.outside("cache", self.cache, CACHE_BYTES_MAX);
        line.number("ttfb_us", self.time_to_first_byte.map(micros));
        line.number("duration_us", Some(micros(self.duration)));
        // A hit waits for neither, and is what most are.
        if self.origin_wait + self.ssd_wait > Duration::ZERO {
            line.number("origin_wait_us", Some(micros(self.origin_wait)));
            line.number("ssd_wait_us", Some(micros(self.ssd_wait)));
        }
        line.number("origin", Some(self.origin_requests.into()));
        self.barred.into_iter().for_each(|why| line.plain("barred", why));
        if let Some((code, denied)) = self.token {
            let name = match code {
                Code::UriSigning(code) => {
                    line.number("uri_signing", Some(code.into()));
                    "uri_signing_deny_reason"
                }
                Code::Cat(word) => {
                    line.plain("cat", word);
                    "cat_deny_reason"
                }
            };
            denied.into_iter().for_each(|denied| line.plain(name, denied));
        }
        if let Some((decision, cause)) = self.decision {
            let decision = discretion.told(personal.query, self.time, decision.into());
            line.outside("decision", decision.as_deref(), DECISION_BYTES_MAX);
            line.plain("steered", cause);
        }
        self.write_of_the_viewer(&mut line, discretion);
        match self.outcome {
            Outcome::Complete => line.plain("outcome", "complete"),
            Outcome::ClientLeft => line.plain("outcome", "client_left"),
            Outcome::CutShort(reason) => {
                line.shown("outcome", format_args!("cut_short: {reason}"));
            }
        }
        line.0.push_str("}\n");
        line.0
    }

    /// What his player and his browser say.
    fn write_of_the_viewer(&self, line: &mut Line, discretion: &Discretion) {
        let personal = discretion.personal();
        let user_agent = self.user_agent.and_then(|bytes| {
            // A few bytes more than the bound, so that a character across it is cut, not garbled.
            let text = String::from_utf8_lossy(&bytes[..bytes.len().min(USER_AGENT_BYTES_MAX + 4)]);
            discretion.told(personal.user_agent, self.time, text)
        });
        line.outside("user_agent", user_agent.as_deref(), USER_AGENT_BYTES_MAX);
        // Players that are no pages send none, and these are most.
        if let Some(referer) = self.referer {
            let page = referer.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default();
            let page = String::from_utf8_lossy(&page[..page.len().min(REFERER_BYTES_MAX + 4)]);
            let page = discretion.told(personal.referer, self.time, page);
            line.outside("referer", page.as_deref(), REFERER_BYTES_MAX);
        }
        match self.cmcd {
            [] => line.bare("cmcd", "null"),
            told => line.bare("cmcd", &self.player(told, discretion)),
        }
    }

    /// What a player told, as an object within the line.
    fn player(&self, told: &[(&'static str, PlayerTold<'_>)], discretion: &Discretion) -> String {
        let mut line = Line(String::with_capacity(PLAYER_BYTES_USUAL));
        let session = discretion.personal().session;
        for (name, value) in told {
            match value {
                PlayerTold::Text(text) if *name == SESSION => {
                    let text = discretion.told(session, self.time, Cow::from(*text));
                    line.outside(name, text.as_deref(), PLAYER_TEXT_BYTES_MAX);
                }
                PlayerTold::Text(text) => line.outside(name, Some(text), PLAYER_TEXT_BYTES_MAX),
                PlayerTold::Word(word) => line.plain(name, word),
                PlayerTold::Number(number) => line.number(name, Some(*number)),
                PlayerTold::Ratio(ratio) => line.bare(name, &ratio.to_string()),
                PlayerTold::Flag(flag) => line.bare(name, if *flag { "true" } else { "false" }),
            }
        }
        line.0.push('}');
        line.0
    }
}

/// The key of a playback's id.
const SESSION: &str = "sid";

fn micros(duration: Duration) -> u64 {
    duration.as_micros() as u64
}

/// A line that is being written. By hand where every request comes by: formatting machinery cost a
/// third of all that a small hit costs this process.
pub(super) struct Line(pub(super) String);

impl Line {
    fn name(&mut self, name: &str) {
        self.0.push_str(if self.0.is_empty() { "{\"" } else { ",\"" });
        self.0.push_str(name);
        self.0.push_str("\":");
    }

    /// Opens an object within the line, with a number as the first of it.
    pub(super) fn object(&mut self, name: &str, number: u64) {
        self.0.push_str("{\"");
        self.0.push_str(name);
        self.0.push_str("\":");
        self.0.push_str(itoa::Buffer::new().format(number));
    }

    /// A value that is JSON already.
    pub(super) fn bare(&mut self, name: &str, value: &str) {
        self.name(name);
        self.0.push_str(value);
    }

    pub(super) fn number(&mut self, name: &str, value: Option<u64>) {
        match value {
            Some(value) => self.bare(name, itoa::Buffer::new().format(value)),
            None => self.bare(name, "null"),
        }
    }

    /// Our own words, which need no escaping.
    pub(super) fn plain(&mut self, name: &str, words: &str) {
        self.bare(name, "\"");
        self.0.push_str(words);
        self.0.push('"');
    }

    /// An IPv4 address.
    fn dotted(&mut self, name: &str, octets: [u8; 4]) {
        self.bare(name, "\"");
        for (number, octet) in octets.into_iter().enumerate() {
            self.0.push_str(if number == 0 { "" } else { "." });
            self.0.push_str(itoa::Buffer::new().format(octet));
        }
        self.0.push('"');
    }

    /// What needs no escaping either.
    fn shown(&mut self, name: &str, value: impl std::fmt::Display) {
        self.bare(name, "\"");
        self.formatted(format_args!("{value}\""));
    }

    /// A number that may be negative.
    pub(super) fn shown_bare(&mut self, name: &str, number: i64) {
        self.bare(name, itoa::Buffer::new().format(number));
    }

    /// Text from outside: cut to `bytes_max` (marked by an ellipsis) and escaped.
    pub(super) fn outside(&mut self, name: &str, text: Option<&str>, bytes_max: usize) {
        let Some(text) = text else { return self.bare(name, "null") };
        let kept = &text[..text.floor_char_boundary(bytes_max)];
        self.bare(name, "\"");
        // Not by `all`, which would look at byte after byte.
        match kept.bytes().fold(true, |plain, byte| plain & is_plain(byte)) {
            true => self.0.push_str(kept),
            false => kept.chars().for_each(|char| self.escaped(char)),
        }
        if kept.len() < text.len() {
            self.escaped('\u{2026}');
        }
        self.0.push('"');
    }

    /// Only printable ASCII stays: control characters drive terminals, others reorder what is read.
    fn escaped(&mut self, char: char) {
        match char {
            '"' | '\\' => self.0.extend(['\\', char]),
            ' '..='~' => self.0.push(char),
            _ => {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    self.formatted(format_args!("\\u{unit:04x}"));
                }
            }
        }
    }

    fn formatted(&mut self, arguments: std::fmt::Arguments<'_>) {
        self.0.write_fmt(arguments).expect("a String takes everything");
    }
}

/// Whether it stands for itself in a JSON string and harms no terminal.
fn is_plain(byte: u8) -> bool {
    (b' '..=b'~').contains(&byte) & (byte != b'"') & (byte != b'\\')
}

/// A time in UTC with milliseconds, as RFC 3339 writes it.
pub(super) fn rfc3339(time: SystemTime) -> Ascii<24> {
    let since = since_1970(time);
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil_date(days);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let mut text = *b"0000-00-00T00:00:00.000Z";
    // The zeros before `end`, from the last one on.
    let mut write = |end: usize, mut value: u64| {
        for digit in text[..end].iter_mut().rev().take_while(|byte| **byte == b'0') {
            *digit += (value % 10) as u8;
            value /= 10;
        }
    };
    write(4, year);
    write(7, month);
    write(10, day);
    write(13, hour);
    write(16, minute);
    write(19, second);
    write(23, since.subsec_millis().into());
    Ascii(text)
}

/// Year, month and day of the `days`-th day after 1970-01-01.
///
/// Counts from a March, so that the leap day is a year's last (H. Hinnant, `civil_from_days`).
fn civil_date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::Value;

    use super::super::personal::{ClientBits, Personal, Shown};
    use super::*;
    use crate::object::{ObjectKey, SiteId};

    /// Nothing is left out.
    pub(in crate::access_log) fn whole() -> Discretion {
        Discretion::new(Personal::WHOLE)
    }

    /// A request whose target is `path`.
    pub(in crate::access_log) fn entry(path: &str) -> Entry<'_> {
        Entry {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_262_128_007),
            request_id: RequestId::assign(),
            client: "192.0.2.77".parse().unwrap(),
            site: Some("films"),
            method: "GET",
            host: "films.example",
            target: Target::Path(path),
            protocol: "http2",
            tls: true,
            status: Some(StatusCode::PARTIAL_CONTENT),
            body_bytes: 100,
            ssd_bytes: 40,
            tiers: [true, true, false, false],
            range: ByteRange::new(100, 200),
            range_asked: None,
            lookup: Some(Lookup::Hit),
            cache: Some("tidegate; hit; ttl=11"),
            time_to_first_byte: Some(Duration::from_micros(250)),
            duration: Duration::from_micros(1_500),
            origin_wait: Duration::from_micros(200),
            ssd_wait: Duration::ZERO,
            origin_requests: 1,
            user_agent: Some(b"Player/1.0"),
            referer: None,
            cmcd: &[],
            barred: None,
            token: None,
            decision: None,
            outcome: Outcome::Complete,
        }
    }

    fn read(entry: &Entry<'_>) -> Value {
        let line = entry.to_line(&whole());
        assert!(line.is_ascii() && line.ends_with("}\n"), "{line}");
        assert_eq!(line.bytes().filter(|byte| byte.is_ascii_control()).count(), 1, "{line}");
        serde_json::from_str(&line).expect(&line)
    }

    #[test]
    fn a_query_that_may_hold_a_secret_is_named_and_not_told() {
        for (target, expected) in [
            ("/a.mp4?Signature=abc&Expires=12&loose", "/a.mp4?Signature=&Expires="),
            ("/a.mp4?secret", "/a.mp4?"),
            ("/a.mp4", "/a.mp4"),
        ] {
            let key = ObjectKey::new(SiteId(0), target);
            let entry = Entry { target: Target::Discreet(&key), ..entry("") };
            assert_eq!(read(&entry)["path"], expected);
        }
    }

    #[test]
    fn a_line_has_these_fields_in_this_order() {
        let mut entry = entry("");
        let key = ObjectKey::new(SiteId(0), "/a.mp4?quality=2");
        entry.target = Target::Object(&key);
        entry.range_asked = Some(b"bytes=100-199");
        entry.cmcd = &[
            ("sid", PlayerTold::Text("a\"b")),
            ("ot", PlayerTold::Word("v")),
            ("bl", PlayerTold::Number(2100)),
            ("pr", PlayerTold::Ratio(1.08)),
            ("bs", PlayerTold::Flag(true)),
        ];
        let id = entry.request_id;
        let expected = format!(
            concat!(
                r#"{{"time":"2026-11-21T11:55:28.007Z","request_id":"{}","#,
                r#""client":"192.0.2.77","site":"films","method":"GET","host":"films.example","#,
                r#""path":"/a.mp4?quality=2","protocol":"http2","tls":true,"status":206,"#,
                r#""bytes":100,"ssd_bytes":40,"range":"100-199","#,
                r#""range_asked":"bytes=100-199","lookup":"hit","#,
                r#""cache":"tidegate; hit; ttl=11","#,
                r#""ttfb_us":250,"duration_us":1500,"origin_wait_us":200,"ssd_wait_us":0,"#,
                r#""origin":1,"user_agent":"Player/1.0","#,
                r#""cmcd":{{"sid":"a\"b","ot":"v","bl":2100,"pr":1.08,"bs":true}},"#,
                r#""outcome":"complete"}}"#,
                "\n"
            ),
            id
        );
        assert_eq!(entry.to_line(&whole()), expected);
    }

    #[test]
    fn a_decision_is_told_as_far_as_a_query_is() {
        let mut entry = entry("/");
        assert!(!entry.to_line(&whole()).contains("steered"));
        entry.decision = Some(("0123456789abcdef.0h", "health"));
        let line = read(&entry);
        assert_eq!(
            (&line["decision"], &line["steered"]),
            (&"0123456789abcdef.0h".into(), &"health".into())
        );
        let discretion = Discretion::new(Personal { query: Shown::Off, ..Personal::WHOLE });
        let line = entry.to_line(&discretion);
        assert!(line.contains("\"decision\":null,\"steered\":\"health\""), "{line}");
    }

    #[test]
    fn what_is_not_there_is_null() {
        let mut entry = entry("/");
        (entry.site, entry.range, entry.cache) = (None, None, None);
        (entry.time_to_first_byte, entry.user_agent) = (None, None);
        entry.outcome = Outcome::CutShort("origin closed");
        let line = read(&entry);
        for name in ["site", "range", "cache", "ttfb_us", "user_agent", "cmcd"] {
            assert_eq!(line[name], Value::Null, "{name}");
        }
        assert_eq!(line["outcome"], "cut_short: origin closed");
    }

    #[test]
    fn hostile_text_neither_breaks_a_line_nor_reaches_a_terminal() {
        let hostile = "/\"},{\"status\":200\\\n\r\u{1b}[2J\0\u{7f}\u{9b}31m\u{202e}é\u{1f3ac}";
        let mut entry = entry(hostile);
        entry.method = "\"GET\n";
        entry.host = "a\tb";
        entry.user_agent = Some(b"bad \xff\xfe\" \x1b]0;title\x07");
        let line = read(&entry);
        assert_eq!(line["path"], hostile);
        assert_eq!(line["method"], "\"GET\n");
        assert_eq!(line["host"], "a\tb");
        assert_eq!(line["user_agent"], "bad \u{fffd}\u{fffd}\" \u{1b}]0;title\u{7}");
        assert_eq!(line["status"], 206);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_back_as_it_was(path in "[^?]{0,500}", user_agent in ".{0,60}") {
            let mut entry = entry(&path);
            entry.user_agent = Some(user_agent.as_bytes());
            let line = read(&entry);
            proptest::prop_assert_eq!(&line["path"], &path);
            proptest::prop_assert_eq!(&line["user_agent"], &user_agent);
        }

        #[test]
        fn any_bytes_make_one_line(user_agent: Vec<u8>) {
            let mut entry = entry("/");
            entry.user_agent = Some(&user_agent);
            read(&entry);
        }
    }

    #[test]
    fn a_query_is_logged_only_as_an_objects_key_has_it() {
        assert_eq!(read(&entry("/film.mp4?token=secret?x"))["path"], "/film.mp4");
        assert_eq!(read(&entry("?token=secret"))["path"], "");
    }

    #[test]
    fn long_text_is_cut_between_characters_and_marked() {
        let long = "é".repeat(10_000);
        let mut entry = entry(&long);
        entry.user_agent = Some(long.as_bytes());
        entry.host = &long[..256];
        let line = read(&entry);
        assert_eq!(line["user_agent"], format!("{}…", "é".repeat(128)));
        assert_eq!(line["path"], format!("{}…", "é".repeat(1_024)));
        assert_eq!(line["host"], long[..256]);
        let odd = format!("x{long}");
        entry.user_agent = Some(odd.as_bytes());
        assert_eq!(read(&entry)["user_agent"], format!("x{}…", "é".repeat(127)));
    }

    #[test]
    fn the_longest_line_is_bounded() {
        let worst = "\u{1}".repeat(100_000);
        let mut entry = entry(&worst);
        let worst = worst.as_str();
        (entry.site, entry.method, entry.host) = (Some(worst), worst, worst);
        (entry.cache, entry.user_agent) = (Some(worst), Some(worst.as_bytes()));
        entry.range_asked = entry.user_agent;
        assert!(entry.to_line(&whole()).len() < 20 << 10);
    }

    #[test]
    fn addresses_are_truncated_as_set() {
        let bits = |v4, v6| ClientBits { v4, v6 };
        for (bits, address, expected) in [
            (bits(24, 48), "192.0.2.77", "192.0.2.0"),
            (bits(24, 48), "2001:db8:1:2:3:4:5:6", "2001:db8:1::"),
            (bits(24, 48), "::ffff:192.0.2.77", "192.0.2.0"),
            (bits(0, 0), "192.0.2.77", "0.0.0.0"),
            (bits(0, 0), "2001:db8::1", "::"),
            (bits(32, 128), "192.0.2.77", "192.0.2.77"),
            (bits(255, 255), "2001:db8::1", "2001:db8::1"),
            (bits(20, 61), "192.0.255.77", "192.0.240.0"),
        ] {
            let (address, expected): (IpAddr, IpAddr) =
                (address.parse().unwrap(), expected.parse().unwrap());
            assert_eq!(bits.of(address), expected, "{address} {bits:?}");
        }
        let personal = Personal { client_bits: bits(16, 32), ..Personal::WHOLE };
        let line = entry("/").to_line(&Discretion::new(personal));
        assert!(line.contains("\"client\":\"192.0.0.0\"") && !line.contains("2.77"), "{line}");
    }

    #[test]
    fn what_may_tell_who_a_viewer_is_is_left_out_or_hashed_as_set() {
        let key = ObjectKey::new(SiteId(0), "/a.mp4?user=12");
        let mut entry = Entry { target: Target::Object(&key), ..entry("") };
        entry.referer = Some(b"https://play.example/12?token=x");
        entry.cmcd = &[("sid", PlayerTold::Text("session-12")), ("cid", PlayerTold::Text("c"))];
        let told = |shown| {
            let client_bits = ClientBits { v4: 24, v6: 48 };
            let [query, referer, user_agent, session] = [shown; 4];
            let personal = Personal { client_bits, query, referer, user_agent, session };
            let line = entry.to_line(&Discretion::new(personal));
            serde_json::from_str::<Value>(&line).unwrap()
        };
        let whole = told(Shown::Whole);
        assert_eq!(whole["path"], "/a.mp4?user=12");
        assert_eq!(whole["referer"], "https://play.example/12");
        let off = told(Shown::Off);
        assert_eq!(off["path"], "/a.mp4");
        for field in ["referer", "user_agent"] {
            assert_eq!(off[field], Value::Null, "{field}");
        }
        assert_eq!((&off["cmcd"]["sid"], &off["cmcd"]["cid"]), (&Value::Null, &"c".into()));
        let hashed = told(Shown::Hashed).to_string();
        for personal in ["user=12", "play.example", "Player/1.0", "session-12", "192.0.2.77"] {
            assert!(!hashed.contains(personal), "{hashed}");
        }
        let hashed = told(Shown::Hashed);
        assert_eq!(hashed["cmcd"]["sid"].as_str().unwrap().len(), 16);
        assert_eq!(hashed["path"].as_str().unwrap().len(), "/a.mp4?".len() + 16);
    }

    #[test]
    fn times_are_written_in_utc_with_milliseconds() {
        let at = |millis| {
            let time = SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
            rfc3339(time).as_text().to_owned()
        };
        assert_eq!(at(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_782_399_999), "2000-02-28T23:59:59.999Z");
        assert_eq!(at(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(at(1_709_251_199_001), "2024-02-29T23:59:59.001Z");
        assert_eq!(at(4_107_542_400_000), "2100-03-01T00:00:00.000Z");
    }
}
