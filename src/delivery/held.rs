//! A body that cannot be asked for in parts is held whole before its head is sent.
//!
//! Without a strong validator no later answer can be joined to what is in ram: were a block evicted
//! while a viewer is on his way to it, his body would be cut. So what is in ram is pinned for him
//! up to where the run that brings the rest keeps it for him; where that is not all, or there is no
//! memory to pin it, the object counts as not held.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::cache::ram::Ram;
use crate::limits::PIECE_SIZE_BYTES;
use crate::memory::{Class, OfSite, Reservation, Use};
use crate::object::{BlockKey, BlockSize, ByteRange, VersionId};

/// Bytes pinned until they are sent.
pub(super) struct Held {
    /// Where each starts; in order, without gaps.
    parts: VecDeque<(u64, Bytes)>,
    end: u64,
    reserved: Reservation,
}

impl Held {
    /// Pins the bytes from `start` to `end` of a version; `None` when ram lacks some of them, or
    /// there is no memory to spare.
    pub(super) fn pin(
        ram: &Ram,
        governor: OfSite<'_>,
        block_size: BlockSize,
        version: VersionId,
        (start, end): (u64, u64),
    ) -> Option<Held> {
        let kept_bytes = ByteRange::new(start, end)?.rounded_out(None).length_bytes();
        // A piece is what any viewer may pin; more is a comfort.
        let class = if kept_bytes <= PIECE_SIZE_BYTES { Class::Viewer } else { Class::Prefetch };
        let reserved = governor.try_reserve(Use::Client, class, kept_bytes)?;
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
                let length = bytes.len() as u64;
                parts.push_back((position, ram.pinned(bytes)));
                position += length;
            }
        }
        Some(Held { parts, end, reserved })
    }

    /// The bytes from `position` on, and lets go of those before it.
    pub(super) fn read(&mut self, position: u64) -> Option<Bytes> {
        let passed = |(start, bytes): &(u64, Bytes)| start + bytes.len() as u64 <= position;
        while self.parts.front().is_some_and(passed) {
            self.parts.pop_front();
        }
        let left = self.parts.front().and_then(|(start, _)| ByteRange::new(*start, self.end));
        self.reserved.shrink_to(left.map_or(0, |left| left.rounded_out(None).length_bytes()));
        let (start, bytes) = self.parts.front()?;
        Some(bytes.slice(position.checked_sub(*start)? as usize..))
    }
}
