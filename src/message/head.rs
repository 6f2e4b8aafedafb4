//! The head of an HTTP/1 message as it came: whether it can be read in one way only.
//!
//! Two parties that read one head differently disagree on where the next one begins, and one
//! viewer's bytes become another's request (request smuggling). So nothing is guessed or mended
//! here: what RFC 9112 lets a recipient be lenient about is refused, and so is a length that is
//! said twice.

use std::error::Error;
use std::fmt;

use memchr::{memchr, memchr_iter, memrchr};

use super::syntax::{decimal, trimmed};

/// What stands at the beginning of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A request line.
    Request,
    /// A status line.
    Response,
}

/// Why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HeadFault {
    /// A line does not end with CR LF, or a CR stands elsewhere (RFC 9112 section 2.2).
    LineEnd,
    /// The first line is not three words with one space between them, or has control bytes
    /// (sections 3 and 4).
    StartLine,
    /// A field goes on in the next line (section 5.2).
    Folded,
    /// The name of a field is no token that a colon follows at once (section 5.1).
    FieldName,
    /// The value of a field has control bytes (RFC 9110 section 5.5).
    FieldValue,
    /// `Content-Length` is no number that can be reckoned with, or is there more than once
    /// (section 6.3).
    Length,
    /// `Content-Length` beside `Transfer-Encoding` (section 6.3).
    LengthAndCoding,
    /// `Transfer-Encoding` in HTTP/1.0, or something else than `chunked` (section 6.1).
    Coding,
}

impl HeadFault {
    /// All of them.
    pub const ALL: [HeadFault; 8] = [
        HeadFault::LineEnd,
        HeadFault::StartLine,
        HeadFault::Folded,
        HeadFault::FieldName,
        HeadFault::FieldValue,
        HeadFault::Length,
        HeadFault::LengthAndCoding,
        HeadFault::Coding,
    ];
}

impl HeadFault {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            HeadFault::LineEnd => "a line of the head does not end with CR LF",
            HeadFault::StartLine => "the first line of the head is malformed",
            HeadFault::Folded => "a field goes on in the next line",
            HeadFault::FieldName => "the name of a field is malformed",
            HeadFault::FieldValue => "the value of a field has control characters",
            HeadFault::Length => "Content-Length is no number, or is repeated",
            HeadFault::LengthAndCoding => "Content-Length and Transfer-Encoding are both there",
            HeadFault::Coding => "Transfer-Encoding is not chunked, or of HTTP/1.0",
        }
    }
}

impl fmt::Display for HeadFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

impl Error for HeadFault {}

/// What follows a request's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follows {
    /// The next head.
    Head,
    /// A body of so many bytes, one at least.
    Body(u64),
    /// One in chunks.
    Chunks,
}

/// How many bytes at the beginning are empty lines: a server skips those before a request line
/// (RFC 9112 section 2.2).
pub fn empty_lines(bytes: &[u8]) -> usize {
    bytes.chunks_exact(2).take_while(|line| *line == b"\r\n").count() * 2
}

/// Where the head ends that `bytes` begin with: after its first empty line, whatever its lines end
/// with. `searched` bytes have been searched in vain before.
pub fn end(bytes: &[u8], searched: usize) -> Option<usize> {
    // An empty line may have been cut in two.
    let from = searched.saturating_sub(3);
    memchr_iter(b'\n', &bytes[from..]).map(|at| from + at).find_map(|at| match bytes[at + 1..] {
        [b'\n', ..] => Some(at + 2),
        [b'\r', b'\n', ..] => Some(at + 3),
        _ => None,
    })
}

