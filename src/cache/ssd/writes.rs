//! Writing to volumes: blocks that were admitted, and what is known of their objects.
//!
//! Waits for no write, unless it is asked to: what finds a queue full is dropped. Always holds: an
//! older record of an object is replaced or forgotten, never left to be found again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::sleep;

use crate::cache::head_record::{ObjectName, encoded};
use crate::cache::heads::Head;
use crate::cache::ram::RamBlock;
use crate::cache::ssd::{Ssd, Subject, TierVolume, is_small};
use crate::limits::SSD_LIFETIME_MIN;
use crate::memory::{Class, Use};
use crate::object::{BlockKey, ObjectKey};
use crate::store::volume::{BlockWrite, HeadWrite, SmallBody};
use crate::store::{FilledFor, ObjectHash};

impl Ssd {
    /// One record for all of a small object: its head and its body.
    pub(super) fn write_small(&self, admitted: Admitted<'_>) {
        let Admitted { subject, variants, ram, writing } = admitted;
        let Some(bytes) = ram.read(0) else { return };
        let body = SmallBody { version: variants[0].version.id, bytes };
        let beside = Beside { body: Some(body), writing: Some(writing) };
        self.write_head(subject, variants, beside);
    }

    /// A record of the block's own, on the volume where that part of the object is at `home`.
    pub(super) fn write_block(&self, admitted: Admitted<'_>, head: &Head, home: &TierVolume) {
        let Admitted { subject, variants, ram, writing } = admitted;
        // Without its head nobody would find it after a restart; beside an older one neither.
        let known =
            self.volumes.online().any(|tier_volume| tier_volume.holds_newest_head(subject.object));
        if !known && !self.write_head(subject, variants, Beside::default()) {
            return;
        }
        let bytes = ram.length_bytes();
        let governor = self.parts.governor.of(subject.key.site());
        let Some(reserved) = governor.try_reserve(Use::Ssd, Class::Admission, bytes) else {
            return;
        };
        let write = BlockWrite {
            object: subject.object,
            site: self.site_hash(subject.key.site()),
            block: writing.block,
            birth: head.version.birth,
            pieces: ram.pieces(),
            parts: ram.parts().collect(),
            filled_for: FilledFor::Demand,
            guard: Box::new((reserved, writing)),
        };
        // What is refused is counted there, and is not held.
        let _ = home.volume().append_block(write);
    }

    /// Writes what is known of an object to the volume where it is at home, and forgets it on the
    /// others.
    pub(super) fn write_head(
        &self,
        subject: &Subject,
        variants: &[Arc<Head>],
        Beside { body, writing }: Beside,
    ) -> bool {
        let (key, object) = (&subject.key, subject.object);
        let Some(site) = self.site(key.site()) else { return false };
        let rule = site.rule_for(key.path());
        let Some(record) =
            encoded(ObjectName::of(&site, key), (rule, &site.edited_before), variants)
        else {
            return false;
        };
        let Some(home) = self.volumes.home(object, 0) else { return false };
        for tier_volume in
            self.volumes.online().filter(|tier_volume| !Arc::ptr_eq(tier_volume, home))
        {
            if tier_volume.volume().holds_head(object) {
                tier_volume.volume().forget_head(object);
            }
        }
        let bytes = record.len() + body.as_ref().map_or(0, |body| body.bytes.len());
        let governor = self.parts.governor.of(key.site());
        let reserved = governor.try_reserve(Use::Ssd, Class::Admission, bytes as u64);
        let Some(reserved) = reserved else { return false };
        let write = HeadWrite {
            object,
            site: self.site_hash(key.site()),
            birth: variants.iter().map(|head| head.version.birth).max().unwrap_or_default(),
            payload: Bytes::from(record),
            body,
            guard: Box::new((reserved, writing)),
        };
        home.volume().append_head(write).is_ok()
    }

    /// `in_ram` changes the heads of an object there. An older record must not be found again: it
    /// is replaced, or forgotten where it cannot be. A refreshment that will soon be over is not
    /// worth a write: after a restart the origin is asked once more.
    pub fn head_changed(&self, key: &ObjectKey, change: Change, in_ram: impl FnOnce()) {
        if self.volumes.is_empty() {
            return in_ram();
        }
        let subject = self.subject(key);
        self.order.change(subject.object, || {
            in_ram();
            self.volumes.note_change(subject.object);
            self.follow(&subject, change);
        });
    }

