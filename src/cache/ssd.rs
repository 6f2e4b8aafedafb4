//! The ssd tier: which volume holds what, and what is written to it.
//!
//! Objects are found by a hash of their site's name and their target, blocks by version and index.
//! Looking up costs memory accesses only; `reads` brings bytes into ram, once for everybody who
//! waits. Nothing here waits for a write. Always holds: what a volume cannot give is a miss, and
//! what ram knows of an object is never older than what a volume knows.

mod begun;
mod bypass;
mod figures;
mod order;
mod reads;
mod recall;
mod tending;
mod volumes;
mod writes;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed, xxh3_128_with_seed};

pub use self::bypass::Asks;
use self::bypass::{Bypass, Lost, Owing};
pub use self::figures::Figures;
use self::order::Order;
pub use self::reads::{Brought, Landed, Recalled, Wanted};
use self::reads::{Reading, Recalling};
pub use self::volumes::{TierVolume, Volumes};
use self::writes::{Admitted, Beside, Writing};
pub use self::writes::{Change, Worth};
use crate::cache::admission::{Decision, Sight, Use as Sighted};
use crate::cache::heads::{Head, Heads, Version};
use crate::cache::ram::{Ram, RamBlock};
use crate::cache::shadow::{Asked, Reader, ShadowReport, ShadowSettings, Shadows};
use crate::limits::{PIECE_SIZE_BYTES, SSD_LIFETIME_MIN, SSD_READ_AHEAD_MAX};
use crate::memory::Governor;
use crate::object::{BlockKey, BlockSize, ObjectKey, PieceMap, SiteId};
use crate::site::{CurrentSites, Keep, Site, Sites};
use crate::store::{ObjectHash, SiteHash};

/// What the tier is made of.
pub struct SsdParts {
    /// Where blocks are served from.
    pub ram: Arc<Ram>,
    /// What is known of objects.
    pub heads: Arc<Heads>,
    /// Every buffer is reserved here.
    pub governor: Arc<Governor>,
    /// The size of a block.
    pub block_size: BlockSize,
    /// Where reads are waited for, so that a viewer who leaves takes none down.
    pub runtime: Handle,
    /// Whose objects: their names outlive their places in the configuration.
    pub sites: Arc<CurrentSites>,
    /// Bytes a second that may be asked of origins because a volume is ill.
    pub bypass_bytes_per_second: u64,
}

/// The tier; one for the process. Without volumes it holds nothing and costs nothing.
pub struct Ssd {
    parts: SsdParts,
    volumes: Volumes,
    reading: Reading,
    recalling: Recalling,
    bypass: Bypass,
    order: Order,
    lost: Lost,
    owing: Owing,
    ahead: Arc<Semaphore>,
    writing: Arc<Writing>,
    shadows: ArcSwapOption<Shadows>,
    figures: Figures,
}

/// What an object is looked for by, and its blocks are judged by.
#[derive(Clone, Debug)]
pub struct Subject {
    key: ObjectKey,
    object: ObjectHash,
    title_hash: u64,
    /// Its rule keeps it in ram alone.
    live: bool,
}

impl Subject {
    fn block_hash(&self, index: u32) -> u64 {
        block_hash(self.object, index)
    }

    /// Without a block, of an object of no bytes: all there is to keep is its head.
    fn sight(&self, index: u32, ram: Option<&RamBlock>, seen: Seen) -> Sight {
        Sight {
            block_hash: self.block_hash(index),
            title_hash: self.title_hash,
            site: self.key.site(),
            bytes: ram.map_or(0, RamBlock::length_bytes),
            kind: match seen {
                Seen::Filled if ram.is_none_or(|ram| ram.pieces().holds(0)) => Sighted::Fill,
                Seen::Filled => Sighted::FillInside,
                Seen::Hit => Sighted::RamHit,
            },
            lifetime_left: Duration::MAX,
            live: self.live,
        }
    }
}

/// How a block came to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It came from an origin.
    Filled,
    /// A viewer found it in ram.
    Hit,
}

/// A request for a part of a block, as the shadow caches are shown it.
#[derive(Clone, Copy, Debug)]
pub struct Shown {
    /// The block's place in its object.
    pub index: u32,
    /// What was asked for of it.
    pub asked_bytes: u64,
    /// What the whole block weighs.
    pub block_bytes: u64,
    /// How the viewer came to it.
    pub reader: Reader,
}

impl Ssd {
    /// A tier whose volumes come online by and by.
    pub fn new(parts: SsdParts, volumes: Volumes) -> Arc<Ssd> {
        let ssd = Ssd {
            shadows: ArcSwapOption::empty(),
            bypass: Bypass::new(parts.bypass_bytes_per_second),
            parts,
            volumes,
            reading: Reading::default(),
            recalling: Recalling::default(),
            order: Order::default(),
            lost: Lost::default(),
            owing: Owing::default(),
            ahead: Arc::new(Semaphore::new(SSD_READ_AHEAD_MAX)),
            writing: Arc::default(),
            figures: Figures::default(),
        };
        ssd.begin_shadows();
        Arc::new(ssd)
    }

