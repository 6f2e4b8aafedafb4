//! Quantities as people write them: "4 GiB", "60%", "1500ms". Pure.
//!
//! A number without a unit is a count of bytes and nothing else; a duration always has one.

use std::time::Duration;

/// Units of size, the largest first; the decimal ones are read and never written.
const SIZES: [(&str, u64); 11] = [
    ("EiB", 1 << 60),
    ("PiB", 1 << 50),
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

const MIB: (&str, u64) = SIZES[4];

/// Units of rates.
const RATES: [(&str, u64); 4] = [
    ("Tbit/s", 1_000_000_000_000),
    ("Gbit/s", 1_000_000_000),
    ("Mbit/s", 1_000_000),
    ("kbit/s", 1_000),
];

/// Units of time in milliseconds, the largest first; weeks and years are read and never written.
const TIMES: [(&str, u64); 7] = [
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Reads "64 KiB", "64KiB", "500 MB" or "65536".
pub fn parse_bytes(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let factor = match unit {
        "" => 1,
        "kB" => 1_000,
        unit => find(&SIZES, unit)?,
    };
    number.checked_mul(factor)
}

/// Reads "200ms", "5s", "2m", "1h", "7d", "2w" or "1y" (365 days).
pub fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    number.checked_mul(find(&TIMES, unit)?).map(Duration::from_millis)
}

/// Reads "40 Gbit/s" or "500 kbit/s".
pub fn parse_bits_per_second(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    number.checked_mul(find(&RATES, unit)?)
}

/// Writes how many there are: `1 line`, `2 lines`.
pub fn counted(count: u64, name: &str) -> String {
    let end = if count == 1 { "" } else { "s" };
    format!("{count} {name}{end}")
}

/// Writes a rate in bits, in the largest unit that leaves a whole number.
pub fn rate_text(bytes_per_second: u64) -> String {
    let bits = bytes_per_second.saturating_mul(8);
    match RATES.iter().find(|(_, factor)| bits > 0 && bits.is_multiple_of(*factor)) {
        Some((unit, factor)) => format!("{} {unit}", bits / factor),
        None => format!("{bits} bit/s"),
    }
}

/// Reads "1%" to "100%".
pub fn parse_percent(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    (unit == "%" && (1..=100).contains(&number)).then_some(number)
}

/// Reads "1x", "0.3x" or "2.25x" as hundredths, from 1 on.
pub fn parse_times(text: &str) -> Option<u64> {
    let number = text.strip_suffix('x')?;
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 2 {
        return None;
    }
    let part: u64 = format!("{part:0<2}").parse().ok()?;
    let hundredths = whole.parse::<u64>().ok()?.checked_mul(100)?.checked_add(part)?;
    (hundredths > 0).then_some(hundredths)
}

/// Writes a size exactly, in the largest binary unit that leaves a whole number.
pub fn bytes_text(bytes: u64) -> String {
    let binary = SIZES.iter().filter(|(unit, _)| unit.ends_with("iB"));
    match binary.clone().find(|(_, factor)| bytes > 0 && bytes.is_multiple_of(*factor)) {
        Some((unit, factor)) => format!("{} {unit}", bytes / factor),
        None => format!("{bytes} B"),
    }
}

/// Writes sizes to be compared: all in the largest binary unit that leaves each of them a whole
/// number, or in MiB, rounded down.
pub fn bytes_alike<const N: usize>(sizes: [u64; N]) -> [String; N] {
    let wholes = SIZES.iter().filter(|(unit, _)| unit.ends_with("iB"));
    let mut wholes = wholes.filter(|(_, factor)| sizes.iter().all(|it| it.is_multiple_of(*factor)));
    let (unit, factor) = wholes.next().filter(|(_, factor)| *factor > 1 << 20).unwrap_or(&MIB);
    sizes.map(|bytes| format!("{} {unit}", bytes / factor))
}

/// Writes a duration in the largest unit up to days that leaves a whole number.
pub fn duration_text(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let units = TIMES.iter().skip(2);
    match units.clone().find(|(_, factor)| millis > 0 && millis.is_multiple_of(*factor)) {
        Some((unit, factor)) => format!("{}{unit}", millis / factor),
        None => "0s".to_owned(),
    }
}

/// Writes a size to one digit after the point, in the largest binary unit that it reaches.
pub fn bytes_about(bytes: u64) -> String {
    let binary = SIZES.iter().find(|(unit, factor)| unit.ends_with("iB") && bytes >= *factor);
    match binary {
        Some((unit, factor)) => format!("{:.1} {unit}", bytes as f64 / *factor as f64),
        None => format!("{bytes} B"),
    }
}

/// Writes a duration of seconds and more by its two largest units up to days: "3h 12m".
pub fn duration_about(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let units = TIMES.iter().skip(2).take(4);
    let mut parts = Vec::new();
    for (unit, factor) in units {
        if rest >= *factor || !parts.is_empty() {
            parts.push(format!("{}{unit}", rest / factor));
            rest %= factor;
        }
    }
    parts.truncate(2);
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.strip_prefix(' ').unwrap_or(unit)))
}

