//! What the fuzz targets of `fuzz/` run: any bytes go in, no panic and no broken promise comes out.
//!
//! Bytes are tried as they are, and as a frame with the right address and checksum: a fuzzer can
//! not guess those. Here so that the seeds can be replayed by ordinary tests too.

use crate::object::BlockSize;

use super::frame::{self, GRANULE, HEAD_BYTES, kind};
use super::{
    BlockHeader, CheckpointHeader, Footer, FormatError, Geometry, Packet, PacketBuilder, PageCopy,
    Record, SectionKind, Spot, Superblock, TablePage, VolumeId,
};

const VOLUME: VolumeId = VolumeId(7);

fn geometry() -> Geometry {
    Geometry::new(16 << 20, 2 << 20, BlockSize::MAX, 1000).expect("a small volume")
}

fn spot(granule: u32) -> Spot {
    geometry().spot(VOLUME, 1, granule, 5).expect("a granule of the second region")
}

/// `bytes` as a frame of `kind` that belongs to `place`, of generation 5.
fn framed(bytes: &[u8], kind: u16, place: u64) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().max(HEAD_BYTES), 0);
    bytes[20..22].copy_from_slice(&kind.to_le_bytes());
    bytes[24..40].copy_from_slice(&VOLUME.0.to_le_bytes());
    bytes[40..48].copy_from_slice(&place.to_le_bytes());
    bytes[48..56].copy_from_slice(&5u64.to_le_bytes());
    frame::reseal(&mut bytes);
    bytes
}

/// A superblock that is believed describes a volume that there can be.
pub fn superblock(bytes: &[u8]) {
    let _ = Superblock::choose::<FormatError>(&[(0, bytes)], None, u64::MAX);
    let Ok(found) = Superblock::decode(&framed(bytes, kind::SUPERBLOCK, 0), 0) else { return };
    let geometry = found.geometry();
    let last = geometry.region(geometry.regions() - 1).expect("there is a last region");
    assert!(geometry.table().end <= geometry.checkpoint(0).start);
    assert!(geometry.checkpoint(1).end <= last.start && last.end < geometry.volume_bytes());
    let again = Superblock::decode(found.encode(0).bytes(), 0);
    assert_eq!(again, Ok(found));
}

/// A page of the region table that is believed tells of each of its regions.
pub fn table_page(bytes: &[u8]) {
    let geometry = geometry();
    let place = TablePage::place(&geometry, 0, PageCopy::A);
    let read = |bytes: &[u8]| TablePage::decode(bytes, VOLUME, &geometry, 0, PageCopy::A);
    let _ = read(bytes);
    let Ok(found) = read(&framed(bytes, kind::TABLE_PAGE, place)) else { return };
    assert_eq!(found.entries().len(), geometry.regions() as usize);
    assert_eq!(read(found.encode(VOLUME, place).bytes()), Ok(found));
}

/// A record that is believed lies in its region, and its pieces in the record.
pub fn block_record(bytes: &[u8]) {
    let spot = spot(1);
    let unknown = bytes.first().copied().unwrap_or(0);
    for kind in [kind::BLOCK, u16::from(unknown)] {
        let bytes = framed(bytes, kind, 1 << 32 | 1);
        match Record::decode(&bytes, &spot) {
            Ok(record) => assert!((1..=spot.room()).contains(&record.granules())),
            Err(FormatError::Short { needs_bytes }) => {
                assert!(needs_bytes > bytes.len());
                assert!(needs_bytes <= spot.room() as usize * GRANULE);
            }
            Err(_) => {}
        }
    }
    let _ = Record::decode(bytes, &spot);
    let bytes = framed(bytes, kind::BLOCK, 1 << 32 | 1);
    let Ok(found) = BlockHeader::decode(&bytes, &spot) else { return };
    let mut end = 0;
    for range in (0..16).filter_map(|piece| found.piece(piece)) {
        assert!(range.start == end && !range.is_empty());
        end = range.end;
    }
    assert_eq!(end, found.length_bytes());
    assert_eq!(BlockHeader::decode(found.encode(&spot).bytes(), &spot), Ok(found));
}