    /// One more volume, open or on its way. What the shadow caches knew of a smaller tier they
    /// forget.
    pub fn add(&self, tier_volume: Arc<TierVolume>) {
        self.volumes.add(tier_volume);
        // Those of before give up their memory first.
        self.shadows.store(None);
        self.begin_shadows();
    }

    fn begin_shadows(&self) {
        let ssd_bytes = self.volumes.bytes();
        let settings = ShadowSettings {
            ram_bytes: self.parts.ram.usage().cached_bytes_max,
            ssd_bytes,
            block_bytes_usual: self.parts.block_size.bytes() / 2,
            lifetime_min: SSD_LIFETIME_MIN,
        };
        let shadows = (ssd_bytes > 0).then(|| Arc::new(Shadows::new(settings, Instant::now())));
        self.shadows.store(shadows);
    }

    /// Whether there is anything to look in.
    pub fn is_in_use(&self) -> bool {
        self.volumes.online().next().is_some()
    }

    /// The volumes.
    pub fn volumes(&self) -> &Volumes {
        &self.volumes
    }

    /// What it has done.
    pub fn figures(&self) -> &Figures {
        &self.figures
    }

    /// What another mode of admission and other sizes would serve; `None` without volumes, and in
    /// the first hour.
    pub fn shadows(&self) -> Option<ShadowReport> {
        self.shadows.load().as_ref()?.report()
    }

    /// Shows the shadow caches a request. Once an hour they say which mode of admission is better,
    /// which counts where the write budgets allow it. Of most blocks nothing more than their hash
    /// is reckoned: they are not in the sample.
    pub fn show(&self, key: &ObjectKey, version: &Version, shown: Shown) {
        let shadows = self.shadows.load();
        let Some(shadows) = &*shadows else { return };
        if !shadows.samples(block_hash(self.object(key), shown.index)) {
            return;
        }
        let inside = usize::from(shown.reader == Reader::Inside);
        self.figures.shown[inside].fetch_add(1, Ordering::Relaxed);
        if !shadows.ask(&self.asked(key, version, shown), Instant::now()) {
            return;
        }
        let Some(report) = shadows.report() else { return };
        let all_bytes = self.volumes.bytes();
        for tier_volume in self.volumes.all() {
            let share = tier_volume.admission.volume_bytes() as f64 / all_bytes as f64;
            tier_volume.admission.prefer(report.better.of_share(share));
        }
    }

    fn asked(&self, key: &ObjectKey, version: &Version, shown: Shown) -> Asked {
        let subject = self.subject(key);
        let Shown { index, asked_bytes, block_bytes, reader } = shown;
        let variants = self.parts.heads.variants(key);
        let head = variants.iter().find(|head| head.version.id == version.id);
        Asked {
            block_hash: subject.block_hash(index),
            title_hash: subject.title_hash,
            site: subject.key.site(),
            block_bytes,
            asked_bytes,
            reader,
            // Without its head it would not be written.
            lifetime_left: head.map_or(Duration::ZERO, |head| lifetime_left(head)),
            live: subject.live,
        }
    }

    /// The pieces held of a block, on all volumes together.
    pub fn held(&self, block: &BlockKey) -> PieceMap {
        let maps = self.volumes.online().map(|tier_volume| tier_volume.volume().held(*block));
        maps.fold(PieceMap::default(), PieceMap::union)
    }

    /// The pieces held of a block, and those that were held by a volume that has failed: what an
    /// origin is asked for only on purpose.
    pub fn held_or_lost(&self, block: &BlockKey) -> PieceMap {
        self.held(block).union(self.lost_pieces(block))
    }

    /// What there is to know of an object to look for it, reckoned once for a request.
    pub fn subject(&self, key: &ObjectKey) -> Subject {
        let site = self.site(key.site());
        let (path, site_hash) = (key.path(), self.site_hash(key.site()));
        let title = &path[..path.rfind('/').map_or(0, |slash| slash + 1)];
        Subject {
            key: key.clone(),
            object: self.object(key),
            title_hash: xxh3_64_with_seed(title.as_bytes(), site_hash.0),
            live: site.is_none_or(|site| site.rule_for(path).keep == Keep::Ram),
        }
    }

