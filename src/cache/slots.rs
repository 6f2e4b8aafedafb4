//! The ram tier's memory: one mapping, written by single writers and read as shared `Bytes`.
//!
//! Which bytes are free is decided in `places`. Knows no keys, evicts nothing: when no place is
//! free, it says so. Always holds: a byte of the mapping is of one allocation at most, written by
//! one `Extent`; shared `Bytes` cover only what is written; when all are gone the memory returns.

// The mapping is shared between one writer and many readers of what it has already written, which
// the borrow checker can't follow. Everything unsafe of the ram tier is in this file.
#![allow(unsafe_code)]

use std::any::Any;
use std::fmt;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use memmap2::{MmapRaw, UncheckedAdvice};

use crate::cache::places::{Place, Places, rounded};
use crate::limits::{PIECE_SIZE_BYTES, SLOT_SIZE_BYTES};
use crate::memory::Reservation;
use crate::store::device::Lent;

const PIECE: usize = PIECE_SIZE_BYTES as usize;
const SLOT: usize = SLOT_SIZE_BYTES as usize;

/// The mapping and who holds what of it. Shared by every `Bytes` that points into it.
pub(super) struct Slots {
    mapping: MmapRaw,
    places: Mutex<Places>,
    /// By piece of the mapping: how many allocations and pins keep it. Cells are not counted.
    holders: Box<[AtomicU32]>,
    /// Whether free memory is the system's again.
    returns: AtomicBool,
}

