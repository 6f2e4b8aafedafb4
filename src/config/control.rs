//! The control plane of a fleet, where this machine is one: where it listens, what it keeps, who
//! may change anything.
//!
//! There is one where `control.listen` is written. `tidegate control` reads nothing else of a file
//! but this and how loud the log is, so that a file may have this alone.

use std::env;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;
use toml::de::DeTable;

use super::Config;
use super::admin::tokens;
use super::certificates::{Certificate, chain, path};
use super::error::{ConfigError, ConfigErrors};
use super::etcd;
use super::log::{LogLevel, level};
use super::raw::{Credentials, Section, Source};
use super::units::duration_text;
use crate::control::state::Store;
use crate::limits::{PLANE_LISTENERS_MAX, PLANE_NAMES_MAX};
use crate::purge::Tokens;

/// The section `control`.
#[derive(Clone, Debug)]
pub struct Control {
    /// Where boxes and operators ask.
    pub listen: Vec<SocketAddr>,
    /// Where its keys lie, and its state if it has it alone.
    pub folder: PathBuf,
    /// Where its state lies.
    pub store: Store,
    /// Who may what; `None`: no operator may anything.
    pub tokens: Option<Tokens>,
    /// The file they are in.
    pub token_file: Option<PathBuf>,
    /// By what it is asked.
    pub names: Vec<String>,
    /// What it shows; `None`: a certificate of its own.
    pub certificate: Option<Certificate>,
    /// Whose certificates operators have to show beside a token.
    pub operators_ca: Vec<CertificateDer<'static>>,
    /// How often one client may ask.
    pub requests_per_second: u32,
    /// How often an appliance should be heard of.
    pub heartbeat: Duration,
    /// When an appliance counts as ill, well, and full.
    pub health: Health,
}

impl Control {
    /// What it shows; `None`: a certificate of its own.
    pub fn shown(&self) -> Option<Arc<CertifiedKey>> {
        self.certificate.as_ref().map(|one| one.key.clone())
    }
}

impl Config {
    /// Who may what of the control plane, if this machine is one.
    pub fn control_tokens(&self) -> Option<Tokens> {
        self.control.as_ref().and_then(|control| control.tokens.clone())
    }
}

/// The section `control.health`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Bad heartbeats in a row.
    pub bad_heartbeats: u32,
    /// Good ones in a row.
    pub good_heartbeats: u32,
    /// Without one.
    pub silent_after: Duration,
    /// Share of the fleet that is taken out for illness, at most.
    pub removed_percent_max: u8,
    /// Share of its capacity from which on it gets fewer viewers,
    pub tight_percent: u8,
    /// from which on it gets none,
    pub full_percent: u8,
    /// and until which.
    pub open_percent: u8,
}

/// What `tidegate control` reads of a file.
#[derive(Clone, Debug)]
pub struct ControlFile {
    /// The section.
    pub control: Control,
    /// How loud the log is.
    pub level: LogLevel,
    /// What is allowed but hardly meant, one line each.
    pub warnings: Vec<ConfigError>,
}

/// Reads what a control plane needs of a file, and nothing else.
///
/// # Errors
/// Every fault found in that, or that the file cannot be read, or has no control plane.
pub fn load_control(path: &Path) -> Result<ControlFile, ConfigErrors> {
    let name = path.to_string_lossy();
    let text = fs::read_to_string(path).map_err(|error| ConfigErrors::unreadable(&name, &error))?;
    read_alone(&text, &name)
}

/// Whether a file is for a control plane alone: it says nothing of viewers.
pub fn is_control_alone(path: &Path) -> bool {
    let text = fs::read_to_string(path).unwrap_or_default();
    let (document, _) = DeTable::parse_recoverable(&text);
    let has = |key: &str| document.get_ref().contains_key(key);
    has("control") && !has("sites") && !has("listeners")
}

fn read_alone(text: &str, name: &str) -> Result<ControlFile, ConfigErrors> {
    let source = Source::new(name, text, Credentials::Here);
    let document = source.parse()?;
    let (control, level) = Section::document(&source, &document, |section| {
        // Whoever serves too reads these.
        OTHERS.iter().for_each(|other| drop(section.setting(other)));
        let control = section.section("control", read);
        if control.is_none() && source.errors().is_ok() {
            section.fail("there is no control plane; write `control.listen = [\"0.0.0.0:9443\"]`");
        }
        (control, section.section_of_others("log", level))
    });
    source.errors()?;
    let control = control.expect("where there is none, that is a fault");
    Ok(ControlFile { control, level, warnings: source.warnings() })
}

