//! What a load balancer says in front of a connection: as long as it says, or refused.
//!
//! Run with `fuzz/run 300 proxy_protocol`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::message::fuzz::proxy_protocol(bytes));
