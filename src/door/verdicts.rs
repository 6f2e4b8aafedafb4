//! What has been verified, by the token's text: a signature is checked once, not for each request.
//!
//! What cannot be verified is not kept: anybody can make as much of it as he likes.

use std::fmt;
use std::sync::Arc;

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

/// Verified tokens of one kind, of bounded bytes.
pub(super) struct Verdicts<V>(Cache<Box<str>, Kept<V>, Bytes>);

/// One, with what it takes.
struct Kept<V> {
    verified: Arc<V>,
    bytes: usize,
}

impl<V> Clone for Kept<V> {
    fn clone(&self) -> Kept<V> {
        Kept { verified: self.verified.clone(), bytes: self.bytes }
    }
}

impl<V> fmt::Debug for Verdicts<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} verdicts", self.0.len())
    }
}

/// What one takes, in bytes.
#[derive(Clone)]
struct Bytes;

impl<V> Weighter<Box<str>, Kept<V>> for Bytes {
    fn weight(&self, token: &Box<str>, kept: &Kept<V>) -> u64 {
        (token.len() + kept.bytes) as u64 + ENTRY_BYTES
    }
}

impl<V> Verdicts<V> {
    pub(super) fn of_bytes(bytes: u64) -> Verdicts<V> {
        // A part takes the largest there can be many times.
        let parts = (bytes / PART_BYTES_MIN).clamp(1, PARTS_MAX) as usize;
        let usual = (bytes / USUAL_BYTES) as usize;
        let options = OptionsBuilder::new()
            .shards(parts)
            .estimated_items_capacity(usual.max(16))
            .weight_capacity(bytes)
            .build()
            .expect("all that there has to be was said");
        Verdicts(Cache::with_options(
            options,
            Bytes,
            DefaultHashBuilder::default(),
            DefaultLifecycle::default(),
        ))
    }

    /// What is kept of a token, or is found now: with what it takes in memory, in bytes.
    ///
    /// # Errors
    /// It lets nobody in, whatever is asked for.
    pub(super) fn of<E>(
        &self,
        token: &str,
        verify: impl FnOnce() -> Result<(V, usize), E>,
    ) -> Result<Arc<V>, E> {
        if let Some(kept) = self.0.get(token) {
            return Ok(kept.verified);
        }
        let (verified, bytes) = verify()?;
        let verified = Arc::new(verified);
        self.0.insert(token.into(), Kept { verified: verified.clone(), bytes });
        Ok(verified)
    }
}

/// A token of a few claims, with all that is kept of it.
const USUAL_BYTES: u64 = 4 << 10;
/// Each part has a lock of its own.
const PARTS_MAX: u64 = 64;
const PART_BYTES_MIN: u64 = 2 << 20;
/// In the cache, beside what it holds.
const ENTRY_BYTES: u64 = 128;
