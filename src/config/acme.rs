//! Certificates that an authority issues by ACME (RFC 8555): at which, for what names, and how it
//! is shown that the names are ours. Asks nobody.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::Uri;
use rustix::fs::{Access, access};
use rustls_pki_types::CertificateDer;

use crate::limits::{ACME_CONTACTS_MAX, ACME_NAMES_MAX, TOKEN_FILE_BYTES_MAX};

use super::certificates::{Certificates, chain};
use super::error::{Place, cause};
use super::listeners::{Listener, ListenerKind};
use super::paths::folder_of;
use super::raw::Section;
use super::setting::Setting;
use super::sites;
use super::ssd::usual_state_file;

/// The section `acme`: the authority, and how it is dealt with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acme {
    /// The URL of its directory.
    pub directory: String,
    /// Whom it writes to, as `mailto:` URLs.
    pub contact: Vec<String>,
    /// How names are proved.
    pub challenge: Challenge,
    /// What writes DNS records.
    pub hook: Option<PathBuf>,
    /// Who vouches for the directory itself; `None`: whom this machine trusts.
    pub roots: Option<Vec<CertificateDer<'static>>>,
    /// A customer's account that is there already.
    pub external_account: Option<ExternalAccount>,
    /// Where the account's key and the certificates of this directory lie.
    pub folder: PathBuf,
    /// How long after a first failure it is tried again; later more.
    pub retry_after: Duration,
    /// Where the challenge is written, or should be.
    place: Place,
}

/// How an authority is shown that a name is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// It asks for a file over plain HTTP.
    Http01,
    /// It shakes hands in a protocol of its own (RFC 8737).
    TlsAlpn01,
    /// It looks up a DNS record.
    Dns01,
}

impl Challenge {
    const ALL: [(&'static str, Challenge); 3] = [
        ("http-01", Challenge::Http01),
        ("tls-alpn-01", Challenge::TlsAlpn01),
        ("dns-01", Challenge::Dns01),
    ];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, challenge)| *challenge == self);
        found.map(|(name, _)| *name).expect("every challenge has a name")
    }

    /// The listeners that the authority asks, and their port.
    pub fn asks_at(self) -> Option<(ListenerKind, u16)> {
        match self {
            Challenge::Http01 => Some((ListenerKind::Http, 80)),
            Challenge::TlsAlpn01 => Some((ListenerKind::Https, 443)),
            Challenge::Dns01 => None,
        }
    }
}

/// What an authority gave its customer to open an account with.
#[derive(Clone, PartialEq, Eq)]
pub struct ExternalAccount {
    /// Which key.
    pub id: String,
    /// The key, in base64url.
    pub key: String,
}

impl fmt::Debug for ExternalAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExternalAccount").field("id", &self.id).finish_non_exhaustive()
    }
}

/// One certificate that is wanted of the authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Managed {
    /// What it is to be for, lower case.
    pub names: Vec<String>,
    /// The file with chain and key.
    pub path: PathBuf,
    place: Place,
}

/// Reads the section `acme`; nothing if it was not written.
pub(super) fn read(section: &Section<'_>) -> Option<Acme> {
    let terms = section.setting("terms");
    let place = section.source.place(terms.as_ref().map_or(section.at, |setting| setting.at));
    let directory = directory(section);
    let state = section.setting("state").and_then(|setting| state(&setting));
    let state = state.unwrap_or_else(|| folder_of(&usual_state_file()).join("acme"));
    let (challenge, challenge_place) = match section.setting("challenge") {
        Some(setting) => {
            let place = section.source.place(setting.at);
            (section.choice("challenge", Challenge::Http01, &Challenge::ALL), place)
        }
        None => (Challenge::Http01, place),
    };
    let acme = Acme {
        contact: contact(section),
        challenge,
        hook: section.setting("hook").and_then(|setting| hook(&setting)),
        roots: section.setting("ca").and_then(|setting| chain(&setting)).map(|(_, roots)| roots),
        external_account: external_account(section),
        folder: state.join(folder_name(&directory)),
        retry_after: section
            .unlisted("retry_after")
            .and_then(|setting| setting.duration(Duration::ZERO..=RETRY_AFTER))
            .unwrap_or(RETRY_AFTER),
        directory,
        place: challenge_place,
    };
    if !section.is_written() {
        return None;
    }
    if !cfg!(feature = "acme") {
        section.fail(format!("`acme` {OTHER_BUILD}"));
        return None;
    }
    match terms.as_ref().map(|setting| (setting, setting.text())) {
        Some((_, Some("agreed"))) => {}
        Some((setting, Some(text))) => setting.fail(format!("is {text:?}; {AGREE}")),
        Some((_, None)) => {}
        None => section.fail(format!("`acme.terms` is missing; {AGREE}")),
    }
    if acme.challenge == Challenge::Dns01 && !section.has("hook") {
        let text = "`acme.hook` is missing; \"dns-01\" needs a program that writes DNS records";
        section.source.fail_at(acme.place, text);
    }
    if let (Some(setting), true) = (section.setting("hook"), acme.challenge != Challenge::Dns01) {
        let word = acme.challenge.as_str();
        let text = format!("`acme.hook` is not used: `acme.challenge` is {word:?}, not \"dns-01\"");
        setting.source.warn(setting.source.place(setting.at), text);
    }
    Some(acme)
}

