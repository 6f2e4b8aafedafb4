//! What a volume says of itself, read beside whoever has it open.
//!
//! Its superblock is written when it is made and stays as it is, so no lock is needed, and none is
//! taken: an appliance that starts meanwhile finds its volume free. Blocks.

use std::fmt;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::limits::GRANULE_SIZE_BYTES;
use crate::store::device::{self, DeviceError, OpenError};
use crate::store::format::{Superblock, superblock_places};

use super::SurveyError;

/// Why nothing is known of what is at a path.
#[derive(Debug)]
pub enum GlanceError {
    /// It can't be opened.
    Open(OpenError),
    /// What is there is no volume that this version can read.
    Survey {
        /// Where.
        path: PathBuf,
        /// What is wrong with it.
        source: SurveyError,
    },
}

impl fmt::Display for GlanceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GlanceError::Open(source) => source.fmt(f),
            GlanceError::Survey { path, source } => f.write_str(&source.told_of(path)),
        }
    }
}

impl std::error::Error for GlanceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            GlanceError::Open(source) => Some(source),
            GlanceError::Survey { source, .. } => Some(source),
        }
    }
}

/// The superblock of the volume at `path`.
///
/// # Errors
/// There is nothing to read, or no volume that this version can use.
pub fn glance(path: &Path) -> Result<Superblock, GlanceError> {
    let (file, size_bytes) = device::look(path).map_err(GlanceError::Open)?;
    let wrong = |source| GlanceError::Survey { path: path.to_owned(), source };
    let (mut copies, mut failed) = (Vec::new(), None);
    for at in superblock_places(size_bytes) {
        let mut granule = [0; GRANULE_SIZE_BYTES as usize];
        match file.read_exact_at(&mut granule, at) {
            Ok(()) => copies.push((at, granule)),
            Err(error) => failed = Some(SurveyError::Device(DeviceError::Failed(error))),
        }
    }
    let found: Vec<(u64, &[u8])> = copies.iter().map(|(at, bytes)| (*at, &bytes[..])).collect();
    Superblock::choose(&found, failed, size_bytes).map_err(wrong)
}
