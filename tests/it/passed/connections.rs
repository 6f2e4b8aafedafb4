//! A connection on which bodies came: where each message ends, both sides agree.

use super::*;

/// Answers every request with its method, its target and the length of its body, one connection at
/// a time, and tells what it was asked.
async fn answer_all(origin: Driven, asked_for: tokio::sync::mpsc::Sender<String>) {
    loop {
        let mut asked = origin.asked().await;
        let length =
            field(&asked.head, "content-length").map_or(0, |length| length.parse().unwrap());
        let line: String = asked.head.split(" HTTP/1.1").next().unwrap().to_owned();
        let body = asked.said.exactly(length).await;
        let told = format!("{line} {}", String::from_utf8(body).unwrap());
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{told}", told.len());
        asked.said.say(answer).await;
        asked_for.send(told).await.unwrap();
    }
}

/// What of `received` are the bodies of 200, and the other statuses, in order.
fn told(received: &[u8]) -> Vec<String> {
    let mut text = String::from_utf8(received.to_vec()).unwrap();
    let mut told = Vec::new();
    while let Some(end) = text.find("\r\n\r\n") {
        let head: String = text.drain(..end + 4).collect();
        let length = field(&head, "content-length").map_or(0, |length| length.parse().unwrap());
        let body: String = text.drain(..length).collect();
        told.push(match &head[9..12] {
            "200" => body,
            status => status.to_owned(),
        });
    }
    assert_eq!(text, "");
    told
}

#[tokio::test]
async fn requests_that_follow_a_body_are_found_and_checked_however_they_come() {
    let origin = Driven::start();
    let edge = origin.edge().start();
    let (tell, mut heard) = tokio::sync::mpsc::channel(1_000);
    let answering = tokio::spawn(answer_all(origin, tell));
    let get = format!("GET /b HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let smuggled = format!("GET /smuggled HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let with = |body: &str| posted("/a", &format!("Content-Length: {}\r\n", body.len())) + body;
    let bad = format!("GET /bad HTTP/1.1\nHost: {HOST}\r\n\r\n");
    let close = format!("GET /c HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    let refused = format!("LOCK /a HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 4\r\n\r\nbody");
    for (sent, expected) in [
        (vec![&*with("x"), &close], vec!["POST /a x", "GET /c "]),
        (vec![&with(""), &with("y"), &close], vec!["POST /a ", "POST /a y", "GET /c "]),
        (vec![&with("x"), &bad, &smuggled], vec!["POST /a x", "400"]),
        (
            vec![&with("x"), &get, &with("y"), &bad, &smuggled],
            vec!["POST /a x", "GET /b ", "POST /a y", "400"],
        ),
        (vec![&with("x"), &refused, &smuggled], vec!["POST /a x", "405"]),
    ] {
        for client in [edge.client(), edge.client_over_tls(Speaks::Http1)] {
            let received = client.raw(sent.concat().as_bytes()).await.unwrap();
            assert_eq!(told(&received), expected, "{sent:?}");
        }
    }
    // A body is never read as a request, wherever what comes is cut.
    let sent = with(&smuggled) + &close;
    let expected = [format!("POST /a {smuggled}"), "GET /c ".to_owned()];
    for cut in 0..sent.len() {
        let mut viewer = Said::to(&edge).await;
        viewer.stream.set_nodelay(true).unwrap();
        viewer.say(&sent[..cut]).await;
        tokio::task::yield_now().await;
        viewer.say(&sent[cut..]).await;
        let received = viewer.rest().await;
        assert_eq!(told(received.as_bytes()), expected, "cut at {cut}");
    }
    // Nothing takes the rest of a body that does not come for a request.
    let mut viewer = Said::to(&edge).await;
    let short = posted("/a", "Content-Length: 999\r\n") + &smuggled;
    viewer.say(short).await;
    viewer.stream.shutdown().await.unwrap();
    let received = viewer.rest().await;
    assert!(received.is_empty() || received.starts_with("HTTP/1.1 400 "), "{received}");
    answering.abort();
    while let Some(told) = heard.recv().await {
        assert!(!told.starts_with("GET /smuggled") && !told.starts_with("GET /bad"), "{told}");
    }
}

#[tokio::test]
async fn a_connection_is_kept_after_a_body_of_a_known_length() {
    let origin = Driven::start();
    let edge = origin.edge().start();
    let mut viewer = Said::to(&edge).await;
    for number in 0..3 {
        let path = format!("/{number}");
        viewer.say(posted(&path, "Content-Length: 5\r\n") + "hello").await;
        let mut asked = origin.asked().await;
        assert_eq!(asked.said.exactly(5).await, b"hello");
        asked.said.say("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").await;
        let head = viewer.head().await;
        assert_eq!(field(&head, "connection"), None, "{head}");
        assert_eq!(viewer.exactly(4).await, b"done");
        assert_eq!(asked.said.rest().await, "", "each has a connection of its own to the origin");
    }
    assert_eq!(edge.metric("tidegate_connections_accepted_total", &[]).await, 1.0);
}

#[tokio::test]
async fn who_sends_slowly_leaves_connections_for_others() {
    let origin = Driven::start();
    let edge = origin
        .edge()
        .origin_setting("connections", "2")
        .setting("fill.first_byte_timeout", "2s")
        .start();
    let mut slow = Said::to(&edge).await;
    slow.say(posted("/a", "Content-Length: 9\r\n")).await;
    let _held = origin.asked().await;
    // The one connection that is left is not for another of his kind, but for who asks.
    let mut other = Said::to(&edge).await;
    other.say(posted("/b", "Content-Length: 9\r\n")).await;
    let request = edge.get("/c");
    let asking = tokio::spawn(async move { request.send().await });
    let mut asked = origin.asked().await;
    assert!(asked.head.starts_with("GET /c "), "{}", asked.head);
    asked.said.say("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").await;
    assert_eq!(asking.await.unwrap().body, "done");
    let head = other.head().await;
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert_eq!(field(&head, "connection"), Some("close"));
}

#[tokio::test]
async fn what_has_been_here_before_is_not_passed_on_again() {
    let origin = Driven::start();
    let edge = origin.edge().start();
    let mut viewer = Said::to(&edge).await;
    viewer.say(posted("/a", "")).await;
    let mut asked = origin.asked().await;
    let via = field(&asked.head, "via").unwrap().to_owned();
    asked.said.say(NO_CONTENT).await;
    assert!(viewer.head().await.starts_with("HTTP/1.1 204 "));
    viewer.say(posted("/a", &format!("Via: {via}\r\n"))).await;
    let head = viewer.head().await;
    assert!(head.starts_with("HTTP/1.1 508 "), "{head}");
    assert!(origin.is_left_alone().await);
}

#[tokio::test]
async fn who_leaves_before_it_is_his_turn_sends_nothing() {
    let origin = Driven::start();
    // One of them for what is sent once.
    let edge = origin.edge().origin_setting("connections", "2").start();
    let mut first = Said::to(&edge).await;
    first.say(posted("/first", "Content-Length: 0\r\n")).await;
    let mut asked = origin.asked().await;
    let mut second = Said::to(&edge).await;
    second.say(posted("/second", "Content-Length: 0\r\n")).await;
    edge.until_metric("tidegate_connections_open", &[], |open| open >= 2.0).await;
    // He has been heard by then.
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(second);
    edge.until_metric("tidegate_connections_open", &[], |open| open == 1.0).await;
    asked.said.say(NO_CONTENT).await;
    assert!(first.head().await.starts_with("HTTP/1.1 204 "));
    assert!(origin.is_left_alone().await);
}
