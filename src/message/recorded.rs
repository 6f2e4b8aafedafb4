//! What a process writes down of a response for the next one: fields, validator, freshness.
//!
//! JSON, so that a later release can add to it and still read what an earlier one wrote. Bytes of
//! fields are written as the characters of the same numbers. What cannot be read back is no
//! response: it is asked for again.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

use crate::message::conditional::{EntityTag, Validator};
use crate::message::freshness::Freshness;
use crate::message::response::Stored;
use crate::message::vary::{VariantKey, Vary};
use crate::moment::unix_millis;

/// A stored response's head.
#[derive(Debug, Serialize, Deserialize)]
pub struct RecordedResponse {
    status: u16,
    fields: Vec<(String, String)>,
    validator: RecordedValidator,
    freshness: RecordedFreshness,
    /// What selected it; empty without `Vary`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    variant: String,
}

/// What tells a version from others; times in milliseconds of Unix time.
#[derive(Debug, Serialize, Deserialize)]
pub struct RecordedValidator {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_modified: Option<u64>,
    #[serde(default)]
    date_is_strong: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    made_at: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct RecordedFreshness {
    received_at: u64,
    initial_age: u64,
    lifetime: u64,
    #[serde(default)]
    must_revalidate: bool,
    #[serde(default)]
    no_cache: bool,
}

impl RecordedResponse {
    /// Of a response that is stored.
    pub fn of(stored: &Stored, freshness: &Freshness, variant: &VariantKey) -> RecordedResponse {
        let field = |(name, value): (&HeaderName, &HeaderValue)| {
            (name.as_str().to_owned(), text(value.as_bytes()))
        };
        RecordedResponse {
            status: stored.status().as_u16(),
            fields: stored.fields().iter().map(field).collect(),
            validator: RecordedValidator::of(stored.validator()),
            freshness: RecordedFreshness {
                received_at: unix_millis(freshness.received_at),
                initial_age: freshness.initial_age.as_millis() as u64,
                lifetime: u64::try_from(freshness.lifetime.as_millis()).unwrap_or(u64::MAX),
                must_revalidate: freshness.must_revalidate,
                no_cache: freshness.no_cache,
            },
            variant: text(&variant.0),
        }
    }

    /// What was stored; `None` if it is no response.
    pub fn restored(&self) -> Option<(Stored, Freshness, VariantKey)> {
        let mut fields = HeaderMap::with_capacity(self.fields.len());
        for (name, value) in &self.fields {
            let value = HeaderValue::from_maybe_shared(bytes::Bytes::from(bytes(value)?)).ok()?;
            fields.append(HeaderName::from_bytes(name.as_bytes()).ok()?, value);
        }
        let stored = Stored {
            status: StatusCode::from_u16(self.status).ok()?,
            vary: Vary::of(&fields),
            fields,
            validator: self.validator.restored()?,
        };
        let received_at = time(self.freshness.received_at)?;
        // What else there is the rule of now decides, when it is assessed again.
        let freshness = Freshness {
            received_at,
            initial_age: Duration::from_millis(self.freshness.initial_age),
            lifetime: Duration::from_millis(self.freshness.lifetime),
            must_revalidate: self.freshness.must_revalidate,
            no_cache: self.freshness.no_cache,
            ..Freshness::expired(received_at)
        };
        Some((stored, freshness, VariantKey(bytes(&self.variant)?.into_boxed_slice())))
    }
}

impl RecordedValidator {
    /// Of a version.
    pub fn of(validator: &Validator) -> RecordedValidator {
        let tag = |etag: &EntityTag| text(etag.as_header().as_bytes());
        RecordedValidator {
            etag: validator.etag.as_ref().map(tag),
            last_modified: validator.last_modified.map(unix_millis),
            date_is_strong: validator.date_is_strong,
            made_at: validator.made_at.map(unix_millis),
        }
    }

    /// What it was; `None` if it is none.
    pub fn restored(&self) -> Option<Validator> {
        let etag = match &self.etag {
            Some(etag) => {
                let value = HeaderValue::from_bytes(&bytes(etag)?).ok()?;
                Some(EntityTag::parse(&value)?)
            }
            None => None,
        };
        let at = |millis: Option<u64>| millis.map(time);
        Some(Validator {
            etag,
            last_modified: at(self.last_modified).map_or(Some(None), |at| at.map(Some))?,
            date_is_strong: self.date_is_strong,
            made_at: at(self.made_at).map_or(Some(None), |at| at.map(Some))?,
        })
    }
}

fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

fn bytes(text: &str) -> Option<Vec<u8>> {
    text.chars().map(|character| u8::try_from(u32::from(character)).ok()).collect()
}

fn time(millis: u64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(fields: &[(&'static str, &[u8])]) -> Stored {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            let value = HeaderValue::from_bytes(value).unwrap();
            headers.append(HeaderName::from_static(name), value);
        }
        Stored::new(StatusCode::OK, &headers, UNIX_EPOCH + Duration::from_millis(1_700_000_000_123))
    }

    #[test]
    fn a_response_comes_back_as_it_was_written() {
        let tables: [&[(&'static str, &[u8])]; 3] = [
            &[("etag", b"\"a\xe9\""), ("content-type", b"video/mp4"), ("x-odd", b"\x80\xff\t\"\\")],
            &[
                ("last-modified", b"Sun, 06 Nov 1994 08:49:37 GMT"),
                ("date", b"Sun, 06 Nov 1994 08:49:39 GMT"),
                ("vary", b"accept-language"),
                ("x-twice", b"1"),
                ("x-twice", b"2"),
            ],
            &[("etag", b"W/\"weak\"")],
        ];
        for fields in tables {
            let stored = stored(fields);
            let freshness = Freshness {
                received_at: UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
                initial_age: Duration::from_secs(3),
                lifetime: Duration::from_secs(u64::from(u32::MAX)),
                no_cache: false,
                ..Freshness::expired(UNIX_EPOCH)
            };
            let variant = VariantKey(b"accept-language:de\n\xff".as_slice().into());
            let recorded = RecordedResponse::of(&stored, &freshness, &variant);
            let json = serde_json::to_vec(&recorded).unwrap();
            let read: RecordedResponse = serde_json::from_slice(&json).unwrap();
            let (again, fresh_again, variant_again) = read.restored().unwrap();
            assert_eq!(again.fields(), stored.fields());
            assert_eq!(again.validator(), stored.validator());
            assert_eq!(again.validator().is_strong(), stored.validator().is_strong());
            assert_eq!((again.status(), again.vary()), (stored.status(), stored.vary()));
            assert_eq!((fresh_again, variant_again), (freshness, variant));
        }
    }

    #[test]
    fn what_a_later_release_adds_is_passed_over_and_what_is_no_response_refused() {
        let freshness = r#""freshness":{"received_at":1,"initial_age":0,"lifetime":1,"new":2}"#;
        let with = |fields: &str, etag: &str| {
            let validator = format!(r#""validator":{{"etag":{etag}}}"#);
            let json = format!(
                r#"{{"status":200,"fields":[{fields}],{validator},{freshness},"tags":[]}}"#
            );
            serde_json::from_str::<RecordedResponse>(&json).unwrap().restored()
        };
        assert!(with(r#"["a","b"]"#, r#""\"x\"""#).is_some());
        assert!(with(r#"["a b","b"]"#, "null").is_none(), "no field is called that");
        assert!(with(r#"["a","\n"]"#, "null").is_none(), "no value is that");
        assert!(with(r#"["a","\u0100"]"#, "null").is_none(), "no byte is that");
        assert!(with("", r#""x""#).is_none(), "no entity tag");
    }
}
