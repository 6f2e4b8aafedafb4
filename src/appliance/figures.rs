//! What the metrics and the status page read of the parts, at the moment they are asked.

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use super::parts::{Live, Parts};
use super::{load, ssd};
use crate::access_log::{Lost, Spool, Target};
use crate::acme::{Orders, Waiting};
use crate::cache::shadow::{Point, Tier};
use crate::config::{Certificate, Certificates};
use crate::control::Phase;
use crate::control::drain::Stage;
use crate::control::status::{
    BlockStatus, ConfigStatus, Detail, MemoryStatus, ObjectStatus, OrderStatus, OriginStatus,
    RunStatus, ShadowStatus, ShippingStatus, SiteStatus, SsdStatus, Status,
};
use crate::fill::client::Standing;
use crate::fill::run::Run;
use crate::limits::{
    STATUS_BLOCKS_MAX, STATUS_OBJECTS_MAX, STATUS_ORDERS_MAX, STATUS_ORIGINS_MAX, STATUS_SITES_MAX,
};
use crate::memory::{Class, Use};
use crate::metrics::{Counters, log, series};
use crate::moment::unix_seconds;
use crate::object::ObjectKey;
use crate::purge::{Hardness, Kind};
use crate::server::ConnectionCounts;

/// Registers every figure that is read at a scrape.
pub(super) fn register(parts: &Arc<Parts>) {
    let metrics = &parts.metrics;
    let gauge = |series, read: fn(&Parts) -> u64| {
        metrics.read_at_scrape(series, reading(parts, read));
    };
    gauge(series::READY, |parts| u64::from(parts.readiness.phase() == Phase::Ready));
    gauge(series::RUNS_IN_FLIGHT, |parts| parts.filler.runs.all().len() as u64);
    gauge(series::RAM_BYTES, |parts| parts.ram.usage().cached_bytes);
    gauge(series::RAM_BLOCKS, |parts| parts.ram.usage().blocks);
    gauge(series::RAM_EVICTIONS, |parts| parts.ram.usage().evictions);
    gauge(series::RAM_TAKEN_BYTES, |parts| parts.ram.usage().taken_bytes);
    gauge(series::RAM_MAPPING_BYTES, |parts| parts.ram.usage().mapping_bytes);
    gauge(series::CONNECTIONS_OPEN, connections_open);
    gauge(series::CONNECTIONS_ACCEPTED, |parts| sum(parts, |counts| &counts.accepted));
    gauge(series::CONNECTIONS_REFUSED, |parts| sum(parts, |counts| &counts.refused));
    gauge(series::CONNECTIONS_WRITTEN, |parts| sum(parts, |counts| &counts.bytes_written));
    gauge(series::ACCEPT_ERRORS, |parts| sum(parts, |counts| &counts.accept_errors));
    gauge(series::PURGE_ENTRIES, |parts| parts.purges.figures().entries());
    let each = |series, read: fn(&Parts) -> Vec<(&'static str, u64)>| {
        metrics.read_each_at_scrape(series, reading(parts, read));
    };
    register_log(parts);
    register_what_reloads(parts);
    load::register(parts);
    if !parts.config.ssd.volumes.is_empty() {
        let (ssd, volumes) = (parts.ssd.clone(), parts.live.volumes.clone());
        let started = parts.started;
        metrics.read_ssd_at_scrape(move || ssd::sample(&ssd, &volumes.load(), started.elapsed()));
    }
    each(series::MEMORY_USED, memory_used_and_ram);
    each(series::MEMORY_BUDGET, memory_budgets);
    each(series::REFUSALS, memory_refused);
    each(series::DRAIN_STAGE, |parts| {
        let stage = parts.drains.stage();
        Stage::TOLD.map(|one| (one.word(), u64::from(stage == Some(one)))).to_vec()
    });
    each(series::PURGES_HARD, |parts| purges(parts, Hardness::Hard));
    each(series::PURGES_SOFT, |parts| purges(parts, Hardness::Soft));
    each(series::CONNECTIONS_CLOSED, |parts| {
        vec![
            ("slow_reader", sum(parts, |counts| &counts.slow_readers)),
            ("header_timeout", sum(parts, |counts| &counts.header_timeouts)),
            ("idle_timeout", sum(parts, |counts| &counts.idle_timeouts)),
            ("cancel_flood", sum(parts, |counts| &counts.cancel_floods)),
            ("drain", sum(parts, |counts| &counts.abandoned)),
        ]
    });
    each(series::HANDSHAKES, |parts| {
        vec![
            ("ok", sum(parts, |counts| &counts.handshakes_ok)),
            ("failed", sum(parts, |counts| &counts.handshakes_failed)),
        ]
    });
}

