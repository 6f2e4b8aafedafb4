//! `GET /session?sid=SID`: the requests of one playback, joined by the session id its player told
//! (CMCD), and where their time went. Read from what is remembered of the latest requests.
//!
//! Nothing is estimated: what was before the oldest request that is remembered is not known, and
//! since when they are is told.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::task::yield_now;

use crate::access_log::Lines;
use crate::limits::SESSION_REQUESTS_MAX;

/// One playback, as far as it is remembered.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Session {
    sid: String,
    /// What is remembered of all playbacks.
    remembered: Remembered,
    /// Requests of this one that were before those told.
    left_out: usize,
    sums: Sums,
    requests: VecDeque<Told>,
}

/// What there was to look through.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Remembered {
    requests: usize,
    /// When the oldest of them began, in milliseconds of Unix time.
    pub(super) since_ms: Option<u64>,
}

/// Of all requests told.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Sums {
    requests: usize,
    bytes: u64,
    failed: usize,
    /// From the first head to the end of the last body.
    duration_us: u64,
    /// No request was open.
    gap_us: u64,
    /// Requests may be open together: these are the sums of each one's own.
    origin_wait_us: u64,
    ssd_wait_us: u64,
    own_us: u64,
    reading_us: u64,
    starvations: usize,
    buffer_ms_min: Option<u64>,
}

/// One request.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Told {
    at_ms: u64,
    id: String,
    path: String,
    status: Option<u16>,
    outcome: String,
    lookup: Option<String>,
    bytes: u64,
    duration_us: u64,
    /// Since no request of the playback was open.
    gap_us: u64,
    /// There were no bytes for him because an origin was asked.
    origin_wait_us: u64,
    /// The same because a volume was.
    ssd_wait_us: u64,
    /// Till the first byte, beside these: ram, and all that is decided.
    own_us: u64,
    /// What is left: the viewer, and his way, took the bytes.
    reading_us: u64,
    object_type: Option<String>,
    bitrate_kbps: Option<u64>,
    buffer_ms: Option<u64>,
    is_starved: bool,
    is_startup: bool,
}

/// What is read of a line.
#[derive(Debug, Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    request_id: Cow<'a, str>,
    #[serde(borrow)]
    path: Cow<'a, str>,
    status: Option<u16>,
    #[serde(borrow)]
    outcome: Cow<'a, str>,
    lookup: Option<String>,
    bytes: u64,
    ttfb_us: Option<u64>,
    duration_us: u64,
    #[serde(default)]
    origin_wait_us: u64,
    #[serde(default)]
    ssd_wait_us: u64,
    cmcd: Option<Player>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Player {
    sid: Option<String>,
    ot: Option<String>,
    br: Option<u64>,
    bl: Option<u64>,
    bs: bool,
    su: bool,
}

/// Looks for a playback. Gives way to others after every few lines.
pub(super) async fn find(sid: &str, mut lines: VecDeque<Arc<Lines>>) -> Session {
    let mut session =
        Session { sid: sid.to_owned(), remembered: Remembered::of(&lines), ..Session::default() };
    let words = format!("\"sid\":{}", escaped(sid));
    // Let go of as they are read: they may be forgotten meanwhile.
    while let Some(some) = lines.pop_front() {
        for (at_ms, line) in some.with(&words) {
            session.add(at_ms, line);
        }
        drop(some);
        yield_now().await;
    }
    session.reckoned()
}

/// A text as a line of the log has it.
fn escaped(text: &str) -> String {
    let mut units = [0; 2];
    let escaped = |char: char| match char {
        '"' | '\\' => format!("\\{char}"),
        ' '..='~' => char.to_string(),
        _ => {
            let units = char.encode_utf16(&mut units);
            units.iter().map(|unit| format!("\\u{unit:04x}")).collect()
        }
    };
    format!("\"{}\"", text.chars().map(escaped).collect::<String>())
}

impl Remembered {
    pub(super) fn of(lines: &VecDeque<Arc<Lines>>) -> Remembered {
        let oldest = lines.iter().find_map(|lines| lines.all().next());
        Remembered {
            requests: lines.iter().map(|lines| lines.count()).sum(),
            since_ms: oldest.map(|(at_ms, _)| at_ms),
        }
    }
}

impl Session {
    fn add(&mut self, at_ms: u64, line: &str) {
        let Ok(line) = serde_json::from_str::<Line<'_>>(line) else { return };
        let player = line.cmcd.unwrap_or_default();
        if player.sid.as_ref() != Some(&self.sid) {
            return;
        }
        let waits_us = line.origin_wait_us + line.ssd_wait_us;
        // The wait for the first byte is among those, unless it was there.
        let was_there = waits_us == 0 || line.lookup.as_deref() == Some("hit");
        let first_us = line.ttfb_us.unwrap_or(line.duration_us);
        let own_us = if was_there { first_us } else { 0 };
        // They were logged in the order they ended: nearly the order they were asked in.
        if self.requests.len() == SESSION_REQUESTS_MAX {
            self.requests.pop_front();
            self.left_out += 1;
        }
        self.requests.push_back(Told {
            at_ms,
            id: line.request_id.into_owned(),
            path: line.path.into_owned(),
            status: line.status,
            outcome: line.outcome.into_owned(),
            lookup: line.lookup,
            bytes: line.bytes,
            duration_us: line.duration_us,
            gap_us: 0,
            origin_wait_us: line.origin_wait_us,
            ssd_wait_us: line.ssd_wait_us,
            own_us,
            reading_us: line.duration_us.saturating_sub(waits_us + own_us),
            object_type: player.ot,
            bitrate_kbps: player.br,
            buffer_ms: player.bl,
            is_starved: player.bs,
            is_startup: player.su,
        });
    }

