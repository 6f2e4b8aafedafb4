//! The syntax that header fields share: lists, decimals, dates (RFC 9110 section 5.6).
//!
//! Works on bytes, because a field value need not be text. Reading neither allocates nor panics.

use std::fmt::{self, Display, Write};
use std::time::SystemTime;

use http::{HeaderMap, HeaderName, HeaderValue};

/// The only value of a field that is no list; `None` when it is missing or repeated.
pub(super) fn sole<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    values.next().is_none().then_some(first)
}

/// The members of a list whose members hold no commas; empty ones are skipped (section 5.6.1.2).
pub(super) fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(trimmed).filter(|member| !member.is_empty())
}

/// `bytes` without spaces and tabs around them.
pub(super) fn trimmed(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// One or more digits; more than a `u64` holds is `u64::MAX`. `None` for anything else.
pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        Some(sum.saturating_mul(10).saturating_add(digit))
    })
}

/// An HTTP date in any of its three forms (section 5.6.7).
pub(super) fn date(value: &HeaderValue) -> Option<SystemTime> {
    httpdate::parse_http_date(value.to_str().ok()?).ok()
}

/// Short ASCII text as a field value: put together on the stack, allocated once.
pub(super) fn written(text: &impl Display) -> HeaderValue {
    let mut written = Text { bytes: [0; TEXT_BYTES_MAX], length: 0 };
    write!(written, "{text}").expect("what the edge writes is shorter than its bound");
    HeaderValue::from_bytes(&written.bytes[..written.length]).expect("it is plain ASCII")
}

/// The same of texts one after another, without formatting machinery: for what most answers have.
pub(super) fn joined<const N: usize>(texts: [&str; N]) -> HeaderValue {
    let mut joined = Text { bytes: [0; TEXT_BYTES_MAX], length: 0 };
    let all = texts.into_iter().try_for_each(|text| joined.write_str(text));
    all.expect("what the edge writes is shorter than its bound");
    HeaderValue::from_bytes(&joined.bytes[..joined.length]).expect("it is plain ASCII")
}

struct Text {
    bytes: [u8; TEXT_BYTES_MAX],
    length: usize,
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.length + text.len();
        self.bytes.get_mut(self.length..end).ok_or(fmt::Error)?.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

/// More than the longest `Cache-Status` member, `Content-Range` or date.
const TEXT_BYTES_MAX: usize = 160;

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn decimals_saturate_and_are_digits_only() {
        for (digits, value) in [
            ("0", Some(0)),
            ("007", Some(7)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", Some(u64::MAX)),
            ("99999999999999999999999999999999999999999", Some(u64::MAX)),
            ("", None),
            ("-1", None),
            ("+1", None),
            ("1.0", None),
            ("1e3", None),
            (" 1", None),
            ("0x10", None),
            ("99999999999999999999999x", None),
        ] {
            assert_eq!(decimal(digits.as_bytes()), value, "{digits:?}");
        }
        assert_eq!(decimal("٣".as_bytes()), None);
    }

    #[test]
    fn empty_members_of_a_list_are_skipped() {
        let list = |value: &'static str| members(value.as_bytes()).collect::<Vec<_>>();
        assert_eq!(list(" a ,, b\t,"), [b"a", b"b"]);
        assert!(list("").is_empty());
        assert!(list(" , ,\t").is_empty());
    }

    #[test]
    fn dates_have_three_forms_and_no_others() {
        let then = Some(UNIX_EPOCH + Duration::from_secs(784_111_777));
        for (text, time) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", then),
            ("Sunday, 06-Nov-94 08:49:37 GMT", then),
            ("Sun Nov  6 08:49:37 1994", then),
            ("0", None),
            ("", None),
            ("784111777", None),
            ("Sun, 06 Nov 1994 08:49:37 UTC", None),
            ("Mon, 06 Nov 1994 08:49:37 GMT", None),
            ("Sun, 31 Feb 1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 25:49:37 GMT", None),
            ("Thu, 01 Jan 1969 00:00:00 GMT", None),
        ] {
            assert_eq!(date(&HeaderValue::from_static(text)), time, "{text:?}");
        }
    }

    #[test]
    fn a_repeated_field_has_no_sole_value() {
        let name = http::header::RANGE;
        let mut headers = HeaderMap::new();
        assert_eq!(sole(&headers, &name), None);
        headers.append(&name, HeaderValue::from_static("a"));
        assert!(sole(&headers, &name).is_some());
        headers.append(&name, HeaderValue::from_static("a"));
        assert_eq!(sole(&headers, &name), None);
    }
}
