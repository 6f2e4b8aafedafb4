//! What is told of a month: sums, and the rate below which 95 % of its samples lie.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::folder::{Folder, Part};
use super::{Counts, Month, SAMPLE_SECONDS, rfc3339};
use crate::moment::unix_seconds;

/// What is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Of which month.
    pub month: Month,
    /// Of this site alone.
    pub site: Option<String>,
    /// Each of that site's samples too.
    pub samples: bool,
}

/// A month, for people and programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MonthTold {
    /// What it is.
    pub format: String,
    /// The name of the machine that counted.
    pub machine: String,
    /// Such as `2026-11`.
    pub month: String,
    /// When it begins.
    pub start: String,
    /// When it ends: the first moment of the next one.
    pub end: String,
    /// When this was told; before `end` the month is not over.
    pub told_at: String,
    /// From when on it was counted: `start`, or where nothing is kept of a month before, when the
    /// first sample of this one begins. What was served before is not known. Missing where nothing
    /// was counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted_since: Option<String>,
    /// How long a sample is.
    pub sample_seconds: u64,
    /// Samples that have ended, of those since it was counted.
    pub samples_due: u64,
    /// Those of them in which nothing counted: they are left out of the percentile.
    pub samples_missing: u64,
    /// Lines of the file that are not as they were written.
    pub damaged_lines: u64,
    /// How the percentile is reckoned.
    pub percentile: String,
    /// All sites together; left out where nothing is known, and where one is asked for: who is told
    /// of it, such as who publishes it, need not know what others are served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all: Option<SiteTold>,
    /// Each by itself, in the order of their names.
    pub sites: Vec<SiteTold>,
}

/// One site's month.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteTold {
    /// Its name; `*` for all together.
    pub site: String,
    /// Body bytes handed to viewers' connections.
    pub served_bytes: u64,
    /// Body bytes received from origins.
    pub origin_bytes: u64,
    /// Requests answered.
    pub requests: u64,
    /// The 95th percentile of what was served; nothing where no sample has ended.
    pub p95_bits_per_second: Option<u64>,
    /// When each sample begins, in seconds since 1970, and what was counted in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub samples: Option<Vec<(u64, Counts)>>,
}

impl MonthTold {
    /// Whether it is over and no sample of it is there: nobody knows what was served.
    pub fn is_unknown(&self) -> bool {
        self.told_at >= self.end && self.samples_missing == self.samples_due
    }

    /// When counting began, if that was not before the month.
    pub fn begun_within(&self) -> Option<&str> {
        self.counted_since.as_deref().filter(|since| **since > *self.start)
    }

    /// With those of `configured` of which nothing was served, too: nobody takes them for sites
    /// that do not exist. Of a month of which no sample is there nothing is said.
    pub fn with_silent<'a>(
        mut self,
        asked: &Asked,
        configured: impl Iterator<Item = &'a str>,
    ) -> MonthTold {
        let is_asked_for = |name: &&str| asked.site.as_ref().is_none_or(|site| site == name);
        let there = self.samples_due - self.samples_missing;
        if self.is_unknown() {
            return self;
        }
        for name in configured.filter(is_asked_for) {
            if let Err(place) = self.sites.binary_search_by(|one| (*one.site).cmp(name)) {
                let silent = SiteTold {
                    site: name.to_owned(),
                    served_bytes: 0,
                    origin_bytes: 0,
                    requests: 0,
                    p95_bits_per_second: (there > 0).then_some(0),
                    samples: asked.samples.then(Vec::new),
                };
                self.sites.insert(place, silent);
            }
        }
        self
    }
}

/// Why nothing is told.
#[derive(Debug)]
pub enum Unreckoned {
    /// The file cannot be read.
    Unread(io::Error),
    /// There is no memory for one more site.
    NoRoom,
}

impl fmt::Display for Unreckoned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unreckoned::Unread(error) => write!(f, "usage cannot be read: {error}"),
            Unreckoned::NoRoom => f.write_str("there is no memory for so many sites; ask for one"),
        }
    }
}

