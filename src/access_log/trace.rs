//! What became of one request, decision by decision, each with its time since the head was read.
//!
//! Made only while somebody follows the log who has room for it. What is told stays as it was
//! found, and becomes text when the request turns out to be wanted. Bounded: of a request with more
//! decisions the first are kept, and how many more there were.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::entry::{Entry, Line};
use crate::limits::TRACE_DECISIONS_MAX;
use crate::memory::Reservation;
use crate::metrics::labels::Tier;
use crate::object::VersionId;

/// What is kept of the decisions about one request.
#[derive(Debug)]
pub enum Tracing {
    /// Nothing: nobody followed the log when it began.
    Off,
    /// Nothing, for want of room or memory: who would have wanted the request has lost it.
    Lost {
        /// When its head had been read.
        begun: Instant,
    },
    /// All, within bounds.
    Kept(Box<Trace>),
}

/// The decisions about one request, in their order.
#[derive(Debug)]
pub struct Trace {
    begun: Instant,
    decisions: RefCell<Vec<(Duration, Decision)>>,
    left_out: Cell<u64>,
    _reserved: Reservation,
}

/// One decision, or what came of one.
#[derive(Clone, Debug)]
pub struct Decision {
    what: &'static str,
    how: Text,
    because: Option<Text>,
    figure: Figure,
}

/// Words, or what they are made of.
#[derive(Clone, Debug)]
pub enum Text {
    /// Words of ours.
    Words(&'static str),
    /// What is shared with others.
    Shared(Arc<str>),
    /// What was written for this.
    Written(Box<str>),
    /// The number of a version.
    Version(VersionId),
    /// The name of the request's site.
    Site,
    /// What is said in `Cache-Status`.
    CacheStatus,
}

impl From<&'static str> for Text {
    fn from(words: &'static str) -> Text {
        Text::Words(words)
    }
}

#[derive(Clone, Debug)]
enum Figure {
    None,
    Number(&'static str, i64),
    Bytes { first: u64, count: u64 },
}

impl Decision {
    /// About this, in these words.
    pub fn of(what: &'static str, how: impl Into<Text>) -> Decision {
        Decision { what, how: how.into(), because: None, figure: Figure::None }
    }

    /// With the sentence that decides.
    pub fn because(self, because: impl Into<Text>) -> Decision {
        Decision { because: Some(because.into()), ..self }
    }

    /// With a number of this name.
    pub fn with(self, name: &'static str, number: i64) -> Decision {
        Decision { figure: Figure::Number(name, number), ..self }
    }
}

impl Trace {
    /// Of a request whose head had been read then.
    pub(super) fn new(begun: Instant, reserved: Reservation) -> Trace {
        Trace {
            begun,
            decisions: RefCell::new(Vec::with_capacity(DECISIONS_USUAL)),
            left_out: Cell::new(0),
            _reserved: reserved,
        }
    }

    /// Adds a decision of now.
    pub fn tell(&self, decision: Decision) {
        self.tell_at(self.begun.elapsed(), decision);
    }

    /// Adds one that followed from the last without a wait: to ask the clock is what costs most.
    pub fn tell_at_once(&self, decision: Decision) {
        let last = self.decisions.borrow().last().map(|(at, _)| *at);
        self.tell_at(last.unwrap_or_default(), decision);
    }

    /// Adds a decision of so long after the head was read.
    pub fn tell_at(&self, at: Duration, decision: Decision) {
        let mut decisions = self.decisions.borrow_mut();
        match decisions.len() < TRACE_DECISIONS_MAX {
            true => decisions.push((at, decision)),
            false => self.left_out.set(self.left_out.get() + 1),
        }
    }

    /// Bytes went to the connection, from `position` of the object on, so long after the head was
    /// read, or now: what comes from one tier in succession is one line.
    pub fn sent(&self, at: Option<Duration>, tier: Tier, position: u64, bytes: u64) {
        let word = tier.label();
        if let Some((_, Decision { what: SENT, how: Text::Words(how), figure, .. })) =
            self.decisions.borrow_mut().last_mut()
            && *how == word
            && let Figure::Bytes { first, count } = figure
            && *first + *count == position
        {
            *count += bytes;
            return;
        }
        let figure = Figure::Bytes { first: position, count: bytes };
        let at = at.unwrap_or_else(|| self.begun.elapsed());
        self.tell_at(at, Decision { figure, ..Decision::of(SENT, word) });
    }

    /// `logged`, the line of the log, with the decisions in it.
    pub(super) fn to_line(&self, logged: &str, entry: &Entry<'_>) -> String {
        let decisions = self.decisions.borrow();
        let bytes = logged.len() + (1 + decisions.len()) * DECISION_BYTES_USUAL;
        let mut line = Line(String::with_capacity(bytes));
        line.0.push_str(logged.strip_suffix("}\n").unwrap_or(logged));
        line.number("left_out", Some(self.left_out.get()));
        line.bare("decisions", "[");
        for (number, (at, decision)) in decisions.iter().enumerate() {
            line.0.push_str(if number == 0 { "" } else { "," });
            decision.write(*at, entry, &mut line);
        }
        line.0.push_str("]}\n");
        line.0
    }
}

impl Decision {
    /// Its object.
    fn write(&self, at: Duration, entry: &Entry<'_>, line: &mut Line) {
        line.object("at_us", at.as_micros() as u64);
        line.plain("what", self.what);
        line.outside("how", Some(&self.how.to_text(entry)), TEXT_BYTES_MAX);
        match self.figure {
            Figure::None => {}
            Figure::Number(name, number) => line.shown_bare(name, number),
            Figure::Bytes { first, count } => {
                line.number("first", Some(first));
                line.number("bytes", Some(count));
            }
        }
        if let Some(because) = &self.because {
            line.outside("because", Some(&because.to_text(entry)), TEXT_BYTES_MAX);
        }
        line.0.push('}');
    }
}

impl Text {
    fn to_text<'a>(&'a self, entry: &'a Entry<'_>) -> Cow<'a, str> {
        match self {
            Text::Words(words) => (*words).into(),
            Text::Shared(text) => (&**text).into(),
            Text::Written(text) => (&**text).into(),
            Text::Version(id) => id.to_string().into(),
            Text::Site => entry.site.unwrap_or_default().into(),
            Text::CacheStatus => entry.cache.unwrap_or(NO_CACHE_STATUS).into(),
        }
    }
}

const SENT: &str = "sent";
/// Of an answer of our own, such as a refusal.
const NO_CACHE_STATUS: &str = "no Cache-Status";
const DECISIONS_USUAL: usize = 8;
const DECISION_BYTES_USUAL: usize = 128;
const TEXT_BYTES_MAX: usize = 512;
