//! One request's line as others read it: NCSA combined, and CDNI (RFC 7937 section 3).
//!
//! Made of its line of JSON by the thread that writes, so that a request costs a serving thread the
//! same in each, and says no more in one than in another. What comes from outside is escaped to
//! printable ASCII: it can neither end a line or a field nor drive a terminal. Pure.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use serde::Deserialize;

use super::entry::rfc3339;
use super::personal::ClientBits;
use super::{Line, personal};
use crate::metrics::labels::Lookup;

/// How lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// An object of JSON.
    #[default]
    Json,
    /// As web servers do: NCSA combined.
    Combined,
    /// Records of the type `cdni_http_request_v1`, with their directives.
    Cdni,
}

/// What a line of JSON says, as far as others ask for it.
#[derive(Deserialize)]
struct Told<'a> {
    client: IpAddr,
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow)]
    host: Cow<'a, str>,
    #[serde(borrow)]
    path: Cow<'a, str>,
    protocol: &'a str,
    tls: bool,
    status: Option<u16>,
    bytes: u64,
    lookup: Option<&'a str>,
    duration_us: u64,
    user_agent: Option<Cow<'a, str>>,
    referer: Option<Cow<'a, str>>,
}

impl Format {
    /// Each by its word.
    pub const ALL: [(&'static str, Format); 3] =
        [("json", Format::Json), ("combined", Format::Combined), ("cdni", Format::Cdni)];

    /// The word for it.
    pub fn word(self) -> &'static str {
        let found = Format::ALL.iter().find(|(_, one)| *one == self);
        found.map(|(word, _)| *word).expect("each has a word")
    }

    /// Adds the line to `text`; of addresses no more than these bits.
    pub(super) fn write(self, line: &Line, client_bits: ClientBits, text: &mut String) {
        if self == Format::Json {
            return text.push_str(&line.text);
        }
        let told: Told<'_> =
            serde_json::from_str(&line.text).expect("a line of ours has the fields of a request");
        match self {
            Format::Cdni => told.cdni(line, client_bits, text),
            _ => told.combined(line, text),
        }
    }

    /// What ends a line.
    pub(super) fn line_end(self) -> &'static str {
        match self {
            Format::Cdni => "\r\n",
            Format::Json | Format::Combined => "\n",
        }
    }

    /// What stands before the records of a file that is empty (`Begins::Empty`), and of one that
    /// has records already (RFC 7937 section 3.3: `version` and `UUID` come once).
    pub(super) fn head(self, begins: Begins) -> String {
        let mut head = String::new();
        if self != Format::Cdni {
            return head;
        }
        if begins == Begins::Empty {
            head = format!("#version:\tcdni/1.0\r\n#UUID:\t{}\r\n", personal::random_uuid());
            if let Some(host) = hostname() {
                head.push_str(&format!("#claimed-origin:\t{host}\r\n"));
            }
        }
        head.push_str("#record-type:\tcdni_http_request_v1\r\n#fields:");
        for field in CDNI_FIELDS {
            head.push('\t');
            head.push_str(field);
        }
        head.push_str("\r\n");
        head
    }
}

/// What a file holds when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begins {
    /// Nothing.
    Empty,
    /// Lines of before.
    After,
}

/// The fields of a record in their order (RFC 7937 section 3.4.1). Heads are not counted, so
/// `sc-total-bytes` is never known; what tokens were found to be (RFC 9246), and by which decisions
/// viewers come, is in JSON alone.
const CDNI_FIELDS: [&str; 13] = [
    "date",
    "time",
    "time-taken",
    "c-groupid",
    "cs-method",
    "u-uri",
    "protocol",
    "sc-status",
    "sc-total-bytes",
    "sc-entity-bytes",
    "cs(User-Agent)",
    "cs(Referer)",
    "s-cached",
];
/// Of whom a record tells is a group of clients, never one.
const GROUP_BITS: ClientBits = ClientBits { v4: 24, v6: 48 };
/// What nginx has for a viewer who left before there was a status.
const LEFT_BEFORE: u16 = 499;

