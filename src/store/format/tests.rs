//! Version 1 of the format, pinned byte by byte, and what holds for every frame: each changed bit
//! is found, what was cut off never panics, and what a later version adds is skipped.

use bytes::Bytes;
use proptest::prelude::*;

use crate::object::{BlockKey, BlockSize, PieceMap, VersionId};
use crate::store::device::Granules;
use crate::store::index::{Entry, Fingerprint, Index, Location, RegionId, Shape};
use crate::store::{ObjectHash, SiteHash};

use super::*;

const MIB: u64 = 1 << 20;
const VOLUME: VolumeId = VolumeId(0x0123_4567_89ab_cdef_0f1e_2d3c_4b5a_6978);

fn geometry() -> Geometry {
    Geometry::new(16 * MIB, 2 * MIB, BlockSize::MAX, 1000).unwrap()
}

fn spot(granule: u32) -> Spot {
    geometry().spot(VOLUME, 3, granule, 5).unwrap()
}

fn version() -> VersionId {
    VersionId::from_bytes([7, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]).unwrap()
}

fn block(index: u32) -> BlockKey {
    BlockKey { version: version(), index }
}

fn block_label() -> BlockLabel {
    BlockLabel {
        object: ObjectHash(0xaaaa_0001),
        site: SiteHash(0xbbbb_0002),
        block: block(6),
        birth: 44,
        sequence: 77,
        filled_for: FilledFor::Planned,
    }
}

fn head_label(object: u128) -> HeadLabel {
    let (object, site) = (ObjectHash(object), SiteHash(0xbbbb_0002));
    HeadLabel { object, site, sequence: 78, birth: 45 }
}

fn block_header() -> BlockHeader {
    let parts = [Bytes::from(vec![1; 65_536]), Bytes::from(vec![2; 5000])];
    BlockHeader::new(block_label(), PieceMap(0b1010), &parts).unwrap()
}

fn packet() -> PacketBuilder {
    let mut packet = PacketBuilder::new();
    assert!(packet.push(head_label(1), b"first"));
    assert!(packet.push(head_label(2), b""));
    packet
}

fn footer() -> Footer {
    let entry = |granule, granules, indexed| FooterEntry {
        granule,
        granules,
        site: SiteHash(0xbbbb_0002),
        sequence: 77,
        indexed,
    };
    let pieces = PieceMap(0b1010);
    let of_block = Indexed::Block { block: block(6), pieces, filled_for: FilledFor::Planned };
    Footer {
        filled_for: FilledFor::Planned,
        sealed: 12,
        entries: vec![
            entry(1, 19, of_block),
            entry(20, 1, Indexed::Head { object: ObjectHash(1) }),
            entry(20, 1, Indexed::Tombstone { object: ObjectHash(2) }),
        ],
    }
}

fn checkpoint() -> CheckpointHeader {
    let mut header = CheckpointHeader::new(&geometry(), 4, 900);
    assert_eq!(header.push(SectionKind::Regions, 7 * 24, 0x51), Some(4096));
    assert_eq!(header.push(SectionKind::Index, 5000, 0x52), Some(8192));
    assert_eq!(header.push(SectionKind::Extra, 0, 0x53), Some(16384));
    assert_eq!(header.push(SectionKind::Extra, 0, 0x53), None);
    header
}

fn page() -> TablePage {
    let geometry = geometry();
    let mut page = TablePage::unused(&geometry, 0);
    let mut entries = page.entries().to_vec();
    entries[1] = RegionEntry {
        generation: 5,
        state: RegionState::Sealed,
        filled_for: FilledFor::Planned,
        sealed: 12,
    };
    page = page.following(&entries);
    page
}

type Decoded = Result<String, FormatError>;
type Decode = fn(&[u8]) -> Decoded;

