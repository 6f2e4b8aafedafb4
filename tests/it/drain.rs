//! A drain takes no more work, finishes what is there within a bound, and ends.

use crate::support::{BLOCK, Edge, Ending, Origin, PIECE, Script, Speaks, Verdict, follow, judge};

const LENGTH: u64 = 8 * BLOCK;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_under_way_finish_and_nobody_new_is_let_in() {
    let origin = Origin::serving("/a", Script::of(LENGTH).ending(Ending::HeldAt(BLOCK)));
    let mut edge = Edge::in_front_of(&origin).setting("limits.drain_timeout", "1h").start();
    let clients =
        [edge.client(), edge.client_over_tls(Speaks::Http1), edge.client_over_tls(Speaks::Http2)];
    let mut readers = vec![];
    for client in &clients {
        let mut reader = client.get("/a").open().await;
        reader.read_exactly(PIECE as usize).await.unwrap();
        readers.push(reader);
    }
    let draining = tokio::spawn(async move {
        edge.drain().await;
    });
    until_refused(&clients[0]).await;
    assert!(!draining.is_finished(), "bodies are under way");
    origin.release("/a");
    for (number, mut reader) in readers.into_iter().enumerate() {
        let came = follow(&mut reader, origin.content("/a", 1), PIECE).await;
        assert_eq!(came, (LENGTH - PIECE, true), "client {number}");
    }
    draining.await.unwrap();
}

/// Waits until no connection is taken any more, or none is answered.
async fn until_refused(client: &crate::support::Client) {
    let asked = tokio::time::Instant::now();
    while client.get("/a").range(0..1).try_send().await.is_ok() {
        assert!(asked.elapsed().as_secs() < 20, "new viewers are still let in");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_body_that_does_not_end_is_cut_at_the_bound() {
    let origin = Origin::serving("/a", Script::of(LENGTH).ending(Ending::HeldAt(BLOCK)));
    let mut edge = Edge::in_front_of(&origin).setting("limits.drain_timeout", "300ms").start();
    let mut reader = edge.get("/a").open().await;
    reader.read_exactly(PIECE as usize).await.unwrap();
    edge.drain().await;
    let (bytes, complete) = follow(&mut reader, origin.content("/a", 1), PIECE).await;
    assert!(!complete && bytes <= BLOCK - PIECE);
}

#[tokio::test]
async fn an_idle_edge_drains_at_once_though_connections_are_open() {
    let origin = Origin::serving("/a", Script::of(PIECE));
    let mut edge = Edge::in_front_of(&origin).setting("limits.drain_timeout", "1h").start();
    let mut idle = vec![];
    for client in [edge.client(), edge.client_over_tls(Speaks::Http2)] {
        let connection = client.connect().await.unwrap();
        let streaming = client.get("/a").on(connection).await.unwrap();
        let (response, connection) = streaming.finish_and_keep().await.unwrap();
        assert_eq!(judge(&origin, "/a", &response), Verdict::Whole { version: 1 });
        idle.push(connection.expect("it is kept"));
    }
    let drained = tokio::time::timeout(std::time::Duration::from_secs(20), edge.drain()).await;
    drained.expect("idle connections hold no drain up");
}

#[tokio::test]
async fn health_tells_what_a_load_balancer_needs() {
    let origin = Origin::serving("/a", Script::of(PIECE));
    let edge = Edge::in_front_of(&origin).start();
    for path in ["/health/live", "/health/ready"] {
        assert_eq!(edge.admin().get(path).send().await.status, 200, "{path}");
    }
    // Viewers are not shown what operators are.
    assert_eq!(edge.get("/metrics").send().await.status, 404);
}
