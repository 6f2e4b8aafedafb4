//! What has happened to devices and been looked at, counted: what never happens is not tested.

use std::collections::BTreeMap;
use std::fmt;

use tidegate::store::device::Harm;

use super::run::Sickness;

/// Counts, by what they are of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Covered(BTreeMap<&'static str, u64>);

/// Each seed's device does all of this, a sick one too.
const ALWAYS: &[&str] = &[
    "crashes that reordered writes",
    "crashes with a block not flushed",
    "crashes with a checkpoint not flushed",
    "crashes with a footer not flushed",
    "crashes with a header of a region not flushed",
    "crashes with a page of the table not flushed",
    "crashes with heads not flushed",
    "crashes with what was carried on not flushed",
    "crashes while a flush was under way",
    "crashes while a region was given up",
    "crashes while a volume was opened",
    "crashes while one was opened that had crashed so",
    "heads found after a restart",
    "heads found while running",
    "orderly ends",
    "pieces read after a restart",
    "pieces read while running",
    "processes begun from a crash of one begun from a crash",
    "restarts",
    "writes kept",
    "writes lost",
    "writes overtaken",
    "writes torn",
];

const HEALTHY: &[&str] =
    &["durable blocks that had to be there", "durable heads that had to be the newest"];

const FAILING: &[&str] = &[
    "flushes failed",
    "flushes or writes stalled",
    "heads that could be the newest no more",
    "reads failed",
    "reads failed while a volume was opened",
    "reads stalled",
    "reads stalled while a volume was opened",
    "writes failed",
    "writes failed while a volume was opened",
];

const LYING: &[&str] =
    &["bits flipped", "bits flipped while a volume was opened", "writes misdirected"];

impl Covered {
    pub(super) fn add(&mut self, what: &'static str, count: u64) {
        if count > 0 {
            *self.0.entry(what).or_default() += count;
        }
    }

    pub(super) fn add_all(&mut self, other: &Covered) {
        other.0.iter().for_each(|(what, count)| self.add(what, *count));
    }

    /// What a device did while it was worked with.
    pub(super) fn worked(&mut self, harm: &Harm) {
        self.add("reads stalled", harm.reads_stalled);
        self.add("flushes or writes stalled", harm.writes_stalled);
        self.add("reads failed", harm.reads_failed);
        self.add("writes failed", harm.writes_failed);
        self.add("flushes failed", harm.flushes_failed);
        self.add("bits flipped", harm.bits_flipped);
        self.add("writes misdirected", harm.writes_misdirected);
        self.crashed(harm);
    }

    /// What one did while a volume was opened.
    pub(super) fn opened(&mut self, harm: &Harm) {
        self.add("reads stalled while a volume was opened", harm.reads_stalled);
        self.add("reads failed while a volume was opened", harm.reads_failed);
        self.add("writes failed while a volume was opened", harm.writes_failed);
        self.add("flushes failed while a volume was opened", harm.flushes_failed);
        self.add("bits flipped while a volume was opened", harm.bits_flipped);
        self.add("writes misdirected while a volume was opened", harm.writes_misdirected);
        self.crashed(harm);
    }

    fn crashed(&mut self, harm: &Harm) {
        self.add("writes overtaken", harm.writes_overtaken);
        self.add("reads of sectors under way", harm.reads_mixed);
        self.add("writes lost", harm.writes_lost);
        self.add("writes torn", harm.writes_torn);
        self.add("writes kept", harm.writes_kept);
        self.add("crashes that reordered writes", harm.crashes_reordered);
    }

    /// What has to happen to such devices and did not.
    pub(super) fn never(&self, sickness: Sickness) -> Vec<&'static str> {
        let own = match sickness {
            Sickness::None => HEALTHY,
            Sickness::Failing => FAILING,
            Sickness::Lying => LYING,
        };
        let all = ALWAYS.iter().chain(own).copied();
        all.filter(|what| !self.0.contains_key(what)).collect()
    }
}

impl fmt::Display for Covered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(what, count)| writeln!(f, "{count:>12} {what}"))
    }
}
