//! The body a run is written from: the one it began with, or one asked for from where it stands.

use bytes::Bytes;
use http::StatusCode;
use http::header::{IF_RANGE, RANGE};
use hyper::body::{Body, Incoming};

use super::{Pump, Stop};
use crate::cache::heads::Ranges;
use crate::fill::client::{Answer, Connection};
use crate::fill::error::FillError;
use crate::fill::place::{believable, is_countable, range_field};
use crate::fill::run::Pace;
use crate::message::conditional::Validator;
use crate::message::digest::Check;
use crate::message::response;
use crate::object::ByteRange;

/// A body on its way.
pub(in crate::fill) struct Source {
    pub(super) body: Incoming,
    /// Where in the version its next byte belongs.
    pub(super) at: u64,
    /// Where its head says it ends.
    pub(super) promised: Option<u64>,
    /// What its digests are checked with, and the end of what has come, kept back until they are:
    /// nobody gets all of a body that is not what it says.
    check: Option<Box<(Check, Bytes)>>,
    /// One past what has come.
    come: u64,
    /// Given back when the body is dropped.
    pub(super) _connection: Connection,
}

impl Source {
    /// The answer's body, whose first byte belongs `at` and whose head promises an end.
    pub(in crate::fill) fn new(answer: Answer, at: u64, promised: Option<u64>) -> Source {
        let check = Check::of(answer.status, &answer.fields);
        Source {
            body: answer.body,
            at,
            promised,
            check: check.map(|check| Box::new((check, Bytes::new()))),
            come: at,
            _connection: answer.connection,
        }
    }

    /// What may be written now that `bytes` have come: with digests to check what came before, and
    /// at the promised end the rest.
    ///
    /// # Errors
    /// `Digest`: it is not what it says.
    pub(super) fn checked(&mut self, bytes: Bytes) -> Result<[Bytes; 2], FillError> {
        let Some(check) = &mut self.check else { return Ok([bytes, Bytes::new()]) };
        check.0.update(&bytes);
        self.come += bytes.len() as u64;
        let before = std::mem::replace(&mut check.1, bytes);
        match self.promised == Some(self.come) {
            true => Ok([before, self.checked_end()?]),
            false => Ok([before, Bytes::new()]),
        }
    }

    /// What is still kept back when the body has ended by itself.
    ///
    /// # Errors
    /// `Digest`: it is not what it says.
    pub(super) fn checked_end(&mut self) -> Result<Bytes, FillError> {
        let Some(check) = self.check.take() else { return Ok(Bytes::new()) };
        let (check, last) = *check;
        match check.holds() {
            true => Ok(last),
            false => Err(FillError::Digest { end: self.come }),
        }
    }

    /// Whether its head promised more than has come.
    pub(super) fn is_cut_short(&self) -> bool {
        self.promised.is_some_and(|promised| self.come < promised)
    }

    /// Whether `bytes` more would be more than its head promised.
    pub(super) fn overflows(&self, bytes: usize) -> bool {
        self.promised.is_some_and(|promised| self.at + bytes as u64 > promised)
    }
}

impl Pump {
    /// The body to read: the one given, or asked for from the write position on.
    pub(super) async fn source(
        &mut self,
        given: Option<Source>,
        attempt: u32,
    ) -> Result<Source, Stop> {
        if let Some(source) = given {
            return Ok(source);
        }
        if self.run.pace() == Pace::Deserted {
            return Err(Stop::Parked);
        }
        // Memory first: who waits for it holds no connection.
        self.open_extent().await?;
        let end = self.run.end();
        let mut ask = self.ask.clone();
        // Where the object ends is not known: one byte that is there already makes sure of an
        // answer that tells, because a range of nothing has none.
        let overlap = u64::from(self.run.version.length_bytes().is_none()).min(self.position);
        let first = self.position - overlap;
        ask.conditions.push((RANGE, range_field(first, end)));
        if let Some(validator) = self.run.version.validator.if_range_value() {
            ask.conditions.push((IF_RANGE, validator));
        }
        self.filler.counters.origin_requests.count(());
        let mut answer =
            self.filler.client.ask_once(&ask, attempt).await.map_err(again_or_never)?;
        // As the first answer's, which its validator is compared with.
        response::edit(ask.site.rule_for(self.run.key.path()), &mut answer.fields);
        self.accept(answer, first, end)
    }

    /// Whether the answer brings this version's bytes from `first` on (RFC 9111 section 3.4).
    fn accept(&self, answer: Answer, first: u64, end: Option<u64>) -> Result<Source, Stop> {
        let version = &self.run.version;
        let validator = Validator::of(&answer.fields);
        let same = version.validator.strong_matches(&validator);
        let changed = || {
            version.mark_changed();
            Stop::Failed(FillError::Changed)
        };
        match answer.status {
            StatusCode::PARTIAL_CONTENT => {
                let range = believable(&answer, first, end).map_err(Stop::Failed)?;
                let length = range.complete();
                let promised = range.range().filter(|_| !range.is_endless()).map(ByteRange::end);
                if !same || !self.fits(length) {
                    return Err(changed());
                }
                version.learn_ranges(Ranges::Honoured);
                if let Some(length) = version.length_bytes() {
                    self.run.set_end(Some(end.map_or(length, |end| end.min(length))));
                }
                Ok(Source::new(answer, first, promised))
            }
            StatusCode::OK if same => {
                if !self.fits(answer.body.size_hint().exact()) {
                    return Err(changed());
                }
                version.learn_ranges(Ranges::Ignored);
                // The whole is on its way: to stop short of its end would be to ask for it again.
                self.run.set_end(version.length_bytes());
                Ok(Source::new(answer, 0, version.length_bytes()))
            }
            StatusCode::OK | StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::NOT_FOUND => {
                Err(changed())
            }
            status => {
                let reason = format!("status {status} for a part of an object");
                Err(Stop::Broke(FillError::Unusable { reason }))
            }
        }
    }

    /// Whether the object may be of the length told, which is learned then.
    fn fits(&self, told: Option<u64>) -> bool {
        let version = &self.run.version;
        let fits = |length| length >= self.position && version.learn_length(length);
        is_countable(told) && told.is_none_or(fits)
    }
}

/// What comes of no connection or no answer may be better next time.
fn again_or_never(error: FillError) -> Stop {
    match error {
        FillError::Connect { .. } | FillError::FirstByteTimeout { .. } => Stop::Broke(error),
        error => Stop::Failed(error),
    }
}
