//! Answers as players read them, and each thing that would make one of them stop.

use std::collections::{BTreeSet, HashSet};
use std::num::NonZeroU32;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::control::Phase;
use crate::control::registry::tests::{appliance_with, bad, hear, registry_of, start, well};
use crate::control::registry::{Heartbeat, Registry};
use crate::control::steering::tests::{asked, edges, fleet, steering};
use crate::control::steering::{Asked, Steering};
use reported::Reported;

const PACE: Pace = Pace { steady_seconds: 300, unsettled_seconds: 20 };

fn pathway(name: &str) -> Pathway {
    Pathway::new(name).unwrap()
}

fn session(known: &[&str], base: Option<&str>) -> Session {
    let mut session = Session::new("s1").unwrap();
    session.known = known.iter().map(|name| pathway(name)).collect();
    session.base = base.map(pathway);
    session
}

/// What a player of this session is told that reports these pathways.
fn told(registry: &Registry, dialect: Dialect, session: &Session, reported: &[&str]) -> Manifest {
    let reported: Vec<Pathway> = reported.iter().map(|name| pathway(name)).collect();
    told_under(registry, dialect, session, &reported, Burden::Usual)
}

fn told_under(
    registry: &Registry,
    dialect: Dialect,
    session: &Session,
    reported: &[Pathway],
    burden: Burden,
) -> Manifest {
    let endpoint = Endpoint::new("/steer/film").unwrap();
    let fleet = fleet(registry);
    let plays_from = session.plays_from(dialect, reported);
    let asked = Asked { plays_from, among: session.among(reported), ..asked(session.id()) };
    let answer = steering(&fleet).answer(&asked);
    let now_seconds = asked.now_seconds;
    let asking =
        Asking { dialect, endpoint: &endpoint, session, reported, seal: None, now_seconds };
    Manifest::of(&asking, Some((&answer, &fleet)), PACE, burden)
}

fn names(manifest: &Manifest) -> Vec<&str> {
    manifest.priority().iter().map(Pathway::as_str).collect()
}

fn json_of(manifest: &Manifest) -> Value {
    serde_json::from_slice(manifest.response().body()).unwrap()
}

/// The session as the player brings it along the next time.
fn next(manifest: &Manifest) -> Session {
    let (_, query) = manifest.reload_uri.split_once('?').unwrap();
    Session::of_query(query).unwrap()
}

#[test]
fn a_manifest_has_the_fields_that_players_know_and_no_others() {
    let registry = edges(1);
    let manifest =
        told(&registry, Dialect::Hls, &session(&["edge-0", "other"], Some("other")), &[]);
    let expected = json!({
        "VERSION": 1,
        "TTL": 300,
        "RELOAD-URI": "/steer/film?sid=s1&known=edge-0,other&base=other&told=edge-0",
        "PATHWAY-PRIORITY": ["edge-0", "other"],
    });
    assert_eq!(json_of(&manifest), expected);
    let response = manifest.response();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(response.headers()["cache-control"], "no-store");
    assert_eq!(response.headers()["access-control-allow-origin"], "*");
}

#[test]
fn a_pathway_that_the_asset_does_not_name_comes_as_a_clone_of_one_that_it_does() {
    let registry = edges(2);
    let manifest = told(&registry, Dialect::Hls, &session(&["origin"], Some("origin")), &[]);
    let value = json_of(&manifest);
    let clones = value["PATHWAY-CLONES"].as_array().unwrap();
    assert_eq!((clones.len(), names(&manifest).len()), (2, 3));
    assert_eq!(*names(&manifest).last().unwrap(), "origin", "behind those of the fleet");
    for (rank, clone) in clones.iter().enumerate() {
        assert_eq!(clone["BASE-ID"], "origin");
        assert_eq!(clone["ID"], names(&manifest)[rank]);
        let replacement = &clone["URI-REPLACEMENT"];
        assert_eq!(replacement["HOST"], clone["ID"], "Shaka knows hosts alone, dash.js wants one");
        let decision = replacement["PARAMS"][DECISION].as_str().unwrap();
        let (_, rest) = decision.split_once('.').unwrap();
        assert!(rest.starts_with(&format!("{rank}c.")), "{decision}");
    }
}

