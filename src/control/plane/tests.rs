//! The control plane without sockets: who may what, and what its document says of it.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Method;
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::asks::ROUTES;
use super::wire::{Code, Identity};
use super::*;
use crate::control::registry::Family;
use crate::control::registry::fleet::Standing;
use crate::control::registry::tests::{appliance, appliance_with};
use crate::control::snapshot::{Number, PublicKeys, Signed, Snapshot};
use crate::control::state::Exported;
use crate::limits::CERTIFICATES_OF_ONE_MAX;

const TOKENS: &str = "operator anna an-operators-token\nviewer grafana a-viewers-own-token\n";
const OPERATOR: &str = "an-operators-token";
const VIEWER: &str = "a-viewers-own-token";

struct Tried {
    folder: TempDir,
    plane: Arc<Plane>,
    now: Now,
}

fn settings(folder: &Path) -> Settings {
    Settings {
        folder: folder.to_owned(),
        store: Store::File(folder.join(STATE_FILE)),
        names: vec!["localhost".to_owned()],
        shown: Arc::default(),
        operators_ca: Vec::new(),
        tokens: Arc::new(ArcSwapOption::from_pointee(Tokens::of(TOKENS).ok())),
        rules: Rules { good_heartbeats: 1, ..Rules::default() },
        heartbeat: Duration::from_secs(5),
        requests_per_second: 1_000,
    }
}

fn opened(settings: Settings) -> Result<Arc<Plane>, PlaneError> {
    Plane::open(settings, Arc::default(), SystemTime::now()).map(Arc::new)
}

impl Tried {
    fn new() -> Tried {
        let folder = tempfile::tempdir().unwrap();
        let plane = opened(settings(folder.path())).unwrap();
        Tried { folder, plane, now: Now { instant: Instant::now(), system: SystemTime::now() } }
    }

    /// Another process with the same folder.
    fn again(self) -> Tried {
        let Tried { folder, plane, now } = self;
        drop(plane);
        let plane = opened(settings(folder.path())).unwrap();
        Tried { folder, plane, now }
    }

    async fn ask(&self, who: Who<'_>, method: &str, target: &str, body: Value) -> (u16, Bytes) {
        let mut request = Request::builder().method(method).uri(target);
        let mut asker = asker();
        match who {
            Who::Nobody => {}
            Who::Bearer(token) => {
                request = request.header("authorization", format!("Bearer {token}"))
            }
            Who::Box(identity) => asker.certificate = Some(certificate(identity)),
            Who::Shows(token, chain) => {
                request = request.header("authorization", format!("Bearer {token}"));
                asker.certificate = chain.first().cloned();
                asker.intermediates = chain[1..].to_vec();
            }
        }
        let body = match body {
            Value::Null => Bytes::new(),
            Value::String(text) => text.into(),
            value => value.to_string().into(),
        };
        let request = request.body(Full::new(body)).unwrap();
        let response = self.plane.answer(request, &asker, self.now).await;
        let status = response.status().as_u16();
        (status, response.into_body().collect().await.unwrap().to_bytes())
    }

    /// Asks as a box whose body has not come; it is what is sent then.
    async fn ask_slowly(
        &self,
        identity: &Identity,
        (method, target): (&str, &str),
        body: oneshot::Receiver<Bytes>,
    ) -> u16 {
        let certificate = Some(certificate(identity));
        let asker = Asker { certificate, ..asker() };
        let request = Request::builder().method(method).uri(target).body(Late(body)).unwrap();
        self.plane.answer(request, &asker, self.now).await.status().as_u16()
    }

    /// The same folder with the state of another moment in it.
    fn restored(self, backup: &[u8]) -> Tried {
        let Tried { folder, plane, now } = self;
        drop(plane);
        std::fs::write(folder.path().join(STATE_FILE), backup).unwrap();
        let plane = opened(settings(folder.path())).unwrap();
        Tried { folder, plane, now }
    }

    /// What a start says where the key of snapshots is gone.
    fn without_its_key(self) -> String {
        let Tried { folder, plane, .. } = self;
        drop(plane);
        std::fs::remove_file(folder.path().join("snapshot.key")).unwrap();
        opened(settings(folder.path())).map(drop).unwrap_err().to_string()
    }

    fn backup(&self) -> Vec<u8> {
        std::fs::read(self.folder.path().join(STATE_FILE)).unwrap()
    }

    fn after(&mut self, seconds: u64) {
        let passed = Duration::from_secs(seconds);
        (self.now.instant, self.now.system) = (self.now.instant + passed, self.now.system + passed);
    }

    async fn registered(&self, name: &str) -> Identity {
        let identity = self.enrolled(name).await;
        let (who, target) = (Who::Box(&identity), format!("/v1/appliances/{name}"));
        let _: Value = self.told(who, "PUT", &target, json!(appliance(name))).await;
        identity
    }

    async fn remove(&self, name: &str) {
        let target = format!("/v1/appliances/{name}");
        let (status, why) = self.ask(Who::Bearer(OPERATOR), "DELETE", &target, Value::Null).await;
        assert_eq!(status, 204, "{why:?}");
    }

