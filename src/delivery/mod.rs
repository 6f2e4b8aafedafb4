//! The life of a request: the whole path on one screen, in [`Delivery::deliver`].
//!
//! One `Delivery` per worker thread; what the workers share is behind it. Nothing here waits for
//! control, blocks
//! the thread or chooses a status (`error.rs` does). Every request leaves a record, however it
//! ends.

mod body;
pub mod error;
mod feed;
mod record;
mod reply;

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::request::Parts;
use http::{Request, Response};
use hyper::body::{Body, Incoming};

use crate::access_log::{AccessLog, REQUEST_ID_FIELD, RequestId};
use crate::cache::heads::{Head, Heads, Known};
use crate::cache::ram::Ram;
use crate::delivery::body::ViewerBody;
use crate::delivery::error::DeliveryError;
use crate::delivery::feed::{Feed, Now, Slice, Span};
use crate::delivery::record::{Record, Viewer};
use crate::delivery::reply::Reply;
use crate::fill::client::Ask;
use crate::fill::error::FillError;
use crate::fill::run::Reader;
use crate::fill::{Filler, Opened, Place, Wanted};
use crate::memory::Governor;
use crate::message::cache_status::{CacheStatus, Forwarded, Fwd};
use crate::message::conditional::{self, Verdict};
use crate::message::range::RangeRequest;
use crate::message::request::{Method, ObjectRequest};
use crate::message::response;
use crate::metrics::Counters;
use crate::metrics::labels::Lookup;
use crate::object::{BlockSize, ByteRange, ObjectKey};
use crate::server::{ConnectionFacts, Handler};
use crate::site::{Site, Sites};

/// What every worker delivers from.
pub struct Shared {
    /// Whose content.
    pub sites: Arc<Sites>,
    /// What is known of objects.
    pub heads: Arc<Heads>,
    /// Pieces held.
    pub ram: Arc<Ram>,
    /// Who brings the rest.
    pub filler: Arc<Filler>,
    /// Every slice is reserved here.
    pub governor: Arc<Governor>,
    /// The size of a block.
    pub block_size: BlockSize,
    /// How long a viewer waits for bytes.
    pub patience: Duration,
    /// One line per request.
    pub log: AccessLog,
    /// What this worker counts.
    pub counters: Arc<Counters>,
}

/// Answers the requests of one worker.
pub struct Delivery {
    shared: Rc<Shared>,
}

impl Delivery {
    /// Delivers from what is shared.
    pub fn new(shared: Shared) -> Delivery {
        Delivery { shared: Rc::new(shared) }
    }
}

impl Handler for Delivery {
    type Body = ViewerBody;

    async fn handle(
        &self,
        request: Request<Incoming>,
        connection: &Rc<ConnectionFacts>,
    ) -> Response<ViewerBody> {
        let (parts, body) = request.into_parts();
        let viewer = Rc::new(Viewer {
            parts,
            connection: connection.clone(),
            request_id: RequestId::assign(),
            time: wall_clock(),
        });
        let shared = &self.shared;
        let (log, counters) = (shared.log.clone(), shared.counters.clone());
        let mut record = Record::new(viewer.clone(), log, counters, Instant::now());
        match self.deliver(&viewer, body, &mut record).await {
            Ok(reply) => reply.with(record),
            Err(error) => reply::refusal(&error, &viewer, record),
        }
    }
}

/// An object a viewer asks for.
struct Asked {
    site: Arc<Site>,
    key: ObjectKey,
    path: String,
    method: Method,
    range: Option<RangeRequest>,
    has_authorization: bool,
}

/// How the head was found.
#[derive(Clone, Copy)]
enum Found {
    /// Stored and fresh.
    Fresh,
    /// By asking upstream.
    Asked(Forwarded),
}

