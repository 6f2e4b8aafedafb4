//! The control plane of a fleet, by the real binary: who is let in, what boxes are told, and what a
//! restart and a restored backup leave of it.

use std::fs;
use std::io::{BufRead as _, BufReader, ErrorKind};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use http::Method;
use rcgen::{CertificateParams, KeyPair};
use rustix::process::{Pid, Signal, kill_process};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate::control::plane::wire::Identity;
use tidegate::control::snapshot::{Number, PublicKeys, Signed, Snapshot};
use tidegate::limits::PLANE_CONNECTIONS_PER_CLIENT_MAX;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::WantsClientCert;
use tokio_rustls::rustls::{ClientConfig, ConfigBuilder, RootCertStore, crypto};

use crate::support::{
    Client, HOST, Origin, PATIENCE, Process, Response, Script, configured, text, tidegate,
    until_ready,
};

const OPERATOR: &str = "an-operators-token";
pub(crate) const KEYS: &str = r#"{"a":{"keys":[{"kty":"oct","kid":"k","alg":"HS256",
    "k":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"}]}}"#;

/// A folder with a configuration that is a control plane and nothing else.
pub(crate) struct Site {
    pub(crate) folder: TempDir,
    config: PathBuf,
}

impl Site {
    pub(crate) fn new(more: &str) -> Site {
        let folder = tempfile::tempdir().unwrap();
        let tokens = format!("operator anna {OPERATOR}\nviewer grafana a-viewers-own-token\n");
        fs::write(folder.path().join("tokens"), tokens).unwrap();
        let config = folder.path().join("control.toml");
        let text = format!(
            "[control]\nlisten = [\"127.0.0.1:0\"]\nstate = \"control\"\ntoken_file = \"tokens\"\n\
             heartbeat = \"1s\"\n{more}\n[control.health]\ngood_heartbeats = 1\n"
        );
        fs::write(&config, text).unwrap();
        Site { folder, config }
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("control/state.redb")
    }

    /// What a command of it says, with the address written where the process listens.
    pub(crate) fn says(&self, words: &[&str], at: Option<SocketAddr>) -> (i32, String) {
        let mut config = self.config.clone();
        if let Some(address) = at {
            config = self.folder.path().join("asked.toml");
            let text = fs::read_to_string(&self.config).unwrap();
            fs::write(&config, text.replace("127.0.0.1:0", &address.to_string())).unwrap();
        }
        let config = config.to_str().unwrap();
        let done = tidegate(&[&["control"], words, &["--config", config]].concat());
        (done.status.code().unwrap(), text(&done.stdout) + &text(&done.stderr))
    }
}

/// The process of a control plane; killed when dropped.
pub(crate) struct Plane {
    child: Child,
    pub(crate) address: SocketAddr,
    reader: Option<JoinHandle<Vec<String>>>,
}

impl Plane {
    pub(crate) fn start(site: &Site) -> Plane {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(["control", "--config"]).arg(&site.config);
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        let address = loop {
            let line = lines.next().unwrap_or_else(|| panic!("it does not listen: {said:#?}"));
            let line = line.unwrap();
            let address = line.split_once(" control at ").map(|(_, at)| at.trim().parse().unwrap());
            said.push(line);
            if let Some(address) = address {
                break address;
            }
        };
        let reader = thread::spawn(move || {
            said.extend(lines.map_while(Result::ok));
            said
        });
        Plane { child, address, reader: Some(reader) }
    }

    fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        kill_process(id, signal).unwrap();
    }

    /// Tells it to stop, and waits until it has: what it logged.
    pub(crate) fn stop(mut self) -> String {
        self.signal(Signal::TERM);
        let said = self.reader.take().unwrap().join().unwrap().join("\n");
        assert!(self.child.wait().unwrap().success(), "{said}");
        said
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Who asks a control plane, and by what it is believed.
pub(crate) struct Asks {
    client: Client,
    token: Option<&'static str>,
}

impl Asks {
    pub(crate) fn operator(site: &Site, address: SocketAddr) -> Asks {
        let ca = fs::read(site.folder.path().join("control/ca.pem")).unwrap();
        let client = Client::tls_by(address, "localhost", believing(&ca).with_no_client_auth());
        Asks { client, token: Some(OPERATOR) }
    }

    pub(crate) async fn ask(
        &self,
        method: Method,
        target: &str,
        body: impl Into<bytes::Bytes>,
    ) -> Response {
        let mut request = self.client.request(method, target).body(body);
        if let Some(token) = self.token {
            request = request.header("authorization", &format!("Bearer {token}"));
        }
        request.send().await
    }

    pub(crate) async fn told(&self, method: Method, target: &str, body: Value) -> Value {
        let response = self.ask(method, target, body.to_string()).await;
        let said = String::from_utf8_lossy(&response.body).into_owned();
        assert!((200..300).contains(&response.status), "{target}: {} {said}", response.status);
        serde_json::from_str(&said).unwrap_or(Value::Null)
    }

    async fn refused(&self, method: Method, target: &str, body: &str) -> (u16, String) {
        let response = self.ask(method, target, body.to_owned()).await;
        let value: Value = serde_json::from_slice(&response.body).unwrap();
        (response.status, value["error"].as_str().unwrap().to_owned())
    }

    pub(crate) async fn put_keys(&self, name: &str) {
        let response = self.ask(Method::PUT, &format!("/v1/keys/{name}"), KEYS).await;
        assert_eq!(response.status, 204);
    }
}

/// A box that is enrolled.
struct Enrolled {
    name: String,
    key: KeyPair,
    identity: Identity,
}

impl Enrolled {
    async fn by_code(site: &Site, address: SocketAddr, name: &str) -> Enrolled {
        let (code, said) = site.says(&["code", name], Some(address));
        assert_eq!(code, 0, "{said}");
        let code = said.lines().next().unwrap().to_owned();
        let (key, csr) = request();
        let asked = json!({ "code": code, "name": name, "csr_pem": csr });
        let nobody = Asks { token: None, ..Asks::operator(site, address) };
        let told = nobody.told(Method::POST, "/v1/enrol", asked.clone()).await;
        let (status, why) = nobody.refused(Method::POST, "/v1/enrol", &asked.to_string()).await;
        assert!(status == 403 && why.contains("does not count"), "{why}");
        let identity = serde_json::from_value(told).unwrap();
        Enrolled { name: name.to_owned(), key, identity }
    }

    fn asks(&self, address: SocketAddr) -> Asks {
        let config = believing(self.identity.ca_pem.as_bytes());
        let pem = self.identity.certificate_pem.as_bytes();
        let chain = vec![CertificateDer::from_pem_slice(pem).unwrap()];
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).unwrap();
        let config = config.with_client_auth_cert(chain, key).unwrap();
        Asks { client: Client::tls_by(address, "localhost", config), token: None }
    }

    async fn register(&self, address: SocketAddr) {
        let target = format!("/v1/appliances/{}", self.name);
        let asked = json!({ "name": self.name, "ipv4": "192.0.2.1",
            "capacity_bits_per_second": 10_000_000_000_u64,
            "position": [52.5, 13.4] });
        let asks = self.asks(address);
        asks.told(Method::PUT, &target, asked).await;
        asks.told(Method::POST, "/v1/heartbeat", beat()).await;
    }

    /// The snapshot after a number, which is waited for.
    async fn snapshot_after(&self, address: SocketAddr, after: Number) -> Snapshot {
        let target = format!("/v1/snapshot?after={after}&wait=20");
        let response = self.asks(address).ask(Method::GET, &target, "").await;
        assert_eq!(response.status, 200, "{:?}", response.body);
        assert_eq!(response.header("content-type"), "application/vnd.tidegate.snapshot");
        let keys = PublicKeys::of(&self.identity.snapshot_keys).unwrap();
        let snapshot = Signed::open(&response.body, &keys).unwrap();
        snapshot.follows(after).unwrap();
        snapshot
    }

    /// The latest one, once it says what is wanted.
    async fn snapshot_until(
        &self,
        address: SocketAddr,
        is_wanted: impl Fn(&Snapshot) -> bool,
    ) -> Snapshot {
        let asked = Instant::now();
        let mut held = Number::default();
        loop {
            let snapshot = self.snapshot_after(address, held).await;
            if is_wanted(&snapshot) {
                return snapshot;
            }
            assert!(asked.elapsed() < PATIENCE, "{snapshot:?}");
            held = snapshot.number;
        }
    }
}

