//! USAGE: what each site was served, in samples of five minutes, kept by months.
//!
//! [`keeper`] takes what is counted and writes it, `folder.rs` is how it lies in files, [`told`]
//! what is told of a month: sums, and the 95th percentile of the rates; [`signed`] proves to others
//! who told it. Bytes are those of bodies: neither heads nor what TLS and TCP add are in them.

mod folder;
pub mod keeper;
pub mod signed;
pub mod told;

use std::fmt;
use std::ops::{AddAssign, Sub};
use std::str::FromStr;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use time::{Date, OffsetDateTime};

pub use self::folder::Folder;
use crate::moment::unix_seconds;

/// How long a sample is. They begin at whole multiples of it, in UTC.
pub const SAMPLE_SECONDS: u64 = 300;
/// Samples of the longest month.
const SAMPLES_PER_MONTH_MAX: usize = 31 * 86_400 / SAMPLE_SECONDS as usize;
/// What a site takes while a month is reckoned: a sum for each sample.
pub const SITE_BYTES: u64 = (SAMPLES_PER_MONTH_MAX * size_of::<u64>()) as u64;

/// What is counted of a site; written as a list of the three.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "[u64; 3]", into = "[u64; 3]")]
pub struct Counts {
    /// Body bytes handed to viewers' connections.
    pub served_bytes: u64,
    /// Body bytes received from origins.
    pub origin_bytes: u64,
    /// Requests answered.
    pub requests: u64,
}

impl From<[u64; 3]> for Counts {
    fn from([served_bytes, origin_bytes, requests]: [u64; 3]) -> Counts {
        Counts { served_bytes, origin_bytes, requests }
    }
}

impl From<Counts> for [u64; 3] {
    fn from(counts: Counts) -> [u64; 3] {
        [counts.served_bytes, counts.origin_bytes, counts.requests]
    }
}

impl Counts {
    /// Each of the three by itself.
    fn each(self, other: Counts, of: impl Fn(u64, u64) -> u64) -> Counts {
        let (one, other) = (<[u64; 3]>::from(self), <[u64; 3]>::from(other));
        Counts::from(std::array::from_fn(|index| of(one[index], other[index])))
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, more: Counts) {
        *self = self.each(more, u64::saturating_add);
    }
}

impl Sub for Counts {
    type Output = Counts;

    fn sub(self, before: Counts) -> Counts {
        self.each(before, u64::saturating_sub)
    }
}

/// A month, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Month {
    year: i32,
    month: time::Month,
}

impl Month {
    /// The one in which a time lies, in seconds since 1970.
    pub fn of(seconds: u64) -> Month {
        let time = i64::try_from(seconds).ok();
        let time = time.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok());
        // Beyond the year 9999 there is no calendar.
        let date = time.map_or(Date::MAX, OffsetDateTime::date);
        Month { year: date.year(), month: date.month() }
    }

    /// The one of a time.
    pub fn at(time: SystemTime) -> Month {
        Month::of(unix_seconds(time))
    }

    /// When it begins, in seconds since 1970.
    pub fn start(self) -> u64 {
        let first = Date::from_calendar_date(self.year, self.month, 1);
        let first = first.expect("each month has a first day").midnight().assume_utc();
        u64::try_from(first.unix_timestamp()).unwrap_or_default()
    }

    /// How many samples it has.
    pub fn samples(self) -> usize {
        let seconds = u64::from(self.month.length(self.year)) * 86_400;
        (seconds / SAMPLE_SECONDS) as usize
    }

    /// When it ends, in seconds since 1970.
    pub fn end(self) -> u64 {
        self.start() + self.samples() as u64 * SAMPLE_SECONDS
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, u8::from(self.month))
    }
}

impl FromStr for Month {
    type Err = String;

    fn from_str(text: &str) -> Result<Month, String> {
        let read = || {
            let (year, month) = text.split_once('-').filter(|_| text.len() == 7)?;
            let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
            let (true, true, 4) = (digits(year), digits(month), year.len()) else { return None };
            let month = time::Month::try_from(month.parse::<u8>().ok()?).ok()?;
            let year = year.parse().ok().filter(|year| *year >= 1970)?;
            Some(Month { year, month })
        };
        read().ok_or_else(|| "write a month such as 2026-11".to_owned())
    }
}

/// A time as RFC 3339 has it, to the second.
pub fn rfc3339(seconds: u64) -> String {
    let month = Month::of(seconds);
    let within = seconds - month.start();
    let (day, second) = (within / 86_400 + 1, within % 86_400);
    let (hour, minute) = (second / 3_600, second / 60 % 60);
    format!("{month}-{day:02}T{hour:02}:{minute:02}:{:02}Z", second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_have_their_own_lengths_and_touch_each_other() {
        let table = [
            ("2026-11", 1_793_491_200, 30 * 288),
            ("2026-12", 1_796_083_200, 31 * 288),
            ("2028-02", 1_832_976_000, 29 * 288),
            ("1970-01", 0, 31 * 288),
        ];
        for (text, start, samples) in table {
            let month: Month = text.parse().unwrap();
            assert_eq!((month.start(), month.samples()), (start, samples), "{text}");
            assert_eq!((month.to_string(), Month::of(start)), (text.to_owned(), month));
            assert_eq!(Month::of(month.end() - 1), month);
            assert_eq!(Month::of(month.end()).start(), month.end());
        }
        for wrong in ["", "2026", "2026-13", "2026-00", "2026-1", "26-11", "+026-11", "2026-+1"] {
            assert!(wrong.parse::<Month>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_time_is_written_as_others_read_it() {
        assert_eq!(rfc3339(1_795_356_827), "2026-11-22T14:13:47Z");
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
    }
}
