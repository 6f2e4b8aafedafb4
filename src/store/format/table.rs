//! The region table: which generation each region is in, and what it is used for.
//!
//! Pages of one granule, each twice. The two copies are written in turn, so that a torn write
//! leaves the other; the higher sequence wins.

use bytes::{Buf, BufMut};

use crate::limits::GRANULE_SIZE_BYTES;
use crate::store::device::Granules;

use super::frame::{self, Address, Frame, GRANULE, HEAD_BYTES, kind};
use super::{FilledFor, FormatError, Geometry, VolumeId};

const ENTRY_BYTES: usize = 32;
/// Regions that one page tells of; page `n` begins with region `n * ENTRIES_PER_PAGE`.
pub const ENTRIES_PER_PAGE: usize = (GRANULE - HEAD_BYTES) / ENTRY_BYTES;

/// What a region is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionState {
    /// Nothing in it counts.
    Free,
    /// Records are being appended.
    Open,
    /// Full, with its footer.
    Sealed,
    /// Has failed too often to be written again.
    Quarantined,
}

impl RegionState {
    pub(super) fn to_byte(self) -> u8 {
        match self {
            RegionState::Free => 0,
            RegionState::Open => 1,
            RegionState::Sealed => 2,
            RegionState::Quarantined => 3,
        }
    }

    pub(super) fn from_byte(byte: u8) -> Result<RegionState, FormatError> {
        match byte {
            0 => Ok(RegionState::Free),
            1 => Ok(RegionState::Open),
            2 => Ok(RegionState::Sealed),
            3 => Ok(RegionState::Quarantined),
            _ => Err(FormatError::Invalid { what: "a region's state", found: byte.into() }),
        }
    }
}

/// What the table says of one region. One that was never used is all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionEntry {
    /// Counts up whenever the region is opened and whenever it is reclaimed; never reset.
    pub generation: u64,
    /// What it is used for.
    pub state: RegionState,
    /// What it is written with.
    pub filled_for: FilledFor,
    /// Orders sealed regions by age; 0 unless sealed.
    pub sealed: u64,
}

impl Default for RegionEntry {
    fn default() -> RegionEntry {
        RegionEntry {
            generation: 0,
            state: RegionState::Free,
            filled_for: FilledFor::Demand,
            sealed: 0,
        }
    }
}

/// Which of the two places of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageCopy {
    /// In the first half of the table.
    A,
    /// In the second half.
    B,
}

impl PageCopy {
    /// The place to write next.
    pub fn other(self) -> PageCopy {
        match self {
            PageCopy::A => PageCopy::B,
            PageCopy::B => PageCopy::A,
        }
    }
}

/// One page: at most [`ENTRIES_PER_PAGE`] entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TablePage {
    sequence: u64,
    entries: Vec<RegionEntry>,
}

impl TablePage {
    /// Page `page` of a volume on which no region was used yet.
    pub fn unused(geometry: &Geometry, page: u32) -> TablePage {
        TablePage { sequence: 0, entries: vec![RegionEntry::default(); held(geometry, page)] }
    }

    /// How often it was written: the number of the write it came from.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Its entries: of the regions from `page * ENTRIES_PER_PAGE` on.
    pub fn entries(&self) -> &[RegionEntry] {
        &self.entries
    }

    /// The next write of it: `entries` as they are now, with the next sequence.
    pub fn following(&self, entries: &[RegionEntry]) -> TablePage {
        assert_eq!(entries.len(), self.entries.len(), "a page tells of the same regions always");
        TablePage { sequence: self.sequence.saturating_add(1), entries: entries.to_vec() }
    }

    /// The same, as if it had been written `count` times more.
    pub fn skipping(self, count: u64) -> TablePage {
        TablePage { sequence: self.sequence.saturating_add(count), ..self }
    }

    /// Where copy `copy` of page `page` lies, in bytes of the volume.
    pub fn place(geometry: &Geometry, page: u32, copy: PageCopy) -> u64 {
        let pages = match copy {
            PageCopy::A => u64::from(page),
            PageCopy::B => u64::from(geometry.table_pages()) + u64::from(page),
        };
        geometry.table().start + pages * GRANULE_SIZE_BYTES
    }

    /// As it is written to `place`.
    pub fn encode(&self, volume: VolumeId, place: u64) -> Granules {
        let mut bytes = frame::begin();
        for entry in &self.entries {
            bytes.put_u64_le(entry.generation);
            bytes.put_u64_le(entry.sealed);
            bytes.put_u8(entry.state.to_byte());
            bytes.put_u8(entry.filled_for.to_byte());
            bytes.put_bytes(0, ENTRY_BYTES - 18);
        }
        let address = Address { volume, place, generation: self.sequence };
        frame::seal(bytes, kind::TABLE_PAGE, address, 1)
    }

