//! The configuration: one TOML file, checked whole before anything is started.
//!
//! What was written (`raw`, `setting`) becomes what was meant ([`Config`]); every fault is one line
//! with its place, and all of them are reported. A `Config` that exists is valid. The reference for
//! every setting is `config/tidegate.toml`.

use std::fs;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::control::registry::appliance::Pathway;
use crate::door::Demands;
use crate::limits::{
    CONNECTIONS_MAX, FILL_THREADS_MAX, PIECE_SIZE_BYTES, USAGE_MONTHS_MAX, WORKERS_MAX,
};
use crate::object::BlockSize;
use crate::site::Sites;

pub use acme::{Acme, Challenge, ExternalAccount, Managed};
pub use admin::Admin;
pub use certificates::{Certificate, Certificates};
pub use changes::{Change, Counts, is_of_volumes};
pub use control::{Control, ControlFile, Health, is_control_alone, load_control};
pub use entrance::{Unused, read_networks, read_places};
pub use error::{ConfigError, ConfigErrors, Place, cause};
pub use fill::Fill;
pub use fleet::Fleet;
pub use listeners::{Congestion, Listener, ListenerKind, no_congestion_control};
pub use log::{Log, LogLevel};
pub use machine::{Machine, available_bytes, shared_bytes_held};
pub use memory::{Memory, margin_bytes};
pub use names::issued_as;
pub use overload::{Client, Overload};
pub use proxies::Proxies;
pub use routes::Routes;
pub use shipping::{Receiver, Shipping, shipped_fields};
pub use ssd::{
    Admission, EngineChoice, IndexShort, Ssd, state_file_in, usage_beside, usual_index_bytes_of,
    usual_state_file,
};
pub use steering::Steering;
pub use tokens::read_keys;
pub use validity::Validity;
pub use volumes::{SsdVolume, VolumeKind};

use changes::Written;
use raw::{Credentials, Section, Source};

mod acme;
mod admin;
mod certificates;
mod changes;
mod control;
mod cors;
mod entrance;
mod error;
mod etcd;
mod fill;
mod fleet;
#[doc(hidden)]
pub mod fuzz;
mod listeners;
mod log;
mod machine;
mod memory;
mod names;
mod origins;
mod overload;
pub mod paths;
mod proxies;
mod raw;
mod routes;
mod rules;
mod setting;
mod shipping;
mod sites;
mod ssd;
mod steering;
mod tokens;
pub mod units;
mod validity;
mod volumes;

/// What was meant.
#[derive(Clone, Debug)]
pub struct Config {
    /// The name of the file it was read from.
    pub file: String,
    /// Addresses to listen at.
    pub listeners: Vec<Listener>,
    /// How fast the kernel finds it may send to viewers.
    pub congestion: Congestion,
    /// Who says whom he brings.
    pub proxies: Proxies,
    /// What operators may do.
    pub admin: Admin,
    /// Certificates for https listeners; not empty if there is one.
    pub certificates: Certificates,
    /// How many threads.
    pub threads: Threads,
    /// How much memory.
    pub memory: Memory,
    /// What is kept on SSDs.
    pub ssd: Ssd,
    /// The unit of admission and eviction.
    pub block_size: BlockSize,
    /// How fills go.
    pub fill: Fill,
    /// What viewers may cost.
    pub limits: Limits,
    /// What is written down.
    pub log: Log,
    /// Months of which usage is kept; 0: none is.
    pub usage_months: usize,
    /// The control plane of a fleet, if this machine is one.
    pub control: Option<Control>,
    /// The fleet this machine is a box of, if it is one.
    pub fleet: Option<Fleet>,
    /// Whose content is served.
    pub sites: Sites,
    /// What is demanded of tokens, by the names of sites.
    pub demands: Vec<(String, Demands)>,
    /// Which viewers appliances are for.
    pub routes: Routes,
    /// Whom viewers are sent to.
    pub steering: Steering,
    /// What is allowed but hardly meant, one line each.
    pub warnings: Vec<ConfigError>,
    written: Written,
}

/// Threads by what they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threads {
    /// Serving viewers.
    pub workers: usize,
    /// Filling.
    pub fill: usize,
}

/// What viewers may cost, in connections and in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at once.
    pub connections_max: usize,
    /// For a whole request head, and for a TLS handshake.
    pub header_timeout: Duration,
    /// Without a request, until the connection is closed.
    pub idle_timeout: Duration,
    /// How slowly a body may be read.
    pub slow_reader: SlowReader,
    /// For running bodies when the appliance stops.
    pub drain_timeout: Duration,
    /// What is too much.
    pub overload: Overload,
}

/// A reader who takes fewer than `bytes` in each `period` is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowReader {
    /// What must be taken.
    pub bytes: u64,
    /// In this time.
    pub period: Duration,
}

/// What a time limit may be set to.
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(3_600);

/// Reads and checks a file. Relative paths in it are relative to its folder.
///
/// # Errors
/// Every fault found, or that the file cannot be read.
pub fn load(path: &Path) -> Result<Config, ConfigErrors> {
    let name = path.to_string_lossy();
    let text = fs::read_to_string(path).map_err(|error| ConfigErrors::unreadable(&name, &error))?;
    Config::from_toml(&text, &name)
}

/// The same before a start: what that brings may be missing, and is warned of.
///
/// # Errors
/// As [`load`].
pub fn load_before_start(path: &Path) -> Result<Config, ConfigErrors> {
    let name = path.to_string_lossy();
    let text = fs::read_to_string(path).map_err(|error| ConfigErrors::unreadable(&name, &error))?;
    Config::read(&text, &name, &Machine::here(), Credentials::WithAStart)
}

