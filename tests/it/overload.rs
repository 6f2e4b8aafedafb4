//! More to do than can be done: who is refused, in which order, and that what has begun goes on.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::proxies::header;
use crate::support::{
    Client, Edge, HOST, HeadFault, Origin, PATIENCE, PIECE, Response, Script, Speaks, Verdict,
    judge,
};

const REFUSALS: &str = "tidegate_overload_refusals_total";
const PRESSURE: &str = "tidegate_overload_pressure_ratio";

/// A client as a load balancer brings him.
fn from(edge: &Edge, ip: &str) -> Client {
    let address = SocketAddr::new(ip.parse().unwrap(), 4_660);
    edge.client().saying_first(&header(address))
}

/// Whether a refusal says when it is worth asking again.
fn retry_after(refusal: &Response) -> bool {
    refusal.header("retry-after").parse::<u64>().is_ok_and(|seconds| (1..=60).contains(&seconds))
}

#[tokio::test]
async fn one_client_asks_no_more_often_than_he_may_and_others_notice_nothing() {
    let origin = Origin::serving("/a", Script::of(PIECE));
    let edge = Edge::in_front_of(&origin)
        .setting("proxies.proxy_protocol", "[\"127.0.0.1\"]")
        .setting("limits.client", "{ requests = 1, bits_v6 = 56 }")
        .start();
    for (mine, others) in [
        (["192.0.2.1", "192.0.2.1"], "192.0.2.2"),
        (["2001:db8:0:100::1", "2001:db8:0:1ff::2"], "2001:db8:0:200::1"),
    ] {
        // Those of two seconds at once, and those of as long as this takes.
        let mut refused = 0;
        for n in 0..60 {
            let answer = from(&edge, mine[n % 2]).get("/a").send().await;
            match answer.status {
                429 => {
                    assert!(retry_after(&answer), "{:?}", answer.headers);
                    refused += 1;
                }
                status => assert_eq!(status, 200),
            }
        }
        assert!(refused > 0, "{mine:?}");
        let other = from(&edge, others).get("/a").send().await;
        assert_eq!(judge(&origin, "/a", &other), Verdict::Whole { version: 1 });
        let counted = edge.metric(REFUSALS, &["\"client_requests\""]).await;
        assert!(counted >= f64::from(refused), "{counted}");
    }
}

#[tokio::test]
async fn one_client_has_no_more_connections_than_he_may_until_he_gives_one_back() {
    let origin = Origin::serving("/a", Script::of(64 * PIECE));
    let edge = Edge::in_front_of(&origin)
        .setting("proxies.proxy_protocol", "[\"127.0.0.1\"]")
        .setting("limits.client.connections", "2")
        .start();
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(from(&edge, "192.0.2.1").get("/a").open().await);
    }
    assert!(from(&edge, "192.0.2.1").get("/a").try_send().await.is_err());
    assert_eq!(edge.metric(REFUSALS, &["\"client_connections\""]).await, 1.0);
    let other = from(&edge, "192.0.2.2").get("/a").send().await;
    assert_eq!(judge(&origin, "/a", &other), Verdict::Whole { version: 1 });

    // Those he has go on to their ends, and one that ends is another's place.
    for body in held {
        let answer = body.finish().await.unwrap();
        assert_eq!(judge(&origin, "/a", &answer), Verdict::Whole { version: 1 });
    }
    edge.until_metric("tidegate_connections_open", &[], |open| open == 0.0).await;
    let again = from(&edge, "192.0.2.1").get("/a").send().await;
    assert_eq!(again.status, 200);
}

