//! An object larger than the whole cache streams through, and the rest goes on.

use tokio::task::JoinSet;

use crate::support::{BLOCK, Edge, Origin, Script, Verdict, follow, judge};

/// Three times the ram tier.
const LENGTH: u64 = 192 * BLOCK + 5;

#[tokio::test]
async fn an_object_larger_than_the_cache_streams_through_byte_for_byte() {
    let origin = Origin::serving("/huge", Script::of(LENGTH));
    let edge = Edge::in_front_of(&origin).ram("64 MiB").start();
    for _ in 0..2 {
        let mut viewer = edge.get("/huge").open().await;
        assert_eq!(viewer.header("content-length"), LENGTH.to_string());
        let came = follow(&mut viewer, origin.content("/huge", 1), 0).await;
        assert_eq!(came, (LENGTH, true));
    }
    let last = edge.get("/huge").suffix(10).send().await;
    assert_eq!(judge(&origin, "/huge", &last), Verdict::Whole { version: 1 });
    let ram = edge.metric("tidegate_ram_bytes", &[]).await;
    assert!(ram <= (64 * BLOCK) as f64, "{ram} bytes in a tier of 64 MiB");
}

#[tokio::test]
async fn several_at_once_stream_through_and_small_ones_are_served_beside_them() {
    let origin = Origin::serving("/small", Script::of(BLOCK));
    let edge = Edge::in_front_of(&origin).ram("64 MiB").start();
    let mut viewers = JoinSet::new();
    for number in 0..4 {
        let path = format!("/huge/{number}");
        origin.serve(&path, Script::of(LENGTH / 2));
        let (asked, content) = (edge.get(&path), origin.content(&path, 1));
        viewers.spawn(async move {
            let mut viewer = asked.open().await;
            follow(&mut viewer, content, 0).await
        });
    }
    while !viewers.is_empty() {
        let small = edge.get("/small").send().await;
        assert_eq!(judge(&origin, "/small", &small), Verdict::Whole { version: 1 });
        if let Some(came) = viewers.try_join_next() {
            assert_eq!(came.unwrap(), (LENGTH / 2, true));
        }
    }
    assert!(edge.metric("tidegate_ram_evictions_total", &[]).await > 0.0);
}
