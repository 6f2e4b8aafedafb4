//! The most a process held, sampled ten times a second.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::edge::Resident;

const EVERY: Duration = Duration::from_millis(100);

/// Samples until it is dropped.
pub(super) struct Sampler {
    peak: Arc<Mutex<Resident>>,
    stop: Arc<AtomicBool>,
}

impl Sampler {
    /// Samples the process on a thread of its own: what is busy here must not hide a peak.
    pub(super) fn start(pid: u32) -> Sampler {
        let (peak, stop) = (Arc::<Mutex<Resident>>::default(), Arc::<AtomicBool>::default());
        let (highest, stopped) = (Arc::clone(&peak), Arc::clone(&stop));
        thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let Some(now) = Resident::of(pid) else { return };
                let mut highest = highest.lock().unwrap_or_else(PoisonError::into_inner);
                if now.all > highest.all {
                    *highest = now;
                }
                drop(highest);
                thread::sleep(EVERY);
            }
        });
        Sampler { peak, stop }
    }

    /// The highest sample so far.
    pub(super) fn peak(&self) -> Resident {
        *self.peak.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
