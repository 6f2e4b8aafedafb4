//! What purges leave of heads, and what of them is bounded.

use std::fs;
use std::path::Path;

use super::*;
use crate::limits::{PURGE_PREFIXES_PER_SITE_MAX, PURGES_HELD_MAX};
use crate::message::fuzz::tests::seeds;
use crate::object::SiteId;
use crate::site::Sites;

/// Every purge of one number after another, on a table alone.
fn table_of(scopes: impl IntoIterator<Item = (Scope, Hardness)>) -> Table {
    let mut table = Table::default();
    for (number, (scope, hardness)) in (1..).zip(scopes) {
        let is_fold = scope.kind() == Kind::Fold;
        let at_seconds = if is_fold { table::UNKNOWN_SINCE } else { 100 + number };
        table.apply(&table::Purge { number, at_seconds, scope, hardness });
    }
    table
}

fn covered(table: &Table, path: &str, tags: &Tags, born: u64) -> Covered {
    let key = ObjectKey::new(SiteId(0), path);
    table.covers(scope::site_hash("film"), &key, tags, born)
}

const SOFT: Hardness = Hardness::Soft;
const ENDS_WITHIN: Duration = Duration::from_secs(20);
const HARD: Hardness = Hardness::Hard;

#[test]
fn a_purge_covers_what_was_born_before_it_and_nothing_younger() {
    let red = Tags::recorded(vec![scope::tag_hash(b"red")], false);
    let many = Tags::recorded(Vec::new(), true);
    let none = Tags::default();
    let prefix = |prefix: &str| Scope::prefix("film", prefix).unwrap();
    for (scope, path, tags, is_covered) in [
        (Scope::site("film"), "/a", &none, true),
        (Scope::site("other"), "/a", &none, false),
        (Scope::object("film", "/a"), "/a", &none, true),
        (Scope::object("film", "/a"), "/a?b", &none, false),
        (Scope::object("film", "/a?b"), "/a?b", &none, true),
        (Scope::object("other", "/a"), "/a", &none, false),
        (prefix("/a/b"), "/a/b", &none, true),
        (prefix("/a/b"), "/a/bc?d", &none, true),
        (prefix("/a/b"), "/a/", &none, false),
        (prefix("/a/b"), "/a/?/a/b", &none, false),
        (Scope::tag(None, "red"), "/a", &red, true),
        (Scope::tag(Some("film"), "red"), "/a", &red, true),
        (Scope::tag(Some("other"), "red"), "/a", &red, false),
        (Scope::tag(None, "blue"), "/a", &red, false),
        (Scope::tag(None, "red"), "/a", &none, false),
        (Scope::tag(None, "red"), "/a", &many, true),
        (Scope::tag(Some("other"), "red"), "/a", &many, false),
    ] {
        for (hardness, what) in
            [(HARD, Covered::Gone), (SOFT, Covered::Stale { since_seconds: 102 })]
        {
            let first = (Scope::object("film", "/nothing"), HARD);
            let table = table_of([first, (scope, hardness)]);
            let expected = if is_covered { what } else { Covered::Not };
            for (born, expected) in [(0, expected), (1, expected), (2, Covered::Not)] {
                let found = covered(&table, path, tags, born);
                assert_eq!(found, expected, "{scope:?} {path} {born}");
            }
        }
    }
}

#[test]
fn of_several_purges_the_hardest_counts_and_the_first_that_made_it_stale() {
    let (site, object) = (Scope::site("film"), Scope::object("film", "/a"));
    let of = |scopes: &[(Scope, Hardness)], born| {
        covered(&table_of(scopes.iter().copied()), "/a", &Tags::default(), born)
    };
    assert_eq!(of(&[(object, HARD), (site, SOFT)], 0), Covered::Gone);
    assert_eq!(of(&[(object, HARD), (site, SOFT)], 1), Covered::Stale { since_seconds: 102 });
    assert_eq!(of(&[(object, SOFT), (site, SOFT)], 0), Covered::Stale { since_seconds: 101 });
    assert_eq!(of(&[(object, SOFT), (site, HARD)], 0), Covered::Gone);
    assert_eq!(of(&[(object, SOFT), (site, HARD)], 2), Covered::Not);
}

