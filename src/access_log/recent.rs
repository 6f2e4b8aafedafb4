//! The latest requests, for the status page: their log lines, read again when someone looks.
//!
//! Filled by the writing thread, so that remembering costs a serving thread nothing. Says no more
//! of a viewer than the log does.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::Line;
use crate::limits;

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
    /// The status sent.
    pub status: u16,
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

/// The lines of the latest requests, newest last. Only the writer and the status page lock it.
#[derive(Debug, Default)]
pub(super) struct Latest {
    lines: Mutex<VecDeque<Line>>,
}

impl Latest {
    /// Adds lines, oldest first.
    pub(super) fn remember(&self, lines: Vec<Line>) {
        let mut latest = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        latest.extend(lines);
        let surplus = latest.len().saturating_sub(limits::RECENT_REQUESTS_MAX);
        latest.drain(..surplus);
    }

    /// The requests, newest first.
    pub(super) fn read(&self) -> Vec<RecentRequest> {
        // Parsed outside the lock: the writer is not kept waiting.
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone();
        lines.iter().rev().map(recent_request).collect()
    }
}

fn recent_request(line: &Line) -> RecentRequest {
    let mut request: RecentRequest =
        serde_json::from_str(&line.text).expect("a line of ours has the fields of a request");
    let since = line.time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    request.at_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    request
}
