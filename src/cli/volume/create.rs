//! `tidegate volume create`: a new file that is a volume. Nothing that exists is touched.

use std::fs;
use std::path::PathBuf;

use serde_json::json;

use super::shape::{Shape, made};
use super::{open, progress, runtime, size};
use crate::cli::Failure;
use crate::config::paths::absolute;
use crate::config::units::{bytes_about, bytes_text};
use crate::limits::INDEX_ENTRY_BYTES;
use crate::store::device::{self, Access, CreateError};
use crate::store::survey::Survey;

const EXAMPLES: &str = "\
Examples:
  tidegate volume create /ssd/tidegate.volume --size '200 GiB'
  tidegate volume create /ssd/tidegate.volume --size '2 TiB' --index '128 MiB'

All of its space is taken from the file system at once.

Exit codes: 0 made, 1 not made, 64 misused";

/// Make a new file that is a volume; never over one that is there
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The file
    path: PathBuf,
    /// Its size: 256 MiB to 64 TiB
    #[arg(long, value_name = "SIZE", value_parser = size)]
    size: u64,
    #[command(flatten)]
    shape: Shape,
    /// Print what was made as JSON
    #[arg(long)]
    json: bool,
}

/// Makes it; what is to be printed.
pub(super) fn run(args: &Args) -> Result<String, Failure> {
    let geometry = args.shape.of(args.size, "--size")?;
    let working = progress::working("taking the space from the file system", args.json);
    device::create(&args.path, geometry.volume_bytes()).map_err(|error| not_made(&error))?;
    let runtime = runtime()?;
    let made = open(&args.path, Access::ReadWrite)
        .and_then(|disk| runtime.block_on(async { made(&disk, geometry).await }));
    working.finish_and_clear();
    if made.is_err() {
        // It was made a moment ago, and nobody can have put anything into it.
        let _ = fs::remove_file(&args.path);
    }
    Ok(told(args, &made?))
}

fn not_made(error: &CreateError) -> Failure {
    Failure::Failed(match error {
        CreateError::NoSpace { path, size_bytes, free_bytes: Some(free_bytes) } => format!(
            "--size is {}, and {} are free where {} is to be",
            bytes_text(*size_bytes),
            bytes_about(*free_bytes),
            absolute(path).display()
        ),
        error => error.to_string(),
    })
}

fn told(args: &Args, survey: &Survey) -> String {
    let (geometry, path) = (survey.superblock.geometry(), absolute(&args.path));
    let path = path.display().to_string();
    let index_bytes = geometry.index_entries_max() * INDEX_ENTRY_BYTES;
    if args.json {
        return format!(
            "{:#}\n",
            json!({
                "path": path,
                "id": survey.superblock.id().to_string(),
                "size": geometry.volume_bytes(),
                "regions": geometry.regions(),
                "index": index_bytes,
            })
        );
    }
    format!(
        "made {path}: volume {}, {} in {} regions, an index of {}\n\n\
         [[ssd.volumes]]\npath = {path:?}\n",
        survey.superblock.id(),
        bytes_text(geometry.volume_bytes()),
        geometry.regions(),
        bytes_about(index_bytes),
    )
}
