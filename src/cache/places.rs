//! Which bytes of the ram tier's mapping are taken: runs of pieces in slots, and slab cells.
//!
//! A run never crosses a slot; a body of up to 32 KiB gets a cell of a slab page, which is one
//! piece. Pure bookkeeping on offsets: it touches no memory. Always holds: each byte of the mapping
//! is in at most one place.

use std::collections::{BTreeSet, HashMap};
use std::iter;

use crate::limits::{
    PIECE_SIZE_BYTES, PIECES_PER_BLOCK_MAX, SLAB_BODY_BYTES_MAX, SLAB_CELL_BYTES_MIN,
};
use crate::object::PieceMap;

const PIECE: usize = PIECE_SIZE_BYTES as usize;
const PIECES_PER_SLOT: u32 = PIECES_PER_BLOCK_MAX;
/// Cells of 1, 2, 4, 8, 16 and 32 KiB.
const SLAB_CLASSES: usize = (SLAB_BODY_BYTES_MAX / SLAB_CELL_BYTES_MIN).ilog2() as usize + 1;

/// An allocation: where it starts in the mapping; its size tells a cell from a run of pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) start: usize,
    pub(super) bytes: usize,
}

impl Place {
    /// The pieces that so many bytes from `start` on touch.
    pub(super) fn touched_by(start: usize, length: usize) -> Place {
        let first = start / PIECE * PIECE;
        Place { start: first, bytes: (start + length).next_multiple_of(PIECE) - first }
    }
}

/// Which bytes of the mapping are taken. Best fit: the tightest free run, whole slots last.
pub(super) struct Places {
    /// By slot: the pieces that are taken.
    taken: Vec<PieceMap>,
    /// `by_free_run[n - 1]`: the slots with a free run of exactly `n` pieces. The lowest is used
    /// first, because its pages are likely to be warm.
    by_free_run: [BTreeSet<u32>; PIECES_PER_SLOT as usize],
    /// Slab pages, by the number of their piece in the mapping.
    pages: HashMap<u32, SlabPage>,
    /// By class: the pages with a free cell.
    open_pages: [BTreeSet<u32>; SLAB_CLASSES],
    pieces_taken: u32,
}

/// One piece, cut into cells of one size.
struct SlabPage {
    cell_bytes: usize,
    /// Bit `n`: cell `n` is free.
    free: u64,
}

impl Places {
    pub(super) fn new(slots: u32) -> Places {
        let mut by_free_run: [BTreeSet<u32>; PIECES_PER_SLOT as usize] = Default::default();
        by_free_run[PIECES_PER_SLOT as usize - 1] = (0..slots).collect();
        Places {
            taken: vec![PieceMap::default(); slots as usize],
            by_free_run,
            pages: HashMap::new(),
            open_pages: Default::default(),
            pieces_taken: 0,
        }
    }

    /// `bytes`: as `rounded` makes them.
    pub(super) fn take(&mut self, bytes: usize) -> Option<Place> {
        let start = if bytes < PIECE {
            self.take_cell(bytes)?
        } else {
            self.take_run((bytes / PIECE) as u32)? as usize * PIECE
        };
        Some(Place { start, bytes })
    }

    /// Takes back an allocation, or the last pieces of one.
    pub(super) fn give_back(&mut self, place: Place) {
        if place.bytes < PIECE {
            self.give_back_cell(place);
        } else {
            self.give_back_run((place.start / PIECE) as u32, (place.bytes / PIECE) as u32);
        }
    }

    /// The number of the first of `pieces` consecutive pieces.
    fn take_run(&mut self, pieces: u32) -> Option<u32> {
        let tightest = &self.by_free_run[pieces as usize - 1..];
        let slot = *tightest.iter().find_map(BTreeSet::first)?;
        let taken = self.taken[slot as usize];
        let fits = free_runs(taken).filter(|&(_, length)| length >= pieces);
        let (first, _) = fits.min_by_key(|&(_, length)| length).expect("the slot has such a run");
        self.set_taken(slot, taken.union(PieceMap::run(first, pieces)));
        self.pieces_taken += pieces;
        Some(slot * PIECES_PER_SLOT + first)
    }

