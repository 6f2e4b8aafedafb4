//! Volumes that a reload adds. All that could be refused is found out before anything changes: the
//! device is opened, or made first; what it says of itself fits the others; there is memory for
//! what is known of it; it opens. One that takes long to open comes online later, as at a start. A
//! file that was made for what is refused is removed again.
//!
//! It was away: what it knows of objects counts when their origin has confirmed it, and what was
//! purged meanwhile is covered, since its heads carry their births.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::time::timeout;

use super::device::{Made, NoDevice, device_of};
use super::paths::Named;
use super::roll::Roll;
use super::{CLOSED_WITHIN, LookedAt, ONLINE_WITHIN, Opening, Watch, beside_index_bytes};
use super::{ill, on_its_way, settings, tier_volume};
use crate::cache::ssd::Ssd;
use crate::config::paths::absolute;
use crate::config::units::bytes_text;
use crate::config::{Config, ConfigError, SsdVolume};
use crate::memory::{Class, Governor, Reservation, Use};
use crate::site::Sites;
use crate::store::Volume;
use crate::store::device::Disk;
use crate::store::format::VolumeId;
use crate::store::remembered::Remembered;

/// What volumes are added to.
pub(in crate::appliance) struct Tier<'a> {
    pub(in crate::appliance) ssd: &'a Ssd,
    pub(in crate::appliance) watch: &'a Watch,
    pub(in crate::appliance) sites: &'a Sites,
    pub(in crate::appliance) governor: &'a Arc<Governor>,
    pub(in crate::appliance) runtime: &'a Handle,
}

/// Volumes that are open, or on their way, and that nobody uses yet.
#[derive(Default)]
pub(in crate::appliance) struct Added {
    came: Vec<Came>,
    reserved: Vec<Reservation>,
    /// Files of theirs that were not there.
    made: Vec<Made>,
}

struct Came {
    opening: Opening,
    named: Option<Named>,
    set: SsdVolume,
    /// The volume, if it is told of every change from now on; `None` while it is on its way.
    told: Option<Option<VolumeId>>,
}

impl Added {
    /// Those of `config` that are `added` to what was `before`. Blocks, but within a bound.
    ///
    /// # Errors
    /// Which one cannot be used, and why; none is.
    pub(in crate::appliance) fn open(
        before: &Config,
        config: &Config,
        added: &[SsdVolume],
        tier: &Tier<'_>,
    ) -> Result<Added, ConfigError> {
        let of_all = |text| ConfigError { file: config.file.clone(), place: None, text };
        let mut all = Added::default();
        if added.is_empty() {
            return Ok(all);
        }
        if let Some(volume) = on_its_way(tier.ssd) {
            let text = format!("volume {volume} is not online yet; reload again when it is");
            return Err(of_all(text));
        }
        let beside_bytes = beside_index_bytes(config).saturating_sub(beside_index_bytes(before));
        all.reserve(tier, beside_bytes).map_err(of_all)?;
        let roll = Arc::new(Mutex::new(roll_of(config, tier.ssd).map_err(of_all)?));
        let index_left_bytes = || lock(&roll).index_left_bytes;
        let (index_before_bytes, until) = (index_left_bytes(), Instant::now() + LOOKED_AT_WITHIN);
        let mut looked_at = Vec::new();
        for set in added {
            let looked = look(config, set, &roll, tier, until);
            let (one, made) = looked.map_err(|why| unusable(&config.file, set, &why))?;
            looked_at.push(one);
            all.made.extend(made);
        }
        all.reserve(tier, index_before_bytes - index_left_bytes()).map_err(of_all)?;
        all.come_online(looked_at, config, &roll, tier)?;
        Ok(all)
    }

    /// Memory that nobody else has then.
    fn reserve(&mut self, tier: &Tier<'_>, bytes: u64) -> Result<(), String> {
        // Like heads it says what is known of objects, and like theirs it is never given back.
        let reserved = tier.governor.try_reserve(Use::Heads, Class::Miss, bytes);
        let short = || {
            let size = bytes_text(bytes);
            format!(
                "there is no memory free for what is to be known of the volumes that are added, \
                 {size}; raise `memory.total` and restart"
            )
        };
        self.reserved.push(reserved.ok_or_else(short)?);
        Ok(())
    }

    fn come_online(
        &mut self,
        looked_at: Vec<LookedAt>,
        config: &Config,
        roll: &Arc<Mutex<Roll>>,
        tier: &Tier<'_>,
    ) -> Result<(), ConfigError> {
        let file = Remembered::at(&config.ssd.state);
        let ill = Arc::new(file.all().0);
        for one in looked_at {
            let (tier_volume, roll, ill) = (one.tier_volume.clone(), roll.clone(), ill.clone());
            let (set, path) = (one.set.clone(), absolute(&one.set.path));
            let is_somewhere = set.simulate.is_none();
            let named = is_somewhere.then(|| Named::now(tier_volume.clone(), path)).flatten();
            // None that others have told of every change.
            let online = async move { one.come_online(&roll, &ill, Some(&BTreeSet::new())).await };
            let online = tier.runtime.spawn(online);
            let opening = Opening { tier_volume, online, file: file.clone() };
            self.came.push(Came { opening, named, set, told: None });
        }
        let until = Instant::now() + ONLINE_WITHIN;
        let ended = self.came.iter_mut().try_for_each(|came| {
            let left = until.saturating_duration_since(Instant::now());
            let waited = async { timeout(left, &mut came.opening.online).await };
            let Ok(ended) = tier.runtime.block_on(waited) else { return Ok(()) };
            let told = ended.map_err(|panicked| panicked.to_string()).flatten();
            came.told = Some(told.map_err(|why| unusable(&config.file, &came.set, &why))?);
            Ok(())
        });
        if ended.is_err() {
            std::mem::take(&mut self.came).into_iter().for_each(|came| came.give_up(tier));
        }
        ended
    }

