//! Bringing bytes from a volume into ram: once, for everybody who waits for them.
//!
//! A read is begun by who wants it and ends on the fill runtime, so that a viewer who leaves takes
//! nothing down. Its memory is reserved before, and for as long as the device has it, its bytes are
//! verified by the store and published before anybody is told.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::timeout;

use crate::cache::heads::Version;
use crate::cache::ram::Extent;
use crate::cache::ssd::begun::begin_here;
use crate::cache::ssd::{Ssd, Subject, TierVolume, is_small};
use crate::limits::{PIECE_SIZE_BYTES, PIECES_PER_BLOCK_MAX};
use crate::memory::{Class, Reservation, Use};
use crate::object::{BlockKey, SiteId};
use crate::store::device::Urgency;
use crate::store::volume::{Pieces, ReadError};

/// What a viewer wants of a block.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Whose the block is.
    pub site: SiteId,
    /// The block.
    pub block: BlockKey,
    /// The first piece he needs.
    pub first: u32,
    /// As many as he will read, one at least.
    pub count: u32,
    /// How badly the first is wanted; more than that is a comfort.
    pub class: Class,
    /// Whether others may go first.
    pub urgency: Urgency,
}

/// Bytes that came from a volume; they stay while this is held.
#[derive(Debug)]
pub struct Landed {
    /// Where they start in their block.
    pub start: u64,
    /// Whole pieces, but for the object's last one.
    pub bytes: Bytes,
    pub(super) _reserved: Reservation,
}

/// What became of a read.
#[derive(Clone, Debug)]
pub enum Brought {
    /// The first piece wanted, and perhaps more.
    Landed(Arc<Landed>),
    /// It came into ram meanwhile.
    InRam,
    /// It is not held, or no longer.
    NotHeld,
    /// It is held, but the volume does not give it in time.
    Ill,
    /// There is no memory for it.
    NoMemory,
}

/// What became of the question what a volume knows of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recalled {
    /// Its heads are in ram now.
    Found,
    /// No volume knows it.
    NotHeld,
    /// One does, but does not tell it in time.
    Ill,
    /// One does, but there is no memory to read it into.
    NoMemory,
}

/// How somebody came to work in flight.
pub(super) enum Joined<V> {
    /// It is under way: how it ends is told here.
    Waits(watch::Receiver<Option<V>>),
    /// It is his to do, and to say here how it ended.
    Begins(watch::Sender<Option<V>>),
}

/// Work in flight that others may wait for.
pub(super) struct InFlight<K, V>(Mutex<HashMap<K, watch::Receiver<Option<V>>>>);

impl<K, V> Default for InFlight<K, V> {
    fn default() -> InFlight<K, V> {
        InFlight(Mutex::default())
    }
}

impl<K: Copy + Eq + Hash, V> InFlight<K, V> {
    /// Joins what is under way for `key`, or begins it.
    pub(super) fn join(&self, key: K) -> Joined<V> {
        let mut table = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waiting) = table.get(&key) {
            return Joined::Waits(waiting.clone());
        }
        let (tell, waiting) = watch::channel(None);
        table.insert(key, waiting);
        Joined::Begins(tell)
    }

    fn close(&self, key: K) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
    }
}

/// Reads under way, by block and first piece.
#[derive(Default)]
pub(super) struct Reading(InFlight<ReadKey, Brought>);

/// A block, its first piece that is read, and whether it is read for who lets others go first.
/// Nobody else takes part in that: he would wait behind everybody.
type ReadKey = (BlockKey, u32, bool);

fn read_key(wanted: &Wanted, urgency: Urgency) -> ReadKey {
    (wanted.block, wanted.first, urgency == Urgency::Patient)
}

/// Objects being looked for, by hash.
#[derive(Default)]
pub(super) struct Recalling(pub(super) InFlight<u128, Recalled>);

