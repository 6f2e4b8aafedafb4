//! What the metrics and the status page show of the ssd tier: every volume's figures at one moment.

use std::time::Duration;

use crate::cache::admission::{Better, DAY, Rejection};
use crate::cache::shadow::{Point, Tier};
use crate::cache::ssd::{Ssd, TierVolume};
use crate::config::SsdVolume;
use crate::metrics::ssd::{ByWord, Latency, Recovery, ShadowSample, SsdSample, VolumeSample};
use crate::store::device::{DeviceFigures, LATENCY_BOUNDS, Urgency};
use crate::store::volume::{Recovered, Refused, State, VolumeFigures};

/// The tier now; `volumes` are those of the configuration, in the same order.
pub(in crate::appliance) fn sample(ssd: &Ssd, volumes: &[SsdVolume], up: Duration) -> SsdSample {
    let tier_volumes = ssd.volumes().all();
    let admissions: Vec<_> =
        tier_volumes.iter().map(|tier_volume| tier_volume.admission.figures()).collect();
    let rejected = |reason: Rejection| {
        let count = admissions.iter().map(|figures| figures.rejected[reason as usize]).sum();
        (reason.label(), count)
    };
    let report = ssd.shadows();
    let [enters, inside] = ssd.figures().shown();
    let prefers_all = report.as_ref().map(|report| u64::from(report.better != Better::Chosen));
    let gain = |point: &Point| {
        let tier = if point.tier == Tier::Ram { "ram" } else { "ssd" };
        (tier, point.factor.to_string(), point.gain)
    };
    let each = tier_volumes.iter().zip(volumes);
    SsdSample {
        shadow: ShadowSample {
            shown: vec![("enters", enters), ("inside", inside)],
            hit_shares: report.as_ref().map_or_else(Vec::new, |report| {
                vec![("budget", report.chosen_hit_share), ("all", report.all_hit_share)]
            }),
            prefers: prefers_all
                .map_or_else(Vec::new, |all| vec![("budget", 1 - all), ("all", all)]),
            gains: report.iter().flat_map(|report| &report.curve).map(gain).collect(),
        },
        admitted: admissions.iter().map(|figures| figures.admitted).sum(),
        rejected: Rejection::ALL.map(rejected).into(),
        bypassed_bytes: ssd.figures().bypassed_bytes(),
        bypass_refused: ssd.figures().bypass_refused(),
        volumes: each.map(|(tier_volume, set)| volume(tier_volume, set, up)).collect(),
    }
}

fn volume(tier_volume: &TierVolume, set: &SsdVolume, up: Duration) -> VolumeSample {
    let left_out = tier_volume.left_out();
    // Of a device that is not there nobody knows a size, nor what is a multiple of it.
    let of_size = |bytes| left_out.is_none().then_some(bytes);
    let starting = VolumeSample {
        volume: tier_volume.name.clone(),
        engine: "none",
        state: if left_out.is_some() { "offline" } else { "starting" },
        why: left_out.map(str::to_owned),
        size_bytes: of_size(set.size_bytes),
        writes_per_day_bytes: of_size(set.writes_per_day_bytes),
        ..VolumeSample::default()
    };
    let Some(opened) = tier_volume.opened() else { return starting };
    let (figures, device) = (opened.figures(), opened.disk().device());
    let device_figures = device.figures();
    let written = figures.written.total();
    VolumeSample {
        engine: device.engine().label(),
        state: figures.state.label(),
        why: match &figures.state {
            State::Online => None,
            // One that was handed over and did not come back is read on.
            State::ReadOnly { why } | State::Offline { why } => {
                Some(left_out.unwrap_or(why).to_owned())
            }
        },
        notice: tier_volume.notice(),
        used_bytes: figures.live_bytes,
        heads_in_doubt: figures.heads_in_doubt,
        reads: by_urgency(device_figures.reads),
        writes: by_urgency(device_figures.writes),
        read_bytes: device_figures.read_bytes,
        queue_depth: device_figures.depth,
        errors: errors(&figures, &device_figures),
        refused: refused(&figures),
        write_queue_bytes: figures.queue_bytes,
        regions: regions(&figures),
        index_entries: figures.heads + figures.blocks,
        index_entries_max: opened.geometry().index_entries_max(),
        dropped: vec![("mismatch", figures.mismatches), ("reclaimed", figures.blocks_reclaimed)],
        written: figures.written.by_reason().into(),
        written_today_bytes: tier_volume.written_today_bytes(),
        life_days: life_days(set, written, up),
        recovery: Some(recovery(&figures.recovered)),
        read_latency: Latency {
            bounds: &LATENCY_BOUNDS,
            counts: device_figures.read_latency.into(),
            sum: device_figures.read_latency_sum,
        },
        ..starting
    }
}

fn by_urgency(counts: [u64; Urgency::ALL.len()]) -> ByWord {
    Urgency::ALL.iter().map(|urgency| (urgency.label(), counts[*urgency as usize])).collect()
}

fn errors(figures: &VolumeFigures, device: &DeviceFigures) -> ByWord {
    vec![
        ("read", figures.read_errors),
        ("late", figures.late),
        ("busy", figures.busy),
        ("reclaim-late", figures.regions_cut_short),
        ("write", figures.write_errors),
        ("flush", device.flush_errors),
    ]
}

fn refused(figures: &VolumeFigures) -> ByWord {
    Refused::ALL.iter().map(|why| (why.label(), figures.refused[*why as usize])).collect()
}

fn regions(figures: &VolumeFigures) -> ByWord {
    let (free, sealed) = (figures.regions_free, figures.regions_sealed);
    let quarantined = figures.regions_quarantined;
    let open = figures.regions.saturating_sub(free + sealed + quarantined);
    vec![
        ("free", free.into()),
        ("open", open.into()),
        ("sealed", sealed.into()),
        ("quarantined", quarantined.into()),
    ]
}

fn recovery(recovered: &Recovered) -> Recovery {
    Recovery {
        took: recovered.took,
        found: vec![
            ("checkpoint", recovered.loaded),
            ("log", recovered.found),
            ("dropped", recovered.dropped),
        ],
    }
}

/// A drive is rated for its writes a day over five years; what is written now, over that.
fn life_days(set: &SsdVolume, written: u64, up: Duration) -> Option<f64> {
    let days = up.as_secs_f64() / DAY.as_secs_f64();
    let rated = set.writes_per_day_bytes as f64 * RATED_DAYS;
    (up >= LIFE_AFTER && written > 0).then(|| rated / (written as f64 / days))
}

/// Drives are rated for five years.
const RATED_DAYS: f64 = 5.0 * 365.0;
/// Before that, nobody can tell.
const LIFE_AFTER: Duration = Duration::from_secs(600);
