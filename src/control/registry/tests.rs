//! The registry over time: health, room, the share that may be taken out.

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::appliance::{Audience, Mistake, Pathway};
use super::fleet::{Member, Standing};
use super::*;

/// When all of a test happens, unless it says otherwise.
pub(in crate::control) fn start() -> Instant {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    *START
}

/// One with both addresses, a capacity of 10 Gb/s and nothing else that is special.
pub(in crate::control) fn appliance(name: &str) -> Appliance {
    appliance_with(name, json!({}))
}

/// The same with other fields.
pub(in crate::control) fn appliance_with(name: &str, fields: Value) -> Appliance {
    serde_json::from_value(written(name, fields)).unwrap()
}

fn written(name: &str, fields: Value) -> Value {
    let mut written = json!({
        "name": name,
        "ipv4": "192.0.2.1",
        "ipv6": "2001:db8::1",
        "capacity_bits_per_second": 10_000_000_000_u64,
    });
    let fields = fields.as_object().unwrap().clone();
    written.as_object_mut().unwrap().extend(fields);
    written
}

/// Of one that is well and idle.
pub(in crate::control) fn well() -> Heartbeat {
    Heartbeat {
        phase: Phase::Ready,
        load_percent: 5,
        free_bits_per_second: 10_000_000_000,
        hit_percent: 97,
        volumes_online: 4,
        volumes_failed: 0,
        answers_ipv4: true,
        answers_ipv6: true,
    }
}

/// Of one that answers nobody.
pub(in crate::control) fn bad() -> Heartbeat {
    Heartbeat { answers_ipv4: false, answers_ipv6: false, ..well() }
}

/// Of one that sends so much of what it can.
pub(in crate::control) fn sending(percent: u64) -> Heartbeat {
    Heartbeat { free_bits_per_second: (100 - percent) * 100_000_000, ..well() }
}

/// A registry where these have been well for a while.
pub(in crate::control) fn registry_of(appliances: Vec<Appliance>, now: Instant) -> Registry {
    let mut registry = Registry::new(Rules::default());
    for appliance in appliances {
        let name = appliance.name().to_owned();
        registry.register(appliance, now).unwrap();
        hear(&mut registry, &name, well(), 3, now);
    }
    registry
}

/// `count` heartbeats at once.
pub(in crate::control) fn hear(
    registry: &mut Registry,
    name: &str,
    heartbeat: Heartbeat,
    count: usize,
    now: Instant,
) {
    (0..count).for_each(|_| registry.hear(name, heartbeat.clone(), now).unwrap());
}

fn member<'a>(fleet: &'a Fleet, name: &str) -> &'a Member {
    &fleet.members()[fleet.place(name).unwrap()]
}

fn standing(registry: &Registry, name: &str, now: Instant) -> Standing {
    member(&registry.fleet(now), name).standing(Family::Ipv4).unwrap()
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("edge-{n}")).collect()
}

#[test]
fn an_appliance_is_read_as_it_is_written_and_what_is_wrong_is_told() {
    let plain = appliance("edge-1");
    assert_eq!((plain.host(), plain.pathway().as_str()), ("edge-1", "edge-1"));
    assert_eq!((plain.audience(), plain.share()), (Audience::Everyone, 1e10));
    assert!(plain.serves("any") && plain.has(Family::Ipv4) && plain.has(Family::Ipv6));
    let special = appliance_with(
        "edge-2",
        json!({ "ipv6": null, "host": "edge-2.isp.example:8443", "pathway": "isp", "weight": 50,
                "tags": ["pop-3"], "sites": ["film"], "audience": "announced" }),
    );
    assert_eq!((special.host(), special.share()), ("edge-2.isp.example:8443", 5e9));
    assert_eq!((special.pathway().as_str(), special.audience()), ("isp", Audience::Announced));
    assert!(special.serves("film") && !special.serves("news") && !special.has(Family::Ipv6));
    assert_eq!(special.tags().collect::<Vec<_>>(), ["pop-3"]);
    let again = serde_json::to_value(&special).unwrap();
    assert_eq!(serde_json::from_value::<Appliance>(again).unwrap(), special);

    let long = "a".repeat(65);
    for (field, wrong) in [
        ("name", json!("")),
        ("name", json!("a b")),
        ("name", json!(long)),
        ("pathway", json!("a/b")),
        ("pathway", json!("")),
        ("host", json!("a b")),
        ("host", json!("user@a")),
        ("host", json!("a/b")),
        ("host", json!("")),
        ("ipv4", json!("2001:db8::1")),
        ("capacity_bits_per_second", json!(0)),
        ("capacity_bits_per_second", json!(-1)),
        ("capacity_bits_per_second", json!(10_000_000_000_001_u64)),
        ("weight", json!(0)),
        ("weight", json!(10_001)),
        ("tags", json!(["a b"])),
        ("tags", json!(names(33))),
        ("sites", json!(names(1_025))),
        ("audience", json!("nobody")),
    ] {
        let read = serde_json::from_value::<Appliance>(written("a", json!({ field: wrong })));
        let error = read.expect_err(field).to_string();
        let says = field.starts_with("ipv4") || error.contains(field) || error.contains("nobody");
        assert!(says || field.starts_with("capacity"), "{field}: {error}");
    }
    let later = serde_json::from_value::<Appliance>(written("edge-1", json!({ "color": "red" })));
    assert_eq!(later.unwrap(), plain, "one of a later version says more");
    let nowhere = written("a", json!({ "ipv4": null, "ipv6": null }));
    let error = serde_json::from_value::<Appliance>(nowhere).unwrap_err().to_string();
    assert_eq!(error, Mistake::NoAddress.to_string());
}

