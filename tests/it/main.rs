//! The promises, each a module: the real appliance on ports of its own, before a scripted origin.

// These are tests throughout: what cannot be unwrapped has failed.
#![allow(clippy::unwrap_used)]

mod added;
mod changes;
mod cmcd;
mod collapse;
mod conditional;
mod crashes;
mod dialogue;
mod digest;
mod doctor;
mod door;
mod drain;
mod entrance;
mod fleet;
mod freshness;
mod kept;
mod killed;
mod larger_than_cache;
mod left_out;
mod lies;
mod lies_about_ranges;
mod live;
mod logs;
mod memory;
mod metrics;
mod misfits;
mod openapi;
mod operator;
mod overload;
mod paced;
mod passed;
mod plane;
mod private;
mod property;
mod protocol;
mod proxies;
mod purge;
mod range;
mod redirects;
mod reload;
mod seek;
mod seen;
mod shares;
mod shipped;
mod sick;
mod ssd;
mod steering;
mod strict;
mod support;
mod support_works;
mod unknown_length;
mod upgrade;
mod usage;
