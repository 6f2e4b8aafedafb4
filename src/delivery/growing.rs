//! Parts of an object that is still being written, whose end nobody knows (RFC 8673).
//!
//! What is there of a range is sent at once, and labelled without a length of the whole. A range
//! that says no end, or the one that stands for none, streams on until there is one. Who wants a
//! little more than is there waits a moment for it; else he gets what is there, which any answer to
//! a range may be. Only where a run is on its way by: an origin that was asked for a part that it
//! does not have yet would say that there is none.

use std::time::Duration;

use tokio::time::timeout;

use crate::cache::heads::Head;
use crate::delivery::Transaction;
use crate::delivery::error::DeliveryError;
use crate::delivery::feed::Feed;
use crate::delivery::slice::{Slice, Span};
use crate::fill::run::Landed;
use crate::message::conditional;
use crate::message::range::{LAST_OF_ENDLESS, RangeRequest};
use crate::object::ByteRange;

/// What of an object is answered, and of how many bytes it is.
pub(super) struct Extent {
    /// `None`: all of it.
    pub(super) range: Option<ByteRange>,
    pub(super) length: Option<u64>,
    pub(super) span: Span,
}

impl Transaction<'_> {
    /// The part that he wants, if a run brings it; without an end if it streams on.
    pub(super) fn growing(&self, head: &Head, feed: &mut Feed) -> Option<Span> {
        let fields = &self.viewer.parts.headers;
        let is_part = head.stored.status() == http::StatusCode::OK
            && conditional::if_range_holds(fields, head.stored.validator());
        let span = match self.asked.range.filter(|_| is_part)? {
            RangeRequest::FromTo { first: 0, last: None } => return None,
            RangeRequest::FromTo { first, last: None | Some(LAST_OF_ENDLESS) } => {
                Span { position: first, end: None }
            }
            RangeRequest::FromTo { first, last: Some(last) } => {
                Span { position: first, end: Some(last.saturating_add(1)) }
            }
            RangeRequest::Suffix { .. } => return None,
        };
        feed.follow(span.position).then_some(span)
    }

    /// What there is of it, now that its first bytes are here.
    ///
    /// # Errors
    /// `Unsatisfiable`: the object ended before them.
    pub(super) async fn grown(
        &self,
        feed: &Feed,
        span: Span,
        first: Option<&Slice>,
    ) -> Result<Extent, DeliveryError> {
        let start = span.position;
        let version = &feed.version;
        let unsatisfiable =
            || DeliveryError::Unsatisfiable { length_bytes: version.length_bytes() };
        let there = start + first.ok_or_else(unsatisfiable)?.bytes.len() as u64;
        let written = match span.end {
            Some(end) => feed.written(Span { position: start, end: Some(end) }, there).await,
            None => there,
        };
        let length = version.length_bytes();
        let end = match (length, span.end) {
            (Some(length), end) => length.min(end.unwrap_or(length)),
            (None, Some(end)) if written < end && start == 0 => {
                return Ok(Extent { range: None, length, span: Span { position: 0, end: None } });
            }
            (None, Some(end)) => written.min(end),
            (None, None) => LAST_OF_ENDLESS + 1,
        };
        let range = ByteRange::new(start, end).ok_or_else(unsatisfiable)?;
        let streams_on = length.is_none() && span.end.is_none();
        let span = if streams_on { span } else { Span::of(range) };
        Ok(Extent { range: Some(range), length, span })
    }
}

impl Feed {
    /// Up to where `span` has been written, at least `there`: waits a moment for its end.
    async fn written(&self, span: Span, there: u64) -> u64 {
        let end = span.end.unwrap_or(there);
        let (runs, window_bytes) = (&self.shared.filler.runs, self.shared.filler.window_bytes);
        if end <= there {
            return end;
        }
        let Some((reader, at)) = runs.follow(self.version.id, end - 1) else { return there };
        // No run goes further ahead of its readers.
        if at == end - 1 && end - span.position <= window_bytes {
            match timeout(WRITTEN_WITHIN, reader.read(at)).await {
                Ok(Landed::Bytes(_) | Landed::Passed) => return end,
                Ok(Landed::End | Landed::Elsewhere | Landed::Failed(_)) | Err(_) => {}
            }
        }
        reader.run().standing().written.clamp(there, end)
    }
}

/// A part of live content is made in less.
const WRITTEN_WITHIN: Duration = Duration::from_secs(2);
