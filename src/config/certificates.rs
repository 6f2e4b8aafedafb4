//! Certificates and their keys: read, matched, and found by the name a viewer asks for.
//!
//! A chain that cannot be read or whose key is another's is a fault of the configuration. The
//! first certificate is shown to viewers who ask for a name that none is for, or for no name.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use httpdate::fmt_http_date;
use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{Error as PemError, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::limits::CERTIFICATES_MAX;
use crate::site::Sites;

use super::acme::{self, Acme, Managed};
use super::error::{ConfigError, Place, cause};
use super::listeners::{Listener, ListenerKind};
use super::names::names_of;
use super::raw::Section;
use super::setting::Setting;
use super::validity::Validity;
use super::{Config, sites};

/// One certificate chain with its key.
#[derive(Clone)]
pub struct Certificate {
    /// The file of the chain.
    pub path: PathBuf,
    /// The file of the key.
    pub key_path: PathBuf,
    /// Host names and addresses the certificate is for, lower case, `*.example.com` among them.
    pub names: Vec<String>,
    /// The chain and the key, as rustls wants them.
    pub key: Arc<CertifiedKey>,
    /// Where it is configured, if it is.
    pub place: Option<Place>,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("path", &self.path).field("names", &self.names).finish()
    }
}

/// Every certificate, found by name.
#[derive(Clone, Debug, Default)]
pub struct Certificates {
    configured: Vec<Configured>,
    /// Which of them.
    by_name: HashMap<String, usize>,
    acme: Option<Arc<Acme>>,
}

/// One of the array `certificates`.
#[derive(Clone, Debug)]
struct Configured {
    /// The file of the chain.
    path: PathBuf,
    /// Where it is wanted of an authority: what for.
    managed: Option<Managed>,
    /// Nothing as long as the authority has not issued it.
    found: Option<Certificate>,
}

impl From<Certificate> for Configured {
    fn from(found: Certificate) -> Configured {
        Configured { path: found.path.clone(), managed: None, found: Some(found) }
    }
}

impl Certificates {
    /// Those that are in files.
    pub fn new(all: Vec<Certificate>) -> Certificates {
        Certificates::of(all.into_iter().map(Configured::from).collect(), None)
    }

    /// Indexes them by name; of two for one name the first is found.
    fn of(configured: Vec<Configured>, acme: Option<Arc<Acme>>) -> Certificates {
        let mut by_name = HashMap::new();
        for (index, one) in configured.iter().enumerate() {
            for name in one.found.iter().flat_map(|found| &found.names) {
                by_name.entry(name.clone()).or_insert(index);
            }
        }
        Certificates { configured, by_name, acme }
    }

    /// The same, with what `renewed` makes of each that is there.
    pub fn each(&self, mut renewed: impl FnMut(&Certificate) -> Certificate) -> Certificates {
        let mut configured = self.configured.clone();
        for found in configured.iter_mut().filter_map(|one| one.found.as_mut()) {
            *found = renewed(found);
        }
        Certificates::of(configured, self.acme.clone())
    }

    /// With `one` in its place, if its file is one of those configured.
    pub fn with(&self, one: Certificate) -> Certificates {
        let mut configured = self.configured.clone();
        if let Some(known) = configured.iter_mut().find(|known| known.path == one.path) {
            known.found = Some(one);
        }
        Certificates::of(configured, self.acme.clone())
    }

    /// The certificate for `server_name` (lower case), else the first; `None` if there are none.
    pub fn find(&self, server_name: Option<&str>) -> Option<&Certificate> {
        server_name.and_then(|name| self.for_name(name)).or_else(|| self.iter().next())
    }

    /// The certificate that is for `name` itself or for its wildcard.
    fn for_name(&self, name: &str) -> Option<&Certificate> {
        let wildcard = || {
            let (_, parent) = name.split_once('.')?;
            self.by_name.get(&format!("*.{parent}"))
        };
        let index = self.by_name.get(name).or_else(wildcard)?;
        self.configured[*index].found.as_ref()
    }

