//! JSON Web Keys (RFC 7517, RFC 7518 section 6, RFC 8037), as key files and JWKS documents hold
//! them.

use std::{error, fmt};

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _,
};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::key::Algorithm;

/// A key as it is written. Numbers and secrets are base64url; unknown members are left alone.
#[derive(Clone, Default, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Jwk {
    pub kty: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    #[serde(rename = "use", skip_serializing_if = "Option::is_none")]
    pub usage: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alg: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crv: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub x: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub y: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub e: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub d: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub q: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dp: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dq: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qi: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub k: Option<String>,
}

impl fmt::Debug for Jwk {
    /// Nothing secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Jwk({}, {:?}, {:?})", self.kty, self.kid, self.alg)
    }
}

/// Why a JWK is no key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JwkError {
    /// A member is missing.
    Lacks(&'static str),
    /// A member is no base64url.
    NoBase64(&'static str),
    /// No algorithm that is known here, or not one of this kind of key.
    Algorithm {
        /// `kty`.
        kind: String,
        /// `alg`.
        algorithm: String,
    },
    /// Its numbers make no key of its kind.
    NoKey,
    /// Its `use` is another than `sig`.
    OtherUse,
    /// An HMAC key that is shorter than what it signs with (RFC 7518 section 3.2).
    Short {
        /// What it has, in bits.
        bits: usize,
        /// What it must have, in bits.
        least: usize,
    },
}

impl fmt::Display for JwkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JwkError::Lacks(member) => write!(f, "it has no `{member}`"),
            JwkError::NoBase64(member) => write!(f, "its `{member}` is no base64url"),
            JwkError::Algorithm { kind, algorithm } => {
                write!(f, "`alg` {algorithm:?} is none that a key of `kty` {kind:?} can have here")
            }
            JwkError::NoKey => {
                write!(f, "its numbers make no key; export it again from where it was made")
            }
            JwkError::OtherUse => write!(f, "it is not to sign with, as `use` says; take it out"),
            JwkError::Short { bits, least } => {
                write!(f, "its `k` has {bits} bits, and {least} are the least")
            }
        }
    }
}

impl error::Error for JwkError {}

impl Jwk {
    /// A new key for this algorithm, with a private half and this id.
    ///
    /// # Errors
    /// RSA keys are not made here: [`JwkError::Algorithm`].
    pub fn generate(algorithm: Algorithm, id: &str) -> Result<Jwk, JwkError> {
        let jwk = Jwk {
            kid: Some(id.to_owned()),
            alg: Some(algorithm.name().to_owned()),
            ..Jwk::default()
        };
        let unable = |_| JwkError::NoKey;
        match algorithm {
            Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512 => {
                let mut secret = vec![0; least_bits(algorithm) / 8];
                rand::fill(&mut secret).map_err(unable)?;
                Ok(Jwk { kty: "oct".to_owned(), k: Some(encoded(&secret)), ..jwk })
            }
            Algorithm::Es256 | Algorithm::Es384 => {
                let (signing, crv) = match algorithm {
                    Algorithm::Es384 => (&ECDSA_P384_SHA384_FIXED_SIGNING, "P-384"),
                    _ => (&ECDSA_P256_SHA256_FIXED_SIGNING, "P-256"),
                };
                let pair = EcdsaKeyPair::generate(signing).map_err(unable)?;
                let (x, y) = coordinates(pair.public_key().as_ref());
                let private = pair.private_key();
                let d: aws_lc_rs::encoding::EcPrivateKeyBin<'_> =
                    aws_lc_rs::encoding::AsBigEndian::as_be_bytes(&private).map_err(unable)?;
                Ok(Jwk {
                    kty: "EC".to_owned(),
                    crv: Some(crv.to_owned()),
                    x: Some(encoded(x)),
                    y: Some(encoded(y)),
                    d: Some(encoded(d.as_ref())),
                    ..jwk
                })
            }
            Algorithm::EdDsa => {
                let pair = Ed25519KeyPair::generate().map_err(unable)?;
                let seed = pair.seed().map_err(unable)?;
                let seed: aws_lc_rs::encoding::Curve25519SeedBin<'_> =
                    aws_lc_rs::encoding::AsBigEndian::as_be_bytes(&seed).map_err(unable)?;
                Ok(Jwk {
                    kty: "OKP".to_owned(),
                    crv: Some("Ed25519".to_owned()),
                    x: Some(encoded(pair.public_key().as_ref())),
                    d: Some(encoded(seed.as_ref())),
                    ..jwk
                })
            }
            _ => Err(JwkError::Algorithm {
                kind: "RSA".to_owned(),
                algorithm: algorithm.name().to_owned(),
            }),
        }
    }

    /// Without what is to be kept secret; `None`: all of it is.
    pub fn public(&self) -> Option<Jwk> {
        let (d, p, q, dp, dq, qi) = Default::default();
        let k = None;
        (self.kty != "oct").then(|| Jwk { d, p, q, dp, dq, qi, k, ..self.clone() })
    }

    /// Whether claims are sealed with it (RFC 7516), and nothing is signed.
    pub fn is_sealing(&self) -> bool {
        self.kty == "oct"
            && (self.alg.as_deref() == Some(SEALS) || self.usage.as_deref() == Some("enc"))
    }

