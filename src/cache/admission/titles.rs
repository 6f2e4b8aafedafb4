//! How likely a block is to be asked for again, by what happened to others of its title.
//!
//! A bounded table of titles, four to a bucket, the least seen replaced; and a row for each site,
//! which is what a title is believed to be like while little is known of it. Nothing locks: two
//! threads that meet lose a count.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::cache::admission::sights::{Seen, mix};

/// Titles remembered, 16 bytes each.
const TITLES_MAX: usize = 64 << 10;
const TITLES_PER_BUCKET: usize = 4;
const WORDS_PER_TITLE: usize = 2;
/// Counts of a title are halved here, so that what was long ago fades.
const TITLE_SIGHTS_MAX: u32 = 2_048;
/// The same of a site.
const SITE_SIGHTS_MAX: u32 = 1 << 20;
/// A title is believed to be like its site to the weight of this many sights.
const SIGHTS_ASSUMED: f64 = 32.0;
/// What a site is believed to be like before anything is known of it.
const RETURN_ASSUMED: f64 = 0.4;

/// First sights of blocks, and those that had a second one within the window.
#[derive(Clone, Copy, Default)]
struct Counts {
    first: u32,
    returned: u32,
}

impl Counts {
    fn of(word: u64) -> Counts {
        Counts { first: (word >> 32) as u32, returned: word as u32 }
    }

    fn word(self) -> u64 {
        u64::from(self.first) << 32 | u64::from(self.returned)
    }

    fn after(self, seen: Seen, sights_max: u32) -> Counts {
        let Counts { mut first, mut returned } = self;
        match seen {
            Seen::First => first += 1,
            // A first sight of before the title was forgotten.
            Seen::Second => returned = (returned + 1).min(first),
            Seen::Often => {}
        }
        if first >= sights_max {
            (first, returned) = (first / 2, returned / 2);
        }
        Counts { first, returned }
    }

    fn share(self, assumed: f64) -> f64 {
        (f64::from(self.returned) + SIGHTS_ASSUMED * assumed)
            / (f64::from(self.first) + SIGHTS_ASSUMED)
    }
}

/// The tables.
pub(super) struct Titles {
    /// A title's hash, never zero, and its counts.
    titles: Box<[AtomicU64]>,
    sites: Box<[AtomicU64]>,
}

impl Titles {
    pub(super) fn new(sites_max: usize) -> Titles {
        let zeros = |count: usize| (0..count).map(|_| AtomicU64::new(0)).collect();
        Titles { titles: zeros(TITLES_MAX * WORDS_PER_TITLE), sites: zeros(sites_max) }
    }

    /// Learns what a use of a block of the title was.
    pub(super) fn learn(&self, title: u64, site: usize, seen: Seen) {
        if seen == Seen::Often {
            return;
        }
        let counts = &self.sites[site];
        let site = Counts::of(counts.load(Ordering::Relaxed)).after(seen, SITE_SIGHTS_MAX);
        counts.store(site.word(), Ordering::Relaxed);
        let bucket = self.bucket(title);
        let counts = match find(bucket, title) {
            Some(counts) => counts,
            None if seen == Seen::First => replace_least_seen(bucket, title),
            None => return,
        };
        let after = Counts::of(counts.load(Ordering::Relaxed)).after(seen, TITLE_SIGHTS_MAX);
        counts.store(after.word(), Ordering::Relaxed);
    }

    /// The likelihood that a block of the title, seen once, is asked for again.
    pub(super) fn return_share(&self, title: u64, site: usize) -> f64 {
        let site = Counts::of(self.sites[site].load(Ordering::Relaxed)).share(RETURN_ASSUMED);
        let counts = find(self.bucket(title), title);
        counts.map_or(site, |counts| Counts::of(counts.load(Ordering::Relaxed)).share(site))
    }

    fn bucket(&self, title: u64) -> &[AtomicU64] {
        let width = TITLES_PER_BUCKET * WORDS_PER_TITLE;
        let at = mix(title) as usize % (self.titles.len() / width) * width;
        &self.titles[at..at + width]
    }

    /// The words of the titles, as they are written down. Sites are learnt anew: a site's number
    /// is good for one process.
    pub(super) fn words(&self) -> impl Iterator<Item = &AtomicU64> {
        self.titles.iter()
    }

    pub(super) fn word_count(&self) -> usize {
        self.titles.len()
    }
}

fn find(bucket: &[AtomicU64], title: u64) -> Option<&AtomicU64> {
    let mut titles = bucket.chunks_exact(WORDS_PER_TITLE);
    let found = titles.find(|words| words[0].load(Ordering::Relaxed) == title.max(1));
    found.map(|words| &words[1])
}

fn replace_least_seen(bucket: &[AtomicU64], title: u64) -> &AtomicU64 {
    let titles = bucket.chunks_exact(WORDS_PER_TITLE);
    let seen = |words: &&[AtomicU64]| Counts::of(words[1].load(Ordering::Relaxed)).first;
    let words = titles.min_by_key(seen).expect("a bucket has room for titles");
    words[0].store(title.max(1), Ordering::Relaxed);
    words[1].store(0, Ordering::Relaxed);
    &words[1]
}
