//! A box goes on delivering whatever control does: in each call that it makes control stalls, lies
//! and dies, in every way there is, while viewers play by tokens and ask where to go on.
//!
//! Counts and order only. That nobody waits for control is shown by that everybody goes on while it
//! keeps what it was asked.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate::token::key_file::{KeyFile, Keys};
use tidegate::token::uri_signing::{Matching, mint};
use tokio::sync::Mutex;

use crate::support::{
    Call, Client, Connection, Control, FAULTS, HOST, Origin, PATIENCE, Process, Script, configured,
};

/// Of each of two boxes.
const VIEWERS: usize = 60;
const SEGMENTS: u64 = 16;
const SEGMENT_BYTES: u64 = 20_000;
/// A viewer comes by another connection, and with another token, each so many segments.
const OF_A_CONNECTION: u64 = 12;
const OF_A_TOKEN: u64 = 5;

/// A box and the control plane it has.
struct Box {
    control: Control,
    process: Process,
    fleet: PathBuf,
    steering: Client,
    _folder: TempDir,
}

impl Box {
    async fn start(name: &str, origin: &Origin, keys: &str) -> Box {
        let control = Control::start(name, ("film", keys));
        let folder = tempfile::tempdir().unwrap();
        let more = format!(
            "listeners.steering = [\"127.0.0.1:0\"]\n\
             [fleet]\ncontrol = \"https://{}\"\nname = {name:?}\naddresses = [\"192.0.2.7\"]\n\
             capacity = \"10 Gbit/s\"\n\
             [[steering.appliances]]\nname = {name:?}\naddresses = [\"192.0.2.7\"]\n\
             capacity = \"10 Gbit/s\"\n\
             [[sites]]\nname = \"media\"\nhosts = [{HOST:?}]\norigins = [\"http://{}\"]\n\
             tokens = {{ keys = \"fleet:film\" }}\n",
            control.address,
            origin.address()
        );
        let fleet = folder.path().join("fleet");
        control.enrols(&fleet);
        let process = Process::start(&configured(folder.path(), &more));
        let words = " steering at ";
        let logged = process.logged_until(words).await;
        let steering = logged.iter().find_map(|line| line.split_once(words)?.1.trim().parse().ok());
        let steering = Client::plain(steering.unwrap(), HOST);
        Box { control, process, fleet, steering, _folder: folder }
    }

    async fn status(&self) -> Value {
        let admin = Client::plain(self.process.admin, &self.process.admin.to_string());
        let told = admin.get("/status.json").send().await;
        serde_json::from_slice::<Value>(&told.body).unwrap()["fleet"].clone()
    }

    /// Whoever bears such a token is let in, once its keys are those of its snapshot.
    async fn until_lets_in(&self, tokens: &Tokens) {
        let (asked, viewer) = (Instant::now(), Client::plain(self.process.http, HOST));
        let target = format!("/0.m4s?URISigningPackage={}", tokens.mint());
        while let Err(why) = has(&viewer, &target, None).await {
            let status = self.status().await;
            assert!(asked.elapsed() < 4 * PATIENCE, "{why}: {status:#}");
            tokio::time::sleep(SHORTLY).await;
        }
    }
}

/// What viewers show, and by what it is signed.
struct Tokens {
    file: String,
    keys: Keys,
    minted: AtomicU64,
}

impl Tokens {
    fn by(secret: &str) -> Tokens {
        let file = json!({ "publisher": { "renewal_kid": "k", "keys": [
            { "kty": "oct", "kid": "k", "alg": "HS256", "k": secret.repeat(11) } ] } });
        let file = file.to_string();
        let keys = KeyFile::parse(file.as_bytes()).unwrap().keys(Matching::Full).unwrap();
        Tokens { file, keys, minted: AtomicU64::new(0) }
    }

    /// One that nobody has shown.
    fn mint(&self) -> String {
        let ends = 4_000_000_000 + self.minted.fetch_add(1, Ordering::Relaxed);
        let claims = json!({ "cdniuc": "regex:.*", "exp": ends });
        mint(claims.as_object().unwrap(), self.keys.renewal("publisher").unwrap()).unwrap()
    }
}

/// All that viewers share.
struct Audience {
    tokens: Tokens,
    is_over: AtomicBool,
    /// Of each viewer, how many segments he has.
    have: Vec<AtomicU64>,
    /// What went wrong.
    wrong: Mutex<Vec<String>>,
}

impl Audience {
    fn new(tokens: Tokens, viewers: usize) -> Audience {
        let have = (0..viewers).map(|_| AtomicU64::new(0)).collect();
        Audience { tokens, is_over: AtomicBool::new(false), have, wrong: Mutex::default() }
    }

    /// Each has asked for a segment from now on, and has it.
    async fn goes_on(&self, what: &str) {
        let had: Vec<u64> = self.have.iter().map(|have| have.load(Ordering::Relaxed)).collect();
        let asked = Instant::now();
        // What was asked for before may be the first of two.
        let goes_on = |(have, had): (&AtomicU64, &u64)| have.load(Ordering::Relaxed) >= had + 2;
        while !self.have.iter().zip(&had).all(goes_on) {
            let wrong = self.wrong.lock().await;
            assert!(wrong.is_empty(), "{what}: {wrong:?}");
            assert!(asked.elapsed() < 2 * PATIENCE, "{what}: viewers wait");
            drop(wrong);
            tokio::time::sleep(SHORTLY).await;
        }
    }
}