    fn give_back_run(&mut self, first: u32, pieces: u32) {
        let slot = first / PIECES_PER_SLOT;
        let run = PieceMap::run(first % PIECES_PER_SLOT, pieces);
        let taken = self.taken[slot as usize];
        assert!(taken.union(run) == taken, "only what is taken is given back");
        self.set_taken(slot, PieceMap(taken.0 & !run.0));
        self.pieces_taken -= pieces;
    }

    fn set_taken(&mut self, slot: u32, taken: PieceMap) {
        let before = free_run_lengths(self.taken[slot as usize]);
        let after = free_run_lengths(taken);
        for (index, slots) in self.by_free_run.iter_mut().enumerate() {
            match ((before >> index) & 1, (after >> index) & 1) {
                (1, 0) => _ = slots.remove(&slot),
                (0, 1) => _ = slots.insert(slot),
                _ => {}
            }
        }
        self.taken[slot as usize] = taken;
    }

    fn take_cell(&mut self, cell_bytes: usize) -> Option<usize> {
        let class = class_of(cell_bytes);
        let page_number = match self.open_pages[class].first() {
            Some(&page) => page,
            None => self.open_page(cell_bytes)?,
        };
        let page = self.pages.get_mut(&page_number).expect("an open page is a page");
        let cell = page.free.trailing_zeros() as usize;
        page.free &= page.free - 1;
        if page.free == 0 {
            self.open_pages[class].remove(&page_number);
        }
        Some(page_number as usize * PIECE + cell * cell_bytes)
    }

    fn open_page(&mut self, cell_bytes: usize) -> Option<u32> {
        let page = self.take_run(1)?;
        self.pages.insert(page, SlabPage { cell_bytes, free: all_free(cell_bytes) });
        self.open_pages[class_of(cell_bytes)].insert(page);
        Some(page)
    }

    fn give_back_cell(&mut self, place: Place) {
        let number = (place.start / PIECE) as u32;
        let page = self.pages.get_mut(&number).expect("a cell lies in a slab page");
        let cell = 1 << (place.start % PIECE / place.bytes);
        assert!(page.cell_bytes == place.bytes && page.free & cell == 0, "the cell is taken");
        page.free |= cell;
        let open_pages = &mut self.open_pages[class_of(place.bytes)];
        if page.free == all_free(place.bytes) {
            open_pages.remove(&number);
            self.pages.remove(&number);
            self.give_back_run(number, 1);
        } else {
            open_pages.insert(number);
        }
    }

    /// The size of all pieces and cells that `start..start + length` touches.
    pub(super) fn taken_bytes(&self, start: usize, length: usize) -> u64 {
        let end = start + length;
        let pieces = start / PIECE..end.div_ceil(PIECE);
        let taken = pieces.map(|piece| match self.pages.get(&(piece as u32)) {
            None => PIECE,
            Some(page) => {
                let first = start.max(piece * PIECE) / page.cell_bytes;
                let cells = end.min((piece + 1) * PIECE).div_ceil(page.cell_bytes) - first;
                cells * page.cell_bytes
            }
        });
        taken.sum::<usize>() as u64
    }

    /// All that is taken, slab pages with few cells in use included.
    pub(super) fn pieces_taken_bytes(&self) -> u64 {
        u64::from(self.pieces_taken) * PIECE_SIZE_BYTES
    }

    pub(super) fn slots_free(&self) -> u32 {
        self.by_free_run[PIECES_PER_SLOT as usize - 1].len() as u32
    }
}

/// The longest possible runs of free pieces of a slot: first piece and length.
fn free_runs(taken: PieceMap) -> impl Iterator<Item = (u32, u32)> {
    let mut free = u32::from(!taken.0);
    iter::from_fn(move || {
        let first = (free != 0).then(|| free.trailing_zeros())?;
        let length = (free >> first).trailing_ones();
        free &= !(((1 << length) - 1) << first);
        Some((first, length))
    })
}

