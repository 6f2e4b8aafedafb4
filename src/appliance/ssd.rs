//! The volumes of the ssd tier: opened at the start.
//!
//! What is wrong with a volume leaves it out: a device that is gone or ill, a superblock that is
//! damaged, what is no volume at all; nothing is written to it, and the others are used. What is
//! wrong with the settings, or cannot be made as they say, is refused before a port is bound; so is
//! a volume that somebody else uses, who would lose it to us or we to him, unless that is the
//! process before this one, which has a write under way. A volume that takes long to come online
//! does so while viewers are served.

mod added;
mod device;
mod given;
mod ill;
mod paths;
mod roll;
mod sample;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::timeout;

pub(super) use self::added::{Added, Tier, unusable};
use self::device::{Made, NoDevice, device_of, freed};
pub(super) use self::given::{close, hand_over, leave_untold, take_back};
pub(super) use self::ill::Watch;
use self::paths::Named;
pub use self::roll::{LeftOut, look_at_failed, look_at_volumes};
use self::roll::{Roll, Unfit, look_at_new, refusal};
pub(super) use self::sample::sample;
use super::ApplianceError;
use crate::cache::admission::{Admission, AdmissionSettings, AdmissionSizes, Mode};
use crate::cache::shadow::Shadows;
use crate::cache::ssd::{Ssd, SsdParts, TierVolume, Volumes};
use crate::config::paths::absolute;
use crate::config::{self, Config, SsdVolume};
use crate::object::BlockSize;
use crate::site::Sites;
use crate::store::device::Disk;
use crate::store::format::{Superblock, VolumeId};
use crate::store::remembered::{Illness, Remembered};
use crate::store::volume::{VolumeError, VolumeSettings};
use crate::store::{Volume, shell_word};

/// How a process comes to its volumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// Nobody else has them.
    Alone,
    /// The process before this one handed them over, as far as their disks let it.
    Follows,
    /// It had them, and handed them over to one that follows no more.
    Again,
}

/// Opens every volume, makes those that are not there, and brings them online.
///
/// # Errors
/// The first thing that an operator must look at.
pub(super) fn start(
    config: &Config,
    tier: SsdParts,
    start: Start,
) -> Result<(Arc<Ssd>, Watch), ApplianceError> {
    let (name, config) = (&config.file, &config.ssd);
    look_at_new(name, config).map_err(ApplianceError::Settings)?;
    let file = Remembered::at(&config.state);
    let ill = ill::remembered(&file);
    let in_use = Arc::new(file.knows().then(|| file.in_use()));
    let runtime = tier.runtime.clone();
    let (block_size, sites) = (tier.block_size, tier.sites.load_full());
    let tier_volumes =
        config.volumes.iter().map(|one| tier_volume(config, one, block_size, &sites)).collect();
    let ssd = Ssd::new(tier, Volumes::new(tier_volumes));
    let (mut looked_at, named) = look(config, &ssd, (block_size, start), &file.paths(), &runtime)?;
    let roll = Arc::new(Mutex::new(Roll::new(config, block_size)));
    let until = Instant::now() + LOOKED_AT_WITHIN;
    for one in &mut looked_at {
        one.judged = runtime.block_on(one.judge(&roll, until));
    }
    // Of what nobody knows yet nothing can be said against the settings.
    let judged = looked_at.iter().map(|one| {
        let unfit = one.judged.as_ref().and_then(|judged| judged.as_ref().err());
        (&one.set, unfit)
    });
    if let Some(refused) = refusal(name, judged) {
        return Err(ApplianceError::Settings(refused));
    }
    let known = Known { file: file.clone(), roll, ill, in_use };
    let told = bring_online(looked_at, &known, ONLINE_WITHIN, &runtime);
    ill::begin(&file, told, paths_of(config));
    runtime.spawn(ssd.clone().tend());
    let watch = Watch::start(file, ssd.clone(), named, &runtime);
    Ok((ssd, watch))
}

/// What is known of volumes before they are opened.
struct Known {
    file: Remembered,
    roll: Arc<Mutex<Roll>>,
    ill: Arc<BTreeMap<u128, Illness>>,
    /// Those that were told of every change before.
    in_use: Arc<Option<BTreeSet<u128>>>,
}

