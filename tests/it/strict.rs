//! Strict reading (RFC 9112): what could be read in two ways is refused, and nothing that follows
//! it is taken for a request.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::{Edge, HOST, Origin, PIECE, Script, Speaks, Verdict, judge};

const LENGTH: u64 = PIECE + 9;

/// Heads, `{h}` for the line with their host, and the reason each is counted with.
const REFUSED: &[(&str, &str)] = &[
    ("GET /b HTTP/1.1\n{h}\r\n", "line_end"),
    ("GET /b HTTP/1.1\r\n{h}\n", "line_end"),
    ("GET /b HTTP/1.1\r\n{h}X: a\rY: b\r\n\r\n", "line_end"),
    ("GET /b HTTP/1.1\r\n{h}X: a\n\r\n", "line_end"),
    ("GET  /b HTTP/1.1\r\n{h}\r\n", "start_line"),
    ("GET /b  HTTP/1.1\r\n{h}\r\n", "start_line"),
    ("GET /b HTTP/1.1 \r\n{h}\r\n", "start_line"),
    ("GET\t/b HTTP/1.1\r\n{h}\r\n", "start_line"),
    (" GET /b HTTP/1.1\r\n{h}\r\n", "start_line"),
    ("GET /b\u{1} HTTP/1.1\r\n{h}\r\n", "start_line"),
    ("GET /b\u{7f} HTTP/1.1\r\n{h}\r\n", "start_line"),
    ("GET /b HTTP/1.2\r\n{h}\r\n", "start_line"),
    ("GET /b HTTP/3.0\r\n{h}\r\n", "start_line"),
    ("GET /b HTTP/0.9\r\n{h}\r\n", "start_line"),
    ("GET /b\r\n{h}\r\n", "start_line"),
    ("G@T /b HTTP/1.1\r\n{h}\r\n", "start_line"),
    ("GET /b HTTP/1.1\r\n{h}X: a\r\n b\r\n\r\n", "field"),
    ("GET /b HTTP/1.1\r\n X: a\r\n{h}\r\n", "field"),
    ("GET /b HTTP/1.1\r\n{h}X : a\r\n\r\n", "field"),
    ("GET /b HTTP/1.1\r\n{h}X\r\n\r\n", "field"),
    ("GET /b HTTP/1.1\r\n{h}: a\r\n\r\n", "field"),
    ("GET /b HTTP/1.1\r\n{h}X(: a\r\n\r\n", "field"),
    ("GET /b HTTP/1.1\r\n{h}X: a\u{0}b\r\n\r\n", "field"),
    ("GET /b HTTP/1.1\r\n{h}X: \u{8}\r\n\r\n", "field"),
    ("POST /b HTTP/1.1\r\n{h}Content-Length: 4\r\nContent-Length: 4\r\n\r\n", "framing"),
    ("POST /b HTTP/1.1\r\n{h}Content-Length: 4\r\nContent-Length: 0\r\n\r\n", "framing"),
    ("POST /b HTTP/1.1\r\n{h}Content-Length: 0, 4\r\n\r\n", "framing"),
    ("POST /b HTTP/1.1\r\n{h}Content-Length: +4\r\n\r\n", "framing"),
    ("POST /b HTTP/1.1\r\n{h}Content-Length: 0x4\r\n\r\n", "framing"),
    ("POST /b HTTP/1.1\r\n{h}Content-Length: 4 4\r\n\r\n", "framing"),
    ("POST /b HTTP/1.1\r\n{h}Content-Length:\r\n\r\n", "framing"),
    ("POST /b HTTP/1.1\r\n{h}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n", "framing"),
    ("POST /b HTTP/1.1\r\n{h}Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n", "framing"),
    ("POST /b HTTP/1.1\r\n{h}Transfer-Encoding: chunked, identity\r\n\r\n", "framing"),
    ("POST /b HTTP/1.1\r\n{h}Transfer-Encoding: \u{b}chunked\r\n\r\n", "field"),
    ("POST /b HTTP/1.1\r\n{h}Transfer-Encoding: xchunked\r\n\r\n", "framing"),
    ("POST /b HTTP/1.0\r\n{h}Transfer-Encoding: chunked\r\n\r\n", "framing"),
    ("GET /b HTTP/1.1\r\n\r\n", "host"),
    ("GET /b HTTP/1.1\r\n{h}{h}\r\n", "host"),
    ("GET /b HTTP/1.1\r\nHost: user@media.test\r\n\r\n", "host"),
    ("GET /b HTTP/1.1\r\nHost: media.test, media.test\r\n\r\n", "host"),
    ("GET http://user@media.test/b HTTP/1.1\r\n{h}\r\n", "host"),
    ("GET ftp://media.test/b HTTP/1.1\r\n{h}\r\n", "target"),
    ("GET /%zz HTTP/1.1\r\n{h}\r\n", "target"),
];

