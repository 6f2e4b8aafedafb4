//! The demo's origin: the embedded files over HTTP/1.1 on loopback, counted.
//!
//! Answers ranges and validators exactly. Knows nothing of the edge in front of it; what
//! `/status.json` says and `/forget-ram` does are closures it is given. It can play a distant
//! origin: a first byte that takes its time, a body that comes at a rate.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode, response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use xxhash_rust::xxh3::xxh3_64;

use super::paced::PacedBody;
use crate::page;

const CONNECTIONS_MAX: usize = 256;
const STATUS_PATH: &str = "/status.json";
const FORGET_PATH: &str = "/forget-ram";
const YEAR: &str = "max-age=31536000, immutable";
/// The film was encoded then; entity tags, not this date, tell contents apart.
const LAST_MODIFIED: &str = "Fri, 20 Nov 2026 20:49:25 GMT";

/// How far away the origin plays to be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Distance {
    /// Waited before each response.
    pub first_byte_after: Duration,
    /// The rate of each body; `None`: as fast as it goes.
    pub bytes_per_second: Option<u64>,
}

/// What the origin has answered since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Requests for anything, `/status.json` included.
    pub requests: u64,
    /// Body bytes of anything.
    pub bytes: u64,
    /// Requests for something under `/film/`.
    pub film_requests: u64,
    /// Body bytes of what lies under `/film/`.
    pub film_bytes: u64,
    /// Of `film_requests`, those answered 304.
    pub film_not_modified: u64,
}

/// A running origin; dropping it stops it, bodies in flight are cut.
#[derive(Debug)]
pub struct Origin {
    address: SocketAddr,
    shared: Arc<Shared>,
    stopping: CancellationToken,
    tasks: TaskTracker,
}

impl Origin {
    /// Listens on a free port of loopback and serves on the runtime that calls.
    pub async fn start(distance: Distance) -> io::Result<Origin> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            objects: page::files().map(|(path, ..)| object(path)).collect(),
            distance,
            served: Counts::default(),
            status: OnceLock::new(),
            forget: OnceLock::new(),
        });
        let (stopping, tasks) = (CancellationToken::new(), TaskTracker::new());
        tasks.spawn(accept(listener, Arc::clone(&shared), stopping.clone(), tasks.clone()));
        Ok(Origin { address, shared, stopping, tasks })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has answered so far.
    pub fn served(&self) -> Served {
        self.shared.served.now()
    }

    /// From now on `/status.json` is what `status` says: a JSON object as text.
    ///
    /// What the origin counted is added as its member `demo`. The edge starts after its origin, so
    /// this comes later than [`Origin::start`]; only the first call counts.
    pub fn show_status_of(&self, status: impl Fn() -> String + Send + Sync + 'static) {
        let _ = self.shared.status.set(Status(Box::new(status)));
    }

    /// From now on a request for `/forget-ram` calls `forget`: what is held elsewhere than in ram
    /// shows. Only the first call counts.
    pub fn forget_with(&self, forget: impl Fn() + Send + Sync + 'static) {
        let _ = self.shared.forget.set(Forget(Box::new(forget)));
    }

    /// Stops accepting, cuts what is in flight, and waits until every task is gone.
    pub async fn stop(self) {
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

#[derive(Debug)]
struct Shared {
    objects: HashMap<String, Object>,
    distance: Distance,
    served: Counts,
    status: OnceLock<Status>,
    forget: OnceLock<Forget>,
}

struct Status(Box<dyn Fn() -> String + Send + Sync>);

impl std::fmt::Debug for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Status")
    }
}

struct Forget(Box<dyn Fn() + Send + Sync>);

impl std::fmt::Debug for Forget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Forget")
    }
}

#[derive(Debug)]
struct Object {
    content_type: &'static str,
    cache_control: &'static str,
    etag: String,
    bytes: &'static [u8],
}

fn object(path: String) -> (String, Object) {
    let (content_type, bytes) = page::file(&path).expect("files() lists what file() finds");
    let cache_control = match path.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "" => "max-age=60",
        "m3u8" | "mpd" => "max-age=2",
        _ => YEAR,
    };
    let etag = format!("\"{:016x}\"", xxh3_64(bytes));
    (path, Object { content_type, cache_control, etag, bytes })
}

#[derive(Debug, Default)]
struct Counts {
    requests: AtomicU64,
    bytes: AtomicU64,
    film_requests: AtomicU64,
    film_bytes: AtomicU64,
    film_not_modified: AtomicU64,
}

