//! What came of changes to a state since the start, counted for who looks after it.

use std::fmt;

use prometheus::core::Collector;
use prometheus::{IntCounterVec, Opts};

use super::{By, StateError};

/// The counts.
pub struct Commits {
    results: IntCounterVec,
    audit: IntCounterVec,
}

impl fmt::Debug for Commits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Commits").finish_non_exhaustive()
    }
}

impl Default for Commits {
    fn default() -> Commits {
        let counters = |name: &str, help: &str, label: &str, words: &[&str]| {
            let named = "their names are valid";
            let counters = IntCounterVec::new(Opts::new(name, help), &[label]).expect(named);
            words.iter().for_each(|word| drop(counters.with_label_values(&[word])));
            counters
        };
        let results = counters(
            "tidegate_control_commits_total",
            "Changes to the state: made, tried again because another was first, or failed.",
            "result",
            &RESULTS,
        );
        let audit = counters(
            "tidegate_control_audit_records_total",
            "Records written of who changed what, by whether it was an operator or a box.",
            "of",
            &BYS,
        );
        Commits { results, audit }
    }
}

impl Commits {
    /// What they are collected by.
    pub fn collectors(&self) -> [Box<dyn Collector>; 2] {
        [Box::new(self.results.clone()), Box::new(self.audit.clone())]
    }

    /// Counts what came of one, with what it wrote down.
    pub(super) fn count(&self, came: &Result<bool, StateError>, audit: Option<By>) {
        let place = match came {
            Ok(true) => 0,
            Ok(false) => 1,
            Err(_) => 2,
        };
        self.results.with_label_values(&[RESULTS[place]]).inc();
        if let (Ok(true), Some(by)) = (came, audit) {
            let place = By::ALL.iter().position(|one| *one == by).unwrap_or_default();
            self.audit.with_label_values(&[BYS[place]]).inc();
        }
    }
}

const RESULTS: [&str; 3] = ["made", "contended", "failed"];
/// In the order of [`By::ALL`].
const BYS: [&str; 2] = ["operator", "box"];
