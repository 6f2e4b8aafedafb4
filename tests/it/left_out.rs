//! What is wrong with a volume leaves that one out and is one line that says what to do; nothing is
//! ever written to it. What is wrong with the settings is refused.

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::support::{
    BLOCK, Edge, Origin, PIECE, Process, Script, has_row, status_of, text, tidegate,
};

const MIB: u64 = 1 << 20;

/// One way in which a volume cannot be used.
struct Bad {
    what: &'static str,
    /// Done to a volume of 256 MiB.
    spoil: fn(&Path),
    /// Words of `tidegate volume inspect` and its like, and of a start and of `check`, which leave
    /// the volume out unless it is the configuration that is wrong.
    says: [&'static str; 2],
    is_misused: bool,
}

const BAD: [Bad; 6] = [
    Bad {
        what: "cut short",
        spoil: |path| File::options().write(true).open(path).unwrap().set_len(200 * MIB).unwrap(),
        says: ["has 256 MiB, what it lies on has 200 MiB; give it its size back"; 2],
        is_misused: false,
    },
    Bad {
        what: "of another product",
        spoil: |path| {
            let file = OpenOptions::new().write(true).open(path).unwrap();
            for at in (0..256).map(|mib| mib * MIB).chain([256 * MIB - 8192]) {
                file.write_all_at(&[b'X'; 8192], at).unwrap();
            }
        },
        says: ["bad` makes a volume of it"; 2],
        is_misused: false,
    },
    Bad {
        what: "damaged",
        spoil: |path| {
            let file = OpenOptions::new().write(true).open(path).unwrap();
            for at in [0, 4096, 256 * MIB - 8192, 256 * MIB - 4096] {
                file.write_all_at(b"X", at + 100).unwrap();
            }
        },
        says: ["torn or damaged; `tidegate volume format /"; 2],
        is_misused: false,
    },
    Bad {
        what: "empty",
        spoil: |path| drop(File::create(path).unwrap()),
        says: ["has 0 bytes, which is no volume"; 2],
        is_misused: false,
    },
    Bad {
        what: "of a later version",
        spoil: needs_a_feature,
        says: ["use that version"; 2],
        is_misused: false,
    },
    Bad {
        what: "a folder",
        spoil: |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        },
        says: ["is a directory", "a file or a block device"],
        is_misused: true,
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

/// A configuration with these volumes.
pub(crate) fn configuration(folder: &Path, volumes: &[&Path], size: &str) -> String {
    let path = folder.join("tidegate.toml");
    let state = folder.join("state.json");
    let mut text = format!(
        "listeners.http = ['127.0.0.1:0']\nlisteners.admin = ['127.0.0.1:0']\nlog.level = 'info'\n\
         memory.total = '512 MiB'\nssd.index = '4 MiB'\nssd.state = {state:?}\n\
         [[sites]]\nname = 'media'\nhosts = ['*']\n\
         [[sites.origins]]\nurl = 'http://127.0.0.1:1'\n"
    );
    for volume in volumes {
        let volume = format!("path = {volume:?}\nsize = '{size}'\nwrites_per_day = '1x'\n");
        text.push_str(&format!("[[ssd.volumes]]\n{volume}"));
    }
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Serves until it accepts, and is then told to stop: what it said of volumes.
pub(crate) fn served(config: &str) -> Vec<String> {
    let mut said = Process::start(Path::new(config)).stop();
    said.retain(|line| line.contains(" volume "));
    said
}

/// The one line of the log that says `words` of the volume `name`.
pub(crate) fn line_of<'a>(said: &'a [String], name: &str, words: &str) -> &'a str {
    let of_it = |line: &&String| line.contains(&format!(" volume {name} is {words}"));
    let lines: Vec<_> = said.iter().filter(of_it).collect();
    assert_eq!(lines.len(), 1, "{name} {words}: {said:#?}");
    lines[0]
}

/// Refused with one line that says `words`, and nothing on standard output.
fn is_refused(output: &Output, (code, words): (i32, &str), what: &str) {
    let line = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{what}: {line}");
    assert_eq!((line.lines().count(), output.stdout.len()), (1, 0), "{what}: {line}");
    assert!(line.contains(words), "{what}: {line}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_that_cannot_be_used_is_left_out_with_one_line_and_left_as_it_is() {
    for Bad { what, spoil, says: [looked, started], is_misused } in BAD {
        let folder = TempDir::new().unwrap();
        let [path, well] = ["bad", "well"].map(|name| folder.path().join(name));
        let name = path.to_str().unwrap();
        assert!(tidegate(&["volume", "create", name, "--size", "256 MiB"]).status.success());
        spoil(&path);
        let before = seen(&path);
        for command in ["inspect", "verify", "forgive"] {
            is_refused(&tidegate(&["volume", command, name]), (1, looked), what);
        }
        let config = configuration(folder.path(), &[&path, &well], "256 MiB");
        if is_misused {
            for words in [&["serve", "--config", &config][..], &["check", &config]] {
                is_refused(&tidegate(words), (64, started), what);
            }
            continue;
        }
        let checked = tidegate(&["check", &config]);
        let told = text(&checked.stdout);
        assert!(checked.status.success(), "{what}: {}", text(&checked.stderr));
        assert!(told.contains(" is right; a volume would be left out, see the warn"), "{told}");
        let warning = ": volume bad would be left out, and a reload that adds it refused: ";
        let lines: Vec<_> = told.lines().filter_map(|line| line.split_once(warning)).collect();
        assert!(lines.len() == 1 && lines[0].1.contains(started), "{what}: {told}");
        assert!(!told.contains("; a reload that adds it is refused"), "said once, {what}: {told}");

        let said = served(&config);
        let line = line_of(&said, "bad", "left out until the next start: ");
        assert!(line.contains(started), "{what}: {line}");
        assert!(!said.iter().any(|line| line.contains("volume well is left out")), "{said:#?}");
        assert!(seen(&path) == before, "{what}: it was changed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_others_serve_and_status_says_why_one_is_left_out() {
    let (origin, folder) = (Origin::serving("/a", Script::of(2 * BLOCK)), TempDir::new().unwrap());
    let bad = folder.path().join("bad");
    fs::write(&bad, vec![b'X'; 300 * MIB as usize]).unwrap();
    let before = seen(&bad);
    let gone = "/dev/disk/by-id/nvme-that-died";
    let edge = Edge::in_front_of(&origin)
        .setting("memory.total", "256 MiB")
        .setting("ssd.admission", "all")
        .volume_with(&format!("path = {bad:?}"))
        .volume(folder.path(), "well")
        .volume_with(&format!("path = {gone:?}"))
        .start();
    assert_eq!(edge.get("/a").send().await.body.len() as u64, 2 * BLOCK);
    edge.until_metric("tidegate_ssd_index_entries", &[], |entries| entries >= 3.0).await;
    edge.evict(100);
    origin.forget_requests();
    assert_eq!(edge.get("/a").send().await.body.len() as u64, 2 * BLOCK);
    assert_eq!(origin.all_requests().len(), 0, "the volume that is well serves it");

    let (words, volumes) = status_of(&edge);
    let reasons = [
        "left out until the next start: what is here was not written by Tidegate; ",
        "left out until the next start: /dev/disk/by-id/nvme-that-died does not exist",
    ];
    for ((at, name), why) in [(0, "bad"), (2, "nvme-that-died")].into_iter().zip(reasons) {
        let told = &volumes[at];
        assert_eq!((&told["name"], &told["state"]), (&name.into(), &"offline".into()), "{told}");
        assert!(told["why"].as_str().unwrap().starts_with(why), "{told}");
        assert!(told["size_bytes"].is_null() && told["writes_per_day_bytes"].is_null(), "{told}");
        assert!(words.contains(&format!("\n  {name}: offline: {why}")), "{words}");
        let labels = [&format!("volume=\"{name}\"")[..], "state=\"offline\""];
        assert_eq!(edge.metric("tidegate_ssd_state", &labels).await, 1.0);
    }
    let sizes = edge.metric("tidegate_ssd_size_bytes", &[]).await;
    assert_eq!(sizes, (256 * MIB) as f64, "of the others nobody knows it");
    assert!(seen(&bad) == before, "it was changed");
}

#[test]
fn of_two_copies_of_a_volume_the_second_is_left_out() {
    let folder = TempDir::new().unwrap();
    let [first, second] = ["first", "second"].map(|name| folder.path().join(name));
    let name = first.to_str().unwrap();
    assert!(tidegate(&["volume", "create", name, "--size", "256 MiB"]).status.success());
    fs::copy(&first, &second).unwrap();
    for [used, copy] in [[&first, &second], [&second, &first]] {
        let before = seen(copy);
        let config = configuration(folder.path(), &[used, copy], "256 MiB");
        let [used, name] = [used, copy].map(|path| path.file_name().unwrap().to_str().unwrap());
        let says = format!("it is a copy of volume {used} (both have one id), and only one ");
        let told = text(&tidegate(&["check", &config]).stdout);
        let left_out = "would be left out, and a reload that adds it refused";
        assert!(told.contains(&format!("volume {name} {left_out}: {says}")), "{told}");
        let said = served(&config);
        line_of(&said, name, &format!("left out until the next start: {says}"));
        assert!(!said.iter().any(|line| line.contains(&format!("volume {used} is left"))));
        assert!(seen(copy) == before, "{name} was changed");
    }
}

#[test]
fn what_the_settings_get_wrong_for_all_volumes_is_refused_by_check_too() {
    let folder = TempDir::new().unwrap();
    let [one, other] = ["one", "other"].map(|name| folder.path().join(name));
    let make = |path: &Path, words: &[&str]| {
        let words = [&["volume", "create", path.to_str().unwrap(), "--size", "256 MiB"], words];
        assert!(tidegate(&words.concat()).status.success());
    };
    make(&one, &["--block-size", "256 KiB"]);
    let config = configuration(folder.path(), &[&one], "256 MiB");
    let says = "tidegate.toml:13:8: volume one cannot be used: it has blocks of 256 KiB";
    is_refused(&tidegate(&["check", &config]), (64, says), "all have other blocks");
    is_refused_at_last(&tidegate(&["serve", "--config", &config]), (64, says));
    // One among others is that one's fault.
    make(&other, &[]);
    let config = configuration(folder.path(), &[&one, &other], "256 MiB");
    assert!(tidegate(&["check", &config]).status.success());
    line_of(&served(&config), "one", "left out until the next start: it has blocks of 256 KiB");

    // So it is beside one of which nobody knows in time what it is.
    let config = configuration(folder.path(), &[&one, &folder.path().join("slow")], "256 MiB");
    let slow = fs::read_to_string(&config).unwrap() + "simulate = 'stall-reads=2s'\n";
    fs::write(&config, slow).unwrap();
    line_of(&served(&config), "one", "left out until the next start: it has blocks of 256 KiB");

    fs::remove_file(&other).unwrap();
    make(&other, &["--index", "8 MiB"]);
    let config = configuration(folder.path(), &[&other], "256 MiB");
    let says = "write `ssd.index = \"8 MiB\"`";
    is_refused(&tidegate(&["check", &config]), (64, says), "the index is too small");
    is_refused_at_last(&tidegate(&["serve", "--config", &config]), (64, says));
}

#[test]
fn what_is_told_to_be_written_makes_room_for_the_index_of_a_new_file() {
    let folder = TempDir::new().unwrap();
    let [new, there] = ["new", "there"].map(|name| folder.path().join(name));
    let name = there.to_str().unwrap();
    let made = ["volume", "create", name, "--size", "256 MiB", "--index", "3584 KiB"];
    assert!(tidegate(&made).status.success());
    let config = configuration(folder.path(), &[&new, &there], "256 MiB");
    let says = "volume new cannot be used: it is to be made, and the volumes that are there leave \
                its index 524288 bytes of `ssd.index`; write `ssd.index = \"5 MiB\"`";
    is_refused(&tidegate(&["check", &config]), (64, says), "too little is left");
    is_refused_at_last(&tidegate(&["serve", "--config", &config]), (64, says));
    assert!(!new.exists(), "it is made in vain");
    let obeyed = fs::read_to_string(&config).unwrap().replace("'4 MiB'", "\"5 MiB\"");
    fs::write(&config, obeyed).unwrap();
    assert!(tidegate(&["check", &config]).status.success());
    let said = served(&config);
    let read = said.iter().filter(|line| line.contains(" was read in ")).count();
    assert_eq!(read, 2, "{said:#?}");
    let shown = tidegate(&["volume", "inspect", new.to_str().unwrap(), "--json"]).stdout;
    let shown: serde_json::Value = serde_json::from_slice(&shown).unwrap();
    assert_eq!(shown["index_entries_max"], 3 * MIB / 2 / 16, "{shown:#}");
}

/// Not started, and the last line says why.
fn is_refused_at_last(output: &Output, (code, words): (i32, &str)) {
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{told}");
    assert!(told.lines().last().unwrap().contains(words), "{told}");
}

#[test]
fn the_log_says_which_commands_forgive_a_volume_and_read_all_of_it() {
    let folder = TempDir::new().unwrap();
    let below = folder.path().join("a folder");
    fs::create_dir(&below).unwrap();
    let path = below.join("volume");
    let made = ["volume", "create", path.to_str().unwrap(), "--size", "256 MiB", "--json"];
    let made: serde_json::Value = serde_json::from_slice(&tidegate(&made).stdout).unwrap();
    let id = made["id"].as_str().unwrap();
    let ill = r#"{"state": "offline", "reason": "a test", "since_unix_seconds": 1}"#;
    let state = format!("{{\"volumes\": {{\"{id}\": {ill}}}}}");
    fs::write(folder.path().join("state.json"), state).unwrap();
    let config = configuration(folder.path(), &[&path], "256 MiB");
    let checked = || text(&tidegate(&["check", &config]).stdout);
    let told = checked();
    let warning =
        ": volume volume would be offline: it failed before: a test; `tidegate volume forg";
    assert_eq!(told.matches(warning).count(), 1, "{told}");
    let said = served(&config);
    let line =
        line_of(&said, "volume", "still offline since Thu, 01 Jan 1970 00:00:01 GMT: a test; ");
    let command = line.split('`').nth(1).unwrap();
    assert!(command.starts_with("tidegate volume forgive '/"), "{line}");
    // As it is written, but for where the binary is.
    let typed = |command: &str| {
        let here = command.replacen("tidegate", env!("CARGO_BIN_EXE_tidegate"), 1);
        text(&Command::new("sh").args(["-c", &here]).current_dir("/").output().unwrap().stdout)
    };
    let verify = line.split('`').nth(3).unwrap();
    assert!(verify.starts_with("tidegate volume verify '/"), "{line}");
    let health = "health       offline since Thu, 01 Jan 1970 00:00:01 GMT: a test\n";
    assert!(typed(verify).contains(health), "{verify}: {}", typed(verify));
    assert!(typed(command).ends_with(" is taken for well from the next start on\n"), "{command}");
    assert!(!served(&config).iter().any(|line| line.contains("still offline")));
    assert!(!checked().contains("it failed before"));
    let state = folder.path().join("state.json");
    fs::write(&state, "{").unwrap();
    let told = checked();
    assert!(told.contains("state.json is damaged (") && !told.contains("moved"), "{told}");
    assert_eq!(fs::read(&state).unwrap(), b"{", "it is left as it is");
}

#[test]
fn a_state_file_that_cannot_be_read_is_told_where_it_matters_and_only_a_start_uses_volumes_again() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("volume");
    tidegate(&["volume", "create", path.to_str().unwrap(), "--size", "256 MiB"]);
    let state = folder.path().join("state.json");
    let config = configuration(folder.path(), &[&path], "256 MiB");
    // What nobody can read, not even root.
    std::os::unix::fs::symlink(&state, &state).unwrap();
    let why = format!("{} cannot be read: ", state.display());
    let unknown = format!("it is not known which volumes failed before: {why}");
    let told = text(&tidegate(&["check", &config]).stdout);
    assert!(told.contains(&unknown) && !told.contains("used again"), "{told}");
    for command in ["inspect", "verify"] {
        let command = ["volume", command, path.to_str().unwrap(), "--config", &config];
        let told = text(&tidegate(&command).stdout);
        assert!(told.contains(&format!("  health       {unknown}")), "{told}");
        assert!(!told.contains("used again"), "{told}");
        let told = tidegate(&[&command[..], &["--json"]].concat()).stdout;
        let told: serde_json::Value = serde_json::from_slice(&told).unwrap();
        assert_eq!(told["state_file"], state.to_str().unwrap());
        assert!(told["state_file_exists"].is_null() && told["illness"].is_null(), "{told}");
        assert!(told["state_file_error"].as_str().unwrap().starts_with(&unknown), "{told}");
    }
    let said = Process::start(Path::new(&config)).stop();
    let told: Vec<_> = said.iter().filter(|line| line.contains(&unknown)).collect();
    assert!(told.len() == 1 && told[0].contains("; they are used again"), "{said:#?}");
    let without = configuration(folder.path(), &[], "256 MiB");
    let told = text(&tidegate(&["check", &without]).stdout);
    assert!(!told.contains("failed before"), "no volume is configured: {told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_whose_file_is_deleted_or_replaced_is_told_and_goes_on() {
    let (origin, folder) = (Origin::serving("/a", Script::of(BLOCK)), TempDir::new().unwrap());
    let edge = Edge::in_front_of(&origin)
        .setting("memory.total", "256 MiB")
        .setting("ssd.admission", "all")
        .volume(folder.path(), "volume")
        .start();
    let [path, aside] = ["volume", "aside"].map(|name| folder.path().join(name));
    let is_lost = |lost: f64| edge.until_metric("tidegate_ssd_path_lost", &[], move |v| v == lost);
    let notice = || status_of(&edge).1[0]["notice"].as_str().map(str::to_owned);
    assert_eq!(edge.get("/a").send().await.status, 200);
    edge.until_metric("tidegate_ssd_index_entries", &[], |entries| entries >= 2.0).await;
    assert_eq!(notice(), None);

    fs::rename(&path, &aside).unwrap();
    is_lost(1.0).await;
    assert!(notice().unwrap().contains("volume was deleted or moved: it stays in use"));
    edge.evict(100);
    origin.forget_requests();
    assert_eq!(edge.get("/a").send().await.body.len() as u64, BLOCK);
    assert_eq!(origin.all_requests().len(), 0, "it goes on");

    fs::rename(&aside, &path).unwrap();
    is_lost(0.0).await;
    assert_eq!(notice(), None);
    fs::copy(&path, &aside).unwrap();
    fs::rename(&aside, &path).unwrap();
    is_lost(1.0).await;
    let (words, volumes) = status_of(&edge);
    let told = "volume was replaced: what was there at the start stays in use until the appliance ";
    assert!(volumes[0]["notice"].as_str().unwrap().contains(told), "{volumes}");
    assert_eq!(&volumes[0]["state"], "online");
    assert!(words.contains(told) && has_row(&words, "volume", "online"), "{words}");
}

#[test]
fn a_volume_that_is_made_is_told_of_and_one_that_was_there_before_is_warned_of() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("volume");
    let config = configuration(folder.path(), &[&path], "256 MiB");
    let said = |made: usize, missed: usize| {
        let said = served(&config);
        let count = |words: &str| said.iter().filter(|line| line.contains(words)).count();
        let new = format!("INFO volume volume was made, empty: {}, 256 MiB", path.display());
        let lost = "WARN volume volume was in use before, and its file ";
        assert_eq!((count(&new), count(lost)), (made, missed), "{said:#?}");
    };
    said(1, 0);
    said(0, 0);
    fs::remove_file(&path).unwrap();
    said(1, 1);
    // Who does not know does not warn.
    fs::remove_file(&path).unwrap();
    fs::remove_file(folder.path().join("state.json")).unwrap();
    said(1, 0);
}

#[test]
fn what_is_printed_of_a_new_volume_can_be_put_into_a_configuration() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().canonicalize().unwrap().join("volume");
    let there = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        let output = command.arg("volume").args(words).current_dir(folder.path()).output();
        let output = output.unwrap();
        (text(&output.stdout), text(&output.stderr))
    };
    let toml = format!("\n[[ssd.volumes]]\npath = {path:?}\n");
    let (made, _) = there(&["create", "volume", "--size", "256 MiB"]);
    assert!(made.ends_with(&toml), "{made}");
    let (formatted, _) = there(&["format", "volume", "--yes"]);
    assert!(formatted.ends_with(&toml), "{formatted}");
    let (_, refused) = there(&["create", "other", "--size", "1 MiB"]);
    let says = "--size is 1 MiB; a volume has at least 256 MiB and at most 64 TiB\n";
    assert_eq!(refused, says);
    let (_, refused) = there(&["create", "other", "--size", "200"]);
    assert!(refused.starts_with("--size is 200 B; "), "{refused}");
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
    let config = configuration(folder.path(), &[&path], "256 MiB");
    let advice = "is in use by another process; if that is the appliance, `tidegate status` shows";
    is_refused_at_last(&tidegate(&["serve", "--config", &config]), (1, advice));
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
    let config = configuration(folder.path(), &[&path], "4 TiB");
    let served = tidegate(&["serve", "--config", &config]);
    is_refused(&served, (64, "are free where it is to be"), "no space");
    let made = tidegate(&["volume", "create", name, "--size", "60 TiB"]);
    is_refused(&made, (1, "--size is 60 TiB, and "), "no space");
    let config = configuration(folder.path(), &[&path], "255 MiB");
    let served = tidegate(&["serve", "--config", &config]);
    is_refused(&served, (64, "at least \"256 MiB\""), "too small");
    let left: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["tidegate.toml"], "nothing is left behind");

    assert!(tidegate(&["volume", "create", name, "--size", "256 MiB"]).status.success());
    fs::set_permissions(&path, Permissions::from_mode(0o444)).unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
    let before = seen(&path);
    let wiped = unprivileged(folder.path(), &["volume", "wipe", name, "--yes"]);
    is_refused(&wiped, (1, "no permission to open"), "read-only");
    assert!(seen(&path) == before);
    assert!(unprivileged(folder.path(), &["volume", "verify", name]).status.success());
}

/// [`tidegate`] as somebody for whom permissions count.
fn unprivileged(folder: &Path, words: &[&str]) -> Output {
    as_nobody(folder, words).output().unwrap()
}

/// The same, not run yet.
pub(crate) fn as_nobody(folder: &Path, words: &[&str]) -> Command {
    // Where he can reach it, whoever built it.
    let binary = folder.join("tidegate");
    if !binary.exists() {
        fs::copy(env!("CARGO_BIN_EXE_tidegate"), &binary).unwrap();
    }
    let mut command = Command::new(binary);
    // Only root may become somebody else, and for root no permission counts.
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        command.uid(65_534).gid(65_534);
    }
    command.args(words);
    command
}
