//! A body that cannot be asked for in parts is held whole before its head is sent.
//!
//! Without a strong validator no later answer can be joined to what is in ram: were a block evicted
//! while a viewer is on his way to it, his body would be cut. So what is in ram is pinned for him
//! up to where the run that brings the rest keeps it for him; where that is not all, or there is no
//! memory to pin it, the object counts as not held.

use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;

use crate::cache::ram::Ram;
use crate::limits::PIECE_SIZE_BYTES;
use crate::memory::{Class, OfSite, Reservation, Use};
use crate::object::{BlockKey, BlockSize, VersionId};

/// Bytes pinned until they are sent.
pub(super) struct Held {
    /// In order, without gaps.
    parts: VecDeque<Part>,
}

struct Part {
    start: u64,
    bytes: Bytes,
    reserved: Rc<Reservation>,
}

impl Held {
    /// Pins the bytes from `start` to `end` of a version, for `class` if they are a piece at most;
    /// `None` when ram lacks some of them, or there is no memory to spare.
    pub(super) fn pin(
        ram: &Ram,
        (governor, class): (OfSite<'_>, Class),
        block_size: BlockSize,
        version: VersionId,
        (start, end): (u64, u64),
    ) -> Option<Held> {
        // A piece is what any viewer may pin; more is a comfort.
        let class = if end - start <= PIECE_SIZE_BYTES { class } else { Class::Prefetch };
        let mut parts = VecDeque::new();
        let mut position = start;
        while position < end {
            let index = block_size.block_at(position)?;
            let (block_start, block_end) =
                (block_size.start_of(index), block_size.start_of(index) + block_size.bytes());
            let block = ram.get(&BlockKey { version, index })?;
            while position < end.min(block_end) {
                let mut bytes = block.read(position - block_start)?;
                bytes.truncate(usize::try_from(end - position).unwrap_or(usize::MAX));
                let (length, kept) = (bytes.len() as u64, ram.footprint(&bytes, None));
                let reserved = Rc::new(governor.try_reserve(Use::Client, class, kept.bytes)?);
                parts.push_back(Part { start: position, bytes: ram.pinned(bytes), reserved });
                position += length;
            }
        }
        Some(Held { parts })
    }

    /// The bytes from `position` on, with what is reserved for them; lets go of those before it.
    pub(super) fn read(&mut self, position: u64) -> Option<(Bytes, Rc<Reservation>)> {
        let passed = |part: &Part| part.start + part.bytes.len() as u64 <= position;
        while self.parts.front().is_some_and(passed) {
            self.parts.pop_front();
        }
        let Part { start, bytes, reserved } = self.parts.front()?;
        let offset = position.checked_sub(*start)? as usize;
        Some((bytes.slice(offset..), reserved.clone()))
    }
}