#[test]
fn pathways_tell_appliances_apart_and_their_number_is_bounded() {
    let now = start();
    let mut registry = registry_of(vec![appliance("a")], now);
    let taken = appliance_with("b", json!({ "pathway": "a" }));
    let error = registry.register(taken, now).unwrap_err();
    assert_eq!(error.to_string(), "pathway `a` is that of `a`: choose another one");
    let unknown = registry.hear("b", well(), now).unwrap_err();
    assert_eq!(unknown, RegistryError::Unknown { name: "b".to_owned() });
    registry.register(appliance_with("a", json!({ "weight": 7 })), now).unwrap();
    assert_eq!(standing(&registry, "a", now), Standing::Well, "it stays as well as it was");
    let fleet = registry.fleet(now);
    let found = fleet.by_pathway(&Pathway::new("a").unwrap()).unwrap();
    assert_eq!(found.appliance.share(), 7e8);
    assert_eq!(fleet.by_pathway(&Pathway::new("b").unwrap()), None);
    for n in 1..APPLIANCES_MAX {
        registry.register(appliance(&format!("edge-{n}")), now).unwrap();
    }
    assert_eq!(registry.register(appliance("z"), now), Err(RegistryError::Full));
    assert!(registry.remove("a") && !registry.remove("a"));
    registry.register(appliance("z"), now).unwrap();
}

#[test]
fn a_pathway_that_nobody_has_any_more_may_be_another_ones() {
    let now = start();
    let mut registry = registry_of(vec![appliance("a"), appliance("b")], now);
    assert!(registry.has(&appliance("a")));
    registry.register(appliance_with("a", json!({ "pathway": "isp" })), now).unwrap();
    assert!(!registry.has(&appliance("a")), "it is another one now");
    registry.register(appliance_with("b", json!({ "pathway": "a" })), now).unwrap();
    let mut resumed = Registry::resumed(Rules::default(), &registry.fleet(now), now);
    for registry in [&mut registry, &mut resumed] {
        let taken = registry.register(appliance_with("c", json!({ "pathway": "a" })), now);
        assert!(matches!(taken, Err(RegistryError::PathwayTaken { by, .. }) if by == "b"));
        assert!(registry.remove("b"));
        registry.register(appliance_with("c", json!({ "pathway": "a" })), now).unwrap();
    }
}

#[test]
fn who_was_kept_although_he_seemed_ill_is_kept_by_a_control_plane_that_starts_again() {
    let now = start();
    let mut registry = registry_of(vec![appliance("a"), appliance("b")], now);
    hear(&mut registry, "b", bad(), 3, now);
    hear(&mut registry, "a", bad(), 3, now + Duration::from_secs(1));
    let known = registry.fleet(now + Duration::from_secs(1));
    let standings =
        |fleet: &Fleet| ["a", "b"].map(|name| member(fleet, name).standing(Family::Ipv4));
    assert_eq!(standings(&known), [Some(Standing::Kept), Some(Standing::Ill)]);
    let later = now + Duration::from_secs(1_000);
    let resumed = Registry::resumed(Rules::default(), &known, later);
    assert_eq!(standings(&resumed.fleet(later)), standings(&known));
}

