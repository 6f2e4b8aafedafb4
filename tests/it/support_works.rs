//! The tools are checked before they check: the viewer against the origin, no edge between them.
//!
//! Each fault of the origin is seen as a viewer sees it, so that a test which finds no fault in the
//! edge has met one.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::PrivateKeyDer;
use tokio::sync::Notify;
use tokio_rustls::rustls::{self, RootCertStore};

use crate::support::{
    BLOCK, Change, Client, Ending, Framing, HeadFault, NotModified, Origin, PIECE, Ranges, Script,
    Speaks, Validators, Verdict, etag, judge, last_modified,
};

fn client(origin: &Origin) -> Client {
    Client::plain(origin.address(), "origin.test")
}

#[tokio::test]
async fn an_honest_object_comes_whole_and_in_ranges() {
    let length = 3 * PIECE + 17;
    let origin = Origin::serving("/a", Script::of(length));
    let client = client(&origin);

    let whole = client.get("/a").send().await;
    assert_eq!((whole.status, whole.body.len() as u64), (200, length));
    assert_eq!(judge(&origin, "/a", &whole), Verdict::Whole { version: 1 });

    for (request, first, last) in [
        (client.get("/a").range(5..70_000), 5, 69_999),
        (client.get("/a").range_from(PIECE), PIECE, length - 1),
        (client.get("/a").suffix(18), length - 18, length - 1),
        (client.get("/a").suffix(10 * length), 0, length - 1),
        (client.get("/a").range(length - 1..length + 100), length - 1, length - 1),
    ] {
        let part = request.send().await;
        assert_eq!(part.content_range(), Some((first, last, Some(length))), "{request}");
        assert_eq!(judge(&origin, "/a", &part), Verdict::Whole { version: 1 });
    }
    let beyond = client.get("/a").range_from(length).send().await;
    assert_eq!((beyond.status, beyond.header("content-range")), (416, format!("bytes */{length}")));
    assert_eq!(client.head("/a").send().await.header("content-length"), length.to_string());
    assert_eq!(client.get("/b").send().await.status, 404);
}

#[tokio::test]
async fn what_is_asked_is_recorded_and_counted() {
    let origin = Origin::serving("/a", Script::of(1000));
    let connection = client(&origin).connect().await.unwrap();
    let asked = client(&origin).get("/a?x=1").range(10..20).header("x-name", "value");
    let first = asked.on(connection).await.unwrap();
    let (_, connection) = first.finish_and_keep().await.unwrap();
    asked.on(connection.unwrap()).await.unwrap().finish().await.unwrap();

    let requests = origin.requests("/a");
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].head.target, "/a?x=1");
    assert_eq!(requests[0].head.range(), Some((10, Some(19))));
    assert_eq!(requests[0].head.header("x-name"), "value");
    assert_eq!(requests[0].connection, requests[1].connection);
    assert_eq!(origin.bytes_sent("/a"), 20);
    origin.forget_requests();
    assert_eq!(origin.requests("/a").len(), 0);
}

#[tokio::test]
async fn a_body_without_a_length_ends_as_it_was_told() {
    let origin = Origin::serving("/chunked", Script::of(200_000).framing(Framing::Chunked));
    origin.serve("/close", Script::of(200_000).framing(Framing::Close));
    for path in ["/chunked", "/close"] {
        let whole = client(&origin).get(path).send().await;
        assert_eq!(whole.header("content-length"), "");
        assert_eq!(judge(&origin, path, &whole), Verdict::Whole { version: 1 });
    }
    let cut = Script::of(200_000).framing(Framing::Chunked).ending(Ending::CutAt(99_999));
    origin.serve("/chunked", cut);
    let response = client(&origin).get("/chunked").send().await;
    let verdict = judge(&origin, "/chunked", &response);
    assert_eq!(verdict, Verdict::Cut { version: 1, bytes: 99_999 });
}

