//! The readers' side of a run: a place in it, and what is found there.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::{Ended, Mark, Run};
use crate::fill::error::FillError;

/// What a reader finds at its position.
#[derive(Debug)]
pub enum Landed {
    /// Bytes from there on, at least one, shared with the ram tier.
    Bytes(Bytes),
    /// The object ends there.
    End,
    /// The run has passed it: it is in ram, or was.
    Passed,
    /// Not from this run: read blocks, or start another run.
    Elsewhere,
    /// The origin failed the run before it came there.
    Failed(Arc<FillError>),
}

impl Run {
    /// A reader at `position`, unless the run has ended or does not come by there.
    pub fn attach(self: &Arc<Run>, position: u64) -> Option<Reader> {
        let at = |_floor| position;
        self.attach_where(at).map(|(reader, _)| reader)
    }

    /// A reader at `position`, or at the first byte after it that the run still holds or will
    /// bring; with where it is.
    pub fn attach_from(self: &Arc<Run>, position: u64) -> Option<(Reader, u64)> {
        self.attach_where(|floor| position.max(floor))
    }

    fn attach_where(self: &Arc<Run>, at: impl FnOnce(u64) -> u64) -> Option<(Reader, u64)> {
        let mut state = self.lock();
        let at = at(state.floor());
        if state.ended.is_some() || !state.comes_by(at, self.goes_on()) {
            return None;
        }
        let mark = state.add_reader(at);
        drop(state);
        self.moved.notify_one();
        Some((Reader { run: self.clone(), mark }, at))
    }
}

/// One viewer's place in a run; leaves it when dropped.
#[derive(Debug)]
pub struct Reader {
    run: Arc<Run>,
    mark: Arc<Mark>,
}

impl Reader {
    /// The run it follows.
    pub fn run(&self) -> &Arc<Run> {
        &self.run
    }

    /// Keeps the run going, but neither paces it nor holds its bytes once others read.
    pub fn standing_in(self) -> Reader {
        self.mark.stands_in.store(true, Ordering::Release);
        self
    }

    /// Waits for bytes at `position`. The caller gives the deadline. Dropping the future midway is
    /// safe: nothing is taken until it is returned.
    pub async fn read(&self, position: u64) -> Landed {
        self.move_to(position);
        loop {
            let mut landed = std::pin::pin!(self.run.landed.notified());
            landed.as_mut().enable();
            if let Some(found) = self.look(position) {
                return found;
            }
            landed.await;
        }
    }

    /// What is there now, without waiting; `None` when it has not come yet.
    pub fn try_read(&self, position: u64) -> Option<Landed> {
        self.move_to(position);
        self.look(position)
    }

    fn move_to(&self, position: u64) {
        if self.mark.position.swap(position, Ordering::AcqRel) != position {
            let mut state = self.run.lock();
            match state.ended {
                Some(_) => state.shed(self.run.goes_on()),
                None => self.run.moved.notify_one(),
            }
        }
    }

    fn look(&self, position: u64) -> Option<Landed> {
        let state = self.run.lock();
        if position >= state.floor() {
            // He has caught up, also when he has to wait there: the run is his again.
            self.mark.left_behind.store(false, Ordering::Release);
        }
        let part = state.parts.iter().find(|part| (part.start..part.end()).contains(&position));
        if let Some(part) = part {
            self.mark.served.store(true, Ordering::Release);
            return Some(Landed::Bytes(part.bytes.slice((position - part.start) as usize..)));
        }
        if self.run.version.length_bytes() == Some(position) {
            return Some(Landed::End);
        }
        if (state.bounds.start..state.floor()).contains(&position) {
            return Some(Landed::Passed);
        }
        match &state.ended {
            Some(Ended::Failed(error)) if position >= state.floor() => {
                Some(Landed::Failed(error.clone()))
            }
            Some(_) => Some(Landed::Elsewhere),
            None if state.comes_by(position, self.run.goes_on()) => None,
            None => Some(Landed::Elsewhere),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.run.lock();
        state.readers.retain(|mark| !Arc::ptr_eq(mark, &self.mark));
        state.drop_passed(self.run.goes_on());
        if state.ended.is_some() && state.readers.is_empty() {
            state.parts.clear();
        }
        drop(state);
        self.run.moved.notify_one();
    }
}
