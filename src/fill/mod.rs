//! Fill: bring what is missing from an origin, once, however many viewers wait for it.
//!
//! Two questions are answered here. `open`: what is this object (its head), asked when nothing is
//! known or what is known is stale; `read_on`: who brings the bytes from here on, asked when a head
//! is known. All upstream work runs on the fill runtime: a viewer who leaves takes nothing down
//! with him.

pub mod client;
pub mod collapse;
pub mod error;
pub mod foresee;
pub mod forward;
mod open;
mod opening;
mod place;
mod pump;
pub mod run;
mod turns;
mod wanted;

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use http::{HeaderMap, StatusCode};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cache::heads::{Head, Heads, Known, Version};
use crate::cache::ram::Ram;
use crate::cache::ssd::{Change, Ssd};
use crate::limits::PIECE_SIZE_BYTES;
use crate::memory::{Class, Governor, Use};
use crate::metrics::Counters;
use crate::metrics::labels::OriginError;
use crate::object::{
    BlockKey, BlockSize, ByteRange, ObjectKey, PieceMap, SiteId, VersionId, VersionNumbers,
};
use crate::purge::{Purges, Standing};

use self::client::{Ask, Client};
use self::collapse::{Joined, Made, Opening, Openings, Runs};
use self::error::FillError;
use self::opening::{Close, wait};
use self::run::{Bounds, Reader, Run, Sharing};
pub use self::turns::Turns;
pub use self::wanted::Wanted;

/// Brings objects and their missing pieces; one for the process.
pub struct Filler {
    /// Where the work runs.
    pub runtime: Handle,
    /// What is known of objects.
    pub heads: Arc<Heads>,
    /// Where pieces go.
    pub ram: Arc<Ram>,
    /// Where they are kept.
    pub ssd: Arc<Ssd>,
    /// What was purged of it.
    pub purges: Arc<Purges>,
    /// Who is asked.
    pub client: Client,
    /// Every byte held is reserved here.
    pub governor: Arc<Governor>,
    /// The size of a block.
    pub block_size: BlockSize,
    /// How far a run may be ahead of its readers, in bytes.
    pub window_bytes: u64,
    /// Runs at once.
    pub turns: Arc<Turns>,
    /// Objects brought ahead of who wants them, at once.
    pub prefetches: Arc<Semaphore>,
    /// Numbers for new versions.
    pub versions: VersionNumbers,
    /// What the fill threads count.
    pub counters: Arc<Counters>,
    /// Runs in flight.
    pub runs: Runs,
    /// Heads being asked for.
    pub openings: Openings,
    /// Every task, awaited at drain.
    pub tasks: TaskTracker,
    /// Ends every task.
    pub stop: CancellationToken,
}

/// Bytes of a version that are not in ram.
#[derive(Clone, Copy, Debug)]
pub struct Missing {
    /// What a viewer will read.
    pub range: ByteRange,
    /// Up to here it is filled even if a volume holds it: that one is ill.
    pub bypassed_to: u64,
}

/// What became of the question what an object is.
#[derive(Debug)]
pub enum Opened {
    /// A shareable response; `run` brings its body and stays readable while this is held.
    Stored {
        /// What was stored.
        head: Arc<Head>,
        /// Keeps the run going until the viewers who waited have joined it.
        run: Option<Reader>,
        /// What it said to the one who asked alone.
        withheld: HeaderMap,
    },
    /// The origin failed, and the stored response may be used all the same (RFC 5861 section 4).
    Stale {
        /// As it was.
        head: Arc<Head>,
        /// What the origin answered, if it did.
        status: Option<StatusCode>,
    },
    /// The stored response is still good (304).
    Confirmed {
        /// With its new freshness.
        head: Arc<Head>,
        /// `Alone`: it says so to the one who asked, and to nobody else.
        sharing: Sharing,
        /// What the 304 said to him alone.
        withheld: HeaderMap,
    },
    /// A response for one viewer.
    Private {
        /// Not stored.
        head: Arc<Head>,
        /// What else it said to him; a stored head has no place for it.
        withheld: HeaderMap,
        /// Where its body starts in the object, and ends if that is known.
        span: (u64, Option<u64>),
        /// Taken by the one it is for.
        body: std::sync::Mutex<Option<Reader>>,
    },
    /// The object has no such range.
    Unsatisfiable {
        /// The object's length in bytes, if the origin said.
        length_bytes: Option<u64>,
    },
    /// No usable answer.
    Failed(Arc<FillError>),
}

impl Opened {
    /// What the origin said to the one who asked, and to nobody else.
    pub fn withheld(&self) -> Option<&HeaderMap> {
        match self {
            Opened::Stored { withheld, .. }
            | Opened::Confirmed { withheld, .. }
            | Opened::Private { withheld, .. } => Some(withheld),
            Opened::Stale { .. } | Opened::Unsatisfiable { .. } | Opened::Failed(_) => None,
        }
    }
}

/// Whether a viewer's question was his own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It went upstream for him.
    First,
    /// Somebody had asked already.
    Behind,
}

