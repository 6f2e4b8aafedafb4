//! Where a body's next bytes come from: ram, a run in flight, or a run started for them.
//!
//! Every slice is reserved before it is handed out and given back when the connection has sent it.
//! The first slice is one piece; it grows while the socket keeps up and falls back when it does
//! not, or when memory is short. Who waits for memory or for bytes holds neither.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::{Instant, timeout, timeout_at};

use crate::cache::heads::Version;
use crate::delivery::Shared;
use crate::delivery::held::Held;
use crate::delivery::kept::Kept;
use crate::delivery::slice::{Pins, Slice, Span, next_length};
use crate::delivery::viewer::Viewer;
use crate::fill::Missing;
use crate::fill::collapse::Joined;
use crate::fill::error::FillError;
use crate::fill::run::{self, Reader};
use crate::limits::{FIRST_MEMORY_WITHIN, PIECE_SIZE_BYTES};
use crate::memory::{Class, Reservation, Use};
use crate::message::live;
use crate::metrics::labels::Tier;
use crate::object::{ByteRange, ObjectKey};
use crate::site::Site;

/// What there is of the next bytes without waiting.
pub(super) enum Now {
    Slice(Slice),
    /// There are bytes, but no memory to pin them.
    NoMemory,
    NotThere,
}

/// How the bytes of one response are got.
pub struct Feed {
    pub(super) shared: Rc<Shared>,
    pub(super) viewer: Rc<Viewer>,
    pub(super) site: Arc<Site>,
    pub(super) key: ObjectKey,
    pub(super) version: Arc<Version>,
    /// `Pass` for a body nobody else may read.
    pub(super) tier: Tier,
    reader: Option<Reader>,
    pub(super) ahead: Option<Reader>,
    /// What a run has brought of it since he asked: what ram has of that is no hit.
    pub(super) filled: Range<u64>,
    held: Option<Box<Held>>,
    /// What volumes have to do with this body, once one was asked.
    pub(super) kept: Option<Box<Kept>>,
    pub(super) block_entered: Option<u32>,
    /// The block the shadow caches were shown last.
    pub(super) block_shown: Option<u32>,
    pub(super) handed_out: Option<Instant>,
    pins: Pins,
    /// It waits for memory, not for bytes.
    pub(super) starved: bool,
    /// Until when it waits for that at most, from the first time since its last slice.
    starved_until: Option<Instant>,
    /// Whether the first run was somebody else's; `None` when no run was needed.
    pub(super) collapsed: Option<bool>,
}

impl Feed {
    /// One for another part of the same answer.
    pub(super) fn for_another_part(&self) -> Feed {
        let (shared, viewer) = (self.shared.clone(), self.viewer.clone());
        let (site, key, version) = (self.site.clone(), self.key.clone(), self.version.clone());
        // It has begun, and is refused no sooner than before.
        let (handed_out, filled) = (self.handed_out, self.filled.clone());
        Feed { handed_out, filled, ..Feed::new(shared, viewer, site, key, version) }
    }

    /// A feed of a version that is shared.
    pub fn new(
        shared: Rc<Shared>,
        viewer: Rc<Viewer>,
        site: Arc<Site>,
        key: ObjectKey,
        version: Arc<Version>,
    ) -> Feed {
        Feed {
            shared,
            viewer,
            site,
            key,
            version,
            tier: Tier::Fill,
            reader: None,
            ahead: None,
            filled: 0..0,
            held: None,
            kept: None,
            block_entered: None,
            block_shown: None,
            handed_out: None,
            pins: Pins::default(),
            starved: false,
            starved_until: None,
            collapsed: None,
        }
    }

    /// Reads a body that is for this viewer alone.
    pub fn alone(mut self, reader: Reader) -> Feed {
        self.tier = Tier::Pass;
        self.reader = Some(reader);
        self
    }

