//! Who comes in, by files: databases of countries and ASes, and lists of networks. They are read
//! again when they have changed, without a reload; a bad one changes nothing.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::parts::Parts;
use super::renewal::Stamp;
use crate::config::{self, Config, Unused};
use crate::geo::Geo;
use crate::limits::PLACES_LOOKED_AT_MAX;
use crate::memory::{Class, Governor, Reservation, Use};
use crate::site::NetworkFile;

/// Where viewers are, as far as who comes in depends on it.
#[derive(Default)]
pub(super) struct Places {
    /// What is asked; swapped whole.
    pub(super) geo: Arc<ArcSwap<Geo>>,
    databases: Mutex<Vec<Watched>>,
    accounted: Mutex<Accounted>,
}

/// The memory of databases and lists.
#[derive(Default)]
struct Accounted {
    bytes: u64,
    /// `None`: there was no room for it.
    reserved: Option<Reservation>,
}

/// A file, and what is known of it.
struct Watched {
    path: PathBuf,
    /// As it was at the last look.
    seen: Option<Stamp>,
    /// As it was when it was read last, or just before; `None`: it could not be, and is to be tried
    /// again.
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
    fn tell(&mut self, what: &str, wrong: Option<Unused>) {
        if let Some(Unused::Unread(_)) = wrong {
            // It may be only for a moment that it cannot be read.
            self.read = None;
        }
        let (path, wrong) = (self.path.display(), wrong.map(|why| why.to_string()));
        match &wrong {
            Some(why) if self.told != wrong => {
                tracing::error!("{what} {path}, {why}; those of before go on");
            }
            Some(_) => {}
            None => tracing::info!("{what} {path} are others now"),
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
        if before.tells_countries(PLACES_LOOKED_AT_MAX)
            && !geo.tells_countries(PLACES_LOOKED_AT_MAX)
        {
            tracing::error!("no database tells the countries of viewers any more, it seems");
        }
        self.geo.store(Arc::new(geo));
    }

    /// Accounts for the memory of the databases, and of lists of so many bytes. Who comes in is
    /// decided by them even where there is no room.
    fn account(&self, lists_bytes: u64, governor: &Arc<Governor>) {
        let bytes = self.geo.load().bytes() + lists_bytes;
        let mut accounted = self.accounted.lock().unwrap_or_else(PoisonError::into_inner);
        let is_other = accounted.bytes != bytes;
        // Where there was no room it is asked for again.
        if !is_other && (accounted.reserved.is_some() || bytes == 0) {
            return;
        }
        // What was reserved makes room first.
        *accounted = Accounted { bytes, reserved: None };
        accounted.reserved = governor.try_reserve(Use::Routes, Class::Viewer, bytes);
        if accounted.reserved.is_none() && is_other {
            let mib = bytes.div_ceil(1 << 20);
            tracing::warn!(
                "what says who comes in takes {mib} MiB that are not free; raise `memory.total`"
            );
        }
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
    let lists_bytes = seen.iter().map(|one| one.file.told.load().bytes()).sum();
    parts.live.places.account(lists_bytes, &parts.governor);
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    const CITY: &[u8] = include_bytes!("../../fuzz/seeds/places/city");

    #[test]
    fn what_cannot_be_read_is_tried_again_and_what_is_refused_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("places");
        let places = Places::default();
        let read = |path: &Path| {
            let mut geo = Geo::default();
            config::read_places(path, &mut geo).unwrap();
            ReadPlaces { geo: Arc::new(geo), databases: vec![Watched::new(path)] }
        };
        fs::write(&path, CITY).unwrap();
        places.adopt(read(&path));
        let is_tried_again = || {
            // It is seen, then it is settled.
            places.look();
            places.look();
            places.databases.lock().unwrap()[0].read.is_none()
        };
        assert!(!is_tried_again(), "nothing has changed");
        fs::write(&path, "no database").unwrap();
        assert!(!is_tried_again(), "it is refused until it is another one");
        fs::remove_file(&path).unwrap();
        // Who opens it gets an error that says nothing of what is in it.
        symlink(folder.path(), &path).unwrap();
        assert!(is_tried_again());
        assert!(is_tried_again(), "however often it fails");
        assert_eq!(places.geo.load().bytes(), CITY.len() as u64, "those of before go on");
        fs::remove_file(&path).unwrap();
        fs::write(&path, CITY).unwrap();
        assert!(!is_tried_again());
        assert!(places.databases.lock().unwrap()[0].told.is_none());
    }
}