    /// A viewer came to the first byte of a block that is in ram, or it was filled: it may be worth
    /// keeping. So may an object of no bytes, which is its first block that ram has nothing of.
    /// Never waits.
    pub fn consider(&self, subject: &Subject, version: &Version, index: u32, seen: Seen) {
        if !self.is_in_use() {
            return;
        }
        let block = BlockKey { version: version.id, index };
        let Some(home) = self.volumes.home(subject.object, self.parts.block_size.start_of(index))
        else {
            return;
        };
        let ram = self.parts.ram.peek(&block);
        if ram.is_none() && version.length_bytes() != Some(0) {
            return;
        }
        let mut sight = subject.sight(index, ram.as_deref(), seen);
        if self.holds(subject, version, &block, ram.as_deref()) {
            if seen == Seen::Hit {
                self.used(subject.object, block);
                home.admission.used(&sight);
            }
            return;
        }
        // An object whose length is not known may still grow: it is kept when it has ended.
        if version.length_bytes().is_none() {
            return;
        }
        let variants = self.parts.heads.variants(&subject.key);
        let Some(head) = variants.iter().find(|head| head.version.id == version.id) else { return };
        sight.lifetime_left = lifetime_left(head);
        let Some(writing) = self.writing.begin(subject.object, block) else { return };
        if home.admission.consider(&sight, Instant::now()) != Decision::Admit {
            return;
        }
        self.order.write(subject.object, || {
            // As they are now: another answer may have come meanwhile.
            let variants = self.parts.heads.variants(&subject.key);
            let head = variants.iter().find(|head| head.version.id == version.id);
            let Some(head) = head else { return };
            // An object of no bytes is its head alone.
            let Some(ram) = &ram else {
                let beside = Beside { body: None, writing: Some(writing) };
                self.write_head(subject, &variants, beside);
                return;
            };
            let admitted = Admitted { subject, variants: &variants, ram, writing };
            match is_small(version) && variants.len() == 1 {
                true => self.write_small(admitted),
                false => self.write_block(admitted, head, home),
            }
        });
        if version.is_changed() {
            // Disowned, perhaps before it was on its way.
            self.forget_block(&block);
        }
    }

    /// Whether all that ram has of a block is kept, or the head of an object of no bytes.
    fn holds(
        &self,
        subject: &Subject,
        version: &Version,
        block: &BlockKey,
        ram: Option<&RamBlock>,
    ) -> bool {
        let Some(ram) = ram else {
            // An older one, on a volume that is doubted, is asked about before it is used.
            return self.holds_head(subject.object);
        };
        // Beside other variants its body is a block like others.
        let is_alone = || self.parts.heads.variants(&subject.key).len() == 1;
        if is_small(version) && self.holds_head(subject.object) && is_alone() {
            return true;
        }
        let held = self.held(block);
        held.union(ram.pieces()) == held
    }

    fn used(&self, object: ObjectHash, block: BlockKey) {
        for tier_volume in self.volumes.online() {
            // Both: without its head a block is not found.
            tier_volume.volume().used(block);
            tier_volume.volume().used_head(object);
        }
    }

    /// Lets each site have its share of each volume from now on.
    pub fn share_among(&self, sites: &Sites) {
        for tier_volume in self.volumes.all() {
            tier_volume.share_among(sites);
        }
    }

    /// Whether a volume holds its heads, or did before it failed.
    pub fn may_know(&self, key: &ObjectKey) -> bool {
        let subject = self.subject(key);
        !subject.live && (self.holds_head(subject.object) || self.lost_head(subject.object))
    }

    fn holds_head(&self, object: ObjectHash) -> bool {
        self.volumes.online().any(|tier_volume| tier_volume.volume().holds_head(object))
    }

    fn site(&self, site: SiteId) -> Option<Arc<Site>> {
        self.parts.sites.load().get(site).cloned()
    }

    fn object(&self, key: &ObjectKey) -> ObjectHash {
        let site_hash = self.site_hash(key.site());
        ObjectHash(xxh3_128_with_seed(key.target().as_bytes(), site_hash.0))
    }

    fn site_hash(&self, site: SiteId) -> SiteHash {
        let site = self.site(site);
        SiteHash(xxh3_64(site.as_ref().map_or(&[][..], |site| site.name.as_bytes())))
    }
}

/// Not of the version: a block that comes back is another one's.
fn block_hash(object: ObjectHash, index: u32) -> u64 {
    xxh3_64_with_seed(&object.0.to_le_bytes(), u64::from(index))
}

/// As admission judges it: what is fresh for long enough can be revalidated for ever.
fn lifetime_left(head: &Head) -> Duration {
    let lifetime = head.freshness.lifetime;
    if lifetime < SSD_LIFETIME_MIN { lifetime } else { Duration::MAX }
}

