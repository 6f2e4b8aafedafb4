//! The hottest part of the ram tier goes along to the process that follows, where that has no
//! volumes to find it on.
//!
//! In batches, each a file in memory beside a message; the next one goes when it has said what
//! became of one before, and what has gone is forgotten here, so that both together hold little
//! more than one. It comes in order with what ends: what a purge or a change has ended there is not
//! taken in after it. What a run under way has brought stays, and no more of its object. Whatever
//! goes wrong ends this and nothing else; what has not gone by then is given up.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::fs::{MemfdFlags, memfd_create};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::parts::Parts;
use super::{Message, ReachedSuccessor};
use crate::cache::carried::{FORMAT, Receiver, Taken, entry};
use crate::cache::heads::Head;
use crate::config::units::bytes_about;
use crate::limits::{CARRIED_BATCH_BYTES_MAX, CARRIED_BATCHES_MAX, CARRIED_WITHIN};
use crate::memory::{Class, Reservation, Use};
use crate::object::{BlockKey, ObjectKey, VersionId};
use crate::purge::{Birth, Standing};

/// What a process takes of another one's ram tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Takes {
    /// How it is written.
    format: u32,
    /// The size of a block: of another one nothing could be found.
    block_bytes: u64,
    /// So much has room.
    bytes: u64,
}

impl Takes {
    /// This process; nothing where its volumes have it.
    pub(super) fn of(parts: &Parts) -> Option<Takes> {
        let block_bytes = parts.config.block_size.bytes();
        let bytes = parts.ram.capacity_bytes();
        (!parts.ssd.is_in_use()).then_some(Takes { format: FORMAT, block_bytes, bytes })
    }

    /// As it is said.
    pub(super) fn to_said(self) -> Value {
        let Takes { format, block_bytes, bytes } = self;
        json!({ "format": format, "block_bytes": block_bytes, "bytes": bytes })
    }

    /// What was said, unless another version says something else: then nothing is wanted.
    pub(super) fn said(said: Value) -> Option<Takes> {
        serde_json::from_value(said).ok()
    }
}

/// Gives what it takes to who follows, for [`CARRIED_WITHIN`] at most. Blocks.
pub(super) fn carry(successor: &ReachedSuccessor, parts: &Parts, is_hurried: &dyn Fn() -> bool) {
    let block_bytes = parts.config.block_size.bytes();
    let Some(takes) = successor.takes else { return };
    if takes.format != FORMAT || takes.block_bytes != block_bytes {
        return tracing::info!("what ram holds stays: the new process has blocks of another kind");
    }
    let until = Instant::now() + CARRIED_WITHIN;
    let (taken, batch) = (Taken::default(), Batch::default());
    let is_over = || is_hurried() || Instant::now() >= until;
    let mut carrying = Carrying { successor, parts, is_over: &is_over, batch, on_way: 0, taken };
    let carried = carrying.carry(takes.bytes);
    // Who does not hear it finds out at the end.
    let _ = successor.neighbour.say(&Message::CarriedAll);
    let Taken { blocks, bytes } = carrying.taken;
    tracing::info!(blocks, "{} of what ram held has gone along", bytes_about(bytes));
    if let Err(error) = carried {
        tracing::warn!("the rest of what ram held does not go along: {error}");
    }
}

struct Carrying<'a> {
    successor: &'a ReachedSuccessor,
    parts: &'a Parts,
    /// It is to end now.
    is_over: &'a dyn Fn() -> bool,
    /// What goes next.
    batch: Batch,
    /// Batches of which it was not said what became of them.
    on_way: usize,
    taken: Taken,
}

#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    blocks: Vec<BlockKey>,
    /// So many bytes of ram they are.
    held_bytes: u64,
}

