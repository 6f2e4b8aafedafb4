//! The index alone, with the entries of 8 TiB of blocks: what it takes in memory and in time.

use std::hint::black_box;
use std::time::{Duration, Instant};

use tidegate::object::{BlockKey, PieceMap, VersionNumbers};
use tidegate::store::index::{Entry, Fingerprint, Index, Location, RegionId, Shape};

use crate::edge::Resident;
use crate::figure::{Measure, Promise, Unit};

const ENTRIES: u64 = 16_800_000;
const LOOKUPS: u64 = 4_000_000;
/// Of memory, for each.
const ENTRY_BYTES: f64 = 16.0;
/// Of a table that holds what it is meant for: both buckets of a key may be full, by bad luck.
const REFUSED_MAX: f64 = 1e-4;
const SEED: u64 = 9;

/// Builds one, looks things up, dumps it and loads the dump.
pub(super) fn measured() -> Vec<Measure> {
    let versions = VersionNumbers::of_epoch(7);
    let first = versions.assign();
    let key = |n: u64| Fingerprint::of_block(SEED, BlockKey { version: first, index: n as u32 });
    let before = resident();
    let began = Instant::now();
    let index = Index::new(ENTRIES);
    let refused =
        (0..ENTRIES).filter(|n| index.insert(key(*n), entry(*n), |_| ()).is_err()).count();
    let built = began.elapsed();
    let held_bytes = resident().saturating_sub(before);

    let began = Instant::now();
    let found = (0..LOOKUPS).filter(|n| !black_box(index.blocks_of(key(scattered(*n)))).is_empty());
    let missed = LOOKUPS - found.count() as u64;
    assert!(missed <= refused as u64, "{missed} entries are not found");
    let looked_up = began.elapsed();

    let began = Instant::now();
    let mut dump = Vec::with_capacity(index.shards() * index.shard_bytes());
    (0..index.shards()).for_each(|shard| index.dump(shard, &mut dump));
    let dumped = began.elapsed();
    drop(index);

    let began = Instant::now();
    let index = Index::new(ENTRIES);
    for (shard, bytes) in dump.chunks_exact(index.shard_bytes()).enumerate() {
        index.load(shard, bytes, |entry| entry.location.region.0 < u32::MAX).unwrap();
    }
    let loaded = began.elapsed();
    assert_eq!(index.blocks(), ENTRIES - refused as u64);

    let milliseconds = |took: Duration| took.as_secs_f64() * 1e3;
    let time = |name, took| Measure::shown(name, Unit::Milliseconds, milliseconds(took));
    let mib = |bytes: f64| bytes / f64::from(1 << 20);
    vec![
        Measure::shown("16.8 M entries: resident", Unit::MiB, mib(held_bytes as f64))
            .promised(Promise::AtMost(mib(ENTRIES as f64 * ENTRY_BYTES) * 1.02)),
        Measure::shown("16.8 M entries: refused", Unit::Count, refused as f64)
            .promised(Promise::AtMost(ENTRIES as f64 * REFUSED_MAX)),
        time("16.8 M entries: built", built),
        Measure::shown(
            "16.8 M entries: lookups a second, one thread",
            Unit::Count,
            LOOKUPS as f64 / looked_up.as_secs_f64(),
        ),
        time("16.8 M entries: dumped", dumped),
        time("16.8 M entries: loaded", loaded),
    ]
}

fn entry(n: u64) -> Entry {
    Entry {
        location: Location { region: RegionId((n / 60) as u32), granule: (n % 60 * 257) as u16 },
        shape: Shape::Block { pieces: PieceMap::run(0, 16), last_granules: 16 },
        score: 0,
        planned: false,
    }
}

/// A permutation of sorts: neighbours in time are none in memory.
fn scattered(n: u64) -> u64 {
    n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % ENTRIES
}

fn resident() -> u64 {
    Resident::of(std::process::id()).unwrap().all
}
