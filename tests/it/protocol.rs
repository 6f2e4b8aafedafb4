//! What is spoken with viewers and origins: methods, bodies, heads, names, HTTP/1.1 and HTTP/2.

use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::{BLOCK, Edge, HOST, Origin, PIECE, Script, Speaks, Verdict, judge};

const LENGTH: u64 = BLOCK + PIECE + 9;
const WHOLE: Verdict = Verdict::Whole { version: 1 };

fn started() -> (Origin, Edge) {
    let origin = Origin::serving("/a", Script::of(LENGTH));
    let edge = Edge::in_front_of(&origin).start();
    (origin, edge)
}

#[tokio::test]
async fn every_method_but_get_and_head_is_refused_with_allow() {
    let (origin, edge) = started();
    for client in [edge.client(), edge.client_over_tls(Speaks::Http2)] {
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "PURGE", "get"] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let refused = client.request(method.clone(), "/a").send().await;
            assert_eq!(refused.status, 405, "{method}");
            assert_eq!(refused.header("allow"), "GET, HEAD", "{method}");
        }
    }
    assert_eq!(origin.all_requests().len(), 0);
}

#[tokio::test]
async fn a_body_is_refused_and_never_taken_for_the_next_request() {
    let (origin, edge) = started();
    for client in [edge.client(), edge.client_over_tls(Speaks::Http2)] {
        let asked = client.get("/a").body("GET /smuggled HTTP/1.1\r\nhost: media.test\r\n\r\n");
        let refused = asked.send().await;
        assert!([400, 413].contains(&refused.status), "{}", refused.status);
    }
    for head in [
        "GET /a HTTP/1.1\r\nhost: media.test\r\ntransfer-encoding: chunked\r\n\r\n",
        "GET /a HTTP/1.1\r\nhost: media.test\r\ncontent-length: 5\r\n\
         transfer-encoding: chunked\r\n\r\n",
        "GET /a HTTP/1.1\r\nhost: media.test\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        "GET /a HTTP/1.1\r\nhost: media.test\r\ncontent-length: -1\r\n\r\n",
    ] {
        let smuggled = format!("{head}0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: media.test\r\n\r\n");
        let received = edge.client().raw(smuggled.as_bytes()).await.unwrap();
        assert!(!received.starts_with(b"HTTP/1.1 2"), "{head}");
    }
    assert_eq!(origin.requests("/smuggled").len(), 0);
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused_by_what_is_too_large() {
    let (_origin, edge) = started();
    let target = format!("/{}", "a".repeat(tidegate::limits::REQUEST_TARGET_BYTES_MAX));
    let field = "x".repeat(2 * tidegate::limits::REQUEST_HEAD_BYTES_MAX);
    for (asked, status) in
        [(edge.get(&target), 414), (edge.get("/a").header("x-large", &field), 431)]
    {
        assert_eq!(asked.send().await.status, status);
    }
    let mut many = edge.get("/a");
    for number in 0..2 * tidegate::limits::REQUEST_FIELDS_MAX {
        many = many.header(&format!("x-{number}"), "y");
    }
    assert_eq!(many.send().await.status, 431);
    assert_eq!(edge.get("/a").send().await.status, 200);
}

#[tokio::test]
async fn a_connection_is_for_the_host_it_was_opened_for() {
    let (origin, edge) = started();
    let client = edge.client_over_tls(Speaks::Http1);
    let asked = async |host: &str| client.get("/a").header("host", host).send().await;
    for host in ["media.test", "MEDIA.test.", "media.test:443"] {
        assert_eq!(judge(&origin, "/a", &asked(host).await), WHOLE, "{host}");
    }
    let other = asked("localhost").await;
    let body = String::from_utf8_lossy(&other.body).into_owned();
    assert_eq!((other.status, &*body), (421, "421: the connection was opened for another host\n"));
}

/// A frame of a stream below 256 (RFC 9113 section 4.1).
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
}