/// One of everything: its name, its bytes, and how it is read.
fn specimens() -> Vec<(&'static str, Granules, Decode)> {
    fn shown<T: fmt::Debug>(value: T) -> String {
        format!("{value:?}")
    }
    let superblock = Superblock::new(VOLUME, geometry(), 1_800_000_000).with_purge_seen(3);
    let table_at = TablePage::place(&geometry(), 0, PageCopy::B);
    let foot = geometry().region_granules() - footer().granules();
    let small = PacketBuilder::with_body(head_label(3), b"head", version(), &[9; 4500]).unwrap();
    vec![
        ("superblock", superblock.encode(4096), |bytes| Superblock::decode(bytes, 4096).map(shown)),
        ("table page", page().encode(VOLUME, table_at), |bytes| {
            TablePage::decode(bytes, VOLUME, &geometry(), 0, PageCopy::B).map(shown)
        }),
        ("region header", RegionHeader::encode(&spot(0), FilledFor::Planned), |bytes| {
            RegionHeader::decode(bytes, VOLUME, 3).map(shown)
        }),
        ("block header", block_header().encode(&spot(1)), |bytes| {
            BlockHeader::decode(bytes, &spot(1)).map(shown)
        }),
        ("packet", packet().encode(&spot(20)), |bytes| Packet::decode(bytes, &spot(20)).map(shown)),
        ("small object", small.encode(&spot(21)), |bytes| {
            Packet::decode(bytes, &spot(21)).map(shown)
        }),
        ("footer", footer().encode(&spot(foot)), |bytes| {
            let last = spot(geometry().region_granules() - 1);
            Footer::decode(bytes, &last).map(shown)
        }),
        ("checkpoint", checkpoint().encode(VOLUME, &geometry(), 1), |bytes| {
            CheckpointHeader::decode(bytes, VOLUME, &geometry(), 1).map(shown)
        }),
    ]
}

/// In hexadecimal, 32 bytes to a line, numbered; a line that repeats the one before is left out.
fn dumped(bytes: &[u8]) -> String {
    let lines: Vec<&[u8]> = bytes.chunks(32).collect();
    let changes = (0..lines.len()).filter(|n| *n == 0 || lines[*n] != lines[n - 1]);
    let shown = changes.map(|n| {
        let hex: String = lines[n].iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{:04x} {hex}\n", n * 32)
    });
    shown.collect()
}

/// What stands in a checkpoint's sections, without a frame of its own.
fn sections() -> Vec<(&'static str, Vec<u8>)> {
    let snapshot = RegionSnapshot {
        generation: 5,
        sealed: 12,
        used_granules: 0x0304,
        state: RegionState::Sealed,
        filled_for: FilledFor::Planned,
    };
    vec![("region snapshot", snapshot.encode().to_vec()), ("index", index())]
}

/// The dump of a table of several parts: which part, bucket and bits an entry lies in follows from
/// its key, so that a checkpoint that was made by another rule would hold nothing that is found.
fn index() -> Vec<u8> {
    let index = Index::new(20_000);
    for n in 0..4 {
        let location = Location { region: RegionId(n + 3), granule: 0x0102 + n as u16 };
        let head =
            Entry { location, shape: Shape::Head { granules: n + 1 }, score: 1, planned: false };
        let object = ObjectHash(u128::from(n) << 64 | 0xaaaa);
        index.insert(Fingerprint::of_head(0x5eed, object), head, |_| ()).unwrap();
        let shape = Shape::block(PieceMap(0b1010), 70_536).unwrap();
        let of_block = Entry { location, shape, score: 7, planned: n == 2 };
        let key = Fingerprint::of_block(0x5eed, block(n));
        index.insert(key, of_block, |_| ()).unwrap();
        // Into the other of its buckets: that is the emptier one now.
        let shape = Shape::block(PieceMap(0b0100), 65_536).unwrap();
        index.insert(key, Entry { shape, ..of_block }, |_| ()).unwrap();
    }
    let mut bytes = Vec::new();
    (0..index.shards()).for_each(|shard| index.dump(shard, &mut bytes));
    bytes
}

#[test]
fn a_footer_says_of_a_record_what_its_header_says() {
    let [of_block, of_head, of_tombstone] = footer().entries[..] else { panic!("three") };
    assert_eq!(FooterEntry::of_block(1, &block_header()), of_block);
    let numbered = |entry| FooterEntry { sequence: 78, ..entry };
    assert_eq!(FooterEntry::of_head(20, 1, &head_label(1)), numbered(of_head));
    assert_eq!(FooterEntry::of_tombstone(20, 1, &head_label(2)), numbered(of_tombstone));
}

