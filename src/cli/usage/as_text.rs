//! A month in words, aligned, for people, and as comma-separated values for tables. Pure.

use std::fmt::Write;

use crate::config::units::{bytes_about, counted};
use crate::usage::rfc3339;
use crate::usage::told::{MonthTold, SiteTold};

/// A line for each site, and what there is to know of the samples.
pub(super) fn table(told: &MonthTold) -> String {
    let MonthTold { month, machine, told_at, samples_due, samples_missing, .. } = told;
    let has_samples = told.sites.iter().any(|one| one.samples.is_some());
    let least = if has_samples { TIME_WIDTH } else { 4 };
    let width = told.sites.iter().map(|one| one.site.len()).max().unwrap_or(0).max(least);
    let mut text = format!(
        "usage of {month} on {machine}, as of {told_at}\n\n\
         {:width$}  {:>12}  {:>12}  {:>13}  {:>15}\n",
        "site", "served", "from origins", "requests", "95th percentile"
    );
    for one in told.sites.iter().chain(&told.all) {
        let _ = writeln!(
            text,
            "{:width$}  {:>12}  {:>12}  {:>13}  {:>15}",
            one.site,
            bytes_about(one.served_bytes),
            bytes_about(one.origin_bytes),
            one.requests,
            match one.requests {
                0 if one.served_bytes == 0 => "nothing served".to_owned(),
                _ => rate(one.p95_bits_per_second),
            },
        );
        for (start, counts) in one.samples.iter().flatten() {
            let [served, origin, requests] = <[u64; 3]>::from(*counts);
            let (served, origin) = (bytes_about(served), bytes_about(origin));
            let start = format!("  {}", rfc3339(*start));
            let _ = writeln!(text, "{start:width$}  {served:>12}  {origin:>12}  {requests:>13}");
        }
    }
    text.push('\n');
    if let Some(since) = told.begun_within() {
        let _ = writeln!(text, "counted since {since}: what was served before is not known");
    }
    let is_counted = told.counted_since.is_some() || *samples_due > 0;
    text += &match is_counted {
        true => samples(*samples_due, *samples_missing),
        false => "nothing was counted, and so it is not known what was served\n".to_owned(),
    };
    match told.damaged_lines {
        0 => {}
        1 => text.push_str("1 line is damaged and counts nothing\n"),
        lines => _ = writeln!(text, "{lines} lines are damaged and count nothing"),
    }
    if *told_at < told.end {
        text.push_str("the month is not over\n");
    }
    text
}

fn samples(due: u64, missing: u64) -> String {
    let (have, are) =
        (if due == 1 { "has" } else { "have" }, if missing == 1 { "is" } else { "are" });
    format!(
        "{} of 5 minutes {have} ended, {missing} {are} missing and left out of the percentile\n",
        counted(due, "sample")
    )
}

/// A line for each site; names hold neither commas nor quotes.
pub(super) fn csv(told: &MonthTold) -> String {
    let mut text = "machine,month,site,served_bytes,origin_bytes,requests,p95_bits_per_second,\
                    samples_due,samples_missing,counted_since\n"
        .to_owned();
    let MonthTold { machine, month, samples_due, samples_missing, .. } = told;
    let since = told.counted_since.as_deref().unwrap_or_default();
    for one in told.sites.iter().chain(&told.all) {
        let SiteTold { site, served_bytes, origin_bytes, requests, .. } = one;
        let percentile = one.p95_bits_per_second.map(|rate| rate.to_string()).unwrap_or_default();
        let _ = writeln!(
            text,
            "{machine},{month},{site},{served_bytes},{origin_bytes},{requests},{percentile},\
             {samples_due},{samples_missing},{since}"
        );
    }
    text
}

/// `812.4 Mbit/s`, in powers of ten.
fn rate(bits_per_second: Option<u64>) -> String {
    let Some(bits) = bits_per_second else { return "none yet".to_owned() };
    let units = [("Tbit/s", 1e12), ("Gbit/s", 1e9), ("Mbit/s", 1e6), ("kbit/s", 1e3)];
    match units.iter().find(|(_, factor)| bits as f64 >= *factor) {
        Some((unit, factor)) => format!("{:.1} {unit}", bits as f64 / factor),
        None => format!("{bits} bit/s"),
    }
}

