//! When a certificate is renewed: after two thirds of its life, or when its authority says so
//! (RFC 9773).

use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use instant_acme::{Account, CertificateIdentifier, Error};

use crate::config::{Certificate, Validity, issued_as};

/// From when on a certificate is to be renewed, if its dates can be read.
pub fn due(certificate: &Certificate) -> Option<SystemTime> {
    let validity = Validity::of(certificate.key.cert.first()?)?;
    let life = validity.not_after.duration_since(validity.not_before).ok()?;
    validity.not_before.checked_add(life / 3 * 2)
}

/// What an authority suggests.
#[derive(Clone, Copy, Debug)]
pub struct Suggested {
    /// When to renew; `None` where it has nothing to say.
    pub at: Option<SystemTime>,
    /// When to ask again.
    pub ask_again_in: Duration,
}

/// Asks the authority when it wants a certificate renewed: it may have to revoke many, or have
/// nothing to do at another hour.
pub async fn suggested(account: &Account, certificate: &Certificate) -> Suggested {
    let nothing = |ask_again_in| Suggested { at: None, ask_again_in };
    let Some(id) = id(certificate) else { return nothing(ASKED_SELDOM) };
    match account.renewal_info(&id).await {
        Ok((info, again)) => {
            let (from, to) = (info.suggested_window.start, info.suggested_window.end);
            let (from, to) = (SystemTime::from(from), SystemTime::from(to));
            let window = to.duration_since(from).unwrap_or_default();
            let at = from.checked_add(window.mul_f64(random_share()));
            Suggested { at, ask_again_in: again.clamp(ASKED_OFTEN, ASKED_SELDOM) }
        }
        Err(Error::Unsupported(_)) => nothing(ASKED_SELDOM),
        Err(error) => {
            tracing::debug!("{}: when to renew is not told: {error}", certificate.path.display());
            nothing(ASKED_OFTEN)
        }
    }
}

/// The name of a certificate in such a question (RFC 9773 section 4.1).
fn id(certificate: &Certificate) -> Option<CertificateIdentifier<'static>> {
    let (authority, serial) = issued_as(certificate.key.cert.first()?)?;
    let [authority_key_identifier, serial] =
        [authority, serial].map(|bytes| BASE64_URL_SAFE_NO_PAD.encode(bytes).into());
    Some(CertificateIdentifier { authority_key_identifier, serial })
}

/// From 0 to 1.
fn random_share() -> f64 {
    (RandomState::new().hash_one(0) >> 11) as f64 / (1_u64 << 53) as f64
}

const ASKED_OFTEN: Duration = Duration::from_secs(6 * 3_600);
const ASKED_SELDOM: Duration = Duration::from_secs(24 * 3_600);
