//! What is wrong with a simulated device, and how that is written in one line:
//! `size=1GiB,stall-reads=2s,fail-reads=5%,vanish-after=1000`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::Ending;
use super::chance::Chance;
use crate::limits::GRANULE_SIZE_BYTES;
use crate::store::device::queue::Lane;

const MILLIONTHS: u32 = 1_000_000;

/// A share of all cases, in millionths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share(u32);

impl Share {
    /// In no case.
    const NONE: Share = Share(0);
    /// In every case.
    pub const ALL: Share = Share(MILLIONTHS);

    /// So many of a million; more is all.
    pub fn millionths(count: u32) -> Share {
        Share(count.min(MILLIONTHS))
    }

    fn falls_on(self, chance: &mut Chance) -> bool {
        chance.below(MILLIONTHS.into()) < self.0.into()
    }
}

/// What is wrong with a device. By default nothing, and it answers at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults {
    /// Every operation takes up to this, evenly spread: so their order is another than they came
    /// in.
    pub latency_max: Duration,
    /// How long a read that stalls takes.
    pub stall_reads: Duration,
    /// How long a write or flush that stalls takes.
    pub stall_writes: Duration,
    /// How many of them stall.
    pub stall_share: Share,
    /// Reads that fail.
    pub fail_reads: Share,
    /// Writes that fail, done in part perhaps.
    pub fail_writes: Share,
    /// Flushes that fail.
    pub fail_flushes: Share,
    /// Writes of which the media holds one bit wrong.
    pub flip_writes: Share,
    /// Writes that land elsewhere on the volume.
    pub misdirect_writes: Share,
    /// From the operation after so many on all fail, as if the device were gone.
    pub vanish_after: Option<u64>,
    /// From the operation after so many on none ever ends.
    pub stop_after: Option<u64>,
    /// None of this in the first while.
    pub healthy_for: Duration,
}

impl Default for Faults {
    fn default() -> Faults {
        Faults {
            latency_max: Duration::ZERO,
            stall_reads: Duration::ZERO,
            stall_writes: Duration::ZERO,
            stall_share: Share::ALL,
            fail_reads: Share::NONE,
            fail_writes: Share::NONE,
            fail_flushes: Share::NONE,
            flip_writes: Share::NONE,
            misdirect_writes: Share::NONE,
            vanish_after: None,
            stop_after: None,
            healthy_for: Duration::ZERO,
        }
    }
}

impl Faults {
    /// When and how the `number`-th operation ends.
    pub(super) fn decide(
        &self,
        lane: Lane,
        number: u64,
        age: Duration,
        chance: &mut Chance,
    ) -> (Duration, Ending) {
        let latency_nanos = u64::try_from(self.latency_max.as_nanos()).unwrap_or(u64::MAX);
        let latency = Duration::from_nanos(chance.below(latency_nanos.saturating_add(1)));
        let stalls = self.stall_share.falls_on(chance);
        let (stall, fails) = match lane {
            Lane::Read => (self.stall_reads, self.fail_reads),
            Lane::Write => (self.stall_writes, self.fail_writes),
            Lane::Flush => (self.stall_writes, self.fail_flushes),
        };
        let fails = fails.falls_on(chance);
        let past = |bound: Option<u64>| bound.is_some_and(|bound| number > bound);
        let ending = match () {
            () if past(self.stop_after) => Ending::Never,
            () if age < self.healthy_for => return (latency, Ending::Well),
            () if past(self.vanish_after) => return (latency, Ending::Badly(libc::ENODEV)),
            () if fails => Ending::Badly(libc::EIO),
            () => Ending::Well,
        };
        (if stalls { latency + stall } else { latency }, ending)
    }

    /// Where a write of `length` bytes for `at` lands.
    pub(super) fn misdirected(
        &self,
        at: u64,
        length: u64,
        size_bytes: u64,
        chance: &mut Chance,
    ) -> u64 {
        match self.misdirect_writes.falls_on(chance) {
            true => {
                chance.below((size_bytes - length) / GRANULE_SIZE_BYTES + 1) * GRANULE_SIZE_BYTES
            }
            false => at,
        }
    }

    /// Which bit of a write of `length` bytes is wrong.
    pub(super) fn flipped(&self, length: usize, chance: &mut Chance) -> Option<usize> {
        let falls = self.flip_writes.falls_on(chance);
        falls.then(|| chance.below(length as u64 * 8) as usize)
    }
}

/// How often each thing that can go wrong with a device has happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Harm {
    /// Reads that stalled.
    pub reads_stalled: u64,
    /// Writes and flushes that stalled.
    pub writes_stalled: u64,
    /// Reads that failed.
    pub reads_failed: u64,
    /// Writes that failed, done in part perhaps.
    pub writes_failed: u64,
    /// Flushes that failed.
    pub flushes_failed: u64,
    /// Writes of which the media holds one bit wrong.
    pub bits_flipped: u64,
    /// Writes that landed elsewhere.
    pub writes_misdirected: u64,
    /// Writes that were over after one that began later.
    pub writes_overtaken: u64,
    /// Reads that found sectors of a write under way.
    pub reads_mixed: u64,
    /// Writes of which a crash left nothing.
    pub writes_lost: u64,
    /// Writes of which a crash left some sectors.
    pub writes_torn: u64,
    /// Writes that nobody had flushed and a crash left whole.
    pub writes_kept: u64,
    /// Crashes that left a write and lost one that was complete before it.
    pub crashes_reordered: u64,
}

