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
