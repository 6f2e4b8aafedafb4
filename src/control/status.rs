//! What the status page shows: one moment of the appliance, as JSON.
//!
//! Plain values, filled in by who owns them; who fills a list bounds it (`limits`). Viewers'
//! addresses are not in it.

mod config;
mod control;
mod fleet;
mod origin;
mod share;
mod shipping;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::drain::DrainStatus;
use super::reload::PredecessorStatus;
use crate::access_log::RecentRequest;
use crate::metrics::labels::Labels;
use crate::metrics::ssd::{ByWord, SsdSample, VolumeSample};
use crate::metrics::{Counters, OfSite, Tally};
use crate::object::PieceMap;

pub use self::config::{ConfigStatus, OrderStatus};
pub use self::control::ControlStatus;
pub use self::fleet::{FleetStatus, SnapshotStatus};
pub use self::origin::{OriginStatus, OriginTraffic};
pub use self::share::ShareStatus;
pub use self::shipping::ShippingStatus;

/// Answers what the appliance's status is, quickly and without waiting for a viewer.
pub type StatusSource = Box<dyn Fn(Detail) -> Status + Send + Sync>;

/// How much of it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// All of it.
    Whole,
    /// Without runs, requests and objects: for who asks every few seconds, and who may not read of
    /// requests.
    Brief,
}

/// One moment of the appliance.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Status {
    /// Tidegate's version.
    pub version: &'static str,
    /// `starting`, `ready`, `draining` or `drained`.
    pub phase: &'static str,
    /// What an operator has planned; `None`: that viewers are served.
    pub drain: Option<DrainStatus>,
    /// The process before this one, while it is there.
    pub predecessor: Option<PredecessorStatus>,
    /// Since the process started.
    pub uptime_seconds: u64,
    /// Whether anybody has a token: without one no page in a browser has anything done.
    pub has_tokens: bool,
    /// The configuration that is served by.
    pub config: ConfigStatus,
    /// Requests answered.
    pub requests: u64,
    /// The same by the first digit of the status that was sent.
    pub responses: BTreeMap<&'static str, u64>,
    /// Bodies by how their sending ended: the words of `tidegate_response_bodies_total`.
    pub bodies: BTreeMap<&'static str, u64>,
    /// Look-ups by what was found: the words of `tidegate_lookups_total`.
    pub lookups: BTreeMap<&'static str, u64>,
    /// Body bytes sent, by the tier they came from.
    pub bytes: BTreeMap<&'static str, u64>,
    /// Waits for a first byte.
    pub ttfb: FirstByte,
    /// What origins were asked for.
    pub origin: OriginTraffic,
    /// Each origin; of many those that do not answer first.
    pub origins: Vec<OriginStatus>,
    /// Each site, what was sent most first; of many these alone.
    pub sites: Vec<SiteStatus>,
    /// What is refused because there is too much to do.
    pub overload: OverloadStatus,
    /// Memory.
    pub memory: MemoryStatus,
    /// The ssd tier; `None` where there is none.
    pub ssd: Option<SsdStatus>,
    /// The access log on its way to a receiver; `None` where it is not shipped.
    pub shipping: Option<ShippingStatus>,
    /// The fleet it is a box of; `None` where it is of none.
    pub fleet: Option<FleetStatus>,
    /// The control plane beside it; `None` where there is none.
    pub control: Option<ControlStatus>,
    /// Viewers' connections open now.
    pub connections: u64,
    /// As many are let in at once.
    pub connections_max: u64,
    /// What each site has of what all share; the last is all others together, where there are.
    pub shares: Vec<ShareStatus>,
    /// Fill runs in flight.
    pub runs: Vec<RunStatus>,
    /// The latest requests, newest first.
    pub recent: Vec<RecentRequest>,
    /// Objects of which something is held in ram.
    pub objects: Vec<ObjectStatus>,
}

/// Waits for a first byte since the start, hits and misses together; estimates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FirstByte {
    /// Half of them were no longer than this, in microseconds; `None` before the first.
    pub p50_us: Option<u64>,
    /// Nine of ten were no longer than this.
    pub p90_us: Option<u64>,
}

