//! What one site's flood costs another: each has its share, and what it does not use is lent.

use tokio::task::JoinSet;

use crate::support::{
    Client, Configured, Connection, Edge, Origin, PATIENCE, PIECE, Request, Response, Script,
    Streaming, Verdict, judge,
};

const BLOCK: u64 = 16 * PIECE;
const REFUSALS: &str = "tidegate_overload_refusals_total";
const PRESSURE: &str = "tidegate_overload_pressure_ratio";

/// What `/status.json` says of one site.
async fn status_of(edge: &Edge, site: &str) -> serde_json::Value {
    let status = edge.status().await;
    let mut sites = status["shares"].as_array().unwrap().iter();
    sites.find(|one| one["name"] == site).unwrap().clone()
}

/// Waits until a site can count on so much of ram; panics when it cannot.
async fn until_its_own(edge: &Edge, site: &str, holds: impl Fn(u64) -> bool) {
    let asked = tokio::time::Instant::now();
    loop {
        let status = status_of(edge, site).await;
        if holds(status["ram_own_bytes"].as_u64().unwrap()) {
            return;
        }
        assert!(asked.elapsed() < PATIENCE, "{status}");
        tokio::task::yield_now().await;
    }
}

fn two_sites(origin: &Origin) -> Configured {
    Edge::in_front_of(origin).site("other")
}

fn other(edge: &Edge) -> Client {
    edge.client().host("other.test")
}

async fn all_whole(origin: &Origin, client: &Client, paths: &[String]) {
    for path in paths {
        let answer = client.get(path).send().await;
        assert_eq!(judge(origin, path, &answer), Verdict::Whole { version: 1 }, "{path}");
    }
}

/// Objects of a block each.
fn serve(origin: &Origin, name: &str, count: usize) -> Vec<String> {
    let paths: Vec<String> = (0..count).map(|number| format!("/{name}/{number}")).collect();
    paths.iter().for_each(|path| origin.serve(path, Script::of(BLOCK)));
    paths
}

#[tokio::test]
async fn a_flood_of_one_site_leaves_another_what_its_viewers_watch_in_ram() {
    let origin = Origin::serving("/a", Script::of(PIECE));
    let edge = two_sites(&origin).start();
    let (watched, flood) = (serve(&origin, "watched", 8), serve(&origin, "flood", 100));
    // All of ram is borrowed while nobody else wants any of it.
    all_whole(&origin, &edge.client(), &flood).await;
    let borrowed = status_of(&edge, "media").await["ram_bytes"].as_u64().unwrap();
    assert!(borrowed > 48 * BLOCK, "{borrowed}");

    for _ in 0..2 {
        all_whole(&origin, &other(&edge), &watched).await;
    }
    until_its_own(&edge, "other", |bytes| bytes >= 8 * BLOCK).await;
    // What was lent is given back as it is wanted, and the flood goes on.
    all_whole(&origin, &other(&edge), &watched).await;
    let asked_before = origin.all_requests().len();
    all_whole(&origin, &edge.client(), &flood).await;
    assert!(origin.all_requests().len() > asked_before, "more than ram holds");
    let asked_before = origin.all_requests().len();
    all_whole(&origin, &other(&edge), &watched).await;
    assert_eq!(origin.all_requests().len(), asked_before, "all of it is there");
    assert_eq!(status_of(&edge, "other").await["ram_bytes"], 8 * BLOCK);
}

#[tokio::test]
async fn of_the_last_connections_a_site_beyond_its_share_gets_none() {
    let origin = Origin::serving("/a", Script::of(PIECE));
    let edge = two_sites(&origin).setting("limits.connections", "16").start();
    let mut flood = Vec::new();
    for _ in 0..14 {
        flood.push(edge.get("/a").open().await);
    }
    let refused = edge.get("/a").send().await;
    assert_eq!((refused.status, &*refused.header("connection")), (503, "close"));
    assert!(refused.header("retry-after").parse::<u64>().is_ok(), "{:?}", refused.headers);
    for _ in 0..2 {
        let answer = other(&edge).get("/a").open().await.finish().await.unwrap();
        assert_eq!(judge(&origin, "/a", &answer), Verdict::Whole { version: 1 });
    }
    assert_eq!(edge.metric(REFUSALS, &["\"connections\""]).await, 1.0);
    assert_eq!(status_of(&edge, "media").await["connections"], 14);
    drop(flood);
    edge.until_metric("tidegate_connections_open", &[], |open| open == 0.0).await;
    assert_eq!(status_of(&edge, "media").await["connections"], 0);
    assert_eq!(edge.get("/a").send().await.status, 200);
}

