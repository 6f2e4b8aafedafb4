//! What a box is known by, and whom it believes: its private key, which is made here and never
//! leaves, the certificate that the control plane gave it for that, and what snapshots are signed
//! by.
//!
//! All lie in one file of the state folder, so that none is ever there without the others.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, KeyPair};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use serde::{Deserialize, Serialize};

use super::folder;
use crate::control::issuer::subject;
use crate::control::plane::wire;
use crate::control::snapshot::PublicKeys;
use crate::limits::FLEET_ANSWER_BYTES_MAX;
use crate::moment::unix_seconds;

/// A box that was enrolled, as it is kept.
#[derive(Serialize, Deserialize)]
pub(super) struct Kept {
    /// Its private key, PEM.
    pub(super) key_pem: String,
    /// What it was given for that.
    pub(super) given: wire::Identity,
}

/// The same as it is used.
#[derive(Clone)]
pub(super) struct Identity {
    /// What the box is called.
    pub(super) name: String,
    /// What it shows.
    pub(super) shown: Arc<CertifiedKey>,
    /// Who has issued that.
    pub(super) ca: CertificateDer<'static>,
    /// What snapshots are verified by.
    pub(super) keys: PublicKeys,
    /// When the next one should be asked for, in seconds since 1970.
    pub(super) renew_at: u64,
    /// When it ends.
    pub(super) not_after: u64,
}

/// Why there is no identity.
#[derive(Debug)]
pub enum IdentityError {
    /// The box was never enrolled.
    Missing,
    /// The file cannot be read, or written.
    File {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// What is in it, or was given, is none.
    Content {
        /// What is wrong with it.
        what: String,
    },
    /// It is of another box.
    Name {
        /// Of which.
        of: String,
        /// As this one is called.
        wanted: String,
    },
    /// It was not issued by whom it should be.
    Issuer {
        /// Why not.
        what: String,
    },
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IdentityError::Missing => write!(
                f,
                "this box is not enrolled: `tidegate control code NAME` at the control plane, then \
                 `tidegate enrol` here"
            ),
            IdentityError::File { path, source } => {
                write!(f, "{} cannot be used: {source}", path.display())
            }
            IdentityError::Content { what } => {
                write!(f, "what the box is known by is of no use: {what}; enrol it again")
            }
            IdentityError::Name { of, wanted } => write!(
                f,
                "the box was enrolled as `{of}` and `fleet.name` is `{wanted}`: write the name \
                 that it has, or `tidegate enrol --again` by a code for the new one"
            ),
            IdentityError::Issuer { what } => {
                write!(f, "the certificate is of another authority than it should be: {what}")
            }
        }
    }
}

impl Error for IdentityError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            IdentityError::File { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Where it lies.
pub(super) fn path_in(folder: &Path) -> PathBuf {
    folder.join("identity.json")
}

/// A private key that is new, PEM, and the request for a certificate by it.
pub(super) fn new_key() -> Result<(String, String), IdentityError> {
    let made = || -> Result<(String, String), rcgen::Error> {
        let key = KeyPair::generate()?;
        let request = CertificateParams::default().serialize_request(&key)?.pem()?;
        Ok((key.serialize_pem(), request))
    };
    made().map_err(|error| content(format!("no key could be made: {error}")))
}

impl Kept {
    /// The one in a file. Blocks.
    pub(super) fn read(path: &Path) -> Result<Kept, IdentityError> {
        let bytes =
            folder::read(path, FLEET_ANSWER_BYTES_MAX).map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => IdentityError::Missing,
                _ => IdentityError::File { path: path.to_owned(), source },
            })?;
        serde_json::from_slice(&bytes)
            .map_err(|error| content(format!("{}: {error}", path.display())))
    }

    /// Its bytes.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("text and numbers can be written as JSON")
    }

    /// As it is used by the box of this name.
    pub(super) fn opened(&self, name: &str) -> Result<Identity, IdentityError> {
        let bad = |what: &str| content(what.to_owned());
        let certificate = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes());
        let own = certificate(&self.given.certificate_pem);
        let own = own.map_err(|_| bad("its certificate is none in PEM"))?;
        let ca =
            certificate(&self.given.ca_pem).map_err(|_| bad("its authority is none in PEM"))?;
        let who = subject(&own).ok_or_else(|| bad("its certificate is none of a box"))?;
        if who.name != name {
            return Err(IdentityError::Name { of: who.name, wanted: name.to_owned() });
        }
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes());
        let key = key.map_err(|_| bad("its key is none in PEM"))?;
        let provider = aws_lc_rs::default_provider();
        let shown = CertifiedKey::from_der(vec![own], key, &provider)
            .map_err(|error| content(format!("its certificate is not of its key: {error}")))?;
        let keys = PublicKeys::of(&self.given.snapshot_keys);
        let keys = keys.map_err(|error| content(error.to_string()))?;
        Ok(Identity {
            name: who.name,
            shown: Arc::new(shown),
            ca,
            keys,
            renew_at: self.given.renew_at,
            not_after: who.not_after,
        })
    }

    /// The same of one that was just given: it has to be of `ca`, and to count now.
    pub(super) fn accepted(
        &self,
        name: &str,
        ca: &CertificateDer<'static>,
        now: SystemTime,
    ) -> Result<Identity, IdentityError> {
        let identity = self.opened(name)?;
        let issuer = |what: String| IdentityError::Issuer { what };
        if identity.ca != *ca {
            return Err(issuer("it is another one than is known".to_owned()));
        }
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone()).map_err(|error| issuer(error.to_string()))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build();
        let verifier = verifier.map_err(|error| issuer(error.to_string()))?;
        let at = UnixTime::since_unix_epoch(Duration::from_secs(unix_seconds(now)));
        let own = identity.shown.cert.first().expect("one that is shown has a certificate");
        verifier.verify_client_cert(own, &[], at).map_err(|error| issuer(error.to_string()))?;
        Ok(identity)
    }
}