const OTHER_BUILD: &str = "is for a build with the feature `acme`, which this is not; name files \
                           with `cert` and `key`";
const AGREE: &str =
    "read the authority's terms of service, and write `terms = \"agreed\"` if you do";

fn directory(section: &Section<'_>) -> String {
    let Some((setting, text)) = section.setting("directory").and_then(Setting::with_text) else {
        return LETS_ENCRYPT.to_owned();
    };
    let is_good = text.parse::<Uri>().is_ok_and(|uri| uri.scheme_str() == Some("https"));
    if !is_good {
        setting.fail(format!("is {text:?}; a URL such as {LETS_ENCRYPT:?}"));
    }
    text.to_owned()
}

/// Certificates of one authority never stand for another's.
fn folder_name(directory: &str) -> String {
    let name = directory.trim_start_matches("https://");
    let letter = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
    name.chars().map(letter).collect::<String>().trim_start_matches('.').to_owned()
}

fn state(setting: &Setting<'_>) -> Option<PathBuf> {
    let path = setting.source.folder.join(setting.text()?);
    if !path.is_dir() && !folder_of(&path).is_dir() {
        setting.fail(format!("is {:?}; a folder that exists, or one to make in one", path));
    }
    Some(path)
}

fn contact(section: &Section<'_>) -> Vec<String> {
    let Some(setting) = section.setting("contact") else { return Vec::new() };
    let texts = setting.texts();
    if texts.len() > ACME_CONTACTS_MAX {
        setting.fail(format!("has {} addresses; at most {ACME_CONTACTS_MAX}", texts.len()));
    }
    let mut contact = Vec::new();
    for (setting, text) in texts {
        let is_address = text.split_once('@').is_some_and(|(user, host)| {
            !user.is_empty() && !host.is_empty() && !text.contains([' ', ',', ':', '?'])
        });
        if !is_address {
            setting.fail(format!("is {text:?}; a mail address such as \"ops@example.com\""));
        }
        contact.push(format!("mailto:{text}"));
    }
    contact
}

fn hook(setting: &Setting<'_>) -> Option<PathBuf> {
    let path = setting.source.folder.join(setting.text()?);
    let shown = path.display();
    match access(&path, Access::EXEC_OK) {
        Ok(()) if path.is_file() => {}
        Ok(()) => setting.fail(format!("names {shown}, which is no program")),
        Err(error) => {
            let why = cause(&error.into());
            setting.fail(format!("names {shown}, which cannot be run: {why}"));
        }
    }
    // It is run in another folder.
    Some(super::paths::absolute(&path))
}

fn external_account(section: &Section<'_>) -> Option<ExternalAccount> {
    section.setting("external_account").and_then(|setting| {
        Section::of(&setting, |section| {
            let id = section.required("id", "the id that the authority gave you");
            let file = section.required("key_file", "the path of a file with the key it gave you");
            let (id, file) = (id.and_then(|setting| setting.text()), file?);
            let path = section.source.folder.join(file.text()?);
            if file.is_brought_later(&path) {
                return None;
            }
            let key = match fs::read_to_string(&path) {
                Ok(text) => text.trim().trim_end_matches('=').to_owned(),
                Err(error) => {
                    let why = cause(&error);
                    file.fail(format!("names {}, which cannot be read: {why}", path.display()));
                    return None;
                }
            };
            if key.len() > TOKEN_FILE_BYTES_MAX || !is_base64url(&key) {
                let path = path.display();
                file.fail(format!("names {path}, which holds no key in base64url on one line"));
            }
            Some(ExternalAccount { id: id?.to_owned(), key })
        })
    })
}

