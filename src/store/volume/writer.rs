//! The writer: one task for each volume that takes what waits and appends it.
//!
//! Blocks one by one, heads packed together; a few writes under way at once. What it takes is
//! found in the index when every byte is written, and not before.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::{GRANULE_SIZE_BYTES, VOLUME_WRITES_MAX};
use crate::store::ObjectHash;
use crate::store::device::Urgency;
use crate::store::format::{BlockHeader, BlockLabel, FilledFor, FooterEntry, PacketBuilder};
use crate::store::index::{Entry, Kind, Shape};
use crate::store::ledger::{Stream, new_head};

use super::append::{Placed, aligned, stream_of};
use super::core::Core;
use super::heads::Unpublished;
use super::queue::{Next, QueuedBlock, QueuedHead};
use super::types::{BlockWrite, Refused};

/// Writes until the queue is closed and empty, and every write is over.
pub(super) async fn run(core: Arc<Core>) {
    let permits = Arc::new(Semaphore::new(VOLUME_WRITES_MAX));
    loop {
        match core.queue.next().await {
            Next::Block(block) => core.begin_block(&permits, block).await,
            Next::Heads(heads) => {
                for (packet, heads) in packed(core.newest_only(heads)) {
                    core.begin_heads(&permits, packet, heads).await;
                }
            }
            Next::Closed => break,
        }
    }
    let all = permits.acquire_many(VOLUME_WRITES_MAX as u32).await;
    all.expect("nobody closes the semaphore").forget();
}

/// A block's bytes in the queue.
pub(super) fn block_bytes(write: &BlockWrite) -> u64 {
    GRANULE_SIZE_BYTES + write.parts.iter().map(|part| part.len() as u64).sum::<u64>()
}

impl Core {
    async fn begin_block(self: &Arc<Core>, permits: &Arc<Semaphore>, block: QueuedBlock) {
        let permit = permit(permits).await;
        let write = &block.write;
        if self.pending_blocks.is_forgotten(write.block, block.pending) {
            return self.end_block(block);
        }
        let label = BlockLabel {
            object: write.object,
            site: write.site,
            block: write.block,
            birth: write.birth,
            sequence: self.next_sequence(),
            filled_for: write.filled_for,
        };
        let header = BlockHeader::new(label, write.pieces, &write.parts)
            .expect("a block's parts were compared with its map when it was queued");
        let stream = stream_of(write.filled_for);
        let Some(placed) = self.place_or_make_room(stream, header.granules(), 1).await else {
            self.count_no_place();
            return self.end_block(block);
        };
        let core = Arc::clone(self);
        tokio::spawn(async move {
            core.write_block(placed, header, block).await;
            drop(permit);
        });
    }

    async fn write_block(&self, placed: Placed, header: BlockHeader, mut block: QueuedBlock) {
        let (key, pending) = (block.write.block, block.pending);
        let length = header.length_bytes() as u64;
        let parts = aligned(header.encode(&placed.spot), std::mem::take(&mut block.write.parts));
        let written = self.write_record(&placed, &parts, Urgency::Write).await;
        drop(parts);
        match written {
            Ok(()) => {
                self.tally.admitted_bytes.add(length);
                self.count_overhead(&header);
                let publish = || self.publish_block(&placed, &header);
                let published = self.pending_blocks.end(key, pending, publish);
                // It was forgotten meanwhile.
                published.unwrap_or_else(|| self.settle(&placed, None));
            }
            Err(source) => {
                self.pending_blocks.end(key, pending, || ());
                self.write_failed(&placed, &source);
            }
        }
        self.queue.written(length + GRANULE_SIZE_BYTES);
        drop(block.write.guard);
    }