#[test]
fn version_1_is_written_as_it_always_was() {
    let frames = specimens().into_iter();
    let frames = frames.map(|(name, granules, _)| (name, granules.bytes().to_vec()));
    let now: Vec<_> = frames
        .chain(sections())
        .map(|(name, bytes)| format!("{name}\n{}", dumped(&bytes)))
        .collect();
    let now = now.join("\n");
    let pinned = include_str!("version_1.txt");
    // A change here makes volumes in the field unreadable: it needs a feature bit, not a new text.
    assert_eq!(now, pinned, "the format has changed; what it is now:\n{now}");
}

#[test]
fn every_changed_bit_of_a_frame_is_found() {
    for (name, mut granules, decode) in specimens() {
        let bytes = granules.bytes_mut();
        let right = decode(bytes).unwrap();
        let length = u32::from_le_bytes(bytes[16..20].try_into().unwrap()) as usize;
        for bit in 0..length * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(bytes).is_err(), "{name}: bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        assert_eq!(decode(bytes), Ok(right), "{name}");
    }
}

#[test]
fn what_was_cut_off_or_torn_is_no_frame() {
    for (name, granules, decode) in specimens() {
        let bytes = granules.bytes();
        let length = u32::from_le_bytes(bytes[16..20].try_into().unwrap()) as usize;
        for cut in 0..length {
            assert!(decode(&bytes[..cut]).is_err(), "{name}: {cut} bytes");
        }
        for torn in (512..length).step_by(512) {
            let mut bytes = bytes.to_vec();
            bytes[torn..].fill(0);
            assert!(decode(&bytes).is_err(), "{name}: torn at {torn}");
        }
    }
}

#[test]
fn a_frame_of_another_kind_volume_place_or_generation_is_told_apart() {
    let bytes = block_header().encode(&spot(1));
    let read =
        |bytes: &Granules, spot: &Spot| Record::decode(bytes.bytes(), spot).map(drop).unwrap_err();
    type E = FormatError;
    let place = 3 << 32 | 1;
    assert_eq!(read(&bytes, &spot(2)), E::WrongPlace { found: place });
    let at = |volume, region, generation| geometry().spot(volume, region, 1, generation).unwrap();
    assert_eq!(read(&bytes, &at(VOLUME, 2, 5)), E::WrongPlace { found: place });
    assert_eq!(read(&bytes, &at(VOLUME, 3, 6)), E::WrongGeneration { found: 5 });
    assert_eq!(read(&bytes, &at(VolumeId(1), 3, 5)), E::AnotherVolume { found: VOLUME });
    let header = RegionHeader::encode(&spot(1), FilledFor::Demand);
    assert_eq!(read(&header, &spot(1)), E::WrongKind { found: 3 });
    assert_eq!(read(&Granules::zeroed(1), &spot(1)), E::NotAVolume);
    let foot = footer();
    let first = geometry().region_granules() - foot.granules();
    let last = geometry().spot(VOLUME, 3, geometry().region_granules() - 1, 6).unwrap();
    let foot = foot.encode(&spot(first));
    assert_eq!(Footer::decode(foot.bytes(), &last), Err(E::WrongGeneration { found: 5 }));
}

