//! Seeing what is on etcd: read whole at one revision, then every change after it; whole again when
//! that ends, for etcd may not be what it was. An etcd that has lost what was known is not gone by.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use etcd_client::{EventType, GetOptions, SortOrder, SortTarget, WatchOptions, WatchResponse};
use tokio::time::sleep;

use super::client::{CallError, told};
use super::mirror::{About, LIVE, Mirror, Seen, WATCHED_END};
use super::values::{Pointer, Value};
use super::{Known, Shared, StateError, lock};
use crate::control::snapshot::Number;
use crate::control::state::{NUMBER, SNAPSHOT};
use crate::limits::{ETCD_ANSWER_BYTES_MAX, ETCD_BEATS_MAX, ETCD_PAGE_KEYS};

impl Shared {
    /// Sees what changes, for ever. Safe to drop.
    pub(super) async fn follow(&self, mut mirror: Option<Mirror>) {
        let (mut why, mut told) = ("nobody answered".to_owned(), String::new());
        let (mut read_at, mut missed_at) = (Instant::now(), None::<Instant>);
        loop {
            // What was seen is of no use when it ends: between two watches etcd may have gone back
            // and grown past it, and no number says so.
            let lost = match mirror.take() {
                Some(mut mirror) => self.watched(&mut mirror).await,
                None => {
                    // What failed midway was read too.
                    read_at = Instant::now();
                    match self.begin(SystemTime::now()).await {
                        Ok(read) => {
                            // What was heard meanwhile nobody says again. Where this is often so
                            // little was missed, and who is silent would never seem so.
                            if missed_at.is_none_or(|at| at.elapsed() > MISSED_EVERY) {
                                self.has_returned.store(true, Ordering::Relaxed);
                                missed_at = Some(Instant::now());
                            }
                            tracing::info!("all of the state is read again: {why}");
                            told.clear();
                            mirror = Some(read);
                            continue;
                        }
                        Err(error) => error.into(),
                    }
                }
            };
            self.out_of_touch();
            match lost {
                Lost::Forgotten(what) => why = what,
                Lost::Failed(error) => {
                    why = error.to_string();
                    self.tell_failed(&error, &mut told);
                }
            }
            sleep(ASKED_AGAIN_AFTER.max(READ_EVERY.saturating_sub(read_at.elapsed()))).await;
        }
    }

    /// Told once until all is well again.
    fn tell_failed(&self, error: &StateError, told: &mut String) {
        let why = error.to_string();
        if why == *told || !self.is_away() {
            return;
        }
        match error {
            StateError::Gone { .. } => {
                tracing::error!("{why}; until then boxes keep what they have")
            }
            _ => tracing::warn!("{why}; what was known last is gone by"),
        }
        *told = why;
    }

    /// Forgets what it did, where etcd has gone back behind what was seen.
    pub(super) fn look_back(&self, revision: i64) {
        let seen = *self.seen.borrow();
        if revision < seen {
            tracing::error!("etcd has gone back to {revision}, and {seen} was seen");
            self.held().leads = None;
            self.seats.store(Arc::default());
        }
    }

    /// Why it ended.
    async fn watched(&self, mirror: &mut Mirror) -> Lost {
        match self.watch(mirror).await {
            Ok(()) => Lost::Forgotten("another member is asked".to_owned()),
            Err(lost) => lost,
        }
    }

    /// Ends when another member is to be asked.
    async fn watch(&self, mirror: &mut Mirror) -> Result<(), Lost> {
        let mut turns = self.client.turns();
        let (key, end, start) = (self.key(LIVE), self.key(WATCHED_END), mirror.revision + 1);
        let watch = |client: etcd_client::Client| {
            let options = WatchOptions::new().with_range(end.clone()).with_start_revision(start);
            let (key, watch) = (key.clone(), client.watch_client());
            let mut watch = watch.max_decoding_message_size(ETCD_ANSWER_BYTES_MAX);
            async move { watch.watch(key, Some(options)).await }
        };
        let mut stream = self.client.call(watch).await?;
        let turn = *turns.borrow_and_update();
        let (now, last) = self.last_change().await?;
        if now < mirror.revision {
            return Err(Lost::Forgotten(format!("etcd has gone back to {now}")));
        }
        if mirror.revision >= last {
            self.in_touch();
        }
        loop {
            let message = tokio::select! {
                message = stream.message() => message,
                _ = turns.changed() => return Ok(()),
            };
            let failed = match message {
                Ok(Some(message)) if message.canceled() => match message.compact_revision() {
                    0 => CallError::Away(message.cancel_reason().to_owned()),
                    first => {
                        let seen = mirror.revision;
                        let what = format!("etcd begins at {first}, and {seen} was seen last");
                        return Err(Lost::Forgotten(what));
                    }
                },
                Ok(Some(message)) => {
                    let about = mirror.apply(self.seen_in(&message), &self.node);
                    self.take_changes(mirror, about).await?;
                    // Until then what was missed is still coming.
                    if mirror.revision >= last {
                        self.in_touch();
                    }
                    continue;
                }
                Ok(None) => CallError::Away("etcd has ended it".to_owned()),
                Err(error) => told(&error),
            };
            self.client.turn_from(turn).await;
            return Err(failed.into());
        }
    }

