//! Why a viewer is here, by the decision of steering that he comes by, so that misses can be told
//! from each other: the content's, health's, a route's and those of his own choice.

use arc_swap::ArcSwapOption;

use crate::delivery::Delivery;
pub use crate::delivery::rewritten::{Manifest, Rewriter};
use crate::delivery::viewer::Viewer;
use crate::message::decision::{self, Host, Seal};
use crate::message::request::ObjectRequest;
use crate::metrics::labels::{Cached, Cause, Lookup};
use crate::moment::unix_seconds;

/// How viewers who come by steering are served; a reload puts others in the place of these.
pub struct Steering {
    /// What decisions are sealed with, where they must be.
    pub seal: ArcSwapOption<Seal>,
    /// What puts steering into playlists that are served.
    pub rewriter: ArcSwapOption<Rewriter>,
}

impl Delivery {
    /// Why he asks here.
    pub(super) fn cause(&self, viewer: &Viewer, request: &ObjectRequest<'_>) -> Cause {
        // Most come without, and nothing else is looked at.
        if request.query.is_none() {
            return Cause::Viewer;
        }
        let seal = self.shared.steering.seal.load();
        let (host, now) = (|| Host::new(&request.host, request.port), unix_seconds(viewer.time));
        match decision::cause(request.query, host, now, seal.as_deref()) {
            Some(decision::Cause::Content) => Cause::Content,
            Some(decision::Cause::Health) => Cause::Health,
            Some(decision::Cause::Route) => Cause::Route,
            None => Cause::Viewer,
        }
    }
}

/// Whether the cache had it.
pub(super) fn cached(lookup: Lookup) -> Cached {
    match lookup {
        Lookup::Hit | Lookup::HitSsd | Lookup::Revalidated | Lookup::Stale => Cached::Hit,
        Lookup::Miss | Lookup::Partial | Lookup::Collapsed => Cached::Miss,
        Lookup::Uncacheable => Cached::Uncacheable,
    }
}
