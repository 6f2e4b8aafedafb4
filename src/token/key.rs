//! One key that tokens are signed with: the same for JWS (RFC 7515) and for COSE (RFC 9052).
//!
//! The algorithm belongs to the key, never to a token (RFC 8725 section 3.1): a token that names
//! another one is refused before anything is computed.

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, EcdsaVerificationAlgorithm, Ed25519KeyPair,
    ParsedPublicKey, RsaKeyPair, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey,
};
use aws_lc_rs::{hmac, rsa};

use super::jwk::{Jwk, JwkError};

/// How a key signs (RFC 7518 section 3.1, RFC 8037; RFC 9053 for COSE).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// HMAC with SHA-384.
    Hs384,
    /// HMAC with SHA-512.
    Hs512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// Each with its name in JOSE and its number in COSE.
    pub const ALL: [(Algorithm, &str, i64); 12] = [
        (Algorithm::Hs256, "HS256", 5),
        (Algorithm::Hs384, "HS384", 6),
        (Algorithm::Hs512, "HS512", 7),
        (Algorithm::Es256, "ES256", -7),
        (Algorithm::Es384, "ES384", -35),
        (Algorithm::Rs256, "RS256", -257),
        (Algorithm::Rs384, "RS384", -258),
        (Algorithm::Rs512, "RS512", -259),
        (Algorithm::Ps256, "PS256", -37),
        (Algorithm::Ps384, "PS384", -38),
        (Algorithm::Ps512, "PS512", -39),
        (Algorithm::EdDsa, "EdDSA", -8),
    ];

    /// The one of this name in JOSE.
    pub fn named(name: &str) -> Option<Algorithm> {
        Algorithm::ALL.iter().find(|(_, its, _)| *its == name).map(|(one, _, _)| *one)
    }

    /// Its name in JOSE.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// Its number in COSE.
    pub fn cose_number(self) -> i64 {
        self.row().2
    }

    /// Whether who can verify can sign, too.
    pub fn is_symmetric(self) -> bool {
        matches!(self, Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512)
    }

    fn row(self) -> (Algorithm, &'static str, i64) {
        Algorithm::ALL[self as usize]
    }

    fn hmac(self) -> hmac::Algorithm {
        match self {
            Algorithm::Hs384 => hmac::HMAC_SHA384,
            Algorithm::Hs512 => hmac::HMAC_SHA512,
            _ => hmac::HMAC_SHA256,
        }
    }

    fn ecdsa(self) -> (&'static EcdsaVerificationAlgorithm, &'static EcdsaSigningAlgorithm) {
        match self {
            Algorithm::Es384 => {
                (&signature::ECDSA_P384_SHA384_FIXED, &signature::ECDSA_P384_SHA384_FIXED_SIGNING)
            }
            _ => (&signature::ECDSA_P256_SHA256_FIXED, &signature::ECDSA_P256_SHA256_FIXED_SIGNING),
        }
    }

    fn rsa(self) -> (&'static RsaParameters, &'static dyn signature::RsaEncoding) {
        match self {
            Algorithm::Rs384 => {
                (&signature::RSA_PKCS1_2048_8192_SHA384, &signature::RSA_PKCS1_SHA384)
            }
            Algorithm::Rs512 => {
                (&signature::RSA_PKCS1_2048_8192_SHA512, &signature::RSA_PKCS1_SHA512)
            }
            Algorithm::Ps256 => (&signature::RSA_PSS_2048_8192_SHA256, &signature::RSA_PSS_SHA256),
            Algorithm::Ps384 => (&signature::RSA_PSS_2048_8192_SHA384, &signature::RSA_PSS_SHA384),
            Algorithm::Ps512 => (&signature::RSA_PSS_2048_8192_SHA512, &signature::RSA_PSS_SHA512),
            _ => (&signature::RSA_PKCS1_2048_8192_SHA256, &signature::RSA_PKCS1_SHA256),
        }
    }
}

/// A key of an issuer.
pub struct Key {
    id: String,
    issuer: String,
    algorithm: Algorithm,
    material: Material,
}

enum Material {
    Hmac(Box<hmac::Key>),
    Ecdsa { public: ParsedPublicKey, private: Option<EcdsaKeyPair> },
    Rsa { public: RsaPublicKeyComponents<Vec<u8>>, private: Option<RsaKeyPair> },
    Ed25519 { public: Vec<u8>, private: Option<Ed25519KeyPair> },
}

impl fmt::Debug for Key {
    /// Nothing secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?}, {:?}, {})", self.issuer, self.id, self.algorithm.name())
    }
}

