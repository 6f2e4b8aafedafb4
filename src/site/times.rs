//! When what is under a rule may be watched: from one moment until another, and at some hours of
//! each day as clocks show them somewhere. Pure: a time zone is read where rules are.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::entrance::Barred;

/// When.
#[derive(Clone, Debug, PartialEq)]
pub struct Times {
    /// Not before.
    pub from: Option<SystemTime>,
    /// Not from then on.
    pub until: Option<SystemTime>,
    /// At one of these; empty: at any.
    pub daily: Vec<Hours>,
    /// Whose clocks they are of.
    pub zone: TimeZone,
}

/// A part of each day, perhaps over midnight: `22:00-06:00`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hours {
    /// In minutes since midnight.
    first: u16,
    /// The first one that is none of it.
    end: u16,
}

impl Times {
    /// Whether it is time.
    ///
    /// # Errors
    /// It is not.
    pub fn check(&self, now: SystemTime) -> Result<(), Barred> {
        if self.from.is_some_and(|from| now < from) {
            return Err(Barred::Early);
        }
        if self.until.is_some_and(|until| now >= until) {
            return Err(Barred::Late);
        }
        if self.daily.is_empty() {
            return Ok(());
        }
        // Of a clock that shows no such time nobody knows the hour.
        let minute = self.minute(now).ok_or(Barred::Hours)?;
        match self.daily.iter().any(|hours| hours.hold(minute)) {
            true => Ok(()),
            false => Err(Barred::Hours),
        }
    }

    /// How many minutes of the day are over there.
    fn minute(&self, now: SystemTime) -> Option<u16> {
        let now = Timestamp::try_from(now).ok()?;
        let there = now.as_second() + i64::from(self.zone.to_offset(now).seconds());
        u16::try_from(there.rem_euclid(DAY_SECONDS) / 60).ok()
    }
}

impl Hours {
    fn hold(self, minute: u16) -> bool {
        match self.first < self.end {
            true => (self.first..self.end).contains(&minute),
            false => minute >= self.first || minute < self.end,
        }
    }
}

impl FromStr for Hours {
    type Err = ();

    /// `18:00-24:00`, `22:00-06:00`.
    fn from_str(text: &str) -> Result<Hours, ()> {
        let (first, end) = text.split_once('-').ok_or(())?;
        let (first, end) = (minute(first)?, minute(end)?);
        // None of the day, or all of it: nobody means either.
        let is_part = first < DAY_MINUTES && first != end && !(first == 0 && end == DAY_MINUTES);
        is_part.then_some(Hours { first, end }).ok_or(())
    }
}

/// `HH:MM`, up to `24:00`.
fn minute(text: &str) -> Result<u16, ()> {
    let (hour, minute) = text.split_once(':').ok_or(())?;
    let number = |text: &str| -> Result<u16, ()> {
        let is_number = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse().ok()).flatten().ok_or(())
    };
    let (hour, minute) = (number(hour)?, number(minute)?);
    let all = hour * 60 + minute;
    (minute < 60 && all <= DAY_MINUTES).then_some(all).ok_or(())
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Hours { first, end } = self;
        write!(f, "{:02}:{:02}-{:02}:{:02}", first / 60, first % 60, end / 60, end % 60)
    }
}

const DAY_MINUTES: u16 = 24 * 60;
const DAY_SECONDS: i64 = 86_400;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SystemTime {
        text.parse::<Timestamp>().unwrap().try_into().unwrap()
    }

    fn times(daily: &[&str], zone: &str) -> Times {
        let daily = daily.iter().map(|hours| hours.parse().unwrap()).collect();
        Times { from: None, until: None, daily, zone: TimeZone::get(zone).unwrap() }
    }

    #[test]
    fn hours_are_those_of_the_clocks_there_in_summer_too() {
        let evening = times(&["20:00-24:00"], "Europe/Berlin");
        for (now, expected) in [
            ("2026-01-15T18:59:59Z", Err(Barred::Hours)),
            ("2026-01-15T19:00:00Z", Ok(())),
            ("2026-01-15T22:59:59Z", Ok(())),
            ("2026-01-15T23:00:00Z", Err(Barred::Hours)),
            ("2026-07-15T17:59:59Z", Err(Barred::Hours)),
            ("2026-07-15T18:00:00Z", Ok(())),
            ("2026-07-15T22:00:00Z", Err(Barred::Hours)),
            // The day on which clocks go back has this hour twice.
            ("2026-10-25T00:30:00Z", Err(Barred::Hours)),
            // Long after the last change that a table has.
            ("2099-07-15T18:00:00Z", Ok(())),
        ] {
            assert_eq!(evening.check(at(now)), expected, "{now}");
        }
        let night = times(&["22:00-06:00", "12:00-12:30"], "UTC");
        for (now, expected) in [
            ("2026-01-15T22:00:00Z", Ok(())),
            ("2026-01-15T05:59:59Z", Ok(())),
            ("2026-01-15T06:00:00Z", Err(Barred::Hours)),
            ("2026-01-15T12:29:59Z", Ok(())),
            ("1969-12-31T23:00:00Z", Ok(())),
        ] {
            assert_eq!(night.check(at(now)), expected, "{now}");
        }
    }

    #[test]
    fn from_and_until_are_to_the_second() {
        let (from, until) = (at("2026-01-01T00:00:00Z"), at("2026-02-01T00:00:00Z"));
        let times = Times { from: Some(from), until: Some(until), ..times(&[], "UTC") };
        for (now, expected) in [
            ("2025-12-31T23:59:59Z", Err(Barred::Early)),
            ("2026-01-01T00:00:00Z", Ok(())),
            ("2026-01-31T23:59:59Z", Ok(())),
            ("2026-02-01T00:00:00Z", Err(Barred::Late)),
        ] {
            assert_eq!(times.check(at(now)), expected, "{now}");
        }
    }

    #[test]
    fn hours_that_no_day_has_are_none() {
        for good in ["00:00-06:30", "22:00-06:00", "18:00-24:00", "23:59-00:00"] {
            assert_eq!(good.parse::<Hours>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "18:00",
            "18:00-",
            "18-24",
            "18:00-18:00",
            "00:00-24:00",
            "24:00-06:00",
            "18:60-19:00",
            "18:00-24:01",
            "1:00-02:00",
            "+1:00-02:00",
            "18:00-19:00-20:00",
        ] {
            assert_eq!(bad.parse::<Hours>(), Err(()), "{bad}");
        }
    }
}
