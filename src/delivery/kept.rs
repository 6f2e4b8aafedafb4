//! A body's next bytes from the ssd tier: brought into ram, and sent from there.
//!
//! A viewer gets the pieces his range touches of a block, a whole one if he reads on; the next
//! blocks are read before he comes to them while his socket keeps up. A volume that fails or is
//! late makes a miss, as far as the origins have room for that.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{sleep, timeout};

use crate::access_log::Decision;
use crate::cache::shadow::Reader;
use crate::cache::ssd::{Asks, Brought, Landed, Seen, Shown, Subject, Wanted};
use crate::delivery::feed::{Feed, Now};
use crate::delivery::slice::Span;
use crate::fill::error::FillError;
use crate::limits::PIECE_SIZE_BYTES;
use crate::memory::{Class, Use};
use crate::metrics::labels::Tier;
use crate::object::{BlockKey, ByteRange, PieceMap, piece_floor};

/// What volumes have to do with one body.
pub(super) struct Kept {
    /// What they know the object by.
    subject: Subject,
    /// What one brought for the next byte, until it is handed out.
    brought: Option<Arc<Landed>>,
    /// The block that came from one: what ram gives of it now came from there.
    block: Option<u32>,
    /// Blocks that are being read before he comes to them; at most a few.
    ahead: Vec<u32>,
    /// Up to here an origin is asked for what an ill volume holds.
    pub(super) bypassed_to: u64,
}

impl Feed {
    /// Brings the first bytes of a body from a volume, as [`Feed::bring`] does, but not for ever.
    ///
    /// # Errors
    /// `Overload`.
    pub(super) async fn bring_in_time(&mut self, span: Span) -> Result<bool, Arc<FillError>> {
        let patience = self.shared.patience;
        timeout(patience, self.bring(span)).await.unwrap_or_else(|_| Err(overload("ssd")))
    }

    /// Brings the next bytes from a volume; false when none holds them, and they are to be filled.
    ///
    /// # Errors
    /// `Overload` when the volume is ill, and origins are asked for as much as they may be already.
    pub(super) async fn bring(&mut self, span: Span) -> Result<bool, Arc<FillError>> {
        if self.tier == Tier::Pass || !self.shared.ssd.is_in_use() {
            return Ok(false);
        }
        let Some(wanted) = self.wanted(span.position, span.end) else { return Ok(false) };
        let ssd = self.shared.ssd.clone();
        let mut asks = Asks::First;
        loop {
            match ssd.bring(&self.kept().subject.clone(), &self.version, wanted).await {
                Brought::Landed(landed) => {
                    self.tell_at("volume", "brought what was missing", span.position);
                    self.kept().brought = Some(landed);
                    self.enter_brought(wanted.block.index, span);
                    return Ok(true);
                }
                Brought::InRam => return Ok(true),
                Brought::NotHeld => return Ok(false),
                // Who has begun waits as long as he does for anything else.
                Brought::NoMemory if self.handed_out.is_some() => {
                    self.starved = true;
                    sleep(ASK_AGAIN).await;
                }
                Brought::NoMemory => return Err(overload("memory")),
                Brought::Ill if self.may_bypass(wanted, asks) => {
                    self.tell_at("volume", "is ill: the origin is asked instead", span.position);
                    self.kept().bypassed_to =
                        piece_floor(span.position) + u64::from(wanted.count) * PIECE_SIZE_BYTES;
                    return Ok(false);
                }
                // The volume may come back, or the origins have room: his patience decides.
                Brought::Ill => {
                    asks = Asks::Waiting;
                    sleep(ASK_AGAIN).await;
                }
            }
        }
    }

    /// Tells who follows the log of a decision about the byte at `position` of the object.
    pub(super) fn tell_at(&self, what: &'static str, how: &'static str, position: u64) {
        self.viewer.tell(|| Decision::of(what, how).with("at", position as i64));
    }

    /// Whether an origin may be asked for what an ill volume holds: who joins a run, or finds what
    /// one brought, costs nothing.
    fn may_bypass(&mut self, wanted: Wanted, asks: Asks) -> bool {
        // Runs publish before they pass on: in the other order one could be missed in both places.
        if self.is_brought(&wanted) || self.is_in_ram(&wanted) {
            return true;
        }
        let bytes = u64::from(wanted.count) * PIECE_SIZE_BYTES;
        let ssd = self.shared.ssd.clone();
        ssd.may_bypass(&self.kept().subject, Some(&wanted), bytes, asks)
    }

    /// Whether a run holds or will bring the first piece.
    fn is_brought(&self, wanted: &Wanted) -> bool {
        let first = u64::from(wanted.first) * PIECE_SIZE_BYTES;
        let position = self.shared.block_size.start_of(wanted.block.index) + first;
        self.shared.filler.runs.bring(self.version.id, position)
    }

    fn is_in_ram(&self, wanted: &Wanted) -> bool {
        let held = self.shared.ram.peek(&wanted.block).map(|block| block.pieces());
        held.is_some_and(|pieces| pieces.holds(wanted.first))
    }

