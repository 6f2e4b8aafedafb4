//! What the status page draws of the last hour, so that one which is opened now has something to
//! draw: a moment's counters every ten seconds. Bounded; the oldest go first. Pure but for its
//! owner, who takes the moments: the clock is an argument.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};

use crate::limits::{HISTORY_EVERY, HISTORY_MOMENTS_MAX};
use crate::metrics::labels::Tier;
use crate::metrics::{Counters, Metrics};

/// The moments that are remembered, oldest first.
#[derive(Debug, Default)]
pub struct History {
    moments: RefCell<VecDeque<Moment>>,
}

#[derive(Clone, Copy, Debug)]
struct Moment {
    at: Instant,
    counted: Counted,
}

/// Counters since the start, as they were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Counted {
    requests: u64,
    ram: u64,
    ssd: u64,
    fill: u64,
    pass: u64,
    /// Body bytes received from origins.
    origin: u64,
}

/// What is told of it.
#[derive(Debug, Serialize)]
pub(super) struct Told {
    every_seconds: u64,
    moments: Vec<ToldMoment>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct ToldMoment {
    /// Who asks may have another clock.
    ago_ms: u64,
    #[serde(flatten)]
    counted: Counted,
}

impl History {
    /// Takes a moment from time to time, for ever: run it beside who tells of them.
    pub async fn follow(&self, metrics: Arc<Metrics>) {
        let mut moments = interval(HISTORY_EVERY);
        moments.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            moments.tick().await;
            self.take(&metrics.totals(), Instant::now());
        }
    }

    fn take(&self, totals: &Counters, at: Instant) {
        let bytes = totals.sites.body_bytes();
        let counted = Counted {
            requests: totals.requests.sum(),
            ram: bytes.of(Tier::Ram),
            ssd: bytes.of(Tier::Ssd),
            fill: bytes.of(Tier::Fill),
            pass: bytes.of(Tier::Pass),
            origin: totals.origin_bytes.sum(),
        };
        let mut moments = self.moments.borrow_mut();
        if moments.len() == HISTORY_MOMENTS_MAX {
            moments.pop_front();
        }
        moments.push_back(Moment { at, counted });
    }

    pub(super) fn told(&self, now: Instant) -> Told {
        let told = |moment: &Moment| ToldMoment {
            ago_ms: now.saturating_duration_since(moment.at).as_millis() as u64,
            counted: moment.counted,
        };
        let moments = self.moments.borrow().iter().map(told).collect();
        Told { every_seconds: HISTORY_EVERY.as_secs(), moments }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::labels::Lookup;

    #[test]
    fn the_last_hour_is_remembered_and_no_more() {
        let (history, metrics, began) = (History::default(), Metrics::new(), Instant::now());
        let counters = metrics.for_thread();
        assert!(history.told(began).moments.is_empty());
        for moment in 0..=HISTORY_MOMENTS_MAX as u32 {
            counters.lookups.count(Lookup::Hit);
            counters.sites.none().body_bytes.add(Tier::Ram, 10);
            counters.origin_bytes.add((), 1);
            history.take(&metrics.totals(), began + moment * HISTORY_EVERY);
        }
        let now = began + HISTORY_MOMENTS_MAX as u32 * HISTORY_EVERY;
        let told = history.told(now);
        assert_eq!((told.moments.len(), told.every_seconds), (HISTORY_MOMENTS_MAX, 10));
        // The first was forgotten: of the second the counters were these.
        let oldest = ToldMoment {
            ago_ms: 3_600_000,
            counted: Counted { ram: 20, origin: 2, ..Counted::default() },
        };
        assert_eq!(told.moments[0], oldest);
        assert_eq!(told.moments.last().map(|moment| moment.ago_ms), Some(0));
        let newest = serde_json::to_value(told.moments.last()).unwrap();
        assert_eq!((&newest["ram"], &newest["ssd"]), (&3_620.into(), &0.into()));
    }
}