/// Who took the head of a body that memory is needed for, and reads no further; and how many were
/// refused.
async fn slow_readers(client: &Client, count: usize) -> (Vec<Streaming>, usize) {
    let mut asking = JoinSet::new();
    for _ in 0..count {
        let asked = client.receive_buffer(4 << 10).get("/film");
        asking.spawn(async move { asked.open().await });
    }
    let all = asking.join_all().await;
    let (served, refused): (Vec<_>, Vec<_>) = all.into_iter().partition(|one| one.status == 200);
    for one in &refused {
        assert_eq!(one.status, 503);
        assert!(one.header("retry-after").parse::<u64>().is_ok(), "{:?}", one.headers);
    }
    (served, refused.len())
}

#[tokio::test]
async fn one_sites_slow_readers_do_not_take_the_memory_that_anothers_viewers_need() {
    let origin = Origin::serving("/film", Script::of(4 * BLOCK));
    let edge = two_sites(&origin).setting("memory.total", "256 MiB").start();
    let (flood, viewer) = (edge.client(), other(&edge));
    for client in [&flood, &viewer] {
        let answer = client.get("/film").send().await;
        assert_eq!(judge(&origin, "/film", &answer), Verdict::Whole { version: 1 });
    }
    let (readers, refused) = slow_readers(&flood, 700).await;
    let found = edge.metric("tidegate_lookups_total", &["\"hit\""]).await;
    assert_eq!(found, readers.len() as f64, "who is refused found nothing");
    let held = edge.metric("tidegate_memory_used_bytes", &["\"client\""]).await;
    let held = held / PIECE as f64;
    assert!((528.0..=576.0).contains(&held), "{held}: three quarters of a pool of 48 MiB");
    assert!(readers.len() >= 264, "{} hold a piece or two each", readers.len());
    assert!(refused > 100, "{refused}");
    while edge.metric(REFUSALS, &["\"share\""]).await < 10.0 {
        let (_, refused) = slow_readers(&flood, 20).await;
        assert_eq!(refused, 20, "who holds nothing gets nothing");
        let answer = viewer.get("/film").send().await;
        assert_eq!(judge(&origin, "/film", &answer), Verdict::Whole { version: 1 });
    }
    assert_eq!(edge.metric(REFUSALS, &["\"memory\""]).await, 0.0);
    drop(readers);
    // Nor is he refused when they are gone and more of theirs still are.
    while edge.metric(PRESSURE, &["\"memory_beyond_share\""]).await > 0.0 {
        let answer = viewer.get("/film").send().await;
        assert_eq!(judge(&origin, "/film", &answer), Verdict::Whole { version: 1 });
    }
    assert_eq!(edge.metric(REFUSALS, &["\"memory\""]).await, 0.0);
    assert_eq!(flood.get("/film").send().await.status, 200);
}

#[tokio::test]
async fn above_its_egress_a_box_refuses_the_site_that_has_more_than_its_share() {
    let origin = Origin::serving("/a", Script::of(16 * PIECE));
    let edge = two_sites(&origin).setting("limits.egress", "8 Mbit/s").start();
    let (client, viewer) = (edge.client(), other(&edge));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            let answer = client.get("/a").send().await;
            assert!([200, 503].contains(&answer.status), "{}", answer.status);
            // A quarter of what is sent to the flood: less would not be worth refusing it.
            let wanted = if answer.status == 200 { 4 * PIECE } else { 1 };
            let answer = viewer.get("/a").range(0..wanted).send().await;
            assert_eq!(answer.status, 206, "who is within his share is served");
            tokio::task::yield_now().await;
        }
    });
    bears_it_alone(&edge, tasks).await;
}