#[test]
fn a_clone_is_one_whose_player_gets_where_it_is_sent() {
    let with_host = |name: &str, host: &str| appliance_with(name, json!({ "host": host }));
    let hosts = |dialect, hosts: [&str; 3]| {
        let [a, b, c] = hosts;
        let fleet = fleet(&registry_of(
            vec![with_host("a", a), with_host("b", b), with_host("c", c)],
            start(),
        ));
        let answer = steering(&fleet).answer(&asked("s1"));
        let endpoint = Endpoint::new("https://s.test/steer").unwrap();
        let (session, reported) = (session(&["a"], Some("a")), &[][..]);
        let (endpoint, session) = (&endpoint, &session);
        let asking = Asking { dialect, endpoint, session, reported, seal: None, now_seconds: 1 };
        let manifest = Manifest::of(&asking, Some((&answer, &fleet)), PACE, Burden::Usual);
        assert_eq!(manifest.priority.len(), 1 + manifest.clones.len(), "nobody else is named");
        let hosts = manifest.clones.iter().map(|clone| clone.replacement.host.clone());
        hosts.collect::<BTreeSet<String>>().into_iter().collect::<Vec<_>>().join(" ")
    };
    for (three, in_hls, in_dash) in [
        (["a.test", "b.test", "c.test"], "b.test c.test", "b.test c.test"),
        (["a.test:8443", "b.test:8443", "c.test"], "b.test", "b.test:8443 c.test"),
        (["a.test", "b.test:8443", "c.test:443"], "c.test", "b.test:8443 c.test:443"),
        (
            ["a.test:8443", "[2001:db8::1]:8443", "c.test"],
            "[2001:db8::1]",
            "[2001:db8::1]:8443 c.test",
        ),
        (["a.test", "[2001:db8::1]", "c.test:1"], "[2001:db8::1]", "[2001:db8::1] c.test:1"),
    ] {
        assert_eq!(hosts(Dialect::Hls, three), in_hls, "{three:?}");
        assert_eq!(hosts(Dialect::Dash, three), in_dash, "{three:?}");
    }
}

#[test]
fn avplayer_is_never_told_a_pathway_that_its_playlist_does_not_have() {
    let registry = edges(4);
    for (known, reported, expected) in [
        (&["edge-2"][..], &[][..], &["edge-2"][..]),
        (&[], &["edge-1"], &["edge-1"]),
        (&["aws", "edge-3"], &["aws"], &["edge-3", "aws"]),
        (&["aws"], &[], &["aws"]),
        (&[], &[], &["."]),
    ] {
        // A base that the asset does not have is none.
        for base in [None, Some("edge-0")] {
            let manifest = told(&registry, Dialect::Hls, &session(known, base), reported);
            assert_eq!(names(&manifest), expected, "{known:?}");
            assert!(manifest.clones.is_empty());
        }
    }
    // Nor where whoever decided did not look at what the asset has.
    let fleet = fleet(&registry);
    let answer = steering(&fleet).answer(&asked("s1"));
    assert_eq!(answer.ranked.len(), 4);
    for base in [None, Some("edge-0")] {
        let (endpoint, session) = (Endpoint::new("/steer").unwrap(), session(&["edge-2"], base));
        let dialect = Dialect::Hls;
        let asking = Asking {
            dialect,
            endpoint: &endpoint,
            session: &session,
            reported: &[],
            seal: None,
            now_seconds: 1,
        };
        let manifest = Manifest::of(&asking, Some((&answer, &fleet)), PACE, Burden::Usual);
        assert_eq!((names(&manifest), manifest.clones.len()), (vec!["edge-2"], 0), "{base:?}");
    }
    let silent = told(&registry, Dialect::Dash, &session(&[], None), &[]);
    assert_eq!(json_of(&silent)["PATHWAY-PRIORITY"], Value::Null, "it stays where it is");
}