/// What is refused because there is too much to do; counts since the start.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct OverloadStatus {
    /// Who was refused, by why: the words of `tidegate_overload_refusals_total`.
    pub refused: BTreeMap<&'static str, u64>,
    /// Reservations of memory refused, by class of work.
    pub refused_memory: BTreeMap<&'static str, u64>,
    /// The share of new viewers that are refused, by why: the words and values of
    /// `tidegate_overload_pressure_ratio`.
    pub pressure: BTreeMap<&'static str, f64>,
    /// What `limits.egress` lets be sent; `None` where it is not set.
    pub egress_max_bytes_per_second: Option<u64>,
    /// Whether what is sent is near it.
    pub is_near_egress: bool,
}

/// One site; counts since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SiteStatus {
    /// Its name.
    pub name: String,
    /// Requests answered, by the first digit of the status that was sent.
    pub responses: BTreeMap<&'static str, u64>,
    /// Body bytes sent, by the tier they came from.
    pub bytes: BTreeMap<&'static str, u64>,
    /// Body bytes received from origins.
    pub origin_bytes: u64,
    /// What origins did wrong.
    pub origin_errors: u64,
}

impl SiteStatus {
    /// What was counted of it.
    pub fn of(name: String, counted: &OfSite) -> SiteStatus {
        SiteStatus {
            name,
            responses: by_label(&counted.requests),
            bytes: by_label(&counted.body_bytes),
            origin_bytes: counted.origin_bytes.sum(),
            origin_errors: counted.origin_errors.sum(),
        }
    }
}

/// Memory and who holds it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct MemoryStatus {
    /// What the process may use.
    pub total_bytes: u64,
    /// What is kept or reserved, by use.
    pub by_use: BTreeMap<&'static str, u64>,
    /// What each use may hold.
    pub budget_by_use: BTreeMap<&'static str, u64>,
}

/// The ssd tier; counters since the start.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SsdStatus {
    /// Blocks offered to it that were taken.
    pub admitted: u64,
    /// Blocks that were not, by reason.
    pub rejected: BTreeMap<&'static str, u64>,
    /// Bytes asked of origins because a volume was ill.
    pub bypassed_bytes: u64,
    /// Each volume.
    pub volumes: Vec<VolumeStatus>,
    /// What more of a tier would bring.
    pub shadows: Vec<ShadowStatus>,
}

/// One volume.
#[derive(Clone, Debug, Default, Serialize)]
pub struct VolumeStatus {
    /// Its name.
    pub name: String,
    /// `starting`, `online`, `read-only` or `offline`.
    pub state: &'static str,
    /// Why it is not online.
    pub why: Option<String>,
    /// What became of its path, if that no longer names what is in use.
    pub notice: Option<String>,
    /// Whether heads of it are used only when the origin has confirmed them.
    pub heads_in_doubt: bool,
    /// How its device is talked to.
    pub engine: &'static str,
    /// Its size; `None` while nobody can tell.
    pub size_bytes: Option<u64>,
    /// What of it holds records that can be found.
    pub used_bytes: u64,
    /// Regions, by what they are used for.
    pub regions: BTreeMap<&'static str, u64>,
    /// Records that can be found.
    pub records: u64,
    /// Reads completed.
    pub reads: u64,
    /// Writes completed.
    pub writes: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// What went wrong.
    pub errors: u64,
    /// Transfers queued and under way.
    pub queue_depth: u64,
    /// Of a hundred reads 99 took no longer, in microseconds; `None` before the first.
    pub read_p99_us: Option<u64>,
    /// Bytes written since midnight, UTC, by processes before this one too; a crash forgets the
    /// last minutes of them.
    pub written_today_bytes: u64,
    /// What may be written in a day; `None` while nobody can tell.
    pub writes_per_day_bytes: Option<u64>,
    /// How many days it would last at the present rate.
    pub life_days: Option<f64>,
}

/// What a tier of another size would have done with the same requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct ShadowStatus {
    /// `ram` or `ssd`.
    pub tier: &'static str,
    /// The size that was tried.
    pub size_bytes: u64,
    /// The size there is.
    pub size_now_bytes: u64,
    /// Its share of the bytes asked for, 0 to 1.
    pub hit_share: f64,
    /// The share of what there is, reckoned alike.
    pub hit_share_now: f64,
}