    /// He came to the first byte of a block: it may be worth keeping.
    fn consider(&self, index: u32) {
        let ssd = &self.shared.ssd;
        if !ssd.is_in_use() {
            return;
        }
        match &self.kept {
            Some(kept) => ssd.consider(&kept.subject, &self.version, index, Seen::Hit),
            None => ssd.consider(&ssd.subject(&self.key), &self.version, index, Seen::Hit),
        }
    }

    fn kept(&mut self) -> &mut Kept {
        self.kept.get_or_insert_with(|| {
            Box::new(Kept {
                subject: self.shared.ssd.subject(&self.key),
                brought: None,
                block: None,
                ahead: Vec::new(),
                bypassed_to: 0,
            })
        })
    }

    /// Whether the block at `index` was brought or read ahead for him.
    fn is_read_ahead(&self, index: u32) -> bool {
        self.kept.as_ref().is_some_and(|kept| kept.ahead.contains(&index))
    }

    /// The pieces of the block at `position` that a body ending at `end` needs.
    pub(super) fn wanted(&self, position: u64, end: Option<u64>) -> Option<Wanted> {
        let block_size = self.shared.block_size;
        let index = block_size.block_at(position)?;
        let start = block_size.start_of(index);
        let length = self.version.length_bytes().unwrap_or(u64::MAX);
        let end = end.unwrap_or(u64::MAX).min(length).min(start + block_size.bytes());
        let range = ByteRange::new(position, end)?;
        let first = (range.start() - start) / PIECE_SIZE_BYTES;
        let last = (range.last() - start) / PIECE_SIZE_BYTES;
        Some(Wanted {
            site: self.site.id,
            block: BlockKey { version: self.version.id, index },
            first: first as u32,
            count: (last - first + 1) as u32,
            class: self.class(),
            urgency: self.viewer.urgency,
        })
    }

    /// He comes to a block that a volume brought: the next ones are read before he comes there, if
    /// his connection keeps up, in this body or one before, and his range goes on.
    pub(super) fn enter_brought(&mut self, index: u32, span: Span) {
        self.kept().block = Some(index);
        self.kept().ahead.retain(|ahead| *ahead > index);
        if span.position == self.shared.block_size.start_of(index) {
            self.consider(index);
        }
        let keeps_up = u64::from(self.viewer.connection.pace.get()) > PIECE_SIZE_BYTES;
        if !keeps_up {
            return;
        }
        for ahead in (1..=BLOCKS_AHEAD).filter_map(|ahead| index.checked_add(ahead)) {
            let position = self.shared.block_size.start_of(ahead);
            if span.end.is_some_and(|end| position >= end) || self.is_read_ahead(ahead) {
                continue;
            }
            if self.wanted(position, span.end).is_some_and(|next| self.shared.ssd.read_ahead(next))
            {
                self.kept().ahead.push(ahead);
            }
        }
    }

    /// What ram has of the block at the next byte, and where it came from for this viewer.
    pub(super) fn in_ram(&mut self, span: Span) -> Option<(Bytes, Tier)> {
        if self.tier == Tier::Pass {
            return None;
        }
        let block_size = self.shared.block_size;
        let index = block_size.block_at(span.position)?;
        let start = block_size.start_of(index);
        let key = BlockKey { version: self.version.id, index };
        // Only entering a block counts as a use: a viewer who reads it in ten slices is one viewer.
        let enters = self.block_entered.replace(index) != Some(index);
        let block = match enters {
            true => self.shared.ram.get(&key),
            false => self.shared.ram.peek(&key),
        };
        let bytes = block?.read(span.position - start)?;
        if enters && self.is_read_ahead(index) {
            self.enter_brought(index, span);
        } else if enters && span.position == start {
            self.consider(index);
        }
        let brought = self.kept.as_ref().is_some_and(|kept| kept.block == Some(index));
        let tier = match brought {
            true => Tier::Ssd,
            false => self.found_at(span.position),
        };
        Some((bytes, tier))
    }

    /// Where ram had the byte at `position` from: from before he asked, or from a run since.
    pub(super) fn found_at(&self, position: u64) -> Tier {
        if self.filled.contains(&position) { Tier::Fill } else { Tier::Ram }
    }

    /// Whether the first blocks of `span` are held, in ram or on volumes; where they are not, a run
    /// that is under way or one yet to come brings the rest, and it is remembered which. He stays
    /// with one under way while he reads what is held: left by its other readers it would stop.
    pub(super) fn is_held(&mut self, span: Span) -> bool {
        let Some(end) = span.end.or(self.version.length_bytes()) else { return true };
        let mut position = span.position;
        for _ in 0..BLOCKS_LOOKED_AT {
            let Some(wanted) = self.wanted(position, Some(end)) else { return true };
            let pieces = PieceMap::run(wanted.first, wanted.count);
            let in_ram = self.shared.ram.peek(&wanted.block).map(|block| block.pieces());
            let held = in_ram.unwrap_or_default().union(self.shared.ssd.held(&wanted.block));
            if held.union(pieces) != held {
                self.ahead = self.shared.filler.runs.attach(self.version.id, position);
                self.collapsed = Some(self.ahead.is_some());
                return false;
            }
            let block_size = self.shared.block_size;
            position = block_size.start_of(wanted.block.index) + block_size.bytes();
        }
        true
    }

