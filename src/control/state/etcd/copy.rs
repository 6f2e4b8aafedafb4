//! A copy of the last state in the folder of each control plane, so that one which starts while
//! nobody answers gives boxes what was known last. It is as secret as the keys are.

use std::fs;
use std::io;
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
    /// Keeps the copy, for ever, where it takes part: it is a control plane's own, and who only
    /// asks something may be another user. Safe to drop: a file is replaced whole.
    pub(super) async fn keep_copy(&self) {
        let mut attends = self.attends.subscribe();
        if attends.wait_for(Option::is_some).await.is_err() {
            return;
        }
        let (mut seen, mut copied, mut is_told) = (self.seen.subscribe(), None, false);
        loop {
            // Where nothing was seen there is nothing to copy.
            let has_seen = *seen.borrow_and_update() > 0;
            let kept = if has_seen { self.copy(&mut copied).await } else { Ok(()) };
            if let Err(error) = &kept
                && !is_told
            {
                tracing::warn!("the last state cannot be copied, it is tried again: {error}");
            }
            is_told = kept.is_err();
            sleep(COPIED_EVERY).await;
            if !is_told && seen.changed().await.is_err() {
                return;
            }
        }
    }

    /// Copies what is known now, unless it is what was `copied` last.
    async fn copy(&self, copied: &mut Option<Copied>) -> io::Result<()> {
        let now = (self.known.load_full(), self.latest.load_full());
        if copied.as_ref().is_some_and(|copied| is_same(copied, &now)) {
            return Ok(());
        }
        let (folder, (known, latest)) = (self.settings.folder.clone(), now.clone());
        let write = move || {
            replace(&folder.join(STATE_COPY), &json(&Exported::of(&known)))?;
            latest.map_or(Ok(()), |bytes| replace(&folder.join(SNAPSHOT_COPY), &bytes))
        };
        spawn_blocking(write).await.unwrap_or_else(|error| Err(io::Error::other(error)))?;
        *copied = Some(now);
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::super::tests::alone;
    use super::*;

    #[tokio::test]
    async fn what_could_not_be_copied_is_copied_as_soon_as_it_can_be_though_nothing_changes() {
        let (shared, mut copied) = (alone(), None);
        let folder = &shared.settings.folder;
        shared.copy(&mut copied).await.unwrap_err();
        fs::create_dir(folder).unwrap();
        shared.copy(&mut copied).await.unwrap();
        assert!(Exported::parse(&fs::read(folder.join(STATE_COPY)).unwrap()).is_ok());
        fs::remove_dir_all(folder).unwrap();
        shared.copy(&mut copied).await.unwrap();
        assert!(!folder.exists(), "it is the same");
    }
}