    /// In the order they were asked, with gaps and sums.
    fn reckoned(mut self) -> Session {
        self.requests.make_contiguous().sort_by_key(|told| told.at_ms);
        let mut open_until_us = None;
        for told in &mut self.requests {
            let at_us = told.at_ms * 1_000;
            told.gap_us = open_until_us.map_or(0, |until: u64| at_us.saturating_sub(until));
            open_until_us = open_until_us.max(Some(at_us + told.duration_us));
        }
        let sum = |of: fn(&Told) -> u64| self.requests.iter().map(of).sum();
        let count = |is: fn(&&Told) -> bool| self.requests.iter().filter(is).count();
        let begun_us = self.requests.front().map_or(0, |told| told.at_ms * 1_000);
        self.sums = Sums {
            requests: self.requests.len(),
            bytes: sum(|told| told.bytes),
            failed: count(|told| told.failed()),
            duration_us: open_until_us.unwrap_or(begun_us) - begun_us,
            gap_us: sum(|told| told.gap_us),
            origin_wait_us: sum(|told| told.origin_wait_us),
            ssd_wait_us: sum(|told| told.ssd_wait_us),
            own_us: sum(|told| told.own_us),
            reading_us: sum(|told| told.reading_us),
            starvations: count(|told| told.is_starved),
            buffer_ms_min: self.requests.iter().filter_map(|told| told.buffer_ms).min(),
        };
        self
    }
}

impl Told {
    /// No answer, an error, or a body that we cut.
    fn failed(&self) -> bool {
        self.status.is_none_or(|status| status >= 400) || self.outcome.starts_with("cut_short")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Of the playback "s": when it was asked for, what it waited for and took in microseconds.
    fn line(path: &str, [ttfb, origin, ssd, duration]: [u64; 4], cmcd: &Value) -> String {
        let lookup = if origin > 0 { "miss" } else { "hit" };
        json!({
            "request_id": "1", "path": path, "status": 200, "outcome": "complete",
            "lookup": lookup, "bytes": 10, "ttfb_us": ttfb, "duration_us": duration,
            "origin_wait_us": origin, "ssd_wait_us": ssd, "cmcd": cmcd, "host": "unread",
        })
        .to_string()
    }

    #[test]
    fn time_goes_where_it_went() {
        let mut session = Session { sid: "s".to_owned(), ..Session::default() };
        // In the order they ended.
        let first = json!({ "sid": "s", "bl": 900, "su": true });
        session.add(1_000, &line("/a", [100, 0, 0, 50_000], &first));
        let other = json!({ "sid": "t" });
        session.add(1_001, &line("/none", [1, 0, 0, 1], &other));
        let third = json!({ "sid": "s", "bs": true, "bl": 200, "ot": "v", "br": 3_200 });
        session.add(1_100, &line("/c", [20_100, 20_000, 300, 30_000], &third));
        session.add(1_060, &line("/b", [40, 0, 0, 80_000], &json!({ "sid": "s" })));
        session.add(1_300, "no line of ours");
        let told = serde_json::to_value(session.reckoned()).unwrap();
        let of = |name: &str| -> Vec<Value> {
            told["requests"].as_array().unwrap().iter().map(|told| told[name].clone()).collect()
        };
        assert_eq!(of("path"), ["/a", "/b", "/c"]);
        assert_eq!(of("gap_us"), [0, 10_000, 0], "the third was asked while the second was open");
        assert_eq!(of("own_us"), [100, 40, 0]);
        assert_eq!(of("reading_us"), [49_900, 79_960, 9_700]);
        let sums = json!({
            "requests": 3, "bytes": 30, "failed": 0, "duration_us": 140_000, "gap_us": 10_000,
            "origin_wait_us": 20_000, "ssd_wait_us": 300, "own_us": 140, "reading_us": 139_560,
            "starvations": 1, "buffer_ms_min": 200,
        });
        assert_eq!(told["sums"], sums);
    }

    #[test]
    fn of_a_long_playback_the_latest_are_told() {
        let mut session = Session { sid: "s".to_owned(), ..Session::default() };
        for at_ms in 0..SESSION_REQUESTS_MAX as u64 + 3 {
            session.add(at_ms, &line("/a", [1, 0, 0, 1], &json!({ "sid": "s" })));
        }
        let session = session.reckoned();
        assert_eq!((session.left_out, session.requests[0].at_ms), (3, 3));
        assert_eq!(session.requests.len(), SESSION_REQUESTS_MAX);
    }

    #[test]
    fn an_id_is_looked_for_as_the_log_writes_it() {
        assert_eq!(escaped("a b"), "\"a b\"");
        assert_eq!(escaped("a\"b\\\u{1f3ac}"), "\"a\\\"b\\\\\\ud83c\\udfac\"");
    }
}
