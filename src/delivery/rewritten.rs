//! Playlists and MPDs with steering in them, as a rule may ask for: other bytes than the origin's,
//! and so another representation, with a validator, a length and ranges of its own.
//!
//! Made of all that is held, for each answer; what is held stays what the origin sent. What cannot
//! be read to its end, or is to be left alone, is answered as if no rule had asked.

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_ENCODING;
use http::{HeaderValue, StatusCode};
use xxhash_rust::xxh3::xxh3_128;

use crate::cache::heads::Head;
use crate::delivery::error::DeliveryError;
use crate::delivery::reply::{Found, Reply, cache_status};
use crate::delivery::slice::Span;
use crate::delivery::{Resort, Transaction};
use crate::limits::MANIFEST_SERVED_BYTES_MAX;
use crate::memory::{Class, Reservation, Use};
use crate::message::range::RangeRequest;
use crate::message::request::ObjectRequest;
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

/// Who puts it there.
pub struct Rewriter(Box<Rewrite>);

impl Rewriter {
    /// By manifest, site, path and text.
    pub fn new(
        rewrite: impl Fn(Manifest, &str, &str, &str) -> Option<String> + Send + Sync + 'static,
    ) -> Rewriter {
        Rewriter(Box::new(rewrite))
    }
}

/// How a request for one is answered. Of what is held a range of other bytes would be asked for:
/// all of it is, and several ranges of so little are answered with the whole.
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
        let Some((made, collapsed)) = self.made(manifest, head).await else { return Ok(None) };
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
        Ok(Some(reply.saying_instead(match range {
            Some(range) => part(&made, range),
            None => made,
        })))
    }

    /// All of it with steering in it, once all of it is there, and whether a run brought any: that
    /// of others, or one of his own.
    async fn made(&mut self, manifest: Manifest, head: &Arc<Head>) -> Option<(Made, Option<bool>)> {
        let stored = &head.stored;
        let is_plain = stored.status() == StatusCode::OK
            && !stored.fields().contains_key(CONTENT_ENCODING)
            && head.version.length_bytes().is_none_or(|it| it <= MANIFEST_SERVED_BYTES_MAX);
        let rewriter = self.shared.steering.rewriter.load_full().filter(|_| is_plain)?;
        // What is read, and what is made of it.
        let room = 2 * head.version.length_bytes().unwrap_or(MANIFEST_SERVED_BYTES_MAX);
        let governor = self.shared.governor.of(self.asked.site.id);
        let mut reserved = governor.try_reserve(Use::Requests, Class::Miss, room + MORE_BYTES)?;
        let (bytes, collapsed) = self.whole(head).await?;
        let text = String::from_utf8(bytes).ok()?;
        let (site, path) = (&self.asked.site.name, &self.asked.path);
        let made = (rewriter.0)(manifest, site, path, &text)?;
        reserved.shrink_to(made.len() as u64);
        Some((Made { text: made, _reserved: reserved }, collapsed))
    }

    /// All bytes of a version that is short enough; `None`: they do not come, and who sends them
    /// as they are says why.
    async fn whole(&mut self, head: &Arc<Head>) -> Option<(Vec<u8>, Option<bool>)> {
        let (mut feed, version) = (self.feed(head), &head.version);
        let mut span = Span { position: 0, end: version.length_bytes() };
        if version.length_bytes() == Some(0) {
            return None;
        }
        if !version.is_resumable() {
            feed.bring_all(span).await.ok()?;
        }
        if !feed.secure(span) && !version.validator.is_strong() && self.resort == Resort::Left {
            return None;
        }
        let mut bytes = Vec::new();
        let mut slice = self.first(&mut feed, span).await.ok()?;
        while let Some(more) = slice {
            bytes.extend_from_slice(&more.bytes);
            span.position = bytes.len() as u64;
            let is_whole = span.end == Some(span.position);
            if span.position > MANIFEST_SERVED_BYTES_MAX {
                return None;
            }
            drop(more);
            slice = if is_whole { None } else { feed.next(span).await.ok()? };
        }
        let is_all = version.length_bytes() == Some(bytes.len() as u64);
        is_all.then_some((bytes, feed.collapsed))
    }
}

fn part(made: &Bytes, range: ByteRange) -> Bytes {
    made.slice(range.start() as usize..range.end() as usize)
}

/// What steering adds to a playlist, about.
const MORE_BYTES: u64 = 64 << 10;
