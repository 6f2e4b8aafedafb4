//! What has been verified, by the token's text: a signature is checked once, not for each request.
//!
//! What cannot be verified is not kept: anybody can make as much of it as he likes.

use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::token::key_file::Keys;
use crate::token::uri_signing::{Denied, Settings, Verified};

/// Verified tokens, of bounded bytes.
pub(super) struct Verdicts(Cache<Box<str>, Arc<Verified>, Bytes>);

impl std::fmt::Debug for Verdicts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} verdicts", self.0.len())
    }
}

/// What one takes, in bytes.
#[derive(Clone)]
struct Bytes;

impl Weighter<Box<str>, Arc<Verified>> for Bytes {
    fn weight(&self, token: &Box<str>, verified: &Arc<Verified>) -> u64 {
        (token.len() + verified.bytes()) as u64 + ENTRY_BYTES
    }
}

impl Verdicts {
    pub(super) fn of_bytes(bytes: u64) -> Verdicts {
        let usual = (bytes / USUAL_BYTES) as usize;
        Verdicts(Cache::with_weighter(usual.max(16), bytes, Bytes))
    }

    /// # Errors
    /// It lets nobody in, whatever is asked for.
    pub(super) fn of(
        &self,
        token: &str,
        keys: &Keys,
        settings: &Settings,
    ) -> Result<Arc<Verified>, Denied> {
        if let Some(verified) = self.0.get(token) {
            return Ok(verified);
        }
        let verified = Arc::new(Verified::of(token, keys, settings)?);
        self.0.insert(token.into(), verified.clone());
        Ok(verified)
    }
}

/// A token of a few claims, with all that is kept of it.
const USUAL_BYTES: u64 = 4 << 10;
/// In the cache, beside what it holds.
const ENTRY_BYTES: u64 = 128;
