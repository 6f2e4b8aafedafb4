//! A status in words, aligned, for people. Pure.

mod fleet;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::Deserialize;

use self::fleet::{Control, Fleet};
use crate::cli::drain;
use crate::cli::log::time_of;
use crate::cli::volume::regions_out_of_use;
use crate::config::units::{bytes_about, counted, duration_about};
use crate::moment::unix_seconds;

/// What is shown of a status; what an appliance does not say is nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Shown {
    version: String,
    phase: String,
    drain: Option<drain::Told>,
    config: Config,
    predecessor: Option<Predecessor>,
    uptime_seconds: u64,
    requests: u64,
    responses: BTreeMap<String, u64>,
    bodies: BTreeMap<String, u64>,
    connections: u64,
    bytes: BTreeMap<String, u64>,
    ttfb: FirstByte,
    origin: Origin,
    origins: Vec<OneOrigin>,
    memory: Memory,
    ssd: Option<Ssd>,
    shipping: Option<Shipping>,
    fleet: Option<Fleet>,
    control: Option<Control>,
    shares: Vec<Share>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Config {
    orders: Vec<Order>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Order {
    names: Vec<String>,
    is_missing: bool,
    since: u64,
    why: Option<String>,
    again_at: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Predecessor {
    connections: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Share {
    name: String,
    share: u64,
    ram_bytes: u64,
    ram_own_bytes: u64,
    connections: u64,
    beyond: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct FirstByte {
    p50_us: Option<u64>,
    p90_us: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Origin {
    requests: u64,
    bytes: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct OneOrigin {
    site: String,
    origin: String,
    failing_seconds: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Memory {
    total_bytes: u64,
    by_use: BTreeMap<String, u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Ssd {
    volumes: Vec<Volume>,
    shadows: Vec<Shadow>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Shipping {
    to: String,
    shipped_lines: u64,
    lost_lines: u64,
    waiting_lines: u64,
    waiting_bytes: u64,
    failing_seconds: Option<u64>,
    last_failure: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Volume {
    name: String,
    state: String,
    why: Option<String>,
    notice: Option<String>,
    heads_in_doubt: bool,
    size_bytes: Option<u64>,
    used_bytes: u64,
    regions: BTreeMap<String, u64>,
    reads: u64,
    writes: u64,
    read_bytes: u64,
    queue_depth: u64,
    read_p99_us: Option<u64>,
    errors: u64,
    written_today_bytes: u64,
    writes_per_day_bytes: Option<u64>,
    life_days: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Shadow {
    tier: String,
    size_bytes: u64,
    size_now_bytes: u64,
    hit_share: f64,
    hit_share_now: f64,
}

/// The width of the names.
const NAME_WIDTH: usize = 13;

/// All of it.
pub(super) fn of(status: &Shown, address: &str) -> String {
    let uptime = duration_about(Duration::from_secs(status.uptime_seconds));
    let mut text =
        format!("tidegate {} at {address}: {}, up {uptime}\n\n", status.version, status.phase);
    let now = unix_seconds(SystemTime::now());
    let mut line = |name: &str, value: String| {
        text.push_str(&format!("  {name:<NAME_WIDTH$}{value}\n"));
    };
    let requests = counted(status.requests, "request");
    line("viewers", format!("{} connected, {requests}", status.connections));
    if let Some(failed) = failed(status) {
        line("failed", failed);
    }
    for one in status.origins.iter().filter_map(unanswered) {
        line("origin", one);
    }
    if let Some(drain) = &status.drain {
        line("drain", drain.in_words(now));
    }
    for one in &status.config.orders {
        line("certificate", order(one, now));
    }
    if let Some(before) = &status.predecessor {
        line("before", predecessor(before));
    }
    line("sent", sent(&status.bytes));
    line("offload", offload(status));
    if let (Some(p50), Some(p90)) = (status.ttfb.p50_us, status.ttfb.p90_us) {
        line("first byte", format!("half within {}, 90% within {}", time_of(p50), time_of(p90)));
    }
    if let Some(one) = &status.fleet {
        line("fleet", one.in_words(now));
    }
    status.control.iter().for_each(|one| line("control", one.in_words()));
    line("memory", memory(&status.memory));
    if let Some(one) = &status.shipping {
        line("log", shipping(one));
    }
    // One alone shares with nobody.
    for one in status.shares.iter().filter(|_| status.shares.len() > 1) {
        line("site", site(one));
    }
    if let Some(ssd) = &status.ssd {
        text.push_str(&volumes(&ssd.volumes, bytes_read(&ssd.volumes)));
        text.extend(ssd.shadows.iter().map(shadow));
    }
    text
}

/// What viewers did not get as they should; `None`: nothing of it.
fn failed(status: &Shown) -> Option<String> {
    let count = |of: &BTreeMap<String, u64>, name| of.get(name).copied().unwrap_or_default();
    let (errors, cut_short) = (count(&status.responses, "5xx"), count(&status.bodies, "cut_short"));
    let of = counted(status.requests, "request");
    (errors + cut_short > 0).then(|| format!("{errors} 5xx, {cut_short} cut short, of {of}"))
}

fn unanswered(one: &OneOrigin) -> Option<String> {
    let lasts = duration_about(Duration::from_secs(one.failing_seconds?));
    Some(format!("{}: {} has not answered for {lasts}", one.site, one.origin))
}

fn shipping(one: &Shipping) -> String {
    let lines = |count| counted(count, "line");
    let mut text = format!("{} shipped to {}", lines(one.shipped_lines), one.to);
    if one.waiting_lines > 0 {
        let bytes = bytes_about(one.waiting_bytes);
        text.push_str(&format!(", {} ({bytes}) wait", lines(one.waiting_lines)));
    }
    if one.lost_lines > 0 {
        text.push_str(&format!(", {} lost", lines(one.lost_lines)));
    }
    let last = one.last_failure.as_deref().unwrap_or_default();
    match one.failing_seconds {
        Some(seconds) => {
            let lasts = duration_about(Duration::from_secs(seconds));
            text.push_str(&format!("; fails for {lasts}: {last}"));
        }
        None if one.lost_lines > 0 && !last.is_empty() => {
            text.push_str(&format!("; the last failure: {last}"));
        }
        None => {}
    }
    text
}

fn order(order: &Order, now: u64) -> String {
    let about = |seconds| duration_about(Duration::from_secs(seconds));
    let lasts = about(now.saturating_sub(order.since));
    let state = if order.is_missing { "not issued" } else { "not renewed" };
    let why = order.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    let again = match order.again_at {
        Some(at) => format!("ordered again in {}", about(at.saturating_sub(now))),
        None => "being ordered, or next in turn".to_owned(),
    };
    format!("{}, {state} for {lasts}{why}; {again}", order.names.join(", "))
}

fn site(site: &Share) -> String {
    let ram = format!(
        "{} of ram, {} of it its own",
        bytes_about(site.ram_bytes),
        bytes_about(site.ram_own_bytes.min(site.ram_bytes))
    );
    let beyond = match &site.beyond[..] {
        [] => String::new(),
        of => format!("; beyond its share of {}", of.join(" and ")),
    };
    format!("{}: share {}, {} connected, {ram}{beyond}", site.name, site.share, site.connections)
}

fn predecessor(before: &Predecessor) -> String {
    let left = match before.connections {
        Some(count) => counted(count, "connection") + " left",
        None => "what it has left is not known".to_owned(),
    };
    format!("the process that was taken over from is leaving, {left}")
}

fn sent(bytes: &BTreeMap<String, u64>) -> String {
    let all: u64 = bytes.values().sum();
    let order = [("ram", "ram"), ("ssd", "ssd"), ("fill", "while filling"), ("pass", "passed on")];
    let part = |(tier, words): (&str, &str)| {
        let bytes = bytes.get(tier).copied().filter(|bytes| *bytes > 0)?;
        Some(format!("{} {words}", percent(bytes, all)))
    };
    let parts: Vec<String> = order.into_iter().filter_map(part).collect();
    let separator = if parts.is_empty() { "" } else { ": " };
    format!("{}{separator}{}", bytes_about(all), parts.join(", "))
}

fn offload(status: &Shown) -> String {
    let (sent, Origin { bytes, requests }) = (status.bytes.values().sum::<u64>(), &status.origin);
    let asked =
        format!("{} from origins in {}", bytes_about(*bytes), counted(*requests, "request"));
    match sent {
        0 => asked,
        _ => format!("{}; {asked}", percent(sent.saturating_sub(*bytes), sent)),
    }
}

fn memory(memory: &Memory) -> String {
    let used = memory.by_use.values().sum();
    let ram = memory.by_use.get("ram").copied().unwrap_or_default();
    let total = bytes_about(memory.total_bytes);
    format!("{} of {total}; ram tier {}", bytes_about(used), bytes_about(ram))
}

fn bytes_read(volumes: &[Volume]) -> u64 {
    volumes.iter().map(|volume| volume.read_bytes).sum()
}

/// A table of volumes, then what is wrong with them.
fn volumes(volumes: &[Volume], read_bytes: u64) -> String {
    let heads = HEADS.map(str::to_owned);
    let rows: Vec<[String; HEADS.len()]> =
        std::iter::once(heads).chain(volumes.iter().map(|one| row(one, read_bytes))).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..HEADS.len()).map(|n| width(n).unwrap_or_default()).collect();
    let mut text = "\n".to_owned();
    for row in &rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(n, (cell, width))| match n {
            0 | 1 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        text.push_str(&format!("  {}\n", cells.collect::<Vec<_>>().join("  ").trim_end()));
    }
    for one in volumes {
        let why = one.why.as_ref().map(|why| format!("{}: {why}", one.state));
        let errors = (one.errors > 0).then(|| counted(one.errors, "error"));
        let doubt = one.heads_in_doubt.then(|| {
            "heads of it are in doubt: the origin is asked about each before it is used".to_owned()
        });
        let out_of_use = one.regions.get("quarantined").copied().unwrap_or_default();
        let out_of_use = regions_out_of_use(out_of_use, one.regions.values().sum());
        let notice = one.notice.clone();
        let told: Vec<String> =
            why.into_iter().chain(notice).chain(doubt).chain(out_of_use).chain(errors).collect();
        if !told.is_empty() {
            text.push_str(&format!("  {}: {}\n", one.name, told.join("; ")));
        }
    }
    text
}

pub(super) const HEADS: [&str; 10] =
    ["volume", "state", "full", "reads", "share", "writes", "queue", "p99 read", "today", "lasts"];

fn row(one: &Volume, read_bytes: u64) -> [String; HEADS.len()] {
    let of = |part: u64, whole: Option<u64>| match whole {
        None | Some(0) => "-".to_owned(),
        Some(whole) => format!("{} of {}", percent(part, whole), bytes_about(whole)),
    };
    [
        one.name.clone(),
        one.state.clone(),
        of(one.used_bytes, one.size_bytes),
        count_about(one.reads),
        percent(one.read_bytes, read_bytes),
        count_about(one.writes),
        one.queue_depth.to_string(),
        one.read_p99_us.map_or_else(|| "-".to_owned(), |us| format!("<={}", time_of(us))),
        of(one.written_today_bytes, one.writes_per_day_bytes),
        one.life_days.map_or_else(|| "-".to_owned(), lasts),
    ]
}

/// Nobody plans for more than ten years.
fn lasts(days: f64) -> String {
    match days / 365.0 {
        years if years > 10.0 => ">10 years".to_owned(),
        years if years >= 2.0 => format!("{years:.1} years"),
        _ => format!("{days:.0} days"),
    }
}

fn shadow(shadow: &Shadow) -> String {
    let points = (shadow.hit_share - shadow.hit_share_now) * 100.0;
    let (more, size) = match shadow.size_bytes.checked_sub(shadow.size_now_bytes) {
        Some(more) => ("more", more),
        None => ("less", shadow.size_now_bytes - shadow.size_bytes),
    };
    let size = bytes_about(size);
    format!("  {size} {more} {} would serve {points:+.1} % of all bytes\n", shadow.tier)
}

fn percent(part: u64, whole: u64) -> String {
    match whole {
        0 => "-".to_owned(),
        _ => format!("{:.1}%", part as f64 * 100.0 / whole as f64),
    }
}

fn count_about(count: u64) -> String {
    match count {
        0..10_000 => count.to_string(),
        10_000..10_000_000 => format!("{}k", count / 1_000),
        _ => format!("{}M", count / 1_000_000),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(status: serde_json::Value) -> String {
        of(&serde_json::from_value(status).unwrap(), "127.0.0.1:9180")
    }

    #[test]
    fn a_status_is_a_few_aligned_lines() {
        let status = json!({
            "version": "0.1.0", "phase": "ready", "uptime_seconds": 93_784, "requests": 45_012,
            "connections": 12, "something": "new",
            "bytes": { "ram": 6u64 << 40, "ssd": 3u64 << 40, "fill": 1u64 << 40, "pass": 0 },
            "responses": { "2xx": 45_000, "5xx": 12 }, "bodies": { "cut_short": 3 },
            "ttfb": { "p50_us": 210, "p90_us": 4_800 },
            "origin": { "requests": 1_234, "bytes": 1u64 << 40 },
            "origins": [
                { "site": "film", "origin": "http://a.test:80", "failing_seconds": 12 },
                { "site": "film", "origin": "http://b.test:80", "failing_seconds": null },
            ],
            "memory": {
                "total_bytes": 16u64 << 30, "by_use": { "ram": 9u64 << 30, "heads": 1 << 30 },
            },
            "fleet": {
                "name": "edge-7", "is_heard": false, "control": "https://control.test:9443",
                "failing_seconds": 75, "why": "https://control.test:9443 does not answer: x",
                "certificate_ends_at": 90_000_000_000u64,
                "snapshot": { "epoch": 1, "counter": 42, "age_seconds": 80 },
            },
            "control": { "is_running": false, "why": "state.redb is in use", "broken_off": 1 },
            "shipping": {
                "to": "logs.example.com", "shipped_lines": 45_000, "lost_lines": 1,
                "waiting_lines": 12, "waiting_bytes": 5 << 10, "failing_seconds": 75,
                "last_failure": "503 Service Unavailable",
            },
            "shares": [
                { "name": "film", "share": 3, "ram_bytes": 7u64 << 30,
                  "ram_own_bytes": 6u64 << 30, "connections": 10, "beyond": ["work", "egress"] },
                { "name": "archive", "share": 1, "ram_bytes": 2u64 << 30,
                  "ram_own_bytes": 3u64 << 30, "connections": 2, "beyond": [] },
            ],
            "ssd": {
                "volumes": [
                    { "name": "nvme0n1", "state": "online", "size_bytes": 1u64 << 40,
                      "used_bytes": 800u64 << 30, "reads": 3_000_000, "writes": 900_000,
                      "read_bytes": 3u64 << 40, "queue_depth": 4, "read_p99_us": 3_000,
                      "written_today_bytes": 256u64 << 30, "writes_per_day_bytes": 1u64 << 40,
                      "life_days": 2_700.0, "heads_in_doubt": true,
                      "regions": { "free": 9, "open": 1, "sealed": 5, "quarantined": 0 } },
                    { "name": "nvme1n1", "state": "offline", "why": "20 reads in a minute failed",
                      "size_bytes": 1u64 << 40, "errors": 20, "read_bytes": 1u64 << 40,
                      "regions": { "free": 9, "open": 1, "sealed": 5, "quarantined": 2 } },
                    { "name": "nvme2n1", "state": "offline", "why": "it is not there",
                      "size_bytes": null, "writes_per_day_bytes": null },
                ],
                "shadows": [
                    { "tier": "ssd", "size_bytes": 4u64 << 40, "size_now_bytes": 2u64 << 40,
                      "hit_share": 0.931, "hit_share_now": 0.9 },
                ],
            },
        });
        assert_eq!(shown(status), include_str!("expected.txt"));
    }

    #[test]
    fn a_certificate_that_is_waited_for_is_told_with_why_and_until_when() {
        let names = || vec!["a.test".to_owned(), "b.test".to_owned()];
        let failed = Order {
            names: names(),
            is_missing: false,
            since: 100,
            why: Some("the zone is down".to_owned()),
            again_at: Some(4_000),
        };
        let expected =
            "a.test, b.test, not renewed for 55m 0s: the zone is down; ordered again in 10m 0s";
        assert_eq!(order(&failed, 3_400), expected);
        let missing = Order { names: names(), is_missing: true, since: 3_390, ..Order::default() };
        let expected = "a.test, b.test, not issued for 10s; being ordered, or next in turn";
        assert_eq!(order(&missing, 3_400), expected);
        let text = shown(json!({ "config": { "orders": [{ "names": ["a.test"] }] } }));
        assert!(text.contains("\n  certificate  a.test, not renewed for "), "{text}");
    }

    #[test]
    fn an_appliance_of_another_version_is_shown_as_far_as_it_is_understood() {
        let text = shown(json!({ "phase": "ready" }));
        assert!(text.contains(": ready, up 0s\n") && !text.contains("volume"), "{text}");
    }

    #[test]
    fn a_process_that_leaves_is_told_of_with_what_it_has_left() {
        for (connections, told) in [
            (json!(1), ", 1 connection left\n"),
            (json!(12), ", 12 connections left\n"),
            (json!(null), ", what it has left is not known\n"),
        ] {
            let text = shown(json!({ "predecessor": { "connections": connections } }));
            let line = format!("the process that was taken over from is leaving{told}");
            assert!(text.contains(&line), "{text}");
        }
        assert!(!shown(json!({ "predecessor": null })).contains("leaving"));
    }

    #[test]
    fn a_device_lasts_as_long_as_anyone_plans() {
        for (days, text) in [(12.3, "12 days"), (729.0, "729 days"), (731.0, "2.0 years")] {
            assert_eq!(lasts(days), text);
        }
        assert_eq!(lasts(99_999.0), ">10 years");
    }
}