/// Reads what a scrape asks for. By a weak handle: the metrics are one of the parts.
pub(super) fn reading<T: Default, Read: Fn(&Parts) -> T>(
    parts: &Arc<Parts>,
    read: Read,
) -> impl Fn() -> T + use<T, Read> {
    let parts = Arc::downgrade(parts);
    move || parts.upgrade().map(|parts| read(&parts)).unwrap_or_default()
}

/// Registers what became of the lines of the access log.
fn register_log(parts: &Arc<Parts>) {
    let metrics = &parts.metrics;
    let log = parts.log.clone();
    metrics.read_at_scrape(log::DROPPED, move || log.dropped_lines());
    let spool = |series, read: fn(&Spool) -> u64| {
        let spool = parts.log.spool().cloned();
        metrics.read_at_scrape(series, move || spool.as_ref().map_or(0, |spool| read(spool)));
    };
    spool(log::SHIPPED, Spool::shipped_lines);
    spool(log::SPOOL_BYTES, Spool::waiting_bytes);
    spool(log::SPOOL_AGE, |spool| spool.age(SystemTime::now()).as_secs());
    let spool = parts.log.spool().cloned();
    metrics.read_each_at_scrape(log::UNSHIPPED, move || match &spool {
        Some(spool) => spool.lost_lines().to_vec(),
        None => Lost::ALL.map(|(_, word)| (word, 0)).to_vec(),
    });
}

/// Registers what another configuration changes.
fn register_what_reloads(parts: &Arc<Parts>) {
    let metrics = &parts.metrics;
    let sites = parts.live.sites.clone();
    metrics.tell_sites(move || sites.load().known().map(|site| site.name.clone()).collect());
    let certificates = parts.live.certificates.clone();
    metrics.read_certificates_at_scrape(move || expiries(&certificates.load()));
    let live = |series, read: fn(&Live) -> u64| {
        metrics.read_at_scrape(series, reading(parts, move |parts| read(&parts.live)));
    };
    let orders = |parts: &Parts| {
        let Orders { obtained, failed, .. } = &parts.live.orders;
        let told = |count: &AtomicU64| count.load(Ordering::Relaxed);
        vec![("ok", told(obtained)), ("failed", told(failed))]
    };
    metrics.read_each_at_scrape(series::CERTIFICATE_ORDERS, reading(parts, orders));
    live(series::CONFIG_IS_GOOD, |live| u64::from(!live.is_refused.load(Ordering::Relaxed)));
    live(series::CONFIG_READ, |live| live.read_at.load(Ordering::Relaxed));
    live(series::CONNECTIONS_MAX, |live| live.connections_max.load(Ordering::Relaxed) as u64);
}

/// When each certificate expires, by the first name it is for, or by its file.
fn expiries(certificates: &Certificates) -> Vec<(String, u64)> {
    let expiry = |one: &Certificate| {
        let file = || one.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = one.names.first().cloned().unwrap_or_else(file);
        Some((name, unix_seconds(one.expires()?)))
    };
    certificates.iter().filter_map(expiry).collect()
}

/// One moment of the appliance, for the status page.
pub(super) fn status(parts: &Parts, detail: Detail) -> Status {
    let totals = parts.metrics.totals();
    let whole = Status {
        phase: parts.readiness.phase().word(),
        drain: parts.drains.status(),
        predecessor: parts.predecessor.status(),
        uptime_seconds: parts.started.elapsed().as_secs(),
        config: config_status(&parts.live),
        origins: origins(parts),
        sites: sites(parts, &totals),
        shares: load::shares(parts),
        overload: load::status(parts),
        memory: memory_status(parts),
        ssd: ssd_status(parts),
        shipping: shipping_status(parts),
        fleet: parts.fleet.as_ref().map(|standing| standing.status()),
        control: parts.config.control.as_ref().map(|_| parts.live.control.status()),
        connections: connections_open(parts),
        connections_max: parts.live.connections_max.load(Ordering::Relaxed) as u64,
        ..Status::counted(&totals)
    };
    match detail {
        Detail::Brief => whole,
        Detail::Whole => Status {
            runs: runs(parts),
            recent: parts.log.recent(),
            objects: objects(parts),
            ..whole
        },
    }
}

