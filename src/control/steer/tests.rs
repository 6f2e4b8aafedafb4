//! Answers as viewers and players get them: by the parameters of every player, with too much to do,
//! where steering has ended, and what is counted of each.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::control::Phase;
use crate::control::registry::tests::{appliance, appliance_with, hear, registry_of, start, well};
use crate::control::registry::{Heartbeat, Registry};
use crate::control::routes::table_of;
use crate::control::steering::tests::{edges, fleet};

const NOW: u64 = 1_800_000_000;

fn settings() -> Settings {
    Settings {
        url: None,
        secret: Secret::of(b"0123456789abcdef"),
        seal: None,
        spread: NonZeroU32::new(1 << 20).unwrap(),
        pace: Pace { steady_seconds: 300, unsettled_seconds: 20 },
        answers_per_second: 1_000_000,
        sites: ["film", "news"].map(str::to_owned).into(),
        ended: ["news".to_owned()].into(),
    }
}

fn steer_with(registry: &Registry, routes: &str, settings: Settings) -> Steer {
    let table = if routes.is_empty() { Table::default() } else { table_of(routes) };
    let forwarders = Forwarders { networks: Vec::new(), field: http::header::FORWARDED };
    Steer {
        fleet: Arc::new(ArcSwap::from_pointee(fleet(registry))),
        table: Arc::new(ArcSwap::from_pointee(table)),
        settings: Arc::new(ArcSwap::from_pointee(settings)),
        forwarders: Arc::new(ArcSwap::from_pointee(forwarders)),
        figures: Arc::default(),
        rate: RefCell::default(),
    }
}

fn steer(registry: &Registry) -> Steer {
    steer_with(registry, "10.0.0.0/8 edge-1\n", settings())
}

fn from(viewer: &str, now_seconds: u64) -> From<'_> {
    From { viewer: viewer.parse().unwrap(), scheme: "http", host: None, now_seconds }
}

fn get_at(steer: &Steer, target: &str, now_seconds: u64) -> Response<Bytes> {
    let response = steer.answer(&Method::GET, target, from("10.1.2.3", now_seconds));
    assert_eq!(response.headers()["access-control-allow-origin"], "*", "{target}");
    assert_eq!(response.headers()["cache-control"], "no-store", "{target}");
    response
}

fn get(steer: &Steer, target: &str) -> Response<Bytes> {
    get_at(steer, target, NOW)
}

/// What a player is told, of which it has to be told a status of 200 and a TTL.
fn told(steer: &Steer, target: &str) -> Value {
    let response = get(steer, target);
    assert_eq!(response.status(), StatusCode::OK, "{target}");
    let value: Value = serde_json::from_slice(response.body()).unwrap();
    assert!(value["TTL"].as_u64().is_some_and(|ttl| ttl > 0), "{target}: {value}");
    assert_eq!(value["VERSION"], 1, "{target}");
    value
}

fn reload(told: &Value) -> String {
    told["RELOAD-URI"].as_str().unwrap().to_owned()
}

