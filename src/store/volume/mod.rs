//! A volume: what is appended to it is found again, after a crash too, or is a miss.
//!
//! Appending never waits: a writer takes what is queued and publishes it in the index when every
//! byte is written. Reading verifies every byte. A region is given up when room is needed; what
//! earned it is appended again. Checkpoints say what is where, so that opening is quick.
//!
//! Everything waits with tokio's clock and runs on the runtime it is called in.

mod append;
mod blocks;
mod checkpoint;
mod core;
mod doubt;
mod heads;
mod health;
mod load;
mod metadata;
mod open;
mod queue;
mod read;
mod reclaim;
mod recovery;
mod scan;
mod table;
mod tally;
#[cfg(test)]
mod tests;
mod types;
mod upkeep;
mod window;
mod writer;

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use tokio::task::JoinHandle;

use crate::limits::{GRANULE_SIZE_BYTES, PIECE_SIZE_BYTES};
use crate::object::{BlockKey, PieceMap};
use crate::store::ObjectHash;
use crate::store::device::{Disk, Lent, Urgency};
use crate::store::format::{Geometry, HeadLabel, Superblock, VolumeId};
use crate::store::index::{Kind, Shape};

use self::core::{Core, UNBROKEN};
use self::queue::{QueuedBlock, QueuedHead};
use self::writer::block_bytes;

pub(in crate::store) use self::checkpoint::{PREAMBLE_BYTES, Preamble};
pub use self::health::State;
pub use self::tally::{Recovered, VolumeFigures, WrittenBytes};
pub use self::types::{
    BlockWrite, HeadFound, HeadWrite, Pieces, Read, ReadError, Refused, SmallBody, Trust,
    VolumeError, VolumeSettings,
};

/// The largest head, with its body if it has one.
const HEAD_BYTES_MAX: usize = 512 << 10;

/// A volume that is open. Dropping it without [`Volume::close`] ends it too, but then opening it
/// again takes what it takes after a crash.
pub struct Volume {
    core: Arc<Core>,
    tasks: Mutex<Tasks>,
}

#[derive(Default)]
struct Tasks {
    writer: Option<JoinHandle<()>>,
    upkeep: Option<JoinHandle<()>>,
    /// They were waited for, and what they left is written.
    are_over: bool,
}

impl Volume {
    /// Makes an empty volume. Whatever was there is lost. `id` names no volume that ever was: what
    /// is left of one on the device is told from the new one's records by it.
    ///
    /// # Errors
    /// The device failed, or is smaller than `geometry`. What was there may be damaged then.
    /// Dropping this midway leaves no volume.
    pub async fn format(disk: &Disk, geometry: Geometry, id: VolumeId) -> Result<(), VolumeError> {
        open::format(disk, geometry, id).await
    }

    /// Opens a volume, finds out what it holds, and starts its tasks.
    ///
    /// # Errors
    /// What is there is no volume that can be used, or the device can't be read. One that can't
    /// be written is opened read-only. Dropping this midway is safe.
    pub async fn open(disk: Disk, settings: VolumeSettings) -> Result<Arc<Volume>, VolumeError> {
        let core = open::open(disk, &settings).await?;
        let tasks = Tasks {
            writer: Some(tokio::spawn(writer::run(Arc::clone(&core)))),
            upkeep: Some(tokio::spawn(upkeep::run(Arc::clone(&core)))),
            are_over: false,
        };
        Ok(Arc::new(Volume { core, tasks: Mutex::new(tasks) }))
    }

    /// What the volume on `disk` says of itself; nothing is written. Dropping this midway is safe.
    ///
    /// # Errors
    /// As [`Volume::open`].
    pub async fn superblock(disk: &Disk) -> Result<Superblock, VolumeError> {
        recovery::superblock(disk).await
    }

    /// Its id, which no other volume has.
    pub fn id(&self) -> VolumeId {
        self.core.id
    }

    /// As the operator calls it.
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// Its sizes.
    pub fn geometry(&self) -> &Geometry {
        &self.core.geometry
    }