#[test]
fn a_site_that_is_gone_needs_no_other_entries_and_a_fold_leaves_it_in_doubt() {
    let other = (Scope::object("other", "/a"), HARD);
    let many = |last| {
        let scopes = (0..50).map(|n| (Scope::prefix("film", &format!("/{n}")).unwrap(), HARD));
        table_of(scopes.chain([other, (Scope::tag(Some("film"), "t"), SOFT), last]))
    };
    for (last, left) in [
        ((Scope::site("film"), HARD), Covered::Gone),
        ((Scope::whole(Kind::Fold, scope::site_hash("film")), SOFT), Covered::Doubted),
    ] {
        let table = many(last);
        assert_eq!(table.len(), 2, "the other site's, and this one");
        assert_eq!(covered(&table, "/7", &Tags::default(), 0), left);
        assert_eq!(covered(&table, "/7", &Tags::default(), 53), Covered::Not);
        // As the journal writes it anew.
        let again = table.purges();
        assert_eq!(again.len(), 2);
    }
}

fn sites() -> Arc<CurrentSites> {
    Arc::new(CurrentSites::from_pointee(Sites::new(vec![fuzz::site()])))
}

fn started(file: &Path) -> (Arc<Purges>, Keeper) {
    Purges::start(sites(), Some(file)).unwrap()
}

fn key(path: &str) -> ObjectKey {
    ObjectKey::new(SiteId(0), path)
}

#[tokio::test]
async fn what_is_beyond_the_bound_leaves_its_site_in_doubt_also_for_the_next_process() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("purges");
    let (purges, keeper) = started(&file);
    let birth = purges.birth();
    let object = |number: usize| Scope::object("film", &format!("/{number}"));
    let most = PURGES_HELD_MAX - 1;
    for first in (0..most).step_by(1_000) {
        let scopes = (first..most.min(first + 1_000)).map(object).collect();
        assert!(purges.purge_here(scopes, HARD).await.unwrap().overflowed.is_empty());
    }
    assert_eq!(purges.figures().entries(), most as u64);
    let standing = |purges: &Purges| purges.reckon(&key("/other"), &birth, &Tags::default());
    assert!(matches!(standing(&purges), Standing::Untouched));
    let done = purges.purge_here(vec![object(most)], HARD).await.unwrap();
    assert_eq!((done.number, done.overflowed), (most as u64 + 2, vec!["film".to_owned()]));
    assert_eq!(purges.figures().entries(), 2);
    assert!(matches!(standing(&purges), Standing::Doubted(_)));
    assert!(keeper.finish(ENDS_WITHIN).is_ok());
    assert!(fs::metadata(&file).unwrap().len() > PURGES_HELD_MAX as u64 * 64);

    let (again, keeper) = started(&file);
    assert_eq!(again.count(), done.number);
    assert!(matches!(standing(&again), Standing::Doubted(_)));
    let gone = again.reckon(&key(&format!("/{most}")), &birth, &Tags::default());
    assert!(matches!(gone, Standing::Gone), "it came after");
    assert!(keeper.finish(ENDS_WITHIN).is_ok());
    assert_eq!(fs::metadata(&file).unwrap().len(), 3 * 64, "written anew");
}

#[tokio::test]
async fn who_goes_on_with_the_journal_knows_what_another_one_wrote_there_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("purges");
    let (purges, keeper) = started(&file);
    let birth = purges.birth();
    let object = |path: &str| vec![Scope::object("film", path)];
    purges.purge_here(object("/first"), HARD).await.unwrap();
    assert!(keeper.finish(ENDS_WITHIN).is_ok());
    let (other, keeper) = started(&file);
    other.purge_here(object("/other"), HARD).await.unwrap();
    assert!(keeper.finish(ENDS_WITHIN).is_ok());
    assert_eq!(purges.purge_here(object("/last"), HARD).await, Err(PurgeError::Draining));

    let covered = |purges: &Purges| {
        ["/first", "/other", "/last", "/none"].map(|path| purges.covers(&key(path), &birth))
    };
    assert_eq!(covered(&purges), [true, false, false, false]);
    let keeper = purges.go_on(Some(&file)).unwrap();
    assert_eq!((purges.count(), covered(&purges)), (2, [true, true, false, false]));
    assert_eq!(purges.purge_here(object("/last"), HARD).await.unwrap().number, 3);
    assert!(keeper.finish(ENDS_WITHIN).is_ok());
    let (again, keeper) = started(&file);
    assert_eq!((again.count(), covered(&again)), (3, [true, true, true, false]));
    assert!(keeper.finish(ENDS_WITHIN).is_ok());
}

