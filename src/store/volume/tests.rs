//! A volume over a simulated device: what is appended, read, given up, lost and found again.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout};

use super::reclaim::Late;
use super::*;
use crate::object::{BlockSize, VersionId};
use crate::store::SiteHash;
use crate::store::device::{Buffer, Device, Faults, Granules, Image, Share, Simulated, Simulation};
use crate::store::format::{FilledFor, PageCopy, TablePage};

const PIECE: usize = PIECE_SIZE_BYTES as usize;
const MIB: u64 = 1 << 20;
const VOLUME: VolumeId = VolumeId(0x1234_5678_9abc_def0_1122_3344_5566_7788);

fn device(size_bytes: u64, seed: u64) -> Arc<Simulated> {
    Arc::new(Simulated::new(&Simulation { size_bytes, seed, faults: Faults::default() }))
}

fn disk(device: &Arc<Simulated>) -> Disk {
    Disk::new(Arc::clone(device) as Arc<dyn Device>)
}

fn after_crash(device: &Simulated, seed: u64) -> Arc<Simulated> {
    Arc::new(Simulated::from_image(device.crash(), seed, Faults::default()))
}

fn after_kill(device: &Simulated, seed: u64) -> Arc<Simulated> {
    let image: Image = device.image();
    Arc::new(Simulated::from_image(image, seed, Faults::default()))
}

fn settings() -> VolumeSettings {
    VolumeSettings { checkpoint_interval: Duration::from_secs(3600), ..Default::default() }
}

/// Regions of 2 MiB, so that a whole block takes half of one.
async fn formatted(device: &Arc<Simulated>) {
    let size = device.size_bytes();
    let geometry = Geometry::new(size, 2 * MIB, BlockSize::MAX, 4_000).unwrap();
    Volume::format(&disk(device), geometry, VOLUME).await.unwrap();
}

async fn opened(device: &Arc<Simulated>) -> Arc<Volume> {
    Volume::open(disk(device), settings()).await.unwrap()
}

async fn fresh(size_mib: u64) -> (Arc<Simulated>, Arc<Volume>) {
    let device = device(size_mib * MIB, 7);
    formatted(&device).await;
    let volume = opened(&device).await;
    (device, volume)
}

fn version(n: u64) -> VersionId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&77u64.to_le_bytes());
    bytes[8..].copy_from_slice(&(n + 1).to_le_bytes());
    VersionId::from_bytes(bytes).unwrap()
}

fn block(n: u64) -> BlockKey {
    BlockKey { version: version(n), index: (n % 3) as u32 }
}

/// What piece `piece` of block `n` holds.
fn piece_bytes(n: u64, piece: u32, length: usize) -> Vec<u8> {
    let seed = n.wrapping_mul(0x9E37_79B9).wrapping_add(u64::from(piece) * 977);
    // Of a length that no size here is a multiple of.
    let unit: Vec<u8> = (0..251).map(|at| (seed.wrapping_add(at * 31) >> 3) as u8).collect();
    let mut bytes = unit.repeat(length / unit.len() + 1);
    bytes.truncate(length);
    bytes
}

fn write_of(n: u64, pieces: PieceMap, last_length: usize) -> BlockWrite {
    let held: Vec<u32> = (0..16).filter(|piece| pieces.holds(*piece)).collect();
    let last = *held.last().unwrap();
    let length = |piece| if piece == last { last_length } else { PIECE };
    let parts =
        held.iter().map(|piece| Bytes::from(piece_bytes(n, *piece, length(*piece)))).collect();
    BlockWrite {
        object: ObjectHash(u128::from(n)),
        site: SiteHash(1),
        block: block(n),
        birth: 5,
        pieces,
        parts,
        filled_for: FilledFor::Demand,
        guard: Box::new(()),
    }
}

/// Appends and waits until it is over: whether it is held then.
async fn append(volume: &Volume, mut write: BlockWrite) -> bool {
    let (block, pieces) = (write.block, write.pieces);
    let (guard, over) = tokio::sync::oneshot::channel::<()>();
    write.guard = Box::new(guard);
    if volume.append_block(write).is_err() {
        return false;
    }
    over.await.expect_err("a guard is only dropped");
    volume.held(block).union(pieces) == volume.held(block)
}

async fn append_whole(volume: &Volume, n: u64) {
    assert!(append(volume, write_of(n, PieceMap::run(0, 16), PIECE)).await);
}

async fn read(
    volume: &Volume,
    n: u64,
    first: u32,
    count: u32,
) -> Result<(Vec<u8>, u32), ReadError> {
    let into = Box::new(Granules::zeroed(count as usize * 16));
    let read = volume.read(block(n), Pieces { first, count }, into, Urgency::Viewer).await?;
    let lent: Box<dyn Any> = read.lent;
    let granules = lent.downcast::<Granules>().expect("what was lent comes back");
    Ok((granules.bytes()[..read.bytes].to_vec(), read.pieces))
}

/// Whether block `n` is here whole; a miss is a `false`, wrong bytes are a panic.
async fn reads_whole(volume: &Volume, n: u64) -> bool {
    match read(volume, n, 0, 16).await {
        Ok((bytes, 16)) => {
            let expected: Vec<u8> = (0..16).flat_map(|p| piece_bytes(n, p, PIECE)).collect();
            assert!(bytes == expected, "block {n} is not what was written");
            true
        }
        Ok((_, pieces)) => panic!("{pieces} pieces of a whole record"),
        Err(_) => false,
    }
}

fn head_of(n: u64, payload: &str) -> HeadWrite {
    HeadWrite {
        object: ObjectHash(u128::from(n)),
        site: SiteHash(1),
        birth: 9,
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        body: None,
        guard: Box::new(()),
    }
}

async fn payload(volume: &Volume, n: u64) -> Option<String> {
    let found = volume.read_head(ObjectHash(u128::from(n)), Urgency::Viewer).await.unwrap();
    found.map(|head| String::from_utf8(head.payload.to_vec()).unwrap())
}

