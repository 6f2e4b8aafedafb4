//! `tidegate volume forgive`: takes a volume that has failed for well again.

use std::path::PathBuf;

use serde_json::json;

use super::StateFile;
use crate::cli::Failure;
use crate::store::remembered::Remembered;
use crate::store::survey::glance;

const EXAMPLES: &str = "\
Examples:
  tidegate volume forgive /dev/disk/by-id/nvme-EXAMPLE
  tidegate volume forgive /ssd/tidegate.volume --config tidegate.toml --json

A volume that has failed stays out of use after a restart, until it is forgiven or formatted anew.
It counts from the next start of the appliance, which may be running meanwhile.

Exit codes: 0 it is remembered as ill no longer, 1 not done, 64 misused";

/// Use a volume again that has failed
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The block device or file
    path: PathBuf,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    state: StateFile,
}

/// Forgives; what is to be printed.
pub(super) fn run(args: &Args) -> Result<String, Failure> {
    let path = args.path.display();
    let state = args.state.path()?;
    let superblock = glance(&args.path).map_err(|error| Failure::Failed(error.to_string()))?;
    let (id, file) = (superblock.id(), state.display());
    if !state.exists() {
        return Err(Failure::Failed(format!(
            "there is no {file}, where volumes that have failed would be remembered (`ssd.state`); \
             say --config or --state"
        )));
    }
    let known = Remembered::at(&state)
        .forgive(id.0)
        .map_err(|error| Failure::Failed(format!("{file} cannot be changed: {error}")))?;
    if args.json {
        let told = json!({ "path": path.to_string(), "id": id.to_string(), "forgiven": known });
        return Ok(format!("{told:#}\n"));
    }
    Ok(match known {
        true => format!("{path} (volume {id}) is taken for well from the next start on\n"),
        false => format!("{path} (volume {id}) is not remembered as ill in {file}\n"),
    })
}
