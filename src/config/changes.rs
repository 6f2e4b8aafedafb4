//! What another configuration changes, setting by setting, and from when on each change counts.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use toml::{Table, Value};

use super::{Config, SsdVolume};
use crate::site::Site;

/// What was written, by the full names of settings.
#[derive(Clone, Default)]
pub(super) struct Written(BTreeMap<String, String>);

/// Values may be secrets.
impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Written {
    /// Of a text that has been read without a fault.
    pub(super) fn of(text: &str) -> Written {
        let mut written = Written::default();
        for (name, value) in text.parse::<Table>().unwrap_or_default() {
            written.add(name, &value);
        }
        written
    }

    fn add(&mut self, name: String, value: &Value) {
        match value {
            Value::Table(table) => {
                for (key, value) in table {
                    self.add(format!("{name}.{key}"), value);
                }
            }
            Value::Array(elements) if elements.iter().any(Value::is_table) => {
                let names: Vec<String> = elements.iter().enumerate().map(called).collect();
                let apart = |(at, name): (usize, &String)| match names[..at]
                    .iter()
                    .filter(|one| *one == name)
                    .count()
                {
                    0 => name.clone(),
                    before => format!("{name} #{}", before + 1),
                };
                let called: Vec<String> = names.iter().enumerate().map(apart).collect();
                for (called, element) in called.iter().zip(elements) {
                    self.add(format!("{name}[{called}]"), element);
                }
                self.0.insert(name, format!("[{}]", called.join(", ")));
            }
            value => {
                self.0.insert(name, value.to_string());
            }
        }
    }
}

/// What tells an element of a list from the others, whichever place it has.
fn called((index, element): (usize, &Value)) -> String {
    let table = element.as_table();
    let name = table.and_then(|table| NAMES.iter().find_map(|name| table.get(*name)?.as_str()));
    name.map_or_else(|| format!("{}", index + 1), str::to_owned)
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The setting, such as `sites[film].rules[*.m3u8].lifetime`.
    pub setting: String,
    /// What was written; nothing where it was not. Never a secret.
    pub before: Option<String>,
    /// What is written now.
    pub after: Option<String>,
    /// From when on it counts.
    pub counts: Counts,
    /// What of it does not count at once, or not as it is written.
    pub but: Option<String>,
    /// Of sites: which have come and gone. All of them may be many.
    pub moves: Option<String>,
}

/// From when on a change counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counts {
    /// For whoever begins from now on.
    Now,
    /// Only a process that starts can do it.
    FromNextStart,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Change { setting, before, after, counts, but, moves } = self;
        match (before, after) {
            _ if let Some(moves) = moves => write!(f, "{setting}: {moves}")?,
            (Some(before), Some(after)) => write!(f, "{setting}: {before} -> {after}")?,
            (None, Some(after)) => write!(f, "{setting}: {after}, was not set")?,
            (Some(before), None) => write!(f, "{setting}: not set, was {before}")?,
            (None, None) => write!(f, "{setting}: another one")?,
        }
        match (counts, but) {
            (Counts::Now, None) => Ok(()),
            (Counts::Now, Some(but)) => write!(f, "; {but}"),
            (Counts::FromNextStart, _) => f.write_str(" (needs a restart)"),
        }
    }
}

impl Config {
    /// What differs in `next`, in the order of the settings' names. Sites that come and go do so
    /// with all that is said of them.
    pub fn changes_to(&self, next: &Config) -> Vec<Change> {
        let (was, is) = (&self.written.0, &next.written.0);
        let mut names: Vec<&String> = was.keys().chain(is.keys()).collect();
        names.sort_unstable();
        names.dedup();
        let [gone, come] =
            [(self, next), (next, self)].map(|(of, without)| of.sites_not_in(without));
        let moved: BTreeSet<&str> = gone.iter().chain(&come).copied().collect();
        let is_of_one = |name: &str| site_of(name).is_some_and(|site| moved.contains(site));
        let differ = names.into_iter().filter(|name| was.get(*name) != is.get(*name));
        let differ = differ.filter(|name| !is_of_one(name));
        let change = |name: &String| Change {
            setting: name.clone(),
            before: was.get(name).map(|value| shown(name, value)),
            after: is.get(name).map(|value| shown(name, value)),
            counts: counts(name),
            but: None,
            moves: moves(&gone, &come).filter(|_| name == SITES),
        };
        let mut changes: Vec<Change> = differ.map(change).collect();
        changes.extend(self.files_changed(next));
        changes
    }

