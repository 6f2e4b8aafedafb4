//! Each rule of steering, what it says of itself, and that it is sticky.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::control::registry::appliance::Appliance;
use crate::control::registry::tests::{
    appliance, appliance_with, bad, hear, registry_of, sending, start, well,
};
use crate::control::registry::{Heartbeat, Registry};
use crate::geo::Position;

/// Routes to appliances by name, for everybody.
pub(in crate::control) struct ForAll(pub(in crate::control) Vec<(&'static str, Route)>);

impl Routes for ForAll {
    fn candidates(&self, _: IpAddr) -> Vec<Candidate<'_>> {
        self.0.iter().map(|(name, route)| Candidate { name, route: *route }).collect()
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn position(&self, _: IpAddr) -> Option<Position> {
        None
    }
}

/// No routes, and every viewer is in Berlin.
struct Berlin;

impl Routes for Berlin {
    fn candidates(&self, _: IpAddr) -> Vec<Candidate<'_>> {
        Vec::new()
    }

    fn is_empty(&self) -> bool {
        true
    }

    fn position(&self, _: IpAddr) -> Option<Position> {
        Position::new(52.52, 13.405)
    }
}

fn route(bits: u8, as_path_length: u32, med: u32) -> Route {
    Route { by: Match::bits(bits), as_path_length, origin: 0, med }
}

/// As asked by most tests.
pub(in crate::control) fn asked(session: &str) -> Asked<'_> {
    Asked {
        viewer: "198.51.100.7".parse().unwrap(),
        session,
        site: "film",
        path: "/film/master.m3u8",
        plays_from: None,
        among: None,
        now_seconds: 1_800_000_000,
    }
}

/// By the fleet alone, each viewer on his own.
pub(in crate::control) fn steering(fleet: &Fleet) -> Steering<'_> {
    let spread = NonZeroU32::new(1 << 20).unwrap();
    Steering { fleet, routes: &NoRoutes, holds: &nobody_knows, spread }
}

fn nobody_knows(_: &Member) -> Option<bool> {
    None
}

/// `edge-0` and so on, all well.
pub(in crate::control) fn edges(count: usize) -> Registry {
    registry_of((0..count).map(|n| appliance(&format!("edge-{n}"))).collect(), start())
}

pub(in crate::control) fn fleet(registry: &Registry) -> Fleet {
    registry.fleet(start())
}

fn names<'a>(answer: &Answer<'a>) -> Vec<&'a str> {
    answer.ranked.iter().map(|ranked| ranked.appliance).collect()
}

/// Why an appliance stands where it does, or was left out.
fn reasons(answer: &Answer<'_>, name: &str) -> Vec<Reason> {
    let all = answer.ranked.iter().chain(&answer.left_out);
    let found = all.into_iter().find(|ranked| ranked.appliance == name).expect(name);
    found.reasons.iter().map(|rule| rule.reason).collect()
}

fn sessions(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("session-{n}")).collect()
}

/// Which is first for each of these sessions.
fn firsts_of(steering: &Steering<'_>, sessions: &[String]) -> Vec<String> {
    let first = |session: &String| names(&steering.answer(&asked(session)))[0].to_owned();
    sessions.iter().map(first).collect()
}

#[test]
fn the_longest_match_is_first_then_path_origin_and_med() {
    let fleet = fleet(&edges(9));
    let best = route(24, 2, 10);
    let routes = ForAll(vec![
        ("edge-8", Route { by: Match::Country, ..route(0, 0, 0) }),
        ("edge-7", Route { by: Match::As, ..route(0, 9, 0) }),
        ("edge-5", route(8, 0, 0)),
        ("edge-4", route(24, 2, 20)),
        ("edge-3", Route { origin: 2, ..best }),
        ("edge-2", route(24, 3, 0)),
        ("edge-1", route(16, 1, 0)),
        ("edge-0", best),
        ("edge-0", route(8, 1, 0)),
        ("who-is-not-there", route(32, 0, 0)),
    ]);
    let steering = Steering { routes: &routes, ..steering(&fleet) };
    let answer = steering.answer(&asked("a"));
    let expected = ["edge-0", "edge-4", "edge-3", "edge-2", "edge-1", "edge-5", "edge-7", "edge-8"];
    assert_eq!(names(&answer), expected);
    assert!(!answer.last_resort && !answer.unsettled);
    let answer = steering.explained(&asked("a"));
    assert_eq!(names(&answer)[8], "edge-6");
    let best_by = best.by;
    for (name, reason) in [
        ("edge-0", Reason::Announced { by: Match::bits(24) }),
        ("edge-8", Reason::ShorterMatch { by: Match::Country, best_by }),
        ("edge-7", Reason::ShorterMatch { by: Match::As, best_by }),
        ("edge-4", Reason::HigherMed),
        ("edge-3", Reason::LessCertainOrigin),
        ("edge-2", Reason::LongerPath { networks: 3, best_networks: 2 }),
        ("edge-1", Reason::ShorterMatch { by: Match::bits(16), best_by }),
        ("edge-6", Reason::NotAnnounced),
    ] {
        assert_eq!(reasons(&answer, name), [reason, Reason::Share], "{name}");
    }
}

