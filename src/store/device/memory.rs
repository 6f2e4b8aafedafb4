//! Memory for transfers: aligned, at a fixed address, the device's alone while it is handed over.

// What is handed to the kernel must be known by address and length. Everything unsafe of it is in
// this file.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::any::Any;
use std::fmt;
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;

use bytes::Bytes;

use crate::limits::GRANULE_SIZE_BYTES;

/// Memory that somebody lends to a device for one read.
///
/// # Safety
/// `start` is aligned to a granule, `length_bytes` a multiple of one. From when it is handed over
/// until it is dropped or given back, the memory stays valid for reads and writes at this address,
/// wherever the value itself is moved, and nobody else looks at it. It is initialised.
pub unsafe trait Lent: Any + Send {
    /// The first byte.
    fn start(&self) -> NonNull<u8>;

    /// How many bytes.
    fn length_bytes(&self) -> usize;
}

/// Memory of a transfer. Its length is a multiple of a granule.
pub enum Buffer {
    /// On the heap.
    Own(Granules),
    /// Somebody else's, for reads.
    Lent(Box<dyn Lent>),
    /// The start of somebody else's, so many bytes of it.
    LentStart(Box<dyn Lent>, usize),
    /// Shared, for writes; its address is aligned to a granule too.
    Shared(Bytes),
}

impl Buffer {
    /// `bytes` as they are, if they can be written from there; `None` if they are not aligned.
    pub fn shared(bytes: Bytes) -> Option<Buffer> {
        let granule = GRANULE_SIZE_BYTES as usize;
        let aligned = (bytes.as_ptr() as usize).is_multiple_of(granule);
        (aligned && bytes.len().is_multiple_of(granule)).then_some(Buffer::Shared(bytes))
    }

    /// How many bytes.
    pub fn length_bytes(&self) -> usize {
        self.bytes().len()
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Buffer::Own(granules) => granules.bytes(),
            // SAFETY: valid and initialised as `Lent` promises, and nobody writes while we hold it.
            Buffer::Lent(lent) => unsafe {
                slice::from_raw_parts(lent.start().as_ptr(), lent.length_bytes())
            },
            // SAFETY: as above, and no more than it has.
            Buffer::LentStart(lent, length) => unsafe {
                let length = (*length).min(lent.length_bytes());
                slice::from_raw_parts(lent.start().as_ptr(), length)
            },
            Buffer::Shared(bytes) => bytes,
        }
    }

    /// The bytes, to be filled; `None` if they are shared.
    pub fn bytes_mut(&mut self) -> Option<&mut [u8]> {
        match self {
            Buffer::Own(granules) => Some(granules.bytes_mut()),
            // SAFETY: as above; nobody else looks at it, and we hold it exclusively.
            Buffer::Lent(lent) => Some(unsafe {
                slice::from_raw_parts_mut(lent.start().as_ptr(), lent.length_bytes())
            }),
            // SAFETY: as above, and no more than it has.
            Buffer::LentStart(lent, length) => Some(unsafe {
                let length = (*length).min(lent.length_bytes());
                slice::from_raw_parts_mut(lent.start().as_ptr(), length)
            }),
            Buffer::Shared(_) => None,
        }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Buffer::Own(_) => "own",
            Buffer::Lent(_) | Buffer::LentStart(..) => "lent",
            Buffer::Shared(_) => "shared",
        };
        write!(f, "{kind} {} bytes", self.length_bytes())
    }
}

/// Whole granules on the heap, aligned, zeroed when made.
pub struct Granules {
    start: NonNull<u8>,
    length: usize,
    /// Dropped with it.
    guard: Option<Arc<dyn Send + Sync>>,
}

// SAFETY: it owns its memory, as a `Vec` does.
unsafe impl Send for Granules {}
// SAFETY: shared references only read.
unsafe impl Sync for Granules {}

impl Granules {
    /// `count` granules, one at least.
    pub fn zeroed(count: usize) -> Granules {
        let length = count.max(1) * GRANULE_SIZE_BYTES as usize;
        let layout = Granules::layout(length);
        // SAFETY: the layout is not empty.
        let start = unsafe { alloc_zeroed(layout) };
        let start = NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout));
        Granules { start, length, guard: None }
    }

    /// It, with what it is reserved with.
    pub fn guarded(self, guard: Arc<dyn Send + Sync>) -> Granules {
        let mut granules = self;
        granules.guard = Some(guard);
        granules
    }

    /// As many granules as `bytes` need; the rest is zero.
    pub fn holding(bytes: &[u8]) -> Granules {
        let mut granules = Granules::zeroed(bytes.len().div_ceil(GRANULE_SIZE_BYTES as usize));
        granules.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
        granules
    }

    /// All of it.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: allocated with this length and initialised.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }

    /// All of it, to be changed.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and we hold it exclusively.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }

    fn layout(length: usize) -> Layout {
        Layout::from_size_align(length, GRANULE_SIZE_BYTES as usize)
            .expect("a buffer is far smaller than the address space")
    }
}

// SAFETY: aligned to a granule, on the heap, initialised, and exclusively held by whoever has it.
unsafe impl Lent for Granules {
    fn start(&self) -> NonNull<u8> {
        self.start
    }

    fn length_bytes(&self) -> usize {
        self.length
    }
}

impl Drop for Granules {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and not freed before.
        unsafe { dealloc(self.start.as_ptr(), Granules::layout(self.length)) }
    }
}

impl fmt::Debug for Granules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.length)
    }
}

impl AsRef<[u8]> for Granules {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn granules_are_aligned_and_padded_with_zeros() {
        let granules = Granules::holding(&[7; 5000]);
        assert_eq!(granules.bytes().len(), 8192);
        assert!((granules.bytes().as_ptr() as usize).is_multiple_of(4096));
        assert_eq!(&granules.bytes()[..5000], &[7; 5000]);
        assert!(granules.bytes()[5000..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn only_aligned_bytes_are_written_from_where_they_are() {
        let aligned = Bytes::from_owner(Granules::zeroed(2));
        assert!(Buffer::shared(aligned.slice(..4096)).is_some());
        assert!(Buffer::shared(aligned.slice(1..4097)).is_none());
        assert!(Buffer::shared(aligned.slice(..100)).is_none());
    }
}