    /// What it lies on.
    pub fn disk(&self) -> &Disk {
        &self.core.disk
    }

    /// Whether it takes writes. From memory.
    pub fn is_writable(&self) -> bool {
        self.core.health.is_writable()
    }

    /// Whether it can be read: while it can't, it holds nothing. From memory.
    pub fn is_readable(&self) -> bool {
        self.core.health.is_readable()
    }

    /// Whether the object's head is here. From memory.
    pub fn holds_head(&self, object: ObjectHash) -> bool {
        if !self.is_readable() {
            return false;
        }
        let pending = self.core.pending_heads.holds(object);
        pending.unwrap_or_else(|| self.core.index().head(self.core.head_key(object)).is_some())
    }

    /// Which pieces of the block are here, in one record or several. From memory.
    pub fn held(&self, block: BlockKey) -> PieceMap {
        if !self.is_readable() {
            return PieceMap::default();
        }
        self.core.pieces_of(block)
    }

    /// Whether it had the object's head when it failed and went offline. From memory.
    pub fn lost_head(&self, object: ObjectHash) -> bool {
        self.core.health.is_lost() && self.core.index().head(self.core.head_key(object)).is_some()
    }

    /// Which pieces of the block it had when it failed and went offline. From memory.
    pub fn lost(&self, block: BlockKey) -> PieceMap {
        match self.core.health.is_lost() {
            true => self.core.pieces_of(block),
            false => PieceMap::default(),
        }
    }

    /// What it lost of an object is had elsewhere: its head.
    pub fn forget_lost_head(&self, object: ObjectHash) {
        if self.lost_head(object) {
            self.core.ledger.remove(self.core.head_key(object), Kind::Head);
        }
    }

    /// What it lost of an object is had elsewhere: pieces of a block.
    pub fn forget_lost(&self, block: BlockKey, pieces: PieceMap) {
        if self.core.health.is_lost() {
            self.core.forget_pieces(block, pieces);
        }
    }

    /// Counts a use of the block, wherever it was answered from; whether it is here.
    pub fn used(&self, block: BlockKey) -> bool {
        self.is_readable() && self.core.ledger.touch(self.core.block_key(block), Kind::Block)
    }

    /// Counts a use of the object's head that was answered from elsewhere; whether it is here.
    pub fn used_head(&self, object: ObjectHash) -> bool {
        self.is_readable() && self.core.ledger.touch(self.core.head_key(object), Kind::Head)
    }

    /// The object's head, and its body if it was written with it. `None`: it has none here.
    ///
    /// # Errors
    /// As [`ReadError`] says. Dropping this midway is safe.
    pub async fn read_head(
        &self,
        object: ObjectHash,
        urgency: Urgency,
    ) -> Result<Option<HeadFound>, ReadError> {
        self.core.read_head(object, urgency, Arc::new(())).await
    }

    /// As [`Volume::read_head`], into memory that `guard` is kept with, by a device that is late
    /// too. It takes about [`Volume::head_bytes`].
    ///
    /// # Errors
    /// As [`ReadError`] says.
    pub async fn read_head_guarded(
        &self,
        object: ObjectHash,
        urgency: Urgency,
        guard: Arc<dyn Send + Sync>,
    ) -> Result<Option<HeadFound>, ReadError> {
        self.core.read_head(object, urgency, guard).await
    }

    /// What reading the object's head takes. From memory.
    pub fn head_bytes(&self, object: ObjectHash) -> u64 {
        let entry = self.core.index().head(self.core.head_key(object));
        entry.map_or(0, |entry| u64::from(entry.shape.granules()) * GRANULE_SIZE_BYTES)
    }

    /// The longest run of `pieces` from their first on that one record holds, into `into`, which
    /// has room for whole pieces. All bytes are verified.
    ///
    /// # Errors
    /// As [`ReadError`] says; what was lent is dropped when the device is done with it. Dropping
    /// this midway is safe.
    pub async fn read(
        &self,
        block: BlockKey,
        pieces: Pieces,
        into: Box<dyn Lent>,
        urgency: Urgency,
    ) -> Result<Read, ReadError> {
        self.core.read_block(block, pieces, into, urgency).await
    }

