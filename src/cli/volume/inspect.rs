//! `tidegate volume inspect`: what a volume is and holds. Changes nothing.

use std::path::{Path, PathBuf};

use super::{StateFile, open, progress, runtime, told};
use crate::cli::Failure;
use crate::store::device::{Access, Disk};
use crate::store::format::{RegionState, VolumeId};
use crate::store::remembered::{Illness, Remembered};
use crate::store::survey::{Contents, Survey, check_region, contents_by_footer};

const EXAMPLES: &str = "\
Examples:
  tidegate volume inspect /ssd/tidegate.volume
  tidegate volume inspect /dev/disk/by-id/nvme-EXAMPLE --json | jq .regions

Nothing is changed. Of a volume that an appliance has open, `tidegate status` tells.";

/// Show what a volume is, what it holds and how it is
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The block device or file
    pub(super) path: PathBuf,
    /// Print JSON: sizes in bytes
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) state: StateFile,
}

/// Looks; what is to be printed.
pub(super) fn run(args: &Args) -> Result<String, Failure> {
    let state = args.state.path()?;
    let disk = open(&args.path, Access::ReadOnly)?;
    let runtime = runtime()?;
    let mut survey = runtime
        .block_on(Survey::of(&disk))
        .map_err(|error| Failure::Failed(format!("{} {error}", args.path.display())))?;
    runtime.block_on(survey.check_checkpoints(&disk));
    let contents = runtime.block_on(contents(&disk, &survey, args.json));
    let (illness, health) = remembered(&state, survey.superblock.id());
    if args.json {
        let mut value = told::as_json(&args.path, &survey, &contents, illness.as_ref());
        value["state_file"] = state.display().to_string().into();
        value["state_file_exists"] = state.exists().into();
        return Ok(format!("{value:#}\n"));
    }
    Ok(told::inspected(&args.path, &survey, &contents, health))
}

/// What is remembered of a volume, and the same in words.
pub(super) fn remembered(state: &Path, id: VolumeId) -> (Option<Illness>, String) {
    let (mut remembered, forgotten) = Remembered::at(state).all();
    if let Some(forgotten) = forgotten {
        return (None, forgotten.to_string());
    }
    let illness = remembered.remove(&id.0);
    let health = match &illness {
        Some(illness) => told::ill(illness),
        None if state.exists() => format!("nothing remembered in {}", state.display()),
        None => format!(
            "nothing remembered: there is no {} (`ssd.state`; --config or --state name another)",
            state.display()
        ),
    };
    (illness, health)
}

/// Of sealed regions what their footers say; open ones have none and are read.
async fn contents(disk: &Disk, survey: &Survey, json: bool) -> Contents {
    let sealed: Vec<u32> = survey.regions_in(RegionState::Sealed).collect();
    let bar = progress::looking(sealed.len() as u64, json);
    let mut contents = Contents::default();
    for region in sealed {
        match contents_by_footer(disk, survey, region).await {
            Ok(told) => contents.add(told),
            Err(fault) => contents.faults.push(fault),
        }
        bar.inc(1);
    }
    for region in survey.regions_in(RegionState::Open) {
        contents.add(check_region(disk, survey, region).await);
    }
    bar.finish_and_clear();
    contents
}
