//! An object's heads as an ssd keeps them: all variants in one record, the newest first.
//!
//! Names the object in full, so that a record found by a hash can be told from another object's.
//! A record that cannot be read, or is of another object, is none.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::cache::heads::{Head, Ranges, Version};
use crate::message::recorded::{RecordedResponse, RecordedValidator};
use crate::object::VersionId;

#[derive(Serialize, Deserialize)]
struct RecordedObject {
    site: String,
    target: String,
    variants: Vec<RecordedHead>,
}

#[derive(Serialize, Deserialize)]
struct RecordedHead {
    version: [u8; 16],
    birth: u64,
    length: u64,
    #[serde(default)]
    ranges_ignored: bool,
    validator: RecordedValidator,
    response: RecordedResponse,
}

/// The record of an object. Variants whose length is not known are left out: nothing of them is
/// kept.
pub(super) fn encoded(site: &str, target: &str, heads: &[Arc<Head>]) -> Option<Vec<u8>> {
    let variants: Vec<_> = heads.iter().filter_map(|head| recorded(head)).collect();
    let object = RecordedObject { site: site.to_owned(), target: target.to_owned(), variants };
    (!object.variants.is_empty())
        .then(|| serde_json::to_vec(&object).expect("text, numbers and lists can be written"))
}

/// The heads of a record, if it is this object's.
pub(super) fn decoded(record: &[u8], site: &str, target: &str) -> Option<Vec<Arc<Head>>> {
    let object: RecordedObject = serde_json::from_slice(record).ok()?;
    let same = object.site == site && object.target == target;
    let heads = object.variants.iter().map(restored).collect::<Option<Vec<_>>>()?;
    (same && !heads.is_empty()).then_some(heads)
}

fn recorded(head: &Head) -> Option<RecordedHead> {
    let version = &head.version;
    Some(RecordedHead {
        version: version.id.to_bytes(),
        birth: version.birth,
        length: version.length_bytes()?,
        ranges_ignored: version.ranges_ignored(),
        validator: RecordedValidator::of(&version.validator),
        response: RecordedResponse::of(&head.stored, &head.freshness, &head.variant),
    })
}

fn restored(recorded: &RecordedHead) -> Option<Arc<Head>> {
    let id = VersionId::from_bytes(recorded.version)?;
    let validator = recorded.validator.restored()?;
    let version = Version::new(id, recorded.birth, validator, Some(recorded.length));
    if recorded.ranges_ignored {
        version.learn_ranges(Ranges::Ignored);
    }
    let (stored, freshness, variant) = recorded.response.restored()?;
    Some(Arc::new(Head { version: Arc::new(version), stored, freshness, variant }))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use http::{HeaderMap, HeaderValue, StatusCode};

    use crate::message::freshness::Freshness;
    use crate::message::response::Stored;
    use crate::message::vary::VariantKey;
    use crate::object::VersionNumbers;

    use super::*;

    fn head(length: Option<u64>) -> Arc<Head> {
        let mut fields = HeaderMap::new();
        fields.insert("etag", HeaderValue::from_static("\"one\""));
        let received_at = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let stored = Stored::new(StatusCode::OK, &fields, received_at);
        let id = VersionNumbers::of_epoch(3).assign();
        let version = Version::new(id, 77, stored.validator().clone(), length);
        version.learn_ranges(Ranges::Ignored);
        Arc::new(Head {
            version: Arc::new(version),
            stored,
            freshness: Freshness::expired(received_at),
            variant: VariantKey::default(),
        })
    }

    #[test]
    fn heads_come_back_as_they_were_kept_for_their_object_alone() {
        let head = head(Some(1_234_567));
        let record = encoded("film", "/a.mp4?x=1", std::slice::from_ref(&head)).unwrap();
        let heads = decoded(&record, "film", "/a.mp4?x=1").unwrap();
        let [again] = &heads[..] else { panic!("one variant was kept") };
        assert_eq!(again.version.id, head.version.id);
        assert_eq!((again.version.birth, again.version.length_bytes()), (77, Some(1_234_567)));
        assert_eq!(again.version.validator, head.version.validator);
        assert!(again.version.ranges_ignored());
        assert_eq!(again.freshness, head.freshness);
        assert!(decoded(&record, "film", "/b.mp4?x=1").is_none());
        assert!(decoded(&record, "other", "/a.mp4?x=1").is_none());
        assert!(decoded(&record[..record.len() - 1], "film", "/a.mp4?x=1").is_none());
    }

    #[test]
    fn a_version_without_a_length_is_not_kept() {
        assert!(encoded("film", "/a.mp4", &[head(None)]).is_none());
    }
}