    /// Queues pieces of a block to be written. It can be found when it is.
    ///
    /// # Errors
    /// At once, if it can't be taken.
    ///
    /// # Panics
    /// If the bytes don't match the map.
    pub fn append_block(&self, write: BlockWrite) -> Result<(), Refused> {
        let tally = &self.core.tally;
        let bytes = block_bytes(&write);
        let length: usize = write.parts.iter().map(Bytes::len).sum();
        let shape = Shape::block(write.pieces, length as u64);
        let shape = shape.expect("the parts of a block are as long as its map says");
        let (last, whole) = write.parts.split_last().expect("a map that is not empty has parts");
        let starts = |part: &Bytes| (part.len() as u64).is_multiple_of(PIECE_SIZE_BYTES);
        assert!(!last.is_empty() && whole.iter().all(starts), "each part starts with a piece");
        self.writable().map_err(|why| tally.refused(why))?;
        if !self.core.ledger.ever_fits(shape.granules(), 1) {
            return Err(tally.refused(Refused::NoRoom));
        }
        if self.core.index_is_full() {
            self.core.upkeep_wanted.notify_one();
            return Err(tally.refused(Refused::IndexFull));
        }
        let push = || {
            let pending = self.core.pending_blocks.begin(write.block);
            QueuedBlock { write, pending }
        };
        self.core.queue.push_block(bytes, push).map_err(|why| tally.refused(why))
    }

    /// Queues a head to be written. It is the object's head from now on; a crash before it is
    /// written may bring the one before it back.
    ///
    /// # Errors
    /// At once, if it can't be taken. The head before it is the object's head still, then: forget
    /// it if it must not be used.
    ///
    /// # Panics
    /// If the payload is empty.
    pub fn append_head(&self, write: HeadWrite) -> Result<(), Refused> {
        assert!(!write.payload.is_empty(), "an empty head would be a tombstone");
        let core = &self.core;
        let refused = |why| core.tally.refused(why);
        self.writable().map_err(refused)?;
        let body = write.body.as_ref().map_or(0, |body| body.bytes.len());
        let length = write.payload.len() + body;
        let body_fits = write.body.is_none() || (1..=PIECE_SIZE_BYTES as usize).contains(&body);
        let granules = core::granules_of(length as u64) as u32 + 1;
        if length > HEAD_BYTES_MAX || !body_fits || !core.ledger.ever_fits(granules, 1) {
            return Err(refused(Refused::NoRoom));
        }
        let object = write.object;
        let found = HeadFound {
            site: write.site,
            birth: write.birth,
            payload: write.payload.clone(),
            body: write.body.clone(),
            trust: Trust::Newest,
        };
        let (site, birth) = (write.site, write.birth);
        let bytes = queue::head_bytes(Some(&write));
        let push = || {
            let sequence = core.next_sequence();
            core.pending_heads.begin(object, sequence, Some(found), || ());
            let label = HeadLabel { object, site, sequence, birth };
            QueuedHead { label, write: Some(write) }
        };
        core.queue.push_head(bytes as u64, push).map_err(refused)
    }

    /// Whether a head of the object, or the end of one, is still on its way to the device. What
    /// found no room in a packet is told by the next checkpoint. Nothing is where another process
    /// writes to it.
    pub fn is_head_under_way(&self, object: ObjectHash) -> bool {
        let is_pending = || self.core.pending_heads.holds(object).is_some();
        let is_ours = self.is_readable() && !self.core.health.is_handed_over();
        is_ours && (is_pending() || self.core.checkpoints.is_due())
    }

    /// The object has no head from now on, also if the queue is full. What says so on the device is
    /// written soon, if there is room for it.
    pub fn forget_head(&self, object: ObjectHash) {
        self.core.forget_head(object);
    }

