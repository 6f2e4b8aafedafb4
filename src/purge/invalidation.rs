//! Objects that an unsafe request changed (RFC 9111 section 4.4), for the answers under way.
//!
//! Not purges. Whoever may send such requests can send as many as he likes: they must not fill the
//! table of purges, whose overflow asks about a whole site, nor cost a record in its journal each.
//! What is held of the object is forgotten where it is held. What is left are answers that were
//! asked for before and come after, and are to be kept nowhere: of them, and of nothing else, these
//! marks tell. There are as many marks as there will ever be, and objects share them by a hash that
//! nobody outside knows: what shares one is asked for once more, or not kept, and no worse.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::limits::INVALIDATION_MARKS;
use crate::object::ObjectKey;

/// The number of the last invalidation of what shares a mark; they are counted from one.
pub(super) struct Marks {
    count: AtomicU64,
    marks: Box<[AtomicU64]>,
    hasher: RandomState,
}

impl Marks {
    pub(super) fn new() -> Marks {
        let marks = std::iter::repeat_with(AtomicU64::default).take(INVALIDATION_MARKS).collect();
        Marks { count: AtomicU64::new(0), marks, hasher: RandomState::new() }
    }

    /// How many there were: what is asked for now is younger than those.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// What was asked for before is not to be kept.
    pub(super) fn add(&self, key: &ObjectKey) {
        let number = self.count.fetch_add(1, Ordering::AcqRel) + 1;
        self.mark(key).fetch_max(number, Ordering::AcqRel);
    }

    /// Whether there was one since so many were counted.
    pub(super) fn cover(&self, key: &ObjectKey, counted: u64) -> bool {
        self.mark(key).load(Ordering::Acquire) > counted
    }

    fn mark(&self, key: &ObjectKey) -> &AtomicU64 {
        &self.marks[self.hasher.hash_one(key) as usize % self.marks.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::SiteId;

    #[test]
    fn what_was_asked_before_is_covered_and_what_is_asked_after_is_not() {
        let (marks, key) = (Marks::new(), |name: &str| ObjectKey::new(SiteId(0), name));
        let before = marks.count();
        assert!(!marks.cover(&key("/a"), before));
        marks.add(&key("/a"));
        assert!(marks.cover(&key("/a"), before));
        assert!(!marks.cover(&key("/a"), marks.count()));
        let others = (0..1_000).map(|n| key(&format!("/{n}")));
        assert!(others.filter(|other| marks.cover(other, before)).count() < 10);
    }

    #[test]
    fn any_number_of_them_takes_the_same_room() {
        let marks = Marks::new();
        for number in 0..100_000 {
            marks.add(&ObjectKey::new(SiteId(0), &format!("/{number}")));
        }
        assert_eq!(marks.marks.len(), INVALIDATION_MARKS);
        assert_eq!(marks.count(), 100_000);
    }
}
