//! Tidegate: an edge cache appliance for video. This file is the crate map and holds no code.
//!
//! The life of a request is told in `ARCHITECTURE.md`; it starts in [`server`] (sockets), is
//! decided in [`delivery`] with the rules of [`message`], reads [`cache`], and asks [`fill`] for
//! what is missing.

pub mod access_log;
pub mod acme;
pub mod appliance;
pub mod cache;
pub mod cli;
pub mod config;
pub mod control;
pub mod delivery;
pub mod door;
pub mod fill;
pub mod geo;
pub mod limits;
pub mod memory;
pub mod message;
pub mod metrics;
pub mod moment;
pub mod network;
pub mod object;
pub mod overload;
#[cfg(feature = "demo")]
pub mod page;
pub mod purge;
pub mod rendezvous;
pub mod server;
pub mod shipping;
pub mod site;
pub mod store;
pub mod token;
pub mod usage;
