//! What a load balancer says in front of a connection: as long as it says, or refused.
//!
//! Run with `cargo +nightly fuzz run proxy_protocol fuzz/corpus/proxy_protocol
//! fuzz/seeds/proxy_protocol`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::message::fuzz::proxy_protocol(bytes));