    fn publish_block(&self, placed: &Placed, header: &BlockHeader) {
        let label = header.label();
        let shape = Shape::block(header.pieces(), header.length_bytes() as u64)
            .expect("a header's map and length agree");
        let planned = label.filled_for == FilledFor::Planned;
        let entry = Entry { location: placed.location, shape, score: 0, planned };
        let inserted = self.ledger.insert(self.block_key(label.block), entry);
        let granule = u32::from(placed.location.granule);
        self.settle(placed, Some(FooterEntry::of_block(granule, header)));
        if inserted.is_err() {
            // Giving up a region makes places in the index too.
            self.upkeep_wanted.notify_one();
            self.tally.refused(Refused::IndexFull);
        }
    }

    /// The header granule, and the zeros after the last piece.
    pub(super) fn count_overhead(&self, header: &BlockHeader) {
        self.tally.metadata_bytes.add(GRANULE_SIZE_BYTES);
        let all = u64::from(header.granules() - 1) * GRANULE_SIZE_BYTES;
        self.tally.padding_bytes.add(all - header.length_bytes() as u64);
    }

    /// It was not written at all.
    fn end_block(&self, block: QueuedBlock) {
        self.pending_blocks.end(block.write.block, block.pending, || ());
        self.queue.written(block_bytes(&block.write));
    }

    /// Of several heads of one object the newest; nobody finds the others any more.
    fn newest_only(&self, heads: Vec<QueuedHead>) -> Vec<QueuedHead> {
        let newest: HashMap<ObjectHash, u64> =
            heads.iter().map(|head| (head.label.object, head.label.sequence)).collect();
        let is_newest = |head: &QueuedHead| newest[&head.label.object] == head.label.sequence;
        let (newest, older) = heads.into_iter().partition(is_newest);
        for head in Vec::<QueuedHead>::into_iter(older) {
            self.pending_heads.leave_out(head.label.object);
            self.queue.written(head.length_bytes() as u64);
        }
        newest
    }

    async fn begin_heads(
        self: &Arc<Core>,
        permits: &Arc<Semaphore>,
        packet: PacketBuilder,
        heads: Vec<QueuedHead>,
    ) {
        let permit = permit(permits).await;
        let (granules, count) = (packet.granules(), heads.len() as u32);
        let Some(placed) = self.place_or_make_room(Stream::Demand, granules, count).await else {
            self.count_no_place();
            heads.into_iter().for_each(|head| self.drop_head(head));
            // What took its place is not on the device.
            return self.want_checkpoint();
        };
        let core = Arc::clone(self);
        tokio::spawn(async move {
            core.write_heads(placed, packet, heads).await;
            drop(permit);
        });
    }

    async fn write_heads(&self, placed: Placed, packet: PacketBuilder, heads: Vec<QueuedHead>) {
        let granules = packet.granules();
        let parts = [Bytes::from_owner(packet.encode(&placed.spot))];
        drop(packet);
        match self.write_record(&placed, &parts, Urgency::Write).await {
            Ok(()) => {
                self.count_packet(granules, &heads);
                let entries: Vec<_> =
                    heads.iter().map(|head| entry_of(&placed, granules, head)).collect();
                let mut cancelled = false;
                for head in heads {
                    let published = self.publish_head(&placed, granules, head);
                    cancelled |= published == Err(Unpublished::Cancelled);
                }
                self.settle(&placed, entries);
                if cancelled {
                    // Not before: of what is not settled a checkpoint does not tell.
                    self.want_checkpoint();
                }
            }
            Err(source) => {
                self.write_failed(&placed, &source);
                heads.into_iter().for_each(|head| self.drop_head(head));
            }
        }
    }

    fn count_packet(&self, granules: u32, heads: &[QueuedHead]) {
        let all = u64::from(granules) * GRANULE_SIZE_BYTES;
        let bytes = heads.iter().map(|head| head.length_bytes() as u64).sum::<u64>().min(all);
        self.tally.heads_bytes.add(bytes);
        self.tally.padding_bytes.add(all - bytes);
    }

