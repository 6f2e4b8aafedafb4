//! A copy of the last state in the folder of each control plane, so that one which starts while
//! nobody answers gives boxes what was known last. It is as secret as the keys are.

use std::fs;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::{Known, Shared};
use crate::control::issuer::replace;
use crate::control::state::{Entry, Exported, json};

/// Goes by the copy, if there is one, until etcd was read; whether there is.
pub(super) fn resume(shared: &Shared) -> bool {
    let folder = &shared.settings.folder;
    let Ok(text) = fs::read(folder.join(STATE_COPY)) else { return false };
    let Ok(exported) = Exported::parse(&text) else { return false };
    let entries = exported.entries().into_iter();
    let entries = entries.map(|(key, value)| Entry { key, version: NO_VERSION, value });
    let Ok(known) = Known::of(entries.collect()) else { return false };
    shared.known.store(Arc::new(known));
    let snapshot = fs::read(folder.join(SNAPSHOT_COPY)).ok();
    shared.latest.store(snapshot.map(|bytes| Arc::new(Bytes::from(bytes))));
    true
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

pub(super) const STATE_COPY: &str = "etcd.last";
const SNAPSHOT_COPY: &str = "etcd.snapshot";
const COPIED_EVERY: Duration = Duration::from_secs(1);
/// What no key has on etcd, where a key that is not there has 0: no change is made of what was only
/// copied.
const NO_VERSION: u64 = i64::MAX as u64;

#[cfg(test)]
mod tests {
    use super::super::Expect;
    use super::super::tests::alone;
    use super::*;
    use crate::control::state::{CodeRecord, code_key};

    #[test]
    fn of_what_was_only_copied_no_change_is_made() {
        let shared = alone();
        assert!(!resume(&shared), "there is no copy");
        fs::create_dir(&shared.settings.folder).unwrap();
        let code = CodeRecord { name: "edge-1".to_owned(), expires_at: 9, by: "anna".to_owned() };
        let entry = Entry { key: code_key("d1"), version: 7, value: json(&code) };
        let exported = Exported::of(&Known::of(vec![entry]).unwrap());
        fs::write(shared.settings.folder.join(STATE_COPY), json(&exported)).unwrap();
        assert!(resume(&shared));
        let known = shared.known.load();
        assert!(known.codes.contains_key("d1"));
        // Of a key that is not there etcd says that its version is 0.
        assert_eq!(known.expect(&code_key("d1")), Expect::Version(i64::MAX as u64));
        shared.is_to_be_changed().unwrap_err();
    }

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
