//! Values as they stand on etcd: small ones as they are, larger ones in parts under keys of their
//! own, which a pointer names.
//!
//! Parts are written before the pointer, under a name that nobody else has, and never change: who
//! reads a pointer finds all of its parts, or that it was replaced meanwhile.

use aws_lc_rs::rand;
use serde::{Deserialize, Serialize};

use crate::control::issuer::sha256_hex;
use crate::limits::{ETCD_PART_BYTES_MAX, ETCD_VALUE_BYTES_MAX, SNAPSHOT_BYTES_MAX};

/// What a value says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// Itself.
    Here(Vec<u8>),
    /// Where its parts are.
    Parted(Pointer),
}

/// The parts of a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pointer {
    /// What their keys begin with.
    pub(super) name: String,
    parts: usize,
    sha256: String,
}

impl Value {
    /// Reads one; `None`: a pointer that none of ours is.
    pub(super) fn parse(bytes: &[u8]) -> Option<Value> {
        let Some(pointer) = bytes.strip_prefix(MARK) else {
            return Some(Value::Here(bytes.to_vec()));
        };
        let pointer: Pointer = serde_json::from_slice(pointer).ok()?;
        let parts_max = SNAPSHOT_BYTES_MAX.div_ceil(ETCD_PART_BYTES_MAX);
        (1..=parts_max).contains(&pointer.parts).then_some(Value::Parted(pointer))
    }
}

impl Pointer {
    /// What stands for a value; `None`: it can stand for itself.
    pub(super) fn to(bytes: &[u8]) -> Option<Pointer> {
        if bytes.len() <= ETCD_VALUE_BYTES_MAX && !bytes.starts_with(MARK) {
            return None;
        }
        let parts = bytes.len().div_ceil(ETCD_PART_BYTES_MAX);
        Some(Pointer { name: unique(), parts, sha256: sha256_hex(bytes) })
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let json = serde_json::to_vec(self).expect("text and numbers can be written as JSON");
        [MARK, &json].concat()
    }

    /// The keys of its parts, in order.
    pub(super) fn keys(&self) -> impl Iterator<Item = String> {
        (0..self.parts).map(|part| format!("{PARTS}{}/{part:04}", self.name))
    }

    /// Whether these are all parts together.
    pub(super) fn is_of(&self, bytes: &[u8]) -> bool {
        sha256_hex(bytes) == self.sha256
    }
}

/// What a value of any size is split into.
pub(super) fn parts(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.chunks(ETCD_PART_BYTES_MAX)
}

/// What nothing else is called.
pub(super) fn unique() -> String {
    let mut bytes = [0; 12];
    rand::fill(&mut bytes).expect("who has issued certificates has randomness");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How keys of parts begin: behind what is watched, for they are large and read where they are
/// wanted.
pub(super) const PARTS: &str = "values/";
/// No JSON begins so.
const MARK: &[u8] = b"\0parts ";

#[cfg(test)]
mod tests {
    use super::super::mirror::{LIVE, STATE, WATCHED_END};
    use super::*;

    #[test]
    fn parts_are_not_watched() {
        let watched = LIVE..WATCHED_END;
        assert!(watched.contains(&STATE) && !watched.contains(&PARTS));
    }

    #[test]
    fn a_value_beyond_the_limit_is_split_and_comes_back_whole() {
        let value: Vec<u8> = (0..ETCD_PART_BYTES_MAX * 2 + 7).map(|n| (n % 251) as u8).collect();
        let pointer = Pointer::to(&value).unwrap();
        let parts: Vec<&[u8]> = parts(&value).collect();
        assert_eq!((parts.len(), pointer.keys().count()), (3, 3));
        assert!(parts.iter().all(|part| part.len() <= ETCD_PART_BYTES_MAX));
        let read = Value::parse(&pointer.to_bytes()).unwrap();
        assert_eq!(read, Value::Parted(pointer.clone()));
        assert!(pointer.is_of(&parts.concat()) && !pointer.is_of(&parts[..2].concat()));
        assert_ne!(Pointer::to(&value).unwrap().name, pointer.name, "parts never change");
    }

    #[test]
    fn small_values_stand_for_themselves_and_a_false_pointer_is_none() {
        assert_eq!(Pointer::to(b"{}"), None);
        assert_eq!(Value::parse(b"{}"), Some(Value::Here(b"{}".to_vec())));
        assert!(Pointer::to(b"\0parts {}").is_some(), "what looks like a pointer is not put as is");
        assert_eq!(Value::parse(b"\0parts {}"), None);
        let many = br#"{"name":"a","parts":99999999,"sha256":""}"#;
        assert_eq!(Value::parse(&[b"\0parts ".as_slice(), many].concat()), None);
    }
}