#[tokio::test]
async fn a_body_is_cut_reset_or_held_at_the_byte_that_was_said() {
    let origin = Origin::serving("/cut", Script::of(BLOCK).ending(Ending::CutAt(PIECE + 1)));
    origin.serve("/reset", Script::of(BLOCK).ending(Ending::ResetAt(PIECE)));
    origin.serve("/held", Script::of(BLOCK).ending(Ending::HeldAt(PIECE - 1)));
    let client = client(&origin);

    let cut = client.get("/cut").range_from(PIECE).send().await;
    let verdict = judge(&origin, "/cut", &cut);
    assert_eq!(verdict, Verdict::Cut { version: 1, bytes: 1 });
    let beyond = client.get("/cut").range_from(PIECE + 2).send().await;
    assert_eq!(judge(&origin, "/cut", &beyond), Verdict::Whole { version: 1 });
    assert!(!client.get("/reset").send().await.complete);

    let mut held = client.get("/held").open().await;
    let before = held.read_exactly(PIECE as usize - 1).await.unwrap();
    assert_eq!(before.len() as u64, PIECE - 1);
    assert_eq!(origin.bytes_sent("/held"), PIECE - 1);
    origin.release("/held");
    assert_eq!(held.finish().await.unwrap().body.len() as u64, BLOCK - PIECE + 1);
}

#[tokio::test]
async fn more_bytes_than_were_told_follow() {
    let origin = Origin::serving("/a", Script::of(100).ending(Ending::Surplus(7)));
    let raw = b"GET /a HTTP/1.1\r\nhost: a\r\nrange: bytes=0-9\r\n\r\n";
    origin.serve_once("/a", Script::of(100).ending(Ending::SurplusDeclared(7)));
    let declared = client(&origin).get("/a").range(0..10).send().await;
    assert_eq!(declared.content_range(), Some((0, 9, Some(100))));
    assert_eq!(declared.body.len(), 17);

    origin.serve("/a", Script::of(100).ending(Ending::Surplus(7)).head(HeadFault::Nothing));
    let then_close = Script::of(0).head(HeadFault::Closed);
    origin.serve("/close", then_close);
    let both = [raw.as_slice(), b"GET /close HTTP/1.1\r\nhost: a\r\n\r\n"].concat();
    let received = client(&origin).raw(&both).await.unwrap();
    let text = String::from_utf8_lossy(&received).into_owned();
    assert!(text.contains("Content-Length: 10\r\n"), "{text}");
    let expected = origin.content("/a", 1).bytes(0, 17);
    assert!(received.ends_with(&expected));
}

#[tokio::test]
async fn the_head_lies_about_the_range() {
    let origin = Origin::start();
    let client = client(&origin);
    let label = |length: u64, ranges| {
        origin.serve("/a", Script::of(length).ranges(ranges));
        let request = client.get("/a").range(100..200);
        async move {
            let response = request.send().await;
            (response.status, response.header("content-range"), response.body.len())
        }
    };
    let seen = |status, label: &str, length| (status, label.to_owned(), length);
    assert_eq!(label(1000, Ranges::Ignored).await, seen(200, "", 1000));
    assert_eq!(label(1000, Ranges::Shifted(-1)).await, seen(206, "bytes 99-198/1000", 100));
    assert_eq!(label(1000, Ranges::WrongComplete(9)).await, seen(206, "bytes 100-199/9", 100));
    assert_eq!(label(1000, Ranges::UnknownComplete).await, seen(206, "bytes 100-199/*", 100));
    assert_eq!(label(1000, Ranges::Other(0, 9)).await, seen(206, "bytes 0-9/1000", 10));
    assert_eq!(label(1000, Ranges::AtMost(5)).await, seen(206, "bytes 100-104/1000", 5));
    assert_eq!(label(1000, Ranges::Unlabelled).await, seen(206, "", 100));
    assert_eq!(label(1000, Ranges::Garbled).await, seen(206, "bytes x-y/z", 100));
    assert_eq!(label(1000, Ranges::Refused).await, seen(416, "bytes */1000", 0));
}

#[tokio::test]
async fn conditions_are_answered_by_the_validators_there_are() {
    let origin = Origin::serving("/a", Script::of(100));
    let client = client(&origin);
    let ask = |name: &str, value: &str| client.get("/a").range(0..10).header(name, value);
    let current = etag(1);

    assert_eq!(ask("if-none-match", &current).send().await.status, 304);
    assert_eq!(ask("if-modified-since", &last_modified(1)).send().await.status, 304);
    assert_eq!(ask("if-match", "\"other\"").send().await.status, 412);
    assert_eq!(ask("if-range", &current).send().await.status, 206);
    assert_eq!(ask("if-range", "\"other\"").send().await.status, 200);
    origin.serve("/a", Script::of(100).not_modified(NotModified::Unknown));
    assert_eq!(ask("if-none-match", &current).send().await.status, 206);

    let tags = |validators| {
        origin.serve("/a", Script::of(100).validators(validators));
        let request = client.get("/a");
        async move {
            let response = request.send().await;
            (response.header("etag"), response.header("last-modified"))
        }
    };
    assert_eq!(tags(Validators::Weak).await, (format!("W/{current}"), String::new()));
    assert_eq!(tags(Validators::LastModified).await, (String::new(), last_modified(1)));
    assert_eq!(tags(Validators::None).await, (String::new(), String::new()));
}