/// Opens them together; those that are told of every change from now on. One that takes longer
/// comes online by itself.
fn bring_online(
    looked_at: Vec<LookedAt>,
    known: &Known,
    within: Duration,
    runtime: &Handle,
) -> BTreeSet<u128> {
    let mut opening = Vec::new();
    for one in looked_at {
        let tier_volume = one.tier_volume.clone();
        let (roll, ill, in_use) = (known.roll.clone(), known.ill.clone(), known.in_use.clone());
        let online = runtime
            .spawn(async move { one.come_online(&roll, &ill, in_use.as_ref().as_ref()).await });
        opening.push(Opening { tier_volume, online, file: known.file.clone() });
    }
    let until = Instant::now() + within;
    let mut told = BTreeSet::new();
    for one in opening {
        told.extend(runtime.block_on(one.wait(until)).map(|id| id.0));
    }
    told
}

/// Opens every device that is there, and begins to read what each volume says of itself.
fn look(
    config: &config::Ssd,
    ssd: &Ssd,
    (block_size, start): (BlockSize, Start),
    known: &BTreeSet<PathBuf>,
    runtime: &Handle,
) -> Result<(Vec<LookedAt>, Vec<Named>), ApplianceError> {
    let (mut looked_at, mut named) = (Vec::new(), Vec::new());
    let _inside = runtime.enter();
    let until = Instant::now() + FREED_WITHIN;
    let all = ssd.volumes().all();
    let wanted = config.volumes.iter().zip(&all).filter(|(_, one)| one.left_out().is_none());
    for (volume, tier_volume) in wanted {
        let was_known = known.contains(&absolute(&volume.path));
        let open = || device_of(config, volume, block_size, was_known, runtime);
        let opened = if start == Start::Again { freed(&volume.name, until, open) } else { open() };
        let device = match opened {
            Ok((device, made)) => {
                made.into_iter().for_each(Made::keep);
                device
            }
            Err(NoDevice::InUse(why)) if start == Start::Follows => {
                leave_out(tier_volume, &format!("it was not handed over in time: {why}"));
                continue;
            }
            Err(NoDevice::InUse(why) | NoDevice::Refused(why)) if start == Start::Again => {
                leave_out(tier_volume, &why);
                continue;
            }
            Err(NoDevice::Refused(reason) | NoDevice::InUse(reason)) => {
                return Err(ApplianceError::Volume { name: volume.name.clone(), reason });
            }
            Err(NoDevice::Gone(why)) => {
                leave_out(tier_volume, &why);
                continue;
            }
        };
        if volume.simulate.is_none() {
            named.extend(Named::now(tier_volume.clone(), absolute(&volume.path)));
        }
        let disk = Disk::new(device);
        let read = disk.clone();
        looked_at.push(LookedAt {
            tier_volume: tier_volume.clone(),
            set: volume.clone(),
            superblock: runtime.spawn(async move { Volume::superblock(&read).await }),
            judged: None,
            disk,
            settings: settings(config, volume, block_size),
        });
    }
    Ok((looked_at, named))
}

/// A volume whose device is there; nothing has been written to it yet.
struct LookedAt {
    tier_volume: Arc<TierVolume>,
    set: SsdVolume,
    superblock: JoinHandle<Result<Superblock, VolumeError>>,
    /// `None` while it is not known what is there.
    judged: Option<Result<VolumeId, Unfit>>,
    disk: Disk,
    settings: VolumeSettings,
}

impl LookedAt {
    /// Whether it is used, if that is known in time.
    async fn judge(
        &mut self,
        roll: &Mutex<Roll>,
        until: Instant,
    ) -> Option<Result<VolumeId, Unfit>> {
        let left = until.saturating_duration_since(Instant::now());
        let read = timeout(left, &mut self.superblock).await.ok()?;
        Some(entered(roll, &self.tier_volume.name, read))
    }