/// Whether it is the only way to write what it stands for (RFC 4648 section 3.5), and that is not
/// nothing.
fn is_base64url(key: &str) -> bool {
    BASE64_URL_SAFE_NO_PAD.decode(key).is_ok_and(|decoded| !decoded.is_empty())
}

/// Reads `acme` of a certificate: the names it is to be for.
pub(super) fn managed(setting: &Setting<'_>, acme: Option<&Acme>) -> Option<Managed> {
    let place = setting.source.place(setting.at);
    let texts = setting.texts();
    if texts.is_empty() || texts.len() > ACME_NAMES_MAX {
        setting.fail(format!("has {} names; 1 to {ACME_NAMES_MAX}", texts.len()));
    }
    let mut names: Vec<String> = Vec::new();
    for (setting, text) in texts {
        match name(text) {
            Ok(name) => {
                if !name.contains('.') {
                    let text = format!(
                        "`{}` is {text:?}, which has no dot; public authorities issue no \
                         certificate for it",
                        setting.name
                    );
                    setting.source.warn(setting.source.place(setting.at), text);
                }
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            Err(why) => setting.fail(format!("is {text:?}; {why}")),
        }
    }
    let Some(acme) = acme else {
        setting.fail(match cfg!(feature = "acme") {
            true => "needs a section `[acme]`, with `terms = \"agreed\"`",
            false => OTHER_BUILD,
        });
        return None;
    };
    let file = format!("{}.pem", names.first()?.replace('*', "_"));
    Some(Managed { path: acme.folder.join(file), names, place })
}

/// A name that a certificate can be ordered for, or what is to be written in its place.
fn name(text: &str) -> Result<String, &'static str> {
    if !text.is_ascii() {
        return Err("write it in its xn-- form, as DNS has it");
    }
    match sites::host_in(text) {
        Some(name) if name == "*" => Err("no certificate is for all names; write them out"),
        Some(name) if name.starts_with('[') || name.parse::<IpAddr>().is_ok() => {
            Err("certificates are ordered for names alone; write one, or name files for an address")
        }
        Some(name) => Ok(name),
        None => Err("a name is \"video.example.com\" or \"*.example.com\", without scheme, port \
                     or path"),
    }
}

/// Whether the authority can be shown what it asks for.
pub(super) fn check(document: &Section<'_>, listeners: &[Listener], certificates: &Certificates) {
    let Some(acme) = certificates.acme() else { return };
    let word = acme.challenge.as_str();
    if let Some((kind, port)) = acme.challenge.asks_at()
        && !listeners.iter().any(|one| one.kind == kind)
    {
        let text = format!(
            "`acme.challenge` {word:?} needs a listener at `listeners.{}`, where the authority \
             asks (port {port}); write one, or choose another challenge",
            kind.name()
        );
        document.source.fail_at(acme.place, text);
    }
    let mut taken: HashMap<&Path, Place> = HashMap::new();
    for managed in certificates.managed() {
        let wildcard = managed.names.iter().find(|name| name.starts_with("*."));
        if let (Some(name), true) = (wildcard, acme.challenge != Challenge::Dns01) {
            let text = format!(
                "`certificates.acme` has {name:?}, and {word:?} proves no wildcard; write \
                 `acme.challenge = \"dns-01\"`"
            );
            document.source.fail_at(managed.place, text);
        }
        if let Some(Place { line, column }) = taken.insert(&managed.path, managed.place) {
            let name = &managed.names[0];
            let text = format!(
                "`certificates.acme` begins with {name:?} as at {line}:{column}; each with \
                 another name"
            );
            document.source.fail_at(managed.place, text);
        }
    }
}

/// An authority that anybody may ask.
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
/// Unless a test says less.
const RETRY_AFTER: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_written_in_one_way() {
        for key in ["AA", "AAA", "AAAA", "_-8", "aGVsbG8", "Zm9vYg"] {
            assert!(is_base64url(key), "{key}");
        }
        for other in ["", "A", "AB", "AAB", "AAAAA", "Zm9vYh", "AA AA", "AA+A", "AA/A", "AA=="] {
            assert!(!is_base64url(other), "{other}");
        }
    }
}
