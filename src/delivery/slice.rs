//! The parts a body is sent in: what each keeps of ram, how large the next may be, and what is
//! still to come.

use std::rc::{Rc, Weak};
use std::time::Duration;

use bytes::{Buf, Bytes};

use crate::cache::ram::Footprint;
use crate::limits::PIECE_SIZE_BYTES;
use crate::memory::{Class, OfSite, Reservation, Use};
use crate::metrics::labels::Tier;
use crate::object::ByteRange;

/// Bytes pinned for a connection; released when it has sent them.
pub struct Slice {
    pub(super) bytes: Bytes,
    /// Where they came from.
    pub tier: Tier,
    pub(super) reserved: Rc<Reservation>,
}

impl Slice {
    /// Cuts off the first `length` bytes; both parts share the reservation.
    pub fn split_to(&mut self, length: usize) -> Slice {
        let bytes = self.bytes.split_to(length);
        Slice { bytes, tier: self.tier, reserved: self.reserved.clone() }
    }
}

impl Buf for Slice {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        self.bytes.copy_to_bytes(length)
    }
}

/// What the slices of one body have reserved.
#[derive(Default)]
pub(super) struct Pins {
    /// The piece of ram that the last one ended in, as long as any of it is kept.
    last: Option<(u64, Weak<Reservation>)>,
    /// What was waited for, until the next slice takes it.
    pub(super) granted: Option<Reservation>,
}

impl Pins {
    /// Reserves what the next slice keeps of ram. Many slices of a piece keep it once.
    pub(super) fn reserve(
        &mut self,
        governor: OfSite<'_>,
        class: Class,
        kept: Footprint,
    ) -> Option<Rc<Reservation>> {
        let again = self.last.as_ref().filter(|(last, _)| kept.pieces == Some((*last, *last)));
        if let Some(reserved) = again.and_then(|(_, reserved)| reserved.upgrade()) {
            self.granted = None;
            return Some(reserved);
        }
        let reserved = match self.granted.take_if(|granted| kept.bytes <= granted.bytes()) {
            Some(mut granted) => {
                granted.shrink_to(kept.bytes);
                granted
            }
            None => governor.try_reserve(Use::Client, class, kept.bytes)?,
        };
        self.granted = None;
        let reserved = Rc::new(reserved);
        self.last = kept.pieces.map(|(_, last)| (last, Rc::downgrade(&reserved)));
        Some(reserved)
    }
}

/// How large the next slice may be, in bytes, `most` at most: twice the last when the socket asked
/// for more at once.
pub(super) fn next_length(last: u64, waited: Option<Duration>, most: u64) -> u64 {
    let last = last.max(PIECE_SIZE_BYTES);
    match waited {
        Some(waited) if waited < KEEPS_UP => (last * 2).min(most),
        Some(waited) if waited > FALLS_BEHIND => PIECE_SIZE_BYTES,
        None | Some(_) => last,
    }
}

/// What the rest of a body is.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// The next byte's offset in the version.
    pub position: u64,
    /// One past the last byte; `None` while the object's length is not known.
    pub end: Option<u64>,
}

impl Span {
    /// All of a range.
    pub(super) fn of(range: ByteRange) -> Span {
        Span { position: range.start(), end: Some(range.end()) }
    }

    /// How many bytes there are of it, at most.
    pub(super) fn left(self) -> u64 {
        self.end.map_or(u64::MAX, |end| end - self.position)
    }
}

/// A socket that asks for the next slice within this time keeps up.
const KEEPS_UP: Duration = Duration::from_millis(50);
/// A socket that takes longer than this for a slice gets one piece at a time.
const FALLS_BEHIND: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use crate::memory::Governor;
    use crate::object::SiteId;

    use super::*;

    #[test]
    fn a_slice_grows_while_the_socket_keeps_up_and_is_one_piece_where_it_falls_behind() {
        const PIECE: u64 = PIECE_SIZE_BYTES;
        let after = |millis| Some(Duration::from_millis(millis));
        for (last, waited, expected) in [
            (0, None, PIECE),
            (PIECE, after(49), 2 * PIECE),
            (4 * PIECE, after(0), 5 * PIECE),
            (4 * PIECE, after(50), 4 * PIECE),
            (4 * PIECE, after(500), 4 * PIECE),
            (4 * PIECE, after(501), PIECE),
        ] {
            assert_eq!(next_length(last, waited, 5 * PIECE), expected, "{last} {waited:?}");
        }
    }

    #[test]
    fn many_slices_of_a_piece_keep_it_once() {
        const PIECE: u64 = PIECE_SIZE_BYTES;
        let governor = Governor::new(4 * PIECE, 0, Default::default());
        let mut pins = Pins::default();
        let mut slice = |first, last| {
            let pieces = Some((first, last));
            let kept = Footprint { bytes: (last - first + 1) * PIECE, pieces };
            pins.reserve(governor.of(SiteId(0)), Class::Viewer, kept)
        };
        let used = || governor.used_bytes(Use::Client);
        let first: Vec<_> = (0..40).map(|_| slice(7, 7).unwrap()).collect();
        assert_eq!(used(), PIECE);
        let across = slice(7, 8).unwrap();
        assert_eq!(used(), 3 * PIECE);
        let second = slice(8, 8).unwrap();
        assert!(Rc::ptr_eq(&across, &second), "it is kept by who ended in it");
        drop(first);
        assert_eq!(used(), 2 * PIECE);
        drop((across, second));
        assert_eq!(used(), 0);
        drop(slice(8, 8));
        assert_eq!(used(), 0, "what was let go of is reserved anew");
        assert!(slice(0, 4).is_none());
    }

    #[test]
    fn what_was_waited_for_is_what_the_next_slice_keeps() {
        const PIECE: u64 = PIECE_SIZE_BYTES;
        let governor = Governor::new(4 * PIECE, 0, Default::default());
        let of = governor.of(SiteId(0));
        let (mut pins, mut held) = (Pins::default(), Vec::new());
        pins.granted = of.try_reserve(Use::Client, Class::Viewer, PIECE);
        held.extend((0..3).map(|_| of.try_reserve(Use::Client, Class::Viewer, PIECE).unwrap()));
        let mut slice = |bytes, pieces| {
            pins.reserve(of, Class::Viewer, Footprint { bytes, pieces }).map(|kept| kept.bytes())
        };
        assert_eq!(slice(2 * PIECE, Some((1, 2))), None, "there is no more");
        assert_eq!(slice(1_000, None), Some(1_000), "and this is his");
        assert_eq!(governor.used_bytes(Use::Client), 3 * PIECE);
        assert_eq!(slice(PIECE, Some((1, 1))), Some(PIECE));

        pins.granted = of.try_reserve(Use::Client, Class::Viewer, PIECE);
        let small = Footprint { bytes: 10, pieces: Some((2, 2)) };
        assert!(pins.reserve(of, Class::Viewer, small).is_some());
        held.clear();
        assert_eq!(governor.used_bytes(Use::Client), 0, "nothing is left over");
    }
}
