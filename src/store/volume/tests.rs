//! A volume over a simulated device: what is appended, read, given up, lost and found again.

mod blocks;
mod heads;
mod log;
mod reclaim;
mod recovery;

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

/// Opened by a process that remembers it so.
async fn opened_as(device: &Arc<Simulated>, left_as: State) -> Arc<Volume> {
    Volume::open(disk(device), VolumeSettings { left_as, ..settings() }).await.unwrap()
}

fn read_only() -> State {
    State::ReadOnly { why: "since yesterday: a test".to_owned() }
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
