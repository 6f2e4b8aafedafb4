//! Shadow caches over a trace: the mode they choose against each mode alone, and their curve
//! against caches of those sizes, which are told the same choices.

use std::time::Instant;

use serde_json::{Value, json};
use tidegate::cache::admission::{Better, Mode};
use tidegate::cache::shadow::{Miniature, Point, ShadowSettings, Shadows, Tier};

use crate::run::{self, Size};
use crate::trace::Trace;

/// Points of hit ratio that a choice may lose and a prediction may be off.
const POINTS_MAX: f64 = 1.0;

/// What came of one size.
pub(crate) struct Shadowed {
    trace: String,
    percent: u64,
    chosen: f64,
    all: f64,
    choosing: f64,
    hours_all: usize,
    hours: usize,
    /// Size of the ssd by the present one, predicted, replayed.
    curve: Vec<(f64, f64, f64)>,
}

impl Shadowed {
    /// Replays a trace with the choice on and without a write budget.
    pub(crate) fn replay(trace: &Trace, percent: u64) -> Shadowed {
        let size = Size::of(trace, percent);
        let settings = run::settings(trace, Mode::Budget, None);
        let start = Instant::now();
        let resized = |factor: f64| {
            let ssd_bytes = (size.ssd_bytes as f64 * factor) as u64;
            Size { ssd_bytes, ..size }.cache(trace, settings, start)
        };
        let mut caches = [1.0, 0.5, 2.0].map(resized);
        let shadow = ShadowSettings {
            ram_bytes: size.ram_bytes,
            ssd_bytes: size.ssd_bytes,
            block_bytes_usual: trace.block_bytes_usual(),
            lifetime_min: settings.lifetime_min,
        };
        let shadows = Shadows::new(shadow, start);
        let (mut hours, mut hours_all) = (0, 0);
        trace.each(|at, asked| {
            for cache in &mut caches {
                cache.ask(asked, start + at);
            }
            if !shadows.ask(asked, start + at) {
                return;
            }
            let Some(report) = shadows.report() else { return };
            hours += 1;
            hours_all += usize::from(report.better != Better::Chosen);
            caches.iter().for_each(|cache| cache.prefer(report.better));
        });
        let of_mode =
            |mode| 100.0 * run::replay(trace, size, run::settings(trace, mode, None)).hit_share();
        let hit = |cache: &Miniature| 100.0 * cache.figures().hit_share();
        let predicted = shadows.curve();
        let curve = [(0.5, &caches[1]), (2.0, &caches[2])];
        Shadowed {
            trace: trace.name.clone(),
            percent,
            chosen: of_mode(Mode::Budget),
            all: of_mode(Mode::All),
            choosing: hit(&caches[0]),
            hours_all,
            hours,
            curve: curve
                .map(|(factor, cache)| {
                    let predicted = hit(&caches[0]) + ssd_gain(&predicted, factor);
                    (factor, predicted, hit(cache))
                })
                .to_vec(),
        }
    }

    pub(crate) fn holds(&self) -> bool {
        let near =
            |(_, predicted, replayed): &(f64, f64, f64)| (predicted - replayed).abs() <= POINTS_MAX;
        self.choosing >= self.chosen.max(self.all) - POINTS_MAX && self.curve.iter().all(near)
    }

    pub(crate) fn as_text(&self) -> String {
        let curve = self.curve.iter().map(|(factor, predicted, replayed)| {
            format!("  ssd x {factor}: predicted {predicted:.1}, replayed {replayed:.1}")
        });
        format!(
            "{:<18} {:>4} %  budget {:.1}  all {:.1}  choosing {:.1} (all in {} of {} hours){}{}\n",
            self.trace,
            self.percent,
            self.chosen,
            self.all,
            self.choosing,
            self.hours_all,
            self.hours,
            curve.collect::<String>(),
            if self.holds() { "" } else { "  BELOW" },
        )
    }

    pub(crate) fn as_json(&self) -> Value {
        json!({
            "trace": self.trace,
            "ssd_percent_of_footprint": self.percent,
            "hit_percent_budget": self.chosen,
            "hit_percent_all": self.all,
            "hit_percent_choosing": self.choosing,
            "hours_all": self.hours_all,
            "hours": self.hours,
            "curve": self.curve.iter().map(|(factor, predicted, replayed)| json!({
                "ssd_factor": factor, "predicted": predicted, "replayed": replayed,
            })).collect::<Value>(),
            "holds": self.holds(),
        })
    }
}

fn ssd_gain(points: &[Point], factor: f64) -> f64 {
    let mut points = points.iter();
    let point = points.find(|point| point.tier == Tier::Ssd && point.factor == factor);
    100.0 * point.expect("the curve has half and double the ssd").gain_since_start
}
