//! The shape of a volume: how large it and its parts are, and where each lies.
//!
//! A geometry that exists is consistent: areas are in order, aligned, apart from each other and
//! inside the volume, and what the index can name is enough for every region.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;

use crate::limits::{GRANULE_SIZE_BYTES, REGION_SIZE_BYTES, REGION_SIZE_BYTES_MIN};
use crate::object::BlockSize;
use crate::store::index;

use super::table::ENTRIES_PER_PAGE;

/// Names a volume for ever: chosen at random when it is formatted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VolumeId(pub u128);

impl VolumeId {
    /// Of a new volume.
    pub fn random() -> VolumeId {
        // Two hashes with keys from the system: names have to differ, not to be secret.
        let word = || u128::from(RandomState::new().hash_one(std::process::id()));
        VolumeId(word() << 64 | word())
    }
}

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VolumeId({self})")
    }
}

/// Regions the index can tell apart.
const REGIONS_MAX: u64 = index::REGIONS_MAX as u64;
/// Fewer make no sense: one open for each stream, one to be reclaimed, one to be read.
const REGIONS_MIN: u64 = 4;
/// What a device could hold of one piece each: more is a mistake, and its sums would not fit.
const INDEX_ENTRIES_MAX: u64 = 1 << 36;
/// Regions of a volume too small for large ones.
const REGIONS_USUAL_MIN: u64 = 32;
/// Regions start at a multiple of this.
const REGIONS_ALIGNMENT: u64 = 1 << 20;
/// Superblocks at either end.
const SUPERBLOCKS_BYTES: u64 = 2 * GRANULE_SIZE_BYTES;
/// In a checkpoint slot, for each index entry: its buckets, at the worst rounding.
const INDEX_ENTRY_BYTES: u64 = 32;
/// In a checkpoint slot, for each index entry and once: what the caller keeps there.
const EXTRA_ENTRY_BYTES: u64 = 8;
const EXTRA_BYTES: u64 = 64 << 10;
const REGION_SNAPSHOT_BYTES: u64 = super::checkpoint::REGION_SNAPSHOT_BYTES as u64;

/// Why there is no such volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GeometryError {
    /// A size is not a multiple of a granule.
    Unaligned {
        /// The size.
        bytes: u64,
    },
    /// Regions are too small for a block, or larger than the index can point into.
    RegionSize {
        /// The size asked for.
        region_bytes: u64,
        /// The least.
        bytes_min: u64,
    },
    /// Blocks are not of a size that there is.
    BlockSize {
        /// The size found.
        block_bytes: u64,
    },
    /// The volume has no room for the least number of regions.
    TooSmall {
        /// The size asked for.
        volume_bytes: u64,
        /// The least.
        bytes_min: u64,
    },
    /// There are more regions than the index can tell apart.
    TooManyRegions {
        /// So many.
        regions: u64,
    },
    /// The index has no entries, or more than a checkpoint can hold.
    IndexSize {
        /// So many.
        entries: u64,
    },
    /// An area that was read about is not aligned, or reaches into another or out of the volume.
    Area {
        /// Which one.
        what: &'static str,
        /// Where it is said to begin.
        at_bytes: u64,
        /// What the volume has.
        volume_bytes: u64,
    },
}

impl fmt::Display for GeometryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use GeometryError as E;
        match self {
            E::Unaligned { bytes } => {
                write!(f, "{bytes} bytes are not a multiple of {GRANULE_SIZE_BYTES}")
            }
            E::RegionSize { region_bytes, bytes_min } => write!(
                f,
                "regions of {region_bytes} bytes: at least {bytes_min}, at most {REGION_SIZE_BYTES}"
            ),
            E::BlockSize { block_bytes } => write!(f, "there are no blocks of {block_bytes} bytes"),
            E::TooSmall { volume_bytes, bytes_min } => {
                write!(f, "{volume_bytes} bytes are too few: {bytes_min} at least")
            }
            E::TooManyRegions { regions } => write!(f, "{regions} regions: at most {REGIONS_MAX}"),
            E::IndexSize { entries } => {
                write!(f, "an index of {entries} entries: from 1 to {INDEX_ENTRIES_MAX}")
            }
            E::Area { what, at_bytes, volume_bytes } => write!(
                f,
                "{what} can't begin at byte {at_bytes} of {volume_bytes}: not aligned, or reaching \
                 into what comes next"
            ),
        }
    }
}

impl std::error::Error for GeometryError {}

/// How large a volume and its parts are, and where each part lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    volume_bytes: u64,
    region_bytes: u64,
    block: BlockSize,
    index_entries_max: u64,
    pub(super) areas: Areas,
}

