//! The doors of sites: made from the configuration, and their keys read again when the files they
//! are in, or the snapshot of the fleet, are others, without a reload; so is what says who comes in
//! at all (`entrances.rs`).

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::sleep;

use super::entrances::{self, Places, ReadPlaces};
use super::parts::Parts;
use super::renewal::Stamp;
use crate::config::{self, Config, ConfigError};
use crate::control::snapshot::{Number, Snapshot};
use crate::door::{Door, Doors, KeySource, SET_CLOCKS_SAY, Secret, Uses};
use crate::limits::{
    BEARERS_AND_USES_BYTES, VERDICTS_BYTES_MAX, VERDICTS_BYTES_MIN, VERDICTS_SHARE,
};
use crate::memory::{Class, Governor, Reservation, Use};
use crate::site::Sites;

/// What all doors share: where uses are remembered, and the memory of what is known of tokens.
#[derive(Default)]
pub(super) struct Lodge {
    uses: Option<Arc<Uses>>,
    /// There were doors at the start: the budget knows of them.
    is_budgeted: bool,
    reserved: Option<Reservation>,
}

/// The doors of another configuration, and what says who comes in at all.
pub(super) struct NextDoors {
    doors: Doors,
    places: ReadPlaces,
}

/// What doors keep, where there are any.
pub(super) fn doors_bytes(config: &Config) -> u64 {
    match config.demands.is_empty() {
        true => 0,
        false => verdicts_bytes(config) + BEARERS_AND_USES_BYTES,
    }
}

fn verdicts_bytes(config: &Config) -> u64 {
    let share = config.memory.total_bytes / VERDICTS_SHARE;
    share.clamp(VERDICTS_BYTES_MIN, VERDICTS_BYTES_MAX)
}

impl Lodge {
    /// Has what `config` needs. Blocks.
    ///
    /// # Errors
    /// There is no memory for it, in a line.
    pub(super) fn prepare(
        &mut self,
        config: &Config,
        governor: &Arc<Governor>,
    ) -> Result<Arc<Uses>, String> {
        if config.demands.is_empty() {
            return Ok(Uses::nowhere());
        }
        if self.reserved.is_none() && !self.is_budgeted {
            let bytes = doors_bytes(config);
            let reserved = governor.try_reserve(Use::Requests, Class::Miss, bytes);
            let full = "there is no memory free for what is kept of tokens; raise `memory.total`, \
                        or write a smaller `memory.ram`";
            self.reserved = Some(reserved.ok_or(full)?);
        }
        if let Some(uses) = &self.uses {
            uses.share_among(config.demands.len());
            return Ok(uses.clone());
        }
        let (path, now) = (config.ssd.token_uses(), SystemTime::now());
        if now.duration_since(UNIX_EPOCH).unwrap_or_default() < SET_CLOCKS_SAY {
            tracing::error!("the clock says it is before 2020: no token is good until it is set");
        }
        match Uses::start(&path, now) {
            Ok(uses) => {
                uses.share_among(config.demands.len());
                self.uses = Some(uses.clone());
                Ok(uses)
            }
            Err(error) => {
                // Of most tokens nothing has to be remembered.
                let path = path.display();
                tracing::warn!(
                    "{path}: {}; tokens that may be used once (`jti`) are refused until a reload \
                     can write it: make its folder, or write `ssd.state`",
                    config::cause(&error)
                );
                Ok(Uses::nowhere())
            }
        }
    }
}

impl Parts {
    /// Opens the doors of the configuration that is started with. Blocks.
    ///
    /// # Errors
    /// What it asks for cannot be had.
    pub(super) fn open_doors(&self) -> Result<(), ConfigError> {
        let config = &self.config;
        let opened = || {
            self.current().lodge.is_budgeted = !config.demands.is_empty();
            let uses = self.current().lodge.prepare(config, &self.governor)?;
            self.live.places.adopt(Places::read(config)?);
            self.doors(config, &self.live.sites.load(), &uses)
        };
        let fault = |text| ConfigError { file: config.file.clone(), place: None, text };
        self.live.doors.store(Arc::new(opened().map_err(fault)?));
        Ok(())
    }

    /// Those of another configuration, by its sites as they are numbered here. Blocks.
    ///
    /// # Errors
    /// What it asks for cannot be had, in a line.
    pub(super) fn next_doors(
        &self,
        lodge: &mut Lodge,
        next: &Config,
        sites: &Sites,
    ) -> Result<NextDoors, String> {
        let uses = lodge.prepare(next, &self.governor);
        let doors = uses.and_then(|uses| {
            let (doors, places) = (self.doors(next, sites, &uses)?, Places::read(next)?);
            Ok(NextDoors { doors, places })
        });
        doors.map_err(|why| format!("{}: {why}", next.file))
    }