    /// Makes sure of a body that could not be gone on with, should a part of it be evicted on the
    /// way; false when that is not possible.
    pub(super) fn secure(&mut self, span: Span) -> bool {
        if self.version.is_resumable() {
            return true;
        }
        let shared = &self.shared;
        // The run first: what it no longer holds it has published, and one that has ended all.
        let followed = shared.filler.runs.follow(self.version.id, span.position);
        let end = span.end.into_iter().chain(self.version.length_bytes()).min();
        let (reader, brought_from) = match followed {
            Some((reader, at)) if end.is_none_or(|end| at < end) => (Some(reader), Some(at)),
            _ => (None, end),
        };
        let Some(brought_from) = brought_from else { return false };
        if span.position < brought_from {
            let bounds = (span.position, brought_from);
            let (ram, wanted) = (&shared.ram, (shared.governor.of(self.site.id), self.class()));
            let held = Held::pin(ram, wanted, shared.block_size, self.version.id, bounds);
            self.held = held.map(Box::new);
        }
        if span.position < brought_from && self.held.is_none() {
            return false;
        }
        self.collapsed = reader.is_some().then_some(true);
        let filled =
            if self.filled.contains(&span.position) { span.position } else { brought_from };
        reader.into_iter().for_each(|reader| self.read_from(reader, filled));
        true
    }

    /// From `position` on, as far as that one comes.
    fn read_from(&mut self, reader: Reader, position: u64) {
        self.filled = position..reader.run().end().unwrap_or(u64::MAX);
        self.reader = Some(reader);
    }

    /// Whether a run is on its way by `position`, or has passed it: follows it from there. Not
    /// further ahead than a window: who waits there alone would set its pace.
    pub(super) fn follow(&mut self, position: u64) -> bool {
        let (runs, window_bytes) = (&self.shared.filler.runs, self.shared.filler.window_bytes);
        let followed = runs.follow(self.version.id, position).filter(|(reader, _)| {
            position <= reader.run().standing().written.saturating_add(window_bytes)
        });
        let is_followed = followed.is_some();
        if let Some((reader, _)) = followed.filter(|(_, at)| *at == position) {
            self.read_from(reader, position);
            self.collapsed = Some(true);
        }
        is_followed
    }

    /// The next slice if it is there, without waiting.
    pub fn try_next(&mut self, span: Span) -> Option<Slice> {
        match self.now(span) {
            Now::Slice(slice) => Some(slice),
            Now::NoMemory | Now::NotThere => None,
        }
    }

    /// The next slice; `None` at the end of an object whose length was not known. Dropping it
    /// midway is safe.
    ///
    /// # Errors
    /// Why the bytes will not come.
    pub async fn next(&mut self, span: Span) -> Result<Option<Slice>, Arc<FillError>> {
        let rule = self.site.rule_for(self.key.path());
        let patience = self.shared.patience + live::hold(rule, self.key.target());
        match timeout(patience, self.next_in_time(span)).await {
            Ok(next) => next,
            Err(_) if self.starved => Err(Arc::new(FillError::Overload { what: "memory" })),
            Err(_) => Err(Arc::new(FillError::ProgressTimeout { offset: span.position })),
        }
    }

    async fn next_in_time(&mut self, span: Span) -> Result<Option<Slice>, Arc<FillError>> {
        let mut detours = 0;
        loop {
            if self.version.length_bytes().is_some_and(|length| length <= span.position) {
                return Ok(None);
            }
            let now = self.now(span);
            self.starved = matches!(now, Now::NoMemory);
            match now {
                Now::Slice(slice) => return Ok(Some(slice)),
                Now::NoMemory => {
                    self.tell_at("memory", "is waited for", span.position);
                    self.drop_brought();
                    self.wait_for_memory().await?;
                    continue;
                }
                // Who waits for bytes holds no memory.
                Now::NotThere => self.pins.granted = None,
            }
            if self.reader.is_none() && !self.bring(span).await? {
                self.join(span)?;
            }
            if let Some(reader) = &self.reader {
                match reader.read(span.position).await {
                    run::Landed::Bytes(_) => continue,
                    run::Landed::End => return Ok(None),
                    run::Landed::Failed(error) => return Err(error),
                    run::Landed::Passed | run::Landed::Elsewhere => self.reader = None,
                }
            }
            detours += 1;
            if detours > DETOURS_MAX {
                return Err(Arc::new(FillError::Overload { what: "piece" }));
            }
        }
    }

