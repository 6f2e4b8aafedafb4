//! What a volume does for itself: keeps free regions ready, takes checkpoints, puts away regions
//! that fail.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::store::format::{FilledFor, RegionEntry, RegionState};
use crate::store::index::RegionId;
use crate::store::ledger::RegionPhase;

use super::core::{Core, UNBROKEN};
use super::reclaim::Late;

/// From the end of a checkpoint that was wanted to the next one, at the least; and as a multiple of
/// what it took. What is forgotten beside a full queue are many heads, and one checkpoint tells of
/// all of them: a fifth of the time may go into that.
const WANTED_PAUSE_MIN: Duration = Duration::from_millis(500);
const WANTED_PAUSE_FACTOR: u32 = 4;

/// Works until it is told to stop.
pub(super) async fn run(core: Arc<Core>) {
    let mut stopping = core.stopping.subscribe();
    let mut next = Instant::now() + core.settings.checkpoint_interval;
    let mut wanted_from = Instant::now();
    loop {
        let is_wanted = core.checkpoints.is_due();
        tokio::select! {
            biased;
            () = stopped(&mut stopping) => return,
            () = core.upkeep_wanted.notified() => core.keep_ready(&mut wanted_from).await,
            () = sleep_until(wanted_from), if is_wanted => {
                core.checkpoint_if_wanted(&mut wanted_from).await;
            }
            () = sleep_until(next) => {
                core.checkpoint_if_changed().await;
                next = Instant::now() + core.settings.checkpoint_interval;
            }
        }
    }
}

async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error says that the volume is gone: that is the same.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

impl Core {
    async fn keep_ready(&self, wanted_from: &mut Instant) {
        self.checkpoint_if_wanted(wanted_from).await;
        self.put_away_ill().await;
        // Bounded: what is carried on takes regions too, so a round may win nothing.
        for _ in 0..self.geometry.regions() {
            let enough = self.ledger.free_regions() >= self.regions_ready();
            if *self.stopping.borrow() || !self.health.is_writable() || enough {
                break;
            }
            let mut upkeep = self.upkeep.lock().await;
            if !self.reclaim(&mut upkeep, Late::IsKept).await {
                break;
            }
            drop(upkeep);
            self.checkpoint_if_wanted(wanted_from).await;
        }
        if self.index_is_full() && self.health.is_writable() {
            let mut upkeep = self.upkeep.lock().await;
            self.reclaim(&mut upkeep, Late::IsKept).await;
        }
    }

    /// Whether it holds as many entries as it was made for: a few more would find a place, but
    /// soon one would not.
    pub(super) fn index_is_full(&self) -> bool {
        let index = self.index();
        index.heads() + index.blocks() >= self.geometry.index_entries_max()
    }

    /// Something was forgotten that only the next checkpoint can tell of.
    pub(super) fn want_checkpoint(&self) {
        self.checkpoints.wanted.fetch_add(1, Ordering::AcqRel);
        self.upkeep_wanted.notify_one();
    }

    /// Takes one, if one is wanted and it is not before `from`.
    async fn checkpoint_if_wanted(&self, from: &mut Instant) {
        if Instant::now() < *from || !self.checkpoints.is_due() {
            return;
        }
        // Who gives up a region may hold it for long: that is no work of checkpoints.
        let mut upkeep = self.upkeep.lock().await;
        let wanted = self.checkpoints.wanted.load(Ordering::Acquire);
        let began = Instant::now();
        self.take_checkpoint(&mut upkeep).await;
        self.checkpoints.taken.store(wanted, Ordering::Release);
        *from = Instant::now() + (began.elapsed() * WANTED_PAUSE_FACTOR).max(WANTED_PAUSE_MIN);
    }

    async fn checkpoint_if_changed(&self) {
        let mut upkeep = self.upkeep.lock().await;
        let next_write = self.sequence.load(Ordering::Relaxed);
        if next_write != upkeep.next_write {
            self.take_checkpoint(&mut upkeep).await;
        }
    }

    /// Whether one was taken.
    pub(super) async fn checkpoint_now(&self) -> bool {
        let mut upkeep = self.upkeep.lock().await;
        self.take_checkpoint(&mut upkeep).await
    }

    /// Takes regions that failed twice out of use. One that is open is left until it is sealed. As
    /// with those given up, a checkpoint knows what they held: no older head comes back instead.
    async fn put_away_ill(&self) {
        let ill: Vec<RegionId> = self.ill_regions.lock().expect(UNBROKEN).iter().copied().collect();
        for region in ill {
            let mut upkeep = self.upkeep.lock().await;
            let phase = self.ledger.phase(region);
            if matches!(phase, RegionPhase::Sealed { order, .. } if order >= upkeep.sealed_before) {
                self.take_checkpoint(&mut upkeep).await;
            }
            // Regions are opened under this lock: what is free now stays free.
            let mut table = self.table.lock().await;
            match self.ledger.phase(region) {
                RegionPhase::Free => {}
                RegionPhase::Sealed { order, .. } if order < upkeep.sealed_before => {}
                _ if !self.health.is_writable() => {}
                _ => continue,
            }
            self.ill_regions.lock().expect(UNBROKEN).remove(&region);
            if !self.health.is_writable() {
                continue;
            }
            let (name, number) = (&self.name, region.0);
            tracing::warn!(
                "volume {name}: region {number} has failed twice, and is out of use until the \
                 volume is formatted anew (`tidegate volume format`, which empties it)"
            );
            self.ledger.quarantine(region);
            self.forget_region(region).await;
            let generation = self.ledger.generation(region);
            let (state, filled_for) = (RegionState::Quarantined, FilledFor::Demand);
            table.set(region, RegionEntry { generation, state, filled_for, sealed: 0 });
            if let Err(error) = table.commit(&self.metadata()).await {
                self.metadata_failed(&error);
            }
        }
    }
}
