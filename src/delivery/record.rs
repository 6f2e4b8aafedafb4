//! What is remembered of a request until its response has ended: one log line and its counts.
//!
//! Written when it is dropped, so that every request leaves its line, however it ends.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{RANGE, REFERER, USER_AGENT};
use http::{HeaderValue, StatusCode};

use crate::access_log::{AccessLog, Code, Decision, Entry, Outcome, Target, Text, Tracing};
use crate::delivery::player::logged;
use crate::delivery::reply::tell_cut_short;
use crate::delivery::steered::cached;
use crate::delivery::viewer::Viewer;
use crate::door::Given;
use crate::fill::error::FillError;
use crate::message::decision;
use crate::metrics::Counters;
use crate::metrics::labels::{
    self, BodyEnd, Cause, Lookup, Method, Refused, Scheme, StatusClass, Tier, Wait,
};
use crate::object::{ByteRange, ObjectKey};
use crate::server::Protocol;
use crate::site::{Cmsd, Cors, Foresight, Site};

/// One request's line in the log.
pub struct Record {
    viewer: Rc<Viewer>,
    log: AccessLog,
    counters: Arc<Counters>,
    begun: Instant,
    first_byte: Cell<Option<Duration>>,
    /// While no bytes were there for him: of an origin, and of a volume.
    waits: [Duration; 2],
    /// The site, once it is known.
    pub site: Option<Arc<Site>>,
    /// The object, once it is known.
    pub key: Option<ObjectKey>,
    /// What pages of other origins are told, whatever the answer is.
    pub cors: Option<Arc<Cors>>,
    /// Who is told of the way to him.
    pub cmsd: Cmsd,
    /// Whether what he will ask for next is brought ahead.
    pub foresight: Foresight,
    /// Why he asks here.
    pub cause: Cause,
    /// The host asked for.
    pub host: String,
    /// The status sent; `None` as long as no head is decided.
    pub status: Option<StatusCode>,
    /// The range answered.
    pub range: Option<ByteRange>,
    /// Why he did not come in.
    pub barred: Option<&'static str>,
    /// What his token was found to be, and why he was denied.
    pub token: Option<(Code, Option<&'static str>)>,
    /// The token he is to have in its place.
    pub given: Option<Box<Given>>,
    /// What the look-up found.
    lookup: Option<Lookup>,
    /// Our member of `Cache-Status`.
    pub cache: Option<HeaderValue>,
    body_bytes: u64,
    ssd_bytes: u64,
    tiers: [bool; Tier::ALL.len()],
    /// How it ended; who leaves first changes nothing here.
    pub outcome: Outcome,
}

impl Record {
    /// A request whose head has just been read.
    pub fn new(
        viewer: Rc<Viewer>,
        log: AccessLog,
        counters: Arc<Counters>,
        begun: Instant,
    ) -> Record {
        Record {
            viewer,
            log,
            counters,
            begun,
            first_byte: Cell::new(None),
            waits: [Duration::ZERO; 2],
            site: None,
            key: None,
            cors: None,
            cmsd: Cmsd::Off,
            foresight: Foresight::Off,
            cause: Cause::Viewer,
            host: String::new(),
            status: None,
            range: None,
            barred: None,
            token: None,
            given: None,
            lookup: None,
            cache: None,
            body_bytes: 0,
            ssd_bytes: 0,
            tiers: Default::default(),
            outcome: Outcome::ClientLeft,
        }
    }

    /// Counts body bytes handed to the connection, from `position` of the object on.
    pub fn sent(&mut self, tier: Tier, position: u64, bytes: usize) {
        let mut at = None;
        if self.first_byte.get().is_none() {
            let waited = self.begun.elapsed();
            at = Some(waited);
            self.first_byte.set(at);
            self.has_waited_at_first(waited);
            let wait = match tier {
                Tier::Ram => Wait::Hit,
                Tier::Ssd => Wait::Ssd,
                Tier::Fill | Tier::Pass => Wait::Miss,
            };
            self.counters.observe_first_byte(wait, waited);
        }
        if let Tracing::Kept(trace) = &self.viewer.tracing {
            trace.sent(at, tier, position, bytes as u64);
        }
        self.tiers[tier as usize] = true;
        self.body_bytes += bytes as u64;
        if let Some(bearer) = self.viewer.bearer.get() {
            bearer.sent(bytes as u64);
        }
        self.ssd_bytes += if tier == Tier::Ssd { bytes as u64 } else { 0 };
        let counted = match &self.site {
            Some(site) => self.counters.sites.of(site.id),
            None => self.counters.sites.none(),
        };
        counted.body_bytes.add(tier, bytes as u64);
    }

    /// The same of an answer that is passed on: its bytes are of no object that is known.
    pub fn passed(&mut self, bytes: usize) {
        self.sent(Tier::Pass, self.body_bytes, bytes);
    }

    /// Counts bytes of a text of ours, which came from no tier.
    pub fn said(&mut self, bytes: usize) {
        self.body_bytes += bytes as u64;
    }

    /// There were no bytes for him for so long, once his body had begun; then they came from there.
    pub fn has_waited(&mut self, tier: Tier, waited: Duration) {
        if self.first_byte.get().is_some() {
            self.waits[if tier == Tier::Ssd { SSD } else { ORIGIN }] += waited;
        }
    }

    /// The same of his first byte, or of an answer that has none.
    fn has_waited_at_first(&mut self, waited: Duration) {
        match self.lookup {
            Some(Lookup::Hit) => {}
            Some(Lookup::HitSsd) => self.waits[SSD] += waited,
            None if self.viewer.origin_requests.get() == 0 => {}
            _ => self.waits[ORIGIN] += waited,
        }
    }

