//! What admission knows, as bytes: kept with a volume's checkpoint, so that a restart forgets
//! nothing.
//!
//! A header with the sizes, then the words of the tables. What was written for other sizes is
//! refused whole. The caller's checkpoint has the checksum.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::cache::admission::{Admission, AdmissionSizes};

/// The first word: what follows, and its format.
const MAGIC: u64 = u64::from_le_bytes(*b"tgadmit1");
const HEADER_WORDS: usize = 6;

/// Why what was saved can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SavedError {
    /// It is something else, or of another format.
    Unknown {
        /// Its first eight bytes, little endian.
        magic: u64,
    },
    /// It was saved for another size of the volume.
    OtherSizes {
        /// What it was saved for.
        saved: AdmissionSizes,
        /// What the volume is.
        wanted: AdmissionSizes,
    },
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
            SavedError::Unknown { magic } => {
                write!(f, "what admission knew begins with {magic:#018x} instead of {MAGIC:#018x}")
            }
            SavedError::OtherSizes { saved, wanted } => write!(
                f,
                "what admission knew is of {} bytes and {} blocks, the volume of {} and {}",
                saved.volume_bytes, saved.blocks_max, wanted.volume_bytes, wanted.blocks_max
            ),
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
        let length = SavedError::Length { bytes: saved.len(), wanted: self.saved_bytes() };
        let word = |at: usize| {
            let bytes = saved.get(at * 8..at * 8 + 8).ok_or(length)?;
            Ok(u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
        };
        let magic = word(0)?;
        if magic != MAGIC {
            return Err(SavedError::Unknown { magic });
        }
        let sizes = AdmissionSizes { volume_bytes: word(1)?, blocks_max: word(2)? };
        if sizes != self.sizes {
            return Err(SavedError::OtherSizes { saved: sizes, wanted: self.sizes });
        }
        if saved.len() != self.saved_bytes() {
            return Err(length);
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
