//! The life of a request: the whole path on one screen, in `Delivery::deliver`.
//!
//! One `Delivery` per worker thread; what the workers share is behind it. Nothing here waits for
//! control, blocks the thread or chooses a status (`error.rs` does). Every request leaves a
//! record, however it ends.

mod admit;
mod answer;
mod beside;
mod body;
mod door;
pub mod error;
mod feed;
mod foresee;
mod forward;
mod growing;
mod held;
mod kept;
mod player;
pub(crate) mod purged;
mod record;
mod reply;
mod rewritten;
pub mod routed;
mod slice;
mod steered;
pub(crate) mod stored;
mod upstream;
mod viewer;

use std::cell::RefCell;
use std::mem::take;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption, Cache};
use http::header::HeaderValue;
use http::request::Parts;
use http::{HeaderMap, Request, Response};
use hyper::body::{Body, Incoming};

use crate::access_log::{AccessLog, Decision, Text};
use crate::acme::Challenges;
use crate::cache::heads::{Heads, Known};
use crate::cache::ram::Ram;
use crate::cache::ssd::Ssd;
use crate::delivery::beside::Beside;
use crate::delivery::body::ViewerBody;
use crate::delivery::door::Named;
use crate::delivery::error::DeliveryError;
use crate::delivery::forward::Passed;
use crate::delivery::record::Record;
use crate::delivery::reply::{Found, Reply};
use crate::delivery::rewritten::Rewriting;
use crate::delivery::routed::Better;
pub use crate::delivery::steered::{Manifest, Rewriter, Steering};
use crate::delivery::viewer::Viewer;
use crate::door::{CurrentDoors, Doors};
use crate::fill::Filler;
use crate::geo::Geo;
use crate::memory::Governor;
use crate::message::cache_status::Fwd;
use crate::message::forwarded::Forwarders;
use crate::message::multirange::RangeSet;
use crate::message::range::RangeRequest;
use crate::message::request::{Method, ObjectRequest, host_of};
use crate::message::reuse::{RequestControl, Reuse};
use crate::message::target::normalised_path;
use crate::metrics::Counters;
use crate::object::{BlockSize, ObjectKey};
use crate::overload::Gate;
use crate::purge::Tokens;
use crate::server::{ConnectionFacts, Handler, ServerSettings, leave};
use crate::site::{CurrentSites, Foresight, RequestCacheControl, Site};

/// What every worker delivers from.
pub struct Shared {
    /// Whose content.
    pub sites: Arc<CurrentSites>,
    /// What is known of objects.
    pub heads: Arc<Heads>,
    /// Pieces held.
    pub ram: Arc<Ram>,
    /// Pieces kept.
    pub ssd: Arc<Ssd>,
    /// Who brings the rest.
    pub filler: Arc<Filler>,
    /// Who bears it may purge.
    pub token: Arc<ArcSwapOption<Tokens>>,
    /// Who is let in where tokens are asked for.
    pub doors: Arc<CurrentDoors>,
    /// How viewers who come by steering are served.
    pub steering: Arc<Steering>,
    /// Where viewers are, where that decides whether they come in.
    pub places: Arc<ArcSwap<Geo>>,
    /// Where those are better served whom routes have for other boxes.
    pub better: Arc<Better>,
    /// Who is believed when he says for whom he asks.
    pub forwarders: Arc<ArcSwap<Forwarders>>,
    /// What an authority is answered that asks whether a name is ours.
    pub challenges: Arc<Challenges>,
    /// Who is let in.
    pub gate: Arc<Gate>,
    /// Every slice is reserved here.
    pub governor: Arc<Governor>,
    /// The size of a block.
    pub block_size: BlockSize,
    /// How long a viewer waits for bytes.
    pub patience: Duration,
    /// The limits in time: how slowly a body may come.
    pub limits: Arc<ArcSwap<ServerSettings>>,
    /// One line per request.
    pub log: AccessLog,
    /// What this worker counts.
    pub counters: Arc<Counters>,
}

/// Answers the requests of one worker.
pub struct Delivery {
    shared: Rc<Shared>,
    /// Looked at for each request, and seldom others.
    forwarders: RefCell<Cache<Arc<ArcSwap<Forwarders>>, Arc<Forwarders>>>,
    /// Likewise.
    doors: RefCell<Cache<Arc<CurrentDoors>, Arc<Doors>>>,
    places: RefCell<Cache<Arc<ArcSwap<Geo>>, Arc<Geo>>>,
}

impl Delivery {
    /// Delivers from what is shared.
    pub fn new(shared: Shared) -> Delivery {
        let forwarders = RefCell::new(Cache::new(shared.forwarders.clone()));
        let doors = RefCell::new(Cache::new(shared.doors.clone()));
        let places = RefCell::new(Cache::new(shared.places.clone()));
        Delivery { shared: Rc::new(shared), forwarders, doors, places }
    }
}