    /// Opens it, if it is used, and has it serve: it, if it is told of every change from then on;
    /// `in_use` are those that were told of every change before.
    async fn come_online(
        self,
        roll: &Mutex<Roll>,
        ill: &BTreeMap<u128, Illness>,
        in_use: Option<&BTreeSet<u128>>,
    ) -> Result<Option<VolumeId>, String> {
        let (path, tier_volume) = (self.set.path.clone(), self.tier_volume.clone());
        let volume = self.open(roll, ill).await.map_err(|unfit| unfit.told_of(&path))?;
        let told = ill::catch_up(&tier_volume.name, &volume, in_use).await;
        tier_volume.come_online(volume);
        Ok(told)
    }

    /// Opens it, if it is used; it is no better than it is remembered.
    async fn open(
        self,
        roll: &Mutex<Roll>,
        ill: &BTreeMap<u128, Illness>,
    ) -> Result<Arc<Volume>, Unfit> {
        let id = match self.judged {
            Some(judged) => judged?,
            None => entered(roll, &self.tier_volume.name, self.superblock.await)?,
        };
        let left_as = ill.get(&id.0).map(Illness::brought_back).unwrap_or_default();
        let settings = VolumeSettings { left_as, ..self.settings };
        Volume::open(self.disk, settings).await.map_err(Unfit::Volume)
    }
}

fn entered(
    roll: &Mutex<Roll>,
    name: &str,
    read: Result<Result<Superblock, VolumeError>, JoinError>,
) -> Result<VolumeId, Unfit> {
    let read = read.map_err(|panicked| Unfit::Unreadable(panicked.to_string()))?;
    let found = read.map_err(Unfit::Volume)?;
    let mut roll = roll.lock().unwrap_or_else(PoisonError::into_inner);
    roll.enter(name, found.geometry(), found.id())?;
    Ok(found.id())
}

/// A volume on its way.
struct Opening {
    tier_volume: Arc<TierVolume>,
    online: JoinHandle<Result<Option<VolumeId>, String>>,
    file: Remembered,
}

impl Opening {
    /// Waits for a while; then it comes online by itself. The volume, if it is told of every change
    /// from now on.
    async fn wait(mut self, until: Instant) -> Option<VolumeId> {
        let left = until.saturating_duration_since(Instant::now());
        match timeout(left, &mut self.online).await {
            Ok(ended) => self.ended(ended),
            Err(_) => {
                tokio::spawn(async move {
                    let ended = (&mut self.online).await;
                    if let Some(told) = self.ended(ended) {
                        self.believe(told).await;
                    }
                });
                None
            }
        }
    }

    /// What it missed is on it until a checkpoint tells otherwise.
    async fn believe(self, told: VolumeId) {
        if let Some(volume) = self.tier_volume.opened()
            && volume.checkpoint().await
        {
            ill::keep_up(self.file, told).await;
        }
    }

    fn ended(
        &self,
        ended: Result<Result<Option<VolumeId>, String>, JoinError>,
    ) -> Option<VolumeId> {
        match ended {
            Ok(Ok(told)) => return told,
            Ok(Err(why)) => leave_out(&self.tier_volume, &why),
            Err(panicked) => leave_out(&self.tier_volume, &panicked),
        }
        None
    }
}

/// Nobody looks again before the next start.
fn leave_out(tier_volume: &TierVolume, why: &dyn fmt::Display) {
    let why = format!("left out until the next start: {why}");
    tracing::error!("volume {} is {why}", tier_volume.name);
    tier_volume.leave_out(why);
}

/// A volume that is on its way yet, if there is one.
pub(super) fn on_its_way(ssd: &Ssd) -> Option<String> {
    let mut all = ssd.volumes().all().into_iter();
    let one = all.find(|one| one.is_on_its_way());
    one.map(|one| one.name.clone())
}

/// Waits until none is, while another process serves viewers and reads from them, but not for ever.
/// Blocks.
pub(super) fn until_online(ssd: &Ssd, is_served: impl Fn() -> bool) {
    let until = Instant::now() + ONLINE_BEFORE_SERVING_WITHIN;
    while on_its_way(ssd).is_some() && is_served() && Instant::now() < until {
        thread::sleep(LOOK_AGAIN);
    }
}

