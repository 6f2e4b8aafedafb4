//! What waits to be written: blocks in order, and heads until they fill a granule or grow old.
//!
//! Bounded in bytes and records; a full queue refuses at once. Bytes count until their write is
//! over, not only until it begins.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::limits::{GRANULE_SIZE_BYTES, VOLUME_QUEUE_BYTES_MAX, VOLUME_QUEUE_RECORDS_MAX};
use crate::store::format::HeadLabel;

use super::types::{BlockWrite, HeadWrite, Refused};

/// Heads that wait for company: this much fills a granule.
const HEADS_BYTES_DUE: usize = GRANULE_SIZE_BYTES as usize - 256;
/// What a tombstone counts for, and a head beside its payload and body: about what it takes.
const TOMBSTONE_BYTES: usize = 64;

pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    wake: Notify,
    head_linger: Duration,
}

#[derive(Default)]
struct Waiting {
    blocks: VecDeque<QueuedBlock>,
    heads: VecDeque<QueuedHead>,
    heads_bytes: usize,
    heads_since: Option<Instant>,
    /// Of all that waits or is being written.
    bytes: u64,
    closed: bool,
}

/// A block on its way.
pub(super) struct QueuedBlock {
    pub(super) write: BlockWrite,
    /// What the write is called among those of its block that are on their way.
    pub(super) pending: u64,
}

/// A head on its way, or the end of one.
pub(super) struct QueuedHead {
    pub(super) label: HeadLabel,
    /// `None`: a tombstone.
    pub(super) write: Option<HeadWrite>,
}

impl QueuedHead {
    pub(super) fn length_bytes(&self) -> usize {
        head_bytes(self.write.as_ref())
    }
}

/// What a head counts for in the queue, or a tombstone.
pub(super) fn head_bytes(write: Option<&HeadWrite>) -> usize {
    let body = |write: &HeadWrite| write.body.as_ref().map_or(0, |body| body.bytes.len());
    TOMBSTONE_BYTES + write.map_or(0, |write| write.payload.len() + body(write))
}

/// What the writer does next.
pub(super) enum Next {
    Block(QueuedBlock),
    Heads(Vec<QueuedHead>),
    Closed,
}

impl Queue {
    pub(super) fn new(head_linger: Duration) -> Queue {
        Queue { waiting: Mutex::default(), wake: Notify::new(), head_linger }
    }

    /// `block` is made when there is room for it.
    pub(super) fn push_block(
        &self,
        bytes: u64,
        block: impl FnOnce() -> QueuedBlock,
    ) -> Result<(), Refused> {
        let mut waiting = self.waiting();
        let records = waiting.blocks.len();
        waiting.admit(bytes, records)?;
        waiting.blocks.push_back(block());
        self.wake.notify_one();
        Ok(())
    }

    /// `head` is made under the lock, so that heads are numbered in the order they wait.
    pub(super) fn push_head(
        &self,
        bytes: u64,
        head: impl FnOnce() -> QueuedHead,
    ) -> Result<(), Refused> {
        let mut waiting = self.waiting();
        let records = waiting.heads.len();
        waiting.admit(bytes, records)?;
        waiting.push(head());
        self.wake.notify_one();
        Ok(())
    }

    /// A tombstone is refused only by a queue that is twice as long as it may be: whoever forgets
    /// a head can't try again. It is made under the lock, if it is needed then.
    pub(super) fn push_tombstone(&self, head: impl FnOnce() -> Option<QueuedHead>) -> bool {
        let mut waiting = self.waiting();
        if waiting.closed || waiting.heads.len() >= 2 * VOLUME_QUEUE_RECORDS_MAX {
            return false;
        }
        if let Some(head) = head() {
            waiting.bytes += head.length_bytes() as u64;
            waiting.push(head);
            self.wake.notify_one();
        }
        true
    }

    /// The write of so many bytes is over.
    pub(super) fn written(&self, bytes: u64) {
        let mut waiting = self.waiting();
        waiting.bytes = waiting.bytes.saturating_sub(bytes);
    }

    pub(super) fn bytes(&self) -> u64 {
        self.waiting().bytes
    }

    /// Takes nothing any more; what waits is still handed out.
    pub(super) fn close(&self) {
        self.waiting().closed = true;
        self.wake.notify_one();
    }

    /// Waits for something to write. Only the writer asks. Dropping it midway loses nothing.
    pub(super) async fn next(&self) -> Next {
        loop {
            let due = {
                let mut waiting = self.waiting();
                if let Some(next) = waiting.take(Instant::now(), self.head_linger) {
                    return next;
                }
                waiting.heads_since.map(|since| since + self.head_linger)
            };
            // A wake-up that came in between is remembered.
            match due {
                Some(due) => drop(timeout_at(due, self.wake.notified()).await),
                None => self.wake.notified().await,
            }
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("nothing panics while it changes the queue of a volume")
    }
}

impl Waiting {
    fn admit(&mut self, bytes: u64, records: usize) -> Result<(), Refused> {
        if self.closed {
            return Err(Refused::Offline);
        }
        if self.bytes + bytes > VOLUME_QUEUE_BYTES_MAX || records >= VOLUME_QUEUE_RECORDS_MAX {
            return Err(Refused::QueueFull);
        }
        self.bytes += bytes;
        Ok(())
    }

    fn push(&mut self, head: QueuedHead) {
        self.heads_bytes += head.length_bytes();
        self.heads_since.get_or_insert_with(Instant::now);
        self.heads.push_back(head);
    }

    fn take(&mut self, now: Instant, linger: Duration) -> Option<Next> {
        let old = self.heads_since.is_some_and(|since| now >= since + linger);
        let heads_due = old || self.heads_bytes >= HEADS_BYTES_DUE || self.closed;
        if heads_due && !self.heads.is_empty() {
            self.heads_bytes = 0;
            self.heads_since = None;
            return Some(Next::Heads(self.heads.drain(..).collect()));
        }
        if let Some(block) = self.blocks.pop_front() {
            return Some(Next::Block(block));
        }
        self.closed.then_some(Next::Closed)
    }
}
