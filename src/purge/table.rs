//! The highest number of each thing that was purged.
//!
//! Bounded: where there would be too many, all of the site with the most of them is in doubt, and
//! its entries are forgotten. Does no I/O.

use std::collections::HashMap;

use super::scope::{
    ALL_SITES, Hardness, Kind, Scope, any_tag_name, object_name, prefix_name, site_name, tag_name,
};
use super::tags::Tags;
use crate::limits::{PURGE_PREFIXES_PER_SITE_MAX, PURGES_HELD_MAX};
use crate::object::ObjectKey;

/// One purge: what the journal holds a record of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Purge {
    pub(super) number: u64,
    /// Unix time.
    pub(super) at_seconds: u64,
    pub(super) scope: Scope,
    pub(super) hardness: Hardness,
}

/// What is known of one thing that was purged; zero: never so.
#[derive(Clone, Copy, Debug)]
struct Entry {
    site: u64,
    hard: u64,
    soft: u64,
    /// When that was first; [`UNKNOWN_SINCE`]: it stands for purges that may have been hard.
    soft_at_seconds: u64,
    kind: Kind,
    prefix_bytes: u16,
}

/// What purges leave of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Covered {
    Not,
    Stale {
        since_seconds: u64,
    },
    /// By a purge that stands for others, hard ones too.
    Doubted,
    Gone,
}

/// Of a fold, which stands for more than one purge: whatever it covers is asked about.
pub(super) const UNKNOWN_SINCE: u64 = 0;

/// Everything that was purged.
#[derive(Debug, Default)]
pub(super) struct Table {
    entries: HashMap<u128, Entry>,
    prefixes: HashMap<u64, Prefixes>,
}

/// Those of a site.
#[derive(Debug, Default)]
struct Prefixes {
    count: usize,
    /// The lengths that they have, in order.
    lengths: Vec<u16>,
}

impl Table {
    /// How many things.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// What purges leave of a head that was born with this number.
    pub(super) fn covers(&self, site: u64, key: &ObjectKey, tags: &Tags, born: u64) -> Covered {
        let mut sum = Sum { born, is_gone: false, since_seconds: None };
        let mut look = |name: u128| sum.add(self.entries.get(&name));
        look(site_name(site));
        look(site_name(ALL_SITES));
        look(object_name(site, key.target()));
        let path = key.path().as_bytes();
        for length in self.prefixes.get(&site).into_iter().flat_map(|of_site| &of_site.lengths) {
            // In order: the others are longer.
            let Some(prefix) = path.get(..usize::from(*length)) else { break };
            look(prefix_name(site, prefix));
        }
        for site in [site, ALL_SITES] {
            tags.hashes().iter().for_each(|tag| look(tag_name(site, *tag)));
            if tags.are_all() {
                look(any_tag_name(site));
            }
        }
        match sum {
            Sum { is_gone: true, .. } => Covered::Gone,
            Sum { since_seconds: Some(UNKNOWN_SINCE), .. } => Covered::Doubted,
            Sum { since_seconds: Some(since_seconds), .. } => Covered::Stale { since_seconds },
            _ => Covered::Not,
        }
    }

    /// Adds a purge for which there is room.
    pub(super) fn apply(&mut self, purge: &Purge) {
        let Purge { scope, hardness, .. } = *purge;
        let forgets =
            scope.kind == Kind::Fold || (scope.kind == Kind::Site && hardness == Hardness::Hard);
        if forgets {
            let whole = site_name(scope.site);
            self.entries.retain(|name, entry| entry.site != scope.site || *name == whole);
            self.prefixes.remove(&scope.site);
        }
        let is_new = !self.entries.contains_key(&scope.name);
        self.raise(scope.name, purge);
        match scope.kind {
            Kind::Tag => self.raise(any_tag_name(scope.site), purge),
            Kind::Prefix => {
                let Prefixes { count, lengths } = self.prefixes.entry(scope.site).or_default();
                *count += usize::from(is_new);
                if let Err(place) = lengths.binary_search(&scope.prefix_bytes) {
                    lengths.insert(place, scope.prefix_bytes);
                }
            }
            Kind::Site | Kind::Object | Kind::Fold => {}
        }
    }

    fn raise(&mut self, name: u128, purge: &Purge) {
        let Scope { kind, site, prefix_bytes, .. } = purge.scope;
        let kind = if kind == Kind::Fold { Kind::Site } else { kind };
        let fresh = Entry { site, hard: 0, soft: 0, soft_at_seconds: 0, kind, prefix_bytes };
        let entry = self.entries.entry(name).or_insert(fresh);
        match purge.hardness {
            Hardness::Hard => entry.hard = entry.hard.max(purge.number),
            Hardness::Soft if entry.soft < purge.number => {
                // What both cover does not begin to be stale anew.
                let is_first = entry.soft == 0;
                let before = if is_first { u64::MAX } else { entry.soft_at_seconds };
                (entry.soft, entry.soft_at_seconds) = (purge.number, purge.at_seconds.min(before));
            }
            Hardness::Soft => {}
        }
    }

    /// The site that must be folded before there is room for `scope`.
    pub(super) fn without_room_for(&self, scope: &Scope) -> Option<u64> {
        if self.entries.contains_key(&scope.name) || matches!(scope.kind, Kind::Site | Kind::Fold) {
            return None;
        }
        if scope.kind == Kind::Prefix {
            let count = self.prefixes.get(&scope.site).map_or(0, |of_site| of_site.count);
            if count >= PURGE_PREFIXES_PER_SITE_MAX {
                return Some(scope.site);
            }
        }
        // A tag's entry, and that of any tag.
        (self.entries.len() + 2 > PURGES_HELD_MAX).then(|| self.fullest())
    }

    fn fullest(&self) -> u64 {
        let mut counts = HashMap::<u64, usize>::new();
        for entry in self.entries.values() {
            *counts.entry(entry.site).or_default() += 1;
        }
        let most = counts.into_iter().max_by_key(|(site, count)| (*count, *site));
        most.expect("a table without room has entries").0
    }

    /// All of it as purges, in the order of their numbers.
    pub(super) fn purges(&self) -> Vec<Purge> {
        let mut purges = Vec::with_capacity(self.entries.len());
        for (name, entry) in &self.entries {
            // What stands for any tag follows from the tags.
            if entry.kind == Kind::Tag && *name == any_tag_name(entry.site) {
                continue;
            }
            let scope = Scope {
                kind: entry.kind,
                site: entry.site,
                name: *name,
                prefix_bytes: entry.prefix_bytes,
            };
            let (hard, soft) = ((entry.hard, 0), (entry.soft, entry.soft_at_seconds));
            for ((number, at_seconds), hardness) in [(hard, Hardness::Hard), (soft, Hardness::Soft)]
            {
                if number > 0 {
                    purges.push(Purge { number, at_seconds, scope, hardness });
                }
            }
        }
        purges.sort_unstable_by_key(|purge| purge.number);
        purges
    }
}

/// What the entries that were looked at come to.
struct Sum {
    born: u64,
    is_gone: bool,
    since_seconds: Option<u64>,
}

impl Sum {
    fn add(&mut self, entry: Option<&Entry>) {
        let Some(entry) = entry else { return };
        self.is_gone |= entry.hard > self.born;
        if entry.soft > self.born {
            let at = entry.soft_at_seconds;
            self.since_seconds = Some(self.since_seconds.map_or(at, |since| since.min(at)));
        }
    }
}
