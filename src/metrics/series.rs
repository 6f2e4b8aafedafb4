//! Every Prometheus series of the appliance: its name, its kind and its help text.
//!
//! Names are `tidegate_<thing>_<unit>[_total]`. What threads count is laid out for scraping here;
//! what is read at scrape is only named here, and read by a closure of whoever owns it.

use prometheus::core::Desc;
use prometheus::proto;

use super::counters::{BUCKETS_US, BUFFER_MS, Counters, Durations, Levels, THROUGHPUT_KBPS, Tally};
use super::labels::{Labels, Wait, pairs};
#[cfg(test)]
use super::{log, overload};
use super::{steering, tokens};

/// Whether a series only ever grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Grows from zero at the start of the process; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by upper bounds.
    Histogram,
}

/// The name, meaning and kind of a metric, and what its series are told apart by.
#[derive(Clone, Copy, Debug)]
pub struct Series {
    /// `tidegate_<thing>_<unit>[_total]`.
    pub name: &'static str,
    /// One sentence for who reads the metric.
    pub help: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// The label whose values the reader names; `None` for a single series.
    pub label: Option<&'static str>,
}

pub(super) const fn counter(name: &'static str, help: &'static str) -> Series {
    Series { name, help, kind: Kind::Counter, label: None }
}

pub(super) const fn gauge(name: &'static str, help: &'static str) -> Series {
    Series { name, help, kind: Kind::Gauge, label: None }
}

pub(super) const fn labelled(label: &'static str, series: Series) -> Series {
    Series { label: Some(label), ..series }
}

/// Whether viewers are taken.
pub const READY: Series =
    gauge("tidegate_ready", "1 while viewers are taken, 0 before and from the moment it drains.");
/// How far a drain on purpose has come: the words of `control::drain::Stage`.
pub const DRAIN_STAGE: Series = labelled(
    "stage",
    gauge("tidegate_drain_stage", "1 for the stage of an operator's drain, 0 for the others."),
);
/// Certificates ordered of an authority.
pub const CERTIFICATE_ORDERS: Series = labelled(
    "result",
    counter("tidegate_certificate_orders_total", "Certificates ordered by ACME, by result."),
);
/// Fill runs that are under way.
pub const RUNS_IN_FLIGHT: Series =
    gauge("tidegate_fill_runs_in_flight", "Fill runs under way now.");
/// Bytes the ram tier keeps.
pub const RAM_BYTES: Series =
    gauge("tidegate_ram_bytes", "Bytes of blocks that the ram tier keeps.");
/// Blocks the ram tier keeps.
pub const RAM_BLOCKS: Series =
    gauge("tidegate_ram_blocks", "Blocks that the ram tier keeps, whole or in part.");
/// Blocks that have left the ram tier to make room.
pub const RAM_EVICTIONS: Series =
    counter("tidegate_ram_evictions_total", "Blocks evicted from ram to make room for others.");
/// What is in use of the ram tier's mapping.
pub const RAM_TAKEN_BYTES: Series = gauge(
    "tidegate_ram_taken_bytes",
    "Bytes of the ram tier's mapping in use: kept, being filled, or evicted and still being sent.",
);
/// The ram tier's mapping.
pub const RAM_MAPPING_BYTES: Series =
    gauge("tidegate_ram_mapping_bytes", "Size of the ram tier's mapping.");
/// Memory reserved, by use.
pub const MEMORY_USED: Series = labelled(
    "use",
    gauge("tidegate_memory_used_bytes", "Memory reserved from the governor, by use."),
);
/// Memory that may be reserved, by use; uses that share a pool each tell the whole pool.
pub const MEMORY_BUDGET: Series = labelled(
    "use",
    gauge("tidegate_memory_budget_bytes", "Memory the pool of each use may hold in all."),
);
/// Reservations refused, by class.
pub const REFUSALS: Series = labelled(
    "class",
    counter("tidegate_refusals_total", "Reservations of memory refused, by class of work."),
);
/// Hard purges, by what was named.
pub const PURGES_HARD: Series = labelled(
    "kind",
    counter(
        "tidegate_purges_hard_total",
        "Purges that leave nothing to be used, by what is named.",
    ),
);
/// Soft purges, by what was named.
pub const PURGES_SOFT: Series = labelled(
    "kind",
    counter(
        "tidegate_purges_soft_total",
        "Purges that leave what must be asked about, by what is named; overflow: a whole site, \
         because more was purged of it than is remembered.",
    ),
);
/// Things that were purged and are remembered.
pub const PURGE_ENTRIES: Series =
    gauge("tidegate_purge_entries", "Things that were purged and are remembered.");
