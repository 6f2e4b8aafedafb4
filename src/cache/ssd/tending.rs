//! Tells admission what was written and what was given up, and the volumes how much is worth
//! carrying over. What was written today is known after a restart too.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{MissedTickBehavior, interval};

use crate::cache::admission::{DAY, SavedError};
use crate::cache::ssd::{Ssd, TierVolume};
use crate::moment::unix_seconds;

impl Ssd {
    /// Goes on until it is dropped.
    pub async fn tend(self: Arc<Self>) {
        let mut seconds = interval(TOLD_EVERY);
        seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            seconds.tick().await;
            let today = unix_seconds(SystemTime::now()) / DAY.as_secs();
            for tier_volume in self.volumes.online() {
                tier_volume.tend(today);
            }
        }
    }
}

/// A few figures from memory; what is decided by them moves in minutes.
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// How far a volume's figures have been told.
#[derive(Default)]
pub(super) struct Told {
    written_bytes: u64,
    reclaimed: u64,
    used: u64,
    /// What is written today; `None` before anything was told.
    today: Option<Today>,
    /// The day of the last checkpoint, and what had been written on it.
    saved: Option<(u64, u64)>,
}

#[derive(Clone, Copy)]
struct Today {
    /// Counted from 1970.
    day: u64,
    /// What this process had written when it began.
    before_bytes: u64,
    /// What others had written on it before this process.
    others_bytes: u64,
}

impl Told {
    fn begin(&mut self, day: u64) {
        let saved = self.saved.take().filter(|(saved, _)| *saved == day);
        let before_bytes = if self.today.is_none() { 0 } else { self.written_bytes };
        let others_bytes = saved.map_or(0, |(_, bytes)| bytes);
        self.today = Some(Today { day, before_bytes, others_bytes });
    }

    /// Another one takes the volume's place, which has written nothing yet.
    pub(super) fn begin_anew(&mut self) {
        let others_bytes = self.written_today_bytes();
        self.today =
            self.today.map(|Today { day, .. }| Today { day, before_bytes: 0, others_bytes });
        (self.written_bytes, self.reclaimed, self.used) = (0, 0, 0);
    }

    /// The day, and what was written on it; before anything was told, as a checkpoint had it.
    fn on_day(&self) -> (u64, u64) {
        let today = self.today.map(|today| (today.day, self.written_today_bytes()));
        today.or(self.saved).unwrap_or_default()
    }

    fn written_today_bytes(&self) -> u64 {
        let written = |today: Today| today.others_bytes + self.written_bytes - today.before_bytes;
        self.today.map_or(0, written)
    }
}

impl TierVolume {
    pub(super) fn tend(&self, day: u64) {
        let mut told = self.told();
        let volume = self.volume();
        let figures = volume.figures();
        let written_bytes = figures.written.total();
        // Counters only rise, and nobody else tells.
        self.admission.wrote(written_bytes - told.written_bytes);
        let reclaimed = figures.blocks_reclaimed - told.reclaimed;
        self.admission.reclaimed(reclaimed, figures.used_blocks_reclaimed - told.used);
        volume.set_reappend_score_min(self.admission.reappend_score_min());
        if told.today.is_none_or(|today| today.day != day) {
            told.begin(day);
        }
        told.written_bytes = written_bytes;
        told.reclaimed = figures.blocks_reclaimed;
        told.used = figures.used_blocks_reclaimed;
    }

    /// Bytes written since midnight, UTC; after a crash without those of the time since the last
    /// checkpoint before it.
    pub fn written_today_bytes(&self) -> u64 {
        self.told().written_today_bytes()
    }

    /// What a checkpoint keeps: what admission knows, then the day and what was written on it.
    pub(super) fn save(&self) -> Vec<u8> {
        let mut saved = self.admission.save();
        let (day, bytes) = self.told().on_day();
        for word in [day, bytes] {
            saved.extend(word.to_le_bytes());
        }
        saved
    }

    /// Takes over what [`TierVolume::save`] gave, or what admission alone did before there was
    /// more to keep.
    ///
    /// # Errors
    /// As [`Admission::restore`](crate::cache::admission::Admission::restore).
    pub(super) fn restore(&self, saved: &[u8]) -> Result<(), SavedError> {
        if let Some((known, today)) = saved.split_last_chunk::<16>()
            && self.admission.restore(known).is_ok()
        {
            let word = |at: usize| today[at..at + 8].try_into().map(u64::from_le_bytes);
            let [day, bytes] = [0, 8].map(|at| word(at).expect("eight bytes"));
            self.told().saved = Some((day, bytes));
            return Ok(());
        }
        self.admission.restore(saved)
    }
}
