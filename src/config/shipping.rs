//! Where access-log lines are shipped to, and where they wait for it.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

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
    pub url: Uri,
    /// Sent with it. Their values may be secrets: never shown.
    pub fields: Vec<(HeaderName, HeaderValue)>,
    /// What they are read from, again when the receiver does not know them.
    pub fields_file: Option<PathBuf>,
    /// The only certification authorities trusted; `None`: the system's.
    pub roots: Option<Vec<CertificateDer<'static>>>,
    /// Where batches wait.
    pub spool: SpoolSettings,
}

/// Reads the section `log.ship`.
pub(super) fn read(section: &Section<'_>) -> Option<Shipping> {
    let written = section.setting("url");
    if written.is_none() && SETTINGS.iter().any(|key| section.has(key)) {
        section.fail("`log.ship.url` is missing; write that of a receiver, or leave out all of it");
    }
    let url = written.and_then(|setting| url(&setting));
    let fields = section.setting("headers_file").and_then(|setting| fields(&setting));
    let (fields, fields_file) = fields.unzip();
    let ca = section.setting("ca");
    if let Some(ca) = &ca
        && url.as_ref().is_some_and(|url| url.scheme_str() == Some("http"))
    {
        let text = "`log.ship.ca` is of no use: `log.ship.url` is http://, which trusts anybody";
        section.source.warn(section.source.place(ca.at), text);
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
    let (batch_bytes, batch_lines, batch_period) = section.section("batch", |batch| {
        let seconds = Duration::from_secs;
        (
            batch.bytes("bytes", 1 << 20, 1 << 10..=SHIPPING_BATCH_BYTES_MAX),
            batch.count("lines", 10_000, 1..=1_000_000),
            batch.duration("period", seconds(5), Duration::from_millis(100)..=seconds(3_600)),
        )
    });
    if section.is_written() && spool < 2 * batch_bytes {
        section.fail("`log.ship.spool` has no room for two batches; raise it, or lower `batch`");
    }
    let bytes_max = spool;
    let spool = SpoolSettings { folder, bytes_max, batch_bytes, batch_lines, batch_period };
    Some(Shipping { url: url?, fields: fields.unwrap_or_default(), fields_file, roots, spool })
}

/// Whether this user may write there, or make the folder; makes nothing.
fn can_hold(folder: &Path) -> io::Result<()> {
    let there = folder.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    if !there.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    Ok(access(there, Access::WRITE_OK | Access::EXEC_OK)?)
}

fn url(setting: &Setting<'_>) -> Option<Uri> {
    let text = setting.text()?;
    let url = text.parse::<Uri>().ok().filter(|url| {
        let is_http = matches!(url.scheme_str(), Some("http" | "https"));
        is_http && url.authority().is_some_and(|host| !host.as_str().contains('@'))
    });
    if url.is_none() {
        setting.fail(format!(
            "is {text:?}; write http:// or https://, a host and a path, without user"
        ));
    }
    url
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

#[cfg(test)]
mod tests {
    use super::super::{Config, Machine};

    #[test]
    fn an_authority_where_nobody_is_asked_who_he_is_gets_a_warning() {
        let folder = tempfile::tempdir().unwrap();
        let ca = folder.path().join("ca.pem");
        let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
        std::fs::write(&ca, made.cert.pem()).unwrap();
        let warnings = |scheme: &str| {
            let text = format!(
                "listeners.http = \"[::1]:0\"\n\
                 log.ship = {{ url = \"{scheme}://a.test/\", ca = {ca:?} }}\n\
                 [[sites]]\nname = \"s\"\nhosts = \"a\"\norigins = \"http://o\"\n"
            );
            let machine = Machine { cores: 4, memory_bytes: Some(16 << 30) };
            let config = Config::on_machine(&text, "t.toml", &machine).unwrap();
            config.warnings.iter().filter(|it| it.to_string().contains("`log.ship.ca`")).count()
        };
        assert_eq!(["http", "https"].map(warnings), [1, 0]);
    }
}