#[test]
fn what_a_later_version_adds_is_skipped() {
    // A record of a kind that is not known, and of more granules than were read.
    let mut bytes = block_header().encode(&spot(1));
    bytes.bytes_mut()[20] = 99;
    frame::reseal(bytes.bytes_mut());
    let found = Record::decode(bytes.bytes(), &spot(1)).unwrap();
    assert_eq!(found, Record::Unknown { kind: 99, granules: 19 });

    // A section of a checkpoint.
    let mut bytes = checkpoint().encode(VOLUME, &geometry(), 0);
    bytes.bytes_mut()[80 + 24] = 99;
    frame::reseal(bytes.bytes_mut());
    let found = CheckpointHeader::decode(bytes.bytes(), VOLUME, &geometry(), 0).unwrap();
    assert_eq!(found.section(SectionKind::Index), None);
    assert_eq!(found.section(SectionKind::Extra).unwrap().place.start, 16384);

    // Fields behind those of a header, and a compatible feature.
    let mut bytes = Superblock::new(VOLUME, geometry(), 1).encode(0);
    bytes.bytes_mut()[16..18].copy_from_slice(&1000u16.to_le_bytes());
    bytes.bytes_mut()[64] = 0xff;
    bytes.bytes_mut()[990] = 0xff;
    frame::reseal(bytes.bytes_mut());
    let found = Superblock::decode(bytes.bytes(), 0).unwrap();
    assert_eq!((found.access(), found.geometry()), (Access::Full, &geometry()));

    // Entries of a footer of a kind that is not known.
    let foot = footer();
    let first = geometry().region_granules() - foot.granules();
    let mut bytes = foot.encode(&spot(first));
    bytes.bytes_mut()[64 + 16 + 48] = 99;
    frame::reseal(bytes.bytes_mut());
    let last = spot(geometry().region_granules() - 1);
    let found = Footer::decode(bytes.bytes(), &last).unwrap();
    assert_eq!(found.entries, [foot.entries[0], foot.entries[2]]);
}

#[test]
fn a_record_that_would_leave_its_region_is_not_believed() {
    let end = geometry().region_granules();
    let bytes = block_header().encode(&spot(end - 18));
    let found = Record::decode(bytes.bytes(), &spot(end - 18)).map(drop);
    assert!(matches!(found, Err(FormatError::Invalid { .. })), "19 granules of 18");
    // A length that no region has is no reason to read on.
    let mut bytes = packet().encode(&spot(1));
    bytes.bytes_mut()[19] = 0x7f;
    assert_eq!(Record::decode(bytes.bytes(), &spot(1)), Err(FormatError::Torn));
}

#[test]
fn heads_share_a_granule_until_it_is_full() {
    let mut packet = PacketBuilder::new();
    let mut count = 0;
    while packet.push(head_label(count), &[count as u8; 300]) {
        count += 1;
    }
    assert_eq!((count, packet.granules()), (11, 1));
    let bytes = packet.encode(&spot(4));
    let read = Packet::decode(bytes.bytes(), &spot(4)).unwrap();
    assert_eq!(read.heads().count(), 11);
    assert_eq!(read.find(ObjectHash(7)).unwrap().payload, [7; 300]);
    assert_eq!(read.find(ObjectHash(11)), None);

    let mut large = PacketBuilder::new();
    assert!(large.push(head_label(1), &[1; 9000]));
    assert!(!large.push(head_label(2), b"x"), "a large one is alone");
    assert_eq!(large.granules(), 3);
    let bytes = large.encode(&spot(4));
    let short = Record::decode(&bytes.bytes()[..4096], &spot(4));
    let Err(FormatError::Short { needs_bytes }) = short else { panic!("{short:?}") };
    assert!(Record::decode(&bytes.bytes()[..needs_bytes], &spot(4)).is_ok());
    assert!(!PacketBuilder::new().push(head_label(1), &vec![0; MIB as usize]));
}

#[test]
fn of_two_heads_of_one_object_the_later_counts() {
    let mut packet = PacketBuilder::new();
    for (sequence, payload) in [(5, b"new".as_slice()), (4, b"old"), (6, b"")] {
        assert!(packet.push(HeadLabel { sequence, ..head_label(1) }, payload));
    }
    let bytes = packet.encode(&spot(4));
    let read = Packet::decode(bytes.bytes(), &spot(4)).unwrap();
    assert!(read.find(ObjectHash(1)).unwrap().is_tombstone());
}

