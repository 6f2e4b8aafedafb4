//! An object's heads as an ssd keeps them: all variants in one record, the newest first.
//!
//! Names the object in full, so that a record found by a hash can be told from another object's.
//! A record that cannot be read, or is of another object, is none. What is read is judged by the
//! rule of now: a record says which fields a rule had edited, and where the rule of now leaves one
//! of them alone nobody knows what its origin had said.

use std::sync::Arc;
use std::time::SystemTime;

use http::header::{ETAG, HeaderName, LAST_MODIFIED, VARY};
use serde::{Deserialize, Serialize};

use crate::cache::heads::{Head, Ranges, Version};
use crate::message::freshness::{Assessment, Exchange, Freshness, assess};
use crate::message::recorded::{RecordedResponse, RecordedValidator};
use crate::message::response;
use crate::object::{ObjectKey, VersionId};
use crate::purge::{Birth, Tags};
use crate::site::{Rule, Site, Sites};

#[derive(Serialize, Deserialize)]
struct RecordedObject {
    site: String,
    target: String,
    variants: Vec<RecordedHead>,
    /// Names of the fields that a rule had edited.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    edited: Vec<String>,
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
    /// Whose purges were counted when its origin was asked, and how many there had been.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    asked: Option<[u64; 2]>,
    /// Hashes of its tags; in records of before they stand in the response.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tags: Vec<u64>,
    /// It had more tags than these.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    all_tags: bool,
}

/// What an object is called in full, the same in every process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ObjectName<'a> {
    /// Its site's.
    pub(super) site: &'a str,
    /// Its path and query.
    pub(super) target: &'a str,
}

impl<'a> ObjectName<'a> {
    /// Of an object of `site`.
    pub(super) fn of(site: &'a Site, key: &'a ObjectKey) -> ObjectName<'a> {
        ObjectName { site: &site.name, target: key.target() }
    }
}

/// The record of an object. Variants whose length is not known are left out: nothing of them is
/// kept. Their fields were edited by `rule`, or by one before it.
pub(super) fn encoded(
    name: ObjectName<'_>,
    (rule, edited_before): (&Rule, &[(SystemTime, HeaderName)]),
    heads: &[Arc<Head>],
) -> Option<Vec<u8>> {
    let variants: Vec<_> = heads.iter().filter_map(|head| recorded(head)).collect();
    let received = heads.iter().map(|head| head.freshness.received_at).min();
    let before = edited_before.iter().filter(|(until, _)| received <= Some(*until));
    let edited = rule.edited().chain(before.map(|(_, name)| name));
    let edited = edited.map(|name| name.as_str().to_owned()).collect();
    let (site, target) = (name.site.to_owned(), name.target.to_owned());
    let object = RecordedObject { site, target, variants, edited };
    (!object.variants.is_empty())
        .then(|| serde_json::to_vec(&object).expect("text, numbers and lists can be written"))
}

/// The heads of a record, if it is this object's, as far as `rule` lets them be shared.
pub(super) fn decoded(record: &[u8], name: ObjectName<'_>, rule: &Rule) -> Option<Vec<Arc<Head>>> {
    let object: RecordedObject = serde_json::from_slice(record).ok()?;
    let same = ObjectName { site: &object.site, target: &object.target } == name;
    if same { heads_of(&object, rule) } else { None }
}

/// The heads of a record of whatever object of these sites, as far as its rule lets them be shared.
pub(super) fn decoded_of_any(record: &[u8], sites: &Sites) -> Option<(ObjectKey, Vec<Arc<Head>>)> {
    let object: RecordedObject = serde_json::from_slice(record).ok()?;
    let site = sites.iter().find(|site| site.name == object.site)?;
    let key = ObjectKey::new(site.id, &object.target);
    let heads = heads_of(&object, site.rule_for(key.path()))?;
    Some((key, heads))
}

fn heads_of(object: &RecordedObject, rule: &Rule) -> Option<Vec<Arc<Head>>> {
    let edits_again = |edited: &String| rule.edited().any(|name| name.as_str() == edited);
    if !object.edited.iter().all(edits_again) {
        return None;
    }
    let heads = object.variants.iter().map(restored).collect::<Option<Vec<_>>>()?;
    let heads: Vec<_> = heads.into_iter().filter_map(|head| judged(head, rule)).collect();
    (!heads.is_empty()).then(|| heads.into_iter().map(Arc::new).collect())
}