#[tokio::test]
async fn however_little_a_site_is_sent_another_ones_flood_does_not_have_its_viewers_refused() {
    let origin = Origin::serving("/a", Script::of(16 * PIECE));
    let edge = two_sites(&origin).setting("limits.egress", "8 Mbit/s").start();
    let (client, viewer) = (edge.client(), other(&edge));
    let connection = client.connect().await.unwrap();
    let mut tasks = JoinSet::new();
    // Who has been let in goes on, whatever is refused to who comes.
    tasks.spawn(async move {
        let mut kept = connection;
        loop {
            let answer = client.get("/a").on(kept).await.unwrap();
            assert_eq!(answer.status, 200, "it is not worth refusing who has been let in");
            kept = answer.finish_and_keep().await.unwrap().1.unwrap();
        }
    });
    let client = edge.client();
    tasks.spawn(async move {
        loop {
            let answer = client.get("/a").range(0..1).send().await;
            assert!([206, 503].contains(&answer.status), "{}", answer.status);
            let answer = viewer.get("/a").range(0..1).send().await;
            assert_eq!(answer.status, 206, "who is within his share is served");
        }
    });
    bears_it_alone(&edge, tasks).await;
}

/// Refused is who has more than his share, until the flood is over.
async fn bears_it_alone(edge: &Edge, mut tasks: JoinSet<()>) {
    let is_much = |refused| refused >= 20.0;
    tokio::select! {
        () = edge.until_metric(REFUSALS, &["\"share\""], is_much) => {}
        ended = tasks.join_next() => ended.unwrap().unwrap(),
    }
    assert_eq!(edge.metric(REFUSALS, &["\"egress\""]).await, 0.0);
    assert!(edge.metric(PRESSURE, &["\"egress_beyond_share\""]).await > 0.0);
    assert!(tasks.try_join_next().is_none(), "it goes on");
    drop(tasks);
    edge.until_metric(PRESSURE, &["\"egress_beyond_share\""], |share| share == 0.0).await;
    assert_eq!(edge.get("/a").send().await.status, 200);
}

/// The answer to a request on a connection that is kept.
async fn on(connection: Connection, request: Request) -> (Response, Connection) {
    let answer = request.on(connection).await.unwrap();
    let (answer, kept) = answer.finish_and_keep().await.unwrap();
    (answer, kept.expect("the connection can be used again"))
}

#[tokio::test]
async fn of_what_a_proxy_asks_over_one_connection_only_the_site_beyond_its_share_is_refused() {
    let origin = Origin::serving("/a", Script::of(16 * PIECE));
    let edge = two_sites(&origin).setting("limits.egress", "8 Mbit/s").start();
    let (flood, viewer) = (edge.client(), other(&edge));
    // Whose connection it was at first says nothing of what is asked for later.
    let mut connections = Vec::new();
    for first in [&flood, &viewer] {
        let connection = first.connect().await.unwrap();
        connections.push(on(connection, first.get("/a").range(0..1)).await.1);
    }
    for mut kept in connections {
        let (mut refused, began) = (0, tokio::time::Instant::now());
        while refused < 2 {
            let (answer, connection) = on(kept, flood.get("/a")).await;
            // A quarter of what is sent to the flood: less would not be worth refusing it.
            let wanted = if answer.status == 200 { 4 * PIECE } else { 1 };
            if answer.status != 200 {
                assert_eq!(answer.status, 503, "{:?}", answer.headers);
                assert!(answer.header("retry-after").parse::<u64>().is_ok());
                refused += 1;
            }
            let (answer, connection) = on(connection, viewer.get("/a").range(0..wanted)).await;
            assert_eq!(answer.status, 206, "who is within his share is served");
            assert!(began.elapsed() < PATIENCE, "{refused} are refused");
            kept = connection;
        }
    }
    assert_eq!(edge.metric(REFUSALS, &["\"share_again\""]).await, 4.0);
}
