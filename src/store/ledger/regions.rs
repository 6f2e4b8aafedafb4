//! The regions of a volume: which are free, open, sealed, and in what order they are used.

use std::collections::{BTreeMap, VecDeque};

use super::{LedgerShape, Stream};
use crate::store::index::{Location, RegionId};

/// Of the sealed regions, one in so many, the oldest, is looked at for a victim. With a fifth, as
/// reckoned first, all-mode lost 1.3 points where what returns is what was written last.
const OLDEST_SHARE: usize = 20;

/// What a region is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionPhase {
    /// Nothing in it counts.
    Free,
    /// Records are appended.
    Open(Stream),
    /// No more are; its list is still to be written.
    Closing(Stream),
    /// Its list is written; `order` is its place among those sealed.
    Sealed {
        /// What was appended to it.
        stream: Stream,
        /// Its place in the order of sealing: the lowest is the oldest.
        order: u64,
    },
    /// Chosen to be given up.
    Leaving {
        /// What was appended to it.
        stream: Stream,
        /// Its place in the order of sealing.
        order: u64,
    },
    /// Never used again.
    Quarantined,
}

/// An answer to the question for room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Here.
    At(Location),
    /// Not in the region that is open: it must be closed.
    RegionFull,
    /// No region is open for this stream.
    NoneOpen,
}

pub(super) struct Regions {
    phases: Vec<RegionPhase>,
    free: VecDeque<RegionId>,
    sealed: BTreeMap<u64, RegionId>,
    open: [Option<OpenRegion>; Stream::ALL.len()],
    next_seal: u64,
}

struct OpenRegion {
    region: RegionId,
    next_granule: u32,
    entries: u32,
}

impl Regions {
    pub(super) fn new(count: u32) -> Regions {
        Regions::restored(vec![RegionPhase::Free; count as usize])
    }

    pub(super) fn restored(phases: Vec<RegionPhase>) -> Regions {
        let each = || phases.iter().enumerate().map(|(n, phase)| (RegionId(n as u32), *phase));
        let is_open = |phase| matches!(phase, RegionPhase::Open(_));
        assert!(!each().any(|(_, p)| is_open(p)), "what was found open is never used on");
        let free = each().filter(|(_, phase)| *phase == RegionPhase::Free);
        let free: VecDeque<RegionId> = free.map(|(region, _)| region).collect();
        let mut sealed = BTreeMap::new();
        for (region, phase) in each() {
            if let RegionPhase::Sealed { mut order, .. } = phase {
                // What was read may name one place twice: nobody loses his.
                while sealed.contains_key(&order) {
                    order += 1;
                }
                sealed.insert(order, region);
            }
        }
        let mut phases = phases;
        for (place, region) in &sealed {
            if let RegionPhase::Sealed { order, .. } = &mut phases[region.0 as usize] {
                *order = *place;
            }
        }
        Regions {
            free,
            next_seal: sealed.keys().next_back().map_or(1, |last| last.saturating_add(1)),
            sealed,
            open: [const { None }; Stream::ALL.len()],
            phases,
        }
    }

    pub(super) fn room(
        &mut self,
        shape: &LedgerShape,
        stream: Stream,
        granules: u32,
        entries: u32,
    ) -> Room {
        let Some(open) = &mut self.open[stream as usize] else { return Room::NoneOpen };
        let footer = shape.footer.granules(open.entries + entries);
        if open.next_granule + granules + footer > shape.region_granules {
            return Room::RegionFull;
        }
        let location = Location { region: open.region, granule: open.next_granule as u16 };
        open.next_granule += granules;
        open.entries += entries;
        Room::At(location)
    }

    pub(super) fn open(&mut self, shape: &LedgerShape, stream: Stream) -> Option<RegionId> {
        assert!(self.open[stream as usize].is_none(), "a stream has one region open");
        let reserved = if stream == Stream::Reappend { 0 } else { shape.regions_reserved };
        if self.free.len() <= reserved as usize {
            return None;
        }
        let region = self.free.pop_front()?;
        *self.phase_mut(region) = RegionPhase::Open(stream);
        let next_granule = shape.header_granules;
        self.open[stream as usize] = Some(OpenRegion { region, next_granule, entries: 0 });
        Some(region)
    }

    pub(super) fn close(&mut self, stream: Stream) -> Option<RegionId> {
        let open = self.open[stream as usize].take()?;
        *self.phase_mut(open.region) = RegionPhase::Closing(stream);
        Some(open.region)
    }

    pub(super) fn seal(&mut self, region: RegionId) -> u64 {
        let RegionPhase::Closing(stream) = self.phase(region) else {
            panic!("a region is closed before it is sealed");
        };
        let order = self.next_seal;
        self.next_seal += 1;
        *self.phase_mut(region) = RegionPhase::Sealed { stream, order };
        self.sealed.insert(order, region);
        order
    }

    pub(super) fn victim(
        &mut self,
        sealed_before: u64,
        used: impl Fn(RegionId) -> u64,
    ) -> Option<RegionId> {
        let oldest = self.sealed.len().div_ceil(OLDEST_SHARE);
        let candidates = self.sealed.range(..sealed_before).take(oldest);
        let (_, order, region) =
            candidates.map(|(order, region)| (used(*region), *order, *region)).min()?;
        self.sealed.remove(&order);
        let RegionPhase::Sealed { stream, .. } = self.phase(region) else {
            panic!("what is in the order of sealing is sealed");
        };
        *self.phase_mut(region) = RegionPhase::Leaving { stream, order };
        Some(region)
    }

    pub(super) fn put_back(&mut self, region: RegionId) {
        let RegionPhase::Leaving { stream, order } = self.phase(region) else {
            panic!("a region is chosen before it is put back");
        };
        *self.phase_mut(region) = RegionPhase::Sealed { stream, order };
        self.sealed.insert(order, region);
    }

    pub(super) fn freed(&mut self, region: RegionId) {
        *self.phase_mut(region) = RegionPhase::Free;
        self.free.push_back(region);
    }

    pub(super) fn quarantine(&mut self, region: RegionId) {
        self.leave_lists(region);
        *self.phase_mut(region) = RegionPhase::Quarantined;
    }

    /// Takes it out of whatever names it.
    fn leave_lists(&mut self, region: RegionId) {
        match self.phase(region) {
            RegionPhase::Free => self.free.retain(|free| *free != region),
            RegionPhase::Sealed { order, .. } => {
                self.sealed.remove(&order);
            }
            RegionPhase::Open(stream) => self.open[stream as usize] = None,
            RegionPhase::Closing(_) | RegionPhase::Leaving { .. } | RegionPhase::Quarantined => {}
        }
    }

    pub(super) fn next_seal(&self) -> u64 {
        self.next_seal
    }

    pub(super) fn open_region(&self, stream: Stream) -> Option<Location> {
        let open = self.open[stream as usize].as_ref()?;
        Some(Location { region: open.region, granule: open.next_granule as u16 })
    }

    pub(super) fn free(&self) -> u32 {
        self.free.len() as u32
    }

    pub(super) fn sealed(&self) -> u32 {
        self.sealed.len() as u32
    }

    pub(super) fn quarantined(&self) -> u32 {
        self.phases.iter().filter(|phase| **phase == RegionPhase::Quarantined).count() as u32
    }

    pub(super) fn phase(&self, region: RegionId) -> RegionPhase {
        self.phases[region.0 as usize]
    }

    fn phase_mut(&mut self, region: RegionId) -> &mut RegionPhase {
        &mut self.phases[region.0 as usize]
    }
}
