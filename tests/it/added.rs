//! A volume that a reload adds is used from then on, and nobody notices; what it brings is judged
//! as if it had been away. Where one cannot be used, nothing has changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::support::{
    BLOCK, Client, HOST, Origin, PATIENCE, Process, Recorded, Script, Verdict, judge, keeping,
    text, tidegate,
};

const WHOLE: Verdict = Verdict::Whole { version: 1 };
const TOKEN: &str = "a-token-of-some-length";
const OBJECTS: usize = 24;

fn path_of(object: usize) -> String {
    format!("/{object}")
}

/// A configuration, and what it is with another volume.
struct Growing {
    file: PathBuf,
    before: String,
}

impl Growing {
    fn new(folder: &Path, origin: &Origin) -> Growing {
        let site = format!("origins = [\"http://{}\"]", origin.address());
        let file = keeping(folder, "256 MiB", &site);
        fs::write(folder.join("token"), TOKEN).unwrap();
        let before = fs::read_to_string(&file).unwrap();
        let before = format!("admin.token_file = \"token\"\n{before}");
        fs::write(&file, &before).unwrap();
        Growing { file, before }
    }

    fn add(&self, volumes: &[&Path]) {
        let one = |path: &&Path| {
            // A block device is used whole.
            let size = if path.starts_with("/dev") { "" } else { "size = \"256 MiB\"\n" };
            format!("[[ssd.volumes]]\npath = {path:?}\n{size}writes_per_day = \"256 GiB\"\n")
        };
        let more: String = volumes.iter().map(one).collect();
        fs::write(&self.file, self.before.replace("[[sites]]", &(more + "[[sites]]"))).unwrap();
    }
}

fn reload(folder: &TempDir, process: &Process) -> (i32, String) {
    let token = folder.path().join("token").to_string_lossy().into_owned();
    process.answers(&["reload", "--token-file", &token])
}

/// Name and state of each volume.
fn volumes(process: &Process) -> Vec<(String, String)> {
    let admin = format!("http://{}", process.admin);
    let shown = tidegate(&["status", "--json", "--admin", &admin]);
    let status: Value = serde_json::from_slice(&shown.stdout).unwrap();
    let one = |volume: &Value| {
        let word = |name: &str| volume[name].as_str().unwrap_or_default().to_owned();
        (word("name"), word("state"))
    };
    status["ssd"]["volumes"].as_array().unwrap().iter().map(one).collect()
}

fn online(names: &[&str]) -> Vec<(String, String)> {
    names.iter().map(|name| ((*name).to_owned(), "online".to_owned())).collect()
}

/// Asks for all of them again and again, until it is told to stop.
async fn view(origin: Arc<Origin>, viewer: Client, first: usize, stop: Arc<AtomicBool>) -> usize {
    let mut answers = 0;
    while !stop.load(Ordering::Relaxed) {
        let path = path_of((first + answers) % OBJECTS);
        let response = viewer.get(&path).send().await;
        assert_eq!(judge(&origin, &path, &response), WHOLE, "{path}");
        answers += 1;
    }
    answers
}

