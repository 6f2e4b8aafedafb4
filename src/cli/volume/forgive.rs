//! `tidegate volume forgive`: takes a volume that has failed for well again.

use std::path::PathBuf;

use super::{open, runtime};
use crate::cli::Failure;
use crate::config;
use crate::store::device::Access;
use crate::store::remembered::Remembered;
use crate::store::survey::Survey;

const EXAMPLES: &str = "\
Examples:
  tidegate volume forgive /dev/disk/by-id/nvme-EXAMPLE

A volume that has failed stays out of use after a restart, until it is forgiven or formatted anew.
It counts from the next start of the appliance.";

/// Use a volume again that has failed
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The block device or file
    path: PathBuf,
    /// Where volumes that have failed are remembered (`ssd.state`)
    #[arg(long, value_name = "FILE", default_value_os_t = config::usual_state_file())]
    state: PathBuf,
}

/// Forgives; what is to be printed.
pub(super) fn run(args: &Args) -> Result<String, Failure> {
    let path = args.path.display();
    let disk = open(&args.path, Access::ReadOnly)?;
    let survey = runtime()?.block_on(Survey::of(&disk));
    let survey = survey.map_err(|error| Failure::Failed(format!("{path} {error}")))?;
    let id = survey.superblock.id();
    let known = Remembered::at(&args.state).forgive(id.0).map_err(|error| {
        Failure::Failed(format!("{} cannot be changed: {error}", args.state.display()))
    })?;
    Ok(match known {
        true => format!("{path} (volume {id}) is taken for well from the next start on\n"),
        false => format!("{path} (volume {id}) was not remembered as ill\n"),
    })
}
