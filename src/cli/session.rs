//! `tidegate session`: the requests of one playback, and where their time went.
//!
//! Asks the admin listener, with its token if it has one, once, and changes nothing.

use clap::builder::NonEmptyStringValueParser;
use http::StatusCode;
use serde_json::Value;

use super::Failure;
use super::admin::{Reach, ask, refused};
use super::log::encoded;

mod as_text;

const EXAMPLES: &str = "\
Examples:
  tidegate session 6e2fb550-c457-11e9-bb97-0800200c9a66
  tidegate session 6e2fb550-c457-11e9-bb97-0800200c9a66 --json | jq .sums
  tidegate log --filter 'sid = 6e2fb550-c457-11e9-bb97-0800200c9a66'

A player that tells of itself (CMCD) gives all requests of a playback one session id, `sid`; what is
remembered of the latest requests of all playbacks is looked through for it, and since when they are
remembered is told: a 256th of `memory.total` is kept for them. The last command follows it live.

Of each request: when it was asked, how long none was open before, what it waited for (the origin,
an SSD, and what the appliance took itself), how long the viewer then took to read, and the buffer
that the player told. Requests may be open together, so their waits may add up to more than passed.

Exit codes: 0 shown, 1 nothing is remembered of it, or no appliance answers, 64 misused";

/// Show the requests of one playback, and where their time went
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The session id, as the player tells it
    #[arg(value_name = "SID", value_parser = NonEmptyStringValueParser::new())]
    sid: String,
    /// Print what is known as JSON: times in microseconds
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

/// Asks; what is to be printed.
pub(super) fn run(args: &Args) -> Result<String, Failure> {
    let told = told(&args.reach, &format!("/session?sid={}", encoded(&args.sid)))?;
    if told["requests"].as_array().is_none_or(Vec::is_empty) {
        return Err(Failure::Failed(as_text::nothing(&told, &args.sid)));
    }
    match args.json {
        true => Ok(format!("{told:#}\n")),
        false => Ok(as_text::of(&told)),
    }
}

/// What the appliance tells of the latest requests.
pub(super) fn told(reach: &Reach, target: &str) -> Result<Value, Failure> {
    let (addresses, request) = reach.get(target)?;
    let answer = ask(&addresses, &request)?;
    let said: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
    match answer.status {
        StatusCode::OK if said["remembered"].is_object() => Ok(said),
        _ => Err(refused(&answer)),
    }
}
