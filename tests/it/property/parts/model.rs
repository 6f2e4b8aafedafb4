//! What a cache that keeps to RFC 9111 sections 3.3 and 3.4 must hold of an object, may give of it,
//! and must not ask for again.
//!
//! It knows the origin's versions and what the origin said. Where an answer was wrong it no longer
//! knows what is held, and demands nothing of that until it does.

use std::collections::BTreeSet;
use std::ops::Range;

use super::sequence::{Ask, Says, Sequence, Step, Wish, named};
use crate::support::{Framing, PIECE, Recorded, Response, Validators, content_of, etag};

/// What must be held.
#[derive(Clone, Debug)]
struct Held {
    version: u32,
    pieces: BTreeSet<u64>,
    is_fresh: bool,
}

/// What is known of an object.
#[derive(Debug)]
pub(super) struct Model {
    path: String,
    validators: Validators,
    lengths: Vec<u64>,
    /// The origin's.
    pub(super) version: u32,
    held: Option<Held>,
    /// Versions that may be given without asking.
    possible: BTreeSet<u32>,
}

/// What a request gets of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Expected {
    NotModified,
    Whole,
    Part(Range<u64>),
    Parts(Vec<Range<u64>>),
    Unsatisfiable,
}

/// What was shown of one answer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Shown {
    /// It had to come without a question, and did.
    pub(super) from_held: bool,
    /// Nothing of what was held was asked for again.
    pub(super) only_missing: bool,
    /// It was of a version that the origin no longer has.
    pub(super) old: bool,
}

impl Model {
    pub(super) fn of(sequence: &Sequence, path: &str) -> Model {
        let (validators, lengths) = (sequence.validators, sequence.lengths.clone());
        let possible = BTreeSet::new();
        Model { path: path.to_owned(), validators, lengths, version: 1, held: None, possible }
    }

    pub(super) fn length(&self, version: u32) -> u64 {
        self.lengths[(version as usize - 1) % self.lengths.len()]
    }

    fn is_strong(&self) -> bool {
        !matches!(self.validators, Validators::Weak | Validators::None)
    }

    fn has_etag(&self) -> bool {
        !matches!(self.validators, Validators::LastModified | Validators::None)
    }

    /// What the request gets of a version (RFC 9110 section 13.2.2).
    fn expected(&self, ask: &Ask, version: u32) -> Expected {
        let length = self.length(version);
        let names = |by| self.has_etag() && named(self.version, by) == etag(version);
        let is_wanted = match ask.wish {
            Wish::IfNoneMatch(by) if names(by) => return Expected::NotModified,
            Wish::IfRange(by) => names(by) && self.is_strong(),
            _ => true,
        };
        if ask.is_head || ask.ranges.is_empty() || !is_wanted {
            return Expected::Whole;
        }
        let spans = ask.ranges.iter().map(|span| span.within(length));
        let mut spans: Vec<_> = spans.filter(|span| !span.is_empty()).collect();
        match (&spans[..], ask.ranges.len()) {
            ([], _) => Expected::Unsatisfiable,
            ([only], 1) => Expected::Part(only.clone()),
            _ => {
                spans.sort_by_key(|span| span.start);
                Expected::Parts(spans)
            }
        }
    }

    /// The pieces that an answer takes.
    fn needed(&self, ask: &Ask, version: u32) -> BTreeSet<u64> {
        let length = self.length(version);
        let span = match self.expected(ask, version) {
            _ if ask.is_head => 0..0,
            Expected::NotModified | Expected::Unsatisfiable => 0..0,
            Expected::Part(span) => span,
            // Many small parts may come as the whole.
            Expected::Whole | Expected::Parts(_) => 0..length,
        };
        if span.is_empty() { BTreeSet::new() } else { pieces(span).collect() }
    }