    fn follow(&self, subject: &Subject, change: Change) {
        let object = subject.object;
        if change == Change::Replaced {
            let variants = self.parts.heads.variants(&subject.key);
            let is_led_to =
                |block: &BlockKey| variants.iter().any(|head| head.version.id == block.version);
            self.writing.of(object, |block| !is_led_to(block)).iter().for_each(|block| {
                self.forget_block(block);
            });
        }
        if !self.holds_head(object) || change == Change::Refreshed(Worth::Nothing) {
            return;
        }
        let variants = self.parts.heads.variants(&subject.key);
        let is_brief = |head: &Arc<Head>| head.freshness.lifetime < SSD_LIFETIME_MIN;
        // By a rule of before it was kept: now it is not.
        if subject.live || variants.first().is_none_or(is_brief) {
            return self.forget_everywhere(object);
        }
        let body = match &variants[..] {
            [head] if is_small(&head.version) => match self.small_body(head) {
                Some(body) => Some(body),
                // It is written anew, with its body, when it is worth it.
                None => return self.forget_everywhere(object),
            },
            _ => None,
        };
        if !self.write_head(subject, &variants, Beside { body, writing: None }) {
            self.forget_everywhere(object);
        }
    }

    /// What was published of a block is not to be believed, nor what is being written of it.
    pub fn forget_block(&self, block: &BlockKey) {
        for tier_volume in self.volumes.online() {
            tier_volume.volume().forget_block(*block);
        }
    }

    /// `in_ram` forgets the object's heads there, all or some.
    pub fn forget(&self, key: &ObjectKey, in_ram: impl FnOnce()) {
        self.head_changed(key, Change::Replaced, in_ram);
    }

    /// Waits until what volumes know of the object's heads is on their devices: a head that was
    /// forgotten would come back after a kill until then. Dropping it midway is safe.
    pub async fn settled(&self, key: &ObjectKey) {
        let object = self.object(key);
        let online = || self.volumes.online();
        while online().any(|tier_volume| tier_volume.volume().is_head_under_way(object)) {
            sleep(LOOK_AGAIN).await;
        }
    }

    fn forget_everywhere(&self, object: ObjectHash) {
        for tier_volume in
            self.volumes.online().filter(|tier_volume| tier_volume.volume().holds_head(object))
        {
            tier_volume.volume().forget_head(object);
        }
    }

    /// The body of a small object, if ram has it.
    fn small_body(&self, head: &Head) -> Option<SmallBody> {
        let version = head.version.id;
        let length = head.version.length_bytes()?;
        let block = self.parts.ram.peek(&BlockKey { version, index: 0 })?;
        let bytes = block.read(0)?;
        (bytes.len() as u64 == length).then_some(SmallBody { version, bytes })
    }
}

/// A head is written within 50 ms as a rule: it waits for company.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A block that was let in, as ram has it, with its object's heads as they are now.
pub(super) struct Admitted<'a> {
    pub(super) subject: &'a Subject,
    pub(super) variants: &'a [Arc<Head>],
    pub(super) ram: &'a RamBlock,
    /// It is on its way until this is dropped.
    pub(super) writing: UnderWay,
}

/// What is written in one record with an object's heads.
#[derive(Default)]
pub(super) struct Beside {
    pub(super) body: Option<SmallBody>,
    /// The block that the body is, if it was let in as one.
    pub(super) writing: Option<UnderWay>,
}

/// Blocks whose write is not over: they are neither held nor missing.
#[derive(Default)]
pub(super) struct Writing(Mutex<HashMap<BlockKey, ObjectHash>>);

impl Writing {
    /// `None` when it is being written already.
    pub(super) fn begin(self: &Arc<Self>, object: ObjectHash, block: BlockKey) -> Option<UnderWay> {
        let new = self.blocks().insert(block, object).is_none();
        new.then(|| UnderWay { block, writing: self.clone() })
    }

    /// Blocks of an object that are being written.
    fn of(&self, object: ObjectHash, which: impl Fn(&BlockKey) -> bool) -> Vec<BlockKey> {
        let blocks = self.blocks();
        let of_object = blocks.iter().filter(|(block, of)| **of == object && which(block));
        of_object.map(|(block, _)| *block).collect()
    }

    fn blocks(&self) -> MutexGuard<'_, HashMap<BlockKey, ObjectHash>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of them, until it is dropped.
pub(super) struct UnderWay {
    block: BlockKey,
    writing: Arc<Writing>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.writing.blocks().remove(&self.block);
    }
}

/// What became of an object's heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// They lead to other bytes.
    Replaced,
    /// They may be used longer.
    Refreshed(Worth),
}

/// Whether a refreshment is worth a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worth {
    /// It lasts.
    AWrite,
    /// It does not.
    Nothing,
}

impl Worth {
    /// Of a response that stays fresh for `lifetime` from now on.
    pub fn of(lifetime: Duration) -> Worth {
        if lifetime >= SSD_LIFETIME_MIN { Worth::AWrite } else { Worth::Nothing }
    }
}
