//! A response on its way out: its head with `Cache-Status`, and what its body will be.

use std::borrow::Cow;
use std::cell::Cell;
use std::rc::Rc;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, LOCATION,
    RETRY_AFTER,
};
use http::response::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode, Version};

use crate::access_log::Outcome;
use crate::cache::heads::Head;
use crate::delivery::body::ViewerBody;
use crate::delivery::error::{After, DeliveryError};
use crate::delivery::feed::Feed;
use crate::delivery::record::Record;
use crate::delivery::slice::{Slice, Span};
use crate::delivery::viewer::Viewer;
use crate::door::Refused;
use crate::fill::error::FillError;
use crate::limits::WARNINGS_PER_SECOND_MAX;
use crate::message::cache_status::{CacheStatus, Forwarded, Fwd};
use crate::message::digest::CONTENT_DIGEST;
use crate::message::multirange::Multipart;
use crate::message::request::host_of;
use crate::message::response;
use crate::metrics::labels::Tier;
use crate::moment::unix_seconds;
use crate::object::ByteRange;

/// A head, and what follows it.
pub(super) struct Reply {
    head: Parts,
    status: CacheStatus,
    body: Option<(Feed, Span, Option<Slice>)>,
    /// In the place of what is held: from where on, and of which tier that came.
    made: Option<(Bytes, u64, Tier)>,
    parts: Option<Multipart>,
}

impl Reply {
    /// 200 or 206, or the stored status.
    pub(super) fn content(
        head: &Head,
        viewer: &Viewer,
        range: Option<ByteRange>,
        length: Option<u64>,
        status: CacheStatus,
    ) -> Reply {
        let age = head.freshness.age(viewer.time);
        let mut parts = response::content(&head.stored, range, length, age);
        if viewer.parts.method == http::Method::HEAD {
            // RFC 9530 appendix B.2: of no content.
            parts.headers.remove(CONTENT_DIGEST);
        }
        Reply { head: parts, status, body: None, made: None, parts: None }
    }

    /// 206 with several parts.
    pub(super) fn parts(
        head: &Head,
        viewer: &Viewer,
        parts: Multipart,
        status: CacheStatus,
    ) -> Reply {
        let reply = response::parts(&head.stored, &parts, head.freshness.age(viewer.time));
        Reply { head: reply, status, body: None, made: None, parts: Some(parts) }
    }

    /// 304.
    pub(super) fn not_modified(head: &Head, viewer: &Viewer, status: CacheStatus) -> Reply {
        let parts = response::not_modified(&head.stored, head.freshness.age(viewer.time));
        Reply { head: parts, status, body: None, made: None, parts: None }
    }

    /// With fields for this viewer alone.
    pub(super) fn saying(mut self, mut withheld: HeaderMap) -> Reply {
        if self.parts.is_some() {
            // Each part has a type of its own, if it is known.
            withheld.remove(CONTENT_TYPE);
        }
        if self.head.status != StatusCode::NOT_MODIFIED {
            self.head.headers.extend(withheld);
        }
        self
    }

    /// With the bytes of `span`.
    pub(super) fn sending(mut self, feed: Feed, span: Span, first: Option<Slice>) -> Reply {
        self.body = Some((feed, span, first));
        self
    }

    /// With bytes that were made of what is held.
    pub(super) fn saying_instead(mut self, made: Bytes, position: u64, tier: Tier) -> Reply {
        self.made = Some((made, position, tier));
        self
    }

    /// The response hyper sends; the record is written when its body ends.
    pub(super) fn with(mut self, mut record: Record) -> Response<ViewerBody> {
        self.status.append_to(&mut self.head.headers);
        record.cache = Some(self.status.to_header());
        record.answered(self.head.status);
        let is_head = record.is_head();
        let body = match (self.body, self.made) {
            _ if is_head => ViewerBody::empty(record),
            (_, Some((made, position, tier))) => ViewerBody::made(record, made, position, tier),
            (Some((feed, span, first)), None) => {
                let body = ViewerBody::object(record, feed, span, first);
                self.parts.into_iter().fold(body, ViewerBody::in_parts)
            }
            (None, None) => ViewerBody::empty(record),
        };
        Response::from_parts(self.head, body)
    }
}

/// How the head was found.
#[derive(Clone, Copy)]
pub(super) enum Found {
    /// Stored, and good for this request.
    Stored,
    /// By asking upstream.
    Asked(Forwarded),
}

/// What our member of `Cache-Status` says.
pub(super) fn cache_status(
    head: &Head,
    found: Found,
    viewer: &Viewer,
    collapsed: Option<bool>,
) -> CacheStatus {
    match (found, collapsed) {
        (Found::Asked(forwarded), _) => CacheStatus::Fwd(forwarded),
        (Found::Stored, None) => CacheStatus::Hit { ttl: head.freshness.ttl_seconds(viewer.time) },
        (Found::Stored, Some(collapsed)) => {
            CacheStatus::Fwd(Forwarded { collapsed, ..Fwd::Partial.into() })
        }
    }
}

/// The answer to a browser that asks what a page of another origin may ask for.
pub(super) fn preflight(fields: HeaderMap, mut record: Record) -> Response<ViewerBody> {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::NO_CONTENT;
    *response.headers_mut() = fields;
    record.answered(StatusCode::NO_CONTENT);
    response.map(|()| ViewerBody::empty(record))
}

