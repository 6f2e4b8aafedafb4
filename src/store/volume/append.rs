//! Appending: places for records, opening and sealing regions, publication.
//!
//! The order that recovery relies on: a region's new generation is durable before its first
//! record; a record is found only after all of it is written; a region is sealed only after every
//! write to it is over, and the regions of a stream one after the other.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::store::device::{DeviceError, Granules, Urgency};
use crate::store::format::{
    FilledFor, Footer, FooterEntry, RegionEntry, RegionHeader, RegionState, Spot,
};
use crate::store::index::{Location, RegionId};
use crate::store::ledger::{Room, Stream};

use super::core::{Core, RegionLog};
use super::metadata::{MetadataError, write_patiently};

/// A place that was taken for a record. It must be given to [`Core::settle`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Placed {
    pub(super) location: Location,
    pub(super) spot: Spot,
}

impl Core {
    /// A place for a record, in a region that is ready for it; a full region is sealed and another
    /// opened. `None` if none is free, or the volume can't be written.
    ///
    /// Only one task asks for each stream.
    pub(super) async fn place(&self, stream: Stream, granules: u32, heads: u32) -> Option<Placed> {
        loop {
            if !self.health.is_writable() {
                return None;
            }
            let progress = match self.take_place(stream, granules, heads) {
                Room::At(location) => {
                    return Some(Placed { location, spot: self.spot(location) });
                }
                Room::RegionFull => self.seal(stream).await.map(|()| true),
                Room::NoneOpen => self.open_region(stream).await,
            };
            match progress {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    self.metadata_failed(&error);
                    return None;
                }
            }
        }
    }

    fn take_place(&self, stream: Stream, granules: u32, entries: u32) -> Room {
        // Under one lock, so that a checkpoint sees no place that is taken and not unpublished.
        let mut logs = self.logs();
        let room = self.ledger.room(stream, granules, entries);
        if let Room::At(location) = room {
            let log = logs.get_mut(&location.region).expect("an open region has a log");
            log.unpublished.insert(location.granule);
        }
        room
    }

    /// Writes `parts`, granule-aligned, to `placed`.
    pub(super) async fn write_record(
        &self,
        placed: &Placed,
        parts: &[Bytes],
        urgency: Urgency,
    ) -> Result<(), io::Error> {
        let written = write_patiently(&self.disk, placed.spot.at(), parts, urgency).await;
        written.map_err(|error| match error {
            DeviceError::Failed(source) => source,
            DeviceError::Busy | DeviceError::Late => io::Error::other(error),
        })
    }

    /// The write to `placed` is over, and what it brought can be found: `entries` for the footer,
    /// none if nothing is to be. Of one that failed [`Core::write_failed`] tells.
    pub(super) fn settle(&self, placed: &Placed, entries: impl IntoIterator<Item = FooterEntry>) {
        let mut logs = self.logs();
        let log = logs.get_mut(&placed.location.region).expect("a region waits for its writes");
        log.entries.extend(entries);
        log.unpublished.remove(&placed.location.granule);
        if log.unpublished.is_empty() {
            log.idle.notify_waiters();
        }
    }

    /// The write to `placed` failed. Said before its region can be sealed.
    pub(super) fn write_failed(&self, placed: &Placed, source: &io::Error) {
        self.tally.write_errors.add(1);
        self.health.write_failed(source);
        self.settle(placed, None);
    }

    /// Opens a region for `stream`; `false` if none is free.
    async fn open_region(&self, stream: Stream) -> Result<bool, MetadataError> {
        let mut table = self.table.lock().await;
        let Some((region, generation)) = self.begin_log(stream) else { return Ok(false) };
        if self.ledger.free_regions() < self.regions_ready() {
            self.upkeep_wanted.notify_one();
        }
        let filled_for = filled_for(stream);
        let header = self.spot_of(region, 0, generation);
        let encoded = RegionHeader::encode(&header, filled_for);
        let metadata = self.metadata();
        metadata.write("a region's header", header.at(), encoded).await?;
        let state = RegionState::Open;
        table.set(region, RegionEntry { generation, state, filled_for, sealed: 0 });
        table.commit(&metadata).await?;
        Ok(true)
    }

    fn begin_log(&self, stream: Stream) -> Option<(RegionId, u64)> {
        let mut logs = self.logs();
        let region = self.ledger.open(stream)?;
        let generation = self.ledger.generation(region);
        let log = RegionLog {
            stream,
            generation,
            entries: Vec::new(),
            unpublished: Default::default(),
            idle: Default::default(),
        };
        logs.insert(region, log);
        Some((region, generation))
    }

    /// Closes the open region of `stream`, waits for its writes, and writes its footer. None where
    /// a write has failed: it may have arrived for all that, and who reads the region finds it.
    async fn seal(&self, stream: Stream) -> Result<(), MetadataError> {
        let Some(region) = self.ledger.close(stream) else { return Ok(()) };
        self.wait_idle(region).await;
        if !self.health.is_writable() {
            return Ok(());
        }
        let mut table = self.table.lock().await;
        let sealed = self.ledger.next_seal();
        let (footer, generation) = {
            let logs = self.logs();
            let log = logs.get(&region).expect("a region has a log until it is sealed");
            (footer_of(log, sealed), log.generation)
        };
        self.write_footer(region, generation, &footer).await?;
        let order = {
            // At once, for whoever notes what is open.
            let mut logs = self.logs();
            logs.remove(&region);
            self.ledger.seal(region)
        };
        debug_assert_eq!(order, sealed, "regions are sealed one at a time");
        // Written with the next page: until then the footer says that it is sealed.
        let state = RegionState::Sealed;
        table.set(region, RegionEntry { generation, state, filled_for: footer.filled_for, sealed });
        Ok(())
    }

    async fn wait_idle(&self, region: RegionId) {
        loop {
            let idle = {
                let logs = self.logs();
                let log = logs.get(&region).expect("a region has a log until it is sealed");
                if log.unpublished.is_empty() {
                    return;
                }
                // Made under the lock that its waker holds: no wake-up is lost.
                Arc::clone(&log.idle).notified_owned()
            };
            idle.await;
        }
    }

    /// Flushes the records, writes the footer, and flushes that.
    pub(super) async fn write_footer(
        &self,
        region: RegionId,
        generation: u64,
        footer: &Footer,
    ) -> Result<(), MetadataError> {
        let metadata = self.metadata();
        metadata.flush().await?;
        let granule = self.geometry.region_granules() - footer.granules();
        let spot = self.spot_of(region, granule, generation);
        metadata.write("a region's footer", spot.at(), footer.encode(&spot)).await?;
        metadata.flush().await
    }
}

