//! Which single version a response comes from: the check every test of bytes ends in.
//!
//! A body that fits no version is a panic that says where it stops fitting; so are a length, a
//! `Content-Range` or an ETag that contradict the bytes.

use super::answer::etag;
use super::client::{Response, Streaming};
use super::content::Content;
use super::origin::Origin;
use super::script::content_of;

/// What a viewer got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// All bytes the head promised, of one version.
    Whole { version: u32 },
    /// Fewer than the head promised, but of one version.
    Cut { version: u32, bytes: u64 },
    /// No object: this status.
    Status(u16),
}

impl Verdict {
    /// The version, where there were bytes of one.
    pub(crate) fn version(self) -> Option<u32> {
        match self {
            Verdict::Whole { version } | Verdict::Cut { version, .. } => Some(version),
            Verdict::Status(_) => None,
        }
    }
}

/// Judges a response to a GET of `path`; panics where its bytes come from no single version.
pub(crate) fn judge(origin: &Origin, path: &str, response: &Response) -> Verdict {
    judge_variant(origin, path, None, response)
}

/// [`judge`] for an object whose bytes vary with a request field.
pub(crate) fn judge_variant(
    origin: &Origin,
    path: &str,
    variant: Option<&str>,
    response: &Response,
) -> Verdict {
    let (start, promised) = match response.status {
        200 => (0, length_promised(response)),
        206 => {
            let (first, last, complete) =
                response.content_range().expect("a 206 has a Content-Range");
            assert!(first <= last, "{path}: Content-Range {first}-{last}");
            // RFC 8673: to the end, wherever that is.
            let is_endless = (last, complete) == ((1 << 53) - 1, None);
            (first, Some(last - first + 1).filter(|_| !is_endless))
        }
        status => return Verdict::Status(status),
    };
    let received = response.body.len() as u64;
    if let Some(promised) = promised {
        assert!(received <= promised, "{path}: {received} bytes where {promised} were promised");
        assert_eq!(
            response.complete,
            received == promised,
            "{path}: the end is told wrongly: {received} of {promised}, {:?}",
            response.headers
        );
    }

    let version = version_of(origin, path, variant, start, response);
    let length = origin.length_of(path, version);
    if promised.is_none() && response.complete {
        assert_eq!(start + received, length, "{path}: to the end of version {version}");
    }
    if response.status == 200 && response.complete {
        assert_eq!(received, length, "{path}: a whole object of version {version}");
    }
    assert!(start + received <= length, "{path}: bytes beyond the end of version {version}");
    match response.complete {
        true => Verdict::Whole { version },
        false => Verdict::Cut { version, bytes: received },
    }
}

/// Reads a body to its end, keeping none of it; panics at the first byte that is not of `content`.
///
/// For bodies too many or too large to be held. How many bytes came, and whether all.
pub(crate) async fn follow(streaming: &mut Streaming, content: Content, start: u64) -> (u64, bool) {
    let mut at = start;
    loop {
        match streaming.read(usize::MAX).await {
            Ok(Some(bytes)) => {
                let difference = content.first_difference(at, &bytes);
                assert_eq!(difference, None, "a byte of another version or place");
                at += bytes.len() as u64;
            }
            Ok(None) => return (at - start, true),
            Err(_) => return (at - start, false),
        }
    }
}

/// The version all bytes come from; the one the ETag names where there are none.
fn version_of(
    origin: &Origin,
    path: &str,
    variant: Option<&str>,
    start: u64,
    response: &Response,
) -> u32 {
    let tag = response.header("etag");
    let tag = tag.trim_start_matches("W/");
    let mut furthest = (0, 0);
    for version in 1..=origin.version_highest(path) {
        let content = content_of(path, variant, version);
        match content.first_difference(start, &response.body) {
            None if response.body.is_empty() && !tag.is_empty() && tag != etag(version) => {}
            None => {
                let named = tag.is_empty() || tag == etag(version);
                assert!(named, "{path}: bytes of version {version} under the ETag {tag}");
                return version;
            }
            Some(place) => furthest = furthest.max((place - start, version)),
        }
    }
    let (status, received) = (response.status, response.body.len());
    let (fitting, version) = furthest;
    panic!(
        "{path}: {status}, {received} bytes from {start} on are of no single version: \
         the first {fitting} fit version {version}, ETag {tag}"
    );
}

fn length_promised(response: &Response) -> Option<u64> {
    response.headers.get("content-length")?.to_str().ok()?.parse().ok()
}
