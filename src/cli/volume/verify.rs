//! `tidegate volume verify`: reads every record of a volume and checks every checksum.
//!
//! Changes nothing. What is wrong is a line each, and the exit code 1: those records are misses to
//! viewers, who never get a byte of them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use tokio::task::JoinSet;

use super::inspect::Health;
use super::{StateFile, open, progress, runtime, told};
use crate::cli::{Failure, print};
use crate::store::device::{Access, Disk};
use crate::store::format::RegionState;
use crate::store::survey::{Contents, Survey, check_region};

const EXAMPLES: &str = "\
Examples:
  tidegate volume verify /ssd/tidegate.volume
  tidegate volume verify /dev/disk/by-id/nvme-EXAMPLE --json
  tidegate volume verify /ssd/tidegate.volume --config tidegate.toml

Exit codes: 0 every checksum is right, 1 something is wrong, 64 misused";

/// Regions read at once: one is reckoned while the next is read.
const REGIONS_AT_ONCE: usize = 3;

/// Read all that a volume holds and check every checksum
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The block device or file
    pub(super) path: PathBuf,
    /// Print what was found as JSON
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) state: StateFile,
}

/// Verifies, prints what was found, and fails if anything is wrong.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let path = args.path.display();
    let state = args.state.path_if_known()?;
    let disk = open(&args.path, Access::ReadOnly)?;
    let (begun, runtime) = (Instant::now(), runtime()?);
    let mut survey = runtime
        .block_on(Survey::of(&disk))
        .map_err(|error| Failure::Failed(error.told_of(&args.path)))?;
    runtime.block_on(survey.check_checkpoints(&disk));
    let survey = Arc::new(survey);
    let contents = runtime.block_on(verified(&disk, &survey, args.json));
    let health = Health::of(survey.superblock.id(), state);
    print(&report(args, &health, &survey, &contents, begun.elapsed()))?;
    let Some(advice) = told::advice(&survey.faults, &contents.faults) else { return Ok(()) };
    Err(Failure::Failed(match survey.faults.len() + contents.faults.len() {
        1 => format!("{path}: one thing is wrong; {advice}"),
        faults => format!("{path}: {faults} things are wrong; {advice}"),
    }))
}

async fn verified(disk: &Disk, survey: &Arc<Survey>, json: bool) -> Contents {
    let written = [RegionState::Sealed, RegionState::Open];
    let mut regions = written.into_iter().flat_map(|state| survey.regions_in(state));
    let region_bytes = survey.superblock.geometry().region_bytes();
    let count = written.map(|state| survey.regions_in(state).count() as u64).iter().sum::<u64>();
    let bar = progress::reading(count * region_bytes, json);
    let mut contents = Contents::default();
    let mut reading = JoinSet::new();
    loop {
        while reading.len() < REGIONS_AT_ONCE
            && let Some(region) = regions.next()
        {
            let (disk, survey) = (disk.clone(), Arc::clone(survey));
            reading.spawn(async move { check_region(&disk, &survey, region).await });
        }
        let Some(read) = reading.join_next().await else { break };
        tell(&bar, read.expect("a look at a region does not panic"), &mut contents);
    }
    contents.faults.sort_by_key(|fault| fault.at);
    bar.finish_and_clear();
    contents
}

fn tell(bar: &ProgressBar, read: Contents, contents: &mut Contents) {
    for fault in &read.faults {
        bar.println(format!("wrong: {fault}"));
    }
    bar.inc(read.read_bytes);
    contents.add(read);
}

fn report(
    args: &Args,
    health: &Health,
    survey: &Survey,
    contents: &Contents,
    took: Duration,
) -> String {
    if args.json {
        let mut value = told::as_json(&args.path, survey, contents);
        health.tell(&mut value);
        value["read_bytes"] = contents.read_bytes.into();
        value["seconds"] = took.as_secs_f64().into();
        return format!("{value:#}\n");
    }
    told::verified(&args.path, survey, contents, &health.words(), took)
}
