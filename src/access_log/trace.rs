//! What became of one request, decision by decision, each with its time since the head was read.
//!
//! Made only while somebody follows the log. Bounded: of a request with more decisions the first
//! are kept, and how many more there were.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::time::Instant;

use super::entry::{ClientBits, Entry, Line};
use crate::limits::TRACE_DECISIONS_MAX;
use crate::memory::Reservation;
use crate::metrics::labels::Tier;

/// The decisions about one request, in their order.
#[derive(Debug)]
pub struct Trace {
    begun: Instant,
    decisions: RefCell<Vec<(u64, Decision)>>,
    left_out: Cell<u64>,
    tiers: RefCell<Vec<&'static str>>,
    _reserved: Reservation,
}

/// One decision, or what came of one.
#[derive(Clone, Debug)]
pub struct Decision {
    what: &'static str,
    how: Cow<'static, str>,
    because: Option<Cow<'static, str>>,
    number: Option<(&'static str, i64)>,
    bytes: Option<(u64, u64)>,
}

impl Decision {
    /// About this, in these words.
    pub fn of(what: &'static str, how: impl Into<Cow<'static, str>>) -> Decision {
        Decision { what, how: how.into(), because: None, number: None, bytes: None }
    }

    /// With the sentence that decides.
    pub fn because(self, because: impl Into<Cow<'static, str>>) -> Decision {
        Decision { because: Some(because.into()), ..self }
    }

    /// With a number of this name.
    pub fn with(self, name: &'static str, number: i64) -> Decision {
        Decision { number: Some((name, number)), ..self }
    }
}

impl Trace {
    /// Of a request whose head has just been read.
    pub(super) fn new(reserved: Reservation) -> Trace {
        Trace {
            begun: Instant::now(),
            decisions: RefCell::new(Vec::with_capacity(DECISIONS_USUAL)),
            left_out: Cell::new(0),
            tiers: RefCell::default(),
            _reserved: reserved,
        }
    }

    /// Adds a decision.
    pub fn tell(&self, decision: Decision) {
        let at_us = self.begun.elapsed().as_micros() as u64;
        let mut decisions = self.decisions.borrow_mut();
        match decisions.len() < TRACE_DECISIONS_MAX {
            true => decisions.push((at_us, decision)),
            false => self.left_out.set(self.left_out.get() + 1),
        }
    }

    /// Bytes of the body went to the connection, from `position` of it on: what comes from one tier
    /// in succession is one line.
    pub fn sent(&self, tier: Tier, position: u64, bytes: u64) {
        let word = tier.label();
        let mut tiers = self.tiers.borrow_mut();
        if !tiers.contains(&word) {
            tiers.push(word);
        }
        if let Some((_, Decision { what: SENT, how, bytes: Some((first, so_far)), .. })) =
            self.decisions.borrow_mut().last_mut()
            && how == word
            && *first + *so_far == position
        {
            *so_far += bytes;
            return;
        }
        let bytes = Some((position, bytes));
        self.tell(Decision { bytes, ..Decision::of(SENT, word) });
    }

    /// The words of the tiers it had bytes from.
    pub(super) fn with_tiers<T>(&self, then: impl FnOnce(&[&str]) -> T) -> T {
        then(&self.tiers.borrow())
    }

    /// The line of the log, with the decisions in it.
    pub(super) fn to_line(&self, entry: &Entry<'_>, client_bits: ClientBits) -> String {
        let mut line = Line(entry.to_line(client_bits));
        line.0.truncate(line.0.trim_end().len() - 1);
        line.number("left_out", Some(self.left_out.get()));
        line.bare("decisions", "[");
        for (number, (at_us, decision)) in self.decisions.borrow().iter().enumerate() {
            line.0.push_str(if number == 0 { "" } else { "," });
            line.0.push_str(&decision.to_json(*at_us));
        }
        line.0.push_str("]}\n");
        line.0
    }
}

impl Decision {
    fn to_json(&self, at_us: u64) -> String {
        let mut line = Line(String::with_capacity(DECISION_BYTES_USUAL));
        line.number("at_us", Some(at_us));
        line.plain("what", self.what);
        line.outside("how", Some(&self.how), TEXT_BYTES_MAX);
        if let Some((name, number)) = self.number {
            line.shown_bare(name, number);
        }
        if let Some((first, bytes)) = self.bytes {
            line.number("first", Some(first));
            line.number("bytes", Some(bytes));
        }
        if let Some(because) = &self.because {
            line.outside("because", Some(because), TEXT_BYTES_MAX);
        }
        line.0.push('}');
        line.0
    }
}

const SENT: &str = "sent";
const DECISIONS_USUAL: usize = 12;
const DECISION_BYTES_USUAL: usize = 128;
const TEXT_BYTES_MAX: usize = 512;