impl Handler for Delivery {
    type Body = ViewerBody;

    async fn handle(
        &self,
        request: Request<Incoming>,
        connection: &Rc<ConnectionFacts>,
    ) -> Response<ViewerBody> {
        let (begun, shared) = (Instant::now(), &self.shared);
        let (mut parts, body) = request.into_parts();
        let showing = self.shown(&mut parts);
        let client = self.client(connection, &parts);
        let tracing = shared.log.trace(begun, &shared.governor);
        let viewer = Rc::new(Viewer::new(parts, (connection, client), showing, tracing));
        let (log, counters) = (shared.log.clone(), shared.counters.clone());
        let mut record = Record::new(viewer.clone(), log, counters, begun);
        record.told();
        if let Some(proof) = self.proof(&viewer) {
            return reply::proof(proof, &viewer, record);
        }
        let answered = match (self.admit(&viewer, begun), &viewer.parts.method) {
            (Err(refusal), _) => {
                self.refused(&viewer, &mut record);
                leave(body, viewer.parts.version);
                Err(refusal)
            }
            (Ok(()), &http::Method::GET | &http::Method::HEAD) => {
                let answered = self.deliver(&viewer, &body, &mut record).await;
                leave(body, viewer.parts.version);
                answered.map(Done::Object)
            }
            // Boxed: these are few, and most requests need no room for them.
            (Ok(()), _) => Box::pin(self.act(&viewer, body, &mut record)).await,
        };
        let beside = Beside::of(&mut record);
        if matches!(answered, Ok(Done::Object(_)))
            && record.foresight == Foresight::Cmcd
            && let (Some(site), Some(key)) = (&record.site, &record.key)
        {
            shared.foresee(&viewer, site, key);
        }
        let mut response = match answered {
            Ok(Done::Object(reply)) => reply.with(record),
            Ok(Done::Preflight(fields)) => return reply::preflight(fields, record),
            Ok(Done::Options(allow)) => reply::options(allow, record),
            Ok(Done::Passed(passed)) => passed.with(record),
            Ok(Done::Purged) => reply::purged(record),
            Err(error) => self.refuse(&error, &viewer, record),
        };
        beside.add_to(&mut response, &viewer, shared);
        response
    }
}

/// What came of a request.
#[expect(clippy::large_enum_variant, reason = "most are, and an allocation for each is dear")]
enum Done {
    /// Answered here, with an object or a part of one.
    Object(Reply),
    /// A browser's question, with the fields that answer it.
    Preflight(HeaderMap),
    /// OPTIONS that goes no further, with what is allowed.
    Options(HeaderValue),
    /// Passed on, and answered by the origin.
    Passed(Box<Passed>),
    /// Purged.
    Purged,
}

/// An object a viewer asks for.
struct Asked {
    site: Arc<Site>,
    key: ObjectKey,
    path: String,
    method: Method,
    /// The first, if there are several.
    range: Option<RangeRequest>,
    ranges: Option<RangeSet>,
    has_authorization: bool,
    /// What the request's own `Cache-Control` asks for, as far as the rule lets it.
    control: RequestControl,
    /// What steering is to be put into.
    rewriting: Option<Rewriting>,
}

/// One request being answered.
struct Transaction<'a> {
    shared: &'a Rc<Shared>,
    viewer: &'a Rc<Viewer>,
    asked: Asked,
    record: &'a mut Record,
    resort: Resort,
    /// What the origin said to this viewer alone, beside an answer for all.
    withheld: HeaderMap,
    /// A range of it was asked for in vain, and that does not decide.
    asks_whole: bool,
    /// What may be asked of an origin because a volume is ill that may hold all of it.
    bypassed_bytes: Option<u64>,
    /// What the run brings of it that was begun for this request, or for others meanwhile.
    filled: Range<u64>,
}

/// Whether there is another way to an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Resort {
    /// To ask again, or for this viewer alone.
    Left,
    /// None: a body that an eviction might cut is better than no body.
    Last,
}

/// What an attempt to answer came to.
enum Attempt {
    /// An answer.
    Answered(Box<Reply>),
    /// What was found was gone before its first byte could be sent: look again.
    Again,
    /// There is no answer to share: ask for this viewer alone.
    Alone,
}

