//! A request and what was decided about it, aligned, for people. Pure.

use std::fmt::Write;

use serde::Deserialize;
use serde_json::Value;

use crate::config::units::{bytes_about, counted};

/// What is shown of a request; what an appliance does not say is nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Shown {
    time: String,
    client: String,
    method: String,
    host: String,
    path: String,
    range_asked: Option<String>,
    status: Option<u16>,
    bytes: u64,
    lookup: Option<String>,
    duration_us: u64,
    decisions: Vec<Decision>,
    left_out: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Decision {
    at_us: u64,
    what: String,
    how: String,
    because: Option<String>,
    first: Option<u64>,
    bytes: Option<u64>,
    ttl_s: Option<i64>,
    at: Option<u64>,
    length: Option<u64>,
}

/// One block of lines, or how many requests were lost.
pub(super) fn of(told: &Value) -> String {
    if let Some(lost) = told.get("lost").and_then(Value::as_u64) {
        let lost = counted(lost, "request");
        return format!(
            "({lost} lost here: they came faster than they are read, or memory was short)\n"
        );
    }
    let shown = Shown::deserialize(told).unwrap_or_default();
    let clock = shown.time.split_once('T').map_or("", |(_, clock)| clock);
    let status = shown.status.map_or("-".to_owned(), |status| status.to_string());
    let range = shown.range_asked.map(|asked| format!(" {}", harmless(&asked)));
    let mut text = format!(
        "{clock} {} {}{}{}  {status} {}, {}, {}, {}\n",
        harmless(&shown.method),
        harmless(&shown.host),
        harmless(&shown.path),
        range.unwrap_or_default(),
        shown.lookup.as_deref().map_or("no look-up", |lookup| lookup),
        bytes_about(shown.bytes),
        time_of(shown.duration_us),
        harmless(&shown.client),
    );
    for decision in &shown.decisions {
        decision.append_to(&mut text);
    }
    if shown.left_out > 0 {
        let more = counted(shown.left_out, "decision");
        writeln!(text, "{:>12}  and {more} more", "").expect("a String takes everything");
    }
    text
}

impl Decision {
    fn append_to(&self, text: &mut String) {
        let mut line =
            format!("{:>12}  {:<8} {}", time_of(self.at_us), self.what, harmless(&self.how));
        if let (Some(first), Some(bytes)) = (self.first, self.bytes) {
            line += &format!(", {} from {first} on", bytes_about(bytes));
        }
        let long = |bytes| format!(", {} long", bytes_about(bytes));
        line += &self.length.map(long).unwrap_or_default();
        line += &self.at.map(|at| format!(" at byte {at}")).unwrap_or_default();
        line += &self.ttl_s.map(|ttl| format!(", ttl {ttl} s")).unwrap_or_default();
        line +=
            &self.because.as_deref().map(|of| format!(": {}", harmless(of))).unwrap_or_default();
        text.push_str(&line);
        text.push('\n');
    }
}

/// As it may be written to a terminal.
pub(in crate::cli) fn harmless(text: &str) -> String {
    let shown = |char: char| match char {
        ' '..='~' => char.to_string(),
        char => char.escape_unicode().to_string(),
    };
    text.chars().map(shown).collect()
}

/// `870 us`, `12.4 ms`, `3.1 s`.
pub(in crate::cli) fn time_of(micros: u64) -> String {
    match micros {
        0..1_000 => format!("{micros} us"),
        1_000..1_000_000 => format!("{:.1} ms", micros as f64 / 1e3),
        _ => format!("{:.1} s", micros as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_is_a_block_and_each_decision_a_line() {
        let told = json!({
            "time": "2026-11-22T16:00:01.007Z", "client": "192.0.2.0", "method": "GET",
            "host": "film.example", "path": "/a\u{1b}[2J.m4s", "range_asked": "bytes=100-",
            "status": 206, "bytes": 65_636, "lookup": "hit", "duration_us": 1_850, "left_out": 2,
            "decisions": [
                { "at_us": 3, "what": "rule", "how": "*.m4s", "because": "film" },
                { "at_us": 9, "what": "variant", "how": "serves as it is",
                  "because": "it is fresh", "ttl_s": -4 },
                { "at_us": 9, "what": "version", "how": "6f-1a", "length": 3_145_728 },
                { "at_us": 12, "what": "run", "how": "joined", "at": 65_536 },
                { "at_us": 1_400, "what": "sent", "how": "ram", "first": 100, "bytes": 65_636 },
                { "at_us": 2_400_000, "what": "end", "how": "cut short", "because": "draining" },
            ],
        });
        let expected = "\
16:00:01.007Z GET film.example/a\\u{1b}[2J.m4s bytes=100-  206 hit, 64.1 KiB, 1.9 ms, 192.0.2.0
        3 us  rule     *.m4s: film
        9 us  variant  serves as it is, ttl -4 s: it is fresh
        9 us  version  6f-1a, 3.0 MiB long
       12 us  run      joined at byte 65536
      1.4 ms  sent     ram, 64.1 KiB from 100 on
       2.4 s  end      cut short: draining
              and 2 decisions more
";
        assert_eq!(of(&told), expected);
        let lost =
            "(7 requests lost here: they came faster than they are read, or memory was short)\n";
        assert_eq!(of(&json!({ "lost": 7 })), lost);
        assert!(of(&json!(null)).lines().count() == 1, "what is not understood is no failure");
    }
}