impl Config {
    /// What players call this appliance, if that is known.
    pub fn pathway(&self) -> Option<&Pathway> {
        let of_fleet = || Some(self.fleet.as_ref()?.appliance.pathway());
        self.steering.pathway.as_ref().or_else(of_fleet)
    }

    /// Checks a text; `name` is what faults call it, and its folder is where relative paths begin.
    ///
    /// # Errors
    /// Every fault found.
    pub fn from_toml(text: &str, name: &str) -> Result<Config, ConfigErrors> {
        Config::on_machine(text, name, &Machine::here())
    }

    /// The same for another machine than this one: defaults and shares are of what it has.
    ///
    /// # Errors
    /// Every fault found.
    pub fn on_machine(text: &str, name: &str, machine: &Machine) -> Result<Config, ConfigErrors> {
        Config::read(text, name, machine, Credentials::Here)
    }

    fn read(
        text: &str,
        name: &str,
        machine: &Machine,
        credentials: Credentials,
    ) -> Result<Config, ConfigErrors> {
        let source = Source::new(name, text, credentials);
        let document = source.parse()?;
        let config = Section::document(&source, &document, |section| read(section, machine));
        source.errors()?;
        let mut warnings = source.warnings();
        warnings.extend(config.refused_certificates(SystemTime::now()));
        warnings.sort_by_key(|warning| warning.place);
        Ok(Config { warnings, written: Written::of(text), ..config })
    }

    /// Whether every port can be had; binds each and lets go. `inherited`: addresses of sockets
    /// passed to this process, which need not be free.
    ///
    /// # Errors
    /// One fault for each port that cannot be had.
    pub fn try_ports(&self, inherited: &[SocketAddr]) -> Result<(), ConfigErrors> {
        listeners::try_ports(&self.file, &self.listeners, inherited)
    }
}

fn read(document: &Section<'_>, machine: &Machine) -> Config {
    let (listeners, congestion) = document
        .section("listeners", |section| (listeners::read(section), listeners::congestion(section)));
    let certificates = certificates::read(document);
    let (sites, demands) = sites::read(document);
    certificates::check(document, &listeners, &certificates, &sites);
    acme::check(document, &listeners, &certificates);
    let (ssd, index) = document.section("ssd", ssd::read);
    let admin = document.section("admin", admin::read);
    admin.warn(document, &listeners, &sites);
    let steering = |section: &Section<'_>| steering::read(section, &listeners, &sites);
    let steering = document.section("steering", steering);
    let mut config = Config {
        file: document.source.name.to_owned(),
        listeners,
        congestion,
        proxies: document.section("proxies", proxies::read),
        admin,
        certificates,
        threads: document.section("threads", |section| threads(section, machine)),
        memory: document.section("memory", |section| memory::read(section, machine, &index)),
        ssd,
        block_size: block_size(document),
        fill: document.section("fill", fill::read),
        limits: document.section("limits", limits),
        log: document.section("log", log::read),
        usage_months: document.section("usage", usage_months),
        control: document.section("control", control::read),
        routes: document.section("routes", routes::read),
        steering,
        fleet: None,
        sites,
        demands,
        warnings: Vec::new(),
        written: Written::default(),
    };
    config.fleet = document.section("fleet", |section| fleet::read(section, &config));
    tokens::check(document, &config.demands, config.fleet.is_some());
    steering::check(document, &config);
    entrance::check(document, &config);
    config
}

fn threads(section: &Section<'_>, machine: &Machine) -> Threads {
    let threads = |key, max: usize| match section.count(key, 0, 0..=max as u64) as usize {
        0 => machine.cores.min(max),
        set => set,
    };
    Threads { workers: threads("workers", WORKERS_MAX), fill: threads("fill", FILL_THREADS_MAX) }
}

fn block_size(document: &Section<'_>) -> BlockSize {
    let Some(setting) = document.setting("block_size") else { return BlockSize::MAX };
    let Some(bytes) = setting.bytes(PIECE_SIZE_BYTES..=BlockSize::MAX.bytes()) else {
        return BlockSize::MAX;
    };
    BlockSize::new(bytes).unwrap_or_else(|| {
        let near = units::bytes_text(bytes.next_power_of_two());
        setting.fail(format!("is {:?}; a power of two such as {near:?}", units::bytes_text(bytes)));
        BlockSize::MAX
    })
}

fn limits(section: &Section<'_>) -> Limits {
    let timeout = |key, default_seconds| {
        section.duration(key, Duration::from_secs(default_seconds), TIMEOUTS)
    };
    Limits {
        connections_max: section.count("connections", 16_384, 1..=CONNECTIONS_MAX as u64) as usize,
        header_timeout: timeout("header_timeout", 10),
        idle_timeout: timeout("idle_timeout", 60),
        slow_reader: section.section("slow_reader", |slow| SlowReader {
            bytes: slow.bytes("bytes", 16 << 10, 1..=1 << 30),
            period: slow.duration("period", Duration::from_secs(60), TIMEOUTS),
        }),
        drain_timeout: section.duration(
            "drain_timeout",
            Duration::from_secs(30),
            Duration::ZERO..=*TIMEOUTS.end(),
        ),
        overload: overload::read(section),
    }
}

fn usage_months(section: &Section<'_>) -> usize {
    section.count("months", 13, 0..=USAGE_MONTHS_MAX) as usize
}

#[cfg(test)]
mod tests;