    /// The volumes of `next` that are not in this one, if all of this one's are in `next` as they
    /// are here. The first ones come with a start, which begins a journal of purges with them.
    pub fn volumes_added_in(&self, next: &Config) -> Vec<SsdVolume> {
        let (was, is) = (&self.written.0, &next.written.0);
        let mut stay = was.iter().filter(|(name, _)| name.starts_with(OF_ONE_VOLUME));
        let is_more_of_one = |name: &String| {
            let of = name.rsplit_once("].").map_or("", |(of, _)| of);
            !was.contains_key(name) && was.contains_key(&format!("{of}].path"))
        };
        let mut of_one = is.keys().filter(|name| name.starts_with(OF_ONE_VOLUME));
        let others_stay = stay.all(|(name, value)| is.get(name) == Some(value))
            && !of_one.any(is_more_of_one)
            && !self.ssd.volumes.is_empty();
        let is_new = |one: &&SsdVolume| self.ssd.volumes.iter().all(|it| it.path != one.path);
        next.ssd.volumes.iter().filter(|one| others_stay && is_new(one)).cloned().collect()
    }

    /// With the volumes of `next`, and their index; all else is as it was. Those that come are the
    /// last ones, wherever they are written: so they are in the tier.
    pub fn with_volumes_of(&self, next: &Config) -> Config {
        let mut with = self.clone();
        let own = next.written.0.iter().filter(|(name, _)| is_of_volumes(name));
        with.written.0.retain(|name, _| !is_of_volumes(name));
        with.written.0.extend(own.map(|(name, value)| (name.clone(), value.clone())));
        for one in &mut with.ssd.volumes {
            let mut is = next.ssd.volumes.iter().filter(|is| is.path == one.path);
            // What was to be made is there by now.
            one.own_index_bytes =
                is.next().and_then(|is| is.own_index_bytes).or(one.own_index_bytes);
        }
        with.ssd.volumes.extend(self.volumes_added_in(next));
        with.ssd.index_bytes = next.ssd.index_bytes;
        with
    }

    fn sites_not_in(&self, other: &Config) -> Vec<&str> {
        let known: BTreeSet<&str> = other.sites.iter().map(|site| site.name.as_str()).collect();
        let names = self.sites.iter().map(|site| site.name.as_str());
        names.filter(|name| !known.contains(name)).collect()
    }

    /// The same names of files, and something else in them.
    fn files_changed(&self, next: &Config) -> Vec<Change> {
        let mut named: Vec<String> = Vec::new();
        for is in next.certificates.iter() {
            let mut before = self.certificates.iter().filter(|was| was.path == is.path);
            if before.next().is_some_and(|was| was.key.cert != is.key.cert) {
                named.push(format!("certificates[{}]", is.path.display()));
            }
        }
        for is in next.sites.iter() {
            let mut before = self.sites.iter().filter(|was| was.name == is.name);
            let roots = |site: &Site| -> Vec<_> {
                site.origins.iter().map(|one| (one.authority(), one.roots.clone())).collect()
            };
            let was = before.next().map(|was| roots(was)).unwrap_or_default();
            let other = |(name, is): &(String, _)| {
                was.iter().any(|(known, was)| known == name && was != is)
            };
            let is = roots(is).into_iter().filter(other);
            named.extend(is.map(|(name, _)| format!("authorities of the origin {name}")));
        }
        let of = |config: &Config| [config.admin.token.clone(), config.control_tokens()];
        let files = ["admin.token_file", "control.token_file"];
        for ((was, is), file) in of(self).iter().zip(of(next)).zip(files) {
            if *was != is && self.written.0.get(file) == next.written.0.get(file) {
                named.push(file.to_owned());
            }
        }
        let counts = Counts::Now;
        let change = |setting| {
            let (before, after, but, moves) = Default::default();
            Change { setting, before, after, counts, but, moves }
        };
        named.into_iter().map(change).collect()
    }
}

/// The site that a setting is of.
fn site_of(setting: &str) -> Option<&str> {
    let (site, _) = setting.strip_prefix(SITES)?.strip_prefix('[')?.split_once("].")?;
    Some(site)
}

