//! The series of the ssd tier: a few of the tier itself, and some sixty of each volume.
//!
//! Whoever owns the volumes fills an [`SsdSample`] at each scrape. A volume's label is its name in
//! the configuration; every other label is a word of a closed set, named also while its count is
//! zero. Nothing of this is there in an appliance without volumes.

mod folded;
mod latency;
mod shadow;

use std::sync::Arc;
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto;

pub use self::latency::Latency;
pub use self::shadow::ShadowSample;
use super::Metrics;
use super::bounded::LeftOutOf;
use super::series::{self, Kind, Series};
use crate::limits::VOLUMES_MAX;

/// Counts told apart by a word of a closed set; all of its words, each once.
pub type ByWord = Vec<(&'static str, u64)>;

/// The tier at one moment; counters since the start.
#[derive(Clone, Debug, Default)]
pub struct SsdSample {
    /// Blocks offered that admission let in.
    pub admitted: u64,
    /// Blocks offered that it did not, by reason.
    pub rejected: ByWord,
    /// Bytes asked of origins because a volume was ill.
    pub bypassed_bytes: u64,
    /// Requests turned away because a volume was ill and the origins had had their share.
    pub bypass_refused: u64,
    /// What the shadow caches say.
    pub shadow: ShadowSample,
    /// Each volume that is configured.
    pub volumes: Vec<VolumeSample>,
}

/// One volume at one moment; counters since the start.
#[derive(Clone, Debug, Default)]
pub struct VolumeSample {
    /// Its name in the configuration.
    pub volume: String,
    /// `uring`, `threads` or `simulated`; `none` before it is online.
    pub engine: &'static str,
    /// One of [`STATES`].
    pub state: &'static str,
    /// Why it is not online; told by the status page alone.
    pub why: Option<String>,
    /// Its path no longer names what is open: what became of it. Told in words by the status page.
    pub notice: Option<String>,
    /// Its size; `None` while nobody can tell.
    pub size_bytes: Option<u64>,
    /// What of it holds records that can still be found.
    pub used_bytes: u64,
    /// Whether heads of it are used only when the origin has confirmed them.
    pub heads_in_doubt: bool,
    /// Reads by urgency.
    pub reads: ByWord,
    /// Writes by urgency.
    pub writes: ByWord,
    /// Bytes read from the device.
    pub read_bytes: u64,
    /// Transfers queued and under way.
    pub queue_depth: u64,
    /// How long reads took.
    pub read_latency: Latency,
    /// What went wrong, by kind.
    pub errors: ByWord,
    /// Writes of what was let in that were not taken, by reason.
    pub refused: ByWord,
    /// Bytes that wait to be written, or are being written.
    pub write_queue_bytes: u64,
    /// Regions by what they are used for.
    pub regions: ByWord,
    /// Records the index knows.
    pub index_entries: u64,
    /// Records at which it takes no more blocks.
    pub index_entries_max: u64,
    /// Records that are no longer found, by reason.
    pub dropped: ByWord,
    /// Bytes written, by what for; together, what the device was given.
    pub written: ByWord,
    /// Bytes written since midnight, UTC, by earlier processes too, but for a crash's last minutes.
    pub written_today_bytes: u64,
    /// What may be written in a day; `None` while nobody can tell.
    pub writes_per_day_bytes: Option<u64>,
    /// How long the device would last at the present rate; `None` while nobody can tell.
    pub life_days: Option<f64>,
    /// What it took to come online; `None` before it has.
    pub recovery: Option<Recovery>,
}

/// How a volume came online.
#[derive(Clone, Debug, Default)]
pub struct Recovery {
    /// How long it took.
    pub took: Duration,
    /// Records by where they were found.
    pub found: ByWord,
}

/// The states a volume can be in.
pub const STATES: [&str; 4] = ["starting", "online", "read-only", "offline"];

impl Metrics {
    /// Adds the series of the ssd tier, whose figures are read at each scrape.
    ///
    /// `read` must be quick, name the volumes of before and the same words each time, and may not
    /// call these metrics.
    ///
    /// # Panics
    /// If they are there already.
    pub fn read_ssd_at_scrape(&self, read: impl Fn() -> SsdSample + Send + Sync + 'static) {
        let left_out = Arc::clone(&self.left_out);
        let read = move || {
            let sample = read();
            let volumes = sample.volumes.len().min(VOLUMES_MAX);
            left_out.set(LeftOutOf::Volumes, folded::left_out(volumes));
            sample
        };
        let descriptions = families(&read()).iter().map(series::description).collect();
        self.register(Box::new(ReadSsd { descriptions, read: Box::new(read) }));
    }
}

struct ReadSsd {
    descriptions: Vec<Desc>,
    read: Box<dyn Fn() -> SsdSample + Send + Sync>,
}

impl Collector for ReadSsd {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        families(&(self.read)())
    }
}