/// Reads the section `control`.
pub(super) fn read(section: &Section<'_>) -> Option<Control> {
    let listen = listen(section);
    let state = section.setting("state").and_then(|setting| path(&setting));
    let token_setting = section.setting("token_file");
    let token_file = token_setting.as_ref().and_then(path);
    let certificate = section.section("certificate", certificate);
    let folder = state.unwrap_or_else(usual_folder);
    let control = Control {
        store: section.section("etcd", |section| etcd::read(section, &folder)),
        folder,
        tokens: token_setting.and_then(|setting| tokens(&setting)),
        token_file,
        names: names(section, &listen, certificate.is_some()),
        certificate,
        operators_ca: section
            .setting("operators_ca")
            .and_then(|setting| chain(&setting))
            .map(|(_, chain)| chain)
            .unwrap_or_default(),
        requests_per_second: section.count("requests_per_second", 50, 1..=100_000) as u32,
        heartbeat: section.duration("heartbeat", Duration::from_secs(5), HEARTBEATS),
        health: section.section("health", health),
        listen,
    };
    let expected = 2 * control.heartbeat.max(BEATS_AT_LEAST);
    if control.health.silent_after < expected {
        let text = format!(
            "`control.health.silent_after` is less than two heartbeats: write \"{}\" or more",
            duration_text(expected)
        );
        section.fail(text);
    }
    (!control.listen.is_empty()).then_some(control)
}

fn listen(section: &Section<'_>) -> Vec<SocketAddr> {
    let Some(setting) = section.setting("listen") else { return Vec::new() };
    let texts = setting.texts();
    if texts.len() > PLANE_LISTENERS_MAX {
        setting.fail(format!("has more than {PLANE_LISTENERS_MAX} addresses"));
    }
    let address = |(setting, text): (super::setting::Setting<'_>, &str)| {
        super::listeners::address(&setting, text)
    };
    texts.into_iter().filter_map(address).collect()
}

/// Those that are written; otherwise those it listens at, and what this machine calls itself.
fn names(section: &Section<'_>, listen: &[SocketAddr], has_certificate: bool) -> Vec<String> {
    let written = section.setting("names").map(|setting| {
        let texts = setting.texts();
        if texts.is_empty() || texts.len() > PLANE_NAMES_MAX {
            setting.fail(format!("has {} names; write 1 to {PLANE_NAMES_MAX}", texts.len()));
        }
        for (setting, text) in &texts {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
            if text.parse::<IpAddr>().is_err() && (text.is_empty() || !text.bytes().all(fits)) {
                setting.fail(format!("is {text:?}; write a host name or an IP address"));
            }
        }
        texts.into_iter().map(|(_, text)| text.to_ascii_lowercase()).collect()
    });
    let any = listen.iter().find(|address| address.ip().is_unspecified());
    if let (Some(any), None, false) = (any, &written, has_certificate) {
        let text = format!(
            "`control.listen` {any} says not by what boxes reach it; write `control.names`, such \
             as [\"control.example.com\"]"
        );
        section.fail(text);
    }
    written.unwrap_or_else(|| {
        let addresses = listen.iter().map(|address| address.ip().to_string());
        ["localhost".to_owned()].into_iter().chain(addresses).collect()
    })
}

fn certificate(section: &Section<'_>) -> Option<Certificate> {
    if !section.is_written() {
        let _ = (section.setting("cert"), section.setting("key"));
        return None;
    }
    let cert = section.required("cert", "the path of a PEM file, the server's certificate first");
    let key = section.required("key", "the path of a PEM file with the private key");
    let (cert_path, key_path) = (path(cert.as_ref()?)?, path(&key?)?);
    match Certificate::judged_in(&cert_path, &key_path, SystemTime::now()) {
        Ok(found) => Some(found),
        Err(text) => {
            section.fail(format!("`control.certificate`: {text}"));
            None
        }
    }
}

