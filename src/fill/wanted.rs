//! What a viewer wants of an origin, and the fields that say so.

use std::sync::Arc;
use std::time::SystemTime;

use http::header::{HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, RANGE};
use http::{HeaderMap, HeaderValue};

use crate::cache::heads::Head;
use crate::fill::client::Ask;
use crate::fill::run::Sharing;
use crate::limits::PIECE_SIZE_BYTES;
use crate::message::range::RangeRequest;
use crate::object::{ObjectKey, piece_floor};
use crate::site::{Rule, Site};

/// What a viewer wants to know of an object, and how to ask for it.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The object.
    pub key: ObjectKey,
    /// Its rule.
    pub site: Arc<Site>,
    /// The path the rule is found by.
    pub path: String,
    /// The request upstream, without range and conditions.
    pub ask: Ask,
    /// The viewer's own fields: they select the variant.
    pub viewer_fields: HeaderMap,
    /// The part he wants.
    pub range: Option<RangeRequest>,
    /// What he has already, if he wants the part of that version only; of who asks alone.
    pub if_range: Option<HeaderValue>,
    /// What is held and must be asked about.
    pub stale: Option<Arc<Head>>,
    /// How much of it may be asked for at once, in bytes.
    pub window_bytes: u64,
    /// A volume may hold it, and is ill: so many bytes of it are paid for from the bypass.
    pub bypassed_bytes: Option<u64>,
    /// Who asks with credentials may get an answer for himself only (RFC 9111 section 3.5).
    pub has_authorization: bool,
    /// The request says `no-store`: nothing of the answer is kept, nobody else waits for it.
    pub no_store: bool,
}

impl Wanted {
    pub(super) fn rule(&self) -> &Rule {
        self.site.rule_for(&self.path)
    }

    /// What is held, if it may be used where the origin fails.
    pub(super) fn instead_of_failing(&self) -> Option<Arc<Head>> {
        let (held, now) = (self.stale.as_ref(), SystemTime::now());
        let may =
            |head: &&Arc<Head>| head.freshness.is_fresh(now) || head.freshness.serves_on_error(now);
        held.filter(may).cloned()
    }

    /// The range to ask the origin for: the viewer's own, or whole pieces of at most a window of
    /// it.
    pub(super) fn asked(&self, sharing: Sharing) -> Option<RangeRequest> {
        let range = self.range?;
        if sharing == Sharing::Alone {
            return Some(range);
        }
        Some(match range {
            RangeRequest::FromTo { first, last } => {
                let first = piece_floor(first);
                let reach = first.saturating_add(self.window_bytes);
                let end = last.map_or(reach, |last| last.saturating_add(1).min(reach));
                let end = end.checked_next_multiple_of(PIECE_SIZE_BYTES).unwrap_or(u64::MAX);
                RangeRequest::FromTo { first, last: Some(end - 1) }
            }
            // Where the object ends is not known: one piece more, so that what is wanted lies in
            // whole ones.
            RangeRequest::Suffix { length } => {
                RangeRequest::Suffix { length: length.saturating_add(PIECE_SIZE_BYTES) }
            }
        })
    }

    /// The fields that make a question of the request: the range, rounded out to pieces where the
    /// answer may be kept, and what is held already.
    pub(super) fn conditions(&self, sharing: Sharing) -> Vec<(HeaderName, HeaderValue)> {
        let mut conditions = Vec::new();
        if let Some(range) = self.asked(sharing) {
            let value = HeaderValue::try_from(range.to_string());
            conditions.push((RANGE, value.expect("digits and a dash are a field value")));
            conditions.extend(self.if_range.clone().map(|version| (IF_RANGE, version)));
        }
        if let Some(head) = &self.stale {
            let etag = head.version.validator.etag().map(|etag| etag.as_header().clone());
            let date = head.version.validator.last_modified();
            conditions.extend(etag.map(|etag| (IF_NONE_MATCH, etag)));
            conditions.extend(date.map(|date| (IF_MODIFIED_SINCE, date_field(date))));
        }
        conditions
    }
}

fn date_field(date: std::time::SystemTime) -> HeaderValue {
    HeaderValue::try_from(httpdate::fmt_http_date(date)).expect("a date is a field value")
}
