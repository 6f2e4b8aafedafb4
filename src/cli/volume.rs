//! `tidegate volume`: makes volumes of the ssd tier, looks at them, and unmakes them.
//!
//! A volume that an appliance has open is left alone: it says so in one line. What destroys asks
//! first. Progress is drawn on a terminal alone.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use tokio::runtime::Runtime;

use super::{Failure, USUAL_CONFIG};
use crate::config::paths::absolute;
use crate::config::units::parse_bytes;
use crate::config::{ConfigErrors, state_file_in, usual_state_file};
use crate::store::device::{self, Access, Disk, EngineChoice, Options};

mod create;
mod forgive;
mod format;
mod inspect;
pub(super) mod progress;
mod shape;
mod told;
mod verify;
mod wipe;

const EXAMPLES: &str = "\
Examples:
  tidegate volume create /ssd/tidegate.volume --size '200 GiB'
  tidegate volume format /dev/disk/by-id/nvme-EXAMPLE
  tidegate volume inspect /dev/disk/by-id/nvme-EXAMPLE
  tidegate volume verify /ssd/tidegate.volume --json
  tidegate volume wipe /ssd/tidegate.volume

`serve` makes files that are not there by itself; a block device has to be formatted.
Exit codes: 0 done, 1 failed or not as it was written, 64 misused";

/// Make, look at, check and unmake volumes of the ssd tier
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Create(create::Args),
    Format(format::Args),
    Inspect(inspect::Args),
    Verify(verify::Args),
    Wipe(wipe::Args),
    Forgive(forgive::Args),
}

/// Does one of them.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        Command::Create(args) => super::print(&create::run(args)?),
        Command::Format(args) => super::print(&format::run(args)?),
        Command::Inspect(args) => inspect::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Wipe(args) => super::print(&wipe::run(args)?),
        Command::Forgive(args) => super::print(&forgive::run(args)?),
    }
}

/// What devices and timers need. Blocks whoever asks of it.
pub(super) fn runtime() -> Result<Runtime, Failure> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(|error| Failure::Failed(format!("a runtime cannot be had: {error}")))
}

/// The file or device at `path`, nobody else's meanwhile.
fn open(path: &Path, access: Access) -> Result<Disk, Failure> {
    let options = Options { engine: EngineChoice::Auto, access };
    let opened = device::open(path, &options);
    opened.map(Disk::new).map_err(|error| Failure::Failed(format!("{error}{}", error.remedy())))
}

/// Asks on the terminal before something is lost.
fn confirm(question: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(Failure::Misused(format!(
            "{question}\nnobody can be asked here; say --yes if that is meant"
        )));
    }
    let _ = write!(io::stderr(), "{question}\nType \"yes\" to go on: ");
    let mut answer = String::new();
    let _ = io::stdin().lock().read_line(&mut answer);
    match answer.trim() {
        "yes" => Ok(()),
        _ => Err(Failure::Failed("nothing was changed".to_owned())),
    }
}

/// A size on the command line.
fn size(text: &str) -> Result<u64, String> {
    parse_bytes(text)
        .ok_or_else(|| "write a number and its unit, such as \"200 GiB\" or \"2 TB\"".to_owned())
}

/// Where volumes that have failed are remembered.
#[derive(Debug, Default, clap::Args)]
struct StateFile {
    /// The configuration whose `ssd.state` remembers volumes that have failed; left out:
    /// /etc/tidegate/tidegate.toml, if it is there
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// That file itself; no configuration is read
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    state: Option<PathBuf>,
    /// The configuration if none is named.
    #[arg(skip = PathBuf::from(USUAL_CONFIG))]
    usual: PathBuf,
}

impl StateFile {
    /// The file, which need not be there.
    fn path(&self) -> Result<PathBuf, Failure> {
        self.find().map_err(|errors| {
            Failure::Misused(format!("{errors}\n(or say where it is: --state FILE)"))
        })
    }

    /// The same for who only looks: what is wrong with a configuration that nobody named is told,
    /// and keeps nobody from looking.
    fn path_if_known(&self) -> Result<Result<PathBuf, ConfigErrors>, Failure> {
        match self.config {
            Some(_) => self.path().map(Ok),
            None => Ok(self.find()),
        }
    }

    fn find(&self) -> Result<PathBuf, ConfigErrors> {
        if let Some(state) = &self.state {
            return Ok(absolute(state));
        }
        let found = match &self.config {
            // One of which that cannot be told is read, which says why.
            None if matches!(self.usual.try_exists(), Ok(false)) => return Ok(usual_state_file()),
            config => state_file_in(config.as_deref().unwrap_or(&self.usual)),
        };
        found.map(|state| absolute(&state))
    }
}

/// What is told of regions that failed, if some have; what brings them back.
pub(super) fn regions_out_of_use(count: u64, of: u64) -> Option<String> {
    let have = if count == 1 { "has failed and is" } else { "have failed and are" };
    (count > 0).then(|| {
        format!(
            "{count} of {of} regions {have} out of use until it is formatted anew (`tidegate \
             volume format`, which empties it)"
        )
    })
}

#[cfg(test)]
mod tests;