fn families(sample: &SsdSample) -> Vec<proto::MetricFamily> {
    let volumes = &sample.volumes[..sample.volumes.len().min(VOLUMES_MAX)];
    let one = |series: Series, read: fn(&VolumeSample) -> Option<u64>| {
        let value =
            |one: &VolumeSample| Some(series::value(series, &[(VOLUME, &one.volume)], read(one)?));
        series::family(series, volumes.iter().filter_map(value).collect())
    };
    let each = |series: Series, read: fn(&VolumeSample) -> ByWord| {
        let label = series.label.expect("a series by word names its label");
        let values = volumes.iter().flat_map(|one| {
            let value = move |(word, count): (&str, u64)| {
                series::value(series, &[(VOLUME, &one.volume), (label, word)], count)
            };
            read(one).into_iter().map(value)
        });
        series::family(series, values.collect())
    };
    let rejected = sample.rejected.iter();
    let rejected = rejected.map(|(word, n)| series::value(REJECTED, &[("reason", word)], *n));
    let mut families = vec![
        series::family(ADMITTED, vec![series::value(ADMITTED, &[], sample.admitted)]),
        series::family(REJECTED, rejected.collect()),
        series::family(BYPASSED, vec![series::value(BYPASSED, &[], sample.bypassed_bytes)]),
        series::family(TURNED_AWAY, vec![series::value(TURNED_AWAY, &[], sample.bypass_refused)]),
        one(SIZE, |one| one.size_bytes),
        one(USED, |one| Some(one.used_bytes)),
        each(STATE, |one| STATES.map(|state| (state, u64::from(state == one.state))).into()),
        one(PATH_LOST, |one| Some(u64::from(one.notice.is_some()))),
        one(HEADS_IN_DOUBT, |one| Some(u64::from(one.heads_in_doubt))),
        each(ENGINE, |one| vec![(one.engine, 1)]),
        each(READS, |one| one.reads.clone()),
        each(WRITES, |one| one.writes.clone()),
        one(READ_BYTES, |one| Some(one.read_bytes)),
        each(WRITTEN, |one| one.written.clone()),
        one(WRITTEN_TODAY, |one| Some(one.written_today_bytes)),
        one(WRITES_PER_DAY, |one| one.writes_per_day_bytes),
        one(QUEUE_DEPTH, |one| Some(one.queue_depth)),
        series::family(READ_SECONDS, volumes.iter().map(read_seconds).collect()),
        each(ERRORS, |one| one.errors.clone()),
        each(WRITES_REFUSED, |one| one.refused.clone()),
        one(WRITE_QUEUE, |one| Some(one.write_queue_bytes)),
        each(REGIONS, |one| one.regions.clone()),
        one(INDEX_ENTRIES, |one| Some(one.index_entries)),
        one(INDEX_ENTRIES_MAX, |one| Some(one.index_entries_max)),
        each(DROPPED, |one| one.dropped.clone()),
        series::family(LIFE, volumes.iter().filter_map(life).collect()),
        series::family(RECOVERY, volumes.iter().filter_map(recovery).collect()),
        each(FOUND, |one| one.recovery.as_ref().map_or_else(Vec::new, |r| r.found.clone())),
    ];
    folded::fit(&mut families, volumes.len());
    families.extend(sample.shadow.families());
    families.retain(|family| !family.get_metric().is_empty());
    families
}

