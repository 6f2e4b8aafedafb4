//! Where access-log lines are shipped to, and where they wait for it.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::uri::Authority;
use http::{HeaderName, HeaderValue, Uri};
use rustix::fs::{Access, access};
use rustls_pki_types::CertificateDer;

use super::error::cause;
use super::origins::roots;
use super::raw::Section;
use super::setting::Setting;
use super::{paths, usual_state_file};
use crate::access_log::SpoolSettings;
use crate::limits::{SHIPPING_BATCH_BYTES_MAX, SHIPPING_HEADERS_BYTES_MAX};

/// The section `log.ship`, where it names a receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shipping {
    /// Who is sent each batch.
    pub receiver: Receiver,
    /// Sent with it. Their values may be secrets: never shown.
    pub fields: Vec<(HeaderName, HeaderValue)>,
    /// What they are read from, again when the receiver does not know them.
    pub fields_file: Option<PathBuf>,
    /// The only certification authorities trusted; `None`: the system's.
    pub roots: Option<Vec<CertificateDer<'static>>>,
    /// Where batches wait.
    pub spool: SpoolSettings,
}

/// Who is sent batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Receiver {
    /// Who is asked by POST.
    Http(Uri),
    /// A topic of Kafka; a message for each line.
    Kafka {
        /// Host and perhaps port of each broker that is asked for the others.
        brokers: Vec<String>,
        /// Where the lines go.
        topic: String,
    },
}

impl Receiver {
    /// What he is called in the log: no path, which may hold a secret.
    pub fn name(&self) -> String {
        match self {
            Receiver::Http(url) => url.authority().map_or_else(String::new, Authority::to_string),
            Receiver::Kafka { brokers, topic } => format!("{topic} of {}", brokers.join(",")),
        }
    }

    /// Whether who he is, is not looked at.
    fn trusts_anybody(&self) -> Option<&'static str> {
        match self {
            Receiver::Http(url) if url.scheme_str() == Some("https") => None,
            Receiver::Http(_) => Some("http://"),
            Receiver::Kafka { .. } => Some(KAFKA),
        }
    }
}

/// As `url` has it.
impl fmt::Display for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Receiver::Http(url) => url.fmt(f),
            Receiver::Kafka { brokers, topic } => {
                write!(f, "{KAFKA}{}/{topic}", brokers.join(","))
            }
        }
    }
}

/// Reads the section `log.ship`.
pub(super) fn read(section: &Section<'_>) -> Option<Shipping> {
    let written = section.setting("url");
    if written.is_none() && SETTINGS.iter().any(|key| section.has(key)) {
        section.fail("`log.ship.url` is missing; write that of a receiver, or leave out all of it");
    }
    let receiver = written.and_then(|setting| receiver(&setting));
    let fields_file = section.setting("headers_file");
    if let (Some(setting), Some(Receiver::Kafka { .. })) = (&fields_file, &receiver) {
        let text = "`log.ship.headers_file` is of no use: Kafka is sent no fields";
        section.source.warn(section.source.place(setting.at), text);
    }
    let fields = fields_file.and_then(|setting| fields(&setting));
    let (fields, fields_file) = fields.unzip();
    let ca = section.setting("ca");
    if let Some(ca) = &ca
        && let Some(scheme) = receiver.as_ref().and_then(Receiver::trusts_anybody)
    {
        section.source.warn(
            section.source.place(ca.at),
            format!("`log.ship.ca` is of no use: `log.ship.url` is {scheme}, which trusts anybody"),
        );
    }
    let roots = ca.and_then(roots);
    let spool = section.bytes("spool", 256 << 20, 64 << 10..=1 << 40);
    let folder = section.setting("folder").and_then(Setting::with_text);
    let folder = match folder {
        Some((setting, text)) => {
            let folder = section.source.folder.join(text);
            if let Err(error) = can_hold(&folder) {
                let why = cause(&error);
                setting.fail(format!("is {text:?}: {why}; name a folder that this user may write"));
            }
            folder
        }
        None => paths::folder_of(&usual_state_file()).join("log-spool"),
    };
    let (batch_bytes, batch_period) = section.section("batch", |batch| {
        let seconds = Duration::from_secs;
        (
            batch.bytes("bytes", 1 << 20, 1 << 10..=SHIPPING_BATCH_BYTES_MAX),
            batch.duration("period", seconds(5), Duration::from_millis(100)..=seconds(3_600)),
        )
    });
    if section.is_written() && spool < 2 * batch_bytes {
        section.fail("`log.ship.spool` has no room for two batches; raise it, or lower `batch`");
    }
    let bytes_max = spool;
    let spool = SpoolSettings { folder, bytes_max, batch_bytes, batch_period };
    let receiver = receiver?;
    Some(Shipping { receiver, fields: fields.unwrap_or_default(), fields_file, roots, spool })
}

/// Whether this user may write there, or make the folder; makes nothing.
fn can_hold(folder: &Path) -> io::Result<()> {
    let there = folder.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    if !there.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    Ok(access(there, Access::WRITE_OK | Access::EXEC_OK)?)
}

fn receiver(setting: &Setting<'_>) -> Option<Receiver> {
    let text = setting.text()?;
    if let Some(rest) = text.strip_prefix(KAFKA) {
        let kafka = kafka(rest);
        if kafka.is_none() {
            setting.fail(format!(
                "is {text:?}; write kafka://HOST:9092/TOPIC, or more brokers with commas between \
                 them, without user"
            ));
        } else if !cfg!(feature = "kafka") {
            setting.fail(format!("is {text:?}, and {OTHER_BUILD}"));
        }
        return kafka;
    }
    let url = text.parse::<Uri>().ok().filter(|url| {
        let is_http = matches!(url.scheme_str(), Some("http" | "https"));
        is_http && url.authority().is_some_and(|host| !host.as_str().contains('@'))
    });
    if url.is_none() {
        setting.fail(format!(
            "is {text:?}; write http:// or https://, a host and a path, without user"
        ));
    }
    url.map(Receiver::Http)
}

