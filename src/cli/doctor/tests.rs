//! What is chosen and told; and what the tests of each check are given.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use clap::Parser;
use tempfile::TempDir;

use super::finding::State;
use super::*;

/// One listener on a port of the system's choice, one site with two hosts and one origin, and what
/// `settings` add at the top.
pub(super) fn configured(settings: &str) -> Config {
    let sites = "[[sites]]\nname = 'media'\nhosts = ['media.test', 'other.test']\n\
                 origins = ['http://127.0.0.1:9']\n";
    // Settings end with tables, which dotted keys cannot follow.
    let text =
        format!("listeners.http = ['127.0.0.1:0']\nmemory.ram = '64 MiB'\n{settings}\n{sites}");
    Config::from_toml(&text, "t.toml").unwrap_or_else(|errors| panic!("{errors}\nin\n{text}"))
}

pub(super) fn subject(settings: &str, root: Root) -> Subject {
    Subject {
        config: configured(settings),
        root,
        cores: 2,
        allowed_bytes: None,
        now: SystemTime::now(),
        paths: Vec::new(),
        resolve: BTreeMap::new(),
    }
}

/// A folder with these files; they end with it.
pub(super) fn with(files: &[(&str, &str)]) -> (TempDir, Root) {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let root = Root::at(folder.path());
    (folder, root)
}

pub(super) fn states(findings: &[Finding]) -> Vec<State> {
    findings.iter().map(|finding| finding.state).collect()
}

/// A program of the machine whose root is `folder`, written in shell.
pub(super) fn program(folder: &Path, path: &str, script: &str) {
    let path = folder.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

fn parsed(words: &[&str]) -> Result<Args, clap::Error> {
    Line::try_parse_from([&["doctor"], words].concat()).map(|line| line.args)
}

#[test]
fn checks_are_chosen_by_only_and_skip_and_named_as_they_are_told() {
    for check in Check::value_variants() {
        assert_eq!(check.to_possible_value().unwrap().get_name(), check.name());
    }
    let all = Check::value_variants().len();
    assert_eq!(chosen(&parsed(&[]).unwrap()).len(), all);
    assert_eq!(chosen(&parsed(&["--skip", "nic,disks"]).unwrap()).len(), all - 2);
    let only = parsed(&["--only", "origins,io-uring"]).unwrap();
    assert_eq!(chosen(&only), [Check::IoUring, Check::Origins]);
    assert!(parsed(&["--only", "cable"]).is_err());
    assert!(parsed(&["--path", "film"]).is_err());
    assert_eq!(parsed(&["--path", "/a", "--path", "https://a.test/b"]).unwrap().paths.len(), 2);
    assert!(parsed(&["--resolve", "a.test"]).is_err());
    let resolved = parsed(&["--resolve", "A.test=127.0.0.1,::1"]).unwrap().resolve;
    assert_eq!(resolved[0].0, "a.test");
    assert_eq!(resolved[0].1.len(), 2);
}

#[test]
fn each_warning_of_the_configuration_is_told_once() {
    let found = warnings(&configured(""), SystemTime::now());
    assert_eq!((found.len(), found[0].state), (1, State::Ok), "{found:?}");
    let rules = "[[sites]]\nname = 'a'\nhosts = ['a.test']\norigins = ['http://127.0.0.1:9']\n\
                 [[sites.rules]]\npath = '**'\n[[sites.rules]]\npath = '*.m4s'\n";
    let found = warnings(&configured(rules), SystemTime::now());
    assert_eq!((found.len(), found[0].state), (1, State::Warn));
    assert!(found[0].found.contains("is never reached"), "{found:?}");
}
