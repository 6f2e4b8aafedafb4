//! What is appended and read back, and what a volume refuses.

use super::*;

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
