//! `tidegate usage`: what each site was served in a month, for bills and plans.
//!
//! Asks the admin listener, with its token if it has one, once; where nobody answers on this
//! machine, reads the files. `export` signs what is told, `verify` says whether it was changed.

use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use clap::Subcommand;
use http::StatusCode;
use serde_json::Value;

use super::Failure;
use super::admin::{Answer, Reach, ask, refused, stranger};
use super::log::encoded;
use crate::config::{self, state_file_in, usage_beside};
use crate::site::Site;
use crate::usage::told::{Asked, FORMAT, MonthTold, of_files};
use crate::usage::{Folder, Month};

mod as_text;
mod export;
mod verify;

const EXAMPLES: &str = "\
Examples:
  tidegate usage
  tidegate usage --month 2026-11 --site film
  tidegate usage --month 2026-11 --csv > usage.csv
  tidegate usage --site film --samples --json | jq '.sites[0].samples[-1]'
  tidegate usage export --month 2026-11 --key key.pem
  tidegate usage verify usage-2026-11.json --key public.pem

Bytes are those of bodies: what viewers' connections were handed, and what fills got from origins;
heads, and what TLS and TCP add, are not in them. Samples are of 5 minutes and begin at whole
multiples of them, months at midnight, all in UTC. The 95th percentile is that of the bytes served,
by nearest rank: samples are sorted, the top 5 % dropped, and the highest that is left counts. A
sample in which no process counted is missing: it is told, and left out. What was served before the
first sample that is kept is not known: since when it was counted is told, and nothing before that
is missing or zero. `*` is all sites together, sample by sample; it is left out where one site is
named.

Where no appliance answers on this machine, what it has written is told. A restart or an upgrade
loses nothing; a kill costs what was counted of the sample under way.

Exit codes: 0 shown, 1 nothing is kept or it cannot be read, 64 misused";

/// Show what each site was served in a month, with the 95th percentile
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    which: Which,
    /// Print it as JSON: sizes in bytes
    #[arg(long)]
    json: bool,
    /// Print it as comma-separated values, a line for each site
    #[arg(long, conflicts_with_all = ["json", "samples"])]
    csv: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Export(export::Args),
    Verify(verify::Args),
}

/// What is to be told, and by whom.
#[derive(Debug, clap::Args)]
struct Which {
    /// The month, such as 2026-11; left out: this one
    #[arg(long, value_name = "MONTH")]
    month: Option<Month>,
    /// This site alone
    #[arg(long, value_name = "NAME")]
    site: Option<String>,
    /// Each sample of that site too: when it begins, bytes served, bytes of origins, requests
    #[arg(long, requires = "site")]
    samples: bool,
    #[command(flatten)]
    reach: Reach,
}

/// Does what is asked for; what is to be printed.
pub(super) fn run(args: &Args) -> Result<String, Failure> {
    match &args.command {
        Some(Command::Export(args)) => return export::run(args),
        Some(Command::Verify(args)) => return verify::run(args),
        None => {}
    }
    let told = args.which.told()?;
    Ok(match (args.json, args.csv) {
        (true, _) => format!("{:#}\n", serde_json::json!(told)),
        (_, true) => as_text::csv(&told),
        _ => as_text::table(&told),
    })
}

impl Which {
    /// What the appliance tells, or its files.
    fn told(&self) -> Result<MonthTold, Failure> {
        let target = self.target();
        let asked = self.reach.get(&target).map(|(addresses, request)| ask(&addresses, &request));
        let kept = self.reach.config_here().map(Kept::by);
        let mut told = match (asked, kept) {
            (Ok(Ok(answer)), _) => told(&answer),
            (Ok(Err(silent)), Some(Ok(kept))) => self.of_files(&kept, Some(&silent)),
            // One without an admin listener.
            (Err(_), Some(Ok(kept))) => self.of_files(&kept, None),
            (Ok(Err(failure)) | Err(failure), _) => Err(failure),
        }?;
        if self.site.is_some() {
            // An older process tells of all sites beside the one.
            told.all = None;
        }
        match &self.site {
            Some(_) if told.is_unknown() => {
                let MonthTold { machine, month, .. } = &told;
                Err(Failure::Failed(format!("nothing is kept of {month} on {machine}")))
            }
            Some(site) if told.sites.is_empty() => {
                let MonthTold { machine, month, .. } = &told;
                Err(Failure::Failed(format!(
                    "nothing is kept of a site {site:?} on {machine} in {month}, and none is \
                     configured; `tidegate usage --month {month}` shows those there are"
                )))
            }
            _ => Ok(told),
        }
    }

    fn target(&self) -> String {
        let month = self.month.map(|month| month.to_string()).unwrap_or_default();
        let site = self.site.as_deref().map(encoded).unwrap_or_default();
        let samples = if self.samples { "yes" } else { "" };
        format!("/usage?month={month}&site={site}&samples={samples}")
    }

    fn of_files(&self, kept: &Kept, silent: Option<&Failure>) -> Result<MonthTold, Failure> {
        let path = kept.folder.path().display();
        let why = silent.map(|silent| format!("{silent}\n")).unwrap_or_default();
        if !kept.folder.path().is_dir() {
            return Err(Failure::Failed(format!("{why}there is no {path}: nothing was kept yet")));
        }
        let now = SystemTime::now();
        let month = self.month.unwrap_or_else(|| Month::at(now));
        let asked = Asked { month, site: self.site.clone(), samples: self.samples };
        let failed = |error| Failure::Failed(format!("{why}{path}: {error}"));
        let told = of_files(&kept.folder, &asked, now).map_err(failed)?;
        let told = told.with_silent(&asked, kept.sites.iter().map(String::as_str));
        // Whoever reads what is printed need not know.
        let _ = writeln!(io::stderr(), "{why}read from {path}");
        Ok(told)
    }
}

/// What an appliance that does not run has left.
struct Kept {
    folder: Folder,
    /// Of a configuration that is right.
    sites: Vec<String>,
}

impl Kept {
    /// Where an appliance with this configuration keeps it.
    fn by(config: &Path) -> Result<Kept, Failure> {
        let state = state_file_in(config).map_err(|errors| Failure::Misused(errors.to_string()))?;
        let sites = config::load(config).map(|config| config.sites);
        let name = |site: &Arc<Site>| site.name.clone();
        let sites = sites.map(|sites| sites.iter().map(name).collect()).unwrap_or_default();
        Ok(Kept { folder: Folder::at(usage_beside(&state)), sites })
    }
}

fn told(answer: &Answer) -> Result<MonthTold, Failure> {
    let said: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
    match answer.status {
        StatusCode::OK if said["format"] == FORMAT => {
            let unknown = |error| stranger(&answer.address, &format!("{error}"));
            serde_json::from_value(said).map_err(unknown)
        }
        _ => Err(refused(answer)),
    }
}
