//! Giving up regions: what earned it is carried on, and nobody waits for long.

use super::*;

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