fn counted(counts: Vec<(&'static str, u64)>) -> Vec<String> {
    let counted = counts.into_iter().filter(|(_, count)| *count > 0);
    counted.map(|(word, count)| format!("{word} {count}")).collect()
}

#[test]
fn a_viewer_is_sent_to_the_box_his_network_was_announced_to_with_all_he_asked_for() {
    let steer = steer(&edges(3));
    let response = get(&steer, "/steer/v1/go/film/a/../b%2fc.mp4?d=e&tidegate-decision=old.1");
    assert_eq!(response.status(), StatusCode::FOUND);
    let location = response.headers()["location"].to_str().unwrap();
    let begins = "http://edge-1/b%2Fc.mp4?d=e&tidegate-decision=";
    assert!(location.starts_with(begins) && location.contains(".0c."), "{location}");
    let settings = Settings { url: Some("https://s.example".to_owned()), ..settings() };
    let secure = steer_with(&edges(1), "", settings);
    let response = get(&secure, "/steer/v1/go/film/a");
    assert!(response.headers()["location"].to_str().unwrap().starts_with("https://edge-0/a?"));
    assert_eq!(counted(steer.figures.decisions()), ["route 1"]);
    assert_eq!(counted(secure.figures.decisions()), ["share 1"]);
}

#[test]
fn a_player_asks_again_by_the_name_that_it_asked_by_if_that_is_known() {
    let with_url = || Settings { url: Some("https://s.example".to_owned()), ..settings() };
    for (settings, host, begins) in [
        (settings(), None, "/steer/v1/hls/film/a?sid="),
        (settings(), Some("s.test:8081"), "http://s.test:8081/steer/v1/hls/film/a?sid="),
        (with_url(), Some("s.test:8081"), "https://s.example/steer/v1/hls/film/a?sid="),
    ] {
        let steer = steer_with(&edges(1), "", settings);
        let from = From { host, ..from("10.1.2.3", NOW) };
        let response = steer.answer(&Method::GET, "/steer/v1/hls/film/a", from);
        let told: Value = serde_json::from_slice(response.body()).unwrap();
        assert!(reload(&told).starts_with(begins), "{told}");
    }
    for (field, host) in [("s.test:81", Some("s.test:81")), ("a b", None), ("u@s.test", None)] {
        let request = Request::get("/").header(HOST, field).body(()).unwrap();
        assert_eq!(super::host(&request), host, "{field}");
    }
    let request = Request::get("https://s.test/").header(HOST, "other").body(()).unwrap();
    assert_eq!(super::host(&request), Some("s.test"));
}

#[test]
fn ranked_appliances_come_with_urls_and_reasons() {
    let steer = steer(&edges(2));
    let response = get(&steer, "/steer/v1/rank/film/a.mp4?b=c");
    let value: Value = serde_json::from_slice(response.body()).unwrap();
    let (decision, url) = (value["decision"].as_str().unwrap(), &value["ranked"][0]["url"]);
    let begins = format!("http://edge-1/a.mp4?b=c&tidegate-decision={decision}.0c.");
    assert!(url.as_str().unwrap().starts_with(&begins), "{url}");
    let expected = json!({
        "appliance": "edge-1", "pathway": "edge-1", "host": "edge-1",
        "url": url,
        "reasons": [
            { "moved": "up", "rule": "announced", "by": "/8",
              "text": "his network is announced to it (/8)" },
            { "moved": "among", "rule": "share", "text": "among its equals, by its share" },
        ],
    });
    assert_eq!(value["ranked"][0], expected);
    assert_eq!(value["ranked"][1]["reasons"][0]["rule"], "not-announced");
    assert_eq!((&value["viewer"], &value["site"]), (&json!("10.1.2.3"), &json!("film")));
    assert_eq!((&value["ttl_seconds"], &value["last_resort"]), (&json!(300), &json!(false)));
}

#[test]
fn what_is_no_question_or_of_no_site_is_refused_and_nobody_is_told_so_while_he_plays() {
    let steer = steer(&edges(1));
    for (target, status) in [
        ("/", 404),
        ("/steer/v1/other/film/a", 404),
        ("/steer/v1/go/other/a", 404),
        ("/steer/v1/rank/film/%zz", 400),
        ("/steer/v1/go/news/a", 410),
        ("/steer/v1/hls/news/a", 410),
    ] {
        assert_eq!(get(&steer, target).status().as_u16(), status, "{target}");
    }
    for target in ["/steer/v1/hls/other/a", "/steer/v1/dash/film/%zz", "/steer/v1/hls/a%22/b"] {
        assert!(told(&steer, target)["PATHWAY-CLONES"].is_null());
    }
    let from = from("10.1.2.3", NOW);
    let refused = steer.answer(&Method::POST, "/steer/v1/go/film/a", from);
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["allow"]),
        (405, &METHODS.parse().unwrap())
    );
    let preflight = steer.answer(&Method::OPTIONS, "/steer/v1/hls/film/a", from);
    assert_eq!(preflight.status(), StatusCode::NO_CONTENT);
    assert_eq!(preflight.headers()["access-control-allow-headers"], "*");
    assert_eq!(counted(steer.figures.decisions()), ["nothing 3", "ended 2"]);
}

#[test]
fn without_anybody_he_reaches_a_viewer_is_told_to_come_again() {
    let old = registry_of(vec![appliance_with("old", json!({ "ipv6": null }))], start());
    let steer = steer(&old);
    let from = from("2001:db8::1", NOW);
    let response = steer.answer(&Method::GET, "/steer/v1/go/film/a", from);
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["retry-after"], "10");
    assert_eq!(counted(steer.figures.decisions()), ["nobody 1"]);
    get(&steer, "/steer/v1/go/film/a");
    assert_eq!(counted(steer.figures.candidates()), ["none 1", "one 1"]);
    let steer = self::steer(&edges(2));
    get(&steer, "/steer/v1/rank/film/a");
    get(&steer, "/steer/v1/hls/film/m?known=edge-1");
    get(&steer, "/steer/v1/hls/film/m?known=origin&base=origin");
    assert_eq!(counted(steer.figures.candidates()), ["one 1", "more 2"]);
}

