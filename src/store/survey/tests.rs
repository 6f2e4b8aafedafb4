//! A volume that is as it was written, and one bit of it after another that is not.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::object::{BlockKey, BlockSize, PieceMap, VersionNumbers};
use crate::store::device::{Faults, Image, Share, Simulated, Simulation};
use crate::store::format::{
    BlockHeader, BlockLabel, FilledFor, Footer, FooterEntry, Geometry, HeadLabel, Indexed,
    PacketBuilder, RegionHeader, VolumeId,
};
use crate::store::index::RegionId;
use crate::store::volume::{BlockWrite, Volume, VolumeError, VolumeSettings};
use crate::store::{ObjectHash, SiteHash};

const ID: VolumeId = VolumeId(7);
const SIZE: u64 = 16 << 20;
const G: u64 = GRANULE_SIZE_BYTES;

fn geometry() -> Geometry {
    Geometry::new(SIZE, 2 << 20, BlockSize::MAX, 100).unwrap()
}

fn label(sequence: u64) -> BlockLabel {
    let version = VersionNumbers::of_epoch(9).assign();
    BlockLabel {
        object: ObjectHash(1),
        site: SiteHash(2),
        block: BlockKey { version, index: 3 },
        birth: 0,
        sequence,
        filled_for: FilledFor::Demand,
    }
}

/// Writes a block of two pieces and a packet of a head and a tombstone from granule 1 on; the
/// entries of a footer that names them.
fn write_records(image: &mut Image, region: u32, generation: u64) -> Vec<FooterEntry> {
    let spot = |granule| geometry().spot(ID, region, granule, generation).unwrap();
    image.write(spot(0).at(), RegionHeader::encode(&spot(0), FilledFor::Demand).bytes());
    let bytes: Vec<u8> = (0..(64 << 10) + 5_000u32).map(|n| n.to_le_bytes()[1]).collect();
    let pieces = PieceMap::run(4, 2);
    let parts = [Bytes::from(bytes.clone())];
    let block = BlockHeader::new(label(1), pieces, &parts).unwrap();
    image.write(spot(1).at(), block.encode(&spot(1)).bytes());
    image.write(spot(2).at(), Granules::holding(&bytes).bytes());
    let at = 1 + block.granules();
    let mut packet = PacketBuilder::new();
    let head = |object| HeadLabel { object, site: SiteHash(2), sequence: 2, birth: 0 };
    assert!(packet.push(head(ObjectHash(1)), b"a head") && packet.push(head(ObjectHash(2)), b""));
    image.write(spot(at).at(), packet.encode(&spot(at)).bytes());
    let entry = |granule, granules, sequence, indexed| FooterEntry {
        granule,
        granules,
        site: SiteHash(2),
        sequence,
        indexed,
    };
    let block_key = block.label().block;
    vec![
        entry(
            1,
            block.granules(),
            1,
            Indexed::Block { block: block_key, pieces, filled_for: FilledFor::Demand },
        ),
        entry(at, 1, 2, Indexed::Head { object: ObjectHash(1) }),
        entry(at, 1, 2, Indexed::Tombstone { object: ObjectHash(2) }),
    ]
}

