//! The series of the shadow caches: what other modes of admission and other sizes would serve.

use prometheus::proto;

use super::{ByWord, series};
use crate::metrics::series::{Kind, Series};

/// What they say; nothing but `shown` in the first hour.
#[derive(Clone, Debug, Default)]
pub struct ShadowSample {
    /// Requests they were shown, by where in a block a viewer came in.
    pub shown: ByWord,
    /// What would be found in each mode of admission, as a part of the bytes asked for.
    pub hit_shares: Vec<(&'static str, f64)>,
    /// 1 for the mode that serves more.
    pub prefers: ByWord,
    /// How much more would be found with another size: its tier, that size by the present one.
    pub gains: Vec<(&'static str, String, f64)>,
}

impl ShadowSample {
    pub(super) fn families(&self) -> Vec<proto::MetricFamily> {
        let share = |(mode, share): &(&'static str, f64)| series::measure(&[(MODE, mode)], *share);
        let gain = |(tier, size, gain): &(&'static str, String, f64)| {
            series::measure(&[("tier", tier), ("size", size)], *gain)
        };
        vec![
            series::family(SHOWN, words(SHOWN, "reader", &self.shown)),
            series::family(SHARE, self.hit_shares.iter().map(share).collect()),
            series::family(PREFERS, words(PREFERS, MODE, &self.prefers)),
            series::family(GAIN, self.gains.iter().map(gain).collect()),
        ]
    }
}

fn words(of: Series, label: &'static str, counts: &ByWord) -> Vec<proto::Metric> {
    counts.iter().map(|(word, count)| series::value(of, &[(label, word)], *count)).collect()
}

const MODE: &str = "mode";

const SHOWN: Series = series(
    Kind::Counter,
    Some("reader"),
    "tidegate_ssd_shadow_requests_total",
    "Requests for blocks of the sample that the shadow caches were shown.",
);
const SHARE: Series = series(
    Kind::Gauge,
    Some(MODE),
    "tidegate_ssd_shadow_hit_ratio",
    "What would be found in this mode of admission of late, as a part of the bytes asked for.",
);
const PREFERS: Series = series(
    Kind::Gauge,
    Some(MODE),
    "tidegate_ssd_shadow_prefers",
    "1 for the mode of admission that would serve more, 0 for the other.",
);
const GAIN: Series = series(
    Kind::Gauge,
    Some("tier"),
    "tidegate_ssd_shadow_gain_ratio",
    "What more would be found of late with a tier of another size, by the present one.",
);
