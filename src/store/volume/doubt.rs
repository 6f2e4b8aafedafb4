//! Whether heads that were put in doubt are still on a volume: told at each start until none is.
//!
//! The index does not know when a head was written, what is told of its region does. A start that
//! finds none below `trust_from` ends the doubt; what it could not read may hold one.

use tokio::task::JoinSet;

use crate::store::format::{FooterEntry, Indexed, RegionEntry, RegionState};
use crate::store::index::{Fingerprint, RegionId};
use crate::store::ledger::{Ledger, RegionPhase};

use super::core::seed_of;
use super::recovery::{REGIONS_AT_ONCE, ToSeal};
use super::scan;
use super::window::Reader;

/// What a start has found on a volume.
pub(super) struct Held<'a> {
    pub(super) ledger: &'a Ledger,
    pub(super) table: &'a [RegionEntry],
    /// Regions that were read record by record.
    pub(super) to_seal: &'a [ToSeal],
}

impl Held<'_> {
    /// From which number on heads are to be believed, if it was `trust_from`: all, if none of those
    /// before it is left.
    pub(super) async fn trusted_from(&self, reader: &Reader, trust_from: u64) -> u64 {
        match trust_from > 0 && self.has_doubted_head(reader, trust_from).await {
            true => trust_from,
            false => 0,
        }
    }

    /// Whether it may hold a head numbered below `trust_from`. Regions sealed first are read first:
    /// there the oldest heads lie.
    async fn has_doubted_head(&self, reader: &Reader, trust_from: u64) -> bool {
        let heads = self.ledger.index().heads();
        let (mut sure, mut oldest) = (0, u64::MAX);
        let seed = seed_of(reader.volume);
        let mut take = |region: RegionId, entries: &[FooterEntry]| {
            for entry in entries.iter().filter(|entry| self.is_found(seed, region, entry)) {
                (sure, oldest) = (sure + 1, oldest.min(entry.sequence));
            }
            (sure >= heads, oldest < trust_from)
        };
        let mut ended = (heads == 0, false);
        for found in self.to_seal {
            ended = take(found.region, &found.entries);
        }
        let mut regions = self.sealed().into_iter();
        let mut reading = JoinSet::new();
        while let (false, false) = ended {
            while reading.len() < REGIONS_AT_ONCE
                && let Some((region, generation)) = regions.next()
            {
                let reader = reader.clone();
                reading.spawn(async move { scan::contents(&reader, region, generation, 0).await });
            }
            let Some(read) = reading.join_next().await else { break };
            let found = read.expect("reading a region does not panic");
            ended = take(found.region, &found.entries);
        }
        // Of a head that was not found nobody knows.
        ended.1 || !ended.0
    }

    fn is_found(&self, seed: u64, region: RegionId, entry: &FooterEntry) -> bool {
        let Indexed::Head { object } = entry.indexed else { return false };
        let known = self.ledger.index().head(Fingerprint::of_head(seed, object));
        known.is_some_and(|known| {
            known.location.region == region && u32::from(known.location.granule) == entry.granule
        })
    }

    /// Regions that are not to be sealed, in the order in which they were, with their generations.
    fn sealed(&self) -> Vec<(RegionId, u64)> {
        let order = |region| match self.ledger.phase(region) {
            RegionPhase::Sealed { order, .. } => order,
            _ => 0,
        };
        let regions = self.table.iter().enumerate();
        let mut sealed: Vec<_> = regions
            .filter(|(_, entry)| entry.state == RegionState::Sealed)
            .map(|(number, entry)| (RegionId(number as u32), entry.generation))
            .filter(|(region, _)| self.to_seal.iter().all(|found| found.region != *region))
            .collect();
        sealed.sort_by_key(|(region, _)| order(*region));
        sealed
    }
}