fn believing(ca_pem: &[u8]) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem).unwrap()).unwrap();
    let provider = crypto::aws_lc_rs::default_provider().into();
    let builder = ClientConfig::builder_with_provider(provider);
    builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots)
}

fn request() -> (KeyPair, String) {
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    (key, csr)
}

fn beat() -> Value {
    json!({ "phase": "ready", "load_percent": 5, "free_bits_per_second": 9_000_000_000_u64,
        "hit_percent": 90, "volumes_online": 1, "volumes_failed": 0, "answers_ipv4": true,
        "answers_ipv6": false })
}

#[tokio::test]
async fn a_box_is_enrolled_registers_is_heard_and_told_of_keys_as_they_are_put() {
    let site = Site::new("");
    let plane = Plane::start(&site);
    let address = plane.address;
    let edge = Enrolled::by_code(&site, address, "edge-1").await;
    edge.register(address).await;
    let is_well = |snapshot: &Snapshot| {
        let member = snapshot.fleet.members().first();
        member.is_some_and(|one| one.phase() == tidegate::control::Phase::Ready)
    };
    let held = edge.snapshot_until(address, is_well).await;
    assert!(held.keys.is_empty() && held.fleet.members()[0].appliance.position().is_some());

    let operator = Asks::operator(&site, address);
    let (next, ()) =
        tokio::join!(edge.snapshot_after(address, held.number), operator.put_keys("film"));
    assert_eq!(next.keys["film"], KEYS);
    let logged = plane.stop();
    assert!(logged.contains("enrolled, certificate ") && logged.contains("put keys film"));
    assert!(!logged.contains("AAECAwQF"), "no key is told in the log");
}