#[test]
fn who_is_nearer_by_a_step_is_first_and_within_one_they_share() {
    let at = |name, position: Value| appliance_with(name, json!({ "position": position }));
    let (munich, sydney) = (json!([48.137, 11.575]), json!([-33.869, 151.209]));
    let all = vec![
        appliance("nowhere"),
        at("sydney", sydney),
        at("munich", munich),
        at("berlin-1", json!([52.52, 13.405])),
        at("berlin-2", json!([52.52, 13.5])),
    ];
    let fleet = fleet(&registry_of(all, start()));
    let steering = Steering { routes: &Berlin, ..steering(&fleet) };
    let mut firsts = HashSet::new();
    for session in &sessions(20) {
        let answer = steering.answer(&asked(session));
        assert_eq!(names(&answer)[2..], ["munich", "sydney", "nowhere"]);
        firsts.insert(names(&answer)[0].to_owned());
        let reasons = |name| reasons(&answer, name)[0];
        assert!(matches!(reasons("berlin-2"), Reason::Near { distance_km: 6 }));
        assert!(matches!(reasons("munich"), Reason::Further { distance_km: 504, .. }));
        assert_eq!(reasons("nowhere"), Reason::NowhereKnown);
    }
    assert_eq!(firsts.len(), 2, "two in one town are alike");
}

#[test]
fn who_is_for_announced_networks_alone_is_offered_to_nobody_else() {
    let announced = appliance_with("isp", json!({ "audience": "announced" }));
    let fleet = fleet(&registry_of(vec![announced, appliance("open")], start()));
    let alone = steering(&fleet).explained(&asked("a"));
    assert_eq!(names(&alone), ["open"]);
    assert_eq!(reasons(&alone, "isp"), [Reason::NotForHim]);
    assert_eq!(reasons(&alone, "open"), [Reason::Share], "nobody has a route");
    let routes = ForAll(vec![("isp", route(24, 1, 0))]);
    let both = Steering { routes: &routes, ..steering(&fleet) }.answer(&asked("a"));
    assert_eq!(names(&both), ["isp", "open"]);
}

#[test]
fn sites_and_families_of_addresses_are_kept_apart() {
    let now = start();
    let other_site = appliance_with("news", json!({ "sites": ["news"] }));
    let old = appliance_with("old", json!({ "ipv6": null }));
    let mut registry = registry_of(vec![other_site, old, appliance("both")], now);
    let lame = Heartbeat { answers_ipv6: false, ..well() };
    hear(&mut registry, "both", lame, 3, now);
    let fleet = fleet(&registry);
    let v4 = steering(&fleet).explained(&asked("a"));
    assert_eq!(v4.ranked.len(), 2);
    assert_eq!(reasons(&v4, "news"), [Reason::OtherSites]);
    let asked = Asked { viewer: "2001:db8::7".parse().unwrap(), ..asked("a") };
    let v6 = steering(&fleet).explained(&asked);
    assert_eq!(names(&v6), ["both"], "it is the only one that he reaches");
    assert_eq!(reasons(&v6, "old"), [Reason::NoAddress { family: Family::Ipv6 }]);
    assert_eq!(reasons(&v6, "both"), [Reason::Ill, Reason::LastResort]);
    assert!(v6.last_resort && v6.unsettled && !v4.last_resort && !v4.unsettled);
}