    /// Whether some certificate is for a site's host; `*` is for nobody to tell.
    pub(super) fn cover(&self, host: &str) -> bool {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let wildcard = host.split_once('.').map(|(_, parent)| format!("*.{parent}"));
        let is_wanted = |name: &String| name == host || Some(name) == wildcard.as_ref();
        host == "*"
            || self.for_name(host).is_some()
            || self.managed().any(|one| one.names.iter().any(is_wanted))
    }

    /// Those that are wanted of an authority, whether or not they are there.
    pub fn managed(&self) -> impl Iterator<Item = &Managed> {
        self.configured.iter().filter_map(|one| one.managed.as_ref())
    }

    /// Whether one is ordered anew of an authority where it expires.
    pub fn is_ordered(&self, one: &Certificate) -> bool {
        self.managed().any(|managed| managed.path == one.path)
    }

    /// The authority.
    pub fn acme(&self) -> Option<&Arc<Acme>> {
        self.acme.as_ref()
    }

    /// All that are there, in the order they were configured.
    pub fn iter(&self) -> impl Iterator<Item = &Certificate> {
        self.configured.iter().filter_map(|one| one.found.as_ref())
    }

    /// Whether there are none, and none will be.
    pub fn is_empty(&self) -> bool {
        self.configured.is_empty()
    }
}

impl Config {
    /// A line for each host of a site that no certificate is for, as the warnings have it; none
    /// where nothing is served over TLS.
    pub fn uncovered_hosts(&self) -> Vec<String> {
        match self.certificates.is_empty() {
            true => Vec::new(),
            false => sites::uncovered(&self.sites, |host| self.certificates.cover(host)),
        }
    }

    /// A line for each certificate that viewers refuse at this moment, as the warnings have it.
    pub fn refused_certificates(&self, now: SystemTime) -> Vec<ConfigError> {
        let refused = |one: &Certificate| {
            let why = one.judged(now)?;
            let to_do = match self.certificates.is_ordered(one) {
                true => "another is ordered when the appliance runs",
                false => "have it renewed",
            };
            let text = format!("certificate {why}, and viewers refuse it; {to_do}");
            Some(ConfigError { file: self.file.clone(), place: one.place, text })
        };
        self.certificates.iter().filter_map(refused).collect()
    }
}

/// Reads the array `certificates` of the document.
pub(super) fn read(document: &Section<'_>) -> Certificates {
    let acme = document.section("acme", acme::read).map(Arc::new);
    let all = document.each("certificates", |section| one(section, acme.as_deref()));
    if all.len() > CERTIFICATES_MAX {
        document.fail(format!("{} certificates; at most {CERTIFICATES_MAX}", all.len()));
    }
    Certificates::of(all.into_iter().flatten().collect(), acme)
}

/// Whether listeners that need certificates have them, and every host one.
pub(super) fn check(
    document: &Section<'_>,
    listeners: &[Listener],
    certificates: &Certificates,
    all_sites: &Sites,
) {
    let Some(https) = listeners.iter().find(|l| l.kind.is_tls()) else { return };
    if !document.has("certificates") {
        let kind = if https.kind == ListenerKind::Https { "an https" } else { "a steering_tls" };
        let text = format!(
            "{kind} listener needs a certificate; write `[[certificates]]` with `cert` and `key`, \
             or with `acme`"
        );
        document.source.fail_at(https.place, text);
    } else if !certificates.is_empty() && https.kind == ListenerKind::Https {
        let uncovered = sites::uncovered(all_sites, |host| certificates.cover(host));
        uncovered.into_iter().for_each(|text| document.source.warn(https.place, text));
    }
}