/// A volume whose region 1 is sealed and whose region 2 is open.
fn volume() -> Image {
    let geometry = geometry();
    let mut image = Image::empty(SIZE);
    let superblock = Superblock::new(ID, geometry, 1_800_000_000);
    for at in superblock_places(SIZE) {
        image.write(at, superblock.encode(at).bytes());
    }
    let mut page = TablePage::unused(&geometry, 0);
    let at = TablePage::place(&geometry, 0, PageCopy::A);
    image.write(at, page.encode(ID, at).bytes());
    let mut entries = page.entries().to_vec();
    entries[1] = RegionEntry {
        generation: 5,
        state: RegionState::Sealed,
        filled_for: FilledFor::Demand,
        sealed: 1,
    };
    entries[2] = RegionEntry { state: RegionState::Open, generation: 3, sealed: 0, ..entries[1] };
    page = page.following(&entries);
    let at = TablePage::place(&geometry, 0, PageCopy::B);
    image.write(at, page.encode(ID, at).bytes());

    let entries = write_records(&mut image, 1, 5);
    let footer = Footer { filled_for: FilledFor::Demand, sealed: 1, entries };
    let first = geometry.region_granules() - footer.granules();
    let spot = geometry.spot(ID, 1, first, 5).unwrap();
    image.write(spot.at(), footer.encode(&spot).bytes());
    write_records(&mut image, 2, 3);

    let mut header = CheckpointHeader::new(&geometry, 1, 3);
    let mut sum = SectionSum::new(ID, 1, SectionKind::Extra);
    sum.update(b"extra");
    let start = geometry.checkpoint(1).start;
    let at = start + header.push(SectionKind::Extra, 5, sum.checksum()).unwrap();
    image.write(at, b"extra");
    image.write(start, header.encode(ID, &geometry, 1).bytes());
    image
}

fn disk(image: Image, faults: Faults) -> Disk {
    Disk::new(Arc::new(Simulated::from_image(image, 1, faults)))
}

/// Everything that is wrong with a volume, and what its regions hold.
async fn checked(image: Image) -> (Survey, Contents, Vec<Fault>) {
    let disk = disk(image, Faults::default());
    let mut survey = Survey::of(&disk).await.unwrap();
    survey.check_checkpoints(&disk).await;
    let mut contents = Contents::default();
    let written = [RegionState::Sealed, RegionState::Open];
    for region in written.into_iter().flat_map(|state| survey.regions_in(state)) {
        contents.add(check_region(&disk, &survey, region).await);
    }
    let mut faults = std::mem::take(&mut survey.faults);
    faults.append(&mut contents.faults);
    (survey, contents, faults)
}

#[tokio::test]
async fn a_good_volume_tells_what_it_holds() {
    let (survey, contents, faults) = checked(volume()).await;
    assert_eq!(faults, []);
    assert_eq!(survey.superblock.id(), ID);
    assert_eq!(survey.regions_in(RegionState::Sealed).collect::<Vec<_>>(), [1]);
    assert_eq!(survey.regions_in(RegionState::Open).collect::<Vec<_>>(), [2]);
    assert!(matches!(survey.checkpoints, [Slot::Empty, Slot::Holds(_)]));
    let granules = 2 * (1 + 18 + 1);
    let expected = Contents {
        blocks: 2,
        heads: 2,
        tombstones: 2,
        granules,
        read_bytes: 4 << 20,
        ..Contents::default()
    };
    assert_eq!(contents, expected);

    let disk = disk(volume(), Faults::default());
    let by_footer = contents_by_footer(&disk, &survey, 1).await.unwrap();
    assert_eq!((by_footer.blocks, by_footer.heads, by_footer.tombstones), (1, 1, 1));
    assert_eq!(by_footer.granules, granules / 2);
    assert_eq!(contents_by_footer(&disk, &survey, 2).await.unwrap_err().part, Part::Footer(2));
}