    /// Serves by these from now on: whichever rules a request finds, it finds their door.
    pub(super) fn swap(&self, sites: Sites, next: NextDoors) {
        let NextDoors { doors, places } = next;
        self.live.places.adopt(places);
        self.live.doors.store(Arc::new(doors.and(&self.live.doors.load())));
        self.live.sites.store(Arc::new(sites));
        self.live.doors.store(Arc::new(doors));
    }

    fn doors(&self, config: &Config, sites: &Sites, uses: &Arc<Uses>) -> Result<Doors, String> {
        let (before, bytes) = (self.live.doors.load(), verdicts_bytes(config));
        let doors = Doors::new(sites, &config.demands, &before, uses, bytes)?;
        // What is known of a fleet counts from the first viewer on.
        let snapshot = self.live.fleet.load();
        for door in doors.iter().filter(|door| door.is_of_fleet()) {
            if let Some(Ok(keys)) = keys_of(door, snapshot.as_deref()) {
                // What is wrong with them is told at the first look.
                let _ = door.adopt(keys);
            }
        }
        Ok(doors)
    }
}

/// Reads the keys of doors again when their files change, until the appliance stops.
pub(super) fn start(parts: &Arc<Parts>) {
    let (weak, stop) = (Arc::downgrade(parts), parts.filler.stop.clone());
    let watch = async move {
        let (mut seen, mut files) = (Vec::new(), Vec::new());
        loop {
            tokio::select! {
                () = sleep(LOOKED_AT_EVERY) => {}
                () = stop.cancelled() => return,
            }
            let Some(parts) = weak.upgrade() else { return };
            let look = move || (looked(&parts, seen), entrances::looked(&parts, files));
            (seen, files) = tokio::task::spawn_blocking(look).await.unwrap_or_default();
        }
    };
    parts.filler.tasks.spawn_on(watch, &parts.filler.runtime);
}

/// A door, and what its keys were read from last.
struct Seen {
    door: Arc<Door>,
    read: Option<Read>,
    /// What was wrong with it, as it was told.
    told: Option<String>,
}

/// What tells that keys may be others.
#[derive(PartialEq, Eq)]
enum Read {
    File(Option<Stamp>),
    Snapshot(Number),
}

fn looked(parts: &Parts, before: Vec<Seen>) -> Vec<Seen> {
    let (doors, snapshot) = (parts.live.doors.load_full(), parts.live.fleet.load_full());
    let look = |door: &Arc<Door>| {
        let read = match &door.demands().source {
            KeySource::File(path) => Some(Read::File(Stamp::of(path))),
            KeySource::Fleet(_) => snapshot.as_ref().map(|it| Read::Snapshot(it.number)),
        };
        let former = before.iter().find(|seen| Arc::ptr_eq(&seen.door, door));
        let told = former.and_then(|former| former.told.clone());
        let mut seen = Seen { door: door.clone(), read, told };
        // At first too: they may have changed since they were read.
        if former.is_none_or(|former| former.read != seen.read) {
            read_again(&mut seen, snapshot.as_deref());
        }
        seen
    };
    doors.iter().map(look).collect()
}

/// What a door's keys are now; `None`: that is not known yet.
fn keys_of(door: &Door, snapshot: Option<&Snapshot>) -> Option<Result<Secret, String>> {
    match &door.demands().source {
        KeySource::File(path) => Some(config::read_keys(path, door.demands().settings.matching)),
        KeySource::Fleet(name) => {
            // What was taken from all boxes lets nobody in any more.
            let keys = snapshot?.keys.get(name).map_or("{}", String::as_str);
            Some(Ok(Secret(keys.as_bytes().into())))
        }
    }
}

fn read_again(seen: &mut Seen, snapshot: Option<&Snapshot>) {
    let (door, source) = (&seen.door, &seen.door.demands().source);
    let Some(keys) = keys_of(door, snapshot) else { return };
    let adopted = keys
        .and_then(|keys| door.adopt(keys).map_err(|error| format!("which is refused: {error}")));
    let site = door.site();
    if let (KeySource::Fleet(name), Some(snapshot)) = (source, snapshot)
        && !snapshot.keys.contains_key(name)
    {
        let why = "which the control plane does not have".to_owned();
        if seen.told.as_ref() != Some(&why) {
            tracing::error!("site {site}: keys are from {source}, {why}; nobody is let in");
        }
        seen.told = Some(why);
        return;
    }
    seen.told = match adopted {
        Ok(is_other) => {
            if is_other {
                tracing::info!("site {site}: tokens are verified by other keys of {source}");
            }
            None
        }
        Err(why) => {
            if seen.told.as_ref() != Some(&why) {
                tracing::error!(
                    "site {site}: keys are from {source}, {why}; those of before go on"
                );
            }
            Some(why)
        }
    };
}

/// Whoever rotates keys has both kept for a while.
const LOOKED_AT_EVERY: Duration = Duration::from_secs(2);
