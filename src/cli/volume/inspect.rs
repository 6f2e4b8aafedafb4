//! `tidegate volume inspect`: what a volume is and holds. Changes nothing.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{StateFile, open, progress, runtime, told};
use crate::cli::{Failure, print};
use crate::config::ConfigErrors;
use crate::store::device::{Access, Disk};
use crate::store::format::{RegionState, VolumeId};
use crate::store::remembered::{Illness, Remembered};
use crate::store::survey::{Contents, Survey, check_region, contents_by_footer};

const EXAMPLES: &str = "\
Examples:
  tidegate volume inspect /ssd/tidegate.volume
  tidegate volume inspect /dev/disk/by-id/nvme-EXAMPLE --json | jq .regions

Nothing is changed. Of a volume that an appliance has open, `tidegate status` tells.
Exit codes: 0 what was read is as it was written, 1 something is wrong, 64 misused";

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

/// Looks, prints what was found, and fails if anything is wrong.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let (told, faults) = look(args)?;
    print(&told)?;
    let path = args.path.display();
    match faults {
        0 => Ok(()),
        1 => Err(Failure::Failed(format!("{path}: one thing is wrong"))),
        _ => Err(Failure::Failed(format!("{path}: {faults} things are wrong"))),
    }
}

/// What is to be printed, and how much is wrong.
pub(super) fn look(args: &Args) -> Result<(String, usize), Failure> {
    let state = args.state.path_if_known()?;
    let disk = open(&args.path, Access::ReadOnly)?;
    let runtime = runtime()?;
    let mut survey = runtime
        .block_on(Survey::of(&disk))
        .map_err(|error| Failure::Failed(error.told_of(&args.path)))?;
    runtime.block_on(survey.check_checkpoints(&disk));
    let contents = runtime.block_on(contents(&disk, &survey, args.json));
    let faults = survey.faults.len() + contents.faults.len();
    let health = Health::of(survey.superblock.id(), state);
    if args.json {
        let mut value = told::as_json(&args.path, &survey, &contents);
        health.tell(&mut value);
        return Ok((format!("{value:#}\n"), faults));
    }
    Ok((told::inspected(&args.path, &survey, &contents, &health.words()), faults))
}

/// What is remembered of a volume, as far as that can be known.
pub(super) struct Health {
    file: Option<PathBuf>,
    illness: Option<Illness>,
    /// Why nobody knows.
    unknown: Option<String>,
}

impl Health {
    pub(super) fn of(id: VolumeId, state: Result<PathBuf, ConfigErrors>) -> Health {
        let file = match state {
            Ok(file) => file,
            Err(errors) => {
                let why = errors.to_string().replace('\n', "; ");
                let unknown = Some(format!("it is not known where it would be remembered: {why}"));
                return Health { file: None, illness: None, unknown };
            }
        };
        let (mut remembered, forgotten) = Remembered::at(&file).all();
        let (illness, unknown) = (remembered.remove(&id.0), forgotten.map(|why| why.to_string()));
        Health { file: Some(file), illness, unknown }
    }

    pub(super) fn words(&self) -> String {
        match (&self.unknown, &self.illness, &self.file) {
            (Some(unknown), ..) => unknown.clone(),
            (None, Some(illness), _) => told::ill(illness),
            (None, None, Some(file)) if file.exists() => {
                format!("nothing remembered in {}", file.display())
            }
            (None, None, file) => format!(
                "nothing remembered: there is no {} (`ssd.state`; --config or --state name \
                 another)",
                file.as_deref().unwrap_or(Path::new("file")).display()
            ),
        }
    }

    /// The same in JSON.
    pub(super) fn tell(&self, value: &mut Value) {
        let file = self.file.as_ref();
        value["illness"] = self.illness.as_ref().map(told::ill_json).into();
        value["state_file"] = file.map(|file| file.display().to_string()).into();
        value["state_file_exists"] = file.and_then(|file| file.try_exists().ok()).into();
        value["state_file_error"] = self.unknown.clone().into();
    }
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