    /// Those that come online later.
    pub(in crate::appliance) fn late(&self) -> impl Iterator<Item = &str> {
        let late = self.came.iter().filter(|came| came.told.is_none());
        late.map(|came| came.opening.tier_volume.name.as_str())
    }

    /// They are used from now on; the memory that they take.
    pub(in crate::appliance) fn adopt(self, tier: &Tier<'_>) -> Vec<Reservation> {
        self.made.into_iter().for_each(Made::keep);
        for Came { mut opening, named, told, .. } in self.came {
            tier.ssd.add(opening.tier_volume.clone());
            let path = named.as_ref().map(|named| named.path().to_owned());
            named.into_iter().for_each(|named| tier.watch.add(named));
            tier.runtime.spawn(async move {
                if let Some(path) = path {
                    ill::know_path(&opening.file, path).await;
                }
                let told = match told {
                    Some(told) => told,
                    None => {
                        let ended = (&mut opening.online).await;
                        opening.ended(ended)
                    }
                };
                if let Some(told) = told {
                    opening.believe(told).await;
                }
            });
        }
        self.reserved
    }
}

impl Came {
    /// Another one cannot be used: this one is not either.
    fn give_up(self, tier: &Tier<'_>) {
        self.opening.online.abort();
        if let Some(volume) = self.opening.tier_volume.opened() {
            let closed = async { timeout(CLOSED_WITHIN, volume.close()).await };
            // One that does not close in time starts from its log.
            let _ = tier.runtime.block_on(closed);
        }
    }
}

/// Why a volume cannot be added, and where it is written.
pub(in crate::appliance) fn unusable(file: &str, set: &SsdVolume, why: &str) -> ConfigError {
    let text = format!("volume {}: {why}", set.name);
    ConfigError { file: file.to_owned(), place: Some(set.place), text }
}

/// What is there and fits the others, before anything is written to it; the file, if it was made.
fn look(
    config: &Config,
    set: &SsdVolume,
    roll: &Mutex<Roll>,
    tier: &Tier<'_>,
    until: Instant,
) -> Result<(LookedAt, Option<Made>), String> {
    let (ssd, block_size) = (config.ssd.clone(), config.block_size);
    let was_known = Remembered::at(&ssd.state).paths().contains(&absolute(&set.path));
    let (volume, runtime) = (set.clone(), tier.runtime.clone());
    let opened = tier
        .runtime
        .spawn_blocking(move || device_of(&ssd, &volume, block_size, was_known, &runtime));
    let left = until.saturating_duration_since(Instant::now());
    let opened = tier.runtime.block_on(async { timeout(left, opened).await });
    let opened = opened.map_err(|_| SILENT.to_owned())?.map_err(|error| error.to_string())?;
    let opened =
        opened.map_err(|(NoDevice::Gone(why) | NoDevice::InUse(why) | NoDevice::Refused(why))| why);
    let (device, made) = opened?;
    let disk = Disk::new(device);
    let read = disk.clone();
    let mut one = LookedAt {
        tier_volume: Arc::new(tier_volume(&config.ssd, set, block_size, tier.sites)),
        set: set.clone(),
        superblock: tier.runtime.spawn(async move { Volume::superblock(&read).await }),
        judged: None,
        disk,
        settings: settings(&config.ssd, set, block_size),
    };
    let judged = tier.runtime.block_on(one.judge(roll, until)).ok_or(SILENT)?;
    one.judged = Some(Ok(judged.map_err(|unfit| unfit.told_of(&set.path))?));
    Ok((one, made))
}

/// The places that those in use have.
fn roll_of(config: &Config, ssd: &Ssd) -> Result<Roll, String> {
    let mut roll = Roll::new(&config.ssd, config.block_size);
    for tier_volume in ssd.volumes().all() {
        let Some(volume) = tier_volume.opened() else { continue };
        let entered = roll.enter(&tier_volume.name, volume.geometry(), volume.id());
        entered.map_err(|unfit| {
            format!("volume {}: {}", tier_volume.name, unfit.told_of(tier_volume.name.as_ref()))
        })?;
    }
    Ok(roll)
}

fn lock(roll: &Mutex<Roll>) -> MutexGuard<'_, Roll> {
    roll.lock().unwrap_or_else(PoisonError::into_inner)
}

const SILENT: &str = "its disk does not answer, or it takes long to make; reload again later";
/// How long a reload waits until all devices are open and it is known what lies on them. With what
/// it waits then it is less than who asked for it waits.
const LOOKED_AT_WITHIN: Duration = Duration::from_secs(15);
