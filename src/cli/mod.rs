//! The commands, one file each; `main.rs` parses the command line and calls one of them.

#[cfg(feature = "demo")]
pub mod demo;