impl Slots {
    /// Maps `bytes`, rounded down to whole slots; pages cost memory when they are first written.
    pub(super) fn map(bytes: u64) -> io::Result<Arc<Slots>> {
        let slots = u32::try_from(bytes / SLOT_SIZE_BYTES).unwrap_or(u32::MAX);
        if slots == 0 {
            let why = format!("a ram tier of {bytes} bytes has no room for one slot");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        let mapping = map_memory(slots as usize * SLOT)?;
        let holders = (0..slots as usize * (SLOT / PIECE)).map(|_| AtomicU32::new(0)).collect();
        let (places, returns) = (Mutex::new(Places::new(slots)), AtomicBool::new(false));
        Ok(Arc::new(Slots { mapping, places, holders, returns }))
    }

    /// Room for `bytes` consecutive bytes, at least one and at most a slot.
    pub(super) fn allocate(self: &Arc<Slots>, bytes: u64) -> Option<Extent> {
        let bytes = usize::try_from(bytes).ok().filter(|bytes| (1..=SLOT).contains(bytes))?;
        let place = self.places().take(rounded(bytes))?;
        if place.bytes >= PIECE {
            self.hold(place);
        }
        let memory = Memory {
            slots: Arc::clone(self),
            start: place.start,
            bytes: AtomicUsize::new(place.bytes),
        };
        Some(Extent { memory: Arc::new(memory), written: 0 })
    }

    /// Where `bytes` starts in the mapping; `None` if it is empty or lies elsewhere.
    pub(super) fn offset_of(&self, bytes: &[u8]) -> Option<usize> {
        let offset = (bytes.as_ptr() as usize).checked_sub(self.mapping.as_ptr() as usize)?;
        (!bytes.is_empty() && offset < self.mapping.len()).then_some(offset)
    }

    /// What the allocator took for `bytes`: whole pieces, or cells; 0 if it lies elsewhere.
    pub(super) fn taken_bytes(&self, bytes: &Bytes) -> u64 {
        self.offset_of(bytes).map_or(0, |start| self.places().taken_bytes(start, bytes.len()))
    }

    /// Both as one, without a copy, if `right` starts where `left` ends in the mapping.
    pub(super) fn joined(self: &Arc<Slots>, left: &Bytes, right: &Bytes) -> Option<Bytes> {
        let start = self.offset_of(left)?;
        (start + left.len() == self.offset_of(right)?).then(|| {
            let parts = [left.clone(), right.clone()];
            Bytes::from_owner(Joined { slots: Arc::clone(self), start, parts })
        })
    }

    /// The same bytes, keeping the pieces they touch and no others of what they were cut from.
    pub(super) fn pinned(self: &Arc<Slots>, bytes: Bytes) -> Bytes {
        let Some(start) = self.offset_of(&bytes) else { return bytes };
        let Some(place) = self.touched(start, bytes.len()) else { return bytes };
        self.hold(place);
        Bytes::from_owner(Pinned { slots: Arc::clone(self), start, length: bytes.len() })
    }

    /// The pieces they keep so, in bytes; `None`: they are in a cell, or elsewhere.
    pub(super) fn kept_bytes(&self, bytes: &[u8]) -> Option<u64> {
        Some(self.touched(self.offset_of(bytes)?, bytes.len())?.bytes as u64)
    }

    /// The pieces that are touched; none by what is in a cell, which is no larger than it must be.
    fn touched(&self, start: usize, length: usize) -> Option<Place> {
        let place = Place::touched_by(start, length);
        let is_free = |holders: &AtomicU32| holders.load(Ordering::Relaxed) == 0;
        (!self.pieces_of(place).iter().any(is_free)).then_some(place)
    }

    fn pieces_of(&self, place: Place) -> &[AtomicU32] {
        &self.holders[place.start / PIECE..(place.start + place.bytes) / PIECE]
    }

    /// The caller has just taken the place, or holds bytes in each of its pieces.
    fn hold(&self, place: Place) {
        for holders in self.pieces_of(place) {
            // Relaxed is enough, as for `Arc`: whoever adds a holder has one.
            holders.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lets go of a place; the pieces nobody else keeps are free again.
    fn release(&self, place: Place) {
        if place.bytes < PIECE {
            return self.give_back(place);
        }
        let mut free = Place { start: place.start, bytes: 0 };
        for holders in self.pieces_of(place) {
            let piece = free.start + free.bytes;
            // What was joined may reach across slots, a run of pieces may not.
            if piece.is_multiple_of(SLOT) {
                self.give_back(free);
                free = Place { start: piece, bytes: 0 };
            }
            // Our reads come before it, and whoever frees the piece has seen all of them.
            if holders.fetch_sub(1, Ordering::AcqRel) == 1 {
                free.bytes += PIECE;
                continue;
            }
            self.give_back(free);
            free = Place { start: piece + PIECE, bytes: 0 };
        }
        self.give_back(free);
    }

    fn give_back(&self, place: Place) {
        if place.bytes == 0 {
            return;
        }
        if place.bytes >= PIECE && self.returns.load(Ordering::Relaxed) {
            let how = UncheckedAdvice::Remove;
            // SAFETY: nobody holds the place any more, and nobody has it before the last line.
            let returned =
                unsafe { self.mapping.unchecked_advise_range(how, place.start, place.bytes) };
            returned.expect("a part of the mapping can be returned");
        }
        self.places().give_back(place);
    }

    /// What becomes free from now on is the system's: a hole in the file, not the view's end alone.
    pub(super) fn return_what_is_free(&self) {
        self.returns.store(true, Ordering::Relaxed);
    }

    /// The size of the mapping.
    pub(super) fn mapping_bytes(&self) -> u64 {
        self.mapping.len() as u64
    }

    /// What is taken, and how many slots are entirely free.
    pub(super) fn usage(&self) -> (u64, u32) {
        let places = self.places();
        (places.pieces_taken_bytes(), places.slots_free())
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().expect("no thread panics while it changes the places")
    }
}

/// A file in memory, so that its pages can be sent from as a file; sealed, so that none can vanish.
#[cfg(not(miri))]
fn map_memory(bytes: usize) -> io::Result<MmapRaw> {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

    let file = memfd_create("tidegate-ram", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&file, bytes as u64)?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    let mapping = MmapRaw::map_raw(&std::fs::File::from(file))?;
    // A core dump is for the program's state, not for gigabytes of film.
    mapping.advise(memmap2::Advice::DontDump)?;
    Ok(mapping)
}

#[cfg(miri)]
fn map_memory(bytes: usize) -> io::Result<MmapRaw> {
    memmap2::MmapMut::map_anon(bytes).map(MmapRaw::from)
}

/// The single writer of consecutive bytes; they are readable, up to where it is, while it writes.
///
/// Dropping it (or `freeze`) gives whole unused pieces back at once, and what was written when the
/// last `Bytes` of it is gone.
#[derive(Debug)]
pub struct Extent {
    memory: Arc<Memory>,
    written: usize,
}

impl Extent {
    /// How many bytes fit: what was asked for, rounded up to whole pieces or to a cell.
    pub fn capacity_bytes(&self) -> u64 {
        self.memory.bytes.load(Ordering::Relaxed) as u64
    }

    /// How many bytes have been written.
    pub fn written_bytes(&self) -> u64 {
        self.written as u64
    }

    /// Writes as much of `bytes` as still fits and says how much that was.
    pub fn append(&mut self, bytes: &[u8]) -> usize {
        let room = self.memory.bytes.load(Ordering::Relaxed) - self.written;
        let taken = bytes.len().min(room);
        let at = self.memory.start + self.written;
        // SAFETY: `at..at + taken` lies inside this allocation, so inside the mapping. Only this
        // `Extent` writes to the allocation (it is not `Clone` and we hold it exclusively), and no
        // reference covers these bytes: `prefix` makes slices of what is written only, and this is
        // behind it. `bytes` can't overlap for the same reason.
        unsafe {
            let target = self.memory.slots.mapping.as_mut_ptr().add(at);
            target.copy_from_nonoverlapping(bytes.as_ptr(), taken);
        }
        self.written += taken;
        taken
    }

    /// What is written so far, shared, not copied.
    pub fn prefix(&self) -> Bytes {
        if self.written == 0 {
            return Bytes::new();
        }
        Bytes::from_owner(Written { memory: Arc::clone(&self.memory), length: self.written })
    }

    /// What was written, for good. A small body moves out of a place far too large for it.
    pub fn freeze(mut self) -> Bytes {
        self.give_back_unused();
        let written = self.prefix();
        let least = rounded(self.written) as u64;
        if self.written == 0 || least >= PIECE_SIZE_BYTES || least >= self.capacity_bytes() {
            return written;
        }
        let Some(mut cell) = self.memory.slots.allocate(least) else { return written };
        cell.append(&written);
        cell.prefix()
    }

    /// Lends all of it, whole pieces that nothing was written to yet, to a device that reads into
    /// it; [`Extent::returned`] takes it back. What it is reserved with stays with it: a device
    /// that is late may keep it long after nobody waits any more.
    pub fn lend(self, reserved: Reservation) -> Box<dyn Lent> {
        assert!(self.written == 0 && self.capacity_bytes() >= PIECE_SIZE_BYTES);
        Box::new(LentExtent { extent: self, reserved })
    }

    /// The extent that was lent, with its first `written_bytes` read into it. `None` if it is not
    /// one, or shorter.
    pub fn returned(lent: Box<dyn Lent>, written_bytes: usize) -> Option<(Extent, Reservation)> {
        let lent: Box<dyn Any> = lent;
        let LentExtent { mut extent, reserved } = *lent.downcast::<LentExtent>().ok()?;
        extent.written = written_bytes;
        (written_bytes as u64 <= extent.capacity_bytes()).then_some((extent, reserved))
    }

    /// Gives back the whole pieces that nothing was written to.
    fn give_back_unused(&mut self) {
        let taken = self.memory.bytes.load(Ordering::Relaxed);
        let kept = self.written.next_multiple_of(PIECE);
        if kept >= taken || taken < PIECE {
            return;
        }
        // Relaxed is enough: only this `Extent` changes the size, and `Memory` reads it when it is
        // dropped, which is after we have let go of it.
        self.memory.bytes.store(kept, Ordering::Relaxed);
        let unused = Place { start: self.memory.start + kept, bytes: taken - kept };
        self.memory.slots.release(unused);
    }
}

impl Drop for Extent {
    fn drop(&mut self) {
        self.give_back_unused();
    }
}

/// An extent that nothing was written to, while a device writes to it.
struct LentExtent {
    extent: Extent,
    reserved: Reservation,
}

// SAFETY: the allocation is whole pieces of the mapping, which is aligned to pages and initialised
// (a file in memory is zeros). It stays where it is while the extent lives, wherever that is moved,
// and nobody looks at it: `prefix` makes no slice of it before `returned`, which takes it back.
unsafe impl Lent for LentExtent {
    fn start(&self) -> NonNull<u8> {
        let Memory { slots, start, .. } = &*self.extent.memory;
        // SAFETY: the allocation lies inside the mapping.
        let start = unsafe { slots.mapping.as_mut_ptr().add(*start) };
        NonNull::new(start).expect("a mapping does not start at zero")
    }

    fn length_bytes(&self) -> usize {
        self.extent.memory.bytes.load(Ordering::Relaxed)
    }
}

/// One allocation; its place is free again when the writer and all readers have let go.
#[derive(Debug)]
struct Memory {
    slots: Arc<Slots>,
    start: usize,
    /// Shrinks once, when the writer leaves.
    bytes: AtomicUsize,
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.slots.release(Place { start: self.start, bytes: *self.bytes.get_mut() });
    }
}

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slots").field("mapping_bytes", &self.mapping.len()).finish()
    }
}

