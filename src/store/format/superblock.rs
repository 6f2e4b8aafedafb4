//! The superblock: what a volume is. Four copies, two at either end.
//!
//! Features are of three sorts. Unknown compatible ones are ignored (and kept when the superblock
//! is written again), with unknown read-only ones the volume is opened for reading, with unknown
//! incompatible ones it is refused. The bits stand first, so that this is decided before anything
//! is read that such a feature may have changed.

use bytes::{Buf, BufMut};

use crate::limits::GRANULE_SIZE_BYTES;
use crate::store::device::Granules;

use super::frame::{self, Address, Frame, kind};
use super::geometry::Areas;
use super::{FormatError, Geometry, VolumeId};

/// How many copies there are.
pub const SUPERBLOCK_COPIES: usize = 4;

/// Features of each sort that this version knows: none yet.
const COMPATIBLE_KNOWN: u64 = 0;
const READ_ONLY_KNOWN: u64 = 0;
const INCOMPATIBLE_KNOWN: u64 = 0;

/// What may be done with a volume, as far as its features go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everything.
    Full,
    /// Reading: writing would break what a later version has put there.
    ReadOnly {
        /// The feature bits that are not known.
        bits: u64,
    },
}

/// What a volume is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    id: VolumeId,
    geometry: Geometry,
    /// Counts the times it was written: the highest is the newest.
    sequence: u64,
    created_at_seconds: u64,
    /// The last purge that was applied to it; 0 if none was, and there are none yet.
    purge_seen: u64,
    compatible: u64,
    read_only: u64,
}

impl Superblock {
    /// Of a new volume; `created_at_seconds` since 1970.
    pub fn new(id: VolumeId, geometry: Geometry, created_at_seconds: u64) -> Superblock {
        Superblock {
            id,
            geometry,
            sequence: 1,
            created_at_seconds,
            purge_seen: 0,
            compatible: COMPATIBLE_KNOWN,
            read_only: READ_ONLY_KNOWN,
        }
    }

    /// The volume's name.
    pub fn id(&self) -> VolumeId {
        self.id
    }

    /// Its shape.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// When it was formatted, in seconds since 1970.
    pub fn created_at_seconds(&self) -> u64 {
        self.created_at_seconds
    }

    /// As it would be written next, with another purge seen.
    #[cfg(test)]
    pub(in crate::store::format) fn with_purge_seen(&self, purge_seen: u64) -> Superblock {
        Superblock { purge_seen, sequence: self.sequence.saturating_add(1), ..self.clone() }
    }

    /// What may be done with the volume.
    pub fn access(&self) -> Access {
        match self.read_only & !READ_ONLY_KNOWN {
            0 => Access::Full,
            bits => Access::ReadOnly { bits },
        }
    }

    /// The copy that is written at `at`.
    pub fn encode(&self, at: u64) -> Granules {
        let (geometry, areas) = (&self.geometry, &self.geometry.areas);
        let mut bytes = frame::begin();
        for word in [
            self.compatible,
            self.read_only,
            INCOMPATIBLE_KNOWN,
            geometry.volume_bytes(),
            geometry.region_bytes(),
            geometry.block().bytes(),
            geometry.index_entries_max(),
            areas.table_at,
        ] {
            bytes.put_u64_le(word);
        }
        bytes.put_u32_le(areas.table_pages);
        bytes.put_u32_le(areas.regions);
        for word in [
            areas.checkpoint_at,
            areas.checkpoint_bytes,
            areas.regions_at,
            self.created_at_seconds,
            self.purge_seen,
        ] {
            bytes.put_u64_le(word);
        }
        let address = Address { volume: self.id, place: at, generation: self.sequence };
        frame::seal(bytes, kind::SUPERBLOCK, address, 1)
    }

    /// The copy that was read at `at`.
    ///
    /// # Errors
    /// Anything but a superblock that this version can use.
    pub fn decode(bytes: &[u8], at: u64) -> Result<Superblock, FormatError> {
        let frame = Frame::open(bytes)?;
        frame.is(kind::SUPERBLOCK)?;
        frame.belongs(frame.address.volume, at)?;
        let mut body = frame.body();
        let (compatible, read_only) = (body.try_get_u64_le()?, body.try_get_u64_le()?);
        let bits = body.try_get_u64_le()? & !INCOMPATIBLE_KNOWN;
        if bits != 0 {
            return Err(FormatError::Incompatible { bits });
        }
        let mut sizes = [0; 4];
        for size in &mut sizes {
            *size = body.try_get_u64_le()?;
        }
        let areas = Areas {
            table_at: body.try_get_u64_le()?,
            table_pages: body.try_get_u32_le()?,
            regions: body.try_get_u32_le()?,
            checkpoint_at: body.try_get_u64_le()?,
            checkpoint_bytes: body.try_get_u64_le()?,
            regions_at: body.try_get_u64_le()?,
        };
        Ok(Superblock {
            id: frame.address.volume,
            geometry: Geometry::from_written(sizes, areas).map_err(FormatError::Geometry)?,
            sequence: frame.address.generation,
            created_at_seconds: body.try_get_u64_le()?,
            purge_seen: body.try_get_u64_le()?,
            compatible,
            read_only,
        })
    }

    /// The newest good copy of those that were read, each with where it was read, on a device of
    /// `device_bytes`; `failed` is why not all of them could be read.
    ///
    /// # Errors
    /// `failed`, if there is no volume in what was read: the rest may have been the good copy, and
    /// nobody is to be told to make the volume anew. Otherwise what is wrong with what was read.
    pub fn choose<E: From<FormatError>>(
        copies: &[(u64, &[u8])],
        failed: Option<E>,
        device_bytes: u64,
    ) -> Result<Superblock, E> {
        let chosen = Superblock::newest(copies, device_bytes);
        chosen.map_err(|fault| failed.unwrap_or_else(|| fault.into()))
    }