#[tokio::test]
async fn prefixes_of_a_site_are_bounded_by_themselves() {
    let (purges, keeper) = Purges::start(sites(), None).unwrap();
    let prefix = |n: usize| Scope::prefix("film", &format!("/{n}/")).unwrap();
    let most = PURGE_PREFIXES_PER_SITE_MAX;
    let scopes = (0..most).map(prefix).collect();
    assert!(purges.purge_here(scopes, SOFT).await.unwrap().overflowed.is_empty());
    assert!(purges.purge_here(vec![prefix(0)], HARD).await.unwrap().overflowed.is_empty(), "known");
    assert_eq!(purges.purge_here(vec![prefix(most)], HARD).await.unwrap().overflowed, ["film"]);
    assert!(keeper.finish(ENDS_WITHIN).is_ok());
    let refused = purges.purge_here(vec![prefix(0)], HARD).await;
    assert_eq!(refused, Err(PurgeError::Draining));
}

#[tokio::test]
async fn heads_of_another_journal_are_asked_about_and_old_heads_are_as_old_as_can_be() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("purges");
    let (purges, keeper) = started(&file);
    let (none, a, b) = (Tags::default(), key("/a"), key("/b"));
    let ours = Birth::recorded(purges.birth().to_recorded());
    let foreign = Birth::recorded(Some([purges.birth().to_recorded().unwrap()[0] ^ 1, 5]));
    let old = Birth::recorded(None);
    let of_later = Birth { number: 7, ..ours.clone() };
    let is =
        |birth: &Birth, key: &ObjectKey, purges: &Purges| match purges.reckon(key, birth, &none) {
            Standing::Untouched => "untouched",
            Standing::StaleSince(..) => "stale",
            Standing::Doubted(_) => "doubted",
            Standing::Gone => "gone",
        };
    for birth in [&ours, &old] {
        assert_eq!(is(birth, &a, &purges), "untouched");
    }
    for birth in [&foreign, &of_later] {
        assert_eq!(is(birth, &a, &purges), "doubted", "nobody knows what was purged meanwhile");
        assert_eq!(is(birth, &a, &purges), "doubted", "until it was confirmed");
    }
    purges.purge_here(vec![Scope::object("film", "/a")], HARD).await.unwrap();
    for (birth, b_is) in
        [(&ours, "untouched"), (&old, "untouched"), (&foreign, "doubted"), (&of_later, "doubted")]
    {
        assert_eq!((is(birth, &a, &purges), is(birth, &b, &purges)), ("gone", b_is));
    }
    assert_eq!(is(&purges.birth(), &a, &purges), "untouched");
    // A soft purge of it says since when one that is known is stale, and not one that is not.
    purges.purge_here(vec![Scope::site("film")], SOFT).await.unwrap();
    for (birth, b_is) in [(&ours, "stale"), (&foreign, "doubted")] {
        assert_eq!(is(birth, &b, &purges), b_is);
    }
    assert!(keeper.finish(ENDS_WITHIN).is_ok());

    // Without the journal nobody knows anything any more, and says so of what has a number.
    let ours = Birth::recorded(ours.to_recorded());
    fs::remove_file(&file).unwrap();
    let (purges, keeper) = started(&file);
    assert_eq!((is(&ours, &b, &purges), is(&old, &b, &purges)), ("doubted", "untouched"));
    assert!(keeper.finish(ENDS_WITHIN).is_ok());
}

