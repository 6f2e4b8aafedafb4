//! Databases of countries and ASes: where anybody is can be asked of what is taken for one.
//!
//! Run with `cargo +nightly fuzz run places fuzz/corpus/places fuzz/seeds/places`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tidegate::control::routes::fuzz::places(bytes));