#[tokio::test]
async fn what_could_be_read_in_two_ways_is_refused_in_its_turn_and_ends_the_connection() {
    let origin = Origin::serving("/a", Script::of(LENGTH));
    let edge = Edge::in_front_of(&origin).start();
    let good = |path| format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    assert_eq!(judge(&origin, "/a", &edge.get("/a").send().await), Verdict::Whole { version: 1 });
    let mut counts = std::collections::BTreeMap::<&str, f64>::new();
    for client in [edge.client(), edge.client_over_tls(Speaks::Http1)] {
        for (head, reason) in REFUSED {
            let head = head.replace("{h}", &format!("Host: {HOST}\r\n"));
            let sent = [&good("/a"), &head, &good("/smuggled")].map(String::as_str).concat();
            let received = client.raw(sent.as_bytes()).await.unwrap();
            let answers = String::from_utf8_lossy(&received).into_owned();
            let statuses: Vec<_> = answers.match_indices("HTTP/1.1 ").collect();
            let status = |number: usize| &answers[statuses[number].0 + 9..][..3];
            assert_eq!(statuses.len(), 2, "{head:?}: {} answers", statuses.len());
            assert_eq!((status(0), status(1)), ("200", "400"), "{head:?}");
            let last = answers[statuses[1].0..].to_lowercase();
            assert!(last.contains("connection: close"), "{head:?}: {last}");
            *counts.entry(reason).or_default() += 1.0;
        }
    }
    for (reason, count) in counts {
        let label = format!("reason=\"{reason}\"");
        let counted = edge.metric("tidegate_requests_refused_total", &[&label]).await;
        assert_eq!(counted, count, "{reason}");
    }
    assert_eq!(origin.requests("/smuggled").len(), 0);
    assert_eq!(origin.all_requests().len(), 1, "none of it came to the origin");
}

/// Answers of an origin, and whether they can be used.
const ANSWERS: &[(&str, bool)] = &[
    ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody", true),
    ("HTTP/1.1 200\r\nContent-Length: 4\r\n\r\nbody", true),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n", true),
    ("HTTP/1.0 200 OK\r\n\r\nbody", true),
    ("HTTP/1.1 103 Early\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody", true),
    ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\n\r\nHTTP/1.0 200 OK\r\n\r\nbody", true),
    ("HTTP/1.1 103 Early\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody", false),
    ("HTTP/1.1 200 OK\nContent-Length: 4\r\n\r\nbody", false),
    ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\nbody", false),
    ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX: a\r\n b\r\n\r\nbody", false),
    ("HTTP/1.1 200 OK\r\nContent-Length : 4\r\n\r\nbody", false),
    ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nX: \u{0}\r\n\r\nbody", false),
    ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\nbody", false),
    ("HTTP/1.1 200 OK\r\nContent-Length: 4, 4\r\n\r\nbody", false),
    ("HTTP/1.1 200 OK\r\nContent-Length: +4\r\n\r\nbody", false),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n\
         4\r\nbody\r\n0\r\n\r\n",
        false,
    ),
    ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n", false),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nbody", false),
    ("HTTP/1.1  200 OK\r\nContent-Length: 4\r\n\r\nbody", false),
    ("HTTP/1.1 0200 OK\r\nContent-Length: 4\r\n\r\nbody", false),
    ("HTTP/2.0 200 OK\r\nContent-Length: 4\r\n\r\nbody", false),
    ("ICY 200 OK\r\nContent-Length: 4\r\n\r\nbody", false),
    ("\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody", false),
    ("body", false),
];

/// Says to each request for `/N` what stands at N, in steps of a few bytes, and closes.
async fn answer(listener: TcpListener) {
    loop {
        let (mut socket, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                if socket.read_buf(&mut head).await.unwrap() == 0 {
                    return;
                }
            }
            let target = String::from_utf8(head).unwrap().split(' ').nth(1).unwrap().to_owned();
            let number: usize = target.trim_start_matches('/').parse().unwrap();
            socket.set_nodelay(true).unwrap();
            for step in ANSWERS[number].0.as_bytes().chunks(29) {
                let _ = socket.write_all(step).await;
                tokio::task::yield_now().await;
            }
        });
    }
}

#[tokio::test]
async fn an_origin_whose_answer_could_be_read_in_two_ways_has_given_none() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let edge = Edge::at(listener.local_addr().unwrap()).start();
    let answering = tokio::spawn(answer(listener));
    for (number, (answer, is_usable)) in ANSWERS.iter().enumerate() {
        let got = edge.get(&format!("/{number}")).send().await;
        let expected: (u16, &[u8]) = if *is_usable { (200, b"body") } else { (502, &got.body) };
        assert_eq!((got.status, &got.body[..]), expected, "{answer:?}");
    }
    answering.abort();
}

#[tokio::test]
async fn a_request_that_comes_back_is_told_so() {
    let origin = Origin::serving("/a", Script::of(LENGTH));
    let edge = Edge::in_front_of(&origin).start();
    let asked = edge.get("/a").header("via", "1.1 tidegate-another, 1.0 fred (a proxy)");
    assert_eq!(judge(&origin, "/a", &asked.send().await), Verdict::Whole { version: 1 });
    let requests = origin.requests("/a");
    let via: Vec<_> = requests[0].head.headers.get_all("via").iter().collect();
    assert_eq!(via.len(), 2, "{via:?}");
    assert_eq!(via[0], "1.1 tidegate-another, 1.0 fred (a proxy)");
    for path in ["/a", "/b"] {
        let back = edge.get(path).header("via", via[1].to_str().unwrap()).send().await;
        assert_eq!(back.status, 508, "{path}");
    }
    assert_eq!(origin.all_requests().len(), 1);
    let counted = edge.metric("tidegate_requests_refused_total", &["reason=\"loop\""]).await;
    assert_eq!(counted, 2.0);
}
