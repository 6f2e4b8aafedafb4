//! Making room: a region is given up, and what earned it is appended again first.
//!
//! Whatever is carried on is read and verified whole, so this is the scrub too. What the device
//! does not bring in time is no fault of it: while nobody waits the region is left for later, and
//! where the writer does it is given up without that. Only regions that the last checkpoint knows
//! as sealed are given up: a head that took the place of an older one never vanishes before the
//! older one does. The region's new generation is durable before it is used again.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::limits::GRANULE_SIZE_BYTES;
use crate::store::device::{DeviceError, Granules, Urgency};
use crate::store::format::{
    BlockHeader, Body, FilledFor, FooterEntry, FormatError, HeadEntry, HeadLabel, Indexed,
    PacketBuilder, RegionEntry, RegionState,
};
use crate::store::index::{Entry, Kind, Location, RegionId, Shape};
use crate::store::ledger::{Keeper, Listed, Stream};

use super::append::Placed;
use super::core::{Core, Upkeep};
use super::window::{Found, ListError};

/// What carrying on from one region may take, of a device that brings every read in time and each
/// of them late: meanwhile no checkpoint is taken, and the writer may wait.
const ATTEMPT_MAX: Duration = Duration::from_secs(20);

/// What becomes of a region of which the device does not bring in time what is to be carried on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Late {
    /// Nobody waits: it is left for later.
    IsKept,
    /// The writer waits: it is given up without that.
    IsDropped,
}

/// How carrying on from a region ended.
#[derive(PartialEq, Eq)]
enum Ended {
    /// Nothing of it is needed any more.
    Done,
    /// The device was too busy, or is not written any more: what was not carried on is still there.
    NotNow,
}

/// Heads that are carried on, until they fill a packet.
#[derive(Default)]
struct Carried {
    packet: PacketBuilder,
    heads: Vec<CarriedHead>,
}

struct CarriedHead {
    label: HeadLabel,
    kept: Entry,
}

impl Core {
    /// A place for a record, making room if there is none. `None` if there is no way.
    pub(super) async fn place_or_make_room(
        &self,
        stream: Stream,
        granules: u32,
        heads: u32,
    ) -> Option<Placed> {
        loop {
            if let Some(placed) = self.place(stream, granules, heads).await {
                return Some(placed);
            }
            if !self.health.is_writable() || !self.make_room().await {
                return None;
            }
        }
    }

    /// Waits until a region can be opened; `false` if none can be given up.
    async fn make_room(&self) -> bool {
        let mut upkeep = self.upkeep.lock().await;
        // What is carried on may take a region itself: some attempts may win nothing.
        for _ in 0..=self.ledger.shape().regions {
            if self.ledger.free_regions() > self.ledger.shape().regions_reserved {
                return true;
            }
            if !self.health.is_writable() || !self.reclaim(&mut upkeep, Late::IsDropped).await {
                return false;
            }
        }
        false
    }

    /// Gives up one region; `false` if there is none to give up, or not now.
    pub(super) async fn reclaim(&self, upkeep: &mut Upkeep, late: Late) -> bool {
        let mut victim = self.ledger.victim(upkeep.sealed_before);
        if victim.is_none() && self.ledger.sealed_regions() > 0 {
            self.take_checkpoint(upkeep).await;
            victim = self.ledger.victim(upkeep.sealed_before);
        }
        let Some(region) = victim else { return false };
        let start = Location { region, granule: 0 };
        let generation = self.ledger.generation(region);
        let ended = match self.reclaimer().footer(region, generation).await {
            Ok(footer) => self.carry_on(region, &footer.entries, late).await,
            Err(ListError::Device(DeviceError::Late | DeviceError::Busy)) => self.cut_short(late),
            // Without its list nothing of it is carried on.
            Err(ListError::Device(DeviceError::Failed(source))) => {
                self.unread(start, &source);
                Ended::Done
            }
            Err(ListError::Format(fault)) => {
                self.damaged(start, &fault);
                Ended::Done
            }
        };
        if ended == Ended::NotNow || !self.health.is_writable() {
            self.ledger.put_back(region);
            return false;
        }
        if self.ledger.live_granules(region) > 0 {
            self.forget_region(region).await;
        }
        self.release(region).await
    }

