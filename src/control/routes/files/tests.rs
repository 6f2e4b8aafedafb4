//! Files that come, change, are wrong and go, as `reread` sees them.

use std::collections::BTreeMap;

use tempfile::TempDir;

use super::*;
use crate::control::routes::clusters::{Cluster, Uneven};

const CITY: &[u8] = include_bytes!("../../../../fuzz/seeds/places/city");
const DUMP: &[u8] = include_bytes!("../../../../fuzz/seeds/route_dump/rfc");

/// A folder of route files, and the routes of them.
struct Fixture {
    folder: TempDir,
    plan: Plan,
    routes: Routes,
    /// How often it was written: each time is a minute later than the one before.
    writes: u64,
}

impl Fixture {
    fn new() -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        Fixture { folder, plan: Plan::default(), routes: Routes::default(), writes: 0 }
    }

    /// A file of the plan.
    fn with(mut self, name: &str, format: Format, content: impl AsRef<[u8]>) -> Fixture {
        let path = self.folder.path().join(name);
        self.plan.files.push(RouteFile { path, format });
        self.write(name, content);
        self
    }

    fn with_database(mut self, name: &str, content: &[u8]) -> Fixture {
        self.plan.databases.push(self.folder.path().join(name));
        self.write(name, content);
        self
    }

    fn write(&mut self, name: &str, content: impl AsRef<[u8]>) {
        self.writes += 1;
        let path = self.folder.path().join(name);
        fs::write(&path, content).unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(self.now()).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.folder.path().join(name)).unwrap();
    }

    /// When it was written last.
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + 60 * self.writes)
    }

    fn look(&self) -> Outcome {
        self.routes.reread(&self.plan, self.now() + Duration::from_secs(30))
    }

    /// Files that are used, kept, held, unused.
    fn states(&self) -> [u64; 4] {
        self.routes.figures(self.now()).files
    }

    fn names(&self, viewer: &str) -> Vec<String> {
        let table = self.routes.table();
        let candidates = table.announced(viewer.parse().unwrap());
        candidates.iter().map(|one| one.name.to_owned()).collect()
    }
}

/// Routes that came, went and changed.
fn counts(outcome: &Outcome) -> Option<(u64, u64, u64)> {
    outcome.difference.as_ref().map(|one| (one.came, one.gone, one.changed))
}

fn refusals(fixture: &Fixture, outcome: &Outcome) -> Vec<String> {
    let folder = fixture.folder.path().display().to_string() + "/";
    outcome.refused.iter().map(|one| one.to_string().replace(&folder, "")).collect()
}

#[test]
fn a_file_that_changes_is_read_again_and_the_others_are_carried_over() {
    let mut fixture = Fixture::new()
        .with("ours", Format::Prefixes, "10.0.0.0/8 a\n11.0.0.0/8 a b med=3\n")
        .with("others", Format::Mrt { boxes: vec!["c".into()] }, DUMP);
    let outcome = fixture.look();
    assert_eq!((outcome.read, counts(&outcome)), (2, Some((5, 0, 0))));
    assert_eq!(fixture.names("203.0.113.9"), ["c"]);
    let first = fixture.routes.table();

    let outcome = fixture.look();
    assert_eq!((outcome.read, counts(&outcome)), (0, None), "nothing changed");
    assert!(Arc::ptr_eq(&first, &fixture.routes.table()));

    fixture.write("ours", "10.0.0.0/8 b\n12.0.0.0/8 a\n");
    let outcome = fixture.look();
    assert_eq!((outcome.read, counts(&outcome)), (1, Some((1, 1, 1))));
    assert_eq!((fixture.names("10.1.1.1"), fixture.names("11.1.1.1")), (vec!["b".into()], vec![]));
    assert_eq!(fixture.names("203.0.113.9"), ["c"], "carried over");
    let source = fixture.routes.table();
    let source = source.announced("203.0.113.9".parse().unwrap())[0].source.to_owned();
    assert!(source.ends_with("/others"), "{source}");
    let was = first.announced("11.1.1.1".parse().unwrap()).len();
    assert_eq!(was, 2, "who looks up in the table before finds what was there");
}

