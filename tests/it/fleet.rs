//! Boxes of a fleet, by the real binary: enrolled, heard and told what to go by; and what they do
//! when the control plane is gone, lies, or will have nothing of them any more.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use http::Method;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tidegate::control::issuer::Issuer;
use tidegate::control::registry::fleet::Fleet;
use tidegate::control::snapshot::{Number, SigningKey, Snapshot};
use tidegate::token::key_file::KeyFile;
use tidegate::token::uri_signing::{Matching, mint};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{ServerConfig, crypto, sign::SingleCertAndKey};

use crate::plane::{Asks, Plane, Site};
use crate::steering::asking;
use crate::support::{
    Client, HOST, Origin, Process, Script, configured, text, tidegate_in, until_ready,
};

/// Pauses between attempts grow to ten seconds, and so long is an answer waited for.
const PATIENCE: Duration = Duration::from_secs(90);

/// What a box finds where its control plane should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum There {
    /// Who listens at this address.
    Somebody(SocketAddr),
    /// Nobody: connections are closed.
    Nobody,
    /// Who speaks another protocol.
    Garbage,
    /// Who takes connections and says nothing.
    Silence,
}

/// The way to a control plane, at one address whoever is there.
struct Way {
    address: SocketAddr,
    there: Arc<Mutex<There>>,
    cut: Arc<tokio::sync::Notify>,
    task: JoinHandle<()>,
}

impl Way {
    async fn to(there: There) -> Way {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let there = Arc::new(Mutex::new(there));
        let cut = Arc::new(tokio::sync::Notify::new());
        let (told, ends) = (there.clone(), cut.clone());
        let task = tokio::spawn(async move {
            loop {
                let Ok((mut stream, _)) = listener.accept().await else { continue };
                let (found, ends) = (*told.lock().unwrap(), ends.clone());
                let relay = async move {
                    match found {
                        There::Nobody => {}
                        There::Silence => std::future::pending().await,
                        There::Garbage => {
                            let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await;
                        }
                        There::Somebody(address) => {
                            let Ok(mut other) = TcpStream::connect(address).await else { return };
                            let _ = tokio::io::copy_bidirectional(&mut stream, &mut other).await;
                        }
                    }
                };
                tokio::spawn(async move {
                    tokio::select! {
                        () = relay => {}
                        () = ends.notified() => {}
                    }
                });
            }
        });
        Way { address, there, cut, task }
    }

