//! How much is held of what is to be purged: of what ram knows, and of a URL what volumes know too.
//!
//! Volumes know hashes alone: what else they hold of a prefix, a tag or a site nobody counts.

use std::sync::Arc;

use super::parts::Parts;
use crate::cache::heads::Head;
use crate::control::purge::Found;
use crate::limits::PURGE_LOOKED_AT_MAX;
use crate::object::ObjectKey;
use crate::purge::Sought;

/// Objects of which something is held. Goes through all that ram knows where it must.
pub(super) fn found(parts: &Parts, sought: &Sought) -> Found {
    let is_there = |key: &ObjectKey, heads: &[Arc<Head>]| {
        let is_sought = |head: &Arc<Head>| {
            let Head { birth, tags, .. } = &**head;
            parts.purges.is_sought(sought, key, birth, tags)
        };
        heads.iter().any(is_sought)
    };
    let Some(named) = sought.objects() else {
        let mut all = parts.heads.objects();
        let looked_at = all.by_ref().take(PURGE_LOOKED_AT_MAX);
        let objects = looked_at.filter(|(key, heads)| is_there(key, heads)).count();
        return Found { objects, is_all: all.next().is_none() && !parts.ssd.is_in_use() };
    };
    let is_held = |key: &&ObjectKey| match &*parts.heads.variants(key) {
        [] => parts.ssd.may_know(key),
        heads => is_there(key, heads),
    };
    Found { objects: named.iter().filter(is_held).count(), is_all: true }
}
