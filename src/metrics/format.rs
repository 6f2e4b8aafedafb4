//! The formats of the series: which is asked for, and the text of OpenMetrics 1.0.
//!
//! Prometheus' own text is written by its crate. What OpenMetrics has beside that: a counter's
//! family without `_total`, units, a type for what only informs, and an end, without which a text
//! was cut short.

use std::fmt::Write;

use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

/// How the series are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' own text, 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// The `Content-Type` of its text.
    pub const fn content_type(self) -> &'static str {
        match self {
            Format::Prometheus => prometheus::TEXT_FORMAT,
            Format::OpenMetrics => OPENMETRICS_TYPE,
        }
    }

    /// What an `Accept` prefers of the two; Prometheus' own for who says nothing of either.
    pub fn of_accept(accept: &str) -> Format {
        let (mut open, mut own) = (0.0, 0.0);
        for (kind, version, weight) in accept.split(',').map(media) {
            if kind.eq_ignore_ascii_case("application/openmetrics-text")
                && ["", "1.0.0", "0.0.1"].contains(&version)
            {
                open = weight.max(open);
            } else if kind.eq_ignore_ascii_case("text/plain") {
                own = weight.max(own);
            }
        }
        match open > 0.0 && open >= own {
            true => Format::OpenMetrics,
            false => Format::Prometheus,
        }
    }
}

/// The type, its version, if it says one, and its weight.
fn media(member: &str) -> (&str, &str, f64) {
    let (kind, parameters) = member.split_once(';').unwrap_or((member, ""));
    let parameter = |wanted: &str| {
        let pairs = parameters.split(';').filter_map(|one| one.split_once('='));
        let mut pairs = pairs.map(|(name, value)| (name.trim(), value.trim().trim_matches('"')));
        pairs.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value)
    };
    let weight = parameter("q").map_or(1.0, |weight| weight.parse().unwrap_or(0.0));
    (kind.trim(), parameter("version").unwrap_or_default(), weight)
}

/// As content types name it.
const OPENMETRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Units that names end in; ratios and seconds are base units, and so are bytes.
const UNITS: [&str; 4] = ["bytes_per_second", "seconds", "bytes", "ratio"];

/// The text of `families` in OpenMetrics.
pub(super) fn openmetrics(families: &[MetricFamily]) -> String {
    let mut text = String::new();
    for family in families {
        // Nothing that is written to a string fails.
        let _ = append(&mut text, family);
    }
    text.push_str("# EOF\n");
    text
}

fn append(text: &mut String, family: &MetricFamily) -> std::fmt::Result {
    let (kind, suffix) = match family.get_field_type() {
        MetricType::COUNTER => ("counter", "_total"),
        MetricType::HISTOGRAM => ("histogram", ""),
        _ if family.name().ends_with("_info") => ("info", "_info"),
        MetricType::GAUGE => ("gauge", ""),
        _ => ("unknown", ""),
    };
    let name = family.name().strip_suffix(suffix).unwrap_or(family.name());
    writeln!(text, "# TYPE {name} {kind}")?;
    if let Some(unit) = unit_of(name) {
        writeln!(text, "# UNIT {name} {unit}")?;
    }
    writeln!(text, "# HELP {name} {}", escaped(family.help()))?;
    for metric in family.get_metric() {
        let labels = metric.get_label();
        match family.get_field_type() {
            MetricType::COUNTER => {
                sample(text, name, "_total", labels, None, metric.get_counter().get_value())?;
            }
            MetricType::HISTOGRAM => histogram(text, name, metric)?,
            _ => sample(text, name, suffix, labels, None, metric.get_gauge().get_value())?,
        }
    }
    Ok(())
}

fn unit_of(name: &str) -> Option<&'static str> {
    let is_last = |unit: &&str| name.strip_suffix(*unit).is_some_and(|rest| rest.ends_with('_'));
    UNITS.into_iter().find(is_last)
}

fn histogram(text: &mut String, name: &str, metric: &Metric) -> std::fmt::Result {
    let (labels, histogram) = (metric.get_label(), metric.get_histogram());
    let count = histogram.get_sample_count() as f64;
    for bucket in histogram.get_bucket() {
        let (bound, below) = (bucket.upper_bound(), bucket.cumulative_count());
        // As floating-point numbers are written there: 1.0, not 1.
        sample(text, name, "_bucket", labels, Some(&format!("{bound:?}")), below as f64)?;
    }
    sample(text, name, "_bucket", labels, Some("+Inf"), count)?;
    sample(text, name, "_count", labels, None, count)?;
    sample(text, name, "_sum", labels, None, histogram.get_sample_sum())
}

fn sample(
    text: &mut String,
    name: &str,
    suffix: &str,
    labels: &[LabelPair],
    bound: Option<&str>,
    value: f64,
) -> std::fmt::Result {
    write!(text, "{name}{suffix}")?;
    let labels = labels.iter().map(|label| (label.name(), label.value()));
    let mut between = '{';
    for (label, word) in labels.chain(bound.map(|bound| ("le", bound))) {
        write!(text, "{between}{label}=\"{}\"", escaped(word))?;
        between = ',';
    }
    let close = if between == ',' { "}" } else { "" };
    writeln!(text, "{close} {value}")
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_preferred_is_written() {
        for accept in [
            "application/openmetrics-text",
            "Application/OpenMetrics-Text; version=1.0.0; charset=utf-8",
            "application/openmetrics-text;version=\"0.0.1\", */*",
            // As Prometheus asks.
            "application/openmetrics-text;version=1.0.0,\
             application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
        ] {
            assert_eq!(Format::of_accept(accept), Format::OpenMetrics, "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "text/plain",
            "text/html, application/openmetrics-text;q=0",
            "application/openmetrics-text; q=0.5, text/plain; q=0.6",
            "application/openmetrics-text; version=2.0.0",
            "application/openmetrics-text; q=much",
            "application/openmetrics-textual",
        ] {
            assert_eq!(Format::of_accept(accept), Format::Prometheus, "{accept}");
        }
    }

    #[test]
    fn what_could_end_a_text_early_is_escaped() {
        assert_eq!(escaped("a \"b\\\n"), "a \\\"b\\\\\\n");
        assert_eq!(unit_of("tidegate_a_bytes_per_second"), Some("bytes_per_second"));
        assert_eq!(unit_of("tidegate_seconds_left"), None);
    }
}
