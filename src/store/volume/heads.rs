//! Heads on their way: of several of one object only the newest may be found, in whatever order
//! their writes end. Until it is written it is answered from here.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

use crate::store::format::HeadLabel;
use crate::store::index::{Kind, Location};
use crate::store::{ObjectHash, SiteHash};

use super::core::Core;
use super::queue::QueuedHead;
use super::types::HeadFound;

/// Objects of which heads are being written, or the ends of them.
#[derive(Default)]
pub(super) struct PendingHeads {
    objects: Mutex<HashMap<ObjectHash, Pending>>,
    /// How many objects: as a rule none, and then nothing is locked to find that out.
    count: AtomicUsize,
}

struct Pending {
    newest: u64,
    /// The newest; `None` if it is a tombstone.
    head: Option<HeadFound>,
    /// The newest whose write is over, or that was cancelled: older ones are not published.
    over: u64,
    /// The number under which all before it were cancelled; 0 if they were not.
    cancelled: u64,
    under_way: u32,
}

/// Why a head that was written is not found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unpublished {
    /// A newer one was written before it.
    Older,
    /// Nothing on the device tells that it does not count.
    Cancelled,
}

impl PendingHeads {
    /// The head numbered `sequence` is on its way, `None` for a tombstone: older ones don't count
    /// any more. `and` is done before anybody can see it.
    pub(super) fn begin(
        &self,
        object: ObjectHash,
        sequence: u64,
        head: Option<HeadFound>,
        and: impl FnOnce(),
    ) {
        let mut objects = self.objects();
        let new = || Pending { newest: 0, head: None, over: 0, cancelled: 0, under_way: 0 };
        let pending = objects.entry(object).or_insert_with(new);
        if sequence > pending.newest {
            pending.newest = sequence;
            pending.head = head;
        }
        pending.under_way += 1;
        self.count.store(objects.len(), Ordering::Release);
        and();
    }

    /// None of the heads on their way counts any more, and nothing is on its way instead. `and` is
    /// done before anybody can see it.
    pub(super) fn cancel(&self, object: ObjectHash, sequence: u64, and: impl FnOnce()) {
        let mut objects = self.objects();
        if let Some(pending) = objects.get_mut(&object) {
            pending.newest = pending.newest.max(sequence);
            pending.over = pending.over.max(sequence);
            pending.cancelled = sequence;
            pending.head = None;
        }
        and();
    }

    /// The write is over; `publish` is called unless a newer one is over too. One that is newer and
    /// still on its way may never arrive: until it does, this is what is on the volume.
    pub(super) fn end<T>(
        &self,
        object: ObjectHash,
        sequence: u64,
        publish: impl FnOnce() -> T,
    ) -> Result<T, Unpublished> {
        let mut objects = self.objects();
        let pending = objects.get_mut(&object).expect("what ends was begun");
        let is_newest = sequence > pending.over;
        pending.over = pending.over.max(sequence);
        // Found in the index before it is not found here any more.
        let published = match is_newest {
            true => Ok(publish()),
            false if sequence < pending.cancelled => Err(Unpublished::Cancelled),
            false => Err(Unpublished::Older),
        };
        self.leave(&mut objects, object);
        published
    }

    /// One of its heads is written nowhere, because a newer one is on its way. One before it whose
    /// write is under way is what is on the volume until that arrives.
    pub(super) fn leave_out(&self, object: ObjectHash) {
        self.leave(&mut self.objects(), object);
    }

    fn leave(&self, objects: &mut HashMap<ObjectHash, Pending>, object: ObjectHash) {
        let pending = objects.get_mut(&object).expect("what ends was begun");
        pending.under_way -= 1;
        if pending.under_way == 0 {
            objects.remove(&object);
        }
        self.count.store(objects.len(), Ordering::Release);
    }

    /// The newest head of `object` that is on its way; `Some(None)` if it is a tombstone.
    pub(super) fn newest(&self, object: ObjectHash) -> Option<Option<HeadFound>> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.objects().get(&object).map(|pending| pending.head.clone())
    }

    /// Whether there is one on its way; `Some(false)` if it is a tombstone.
    pub(super) fn holds(&self, object: ObjectHash) -> Option<bool> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        self.objects().get(&object).map(|pending| pending.head.is_some())
    }

    fn objects(&self) -> MutexGuard<'_, HashMap<ObjectHash, Pending>> {
        self.objects.lock().expect("nothing panics while it changes the heads under way")
    }
}