#[test]
fn hls_js_and_dash_js_stop_at_429_410_and_404_so_every_answer_is_200() {
    let mut registry = edges(2);
    (0..2).for_each(|n| hear(&mut registry, &format!("edge-{n}"), bad(), 5, start()));
    for registry in [registry, edges(0), edges(1)] {
        for dialect in [Dialect::Hls, Dialect::Dash] {
            for burden in [Burden::Usual, Burden::TooMuch] {
                for known in [&[][..], &["edge-1"]] {
                    let session = session(known, None);
                    let manifest = told_under(&registry, dialect, &session, &[], burden);
                    assert_eq!(manifest.response().status(), StatusCode::OK);
                    assert!(manifest.ttl_seconds() >= 1);
                    let first = manifest.priority().first();
                    assert!(first.is_some() || dialect == Dialect::Dash);
                }
            }
        }
    }
}

#[test]
fn steering_that_ended_on_purpose_is_the_only_410() {
    let response = ended();
    assert_eq!(response.status(), StatusCode::GONE);
    assert_eq!(response.headers()["cache-control"], "no-store");
    assert!(response.body().is_empty());
}

#[test]
fn dash_js_never_asks_again_without_a_ttl_so_there_always_is_one() {
    for (steady_seconds, unsettled_seconds) in [(0, 0), (300, 20), (u64::MAX, u64::MAX)] {
        let pace = Pace { steady_seconds, unsettled_seconds };
        for burden in [Burden::Usual, Burden::TooMuch] {
            for seed in 0..50 {
                assert!(pace.ttl_seconds(false, burden, seed) >= 1);
                assert!((10..=30).contains(&pace.ttl_seconds(true, burden, seed)));
            }
        }
    }
}

#[test]
fn with_too_much_to_do_players_ask_half_as_often_and_not_all_at_once() {
    let ttls: HashSet<u64> =
        (0..1_000).map(|seed| PACE.ttl_seconds(false, Burden::TooMuch, seed)).collect();
    assert!(ttls.iter().all(|ttl| (480..=720).contains(ttl)), "{ttls:?}");
    assert!(ttls.len() > 30, "{ttls:?}");
    assert_eq!(PACE.ttl_seconds(false, Burden::Usual, 7), 300);
    let ttls: HashSet<u64> =
        (0..1_000).map(|seed| PACE.ttl_seconds(true, Burden::TooMuch, seed)).collect();
    assert!(ttls.len() > 1 && ttls.iter().all(|ttl| (20..=30).contains(ttl)), "{ttls:?}");
}

#[test]
fn where_there_is_no_time_to_decide_a_player_goes_on_as_it_did() {
    let endpoint = Endpoint::new("/steer/film").unwrap();
    let mut session = session(&["a", "b", "c"], None);
    session.told = Some(pathway("b"));
    let reported = [pathway("b")];
    for dialect in [Dialect::Hls, Dialect::Dash] {
        let asking = Asking {
            dialect,
            endpoint: &endpoint,
            session: &session,
            reported: &reported,
            seal: None,
            now_seconds: 1,
        };
        let manifest = Manifest::of(&asking, None, PACE, Burden::TooMuch);
        assert_eq!(names(&manifest), ["b", "a", "c"]);
        assert_eq!(next(&manifest), session);
    }
}