impl Certificate {
    /// What is in its files.
    ///
    /// # Errors
    /// One line: a file that cannot be read, or a key that is not the certificate's.
    fn read(path: PathBuf, key_path: PathBuf) -> Result<Certificate, NotRead> {
        let chain = chain_in(&path).map_err(NotRead::Chain)?;
        let key = key_in(&key_path).map_err(NotRead::Key)?;
        let certified = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider());
        let certified = certified.map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => NotRead::Pair(format!(
                "is not the key of the certificate in {}; write the one made for it",
                path.display()
            )),
            error => NotRead::Pair(format!("does not go with {}: {error}", path.display())),
        })?;
        let names = certified.cert.first().map(|der| names_of(der)).unwrap_or_default();
        Ok(Certificate { path, key_path, names, key: Arc::new(certified), place: None })
    }

    /// What is in its files now, if it may be shown in its place.
    ///
    /// # Errors
    /// One line that says why not.
    pub fn read_again(&self, now: SystemTime) -> Result<Certificate, String> {
        let again = Certificate::judged_in(&self.path, &self.key_path, now)?;
        Ok(Certificate { place: self.place, ..again })
    }

    /// What is in these files, if viewers would accept it now.
    ///
    /// # Errors
    /// One line that says why not.
    pub fn judged_in(path: &Path, key: &Path, now: SystemTime) -> Result<Certificate, String> {
        let read = Certificate::read(path.to_owned(), key.to_owned());
        let read = read.map_err(|error| match error {
            NotRead::Chain(text) | NotRead::Key(text) => text,
            NotRead::Pair(text) => format!("{} {text}", key.display()),
        })?;
        read.judged(now).map_or(Ok(read), Err)
    }

    /// When the first of its chain to expire does, if they say so.
    pub fn expires(&self) -> Option<SystemTime> {
        let validity = self.key.cert.iter().filter_map(|der| Validity::of(der));
        validity.map(|validity| validity.not_after).min()
    }

    /// Why nobody would accept it at this moment, in one line.
    pub fn judged(&self, now: SystemTime) -> Option<String> {
        let path = self.path.display();
        // The whole chain counts.
        self.key.cert.iter().filter_map(|der| Validity::of(der)).find_map(|validity| {
            let Validity { not_before, not_after } = validity;
            match () {
                () if now > not_after => {
                    Some(format!("{path} expired on {}", fmt_http_date(not_after)))
                }
                () if now < not_before => {
                    Some(format!("{path} is not valid before {}", fmt_http_date(not_before)))
                }
                () => None,
            }
        })
    }
}

/// Why there is no certificate, one line each.
enum NotRead {
    Chain(String),
    Key(String),
    /// Of the key, without the name of its file.
    Pair(String),
}

fn one(section: &Section<'_>, acme: Option<&Acme>) -> Option<Configured> {
    if let Some(setting) = section.setting("acme") {
        return one_managed(section, &setting, acme);
    }
    let cert = section.required("cert", "the path of a PEM file, the server's certificate first");
    let key = section.required("key", "the path of a PEM file with the private key");
    let (cert, key) = (cert?, key?);
    let (cert_path, key_path) = (path(&cert), path(&key));
    let (cert_path, key_path) = (cert_path?, key_path?);
    let later = [(&cert, &cert_path), (&key, &key_path)];
    if later.map(|(setting, file)| setting.is_brought_later(file)).contains(&true) {
        return None;
    }
    match Certificate::read(cert_path, key_path.clone()) {
        Ok(found) => {
            let place = Some(section.source.place(cert.at));
            return Some(Certificate { place, ..found }.into());
        }
        Err(NotRead::Chain(text)) => {
            cert.fail(format!("names {text}"));
            if let Err(text) = key_in(&key_path) {
                key.fail(format!("names {text}"));
            }
        }
        Err(NotRead::Key(text)) => key.fail(format!("names {text}")),
        Err(NotRead::Pair(text)) => key.fail(text),
    }
    None
}

