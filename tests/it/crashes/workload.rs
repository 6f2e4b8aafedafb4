//! What a volume is asked for: writes, heads replaced and forgotten, uses, checkpoints, and reads
//! that race with all of it. Whatever a read brings is compared with what was written.

use std::any::Any;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tidegate::object::{BlockKey, PieceMap};
use tidegate::store::device::{Granules, Lent, Urgency};
use tidegate::store::format::FilledFor;
use tidegate::store::volume::{
    BlockWrite, HeadFound, HeadWrite, Pieces, Read, ReadError, SmallBody, Volume,
};
use tokio::time::sleep;

use super::chance::Chance;
use super::covered::Covered;
use super::model::{self, Model, Version};
use super::witness::Witness;

/// What volume and checks share.
#[derive(Clone)]
pub(super) struct Asked {
    pub(super) model: Arc<Mutex<Model>>,
    /// What must not have happened.
    pub(super) wrong: Arc<Mutex<Vec<String>>>,
    pub(super) covered: Arc<Mutex<Covered>>,
    /// The device does nothing wrong: then reads don't fail either.
    pub(super) strict: bool,
}

impl Asked {
    pub(super) fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap()
    }

    pub(super) fn covered(&self) -> MutexGuard<'_, Covered> {
        self.covered.lock().unwrap()
    }

    pub(super) fn blame(&self, what: String) {
        self.wrong.lock().unwrap().push(what);
    }
}

/// Asks `count` things of `volume`, one after the other, some at once.
pub(super) async fn work(
    volume: &Arc<Volume>,
    device: &Witness,
    asked: &Asked,
    count: u64,
    chance: &mut Chance,
) {
    for _ in 0..count {
        let object = chance.below(asked.model().objects.len() as u64) as usize;
        match chance.below(100) {
            0..=34 => write_block(volume, asked, object, chance),
            35..=49 => write_head(volume, asked, object, chance),
            50..=53 => {
                let tick = device.log().tick;
                volume.forget_head(asked.model().forget(object, tick));
            }
            54 => {
                let block = some_block(asked, chance).map(|(block, _)| block);
                block.into_iter().for_each(|block| {
                    asked.model().forgotten.insert(block);
                    volume.forget_block(block);
                });
            }
            55..=66 => {
                for _ in 0..4 {
                    some_block(asked, chance).map(|(block, _)| volume.used(block));
                }
            }
            67..=81 => spawn_read(volume, asked, chance),
            82..=89 => spawn_read_head(volume, asked, object),
            90..=91 => {
                let volume = Arc::clone(volume);
                tokio::spawn(async move { volume.checkpoint().await });
            }
            92..=93 => asked.model().renew(object, chance),
            _ => sleep(Duration::from_micros(chance.below(20_000))).await,
        }
        if chance.one_in(2) {
            sleep(Duration::from_micros(chance.below(3_000))).await;
        }
    }
}

fn some_block(asked: &Asked, chance: &mut Chance) -> Option<(BlockKey, Version)> {
    let blocks = asked.model().blocks();
    // The newer ones more often: the older ones are hardly held any more.
    let first = blocks.len().saturating_sub(40) as u64;
    let index = if chance.one_in(4) { 0 } else { first };
    let index = index + chance.below((blocks.len() as u64 - index).max(1));
    blocks.get(index as usize).copied()
}

fn write_block(volume: &Volume, asked: &Asked, object: usize, chance: &mut Chance) {
    let model = asked.model();
    let of = &model.objects[object];
    let version = of.versions[of.versions.len() - 1];
    let blocks = model.blocks();
    let blocks: Vec<_> = blocks.into_iter().filter(|(_, v)| v.id == version.id).collect();
    if blocks.is_empty() {
        return;
    }
    let (block, _) = *chance.choose(&blocks);
    let all = model.pieces(block, version);
    let pieces = match chance.below(4) {
        0 | 1 => all,
        2 => {
            let first = chance.below(all.count().into()) as u32;
            PieceMap::run(first, 1 + chance.below((all.count() - first).into()) as u32)
        }
        _ => PieceMap(all.0 & chance.draw() as u16),
    };
    if pieces.count() == 0 {
        return;
    }
    let parts = parts(&model, block, version, pieces, chance);
    let write = BlockWrite {
        object: of.hash,
        site: of.site,
        block,
        birth: chance.below(1_000),
        pieces,
        parts,
        filled_for: if chance.one_in(8) { FilledFor::Planned } else { FilledFor::Demand },
        guard: Box::new(()),
    };
    drop(model);
    // A full queue refuses it: then it is not kept.
    let _ = volume.append_block(write);
}

