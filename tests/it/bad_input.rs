//! What operators get wrong while a box serves: each is told of in one line that says what is wrong
//! with it, and what was good before serves on.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use serde_json::json;
use tidegate::token::key_file::KeyFile;
use tidegate::token::uri_signing::{Matching, mint};

use crate::support::{Client, Control, HOST, Origin, PATIENCE, Process, Script, configured, text};

const GOOD_ZONES: &str = r#"{"coverageZones": {
    "a": {"network": ["192.0.2.0/24"]}, "b": {"network": ["198.51.100.0/24"]}}}"#;
const OVERLAPPING_ZONES: &str = r#"{"coverageZones": {
    "a": {"network": ["198.51.100.0/24"]}, "b": {"network": ["198.51.100.0/24"]}}}"#;
const OTHER_ZONES: &str = r#"{"coverageZones": {"a": {"network": ["198.51.100.0/24"]}}}"#;
const PLACES: &[u8] = include_bytes!("../../fuzz/seeds/places/city");
const KEYS: &str = r#"{ "publisher": { "renewal_kid": "k", "keys": [ { "kty": "oct", "kid": "k",
    "alg": "HS256", "k": "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE" } ] } }"#;

/// What is wrong, and how that is told.
const TOLD: [(&str, &str); 4] = [
    ("keys.json", "which is refused: it is no key file"),
    ("zones.json", "198.51.100.0/24 is in the zone `a` and in the zone `b`: take it out of one"),
    ("places.mmdb", "is no database in the format MMDB"),
    ("https://127.0.0.1:", " does not answer: "),
];

/// Puts a file in its place that was written so many seconds after the ones before.
fn write(folder: &Path, name: &str, content: impl AsRef<[u8]>, later: u64) {
    let new = folder.join("new");
    fs::write(&new, content).unwrap();
    let written = SystemTime::now() - Duration::from_secs(3_600 - later);
    File::options().write(true).open(&new).unwrap().set_modified(written).unwrap();
    fs::rename(new, folder.join(name)).unwrap();
}

/// A box and who asks it.
struct Asked {
    process: Process,
    viewer: Client,
    steering: Client,
    target: String,
}

impl Asked {
    async fn start(config: &Path) -> Asked {
        let process = Process::start(config);
        let words = " steering at ";
        let logged = process.logged_until(words).await;
        let at = logged.iter().find_map(|line| line.split_once(words)?.1.trim().parse().ok());
        let (viewer, steering) =
            (Client::plain(process.http, HOST), Client::plain(at.unwrap(), HOST));
        let keys = KeyFile::parse(KEYS.as_bytes()).unwrap().keys(Matching::Full).unwrap();
        let claims = json!({ "cdniuc": "regex:.*", "exp": 4_000_000_000_u64 });
        let token = mint(claims.as_object().unwrap(), keys.renewal("publisher").unwrap()).unwrap();
        Asked { process, viewer, steering, target: format!("/a.bin?URISigningPackage={token}") }
    }

    /// Whom a viewer there is sent to.
    async fn sent_to(&self) -> String {
        let asked = self.steering.get("/steer/v1/go/media/a.bin");
        let told = asked.header("x-forwarded-for", "198.51.100.7").send().await;
        assert_eq!(told.status, 302);
        told.header("location").split('/').nth(2).unwrap().to_owned()
    }

    async fn serves_as_before(&self, appliance: &str) {
        assert_eq!(self.viewer.get(&self.target).send().await.status, 200);
        assert_eq!(self.viewer.get("/a.bin").send().await.status, 403);
        assert_eq!(self.sent_to().await, appliance);
    }
}

/// Of a box of a fleet that sends viewers to two others, and has a site with a door.
fn settings(nobody: SocketAddr, origin: &Origin) -> String {
    let appliance = |name: &str| {
        format!(
            "[[steering.appliances]]\nname = {name:?}\naddresses = [\"192.0.2.1\"]\n\
                 capacity = \"10 Gbit/s\"\n"
        )
    };
    format!(
        "listeners.steering = [\"127.0.0.1:0\"]\nproxies.forwarded = [\"127.0.0.0/8\"]\n\
         [fleet]\ncontrol = \"https://{nobody}\"\nname = \"edge-1\"\n\
         addresses = [\"192.0.2.1\"]\ncapacity = \"10 Gbit/s\"\n{}{}\
         [routes]\nreread = \"50ms\"\ndatabases = [\"places.mmdb\"]\n\
         [[routes.files]]\npath = \"zones.json\"\nformat = \"coverage-zones\"\n\
         [[sites]]\nname = \"media\"\nhosts = [{HOST:?}]\norigins = \"http://{}\"\n\
         tokens = {{ keys = \"keys.json\" }}\n",
        appliance("a"),
        appliance("b"),
        origin.address()
    )
}

#[tokio::test]
async fn what_is_wrong_is_told_in_one_line_each_and_what_was_good_serves_on() {
    let (origin, folder) =
        (Origin::serving("/a.bin", Script::of(100)), tempfile::tempdir().unwrap());
    let folder = folder.path();
    write(folder, "keys.json", KEYS, 0);
    write(folder, "zones.json", GOOD_ZONES, 0);
    write(folder, "places.mmdb", PLACES, 0);
    // A control plane that nobody reaches: the address is taken, and its port is not listened at.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    Control::start("edge-1", ("film", KEYS)).enrols(&folder.join("fleet"));
    let config = configured(folder, &settings(nobody, &origin));
    let edge = Asked::start(&config).await;
    edge.process.logged_until("no control plane hears this box").await;
    edge.serves_as_before("b").await;

    for (later, (name, content)) in
        [("keys.json", "keys"), ("zones.json", OVERLAPPING_ZONES), ("places.mmdb", "no database")]
            .into_iter()
            .enumerate()
    {
        write(folder, name, content, 60 * (later as u64 + 1));
        edge.process.logged_until(TOLD[later].1).await;
        edge.serves_as_before("b").await;
    }
    // What is right again counts, beside what is not.
    write(folder, "zones.json", OTHER_ZONES, 600);
    let asked = Instant::now();
    while edge.sent_to().await != "a" {
        assert!(asked.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    edge.serves_as_before("a").await;
    let logged = edge.process.stop();
    for (of, words) in TOLD {
        let lines: Vec<_> =
            logged.iter().filter(|line| line.contains(of) && line.contains(words)).collect();
        assert_eq!(lines.len(), 1, "{words}: {logged:#?}");
    }

    // Who starts with them is refused for what decides who is let in, and starts without the rest.
    write(folder, "zones.json", OVERLAPPING_ZONES, 700);
    let config_path = config.display().to_string();
    let done = crate::support::tidegate(&["serve", "--config", &config_path]);
    let said = text(&done.stderr);
    assert!(!done.status.success() && said.contains("keys.json"), "{said}");
    assert!(said.trim_end().lines().count() <= 2, "{said}");
    write(folder, "keys.json", KEYS, 800);
    let edge = Asked::start(&config).await;
    for (_, words) in &TOLD[1..] {
        edge.process.logged_until(words).await;
    }
    assert_eq!(edge.viewer.get(&edge.target).send().await.status, 200);
    edge.sent_to().await;
    edge.process.stop();
}
