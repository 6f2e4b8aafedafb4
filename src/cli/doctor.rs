//! `tidegate doctor`: looks at the machine, the origins and the configuration before the first
//! viewer comes, and says of each what was found and what to do.
//!
//! It changes nothing, and looks beside an appliance that is running. Each check has a deadline;
//! all of them go on at once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::ValueEnum;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;

use self::finding::{Finding, Report};
use self::named::Named;
use self::root::Root;
use super::volume::progress;
use super::{Failure, USUAL_CONFIG, print};
use crate::config::{self, Config, ConfigError, Machine};
use crate::object::SiteId;

mod certificates;
mod clock;
mod disks;
mod finding;
mod kernel;
mod memory;
mod named;
mod nic;
mod origins;
mod ports;
mod resolve;
mod root;
mod smart;
mod sysctls;
mod volumes;

const EXAMPLES: &str = "\
Examples:
  tidegate doctor
  tidegate doctor --config tidegate.toml --path /film/1.m4s     an object that the origins have
  tidegate doctor --path https://video.example.com/film/1.m4s --path https://live.example.com/a.mp4
  tidegate doctor --only origins,dns --path /film/1.m4s
  tidegate doctor --skip disks,nic --json | jq '.findings[] | select(.state != \"ok\")'
  tidegate doctor --only origins --resolve origin.example.com=192.0.2.1,192.0.2.2

A --path that is a URL is asked of the origins of the site that has its host, without what the rules
there leave out of the query; a path alone is asked of all origins, as it is.

A row is ok, note, warn (it serves, worse than it could), fail (it does not serve, or not all) or
unknown (it could not be told). Run it as the user that serves, or as root, who sees more.
Exit codes: 0 it can serve, 1 something it does not serve without is wrong, 64 misused (or a fault
in the configuration)";

/// For one check of this machine, all it reads.
const READ_WITHIN: Duration = Duration::from_secs(30);

/// Look for what is wrong with the machine, the origins and the configuration
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The configuration it is to serve by
    #[arg(long, value_name = "FILE", default_value = USUAL_CONFIG)]
    config: PathBuf,
    /// An object that the origins of its site have, or of all: whether ranges of it can be had is
    /// asked of each address; may be repeated
    #[arg(long = "path", value_name = "URL|PATH")]
    paths: Vec<Named>,
    /// Ask these addresses of a name instead of those DNS gives
    #[arg(long, value_name = "NAME=ADDRESS,..", value_parser = resolved)]
    resolve: Vec<(String, Vec<IpAddr>)>,
    /// Do these checks alone
    #[arg(long, value_name = "CHECK,..", value_delimiter = ',', conflicts_with = "skip")]
    only: Vec<Check>,
    /// Leave these checks out; they are named as for --only
    #[arg(long, value_name = "CHECK,..", value_delimiter = ',', hide_possible_values = true)]
    skip: Vec<Check>,
    /// Print what was found as JSON
    #[arg(long)]
    json: bool,
}

fn resolved(text: &str) -> Result<(String, Vec<IpAddr>), String> {
    let parsed = text.split_once('=').and_then(|(name, addresses)| {
        let addresses = addresses.split(',').map(str::parse).collect::<Result<_, _>>().ok()?;
        Some((name.to_ascii_lowercase(), addresses))
    });
    parsed.ok_or_else(|| "write one such as origin.example.com=192.0.2.1,192.0.2.2".to_owned())
}

/// What is looked at, in the order it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Check {
    /// What is allowed in the configuration but hardly meant
    Config,
    /// Version
    Kernel,
    /// Whether a ring really works
    IoUring,
    /// How many may be open
    Files,
    /// What there is, huge pages
    Memory,
    /// Whether something sets it
    Clock,
    /// Network cards: link, speed, queues
    Nic,
    /// The kernel's settings
    Sysctls,
    /// Free, or held by whom
    Ports,
    /// Of listeners: dates and names
    Certificates,
    /// What a start would use and leave out
    Volumes,
    /// The drives behind them, and a short read
    Disks,
    /// The addresses of origins
    Dns,
    /// Reachable, TLS, ranges, validators
    Origins,
}

impl Check {
    fn name(self) -> &'static str {
        match self {
            Check::Config => "config",
            Check::Kernel => "kernel",
            Check::IoUring => "io-uring",
            Check::Files => "files",
            Check::Memory => "memory",
            Check::Clock => "clock",
            Check::Nic => "nic",
            Check::Sysctls => "sysctls",
            Check::Ports => "ports",
            Check::Certificates => "certificates",
            Check::Volumes => "volumes",
            Check::Disks => "disks",
            Check::Dns => "dns",
            Check::Origins => "origins",
        }
    }

    /// Whether it can fail in a way that it does not serve with.
    fn is_mandatory(self) -> bool {
        match self {
            Check::IoUring
            | Check::Memory
            | Check::Ports
            | Check::Certificates
            | Check::Volumes
            | Check::Dns
            | Check::Origins => true,
            Check::Config
            | Check::Kernel
            | Check::Files
            | Check::Clock
            | Check::Nic
            | Check::Sysctls
            | Check::Disks => false,
        }
    }
}