fn find(units: &[(&str, u64)], unit: &str) -> Option<u64> {
    units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_and_written() {
        let table = [
            ("0", Some(0), "0 B"),
            ("65536", Some(65_536), "64 KiB"),
            ("4 GiB", Some(4 << 30), "4 GiB"),
            ("4GiB", Some(4 << 30), "4 GiB"),
            ("1536 MiB", Some(1536 << 20), "1536 MiB"),
            ("1 MB", Some(1_000_000), "1000000 B"),
            ("3 kB", Some(3_000), "3000 B"),
            ("2 TiB", Some(2 << 40), "2 TiB"),
            ("10 PiB", Some(10 << 50), "10 PiB"),
            ("15 EiB", Some(15 << 60), "15 EiB"),
        ];
        for (text, bytes, written) in table {
            assert_eq!(parse_bytes(text), bytes, "{text}");
            assert_eq!(bytes_text(bytes.unwrap()), written, "{text}");
        }
        for wrong in ["", "GiB", "-1", "1.5 GiB", "4  GiB", "4 gib", "16777216 TiB", "4 GiB "] {
            assert_eq!(parse_bytes(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn sizes_to_be_compared_are_written_in_one_unit() {
        for (sizes, written) in [
            ([16 << 30, 4 << 30], ["16 GiB", "4 GiB"]),
            ([16 << 30, 3000 << 20], ["16384 MiB", "3000 MiB"]),
            ([15_258 << 20, 4_000_000_000], ["15258 MiB", "3814 MiB"]),
            ([2 << 40, 0], ["2 TiB", "0 TiB"]),
            ([192 << 20, 1 << 10], ["192 MiB", "0 MiB"]),
        ] {
            assert_eq!(bytes_alike(sizes), written, "{sizes:?}");
        }
    }

    #[test]
    fn rates_read_and_written() {
        for (text, bits) in [
            ("40 Gbit/s", 40_000_000_000),
            ("1500 kbit/s", 1_500_000),
            ("2Tbit/s", 2_000_000_000_000),
        ] {
            assert_eq!(parse_bits_per_second(text), Some(bits), "{text}");
        }
        assert_eq!(rate_text(5_000_000_000), "40 Gbit/s");
        assert_eq!(rate_text(187_500), "1500 kbit/s");
        assert_eq!(rate_text(1), "8 bit/s");
        for wrong in ["", "40", "40 Gbps", "40 GB/s", "1.5 Gbit/s", "-1 Gbit/s", "Gbit/s"] {
            assert_eq!(parse_bits_per_second(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn durations_read_and_written() {
        let table = [
            ("0s", 0, "0s"),
            ("1500ms", 1_500, "1500ms"),
            ("5 s", 5_000, "5s"),
            ("120s", 120_000, "2m"),
            ("1h", 3_600_000, "1h"),
            ("2w", 14 * 86_400_000, "14d"),
            ("1y", 365 * 86_400_000, "365d"),
        ];
        for (text, millis, written) in table {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse_duration(text), Some(duration), "{text}");
            assert_eq!(duration_text(duration), written, "{text}");
        }
        for wrong in ["", "5", "5 sec", "-5s", "1h30m", "0.5s", "99999999999999999y"] {
            assert_eq!(parse_duration(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn figures_for_people_are_rounded() {
        for (bytes, text) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_536, "1.5 KiB"),
            (65_536, "64.0 KiB"),
            (3_298_534_883_328, "3.0 TiB"),
        ] {
            assert_eq!(bytes_about(bytes), text);
        }
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m 0s"),
            (3_725, "1h 2m"),
            (86_400, "1d 0h"),
            (8_640_000, "100d 0h"),
        ] {
            assert_eq!(duration_about(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn multiples_are_read_in_hundredths() {
        for (text, hundredths) in [("1x", 100), ("0.3x", 30), ("2.25x", 225), ("10x", 1_000)] {
            assert_eq!(parse_times(text), Some(hundredths), "{text}");
        }
        for wrong in
            ["", "x", "1", "0x", "0.00x", ".5x", "1.x", "1.234x", "-1x", "1 x", "1X", "+1x"]
        {
            assert_eq!(parse_times(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn shares_are_whole_percents() {
        assert_eq!(parse_percent("60%"), Some(60));
        assert_eq!(parse_percent("100 %"), Some(100));
        for wrong in ["0%", "101%", "60", "6.5%", "%"] {
            assert_eq!(parse_percent(wrong), None, "{wrong:?}");
        }
    }
}