    async fn told<T: DeserializeOwned>(
        &self,
        who: Who<'_>,
        method: &str,
        target: &str,
        body: Value,
    ) -> T {
        let (status, body) = self.ask(who, method, target, body).await;
        assert!((200..300).contains(&status), "{method} {target}: {status} {body:?}");
        serde_json::from_slice(&body).unwrap()
    }

    async fn refused(
        &self,
        who: Who<'_>,
        method: &str,
        target: &str,
        body: Value,
    ) -> (u16, String) {
        let (status, body) = self.ask(who, method, target, body).await;
        let value: Value = serde_json::from_slice(&body).unwrap();
        (status, value["error"].as_str().unwrap().to_owned())
    }

    async fn enrolled(&self, name: &str) -> Identity {
        let asked = json!({ "name": name });
        let code: Code = self.told(Who::Bearer(OPERATOR), "POST", "/v1/codes", asked).await;
        let asked = json!({ "code": code.code, "name": name, "csr_pem": request() });
        self.told(Who::Nobody, "POST", "/v1/enrol", asked).await
    }

    async fn look(&self) {
        self.plane.look(self.now.instant, self.now.system).await;
    }

    async fn snapshot(&self, identity: &Identity) -> Snapshot {
        let (status, bytes) =
            self.ask(Who::Box(identity), "GET", "/v1/snapshot?after=0.0", Value::Null).await;
        assert_eq!(status, 200, "{bytes:?}");
        Signed::open(&bytes, &PublicKeys::of(&identity.snapshot_keys).unwrap()).unwrap()
    }
}

/// A body of one piece that comes when it is sent.
struct Late(oneshot::Receiver<Bytes>);

impl Body for Late {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.0.is_terminated() {
            return Poll::Ready(None);
        }
        let sent = ready!(Pin::new(&mut self.0).poll(context));
        Poll::Ready(sent.ok().map(|bytes| Ok(Frame::data(bytes))))
    }
}