#[test]
fn players_are_answered_by_whatever_they_report() {
    let steer = steer(&edges(2));
    let known = "known=edge-0,edge-1,origin";
    // Open-connect's matrix: quoted, unquoted, escaped quotes, lists with empty members, missing.
    for (kind, report, flaws) in [
        ("hls", "", &[][..]),
        ("hls", "&_HLS_pathway=edge-0&_HLS_throughput=5140000", &[]),
        ("hls", "&_HLS_pathway=\"edge-0\"&_HLS_throughput=5140000", &[]),
        ("hls", "&_HLS_pathway=%22edge-0%22", &[]),
        ("hls", "&_HLS_pathway=elsewhere", &["unknown 1"]),
        ("hls", "&_HLS_pathway=edge-0&_HLS_throughput=fast", &["number 1"]),
        ("dash", "", &[]),
        ("dash", "&_DASH_pathway=edge-0,edge-1&_DASH_throughput=1,", &[]),
        ("dash", "&_DASH_pathway=\"edge-0,edge-1\"&_DASH_throughput=,2", &[]),
        ("dash", "&_DASH_pathway=%22edge-0%2Cedge-1%22&_DASH_throughput=%221%2C2%22", &[]),
        ("dash", "&_DASH_pathway=edge-0,,edge-1&_DASH_throughput=1,,2", &[]),
        ("dash", "&_DASH_pathway=edge-0&_DASH_throughput=1,2", &["count 1"]),
    ] {
        let before = counted(steer.figures.flaws());
        let told = told(&steer, &format!("/steer/v1/{kind}/film/master?{known}{report}"));
        assert_eq!(told["PATHWAY-PRIORITY"], json!(["edge-1", "edge-0", "origin"]), "{report}");
        assert!(told["PATHWAY-CLONES"].is_null(), "{report}");
        let now = counted(steer.figures.flaws());
        let more: Vec<_> = now.into_iter().filter(|one| !before.contains(one)).collect();
        assert_eq!(more, flaws, "{report}");
    }
}

#[test]
fn a_session_is_made_here_goes_on_where_it_is_and_cannot_be_chosen() {
    let steer = steer_with(&edges(8), "", settings());
    let names: Vec<String> = (0..8).map(|n| format!("edge-{n}")).collect();
    let first =
        told(&steer, &format!("/steer/v1/hls/film/m?known={}&base=edge-0", names.join(",")));
    let order = first["PATHWAY-PRIORITY"].clone();
    let uri = reload(&first);
    assert!(uri.starts_with("/steer/v1/hls/film/m?sid=") && uri.contains("&sig="), "{uri}");
    // As hls.js writes it.
    let plays = order[0].as_str().unwrap();
    let uri = format!("{}&_HLS_pathway={plays}&_HLS_throughput=1", uri.replace(',', "%2C"));
    let again = told(&steer, &uri);
    assert_eq!(again["PATHWAY-PRIORITY"], order, "sticky");
    assert_eq!(reload(&again), reload(&first));
    assert_eq!(counted(steer.figures.decisions()), ["stays 1", "share 1"]);
    assert_eq!(steer.figures.sessions(), 1);
    let sid = |uri: &str| uri.split_once("?sid=").unwrap().1.split('&').next().unwrap().to_owned();
    let forged = uri.replace(&sid(&uri), "chosen");
    assert_ne!(sid(&reload(&told(&steer, &forged))), "chosen");
    // Another asset's: whoever signed it, it is none of this one.
    let other = uri.replace("/film/m?", "/film/n?");
    assert_ne!(sid(&reload(&told(&steer, &other))), sid(&uri));
    assert_eq!(counted(steer.figures.flaws()), ["session 2"]);
}

#[test]
fn only_pathways_that_the_asset_has_are_told_and_others_as_clones_of_one() {
    let steer = steer(&edges(2));
    let all = told(&steer, "/steer/v1/dash/film/m?known=origin&base=origin");
    assert_eq!(all["PATHWAY-PRIORITY"], json!(["edge-1", "edge-0", "origin"]));
    assert_eq!(all["PATHWAY-CLONES"].as_array().unwrap().len(), 2);
    let none = told(&steer, "/steer/v1/hls/film/m");
    assert_eq!(none["PATHWAY-PRIORITY"], json!(["."]));
    let none = told(&steer, "/steer/v1/dash/film/m");
    assert!(none["PATHWAY-PRIORITY"].is_null());
}

