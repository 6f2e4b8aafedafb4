//! A request that is passed on, and what its answer puts an end to (RFC 9111 section 4.4).
//!
//! It belongs to the fill runtime: a viewer who leaves takes his body with him, but when the origin
//! has all of it the answer is waited for, because what it ends must not be served to others.
//!
//! Ended means that nobody who asks once the viewer has the answer's head gets what was stored
//! before, in this order. What is under way is marked (`purge/invalidation.rs`): an answer that was
//! asked for before is kept nowhere, and nobody new waits for it. What ram and volumes hold is
//! forgotten, all variants. Then the volumes' word that they hold nothing is waited for, so that a
//! kill does not bring it back: a tombstone in the next packet of heads, whoever else it is for,
//! and no sync. Where nothing is held nothing is written, and nothing is remembered that a viewer
//! could make grow.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::fill::Filler;
use crate::fill::client::{Once, OnceAnswer, OnceConnection, RequestBody};
use crate::fill::error::FillError;
use crate::message::invalidation::{UriOrigin, ends_stored, named};
use crate::message::passed::is_unsafe;
use crate::message::target::canonical_target;
use crate::object::ObjectKey;
use crate::site::Site;

/// A request to be passed on.
#[derive(Debug)]
pub struct Forward {
    /// Whose origins are asked.
    pub site: Arc<Site>,
    /// What is asked for.
    pub key: ObjectKey,
    /// Where that is, for whom it matters.
    pub origin: UriOrigin,
    /// As the viewer wrote it.
    pub method: http::Method,
    /// What goes along.
    pub fields: http::HeaderMap,
    /// Whether the viewer waits for a word before he sends the body.
    pub expects_continue: bool,
    /// What he sends.
    pub body: RequestBody,
}

impl Filler {
    /// Passes a request on, once. What its answer ends has ended when this returns. Dropping it
    /// midway is safe: what the origin has been told whole goes on.
    ///
    /// # Errors
    /// As [`Client::connect_once`](crate::fill::client::Client::connect_once) and
    /// [`OnceConnection::send`].
    pub async fn forward(self: &Arc<Self>, forward: Forward) -> Result<OnceAnswer, FillError> {
        let (mut tell, answer) = oneshot::channel();
        let (filler, site) = (self.clone(), forward.site.id);
        self.spawn(async move {
            let connected = tokio::select! {
                biased;
                // Who leaves before anything was sent leaves nothing to be done.
                () = tell.closed() => return,
                connected = filler.client.connect_once(&forward.site) => connected,
            };
            let answered = match connected {
                Ok(connection) => filler.forward_and_end(connection, forward).await,
                Err(error) => Err(error),
            };
            // Who asked may be gone.
            let _ = tell.send(answered.inspect_err(|error| filler.count_error(site, error)));
        });
        answer.await.unwrap_or(Err(FillError::Draining))
    }

    async fn forward_and_end(
        &self,
        connection: OnceConnection<'_>,
        forward: Forward,
    ) -> Result<OnceAnswer, FillError> {
        let Forward { site, key, origin, method, fields, expects_continue, body } = forward;
        self.counters.origin_requests.count(());
        let may_change = is_unsafe(&method);
        let target = key.target();
        let answer =
            connection.send(Once { method, target, fields, expects_continue, body }).await?;
        if may_change && ends_stored(answer.status) {
            let named = named(&origin, key.path(), &answer.fields);
            let named = named.iter().map(|(path, query)| {
                let rule = site.rule_for(path);
                let target = canonical_target(path, query.as_deref(), &rule.query, rule.content);
                ObjectKey::new(site.id, &target)
            });
            let ended: Vec<ObjectKey> = named.chain([key.clone()]).collect();
            self.end(&ended).await;
            if self.purges.end_objects_elsewhere(&ended).await.is_err() {
                tracing::warn!(
                    "what an unsafe request ended is not yet known to have ended in the other \
                     process of an upgrade"
                );
            }
        }
        Ok(answer)
    }

    async fn end(&self, keys: &[ObjectKey]) {
        self.end_here(keys);
        self.ended(keys).await;
    }

    /// Forgets objects: nobody who comes from now on is served what they were.
    pub fn end_here(&self, keys: &[ObjectKey]) {
        for key in keys {
            self.purges.invalidate(key);
            self.ssd.forget(key, || self.heads.forget_all(key));
        }
    }

    /// Waits until they are forgotten for good, but not for ever. Dropping it midway is safe.
    pub async fn ended(&self, keys: &[ObjectKey]) {
        let settled = async {
            for key in keys {
                self.ssd.settled(key).await;
            }
        };
        if timeout(SETTLED_WITHIN, settled).await.is_err() {
            tracing::warn!(
                "what an unsafe request ended is not yet known to have ended on a volume: it may \
                 come back if the process is killed now"
            );
        }
    }
}

/// A head is on its device in less than a tenth of this, or the volume is ill.
const SETTLED_WITHIN: Duration = Duration::from_secs(2);