    /// The revision that etcd has now, and that of the latest change to what is watched.
    async fn last_change(&self) -> Result<(i64, i64), Lost> {
        let (key, end) = (self.key(LIVE), self.key(WATCHED_END));
        let get = |mut client: etcd_client::Client| {
            let options = GetOptions::new().with_range(end.clone()).with_keys_only();
            let options = options.with_sort(SortTarget::Mod, SortOrder::Descend).with_limit(1);
            let key = key.clone();
            async move { client.get(key, Some(options)).await }
        };
        let found = self.client.call(get).await?;
        let now = found.header().map_or(0, |header| header.revision());
        Ok((now, found.kvs().first().map_or(0, |kv| kv.mod_revision())))
    }

    fn seen_in(&self, message: &WatchResponse) -> Vec<Seen> {
        let seen = |event: &etcd_client::Event| {
            let kv = event.kv()?;
            let is_there = event.event_type() == EventType::Put;
            let value = is_there.then(|| kv.value().to_vec());
            Some(Seen { key: self.bare(kv.key())?, version: kv.mod_revision(), value })
        };
        message.events().iter().filter_map(seen).collect()
    }

    fn bare(&self, key: &[u8]) -> Option<String> {
        let key = std::str::from_utf8(key).ok()?;
        Some(key.strip_prefix(&self.settings.prefix)?.strip_prefix('/')?.to_owned())
    }

    /// All that is watched, at one revision.
    pub(super) async fn read_all(&self) -> Result<Mirror, Lost> {
        let (mut from, end) = (self.key(LIVE), self.key(WATCHED_END));
        let (mut revision, mut all) = (0, Vec::new());
        loop {
            let page = |client: etcd_client::Client| {
                let options = GetOptions::new().with_range(end.clone());
                let options = options.with_limit(ETCD_PAGE_KEYS as i64).with_revision(revision);
                let (from, kv) = (from.clone(), client.kv_client());
                let mut kv = kv.max_decoding_message_size(ETCD_ANSWER_BYTES_MAX);
                async move { kv.get(from, Some(options)).await }
            };
            let page = self.client.call(page).await?;
            if revision == 0 {
                revision = page.header().map_or(0, |header| header.revision());
            }
            let seen = |kv: &etcd_client::KeyValue| {
                let value = Some(kv.value().to_vec());
                Some(Seen { key: self.bare(kv.key())?, version: kv.mod_revision(), value })
            };
            all.extend(page.kvs().iter().filter_map(seen));
            match page.kvs().last().filter(|_| page.more()) {
                Some(last) => from = format!("{}\0", last.key_str().unwrap_or_default()),
                None => return Ok(Mirror::of(revision, all)),
            }
        }
    }

    async fn take_changes(&self, mirror: &mut Mirror, about: About) -> Result<(), Lost> {
        if about.state {
            self.take(mirror).await?;
        } else if about.seats {
            self.seats.store(Arc::new(mirror.seats()));
        }
        let mut beats = self.beats();
        let room = ETCD_BEATS_MAX.saturating_sub(beats.theirs.len());
        beats.theirs.extend(about.heard.into_iter().take(room));
        drop(beats);
        self.seen.send_replace(mirror.revision);
        self.changed.notify_one();
        Ok(())
    }