/// A simulated device, as it is asked for in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Simulation {
    /// How large; `size`.
    pub size_bytes: u64,
    /// What all its chance follows from; `seed`, 0 if not said.
    pub seed: u64,
    /// What is wrong with it: every field by its name with hyphens, without `-max` and `-share`
    /// except for `stall-share`.
    pub faults: Faults,
}

/// Why a line does not describe a simulated device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SimulationError {
    /// `size` is missing.
    NoSize,
    /// There is no such word.
    Unknown(String),
    /// Its value can't be understood.
    Value {
        /// Whose.
        name: String,
        /// What stands there.
        value: String,
    },
}

impl fmt::Display for SimulationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SimulationError::NoSize => f.write_str("a simulated device needs a size: size=1GiB"),
            SimulationError::Unknown(name) => {
                write!(f, "a simulated device knows no `{name}`")
            }
            SimulationError::Value { name, value } => {
                write!(f, "`{value}` is no value for `{name}` of a simulated device")
            }
        }
    }
}

impl std::error::Error for SimulationError {}

impl FromStr for Simulation {
    type Err = SimulationError;

    fn from_str(line: &str) -> Result<Simulation, SimulationError> {
        let (mut size_bytes, mut seed, mut faults) = (None, 0, Faults::default());
        for word in line.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            let (name, value) = (name.trim(), value.trim());
            let wrong =
                || SimulationError::Value { name: name.to_owned(), value: value.to_owned() };
            let number = || value.parse().map_err(|_| wrong());
            let share = || share(value).ok_or_else(wrong);
            let time = || time(value).ok_or_else(wrong);
            match name {
                "size" => size_bytes = Some(size(value).ok_or_else(wrong)?),
                "seed" => seed = number()?,
                "latency" => faults.latency_max = time()?,
                "stall-reads" => faults.stall_reads = time()?,
                "stall-writes" => faults.stall_writes = time()?,
                "stall-share" => faults.stall_share = share()?,
                "fail-reads" => faults.fail_reads = share()?,
                "fail-writes" => faults.fail_writes = share()?,
                "fail-flushes" => faults.fail_flushes = share()?,
                "flip-writes" => faults.flip_writes = share()?,
                "misdirect-writes" => faults.misdirect_writes = share()?,
                "vanish-after" => faults.vanish_after = Some(number()?),
                "stop-after" => faults.stop_after = Some(number()?),
                "healthy-for" => faults.healthy_for = time()?,
                _ => return Err(SimulationError::Unknown(name.to_owned())),
            }
        }
        let size_bytes = size_bytes.ok_or(SimulationError::NoSize)?;
        Ok(Simulation { size_bytes, seed, faults })
    }
}

/// `5%`, `0.01%`.
fn share(value: &str) -> Option<Share> {
    let percent: f64 = value.strip_suffix('%')?.trim().parse().ok()?;
    let valid = (0.0..=100.0).contains(&percent);
    valid.then(|| Share((percent / 100.0 * f64::from(MILLIONTHS)).round() as u32))
}

/// `2s`, `150ms`.
fn time(value: &str) -> Option<Duration> {
    let (number, unit) = number_and_unit(value)?;
    match unit {
        "us" => Some(Duration::from_micros(number)),
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "min" => Some(Duration::from_secs(number.checked_mul(60)?)),
        _ => None,
    }
}

/// `1GiB`, `256 MiB`; whole granules.
fn size(value: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(value)?;
    let shift = match unit {
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return None,
    };
    let bytes = number.checked_mul(1 << shift)?;
    (bytes > 0 && bytes.is_multiple_of(GRANULE_SIZE_BYTES)).then_some(bytes)
}

fn number_and_unit(value: &str) -> Option<(u64, &str)> {
    let digits = value.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = value.split_at(digits);
    Some((number.parse().ok()?, unit.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_is_wrong() {
        let line = "size=1GiB,stall-reads=2s,fail-reads=5%, vanish-after = 1000,seed=7";
        let faults = Faults {
            stall_reads: Duration::from_secs(2),
            fail_reads: Share::millionths(50_000),
            vanish_after: Some(1_000),
            ..Faults::default()
        };
        assert_eq!(line.parse(), Ok(Simulation { size_bytes: 1 << 30, seed: 7, faults }));
    }

    #[test]
    fn a_line_that_can_not_be_understood_is_refused() {
        let refused = |line: &str| line.parse::<Simulation>().unwrap_err().to_string();
        assert_eq!(refused("seed=1"), "a simulated device needs a size: size=1GiB");
        assert_eq!(refused("size=1GiB,smoke"), "a simulated device knows no `smoke`");
        for (name, value) in [
            ("size", "1"),
            ("size", "1KiB"),
            ("size", "99999999999TiB"),
            ("stall-reads", "2"),
            ("fail-reads", "101%"),
            ("fail-reads", "5"),
            ("vanish-after", "-1"),
        ] {
            let expected = format!("`{value}` is no value for `{name}` of a simulated device");
            assert_eq!(refused(&format!("size=4KiB,{name}={value}")), expected);
        }
    }

    #[test]
    fn a_share_falls_on_about_as_many_as_it_says() {
        let mut chance = Chance::new(1);
        let share = share("5%").unwrap();
        let hits = (0..10_000).filter(|_| share.falls_on(&mut chance)).count();
        assert!((400..600).contains(&hits), "{hits}");
        assert!((0..1_000).all(|_| Share::ALL.falls_on(&mut chance)));
        assert!((0..1_000).all(|_| !Share::NONE.falls_on(&mut chance)));
    }
}
