//! The fleet's own authority: issues a certificate to each box, and to the control plane itself.
//!
//! Private keys of boxes never come here: what is signed is a request that was signed with them.
//! All that is taken out of a request is its public key; whose it is and what it is for, we say.
//! Its own key lies in the state folder, for its owner alone, as the one of snapshots does.

mod private;

use std::error::Error;
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer as _, X509Certificate};

pub use self::private::open_to_others;
use super::snapshot::{Serial, SigningKey};
use crate::moment::unix_seconds;

/// Who issues certificates, and signs snapshots.
pub struct Issuer {
    ca: rcgen::Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
    signing: SigningKey,
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Issuer(..)")
    }
}

/// A certificate that was issued.
#[derive(Clone, Debug)]
pub struct Issued {
    /// It, in PEM.
    pub pem: String,
    /// Its number.
    pub serial: Serial,
    /// When it ends, in seconds since 1970.
    pub not_after: u64,
    /// When the next one should be asked for.
    pub renew_at: u64,
}

/// Who a certificate says that its bearer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Its common name.
    pub name: String,
    /// Its number.
    pub serial: Serial,
    /// Since when it counts, in seconds since 1970.
    pub not_before: u64,
    /// When it ends.
    pub not_after: u64,
}

impl Subject {
    /// When it was issued, in seconds since 1970: it counts from a little before on.
    pub fn issued_at(&self) -> u64 {
        self.not_before.saturating_add(BACKDATED.as_secs())
    }
}

/// Why a certificate is not issued, or nobody is there to issue any.
#[derive(Debug)]
pub enum IssuerError {
    /// A file in the state folder cannot be read, or made.
    File {
        /// Which one.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// What is in it is something else.
    Content {
        /// Which one.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
    },
    /// What was sent is no request for a certificate, or not signed by the key that is in it.
    Request(rcgen::Error),
    /// This machine's clock is wrong: nothing it issued would ever count.
    Clock {
        /// What it says, in seconds since 1970.
        now: u64,
    },
    /// A certificate could not be made.
    Made(Box<dyn Error + Send + Sync>),
}

impl fmt::Display for IssuerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IssuerError::File { path, source } => {
                write!(f, "{} cannot be used: {source}", path.display())
            }
            IssuerError::Content { path, what } => {
                write!(f, "{} holds no {what}", path.display())
            }
            IssuerError::Request(error) => {
                write!(f, "`csr_pem` is no certificate signing request that can be signed: {error}")
            }
            IssuerError::Clock { now } => write!(
                f,
                "the clock of the control plane is wrong, {now} seconds after 1970: set it, then \
                 certificates can be issued"
            ),
            IssuerError::Made(error) => write!(f, "no certificate could be made: {error}"),
        }
    }
}

impl Error for IssuerError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            IssuerError::File { source, .. } => Some(source),
            IssuerError::Request(source) => Some(source),
            IssuerError::Made(source) => Some(source.as_ref()),
            IssuerError::Content { .. } | IssuerError::Clock { .. } => None,
        }
    }
}

