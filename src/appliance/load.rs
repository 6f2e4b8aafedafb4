//! Measures what there is to do: how late each worker is, and what all of them send.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::figures::{memory_refused, sum};
use super::parts::Parts;
use crate::config::units::rate_text;
use crate::control::status::OverloadStatus;
use crate::metrics::overload;
use crate::overload::{
    ALL_NEW, ALL_NEW_AND_MISSES, Egress, Gate, Lag, Near, Overload, PERIOD, Pressure, Reason,
    SAMPLES,
};
use crate::server::ProxyHeader;

impl Parts {
    pub(super) fn overload(&self) -> &Arc<Overload> {
        self.gates[0].shared()
    }
}

/// Registers the figures of who is refused.
pub(super) fn register(parts: &Arc<Parts>) {
    let metrics = &parts.metrics;
    let gauge = |series, read: fn(&Parts) -> u64| {
        let parts = Arc::downgrade(parts);
        metrics.read_at_scrape(series, move || parts.upgrade().map_or(0, |parts| read(&parts)));
    };
    let each = |series, read: fn(&Parts) -> Vec<(&'static str, u64)>| {
        let parts = Arc::downgrade(parts);
        let read = move || parts.upgrade().map_or_else(Vec::new, |parts| read(&parts));
        metrics.read_each_at_scrape(series, read);
    };
    gauge(overload::EGRESS_NEAR, |parts| u64::from(parts.overload().is_near_egress()));
    gauge(overload::EGRESS_MAX, |parts| {
        parts.overload().settings().egress_bytes_per_second.unwrap_or_default()
    });
    gauge(overload::CLIENTS_UNCOUNTED, |parts| parts.overload().uncounted());
    each(overload::REFUSALS, refusals);
    let weak = Arc::downgrade(parts);
    metrics.read_shares_at_scrape(overload::PRESSURE, move || {
        weak.upgrade().map_or_else(Vec::new, |parts| pressures(&parts))
    });
    each(overload::PROXY_HEADERS, |parts| {
        let began = |one: &ProxyHeader| sum(parts, |counts| &counts.proxy_headers[*one as usize]);
        ProxyHeader::ALL.iter().map(|one| (one.word(), began(one))).collect()
    });
}

/// The same, for the status page.
pub(super) fn status(parts: &Parts) -> OverloadStatus {
    let shares = pressures(parts).into_iter();
    OverloadStatus {
        refused: refusals(parts).into_iter().collect(),
        refused_memory: memory_refused(parts).into_iter().collect(),
        pressure: shares.map(|(of, thousandths)| (of, f64::from(thousandths) / 1e3)).collect(),
        egress_max_bytes_per_second: parts.overload().settings().egress_bytes_per_second,
        is_near_egress: parts.overload().is_near_egress(),
    }
}

fn refusals(parts: &Parts) -> Vec<(&'static str, u64)> {
    let of = |reason: Reason| parts.gates.iter().map(|gate| gate.refused(reason)).sum();
    Reason::ALL.map(|reason| (reason.word(), of(reason))).to_vec()
}

/// In thousandths.
fn pressures(parts: &Parts) -> Vec<(&'static str, u32)> {
    let lag = parts.gates.iter().map(|gate| gate.lag_pressure()).max().unwrap_or_default();
    vec![("egress", parts.overload().egress_pressure()), ("lag", lag)]
}

/// Tells the gate of a worker how late it is, for ever: run it on that worker.
///
/// What is late is a wake-up behind everything that is ready before it, as a viewer's is.
pub(super) async fn watch_lag(gate: Arc<Gate>) {
    let (mut lag, mut pressure) = (Lag::default(), Pressure::default());
    loop {
        let due = Instant::now() + PERIOD / SAMPLES;
        sleep_until(due).await;
        let late = due.elapsed().saturating_sub(TIMER_STEP);
        if let Some(least) = lag.sample(late) {
            let is_late = gate.shared().settings().lag_max.is_some_and(|most| least > most);
            gate.lag_is(pressure.after(is_late, ALL_NEW_AND_MISSES));
        }
    }
}

/// Measures what is sent until the appliance stops.
pub(super) fn start(parts: &Arc<Parts>) {
    let (all, counts) = (parts.overload().clone(), parts.connections.clone());
    let (stop, began) = (parts.filler.stop.clone(), Instant::now());
    let watch = async move {
        let (mut egress, mut pressure) = (Egress::default(), Pressure::default());
        let mut periods = interval(PERIOD);
        periods.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = periods.tick() => {}
                () = stop.cancelled() => return,
            }
            let sent = counts.iter().map(|counts| counts.bytes_written.load(Ordering::Relaxed));
            let rate = egress.after(sent.sum(), began.elapsed());
            let most = all.settings().egress_bytes_per_second;
            tell(egress.near(rate, most), rate, most);
            let is_too_much = most.is_some_and(|most| rate > most);
            all.egress_is(pressure.after(is_too_much, ALL_NEW), egress.is_near());
        }
    };
    parts.filler.tasks.spawn_on(watch, &parts.filler.runtime);
}

fn tell(near: Near, bytes_per_second: u64, most: Option<u64>) {
    let rate = rate_text(bytes_per_second / MEGABIT_BYTES * MEGABIT_BYTES);
    let most = most.map_or_else(|| "set no longer".to_owned(), rate_text);
    match near {
        Near::AsBefore => {}
        Near::Began => tracing::warn!(
            "{rate} are sent, and `limits.egress` is {most}: above it new viewers are refused"
        ),
        Near::Ended => tracing::info!("{rate} are sent; `limits.egress` is {most}"),
    }
}

/// Timers go off at whole milliseconds.
const TIMER_STEP: Duration = Duration::from_millis(1);
const MEGABIT_BYTES: u64 = 125_000;
