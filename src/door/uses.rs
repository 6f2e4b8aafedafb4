//! Which tokens were used for what, of those that may be used once for each object (`jti`).
//!
//! What was used is known at once, and written soon after by a thread of its own (`log.rs`) to a
//! file that is read again at the next start, and by a process beside this one while both serve.
//! There are so many at most, of a site its part of them, and of one token a few hundred; of more,
//! and where they cannot be written, tokens that have to be remembered are refused (RFC 9246
//! section 2.1.7).

mod log;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{Context, SHA256};
use xxhash_rust::xxh3::xxh3_64;

use self::log::Log;
use crate::limits::{TOKEN_USES_MAX, TOKEN_USES_OF_ONE_MAX, TOKEN_USES_WAITING_MAX};
use crate::token::uri_signing::Use;

/// What was used.
#[derive(Debug)]
pub struct Uses {
    known: Mutex<Known>,
    /// To whoever writes; nobody, where they cannot be written.
    writer: Option<SyncSender<Used>>,
    has_failed: AtomicBool,
    /// What one site may have of all.
    of_site_max: AtomicUsize,
}

/// One use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Used {
    digest: u128,
    /// When it is forgotten, in seconds since 1970.
    until: u64,
    owner: Owner,
}

/// Whose use it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Owner {
    site: u32,
    token: u32,
}

/// What is known, and how much of it is whose.
#[derive(Debug, Default)]
struct Known {
    uses: HashMap<u128, (u64, Owner)>,
    of_token: HashMap<Owner, u32>,
    of_site: HashMap<u32, usize>,
    /// When those that have expired were last looked for, in seconds since 1970.
    swept_at: u64,
}

impl Known {
    /// Of one that is known already the later end counts.
    fn insert(&mut self, used: Used) {
        match self.uses.entry(used.digest) {
            Entry::Occupied(mut known) => {
                let until = &mut known.get_mut().0;
                *until = used.until.max(*until);
            }
            Entry::Vacant(new) => {
                new.insert((used.until, used.owner));
                *self.of_token.entry(used.owner).or_default() += 1;
                *self.of_site.entry(used.owner.site).or_default() += 1;
            }
        }
    }

    /// Forgets what has expired, once a second at most: it looks at all there is.
    fn sweep(&mut self, now: u64) {
        if std::mem::replace(&mut self.swept_at, now) == now {
            return;
        }
        self.uses.retain(|_, (until, _)| *until > now);
        self.of_token.clear();
        self.of_site.clear();
        for (_, owner) in self.uses.values() {
            *self.of_token.entry(*owner).or_default() += 1;
            *self.of_site.entry(owner.site).or_default() += 1;
        }
    }

    fn has_room(&self, owner: Owner, of_site_max: usize) -> bool {
        self.uses.len() < TOKEN_USES_MAX
            && self.of_token.get(&owner).is_none_or(|count| *count < TOKEN_USES_OF_ONE_MAX)
            && self.of_site.get(&owner.site).is_none_or(|count| *count < of_site_max)
    }
}

impl Uses {
    fn new(known: Known, writer: Option<SyncSender<Used>>) -> Arc<Uses> {
        Arc::new(Uses {
            known: Mutex::new(known),
            writer,
            has_failed: AtomicBool::new(false),
            of_site_max: AtomicUsize::new(TOKEN_USES_MAX),
        })
    }

    /// None can be remembered.
    pub fn nowhere() -> Arc<Uses> {
        Uses::new(Known::default(), None)
    }

    /// Those in a file, which is made if it is not there; and of this process from now on.
    ///
    /// # Errors
    /// It cannot be read or written, or there is no thread to be had.
    pub fn start(path: &Path, now: SystemTime) -> io::Result<Arc<Uses>> {
        let (mut known, now) = (Known::default(), seconds(now));
        let log = Log::open(path, |used| {
            if used.until > now && known.uses.len() < TOKEN_USES_MAX {
                known.insert(used);
            }
        })?;
        let (writer, used) = sync_channel(TOKEN_USES_WAITING_MAX);
        let uses = Uses::new(known, Some(writer));
        let weak = Arc::downgrade(&uses);
        let write = move || log.write(&used, &weak);
        thread::Builder::new().name("token-uses".to_owned()).spawn(write)?;
        Ok(uses)
    }

    /// Has so many sites share what can be remembered.
    pub fn share_among(&self, sites: usize) {
        self.of_site_max.store(TOKEN_USES_MAX / sites.max(1), Ordering::Relaxed);
    }

    /// Whether this is the first time a token of `site` is used for that; remembers it.
    pub(super) fn is_first(&self, site: &str, used: &Use<'_>, now: Duration) -> bool {
        let Some(writer) = &self.writer else { return false };
        if self.has_failed.load(Ordering::Relaxed) {
            return false;
        }
        let now = now.as_secs();
        let until = match used.expires {
            None => now + KEPT_SECONDS,
            // Each player goes on with a chain of its own, and not for longer than that.
            Some(expires) if used.is_renewed => (expires.ceil() as u64).max(now + DAY_SECONDS),
            Some(expires) => expires.ceil() as u64,
        };
        let used = Used { digest: digest(site, used), until, owner: owner(site, used) };
        let mut known = self.known();
        if known.uses.get(&used.digest).is_some_and(|(until, _)| *until > now) {
            return false;
        }
        let of_site_max = self.of_site_max.load(Ordering::Relaxed);
        if !known.has_room(used.owner, of_site_max) {
            known.sweep(now);
            if !known.has_room(used.owner, of_site_max) {
                return false;
            }
        }
        // What cannot be written would be forgotten.
        let is_told = writer.try_send(used).is_ok();
        if is_told {
            known.insert(used);
        }
        is_told
    }

    /// What another process was shown.
    fn learn(&self, all: &[Used], now: u64) {
        let mut known = self.known();
        for used in all {
            if known.uses.len() >= TOKEN_USES_MAX {
                known.sweep(now);
            }
            if known.uses.len() < TOKEN_USES_MAX || known.uses.contains_key(&used.digest) {
                known.insert(*used);
            }
        }
    }

    /// All that count yet, and for a day those that do not: a clock may be set back.
    fn kept(&self, now: u64) -> Vec<Used> {
        let known = self.known();
        let kept =
            known.uses.iter().filter(|(_, (until, _))| until.saturating_add(DAY_SECONDS) > now);
        kept.map(|(digest, (until, owner))| Used { digest: *digest, until: *until, owner: *owner })
            .collect()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Each part with its length, so that no two uses are told apart by where one ends alone.
fn digest(site: &str, used: &Use<'_>) -> u128 {
    let mut context = Context::new(&SHA256);
    for part in [site, used.issuer, used.id, used.uri] {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part.as_bytes());
    }
    let digest = context.finish();
    let half = digest.as_ref()[..16].try_into().expect("SHA-256 has more bytes");
    u128::from_le_bytes(half)
}

/// Whoever has two tokens of one owner has fewer uses of each.
fn owner(site: &str, used: &Use<'_>) -> Owner {
    let half = |text: &str| xxh3_64(text.as_bytes()) as u32;
    Owner { site: half(site), token: half(used.issuer).rotate_left(16) ^ half(used.id) }
}

fn seconds(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// One that does not expire is remembered for 30 days.
const KEPT_SECONDS: u64 = 30 * DAY_SECONDS;
const DAY_SECONDS: u64 = 86_400;

#[cfg(test)]
mod tests;