#[tokio::test]
async fn who_comes_through_a_proxy_is_counted_by_himself_and_the_proxy_is_nobody() {
    let origin = Origin::serving("/a", Script::of(PIECE));
    let edge = Edge::in_front_of(&origin)
        .setting("proxies.forwarded", "[\"127.0.0.1\"]")
        .setting("limits.client", "{ connections = 1, requests = 1 }")
        .start();
    let mut connections = Vec::new();
    for n in 0..20 {
        let asked = edge.get("/a").header("x-forwarded-for", &format!("192.0.2.{n}"));
        let connection = edge.client().connect().await.unwrap();
        let (answer, kept) = asked.on(connection).await.unwrap().finish_and_keep().await.unwrap();
        assert_eq!(answer.status, 200);
        connections.push(kept);
    }
    let one = edge.get("/a").header("x-forwarded-for", "198.51.100.1");
    let mut statuses = Vec::new();
    for _ in 0..60 {
        statuses.push(one.send().await.status);
    }
    assert!(statuses.contains(&429), "{statuses:?}");
}

#[tokio::test]
async fn handshakes_beyond_their_rate_are_refused_before_they_cost_anything() {
    let origin = Origin::serving("/a", Script::of(PIECE));
    let edge = Edge::in_front_of(&origin).setting("limits.handshakes", "1").start();
    let client = edge.client_over_tls(Speaks::Http1);
    let kept = client.connect().await.unwrap();
    let mut refused = 0.0;
    for _ in 0..60 {
        refused += f64::from(u8::from(client.connect().await.is_err()));
    }
    assert!(refused > 0.0);
    assert_eq!(edge.metric(REFUSALS, &["\"handshakes\""]).await, refused);
    assert_eq!(edge.metric("tidegate_tls_handshakes_total", &["\"failed\""]).await, 0.0);
    // Who has shaken hands, and who need not, is served.
    let answer = client.get("/a").on(kept).await.unwrap().finish().await.unwrap();
    assert_eq!(judge(&origin, "/a", &answer), Verdict::Whole { version: 1 });
    assert_eq!(edge.get("/a").send().await.status, 200);
}

#[tokio::test]
async fn near_its_egress_a_box_says_so_and_above_it_new_viewers_are_sent_away() {
    let origin = Origin::serving("/a", Script::of(16 * PIECE));
    let edge = Edge::in_front_of(&origin).setting("limits.egress", "8 Mbit/s").start();
    let client = edge.client();
    let let_in = [edge.client(), edge.client_over_tls(Speaks::Http1)];
    let mut kept = Vec::new();
    for client in &let_in {
        let answer = client.get("/a").range(0..1).on(client.connect().await.unwrap()).await;
        kept.push(answer.unwrap().finish_and_keep().await.unwrap().1.unwrap());
    }
    let mut flood = JoinSet::new();
    flood.spawn(async move {
        let mut connection = client.connect().await.unwrap();
        loop {
            let answer = client.get("/a").on(connection).await.unwrap();
            let (answer, kept) = answer.finish_and_keep().await.unwrap();
            assert_eq!(answer.status, 200, "who has been let in is served");
            connection = kept.unwrap();
            tokio::task::yield_now().await;
        }
    });
    edge.until_metric("tidegate_egress_near_limit", &[], |near| near == 1.0).await;
    edge.until_metric(PRESSURE, &["\"egress\""], |share| share == 1.0).await;
    let refused = [Speaks::Http1, Speaks::Http2].map(|speaks| edge.client_over_tls(speaks));
    for client in [edge.client()].into_iter().chain(refused) {
        let answer = client.get("/a").send().await;
        assert_eq!(answer.status, 503, "{:?}", answer.headers);
        assert!(retry_after(&answer), "{:?}", answer.headers);
        assert_eq!(answer.header("cache-control"), "no-store");
    }
    assert_eq!(edge.metric(REFUSALS, &["\"egress\""]).await, 3.0);
    for (client, connection) in let_in.iter().zip(kept) {
        let answer = client.get("/a").on(connection).await.unwrap().finish().await.unwrap();
        assert_eq!(judge(&origin, "/a", &answer), Verdict::Whole { version: 1 });
    }
    assert!(flood.try_join_next().is_none(), "it goes on");
    drop(flood);
    edge.until_metric(PRESSURE, &["\"egress\""], |share| share == 0.0).await;
    assert_eq!(edge.metric("tidegate_egress_near_limit", &[]).await, 0.0);
    assert_eq!(edge.get("/a").send().await.status, 200);
}

