//! `tidegate top`: what is hot on a running appliance: objects, sites, clients' networks, failures.
//!
//! Asks the admin listener, with its token if it has one, every two seconds or once.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use clap::ValueEnum;
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use super::admin::{Reach, runtime};
use super::session::told;
use super::{Failure, count};
use crate::limits::TOP_WINDOW_MAX;

mod as_text;

const EXAMPLES: &str = "\
Examples:
  tidegate top
  tidegate top --by bytes --seconds 10
  tidegate top --once --rows 32
  tidegate top --once --json | jq '.objects[] | {name, requests}'

Told are requests that ended within the last minute, or as --seconds says, as far as they are
remembered, and rates are of that time: where it is less, it says so, and why. On a terminal it is
shown anew every two seconds until Ctrl-C. Of objects and networks 1,024 are counted at once; a
count that may be too low, because it took the place of another, has a + behind it. A site's
origins are those that its requests asked. Networks are of 24 bits of IPv4 addresses and 48 of
IPv6, or fewer where the log keeps fewer.

Exit codes: 0 shown, 1 no appliance answers, 64 misused";

/// Show what is hot: objects, sites, clients' networks, failures
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Show it once
    #[arg(long)]
    once: bool,
    /// How far to look back, 3600 at most
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = seconds)]
    seconds: u32,
    /// What there is most of comes first
    #[arg(long, value_enum, default_value_t = By::Requests)]
    by: By,
    /// Lines of each kind
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = count)]
    rows: usize,
    /// Print it as JSON, each time on a line of its own
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum By {
    Requests,
    Bytes,
}

/// Prints what is hot until there was enough of it.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let by = match args.by {
        By::Requests => "requests",
        By::Bytes => "bytes",
    };
    let target = format!("/top?seconds={}&by={by}", args.seconds);
    let runtime = runtime()?;
    let failed = |error| Failure::Failed(format!("cannot listen for Ctrl-C: {error}"));
    let mut interrupt = {
        let _entered = runtime.enter();
        signal(SignalKind::interrupt()).map_err(failed)?
    };
    let is_renewed = io::stdout().is_terminal() && !args.once && !args.json;
    loop {
        let shown = shown(args, &told(&args.reach, &target)?);
        let text = if is_renewed { format!("{RENEW}{shown}") } else { shown };
        match io::stdout().write_all(text.as_bytes()) {
            // A reader who has seen enough is no failure.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written.map_err(|error| {
                Failure::Failed(format!("cannot write to standard output: {error}"))
            })?,
        }
        let pause = async { timeout(PAUSE, interrupt.recv()).await.is_ok() };
        if args.once || runtime.block_on(pause) {
            return Ok(());
        }
    }
}

fn shown(args: &Args, told: &Value) -> String {
    match args.json {
        true => format!("{told}\n"),
        false => as_text::of(told, args.seconds, args.rows),
    }
}

fn seconds(text: &str) -> Result<u32, String> {
    let most = TOP_WINDOW_MAX.as_secs();
    let seconds = text.parse().ok().filter(|n: &u32| (1..=most).contains(&u64::from(*n)));
    seconds.ok_or_else(|| format!("write a whole number, from 1 to {most}"))
}

const PAUSE: Duration = Duration::from_secs(2);
/// To the first line, and all behind it away.
const RENEW: &str = "\x1b[H\x1b[2J";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_far_back_as_the_appliance_looks_and_no_further() {
        assert_eq!((seconds("1"), seconds("3600")), (Ok(1), Ok(3_600)));
        for wrong in ["0", "3601", "-1", "ten", ""] {
            let expected = "write a whole number, from 1 to 3600";
            assert_eq!(seconds(wrong), Err(expected.to_owned()), "{wrong}");
        }
        assert_eq!((count("8"), count("0").is_err(), count("x").is_err()), (Ok(8), true, true));
    }
}