#[tokio::test]
async fn what_was_made_stale_is_not_made_so_again_and_can_still_be_gone() {
    let (purges, keeper) = Purges::start(sites(), None).unwrap();
    let (birth, none) = (purges.birth(), Tags::default());
    purges.purge_here(vec![Scope::site("film")], SOFT).await.unwrap();
    let Standing::StaleSince(_, reckoned) = purges.reckon(&key("/a"), &birth, &none) else {
        panic!("it was purged")
    };
    let again = purges.reckon(&key("/a"), &birth, &none);
    assert!(matches!(again, Standing::StaleSince(..)), "who has the old head is told too");
    assert!(matches!(purges.reckon(&key("/a"), &reckoned, &none), Standing::Untouched));
    purges.purge_here(vec![Scope::object("film", "/a")], HARD).await.unwrap();
    assert!(matches!(purges.reckon(&key("/a"), &reckoned, &none), Standing::Gone));
    assert!(keeper.finish(ENDS_WITHIN).is_ok());
}

#[test]
fn the_seeds_of_the_fuzz_targets_break_nothing() {
    seeds("purge_journal", 5).iter().for_each(|seed| fuzz::journal(seed));
    seeds("purge_request", 5).iter().for_each(|seed| fuzz::request(seed));
}

#[tokio::test]
async fn a_journal_near_its_bound_is_no_damaged_one_whatever_was_purged_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("purges");
    let (purges, keeper) = started(&file);
    let (birth, none) = (purges.birth(), Tags::default());
    let object = |number: usize| Scope::object("film", &format!("/{number}"));
    let most = PURGES_HELD_MAX - 1;
    for first in (0..most).step_by(1_000) {
        let scopes = (first..most.min(first + 1_000)).map(object).collect();
        purges.purge_here(scopes, HARD).await.unwrap();
    }
    // A site is never refused, nor what is known: now the oldest is the last.
    purges.purge_here(vec![Scope::site("film")], SOFT).await.unwrap();
    purges.purge_here(vec![object(0)], HARD).await.unwrap();
    let (id, entries) = (purges.journal, purges.figures().entries());
    assert!(keeper.finish(ENDS_WITHIN).is_ok());
    for _ in 0..2 {
        // The first one writes it anew in the order of numbers, the second reads that.
        let (again, keeper) = started(&file);
        assert_eq!((again.journal, again.figures().entries()), (id, entries));
        assert!(matches!(again.reckon(&key("/0"), &birth, &none), Standing::Gone));
        assert!(keeper.finish(ENDS_WITHIN).is_ok());
    }
}

#[test]
fn what_is_purged_softly_twice_is_stale_since_the_first_time() {
    let table = table_of([(Scope::site("film"), SOFT), (Scope::site("film"), SOFT)]);
    let stale = |born| covered(&table, "/a", &Tags::default(), born);
    assert_eq!(stale(0), Covered::Stale { since_seconds: 101 });
    assert_eq!(stale(2), Covered::Not);
}

#[tokio::test]
async fn what_ends_because_another_process_says_so_takes_no_number_that_a_purge_gets() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("purges");
    let (purges, keeper) = started(&file);
    let is_gone = |purges: &Purges, birth: &Birth| {
        matches!(purges.reckon(&key("/a"), birth, &Tags::default()), Standing::Gone)
    };
    purges.purge_here(vec![Scope::object("film", "/other")], HARD).await.unwrap();
    let before = purges.birth();
    purges.end_sites(None).await.unwrap();
    let between = purges.birth();
    assert!(is_gone(&purges, &before) && !is_gone(&purges, &between));
    purges.purge_here(vec![Scope::object("film", "/a")], HARD).await.unwrap();
    assert!(is_gone(&purges, &between), "it is purged, whatever ended before");
    assert!(keeper.finish(ENDS_WITHIN).is_ok());
    let after = purges.birth();
    purges.end_sites(Some("other")).await.unwrap();
    assert!(!is_gone(&purges, &after));
    purges.end_sites(Some("film")).await.unwrap();
    assert!(is_gone(&purges, &after), "also where the journal is another one's");

    let (again, keeper) = started(&file);
    assert!(is_gone(&again, &before) && is_gone(&again, &between));
    assert!(keeper.finish(ENDS_WITHIN).is_ok());
}