    fn publish_head(
        &self,
        placed: &Placed,
        granules: u32,
        head: QueuedHead,
    ) -> Result<(), Unpublished> {
        let object = head.label.object;
        let entry = new_head(placed.location, granules);
        let is_tombstone = head.write.is_none();

        let key = self.head_key(object);
        let published = self.pending_heads.end(object, head.label.sequence, || {
            if is_tombstone {
                self.ledger.remove(key, Kind::Head);
                return true;
            }
            self.ledger.insert(key, entry).is_ok()
        });
        if published == Ok(false) {
            self.tally.refused(Refused::IndexFull);
            self.upkeep_wanted.notify_one();
        }
        self.queue.written(head.length_bytes() as u64);
        published.map(drop)
    }

    /// A head that can't be written: the one before it does not count any more either.
    fn drop_head(&self, head: QueuedHead) {
        let object = head.label.object;
        let _ = self.pending_heads.end(object, head.label.sequence, || {
            self.ledger.remove(self.head_key(object), Kind::Head);
        });
        self.queue.written(head.length_bytes() as u64);
    }

    fn count_no_place(&self) {
        self.tally.refused(match (self.health.is_readable(), self.health.is_writable()) {
            (false, _) => Refused::Offline,
            (true, false) => Refused::ReadOnly,
            (true, true) => Refused::NoRoom,
        });
    }
}

async fn permit(permits: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    let permit = Arc::clone(permits).acquire_owned().await;
    permit.expect("nobody closes the semaphore")
}

fn entry_of(placed: &Placed, granules: u32, head: &QueuedHead) -> FooterEntry {
    let granule = u32::from(placed.location.granule);
    match head.write {
        Some(_) => FooterEntry::of_head(granule, granules, &head.label),
        None => FooterEntry::of_tombstone(granule, granules, &head.label),
    }
}

/// Packs heads into as few packets as they come in order, each when it is asked for: what is packed
/// was copied.
fn packed(
    heads: impl IntoIterator<Item = QueuedHead>,
) -> impl Iterator<Item = (PacketBuilder, Vec<QueuedHead>)> {
    let mut heads = heads.into_iter().peekable();
    std::iter::from_fn(move || {
        let first = heads.next()?;
        let write = first.write.as_ref();
        if let Some((write, body)) = write.and_then(|write| Some((write, write.body.as_ref()?))) {
            let payload = &write.payload;
            let packet = PacketBuilder::with_body(first.label, payload, body.version, &body.bytes)
                .expect("a head and its body were measured when they were queued");
            return Some((packet, vec![first]));
        }
        let mut packet = PacketBuilder::new();
        let mut fits = |head: &QueuedHead| {
            let is_plain = head.write.as_ref().is_none_or(|write| write.body.is_none());
            let payload = head.write.as_ref().map_or(&[][..], |write| &write.payload);
            is_plain && packet.push(head.label, payload)
        };
        assert!(fits(&first), "a head was measured when it was queued");
        let mut together = vec![first];
        while let Some(next) = heads.next_if(&mut fits) {
            together.push(next);
        }
        Some((packet, together))
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::store::SiteHash;
    use crate::store::format::HeadLabel;
    use crate::store::volume::HeadWrite;

    #[test]
    fn no_more_heads_are_packed_than_one_packet_takes() {
        let head = |sequence: u64| {
            let (object, site) = (ObjectHash(u128::from(sequence)), SiteHash(1));
            let payload = Bytes::from(vec![7; 900]);
            let write =
                HeadWrite { object, site, birth: 1, payload, body: None, guard: Box::new(()) };
            let label = HeadLabel { object, site, sequence, birth: 1 };
            QueuedHead { label, write: Some(write) }
        };
        let taken = Cell::new(0);
        let waiting = (0..100).inspect(|_| taken.set(taken.get() + 1)).map(head);
        let mut packets = packed(waiting);
        let mut in_packets = 0;
        for _ in 0..5 {
            let (packet, heads) = packets.next().unwrap();
            in_packets += heads.len();
            assert_eq!((packet.granules(), heads.len()), (1, 4));
            assert_eq!(taken.get(), in_packets + 1, "and the next one is looked at");
        }
        assert_eq!(packets.map(|(_, heads)| heads.len()).sum::<usize>() + in_packets, 100);
    }
}
