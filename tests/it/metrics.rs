//! What an operator's Prometheus is told: never too much of it, named as it expects, in the format
//! it asks for.

use std::collections::BTreeMap;

use tempfile::TempDir;
use tidegate::limits::{SERIES_MAX, SERIES_OF_THE_REST_MAX, SITES_TOLD_MAX};

use crate::support::{BLOCK, Edge, HOST, Origin, PIECE, Script, Validators, until_runs};

/// The text that is told to who accepts this.
async fn told(edge: &Edge, accept: &str) -> (String, String) {
    let answer = edge.admin().get("/metrics").header("accept", accept).send().await;
    (answer.header("content-type"), String::from_utf8(answer.body.to_vec()).unwrap())
}

fn samples(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').expect("a sample is a name and a value"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_are_never_more_series_however_many_sites_and_volumes() {
    let (origin, folder) = (Origin::serving("/a", Script::of(PIECE)), TempDir::new().unwrap());
    let edge = Edge::in_front_of(&origin).setting("memory.total", "1 GiB");
    let edge = edge.setting("listeners.steering", "[\"127.0.0.1:0\"]");
    let edge = (1..500).fold(edge, |edge, n| edge.site(&format!("site-{n}")));
    let edge = (0..24).fold(edge, |edge, n| {
        let path = folder.path().join(format!("v{n:02}"));
        edge.volume_with(&format!("path = {path:?}\nsize = \"256 MiB\"\nsimulate = \"\""))
    });
    let edge = edge.start();
    let last_with_its_own = format!("site-{}.test", SITES_TOLD_MAX - 1);
    let first_without = format!("site-{SITES_TOLD_MAX}.test");
    for host in [HOST, &last_with_its_own, &first_without, "site-499.test"] {
        edge.client().host(host).get("/a").send().await;
    }
    let (_, text) = told(&edge, "*/*").await;
    let count = samples(&text).count();
    assert!(count <= SERIES_MAX, "{count} series");
    // What others are told apart by is bounded in its place; what is left is reckoned with.
    let named = ["{site=", "{volume=", "{name="];
    let is_rest = |name: &&str| !named.iter().any(|label| name.contains(label));
    let rest = samples(&text).map(|(name, _)| name).filter(is_rest).count();
    assert!(rest <= SERIES_OF_THE_REST_MAX, "{rest} series of the rest");

    let requests = "tidegate_site_requests_total";
    for (site, expected) in [
        ("site=\"media\"".to_owned(), 1.0),
        (format!("site=\"site-{}\"", SITES_TOLD_MAX - 1), 1.0),
        ("site=\"other\"".to_owned(), 2.0),
    ] {
        let counted = edge.metric(requests, &[&site, "status=\"2xx\""]).await;
        assert_eq!(counted, expected, "{site}");
    }
    assert!(!text.contains(&format!("site=\"site-{SITES_TOLD_MAX}\"")));
    for name in ["tidegate_site_response_body_bytes_total", "tidegate_site_origin_body_bytes_total"]
    {
        assert_eq!(edge.metric(name, &[]).await, 4.0 * PIECE as f64, "{name}");
    }
    let left_out = "tidegate_series_left_out";
    let of_a_site = samples(&text).filter(|(name, _)| name.contains("site=\"media\"")).count();
    let sites_left_out = (499 - SITES_TOLD_MAX) * of_a_site;
    assert_eq!(edge.metric(left_out, &["sites"]).await, sites_left_out as f64);
    assert!(edge.metric(left_out, &["volumes"]).await > 0.0);

    // Of each volume it is told how it is, and of all together the rest.
    let online = ["state=\"online\""];
    edge.until_metric("tidegate_ssd_state", &online, |online| online == 24.0).await;
    assert!(text.contains("tidegate_ssd_state{volume=\"v23\",state=\"online\"}"), "{text}");
    assert!(text.contains("tidegate_ssd_recovered_records{volume=\"other\","), "{text}");
}

/// What a family is: its type, and each series with its value.
#[derive(Debug, Default, PartialEq)]
struct Family {
    kind: String,
    help: String,
    unit: String,
    series: BTreeMap<String, String>,
}