impl Ssd {
    /// Brings pieces of a block into ram, together with whoever wants the same. Dropping it midway
    /// is safe: the read goes on for the others.
    pub async fn bring(
        self: &Arc<Self>,
        subject: &Subject,
        version: &Version,
        wanted: Wanted,
    ) -> Brought {
        let (object, small) = (subject.object, is_small(version));
        let brought = match self.held(&wanted.block).holds(wanted.first) {
            true => self.bring_as(wanted, wanted.urgency).await,
            false if small && self.holds_head(object) => {
                self.bring_small(subject, version, wanted).await
            }
            false => Brought::NotHeld,
        };
        let length = version.length_bytes();
        let is_owed = || self.is_owed(object, length, &wanted) || small && self.lost_head(object);
        match brought {
            Brought::NotHeld if is_owed() => Brought::Ill,
            brought => brought,
        }
    }

    /// Reads a block before a viewer comes to it; false when there is no need or no room.
    pub fn read_ahead(self: &Arc<Self>, wanted: Wanted) -> bool {
        let in_ram = self.parts.ram.peek(&wanted.block).is_some();
        if in_ram || !self.held(&wanted.block).holds(wanted.first) {
            return false;
        }
        let Ok(allowed) = self.ahead.clone().try_acquire_owned() else { return false };
        if let Joined::Begins(tell) = self.reading.0.join(read_key(&wanted, Urgency::Promote)) {
            self.begin(wanted, Urgency::Promote, tell, Some(allowed));
        }
        true
    }

    async fn bring_as(self: &Arc<Self>, wanted: Wanted, urgency: Urgency) -> Brought {
        let at = read_key(&wanted, urgency);
        let deadline = Instant::now() + ROOM_WITHIN;
        for _ in 0..JOINS_MAX {
            let (mut waiting, is_joined) = match self.reading.0.join(at) {
                Joined::Waits(waiting) => (waiting, true),
                Joined::Begins(tell) => {
                    let waiting = tell.subscribe();
                    self.begin(wanted, urgency, tell, None);
                    (waiting, false)
                }
            };
            match waiting.wait_for(Option::is_some).await.as_deref() {
                // Whoever began it may wait for no memory, or be entitled to less of it.
                Ok(Some(Brought::NoMemory)) if is_joined && Instant::now() < deadline => {}
                Ok(brought) => return brought.clone().expect("it was waited for"),
                Err(_) => return Brought::NotHeld,
            }
        }
        Brought::NoMemory
    }

    fn begin(
        self: &Arc<Self>,
        wanted: Wanted,
        urgency: Urgency,
        tell: watch::Sender<Option<Brought>>,
        allowed: Option<OwnedSemaphorePermit>,
    ) {
        let ssd = self.clone();
        begin_here(&self.parts.runtime, async move {
            let key = read_key(&wanted, urgency);
            let closing = Closing { flight: &ssd.reading.0, key };
            let brought = ssd.read(wanted, urgency).await;
            // Whoever comes from now on finds it in ram.
            drop(closing);
            tell.send_replace(Some(brought));
            drop(allowed);
        });
    }

