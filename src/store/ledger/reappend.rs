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
    /// The least score of a block.
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
    let score_min = if is_small_head(entry) { 1 } else { rule.score_min };
    entry.planned || entry.score >= score_min
}