#[test]
fn what_has_certain_pathways_alone_is_steered_among_these_in_a_fleet_of_any_size() {
    let mut registry = edges(200);
    let among = ["edge-7", "edge-150", "other"].map(|name| Pathway::new(name).unwrap());
    let asked = Asked { among: Some(&among), ..asked("a") };
    let fleet_well = fleet(&registry);
    let mut found = names(&steering(&fleet_well).answer(&asked));
    found.sort();
    assert_eq!(found, ["edge-150", "edge-7"]);
    hear(&mut registry, "edge-7", Heartbeat { phase: Phase::Draining, ..well() }, 1, start());
    let fleet_draining = fleet(&registry);
    let answer = steering(&fleet_draining).explained(&asked);
    assert_eq!(names(&answer), ["edge-150"]);
    assert_eq!(reasons(&answer, "edge-0"), [Reason::OtherPathways]);
    assert!(answer.unsettled);
}

#[test]
fn who_leaves_is_ill_new_or_full_gets_nobody_new() {
    let now = start();
    let mut registry = edges(8);
    for (name, heartbeat) in [
        ("edge-1", Heartbeat { phase: Phase::Draining, ..well() }),
        ("edge-2", Heartbeat { phase: Phase::Drained, ..well() }),
        ("edge-3", bad()),
        ("edge-4", sending(97)),
        ("edge-5", Heartbeat { phase: Phase::Starting, ..well() }),
    ] {
        hear(&mut registry, name, heartbeat, 3, now);
    }
    registry.register(appliance("new"), now).unwrap();
    hear(&mut registry, "new", well(), 1, now);
    let fleet = fleet(&registry);
    let answer = steering(&fleet).explained(&asked("a"));
    let mut found = names(&answer);
    found.sort();
    assert_eq!(found, ["edge-0", "edge-6", "edge-7"]);
    for (name, reason) in [
        ("edge-1", Reason::Draining),
        ("edge-2", Reason::Drained),
        ("edge-3", Reason::Ill),
        ("edge-4", Reason::Full),
        ("edge-5", Reason::Starting),
        ("new", Reason::New),
    ] {
        assert_eq!(reasons(&answer, name), [reason], "{name}");
    }
    let is_out = |ranked: &Ranked<'_>| ranked.reasons[0].moved == reason::Moved::Out;
    assert!(answer.unsettled && answer.left_out.iter().all(is_out));
    assert!(steering(&fleet).answer(&asked("a")).left_out.is_empty());
}

#[test]
fn who_plays_from_a_full_one_stays_and_from_one_that_leaves_goes() {
    let now = start();
    let mut registry = edges(3);
    hear(&mut registry, "edge-1", sending(99), 1, now);
    let fleet_full = fleet(&registry);
    let pathway = Pathway::new("edge-1").unwrap();
    let plays = |session| Asked { plays_from: Some(&pathway), ..asked(session) };
    let sessions = sessions(20);
    for session in &sessions {
        let answer = steering(&fleet_full).answer(&plays(session));
        assert_eq!(names(&answer)[0], "edge-1");
        assert_eq!(reasons(&answer, "edge-1"), [Reason::PlaysFromIt, Reason::Share]);
    }
    hear(&mut registry, "edge-1", Heartbeat { phase: Phase::Draining, ..well() }, 1, now);
    let fleet_draining = fleet(&registry);
    let answer = steering(&fleet_draining).answer(&plays("a"));
    assert!(!names(&answer).contains(&"edge-1") && answer.unsettled);
}

#[test]
fn one_that_is_nearly_full_gets_less_than_its_share() {
    let now = start();
    let mut registry = edges(2);
    let sessions = sessions(2_000);
    let share = |registry: &Registry| {
        let fleet = fleet(registry);
        let firsts = firsts_of(&steering(&fleet), &sessions);
        firsts.iter().filter(|first| *first == "edge-0").count()
    };
    let before = share(&registry);
    assert!((900..1_100).contains(&before), "{before}");
    hear(&mut registry, "edge-0", sending(94), 1, now);
    let tight = share(&registry);
    assert!((200..360).contains(&tight), "16 of 116: {tight}");
    let fleet_tight = fleet(&registry);
    let answer = steering(&fleet_tight).answer(&asked("a"));
    assert!(reasons(&answer, "edge-0").contains(&Reason::Tight { share_percent: 16 }));
    hear(&mut registry, "edge-0", sending(10), 1, now);
    assert_eq!(share(&registry), before, "it returns by itself");
}