    /// Forgets what lies in `region`, shard by shard: others go on between them.
    pub(super) async fn forget_region(&self, region: RegionId) {
        for shard in 0..self.index().shards() {
            self.ledger.forget_region(region, shard);
            tokio::task::yield_now().await;
        }
    }

    /// The device did not bring in time what was to be carried on.
    fn cut_short(&self, late: Late) -> Ended {
        match late {
            Late::IsKept => Ended::NotNow,
            Late::IsDropped => {
                self.tally.regions_cut_short.add(1);
                Ended::Done
            }
        }
    }

    async fn carry_on(&self, region: RegionId, entries: &[FooterEntry], late: Late) -> Ended {
        let until = Instant::now() + ATTEMPT_MAX;
        let mut listed: Vec<Listed> = entries.iter().filter_map(|e| self.listed(e)).collect();
        // Two heads of one object in one packet are one record: the newer one is found.
        listed.sort_by_key(|record| (record.granule, record.key));
        listed.dedup();
        let reclaimed = self.blocks_of(region, &listed);
        let keepers = self.ledger.keepers(region, &listed, self.settings.reappend_rule());
        let generation = self.ledger.generation(region);
        let mut window = self.reclaimer().window(region, generation);
        let (mut carried, mut in_time) = (Carried::default(), true);
        for keeper in &keepers {
            in_time &= Instant::now() < until;
            if !self.health.is_writable() || !in_time {
                break;
            }
            let granule = u32::from(keeper.entry.location.granule);
            match window.record(granule).await {
                Ok(Ok(Found::Block(header, pieces))) => {
                    let pieces = Bytes::from_owner(Granules::holding(pieces));
                    self.carry_block(keeper, &header, pieces).await
                }
                Ok(Ok(Found::Heads(packet))) => {
                    let key = listed[keeper.which].key;
                    let of_key = packet.heads().filter(|h| self.head_key(h.label.object) == key);
                    if let Some(head) = of_key.max_by_key(|head| head.label.sequence) {
                        let body = packet.body();
                        self.carry_head(keeper, head, body, &mut carried).await;
                    }
                }
                Ok(Ok(Found::Unknown(_))) => {}
                Ok(Err(fault)) => {
                    self.lose(entries, keeper, &listed);
                    self.damaged(keeper.entry.location, &fault);
                }
                Err(DeviceError::Late | DeviceError::Busy) => in_time = false,
                Err(DeviceError::Failed(source)) => {
                    self.lose(entries, keeper, &listed);
                    self.unread(keeper.entry.location, &source);
                }
            }
        }
        self.write_carried(&mut carried).await;
        // What it could not carry on is found there still.
        if !self.health.is_writable() || !in_time && self.cut_short(late) == Ended::NotNow {
            return Ended::NotNow;
        }
        self.tally.blocks_reclaimed.add(reclaimed.len() as u64);
        let used = reclaimed.iter().filter(|entry| entry.score > 0).count();
        self.tally.used_blocks_reclaimed.add(used as u64);
        self.ledger.forget(region, &listed);
        Ended::Done
    }

    fn listed(&self, entry: &FooterEntry) -> Option<Listed> {
        let (key, kind) = match entry.indexed {
            Indexed::Block { block, .. } => (self.block_key(block), Kind::Block),
            Indexed::Head { object } => (self.head_key(object), Kind::Head),
            Indexed::Tombstone { .. } => return None,
        };
        Some(Listed { key, kind, granule: entry.granule as u16 })
    }

    /// The blocks that are in a region still.
    fn blocks_of(&self, region: RegionId, listed: &[Listed]) -> Vec<Entry> {
        let blocks = listed.iter().filter(|record| record.kind == Kind::Block);
        let at = |record: &Listed| {
            let location = Location { region, granule: record.granule };
            self.index().at(record.key, Kind::Block, location)
        };
        blocks.filter_map(at).collect()
    }

