//! `tidegate log`: what becomes of each request of a running appliance, decision by decision, live.
//!
//! Asks the admin listener, with its token if it has one, and reads on until there were enough
//! requests or somebody presses Ctrl-C.

use std::io::{self, Write};
use std::ops::ControlFlow;

use serde_json::Value;

use super::admin::{Reach, refused};
use super::{Failure, count};

mod as_text;
mod lines;

pub(super) use self::lines::encoded;
use self::lines::lines;

pub(super) use self::as_text::{harmless, time_of};

const EXAMPLES: &str = "\
Examples:
  tidegate log
  tidegate log --filter 'status>=500 or path ~ seg'
  tidegate log --filter 'duration > 500ms and not cache = hit' --number 10
  tidegate log --filter 'client = 192.0.2.0/24 and tier = fill'
  tidegate log --json | jq '{path, status, decisions: [.decisions[].what]}'
  curl --no-buffer --get --data-urlencode 'filter=sid = abc' http://127.0.0.1:9180/log

Each request is told when it has ended: its line of the access log, and every decision about it
with the time since its head had been read. An appliance that nobody asks keeps no such account.

A filter joins comparisons with `and`, `or`, `not` and parentheses:
  status, bytes           = != < <= > >=   a number
  duration, ttfb          = != < <= > >=   a time: 200us, 1.5ms, 2s
  method, host, path,
  site, sid               = != ~           a text; ~ finds it anywhere, a * in it is any characters
  tier                    = !=             ram, ssd, fill or pass, for any byte of the body
  cache, protocol,
  outcome                 = != ~           a word, as --json tells it (`lookup` for cache)
  client                  = !=             an address or a network, as the log tells addresses
A text with blanks, parentheses or signs in it stands in quotes: path = '/a (1).mp4'. What a request
does not have equals nothing.

Who reads too slowly loses requests, and is told how many. Where there is a token, it is shown;
where there is none, this is told to who asks from the machine itself.

Exit codes: 0 shown, 1 no appliance answers, or it has ended, 64 misused, or a fault in the filter";

/// Show what becomes of each request, live
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Only requests that this is true of
    #[arg(long, value_name = "FILTER", default_value = "")]
    filter: String,
    /// Stop after so many requests
    #[arg(long, value_name = "N", value_parser = count)]
    number: Option<usize>,
    /// Print a line of JSON for each request
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

/// Prints what comes.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let target = format!("/log?filter={}", encoded(&args.filter));
    let (addresses, request) = args.reach.get(&target)?;
    let mut left = args.number;
    let answer = lines(&addresses, &request, |line| {
        let told: Value = serde_json::from_str(line).unwrap_or(Value::Null);
        let is_request = told.get("lost").is_none();
        let shown = match args.json {
            true => line.to_owned(),
            false => as_text::of(&told),
        };
        if let Err(error) = io::stdout().write_all(shown.as_bytes()) {
            // A reader who has seen enough is no failure.
            let is_closed = error.kind() == io::ErrorKind::BrokenPipe;
            let failure = || Failure::Failed(format!("cannot write to standard output: {error}"));
            return ControlFlow::Break(if is_closed { Ok(()) } else { Err(failure()) });
        }
        left = left.map(|left| left - usize::from(is_request));
        if left == Some(0) { ControlFlow::Break(Ok(())) } else { ControlFlow::Continue(()) }
    })?;
    let Some(answer) = answer else { return Ok(()) };
    Err(refused(&answer))
}
