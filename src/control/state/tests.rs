//! The state over time: what counts once, what is kept, and who is first.

use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use super::room::fits;
use super::*;
use crate::control::issuer::sha256_hex;
use crate::control::registry::tests::{appliance, appliance_with};
use crate::control::snapshot::SigningKey;
use crate::limits::{APPLIANCES_BYTES_MAX, CERTIFICATES_OF_ONE_MAX};

struct Kept {
    folder: TempDir,
}

impl Kept {
    fn new() -> Kept {
        Kept { folder: tempfile::tempdir().unwrap() }
    }

    fn open(&self) -> Result<State, StateError> {
        State::open(&self.folder.path().join("state.redb"))
    }
}

fn by(what: &str) -> AuditRecord {
    let (by, what) = ("anna".to_owned(), what.to_owned());
    AuditRecord { at: NOW, by, of: By::Operator, from: None, what }
}

fn code(name: &str, expires_at: u64) -> CodeRecord {
    CodeRecord { name: name.to_owned(), expires_at, by: "anna".to_owned() }
}

fn serial(n: u8) -> Serial {
    Serial::of(&[1, n]).unwrap()
}

fn certificate(name: &str) -> CertificateRecord {
    let not_after = NOW + 100;
    CertificateRecord { name: name.to_owned(), issued_at: NOW, not_after, revoked_at: None }
}

/// Who shows a certificate that was issued just before.
fn box_of(name: &str, n: u8) -> Subject {
    let (name, serial) = (name.to_owned(), serial(n));
    Subject { name, serial, not_before: NOW - 400, not_after: NOW + 100 }
}

async fn add(state: &State, name: &str, n: u8) -> Result<(), StateError> {
    let (serial, record) = (serial(n), certificate(name));
    state.add_certificate((&serial, &record), &box_of(name, 99), NOW, by("")).await
}

const NOW: u64 = 1_790_000_000;

