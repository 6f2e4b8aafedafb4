//! Of an object's heads the newest is found, whatever became of those before it.

use super::*;

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
async fn heads_of_a_volume_that_could_not_be_written_must_be_revalidated() {
    let (device, volume) = fresh(32).await;
    volume.append_head(head_of(1, "one")).unwrap();
    settled(&volume).await;
    volume.close().await;
    let again = opened_as(&device, read_only()).await;
    let head = again.read_head(ObjectHash(1), Urgency::Viewer).await.unwrap().unwrap();
    assert_eq!(head.trust, Trust::MustRevalidate);
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
