//! Asking what an object is, and what to make of the answer.
//!
//! The answer's head decides everything before a byte of its body is looked at: whether it is what
//! was asked for, which version it is, who may read it. Claim, then head, then waiters: in this
//! order, so that nobody who finds the head misses the run that brings its body.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use http::header::CONTENT_RANGE;
use http::{HeaderMap, Method, StatusCode};
use tokio::sync::watch;

use crate::cache::heads::{Head, Ranges, Version};
use crate::cache::ssd::{Change, Seen, Worth};
use crate::fill::client::Answer;
use crate::fill::collapse::{Joined, Made};
use crate::fill::error::FillError;
use crate::fill::place::{Placed, bodiless, place};
use crate::fill::pump::{self, Source};
use crate::fill::run::{Bounds, Reader, Run, Sharing};
use crate::fill::{Close, Filler, Opened, Wanted};
use crate::limits::PIECE_SIZE_BYTES;
use crate::memory::Class;
use crate::message::conditional::Validator;
use crate::message::digest::Check;
use crate::message::freshness::{Assessment, Exchange, Freshness, Reason, assess};
use crate::message::range::ContentRange;
use crate::message::response::{self, Stored};
use crate::message::vary::VariantKey;
use crate::metrics::labels::OriginError;
use crate::moment::since_1970;
use crate::purge::{Standing, Tags};

/// A body that is here and must be pumped.
type Job = (Arc<Run>, Source);

impl Filler {
    /// Asks, tells the waiters, and then brings the body.
    pub(super) async fn lead(
        self: Arc<Self>,
        mut wanted: Wanted,
        tell: watch::Sender<Option<Arc<Opened>>>,
        rounded: Sharing,
        close: Option<Close>,
    ) {
        let turn = self.turns.take(wanted.key.site());
        let patience = self.client.patience().first_byte;
        let (opened, job, _turn) = match tokio::time::timeout(patience, turn).await {
            Err(_) => {
                let error = FillError::Overload { what: "fill run" };
                (Opened::Failed(Arc::new(error)), None, None)
            }
            Ok(turn) => match self.open_once(&mut wanted, rounded).await {
                Ok((opened, job)) => (opened, job, Some(turn)),
                Err(error) => {
                    self.count_error(wanted.key.site(), &error);
                    let stale = wanted.instead_of_failing().filter(|_| error.is_failure());
                    let failed = || Opened::Failed(Arc::new(error));
                    let opened = stale.map_or_else(failed, |head| rested(head, None));
                    (opened, None, Some(turn))
                }
            },
        };
        // Whoever comes from now on finds the head, or asks anew.
        drop(close);
        tell.send_replace(Some(Arc::new(opened)));
        drop(tell);
        if let Some((run, source)) = job {
            self.counters.runs_started.count(());
            pump::pump(self, run, Some(source), wanted.ask, Class::Miss).await;
        }
    }