#[test]
fn a_small_body_lies_with_its_head_and_is_checked() {
    let with = |payload: &[u8], body: &[u8]| {
        PacketBuilder::with_body(head_label(1), payload, version(), body)
    };
    assert!(with(b"", b"body").is_none());
    assert!(with(b"head", b"").is_none());
    assert!(with(b"head", &[0; 65_537]).is_none());
    let bytes = with(b"head", &[5; 65_536]).unwrap().encode(&spot(1));
    assert_eq!(bytes.bytes().len(), 17 * 4096);
    let mut bytes = bytes.bytes().to_vec();
    let read = Packet::decode(&bytes, &spot(1)).unwrap();
    let body = read.body().unwrap();
    assert_eq!((body.version, body.bytes), (version(), [5; 65_536].as_slice()));
    bytes[9999] = 6;
    frame::reseal(&mut bytes);
    let read = Packet::decode(&bytes, &spot(1));
    assert_eq!(read, Err(FormatError::Checksum { piece: 0 }), "it has a checksum of its own");
}

#[test]
fn a_footer_is_found_from_the_end_of_its_region() {
    let mut foot = footer();
    foot.entries = vec![foot.entries[0]; 200];
    assert_eq!(foot.granules(), 3);
    let granules = geometry().region_granules();
    let bytes = foot.encode(&spot(granules - 3));
    let last = spot(granules - 1);
    let short = Footer::decode(&bytes.bytes()[8192..], &last);
    assert_eq!(short, Err(FormatError::Short { needs_bytes: 3 * 4096 }));
    let whole = [&[7; 4096], bytes.bytes()].concat();
    assert_eq!(Footer::decode(&whole, &last), Ok(foot));
    assert_eq!(Footer::decode(&[0; 4096], &last), Err(FormatError::NotAVolume));
    assert_eq!(Footer::decode(&[1; 4096], &last), Err(FormatError::Foreign));
}

#[test]
fn a_piece_is_verified_as_what_and_whose_it_is() {
    let header = block_header();
    assert_eq!((header.granules(), header.length_bytes()), (19, 70_536));
    assert_eq!(header.piece(1), Some(0..65_536));
    assert_eq!(header.piece(3), Some(65_536..70_536));
    assert_eq!((header.piece(0), header.piece(16)), (None, None));
    assert_eq!(header.verify_piece(1, &[1; 65_536]), Ok(()));
    assert_eq!(header.verify_piece(3, &[2; 5000]), Ok(()));
    for (piece, bytes) in [
        (1, vec![2; 65_536]),
        (3, vec![2; 4999]),
        (3, vec![1; 5000]),
        (0, vec![1; 65_536]),
        (40, vec![]),
    ] {
        let found = header.verify_piece(piece, &bytes);
        assert_eq!(found, Err(FormatError::Checksum { piece }), "{piece}");
    }
    let same = |a, b, bytes: &[u8]| piece_checksum(a, 0, bytes) == piece_checksum(b, 0, bytes);
    assert!(!same(block(1), block(2), b"bytes"));
    assert_ne!(piece_checksum(block(1), 1, b"bytes"), piece_checksum(block(1), 2, b"bytes"));
    assert_ne!(piece_checksum(block(1), 1, &[0; 5]), piece_checksum(block(1), 1, &[0; 6]));
}

#[test]
fn a_block_record_has_the_bytes_of_its_map() {
    let new = |pieces, lengths: &[usize]| {
        let parts: Vec<_> = lengths.iter().map(|length| Bytes::from(vec![1; *length])).collect();
        BlockHeader::new(block_label(), PieceMap(pieces), &parts).is_some()
    };
    assert!(new(0xffff, &[1 << 20]));
    assert!(new(0b111, &[131_072, 1]));
    assert!(new(0b111, &[65_536, 65_536 + 4097]));
    for (pieces, lengths) in [
        (0, [0].as_slice()),
        (0, &[65_536]),
        (0b1, &[0]),
        (0b1, &[65_537]),
        (0b11, &[65_536]),
        (0b111, &[65_535, 65_537]),
        (0b111, &[1, 65_536, 65_536]),
    ] {
        assert!(!new(pieces, lengths), "{pieces:b} {lengths:?}");
    }
}