impl Key {
    /// The key that a JWK describes (RFC 7517).
    ///
    /// # Errors
    /// It describes none that is known here, or not all of it.
    pub fn of(issuer: &str, jwk: &Jwk) -> Result<Key, JwkError> {
        let algorithm = jwk.algorithm()?;
        let material = match algorithm {
            symmetric if symmetric.is_symmetric() => {
                Material::Hmac(Box::new(hmac::Key::new(symmetric.hmac(), &jwk.secret(symmetric)?)))
            }
            Algorithm::Es256 | Algorithm::Es384 => ecdsa(algorithm, jwk)?,
            Algorithm::EdDsa => ed25519(jwk)?,
            _ => rsa(jwk)?,
        };
        let id = jwk.kid.clone().ok_or(JwkError::Lacks("kid"))?;
        Ok(Key { id, issuer: issuer.to_owned(), algorithm, material })
    }

    /// Its id, `kid`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whose it is.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// How it signs.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Whether it can sign.
    pub fn has_private(&self) -> bool {
        match &self.material {
            Material::Hmac(_) => true,
            Material::Ecdsa { private, .. } => private.is_some(),
            Material::Rsa { private, .. } => private.is_some(),
            Material::Ed25519 { private, .. } => private.is_some(),
        }
    }

    /// Whether `signature` is of `message`; of ECDSA, its two numbers one after the other, as JWS
    /// and COSE have it. In constant time for HMAC.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            Material::Hmac(key) => hmac::verify(key, message, signature).is_ok(),
            Material::Ecdsa { public, .. } => public.verify_sig(message, signature).is_ok(),
            Material::Rsa { public, .. } => {
                public.verify(self.algorithm.rsa().0, message, signature).is_ok()
            }
            Material::Ed25519 { public, .. } => {
                let public = UnparsedPublicKey::new(&signature::ED25519, public);
                public.verify(message, signature).is_ok()
            }
        }
    }

    /// Its signature of `message`; `None`: it has no private half.
    pub fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match &self.material {
            Material::Hmac(key) => Some(hmac::sign(key, message).as_ref().to_vec()),
            Material::Ecdsa { private, .. } => {
                Some(private.as_ref()?.sign(&random, message).ok()?.as_ref().to_vec())
            }
            Material::Rsa { private, .. } => {
                let private = private.as_ref()?;
                let mut signed = vec![0; private.public_modulus_len()];
                private.sign(self.algorithm.rsa().1, &random, message, &mut signed).ok()?;
                Some(signed)
            }
            Material::Ed25519 { private, .. } => {
                Some(private.as_ref()?.sign(message).as_ref().to_vec())
            }
        }
    }
}

fn ecdsa(algorithm: Algorithm, jwk: &Jwk) -> Result<Material, JwkError> {
    let (verification, signing) = algorithm.ecdsa();
    let mut point = vec![0x04];
    point.extend(jwk.number("x", &jwk.x)?);
    point.extend(jwk.number("y", &jwk.y)?);
    let public = ParsedPublicKey::new(verification, &point).map_err(|_| JwkError::NoKey)?;
    let private = jwk.d.as_ref().map(|_| {
        let d = jwk.number("d", &jwk.d)?;
        EcdsaKeyPair::from_private_key_and_public_key(signing, &d, &point)
            .map_err(|_| JwkError::NoKey)
    });
    Ok(Material::Ecdsa { public, private: private.transpose()? })
}

fn ed25519(jwk: &Jwk) -> Result<Material, JwkError> {
    let public = jwk.number("x", &jwk.x)?;
    if ParsedPublicKey::new(&signature::ED25519, &public).is_err() {
        return Err(JwkError::NoKey);
    }
    let private = jwk.d.as_ref().map(|_| {
        let d = jwk.number("d", &jwk.d)?;
        Ed25519KeyPair::from_seed_and_public_key(&d, &public).map_err(|_| JwkError::NoKey)
    });
    Ok(Material::Ed25519 { public, private: private.transpose()? })
}

fn rsa(jwk: &Jwk) -> Result<Material, JwkError> {
    let public =
        RsaPublicKeyComponents { n: jwk.number("n", &jwk.n)?, e: jwk.number("e", &jwk.e)? };
    // One that no signature could be verified by would refuse all that it is for.
    if !(256..=1024).contains(&public.n.len()) || public.n[0] == 0 || public.e[0] == 0 {
        return Err(JwkError::NoKey);
    }
    let private = jwk.d.as_ref().map(|_| {
        let of = |name, value| jwk.number(name, value);
        let components = rsa::KeyPairComponents {
            public_key: RsaPublicKeyComponents { n: public.n.clone(), e: public.e.clone() },
            d: of("d", &jwk.d)?,
            p: of("p", &jwk.p)?,
            q: of("q", &jwk.q)?,
            dP: of("dp", &jwk.dp)?,
            dQ: of("dq", &jwk.dq)?,
            qInv: of("qi", &jwk.qi)?,
        };
        RsaKeyPair::from_components(&components).map_err(|_| JwkError::NoKey)
    });
    Ok(Material::Rsa { private: private.transpose()?, public })
}
