//! What each site got of a volume of late, held against its part and the most it may have.
//!
//! A volume holds about what was written last, so what a site had admitted while half a volume to a
//! whole one was written is about what it holds. Kept for as long as the process lives, as a site's
//! number is. Nothing locks.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};

use crate::object::SiteId;
use crate::overload::{self, SHARERS_MAX, Sharer};

/// Parts of a million: shares are compared without floating point.
const WHOLE: u32 = 1_000_000;

/// Bytes admitted for each site, in two generations of half a volume.
pub(super) struct Shares {
    shares: Box<[AtomicU32]>,
    bytes: [Box<[AtomicU64]>; 2],
    current: AtomicUsize,
    filled_bytes: AtomicU64,
    volume_bytes: u64,
    /// What each has its part by.
    parts: overload::Shares,
    /// The same bytes by who has a part.
    of_parts: [[AtomicU64; SHARERS_MAX]; 2],
}

impl Shares {
    pub(super) fn new(volume_bytes: u64, sites_max: usize) -> Shares {
        let zeros = || (0..sites_max).map(|_| AtomicU64::new(0)).collect();
        Shares {
            shares: (0..sites_max).map(|_| AtomicU32::new(WHOLE)).collect(),
            bytes: [zeros(), zeros()],
            current: AtomicUsize::new(0),
            filled_bytes: AtomicU64::new(0),
            volume_bytes,
            parts: overload::Shares::default(),
            of_parts: [const { [const { AtomicU64::new(0) }; SHARERS_MAX] }; 2],
        }
    }

    /// What sites have their parts by, where not all can be written that is worth it.
    pub(super) fn set_parts(&self, sites: impl IntoIterator<Item = (SiteId, u32)>) {
        self.parts.set(sites);
    }

    /// Whether the site got less than its part, and so another more.
    pub(super) fn is_within_its_part(&self, site: SiteId) -> bool {
        let [one, other] = &self.of_parts;
        let had = std::array::from_fn(|index| {
            one[index].load(Ordering::Relaxed) + other[index].load(Ordering::Relaxed)
        });
        self.parts.is_within(Sharer::of(site), &had)
    }

    /// A site may have this part of the volume.
    pub(super) fn set(&self, site: usize, share: f64) {
        let parts = (share.clamp(0.0, 1.0) * f64::from(WHOLE)) as u32;
        self.shares[site].store(parts, Ordering::Relaxed);
    }

    /// Whether `bytes` more are too much for the site.
    pub(super) fn exceeds(&self, site: usize, bytes: u64) -> bool {
        let share = self.shares[site].load(Ordering::Relaxed);
        if share >= WHOLE {
            return false;
        }
        let has: u64 = self.bytes.iter().map(|of| of[site].load(Ordering::Relaxed)).sum();
        let may = u128::from(self.volume_bytes) * u128::from(share) / u128::from(WHOLE);
        u128::from(has) + u128::from(bytes) > may
    }

    /// Counts what was admitted.
    pub(super) fn admitted(&self, site: usize, bytes: u64) {
        let filled = self.filled_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let current = self.current.load(Ordering::Relaxed);
        let full = filled > self.volume_bytes / 2;
        // One of those who find it full turns it.
        if full
            && self
                .filled_bytes
                .compare_exchange(filled, 0, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            let ended = [&self.bytes[1 - current][..], &self.of_parts[1 - current]];
            ended.into_iter().flatten().for_each(|bytes| bytes.store(0, Ordering::Relaxed));
            self.current.store(1 - current, Ordering::Relaxed);
        }
        let current = self.current.load(Ordering::Relaxed);
        self.bytes[current][site].fetch_add(bytes, Ordering::Relaxed);
        let sharer = Sharer::of(SiteId(site as u16)).index();
        self.of_parts[current][sharer].fetch_add(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_is_stopped_at_its_share_until_others_wrote() {
        let shares = Shares::new(1_000, 2);
        shares.set(0, 0.25);
        let admit = |site, bytes| {
            let exceeds = shares.exceeds(site, bytes);
            if !exceeds {
                shares.admitted(site, bytes);
            }
            !exceeds
        };
        assert_eq!((0..100).filter(|_| admit(0, 10)).count(), 25);
        assert_eq!((0..100).filter(|_| admit(1, 10)).count(), 100, "no share, no limit");
        assert!(admit(0, 10), "a volume was written since");
    }
}
