//! The region table on the device: changed in memory, then written page by page and flushed.
//!
//! What it says of a region is durable before the first record of a generation is written, and
//! before a region that was given up is used again.

use std::collections::BTreeSet;

use crate::limits::GRANULE_SIZE_BYTES;
use crate::store::device::{DeviceError, Granules};
use crate::store::format::{
    ENTRIES_PER_PAGE, Geometry, PageCopy, RegionEntry, TablePage, VolumeId,
};
use crate::store::index::RegionId;

use super::metadata::{Metadata, MetadataError};

pub(super) struct Table {
    entries: Vec<RegionEntry>,
    pages: Vec<Page>,
    changed: BTreeSet<u32>,
}

struct Page {
    page: TablePage,
    /// Where it stands; the other place is written next.
    copy: PageCopy,
}

/// A table as it was read, and the pages of it of which not both copies are good.
pub(super) struct Loaded {
    pub(super) table: Table,
    pub(super) bad: Vec<BadPage>,
}

/// A page of which a copy is damaged, cannot be read, or was torn by a crash. If that was the newer
/// one, and not torn, it is behind by one write.
pub(super) struct BadPage {
    pub(super) number: u32,
    /// The bad copies: where they are, and what is wrong with them.
    pub(super) copies: Vec<(u64, String)>,
    /// Neither copy is good, or one could not be read that may be the newer one.
    pub(super) is_lost: bool,
}

impl BadPage {
    /// What is wrong with it, and what is known all the same.
    pub(super) fn in_words(&self) -> String {
        let told = |(at, why): &(u64, String)| format!("at byte {at}: {why}");
        let bad: Vec<String> = self.copies.iter().map(told).collect();
        match &bad[..] {
            [one] => format!(
                "a copy of a page of the region table is bad, {one}; the other copy counts, and \
                 what its regions say of themselves that is newer"
            ),
            all => format!(
                "both copies of a page of the region table are bad, {}; it is made anew, by what \
                 its regions say of themselves",
                all.join("; ")
            ),
        }
    }
}

/// Left out of the numbers of a page's writes where a copy could not be read, and of checkpoints
/// where a header could not: it may be read again later, and must not pass for the newest then.
/// More than there can be of a device that lives.
pub(super) const UNREAD_GAP: u64 = 1 << 40;

impl Table {
    /// From all bytes of the table's area, but for the granules of it that could not be read.
    pub(super) fn decode(
        bytes: &[u8],
        unread: &[(u64, DeviceError)],
        volume: VolumeId,
        geometry: &Geometry,
    ) -> Loaded {
        let (mut pages, mut entries, mut bad) = (Vec::new(), Vec::new(), Vec::new());
        for page in 0..geometry.table_pages() {
            let read = |copy| {
                let at = TablePage::place(geometry, page, copy) - geometry.table().start;
                let bytes = &bytes[at as usize..(at + GRANULE_SIZE_BYTES) as usize];
                TablePage::decode(bytes, volume, geometry, page, copy)
            };
            let (a, b) = (read(PageCopy::A), read(PageCopy::B));
            let (mut copies, mut is_unread) = (Vec::new(), false);
            for (copy, decoded) in [(PageCopy::A, &a), (PageCopy::B, &b)] {
                let Err(why) = decoded else { continue };
                let place = TablePage::place(geometry, page, copy);
                let device = unread.iter().find(|(at, _)| *at == place).map(|(_, error)| error);
                is_unread |= device.is_some();
                copies.push((place, device.map_or(why.to_string(), ToString::to_string)));
            }
            let (found, copy) = TablePage::choose(a, b)
                .unwrap_or_else(|_| (TablePage::unused(geometry, page), PageCopy::B));
            entries.extend_from_slice(found.entries());
            let found = if is_unread { found.skipping(UNREAD_GAP) } else { found };
            if !copies.is_empty() {
                let is_lost = is_unread || copies.len() == 2;
                bad.push(BadPage { number: page, copies, is_lost });
            }
            pages.push(Page { page: found, copy });
        }
        // Both copies were written when it was made: the bad ones are written anew.
        let changed = bad.iter().map(|page: &BadPage| page.number).collect();
        Loaded { table: Table { entries, pages, changed }, bad }
    }

    /// Of a volume without records, as it stands after [`Table::fresh`] was written.
    pub(super) fn unused(geometry: &Geometry) -> Table {
        let pages = (0..geometry.table_pages()).map(|page| TablePage::unused(geometry, page));
        let pages: Vec<_> = pages.map(|page| Page { page, copy: PageCopy::B }).collect();
        let entries = pages.iter().flat_map(|page| page.page.entries()).copied().collect();
        Table { entries, pages, changed: BTreeSet::new() }
    }

    /// All pages of a volume without records, in one buffer: both copies.
    pub(super) fn fresh(volume: VolumeId, geometry: &Geometry) -> Granules {
        let area = geometry.table();
        let mut granules =
            Granules::zeroed(((area.end - area.start) / GRANULE_SIZE_BYTES) as usize);
        for page in 0..geometry.table_pages() {
            for copy in [PageCopy::A, PageCopy::B] {
                let place = TablePage::place(geometry, page, copy);
                let encoded = TablePage::unused(geometry, page).encode(volume, place);
                let at = (place - area.start) as usize;
                let to = &mut granules.bytes_mut()[at..at + GRANULE_SIZE_BYTES as usize];
                to.copy_from_slice(encoded.bytes());
            }
        }
        granules
    }

    pub(super) fn entries(&self) -> &[RegionEntry] {
        &self.entries
    }

    pub(super) fn set(&mut self, region: RegionId, entry: RegionEntry) {
        let place = &mut self.entries[region.0 as usize];
        if *place != entry {
            *place = entry;
            self.changed.insert(region.0 / ENTRIES_PER_PAGE as u32);
        }
    }

    /// Writes what has changed and flushes the device.
    pub(super) async fn commit(&mut self, metadata: &Metadata<'_>) -> Result<(), MetadataError> {
        while let Some(number) = self.changed.first().copied() {
            let first = number as usize * ENTRIES_PER_PAGE;
            let page = &mut self.pages[number as usize];
            let entries = &self.entries[first..first + page.page.entries().len()];
            let (next, copy) = (page.page.following(entries), page.copy.other());
            let place = TablePage::place(metadata.geometry, number, copy);
            let bytes = next.encode(metadata.volume, place);
            metadata.write("the region table", place, bytes).await?;
            *page = Page { page: next, copy };
            self.changed.remove(&number);
        }
        metadata.flush().await
    }
}
