//! Answering from a head: conditions, then range, then bytes.

use std::mem::take;
use std::sync::Arc;

use crate::access_log::{Decision, Text};
use crate::cache::heads::Head;
use crate::cache::ssd::Seen;
use crate::delivery::error::DeliveryError;
use crate::delivery::feed::{Feed, Now};
use crate::delivery::growing::Extent;
use crate::delivery::reply::{Found, Reply, cache_status};
use crate::delivery::slice::{Slice, Span};
use crate::delivery::{Attempt, Resort, Transaction};
use crate::fill::error::FillError;
use crate::fill::run::Reader;
use crate::message::cache_status::{CacheStatus, Forwarded};
use crate::message::conditional::{self, Verdict};
use crate::message::multirange::{Multipart, Resolved};
use crate::message::range::{LAST_OF_ENDLESS, RangeRequest};
use crate::metrics::labels::Lookup;
use crate::object::ByteRange;

/// What several ranges of an object come to.
enum Several {
    One(ByteRange),
    Parts(Multipart),
    Whole,
}

impl Transaction<'_> {
    /// Answers from a stored head.
    pub(super) async fn answer(
        &mut self,
        head: Arc<Head>,
        found: Found,
    ) -> Result<Attempt, DeliveryError> {
        // Boxed: these are few, and most requests need no room for them.
        if let Some(rewriting) = self.asked.rewriting
            && let Some(reply) = Box::pin(self.reply_rewritten(rewriting, &head, found)).await?
        {
            return Ok(reply.into());
        }
        let attempt = self.answer_with(&head, found).await;
        match attempt {
            // What he found before its first byte was to be sent is not what it says.
            Ok(Attempt::Again | Attempt::Alone) if head.version.is_false() => {
                let end = head.version.length_bytes().unwrap_or_default();
                Err(DeliveryError::Fill(Arc::new(FillError::Digest { end })))
            }
            attempt => attempt,
        }
    }

    async fn answer_with(
        &mut self,
        head: &Arc<Head>,
        found: Found,
    ) -> Result<Attempt, DeliveryError> {
        self.viewer.tell_at_once(|| {
            let told = Decision::of("version", Text::Version(head.version.id));
            let length = head.version.length_bytes();
            length.into_iter().fold(told, |told, length| told.with("length", length as i64))
        });
        if let Some(reply) = self.reply_to_conditions(head, found)? {
            return Ok(reply.into());
        }
        let mut feed = self.feed(head);
        let growing = match (head.version.length_bytes(), &self.asked.ranges) {
            (None, None) => self.growing(head, &mut feed),
            _ => None,
        };
        // A run that ended before it could be followed has told the length by now.
        let length = head.version.length_bytes().filter(|_| growing.is_none());
        let (range, several) = match self.resolve_several(head, length)? {
            Some(Several::One(range)) => (Some(range), None),
            Some(Several::Parts(parts)) => (None, Some(parts)),
            Some(Several::Whole) => (None, None),
            None => (self.resolve(head, length)?, None),
        };
        if length == Some(0) {
            self.consider_empty(head, found);
            self.record.found(Lookup::Hit);
            let status = cache_status(head, found, self.viewer, None);
            return Ok(Reply::content(head, self.viewer, None, length, status).into());
        }
        let span = match (range, &several) {
            (Some(range), _) => Span::of(range),
            (None, Some(several)) => Span::of(several.parts[0].1),
            (None, None) => Span { position: 0, end: length },
        };
        let span = growing.unwrap_or(span);
        let joinable = head.version.validator.is_strong();
        if !head.version.is_resumable() {
            feed.bring_all(span).await.map_err(DeliveryError::Fill)?;
        }
        if !feed.secure(span) && !joinable && self.resort == Resort::Left {
            // Not all of it is there any more, and what is cannot be joined to what would come.
            self.shared.filler.forget(&self.asked.key, head.version.id);
            return Ok(Attempt::Again);
        }
        let first = match self.first(&mut feed, span).await {
            Ok(first) => first,
            Err(why) if matches!(*why, FillError::Changed) => {
                return Ok(match cannot_join(head) {
                    true => Attempt::Alone,
                    false => Attempt::Again,
                });
            }
            Err(why) => return Err(DeliveryError::Fill(why)),
        };
        let Extent { range, length, span } = match growing {
            Some(span) => self.grown(&feed, span, first.as_ref()).await?,
            None => Extent { range, length, span },
        };
        let status = cache_status(head, found, self.viewer, feed.collapsed);
        self.record.range = range;
        let reply = match several {
            None => Reply::content(head, self.viewer, range, length, status),
            Some(several) => Reply::parts(head, self.viewer, several, status),
        };
        Ok(reply.sending(feed, span, first).into())
    }

    /// What several ranges mean of an object; `None` if there are not several.
    ///
    /// # Errors
    /// `Unsatisfiable`: none of them has a byte.
    fn resolve_several(
        &self,
        head: &Head,
        length: Option<u64>,
    ) -> Result<Option<Several>, DeliveryError> {
        let Some(ranges) = &self.asked.ranges else { return Ok(None) };
        let fields = &self.viewer.parts.headers;
        let stored = &head.stored;
        // Parts that cannot be asked for one by one are no better than the whole.
        let can_be_parts = stored.status() == http::StatusCode::OK
            && head.version.is_resumable()
            && conditional::if_range_holds(fields, stored.validator());
        let Some(length_bytes) = length.filter(|length| can_be_parts && *length > 0) else {
            return Ok(Some(Several::Whole));
        };
        let unsatisfiable = |_| DeliveryError::Unsatisfiable { length_bytes: length };
        let resolved = ranges.resolve(length_bytes).map_err(unsatisfiable)?;
        Ok(Some(match resolved {
            Resolved::TooMany => Several::Whole,
            Resolved::Parts(parts) => match parts[..] {
                // RFC 9110 section 15.3.7.2: one part is no multipart.
                [range] => Several::One(range),
                _ => {
                    let boundary = format!("tidegate-{}", self.viewer.request_id);
                    Several::Parts(Multipart::of(stored, &parts, length_bytes, &boundary))
                }
            },
        }))
    }

    /// Nobody comes to the first byte of an object of no bytes: whoever finds it has seen it.
    fn consider_empty(&self, head: &Head, found: Found) {
        let ssd = &self.shared.ssd;
        let has_come = match found {
            Found::Stored => false,
            Found::Asked(forwarded) => forwarded.fwd_status.is_none(),
        };
        // What came for him, or for those he waited with, was considered then.
        if !has_come && ssd.is_in_use() {
            ssd.consider(&ssd.subject(&self.asked.key), &head.version, 0, Seen::Hit);
        }
    }

    /// Answers with a response that is for this viewer alone; its body lies at `span` of the
    /// object. `Alone` when it is a part of another version than the one he wants a part of.
    pub(super) async fn answer_alone(
        &mut self,
        head: &Arc<Head>,
        span: (u64, Option<u64>),
        reader: Option<Reader>,
        forwarded: Forwarded,
    ) -> Result<Attempt, DeliveryError> {
        self.record.found(Lookup::Uncacheable);
        let (first_byte, end) = span;
        if let Some(reply) = self.reply_to_conditions(head, Found::Asked(forwarded))? {
            return Ok(reply.into());
        }
        let status = CacheStatus::Fwd(forwarded);
        let length = head.version.length_bytes();
        let carries_all = first_byte == 0 && end == length;
        let fields = &self.viewer.parts.headers;
        let wanted = self.asked.range;
        let wanted =
            wanted.filter(|_| conditional::if_range_holds(fields, head.stored.validator()));
        if self.asked.range.is_some() && wanted.is_none() && !carries_all {
            return Ok(Attempt::Alone);
        }
        let is_part = wanted.is_some() && !carries_all;
        let range = match (wanted, length) {
            // It came as what streams on.
            (Some(_), None) if end.is_none() && first_byte > 0 => {
                ByteRange::new(first_byte, LAST_OF_ENDLESS + 1)
            }
            // Its end is known and the object's is not: it came as a part, and is passed as one.
            (Some(range), None) if end.is_some() => resolve_within(range, length, span)?,
            (Some(range), Some(_)) if is_part || head.stored.status() == http::StatusCode::OK => {
                resolve_within(range, length, span)?
            }
            _ => None,
        };
        let reply = Reply::content(head, self.viewer, range, length, status);
        let Some(reader) = reader else { return Ok(reply.into()) };
        let mut feed = self.feed(head).alone(reader);
        let span = match range {
            Some(range) if end.is_some() || length.is_some() => Span::of(range),
            _ => Span { position: first_byte, end },
        };
        let first = feed.next(span).await.map_err(DeliveryError::Fill)?;
        self.record.range = range;
        Ok(reply.sending(feed, span, first).into())
    }

    /// The answer to HEAD.
    pub(super) fn reply_without_body(
        &mut self,
        head: &Head,
        found: Found,
    ) -> Result<Reply, DeliveryError> {
        if let Some(reply) = self.reply_to_conditions(head, found)? {
            return Ok(reply);
        }
        let status = cache_status(head, found, self.viewer, None);
        Ok(Reply::content(head, self.viewer, None, head.version.length_bytes(), status))
    }

    /// The request's conditions, which only a 2xx is asked about (RFC 9110 section 13.2.1).
    pub(super) fn reply_to_conditions(
        &mut self,
        head: &Head,
        found: Found,
    ) -> Result<Option<Reply>, DeliveryError> {
        if !head.stored.status().is_success() {
            return Ok(None);
        }
        match conditional::evaluate(&self.viewer.parts.headers, head.stored.validator()) {
            Verdict::Proceed => Ok(None),
            Verdict::PreconditionFailed => Err(DeliveryError::PreconditionFailed),
            Verdict::NotModified => {
                self.record.found(Lookup::Hit);
                let status = cache_status(head, found, self.viewer, None);
                Ok(Some(Reply::not_modified(head, self.viewer, status)))
            }
        }
    }

    pub(super) fn feed(&mut self, head: &Head) -> Feed {
        let (site, key) = (self.asked.site.clone(), self.asked.key.clone());
        let (shared, viewer) = (self.shared.clone(), self.viewer.clone());
        let mut feed = Feed::new(shared, viewer, site, key, head.version.clone());
        feed.filled = take(&mut self.filled);
        feed
    }

    /// The first slice; tells the record where it was found, before waiting for it.
    pub(super) async fn first(
        &mut self,
        feed: &mut Feed,
        span: Span,
    ) -> Result<Option<Slice>, Arc<FillError>> {
        match feed.now(span) {
            Now::Slice(slice) => {
                self.record.found(found_with_first(feed, span));
                return Ok(Some(slice));
            }
            // Nothing was found for who is refused because others hold the memory.
            Now::NoMemory => {
                let slice = feed.next(span).await?;
                self.record.found(match feed.collapsed {
                    Some(collapsed) => held_in_part(collapsed),
                    None => found_with_first(feed, span),
                });
                return Ok(slice);
            }
            Now::NotThere => {
                let from_ssd = feed.bring_in_time(span).await?;
                if !from_ssd {
                    feed.join(span)?;
                }
                self.record.found(match feed.collapsed {
                    Some(collapsed) => held_in_part(collapsed),
                    None if from_ssd => Lookup::HitSsd,
                    None => Lookup::Hit,
                });
            }
        }
        feed.next(span).await
    }

    /// The range to answer with; `None` for the whole object.
    pub(super) fn resolve(
        &self,
        head: &Head,
        length: Option<u64>,
    ) -> Result<Option<ByteRange>, DeliveryError> {
        let whole_only = head.stored.status() != http::StatusCode::OK;
        let (Some(range), Some(length_bytes)) = (self.asked.range, length) else {
            return Ok(None);
        };
        let fields = &self.viewer.parts.headers;
        // The end of nothing is nothing, which no 206 can say; any other range of it is none (RFC
        // 9110 section 14.1.2).
        let is_end_of_nothing = length_bytes == 0 && range.is_satisfied_by_nothing();
        if is_end_of_nothing
            || whole_only
            || !conditional::if_range_holds(fields, head.stored.validator())
        {
            return Ok(None);
        }
        let unsatisfiable = DeliveryError::Unsatisfiable { length_bytes: length };
        range.resolve(length_bytes).map(Some).map_err(|_| unsatisfiable)
    }
}