/// The answer to OPTIONS that goes no further (RFC 9110 section 9.3.7).
pub(super) fn options(allow: HeaderValue, record: Record) -> Response<ViewerBody> {
    preflight(HeaderMap::from_iter([(ALLOW, allow)]), record)
}

/// The response to a request that is not answered with an object.
pub(super) fn refusal(
    error: &DeliveryError,
    viewer: &Rc<Viewer>,
    mut record: Record,
) -> Response<ViewerBody> {
    let verdict = error.verdict();
    let mut response = Response::new(());
    *response.status_mut() = verdict.status;
    let fields = response.headers_mut();
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    match error {
        DeliveryError::Unsatisfiable { length_bytes: Some(length) } => {
            fields.extend(response::unsatisfiable(*length).headers);
            fields.remove(CONTENT_LENGTH);
        }
        DeliveryError::OffRoute(to) => fields.extend(to.clone().map(|to| (LOCATION, to))),
        DeliveryError::Denied(refused) => {
            if let Refused::Answered(instead) = &**refused {
                instead.fields.iter().for_each(|(name, value)| {
                    fields.append(name, value.clone());
                });
            }
        }
        DeliveryError::Unsatisfiable { length_bytes: None } => {
            fields.remove(CONTENT_RANGE);
        }
        _ => {}
    }
    if let Some(after) = verdict.retry_after {
        let seconds = after.as_secs_f64().ceil().max(1.0) as u64;
        fields.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if verdict.connection == After::Close && viewer.parts.version <= Version::HTTP_11 {
        fields.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let text = match is_bare(verdict.status) {
        true => Bytes::new(),
        false => Bytes::from(format!("{}: {}\n", verdict.status.as_u16(), verdict.reason)),
    };
    fields.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    fields.insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
    record.refused(error.refused());
    record.answered(verdict.status);
    log(error, viewer);
    if viewer.parts.method == http::Method::HEAD || is_bare(verdict.status) {
        return response.map(|()| ViewerBody::empty(record));
    }
    record.outcome = Outcome::ClientLeft;
    response.map(|()| ViewerBody::text(record, text))
}

/// The response to a PURGE that was done.
pub(super) fn purged(mut record: Record) -> Response<ViewerBody> {
    let text = Bytes::from_static(b"200: purged\n");
    let mut response = Response::new(());
    let fields = response.headers_mut();
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    fields.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    fields.insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
    record.answered(StatusCode::OK);
    record.outcome = Outcome::ClientLeft;
    response.map(|()| ViewerBody::text(record, text))
}

/// The answer to an authority that asks whether a name is ours (RFC 8555 section 8.3).
pub(super) fn proof(text: Bytes, viewer: &Viewer, mut record: Record) -> Response<ViewerBody> {
    let mut response = Response::new(());
    let fields = response.headers_mut();
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    fields.insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
    record.host = host_of(&viewer.parts).map(Cow::into_owned).unwrap_or_default();
    record.answered(StatusCode::OK);
    if viewer.parts.method == http::Method::HEAD {
        return response.map(|()| ViewerBody::empty(record));
    }
    record.outcome = Outcome::ClientLeft;
    response.map(|()| ViewerBody::text(record, text))
}

/// Players ask past the end as a matter of course: a 416 says all it has to say in its head.
fn is_bare(status: StatusCode) -> bool {
    status == StatusCode::RANGE_NOT_SATISFIABLE
}

/// Logged by who must act: what the origin does is worth a look tomorrow, what viewers do is not.
fn log(error: &DeliveryError, viewer: &Viewer) {
    match error {
        DeliveryError::Fill(cause) | DeliveryError::Unconfirmed(cause) => {
            tell(cause, "not answered", !cause.is_told(), viewer);
        }
        other => tracing::debug!(request_id = %viewer.request_id, "refused: {other:?}"),
    }
}

/// The same of a body that could not be sent to its end.
pub(super) fn tell_cut_short(cause: &FillError, viewer: &Viewer) {
    tell(cause, "cut short", !cause.is_told() && cause.of_origin().is_some(), viewer);
}

fn tell(cause: &FillError, what: &str, is_worth_a_look: bool, viewer: &Viewer) {
    let id = viewer.request_id;
    if is_worth_a_look && may_warn(SystemTime::now()) {
        tracing::warn!(request_id = %id, "{what}: {cause}");
    } else {
        tracing::debug!(request_id = %id, "{what}: {cause}");
    }
}

/// Whether this worker has warned little in this second: an origin that answers wrongly fails every
/// request, and the metrics count them all.
fn may_warn(now: SystemTime) -> bool {
    let second = unix_seconds(now);
    WARNED.with(|warned| {
        let count = match warned.get() {
            (last, count) if last == second => count + 1,
            _ => 1,
        };
        warned.set((second, count));
        count <= WARNINGS_PER_SECOND_MAX
    })
}

thread_local! {
    /// The second of the last warning, and how many there were in it.
    static WARNED: Cell<(u64, u32)> = const { Cell::new((0, 0)) };
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_second_has_few_warnings() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let warned = |seconds| (0..100).filter(|_| may_warn(at(seconds))).count();
        assert_eq!([7, 7, 8].map(warned), [WARNINGS_PER_SECOND_MAX as usize, 0, 5]);
    }
}