    /// Shows the shadow caches what he asks of a block, once.
    pub(super) fn show(&mut self, span: Span) {
        if self.tier == Tier::Pass || !self.shared.ssd.is_in_use() {
            return;
        }
        let block_size = self.shared.block_size;
        let Some(index) = block_size.block_at(span.position) else { return };
        if self.block_shown.replace(index) == Some(index) {
            return;
        }
        let start = block_size.start_of(index);
        let length = self.version.length_bytes().unwrap_or(u64::MAX);
        let block_end = length.min(start + block_size.bytes());
        let end = span.end.unwrap_or(u64::MAX).min(block_end);
        let shown = Shown {
            index,
            asked_bytes: end.saturating_sub(span.position),
            block_bytes: block_end.saturating_sub(start),
            reader: if span.position == start { Reader::Enters } else { Reader::Inside },
        };
        self.shared.ssd.show(&self.key, &self.version, shown);
    }

    /// What was brought for `position`.
    pub(super) fn brought_at(&self, position: u64) -> Option<Bytes> {
        let kept = self.kept.as_ref()?;
        let (landed, index) = (kept.brought.as_ref()?, kept.block?);
        let start = self.shared.block_size.start_of(index) + landed.start;
        let offset = usize::try_from(position.checked_sub(start)?).ok()?;
        (offset < landed.bytes.len()).then(|| landed.bytes.slice(offset..))
    }

    /// Pins what was brought, and lets go of the rest of it: ram has that, or a volume.
    pub(super) fn pin_brought(&mut self, bytes: Bytes, span: Span) -> Now {
        let block_size = self.shared.block_size;
        self.block_entered = block_size.block_at(span.position);
        let now = self.pin(bytes, span, Tier::Ssd);
        if matches!(now, Now::Slice(_)) {
            self.kept().brought = None;
        }
        now
    }

    /// Lets go of what was brought: who waits for memory holds none. Ram has it, or a volume.
    pub(super) fn drop_brought(&mut self) {
        if let Some(kept) = &mut self.kept {
            kept.brought = None;
        }
    }

    /// Brings what volumes hold of `span` into ram, for a body that is pinned there as a whole.
    ///
    /// # Errors
    /// `Overload` when a volume is ill, and origins are asked for as much as they may be already.
    pub(super) async fn bring_all(&mut self, span: Span) -> Result<(), Arc<FillError>> {
        if !self.shared.ssd.is_in_use() {
            return Ok(());
        }
        let end = span.end.or(self.version.length_bytes()).unwrap_or(u64::MAX);
        let bytes = end.saturating_sub(span.position);
        let governor = self.shared.governor.of(self.site.id);
        let can_be_pinned = bytes <= PIECE_SIZE_BYTES
            || governor.try_reserve(Use::Client, Class::Prefetch, bytes).is_some();
        // A film larger than memory would only push out what others read.
        if !can_be_pinned {
            return Ok(());
        }
        let patience = self.shared.patience;
        timeout(patience, self.bring_each(span)).await.map_err(|_| overload("ssd"))
    }

    async fn bring_each(&mut self, span: Span) {
        let (ssd, subject) = (self.shared.ssd.clone(), self.kept().subject.clone());
        let (mut position, mut asks) = (span.position, Asks::First);
        while let Some(wanted) = self.wanted(position, span.end) {
            let start = self.shared.block_size.start_of(wanted.block.index);
            if self.is_in_ram(&wanted) {
                position = start + u64::from(wanted.first + 1) * PIECE_SIZE_BYTES;
                continue;
            }
            match ssd.bring(&subject, &self.version, wanted).await {
                Brought::Landed(landed) => {
                    position = start + landed.start + landed.bytes.len() as u64;
                    asks = Asks::First;
                }
                Brought::InRam => {}
                Brought::NotHeld | Brought::NoMemory => return,
                Brought::Ill if self.is_brought(&wanted) => return,
                Brought::Ill if self.is_in_ram(&wanted) => {}
                Brought::Ill => {
                    // What comes instead is the whole.
                    let bytes =
                        self.version.length_bytes().unwrap_or(self.shared.block_size.bytes());
                    if ssd.may_bypass(&subject, Some(&wanted), bytes, asks) {
                        return;
                    }
                    asks = Asks::Waiting;
                    sleep(ASK_AGAIN).await;
                }
            }
        }
    }
}

fn overload(what: &'static str) -> Arc<FillError> {
    Arc::new(FillError::Overload { what })
}

/// Blocks read ahead of a viewer.
const BLOCKS_AHEAD: u32 = 2;
/// Between looks at a volume that is ill. What he waits for, the volume's next chance and the
/// bypass, comes by the second: a tenth of one adds little to that.
pub(super) const ASK_AGAIN: Duration = Duration::from_millis(100);
/// Blocks of an answer that are looked for before its head says that all of it is cached.
const BLOCKS_LOOKED_AT: u32 = 32;
