//! Who comes in to a site, from where and when: decided before a token, the cache or an origin is
//! looked at, by the address the rest goes by, and by files that are read again. And whom routes
//! have for another box.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use http::Method;
use serde_json::Value;
use tempfile::TempDir;

use crate::proxies::header;
use crate::support::{
    Client, Configured, Edge, Origin, PATIENCE, PIECE, Process, Script, configured, text,
};

/// A database that knows of three networks: Germany, (IPv6) France, and one that is registered in
/// Australia and used nobody knows where.
const CITY: &[u8] = include_bytes!("../../fuzz/seeds/places/city");
const GERMAN: &str = "192.0.2.1";
const AUSTRALIAN: &str = "198.51.100.1";
const FRENCH: &str = "2001:db8::1";
const NOWHERE: &str = "203.0.113.1";

/// An edge that believes who asks of whom he brings, and logs to a file.
fn ruled(origin: &Origin, folder: &Path, viewers: &str) -> Configured {
    let log = folder.join("access.log");
    Edge::in_front_of(origin)
        .setting("log.access", &log.to_string_lossy())
        .setting("proxies.forwarded", "[\"127.0.0.0/8\"]")
        .site_setting(viewers)
}

async fn status(edge: &Edge, path: &str, viewer: &str) -> u16 {
    edge.get(path).header("x-forwarded-for", viewer).send().await.status
}

