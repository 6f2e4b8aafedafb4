//! What is hot, in tables, aligned, for people. Pure.

use serde::Deserialize;
use serde_json::Value;

use crate::cli::log::{harmless, time_of};
use crate::config::units::{bytes_about, counted};

/// What is shown; what an appliance does not say is nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Shown {
    covered_ms: u64,
    is_since_start: bool,
    all: Row,
    objects: Vec<Row>,
    sites: Vec<Row>,
    clients: Vec<Row>,
    failures: Vec<Row>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Row {
    name: String,
    surplus: u64,
    requests: u64,
    bytes: u64,
    hits: u64,
    failed: u64,
    origin_requests: u64,
    origin_wait_us: u64,
}

/// All tables, of so many rows each.
pub(super) fn of(told: &Value, seconds: u32, rows: usize) -> String {
    let shown = Shown::deserialize(told).unwrap_or_default();
    let all = &shown.all;
    let per_second = |count: u64| count as f64 * 1e3 / shown.covered_ms.max(1) as f64;
    let mut text = format!(
        "last {}: {} ({:.1} a second), {} ({} a second), {} hit, {} failed\n",
        time_of(shown.covered_ms * 1_000),
        counted(all.requests, "request"),
        per_second(all.requests),
        bytes_about(all.bytes),
        bytes_about(per_second(all.bytes) as u64),
        all.hit_share(),
        all.failed,
    );
    if shown.covered_ms + 500 < u64::from(seconds) * 1_000 {
        text += &match shown.is_since_start {
            true => "(the process has run for no longer)\n".to_owned(),
            false => format!("(no more of the last {seconds} s is remembered)\n"),
        };
    }
    for (kind, table) in
        [("object", &shown.objects), ("site", &shown.sites), ("client", &shown.clients)]
    {
        text += &format!(
            "\n{:>10} {:>10} {:>6} {:>7} {:>8} {:>9}  {kind}\n",
            "requests", "bytes", "hit", "failed", "upstream", "waited"
        );
        table.iter().take(rows).for_each(|row| text += &row.line());
    }
    if !shown.failures.is_empty() {
        text += &format!("\n{:>10}  failure\n", "requests");
        let failures = shown.failures.iter().take(rows);
        failures.for_each(|row| text += &format!("{}  {}\n", row.count(), harmless(&row.name)));
    }
    text
}

impl Row {
    fn line(&self) -> String {
        format!(
            "{} {:>10} {:>6} {:>7} {:>8} {:>9}  {}\n",
            self.count(),
            bytes_about(self.bytes),
            self.hit_share(),
            self.failed,
            self.origin_requests,
            time_of(self.origin_wait_us / self.origin_requests.max(1)),
            harmless(&self.name),
        )
    }

    /// Marked where some may be missing.
    fn count(&self) -> String {
        let mark = if self.surplus > 0 { "+" } else { "" };
        format!("{:>10}", format!("{}{mark}", self.requests))
    }

    fn hit_share(&self) -> String {
        match self.requests {
            0 => "-".to_owned(),
            requests => format!("{:.0}%", self.hits as f64 * 100.0 / requests as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_kind_is_a_table_and_what_is_not_remembered_is_said() {
        let told = json!({
            "covered_ms": 12_000,
            "all": { "requests": 24, "bytes": 2_400_000, "hits": 18, "failed": 1 },
            "objects": [
                { "name": "a/1\u{1b}.m4s", "surplus": 3, "requests": 12, "bytes": 2_000_000,
                  "hits": 9, "failed": 0, "origin_requests": 2, "origin_wait_us": 9_000 },
                { "name": "a/2.m4s", "requests": 1 },
            ],
            "clients": [{ "name": "192.0.2.0/24", "requests": 24, "hits": 18 }],
            "failures": [{ "name": "films: 502", "requests": 1 }],
        });
        let expected = "\
last 12.0 s: 24 requests (2.0 a second), 2.3 MiB (195.3 KiB a second), 75% hit, 1 failed
(no more of the last 60 s is remembered)

  requests      bytes    hit  failed upstream    waited  object
       12+    1.9 MiB    75%       0        2    4.5 ms  a/1\\u{1b}.m4s

  requests      bytes    hit  failed upstream    waited  site

  requests      bytes    hit  failed upstream    waited  client
        24        0 B    75%       0        0      0 us  192.0.2.0/24

  requests  failure
         1  films: 502
";
        assert_eq!(of(&told, 60, 1), expected);
        let began = json!({ "covered_ms": 12_000, "is_since_start": true });
        let began = of(&began, 60, 1);
        assert_eq!(began.lines().nth(1), Some("(the process has run for no longer)"), "{began}");
    }
}