impl std::error::Error for Unreckoned {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Unreckoned::Unread(error) => Some(error),
            Unreckoned::NoRoom => None,
        }
    }
}

/// What is told by the files in `folder` alone. Blocks.
///
/// # Errors
/// They cannot be read.
pub fn of_files(folder: &Folder, asked: &Asked, now: SystemTime) -> Result<MonthTold, Unreckoned> {
    let mut tally = Tally::new(asked, now, || true);
    tally.read(folder)?;
    tally.told()
}

/// Sums up the parts of a month.
pub(super) struct Tally<'a, Room> {
    asked: &'a Asked,
    now_seconds: u64,
    /// Asked once for each site: whether there is memory for it.
    room: Room,
    is_full: bool,
    damaged: u64,
    /// Samples in which something counted.
    there: Vec<bool>,
    /// Something counted in a month before, too.
    was_before: bool,
    all: Sums,
    sites: BTreeMap<String, Sums>,
    samples: BTreeMap<u64, Counts>,
}

/// Of one site.
#[derive(Default)]
struct Sums {
    counts: Counts,
    /// Served in each sample, up to the last one with something in it.
    served: Vec<u64>,
}

impl Sums {
    fn add(&mut self, sample: usize, counts: Counts) {
        if self.served.len() <= sample {
            self.served.resize(sample + 1, 0);
        }
        self.served[sample] = self.served[sample].saturating_add(counts.served_bytes);
        self.counts += counts;
    }
}

