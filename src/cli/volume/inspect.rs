//! `tidegate volume inspect`: what a volume is and holds. Changes nothing.

use std::path::PathBuf;

use super::{open, progress, runtime, told};
use crate::cli::Failure;
use crate::config;
use crate::store::device::{Access, Disk};
use crate::store::format::RegionState;
use crate::store::remembered::Remembered;
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
    /// Where volumes that have failed are remembered (`ssd.state`)
    #[arg(long, value_name = "FILE", default_value_os_t = config::usual_state_file())]
    pub(super) state: PathBuf,
}

/// Looks; what is to be printed.
pub(super) fn run(args: &Args) -> Result<String, Failure> {
    let disk = open(&args.path, Access::ReadOnly)?;
    let runtime = runtime()?;
    let survey = runtime
        .block_on(Survey::of(&disk))
        .map_err(|error| Failure::Failed(format!("{} {error}", args.path.display())))?;
    let contents = runtime.block_on(contents(&disk, &survey, args.json));
    let (remembered, forgotten) = Remembered::at(&args.state).all();
    let illness = remembered.get(&survey.superblock.id().0);
    if args.json {
        let value = told::as_json(&args.path, &survey, &contents, illness);
        return Ok(format!("{value:#}\n"));
    }
    let mut text = told::inspected(&args.path, &survey, &contents, illness);
    if let Some(forgotten) = forgotten {
        text.push_str(&format!("  {forgotten}\n"));
    }
    Ok(text)
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
