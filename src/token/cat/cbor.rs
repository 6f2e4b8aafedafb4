//! CBOR (RFC 8949) as tokens have it: one item and nothing behind it, with lengths that are told,
//! and no key of a map twice: of two, one reader would believe the first and another the second.
//!
//! How deep it is and of how many parts is looked at first, before anything is made of it.

use coset::cbor::{self, Value};

use crate::limits::{TOKEN_ITEMS_MAX, TOKEN_NESTED_MAX};

/// A map, in its order.
pub(super) type Map = Vec<(Value, Value)>;

/// The item that `bytes` are; `None`: they are none, or more than that.
pub(super) fn read(bytes: &[u8]) -> Option<Value> {
    if !is_bounded(bytes) {
        return None;
    }
    let value: Value = cbor::from_reader(bytes).ok()?;
    is_unambiguous(&value).then_some(value)
}

/// The shortest spelling of an item.
pub(super) fn written(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    cbor::into_writer(value, &mut bytes).expect("memory can be written to");
    bytes
}

/// A map, by itself or behind the tag by which some say that its keys may be of any kind.
pub(super) fn map(value: &Value) -> Option<&Map> {
    match value {
        Value::Map(map) => Some(map),
        Value::Tag(MAP_OF_ANY_KEYS, inside) => inside.as_map(),
        _ => None,
    }
}

/// What a map has by this number.
pub(super) fn at(map: &Map, label: i64) -> Option<&Value> {
    map.iter().find(|(key, _)| int(key) == Some(label)).map(|(_, value)| value)
}

/// A whole number.
pub(super) fn int(value: &Value) -> Option<i64> {
    i64::try_from(value.as_integer()?).ok()
}

/// A whole number that is not negative.
pub(super) fn whole(value: &Value) -> Option<u64> {
    u64::try_from(value.as_integer()?).ok()
}

/// Any number there is.
pub(super) fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(whole) => Some(i128::from(*whole) as f64),
        Value::Float(number) => number.is_finite().then_some(*number),
        _ => None,
    }
}

/// A number of seconds, as a whole one where it is one.
pub(super) fn seconds(value: f64) -> Value {
    Value::from(value as i64)
}

/// Whether they are one item of a sound size and nothing else.
fn is_bounded(bytes: &[u8]) -> bool {
    // Of each item that has others in it, how many are to come.
    let mut open = vec![1_u64];
    let (mut rest, mut items) = (bytes, 0);
    while let Some(to_come) = open.last_mut() {
        if *to_come == 0 {
            open.pop();
            continue;
        }
        *to_come -= 1;
        items += 1;
        let Some((kind, argument, tail)) = head(rest) else { return false };
        rest = tail;
        match kind {
            BYTES | TEXT => match usize::try_from(argument).ok().and_then(|n| rest.get(n..)) {
                Some(tail) => rest = tail,
                None => return false,
            },
            ARRAY => open.push(argument),
            MAP => open.push(argument.saturating_mul(2)),
            TAG => open.push(1),
            _ => {}
        }
        if items > TOKEN_ITEMS_MAX || open.len() > TOKEN_NESTED_MAX {
            return false;
        }
    }
    rest.is_empty()
}

/// What an item begins with: its kind, and the number that belongs to it. `None`: it is cut short,
/// or its length is not told.
fn head(bytes: &[u8]) -> Option<(u8, u64, &[u8])> {
    let (first, rest) = bytes.split_first()?;
    let (kind, low) = (first >> 5, first & 0x1f);
    let size = match low {
        ..24 => return Some((kind, low.into(), rest)),
        24..=27 => 1 << (low - 24),
        _ => return None,
    };
    let (number, rest) = rest.split_at_checked(size)?;
    let argument = number.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    Some((kind, argument, rest))
}

/// Whether no map has two of a key, nor keys that are neither numbers nor names.
fn is_unambiguous(value: &Value) -> bool {
    match value {
        Value::Array(all) => all.iter().all(is_unambiguous),
        Value::Tag(_, inside) => is_unambiguous(inside),
        Value::Map(map) => map.iter().enumerate().all(|(n, (key, value))| {
            let is_key = matches!(key, Value::Integer(_) | Value::Text(_));
            is_key && map[..n].iter().all(|(other, _)| other != key) && is_unambiguous(value)
        }),
        _ => true,
    }
}

const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;
/// Of the registry of CBOR tags.
const MAP_OF_ANY_KEYS: u64 = 259;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_single_bounded_item_is_not_read() {
        let deep = |depth: usize| [vec![0x81; depth], vec![0x00]].concat();
        let wide = |count: usize| [vec![0x99, (count >> 8) as u8, count as u8], vec![0; count]];
        assert!(read(&deep(TOKEN_NESTED_MAX - 1)).is_some());
        assert!(read(&wide(TOKEN_ITEMS_MAX - 1).concat()).is_some());
        for (bytes, why) in [
            (vec![], "nothing"),
            (vec![0x00, 0x00], "something behind it"),
            (vec![0x18], "cut short"),
            (vec![0x9f, 0x00, 0xff], "an array without a length"),
            (vec![0x5f, 0x41, 0x00, 0xff], "bytes without a length"),
            (vec![0xff], "an end of nothing"),
            (vec![0x1c], "reserved"),
            (vec![0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], "endless"),
            (vec![0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], "endless bytes"),
            (vec![0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], "endless map"),
            (vec![0xa2, 0x01, 0x00, 0x01, 0x00], "a key twice"),
            (vec![0xa2, 0x01, 0x00, 0x18, 0x01, 0x00], "a key twice, spelled differently"),
            (vec![0xa1, 0x01, 0xa2, 0x61, 0x61, 0x00, 0x61, 0x61, 0x01], "a name twice, inside"),
            (vec![0xa1, 0xf9, 0x7e, 0x00, 0x00], "no number as a key"),
            (vec![0x61, 0xff], "text that is none"),
            (deep(TOKEN_NESTED_MAX), "too deep"),
            (deep(8_000), "much too deep"),
            (wide(TOKEN_ITEMS_MAX).concat(), "too many"),
        ] {
            assert!(read(&bytes).is_none(), "{why}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_and_read_again(
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            if let Some(value) = read(&bytes) {
                let again = read(&written(&value)).unwrap();
                prop_assert_eq!(written(&again), written(&value));
            }
        }
    }
}
