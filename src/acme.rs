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

/// Certificates ordered since the start.
#[derive(Default)]
pub struct Orders {
    /// That came.
    pub obtained: AtomicU64,
    /// That did not.
    pub failed: AtomicU64,
}
