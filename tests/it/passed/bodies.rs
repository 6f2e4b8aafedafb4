//! Bodies on their way to an origin: bounded in bytes and in time, and never gathered.

use super::*;
use crate::support::mixed;

/// So much of it that no buffers on the way hold half of it.
const MUCH: usize = 96 << 20;
const STEP: usize = 64 << 10;

fn part(number: usize) -> Vec<u8> {
    (0..STEP / 8).flat_map(|word| mixed((number * STEP + word) as u64).to_le_bytes()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_sends_no_faster_than_the_origin_reads_and_every_byte_arrives() {
    let origin = Driven::start();
    let edge = origin.edge().start();
    let mut viewer = Said::to(&edge).await;
    viewer.say(posted("/up", &format!("Content-Length: {MUCH}\r\n"))).await;
    let mut asked = origin.asked().await;
    assert_eq!(field(&asked.head, "content-length"), Some(&*MUCH.to_string()));

    // Until nobody takes any more of it.
    let mut sent = 0;
    let mut left = Vec::new();
    while sent < MUCH {
        left = part(sent / STEP);
        let sending = viewer.stream.write_all(&left);
        if timeout(Duration::from_millis(500), sending).await.is_err() {
            break;
        }
        sent += STEP;
    }
    assert!(sent < MUCH / 2, "{sent} bytes were taken and not read");
    let reserved = edge.metric("tidegate_memory_used_bytes", &["use=\"requests\""]).await;
    assert!(reserved < f64::from(1 << 20), "{reserved}");

    drop((viewer, left));
    // The origin sees that it is no whole.
    let mut taken = asked.said.unread.len();
    while let Ok(count @ 1..) = asked.said.stream.read_buf(&mut asked.said.unread).await {
        taken += count;
        asked.said.unread.clear();
    }
    assert!(taken < MUCH);

    // The same again, to its end.
    let mut viewer = Said::to(&edge).await;
    viewer.say(posted("/up", &format!("Content-Length: {MUCH}\r\n"))).await;
    let sending = tokio::spawn(async move {
        for number in 0..MUCH / STEP {
            viewer.say(part(number)).await;
        }
        viewer
    });
    let mut asked = origin.asked().await;
    for number in 0..MUCH / STEP {
        assert!(asked.said.exactly(STEP).await == part(number), "part {number}");
    }
    asked.said.say(NO_CONTENT).await;
    let head = sending.await.unwrap().head().await;
    assert!(head.starts_with("HTTP/1.1 204 "), "{head}");
    let reserved = edge.metric("tidegate_memory_used_bytes", &["use=\"requests\""]).await;
    assert_eq!(reserved, 0.0, "what was reserved for it is free again");
}

#[tokio::test]
async fn a_body_without_a_length_goes_in_chunks_and_its_connection_ends_with_the_answer() {
    let origin = Driven::start();
    let edge = origin.edge().start();
    let mut viewer = Said::to(&edge).await;
    let chunks = "5\r\nhello\r\n6; a=b\r\n world\r\n0\r\nX-Trailer: 1\r\n\r\n";
    viewer
        .say(posted("/up", "Transfer-Encoding: chunked\r\nTrailer: X-Trailer\r\n") + chunks)
        .await;
    let mut asked = origin.asked().await;
    assert_eq!(field(&asked.head, "transfer-encoding"), Some("chunked"));
    assert_eq!(field(&asked.head, "content-length"), None);
    assert_eq!(field(&asked.head, "trailer"), None, "trailers are dropped");
    let mut body = Vec::new();
    while !body.ends_with(b"0\r\n\r\n") {
        body.extend(asked.said.exactly(1).await);
    }
    let body = String::from_utf8(body).unwrap();
    assert!(body.contains("hello") && body.contains(" world") && !body.contains("X-Trailer"));
    asked.said.say(NO_CONTENT).await;
    let head = viewer.head().await;
    assert!(head.starts_with("HTTP/1.1 204 "), "{head}");
    assert_eq!(field(&head, "connection"), Some("close"));
    assert_eq!(viewer.rest().await, "");
}

#[tokio::test]
async fn chunks_beyond_the_bound_are_cut_on_both_sides() {
    let origin = Driven::start();
    let edge = Edge::at(origin.0.local_addr().unwrap())
        .rule("**", "methods = [\"POST\"]\nrequest_body = \"100 kB\"")
        .start();
    let mut viewer = Said::to(&edge).await;
    viewer.say(posted("/up", "Transfer-Encoding: chunked\r\n")).await;
    let mut asked = origin.asked().await;
    let chunk = ["8000\r\n", &"x".repeat(0x8000), "\r\n"].concat();
    for _ in 0..4 {
        viewer.say(&chunk).await;
    }
    let head = viewer.head().await;
    assert!(head.starts_with("HTTP/1.1 413 "), "{head}");
    assert_eq!(field(&head, "connection"), Some("close"));
    let body = asked.said.rest().await;
    assert!(!body.ends_with("0\r\n\r\n"), "it is no whole");
    let refused = edge.metric("tidegate_requests_refused_total", &["reason=\"body\""]).await;
    assert_eq!(refused, 1.0);
    assert!(origin.is_left_alone().await, "and not sent again");
}

#[tokio::test]
async fn a_viewer_who_stops_in_a_body_is_told_and_his_body_is_no_whole() {
    let origin = Driven::start();
    let edge = origin.edge().setting("limits.slow_reader.period", "1s").start();
    for (framing, part) in
        [("Content-Length: 100", "half"), ("Transfer-Encoding: chunked", "4\r\nhalf\r\n")]
    {
        let mut viewer = Said::to(&edge).await;
        viewer.say(posted("/up", &format!("{framing}\r\n")) + part).await;
        let mut asked = origin.asked().await;
        let head = viewer.head().await;
        assert!(head.starts_with("HTTP/1.1 408 "), "{framing}: {head}");
        assert_eq!(field(&head, "connection"), Some("close"));
        assert!(asked.said.rest().await.len() <= part.len(), "{framing}");
    }
}

#[tokio::test]
async fn an_origin_that_stops_is_given_up() {
    let origin = Driven::start();
    let edge = origin
        .edge()
        .setting("fill.progress_timeout", "1s")
        .setting("fill.first_byte_timeout", "1s")
        .start();
    // It has all of it, and says nothing.
    let mut viewer = Said::to(&edge).await;
    viewer.say(posted("/up", "Content-Length: 5\r\n") + "hello").await;
    let mut asked = origin.asked().await;
    assert_eq!(asked.said.exactly(5).await, b"hello");
    let head = viewer.head().await;
    assert!(head.starts_with("HTTP/1.1 504 "), "{head}");
    assert_eq!(asked.said.rest().await, "", "it is closed");

    // It takes no more of it.
    let mut viewer = Said::to(&edge).await;
    viewer.say(posted("/up", &format!("Content-Length: {MUCH}\r\n"))).await;
    let _asked = origin.asked().await;
    let bytes = vec![0; MUCH];
    let (mut reading, mut writing) = viewer.stream.split();
    let mut head = Vec::new();
    let told = async {
        while !head.windows(4).any(|window| window == b"\r\n\r\n") {
            assert!(reading.read_buf(&mut head).await.unwrap() > 0);
        }
    };
    tokio::select! {
        () = within("an answer", told) => {}
        sent = writing.write_all(&bytes) => panic!("all of it was taken: {sent:?}"),
    }
    assert!(head.starts_with(b"HTTP/1.1 504 "), "{:?}", String::from_utf8_lossy(&head));
    assert!(origin.is_left_alone().await, "nothing is sent twice");
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_body_is_passed_on() {
    let origin = Driven::start();
    let edge = origin.edge().start();
    for closes in [true, false] {
        let mut viewer = Said::to(&edge).await;
        viewer.say(posted("/up", &format!("Content-Length: {MUCH}\r\n")) + "some").await;
        let mut asked = origin.asked().await;
        asked.said.say("HTTP/1.1 413 No\r\nContent-Length: 4\r\n\r\nmuch").await;
        let kept = (!closes).then_some(asked);
        let head = viewer.head().await;
        assert!(head.starts_with("HTTP/1.1 413 "), "{head}");
        assert_eq!(field(&head, "connection"), Some("close"));
        assert_eq!(viewer.exactly(4).await, b"much");
        if let Some(mut asked) = kept {
            assert!(asked.said.rest().await.len() <= 4, "the edge closes");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_origin_has_said_is_read_although_it_takes_no_more() {
    let origin = Driven::start();
    let edge = origin.edge().start();
    for _ in 0..10 {
        let mut viewer = Said::to(&edge).await;
        viewer.say(posted("/up", &format!("Content-Length: {MUCH}\r\n"))).await;
        let (mut reading, mut writing) = viewer.stream.into_split();
        let sending = tokio::spawn(async move { writing.write_all(&vec![0; MUCH]).await.is_ok() });
        let mut asked = origin.asked().await;
        asked.said.say("HTTP/1.1 413 No\r\nContent-Length: 4\r\n\r\nmuch").await;
        // With bytes unread: the kernel resets the connection.
        drop(asked);
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nmuch") {
            let count = within("the answer", reading.read_buf(&mut answer)).await.unwrap();
            let said = String::from_utf8_lossy(&answer);
            assert!(count > 0 && said.starts_with("HTTP/1.1 413 "), "{said}");
        }
        assert!(!sending.await.unwrap(), "nobody takes all of it");
    }
}

/// A viewer who has sent five bytes of nine and has a head; an origin that has sent half a body.
async fn half_answered(origin: &Driven, edge: &Edge) -> (Said, Asked) {
    let mut viewer = Said::to(edge).await;
    viewer.say(posted("/up", "Content-Length: 9\r\n") + "first").await;
    let mut asked = origin.asked().await;
    assert_eq!(asked.said.exactly(5).await, b"first");
    asked.said.say("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf").await;
    assert!(viewer.head().await.starts_with("HTTP/1.1 200 "));
    (viewer, asked)
}

#[tokio::test]
async fn an_origin_may_answer_while_it_reads() {
    let origin = Driven::start();
    let edge = origin.edge().start();
    let (mut viewer, mut asked) = half_answered(&origin, &edge).await;
    assert_eq!(viewer.exactly(4).await, b"half");
    viewer.say("last").await;
    assert_eq!(asked.said.exactly(4).await, b"last");
    asked.said.say("rest").await;
    assert_eq!(viewer.exactly(4).await, b"rest");
    assert_eq!(viewer.rest().await, "");
}

#[tokio::test]
async fn a_viewer_who_stops_when_he_is_answered_loses_nothing_of_that() {
    let origin = Driven::start();
    let edge = origin.edge().setting("limits.slow_reader.period", "1s").start();
    let (mut viewer, mut asked) = half_answered(&origin, &edge).await;
    // Longer than he has for what he owes.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    asked.said.say("rest").await;
    assert_eq!(viewer.exactly(8).await, b"halfrest");
    assert_eq!(viewer.rest().await, "");
}

#[tokio::test]
async fn who_waits_for_a_word_has_it_from_the_origin() {
    let origin = Driven::start();
    let edge = origin.edge().start();
    let mut viewer = Said::to(&edge).await;
    viewer.say(posted("/up", "Content-Length: 5\r\nExpect: 100-Continue\r\n")).await;
    let mut asked = origin.asked().await;
    assert_eq!(field(&asked.head, "expect"), Some("100-continue"));
    asked.said.say("HTTP/1.1 103 Early\r\nLink: a\r\n\r\nHTTP/1.1 100 Go on\r\n\r\n").await;
    assert_eq!(viewer.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    viewer.say("hello").await;
    assert_eq!(asked.said.exactly(5).await, b"hello");
    asked.said.say(NO_CONTENT).await;
    let head = viewer.head().await;
    assert!(head.starts_with("HTTP/1.1 204 "), "{head}");

    // An origin that knows no such word is waited for, but not for ever; the connection was kept.
    viewer.say(posted("/up", "Content-Length: 5\r\nExpect: 100-continue\r\n")).await;
    let mut asked = origin.asked().await;
    assert_eq!(viewer.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    viewer.say("hello").await;
    assert_eq!(asked.said.exactly(5).await, b"hello");
    asked.said.say(NO_CONTENT).await;
    assert!(viewer.head().await.starts_with("HTTP/1.1 204 "));

    // Refused by its head alone: no body is asked for.
    viewer.say(posted("/up", "Content-Length: 5\r\nExpect: 100-continue\r\n")).await;
    let mut asked = origin.asked().await;
    asked.said.say("HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n").await;
    let head = viewer.head().await;
    assert!(head.starts_with("HTTP/1.1 401 "), "{head}");
    assert_eq!(field(&head, "connection"), Some("close"));
}

#[tokio::test]
async fn over_http_2_it_is_the_same() {
    let origin = Driven::start();
    let edge = origin.edge().start();
    let body: Vec<u8> = (0..300_000).map(|at| (at % 251) as u8).collect();
    for speaks in [Speaks::Http1, Speaks::Http2] {
        let client = edge.client_over_tls(speaks);
        let request = client.request(Method::PUT, "/up").body(body.clone());
        let asking = tokio::spawn(async move { request.send().await });
        let mut asked = origin.asked().await;
        assert!(asked.head.starts_with("PUT /up HTTP/1.1\r\n"), "{}", asked.head);
        assert_eq!(field(&asked.head, "content-length"), Some("300000"), "{speaks:?}");
        assert!(asked.said.exactly(300_000).await == body, "{speaks:?}");
        let answer =
            "HTTP/1.1 201 Made\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ndone\r\n0\r\n\r\n";
        asked.said.say(answer).await;
        let answer: Response = asking.await.unwrap();
        assert_eq!((answer.status, &answer.body[..]), (201, &b"done"[..]), "{speaks:?}");
        assert_eq!(answer.header("cache-status"), "tidegate; fwd=method; fwd-status=201");
    }
    let labels = ["method=\"other\"", "status=\"2xx\""];
    assert_eq!(edge.metric("tidegate_requests_total", &labels).await, 2.0);
    let passed = edge.metric("tidegate_response_body_bytes_total", &["tier=\"pass\""]).await;
    assert_eq!(passed, 8.0);
}

#[tokio::test]
async fn what_breaks_off_once_the_answer_has_begun_is_no_whole_either() {
    let origin = Driven::start();
    let narrow = "methods = [\"POST\"]\nrequest_body = \"10 B\"";
    for wrong in ["no size\r\n", "8\r\ntoo much\r\n2\r\nof\r\n0\r\n\r\n"] {
        let edge = Edge::at(origin.0.local_addr().unwrap()).rule("**", narrow).start();
        let mut viewer = Said::to(&edge).await;
        viewer.say(posted("/up", "Transfer-Encoding: chunked\r\n") + "5\r\nfirst\r\n").await;
        let mut asked = origin.asked().await;
        assert_eq!(asked.said.exactly(10).await, b"5\r\nfirst\r\n");
        asked.said.say("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf").await;
        assert!(viewer.head().await.starts_with("HTTP/1.1 200 "));
        assert_eq!(viewer.exactly(4).await, b"half");
        viewer.say(wrong).await;
        // Long enough for what must not come.
        tokio::time::sleep(Duration::from_millis(300)).await;
        asked.said.say("rest").await;
        assert_eq!(asked.said.rest().await, "", "{wrong:?}");
    }
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
}

#[tokio::test]
async fn over_http_2_who_is_refused_early_may_end_before_his_stream_is_reset() {
    const ENDS_STREAM: u8 = 1;
    let [data, headers, reset, settings, ping] = [0, 1, 3, 4, 6];
    let origin = Driven::start();
    let edge = origin.edge().start();
    let mut viewer = Said::to(&edge).await;
    viewer.say(posted("/up", "Content-Length: 0\r\n")).await;
    let mut asked = origin.asked().await;
    let via = field(&asked.head, "via").unwrap().to_owned();
    asked.said.say(NO_CONTENT).await;

    let mut viewer = Said::to(&edge).await;
    let text = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
    // POST, http, and by their places in the table: path, authority, via.
    let fields = [
        &[0x83, 0x86][..],
        &[&[0x04], &text("/up")[..]].concat(),
        &[&[0x01], &text(HOST)[..]].concat(),
        &[&[0x0f, 0x2d], &text(&via)[..]].concat(),
    ];
    viewer.say("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    viewer.say(frame(settings, 0, 0, &[])).await;
    viewer.say(frame(headers, 4, 1, &fields.concat())).await;
    let (mut is_answered, mut told) = (false, Vec::new());
    while told.last() != Some(&ping) {
        let head = viewer.exactly(9).await;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        viewer.exactly(length as usize).await;
        told.push(head[3]);
        let is_answer = head[3] == headers || head[3] == data;
        if is_answer && head[4] & ENDS_STREAM != 0 && !is_answered {
            is_answered = true;
            viewer.say(frame(data, ENDS_STREAM, 1, b"all")).await;
            viewer.say(frame(ping, 0, 0, &[0; 8])).await;
        }
    }
    assert!(is_answered && !told.contains(&reset), "{told:?}");
}
