//! Which volumes are used together: judged by their superblocks, in the order of the configuration
//! and before anything is written to one. `check` judges by the same rules beforehand.
//!
//! What is wrong with one volume leaves that one out. What is wrong with the settings is refused:
//! an index that is too small, blocks of a size that none of the volumes has.

use std::collections::BTreeMap;
use std::path::Path;

use crate::config::units::bytes_text;
use crate::config::{self, Config, ConfigError, IndexShort, SsdVolume, VolumeKind};
use crate::limits::INDEX_ENTRY_BYTES;
use crate::object::BlockSize;
use crate::store::format::{FormatError, Geometry, VolumeId};
use crate::store::remembered::{Illness, Remembered};
use crate::store::shell_word;
use crate::store::survey::glance;
use crate::store::volume::VolumeError;

use super::device::geometry;
use super::remedy;

/// The volumes that have a place so far.
pub(super) struct Roll {
    block_size: BlockSize,
    pub(super) index_left_bytes: u64,
    index_enough_bytes: u64,
    /// Whose id it is.
    taken: BTreeMap<u128, String>,
}

/// Why a volume whose device is there is not used.
#[derive(Debug)]
pub(super) enum Unfit {
    /// What is there cannot be used, or not be read.
    Volume(VolumeError),
    /// Nothing could be read.
    Unreadable(String),
    /// It is a copy of one that has its place.
    Copy { of: String },
    /// Its index is as large as it was made; what is left of the setting is less.
    Index { needs_bytes: u64, left_bytes: u64, enough_bytes: u64 },
    /// It is still to be made.
    IndexShort(IndexShort),
}

impl Roll {
    pub(super) fn new(config: &config::Ssd, block_size: BlockSize) -> Roll {
        let (index_left_bytes, index_enough_bytes) =
            (config.index_bytes, config.index_enough_bytes());
        Roll { block_size, index_left_bytes, index_enough_bytes, taken: BTreeMap::new() }
    }

    /// Gives a volume its place, if there is one for it.
    pub(super) fn enter(
        &mut self,
        name: &str,
        geometry: &Geometry,
        VolumeId(id): VolumeId,
    ) -> Result<(), Unfit> {
        if geometry.block() != self.block_size {
            let block_bytes = geometry.block().bytes();
            let wanted_bytes = self.block_size.bytes();
            let other = FormatError::OtherBlocks { block_bytes, wanted_bytes };
            return Err(Unfit::Volume(other.into()));
        }
        if let Some(of) = self.taken.get(&id) {
            return Err(Unfit::Copy { of: of.clone() });
        }
        self.take_index(geometry)?;
        self.taken.insert(id, name.to_owned());
        Ok(())
    }

    /// Takes a volume's index out of what the setting allows all of them together.
    fn take_index(&mut self, geometry: &Geometry) -> Result<(), Unfit> {
        let needs_bytes = geometry.index_entries_max() * INDEX_ENTRY_BYTES;
        let (left_bytes, enough_bytes) = (self.index_left_bytes, self.index_enough_bytes);
        let left = left_bytes.checked_sub(needs_bytes);
        let short = Unfit::Index { needs_bytes, left_bytes, enough_bytes };
        self.index_left_bytes = left.ok_or(short)?;
        Ok(())
    }
}

impl Unfit {
    /// What is wrong with the volume at `path`, and what to do.
    pub(super) fn told_of(&self, path: &Path) -> String {
        match self {
            Unfit::Volume(VolumeError::Format(source)) => {
                format!("{source}{}", source.remedy(path))
            }
            Unfit::Volume(source) => source.to_string(),
            Unfit::Unreadable(why) => why.clone(),
            Unfit::Copy { of } => format!(
                "it is a copy of volume {of} (both have one id), and only one of them can be used: \
                 take one out of the configuration, or make this one anew: `tidegate volume format \
                 {}`",
                shell_word(path)
            ),
            Unfit::Index { needs_bytes, left_bytes, enough_bytes } => format!(
                "it was made with an index of {needs_bytes} bytes, and the other volumes leave \
                 {left_bytes} of `ssd.index`; write `ssd.index = {:?}`",
                bytes_text(*enough_bytes)
            ),
            Unfit::IndexShort(IndexShort { left_bytes, enough_bytes }) => format!(
                "it is to be made, and the volumes that are there leave its index {left_bytes} \
                 bytes of `ssd.index`; write `ssd.index = {:?}`",
                bytes_text(*enough_bytes)
            ),
        }
    }
}

