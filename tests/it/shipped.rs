//! Lines that are shipped: each arrives, whatever the receiver does, and once but for what has its
//! batch's id twice.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustix::process::Signal;
use serde_json::Value;
use tokio::net::TcpListener;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::{TlsAcceptor, rustls};

use crate::support::{
    BLOCK, Client, Configured, Edge, Ending, Origin, PATIENCE, PIECE, Process, Script, configured,
    follow,
};

/// What a receiver does with a batch that it has read.
#[derive(Clone, Copy, Debug)]
enum Does {
    /// Takes it, and says so.
    Takes,
    /// Takes it, and hangs up before it says so.
    TakesAndHangsUp,
    /// Answers this.
    Answers(u16),
    /// Takes it, and says so in an answer that does not end.
    TakesWithoutEnd,
    /// Answers 503 and when to come again.
    IsBusy,
    /// Takes half of it and hangs up.
    Breaks,
}

/// The body of an answer: nothing, and perhaps no end.
struct Said {
    ends: bool,
}

impl Body for Said {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.ends { Poll::Ready(None) } else { Poll::Pending }
    }

    fn is_end_stream(&self) -> bool {
        self.ends
    }
}

/// A receiver of batches, each by its id, with how often it came.
#[derive(Clone)]
struct Receiver {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// What comes next; then it takes what comes.
    script: VecDeque<Does>,
    /// Whether every further batch is answered with 500.
    is_down: bool,
    taken: BTreeMap<String, (usize, String)>,
    /// In the order in which they came first.
    order: Vec<String>,
    asked: Vec<Instant>,
    fields: Vec<Option<String>>,
}

/// One that nobody knows who is not told of it.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), certificate }
    }

    /// Shows a certificate of this authority for this machine.
    fn acceptor(&self) -> TlsAcceptor {
        let (key, name) = (KeyPair::generate().unwrap(), "127.0.0.1".to_owned());
        let params = CertificateParams::new([name]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let config = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();
        Arc::new(config).into()
    }
}

impl Receiver {
    async fn start(script: impl IntoIterator<Item = Does>) -> Receiver {
        Receiver::start_with(script, None).await
    }

    /// One who is asked over TLS, where there is an acceptor.
    async fn start_with(
        script: impl IntoIterator<Item = Does>,
        tls: Option<TlsAcceptor>,
    ) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let script = script.into_iter().collect();
        let state = Arc::new(Mutex::new(State { script, ..State::default() }));
        let receiver = Receiver { address, state };
        let serving = receiver.clone();
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let (receiver, tls) = (serving.clone(), tls.clone());
                let service = service_fn(move |request| receiver.clone().answer(request));
                let http = hyper::server::conn::http1::Builder::new();
                tokio::spawn(async move {
                    match tls {
                        None => drop(http.serve_connection(TokioIo::new(socket), service).await),
                        Some(tls) => {
                            let Ok(socket) = tls.accept(socket).await else { return };
                            drop(http.serve_connection(TokioIo::new(socket), service).await);
                        }
                    }
                });
            }
        });
        receiver
    }

    async fn answer(
        self,
        request: http::Request<hyper::body::Incoming>,
    ) -> Result<http::Response<Said>, Box<dyn std::error::Error + Send + Sync>> {
        let field = |name| request.headers().get(name).map(|it| it.to_str().unwrap().to_owned());
        let id = field("idempotency-key").expect("a batch has an id");
        assert_eq!(field("content-type").unwrap(), "application/x-ndjson");
        let token = field("authorization");
        let does = {
            let mut state = self.state.lock().unwrap();
            state.asked.push(Instant::now());
            state.fields.push(token);
            let down = state.is_down.then_some(Does::Answers(500));
            down.or_else(|| state.script.pop_front()).unwrap_or(Does::Takes)
        };
        let mut body = request.into_body();
        if let Does::Breaks = does {
            body.frame().await;
            return Err("broken".into());
        }
        let lines = String::from_utf8(body.collect().await?.to_bytes().to_vec())?;
        let (status, after) = match does {
            Does::TakesWithoutEnd => (200, None),
            Does::Answers(status) => (status, None),
            Does::IsBusy => (503, Some("2")),
            _ => (204, None),
        };
        if status < 300 {
            let mut state = self.state.lock().unwrap();
            let taken = state.taken.entry(id.clone()).or_insert((0, lines.clone()));
            taken.0 += 1;
            assert_eq!(taken.1, lines, "a batch that comes again is what it was");
            if taken.0 == 1 {
                state.order.push(id);
            }
        }
        if let Does::TakesAndHangsUp = does {
            return Err("hung up".into());
        }
        let mut answer = http::Response::builder().status(status);
        if let Some(after) = after {
            answer = answer.header("retry-after", after);
        }
        Ok(answer.body(Said { ends: !matches!(does, Does::TakesWithoutEnd) }).unwrap())
    }

    /// The paths of all lines, each batch once, in the order they came.
    fn paths(&self) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let text: String = state.order.iter().map(|id| state.taken[id].1.as_str()).collect();
        text.lines().map(path_of).collect()
    }

    async fn until_taken(&self, lines: usize) -> Vec<String> {
        let asked = Instant::now();
        while self.paths().len() < lines {
            assert!(asked.elapsed() < PATIENCE, "{} of {lines}", self.paths().len());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.paths()
    }

    fn set_down(&self, is_down: bool) {
        self.state.lock().unwrap().is_down = is_down;
    }

    fn times_asked(&self) -> usize {
        self.state.lock().unwrap().asked.len()
    }
}

