//! The tags an origin gave a response: `Cache-Tag`, `Surrogate-Key` and `xkey`.
//!
//! They are for caches, and no viewer sees them. Letters count as they are written. A head
//! remembers hashes of them; what has more tags than are remembered counts as having all.

use http::HeaderMap;

use super::scope::tag_hash;
use crate::limits::TAGS_PER_HEAD_MAX;

/// A response's tags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags {
    hashes: Box<[u64]>,
    /// There were more.
    all: bool,
}

/// The fields that hold tags, and whether commas part them rather than spaces.
const FIELDS: [(&str, Parted); 3] = [
    ("cache-tag", Parted::ByCommas),
    ("surrogate-key", Parted::BySpaces),
    ("xkey", Parted::BySpaces),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Parted {
    ByCommas,
    BySpaces,
}

impl Tags {
    /// Takes the tags out of a response's fields; `None` if there are no such fields.
    pub fn take_from(fields: &mut HeaderMap) -> Option<Tags> {
        let mut hashes = Vec::new();
        let (mut all, mut found) = (false, false);
        for (name, parted) in FIELDS {
            if !fields.contains_key(name) {
                continue;
            }
            found = true;
            for line in fields.get_all(name) {
                let is_border = |byte: &u8| match parted {
                    Parted::ByCommas => *byte == b',',
                    Parted::BySpaces => matches!(byte, b' ' | b'\t'),
                };
                let tags = line.as_bytes().split(is_border).map(<[u8]>::trim_ascii);
                for tag in tags.filter(|tag| !tag.is_empty()) {
                    let hash = tag_hash(tag);
                    if hashes.contains(&hash) {
                        continue;
                    }
                    if hashes.len() == TAGS_PER_HEAD_MAX {
                        all = true;
                        break;
                    }
                    hashes.push(hash);
                }
            }
            fields.remove(name);
        }
        found.then(|| Tags { hashes: hashes.into(), all })
    }

    /// As they are written with a head.
    pub fn to_recorded(&self) -> (Vec<u64>, bool) {
        (self.hashes.to_vec(), self.all)
    }

    /// Of a head that was written.
    pub fn recorded(mut hashes: Vec<u64>, all: bool) -> Tags {
        let all = all || hashes.len() > TAGS_PER_HEAD_MAX;
        hashes.truncate(TAGS_PER_HEAD_MAX);
        Tags { hashes: hashes.into(), all }
    }

    /// Bytes in memory beside the value itself.
    pub fn size_bytes(&self) -> usize {
        size_of_val(&*self.hashes)
    }

    pub(super) fn hashes(&self) -> &[u64] {
        &self.hashes
    }

    pub(super) fn are_all(&self) -> bool {
        self.all
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn taken(fields: &[(&'static str, &'static str)]) -> (Option<Tags>, HeaderMap) {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_static(value));
        }
        (Tags::take_from(&mut map), map)
    }

    #[test]
    fn tags_are_told_apart_as_each_field_parts_them() {
        type Fields = &'static [(&'static str, &'static str)];
        let table: [(Fields, &[&str]); 7] = [
            (&[("cache-tag", "a")], &["a"]),
            (&[("cache-tag", " a , b c,,d\t")], &["a", "b c", "d"]),
            (&[("cache-tag", "a,b"), ("cache-tag", "b,c")], &["a", "b", "c"]),
            (&[("surrogate-key", "a b,c  d")], &["a", "b,c", "d"]),
            (&[("xkey", "a\tb"), ("xkey", "A")], &["a", "b", "A"]),
            (&[("xkey", "a"), ("surrogate-key", "b"), ("cache-tag", "c")], &["c", "b", "a"]),
            (&[("cache-tag", " , ")], &[]),
        ];
        for (fields, tags) in table {
            let (found, left) = taken(fields);
            let hashes: Vec<u64> = tags.iter().map(|tag| tag_hash(tag.as_bytes())).collect();
            assert_eq!(found.unwrap().hashes(), hashes, "{fields:?}");
            assert!(left.is_empty(), "no viewer sees them");
        }
        let (found, left) = taken(&[("surrogate-control", "max-age=1"), ("x", "y")]);
        assert!(found.is_none() && left.len() == 2);
    }

    #[test]
    fn more_tags_than_are_remembered_count_as_all() {
        let many = |count: usize| {
            let tags: Vec<String> = (0..count).map(|number| number.to_string()).collect();
            let mut fields = HeaderMap::new();
            fields.insert("cache-tag", tags.join(",").parse().unwrap());
            Tags::take_from(&mut fields).unwrap()
        };
        let (most, more) = (many(TAGS_PER_HEAD_MAX), many(TAGS_PER_HEAD_MAX + 1));
        assert!(!most.are_all() && more.are_all());
        assert_eq!(most.hashes(), more.hashes());
        for tags in [most, more] {
            let (hashes, all) = tags.to_recorded();
            assert_eq!(Tags::recorded(hashes, all), tags);
        }
        assert!(Tags::recorded(vec![7; TAGS_PER_HEAD_MAX + 1], false).are_all());
    }
}
