//! From when to when a certificate is valid (RFC 5280 section 4.1.2.5). Pure.

use std::time::{Duration, SystemTime};

use super::names::Elements;

const SEQUENCE: u8 = 0x30;
/// `[0] EXPLICIT Version` of a TBSCertificate, which may be missing.
const VERSION: u8 = 0xa0;
/// `YYMMDDHHMMSSZ`: years from 1950 to 2049.
const UTC_TIME: u8 = 0x17;
/// `YYYYMMDDHHMMSSZ`.
const GENERALIZED_TIME: u8 = 0x18;

/// The first and the last moment of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first.
    pub not_before: SystemTime,
    /// The last.
    pub not_after: SystemTime,
}

impl Validity {
    /// What a certificate in DER says; `None` where it says it in another form.
    pub fn of(certificate: &[u8]) -> Option<Validity> {
        let certificate = Elements(certificate).content(SEQUENCE)?;
        let signed = Elements(certificate).content(SEQUENCE)?;
        // Number, algorithm and issuer stand before it.
        let (_, validity) = Elements(signed).filter(|(tag, _)| *tag != VERSION).nth(3)?;
        let mut dates = Elements(validity).map(|(tag, text)| date(tag, text));
        Some(Validity { not_before: dates.next()??, not_after: dates.next()?? })
    }
}

fn date(tag: u8, text: &[u8]) -> Option<SystemTime> {
    let text = str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let year_digits = match tag {
        UTC_TIME => 2,
        GENERALIZED_TIME => 4,
        _ => return None,
    };
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || text.len() != year_digits + 10 {
        return None;
    }
    let (year, rest) = text.split_at(year_digits);
    let year = match (tag, year.parse::<u64>().ok()?) {
        (UTC_TIME, year @ 0..50) => 2_000 + year,
        (UTC_TIME, year) => 1_900 + year,
        (_, year) => year,
    };
    let part = |place: usize| rest[2 * place..2 * place + 2].parse::<u64>().ok();
    let (month, day) = (part(0)?, part(1)?);
    let days = days_since_1970(year, month, day)?;
    let (hour, minute, second) = (part(2)?, part(3)?, part(4)?);
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// Of the Gregorian calendar; what began before 1970 began long ago.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    let before = *DAYS_BEFORE.get(usize::try_from(month).ok()?.checked_sub(1)?)?;
    if !(1..=31).contains(&day) {
        return None;
    }
    let leaps = |year: u64| year / 4 - year / 100 + year / 400;
    let is_leap = leaps(year) > leaps(year.saturating_sub(1));
    let leap_day = u64::from(is_leap && month > 2);
    let Some(years) = year.checked_sub(1_970) else { return Some(0) };
    let days = years * 365 + leaps(year - 1) - leaps(1_969);
    Some(days + before + leap_day + day - 1)
}

/// Days of a year before each month.
const DAYS_BEFORE: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn made(from: (i32, u8, u8), to: (i32, u8, u8)) -> Vec<u8> {
        let mut params = CertificateParams::new(["a.test".to_owned()]).unwrap();
        params.not_before = date_time_ymd(from.0, from.1, from.2);
        params.not_after = date_time_ymd(to.0, to.1, to.2);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn dates_are_read_from_a_certificate_in_both_forms() {
        for (from, to, expected) in [
            ((1970, 1, 1), (2026, 11, 22), ["Thu, 01 Jan 1970", "Sun, 22 Nov 2026"]),
            ((2000, 2, 29), (2100, 3, 1), ["Tue, 29 Feb 2000", "Mon, 01 Mar 2100"]),
            ((1950, 1, 1), (2049, 12, 31), ["Thu, 01 Jan 1970", "Fri, 31 Dec 2049"]),
            ((2024, 12, 31), (2050, 1, 1), ["Tue, 31 Dec 2024", "Sat, 01 Jan 2050"]),
        ] {
            let validity = Validity::of(&made(from, to)).unwrap();
            let read = [validity.not_before, validity.not_after].map(httpdate::fmt_http_date);
            assert_eq!(read, expected.map(|date| format!("{date} 00:00:00 GMT")));
        }
    }

    #[test]
    fn no_cut_or_changed_certificate_does_harm() {
        let der = made((2024, 1, 1), (2050, 1, 1));
        for end in 0..der.len() {
            assert!(Validity::of(&der[..end]).is_none_or(|read| read.not_before < read.not_after));
            let mut changed = der.clone();
            changed[end] ^= 0xff;
            Validity::of(&changed);
        }
        // Later than any date that can be told.
        assert_eq!(date(GENERALIZED_TIME, b"99991231240000Z"), None);
        for text in [
            "990101006000Z",
            "990101000060Z",
            "991332000000Z",
            "990100000000Z",
            "99010100000Z",
            "9901010000+0Z",
        ] {
            assert_eq!(date(UTC_TIME, text.as_bytes()), None, "{text}");
        }
    }
}