#[tokio::test]
async fn every_bit_that_is_not_as_it_was_written_is_found_where_it_is() {
    let geometry = geometry();
    let region = geometry.region(1).unwrap();
    let footer = region.end - G;
    let table = |copy| TablePage::place(&geometry, 0, copy);
    let superblocks = superblock_places(SIZE);
    let slot = geometry.checkpoint(1).start;
    let table = [
        (superblocks[0] + 50, vec![(Part::Superblock, superblocks[0])]),
        (superblocks[3] + 50, vec![(Part::Superblock, superblocks[3])]),
        (slot + G, vec![(Part::Checkpoint, slot)]),
        (slot + 60, vec![(Part::Checkpoint, slot)]),
        (table(PageCopy::A) + 50, vec![(Part::TablePage, table(PageCopy::A))]),
        (table(PageCopy::B) + 50, vec![(Part::TablePage, table(PageCopy::B))]),
        (region.start + 60, vec![(Part::RegionHeader(1), region.start)]),
        // A record's header, its first piece, its second; a packet.
        (region.start + G + 60, vec![(Part::Record(1), region.start + G)]),
        (region.start + 2 * G, vec![(Part::Record(1), region.start + G)]),
        (region.start + 19 * G + 700, vec![(Part::Record(1), region.start + G)]),
        (region.start + 20 * G + 90, vec![(Part::Record(1), region.start + 20 * G)]),
        (footer + 100, vec![(Part::Footer(1), footer)]),
        // Padding after a short piece, and where nothing was written: nobody reads it.
        (region.start + 19 * G + 2_000, vec![]),
        (region.start + 300 * G, vec![]),
    ];
    for (at, expected) in table {
        let mut image = volume();
        image.flip(at, 3);
        let (_, _, faults) = checked(image).await;
        let found: Vec<_> = faults.iter().map(|fault| (fault.part, fault.at)).collect();
        assert_eq!(found, expected, "{at}: {faults:?}");
    }
    let mut image = volume();
    image.flip(region.start + 19 * G + 700, 0);
    let (_, _, faults) = checked(image).await;
    let line = faults[0].to_string();
    let at = region.start + G;
    assert_eq!(line, format!("record in region 1 at byte {at}: wrong checksum of piece 5"));
}

#[tokio::test]
async fn a_record_that_was_torn_in_an_open_region_is_no_fault() {
    let region = geometry().region(2).unwrap();
    let mut image = volume();
    image.flip(region.start + G + 60, 0);
    let (_, contents, faults) = checked(image).await;
    assert_eq!((faults, contents.torn, contents.blocks), (vec![], 1, 1));
}

#[tokio::test]
async fn pieces_that_did_not_arrive_in_an_open_region_are_torn_unless_a_checkpoint_knew_them() {
    let region = geometry().region(2).unwrap();
    let spoilt = || {
        let mut image = volume();
        image.write(region.start + 10 * G, &[0; 4096]);
        image
    };
    let (_, contents, faults) = checked(spoilt()).await;
    assert_eq!((faults, contents.torn, contents.blocks), (vec![], 1, 1));
    // What a checkpoint notes of the region: it is known up to there.
    for (granule, generation, is_fault) in [(1, 3, false), (2, 3, true), (2, 2, false)] {
        let mut image = spoilt();
        write_checkpoint(&mut image, generation, granule);
        let (_, contents, faults) = checked(image).await;
        let expected = is_fault.then_some(region.start + G);
        let found: Vec<_> = faults.iter().map(|fault| fault.at).collect();
        assert_eq!(found, expected.into_iter().collect::<Vec<_>>(), "{granule}: {faults:?}");
        assert_eq!(contents.torn, u64::from(!is_fault));
    }
    // A footer is written when all of its region has arrived, and the table told later.
    let mut image = spoilt();
    let label = label(1);
    let footer = Footer { filled_for: FilledFor::Demand, sealed: 2, entries: Vec::new() };
    let (key, pieces) = (label.block, PieceMap::run(4, 2));
    let indexed = Indexed::Block { block: key, pieces, filled_for: FilledFor::Demand };
    let entry = FooterEntry { granule: 1, granules: 19, site: SiteHash(2), sequence: 1, indexed };
    let footer = Footer { entries: vec![entry], ..footer };
    let first = geometry().region_granules() - footer.granules();
    let spot = geometry().spot(ID, 2, first, 3).unwrap();
    image.write(spot.at(), footer.encode(&spot).bytes());
    let (_, contents, faults) = checked(image).await;
    assert_eq!((faults.len(), contents.torn), (1, 0), "{faults:?}");
}