    async fn open_once(
        self: &Arc<Self>,
        wanted: &mut Wanted,
        rounded: Sharing,
    ) -> Result<(Opened, Option<Job>), FillError> {
        // Before what is held is looked at: a purge that comes between the two covers the answer.
        let birth = self.purges.birth();
        wanted.stale = wanted.stale.take().filter(|head| {
            let standing = self.purges.reckon(&wanted.key, &head.birth, &head.tags);
            !matches!(standing, Standing::Gone) && !self.purges.is_invalid(&wanted.key, &head.birth)
        });
        let wanted = &*wanted;
        let mut ask = wanted.ask.clone();
        ask.conditions = wanted.conditions(rounded);
        self.counters.origin_requests.count(());
        let mut answer = self.client.ask(&ask).await?;
        if matches!(answer.status.as_u16(), 500 | 502 | 503 | 504)
            && let Some(head) = wanted.instead_of_failing()
        {
            self.count_error_of_kind(wanted.key.site(), OriginError::Status);
            return Ok((rested(head, Some(answer.status)), None));
        }
        response::edit(wanted.rule(), &mut answer.fields);
        (answer.birth, answer.tags) = (birth, Tags::take_from(&mut answer.fields));
        match (answer.status, &wanted.stale) {
            (StatusCode::NOT_MODIFIED, Some(stale)) => {
                return Ok((self.confirm(wanted, stale, &answer)?, None));
            }
            (status @ (StatusCode::SWITCHING_PROTOCOLS | StatusCode::NOT_MODIFIED), _) => {
                let reason = format!("status {status}, which answers nothing that was asked");
                return Err(FillError::Unusable { reason });
            }
            (StatusCode::RANGE_NOT_SATISFIABLE, _) if wanted.range.is_some() => {
                let field = answer.fields.get(CONTENT_RANGE);
                let range = field.and_then(|field| ContentRange::parse(field).ok());
                let length_bytes = range.and_then(|range| range.complete());
                return Ok((Opened::Unsatisfiable { length_bytes }, None));
            }
            _ => {}
        }
        let placed = match ask.method {
            Method::HEAD if answer.status == StatusCode::OK => {
                let placed = bodiless(&answer);
                if let Some(stale) = &wanted.stale {
                    return Ok((self.compare(wanted, stale, answer, placed), None));
                }
                placed
            }
            Method::HEAD => bodiless(&answer),
            _ => place(&answer, wanted.asked(rounded))?,
        };
        let is_empty = answer.status == StatusCode::OK && placed.end == Some(0);
        if is_empty && ask.method == Method::GET {
            // Nobody reads a body that is none.
            let check = Check::of(answer.status, &answer.fields);
            check.is_none_or(Check::holds).then_some(()).ok_or(FillError::Digest { end: 0 })?;
        }
        Ok(self.take(wanted, answer, placed))
    }

    /// A 304: the stored response lives on (RFC 9111 section 4.3.4).
    ///
    /// # Errors
    /// `Changed` when it speaks of another version than the one held: then it is asked for anew.
    fn confirm(
        &self,
        wanted: &Wanted,
        stale: &Arc<Head>,
        answer: &Answer,
    ) -> Result<Opened, FillError> {
        let told = Validator::of(&answer.fields);
        let confirmed = stale.stored.validator().is_confirmed_by(&told);
        let merged = response::merged(stale.stored.fields(), &answer.fields);
        let Some(fields) = merged.filter(|_| confirmed) else {
            self.forget(&wanted.key, stale.version.id);
            return Err(FillError::Changed);
        };
        let withheld = response::withheld_fields(&fields);
        let stored = stale.stored.refreshed(&fields, answer.received_at);
        let birth = answer.birth.clone();
        let tags = answer.tags.clone().unwrap_or_else(|| stale.tags.clone());
        let head = Head { stored, birth, tags, ..Head::clone(stale) };
        match self.assess(wanted, head.stored.status(), &fields, answer) {
            Assessment::Shared(freshness) => {
                let head = Arc::new(Head { freshness, ..head });
                if wanted.no_store {
                    // Nor is any part of a 304 (RFC 9111 section 5.2.1.5).
                    return Ok(Opened::Confirmed { head, sharing: Sharing::Alone, withheld });
                }
                let change = Change::Refreshed(Worth::of(freshness.lifetime));
                self.keep_head(&wanted.key, &head, change);
                Ok(Opened::Confirmed { head, sharing: Sharing::Shared, withheld })
            }
            // It was stored by the answer to another; of that his credentials say nothing (RFC 9111
            // section 3.5).
            Assessment::Uncacheable(Reason::Authorization) => {
                Ok(Opened::Confirmed { head: Arc::new(head), sharing: Sharing::Alone, withheld })
            }
            Assessment::Uncacheable(reason) => {
                self.forget(&wanted.key, stale.version.id);
                self.remember_uncacheable(wanted, answer, reason);
                Ok(Opened::Confirmed { head: Arc::new(head), sharing: Sharing::Alone, withheld })
            }
        }
    }

