//! The command line: parse it, call one command, exit 0 (done), 1 (failed) or 64 (misused).

fn main() {}
