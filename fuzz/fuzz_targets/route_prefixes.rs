//! Prefix files: what is read says the same when it is written again.
//!
//! Run with `cargo +nightly fuzz run route_prefixes fuzz/corpus/route_prefixes
//! fuzz/seeds/route_prefixes`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::control::routes::fuzz::prefix_file(bytes));