fn path_of(line: &str) -> String {
    let line: Value = serde_json::from_str(line).expect(line);
    line["path"].as_str().unwrap().to_owned()
}

fn shipping(origin: &Origin, receiver: &Receiver, folder: &Path) -> Configured {
    Edge::in_front_of(origin)
        .setting("log.ship.url", &format!("http://{}/in", receiver.address))
        .setting("log.ship.folder", &folder.join("spool").to_string_lossy())
        .setting("log.ship.batch", "{ bytes = 1024, period = \"100ms\" }")
}

async fn ask(edge: &Edge, numbers: std::ops::Range<usize>) -> Vec<String> {
    let mut paths = Vec::new();
    for number in numbers {
        let path = format!("/{number}");
        edge.get(&path).send().await;
        paths.push(path);
    }
    paths
}

const SHIPPED: &str = "tidegate_access_log_lines_shipped_total";
const UNSHIPPED: &str = "tidegate_access_log_lines_unshipped_total";
const WAITING: &str = "tidegate_access_log_spool_bytes";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_line_arrives_once_in_order_whatever_the_receiver_does() {
    let folder = tempfile::tempdir().unwrap();
    let origin = Origin::start();
    let script = [
        Does::Answers(500),
        Does::Takes,
        Does::TakesAndHangsUp,
        Does::Takes,
        Does::Breaks,
        Does::Takes,
        Does::Answers(408),
        Does::Takes,
        Does::Answers(429),
    ];
    let receiver = Receiver::start(script).await;
    let headers = folder.path().join("headers");
    std::fs::write(&headers, "Authorization: Bearer of-the-box\n").unwrap();
    let edge = shipping(&origin, &receiver, folder.path())
        .setting("log.ship.headers_file", &headers.to_string_lossy())
        .start();
    let asked = ask(&edge, 0..60).await;
    assert_eq!(receiver.until_taken(60).await, asked);
    edge.until_metric(SHIPPED, &[], |lines| lines == 60.0).await;
    edge.until_metric(WAITING, &[], |bytes| bytes == 0.0).await;
    assert_eq!(edge.metric(UNSHIPPED, &[]).await, 0.0);
    let state = receiver.state.lock().unwrap();
    assert!(state.taken.values().any(|(times, _)| *times == 2), "one came again");
    assert!(state.fields.iter().all(|it| it.as_deref() == Some("Bearer of-the-box")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_is_lost_and_counted_and_the_next_arrives() {
    let folder = tempfile::tempdir().unwrap();
    let (origin, receiver) = (Origin::start(), Receiver::start([Does::Answers(400)]).await);
    let edge = shipping(&origin, &receiver, folder.path()).start();
    ask(&edge, 0..1).await;
    edge.until_metric(UNSHIPPED, &["refused"], |lines| lines == 1.0).await;
    ask(&edge, 1..2).await;
    assert_eq!(receiver.until_taken(1).await, ["/1"]);
    assert_eq!(receiver.times_asked(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_taken_in_an_answer_that_does_not_end_has_arrived() {
    let folder = tempfile::tempdir().unwrap();
    let (origin, receiver) = (Origin::start(), Receiver::start([Does::TakesWithoutEnd]).await);
    let edge = shipping(&origin, &receiver, folder.path()).start();
    // One by one: what comes together may be one batch.
    let mut asked = ask(&edge, 0..1).await;
    edge.until_metric(SHIPPED, &[], |lines| lines == 1.0).await;
    asked.extend(ask(&edge, 1..2).await);
    assert_eq!(receiver.until_taken(2).await, asked);
    edge.until_metric(SHIPPED, &[], |lines| lines == 2.0).await;
    assert_eq!(receiver.times_asked(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_was_renewed_is_sent_when_the_one_before_is_not_known() {
    let folder = tempfile::tempdir().unwrap();
    let (origin, receiver) = (Origin::start(), Receiver::start([Does::Answers(401)]).await);
    let headers = folder.path().join("headers");
    std::fs::write(&headers, "Authorization: Bearer old\n").unwrap();
    let edge = shipping(&origin, &receiver, folder.path())
        .setting("log.ship.headers_file", &headers.to_string_lossy())
        .start();
    std::fs::write(&headers, "Authorization: Bearer new\n").unwrap();
    let asked = ask(&edge, 0..1).await;
    assert_eq!(receiver.until_taken(1).await, asked);
    let fields = receiver.state.lock().unwrap().fields.clone();
    assert_eq!(fields, ["Bearer old", "Bearer new"].map(|it| Some(it.to_owned())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_is_not_there_or_knows_nobody_loses_no_line() {
    for status in [401, 403, 404] {
        let folder = tempfile::tempdir().unwrap();
        let (origin, receiver) = (Origin::start(), Receiver::start([Does::Answers(status)]).await);
        let mut edge = shipping(&origin, &receiver, folder.path()).start();
        let asked = ask(&edge, 0..1).await;
        let since = Instant::now();
        while receiver.times_asked() == 0 {
            assert!(since.elapsed() < PATIENCE, "{status}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        edge.drain().await;
        let _edge = shipping(&origin, &receiver, folder.path()).start();
        assert_eq!(receiver.until_taken(1).await, asked, "{status}");
    }
    let folder = tempfile::tempdir().unwrap();
    let (origin, receiver) = (Origin::start(), Receiver::start([]).await);
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let to_nobody = shipping(&origin, &receiver, folder.path());
    let to_nobody = to_nobody.setting("log.ship.url", &format!("http://{nobody}/in"));
    let mut edge = to_nobody.start();
    let asked = ask(&edge, 0..1).await;
    let since = Instant::now();
    while status_of(&edge).await["failing_seconds"].is_null() {
        assert!(since.elapsed() < PATIENCE, "somebody is there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    edge.drain().await;
    let _edge = shipping(&origin, &receiver, folder.path()).start();
    assert_eq!(receiver.until_taken(1).await, asked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_is_busy_is_asked_no_sooner_than_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let (origin, receiver) = (Origin::start(), Receiver::start([Does::IsBusy]).await);
    let edge = shipping(&origin, &receiver, folder.path()).start();
    ask(&edge, 0..1).await;
    receiver.until_taken(1).await;
    let asked = receiver.state.lock().unwrap().asked.clone();
    assert!(asked.len() == 2 && asked[1] - asked[0] >= Duration::from_secs(2), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_no_room_is_lost_oldest_first_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let (origin, receiver) = (Origin::start(), Receiver::start([]).await);
    receiver.set_down(true);
    let full = || {
        shipping(&origin, &receiver, folder.path())
            .setting("log.ship.spool", "64 KiB")
            .setting("log.ship.batch", "{ bytes = 8192, period = \"100ms\" }")
    };
    let mut edge = full().start();
    let asked = ask(&edge, 0..400).await;
    // Each of them waits or is counted.
    let asked_for = Instant::now();
    let lost = loop {
        let lost = edge.metric(UNSHIPPED, &["full"]).await as u64;
        let waiting = status_of(&edge).await["waiting_lines"].as_u64().unwrap();
        if waiting + lost == 400 {
            break lost;
        }
        assert!(asked_for.elapsed() < PATIENCE, "{waiting} wait, {lost} lost");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(lost > 100 && edge.metric(WAITING, &[]).await <= 65_536.0, "{lost} lost");
    // Who starts anew does not pause, however long the receiver has been down.
    edge.drain().await;
    receiver.set_down(false);
    let edge = full().start();
    let came = receiver.until_taken(400 - lost as usize).await;
    assert_eq!(came.last(), asked.last());
    assert!(came.iter().all(|path| asked.contains(path)));
    assert_eq!(edge.metric(UNSHIPPED, &["full"]).await, 0.0);
}

/// What `/status.json` says of shipping.
async fn status_of(edge: &Edge) -> Value {
    let status = edge.admin().get("/status.json").send().await.body;
    serde_json::from_slice::<Value>(&status).unwrap()["shipping"].take()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_fails_is_seen_in_the_status_until_he_takes_what_waited() {
    let folder = tempfile::tempdir().unwrap();
    let (origin, receiver) = (Origin::start(), Receiver::start([]).await);
    assert!(status_of(&Edge::in_front_of(&origin).start()).await.is_null());
    receiver.set_down(true);
    let edge = shipping(&origin, &receiver, folder.path()).start();
    ask(&edge, 0..10).await;
    let asked = Instant::now();
    let failing = loop {
        let status = status_of(&edge).await;
        if status["waiting_lines"] == 10 && !status["failing_seconds"].is_null() {
            break status;
        }
        assert!(asked.elapsed() < PATIENCE, "{status}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(failing["to"], receiver.address.to_string());
    assert_eq!(failing["last_failure"], "500 Internal Server Error");
    assert!(failing["waiting_bytes"].as_u64().unwrap() > 1_000, "{failing}");
    receiver.set_down(false);
    receiver.until_taken(10).await;
    edge.until_metric(SHIPPED, &[], |lines| lines == 10.0).await;
    edge.until_metric(WAITING, &[], |bytes| bytes == 0.0).await;
    let well = status_of(&edge).await;
    assert_eq!((&well["waiting_lines"], &well["shipped_lines"]), (&0.into(), &10.into()));
    assert!(well["failing_seconds"].is_null(), "{well}");
    assert_eq!(well["last_failure"], "500 Internal Server Error");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_at_the_end_is_shipped_after_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let (origin, receiver) = (Origin::start(), Receiver::start([]).await);
    receiver.set_down(true);
    let mut edge = shipping(&origin, &receiver, folder.path()).start();
    let mut asked = ask(&edge, 0..12).await;
    edge.drain().await;
    receiver.set_down(false);
    let edge = shipping(&origin, &receiver, folder.path()).start();
    asked.extend(ask(&edge, 12..15).await);
    assert_eq!(receiver.until_taken(15).await, asked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_killed_has_its_lines_shipped_by_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start([]).await;
    receiver.set_down(true);
    let origin = Origin::serving("/a", Script::of(10));
    let more = format!(
        "log.ship.url = \"http://{}/in\"\nlog.ship.folder = {:?}\n\
         log.ship.batch = {{ bytes = 2048, period = \"1h\" }}\n\n[[sites]]\nname = \"media\"\n\
         hosts = [\"media.test\"]\norigins = [\"http://{}\"]\n",
        receiver.address,
        folder.path().join("spool"),
        origin.address(),
    );
    let config = configured(folder.path(), &more);
    let process = Process::start(&config);
    let client = Client::plain(process.http, "media.test");
    for _ in 0..40 {
        client.get("/a").send().await;
    }
    let spooled = || {
        let names = std::fs::read_dir(folder.path().join("spool")).unwrap();
        let files = names.map(|name| std::fs::read(name.unwrap().path()).unwrap());
        files.map(|text| text.iter().filter(|byte| **byte == b'\n').count()).sum::<usize>()
    };
    let asked = Instant::now();
    while spooled() < 40 {
        assert!(asked.elapsed() < PATIENCE, "{} of 40", spooled());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    process.kill();
    receiver.set_down(false);
    let next = Process::start(&config);
    assert_eq!(receiver.until_taken(40).await, vec!["/a"; 40]);
    next.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_each_line_arrives_at_who_shows_a_certificate_of_the_authority_that_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (origin, authority) = (Origin::start(), Authority::new());
    let receiver = Receiver::start_with([], Some(authority.acceptor())).await;
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, &authority.certificate).unwrap();
    let edge = shipping(&origin, &receiver, folder.path())
        .setting("log.ship.url", &format!("https://{}/in", receiver.address))
        .setting("log.ship.ca", &ca.to_string_lossy())
        .start();
    let asked = ask(&edge, 0..20).await;
    assert_eq!(receiver.until_taken(20).await, asked);
    edge.until_metric(SHIPPED, &[], |lines| lines == 20.0).await;
    assert_eq!(status_of(&edge).await["last_failure"], Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_shows_a_certificate_that_is_not_trusted_is_sent_nothing_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let (origin, authority) = (Origin::start(), Authority::new());
    let receiver = Receiver::start_with([], Some(authority.acceptor())).await;
    let ca = folder.path().join("ca.pem");
    let over_tls = || {
        shipping(&origin, &receiver, folder.path())
            .setting("log.ship.url", &format!("https://{}/in", receiver.address))
            .setting("log.ship.ca", &ca.to_string_lossy())
    };
    std::fs::write(&ca, Authority::new().certificate).unwrap();
    let mut edge = over_tls().start();
    let mut asked = ask(&edge, 0..3).await;
    let since = Instant::now();
    let failing = loop {
        let status = status_of(&edge).await;
        if status["waiting_lines"] == 3 && !status["failing_seconds"].is_null() {
            break status;
        }
        assert!(since.elapsed() < PATIENCE, "{status}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let why = failing["last_failure"].as_str().unwrap();
    let what_to_do = "; set `log.ship.ca` to the authority that signed its certificate";
    assert!(why.ends_with(what_to_do), "{why}");
    assert_eq!((&failing["lost_lines"], receiver.times_asked()), (&0.into(), 0), "{failing}");
    edge.drain().await;
    std::fs::write(&ca, &authority.certificate).unwrap();
    let edge = over_tls().start();
    asked.extend(ask(&edge, 3..5).await);
    assert_eq!(receiver.until_taken(5).await, asked);
}

/// What a process serves by, which ships to `receiver` from a folder of that name.
fn shipped_by(folder: &Path, origin: &Origin, receiver: &Receiver, spool: &str) -> PathBuf {
    let more = format!(
        "log.ship.url = \"http://{}/in\"\nlog.ship.folder = {:?}\n\
         log.ship.batch = {{ bytes = 1024, period = \"100ms\" }}\n\n[[sites]]\nname = \"media\"\n\
         hosts = [\"media.test\"]\norigins = [\"http://{}\"]\n",
        receiver.address,
        folder.join(spool),
        origin.address(),
    );
    configured(folder, &more)
}

/// An origin with an object whose end waits: who asks for it keeps a process from ending.
fn holding() -> Origin {
    let origin = Origin::serving("/a", Script::of(10));
    origin.serve("/held", Script::of(2 * BLOCK).ending(Ending::HeldAt(BLOCK)));
    origin
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_follows_ships_what_waits_to_the_receiver_that_is_named_then() {
    let folder = tempfile::tempdir().unwrap();
    let (origin, before, after) = (holding(), Receiver::start([]).await, Receiver::start([]).await);
    before.set_down(true);
    let mut process = Process::start(&shipped_by(folder.path(), &origin, &before, "spool"));
    let viewer = Client::plain(process.http, "media.test");
    viewer.get("/a").send().await;
    let mut under_way = viewer.get("/held").open().await;
    under_way.read_exactly(PIECE as usize).await.unwrap();
    let since = Instant::now();
    while before.times_asked() == 0 {
        assert!(since.elapsed() < PATIENCE, "nothing is shipped");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    shipped_by(folder.path(), &origin, &after, "spool");
    assert_eq!(process.upgrade().0, 0);
    assert_eq!(after.until_taken(1).await, ["/a"]);
    // Who were to ship there on would be heard.
    before.set_down(false);

    origin.release("/held");
    assert!(follow(&mut under_way, origin.content("/held", 1), PIECE).await.1);
    drop(under_way);
    process.until_left().await;
    assert_eq!(after.until_taken(2).await, ["/a", "/held"]);
    let logged = process.stop();
    assert!(!logged.iter().any(|line| line.contains("ships none from there")), "{logged:#?}");
    assert!(before.paths().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_ships_on_from_a_folder_that_is_not_followed_and_says_what_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let (origin, before, after) = (holding(), Receiver::start([]).await, Receiver::start([]).await);
    before.set_down(true);
    let mut process = Process::start(&shipped_by(folder.path(), &origin, &before, "one"));
    let viewer = Client::plain(process.http, "media.test");
    viewer.get("/a").send().await;
    let mut under_way = viewer.get("/held").open().await;
    under_way.read_exactly(PIECE as usize).await.unwrap();
    shipped_by(folder.path(), &origin, &after, "two");
    assert_eq!(process.upgrade().0, 0);
    // Before it sends again: the pauses of one that fails for long are long.
    process.logged_until("what has begun is finished").await;
    before.set_down(false);
    // The one that leaves may have accepted some of them.
    let (mut asked, since) = (1, Instant::now());
    while after.paths().is_empty() {
        assert!(since.elapsed() < PATIENCE, "who follows ships nothing");
        viewer.get("/a").send().await;
        asked += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    before.until_taken(1).await;
    let since = Instant::now();
    while before.paths().len() + after.paths().len() < asked {
        assert!(since.elapsed() < PATIENCE, "{:?} {:?}", before.paths(), after.paths());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    before.set_down(true);
    origin.release("/held");
    assert!(follow(&mut under_way, origin.content("/held", 1), PIECE).await.1);
    drop(under_way);
    process.until_left().await;
    let logged = process.logged_until("the process that follows ships none from there").await;
    let said = logged.iter().find(|line| line.contains("ships none from there")).unwrap();
    assert!(said.contains("lines=1") && said.contains("/one"), "{said}");
    process.stop();
    assert_eq!(before.paths().len() + after.paths().len(), asked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_when_the_service_stops_says_nothing_of_what_the_next_one_ships() {
    let folder = tempfile::tempdir().unwrap();
    let (origin, receiver) = (holding(), Receiver::start([]).await);
    receiver.set_down(true);
    let mut process = Process::start(&shipped_by(folder.path(), &origin, &receiver, "spool"));
    let viewer = Client::plain(process.http, "media.test");
    viewer.get("/a").send().await;
    let mut under_way = viewer.get("/held").open().await;
    under_way.read_exactly(PIECE as usize).await.unwrap();
    assert_eq!(process.upgrade().0, 0);
    process.logged_until("what has begun is finished").await;

    process.signal(Signal::TERM);
    process.logged_until("it is waited for").await;
    origin.release("/held");
    assert!(follow(&mut under_way, origin.content("/held", 1), PIECE).await.1);
    drop(under_way);
    process.until_left().await;
    let logged = process.ended();
    assert!(!logged.iter().any(|line| line.contains("ships none from there")), "{logged:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_says_what_it_lost_and_that_what_waits_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let (origin, receiver) = (holding(), Receiver::start([]).await);
    let mut process = Process::start(&shipped_by(folder.path(), &origin, &receiver, "one"));
    let viewer = Client::plain(process.http, "media.test");
    let mut under_way = viewer.get("/held").open().await;
    under_way.read_exactly(PIECE as usize).await.unwrap();
    shipped_by(folder.path(), &origin, &receiver, "two");
    assert_eq!(process.upgrade().0, 0);

    std::fs::remove_dir_all(folder.path().join("one")).unwrap();
    origin.release("/held");
    assert!(follow(&mut under_way, origin.content("/held", 1), PIECE).await.1);
    drop(under_way);
    process.until_left().await;
    let logged = process.logged_until("what waits of the access log cannot be read").await;
    let said = logged.iter().find(|line| line.contains("were lost meanwhile")).unwrap();
    assert!(said.contains("lines=1"), "{said}");
    process.stop();
}
