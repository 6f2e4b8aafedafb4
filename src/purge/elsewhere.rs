//! Another process that answers viewers of the same sites too: the one before this one, or the one
//! that follows. What ends here ends there before anybody is told that it has.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::Purges;
use super::keeper::PurgeError;
use super::scope::{Hardness, Kind, Scope, site_hash};
use super::table::Purge;
use crate::object::ObjectKey;

/// What ends there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Whatever is held.
    All,
    /// Objects of the site of this name, by their targets.
    Objects {
        /// The site's name.
        site: String,
        /// Path and canonical query of each.
        targets: Vec<String>,
    },
}

/// Something that ends, and who is told when it has.
pub type Ended = (Ending, oneshot::Sender<()>);

/// The way to the other process.
#[derive(Debug)]
pub struct Elsewhere(mpsc::Sender<Ended>);

impl Elsewhere {
    /// Tells whoever receives them.
    pub fn new(tell: mpsc::Sender<Ended>) -> Arc<Elsewhere> {
        Arc::new(Elsewhere(tell))
    }
}

impl Purges {
    /// From now on there is such a process, or none any more.
    pub fn set_elsewhere(&self, elsewhere: Option<Arc<Elsewhere>>) {
        self.elsewhere.store(elsewhere);
    }

    /// Whether there is such a process.
    pub fn has_elsewhere(&self) -> bool {
        self.elsewhere.load().as_ref().is_some_and(|elsewhere| !elsewhere.0.is_closed())
    }

    /// Ends it there too. Dropping it midway is safe: it ends all the same.
    ///
    /// # Errors
    /// [`PurgeError::Late`]: it is not known whether it has. A process that is gone holds nothing.
    pub async fn end_elsewhere(&self, ending: Ending) -> Result<(), PurgeError> {
        let Some(elsewhere) = self.elsewhere.load_full() else { return Ok(()) };
        let (tell, told) = oneshot::channel();
        let ended = async {
            // Nobody takes it any more, or nobody answers: the process is gone.
            if elsewhere.0.send((ending, tell)).await.is_ok() {
                let _ = told.await;
            }
        };
        timeout(ENDED_WITHIN, ended).await.map_err(|_| PurgeError::Late)
    }

    /// As [`Purges::end_elsewhere`] for objects of one site.
    ///
    /// # Errors
    /// As there.
    pub async fn end_objects_elsewhere(&self, keys: &[ObjectKey]) -> Result<(), PurgeError> {
        let Some(site) = keys.first().map(ObjectKey::site) else { return Ok(()) };
        if self.elsewhere.load().is_none() {
            return Ok(());
        }
        let sites = self.sites.load_full();
        let site = sites.get(site).expect("a key is of a site that is, or was").name.clone();
        let targets = keys.iter().map(|key| key.target().to_owned()).collect();
        self.end_elsewhere(Ending::Objects { site, targets }).await
    }

    /// Purges all there is in this process, in no journal: another one keeps that now. Called when
    /// the keeper has finished.
    pub fn end_all(&self) {
        let sites = self.sites.load();
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let mut number = self.count();
        for site in sites.iter() {
            number += 1;
            let scope = Scope::whole(Kind::Site, site_hash(&site.name));
            table.apply(&Purge { number, at_seconds: 0, scope, hardness: Hardness::Hard });
        }
        drop(table);
        self.count.store(number, std::sync::atomic::Ordering::Release);
    }
}

/// Another process of this machine answers in less, or hangs.
const ENDED_WITHIN: Duration = Duration::from_secs(2);
