//! The commands, one file each; here the command line is parsed and outcomes become exit codes.
//!
//! A new command is one file with an `Args` and a `run`, a variant of `Command` and an arm of
//! `Command::run`.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::config::units::parse_duration;

mod admin;
mod check;
mod completions;
mod control;
#[cfg(feature = "demo")]
pub mod demo;
mod doctor;
mod drain;
mod enrol;
mod explain;
mod keys;
mod log;
mod manual;
mod purge;
mod reload;
mod routes;
mod serve;
mod session;
mod status;
mod steer;
mod token;
mod top;
mod upgrade;
mod usage;
mod volume;

/// The configuration that is meant where none is named.
const USUAL_CONFIG: &str = "/etc/tidegate/tidegate.toml";

/// The command line was not understood, or names a configuration with faults (`EX_USAGE`).
const MISUSED: u8 = 64;
/// What was asked for did not succeed.
const FAILED: u8 = 1;

const EXAMPLES: &str = "\
Examples:
  tidegate demo
  tidegate serve --config /etc/tidegate/tidegate.toml
  tidegate check /etc/tidegate/tidegate.toml
  tidegate check /etc/tidegate/tidegate.toml --request 'GET https://video.example.com/film/a.m3u8'
  tidegate doctor --path /film/1.m4s
  tidegate status
  tidegate top
  tidegate explain https://video.example.com/film/1.m4s
  tidegate log --filter 'status >= 500'
  tidegate session 6e2fb550-c457-11e9-bb97-0800200c9a66
  tidegate usage --month 2026-11
  tidegate purge https://video.example.com/film/a.m3u8
  tidegate reload
  tidegate drain --wait
  tidegate undrain
  tidegate upgrade
  tidegate volume inspect /dev/disk/by-id/nvme-EXAMPLE
  tidegate keys new keys.json --issuer 'Film Co'
  tidegate routes explain 192.0.2.7
  tidegate steer explain --viewer 192.0.2.7 --path /film/1.m4s
  tidegate token mint --keys keys.json --issuer 'Film Co' https://v.example.com/film/a.m3u8
  tidegate control code edge-7
  tidegate enrol --code 4f1c...9ab2
  tidegate completions bash
  tidegate man | man -l -

Exit codes: 0 done, 1 failed, 64 misused (the command line, or a fault in the configuration)";

/// What was typed.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, about = env!("CARGO_PKG_DESCRIPTION"))]
#[command(after_help = EXAMPLES, max_term_width = 100)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Args),
    Check(check::Args),
    Doctor(doctor::Args),
    Status(status::Args),
    Top(top::Args),
    Explain(explain::Args),
    Log(log::Args),
    Session(session::Args),
    Usage(usage::Args),
    Purge(purge::Args),
    Reload(reload::Args),
    Drain(drain::Args),
    Undrain(drain::BackArgs),
    Upgrade(upgrade::Args),
    Volume(volume::Args),
    Routes(routes::Args),
    Steer(steer::Args),
    Token(token::Args),
    Keys(keys::Args),
    Control(control::Args),
    Enrol(enrol::Args),
    Completions(completions::Args),
    Man(manual::Args),
    #[cfg(feature = "demo")]
    Demo(demo::Args),
}

impl Command {
    fn run(self) -> Result<(), Failure> {
        match self {
            Command::Serve(args) => serve::run(&args),
            Command::Check(args) => print(&check::run(&args)?),
            Command::Doctor(args) => doctor::run(&args),
            Command::Status(args) => print(&status::run(&args)?),
            Command::Top(args) => top::run(&args),
            Command::Explain(args) => print(&explain::run(&args)?),
            Command::Log(args) => log::run(&args),
            Command::Session(args) => print(&session::run(&args)?),
            Command::Usage(args) => print(&usage::run(&args)?),
            Command::Purge(args) => print(&purge::run(&args)?),
            Command::Reload(args) => print(&reload::run(&args)?),
            Command::Drain(args) => drain::run(&args),
            Command::Upgrade(args) => print(&upgrade::run(&args)?),
            Command::Undrain(args) => print(&drain::take_back(&args)?),
            Command::Volume(args) => volume::run(&args),
            Command::Routes(args) => routes::run(&args),
            Command::Steer(args) => steer::run(&args),
            Command::Token(args) => print(&token::run(&args)?),
            Command::Keys(args) => print(&keys::run(&args)?),
            Command::Control(args) => control::run(&args),
            Command::Enrol(args) => print(&enrol::run(&args)?),
            Command::Completions(args) => print(&completions::run(&args)?),
            Command::Man(args) => print(&manual::run(&args)?),
            #[cfg(feature = "demo")]
            Command::Demo(args) => demo::run(&args),
        }
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// It could not be done: exit code 1. Without words somebody was told already.
    Failed(String),
    /// It was asked wrongly, on the command line or in the configuration: exit code 64.
    Misused(String),
}

impl Failure {
    /// The same, of which nobody is to be told again.
    fn told(&self) -> Failure {
        match self {
            Failure::Failed(_) => Failure::Failed(String::new()),
            Failure::Misused(_) => Failure::Misused(String::new()),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Failed(text) | Failure::Misused(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Failure {}

/// How many of something, as it is typed.
fn count(text: &str) -> Result<usize, String> {
    let count = text.parse().ok().filter(|count| *count > 0);
    count.ok_or_else(|| "write a whole number, from 1 on".to_owned())
}

/// A length of time, as it is typed.
fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "write it with its unit, such as 90s, 10m or 3h".to_owned())
}

/// Does what the process was called for.
pub fn run() -> ExitCode {
    run_with(std::env::args_os())
}

fn run_with(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let line = match CommandLine::try_parse_from(words) {
        Ok(line) => line,
        Err(error) => {
            // A closed terminal is no reason for another exit code.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { MISUSED } else { 0 });
        }
    };
    let Err(failure) = line.command.run() else { return ExitCode::SUCCESS };
    let text = failure.to_string();
    if !text.is_empty() {
        let _ = writeln!(io::stderr(), "{text}");
    }
    ExitCode::from(match failure {
        Failure::Failed(_) => FAILED,
        Failure::Misused(_) => MISUSED,
    })
}

/// Writes to standard output; a reader who has seen enough (`| head`) is no failure.
fn print(text: &str) -> Result<(), Failure> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Failed(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    mod walk;

    fn code(words: &[&str]) -> ExitCode {
        run_with(std::iter::once("tidegate").chain(words.iter().copied()).map(OsString::from))
    }

    #[test]
    fn the_command_line_is_well_formed() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn exit_codes_tell_misuse_from_help() {
        let misused = ExitCode::from(MISUSED);
        let table = [
            (&["--help"][..], ExitCode::SUCCESS),
            (&["--version"], ExitCode::SUCCESS),
            (&["check", "--help"], ExitCode::SUCCESS),
            (&[], misused),
            (&["chekc"], misused),
            (&["check"], misused),
            (&["check", "no/such.toml"], misused),
            (&["doctor", "--help"], ExitCode::SUCCESS),
            (&["doctor", "--config", "no/such.toml"], misused),
            (&["doctor", "--only", "cable"], misused),
            (&["status", "--help"], ExitCode::SUCCESS),
            (&["status", "--config", "no/such.toml"], misused),
            (&["explain"], misused),
            (&["explain", "https://a/b", "--config", "no/such.toml"], misused),
        ];
        for (words, expected) in table {
            assert_eq!(code(words), expected, "{words:?}");
        }
    }
}