impl From<Reply> for Attempt {
    fn from(reply: Reply) -> Attempt {
        Attempt::Answered(Box::new(reply))
    }
}

/// The viewer's range as far as a passed answer carries it.
fn resolve_within(
    range: RangeRequest,
    length: Option<u64>,
    carried: (u64, Option<u64>),
) -> Result<Option<ByteRange>, DeliveryError> {
    let unsatisfiable = || DeliveryError::Unsatisfiable { length_bytes: length };
    let Some(length_bytes) = length else {
        return part_of_unknown(range, carried).map_err(|()| unsatisfiable());
    };
    let range = range.resolve(length_bytes).map_err(|_| unsatisfiable())?;
    let end = carried.1.map_or(range.end(), |end| end.min(range.end()));
    ByteRange::new(range.start().max(carried.0), end).map(Some).ok_or_else(unsatisfiable)
}

/// What was found by who was given the first bytes at once.
fn found_with_first(feed: &mut Feed, span: Span) -> Lookup {
    match feed.is_held(span) {
        true => Lookup::Hit,
        false => held_in_part(feed.collapsed == Some(true)),
    }
}

/// What was found by who is brought the rest by a run: by another's where it is `collapsed`.
fn held_in_part(collapsed: bool) -> Lookup {
    if collapsed { Lookup::Collapsed } else { Lookup::Partial }
}

