//! What admission knows, as bytes: kept with a volume's checkpoint, so that a restart forgets
//! nothing.
//!
//! A header with the sizes, then the words of the tables. What was written for other sizes is
//! refused whole. The caller's checkpoint has the checksum.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::cache::admission::Admission;

/// The first word: what follows, and its format.
const MAGIC: u64 = u64::from_le_bytes(*b"tgadmit1");
const HEADER_WORDS: usize = 6;

/// Why what was saved can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SavedError {
    /// It is something else, or of another format.
    Unknown,
    /// It was saved for another size of the volume.
    OtherSizes,
    /// It has another length than its sizes say.
    Length {
        /// Bytes there are.
        bytes: usize,
        /// Bytes there should be.
        wanted: usize,
    },
}

impl fmt::Display for SavedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SavedError::Unknown => write!(f, "what admission knew has an unknown format"),
            SavedError::OtherSizes => write!(f, "what admission knew is of another size"),
            SavedError::Length { bytes, wanted } => {
                write!(f, "what admission knew has {bytes} bytes instead of {wanted}")
            }
        }
    }
}

impl std::error::Error for SavedError {}

impl Admission {
    /// What is known now; bits set meanwhile may be in it or not.
    pub fn save(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.saved_bytes());
        let header = [
            MAGIC,
            self.sizes.volume_bytes,
            self.sizes.blocks_max,
            self.used_share.load(Ordering::Relaxed),
            self.budget.left_bytes().to_bits(),
            u64::from(self.strictness().number()),
        ];
        bytes.extend(header.iter().flat_map(|word| word.to_le_bytes()));
        let words = self.words().map(|word| word.load(Ordering::Relaxed));
        words.for_each(|word| bytes.extend(word.to_le_bytes()));
        bytes
    }

    /// Takes over what was saved; nothing is changed when it does not fit.
    ///
    /// # Errors
    /// Why it does not fit: then this starts without.
    pub fn restore(&self, saved: &[u8]) -> Result<(), SavedError> {
        let word = |at: usize| {
            let bytes = saved.get(at * 8..at * 8 + 8).ok_or(SavedError::Unknown)?;
            Ok(u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
        };
        if word(0)? != MAGIC {
            return Err(SavedError::Unknown);
        }
        if (word(1)?, word(2)?) != (self.sizes.volume_bytes, self.sizes.blocks_max) {
            return Err(SavedError::OtherSizes);
        }
        let wanted = self.saved_bytes();
        if saved.len() != wanted {
            return Err(SavedError::Length { bytes: saved.len(), wanted });
        }
        let used_share = f64::from_bits(word(3)?);
        if (0.0..=1.0).contains(&used_share) {
            self.used_share.store(used_share.to_bits(), Ordering::Relaxed);
        }
        self.budget.carry_over(f64::from_bits(word(4)?), word(5)?);
        for (at, to) in self.words().enumerate() {
            to.store(word(HEADER_WORDS + at)?, Ordering::Relaxed);
        }
        Ok(())
    }

    fn words(&self) -> impl Iterator<Item = &AtomicU64> {
        self.sights.words().chain(self.titles.words())
    }

    fn saved_bytes(&self) -> usize {
        (HEADER_WORDS + self.sights.word_count() + self.titles.word_count()) * 8
    }
}