/// Whether the configuration that was read last is served by.
pub const CONFIG_IS_GOOD: Series = gauge(
    "tidegate_config_last_reload_successful",
    "1 when the configuration that was read last is served by; 0 when it was refused, and the one \
     of before is.",
);
/// When the configuration that is served by was read.
pub const CONFIG_READ: Series = gauge(
    "tidegate_config_last_reload_success_timestamp_seconds",
    "When the configuration that is served by was read, as a Unix time.",
);
/// Viewers' connections open now.
pub const CONNECTIONS_OPEN: Series =
    gauge("tidegate_connections_open", "Viewers' connections open now.");
/// Viewers' connections that are let in at once.
pub const CONNECTIONS_MAX: Series = gauge(
    "tidegate_connections_max",
    "Viewers' connections that are let in at once; those beyond wait to be accepted.",
);
/// Viewers' connections accepted.
pub const CONNECTIONS_ACCEPTED: Series =
    counter("tidegate_connections_accepted_total", "Viewers' connections accepted.");
/// Viewers' connections dealt out to a worker that drained before it served them.
pub const CONNECTIONS_REFUSED: Series = counter(
    "tidegate_connections_refused_total",
    "Viewers' connections closed before they were served, because the worker drained.",
);
/// Viewers' connections we closed: `slow_reader`, `header_timeout`, `idle_timeout`,
/// `cancel_flood`, `drain`.
pub const CONNECTIONS_CLOSED: Series = labelled(
    "reason",
    counter("tidegate_connections_closed_total", "Viewers' connections we closed, by reason."),
);
/// Bytes written to viewers' sockets.
pub const CONNECTIONS_WRITTEN: Series = counter(
    "tidegate_connections_written_bytes_total",
    "Bytes written to viewers' sockets: heads, bodies and TLS records.",
);
/// Accepts that failed.
pub const ACCEPT_ERRORS: Series = counter(
    "tidegate_accept_errors_total",
    "Accepts that failed for want of descriptors or memory.",
);
/// TLS handshakes: `ok`, `failed`.
pub const HANDSHAKES: Series = labelled(
    "result",
    counter("tidegate_tls_handshakes_total", "TLS handshakes with viewers, by result."),
);
const REQUESTS: Series = counter("tidegate_requests_total", "Requests answered.");
const BODIES: Series =
    counter("tidegate_response_bodies_total", "Response bodies, by how their sending ended.");
const BODY_BYTES: Series = counter(
    "tidegate_response_body_bytes_total",
    "Response body bytes handed to viewers' connections, by the tier they came from.",
);
const LOOKUPS: Series =
    counter("tidegate_lookups_total", "Look-ups of objects in the cache, by what was found.");
const RUNS_STARTED: Series = counter("tidegate_fill_runs_started_total", "Fill runs started.");
const RUNS_FINISHED: Series =
    counter("tidegate_fill_runs_finished_total", "Fill runs ended, by how.");
const ORIGIN_REQUESTS: Series =
    counter("tidegate_origin_requests_total", "Requests sent to origins, retries included.");
const ORIGIN_BYTES: Series =
    counter("tidegate_origin_body_bytes_total", "Response body bytes received from origins.");
const ORIGIN_ERRORS: Series =
    counter("tidegate_origin_errors_total", "What origins did wrong, by kind.");
