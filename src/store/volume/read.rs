//! Reading: one transfer for a record's start, two at once for a later part, every byte verified.
//!
//! No reader holds a region. One that is overtaken, because the region was given up while he read,
//! finds that out by what he reads: he looks the record up again, and it is a miss, not an error.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::time::Instant;

use crate::limits::{GRANULE_SIZE_BYTES, PIECE_SIZE_BYTES, PIECES_PER_BLOCK_MAX};
use crate::object::{BlockKey, PieceMap};
use crate::store::ObjectHash;
use crate::store::device::{Buffer, DeviceError, Granules, Lent, Urgency};
use crate::store::format::{BlockHeader, FormatError, Packet, Spot};
use crate::store::index::{Entry, Fingerprint, Kind, Location};

use super::core::Core;
use super::types::{HeadFound, Pieces, Read, ReadError, SmallBody, Trust};

const GRANULE: u64 = GRANULE_SIZE_BYTES;
/// Times a record is looked up: it may have been carried elsewhere meanwhile.
const LOOKUPS_MAX: usize = 3;

/// How one attempt ended.
enum Attempt<T> {
    Found(T),
    /// What was read is not what was written, or not there any more.
    Wrong(FormatError),
    /// It is right, and of another key that the index takes for this one.
    OfAnother,
    Failed(ReadError),
}

/// The part of a record that is wanted.
#[derive(Clone, Copy)]
struct Part {
    entry: Entry,
    /// Its first piece among those of the record.
    skipped: u32,
    pieces: Pieces,
}

impl Core {
    pub(super) async fn read_block(
        &self,
        block: BlockKey,
        pieces: Pieces,
        mut into: Box<dyn Lent>,
        urgency: Urgency,
    ) -> Result<Read, ReadError> {
        let key = self.block_key(block);
        let deadline = Instant::now() + self.settings.read_deadline;
        let mut read_again = false;
        for _ in 0..LOOKUPS_MAX {
            self.readable()?;
            let Some(part) = self.longest(key, pieces) else { return Err(ReadError::Absent) };
            let spot = self.spot(part.entry.location);
            let (attempt, back) = self.read_part(block, &part, spot, into, urgency, deadline).await;
            match attempt {
                Attempt::Found((bytes, count)) => {
                    let lent = back.expect("what was read is given back");
                    return Ok(Read { lent, bytes, pieces: count });
                }
                Attempt::Wrong(fault) => {
                    let again = self.mismatched(key, &part.entry, &spot, &fault, read_again);
                    read_again = true;
                    if !again {
                        self.drop_block_at(key, part.entry.location);
                        return Err(ReadError::Mismatch);
                    }
                }
                Attempt::OfAnother => {
                    if !self.is_overtaken(key, &part.entry, &spot) {
                        self.tally.of_another.add(1);
                        return Err(ReadError::Absent);
                    }
                }
                Attempt::Failed(error) => {
                    let drop = || self.drop_block_at(key, part.entry.location);
                    return Err(self.failed(&part.entry, error, drop));
                }
            }
            let Some(lent) = back else { return Err(ReadError::Late) };
            into = lent;
        }
        Err(ReadError::Absent)
    }

    /// The record that holds the most of `pieces` from their first on.
    fn longest(&self, key: Fingerprint, pieces: Pieces) -> Option<Part> {
        let run = |map: PieceMap| {
            let wanted =
                pieces.first..pieces.first.saturating_add(pieces.count).min(PIECES_PER_BLOCK_MAX);
            wanted.take_while(|piece| map.holds(*piece)).count() as u32
        };
        let records = self.index().blocks_of(key);
        let entry = *records.iter().max_by_key(|entry| run(entry.shape.pieces()))?;
        let map = entry.shape.pieces();
        let count = run(map);
        let skipped =
            (u32::from(map.0) & ((1 << pieces.first.min(PIECES_PER_BLOCK_MAX)) - 1)).count_ones();
        let pieces = Pieces { first: pieces.first, count };
        (count > 0).then_some(Part { entry, skipped, pieces })
    }