/// What the authority issued before, if it is here.
fn one_managed(
    section: &Section<'_>,
    setting: &Setting<'_>,
    acme: Option<&Acme>,
) -> Option<Configured> {
    for other in ["cert", "key"].into_iter().filter_map(|key| section.setting(key)) {
        other.fail("stands beside `acme`, which says where the certificate is from; write one");
    }
    let wanted = acme::managed(setting, acme)?;
    let is_here = wanted.path.exists();
    let found = Certificate::read(wanted.path.clone(), wanted.path.clone());
    if let (Err(error), true) = (&found, is_here) {
        let (NotRead::Chain(text) | NotRead::Key(text) | NotRead::Pair(text)) = error;
        let text = format!("`{}`: what is kept is of no use: {text}", setting.name);
        section.source.warn(section.source.place(setting.at), text);
    }
    let place = Some(section.source.place(setting.at));
    let found = found.ok().map(|found| Certificate { place, ..found });
    Some(Configured { path: wanted.path.clone(), managed: Some(wanted), found })
}

/// The path that `setting` names.
pub(super) fn path(setting: &Setting<'_>) -> Option<PathBuf> {
    Some(setting.source.folder.join(setting.text()?))
}

/// The certificates in the file that `setting` names; at least one.
pub(super) fn chain(setting: &Setting<'_>) -> Option<(PathBuf, Vec<CertificateDer<'static>>)> {
    let path = path(setting)?;
    match chain_in(&path) {
        Ok(chain) => Some((path, chain)),
        Err(text) => {
            setting.fail(format!("names {text}"));
            None
        }
    }
}

fn chain_in(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, PemError> = CertificateDer::pem_slice_iter(&file(path)?).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(format!(
            "{}, which holds no certificate; a PEM file with BEGIN CERTIFICATE is wanted",
            path.display()
        )),
        Err(error) => Err(format!("{}, which is no good PEM: {error}", path.display())),
    }
}

fn key_in(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(&file(path)?).map_err(|error| match error {
        PemError::NoItemsFound => format!(
            "{}, which holds no private key; a PEM file with BEGIN PRIVATE KEY is wanted",
            path.display()
        ),
        error => format!("{}, which is no good PEM: {error}", path.display()),
    })
}

fn file(path: &Path) -> Result<Vec<u8>, String> {
    let unread = |error| format!("{}, which cannot be read: {}", path.display(), cause(&error));
    fs::read(path).map_err(unread)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(path: &str, names: &[&str]) -> Certificate {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names.clone()).unwrap();
        let chain = vec![made.cert.der().clone()];
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let key = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).unwrap();
        Certificate {
            path: PathBuf::from(path),
            key_path: PathBuf::new(),
            names,
            key: Arc::new(key),
            place: None,
        }
    }

    #[test]
    fn a_name_finds_its_certificate_then_a_wildcard_then_the_first() {
        let certificates = Certificates::new(vec![
            certificate("first", &["a.example.com"]),
            certificate("wild", &["*.example.com", "a.example.com"]),
        ]);
        let found = |name| certificates.find(name).unwrap().path.to_str().unwrap();
        assert_eq!(found(Some("a.example.com")), "first");
        assert_eq!(found(Some("b.example.com")), "wild");
        assert_eq!(found(Some("c.b.example.com")), "first");
        assert_eq!(found(None), "first");
        assert!(certificates.cover("*.example.com") && !certificates.cover("example.com"));
        assert!(Certificates::default().find(None).is_none());
    }

    #[test]
    fn what_is_issued_stands_where_it_was_configured() {
        let mut shown = Certificates::new(vec![certificate("second", &["b"])]);
        for (place, path) in [(0, "first"), (2, "third")] {
            let missing = Configured { path: path.into(), managed: None, found: None };
            shown.configured.insert(place, missing);
        }
        for issued in ["third", "first", "second"] {
            shown = shown.with(certificate(issued, &["a"]));
        }
        let paths: Vec<_> = shown.iter().filter_map(|one| one.path.to_str()).collect();
        assert_eq!(paths, ["first", "second", "third"]);
        assert_eq!(shown.find(None).unwrap().path, PathBuf::from("first"));
    }
}