fn read_seconds(one: &VolumeSample) -> proto::Metric {
    let Latency { bounds, counts, sum } = &one.read_latency;
    let mut below = 0;
    let cumulated: Vec<u64> = counts
        .iter()
        .map(|count| {
            below += count;
            below
        })
        .collect();
    let bounds = bounds.iter().map(Duration::as_secs_f64);
    series::histogram(&[(VOLUME, &one.volume)], bounds, &cumulated, sum.as_secs_f64())
}

fn life(one: &VolumeSample) -> Option<proto::Metric> {
    let seconds = one.life_days? * 86_400.0;
    Some(series::measure(&[(VOLUME, &one.volume)], seconds))
}

fn recovery(one: &VolumeSample) -> Option<proto::Metric> {
    let took = one.recovery.as_ref()?.took;
    Some(series::measure(&[(VOLUME, &one.volume)], took.as_secs_f64()))
}

/// The label of each volume's series.
const VOLUME: &str = "volume";

const fn series(
    kind: Kind,
    label: Option<&'static str>,
    name: &'static str,
    help: &'static str,
) -> Series {
    Series { name, help, kind, label }
}

const ADMITTED: Series = series(
    Kind::Counter,
    None,
    "tidegate_ssd_admitted_total",
    "Blocks offered to the ssd tier that admission let in; not all of them need be written.",
);
const REJECTED: Series = series(
    Kind::Counter,
    Some("reason"),
    "tidegate_ssd_rejected_total",
    "Blocks offered to the ssd tier that admission did not let in, by reason.",
);
const BYPASSED: Series = series(
    Kind::Counter,
    None,
    "tidegate_ssd_bypassed_bytes_total",
    "Bytes asked of origins because a volume that holds or held them was ill.",
);
const TURNED_AWAY: Series = series(
    Kind::Counter,
    None,
    "tidegate_ssd_bypass_refused_total",
    "Reads that waited or were refused: their volume was ill, and origins had had their share.",
);
const SIZE: Series = series(Kind::Gauge, None, "tidegate_ssd_size_bytes", "Size of the volume.");
const USED: Series = series(
    Kind::Gauge,
    None,
    "tidegate_ssd_used_bytes",
    "Bytes of the volume that hold records that can be found.",
);
const STATE: Series = series(
    Kind::Gauge,
    Some("state"),
    "tidegate_ssd_state",
    "1 for the state the volume is in, 0 for the others.",
);
const PATH_LOST: Series = series(
    Kind::Gauge,
    None,
    "tidegate_ssd_path_lost",
    "1 if the volume's path no longer names what is in use: it was deleted, moved or replaced.",
);
const HEADS_IN_DOUBT: Series = series(
    Kind::Gauge,
    None,
    "tidegate_ssd_heads_in_doubt",
    "1 if heads of the volume are used only when the origin has confirmed them.",
);
const ENGINE: Series = series(
    Kind::Gauge,
    Some("engine"),
    "tidegate_ssd_engine_info",
    "Always 1; its label is how the volume's device is talked to.",
);
const READS: Series = series(
    Kind::Counter,
    Some("urgency"),
    "tidegate_ssd_reads_total",
    "Reads the device has completed, by urgency.",
);
const WRITES: Series = series(
    Kind::Counter,
    Some("urgency"),
    "tidegate_ssd_writes_total",
    "Writes the device has completed, by urgency.",
);
const READ_BYTES: Series =
    series(Kind::Counter, None, "tidegate_ssd_read_bytes_total", "Bytes read from the device.");