/// What is looked at, and by what.
struct Subject {
    config: Config,
    root: Root,
    cores: usize,
    /// Bytes of memory that there are, or that this process may have of them.
    allowed_bytes: Option<u64>,
    now: SystemTime,
    /// What origins are asked for: of one site, or of all.
    paths: Vec<(Option<SiteId>, String)>,
    resolve: BTreeMap<String, Vec<IpAddr>>,
}

/// Looks, prints what was found, and fails if it would not serve.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let config =
        config::load_before_start(&args.config).map_err(|e| Failure::Misused(e.to_string()))?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let paths = args.paths.iter().map(|named| named.at(&config)).collect::<Result<_, _>>()?;
    let subject = Arc::new(Subject {
        config,
        root: Root::at("/"),
        cores,
        allowed_bytes: Machine::here().memory_bytes,
        now: SystemTime::now(),
        paths,
        resolve: args.resolve.iter().cloned().collect(),
    });
    let runtime = super::volume::runtime()?;
    let findings = runtime.block_on(examine(&subject, chosen(args), args.json));
    // A drive that does not answer is waited for no longer.
    runtime.shutdown_background();
    let report = Report { config: subject.config.file.clone(), findings };
    print(&match args.json {
        true => format!("{:#}\n", report.json()),
        false => report.text(),
    })?;
    match report.failed() {
        0 => Ok(()),
        1 => Err(Failure::Failed("one thing is wrong that it does not serve without".to_owned())),
        failed => Err(Failure::Failed(format!(
            "{failed} things are wrong that it does not serve without"
        ))),
    }
}

fn chosen(args: &Args) -> Vec<Check> {
    let is_chosen = |check: &Check| match args.only.is_empty() {
        true => !args.skip.contains(check),
        false => args.only.contains(check),
    };
    Check::value_variants().iter().copied().filter(is_chosen).collect()
}

/// All at once; what they found, in their order.
async fn examine(subject: &Arc<Subject>, checks: Vec<Check>, json: bool) -> Vec<(Check, Finding)> {
    let bar = progress::working("looking", json);
    let mut waiting: BTreeSet<Check> = checks.iter().copied().collect();
    let mut looking = JoinSet::new();
    for check in checks {
        let subject = Arc::clone(subject);
        looking.spawn(async move { (check, one(check, subject).await) });
    }
    let mut found = BTreeMap::new();
    while let Some(ended) = looking.join_next().await {
        let (check, findings) = ended.expect("a check does not panic");
        waiting.remove(&check);
        found.insert(check, findings);
        if !waiting.is_empty() {
            let names: Vec<_> = waiting.iter().map(|check| check.name()).collect();
            bar.set_message(format!("waiting for {}", names.join(", ")));
        }
    }
    bar.finish_and_clear();
    let rows = |(check, findings): (Check, Vec<Finding>)| {
        findings.into_iter().map(move |finding| (check, finding))
    };
    found.into_iter().flat_map(rows).collect()
}

async fn one(check: Check, subject: Arc<Subject>) -> Vec<Finding> {
    let reading = match check {
        // Each wait of theirs has its own deadline: one who is silent hides none of the others.
        Check::Dns => return resolve::look(&subject).await,
        Check::Origins => return origins::look(&subject).await,
        _ => spawn_blocking(move || on_this_machine(check, &subject)),
    };
    match timeout(READ_WITHIN, reading).await {
        Ok(read) => read.expect("a check does not panic"),
        Err(_) => {
            let found = format!("nothing was told in {} s", READ_WITHIN.as_secs());
            vec![Finding::unknown(found, "look what hangs: `dmesg` tells of drives")]
        }
    }
}

fn on_this_machine(check: Check, subject: &Subject) -> Vec<Finding> {
    match check {
        Check::Config => warnings(&subject.config, subject.now),
        Check::Kernel => kernel::version(subject),
        Check::IoUring => kernel::io_uring(subject),
        Check::Files => kernel::files(subject),
        Check::Memory => memory::look(subject),
        Check::Clock => clock::look(subject),
        Check::Nic => nic::look(subject),
        Check::Sysctls => sysctls::look(subject),
        Check::Ports => ports::look(subject),
        Check::Certificates => certificates::look(subject),
        Check::Volumes => volumes::look(subject),
        Check::Disks => disks::look(subject),
        Check::Dns | Check::Origins => Vec::new(),
    }
}

/// What the configuration is warned of; of certificates, and hosts without one, those tell.
fn warnings(config: &Config, now: SystemTime) -> Vec<Finding> {
    let (uncovered, refused) = (config.uncovered_hosts(), config.refused_certificates(now));
    let is_of_certificates =
        |one: &ConfigError| uncovered.contains(&one.text) || refused.contains(one);
    let told = config.warnings.iter().filter(|warning| !is_of_certificates(warning));
    let findings: Vec<_> = told
        .map(|warning| {
            Finding::warn(
                warning.to_string(),
                "change what it names, and look with `tidegate check`",
            )
        })
        .collect();
    let of_certificates = match (refused.is_empty(), uncovered.is_empty()) {
        (false, _) => Some("viewers refuse a certificate"),
        (true, false) => Some("hosts have no certificate"),
        (true, true) => None,
    };
    match of_certificates {
        _ if !findings.is_empty() => findings,
        Some(found) => vec![Finding::note(found, "see `certificates`")],
        None => vec![Finding::ok("it is understood, without a warning")],
    }
}

#[cfg(test)]
mod tests;
