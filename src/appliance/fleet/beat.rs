//! What a box says of itself: what it registers with, and how it is, measured since it last said
//! so.

use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::super::parts::Parts;
use super::super::{figures, load, ssd};
use crate::config::Machine;
use crate::control::Phase;
use crate::control::plane::wire::{Beat, Registration};
use crate::control::registry::Family;

/// Looks at the appliance, and remembers what it saw.
pub(super) struct Figures {
    parts: Weak<Parts>,
    said: Registration,
    /// Families of which a listener takes viewers.
    listens: Vec<Family>,
    cores: usize,
    before: Option<Seen>,
    hit_percent: u8,
}

/// What only grows.
#[derive(Clone, Copy, Debug)]
struct Seen {
    at: Instant,
    written_bytes: u64,
    body_bytes: u64,
    origin_bytes: u64,
    worked: Duration,
}

impl Figures {
    /// Of an appliance that viewers reach at `addresses`.
    pub(super) fn new(
        parts: &Arc<Parts>,
        said: Registration,
        addresses: impl Iterator<Item = SocketAddr>,
    ) -> Figures {
        Figures {
            parts: Arc::downgrade(parts),
            said,
            listens: addresses.map(|address| Family::of(address.ip())).collect(),
            cores: Machine::here().cores,
            before: None,
            hit_percent: 0,
        }
    }

    /// What it registers with, now; `None`: the appliance has ended. Its capacity is what it may
    /// send: of more it would seem to be in use what is not.
    pub(super) fn registration(&self) -> Option<Registration> {
        let parts = self.parts.upgrade()?;
        let sites = parts.live.sites.load_full();
        let said = self.said.serving(sites.iter().map(|site| site.name.clone()));
        Some(said.sending_at_most(egress_bits(&parts)))
    }

    /// Whether it wants viewers.
    pub(super) fn phase(&self) -> Option<Phase> {
        Some(self.parts.upgrade()?.readiness.phase())
    }

    /// How it is, measured since this was last asked.
    pub(super) fn beat(&mut self, now: Instant) -> Option<Beat> {
        let parts = self.parts.upgrade()?;
        let seen = seen(&parts, now);
        let before = self.before.replace(seen).unwrap_or(seen);
        let since = seen.at.duration_since(before.at).as_secs_f64();
        let per_second = |bytes: u64| if since > 0.0 { bytes as f64 / since } else { 0.0 };
        let sent_bits = per_second(seen.written_bytes.saturating_sub(before.written_bytes)) * 8.0;
        let worked = seen.worked.saturating_sub(before.worked).as_secs_f64();
        let worked = if since > 0.0 { worked / since / self.cores.max(1) as f64 } else { 0.0 };
        let sent = seen.body_bytes.saturating_sub(before.body_bytes);
        if sent > 0 {
            let filled = seen.origin_bytes.saturating_sub(before.origin_bytes).min(sent);
            self.hit_percent = ((sent - filled) * 100 / sent) as u8;
        }
        let capacity = self.said.capacity_bits_per_second().min(egress_bits(&parts));
        let (volumes_online, volumes_failed) = volumes(&parts);
        let answers = |family| self.said.has(family) && self.listens.contains(&family);
        Some(Beat {
            phase: parts.readiness.phase(),
            load_percent: load_percent(&parts, worked),
            free_bits_per_second: capacity.saturating_sub(sent_bits as u64),
            hit_percent: self.hit_percent,
            volumes_online,
            volumes_failed,
            answers_ipv4: answers(Family::Ipv4),
            answers_ipv6: answers(Family::Ipv6),
        })
    }
}

/// What it may send in a second.
fn egress_bits(parts: &Parts) -> u64 {
    let egress = parts.overload().settings().egress_bytes_per_second;
    egress.map_or(u64::MAX, |bytes| bytes.saturating_mul(8))
}

fn seen(parts: &Parts, at: Instant) -> Seen {
    let totals = parts.metrics.totals();
    Seen {
        at,
        written_bytes: figures::sum(parts, |counts| &counts.bytes_written),
        body_bytes: totals.sites.body_bytes().sum(),
        origin_bytes: totals.origin_bytes.sum(),
        worked: worked().unwrap_or_default(),
    }
}

/// The busiest of processors and connections; all, where new viewers are refused already.
fn load_percent(parts: &Parts, worked: f64) -> u8 {
    let percent = |share: f64| (share * 100.0).clamp(0.0, 100.0) as u8;
    let most = parts.live.connections_max.load(Ordering::Relaxed).max(1);
    let connections = figures::connections_open(parts) as f64 / most as f64;
    match load::refuses_new_viewers(parts) {
        true => 100,
        false => percent(worked).max(percent(connections)),
    }
}

fn volumes(parts: &Parts) -> (u16, u16) {
    let volumes = parts.live.volumes.load();
    let sample = ssd::sample(&parts.ssd, &volumes, parts.started.elapsed());
    let count = |states: &[&str]| {
        let count = sample.volumes.iter().filter(|one| states.contains(&one.state)).count();
        u16::try_from(count).unwrap_or(u16::MAX)
    };
    (count(&["online"]), count(&["read-only", "offline"]))
}

/// The time that processors have worked for this process.
fn worked() -> Option<Duration> {
    worked_of(&fs::read_to_string("/proc/self/stat").ok()?)
}

/// Of a line as in proc(5): what stands behind the name, which may hold anything.
fn worked_of(stat: &str) -> Option<Duration> {
    let (_, behind) = stat.rsplit_once(") ")?;
    let mut times = behind.split(' ').skip(11).map_while(|ticks| ticks.parse::<u64>().ok());
    let ticks = times.next()? + times.next()?;
    Some(Duration::from_millis(ticks.saturating_mul(1_000 / TICKS_PER_SECOND)))
}

/// As Linux tells programs on every machine that we are built for (`USER_HZ`).
const TICKS_PER_SECOND: u64 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_processors_did_is_read_behind_any_name() {
        let line = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 250 150 3 4 20 0 9 0 1 1 1";
        assert_eq!(worked_of(line), Some(Duration::from_secs(4)));
        assert_eq!(worked_of("7 (a) S 1"), None);
        assert!(worked().is_some());
    }
}
