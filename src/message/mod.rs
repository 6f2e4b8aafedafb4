//! The rules of HTTP, pure: no I/O and no clock; every time is an argument.
//!
//! A viewer's head becomes an [`request::ObjectRequest`]; [`conditional`] and [`range`] decide
//! between 200, 206, 304, 412 and 416; [`freshness`] says whether an origin's response may be
//! shared and for how long, [`vary`] with whom; [`response`] makes heads out of what is stored.
//! Parsers borrow, never panic and never overflow, whatever the bytes; [`fuzz`] holds them to that.

pub mod cache_control;
pub mod cache_status;
pub mod cmcd;
pub mod cmsd;
pub mod conditional;
pub mod cors;
pub mod decision;
pub mod digest;
pub mod forwarded;
pub mod freshness;
#[doc(hidden)]
pub mod fuzz;
pub mod head;
pub mod invalidation;
pub mod live;
pub mod multirange;
pub mod passed;
pub mod priority;
pub mod proxy_protocol;
pub mod range;
pub mod recorded;
pub mod request;
pub mod response;
pub mod reuse;
mod syntax;
pub mod target;
pub mod vary;
pub mod via;