impl Filler {
    /// Asks what the object is, together with whoever asks at the same time. Dropping it midway is
    /// safe: the question goes on for the others.
    pub async fn open(self: &Arc<Self>, wanted: Wanted) -> (Arc<Opened>, Place) {
        // Who shows credentials neither waits for others nor lets them wait: the answer may be his
        // alone. Who wants nothing kept lets nobody wait.
        let leaves_nothing = wanted.no_store && !self.openings.are_asked(&wanted.key);
        if wanted.has_authorization || leaves_nothing {
            return self.open_alone(wanted).await;
        }
        let (answer, place) = match self.openings.join(&wanted.key, &self.purges) {
            Opening::Follow(answer) => (answer, Place::Behind),
            Opening::Lead(tell, answer) => {
                let close = Close::new(self, &wanted.key, &answer);
                if self.is_answered(&wanted) {
                    drop(close);
                    tell.send_replace(Some(Arc::new(Opened::Failed(Arc::new(FillError::Changed)))));
                    (answer, Place::Behind)
                } else {
                    self.spawn(self.clone().lead(wanted, tell, Sharing::Shared, Some(close)));
                    (answer, Place::First)
                }
            }
        };
        (wait(answer).await, place)
    }

    /// Whether the question was answered after what was held had been looked for, and before it was
    /// joined: then it is to be looked for again.
    fn is_answered(&self, wanted: &Wanted) -> bool {
        match self.heads.find(&wanted.key, &wanted.viewer_fields, Instant::now()) {
            Known::Variant(head) => {
                let is_known = wanted.stale.as_ref().is_some_and(|held| Arc::ptr_eq(held, &head));
                let standing = self.purges.reckon(&wanted.key, &head.birth, &head.tags);
                let is_good = matches!(standing, Standing::Untouched);
                !is_known && is_good && head.freshness.is_fresh(SystemTime::now())
            }
            Known::Nothing | Known::OtherVariants | Known::Uncacheable => false,
        }
    }

    /// Asks whether a stored response is still good, behind the answers it gives meanwhile; false
    /// when somebody asks already.
    pub fn refresh(self: &Arc<Self>, wanted: Wanted) -> bool {
        let opening = self.openings.join(&wanted.key, &self.purges);
        let Opening::Lead(tell, answer) = opening else { return false };
        let close = Close::new(self, &wanted.key, &answer);
        self.spawn(self.clone().lead(wanted, tell, Sharing::Shared, Some(close)));
        true
    }

    /// Asks for one viewer, who will share nothing that may not be shared.
    pub async fn open_alone(self: &Arc<Self>, wanted: Wanted) -> (Arc<Opened>, Place) {
        let (tell, answer) = watch::channel(None);
        let rounded = match wanted.has_authorization {
            true => Sharing::Shared,
            false => Sharing::Alone,
        };
        self.spawn(self.clone().lead(wanted, tell, rounded, None));
        (wait(answer).await, Place::First)
    }

    /// Joins the run that brings the first byte of `wanted`, or starts one for the missing pieces
    /// from there on.
    ///
    /// `Landed` when it is in ram by now; `Nowhere` when nobody brings it and it cannot be asked
    /// for as a part of this version.
    pub fn read_on(
        self: &Arc<Self>,
        key: &ObjectKey,
        version: &Arc<Version>,
        missing: Missing,
        class: Class,
        ask: impl FnOnce() -> Ask,
    ) -> Joined {
        let start = missing.range.start();
        let joined = self.runs.join(version.id, start, |next_claim| {
            // Read-ahead leaves to the volumes what they hold; who waits has asked them already.
            let owed = || self.ssd.owes(key, version.length_bytes());
            let kept = class == Class::Prefetch && (self.is_kept(version, start) || owed());
            if kept || self.is_held(version, start) {
                return Made::Needless;
            }
            // An origin that ignores ranges sends the whole again: dear, but of the same version.
            if !version.validator.is_strong() || version.is_changed() {
                return Made::Impossible;
            }
            let Some(bounds) = self.bounds(version, missing, next_claim, class) else {
                return Made::Impossible;
            };
            Made::Run(Run::new(version.clone(), key.clone(), Sharing::Shared, bounds))
        });
        if let Joined::Started(_, run) = &joined {
            self.counters.runs_started.count(());
            self.spawn(self.clone().bring(run.clone(), ask(), class));
        }
        joined
    }

