//! Where an answer's body lies in its object, if it can be believed at all.

use http::header::{CONTENT_LENGTH, CONTENT_RANGE};
use http::{HeaderValue, StatusCode};
use hyper::body::Body;

use crate::fill::client::Answer;
use crate::fill::error::FillError;
use crate::limits::OBJECT_BYTES_MAX;
use crate::message::range::{ContentRange, RangeRequest};
use crate::object::ByteRange;

/// Where an answer's body lies in the object.
pub(super) struct Placed {
    /// Its first byte.
    pub(super) first: u64,
    /// One past its last byte, if known.
    pub(super) end: Option<u64>,
    /// One past the last byte that was asked for and can come, which may be more than came.
    pub(super) asked_end: Option<u64>,
    /// The whole object's length, if known.
    pub(super) complete: Option<u64>,
}

/// No body comes with an answer to HEAD; the length it would have may be told.
pub(super) fn bodiless(answer: &Answer) -> Placed {
    let told = answer.fields.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    let complete = told.and_then(|length| length.parse().ok());
    Placed { first: 0, end: Some(0), asked_end: Some(0), complete }
}

/// Places the body, or finds that it is not what was asked for.
///
/// # Errors
/// `WrongRange`, with both.
pub(super) fn place(answer: &Answer, asked: Option<RangeRequest>) -> Result<Placed, FillError> {
    if answer.status != StatusCode::PARTIAL_CONTENT {
        let end = answer.body.size_hint().exact();
        if !is_countable(end) {
            let answered = format!("{end:?} bytes");
            return Err(FillError::WrongRange { asked: "an object".to_owned(), answered });
        }
        return Ok(Placed { first: 0, end, asked_end: end, complete: end });
    }
    let wrong = |asked: &str| FillError::WrongRange {
        asked: asked.to_owned(),
        answered: "a part (206)".to_owned(),
    };
    let mut asked_end = None;
    let answered = match asked {
        None => return Err(wrong("the whole object")),
        Some(RangeRequest::FromTo { first, last }) => {
            asked_end = last.and_then(|last| last.checked_add(1));
            believable(answer, first, asked_end)?
        }
        Some(RangeRequest::Suffix { .. }) => {
            let parsed = ContentRange::of_response(&answer.fields);
            let start = parsed.and_then(|parsed| parsed.range()).map(|range| range.start());
            let start = start.ok_or_else(|| wrong("a suffix"))?;
            let suffix = believable(answer, start, None)?;
            // A suffix ends where the object ends, if that is told.
            let reaches = suffix.complete() == suffix.range().map(ByteRange::end);
            if !reaches && suffix.complete().is_some() {
                return Err(wrong("a suffix"));
            }
            suffix
        }
    };
    let range = answered.range().ok_or_else(|| wrong("a range"))?;
    if answered.is_endless() {
        let (first, end) = (range.start(), None);
        return Ok(Placed { first, end, asked_end: end, complete: None });
    }
    let (complete, end) = (answered.complete(), range.end());
    let asked_end = asked_end.unwrap_or(end).min(complete.unwrap_or(end));
    Ok(Placed { first: range.start(), end: Some(end), asked_end: Some(asked_end), complete })
}

/// Whether an object may be so long, if that is known.
pub(super) fn is_countable(length: Option<u64>) -> bool {
    length.is_none_or(|length| length <= OBJECT_BYTES_MAX)
}

/// `Range` for the bytes from `start` to `end`, or to the end of the object.
pub(super) fn range_field(start: u64, end: Option<u64>) -> HeaderValue {
    let text = match end {
        Some(end) => format!("bytes={start}-{}", end - 1),
        None => format!("bytes={start}-"),
    };
    HeaderValue::try_from(text).expect("digits and a dash are a field value")
}

/// Checks a 206 against what was asked: it must start there, end there or sooner, and not
/// contradict itself.
///
/// # Errors
/// `WrongRange`, with both.
pub(super) fn believable(
    answer: &Answer,
    start: u64,
    end: Option<u64>,
) -> Result<ContentRange, FillError> {
    let field = answer.fields.get(CONTENT_RANGE);
    let wrong = || FillError::WrongRange {
        asked: String::from_utf8_lossy(range_field(start, end).as_bytes()).into_owned(),
        answered: match field {
            Some(field) => format!("206 with {:?}", String::from_utf8_lossy(field.as_bytes())),
            None => "206 without Content-Range".to_owned(),
        },
    };
    let answered = ContentRange::of_response(&answer.fields).ok_or_else(wrong)?;
    let range = answered.range().ok_or_else(wrong)?;
    let length = answer.body.size_hint().exact();
    let agrees = range.start() == start
        && end.is_none_or(|end| range.end() <= end)
        && is_countable(Some(range.end()))
        && is_countable(answered.complete())
        && length.is_none_or(|length| length == range.length_bytes())
        && answered.complete().is_none_or(|complete| range.end() <= complete);
    agrees.then_some(answered).ok_or_else(wrong)
}