    /// Judges an answer by what was known before, and learns from what the origin was asked.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn take(
        &mut self,
        step: &Step,
        response: &Response,
        asked: &[Recorded],
    ) -> Result<Shown, String> {
        let mut shown = Shown::default();
        let old = self.possible.iter().any(|version| *version != self.version);
        self.judge(step, response, old)?;
        if let Some(held) = self.held.as_ref().filter(|held| held.is_fresh) {
            let needed = self.needed(&step.ask, held.version);
            let is_plain = step.ask.wish != Wish::NoCache;
            shown.old = held.version != self.version && asked.is_empty();
            shown.from_held = is_plain && needed.is_subset(&held.pieces);
            if shown.from_held && !asked.is_empty() {
                return Err(format!("asked for what is held: {held:?}"));
            }
            let may_join = is_plain && step.origin.is_right() && self.is_strong() && !old;
            shown.only_missing = may_join && !asked.is_empty();
            let again = asked.iter().filter_map(Recorded::answered).find(|(status, bytes)| {
                *status == 206 && pieces(bytes.clone()).any(|piece| held.pieces.contains(&piece))
            });
            if let Some((_, bytes)) = again.filter(|_| may_join) {
                return Err(format!("{bytes:?} asked for beside {held:?}"));
            }
        }
        for request in asked {
            self.learn(step, request);
        }
        Ok(shown)
    }

    /// Whether the answer is of one version that may be given now, and what was asked for of it.
    fn judge(&self, step: &Step, response: &Response, old: bool) -> Result<(), String> {
        let is_right = step.origin.is_right();
        if matches!(response.status, 404 | 500..=504) {
            return match is_right {
                true => Err(format!("{} although the origin answers", response.status)),
                false => Ok(()),
            };
        }
        if !response.complete && is_right && !old {
            return Err("cut short although the origin is right".to_owned());
        }
        let candidates = self.possible.iter().copied().chain([self.version]);
        let mut why = vec![];
        for version in candidates {
            match self.fits(step, response, version) {
                Ok(()) => return Ok(()),
                Err(reason) => why.push(format!("not version {version}: {reason}")),
            }
        }
        Err(why.join("; "))
    }

    fn fits(&self, step: &Step, response: &Response, version: u32) -> Result<(), String> {
        let (length, is_right) = (self.length(version), step.origin.is_right());
        let expected = self.expected(&step.ask, version);
        let told = response.header("etag");
        let told = told.trim_start_matches("W/");
        if self.has_etag() && told != etag(version) && response.status != 416 {
            return Err(format!("its entity tag is {told}"));
        }
        let may = match response.status {
            200 => {
                self.carries(version, 0, &response.body)?;
                is_whole(step, response, length)?;
                // Several ranges may be ignored; a range may get the whole where the origin does
                // not tell lengths, or ignores ranges, and of nothing.
                expected == Expected::Whole
                    || step.ask.ranges.len() > 1
                    || step.origin != Says::Right(Framing::Length)
                    || length == 0 && expected != Expected::NotModified
            }
            206 if response.header("content-type").starts_with("multipart") => {
                let parts = parts_of(response, length)?;
                for (start, body) in &parts {
                    self.carries(version, *start, body)?;
                }
                !response.complete || are_parts(&expected, &parts)
            }
            206 => {
                let (part, is_told) = part_of(response, length)?;
                self.carries(version, part.start, &response.body)?;
                match &expected {
                    Expected::Part(span) if is_right && is_told => part == *span,
                    Expected::Part(span) => {
                        !is_right && span.start <= part.start && part.end <= span.end
                    }
                    // Ranges that touch are one.
                    Expected::Parts(spans) => {
                        let lies_in =
                            |span: &Range<u64>| part.start <= span.start && span.end <= part.end;
                        spans.iter().all(lies_in)
                    }
                    _ => false,
                }
            }
            304 => expected == Expected::NotModified,
            416 => {
                let is_its = response.header("content-range") == format!("bytes */{length}");
                expected == Expected::Unsatisfiable && is_its || !is_right
            }
            _ => false,
        };
        may.then_some(()).ok_or(format!("{} where {expected:?} is right", response.status))
    }

    /// Whether these bytes are those of a version from `start` on.
    fn carries(&self, version: u32, start: u64, body: &[u8]) -> Result<(), String> {
        match content_of(&self.path, None, version).first_difference(start, body) {
            Some(at) => Err(format!("byte {at} is another")),
            None => Ok(()),
        }
    }

    /// What one question of the edge and its answer change.
    fn learn(&mut self, step: &Step, request: &Recorded) {
        let Some((status, bytes)) = request.answered() else {
            // No head, no change.
            return;
        };
        let version = self.version;
        let is_get = request.head.method == http::Method::GET;
        let goes_on = request.head.headers.contains_key("if-range");
        if !step.origin.is_right() {
            match step.origin {
                // An error that is not stored leaves what is held as it was.
                Says::Fails(500 | 503) => {}
                _ => self.held = None,
            }
            let was_asked = request.head.headers.contains_key("range");
            // Of the first byte alone a label cannot be moved to before it.
            let is_lie = status == 206 && step.origin.lies(was_asked) && bytes != (0..1);
            if !is_lie && step.fresh && !matches!(step.origin, Says::Fails(_)) {
                self.possible.insert(version);
            }
            return;
        }
        let now: BTreeSet<u32> = step.fresh.then_some(version).into_iter().collect();
        let is_same = self.held.as_ref().is_some_and(|held| held.version == version);
        let all = |model: &Model| Some(pieces(0..model.length(version)).collect());
        let brought: Option<BTreeSet<u64>> = match status {
            200 if is_get && !goes_on => all(self),
            206 if self.is_strong() => Some(self.whole_pieces(&bytes)),
            _ => None,
        };
        match status {
            304 => {
                self.held = self.held.take().filter(|_| is_same);
                if let Some(held) = &mut self.held {
                    held.is_fresh = step.fresh;
                }
                self.possible = now;
            }
            // A head without a validator, of the same length or of none, says nothing of what is
            // held.
            200 if !is_get
                && self.validators == Validators::None
                && (step.origin != Says::Right(Framing::Length) || self.is_as_long()) => {}
            206 if !self.is_strong() => self.held = None,
            206 if goes_on => {
                self.held = self.held.take().filter(|_| is_same);
                if let Some(held) = &mut self.held {
                    held.pieces.extend(brought.unwrap_or_default());
                }
                self.possible.extend(now);
            }
            200 | 206 => {
                self.possible = now;
                self.held = brought.map(|brought| {
                    let before = self.held.take().filter(|_| is_same && self.is_strong());
                    let mut pieces = before.map(|held| held.pieces).unwrap_or_default();
                    pieces.extend(brought);
                    Held { version, pieces, is_fresh: step.fresh }
                });
            }
            _ => {}
        }
    }

    /// Whether what may be held is as long as what the origin has now.
    fn is_as_long(&self) -> bool {
        let length = self.length(self.version);
        let held = self.held.iter().map(|held| &held.version);
        held.chain(&self.possible).all(|version| self.length(*version) == length)
    }

    /// The pieces that lie in these bytes from end to end; the last one ends with its object.
    fn whole_pieces(&self, bytes: &Range<u64>) -> BTreeSet<u64> {
        let length = self.length(self.version);
        let lies_within = |piece: &u64| {
            bytes.start <= piece * PIECE && ((piece + 1) * PIECE).min(length) <= bytes.end
        };
        pieces(bytes.clone()).filter(lies_within).collect()
    }
}