/// A checkpoint after that of [`volume`]: it knows region 2 in `generation` up to `granule`.
fn write_checkpoint(image: &mut Image, generation: u64, granule: u32) {
    let geometry = geometry();
    let regions = (0..geometry.regions()).flat_map(|region| {
        let state = if region == 2 { RegionState::Open } else { RegionState::Free };
        let filled_for = FilledFor::Demand;
        RegionSnapshot { generation, sealed: 0, used_granules: 0, state, filled_for }.encode()
    });
    let open = vec![(RegionId(2), granule)];
    let preamble = Preamble { index_bytes: 0, trust_from: 0, open }.encode();
    let mut header = CheckpointHeader::new(&geometry, 2, 3);
    let start = geometry.checkpoint(0).start;
    for (kind, bytes) in
        [(SectionKind::Regions, regions.collect::<Vec<u8>>()), (SectionKind::Index, preamble)]
    {
        let mut sum = SectionSum::new(ID, 2, kind);
        sum.update(&bytes);
        let at = start + header.push(kind, bytes.len() as u64, sum.checksum()).unwrap();
        image.write(at, Granules::holding(&bytes).bytes());
    }
    image.write(start, header.encode(ID, &geometry, 0).bytes());
}

#[tokio::test]
async fn what_is_no_volume_is_said_to_be_none() {
    let silent = disk(Image::empty(SIZE), Faults::default());
    let error = Survey::of(&silent).await.unwrap_err();
    assert!(error.to_string().starts_with("is no volume: nothing was written here"));
    let failing = Faults { fail_reads: Share::ALL, ..Faults::default() };
    let error = Survey::of(&disk(volume(), failing)).await.unwrap_err();
    assert!(matches!(error, SurveyError::Device(_)), "{error}");
}

#[tokio::test]
async fn where_the_good_copies_cannot_be_read_the_device_failed_and_nothing_is_to_be_made_anew() {
    let mut image = volume();
    for at in &superblock_places(SIZE)[..2] {
        image.flip(at + 50, 3);
    }
    let gone = Faults { vanish_after: Some(2), ..Faults::default() };
    let surveyed = Survey::of(&disk(image.clone(), gone.clone())).await.unwrap_err();
    assert!(matches!(surveyed, SurveyError::Device(_)), "{surveyed}");
    assert!(!surveyed.to_string().contains("volume format"), "{surveyed}");
    let opened = Volume::open(disk(image.clone(), gone), VolumeSettings::default()).await;
    assert!(matches!(opened, Err(VolumeError::Device(_))), "a start says the same");
    assert_eq!(Survey::of(&disk(image, Faults::default())).await.unwrap().superblock.id(), ID);
}

#[tokio::test(start_paused = true)]
async fn a_read_that_fails_now_and_then_is_told_of_and_the_rest_is_checked() {
    let good = disk(volume(), Faults::default());
    let survey = Survey::of(&good).await.unwrap();
    let sometimes = Faults { fail_reads: Share::millionths(20_000), ..Faults::default() };
    let contents = check_region(&disk(volume(), sometimes), &survey, 1).await;
    let failing = Faults { fail_reads: Share::ALL, ..Faults::default() };
    let nothing = check_region(&disk(volume(), failing), &survey, 1).await;
    assert_eq!(nothing.blocks, 0);
    assert_eq!(nothing.faults.len() as u64, geometry().region_bytes() / G, "each granule, once");
    assert!(contents.faults.len() < nothing.faults.len());
}

/// Of 64 MiB, in which every operation takes up to 20 ms.
async fn slow() -> Arc<Simulated> {
    let faults = Faults { latency_max: Duration::from_millis(20), ..Faults::default() };
    let device = Arc::new(Simulated::new(&Simulation { size_bytes: 64 << 20, seed: 3, faults }));
    let geometry = Geometry::new(64 << 20, 2 << 20, BlockSize::MAX, 4096).unwrap();
    Volume::format(&Disk::new(device.clone()), geometry, ID).await.unwrap();
    device
}