    /// What was to be carried on is damaged or can't be read: it is forgotten.
    fn lose(&self, entries: &[FooterEntry], keeper: &Keeper, listed: &[Listed]) {
        let (record, location) = (listed[keeper.which], keeper.entry.location);
        let is_it = |entry: &&FooterEntry| self.listed(entry) == Some(record);
        match entries.iter().find(is_it).map(|entry| entry.indexed) {
            Some(Indexed::Head { object }) => self.drop_head_at(object, location),
            _ => drop(self.ledger.remove_at(record.key, record.kind, location)),
        }
    }

    /// What lies at `location` is not what was written.
    fn damaged(&self, location: Location, why: &FormatError) {
        self.tally.mismatches.add(1);
        self.tell_of_read(location, why);
        self.read_failed(location.region, why);
    }

    async fn carry_block(&self, keeper: &Keeper, header: &BlockHeader, pieces: Bytes) {
        let Some(placed) = self.place(Stream::Reappend, header.granules(), 1).await else {
            return;
        };
        let parts = [Bytes::from_owner(header.encode(&placed.spot)), pieces];
        if let Err(source) = self.write_record(&placed, &parts, Urgency::Reclaim).await {
            return self.write_failed(&placed, &source);
        }
        self.tally.reappended_bytes.add(header.length_bytes() as u64);
        self.count_overhead(header);
        let key = self.block_key(header.label().block);
        let to = Entry { location: placed.location, ..keeper.entry };
        self.ledger.relocate(key, keeper.entry.location, to);
        let granule = u32::from(placed.location.granule);
        self.settle(&placed, Some(FooterEntry::of_block(granule, header)));
    }

    async fn carry_head(
        &self,
        keeper: &Keeper,
        head: HeadEntry<'_>,
        body: Option<Body<'_>>,
        carried: &mut Carried,
    ) {
        let head_kept = || CarriedHead { label: head.label, kept: keeper.entry };
        if let Some(body) = body {
            let packet =
                PacketBuilder::with_body(head.label, head.payload, body.version, body.bytes);
            let Some(packet) = packet else { return };
            let mut alone = Carried { packet, heads: vec![head_kept()] };
            return self.write_carried(&mut alone).await;
        }
        if !carried.packet.push(head.label, head.payload) {
            self.write_carried(carried).await;
            if !carried.packet.push(head.label, head.payload) {
                return;
            }
        }
        carried.heads.push(head_kept());
    }

    async fn write_carried(&self, carried: &mut Carried) {
        let Carried { packet, heads } = std::mem::take(carried);
        if packet.is_empty() {
            return;
        }
        let (granules, count) = (packet.granules(), heads.len() as u32);
        let Some(placed) = self.place(Stream::Reappend, granules, count).await else {
            return;
        };
        let parts = [Bytes::from_owner(packet.encode(&placed.spot))];
        if let Err(source) = self.write_record(&placed, &parts, Urgency::Reclaim).await {
            return self.write_failed(&placed, &source);
        }
        self.tally.reappended_bytes.add(u64::from(granules) * GRANULE_SIZE_BYTES);
        let mut entries = Vec::with_capacity(heads.len());
        for CarriedHead { label, kept } in heads {
            let shape = Shape::Head { granules };
            let to = Entry { location: placed.location, shape, ..kept };
            self.ledger.relocate(self.head_key(label.object), kept.location, to);
            let granule = u32::from(placed.location.granule);
            entries.push(FooterEntry::of_head(granule, granules, &label));
        }
        self.settle(&placed, entries);
    }

    /// Makes it durable that nothing in `region` counts any more, and then frees it.
    pub(super) async fn release(&self, region: RegionId) -> bool {
        let mut table = self.table.lock().await;
        let generation = self.ledger.released(region);
        let (state, filled_for) = (RegionState::Free, FilledFor::Demand);
        table.set(region, RegionEntry { generation, state, filled_for, sealed: 0 });
        if let Err(error) = table.commit(&self.metadata()).await {
            self.metadata_failed(&error);
            return false;
        }
        self.ledger.freed(region);
        self.tally.regions_reclaimed.add(1);
        true
    }
}