async fn until(edge: &Edge, viewer: &str, expected: u16) {
    let asked = Instant::now();
    while status(edge, "/a", viewer).await != expected {
        assert!(asked.elapsed() < PATIENCE, "{viewer}: {expected}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Why each request did not come in, as the log has it, once the edge has ended.
async fn barred(mut edge: Edge, folder: &Path) -> Vec<Option<String>> {
    edge.drain().await;
    let log = fs::read_to_string(folder.join("access.log")).unwrap();
    let word = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap();
        line["barred"].as_str().map(str::to_owned)
    };
    log.lines().map(word).collect()
}

#[tokio::test]
async fn who_is_in_another_country_gets_403_before_the_cache_or_an_origin_is_asked() {
    let (origin, folder) = (Origin::serving("/a", Script::of(PIECE)), TempDir::new().unwrap());
    origin.serve("/unknown/a", Script::of(PIECE));
    origin.serve("/free/a", Script::of(PIECE));
    let database = folder.path().join("city.mmdb");
    fs::write(&database, CITY).unwrap();
    let edge = ruled(&origin, folder.path(), "viewers.countries = { only = [\"DE\"] }")
        .setting("routes.databases", &database.to_string_lossy())
        .rule("/unknown/**", "viewers.countries = { except = [\"FR\"], unknown = \"let-in\" }")
        .rule("/free/**", "viewers = \"everyone\"\nmethods = [\"POST\"]\ncors = \"*\"")
        .rule("/post", "methods = [\"POST\"]\ncors = \"*\"")
        .start();
    for viewer in [FRENCH, AUSTRALIAN, NOWHERE] {
        let answer = edge.get("/a").header("x-forwarded-for", viewer).send().await;
        assert_eq!((answer.status, answer.header("cache-control")), (403, "no-store".to_owned()));
        assert_eq!(&answer.body[..], b"403: it is not for your country\n");
    }
    let post = edge.client().request(Method::POST, "/post").header("origin", "http://p.test");
    let answer = post.header("x-forwarded-for", FRENCH).send().await;
    assert_eq!(answer.status, 403, "what is passed on too");
    assert_eq!(answer.header("access-control-allow-origin"), "*", "a page can read it");
    assert_eq!(origin.all_requests().len(), 0, "nobody was asked");
    for viewer in [GERMAN, &format!("::ffff:{GERMAN}")] {
        assert_eq!(status(&edge, "/a", viewer).await, 200, "{viewer}");
    }
    assert_eq!(status(&edge, "/a", FRENCH).await, 403, "although it is held");
    for (path, viewer, expected) in [
        ("/unknown/a", NOWHERE, 200),
        ("/unknown/a", FRENCH, 403),
        ("/free/a", FRENCH, 200),
        ("/unknown/a", AUSTRALIAN, 200),
    ] {
        assert_eq!(status(&edge, path, viewer).await, expected, "{path} {viewer}");
    }
    let refused = "tidegate_door_refusals_total";
    assert_eq!(edge.metric(refused, &["reason=\"country\""]).await, 4.0);
    assert_eq!(edge.metric(refused, &["reason=\"country_unknown\""]).await, 2.0);
    let told = barred(edge, folder.path()).await;
    let told: Vec<_> = told.iter().map(|word| word.as_deref().unwrap_or("-")).collect();
    let (country, unknown) = ("country", "country_unknown");
    let expected = [country, unknown, unknown, country, "-", "-", country, "-", country, "-"];
    assert_eq!(told[..10], expected);
}

#[tokio::test]
async fn no_rule_is_gone_round_by_a_path_that_an_origin_reads_otherwise() {
    let (origin, folder) = (Origin::serving("/de/a", Script::of(PIECE)), TempDir::new().unwrap());
    origin.serve("/de/a;x", Script::of(PIECE));
    let edge = ruled(&origin, folder.path(), "")
        .rule("/de/**", "viewers.networks = { only = [\"192.0.2.0/24\"] }")
        .rule("/post/**", "methods = [\"POST\"]")
        .start();
    for path in ["//de/a", "/x/%2Fde/a", "/x%2F..%2Fde/a", "/x/..;/de/a", "/x%5Cde/a"] {
        assert_eq!(status(&edge, path, NOWHERE).await, 403, "{path}");
        let post = edge.client().request(Method::POST, &format!("/post{path}"));
        assert_eq!(post.send().await.status, 403, "{path}");
    }
    // Some origins leave out what follows a `;`.
    for path in ["/de;x/a", "/;x/de/a", "/d;/../de;/a"] {
        assert_eq!(status(&edge, path, NOWHERE).await, 403, "{path}");
    }
    assert_eq!(status(&edge, "/de/a", NOWHERE).await, 403);
    assert!(origin.all_requests().is_empty(), "nobody was asked");
    for path in ["/de/a", "/de/a;x"] {
        assert_eq!(status(&edge, path, "192.0.2.1").await, 200, "{path}");
    }
    let refused = edge.metric("tidegate_door_refusals_total", &["reason=\"unclear\""]).await;
    assert_eq!(refused, 13.0);
}

#[tokio::test]
async fn a_viewer_that_a_load_balancer_brings_is_the_one_who_is_looked_at() {
    let (origin, folder) = (Origin::serving("/a", Script::of(PIECE)), TempDir::new().unwrap());
    let viewers = "viewers.networks = { only = [\"192.0.2.0/24\"], except = [\"192.0.2.66\"] }";
    let edge = ruled(&origin, folder.path(), viewers)
        .setting("proxies.proxy_protocol", "[\"127.0.0.0/8\"]")
        .start();
    for (viewer, expected) in [
        ("192.0.2.1:9", 200),
        ("[::ffff:192.0.2.1]:9", 200),
        ("192.0.2.66:9", 403),
        ("[::ffff:192.0.2.66]:9", 403),
        ("198.51.100.1:9", 403),
        ("[2001:db8::1]:9", 403),
    ] {
        let client = edge.client().saying_first(&header(viewer.parse().unwrap()));
        let answer = client.get("/a").send().await;
        assert_eq!(answer.status, expected, "{viewer}");
    }
}

#[tokio::test]
async fn hours_and_moments_are_those_of_the_site() {
    let (origin, folder) = (Origin::serving("/a", Script::of(PIECE)), TempDir::new().unwrap());
    for path in ["/early/a", "/late/a", "/now/a"] {
        origin.serve(path, Script::of(PIECE));
    }
    // One of two halves of the day is over, whichever it is when this runs.
    let edge = ruled(&origin, folder.path(), "")
        .rule("/early/**", "viewers.times.from = \"2999-01-01T00:00:00Z\"")
        .rule("/late/**", "viewers.times.until = \"2026-01-01T00:00:00+01:00\"")
        .rule("/morning/**", "viewers.times.daily = [\"00:00-12:00\"]")
        .rule("/evening/**", "viewers.times.daily = [\"12:00-24:00\"]")
        .rule(
            "/now/**",
            "viewers.times = { daily = [\"00:00-12:00\", \"12:00-24:00\"], \
             zone = \"Asia/Kathmandu\" }",
        )
        .start();
    assert_eq!(status(&edge, "/early/a", GERMAN).await, 403);
    assert_eq!(status(&edge, "/late/a", GERMAN).await, 403);
    assert_eq!(status(&edge, "/now/a", GERMAN).await, 200);
    let morning = status(&edge, "/morning/a", GERMAN).await;
    let evening = status(&edge, "/evening/a", GERMAN).await;
    assert!(morning == 403 || evening == 403, "{morning} {evening}");
    assert!(morning != 403 || evening != 403 || is_noon(), "{morning} {evening}");
    let refused = "tidegate_door_refusals_total";
    for reason in ["early", "late"] {
        let label = format!("reason=\"{reason}\"");
        assert_eq!(edge.metric(refused, &[&label]).await, 1.0, "{reason}");
    }
    assert!(edge.metric(refused, &["reason=\"hours\""]).await >= 1.0);
    let told = barred(edge, folder.path()).await;
    assert_eq!(told[..2], [Some("early".to_owned()), Some("late".to_owned())]);
}

/// Whether noon may have come between two requests.
fn is_noon() -> bool {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() % 86_400;
    now.abs_diff(43_200) < 60 || !(60..86_340).contains(&now)
}

#[tokio::test]
async fn files_are_read_again_when_they_change_and_bad_ones_change_nothing() {
    let (origin, folder) = (Origin::serving("/a", Script::of(PIECE)), TempDir::new().unwrap());
    let (list, database) = (folder.path().join("ours"), folder.path().join("places"));
    fs::write(&list, format!("{GERMAN}\n{AUSTRALIAN}\n")).unwrap();
    fs::write(&database, CITY).unwrap();
    let viewers =
        format!("viewers = {{ networks.only_file = {list:?}, countries.except = [\"AU\"] }}");
    let edge = ruled(&origin, folder.path(), &viewers)
        .setting("routes.databases", &database.to_string_lossy())
        .start();
    assert_eq!(status(&edge, "/a", GERMAN).await, 200);
    assert_eq!(status(&edge, "/a", AUSTRALIAN).await, 403);
    assert_eq!(status(&edge, "/a", FRENCH).await, 403);
    fs::write(&list, format!("# another one\n{FRENCH}\n{AUSTRALIAN}\n")).unwrap();
    until(&edge, FRENCH, 200).await;
    assert_eq!(status(&edge, "/a", GERMAN).await, 403);
    // Torn, not one, gone: those of before go on.
    for bad in [Some("2001:db8::1\n2001:db8::/1290\n"), Some(""), None] {
        match bad {
            Some(text) => {
                fs::write(&list, text).unwrap();
                fs::write(&database, &CITY[..CITY.len() / 2]).unwrap();
            }
            None => {
                fs::remove_file(&list).unwrap();
                fs::remove_file(&database).unwrap();
            }
        }
        // Two looks come in this time.
        tokio::time::sleep(Duration::from_millis(5_500)).await;
        assert_eq!(status(&edge, "/a", FRENCH).await, 200, "{bad:?}");
        assert_eq!(status(&edge, "/a", GERMAN).await, 403, "{bad:?}");
        assert_eq!(status(&edge, "/a", AUSTRALIAN).await, 403, "{bad:?}");
    }
    fs::write(&database, CITY).unwrap();
    fs::write(&list, format!("{GERMAN}\n")).unwrap();
    until(&edge, GERMAN, 200).await;
    until(&edge, FRENCH, 403).await;
}

/// Settings of a box called `here` beside `there`, and what its one file of routes says.
fn routed(origin: &Origin, folder: &Path, routes: &str, off_route: &str) -> Configured {
    let file = folder.join("prefixes");
    write_routes(&file, routes);
    let appliance = |name: &str, more: &str| {
        format!("{{ name = {name:?}, addresses = \"192.0.2.9\", capacity = \"1 Gbit/s\"{more} }}")
    };
    let there = appliance("there", ", host = \"there.test:8443\", sites = [\"media\"]");
    ruled(origin, folder, &format!("off_route = {off_route:?}"))
        .setting("routes.reread", "50ms")
        .setting("routes.hold", "200ms")
        .setting("routes.files", &format!("[{{ path = {file:?} }}]"))
        .setting("steering.name", "here")
        .setting("steering.appliances", &format!("[{}, {there}]", appliance("here", "")))
}

/// A file of routes that nobody writes any more.
fn write_routes(file: &Path, routes: &str) {
    let new = file.with_extension("new");
    fs::write(&new, routes).unwrap();
    let written = std::time::SystemTime::now() - Duration::from_secs(60);
    fs::File::options().write(true).open(&new).unwrap().set_modified(written).unwrap();
    fs::rename(new, file).unwrap();
}

#[tokio::test]
async fn whom_routes_have_for_another_box_is_sent_there_once_with_all_he_asked_by() {
    let (origin, folder) = (Origin::serving("/a?b=c", Script::of(PIECE)), TempDir::new().unwrap());
    origin.serve("/a", Script::of(PIECE));
    let keys = serde_json::json!({ "publisher": { "keys": [] } }).to_string();
    let file = folder.path().join("keys.json");
    fs::write(&file, keys).unwrap();
    let routes = format!("{GERMAN}/32 here there\n198.51.100.0/24 there\n203.0.113.0/24 gone\n");
    let edge = routed(&origin, folder.path(), &routes, "redirect")
        .site_setting(&format!("tokens = {{ keys = {file:?} }}\naccess = \"open\""))
        .start();
    until(&edge, AUSTRALIAN, 302).await;
    let refused = "tidegate_door_refusals_total";
    let sent_on = async || edge.metric(refused, &["reason=\"sent_on\""]).await;
    let sent_before = sent_on().await;
    // Until the routes were read he was served.
    let asked = origin.all_requests().len();
    let ask = async |viewer: &str, target: &str| {
        edge.get(target).header("x-forwarded-for", viewer).send().await
    };
    let answer = ask(AUSTRALIAN, "/a?b=c&URISigningPackage=token").await;
    let location = answer.header("location");
    let (before, decision) = location.split_once("&tidegate-decision=").expect("a decision");
    assert_eq!(before, "http://there.test:8443/a?b=c&URISigningPackage=token");
    assert_eq!((answer.status, answer.header("cache-control")), (302, "no-store".to_owned()));
    assert_eq!(origin.all_requests().len(), asked, "nobody was asked");
    for (viewer, target, expected) in [
        (GERMAN, "/a", 200),
        // For whom nobody announced anything, and whom nobody that is there is for.
        (FRENCH, "/a", 200),
        (NOWHERE, "/a", 200),
        // Who was sent here is not sent on.
        (AUSTRALIAN, &format!("/a?tidegate-decision={decision}"), 200),
        (AUSTRALIAN, "/a", 302),
    ] {
        assert_eq!(ask(viewer, target).await.status, expected, "{viewer} {target}");
    }
    assert_eq!(sent_on().await - sent_before, 2.0);
    // A file that is gone for longer than it is held turns nobody away.
    fs::remove_file(folder.path().join("prefixes")).unwrap();
    until(&edge, AUSTRALIAN, 200).await;
    let told = barred(edge, folder.path()).await;
    assert!(told.contains(&Some("sent_on".to_owned())));
}

#[tokio::test]
async fn who_is_not_announced_to_this_box_is_denied_where_that_is_said_and_served_where_not() {
    for (off_route, expected) in [("deny", 403), ("serve", 200)] {
        let (origin, folder) = (Origin::serving("/a", Script::of(PIECE)), TempDir::new().unwrap());
        let routes = format!("{GERMAN}/32 here\n198.51.100.0/24 there\n");
        let edge = routed(&origin, folder.path(), &routes, off_route).start();
        edge.until_metric("tidegate_route_prefixes", &["ipv4"], |count| count >= 2.0).await;
        until(&edge, AUSTRALIAN, expected).await;
        let steered = status(&edge, "/a?tidegate-decision=1.0", AUSTRALIAN).await;
        assert_eq!(steered, expected, "whoever sent him");
        assert_eq!(status(&edge, "/a", GERMAN).await, 200);
        let elsewhere = edge.metric("tidegate_door_refusals_total", &["reason=\"elsewhere\""]);
        assert_eq!(elsewhere.await >= 2.0, expected == 403);
    }
}

#[tokio::test]
async fn who_is_sent_on_is_so_by_the_scheme_that_viewers_ask_steering_by() {
    let (origin, folder) = (Origin::serving("/a", Script::of(PIECE)), TempDir::new().unwrap());
    // What ends TLS stands before both.
    let edge = routed(&origin, folder.path(), "198.51.100.0/24 there\n", "redirect")
        .setting("steering.url", "https://s.test")
        .start();
    until(&edge, AUSTRALIAN, 302).await;
    let answer = edge.get("/a").header("x-forwarded-for", AUSTRALIAN).send().await;
    let location = answer.header("location");
    assert!(location.starts_with("https://there.test:8443/a?"), "{location}");
}

#[tokio::test]
async fn a_box_that_a_reload_names_goes_by_that_name_at_once() {
    let (origin, folder) = (Origin::serving("/a", Script::of(PIECE)), TempDir::new().unwrap());
    let file = folder.path().join("prefixes");
    write_routes(&file, &format!("{GERMAN}/32 here\n198.51.100.0/24 there\n"));
    let settings = |named: &str, name: &str, off_route: &str| {
        format!(
            "proxies.forwarded = [\"127.0.0.0/8\"]\n[routes]\nreread = \"50ms\"\n\
             hold = \"10s\"\nfiles = [{{ path = {file:?} }}]\n[steering]\n{named}\n\
             appliances = [{{ name = {name:?}, addresses = \"192.0.2.9\", \
             capacity = \"1 Gbit/s\" }}, {{ name = \"there\", addresses = \"192.0.2.10\", \
             capacity = \"1 Gbit/s\" }}]\n[[sites]]\nname = \"media\"\n\
             hosts = [\"media.test\"]\norigins = [\"http://{}\"]\noff_route = {off_route:?}\n",
            origin.address()
        )
    };
    let process = Process::start(&configured(folder.path(), &settings("", "here", "serve")));
    let client = Client::plain(process.http, "media.test");
    let asks =
        async |viewer: &str| client.get("/a").header("x-forwarded-for", viewer).send().await.status;
    let until_barred = async |viewer: &str| {
        let asked = Instant::now();
        while asks(viewer).await != 403 {
            assert!(asked.elapsed() < PATIENCE, "{viewer} is served");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert_eq!(asks(AUSTRALIAN).await, 200);
    configured(folder.path(), &settings("name = \"here\"", "here", "deny"));
    assert_eq!(process.answers(&["reload"]).0, 0);
    until_barred(AUSTRALIAN).await;
    assert_eq!(asks(GERMAN).await, 200);
    // The routes call it by its new name before it knows of it, and viewers are served meanwhile.
    write_routes(&file, &format!("{GERMAN}/32 fra-1\n203.0.113.0/24 there\n"));
    until_barred(NOWHERE).await;
    assert_eq!(asks(GERMAN).await, 200);
    configured(folder.path(), &settings("name = \"fra-1\"", "fra-1", "deny"));
    assert_eq!(process.answers(&["reload"]).0, 0);
    assert_eq!(asks(GERMAN).await, 200, "they are its own");
    assert_eq!(asks(NOWHERE).await, 403);
    process.stop();
}

#[tokio::test]
async fn nothing_is_brought_ahead_for_whom_a_rule_keeps_out() {
    let (origin, folder) = (Origin::serving("/free/a", Script::of(PIECE)), TempDir::new().unwrap());
    origin.serve("/de/film.mp4", Script::of(PIECE));
    let edge = ruled(&origin, folder.path(), "prefetch = \"cmcd\"")
        .rule("/de/**", "viewers.networks = { only = [\"192.0.2.0/24\"] }")
        .start();
    let telling = async |viewer: &str, next: &str| {
        let asked = edge.get("/free/a").header("x-forwarded-for", viewer);
        assert_eq!(
            asked.header("CMCD-Request", &format!("nor=\"{next}\"")).send().await.status,
            200
        );
    };
    let prefetched = async |outcome: &str| {
        edge.metric("tidegate_cmcd_prefetches_total", &[&format!("outcome={outcome:?}")]).await
    };
    let next = ["..%2Fde%2Ffilm.mp4", "%2Fx%2F%2Fde%2Ffilm.mp4", "%2Fx%2F..%3B%2Fde%2Ffilm.mp4"];
    for next in next {
        telling(AUSTRALIAN, next).await;
    }
    assert_eq!((prefetched("refused").await, prefetched("started").await), (3.0, 0.0));
    assert_eq!(origin.all_requests().len(), 1, "for what he asked for");
    telling(GERMAN, next[0]).await;
    assert_eq!(prefetched("started").await, 1.0);
}

#[tokio::test]
async fn the_memory_of_databases_and_lists_is_accounted_for_as_long_as_they_count() {
    let (origin, folder) = (Origin::serving("/a", Script::of(PIECE)), TempDir::new().unwrap());
    let (list, database) = (folder.path().join("ours"), folder.path().join("places"));
    let networks: String =
        (0..2_000).map(|n| format!("10.{}.{}.0/24\n", n / 256, n % 256)).collect();
    fs::write(&list, networks).unwrap();
    fs::write(&database, CITY).unwrap();
    let settings = |viewers: &str| {
        format!(
            "routes.databases = [{database:?}]\n[[sites]]\nname = \"media\"\n\
             hosts = [\"media.test\"]\norigins = [\"http://{}\"]\n{viewers}\n",
            origin.address()
        )
    };
    let both =
        format!("viewers = {{ networks.only_file = {list:?}, countries.except = [\"AU\"] }}");
    let process = Process::start(&configured(folder.path(), &settings(&both)));
    let admin = Client::plain(process.admin, "admin.test");
    let reserved = async || {
        let metrics = text(&admin.get("/metrics").send().await.body);
        let name = "tidegate_memory_used_bytes{use=\"routes\"} ";
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.parse::<f64>().unwrap() as usize
    };
    let until = async |what: &str, holds: &dyn Fn(usize) -> bool| {
        let asked = Instant::now();
        while !holds(reserved().await) {
            assert!(asked.elapsed() < PATIENCE, "{what}: {}", reserved().await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    // Networks beside each other share what they lie in; routes have a database of their own.
    let (list_bytes, database_bytes) = (2_000 * 2, CITY.len());
    until("both", &|bytes| bytes >= 2 * database_bytes + list_bytes).await;
    let both = reserved().await;
    configured(folder.path(), &settings(""));
    assert_eq!(process.answers(&["reload"]).0, 0);
    until("neither", &|bytes| bytes + database_bytes + list_bytes <= both).await;
    process.stop();
}