impl Delivery {
    /// Serves one request: refuse early, find the head, answer with its bytes.
    async fn deliver(
        &self,
        viewer: &Rc<Viewer>,
        body: &Incoming,
        record: &mut Record,
    ) -> Result<Reply, DeliveryError> {
        let asked = self.read(viewer, body, record)?;
        viewer.reserve(self.shared.governor.of(asked.site.id))?;
        let mut transaction = Transaction {
            shared: &self.shared,
            viewer,
            asked,
            record,
            resort: Resort::Left,
            withheld: HeaderMap::new(),
            asks_whole: false,
            bypassed_bytes: None,
            filled: 0..0,
        };
        if transaction.asked.method == Method::Head && transaction.asked.rewriting.is_none() {
            return transaction.answer_head().await;
        }
        for _ in 0..ATTEMPTS_SHARED_MAX {
            let attempt = match transaction.known().await? {
                Known::Variant(head) => match transaction.reuse(&head) {
                    Reuse::Now => transaction.answer(head, Found::Stored).await?,
                    Reuse::WhileRevalidated => {
                        transaction.refresh(head.clone());
                        transaction.answer(head, Found::Stored).await?
                    }
                    Reuse::OnceConfirmed(reason) => transaction.open(Some(head), reason).await?,
                },
                Known::Nothing => transaction.open(None, Fwd::UriMiss).await?,
                Known::OtherVariants => transaction.open(None, Fwd::VaryMiss).await?,
                Known::Uncacheable => {
                    transaction.admit_miss()?;
                    break;
                }
            };
            match attempt {
                Attempt::Answered(reply) => {
                    return Ok(reply.saying(take(&mut transaction.withheld)));
                }
                Attempt::Again => {}
                Attempt::Alone => break,
            }
        }
        transaction.pass().await
    }

    /// Whom it was for: what it costs to refuse is counted of whoever asks so much.
    fn refused(&self, viewer: &Viewer, record: &mut Record) {
        let Ok(host) = host_of(&viewer.parts) else { return };
        record.site = self.shared.sites.load().find(&host).cloned();
        record.host = host.into_owned();
    }

    /// Site and path of a request whose head names them.
    fn site_of(&self, parts: &Parts) -> Option<(Arc<Site>, String)> {
        let path = normalised_path(parts.uri.path())?;
        let sites = self.shared.sites.load();
        Some((sites.find(&host_of(parts).ok()?)?.clone(), path.into_owned()))
    }

    /// The request's head -> the object it asks for.
    fn read(
        &self,
        viewer: &Viewer,
        body: &Incoming,
        record: &mut Record,
    ) -> Result<Asked, DeliveryError> {
        let parts = &viewer.parts;
        let request = ObjectRequest::parse(parts).map_err(|error| {
            // Whose viewers ask wrongly is worth knowing.
            self.refused(viewer, record);
            let site = self.site_of(parts);
            record.cors = site.and_then(|(site, path)| site.rule_for(&path).cors.clone());
            DeliveryError::Request(error)
        })?;
        record.host = request.host.to_string();
        let sites = self.shared.sites.load();
        let site = sites.find(&request.host);
        record.site = site.cloned();
        let site = site.map(|site| (site, site.rule_for(&request.path)));
        record.cors = site.and_then(|(_, rule)| rule.cors.clone());
        if !body.is_end_stream() {
            return Err(DeliveryError::BodyRefused);
        }
        if self.shared.filler.client.via().has_passed(&parts.headers) {
            return Err(DeliveryError::Loop);
        }
        if viewer.connection.is_for_another(&request.host) {
            return Err(DeliveryError::OtherHost);
        }
        let (site, rule) = site.ok_or(DeliveryError::UnknownHost)?;
        (record.cmsd, record.foresight) = (rule.cmsd, rule.foresight);
        record.cause = self.cause(viewer, &request);
        viewer.tell(|| Decision::of("rule", Text::Shared(rule.pattern.text())).because(Text::Site));
        let target = request.target(&rule.query, rule.content);
        if request.method != Method::Purge {
            let (site, host, path) = (site.id, &*request.host, &*request.path);
            let (port, query, object) = (request.port, request.query, &*target);
            self.let_in(viewer, record, rule, &Named { site, host, port, path, query, object })?;
        }
        viewer.pace(rule.pace);
        let key = ObjectKey::new(site.id, &target);
        let control = match rule.request_cache_control {
            RequestCacheControl::Honour => RequestControl::of(&parts.headers),
            RequestCacheControl::Ignore => RequestControl::default(),
        };
        record.key = Some(key.clone());
        let rewriting = Rewriting::of(rule, &request);
        Ok(Asked {
            site: site.clone(),
            key,
            path: request.path.to_string(),
            method: request.method,
            range: request.range,
            ranges: request.ranges,
            has_authorization: request.has_authorization,
            control,
            rewriting,
        })
    }
}

/// How often a viewer looks for something to share before he is asked for alone: a version may
/// change under his first byte.
const ATTEMPTS_SHARED_MAX: u32 = 3;
