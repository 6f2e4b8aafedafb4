//! `tidegate volume format`: makes what is there a new volume, after showing what is there.

use std::path::PathBuf;

use serde_json::json;

use super::shape::{Shape, made};
use super::{confirm, open, runtime, told};
use crate::cli::Failure;
use crate::config::paths::absolute;
use crate::config::units::bytes_text;
use crate::store::device::Access;
use crate::store::survey::Survey;

const EXAMPLES: &str = "\
Examples:
  tidegate volume format /dev/disk/by-id/nvme-EXAMPLE
  tidegate volume format /dev/disk/by-id/nvme-EXAMPLE --yes --json

What is on it is lost. It shows what that is and asks, unless --yes says so.

Exit codes: 0 made anew, 1 not, 64 misused";

/// Make a block device or a file a new volume; what is on it is lost
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The block device or file
    path: PathBuf,
    #[command(flatten)]
    shape: Shape,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Print what was made as JSON
    #[arg(long)]
    json: bool,
}

/// Asks and formats; what is to be printed.
pub(super) fn run(args: &Args) -> Result<String, Failure> {
    let runtime = runtime()?;
    let disk = open(&args.path, Access::ReadWrite)?;
    let geometry = args.shape.of(disk.device().size_bytes(), &args.path.display().to_string())?;
    let there = told::what_is_there(&runtime.block_on(Survey::of(&disk)));
    let path = absolute(&args.path).display().to_string();
    let size = bytes_text(disk.device().size_bytes());
    let question =
        format!("{path} ({size}) holds {there}.\nFormatting it loses whatever is there.");
    confirm(&question, args.yes)?;
    let survey = runtime.block_on(async { made(&disk, geometry).await })?;
    let (id, geometry) = (survey.superblock.id(), survey.superblock.geometry());
    Ok(match args.json {
        true => format!(
            "{:#}\n",
            json!({
                "path": path, "id": id.to_string(), "size": geometry.volume_bytes(),
                "regions": geometry.regions(), "held": there,
            })
        ),
        false => format!(
            "formatted {path}: volume {id}, {} in {} regions\n\n[[ssd.volumes]]\npath = {path:?}\n",
            bytes_text(geometry.volume_bytes()),
            geometry.regions(),
        ),
    })
}
