//! Enrolment: a code that an operator was shown becomes the identity of this box.
//!
//! The code says by its second half who the control plane is, so that its secret is shown to nobody
//! else: the SHA-256 of its authority, which it has to show at the end of its chain, or, where
//! operators gave it another certificate, to name in its answer.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use http::{Method, StatusCode};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::aws_lc_rs;
use rustls::{CertificateError, ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::client::{Answer, Ask, AskError, Client};
use super::folder::Replacement;
use super::identity::{IdentityError, Kept, new_key, path_in};
use crate::config;
use crate::control::believed::{Believed, ServerShows};
use crate::control::issuer::sha256_hex;
use crate::control::plane::wire;
use crate::fill::client::tls_config_of;
use crate::site::Scheme;

/// A box that has its identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrolled {
    /// What it is called.
    pub name: String,
    /// Who has enrolled it.
    pub control: String,
    /// Where its identity lies.
    pub path: PathBuf,
    /// When its certificate ends, in seconds since 1970; it is renewed before.
    pub not_after: u64,
}

/// What becomes of an identity that there is already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// It stays.
    Stays,
    /// It is replaced.
    IsReplaced,
}

/// Why a box is not enrolled.
#[derive(Debug)]
pub enum EnrolError {
    /// What was typed is no code.
    NoCode,
    /// It has an identity.
    Enrolled {
        /// The file.
        path: PathBuf,
    },
    /// What it would be known by cannot be made, kept or used.
    Identity(IdentityError),
    /// No control plane does it.
    Control(String),
}

impl fmt::Display for EnrolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EnrolError::NoCode => write!(
                f,
                "this is no code; write what `tidegate control code NAME` shows at the control \
                 plane, all of it"
            ),
            EnrolError::Enrolled { path } => write!(
                f,
                "this box is enrolled: its identity is in {}; `--again` gives it another one",
                path.display()
            ),
            EnrolError::Identity(error) => error.fmt(f),
            EnrolError::Control(what) => f.write_str(what),
        }
    }
}

impl Error for EnrolError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            EnrolError::Identity(source) => Some(source),
            _ => None,
        }
    }
}

impl From<IdentityError> for EnrolError {
    fn from(error: IdentityError) -> EnrolError {
        EnrolError::Identity(error)
    }
}

/// Gives the box of `fleet` its identity for a code. Dropped midway the code may be used up.
///
/// # Errors
/// As [`EnrolError`]; whatever identity there was is there still.
pub async fn enrol(
    fleet: &config::Fleet,
    code: &str,
    before: Before,
) -> Result<Enrolled, EnrolError> {
    let fingerprint = fingerprint(code).ok_or(EnrolError::NoCode)?;
    let path = path_in(&fleet.folder);
    if before == Before::Stays && path.exists() {
        return Err(EnrolError::Enrolled { path });
    }
    // A code counts once: first it is made sure that what it brings can be kept.
    let file = |source| IdentityError::File { path: path.clone(), source };
    let place = Replacement::begin(&path).map_err(file)?;
    let (key_pem, csr_pem) = new_key()?;
    let name = fleet.appliance.name();
    let asked = wire::Enrol { code: code.to_owned(), name: name.to_owned(), csr_pem };
    let answer = answered(fleet, &fingerprint, &asked).await?;
    let understood = answer.understood::<wire::Identity>();
    let given = understood.map_err(|error| EnrolError::Control(error.to_string()))?;
    let ca = CertificateDer::from_pem_slice(given.ca_pem.as_bytes());
    let ca = ca.ok().filter(|ca| sha256_hex(ca) == fingerprint);
    let ca = ca.ok_or_else(|| another(&super::client::named(&answer.control)))?;
    let kept = Kept { key_pem, given };
    let identity = kept.accepted(name, &ca, SystemTime::now())?;
    place.finish(&kept.to_bytes()).map_err(file)?;
    let control = super::client::named(&answer.control);
    Ok(Enrolled { name: identity.name, control, path, not_after: identity.not_after })
}

/// What the first of them says that is there.
async fn answered(
    fleet: &config::Fleet,
    fingerprint: &str,
    asked: &wire::Enrol,
) -> Result<Answer, EnrolError> {
    let body = serde_json::to_vec(asked).expect("text can be written as JSON");
    let ask = Ask::new(Method::POST, wire::ENROL_PATH, body);
    let ours = believing(fingerprint).map_err(EnrolError::Control)?;
    let client = Client::new(&fleet.control, ours, None);
    let mut refused = String::new();
    for _ in 0..client.count() {
        let turn = client.whose();
        match client.ask(&ask).await {
            // It has not looked at the code; another one may.
            Ok(answer) if answer.status == StatusCode::SERVICE_UNAVAILABLE => {
                refused = answer.refused().to_string();
            }
            Ok(answer) => return Ok(answer),
            // Whoever it is has not seen the code.
            Err(AskError::Stranger { control }) => return Err(another(&control)),
            Err(error @ AskError::Silent { .. }) => refused = error.to_string(),
            Err(error) => return Err(EnrolError::Control(error.to_string())),
        }
        client.turn_from(turn);
    }
    Err(EnrolError::Control(refused))
}

fn another(control: &str) -> EnrolError {
    EnrolError::Control(format!(
        "{control} is not the control plane that this code is of: its authority is another one"
    ))
}

/// The second half of a code.
fn fingerprint(code: &str) -> Option<String> {
    let (secret, fingerprint) = code.split_once('.')?;
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let are_digits = |text: &str| !text.is_empty() && text.bytes().all(is_digit);
    let fits = secret.len() <= SECRET_DIGITS_MAX && fingerprint.len() == FINGERPRINT_DIGITS;
    (fits && are_digits(secret) && are_digits(fingerprint)).then(|| fingerprint.to_owned())
}

/// Believes whom the authority of a fingerprint vouches for, where it is shown.
fn believing(fingerprint: &str) -> Result<ClientConfig, String> {
    let mut config = tls_config_of(None, Scheme::Http)?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let (fingerprint, by) = (fingerprint.to_owned(), provider.clone());
    let judge = move |shows: &ServerShows<'_>| {
        let unknown = || rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let mut chain = shows.chain.iter();
        let ca = chain.find(|one| sha256_hex(one) == fingerprint).ok_or_else(unknown)?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), by.clone());
        let verifier = verifier.build().map_err(|_| unknown())?;
        let ServerShows { certificate, chain, name, ocsp, now } = *shows;
        verifier.verify_server_cert(certificate, chain, name, ocsp, now)
    };
    config.dangerous().set_certificate_verifier(Arc::new(Believed { judge, provider }));
    Ok(config)
}

/// Of a SHA-256 in hexadecimal.
const FINGERPRINT_DIGITS: usize = 64;
const SECRET_DIGITS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_a_secret_and_a_fingerprint() {
        let print = "0123456789abcdef".repeat(4);
        assert_eq!(fingerprint(&format!("00ff.{print}")), Some(print.clone()));
        let wrong = [
            String::new(),
            "00ff".to_owned(),
            format!("00ff.{print}0"),
            format!(".{print}"),
            format!("00ff.{}", print.to_uppercase()),
            format!("{}.{print}", "0".repeat(257)),
            format!("00ff.{print}\n"),
        ];
        for code in wrong {
            assert_eq!(fingerprint(&code), None, "{code:?}");
        }
    }
}
