//! Which blocks are chosen: those seen before, and of a title that is likely to be seen again.

use std::sync::atomic::Ordering;

use super::budget::Strictness;
use super::sights::Seen;
use super::{Admission, RETURN_SHARE_MIN, Sight, Use};
use crate::object::SiteId;

impl Admission {
    /// Seen before, or likely to be seen again; marks the use.
    pub(super) fn is_chosen(&self, sight: &Sight) -> bool {
        let is_new = match sight.kind {
            Use::FillInside => !self.sights.knows(sight.block_hash),
            Use::Fill | Use::RamHit | Use::Planned => self.mark(sight) == Seen::First,
        };
        if !is_new {
            return true;
        }
        let strictness = self.strictness_for(sight.site);
        let Some(factor) = strictness.title_factor() else { return false };
        let Some(used_share) = self.used_share() else { return true };
        let site = usize::from(sight.site.0);
        let return_share = self.titles.return_share(sight.title_hash, site);
        return_share > (used_share * factor).max(RETURN_SHARE_MIN)
    }

    /// The part of the blocks reclaimed of late that had been used; `None` before any was.
    pub(super) fn used_share(&self) -> Option<f64> {
        let share = f64::from_bits(self.used_share.load(Ordering::Relaxed));
        (!share.is_nan()).then_some(share)
    }

    pub(super) fn mark(&self, sight: &Sight) -> Seen {
        let window = self.strictness_for(sight.site).window();
        let seen = self.sights.mark(sight.block_hash, sight.bytes, window);
        self.titles.learn(sight.title_hash, usize::from(sight.site.0), seen);
        seen
    }

    /// Who has more than his part bears what the budget lacks: the others' blocks are chosen as if
    /// it were not short.
    pub(super) fn strictness_for(&self, site: SiteId) -> Strictness {
        let strictness = self.strictness();
        match strictness > Strictness::CHOSEN && self.shares.is_within_its_part(site) {
            true => Strictness::CHOSEN,
            false => strictness,
        }
    }
}