fn families(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut last = String::new();
    for line in text.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", what, name, rest] => {
                last = name.to_owned();
                let family = families.entry(last.clone()).or_default();
                match what {
                    "TYPE" => family.kind = rest.to_owned(),
                    "HELP" => family.help = rest.to_owned(),
                    "UNIT" => family.unit = rest.to_owned(),
                    _ => panic!("{line}"),
                }
            }
            ["#", "EOF"] => {}
            _ => {
                let (series, value) = line.rsplit_once(' ').expect(line);
                assert!(series.starts_with(&last), "{line} stands under {last}");
                let series = series.strip_prefix(&last).unwrap_or_default();
                let family = families.get_mut(&last).expect(line);
                let twice = family.series.insert(series.to_owned(), value.to_owned());
                assert_eq!(twice, None, "{line}");
            }
        }
    }
    families
}

/// An edge of which every part has something to tell.
async fn busy_edge(folder: &TempDir) -> Edge {
    let origin = Origin::serving("/a", Script::of(PIECE));
    let edge = Edge::in_front_of(&origin).volume(folder.path(), "nvme0n1").start();
    let told = "bl=2100,mtp=25000,ot=v,sid=\"secret-session\"";
    edge.get("/a?secret=path").header("cmcd-object", told).send().await;
    edge.client().host("secret.test").get("/a").send().await;
    edge.until_metric("tidegate_ssd_state", &["online"], |online| online == 1.0).await;
    edge
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_units_and_labels_are_what_prometheus_asks_for() {
    let folder = TempDir::new().unwrap();
    let edge = busy_edge(&folder).await;
    let (kind, text) = told(&edge, "text/plain").await;
    assert_eq!(kind, "text/plain; version=0.0.4");
    let families = families(&text);
    assert!(families.len() > 60, "{} families", families.len());
    for (name, family) in &families {
        let words: Vec<&str> = name.split('_').collect();
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        assert!(name.chars().all(is_plain), "{name}");
        assert!(["tidegate", "process"].contains(&words[0]), "{name}");
        assert!(family.help.len() > 10 && family.help.ends_with('.'), "{name}: {}", family.help);
        assert_eq!(words.last() == Some(&"total"), family.kind == "counter", "{name}");
        for odd in NO_BASE_UNITS.iter().chain(TYPES) {
            assert!(!words.contains(odd), "{name}: {odd}");
        }
        // A unit stands last, or before what says that it is counted.
        let unit = words.iter().position(|word| BASE_UNITS.contains(word));
        let end = words.len() - usize::from(family.kind == "counter");
        let is_last = |at: usize| at + 1 == end || words[at + 1..end] == ["per", "second"];
        assert!(unit.is_none_or(is_last), "{name}");
        for series in family.series.keys() {
            let labels = series.split_once('{').map_or("", |(_, labels)| labels);
            for label in labels.split("\",").filter_map(|label| label.split_once('=')) {
                assert!(LABELS.contains(&label.0), "{name}{series}");
            }
        }
    }
    assert!(!text.contains("secret"), "nothing that a viewer says is told");
}

const BASE_UNITS: &[&str] = &["seconds", "bytes", "ratio"];
/// Units that are none of Prometheus', and abbreviations.
const NO_BASE_UNITS: &[&str] = &[
    "milliseconds",
    "microseconds",
    "minutes",
    "hours",
    "days",
    "ms",
    "us",
    "ns",
    "s",
    "secs",
    "bits",
    "bps",
    "kbps",
    "kb",
    "mb",
    "gb",
    "kib",
    "mib",
    "gib",
    "kilobytes",
    "megabytes",
    "percent",
    "pct",
    "count",
    "sum",
    "bucket",
];
/// What a series is says its type.
const TYPES: &[&str] = &["counter", "gauge", "histogram", "summary"];
/// Every label; their values are words of closed sets, or names that the operator gave.
const LABELS: &[&str] = &[
    "cache",
    "candidates",
    "cause",
    "class",
    "engine",
    "found",
    "kind",
    "le",
    "method",
    "mode",
    "name",
    "object_type",
    "of",
    "outcome",
    "protocol",
    "reader",
    "reason",
    "result",
    "scheme",
    "site",
    "stage",
    "size",
    "state",
    "status",
    "tier",
    "urgency",
    "use",
    "version",
    "volume",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_accepts_openmetrics_is_told_the_same_in_it() {
    let folder = TempDir::new().unwrap();
    let edge = busy_edge(&folder).await;
    let asks = "application/openmetrics-text; version=1.0.0, text/plain; q=0.5";
    let (kind, text) = told(&edge, asks).await;
    assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(text.ends_with("\n# EOF\n") && text.matches("# EOF").count() == 1);
    let (_, own) = told(&edge, "*/*").await;
    let (open, own) = (families(&text), families(&own));
    assert_eq!(open.len(), own.len());
    for (name, family) in &own {
        let suffix = match family.kind.as_str() {
            "counter" => "_total",
            "gauge" if name.ends_with("_info") => "_info",
            _ => "",
        };
        let stem = name.strip_suffix(suffix).unwrap();
        let told = open.get(stem).unwrap_or_else(|| panic!("{name} is not told"));
        let expected = if suffix == "_info" { "info" } else { &family.kind };
        assert_eq!(told.kind, expected, "{name}");
        assert!(told.unit.is_empty() || stem.ends_with(&format!("_{}", told.unit)), "{name}");
        let has_unit = BASE_UNITS.iter().any(|unit| stem.ends_with(&format!("_{unit}")));
        assert!(!has_unit || !told.unit.is_empty(), "{name}");
        // Bounds are written as numbers with a point there.
        let names = |family: &Family, suffix: &str| -> Vec<String> {
            let series = family.series.keys();
            let mut all: Vec<_> =
                series.map(|one| format!("{suffix}{one}").replace(".0\"}", "\"}")).collect();
            all.sort();
            all
        };
        assert_eq!(names(told, ""), names(family, suffix), "{name}");
    }
}

/// The bytes of bodies that came from a tier.
async fn sent_from(edge: &Edge, tier: &str) -> u64 {
    let tier = format!("tier=\"{tier}\"");
    edge.metric("tidegate_response_body_bytes_total", &[&tier]).await as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_behind_the_run_begun_for_him_has_found_nothing_in_ram() {
    let length = 6 * BLOCK + 5;
    let origin = Origin::serving("/a", Script::of(length));
    let edge = Edge::in_front_of(&origin).start();
    let behind = edge.client().receive_buffer(4096).get("/a").open().await;
    until_runs(&edge.admin(), <[_]>::is_empty).await;

    assert_eq!(behind.finish().await.unwrap().body.len() as u64, length);
    assert_eq!((sent_from(&edge, "fill").await, sent_from(&edge, "ram").await), (length, 0));

    assert_eq!(edge.get("/a").send().await.body.len() as u64, length);
    assert_eq!((sent_from(&edge, "fill").await, sent_from(&edge, "ram").await), (length, length));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_had_brought_before_is_found_in_ram() {
    let length = 6 * BLOCK;
    let origin = Origin::serving("/a", Script::of(length));
    let edge = Edge::in_front_of(&origin).start();
    edge.get("/a").range(0..2 * BLOCK).send().await;
    until_runs(&edge.admin(), <[_]>::is_empty).await;

    let behind = edge.client().receive_buffer(4096).get("/a").open().await;
    assert_eq!(behind.finish().await.unwrap().body.len() as u64, length);

    assert_eq!(sent_from(&edge, "ram").await, 2 * BLOCK);
    assert_eq!(sent_from(&edge, "fill").await, length);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_there_before_its_head_was_answered_is_no_hit_either() {
    let origin = Origin::start();
    let edge = Edge::in_front_of(&origin).start();
    for path in (0..100).map(|object| format!("/{object}")) {
        origin.serve(&path, Script::of(1000));
        assert_eq!(edge.get(&path).send().await.body.len(), 1000);
    }
    assert_eq!((sent_from(&edge, "fill").await, sent_from(&edge, "ram").await), (100_000, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_held_whole_before_it_is_sent_is_a_hit_for_the_next_one() {
    let origin = Origin::start();
    let edge = Edge::in_front_of(&origin).start();
    for path in (0..100).map(|object| format!("/{object}")) {
        origin.serve(&path, Script::of(1000).validators(Validators::Weak));
        assert_eq!(edge.get(&path).send().await.body.len(), 1000);
    }
    assert_eq!((sent_from(&edge, "fill").await, sent_from(&edge, "ram").await), (100_000, 0));
    assert_eq!(edge.get("/99").send().await.body.len(), 1000);
    assert_eq!((sent_from(&edge, "fill").await, sent_from(&edge, "ram").await), (100_000, 1000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn further_ranges_that_the_same_run_has_brought_are_no_hit() {
    let origin = Origin::serving("/a", Script::of(PIECE));
    let edge = Edge::in_front_of(&origin).start();
    let of_one_piece = edge.get("/a").header("range", "bytes=0-99,2000-2099,40000-40099");
    for sent in [(300, 0), (300, 300)] {
        assert_eq!(of_one_piece.send().await.status, 206);
        assert_eq!((sent_from(&edge, "fill").await, sent_from(&edge, "ram").await), sent);
    }
}