#[test]
fn one_that_is_new_gets_viewers_when_it_has_been_well_three_times() {
    let now = start();
    let mut registry = registry_of(vec![appliance("a")], now);
    registry.register(appliance("b"), now).unwrap();
    for _ in 0..3 {
        assert_eq!(standing(&registry, "b", now), Standing::New);
        hear(&mut registry, "b", well(), 1, now);
    }
    assert_eq!(standing(&registry, "b", now), Standing::Well);
}

#[test]
fn one_bad_heartbeat_makes_nobody_ill_and_one_good_one_nobody_well() {
    let now = start();
    let mut registry = registry_of(vec![appliance("a"), appliance("b")], now);
    for _ in 0..20 {
        hear(&mut registry, "a", bad(), 2, now);
        hear(&mut registry, "a", well(), 1, now);
        assert_eq!(standing(&registry, "a", now), Standing::Well);
    }
    hear(&mut registry, "a", bad(), 3, now);
    for _ in 0..20 {
        hear(&mut registry, "a", well(), 2, now);
        hear(&mut registry, "a", bad(), 1, now);
        assert_eq!(standing(&registry, "a", now), Standing::Ill);
    }
    hear(&mut registry, "a", well(), 3, now);
    assert_eq!(standing(&registry, "a", now), Standing::Well);
}

#[test]
fn silence_makes_ill_and_a_control_plane_that_starts_again_takes_nobody_out() {
    let start = start();
    let after = |seconds| start + Duration::from_secs(seconds);
    let mut registry = registry_of(vec![appliance("a"), appliance("b")], start);
    assert_eq!(standing(&registry, "a", after(15)), Standing::Well);
    hear(&mut registry, "b", well(), 1, after(15));
    assert_eq!(standing(&registry, "a", after(16)), Standing::Ill);
    assert_eq!(standing(&registry, "b", after(16)), Standing::Well);
    hear(&mut registry, "a", well(), 2, after(17));
    assert_eq!(standing(&registry, "a", after(17)), Standing::Ill, "what came late is not enough");
    hear(&mut registry, "a", well(), 1, after(17));
    assert_eq!(standing(&registry, "a", after(17)), Standing::Well);

    hear(&mut registry, "a", bad(), 3, after(17));
    hear(&mut registry, "a", well(), 2, after(17));
    hear(&mut registry, "a", well(), 1, after(40));
    hear(&mut registry, "b", well(), 3, after(40));
    assert_eq!(standing(&registry, "a", after(40)), Standing::Ill, "three, but not in a row");
    hear(&mut registry, "a", well(), 2, after(40));

    let known = registry.fleet(after(40));
    let text = serde_json::to_string(&known).unwrap();
    let known_again: Fleet = serde_json::from_str(&text).unwrap();
    assert_eq!(known_again, known);
    let later = after(1_000);
    let resumed = Registry::resumed(Rules::default(), &known_again, later);
    assert_eq!(resumed.fleet(later), known);
    assert_eq!(standing(&resumed, "a", later + Duration::from_secs(15)), Standing::Well);
    let silent = resumed.fleet(later + Duration::from_secs(16));
    let ill = silent.members().iter().filter(|m| m.standing(Family::Ipv4) == Some(Standing::Ill));
    assert_eq!(ill.count(), 1, "half of the fleet");
}

#[test]
fn families_of_addresses_are_well_and_ill_apart() {
    let now = start();
    let mut registry = registry_of(vec![appliance("a"), appliance("b")], now);
    hear(&mut registry, "a", Heartbeat { answers_ipv6: false, ..well() }, 3, now);
    registry.register(appliance_with("c", json!({ "ipv6": null })), now).unwrap();
    let fleet = registry.fleet(now);
    assert_eq!(member(&fleet, "a").standing(Family::Ipv4), Some(Standing::Well));
    assert_eq!(member(&fleet, "a").standing(Family::Ipv6), Some(Standing::Ill));
    assert_eq!(member(&fleet, "c").standing(Family::Ipv6), None);
    assert_eq!(Family::of("::ffff:192.0.2.1".parse().unwrap()), Family::Ipv4);
}

