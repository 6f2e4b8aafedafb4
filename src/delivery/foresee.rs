//! What a player says that it will ask for next (CMCD `nor`, `nrr`): brought ahead, where a rule
//! lets it.
//!
//! Anybody can say anything: what is asked of the origin must be what he could ask for himself, of
//! the same site and by the same rules, it is little at a time, and it gives way to whoever waits.

use std::rc::Rc;
use std::sync::Arc;

use http::header::{AUTHORIZATION, COOKIE};

use crate::cache::heads::Known;
use crate::delivery::door::is_unclear;
use crate::delivery::viewer::Viewer;
use crate::delivery::{Shared, purged};
use crate::fill::foresee::NotForeseen;
use crate::fill::{Missing, Wanted};
use crate::limits::PREFETCHES_PER_REQUEST_MAX;
use crate::memory::Class;
use crate::message::cmcd::Next;
use crate::message::range::RangeRequest;
use crate::message::target::{canonical_target, resolved};
use crate::metrics::labels::Prefetch;
use crate::object::{ByteRange, ObjectKey};
use crate::site::{Access, Entrance, Foresight, OffRoute, Site};

impl Shared {
    /// Brings ahead what the player of an answered request will ask for.
    pub(super) fn foresee(&self, viewer: &Rc<Viewer>, site: &Arc<Site>, key: &ObjectKey) {
        let Some(cmcd) = &viewer.cmcd else { return };
        for next in cmcd.next.iter().take(PREFETCHES_PER_REQUEST_MAX) {
            let outcome = self.foresee_one(viewer, site, key, next);
            self.counters.players.prefetches.count(outcome);
        }
    }

    fn foresee_one(
        &self,
        viewer: &Rc<Viewer>,
        site: &Arc<Site>,
        key: &ObjectKey,
        next: &Next,
    ) -> Prefetch {
        let Some((path, key)) = self.named(viewer, site, key, next) else {
            return Prefetch::Refused;
        };
        let fields = &viewer.parts.headers;
        // What he gets may be for him alone, and he has not asked for it yet.
        if fields.contains_key(AUTHORIZATION) || fields.contains_key(COOKIE) {
            return Prefetch::Refused;
        }
        let range = next.range.as_ref().and_then(|range| {
            let field = http::HeaderValue::try_from(format!("bytes={range}")).ok()?;
            RangeRequest::parse(&field)
        });
        let known = match purged::find(&self.filler, &key, fields, viewer.time) {
            // To read what a volume knows is for who wants it.
            Known::Nothing if self.ssd.may_know(&key) => return Prefetch::Known,
            Known::Nothing => None,
            Known::Variant(head) if head.freshness.is_fresh(viewer.time) => Some(head),
            // To bring it up to date is for who wants it.
            Known::Variant(_) | Known::OtherVariants => return Prefetch::Known,
            Known::Uncacheable => return Prefetch::Refused,
        };
        let foreseen = match self.filler.place_ahead(&viewer.connection.ahead) {
            Ok(foreseen) => foreseen,
            Err(NotForeseen::Limited) => return Prefetch::Limited,
            Err(NotForeseen::Busy) => return Prefetch::Busy,
        };
        let ask = || self.ask(viewer, site, &key);
        let started = match known {
            None => {
                let wanted = Wanted {
                    key: key.clone(),
                    site: site.clone(),
                    path,
                    ask: ask(),
                    viewer_fields: fields.clone(),
                    range,
                    if_range: None,
                    window_bytes: self.filler.window_bytes,
                    bypassed_bytes: None,
                    stale: None,
                    has_authorization: false,
                    no_store: false,
                };
                self.filler.foresee(wanted, foreseen)
            }
            Some(head) => {
                let length = head.version.length_bytes();
                let whole = || ByteRange::new(0, length?);
                let part = range.map_or_else(whole, |range| range.resolve(length?).ok());
                let Some(range) = part else { return Prefetch::Known };
                let missing = Missing { range, bypassed_to: 0 };
                let class = Class::Prefetch;
                let joined = self.filler.read_on(&key, &head.version, missing, class, ask);
                self.filler.foresee_run(joined, foreseen)
            }
        };
        if started { Prefetch::Started } else { Prefetch::Known }
    }

    /// The object that a player names, if it is another of this site, or another part of the same,
    /// and its rule lets it be brought ahead, of which the viewer may have it.
    fn named(
        &self,
        viewer: &Viewer,
        site: &Arc<Site>,
        key: &ObjectKey,
        next: &Next,
    ) -> Option<(String, ObjectKey)> {
        let Some(reference) = &next.path else {
            return next.range.as_ref().map(|_| (key.path().to_owned(), key.clone()));
        };
        let (path, query) = resolved(key.path(), reference)?;
        let rule = site.rule_for(&path);
        // What takes a token is asked for by who shows it.
        if rule.foresight == Foresight::Off || rule.access == Access::Token {
            return None;
        }
        let comes_in = |entrance: &Arc<Entrance>| {
            entrance.check(viewer.client, viewer.time, &self.places.load()).is_ok()
        };
        // Whose he is may be another's to say.
        let is_unclear = site.tells_viewers_apart() && is_unclear(site, &path);
        if is_unclear || rule.off_route != OffRoute::Serve {
            return None;
        }
        rule.entrance.as_ref().is_none_or(comes_in).then_some(())?;
        let target = canonical_target(&path, query, &rule.query, rule.content);
        // What is written there may be no target at all.
        http::uri::PathAndQuery::try_from(&*target).ok()?;
        let named = ObjectKey::new(site.id, &target);
        (named != *key || next.range.is_some()).then_some((path, named))
    }
}