#[test]
fn who_does_not_have_it_is_behind_who_has_it_or_might() {
    let fleet = fleet(&edges(3));
    let holds = |member: &Member| match member.appliance.name() {
        "edge-0" => Some(false),
        "edge-1" => Some(true),
        _ => None,
    };
    let steering = Steering { holds: &holds, ..steering(&fleet) };
    for session in &sessions(20) {
        let answer = steering.answer(&asked(session));
        assert_eq!(names(&answer)[2], "edge-0");
        assert_eq!(reasons(&answer, "edge-0"), [Reason::Absent, Reason::Share]);
    }
}

#[test]
fn a_miss_is_the_contents_unless_a_better_one_is_not_well_or_cannot_be_his() {
    let now = start();
    let miss = |registry: &Registry, routes: &dyn Routes, asked: &Asked<'_>| {
        let fleet = fleet(registry);
        let answer = Steering { routes, ..steering(&fleet) }.answer(asked);
        (names(&answer)[0].to_owned(), answer.miss.unwrap())
    };
    let first = |name: &str, cause| (name.to_owned(), cause);
    let routes = ForAll(vec![("edge-0", route(24, 1, 0)), ("edge-1", route(16, 1, 0))]);
    let (his, nobodys) = (asked("a"), ForAll(Vec::new()));
    let mut registry = edges(3);
    assert_eq!(miss(&registry, &routes, &his), first("edge-0", Cause::Content));
    assert_eq!(miss(&registry, &nobodys, &his).1, Cause::Content, "nobody has routes");
    let unknown = ForAll(vec![("who-is-not-there", route(8, 0, 0))]);
    assert_eq!(miss(&registry, &unknown, &his).1, Cause::Route, "others have some");
    for heartbeat in [sending(97), bad(), Heartbeat { phase: Phase::Draining, ..well() }] {
        let mut registry = edges(3);
        hear(&mut registry, "edge-0", heartbeat, 3, now);
        assert_eq!(miss(&registry, &routes, &his), first("edge-1", Cause::Health));
    }
    let pathways = ["edge-1", "edge-2"].map(|name| Pathway::new(name).unwrap());
    let among = Asked { among: Some(&pathways), ..asked("a") };
    assert_eq!(miss(&registry, &routes, &among), first("edge-1", Cause::Route));
    let far = json!({ "sites": ["news"] });
    registry.register(appliance_with("edge-0", far), now).unwrap();
    hear(&mut registry, "edge-0", well(), 3, now);
    assert_eq!(miss(&registry, &routes, &his), first("edge-1", Cause::Content));
}

#[test]
fn who_goes_where_less_is_sent_or_more_is_held_misses_for_that() {
    let mut registry = edges(2);
    hear(&mut registry, "edge-0", sending(94), 1, start());
    let (tight, well) = (fleet(&registry), fleet(&edges(2)));
    let mut moved = 0;
    for session in &sessions(100) {
        let (before, now) = (steering(&well), steering(&tight));
        let (before, now) = (before.answer(&asked(session)), now.answer(&asked(session)));
        let is_moved = names(&before)[0] != names(&now)[0];
        let cause = if is_moved { Cause::Health } else { Cause::Content };
        assert_eq!(now.miss, Some(cause), "{session}");
        moved += usize::from(is_moved);
    }
    assert!(moved > 0);
    let holds = |member: &Member| Some(member.appliance.name() != "edge-0");
    let held = Steering { holds: &holds, ..steering(&well) };
    for session in &sessions(20) {
        let answer = held.answer(&asked(session));
        assert_eq!((names(&answer)[0], answer.miss), ("edge-1", Some(Cause::Content)));
    }
}

#[test]
fn when_nobody_is_well_the_least_ill_are_sent_as_the_last_resort() {
    let now = start();
    let mut registry = edges(4);
    for (name, heartbeat) in [
        ("edge-0", Heartbeat { phase: Phase::Drained, ..well() }),
        ("edge-1", Heartbeat { phase: Phase::Draining, ..well() }),
        ("edge-2", sending(100)),
        ("edge-3", Heartbeat { phase: Phase::Starting, ..well() }),
    ] {
        hear(&mut registry, name, heartbeat, 3, now);
    }
    registry.register(appliance_with("news", json!({ "sites": ["news"] })), now).unwrap();
    let fleet = fleet(&registry);
    let answer = steering(&fleet).explained(&asked("a"));
    assert!(answer.last_resort);
    assert_eq!(names(&answer), ["edge-2", "edge-1", "edge-3", "edge-0"]);
    assert_eq!(reasons(&answer, "edge-1"), [Reason::Draining, Reason::LastResort]);
    assert_eq!(reasons(&answer, "news"), [Reason::OtherSites], "it would not serve him");
}