#[test]
fn where_there_is_no_time_to_decide_who_was_told_nothing_yet_stays_where_it_seems_to_be() {
    let endpoint = Endpoint::new("/steer/film").unwrap();
    let (mut session, reports) = (session(&["a", "b", "c"], Some("c")), [pathway("b")]);
    let undecided = |session: &Session, dialect, reported: &[Pathway]| {
        let (endpoint, now_seconds) = (&endpoint, 1);
        let asking = Asking { dialect, endpoint, session, reported, seal: None, now_seconds };
        let manifest = Manifest::of(&asking, None, PACE, Burden::TooMuch);
        assert_eq!(next(&manifest).told, session.told, "nothing was decided");
        manifest
    };
    for (dialect, reported, expected) in [
        (Dialect::Hls, &reports[..], ["b", "a", "c"]),
        (Dialect::Hls, &[], ["c", "a", "b"]),
        (Dialect::Dash, &[], ["c", "a", "b"]),
        // It measured there, and may play anywhere.
        (Dialect::Dash, &reports, ["c", "a", "b"]),
    ] {
        let manifest = undecided(&session, dialect, reported);
        assert_eq!(names(&manifest), expected, "{dialect:?}, {reported:?}");
    }
    session.base = None;
    assert_eq!(names(&undecided(&session, Dialect::Hls, &[])), ["a", "b", "c"]);
    assert!(names(&undecided(&session, Dialect::Dash, &reports)).is_empty(), "it stays there");
    session.told = Some(pathway("a"));
    assert_eq!(names(&undecided(&session, Dialect::Dash, &[])), ["a", "b", "c"]);
}

#[test]
fn another_service_goes_before_appliances_of_which_none_is_well() {
    let mut registry = edges(1);
    let session = session(&["edge-0", "other"], None);
    let told_now = |registry: &Registry| {
        let manifest = told(registry, Dialect::Hls, &session, &[]);
        (names(&manifest).join(" "), manifest.ttl_seconds())
    };
    assert_eq!(told_now(&registry), ("edge-0 other".to_owned(), 300));
    hear(&mut registry, "edge-0", Heartbeat { phase: Phase::Drained, ..well() }, 1, start());
    assert_eq!(told_now(&registry), ("other edge-0".to_owned(), 20));
}

#[test]
fn a_player_that_left_where_it_was_told_to_play_is_not_sent_back() {
    let registry = edges(2);
    let begun = session(&["edge-0", "edge-1"], None);
    let first = told(&registry, Dialect::Hls, &begun, &[]);
    let (sent, other) = (names(&first)[0].to_owned(), names(&first)[1].to_owned());
    let then = told(&registry, Dialect::Hls, &next(&first), &[&other]);
    assert_eq!(names(&then), [&*other, &*sent], "what it left may fail");
    assert_eq!(next(&then).told, Some(pathway(&other)));
}

#[test]
fn one_that_is_drained_is_gone_with_the_next_answer_which_comes_soon() {
    let mut registry = edges(3);
    let session_ = session(&["edge-0"], Some("edge-0"));
    let before = told(&registry, Dialect::Hls, &session_, &["edge-0"]);
    let first = names(&before)[0].to_owned();
    assert_eq!(before.ttl_seconds(), 300);
    hear(&mut registry, &first, Heartbeat { phase: Phase::Draining, ..well() }, 1, start());
    let after = told(&registry, Dialect::Hls, &next(&before), &[&first]);
    assert!(!names(&after).contains(&&*first), "{after:?}");
    assert_eq!(names(&after), &names(&before)[1..], "the others stay in their order");
    assert!((10..=30).contains(&after.ttl_seconds()));
    hear(&mut registry, &first, well(), 1, start());
    let back = told(&registry, Dialect::Hls, &next(&after), &[names(&after)[0]]);
    assert_eq!(names(&back)[0], names(&after)[0], "who has moved stays");
    assert!(names(&back).contains(&&*first) && back.ttl_seconds() == 300);
}

#[test]
fn an_answer_of_the_last_resort_is_asked_for_again_soon() {
    let mut registry = edges(1);
    let full = Heartbeat { load_percent: 100, ..well() };
    hear(&mut registry, "edge-0", full, 1, start());
    let manifest = told(&registry, Dialect::Hls, &session(&["edge-0"], None), &[]);
    assert_eq!((names(&manifest), manifest.ttl_seconds()), (vec!["edge-0"], 20));
}