/// Owner of a prefix: the first `length` bytes of an allocation, all of them written.
struct Written {
    memory: Arc<Memory>,
    length: usize,
}

impl AsRef<[u8]> for Written {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: these bytes were written before this owner was made, and they are never written
        // again while it lives: the writer only goes forward from there, and the allocator gives
        // the place to nobody else before `memory` is dropped, which this owner keeps alive. So no
        // reference ever exists to memory that is still being written. The next owner's writes come
        // after our reads: the last `Arc` is dropped (acquire), then `places` is locked.
        unsafe {
            let start = self.memory.slots.mapping.as_ptr().add(self.memory.start);
            std::slice::from_raw_parts(start, self.length)
        }
    }
}

/// Owner of two parts that are neighbours in the mapping.
struct Joined {
    slots: Arc<Slots>,
    start: usize,
    parts: [Bytes; 2],
}

impl AsRef<[u8]> for Joined {
    fn as_ref(&self) -> &[u8] {
        let length = self.parts[0].len() + self.parts[1].len();
        // SAFETY: the slice is exactly the two parts, one behind the other in one mapping. Only the
        // two owners here make a `Bytes` that points into the mapping, so each part is written,
        // unchanging and given to nobody else for as long as we hold it.
        unsafe { std::slice::from_raw_parts(self.slots.mapping.as_ptr().add(self.start), length) }
    }
}

