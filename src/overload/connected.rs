//! Whose connections there are, and that the last of them are not one site's.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::shares::{SHARERS_MAX, Sharer, Shares, WHOLE};

/// Connections of each site, and of all.
#[derive(Debug)]
pub(super) struct Connections {
    of: [AtomicU32; SHARERS_MAX],
    all: AtomicU32,
}

impl Default for Connections {
    fn default() -> Connections {
        Connections { of: [const { AtomicU32::new(0) }; SHARERS_MAX], all: AtomicU32::new(0) }
    }
}

impl Connections {
    pub(super) fn of(&self, sharer: Sharer) -> u32 {
        self.of[sharer.index()].load(Ordering::Relaxed)
    }

    /// One more, if there is room for it: in the last eighth of `most` for who has fewer than his
    /// share. `most` is 0: as many as come.
    pub(super) fn enter(
        self: &Arc<Self>,
        sharer: Sharer,
        shares: &Shares,
        most: usize,
    ) -> Option<Connected> {
        let all = self.all.fetch_add(1, Ordering::Relaxed) as usize;
        let his = u64::from(self.of[sharer.index()].fetch_add(1, Ordering::Relaxed));
        let connected = Connected { connections: Arc::clone(self), sharer };
        let is_short = most > 0 && all >= most - most / 8;
        let own = || most as u64 * u64::from(shares.part(sharer)) / u64::from(WHOLE);
        (!is_short || his < own().max(OWN_MIN)).then_some(connected)
    }
}

/// So many any site may have, however small its share.
const OWN_MIN: u64 = 1;

/// A connection of a site, as long as it is held.
pub struct Connected {
    connections: Arc<Connections>,
    sharer: Sharer,
}

impl Connected {
    /// Whose it is.
    pub fn sharer(&self) -> Sharer {
        self.sharer
    }
}

impl fmt::Debug for Connected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sharer.fmt(f)
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.connections.of[self.sharer.index()].fetch_sub(1, Ordering::Relaxed);
        self.connections.all.fetch_sub(1, Ordering::Relaxed);
    }
}
