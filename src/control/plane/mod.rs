//! The control plane of a fleet: what boxes and operators ask of it over HTTPS.
//!
//! [`wire`] is what is said.

pub mod wire;