impl Counts {
    fn count(&self, path: &str, status: StatusCode, body_bytes: u64) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(body_bytes, Ordering::Relaxed);
        if path.starts_with("/film/") {
            self.film_requests.fetch_add(1, Ordering::Relaxed);
            self.film_bytes.fetch_add(body_bytes, Ordering::Relaxed);
            let not_modified = u64::from(status == StatusCode::NOT_MODIFIED);
            self.film_not_modified.fetch_add(not_modified, Ordering::Relaxed);
        }
    }

    fn now(&self) -> Served {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Served {
            requests: read(&self.requests),
            bytes: read(&self.bytes),
            film_requests: read(&self.film_requests),
            film_bytes: read(&self.film_bytes),
            film_not_modified: read(&self.film_not_modified),
        }
    }
}

async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    stopping: CancellationToken,
    tasks: TaskTracker,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    while let Some(accepted) = stopping
        .run_until_cancelled(async {
            let place = Arc::clone(&places).acquire_owned().await.expect("never closed");
            listener.accept().await.map(|(stream, _)| (stream, place))
        })
        .await
    {
        // An accept that fails (no descriptors left) is tried again a little later.
        let Ok((stream, place)) = accepted else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (shared, stopping) = (Arc::clone(&shared), stopping.clone());
        tasks.spawn(async move {
            stopping.run_until_cancelled(serve(stream, shared)).await;
            drop(place);
        });
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let service = service_fn(|request: Request<Incoming>| {
        let shared = Arc::clone(&shared);
        async move {
            tokio::time::sleep(shared.distance.first_byte_after).await;
            Ok::<_, Infallible>(answer(&shared, request.method(), &request))
        }
    });
    let _ = stream.set_nodelay(true);
    // A connection that breaks is the edge's to notice; the origin has nothing to add.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn answer<B>(shared: &Shared, method: &Method, request: &Request<B>) -> Response<PacedBody> {
    let path = request.uri().path();
    let (head, body) = match (method, path) {
        (&Method::GET | &Method::HEAD, STATUS_PATH) => status_page(shared),
        (&Method::GET, FORGET_PATH) => forget(shared),
        (&Method::GET | &Method::HEAD, _) => match shared.objects.get(path) {
            Some(object) => content(object, request.headers()),
            None => plain(StatusCode::NOT_FOUND),
        },
        _ => plain(StatusCode::METHOD_NOT_ALLOWED),
    };
    let sent = if method == Method::HEAD { Bytes::new() } else { body };
    shared.served.count(path, head.status, sent.len() as u64);
    Response::from_parts(head, PacedBody::new(sent, shared.distance.bytes_per_second))
}

fn plain(status: StatusCode) -> (response::Parts, Bytes) {
    let mut builder = Response::builder().status(status);
    if status == StatusCode::METHOD_NOT_ALLOWED {
        builder = builder.header(header::ALLOW, "GET, HEAD");
    }
    whole(builder, Bytes::from_static(status.canonical_reason().unwrap_or_default().as_bytes()))
}

fn status_page(shared: &Shared) -> (response::Parts, Bytes) {
    let said = shared.status.get().map_or_else(|| "{}".to_string(), |status| status.0());
    let mut page: serde_json::Map<_, _> = serde_json::from_str(&said).unwrap_or_default();
    let served = shared.served.now();
    let counted = serde_json::json!({
        "film_requests": served.film_requests,
        "film_bytes": served.film_bytes,
        "film_not_modified": served.film_not_modified,
    });
    page.insert("demo".to_string(), counted);
    let builder = Response::builder()
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CACHE_CONTROL, "no-store");
    whole(builder, Bytes::from(serde_json::Value::Object(page).to_string()))
}

fn forget(shared: &Shared) -> (response::Parts, Bytes) {
    let Some(forget) = shared.forget.get() else { return plain(StatusCode::NOT_FOUND) };
    forget.0();
    let builder = Response::builder().header(header::CACHE_CONTROL, "no-store");
    whole(builder, Bytes::from_static(b"forgotten\n"))
}

