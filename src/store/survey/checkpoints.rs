//! The two checkpoint slots: what stands in them, and whether a start could use it.

use std::collections::HashMap;

use super::*;

impl Survey {
    /// Reads all of both checkpoints: what is wrong with them is among the faults then. As a start
    /// does (`store/volume/load.rs`), it takes the older for no damage while the newer is whole.
    /// That one says up to where [`check_region`] may find nothing torn in an open region.
    pub async fn check_checkpoints(&mut self, disk: &Disk) {
        let mut newer_is_whole = None;
        for (slot, header) in self.newest_first() {
            let is_older = newer_is_whole.is_some_and(|number| header.sequence() < number);
            match self.check_checkpoint(disk, slot, &header).await {
                Ok(noted) => {
                    if newer_is_whole.is_none() {
                        self.noted = noted;
                    }
                    newer_is_whole = newer_is_whole.or(Some(header.sequence()));
                }
                Err(Fault { may_be_torn: true, .. }) if is_older => {
                    self.checkpoints[slot] = Slot::Overwritten(header);
                }
                Err(fault) => self.faults.push(Fault { may_be_torn: false, ..fault }),
            }
        }
    }

    pub(super) fn newest_first(&self) -> Vec<(usize, CheckpointHeader)> {
        let holds = |(slot, held): (usize, &Slot)| match held {
            Slot::Holds(header) => Some((slot, header.clone())),
            _ => None,
        };
        let mut held: Vec<_> = self.checkpoints.iter().enumerate().filter_map(holds).collect();
        held.sort_by_key(|(_, header)| std::cmp::Reverse(header.sequence()));
        held
    }

    /// Up to where it knows regions.
    async fn check_checkpoint(
        &self,
        disk: &Disk,
        slot: usize,
        header: &CheckpointHeader,
    ) -> Result<HashMap<u32, u32>, Fault> {
        let start = self.superblock.geometry().checkpoint(slot).start;
        let (mut regions, mut preamble) = (Vec::new(), Vec::new());
        for kind in [SectionKind::Regions, SectionKind::Index, SectionKind::Extra] {
            let Some(section) = header.section(kind) else { continue };
            let (mut at, end) = (start + section.place.start, start + section.place.end);
            let mut sum = SectionSum::new(self.superblock.id(), header.sequence(), kind);
            while at < end {
                let length = (end - at).min(READ_BYTES);
                let bytes = read(disk, at, length).await;
                let bytes = bytes.map_err(|error| fault(at, Part::Checkpoint, &error))?;
                let bytes = &bytes.bytes()[..length as usize];
                sum.update(bytes);
                match kind {
                    SectionKind::Regions => regions.extend_from_slice(bytes),
                    SectionKind::Index if preamble.is_empty() => {
                        preamble.extend(bytes.iter().take(PREAMBLE_BYTES));
                    }
                    _ => {}
                }
                at += length;
            }
            if sum.checksum() != section.checksum {
                let why = format!("the checksum of its section {kind:?} is wrong").to_lowercase();
                let wrong = fault(start, Part::Checkpoint, &why);
                return Err(Fault { may_be_torn: true, ..wrong });
            }
        }
        Ok(self.noted_in(&regions, &preamble))
    }

    /// Which granules of regions it knows of, as a start reckons it (`store/volume/load.rs`).
    fn noted_in(&self, regions: &[u8], preamble: &[u8]) -> HashMap<u32, u32> {
        let open = Preamble::decode(preamble).map(|preamble| preamble.open).unwrap_or_default();
        let snapshots = regions.as_chunks::<REGION_SNAPSHOT_BYTES>().0.iter().zip(&self.regions);
        let noted = |((snapshot, now), region): ((&[u8; REGION_SNAPSHOT_BYTES], _), u32)| {
            let then = RegionSnapshot::decode(snapshot).ok()?;
            let now: &RegionEntry = now;
            let is_same = then.generation == now.generation;
            match then.state {
                RegionState::Sealed if is_same => Some((region, u32::MAX)),
                RegionState::Open if is_same => {
                    let noted = open.iter().find(|(open, _)| open.0 == region);
                    noted.map(|(_, granule)| (region, *granule))
                }
                _ => None,
            }
        };
        snapshots.zip(0..).filter_map(noted).collect()
    }

    /// One is taken when a volume is made, and then they are written in turn; no header is ever
    /// taken back.
    pub(super) fn judge_checkpoints(&mut self) {
        for slot in 0..2 {
            let why = match (&self.checkpoints[slot], &self.checkpoints[1 - slot]) {
                (Slot::Damaged(why), _) => why.clone(),
                (Slot::Empty, Slot::Holds(other)) if other.sequence() > 1 => {
                    FormatError::NotAVolume.to_string()
                }
                (Slot::Empty, Slot::Empty) if slot == 0 => FormatError::NotAVolume.to_string(),
                _ => continue,
            };
            let at = self.superblock.geometry().checkpoint(slot).start;
            self.faults.push(fault(at, Part::Checkpoint, &why));
        }
    }

    pub(super) async fn slot(&self, disk: &Disk, slot: usize) -> Slot {
        let geometry = self.superblock.geometry();
        let bytes = match read(disk, geometry.checkpoint(slot).start, GRANULE_SIZE_BYTES).await {
            Ok(bytes) => bytes,
            Err(error) => return Slot::Damaged(error.to_string()),
        };
        match CheckpointHeader::decode(bytes.bytes(), self.superblock.id(), geometry, slot) {
            Ok(header) => Slot::Holds(header),
            Err(FormatError::NotAVolume) => Slot::Empty,
            Err(error) => Slot::Damaged(error.to_string()),
        }
    }
}