impl<'a, Room: FnMut() -> bool> Tally<'a, Room> {
    pub(super) fn new(asked: &'a Asked, now: SystemTime, room: Room) -> Tally<'a, Room> {
        Tally {
            asked,
            now_seconds: unix_seconds(now),
            room,
            is_full: false,
            damaged: 0,
            there: vec![false; asked.month.samples()],
            was_before: false,
            all: Sums::default(),
            sites: BTreeMap::new(),
            samples: BTreeMap::new(),
        }
    }

    pub(super) fn read(&mut self, folder: &Folder) -> Result<(), Unreckoned> {
        let read = folder.read(self.asked.month, |part| self.add(part));
        self.damaged += read.map_err(Unreckoned::Unread)?;
        self.was_before |= folder.has_before(self.asked.month).map_err(Unreckoned::Unread)?;
        Ok(())
    }

    /// Adds a part, if it is of this month.
    pub(super) fn add(&mut self, part: Part) {
        self.was_before |= part.start < self.asked.month.start();
        let into = part.start.checked_sub(self.asked.month.start());
        let sample = into.map(|seconds| (seconds / SAMPLE_SECONDS) as usize);
        let Some(sample) = sample.filter(|sample| *sample < self.there.len()) else { return };
        self.there[sample] = true;
        let is_alone = self.asked.samples && self.asked.site.is_some();
        let of_sample = is_alone.then(|| self.samples.entry(part.start).or_default());
        let mut alone = Counts::default();
        for (site, counts) in part.sites {
            self.all.add(sample, counts);
            if self.asked.site.as_ref().is_some_and(|asked| *asked != site) {
                continue;
            }
            alone += counts;
            if let Some(sums) = self.sites.get_mut(&site) {
                sums.add(sample, counts);
            } else if !self.is_full && (self.room)() {
                self.sites.entry(site).or_default().add(sample, counts);
            } else {
                self.is_full = true;
            }
        }
        if let Some(sum) = of_sample {
            *sum += alone;
        }
    }

    pub(super) fn told(self) -> Result<MonthTold, Unreckoned> {
        if self.is_full {
            return Err(Unreckoned::NoRoom);
        }
        let month = self.asked.month;
        let ended = self.now_seconds.clamp(month.start(), month.end()) - month.start();
        let ended = (ended / SAMPLE_SECONDS) as usize;
        let there = &self.there[..ended];
        let count = there.iter().filter(|there| **there).count();
        let first = self.there.iter().position(|there| *there);
        let first = if self.was_before { Some(0) } else { first };
        // Before the first one nobody counted: none of them is missing.
        let due = ended - first.unwrap_or(ended).min(ended);
        let since = first.map(|first| rfc3339(month.start() + first as u64 * SAMPLE_SECONDS));
        let is_unknown = count == 0 && self.now_seconds >= month.end();
        let told = |site: String, sums: &Sums| SiteTold {
            site,
            served_bytes: sums.counts.served_bytes,
            origin_bytes: sums.counts.origin_bytes,
            requests: sums.counts.requests,
            p95_bits_per_second: percentile_95(&mut of_those(there, &sums.served)).map(rate),
            samples: None,
        };
        let mut sites: Vec<_> =
            self.sites.iter().map(|(name, sums)| told(name.clone(), sums)).collect();
        if let [site] = sites.as_mut_slice()
            && !self.samples.is_empty()
        {
            site.samples = Some(self.samples.into_iter().collect());
        }
        Ok(MonthTold {
            format: FORMAT.to_owned(),
            machine: machine(),
            month: month.to_string(),
            start: rfc3339(month.start()),
            end: rfc3339(month.end()),
            told_at: rfc3339(self.now_seconds),
            counted_since: since,
            sample_seconds: SAMPLE_SECONDS,
            samples_due: due as u64,
            samples_missing: (due - count) as u64,
            damaged_lines: self.damaged,
            percentile: PERCENTILE.to_owned(),
            all: (self.asked.site.is_none() && !is_unknown)
                .then(|| told("*".to_owned(), &self.all)),
            sites,
        })
    }
}

/// What was served in the samples that are there.
fn of_those(there: &[bool], served: &[u64]) -> Vec<u64> {
    let served = served.iter().copied().chain(std::iter::repeat(0));
    there.iter().zip(served).filter(|(there, _)| **there).map(|(_, served)| served).collect()
}

/// The 95th percentile by nearest rank (Hyndman and Fan 1996, definition 1): the least value that
/// is no less than 95 % of all; so the top 5 % are dropped, and the highest of the rest counts.
fn percentile_95(samples: &mut [u64]) -> Option<u64> {
    let rank = (samples.len() * 95).div_ceil(100);
    let (_, value, _) = samples.select_nth_unstable(rank.checked_sub(1)?);
    Some(*value)
}

/// Bits per second over a sample, rounded down.
fn rate(bytes: u64) -> u64 {
    bytes.saturating_mul(8) / SAMPLE_SECONDS
}

/// As it calls itself.
fn machine() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// What an answer and an export say they are.
pub const FORMAT: &str = "tidegate usage 1";
const PERCENTILE: &str =
    "95, nearest rank, of the 5-minute samples that are there, in bits per second served";

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::collection::vec;
    use proptest::{prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn november() -> Month {
        "2026-11".parse().unwrap()
    }

    fn all() -> Asked {
        Asked { month: november(), site: None, samples: false }
    }

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn part(sample: u64, sites: &[(&str, u64)]) -> Part {
        let of = |(name, served_bytes): &(&str, u64)| {
            (
                (*name).to_owned(),
                Counts { served_bytes: *served_bytes, origin_bytes: 1, requests: 1 },
            )
        };
        let start = november().start() + sample * SAMPLE_SECONDS;
        Part { start, sites: sites.iter().map(of).collect() }
    }

    #[test]
    fn a_site_that_was_served_nothing_is_told_apart_from_one_that_is_not_there() {
        let told = |site: Option<&str>, parts: &[Part]| {
            let asked = Asked { site: site.map(str::to_owned), ..all() };
            let mut tally = Tally::new(&asked, at(november().start() + SAMPLE_SECONDS), || true);
            parts.iter().cloned().for_each(|part| tally.add(part));
            let told = tally.told().unwrap().with_silent(&asked, ["film", "a", "z"].into_iter());
            let one = |one: SiteTold| (one.site, one.requests, one.p95_bits_per_second);
            told.sites.into_iter().map(one).collect::<Vec<_>>()
        };
        let quiet = |site: &str, p95| (site.to_owned(), 0, p95);
        let film = ("film".to_owned(), 1, Some(8));
        let served = [part(0, &[("film", SAMPLE_SECONDS)])];
        assert_eq!(told(None, &served), [quiet("a", Some(0)), film.clone(), quiet("z", Some(0))]);
        assert_eq!(told(Some("film"), &served), [film]);
        assert_eq!(told(Some("z"), &served), [quiet("z", Some(0))]);
        assert_eq!(told(Some("z"), &[]), [quiet("z", None)], "nothing was sampled yet");
        assert_eq!(told(Some("nobodys"), &served), []);
    }

    /// As it is reckoned by hand: sorted, the top twentieth away, the highest that is left.
    fn naive(samples: &[u64]) -> Option<u64> {
        let mut sorted = samples.to_vec();
        sorted.sort_unstable();
        let dropped = samples.len() / 20;
        sorted.truncate(samples.len() - dropped);
        sorted.last().copied()
    }

    proptest! {
        #[test]
        fn the_percentile_is_the_highest_once_the_top_twentieth_is_dropped(
            samples in vec(0_u64..1_000, 0..200),
        ) {
            prop_assert_eq!(percentile_95(&mut samples.clone()), naive(&samples));
        }

        #[test]
        fn parts_in_any_order_give_the_sums_and_the_percentile_of_their_samples(
            parts in vec((0_u64..200, 0_u64..1_000), 0..400),
        ) {
            let asked = all();
            let mut tally = Tally::new(&asked, at(november().end()), || true);
            let mut samples = BTreeMap::<u64, u64>::new();
            for (sample, served) in &parts {
                tally.add(part(*sample, &[("film", *served)]));
                *samples.entry(*sample).or_default() += served;
            }
            let told = tally.told().unwrap();
            let first = samples.first_key_value().map(|(first, _)| *first);
            let since = first.map(|first| rfc3339(november().start() + first * SAMPLE_SECONDS));
            prop_assert_eq!(&told.counted_since, &since);
            let Some((first, all)) = first.zip(told.all.clone()) else {
                prop_assert!(told.is_unknown() && told.all.is_none() && parts.is_empty());
                return Ok(());
            };
            let sum: u64 = parts.iter().map(|(_, served)| served).sum();
            prop_assert_eq!(all.served_bytes, sum);
            prop_assert_eq!(all.requests, parts.len() as u64);
            prop_assert_eq!(told.samples_due, 8_640 - first);
            prop_assert_eq!(told.samples_missing, 8_640 - first - samples.len() as u64);
            let values: Vec<u64> = samples.into_values().collect();
            prop_assert_eq!(all.p95_bits_per_second, naive(&values).map(rate));
        }
    }

    #[test]
    fn a_month_is_reckoned_as_by_hand() {
        let (asked, month) = (all(), november());
        // A hundred samples have ended, in ninety something counted; one is under way.
        let mut tally = Tally::new(&asked, at(month.start() + 100 * 300 + 7), || true);
        for sample in (0..91).filter(|sample| *sample != 50) {
            tally.add(part(sample, &[("film", 300 * sample), ("trailers", 300)]));
        }
        tally.add(part(100, &[("film", 1 << 40)]));
        let told = tally.told().unwrap();
        assert_eq!((told.samples_due, told.samples_missing), (100, 10));
        let [film, trailers] = &told.sites[..] else { panic!("{told:?}") };
        // The 86th of ninety; without the 51st sample, the one numbered 86.
        assert_eq!(film.p95_bits_per_second, Some(86 * 8));
        assert_eq!(trailers.p95_bits_per_second, Some(8));
        let all = told.all.as_ref().unwrap();
        assert_eq!(all.p95_bits_per_second, Some(87 * 8));
        let sum = 300 * ((0..91).sum::<u64>() - 50) + (1 << 40);
        assert_eq!((film.served_bytes, film.requests), (sum, 91));
        assert_eq!(all.served_bytes, sum + 90 * 300);
        assert_eq!(
            (told.start.as_str(), told.end.as_str()),
            ("2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z")
        );
        assert_eq!(told.told_at, "2026-11-01T08:20:07Z");
    }

    #[test]
    fn what_was_before_the_first_sample_is_not_known_and_not_missing() {
        let asked = all();
        let told = |now: u64, before: bool, parts: &[u64]| {
            let there = tempfile::tempdir().unwrap();
            let folder = Folder::at(there.path().join("usage"));
            if before {
                let october = Part { start: november().start() - 300, sites: BTreeMap::new() };
                folder.append(&october).unwrap();
            }
            for sample in parts {
                folder.append(&part(*sample, &[("film", 300)])).unwrap();
            }
            of_files(&folder, &asked, at(november().start() + now)).unwrap()
        };
        let figures = |told: &MonthTold| (told.samples_due, told.samples_missing);
        let whole = "2026-11-01T00:00:00Z".to_owned();
        // Installed within the month; one sample after the first is missing, one is under way.
        let new = told(100 * 300, false, &[90, 91, 93, 94, 95, 96, 97, 98, 99, 100]);
        assert_eq!(figures(&new), (10, 1));
        assert_eq!(new.begun_within(), Some("2026-11-01T07:30:00Z"));
        let old = told(100 * 300, true, &[90]);
        assert_eq!((figures(&old), old.begun_within()), ((100, 99), None));
        assert_eq!(old.counted_since, Some(whole.clone()), "it was down, and not served");
        // Just installed, and a month before it was.
        let just = told(100 * 300 + 7, false, &[100]);
        assert_eq!((figures(&just), just.is_unknown()), ((0, 0), false));
        assert_eq!(just.all.unwrap().p95_bits_per_second, None);
        let never = told(8_640 * 300, false, &[]);
        assert_eq!((figures(&never), never.is_unknown()), ((0, 0), true));
        assert_eq!((never.all, never.counted_since), (None, None), "nothing is not zero");
        let down = told(8_640 * 300, true, &[]);
        assert_eq!((figures(&down), down.is_unknown()), ((8_640, 8_640), true));
        assert_eq!((down.all, down.counted_since), (None, Some(whole)));
    }

    #[test]
    fn what_is_of_another_month_does_not_count() {
        let asked = all();
        let mut tally = Tally::new(&asked, at(november().end() + 900), || true);
        tally.add(part(8_639, &[("film", 5)]));
        tally.add(part(8_640, &[("film", 7)]));
        let before = Part { start: november().start() - 300, ..part(0, &[("film", 11)]) };
        tally.add(before);
        let told = tally.told().unwrap();
        assert_eq!((told.all.unwrap().served_bytes, told.samples_due), (5, 8_640));
    }

    #[test]
    fn of_one_site_each_sample_is_told_also_those_without_it_and_nothing_of_others() {
        let asked = Asked { site: Some("film".to_owned()), samples: true, ..all() };
        let mut tally = Tally::new(&asked, at(november().start() + 900), || true);
        tally.add(part(0, &[("film", 5), ("trailers", 1)]));
        tally.add(part(0, &[("film", 7)]));
        tally.add(part(1, &[("trailers", 1)]));
        let told = tally.told().unwrap();
        let [film] = &told.sites[..] else { panic!("{told:?}") };
        let samples = film.samples.as_ref().unwrap();
        assert_eq!(
            samples.iter().map(|(_, counts)| counts.served_bytes).collect::<Vec<_>>(),
            [12, 0]
        );
        assert_eq!((&told.all, told.samples_missing), (&None, 1));
    }

    #[test]
    fn more_sites_than_there_is_room_for_are_refused() {
        let asked = all();
        let mut room = [true, false].into_iter();
        let mut tally = Tally::new(&asked, at(0), || room.next().unwrap_or(false));
        tally.add(part(0, &[("film", 5), ("trailers", 1)]));
        assert!(matches!(tally.told(), Err(Unreckoned::NoRoom)));
    }
}
