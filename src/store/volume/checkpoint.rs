//! Checkpoints: what is where, written down so that it need not be found out again.
//!
//! The index is dumped while it changes. That is right because of what is noted before: for every
//! region the generation and state, and for those that are open the granule up to which all is
//! published. A dumped entry counts only if it lies in what was noted; the rest is found by
//! reading the regions again. No region is given up meanwhile.

use bytes::{Buf, BufMut, Bytes};

use crate::limits::GRANULE_SIZE_BYTES;
use crate::store::device::{Granules, Urgency};
use crate::store::format::{
    CheckpointHeader, FilledFor, RegionSnapshot, RegionState, SectionKind, SectionSum,
};
use crate::store::index::RegionId;
use crate::store::ledger::RegionPhase;

use super::append::filled_for;
use super::core::{Core, UNBROKEN, Upkeep};
use super::metadata::{Metadata, MetadataError};

/// What is written at once.
const CHUNK_GRANULES: u64 = 256;
/// The granule before the dump of the index holds a [`Preamble`].
pub(in crate::store) const PREAMBLE_BYTES: usize = GRANULE_SIZE_BYTES as usize;
const OPEN_MAX: usize = 64;

/// What is noted beside the dump of the index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::store) struct Preamble {
    /// What the dump takes.
    pub(in crate::store) index_bytes: u64,
    /// Heads with a lower number may not be the newest.
    pub(in crate::store) trust_from: u64,
    /// Of each region that was open: the first granule of which not everything was published.
    pub(in crate::store) open: Vec<(RegionId, u32)>,
}

impl Preamble {
    pub(in crate::store) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(PREAMBLE_BYTES);
        bytes.put_u64_le(self.index_bytes);
        bytes.put_u64_le(self.trust_from);
        bytes.put_u64_le(self.open.len() as u64);
        for (region, granule) in &self.open {
            bytes.put_u32_le(region.0);
            bytes.put_u32_le(*granule);
        }
        bytes.resize(PREAMBLE_BYTES, 0);
        bytes
    }

    /// `None` if it says what was never written.
    pub(in crate::store) fn decode(mut bytes: &[u8]) -> Option<Preamble> {
        let index_bytes = bytes.try_get_u64_le().ok()?;
        let trust_from = bytes.try_get_u64_le().ok()?;
        let count = bytes.try_get_u64_le().ok()?;
        if count > OPEN_MAX as u64 {
            return None;
        }
        let mut open = Vec::new();
        for _ in 0..count {
            open.push((RegionId(bytes.try_get_u32_le().ok()?), bytes.try_get_u32_le().ok()?));
        }
        Some(Preamble { index_bytes, trust_from, open })
    }
}

/// What was noted before the index was dumped.
struct Noted {
    regions: Vec<RegionSnapshot>,
    open: Vec<(RegionId, u32)>,
    sealed_before: u64,
    next_write: u64,
}

impl Core {
    /// Writes a checkpoint, unless the volume can't be written; whether it did.
    pub(super) async fn take_checkpoint(&self, upkeep: &mut Upkeep) -> bool {
        let noted = self.note();
        // Not before: a write that failed is noted as one that is over, and may have arrived.
        if !self.health.is_writable() {
            return false;
        }
        let taken = self.write_noted(upkeep, &noted).await;
        if let Err(error) = &taken {
            self.metadata_failed(error);
        }
        taken.is_ok()
    }

    /// Writes one in the place of the older of the two.
    pub(super) async fn write_next_checkpoint(
        &self,
        upkeep: &mut Upkeep,
    ) -> Result<(), MetadataError> {
        let noted = self.note();
        self.write_noted(upkeep, &noted).await
    }

    async fn write_noted(&self, upkeep: &mut Upkeep, noted: &Noted) -> Result<(), MetadataError> {
        let (sequence, slot) = (upkeep.checkpoint + 1, 1 - upkeep.slot);
        self.write_checkpoint(sequence, slot, noted).await?;
        *upkeep = Upkeep {
            checkpoint: sequence,
            slot,
            sealed_before: noted.sealed_before,
            next_write: noted.next_write,
        };
        Ok(())
    }