impl Told<'_> {
    /// `host ident user [time] "request" status bytes "referer" "user agent"`, at the time the
    /// request came, as Apache has it.
    fn combined(&self, line: &Line, text: &mut String) {
        let time = rfc3339(line.time);
        let time = time.as_text();
        let month: usize = time[5..7].parse().expect("a month is two digits");
        let (year, month, day) = (&time[..4], MONTHS[month - 1], &time[8..10]);
        let at = format_args!("{day}/{month}/{year}:{} +0000", &time[11..19]).to_string();
        let _ = write!(text, "{} - - [{at}] \"", self.client);
        escape(text, &self.method, in_quotes);
        text.push(' ');
        escape(text, &self.path, in_quotes);
        let status = self.status.unwrap_or(LEFT_BEFORE);
        let _ = write!(text, " {}\" {status} ", self.version());
        match self.bytes {
            0 => text.push('-'),
            bytes => text.push_str(itoa::Buffer::new().format(bytes)),
        }
        for value in [&self.referer, &self.user_agent] {
            text.push_str(" \"");
            escape(text, value.as_deref().unwrap_or("-"), in_quotes);
            text.push('"');
        }
        text.push('\n');
    }

    /// A record: date and time are of the end of the request, the URI is what was asked for.
    fn cdni(&self, line: &Line, client_bits: ClientBits, text: &mut String) {
        let ended = rfc3339(line.time + Duration::from_micros(self.duration_us));
        let (date, time) = (&ended.as_text()[..10], &ended.as_text()[11..23]);
        let (seconds, micros) = (self.duration_us / 1_000_000, self.duration_us % 1_000_000);
        let bits = ClientBits {
            v4: client_bits.v4.min(GROUP_BITS.v4),
            v6: client_bits.v6.min(GROUP_BITS.v6),
        };
        let group = bits.of(self.client);
        let group_bits = if group.is_ipv4() { bits.v4 } else { bits.v6 };
        let _ = write!(text, "{date}\t{time}\t{seconds}.{micros:06}\t{group}/{group_bits}\t");
        escape(text, &self.method, in_uri);
        text.push_str(if self.tls { "\thttps://" } else { "\thttp://" });
        escape(text, &self.host, in_uri);
        escape(text, &self.path, in_uri);
        let _ = write!(text, "\t{}\t", self.version());
        match self.status {
            Some(status) => text.push_str(itoa::Buffer::new().format(status)),
            None => text.push('-'),
        }
        let _ = write!(text, "\t-\t{}", self.bytes);
        for value in [&self.user_agent, &self.referer] {
            text.push('\t');
            match value {
                Some(value) => {
                    text.push('"');
                    escape(text, value, in_qstring);
                    text.push('"');
                }
                None => text.push('-'),
            }
        }
        let was_stored = [Lookup::Hit, Lookup::HitSsd, Lookup::Revalidated, Lookup::Stale];
        let is_cached = was_stored.iter().any(|one| Some(one.label()) == self.lookup);
        text.push_str(if is_cached { "\t1\r\n" } else { "\t0\r\n" });
    }

    fn version(&self) -> &'static str {
        if self.protocol == "http2" { "HTTP/2.0" } else { "HTTP/1.1" }
    }
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// How a byte is written: as itself, or after this mark as two hexadecimal digits.
type Escaped = fn(u8) -> Option<&'static str>;

fn escape(text: &mut String, value: &str, escaped: Escaped) {
    for byte in value.bytes() {
        match escaped(byte) {
            None => text.push(char::from(byte)),
            Some(mark) => {
                let _ = write!(text, "{mark}{byte:02X}");
            }
        }
    }
}

