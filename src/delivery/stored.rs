//! What is stored and may not be fresh: whether it serves, and who asks the origin about it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::timeout;

use crate::access_log::Decision;
use crate::cache::heads::Head;
use crate::delivery::error::DeliveryError;
use crate::delivery::reply::Found;
use crate::delivery::{Attempt, Transaction};
use crate::fill::Wanted;
use crate::message::cache_status::{Forwarded, Fwd};
use crate::message::live;
use crate::message::reuse::{RequestControl, Reuse, judge};
use crate::metrics::labels::Lookup;

impl Transaction<'_> {
    /// What a stored response is good for now.
    pub(super) fn reuse(&self, head: &Head) -> Reuse {
        let (asked, now) = (&self.asked, self.viewer.time);
        let has_turn = || head.version.takes_turn_to_ask(now);
        let control = (&asked.control, asked.has_authorization);
        let (reuse, because) = weigh(head, control, now, has_turn);
        self.viewer.tell_at_once(|| {
            let how = match reuse {
                Reuse::Now => "serves as it is",
                Reuse::WhileRevalidated => "serves, and its origin is asked meanwhile",
                Reuse::OnceConfirmed(_) => "serves once its origin confirms it",
            };
            let ttl = head.freshness.ttl_seconds(now);
            Decision::of("variant", how).because(because).with("ttl_s", ttl)
        });
        reuse
    }

    /// Has the origin asked about a response that is used meanwhile.
    pub(super) fn refresh(&mut self, stale: Arc<Head>) {
        // Who wants only what is cached has none refreshed.
        let Ok(wanted) = self.wanted(Some(stale)) else { return };
        if self.shared.filler.refresh(Wanted { range: None, ..wanted }) {
            self.viewer.count_origin_requests(1);
        }
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
        let is_stale = !head.freshness.is_fresh(self.viewer.time);
        let detail = is_stale.then_some("stale-if-error");
        self.answer(head, Found::Asked(Forwarded { ttl, detail, ..forwarded })).await
    }

    /// What the origin says, or `None` if a viewer need not wait that long for it.
    pub(super) async fn in_time<T>(
        &self,
        asking: impl Future<Output = T>,
        stale: Option<&Head>,
    ) -> Option<T> {
        let may_serve = |head: &&Head| head.freshness.serves_on_error(self.viewer.time);
        // Of what is about to be made there is no older one.
        let is_held = live::is_blocking_reload(self.asked.key.target());
        let Some(head) = stale.filter(may_serve).filter(|_| !is_held) else {
            return Some(asking.await);
        };
        let told = timeout(STALE_PATIENCE, asking).await.ok();
        if told.is_none() {
            // Not each viewer has to find that out.
            head.version.rest(SystemTime::now());
        }
        told
    }
}

/// What a stored response is good for, with regard to its origin, and the sentence that decides: a
/// viewer's wish costs one request a second, and an origin that failed has a rest.
pub(crate) fn weigh(
    head: &Head,
    (control, has_authorization): (&RequestControl, bool),
    now: SystemTime,
    has_turn: impl Fn() -> bool,
) -> (Reuse, &'static str) {
    let (freshness, version) = (&head.freshness, &head.version);
    let (reuse, because) = judge(freshness, control, now);
    // Who asks for himself alone asks nothing for others, and takes nobody's turn.
    let asks_alone = has_authorization || control.no_store || control.only_if_cached;
    match reuse {
        Reuse::OnceConfirmed(Fwd::Request)
            if freshness.is_fresh(now) && !control.only_if_cached && !has_turn() =>
        {
            (Reuse::Now, "it is fresh, and its origin was asked about it within this second")
        }
        Reuse::WhileRevalidated if asks_alone || version.rests(now) || !has_turn() => {
            (Reuse::Now, because)
        }
        Reuse::OnceConfirmed(Fwd::Stale | Fwd::Request)
            if freshness.serves_on_error(now) && version.rests(now) =>
        {
            (Reuse::Now, "its origin failed a moment ago (RFC 5861 section 4)")
        }
        reuse => (reuse, because),
    }
}

/// An origin that takes longer over what a viewer could have at once is one that fails.
const STALE_PATIENCE: Duration = Duration::from_secs(2);