fn moves(gone: &[&str], come: &[&str]) -> Option<String> {
    let gone = gone.iter().map(|site| format!("{site} removed"));
    let moves: Vec<String> = gone.chain(come.iter().map(|site| format!("{site} added"))).collect();
    (!moves.is_empty()).then(|| moves.join(", "))
}

/// Fields sent to origins may hold secrets, and so may the path of who receives the log.
fn shown(name: &str, value: &str) -> String {
    let is_secret = name.split('.').any(|part| SECRETS.contains(&part));
    match name {
        _ if is_secret => "\u{2026}".to_owned(),
        RECEIVER => without_path(value),
        _ => value.to_owned(),
    }
}

/// An `http` URL, in quotes, by scheme and authority alone.
fn without_path(value: &str) -> String {
    let authority = value.find("://").filter(|_| !value.contains(KAFKA)).map(|at| at + 3);
    let path = authority.and_then(|at| Some(at + value[at..].find(['/', '?', '#'])?));
    path.map_or_else(|| value.to_owned(), |path| format!("{}/\u{2026}\"", &value[..path]))
}

/// Whether a setting says which volumes there are.
pub fn is_of_volumes(name: &str) -> bool {
    name == "ssd.index" || name == "ssd.volumes" || name.starts_with(OF_ONE_VOLUME)
}

fn counts(name: &str) -> Counts {
    let section = name.split(['.', '[']).next().unwrap_or_default();
    let at_once = AT_ONCE.contains(&section) && !name.starts_with(SHIPPING);
    let of_control = name == "control.token_file" || name.starts_with(CONTROL_SHOWS);
    match at_once || of_control || name == "memory.ram" {
        true => Counts::Now,
        false => Counts::FromNextStart,
    }
}

/// How the names of settings begin that say what a control plane shows.
const CONTROL_SHOWS: &str = "control.certificate.";
/// The list of sites.
const SITES: &str = "sites";
/// How the names of settings of a volume begin.
const OF_ONE_VOLUME: &str = "ssd.volumes[";
/// Settings that name an element of a list.
const NAMES: [&str; 4] = ["name", "path", "url", "cert"];
/// Sections whose changes count at once.
const AT_ONCE: [&str; 9] =
    ["acme", "admin", "certificates", "limits", "log", "proxies", "routes", "sites", "steering"];
