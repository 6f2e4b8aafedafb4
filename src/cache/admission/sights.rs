//! Which blocks were seen of late: Bloom filters in two generations, of a bounded size.
//!
//! A generation takes blocks worth a number of bytes; then it becomes the older one and what
//! was the older one is forgotten. The filter is cut into segments that turn on their own, so that
//! no turn clears more than a few KiB. Nothing locks: two threads that meet lose a bit at most, and
//! a lost bit is one late admission.

use std::sync::atomic::{AtomicU64, Ordering};

/// A key's bits lie in one cache line of each generation.
const LINE_WORDS: usize = 8;
/// Bits for each key in each generation; a key seen again sets a second set of them.
const BITS_PER_KEY: u64 = 10;
/// Blocks are smaller than they could be: there is room for so many keys per block that fits.
const KEYS_PER_BLOCK: u64 = 2;
const KEYS_PER_LINE: u64 = LINE_WORDS as u64 * 64 / BITS_PER_KEY;
/// Bits set for one sight: nine bits of a hash choose each.
const PROBES: u32 = 6;
/// Many lines level out what falls into them, few are cleared quickly.
const LINES_PER_SEGMENT: u64 = 32;
/// The current generation of a segment, beside the bytes of blocks seen in it.
const CURRENT_BIT: u64 = 1 << 63;

/// What a use of a block was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Not seen within the window.
    First,
    /// Seen once within the window.
    Second,
    /// Seen more often.
    Often,
}

/// The filter.
pub(super) struct Sights {
    /// One word a segment: its current generation, and the bytes of blocks seen in it.
    segments: Box<[AtomicU64]>,
    /// For each segment the lines of one generation, then those of the other.
    words: Box<[AtomicU64]>,
    lines_per_segment: u64,
    /// Blocks worth this make a generation of a segment, at the full window.
    window_bytes: u64,
    /// A key counts at least this, so that small ones do not fill the filter beyond its size.
    key_bytes_min: u64,
}

impl Sights {
    /// A generation takes blocks worth `window_bytes`, and twice `blocks_max` of them.
    pub(super) fn new(window_bytes: u64, blocks_max: u64) -> Sights {
        let keys_max = blocks_max.max(1) * KEYS_PER_BLOCK;
        let lines = keys_max.div_ceil(KEYS_PER_LINE).max(1);
        let lines_per_segment = lines.min(LINES_PER_SEGMENT);
        let segments = lines.div_ceil(lines_per_segment);
        let zeros = |count: u64| (0..count).map(|_| AtomicU64::new(0)).collect();
        Sights {
            segments: zeros(segments),
            words: zeros(segments * lines_per_segment * 2 * LINE_WORDS as u64),
            lines_per_segment,
            window_bytes: (window_bytes / segments).max(1),
            key_bytes_min: window_bytes / keys_max,
        }
    }

    /// Marks a use; `window` is the part of the full window that counts now.
    pub(super) fn mark(&self, hash: u64, bytes: u64, window: f64) -> Seen {
        let place = self.place(hash);
        let state = self.segments[place.segment].load(Ordering::Relaxed);
        let current = place.lines[(state & CURRENT_BIT != 0) as usize];
        let older = place.lines[(state & CURRENT_BIT == 0) as usize];
        let [once, again] = place.probes;
        let (once_current, once_older) = (self.holds(current, once), self.holds(older, once));
        // What is still in use takes its place in the current generation too: it fills the filter.
        let line = match once_current {
            true => current,
            false => self.count(place, state, bytes.max(self.key_bytes_min), window),
        };
        if !once_current {
            self.set(line, once);
        }
        if !once_current && !once_older {
            return Seen::First;
        }
        let often_current = self.holds(current, again);
        let often = often_current || self.holds(older, again);
        if !often_current {
            self.set(line, again);
        }
        if often { Seen::Often } else { Seen::Second }
    }

    /// Whether the key was seen within the window; marks nothing.
    pub(super) fn knows(&self, hash: u64) -> bool {
        let place = self.place(hash);
        place.lines.iter().any(|line| self.holds(*line, place.probes[0]))
    }