#[test]
fn a_file_that_is_refused_leaves_what_it_told_and_is_told_once() {
    let mut fixture = Fixture::new().with("ours", Format::Prefixes, "10.0.0.0/8 a\n").with(
        "wrong",
        Format::Prefixes,
        "11.0.0.0/8\n",
    );
    let outcome = fixture.look();
    assert_eq!(
        refusals(&fixture, &outcome),
        ["\"wrong\": line 1: names no box; a line is like `192.0.2.0/24 box1 box2`; nothing of \
             it is used"]
    );
    assert_eq!(counts(&outcome), Some((1, 0, 0)), "the other file is used");

    let before = fixture.routes.table();
    fixture.write("ours", "10.0.0.0/8 b\n0.0.0.0/0 b\n");
    let outcome = fixture.look();
    let told = refusals(&fixture, &outcome);
    assert!(told[0].starts_with("\"ours\": 0.0.0.0/0 is the default route"), "{told:?}");
    assert!(told[0].ends_with("; what it told before stays"), "{told:?}");
    assert_eq!((told.len(), counts(&outcome)), (1, None));
    assert!(Arc::ptr_eq(&before, &fixture.routes.table()));
    assert_eq!(fixture.look().refused.len(), 0, "it is told once");

    // Another file changes: what is kept of the refused one is carried over.
    fixture.write("wrong", "11.0.0.0/8 c\n");
    assert_eq!(counts(&fixture.look()), Some((1, 0, 0)));
    assert_eq!(fixture.names("10.1.1.1"), ["a"]);
    fixture.write("ours", "10.0.0.0/8 b\n");
    assert_eq!(counts(&fixture.look()), Some((0, 0, 1)));

    assert_eq!(fixture.states(), [2, 0, 0, 0]);
    fixture.write("ours", "0.0.0.0/0 b\n");
    fixture.look();
    assert_eq!(fixture.states(), [1, 1, 0, 0]);
}

#[test]
fn what_a_file_told_that_is_gone_is_held_for_a_while_and_then_withdrawn() {
    let mut fixture = Fixture::new().with("ours", Format::Prefixes, "10.0.0.0/8 a\n").with(
        "others",
        Format::Prefixes,
        "11.0.0.0/8 a\n",
    );
    fixture.plan.hold = Duration::from_secs(120);
    fixture.look();
    fixture.remove("ours");
    let told = refusals(&fixture, &fixture.look());
    assert!(told[0].starts_with("\"ours\": cannot be read: No such file"), "{told:?}");
    assert!(told[0].ends_with("; what it told before stays for 120 s"), "{told:?}");
    assert_eq!((fixture.names("10.1.1.1"), fixture.look().refused.len()), (vec!["a".into()], 0));
    assert_eq!(fixture.states(), [1, 0, 1, 0]);

    // It comes back in time: what it tells then counts, and the time begins anew.
    fixture.write("ours", "10.0.0.0/8 b\n");
    assert_eq!(counts(&fixture.look()), Some((0, 0, 1)));
    fixture.remove("ours");
    fixture.look();
    fixture.writes += 1;
    assert_eq!((fixture.look().withdrawn.len(), fixture.names("10.1.1.1").len()), (0, 1));
    fixture.writes += 1;
    let outcome = fixture.look();
    assert_eq!((outcome.withdrawn.len(), outcome.refused.len()), (1, 0));
    assert_eq!(counts(&outcome), Some((0, 1, 0)));
    assert_eq!((fixture.names("10.1.1.1").len(), fixture.names("11.1.1.1").len()), (0, 1));
    assert_eq!((fixture.look().withdrawn.len(), fixture.states()), (0, [1, 0, 0, 1]));
    fixture.write("ours", "10.0.0.0/8 c\n");
    assert_eq!(counts(&fixture.look()), Some((1, 0, 0)), "it is read when it is there again");
}

