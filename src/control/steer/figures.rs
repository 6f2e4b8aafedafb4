//! What is counted of viewers' questions; written by the thread that answers, read by anyone.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::control::content_steering::reported::Flaw;

/// How a viewer asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// For JSON.
    Rank,
    /// To be sent there.
    Go,
    /// For a manifest of HLS.
    Hls,
    /// For a manifest of DASH.
    Dash,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 4] = [Kind::Rank, Kind::Go, Kind::Hls, Kind::Dash];

    /// As targets and metrics have it.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Rank => "rank",
            Kind::Go => "go",
            Kind::Hls => "hls",
            Kind::Dash => "dash",
        }
    }
}

/// By what the first appliance of an answer is the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decided {
    /// The viewer was announced to it.
    Route,
    /// It is nearest.
    Distance,
    /// He plays from it.
    Stays,
    /// Its share among its equals.
    Share,
    /// Nobody is well.
    LastResort,
    /// It is none: the viewer reaches nobody that he could be sent to.
    Nobody,
    /// It is none: there was too much to do, or no such site.
    Nothing,
    /// It is none: steering was ended on purpose.
    Ended,
}

impl Decided {
    /// All of them.
    pub const ALL: [Decided; 8] = [
        Decided::Route,
        Decided::Distance,
        Decided::Stays,
        Decided::Share,
        Decided::LastResort,
        Decided::Nobody,
        Decided::Nothing,
        Decided::Ended,
    ];

    /// As metrics have it.
    pub fn word(self) -> &'static str {
        match self {
            Decided::Route => "route",
            Decided::Distance => "distance",
            Decided::Stays => "stays",
            Decided::Share => "share",
            Decided::LastResort => "last_resort",
            Decided::Nobody => "nobody",
            Decided::Nothing => "nothing",
            Decided::Ended => "ended",
        }
    }
}

/// What was counted so far.
#[derive(Debug, Default)]
pub struct Figures {
    asked: [AtomicU64; Kind::ALL.len()],
    decided: [AtomicU64; Decided::ALL.len()],
    candidates: [AtomicU64; CANDIDATES.len()],
    flaws: [AtomicU64; FLAWS.len()],
    begun: AtomicU64,
    slowed: AtomicU64,
}

impl Figures {
    pub(super) fn asked(&self, kind: Kind) {
        count(&self.asked[kind as usize]);
    }

    pub(super) fn decided(&self, decided: Decided) {
        count(&self.decided[decided as usize]);
    }

    /// One was decided among so many.
    pub(super) fn was_among(&self, candidates: usize) {
        count(&self.candidates[candidates.min(CANDIDATES.len() - 1)]);
    }

    pub(super) fn flawed(&self, word: &str) {
        FLAWS.iter().position(|flaw| *flaw == word).into_iter().for_each(|n| count(&self.flaws[n]));
    }

    pub(super) fn begun(&self) {
        count(&self.begun);
    }

    pub(super) fn slowed(&self) {
        count(&self.slowed);
    }

    /// Questions, by how they were asked.
    pub fn answers(&self) -> Vec<(&'static str, u64)> {
        Kind::ALL.map(Kind::word).into_iter().zip(self.asked.iter().map(read)).collect()
    }

    /// Decisions, by what they were made by.
    pub fn decisions(&self) -> Vec<(&'static str, u64)> {
        Decided::ALL.map(Decided::word).into_iter().zip(self.decided.iter().map(read)).collect()
    }

    /// Answers, by how many appliances were left to choose from.
    pub fn candidates(&self) -> Vec<(&'static str, u64)> {
        CANDIDATES.into_iter().zip(self.candidates.iter().map(read)).collect()
    }

    /// What players report and cannot be read, and sessions that were not signed here.
    pub fn flaws(&self) -> Vec<(&'static str, u64)> {
        FLAWS.into_iter().zip(self.flaws.iter().map(read)).collect()
    }

    /// Sessions that began.
    pub fn sessions(&self) -> u64 {
        read(&self.begun)
    }

    /// Manifests that told players to ask less often, because there was too much to do.
    pub fn slower(&self) -> u64 {
        read(&self.slowed)
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

const CANDIDATES: [&str; 3] = ["none", "one", "more"];

/// The words of [`Flaw`], and one for sessions.
const FLAWS: [&str; 8] = [
    Flaw::Encoding.word(),
    Flaw::Quote.word(),
    Flaw::Name.word(),
    Flaw::Unknown.word(),
    Flaw::Number.word(),
    Flaw::Count.word(),
    Flaw::TooMany.word(),
    "session",
];
