//! What is on a device, read without the engine: the table, and every record of each region's
//! generation, found by its header alone.

use std::collections::HashMap;

use tidegate::object::{BlockKey, PieceMap};
use tidegate::store::ObjectHash;
use tidegate::store::device::Image;
use tidegate::store::format::{
    ENTRIES_PER_PAGE, FormatError, PageCopy, Record, RegionEntry, RegionState, TablePage,
};

use super::chance::mixed;
use super::witness::{Place, Seen, SeenHead, Shape, seen};

const GRANULE: u64 = 4096;

/// What is on a device.
#[derive(Debug)]
pub(super) struct Truth {
    image: Image,
    shape: Shape,
    pub(super) regions: Vec<RegionEntry>,
    pub(super) records: HashMap<Place, Seen>,
    /// Records of a generation that the table does not know yet: there must be none.
    pub(super) ahead: Vec<Place>,
}

impl Truth {
    pub(super) fn of(image: &Image, shape: &Shape) -> Truth {
        let mut truth = Truth {
            image: image.clone(),
            shape: *shape,
            regions: table(image, shape),
            records: HashMap::new(),
            ahead: Vec::new(),
        };
        for (region, entry) in (0..).zip(truth.regions.clone()) {
            truth.scan(region, &entry);
        }
        truth
    }

    fn scan(&mut self, region: u32, entry: &RegionEntry) {
        let geometry = self.shape.geometry;
        let range = geometry.region(region).expect("the table tells of regions that are");
        let mut head = [0; 64];
        let mut granule = 1;
        while granule < geometry.region_granules() {
            let at = range.start + u64::from(granule) * GRANULE;
            self.image.read(at, &mut head);
            let generation = u64::from_le_bytes(head[48..56].try_into().unwrap());
            let place = Place { region, granule, generation };
            // Its generation is not left to the format, whose own check is what is tested too.
            let newer = head.starts_with(b"TIDEGATE") && generation >= entry.generation;
            let bytes = if newer { self.frame(place, &head) } else { Vec::new() };
            let Some(record) = self.record(place, &bytes) else {
                granule += 1;
                continue;
            };
            granule += record.granules();
            if generation > entry.generation {
                self.ahead.push(place);
            } else if entry.state != RegionState::Free {
                self.records.extend(seen(&record).map(|seen| (place, seen)));
            }
        }
    }

    /// So many granules from a place on, or as many as its region has.
    fn bytes(&self, place: Place, granules: u32) -> Vec<u8> {
        let geometry = &self.shape.geometry;
        let count = granules.min(geometry.region_granules() - place.granule);
        let mut bytes = vec![0; (u64::from(count) * GRANULE) as usize];
        let start = geometry.region(place.region).unwrap().start;
        self.image.read(start + u64::from(place.granule) * GRANULE, &mut bytes);
        bytes
    }

    /// As many granules as a frame takes that starts with `head`.
    fn frame(&self, place: Place, head: &[u8; 64]) -> Vec<u8> {
        let length = u32::from_le_bytes(head[16..20].try_into().unwrap());
        self.bytes(place, length.div_ceil(GRANULE as u32))
    }

    fn record<'a>(&self, place: Place, bytes: &'a [u8]) -> Option<Record<'a>> {
        let Place { region, granule, generation } = place;
        let spot = self.shape.geometry.spot(self.shape.volume, region, granule, generation)?;
        Record::decode(bytes, &spot).ok()
    }

    /// Whether every byte of a record is right, those of its pieces too.
    pub(super) fn is_whole(&self, place: Place) -> bool {
        let bytes = self.bytes(place, 1);
        let bytes = self.frame(place, bytes[..64].try_into().unwrap());
        match self.record(place, &bytes) {
            Some(Record::Block(header)) => {
                let bytes = self.bytes(place, header.granules());
                (0..16).filter_map(|piece| Some((piece, header.piece(piece)?))).all(
                    |(piece, range)| {
                        let bytes = bytes.get(4096 + range.start..4096 + range.end);
                        bytes.is_some_and(|bytes| header.verify_piece(piece, bytes).is_ok())
                    },
                )
            }
            Some(_) => true,
            None => false,
        }
    }

    /// A number that two devices share only if they hold the same records.
    pub(super) fn digest(&self) -> u64 {
        let of = |place: &Place| {
            let Place { region, granule, generation } = *place;
            mixed(mixed(u64::from(region) << 32 | u64::from(granule)) ^ generation)
        };
        self.records.keys().map(of).fold(0, u64::wrapping_add)
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