/// Asks for `/a` without a pause and reads what comes, on a connection of its own.
async fn ask_without_a_pause(address: SocketAddr) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut answers, mut requests) = stream.into_split();
    let asked = format!("HEAD /a HTTP/1.1\r\nHost: {HOST}\r\n\r\n").repeat(500);
    let asking = async { while requests.write_all(asked.as_bytes()).await.is_ok() {} };
    let reading = async {
        let mut space = vec![0; 64 << 10];
        while answers.read(&mut space).await.is_ok_and(|bytes| bytes > 0) {}
    };
    tokio::join!(asking, reading);
}

#[tokio::test]
async fn a_worker_that_is_late_refuses_new_viewers_then_misses_and_never_who_is_served() {
    let origin = Origin::serving("/a", Script::of(PIECE));
    for path in ["/b", "/c", "/d"] {
        origin.serve(path, Script::of(PIECE));
    }
    let edge = Edge::in_front_of(&origin).setting("limits.lag", "10ms").workers(1).start();
    let client = edge.client();
    let answer = client.get("/a").on(client.connect().await.unwrap()).await.unwrap();
    let mut let_in = answer.finish_and_keep().await.unwrap().1.unwrap();
    let mut flood = JoinSet::new();
    for _ in 0..100 {
        flood.spawn(ask_without_a_pause(client.address()));
    }
    edge.until_metric(PRESSURE, &["\"lag\""], |share| share == 2.0).await;
    let answer = edge.get("/a").send().await;
    assert_eq!(answer.status, 503, "a new viewer");
    assert!(retry_after(&answer) && answer.header("connection") == "close");
    assert!(edge.client_over_tls(Speaks::Http1).connect().await.is_err(), "before a handshake");
    let mut statuses = Vec::new();
    for path in ["/b", "/c", "/a"] {
        let answer = client.get(path).on(let_in).await.unwrap();
        let (answer, kept) = answer.finish_and_keep().await.unwrap();
        assert!(answer.status == 200 || retry_after(&answer), "{path}: {:?}", answer.headers);
        statuses.push(answer.status);
        let_in = kept.unwrap();
    }
    // One miss in ten is let in, of those of all viewers.
    assert!(statuses[..2].contains(&503) && statuses[2] == 200, "{statuses:?}");
    for reason in ["\"lag\"", "\"miss\""] {
        assert!(edge.metric(REFUSALS, &[reason]).await >= 1.0, "{reason}");
    }
    drop(flood);
    edge.until_metric(PRESSURE, &["\"lag\""], |share| share == 0.0).await;
    for path in ["/a", "/b"] {
        let answer = client.get(path).on(let_in).await.unwrap();
        let (answer, kept) = answer.finish_and_keep().await.unwrap();
        assert_eq!(judge(&origin, path, &answer), Verdict::Whole { version: 1 });
        let_in = kept.unwrap();
    }
    assert_eq!(edge.get("/d").send().await.status, 200);
}

#[tokio::test]
async fn a_flood_of_misses_to_one_site_whose_origin_hangs_delays_no_miss_of_another() {
    let origin = Origin::serving("/b", Script::of(PIECE));
    let edge = Edge::in_front_of(&origin).site("other").setting("fill.runs", "8").start();
    let mut flood = JoinSet::new();
    for number in 0..40 {
        let path = format!("/hangs/{number}");
        origin.serve(&path, Script::of(PIECE).head(HeadFault::Held));
        let asked = edge.get(&path);
        flood.spawn(async move { drop(asked.try_send().await) });
    }
    let held = || {
        let held = origin.all_requests().into_iter();
        held.filter(|asked| asked.head.target.starts_with("/hangs/")).count()
    };
    let began = tokio::time::Instant::now();
    while held() < 7 {
        assert!(began.elapsed() < PATIENCE, "{} are asked for", held());
        tokio::task::yield_now().await;
    }
    let answer = edge.client().host("other.test").get("/b").send().await;
    assert_eq!(judge(&origin, "/b", &answer), Verdict::Whole { version: 1 });
    assert_eq!(held(), 7, "seven eighths, and the flood waits behind itself");
}
