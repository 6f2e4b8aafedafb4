//! What is remembered of uses, over restarts, damage and too many of them.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::time::Instant;

use super::*;

const NOW: Duration = Duration::from_secs(4_000_000_000);
const RECORD_BYTES: u64 = 40;

fn used_by<'a>(id: &'a str, uri: &'a str) -> Use<'a> {
    let expires = Some(NOW.as_secs_f64() + 60.5);
    Use { issuer: "i", id, uri, expires, is_renewed: false }
}

fn used(uri: &str) -> Use<'_> {
    used_by("one", uri)
}

fn start(path: &Path, now: Duration) -> Arc<Uses> {
    Uses::start(path, UNIX_EPOCH + now).unwrap()
}

fn wait_until(is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(30), "it is so in vain");
        thread::sleep(Duration::from_millis(5));
    }
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}

#[test]
fn a_use_is_the_first_once_and_again_when_it_has_expired() {
    let folder = tempfile::tempdir().unwrap();
    let uses = start(&folder.path().join("uses"), NOW);
    let is_first = |uri, now| uses.is_first("film", &used(uri), now);
    assert!(is_first("a", NOW));
    assert!(!is_first("a", NOW));
    assert!(is_first("b", NOW), "for each object by itself");
    assert!(uses.is_first("other", &used("a"), NOW), "for each site by itself");
    assert!(!is_first("a", NOW + Duration::from_secs(60)));
    assert!(is_first("a", NOW + Duration::from_secs(61)));
}

#[test]
fn what_was_used_is_known_after_a_restart_and_to_a_process_beside_this_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("uses");
    let (one, other) = (start(&path, NOW), start(&path, NOW));
    assert!(one.is_first("film", &used("a"), NOW));
    wait_until(|| other.known().uses.len() == 1);
    assert!(!other.is_first("film", &used("a"), NOW));
    assert!(other.is_first("film", &used("b"), NOW));
    wait_until(|| length(&path) == 2 * RECORD_BYTES);
    drop((one, other));
    // A record of zeros, and one that was cut off.
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(&[0; RECORD_BYTES as usize]).unwrap();
    file.write_all(&[1; 7]).unwrap();
    let again = start(&path, NOW);
    assert!(!again.is_first("film", &used("a"), NOW));
    assert!(!again.is_first("film", &used("b"), NOW));
    assert!(again.is_first("film", &used("c"), NOW));
    wait_until(|| length(&path) == 5 * RECORD_BYTES);
    assert!(!start(&path, NOW).is_first("film", &used("c"), NOW));
}

#[test]
fn what_has_expired_is_written_no_more_while_it_serves() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("uses");
    let old = Use { expires: Some(1.0), ..used("old") };
    let uses = start(&path, NOW);
    assert!(uses.is_first("film", &used("kept"), NOW));
    // Two mebibytes of what ended long ago.
    for round in 0..27_u64 {
        let all: Vec<String> = (0..2_000).map(|number| format!("{round}/{number}")).collect();
        for uri in &all {
            let used = Use { uri, id: uri, ..old };
            wait_until(|| uses.is_first("film", &used, Duration::from_secs(2)));
        }
        uses.known().swept_at = 0;
        uses.known().sweep(NOW.as_secs());
    }
    wait_until(|| length(&path) < 1 << 20);
    drop(uses);
    assert!(!start(&path, NOW).is_first("film", &used("kept"), NOW));
}

#[test]
fn what_never_ends_is_kept_when_the_file_is_written_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("uses");
    fs::write(&path, vec![0; 2 << 20]).unwrap();
    let uses = start(&path, NOW);
    let endless = Use { expires: Some(1e300), ..used("a") };
    assert!(uses.is_first("film", &endless, NOW));
    wait_until(|| length(&path) == RECORD_BYTES);
    assert!(uses.is_first("film", &used("b"), NOW), "whoever writes goes on");
    wait_until(|| length(&path) == 2 * RECORD_BYTES);
    drop(uses);
    assert!(!start(&path, NOW).is_first("film", &endless, NOW));
}

#[test]
fn what_is_renewed_is_used_for_a_day_and_what_never_ends_for_a_month() {
    let folder = tempfile::tempdir().unwrap();
    let uses = start(&folder.path().join("uses"), NOW);
    let days = |days| NOW + Duration::from_secs(days * DAY_SECONDS);
    let renewed = Use { is_renewed: true, ..used("renewed") };
    let later = Use { expires: Some(days(3).as_secs_f64()), ..renewed };
    let later = Use { uri: "later", ..later };
    let endless = Use { expires: None, uri: "endless", ..renewed };
    for (used, first_day) in [(renewed, 1), (later, 3), (endless, 30)] {
        assert!(uses.is_first("film", &used, NOW));
        let is_first = |now| uses.is_first("film", &used, now);
        assert!(!is_first(days(first_day) - Duration::from_secs(1)), "{used:?}");
        assert!(is_first(days(first_day)), "{used:?}");
    }
}

#[test]
fn what_another_process_was_shown_has_the_place_of_what_has_expired() {
    let uses = Uses::nowhere();
    let of = |number: usize, until: u64| {
        let uri = number.to_string();
        let used = used(&uri);
        Used { digest: digest("film", &used), until, owner: owner("film", &used) }
    };
    let now = NOW.as_secs();
    let all: Vec<Used> = (0..TOKEN_USES_MAX).map(|number| of(number, now)).collect();
    uses.learn(&all, now - 1);
    assert_eq!(uses.known().uses.len(), TOKEN_USES_MAX);
    let new = of(TOKEN_USES_MAX, now + 9);
    uses.learn(&[new], now);
    assert!(uses.known().uses.contains_key(&new.digest));
}

#[test]
fn what_cannot_be_remembered_is_no_first_use() {
    assert!(!Uses::nowhere().is_first("film", &used("a"), NOW));
    assert!(Uses::start(Path::new("/nowhere/uses"), UNIX_EPOCH + NOW).is_err());
}

#[test]
fn one_token_and_one_site_leave_room_for_others_and_what_expired_makes_room() {
    let folder = tempfile::tempdir().unwrap();
    let uses = start(&folder.path().join("uses"), NOW);
    uses.share_among(2);
    let told = |site: &str, id: &str, uri: &str| {
        let mut known = uses.known();
        let used = used_by(id, uri);
        known.insert(Used {
            digest: digest(site, &used),
            until: NOW.as_secs() + 1,
            owner: owner(site, &used),
        });
    };
    (0..TOKEN_USES_OF_ONE_MAX).for_each(|number| told("film", "one", &number.to_string()));
    assert!(!uses.is_first("film", &used("more"), NOW), "one token has so many uses");
    assert!(uses.is_first("film", &used_by("two", "more"), NOW));
    (0..TOKEN_USES_MAX / 2).for_each(|number| told("film", &number.to_string(), "a"));
    assert!(!uses.is_first("film", &used_by("three", "b"), NOW), "one site has its part");
    assert!(uses.is_first("other", &used_by("three", "b"), NOW));
    let later = NOW + Duration::from_secs(2);
    assert!(uses.is_first("film", &used("more"), later));
}
