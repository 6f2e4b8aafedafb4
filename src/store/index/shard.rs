//! One shard of the index: buckets of five entries, two for each key.
//!
//! Knows nothing of locks or counts. What has no free slot in either of its buckets may push one
//! entry into that entry's other bucket.

use super::entry::{Entry, Fingerprint, Kind, Location};

/// Entries in a bucket.
pub(super) const SLOTS: usize = 5;

/// A part of the table, under one lock.
pub(super) struct Shard {
    pub(super) buckets: Box<[Bucket]>,
}

/// Five entries.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Bucket {
    pub(super) words: [[u32; 3]; SLOTS],
    /// Bit `n`: slot `n` holds an entry.
    pub(super) held: u32,
}

/// A slot of a shard: bucket, and place in it.
pub(super) type Slot = (usize, usize);

/// A few slots, on the stack.
pub(super) struct Slots {
    slots: [Slot; 2 * SLOTS],
    count: usize,
}

impl Slots {
    /// At most all of two buckets.
    pub(super) fn of(slots: impl Iterator<Item = Slot>) -> Slots {
        let mut found = Slots { slots: [(0, 0); 2 * SLOTS], count: 0 };
        for slot in slots {
            found.slots[found.count] = slot;
            found.count += 1;
        }
        found
    }

    pub(super) fn as_slice(&self) -> &[Slot] {
        &self.slots[..self.count]
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&Slot) -> bool) {
        let all = self.slots;
        let count = std::mem::take(&mut self.count);
        for slot in all[..count].iter().filter(|slot| keep(slot)) {
            self.slots[self.count] = *slot;
            self.count += 1;
        }
    }
}

impl Shard {
    /// Empty.
    pub(super) fn new(buckets: usize) -> Shard {
        let empty = Bucket { words: [[0; 3]; SLOTS], held: 0 };
        Shard { buckets: vec![empty; buckets].into_boxed_slice() }
    }

    /// The two buckets of a key; one, if they are the same.
    fn homes(&self, key: Fingerprint) -> (usize, usize) {
        let first = key.place(self.buckets.len());
        (first, self.other_home(key.tag(), first))
    }

    /// The other bucket of what has this tag and lies in `bucket`: an involution, so that an entry
    /// can step aside without its key.
    fn other_home(&self, tag: u64, bucket: usize) -> usize {
        let count = self.buckets.len();
        let sum = (tag.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20) as usize % count;
        (sum + count - bucket) % count
    }

    pub(super) fn slots_of(&self, key: Fingerprint, kind: Kind) -> impl Iterator<Item = Slot> {
        let (first, second) = self.homes(key);
        let second = (second != first).then_some(second);
        let buckets = [Some(first), second].into_iter().flatten();
        let want = (key.tag(), kind);
        buckets.flat_map(move |bucket| {
            (0..SLOTS).map(move |slot| (bucket, slot)).filter(move |slot| {
                self.holds(*slot) && {
                    let (tag, entry) = Entry::unpack(self.buckets[slot.0].words[slot.1]);
                    (tag, entry.shape.kind()) == want
                }
            })
        })
    }

    pub(super) fn slot_at(&self, key: Fingerprint, kind: Kind, location: Location) -> Option<Slot> {
        self.slots_of(key, kind).find(|slot| self.entry(*slot).location == location)
    }

    pub(super) fn held_slots(&self) -> Vec<Slot> {
        let all = (0..self.buckets.len()).flat_map(|bucket| (0..SLOTS).map(move |s| (bucket, s)));
        all.filter(|slot| self.holds(*slot)).collect()
    }

    pub(super) fn holds(&self, (bucket, slot): Slot) -> bool {
        self.buckets[bucket].held & 1 << slot != 0
    }

    pub(super) fn entry(&self, (bucket, slot): Slot) -> Entry {
        Entry::unpack(self.buckets[bucket].words[slot]).1
    }

    pub(super) fn put(&mut self, (bucket, slot): Slot, words: [u32; 3]) {
        self.buckets[bucket].words[slot] = words;
        self.buckets[bucket].held |= 1 << slot;
    }

    pub(super) fn take(&mut self, slot: Slot) -> Entry {
        self.buckets[slot.0].held &= !(1 << slot.1);
        self.entry(slot)
    }

    fn free_in(&self, bucket: usize) -> Option<Slot> {
        (0..SLOTS).map(|slot| (bucket, slot)).find(|slot| !self.holds(*slot))
    }

    /// A free slot for `key`: in the emptier of its buckets, or where an entry can step aside.
    pub(super) fn place_for(&mut self, key: Fingerprint) -> Option<Slot> {
        let (first, second) = self.homes(key);
        let held = |bucket: usize| self.buckets[bucket].held.count_ones();
        let emptier = if held(first) <= held(second) { first } else { second };
        if let Some(slot) = self.free_in(emptier) {
            return Some(slot);
        }
        let taken = [first, second].into_iter().flat_map(|b| (0..SLOTS).map(move |s| (b, s)));
        let mut aside = taken.filter_map(|slot| Some((slot, self.free_beside(slot)?)));
        let (from, to) = aside.next()?;
        let words = self.buckets[from.0].words[from.1];
        self.take(from);
        self.put(to, words);
        Some(from)
    }

    /// A free slot in the other bucket of the entry in `slot`.
    fn free_beside(&self, slot: Slot) -> Option<Slot> {
        let (tag, _) = Entry::unpack(self.buckets[slot.0].words[slot.1]);
        let other = self.other_home(tag, slot.0);
        if other == slot.0 { None } else { self.free_in(other) }
    }
}