    /// A HEAD's 200 says whether the stored response is still what a GET would bring (RFC 9111
    /// section 4.3.5): it lives on, or is forgotten. Unlike a 304 it answers no question about that
    /// one: where it names no version either it says nothing.
    fn compare(
        self: &Arc<Self>,
        wanted: &Wanted,
        stale: &Arc<Head>,
        answer: Answer,
        placed: Placed,
    ) -> Opened {
        let told = Validator::of(&answer.fields);
        let same_length =
            placed.complete.is_none() || placed.complete == stale.version.length_bytes();
        if same_length && told.etag().is_none() && told.last_modified().is_none() {
            return self.take(wanted, answer, placed).0;
        }
        let is_same = same_length && stale.stored.validator().is_confirmed_by(&told);
        let confirmed = is_same.then(|| self.confirm(wanted, stale, &answer));
        match confirmed {
            Some(Ok(opened)) => opened,
            Some(Err(_)) | None => {
                self.forget(&wanted.key, stale.version.id);
                self.take(wanted, answer, placed).0
            }
        }
    }

    fn assess(
        &self,
        wanted: &Wanted,
        status: StatusCode,
        fields: &HeaderMap,
        answer: &Answer,
    ) -> Assessment {
        assess(&Exchange {
            request_has_authorization: wanted.has_authorization,
            status,
            headers: fields,
            requested_at: answer.requested_at,
            received_at: answer.received_at,
            lifetimes: &wanted.rule().lifetimes,
        })
    }

    fn remember_uncacheable(&self, wanted: &Wanted, answer: &Answer, reason: Reason) {
        // Of what was asked before a purge others may know better by now.
        let is_old = self.purges.covers(&wanted.key, &answer.birth);
        if reason != Reason::Status && !wanted.has_authorization && !is_old {
            // Of live content it may have been that it is not there yet.
            let remembered = wanted.rule().lifetimes.absence_most.unwrap_or(UNCACHEABLE_FOR);
            let until = Instant::now() + remembered;
            let key = &wanted.key;
            self.ssd.forget(key, || self.heads.remember_uncacheable(key.clone(), until));
        }
    }

    /// Makes a head and a run of an answer with a body.
    fn take(
        self: &Arc<Self>,
        wanted: &Wanted,
        answer: Answer,
        placed: Placed,
    ) -> (Opened, Option<Job>) {
        let stored = Stored::new(answer.status, &answer.fields, answer.received_at);
        let validator = stored.validator().clone();
        let partial = answer.status == StatusCode::PARTIAL_CONTENT;
        let assessment = self.assess(wanted, answer.status, &answer.fields, &answer);
        // A part of a body that nothing can be joined to later is of use to this viewer only.
        let joinable = !partial || (validator.is_strong() && placed.complete.is_some());
        let shared = wanted.ask.method == Method::GET && joinable && !wanted.no_store;
        let freshness = match assessment {
            Assessment::Shared(freshness) if shared => Some(freshness),
            Assessment::Uncacheable(reason) => {
                // Who may ask about what is fresh must not put it out by an error he provokes.
                let fresh = |head: &Arc<Head>| head.freshness.is_fresh(SystemTime::now());
                let is_held = wanted.stale.as_ref().is_some_and(fresh);
                if wanted.ask.method == Method::GET && (answer.status.is_success() || !is_held) {
                    self.remember_uncacheable(wanted, &answer, reason);
                }
                None
            }
            Assessment::Shared(_) => None,
        };
        let version =
            self.version(wanted, stored.status(), validator, (&placed, answer.requested_at));
        // The whole for another version's `If-Range` says nothing about ranges.
        let asked_plainly = wanted.range.is_some() && wanted.if_range.is_none();
        if asked_plainly && answer.status.is_success() {
            version.learn_ranges(if partial { Ranges::Honoured } else { Ranges::Ignored });
        }
        let head = Arc::new(Head {
            version,
            freshness: freshness.unwrap_or(Freshness::expired(answer.received_at)),
            variant: VariantKey::of(stored.vary(), &wanted.viewer_fields).unwrap_or_default(),
            birth: answer.birth.clone(),
            tags: answer.tags.clone().unwrap_or_default(),
            stored,
        });
        match freshness {
            Some(_) => self.store(wanted, head, answer, placed),
            None => self.pass(wanted, head, answer, placed),
        }
    }

