//! A viewer may begin anywhere in an object of any size; the origin is asked for a window, no more.

use crate::support::{BLOCK, Edge, Origin, PIECE, Recorded, Script, Verdict, follow, judge, mixed};

const LENGTH: u64 = 8 << 30;
const FAR: u64 = 5 << 30;
const WINDOW: u64 = 4 << 20;
/// What may lie in socket buffers between the origin and a viewer who has stopped reading.
const IN_THE_KERNEL: u64 = 32 << 20;

fn edge(origin: &Origin) -> Edge {
    Edge::in_front_of(origin).setting("fill.window", "4 MiB").start()
}

/// No request asks for more than the window; those without an end are the unknown object's first.
fn assert_windows(requests: &[Recorded]) {
    for request in requests {
        let range = request.head.range().expect("a range");
        let last = range.1.unwrap_or_else(|| panic!("{range:?} has no end"));
        assert!(last - range.0 < WINDOW, "{range:?} is more than the window");
        assert_eq!(range.0 % PIECE, 0, "{range:?} starts with a piece");
    }
}

#[tokio::test]
async fn a_seek_far_into_a_cold_object_costs_at_most_the_window() {
    let origin = Origin::serving("/film", Script::of(LENGTH));
    let edge = edge(&origin);
    let mut viewer = edge.get("/film").range_from(FAR + 12_345).open().await;
    assert_eq!(viewer.status, 206);
    let label = format!("bytes {}-{}/{LENGTH}", FAR + 12_345, LENGTH - 1);
    assert_eq!(viewer.header("content-range"), label);
    let bytes = viewer.read_exactly(PIECE as usize).await.unwrap();
    assert_eq!(origin.content("/film", 1).first_difference(FAR + 12_345, &bytes), None);
    drop(viewer);
    origin.until_idle("/film").await;
    // The range of an unknown object may be as open as the viewer's; its bytes may not.
    let requests = origin.requests("/film");
    assert_eq!(requests[0].head.range().map(|range| range.0), Some(FAR));
    assert_windows(&requests[1..]);
    let sent = origin.bytes_sent("/film");
    assert!(sent <= WINDOW + IN_THE_KERNEL, "{sent} bytes for one piece");
}

#[tokio::test]
async fn a_seek_while_another_reads_from_the_start_is_a_run_of_its_own() {
    let origin = Origin::serving("/film", Script::of(LENGTH));
    let edge = edge(&origin);
    let content = origin.content("/film", 1);
    let mut reader = edge.get("/film").open().await;
    let start = reader.read_exactly(BLOCK as usize).await.unwrap();
    assert_eq!(content.first_difference(0, &start), None);
    let before = origin.requests("/film").len();

    let far = edge.get("/film").range(FAR..FAR + 2 * BLOCK).send().await;
    assert_eq!(judge(&origin, "/film", &far), Verdict::Whole { version: 1 });
    let requests = origin.requests("/film");
    let seeks: Vec<Recorded> = requests.into_iter().skip(before).collect();
    let of_the_seek = seeks.iter().filter(|seek| {
        seek.head.range().is_some_and(|(first, _)| (FAR..FAR + 2 * BLOCK).contains(&first))
    });
    assert_eq!(of_the_seek.count(), 1);
    assert_windows(&seeks);

    let on = reader.read_exactly(8 * BLOCK as usize).await.unwrap();
    assert_eq!(content.first_difference(BLOCK, &on), None, "he who reads on is not disturbed");
}

#[tokio::test]
async fn a_viewer_who_jumps_about_costs_a_window_each_time() {
    let origin = Origin::serving("/film", Script::of(LENGTH));
    let edge = edge(&origin);
    edge.get("/film").range(0..1).send().await;
    origin.until_idle("/film").await;
    origin.forget_requests();
    let jumps = 40;
    for jump in 0..jumps {
        let place = mixed(jump) % (LENGTH - PIECE);
        let mut viewer = edge.get("/film").range_from(place).open().await;
        let bytes = viewer.read_exactly(100).await.unwrap();
        assert_eq!(origin.content("/film", 1).first_difference(place, &bytes), None);
    }
    origin.until_idle("/film").await;
    assert_windows(&origin.requests("/film"));
    let sent = origin.bytes_sent("/film");
    assert!(sent <= jumps * WINDOW, "{sent} bytes for {jumps} places");
}

#[tokio::test]
async fn a_viewer_who_stops_reading_stops_the_fill() {
    let origin = Origin::serving("/film", Script::of(LENGTH));
    let edge = edge(&origin);
    let mut viewer = edge.client().receive_buffer(64 << 10).get("/film").open().await;
    viewer.read_exactly(PIECE as usize).await.unwrap();
    let sent = settled(&origin).await;
    assert!(sent <= WINDOW + IN_THE_KERNEL, "{sent} bytes for a viewer who took 64 KiB");
    // And goes on when he does.
    let content = origin.content("/film", 1);
    let more = viewer.read_exactly(64 << 20).await.unwrap();
    assert_eq!(content.first_difference(PIECE, &more), None);
}

/// What the origin has sent once it sends no more.
async fn settled(origin: &Origin) -> u64 {
    let (mut sent, mut same) = (origin.bytes_sent("/film"), 0);
    while same < 10 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        let now = origin.bytes_sent("/film");
        same = if now == sent { same + 1 } else { 0 };
        sent = now;
        assert!(sent < 1 << 30, "the fill runs on for nobody");
    }
    sent
}

#[tokio::test]
async fn the_end_of_a_huge_object_is_as_near_as_its_start() {
    let origin = Origin::serving("/film", Script::of(LENGTH - 3));
    let edge = edge(&origin);
    let mut tail = edge.get("/film").suffix(PIECE + 7).open().await;
    assert_eq!(tail.status, 206);
    let start = LENGTH - 3 - PIECE - 7;
    let came = follow(&mut tail, origin.content("/film", 1), start).await;
    assert_eq!(came, (PIECE + 7, true));
    let beyond = edge.get("/film").range_from(LENGTH - 3).send().await;
    assert_eq!(beyond.status, 416);
    assert!(origin.bytes_sent("/film") <= 2 * WINDOW);
}