    /// The block is not found any more, nor what is on its way of it; after a crash it may be.
    pub fn forget_block(&self, block: BlockKey) {
        self.core.pending_blocks.forget(block, || {
            self.core.ledger.remove(self.core.block_key(block), Kind::Block);
        });
    }

    /// What is kept beside the index in each checkpoint: `make` is asked for it.
    pub fn set_extra(&self, make: Arc<dyn Fn() -> Vec<u8> + Send + Sync>) {
        *self.core.extra.lock().expect(UNBROKEN) = Some(make);
    }

    /// What the last run left there.
    pub fn extra(&self) -> Option<Bytes> {
        self.core.extra_found.clone()
    }

    /// From now on, blocks of this score and above are appended again.
    pub fn set_reappend_score_min(&self, score_min: u8) {
        self.core.settings.set_reappend_score_min(score_min);
    }

    /// Takes a checkpoint now; whether it is durable.
    pub async fn checkpoint(&self) -> bool {
        self.core.checkpoint_now().await
    }

    /// Takes nothing any more, writes what waits, and makes all of it durable. Then it is offline.
    /// Dropping this midway leaves what a crash would leave.
    pub async fn close(&self) {
        self.finish().await;
        self.core.health.closed();
    }

    /// As [`Volume::close`], but it can be read on: another process writes to it from now on, and
    /// what that one gives up is a miss here.
    pub async fn hand_over(&self) {
        self.finish().await;
        // Where that was given up once, a write may be under way still.
        if self.tasks().are_over {
            self.core.health.handed_over();
            self.core.disk.device().release();
        }
    }

    /// Whether it was: another process may write to it.
    pub fn is_handed_over(&self) -> bool {
        self.core.health.is_handed_over()
    }

    async fn finish(&self) {
        self.core.queue.close();
        let (writer, upkeep) = {
            let mut tasks = self.tasks();
            (tasks.writer.take(), tasks.upkeep.take())
        };
        if let Some(writer) = writer {
            // A panic of the writer has been reported; the rest is closed all the same.
            let _ = writer.await;
        }
        self.core.stopping.send_replace(true);
        if let Some(upkeep) = upkeep {
            let _ = upkeep.await;
            self.core.checkpoint_now().await;
            self.tasks().are_over = true;
        }
    }

    fn tasks(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock().expect(UNBROKEN)
    }

    /// What it may be used for.
    pub fn state(&self) -> State {
        self.core.health.state()
    }

    /// What it might be used for when it was opened, by what was known of it before.
    pub fn opened_as(&self) -> &State {
        &self.core.opened_as
    }

    /// As when its device is gone.
    #[cfg(test)]
    pub(crate) fn lose(&self) {
        self.core.health.offline("gone".to_owned());
    }

    /// It was not told of every change: all heads that are on it must be revalidated, by the next
    /// process too: that is durable soon.
    pub fn doubt_heads_soon(&self) {
        let core = &self.core;
        core.trust_from.fetch_max(core.sequence.load(Ordering::Relaxed), Ordering::Relaxed);
        if core.index().heads() > 0 {
            core.heads_in_doubt.store(true, Ordering::Relaxed);
        }
        core.want_checkpoint();
    }

    /// As [`Volume::doubt_heads_soon`], and waits; whether it is durable.
    pub async fn doubt_heads(&self) -> bool {
        self.doubt_heads_soon();
        self.core.checkpoint_now().await
    }

    /// What it holds and has done.
    pub fn figures(&self) -> VolumeFigures {
        self.core.figures()
    }

    fn writable(&self) -> Result<(), Refused> {
        let health = &self.core.health;
        match (health.is_readable(), health.is_writable()) {
            (_, true) => Ok(()),
            (true, false) => Err(Refused::ReadOnly),
            (false, false) => Err(Refused::Offline),
        }
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        self.core.queue.close();
        self.core.stopping.send_replace(true);
    }
}

impl fmt::Debug for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "volume {}, {}, {:?}", self.core.name, self.state(), self.core.ledger)
    }
}
