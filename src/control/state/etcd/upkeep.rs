//! What who leads keeps in order on etcd: parts that nothing names any more, the oldest of too many
//! records of who changed what, and the history, which etcd keeps until it is told.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use etcd_client::{DeleteOptions, GetOptions, SortOrder, SortTarget};
use tokio::time::sleep;

use super::client::CallError;
use super::commit::audit_of;
use super::values::PARTS;
use super::{By, Shared, StateError, lock};
use crate::limits::{AUDIT_OF_BOXES_MAX, AUDIT_RECORDS_MAX, ETCD_PAGE_KEYS};

impl Shared {
    /// Keeps all of it in order, for ever. Safe to drop.
    pub(super) async fn keep_up(&self) {
        let (mut unused, mut history, mut is_told) = (BTreeMap::new(), None, false);
        loop {
            sleep(LOOKED_AT_EVERY).await;
            // Who does not see all does not know what is used.
            let leads = self.held().leads.is_some_and(|(_, until)| Instant::now() < until);
            if !leads || self.is_away() {
                (unused, history) = (BTreeMap::new(), None);
                continue;
            }
            let kept = async {
                self.sweep_parts(&mut unused).await?;
                self.sweep_audit(audit_of(By::Operator), AUDIT_RECORDS_MAX).await?;
                self.sweep_audit(audit_of(By::Box), AUDIT_OF_BOXES_MAX).await?;
                self.forget(&mut history).await
            };
            match kept.await {
                Ok(()) => is_told = false,
                Err(error) if is_told => tracing::debug!("etcd is not kept in order: {error:?}"),
                Err(error) => {
                    let error = StateError::from(error);
                    tracing::warn!("etcd is not kept in order, and grows until it is: {error}");
                    is_told = true;
                }
            }
        }
    }

    /// Removes parts that have been in no use for long enough that no change is under way.
    async fn sweep_parts(&self, unused: &mut BTreeMap<String, Instant>) -> Result<(), CallError> {
        let found = self.keys_under(PARTS, SortOrder::Ascend, PARTS_LOOKED_AT_MAX).await?;
        let names = found.iter().filter_map(|key| key.split('/').next());
        let names: BTreeSet<String> = names.map(str::to_owned).collect();
        let used = lock(&self.named).clone();
        unused.retain(|name, _| names.contains(name) && !used.contains(name));
        for name in names.difference(&used) {
            let since = unused.entry(name.clone()).or_insert_with(Instant::now);
            if since.elapsed() > UNUSED_FOR {
                self.delete(&format!("{PARTS}{name}/"), None).await?;
            }
        }
        Ok(())
    }

    /// Removes the oldest records of too many.
    async fn sweep_audit(&self, of: &str, records_max: usize) -> Result<(), CallError> {
        let key = self.key(of);
        let count = |mut client: etcd_client::Client| {
            let (key, options) = (key.clone(), GetOptions::new().with_prefix().with_count_only());
            async move { client.get(key, Some(options)).await }
        };
        let count = self.client.call(count).await?.count() as usize;
        let many = count.saturating_sub(records_max).min(ETCD_PAGE_KEYS);
        if many > 0 {
            let oldest = self.keys_under(of, SortOrder::Ascend, many).await?;
            if let Some(last) = oldest.last() {
                self.delete(of, Some(&format!("{of}{last}\0"))).await?;
            }
        }
        Ok(())
    }

    /// Has etcd forget what was changed before the last time.
    async fn forget(&self, history: &mut Option<(Instant, i64)>) -> Result<(), CallError> {
        match *history {
            Some((at, _)) if at.elapsed() < HISTORY_FOR => return Ok(()),
            Some((_, revision)) if revision > 0 => {
                let compact = |mut client: etcd_client::Client| async move {
                    client.compact(revision, None).await
                };
                match self.client.call(compact).await {
                    // Somebody else has done it.
                    Ok(_) | Err(CallError::Compacted) => {}
                    Err(error) => return Err(error),
                }
            }
            _ => {}
        }
        *history = Some((Instant::now(), *self.seen.borrow()));
        Ok(())
    }

    /// Keys, without what they begin with.
    async fn keys_under(
        &self,
        start: &str,
        order: SortOrder,
        most: usize,
    ) -> Result<Vec<String>, CallError> {
        let start = self.key(start);
        let get = |mut client: etcd_client::Client| {
            let options = GetOptions::new().with_prefix().with_keys_only();
            let options = options.with_sort(SortTarget::Key, order).with_limit(most as i64);
            let start = start.clone();
            async move { client.get(start, Some(options)).await }
        };
        let found = self.client.call(get).await?;
        let keys = found.kvs().iter().filter_map(|kv| kv.key_str().ok()?.strip_prefix(&start));
        Ok(keys.map(str::to_owned).collect())
    }

    /// All keys that begin so, or those from there to `end`.
    async fn delete(&self, start: &str, end: Option<&str>) -> Result<(), CallError> {
        let (start, end) = (self.key(start), end.map(|end| self.key(end)));
        let delete = |mut client: etcd_client::Client| {
            let options = match end.clone() {
                Some(end) => DeleteOptions::new().with_range(end),
                None => DeleteOptions::new().with_prefix(),
            };
            let start = start.clone();
            async move { client.delete(start, Some(options)).await }
        };
        self.client.call(delete).await.map(drop)
    }
}

const LOOKED_AT_EVERY: Duration = Duration::from_secs(20);
/// Longer than any change takes.
const UNUSED_FOR: Duration = Duration::from_secs(120);
/// How long whoever was away can go on where he was.
const HISTORY_FOR: Duration = Duration::from_secs(60);
const PARTS_LOOKED_AT_MAX: usize = 10_000;