/// Waits until there are so many records on a volume, or on all of them together.
async fn until_entries(process: &Process, volume: Option<&str>, least: u64) {
    let admin = Client::plain(process.admin, "admin.test");
    let asked = Instant::now();
    let series = "tidegate_ssd_index_entries{";
    let line = volume.map_or(series.to_owned(), |name| format!("{series}volume={name:?}"));
    loop {
        let told = text(&admin.get("/metrics").send().await.body);
        let told = told.lines().filter(|one| one.starts_with(&line));
        let entries: u64 =
            told.map(|one| one.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum();
        if entries >= least {
            return;
        }
        assert!(asked.elapsed() < PATIENCE, "{volume:?}: {entries}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_is_added_under_load_and_kept_to_by_who_follows() {
    let folder = TempDir::new().unwrap();
    let origin = Arc::new(Origin::start());
    for object in 0..2 * OBJECTS {
        origin.serve(&path_of(object), Script::of(BLOCK));
    }
    let growing = Growing::new(folder.path(), &origin);
    let mut process = Process::start(&growing.file);
    let viewer = Client::plain(process.http, HOST);
    let stop = Arc::new(AtomicBool::new(false));
    let mut viewers = JoinSet::new();
    for first in 0..8 {
        viewers.spawn(view(origin.clone(), viewer.clone(), first, stop.clone()));
    }
    // Called as its file is, which another one is called too.
    fs::create_dir(folder.path().join("more")).unwrap();
    let second = folder.path().join("more/volume");
    growing.add(&[&second]);
    let (code, said) = tokio::task::block_in_place(|| reload(&folder, &process));
    assert!(code == 0 && !said.contains("restart"), "{said}");
    assert!(
        said.contains(&format!("ssd.volumes[{}].size: \"256 MiB\"", second.display())),
        "{said}"
    );
    assert_eq!(reload(&folder, &process), (0, "nothing has changed\n".to_owned()));
    let name = second.display().to_string();
    assert_eq!(volumes(&process), online(&["volume", &name]));
    // What comes then lies on it too.
    for object in OBJECTS..2 * OBJECTS {
        let path = path_of(object);
        assert_eq!(judge(&origin, &path, &viewer.get(&path).send().await), WHOLE);
    }
    until_entries(&process, Some(&name), 2).await;
    stop.store(true, Ordering::Relaxed);
    for answers in viewers.join_all().await {
        assert!(answers > 0);
    }
    until_entries(&process, None, 4 * OBJECTS as u64).await;

    process.signal(Signal::USR2);
    process.until_left().await;
    // Of who starts with both each is called by its path.
    let first = folder.path().join("volume").display().to_string();
    assert_eq!(volumes(&process), online(&[&first, &name]), "it goes to who takes over");
    origin.forget_requests();
    for object in 0..2 * OBJECTS {
        let path = path_of(object);
        assert_eq!(judge(&origin, &path, &viewer.get(&path).send().await), WHOLE);
    }
    assert_eq!(origin.all_requests().len(), 0, "{:#?}", origin.all_requests());
    process.stop();
    let process = Process::start(&growing.file);
    let viewer = Client::plain(process.http, HOST);
    for object in 0..2 * OBJECTS {
        let path = path_of(object);
        assert_eq!(judge(&origin, &path, &viewer.get(&path).send().await), WHOLE);
    }
    assert_eq!(origin.all_requests().len(), 0, "{:#?}", origin.all_requests());
    process.stop();
}

#[tokio::test]
async fn one_that_cannot_be_used_is_a_line_and_changes_nothing() {
    let folder = TempDir::new().unwrap();
    let origin = Origin::serving("/a", Script::of(10));
    let growing = Growing::new(folder.path(), &origin);
    let process = Process::start(&growing.file);
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("others")).unwrap();
    let others = Growing::new(&at("others"), &origin);
    let other = Process::start(&others.file);
    fs::write(at("text"), "no volume, but somebody's text").unwrap();
    fs::copy(at("volume"), at("copy")).unwrap();
    let gone = Path::new("/dev/no-such-device");
    let good = at("good");
    let table: [(&Path, &str); 4] = [
        (&at("text"), "text"),
        (&at("copy"), "it is a copy of volume volume"),
        (&at("others/volume"), "is in use by another process"),
        (gone, "no-such-device"),
    ];
    for (bad, told) in table {
        // Nor is one beside it that could be.
        for added in [&[bad][..], &[&good, bad]] {
            growing.add(added);
            let (code, said) = reload(&folder, &process);
            assert_eq!(code, 64, "{bad:?}: {said}");
            assert!(said.lines().next().unwrap().contains(told), "{bad:?}: {said}");
            let written = fs::read_to_string(&growing.file).unwrap();
            let path = format!("path = {bad:?}");
            let line = 1 + written.lines().position(|line| line == path).unwrap();
            let place = format!("{}:{line}:8: volume ", growing.file.display());
            assert!(said.contains(&place), "{place}: {said}");
            assert!(
                said.ends_with("nothing has changed: it is served by what was before\n"),
                "{said}"
            );
            assert_eq!(volumes(&process), online(&["volume"]));
            assert!(!good.exists(), "{bad:?}: what was made for it is left behind");
        }
    }
    // One that is not there any more needs a start, and so does what comes beside that.
    let elsewhere = growing.before.replace("/volume\"", "/good\"");
    fs::write(&growing.file, elsewhere).unwrap();
    let (code, said) = reload(&folder, &process);
    assert!(code == 0 && said.lines().all(|line| line.ends_with(" (needs a restart)")), "{said}");
    growing.add(&[&good]);
    let (code, said) = reload(&folder, &process);
    assert!(code == 0 && !said.contains("restart"), "{said}");
    assert_eq!(volumes(&process), online(&["volume", "good"]));
    assert_eq!(
        judge(&origin, "/a", &Client::plain(process.http, HOST).get("/a").send().await),
        WHOLE
    );
    let logged = process.stop();
    let count = |words: &str| logged.iter().filter(|line| line.contains(words)).count();
    assert_eq!(count(" ERROR "), 2 * 4, "each once: {logged:#?}");
    let made = "good was made, empty: ";
    assert_eq!((count(made), count("good is removed again: ")), (3, 2), "{logged:#?}");
    other.stop();
}

#[tokio::test]
async fn it_brings_nothing_back_that_was_purged_or_replaced_while_it_was_away() {
    let folder = TempDir::new().unwrap();
    let origin = Origin::start();
    let paths = ["/purged", "/stays"];
    for path in paths {
        origin.serve(path, Script::of(BLOCK).cache_control("max-age=3600"));
    }
    let growing = Growing::new(folder.path(), &origin);
    let away = folder.path().join("away");
    // All that is kept lies on one volume, which is taken out then.
    let alone = growing.before.replace("/volume\"", "/away\"");
    fs::write(&growing.file, alone).unwrap();
    let process = Process::start(&growing.file);
    let viewer = Client::plain(process.http, HOST);
    for path in paths {
        assert_eq!(judge(&origin, path, &viewer.get(path).send().await), WHOLE);
    }
    until_entries(&process, Some("away"), 4).await;
    process.stop();
    fs::write(&growing.file, &growing.before).unwrap();
    let process = Process::start(&growing.file);
    let viewer = Client::plain(process.http, HOST);
    let admin = Client::plain(process.admin, "admin.test");
    let document = json!({ "urls": [format!("http://{HOST}/purged")] });
    let purge = admin.request(Method::POST, "/purge").json(&document);
    let purge = purge.header("authorization", &format!("Bearer {TOKEN}")).send().await;
    assert_eq!(purge.status, 200, "{}", text(&purge.body));
    growing.add(&[&away]);
    let (code, said) = reload(&folder, &process);
    assert_eq!(code, 0, "{said}");
    assert_eq!(volumes(&process)[1], ("away".to_owned(), "online".to_owned()));
    origin.forget_requests();
    for path in paths {
        assert_eq!(judge(&origin, path, &viewer.get(path).send().await), WHOLE);
    }
    let [purged, stays] = paths.map(|path| origin.requests(path));
    assert_eq!((purged.len(), stays.len()), (1, 1), "{stays:#?}");
    let asks = |one: &Recorded| one.head.headers.contains_key("if-none-match");
    assert_eq!((asks(&purged[0]), asks(&stays[0])), (false, true), "one is asked about, once");
    process.stop();
}
