//! Measures what there is to do: how late each worker is, what all of them send, and whether memory
//! is waited for.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::figures::{memory_refused, reading, sum};
use super::parts::Parts;
use crate::config::Config;
use crate::config::units::rate_text;
use crate::control::status::{OverloadStatus, ShareStatus};
use crate::metrics::{Metrics, names_told, overload};
use crate::overload::{
    ALL_NEW_AND_MISSES, ClientLimits, Egress, Gate, Lag, NOTHING_SERVED, Near, Overload, PERIOD,
    Pressures, Reason, Resource, SAMPLES, Seen, ServedOfEach, Settings, Sharer, Shares, WHOLE,
    Watch,
};
use crate::server::ProxyHeader;

impl Parts {
    pub(super) fn overload(&self) -> &Arc<Overload> {
        self.gates[0].shared()
    }
}

/// A gate for each worker.
pub(super) fn gates(
    config: &Config,
    connections_max: usize,
    shares: Arc<Shares>,
) -> Vec<Arc<Gate>> {
    let settings = settings(config, connections_max);
    let overload = Overload::new(settings, shares, Instant::now().into_std());
    (0..config.threads.workers).map(|_| Arc::new(Gate::new(overload.clone()))).collect()
}

pub(super) fn settings(config: &Config, connections_max: usize) -> Settings {
    let set = config.limits.overload;
    Settings {
        lag_max: Some(set.lag),
        egress_bytes_per_second: set.egress_bytes,
        handshakes_per_second: set.handshakes,
        connections_max,
        client: ClientLimits {
            connections_max: set.client.connections,
            requests_per_second: set.client.requests,
            bits_v4: set.client.bits_v4,
            bits_v6: set.client.bits_v6,
        },
        proxies: config.proxies.forwarded.clone(),
    }
}

/// Registers the figures of who is refused.
pub(super) fn register(parts: &Arc<Parts>) {
    let metrics = &parts.metrics;
    let gauge = |series, read: fn(&Parts) -> u64| {
        metrics.read_at_scrape(series, reading(parts, read));
    };
    let each = |series, read: fn(&Parts) -> Vec<(&'static str, u64)>| {
        metrics.read_each_at_scrape(series, reading(parts, read));
    };
    gauge(overload::EGRESS_NEAR, |parts| u64::from(parts.overload().is_near_egress()));
    gauge(overload::EGRESS_MAX, |parts| {
        parts.overload().settings().egress_bytes_per_second.unwrap_or_default()
    });
    gauge(overload::CLIENTS_UNCOUNTED, |parts| parts.overload().uncounted());
    each(overload::REFUSALS, refusals);
    metrics.read_shares_at_scrape(overload::PRESSURE, reading(parts, pressures));
    each(overload::BEYOND_SHARE, |parts| {
        let shares = parts.overload().shares();
        let beyond = |resource: Resource| (resource.word(), shares.beyond_count(resource).into());
        Resource::ALL.map(beyond).to_vec()
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

/// Whether viewers who come new are refused for another reason than what is sent.
pub(super) fn refuses_new_viewers(parts: &Parts) -> bool {
    let is_late = parts.gates.iter().any(|gate| gate.lag_pressure().all > 0);
    is_late || parts.overload().memory_pressure().all > 0
}

/// In thousandths.
fn pressures(parts: &Parts) -> Vec<(&'static str, u32)> {
    let lags = || parts.gates.iter().map(|gate| gate.lag_pressure());
    let (egress, memory) = (parts.overload().egress_pressure(), parts.overload().memory_pressure());
    vec![
        ("egress", egress.all),
        ("egress_beyond_share", egress.beyond),
        ("lag", lags().map(|lag| lag.all).max().unwrap_or_default()),
        ("lag_beyond_share", lags().map(|lag| lag.beyond).max().unwrap_or_default()),
        ("memory", memory.all),
        ("memory_beyond_share", memory.beyond),
    ]
}

/// Tells the gate of a worker how late it is, for ever: run it on that worker.
///
/// What is late is a wake-up behind everything that is ready before it, as a viewer's is.
pub(super) async fn watch_lag(gate: Arc<Gate>) {
    let (mut lag, mut pressures) = (Lag::default(), Pressures::default());
    loop {
        let due = Instant::now() + PERIOD / SAMPLES;
        sleep_until(due).await;
        let late = due.elapsed().saturating_sub(TIMER_STEP);
        if let Some(least) = lag.sample(late) {
            let is_late = gate.shared().settings().lag_max.is_some_and(|most| least > most);
            let beyond_max = gate.shared().shares().pressed_max(Resource::Work);
            let pressed = pressures.after(is_late, beyond_max, ALL_NEW_AND_MISSES);
            gate.lag_is(pressed, is_late);
        }
    }
}

/// Measures what is sent, to whose viewers, and whether memory is waited for, until the appliance
/// stops.
pub(super) fn start(parts: &Arc<Parts>) {
    let (all, counts) = (parts.overload().clone(), parts.connections.clone());
    let (stop, began) = (parts.filler.stop.clone(), Instant::now());
    let (metrics, ram, gates) = (parts.metrics.clone(), parts.ram.clone(), parts.gates.clone());
    let governor = parts.governor.clone();
    let watch = async move {
        let (mut egress, mut watch) = (Egress::default(), Watch::default());
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
            let seen = Seen {
                served: served(&metrics),
                sent_bytes: rate,
                sent_bytes_max: most,
                is_near: egress.is_near(),
                in_use: governor.in_use(),
                is_short: governor.is_waited_for(),
                ram_bytes: ram.capacity_bytes(),
            };
            watch.look(&seen, &gates);
        }
    };
    parts.filler.tasks.spawn_on(watch, &parts.filler.runtime);
}

/// What was sent to the viewers of each site since the start.
fn served(metrics: &Metrics) -> ServedOfEach {
    let mut all = NOTHING_SERVED;
    metrics.each_site(|site, counted| {
        let served = &mut all[Sharer::of(site).index()];
        served.requests += counted.requests.sum();
        served.bytes += counted.body_bytes.sum();
    });
    all
}

/// What each site has of what all share.
pub(super) fn shares(parts: &Parts) -> Vec<ShareStatus> {
    let (overload, kept) = (parts.overload(), parts.ram.kept_of_each());
    let (shares, sites) = (overload.shares(), parts.live.sites.load());
    let capacity = u128::from(parts.ram.capacity_bytes());
    let status = |(name, sharer): (String, Sharer)| {
        let own = capacity * u128::from(shares.ram_own(sharer)) / u128::from(WHOLE);
        let beyond = Resource::ALL.into_iter();
        let beyond = beyond.filter(|resource| shares.is_beyond(*resource, sharer));
        ShareStatus {
            name,
            share: shares.weight(sharer),
            ram_bytes: kept[sharer.index()],
            ram_own_bytes: own as u64,
            connections: overload.connected(sharer),
            beyond: beyond.map(Resource::word).collect(),
        }
    };
    let names = names_told(sites.known().map(|site| site.name.clone()).collect());
    names.into_iter().zip(Sharer::all()).map(status).collect()
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
