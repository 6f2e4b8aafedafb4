//! Moments, and how those of the clock that people set are told: as time since 1970, or as a date.
//!
//! A clock that is set before 1970 counts as that year's beginning.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use httpdate::HttpDate;

/// A moment, by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Which may be set.
    pub time: SystemTime,
    /// Which may not.
    pub instant: Instant,
}

impl Moment {
    /// This one.
    pub fn now() -> Moment {
        Moment { time: SystemTime::now(), instant: Instant::now() }
    }
}

/// How long after 1970 began that is.
pub fn since_1970(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The same, in seconds.
pub fn unix_seconds(time: SystemTime) -> u64 {
    since_1970(time).as_secs()
}

/// The same, in milliseconds.
pub fn unix_millis(time: SystemTime) -> u64 {
    since_1970(time).as_millis() as u64
}

/// The date that long after 1970 began, as HTTP writes it; what is later than any calendar is
/// brought back to the year 9999.
pub fn http_date(since: Duration) -> HttpDate {
    HttpDate::from(UNIX_EPOCH + since.min(LAST_SECOND_OF_9999))
}

const LAST_SECOND_OF_9999: Duration = Duration::from_secs(253_402_300_799);
