//! Walks every command there is, from clap's own tree, so that none can be forgotten: what its help
//! says, whether its examples are understood, what it prints facts as, and its exit codes.

use std::fs;

use clap::{Arg, Command};

use super::*;

/// Whether a command tells of something that a program may want to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Prints {
    /// It has `--json`.
    Facts,
    /// It serves, or writes what is for another program anyway.
    Nothing,
}
use Prints::{Facts, Nothing};

/// Every command: whoever adds one says here what it prints and what words beside its name are the
/// least that it takes, with names of things that are not there.
const COMMANDS: &[(&str, Prints, &[&str])] = &[
    ("serve", Nothing, &[]),
    ("check", Facts, &["no/such.toml"]),
    ("doctor", Facts, &[]),
    ("status", Facts, &[]),
    ("explain", Facts, &["https://a/b"]),
    ("log", Facts, &[]),
    ("session", Facts, &["sid"]),
    ("top", Facts, &[]),
    ("usage", Facts, &[]),
    ("usage export", Facts, &["--key", "no/such.pem"]),
    ("usage verify", Facts, &["no/such.json", "--key", "no/such.pem"]),
    ("purge", Facts, &["https://a/b"]),
    ("reload", Facts, &[]),
    ("upgrade", Facts, &[]),
    ("drain", Facts, &[]),
    ("undrain", Facts, &[]),
    ("volume create", Facts, &["no/such.volume", "--size", "256 MiB"]),
    ("volume format", Facts, &["no/such.volume"]),
    ("volume inspect", Facts, &["no/such.volume"]),
    ("volume verify", Facts, &["no/such.volume"]),
    ("volume wipe", Facts, &["no/such.volume"]),
    ("volume forgive", Facts, &["no/such.volume"]),
    ("routes show", Facts, &[]),
    ("routes explain", Facts, &["192.0.2.7"]),
    ("routes diff", Facts, &["no/such.prefixes", "no/such.new"]),
    ("steer explain", Facts, &["--viewer", "192.0.2.7", "--path", "/a"]),
    ("token mint", Facts, &["https://a/b", "--keys", "no/such.json", "--issuer", "a"]),
    ("token verify", Facts, &["https://a/b", "--keys", "no/such.json"]),
    ("token explain", Facts, &["https://a/b"]),
    ("keys new", Facts, &["no/such/keys.json", "--issuer", "a"]),
    ("keys rotate", Facts, &["no/such.json", "--issuer", "a"]),
    ("keys list", Facts, &["no/such.json"]),
    ("keys retire", Facts, &["no/such.json", "--issuer", "a", "--id", "b"]),
    ("keys import", Facts, &["no/such.json", "--issuer", "a", "no/such.json"]),
    ("control", Nothing, &[]),
    ("control code", Facts, &["edge-7"]),
    ("control export", Facts, &[]),
    ("control import", Facts, &["no/such.json"]),
    ("control raise-epoch", Facts, &[]),
    ("enrol", Facts, &["--code", "00ff"]),
    ("completions", Nothing, &["bash"]),
    ("man", Nothing, &[]),
    #[cfg(feature = "demo")]
    ("demo", Facts, &[]),
];

/// Programs beside this one that an example may show.
const OTHERS: [&str; 3] = ["curl", "openssl", "systemctl"];
const COLUMNS_MAX: usize = 100;

fn row(name: &str) -> (Prints, Vec<String>) {
    let row = COMMANDS.iter().find(|(known, ..)| *known == name);
    let (_, prints, least) = row.unwrap_or_else(|| panic!("`{name}` is not in COMMANDS"));
    let names = std::iter::once("tidegate").chain(name.split(' '));
    (*prints, names.chain(least.iter().copied()).map(str::to_owned).collect())
}

/// Commands with subcommands, and those that do something, by their names.
struct Tree {
    parents: Vec<(String, Command)>,
    leaves: Vec<(String, Command)>,
}

fn tree() -> Tree {
    let mut root = CommandLine::command();
    root.build();
    let mut waiting = vec![(String::new(), root)];
    let mut tree = Tree { parents: Vec::new(), leaves: Vec::new() };
    while let Some((name, command)) = waiting.pop() {
        let below = command.get_subcommands().filter(|below| below.get_name() != "help");
        let below: Vec<_> = below
            .map(|below| (format!("{name} {}", below.get_name()).trim().to_owned(), below.clone()))
            .collect();
        match (below.is_empty(), command.is_subcommand_required_set()) {
            (false, true) => tree.parents.push((name, command)),
            // One with subcommands may do something by itself.
            _ => tree.leaves.push((name, command)),
        }
        waiting.extend(below);
    }
    tree
}

/// What stands under the help's list of options.
fn foot(command: &Command) -> String {
    let foot = command.get_after_long_help().or(command.get_after_help());
    foot.map(ToString::to_string).unwrap_or_default()
}

/// The lines under "Examples:", each without the words that explain it.
fn examples(command: &Command) -> Vec<String> {
    let foot = foot(command);
    let lines = foot.lines().skip_while(|line| *line != "Examples:").skip(1);
    let lines = lines.take_while(|line| line.starts_with("  "));
    lines.map(|line| line.trim().split("  ").next().unwrap_or_default().to_owned()).collect()
}

