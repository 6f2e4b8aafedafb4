//! Who comes in, by files: databases of countries and ASes, and lists of networks. They are read
//! again when they have changed, without a reload; a bad one changes nothing.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::parts::Parts;
use super::renewal::Stamp;
use crate::config::{self, Config};
use crate::geo::Geo;
use crate::site::NetworkFile;

/// Where viewers are, as far as who comes in depends on it.
#[derive(Default)]
pub(super) struct Places {
    /// What is asked; swapped whole.
    pub(super) geo: Arc<ArcSwap<Geo>>,
    databases: Mutex<Vec<Watched>>,
}

/// A file, and what is known of it.
struct Watched {
    path: PathBuf,
    /// As it was at the last look.
    seen: Option<Stamp>,
    /// As it was when it was read last, or just before.
    read: Option<Stamp>,
    /// What was wrong with it, as it was told.
    told: Option<String>,
}

impl Watched {
    fn new(path: &Path) -> Watched {
        let seen = Stamp::of(path);
        Watched { path: path.to_owned(), read: seen, seen, told: None }
    }

    /// Whether it is another one than was read, and has been so for a look: nobody writes it now.
    fn is_other(&mut self) -> bool {
        let now = Stamp::of(&self.path);
        let is_settled = now == self.seen;
        self.seen = now;
        let is_other = is_settled && self.seen != self.read;
        if is_other {
            self.read.clone_from(&self.seen);
        }
        is_other
    }

    /// Tells once what is wrong with it.
    fn tell(&mut self, what: &str, wrong: Option<String>) {
        match &wrong {
            Some(why) if self.told != wrong => {
                let path = self.path.display();
                tracing::error!("{what} {path}, {why}; those of before go on");
            }
            Some(_) => {}
            None => tracing::info!("{what} {} are others now", self.path.display()),
        }
        self.told = wrong;
    }
}

/// Databases that were read for a configuration.
pub(super) struct ReadPlaces {
    geo: Arc<Geo>,
    databases: Vec<Watched>,
}

impl Places {
    /// Reads those that a configuration asks. Blocks.
    ///
    /// # Errors
    /// What is wrong with one, in a line.
    pub(super) fn read(config: &Config) -> Result<ReadPlaces, String> {
        let (mut geo, mut databases) = (Geo::default(), Vec::new());
        for path in config.places_asked() {
            databases.push(Watched::new(path));
            let read = config::read_places(path, &mut geo);
            read.map_err(|why| format!("`routes.databases` names {}, {why}", path.display()))?;
        }
        Ok(ReadPlaces { geo: Arc::new(geo), databases })
    }

    /// Goes by these from now on.
    pub(super) fn adopt(&self, read: ReadPlaces) {
        let mut databases = self.databases.lock().unwrap_or_else(PoisonError::into_inner);
        *databases = read.databases;
        self.geo.store(read.geo);
    }

    /// One look at all of them. Blocks.
    fn look(&self) {
        let mut databases = self.databases.lock().unwrap_or_else(PoisonError::into_inner);
        let changed: Vec<bool> = databases.iter_mut().map(Watched::is_other).collect();
        if !changed.contains(&true) {
            return;
        }
        let (before, mut geo) = (self.geo.load_full(), Geo::default());
        for (one, is_changed) in databases.iter_mut().zip(changed) {
            if !is_changed {
                geo.keep(&one.path, &before);
                continue;
            }
            let wrong = config::read_places(&one.path, &mut geo).err();
            if wrong.is_some() {
                geo.keep(&one.path, &before);
            }
            one.tell("places of viewers: those of", wrong);
        }
        self.geo.store(Arc::new(geo));
    }
}

/// A list of networks that somebody's rules name, as it was looked at.
pub(super) struct SeenFile {
    file: Arc<NetworkFile>,
    watched: Watched,
}

/// One look at all that says who comes in. Blocks.
pub(super) fn looked(parts: &Parts, mut before: Vec<SeenFile>) -> Vec<SeenFile> {
    parts.live.places.look();
    let sites = parts.live.sites.load_full();
    let mut seen: Vec<SeenFile> = Vec::new();
    let entrances = sites.iter().flat_map(|site| &site.rules).filter_map(|it| it.entrance.as_ref());
    for file in entrances.flat_map(|entrance| entrance.files()) {
        if seen.iter().any(|one| Arc::ptr_eq(&one.file, file)) {
            continue;
        }
        let former = before.iter().position(|one| Arc::ptr_eq(&one.file, file));
        let mut one = match former {
            Some(place) => before.swap_remove(place),
            // It may have changed since it was read.
            None => {
                let watched = Watched { read: None, ..Watched::new(&file.path) };
                SeenFile { file: file.clone(), watched }
            }
        };
        if one.watched.is_other() {
            read_again(&mut one);
        }
        seen.push(one);
    }
    seen
}

fn read_again(one: &mut SeenFile) {
    match config::read_networks(&one.file.path) {
        Ok(told) => {
            let is_same = one.file.told.load().iter().eq(told.iter());
            if !is_same || one.watched.told.is_some() {
                one.watched.tell("networks of viewers: those of", None);
            }
            if !is_same {
                one.file.told.store(Arc::new(told));
            }
        }
        Err(why) => one.watched.tell("networks of viewers: those of", Some(why)),
    }
}