/// Owner of bytes cut from an allocation: keeps the pieces they touch, and not the rest.
struct Pinned {
    slots: Arc<Slots>,
    start: usize,
    length: usize,
}

impl AsRef<[u8]> for Pinned {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: it was made from a `Bytes` of exactly these bytes, so they are written and never
        // written again while their pieces are kept; we count as a holder of each of them, and a
        // piece is given to nobody else before its last holder has let go.
        unsafe {
            std::slice::from_raw_parts(self.slots.mapping.as_ptr().add(self.start), self.length)
        }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.slots.release(Place::touched_by(self.start, self.length));
    }
}

#[cfg(test)]
mod tests {
    use crate::memory::{Class, Governor, Use};
    use crate::store::device::Buffer;

    use super::*;

    fn taken(slots: &Slots) -> u64 {
        slots.usage().0
    }

    #[test]
    fn a_mapping_without_room_for_a_slot_is_refused() {
        assert_eq!(
            Slots::map(SLOT_SIZE_BYTES - 1).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
        assert_eq!(Slots::map(3 * SLOT_SIZE_BYTES + 7).unwrap().mapping_bytes(), 3 << 20);
    }

    #[test]
    fn nothing_and_more_than_a_slot_get_no_room() {
        let slots = Slots::map(2 << 20).unwrap();
        assert!(slots.allocate(0).is_none());
        assert!(slots.allocate((1 << 20) + 1).is_none());
        assert!(slots.allocate(u64::MAX).is_none());
        assert!(slots.allocate(1 << 20).is_some());
    }

    #[test]
    fn a_prefix_is_what_was_written_and_stays_as_it_was() {
        let slots = Slots::map(1 << 20).unwrap();
        let mut extent = slots.allocate(100_000).unwrap();
        assert_eq!(extent.capacity_bytes(), 2 * PIECE_SIZE_BYTES);
        assert!(extent.prefix().is_empty());
        assert_eq!(extent.append(b"abc"), 3);
        let abc = extent.prefix();
        assert_eq!(extent.append(&[b'd'; 200_000]), 2 * PIECE - 3);
        assert_eq!(extent.append(b"no room"), 0);
        assert_eq!(extent.written_bytes(), 2 * PIECE_SIZE_BYTES);
        assert_eq!(abc, &b"abc"[..]);
        let all = extent.freeze();
        assert!(all.starts_with(b"abcd") && all.len() == 2 * PIECE);
        assert_eq!(all.as_ptr(), abc.as_ptr());
    }

    #[test]
    fn what_a_device_read_into_an_extent_is_in_it() {
        let slots = Slots::map(1 << 20).unwrap();
        let governor = Governor::new(1 << 20, 0, Arc::default());
        let reserved = || governor.try_reserve(Use::Ssd, Class::Miss, 1).unwrap();
        let lent = slots.allocate(2 * PIECE_SIZE_BYTES).unwrap().lend(reserved());
        let mut lent = Buffer::Lent(lent);
        lent.bytes_mut().unwrap()[..PIECE + 1].fill(7);
        assert_eq!((lent.length_bytes(), taken(&slots)), (2 * PIECE, 2 * PIECE_SIZE_BYTES));
        let Buffer::Lent(lent) = lent else { unreachable!() };
        let (extent, _reserved) = Extent::returned(lent, PIECE + 1).unwrap();
        let bytes = extent.freeze();
        assert_eq!(bytes, vec![7; PIECE + 1]);
        drop(bytes);
        assert_eq!(taken(&slots), 0);
        let lent = slots.allocate(PIECE_SIZE_BYTES).unwrap().lend(reserved());
        assert!(Extent::returned(lent, PIECE + 1).is_none(), "more than there is room for");
    }

    #[test]
    fn what_is_given_back_is_no_longer_there() {
        let slots = Slots::map(1 << 20).unwrap();
        let governor = Governor::new(1 << 20, 0, Arc::default());
        let filled_before = |fill: u8| {
            let reserved = governor.try_reserve(Use::Ssd, Class::Miss, 1).unwrap();
            let mut lent = Buffer::Lent(slots.allocate(1 << 20).unwrap().lend(reserved));
            let bytes = lent.bytes_mut().unwrap();
            let before = [bytes[0], bytes[SLOT - 1]];
            bytes.fill(fill);
            before
        };
        assert_eq!([filled_before(1), filled_before(2)], [[0; 2], [1; 2]]);
        slots.return_what_is_free();
        assert_eq!([filled_before(3), filled_before(4)], [[2; 2], [0; 2]]);
    }

    #[test]
    fn memory_returns_with_the_last_bytes_of_it() {
        let slots = Slots::map(1 << 20).unwrap();
        let mut extent = slots.allocate(1 << 20).unwrap();
        extent.append(&[1; 3 * PIECE + 1]);
        let prefix = extent.prefix();
        assert_eq!(taken(&slots), 1 << 20);
        let frozen = extent.freeze();
        assert_eq!(taken(&slots), 4 * PIECE_SIZE_BYTES, "unused pieces return at once");
        drop(prefix);
        let slice = frozen.slice(5..6);
        drop(frozen);
        assert_eq!(taken(&slots), 4 * PIECE_SIZE_BYTES);
        drop(slice);
        assert_eq!(taken(&slots), 0);
        drop(slots.allocate(PIECE_SIZE_BYTES).unwrap());
        assert_eq!(slots.usage(), (0, 1), "an extent that nothing was written to");
    }

    #[test]
    fn a_pin_keeps_its_own_pieces_of_what_it_was_cut_from() {
        let slots = Slots::map(1 << 20).unwrap();
        let mut extent = slots.allocate(1 << 20).unwrap();
        extent.append(&(0..1 << 20).map(|at| (at / PIECE) as u8).collect::<Vec<u8>>());
        let whole = extent.freeze();
        let two = slots.pinned(whole.slice(3 * PIECE - 1..3 * PIECE + 1));
        let again = slots.pinned(two.slice(1..));
        let last = slots.pinned(whole.slice(16 * PIECE - 1..));
        assert_eq!((two.as_ptr(), two.len()), (whole[3 * PIECE - 1..].as_ptr(), 2));
        assert_eq!(taken(&slots), 1 << 20);
        drop(whole);
        assert_eq!(taken(&slots), 3 * PIECE_SIZE_BYTES);
        let mut others = slots.allocate(11 * PIECE_SIZE_BYTES).unwrap();
        others.append(&[77; 11 * PIECE]);
        assert_eq!((&two[..], &again[..], &last[..]), (&[2, 3][..], &[3][..], &[15][..]));
        drop(two);
        assert_eq!(taken(&slots), 13 * PIECE_SIZE_BYTES);
        drop((again, last, others));
        assert_eq!(slots.usage(), (0, 1));

        let mut cell = slots.allocate(1000).unwrap();
        cell.append(b"abc");
        let pinned = slots.pinned(cell.freeze().slice(1..));
        assert_eq!((&pinned[..], taken(&slots)), (&b"bc"[..], PIECE_SIZE_BYTES));
        drop(pinned);
        assert_eq!(taken(&slots), 0);
        assert_eq!(slots.pinned(Bytes::from_static(b"x")), "x");
    }

    #[test]
    fn a_pin_across_the_border_of_two_slots_returns_to_both() {
        let slots = Slots::map(2 << 20).unwrap();
        let rest = slots.allocate(14 * PIECE_SIZE_BYTES).unwrap();
        let [mut left, mut right] = [(); 2].map(|()| slots.allocate(2 * PIECE_SIZE_BYTES).unwrap());
        left.append(&[1; 2 * PIECE]);
        right.append(&[2; 2 * PIECE]);
        let both = slots.joined(&left.prefix(), &right.prefix()).unwrap();
        let pinned = slots.pinned(both.slice(PIECE..3 * PIECE));
        drop((left, right, both, rest));
        assert_eq!(taken(&slots), 2 * PIECE_SIZE_BYTES);
        assert_eq!((pinned[PIECE - 1], pinned[PIECE]), (1, 2));
        drop(pinned);
        assert_eq!(slots.usage(), (0, 2));
    }

    #[test]
    fn a_small_body_in_a_large_place_moves_to_a_cell() {
        let slots = Slots::map(1 << 20).unwrap();
        let mut extent = slots.allocate(1 << 20).unwrap();
        extent.append(&[7; 1500]);
        let body = extent.freeze();
        assert_eq!((slots.taken_bytes(&body), taken(&slots)), (2048, PIECE_SIZE_BYTES));
        assert_eq!(body, &[7; 1500][..]);
        // No place to move to: it stays where it is.
        let _rest = slots.allocate(14 << 16).unwrap();
        let mut last = slots.allocate(1 << 16).unwrap();
        last.append(&[8; 32 << 10]);
        assert_eq!(slots.taken_bytes(&last.freeze()), PIECE_SIZE_BYTES);
    }

    #[test]
    fn neighbours_are_joined_without_a_copy() {
        let slots = Slots::map(1 << 20).unwrap();
        let [mut a, mut b, mut c] = [(); 3].map(|()| slots.allocate(PIECE_SIZE_BYTES).unwrap());
        a.append(&[1; PIECE]);
        b.append(&[2; 100]);
        c.append(&[3; PIECE]);
        let [a, b, c] = [a, b, c].map(|extent| extent.prefix());
        let both = slots.joined(&a, &b).unwrap();
        assert_eq!((both.as_ptr(), both.len()), (a.as_ptr(), PIECE + 100));
        assert_eq!((both[PIECE - 1], both[PIECE], both[PIECE + 99]), (1, 2, 2));
        assert!(slots.joined(&both, &c).is_none(), "a gap lies between them");
        assert!(slots.joined(&b, &a).is_none(), "the wrong way round");
        assert!(slots.joined(&Bytes::from_static(b"x"), &a).is_none());
        assert!(slots.joined(&a, &Bytes::new()).is_none());
        drop((a, b));
        assert_eq!(taken(&slots), 3 * PIECE_SIZE_BYTES);
        drop(both);
        assert_eq!(taken(&slots), PIECE_SIZE_BYTES);
    }
}