/// Of when a sample begins, such as `  2026-11-22T14:10:00Z`.
const TIME_WIDTH: usize = 22;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told() -> MonthTold {
        let film = json!({
            "site": "film", "served_bytes": 1_319_413_953_331_u64,
            "origin_bytes": 3_221_225_472_u64, "requests": 1_234_567,
            "p95_bits_per_second": 812_412_345,
        });
        let quiet = json!({
            "site": "a-quiet-one", "served_bytes": 0, "origin_bytes": 0, "requests": 0,
            "p95_bits_per_second": null,
        });
        let mut all = film.clone();
        all["site"] = json!("*");
        serde_json::from_value(json!({
            "format": "tidegate usage 1", "machine": "edge-7", "month": "2026-11",
            "start": "2026-11-01T00:00:00Z", "end": "2026-12-01T00:00:00Z",
            "counted_since": "2026-11-01T00:00:00Z",
            "told_at": "2026-11-22T14:13:47Z", "sample_seconds": 300, "samples_due": 6_218,
            "samples_missing": 3, "damaged_lines": 1, "percentile": "95", "all": all,
            "sites": [quiet, film],
        }))
        .unwrap()
    }

    #[test]
    fn a_month_is_a_table_and_says_what_of_it_is_missing() {
        assert_eq!(
            table(&told()),
            "usage of 2026-11 on edge-7, as of 2026-11-22T14:13:47Z\n\
             \n\
             site               served  from origins       requests  95th percentile\n\
             a-quiet-one           0 B           0 B              0   nothing served\n\
             film              1.2 TiB       3.0 GiB        1234567     812.4 Mbit/s\n\
             *                 1.2 TiB       3.0 GiB        1234567     812.4 Mbit/s\n\
             \n\
             6218 samples of 5 minutes have ended, 3 are missing and left out of the \
             percentile\n\
             1 line is damaged and counts nothing\n\
             the month is not over\n"
        );
    }

    #[test]
    fn since_when_it_was_counted_is_told_and_nothing_is_no_zero() {
        let since = |since: Option<&str>, samples_due| {
            table(&MonthTold { counted_since: since.map(str::to_owned), samples_due, ..told() })
        };
        let new = since(Some("2026-11-20T10:05:00Z"), 7);
        let line = "\n\ncounted since 2026-11-20T10:05:00Z: what was served before is not known\n7 \
                    samples of 5 minutes have ended, ";
        assert!(new.contains(line), "{new}");
        let nothing = since(None, 0);
        let line = "\n\nnothing was counted, and so it is not known what was served\n";
        assert!(nothing.contains(line) && !nothing.contains("missing"), "{nothing}");
        // Of a version that does not say it.
        assert!(since(None, 7).contains("\n\n7 samples of 5 minutes have ended, "));
        let one = table(&MonthTold { samples_due: 1, samples_missing: 1, ..told() });
        let line = "\n1 sample of 5 minutes has ended, 1 is missing and left out of the ";
        assert!(one.contains(line), "{one}");
    }

    #[test]
    fn samples_stand_below_their_site_with_the_time_they_begin_at() {
        let mut told = MonthTold { all: None, damaged_lines: 2, ..told() };
        told.sites.truncate(1);
        (told.sites[0].served_bytes, told.sites[0].requests) = (1_024, 3);
        told.sites[0].samples =
            serde_json::from_value(json!([[1_795_356_600, [1_024, 0, 3]]])).unwrap();
        let text = table(&told);
        let lines: Vec<_> = text.lines().skip(2).collect();
        let expected = [
            "site                          served  from origins       requests  95th percentile",
            "a-quiet-one                  1.0 KiB           0 B              3         none yet",
            "  2026-11-22T14:10:00Z       1.0 KiB           0 B              3",
        ];
        assert_eq!(lines[..3], expected);
        assert!(text.contains("\n2 lines are damaged and count nothing\n"), "{text}");
    }

    #[test]
    fn of_one_site_nothing_is_said_of_all() {
        let told = MonthTold { all: None, ..told() };
        assert!(!table(&told).contains('*') && !csv(&told).contains('*'));
        assert!(!json!(told).to_string().contains("\"all\""), "whoever reads what is exported");
    }

    #[test]
    fn for_tables_every_figure_is_exact() {
        let lines: Vec<_> = csv(&told()).lines().map(str::to_owned).collect();
        assert_eq!(lines[1], "edge-7,2026-11,a-quiet-one,0,0,0,,6218,3,2026-11-01T00:00:00Z");
        assert_eq!(
            lines[2],
            "edge-7,2026-11,film,1319413953331,3221225472,1234567,812412345,6218,3,\
             2026-11-01T00:00:00Z"
        );
        let columns: Vec<_> = lines.iter().map(|line| line.split(',').count()).collect();
        assert_eq!(columns, [10; 4]);
    }
}