    /// From now on; connections that stand are cut.
    fn leads_to(&self, there: There) {
        *self.there.lock().unwrap() = there;
        self.cut.notify_waiters();
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The folder of a box with its configuration.
struct Box {
    folder: TempDir,
    config: PathBuf,
}

impl Box {
    fn new(name: &str, control: SocketAddr, origin: &Origin) -> Box {
        Box::saying(name, control, origin, "")
    }

    /// The same with more settings of its site.
    fn saying(name: &str, control: SocketAddr, origin: &Origin, of_site: &str) -> Box {
        Box::asking(&[control], name, origin, of_site)
    }

    /// The same with several control planes.
    fn asking(controls: &[SocketAddr], name: &str, origin: &Origin, of_site: &str) -> Box {
        let folder = tempfile::tempdir().unwrap();
        let controls: Vec<String> = controls.iter().map(|one| format!("https://{one}")).collect();
        let more = format!(
            "[fleet]\ncontrol = {controls:?}\nname = {name:?}\nhost = \"{name}.test\"\n\
             addresses = [\"192.0.2.7\"]\ncapacity = \"10 Gbit/s\"\ntags = [\"berlin\"]\n\
             [[sites]]\nname = \"media\"\nhosts = [{HOST:?}]\norigins = [\"http://{}\"]\n{of_site}\n",
            origin.address()
        );
        let config = configured(folder.path(), &more);
        Box { folder, config }
    }

    /// It is asked where viewers are to go, too.
    fn steers(&self) {
        let text = fs::read_to_string(&self.config).unwrap();
        let listens = "listeners.steering = [\"127.0.0.1:0\"]\n";
        fs::write(&self.config, listens.to_owned() + &text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("fleet").join(name)
    }

    /// What `tidegate enrol` says, in the folder of the box.
    async fn enrols(&self, code: &str, more: &[&str]) -> (i32, String) {
        let (folder, config) = (self.folder.path().to_owned(), self.config.file_name().unwrap());
        let words =
            ["enrol", "--config", config.to_str().unwrap(), "--code", code].map(str::to_owned);
        let more = more.iter().map(|word| (*word).to_owned());
        let words: Vec<String> = words.into_iter().chain(more).collect();
        let done = tokio::task::spawn_blocking(move || {
            tidegate_in(&folder, &words.iter().map(String::as_str).collect::<Vec<_>>())
        });
        let done = done.await.unwrap();
        (done.status.code().unwrap(), text(&done.stdout) + &text(&done.stderr))
    }

    async fn enrolled(&self, site: &Site, address: SocketAddr, name: &str, more: &[&str]) {
        let (done, said) = self.enrols(&code(site, address, name), more).await;
        assert!(done == 0 && said.contains(&format!("enrolled this box as {name}")), "{said}");
    }
}

fn code(site: &Site, address: SocketAddr, name: &str) -> String {
    let (done, said) = site.says(&["code", name], Some(address));
    assert_eq!(done, 0, "{said}");
    said.lines().next().unwrap().to_owned()
}

/// Who asks from this machine, by an address, may look at all of it.
fn admin(edge: &Process) -> Client {
    Client::plain(edge.admin, &edge.admin.to_string())
}

async fn status(edge: &Process) -> Value {
    let told = admin(edge).get("/status.json").send().await;
    serde_json::from_slice::<Value>(&told.body).unwrap()["fleet"].clone()
}

/// How the box stands, once that is as wanted.
async fn until(edge: &Process, what: &str, mut is_so: impl FnMut(&Value) -> bool) -> Value {
    let asked = Instant::now();
    loop {
        let status = status(edge).await;
        if is_so(&status) {
            return status;
        }
        assert!(asked.elapsed() < PATIENCE, "{what}: {status:#}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The appliance of this name in the registry, once it is as wanted.
async fn until_registered(
    operator: &Asks,
    name: &str,
    what: &str,
    is_so: impl Fn(&Value) -> bool,
) -> Value {
    let asked = Instant::now();
    loop {
        let told = operator.told(Method::GET, "/v1/appliances", Value::Null).await;
        let all = told["appliances"].as_array().unwrap().clone();
        let found = all.into_iter().find(|one| one["appliance"]["name"] == name);
        let found = found.unwrap_or(Value::Null);
        if is_so(&found) {
            return found;
        }
        assert!(asked.elapsed() < PATIENCE, "{name}, {what}: {told:#}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn is_well(member: &Value) -> bool {
    member["ipv4"] == "well" && member["heard"]["phase"] == "ready"
}

/// Whom it sends viewers to, the best first.
async fn ranked(edge: &Process) -> Vec<String> {
    let steering = asking(edge, " steering at ").await;
    let answer = steering.get("/steer/v1/rank/media/a.bin").send().await;
    let answer: Value = serde_json::from_slice(&answer.body).unwrap();
    let ranked = answer["ranked"].as_array().unwrap().iter();
    ranked.map(|one| one["appliance"].as_str().unwrap().to_owned()).collect()
}

async fn metric(edge: &Process, name: &str) -> f64 {
    let told = admin(edge).get("/metrics").send().await;
    let told = String::from_utf8_lossy(&told.body).into_owned();
    let line = told.lines().find(|line| line.starts_with(name));
    let value = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
    value.unwrap_or_else(|| panic!("there is no {name}"))
}

async fn origin() -> Origin {
    let origin = Origin::start();
    origin.serve("/a.bin", Script::of(100_000));
    origin
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn boxes_are_enrolled_heard_and_told_and_one_that_was_revoked_says_so() {
    let (site, origin) = (Site::new(""), origin().await);
    let plane = Plane::start(&site);
    let way = Way::to(There::Somebody(plane.address)).await;
    let operator = Asks::operator(&site, plane.address);
    let [one, two] = ["edge-1", "edge-2"].map(|name| Box::new(name, way.address, &origin));
    one.enrolled(&site, plane.address, "edge-1", &[]).await;
    let first = Process::start(&one.config);
    // Who serves already takes up what it is given.
    let second = Process::start(&two.config);
    second.logged_until("this box is not enrolled").await;
    two.enrolled(&site, plane.address, "edge-2", &[]).await;

    for name in ["edge-1", "edge-2"] {
        let member = until_registered(&operator, name, "well", is_well).await;
        let appliance = &member["appliance"];
        assert_eq!(appliance["host"], format!("{name}.test"));
        assert_eq!(appliance["capacity_bits_per_second"], 10_000_000_000_u64);
        assert_eq!(appliance["sites"], serde_json::json!(["media"]));
        let free = member["heard"]["free_bits_per_second"].as_u64().unwrap();
        assert!((9_000_000_000..=10_000_000_000).contains(&free), "{member:#}");
    }
    operator.put_keys("film").await;
    for edge in [&first, &second] {
        let told = until(edge, "keys", |it| it["snapshot"]["key_files"] == 1).await;
        assert_eq!(told["is_heard"], true);
        until(edge, "both boxes", |it| it["snapshot"]["appliances"] == 2).await;
        assert!(metric(edge, "tidegate_fleet_snapshot_counter").await >= 1.0);
        assert_eq!(metric(edge, "tidegate_fleet_control_reachable").await, 1.0);
        let ends = metric(edge, "tidegate_fleet_certificate_expiry_timestamp_seconds").await;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!(ends > now + 29.0 * 86_400.0);
    }
    let (done, said) = first.answers(&["status"]);
    let line = said.lines().find(|line| line.starts_with("  fleet  ")).unwrap_or_default();
    assert!(done == 0 && line.contains("edge-1: snapshot 1."), "{said}");
    assert!(line.ends_with(&format!("; heard by https://{}", way.address)), "{line}");

    let viewer = Client::plain(first.http, HOST);
    for _ in 0..20 {
        assert_eq!(viewer.get("/a.bin").send().await.status, 200);
    }
    let has_hits = |member: &Value| member["heard"]["hit_percent"].as_u64() >= Some(50);
    until_registered(&operator, "edge-1", "hits", has_hits).await;

    let (done, said) = first.answers(&["drain", "--within", "1h"]);
    assert_eq!(done, 0, "{said}");
    let is_draining = |member: &Value| member["heard"]["phase"] == "draining";
    until_registered(&operator, "edge-1", "draining", is_draining).await;

    operator.told(Method::DELETE, "/v1/appliances/edge-2", Value::Null).await;
    let told = until(&second, "revoked", |it| it["is_heard"] == false).await;
    assert!(told["why"].as_str().unwrap().contains("this certificate was revoked"), "{told:#}");
    assert_eq!(told["snapshot"]["key_files"], 1, "what it went by it goes by");
    let (_, said) = second.answers(&["status"]);
    assert!(said.contains("this certificate was revoked: enrol the box again"), "{said}");
    let told = second.logged_until("this certificate was revoked").await;
    assert_eq!(told.iter().filter(|line| line.contains("was revoked")).count(), 1, "{told:#?}");
    two.enrolled(&site, plane.address, "edge-2", &["--again"]).await;
    until_registered(&operator, "edge-2", "well again", is_well).await;

    // Who ends says so.
    second.signal(Signal::TERM);
    until_registered(&operator, "edge-2", "leaving", is_draining).await;
    second.ended();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn viewers_are_let_in_by_keys_that_the_control_plane_has_and_in_time_by_others() {
    let (site, origin) = (Site::new(""), origin().await);
    let plane = Plane::start(&site);
    let operator = Asks::operator(&site, plane.address);
    let of_site = "tokens = { keys = \"fleet:film\" }";
    let edge = Box::saying("edge-1", plane.address, &origin, of_site);
    edge.enrolled(&site, plane.address, "edge-1", &[]).await;
    let process = Process::start(&edge.config);
    let viewer = Client::plain(process.http, HOST);
    let by = |secret: &str| {
        let keys = serde_json::json!({ "publisher": { "renewal_kid": "k", "keys": [
            { "kty": "oct", "kid": "k", "alg": "HS256", "k": secret.repeat(11) } ] } });
        let file = KeyFile::parse(keys.to_string().as_bytes()).unwrap();
        let parsed = file.keys(Matching::Full).unwrap();
        let claims = serde_json::json!({ "cdniuc": "regex:.*" }).as_object().unwrap().clone();
        (keys.to_string(), mint(&claims, parsed.renewal("publisher").unwrap()).unwrap())
    };
    let asked = async |token: &str| {
        let target = format!("/a.bin?URISigningPackage={token}");
        viewer.get(&target).send().await.status
    };
    let until_asked = async |token: &str, status: u16| {
        let begun = Instant::now();
        while asked(token).await != status {
            assert!(begun.elapsed() < PATIENCE, "{status}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let ((first_keys, first), (second_keys, second)) = (by("c2Vj"), by("b3Ro"));
    assert_eq!(asked(&first).await, 403, "before keys are known nobody is");
    assert_eq!(operator.ask(Method::PUT, "/v1/keys/film", first_keys).await.status, 204);
    until_asked(&first, 200).await;
    assert_eq!(operator.ask(Method::PUT, "/v1/keys/film", second_keys).await.status, 204);
    until_asked(&second, 200).await;
    assert_eq!(asked(&first).await, 403);
    assert_eq!(operator.ask(Method::DELETE, "/v1/keys/film", String::new()).await.status, 204);
    until_asked(&second, 403).await;
    let (keys, _) = by("b3Ro");
    assert_eq!(operator.ask(Method::PUT, "/v1/keys/film", keys).await.status, 204);
    until_asked(&second, 200).await;
    plane.stop();
    assert_eq!(asked(&second).await, 200, "a control plane that is gone shuts nobody out");
    process.stop();
    let process = Process::start(&edge.config);
    let viewer = Client::plain(process.http, HOST);
    let target = format!("/a.bin?URISigningPackage={second}");
    let status = viewer.get(&target).send().await.status;
    assert_eq!(status, 200, "nor does a restart without one, from the first viewer on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_a_wrong_code_or_asks_somebody_else_is_told_so_in_one_line() {
    let (site, stranger, origin) = (Site::new(""), Site::new(""), origin().await);
    let (plane, other) = (Plane::start(&site), Plane::start(&stranger));
    let way = Way::to(There::Somebody(plane.address)).await;
    let edge = Box::new("edge-1", way.address, &origin);
    let good = code(&site, plane.address, "edge-1");
    let of_another_name = code(&site, plane.address, "edge-2");
    let (secret, print) = good.split_once('.').unwrap();
    let unknown = format!("{}.{print}", "0".repeat(secret.len()));
    for (there, code, says) in [
        (There::Somebody(plane.address), "1234", "this is no code; write what `tidegate control"),
        (There::Somebody(plane.address), &unknown, " refuses: this code does not count"),
        (There::Somebody(plane.address), &of_another_name, " refuses: this code does not count"),
        (There::Somebody(other.address), &good, "is not the control plane that this code is of"),
        (There::Garbage, &good, " does not answer: "),
        (There::Nobody, &good, " does not answer: "),
    ] {
        way.leads_to(there);
        let (done, said) = edge.enrols(code, &[]).await;
        let misused = says.starts_with("this is no code");
        assert_eq!(done, if misused { 64 } else { 1 }, "{there:?}: {said}");
        assert!(said.contains(says) && said.lines().count() == 1, "{there:?}: {said}");
        assert!(!edge.path("identity.json").exists(), "{there:?}");
    }
    way.leads_to(There::Somebody(plane.address));
    let (done, said) = edge.enrols(&good, &["--json"]).await;
    let told: Value = serde_json::from_str(&said).unwrap_or_else(|_| panic!("{said}"));
    assert_eq!((done, &told["name"]), (0, &Value::from("edge-1")));
    let (done, said) = edge.enrols(&good, &[]).await;
    assert!(done == 1 && said.contains("`--again` gives it another one"), "{said}");
    let before = fs::read(edge.path("identity.json")).unwrap();
    let (done, said) = edge.enrols(&good, &["--again"]).await;
    assert!(done == 1 && said.contains("does not count"), "a code counts once: {said}");
    assert_eq!(fs::read(edge.path("identity.json")).unwrap(), before);
    drop((plane, other));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_box_with_two_control_planes_is_told_and_heard_by_the_one_that_is_there() {
    let (site, origin) = (Site::new(""), origin().await);
    let plane = Plane::start(&site);
    let silent = Way::to(There::Silence).await;
    let edge = Box::new("edge-1", plane.address, &origin);
    edge.enrolled(&site, plane.address, "edge-1", &[]).await;
    let both = format!("\"https://{}\", \"https://{}\"", silent.address, plane.address);
    let text = fs::read_to_string(&edge.config).unwrap();
    let text = text.replace(&format!("\"https://{}\"", plane.address), &both);
    // It may send a tenth of its capacity, all of which is free.
    let text = text.replace("limits.lag", "limits.egress = \"1 Gbit/s\"\nlimits.lag");
    fs::write(&edge.config, text).unwrap();
    let operator = Asks::operator(&site, plane.address);
    operator.put_keys("film").await;
    let process = Process::start(&edge.config);
    until(&process, "told", |it| it["snapshot"]["key_files"] == 1).await;
    let member = until_registered(&operator, "edge-1", "well", is_well).await;
    assert_eq!(member["appliance"]["capacity_bits_per_second"], 1_000_000_000_u64);
    assert_eq!(member["room"], "open", "{member:#}");
    process.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_box_that_starts_without_a_control_plane_goes_by_the_last_snapshot_until_it_is_back() {
    let (site, origin) = (Site::new(""), origin().await);
    let plane = Plane::start(&site);
    let way = Way::to(There::Somebody(plane.address)).await;
    let edge = Box::new("edge-1", way.address, &origin);
    edge.steers();
    edge.enrolled(&site, plane.address, "edge-1", &[]).await;
    Asks::operator(&site, plane.address).put_keys("film").await;
    let process = Process::start(&edge.config);
    let is_told = |it: &Value| it["snapshot"]["key_files"] == 1 && it["is_heard"] == true;
    until(&process, "told", is_told).await;
    plane.stop();
    way.leads_to(There::Nobody);
    let before = until(&process, "not heard", |it| it["is_heard"] == false).await;
    process.stop();

    // The file says when it was last known to be the latest.
    let hour = Duration::from_secs(3_600);
    let file = fs::File::options().write(true).open(edge.path("snapshot")).unwrap();
    file.set_modified(SystemTime::now() - hour).unwrap();
    // Its certificate is to be renewed at once, when that can be done.
    let identity = edge.path("identity.json");
    let mut kept: Value = serde_json::from_slice(&fs::read(&identity).unwrap()).unwrap();
    kept["given"]["renew_at"] = 0.into();
    fs::write(&identity, kept.to_string()).unwrap();
    let process = Process::start(&edge.config);
    assert_eq!(ranked(&process).await, ["edge-1"]);
    until_ready(&admin(&process)).await;
    let viewer = Client::plain(process.http, HOST);
    assert_eq!(viewer.get("/a.bin").send().await.status, 200);
    let told = until(&process, "asked in vain", |it| it["why"].is_string()).await;
    for part in ["epoch", "counter", "key_files"] {
        assert_eq!(told["snapshot"][part], before["snapshot"][part], "{told:#}");
    }
    assert!(told["snapshot"]["age_seconds"].as_u64().unwrap() >= 3_600, "{told:#}");
    assert!(metric(&process, "tidegate_fleet_snapshot_age_seconds").await >= 3_600.0);
    assert!(metric(&process, "tidegate_fleet_heartbeats_failed_total").await >= 1.0);
    let (_, said) = process.answers(&["status"]);
    let line = said.lines().find(|line| line.starts_with("  fleet  ")).unwrap_or_default();
    assert!(line.contains(", 1h 0m old; not heard for "), "{said}");

    let plane = Plane::start(&site);
    way.leads_to(There::Somebody(plane.address));
    let operator = Asks::operator(&site, plane.address);
    operator.put_keys("series").await;
    let told = until(&process, "told anew", |it| it["snapshot"]["key_files"] == 2).await;
    assert_eq!(told["snapshot"]["appliances"], 1);
    assert!(told["snapshot"]["age_seconds"].as_u64().unwrap() < 60, "{told:#}");
    until_registered(&operator, "edge-1", "well", is_well).await;
    let mut renewed = Value::Null;
    let is_renewed = |_: &Value| {
        renewed = serde_json::from_slice(&fs::read(&identity).unwrap()).unwrap();
        renewed["given"]["renew_at"].as_u64() > Some(0)
    };
    until(&process, "another certificate", is_renewed).await;
    assert_ne!(renewed["given"]["certificate_pem"], kept["given"]["certificate_pem"]);
    assert_ne!(renewed["key_pem"], kept["key_pem"]);
    process.logged_until("the box has another certificate, which ends in ").await;
    until(&process, "heard by the new one", |it| it["is_heard"] == true).await;

    // Another process is the box from then on, and this one says nothing more.
    let (done, said) = process.upgrade();
    assert_eq!(done, 0, "{said}");
    let told = until(&process, "heard of it", |it| it["is_heard"] == true).await;
    assert_eq!(told["snapshot"]["key_files"], 2);
    operator.put_keys("third").await;
    until(&process, "told of it", |it| it["snapshot"]["key_files"] == 3).await;
    let member = until_registered(&operator, "edge-1", "there", |it| !it.is_null()).await;
    assert!(is_well(&member), "{member:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_box_asks_the_next_control_plane_when_one_is_gone_or_says_nothing() {
    let (site, origin) = (Site::new(""), origin().await);
    let plane = Plane::start(&site);
    let there = There::Somebody(plane.address);
    let (one, other) = (Way::to(there).await, Way::to(there).await);
    let controls = [one.address, other.address];
    let edge = Box::asking(&controls, "edge-1", &origin, "");
    one.leads_to(There::Nobody);
    edge.enrolled(&site, plane.address, "edge-1", &[]).await;
    one.leads_to(there);
    let process = Process::start(&edge.config);
    let operator = Asks::operator(&site, plane.address);
    let by = |way: &Way| Value::from(format!("https://{}", way.address));
    until(&process, "heard by the first", |it| it["control"] == by(&one)).await;

    one.leads_to(There::Nobody);
    operator.put_keys("film").await;
    let is_told = |it: &Value| it["snapshot"]["key_files"] == 1 && it["control"] == by(&other);
    until(&process, "told by the second", is_told).await;
    assert_eq!(status(&process).await["is_heard"], true);

    one.leads_to(there);
    other.leads_to(There::Silence);
    operator.put_keys("series").await;
    let is_told = |it: &Value| it["snapshot"]["key_files"] == 2 && it["control"] == by(&one);
    until(&process, "told by the first again", is_told).await;
}

/// What a control plane of the right authority says that should not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    /// What is no snapshot, nor JSON.
    Nonsense,
    /// A later snapshot that somebody else has signed.
    Forged,
    /// One that is signed, and older.
    Older,
    /// A body without an end.
    Endless,
    /// A head without an end.
    EndlessHead,
    /// That there is nothing new, at once, again and again.
    Hasty,
    /// Nothing.
    Hangs,
    /// That something is wrong with it.
    Fails,
}

/// Such a control plane.
struct Liar {
    address: SocketAddr,
    lie: Arc<Mutex<Lie>>,
    asked: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Liar {
    /// With the keys that lie in the folder of the real one.
    async fn start(folder: &Path, number: Number) -> Liar {
        let issuer = Issuer::open(&folder.join("control"), SystemTime::now()).unwrap();
        let own = issuer.own(&["127.0.0.1".to_owned()], SystemTime::now()).unwrap();
        let provider = crypto::aws_lc_rs::default_provider().into();
        let key = tokio_rustls::rustls::sign::CertifiedKey::clone(&own.key);
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let made = |counter, key: &SigningKey| {
            let number = Number { counter, ..number };
            let (fleet, keys, revoked) = (Fleet::default(), Default::default(), Default::default());
            Snapshot { number, made_at: 1, fleet, keys, revoked }.sign(key).unwrap()
        };
        let forged = made(number.counter + 1, &SigningKey::generate().0);
        let older = made(number.counter - 1, issuer.signing());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (lie, asked) = (Arc::new(Mutex::new(Lie::Nonsense)), Arc::new(AtomicU64::new(0)));
        let (told, counted) = (lie.clone(), asked.clone());
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let (acceptor, told, counted) = (acceptor.clone(), told.clone(), counted.clone());
                let (forged, older) = (forged.clone(), older.clone());
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let snapshot = asks_for_snapshot(&mut stream).await;
                    counted.fetch_add(1, Ordering::Relaxed);
                    let lie = *told.lock().unwrap();
                    let sent = match lie {
                        Lie::Forged if snapshot => Some(&forged),
                        Lie::Older if snapshot => Some(&older),
                        _ => None,
                    };
                    say(&mut stream, lie, sent).await;
                });
            }
        });
        Liar { address, lie, asked, task }
    }

    fn says(&self, lie: Lie) {
        *self.lie.lock().unwrap() = lie;
        self.asked.store(0, Ordering::Relaxed);
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn asks_for_snapshot(stream: &mut (impl AsyncRead + Unpin)) -> bool {
    let mut head = Vec::new();
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        let mut some = [0; 4_096];
        match stream.read(&mut some).await {
            Ok(count @ 1..) => head.extend_from_slice(&some[..count]),
            _ => return false,
        }
    }
    head.starts_with(b"GET /v1/snapshot")
}

/// Ends when the box has had enough of it.
async fn say(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), lie: Lie, body: Option<&Vec<u8>>) {
    let head = |status: &str, length: usize| {
        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n")
    };
    let _ = match (lie, body) {
        (Lie::Forged | Lie::Older, Some(body)) => {
            let _ = stream.write_all(head("200 OK", body.len()).as_bytes()).await;
            stream.write_all(body).await
        }
        (Lie::Hasty, _) => stream.write_all(head("204 No Content", 0).as_bytes()).await,
        (Lie::Fails, _) => stream.write_all(head("500 Bad", 0).as_bytes()).await,
        (Lie::Hangs, _) => stream.read(&mut [0]).await.map(drop),
        (Lie::Endless, _) => {
            let _ = stream.write_all(head("200 OK", usize::MAX >> 1).as_bytes()).await;
            while stream.write_all(&[b'x'; 64 << 10]).await.is_ok() {}
            Ok(())
        }
        (Lie::EndlessHead, _) => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nx: ").await;
            while stream.write_all(&[b'x'; 4 << 10]).await.is_ok() {}
            Ok(())
        }
        (Lie::Nonsense | Lie::Forged | Lie::Older, _) => {
            let _ = stream.write_all(head("200 OK", 9).as_bytes()).await;
            stream.write_all(b"<html>hi\n").await
        }
    };
    let _ = stream.shutdown().await;
}

/// Each, and why a snapshot is refused then; without one the box has asked thrice.
const LIES: [(Lie, Option<&str>); 8] = [
    (Lie::Nonsense, Some("malformed")),
    (Lie::Forged, Some("unverified")),
    (Lie::Older, Some("goes_back")),
    (Lie::Endless, Some("too_large")),
    (Lie::EndlessHead, None),
    (Lie::Fails, None),
    (Lie::Hasty, None),
    (Lie::Hangs, None),
];

/// Whoever has nothing new and says so at once is not asked without end.
async fn is_patient_with(liar: &Liar) {
    let asked = liar.asked.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let asked = liar.asked.load(Ordering::Relaxed) - asked;
    assert!(asked < 12, "{asked} times in a second");
}

async fn until_a_beat_fails(edge: &Process) {
    let failed = metric(edge, "tidegate_fleet_heartbeats_failed_total").await;
    let asked = Instant::now();
    while metric(edge, "tidegate_fleet_heartbeats_failed_total").await <= failed {
        assert!(asked.elapsed() < PATIENCE, "a heartbeat is heard");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Asks again and again; how often, and what went wrong.
async fn watch(viewer: Client, until: Arc<AtomicBool>) -> (u64, Vec<String>) {
    let (mut answers, mut wrong) = (0, Vec::new());
    while !until.load(Ordering::Relaxed) {
        match viewer.get("/a.bin").try_send().await {
            Ok(response) if response.status == 200 && response.body.len() == 100_000 => {}
            Ok(response) => wrong.push(format!("{}", response.status)),
            Err(error) => wrong.push(error.to_string()),
        }
        answers += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    (answers, wrong)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_control_plane_that_lies_changes_nothing_and_no_viewer_notices() {
    let (site, origin) = (Site::new(""), origin().await);
    let plane = Plane::start(&site);
    let way = Way::to(There::Somebody(plane.address)).await;
    let edge = Box::new("edge-1", way.address, &origin);
    edge.enrolled(&site, plane.address, "edge-1", &[]).await;
    let operator = Asks::operator(&site, plane.address);
    operator.put_keys("film").await;
    let process = Process::start(&edge.config);
    until_registered(&operator, "edge-1", "well", is_well).await;
    until(&process, "told", |it| it["snapshot"]["key_files"] == 1).await;
    // Nothing is on its way any more.
    way.leads_to(There::Nobody);
    let held = until(&process, "not heard", |it| it["is_heard"] == false).await["snapshot"].clone();
    let number = |of: &Value| (of["epoch"].as_u64().unwrap(), of["counter"].as_u64().unwrap());
    let (epoch, counter) = number(&held);

    let liar = Liar::start(site.folder.path(), Number { epoch, counter }).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let viewers: Vec<_> = (0..4)
        .map(|_| tokio::spawn(watch(Client::plain(process.http, HOST), is_over.clone())))
        .collect();
    for (lie, reason) in LIES {
        liar.says(lie);
        way.leads_to(There::Somebody(liar.address));
        let before = status(&process).await["refused"].clone();
        let counted = |it: &Value| match reason {
            Some(reason) => it["refused"][reason].as_u64() > before[reason].as_u64(),
            // It was asked twice, and so has ended once.
            None => liar.asked.load(Ordering::Relaxed) >= 3,
        };
        let told = until(&process, &format!("{lie:?}"), counted).await;
        assert_eq!(number(&told["snapshot"]), number(&held), "{lie:?}");
        if lie == Lie::Hasty {
            is_patient_with(&liar).await;
        }
    }
    for there in [There::Garbage, There::Silence, There::Nobody] {
        way.leads_to(there);
        until_a_beat_fails(&process).await;
    }
    let told = status(&process).await;
    assert_eq!(
        (told["is_heard"].as_bool(), number(&told["snapshot"])),
        (Some(false), number(&held))
    );
    assert_eq!(told["snapshot"]["key_files"], 1);

    way.leads_to(There::Somebody(plane.address));
    until(&process, "heard again", |it| it["is_heard"] == true).await;
    operator.put_keys("series").await;
    until(&process, "told again", |it| it["snapshot"]["key_files"] == 2).await;
    is_over.store(true, Ordering::Relaxed);
    for viewer in viewers {
        let (answers, wrong) = viewer.await.unwrap();
        assert!(wrong.is_empty() && answers > 100, "{answers} answers, wrong: {wrong:?}");
    }
    let logged = process.stop();
    let refused = logged.iter().filter(|line| line.contains("a snapshot is refused")).count();
    assert!((4..=8).contains(&refused), "each is told of once: {logged:#?}");
}
