//! `tidegate upgrade`: has the binary that is installed now take over from the one that runs.
//!
//! Asks the admin listener; the running process starts the new one, and serves on if that fails.

use http::StatusCode;
use serde::Deserialize;

use super::Failure;
use super::admin::{ANSWER_WITHIN, Reach};
use super::volume::progress::working;
use crate::control::reload::UPGRADED_WITHIN;

const EXAMPLES: &str = "\
Examples:
  tidegate upgrade
  tidegate upgrade --json
  tidegate upgrade --config /etc/tidegate/other.toml
  tidegate upgrade --admin http://edge-7.example.com:9180 --token-file token
  systemctl kill --kill-whom=main -s USR2 tidegate.service

The running process starts the binary that is now where it was started from, with the same command
line. The new process reads the configuration, gets the listening sockets and the volumes, accepts,
and says so; the one before finishes what it has begun and ends. No connection is refused, no body
is cut that ends within `limits.idle_timeout` and `limits.drain_timeout`. What the ssd tier holds is
served at once; where there are no volumes, what is hottest of the ram tier comes along, for half a
minute at most. If the new process fails, the one before serves on, and the reason is told. Both
need memory for a moment: that of the old one is given back as it is freed. Where there is too
little for what both need at once, it is refused before anything changes. `tidegate status` tells
of the old one until it has ended.

Exit codes: 0 the new process serves, 1 the one before serves on, 64 misused";

/// Have the binary that is installed now take over, without a break
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Print who serves now as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

/// Who follows, as it is told.
#[derive(Deserialize)]
struct Told {
    pid: u32,
    version: String,
    version_before: String,
}

/// Has it replaced; what is to be printed.
pub(super) fn run(args: &Args) -> Result<String, Failure> {
    let spinner = working("the new process takes over", args.json);
    let done = args.reach.post("/upgrade", "", UPGRADED_WITHIN + ANSWER_WITHIN);
    spinner.finish_and_clear();
    let done = done?;
    match (done.status, serde_json::from_value::<Told>(done.said.clone())) {
        (StatusCode::OK, _) if args.json => Ok(format!("{}\n", done.said)),
        (StatusCode::OK, Ok(Told { pid, version, version_before })) => {
            let versions = match version == version_before {
                true => format!("{version}, as before"),
                false => format!("{version} after {version_before}"),
            };
            Ok(format!("process {pid} serves, version {versions}\n"))
        }
        _ => Err(done.failure("not upgraded, and served as before")),
    }
}