/// As nginx does: also a quote, which else would end the field for who does not know `\"`.
fn in_quotes(byte: u8) -> Option<&'static str> {
    let stays = matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
    if stays { None } else { Some("\\x") }
}

/// An NHTABSTRING without blanks (RFC 7937 section 3.1, RFC 3986 section 2.1).
fn in_uri(byte: u8) -> Option<&'static str> {
    let stays = matches!(byte, b'!'..=b'~') && byte != b'"';
    if stays { None } else { Some("%") }
}

/// Between the quotes of a QSTRING (RFC 7937 section 3.1); it might hold UTF-8 as it is.
fn in_qstring(byte: u8) -> Option<&'static str> {
    let stays = matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'%';
    if stays { None } else { Some("%") }
}

/// This machine's name, where it is one that a host may have.
fn hostname() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim();
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    (!name.is_empty() && name.bytes().all(is_host)).then(|| name.to_owned())
}

/// What the fuzz target `log_format` runs: whatever a viewer sends, a line is one line with its
/// fields.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    let value = String::from_utf8_lossy(bytes);
    let line = Line {
        time: std::time::SystemTime::UNIX_EPOCH,
        text: serde_json::json!({
            "client": "192.0.2.77", "method": value, "host": value, "path": value,
            "protocol": "http1", "tls": false, "status": null, "bytes": 0, "lookup": null,
            "duration_us": 0, "user_agent": value, "referer": value,
        })
        .to_string(),
    };
    let mut text = String::new();
    Format::Combined.write(&line, ClientBits::ALL, &mut text);
    let (text, end) = text.split_at(text.len() - 1);
    assert!(end == "\n" && text.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{text}");
    assert_eq!(text.matches('"').count(), 6, "{text}");
    let mut text = String::new();
    Format::Cdni.write(&line, ClientBits::ALL, &mut text);
    let (text, end) = text.split_at(text.len() - 2);
    let printable = |byte: u8| matches!(byte, b'\t' | b' '..=b'~');
    assert!(end == "\r\n" && text.bytes().all(printable), "{text}");
    assert_eq!(text.split('\t').count(), CDNI_FIELDS.len(), "{text}");
    assert_eq!(text.matches('"').count(), 4, "{text}");
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::super::entry::Entry;
    use super::super::entry::tests::{entry, whole};
    use super::*;
    use crate::access_log::PlayerTold;
    use crate::message::fuzz::tests::seeds;

    fn written(format: Format, entry: &Entry<'_>) -> String {
        let line = Line { time: entry.time, text: entry.to_line(&whole()) };
        let mut text = String::new();
        format.write(&line, ClientBits::ALL, &mut text);
        text
    }

    #[test]
    fn a_combined_line_is_this_byte_for_byte() {
        let mut entry = entry("/a.mp4");
        entry.cmcd = &[("sid", PlayerTold::Text("a\"b"))];
        assert_eq!(
            written(Format::Combined, &entry),
            "192.0.2.77 - - [21/Nov/2026:11:55:28 +0000] \"GET /a.mp4 HTTP/2.0\" 206 100 \
             \"-\" \"Player/1.0\"\n"
        );
        (entry.status, entry.body_bytes, entry.user_agent) = (None, 0, None);
        (entry.protocol, entry.client) = ("http1", "2001:db8::1".parse().unwrap());
        entry.referer = Some(b"https://play.example/watch?token=secret");
        assert_eq!(
            written(Format::Combined, &entry),
            "2001:db8::1 - - [21/Nov/2026:11:55:28 +0000] \"GET /a.mp4 HTTP/1.1\" 499 - \
             \"https://play.example/watch\" \"-\"\n"
        );
    }

    #[test]
    fn no_viewer_writes_a_line_or_a_field_of_a_combined_log() {
        let mut entry = entry("/a\" 200 1\n\u{1b}[2J");
        entry.user_agent = Some(b"x\" \"y\\\r\n10.0.0.1 - - \xff\xc3\xa9\x7f\t");
        assert_eq!(
            written(Format::Combined, &entry),
            "192.0.2.77 - - [21/Nov/2026:11:55:28 +0000] \
             \"GET /a\\x22 200 1\\x0A\\x1B[2J HTTP/2.0\" 206 100 \"-\" \
             \"x\\x22 \\x22y\\x5C\\x0D\\x0A10.0.0.1 - - \\xEF\\xBF\\xBD\\xC3\\xA9\\x7F\\x09\"\n"
        );
    }

    #[test]
    fn a_cdni_record_is_this_byte_for_byte() {
        let mut entry = entry("/a b.mp4");
        entry.duration = Duration::from_micros(12_001_500);
        entry.referer = Some(b"http://p/");
        assert_eq!(
            written(Format::Cdni, &entry),
            "2026-11-21\t11:55:40.008\t12.001500\t192.0.2.0/24\tGET\t\
             https://films.example/a%20b.mp4\tHTTP/2.0\t206\t-\t100\t\"Player/1.0\"\t\
             \"http://p/\"\t1\r\n"
        );
        (entry.status, entry.tls, entry.user_agent, entry.referer) = (None, false, None, None);
        (entry.lookup, entry.client) = (Some(Lookup::Miss), "2001:db8:1:2::3".parse().unwrap());
        entry.target = super::super::Target::Path("/\t\"%\u{e9}");
        assert_eq!(
            written(Format::Cdni, &entry),
            "2026-11-21\t11:55:40.008\t12.001500\t2001:db8:1::/48\tGET\t\
             http://films.example/%09%22%%C3%A9\tHTTP/2.0\t-\t-\t100\t-\t-\t0\r\n"
        );
    }

    #[test]
    fn no_viewer_writes_a_record_or_a_field_of_a_cdni_log() {
        let mut entry = entry("/");
        entry.user_agent = Some(b"x\"\t\"y%22\r\n#fields:\tdate \xc2\x9b");
        let record = written(Format::Cdni, &entry);
        assert!(
            record.ends_with("\t\"x%22%09%22y%2522%0D%0A#fields:%09date %C2%9B\"\t-\t1\r\n"),
            "{record}"
        );
    }

    #[test]
    fn a_cdni_file_begins_with_its_directives_and_says_some_once() {
        let head = Format::Cdni.head(Begins::Empty);
        let lines: Vec<&str> = head.split_terminator("\r\n").collect();
        assert_eq!(lines[0], "#version:\tcdni/1.0");
        let uuid = lines[1].strip_prefix("#UUID:\turn:uuid:").unwrap();
        let lengths: Vec<usize> = uuid.split('-').map(str::len).collect();
        assert_eq!((lengths, uuid.as_bytes()[14]), (vec![8, 4, 4, 4, 12], b'4'));
        let after = Format::Cdni.head(Begins::After);
        assert_eq!(
            after,
            "#record-type:\tcdni_http_request_v1\r\n#fields:\tdate\ttime\ttime-taken\tc-groupid\t\
             cs-method\tu-uri\tprotocol\tsc-status\tsc-total-bytes\tsc-entity-bytes\t\
             cs(User-Agent)\tcs(Referer)\ts-cached\r\n"
        );
        assert!(head.ends_with(&after) && !after.contains("version"));
        assert_eq!(Format::Combined.head(Begins::Empty), "");
    }

    #[test]
    fn the_months_have_their_names() {
        let mut entry = entry("/");
        entry.time = SystemTime::UNIX_EPOCH + Duration::from_secs(951_782_399);
        assert!(written(Format::Combined, &entry).contains("[28/Feb/2000:23:59:59 +0000]"));
    }

    #[test]
    fn the_seeds_keep_its_promises() {
        seeds("log_format", 5).iter().for_each(|seed| fuzz(seed));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_make_one_line_of_each_format(bytes: Vec<u8>) {
            fuzz(&bytes);
        }
    }
}
