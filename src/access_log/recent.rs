//! The latest requests: their log lines, read again when someone looks.
//!
//! Filled by the writing thread, so that remembering costs a serving thread nothing. What is kept
//! is bounded in bytes; the oldest go first. Says no more of a viewer than the log does.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use memchr::memmem;

use serde::{Deserialize, Serialize};

use super::Line;
use crate::limits;
use crate::moment::unix_millis;

/// One of the latest requests: read from its log line, written for the status page.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct RecentRequest {
    /// The request's id.
    #[serde(rename(deserialize = "request_id"))]
    pub id: String,
    /// When its head had been read, in milliseconds of Unix time.
    #[serde(skip_deserializing)]
    pub at_ms: u64,
    /// Its method.
    pub method: String,
    /// Path and canonical query.
    pub path: String,
    /// `http1` or `http2`.
    pub protocol: String,
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// The status sent; `None` to a viewer who left before there was one.
    pub status: Option<u16>,
    /// Body bytes sent.
    pub bytes: u64,
    /// Those of them that were read from an ssd.
    pub ssd_bytes: u64,
    /// First and last byte of the range that was answered.
    pub range: Option<String>,
    /// What the look-up found: the metrics' word.
    #[serde(rename(deserialize = "lookup"))]
    pub cache: Option<String>,
    /// Time to first byte, in microseconds.
    pub ttfb_us: Option<u64>,
    /// Time to the end of the body, in microseconds.
    pub duration_us: u64,
    /// How it ended.
    pub outcome: String,
}

/// The lines of the latest requests. Only the writer and who looks lock it.
#[derive(Debug)]
pub(super) struct Latest {
    bytes_max: usize,
    began: Instant,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// Oldest first; shared with who looks.
    closed: VecDeque<Arc<Lines>>,
    closed_bytes: usize,
    /// What comes now.
    open: Lines,
    has_forgotten: bool,
}

/// Lines of successive requests.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    text: String,
    /// Of each: when its head had been read, in milliseconds of Unix time, and where its line ends.
    ends: Vec<(u64, usize)>,
}

impl Lines {
    fn push(&mut self, line: &Line) {
        if self.text.capacity() == 0 {
            // Not by doubling it, which would copy each line twice.
            self.text.reserve_exact(OPEN_BYTES_MAX + LINE_BYTES_USUAL_MAX);
            self.ends.reserve_exact(OPEN_BYTES_MAX / LINE_BYTES_USUAL);
        }
        self.text.push_str(&line.text);
        self.ends.push((unix_millis(line.time), self.text.len()));
    }

    fn bytes(&self) -> usize {
        self.text.capacity() + self.ends.capacity() * size_of::<(u64, usize)>()
    }

    fn line(&self, number: usize) -> (u64, &str) {
        let start = number.checked_sub(1).map_or(0, |before| self.ends[before].1);
        let (at_ms, end) = self.ends[number];
        (at_ms, &self.text[start..end])
    }

    /// How many they are.
    pub fn count(&self) -> usize {
        self.ends.len()
    }

    /// Each line, with when its request's head had been read in milliseconds of Unix time.
    pub fn all(&self) -> impl DoubleEndedIterator<Item = (u64, &str)> {
        (0..self.count()).map(|number| self.line(number))
    }

    /// Those in which `words` stand, once for each time they do.
    pub fn with<'a>(&'a self, words: &'a str) -> impl Iterator<Item = (u64, &'a str)> {
        let found = memmem::find_iter(self.text.as_bytes(), words);
        found.map(|at| self.line(self.ends.partition_point(|(_, end)| *end <= at)))
    }
}

impl Latest {
    pub(super) fn new(bytes_max: usize) -> Latest {
        Latest { bytes_max, began: Instant::now(), held: Mutex::default() }
    }