/// Plays until it is over.
async fn plays(audience: Arc<Audience>, number: usize, viewer: Client, steering: Client) {
    let (mut connection, mut token) = (None, String::new());
    while !audience.is_over.load(Ordering::Relaxed) {
        let segment = audience.have[number].load(Ordering::Relaxed);
        if segment.is_multiple_of(OF_A_TOKEN) {
            token = audience.tokens.mint();
        }
        if segment.is_multiple_of(OF_A_CONNECTION) {
            connection = None;
        }
        let path = format!("/{}.m4s", (number as u64 + segment) % SEGMENTS);
        let target = format!("{path}?URISigningPackage={token}");
        match has(&viewer, &target, connection.take()).await {
            Ok(kept) => connection = kept,
            Err(why) => audience.wrong.lock().await.push(format!("{path}: {why}")),
        }
        if segment % OF_A_TOKEN == 1 {
            let asked = steering.get(&format!("/steer/v1/go/media{path}")).try_send().await;
            if !asked.as_ref().is_ok_and(|told| told.status == 302) {
                audience.wrong.lock().await.push(format!("where to go on: {asked:?}"));
            }
        }
        audience.have[number].fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(SHORTLY).await;
    }
}

/// The connection that can be used again, where all of a segment has come.
async fn has(
    viewer: &Client,
    target: &str,
    connection: Option<Connection>,
) -> Result<Option<Connection>, String> {
    let said = |error: std::io::Error| error.to_string();
    let connection = match connection {
        Some(connection) => connection,
        None => viewer.connect().await.map_err(said)?,
    };
    let answer = viewer.get(target).on(connection).await.map_err(said)?;
    let (answer, kept) = answer.finish_and_keep().await.map_err(said)?;
    match (answer.status, answer.complete, answer.body.len() as u64) {
        (200, true, SEGMENT_BYTES) => Ok(kept),
        other => Err(format!("{other:?}")),
    }
}

/// In one box all calls fail, in the other all that come after it is registered.
const CALLS: [&[Call]; 2] = [&Call::ALL, &[Call::Beats, Call::Follows, Call::Renews]];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_box_delivers_whatever_control_does_in_whichever_call() {
    let origin = Origin::start();
    for segment in 0..SEGMENTS {
        origin.serve(&format!("/{segment}.m4s"), Script::of(SEGMENT_BYTES));
    }
    let tokens = Tokens::by("c2Vj");
    let boxes = [
        Box::start("edge-1", &origin, &tokens.file).await,
        Box::start("edge-2", &origin, &tokens.file).await,
    ];
    let audience = Arc::new(Audience::new(tokens, boxes.len() * VIEWERS));
    for one in &boxes {
        one.until_lets_in(&audience.tokens).await;
    }
    let viewers: Vec<_> = (0..audience.have.len())
        .map(|number| {
            let one = &boxes[number % boxes.len()];
            let viewer = Client::plain(one.process.http, HOST);
            tokio::spawn(plays(audience.clone(), number, viewer, one.steering.clone()))
        })
        .collect();
    audience.goes_on("all is true").await;

    for faults in FAULTS.chunks_exact(1) {
        for (one, calls) in boxes.iter().zip(CALLS) {
            one.control.fails(calls, faults);
            Control::begins_anew(&one.fleet);
        }
        for (one, calls) in boxes.iter().zip(CALLS) {
            // Who is not registered has no heart that beats.
            let asked = Instant::now();
            let fails = |call: &&Call| !(calls.len() == Call::ALL.len() && **call == Call::Beats);
            let have_failed =
                || calls.iter().filter(fails).all(|call| one.control.failed(*call) > 0);
            while !have_failed() {
                assert!(asked.elapsed() < 4 * PATIENCE, "{faults:?}: {:#}", one.status().await);
                tokio::time::sleep(SHORTLY).await;
            }
        }
        audience.goes_on(&format!("{faults:?}")).await;
        for one in &boxes {
            let snapshot = one.status().await["snapshot"].clone();
            assert_eq!((&snapshot["epoch"], &snapshot["counter"]), (&3.into(), &7.into()));
            assert_eq!(snapshot["key_files"], 1, "{faults:?}");
        }
    }

    audience.is_over.store(true, Ordering::Relaxed);
    for viewer in viewers {
        viewer.await.unwrap();
    }
    let wrong = audience.wrong.lock().await;
    assert!(wrong.is_empty(), "{wrong:?}");

    // Nor does a box stop listening, whatever it has heard.
    let tokens = Tokens::by("b3Ro");
    for one in &boxes {
        one.control.tells_the_truth(("film", &tokens.file));
        Control::begins_anew(&one.fleet);
        one.until_lets_in(&tokens).await;
        let viewer = Client::plain(one.process.http, HOST);
        let target = format!("/0.m4s?URISigningPackage={}", audience.tokens.mint());
        let told = viewer.get(&target).send().await;
        assert_eq!(told.status, 403);
    }
}

const SHORTLY: std::time::Duration = std::time::Duration::from_millis(20);