/// Reads a whole head, its empty line included.
///
/// # Errors
/// The first fault.
pub fn check(kind: Kind, head: &[u8]) -> Result<Follows, HeadFault> {
    let mut rest = head;
    let mut next = || {
        let (line, after) = rest.split_at(memchr(b'\n', rest).ok_or(HeadFault::LineEnd)?);
        rest = &after[1..];
        line.strip_suffix(b"\r").ok_or(HeadFault::LineEnd)
    };
    // No line that holds another CR is sound otherwise.
    let told = |line: &[u8], fault| if line.contains(&b'\r') { HeadFault::LineEnd } else { fault };
    let first = next()?;
    let version = start_line(kind, first).map_err(|fault| told(first, fault))?;
    let (mut length, mut coding) = (None, None);
    loop {
        let line = next()?;
        if line.is_empty() {
            break;
        }
        let (name, value) = field(line).map_err(|fault| told(line, fault))?;
        if name.eq_ignore_ascii_case(b"content-length") {
            let told = decimal(value).filter(|told| *told <= LENGTH_MAX);
            let is_first = length.replace(told.ok_or(HeadFault::Length)?).is_none();
            is_first.then_some(()).ok_or(HeadFault::Length)?;
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            let is_chunked = value.eq_ignore_ascii_case(b"chunked");
            let is_first = coding.replace(value).is_none();
            let is_understood = is_chunked && is_first && version == b"HTTP/1.1";
            is_understood.then_some(()).ok_or(HeadFault::Coding)?;
        }
    }
    match (length, coding) {
        (Some(_), Some(_)) => Err(HeadFault::LengthAndCoding),
        (None, Some(_)) => Ok(Follows::Chunks),
        (Some(length @ 1..), None) => Ok(Follows::Body(length)),
        _ => Ok(Follows::Head),
    }
}

/// The version that a first line names.
fn start_line(kind: Kind, line: &[u8]) -> Result<&[u8], HeadFault> {
    let holds = |holds: bool| holds.then_some(()).ok_or(HeadFault::StartLine);
    match kind {
        Kind::Request => {
            let first = memchr(b' ', line).ok_or(HeadFault::StartLine)?;
            let last = memrchr(b' ', line).filter(|last| *last > first);
            let last = last.ok_or(HeadFault::StartLine)?;
            let (method, target, version) =
                (&line[..first], &line[first + 1..last], &line[last + 1..]);
            holds(!method.is_empty() && method.iter().all(is_token))?;
            holds(!target.is_empty() && is_visible(target))?;
            holds(matches!(version, b"HTTP/1.0" | b"HTTP/1.1"))?;
            Ok(version)
        }
        Kind::Response => {
            let mut words = line.splitn(3, |byte| *byte == b' ');
            let mut word = || words.next().ok_or(HeadFault::StartLine);
            let (version, status) = (word()?, word()?);
            // The space before a reason that is not there is often left out.
            let reason = words.next().unwrap_or_default();
            holds(matches!(version, b"HTTP/1.0" | b"HTTP/1.1"))?;
            holds(status.len() == 3 && status.iter().all(u8::is_ascii_digit))?;
            holds(is_text(reason))?;
            Ok(version)
        }
    }
}

/// Name and value of a field line.
fn field(line: &[u8]) -> Result<(&[u8], &[u8]), HeadFault> {
    if let [b' ' | b'\t', ..] = line {
        return Err(HeadFault::Folded);
    }
    let name_bytes = line.iter().take_while(|byte| is_token(byte)).count();
    let (name, [b':', value @ ..]) = line.split_at(name_bytes) else {
        return Err(HeadFault::FieldName);
    };
    if name.is_empty() {
        return Err(HeadFault::FieldName);
    }
    is_text(value).then(|| (name, trimmed(value))).ok_or(HeadFault::FieldValue)
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: &u8) -> bool {
    static TOKEN: [bool; 256] = {
        let mut token = [false; 256];
        let mut byte = 0;
        while byte < 256 {
            token[byte] = (byte as u8).is_ascii_alphanumeric();
            byte += 1;
        }
        let mut others = b"!#$%&'*+-.^_`|~".as_slice();
        while let [other, rest @ ..] = others {
            token[*other as usize] = true;
            others = rest;
        }
        token
    };
    TOKEN[usize::from(*byte)]
}