    /// # Errors
    /// `Truncated` if the device has become smaller than the volume. Otherwise what says most of
    /// why no copy is good: a copy of a later version over a damaged one, over something else,
    /// over nothing.
    fn newest(copies: &[(u64, &[u8])], device_bytes: u64) -> Result<Superblock, FormatError> {
        let mut newest: Option<Superblock> = None;
        let mut fault = FormatError::NotAVolume;
        for (at, bytes) in copies {
            match Superblock::decode(bytes, *at) {
                Ok(found) if newest.as_ref().is_none_or(|so| so.sequence < found.sequence) => {
                    newest = Some(found);
                }
                Ok(_) => {}
                Err(found) if telling(&found) > telling(&fault) => fault = found,
                Err(_) => {}
            }
        }
        // An older copy must not be used where a newer one asks for what this version lacks.
        if matches!(fault, FormatError::Incompatible { .. } | FormatError::Geometry(_)) {
            return Err(fault);
        }
        let newest = newest.ok_or(fault)?;
        let volume_bytes = newest.geometry.volume_bytes();
        if volume_bytes > device_bytes {
            return Err(FormatError::Truncated { volume_bytes, device_bytes });
        }
        Ok(newest)
    }
}

/// Where the copies lie on a volume of `volume_bytes`, or are looked for on a device of this size.
/// A size that is no multiple of a granule is rounded down; copies may coincide on a tiny device.
pub fn superblock_places(volume_bytes: u64) -> [u64; SUPERBLOCK_COPIES] {
    let end = volume_bytes - volume_bytes % GRANULE_SIZE_BYTES;
    let before_end = |granules: u64| end.saturating_sub(granules * GRANULE_SIZE_BYTES);
    [0, GRANULE_SIZE_BYTES, before_end(2), before_end(1)]
}

fn telling(fault: &FormatError) -> u32 {
    match fault {
        FormatError::NotAVolume => 0,
        FormatError::Foreign => 1,
        FormatError::Incompatible { .. } => 4,
        FormatError::Geometry(_) => 3,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use crate::object::BlockSize;

    use super::*;

    const SIZE: u64 = 16 << 20;

    fn superblock() -> Superblock {
        let geometry = Geometry::new(SIZE, 2 << 20, BlockSize::MAX, 100).unwrap();
        Superblock::new(VolumeId(7), geometry, 1_800_000_000)
    }

    fn choose(copies: &[Granules], size: u64) -> Result<Superblock, FormatError> {
        let places = superblock_places(SIZE);
        let copies: Vec<_> = places.into_iter().zip(copies.iter().map(Granules::bytes)).collect();
        Superblock::choose(&copies, None, size)
    }

    fn with_bits(offset: usize) -> [Granules; 4] {
        superblock_places(SIZE).map(|at| {
            let mut copy = superblock().encode(at);
            copy.bytes_mut()[offset + 7] = 0x80;
            frame::reseal(copy.bytes_mut());
            copy
        })
    }

    #[test]
    fn the_newest_good_copy_is_chosen() {
        let (old, new) = (superblock(), superblock().with_purge_seen(5));
        let places = superblock_places(SIZE);
        let mut copies: Vec<_> = places.iter().map(|at| old.encode(*at)).collect();
        copies[2] = new.encode(places[2]);
        assert_eq!(choose(&copies, SIZE), Ok(new));
        copies[2].bytes_mut()[100] ^= 1;
        assert_eq!(choose(&copies, SIZE), Ok(old.clone()));
        for copy in [0, 1, 3] {
            assert_eq!(choose(&copies, SIZE), Ok(old.clone()), "one good copy is enough");
            copies[copy].bytes_mut()[80] ^= 4;
        }
        assert_eq!(choose(&copies, SIZE), Err(FormatError::Torn));
    }

    #[test]
    fn what_is_no_volume_of_ours_is_told_apart() {
        let zeros = || [(); 4].map(|()| Granules::zeroed(1));
        assert_eq!(choose(&zeros(), SIZE), Err(FormatError::NotAVolume));
        let mut other = zeros();
        other[1].bytes_mut()[56] = 0x53;
        assert_eq!(choose(&other, SIZE), Err(FormatError::Foreign));
        let copies = superblock_places(SIZE).map(|at| superblock().encode(at));
        assert_eq!(
            choose(&copies, SIZE - 4096),
            Err(FormatError::Truncated { volume_bytes: SIZE, device_bytes: SIZE - 4096 })
        );
        assert!(choose(&copies, SIZE + 4096).is_ok(), "a device may have grown");
    }

    #[test]
    fn unknown_features_are_ignored_kept_from_writing_or_refused() {
        let found = choose(&with_bits(64), SIZE).unwrap();
        assert_eq!(found.access(), Access::Full);
        let again = Superblock::decode(found.encode(0).bytes(), 0).unwrap();
        assert_eq!(again.compatible, 1 << 63, "what is not known is kept");
        let found = choose(&with_bits(72), SIZE).unwrap();
        assert_eq!(found.access(), Access::ReadOnly { bits: 1 << 63 });
        let refused = Err(FormatError::Incompatible { bits: 1 << 63 });
        assert_eq!(choose(&with_bits(80), SIZE), refused);
        let mut mixed = superblock_places(SIZE).map(|at| superblock().encode(at));
        mixed[3] = with_bits(80).into_iter().next_back().unwrap();
        assert_eq!(choose(&mixed, SIZE), refused, "also where an older copy has survived");
    }
}