/// What the tier takes in memory beside its index: what admission has seen, twice while it is
/// saved, and the shadow caches.
pub(super) fn beside_index_bytes(config: &Config) -> u64 {
    let volumes = &config.ssd.volumes;
    let seen = |volume| 2 * Admission::bytes_for(&admission_sizes(volume, config.block_size));
    let blocks = volumes.iter().map(|v| v.size_bytes).sum::<u64>() / config.block_size.bytes();
    let shadows = if volumes.is_empty() { 0 } else { Shadows::bytes_for(blocks) };
    volumes.iter().map(seen).sum::<u64>() + shadows
}

fn admission_sizes(volume: &SsdVolume, block_size: BlockSize) -> AdmissionSizes {
    let volume_bytes = volume.size_bytes;
    AdmissionSizes { volume_bytes, blocks_max: volume_bytes / block_size.bytes() }
}

fn tier_volume(
    config: &config::Ssd,
    volume: &SsdVolume,
    block_size: BlockSize,
    sites: &Sites,
) -> TierVolume {
    let sizes = admission_sizes(volume, block_size);
    let settings = AdmissionSettings {
        mode: match config.admission {
            config::Admission::Budget => Mode::Budget,
            config::Admission::All => Mode::All,
            config::Admission::PlannedOnly => Mode::PlannedOnly,
        },
        write_bytes_per_day: Some(volume.writes_per_day_bytes),
        ..AdmissionSettings::default()
    };
    let admission = Admission::new(sizes, settings, Instant::now());
    let tier_volume = TierVolume::new(volume.name.clone(), volume.weight, admission);
    tier_volume.share_among(sites);
    tier_volume
}

fn settings(config: &config::Ssd, volume: &SsdVolume, block_size: BlockSize) -> VolumeSettings {
    let (name, block) = (volume.name.clone(), Some(block_size));
    let (remedy, read_deadline) = (remedy(config, volume), config.read_deadline);
    VolumeSettings { name, remedy, block, read_deadline, ..VolumeSettings::default() }
}

/// What to type when the volume has failed.
fn remedy(config: &config::Ssd, volume: &SsdVolume) -> String {
    let [path, state] = [&volume.path, &config.state].map(|path| shell_word(path));
    format!(
        "`tidegate volume forgive {path} --state {state}` takes it for well from the next start \
         on; `tidegate volume verify {path} --state {state}`, when the appliance is stopped, reads \
         all of it"
    )
}

/// Where volumes are; a simulated one is nowhere.
fn paths_of(config: &config::Ssd) -> BTreeSet<PathBuf> {
    let real = config.volumes.iter().filter(|volume| volume.simulate.is_none());
    real.map(|volume| absolute(&volume.path)).collect()
}