const PLAYER_REQUESTS: Series = counter(
    "tidegate_cmcd_requests_total",
    "Requests by which a player told of itself (CMCD), by what it says it asks for.",
);
const PLAYER_STARVATIONS: Series = counter(
    "tidegate_cmcd_starvations_total",
    "Requests by which a player told that its buffer had run empty.",
);
const PLAYER_STARTUPS: Series = counter(
    "tidegate_cmcd_startups_total",
    "Requests by which a player told that it needs the object to begin to play.",
);
const PLAYER_BUFFER: Series = Series {
    name: "tidegate_cmcd_buffer_seconds",
    help: "What players told that they had buffered.",
    kind: Kind::Histogram,
    label: None,
};
const PLAYER_THROUGHPUT: Series = Series {
    name: "tidegate_cmcd_throughput_bytes_per_second",
    help: "What players told that they had measured.",
    kind: Kind::Histogram,
    label: None,
};
const PREFETCHES: Series = counter(
    "tidegate_cmcd_prefetches_total",
    "Objects that players said they would ask for next, by what became of them.",
);
const TIME_TO_FIRST_BYTE: Series = Series {
    name: "tidegate_time_to_first_byte_seconds",
    help: "From a request's head being read to its first body byte being handed on.",
    kind: Kind::Histogram,
    label: None,
};
const BUILD: Series = gauge("tidegate_build_info", "Always 1; its label is the running version.");

/// Of what threads count, every metric with its series.
pub(super) fn families(totals: &Counters) -> Vec<proto::MetricFamily> {
    vec![
        tally(REQUESTS, &totals.requests),
        tally(tokens::REFUSED, &totals.refused),
        tally(tokens::BARRED, &totals.barred),
        tally(tokens::SHOWN, &totals.shown),
        tally(tokens::CATS, &totals.cats),
        tally(BODIES, &totals.bodies),
        tally(BODY_BYTES, &totals.sites.body_bytes()),
        tally(LOOKUPS, &totals.lookups),
        tally(steering::STEERED, &totals.steered),
        tally(RUNS_STARTED, &totals.runs_started),
        tally(RUNS_FINISHED, &totals.runs_finished),
        tally(ORIGIN_REQUESTS, &totals.origin_requests),
        tally(ORIGIN_BYTES, &totals.origin_bytes),
        tally(ORIGIN_ERRORS, &totals.origin_errors),
        tally(PLAYER_REQUESTS, &totals.players.requests),
        tally(PLAYER_STARVATIONS, &totals.players.starvations),
        tally(PLAYER_STARTUPS, &totals.players.startups),
        family(PLAYER_BUFFER, vec![levels(&totals.players.buffer, &BUFFER_MS, 1e-3)]),
        family(
            PLAYER_THROUGHPUT,
            vec![levels(&totals.players.throughput, &THROUGHPUT_KBPS, 125.0)],
        ),
        tally(PREFETCHES, &totals.players.prefetches),
        family(TIME_TO_FIRST_BYTE, first_byte_histograms(totals)),
        family(BUILD, vec![value(BUILD, &[("version", env!("CARGO_PKG_VERSION"))], 1)]),
    ]
}

/// The metric `series` with the series given.
pub(super) fn family(series: Series, metrics: Vec<proto::Metric>) -> proto::MetricFamily {
    let mut family = proto::MetricFamily::default();
    family.set_name(series.name.to_owned());
    family.set_help(series.help.to_owned());
    family.set_field_type(match series.kind {
        Kind::Counter => proto::MetricType::COUNTER,
        Kind::Gauge => proto::MetricType::GAUGE,
        Kind::Histogram => proto::MetricType::HISTOGRAM,
    });
    family.set_metric(metrics);
    family
}

/// One series of a counter or gauge.
pub(super) fn value(series: Series, labels: &[(&str, &str)], value: u64) -> proto::Metric {
    // Exact up to 2^53: nine petabytes.
    metric(series, labels, value as f64)
}

/// One series of shares.
pub(super) fn share(series: Series, labels: &[(&str, &str)], thousandths: u32) -> proto::Metric {
    metric(series, labels, f64::from(thousandths) / 1_000.0)
}

fn metric(series: Series, labels: &[(&str, &str)], value: f64) -> proto::Metric {
    let mut metric = proto::Metric::from_label(pairs(labels));
    if series.kind == Kind::Counter {
        let mut counter = proto::Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    } else {
        let mut gauge = proto::Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    }
    metric
}