impl Delivery {
    /// Serves one request: refuse early, find the head, answer with its bytes.
    async fn deliver(
        &self,
        viewer: &Rc<Viewer>,
        body: Incoming,
        record: &mut Record,
    ) -> Result<Reply, DeliveryError> {
        let asked = self.read(&viewer.parts, &body, record)?;
        if asked.method == Method::Head {
            return self.head_only(viewer, &asked, record).await;
        }
        let mut error = FillError::Changed;
        // A version that changes under the first byte is asked for again, a few times.
        for _ in 0..VERSIONS_TRIED_MAX {
            let known = self.shared.heads.find(&asked.key, &viewer.parts.headers, Instant::now());
            let reply = match known {
                Known::Variant(head) if head.freshness.is_fresh(viewer.time) => {
                    self.answer(viewer, &asked, head, Found::Fresh, record).await
                }
                Known::Variant(stale) => self.open(viewer, &asked, Some(stale), record).await,
                Known::Nothing => self.open(viewer, &asked, None, record).await,
                Known::Uncacheable => self.pass(viewer, &asked, record).await,
            };
            match reply {
                Err(DeliveryError::Fill(why)) if matches!(*why, FillError::Changed) => {
                    error = FillError::Changed;
                }
                reply => return reply,
            }
        }
        Err(DeliveryError::Fill(Arc::new(error)))
    }

    /// The request's head -> the object it asks for.
    fn read(
        &self,
        parts: &Parts,
        body: &Incoming,
        record: &mut Record,
    ) -> Result<Asked, DeliveryError> {
        let request = ObjectRequest::parse(parts).map_err(DeliveryError::Request)?;
        record.host = request.host.to_string();
        if !body.is_end_stream() {
            return Err(DeliveryError::BodyRefused);
        }
        let site = self.shared.sites.find(&request.host).ok_or(DeliveryError::UnknownHost)?;
        let rule = site.rule_for(&request.path);
        let key = ObjectKey::new(site.id, &request.target(&rule.query));
        record.site = Some(site.clone());
        record.key = Some(key.clone());
        Ok(Asked {
            site: site.clone(),
            key,
            path: request.path.to_string(),
            method: request.method,
            range: request.range,
            has_authorization: request.has_authorization,
        })
    }

    /// Asks upstream what the object is, together with whoever asks at the same time.
    async fn open(
        &self,
        viewer: &Rc<Viewer>,
        asked: &Asked,
        stale: Option<Arc<Head>>,
        record: &mut Record,
    ) -> Result<Reply, DeliveryError> {
        let reason = if stale.is_some() { Fwd::Stale } else { Fwd::UriMiss };
        let wanted = self.wanted(viewer, asked, stale);
        let (opened, place) = self.shared.filler.open(wanted).await;
        self.opened(viewer, asked, &opened, place, reason, record).await
    }

    /// Asks upstream for this viewer alone.
    async fn pass(
        &self,
        viewer: &Rc<Viewer>,
        asked: &Asked,
        record: &mut Record,
    ) -> Result<Reply, DeliveryError> {
        let wanted = self.wanted(viewer, asked, None);
        let (opened, place) = self.shared.filler.open_alone(wanted).await;
        self.opened(viewer, asked, &opened, place, Fwd::Miss, record).await
    }

