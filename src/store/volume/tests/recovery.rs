//! What a crash, a kill and damage leave is found again, and what may be missing is in doubt.

use super::*;

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
async fn after_the_only_checkpoint_was_lost_heads_are_in_doubt_once() {
    let (device, _) = fresh(32).await;
    let device = after_kill(&device, 1);
    let volume = opened(&device).await;
    volume.append_head(head_of(1, "one")).unwrap();
    settled(&volume).await;
    let sections = volume.geometry().checkpoint(0).start + 4096;
    let killed = after_kill(&device, 2);
    let from = vec![Buffer::Own(Granules::holding(&[1; 4096]))];
    disk(&killed).write(sections, from, Urgency::Write).await.unwrap();
    let doubts = async |seed| {
        let volume = opened(&after_kill(&killed, seed)).await;
        volume.figures().recovered.heads_in_doubt
    };
    assert!(doubts(3).await);
    // It writes that down before it seals what it found, and is killed too.
    drop(opened(&killed).await);
    assert!(!doubts(4).await, "a checkpoint tells which heads those were");
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
async fn a_volume_that_is_remembered_as_ill_is_read_and_nothing_is_written_to_it() {
    let (device, volume) = fresh(32).await;
    append_whole(&volume, 1).await;
    volume.append_head(head_of(1, "one")).unwrap();
    settled(&volume).await;
    let writes = |device: &Simulated| device.figures().writes.iter().sum::<u64>();
    for left_as in [read_only(), State::Offline { why: "a test".to_owned() }] {
        for checkpoint_lost in [false, true] {
            let device = after_kill(&device, 3);
            if checkpoint_lost {
                let at = volume.geometry().checkpoint(0).start;
                let from = vec![Buffer::Own(Granules::holding(&[1; 4096]))];
                disk(&device).write(at, from, Urgency::Write).await.unwrap();
            }
            let before = writes(&device);
            let again = opened_as(&device, left_as.clone()).await;
            assert_eq!(again.state(), left_as);
            assert_eq!(again.figures().recovered.heads_in_doubt, checkpoint_lost);
            let is_read = left_as == read_only();
            assert_eq!(reads_whole(&again, 1).await, is_read);
            if is_read {
                let expected = ("one".to_owned(), Trust::MustRevalidate);
                assert_eq!(head_now(&again, 1).await, Some(expected));
            }
            assert!(!again.doubt_heads().await);
            again.close().await;
            assert_eq!(writes(&device), before, "{left_as}, {checkpoint_lost}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_volume_is_handed_over_when_its_last_write_is_over_and_else_never() {
    let device = device(16 * MIB, 1);
    formatted(&device).await;
    let volume = opened(&device).await;
    assert!(timeout(Duration::ZERO, volume.hand_over()).await.is_err());
    volume.hand_over().await;
    assert_eq!(volume.state(), State::Online, "a write may be under way");

    let volume = opened(&device).await;
    volume.append_head(head_of(1, "a head")).unwrap();
    volume.hand_over().await;
    assert!(volume.is_readable() && !volume.is_writable());
    volume.forget_head(ObjectHash(1));
    assert!(!volume.is_head_under_way(ObjectHash(1)), "its end is another one's to write");
}