    async fn read_part(
        &self,
        block: BlockKey,
        part: &Part,
        spot: Spot,
        into: Box<dyn Lent>,
        urgency: Urgency,
        deadline: Instant,
    ) -> (Attempt<(usize, u32)>, Option<Box<dyn Lent>>) {
        let length = part.length_bytes();
        assert!(length <= into.length_bytes(), "what is lent has room for the pieces");
        let data = Buffer::LentStart(into, length);
        let header = || Buffer::Own(Granules::zeroed(1));
        let read = |at, into| self.disk.read(at, into, urgency, deadline);
        let moved = if part.skipped == 0 {
            read(spot.at(), vec![header(), data]).await
        } else {
            let at = spot.at() + GRANULE + u64::from(part.skipped) * PIECE_SIZE_BYTES;
            let (header, data) =
                tokio::join!(read(spot.at(), vec![header()]), read(at, vec![data]));
            header.and_then(|mut header| {
                header.append(&mut data?);
                Ok(header)
            })
        };
        let buffers = match moved {
            Ok(buffers) => buffers,
            Err(error) => return (Attempt::Failed(read_error(error)), None),
        };
        let verified = verify(block, part, &spot, buffers[0].bytes(), buffers[1].bytes());
        let attempt = match verified {
            Ok(Some(bytes)) => Attempt::Found((bytes, part.pieces.count)),
            Ok(None) => Attempt::OfAnother,
            Err(fault) => Attempt::Wrong(fault),
        };
        (attempt, buffers.into_iter().next_back().and_then(lent_of))
    }

    pub(super) async fn read_head(
        &self,
        object: ObjectHash,
        urgency: Urgency,
        guard: Arc<dyn Send + Sync>,
    ) -> Result<Option<HeadFound>, ReadError> {
        if let Some(pending) = self.pending_heads.newest(object) {
            return Ok(pending);
        }
        let key = self.head_key(object);
        let deadline = Instant::now() + self.settings.read_deadline;
        let mut read_again = false;
        for _ in 0..LOOKUPS_MAX {
            self.readable()?;
            let Some(entry) = self.index().head(key) else { return Ok(None) };
            let spot = self.spot(entry.location);
            let granules = entry.shape.granules().min(spot.room()) as usize;
            let into = Granules::zeroed(granules).guarded(guard.clone());
            match self.read_packet(object, &spot, into, urgency, deadline).await {
                Attempt::Found(found) => {
                    self.ledger.touch(key, Kind::Head);
                    return Ok(Some(found));
                }
                Attempt::Wrong(fault) => {
                    let again = self.mismatched(key, &entry, &spot, &fault, read_again);
                    read_again = true;
                    if !again {
                        self.drop_head_at(object, entry.location);
                        return Err(ReadError::Mismatch);
                    }
                }
                Attempt::OfAnother => {
                    if !self.is_overtaken(key, &entry, &spot) {
                        self.tally.of_another.add(1);
                        return Ok(None);
                    }
                }
                Attempt::Failed(error) => {
                    let drop = || self.drop_head_at(object, entry.location);
                    return Err(self.failed(&entry, error, drop));
                }
            }
        }
        Ok(None)
    }

    async fn read_packet(
        &self,
        object: ObjectHash,
        spot: &Spot,
        into: Granules,
        urgency: Urgency,
        deadline: Instant,
    ) -> Attempt<HeadFound> {
        let into = vec![Buffer::Own(into)];
        let mut buffers = match self.disk.read(spot.at(), into, urgency, deadline).await {
            Ok(buffers) => buffers,
            Err(error) => return Attempt::Failed(read_error(error)),
        };
        let Some(Buffer::Own(granules)) = buffers.pop() else {
            return Attempt::Failed(ReadError::Failed(io::Error::other("a buffer was lost")));
        };
        let bytes = Bytes::from_owner(granules);
        match self.head_in(&bytes, object, spot) {
            Ok(Some(found)) => Attempt::Found(found),
            Ok(None) => Attempt::OfAnother,
            Err(fault) => Attempt::Wrong(fault),
        }
    }

    fn head_in(
        &self,
        bytes: &Bytes,
        object: ObjectHash,
        spot: &Spot,
    ) -> Result<Option<HeadFound>, FormatError> {
        let packet = Packet::decode(bytes, spot)?;
        let head = packet.find(object).filter(|head| !head.is_tombstone());
        let Some(head) = head else { return Ok(None) };
        let body = packet
            .body()
            .map(|body| SmallBody { version: body.version, bytes: bytes.slice_ref(body.bytes) });
        let known = head.label.sequence >= self.trust_from.load(Ordering::Relaxed);
        Ok(Some(HeadFound {
            site: head.label.site,
            birth: head.label.birth,
            payload: bytes.slice_ref(head.payload),
            body,
            trust: if known { Trust::Newest } else { Trust::MustRevalidate },
        }))
    }