const WRITTEN: Series = series(
    Kind::Counter,
    Some("reason"),
    "tidegate_ssd_written_bytes_total",
    "Bytes written to the device, by what for; all by what was admitted: write amplification.",
);
const WRITTEN_TODAY: Series = series(
    Kind::Gauge,
    None,
    "tidegate_ssd_written_today_bytes",
    "Bytes written to the device since midnight, UTC; a crash forgets the last minutes of them.",
);
const WRITES_PER_DAY: Series = series(
    Kind::Gauge,
    None,
    "tidegate_ssd_writes_per_day_bytes",
    "What may be written to the device in a day, by its setting.",
);
const QUEUE_DEPTH: Series = series(
    Kind::Gauge,
    None,
    "tidegate_ssd_queue_depth",
    "Transfers queued and under way at the device.",
);
const READ_SECONDS: Series = series(
    Kind::Histogram,
    None,
    "tidegate_ssd_read_seconds",
    "How long reads of the device took, their time in the queue included.",
);
const ERRORS: Series = series(
    Kind::Counter,
    Some("kind"),
    "tidegate_ssd_errors_total",
    "What went wrong with the volume, by kind.",
);
const WRITES_REFUSED: Series = series(
    Kind::Counter,
    Some("reason"),
    "tidegate_ssd_writes_refused_total",
    "Blocks and heads the volume had no place for when they were to be written, by reason.",
);
const WRITE_QUEUE: Series = series(
    Kind::Gauge,
    None,
    "tidegate_ssd_write_queue_bytes",
    "Bytes of blocks and heads that wait to be written to the volume, or are being written.",
);
const REGIONS: Series = series(
    Kind::Gauge,
    Some("state"),
    "tidegate_ssd_regions",
    "Regions of the volume, by what they are used for.",
);
const INDEX_ENTRIES: Series = series(
    Kind::Gauge,
    None,
    "tidegate_ssd_index_entries",
    "Records of the volume that its index knows.",
);
const INDEX_ENTRIES_MAX: Series = series(
    Kind::Gauge,
    None,
    "tidegate_ssd_index_entries_max",
    "Records of the volume at which it takes no more blocks.",
);
const DROPPED: Series = series(
    Kind::Counter,
    Some("reason"),
    "tidegate_ssd_records_dropped_total",
    "Records of the volume that are no longer found, by reason.",
);
const LIFE: Series = series(
    Kind::Gauge,
    None,
    "tidegate_ssd_life_seconds",
    "How long the device would last if it went on being written as it is now.",
);
const RECOVERY: Series = series(
    Kind::Gauge,
    None,
    "tidegate_ssd_recovery_seconds",
    "How long it took the volume to come online.",
);
const FOUND: Series = series(
    Kind::Gauge,
    Some("found"),
    "tidegate_ssd_recovered_records",
    "Records found when the volume came online, by where.",
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::VOLUME_SERIES_MAX;
    use crate::metrics::Format;

    const BOUNDS: &[Duration] = &[Duration::from_micros(250), Duration::from_millis(1)];

    pub(super) fn volume(name: &str) -> VolumeSample {
        VolumeSample {
            volume: name.to_owned(),
            engine: "uring",
            state: "read-only",
            why: None,
            notice: None,
            size_bytes: Some(1 << 40),
            used_bytes: 1 << 30,
            heads_in_doubt: true,
            reads: by_urgency(5),
            writes: by_urgency(7),
            read_bytes: 5 << 20,
            queue_depth: 3,
            read_latency: Latency {
                bounds: BOUNDS,
                counts: vec![2, 3, 1],
                sum: Duration::from_millis(9),
            },
            errors: vec![
                ("read", 2),
                ("late", 0),
                ("busy", 0),
                ("reclaim-late", 0),
                ("write", 0),
                ("flush", 1),
            ],
            refused: vec![
                ("queue-full", 3),
                ("index-full", 0),
                ("no-room", 0),
                ("read-only", 1),
                ("offline", 0),
            ],
            write_queue_bytes: 1 << 20,
            regions: vec![("free", 9), ("open", 1), ("sealed", 5), ("quarantined", 0)],
            index_entries: 12,
            index_entries_max: 65_536,
            dropped: vec![("mismatch", 1), ("reclaimed", 0)],
            written: vec![
                ("admitted", 2 << 30),
                ("reappended", 1 << 20),
                ("heads", 0),
                ("metadata", 4096),
                ("checkpoint", 0),
                ("padding", 0),
            ],
            written_today_bytes: 1 << 30,
            writes_per_day_bytes: Some(1 << 40),
            life_days: Some(1_825.5),
            recovery: Some(Recovery {
                took: Duration::from_millis(1_250),
                found: vec![("checkpoint", 11), ("log", 1), ("dropped", 0)],
            }),
        }
    }

    fn by_urgency(count: u64) -> ByWord {
        let others = [("patient", 0), ("promote", 1), ("write", 0), ("reclaim", 0), ("verify", 0)];
        [("viewer", count)].into_iter().chain(others).collect()
    }

    pub(super) fn sample(volumes: Vec<VolumeSample>) -> SsdSample {
        SsdSample {
            admitted: 4,
            rejected: vec![
                ("first-sight", 6),
                ("live", 0),
                ("short-lived", 0),
                ("site-share", 0),
                ("budget-spent", 0),
                ("planned-only", 0),
            ],
            bypassed_bytes: 65_536,
            bypass_refused: 1,
            shadow: ShadowSample {
                shown: vec![("enters", 3), ("inside", 1)],
                hit_shares: vec![("budget", 0.5), ("all", 0.625)],
                prefers: vec![("budget", 0), ("all", 1)],
                gains: vec![("ssd", "2".to_owned(), 0.125)],
            },
            volumes,
        }
    }

    fn text(sample: SsdSample) -> Vec<String> {
        let metrics = Metrics::new();
        metrics.read_ssd_at_scrape(move || sample.clone());
        let text = metrics.encode(Format::Prometheus);
        text.lines().filter(|l| l.contains("tidegate_ssd")).map(str::to_owned).collect()
    }

    /// `tests/it/ssd.rs` holds a running appliance to the words of this file.
    #[test]
    fn a_volume_tells_exactly_this() {
        let told = text(sample(vec![volume("nvme0n1")])).join("\n") + "\n";
        assert_eq!(told, include_str!("ssd.txt"));
    }

    #[test]
    fn a_volume_that_never_came_online_tells_what_is_known() {
        let silent =
            VolumeSample { volume: "a".to_owned(), state: "offline", ..Default::default() };
        let told = text(sample(vec![silent]));
        let has = |line: &str| told.iter().any(|told| told == line);
        assert!(has("tidegate_ssd_state{volume=\"a\",state=\"offline\"} 1"), "{told:?}");
        let unknown = ["life_seconds", "recover", "size_bytes", "per_day"];
        assert!(!told.iter().any(|line| unknown.iter().any(|word| line.contains(word))));
    }

    #[test]
    fn the_number_of_volumes_with_series_is_bounded() {
        let samples = |count: usize| {
            let volumes = (0..count).map(|n| volume(&n.to_string())).collect();
            let told = text(sample(volumes));
            told.iter().filter(|line| !line.starts_with('#')).count()
        };
        let (none, most) = (samples(0), samples(VOLUMES_MAX));
        assert_eq!(samples(VOLUMES_MAX + 1), most);
        assert!(most - none <= VOLUME_SERIES_MAX, "{most} series, {none} without volumes");
    }

    #[test]
    fn names_and_help_texts_keep_to_the_house_rules() {
        for family in families(&sample(vec![volume("a")])) {
            let counter = family.get_field_type() == proto::MetricType::COUNTER;
            assert_eq!(family.name().ends_with("_total"), counter, "{}", family.name());
            assert!(family.help().ends_with('.'), "{}", family.name());
        }
    }
}