impl Issuer {
    /// The one whose keys lie in the state folder; makes the folder and the keys where there are
    /// none. Blocks.
    ///
    /// # Errors
    /// A file cannot be read or made, or holds something else.
    pub fn open(folder: &Path, now: SystemTime) -> Result<Issuer, IssuerError> {
        look_at_clock(folder, now)?;
        let [key_path, ca_path] = [CA_KEY, CA_FILE].map(|name| folder.join(name));
        let key = kept(&key_path, || Ok(KeyPair::generate()?.serialize_pem().into_bytes()))?;
        let no_key = || IssuerError::Content { path: key_path, what: "private key in PEM" };
        let key = String::from_utf8(key).ok().and_then(|pem| KeyPair::from_pem(&pem).ok());
        let key = key.ok_or_else(no_key)?;
        let pem = kept(&ca_path, || Ok(authority(now).self_signed(&key)?.pem().into_bytes()))?;
        let no_ca = || IssuerError::Content { path: ca_path.clone(), what: "certificate in PEM" };
        let pem = String::from_utf8(pem).map_err(|_| no_ca())?;
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| no_ca())?;
        let of_key = X509Certificate::from_der(&certificate).is_ok_and(|(_, read)| {
            read.public_key().raw == rcgen::PublicKeyData::subject_public_key_info(&key)
        });
        if !of_key {
            let what = "certificate of the key beside it";
            return Err(IssuerError::Content { path: ca_path, what });
        }
        let ca = rcgen::Issuer::from_ca_cert_der(&certificate, key).map_err(|_| no_ca())?;
        let signing = signing_key(folder)?;
        for name in [CA_KEY, SIGNING_KEY] {
            open_to_others(&folder.join(name)).iter().for_each(|why| tracing::warn!("{why}"));
        }
        Ok(Issuer { ca, certificate, pem, signing })
    }

    /// Issues a certificate by which a box of this name is known.
    ///
    /// # Errors
    /// The request is none, or the clock is wrong.
    pub fn issue(&self, csr_pem: &str, name: &str, now: SystemTime) -> Result<Issued, IssuerError> {
        let seconds = unix_seconds(now);
        if seconds < CLOCK_MIN {
            return Err(IssuerError::Clock { now: seconds });
        }
        let mut request =
            CertificateSigningRequestParams::from_pem(csr_pem).map_err(IssuerError::Request)?;
        let (mut params, serial) = made_for(name, now, BOX_LIFE)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        request.params = params;
        let certificate = request.signed_by(&self.ca).map_err(failed)?;
        let life = BOX_LIFE.as_secs();
        let (not_after, renew_at) = (seconds + life, seconds + life * 2 / 3);
        Ok(Issued { pem: certificate.pem(), serial, not_after, renew_at })
    }

    /// A certificate of the control plane itself, for these names and addresses, with its key.
    ///
    /// # Errors
    /// One is no name, or none can be made.
    pub fn own(&self, names: &[String], now: SystemTime) -> Result<Own, IssuerError> {
        let key = KeyPair::generate().map_err(failed)?;
        let (mut params, _) = made_for(OWN_NAME, now, OWN_LIFE)?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let name = |name: &String| match name.parse::<IpAddr>() {
            Ok(address) => Ok(SanType::IpAddress(address)),
            Err(_) => name.as_str().try_into().map(SanType::DnsName),
        };
        let names: Result<Vec<_>, rcgen::Error> = names.iter().map(name).collect();
        params.subject_alt_names.extend(names.map_err(failed)?);
        let certificate = params.signed_by(&key, &self.ca).map_err(failed)?;
        let chain = vec![certificate.der().clone(), self.certificate.clone()];
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(failed)?;
        let key = any_supported_type(&key).map_err(failed)?;
        let (key, renew_at) = (Arc::new(CertifiedKey::new(chain, key)), now + OWN_LIFE * 2 / 3);
        Ok(Own { key, renew_at })
    }

    /// By which boxes are known.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The same in PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Its SHA-256, in hexadecimal.
    pub fn fingerprint(&self) -> String {
        sha256_hex(&self.certificate)
    }

    /// What snapshots are signed by.
    pub fn signing(&self) -> &SigningKey {
        &self.signing
    }
}

/// What the control plane shows.
#[derive(Clone, Debug)]
pub struct Own {
    /// The chain and its key.
    pub key: Arc<CertifiedKey>,
    /// When there should be another one.
    pub renew_at: SystemTime,
}

/// The key of snapshots that lies in the state folder, where there was one before. Blocks.
///
/// # Errors
/// It cannot be read, or is something else.
pub fn signing_key_of_before(folder: &Path) -> Result<SigningKey, IssuerError> {
    let path = folder.join(SIGNING_KEY);
    match fs::read(&path) {
        Ok(kept) => understood(path, &kept),
        Err(source) => Err(IssuerError::File { path, source }),
    }
}

fn signing_key(folder: &Path) -> Result<SigningKey, IssuerError> {
    let path = folder.join(SIGNING_KEY);
    let kept = kept(&path, || Ok(SigningKey::generate().1))?;
    understood(path, &kept)
}

fn understood(path: PathBuf, kept: &[u8]) -> Result<SigningKey, IssuerError> {
    let what = "Ed25519 key in PKCS #8";
    SigningKey::of_pkcs8(kept).ok_or(IssuerError::Content { path, what })
}