fn parts(
    model: &Model,
    block: BlockKey,
    version: Version,
    pieces: PieceMap,
    chance: &mut Chance,
) -> Vec<Bytes> {
    let mut parts: Vec<Vec<u8>> = Vec::new();
    for number in (0..16).filter(|number| pieces.holds(*number)) {
        if parts.is_empty() || chance.one_in(3) {
            parts.push(Vec::new());
        }
        let bytes = model.piece(block, version, number);
        parts.last_mut().unwrap().extend_from_slice(bytes);
    }
    let aligned = |bytes: Vec<u8>| {
        let length = bytes.len();
        Bytes::from_owner(Granules::holding(&bytes)).slice(..length)
    };
    parts
        .into_iter()
        .map(|part| if chance.one_in(2) { aligned(part) } else { Bytes::from(part) })
        .collect()
}

fn write_head(volume: &Volume, asked: &Asked, object: usize, chance: &mut Chance) {
    let mut model = asked.model();
    let before = model.objects[object].last;
    let put = model.put(object, chance);
    let of = &model.objects[object];
    let body = model.puts[put as usize].body;
    let write = HeadWrite {
        object: of.hash,
        site: of.site,
        birth: model.puts[put as usize].birth,
        payload: model::payload(put).into(),
        body: body.map(|version| SmallBody {
            version: version.id,
            bytes: Bytes::from_static(model::body(version)),
        }),
        guard: Box::new(()),
    };
    if volume.append_head(write).is_err() {
        model.objects[object].last = before;
        model.puts[put as usize].taken = false;
    }
}

fn spawn_read(volume: &Arc<Volume>, asked: &Asked, chance: &mut Chance) {
    let Some((block, version)) = some_block(asked, chance) else { return };
    let all = asked.model().pieces(block, version).count();
    let first = chance.below(all.into()) as u32;
    let count = 1 + chance.below((all - first).into()) as u32;
    let (volume, asked) = (Arc::clone(volume), asked.clone());
    tokio::spawn(async move {
        let pieces = Pieces { first, count };
        match read(&volume, &asked, block, version, pieces).await {
            Ok(count) => asked.covered().add("pieces read while running", count.into()),
            Err(error) if asked.strict && !is_absence(&error) => {
                asked.blame(format!("{block:?} {pieces:?} while running: {error:?}"));
            }
            Err(_) => {}
        }
    });
}

/// Reads pieces and compares them: how many there were.
pub(super) async fn read(
    volume: &Volume,
    asked: &Asked,
    block: BlockKey,
    version: Version,
    pieces: Pieces,
) -> Result<u32, ReadError> {
    let memory: Box<dyn Lent> = Box::new(Granules::zeroed(pieces.count as usize * 16));
    let Read { lent, bytes, pieces: found } =
        volume.read(block, pieces, memory, Urgency::Viewer).await?;
    let lent: Box<dyn Any> = lent;
    let memory = lent.downcast::<Granules>().expect("what was lent is given back");
    let mut rest = &memory.bytes()[..bytes];
    let model = asked.model();
    let mut right = found >= 1 && found <= pieces.count;
    for number in pieces.first..pieces.first + found {
        let expected = model.piece(block, version, number);
        match rest.split_at_checked(expected.len()) {
            Some((piece, behind)) => (right, rest) = (right && piece == expected, behind),
            None => right = false,
        }
    }
    drop(model);
    if !right || !rest.is_empty() {
        asked.blame(format!("{block:?} {pieces:?}: {found} pieces, and not what was written"));
    }
    Ok(found)
}

fn spawn_read_head(volume: &Arc<Volume>, asked: &Asked, object: usize) {
    let (volume, asked) = (Arc::clone(volume), asked.clone());
    tokio::spawn(async move {
        let (hash, lowest) = {
            let model = asked.model();
            let of = &model.objects[object];
            (of.hash, of.forgotten_below)
        };
        match volume.read_head(hash, Urgency::Viewer).await {
            Ok(Some(found)) => {
                asked.covered().add("heads found while running", 1);
                let put = judge_head(&asked, object, &found);
                if put.is_some_and(|put| put < lowest) {
                    asked.blame(format!("{hash:?}: put {put:?} after it was forgotten"));
                }
            }
            Ok(None) => {}
            Err(error) if asked.strict && !is_absence(&error) => {
                asked.blame(format!("{hash:?} while running: {error:?}"));
            }
            Err(_) => {}
        }
    });
}

fn is_absence(error: &ReadError) -> bool {
    matches!(error, ReadError::Absent | ReadError::Busy)
}

/// Compares a head with what was put: which put it is.
pub(super) fn judge_head(asked: &Asked, object: usize, found: &HeadFound) -> Option<u64> {
    let model = asked.model();
    let number = model::put_of(&found.payload);
    let put = number.and_then(|number| model.puts.get(number as usize).copied());
    let right = put.is_some_and(|put| {
        let body = put.body.map(|version| SmallBody {
            version: version.id,
            bytes: Bytes::from_static(model::body(version)),
        });
        put.object == object
            && found.birth == put.birth
            && found.site == model.objects[object].site
            && found.body == body
    });
    drop(model);
    if !right {
        asked.blame(format!("a head of object {object} that was never put: {number:?}"));
    }
    number.filter(|_| right)
}
