//! A volume of two million records on a sparse file: table and footers by the product's encoders.

use std::fs::File;
use std::path::Path;

use tidegate::object::BlockSize;
use tidegate::store::device::{self, Buffer, Disk, Granules, Options, Urgency};
use tidegate::store::format::{
    ENTRIES_PER_PAGE, FilledFor, Footer, FooterEntry, Geometry, Indexed, PageCopy, RegionEntry,
    RegionState, TablePage, VolumeId,
};
use tidegate::store::{SiteHash, Volume};

/// Records there are, at least.
pub(crate) const ENTRIES: u64 = 2_000_000;
const INDEX_ENTRIES: u64 = 2_500_000;
const VOLUME_BYTES: u64 = 17 << 30;
const REGION_BYTES: u64 = 64 << 20;
/// Of a record: its header and one granule of bytes.
const RECORD_GRANULES: u32 = 2;
const GENERATION: u64 = 1;
const ID: VolumeId = VolumeId(0x7469_6465_6761_7465_0001);

/// Makes it; `indexed` says what each of its records is.
pub(crate) async fn volume(path: &Path, indexed: impl Fn(u64) -> Indexed) {
    File::create_new(path).unwrap().set_len(VOLUME_BYTES).unwrap();
    let disk = Disk::new(device::open(path, &Options::default()).unwrap());
    let geometry = Geometry::new(VOLUME_BYTES, REGION_BYTES, BlockSize::MAX, INDEX_ENTRIES);
    let geometry = geometry.unwrap();
    Volume::format(&disk, geometry, ID).await.unwrap();

    let mut table = vec![RegionEntry::default(); geometry.regions() as usize];
    let mut written = 0;
    for region in 0..geometry.regions() {
        if written >= ENTRIES {
            break;
        }
        let entries: Vec<_> = (0..records_in(&geometry))
            .map(|number| FooterEntry {
                granule: 1 + number * RECORD_GRANULES,
                granules: RECORD_GRANULES,
                site: SiteHash(1),
                sequence: written + u64::from(number) + 1,
                indexed: indexed(written + u64::from(number) + 1),
            })
            .collect();
        written += entries.len() as u64;
        let sealed = u64::from(region) + 1;
        table[region as usize] = RegionEntry {
            generation: GENERATION,
            state: RegionState::Sealed,
            filled_for: FilledFor::Demand,
            sealed,
        };
        let footer = Footer { filled_for: FilledFor::Demand, sealed, entries };
        let granule = geometry.region_granules() - footer.granules();
        let spot = geometry.spot(ID, region, granule, GENERATION).unwrap();
        write(&disk, spot.at(), footer.encode(&spot)).await;
    }
    assert!(written >= ENTRIES, "the volume has room for {written} records only");
    for (page, entries) in (0..).zip(table.chunks(ENTRIES_PER_PAGE)) {
        let place = TablePage::place(&geometry, page, PageCopy::A);
        let page = TablePage::unused(&geometry, page).following(entries);
        write(&disk, place, page.encode(ID, place)).await;
    }
    disk.flush(Urgency::Write).await.unwrap();
}

/// As many as leave room for their footer.
fn records_in(geometry: &Geometry) -> u32 {
    let room = geometry.region_granules();
    let fits = |count: u32| 1 + count * RECORD_GRANULES + Footer::granules_for(count as usize);
    (0..room / RECORD_GRANULES).rev().find(|count| fits(*count) <= room).unwrap()
}

async fn write(disk: &Disk, at: u64, granules: Granules) {
    disk.write(at, vec![Buffer::Own(granules)], Urgency::Write).await.unwrap();
}