/// Brokers and topic, as Kafka lets them be called.
fn kafka(text: &str) -> Option<Receiver> {
    let (brokers, topic) = text.split_once('/')?;
    let is_named = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let is_topic = (1..=TOPIC_LETTERS_MAX).contains(&topic.len())
        && topic.chars().all(is_named)
        && !matches!(topic, "." | "..");
    let is_broker =
        |broker: &str| broker.parse::<Authority>().is_ok_and(|host| !host.as_str().contains('@'));
    let brokers: Vec<_> = brokers.split(',').map(str::to_owned).collect();
    let is_kafka = is_topic && brokers.iter().all(|broker| is_broker(broker));
    is_kafka.then(|| Receiver::Kafka { brokers, topic: topic.to_owned() })
}

/// What `headers_file` names, and that file.
fn fields(setting: &Setting<'_>) -> Option<(Vec<(HeaderName, HeaderValue)>, PathBuf)> {
    let path = setting.source.folder.join(setting.text()?);
    if setting.is_brought_later(&path) {
        return None;
    }
    match shipped_fields(&path) {
        Ok(fields) => Some((fields, path)),
        Err(why) => {
            setting.fail(format!("names {why}"));
            None
        }
    }
}

/// Lines such as `Authorization: Bearer ...`.
///
/// # Errors
/// The file, and why it cannot be used.
pub fn shipped_fields(path: &Path) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let mut text = String::new();
    let most = SHIPPING_HEADERS_BYTES_MAX;
    let file = path.display();
    File::open(path)
        .and_then(|it| it.take(most + 1).read_to_string(&mut text))
        .map_err(|error| format!("{file}, which cannot be read: {}", cause(&error)))?;
    if text.len() as u64 > most {
        return Err(format!("{file}, which has more than {most} bytes"));
    }
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let field = |(number, line): (usize, &str)| -> Result<_, String> {
        let (name, value) = line.split_once(':').unwrap_or((line, "\0"));
        let name = HeaderName::from_bytes(name.trim().as_bytes()).ok();
        let field = name.zip(HeaderValue::from_str(value.trim()).ok());
        let (name, mut value) = field
            .ok_or_else(|| format!("{file}, whose line {} is no `Name: value`", number + 1))?;
        value.set_sensitive(true);
        Ok((name, value))
    };
    lines.map(field).collect()
}

/// Those that mean nothing without `url`.
const SETTINGS: [&str; 5] = ["headers_file", "ca", "spool", "folder", "batch"];
/// How `url` begins for brokers.
const KAFKA: &str = "kafka://";
const OTHER_BUILD: &str = "this build has no Kafka; build one by `cargo build --release --features \
                           kafka`, or write http:// or https://";
/// Kafka's bound on the name of a topic.
const TOPIC_LETTERS_MAX: usize = 249;

#[cfg(test)]
mod tests {
    use super::super::{Config, ConfigErrors, Machine};
    use super::*;

    fn config(ship: &str) -> Result<Config, ConfigErrors> {
        let text = format!(
            "listeners.http = \"[::1]:0\"\n{ship}\n\
             [[sites]]\nname = \"s\"\nhosts = \"a\"\norigins = \"http://o\"\n"
        );
        let machine = Machine { cores: 4, memory_bytes: Some(16 << 30) };
        Config::on_machine(&text, "t.toml", &machine)
    }

    #[test]
    fn what_is_of_no_use_to_a_receiver_gets_a_warning() {
        let folder = tempfile::tempdir().unwrap();
        let (ca, fields) = (folder.path().join("ca.pem"), folder.path().join("headers"));
        let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
        std::fs::write(&ca, made.cert.pem()).unwrap();
        std::fs::write(&fields, "A: b\n").unwrap();
        let warnings = |url: &str| {
            let with = format!("ca = {ca:?}, headers_file = {fields:?}");
            let config = config(&format!("log.ship = {{ url = \"{url}\", {with} }}")).unwrap();
            let of = |name: &str| {
                config.warnings.iter().filter(|it| it.to_string().contains(name)).count()
            };
            [of("`log.ship.ca`"), of("`log.ship.headers_file`")]
        };
        assert_eq!(["http://a.test/", "https://a.test/"].map(warnings), [[1, 0], [0, 0]]);
        if cfg!(feature = "kafka") {
            assert_eq!(warnings("kafka://a.test/access"), [1, 1]);
        }
    }

    #[test]
    fn brokers_and_a_topic_are_for_a_build_with_kafka() {
        let url = "kafka://one.test:9092,[::1]:9093,two.test/access_log-1";
        let config = config(&format!("log.ship.url = {url:?}"));
        if cfg!(feature = "kafka") {
            let receiver = config.unwrap().log.shipping.unwrap().receiver;
            let brokers = ["one.test:9092", "[::1]:9093", "two.test"].map(str::to_owned).to_vec();
            assert_eq!(receiver, Receiver::Kafka { brokers, topic: "access_log-1".to_owned() });
            assert_eq!(receiver.to_string(), url);
        } else {
            let text = format!(
                "t.toml:2:16: `log.ship.url` is {url:?}, and this build has no Kafka; build one by \
                 `cargo build --release --features kafka`, or write http:// or https://"
            );
            assert_eq!(config.unwrap_err().to_string(), text);
        }
    }
}