/// Where the parts lie: written down, so that a later version may lay out new volumes otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Areas {
    pub(super) table_at: u64,
    pub(super) table_pages: u32,
    pub(super) regions: u32,
    pub(super) checkpoint_at: u64,
    pub(super) checkpoint_bytes: u64,
    pub(super) regions_at: u64,
}

impl Geometry {
    /// Lays out a volume of `volume_bytes` in regions of `region_bytes`.
    ///
    /// # Errors
    /// Sizes that are not multiples of a granule, or too small, or too large for the index.
    pub fn new(
        volume_bytes: u64,
        region_bytes: u64,
        block: BlockSize,
        index_entries_max: u64,
    ) -> Result<Geometry, GeometryError> {
        check_sizes(volume_bytes, region_bytes, block, index_entries_max)?;
        let areas = areas_for(volume_bytes, region_bytes, index_entries_max);
        let geometry = Geometry { volume_bytes, region_bytes, block, index_entries_max, areas };
        geometry.checked()
    }

    /// Lays out a new volume: in regions of 64 MiB, or of less where that would be fewer than 32,
    /// so that giving one up costs little.
    ///
    /// # Errors
    /// As [`Geometry::new`].
    pub fn for_new(
        volume_bytes: u64,
        block: BlockSize,
        index_entries_max: u64,
    ) -> Result<Geometry, GeometryError> {
        let region = 1 << (volume_bytes / REGIONS_USUAL_MIN).max(1).ilog2();
        let region = u64::clamp(region, REGION_SIZE_BYTES_MIN, REGION_SIZE_BYTES);
        Geometry::new(volume_bytes, region, block, index_entries_max)
    }

    /// As it was written.
    pub(super) fn from_written(sizes: [u64; 4], areas: Areas) -> Result<Geometry, GeometryError> {
        let [volume_bytes, region_bytes, block_bytes, index_entries_max] = sizes;
        let block = BlockSize::new(block_bytes).ok_or(GeometryError::BlockSize { block_bytes })?;
        check_sizes(volume_bytes, region_bytes, block, index_entries_max)?;
        let geometry = Geometry { volume_bytes, region_bytes, block, index_entries_max, areas };
        geometry.checked()
    }

    fn checked(self) -> Result<Geometry, GeometryError> {
        let areas = self.areas;
        let regions = u64::from(areas.regions);
        if regions < REGIONS_MIN {
            let fixed = areas.regions_at.saturating_add(SUPERBLOCKS_BYTES);
            let bytes_min = fixed.saturating_add(REGIONS_MIN * self.region_bytes);
            return Err(GeometryError::TooSmall { volume_bytes: self.volume_bytes, bytes_min });
        }
        if regions > REGIONS_MAX {
            return Err(GeometryError::TooManyRegions { regions });
        }
        // Wider than what is added up, so that no sum wraps.
        let wide = u128::from;
        let table_bytes = 2 * wide(areas.table_pages.into()) * wide(GRANULE_SIZE_BYTES);
        let table_end = wide(areas.table_at) + table_bytes;
        let checkpoints_end = wide(areas.checkpoint_at) + 2 * wide(areas.checkpoint_bytes);
        let regions_end = wide(areas.regions_at) + wide(regions) * wide(self.region_bytes);
        let aligned = |bytes: &[u64]| bytes.iter().all(|b| b.is_multiple_of(GRANULE_SIZE_BYTES));
        let table_fits = areas.table_at >= SUPERBLOCKS_BYTES
            && aligned(&[areas.table_at])
            && table_end <= wide(areas.checkpoint_at)
            && u64::from(areas.table_pages) * ENTRIES_PER_PAGE as u64 >= regions;
        let checkpoints_fit = aligned(&[areas.checkpoint_at, areas.checkpoint_bytes])
            && checkpoints_end <= wide(areas.regions_at)
            && areas.checkpoint_bytes >= GRANULE_SIZE_BYTES;
        let regions_fit = areas.regions_at.is_multiple_of(REGIONS_ALIGNMENT)
            && regions_end + wide(SUPERBLOCKS_BYTES) <= wide(self.volume_bytes);
        let (what, at_bytes) = match (table_fits, checkpoints_fit, regions_fit) {
            (true, true, true) => return Ok(self),
            (false, ..) => ("the region table", areas.table_at),
            (true, false, _) => ("the checkpoints", areas.checkpoint_at),
            (true, true, false) => ("the regions", areas.regions_at),
        };
        Err(GeometryError::Area { what, at_bytes, volume_bytes: self.volume_bytes })
    }

    /// The whole volume.
    pub fn volume_bytes(&self) -> u64 {
        self.volume_bytes
    }

    /// One region.
    pub fn region_bytes(&self) -> u64 {
        self.region_bytes
    }