    /// Waits for a piece, which the next slice is then sure of. Who has been given nothing yet is
    /// soon told to come again.
    async fn wait_for_memory(&mut self) -> Result<(), Arc<FillError>> {
        let patience = self.handed_out.map_or(FIRST_MEMORY_WITHIN, |_| self.shared.patience);
        let until = *self.starved_until.get_or_insert_with(|| Instant::now() + patience);
        let governor = self.shared.governor.of(self.site.id);
        let piece = governor.reserve(Use::Client, self.class(), PIECE_SIZE_BYTES);
        let granted = timeout_at(until, piece).await;
        let overload = |_| Arc::new(FillError::Overload { what: "memory" });
        self.pins.granted = Some(granted.map_err(overload)?);
        Ok(())
    }

    /// Joins the run that brings the next byte, or starts one.
    pub(super) fn join(&mut self, span: Span) -> Result<(), Arc<FillError>> {
        if self.tier == Tier::Pass {
            return Err(Arc::new(FillError::Closed {
                offset: span.position,
                reason: "the answer ended early".to_owned(),
            }));
        }
        if self.reader.is_some() {
            return Ok(());
        }
        let class = self.class();
        let joined = self.read_on(span.position, span.end, class);
        self.ahead = None;
        match joined {
            Joined::Collapsed(reader) => {
                self.tell_at("run", "joined", span.position);
                self.collapsed.get_or_insert(true);
                self.read_from(reader, span.position);
                Ok(())
            }
            Joined::Started(reader, _) => {
                self.tell_at("run", "begun", span.position);
                self.collapsed.get_or_insert(false);
                self.viewer.count_origin_requests(1);
                self.read_from(reader, span.position);
                Ok(())
            }
            Joined::Landed => Ok(()),
            Joined::Nowhere => Err(Arc::new(FillError::Changed)),
        }
    }

    fn read_on(&self, position: u64, end: Option<u64>, class: Class) -> Joined {
        let end = end.unwrap_or(u64::MAX).max(position + 1);
        let wanted = ByteRange::new(position, end).expect("it ends after it starts");
        let ask = || self.shared.ask(&self.viewer, &self.site, &self.key);
        let bypassed_to = self.kept.as_ref().map_or(0, |kept| kept.bypassed_to);
        let wanted = Missing { range: wanted, bypassed_to };
        self.shared.filler.read_on(&self.key, &self.version, wanted, class, ask)
    }

    /// A viewer who has been given bytes is refused after everybody else.
    pub(super) fn class(&self) -> Class {
        if self.handed_out.is_some() { Class::Viewer } else { Class::Miss }
    }

    /// What there is without waiting.
    pub(super) fn now(&mut self, span: Span) -> Now {
        if let Some((bytes, reserved)) =
            self.held.as_mut().and_then(|held| held.read(span.position))
        {
            self.show(span);
            let length = self.pace().min(span.left()).min(bytes.len() as u64);
            return self.hand_out((bytes, length), self.found_at(span.position), reserved);
        }
        // A run comes first: it paces itself by where its readers are.
        match self.reader.as_ref().and_then(|reader| reader.try_read(span.position)) {
            Some(run::Landed::Bytes(bytes)) => {
                // Should he fall back to reading the block, he is no second viewer of it.
                self.block_entered = self.shared.block_size.block_at(span.position);
                let now = self.pin(bytes, span, self.tier);
                self.look_ahead(span);
                return now;
            }
            Some(run::Landed::Elsewhere) => match self.next_reader(span) {
                Some(reader) => self.read_from(reader, span.position),
                None => self.reader = None,
            },
            // He stays with the run: he may catch up, and is told if it fails.
            Some(run::Landed::Passed | run::Landed::End | run::Landed::Failed(_)) | None => {}
        }
        if let Some(bytes) = self.brought_at(span.position) {
            return self.pin_brought(bytes, span);
        }
        match self.in_ram(span) {
            Some((bytes, tier)) => self.pin(bytes, span, tier),
            None => Now::NotThere,
        }
    }