    async fn read(&self, wanted: Wanted, urgency: Urgency) -> Brought {
        let holds = |tier_volume: &&Arc<TierVolume>| {
            tier_volume.volume().held(wanted.block).holds(wanted.first)
        };
        let mut slow = false;
        let in_time = |tier_volume: &&Arc<TierVolume>| {
            let may_try = tier_volume.may_try();
            slow |= !may_try;
            may_try
        };
        // Whoever read it published it before he left the table.
        let in_ram = self.parts.ram.peek(&wanted.block);
        if in_ram.is_some_and(|block| block.pieces().holds(wanted.first)) {
            return Brought::InRam;
        }
        let Some(tier_volume) = self.volumes.online().filter(holds).find(in_time) else {
            return if slow { Brought::Ill } else { Brought::NotHeld };
        };
        let held = tier_volume.volume().held(wanted.block);
        let run = (wanted.first..PIECES_PER_BLOCK_MAX).take_while(|piece| held.holds(*piece));
        let count = (run.count() as u32).min(wanted.count).max(1);
        let Some(Room { extent, count, reserved }) = self.room(&wanted, count, urgency).await
        else {
            return Brought::NoMemory;
        };
        let pieces = Pieces { first: wanted.first, count };
        let volume = tier_volume.volume().clone();
        let read = volume.read(wanted.block, pieces, extent.lend(reserved), urgency).await;
        let read = match read {
            Ok(read) => read,
            Err(error) => {
                if matches!(error, ReadError::Failed(_)) {
                    self.lost.add_block(wanted.block);
                }
                return note_miss(tier_volume, &error, urgency);
            }
        };
        tier_volume.was_in_time();
        let Some((extent, reserved)) = Extent::returned(read.lent, read.bytes) else {
            return Brought::NotHeld;
        };
        let bytes = extent.freeze();
        self.parts.ram.publish(wanted.site, wanted.block, wanted.first, bytes.clone());
        let start = u64::from(wanted.first) * PIECE_SIZE_BYTES;
        Brought::Landed(Arc::new(Landed { start, bytes, _reserved: reserved }))
    }

    /// Memory for `count` pieces, or for one: who waits for it holds none.
    async fn room(&self, wanted: &Wanted, count: u32, urgency: Urgency) -> Option<Room> {
        let governor = self.parts.governor.of(wanted.site);
        let bytes_of = |count: u32| u64::from(count) * PIECE_SIZE_BYTES;
        let take = |count: u32, class: Class| {
            let reserved = governor.try_reserve(Use::Ssd, class, bytes_of(count))?;
            let extent = self.parts.ram.allocate(wanted.site, bytes_of(count))?;
            Some(Room { extent, count, reserved })
        };
        if let Some(room) = take(count, Class::Prefetch) {
            return Some(room);
        }
        if !urgency.is_awaited() {
            return None;
        }
        let deadline = Instant::now() + ROOM_WITHIN;
        loop {
            if let Some(room) = take(1, wanted.class) {
                return Some(room);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            let reserved = governor.reserve(Use::Ssd, wanted.class, PIECE_SIZE_BYTES);
            let reserved = timeout(left, reserved).await.ok()?;
            if let Some(extent) = self.parts.ram.allocate(wanted.site, PIECE_SIZE_BYTES) {
                return Some(Room { extent, count: 1, reserved });
            }
            // Memory may be free all the while, and room in the mapping not.
            drop(reserved);
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Where a read puts its bytes.
struct Room {
    extent: Extent,
    /// Pieces.
    count: u32,
    reserved: Reservation,
}

/// A read did not come: tells the volume if it was late, and whoever waits what it means for him.
/// Who lets others go first may be late where nothing is ill.
pub(super) fn note_miss(tier_volume: &TierVolume, error: &ReadError, urgency: Urgency) -> Brought {
    match error {
        ReadError::Absent | ReadError::Mismatch | ReadError::Offline => Brought::NotHeld,
        ReadError::Late => {
            if urgency != Urgency::Patient {
                tier_volume.was_late();
            }
            Brought::Ill
        }
        ReadError::Busy | ReadError::Failed(_) => Brought::Ill,
    }
}

/// Takes work off the table whatever happens to it.
pub(super) struct Closing<'a, K: Copy + Eq + Hash, V> {
    pub(super) flight: &'a InFlight<K, V>,
    pub(super) key: K,
}

impl<K: Copy + Eq + Hash, V> Drop for Closing<'_, K, V> {
    fn drop(&mut self) {
        self.flight.close(self.key);
    }
}

/// How often somebody joins a read that ends without memory before he gives up too.
const JOINS_MAX: usize = 4;
/// How long a viewer's read waits for memory: as long as the read itself may then take.
pub(super) const ROOM_WITHIN: Duration = Duration::from_secs(2);
/// Between looks for room in the mapping: nobody tells when a viewer has let go of some. A hundred
/// looks in the time there is.
const PAUSE: Duration = Duration::from_millis(20);