impl Carrying<'_> {
    fn carry(&mut self, bytes_max: u64) -> io::Result<()> {
        let Parts { governor, heads, ram, .. } = self.parts;
        let lists_bytes = heads.weight_bytes() / 2 + ram.usage().blocks * LISTED_BYTES;
        // As for a viewer: it is for a moment, and new viewers are served by the other process.
        let reserved = governor.try_reserve(Use::Heads, Class::Viewer, lists_bytes);
        let _reserved = reserved.ok_or_else(|| io::Error::other("no memory to list it"))?;
        let objects = heads.objects().collect::<Vec<_>>();
        let versions = objects.iter().flat_map(|(key, variants)| {
            variants.iter().map(move |head| (head.version.id, key.clone()))
        });
        let keys: HashMap<VersionId, ObjectKey> = versions.collect();
        let blocks = ram.ranked().into_iter();
        // Of an object of no bytes there is nothing but heads.
        let empty = objects
            .iter()
            .filter_map(|(_, variants)| variants.iter().find(|head| is_of_no_bytes(head)));
        let empty = empty.map(|head| BlockKey { version: head.version.id, index: 0 });
        let mut sent_bytes = 0;
        for block in blocks.chain(empty) {
            let Some(key) = keys.get(&block.version) else { continue };
            let Some((entry, bytes)) = self.entry(key, block) else { continue };
            sent_bytes += bytes;
            if sent_bytes > bytes_max || (self.is_over)() {
                break;
            }
            if self.batch.bytes.len() + entry.len() > CARRIED_BATCH_BYTES_MAX {
                self.send()?;
            }
            self.batch.bytes.extend(entry);
            self.batch.blocks.push(block);
            self.batch.held_bytes += bytes;
        }
        self.send()?;
        while self.on_way > 0 {
            self.hear()?;
        }
        Ok(())
    }

    /// What is there of a block, as it is written, and how many bytes that are of its object. Not
    /// where a run has brought some of it that goes on: only at its end it is known whether that is
    /// what it says.
    fn entry(&self, key: &ObjectKey, block: BlockKey) -> Option<(Vec<u8>, u64)> {
        let Parts { heads, purges, ram, live, filler, config, .. } = self.parts;
        let mut variants = heads.variants(key);
        variants.retain(|head| {
            // What was made stale is reckoned with again: who reads it makes its freshness anew.
            let birth = Birth::recorded(head.birth.to_recorded());
            matches!(purges.reckon(key, &birth, &head.tags), Standing::Untouched)
                && !head.version.is_changed()
        });
        let (held, sites) = (ram.peek(&block), live.sites.load());
        if held.is_none() && !variants.iter().any(is_of_no_bytes) {
            return None;
        }
        let entry = entry((sites.get(key.site())?, key), &variants, block, held.as_deref())?;
        // Asked when it was read, and in this order: a run says what has proved false before it
        // ends.
        let start = config.block_size.start_of(block.index);
        let bytes = start..start + config.block_size.bytes();
        if filler.runs.have_brought(block.version, &bytes)
            || variants.iter().any(|head| head.version.is_changed())
        {
            return None;
        }
        Some((entry, held.map_or(0, |held| held.length_bytes())))
    }

    /// Sends what is gathered, when it may.
    fn send(&mut self) -> io::Result<()> {
        if self.batch.bytes.is_empty() {
            return Ok(());
        }
        while self.on_way >= CARRIED_BATCHES_MAX {
            self.hear()?;
        }
        let Batch { bytes, blocks, held_bytes } = std::mem::take(&mut self.batch);
        let mut file = File::from(memfd_create("tidegate-carried", MemfdFlags::CLOEXEC)?);
        file.write_all(&bytes)?;
        self.successor.neighbour.give(&Message::Carried { bytes: bytes.len() }, file.as_fd())?;
        self.on_way += 1;
        let ram = &self.parts.ram;
        blocks.iter().for_each(|block| ram.forget(block));
        // The other one needs the memory: nothing else comes in its place.
        ram.resize(ram.capacity_bytes().saturating_sub(held_bytes));
        Ok(())
    }

    /// What became of one.
    fn hear(&mut self) -> io::Result<()> {
        match self.successor.neighbour.hear(LOOK_AGAIN) {
            Ok(Message::Taken { refused: Some(why), .. }) => Err(io::Error::other(why)),
            Ok(Message::Taken { blocks, bytes, .. }) => {
                self.on_way -= 1;
                self.taken.blocks += blocks;
                self.taken.bytes += bytes;
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(RecvTimeoutError::Timeout) if !(self.is_over)() => Ok(()),
            Err(error) => Err(io::Error::other(error)),
        }
    }
}

fn is_of_no_bytes(head: &Arc<Head>) -> bool {
    head.version.length_bytes() == Some(0)
}

/// What is taken of who was there before, from its first batch to its last.
pub(super) struct Taking {
    /// When what ends there began to be heard.
    birth: Birth,
    /// Whose heads have come.
    restored: HashSet<VersionId>,
    /// For these; nothing before the first batch.
    reserved: Option<Reservation>,
}

impl Taking {
    /// Nothing has come yet.
    pub(super) fn since(birth: Birth) -> Taking {
        Taking { birth, restored: HashSet::new(), reserved: None }
    }

    /// Takes in one batch.
    ///
    /// # Errors
    /// It cannot be read, or is not as it was written, or there is no memory to remember what has
    /// come: nothing more is wanted.
    pub(super) fn take(&mut self, parts: &Parts, bytes: usize, file: OwnedFd) -> io::Result<Taken> {
        if bytes > CARRIED_BATCH_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let (governor, restored_max) = (&parts.governor, parts.heads.heads_max());
        if self.reserved.is_none() {
            let bytes = restored_max as u64 * RESTORED_BYTES;
            let reserved = governor.try_reserve(Use::Heads, Class::Admission, bytes);
            self.reserved = Some(reserved.ok_or(io::ErrorKind::OutOfMemory)?);
        }
        let reserved = governor.try_reserve(Use::Fill, Class::Prefetch, bytes as u64);
        // Viewers need it more.
        let Some(_reserved) = reserved else { return Ok(Taken::default()) };
        let mut batch = vec![0; bytes];
        File::from(file).read_exact_at(&mut batch, 0)?;
        let (sites, birth) = (parts.live.sites.load(), &self.birth);
        let mut receiver = Receiver {
            ram: &parts.ram,
            heads: &parts.heads,
            sites: &sites,
            block_size: parts.config.block_size,
            birth,
            restored: &mut self.restored,
            restored_max,
        };
        let taken = receiver.take(Bytes::from(batch), |key| parts.purges.covers(key, birth));
        taken.map_err(io::Error::other)
    }
}

/// A block in the lists that it is ranked by; an object takes less there than half of its heads.
const LISTED_BYTES: u64 = 96;
/// A number in a set that may be half empty, and be copied as it grows.
const RESTORED_BYTES: u64 = 64;
const LOOK_AGAIN: Duration = Duration::from_millis(100);