    /// One region, in granules.
    pub fn region_granules(&self) -> u32 {
        (self.region_bytes / GRANULE_SIZE_BYTES) as u32
    }

    /// The largest block.
    pub fn block(&self) -> BlockSize {
        self.block
    }

    /// Entries the index has room for.
    pub fn index_entries_max(&self) -> u64 {
        self.index_entries_max
    }

    /// How many regions.
    pub fn regions(&self) -> u32 {
        self.areas.regions
    }

    /// How many pages the region table has, each of them twice.
    pub fn table_pages(&self) -> u32 {
        self.areas.table_pages
    }

    /// Both copies of all pages of the region table, in bytes of the volume.
    pub fn table(&self) -> Range<u64> {
        let bytes = 2 * u64::from(self.areas.table_pages) * GRANULE_SIZE_BYTES;
        self.areas.table_at..self.areas.table_at + bytes
    }

    /// Checkpoint slot `slot` (0 or 1), in bytes of the volume.
    pub fn checkpoint(&self, slot: usize) -> Range<u64> {
        assert!(slot < 2, "there are two checkpoint slots");
        let at = self.areas.checkpoint_at + slot as u64 * self.areas.checkpoint_bytes;
        at..at + self.areas.checkpoint_bytes
    }

    /// Region `region`, in bytes of the volume; `None` if there is none of this number.
    pub fn region(&self, region: u32) -> Option<Range<u64>> {
        let known = region < self.areas.regions;
        let at = self.areas.regions_at + u64::from(region) * self.region_bytes;
        known.then(|| at..at + self.region_bytes)
    }

    /// Granule `granule` of a region in a generation of it; `None` if there is no such granule.
    pub fn spot(
        &self,
        volume: VolumeId,
        region: u32,
        granule: u32,
        generation: u64,
    ) -> Option<Spot> {
        let range = self.region(region)?;
        let room = self.region_granules().checked_sub(granule).filter(|room| *room > 0)?;
        let at = range.start + u64::from(granule) * GRANULE_SIZE_BYTES;
        Some(Spot { volume, region, granule, generation, room, at })
    }
}

/// A granule of a region, in one generation of it: where something in a region begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    volume: VolumeId,
    region: u32,
    granule: u32,
    generation: u64,
    room: u32,
    at: u64,
}

impl Spot {
    /// The volume.
    pub fn volume(&self) -> VolumeId {
        self.volume
    }

    /// The region.
    pub fn region(&self) -> u32 {
        self.region
    }

    /// The granule in the region.
    pub fn granule(&self) -> u32 {
        self.granule
    }

    /// The generation of the region.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Granules from here to the end of the region.
    pub fn room(&self) -> u32 {
        self.room
    }

    /// In bytes of the volume.
    pub fn at(&self) -> u64 {
        self.at
    }

    pub(super) fn address(&self) -> super::frame::Address {
        let place = u64::from(self.region) << 32 | u64::from(self.granule);
        super::frame::Address { volume: self.volume, place, generation: self.generation }
    }
}

fn check_sizes(
    volume_bytes: u64,
    region_bytes: u64,
    block: BlockSize,
    index_entries_max: u64,
) -> Result<(), GeometryError> {
    for bytes in [volume_bytes, region_bytes] {
        if !bytes.is_multiple_of(GRANULE_SIZE_BYTES) {
            return Err(GeometryError::Unaligned { bytes });
        }
    }
    // Its header, a whole block with its header, and a footer.
    let bytes_min = block.bytes() + 3 * GRANULE_SIZE_BYTES;
    if region_bytes < bytes_min || region_bytes > REGION_SIZE_BYTES {
        return Err(GeometryError::RegionSize { region_bytes, bytes_min });
    }
    if index_entries_max == 0 || index_entries_max > INDEX_ENTRIES_MAX {
        return Err(GeometryError::IndexSize { entries: index_entries_max });
    }
    Ok(())
}

