//! What an operator asks the binary about a running appliance, and what it answers.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::support::{BLOCK, Client, Edge, HOST, Origin, PIECE, Process, Script};

/// Runs the binary itself; blocks.
fn tidegate(words: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate")).args(words).output();
    output.unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_tells_what_a_running_appliance_does_and_that_one_does_not_run() {
    let origin = Origin::serving("/a", Script::of(PIECE));
    let mut edge = Edge::in_front_of(&origin).start();
    for _ in 0..2 {
        edge.get("/a").send().await;
    }
    let admin = format!("http://{}", edge.admin().address());
    let shown = tidegate(&["status", "--admin", &admin]);
    let words = text(&shown.stdout);
    assert!(shown.status.success(), "{}", text(&shown.stderr));
    assert!(words.contains(": ready, up "), "{words}");
    assert!(words.contains("sent         128.0 KiB: "), "{words}");
    assert!(words.contains("offload      50.0%; 64.0 KiB from origins in 1 request\n"), "{words}");

    let shown = tidegate(&["status", "--admin", &admin, "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!((&status["phase"], &status["requests"]), (&"ready".into(), &2.into()));
    assert!(status["ssd"].is_null(), "there is no ssd tier: {status}");

    edge.drain().await;
    let shown = tidegate(&["status", "--admin", &admin]);
    let line = text(&shown.stderr);
    assert_eq!(shown.status.code(), Some(1));
    assert!(line.ends_with("connection refused; is it running?\n"), "{line}");
    assert_eq!((line.lines().count(), shown.stdout.len()), (1, 0), "{line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_asked_of_a_viewers_port_is_one_clear_line() {
    let origin = Origin::start();
    let edge = Edge::in_front_of(&origin).start();
    let viewers = edge.client().address().to_string();
    for words in [&["status", "--admin", &viewers][..], &["status", "--admin", &viewers, "--json"]]
    {
        let shown = tidegate(words);
        let line = format!(
            "{viewers} is no admin listener of Tidegate: it answers 421 Misdirected \
             Request; ask where `listeners.admin` says\n"
        );
        assert_eq!((shown.status.code(), text(&shown.stderr)), (Some(1), line));
        assert_eq!(shown.stdout.len(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_that_is_down_is_one_line_of_the_log_and_one_when_it_is_back() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    let address = origin.address().to_string();
    let config = folder.path().join("edge.toml");
    let settings = format!(
        "listeners.http = ['127.0.0.1:0']\nlisteners.admin = ['127.0.0.1:0']\nlog.access = 'off'\n\
         memory.ram = '64 MiB'\nfill.retries = 1\n[[sites]]\nname = 'media'\nhosts = [{HOST:?}]\n\
         origins = ['http://{address}']\n"
    );
    fs::write(&config, settings).unwrap();
    let edge = Process::start(&config);
    let client = Client::plain(edge.http, HOST);
    origin.refuse_connections().await;
    for number in 0..20 {
        assert_eq!(client.get(&format!("/{number}")).send().await.status, 502);
    }
    origin.accept_connections().await;
    for number in 0..20 {
        origin.serve(&format!("/{number}"), Script::of(PIECE));
        assert_eq!(client.get(&format!("/{number}")).send().await.status, 200);
    }
    let logged = edge.logged_until("answers again").await;
    let about: Vec<_> = logged.iter().filter(|line| line.contains(&address)).collect();
    assert_eq!(about.len(), 2, "{logged:#?}");
    assert!(about[0].contains("WARN") && about[0].contains("cannot be reached: "), "{about:?}");
    assert!(about[1].contains("INFO") && about[1].contains("in vain 40 times in "), "{about:?}");
    assert!(!logged.iter().any(|line| line.contains("not answered")), "{logged:#?}");
}

/// What `tidegate status` says of the volumes, as text and as JSON.
fn status_of(edge: &Edge) -> (String, serde_json::Value) {
    let admin = format!("http://{}", edge.admin().address());
    let shown = tidegate(&["status", "--admin", &admin]);
    assert!(shown.status.success(), "{}", text(&shown.stderr));
    let json = tidegate(&["status", "--admin", &admin, "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    (text(&shown.stdout), status["ssd"]["volumes"].clone())
}

/// The row of a volume: its name and its state.
fn has_row(words: &str, name: &str, state: &str) -> bool {
    words.lines().any(|line| line.split_whitespace().take(2).eq([name, state]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_tells_of_each_volume_and_why_one_is_ill() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    let sick = folder.path().join("sick");
    let edge = Edge::in_front_of(&origin)
        .setting("memory.total", "256 MiB")
        .setting("ssd.admission", "all")
        .volume(folder.path(), "well")
        .volume_with(&format!(
            "path = {sick:?}\nsize = \"256 MiB\"\nwrites_per_day = \"1x\"\nsimulate = \"\""
        ))
        .start();
    let (words, volumes) = status_of(&edge);
    assert!(has_row(&words, "well", "online") && has_row(&words, "sick", "online"), "{words}");
    assert_eq!((&volumes[1]["name"], &volumes[1]["state"]), (&"sick".into(), &"online".into()));
    assert!(volumes[1]["why"].is_null(), "{volumes}");

    edge.falls_ill("sick", "fail-writes=100%");
    let ill = ["volume=\"sick\"", "state=\"offline\""];
    for number in 0.. {
        if edge.metric("tidegate_ssd_state", &ill).await == 1.0 {
            break;
        }
        assert!(number < 1_000, "it is written to all the while");
        origin.serve(&format!("/{number}"), Script::of(BLOCK));
        assert_eq!(edge.get(&format!("/{number}")).send().await.status, 200);
    }

    let (words, volumes) = status_of(&edge);
    // Whichever it was that was to be written first.
    let why = " could not be written: the device failed: Input/output error";
    assert!(has_row(&words, "well", "online") && has_row(&words, "sick", "offline"), "{words}");
    let told = words.lines().find(|line| line.starts_with("  sick: offline: "));
    assert!(told.is_some_and(|line| line.contains(why)), "{words}");
    assert!(!words.contains("\n  well: "), "{words}");
    let [well, sick] = [0, 1].map(|n| &volumes[n]);
    assert_eq!((&well["name"], &well["state"]), (&"well".into(), &"online".into()));
    assert_eq!((&sick["name"], &sick["state"]), (&"sick".into(), &"offline".into()));
    assert!(well["why"].is_null() && sick["why"].as_str().unwrap().contains(why), "{volumes}");
}

/// Changes the first bytes of every piece of `bodies` that lies in the volume; how many.
fn spoil_pieces(volume: &Path, bodies: &[Vec<u8>]) -> usize {
    let pieces = bodies.iter().flat_map(|body| body.chunks(PIECE as usize));
    let starts: HashSet<&[u8]> = pieces.map(|piece| &piece[..16]).collect();
    let held = fs::read(volume).unwrap();
    let file = File::options().write(true).open(volume).unwrap();
    let granules = held.chunks(4096).enumerate();
    let found = granules.filter(|(_, granule)| starts.contains(&granule[..16]));
    found.map(|(n, _)| file.write_all_at(&[b'X'; 16], n as u64 * 4096).unwrap()).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_that_failed_is_ill_after_a_restart_until_it_is_forgiven() {
    const COUNT: usize = 20;
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    let (path, state) = (folder.path().join("disk"), folder.path().join("state.json"));
    let (name, state) = (path.to_str().unwrap(), state.to_str().unwrap());
    let start = || {
        let edge = Edge::in_front_of(&origin).setting("memory.total", "256 MiB");
        let edge = edge.setting("ssd.admission", "all").setting("ssd.state", state);
        edge.volume(folder.path(), "disk").start()
    };
    let keep = async |edge: &Edge, path: &str| {
        let before = edge.metric("tidegate_ssd_index_entries", &[]).await;
        let response = edge.get(path).send().await;
        let kept = |value| value >= before + 2.0;
        edge.until_metric("tidegate_ssd_index_entries", &[], kept).await;
        response.body.to_vec()
    };

    let mut edge = start();
    let paths: Vec<String> = (0..COUNT).map(|number| format!("/{number}")).collect();
    let mut bodies = Vec::new();
    for path in &paths {
        // All of them in the region that is open: another would be taken out of use.
        origin.serve(path, Script::of(2 * PIECE));
        bodies.push(keep(&edge, path).await);
    }
    assert_eq!(spoil_pieces(&path, &bodies), COUNT * 2, "each piece of each");
    let ill = ["volume=\"disk\"", "state=\"read-only\""];
    let mut rounds = 0;
    while edge.metric("tidegate_ssd_state", &ill).await == 0.0 {
        // Some stay in ram.
        edge.evict(100);
        for (path, body) in paths.iter().zip(&bodies) {
            assert!(edge.get(path).send().await.body[..] == body[..], "{path}");
        }
        rounds += 1;
        assert!(rounds < 20, "it is still taken for well");
    }
    let why = "read-only: 8 errors in 10 minutes, the last one: ";
    let (words, _) = status_of(&edge);
    assert!(words.contains(&format!("\n  disk: {why}")), "{words}");
    edge.drain().await;

    let mut edge = start();
    let (words, volumes) = status_of(&edge);
    assert!(words.contains("\n  disk: read-only: it failed before: 8 errors in 10 "), "{words}");
    assert_eq!(&volumes[0]["state"], "read-only", "{volumes}");
    edge.drain().await;

    let forgiven = tidegate(&["volume", "forgive", name, "--state", state]);
    let told = text(&forgiven.stdout);
    assert!(forgiven.status.success(), "{}", text(&forgiven.stderr));
    assert!(told.ends_with(" is taken for well from the next start on\n"), "{told}");

    let edge = start();
    let (words, volumes) = status_of(&edge);
    assert!(has_row(&words, "disk", "online") && volumes[0]["why"].is_null(), "{words}");
    origin.serve("/later", Script::of(BLOCK));
    let body = keep(&edge, "/later").await;
    edge.evict(100);
    origin.forget_requests();
    assert!(edge.get("/later").send().await.body[..] == body[..]);
    assert_eq!(origin.all_requests().len(), 0, "it is read from the volume");
}

const MIB: u64 = 1 << 20;

/// One way in which a volume cannot be used.
struct Bad {
    what: &'static str,
    /// Done to a volume of 256 MiB.
    spoil: fn(&Path),
    /// Exit code and words of `tidegate volume inspect` and its like, and of `serve`.
    says: [(i32, &'static str); 2],
}

const BAD: [Bad; 5] = [
    Bad {
        what: "cut short",
        spoil: |path| File::options().write(true).open(path).unwrap().set_len(200 * MIB).unwrap(),
        says: [(1, "give it its size back"), (64, "and the file has 200 MiB")],
    },
    Bad {
        what: "of another product",
        spoil: |path| {
            let file = OpenOptions::new().write(true).open(path).unwrap();
            for at in (0..256).map(|mib| mib * MIB).chain([256 * MIB - 8192]) {
                file.write_all_at(&[b'X'; 8192], at).unwrap();
            }
        },
        says: [
            (1, "`tidegate volume format` makes a volume of it"),
            (1, "`tidegate volume format` makes a volume of it"),
        ],
    },
    Bad {
        what: "empty",
        spoil: |path| drop(File::create(path).unwrap()),
        says: [(1, "is empty"), (64, "and the file has 0 B")],
    },
    Bad {
        what: "of a later version",
        spoil: needs_a_feature,
        says: [(1, "use that version"), (1, "use that version")],
    },
    Bad {
        what: "a folder",
        spoil: |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        },
        says: [(1, "is a directory"), (64, "a file or a block device")],
    },
];

/// As a later release would leave it: with a bit in its superblocks that this one does not know.
fn needs_a_feature(path: &Path) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    for at in [0, 4096, 256 * MIB - 8192, 256 * MIB - 4096] {
        let mut frame = [0; 4096];
        file.read_exact_at(&mut frame, at).unwrap();
        let length = u32::from_le_bytes(frame[16..20].try_into().unwrap()) as usize;
        let sum = |frame: &[u8]| crc64_nvme(&[&frame[..8], &frame[16..length]].concat());
        assert_eq!(frame[8..16], sum(&frame).to_le_bytes(), "this is how it is summed");
        frame[64 + 16 + 7] |= 0x40;
        let new = sum(&frame).to_le_bytes();
        frame[8..16].copy_from_slice(&new);
        file.write_all_at(&frame, at).unwrap();
    }
}

fn crc64_nvme(bytes: &[u8]) -> u64 {
    let step = |crc: u64, byte: &u8| {
        let bit = |crc: u64, _| crc >> 1 ^ if crc & 1 == 1 { 0x9a6c_9329_ac4b_c9b5 } else { 0 };
        (0..8).fold(crc ^ u64::from(*byte), bit)
    };
    !bytes.iter().fold(!0, step)
}

/// Bytes and times of what is at `path`.
fn seen(path: &Path) -> (Option<Vec<u8>>, i64, u64) {
    let about = fs::metadata(path).unwrap();
    (fs::read(path).ok(), about.mtime_nsec(), about.len())
}

/// A configuration with this volume.
fn configuration(folder: &Path, volume: &Path, size: &str) -> String {
    let path = folder.join("tidegate.toml");
    let state = folder.join("state.json");
    let text = format!(
        "listeners.http = ['127.0.0.1:0']\nlisteners.admin = ['127.0.0.1:0']\nlog.level = 'error'\n\
         memory.total = '512 MiB'\nssd.index = '4 MiB'\nssd.state = {state:?}\n\
         [[ssd.volumes]]\npath = {volume:?}\nsize = '{size}'\nwrites_per_day = '1x'\n\
         [[sites]]\nname = 'media'\nhosts = ['*']\n\
         [[sites.origins]]\nurl = 'http://127.0.0.1:1'\n"
    );
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Refused with one line that says `words`, and nothing on standard output.
fn is_refused(output: &Output, (code, words): (i32, &str), what: &str) {
    let line = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{what}: {line}");
    assert_eq!((line.lines().count(), output.stdout.len()), (1, 0), "{what}: {line}");
    assert!(line.contains(words), "{what}: {line}");
}

#[test]
fn a_volume_that_cannot_be_used_is_refused_with_one_line_and_left_as_it_is() {
    for Bad { what, spoil, says } in BAD {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("volume");
        let name = path.to_str().unwrap();
        assert!(tidegate(&["volume", "create", name, "--size", "256 MiB"]).status.success());
        spoil(&path);
        let before = seen(&path);
        for command in ["inspect", "verify", "forgive"] {
            is_refused(&tidegate(&["volume", command, name]), says[0], what);
        }
        let config = configuration(folder.path(), &path, "256 MiB");
        is_refused(&tidegate(&["serve", "--config", &config]), says[1], what);
        assert!(seen(&path) == before, "{what}: it was changed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_that_is_in_use_is_refused_to_others_and_goes_on() {
    let (origin, folder) = (Origin::serving("/a", Script::of(PIECE)), TempDir::new().unwrap());
    let mut edge = Edge::in_front_of(&origin).volume(folder.path(), "volume").start();
    let path = folder.path().join("volume");
    let name = path.to_str().unwrap();
    let in_use = "is in use by another process";
    for words in [
        &["volume", "inspect", name][..],
        &["volume", "verify", name],
        &["volume", "format", name, "--yes"],
        &["volume", "wipe", name, "--yes"],
    ] {
        is_refused(&tidegate(words), (1, in_use), words[1]);
    }
    let config = configuration(folder.path(), &path, "256 MiB");
    is_refused(&tidegate(&["serve", "--config", &config]), (1, in_use), "serve");
    assert_eq!(edge.get("/a").send().await.status, 200);
    edge.drain().await;
    assert!(tidegate(&["volume", "verify", name]).status.success());
}

#[test]
fn a_volume_that_can_not_be_written_or_made_is_refused_with_one_line() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("volume");
    let name = path.to_str().unwrap();
    // More than there is anywhere; and less than a volume takes.
    let config = configuration(folder.path(), &path, "4 TiB");
    let served = tidegate(&["serve", "--config", &config]);
    is_refused(&served, (64, "are free where it is to be"), "no space");
    let made = tidegate(&["volume", "create", name, "--size", "60 TiB"]);
    is_refused(&made, (1, "no room for "), "no space");
    let config = configuration(folder.path(), &path, "255 MiB");
    let served = tidegate(&["serve", "--config", &config]);
    is_refused(&served, (64, "at least \"256 MiB\""), "too small");
    let left: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["tidegate.toml"], "nothing is left behind");

    assert!(tidegate(&["volume", "create", name, "--size", "256 MiB"]).status.success());
    fs::set_permissions(&path, Permissions::from_mode(0o444)).unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
    let config = configuration(folder.path(), &path, "256 MiB");
    let before = seen(&path);
    let served = unprivileged(folder.path(), &["serve", "--config", &config]);
    is_refused(&served, (64, "permission denied; one this user may write"), "read-only");
    let wiped = unprivileged(folder.path(), &["volume", "wipe", name, "--yes"]);
    is_refused(&wiped, (1, "no permission to open"), "read-only");
    assert!(seen(&path) == before);
    assert!(unprivileged(folder.path(), &["volume", "verify", name]).status.success());
}

/// [`tidegate`] as somebody for whom permissions count.
fn unprivileged(folder: &Path, words: &[&str]) -> Output {
    // Where he can reach it, whoever built it.
    let binary = folder.join("tidegate");
    if !binary.exists() {
        fs::copy(env!("CARGO_BIN_EXE_tidegate"), &binary).unwrap();
    }
    let mut command = Command::new(binary);
    // SAFETY is the system's: only root may be somebody else.
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        command.uid(65_534).gid(65_534);
    }
    command.args(words).output().unwrap()
}