/// Whether keys may lie in the folder, or be made there now; makes the folder where there is none.
/// Blocks.
///
/// # Errors
/// There is no folder, or this machine's clock is wrong and nothing was made before.
pub fn look_at_clock(folder: &Path, now: SystemTime) -> Result<(), IssuerError> {
    let made = self::folder(folder);
    made.map_err(|source| IssuerError::File { path: folder.to_owned(), source })?;
    let seconds = unix_seconds(now);
    if seconds < CLOCK_MIN && !folder.join(CA_FILE).exists() {
        // It would seem to have ended as soon as the clock is right.
        return Err(IssuerError::Clock { now: seconds });
    }
    Ok(())
}

/// Who a certificate is of; `None`: it has no name or number that one of ours could have.
pub fn subject(certificate: &[u8]) -> Option<Subject> {
    let (_, read) = X509Certificate::from_der(certificate).ok()?;
    let mut names = read.subject().iter_common_name();
    let (name, None) = (names.next()?.as_str().ok()?.to_owned(), names.next()) else {
        return None;
    };
    let seconds = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).ok();
    let validity = read.validity();
    Some(Subject {
        name,
        serial: Serial::of(read.raw_serial())?,
        not_before: seconds(validity.not_before)?,
        not_after: seconds(validity.not_after)?,
    })
}

/// SHA-256, in lower-case hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn failed(error: impl Into<Box<dyn Error + Send + Sync>>) -> IssuerError {
    IssuerError::Made(error.into())
}

fn authority(now: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Tidegate fleet");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + AUTHORITY_LIFE).into();
    params
}

/// What all certificates have in common, and the number of this one.
fn made_for(
    name: &str,
    now: SystemTime,
    life: Duration,
) -> Result<(CertificateParams, Serial), IssuerError> {
    let mut serial = [0; SERIAL_BYTES];
    rand::fill(&mut serial).map_err(|error| failed(error.to_string()))?;
    // A positive number, written in as many bytes.
    serial[0] = serial[0] & 0x3f | 0x40;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    let name = name.try_into().map_err(|error: rcgen::Error| failed(error))?;
    params.subject_alt_names = vec![SanType::DnsName(name)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + life).into();
    Ok((params, Serial::of(&serial).expect("it has as many bytes as it may")))
}

/// What the file holds; it is made where there is none, for its owner alone. Blocks.
fn kept(
    path: &Path,
    make: impl FnOnce() -> Result<Vec<u8>, rcgen::Error>,
) -> Result<Vec<u8>, IssuerError> {
    let file = |source| IssuerError::File { path: path.to_owned(), source };
    match fs::read(path) {
        Ok(bytes) => return Ok(bytes),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(file(error)),
        Err(_) => {}
    }
    let bytes = make().map_err(failed)?;
    replace(path, &bytes).map_err(file)?;
    Ok(bytes)
}

