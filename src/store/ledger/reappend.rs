//! What earns another lap when its region is given up, and what a record counts for until then.

use crate::store::index::{Entry, Kind, Location, Shape};

/// The score up to which uses count when regions are compared.
pub const COUNTED_SCORE_MAX: u8 = 3;
/// The score a small head starts with: it stays for two laps without a use, because the blocks of
/// its object are worth nothing without it.
const HEAD_SCORE: u8 = 2;

/// What earns another lap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReappendRule {
    /// The least score of a block; at least 1, or nobody would ever be left behind.
    pub score_min: u8,
    /// How much of a region may be carried over, in percent: below 100, or nothing is won.
    pub share_max_percent: u32,
}

impl Default for ReappendRule {
    /// Where the oldest regions are in use throughout, each gives up what may not be carried over:
    /// with 90 %, a tenth of a hot set in one lap. Halving the scores ends such a lap.
    fn default() -> ReappendRule {
        ReappendRule { score_min: 2, share_max_percent: 97 }
    }
}

/// A record that earned another lap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keeper {
    /// Its place among the records that were asked about.
    pub which: usize,
    /// As it is to be inserted again: score halved, free lap used; location still the old one.
    pub entry: Entry,
}

/// A head as it comes into the index.
pub fn new_head(location: Location, granules: u32) -> Entry {
    let head = Entry { location, shape: Shape::Head { granules }, score: 0, planned: false };
    Entry { score: if is_small_head(&head) { HEAD_SCORE } else { 0 }, ..head }
}

/// Of the records that are left of a region, those that earn another lap: heads and the best
/// blocks, in the order they lie.
pub(super) fn best(
    live: impl Iterator<Item = Keeper>,
    region_granules: u64,
    rule: ReappendRule,
) -> Vec<Keeper> {
    let mut found: Vec<Keeper> = live.filter(|k| earns_a_lap(&k.entry, rule)).collect();
    found.sort_by_key(|k| (!is_small_head(&k.entry), u8::MAX - worth(&k.entry), k.which));
    let most = region_granules * u64::from(rule.share_max_percent) / 100;
    let mut granules = 0;
    found.retain(|keeper| {
        let with = granules + u64::from(keeper.entry.shape.granules());
        let fits = with <= most;
        granules = if fits { with } else { granules };
        fits
    });
    found.sort_by_key(|keeper| keeper.which);
    for keeper in &mut found {
        keeper.entry.score /= 2;
        keeper.entry.planned = false;
    }
    found
}

/// What a record counts for where regions are compared.
pub(super) fn weight(entry: &Entry) -> i64 {
    i64::from(entry.shape.granules()) * i64::from(worth(entry))
}

fn worth(entry: &Entry) -> u8 {
    if entry.planned { COUNTED_SCORE_MAX } else { entry.score.min(COUNTED_SCORE_MAX) }
}

/// A head in one granule; it shares it with others as a rule.
fn is_small_head(entry: &Entry) -> bool {
    entry.shape.kind() == Kind::Head && entry.shape.granules() == 1
}

fn earns_a_lap(entry: &Entry, rule: ReappendRule) -> bool {
    // A lap halves the score: what nobody uses ends at 0, and must not earn one by that.
    let score_min = if is_small_head(entry) { 1 } else { rule.score_min.max(1) };
    entry.planned || entry.score >= score_min
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::PieceMap;
    use crate::store::index::RegionId;

    #[test]
    fn what_nobody_uses_is_left_behind_whatever_the_least_score() {
        for score_min in 0..3 {
            let location = Location { region: RegionId(1), granule: 1 };
            let shape = Shape::block(PieceMap::run(0, 16), 1 << 20).unwrap();
            let entry = Entry { location, shape, score: u8::MAX, planned: true };
            let mut live = vec![
                Keeper { which: 0, entry },
                Keeper { which: 1, entry: new_head(location, 1) },
                Keeper { which: 2, entry: new_head(location, 9) },
            ];
            let rule = ReappendRule { score_min, ..ReappendRule::default() };
            let mut laps = 0;
            while !live.is_empty() {
                live = best(live.into_iter(), 16_384, rule);
                laps += 1;
                assert!(laps < 10, "with {score_min}: {live:?}");
            }
            assert!(laps > 2, "a lap for each use, about");
        }
    }
}
