//! What becomes of a process that another one is to follow: it is told to stop, or it is followed,
//! whatever comes first. Nobody is left behind who serves and whom nobody knows of.

use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

/// Decided once.
#[derive(Debug, Default)]
pub(in crate::appliance) struct Fate {
    decided: Mutex<Decided>,
    /// Held by who brings another process on its way.
    under_way: Mutex<()>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Decided {
    #[default]
    Nothing,
    /// It was told to stop.
    Over,
    /// The process with this id follows.
    Followed(u32),
}

impl Fate {
    /// It is told to stop; who has followed it by now.
    pub(super) fn end(&self) -> Option<u32> {
        let mut decided = self.decided();
        match *decided {
            Decided::Followed(pid) => Some(pid),
            Decided::Nothing | Decided::Over => {
                *decided = Decided::Over;
                None
            }
        }
    }

    /// Whether it was told to stop.
    pub(super) fn is_over(&self) -> bool {
        *self.decided() == Decided::Over
    }

    /// The process with this id follows, unless this one was told to stop.
    pub(super) fn follow(&self, pid: u32) -> bool {
        let mut decided = self.decided();
        if *decided == Decided::Nothing {
            *decided = Decided::Followed(pid);
        }
        *decided == Decided::Followed(pid)
    }

    /// Held while another process is on its way.
    pub(super) fn begin(&self) -> MutexGuard<'_, ()> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody is on his way any more. Blocks.
    pub(in crate::appliance) fn settle(&self) {
        if !self.settles(SETTLED_WITHIN) {
            tracing::error!("the process that was to follow does not end");
        }
    }

    /// The same, for so long at most; whether that is so. Who panicked is not.
    fn settles(&self, within: Duration) -> bool {
        let until = Instant::now() + within;
        loop {
            match self.under_way.try_lock() {
                Err(TryLockError::WouldBlock) if Instant::now() < until => {
                    thread::sleep(LOOK_AGAIN);
                }
                tried => return !matches!(tried, Err(TryLockError::WouldBlock)),
            }
        }
    }

    fn decided(&self) -> MutexGuard<'_, Decided> {
        self.decided.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// It has ended by then, or is held by the kernel.
const SETTLED_WITHIN: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_told_to_stop_is_followed_by_nobody_and_who_was_followed_knows_by_whom() {
        let stopped = Fate::default();
        assert_eq!((stopped.end(), stopped.follow(7)), (None, false));
        assert!(stopped.is_over());
        let followed = Fate::default();
        assert!(followed.follow(7));
        assert_eq!((followed.end(), followed.is_over()), (Some(7), false));
    }

    #[test]
    fn who_panicked_on_the_way_is_not_waited_for() {
        let fate = Fate::default();
        let brought = thread::scope(|scope| {
            let bring = || {
                let _under_way = fate.begin();
                panic!("as a fault would");
            };
            scope.spawn(bring).join()
        });
        assert!(brought.is_err() && fate.settles(Duration::ZERO));
        let under_way = fate.begin();
        assert!(!fate.settles(Duration::ZERO));
        drop(under_way);
        assert!(fate.settles(Duration::ZERO));
    }
}