/// One series of a gauge that is no whole number.
pub(super) fn measure(labels: &[(&str, &str)], value: f64) -> proto::Metric {
    let mut gauge = proto::Gauge::default();
    gauge.set_value(value);
    let mut metric = proto::Metric::from_label(pairs(labels));
    metric.set_gauge(gauge);
    metric
}

/// One series of a histogram, by upper bounds in seconds; `cumulated` has one more than those.
pub(super) fn histogram(
    labels: &[(&str, &str)],
    bounds: impl Iterator<Item = f64>,
    cumulated: &[u64],
    sum: f64,
) -> proto::Metric {
    let bucket = |(bound, below): (f64, &u64)| {
        let mut bucket = proto::Bucket::default();
        bucket.set_upper_bound(bound);
        bucket.set_cumulative_count(*below);
        bucket
    };
    let mut histogram = proto::Histogram::default();
    histogram.set_bucket(bounds.zip(cumulated).map(bucket).collect());
    histogram.set_sample_count(cumulated.last().copied().unwrap_or_default());
    histogram.set_sample_sum(sum);
    let mut metric = proto::Metric::from_label(pairs(labels));
    metric.set_histogram(histogram);
    metric
}

/// What the registry knows a metric by.
pub(super) fn description(family: &proto::MetricFamily) -> Desc {
    let labels = family.get_metric().first().map_or(&[][..], |metric| metric.get_label());
    let names = labels.iter().map(|pair| pair.name().to_owned()).collect();
    Desc::new(family.name().to_owned(), family.help().to_owned(), names, Default::default())
        .expect("names, labels and help texts are written in this module, and tested")
}

fn tally<L: Labels, const N: usize>(series: Series, tally: &Tally<L, N>) -> proto::MetricFamily {
    let metric = |(labels, count): (L, u64)| {
        let mut pairs = Vec::new();
        labels.append_to(&mut pairs);
        value(series, &pairs, count)
    };
    family(series, tally.each().map(metric).collect())
}

fn first_byte_histograms(totals: &Counters) -> Vec<proto::Metric> {
    let histograms = Wait::ALL.iter().zip(&totals.time_to_first_byte);
    histograms.map(|(wait, durations)| waits(*wait, durations)).collect()
}

fn waits(wait: Wait, durations: &Durations) -> proto::Metric {
    let mut words = Vec::new();
    wait.append_to(&mut words);
    let bounds = BUCKETS_US.iter().map(|bound_us| *bound_us as f64 / 1e6);
    histogram(&words, bounds, &durations.cumulated(), durations.sum_seconds())
}

/// `unit` is what one of the bounds is in the metric's own.
fn levels(levels: &Levels, bounds: &[u64], unit: f64) -> proto::Metric {
    let bounds = bounds.iter().map(|bound| *bound as f64 * unit);
    histogram(&[], bounds, &levels.cumulated(), levels.sum() as f64 * unit)
}

/// Every metric that is read at scrape.
#[cfg(test)]
pub(super) const READ_AT_SCRAPE: &[Series] = &[
    READY,
    DRAIN_STAGE,
    CERTIFICATE_ORDERS,
    RUNS_IN_FLIGHT,
    RAM_BYTES,
    RAM_BLOCKS,
    RAM_EVICTIONS,
    RAM_TAKEN_BYTES,
    RAM_MAPPING_BYTES,
    MEMORY_USED,
    MEMORY_BUDGET,
    REFUSALS,
    PURGES_HARD,
    PURGES_SOFT,
    PURGE_ENTRIES,
    CONFIG_IS_GOOD,
    CONFIG_READ,
    CONNECTIONS_OPEN,
    CONNECTIONS_MAX,
    CONNECTIONS_ACCEPTED,
    CONNECTIONS_REFUSED,
    CONNECTIONS_CLOSED,
    overload::PROXY_HEADERS,
    overload::REFUSALS,
    overload::PRESSURE,
    overload::BEYOND_SHARE,
    overload::EGRESS_NEAR,
    overload::EGRESS_MAX,
    overload::CLIENTS_UNCOUNTED,
    CONNECTIONS_WRITTEN,
    ACCEPT_ERRORS,
    HANDSHAKES,
    log::DROPPED,
    log::SHIPPED,
    log::UNSHIPPED,
    log::SPOOL_BYTES,
    log::SPOOL_AGE,
];