/// The pieces that these bytes touch.
fn pieces(bytes: Range<u64>) -> Range<u64> {
    bytes.start / PIECE..bytes.end.div_ceil(PIECE).max(bytes.start / PIECE)
}

/// Whether a 200 is as long as the object.
fn is_whole(step: &Step, response: &Response, length: u64) -> Result<(), String> {
    let told = response.header("content-length");
    let received = response.body.len() as u64;
    if !told.is_empty() && told != length.to_string() {
        return Err(format!("{told} bytes of {length}"));
    }
    match !step.ask.is_head && response.complete && received != length {
        true => Err(format!("{received} of {length} bytes")),
        false => Ok(()),
    }
}

/// What a 206 says it carries, and whether it tells the length of the object.
fn part_of(response: &Response, length: u64) -> Result<(Range<u64>, bool), String> {
    let (first, last, complete) = response.content_range().ok_or("no Content-Range")?;
    if complete.is_some_and(|complete| complete != length) || last >= length || first > last {
        return Err(format!("{first}-{last} of {complete:?}, not of {length}"));
    }
    let (promised, received) = (last - first + 1, response.body.len() as u64);
    match received > promised || response.complete && received != promised {
        true => Err(format!("{received} of {promised} bytes")),
        false => Ok((first..last + 1, complete.is_some())),
    }
}

/// Whether the parts have the ends of all ranges asked for.
fn are_parts(expected: &Expected, parts: &[(u64, Vec<u8>)]) -> bool {
    let Expected::Parts(spans) = expected else { return false };
    let given = |at: u64| {
        parts.iter().any(|(start, body)| (*start..start + body.len() as u64).contains(&at))
    };
    spans.iter().all(|span| given(span.start) && given(span.end - 1))
}

/// The parts of a `multipart/byteranges` body, each with its first byte (RFC 9110 section 14.6).
fn parts_of(response: &Response, length: u64) -> Result<Vec<(u64, Vec<u8>)>, String> {
    let content_type = response.header("content-type");
    let boundary = content_type.strip_prefix("multipart/byteranges; boundary=");
    let boundary = boundary.ok_or(format!("its type is {content_type}"))?;
    let mut rest = &response.body[..];
    let mut parts = vec![];
    loop {
        let start = format!("\r\n--{boundary}\r\nContent-Type: video/mp4\r\nContent-Range: bytes ");
        let Some(after) = rest.strip_prefix(start.as_bytes()) else { break };
        let end = after.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        let Some(end) = end else { break };
        let label = String::from_utf8_lossy(&after[..end]).into_owned();
        let read = || {
            let (range, complete) = label.split_once('/')?;
            let (first, last) = range.split_once('-')?;
            Some((first.parse().ok()?, last.parse().ok()?, complete.parse().ok()?))
        };
        let (first, last, complete): (u64, u64, u64) =
            read().ok_or(format!("a part of {label}"))?;
        if complete != length || first > last || last >= length {
            return Err(format!("a part of {label}, not of {length}"));
        }
        let body = &after[end + 4..];
        let body = &body[..body.len().min((last - first + 1) as usize)];
        parts.push((first, body.to_vec()));
        rest = &after[end + 4 + body.len()..];
    }
    let closed = rest == format!("\r\n--{boundary}--\r\n").as_bytes();
    if response.complete && !closed {
        return Err(format!("{} bytes after its parts", rest.len()));
    }
    Ok(parts)
}