#[tokio::test]
async fn what_was_begun_for_who_is_gone_is_made_and_known() {
    let kept = Kept::new();
    let state = kept.open().unwrap();
    let mut putting = Box::pin(state.put_keys("film", "{}", by("put keys")));
    let mut context = Context::from_waker(Waker::noop());
    assert!(putting.as_mut().poll(&mut context).is_pending());
    drop(putting);
    let begun = Instant::now();
    while !state.known().keys.contains_key("film") {
        assert!(begun.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_code_counts_once_for_its_name_and_until_its_end() {
    let kept = Kept::new();
    let state = kept.open().unwrap();
    state.add_code("d1", &code("edge-1", NOW + 10), NOW, by("a code")).await.unwrap();
    state.add_code("d2", &code("edge-2", NOW + 10), NOW, by("a code")).await.unwrap();
    let enrol = async |digest, name, n, now| {
        state.enrol(digest, (&serial(n), &certificate(name)), now, by("enrolled")).await
    };
    assert!(matches!(enrol("d1", "edge-2", 1, NOW).await, Err(StateError::NoCode)));
    assert!(matches!(enrol("d3", "edge-1", 1, NOW).await, Err(StateError::NoCode)));
    assert!(matches!(enrol("d1", "edge-1", 1, NOW + 10).await, Err(StateError::NoCode)));
    enrol("d1", "edge-1", 1, NOW + 9).await.unwrap();
    assert!(matches!(enrol("d1", "edge-1", 2, NOW).await, Err(StateError::NoCode)));
    assert_eq!(state.known().certificates.len(), 1, "who was refused got nothing");

    state.add_code("d4", &code("edge-4", NOW + 99), NOW + 10, by("a code")).await.unwrap();
    assert_eq!(state.known().codes.keys().collect::<Vec<_>>(), ["d4"], "d2 has ended");
}

#[tokio::test]
async fn what_was_changed_is_there_when_it_is_opened_again_and_by_whom() {
    let kept = Kept::new();
    let state = kept.open().unwrap();
    let edge = box_of("edge-1", 1);
    state.put_appliance(&appliance("edge-1"), &edge, by("edge-1 registers")).await.unwrap();
    state.put_appliance(&appliance("edge-1"), &edge, by("the same")).await.unwrap();
    state.put_keys("film", "{}", by("keys film")).await.unwrap();
    let (none, first) = (Number::default(), Number { epoch: 1, counter: 1 });
    state.publish(none, first, b"signed".to_vec()).await.unwrap();
    let again = state.publish(none, first, b"other".to_vec()).await;
    assert!(matches!(again, Err(StateError::Contended)));
    assert!(matches!(kept.open(), Err(StateError::InUse { .. })));
    drop(state);

    let state = kept.open().unwrap();
    let known = state.known();
    assert_eq!(known.appliances["edge-1"], appliance("edge-1"));
    assert_eq!((known.keys["film"].as_str(), known.number), ("{}", first));
    assert_eq!(state.last_snapshot_now().unwrap().unwrap(), &b"signed"[..]);
    let audit = state.audit(&By::ALL, 9).await.unwrap();
    let told: Vec<&str> = audit.iter().map(|record| record.what.as_str()).collect();
    assert_eq!(told, ["keys film", "edge-1 registers"]);
    state.remove_keys("film", by("")).await.unwrap();
    let error = state.remove_keys("film", by("")).await.unwrap_err();
    assert_eq!(error.to_string(), "no key file is called `film`");
}

#[tokio::test]
async fn who_is_removed_takes_codes_and_certificates_along() {
    let kept = Kept::new();
    let state = kept.open().unwrap();
    state.put_appliance(&appliance("edge-1"), &box_of("edge-1", 1), by("")).await.unwrap();
    state.add_code("d1", &code("edge-1", NOW + 10), NOW, by("")).await.unwrap();
    for (n, name) in [(1, "edge-1"), (2, "edge-1"), (3, "edge-2")] {
        add(&state, name, n).await.unwrap();
    }
    state.remove_appliance("edge-1", NOW, by("removed")).await.unwrap();
    let known = state.known();
    assert!(known.appliances.is_empty() && known.codes.is_empty());
    assert_eq!(known.revoked(NOW).collect::<Vec<_>>(), [&serial(1), &serial(2)]);
    assert_eq!(known.revoked(NOW + 100).count(), 0, "who has ended needs not be told");
    let again = state.remove_appliance("edge-1", NOW, by("")).await;
    assert!(matches!(again, Err(StateError::Unknown { .. })));
}

#[tokio::test]
async fn who_is_removed_is_believed_by_no_certificate_of_before_whether_it_is_known_or_not() {
    let kept = Kept::new();
    let state = kept.open().unwrap();
    add(&state, "edge-1", 1).await.unwrap();
    state.remove_appliance("edge-1", NOW, by("removed")).await.unwrap();
    let known = state.known();
    let issued = |n, seconds: u64| {
        let not_before = NOW + seconds - 300;
        Subject { not_before, ..box_of("edge-1", n) }
    };
    assert!(known.is_revoked(&box_of("edge-1", 1)) && known.is_revoked(&box_of("edge-1", 7)));
    assert!(known.is_revoked(&issued(7, 0)) && !known.is_revoked(&issued(7, 1)));
    assert!(!known.is_revoked(&box_of("edge-2", 7)), "of another one nothing was said");
    for who in [box_of("edge-1", 1), box_of("edge-1", 7)] {
        let put = state.put_appliance(&appliance("edge-1"), &who, by("")).await;
        assert!(matches!(put, Err(StateError::Revoked)), "{put:?}");
        let next = (&serial(8), &certificate("edge-1"));
        let added = state.add_certificate(next, &who, NOW, by("")).await;
        assert!(matches!(added, Err(StateError::Revoked)), "{added:?}");
    }
    // A clock that was wrong for a while has all records forgotten, and who was removed stays so.
    let ages = NOW + 100 * 86_400;
    let other = (&serial(9), &certificate("edge-2"));
    state.add_certificate(other, &box_of("edge-2", 2), ages, by("")).await.unwrap();
    let known = state.known();
    assert!(!known.certificates.contains_key(&serial(1)));
    assert!(known.is_revoked(&box_of("edge-1", 1)));
}

#[tokio::test]
async fn a_certificate_that_is_issued_while_its_box_is_removed_is_revoked_too() {
    let kept = Kept::new();
    let state = kept.open().unwrap();
    add(&state, "edge-1", 1).await.unwrap();
    let late = removal(&state.known(), "edge-1", NOW).unwrap();
    add(&state, "edge-1", 2).await.unwrap();
    assert!(!state.commit(late).await.unwrap(), "it knows nothing of the second one");
    state.remove_appliance("edge-1", NOW, by("removed")).await.unwrap();
    assert_eq!(state.known().revoked(NOW).collect::<Vec<_>>(), [&serial(1), &serial(2)]);

    // Nor does one that was looked at before the removal come after it.
    add(&state, "edge-2", 3).await.unwrap();
    let late = added(&state.known(), &serial(4), &certificate("edge-2"), NOW).unwrap();
    state.remove_appliance("edge-2", NOW, by("removed")).await.unwrap();
    assert!(!state.commit(late).await.unwrap());
    assert_eq!(state.known().boxes().count(), 0, "nothing of them stays");
}

#[tokio::test]
async fn an_appliance_that_registers_while_it_is_removed_is_removed_too() {
    let kept = Kept::new();
    let state = kept.open().unwrap();
    add(&state, "edge-1", 1).await.unwrap();
    let late = removal(&state.known(), "edge-1", NOW).unwrap();
    state.put_appliance(&appliance("edge-1"), &box_of("edge-1", 1), by("")).await.unwrap();
    assert!(!state.commit(late).await.unwrap());
    state.remove_appliance("edge-1", NOW, by("removed")).await.unwrap();
    assert!(state.known().appliances.is_empty());
}

#[tokio::test]
async fn a_state_of_before_has_no_keys_of_boxes_and_pathways_and_is_changed_as_others_are() {
    let kept = Kept::new();
    let state = kept.open().unwrap();
    let name = "edge-1";
    let puts = vec![
        (appliance_key(name), super::json(&appliance(name))),
        (certificate_key(&serial(1)), super::json(&certificate(name))),
    ];
    assert!(state.commit(Change { puts, ..Change::default() }).await.unwrap());
    let late = removal(&state.known(), name, NOW).unwrap();
    add(&state, name, 2).await.unwrap();
    assert!(!state.commit(late).await.unwrap());
    let other = appliance_with("edge-2", json!({ "pathway": name }));
    let taken = state.put_appliance(&other, &box_of("edge-2", 3), by("")).await;
    assert!(matches!(taken, Err(StateError::PathwayTaken { .. })), "{taken:?}");
    let moved = appliance_with(name, json!({ "pathway": "isp" }));
    state.put_appliance(&moved, &box_of(name, 1), by("")).await.unwrap();
    state.put_appliance(&other, &box_of("edge-2", 3), by("")).await.unwrap();
    state.remove_appliance(name, NOW, by("removed")).await.unwrap();
    let known = state.known();
    assert_eq!(known.revoked(NOW).count(), 2);
    assert!(known.has("pathways/edge-1") && !known.has("pathways/isp"));
}

#[tokio::test]
async fn keys_of_boxes_whose_certificates_have_ended_go_with_them() {
    let kept = Kept::new();
    let state = kept.open().unwrap();
    add(&state, "edge-1", 1).await.unwrap();
    let later = NOW + 100;
    let next = CertificateRecord { not_after: later + 100, ..certificate("edge-2") };
    let by_whom = box_of("edge-2", 99);
    state.add_certificate((&serial(2), &next), &by_whom, later, by("")).await.unwrap();
    assert_eq!(state.known().boxes().collect::<Vec<_>>(), ["edge-2"]);
}

#[tokio::test]
async fn one_box_has_so_many_certificates_and_others_have_theirs() {
    let kept = Kept::new();
    let state = kept.open().unwrap();
    for n in 0..CERTIFICATES_OF_ONE_MAX as u8 {
        add(&state, "edge-1", n).await.unwrap();
    }
    let error = add(&state, "edge-1", 50).await.unwrap_err();
    assert!(matches!(error, StateError::Full { .. }), "{error}");
    add(&state, "edge-2", 51).await.unwrap();
    state.remove_appliance("edge-1", NOW, by("")).await.unwrap();
    let (code, again) = (code("edge-1", NOW + 10), certificate("edge-1"));
    state.add_code("d1", &code, NOW, by("")).await.unwrap();
    state.enrol("d1", (&serial(52), &again), NOW, by("")).await.unwrap();
}

#[tokio::test]
async fn appliances_have_pathways_of_their_own_and_fit_into_a_snapshot() {
    let kept = Kept::new();
    let state = kept.open().unwrap();
    let put = async |n: u8, fields: serde_json::Value| {
        let name = format!("edge-{n}");
        state.put_appliance(&appliance_with(&name, fields), &box_of(&name, n), by("")).await
    };
    put(1, json!({ "pathway": "isp" })).await.unwrap();
    let error = put(2, json!({ "pathway": "isp" })).await.unwrap_err().to_string();
    assert_eq!(error, "pathway `isp` is that of `edge-1`: choose another one");
    put(1, json!({ "pathway": "isp", "weight": 7 })).await.unwrap();

    let sites: Vec<String> = (0..1_024).map(|n| format!("{n:0250}")).collect();
    let large = |n: usize| appliance_with(&format!("edge-{n:04}"), json!({ "sites": sites }));
    let bytes = super::json(&large(0)).len();
    let count = APPLIANCES_BYTES_MAX / bytes;
    let mut known = Known::default();
    for n in 1..count {
        known.appliances.insert(large(n).name().to_owned(), large(n));
    }
    fits(&known, &large(0), bytes).unwrap();
    known.appliances.insert(large(count).name().to_owned(), large(count));
    let error = fits(&known, &large(0), bytes).unwrap_err();
    assert!(matches!(error, StateError::Full { what: "bytes of appliances", .. }), "{error}");
    fits(&known, &large(1), bytes).unwrap();
}

#[tokio::test]
async fn of_two_that_want_one_pathway_at_once_one_gets_it() {
    let kept = Kept::new();
    let state = kept.open().unwrap();
    let put = async |n: u8| {
        let name = format!("edge-{n}");
        let own = appliance_with(&name, json!({ "pathway": "isp" }));
        state.put_appliance(&own, &box_of(&name, n), by("")).await
    };
    let all = futures_of((0..2).map(put)).await;
    assert_eq!(all.iter().filter(|put| put.is_ok()).count(), 1, "{all:?}");
    assert!(all.iter().any(|put| matches!(put, Err(StateError::PathwayTaken { .. }))));
}

#[tokio::test]
async fn of_two_that_change_one_thing_at_once_each_sees_what_the_other_did() {
    let kept = Kept::new();
    let state = kept.open().unwrap();
    let put = async |n: u64| {
        let fields = json!({ "capacity_bits_per_second": n + 1 });
        state.put_appliance(&appliance_with("edge-1", fields), &box_of("edge-1", 1), by("")).await
    };
    let all = futures_of((0..8).map(put)).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(state.audit(&By::ALL, 99).await.unwrap().len(), 8);
}

/// Polls all in turn.
async fn futures_of<F: Future>(all: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut all: Vec<_> = all.map(|one| (Box::pin(one), None)).collect();
    std::future::poll_fn(|context| {
        for (one, done) in all.iter_mut().filter(|(_, done)| done.is_none()) {
            if let std::task::Poll::Ready(output) = one.as_mut().poll(context) {
                *done = Some(output);
            }
        }
        match all.iter().all(|(_, done)| done.is_some()) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    all.into_iter().filter_map(|(_, done)| done).collect()
}

#[tokio::test]
async fn a_later_epoch_follows_and_no_other() {
    let kept = Kept::new();
    let state = kept.open().unwrap();
    let (key, _) = SigningKey::generate();
    let raise =
        async |epoch| state.raise_epoch(&EpochOrder::sign(epoch, NOW, &key), by("raised")).await;
    let at = Number { epoch: 1, counter: 5 };
    state.publish(Number::default(), at, Vec::new()).await.unwrap();
    assert!(matches!(raise(1).await, Err(StateError::EpochGoesBack { epoch: 1 })));
    assert_eq!(raise(2).await.unwrap(), Number { epoch: 2, counter: 5 });
    assert_eq!(state.known().order, Some(EpochOrder::sign(2, NOW, &key)));
}

#[tokio::test]
async fn what_is_exported_is_imported_as_it_was_into_an_empty_state() {
    let (kept, other) = (Kept::new(), Kept::new());
    let state = kept.open().unwrap();
    state.put_appliance(&appliance("edge-1"), &box_of("edge-1", 1), by("")).await.unwrap();
    state.put_keys("film", "{}", by("")).await.unwrap();
    state.add_code("d1", &code("edge-1", NOW + 10), NOW, by("")).await.unwrap();
    add(&state, "edge-1", 1).await.unwrap();
    add(&state, "edge-2", 2).await.unwrap();
    state.remove_appliance("edge-2", NOW, by("")).await.unwrap();
    let text = serde_json::to_vec(&state.export().unwrap()).unwrap();

    let exported = Exported::parse(&text).unwrap();
    let into = other.open().unwrap();
    into.import(&exported, by("imported")).await.unwrap();
    assert_eq!(into.export().unwrap(), state.export().unwrap());
    assert!(into.known().is_revoked(&box_of("edge-2", 7)), "who was removed is so here too");
    let again = into.import(&exported, by("")).await;
    assert!(matches!(again, Err(StateError::NotEmpty)));
    assert!(Exported::parse(b"{}").is_err());
}

#[tokio::test]
async fn an_import_that_was_interrupted_goes_on_where_it_was_and_is_no_state_until_then() {
    let (kept, other) = (Kept::new(), Kept::new());
    let state = kept.open().unwrap();
    for n in 1..9 {
        add(&state, &format!("edge-{n}"), n).await.unwrap();
    }
    let exported = state.export().unwrap();
    let into = other.open().unwrap();
    let digest = super::json(&sha256_hex(&super::json(&exported)));
    let mut puts = exported.entries();
    puts.truncate(puts.len() / 2);
    puts.push((IMPORTING.to_owned(), digest));
    assert!(into.commit(Change { puts, ..Change::default() }).await.unwrap());
    assert!(matches!(into.last_snapshot_now(), Err(StateError::Importing)));

    let nothing = Kept::new().open().unwrap().export().unwrap();
    assert!(matches!(into.import(&nothing, by("")).await, Err(StateError::NotEmpty)));
    into.import(&exported, by("imported")).await.unwrap();
    assert_eq!(into.export().unwrap(), exported);
    assert!(into.last_snapshot_now().unwrap().is_none());
    assert!(matches!(into.import(&exported, by("")).await, Err(StateError::NotEmpty)));
}

#[tokio::test]
async fn an_import_of_which_only_the_mark_is_left_can_be_finished() {
    let (kept, other) = (Kept::new(), Kept::new());
    let state = kept.open().unwrap();
    add(&state, "edge-1", 1).await.unwrap();
    state.publish(Number::default(), Number { epoch: 1, counter: 5 }, Vec::new()).await.unwrap();
    let exported = state.export().unwrap();
    let into = other.open().unwrap();
    let mut puts = exported.entries();
    puts.push((IMPORTING.to_owned(), super::json(&sha256_hex(&super::json(&exported)))));
    assert!(into.commit(Change { puts, ..Change::default() }).await.unwrap());
    into.import(&exported, by("imported")).await.unwrap();
    assert_eq!(into.export().unwrap(), exported);
}

#[tokio::test]
async fn what_is_only_a_part_of_a_state_is_not_changed_nor_published_nor_exported() {
    let kept = Kept::new();
    let state = kept.open().unwrap();
    let puts = vec![(IMPORTING.to_owned(), super::json(&"digest"))];
    let read_before = state.known();
    assert!(state.commit(Change { puts, ..Change::default() }).await.unwrap());
    let (key, _) = SigningKey::generate();
    let raised = state.raise_epoch(&EpochOrder::sign(2, NOW, &key), by("raised")).await;
    assert!(matches!(raised, Err(StateError::Importing)), "{raised:?}");
    assert!(matches!(state.export(), Err(StateError::Importing)));
    assert!(matches!(add(&state, "edge-1", 1).await, Err(StateError::Importing)));
    let (none, first) = (Number::default(), Number { epoch: 1, counter: 1 });
    let published = state.publish(none, first, Vec::new()).await;
    assert!(matches!(published, Err(StateError::Importing)), "{published:?}");
    // Nor by who has not seen yet that it is one.
    state.known.store(read_before);
    let published = state.publish(none, first, Vec::new()).await;
    assert!(matches!(published, Err(StateError::Contended)), "{published:?}");
}

#[cfg(feature = "etcd")]
#[tokio::test]
async fn nothing_is_published_while_keys_are_there_that_nobody_can_tell_and_they_can_be_removed() {
    let kept = Kept::new();
    let state = kept.open().unwrap();
    state.put_keys("film", "{}", by("")).await.unwrap();
    let before = state.known();
    let untold = vec![(format!("{KEYS}film"), 1)];
    let publish = async || {
        let first = Number { epoch: 1, counter: 1 };
        state.publish(Number::default(), first, Vec::new()).await
    };
    state.known.store(Arc::new(Known::default().with_untold(untold.clone(), &Known::default())));
    let error = publish().await.unwrap_err().to_string();
    assert!(error.contains("`keys/film`") && error.contains("put it again, or remove it"));
    // Who knew them before goes on by that.
    state.known.store(Arc::new(Known::default().with_untold(untold, &before)));
    publish().await.unwrap();
    let Expect::Version(version) = before.expect("keys/film") else { panic!("it is there") };
    let untold = vec![(format!("{KEYS}film"), version)];
    state.known.store(Arc::new(Known::default().with_untold(untold, &Known::default())));
    state.remove_keys("film", by("")).await.unwrap();
    let untold = vec![(appliance_key("edge-1"), 1)];
    let untold = Known::default().with_untold(untold, &Known::default());
    assert!(untold.is_told().is_err());
    let removed = removal(&untold, "edge-1", 1).unwrap();
    assert!(removed.deletes.contains(&appliance_key("edge-1")));
}

#[tokio::test]
async fn what_could_not_have_been_kept_is_not_imported() {
    let kept = Kept::new();
    let state = kept.open().unwrap();
    for name in ["edge-1", "edge-2"] {
        state.put_appliance(&appliance(name), &box_of(name, 1), by("")).await.unwrap();
    }
    let exported = serde_json::to_value(state.export().unwrap()).unwrap();
    let changes: [(&str, serde_json::Value, &str); 4] = [
        ("/appliances/edge-1/pathway", "edge-2".into(), "have one pathway, `edge-2`"),
        ("/appliances/edge-1/name", "edge-3".into(), "calls itself `edge-3`"),
        ("/number/epoch", u64::MAX.into(), "no snapshot has the number"),
        ("/keys", json!({ "../x": "{}" }), "nothing can be called \"../x\""),
    ];
    for (at, value, says) in changes {
        let mut exported = exported.clone();
        *exported.pointer_mut(at).unwrap() = value;
        let what = Exported::parse(exported.to_string().as_bytes()).unwrap_err();
        assert!(what.contains(says) && what.lines().count() == 1, "{what}");
    }
    let (key, _) = SigningKey::generate();
    let last = state.raise_epoch(&EpochOrder::sign(u64::MAX, NOW, &key), by("")).await;
    assert!(matches!(last, Err(StateError::EpochTooLate { .. })));
}

#[test]
fn a_file_that_is_no_state_is_told_in_one_line() {
    let kept = Kept::new();
    std::fs::write(kept.folder.path().join("state.redb"), "not a database").unwrap();
    let error = kept.open().unwrap_err().to_string();
    assert!(error.contains("state.redb cannot be used: ") && error.lines().count() == 1, "{error}");
}
