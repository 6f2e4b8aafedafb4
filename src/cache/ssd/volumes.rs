//! The volumes, and which of them an object is at home on.
//!
//! A whole object lies on one volume, chosen by weighted rendezvous over those that can be written
//! to; one of more than 4 GiB goes on in stripes. What is held is found wherever it is, so a volume
//! that comes or goes moves nothing. A volume may be added at any time; none is taken out.

use std::collections::HashSet;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwapOption, Guard};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::cache::admission::Admission;
use crate::cache::ssd::tending::Told;
use crate::limits::VOLUMES_MAX;
use crate::rendezvous;
use crate::site::Sites;
use crate::store::{ObjectHash, Volume};

/// One volume of the configuration, online or not.
pub struct TierVolume {
    /// As the operator calls it.
    pub name: String,
    /// What is written to it.
    pub admission: Admission,
    weight: f64,
    /// Never none again, but another one where it was handed over and has come back.
    volume: ArcSwapOption<Volume>,
    /// It was handed over, and is to be opened again.
    comes_back: AtomicBool,
    /// What changed before it was online.
    missed: Mutex<Missed>,
    /// What it knows of objects may be old: too much changed to tell before it was online.
    doubted: AtomicBool,
    /// Why it will not come online.
    left_out: OnceLock<String>,
    /// What an operator should know of it although it is used.
    notice: Mutex<Option<String>>,
    told: Mutex<Told>,
    started: Instant,
    /// Reads go past it until then, but for one now and then; milliseconds since `started`.
    slow_until: AtomicU64,
}

impl TierVolume {
    /// A volume that is not online yet; `weight` is its share beside the others, mostly its size.
    pub fn new(name: String, weight: u64, admission: Admission) -> TierVolume {
        TierVolume {
            name,
            admission,
            weight: weight.max(1) as f64,
            volume: ArcSwapOption::empty(),
            comes_back: AtomicBool::new(false),
            missed: Mutex::default(),
            doubted: AtomicBool::new(false),
            left_out: OnceLock::new(),
            notice: Mutex::default(),
            told: Mutex::default(),
            started: Instant::now(),
            slow_until: AtomicU64::new(0),
        }
    }

    /// Lets each site have its share of it from now on.
    pub fn share_among(&self, sites: &Sites) {
        self.admission.set_site_parts(sites.iter().map(|site| (site.id, site.share)));
        for site in sites.iter() {
            self.admission.set_site_share(site.id, f64::from(site.ssd_percent) / 100.0);
        }
    }

    /// It is opened again, as nobody else has it any more: what changes from now on is noted for
    /// it. Until it is online what is open can be read.
    pub fn comes_back(&self) {
        self.comes_back.store(true, Ordering::Release);
    }

    /// The volume is open: what was known of its blocks when it was last closed is known again.
    pub fn come_online(self: &Arc<Self>, volume: Arc<Volume>) {
        let was_open = self.opened().is_some();
        if let Some(saved) = volume.extra().filter(|_| !was_open)
            && let Err(error) = self.restore(&saved)
        {
            tracing::info!("volume {} forgets which blocks were seen: {error}", self.name);
        }
        // A weak handle: the volume is one of its parts.
        let tier_volume = Arc::downgrade(self);
        let saved =
            move || tier_volume.upgrade().map_or_else(Vec::new, |tier_volume| tier_volume.save());
        volume.set_extra(Arc::new(saved));
        // Held until it is online: what changes from then on, it is told.
        let mut missed = self.missed.lock().unwrap_or_else(PoisonError::into_inner);
        let Missed { objects, too_many } = std::mem::take(&mut *missed);
        objects.into_iter().for_each(|object| volume.forget_head(object));
        if too_many {
            self.doubted.store(true, Ordering::Relaxed);
            volume.doubt_heads_soon();
        }
        let mut told = self.told();
        if was_open {
            told.begin_anew();
        }
        self.volume.store(Some(volume));
        self.comes_back.store(false, Ordering::Release);
    }

    /// The heads of an object change; a volume on its way must forget what it knows of them.
    fn note_change(&self, object: ObjectHash) {
        if !self.is_on_its_way() {
            return;
        }
        let mut missed = self.missed.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.is_on_its_way() || missed.too_many {
            return;
        }
        missed.objects.insert(object);
        if missed.objects.len() >= MISSED_MAX {
            *missed = Missed { objects: HashSet::new(), too_many: true };
        }
    }

    /// Whether it is to come online yet.
    pub fn is_on_its_way(&self) -> bool {
        let is_awaited = self.volume.load().is_none() || self.comes_back.load(Ordering::Acquire);
        is_awaited && self.left_out().is_none()
    }

    /// Whether it holds the object's head, and that was not replaced before it was online.
    pub(super) fn holds_newest_head(&self, object: ObjectHash) -> bool {
        !self.doubted.load(Ordering::Relaxed) && self.volume().holds_head(object)
    }

    /// The volume will not come online.
    pub fn leave_out(&self, why: String) {
        // The first reason stays.
        let _ = self.left_out.set(why);
    }

    /// Why it will not come online, if it will not.
    pub fn left_out(&self) -> Option<&str> {
        self.left_out.get().map(String::as_str)
    }

