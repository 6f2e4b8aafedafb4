//! The control plane without sockets: who may what, and what its document says of it.

use std::collections::BTreeSet;
use std::path::Path;

use http::Method;
use http_body_util::BodyExt as _;
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::asks::ROUTES;
use super::wire::{Code, Identity};
use super::*;
use crate::control::registry::tests::appliance;
use crate::control::snapshot::{Number, PublicKeys, Signed, Snapshot};

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
        shown: None,
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
        let mut asker = Asker { ip: "192.0.2.9".parse().unwrap(), certificate: None };
        match who {
            Who::Nobody => {}
            Who::Bearer(token) => {
                request = request.header("authorization", format!("Bearer {token}"))
            }
            Who::Box(identity) => asker.certificate = Some(certificate(identity)),
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

#[derive(Clone, Copy)]
enum Who<'a> {
    Nobody,
    Bearer(&'a str),
    Box(&'a Identity),
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
            let target = path.replace("NAME", "nobody");
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
    let tried = Tried::new();
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
    tried.enrolled("edge-1").await;
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
    let backup = std::fs::read(tried.folder.path().join(STATE_FILE)).unwrap();
    for n in 0..3 {
        let path = format!("/v1/keys/k{n}");
        tried.ask(Who::Bearer(OPERATOR), "PUT", &path, json!(KEYS)).await;
        tried.look().await;
    }
    let held = tried.snapshot(&identity).await.number;
    let Tried { folder, plane, now } = tried;
    drop(plane);
    std::fs::write(folder.path().join(STATE_FILE), backup).unwrap();
    let plane = opened(settings(folder.path())).unwrap();
    let tried = Tried { folder, plane, now };

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
    let tried = tried.again();
    std::fs::remove_file(tried.folder.path().join("snapshot.key")).unwrap();
    let Tried { folder, plane, .. } = tried;
    drop(plane);
    let error = opened(settings(folder.path())).map(drop).unwrap_err();
    assert!(error.to_string().starts_with("epoch 2 was begun by no order of the key"), "{error}");
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

#[tokio::test]
async fn operators_show_a_certificate_too_where_they_have_an_authority_of_their_own() {
    let theirs = rcgen::generate_simple_self_signed(vec!["anna.test".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ca = theirs.cert.der().clone();
    let with = Settings { operators_ca: vec![ca], ..settings(folder.path()) };
    let plane = opened(with).unwrap();
    let tried =
        Tried { folder, plane, now: Now { instant: Instant::now(), system: SystemTime::now() } };
    let (status, why) = tried.refused(Who::Bearer(OPERATOR), "GET", "/v1/keys", Value::Null).await;
    assert!(status == 403 && why.contains("`control.operators_ca`"), "{why}");
}
