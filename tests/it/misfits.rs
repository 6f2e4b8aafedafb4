//! A volume that is not what the configuration says, or that this user may not write: what it is
//! taken for, and that one line says what to do about it.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::left_out::{as_nobody, configuration, line_of, served};
use crate::support::{Edge, Origin, text, tidegate};

const MIB: u64 = 1 << 20;

fn make(path: &Path, size: &str) {
    let made = tidegate(&["volume", "create", path.to_str().unwrap(), "--size", size]);
    assert!(made.status.success(), "{}", text(&made.stderr));
}

fn set_len(path: &Path, mib: u64) {
    OpenOptions::new().write(true).open(path).unwrap().set_len(mib * MIB).unwrap();
}

/// What `check` says of a configuration that it takes for right.
fn checked(config: &str) -> serde_json::Value {
    let told = tidegate(&["check", config, "--json"]);
    assert!(told.status.success(), "{}", text(&told.stderr));
    serde_json::from_slice(&told.stdout).unwrap()
}

fn warnings(checked: &serde_json::Value) -> Vec<&str> {
    let all = checked["warnings"].as_array().unwrap();
    all.iter().map(|warning| warning.as_str().unwrap()).collect()
}

#[test]
fn a_volume_has_the_size_it_was_made_with_whatever_its_file_and_the_settings_say() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("volume");
    let name = path.display();
    let anew = format!("; `tidegate volume format {name}` makes it anew in ");
    let aside = |size: &str| {
        format!("; write {size}, or remove {name} to have it made anew, empty, in the new size")
    };
    let keeps = "and the volume keeps 300 MiB, as it was made";
    let table = [
        (512, "512 MiB", format!("`ssd.volumes.size` is \"512 MiB\", {keeps}{anew}512 MiB")),
        (300, "512 MiB", format!("is \"512 MiB\", {keeps}{}", aside("\"300 MiB\""))),
        (300, "256 MiB", format!("is \"256 MiB\", {keeps}{}", aside("\"300 MiB\""))),
        (512, "256 MiB", format!("is \"256 MiB\", {keeps}{}", aside("\"300 MiB\""))),
        (512, "300 MiB", format!("there are 512 MiB, {keeps}{anew}512 MiB")),
        (300, "300 MiB", String::new()),
    ];
    make(&path, "300 MiB");
    for (file_mib, size, says) in table {
        set_len(&path, file_mib);
        let config = configuration(folder.path(), &[&path], size);
        let told = checked(&config);
        let volume = &told["ssd"]["volumes"][0];
        for (what, is) in [("size", 300 * MIB), ("writes_per_day", 300 * MIB), ("weight", 300)] {
            assert_eq!(volume[what], is, "{file_mib} {size}: {volume}");
        }
        assert!(volume["left_out"].is_null(), "{volume}");
        let told = warnings(&told);
        assert_eq!(told.len(), usize::from(!says.is_empty()), "{file_mib} {size}: {told:?}");
        assert!(told.iter().all(|one| one.contains(&says)), "{says}: {told:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_enlarged_file_is_served_and_shown_as_the_volume_it_holds() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    let path = folder.path().join("volume");
    make(&path, "256 MiB");
    set_len(&path, 512);
    let edge = Edge::in_front_of(&origin)
        .setting("memory.total", "256 MiB")
        .volume_with(&format!("path = {path:?}\nsize = \"512 MiB\"\nwrites_per_day = \"1x\""))
        .start();
    let own = (256 * MIB) as f64;
    for metric in ["tidegate_ssd_size_bytes", "tidegate_ssd_writes_per_day_bytes"] {
        assert_eq!(edge.metric(metric, &[]).await, own, "{metric}");
    }
    drop(edge);
    let config = configuration(folder.path(), &[&path], "512 MiB");
    let process = crate::support::Process::start(Path::new(&config)).stop();
    let said: Vec<_> = process.iter().filter(|line| line.contains("keeps 256 MiB, as")).collect();
    assert!(said.len() == 1 && said[0].contains(" WARN "), "{process:#?}");
}

#[test]
fn what_is_wrong_is_told_with_the_whole_command_and_without_a_word_about_sizes() {
    let folder = TempDir::new().unwrap();
    let below = folder.path().join("a folder");
    fs::create_dir(&below).unwrap();
    let [path, copy] = ["volume", "copy"].map(|name| below.join(name));
    make(&path, "300 MiB");
    fs::copy(&path, &copy).unwrap();
    let config = configuration(folder.path(), &[&path, &copy], "300 MiB");
    let told = checked(&config);
    let whole = |path: &Path| format!("`tidegate volume format '{}'`", path.display());
    assert!(warnings(&told)[0].ends_with(&whole(&copy)), "{told}");
    line_of(&served(&config), "copy", &format!("left out until the next start: {}", "it is a "));

    set_len(&path, 270);
    let config = configuration(folder.path(), &[&path], "300 MiB");
    let told = checked(&config);
    assert_eq!(warnings(&told).len(), 1, "{told}");
    assert!(warnings(&told)[0].ends_with(&whole(&path)), "{told}");
    let said = served(&config);
    assert_eq!(said.iter().filter(|line| line.contains("WARN")).count(), 0, "{said:#?}");
    assert!(said.iter().any(|line| line.ends_with(&whole(&path))), "{said:#?}");
    let told = tidegate(&["volume", "inspect", path.to_str().unwrap()]);
    assert!(text(&told.stderr).contains(&whole(&path)), "{}", text(&told.stderr));
}

#[test]
fn nobody_is_advised_to_remove_what_was_no_volume() {
    let folder = TempDir::new().unwrap();
    let config = configuration(folder.path(), &[], "");
    for command in ["inspect", "verify", "forgive", "wipe", "format"] {
        let told = text(&tidegate(&["volume", command, &config]).stderr);
        assert!(told.contains(" bytes, which is no volume"), "{command}: {told}");
        assert!(!told.contains("remove") && !told.contains("anew"), "{command}: {told}");
    }
}

/// What a start says, as somebody for whom permissions count, until it accepts.
fn served_as_nobody(folder: &Path, config: &str) -> String {
    let mut command = as_nobody(folder, &["serve", "--config", config]);
    let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut said = String::new();
    for line in BufReader::new(child.stderr.take().unwrap()).lines() {
        said += &(line.unwrap() + "\n");
        if said.contains("admin at") {
            break;
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    said
}

#[test]
fn a_volume_that_this_user_may_not_write_is_left_out_and_the_others_serve() {
    let folder = TempDir::new().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
    let [path, well] = ["volume", "well"].map(|name| folder.path().join(name));
    make(&path, "256 MiB");
    fs::set_permissions(&path, Permissions::from_mode(0o444)).unwrap();
    let config = configuration(folder.path(), &[&path, &well], "256 MiB");
    let told = as_nobody(folder.path(), &["check", &config]).output().unwrap();
    assert!(told.status.success(), "{}", text(&told.stderr));
    let told = text(&told.stdout);
    let says = "which this user may not write (permission denied): let it, by mode or owner; the \
                appliance serves without it";
    assert!(told.contains(says) && told.contains("volume  not writable"), "{told}");
    let said = served_as_nobody(folder.path(), &config);
    let out = "ERROR volume volume is left out until the next start: no permission to open ";
    assert!(said.contains(out) && said.contains("http at 127.0.0.1:"), "{said}");
    assert!(said.contains("; let this user read and write it, by mode or owner"), "{said}");
    assert!(!said.contains("volume well is left out"), "{said}");
}

#[test]
fn a_new_file_without_room_is_refused_unless_it_was_there_before() {
    let folder = TempDir::new().unwrap();
    let [path, well] = ["volume", "well"].map(|name| folder.path().join(name));
    // More than there is anywhere.
    let config = configuration(folder.path(), &[&well, &path], "256 MiB");
    let large = fs::read_to_string(&config).unwrap();
    let (first, last) = large.rsplit_once("256 MiB").unwrap();
    fs::write(&config, format!("{first}4 TiB{last}")).unwrap();
    for words in [&["check", &config][..], &["serve", "--config", &config]] {
        let told = tidegate(words);
        assert_eq!(told.status.code(), Some(64), "{}", text(&told.stderr));
        assert!(text(&told.stderr).contains(" are free where it is to be"));
    }
    let known = format!("{{\"volumes\": {{}}, \"paths\": [{path:?}]}}");
    fs::write(folder.path().join("state.json"), known).unwrap();
    let told = checked(&config);
    assert_eq!(warnings(&told).len(), 1, "{told}");
    let says = "which was in use before and cannot be made anew (";
    assert!(warnings(&told)[0].contains(says), "{told}");
    assert!(warnings(&told)[0].contains("mount its file system"), "{told}");
    let said = served(&config);
    line_of(&said, "volume", "left out until the next start: ");
    assert!(!said.iter().any(|line| line.contains("volume well is left out")), "{said:#?}");
}

#[test]
fn a_state_file_that_cannot_be_written_is_warned_of() {
    let folder = TempDir::new().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
    let below = folder.path().join("below");
    fs::create_dir(&below).unwrap();
    let config = configuration(folder.path(), &[&folder.path().join("volume")], "256 MiB");
    let told = |config: &str| {
        let told = as_nobody(folder.path(), &["check", config]).output().unwrap();
        assert!(told.status.success(), "{}", text(&told.stderr));
        text(&told.stdout)
    };
    assert!(!told(&config).contains("warnings"), "{}", told(&config));
    let state = below.join("state.json").display().to_string();
    let old = folder.path().join("state.json").display().to_string();
    let elsewhere = fs::read_to_string(&config).unwrap().replace(&old, &state);
    fs::write(&config, elsewhere).unwrap();
    fs::set_permissions(&below, Permissions::from_mode(0o555)).unwrap();
    let told = told(&config);
    let says = format!("`ssd.state` {state} cannot be written by this user (permission denied): ");
    assert!(told.contains(&says), "{told}");
}

#[test]
fn the_demo_says_that_its_port_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (words, stdout) in [(&[][..], true), (&["--json"], false)] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args([&["demo", "--port", &port], words].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut said = String::new();
        while !said.contains("\"page\"") && !said.contains("Ctrl-C") {
            assert!(out.read_line(&mut said).unwrap() > 0, "{said}");
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let mut err = String::new();
        child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        let told = if stdout { &said } else { &err };
        assert!(told.contains(&format!("ort {port} is taken")), "{said}\n{err}");
        // On its admin listener, which is at a port of its own.
        let page = said.lines().find(|line| line.contains("The status page"));
        let page = page.map(|line| line.contains("   http://localhost:") && line.ends_with('/'));
        assert_eq!(page, stdout.then_some(true), "{said}");
    }
}

#[test]
fn the_help_of_check_says_that_volumes_left_out_are_warnings() {
    let told = text(&tidegate(&["check", "--help"]).stdout);
    assert!(told.contains("A volume that would be left out is a warning; exit code 0."), "{told}");
}

#[test]
fn a_volume_that_is_not_as_it_was_written_is_exit_code_1_of_inspect_too() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("volume");
    make(&path, "256 MiB");
    let inspect = |words: &[&str]| {
        tidegate(&[&["volume", "inspect", path.to_str().unwrap()], words].concat())
    };
    assert_eq!(inspect(&[]).status.code(), Some(0));
    use std::os::unix::fs::FileExt;
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(b"X", 4096 + 100).unwrap();
    for words in [&[][..], &["--json"]] {
        let told = inspect(words);
        assert_eq!(told.status.code(), Some(1), "{}", text(&told.stdout));
        assert!(text(&told.stdout).contains("superblock"), "{}", text(&told.stdout));
        let line = format!("{}: one thing is wrong\n", path.display());
        assert_eq!(text(&told.stderr), line);
    }
}