/// Whether its origin is to be asked about it although neither its fields nor this rule say so.
pub(super) fn is_doubted(head: &Head, rule: &Rule) -> bool {
    let says_so = || judged(head.clone(), rule).is_some_and(|judged| judged.freshness.no_cache);
    head.freshness.no_cache && !says_so()
}

/// The head as this rule would have had it stored; `None` if it would not.
fn judged(head: Head, rule: &Rule) -> Option<Head> {
    let mut fields = head.stored.fields().clone();
    response::edit(rule, &mut fields);
    Tags::take_from(&mut fields);
    let Freshness { received_at, initial_age, .. } = head.freshness;
    let assessment = assess(&Exchange {
        // Had it been answered to credentials alone, it would not have been shared.
        request_has_authorization: false,
        status: head.stored.status(),
        headers: &fields,
        requested_at: received_at,
        received_at,
        lifetimes: &rule.lifetimes,
    });
    let Assessment::Shared(freshness) = assessment else { return None };
    // `Age` is not stored.
    let freshness = Freshness { initial_age, ..freshness };
    if fields == *head.stored.fields() {
        return Some(Head { freshness, ..head });
    }
    let tells_versions_apart =
        |name| head.stored.fields().get_all(name).iter().ne(fields.get_all(name).iter());
    if [&ETAG, &LAST_MODIFIED, &VARY].into_iter().any(tells_versions_apart) {
        return None;
    }
    let stored = head.stored.refreshed(&fields, received_at);
    Some(Head { stored, freshness, ..head })
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
        asked: head.birth.to_recorded(),
        tags: head.tags.to_recorded().0,
        all_tags: head.tags.to_recorded().1,
    })
}