    /// How long ago the first request of all could come, if none was forgotten since.
    pub(super) fn whole_for(&self, now: Instant) -> Option<Duration> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        (!held.has_forgotten).then(|| now.saturating_duration_since(self.began))
    }

    /// Adds lines, oldest first.
    pub(super) fn remember(&self, lines: &[Line]) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        for line in lines {
            held.open.push(line);
            if held.open.text.len() >= OPEN_BYTES_MAX {
                let closed = std::mem::take(&mut held.open);
                held.closed_bytes += closed.bytes();
                held.closed.push_back(Arc::new(closed));
            }
        }
        while held.closed_bytes + 2 * OPEN_BYTES_MAX > self.bytes_max {
            let Some(oldest) = held.closed.pop_front() else { break };
            held.closed_bytes -= oldest.bytes();
            held.has_forgotten = true;
        }
    }

    /// All of them, oldest first.
    pub(super) fn lines(&self) -> VecDeque<Arc<Lines>> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lines = held.closed.clone();
        lines.push_back(Arc::new(held.open.clone()));
        lines
    }

    /// The newest requests, for the status page; newest first.
    pub(super) fn read(&self) -> Vec<RecentRequest> {
        // Parsed outside the lock: the writer is not kept waiting.
        let lines = self.lines();
        let newest = lines.iter().rev().flat_map(|lines| lines.all().rev());
        newest.take(limits::RECENT_REQUESTS_MAX).filter_map(recent_request).collect()
    }
}

/// `None` of a line that cannot be read: one must not hide the others.
fn recent_request((at_ms, text): (u64, &str)) -> Option<RecentRequest> {
    let request: RecentRequest = serde_json::from_str(text).ok()?;
    Some(RecentRequest { at_ms, ..request })
}

/// So many bytes are copied for who looks; the others are shared with him.
const OPEN_BYTES_MAX: usize = 64 << 10;
/// Of nearly all lines.
const LINE_BYTES_USUAL: usize = 400;
const LINE_BYTES_USUAL_MAX: usize = 1 << 10;

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn line(number: u64) -> Line {
        let text = format!("{{\"n\":{number},\"pad\":\"{}\"}}\n", "x".repeat(500));
        Line { time: SystemTime::UNIX_EPOCH + Duration::from_millis(number), text }
    }

    #[test]
    fn so_many_bytes_are_kept_and_the_oldest_go_first() {
        let latest = Latest::new(limits::RECENT_BYTES_MIN);
        latest.remember(&[line(0)]);
        let later = latest.began + Duration::from_secs(7);
        assert_eq!(latest.whole_for(later), Some(Duration::from_secs(7)));
        for number in 0..20_000 {
            latest.remember(&[line(number)]);
        }
        let lines = latest.lines();
        let held_bytes: usize = lines.iter().map(|lines| lines.bytes()).sum();
        assert!(held_bytes <= limits::RECENT_BYTES_MIN, "{held_bytes}");
        assert!(held_bytes >= limits::RECENT_BYTES_MIN / 4 * 3, "{held_bytes}");
        let kept: Vec<u64> = lines.iter().flat_map(|lines| lines.all()).map(|(at, _)| at).collect();
        let first = kept[0];
        assert!(first > 0);
        assert!(kept.iter().copied().eq(first..20_000), "none is missing in between");
        assert_eq!(latest.whole_for(later), None);
    }

    #[test]
    fn words_are_found_in_their_lines() {
        let latest = Latest::new(1 << 20);
        (0..500).for_each(|number| latest.remember(&[line(number)]));
        let found = |words: &str| -> Vec<u64> {
            let lines = latest.lines();
            lines.iter().flat_map(|lines| lines.with(words).map(|(at, _)| at)).collect()
        };
        assert_eq!(found("\"n\":7,"), [7]);
        assert_eq!(found("\"n\":49"), [49, 490, 491, 492, 493, 494, 495, 496, 497, 498, 499]);
        assert!(found("\"n\":500").is_empty());
    }
}