    /// The version an answer belongs to: the one held if it is provably the same, else a new one.
    fn version(
        &self,
        wanted: &Wanted,
        status: StatusCode,
        validator: Validator,
        (placed, asked_at): (&Placed, SystemTime),
    ) -> Arc<Version> {
        // An error's text is no version of the object, whatever validator it carries.
        let held = wanted.stale.as_ref().filter(|head| head.stored.status() == status);
        let held = held.map(|head| &head.version);
        let same = held.filter(|version| {
            version.validator.strong_matches(&validator)
                && version.length_bytes() == placed.complete
                && !version.is_changed()
        });
        let birth = since_1970(asked_at).as_micros() as u64;
        let new = || Version::new(self.versions.assign(), birth, validator, placed.complete);
        same.cloned().unwrap_or_else(|| Arc::new(new()))
    }

    fn store(
        self: &Arc<Self>,
        wanted: &Wanted,
        head: Arc<Head>,
        answer: Answer,
        placed: Placed,
    ) -> (Opened, Option<Job>) {
        let version = head.version.clone();
        let withheld = response::withheld_fields(&answer.fields);
        let start = placed.first.next_multiple_of(PIECE_SIZE_BYTES);
        if placed.end.is_some_and(|end| start >= end) {
            self.keep_head(&wanted.key, &head, Change::Replaced);
            if version.length_bytes() == Some(0) {
                // No run brings a block of it that would be offered.
                self.ssd.consider(&self.ssd.subject(&wanted.key), &version, 0, Seen::Filled);
            }
            return (Opened::Stored { head, run: None, withheld }, None);
        }
        let joined = self.runs.join(version.id, start, |next_claim| {
            // An origin may send less than it was asked for: the run asks for the rest.
            let end = match (placed.asked_end, next_claim) {
                (Some(end), Some(claim)) => Some(end.min(claim)),
                (end, claim) => end.or(claim),
            };
            let paid_to = wanted.bypassed_bytes.map(|bytes| start.saturating_add(bytes));
            let bounds = Bounds { start, end, window_bytes: self.window_bytes, paid_to };
            Made::Run(Run::new(version.clone(), wanted.key.clone(), Sharing::Shared, bounds))
        });
        self.keep_head(&wanted.key, &head, Change::Replaced);
        match joined {
            Joined::Started(reader, run) => {
                let source = Source::new(answer, placed.first, placed.end);
                let run_of = Some(reader.standing_in());
                (Opened::Stored { head, run: run_of, withheld }, Some((run, source)))
            }
            Joined::Collapsed(reader) => {
                (Opened::Stored { head, run: Some(reader.standing_in()), withheld }, None)
            }
            Joined::Landed | Joined::Nowhere => {
                (Opened::Stored { head, run: None, withheld }, None)
            }
        }
    }

    /// An answer for one viewer: nothing is kept, nobody else reads it.
    fn pass(
        self: &Arc<Self>,
        wanted: &Wanted,
        head: Arc<Head>,
        answer: Answer,
        placed: Placed,
    ) -> (Opened, Option<Job>) {
        let span = (placed.first, placed.end);
        let withheld = response::withheld_fields(&answer.fields);
        if placed.end == Some(placed.first) {
            return (Opened::Private { head, withheld, span, body: Mutex::new(None) }, None);
        }
        let window_bytes = self.window_bytes.min(PASS_WINDOW_BYTES);
        let (start, end) = (placed.first, placed.end);
        let bounds = Bounds { start, end, window_bytes, paid_to: None };
        let run = Run::new(head.version.clone(), wanted.key.clone(), Sharing::Alone, bounds);
        self.runs.add(run.clone());
        let reader: Option<Reader> = run.attach(placed.first);
        let source = Source::new(answer, placed.first, placed.end);
        (Opened::Private { head, withheld, span, body: Mutex::new(reader) }, Some((run, source)))
    }
}

/// The stored response, whose origin has a rest.
fn rested(head: Arc<Head>, status: Option<StatusCode>) -> Opened {
    head.version.rest(SystemTime::now());
    Opened::Stale { head, status }
}

/// How long an object is remembered as uncacheable: its viewers do not wait for each other
/// meanwhile.
const UNCACHEABLE_FOR: Duration = Duration::from_secs(10);
/// How far a passed body may be ahead of its viewer.
const PASS_WINDOW_BYTES: u64 = 1 << 20;