impl Core {
    /// The object has no head from now on.
    pub(super) fn forget_head(&self, object: ObjectHash) {
        let key = self.head_key(object);
        // What is on its way first: it is found in the index before it is not found here any more.
        let known = self.pending_heads.holds(object).is_some() || self.index().head(key).is_some();
        if !known {
            return;
        }
        let remove = || {
            self.ledger.remove(key, Kind::Head);
        };
        let push = || Some(self.begin_tombstone(object, remove));
        if !self.health.is_writable() || !self.queue.push_tombstone(push) {
            self.pending_heads.cancel(object, self.next_sequence(), remove);
            self.want_checkpoint();
        }
    }

    /// The object's head can't be read, and is none from now on; one that is newer stays. Those
    /// before it must not come back after a crash.
    pub(super) fn drop_head_at(&self, object: ObjectHash, location: Location) {
        let key = self.head_key(object);
        let remove = || self.ledger.remove_at(key, Kind::Head, location).is_some();
        let push = || {
            // Heads begin under the queue's lock, which is held: one on its way is newer.
            let is_newest = remove() && self.pending_heads.holds(object).is_none();
            is_newest.then(|| self.begin_tombstone(object, || ()))
        };
        if !self.health.is_writable() || !self.queue.push_tombstone(push) {
            remove();
            self.want_checkpoint();
        }
    }

    /// Only while the queue is locked. `and` is done before anybody can see it.
    fn begin_tombstone(&self, object: ObjectHash, and: impl FnOnce()) -> QueuedHead {
        let sequence = self.next_sequence();
        self.pending_heads.begin(object, sequence, None, and);
        let label = HeadLabel { object, site: SiteHash(0), sequence, birth: 0 };
        QueuedHead { label, write: None }
    }
}

#[cfg(test)]
mod tests {
    use super::super::types::Trust;
    use super::*;

    fn head(payload: &'static [u8]) -> Option<HeadFound> {
        let payload = bytes::Bytes::from_static(payload);
        let trust = Trust::Newest;
        Some(HeadFound { site: SiteHash(1), birth: 0, payload, body: None, trust })
    }

    #[test]
    fn only_the_newest_head_is_published_in_whatever_order_the_writes_end() {
        let (heads, object) = (PendingHeads::default(), ObjectHash(1));
        heads.begin(object, 5, head(b"old"), || ());
        heads.begin(object, 6, head(b"new"), || ());
        assert_eq!(heads.newest(object), Some(head(b"new")));
        assert_eq!(heads.end(object, 6, || "new"), Ok("new"));
        assert_eq!(heads.end(object, 5, || "old"), Err(Unpublished::Older));
        assert_eq!(heads.newest(object), None);
        heads.begin(object, 7, head(b"cancelled"), || ());
        heads.cancel(object, 8, || ());
        assert_eq!(heads.holds(object), Some(false));
        assert_eq!(heads.end(object, 7, || "cancelled"), Err(Unpublished::Cancelled));
        heads.begin(object, 7, None, || ());
        assert_eq!(heads.holds(object), Some(false));
        assert_eq!(heads.end(object, 7, || "alone"), Ok("alone"));
        assert_eq!(heads.holds(object), None);
    }

    #[test]
    fn one_that_is_written_nowhere_takes_no_place_on_the_volume() {
        let (heads, object) = (PendingHeads::default(), ObjectHash(1));
        for (sequence, payload) in [(5, b"under way"), (6, b"left out."), (7, b"newest...")] {
            heads.begin(object, sequence, head(payload), || ());
        }
        heads.leave_out(object);
        assert_eq!(heads.newest(object), Some(head(b"newest...")));
        assert_eq!(heads.end(object, 5, || "on the volume"), Ok("on the volume"));
        assert_eq!(heads.end(object, 7, || "instead"), Ok("instead"));
        assert_eq!(heads.holds(object), None);
    }
}
