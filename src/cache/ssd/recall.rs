//! Looking for an object that ram knows nothing of: its heads, and a small body beside them.
//!
//! What was read is put into ram only if nothing has changed meanwhile; what may not be the newest
//! is revalidated before it is used. The rules of now judge it, whatever they were then.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tokio::time::timeout;

use crate::cache::head_record::{ObjectName, decoded};
use crate::cache::heads::{Head, Version};
use crate::cache::ssd::reads::{Closing, Joined, ROOM_WITHIN, note_miss};
use crate::cache::ssd::{Brought, Landed, Recalled, Ssd, Subject, Wanted};
use crate::memory::{Class, Use};
use crate::message::freshness::Freshness;
use crate::object::{BlockKey, ObjectKey};
use crate::store::device::Urgency;
use crate::store::volume::{HeadFound, ReadError, SmallBody, Trust};

impl Ssd {
    /// Small objects lie in one record with their heads.
    pub(super) async fn bring_small(
        self: &Arc<Self>,
        subject: &Subject,
        version: &Version,
        wanted: Wanted,
    ) -> Brought {
        let recalled = self.recall_as(subject).await;
        let Some(bytes) = self.parts.ram.get(&wanted.block).and_then(|block| block.read(0)) else {
            return match recalled {
                Recalled::Ill => Brought::Ill,
                Recalled::NoMemory => Brought::NoMemory,
                Recalled::Found | Recalled::NotHeld => Brought::NotHeld,
            };
        };
        let whole = version.length_bytes() == Some(bytes.len() as u64);
        let governor = self.parts.governor.of(wanted.site);
        match governor.try_reserve(Use::Ssd, wanted.class, bytes.len() as u64) {
            Some(_reserved) if whole => {
                Brought::Landed(Arc::new(Landed { start: 0, bytes, _reserved }))
            }
            Some(_) => Brought::NotHeld,
            None => Brought::NoMemory,
        }
    }

    /// Looks for an object that ram knows nothing of. When it was found, it is worth looking into
    /// ram again. Dropping it midway is safe: the read goes on for the others.
    pub async fn recall(self: &Arc<Self>, key: &ObjectKey) -> Recalled {
        match self.is_in_use() {
            true => self.recall_as(&self.subject(key)).await,
            false => Recalled::NotHeld,
        }
    }

    async fn recall_as(self: &Arc<Self>, subject: &Subject) -> Recalled {
        let object = subject.object;
        // What a rule of before had kept is forgotten when the object is filled.
        if subject.live {
            return Recalled::NotHeld;
        }
        if !self.holds_head(object) {
            let lost = self.lost_head(object);
            return if lost { Recalled::Ill } else { Recalled::NotHeld };
        }
        let mut waiting = match self.recalling.0.join(object.0) {
            Joined::Waits(waiting) => waiting,
            Joined::Begins(tell) => {
                let waiting = tell.subscribe();
                let (ssd, subject) = (self.clone(), subject.clone());
                self.parts.runtime.spawn(async move {
                    let closing = Closing { flight: &ssd.recalling.0, key: object.0 };
                    let found = ssd.read_heads(&subject).await;
                    drop(closing);
                    tell.send_replace(Some(found));
                });
                waiting
            }
        };
        let found = waiting.wait_for(Option::is_some).await;
        found.ok().and_then(|found| *found).unwrap_or(Recalled::NotHeld)
    }

    async fn read_heads(&self, subject: &Subject) -> Recalled {
        self.order.ask(subject.object);
        let found = self.read_newest(subject).await;
        if found != Recalled::Found {
            self.order.give_up(subject.object);
        }
        found
    }

    /// Of the records on all volumes the one that was received last: a volume may have been away.
    async fn read_newest(&self, subject: &Subject) -> Recalled {
        let (key, object) = (&subject.key, subject.object);
        let Some(site) = self.site(key.site()) else { return Recalled::NotHeld };
        let mut newest: Option<(Vec<Arc<Head>>, HeadFound)> = None;
        let mut all_read = true;
        let mut without = Recalled::NotHeld;
        for tier_volume in self.volumes.online() {
            if !tier_volume.volume().holds_head(object) {
                continue;
            }
            if !tier_volume.may_try() {
                all_read = false;
                without = Recalled::Ill;
                continue;
            }
            let volume = tier_volume.volume().clone();
            // A head that is not read may not be replaced either: what is kept of it would be lost.
            let bytes = volume.head_bytes(object);
            let governor = self.parts.governor.of(key.site());
            let free = governor.reserve(Use::Ssd, Class::Miss, bytes);
            let Ok(reserved) = timeout(ROOM_WITHIN, free).await else { return Recalled::NoMemory };
            let reserved = Arc::new(reserved);
            let found = match volume.read_head_guarded(object, Urgency::Viewer, reserved).await {
                Ok(Some(found)) => found,
                Ok(None) => continue,
                Err(error) => {
                    if matches!(error, ReadError::Failed(_)) {
                        self.lost.add_heads(object);
                    }
                    if matches!(note_miss(tier_volume, &error, Urgency::Viewer), Brought::Ill) {
                        all_read = false;
                        without = Recalled::Ill;
                    }
                    continue;
                }
            };
            tier_volume.was_in_time();
            let (name, rule) = (ObjectName::of(&site, key), site.rule_for(key.path()));
            let Some(heads) = decoded(&found.payload, name, rule) else { continue };
            let received = |heads: &[Arc<Head>]| heads[0].freshness.received_at;
            if newest.as_ref().is_none_or(|(newest, _)| received(newest) < received(&heads)) {
                newest = Some((heads, found));
            }
        }
        let Some((heads, mut found)) = newest else { return without };
        if !all_read {
            // What was not read may be newer.
            found.trust = Trust::MustRevalidate;
        }
        self.take_back(subject, heads, found);
        Recalled::Found
    }

    pub(super) fn take_back(&self, subject: &Subject, heads: Vec<Arc<Head>>, found: HeadFound) {
        let is_doubted =
            found.trust == Trust::MustRevalidate || is_ahead(&heads, SystemTime::now());
        let heads = match is_doubted {
            false => heads,
            // Something newer may have been lost: the origin is asked.
            true => heads.iter().map(|head| Arc::new(expired(head))).collect(),
        };
        if let (Some(SmallBody { version, bytes }), [head]) = (found.body, &heads[..])
            && head.version.id == version
            && head.version.length_bytes() == Some(bytes.len() as u64)
            && !bytes.is_empty()
        {
            let block = BlockKey { version, index: 0 };
            self.parts.ram.publish(subject.key.site(), block, 0, bytes);
        }
        let restore = || self.parts.heads.restore(subject.key.clone(), heads, || false);
        if self.order.answer(subject.object, restore) {
            self.figures.recalled.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Received in the future: the clock has been set back since, as it is on a machine that starts
/// without one, and how old they are is not known.
fn is_ahead(heads: &[Arc<Head>], now: SystemTime) -> bool {
    let ahead = |head: &Arc<Head>| head.freshness.received_at.duration_since(now);
    heads.iter().any(|head| ahead(head).is_ok_and(|ahead| ahead > CLOCK_STEP_MAX))
}

fn expired(head: &Head) -> Head {
    let Freshness { received_at, initial_age, .. } = head.freshness;
    let freshness = Freshness { initial_age, ..Freshness::expired(received_at) };
    Head { freshness, ..head.clone() }
}

/// How far a clock that is kept right is set back at once.
const CLOCK_STEP_MAX: Duration = Duration::from_secs(60);
