//! Blocks on their way: one that is forgotten before its write is over is not found after it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use crate::object::BlockKey;

/// Blocks that wait to be written or are being written.
#[derive(Default)]
pub(super) struct PendingBlocks(Mutex<HashMap<BlockKey, Pending>>);

/// The writes of one block that are not over, numbered from 1 on.
#[derive(Default)]
struct Pending {
    newest: u64,
    /// It, and all before it, were forgotten.
    forgotten: u64,
    under_way: u32,
}

impl PendingBlocks {
    /// A write of the block is on its way; what it is called until it ends.
    pub(super) fn begin(&self, block: BlockKey) -> u64 {
        let mut blocks = self.blocks();
        let pending = blocks.entry(block).or_default();
        pending.newest += 1;
        pending.under_way += 1;
        pending.newest
    }

    /// What is on its way of the block counts no more. `and` is done before any of it ends.
    pub(super) fn forget(&self, block: BlockKey, and: impl FnOnce()) {
        let mut blocks = self.blocks();
        if let Some(pending) = blocks.get_mut(&block) {
            pending.forgotten = pending.newest;
        }
        and();
    }

    /// Whether the write need not be begun.
    pub(super) fn is_forgotten(&self, block: BlockKey, write: u64) -> bool {
        self.blocks().get(&block).is_some_and(|pending| write <= pending.forgotten)
    }

    /// The write is over; `publish` is called unless the block was forgotten since it began.
    pub(super) fn end<T>(
        &self,
        block: BlockKey,
        write: u64,
        publish: impl FnOnce() -> T,
    ) -> Option<T> {
        let mut blocks = self.blocks();
        let pending = blocks.get_mut(&block).expect("what ends was begun");
        let published = (write > pending.forgotten).then(publish);
        pending.under_way -= 1;
        if pending.under_way == 0 {
            blocks.remove(&block);
        }
        published
    }

    fn blocks(&self) -> MutexGuard<'_, HashMap<BlockKey, Pending>> {
        self.0.lock().expect("nothing panics while it changes the blocks under way")
    }
}
