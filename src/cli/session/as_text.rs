//! A playback in words, a line for each request, aligned, for people. Pure.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::cli::log::{harmless, time_of};
use crate::config::units::{bytes_about, counted};
use crate::moment::http_date;

/// What is shown of a playback; what an appliance does not say is nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Shown {
    sid: String,
    remembered: Remembered,
    left_out: u64,
    sums: Sums,
    requests: Vec<Request>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Remembered {
    requests: u64,
    since_ms: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Sums {
    requests: u64,
    bytes: u64,
    failed: u64,
    duration_us: u64,
    gap_us: u64,
    origin_wait_us: u64,
    ssd_wait_us: u64,
    own_us: u64,
    reading_us: u64,
    starvations: u64,
    buffer_ms_min: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Request {
    at_ms: u64,
    path: String,
    status: Option<u16>,
    outcome: String,
    lookup: Option<String>,
    bytes: u64,
    gap_us: u64,
    origin_wait_us: u64,
    ssd_wait_us: u64,
    own_us: u64,
    reading_us: u64,
    buffer_ms: Option<u64>,
    is_starved: bool,
    is_startup: bool,
}

/// The whole of it.
pub(super) fn of(told: &Value) -> String {
    let shown = Shown::deserialize(told).unwrap_or_default();
    let begun_ms = shown.requests.first().map_or(0, |request| request.at_ms);
    let begun = http_date(Duration::from_millis(begun_ms));
    let mut text = format!("session {}, from {begun} on\n", harmless(&shown.sid));
    if shown.left_out > 0 {
        text += &format!("({} before these left out)\n", counted(shown.left_out, "request"));
    }
    text += &format!(
        "{:>10} {:>9} {:>10} {:>8} {:>8} {:>8} {:>8} {:>8}  {}\n",
        "after", "gap", "bytes", "origin", "ssd", "own", "reading", "buffer", "request",
    );
    shown.requests.iter().for_each(|request| text += &request.line(begun_ms));
    text + &shown.sums() + &shown.remembered()
}

/// That there is none of it.
pub(super) fn nothing(told: &Value, sid: &str) -> String {
    let remembered = Shown::deserialize(told).unwrap_or_default().remembered();
    format!("nothing is known of a session {sid:?}; {}", remembered.trim_end())
}

impl Shown {
    fn sums(&self) -> String {
        let sums = &self.sums;
        let buffer = sums.buffer_ms_min.map(|ms| time_of(ms * 1_000)).unwrap_or("-".to_owned());
        format!(
            "{}, {} failed, {} in {}; none was open for {}\n\
             waited {} for the origin, {} for an SSD, {} for the appliance itself; the viewer \
             read for {}\n\
             the player told of {}; its least buffer was {buffer}\n",
            counted(sums.requests, "request"),
            sums.failed,
            bytes_about(sums.bytes),
            time_of(sums.duration_us),
            time_of(sums.gap_us),
            time_of(sums.origin_wait_us),
            time_of(sums.ssd_wait_us),
            time_of(sums.own_us),
            time_of(sums.reading_us),
            counted(sums.starvations, "starvation"),
        )
    }

    fn remembered(&self) -> String {
        let Remembered { requests, since_ms } = self.remembered;
        match since_ms {
            None => "no request is remembered\n".to_owned(),
            Some(since_ms) => {
                let since = http_date(Duration::from_millis(since_ms));
                let requests = counted(requests, "request");
                format!("{requests} of all playbacks remembered, since {since}\n")
            }
        }
    }
}

impl Request {
    fn line(&self, begun_ms: u64) -> String {
        let time = |micros| if micros == 0 { "-".to_owned() } else { time_of(micros) };
        let status = self.status.map_or("-".to_owned(), |status| status.to_string());
        let mut line = format!(
            "{:>10} {:>9} {:>10} {:>8} {:>8} {:>8} {:>8} {:>8}  {status} {} {}",
            time_of((self.at_ms - begun_ms) * 1_000),
            time(self.gap_us),
            bytes_about(self.bytes),
            time(self.origin_wait_us),
            time(self.ssd_wait_us),
            time(self.own_us),
            time(self.reading_us),
            self.buffer_ms.map_or("-".to_owned(), |ms| time_of(ms * 1_000)),
            self.lookup.as_deref().unwrap_or("-"),
            harmless(&self.path),
        );
        if self.outcome != "complete" {
            line += &format!(", {}", harmless(&self.outcome));
        }
        line += if self.is_startup { ", starts" } else { "" };
        line += if self.is_starved { ", STARVED" } else { "" };
        line + "\n"
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_playback_is_a_table_with_its_sums() {
        let told = json!({
            "sid": "6e2f", "left_out": 2,
            "remembered": { "requests": 912, "since_ms": 1_795_262_000_000u64 },
            "sums": {
                "requests": 2, "bytes": 3_000_000, "failed": 1, "duration_us": 4_100_000,
                "gap_us": 900_000, "origin_wait_us": 30_000, "ssd_wait_us": 0, "own_us": 130,
                "reading_us": 1_200_000, "starvations": 1, "buffer_ms_min": 200,
            },
            "requests": [
                { "at_ms": 1_795_262_128_007u64, "path": "/a/1.m4s", "status": 200,
                  "outcome": "complete", "lookup": "hit", "bytes": 2_900_000, "own_us": 130,
                  "reading_us": 1_200_000, "is_startup": true },
                { "at_ms": 1_795_262_131_007u64, "path": "/a/2\u{1b}.m4s", "status": 502,
                  "outcome": "client_left", "bytes": 12, "gap_us": 900_000,
                  "origin_wait_us": 30_000, "buffer_ms": 200, "is_starved": true },
            ],
        });
        let expected = "\
session 6e2f, from Sat, 21 Nov 2026 11:55:28 GMT on
(2 requests before these left out)
     after       gap      bytes   origin      ssd      own  reading   buffer  request
      0 us         -    2.8 MiB        -        -   130 us    1.2 s        -  \
200 hit /a/1.m4s, starts
     3.0 s  900.0 ms       12 B  30.0 ms        -        -        - 200.0 ms  \
502 - /a/2\\u{1b}.m4s, client_left, STARVED
2 requests, 1 failed, 2.9 MiB in 4.1 s; none was open for 900.0 ms
waited 30.0 ms for the origin, 0 us for an SSD, 130 us for the appliance itself; \
the viewer read for 1.2 s
the player told of 1 starvation; its least buffer was 200.0 ms
912 requests of all playbacks remembered, since Sat, 21 Nov 2026 11:53:20 GMT
";
        assert_eq!(of(&told), expected);
    }
}
