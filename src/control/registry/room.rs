//! Whether an appliance can take more viewers: gets fewer of them near its limit, none at it, and
//! the next ones only when it is well below, so that it does not swing.

use serde::{Deserialize, Serialize};

use super::{Heartbeat, Rules};

/// What an appliance can still take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Room {
    /// Its share.
    Open,
    /// Less than its share.
    Tight {
        /// So much of it.
        share_percent: u8,
    },
    /// No new viewers; those who play from it may stay.
    Full,
}

impl Room {
    /// After a heartbeat that says how much of it is used.
    pub(super) fn after(self, used_percent: u8, rules: &Rules) -> Room {
        let stays_full = self == Room::Full && used_percent > rules.open_percent;
        if stays_full || used_percent >= rules.full_percent {
            return Room::Full;
        }
        if used_percent < rules.tight_percent {
            return Room::Open;
        }
        // From its whole share down to a tenth, so that what is left fills slowly.
        let left = u32::from(rules.full_percent - used_percent);
        let of = u32::from(rules.full_percent.saturating_sub(rules.tight_percent).max(1));
        Room::Tight { share_percent: (10 + 90 * left / of).min(100) as u8 }
    }
}

/// How much is used of what is scarcest.
pub(super) fn used_percent(heartbeat: &Heartbeat, capacity_bits_per_second: u64) -> u8 {
    let capacity = u128::from(capacity_bits_per_second.max(1));
    let free = u128::from(heartbeat.free_bits_per_second).min(capacity);
    let sent_percent = (capacity - free) * 100 / capacity;
    heartbeat.load_percent.min(100).max(sent_percent as u8)
}