#[tokio::test]
async fn who_has_no_token_or_was_revoked_or_asks_too_much_is_refused() {
    let site = Site::new("requests_per_second = 20");
    let plane = Plane::start(&site);
    let address = plane.address;
    let operator = Asks::operator(&site, address);
    for (token, status) in
        [(None, 401), (Some("not-a-token-of-ours"), 401), (Some("a-viewers-own-token"), 403)]
    {
        let asks = Asks { token, ..Asks::operator(&site, address) };
        let (told, why) = asks.refused(Method::POST, "/v1/codes", r#"{"name":"a"}"#).await;
        assert_eq!(told, status, "{why}");
    }
    let long = format!("{{\"name\":\"{}\"}}", "a".repeat(70 << 10));
    assert_eq!(operator.refused(Method::POST, "/v1/codes", &long).await.0, 413);

    let [gone, stays] = [
        Enrolled::by_code(&site, address, "edge-1").await,
        Enrolled::by_code(&site, address, "edge-2").await,
    ];
    gone.register(address).await;
    stays.register(address).await;
    operator.told(Method::DELETE, "/v1/appliances/edge-1", Value::Null).await;
    let beat = beat().to_string();
    let refused = gone.asks(address).refused(Method::POST, "/v1/heartbeat", &beat).await;
    assert!(refused.0 == 403 && refused.1.contains("was revoked"), "{refused:?}");
    let told = stays.snapshot_until(address, |snapshot| !snapshot.revoked.is_empty()).await;
    assert_eq!(told.fleet.members().len(), 1);

    let mut refused = 0;
    for _ in 0..200 {
        let response = operator.ask(Method::GET, "/v1/keys", "").await;
        refused += usize::from(response.status == 429 && response.header("retry-after") == "1");
    }
    assert!(refused > 0, "200 requests in a row are too many");
}

#[tokio::test]
async fn a_restart_keeps_what_there_was_and_a_restored_backup_counts_in_a_later_epoch() {
    let site = Site::new("");
    let plane = Plane::start(&site);
    let edge = Enrolled::by_code(&site, plane.address, "edge-1").await;
    edge.register(plane.address).await;
    Asks::operator(&site, plane.address).put_keys("film").await;
    let has_all = |snapshot: &Snapshot| snapshot.keys.len() == 1 && snapshot.number.counter > 1;
    edge.snapshot_until(plane.address, has_all).await;
    plane.stop();

    let plane = Plane::start(&site);
    let held = edge.snapshot_until(plane.address, has_all).await;
    assert_eq!(held.fleet.members().len(), 1);
    plane.stop();
    let backup = fs::read(site.state()).unwrap();

    let plane = Plane::start(&site);
    Asks::operator(&site, plane.address).put_keys("series").await;
    let held = edge.snapshot_until(plane.address, |snapshot| snapshot.keys.len() == 2).await;
    plane.stop();
    fs::write(site.state(), backup).unwrap();

    let plane = Plane::start(&site);
    let asked = format!("/v1/snapshot?after={}", held.number);
    let (status, why) = edge.asks(plane.address).refused(Method::GET, &asked, "").await;
    assert!(status == 409 && why.contains("`tidegate control raise-epoch`"), "{why}");
    let (code, said) = site.says(&["raise-epoch", "--json"], Some(plane.address));
    let number: Number = serde_json::from_str(&said).unwrap();
    assert_eq!((code, number.epoch), (0, 2));
    let next = edge.snapshot_after(plane.address, held.number).await;
    assert_eq!((next.number.epoch, next.keys.len()), (2, 1));
    plane.stop();

    let (code, said) = site.says(&["raise-epoch", "--to", "2"], None);
    assert!(code == 1 && said.contains("the epoch is 2"), "{said}");
    let (code, said) = site.says(&["raise-epoch"], None);
    assert!(code == 0 && said.contains("the next snapshot follows 3."), "{said}");
    let plane = Plane::start(&site);
    assert_eq!(edge.snapshot_after(plane.address, next.number).await.number.epoch, 3);
}

#[tokio::test]
async fn a_state_is_exported_running_or_not_and_imported_where_there_is_none() {
    let site = Site::new("");
    let (code, said) = site.says(&["export"], None);
    assert!(code == 1 && said.contains("no control plane was ever started"), "{said}");
    let plane = Plane::start(&site);
    Asks::operator(&site, plane.address).put_keys("film").await;
    let (code, running) = site.says(&["export"], Some(plane.address));
    assert_eq!(code, 0, "{running}");
    plane.stop();
    let (code, stopped) = site.says(&["export"], None);
    assert_eq!(code, 0, "{stopped}");
    let keys = |text: &str| serde_json::from_str::<Value>(text).unwrap()["keys"].clone();
    assert!(keys(&running)["film"] == KEYS && keys(&stopped)["film"] == KEYS);

    let other = Site::new("");
    let file = other.folder.path().join("fleet.json");
    fs::write(&file, &stopped).unwrap();
    let words = ["import", file.to_str().unwrap()];
    let (code, said) = other.says(&words, None);
    assert!(code == 0 && said.starts_with("imported, at snapshot 1."), "{said}");
    let (code, said) = other.says(&words, None);
    assert!(code == 1 && said.contains("import into an empty one"), "{said}");
    let plane = Plane::start(&other);
    let operator = Asks::operator(&other, plane.address);
    let told = operator.told(Method::GET, "/v1/keys", Value::Null).await;
    assert_eq!(told["keys"][0]["name"], "film");
}

#[tokio::test]
async fn the_state_of_a_large_fleet_is_exported_whole() {
    let site = Site::new("requests_per_second = 1000");
    let plane = Plane::start(&site);
    let operator = Asks::operator(&site, plane.address);
    // JSON writes the end of a line as two letters.
    let keys = format!("{KEYS}{}", "\n".repeat((1 << 20) - KEYS.len()));
    for n in 0..8 {
        let put = operator.ask(Method::PUT, &format!("/v1/keys/k{n}"), keys.clone()).await;
        assert_eq!(put.status, 204);
    }
    for n in 0..40 {
        let asked = json!({ "name": format!("edge-{n}") });
        operator.told(Method::POST, "/v1/codes", asked).await;
    }
    let (code, said) = site.says(&["export"], Some(plane.address));
    assert!(code == 0 && said.len() > 16 << 20, "{} bytes: {said:.200}", said.len());
}

/// Whether a control plane shows what is issued by this one.
async fn shows(address: SocketAddr, pem: &str) -> bool {
    let connector = TlsConnector::from(Arc::new(believing(pem.as_bytes()).with_no_client_auth()));
    let stream = TcpStream::connect(address).await.unwrap();
    connector.connect("localhost".try_into().unwrap(), stream).await.is_ok()
}

#[tokio::test]
async fn another_certificate_in_its_files_is_shown_after_a_signal_and_without_one() {
    let site = Site::new("certificate = { cert = \"shown.pem\", key = \"shown.key\" }");
    let write = |name: &str| {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let [key, cert] =
            ["key", "pem"].map(|ends| site.folder.path().join(name).with_extension(ends));
        fs::write(key, made.signing_key.serialize_pem()).unwrap();
        fs::write(cert, made.cert.pem()).unwrap();
        made.cert.pem()
    };
    let first = write("shown");
    let plane = Plane::start(&site);
    assert!(shows(plane.address, &first).await);
    for signals in [true, false] {
        let next = write("next");
        if signals {
            // Nobody looks at these files before.
            let text = fs::read_to_string(&site.config).unwrap();
            fs::write(&site.config, text.replace("shown.", "next.")).unwrap();
            plane.signal(Signal::HUP);
        }
        let asked = Instant::now();
        while !shows(plane.address, &next).await {
            assert!(asked.elapsed() < PATIENCE, "signals: {signals}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    assert!(plane.stop().contains("read the tokens and the certificate again"));
}

#[tokio::test]
async fn a_control_plane_beside_an_appliance_never_holds_it_up() {
    let origin = Origin::start();
    origin.serve("/a.bin", Script::of(1_000));
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("control");
    let site = format!(
        "[control]\nlisten = [\"127.0.0.1:0\"]\nstate = {state:?}\n\
         [[sites]]\nname = \"media\"\nhosts = [{HOST:?}]\norigins = [\"http://{}\"]\n",
        origin.address()
    );
    // What is in the place of its state is something else.
    fs::create_dir_all(&state).unwrap();
    fs::write(state.join("state.redb"), "something else").unwrap();
    let edge = Process::start(&configured(folder.path(), &site));
    until_ready(&Client::plain(edge.admin, "admin.test")).await;
    let viewer = Client::plain(edge.http, HOST);
    assert_eq!(viewer.get("/a.bin").send().await.status, 200);
    let logged = edge.logged_until("there is no control plane, and it is tried again: ").await;
    assert!(logged.iter().any(|line| line.contains("state.redb cannot be used: ")));

    let client = Client::plain(edge.admin, &edge.admin.to_string());
    let control = async || {
        let told = client.get("/status.json").send().await.body;
        serde_json::from_slice::<Value>(&told).unwrap()["control"].clone()
    };
    let told = control().await;
    assert!(told["why"].as_str().unwrap().contains("state.redb cannot be used: "), "{told}");
    assert_eq!(told["is_running"], false);

    fs::remove_file(state.join("state.redb")).unwrap();
    edge.logged_until(" control at ").await;
    let asked = Instant::now();
    while control().await["is_running"] != true {
        assert!(asked.elapsed() < PATIENCE, "it runs");
    }
    let (code, said) = edge.upgrade();
    assert_eq!(code, 0, "{said}");
    // The one that follows has the state.
    edge.logged_times(" control at ", 2).await;
    assert_eq!(viewer.get("/a.bin").send().await.status, 200);
    let config = folder.path().join("edge.toml");
    let asked = tidegate(&["control", "export", "--config", config.to_str().unwrap()]);
    let said = text(&asked.stderr);
    assert!(said.starts_with("nobody may ask it"), "a state that nobody has is opened: {said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_where_to_go_is_sent_to_a_box_while_another_process_takes_over() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tokens"), format!("operator anna {OPERATOR}\n")).unwrap();
    let more = format!(
        "listeners.steering = [\"127.0.0.1:0\"]\n\
         [[sites]]\nname = \"media\"\nhosts = [{HOST:?}]\norigins = \"http://127.0.0.1:9\"\n"
    );
    let config = configured(folder.path(), &more);
    // The address of the control plane is found by what it is written as.
    let text = fs::read_to_string(&config).unwrap().replace("127.0.0.1:0", "127.0.0.2:0");
    let control = "[control]\nlisten = [\"127.0.0.1:0\"]\nstate = \"control\"\n\
                   token_file = \"tokens\"\n[control.health]\ngood_heartbeats = 1\n";
    fs::write(&config, text + control).unwrap();
    let site = Site { folder, config };
    let process = Process::start(&site.config);
    let at = |logged: Vec<String>, words: &str| -> SocketAddr {
        logged.iter().find_map(|line| line.split_once(words)?.1.trim().parse().ok()).unwrap()
    };
    let address = at(process.logged_until(" control at ").await, " control at ");
    let steering = at(process.logged_until(" steering at ").await, " steering at ");
    let edge = Enrolled::by_code(&site, address, "edge-1").await;
    edge.register(address).await;
    edge.asks(address).told(Method::POST, "/v1/heartbeat", beat()).await;
    let go = async || {
        let client = Client::plain(steering, HOST);
        client.get("/steer/v1/go/media/film/1.m4s").send().await.status
    };
    let asked = Instant::now();
    while go().await != 302 {
        assert!(asked.elapsed() < PATIENCE, "nobody is sent to it");
    }
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let viewers = async || {
        let mut answers = 0;
        while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
            assert_eq!(go().await, 302, "after {answers}");
            answers += 1;
        }
        answers
    };
    let upgraded = async {
        let (process, (code, said)) = tokio::task::spawn_blocking(move || {
            let upgraded = process.upgrade();
            (process, upgraded)
        })
        .await
        .unwrap();
        assert_eq!(code, 0, "{said}");
        process.logged_times(" control at ", 2).await;
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        process
    };
    let (process, one, other) = tokio::join!(upgraded, viewers(), viewers());
    assert!(one + other > 10, "{one}, {other}");
    process.stop();
}

#[test]
fn a_file_for_a_control_plane_alone_is_checked_and_served_by_nobody_else() {
    let site = Site::new("");
    let config = site.config.to_str().unwrap();
    let checked = tidegate(&["check", config]);
    let said = text(&checked.stdout) + &text(&checked.stderr);
    assert!(checked.status.success() && said.contains("for `tidegate control` alone"), "{said}");
    assert!(said.contains("by token"), "{said}");
    let told = tidegate(&["check", config, "--json"]);
    let told: Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!(told["control"]["listen"][0], "127.0.0.1:0");
    let served = tidegate(&["serve", "--config", config]);
    assert_eq!(served.status.code(), Some(64), "{}", text(&served.stderr));

    fs::write(site.folder.path().join("tokens"), "short").unwrap();
    let checked = tidegate(&["check", config]);
    let said = text(&checked.stderr);
    assert!(checked.status.code() == Some(64) && said.lines().count() == 1, "{said}");
    assert!(said.contains("`control.token_file` names"), "{said}");
}

#[tokio::test]
async fn a_box_says_how_it_is_on_one_connection_again_and_again() {
    let site = Site::new("");
    let plane = Plane::start(&site);
    let edge = Enrolled::by_code(&site, plane.address, "edge-1").await;
    edge.register(plane.address).await;
    let client = edge.asks(plane.address).client;
    let mut connection = client.connect().await.unwrap();
    for _ in 0..3 {
        let request = client.request(Method::POST, "/v1/heartbeat").body(beat().to_string());
        let (answer, kept) = request.on(connection).await.unwrap().finish_and_keep().await.unwrap();
        assert_eq!((answer.status, answer.header("connection").as_str()), (200, ""));
        connection = kept.unwrap();
    }
}

#[tokio::test]
async fn who_has_shown_nothing_takes_no_more_than_his_part_of_the_connections() {
    let site = Site::new("");
    let plane = Plane::start(&site);
    let most = PLANE_CONNECTIONS_PER_CLIENT_MAX as usize;
    let mut held = Vec::new();
    for _ in 0..most + 8 {
        held.push(TcpStream::connect(plane.address).await.unwrap());
    }
    let last = held.last_mut().unwrap();
    assert!(timeout(PATIENCE, last.read_u8()).await.unwrap().is_err(), "it is closed");
    // Of those who came before it is awaited that they shake hands.
    let read = held[most / 2].try_read(&mut [0]);
    assert_eq!(read.unwrap_err().kind(), ErrorKind::WouldBlock);
    let ca = fs::read(site.folder.path().join("control/ca.pem")).unwrap();
    let another = TcpSocket::new_v4().unwrap();
    another.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let stream = another.connect(plane.address).await.unwrap();
    let config = Arc::new(believing(&ca).with_no_client_auth());
    let name = "localhost".try_into().unwrap();
    TlsConnector::from(config).connect(name, stream).await.unwrap();
}

#[tokio::test]
async fn a_token_that_is_withdrawn_counts_no_more_beside_an_appliance() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let [state, tokens] = ["control", "tokens"].map(|name| folder.path().join(name));
    fs::write(&tokens, OPERATOR).unwrap();
    let more = format!(
        "[control]\nlisten = [\"127.0.0.1:0\"]\nstate = {state:?}\ntoken_file = {tokens:?}\n\
         [[sites]]\nname = \"media\"\nhosts = [{HOST:?}]\norigins = [\"http://{}\"]\n",
        origin.address()
    );
    let edge = Process::start(&configured(folder.path(), &more));
    let logged = edge.logged_until(" control at ").await;
    let address = logged.iter().find_map(|line| line.split_once(" control at "));
    let address: SocketAddr = address.unwrap().1.trim().parse().unwrap();
    let ca = fs::read(state.join("ca.pem")).unwrap();
    let status = async |token: &'static str| {
        let client = Client::tls_by(address, "localhost", believing(&ca).with_no_client_auth());
        Asks { client, token: Some(token) }.ask(Method::GET, "/v1/keys", "").await.status
    };
    let later = "another-operators-token";
    assert_eq!([status(OPERATOR).await, status(later).await], [200, 401]);
    fs::write(&tokens, later).unwrap();
    edge.signal(Signal::HUP);
    edge.logged_until("control.token_file: another one").await;
    assert_eq!([status(OPERATOR).await, status(later).await], [401, 200]);
}