/// A packet that is believed has the heads it counts, and can be written again.
pub fn head_packet(bytes: &[u8]) {
    let spot = spot(1);
    let _ = Packet::decode(bytes, &spot);
    let bytes = framed(bytes, kind::PACKET, 1 << 32 | 1);
    let Ok(found) = Packet::decode(&bytes, &spot) else { return };
    let heads: Vec<_> = found.heads().collect();
    let first = heads.first().expect("a packet tells of one object at least");
    assert!(found.find(first.label.object).is_some());
    let Some(body) = found.body() else {
        assert!(heads.len() == 1 || found.granules() == 1);
        return;
    };
    assert!(heads.len() == 1 && !first.is_tombstone());
    let (version, payload) = (body.version, first.payload);
    let again = PacketBuilder::with_body(first.label, payload, version, body.bytes);
    let again = again.expect("what was read can be written").encode(&spot);
    let again = Packet::decode(again.bytes(), &spot).expect("what was written can be read");
    assert_eq!((again.body(), again.heads().collect()), (Some(body), heads));
}

/// A footer that is believed tells of records in front of it, and can be written again.
pub fn footer(bytes: &[u8]) {
    let end = geometry().region_granules();
    let _ = Footer::decode(bytes, &spot(end - 1));
    let granules = (bytes.len() + 16).div_ceil(GRANULE).clamp(1, 100);
    let mut tail = bytes.to_vec();
    tail.resize(granules * GRANULE, 0);
    let length = tail.len();
    tail[16..20].copy_from_slice(&(length as u32).to_le_bytes());
    tail[56..60].copy_from_slice(&(granules as u32).to_le_bytes());
    tail[length - 16..length - 8].copy_from_slice(b"TIDEFOOT");
    tail[length - 8..length - 4].copy_from_slice(&(granules as u32).to_le_bytes());
    tail[length - 4..].copy_from_slice(&(!granules as u32).to_le_bytes());
    let first = end - granules as u32;
    let tail = framed(&tail, kind::FOOTER, 1 << 32 | u64::from(first));
    let Ok(found) = Footer::decode(&tail, &spot(end - 1)) else { return };
    for entry in &found.entries {
        assert!(entry.granule > 0 && entry.granule + entry.granules <= first);
    }
    let again = found.encode(&spot(end - found.granules()));
    assert_eq!(Footer::decode(again.bytes(), &spot(end - 1)), Ok(found));
}

/// A checkpoint that is believed has its sections in its slot, one after the other.
pub fn checkpoint(bytes: &[u8]) {
    let geometry = geometry();
    let slot = geometry.checkpoint(0);
    let read = |bytes: &[u8]| CheckpointHeader::decode(bytes, VOLUME, &geometry, 0);
    let _ = read(bytes);
    let Ok(found) = read(&framed(bytes, kind::CHECKPOINT, slot.start)) else { return };
    let kinds = [SectionKind::Regions, SectionKind::Index, SectionKind::Extra];
    let mut places: Vec<_> =
        kinds.iter().filter_map(|kind| found.section(*kind)).map(|s| s.place.clone()).collect();
    places.sort_by_key(|place| (place.start, place.end));
    assert!(places.iter().all(|place| place.start >= GRANULE as u64));
    assert!(places.windows(2).all(|pair| pair[0].end <= pair[1].start));
    assert!(places.iter().all(|place| place.end <= slot.end - slot.start));
    assert!(read(found.encode(VOLUME, &geometry, 0).bytes()).is_ok());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::fuzz::tests::seeds;

    type Run = fn(&[u8]);
    type Target = (&'static str, Run);

    const TARGETS: [Target; 6] = [
        ("superblock", superblock),
        ("table_page", table_page),
        ("block_record", block_record),
        ("head_packet", head_packet),
        ("footer", footer),
        ("checkpoint", checkpoint),
    ];

    fn seeds_of_all() -> Vec<(Run, Vec<u8>)> {
        let of = |(name, run): Target| seeds(name, 3).into_iter().map(move |seed| (run, seed));
        TARGETS.into_iter().flat_map(of).collect()
    }

    #[test]
    fn the_seeds_of_every_target_keep_its_promises() {
        for (target, seed) in seeds_of_all() {
            target(&seed);
        }
    }

    #[test]
    fn changed_seeds_break_no_promise() {
        let seeds = seeds_of_all();
        let edits = prop::collection::vec((0usize..400, any::<u8>()), 0..6);
        let which = (0..seeds.len(), edits, 0usize..4096);
        proptest!(|((seed, edits, length) in which)| {
            let (target, mut bytes) = seeds[seed].clone();
            for (at, byte) in edits {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            target(&bytes);
            bytes.truncate(length);
            target(&bytes);
        });
    }
}
