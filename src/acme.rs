//! Certificates from an authority, by ACME (RFC 8555): an account, an order, proofs that the names
//! are ours, and the files in which what was issued is kept.
//!
//! Orders one certificate when it is asked to. When that is, how often it is tried and who is shown
//! the certificate is the appliance's. A build without the feature `acme` has the proofs alone, of
//! which there are none then.

mod challenges;

#[cfg(feature = "acme")]
mod account;
#[cfg(feature = "acme")]
mod client;
#[cfg(feature = "acme")]
mod error;
#[cfg(feature = "acme")]
mod hook;
#[cfg(feature = "acme")]
mod order;
#[cfg(feature = "acme")]
mod renewal;
#[cfg(feature = "acme")]
mod store;

use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

pub use challenges::{Answering, Challenges};

#[cfg(feature = "acme")]
pub use account::open;
#[cfg(feature = "acme")]
pub use error::AcmeError;
#[cfg(feature = "acme")]
pub use instant_acme::Account;
#[cfg(feature = "acme")]
pub use order::obtain;
#[cfg(feature = "acme")]
pub use renewal::{Suggested, due, suggested};
#[cfg(feature = "acme")]
pub use store::{Lock, lock};

/// Certificates ordered since the start, and those that are waited for.
#[derive(Default)]
pub struct Orders {
    /// That came.
    pub obtained: AtomicU64,
    /// That did not.
    pub failed: AtomicU64,
    waiting: Mutex<Vec<Waiting>>,
}

/// A certificate that is waited for: there is none, or the one there is could not be renewed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// What it is to be for.
    pub names: Vec<String>,
    /// Whether there is none.
    pub is_missing: bool,
    /// Since when it is waited for.
    pub since: SystemTime,
    /// Why the last order brought none, on one line; `None` before one has failed.
    pub why: Option<String>,
    /// When it is ordered again; `None`: it is its turn, or is ordered now.
    pub again_at: Option<SystemTime>,
}

impl Orders {
    /// Those that are waited for, in the order of the configuration.
    pub fn waiting(&self) -> Vec<Waiting> {
        self.lock().clone()
    }

    /// These are, and no others.
    pub fn wait_for(&self, waiting: Vec<Waiting>) {
        *self.lock() = waiting;
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