/// Whether its body lies in one record with its head.
fn is_small(version: &Version) -> bool {
    version.length_bytes().is_some_and(|length| (1..=PIECE_SIZE_BYTES).contains(&length))
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use http::{HeaderMap, HeaderValue, StatusCode};

    use super::*;
    use crate::cache::admission::{Admission, AdmissionSettings, AdmissionSizes, Mode};
    use crate::cache::head_record::{ObjectName, encoded};
    use crate::cache::heads::Known;
    use crate::cache::ram::RamSettings;
    use crate::memory::{Class, Use};
    use crate::message::freshness::Freshness;
    use crate::message::response::Stored;
    use crate::message::vary::VariantKey;
    use crate::object::VersionNumbers;
    use crate::site::{Lifetimes, Rule};
    use crate::store::device::{Device, Disk, Faults, Share, Simulated, Simulation, Urgency};
    use crate::store::volume::{HeadWrite, SmallBody, Trust, VolumeSettings};
    use crate::store::{Geometry, Volume, VolumeId};

    const LONG: Duration = Duration::from_secs(3600);

    async fn volume() -> Arc<Volume> {
        simulated().await.1
    }

    async fn simulated() -> (Arc<Simulated>, Arc<Volume>) {
        simulated_for(1_000).await
    }

    async fn simulated_for(index_entries: u64) -> (Arc<Simulated>, Arc<Volume>) {
        let simulation = Simulation { size_bytes: 32 << 20, seed: 1, faults: Faults::default() };
        let device = Arc::new(Simulated::new(&simulation));
        let disk = Disk::new(device.clone());
        let geometry = Geometry::new(32 << 20, 2 << 20, BlockSize::MAX, index_entries).unwrap();
        Volume::format(&disk, geometry, VolumeId(1)).await.unwrap();
        (device, Volume::open(disk, VolumeSettings::default()).await.unwrap())
    }

    fn site(lifetimes: Lifetimes, keep: Keep) -> Site {
        let rules = vec![Rule { lifetimes, keep, ..Rule::everything() }];
        let (name, ssd_percent) = (String::new(), 100);
        Site {
            id: SiteId(0),
            name,
            hosts: vec![],
            origins: vec![],
            share: 1,
            ssd_percent,
            rules,
            edited_before: vec![],
        }
    }

    /// A tier with one volume, which is not online yet.
    fn tier() -> Arc<Ssd> {
        tier_of(0)
    }

    fn tier_of(bypass_bytes_per_second: u64) -> Arc<Ssd> {
        let sizes = AdmissionSizes { volume_bytes: 32 << 20, blocks_max: 32 };
        let settings = AdmissionSettings { mode: Mode::All, ..AdmissionSettings::default() };
        let admission = Admission::new(sizes, settings, Instant::now());
        let ram = RamSettings {
            mapping_bytes: 4 << 20,
            cached_bytes_max: 4 << 20,
            block_size: BlockSize::MAX,
        };
        let parts = SsdParts {
            ram: Ram::new(ram, &Arc::default()).unwrap(),
            heads: Arc::new(Heads::new(4 << 20)),
            governor: Governor::new(16 << 20, 16 << 20, Arc::default()),
            block_size: BlockSize::MAX,
            runtime: Handle::current(),
            sites: Arc::new(CurrentSites::from_pointee(Sites::new(vec![site(
                Lifetimes::default(),
                Keep::Ssd,
            )]))),
            bypass_bytes_per_second,
        };
        let volumes = Volumes::new(vec![TierVolume::new("v".to_owned(), 1, admission)]);
        Ssd::new(parts, volumes)
    }

    fn empty_head(numbers: &VersionNumbers) -> Arc<Head> {
        head_of(numbers, LONG, 0)
    }

    fn head(numbers: &VersionNumbers, lifetime: Duration) -> Arc<Head> {
        head_of(numbers, lifetime, 1 << 20)
    }

    fn head_of(numbers: &VersionNumbers, lifetime: Duration, length: u64) -> Arc<Head> {
        let mut fields = HeaderMap::new();
        fields.insert("etag", HeaderValue::from_static("\"one\""));
        let max_age = format!("max-age={}", lifetime.as_secs());
        fields.insert("cache-control", HeaderValue::from_str(&max_age).unwrap());
        let stored = Stored::new(StatusCode::OK, &fields, UNIX_EPOCH);
        let version = Version::new(numbers.assign(), 0, stored.validator().clone(), Some(length));
        let freshness = Freshness { lifetime, ..Freshness::expired(UNIX_EPOCH) };
        let variant = VariantKey::default();
        let (birth, tags) = Default::default();
        Arc::new(Head { version: Arc::new(version), stored, freshness, variant, birth, tags })
    }

    /// What is known of `key` in ram.
    fn known(ssd: &Ssd, key: &ObjectKey) -> Known {
        ssd.parts.heads.find(key, &HeaderMap::new(), Instant::now())
    }

    #[tokio::test]
    async fn shadow_caches_are_told_how_long_a_block_will_be_fresh() {
        let (ssd, numbers) = (tier(), VersionNumbers::of_epoch(1));
        let key = ObjectKey::new(SiteId(0), "/a");
        let (index, asked_bytes, block_bytes) = (0, 1, 1 << 20);
        let shown = Shown { index, asked_bytes, block_bytes, reader: Reader::Enters };
        let brief = Duration::from_secs(59);
        for (lifetime, told) in [(brief, brief), (LONG, Duration::MAX)] {
            let head = head(&numbers, lifetime);
            ssd.parts.heads.store(key.clone(), head.clone());
            assert_eq!(ssd.asked(&key, &head.version, shown).lifetime_left, told);
        }
        let unknown = head(&numbers, LONG);
        assert_eq!(ssd.asked(&key, &unknown.version, shown).lifetime_left, Duration::ZERO);
    }

    #[tokio::test]
    async fn what_was_forgotten_while_a_volume_was_asked_does_not_come_back() {
        let ssd = tier();
        ssd.volumes.all()[0].come_online(volume().await);
        let (key, numbers) = (ObjectKey::new(SiteId(0), "/a"), VersionNumbers::of_epoch(1));
        let (subject, head) = (ssd.subject(&key), head(&numbers, LONG));
        let heads = &ssd.parts.heads;
        heads.store(key.clone(), head.clone());
        assert!(ssd.write_head(&subject, std::slice::from_ref(&head), Beside::default()));
        heads.forget(&key, head.version.id);
        assert_eq!(ssd.recall(&key).await, Recalled::Found);
        assert!(matches!(known(&ssd, &key), Known::Variant(_)));

        let volume = ssd.volumes.all()[0].volume().clone();
        ssd.order.ask(subject.object);
        let found = volume.read_head(subject.object, Urgency::Viewer).await.unwrap().unwrap();
        ssd.forget(&key, || heads.forget(&key, head.version.id));
        ssd.take_back(&subject, vec![head], found);

        assert!(matches!(known(&ssd, &key), Known::Nothing));
        assert_ne!(ssd.recall(&key).await, Recalled::Found);
        assert_eq!(ssd.figures().recalled(), 1);
    }

    /// Writes the head of an object to the volumes, and lets ram forget it.
    async fn keep_head(ssd: &Ssd, key: &ObjectKey, head: &Arc<Head>) {
        let heads = &ssd.parts.heads;
        heads.store(key.clone(), head.clone());
        assert!(ssd.write_head(&ssd.subject(key), std::slice::from_ref(head), Beside::default()));
        until_written(ssd).await;
        heads.clear();
    }

    async fn until_written(ssd: &Ssd) {
        let waits = |of: &Arc<TierVolume>| of.volume().figures().queue_bytes > 0;
        while ssd.volumes.online().any(waits) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// A block of which all is on the volumes and nothing in ram, but for its object's head.
    struct KeptBlock {
        subject: Subject,
        version: Arc<Version>,
        block: BlockKey,
    }

    async fn keep_block(ssd: &Ssd) -> KeptBlock {
        let (key, head) =
            (ObjectKey::new(SiteId(0), "/a"), head(&VersionNumbers::of_epoch(1), LONG));
        let (subject, version) = (ssd.subject(&key), head.version.clone());
        let block = BlockKey { version: version.id, index: 0 };
        ssd.parts.heads.store(key, head);
        ssd.parts.ram.publish(SiteId(0), block, 0, vec![7; 1 << 20].into());
        ssd.consider(&subject, &version, 0, Seen::Filled);
        until_written(ssd).await;
        ssd.parts.ram.forget(&block);
        KeptBlock { subject, version, block }
    }

    /// The heads of `target` as they are written to a volume, beside the tier.
    fn head_write(object: ObjectHash, target: &str, head: &Arc<Head>) -> HeadWrite {
        let name = ObjectName { site: "", target };
        let payload =
            encoded(name, (&Rule::everything(), &[]), std::slice::from_ref(head)).unwrap();
        let (site, payload, guard) = (SiteHash(0), payload.into(), Box::new(()));
        HeadWrite { object, site, birth: 0, payload, body: None, guard }
    }

    #[tokio::test]
    async fn a_head_from_after_now_is_revalidated_because_the_clock_was_set_back() {
        for (ahead_seconds, is_fresh) in [(30, true), (3600, false)] {
            let ssd = tier();
            ssd.volumes.all()[0].come_online(volume().await);
            let key = ObjectKey::new(SiteId(0), "/a");
            let mut head = head(&VersionNumbers::of_epoch(1), LONG);
            let freshness = &mut Arc::get_mut(&mut head).unwrap().freshness;
            freshness.received_at = SystemTime::now() + Duration::from_secs(ahead_seconds);
            keep_head(&ssd, &key, &head).await;
            assert_eq!(ssd.recall(&key).await, Recalled::Found);
            let Known::Variant(found) = known(&ssd, &key) else { panic!("it was found") };
            assert_eq!(found.freshness.is_fresh(SystemTime::now()), is_fresh, "{ahead_seconds}");
        }
    }

    /// Whether nothing more is to be written, checkpoints included.
    async fn settle(device: &Simulated) {
        loop {
            let before = device.figures().written_bytes;
            tokio::time::sleep(Duration::from_secs(1)).await;
            if device.figures().written_bytes == before {
                return;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_on_a_volume_that_missed_too_much_is_doubted_and_replaced_after_a_kill_too() {
        let (ssd, numbers) = (tier(), VersionNumbers::of_epoch(1));
        let (key, other) = (ObjectKey::new(SiteId(0), "/a"), ObjectKey::new(SiteId(0), "/b"));
        let (device, volume) = simulated().await;
        ssd.volumes.all()[0].come_online(volume.clone());
        for key in [&key, &other] {
            keep_head(&ssd, key, &head(&numbers, LONG)).await;
        }
        volume.close().await;

        // The next process changes the object, and too many others, before it is online again.
        let ssd = tier();
        let newer = head(&numbers, LONG);
        ssd.head_changed(&key, Change::Replaced, || {
            ssd.parts.heads.store(key.clone(), newer.clone());
        });
        (0..1 << 16).for_each(|n| ssd.volumes.note_change(ObjectHash(n)));
        let volume = Volume::open(Disk::new(device.clone()), VolumeSettings::default());
        let volume = volume.await.unwrap();
        ssd.volumes.all()[0].come_online(volume);
        let block = BlockKey { version: newer.version.id, index: 0 };
        ssd.parts.ram.publish(SiteId(0), block, 0, vec![7; 1 << 20].into());
        ssd.consider(&ssd.subject(&key), &newer.version, 0, Seen::Filled);
        settle(&device).await;
        assert_ne!(ssd.held(&block), PieceMap::default());

        let killed = Arc::new(Simulated::from_image(device.image(), 3, Faults::default()));
        let volume = Volume::open(Disk::new(killed), VolumeSettings::default()).await.unwrap();
        let of = |key: &ObjectKey| volume.read_head(ssd.subject(key).object, Urgency::Viewer);
        assert_eq!(of(&other).await.unwrap().unwrap().trust, Trust::MustRevalidate);
        let found = of(&key).await.unwrap().unwrap();
        assert_eq!(found.trust, Trust::Newest);
        let again = tier();
        again.volumes.all()[0].come_online(volume.clone());
        assert_eq!(again.recall(&key).await, Recalled::Found);
        let heads = again.parts.heads.variants(&key);
        assert_eq!(heads[0].version.id, newer.version.id, "the blocks are found by it");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_written_today_is_known_after_a_restart() {
        // With room in its checkpoints for what admission knows.
        let (device, volume) = simulated_for(1 << 16).await;
        volume.close().await;
        let (mut known, mut written) = (Vec::new(), Vec::new());
        for day in [7, 7, 8] {
            let ssd = tier();
            let tier_volume = &ssd.volumes.all()[0];
            let disk = Disk::new(device.clone());
            let volume = Volume::open(disk, VolumeSettings::default()).await.unwrap();
            tier_volume.come_online(volume.clone());
            tier_volume.tend(day);
            known.push(tier_volume.written_today_bytes());
            for number in 0..20 {
                let key = ObjectKey::new(SiteId(0), &format!("/{number}"));
                keep_head(&ssd, &key, &head(&VersionNumbers::of_epoch(1), LONG)).await;
            }
            tier_volume.tend(day);
            written.push(tier_volume.written_today_bytes());
            volume.close().await;
        }
        let granules = |bytes: u64| bytes / 4096;
        assert!(granules(known[0]) < 20 && granules(written[0]) >= 20, "{known:?} {written:?}");
        assert!(known[1] >= written[0], "the same day: {known:?} {written:?}");
        assert!(granules(known[2]) < 20, "another day: {known:?} {written:?}");
    }

    #[tokio::test]
    async fn what_was_written_today_outlives_a_process_that_ends_before_it_is_looked_at() {
        let restored = |saved: &[u8]| {
            let place = tier().volumes.all()[0].clone();
            place.restore(saved).unwrap();
            place
        };
        let mut saved = tier().volumes.all()[0].save();
        let at = saved.len() - 16;
        saved.splice(at.., [7_u64, 5_000].into_iter().flat_map(u64::to_le_bytes));
        let brief = restored(&saved);
        let after = restored(&brief.save());
        after.come_online(volume().await);
        after.tend(7);
        assert!(after.written_today_bytes() >= 5_000, "{}", after.written_today_bytes());
    }

    #[tokio::test]
    async fn an_empty_object_is_written_once_to_a_volume_that_is_doubted_too() {
        let (ssd, numbers) = (tier(), VersionNumbers::of_epoch(1));
        (0..1 << 16).for_each(|n| ssd.volumes.note_change(ObjectHash(n)));
        let volume = volume().await;
        ssd.volumes.all()[0].come_online(volume.clone());
        let key = ObjectKey::new(SiteId(0), "/empty");
        let head = empty_head(&numbers);
        ssd.parts.heads.store(key.clone(), head.clone());
        let subject = ssd.subject(&key);
        ssd.consider(&subject, &head.version, 0, Seen::Filled);
        until_written(&ssd).await;
        let written = volume.figures().written.heads;
        assert!(written > 0);
        for _ in 0..3 {
            ssd.consider(&subject, &head.version, 0, Seen::Hit);
            until_written(&ssd).await;
        }
        assert_eq!(volume.figures().written.heads, written);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_volume_does_not_tell_is_ill_until_it_is_paid_for() {
        let mib = 1 << 20;
        for vanished in [false, true] {
            let (ssd, (device, volume)) = (tier_of(1 << 40), simulated().await);
            ssd.volumes.all()[0].come_online(volume.clone());
            let (key, head) =
                (ObjectKey::new(SiteId(0), "/a"), head(&VersionNumbers::of_epoch(1), LONG));
            keep_head(&ssd, &key, &head).await;
            assert_eq!(ssd.recall(&key).await, Recalled::Found);
            assert!(matches!(known(&ssd, &key), Known::Variant(_)));
            ssd.parts.heads.clear();
            match vanished {
                true => volume.lose(),
                false => device.set_faults(Faults { fail_reads: Share::ALL, ..Faults::default() }),
            }
            let unheard_of = ObjectKey::new(SiteId(0), "/b");
            assert_eq!(ssd.recall(&unheard_of).await, Recalled::NotHeld);
            for _ in 0..2 {
                assert_eq!(ssd.recall(&key).await, Recalled::Ill, "vanished: {vanished}");
                assert_eq!(ssd.order.asked(), 0, "nothing is kept of whom it was asked for");
                assert!(matches!(known(&ssd, &key), Known::Nothing));
            }
            let subject = ssd.subject(&key);
            assert!(ssd.may_bypass(&subject, None, mib, Asks::First));
            assert_eq!(ssd.recall(&key).await, Recalled::NotHeld, "it was asked for");
            // Two blocks long: one is paid for.
            let version =
                Version::new(head.version.id, 0, head.stored.validator().clone(), Some(2 * mib));
            let block = BlockKey { version: version.id, index: 1 };
            let wanted = Wanted {
                site: SiteId(0),
                block,
                first: 0,
                count: 16,
                class: Class::Miss,
                urgency: Urgency::Viewer,
            };
            assert!(matches!(ssd.bring(&subject, &version, wanted).await, Brought::Ill));
            assert!(ssd.owes(&key, Some(2 * mib)) && !ssd.owes(&unheard_of, Some(2 * mib)));
            assert!(ssd.may_go_on(&key, mib));
            assert!(matches!(ssd.bring(&subject, &version, wanted).await, Brought::NotHeld));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_volume_that_is_late_is_ill_and_tells_when_it_is_well() {
        let (ssd, (device, volume)) = (tier(), simulated().await);
        ssd.volumes.all()[0].come_online(volume);
        let (key, head) =
            (ObjectKey::new(SiteId(0), "/a"), head(&VersionNumbers::of_epoch(1), LONG));
        keep_head(&ssd, &key, &head).await;
        let stalled = Faults { stall_reads: Duration::from_secs(60), ..Faults::default() };
        device.set_faults(stalled);
        assert_eq!(ssd.recall(&key).await, Recalled::Ill);
        device.set_faults(Faults::default());
        assert_eq!(ssd.recall(&key).await, Recalled::Ill, "nobody waits for it for a while");
        ssd.volumes.all()[0].was_in_time();
        assert_eq!(ssd.recall(&key).await, Recalled::Found);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_late_device_keeps_stays_reserved_until_it_gives_it_back() {
        let (ssd, (device, volume)) = (tier(), simulated().await);
        ssd.volumes.all()[0].come_online(volume.clone());
        let KeptBlock { subject, version, block } = keep_block(&ssd).await;
        let used = || ssd.parts.governor.used_bytes(Use::Ssd);
        assert_eq!(used(), 0);
        let stalled = Faults { stall_reads: Duration::from_secs(60), ..Faults::default() };
        device.set_faults(stalled);
        let wanted = Wanted {
            site: SiteId(0),
            block,
            first: 0,
            count: 4,
            class: Class::Miss,
            urgency: Urgency::Viewer,
        };
        assert!(matches!(ssd.bring(&subject, &version, wanted).await, Brought::Ill));
        assert_eq!(used(), 4 << 16, "the device may still write into it");
        assert_eq!(ssd.parts.ram.usage().taken_bytes, 4 << 16);
        tokio::time::sleep(Duration::from_secs(61)).await;
        assert_eq!((used(), ssd.parts.ram.usage().taken_bytes), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn heads_are_read_into_memory_that_is_reserved() {
        let (ssd, (device, volume)) = (tier(), simulated().await);
        ssd.volumes.all()[0].come_online(volume);
        let (key, head) =
            (ObjectKey::new(SiteId(0), "/a"), head(&VersionNumbers::of_epoch(1), LONG));
        keep_head(&ssd, &key, &head).await;
        let governor = &ssd.parts.governor;
        let all = governor.try_reserve(Use::Client, Class::Viewer, 16 << 20).unwrap();
        assert_eq!(ssd.recall(&key).await, Recalled::NoMemory);
        drop(all);
        device.set_faults(Faults { stall_reads: Duration::from_secs(60), ..Faults::default() });
        assert_eq!(ssd.recall(&key).await, Recalled::Ill);
        assert_eq!(governor.used_bytes(Use::Ssd), 4096, "the device may still write into it");
        tokio::time::sleep(Duration::from_secs(61)).await;
        assert_eq!(governor.used_bytes(Use::Ssd), 0);
        device.set_faults(Faults::default());
        ssd.volumes.all()[0].was_in_time();
        assert_eq!(ssd.recall(&key).await, Recalled::Found);
        assert_eq!(governor.used_bytes(Use::Ssd), 0);
    }

    #[tokio::test]
    async fn an_object_whose_hash_is_anothers_is_a_miss_until_it_is_filled() {
        let (ssd, volume) = (tier(), volume().await);
        ssd.volumes.all()[0].come_online(volume.clone());
        let keys = ["/a", "/b"].map(|target| ObjectKey::new(SiteId(0), target));
        let head = head(&VersionNumbers::of_epoch(1), LONG);
        // As if "/b" had been chosen so that its hash is that of "/a".
        let object = ssd.subject(&keys[0]).object;
        let body = SmallBody { version: head.version.id, bytes: vec![7; 9].into() };
        let write = HeadWrite { body: Some(body), ..head_write(object, "/b", &head) };
        volume.append_head(write).unwrap();
        assert_eq!(ssd.recall(&keys[0]).await, Recalled::NotHeld);
        assert!(matches!(known(&ssd, &keys[0]), Known::Nothing));
        assert_eq!(ssd.parts.ram.usage().blocks, 0, "nothing of it is taken");

        let heads = &ssd.parts.heads;
        let filled = || heads.store(keys[0].clone(), head.clone());
        ssd.head_changed(&keys[0], Change::Replaced, filled);
        heads.clear();
        assert_eq!(ssd.recall(&keys[0]).await, Recalled::Found, "it has taken the other's place");
        assert!(matches!(known(&ssd, &keys[0]), Known::Variant(_)));
    }

    #[tokio::test]
    async fn pieces_of_a_volume_that_has_failed_are_lost_one_by_one() {
        let (ssd, volume) = (tier_of(1 << 40), volume().await);
        ssd.volumes.all()[0].come_online(volume.clone());
        let KeptBlock { subject, version, block } = keep_block(&ssd).await;
        assert_eq!(ssd.held_or_lost(&block), PieceMap::run(0, 16));
        volume.lose();
        assert_eq!(ssd.held(&block), PieceMap::default());
        assert_eq!(ssd.held_or_lost(&block), PieceMap::run(0, 16));
        let wanted = |first, count| Wanted {
            site: SiteId(0),
            block,
            first,
            count,
            class: Class::Miss,
            urgency: Urgency::Viewer,
        };
        let brought = |wanted| ssd.bring(&subject, &version, wanted);
        assert!(matches!(brought(wanted(3, 2)).await, Brought::Ill));
        assert!(ssd.may_bypass(&subject, Some(&wanted(3, 2)), 2 << 16, Asks::First));
        assert!(matches!(brought(wanted(4, 1)).await, Brought::NotHeld));
        assert!(matches!(brought(wanted(5, 1)).await, Brought::Ill));
        assert!(ssd.may_bypass(&subject, Some(&wanted(0, 16)), 1 << 20, Asks::First));
        assert_eq!(ssd.held_or_lost(&block), PieceMap::default());
        volume.close().await;
    }

    #[tokio::test]
    async fn a_block_whose_version_is_replaced_on_its_way_is_not_kept() {
        let (ssd, volume) = (tier(), volume().await);
        ssd.volumes.all()[0].come_online(volume.clone());
        let (key, numbers) = (ObjectKey::new(SiteId(0), "/a"), VersionNumbers::of_epoch(1));
        let (old, new) = (head(&numbers, LONG), head(&numbers, LONG));
        let (subject, heads) = (ssd.subject(&key), &ssd.parts.heads);
        let block = |head: &Head| BlockKey { version: head.version.id, index: 0 };
        for head in [&old, &new] {
            ssd.head_changed(&key, Change::Replaced, || heads.store(key.clone(), head.clone()));
            ssd.parts.ram.publish(SiteId(0), block(head), 0, vec![7; 1 << 20].into());
            ssd.consider(&subject, &head.version, 0, Seen::Filled);
        }
        // Its origin sent more than it had promised: nothing of it is believed.
        let (disowned, other) = (head(&numbers, LONG), ObjectKey::new(SiteId(0), "/b"));
        heads.store(other.clone(), disowned.clone());
        ssd.parts.ram.publish(SiteId(0), block(&disowned), 0, vec![8; 1 << 20].into());
        disowned.version.mark_changed();
        ssd.consider(&ssd.subject(&other), &disowned.version, 0, Seen::Filled);
        until_written(&ssd).await;
        assert_eq!(ssd.held(&block(&old)), PieceMap::default());
        assert_eq!(ssd.held(&block(&disowned)), PieceMap::default());
        assert_eq!(ssd.held(&block(&new)), PieceMap::run(0, 16));
    }

    #[tokio::test]
    async fn what_changed_before_a_volume_was_online_is_not_found_on_it() {
        let (ssd, volume) = (tier(), volume().await);
        let numbers = VersionNumbers::of_epoch(1);
        let (old, new) = (head(&numbers, LONG), head(&numbers, LONG));
        let keys = ["/a", "/b"].map(|target| ObjectKey::new(SiteId(0), target));
        for key in &keys {
            let write = head_write(ssd.subject(key).object, key.target(), &old);
            volume.append_head(write).unwrap();
        }

        let heads = &ssd.parts.heads;
        ssd.head_changed(&keys[0], Change::Replaced, || heads.store(keys[0].clone(), new.clone()));
        ssd.volumes.all()[0].come_online(volume);
        heads.forget(&keys[0], new.version.id);

        assert_ne!(ssd.recall(&keys[0]).await, Recalled::Found);
        assert_eq!(ssd.recall(&keys[1]).await, Recalled::Found);
    }
}
