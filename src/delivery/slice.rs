//! The parts a body is sent in, and what of it is still to come.

use std::rc::Rc;

use bytes::{Buf, Bytes};

use crate::memory::Reservation;
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
}
