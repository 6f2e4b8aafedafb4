//! Whom a request is of, as proxies have it.
//!
//! Run with `cargo +nightly fuzz run forwarded fuzz/corpus/forwarded fuzz/seeds/forwarded`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::message::fuzz::forwarded(bytes));
