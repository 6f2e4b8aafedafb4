//! Playlists and MPDs with steering in them, as a rule may ask for: other bytes than the origin's,
//! and so another representation, with a validator, a length and ranges of its own.
//!
//! Made of all that is held, for each answer; what is held stays what the origin sent. What cannot
//! be read to its end, or is to be left alone, is answered as if no rule had asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::header::CONTENT_ENCODING;
use http::{HeaderValue, StatusCode};
use xxhash_rust::xxh3::xxh3_128;

use crate::cache::heads::Head;
use crate::delivery::error::DeliveryError;
use crate::delivery::reply::{Found, Reply, cache_status};
use crate::delivery::slice::Span;
use crate::delivery::{Resort, Transaction};
use crate::fill::error::FillError;
use crate::limits::{MANIFEST_SERVED_BYTES_MAX, MANIFEST_STEERING_BYTES_MAX};
use crate::memory::{Class, Reservation, Use};
use crate::message::cache_control::forbids_transforms;
use crate::message::range::RangeRequest;
use crate::message::request::ObjectRequest;
use crate::metrics::labels::Tier;
use crate::object::ByteRange;
use crate::site::{Rule, Steered};

/// What steering is put into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manifest {
    /// A playlist of HLS.
    Hls,
    /// An MPD of DASH.
    Dash,
}

/// Puts steering into what a site has at a path; `None`: it is to be left as it is.
type Rewrite = dyn Fn(Manifest, &str, &str, &str) -> Option<String> + Send + Sync;

/// Who puts it there, told from those before him by his number.
pub struct Rewriter {
    number: u64,
    rewrite: Box<Rewrite>,
}

impl Rewriter {
    /// By manifest, site, path and text.
    pub fn new(
        rewrite: impl Fn(Manifest, &str, &str, &str) -> Option<String> + Send + Sync + 'static,
    ) -> Rewriter {
        static MADE: AtomicU64 = AtomicU64::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed) + 1;
        Rewriter { number, rewrite: Box::new(rewrite) }
    }
}

/// How a request for one is answered. All of what is held is read, and several ranges of so little
/// are answered with the whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rewriting {
    manifest: Manifest,
    /// The range of what is made of it.
    range: Option<RangeRequest>,
}

impl Rewriting {
    /// What a rule has done with what is asked for, if it has.
    pub(super) fn of(rule: &Rule, request: &ObjectRequest<'_>) -> Option<Rewriting> {
        if rule.steered == Steered::Off {
            return None;
        }
        let manifest = match request.path.rsplit_once('.')?.1 {
            "m3u8" => Manifest::Hls,
            "mpd" => Manifest::Dash,
            _ => return None,
        };
        let range = request.range.filter(|_| request.ranges.is_none());
        Some(Rewriting { manifest, range })
    }
}

/// All of what is held.
struct Whole {
    bytes: Vec<u8>,
    /// Whether a run brought any: that of others, or one of his own.
    collapsed: Option<bool>,
    /// Where the first of it came from.
    tier: Tier,
}

/// Bytes that were made, and the memory they take until they are sent.
struct Made {
    text: String,
    _reserved: Reservation,
}