#[test]
fn no_more_than_a_share_of_the_fleet_is_taken_out() {
    let now = start();
    let names = names(10);
    let mut registry = registry_of(names.iter().map(|name| appliance(name)).collect(), now);
    let ill = |registry: &Registry| {
        let fleet = registry.fleet(now + Duration::from_secs(10));
        let all = fleet.members().iter();
        let of = |wanted| {
            let is = |m: &&Member| m.standing(Family::Ipv4) == Some(wanted);
            all.clone().filter(is).count()
        };
        (of(Standing::Ill), of(Standing::Kept))
    };
    for (n, name) in names.iter().enumerate() {
        hear(&mut registry, name, bad(), 3, now + Duration::from_secs(n as u64));
        assert_eq!(ill(&registry), ((n + 1).min(5), (n + 1).saturating_sub(5)));
    }
    assert_eq!(standing(&registry, "edge-0", now), Standing::Ill, "it was ill before others");
    assert_eq!(standing(&registry, "edge-9", now), Standing::Kept);
    for name in &names[5..] {
        hear(&mut registry, name, Heartbeat { phase: Phase::Draining, ..bad() }, 1, now);
    }
    assert_eq!(ill(&registry).0, 2 + 5, "of five that are wanted two; the rest is not wanted");
    (0..50).for_each(|n| registry.register(appliance(&format!("new-{n}")), now).unwrap());
    assert_eq!(ill(&registry).0, 2 + 5, "those that were never well make the fleet no larger");
    let alone = {
        let mut registry = registry_of(vec![appliance("a")], now);
        hear(&mut registry, "a", bad(), 9, now);
        standing(&registry, "a", now)
    };
    assert_eq!(alone, Standing::Kept, "a fleet of one keeps it");
}

#[test]
fn near_its_limit_it_gets_less_and_at_it_nobody_new_until_it_is_well_below() {
    let now = start();
    let mut registry = registry_of(vec![appliance("a")], now);
    for (percent, expected) in [
        (0, Room::Open),
        (79, Room::Open),
        (80, Room::Tight { share_percent: 100 }),
        (85, Room::Tight { share_percent: 70 }),
        (94, Room::Tight { share_percent: 16 }),
        (95, Room::Full),
        (94, Room::Full),
        (86, Room::Full),
        (85, Room::Tight { share_percent: 70 }),
        (94, Room::Tight { share_percent: 16 }),
        (100, Room::Full),
        (20, Room::Open),
    ] {
        hear(&mut registry, "a", sending(percent), 1, now);
        assert_eq!(member(&registry.fleet(now), "a").room, expected, "{percent} %");
    }
    hear(&mut registry, "a", Heartbeat { load_percent: 200, ..well() }, 1, now);
    assert_eq!(member(&registry.fleet(now), "a").room, Room::Full, "too busy is full too");
}

proptest! {
    #[test]
    fn whatever_is_heard_the_share_holds_and_somebody_is_left(
        count in 1_usize..12,
        share in 0_u8..=100,
        heard in prop::collection::vec((0_usize..12, 0_u8..5, 0_u64..30), 0..120),
    ) {
        let rules = Rules { removed_share_percent_max: share, ..Rules::default() };
        let (start, mut seconds) = (start(), 0);
        let mut registry = registry_of(names(count).iter().map(|n| appliance(n)).collect(), start);
        registry.rules = rules;
        for (who, what, after) in heard {
            seconds += after;
            let now = start + Duration::from_secs(seconds);
            let heartbeat = match what {
                0 => well(),
                1 | 2 => bad(),
                3 => Heartbeat { phase: Phase::Draining, ..well() },
                _ => Heartbeat { answers_ipv4: false, ..well() },
            };
            registry.hear(&format!("edge-{}", who % count), heartbeat, now).unwrap();
            let fleet = registry.fleet(now);
            for family in Family::ALL {
                let wanted = fleet.members().iter().filter(|m| m.phase() == Phase::Ready);
                let wanted: Vec<_> = wanted.map(|m| m.standing(family).unwrap()).collect();
                let ill = wanted.iter().filter(|standing| **standing == Standing::Ill).count();
                prop_assert!(ill * 100 <= wanted.len() * usize::from(share));
                prop_assert!(share == 100 || wanted.is_empty() || ill < wanted.len());
            }
        }
    }

    #[test]
    fn who_flickers_within_the_bounds_never_changes(
        flicker in prop::collection::vec(any::<bool>(), 0..100),
        begins_well in any::<bool>(),
    ) {
        let now = start();
        let mut registry = registry_of(vec![appliance("a"), appliance("b")], now);
        if !begins_well {
            hear(&mut registry, "a", bad(), 3, now);
        }
        let expected = standing(&registry, "a", now);
        let mut against = 0;
        for says_well in flicker {
            // Never three in a row against what is thought of it.
            let says_well = if against == 2 { begins_well } else { says_well };
            against = if says_well == begins_well { 0 } else { against + 1 };
            hear(&mut registry, "a", if says_well { well() } else { bad() }, 1, now);
            prop_assert_eq!(standing(&registry, "a", now), expected);
        }
    }
}