    /// Has all know what is seen.
    pub(super) async fn take(&self, mirror: &mut Mirror) -> Result<(), Lost> {
        let before = self.known.load_full();
        if before.number != Number::default() && mirror.value(NUMBER).is_none() {
            return Err(Lost::Failed(self.gone()));
        }
        let pointers = mirror.pointers();
        *lock(&self.named) = pointers.iter().map(|pointer| pointer.name.clone()).collect();
        let whole = self.whole(mirror, pointers).await?;
        let known = mirror
            .entries(&whole, SNAPSHOT)
            .and_then(|(entries, untold)| Ok(Known::of(entries)?.with_untold(untold, &before)));
        match known {
            Ok(known) => {
                if known.number < before.number {
                    let (now, before) = (known.number, before.number);
                    let what = format!("etcd has gone back to snapshot {now} from {before}");
                    tracing::error!("{what}: boxes take what is older once the epoch is raised");
                }
                self.known.store(Arc::new(known));
            }
            // Who has written it has to mend it; all else goes on.
            Err(error) => tracing::error!("{error}; what was known before stays"),
        }
        self.seats.store(Arc::new(mirror.seats()));
        let snapshot = mirror.value(SNAPSHOT).and_then(|value| match value {
            Value::Here(bytes) => Some(Bytes::from(bytes)),
            Value::Parted(pointer) => match whole.get(&pointer.name) {
                None => self.latest.load().as_deref().cloned(),
                whole => whole.cloned(),
            },
        });
        if self.latest.load().as_deref() != snapshot.as_ref() {
            self.latest.store(snapshot.map(Arc::new));
        }
        *lock(&self.whole) = whole;
        self.is_gone.store(false, Ordering::Relaxed);
        self.seen.send_replace(mirror.revision);
        Ok(())
    }

    /// The values that were split, by the names of their parts; those that are held are not read,
    /// nor those that are gone.
    async fn whole(
        &self,
        mirror: &mut Mirror,
        pointers: Vec<Pointer>,
    ) -> Result<BTreeMap<String, Bytes>, Lost> {
        let mut whole = BTreeMap::new();
        mirror.gone.retain(|name| pointers.iter().any(|pointer| pointer.name == *name));
        for pointer in pointers {
            let mut value = lock(&self.whole).get(&pointer.name).cloned();
            if value.is_none() && !mirror.gone.contains(&pointer.name) {
                value = self.joined(&pointer).await?;
            }
            match value {
                Some(value) => drop(whole.insert(pointer.name, value)),
                None => drop(mirror.gone.insert(pointer.name)),
            }
        }
        Ok(whole)
    }

    /// `None`: its parts are gone. Mostly it was replaced before it was read, which is seen next.
    async fn joined(&self, pointer: &Pointer) -> Result<Option<Bytes>, Lost> {
        let mut all = Vec::new();
        for key in pointer.keys() {
            let key = self.key(&key);
            let get = |client: etcd_client::Client| {
                let (key, kv) = (key.clone(), client.kv_client());
                let mut kv = kv.max_decoding_message_size(ETCD_ANSWER_BYTES_MAX);
                async move { kv.get(key, None).await }
            };
            let part = self.client.call(get).await?;
            all.extend(part.kvs().iter().flat_map(|kv| kv.value()));
        }
        if !pointer.is_of(&all) {
            let name = &pointer.name;
            tracing::warn!("parts of a value are gone, what was known before stays: {name}");
            return Ok(None);
        }
        Ok(Some(all.into()))
    }
}

/// Why nothing more is seen.
#[derive(Debug)]
pub(super) enum Lost {
    /// All has to be read again.
    Forgotten(String),
    /// Nobody answers, or not what is understood.
    Failed(StateError),
}

impl From<CallError> for Lost {
    fn from(error: CallError) -> Lost {
        match error {
            CallError::Compacted => Lost::Forgotten("etcd has forgotten what was next".to_owned()),
            // Read whole it comes in pages.
            CallError::TooLarge(what) => Lost::Forgotten(what),
            error => Lost::Failed(error.into()),
        }
    }
}

impl From<StateError> for Lost {
    fn from(error: StateError) -> Lost {
        Lost::Failed(error)
    }
}

impl From<Lost> for StateError {
    fn from(lost: Lost) -> StateError {
        match lost {
            Lost::Forgotten(what) => StateError::Away { what },
            Lost::Failed(error) => error,
        }
    }
}