    /// How it signs. What a curve leaves no choice of need not be said.
    pub(super) fn algorithm(&self) -> Result<Algorithm, JwkError> {
        if self.usage.as_deref().is_some_and(|usage| usage != "sig") {
            return Err(JwkError::OtherUse);
        }
        let curve = match (self.kty.as_str(), self.crv.as_deref()) {
            ("EC", Some("P-256")) => Some(Algorithm::Es256),
            ("EC", Some("P-384")) => Some(Algorithm::Es384),
            ("OKP", Some("Ed25519")) => Some(Algorithm::EdDsa),
            _ => None,
        };
        let Some(said) = &self.alg else { return curve.ok_or(JwkError::Lacks("alg")) };
        let fits = |algorithm: &Algorithm| match self.kty.as_str() {
            "oct" => algorithm.is_symmetric(),
            "RSA" => matches!(algorithm.name().as_bytes(), [b'R' | b'P', b'S', ..]),
            _ => curve == Some(*algorithm),
        };
        Algorithm::named(said)
            .filter(fits)
            .ok_or_else(|| JwkError::Algorithm { kind: self.kty.clone(), algorithm: said.clone() })
    }

    /// The secret of an HMAC key.
    pub(super) fn secret(&self, algorithm: Algorithm) -> Result<Vec<u8>, JwkError> {
        let secret = self.number("k", &self.k)?;
        let (bits, least) = (secret.len() * 8, least_bits(algorithm));
        if bits < least { Err(JwkError::Short { bits, least }) } else { Ok(secret) }
    }

    pub(super) fn number(
        &self,
        name: &'static str,
        value: &Option<String>,
    ) -> Result<Vec<u8>, JwkError> {
        let value = value.as_ref().ok_or(JwkError::Lacks(name))?;
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(value.trim_end_matches('='));
        let bytes = bytes.map_err(|_| JwkError::NoBase64(name))?;
        if bytes.is_empty() { Err(JwkError::Lacks(name)) } else { Ok(bytes) }
    }
}

/// A key that claims are sealed with: JWE (RFC 7516) with `dir` and A128GCM.
pub struct SealingKey {
    /// Its id, `kid`.
    pub id: String,
    key: LessSafeKey,
}

impl fmt::Debug for SealingKey {
    /// Nothing secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingKey({:?})", self.id)
    }
}

impl SealingKey {
    /// The key that a JWK describes.
    ///
    /// # Errors
    /// It describes none of 128 bits.
    pub fn of(jwk: &Jwk) -> Result<SealingKey, JwkError> {
        let key = UnboundKey::new(&AES_128_GCM, &jwk.number("k", &jwk.k)?);
        let key = LessSafeKey::new(key.map_err(|_| JwkError::NoKey)?);
        Ok(SealingKey { id: jwk.kid.clone().ok_or(JwkError::Lacks("kid"))?, key })
    }

    /// What is sealed in a JWE in compact form; `None`: it is not of this key, or none.
    pub fn open(&self, sealed: &str) -> Option<Vec<u8>> {
        let parts: Vec<&str> = sealed.split('.').collect();
        let [header, "", nonce, text, tag] = parts[..] else { return None };
        let decode = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).ok();
        let said: SealedHeader = serde_json::from_slice(&decode(header)?).ok()?;
        let is_plain = said.crit.is_none() && said.zip.is_none();
        if !is_plain || said.alg != "dir" || said.enc != SEALS {
            return None;
        }
        if said.kid.is_some_and(|kid| kid != self.id) {
            return None;
        }
        let nonce = Nonce::try_assume_unique_for_key(&decode(nonce)?).ok()?;
        let mut text = decode(text)?;
        text.extend(decode(tag)?);
        let opened = self.key.open_in_place(nonce, Aad::from(header), &mut text).ok()?;
        Some(opened.to_vec())
    }

    /// `text` sealed, as a JWE in compact form; `None`: there is no randomness.
    pub fn seal(&self, text: &[u8]) -> Option<String> {
        let header = serde_json::json!({ "alg": "dir", "enc": SEALS, "kid": self.id });
        let header = encoded(header.to_string().as_bytes());
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let mut sealed = text.to_vec();
        let aad = Aad::from(header.as_str());
        let unique = Nonce::assume_unique_for_key(nonce);
        let tag = self.key.seal_in_place_separate_tag(unique, aad, &mut sealed).ok()?;
        let (nonce, sealed, tag) = (encoded(&nonce), encoded(&sealed), encoded(tag.as_ref()));
        Some(format!("{header}..{nonce}.{sealed}.{tag}"))
    }
}

#[derive(Deserialize)]
struct SealedHeader {
    alg: String,
    enc: String,
    kid: Option<String>,
    /// What is demanded (RFC 7516 section 4.1.13), and compression: neither is known here.
    crit: Option<serde_json::Value>,
    zip: Option<serde_json::Value>,
}

/// The one content encryption of JWE that is known here.
const SEALS: &str = "A128GCM";

pub(super) fn encoded(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn least_bits(algorithm: Algorithm) -> usize {
    match algorithm {
        Algorithm::Hs384 => 384,
        Algorithm::Hs512 => 512,
        _ => 256,
    }
}

/// Of a point that is written whole: a byte that says so, then each coordinate.
fn coordinates(point: &[u8]) -> (&[u8], &[u8]) {
    point[1..].split_at(point.len() / 2)
}