/// The object, the range of it that was asked for, or word that it has not changed.
fn content(object: &Object, asked: &HeaderMap) -> (response::Parts, Bytes) {
    let builder = Response::builder()
        .header(header::ETAG, &object.etag)
        .header(header::LAST_MODIFIED, LAST_MODIFIED)
        .header(header::CACHE_CONTROL, object.cache_control)
        .header(header::ACCEPT_RANGES, "bytes");
    if is_held_already(object, asked) {
        return built(builder.status(StatusCode::NOT_MODIFIED), Bytes::new());
    }
    let builder = builder.header(header::CONTENT_TYPE, object.content_type);
    let bytes = Bytes::from_static(object.bytes);
    let field = asked.get(header::RANGE).filter(|_| if_range_holds(object, asked));
    match field.map_or(Asked::Whole, |field| asked_range(field, bytes.len())) {
        Asked::Whole => whole(builder, bytes),
        Asked::Part(range) => {
            let (first, last) = (range.start, range.end - 1);
            let said = format!("bytes {first}-{last}/{}", bytes.len());
            let builder = builder.status(StatusCode::PARTIAL_CONTENT);
            whole(builder.header(header::CONTENT_RANGE, said), bytes.slice(range))
        }
        Asked::Beyond => {
            let said = format!("bytes */{}", bytes.len());
            let builder = builder.status(StatusCode::RANGE_NOT_SATISFIABLE);
            whole(builder.header(header::CONTENT_RANGE, said), Bytes::new())
        }
    }
}

fn whole(builder: response::Builder, body: Bytes) -> (response::Parts, Bytes) {
    built(builder.header(header::CONTENT_LENGTH, body.len()), body)
}

fn built(builder: response::Builder, body: Bytes) -> (response::Parts, Bytes) {
    (builder.body(()).expect("every field is visible ASCII").into_parts().0, body)
}

fn is_held_already(object: &Object, asked: &HeaderMap) -> bool {
    let Some(field) = asked.get(header::IF_NONE_MATCH) else {
        return asked.get(header::IF_MODIFIED_SINCE).is_some_and(|date| date == LAST_MODIFIED);
    };
    let tags = field.to_str().unwrap_or_default().split(',').map(str::trim);
    tags.map(|tag| tag.trim_start_matches("W/")).any(|tag| tag == "*" || tag == object.etag)
}

fn if_range_holds(object: &Object, asked: &HeaderMap) -> bool {
    let same = |field: &HeaderValue| field == object.etag.as_str() || field == LAST_MODIFIED;
    asked.get(header::IF_RANGE).is_none_or(same)
}

#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Whole,
    Part(Range<usize>),
    Beyond,
}

