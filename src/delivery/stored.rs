//! What is stored and may not be fresh: whether it serves, and who asks the origin about it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::cache::heads::Head;
use crate::delivery::error::DeliveryError;
use crate::delivery::{Attempt, Found, Transaction};
use crate::message::cache_status::{Forwarded, Fwd};
use crate::message::reuse::{Reuse, judge};
use crate::metrics::labels::Lookup;

impl Transaction<'_> {
    /// What a stored response is good for, with regard to its origin: a viewer's wish costs one
    /// request a second, and an origin that failed has a rest.
    pub(super) fn reuse(&self, head: &Head) -> Reuse {
        let (now, freshness, version) = (self.viewer.time, &head.freshness, &head.version);
        let reuse = judge(freshness, &self.asked.control, now);
        match reuse {
            Reuse::OnceConfirmed(Fwd::Request)
                if freshness.is_fresh(now) && !version.may_be_asked_about(now) =>
            {
                Reuse::Now
            }
            Reuse::WhileRevalidated if version.rests(now) || !version.may_be_asked_about(now) => {
                Reuse::Now
            }
            Reuse::OnceConfirmed(Fwd::Stale)
                if freshness.serves_on_error(now) && version.rests(now) =>
            {
                Reuse::Now
            }
            reuse => reuse,
        }
    }

    /// Has the origin asked about a response that is used meanwhile.
    pub(super) fn refresh(&mut self, stale: Arc<Head>) {
        // Who wants nothing but what is cached waits for nothing either: he costs it no less.
        let Ok(mut wanted) = self.wanted(Some(stale)) else { return };
        wanted.range = None;
        self.shared.filler.refresh(wanted);
        self.viewer.count_origin_requests(1);
    }

    /// Answers with what is stored although it is stale: the origin failed, or is slow.
    pub(super) async fn answer_stale(
        &mut self,
        head: Arc<Head>,
        forwarded: Forwarded,
    ) -> Result<Attempt, DeliveryError> {
        if !head.is_selected_by(&self.viewer.parts.headers) {
            return Ok(Attempt::Alone);
        }
        self.record.found(Lookup::Stale);
        let ttl = Some(head.freshness.ttl_seconds(self.viewer.time));
        let detail = Some("stale-if-error");
        self.answer(head, Found::Asked(Forwarded { ttl, detail, ..forwarded })).await
    }

    /// What the origin says, or `None` if a viewer need not wait that long for it.
    pub(super) async fn in_time<T>(
        &self,
        asking: impl Future<Output = T>,
        stale: Option<&Head>,
    ) -> Option<T> {
        match stale.is_some_and(|head| head.freshness.serves_on_error(self.viewer.time)) {
            true => timeout(STALE_PATIENCE, asking).await.ok(),
            false => Some(asking.await),
        }
    }
}

/// An origin that takes longer over what a viewer could have at once is one that fails.
const STALE_PATIENCE: Duration = Duration::from_secs(2);