    async fn opened(
        &self,
        viewer: &Rc<Viewer>,
        asked: &Asked,
        opened: &Arc<Opened>,
        place: Place,
        reason: Fwd,
        record: &mut Record,
    ) -> Result<Reply, DeliveryError> {
        let collapsed = place == Place::Behind;
        // `pass` asks for this viewer alone: what comes then is all there will be.
        let was_alone = reason == Fwd::Miss;
        if !collapsed {
            record.origin_requests.set(record.origin_requests.get() + 1);
        }
        let forwarded = Forwarded { collapsed, ..Forwarded::from(reason) };
        match &**opened {
            Opened::Stored { head, .. } if head.is_selected_by(&viewer.parts.headers) => {
                record.found(if collapsed { Lookup::Collapsed } else { Lookup::Miss });
                let ttl = Some(head.freshness.ttl_seconds(viewer.time));
                let found = Found::Asked(Forwarded { stored: !collapsed, ttl, ..forwarded });
                self.answer(viewer, asked, head.clone(), found, record).await
            }
            Opened::Confirmed { head } if head.is_selected_by(&viewer.parts.headers) => {
                record.found(Lookup::Revalidated);
                let fwd_status = Some(http::StatusCode::NOT_MODIFIED);
                let ttl = Some(head.freshness.ttl_seconds(viewer.time));
                let found = Found::Asked(Forwarded { fwd_status, ttl, ..forwarded });
                self.answer(viewer, asked, head.clone(), found, record).await
            }
            Opened::Private { head, span, body }
                if place == Place::First && (was_alone || covers(asked.range, head, *span)) =>
            {
                record.found(Lookup::Uncacheable);
                let reader = body.lock().ok().and_then(|mut body| body.take());
                let forwarded = Found::Asked(forwarded);
                self.answer_alone(viewer, asked, head, *span, reader, forwarded, record).await
            }
            Opened::Unsatisfiable { length_bytes } if place == Place::First => {
                Err(DeliveryError::Unsatisfiable { length_bytes: *length_bytes })
            }
            Opened::Failed(error) => Err(DeliveryError::Fill(error.clone())),
            _ if was_alone => {
                let reason = "it answers another request".to_owned();
                Err(DeliveryError::Fill(Arc::new(FillError::Unusable { reason })))
            }
            // It was somebody else's answer, or another variant: he asks for himself, behind
            // nobody.
            _ => Box::pin(self.pass(viewer, asked, record)).await,
        }
    }

    /// Answers from a stored head: conditions, then range, then bytes.
    async fn answer(
        &self,
        viewer: &Rc<Viewer>,
        asked: &Asked,
        head: Arc<Head>,
        found: Found,
        record: &mut Record,
    ) -> Result<Reply, DeliveryError> {
        let fields = &viewer.parts.headers;
        match preconditions(fields, &head) {
            Verdict::PreconditionFailed => return Err(DeliveryError::PreconditionFailed),
            Verdict::NotModified => {
                record.found(Lookup::Hit);
                let status = cache_status(&head, found, viewer, None);
                return Ok(Reply::not_modified(&head, viewer, status));
            }
            Verdict::Proceed => {}
        }
        let length = head.version.length_bytes();
        let range = self.resolve(asked, fields, &head, length)?;
        if length == Some(0) {
            record.found(Lookup::Hit);
            let status = cache_status(&head, found, viewer, None);
            return Ok(Reply::content(&head, viewer, None, length, status));
        }
        let span = match range {
            Some(range) => Span { position: range.start(), end: Some(range.end()) },
            None => Span { position: 0, end: length },
        };
        let site = asked.site.clone();
        let mut feed = Feed::new(
            self.shared.clone(),
            viewer.clone(),
            site,
            asked.key.clone(),
            head.version.clone(),
        );
        let first = match self.first(&mut feed, span, record).await {
            Err(why) if cannot_join(&why, &head) => {
                return Box::pin(self.pass(viewer, asked, record)).await;
            }
            first => first.map_err(DeliveryError::Fill)?,
        };
        record.origin_requests.set(record.origin_requests.get() + feed.runs_started);
        let status = cache_status(&head, found, viewer, feed.collapsed);
        record.range = range;
        let reply = Reply::content(&head, viewer, range, length, status);
        Ok(reply.sending(feed, span, first))
    }

    /// The first slice; tells the record where it was found, before waiting for it.
    async fn first(
        &self,
        feed: &mut Feed,
        span: Span,
        record: &mut Record,
    ) -> Result<Option<Slice>, Arc<FillError>> {
        match feed.now(span) {
            Now::Slice(slice) => {
                record.found(Lookup::Hit);
                return Ok(Some(slice));
            }
            Now::NoMemory => record.found(Lookup::Hit),
            Now::NotThere => {
                feed.join(span)?;
                record.found(match feed.collapsed {
                    Some(true) => Lookup::Collapsed,
                    _ => Lookup::Partial,
                });
            }
        }
        feed.next(span).await
    }