#[test]
fn one_that_drains_is_gone_with_the_next_answer_which_comes_soon() {
    let mut registry = edges(2);
    let steer = steer(&registry);
    let first = told(&steer, "/steer/v1/hls/film/m?known=edge-0,edge-1");
    assert_eq!(first["PATHWAY-PRIORITY"], json!(["edge-1", "edge-0"]));
    hear(&mut registry, "edge-1", Heartbeat { phase: Phase::Draining, ..well() }, 1, start());
    steer.fleet.store(Arc::new(fleet(&registry)));
    let next = told(&steer, &format!("{}&_HLS_pathway=edge-1", reload(&first)));
    assert_eq!((&next["PATHWAY-PRIORITY"], &next["TTL"]), (&json!(["edge-0"]), &json!(20)));
    hear(&mut registry, "edge-0", Heartbeat { phase: Phase::Drained, ..well() }, 1, start());
    steer.fleet.store(Arc::new(fleet(&registry)));
    let last = told(&steer, &format!("{}&_HLS_pathway=edge-0", reload(&next)));
    assert_eq!(last["PATHWAY-PRIORITY"], json!(["edge-1", "edge-0"]), "the last resort");
    assert_eq!(counted(steer.figures.decisions()), ["route 1", "share 1", "last_resort 1"]);
    let ranked: Value =
        serde_json::from_slice(get(&steer, "/steer/v1/rank/film/a").body()).unwrap();
    assert_eq!((&ranked["last_resort"], &ranked["ttl_seconds"]), (&json!(true), &json!(20)));
}

#[test]
fn with_too_much_to_do_players_are_told_to_ask_less_often_and_then_to_go_on_as_they_do() {
    let steer = steer_with(&edges(2), "", Settings { answers_per_second: 10, ..settings() });
    let ttl = |now| {
        let response = get_at(&steer, "/steer/v1/hls/film/m?known=edge-0,edge-1", now);
        assert_eq!(response.status(), StatusCode::OK);
        let told: Value = serde_json::from_slice(response.body()).unwrap();
        told["TTL"].as_u64().unwrap()
    };
    assert!((0..10).all(|_| ttl(NOW) == 300));
    assert!((0..15).all(|_| ttl(NOW) >= 480));
    assert!(ttl(NOW + 1) >= 480, "it was too much a moment ago");
    assert_eq!(ttl(NOW + 2), 300);
    let decisions = steer.figures.decisions();
    let of = |word| decisions.iter().find(|(one, _)| *one == word).unwrap().1;
    assert_eq!((of("share"), of("nothing"), steer.figures.slower()), (22, 5, 16));
    let direct = (0..50).map(|_| get_at(&steer, "/steer/v1/go/film/a", NOW + 3).status());
    assert!(direct.into_iter().all(|status| status == StatusCode::FOUND), "they are decided");
}

#[test]
fn with_too_much_to_do_not_all_who_ask_in_one_second_come_again_in_one() {
    let steer = steer_with(&edges(2), "", Settings { answers_per_second: 1, ..settings() });
    let ttls: BTreeSet<u64> = (0..50)
        .map(|n| {
            let address = format!("10.1.2.{n}");
            let viewer = from(&address, NOW);
            let ranked = steer.answer(&Method::GET, "/steer/v1/rank/film/a", viewer);
            let ranked: Value = serde_json::from_slice(ranked.body()).unwrap();
            ranked["ttl_seconds"].as_u64().unwrap()
        })
        .collect();
    assert!(ttls.len() > 10, "{ttls:?}");
}

proptest! {
    #[test]
    fn a_player_is_always_told_something_it_can_go_on_with(
        kind in prop::sample::select(vec!["hls", "dash"]),
        path in "(/|[a-z.]|%[0-9a-f]{1,2}|\u{e9}|\"){0,20}",
        query in "(sid=|known=|base=|told=|sig=|_(HLS|DASH)_(pathway|throughput)=|edge-[0-3]|%22|\
            \"|,|&|%2C|[a-z0-9.]{1,4}|%[0-9a-f]{1,2}|[0-9]{1,22}){0,30}",
    ) {
        let steer = steer_with(&registry_of(vec![appliance("edge-0")], start()), "", settings());
        let told = told(&steer, &format!("/steer/v1/{kind}/film/{path}?{query}"));
        let priority = told["PATHWAY-PRIORITY"].as_array();
        prop_assert!(priority.is_some_and(|all| !all.is_empty()) || kind == "dash");
        let sid = |told: &Value| reload(told).split_once("?sid=").unwrap().1[..22].to_owned();
        let again = self::told(&steer, &reload(&told));
        prop_assert_eq!(sid(&again), sid(&told), "it was signed here");
    }
}