/// Whether a target holds neither spaces nor control bytes. A token in it makes it long, so it is
/// not asked by `all`, which would look at byte after byte.
fn is_visible(target: &[u8]) -> bool {
    target.iter().fold(true, |visible, byte| visible & (*byte > b' ') & (*byte != DEL))
}

fn is_text(value: &[u8]) -> bool {
    // As above.
    let is_sound = |byte: u8| (byte >= b' ') & (byte != DEL) | (byte == b'\t');
    value.iter().fold(true, |sound, byte| sound & is_sound(*byte))
}

const DEL: u8 = 0x7f;
/// The longest body that hyper counts: beyond it two numbers mean something else there.
const LENGTH_MAX: u64 = u64::MAX - 2;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(head: &str) -> Result<Follows, HeadFault> {
        check(Kind::Request, head.as_bytes())
    }

    #[test]
    fn a_plain_head_passes_and_says_what_follows() {
        for (fields, follows) in [
            ("", Follows::Head),
            ("Host: a\r\nX:\r\nY: \t b \t\r\nZ: \u{e9}\r\n", Follows::Head),
            ("Content-Length: 0\r\n", Follows::Head),
            ("content-length:000\r\n", Follows::Head),
            ("Content-Length: 10\r\n", Follows::Body(10)),
            ("Content-Length: 000000000000000000000000010\r\n", Follows::Body(10)),
            ("Content-Length: 18446744073709551613\r\n", Follows::Body(LENGTH_MAX)),
            ("Transfer-Encoding: Chunked\r\n", Follows::Chunks),
        ] {
            let head = format!("GET /a?b HTTP/1.1\r\n{fields}\r\n");
            assert_eq!(request(&head), Ok(follows), "{head:?}");
        }
        assert_eq!(request("GET /\u{e9} HTTP/1.0\r\n\r\n"), Ok(Follows::Head));
        for line in ["HTTP/1.1 200 OK", "HTTP/1.1 200 ", "HTTP/1.0 404", "HTTP/1.1 200 \u{e9} so"] {
            let head = format!("{line}\r\n\r\n");
            assert_eq!(check(Kind::Response, head.as_bytes()), Ok(Follows::Head), "{head:?}");
        }
    }

    #[test]
    fn a_length_that_is_not_counted_is_refused() {
        let head = |length| format!("GET / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n");
        for length in ["18446744073709551614", "18446744073709551616", "99999999999999999999999"] {
            assert_eq!(request(&head(length)), Err(HeadFault::Length), "{length}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        use HeadFault::*;
        for (head, fault) in [
            ("GET / HTTP/1.1\nHost: a\r\n\r\n", LineEnd),
            ("GET / HTTP/1.1\r\nHost: a\n\r\n", LineEnd),
            ("GET / HTTP/1.1\r\nHost: a\r\n\n", LineEnd),
            ("GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", LineEnd),
            ("GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", LineEnd),
            ("GET  / HTTP/1.1\r\n\r\n", StartLine),
            ("GET / HTTP/1.1 \r\n\r\n", StartLine),
            (" GET / HTTP/1.1\r\n\r\n", StartLine),
            ("GET\t/ HTTP/1.1\r\n\r\n", StartLine),
            ("GET /a\tb HTTP/1.1\r\n\r\n", StartLine),
            ("GET /a b HTTP/1.1\r\n\r\n", StartLine),
            ("GET /a\0 HTTP/1.1\r\n\r\n", StartLine),
            ("GET / HTTP/2.0\r\n\r\n", StartLine),
            ("GET / http/1.1\r\n\r\n", StartLine),
            ("GET / HTTP/1.10\r\n\r\n", StartLine),
            ("GET /\r\n\r\n", StartLine),
            ("G(T / HTTP/1.1\r\n\r\n", StartLine),
            ("GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n", Folded),
            ("GET / HTTP/1.1\r\n\tHost: a\r\n\r\n", Folded),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", FieldName),
            ("GET / HTTP/1.1\r\nHost\t: a\r\n\r\n", FieldName),
            ("GET / HTTP/1.1\r\n: a\r\n\r\n", FieldName),
            ("GET / HTTP/1.1\r\nHost\r\n\r\n", FieldName),
            ("GET / HTTP/1.1\r\nH\u{e9}: a\r\n\r\n", FieldName),
            ("GET / HTTP/1.1\r\nTransfer-Encoding\u{b}: chunked\r\n\r\n", FieldName),
            ("GET / HTTP/1.1\r\nX: a\0\r\n\r\n", FieldValue),
            ("GET / HTTP/1.1\r\nX: \u{b}a\r\n\r\n", FieldValue),
            ("GET / HTTP/1.1\r\nX: \u{7f}\r\n\r\n", FieldValue),
            ("GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", Length),
            ("GET / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n", Length),
            ("GET / HTTP/1.1\r\nContent-Length: +1\r\n\r\n", Length),
            ("GET / HTTP/1.1\r\nContent-Length: 0x1\r\n\r\n", Length),
            ("GET / HTTP/1.1\r\nContent-Length:\r\n\r\n", Length),
            ("GET / HTTP/1.1\r\nContent-Length: 1 2\r\n\r\n", Length),
            (
                "GET / HTTP/1.1\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n",
                LengthAndCoding,
            ),
            (
                "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
                LengthAndCoding,
            ),
            ("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Coding),
            ("GET / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Coding),
            ("GET / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n", Coding),
            ("GET / HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n", Coding),
            (
                "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\
                 transfer-encoding: chunked\r\n\r\n",
                Coding,
            ),
        ] {
            assert_eq!(request(head), Err(fault), "{head:?}");
        }
        for (head, fault) in [
            ("HTTP/1.1 200 OK\nX: a\r\n\r\n", LineEnd),
            ("HTTP/1.1  200 OK\r\n\r\n", StartLine),
            ("HTTP/1.1 2000 OK\r\n\r\n", StartLine),
            ("HTTP/1.1 20 OK\r\n\r\n", StartLine),
            ("HTTP/2 200 OK\r\n\r\n", StartLine),
            ("HTTP/1.1 200 O\0K\r\n\r\n", StartLine),
            ("ICY 200 OK\r\n\r\n", StartLine),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", Length),
        ] {
            assert_eq!(check(Kind::Response, head.as_bytes()), Err(fault), "{head:?}");
        }
    }

    #[test]
    fn empty_lines_before_a_request_are_told() {
        for (bytes, count) in
            [("", 0), ("\r\n", 2), ("\r\n\r\nGET", 4), ("GET", 0), ("\n\r\n", 0), ("\r", 0)]
        {
            assert_eq!(empty_lines(bytes.as_bytes()), count, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn the_end_is_found_however_the_bytes_come(
            head in "[a\r\n]{0,40}",
            cut in 0..40_usize,
        ) {
            let bytes = head.as_bytes();
            let cut = cut.min(bytes.len());
            let at_once = end(bytes, 0);
            let expected = bytes.len().min(
                [bytes.windows(2).position(|w| w == b"\n\n").map(|at| at + 2),
                 bytes.windows(3).position(|w| w == b"\n\r\n").map(|at| at + 3)]
                    .into_iter().flatten().min().unwrap_or(usize::MAX),
            );
            prop_assert_eq!(at_once.unwrap_or(bytes.len()), expected);
            let in_two = end(&bytes[..cut], 0).or_else(|| end(bytes, cut));
            prop_assert_eq!(in_two, at_once);
        }

        #[test]
        fn no_head_makes_it_panic(head in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = check(Kind::Request, &head);
            let _ = check(Kind::Response, &head);
        }
    }
}