const MISSED_EVERY: Duration = Duration::from_secs(60);
const ASKED_AGAIN_AFTER: Duration = Duration::from_millis(200);
/// All of it may be much.
const READ_EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::super::Expect;
    use super::super::mirror::{LEADER, STATE};
    use super::super::tests::alone;
    use super::*;
    use crate::limits::ETCD_VALUE_BYTES_MAX;

    fn keys(text: &[u8]) -> (Seen, Pointer) {
        let pointer = Pointer::to(text).unwrap();
        let (key, value) = (format!("{STATE}keys/film"), Some(pointer.to_bytes()));
        (Seen { key, version: 2, value }, pointer)
    }

    #[tokio::test]
    async fn a_value_that_could_not_be_read_when_it_was_seen_has_its_parts_in_use() {
        let (shared, text) = (alone(), vec![b' '; ETCD_VALUE_BYTES_MAX + 1]);
        let (put, pointer) = keys(&text);
        let mut mirror = Mirror::of(1, []);
        shared.take(&mut mirror).await.unwrap();
        let about = mirror.apply([put], "me");
        shared.take_changes(&mut mirror, about).await.unwrap_err();
        assert!(shared.known.load().keys.is_empty(), "nobody tells its parts");
        assert!(lock(&shared.named).contains(&pointer.name));
    }

    #[tokio::test]
    async fn an_etcd_that_has_lost_what_was_known_is_not_gone_by_until_it_is_there_again() {
        let shared = alone();
        let put = |key: &str, value: &str| {
            let value = Some(value.as_bytes().to_vec());
            Seen { key: format!("{STATE}{key}"), version: 2, value }
        };
        let all = || [put("keys/film", "{}"), put(NUMBER, r#"{"epoch":1,"counter":5}"#)];
        let mut whole = Mirror::of(2, all());
        shared.take(&mut whole).await.unwrap();
        shared.is_to_be_changed().unwrap();
        // One that was begun anew has nothing, and an import that is under way has a part.
        for rest in [vec![], vec![put("keys/film", "{}")]] {
            let error = StateError::from(shared.take(&mut Mirror::of(9, rest)).await.unwrap_err());
            let text = error.to_string();
            assert!(text.contains("`tidegate control import ") && text.contains("etcd.last`"));
            assert!(shared.known.load().keys.contains_key("film"));
            assert!(matches!(shared.is_to_be_changed(), Err(StateError::Gone { .. })));
        }
        shared.take(&mut whole).await.unwrap();
        shared.is_to_be_changed().unwrap();
    }

    #[tokio::test]
    async fn after_etcd_has_gone_back_nobody_leads_by_what_was_seen_before() {
        let shared = alone();
        let leader = Seen { key: LEADER.to_owned(), version: 8, value: Some(b"me".to_vec()) };
        shared.take(&mut Mirror::of(9, [leader])).await.unwrap();
        shared.held().leads = Some((8, Instant::now()));
        shared.look_back(9);
        assert!(shared.held().leads.is_some() && shared.seats.load().leader.is_some());
        shared.look_back(8);
        assert!(shared.held().leads.is_none() && shared.seats.load().leader.is_none());
    }

    #[tokio::test]
    async fn a_value_whose_parts_are_gone_stays_as_it_was_and_can_be_put_anew() {
        let (shared, text) = (alone(), vec![b' '; ETCD_VALUE_BYTES_MAX + 1]);
        let put = |key: &str, version, value: &[u8]| {
            let key = format!("{STATE}{key}");
            Seen { key, version, value: Some(value.to_vec()) }
        };
        let mut mirror = Mirror::of(1, [put("keys/film", 1, b"{}")]);
        shared.take(&mut mirror).await.unwrap();
        let (replaced, pointer) = keys(&text);
        let about = mirror.apply([replaced, put("keys/other", 2, b"{}")], "me");
        mirror.gone.insert(pointer.name);
        shared.take_changes(&mut mirror, about).await.unwrap();
        let known = shared.known.load();
        assert_eq!(known.keys.keys().collect::<Vec<_>>(), ["film", "other"]);
        assert_eq!(known.keys["film"], "{}");
        assert_eq!(known.expect("keys/film"), Expect::Version(2));
    }

    #[test]
    fn what_comes_too_late_or_at_once_is_read_whole_again() {
        let large = CallError::TooLarge("it is long".to_owned());
        for error in [CallError::Compacted, large] {
            assert!(matches!(Lost::from(error), Lost::Forgotten(_)));
        }
        let away = CallError::Away("nobody".to_owned());
        assert!(matches!(Lost::from(away), Lost::Failed(_)));
    }
}
