//! Once a second: tells admission what was written and what was given up, and the volumes how much
//! is worth carrying over.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::{MissedTickBehavior, interval};

use crate::cache::ssd::{Ssd, TierVolume};

impl Ssd {
    /// Goes on until it is dropped.
    pub async fn tend(self: Arc<Self>) {
        let mut seconds = interval(Duration::from_secs(1));
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            seconds.tick().await;
            let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            for place in self.volumes.online() {
                place.tend(since_epoch.as_secs() / DAY.as_secs());
            }
        }
    }
}

/// The time in which a volume may be written as much as its setting says.
pub const DAY: Duration = Duration::from_secs(24 * 3_600);

/// How far a volume's figures have been told.
#[derive(Default)]
pub(super) struct Told {
    written_bytes: u64,
    reclaimed: u64,
    used: u64,
    /// The day, counted from 1970, and what had been written when it began.
    day: Option<(u64, u64)>,
}

impl TierVolume {
    fn tend(&self, day: u64) {
        let volume = self.volume();
        let figures = volume.figures();
        let mut told = self.told();
        let written_bytes = figures.written.total();
        // Counters only rise, and nobody else tells.
        self.admission.wrote(written_bytes - told.written_bytes);
        let reclaimed = figures.blocks_reclaimed - told.reclaimed;
        self.admission.reclaimed(reclaimed, figures.used_blocks_reclaimed - told.used);
        volume.set_reappend_score_min(self.admission.reappend_score_min());
        if told.day.is_none_or(|(known, _)| known != day) {
            // Of the first day only what is written from the start on is known.
            let before = if told.day.is_none() { 0 } else { told.written_bytes };
            told.day = Some((day, before));
        }
        told.written_bytes = written_bytes;
        told.reclaimed = figures.blocks_reclaimed;
        told.used = figures.used_blocks_reclaimed;
    }

    /// Bytes written since midnight, UTC, or since the start if that was later.
    pub fn written_today_bytes(&self) -> u64 {
        let told = self.told();
        told.day.map_or(0, |(_, before)| told.written_bytes - before)
    }
}