impl SsdStatus {
    /// What the metrics' figures say; shadows are for those who know them.
    pub fn of(sample: &SsdSample) -> SsdStatus {
        SsdStatus {
            admitted: sample.admitted,
            rejected: sample.rejected.iter().copied().collect(),
            bypassed_bytes: sample.bypassed_bytes,
            volumes: sample.volumes.iter().map(VolumeStatus::of).collect(),
            shadows: Vec::new(),
        }
    }
}

impl VolumeStatus {
    fn of(one: &VolumeSample) -> VolumeStatus {
        let sum = |counts: &ByWord| counts.iter().map(|(_, count)| count).sum();
        VolumeStatus {
            name: one.volume.clone(),
            state: one.state,
            why: one.why.clone(),
            notice: one.notice.clone(),
            heads_in_doubt: one.heads_in_doubt,
            engine: one.engine,
            size_bytes: one.size_bytes,
            used_bytes: one.used_bytes,
            regions: one.regions.iter().copied().collect(),
            records: one.index_entries,
            reads: sum(&one.reads),
            writes: sum(&one.writes),
            read_bytes: one.read_bytes,
            written_bytes: sum(&one.written),
            errors: sum(&one.errors),
            queue_depth: one.queue_depth,
            read_p99_us: one.read_latency.quantile(0.99).map(micros),
            written_today_bytes: one.written_today_bytes,
            writes_per_day_bytes: one.writes_per_day_bytes,
            life_days: one.life_days,
        }
    }
}

/// A fill run in flight.
#[derive(Clone, Debug, Serialize)]
pub struct RunStatus {
    /// Path and canonical query of the object.
    pub path: String,
    /// Offset in bytes of the first byte it was started for.
    pub first: u64,
    /// One past the last byte it will bring; `None` while nobody knows.
    pub end: Option<u64>,
    /// Bytes it has brought so far.
    pub written_bytes: u64,
    /// Viewers who take bytes from it.
    pub viewers: u64,
}

/// An object of which something is held.
#[derive(Clone, Debug, Serialize)]
pub struct ObjectStatus {
    /// Path and canonical query.
    pub path: String,
    /// Its length in bytes; `None` while it is not known.
    pub length_bytes: Option<u64>,
    /// The size of its blocks.
    pub block_size_bytes: u64,
    /// Blocks of its current version of which a piece is held.
    pub blocks: Vec<BlockStatus>,
}

/// A block of which a piece is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct BlockStatus {
    /// Position in the version, counted in blocks.
    pub index: u32,
    /// Bit `n` is piece `n`.
    pub pieces: u16,
}

impl BlockStatus {
    /// The block at `index` holding `pieces`.
    pub fn new(index: u32, pieces: PieceMap) -> BlockStatus {
        BlockStatus { index, pieces: pieces.0 }
    }
}

impl Status {
    /// A status with what the metrics know; the rest is for those who know it.
    pub fn counted(totals: &Counters) -> Status {
        let first_bytes = totals.first_bytes();
        let quantile = |share| first_bytes.quantile(share).map(micros);
        Status {
            version: env!("CARGO_PKG_VERSION"),
            requests: totals.requests.sum(),
            responses: by_status(totals),
            bodies: by_label(&totals.bodies),
            lookups: by_label(&totals.lookups),
            bytes: by_label(&totals.sites.body_bytes()),
            ttfb: FirstByte { p50_us: quantile(0.5), p90_us: quantile(0.9) },
            origin: OriginTraffic {
                requests: totals.origin_requests.sum(),
                bytes: totals.origin_bytes.sum(),
                errors: by_label(&totals.origin_errors),
            },
            ..Status::default()
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn by_status(totals: &Counters) -> BTreeMap<&'static str, u64> {
    let mut sums = BTreeMap::new();
    for ((_, (_, status)), count) in totals.requests.each() {
        *sums.entry(status.label()).or_default() += count;
    }
    sums
}

/// The counts of a tally that has one label.
fn by_label<L: Labels, const N: usize>(tally: &Tally<L, N>) -> BTreeMap<&'static str, u64> {
    let word = |labels: L| {
        let mut pairs = Vec::new();
        labels.append_to(&mut pairs);
        pairs.first().expect("a tally by label has a label").1
    };
    tally.each().map(|(labels, count)| (word(labels), count)).collect()
}