    /// Says what an operator should know of it although it is used, or that there is nothing.
    pub fn set_notice(&self, notice: Option<String>) {
        *self.notice.lock().unwrap_or_else(PoisonError::into_inner) = notice;
    }

    /// What an operator should know of it although it is used.
    pub fn notice(&self) -> Option<String> {
        self.notice.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The volume, once it is open.
    pub fn opened(&self) -> Option<Arc<Volume>> {
        self.volume.load_full()
    }

    /// Not to be held for long: whoever waits has a handle of his own.
    pub(super) fn volume(&self) -> Opened {
        Opened(self.volume.load())
    }

    /// A read came too late: for a while nobody else waits for this volume.
    pub(super) fn was_late(&self) {
        let until = self.started.elapsed() + SLOW_FOR;
        self.slow_until.store(until.as_millis() as u64, Ordering::Relaxed);
    }

    /// Lets a read try it. While it is late none may but one in a while, who finds out for the
    /// others whether it is better: who was let through must read, and say how it went.
    pub(super) fn may_try(&self) -> bool {
        let until = self.slow_until.load(Ordering::Relaxed);
        let now = self.started.elapsed().as_millis() as u64;
        if until == 0 {
            return true;
        }
        if now < until {
            return false;
        }
        // Who wins this finds out for the others.
        let next = now + SLOW_FOR.as_millis() as u64;
        let first =
            self.slow_until.compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed);
        first.is_ok()
    }

    /// A read came in time.
    pub(super) fn was_in_time(&self) {
        if self.slow_until.load(Ordering::Relaxed) != 0 {
            self.slow_until.store(0, Ordering::Relaxed);
        }
    }
}

/// A volume that is open.
pub(super) struct Opened(Guard<Option<Arc<Volume>>>);

impl Deref for Opened {
    type Target = Arc<Volume>;

    fn deref(&self) -> &Arc<Volume> {
        self.0.as_ref().expect("only volumes that are open are looked at")
    }
}

/// Objects whose heads changed while a volume was not online yet.
#[derive(Default)]
struct Missed {
    objects: HashSet<ObjectHash>,
    too_many: bool,
}

/// All volumes of the configuration: places that are filled in their order, and stay filled.
pub struct Volumes(Box<[OnceLock<Arc<TierVolume>>]>);

impl Volumes {
    /// In the order of the configuration.
    ///
    /// # Panics
    /// If there are more than [`VOLUMES_MAX`].
    pub fn new(tier_volumes: Vec<TierVolume>) -> Volumes {
        let volumes = Volumes((0..VOLUMES_MAX).map(|_| OnceLock::new()).collect());
        tier_volumes.into_iter().for_each(|one| volumes.add(Arc::new(one)));
        volumes
    }

    /// One more, behind the others.
    pub(super) fn add(&self, tier_volume: Arc<TierVolume>) {
        let full = self.0.iter().try_fold(tier_volume, |one, place| place.set(one).err());
        assert!(full.is_none(), "a configuration has at most {VOLUMES_MAX} volumes");
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<TierVolume>> {
        self.iter().cloned().collect()
    }

    /// What all of them keep.
    pub fn bytes(&self) -> u64 {
        self.iter().map(|tier_volume| tier_volume.admission.volume_bytes()).sum()
    }

    /// Whether there is none, open or on its way.
    pub(super) fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    fn iter(&self) -> impl Iterator<Item = &Arc<TierVolume>> {
        self.0.iter().map_while(OnceLock::get)
    }

    /// The heads of an object change: volumes that are not online yet will know.
    pub(super) fn note_change(&self, object: ObjectHash) {
        self.iter().for_each(|tier_volume| tier_volume.note_change(object));
    }

    /// Those that are open; one that failed since holds nothing.
    pub(super) fn online(&self) -> impl Iterator<Item = &Arc<TierVolume>> {
        self.iter().filter(|tier_volume| tier_volume.volume.load().is_some())
    }

    /// Where an object's bytes from `start_bytes` on are written.
    pub(super) fn home(&self, object: ObjectHash, start_bytes: u64) -> Option<&Arc<TierVolume>> {
        let is_beyond = start_bytes >= WHOLE_BYTES_MAX;
        let stripe = if is_beyond { start_bytes / STRIPE_BYTES } else { 0 };
        let writable = |tier_volume: &&Arc<TierVolume>| tier_volume.volume().is_writable();
        let score = |tier_volume: &Arc<TierVolume>| {
            let id = tier_volume.volume().id().0.to_le_bytes();
            let seed = (object.0 >> 64) as u64 ^ object.0 as u64;
            let hash = xxh3_64_with_seed(&id, seed.wrapping_add(stripe));
            rendezvous::score(hash, tier_volume.weight)
        };
        let online = self.online().filter(writable);
        online.max_by(|one, other| score(one).total_cmp(&score(other)))
    }
}

/// So much of an object from its start on lies on one volume.
const WHOLE_BYTES_MAX: u64 = 4 << 30;
/// Of what is beyond, so much at a time.
const STRIPE_BYTES: u64 = 1 << 30;
/// Objects that a volume on its way is told of one by one; after more it is doubted as a whole.
const MISSED_MAX: usize = 1 << 16;
/// How long a volume is left alone after it was late: one reader a second pays for finding out
/// whether it is better, and a volume that is well again goes unused for no longer.
const SLOW_FOR: Duration = Duration::from_secs(1);