#[derive(Clone, Copy)]
enum Who<'a> {
    Nobody,
    Bearer(&'a str),
    Box(&'a Identity),
    /// A token, and a chain of certificates.
    Shows(&'a str, &'a [CertificateDer<'static>]),
}

fn asker() -> Asker {
    let ip = "192.0.2.9".parse().unwrap();
    Asker { ip, certificate: None, intermediates: Vec::new() }
}

fn certificate(identity: &Identity) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(identity.certificate_pem.as_bytes()).unwrap()
}

fn request() -> String {
    let key = KeyPair::generate().unwrap();
    CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap()
}

fn beat() -> Value {
    json!({ "phase": "ready", "load_percent": 5, "free_bits_per_second": 9_000_000_000_u64,
        "hit_percent": 90, "volumes_online": 1, "volumes_failed": 0, "answers_ipv4": true,
        "answers_ipv6": true })
}

const WELL: Option<Standing> = Some(Standing::Well);
const KEYS: &str = r#"{"a":{"keys":[{"kty":"oct","kid":"k","alg":"HS256",
    "k":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"}]}}"#;

#[tokio::test]
async fn the_document_and_the_routes_are_the_same_and_all_else_is_refused() {
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    let mut documented = BTreeSet::new();
    for (path, of) in document["paths"].as_object().unwrap() {
        for method in of.as_object().unwrap().keys() {
            documented.insert((method.to_uppercase(), path.clone()));
        }
    }
    for (path, of) in document["paths"].as_object().unwrap() {
        for operation in of.as_object().unwrap().values() {
            let named = operation["parameters"].as_array().into_iter().flatten();
            let named = named.filter(|one| one["in"] == "path");
            let named = named.map(|one| format!("{{{}}}", one["name"].as_str().unwrap()));
            let named: Vec<_> = named.collect();
            assert!(named.iter().all(|name| path.contains(name)), "{path} has no {named:?}");
            assert_eq!(path.matches('{').count(), named.len(), "{path}");
        }
    }
    let routes = ROUTES.iter().map(|(method, path, _)| (method.to_string(), (*path).to_owned()));
    assert_eq!(documented, routes.collect());

    let tried = Tried::new();
    for (method, path, status) in [
        ("GET", "/", 404),
        ("GET", "/v1/keys/", 405),
        ("GET", "/v1/keys/a/b", 404),
        ("GET", "/v1/codes", 405),
        ("POST", "/v1/snapshot", 405),
        ("PATCH", "/v1/appliances/a", 405),
    ] {
        let asked = tried.refused(Who::Bearer(OPERATOR), method, path, Value::Null).await;
        assert_eq!(asked.0, status, "{method} {path}: {}", asked.1);
    }
    for (path, schema) in
        [("/openapi.json", None), ("/v1/nodes", Some("Nodes")), ("/v1/keys", Some("Keys"))]
    {
        let told: Value = tried.told(Who::Bearer(VIEWER), "GET", path, Value::Null).await;
        let named = schema.map(|name| &document["components"]["schemas"][name]["properties"]);
        let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert!(named.is_none_or(|named| keys(named) == keys(&told)));
    }
}

#[tokio::test]
async fn each_question_is_answered_to_whom_it_is_for_and_to_nobody_else() {
    let tried = Tried::new();
    let identity = tried.enrolled("edge-1").await;
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    let whoever = [
        Who::Nobody,
        Who::Bearer("not-a-token-of-ours"),
        Who::Bearer(VIEWER),
        Who::Bearer(OPERATOR),
        Who::Box(&identity),
    ];
    for (method, path, _) in &ROUTES {
        let of = &document["paths"][path][method.as_str().to_lowercase()]["security"];
        let needs = of[0].as_object().and_then(|of| of.keys().next()).map(String::as_str);
        for (n, who) in whoever.into_iter().enumerate() {
            let target = path.replace("{NAME}", "nobody");
            let (status, body) = tried.ask(who, method.as_str(), &target, Value::Null).await;
            let may = match (needs, who) {
                (None, _) | (Some("certificate"), Who::Box(_)) => true,
                (Some("bearer"), Who::Bearer(OPERATOR)) => true,
                (Some("bearer"), Who::Bearer(VIEWER)) => {
                    method == Method::GET && *path != "/v1/export"
                }
                _ => false,
            };
            let is_let_in = ![401, 403].contains(&status);
            // A code that is none is refused too, but only one that can be read.
            assert_eq!(is_let_in, may, "{method} {path} of {n}: {status} {body:?}");
        }
    }
}

#[tokio::test]
async fn a_code_lets_one_box_in_once_by_the_name_it_was_made_for() {
    let tried = Tried::new();
    let asked = json!({ "name": "edge-1" });
    let code: Code = tried.told(Who::Bearer(OPERATOR), "POST", "/v1/codes", asked).await;
    let (_, fingerprint) = code.code.split_once('.').unwrap();
    let enrol =
        |name: &str, code: &str, csr: String| json!({ "code": code, "name": name, "csr_pem": csr });
    for (name, shown, csr, status) in [
        ("edge-2", code.code.as_str(), request(), 403),
        ("edge-1", "0123456789abcdef0123456789abcdef", request(), 403),
        ("../x", &code.code, request(), 400),
        ("edge-1", &code.code, "no request".to_owned(), 400),
    ] {
        let asked = enrol(name, shown, csr);
        let (told, why) = tried.refused(Who::Nobody, "POST", "/v1/enrol", asked).await;
        assert_eq!(told, status, "{name}: {why}");
    }
    let asked = enrol("edge-1", &code.code, request());
    let identity: Identity = tried.told(Who::Nobody, "POST", "/v1/enrol", asked).await;
    let ca = CertificateDer::from_pem_slice(identity.ca_pem.as_bytes()).unwrap();
    assert_eq!(crate::control::issuer::sha256_hex(&ca), fingerprint);
    let asked = enrol("edge-1", &code.code, request());
    assert_eq!(tried.refused(Who::Nobody, "POST", "/v1/enrol", asked).await.0, 403);
}

#[tokio::test]
async fn a_box_registers_is_heard_and_stands_in_the_snapshot_that_all_can_verify() {
    let mut tried = Tried::new();
    let identity = tried.enrolled("edge-1").await;
    let who = Who::Box(&identity);
    let (status, why) = tried.refused(who, "POST", "/v1/heartbeat", beat()).await;
    assert!(status == 404 && why.contains("register before the first heartbeat"), "{why}");
    let other = json!(appliance("edge-2"));
    for target in ["/v1/appliances/edge-2", "/v1/appliances/edge-1"] {
        let (status, _) = tried.refused(who, "PUT", target, other.clone()).await;
        assert_eq!(status, 403);
    }
    let own = json!(appliance("edge-1"));
    let _: Value = tried.told(who, "PUT", "/v1/appliances/edge-1", own).await;
    tried.look().await;
    let before = tried.snapshot(&identity).await;
    let _: Value = tried.told(who, "POST", "/v1/heartbeat", beat()).await;
    tried.look().await;
    assert_eq!(tried.snapshot(&identity).await, before, "how boxes are is told once a second");
    tried.after(1);
    tried.look().await;
    let after = tried.snapshot(&identity).await;
    assert!(after.follows(before.number).is_ok(), "it is well now");
    assert_eq!(after.number.epoch, 1);
    let fleet = tried.plane.fleet();
    assert_eq!(*fleet.load_full(), after.fleet);
    for _ in 0..3 {
        let _: Value = tried.told(who, "POST", "/v1/heartbeat", beat()).await;
        tried.look().await;
    }
    assert_eq!(tried.snapshot(&identity).await.number, after.number, "nothing new was said");
}

#[tokio::test]
async fn how_boxes_are_is_told_the_less_often_the_larger_a_snapshot_is_and_keys_at_once() {
    let mut tried = Tried::new();
    let identity = tried.registered("edge-1").await;
    let who = Who::Box(&identity);
    let put = async |tried: &Tried, name: &str, spaces: usize| {
        let body = format!("{KEYS}{}", " ".repeat(spaces));
        let target = format!("/v1/keys/{name}");
        let (status, why) = tried.ask(Who::Bearer(OPERATOR), "PUT", &target, body.into()).await;
        assert_eq!(status, 204, "{why:?}");
        tried.look().await;
    };
    for n in 0..5 {
        put(&tried, &format!("large-{n}"), 900_000).await;
    }
    let counter = async |tried: &Tried| tried.snapshot(&identity).await.number.counter;
    let before = counter(&tried).await;
    for second in 1..10 {
        let _: Value = tried.told(who, "POST", "/v1/heartbeat", beat()).await;
        tried.after(1);
        tried.look().await;
        let told = counter(&tried).await - before;
        assert_eq!(told, u64::from(second >= 4), "after {second} s");
    }
    put(&tried, "small", 0).await;
    assert_eq!(counter(&tried).await, before + 2, "it does not wait");
}

#[tokio::test]
async fn that_a_box_has_fallen_ill_is_told_sooner_however_large_a_snapshot_is() {
    let mut tried = Tried::new();
    let [identity, silent] = [tried.registered("edge-1").await, tried.registered("edge-2").await];
    let put = async |tried: &Tried, name: String, spaces: usize| {
        let body = format!("{KEYS}{}", " ".repeat(spaces));
        let target = format!("/v1/keys/{name}");
        let (status, why) = tried.ask(Who::Bearer(OPERATOR), "PUT", &target, body.into()).await;
        assert_eq!(status, 204, "{why:?}");
        tried.look().await;
    };
    for who in [&identity, &silent] {
        let _: Value = tried.told(Who::Box(who), "POST", "/v1/heartbeat", beat()).await;
    }
    for n in 0..5 {
        put(&tried, format!("large-{n}"), 900_000).await;
    }
    tried.after(14);
    let _: Value = tried.told(Who::Box(&identity), "POST", "/v1/heartbeat", beat()).await;
    put(&tried, "small".to_owned(), 0).await;
    let before = tried.snapshot(&identity).await;
    assert_eq!(before.fleet.members()[1].standing(Family::Ipv4), WELL);
    // Where it only gets better, it takes four seconds.
    for _ in 0..2 {
        tried.after(1);
        tried.look().await;
    }
    let after = tried.snapshot(&identity).await;
    assert_eq!(after.fleet.members()[1].standing(Family::Ipv4), Some(Standing::Ill));
    assert_eq!(after.number.counter, before.number.counter + 1);
}

#[tokio::test]
async fn who_is_removed_is_refused_and_everybody_is_told() {
    let tried = Tried::new();
    let [gone, stays] = [tried.enrolled("edge-1").await, tried.enrolled("edge-2").await];
    for (name, identity) in [("edge-1", &gone), ("edge-2", &stays)] {
        let target = format!("/v1/appliances/{name}");
        let _: Value = tried.told(Who::Box(identity), "PUT", &target, json!(appliance(name))).await;
    }
    let renewed = json!({ "csr_pem": request() });
    let renewed: Identity = tried.told(Who::Box(&gone), "POST", "/v1/renew", renewed).await;
    let (status, _) =
        tried.ask(Who::Bearer(OPERATOR), "DELETE", "/v1/appliances/edge-1", Value::Null).await;
    assert_eq!(status, 204);
    tried.look().await;
    for identity in [&gone, &renewed] {
        let (status, why) =
            tried.refused(Who::Box(identity), "POST", "/v1/heartbeat", beat()).await;
        assert!(status == 403 && why.contains("was revoked"), "{why}");
    }
    let snapshot = tried.snapshot(&stays).await;
    assert_eq!((snapshot.fleet.members().len(), snapshot.revoked.len()), (1, 2));
    let again =
        tried.refused(Who::Bearer(OPERATOR), "DELETE", "/v1/appliances/edge-1", Value::Null);
    assert_eq!(again.await.0, 404);
    let again = tried.registered("edge-1").await;
    let _: Value = tried.told(Who::Box(&again), "POST", "/v1/heartbeat", beat()).await;
}

#[tokio::test]
async fn who_is_removed_while_he_sends_his_body_is_refused() {
    for target in ["/v1/renew", "/v1/appliances/edge-1"] {
        let tried = Tried::new();
        let identity = tried.registered("edge-1").await;
        let other = appliance_with("edge-1", json!({ "weight": 7 }));
        let (method, body) = match target {
            "/v1/renew" => ("POST", json!({ "csr_pem": request() })),
            _ => ("PUT", json!(other)),
        };
        let (send, sent) = oneshot::channel();
        let asked = tried.ask_slowly(&identity, (method, target), sent);
        let removed = async {
            tried.remove("edge-1").await;
            send.send(body.to_string().into()).unwrap();
        };
        let (status, ()) = tokio::join!(asked, removed);
        assert_eq!(status, 403, "{target}");
        let known = tried.plane.state.known();
        assert!(known.appliances.is_empty(), "{target}");
        assert!(known.certificates.values().all(|one| one.revoked_at.is_some()), "{target}");
    }
}

#[tokio::test]
async fn who_is_removed_while_he_waits_for_a_snapshot_gets_none() {
    let tried = Tried::new();
    let identity = tried.registered("edge-1").await;
    tried.look().await;
    let held = tried.snapshot(&identity).await.number;
    let target = format!("/v1/snapshot?after={held}&wait=60");
    let waits = tried.refused(Who::Box(&identity), "GET", &target, Value::Null);
    let changes = async {
        tried.remove("edge-1").await;
        tried.ask(Who::Bearer(OPERATOR), "PUT", "/v1/keys/film", json!(KEYS)).await;
        tried.look().await;
    };
    let ((status, why), ()) = tokio::join!(waits, changes);
    assert!(status == 403 && why.contains("was revoked"), "{why}");
}

#[tokio::test]
async fn who_is_removed_is_out_also_by_a_certificate_that_the_backup_does_not_know() {
    let tried = Tried::new();
    let identity = tried.registered("edge-1").await;
    let backup = tried.backup();
    let asked = json!({ "csr_pem": request() });
    let renewed: Identity = tried.told(Who::Box(&identity), "POST", "/v1/renew", asked).await;
    let tried = tried.restored(&backup);
    assert_eq!(tried.plane.state.known().certificates.len(), 1, "the later one is not known");
    tried.remove("edge-1").await;
    let own = json!(appliance("edge-1"));
    for (method, target, body) in
        [("POST", "/v1/heartbeat", beat()), ("PUT", "/v1/appliances/edge-1", own)]
    {
        let (status, why) = tried.refused(Who::Box(&renewed), method, target, body).await;
        assert!(status == 403 && why.contains("was revoked"), "{target}: {status} {why}");
    }
}

#[tokio::test]
async fn a_box_has_so_many_certificates_at_once_and_takes_no_room_of_others() {
    let tried = Tried::new();
    let [one, other] = [tried.enrolled("edge-1").await, tried.enrolled("edge-2").await];
    let asked = || json!({ "csr_pem": request() });
    for _ in 1..CERTIFICATES_OF_ONE_MAX {
        let _: Identity = tried.told(Who::Box(&one), "POST", "/v1/renew", asked()).await;
    }
    let (status, why) = tried.refused(Who::Box(&one), "POST", "/v1/renew", asked()).await;
    assert!(status == 409 && why.contains("certificates of this box"), "{why}");
    let _: Identity = tried.told(Who::Box(&other), "POST", "/v1/renew", asked()).await;
}

#[tokio::test]
async fn a_connection_is_kept_where_the_body_was_read_and_closed_where_it_was_not() {
    let tried = Tried::new();
    let identity = tried.registered("edge-1").await;
    let keeps = async |target: &str, body: Value, with: Option<&Identity>| {
        let asker = Asker { certificate: with.map(certificate), ..asker() };
        let body = Full::new(Bytes::from(body.to_string()));
        let request = Request::builder().method("POST").uri(target).body(body).unwrap();
        let response = tried.plane.answer(request, &asker, tried.now).await;
        response.extensions().get::<BodyRead>().is_some()
    };
    assert!(keeps("/v1/heartbeat", beat(), Some(&identity)).await);
    assert!(keeps("/v1/heartbeat", json!({}), Some(&identity)).await, "read, and not understood");
    assert!(!keeps("/v1/heartbeat", beat(), None).await, "nobody reads it");
    assert!(!keeps("/nowhere", beat(), None).await);
}

#[tokio::test]
async fn boxes_behind_one_address_have_rates_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let plane = opened(Settings { requests_per_second: 5, ..settings(folder.path()) }).unwrap();
    let now = Now { instant: Instant::now(), system: SystemTime::now() };
    let mut tried = Tried { folder, plane, now };
    let [one, other] = [tried.registered("edge-1").await, tried.registered("edge-2").await];
    tried.after(10);
    let heard = async |who: &Identity| {
        let mut heard = 0;
        for _ in 0..20 {
            let asked = tried.ask(Who::Box(who), "POST", "/v1/heartbeat", beat());
            heard += usize::from(asked.await.0 == 200);
        }
        heard
    };
    assert_eq!([heard(&one).await, heard(&other).await], [10, 10]);
}

#[tokio::test]
async fn keys_are_put_for_all_and_bad_ones_are_told_in_a_line_and_change_nothing() {
    let tried = Tried::new();
    let identity = tried.enrolled("edge-1").await;
    let (by, path) = (Who::Bearer(OPERATOR), "/v1/keys/film");
    let (status, _) = tried.ask(by, "PUT", path, json!(KEYS)).await;
    assert_eq!(status, 204);
    for (bad, says) in [
        (json!("{"), "it is no key file"),
        (json!(r#"{"a":{"keys":[{"kty":"oct","kid":"k","alg":"HS256","k":"AAAA"}]}}"#), "least"),
    ] {
        let (status, why) = tried.refused(by, "PUT", path, bad).await;
        assert!(status == 400 && why.contains(says) && why.starts_with("keys film: "), "{why}");
        assert_eq!(why.lines().count(), 1);
    }
    tried.look().await;
    assert_eq!(tried.snapshot(&identity).await.keys["film"], KEYS);
    let told: Value = tried.told(Who::Bearer(VIEWER), "GET", "/v1/keys", Value::Null).await;
    let expected = json!([{ "name": "film", "issuers": [{ "issuer": "a", "keys": ["k"] }] }]);
    assert_eq!(told["keys"], expected);
    assert_eq!(tried.ask(by, "DELETE", path, Value::Null).await.0, 204);
    tried.look().await;
    assert!(tried.snapshot(&identity).await.keys.is_empty());
    let told: Value = tried.told(Who::Bearer(VIEWER), "GET", "/v1/audit?last=2", Value::Null).await;
    let what = |n: usize| (told["audit"][n]["by"].clone(), told["audit"][n]["what"].clone());
    assert_eq!(what(0), (json!("anna"), json!("removed keys film")));
    assert_eq!(what(1), (json!("anna"), json!("put keys film")));
    assert_eq!(told["audit"][0]["from"], "192.0.2.9");
    for (of, whose) in [("operator", "anna"), ("box", "edge-1")] {
        let target = format!("/v1/audit?last=3&of={of}");
        let told: Value = tried.told(Who::Bearer(VIEWER), "GET", &target, Value::Null).await;
        let all = told["audit"].as_array().unwrap();
        assert!(!all.is_empty() && all.iter().all(|one| one["of"] == of && one["by"] == whose));
    }
    for bad in ["last=0", "of=nobody", "first=1"] {
        let target = format!("/v1/audit?{bad}");
        assert_eq!(tried.refused(by, "GET", &target, Value::Null).await.0, 400);
    }
}

#[tokio::test]
async fn who_starts_again_knows_what_was_known_and_takes_nobody_out() {
    let tried = Tried::new();
    let identity = tried.enrolled("edge-1").await;
    let who = Who::Box(&identity);
    let own = json!(appliance("edge-1"));
    let _: Value = tried.told(who, "PUT", "/v1/appliances/edge-1", own).await;
    let _: Value = tried.told(who, "POST", "/v1/heartbeat", beat()).await;
    tried.look().await;
    let before = tried.snapshot(&identity).await;
    let tried = tried.again();
    tried.look().await;
    assert_eq!(tried.snapshot(&identity).await, before);
    assert!(!before.fleet.members().is_empty());
}

#[tokio::test]
async fn a_restored_state_is_behind_until_the_epoch_is_raised() {
    let tried = Tried::new();
    let identity = tried.enrolled("edge-1").await;
    tried.look().await;
    let backup = tried.backup();
    for n in 0..3 {
        let path = format!("/v1/keys/k{n}");
        tried.ask(Who::Bearer(OPERATOR), "PUT", &path, json!(KEYS)).await;
        tried.look().await;
    }
    let held = tried.snapshot(&identity).await.number;
    let tried = tried.restored(&backup);

    tried.look().await;
    let restored = tried.snapshot(&identity).await;
    assert!(restored.follows(held).is_err() && restored.keys.is_empty());
    let asked = format!("/v1/snapshot?after={held}");
    let (status, why) = tried.refused(Who::Box(&identity), "GET", &asked, Value::Null).await;
    assert!(status == 409 && why.contains("`tidegate control raise-epoch`"), "{why}");

    let by = Who::Bearer(OPERATOR);
    let number: Number = tried.told(by, "POST", "/v1/epoch", json!({})).await;
    assert_eq!(number.epoch, 2);
    let (status, why) = tried.refused(by, "POST", "/v1/epoch", json!({ "to": 2 })).await;
    assert!(status == 409 && why.contains("the epoch is 2"), "{why}");
    tried.look().await;
    assert!(tried.snapshot(&identity).await.follows(held).is_ok());
    let error = tried.again().without_its_key();
    assert!(error.starts_with("epoch 2 was begun by no order of the key"), "{error}");
}

#[tokio::test]
async fn who_hands_snapshots_on_goes_back_where_the_state_does() {
    let tried = Tried::new();
    let identity = tried.enrolled("edge-1").await;
    tried.look().await;
    let restored = tried.snapshot(&identity).await;
    assert_eq!(restored.number, tried.plane.state.known().number);
    let at = |counter| {
        let number = Number { counter, ..restored.number };
        let snapshot = Snapshot { number, ..restored.clone() };
        Arc::new(Bytes::from(snapshot.sign(tried.plane.issuer.signing()).unwrap()))
    };
    let kept = restored.number.counter;
    for (offered, told) in [(kept + 5, kept + 5), (kept + 1, kept + 5), (kept, kept)] {
        tried.plane.hand_on(at(offered));
        assert_eq!(tried.snapshot(&identity).await.number.counter, told);
    }
    let asked = format!("/v1/snapshot?after=1.{}", kept + 5);
    let (status, why) = tried.refused(Who::Box(&identity), "GET", &asked, Value::Null).await;
    assert!(status == 409 && why.contains("`tidegate control raise-epoch`"), "{why}");
}

#[tokio::test]
async fn a_key_of_snapshots_that_was_lost_is_not_replaced_in_silence() {
    let tried = Tried::new();
    tried.look().await;
    let error = tried.again().without_its_key();
    assert!(error.contains("signed by another key than the one in `snapshot.key`"), "{error}");
    assert_eq!(error.lines().count(), 1);
}

#[tokio::test]
async fn a_state_that_was_imported_begins_with_all_boxes_as_well_as_they_may_be() {
    let tried = Tried::new();
    for name in ["edge-1", "edge-2"] {
        tried.registered(name).await;
    }
    tried.look().await;
    let exported: Value = tried.told(Who::Bearer(OPERATOR), "GET", "/v1/export", Value::Null).await;
    let told: Value = tried.told(Who::Bearer(VIEWER), "GET", "/v1/audit?last=1", Value::Null).await;
    assert_eq!(told["audit"][0]["what"], "exported the state");
    let exported = Exported::parse(exported.to_string().as_bytes()).unwrap();

    let folder = tempfile::tempdir().unwrap();
    let state = State::open(&folder.path().join(STATE_FILE)).unwrap();
    let (by, what) = (String::new(), String::new());
    let by = AuditRecord { at: 0, by, of: By::Operator, from: None, what };
    state.import(&exported, by).await.unwrap();
    drop(state);
    let tried = Tried { plane: opened(settings(folder.path())).unwrap(), folder, now: tried.now };
    tried.look().await;
    let fleet = tried.plane.fleet().load_full();
    let well = fleet.members().iter().filter(|one| one.standing(Family::Ipv4) == WELL);
    assert_eq!(well.count(), 2, "{fleet:?}");
}

#[tokio::test]
async fn keys_are_read_anew_only_when_they_may_have_changed() {
    let tried = Tried::new();
    let by = Who::Bearer(OPERATOR);
    tried.ask(by, "PUT", "/v1/keys/film", json!(KEYS)).await;
    let told = async || tried.ask(by, "GET", "/v1/keys", Value::Null).await.1;
    let first = told().await;
    let read = || lock(&tried.plane.key_names).as_ref().map(KeyNames::known).unwrap();
    let (before, again) = (read(), told().await);
    assert!(Arc::ptr_eq(&before, &read()) && first == again);
    tried.ask(by, "PUT", "/v1/keys/series", json!(KEYS)).await;
    assert_ne!(told().await, first);
    assert!(!Arc::ptr_eq(&before, &read()));
}

#[tokio::test]
async fn who_waits_for_a_snapshot_gets_it_as_soon_as_it_is_there() {
    let tried = Tried::new();
    let identity = tried.enrolled("edge-1").await;
    tried.look().await;
    let held = tried.snapshot(&identity).await.number;
    let at_once = format!("/v1/snapshot?after={held}");
    assert_eq!(tried.ask(Who::Box(&identity), "GET", &at_once, Value::Null).await.0, 204);
    let target = format!("/v1/snapshot?after={held}&wait=60");
    let waits = tried.ask(Who::Box(&identity), "GET", &target, Value::Null);
    let changes = async {
        tried.ask(Who::Bearer(OPERATOR), "PUT", "/v1/keys/film", json!(KEYS)).await;
        tried.look().await;
    };
    let ((status, bytes), ()) = tokio::join!(waits, changes);
    let keys = PublicKeys::of(&identity.snapshot_keys).unwrap();
    assert_eq!(status, 200);
    assert!(Signed::open(&bytes, &keys).unwrap().follows(held).is_ok());
    for bad in ["after=1", "wait=x", "later=1.2"] {
        let target = format!("/v1/snapshot?{bad}");
        assert_eq!(tried.refused(Who::Box(&identity), "GET", &target, Value::Null).await.0, 400);
    }
}

#[tokio::test]
async fn a_certificate_that_has_ended_is_refused_and_one_that_is_not_known_is_remembered() {
    let mut tried = Tried::new();
    let identity = tried.enrolled("edge-1").await;
    let serial = crate::control::issuer::subject(&certificate(&identity)).unwrap().serial;
    std::fs::copy(tried.folder.path().join(STATE_FILE), tried.folder.path().join("now")).unwrap();
    let Tried { folder, plane, now } = tried;
    drop(plane);
    std::fs::remove_file(folder.path().join(STATE_FILE)).unwrap();
    tried = Tried { plane: opened(settings(folder.path())).unwrap(), folder, now };
    assert!(tried.plane.state.known().certificates.is_empty());
    let own = json!(appliance("edge-1"));
    let _: Value = tried.told(Who::Box(&identity), "PUT", "/v1/appliances/edge-1", own).await;
    assert!(tried.plane.state.known().certificates.contains_key(&serial));
    tried.now.system += Duration::from_secs(31 * 86_400);
    let (status, why) = tried.refused(Who::Box(&identity), "POST", "/v1/heartbeat", beat()).await;
    assert!(status == 403 && why.contains("has ended"), "{why}");
}

/// A certificate of an operator, issued by an intermediate of an authority: all three.
fn operators_chain() -> [CertificateDer<'static>; 3] {
    use rcgen::{BasicConstraints, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose};
    let params = |name: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params
    };
    let authority = |name: &str| {
        let mut params = params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        (params, KeyPair::generate().unwrap())
    };
    let ((root, root_key), (between, between_key)) = (authority("root"), authority("between"));
    let root_der = root.self_signed(&root_key).unwrap().der().clone();
    let root = rcgen::Issuer::new(root, root_key);
    let between_der = between.signed_by(&between_key, &root).unwrap().der().clone();
    let between = rcgen::Issuer::new(between, between_key);
    let mut anna = params("anna");
    anna.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let anna = anna.signed_by(&KeyPair::generate().unwrap(), &between).unwrap();
    [anna.der().clone(), between_der, root_der]
}

#[tokio::test]
async fn operators_show_a_certificate_too_where_they_have_an_authority_of_their_own() {
    let [anna, between, root] = operators_chain();
    let folder = tempfile::tempdir().unwrap();
    let with = Settings { operators_ca: vec![root], ..settings(folder.path()) };
    let plane = opened(with).unwrap();
    let now = Now { instant: Instant::now(), system: SystemTime::now() };
    let tried = Tried { folder, plane, now };
    let by_box = tried.plane.issuer.issue(&request(), "edge-1", now.system).unwrap();
    let by_box = CertificateDer::from_pem_slice(by_box.pem.as_bytes()).unwrap();
    let whole = [anna.clone(), between];
    for (who, status) in [
        (Who::Bearer(OPERATOR), 403),
        (Who::Shows(OPERATOR, &[by_box]), 403),
        (Who::Shows(OPERATOR, &[anna]), 403),
        (Who::Shows("not-a-token-of-ours", &whole), 401),
        (Who::Shows(OPERATOR, &whole), 200),
    ] {
        let (told, why) = tried.ask(who, "GET", "/v1/keys", Value::Null).await;
        assert_eq!(told, status, "{why:?}");
        assert!(status != 403 || why.windows(20).any(|some| some == b"control.operators_ca"));
    }
}

#[tokio::test]
async fn what_happens_is_counted() {
    let mut tried = Tried::new();
    let identity = tried.registered("edge-1").await;
    tried.look().await;
    let held = tried.snapshot(&identity).await.number;
    let by = Who::Bearer(OPERATOR);
    tried.ask(Who::Nobody, "GET", "/v1/keys", Value::Null).await;
    tried.ask(Who::Bearer(VIEWER), "PUT", "/v1/keys/film", json!(KEYS)).await;
    tried.ask(Who::Nobody, "GET", "/no/such/path", Value::Null).await;
    let code = json!({ "code": "0", "name": "edge-1", "csr_pem": request() });
    tried.ask(Who::Nobody, "POST", "/v1/enrol", code).await;
    tried.after(7);
    let told = async || {
        let (status, text) =
            tried.ask(Who::Bearer(VIEWER), "GET", "/v1/metrics", json!(null)).await;
        assert_eq!(status, 200);
        String::from_utf8(text.to_vec()).unwrap()
    };
    let target = format!("/v1/snapshot?after={held}&wait=60");
    let mut waits = Box::pin(tried.ask(Who::Box(&identity), "GET", &target, Value::Null));
    assert!(waits.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())).is_pending());
    let text = told().await;
    drop(waits);
    for line in [
        "requests_total{route=\"GET /v1/keys\",status=\"4xx\"} 1",
        "requests_total{route=\"PUT /v1/appliances/{NAME}\",status=\"2xx\"} 1",
        "requests_total{route=\"PUT /v1/appliances/{NAME}\",status=\"5xx\"} 0",
        "requests_total{route=\"other\",status=\"4xx\"} 1",
        "denied_total{reason=\"unknown\"} 1",
        "denied_total{reason=\"forbidden\"} 1",
        "denied_total{reason=\"code\"} 1",
        "denied_total{reason=\"rate\"} 0",
        "appliances{family=\"ipv4\",standing=\"new\"} 1",
        "snapshot_epoch 1",
        "snapshot_counter 1",
        "snapshot_age_seconds 7",
        "snapshot_stuck 0",
        "snapshots_published_total 1",
        "snapshot_waiting_requests 1",
        "commits_total{result=\"contended\"} 0",
        "audit_records_total{of=\"operator\"} 1",
        "audit_records_total{of=\"box\"} 2",
    ] {
        let line = format!("tidegate_control_{line}");
        assert!(text.lines().any(|told| told == line), "{line}: {text}");
    }
    tried.ask(by, "PUT", "/v1/keys/film", json!(KEYS)).await;
    let text = told().await;
    assert!(text.contains("tidegate_control_snapshot_waiting_requests 0"), "{text}");
    assert!(text.contains("tidegate_control_audit_records_total{of=\"operator\"} 2"), "{text}");
}

#[tokio::test]
async fn who_does_not_get_the_state_makes_no_keys() {
    let folder = tempfile::tempdir().unwrap();
    let _other = State::open(&folder.path().join(STATE_FILE)).unwrap();
    let error = opened(settings(folder.path())).map(drop).unwrap_err();
    assert!(matches!(error, PlaneError::State(StateError::InUse { .. })), "{error}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "the state alone");
}
