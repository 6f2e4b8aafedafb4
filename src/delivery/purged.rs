//! What purges leave of what is stored, asked at each look-up.
//!
//! What is gone is forgotten when somebody meets it, what is stale is made so in the table: the
//! next one finds it as if it had always been so.

use std::sync::Arc;
use std::time::Instant;

use crate::cache::heads::{Head, Known};
use crate::delivery::Transaction;
use crate::fill::Opened;
use crate::limits::VARIANTS_PER_OBJECT_MAX;
use crate::purge::Standing;

impl Transaction<'_> {
    /// What ram knows of the object and was not purged.
    pub(super) fn find(&self) -> Known {
        let (heads, key) = (&self.shared.heads, &self.asked.key);
        for _ in 0..=VARIANTS_PER_OBJECT_MAX {
            let head = match heads.find(key, &self.viewer.parts.headers, Instant::now()) {
                Known::Variant(head) => head,
                other => return other,
            };
            match self.standing(&head) {
                Standing::Untouched => return Known::Variant(head),
                Standing::StaleSince(since, birth) => {
                    // By a clock that was set back since, too.
                    let freshness = head.freshness.stale_since(since.min(self.viewer.time));
                    let stale = Arc::new(Head { freshness, birth, ..Head::clone(&head) });
                    heads.replace(key, &head, &stale);
                    return Known::Variant(stale);
                }
                Standing::Gone => self.shared.filler.forget(key, head.version.id),
            }
        }
        Known::Nothing
    }

    /// Whether what others had asked for was purged since.
    pub(super) fn was_purged(&self, opened: &Opened) -> bool {
        match opened {
            Opened::Stored { head, .. } | Opened::Confirmed { head, .. } => {
                !matches!(self.standing(head), Standing::Untouched)
            }
            // It is known to be stale.
            Opened::Stale { head, .. } => matches!(self.standing(head), Standing::Gone),
            Opened::Private { .. } | Opened::Unsatisfiable { .. } | Opened::Failed(_) => false,
        }
    }

    fn standing(&self, head: &Head) -> Standing {
        self.shared.filler.purges.reckon(&self.asked.key, &head.birth, &head.tags)
    }
}
