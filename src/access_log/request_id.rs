//! Request ids: what a viewer's request, its log line and the origin requests it caused share.
//!
//! Sixteen bytes, written as 32 hex digits: each thread starts at a random number and counts on, so
//! an id costs an addition and no two requests of a fleet share one. Ids say nothing of a viewer.

use std::cell::Cell;
use std::fmt;
use std::hash::{BuildHasher, RandomState};

use http::HeaderValue;
use http::header::HeaderName;

/// The field that carries the id to an origin.
pub const FIELD: HeaderName = HeaderName::from_static("x-request-id");

/// The id of one viewer's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId(u128);

impl RequestId {
    /// The next id of this thread.
    pub fn assign() -> RequestId {
        thread_local! {
            static NEXT: Cell<u128> = Cell::new(random_start());
        }
        NEXT.with(|next| {
            let id = next.get();
            next.set(id.wrapping_add(1));
            RequestId(id)
        })
    }

    /// The id as a field value.
    pub fn to_header_value(self) -> HeaderValue {
        HeaderValue::from_str(self.to_text().as_text()).expect("hex digits are a field value")
    }

    /// Its 32 hex digits.
    pub(super) fn to_text(self) -> Ascii<32> {
        let mut text = [0; 32];
        for (digits, byte) in text.as_chunks_mut().0.iter_mut().zip(self.0.to_be_bytes()) {
            *digits = [byte >> 4, byte & 15].map(|half| b"0123456789abcdef"[usize::from(half)]);
        }
        Ascii(text)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_text().as_text())
    }
}

/// A text of so many ASCII characters.
pub(super) struct Ascii<const LENGTH: usize>(pub(super) [u8; LENGTH]);

impl<const LENGTH: usize> Ascii<LENGTH> {
    pub(super) fn as_text(&self) -> &str {
        str::from_utf8(&self.0).expect("ASCII is UTF-8")
    }
}

/// From the standard library's hash keys, which the system's random source seeds.
fn random_start() -> u128 {
    let half = || u128::from(RandomState::new().hash_one(0));
    half() << 64 | half()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_unique_also_across_threads_and_written_as_32_hex_digits() {
        let some = || (0..1_000).map(|_| RequestId::assign()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..8).map(|_| std::thread::spawn(some)).collect();
        let ids: HashSet<_> = threads.into_iter().flat_map(|it| it.join().unwrap()).collect();
        assert_eq!(ids.len(), 8_000);
        for id in ids {
            let text = id.to_header_value();
            assert_eq!(text.len(), 32);
            assert!(text.as_bytes().iter().all(u8::is_ascii_hexdigit), "{text:?}");
        }
        assert_eq!(RequestId(0xab).to_string(), "000000000000000000000000000000ab");
    }
}
