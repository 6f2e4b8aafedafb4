//! A body that cannot be asked for in parts is held whole before its head is sent.
//!
//! Without a strong validator no later answer can be joined to what is in ram: were a block evicted
//! while a viewer is on his way to it, his body would be cut. So what is in ram is pinned for him
//! up to where the run that brings the rest keeps it for him; where that is not all, or there is no
//! memory to pin it, the object counts as not held.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::cache::ram::{Ram, RamBlock};
use crate::memory::{Class, Governor, Reservation, Use};
use crate::object::{BlockKey, BlockSize, VersionId};

/// Blocks pinned until they are sent.
pub(super) struct Held {
    block_size: BlockSize,
    /// In order, without gaps.
    blocks: VecDeque<(u32, Arc<RamBlock>)>,
    end: u64,
    reserved: Reservation,
}

impl Held {
    /// Pins the bytes from `start` to `end` of a version; `None` when ram lacks some of them, or
    /// there is no memory to spare.
    pub(super) fn pin(
        ram: &Ram,
        governor: &Arc<Governor>,
        block_size: BlockSize,
        version: VersionId,
        (start, end): (u64, u64),
    ) -> Option<Held> {
        let reserved = governor.try_reserve(Use::Client, Class::Prefetch, end - start)?;
        let mut blocks = VecDeque::new();
        let mut position = start;
        while position < end {
            let index = block_size.block_at(position)?;
            let (block_start, block_end) =
                (block_size.start_of(index), block_size.start_of(index) + block_size.bytes());
            let block = ram.get(&BlockKey { version, index })?;
            while position < end.min(block_end) {
                position += block.read(position - block_start)?.len() as u64;
            }
            blocks.push_back((index, block));
        }
        Some(Held { block_size, blocks, end, reserved })
    }

    /// The bytes from `position` on, and lets go of the blocks before it.
    pub(super) fn read(&mut self, position: u64) -> Option<Bytes> {
        self.reserved.shrink_to(self.end.saturating_sub(position));
        let index = self.block_size.block_at(position)?;
        while self.blocks.front().is_some_and(|(held, _)| *held < index) {
            self.blocks.pop_front();
        }
        let (held, block) = self.blocks.front()?;
        let offset = position - self.block_size.start_of(index);
        (*held == index && position < self.end).then(|| block.read(offset)).flatten()
    }
}