/// The words of an example as a shell would hand them over: without a variable that is set before
/// them, and up to where its output goes or its input is from.
fn shell_words(example: &str) -> Vec<String> {
    let words = shlex::split(example).unwrap_or_else(|| panic!("no shell reads {example:?}"));
    let is_variable = |word: &String| word.starts_with("TIDEGATE_") && word.contains('=');
    words
        .into_iter()
        .skip_while(is_variable)
        .take_while(|word| !["|", ">", "<"].contains(&word.as_str()))
        .collect()
}

fn has(command: &Command, option: &str) -> bool {
    command.get_arguments().any(|arg| arg.get_long() == Some(option))
}

fn code_of(words: &[String]) -> ExitCode {
    run_with(words.iter().map(OsString::from))
}

#[test]
fn every_command_says_what_it_does_in_words_that_fit() {
    let Tree { parents, leaves } = tree();
    assert!(leaves.len() >= COMMANDS.len());
    for (name, mut command) in parents.into_iter().chain(leaves) {
        assert!(command.get_about().is_some(), "`{name}` says not what it does");
        let is_silent = |arg: &&Arg| arg.get_help().is_none();
        let silent: Vec<_> = command.get_arguments().filter(is_silent).map(Arg::get_id).collect();
        assert!(silent.is_empty(), "`{name}`: {silent:?} say not what they are");
        let written = foot(&command);
        let shown = command.render_long_help().to_string();
        for line in written.lines().chain(shown.lines()) {
            assert!(line.chars().count() <= COLUMNS_MAX, "`{name}`: {line:?}");
        }
    }
}

#[test]
fn every_example_is_understood() {
    let Tree { parents, leaves } = tree();
    for (name, command) in parents.iter().chain(&leaves) {
        let examples = examples(command);
        let begins = |words: &[String]| words.join(" ").starts_with(&format!("tidegate {name}"));
        let mut own = 0;
        for example in &examples {
            let words = shell_words(example);
            if words.first().is_some_and(|first| OTHERS.contains(&first.as_str())) {
                continue;
            }
            let understood = CommandLine::command().try_get_matches_from(&words);
            assert!(understood.is_ok(), "`{name}`: {example:?}: {}", understood.unwrap_err());
            own += usize::from(begins(&words));
        }
        assert!(own > 0, "`{name}` has no example of itself");
    }
    // Who types `tidegate` alone sees each of them once.
    let (_, root) = parents.iter().find(|(name, _)| name.is_empty()).unwrap();
    for shown in root.get_subcommands().filter(|it| !it.is_hide_set() && it.get_name() != "help") {
        let start = format!("tidegate {}", shown.get_name());
        let has_example = examples(root).iter().any(|example| example.starts_with(&start));
        assert!(has_example, "`{start}` is not among the examples of `tidegate --help`");
    }
}

#[test]
fn every_command_that_prints_facts_prints_them_as_json_too() {
    for (name, command) in tree().leaves {
        let (prints, mut words) = row(&name);
        assert_eq!(has(&command, "json"), prints == Facts, "`{name}`: {prints:?}");
        let understood = |words: &[String]| CommandLine::try_parse_from(words).map(drop);
        assert_eq!(understood(&words).err().map(|e| e.to_string()), None, "`{name}`");
        if prints == Facts {
            words.push("--json".to_owned());
            assert_eq!(understood(&words).err().map(|e| e.to_string()), None, "`{name}`");
        }
    }
}

#[test]
fn every_command_ends_with_the_exit_code_of_what_happened() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    fs::write(&token, "0123456789abcdef").unwrap();
    // Bound and let go: nobody listens there.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let Tree { parents, leaves } = tree();
    for (name, command) in parents.iter().chain(&leaves) {
        let names: Vec<_> =
            format!("tidegate {name}").split_whitespace().map(str::to_owned).collect();
        let with = |words: &[String], more: &[&str]| {
            let more = more.iter().map(|&word| word.to_owned());
            code_of(&words.iter().cloned().chain(more).collect::<Vec<_>>())
        };
        assert_eq!(with(&names, &["--help"]), ExitCode::SUCCESS, "`{name}`");
        assert_eq!(with(&names, &["--no-such-option"]), ExitCode::from(MISUSED), "`{name}`");
        if command.is_subcommand_required_set() {
            assert_eq!(with(&names, &[]), ExitCode::from(MISUSED), "`{name}`");
            continue;
        }
        let (_, least) = row(name);
        if has(command, "config") {
            let code = with(&least, &["--config", "no/such.toml"]);
            assert_eq!(code, ExitCode::from(MISUSED), "`{name}` without a configuration");
        }
        if has(command, "admin") {
            let (free, token) = (free.to_string(), token.display().to_string());
            let shown: &[&str] = match has(command, "token-file") {
                true => &["--admin", &free, "--token-file", &token],
                false => &["--admin", &free],
            };
            assert_eq!(with(&least, shown), ExitCode::from(FAILED), "`{name}` of nobody");
        }
        if name.starts_with("volume ") {
            let state = folder.path().join("volumes.json").display().to_string();
            let shown: &[&str] = match has(command, "state") {
                true => &["--state", &state],
                false => &[],
            };
            assert_eq!(with(&least, shown), ExitCode::from(FAILED), "`{name}` of nothing");
        }
    }
}