    /// What a new run asks for: whole pieces, within the window, up to the next that is held or
    /// claimed. All there is of an object whose origin ignores ranges: it comes anyway.
    fn bounds(
        &self,
        version: &Version,
        missing: Missing,
        next_claim: Option<u64>,
        class: Class,
    ) -> Option<Bounds> {
        let wanted = missing.range.rounded_out(version.length_bytes());
        let (start, window_bytes) = (wanted.start(), self.window_bytes);
        if version.ranges_ignored() {
            let end = next_claim.or(version.length_bytes());
            return Some(Bounds { start, end, window_bytes, paid_to: None });
        }
        // Read-ahead is begun where there is room for all of it; memory paces the others.
        let room = || self.governor.try_reserve(Use::Fill, Class::Prefetch, window_bytes);
        if class == Class::Prefetch && room().is_none() {
            return None;
        }
        // What goes beyond that is not paid for.
        let paid_to = Some(missing.bypassed_to).filter(|paid_to| *paid_to > start);
        let reach = start.saturating_add(window_bytes).min(paid_to.unwrap_or(u64::MAX));
        let end = wanted.end().min(reach).min(next_claim.unwrap_or(u64::MAX));
        let end = self.first_held(version, (start, end), missing.bypassed_to);
        Some(Bounds { start, end: Some(end), window_bytes, paid_to: None })
    }

    /// Whether the byte at `position` is in ram, or the run that came by found the end there.
    fn is_held(&self, version: &Version, position: u64) -> bool {
        let ended = version.length_bytes().is_some_and(|length| position >= length);
        let Some((key, piece)) = self.piece_at(version, position) else { return ended };
        ended || self.ram.peek(&key).is_some_and(|block| block.pieces().holds(piece))
    }

    /// Whether a volume holds the byte at `position`, or did before it failed.
    fn is_kept(&self, version: &Version, position: u64) -> bool {
        let at = self.piece_at(version, position);
        at.is_some_and(|(key, piece)| self.ssd.held_or_lost(&key).holds(piece))
    }

    fn piece_at(&self, version: &Version, position: u64) -> Option<(BlockKey, u32)> {
        let index = self.block_size.block_at(position)?;
        let piece = (position - self.block_size.start_of(index)) / PIECE_SIZE_BYTES;
        Some((BlockKey { version: version.id, index }, piece as u32))
    }

    /// The first piece border after `start` held: in ram, on a volume from `bypassed_to` on.
    fn first_held(&self, version: &Version, (start, end): (u64, u64), bypassed_to: u64) -> u64 {
        let mut position = start + PIECE_SIZE_BYTES;
        while position < end {
            let Some(index) = self.block_size.block_at(position) else { return end };
            let key = BlockKey { version: version.id, index };
            let in_ram = self.ram.peek(&key).map_or(PieceMap::default(), |block| block.pieces());
            let kept = self.ssd.held_or_lost(&key);
            let block_end = self.block_size.start_of(index) + self.block_size.bytes();
            while position < block_end.min(end) {
                let piece = (position - self.block_size.start_of(index)) / PIECE_SIZE_BYTES;
                let is_kept = position >= bypassed_to && kept.holds(piece as u32);
                if in_ram.holds(piece as u32) || is_kept {
                    return position;
                }
                position += PIECE_SIZE_BYTES;
            }
        }
        end
    }

    /// Stores a head as the newest of its variant, in ram and where an ssd knows the object; not
    /// one that was purged or invalidated while it came.
    fn keep_head(&self, key: &ObjectKey, head: &Arc<Head>, change: Change) {
        match self.purges.reckon(key, &head.birth, &head.tags) {
            Standing::Untouched => {}
            Standing::Gone => return,
            Standing::StaleSince(..) | Standing::Doubted(_) => {
                let variants = self.heads.variants(key);
                let newer = |kept: &Arc<Head>| head.birth.is_before(&kept.birth);
                if variants.iter().any(|kept| kept.variant == head.variant && newer(kept)) {
                    return;
                }
            }
        }
        let is_late = || self.purges.is_invalid(key, &head.birth);
        if is_late() {
            return;
        }
        // Asked once more when nobody can forget it between the question and the deed.
        let store = || self.heads.store_unless(key.clone(), head.clone(), is_late);
        self.ssd.head_changed(key, change, store);
    }

    /// Forgets the variant that leads to `version`, wherever it is known.
    pub fn forget(&self, key: &ObjectKey, version: VersionId) {
        self.ssd.forget(key, || self.heads.forget(key, version));
    }

    /// Counts what an origin did wrong.
    fn count_error(&self, site: SiteId, error: &FillError) {
        if let Some(kind) = error.of_origin() {
            self.count_error_of_kind(site, kind);
        }
    }

    fn count_error_of_kind(&self, site: SiteId, kind: OriginError) {
        self.counters.origin_errors.count(kind);
        self.counters.sites.of(site).origin_errors.count(());
    }

    /// Asks for a run's bytes and writes them.
    async fn bring(self: Arc<Self>, run: Arc<Run>, ask: Ask, class: Class) {
        let turn = self.turns.take(run.key.site());
        match tokio::time::timeout(self.client.patience().first_byte, turn).await {
            Ok(_turn) => pump::pump(self, run, None, ask, class).await,
            Err(_) => pump::give_up(self, run, FillError::Overload { what: "fill run" }),
        }
    }

    /// Runs `work` on the fill runtime until it ends or the appliance stops.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        let stoppable = async move {
            tokio::select! {
                () = work => {}
                () = stop.cancelled() => {}
            }
        };
        self.tasks.spawn_on(stoppable, &self.runtime);
    }
}