#[test]
fn a_section_is_told_from_one_of_another_checkpoint() {
    let sum = |volume, sequence, kind, bytes: &[u8]| {
        let mut sum = SectionSum::new(volume, sequence, kind);
        bytes.chunks(7).for_each(|bytes| sum.update(bytes));
        sum.checksum()
    };
    let bytes = [3; 100];
    let right = sum(VOLUME, 1, SectionKind::Index, &bytes);
    let mut whole = SectionSum::new(VOLUME, 1, SectionKind::Index);
    whole.update(&bytes);
    assert_eq!(whole.checksum(), right);
    assert_ne!(sum(VolumeId(1), 1, SectionKind::Index, &bytes), right);
    assert_ne!(sum(VOLUME, 2, SectionKind::Index, &bytes), right);
    assert_ne!(sum(VOLUME, 1, SectionKind::Extra, &bytes), right);
    assert_ne!(sum(VOLUME, 1, SectionKind::Index, &bytes[1..]), right);
}

prop_compose! {
    fn labels()(
        object: u128, site: u64, sequence: u64, birth: u64, index: u32, epoch: u64,
        counter in 1u64.., planned: bool,
    ) -> (BlockLabel, HeadLabel) {
        let bytes = [epoch.to_le_bytes(), counter.to_le_bytes()].concat();
        let version = VersionId::from_bytes(bytes.try_into().unwrap()).unwrap();
        let (object, site) = (ObjectHash(object), SiteHash(site));
        let filled_for = if planned { FilledFor::Planned } else { FilledFor::Demand };
        let block = BlockKey { version, index };
        (
            BlockLabel { object, site, block, birth, sequence, filled_for },
            HeadLabel { object, site, sequence, birth },
        )
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn records_are_read_as_they_were_written(
        (label, head) in labels(),
        pieces in 1u16..,
        short in 0usize..65_536,
        payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..9),
        small in prop::option::of(prop::collection::vec(any::<u8>(), 1..20_000)),
        granule in 1u32..200,
    ) {
        let spot = spot(granule);
        let pieces = PieceMap(pieces);
        let parts = [Bytes::from(vec![9; pieces.count() as usize * 65_536 - short])];
        let header = BlockHeader::new(label, pieces, &parts).unwrap();
        let read = BlockHeader::decode(header.encode(&spot).bytes(), &spot);
        prop_assert_eq!(&read, &Ok(header.clone()));
        for piece in 0..16 {
            if let Some(range) = header.piece(piece) {
                prop_assert_eq!(header.verify_piece(piece, &parts[0][range]), Ok(()));
            }
        }

        let mut packet = PacketBuilder::new();
        let fits = |payload: &&Vec<u8>| packet.push(head, payload);
        let written: Vec<_> = payloads.iter().filter(fits).collect();
        let bytes = packet.encode(&spot);
        let Ok(Record::Heads(read)) = Record::decode(bytes.bytes(), &spot) else {
            panic!("a packet");
        };
        prop_assert_eq!(read.granules(), packet.granules());
        let found: Vec<_> = read.heads().map(|head| (head.label, head.payload)).collect();
        let written: Vec<_> = written.into_iter().map(|p| (head, p.as_slice())).collect();
        prop_assert_eq!(found, written);

        if let Some(body) = small {
            let version = label.block.version;
            let packet = PacketBuilder::with_body(head, b"head", version, &body).unwrap();
            let bytes = packet.encode(&spot);
            let read = Packet::decode(bytes.bytes(), &spot).unwrap();
            prop_assert_eq!(read.body(), Some(Body { version, bytes: &body }));
            prop_assert_eq!(read.find(head.object).unwrap().payload, b"head");
        }
    }

    #[test]
    fn no_bytes_panic(
        which in 0usize..8,
        edits in prop::collection::vec((0usize..200, any::<u8>()), 1..8),
        cut in 0usize..9000,
    ) {
        let (_, granules, decode) = specimens().swap_remove(which);
        let mut bytes = granules.bytes().to_vec();
        for (at, byte) in edits {
            bytes[at] = byte;
        }
        let _ = decode(&bytes);
        frame::reseal(&mut bytes);
        let _ = decode(&bytes);
        bytes.truncate(cut);
        let _ = decode(&bytes);
        let _ = Record::decode(&bytes, &spot(1));
    }
}
