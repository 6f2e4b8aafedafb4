//! The memory a run writes into: reserved and allocated before a byte is read, published when it
//! holds whole pieces.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout_at};

use super::{PARK_AFTER, Pump, Stop};
use crate::cache::ram::{Extent, Ram};
use crate::cache::ssd::Seen;
use crate::fill::error::FillError;
use crate::fill::run::Sharing;
use crate::limits::PIECE_SIZE_BYTES;
use crate::memory::{Class, Reservation, Use};
use crate::object::{BlockKey, piece_floor};

/// The extent being written.
pub(super) struct Writing {
    pub(super) extent: Extent,
    /// Where its first byte lies in the version.
    start: u64,
}

impl Pump {
    /// Takes memory for the next bytes: to the end of the block if that is free, else one piece.
    /// What nobody waits for yet is a comfort, and gives way to everything else.
    pub(super) async fn open_extent(&mut self) -> Result<(), Stop> {
        if self.extent.is_some() {
            return Ok(());
        }
        let block_size_bytes = self.filler.block_size.bytes();
        let in_block = block_size_bytes - self.position % block_size_bytes;
        let left = self.run.end().map_or(in_block, |end| in_block.min(end - self.position)).max(1);
        let one_piece = left.min(PIECE_SIZE_BYTES);
        while !(self.take(left, Class::Prefetch) || self.take(one_piece, Class::Prefetch)) {
            if self.run.is_awaited_at(self.position) {
                return self.open_awaited(one_piece).await;
            }
            self.reader_moved().await?;
        }
        Ok(())
    }

    /// Takes memory for a piece that a reader waits for. A run that can be taken up again waits for
    /// a short time only: it may hold what others wait for.
    async fn open_awaited(&mut self, one_piece: u64) -> Result<(), Stop> {
        let may_park = self.begun && self.may_park();
        let patience = if may_park { PARK_AFTER } else { self.filler.client.patience().first_byte };
        let deadline = Instant::now() + patience;
        let filler = self.filler.clone();
        let governor = filler.governor.of(self.run.key.site());
        while !self.take(one_piece, self.class) {
            let reserved = governor.reserve(Use::Fill, self.class, Ram::taken_bytes(one_piece));
            let reserved = timeout_at(deadline, reserved).await;
            if reserved.is_ok_and(|reserved| self.write_into(reserved, one_piece)) {
                break;
            }
            if Instant::now() >= deadline {
                let too_much = Stop::Failed(FillError::Overload { what: "memory" });
                return Err(if may_park { Stop::Parked } else { too_much });
            }
            // Memory may be free all the while, and room in the mapping not.
            sleep(PAUSE).await;
        }
        Ok(())
    }

    fn take(&mut self, bytes: u64, class: Class) -> bool {
        let governor = self.filler.governor.of(self.run.key.site());
        let reserved = governor.try_reserve(Use::Fill, class, Ram::taken_bytes(bytes));
        reserved.is_some_and(|reserved| self.write_into(reserved, bytes))
    }

    /// Begins an extent of `bytes`; false when the mapping has no room.
    fn write_into(&mut self, reserved: Reservation, bytes: u64) -> bool {
        let Some(extent) = self.filler.ram.allocate(self.run.key.site(), bytes) else {
            return false;
        };
        self.extent = Some(Writing { extent, start: self.position });
        self.run.begin_part(reserved);
        self.class = Class::Viewer;
        self.begun = true;
        true
    }

    /// Publishes the whole pieces of what was written.
    pub(super) fn close_extent(&mut self) {
        let Some(Writing { extent, start }) = self.extent.take() else { return };
        let bytes = extent.freeze();
        let published = self.run.sharing == Sharing::Shared && self.publish(start, &bytes);
        self.run.finish_part(bytes, published);
    }

    /// The block at `position` is as full as this run makes it: is it worth keeping?
    pub(super) fn offer_block(&self, position: u64) {
        let Some(index) = self.filler.block_size.block_at(position) else { return };
        let ssd = &self.filler.ssd;
        let may_be_kept = self.run.sharing == Sharing::Shared && !self.run.version.is_changed();
        if may_be_kept && ssd.is_in_use() {
            let subject = ssd.subject(&self.run.key);
            ssd.consider(&subject, &self.run.version, index, Seen::Filled);
        }
    }

    /// The run ends here, if not at the border of a block; or without a byte, where there is none.
    pub(super) fn offer_last(&self) {
        if self.run.version.length_bytes() == Some(0) {
            return self.offer_block(0);
        }
        let at_border = self.position.is_multiple_of(self.filler.block_size.bytes());
        if !at_border && self.position > self.run.standing().bounds.start {
            self.offer_block(self.position - 1);
        }
    }

    /// Whether all of it is in ram now: what is not whole is left to who reads the run.
    fn publish(&self, start: u64, bytes: &Bytes) -> bool {
        let version = &self.run.version;
        let end = start + bytes.len() as u64;
        let whole = match version.length_bytes() == Some(end) {
            true => end,
            false => piece_floor(end).max(start),
        };
        let block_size = self.filler.block_size;
        let Some(index) = block_size.block_at(start) else { return false };
        if whole == start || version.is_changed() || !start.is_multiple_of(PIECE_SIZE_BYTES) {
            return false;
        }
        let first_piece = ((start - block_size.start_of(index)) / PIECE_SIZE_BYTES) as u32;
        let key = BlockKey { version: version.id, index };
        let bytes = bytes.slice(..(whole - start) as usize);
        self.filler.ram.publish(self.run.key.site(), key, first_piece, bytes);
        whole == end
    }
}

/// Between looks for room in the mapping.
const PAUSE: Duration = Duration::from_millis(20);
