//! Whose viewer somebody is: whether routes have him for other boxes than this one, and one of
//! those is well.
//!
//! Nobody is turned away by what is not known: without routes that are whole and were looked at
//! lately, without a fleet that was heard of lately, or for a box that seems ill.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::{ArcSwap, ArcSwapOption};

use super::fleet;
use super::parts::Live;
use crate::config::Routes as RoutesSettings;
use crate::control::content_steering::location;
use crate::control::registry::fleet::Fleet;
use crate::control::routes::{Routes, Whose};
use crate::control::steer::Settings;
use crate::control::steering::reason::Reason;
use crate::control::steering::{Asked, Ranked, Steering};
use crate::delivery::routed::{Better, Stranger};
use crate::moment::unix_seconds;

/// What it is told by.
struct Known {
    /// Which box this is; `None`: nobody knows, and everybody is served.
    own: Arc<ArcSwapOption<String>>,
    routes: Arc<Routes>,
    files: Arc<ArcSwap<RoutesSettings>>,
    settings: Arc<ArcSwap<Settings>>,
    appliances: Arc<ArcSwap<Fleet>>,
    /// As a box of a fleet, what it is told of the others.
    standing: Option<Arc<fleet::Standing>>,
}

/// What delivery asks.
pub(super) fn better(live: &Live, standing: Option<&Arc<fleet::Standing>>) -> Arc<Better> {
    let steering = &live.steering;
    let known = Known {
        own: steering.own.clone(),
        routes: steering.routes.clone(),
        files: steering.files.clone(),
        settings: steering.settings.clone(),
        appliances: steering.fleet.clone(),
        standing: standing.cloned(),
    };
    Arc::new(move |stranger: &Stranger<'_>| known.better(stranger, SystemTime::now()))
}

impl Known {
    fn better(&self, stranger: &Stranger<'_>, now: SystemTime) -> Option<String> {
        let (own, table) = (self.own.load(), self.routes.table());
        // Of most no more is looked at than this, which allocates nothing.
        if table.whose(stranger.viewer, own.as_deref()?) != Whose::Others {
            return None;
        }
        let announced = table.announced(stranger.viewer);
        let files = self.files.load();
        let hold = files.plan.hold.max(LOOKS_MISSED_MAX * files.reread);
        if !self.routes.are_whole(now, hold) {
            return None;
        }
        // In a fleet by its snapshot, whose age is known; a control plane beside may have broken
        // off long ago.
        let snapshot = match &self.standing {
            Some(standing) if standing.age(now)? > hold => return None,
            Some(standing) => Some(standing.snapshot()?),
            None => None,
        };
        let appliances = self.appliances.load();
        let fleet = snapshot.as_ref().map_or(&**appliances, |snapshot| &snapshot.fleet);
        let settings = self.settings.load();
        let spread = settings.spread;
        let steering = Steering { fleet, routes: &*table, holds: &|_| None, spread };
        let session = stranger.viewer.to_string();
        let answer = steering.answer(&Asked {
            viewer: stranger.viewer,
            session: &session,
            site: stranger.site,
            path: stranger.path,
            plays_from: None,
            among: None,
            now_seconds: unix_seconds(now),
        });
        let is_his = |ranked: &&Ranked<'_>| {
            announced.iter().any(|one| one.name == ranked.appliance) && !is_kept(ranked)
        };
        answer.ranked.first().filter(is_his).filter(|_| !answer.last_resort)?;
        // Renamed in between: what was looked at may be of both.
        let own_now = self.own.load();
        own_now.as_ref().zip(own.as_ref()).filter(|(now, before)| Arc::ptr_eq(now, before))?;
        let scheme = settings.scheme(stranger.scheme.as_str());
        location(scheme, stranger.target, &answer, 0, settings.seal.as_ref())
    }
}

/// Whether it seems ill, and viewers are sent there all the same.
fn is_kept(ranked: &Ranked<'_>) -> bool {
    ranked.reasons.iter().any(|rule| rule.reason == Reason::Kept)
}

/// Looks at the files of routes that may fail to come, however short routes are held.
const LOOKS_MISSED_MAX: u32 = 3;