    /// Counts a key new to the current generation, turns the segment when that is full, and gives
    /// the line where the key belongs.
    fn count(&self, place: Place, state: u64, bytes: u64, window: f64) -> usize {
        let counter = &self.segments[place.segment];
        let current = state & CURRENT_BIT;
        let filled = (state & !CURRENT_BIT) + bytes;
        // Either is lost when another thread counts at this moment: the turn comes a little later.
        let count_as = |next| {
            counter.compare_exchange(state, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        };
        if filled as f64 <= self.window_bytes as f64 * window {
            count_as(current | filled);
            return place.lines[(current != 0) as usize];
        }
        let next = current ^ CURRENT_BIT;
        if count_as(next | bytes) {
            let lines = self.lines_per_segment as usize;
            let first = (place.segment * 2 + (next != 0) as usize) * lines * LINE_WORDS;
            for word in &self.words[first..first + lines * LINE_WORDS] {
                word.store(0, Ordering::Relaxed);
            }
        }
        place.lines[(next != 0) as usize]
    }

    fn holds(&self, line: usize, probes: u64) -> bool {
        bits(probes).all(|(word, bit)| self.words[line + word].load(Ordering::Relaxed) & bit != 0)
    }

    fn set(&self, line: usize, probes: u64) {
        for (word, bit) in bits(probes) {
            self.words[line + word].fetch_or(bit, Ordering::Relaxed);
        }
    }

    fn place(&self, hash: u64) -> Place {
        let segment = scaled(hash, self.segments.len() as u64);
        let mixed = mix(hash);
        let line = scaled(mixed, self.lines_per_segment) as usize;
        let lines = self.lines_per_segment as usize;
        let line =
            |generation: usize| ((segment as usize * 2 + generation) * lines + line) * LINE_WORDS;
        let once = mix(mixed);
        Place { segment: segment as usize, lines: [line(0), line(1)], probes: [once, mix(once)] }
    }

    /// The words of the filter, segments first, as they are written down.
    pub(super) fn words(&self) -> impl Iterator<Item = &AtomicU64> {
        self.segments.iter().chain(&self.words)
    }

    /// How many words are written down.
    pub(super) fn word_count(&self) -> usize {
        self.segments.len() + self.words.len()
    }
}

/// Where the bits of a key lie.
#[derive(Clone, Copy)]
struct Place {
    segment: usize,
    /// The first word of its line in each generation.
    lines: [usize; 2],
    /// What chooses the bits of a sight, and those of a key seen again.
    probes: [u64; 2],
}

/// The words and bits of one set of probes within a line.
fn bits(probes: u64) -> impl Iterator<Item = (usize, u64)> {
    (0..PROBES).map(move |n| {
        let at = probes >> (9 * n);
        ((at >> 6) as usize % LINE_WORDS, 1 << (at & 63))
    })
}

/// `hash` brought into `0..count`, by its upper bits.
fn scaled(hash: u64, count: u64) -> u64 {
    ((u128::from(hash) * u128::from(count)) >> 64) as u64
}

/// Another hash of the same key (the finish of SplitMix64).
pub(super) fn mix(hash: u64) -> u64 {
    let hash = hash.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_seen_first_then_again_and_is_forgotten_after_two_generations() {
        let sights = Sights::new(1_000, 1_000);
        assert_eq!(sights.mark(mix(1), 1, 1.0), Seen::First);
        assert_eq!(sights.mark(mix(1), 1, 1.0), Seen::Second);
        assert_eq!(sights.mark(mix(1), 1, 1.0), Seen::Often);
        let flood = |from: u64, count: u64| {
            for key in from..from + count {
                sights.mark(mix(key), 1, 1.0);
            }
        };
        flood(10, 1_000);
        assert_eq!(sights.mark(mix(1), 1, 1.0), Seen::Often, "in the older generation");
        flood(2_000, 3_000);
        assert_eq!(sights.mark(mix(1), 1, 1.0), Seen::First, "forgotten");
    }

    #[test]
    fn few_strangers_look_known() {
        let sights = Sights::new(100_000, 100_000);
        let known = (0..1_000_000).filter(|key| sights.mark(mix(*key), 1, 1.0) != Seen::First);
        let known = known.count();
        assert!(known < 20_000, "{known} of a million");
    }

    #[test]
    fn a_smaller_window_forgets_sooner() {
        let sights = Sights::new(10_000, 10_000);
        for key in 0..100_000_u64 {
            sights.mark(mix(key), 1, 0.25);
        }
        let known = |keys: std::ops::Range<u64>| {
            keys.filter(|key| sights.mark(mix(*key), 1, 0.25) != Seen::First).count()
        };
        assert!(known(99_000..100_000) > 950);
        assert!(known(90_000..91_000) < 50);
    }
}
