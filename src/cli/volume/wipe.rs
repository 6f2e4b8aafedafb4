//! `tidegate volume wipe`: makes a volume no volume any more.

use std::path::PathBuf;

use serde_json::json;

use super::shape::unmake;
use super::{StateFile, confirm, open, runtime, told};
use crate::cli::Failure;
use crate::store::device::Access;
use crate::store::format::{FormatError, superblock_places};
use crate::store::remembered::Remembered;
use crate::store::survey::{Survey, SurveyError};

const EXAMPLES: &str = "\
Examples:
  tidegate volume wipe /ssd/tidegate.volume
  tidegate volume wipe /dev/disk/by-id/nvme-EXAMPLE --yes

Only what makes it a volume is overwritten: nobody finds anything on it afterwards, but the bytes
are still there. `blkdiscard DEVICE` gives a device's bytes up, `rm FILE` a file's.

Exit codes: 0 erased, 1 not, 64 misused";

/// Erase what makes a file or a device a volume; what it holds is lost
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The block device or file
    path: PathBuf,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Print what was done as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    state: StateFile,
}

/// Asks and wipes; what is to be printed.
pub(super) fn run(args: &Args) -> Result<String, Failure> {
    let (state, runtime) = (args.state.path()?, runtime()?);
    let disk = open(&args.path, Access::ReadWrite)?;
    let found = runtime.block_on(Survey::of(&disk));
    let path = args.path.display().to_string();
    if let Err(SurveyError::Format(FormatError::NotAVolume | FormatError::Foreign)) = &found {
        return Err(Failure::Failed(format!(
            "{path} is no volume of Tidegate, and is left as it is; `wipefs` clears other things"
        )));
    }
    let there = told::what_is_there(&found);
    confirm(&format!("{path} holds {there}.\nWiping it loses all of that."), args.yes)?;
    let mut places = superblock_places(disk.device().size_bytes()).to_vec();
    if let Ok(survey) = &found {
        places.extend(superblock_places(survey.superblock.geometry().volume_bytes()));
    }
    runtime
        .block_on(unmake(&disk, &places))
        .map_err(|error| Failure::Failed(format!("{path} cannot be written: {error}")))?;
    let forgiven = found.ok().is_some_and(|survey| {
        // Whether it was remembered is of no importance any more.
        Remembered::at(&state).forgive(survey.superblock.id().0).unwrap_or(false)
    });
    Ok(match args.json {
        true => format!("{:#}\n", json!({ "path": path, "held": there, "forgiven": forgiven })),
        false => format!("wiped {path}: it is no volume any more\n"),
    })
}