fn config_status(live: &Live) -> ConfigStatus {
    ConfigStatus {
        read_at: live.read_at.load(Ordering::Relaxed),
        is_refused: live.is_refused.load(Ordering::Relaxed),
        certificates: expiries(&live.certificates.load()).into_iter().collect(),
        orders: live.orders.waiting().into_iter().take(STATUS_ORDERS_MAX).map(order).collect(),
    }
}

fn shipping_status(parts: &Parts) -> Option<ShippingStatus> {
    let (spool, shipping) = parts.log.spool().zip(parts.config.log.shipping.as_ref())?;
    Some(ShippingStatus::of(shipping.receiver.name(), spool, SystemTime::now()))
}

fn order(Waiting { names, is_missing, since, why, again_at }: Waiting) -> OrderStatus {
    let (since, again_at) = (unix_seconds(since), again_at.map(unix_seconds));
    OrderStatus { names, is_missing, since, why, again_at }
}

fn memory_status(parts: &Parts) -> MemoryStatus {
    MemoryStatus {
        total_bytes: parts.config.memory.total_bytes,
        by_use: memory_used_and_ram(parts).into_iter().collect(),
        budget_by_use: memory_budgets(parts).into_iter().collect(),
    }
}

fn origins(parts: &Parts) -> Vec<OriginStatus> {
    let sites = parts.live.sites.load();
    let mut standings = parts.filler.client.standings(&sites, Instant::now());
    standings.sort_by_key(|one| one.fails_for.is_none());
    standings.truncate(STATUS_ORIGINS_MAX);
    let told = |one: Standing| OriginStatus {
        site: one.site,
        origin: one.origin,
        connections: one.connections as u64,
        connections_max: one.connections_max as u64,
        answers: one.answers,
        waited_us: one.waited.as_micros() as u64,
        failures: one.failures,
        failing_seconds: one.fails_for.map(|lasts| lasts.as_secs()),
    };
    standings.into_iter().map(told).collect()
}

/// Of many those that were sent most.
fn sites(parts: &Parts, totals: &Counters) -> Vec<SiteStatus> {
    let sites = parts.live.sites.load();
    let mut all: Vec<_> = sites.iter().map(|site| (site, totals.sites.of(site.id))).collect();
    all.sort_by_key(|(_, counted)| Reverse(counted.body_bytes.sum()));
    all.truncate(STATUS_SITES_MAX);
    all.into_iter().map(|(site, counted)| SiteStatus::of(site.name.clone(), counted)).collect()
}

fn ssd_status(parts: &Parts) -> Option<SsdStatus> {
    let volumes = parts.live.volumes.load();
    let sample = || ssd::sample(&parts.ssd, &volumes, parts.started.elapsed());
    (!volumes.is_empty()).then(|| SsdStatus { shadows: shadows(parts), ..SsdStatus::of(&sample()) })
}

/// What other sizes of the tiers would serve, as the shadow caches said when the last hour ended.
fn shadows(parts: &Parts) -> Vec<ShadowStatus> {
    let Some(report) = parts.ssd.shadows() else { return Vec::new() };
    let ssd_bytes = parts.ssd.volumes().bytes();
    let shadow = |point: &Point| {
        let (tier, size_now_bytes) = match point.tier {
            Tier::Ram => ("ram", parts.ram.usage().cached_bytes_max),
            Tier::Ssd => ("ssd", ssd_bytes),
        };
        let hit_share_now = report.attainable_hit_share();
        ShadowStatus {
            tier,
            size_bytes: (size_now_bytes as f64 * point.factor) as u64,
            size_now_bytes,
            hit_share: hit_share_now + point.gain,
            hit_share_now,
        }
    };
    report.curve.iter().map(shadow).collect()
}

fn runs(parts: &Parts) -> Vec<RunStatus> {
    let runs = parts.filler.runs.all();
    runs.iter().take(STATUS_OBJECTS_MAX).map(|run| run_status(parts, run)).collect()
}