    /// Page `page` as it was read from the place of `copy`.
    ///
    /// # Errors
    /// Anything but this page of this volume.
    pub fn decode(
        bytes: &[u8],
        volume: VolumeId,
        geometry: &Geometry,
        page: u32,
        copy: PageCopy,
    ) -> Result<TablePage, FormatError> {
        let frame = Frame::open(bytes)?;
        frame.is(kind::TABLE_PAGE)?;
        frame.belongs(volume, TablePage::place(geometry, page, copy))?;
        let mut body = frame.body();
        let mut entries = Vec::with_capacity(ENTRIES_PER_PAGE);
        for _ in 0..held(geometry, page) {
            entries.push(decode_entry(&mut body)?);
        }
        Ok(TablePage { sequence: frame.address.generation, entries })
    }

    /// The copy that counts, and the place it was read from.
    ///
    /// # Errors
    /// Both copies are bad; of a page that was never written both are `NotAVolume`.
    pub fn choose(
        a: Result<TablePage, FormatError>,
        b: Result<TablePage, FormatError>,
    ) -> Result<(TablePage, PageCopy), FormatError> {
        match (a, b) {
            (Ok(a), Ok(b)) if a.sequence < b.sequence => Ok((b, PageCopy::B)),
            (Ok(a), _) => Ok((a, PageCopy::A)),
            (Err(_), Ok(b)) => Ok((b, PageCopy::B)),
            (Err(FormatError::NotAVolume), Err(fault)) | (Err(fault), Err(_)) => Err(fault),
        }
    }
}

fn decode_entry(body: &mut &[u8]) -> Result<RegionEntry, FormatError> {
    let (generation, sealed) = (body.try_get_u64_le()?, body.try_get_u64_le()?);
    let state = RegionState::from_byte(body.try_get_u8()?)?;
    let filled_for = FilledFor::from_byte(body.try_get_u8()?)?;
    let invalid = FormatError::Invalid { what: "a length", found: body.len() as u64 };
    let (_, rest) = body.split_at_checked(ENTRY_BYTES - 18).ok_or(invalid)?;
    *body = rest;
    Ok(RegionEntry { generation, state, filled_for, sealed })
}

/// How many regions page `page` tells of.
fn held(geometry: &Geometry, page: u32) -> usize {
    let before = page as usize * ENTRIES_PER_PAGE;
    (geometry.regions() as usize).saturating_sub(before).min(ENTRIES_PER_PAGE)
}

#[cfg(test)]
mod tests {
    use crate::object::BlockSize;

    use super::*;

    fn geometry() -> Geometry {
        Geometry::new(300 << 20, 2 << 20, BlockSize::MAX, 100).unwrap()
    }

    #[test]
    fn the_copy_written_last_counts_and_a_torn_one_does_not() {
        let (geometry, volume) = (geometry(), VolumeId(3));
        assert_eq!(geometry.table_pages(), 2);
        let old = TablePage::unused(&geometry, 1);
        assert_eq!(ENTRIES_PER_PAGE + old.entries().len(), geometry.regions() as usize);
        let mut entries = old.entries().to_vec();
        entries[3].generation = 8;
        let new = old.following(&entries);
        let read = |page: &TablePage, copy| {
            let bytes = page.encode(volume, TablePage::place(&geometry, 1, copy));
            TablePage::decode(bytes.bytes(), volume, &geometry, 1, copy)
        };
        let (a, b) = (read(&old, PageCopy::A), read(&new, PageCopy::B));
        assert_eq!(TablePage::choose(a.clone(), b), Ok((new.clone(), PageCopy::B)));
        let (chosen, copy) =
            TablePage::choose(read(&new, PageCopy::A), read(&old, PageCopy::B)).unwrap();
        assert_eq!((chosen, copy.other()), (new, PageCopy::B));
        assert_eq!(TablePage::choose(a, Err(FormatError::Torn)), Ok((old, PageCopy::A)));
        let (never, torn) = (FormatError::NotAVolume, FormatError::Torn);
        assert_eq!(TablePage::choose(Err(never.clone()), Err(never.clone())), Err(never.clone()));
        assert_eq!(TablePage::choose(Err(never), Err(torn.clone())), Err(torn));
    }

    #[test]
    fn a_page_is_believed_only_where_it_belongs() {
        let (geometry, volume) = (geometry(), VolumeId(3));
        let at = TablePage::place(&geometry, 0, PageCopy::A);
        let bytes = TablePage::unused(&geometry, 0).encode(volume, at);
        let read = |volume, page, copy| {
            TablePage::decode(bytes.bytes(), volume, &geometry, page, copy).map(drop)
        };
        assert_eq!(read(volume, 0, PageCopy::A), Ok(()));
        assert_eq!(read(volume, 0, PageCopy::B), Err(FormatError::WrongPlace { found: at }));
        assert_eq!(read(volume, 1, PageCopy::A), Err(FormatError::WrongPlace { found: at }));
        let other = FormatError::AnotherVolume { found: volume };
        assert_eq!(read(VolumeId(4), 0, PageCopy::A), Err(other));
    }
}
