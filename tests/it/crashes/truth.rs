//! What is on a device, read without the engine: the table, and every record of each region's
//! generation, found by its header alone.

use std::collections::{HashMap, HashSet};

use tidegate::object::{BlockKey, PieceMap};
use tidegate::store::ObjectHash;
use tidegate::store::device::Image;
use tidegate::store::format::{
    ENTRIES_PER_PAGE, FormatError, PageCopy, Record, RegionEntry, RegionState, TablePage,
};

use super::witness::{Place, Seen, SeenHead, Shape, seen};

/// What is on a device.
#[derive(Debug, Default)]
pub(super) struct Truth {
    pub(super) regions: Vec<RegionEntry>,
    pub(super) records: HashMap<Place, Seen>,
    /// Of which every byte is right, the pieces too.
    pub(super) whole: HashSet<Place>,
    /// Records of a generation that the table does not know yet: there must be none.
    pub(super) ahead: Vec<Place>,
}

impl Truth {
    pub(super) fn of(image: &Image, shape: &Shape) -> Truth {
        let mut truth = Truth { regions: table(image, shape), ..Truth::default() };
        for (region, entry) in (0..).zip(truth.regions.clone()) {
            truth.scan(image, shape, region, &entry);
        }
        truth
    }

    fn scan(&mut self, image: &Image, shape: &Shape, region: u32, entry: &RegionEntry) {
        let geometry = &shape.geometry;
        let range = geometry.region(region).expect("the table tells of regions that are");
        let mut bytes = vec![0; geometry.region_bytes() as usize];
        image.read(range.start, &mut bytes);
        let mut granule = 1;
        while granule < geometry.region_granules() {
            let rest = &bytes[granule as usize * 4096..];
            let generation = u64::from_le_bytes(rest[48..56].try_into().unwrap());
            let place = Place { region, granule, generation };
            let spot = geometry.spot(shape.volume, region, granule, generation);
            let record = spot.and_then(|spot| Record::decode(rest, &spot).ok());
            // Its generation is not left to the format, whose own check is what is tested too.
            let record = record.filter(|_| generation >= entry.generation);
            let Some(record) = record else {
                granule += 1;
                continue;
            };
            granule += record.granules();
            if generation > entry.generation {
                self.ahead.push(place);
            } else if entry.state != RegionState::Free {
                if is_whole(&record, rest) {
                    self.whole.insert(place);
                }
                self.records.extend(seen(&record).map(|seen| (place, seen)));
            }
        }
    }

    /// Pieces that any record has of each block.
    pub(super) fn blocks(&self) -> HashMap<BlockKey, PieceMap> {
        let mut blocks = HashMap::<BlockKey, PieceMap>::new();
        for seen in self.records.values() {
            if let Seen::Block { block, pieces, .. } = seen {
                let held = blocks.entry(*block).or_default();
                *held = held.union(*pieces);
            }
        }
        blocks
    }

    /// The newest head of each object.
    pub(super) fn heads(&self) -> HashMap<ObjectHash, (Place, SeenHead)> {
        let mut newest = HashMap::<ObjectHash, (Place, SeenHead)>::new();
        for (place, seen) in &self.records {
            let Seen::Heads(heads) = seen else { continue };
            for head in heads {
                let so_far = newest.entry(head.object).or_insert((*place, *head));
                // One that was carried on is there twice.
                if (so_far.1.sequence, so_far.0) < (head.sequence, *place) {
                    *so_far = (*place, *head);
                }
            }
        }
        newest
    }
}

fn is_whole(record: &Record<'_>, bytes: &[u8]) -> bool {
    let Record::Block(header) = record else { return true };
    (0..16).filter_map(|piece| Some((piece, header.piece(piece)?))).all(|(piece, range)| {
        let bytes = bytes.get(4096 + range.start..4096 + range.end);
        bytes.is_some_and(|bytes| header.verify_piece(piece, bytes).is_ok())
    })
}

fn table(image: &Image, shape: &Shape) -> Vec<RegionEntry> {
    let geometry = &shape.geometry;
    let mut regions = Vec::new();
    for page in 0..geometry.table_pages() {
        let [a, b] = [PageCopy::A, PageCopy::B].map(|copy| -> Result<TablePage, FormatError> {
            let mut bytes = vec![0; 4096];
            image.read(TablePage::place(geometry, page, copy), &mut bytes);
            TablePage::decode(&bytes, shape.volume, geometry, page, copy)
        });
        match TablePage::choose(a, b) {
            Ok((page, _)) => regions.extend_from_slice(page.entries()),
            Err(_) => regions.resize(
                (geometry.regions() as usize).min((page as usize + 1) * ENTRIES_PER_PAGE),
                RegionEntry::default(),
            ),
        }
    }
    regions
}