/// Makes the state folder where there is none, for its owner alone. Blocks.
pub(super) fn folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Has the file hold this, for its owner alone, whatever happens meanwhile. Blocks.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_added_extension("new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    made.write_all(bytes)?;
    made.sync_all()?;
    fs::rename(&new, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// What a certificate of the control plane itself is for, whatever else it is for.
pub const OWN_NAME: &str = "tidegate-control";
/// Names in the state folder.
pub const CA_FILE: &str = "ca.pem";
pub(super) const CA_KEY: &str = "ca.key";
pub(super) const SIGNING_KEY: &str = "snapshot.key";

const BOX_LIFE: Duration = Duration::from_secs(30 * 86_400);
const OWN_LIFE: Duration = Duration::from_secs(90 * 86_400);
const AUTHORITY_LIFE: Duration = Duration::from_secs(20 * 365 * 86_400);
/// For who has a clock that is slow.
const BACKDATED: Duration = Duration::from_secs(300);
const SERIAL_BYTES: usize = 16;
/// 2020: whoever says that it is earlier has not been told the time.
const CLOCK_MIN: u64 = 1_577_836_800;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000)
    }

    fn request(names: &[&str]) -> String {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        params.serialize_request(&key).unwrap().pem().unwrap()
    }

    #[test]
    fn of_a_request_nothing_counts_but_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let issuer = Issuer::open(folder.path(), now()).unwrap();
        let issued = issuer.issue(&request(&["other.example"]), "edge-1", now()).unwrap();
        let der = CertificateDer::from_pem_slice(issued.pem.as_bytes()).unwrap();
        let told = subject(&der).unwrap();
        assert_eq!((told.name.as_str(), &told.serial), ("edge-1", &issued.serial));
        assert_eq!(told.not_after, issued.not_after);
        assert_eq!(issued.not_after - unix_seconds(now()), 30 * 86_400);
        assert_eq!(issued.renew_at - unix_seconds(now()), 20 * 86_400);
        let (_, read) = X509Certificate::from_der(&der).unwrap();
        assert!(!read.is_ca());
        let usage = read.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth);
        let names = read.subject_alternative_name().unwrap().unwrap();
        assert_eq!(names.value.general_names.len(), 1);
        let (_, ca) = X509Certificate::from_der(issuer.certificate()).unwrap();
        assert!(read.verify_signature(Some(ca.public_key())).is_ok());
    }

    #[test]
    fn its_keys_are_made_once_and_are_for_their_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control");
        let (one, again) =
            (Issuer::open(&path, now()).unwrap(), Issuer::open(&path, now()).unwrap());
        assert_eq!(one.fingerprint(), again.fingerprint());
        assert_eq!(one.signing().public(), again.signing().public());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        for name in [CA_FILE, CA_KEY, SIGNING_KEY] {
            assert_eq!(mode(&path.join(name)), 0o600, "{name}");
        }
        let other = tempfile::tempdir().unwrap();
        let other = Issuer::open(other.path(), now()).unwrap();
        fs::write(path.join(CA_FILE), other.pem()).unwrap();
        let error = Issuer::open(&path, now()).unwrap_err().to_string();
        assert!(error.ends_with("ca.pem holds no certificate of the key beside it"), "{error}");
    }

    #[test]
    fn with_a_wrong_clock_no_authority_is_made_and_one_of_before_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let early = SystemTime::UNIX_EPOCH + Duration::from_secs(60);
        let error = Issuer::open(folder.path(), early).unwrap_err();
        assert!(matches!(error, IssuerError::Clock { now: 60 }), "{error}");
        assert!(!folder.path().join(CA_KEY).exists());
        Issuer::open(folder.path(), now()).unwrap();
        Issuer::open(folder.path(), early).unwrap();
    }

    #[test]
    fn a_key_of_snapshots_that_was_lost_is_made_by_nobody_who_needs_the_one_of_before() {
        let folder = tempfile::tempdir().unwrap();
        let error = signing_key_of_before(folder.path()).unwrap_err().to_string();
        assert!(error.contains("snapshot.key cannot be used: "), "{error}");
        assert!(!folder.path().join(SIGNING_KEY).exists());
        let issuer = Issuer::open(folder.path(), now()).unwrap();
        let key = signing_key_of_before(folder.path()).unwrap();
        assert_eq!(key.public(), issuer.signing().public());
    }

    #[test]
    fn what_cannot_be_issued_is_told_in_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let issuer = Issuer::open(folder.path(), now()).unwrap();
        let early = SystemTime::UNIX_EPOCH + Duration::from_secs(60);
        let signed = request(&[]);
        // The last letters are of the signature.
        let at = signed.find("-----END").unwrap() - 8;
        let letter = if &signed[at..=at] == "A" { "B" } else { "A" };
        let forged = format!("{}{letter}{}", &signed[..at], &signed[at + 1..]);
        for (csr, now, says) in [
            ("", now(), "is no certificate signing request"),
            ("-----BEGIN X-----\nAAAA\n-----END X-----", now(), "is no certificate signing"),
            (&forged, now(), "is no certificate signing request"),
            (&signed, early, "the clock of the control plane is wrong"),
        ] {
            let error = issuer.issue(csr, "edge-1", now).unwrap_err().to_string();
            assert!(error.contains(says) && error.lines().count() == 1, "{error}");
        }
        assert!(issuer.issue(&signed, "edge-1", now()).is_ok());
    }
}