impl AsRef<[u8]> for Made {
    fn as_ref(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

impl Transaction<'_> {
    /// The answer with steering in it; `None`: with what is held, as it is.
    pub(super) async fn reply_rewritten(
        &mut self,
        Rewriting { manifest, range }: Rewriting,
        head: &Arc<Head>,
        found: Found,
    ) -> Result<Option<Reply>, DeliveryError> {
        let Some((made, Whole { collapsed, tier, .. })) = self.made(manifest, head).await? else {
            return Ok(None);
        };
        let made = Bytes::from_owner(made);
        let etag = format!("\"steered-{:032x}\"", xxh3_128(&made));
        let etag = HeaderValue::try_from(etag).expect("digits need no escape");
        let head = Head { stored: head.stored.with_content(etag), ..Head::clone(head) };
        if let Some(reply) = self.reply_to_conditions(&head, found)? {
            return Ok(Some(reply));
        }
        let length = made.len() as u64;
        self.asked.range = range;
        let range = self.resolve(&head, Some(length))?;
        self.record.range = range;
        let status = cache_status(&head, found, self.viewer, collapsed);
        let reply = Reply::content(&head, self.viewer, range, Some(length), status);
        Ok(Some(match range {
            Some(range) => reply.saying_instead(part(&made, range), range.start(), tier),
            None => reply.saying_instead(made, 0, tier),
        }))
    }

    /// What of it is asked for; what other bytes are to be made of is, whole.
    pub(super) fn range_wanted(&self) -> Option<RangeRequest> {
        let takes_part = !self.asks_whole && self.asked.rewriting.is_none();
        self.asked.range.filter(|_| takes_part)
    }

    /// All of it with steering in it, once all of it is there, and of what it was made.
    async fn made(
        &mut self,
        manifest: Manifest,
        head: &Arc<Head>,
    ) -> Result<Option<(Made, Whole)>, DeliveryError> {
        let stored = &head.stored;
        let is_plain = stored.status() == StatusCode::OK
            && !stored.fields().contains_key(CONTENT_ENCODING)
            && !forbids_transforms(stored.fields())
            && head.version.length_bytes().is_none_or(|it| it <= MANIFEST_SERVED_BYTES_MAX);
        let rewriter = self.shared.steering.rewriter.load_full().filter(|_| is_plain);
        let left_alone_by = &head.version.left_alone_by;
        let is_new = |one: &Arc<Rewriter>| left_alone_by.load(Ordering::Relaxed) != one.number;
        let Some(rewriter) = rewriter.filter(is_new) else { return Ok(None) };
        let length = head.version.length_bytes().unwrap_or(MANIFEST_SERVED_BYTES_MAX);
        let governor = self.shared.governor.of(self.asked.site.id);
        let reserve = |room| governor.try_reserve(Use::Requests, Class::Miss, room);
        let Some(_to_read) = reserve(length + MORE_BYTES) else { return Ok(None) };
        let whole = match self.whole(head).await {
            Ok(Some(whole)) => whole,
            Ok(None) => return Ok(None),
            Err(why) if matches!(*why, FillError::Changed) => return Ok(None),
            // To send it as it is would be to wait once more for the same.
            Err(why) => return Err(DeliveryError::Fill(why)),
        };
        // What is made of it, and the parts that it is made of.
        let room = 2 * length + 2 * MANIFEST_STEERING_BYTES_MAX as u64;
        let Some(mut reserved) = reserve(room) else { return Ok(None) };
        let (site, path) = (&self.asked.site.name, &self.asked.path);
        let text = str::from_utf8(&whole.bytes).ok();
        let Some(made) = text.and_then(|text| (rewriter.rewrite)(manifest, site, path, text))
        else {
            left_alone_by.store(rewriter.number, Ordering::Relaxed);
            return Ok(None);
        };
        reserved.shrink_to(made.len() as u64);
        Ok(Some((Made { text: made, _reserved: reserved }, whole)))
    }

    /// All bytes of a version that is short enough; `None`: it is not, or not all of it is there.
    ///
    /// # Errors
    /// They do not come.
    async fn whole(&mut self, head: &Arc<Head>) -> Result<Option<Whole>, Arc<FillError>> {
        let (mut feed, version) = (self.feed(head), &head.version);
        let mut span = Span { position: 0, end: version.length_bytes() };
        if version.length_bytes() == Some(0) {
            return Ok(None);
        }
        if !version.is_resumable() {
            feed.bring_all(span).await?;
        }
        if !feed.secure(span) && !version.validator.is_strong() && self.resort == Resort::Left {
            return Ok(None);
        }
        let length = version.length_bytes().unwrap_or_default();
        let mut bytes = Vec::with_capacity(length.min(MANIFEST_SERVED_BYTES_MAX) as usize);
        let mut slice = self.first(&mut feed, span).await?;
        let tier = slice.as_ref().map_or(Tier::Ram, |slice| slice.tier);
        while let Some(more) = slice {
            bytes.extend_from_slice(&more.bytes);
            span.position = bytes.len() as u64;
            let is_whole = span.end == Some(span.position);
            if span.position > MANIFEST_SERVED_BYTES_MAX {
                return Ok(None);
            }
            drop(more);
            slice = if is_whole { None } else { feed.next(span).await? };
        }
        let (is_all, collapsed) =
            (version.length_bytes() == Some(bytes.len() as u64), feed.collapsed);
        Ok(is_all.then_some(Whole { bytes, collapsed, tier }))
    }
}

fn part(made: &Bytes, range: ByteRange) -> Bytes {
    made.slice(range.start() as usize..range.end() as usize)
}

/// What is taken beside, for the little that goes with it.
const MORE_BYTES: u64 = 8 << 10;
