//! Who told it: a detached Ed25519 signature (RFC 8032) over the bytes of a document.
//!
//! Keys are PEM as openssl writes them, the signature is its 64 bytes: others verify it by `openssl
//! pkeyutl -verify -rawin`, without Tidegate.

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};

/// Why nothing is signed, or what is wrong with a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureError {
    /// It is no private key to sign with.
    NoPrivateKey,
    /// It is neither a public key nor a private one.
    NoKey,
    /// The document, the signature or the key is another one.
    Other,
}

impl fmt::Display for SignatureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SignatureError::NoPrivateKey => {
                "is no Ed25519 private key in PEM; `openssl genpkey -algorithm ed25519` makes one"
            }
            SignatureError::NoKey => {
                "is no Ed25519 public key in PEM; `openssl pkey -in KEY -pubout` makes one of a \
                 private key"
            }
            SignatureError::Other => {
                "is not as it was signed: it was changed, the signature is another one's, or it \
                 was signed with another key"
            }
        })
    }
}

impl std::error::Error for SignatureError {}

/// Signs a document with the private key in a PEM text.
///
/// # Errors
/// The key is none.
pub fn sign(document: &[u8], key: &[u8]) -> Result<[u8; SIGNATURE_BYTES], SignatureError> {
    let signed = pair(key)?.sign(document);
    signed.as_ref().try_into().map_err(|_| SignatureError::NoPrivateKey)
}

/// Whether a document was signed so, by the key of which the public part, or both, are in a PEM
/// text.
///
/// # Errors
/// It was not.
pub fn verify(document: &[u8], signature: &[u8], key: &[u8]) -> Result<(), SignatureError> {
    let public = match SubjectPublicKeyInfoDer::from_pem_slice(key) {
        Ok(info) => {
            let public = info.as_ref().strip_prefix(&ED25519_INFO);
            public.ok_or(SignatureError::NoKey)?.to_vec()
        }
        Err(_) => {
            let pair = pair(key).map_err(|_| SignatureError::NoKey)?;
            pair.public_key().as_ref().to_vec()
        }
    };
    let key = UnparsedPublicKey::new(&ED25519, public);
    key.verify(document, signature).map_err(|_| SignatureError::Other)
}

fn pair(key: &[u8]) -> Result<Ed25519KeyPair, SignatureError> {
    let no_key = |_| SignatureError::NoPrivateKey;
    let key = PrivatePkcs8KeyDer::from_pem_slice(key).map_err(no_key)?;
    let pair = Ed25519KeyPair::from_pkcs8(key.secret_pkcs8_der());
    pair.map_err(|_| SignatureError::NoPrivateKey)
}

/// Of a signature.
pub const SIGNATURE_BYTES: usize = 64;
/// What stands before the 32 bytes of such a public key (RFC 8410 section 4).
const ED25519_INFO: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0];

#[cfg(test)]
mod tests {
    use super::*;

    /// Of `openssl genpkey -algorithm ed25519`, `openssl pkey -pubout`, and `openssl pkeyutl -sign
    /// -rawin` over `usage` and an end of line.
    const KEY: &[u8] = include_bytes!("signed/key.pem");
    const PUBLIC: &[u8] = include_bytes!("signed/public.pem");
    const SIGNATURE: &[u8] = include_bytes!("signed/signature");

    #[test]
    fn what_openssl_signed_is_verified_and_we_sign_the_same() {
        assert_eq!(verify(b"usage\n", SIGNATURE, PUBLIC), Ok(()));
        assert_eq!(verify(b"usage\n", SIGNATURE, KEY), Ok(()));
        assert_eq!(sign(b"usage\n", KEY).unwrap(), SIGNATURE);
    }

    #[test]
    fn whatever_is_changed_is_refused() {
        let document = b"{\"served_bytes\": 123}\n";
        let signature = sign(document, KEY).unwrap();
        assert_eq!(verify(document, &signature, PUBLIC), Ok(()));
        for at in 0..document.len() * 8 {
            let mut changed = *document;
            changed[at / 8] ^= 1 << (at % 8);
            assert_eq!(
                verify(&changed, &signature, PUBLIC),
                Err(SignatureError::Other),
                "bit {at}"
            );
        }
        for at in 0..SIGNATURE_BYTES * 8 {
            let mut changed = signature;
            changed[at / 8] ^= 1 << (at % 8);
            assert_eq!(verify(document, &changed, PUBLIC), Err(SignatureError::Other), "bit {at}");
        }
        for length in [0, 63] {
            let short = verify(document, &signature[..length], PUBLIC);
            assert_eq!(short, Err(SignatureError::Other));
        }
        assert_eq!(verify(&document[1..], &signature, PUBLIC), Err(SignatureError::Other));
        let another = String::from_utf8(PUBLIC.to_vec()).unwrap().replacen("VwAyEA", "VwAyEB", 1);
        let refused = verify(document, &signature, another.as_bytes());
        assert!(refused.is_err(), "{refused:?}");
    }

    #[test]
    fn what_is_no_key_is_said_so() {
        assert_eq!(sign(b"", PUBLIC), Err(SignatureError::NoPrivateKey));
        assert_eq!(sign(b"", b"no key"), Err(SignatureError::NoPrivateKey));
        assert_eq!(verify(b"", &[], b"no key"), Err(SignatureError::NoKey));
    }
}