    fn readable(&self) -> Result<(), ReadError> {
        if self.health.is_readable() { Ok(()) } else { Err(ReadError::Offline) }
    }

    /// What was read at `entry` is not what was written: whether to look again.
    ///
    /// If the record has moved, or its region has, that is why. Otherwise it is read once more,
    /// and then to be dropped.
    fn mismatched(
        &self,
        key: Fingerprint,
        entry: &Entry,
        spot: &Spot,
        fault: &FormatError,
        read_again: bool,
    ) -> bool {
        if self.is_overtaken(key, entry, spot) || !read_again {
            return true;
        }
        let location = entry.location;
        self.tally.mismatches.add(1);
        tracing::warn!(
            "volume {}: the record in region {} at byte {} is not what was written, and is \
             dropped: {fault}",
            self.name,
            location.region.0,
            spot.at()
        );
        self.read_failed(location.region, fault);
        false
    }

    /// Whether the record has moved, or its region has, since it was looked up.
    fn is_overtaken(&self, key: Fingerprint, entry: &Entry, spot: &Spot) -> bool {
        let (kind, location) = (entry.shape.kind(), entry.location);
        self.index().at(key, kind, location).is_none()
            || self.ledger.generation(location.region) != spot.generation()
    }

    fn drop_block_at(&self, key: Fingerprint, location: Location) {
        self.ledger.remove_at(key, Kind::Block, location);
    }

    fn failed(&self, entry: &Entry, error: ReadError, drop: impl FnOnce()) -> ReadError {
        match &error {
            ReadError::Late => self.tally.late.add(1),
            ReadError::Busy => self.tally.busy.add(1),
            ReadError::Failed(source) => {
                drop();
                self.unread(entry.location, source);
            }
            ReadError::Absent | ReadError::Mismatch | ReadError::Offline => {}
        }
        error
    }
}

impl Part {
    /// What its pieces take on the device, padding included.
    fn length_bytes(&self) -> usize {
        let all = u64::from(self.entry.shape.granules() - 1) * GRANULE;
        let start = u64::from(self.skipped) * PIECE_SIZE_BYTES;
        let whole = u64::from(self.pieces.count) * PIECE_SIZE_BYTES;
        whole.min(all.saturating_sub(start)) as usize
    }
}

/// How many bytes of `data` are the pieces of `part`, all of them verified; `None` if they are
/// another block's.
fn verify(
    block: BlockKey,
    part: &Part,
    spot: &Spot,
    header: &[u8],
    data: &[u8],
) -> Result<Option<usize>, FormatError> {
    let header = BlockHeader::decode(header, spot)?;
    let right = header.pieces() == part.entry.shape.pieces()
        && header.granules() == part.entry.shape.granules();
    if !right {
        let found = header.pieces().0.into();
        return Err(FormatError::Invalid { what: "the pieces of a record", found });
    }
    if header.label().block != block {
        return Ok(None);
    }
    let start = part.skipped as usize * PIECE_SIZE_BYTES as usize;
    let mut end = 0;
    for piece in part.pieces.first..part.pieces.first + part.pieces.count {
        let range = header.piece(piece).ok_or(FormatError::Checksum { piece })?;
        let bytes = data.get(range.start - start..range.end - start);
        header.verify_piece(piece, bytes.ok_or(FormatError::Checksum { piece })?)?;
        end = range.end - start;
    }
    Ok(Some(end))
}

fn lent_of(buffer: Buffer) -> Option<Box<dyn Lent>> {
    match buffer {
        Buffer::Lent(lent) | Buffer::LentStart(lent, _) => Some(lent),
        Buffer::Own(_) | Buffer::Shared(_) => None,
    }
}

fn read_error(error: DeviceError) -> ReadError {
    match error {
        DeviceError::Busy => ReadError::Busy,
        DeviceError::Late => ReadError::Late,
        DeviceError::Failed(source) => ReadError::Failed(source),
    }
}
