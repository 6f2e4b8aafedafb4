//! What only one of two processes can have: volumes, and the journal of purges. Handed over, and
//! taken back from one that had them and follows no more.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::super::{LOG_ENDS_WITHIN, ssd};
use super::HandOver;
use crate::config::Config;

impl HandOver {
    /// Volumes and journal are as this process would leave them at its end.
    pub(super) fn give_volumes(&self) -> Result<(), String> {
        let parts = &self.parts;
        self.are_given.store(true, Ordering::Release);
        parts.filler.runtime.block_on(ssd::hand_over(&parts.ssd, &parts.ssd_watch));
        let keeper = parts.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Err(keeper)) = keeper.map(|keeper| keeper.finish(LOG_ENDS_WITHIN)) else {
            return Ok(());
        };
        // It may write what the other one would not read.
        *parts.keeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(keeper);
        Err("the journal of purges does not end".to_owned())
    }

    /// Writes to the volumes and purges again, when who had them has ended. Blocks.
    ///
    /// # Errors
    /// What is not written any more, and what to do.
    pub(super) fn take_back(&self) -> Result<(), String> {
        let parts = &self.parts;
        let current = parts.live.current.lock().unwrap_or_else(PoisonError::into_inner);
        let config = current.started.clone();
        drop(current);
        let (runtime, watch) = (&parts.filler.runtime, &parts.ssd_watch);
        let volumes = ssd::take_back(&config, &parts.ssd, watch, runtime);
        let journal = self.take_journal_back(&config);
        self.are_given.store(false, Ordering::Release);
        let mut lost = Vec::new();
        if let Err(names) = volumes {
            lost.push(format!("nothing is written to volume {}", names.join(", ")));
        }
        if let Err(why) = journal {
            lost.push(format!("nothing can be purged: {why}"));
        }
        match lost.is_empty() {
            true => Ok(()),
            false => {
                Err(format!("; and {}: restart the service if it stays so", lost.join(", and ")))
            }
        }
    }

    /// Unless the thread that wrote it before may write to it yet.
    fn take_journal_back(&self, config: &Config) -> Result<(), String> {
        let purges = &self.parts.purges;
        let mut keeper = self.parts.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(keeper) = &*keeper {
            purges.tell_nobody();
            let silent = || "the disk of `ssd.state` does not answer".to_owned();
            return if keeper.is_at_work() { Ok(()) } else { Err(silent()) };
        }
        let journal = (!config.ssd.volumes.is_empty()).then(|| config.ssd.purges());
        let started = purges.go_on(journal.as_deref()).map_err(|error| error.to_string())?;
        *keeper = Some(started);
        Ok(())
    }

    /// This process ends before anybody follows: what ended since the volumes were handed over must
    /// not come back with them. Blocks.
    pub fn give_up(&self) {
        if self.are_given.load(Ordering::Acquire) {
            ssd::leave_untold(&self.parts.config);
        }
    }
}