    /// The range to answer with; `None` for the whole object.
    fn resolve(
        &self,
        asked: &Asked,
        fields: &http::HeaderMap,
        head: &Head,
        length: Option<u64>,
    ) -> Result<Option<ByteRange>, DeliveryError> {
        let whole_only = head.stored.status() != http::StatusCode::OK;
        let (Some(range), Some(length_bytes)) = (asked.range, length) else { return Ok(None) };
        // Of nothing there is no range: it is ignored, as RFC 9110 section 14.2 allows.
        if length_bytes == 0
            || whole_only
            || !conditional::if_range_holds(fields, head.stored.validator())
        {
            return Ok(None);
        }
        let unsatisfiable = DeliveryError::Unsatisfiable { length_bytes: length };
        range.resolve(length_bytes).map(Some).map_err(|_| unsatisfiable)
    }

    /// Answers with a response that is for this viewer alone.
    #[allow(clippy::too_many_arguments)]
    async fn answer_alone(
        &self,
        viewer: &Rc<Viewer>,
        asked: &Asked,
        head: &Arc<Head>,
        span: (u64, Option<u64>),
        reader: Option<Reader>,
        found: Found,
        record: &mut Record,
    ) -> Result<Reply, DeliveryError> {
        let (first_byte, end) = span;
        let status = cache_status(head, found, viewer, None);
        let length = head.version.length_bytes();
        let is_part = asked.range.is_some() && !(first_byte == 0 && end == length);
        let range = match (asked.range, length) {
            // Its end is known and the object's is not: it came as a part, and is passed as one.
            (Some(range), None) if end.is_some() => self.resolve_within(range, length, span)?,
            (Some(range), Some(_)) if is_part || head.stored.status() == http::StatusCode::OK => {
                self.resolve_within(range, length, span)?
            }
            _ => None,
        };
        let reply = Reply::content(head, viewer, range, length, status);
        let Some(reader) = reader else { return Ok(reply) };
        let site = asked.site.clone();
        let (key, version) = (asked.key.clone(), head.version.clone());
        let mut feed =
            Feed::new(self.shared.clone(), viewer.clone(), site, key, version).alone(reader);
        let span = match range {
            Some(range) => Span { position: range.start(), end: Some(range.end()) },
            None => Span { position: first_byte, end },
        };
        let first = feed.next(span).await.map_err(DeliveryError::Fill)?;
        record.range = range;
        Ok(reply.sending(feed, span, first))
    }