/// Begins of those that count when the spool is opened.
const SHIPPING: &str = "log.ship";
/// Who receives the log.
const RECEIVER: &str = "log.ship.url";
/// How that begins for brokers, whose path names a topic.
const KAFKA: &str = "kafka://";
/// Tables whose values are never shown.
const SECRETS: [&str; 2] = ["fields", "add"];

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn of_who_receives_the_log_no_path_is_shown() {
        for (written, expected) in [
            ("\"https://logs.test/in/s3cret\"", "\"https://logs.test/\u{2026}\""),
            ("'http://[::1]:80?k=s3cret'", "'http://[::1]:80/\u{2026}\""),
            ("\"https://logs.test\"", "\"https://logs.test\""),
            ("\"kafka://one:9092,two:9092/topic\"", "\"kafka://one:9092,two:9092/topic\""),
        ] {
            assert_eq!(shown("log.ship.url", written), expected);
        }
        let ship = |path| format!("log.ship.url = \"https://logs.test/{path}\"\n{BEFORE}");
        let [before, after] =
            ["s3cret-1", "s3cret-2"].map(|path| Config::from_toml(&ship(path), "t.toml").unwrap());
        let changes = before.changes_to(&after);
        let told: Vec<String> = changes.iter().map(Change::to_string).collect();
        assert!(told.len() == 1 && !told[0].contains("s3cret"), "{told:?}");
    }

    const BEFORE: &str = "
        listeners.http = [\"127.0.0.1:0\"]
        threads.workers = 1
        limits = { connections = 10, header_timeout = \"5s\" }
        [[sites]]
        name = \"film\"
        hosts = [\"film.test\"]
        origins = [\"http://one\"]
        [[sites.rules]]
        path = \"*.m3u8\"
        lifetime = { given = \"2s\" }
        request.add = { Authorization = \"Basic c2VjcmV0\" }
        [[sites.rules]]
        path = \"*.m4s\"
        keep = \"ram\"
    ";

    fn changes(edits: &[(&str, &str)]) -> Vec<String> {
        let after = edits.iter().fold(BEFORE.to_owned(), |text, (from, to)| {
            assert!(text.contains(from), "{from}");
            text.replace(from, to)
        });
        let [before, after] =
            [BEFORE, &after].map(|text| Config::from_toml(text, "test.toml").unwrap());
        before.changes_to(&after).iter().map(Change::to_string).collect()
    }

    #[test]
    fn of_a_control_plane_what_it_shows_and_its_tokens_need_no_start() {
        for (name, at_once) in [
            ("control.certificate.cert", true),
            ("control.certificate.key", true),
            ("control.token_file", true),
            ("control.listen", false),
            ("control.operators_ca", false),
        ] {
            assert_eq!(counts(name) == Counts::Now, at_once, "{name}");
        }
    }

    #[test]
    fn what_is_written_otherwise_and_means_the_same_is_no_change() {
        assert_eq!(changes(&[]), [""; 0]);
        let other = "[limits]\nheader_timeout = \"5s\"\nconnections = 10\n[threads]\nworkers = 1\n";
        let edits = [
            ("threads.workers = 1\n", ""),
            ("limits = { connections = 10, header_timeout = \"5s\" }\n", other),
        ];
        assert_eq!(changes(&edits), [""; 0]);
    }

    #[test]
    fn each_setting_is_named_with_what_it_was_and_when_it_counts() {
        let edits = [
            ("workers = 1", "workers = 2"),
            ("connections = 10", "connections = 11"),
            (", header_timeout = \"5s\"", ""),
            ("given = \"2s\"", "given = \"3s\", most = \"1m\""),
        ];
        assert_eq!(
            changes(&edits),
            [
                "limits.connections: 10 -> 11",
                "limits.header_timeout: not set, was \"5s\"",
                "sites[film].rules[*.m3u8].lifetime.given: \"2s\" -> \"3s\"",
                "sites[film].rules[*.m3u8].lifetime.most: \"1m\", was not set",
                "threads.workers: 1 -> 2 (needs a restart)",
            ]
        );
    }

    #[test]
    fn a_site_that_comes_or_goes_does_so_with_all_that_is_said_of_it() {
        let renamed = changes(&[("\"film\"", "\"movie\""), ("workers = 1", "workers = 2")]);
        let told =
            ["sites: film removed, movie added", "threads.workers: 1 -> 2 (needs a restart)"];
        assert_eq!(renamed, told);
        let rest = "[[sites]]\nname = \"film2\"\nhosts = \"b\"\norigins = \"http://b\"\n[[sites]]";
        let added = changes(&[("[[sites]]", rest), ("given = \"2s\"", "given = \"3s\"")]);
        let lifetime = "sites[film].rules[*.m3u8].lifetime.given: \"2s\" -> \"3s\"";
        assert_eq!(added, ["sites: film2 added", lifetime]);
    }

    #[test]
    fn a_secret_is_never_shown_and_an_order_counts() {
        let changed = changes(&[("c2VjcmV0", "b3RoZXI=")]);
        assert_eq!(changed.len(), 1);
        assert!(changed[0].ends_with("request.add.Authorization: \u{2026} -> \u{2026}"));
        let swapped = changes(&[("*.m3u8", "*.x"), ("*.m4s", "*.m3u8"), ("*.x", "*.m4s")]);
        assert!(
            swapped.contains(&"sites[film].rules: [*.m3u8, *.m4s] -> [*.m4s, *.m3u8]".to_owned()),
            "{swapped:?}"
        );
    }

    #[test]
    fn volumes_that_come_are_the_last_wherever_they_are_written() {
        let with = |paths: &[&str]| {
            let one = |path: &&str| {
                format!("[[ssd.volumes]]\npath = \"/tmp/none-{path}\"\nsize = \"1 GiB\"\n")
            };
            let text = BEFORE.to_owned() + &paths.iter().map(one).collect::<String>();
            Config::from_toml(&text, "test.toml").unwrap()
        };
        let (before, mut next) = (with(&["a"]), with(&["c", "a", "b"]));
        // It has been made since.
        next.ssd.volumes[1].own_index_bytes = Some(16);
        let now = before.with_volumes_of(&next);
        let names: Vec<_> = now.ssd.volumes.iter().map(|one| one.path.to_owned()).collect();
        assert_eq!(names, ["/tmp/none-a", "/tmp/none-c", "/tmp/none-b"].map(Path::new));
        let own: Vec<_> = now.ssd.volumes.iter().map(|one| one.own_index_bytes).collect();
        assert_eq!(own, [Some(16), None, None]);
    }
}