    /// The look-up has an answer: counted now, because the bytes may be long in coming. The first
    /// counts.
    pub fn found(&mut self, lookup: Lookup) {
        if self.lookup.is_none() {
            self.lookup = Some(lookup);
            self.counters.lookups.count(lookup);
            self.counters.steered.count((self.cause, cached(lookup)));
            let decision = || Decision::of("found", lookup.label());
            match lookup {
                Lookup::Hit => self.viewer.tell_at_once(decision),
                _ => self.viewer.tell(decision),
            }
        }
    }

    /// Whether the head alone was asked for.
    pub fn is_head(&self) -> bool {
        self.viewer.parts.method == http::Method::HEAD
    }

    /// What this worker counts.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// It was refused for this, if for any of it.
    pub fn refused(&self, why: Option<Refused>) {
        let Some(why) = why else { return };
        self.counters.refused.count(why);
        self.viewer.tell(|| Decision::of("refused", why.label()));
    }

    /// Counts what the player told.
    pub fn told(&self) {
        let Some(cmcd) = &self.viewer.cmcd else { return };
        let players = &self.counters.players;
        players.requests.count(labels::ObjectType::of(cmcd.word("ot")));
        if cmcd.says("bs") {
            players.starvations.count(());
        }
        if cmcd.says("su") {
            players.startups.count(());
        }
        cmcd.number("bl").into_iter().for_each(|millis| players.observe_buffer_ms(millis));
        cmcd.number("mtp").into_iter().for_each(|kbps| players.observe_throughput_kbps(kbps));
    }

    /// The body ends here, for this reason.
    pub fn cut_short(&mut self, why: &FillError) {
        self.outcome = Outcome::CutShort(why.word());
        tell_cut_short(why, &self.viewer);
    }

    /// The response's head is decided: counts the request.
    pub fn answered(&mut self, status: StatusCode) {
        self.status = Some(status);
        self.viewer.tell(|| {
            Decision::of("head", Text::CacheStatus).with("status", status.as_u16().into())
        });
        let connection = &self.viewer.connection;
        let protocol = match connection.protocol {
            Protocol::Http1 => labels::Protocol::Http1,
            Protocol::Http2 => labels::Protocol::Http2,
        };
        let scheme = if connection.tls.is_some() { Scheme::Tls } else { Scheme::Plain };
        let method = Method::of(&self.viewer.parts.method);
        let class = StatusClass::of(status);
        self.counters.requests.count(((protocol, scheme), (method, class)));
        if let Some(site) = &self.site {
            self.counters.sites.of(site.id).requests.count(class);
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if let (Outcome::ClientLeft, Some(cut)) = (self.outcome, self.viewer.connection.cut.get()) {
            self.outcome = Outcome::CutShort(cut.word());
        }
        let duration = self.begun.elapsed();
        if self.first_byte.get().is_none() {
            self.has_waited_at_first(duration);
        }
        self.counters.bodies.count(match self.outcome {
            Outcome::Complete => BodyEnd::Complete,
            Outcome::ClientLeft => BodyEnd::ClientLeft,
            Outcome::CutShort(_) => BodyEnd::CutShort,
        });
        let Viewer { parts, connection, request_id, time, origin_requests, .. } = &*self.viewer;
        let target = match (&self.key, &self.site) {
            (Some(key), Some(site)) if site.names_parameters(key.path()) => Target::Object(key),
            (Some(key), _) => Target::Discreet(key),
            _ => Target::Path(parts.uri.path()),
        };
        let cmcd: Vec<_> = self.viewer.cmcd.iter().flat_map(|cmcd| logged(cmcd)).collect();
        let entry = Entry {
            time: *time,
            request_id: *request_id,
            client: self.viewer.client,
            site: self.site.as_ref().map(|site| site.name.as_str()),
            method: parts.method.as_str(),
            host: &self.host,
            target,
            protocol: match connection.protocol {
                Protocol::Http1 => "http1",
                Protocol::Http2 => "http2",
            },
            tls: connection.tls.is_some(),
            status: self.status,
            body_bytes: self.body_bytes,
            ssd_bytes: self.ssd_bytes,
            tiers: self.tiers,
            range: self.range,
            range_asked: parts.headers.get(RANGE).map(HeaderValue::as_bytes),
            lookup: self.lookup,
            cache: self.cache.as_ref().and_then(|value| value.to_str().ok()),
            time_to_first_byte: self.first_byte.get(),
            duration,
            origin_wait: self.waits[ORIGIN],
            ssd_wait: self.waits[SSD],
            origin_requests: origin_requests.get(),
            user_agent: parts.headers.get(USER_AGENT).map(HeaderValue::as_bytes),
            referer: parts.headers.get(REFERER).map(HeaderValue::as_bytes),
            cmcd: &cmcd,
            barred: self.barred,
            token: self.token,
            decision: decision::logged(parts.uri.query()).map(|text| (text, self.cause.label())),
            outcome: self.outcome,
        };
        if let Tracing::Kept(trace) = &self.viewer.tracing {
            let ended = ended(self.outcome).with("sent_bytes", self.body_bytes as i64);
            trace.tell_at(duration, ended);
        }
        self.log.record(&entry, &self.viewer.tracing);
    }
}

const ORIGIN: usize = 0;
const SSD: usize = 1;

/// How it ended, and why.
fn ended(outcome: Outcome) -> Decision {
    match outcome {
        Outcome::Complete => Decision::of("end", "complete"),
        Outcome::ClientLeft => Decision::of("end", "the viewer left"),
        Outcome::CutShort(reason) => Decision::of("end", "cut short").because(reason),
    }
}