/// Several ranges, and what is no range at all, ask for the whole (RFC 9110 section 14.2).
fn asked_range(field: &HeaderValue, length: usize) -> Asked {
    let spec = field.to_str().ok().and_then(|text| text.trim().strip_prefix("bytes="));
    let Some((first, last)) = spec.and_then(|spec| spec.split_once('-')) else {
        return Asked::Whole;
    };
    let range = match (first.trim().parse::<usize>(), last.trim().parse::<usize>()) {
        (Ok(first), Ok(last)) if first <= last => first..length.min(last.saturating_add(1)),
        (Ok(first), Err(_)) if last.is_empty() => first..length,
        (Err(_), Ok(suffix)) if first.is_empty() => length.saturating_sub(suffix)..length,
        _ => return Asked::Whole,
    };
    if range.is_empty() { Asked::Beyond } else { Asked::Part(range) }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Empty};
    use hyper::client::conn::http1::handshake;

    use super::*;

    impl Origin {
        /// What a request would be answered with, counted as if it had come by a connection.
        pub(in crate::cli::demo) fn answer<B>(&self, request: &Request<B>) -> Response<PacedBody> {
            answer(&self.shared, request.method(), request)
        }
    }

    struct Answer {
        status: u16,
        fields: HeaderMap,
        body: Bytes,
    }

    async fn ask(origin: &Origin, method: &str, path: &str, fields: &[(&str, &str)]) -> Answer {
        let stream = TcpStream::connect(origin.address()).await.unwrap();
        let (mut sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        let _connection = tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header("host", "demo");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let response = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap());
        let (head, body) = response.await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: head.status.as_u16(), fields: head.headers, body }
    }

    #[test]
    fn a_range_is_understood_as_the_rfc_says() {
        let cases = [
            ("bytes=0-0", Asked::Part(0..1)),
            ("bytes=5-", Asked::Part(5..10)),
            ("bytes=5-99", Asked::Part(5..10)),
            ("bytes=-3", Asked::Part(7..10)),
            ("bytes=-30", Asked::Part(0..10)),
            ("bytes=10-", Asked::Beyond),
            ("bytes=-0", Asked::Beyond),
            ("bytes=0-18446744073709551615", Asked::Part(0..10)),
            ("bytes=6-5", Asked::Whole),
            ("bytes=0-1,3-4", Asked::Whole),
            ("bytes=-", Asked::Whole),
            ("lines=0-1", Asked::Whole),
        ];
        for (field, asked) in cases {
            assert_eq!(asked_range(&HeaderValue::from_static(field), 10), asked, "{field}");
        }
    }

    #[tokio::test]
    async fn a_segment_is_served_whole_in_part_and_not_again() {
        let origin = Origin::start(Distance::default()).await.unwrap();
        let path = "/film/seg-0-00001.m4s";
        let bytes = page::file(path).unwrap().1;

        let all = ask(&origin, "GET", path, &[]).await;
        assert_eq!((all.status, &all.body[..]), (200, bytes));
        assert_eq!(all.fields["cache-control"], YEAR);
        let etag = all.fields["etag"].to_str().unwrap();

        let part =
            ask(&origin, "GET", path, &[("range", "bytes=65536-"), ("if-range", etag)]).await;
        assert_eq!((part.status, &part.body[..]), (206, &bytes[65_536..]));
        assert_eq!(part.fields["content-range"], "bytes 65536-198988/198989");

        let other =
            ask(&origin, "GET", path, &[("range", "bytes=1-"), ("if-range", "\"x\"")]).await;
        assert_eq!((other.status, other.body.len()), (200, bytes.len()));

        let beyond = ask(&origin, "GET", path, &[("range", "bytes=198989-")]).await;
        assert_eq!((beyond.status, beyond.body.len()), (416, 0));
        assert_eq!(beyond.fields["content-range"], "bytes */198989");

        let held = ask(&origin, "GET", path, &[("if-none-match", &format!("\"x\", {etag}"))]).await;
        assert_eq!((held.status, held.body.len()), (304, 0));

        let head = ask(&origin, "HEAD", path, &[]).await;
        assert_eq!((head.status, head.body.len()), (200, 0));
        assert_eq!(head.fields["content-length"], "198989");

        let sent = 2 * bytes.len() as u64 + (bytes.len() as u64 - 65_536);
        let served = origin.served();
        assert_eq!((served.film_requests, served.film_bytes), (6, sent));
        assert_eq!(served.film_not_modified, 1);
        origin.stop().await;
    }

    #[tokio::test]
    async fn the_status_page_is_never_stored_and_tells_what_the_film_cost() {
        let origin = Origin::start(Distance::default()).await.unwrap();
        ask(&origin, "GET", "/film/master.m3u8", &[]).await;
        let before = ask(&origin, "GET", "/status.json", &[]).await;
        origin.show_status_of(|| r#"{"requests": 7}"#.to_string());
        let after = ask(&origin, "GET", "/status.json", &[]).await;

        assert_eq!(before.fields["cache-control"], "no-store");
        let page: serde_json::Value = serde_json::from_slice(&after.body).unwrap();
        assert_eq!(page["requests"], 7);
        assert_eq!(page["demo"]["film_requests"], 1);
        assert_eq!(page["demo"]["film_bytes"], 464);
    }

    #[tokio::test]
    async fn what_is_not_there_is_404_and_what_is_not_done_405() {
        let origin = Origin::start(Distance::default()).await.unwrap();
        assert_eq!(ask(&origin, "GET", "/film/none.m4s", &[]).await.status, 404);
        let refused = ask(&origin, "POST", "/", &[]).await;
        assert_eq!(
            (refused.status, &refused.fields["allow"]),
            (405, &"GET, HEAD".parse().unwrap())
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_distant_origin_takes_its_time_and_sends_the_same_bytes() {
        let distance = Distance {
            first_byte_after: Duration::from_millis(40),
            bytes_per_second: Some(1_000_000),
        };
        let origin = Origin::start(distance).await.unwrap();
        let started = tokio::time::Instant::now();
        let answer = ask(&origin, "GET", "/film/seg-0-00004.m4s", &[]).await;
        assert_eq!(&answer.body[..], page::file("/film/seg-0-00004.m4s").unwrap().1);
        assert!(started.elapsed() >= Duration::from_millis(40 + 180));
    }

    #[tokio::test]
    async fn ram_is_forgotten_when_it_is_asked_for_and_by_nobody_else() {
        let origin = Origin::start(Distance::default()).await.unwrap();
        assert_eq!(ask(&origin, "GET", "/forget-ram", &[]).await.status, 404);
        let times = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&times);
        origin.forget_with(move || {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        let forgotten = ask(&origin, "GET", "/forget-ram", &[]).await;
        assert_eq!(ask(&origin, "HEAD", "/forget-ram", &[]).await.status, 404);
        assert_eq!((forgotten.status, times.load(Ordering::Relaxed)), (200, 1));
        assert_eq!(forgotten.fields["cache-control"], "no-store");
    }
}
