//! `tidegate reload`: has a running appliance read its configuration again, and says what changes,
//! with the warnings that `check` gives of it.
//!
//! Asks the admin listener of the configuration, with its token if it has one, once.

use http::StatusCode;
use serde::Deserialize;

use super::Failure;
use super::admin::{ANSWER_WITHIN, Reach};
use crate::control::reload::RELOADED_WITHIN;

const EXAMPLES: &str = "\
Examples:
  tidegate reload
  tidegate reload --json
  tidegate reload --config /etc/tidegate/other.toml
  tidegate reload --admin http://edge-7.example.com:9180 --token-file token
  systemctl reload tidegate.service

The file is checked whole: with one fault nothing changes, and it is served by what was before.
Sites, certificates, limits, the log, the token and a smaller ram tier count at once, for whoever
begins from then on; what needs a restart is named. What is held stays as it was stored, until it
is asked about again: `tidegate purge --soft` hurries that. An origin given another number of
connections has the new ones beside those that are busy, until they are free. Where the token itself
was written anew, show the one of before with --token-file, or send SIGHUP, as
`systemctl kill --kill-whom=main -s HUP tidegate` does.

Exit codes: 0 reloaded, 1 not reloaded, 64 misused, or a fault in the configuration";

/// Read the configuration again, without a restart
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Print what changes, and the warnings, as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

/// What changes, as it is told; an appliance of before tells no warnings.
#[derive(Deserialize)]
struct Told {
    changes: Vec<Change>,
    #[serde(default)]
    warnings: Vec<String>,
}

#[derive(Deserialize)]
struct Change {
    text: String,
}

/// Has it reloaded; what is to be printed.
pub(super) fn run(args: &Args) -> Result<String, Failure> {
    let done = args.reach.post("/reload", "", RELOADED_WITHIN + ANSWER_WITHIN)?;
    let said = &done.said;
    match (done.status, said["error"].as_str(), serde_json::from_value::<Told>(said.clone())) {
        (StatusCode::OK, _, Ok(_)) if args.json => Ok(format!("{said}\n")),
        (StatusCode::OK, _, Ok(told)) => Ok(in_words(&told)),
        (StatusCode::UNPROCESSABLE_ENTITY, Some(why), _) => Err(Failure::Misused(format!(
            "{why}\nnothing has changed: it is served by what was before"
        ))),
        (StatusCode::UNAUTHORIZED, Some(why), _) => Err(Failure::Failed(format!(
            "not reloaded: {why}; where the token was written anew, show the one of before with \
             --token-file, or send SIGHUP (`systemctl kill --kill-whom=main -s HUP tidegate`)"
        ))),
        _ => Err(done.failure("not reloaded")),
    }
}

fn in_words(Told { changes, warnings }: &Told) -> String {
    let mut text: String = changes.iter().map(|change| format!("{}\n", change.text)).collect();
    if changes.is_empty() {
        text.push_str("nothing has changed\n");
    }
    if !warnings.is_empty() {
        text.push_str("\nwarnings\n");
        text.extend(warnings.iter().map(|warning| format!("  {warning}\n")));
    }
    text
}