/// What a part of an object of unknown length has of the viewer's range.
fn part_of_unknown(
    range: RangeRequest,
    (first, end): (u64, Option<u64>),
) -> Result<Option<ByteRange>, ()> {
    let end = end.unwrap_or(u64::MAX);
    let part = match range {
        RangeRequest::FromTo { first: wanted, last } => {
            let last_end = last.map_or(u64::MAX, |last| last.saturating_add(1));
            ByteRange::new(wanted.max(first), end.min(last_end))
        }
        RangeRequest::Suffix { length } => {
            ByteRange::new(end.saturating_sub(length).max(first), end)
        }
    };
    part.map(Some).ok_or(())
}

/// Whether a passed answer carries all of the viewer's range: what was asked for may have been a
/// window.
pub(super) fn covers(
    range: Option<RangeRequest>,
    head: &Head,
    carried: (u64, Option<u64>),
) -> bool {
    let (first, Some(end)) = carried else { return true };
    let (range, length) = match (range, head.version.length_bytes()) {
        (Some(range), Some(length)) => (range, length),
        // Of an object whose end is not known: an open range may have been cut to a window.
        (Some(RangeRequest::FromTo { last: None | Some(LAST_OF_ENDLESS), .. }), None) => {
            return false;
        }
        _ => return true,
    };
    range.resolve(length).is_ok_and(|range| first <= range.start() && range.end() <= end)
        || (first, end) == (0, length)
}

/// Whether the missing part of a version cannot be asked for: then it is passed, uncached.
fn cannot_join(head: &Head) -> bool {
    !head.version.is_resumable() && !head.version.is_changed()
}
