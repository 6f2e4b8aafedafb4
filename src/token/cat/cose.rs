//! What a Common Access Token is signed in: COSE_Mac0 or COSE_Sign1 (RFC 9052), perhaps said to be
//! a CWT (RFC 8392), in base64url.
//!
//! How it is verified, its key says and nobody else: a token that names another algorithm, or
//! stands in what is not for that algorithm, is not of that key.

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use coset::cbor::Value;
use coset::{
    MacContext, ProtectedHeader, SignatureContext, mac_structure_data, sig_structure_data,
};

use super::cbor::{at, int, read, written};
use super::denied::Denied;
use crate::limits::{ACCESS_TOKEN_BYTES_MAX, TOKEN_KEYS_TRIED_MAX};
use crate::token::jwk::encoded;
use crate::token::key::Key;
use crate::token::key_file::Keys;

/// A token, not verified.
#[derive(Debug)]
pub(super) struct Envelope {
    kind: Kind,
    /// The header that is signed, as it is written.
    protected: Vec<u8>,
    /// What that one says, and the one that is not signed.
    heads: [Head; 2],
    /// What is signed.
    pub(super) payload: Vec<u8>,
    signature: Vec<u8>,
}

/// What a header says.
#[derive(Debug, Default)]
struct Head {
    algorithm: Option<Algorithm>,
    id: Option<Vec<u8>>,
    /// It demands something.
    is_critical: bool,
}

/// An algorithm as it is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Number(i64),
    /// By a name, of which there are none here.
    Other,
}

/// What it stands in, by its tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Mac0 = 17,
    Sign1 = 18,
}

impl Kind {
    /// The one that a key signs in.
    fn of(key: &Key) -> Kind {
        if key.algorithm().is_symmetric() { Kind::Mac0 } else { Kind::Sign1 }
    }

    /// What is signed in truth.
    fn signed(self, protected: &[u8], payload: &[u8]) -> Vec<u8> {
        let original_data = Some(protected.to_vec());
        let protected = ProtectedHeader { original_data, ..ProtectedHeader::default() };
        match self {
            Kind::Mac0 => mac_structure_data(MacContext::CoseMac0, protected, &[], payload),
            Kind::Sign1 => {
                let context = SignatureContext::CoseSign1;
                sig_structure_data(context, protected, None, &[], payload)
            }
        }
    }
}

/// Whether a text has the form of one, whatever is in it.
pub(super) fn is_one(token: &str) -> bool {
    let starts = |bytes: &[u8]| matches!(bytes, [0xd8, 61, 0xd1 | 0xd2, ..] | [0xd1 | 0xd2, ..]);
    token.get(..4).and_then(decoded).is_some_and(|bytes| starts(&bytes))
}

impl Envelope {
    /// Reads a token. Nothing that is not signed is believed yet.
    pub(super) fn read(token: &str) -> Option<Envelope> {
        if token.len() > ACCESS_TOKEN_BYTES_MAX {
            return None;
        }
        let (tag, inside) = read(&decoded(token)?)?.into_tag().ok()?;
        let (tag, inside) = if tag == CWT { inside.into_tag().ok()? } else { (tag, inside) };
        let kind = [Kind::Mac0, Kind::Sign1].into_iter().find(|kind| *kind as u64 == tag)?;
        let parts: [Value; 4] = inside.into_array().ok()?.try_into().ok()?;
        let [protected, unprotected, payload, signature] = parts;
        let protected = protected.into_bytes().ok()?;
        // RFC 9052 section 3: an empty one may be left out.
        let signed = if protected.is_empty() { Value::Map(Vec::new()) } else { read(&protected)? };
        Some(Envelope {
            kind,
            protected,
            heads: [Head::of(&signed)?, Head::of(&unprotected)?],
            payload: payload.into_bytes().ok()?,
            signature: signature.into_bytes().ok()?,
        })
    }

    /// The keys that it is signed with; those of who says that he has issued it are tried first.
    ///
    /// # Errors
    /// None has, or it demands what is not known here (RFC 9052 section 3.1).
    pub(super) fn signers<'a>(
        &self,
        keys: &'a Keys,
        issuer: Option<&str>,
    ) -> Result<Vec<&'a Key>, Denied> {
        if self.heads.iter().any(|head| head.is_critical) {
            return Err(Denied::Critical);
        }
        // What is said without being signed must not say how it is signed.
        let [Some(Algorithm::Number(algorithm)), None] =
            self.heads.each_ref().map(|it| it.algorithm)
        else {
            return Err(Denied::Signature);
        };
        let id = match self.heads.each_ref().map(|head| head.id.as_deref()) {
            [None, id] | [id, None] => id,
            [one, other] if one == other => one,
            _ => return Err(Denied::Signature),
        };
        let id = id.map(std::str::from_utf8).transpose().map_err(|_| Denied::Signature)?;
        let could = keys
            .first_of(issuer, id)
            .filter(|key| key.algorithm().cose_number() == algorithm && Kind::of(key) == self.kind);
        let signed = self.kind.signed(&self.protected, &self.payload);
        // Whoever asks makes us try them.
        let tried = could.take(TOKEN_KEYS_TRIED_MAX);
        let by: Vec<_> = tried.filter(|key| key.verifies(&signed, &self.signature)).collect();
        if by.is_empty() { Err(Denied::Signature) } else { Ok(by) }
    }

    /// What it says of itself: `alg` and `kid`, where they are there.
    pub(super) fn told(&self) -> (Option<i64>, Option<String>) {
        let algorithm = match self.heads[0].algorithm {
            Some(Algorithm::Number(number)) => Some(number),
            _ => None,
        };
        let id = self.heads.iter().find_map(|head| head.id.as_ref());
        (algorithm, id.map(|id| String::from_utf8_lossy(id).into_owned()))
    }
}

impl Head {
    /// `None`: it is none.
    fn of(value: &Value) -> Option<Head> {
        let map = value.as_map()?;
        let id = match at(map, KEY_ID) {
            None => None,
            Some(Value::Bytes(id)) => Some(id.clone()),
            // Some write it as text, where it is bytes (RFC 9052 section 3.1).
            Some(id) => Some(id.as_text()?.into()),
        };
        let number = |value| int(value).map_or(Algorithm::Other, Algorithm::Number);
        Some(Head {
            algorithm: at(map, ALGORITHM).map(number),
            id,
            is_critical: at(map, CRITICAL).is_some(),
        })
    }
}

/// A token of what is to be signed; `None`: the key cannot.
pub(super) fn signed(payload: Vec<u8>, key: &Key) -> Option<String> {
    let number = key.algorithm().cose_number();
    let protected = written(&Value::Map(vec![(ALGORITHM.into(), number.into())]));
    let unprotected = Value::Map(vec![(KEY_ID.into(), key.id().as_bytes().into())]);
    let kind = Kind::of(key);
    let signature = key.sign(&kind.signed(&protected, &payload))?;
    let parts = [protected.into(), unprotected, payload.into(), signature.into()];
    let inside = Value::Tag(kind as u64, Box::new(Value::Array(parts.into())));
    Some(encoded(&written(&Value::Tag(CWT, Box::new(inside)))))
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    // CTA-5007 section 4.3.1.1: padding may be left out.
    const CONFIG: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    const BASE64: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, CONFIG);
    BASE64.decode(text).ok()
}

/// The tag of a CWT.
const CWT: u64 = 61;
/// Labels of headers.
const ALGORITHM: i64 = 1;
const CRITICAL: i64 = 2;
const KEY_ID: i64 = 4;
