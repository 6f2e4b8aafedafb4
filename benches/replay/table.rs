//! The table of hit ratios, beside what is promised and what peers reach.

use serde_json::{Value, json};
use tidegate::cache::admission::Mode;
use tidegate::cache::shadow::MiniatureFigures;

use crate::promises;

/// One replay.
pub(crate) struct Row {
    pub(crate) trace: String,
    pub(crate) mode: Mode,
    pub(crate) percent: u64,
    pub(crate) figures: MiniatureFigures,
}

impl Row {
    fn hit(&self) -> f64 {
        100.0 * self.figures.hit_share()
    }

    fn percent_of(&self, bytes: u64) -> f64 {
        100.0 * self.figures.share(bytes)
    }

    fn written(&self) -> f64 {
        self.percent_of(self.figures.written_bytes())
    }

    fn must(&self) -> Option<f64> {
        promises::hit_min(&self.trace, self.mode, self.percent)
    }

    /// To the decimal that is shown.
    pub(crate) fn holds(&self) -> bool {
        let rounded = |value: f64| (value * 10.0).round() / 10.0;
        let hit = self.must().is_none_or(|must| rounded(self.hit()) >= must);
        let written_max = promises::written_max(self.mode, self.percent);
        hit && written_max.is_none_or(|max| rounded(self.written()) <= max)
    }

    fn mode_name(&self) -> &'static str {
        match self.mode {
            Mode::Budget => "budget",
            Mode::All => "all",
            Mode::PlannedOnly => "planned-only",
        }
    }

    fn as_json(&self) -> Value {
        json!({
            "trace": self.trace,
            "mode": self.mode_name(),
            "ssd_percent_of_footprint": self.percent,
            "hit_percent": self.hit(),
            "hit_percent_must": self.must(),
            "hit_percent_peers": promises::peers(&self.trace, self.percent),
            "ram_percent": self.percent_of(self.figures.ram_bytes),
            "written_percent": self.written(),
            "appended_again_percent": self.percent_of(self.figures.reappended_bytes),
            "origin_percent": self.percent_of(self.figures.filled_bytes),
            "holds": self.holds(),
        })
    }

    fn as_text(&self) -> String {
        let or_none = |value: Option<f64>| value.map_or("-".to_owned(), |v| format!("{v:.1}"));
        format!(
            "{:<18} {:<6} {:>4} {:>7.1} {:>6} {:>6} {:>6.1} {:>8.1} {:>6.1} {:>7.1}  {}",
            self.trace,
            self.mode_name(),
            self.percent,
            self.hit(),
            or_none(self.must()),
            or_none(promises::peers(&self.trace, self.percent)),
            self.percent_of(self.figures.ram_bytes),
            self.written(),
            self.percent_of(self.figures.reappended_bytes),
            self.percent_of(self.figures.filled_bytes),
            if self.holds() { "" } else { "BELOW" },
        )
    }
}

/// All rows, as they are printed.
pub(crate) fn as_text(rows: &[Row]) -> String {
    let head =
        "trace              mode   ssd%  found%   must  peers   ram%  written%  again% origin%";
    let rows = rows.iter().map(|row| row.as_text().trim_end().to_owned());
    std::iter::once(head.to_owned()).chain(rows).map(|line| line + "\n").collect()
}

/// All rows as JSON.
pub(crate) fn as_json(rows: &[Row]) -> Value {
    rows.iter().map(Row::as_json).collect()
}
