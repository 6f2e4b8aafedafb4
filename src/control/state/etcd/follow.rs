//! Seeing what is on etcd: read whole at one revision, then every change after it; again from there
//! when another member is asked, and whole again when etcd has forgotten what was there then.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use etcd_client::{EventType, GetOptions, WatchOptions, WatchResponse};
use tokio::time::sleep;

use super::client::{CallError, told};
use super::mirror::{About, LIVE, Mirror, Seen, WATCHED_END};
use super::values::{Pointer, Value};
use super::{Known, Shared, StateError, lock};
use crate::control::state::SNAPSHOT;
use crate::limits::{ETCD_ANSWER_BYTES_MAX, ETCD_BEATS_MAX, ETCD_PAGE_KEYS};

impl Shared {
    /// Sees what changes, for ever. Safe to drop.
    pub(super) async fn follow(&self, mut mirror: Option<Mirror>) {
        let mut told = String::new();
        loop {
            let followed = match &mut mirror {
                Some(mirror) => self.watched(mirror).await,
                None => match self.begin_again().await {
                    Ok(read) => {
                        mirror = Some(read);
                        continue;
                    }
                    Err(error) => Err(error),
                },
            };
            self.out_of_touch();
            match followed {
                // Another member is asked.
                Ok(()) => continue,
                Err(Lost::Forgotten(what)) => {
                    tracing::info!("all of the state is read again: {what}");
                    mirror = None;
                }
                Err(Lost::Failed(error)) => {
                    let why = error.to_string();
                    if why != told && self.is_away() {
                        tracing::warn!("{why}; what was known last is gone by");
                        told = why;
                    }
                    sleep(ASKED_AGAIN_AFTER).await;
                }
            }
        }
    }

    async fn begin_again(&self) -> Result<Mirror, Lost> {
        let mirror = self.begin(SystemTime::now()).await?;
        // What was heard meanwhile nobody says again.
        self.has_returned.store(true, Ordering::Relaxed);
        Ok(mirror)
    }

    /// Ends when another member is to be asked.
    async fn watched(&self, mirror: &mut Mirror) -> Result<(), Lost> {
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
                    continue;
                }
                Ok(None) => CallError::Away("etcd has ended it".to_owned()),
                Err(error) => told(&error),
            };
            self.client.turn_from(turn).await;
            return Err(failed.into());
        }
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

    async fn take_changes(&self, mirror: &Mirror, about: About) -> Result<(), Lost> {
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
        self.in_touch();
        Ok(())
    }

    /// Has all know what is seen.
    pub(super) async fn take(&self, mirror: &Mirror) -> Result<(), Lost> {
        let whole = self.whole(mirror).await?;
        match mirror.entries(&whole, SNAPSHOT).and_then(Known::of) {
            Ok(known) => self.known.store(Arc::new(known)),
            // Who has written it has to mend it; all else goes on.
            Err(error) => tracing::error!("{error}; what was known before stays"),
        }
        self.seats.store(Arc::new(mirror.seats()));
        let snapshot = mirror.value(SNAPSHOT).and_then(|value| match value {
            Value::Here(bytes) => Some(Bytes::from(bytes)),
            Value::Parted(pointer) => whole.get(&pointer.name).cloned(),
        });
        if self.latest.load().as_deref() != snapshot.as_ref() {
            self.latest.store(snapshot.map(Arc::new));
        }
        *lock(&self.whole) = whole;
        self.seen.send_replace(mirror.revision);
        Ok(())
    }

    /// The values that were split, by the names of their parts; those that are held are not read.
    async fn whole(&self, mirror: &Mirror) -> Result<BTreeMap<String, Bytes>, Lost> {
        let mut whole = BTreeMap::new();
        for pointer in mirror.pointers() {
            let held = lock(&self.whole).get(&pointer.name).cloned();
            let value = match held {
                Some(held) => held,
                None => self.joined(&pointer).await?,
            };
            whole.insert(pointer.name, value);
        }
        Ok(whole)
    }

    async fn joined(&self, pointer: &Pointer) -> Result<Bytes, Lost> {
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
        match pointer.is_of(&all) {
            true => Ok(all.into()),
            // And so long ago that its parts are gone.
            false => Err(Lost::Forgotten("a value was replaced before it was read".to_owned())),
        }
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
        Lost::Failed(error.into())
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

const ASKED_AGAIN_AFTER: Duration = Duration::from_millis(200);