fn health(section: &Section<'_>) -> Health {
    let percent = |key, default: u8| {
        let text = "a share such as \"50%\"";
        let Some(setting) = section.setting(key) else { return default };
        match setting.percent() {
            Some(percent) if percent <= 100 => percent as u8,
            _ => {
                setting.mismatch(text);
                default
            }
        }
    };
    let health = Health {
        bad_heartbeats: section.count("bad_heartbeats", 3, 1..=1_000) as u32,
        good_heartbeats: section.count("good_heartbeats", 3, 1..=1_000) as u32,
        silent_after: section.duration("silent_after", Duration::from_secs(15), HEARTBEATS),
        removed_percent_max: percent("removed_at_most", 50),
        tight_percent: percent("tight_from", 80),
        full_percent: percent("full_from", 95),
        open_percent: percent("open_from", 85),
    };
    if health.open_percent > health.full_percent || health.tight_percent > health.full_percent {
        section.fail("`control.health.tight_from` and `.open_from` are no more than `.full_from`");
    }
    health
}

/// In the folder that the service manager gave us, or would.
fn usual_folder() -> PathBuf {
    let given = env::var_os("STATE_DIRECTORY");
    let first = given.as_ref().and_then(|list| env::split_paths(list).next());
    let folder = first.filter(|path| path.is_absolute());
    folder.unwrap_or(Path::new("/var/lib/tidegate").to_owned()).join("control")
}

/// Boxes are told whole seconds.
const BEATS_AT_LEAST: Duration = Duration::from_secs(1);
const HEARTBEATS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(3_600);
/// All that a file may say beside it.
const OTHERS: [&str; 16] = [
    "listeners",
    "acme",
    "certificates",
    "sites",
    "ssd",
    "admin",
    "proxies",
    "threads",
    "memory",
    "block_size",
    "fill",
    "limits",
    "usage",
    "routes",
    "steering",
    "fleet",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        let faults = read_alone(text, "t.toml").map(drop).unwrap_err().to_string();
        faults.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_file_needs_nothing_beside_it() {
        let read = read_alone("control.listen = [\"127.0.0.1:0\", \"[::1]:0\"]", "t.toml").unwrap();
        let Control { names, health, heartbeat, requests_per_second, .. } = read.control;
        assert_eq!(names, ["localhost", "127.0.0.1", "::1"]);
        assert_eq!((heartbeat, requests_per_second), (Duration::from_secs(5), 50));
        assert_eq!((health.bad_heartbeats, health.open_percent), (3, 85));
    }

    #[test]
    fn what_a_file_says_beside_it_is_for_others() {
        let text = include_str!("../../config/tidegate.toml");
        let [fault] = &faults(text)[..] else { panic!("more than one fault") };
        assert!(fault.contains("there is no control plane; write `control.listen"), "{fault}");
        let text = format!("control.listen = \"127.0.0.1:0\"\n{}", text.replace("[control]", ""));
        assert!(read_alone(&text, "t.toml").is_ok());
        let [fault] = &faults("control.listen = \"127.0.0.1:0\"\nmemroy = 1")[..] else { panic!() };
        assert!(fault.contains("unknown setting `memroy`; did you mean `memory`?"), "{fault}");
    }

    #[test]
    fn a_state_on_etcd_is_for_a_build_with_it() {
        let text = |etcd: &str| format!("control.listen = \"127.0.0.1:0\"\ncontrol.etcd = {etcd}");
        let good = text("{ endpoints = [\"http://e1:2379\", \"http://e2:2379\"] }");
        if cfg!(feature = "etcd") {
            assert!(read_alone(&good, "t.toml").is_ok());
        } else {
            let [fault] = &faults(&good)[..] else { panic!("more than one fault") };
            assert!(fault.contains("is for a build with etcd, and this one has none"), "{fault}");
        }
        for (etcd, says) in [
            ("{ endpoints = [\"e1:2379\"] }", "a member of etcd is http:// or https://"),
            ("{ endpoints = [] }", "has 0 members; write 1 to 16"),
            ("{ endpoints = [\"http://e1:1\", \"https://e2:1\"] }", "write one of them for all"),
            ("{ endpoints = [\"https://e1:1\"] }", "`control.etcd.ca` is missing"),
            ("{ endpoints = [\"http://e1:1\"], user = \"u\" }", "go together"),
            ("{ endpoints = [\"http://e1:1\"], cert = \"nowhere.pem\" }", "cannot be read"),
        ] {
            let faults = faults(&text(etcd));
            assert!(faults.iter().any(|fault| fault.contains(says)), "{etcd}: {faults:#?}");
        }
    }
}
