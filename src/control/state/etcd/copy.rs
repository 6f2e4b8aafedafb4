//! A copy of the last state in the folder of each control plane, so that one which starts while
//! nobody answers gives boxes what was known last. It is as secret as the keys are.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::{Known, Shared, StateError};
use crate::control::issuer::replace;
use crate::control::state::{Entry, Exported, json};

/// Goes by the copy, if there is one; otherwise there is nothing to go by, for `why`.
pub(super) fn resume(shared: &Shared, why: StateError) -> Result<(), StateError> {
    if !matches!(why, StateError::Away { .. }) {
        return Err(why);
    }
    let folder = &shared.settings.folder;
    let Ok(text) = fs::read(folder.join(STATE_COPY)) else { return Err(why) };
    let Ok(exported) = Exported::parse(&text) else { return Err(why) };
    let entries = exported.entries().into_iter();
    let entries = entries.map(|(key, value)| Entry { key, version: 0, value }).collect();
    shared.known.store(Arc::new(Known::of(entries)?));
    let snapshot = fs::read(folder.join(SNAPSHOT_COPY)).ok();
    shared.latest.store(snapshot.map(|bytes| Arc::new(Bytes::from(bytes))));
    tracing::error!("{why}; the last state that was known is gone by, and it is asked again");
    Ok(())
}

impl Shared {
    /// Keeps the copy, for ever. Safe to drop: a file is replaced whole.
    pub(super) async fn keep_copy(&self) {
        let (mut seen, mut copied) = (self.seen.subscribe(), None);
        loop {
            let now = (self.known.load_full(), self.latest.load_full());
            // Where nothing was seen there is nothing to copy.
            let is_new = *seen.borrow_and_update() > 0
                && !copied.as_ref().is_some_and(|copied| is_same(copied, &now));
            if is_new {
                let (folder, (known, latest)) = (self.settings.folder.clone(), now.clone());
                let write = move || {
                    replace(&folder.join(STATE_COPY), &json(&Exported::of(&known)))?;
                    latest.map_or(Ok(()), |bytes| replace(&folder.join(SNAPSHOT_COPY), &bytes))
                };
                if let Ok(Err(error)) = spawn_blocking(write).await {
                    tracing::warn!("the last state cannot be copied: {error}");
                }
                copied = Some(now);
            }
            sleep(COPIED_EVERY).await;
            if seen.changed().await.is_err() {
                return;
            }
        }
    }
}

type Copied = (Arc<Known>, Option<Arc<Bytes>>);

fn is_same(one: &Copied, other: &Copied) -> bool {
    let snapshots = (&one.1, &other.1);
    let is_same_snapshot = match snapshots {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (one, other) => one.is_none() && other.is_none(),
    };
    Arc::ptr_eq(&one.0, &other.0) && is_same_snapshot
}

const STATE_COPY: &str = "etcd.last";
const SNAPSHOT_COPY: &str = "etcd.snapshot";
const COPIED_EVERY: Duration = Duration::from_secs(1);