fn footer_of(log: &RegionLog, sealed: u64) -> Footer {
    let mut entries = log.entries.clone();
    entries.sort_by_key(|entry| (entry.granule, entry.sequence));
    Footer { filled_for: filled_for(log.stream), sealed, entries }
}

/// On the device a region is told apart by whether viewers asked for what is in it.
pub(super) fn filled_for(stream: Stream) -> FilledFor {
    match stream {
        Stream::Planned => FilledFor::Planned,
        Stream::Demand | Stream::Reappend => FilledFor::Demand,
    }
}

/// Whose open region takes what was filled for this; it comes back from the device as this too.
pub(super) fn stream_of(filled_for: FilledFor) -> Stream {
    match filled_for {
        FilledFor::Demand => Stream::Demand,
        FilledFor::Planned => Stream::Planned,
    }
}

/// `parts` as they can be written: what is aligned as it is, the rest copied and padded with
/// zeros.
pub(super) fn aligned(header: Granules, parts: Vec<Bytes>) -> Vec<Bytes> {
    let mut out = vec![Bytes::from_owner(header)];
    for mut part in parts {
        let granule = crate::limits::GRANULE_SIZE_BYTES as usize;
        if !(part.as_ptr() as usize).is_multiple_of(granule) {
            out.push(Bytes::from_owner(Granules::holding(&part)));
            continue;
        }
        let rest = part.split_off(part.len() - part.len() % granule);
        if !part.is_empty() {
            out.push(part);
        }
        if !rest.is_empty() {
            out.push(Bytes::from_owner(Granules::holding(&rest)));
        }
    }
    out
}