#[tokio::test]
async fn an_object_changes_when_it_was_said() {
    let origin = Origin::serving("/a", Script::of(BLOCK).change(Change::FromRequest(2)));
    let client = client(&origin);
    let mut versions = vec![];
    for _ in 0..3 {
        versions.push(judge(&origin, "/a", &client.get("/a").send().await).version());
    }
    assert_eq!(versions, [Some(1), Some(2), Some(2)]);

    origin.serve("/a", Script::of(BLOCK).change(Change::FromOffset(PIECE)).next_length(2 * BLOCK));
    let ask = async |first| client.get("/a").range_from(first).send().await;
    assert_eq!(judge(&origin, "/a", &ask(PIECE - 1).await).version(), Some(1));
    let next = ask(PIECE).await;
    assert_eq!(next.content_range(), Some((PIECE, 2 * BLOCK - 1, Some(2 * BLOCK))));
    assert_eq!(judge(&origin, "/a", &next).version(), Some(2));

    origin.serve("/a", Script::of(BLOCK).change(Change::AtByte(PIECE)));
    let cut = Verdict::Cut { version: 1, bytes: PIECE };
    assert_eq!(judge(&origin, "/a", &client.get("/a").send().await), cut);
    let whole = Verdict::Whole { version: 2 };
    assert_eq!(judge(&origin, "/a", &client.get("/a").send().await), whole);

    origin.serve("/a", Script::of(10).change(Change::EachRequest).field("Set-Cookie", "n={n}"));
    for number in 1..4 {
        let response = client.get("/a").send().await;
        assert_eq!(response.header("set-cookie"), format!("n={number}"));
        assert_eq!(judge(&origin, "/a", &response).version(), Some(number));
    }
}

#[tokio::test]
async fn the_head_is_late_held_missing_or_no_http() {
    let origin =
        Origin::serving("/late", Script::of(10).first_byte_after(Duration::from_millis(30)));
    origin.serve("/held", Script::of(10).head(HeadFault::Held));
    origin.serve("/closed", Script::of(10).head(HeadFault::Closed));
    origin.serve("/error", Script::of(10).status(503).field("Retry-After", "1"));
    let client = client(&origin);

    let asked = std::time::Instant::now();
    client.get("/late").send().await;
    assert!(asked.elapsed() >= Duration::from_millis(30));
    assert!(client.get("/closed").try_send().await.is_err());
    let error = client.get("/error").send().await;
    assert_eq!((error.status, error.header("retry-after").as_str()), (503, "1"));

    let request = client.get("/held");
    let held = tokio::spawn(async move { request.send().await });
    origin.until_requested("/held", 1).await;
    assert!(!held.is_finished());
    origin.release("/held");
    assert_eq!(held.await.unwrap().status, 200);
}

#[tokio::test]
async fn requests_held_to_come_together_are_answered_only_then() {
    let origin = Origin::serving("/a", Script::of(10).together(3));
    let request = client(&origin).get("/a");
    let ask = || {
        tokio::spawn({
            let request = request.clone();
            async move { request.send().await }
        })
    };
    let (first, second) = (ask(), ask());
    origin.until_requested("/a", 2).await;
    assert!(!first.is_finished() && !second.is_finished());
    let third = ask();
    for asked in [first, second, third] {
        assert_eq!(asked.await.unwrap().status, 200);
    }
    assert_eq!(origin.most_at_once("/a"), 3);
}

#[tokio::test]
async fn connections_are_refused_and_accepted_again_at_the_same_address() {
    let origin = Origin::serving("/a", Script::of(10));
    let request = client(&origin).get("/a");
    assert_eq!(request.send().await.status, 200);
    origin.refuse_connections().await;
    let refused = request.try_send().await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    origin.accept_connections().await;
    assert_eq!(request.send().await.status, 200);
    assert_eq!(origin.connections(), 2);
}