#[test]
fn without_anybody_he_reaches_the_answer_is_empty() {
    let empty = Fleet::default();
    let answer = steering(&empty).explained(&asked("a"));
    assert!(answer.ranked.is_empty() && answer.left_out.is_empty() && !answer.last_resort);
    let old = appliance_with("old", json!({ "ipv6": null }));
    let fleet = fleet(&registry_of(vec![old], start()));
    let asked = Asked { viewer: "2001:db8::7".parse().unwrap(), ..asked("a") };
    let answer = steering(&fleet).answer(&asked);
    assert!(answer.ranked.is_empty() && !answer.last_resort);
}

#[test]
fn a_decision_is_told_apart_by_everything_that_was_asked() {
    let fleet = fleet(&edges(2));
    let steering = steering(&fleet);
    let id = |asked: &Asked<'_>| steering.answer(asked).decision.to_string();
    let first = asked("a");
    assert_eq!(id(&first), id(&first));
    assert_eq!(id(&first).len(), 16);
    for other in [
        asked("b"),
        Asked { viewer: "198.51.100.8".parse().unwrap(), ..first },
        Asked { site: "news", ..first },
        Asked { path: "/other/master.m3u8", ..first },
        Asked { now_seconds: 1_800_000_001, ..first },
    ] {
        assert_ne!(id(&first), id(&other), "{other:?}");
    }
}

#[test]
fn an_answer_is_told_in_words_and_as_json() {
    let now = start();
    let mut registry = edges(2);
    hear(&mut registry, "edge-1", Heartbeat { phase: Phase::Draining, ..well() }, 1, now);
    let fleet = fleet(&registry);
    let answer = steering(&fleet).explained(&asked("a"));
    let expected = json!({
        "decision": answer.decision.to_string(),
        "miss": "health",
        "last_resort": false,
        "unsettled": true,
        "ranked": [{
            "appliance": "edge-0", "pathway": "edge-0", "host": "edge-0",
            "reasons": [{ "moved": "among", "rule": "share" }],
        }],
        "left_out": [{
            "appliance": "edge-1", "pathway": "edge-1", "host": "edge-1",
            "reasons": [{ "moved": "out", "rule": "draining" }],
        }],
    });
    assert_eq!(serde_json::to_value(&answer).unwrap(), expected);
    let tight = Reason::Tight { share_percent: 16 };
    let down = json!({ "moved": "down", "rule": "tight", "share_percent": 16 });
    assert_eq!(serde_json::to_value(tight.rule()).unwrap(), down);
    assert_eq!(tight.to_string(), "it is near its limit and gets 16 % of its share");
    let announced = Reason::Announced { by: Match::bits(24) };
    assert_eq!(announced.to_string(), "his network is announced to it (/24)");
    let told = json!({ "moved": "up", "rule": "announced", "by": "/24" });
    assert_eq!(serde_json::to_value(announced.rule()).unwrap(), told);
}

#[test]
fn viewers_of_a_folder_are_spread_over_so_many_and_sites_and_folders_apart() {
    let fleet = fleet(&edges(20));
    let spread = NonZeroU32::new(3).unwrap();
    let steering = Steering { spread, ..steering(&fleet) };
    let mut firsts: HashMap<String, usize> = HashMap::new();
    for first in firsts_of(&steering, &sessions(300)) {
        *firsts.entry(first).or_default() += 1;
    }
    assert!((1..=3).contains(&firsts.len()), "{firsts:?}");
    let first = |path: String, site| {
        let answer = steering.answer(&Asked { path: &path, site, ..asked("a") });
        names(&answer)[0].to_owned()
    };
    assert_eq!(first("/film/1.m4s".to_owned(), "film"), first("/film/2.m4s".to_owned(), "film"));
    let folders = (0..50).map(|n| first(format!("/film-{n}/1.m4s"), "film"));
    let sites = (0..50).map(|n| first("/a/1.m4s".to_owned(), ["film", "news"][n % 2]));
    assert!(folders.collect::<HashSet<_>>().len() > 10);
    assert!(sites.collect::<HashSet<_>>().len() <= 2);
}