    /// His place in the run that went ahead, unless that has failed: nobody waited for it then, and
    /// the next one may find what it lacked.
    fn next_reader(&mut self, span: Span) -> Option<Reader> {
        let failed = |reader: &Reader| {
            matches!(reader.try_read(span.position), Some(run::Landed::Failed(_)))
        };
        self.ahead.take().filter(|reader| !failed(reader))
    }

    /// Reserves and cuts a slice: as large as the socket takes, or one piece.
    pub(super) fn pin(&mut self, bytes: Bytes, span: Span, tier: Tier) -> Now {
        self.show(span);
        let there = span.left().min(bytes.len() as u64);
        let governor = self.shared.governor.of(self.site.id);
        let large = there.min(self.pace());
        let (class, all, ram) = (self.class(), self.version.length_bytes(), &self.shared.ram);
        // What was waited for is enough for it.
        let one_piece = there.min(ram.within_a_piece(&bytes));
        let mut reserve = |length: u64, class| {
            let kept = ram.footprint(&bytes[..length as usize], all);
            Some((self.pins.reserve(governor, class, kept)?, length))
        };
        let grown = (large > one_piece).then(|| reserve(large, Class::Prefetch)).flatten();
        let Some((reserved, length)) = grown.or_else(|| reserve(one_piece, class)) else {
            return Now::NoMemory;
        };
        self.hand_out((bytes, length), tier, reserved)
    }

    fn hand_out(
        &mut self,
        (mut bytes, length): (Bytes, u64),
        tier: Tier,
        reserved: Rc<Reservation>,
    ) -> Now {
        bytes.truncate(length as usize);
        if length < self.shared.block_size.bytes() {
            bytes = self.shared.ram.pinned(bytes);
        }
        (self.handed_out, self.starved_until) = (Some(Instant::now()), None);
        Now::Slice(Slice { bytes, tier, reserved })
    }

    /// How large the next slice may be, in bytes.
    fn pace(&self) -> u64 {
        let pace = &self.viewer.connection.pace;
        let waited = self.handed_out.map(|at| at.elapsed());
        let next = next_length(pace.get().into(), waited, self.shared.block_size.bytes());
        pace.set(next as u32);
        next
    }

    /// Starts the next run before this one ends, for a viewer who keeps up.
    fn look_ahead(&mut self, span: Span) {
        let Some(reader) = self.reader.as_ref().filter(|_| self.ahead.is_none()) else { return };
        let pace = u64::from(self.viewer.connection.pace.get());
        let Some(run_end) = reader.run().end() else { return };
        let near = run_end.saturating_sub(span.position) <= self.shared.filler.window_bytes / 2;
        let wants_more = span.end.is_none_or(|end| run_end < end)
            && self.version.length_bytes().is_none_or(|length| run_end < length);
        if !(near && wants_more && pace > PIECE_SIZE_BYTES && self.tier == Tier::Fill) {
            return;
        }
        match self.read_on(run_end, span.end, Class::Prefetch) {
            Joined::Started(reader, _) => {
                self.tell_at("run", "begun ahead", run_end);
                self.viewer.count_origin_requests(1);
                self.ahead = Some(reader);
            }
            Joined::Collapsed(reader) => {
                self.tell_at("run", "joined ahead", run_end);
                self.ahead = Some(reader);
            }
            Joined::Landed | Joined::Nowhere => {}
        }
    }
}

/// How often the next bytes may turn out to be elsewhere before it is given up.
const DETOURS_MAX: u32 = 64;