/// What the settings in `file` are to be refused for; each volume that was judged, and what came of
/// it.
pub(super) fn refusal<'a>(
    file: &str,
    judged: impl Iterator<Item = (&'a SsdVolume, Option<&'a Unfit>)> + Clone,
) -> Option<ConfigError> {
    let is_index = |unfit: &Unfit| matches!(unfit, Unfit::Index { .. } | Unfit::IndexShort(_));
    let has_other_blocks = |unfit: &Unfit| {
        matches!(unfit, Unfit::Volume(VolumeError::Format(FormatError::OtherBlocks { .. })))
    };
    let mut unfit = judged.clone().filter_map(|(set, unfit)| Some((set, unfit?)));
    let none_fits = judged.clone().all(|(_, unfit)| unfit.is_some());
    let (set, why) =
        unfit.find(|(_, unfit)| is_index(unfit) || (none_fits && has_other_blocks(unfit)))?;
    let text = format!("volume {} cannot be used: {}", set.name, why.told_of(&set.path));
    Some(ConfigError { file: file.to_owned(), place: Some(set.place), text })
}

/// The same before any volume is made.
///
/// # Errors
/// What the settings are to be refused for.
pub(super) fn look_at_new(file: &str, config: &config::Ssd) -> Result<(), ConfigError> {
    let new = config.volumes.iter().filter(|volume| volume.kind.is_new());
    let short = |volume| config.new_index_bytes(volume).err().map(Unfit::IndexShort);
    let judged: Vec<_> = new.map(|volume| (volume, short(volume))).collect();
    let refused = refusal(file, judged.iter().map(|(volume, unfit)| (*volume, unfit.as_ref())));
    refused.map_or(Ok(()), Err)
}

/// The volumes that are remembered as failed, in words, each with what takes it for well. Changes
/// nothing; blocks.
///
/// # Errors
/// Why it is not known which have failed.
pub fn look_at_failed(config: &Config) -> Result<Vec<String>, String> {
    let is_real = |volume: &&SsdVolume| volume.kind != VolumeKind::Simulated;
    let real: Vec<_> = config.ssd.volumes.iter().filter(is_real).collect();
    if real.is_empty() {
        return Ok(Vec::new());
    }
    let (failed, forgotten) = Remembered::at(&config.ssd.state).all();
    if let Some(forgotten) = forgotten {
        return Err(forgotten.to_string());
    }
    let told = |volume: &SsdVolume| {
        let id = glance(&volume.path).ok()?.id();
        let Illness { state, reason, .. } = failed.get(&id.0)?;
        let (name, word, remedy) = (&volume.name, state.word(), remedy(&config.ssd, volume));
        Some(format!("volume {name} would be {word}: it failed before: {reason}; {remedy}"))
    };
    Ok(real.into_iter().filter_map(told).collect())
}

/// A volume that a start would leave out.
#[derive(Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// Which one, counted from 0 in the order of the configuration.
    pub index: usize,
    /// What is wrong with it, and what to do.
    pub why: String,
}

/// Looks at the volumes of a configuration as a start would, beside an appliance that has them
/// open: those that it would leave out. Changes nothing; blocks. What is gone or cannot
/// be written has been said when the configuration was read.
///
/// # Errors
/// What a start would refuse.
pub fn look_at_volumes(config: &Config) -> Result<Vec<LeftOut>, ConfigError> {
    let mut roll = Roll::new(&config.ssd, config.block_size);
    let mut judge = |volume: &SsdVolume| match volume.kind {
        VolumeKind::NewFile | VolumeKind::Simulated => {
            let made = geometry(&config.ssd, volume, config.block_size);
            made.and_then(|made| roll.take_index(&made))
        }
        _ => match glance(&volume.path) {
            Ok(found) => roll.enter(&volume.name, found.geometry(), found.id()),
            Err(why) => Err(Unfit::Unreadable(why.to_string())),
        },
    };
    let there = config.ssd.volumes.iter().enumerate();
    let there = there.filter(|(_, volume)| !volume.kind.is_out());
    let judged: Vec<_> =
        there.map(|(index, volume)| (index, volume, judge(volume).err())).collect();
    let each = judged.iter().map(|(_, volume, unfit)| (*volume, unfit.as_ref()));
    if let Some(refused) = refusal(&config.file, each) {
        return Err(refused);
    }
    let left_out = |(index, volume, unfit): (usize, &SsdVolume, Option<Unfit>)| {
        unfit.map(|unfit| LeftOut { index, why: unfit.told_of(&volume.path) })
    };
    Ok(judged.into_iter().filter_map(left_out).collect())
}