    /// The viewer's range as far as a passed answer carries it.
    fn resolve_within(
        &self,
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

    /// HEAD: from what is known and fresh, else asked upstream and passed on.
    async fn head_only(
        &self,
        viewer: &Rc<Viewer>,
        asked: &Asked,
        record: &mut Record,
    ) -> Result<Reply, DeliveryError> {
        let fields = &viewer.parts.headers;
        let known = self.shared.heads.find(&asked.key, fields, Instant::now());
        let (head, found) = match known {
            Known::Variant(head) if head.freshness.is_fresh(viewer.time) => (head, Found::Fresh),
            known => {
                let stale = match known {
                    Known::Variant(stale) => Some(stale),
                    Known::Nothing | Known::Uncacheable => None,
                };
                let reason = if stale.is_some() { Fwd::Stale } else { Fwd::UriMiss };
                let mut wanted = self.wanted(viewer, asked, stale);
                wanted.ask.method = http::Method::HEAD;
                record.origin_requests.set(1);
                let (opened, _) = self.shared.filler.open_alone(wanted).await;
                match &*opened {
                    Opened::Stored { head, .. }
                    | Opened::Confirmed { head }
                    | Opened::Private { head, .. } => (head.clone(), Found::Asked(reason.into())),
                    Opened::Unsatisfiable { length_bytes } => {
                        let length_bytes = *length_bytes;
                        return Err(DeliveryError::Unsatisfiable { length_bytes });
                    }
                    Opened::Failed(error) => return Err(DeliveryError::Fill(error.clone())),
                }
            }
        };
        record.found(if matches!(found, Found::Fresh) { Lookup::Hit } else { Lookup::Miss });
        let status = cache_status(&head, found, viewer, None);
        match preconditions(fields, &head) {
            Verdict::PreconditionFailed => Err(DeliveryError::PreconditionFailed),
            Verdict::NotModified => Ok(Reply::not_modified(&head, viewer, status)),
            Verdict::Proceed => {
                Ok(Reply::content(&head, viewer, None, head.version.length_bytes(), status))
            }
        }
    }

    fn wanted(&self, viewer: &Viewer, asked: &Asked, stale: Option<Arc<Head>>) -> Wanted {
        Wanted {
            key: asked.key.clone(),
            site: asked.site.clone(),
            path: asked.path.clone(),
            ask: self.shared.ask(viewer, &asked.site, &asked.key),
            viewer_fields: viewer.parts.headers.clone(),
            range: asked.range,
            window_bytes: self.shared.filler.window_bytes,
            stale,
            has_authorization: asked.has_authorization,
        }
    }
}

impl Shared {
    /// The request upstream for what a viewer asks: his fields end to end, edited by the rule.
    fn ask(&self, viewer: &Viewer, site: &Arc<Site>, key: &ObjectKey) -> Ask {
        let path = key.target().split('?').next().unwrap_or("/");
        let mut fields = response::forwarded_request_fields(&viewer.parts.headers);
        site.rule_for(path).request.apply_to(&mut fields);
        fields.insert(REQUEST_ID_FIELD, viewer.request_id.to_header_value());
        Ask {
            site: site.clone(),
            method: http::Method::GET,
            target: Arc::from(key.target()),
            fields,
            conditions: Vec::new(),
        }
    }
}

/// What our member of `Cache-Status` says.
fn cache_status(
    head: &Head,
    found: Found,
    viewer: &Viewer,
    collapsed: Option<bool>,
) -> CacheStatus {
    match (found, collapsed) {
        (Found::Asked(forwarded), _) => CacheStatus::Fwd(forwarded),
        (Found::Fresh, None) => CacheStatus::Hit { ttl: head.freshness.ttl_seconds(viewer.time) },
        (Found::Fresh, Some(collapsed)) => {
            CacheStatus::Fwd(Forwarded { collapsed, ..Fwd::Partial.into() })
        }
    }
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
fn covers(range: Option<RangeRequest>, head: &Head, carried: (u64, Option<u64>)) -> bool {
    let (first, Some(end)) = carried else { return true };
    let (range, length) = match (range, head.version.length_bytes()) {
        (Some(range), Some(length)) => (range, length),
        // Of an object whose end is not known: an open range may have been cut to a window.
        (Some(RangeRequest::FromTo { last: None, .. }), None) => return false,
        _ => return true,
    };
    range.resolve(length).is_ok_and(|range| first <= range.start() && range.end() <= end)
        || (first, end) == (0, length)
}

/// The request's conditions, which only a 2xx is asked about (RFC 9110 section 13.2.1).
fn preconditions(fields: &http::HeaderMap, head: &Head) -> Verdict {
    match head.stored.status().is_success() {
        true => conditional::evaluate(fields, head.stored.validator()),
        false => Verdict::Proceed,
    }
}

/// Whether the missing part of a version cannot be asked for: then it is passed, uncached.
fn cannot_join(why: &FillError, head: &Head) -> bool {
    let version = &head.version;
    matches!(why, FillError::Changed) && !version.is_resumable() && !version.is_changed()
}

/// How often a version may change under a viewer's first byte.
const VERSIONS_TRIED_MAX: u32 = 3;

#[allow(clippy::disallowed_methods)]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}
