//! The promises, each a module: the real appliance on ports of its own, before a scripted origin.

// These are tests throughout: what cannot be unwrapped has failed.
#![allow(clippy::unwrap_used)]

// Until the promises are all here.
#[allow(dead_code, unused_imports)]
mod support;
mod support_works;