#[test]
fn a_player_that_was_merely_given_its_playlist_there_does_not_play_there() {
    let registry = edges(8);
    let known: Vec<String> = (0..8).map(|n| format!("edge-{n}")).collect();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let session = session(&known, None);
    let first = |reported: &str| {
        let manifest = told(&registry, Dialect::Hls, &session, &[reported]);
        names(&manifest)[0].to_owned()
    };
    let firsts: HashSet<String> = known.iter().map(|name| first(name)).collect();
    assert_eq!(firsts.len(), 1, "where it got its playlist does not count: {firsts:?}");
}

#[test]
fn a_viewer_is_sent_to_the_best_and_the_decision_goes_along() {
    let registry = edges(2);
    let fleet = fleet(&registry);
    let spread = NonZeroU32::MIN;
    let answer = Steering { spread, ..steering(&fleet) }.answer(&asked("a"));
    let (host, given) = (answer.ranked[0].host, answer.given(0, None).unwrap());
    assert!(given.starts_with(&format!("{}.0c.", answer.decision)), "{given}");
    for (target, expected) in [
        ("/film/1.m4s", format!("https://{host}/film/1.m4s?tidegate-decision={given}")),
        ("/a?b=c", format!("https://{host}/a?b=c&tidegate-decision={given}")),
        (
            "/a?tidegate-decision=0123456789abcdef.1&b=c",
            format!("https://{host}/a?b=c&tidegate-decision={given}"),
        ),
    ] {
        let response = redirect("https", target, &answer, None).unwrap();
        assert_eq!(response.status(), StatusCode::FOUND);
        assert_eq!(response.headers()["location"], *expected);
        assert_eq!(response.headers()["cache-control"], "no-store");
        assert_eq!(response.headers()["access-control-allow-origin"], "*");
    }
    for target in ["", "*", ".evil.example/", "@evil.example/", "/a\r\nset-cookie: a=b"] {
        assert!(redirect("https", target, &answer, None).is_none(), "{target:?}");
    }
    let nobody = Answer { ranked: Vec::new(), ..answer };
    assert!(redirect("https", "/a", &nobody, None).is_none());
}

proptest! {
    #[test]
    fn a_session_goes_on_where_it_is_and_is_told_nothing_that_is_unknown(
        id in "[A-Za-z0-9]{1,20}",
        count in 1_usize..30,
        known in prop::collection::vec(0_usize..14, 0..6),
        base in prop::option::of(0_usize..14),
        rounds in prop::collection::vec((any::<bool>(), any::<bool>()), 1..6),
    ) {
        let registry = edges(count);
        let name = |n: &usize| pathway(&format!("edge-{n}"));
        let mut session = Session::new(&id).unwrap();
        session.known = session::known(known.iter().map(name).collect::<Vec<_>>().iter());
        session.base = base.map(|n| name(&n));
        let mut plays: Option<Pathway> = None;
        for (is_dash, too_much) in rounds {
            let dialect = if is_dash { Dialect::Dash } else { Dialect::Hls };
            let burden = if too_much { Burden::TooMuch } else { Burden::Usual };
            let query = plays.iter().map(|p| format!("_HLS_pathway={p}&_DASH_pathway=%22{p}%22"));
            let query: String = query.collect();
            let reported = Reported::of_query(&query, dialect, |_| true);
            prop_assert!(reported.flaws.is_empty());
            let manifest = told_under(&registry, dialect, &session, &reported.pathways, burden);
            for told in manifest.priority() {
                let cloned = manifest.clones.iter().any(|clone| clone.id == *told);
                let is_known = session.has(&reported.pathways).contains(told);
                prop_assert!(cloned ^ is_known || told.as_str() == ".");
            }
            for clone in &manifest.clones {
                prop_assert!(session.known.contains(&clone.base));
                prop_assert!(fleet(&registry).by_pathway(&clone.id).is_some());
            }
            let once: HashSet<_> = manifest.priority().iter().collect();
            prop_assert_eq!(once.len(), manifest.priority().len());
            if let Some(plays) = &plays {
                prop_assert_eq!(manifest.priority().first(), Some(plays), "sticky");
            }
            session = next(&manifest);
            plays = manifest.priority().first().cloned();
        }
    }
}