fn block_of(n: u8) -> BlockWrite {
    BlockWrite {
        object: ObjectHash(1),
        site: SiteHash(2),
        block: BlockKey { version: VersionNumbers::of_epoch(9).assign(), index: n.into() },
        birth: 0,
        pieces: PieceMap::run(0, 2),
        parts: vec![Bytes::from(vec![n; 2 * (64 << 10)])],
        filled_for: FilledFor::Demand,
        guard: Box::new(()),
    }
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_a_kill_left_half_overwritten_is_no_fault() {
    let mut overwritten = 0;
    for after in (0..240).step_by(6) {
        let device = slow().await;
        let disk = || Disk::new(device.clone());
        let volume = Volume::open(disk(), VolumeSettings::default()).await.unwrap();
        for n in 0..3 {
            volume.append_block(block_of(n)).unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(volume.checkpoint().await);
        }
        volume.append_block(block_of(9)).unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        // Killed here.
        let _ = tokio::time::timeout(Duration::from_millis(after), volume.checkpoint()).await;
        drop(volume);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut survey = Survey::of(&disk()).await.unwrap();
        survey.check_checkpoints(&disk()).await;
        assert_eq!(survey.faults, [], "after {after} ms");
        let is_told = |slot: &&Slot| matches!(slot, Slot::Overwritten(_));
        overwritten += survey.checkpoints.iter().filter(is_told).count();
    }
    assert!(overwritten > 0, "some were killed just then");
}

#[tokio::test(start_paused = true)]
async fn of_two_checkpoints_the_older_one_may_be_wrong_only_while_the_newer_one_is_whole() {
    let device = slow().await;
    let volume = Volume::open(Disk::new(device.clone()), VolumeSettings::default()).await.unwrap();
    assert!(volume.checkpoint().await && volume.checkpoint().await);
    let geometry = *volume.geometry();
    let wrong = async |slots: &[usize]| {
        let mut image = device.image();
        for slot in slots {
            image.flip(geometry.checkpoint(*slot).start + G, 3);
        }
        let disk = disk(image, Faults::default());
        let mut survey = Survey::of(&disk).await.unwrap();
        let newest = survey.newest_first()[0].0;
        survey.check_checkpoints(&disk).await;
        (newest, survey.faults.iter().map(|fault| fault.at).collect::<Vec<_>>())
    };
    let (newer, faults) = wrong(&[]).await;
    let at = |slot| geometry.checkpoint(slot).start;
    assert!(faults.is_empty(), "{faults:?}");
    assert_eq!(wrong(&[1 - newer]).await.1, Vec::<u64>::new());
    assert_eq!(wrong(&[newer]).await.1, [at(newer)]);
    assert_eq!(wrong(&[newer, 1 - newer]).await.1, [at(newer), at(1 - newer)]);
}

#[tokio::test(start_paused = true)]
async fn whenever_it_crashes_nothing_is_left_that_is_taken_for_damage() {
    let mut torn = 0;
    for after in (0..900).step_by(7) {
        let device = slow().await;
        let volume =
            Volume::open(Disk::new(device.clone()), VolumeSettings::default()).await.unwrap();
        for n in 0..60 {
            let _ = volume.append_block(block_of(n));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let ended = async {
            tokio::time::sleep(Duration::from_millis(150)).await;
            volume.checkpoint().await;
            for n in 0..20 {
                let _ = volume.append_block(block_of(n));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            volume.checkpoint().await
        };
        let _ = tokio::time::timeout(Duration::from_millis(after), ended).await;
        let (_, contents, faults) = checked(device.crash()).await;
        torn += contents.torn;
        let damage: Vec<_> = faults.iter().filter(|fault| !fault.may_be_torn).collect();
        assert!(damage.is_empty(), "after {after} ms: {damage:?}");
    }
    assert!(torn > 0, "some crashed while a record was written");
}