fn areas_for(volume_bytes: u64, region_bytes: u64, index_entries_max: u64) -> Areas {
    let granules = |bytes: u64| bytes.next_multiple_of(GRANULE_SIZE_BYTES);
    // More than there will be: the areas before them are not taken off yet.
    let regions_bound = volume_bytes / region_bytes;
    let table_pages = regions_bound.div_ceil(ENTRIES_PER_PAGE as u64).min(REGIONS_MAX);
    let table_at = SUPERBLOCKS_BYTES;
    let checkpoint_at = table_at + 2 * table_pages * GRANULE_SIZE_BYTES;
    let checkpoint_bytes = GRANULE_SIZE_BYTES
        + granules(regions_bound * REGION_SNAPSHOT_BYTES)
        + granules(index_entries_max * INDEX_ENTRY_BYTES + EXTRA_BYTES)
        + granules(index_entries_max * EXTRA_ENTRY_BYTES + EXTRA_BYTES);
    let before = checkpoint_at + 2 * checkpoint_bytes;
    let regions_at = before.next_multiple_of(REGIONS_ALIGNMENT);
    let room = volume_bytes.saturating_sub(regions_at + SUPERBLOCKS_BYTES);
    Areas {
        table_at,
        table_pages: table_pages as u32,
        regions: u32::try_from(room / region_bytes).unwrap_or(u32::MAX),
        checkpoint_at,
        checkpoint_bytes,
        regions_at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_areas_of_a_volume_follow_each_other() {
        for (volume, region, entries) in [
            (16 * MIB, 2 * MIB, 1000),
            (1024 * MIB, 64 * MIB, 10_000),
            (1 << 44, 64 * MIB, 16_800_000),
            (12 * MIB + 4096, MIB + 12288, 1),
        ] {
            let geometry = Geometry::new(volume, region, BlockSize::MAX, entries).unwrap();
            assert_eq!(geometry.table().start, 8192);
            assert_eq!(geometry.table().end, geometry.checkpoint(0).start);
            assert_eq!(geometry.checkpoint(0).end, geometry.checkpoint(1).start);
            let first = geometry.region(0).unwrap();
            assert!(geometry.checkpoint(1).end <= first.start);
            assert!(first.start < geometry.checkpoint(1).end + MIB);
            let last = geometry.region(geometry.regions() - 1).unwrap();
            assert!(last.end + 8192 <= volume && volume < last.end + 8192 + region);
            assert_eq!(geometry.region(geometry.regions()), None);
        }
    }

    #[test]
    fn what_can_not_be_a_volume_is_refused_with_the_reason() {
        let new = |volume, region, entries| {
            Geometry::new(volume, region, BlockSize::MAX, entries).map(drop).unwrap_err()
        };
        type E = GeometryError;
        assert_eq!(new(16 * MIB + 1, 2 * MIB, 10), E::Unaligned { bytes: 16 * MIB + 1 });
        assert!(matches!(new(64 * MIB, MIB, 10), E::RegionSize { .. }));
        assert!(matches!(new(64 * MIB, 65 * MIB, 10), E::RegionSize { .. }));
        assert!(matches!(new(64 * MIB, 2 * MIB, 0), E::IndexSize { .. }));
        assert!(matches!(new(1 << 50, 64 * MIB, 10), E::TooManyRegions { .. }));
        assert!(matches!(new(u64::MAX - 4095, 2 * MIB, 10), E::TooManyRegions { .. }));
        assert!(matches!(new(0, 2 * MIB, 10), E::TooSmall { .. }));
        let E::TooSmall { bytes_min, .. } = new(4 * MIB, 2 * MIB, 10) else {
            panic!("four regions do not fit");
        };
        assert!(Geometry::new(bytes_min, 2 * MIB, BlockSize::MAX, 10).is_ok());
        assert!(matches!(new(bytes_min - 4096, 2 * MIB, 10), E::TooSmall { .. }));
    }

    #[test]
    fn the_area_that_does_not_fit_is_named() {
        let right = Geometry::new(16 * MIB, 2 * MIB, BlockSize::MAX, 10).unwrap();
        let read = |change: fn(&mut Areas)| {
            let mut areas = right.areas;
            change(&mut areas);
            let sizes = [16 * MIB, 2 * MIB, BlockSize::MAX.bytes(), 10];
            Geometry::from_written(sizes, areas)
        };
        let wrong =
            |what, at_bytes| Err(GeometryError::Area { what, at_bytes, volume_bytes: 16 * MIB });
        assert_eq!(read(|_| ()), Ok(right));
        assert_eq!(read(|areas| areas.table_at = 4096), wrong("the region table", 4096));
        let at = right.areas.checkpoint_at + 1;
        assert_eq!(read(|areas| areas.checkpoint_at += 1), wrong("the checkpoints", at));
        let at = right.areas.regions_at + 4 * MIB;
        assert_eq!(read(|areas| areas.regions_at += 4 * MIB), wrong("the regions", at));
    }

    #[test]
    fn a_spot_lies_in_its_region() {
        let geometry = Geometry::new(16 * MIB, 2 * MIB, BlockSize::MAX, 10).unwrap();
        let spot = geometry.spot(VolumeId(1), 1, 511, 9).unwrap();
        assert_eq!((spot.room(), spot.at()), (1, geometry.region(1).unwrap().end - 4096));
        assert_eq!(geometry.spot(VolumeId(1), 1, 512, 9), None);
        assert_eq!(geometry.spot(VolumeId(1), geometry.regions(), 0, 9), None);
    }
}