#[test]
fn what_a_dump_told_that_tells_nothing_any_more_is_held_for_a_while_and_then_withdrawn() {
    let boxes = vec!["a".into()];
    let mut fixture = Fixture::new().with("dump", Format::Mrt { boxes }, DUMP).with(
        "ours",
        Format::Prefixes,
        "11.0.0.0/8 b\n",
    );
    fixture.plan.hold = Duration::from_secs(120);
    fixture.look();
    // Its router has lost all of its neighbours; others go on.
    fixture.write("dump", "");
    let told = refusals(&fixture, &fixture.look());
    assert!(told[0].ends_with("; what it told before stays for 120 s"), "{told:?}");
    assert_eq!((fixture.names("203.0.113.9"), fixture.states()), (vec!["a".into()], [1, 0, 1, 0]));
    // It comes back in time, and the time begins anew.
    fixture.write("dump", DUMP);
    assert_eq!((fixture.look().read, fixture.states()), (1, [2, 0, 0, 0]));
    fixture.write("dump", "");
    fixture.look();
    // Another dump that tells nothing either is not news.
    fixture.write("dump", "");
    let outcome = fixture.look();
    assert_eq!((outcome.withdrawn.len(), fixture.names("203.0.113.9").len()), (0, 1));
    fixture.writes += 1;
    let outcome = fixture.look();
    assert_eq!((outcome.withdrawn.len(), outcome.refused.len()), (1, 0));
    assert_eq!((fixture.names("203.0.113.9").len(), fixture.names("11.1.1.1").len()), (0, 1));
    assert_eq!((fixture.look().withdrawn.len(), fixture.states()), (0, [1, 0, 0, 1]));
    fixture.write("dump", DUMP);
    assert_eq!((fixture.look().read, fixture.names("203.0.113.9")), (1, vec!["a".into()]));
    // Of a file that people write nothing is no news of the network.
    fixture.write("ours", "");
    fixture.look();
    fixture.writes += 10;
    assert_eq!((fixture.look().withdrawn.len(), fixture.states()), (0, [1, 1, 0, 0]));
}

#[test]
fn what_all_files_tell_together_is_bounded_whichever_of_them_grows() {
    let line = |n: usize| format!("10.0.{n}.0/24 a\n");
    let lines = |range: std::ops::Range<usize>| range.map(line).collect::<String>();
    let mut fixture = Fixture::new().with("one", Format::Prefixes, lines(0..4)).with(
        "two",
        Format::Prefixes,
        lines(10..14),
    );
    fixture.plan.guards.all_max = 10;
    assert_eq!(counts(&fixture.look()), Some((8, 0, 0)));
    // With what the other one told before, which is carried over, it is one too many.
    fixture.write("one", lines(0..7));
    let told = refusals(&fixture, &fixture.look());
    assert!(told[0].starts_with("\"one\": brings all sources to more than"), "{told:?}");
    assert_eq!(fixture.routes.table().prefixes(), 8);
    fixture.write("one", lines(0..6));
    assert_eq!(counts(&fixture.look()), Some((2, 0, 0)));
    fixture.write("two", lines(10..15));
    assert_eq!(fixture.look().refused.len(), 1);
    fixture.write("one", lines(0..5));
    fixture.write("two", lines(10..15));
    assert_eq!(fixture.look().refused.len(), 0, "one makes room for the other");
    assert_eq!(fixture.routes.table().prefixes(), 10);
}

#[test]
fn what_guards_forbid_is_asked_again_when_they_change() {
    let mut fixture = Fixture::new().with("ours", Format::Prefixes, "10.0.0.0/8 a\n11.0.0.0/8 a\n");
    fixture.plan.guards.routes_max = 1;
    let told = refusals(&fixture, &fixture.look());
    assert!(told[0].starts_with("\"ours\": tells more than 1 routes"), "{told:?}");
    fixture.plan.guards.routes_max = 2;
    assert_eq!(counts(&fixture.look()), Some((2, 0, 0)));
}

