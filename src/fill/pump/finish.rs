//! How a run ends: counted, taken off the table, and told to its readers.

use std::sync::Arc;

use crate::fill::Filler;
use crate::fill::error::FillError;
use crate::fill::run::{Ended, Run, Sharing};
use crate::metrics::labels::RunEnd;

/// Ends the run whatever happens to the pump: readers never wait for one that is gone.
pub(super) struct Finish {
    pub(super) filler: Arc<Filler>,
    pub(super) run: Arc<Run>,
    pub(super) ended: Option<Ended>,
}

impl Drop for Finish {
    fn drop(&mut self) {
        let ended = self.ended.take().unwrap_or(Ended::Failed(Arc::new(FillError::Draining)));
        self.filler.counters.runs_finished.count(match &ended {
            Ended::Complete => RunEnd::Complete,
            Ended::Parked => RunEnd::Parked,
            Ended::Failed(error) if matches!(**error, FillError::Changed) => RunEnd::Changed,
            Ended::Failed(_) => RunEnd::Failed,
        });
        let version = &self.run.version;
        let lost = match &ended {
            Ended::Complete => false,
            Ended::Parked => !version.validator.is_strong(),
            Ended::Failed(_) => version.is_changed() || !version.validator.is_strong(),
        };
        if lost && self.run.sharing == Sharing::Shared {
            self.filler.forget(&self.run.key, version.id);
        }
        // Off the table first: who is woken must not find it again.
        self.filler.runs.remove(&self.run);
        self.run.finish(ended);
    }
}
