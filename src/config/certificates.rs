//! Certificates and their keys: read, matched, and found by the name a viewer asks for.
//!
//! A chain that cannot be read or whose key is another's is a fault of the configuration. The
//! first certificate is shown to viewers who ask for a name that none is for, or for no name.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{Error as PemError, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::limits::CERTIFICATES_MAX;

use super::error::cause;
use super::names::names_of;
use super::raw::Section;
use super::setting::Setting;
use super::{Config, sites};

/// One certificate chain with its key.
#[derive(Clone)]
pub struct Certificate {
    /// The file of the chain.
    pub path: PathBuf,
    /// Host names and addresses the certificate is for, lower case, `*.example.com` among them.
    pub names: Vec<String>,
    /// The chain and the key, as rustls wants them.
    pub key: Arc<CertifiedKey>,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("path", &self.path).field("names", &self.names).finish()
    }
}

/// Every certificate, found by name.
#[derive(Clone, Debug, Default)]
pub struct Certificates {
    all: Vec<Certificate>,
    by_name: HashMap<String, usize>,
}

impl Certificates {
    /// Indexes `all`; of two for one name the first is found.
    pub fn new(all: Vec<Certificate>) -> Certificates {
        let mut by_name = HashMap::new();
        for (index, certificate) in all.iter().enumerate() {
            for name in &certificate.names {
                by_name.entry(name.clone()).or_insert(index);
            }
        }
        Certificates { all, by_name }
    }

    /// The certificate for `server_name` (lower case), else the first; `None` if there are none.
    pub fn find(&self, server_name: Option<&str>) -> Option<&Certificate> {
        server_name.and_then(|name| self.for_name(name)).or(self.all.first())
    }

    /// The certificate that is for `name` itself or for its wildcard.
    fn for_name(&self, name: &str) -> Option<&Certificate> {
        let wildcard = || {
            let (_, parent) = name.split_once('.')?;
            self.by_name.get(&format!("*.{parent}"))
        };
        let index = self.by_name.get(name).or_else(wildcard)?;
        self.all.get(*index)
    }

    /// Whether some certificate is for a site's host; `*` is for nobody to tell.
    pub(super) fn cover(&self, host: &str) -> bool {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        host == "*" || self.for_name(host).is_some()
    }

    /// All of them, in the order they were configured.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Certificate> {
        self.all.iter()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
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
}

/// Reads the array `certificates` of the document.
pub(super) fn read(document: &Section<'_>) -> Certificates {
    let all = document.each("certificates", one);
    if all.len() > CERTIFICATES_MAX {
        document.fail(format!("{} certificates; at most {CERTIFICATES_MAX}", all.len()));
    }
    Certificates::new(all.into_iter().flatten().collect())
}

fn one(section: &Section<'_>) -> Option<Certificate> {
    let cert = section.required("cert", "the path of a PEM file, the server's certificate first");
    let key = section.required("key", "the path of a PEM file with the private key");
    let (cert, key) = (cert?, key?);
    let (chain, private) = (chain(&cert), private_key(&key));
    let ((path, chain), private) = (chain?, private?);
    match CertifiedKey::from_der(chain, private, &aws_lc_rs::default_provider()) {
        Ok(certified) => {
            let names = certified.cert.first().map(|der| names_of(der)).unwrap_or_default();
            Some(Certificate { path, names, key: Arc::new(certified) })
        }
        Err(rustls::Error::InconsistentKeys(_)) => {
            let of = path.display();
            key.fail(format!(
                "is not the key of the certificate in {of}; write the one made for it"
            ));
            None
        }
        Err(error) => {
            key.fail(format!("does not go with {}: {error}", path.display()));
            None
        }
    }
}

/// The certificates in the file that `setting` names; at least one.
pub(super) fn chain(setting: &Setting<'_>) -> Option<(PathBuf, Vec<CertificateDer<'static>>)> {
    let (path, pem) = file(setting)?;
    let chain: Result<Vec<_>, PemError> = CertificateDer::pem_slice_iter(&pem).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Some((path, chain)),
        Ok(_) => {
            setting.fail(format!(
                "names {}, which holds no certificate; a PEM file with BEGIN CERTIFICATE is wanted",
                path.display()
            ));
            None
        }
        Err(error) => {
            setting.fail(format!("names {}, which is no good PEM: {error}", path.display()));
            None
        }
    }
}

fn private_key(setting: &Setting<'_>) -> Option<PrivateKeyDer<'static>> {
    let (path, pem) = file(setting)?;
    match PrivateKeyDer::from_pem_slice(&pem) {
        Ok(key) => Some(key),
        Err(PemError::NoItemsFound) => {
            setting.fail(format!(
                "names {}, which holds no private key; a PEM file with BEGIN PRIVATE KEY is wanted",
                path.display()
            ));
            None
        }
        Err(error) => {
            setting.fail(format!("names {}, which is no good PEM: {error}", path.display()));
            None
        }
    }
}

fn file(setting: &Setting<'_>) -> Option<(PathBuf, Vec<u8>)> {
    let path = setting.source.folder.join(setting.text()?);
    match fs::read(&path) {
        Ok(bytes) => Some((path, bytes)),
        Err(error) => {
            setting.fail(format!(
                "names {}, which cannot be read: {}",
                path.display(),
                cause(&error)
            ));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_finds_its_certificate_then_a_wildcard_then_the_first() {
        let certificate = |path: &str, names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let made = rcgen::generate_simple_self_signed(names.clone()).unwrap();
            let chain = vec![made.cert.der().clone()];
            let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
            let key = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).unwrap();
            Certificate { path: PathBuf::from(path), names, key: Arc::new(key) }
        };
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
}