/// RFC 9113 section 8.1 allows the reset at once; clients lose the answer by it.
#[tokio::test]
async fn a_refusal_over_http_2_is_not_followed_by_a_reset_while_the_body_comes() {
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const RST_STREAM: u8 = 3;
    const SETTINGS: u8 = 4;
    const PING: u8 = 6;
    const END_STREAM: u8 = 1;
    const END_HEADERS: u8 = 4;
    let (_origin, edge) = started();
    // POST, http and /, by their numbers (RFC 7541 appendix A), and the authority.
    let asked = [&[0x83, 0x86, 0x84, 0x41, HOST.len() as u8], HOST.as_bytes()].concat();
    let mut viewer = TcpStream::connect(edge.client().address()).await.unwrap();
    viewer.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    viewer.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    viewer.write_all(&frame(HEADERS, END_HEADERS, 1, &asked)).await.unwrap();
    let mut kinds = Vec::new();
    while !kinds.contains(&PING) {
        let mut head = [0; 9];
        viewer.read_exact(&mut head).await.unwrap();
        let mut payload = vec![0; usize::from(u16::from_be_bytes([head[1], head[2]]))];
        viewer.read_exact(&mut payload).await.unwrap();
        kinds.push(head[3]);
        if [HEADERS, DATA].contains(&head[3]) && head[4] & END_STREAM != 0 {
            viewer.write_all(&frame(DATA, END_STREAM, 1, b"the rest")).await.unwrap();
            viewer.write_all(&frame(PING, 0, 0, &[0; 8])).await.unwrap();
        }
    }
    assert!(kinds.contains(&HEADERS) && !kinds.contains(&RST_STREAM), "{kinds:?}");
}

#[tokio::test]
async fn names_of_no_site_are_told_apart_from_objects_of_none() {
    let (origin, edge) = started();
    let elsewhere = edge.client().host("elsewhere.test").get("/a").send().await;
    assert_eq!(elsewhere.status, 421);
    assert_eq!(origin.all_requests().len(), 0);
    for host in ["MEDIA.test", "media.test:8080", "media.test."] {
        let response = edge.client().host(host).get("/a").send().await;
        assert_eq!(judge(&origin, "/a", &response), WHOLE, "{host}");
    }
    for head in [
        "GET /a HTTP/1.1\r\n\r\n",
        "GET /a HTTP/1.1\r\nhost: media.test\r\nhost: media.test\r\n\r\n",
        "GET /a HTTP/1.1\r\nhost: a b\r\n\r\n",
    ] {
        let head = head.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n");
        let received = edge.client().raw(head.as_bytes()).await.unwrap();
        let text = String::from_utf8_lossy(&received[..received.len().min(200)]).into_owned();
        assert!(text.starts_with("HTTP/1.1 400"), "{head}: {text}");
    }
}

#[tokio::test]
async fn the_access_log_tells_whose_viewers_ask_wrongly() {
    let folder = tempfile::TempDir::new().unwrap();
    let log = folder.path().join("access.log");
    let origin = Origin::serving("/a", Script::of(LENGTH));
    let edge = Edge::in_front_of(&origin).setting("log.access", log.to_str().unwrap());
    let mut edge = edge.start();
    for client in [edge.client(), edge.client_over_tls(Speaks::Http2)] {
        assert_eq!(client.request(Method::POST, "/a").send().await.status, 405);
    }
    edge.drain().await;
    let lines = std::fs::read_to_string(&log).unwrap();
    assert_eq!(lines.lines().count(), 2, "{lines}");
    assert_eq!(lines.matches(&format!("\"host\":\"{HOST}\"")).count(), 2, "{lines}");
}

#[tokio::test]
async fn one_object_has_one_name_however_it_is_spelled() {
    let (origin, edge) = started();
    origin.serve("/films/one.mp4", Script::of(LENGTH));
    let spelled = [
        "/films/one.mp4",
        "/films/./one.mp4",
        "/films/x/../one.mp4",
        "/%66ilms/one%2Emp4",
        "/../films/one.mp4",
        "http://media.test/films/one.mp4",
    ];
    for target in spelled {
        let response = edge.get(target).send().await;
        assert_eq!(judge(&origin, "/films/one.mp4", &response), WHOLE, "{target}");
    }
    assert_eq!(origin.requests("/films/one.mp4").len(), 1);
    assert_eq!(origin.all_requests().len(), 1);
}

#[tokio::test]
async fn the_query_names_an_object_as_the_rule_says() {
    let origin = Origin::start();
    let edge = Edge::in_front_of(&origin)
        .rule("*.m4s", "query = 'none'")
        .rule("*.ts", "query = { only = ['v'] }")
        .start();
    for (path, targets, requests) in [
        ("/a.mp4", ["/a.mp4?v=1", "/a.mp4?v=2", "/a.mp4"], 3),
        ("/a.m4s", ["/a.m4s?v=1", "/a.m4s?v=2", "/a.m4s"], 1),
        ("/a.ts", ["/a.ts?v=1&session=9", "/a.ts?session=8&v=1", "/a.ts?v=1"], 1),
    ] {
        origin.serve(path, Script::of(PIECE));
        for target in targets.into_iter().chain(targets) {
            let response = edge.get(target).send().await;
            assert_eq!(judge(&origin, path, &response), WHOLE, "{target}");
        }
        assert_eq!(origin.requests(path).len(), requests, "{path}");
    }
    assert_eq!(origin.requests("/a.m4s")[0].head.target, "/a.m4s");
    assert_eq!(origin.requests("/a.ts")[0].head.target, "/a.ts?v=1");
}

