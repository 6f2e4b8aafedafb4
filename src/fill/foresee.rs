//! What nobody asks for yet, and somebody will: brought up to a window, while there is room.
//!
//! It is a fill like any other, in which who asks meanwhile takes part, but it is begun only where
//! memory has room for all of the window and a run is free, so that it keeps nobody waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::timeout;

use crate::fill::collapse::{Joined, Opening};
use crate::fill::error::FillError;
use crate::fill::run::{Reader, Sharing};
use crate::fill::{Close, Filler, Opened, Wanted, wait};
use crate::limits::PREFETCHES_PER_VIEWER_MAX;
use crate::memory::{Class, Use};

/// One of the few objects that are brought ahead at once; given back when dropped.
#[derive(Debug)]
pub struct Foreseen {
    _of_all: OwnedSemaphorePermit,
    of_viewer: Arc<AtomicU32>,
}

/// Why nothing is brought ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotForeseen {
    /// So much is, of this viewer or of all.
    Limited,
    /// There is no room.
    Busy,
}

impl Filler {
    /// A place among what is brought ahead, of which `of_viewer` counts one viewer's.
    ///
    /// # Errors
    /// There is none, or it would be in the way.
    pub fn place_ahead(&self, of_viewer: &Arc<AtomicU32>) -> Result<Foreseen, NotForeseen> {
        if of_viewer.load(Ordering::Relaxed) >= PREFETCHES_PER_VIEWER_MAX {
            return Err(NotForeseen::Limited);
        }
        let of_all = self.prefetches.clone().try_acquire_owned();
        let of_all = of_all.map_err(|_| NotForeseen::Limited)?;
        let room = self.governor.try_reserve(Use::Fill, Class::Prefetch, self.window_bytes);
        if room.is_none() || self.turns.are_taken() {
            return Err(NotForeseen::Busy);
        }
        of_viewer.fetch_add(1, Ordering::Relaxed);
        Ok(Foreseen { _of_all: of_all, of_viewer: of_viewer.clone() })
    }

    /// Asks for an object ahead of who wants it; false when somebody asks already.
    pub fn foresee(self: &Arc<Self>, wanted: Wanted, foreseen: Foreseen) -> bool {
        let opening = self.openings.join(&wanted.key, &self.purges);
        let Opening::Lead(tell, answer) = opening else { return false };
        let close = Close::new(self, &wanted.key, &answer);
        if self.is_answered(&wanted) {
            drop(close);
            tell.send_replace(Some(Arc::new(Opened::Failed(Arc::new(FillError::Changed)))));
            return false;
        }
        self.spawn(self.clone().lead(wanted, tell, Sharing::Shared, Some(close)));
        self.spawn(keep_going(answer, foreseen));
        true
    }

    /// Keeps a run going that was started ahead of who wants it.
    pub fn foresee_run(&self, joined: Joined, foreseen: Foreseen) -> bool {
        let Joined::Started(reader, _) = joined else { return false };
        let reader = reader.standing_in();
        self.spawn(async move {
            until_ended(&reader).await;
            drop(foreseen);
        });
        true
    }
}

async fn keep_going(answer: watch::Receiver<Option<Arc<Opened>>>, foreseen: Foreseen) {
    let opened = wait(answer).await;
    if let Opened::Stored { run: Some(reader), .. } = &*opened {
        until_ended(reader).await;
    }
    drop(foreseen);
}

/// Stands at the beginning, so that a window of it is brought and no more.
async fn until_ended(reader: &Reader) {
    // One that cannot be taken up again waits for its readers: not for this one.
    let _ = timeout(AHEAD_FOR_MAX, reader.run().ended()).await;
}

impl Drop for Foreseen {
    fn drop(&mut self) {
        self.of_viewer.fetch_sub(1, Ordering::Relaxed);
    }
}

const AHEAD_FOR_MAX: Duration = Duration::from_secs(10);