#[tokio::test]
async fn a_place_far_into_a_huge_object_costs_nothing_else() {
    let length = 8 << 30;
    let origin = Origin::serving("/huge", Script::of(length));
    let mut whole = client(&origin).get("/huge").open().await;
    assert_eq!(whole.header("content-length"), length.to_string());
    whole.read_exactly(1 << 20).await.unwrap();
    drop(whole);
    origin.until_idle("/huge").await;
    assert!(origin.bytes_sent("/huge") < 64 << 20);

    let far = client(&origin).get("/huge").range(5 << 30..(5 << 30) + 10).send().await;
    assert_eq!(judge(&origin, "/huge", &far), Verdict::Whole { version: 1 });
}

#[tokio::test]
async fn a_slow_origin_and_a_slow_viewer_take_their_time() {
    let origin = Origin::serving("/slow", Script::of(20_000).rate(200_000));
    let client = client(&origin);
    let asked = std::time::Instant::now();
    client.get("/slow").send().await;
    assert!(asked.elapsed() >= Duration::from_millis(80));

    origin.serve("/large", Script::of(64 << 20));
    let mut slow = client.receive_buffer(8 << 10).get("/large").open().await;
    slow.read(1000).await.unwrap();
    drop(slow);
    origin.until_idle("/large").await;
    let few = client.get("/slow").open().await.finish_slowly(100_000).await.unwrap();
    assert_eq!(judge(&origin, "/slow", &few), Verdict::Whole { version: 1 });
}

#[test]
#[should_panic(expected = "of no single version: the first 5 fit version 1")]
fn a_body_of_two_versions_is_found_out() {
    let origin = Origin::serving("/a", Script::of(10).version(2));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut response = runtime.block_on(client(&origin).get("/a").send());
    let mut mixed = origin.content("/a", 1).bytes(0, 5);
    mixed.extend(origin.content("/a", 2).bytes(5, 5));
    response.headers.remove("etag");
    response.body = mixed.into();
    judge(&origin, "/a", &response);
}

#[tokio::test]
async fn over_http_2_and_tls_a_body_comes_whole_in_streams_or_is_cut() {
    let go_on = Arc::new(Notify::new());
    let (address, roots) = http2_server(Arc::clone(&go_on)).await;
    let client = Client::tls(address, "media.test", roots, Speaks::Http2);
    let connection = client.connect().await.unwrap();
    for _ in 0..2 {
        let stream = connection.shared().unwrap();
        let whole = client.get("/whole").on(stream).await.unwrap().finish().await.unwrap();
        assert_eq!((whole.status, whole.body.len(), whole.complete), (200, 2 * FRAME.len(), true));
    }
    let mut cut = client.get("/cut").on(connection).await.unwrap();
    assert_eq!(cut.read_exactly(FRAME.len()).await.unwrap(), FRAME);
    go_on.notify_one();
    let rest = cut.finish().await.unwrap();
    assert_eq!((rest.body.len(), rest.complete), (0, false));

    let stranger = Client::tls(address, "media.test", RootCertStore::empty(), Speaks::Http2);
    assert!(stranger.connect().await.is_err(), "a certificate nobody vouches for");
}

const FRAME: &[u8] = &[7; 10_000];

/// Two frames and an end, or one frame and a reset once the test says so: it overtakes the frame.
struct Frames {
    left: u32,
    reset: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Body for Frames {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        if let (1, Some(reset)) = (self.left, &mut self.reset) {
            std::task::ready!(reset.as_mut().poll(context));
            return Poll::Ready(Some(Err(std::io::Error::other("reset on purpose"))));
        }
        self.left -= 1;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(FRAME)))))
    }
}

/// A server that is neither the edge nor ours: hyper's.
async fn http2_server(go_on: Arc<Notify>) -> (std::net::SocketAddr, RootCertStore) {
    let certified = rcgen::generate_simple_self_signed(["media.test".to_owned()]).unwrap();
    let certificate = certified.cert.der().clone();
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let mut config = config.with_single_cert(vec![certificate], key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let wait: Pin<Box<dyn Future<Output = ()> + Send>> =
            Box::pin(Arc::clone(&go_on).notified_owned());
        let frames = Frames { left: 2, reset: (request.uri().path() == "/cut").then_some(wait) };
        async { Ok::<_, std::convert::Infallible>(http::Response::new(frames)) }
    });
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Refused by whoever does not know the certificate.
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service.clone()));
        }
    });
    (address, roots)
}