/// How long a start waits until it is known what lies on its devices: which of two copies is used
/// must not depend on which answers first.
const LOOKED_AT_WITHIN: Duration = Duration::from_secs(1);
/// How long it waits for its volumes then.
const ONLINE_WITHIN: Duration = Duration::from_secs(2);
/// How long it does where another process serves meanwhile, which waits for it.
const ONLINE_BEFORE_SERVING_WITHIN: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// How long all of them are waited for where another process had them: it was killed.
const FREED_WITHIN: Duration = Duration::from_secs(10);
/// How long an end waits for each.
const CLOSED_WITHIN: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use xxhash_rust::xxh3::{xxh3_64, xxh3_128_with_seed};

    use super::*;
    use crate::cache::heads::Heads;
    use crate::cache::ram::{Ram, RamSettings};
    use crate::cache::ssd::Change;
    use crate::memory::Governor;
    use crate::object::{ObjectKey, SiteId};
    use crate::site::CurrentSites;
    use crate::store::device::{Faults, Simulated, Simulation, Urgency};
    use crate::store::volume::HeadWrite;
    use crate::store::{Geometry, ObjectHash, SiteHash};

    const KEY: &str = "/a";

    fn tier() -> Arc<Ssd> {
        let text = "listeners.http = [\"127.0.0.1:0\"]\n[[sites]]\nname = \"a\"\nhosts = [\"a\"]\n\
                    [[sites.origins]]\nurl = \"http://o\"\n";
        let config = Config::from_toml(text, "test.toml").unwrap();
        let (mapping_bytes, block_size) = (4 << 20, BlockSize::MAX);
        let ram = RamSettings { mapping_bytes, cached_bytes_max: mapping_bytes, block_size };
        let parts = SsdParts {
            ram: Ram::new(ram, &Arc::default()).unwrap(),
            heads: Arc::new(Heads::new(4 << 20)),
            governor: Governor::new(16 << 20, 16 << 20, Arc::default()),
            block_size,
            runtime: Handle::current(),
            sites: Arc::new(CurrentSites::from_pointee(config.sites)),
            bypass_bytes_per_second: 0,
        };
        let sizes = AdmissionSizes { volume_bytes: 32 << 20, blocks_max: 32 };
        let admission = Admission::new(sizes, AdmissionSettings::default(), Instant::now());
        Ssd::new(parts, Volumes::new(vec![TierVolume::new("v".to_owned(), 1, admission)]))
    }

    async fn opened(device: &Arc<Simulated>) -> Arc<Volume> {
        Volume::open(Disk::new(device.clone()), VolumeSettings::default()).await.unwrap()
    }

    #[tokio::test]
    async fn a_volume_that_comes_back_is_on_its_way_until_it_is_online_or_left_out() {
        let simulation = Simulation { size_bytes: 32 << 20, seed: 1, faults: Faults::default() };
        let device = Arc::new(Simulated::new(&simulation));
        let geometry = Geometry::new(32 << 20, 2 << 20, BlockSize::MAX, 1_000).unwrap();
        Volume::format(&Disk::new(device.clone()), geometry, VolumeId(1)).await.unwrap();
        let ssd = tier();
        let tier_volume = ssd.volumes().all()[0].clone();
        for left_out in [false, true] {
            tier_volume.come_online(opened(&device).await);
            assert_eq!(on_its_way(&ssd), None);
            tier_volume.comes_back();
            assert_eq!(on_its_way(&ssd).as_deref(), Some("v"));
            if left_out {
                leave_out(&tier_volume, &"a test");
                assert_eq!(on_its_way(&ssd), None);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_volume_is_believed_when_what_it_missed_is_forgotten_after_a_kill_too() {
        let simulation = Simulation { size_bytes: 32 << 20, seed: 1, faults: Faults::default() };
        let device = Arc::new(Simulated::new(&simulation));
        let geometry = Geometry::new(32 << 20, 2 << 20, BlockSize::MAX, 1_000).unwrap();
        let disk = Disk::new(device.clone());
        Volume::format(&disk, geometry, VolumeId(1)).await.unwrap();
        let object = ObjectHash(xxh3_128_with_seed(KEY.as_bytes(), xxh3_64(b"a")));
        let volume = opened(&device).await;
        let (site, payload, guard) = (SiteHash(1), "a head".into(), Box::new(()));
        let head = HeadWrite { object, site, birth: 0, payload, body: None, guard };
        volume.append_head(head).unwrap();
        volume.close().await;

        let (ssd, volume) = (tier(), opened(&device).await);
        assert!(volume.holds_head(object));
        let key = ObjectKey::new(SiteId(0), KEY);
        ssd.head_changed(&key, Change::Replaced, || ());
        let (folder, tier_volume) = (tempfile::tempdir().unwrap(), ssd.volumes().all()[0].clone());
        let file = Remembered::at(&folder.path().join("volumes.json"));
        let late = tier_volume.clone();
        let online = tokio::spawn(async move {
            late.come_online(volume);
            Ok(Some(VolumeId(1)))
        });
        let opening = Opening { tier_volume, online, file: file.clone() };
        assert_eq!(opening.wait(Instant::now()).await, None);
        while file.in_use().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let killed = Simulated::from_image(device.image(), 1, Faults::default());
        let again = opened(&Arc::new(killed)).await;
        assert_eq!(again.read_head(object, Urgency::Viewer).await.unwrap(), None);
    }
}