fn restored(recorded: &RecordedHead) -> Option<Head> {
    let id = VersionId::from_bytes(recorded.version)?;
    let validator = recorded.validator.restored()?;
    let version = Version::new(id, recorded.birth, validator, Some(recorded.length));
    if recorded.ranges_ignored {
        version.learn_ranges(Ranges::Ignored);
    }
    let (mut stored, freshness, variant) = recorded.response.restored()?;
    let mut fields = stored.fields().clone();
    let tags = match Tags::take_from(&mut fields) {
        Some(tags) => {
            stored = stored.refreshed(&fields, freshness.received_at);
            tags
        }
        None => Tags::recorded(recorded.tags.clone(), recorded.all_tags),
    };
    let birth = Birth::recorded(recorded.asked);
    Some(Head { version: Arc::new(version), stored, freshness, variant, birth, tags })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use http::{HeaderMap, HeaderValue, StatusCode};

    use crate::message::response::Stored;
    use crate::message::vary::VariantKey;
    use crate::object::VersionNumbers;
    use crate::site::{FieldEdits, Lifetimes};

    use super::*;

    fn head(length: Option<u64>) -> Arc<Head> {
        let mut fields = HeaderMap::new();
        fields.insert("etag", HeaderValue::from_static("\"one\""));
        fields.insert("cache-control", HeaderValue::from_static("max-age=600, must-revalidate"));
        let received_at = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let stored = Stored::new(StatusCode::OK, &fields, received_at);
        let id = VersionNumbers::of_epoch(3).assign();
        let version = Version::new(id, 77, stored.validator().clone(), length);
        version.learn_ranges(Ranges::Ignored);
        Arc::new(Head {
            version: Arc::new(version),
            stored,
            freshness: Freshness {
                received_at,
                initial_age: Duration::from_secs(7),
                lifetime: Duration::from_secs(600),
                no_cache: false,
                ..Freshness::expired(received_at)
            },
            variant: VariantKey::default(),
            birth: Birth::recorded(Some([u64::MAX, 5])),
            tags: Tags::recorded(vec![u64::MAX, 1], true),
        })
    }

    #[test]
    fn heads_come_back_as_they_were_kept_for_their_object_alone() {
        let head = head(Some(1_234_567));
        let rule = rule(Lifetimes::default(), FieldEdits::default());
        let record = record_of(&head, &rule);
        let heads = decoded(&record, NAME, &rule).unwrap();
        let [again] = &heads[..] else { panic!("one variant was kept") };
        assert_eq!(again.version.id, head.version.id);
        assert_eq!((again.version.birth, again.version.length_bytes()), (77, Some(1_234_567)));
        assert_eq!(again.version.validator, head.version.validator);
        assert!(again.version.ranges_ignored());
        assert_eq!(again.freshness, head.freshness);
        assert_eq!(again.birth.to_recorded(), Some([u64::MAX, 5]));
        assert_eq!(again.tags, head.tags);
        assert!(decoded(&record, ObjectName { target: "/b.mp4?x=1", ..NAME }, &rule).is_none());
        assert!(decoded(&record, ObjectName { site: "other", ..NAME }, &rule).is_none());
        assert!(decoded(&record[..record.len() - 1], NAME, &rule).is_none());
    }

    #[test]
    fn heads_are_judged_by_the_rule_of_now() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let kept = Lifetimes::default();
        let edits = |remove: &[&'static str], add: &[(&'static str, &'static str)]| FieldEdits {
            remove: remove.iter().map(|name| HeaderName::from_static(name)).collect(),
            add: add
                .iter()
                .map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)))
                .collect(),
        };
        let none = || edits(&[], &[]);
        let public = || edits(&["set-cookie"], &[("cache-control", "public, max-age=900")]);
        // The rule then and the rule of now, and how long the head is fresh by that.
        let table = [
            (rule(kept, none()), rule(kept, none()), seconds(600)),
            (rule(kept, none()), rule(Lifetimes { most: seconds(9), ..kept }, none()), seconds(9)),
            (
                rule(kept, none()),
                rule(Lifetimes { least: seconds(999), ..kept }, none()),
                seconds(999),
            ),
            (rule(kept, none()), rule(kept, edits(&[], &[("cache-control", "no-store")])), None),
            (rule(kept, none()), rule(kept, edits(&[], &[("x-new", "1")])), seconds(600)),
            (rule(kept, none()), rule(kept, edits(&["etag"], &[])), None),
            (rule(kept, public()), rule(kept, public()), seconds(900)),
            // Nobody knows what its origin had said.
            (rule(kept, public()), rule(kept, none()), None),
            (rule(kept, public()), rule(kept, edits(&["set-cookie"], &[])), None),
        ];
        for (number, (then, now, lifetime)) in table.iter().enumerate() {
            let heads = decoded(&record_of(&head(Some(5)), then), NAME, now);
            let found = heads.as_ref().map(|heads| heads[0].freshness.lifetime);
            assert_eq!(found, *lifetime, "{number}");
            let Some(heads) = heads else { continue };
            assert_eq!(heads[0].freshness.initial_age, Duration::from_secs(7), "{number}");
            for (name, value) in &now.response.add {
                assert_eq!(heads[0].stored.fields().get(name), Some(value), "{number}");
            }
        }
    }

    #[test]
    fn what_a_rule_of_before_edited_is_not_taken_for_what_the_origin_said() {
        let rule = rule(Lifetimes::default(), FieldEdits::default());
        let head = head(Some(5));
        let kept = |until| {
            let before = [(until, HeaderName::from_static("set-cookie"))];
            let record = encoded(NAME, (&rule, &before), std::slice::from_ref(&head)).unwrap();
            decoded(&record, NAME, &rule).is_some()
        };
        let received_at = head.freshness.received_at;
        assert!(!kept(received_at));
        assert!(kept(received_at - Duration::from_secs(1)), "it came later");
    }

    const NAME: ObjectName<'static> = ObjectName { site: "film", target: "/a.mp4?x=1" };

    fn record_of(head: &Arc<Head>, rule: &Rule) -> Vec<u8> {
        encoded(NAME, (rule, &[]), std::slice::from_ref(head)).unwrap()
    }

    fn rule(lifetimes: Lifetimes, response: FieldEdits) -> Rule {
        Rule { lifetimes, response, ..Rule::everything() }
    }

    #[test]
    fn a_version_without_a_length_is_not_kept() {
        assert!(encoded(NAME, (&Rule::everything(), &[]), &[head(None)]).is_none());
    }
}
