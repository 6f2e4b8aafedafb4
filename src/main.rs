//! The command line: parse it, call one command, exit 0 (done), 1 (failed) or 64 (misused).

use std::process::ExitCode;

fn main() -> ExitCode {
    tidegate::cli::run()
}