#[test]
fn what_a_file_told_goes_with_it_when_it_is_taken_out_of_the_plan() {
    let mut fixture = Fixture::new().with("ours", Format::Prefixes, "10.0.0.0/8 a\n").with(
        "others",
        Format::Prefixes,
        "11.0.0.0/8 a\n",
    );
    fixture.look();
    fixture.plan.files.remove(0);
    assert_eq!(counts(&fixture.look()), Some((0, 1, 0)));
    assert_eq!(fixture.names("11.1.1.1"), ["a"]);
    fixture.plan.files.clear();
    assert_eq!(counts(&fixture.look()), Some((0, 1, 0)));
    assert_eq!(counts(&fixture.look()), None);
}

#[test]
fn a_file_that_is_being_written_waits_until_it_is_written() {
    let mut fixture = Fixture::new().with("dump", Format::Prefixes, "10.0.0.0/8 a\n");
    let at_once = fixture.routes.reread(&fixture.plan, fixture.now());
    assert_eq!(at_once.read, 1, "what there is is better than nothing");
    fixture.write("dump", "10.0.0.0/8 b\n");
    let second = Duration::from_secs(1);
    assert_eq!(fixture.routes.reread(&fixture.plan, fixture.now() + second).read, 0);
    assert_eq!(fixture.names("10.1.1.1"), ["a"]);
    assert_eq!(fixture.routes.reread(&fixture.plan, fixture.now() + 2 * second).read, 1);
    assert_eq!(fixture.names("10.1.1.1"), ["b"]);
}

#[test]
fn databases_say_whose_addresses_are_in_no_prefix() {
    let mut fixture = Fixture::new().with(
        "ours",
        Format::Prefixes,
        "192.0.2.0/25 near\nDE country\nAS64500 as\nFR six\n",
    );
    let notices = fixture.look().notices;
    assert!(notices[0].starts_with("routes are for ASes or countries, and no database"));
    assert_eq!(fixture.names("192.0.2.1"), ["near"]);

    fixture = fixture.with_database("city", CITY);
    let outcome = fixture.look();
    assert_eq!((outcome.read, outcome.notices.len()), (1, 0));
    assert_eq!(fixture.names("192.0.2.1"), ["near", "country"]);
    assert_eq!(fixture.names("2001:db8::1"), ["six"]);

    fixture.write("city", "no database");
    let told = refusals(&fixture, &fixture.look());
    assert!(told[0].starts_with("\"city\": is no database in the format MMDB"), "{told:?}");
    assert!(told[0].ends_with("what it told before stays"), "{told:?}");
    assert_eq!(fixture.names("192.0.2.200"), ["country"]);
    assert_eq!(fixture.look().refused.len(), 0, "it is told once");
}

#[test]
fn clusters_that_are_told_different_things_are_told_of() {
    let mut fixture = Fixture::new()
        .with("one", Format::Mrt { boxes: vec!["fra-1".into()] }, DUMP)
        .with("two", Format::Prefixes, "198.51.100.0/24 fra-2\n203.0.112.0/23 fra-2\n");
    fixture.plan.clusters =
        vec![Cluster { name: "fra".into(), boxes: vec!["fra-1".into(), "fra-2".into()] }];
    let outcome = fixture.look();
    let told: Vec<String> = outcome.uneven.iter().map(Uneven::to_string).collect();
    assert_eq!(
        told,
        ["cluster `fra`: `fra-2` does not announce 1 that others of it do, the first \
          2001:db8::/32; all boxes of a cluster must be told the same"]
    );
}

#[test]
fn what_is_no_file_or_too_long_is_not_read() {
    let mut fixture =
        Fixture::new().with("long", Format::CoverageZones { boxes: BTreeMap::new() }, "");
    let long = File::options().write(true).open(fixture.folder.path().join("long")).unwrap();
    long.set_len(COVERAGE_ZONES_BYTES_MAX + 1).unwrap();
    let path = fixture.folder.path().to_owned();
    fixture.plan.files.push(RouteFile { path, format: Format::Prefixes });
    let told = refusals(&fixture, &fixture.look());
    assert!(told[0].starts_with("\"long\": has more than 134217728 bytes"), "{told:?}");
    assert!(told[1].contains("it is no regular file"), "{told:?}");
}