fn content(what: String) -> IdentityError {
    IdentityError::Content { what }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::issuer::Issuer;

    fn given(issuer: &Issuer, request: &str, name: &str, now: SystemTime) -> wire::Identity {
        let issued = issuer.issue(request, name, now).unwrap();
        wire::Identity {
            certificate_pem: issued.pem,
            renew_at: issued.renew_at,
            ca_pem: issuer.pem().to_owned(),
            snapshot_keys: vec![issuer.signing().public()],
        }
    }

    #[test]
    fn what_was_given_counts_where_it_is_of_this_box_its_key_and_the_authority_that_is_known() {
        let [one, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let now = SystemTime::now();
        let [issuer, stranger] =
            [&one, &other].map(|folder| Issuer::open(folder.path(), now).unwrap());
        let (key_pem, request) = new_key().unwrap();
        let good = Kept { key_pem, given: given(&issuer, &request, "edge-1", now) };
        let ca = issuer.certificate();
        let identity = good.accepted("edge-1", ca, now).unwrap();
        assert_eq!((identity.name.as_str(), identity.renew_at), ("edge-1", good.given.renew_at));

        let path = path_in(one.path());
        assert!(matches!(Kept::read(&path), Err(IdentityError::Missing)));
        folder::replace(&path, &good.to_bytes()).unwrap();
        assert_eq!(Kept::read(&path).unwrap().given, good.given);
        folder::replace(&path, b"{}").unwrap();
        assert!(matches!(Kept::read(&path), Err(IdentityError::Content { .. })));

        let why = |kept: &Kept, name: &str, ca: &CertificateDer<'static>, now| {
            kept.accepted(name, ca, now).map(|_| ()).unwrap_err().to_string()
        };
        assert!(why(&good, "edge-2", ca, now).contains("enrolled as `edge-1`"));
        assert!(why(&good, "edge-1", stranger.certificate(), now).contains("another authority"));
        let ended = now + Duration::from_secs(31 * 86_400);
        assert!(why(&good, "edge-1", ca, ended).contains("another authority"));
        // A key that is not of the certificate, and a certificate that is not of the authority.
        let (key_pem, _) = new_key().unwrap();
        let of_another_key = Kept { key_pem, given: good.given.clone() };
        assert!(why(&of_another_key, "edge-1", ca, now).contains("is not of its key"));
        let mut forged = given(&stranger, &request, "edge-1", now);
        forged.ca_pem = issuer.pem().to_owned();
        let forged = Kept { key_pem: good.key_pem.clone(), given: forged };
        assert!(why(&forged, "edge-1", ca, now).contains("another authority"));
        let mut no_keys = good.given.clone();
        no_keys.snapshot_keys.clear();
        let no_keys = Kept { key_pem: good.key_pem.clone(), given: no_keys };
        assert!(why(&no_keys, "edge-1", ca, now).contains("Ed25519"));
    }
}