pub(super) fn run_status(parts: &Parts, run: &Run) -> RunStatus {
    let standing = run.standing();
    RunStatus {
        path: shown(parts, &run.key),
        first: standing.bounds.start,
        end: standing.bounds.end,
        written_bytes: standing.written - standing.bounds.start,
        viewers: standing.readers as u64,
    }
}

fn objects(parts: &Parts) -> Vec<ObjectStatus> {
    let mut objects = Vec::new();
    for (key, heads) in parts.heads.objects().take(STATUS_OBJECTS_MAX) {
        for head in &*heads {
            let length_bytes = head.version.length_bytes();
            let blocks = length_bytes.map_or(1, |l| l.div_ceil(parts.config.block_size.bytes()));
            let held = parts.ram.held(head.version.id, 0..blocks.min(STATUS_BLOCKS_MAX) as u32);
            if held.is_empty() {
                continue;
            }
            objects.push(ObjectStatus {
                path: shown(parts, &key),
                length_bytes,
                block_size_bytes: parts.config.block_size.bytes(),
                blocks: held.into_iter().map(|(i, map)| BlockStatus::new(i, map)).collect(),
            });
        }
    }
    objects.sort_by(|one, other| one.path.cmp(&other.path));
    objects
}

/// What the status page tells of an object's name: no more than the access log.
fn shown(parts: &Parts, key: &ObjectKey) -> String {
    let site = parts.live.sites.load().get(key.site()).cloned();
    let target = match site.is_some_and(|site| site.names_parameters(key.path())) {
        true => Target::Object(key),
        false => Target::Discreet(key),
    };
    parts.log.shown_target(target)
}

/// Heads and connections have their budget reserved from the start: what they use of it is told.
fn memory_used(parts: &Parts) -> Vec<(&'static str, u64)> {
    let used = |purpose: Use| match purpose {
        Use::Heads => parts.heads.weight_bytes(),
        Use::Connections => sum(parts, |counts| &counts.open) * parts.budget.connection_bytes,
        Use::Fill | Use::Client | Use::Origins | Use::Requests | Use::Ssd | Use::Routes => {
            parts.governor.used_bytes(purpose)
        }
    };
    Use::ALL.into_iter().map(|purpose| (purpose.label(), used(purpose))).collect()
}

fn memory_used_and_ram(parts: &Parts) -> Vec<(&'static str, u64)> {
    let mut used = memory_used(parts);
    used.push(("ram", parts.ram.usage().cached_bytes));
    used
}

fn memory_budgets(parts: &Parts) -> Vec<(&'static str, u64)> {
    let budget = |purpose: Use| (purpose.label(), memory_budget(parts, purpose));
    let mut budgets: Vec<_> = Use::ALL.into_iter().map(budget).collect();
    budgets.push(("ram", parts.ram.usage().cached_bytes_max));
    budgets
}

pub(super) fn memory_refused(parts: &Parts) -> Vec<(&'static str, u64)> {
    Class::ALL.into_iter().map(|class| (class.label(), parts.governor.refused(class))).collect()
}

fn memory_budget(parts: &Parts, purpose: Use) -> u64 {
    match purpose {
        Use::Heads => parts.budget.heads_bytes,
        Use::Connections => parts.budget.connections_bytes(),
        Use::Fill | Use::Client | Use::Origins | Use::Requests | Use::Ssd | Use::Routes => {
            parts.governor.budget_bytes(purpose)
        }
    }
}

fn purges(parts: &Parts, hardness: Hardness) -> Vec<(&'static str, u64)> {
    let figures = parts.purges.figures();
    // Only what is purged for want of room is an overflow.
    let kinds = Kind::ALL.into_iter().filter(|k| hardness == Hardness::Soft || *k != Kind::Fold);
    kinds.map(|kind| (kind.as_str(), figures.count(kind, hardness))).collect()
}

/// Viewers connected now.
pub(super) fn connections_open(parts: &Parts) -> u64 {
    sum(parts, |counts| &counts.open)
}

pub(super) fn sum(parts: &Parts, count: impl Fn(&ConnectionCounts) -> &AtomicU64) -> u64 {
    parts.connections.iter().map(|counts| count(counts).load(Ordering::Relaxed)).sum()
}