    fn note(&self) -> Noted {
        let sealed_before = self.ledger.next_seal();
        let next_write = self.sequence.load(std::sync::atomic::Ordering::Relaxed);
        // With the logs locked no place is taken and nothing is published beside it.
        let logs = self.logs();
        let phases = self.ledger.snapshot();
        let mut open = Vec::new();
        let mut regions = Vec::with_capacity(phases.len());
        for (number, (phase, generation)) in phases.into_iter().enumerate() {
            let region = RegionId(number as u32);
            if let Some(log) = logs.get(&region) {
                let unpublished = log.unpublished.first().map(|granule| u32::from(*granule));
                let end = self.ledger.open_region(log.stream).filter(|at| at.region == region);
                let end = end.map_or(self.geometry.region_granules(), |at| at.granule.into());
                open.push((region, unpublished.unwrap_or(end)));
            }
            let used = self.ledger.used_granules(region);
            regions.push(snapshot_of(phase, generation, used));
        }
        Noted { regions, open, sealed_before, next_write }
    }

    async fn write_checkpoint(
        &self,
        sequence: u64,
        slot: usize,
        noted: &Noted,
    ) -> Result<(), MetadataError> {
        let place = self.geometry.checkpoint(slot);
        let next_write = self.sequence.load(std::sync::atomic::Ordering::Relaxed);
        let mut header = CheckpointHeader::new(&self.geometry, sequence, next_write);
        let metadata = Metadata { written_bytes: &self.tally.checkpoint_bytes, ..self.metadata() };
        let begin = |kind, header: &CheckpointHeader| {
            let room = header.room_bytes();
            let at = place.end - room;
            let chunk_granules = room.div_ceil(GRANULE_SIZE_BYTES).clamp(1, CHUNK_GRANULES);
            Section::new(metadata, SectionSum::new(self.id, sequence, kind), at, chunk_granules)
        };

        let mut section = begin(SectionKind::Regions, &header);
        for region in &noted.regions {
            section.push(&region.encode()).await?;
        }
        section.end(SectionKind::Regions, &mut header).await?;

        let mut section = begin(SectionKind::Index, &header);
        let (index, open) = (self.index(), noted.open.clone());
        let index_bytes = (index.shards() * index.shard_bytes()) as u64;
        let trust_from = self.trust_from.load(std::sync::atomic::Ordering::Relaxed);
        let preamble = Preamble { index_bytes, trust_from, open };
        section.push(&preamble.encode()).await?;
        let mut shard_bytes = Vec::new();
        for shard in 0..index.shards() {
            shard_bytes.clear();
            index.dump(shard, &mut shard_bytes);
            section.push(&shard_bytes).await?;
        }
        section.end(SectionKind::Index, &mut header).await?;

        let make = self.extra.lock().expect(UNBROKEN).clone();
        let extra = make.map_or_else(
            || self.extra_found.clone().unwrap_or_default(),
            |make| Bytes::from(make()),
        );
        if extra.len() as u64 <= header.room_bytes() {
            let mut section = begin(SectionKind::Extra, &header);
            section.push(&extra).await?;
            section.end(SectionKind::Extra, &mut header).await?;
        } else {
            tracing::warn!(
                "volume {}: {} bytes beside a checkpoint are too many, and are left out",
                self.name,
                extra.len()
            );
        }

        // A section that a crash has torn is told by its checksum, and the other checkpoint counts;
        // but a header whose sections are not right tells of damage, and every head is in doubt
        // then. A crash alone must not do that.
        metadata.flush().await?;
        let bytes = header.encode(self.id, &self.geometry, slot);
        metadata.write("a checkpoint", place.start, bytes).await?;
        metadata.flush().await
    }
}