/// Long enough for heads that wait for others.
async fn settled(volume: &Volume) {
    while volume.figures().queue_bytes > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_appended_is_read_back_and_outlives_a_clean_close() {
    let (device, volume) = fresh(32).await;
    append_whole(&volume, 1).await;
    assert!(append(&volume, write_of(2, PieceMap(0b0111), 100)).await);
    assert!(append(&volume, write_of(2, PieceMap(0b1100_0000), PIECE)).await);
    volume.append_head(head_of(1, "head one")).unwrap();
    let body = SmallBody { version: version(3), bytes: Bytes::from(vec![3; 5000]) };
    volume.append_head(HeadWrite { body: Some(body.clone()), ..head_of(3, "three") }).unwrap();
    assert!(volume.holds_head(ObjectHash(1)), "from memory, before it is written");
    assert_eq!(payload(&volume, 1).await.as_deref(), Some("head one"));

    volume.close().await;
    assert_eq!(volume.append_head(head_of(9, "late")), Err(Refused::Offline));
    let volume = opened(&after_crash(&device, 8)).await;

    assert_eq!(volume.held(block(2)), PieceMap(0b1100_0111));
    assert!(reads_whole(&volume, 1).await);
    let (bytes, pieces) = read(&volume, 2, 1, 8).await.unwrap();
    assert_eq!((bytes.len(), pieces), (PIECE + 100, 2));
    assert_eq!(bytes[PIECE..], piece_bytes(2, 2, 100));
    assert_eq!(read(&volume, 2, 6, 2).await.unwrap().1, 2);
    assert!(matches!(read(&volume, 2, 3, 1).await, Err(ReadError::Absent)));
    assert_eq!(payload(&volume, 1).await.as_deref(), Some("head one"));
    let found = volume.read_head(ObjectHash(3), Urgency::Viewer).await.unwrap().unwrap();
    assert_eq!((found.body, found.trust, found.birth), (Some(body), Trust::Newest, 9));
    assert!(!volume.holds_head(ObjectHash(2)));
    assert_eq!(volume.figures().recovered.loaded, 5);
    volume.close().await;
}

#[tokio::test(start_paused = true)]
async fn after_a_kill_everything_that_was_written_is_there() {
    let (device, volume) = fresh(32).await;
    for n in 0..7 {
        append_whole(&volume, n).await;
        volume.append_head(head_of(n, &format!("head {n}"))).unwrap();
    }
    settled(&volume).await;

    let again = opened(&after_kill(&device, 1)).await;

    for n in 0..7 {
        assert!(reads_whole(&again, n).await, "{n}");
        assert_eq!(payload(&again, n).await, Some(format!("head {n}")));
    }
    let recovered = again.figures().recovered;
    assert!(recovered.footers >= 2 && recovered.scanned == 1, "{recovered:?}");
    assert!(!recovered.heads_in_doubt);
}

#[tokio::test(start_paused = true)]
async fn a_region_that_was_open_is_never_appended_to_again() {
    let (device, volume) = fresh(32).await;
    assert!(append(&volume, write_of(1, PieceMap(1), PIECE)).await);
    let device = after_kill(&device, 1);
    let again = opened(&device).await;
    assert_eq!(again.figures().regions_sealed, 1);
    assert!(append(&again, write_of(2, PieceMap(1), PIECE)).await);
    let location = |n| again.core.index().blocks_of(again.core.block_key(block(n)))[0].location;
    assert_ne!(location(1).region, location(2).region);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_fails_is_not_found_and_makes_the_volume_read_only() {
    let (device, volume) = fresh(32).await;
    append_whole(&volume, 1).await;
    device.set_faults(Faults { fail_writes: Share::ALL, ..Default::default() });
    assert!(!append(&volume, write_of(2, PieceMap(1), PIECE)).await);
    assert_eq!(volume.figures().write_errors, 1);
    assert_eq!(volume.held(block(2)), PieceMap::default());
    assert_eq!(volume.state().label(), "read-only");
    assert!(reads_whole(&volume, 1).await);
    let refused = volume.append_block(write_of(3, PieceMap(1), PIECE));
    assert_eq!(refused, Err(Refused::ReadOnly));
    volume.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_region_in_which_a_write_failed_is_read_record_by_record() {
    let (device, volume) = fresh(32).await;
    append_whole(&volume, 1).await;
    let latency_max = Duration::from_millis(20);
    device.set_faults(Faults { fail_writes: Share::ALL, latency_max, ..Default::default() });
    volume.append_block(write_of(2, PieceMap(1), PIECE)).unwrap();
    sleep(Duration::from_micros(1)).await;
    // That one is under way when its region has no room for the next, and is to be sealed.
    device.set_faults(Faults::default());
    volume.append_block(write_of(3, PieceMap(u16::MAX), PIECE)).unwrap();
    settled(&volume).await;
    assert_eq!(volume.state().label(), "read-only");
    volume.close().await;
    let again = opened(&device).await;
    let found = again.figures().recovered;
    assert_eq!((found.footers, found.scanned), (0, 1), "{found:?}");
    assert!(reads_whole(&again, 1).await);
    again.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_block_that_is_forgotten_on_its_way_is_never_found() {
    let (device, volume) = fresh(32).await;
    assert!(append(&volume, write_of(9, PieceMap(1), PIECE)).await);
    device.set_faults(Faults { stall_writes: Duration::from_secs(1), ..Faults::default() });
    for is_under_way in [false, true] {
        volume.append_block(write_of(1, PieceMap(1), PIECE)).unwrap();
        while is_under_way && device.figures().depth == 0 {
            tokio::task::yield_now().await;
        }
        volume.forget_block(block(1));
        settled(&volume).await;
        assert_eq!(volume.held(block(1)), PieceMap::default(), "under way: {is_under_way}");
    }
    volume.append_block(write_of(2, PieceMap(1), PIECE)).unwrap();
    volume.forget_block(block(2));
    assert!(append(&volume, write_of(2, PieceMap(0b11), PIECE)).await);
    settled(&volume).await;
    assert_eq!(volume.held(block(2)), PieceMap(0b11), "what came after it was asked for");
    volume.close().await;
    let again = opened(&after_crash(&device, 8)).await;
    assert_eq!(again.held(block(1)), PieceMap::default(), "and not after a clean end either");
    assert_eq!(again.held(block(2)), PieceMap(0b11));
}

#[tokio::test(start_paused = true)]
async fn a_record_of_another_key_is_a_miss_and_no_fault_of_the_volume() {
    let (_device, volume) = fresh(32).await;
    assert!(append(&volume, write_of(1, PieceMap(1), PIECE)).await);
    volume.append_head(head_of(1, "its own")).unwrap();
    settled(&volume).await;
    // As if the index could not tell the second from the first.
    let core = &volume.core;
    let of_first = core.index().blocks_of(core.block_key(block(1)))[0];
    core.ledger.insert(core.block_key(block(2)), of_first).unwrap();
    let head_of_first = core.index().head(core.head_key(ObjectHash(1))).unwrap();
    core.ledger.insert(core.head_key(ObjectHash(2)), head_of_first).unwrap();
    for _ in 0..20 {
        assert!(matches!(read(&volume, 2, 0, 1).await, Err(ReadError::Absent)));
        assert_eq!(payload(&volume, 2).await, None);
    }
    let figures = volume.figures();
    assert_eq!((figures.of_another, figures.mismatches, figures.read_errors), (40, 0, 0));
    assert_eq!(volume.state(), State::Online, "twenty faults would have made it read-only");
    assert_eq!(read(&volume, 1, 0, 1).await.unwrap().0, piece_bytes(1, 0, PIECE));
    assert_eq!(payload(&volume, 1).await.as_deref(), Some("its own"));
}

#[tokio::test(start_paused = true)]
async fn a_head_never_goes_back_to_an_older_one() {
    let (device, volume) = fresh(32).await;
    for round in 0..40 {
        volume.append_head(head_of(1, &format!("round {round}"))).unwrap();
        assert_eq!(payload(&volume, 1).await, Some(format!("round {round}")));
        if round % 3 == 0 {
            settled(&volume).await;
            assert_eq!(payload(&volume, 1).await, Some(format!("round {round}")));
        }
        if round == 20 {
            volume.checkpoint().await;
        }
    }
    settled(&volume).await;
    let again = opened(&after_kill(&device, 3)).await;
    assert_eq!(payload(&again, 1).await.as_deref(), Some("round 39"));
    again.forget_head(ObjectHash(1));
    assert_eq!(payload(&again, 1).await, None);
    settled(&again).await;
    volume.close().await;
}

#[tokio::test(start_paused = true)]
async fn the_newest_of_heads_that_waited_together_outlives_its_region() {
    let (device, volume) = fresh(32).await;
    volume.append_head(head_of(999, "newest")).unwrap();
    settled(&volume).await;
    let one = volume.figures().written.heads;
    for payload in ["old", "newer", "newest"] {
        volume.append_head(head_of(1_000, payload)).unwrap();
    }
    settled(&volume).await;
    assert_eq!(volume.figures().written.heads, 2 * one, "the others need not be written");
    for n in 0..60 {
        append_whole(&volume, n).await;
        assert!(volume.used_head(ObjectHash(1_000)));
    }
    assert!(volume.figures().regions_reclaimed > 20);
    assert_eq!(payload(&volume, 1_000).await.as_deref(), Some("newest"));
    let again = opened(&after_kill(&device, 4)).await;
    assert_eq!(payload(&again, 1_000).await.as_deref(), Some("newest"));
}

#[tokio::test(start_paused = true)]
async fn a_head_that_was_forgotten_stays_forgotten_after_a_kill() {
    let (device, volume) = fresh(32).await;
    for n in 0..3 {
        volume.append_head(head_of(n, "here")).unwrap();
    }
    settled(&volume).await;
    volume.checkpoint().await;
    volume.forget_head(ObjectHash(1));
    volume.append_head(head_of(2, "again")).unwrap();
    settled(&volume).await;
    let again = opened(&after_kill(&device, 3)).await;
    assert_eq!(payload(&again, 0).await.as_deref(), Some("here"));
    assert_eq!(payload(&again, 1).await, None);
    assert_eq!(payload(&again, 2).await.as_deref(), Some("again"));
}

#[tokio::test(start_paused = true)]
async fn heads_of_a_volume_that_was_away_are_to_be_revalidated_after_a_crash_too() {
    let trust = |volume: Arc<Volume>, n| async move {
        volume.read_head(ObjectHash(n), Urgency::Viewer).await.unwrap().unwrap().trust
    };
    let (device, volume) = fresh(32).await;
    volume.append_head(head_of(1, "before")).unwrap();
    settled(&volume).await;
    assert_eq!(trust(volume.clone(), 1).await, Trust::Newest);
    assert!(volume.doubt_heads().await);
    volume.append_head(head_of(2, "after")).unwrap();
    settled(&volume).await;
    assert_eq!(trust(volume.clone(), 1).await, Trust::MustRevalidate);
    assert_eq!(trust(volume.clone(), 2).await, Trust::Newest);
    let again = opened(&after_crash(&device, 8)).await;
    assert_eq!(trust(again, 1).await, Trust::MustRevalidate);
    device.set_faults(Faults { fail_writes: Share::ALL, ..Default::default() });
    assert!(!volume.doubt_heads().await, "it must not be believed the next time");
}

#[tokio::test(start_paused = true)]
async fn a_full_volume_gives_up_regions_and_keeps_what_is_used() {
    let (device, volume) = fresh(40).await;
    for n in 0..120 {
        append_whole(&volume, n).await;
        volume.append_head(head_of(n, &format!("head {n}"))).unwrap();
        for hot in 0..3 {
            volume.used(block(hot));
        }
    }
    settled(&volume).await;
    let figures = volume.figures();
    assert!(figures.regions_reclaimed > 30, "{figures:?}");
    for hot in 0..3 {
        assert!(reads_whole(&volume, hot).await, "{hot}");
    }
    assert!(reads_whole(&volume, 119).await);
    assert_eq!(payload(&volume, 119).await.as_deref(), Some("head 119"));
    let mut held = 0;
    for n in 0..120 {
        held += u32::from(reads_whole(&volume, n).await);
    }
    assert!(held >= 8, "{held} blocks of {figures:?}");
    assert_eq!(volume.figures().mismatches, 0);

    let again = opened(&after_kill(&device, 9)).await;
    for n in 0..120 {
        assert_eq!(reads_whole(&again, n).await, reads_whole(&volume, n).await, "{n}");
        assert_eq!(payload(&again, n).await, payload(&volume, n).await, "{n}");
    }
    assert_eq!(again.figures().mismatches, 0);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_refuses_at_once() {
    let (device, volume) = fresh(200).await;
    device.set_faults(Faults { stall_writes: Duration::from_secs(5), ..Default::default() });
    let guards = Arc::new(AtomicUsize::new(0));
    struct Guard(Arc<AtomicUsize>);
    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
    let mut taken = 0;
    let refused = loop {
        guards.fetch_add(1, Ordering::Relaxed);
        let guard = Box::new(Guard(Arc::clone(&guards)));
        let write = BlockWrite { guard, ..write_of(taken, PieceMap::run(0, 16), PIECE) };
        match volume.append_block(write) {
            Ok(()) => taken += 1,
            Err(refused) => break refused,
        }
    };
    assert_eq!((refused, taken), (Refused::QueueFull, 63));
    assert_eq!(guards.load(Ordering::Relaxed), 63, "what was refused is not held");
    assert_eq!(volume.held(block(0)), PieceMap::default(), "found only when it is written");
    settled(&volume).await;
    assert_eq!(guards.load(Ordering::Relaxed), 0);
    assert!(reads_whole(&volume, 62).await);
}

#[tokio::test(start_paused = true)]
async fn a_full_index_refuses_and_gives_up_a_region_for_its_entries() {
    let device = device(64 * MIB, 7);
    let geometry = Geometry::new(64 * MIB, 2 * MIB, BlockSize::MAX, 20).unwrap();
    Volume::format(&disk(&device), geometry, VOLUME).await.unwrap();
    let volume = opened(&device).await;
    let (mut taken, mut refused) = (0, 0);
    for n in 0..400 {
        match append(&volume, write_of(n, PieceMap(0b11), PIECE)).await {
            true => taken += 1,
            false => refused += 1,
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(refused > 0 && taken > 200, "{taken} taken, {refused} refused");
    assert_eq!(volume.figures().refused, [0, refused, 0, 0, 0], "for that and nothing else");
    assert!(volume.figures().blocks <= 25);
    assert_eq!(volume.state(), State::Online);
}

#[tokio::test(start_paused = true)]
async fn a_read_that_takes_too_long_is_given_up() {
    let (device, volume) = fresh(32).await;
    append_whole(&volume, 1).await;
    device.set_faults(Faults { stall_reads: Duration::from_secs(9), ..Default::default() });
    let began = tokio::time::Instant::now();
    assert!(matches!(read(&volume, 1, 0, 16).await, Err(ReadError::Late)));
    assert_eq!(began.elapsed().as_secs(), 2);
    device.set_faults(Faults::default());
    assert!(reads_whole(&volume, 1).await, "late is not lost");
}

#[tokio::test(start_paused = true)]
async fn eight_failed_reads_end_writing_and_the_rest_is_still_read() {
    let (device, volume) = fresh(64).await;
    for n in 0..12 {
        append_whole(&volume, n).await;
    }
    device.set_faults(Faults { fail_reads: Share::ALL, ..Default::default() });
    for n in 0..8 {
        assert_eq!(volume.state(), State::Online);
        assert!(matches!(read(&volume, n, 0, 16).await, Err(ReadError::Failed(_))));
        assert_eq!(volume.held(block(n)), PieceMap::default(), "it is forgotten");
    }
    assert_eq!(volume.state().label(), "read-only");
    device.set_faults(Faults::default());
    assert!(reads_whole(&volume, 11).await);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_is_gone_makes_a_volume_that_is_offline() {
    let (device, volume) = fresh(32).await;
    append_whole(&volume, 1).await;
    device.set_faults(Faults { vanish_after: Some(0), ..Default::default() });
    assert!(read(&volume, 1, 0, 1).await.is_err());
    assert_eq!(volume.state().label(), "offline");
    assert!(matches!(read(&volume, 1, 0, 1).await, Err(ReadError::Offline)));
    volume.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_damaged_is_dropped_and_counted_and_never_served() {
    let device = device(48 * MIB, 5);
    formatted(&device).await;
    let volume = opened(&device).await;
    device.set_faults(Faults { flip_writes: Share::millionths(400_000), ..Default::default() });
    for n in 0..14 {
        let _ = append(&volume, write_of(n, PieceMap::run(0, 16), PIECE)).await;
    }
    device.set_faults(Faults::default());
    let mut lost = 0;
    for n in 0..14 {
        let held = volume.held(block(n)) != PieceMap::default();
        let reads = reads_whole(&volume, n).await;
        lost += u64::from(held && !reads);
    }
    assert!(lost > 0, "some bit was wrong");
    assert_eq!(volume.figures().mismatches, lost);
}

#[tokio::test(start_paused = true)]
async fn with_both_checkpoints_lost_heads_must_be_revalidated() {
    let (device, volume) = fresh(32).await;
    append_whole(&volume, 1).await;
    volume.append_head(head_of(1, "one")).unwrap();
    settled(&volume).await;
    volume.close().await;
    let disk = disk(&device);
    for slot in 0..2 {
        let at = volume.geometry().checkpoint(slot).start;
        let from = vec![Buffer::Own(Granules::holding(&[1; 4096]))];
        disk.write(at, from, Urgency::Write).await.unwrap();
    }
    let again = opened(&device).await;
    assert!(again.figures().recovered.heads_in_doubt);
    assert!(reads_whole(&again, 1).await);
    let head = again.read_head(ObjectHash(1), Urgency::Viewer).await.unwrap().unwrap();
    assert_eq!((&head.payload[..], head.trust), (&b"one"[..], Trust::MustRevalidate));
    again.append_head(head_of(2, "two")).unwrap();
    settled(&again).await;
    // The first takes the place of one that was lost, the close that of the other.
    again.checkpoint().await;
    again.close().await;
    let again = opened(&device).await;
    let trust = |n| {
        let again = Arc::clone(&again);
        async move { again.read_head(ObjectHash(n), Urgency::Viewer).await.unwrap().unwrap().trust }
    };
    assert_eq!(trust(1).await, Trust::MustRevalidate, "this is remembered");
    assert_eq!(trust(2).await, Trust::Newest);
}

#[tokio::test(start_paused = true)]
async fn with_one_of_two_checkpoints_damaged_heads_must_be_revalidated() {
    for (slot, with) in [(0, 1), (1, 1), (0, 0), (1, 0)] {
        let (device, volume) = fresh(32).await;
        volume.append_head(head_of(1, "one")).unwrap();
        settled(&volume).await;
        volume.checkpoint().await;
        volume.close().await;
        assert!(!opened(&device).await.figures().recovered.heads_in_doubt);
        let at = volume.geometry().checkpoint(slot).start;
        let from = vec![Buffer::Own(Granules::holding(&[with; 4096]))];
        disk(&device).write(at, from, Urgency::Write).await.unwrap();
        let again = opened(&device).await;
        assert!(again.figures().recovered.heads_in_doubt, "it may have been the newer one");
        let head = again.read_head(ObjectHash(1), Urgency::Viewer).await.unwrap().unwrap();
        assert_eq!(head.trust, Trust::MustRevalidate);
    }
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_read_once_is_in_doubt_after_the_next_crash_too() {
    let (device, volume) = fresh(32).await;
    volume.append_head(head_of(1, "old")).unwrap();
    volume.close().await;
    let volume = opened(&device).await;
    volume.append_head(head_of(1, "new")).unwrap();
    settled(&volume).await;
    let mut doubts = 0;
    for seed in 0..400 {
        let sick = after_kill(&device, seed);
        let fail_reads = Share::millionths(300_000 + 300_000 * (seed % 2) as u32);
        sick.set_faults(Faults { fail_reads, ..Default::default() });
        // It seals what it could read, and dies.
        if Volume::open(disk(&sick), settings()).await.is_err() {
            continue;
        }
        let again = opened(&after_kill(&sick, seed)).await;
        let found = again.read_head(ObjectHash(1), Urgency::Viewer).await;
        if let Ok(Some(head)) = found
            && head.payload[..] == *b"old"
        {
            doubts += 1;
            assert_eq!(head.trust, Trust::MustRevalidate, "seed {seed}: the newer one was durable");
        }
    }
    assert!(doubts > 0, "the newer one was sometimes not read");
}

#[tokio::test(start_paused = true)]
async fn heads_of_a_volume_that_could_not_be_written_must_be_revalidated() {
    let (device, volume) = fresh(32).await;
    volume.append_head(head_of(1, "one")).unwrap();
    settled(&volume).await;
    volume.close().await;
    let again = opened(&device).await;
    again.worsen(&State::ReadOnly { why: "it failed before".to_owned() });
    let head = again.read_head(ObjectHash(1), Urgency::Viewer).await.unwrap().unwrap();
    assert_eq!(head.trust, Trust::MustRevalidate);
}

#[tokio::test(start_paused = true)]
async fn a_lost_page_of_the_region_table_is_taken_from_the_regions() {
    let (device, volume) = fresh(32).await;
    for n in 0..5 {
        append_whole(&volume, n).await;
    }
    volume.close().await;
    let table = volume.geometry().table();
    let granules = ((table.end - table.start) / 4096) as usize;
    let from = vec![Buffer::Own(Granules::zeroed(granules))];
    disk(&device).write(table.start, from, Urgency::Write).await.unwrap();
    let again = opened(&device).await;
    for n in 0..5 {
        assert!(reads_whole(&again, n).await, "{n}");
    }
    assert!(again.figures().recovered.heads_in_doubt);
    for n in 5..60 {
        append_whole(&again, n).await;
    }
    assert!(reads_whole(&again, 59).await);
}

#[tokio::test(start_paused = true)]
async fn what_the_caller_keeps_comes_back() {
    let (device, volume) = fresh(32).await;
    assert_eq!(volume.extra(), None);
    volume.set_extra(Arc::new(|| b"filter".to_vec()));
    volume.close().await;
    let volume = opened(&device).await;
    assert_eq!(volume.extra().as_deref(), Some(&b"filter"[..]));
    volume.close().await;
    let volume = opened(&device).await;
    assert_eq!(volume.extra().as_deref(), Some(&b"filter"[..]), "also if nobody asked");
}

#[tokio::test(start_paused = true)]
async fn every_byte_written_has_a_reason() {
    let (device, volume) = fresh(40).await;
    let before = device.figures().written_bytes;
    for n in 0..40 {
        append_whole(&volume, n).await;
        volume.append_head(head_of(n, "head")).unwrap();
        volume.used(block(n % 5));
        volume.used(block(n % 5));
    }
    settled(&volume).await;
    volume.close().await;
    let figures = volume.figures();
    assert_eq!(figures.written.total(), device.figures().written_bytes - before);
    assert_eq!(figures.written.admitted, 40 * MIB);
    assert!(figures.written.reappended > 0 && figures.written.checkpoints > 0);
    assert!(figures.written.total() > figures.written.admitted + figures.written.heads);
}

/// On threads and a real file: nothing is ever wrong, whoever is overtaken by whom.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_race_with_the_giving_up_of_regions_find_misses_and_no_errors() {
    // Beside the test's own binary: `/tmp` may be no real filesystem.
    let program = std::env::current_exe().unwrap();
    let folder = tempfile::tempdir_in(program.parent().unwrap()).unwrap();
    let path = folder.path().join("volume");
    crate::store::device::create(&path, 16 * MIB).unwrap();
    let device = crate::store::device::open(&path, &Default::default()).unwrap();
    let disk = Disk::new(device);
    let geometry = Geometry::new(16 * MIB, 2 * MIB, BlockSize::MAX, 1_000).unwrap();
    Volume::format(&disk, geometry, VOLUME).await.unwrap();
    let volume = Volume::open(disk, settings()).await.unwrap();
    const NEWEST: u64 = 30;
    let written = Arc::new(AtomicUsize::new(0));
    let mut readers = Vec::new();
    for reader in 0..3u64 {
        let (volume, written) = (Arc::clone(&volume), Arc::clone(&written));
        readers.push(tokio::spawn(async move {
            let (mut hits, mut turn) = (0u64, reader);
            while written.load(Ordering::Relaxed) < NEWEST as usize {
                let newest = written.load(Ordering::Relaxed) as u64;
                turn += 1;
                hits += u64::from(reads_whole(&volume, newest.saturating_sub(turn % 16)).await);
                tokio::task::yield_now().await;
            }
            hits
        }));
    }
    for n in 0..NEWEST {
        append_whole(&volume, n).await;
        volume.append_head(head_of(n % 20, &format!("{n}"))).unwrap();
        volume.used(block(n - n % 5));
        written.store(n as usize + 1, Ordering::Relaxed);
    }
    let mut hits = 0;
    for reader in readers {
        hits += reader.await.unwrap();
    }
    let figures = volume.figures();
    assert!(hits > 10 && figures.regions_reclaimed > 10, "{hits} hits, {figures:?}");
    assert_eq!((figures.mismatches, figures.read_errors), (0, 0));
    volume.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_is_busy_with_readers_still_gives_up_regions() {
    let (device, volume) = fresh(64).await;
    for n in 0..40 {
        let _ = append(&volume, write_of(n, PieceMap::run(0, 16), PIECE)).await;
    }
    device.set_faults(Faults { latency_max: Duration::from_millis(200), ..Faults::default() });
    let mut viewers = tokio::task::JoinSet::new();
    for viewer in 0..120 {
        let disk = volume.disk().clone();
        viewers.spawn(async move {
            loop {
                let into = vec![Buffer::Own(Granules::zeroed(1))];
                let deadline = tokio::time::Instant::now() + Duration::from_secs(2);
                let _ = disk.read(viewer * 4096, into, Urgency::Viewer, deadline).await;
            }
        });
    }
    let before = volume.figures();
    for n in 100..400 {
        let _ = volume.append_block(write_of(n, PieceMap::run(0, 16), PIECE));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let figures = volume.figures();
    let reclaimed = figures.regions_reclaimed - before.regions_reclaimed;
    assert!(reclaimed > 20, "{reclaimed} given up: {}", volume.state());
    assert_eq!((volume.state(), figures.regions_quarantined), (State::Online, 0));
    assert_eq!(figures.mismatches, 0);
}

/// What object `n`'s head says, and how far it is believed.
async fn head_now(volume: &Volume, n: u64) -> Option<(String, Trust)> {
    let found = volume.read_head(ObjectHash(u128::from(n)), Urgency::Viewer).await.unwrap();
    found.map(|head| (String::from_utf8(head.payload.to_vec()).unwrap(), head.trust))
}

/// A checkpoint knows the old head of object 1; the new one lies in a region after it.
async fn with_two_heads() -> (Arc<Simulated>, Arc<Volume>) {
    let (device, volume) = fresh(32).await;
    volume.append_head(head_of(1, "old")).unwrap();
    settled(&volume).await;
    volume.checkpoint().await;
    for n in 0..2 {
        append_whole(&volume, n).await;
    }
    volume.append_head(head_of(1, "new")).unwrap();
    settled(&volume).await;
    (device, volume)
}

#[tokio::test(start_paused = true)]
async fn a_head_that_could_not_be_read_and_those_before_it_stay_forgotten_after_a_kill() {
    for damaged in [false, true] {
        let (device, volume) = with_two_heads().await;
        let core = &volume.core;
        if damaged {
            let entry = core.index().head(core.head_key(ObjectHash(1))).unwrap();
            let wrong = vec![Buffer::Own(Granules::holding(&[1; 4096]))];
            let at = core.spot(entry.location).at();
            volume.disk().write(at, wrong, Urgency::Write).await.unwrap();
        } else {
            device.set_faults(Faults { fail_reads: Share::ALL, ..Faults::default() });
        }
        let read = volume.read_head(ObjectHash(1), Urgency::Viewer).await;
        assert!(matches!(read, Err(ReadError::Failed(_) | ReadError::Mismatch)), "{damaged}");
        device.set_faults(Faults::default());
        assert!(!volume.holds_head(ObjectHash(1)));
        volume.forget_head(ObjectHash(1));
        settled(&volume).await;
        let again = opened(&after_kill(&device, 3)).await;
        assert_eq!(head_now(&again, 1).await, None, "damaged: {damaged}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_came_while_the_one_before_it_was_found_unreadable_stays() {
    let (device, volume) = fresh(32).await;
    volume.append_head(head_of(1, "old")).unwrap();
    settled(&volume).await;
    let entry = volume.core.index().head(volume.core.head_key(ObjectHash(1))).unwrap();
    volume.append_head(head_of(1, "new")).unwrap();
    volume.core.drop_head_at(ObjectHash(1), entry.location);
    assert_eq!(payload(&volume, 1).await.as_deref(), Some("new"));
    settled(&volume).await;
    volume.core.drop_head_at(ObjectHash(1), entry.location);
    settled(&volume).await;
    assert_eq!(payload(&volume, 1).await.as_deref(), Some("new"));
    let again = opened(&after_kill(&device, 3)).await;
    assert_eq!(head_now(&again, 1).await, Some(("new".to_owned(), Trust::Newest)));
}

/// On two threads: one publishes them first to last, one forgets them from the last on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_is_forgotten_as_it_is_published_is_not_found() {
    let device = device(64 * MIB, 7);
    formatted(&device).await;
    let settings = VolumeSettings { head_linger: Duration::ZERO, ..settings() };
    let volume = Volume::open(disk(&device), settings).await.unwrap();
    for round in 0..400 {
        let (first, end) = (round * 30, round * 30 + 30);
        for n in first..end {
            volume.append_head(head_of(n, "here")).unwrap();
        }
        let key = volume.core.head_key(ObjectHash(u128::from(first)));
        while volume.core.index().head(key).is_none() {
            tokio::task::yield_now().await;
        }
        (first..end).rev().for_each(|n| volume.forget_head(ObjectHash(u128::from(n))));
        while volume.figures().queue_bytes > 0 {
            tokio::task::yield_now().await;
        }
        let holds = |n: &u64| volume.holds_head(ObjectHash(u128::from(*n)));
        assert_eq!((first..end).find(holds), None, "round {round}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_forgotten_beside_a_full_queue_stays_forgotten_after_a_kill() {
    for under_way in [false, true] {
        let (device, volume) = fresh(32).await;
        volume.append_head(head_of(1, "old")).unwrap();
        for n in 2..3000 {
            volume.append_head(head_of(n, "x")).unwrap();
        }
        settled(&volume).await;
        volume.checkpoint().await;
        if under_way {
            volume.append_head(head_of(1, "new")).unwrap();
        }
        while volume.figures().queue_bytes < 64 * 8_192 {
            for n in 2..3000 {
                volume.forget_head(ObjectHash(n));
            }
        }
        volume.forget_head(ObjectHash(1));
        assert!(!volume.holds_head(ObjectHash(1)));
        settled(&volume).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let again = opened(&after_kill(&device, 3)).await;
        assert_eq!(head_now(&again, 1).await, None, "under way: {under_way}");
        assert_eq!(head_now(&again, 2).await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_in_a_region_put_out_of_use_does_not_give_way_to_an_older_one() {
    let (device, volume) = with_two_heads().await;
    let key = volume.core.head_key(ObjectHash(1));
    let region = volume.core.index().head(key).unwrap().location.region;
    for n in 2..6 {
        append_whole(&volume, n).await;
    }
    for _ in 0..2 {
        volume.core.read_failed(region, &"EIO");
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(volume.figures().regions_quarantined, 1);
    assert_eq!(head_now(&volume, 1).await, None);
    let again = opened(&after_kill(&device, 3)).await;
    assert_eq!(head_now(&again, 1).await, None);
}

/// What was logged, as text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Of this thread, while the second is held.
    fn begin() -> (Log, tracing::subscriber::DefaultGuard) {
        let log = Log::default();
        let writer = log.clone();
        let writes = tracing_subscriber::fmt().with_ansi(false).without_time().with_target(false);
        let writes = writes.with_writer(move || writer.clone()).finish();
        (log, tracing::subscriber::set_default(writes))
    }

    fn lines(&self) -> Vec<String> {
        let bytes = std::mem::take(&mut *self.0.lock().unwrap());
        String::from_utf8(bytes).unwrap().lines().map(|line| line.trim().to_owned()).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn the_log_says_which_volume_it_is_and_what_was_found_on_it() {
    let (device, volume) = fresh(32).await;
    append_whole(&volume, 1).await;
    volume.append_head(head_of(1, "one")).unwrap();
    settled(&volume).await;
    let (log, _logged) = Log::begin();

    let remedy = "`mend /dev/nvme0n1`";
    let (name, words) = ("nvme0n1".to_owned(), remedy.to_owned());
    let named = || VolumeSettings { name: name.clone(), remedy: words.clone(), ..settings() };
    let killed = after_kill(&device, 1);
    let again = Volume::open(disk(&killed), named()).await.unwrap();
    let told = log.lines();
    let line = ": it holds 2 records (0 by its saved index, 2 written after that was saved); 0 \
                that a crash cut short or that are damaged are left out";
    let begins = "INFO volume nvme0n1 was read in ";
    assert!(told.len() == 1 && told[0].starts_with(begins), "{told:#?}");
    assert!(told[0].ends_with(line), "{told:#?}");

    // It opens its region while it is well.
    again.append_head(head_of(2, "two")).unwrap();
    settled(&again).await;
    killed.set_faults(Faults { fail_writes: Share::ALL, ..Faults::default() });
    again.append_head(head_of(3, "three")).unwrap();
    settled(&again).await;
    let told = log.lines();
    let begins = "ERROR volume nvme0n1 is read-only from now on: a write failed: ";
    assert!(told.len() == 1 && told[0].starts_with(begins), "{told:#?}");
    assert!(told[0].ends_with(remedy), "{told:#?}");

    for slot in 0..2 {
        let at = volume.geometry().checkpoint(slot).start;
        let from = vec![Buffer::Own(Granules::holding(&[1; 4096]))];
        disk(&device).write(at, from, Urgency::Write).await.unwrap();
    }
    Volume::open(disk(&after_kill(&device, 2)), named()).await.unwrap();
    let told = log.lines();
    assert!(told.iter().all(|line| line.contains(" volume nvme0n1")), "{told:#?}");
    let is_said = |words| told.iter().any(|line| line.contains(words));
    assert!(is_said("2 records (read one by one: its saved index is missing"), "{told:#?}");
    assert!(is_said("WARN volume nvme0n1 may know heads that were replaced since"), "{told:#?}");
}

#[tokio::test(start_paused = true)]
async fn reads_that_fail_are_told_once_a_minute_with_their_place_and_their_count() {
    let (device, volume) = fresh(32).await;
    for n in 0..5 {
        append_whole(&volume, n).await;
    }
    settled(&volume).await;
    let (log, _logged) = Log::begin();
    device.set_faults(Faults { fail_reads: Share::ALL, ..Faults::default() });
    for n in 0..3 {
        assert!(!reads_whole(&volume, n).await);
    }
    let first = log.lines();
    assert_eq!(first.len(), 1, "{first:#?}");
    let told = first[0].split_once(": a read at byte ").and_then(|(_, told)| told.split_once(' '));
    let (at, why) = told.expect("it names the byte");
    assert!(volume.geometry().checkpoint(1).end < at.parse().unwrap(), "{first:#?}");
    assert!(why.starts_with("failed: ") && why.ends_with("(os error 5)"), "{first:#?}");

    tokio::time::sleep(Duration::from_secs(61)).await;
    log.lines();
    assert!(!reads_whole(&volume, 3).await);
    let later = log.lines();
    assert_eq!(later.len(), 1, "{later:#?}");
    assert!(later[0].ends_with("; 2 more since the last such line"), "{later:#?}");
}

#[tokio::test(start_paused = true)]
async fn with_one_copy_of_the_region_table_damaged_nothing_is_lost_without_a_doubt() {
    let mut doubts = 0;
    for copy in [PageCopy::A, PageCopy::B] {
        let (device, volume) = with_two_heads().await;
        let killed = after_kill(&device, 3);
        let at = TablePage::place(volume.geometry(), 0, copy);
        let wrong = vec![Buffer::Own(Granules::holding(&[1; 4096]))];
        disk(&killed).write(at, wrong, Urgency::Write).await.unwrap();
        let again = opened(&killed).await;
        let in_doubt = again.figures().recovered.heads_in_doubt;
        doubts += u32::from(in_doubt);
        let trust = if in_doubt { Trust::MustRevalidate } else { Trust::Newest };
        assert_eq!(head_now(&again, 1).await, Some(("new".to_owned(), trust)), "{copy:?}");
        for n in 0..2 {
            assert!(reads_whole(&again, n).await, "{copy:?}: {n}");
        }
        again.append_head(head_of(1, "newest")).unwrap();
        settled(&again).await;
        let again = opened(&after_kill(&killed, 4)).await;
        assert!(!again.figures().recovered.heads_in_doubt, "{copy:?}: it was written anew");
        let newest = Some(("newest".to_owned(), Trust::Newest));
        assert_eq!(head_now(&again, 1).await, newest, "{copy:?}");
    }
    assert_eq!(doubts, 1, "the older one is no loss");
}

#[tokio::test(start_paused = true)]
async fn a_region_that_the_table_brings_back_brings_no_older_head_back() {
    let (device, volume) = with_two_heads().await;
    let (table, image) = (volume.geometry().table(), device.image());
    let mut before = Granules::zeroed(((table.end - table.start) / 4096) as usize);
    image.read(table.start, before.bytes_mut());
    let mut n = 2;
    while volume.figures().regions_reclaimed == 0 {
        append_whole(&volume, n).await;
        n += 1;
    }
    assert_eq!(head_now(&volume, 1).await, Some(("new".to_owned(), Trust::Newest)));
    volume.checkpoint().await;
    let killed = after_kill(&device, 3);
    // As if nothing of the table had been written since.
    disk(&killed).write(table.start, vec![Buffer::Own(before)], Urgency::Write).await.unwrap();
    let again = opened(&killed).await;
    let newer = Some(("new".to_owned(), Trust::MustRevalidate));
    assert_eq!(head_now(&again, 1).await, newer, "the checkpoint knows it");
}

/// Full of blocks that were all used, so that each is worth another lap; each with a head.
async fn in_use() -> (Arc<Simulated>, Arc<Volume>) {
    let (device, volume) = fresh(64).await;
    for n in 0..50 {
        append_whole(&volume, n).await;
        volume.append_head(head_of(n, &format!("head {n}"))).unwrap();
    }
    settled(&volume).await;
    for n in 0..50 {
        (0..4).for_each(|_| _ = volume.used(block(n)));
    }
    volume.checkpoint().await;
    (device, volume)
}

fn held(volume: &Volume) -> Vec<u64> {
    (0..200).filter(|n| volume.held(block(*n)) != PieceMap::default()).collect()
}

async fn reclaim(volume: &Volume, late: Late) -> bool {
    let mut upkeep = volume.core.upkeep.lock().await;
    volume.core.reclaim(&mut upkeep, late).await
}

#[tokio::test(start_paused = true)]
async fn a_read_that_fails_as_a_region_is_given_up_counts_as_one_that_a_viewer_sees_fail() {
    let counts = |volume: &Volume| {
        let figures = volume.figures();
        (figures.read_errors, figures.mismatches, figures.state.label())
    };
    // The footer.
    let (device, volume) = in_use().await;
    device.set_faults(Faults { fail_reads: Share::ALL, ..Faults::default() });
    assert!(reclaim(&volume, Late::IsDropped).await, "nothing of it can be carried on");
    assert_eq!(counts(&volume), (1, 0, "online"));
    let (device, volume) = in_use().await;
    device.set_faults(Faults { vanish_after: Some(0), ..Faults::default() });
    assert!(!reclaim(&volume, Late::IsDropped).await);
    assert_eq!(counts(&volume), (1, 0, "offline"));
    // The footer can be read, and the first record can't.
    let (device, volume) = in_use().await;
    let vanish_after = Some(device.operations() + 1);
    device.set_faults(Faults { vanish_after, ..Faults::default() });
    assert!(!reclaim(&volume, Late::IsDropped).await);
    assert_eq!(counts(&volume), (1, 0, "offline"));
}

#[tokio::test(start_paused = true)]
async fn what_is_found_damaged_as_a_region_is_given_up_is_a_mismatch() {
    // A footer, and the first piece of a record.
    for granules_in in [-1, 2] {
        let (device, volume) = in_use().await;
        settled(&volume).await;
        let mut image = device.image();
        for region in (0..volume.geometry().regions()).filter_map(|n| volume.geometry().region(n)) {
            let start = if granules_in < 0 { region.end } else { region.start };
            image.flip(start.wrapping_add_signed(granules_in * 4096) + 100, 3);
        }
        let damaged = Arc::new(Simulated::from_image(image, 3, Faults::default()));
        let volume = opened(&damaged).await;
        assert!(reclaim(&volume, Late::IsDropped).await);
        let figures = volume.figures();
        assert_eq!((figures.read_errors, figures.mismatches), (0, 1), "{granules_in}");
    }
}

fn reads_that_stall(share: Share) -> Faults {
    let stall_reads = Duration::from_secs(100);
    Faults { stall_reads, stall_share: share, ..Faults::default() }
}

#[tokio::test(start_paused = true)]
async fn a_device_that_brings_nothing_in_time_holds_the_writer_for_no_longer_than_a_read_may_take()
{
    for share in [Share::ALL, Share::millionths(400_000)] {
        let (device, volume) = in_use().await;
        let before = volume.figures();
        device.set_faults(reads_that_stall(share));
        for n in 100..112 {
            let began = Instant::now();
            append_whole(&volume, n).await;
            // What upkeep has just begun, and what is given up for this one: list and records.
            let reads_max = 4;
            assert!(began.elapsed() <= reads_max * settings().read_deadline, "{n}");
        }
        let figures = volume.figures();
        let cut_short = figures.regions_cut_short;
        let reclaimed = figures.regions_reclaimed - before.regions_reclaimed;
        assert!(cut_short >= 3 && cut_short <= reclaimed, "{cut_short} of {reclaimed}");
        assert!(reclaimed <= 2 * 12, "no more than there was need for: {reclaimed}");
        assert_eq!((volume.state(), figures.regions_quarantined), (State::Online, 0), "no fault");
        assert_eq!((figures.mismatches, figures.read_errors), (0, 0));

        device.set_faults(Faults::default());
        let again = opened(&after_kill(&device, 9)).await;
        for n in 0..112 {
            assert_eq!(reads_whole(&again, n).await, reads_whole(&volume, n).await, "{n}");
            assert_eq!(payload(&again, n).await, payload(&volume, n).await, "{n}");
        }
        assert!(held(&volume).ends_with(&(100..112).collect::<Vec<_>>()));
        // What it did not bring in time it is still at.
        sleep(Duration::from_secs(100)).await;
        for n in 112..132 {
            append_whole(&volume, n).await;
        }
        assert_eq!(volume.figures().regions_cut_short, cut_short, "the others are carried on");
    }
}

#[tokio::test(start_paused = true)]
async fn while_nobody_waits_a_region_that_cannot_be_read_in_time_is_left_for_later() {
    let (device, volume) = in_use().await;
    let before = held(&volume);
    device.set_faults(reads_that_stall(Share::ALL));
    let began = Instant::now();
    assert!(!reclaim(&volume, Late::IsKept).await);
    assert_eq!(began.elapsed(), settings().read_deadline, "and a checkpoint waits no longer");
    assert_eq!(held(&volume), before, "nothing was forgotten");
    assert_eq!((volume.state(), volume.figures().regions_cut_short), (State::Online, 0));
    device.set_faults(Faults::default());
    let reclaimed = volume.figures().regions_reclaimed;
    assert!(reclaim(&volume, Late::IsKept).await);
    assert_eq!(volume.figures().regions_reclaimed, reclaimed + 1);
    assert_eq!(held(&volume), before, "its block was carried on");
}

#[tokio::test(start_paused = true)]
async fn what_a_volume_could_not_carry_on_before_it_became_read_only_is_found_where_it_was() {
    let (device, volume) = fresh(64).await;
    for n in 0..120 {
        assert!(append(&volume, write_of(n, PieceMap(1), PIECE)).await);
        for _ in 0..4 * (n % 2) {
            volume.used(block(n));
        }
    }
    // Half of a region is carried on: what the next one gives finds a region open.
    assert!(reclaim(&volume, Late::IsDropped).await);
    let before = held(&volume);
    assert!(before.len() > 90 && before.len() < 120, "{before:?}");
    device.set_faults(Faults { fail_writes: Share::ALL, ..Faults::default() });
    assert!(!reclaim(&volume, Late::IsDropped).await);
    assert_eq!(volume.state().label(), "read-only");
    assert_eq!(held(&volume), before);
    for n in before {
        assert_eq!(read(&volume, n, 0, 1).await.unwrap().0, piece_bytes(n, 0, PIECE), "{n}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_region_costs_a_flush_to_open_two_to_seal_and_one_to_give_up() {
    let (device, volume) = fresh(64).await;
    let core = &volume.core;
    let steps = || {
        let generations = core.ledger.snapshot().into_iter().map(|(_, generation)| generation);
        generations.sum::<u64>() + 2 * core.ledger.next_seal()
    };
    let checkpoints = async || core.upkeep.lock().await.checkpoint;
    let before = (device.figures().flushes, steps(), checkpoints().await);
    for n in 0..120 {
        append_whole(&volume, n).await;
        for _ in 0..2 * (n % 2) {
            volume.used(block(n));
        }
    }
    let flushes = device.figures().flushes - before.0;
    let taken = checkpoints().await - before.2;
    let steps = steps() - before.1;
    let figures = volume.figures();
    assert!(steps > 400 && figures.regions_reclaimed > 100, "{steps} steps, {figures:?}");
    assert!(figures.written.reappended > 30 * MIB, "{figures:?}");
    assert_eq!(flushes, steps + 2 * taken, "and two for each of {taken} checkpoints");
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_moment_of_two_checkpoints_puts_no_head_in_doubt() {
    let (device, volume) = fresh(32).await;
    volume.append_head(head_of(1, "one")).unwrap();
    settled(&volume).await;
    volume.checkpoint().await;
    let image = device.crash();
    for operations in 0.. {
        let device = Arc::new(Simulated::from_image(image.clone(), 1, Faults::default()));
        let volume = opened(&device).await;
        volume.append_head(head_of(2, "two")).unwrap();
        settled(&volume).await;
        let stop_after = Some(device.operations() + operations);
        device.set_faults(Faults { stop_after, ..Faults::default() });
        let both = async {
            volume.checkpoint().await;
            volume.checkpoint().await;
        };
        let is_done = timeout(Duration::from_secs(1), both).await.is_ok();
        for seed in 0..24 {
            let again = opened(&after_crash(&device, seed)).await;
            let recovered = again.figures().recovered;
            assert!(!recovered.heads_in_doubt, "{operations} operations, crash {seed}");
            assert_eq!(payload(&again, 1).await.as_deref(), Some("one"));
        }
        if is_done {
            // Of each: its sections, a flush, its header, and a flush.
            assert_eq!(operations, 2 * 5);
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_forgotten_beside_a_full_queue_costs_a_checkpoint_now_and_then() {
    let (device, volume) = fresh(32).await;
    for n in 0..3000 {
        volume.append_head(head_of(n, "x")).unwrap();
    }
    settled(&volume).await;
    let began_with = volume.core.upkeep.lock().await.checkpoint;
    // A checkpoint takes half a second, and what waits is written in six.
    device.set_faults(Faults { stall_writes: Duration::from_millis(100), ..Faults::default() });
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(20) {
        (0..2000).for_each(|n| volume.forget_head(ObjectHash(n)));
        sleep(Duration::from_millis(100)).await;
    }
    let taken = volume.core.upkeep.lock().await.checkpoint - began_with;
    assert!((3..=8).contains(&taken), "a fifth of the time goes into them, not all of it: {taken}");
    settled(&volume).await;
    sleep(Duration::from_secs(6)).await;
    let again = opened(&after_kill(&device, 3)).await;
    for n in 0..3000 {
        assert_eq!(payload(&again, n).await.is_some(), n >= 2000, "{n}");
    }
}

#[tokio::test(start_paused = true)]
async fn others_go_on_while_the_index_is_looked_through_for_a_region() {
    let device = device(64 * MIB, 7);
    let geometry = Geometry::new(64 * MIB, 2 * MIB, BlockSize::MAX, 40_000).unwrap();
    Volume::format(&disk(&device), geometry, VOLUME).await.unwrap();
    let volume = opened(&device).await;
    append_whole(&volume, 1).await;
    let core = Arc::clone(&volume.core);
    let region = core.index().blocks_of(core.block_key(block(1)))[0].location.region;
    let shards = core.index().shards();
    let turns = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&turns);
    let other = tokio::spawn(async move {
        loop {
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    });
    core.forget_region(region).await;
    let turns = turns.load(Ordering::Relaxed);
    other.abort();
    assert!(shards > 5 && turns >= shards, "{turns} turns of another, {shards} shards");
    assert_eq!(volume.held(block(1)), PieceMap::default());
}

#[tokio::test(start_paused = true)]
async fn who_waits_while_a_region_is_given_up_wants_the_next_checkpoint_no_later() {
    let (_device, volume) = fresh(32).await;
    let checkpoint = async || volume.core.upkeep.lock().await.checkpoint;
    let before = checkpoint().await;
    let reclaiming = volume.core.upkeep.lock().await;
    volume.core.want_checkpoint();
    sleep(Duration::from_secs(20)).await;
    drop(reclaiming);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(checkpoint().await, before + 1);
    volume.core.want_checkpoint();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(checkpoint().await, before + 2, "what took long was no checkpoint");
}