#[test]
fn one_that_joins_or_leaves_moves_its_share_and_a_fifth_at_most() {
    let sessions = sessions(8_000);
    for count in [2, 5, 10, 40, 100] {
        let (all, fewer) = (fleet(&edges(count)), fleet(&edges(count - 1)));
        let all = firsts_of(&steering(&all), &sessions);
        let fewer = firsts_of(&steering(&fewer), &sessions);
        let moved = all.iter().zip(&fewer).filter(|(all, fewer)| all != fewer);
        let joined = format!("edge-{}", count - 1);
        assert!(moved.clone().all(|(all, _)| *all == joined), "nothing else moves");
        let (moved, share) = (moved.count() as f64, sessions.len() as f64 / count as f64);
        assert!(moved < 1.2 * share && moved > 0.8 * share, "{moved} of {count}");
    }
}

proptest! {
    #[test]
    fn the_same_session_has_the_same_order_whatever_else_happens(
        session in "[a-z0-9]{1,20}",
        count in 1_usize..30,
        seconds in 0_u64..1_000_000,
        address in any::<u32>(),
        segment in "[a-z0-9]{0,9}",
    ) {
        let fleet = fleet(&edges(count));
        let steering = steering(&fleet);
        let first = steering.answer(&asked(&session));
        let path = format!("/film/{segment}");
        let later = Asked {
            now_seconds: seconds,
            viewer: IpAddr::V4(address.into()),
            path: &path,
            ..asked(&session)
        };
        prop_assert_eq!(names(&steering.answer(&later)), names(&first));
        prop_assert_eq!(first.ranked.len(), count.min(STEERED_MAX));
        let all = steering.explained(&asked(&session));
        prop_assert_eq!(&names(&all)[..count.min(STEERED_MAX)], names(&first));
        // Without the first the others stay in their order.
        let gone = names(&all)[0];
        let others: Vec<Member> =
            fleet.members().iter().filter(|m| m.appliance.name() != gone).cloned().collect();
        let fewer = Fleet::from(others);
        let steering = Steering { fleet: &fewer, ..steering };
        prop_assert_eq!(names(&steering.explained(&asked(&session))), &names(&all)[1..]);
    }

    #[test]
    fn any_fleet_has_an_answer_while_somebody_is_reached(
        states in prop::collection::vec((0_u8..7, any::<bool>()), 1..20),
        plays_from in 0_usize..20,
    ) {
        let now = start();
        let names_of = |n: usize| format!("edge-{n}");
        let all = states.iter().enumerate().map(|(n, (_, announced))| -> Appliance {
            let audience = if *announced { "announced" } else { "everyone" };
            appliance_with(&names_of(n), json!({ "audience": audience }))
        });
        let mut registry = registry_of(all.collect(), now);
        for (n, (state, _)) in states.iter().enumerate() {
            let heartbeat = match state {
                0 => well(),
                1 => bad(),
                2 => sending(100),
                3 => sending(90),
                4 => Heartbeat { phase: Phase::Draining, ..well() },
                5 => Heartbeat { phase: Phase::Drained, ..well() },
                _ => Heartbeat { phase: Phase::Starting, ..well() },
            };
            hear(&mut registry, &names_of(n), heartbeat, 3, now);
        }
        let fleet = fleet(&registry);
        let plays_from = Pathway::new(&names_of(plays_from));
        let routes = ForAll(vec![("edge-0", route(24, 1, 0))]);
        let steering = Steering { routes: &routes, ..steering(&fleet) };
        let asked = Asked { plays_from: plays_from.as_ref(), ..asked("a") };
        let answer = steering.explained(&asked);
        prop_assert!(!answer.ranked.is_empty());
        prop_assert_eq!(answer.ranked.len() + answer.left_out.len(), states.len());
        for ranked in &answer.ranked {
            let out = ranked.reasons.iter().any(|rule| rule.moved == reason::Moved::Out);
            prop_assert_eq!(out, answer.last_resort);
        }
        let short = steering.answer(&asked);
        prop_assert_eq!(short.last_resort, answer.last_resort);
        prop_assert_eq!(names(&short), &names(&answer)[..short.ranked.len()]);
    }
}