/// Bit `n - 1`: the slot has a free run of exactly `n` pieces.
fn free_run_lengths(taken: PieceMap) -> u32 {
    free_runs(taken).fold(0, |lengths, (_, length)| lengths | 1 << (length - 1))
}

/// What an allocation of `bytes` takes: a cell's size, or whole pieces.
pub(super) fn rounded(bytes: usize) -> usize {
    if bytes as u64 <= SLAB_BODY_BYTES_MAX {
        bytes.next_power_of_two().max(SLAB_CELL_BYTES_MIN as usize)
    } else {
        bytes.next_multiple_of(PIECE)
    }
}

fn class_of(cell_bytes: usize) -> usize {
    (cell_bytes as u64 / SLAB_CELL_BYTES_MIN).ilog2() as usize
}

fn all_free(cell_bytes: usize) -> u64 {
    u64::MAX >> (64 - PIECE / cell_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SLOTS: u32 = 3;

    /// One byte per KiB of the mapping: whether it is taken. Everything else is worked out from it.
    struct Naive(Vec<bool>);

    impl Naive {
        fn set(&mut self, place: Place, taken: bool) {
            for kib in &mut self.0[place.start / 1024..(place.start + place.bytes) / 1024] {
                assert_ne!(*kib, taken, "{place:?} overlaps another place");
                *kib = taken;
            }
        }

        /// Free runs of whole pieces, each inside a slot; `is_page` says which pieces hold cells.
        fn free_runs(&self, is_page: impl Fn(u32) -> bool) -> Vec<u32> {
            let piece_is_free = |piece: u32| {
                let kib = piece as usize * 64;
                !is_page(piece) && self.0[kib..kib + 64].iter().all(|taken| !taken)
            };
            let mut runs = Vec::new();
            for slot in 0..SLOTS {
                let pieces = (slot * 16..(slot + 1) * 16).map(piece_is_free).collect::<Vec<_>>();
                let lengths = pieces.split(|free| !free).map(|run| run.len() as u32);
                runs.extend(lengths.filter(|&length| length > 0));
            }
            runs
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Take(usize),
        GiveBack(prop::sample::Index),
        GiveBackTail(prop::sample::Index, prop::sample::Index),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (1usize..=1 << 20).prop_map(Step::Take),
            2 => (1usize..=5 << 16).prop_map(Step::Take),
            4 => (1usize..=32 << 10).prop_map(Step::Take),
            4 => any::<prop::sample::Index>().prop_map(Step::GiveBack),
            1 => any::<(prop::sample::Index, prop::sample::Index)>()
                .prop_map(|(which, pieces)| Step::GiveBackTail(which, pieces)),
        ];
        prop::collection::vec(step, 1..200)
    }

    fn take(places: &mut Places, naive: &mut Naive, bytes: usize) -> Option<Place> {
        let bytes = rounded(bytes);
        let is_page = |piece| places.pages.contains_key(&piece);
        let runs = naive.free_runs(is_page);
        let pieces = (bytes / PIECE).max(1) as u32;
        let tightest = runs.iter().filter(|&&run| run >= pieces).min();
        let Some(place) = places.take(bytes) else {
            assert_eq!(tightest, None, "{bytes} bytes would have fitted");
            return None;
        };
        assert_eq!(place.bytes, bytes);
        assert_eq!(place.start % bytes.min(PIECE), 0, "a cell lies in one piece");
        assert_eq!(place.start >> 20, (place.start + bytes - 1) >> 20, "a run lies in one slot");
        naive.set(place, true);
        if bytes >= PIECE {
            let mut expected = runs.clone();
            let run = *tightest.expect("it was found");
            expected.remove(expected.iter().position(|&other| other == run).expect("a run"));
            expected.extend((run > pieces).then(|| run - pieces));
            let mut left = naive.free_runs(|piece| places.pages.contains_key(&piece));
            left.sort_unstable();
            expected.sort_unstable();
            assert_eq!(left, expected, "the tightest run was cut at its border");
        }
        Some(place)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn places_never_overlap_and_all_of_them_return(steps in steps()) {
            let mut places = Places::new(SLOTS);
            let mut naive = Naive(vec![false; SLOTS as usize * 1024]);
            let mut held: Vec<Place> = Vec::new();
            for step in steps {
                match step {
                    Step::Take(bytes) => held.extend(take(&mut places, &mut naive, bytes)),
                    Step::GiveBack(which) if !held.is_empty() => {
                        let place = held.swap_remove(which.index(held.len()));
                        naive.set(place, false);
                        places.give_back(place);
                    }
                    Step::GiveBackTail(which, pieces) if !held.is_empty() => {
                        let held_count = held.len();
                        let place = &mut held[which.index(held_count)];
                        if place.bytes > PIECE {
                            let kept = (1 + pieces.index(place.bytes / PIECE - 1)) * PIECE;
                            let start = place.start + kept;
                            let tail = Place { start, bytes: place.bytes - kept };
                            place.bytes = kept;
                            naive.set(tail, false);
                            places.give_back(tail);
                        }
                    }
                    _ => {}
                }
                for place in &held {
                    let taken = places.taken_bytes(place.start, place.bytes);
                    prop_assert_eq!(taken, place.bytes as u64);
                }
                let runs = naive.free_runs(|piece| places.pages.contains_key(&piece));
                let free = u64::from(runs.iter().sum::<u32>()) * PIECE_SIZE_BYTES;
                prop_assert_eq!(places.pieces_taken_bytes() + free, u64::from(SLOTS) << 20);
                let whole = runs.iter().filter(|&&run| run == 16).count();
                prop_assert_eq!(places.slots_free() as usize, whole);
            }
            for place in held {
                places.give_back(place);
            }
            prop_assert_eq!(places.slots_free(), SLOTS);
            prop_assert_eq!(places.pieces_taken_bytes(), 0);
            prop_assert!(places.pages.is_empty());
            prop_assert!(places.open_pages.iter().all(BTreeSet::is_empty));
        }
    }

    #[test]
    fn sizes_are_rounded_to_cells_and_pieces() {
        let cases = [
            (1, 1 << 10),
            (1 << 10, 1 << 10),
            (1025, 2 << 10),
            (32 << 10, 32 << 10),
            ((32 << 10) + 1, 64 << 10),
            (64 << 10, 64 << 10),
            ((64 << 10) + 1, 128 << 10),
            (1 << 20, 1 << 20),
        ];
        for (bytes, expected) in cases {
            assert_eq!(rounded(bytes), expected, "{bytes}");
        }
    }

    #[test]
    fn a_slab_page_holds_sixty_four_playlists_and_returns_after_the_last() {
        let mut places = Places::new(1);
        let cells: Vec<Place> = (0..65).map(|_| places.take(1024).unwrap()).collect();
        assert_eq!(places.pieces_taken_bytes(), 2 * PIECE_SIZE_BYTES);
        for &cell in &cells {
            places.give_back(cell);
        }
        assert_eq!(places.slots_free(), 1);
    }

    #[test]
    fn whole_slots_are_kept_for_whole_blocks() {
        let mut places = Places::new(4);
        let parts: Vec<Place> = (0..5).map(|_| places.take(5 * PIECE).unwrap()).collect();
        assert_eq!(places.slots_free(), 2, "three runs of five share a slot");
        places.give_back(parts[1]);
        assert_eq!(places.take(5 * PIECE), Some(parts[1]), "the tightest run, not a fresh slot");
    }

    #[test]
    #[should_panic = "only what is taken is given back"]
    fn giving_back_twice_is_noticed() {
        let mut places = Places::new(1);
        let place = places.take(PIECE).unwrap();
        places.give_back(place);
        places.give_back(place);
    }
}