#[tokio::test]
async fn http_2_and_tls_bring_the_same_bytes() {
    let (origin, edge) = started();
    for client in
        [edge.client_over_tls(Speaks::Http1), edge.client_over_tls(Speaks::Http2), edge.client()]
    {
        let whole = client.get("/a").send().await;
        assert_eq!((whole.status, judge(&origin, "/a", &whole)), (200, WHOLE));
        let part = client.get("/a").range(PIECE - 1..BLOCK + 1).send().await;
        assert_eq!((part.status, judge(&origin, "/a", &part)), (206, WHOLE));
        let head = client.head("/a").send().await;
        assert_eq!(head.header("content-length"), LENGTH.to_string());
        assert_eq!(head.body.len(), 0);
    }
    assert_eq!(origin.requests("/a").len(), 1);
}

#[tokio::test]
async fn many_streams_of_one_connection_are_each_right() {
    let (origin, edge) = started();
    let client = edge.client_over_tls(Speaks::Http2);
    let connection = client.connect().await.unwrap();
    let mut streams = JoinSet::new();
    for number in 0..50u64 {
        let start = (number * 31_337) % (LENGTH - 1);
        let asked = client.get("/a").range(start..LENGTH.min(start + 3 * PIECE));
        let stream = connection.shared().expect("HTTP/2 has streams");
        streams.spawn(async move { asked.on(stream).await.unwrap().finish().await.unwrap() });
    }
    for part in streams.join_all().await {
        assert_eq!((part.status, judge(&origin, "/a", &part)), (206, WHOLE));
    }
}

#[tokio::test]
async fn a_connection_serves_request_after_request_also_pipelined() {
    let (origin, edge) = started();
    let mut connection = edge.client().connect().await.unwrap();
    for start in [0, 5, PIECE, BLOCK] {
        let streaming = edge.get("/a").range(start..start + 5).on(connection).await.unwrap();
        let (part, kept) = streaming.finish_and_keep().await.unwrap();
        assert_eq!(judge(&origin, "/a", &part), WHOLE);
        connection = kept.expect("the connection is kept");
    }
    let one = format!("GET /a HTTP/1.1\r\nhost: {HOST}\r\nrange: bytes=0-9\r\n\r\n");
    let last = one.replace("0-9", "5-8").replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n");
    let received = edge.client().raw(format!("{one}{one}{last}").as_bytes()).await.unwrap();
    let content = origin.content("/a", 1);
    let heads = received.windows(12).filter(|window| *window == b"HTTP/1.1 206").count();
    assert_eq!(heads, 3);
    assert!(received.ends_with(&content.bytes(5, 4)));
}

#[tokio::test]
async fn what_goes_on_to_the_origin_is_the_viewers_less_what_is_between_two_hops() {
    let (origin, edge) = started();
    let asked = edge
        .get("/a")
        .header("x-viewer", "kept")
        .header("connection", "x-hop, keep-alive")
        .header("x-hop", "dropped")
        .header("te", "trailers")
        .header("proxy-authorization", "Basic YTpi")
        .header("upgrade", "websocket");
    assert_eq!(judge(&origin, "/a", &asked.send().await), WHOLE);
    let requests = origin.requests("/a");
    let head = &requests[0].head;
    assert_eq!(head.header("x-viewer"), "kept");
    for name in ["x-hop", "te", "proxy-authorization", "upgrade", "range", "if-range"] {
        assert_eq!(head.header(name), "", "{name}");
    }
    assert!(!head.headers.contains_key("transfer-encoding"));
}

#[tokio::test]
async fn fields_are_removed_and_added_as_the_rule_says() {
    let script = Script::of(LENGTH).field("Set-Cookie", "a=b").field("X-Origin", "seen");
    let origin = Origin::serving("/a", script);
    let edge = Edge::in_front_of(&origin)
        .rule(
            "**",
            "request = { remove = ['Cookie'], add = { 'X-From' = 'edge' } }\n\
             response = { remove = ['Set-Cookie'], add = { 'X-Edge' = 'yes' } }",
        )
        .start();
    for _ in ["cold", "warm"] {
        let response = edge.get("/a").header("cookie", "secret=1").send().await;
        assert_eq!(judge(&origin, "/a", &response), WHOLE);
        assert_eq!(response.header("x-origin"), "seen");
        assert_eq!(response.header("x-edge"), "yes");
        assert_eq!(response.header("set-cookie"), "");
    }
    let requests = origin.requests("/a");
    assert_eq!(requests.len(), 1, "a cookie that is removed makes nothing private");
    assert_eq!(requests[0].head.header("cookie"), "");
    assert_eq!(requests[0].head.header("x-from"), "edge");
}