fn snapshot_of(phase: RegionPhase, generation: u64, used: u64) -> RegionSnapshot {
    let (state, filled_for, sealed) = match phase {
        RegionPhase::Free => (RegionState::Free, FilledFor::Demand, 0),
        RegionPhase::Open(stream) | RegionPhase::Closing(stream) => {
            (RegionState::Open, filled_for(stream), 0)
        }
        RegionPhase::Sealed { stream, order } => (RegionState::Sealed, filled_for(stream), order),
        // None is being given up while a checkpoint is taken; one that could not be counts no more.
        RegionPhase::Leaving { stream, .. } => (RegionState::Free, filled_for(stream), 0),
        RegionPhase::Quarantined => (RegionState::Quarantined, FilledFor::Demand, 0),
    };
    let used_granules = u32::try_from(used).unwrap_or(u32::MAX);
    RegionSnapshot { generation, sealed, used_granules, state, filled_for }
}

/// A section that is being written, chunk by chunk.
struct Section<'a> {
    metadata: Metadata<'a>,
    sum: SectionSum,
    at: u64,
    length_bytes: u64,
    chunk: Granules,
    held: usize,
}

impl<'a> Section<'a> {
    fn new(metadata: Metadata<'a>, sum: SectionSum, at: u64, chunk_granules: u64) -> Section<'a> {
        let chunk = Granules::zeroed(chunk_granules as usize);
        Section { metadata, sum, at, length_bytes: 0, chunk, held: 0 }
    }

    async fn push(&mut self, mut bytes: &[u8]) -> Result<(), MetadataError> {
        self.sum.update(bytes);
        self.length_bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            let room = &mut self.chunk.bytes_mut()[self.held..];
            let (now, later) = bytes.split_at(room.len().min(bytes.len()));
            room[..now.len()].copy_from_slice(now);
            self.held += now.len();
            bytes = later;
            if self.held == self.chunk.bytes().len() {
                self.write(self.held).await?;
            }
        }
        Ok(())
    }

    /// Writes so many bytes of the chunk, and zeros up to the next granule.
    async fn write(&mut self, bytes: usize) -> Result<(), MetadataError> {
        let granule = GRANULE_SIZE_BYTES as usize;
        let next = Granules::zeroed(self.chunk.bytes().len() / granule);
        let chunk = std::mem::replace(&mut self.chunk, next);
        let bytes = Bytes::from_owner(chunk).slice(..bytes.next_multiple_of(granule));
        let length = bytes.len() as u64;
        self.metadata.write_bytes("a checkpoint", self.at, bytes, Urgency::Reclaim).await?;
        self.at += length;
        self.held = 0;
        Ok(())
    }

    /// Writes what is left and notes the section in `header`.
    async fn end(
        mut self,
        kind: SectionKind,
        header: &mut CheckpointHeader,
    ) -> Result<(), MetadataError> {
        if self.held > 0 {
            self.write(self.held).await?;
        }
        let place = header.push(kind, self.length_bytes, self.sum.checksum());
        place.expect("a slot has room for the regions and the index of its geometry");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::core::seed_of;
    use super::*;
    use crate::store::format::VolumeId;

    #[test]
    fn what_lies_before_the_index_is_written_as_it_always_was() {
        let open = vec![(RegionId(3), 0x0405), (RegionId(9), 1)];
        let preamble = Preamble { index_bytes: 0x0001_0000, trust_from: 77, open };
        let mut pinned = Vec::new();
        for word in [0x0001_0000, 77, 2, 0x0405 << 32 | 3, 1 << 32 | 9_u64] {
            pinned.put_u64_le(word);
        }
        pinned.resize(4096, 0);
        assert_eq!(preamble.encode(), pinned);
        assert_eq!(Preamble::decode(&pinned), Some(preamble));
        // What the entries of the index are found by.
        let id = VolumeId(0x0123_4567_89ab_cdef_0f1e_2d3c_4b5a_6978);
        assert_eq!(seed_of(id), 0x0e3d_685b_c2f1_a497);
    }
}
