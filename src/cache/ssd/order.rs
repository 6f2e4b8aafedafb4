//! One change of an object's heads at a time, in ram and on volumes together.
//!
//! What is written is what ram knows at that moment, and what a volume gave back is put into ram
//! only if nothing has changed since it was asked: else an older head would come back. Held for
//! memory accesses only.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::store::ObjectHash;

const STRIPES: usize = 64;

/// Locks by object; in each, the objects that volumes are asked for and nothing has changed since.
pub(super) struct Order([Mutex<HashSet<ObjectHash>>; STRIPES]);

impl Default for Order {
    fn default() -> Order {
        Order(std::array::from_fn(|_| Mutex::default()))
    }
}

impl Order {
    /// `step` writes what ram knows.
    pub(super) fn write<T>(&self, object: ObjectHash, step: impl FnOnce() -> T) -> T {
        let _held = self.stripe(object);
        step()
    }

    /// `step` changes what is known: what volumes gave before counts no more.
    pub(super) fn change<T>(&self, object: ObjectHash, step: impl FnOnce() -> T) -> T {
        let mut recalled = self.stripe(object);
        recalled.remove(&object);
        step()
    }

    /// From now on volumes are asked for the object; one asks at a time.
    pub(super) fn ask(&self, object: ObjectHash) {
        self.stripe(object).insert(object);
    }

    /// `step` puts into ram what volumes gave, unless something has changed; whether it did.
    pub(super) fn answer(&self, object: ObjectHash, step: impl FnOnce()) -> bool {
        let mut recalled = self.stripe(object);
        let unchanged = recalled.remove(&object);
        if unchanged {
            step();
        }
        unchanged
    }

    /// They gave nothing to put into ram.
    pub(super) fn give_up(&self, object: ObjectHash) {
        self.stripe(object).remove(&object);
    }

    /// How many objects volumes are asked for.
    #[cfg(test)]
    pub(super) fn asked(&self) -> usize {
        let objects = |stripe: &Mutex<HashSet<_>>| stripe.lock().map_or(0, |held| held.len());
        self.0.iter().map(objects).sum()
    }

    fn stripe(&self, object: ObjectHash) -> MutexGuard<'_, HashSet<ObjectHash>> {
        self.0[object.0 as usize % STRIPES].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
