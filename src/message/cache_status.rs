//! `Cache-Status`: what the edge did with a request, for whoever reads the response (RFC 9211).
//!
//! Ours is the last member of the list, after those of the caches nearer to the origin. Errors made
//! here carry none.

use std::fmt;

use http::header::CACHE_STATUS;
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::message::syntax::{joined, written};

/// What the edge did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheStatus {
    /// Answered from the cache alone.
    Hit {
        /// What was left of the lifetime, in seconds; negative when it was served stale.
        ttl: i64,
    },
    /// Asked upstream.
    Fwd(Forwarded),
}

/// How upstream was asked, and what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// Why it was asked.
    pub reason: Fwd,
    /// The status it answered with, where it differs from the response's own (a 304, mostly).
    pub fwd_status: Option<StatusCode>,
    /// What is left of the lifetime of what came back, in seconds.
    pub ttl: Option<i64>,
    /// Whether what came back was stored.
    pub stored: bool,
    /// Whether another viewer's request upstream served this one too.
    pub collapsed: bool,
    /// One word more, a token of RFC 9651 section 3.3.4, for people.
    pub detail: Option<&'static str>,
}

impl From<Fwd> for Forwarded {
    fn from(reason: Fwd) -> Forwarded {
        Forwarded {
            reason,
            fwd_status: None,
            ttl: None,
            stored: false,
            collapsed: false,
            detail: None,
        }
    }
}

/// Why a request went upstream (RFC 9211 section 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fwd {
    /// The cache was told not to be used.
    Bypass,
    /// The method has to go upstream.
    Method,
    /// Nothing was stored for the URI.
    UriMiss,
    /// Something was, but not for these request fields.
    VaryMiss,
    /// One of the two, which is not known.
    Miss,
    /// The request asked for it.
    Request,
    /// What was stored is stale.
    Stale,
    /// What was stored does not hold all of the range asked for.
    Partial,
}

impl Fwd {
    /// As RFC 9211 writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Fwd::Bypass => "bypass",
            Fwd::Method => "method",
            Fwd::UriMiss => "uri-miss",
            Fwd::VaryMiss => "vary-miss",
            Fwd::Miss => "miss",
            Fwd::Request => "request",
            Fwd::Stale => "stale",
            Fwd::Partial => "partial",
        }
    }
}

impl CacheStatus {
    /// As one member of the list.
    pub fn to_header(self) -> HeaderValue {
        match self {
            CacheStatus::Hit { ttl } => joined([NAME, HIT, itoa::Buffer::new().format(whole(ttl))]),
            CacheStatus::Fwd(_) => written(&self),
        }
    }

    /// Adds it after the members that are there.
    pub fn append_to(self, headers: &mut HeaderMap) {
        headers.append(CACHE_STATUS, self.to_header());
    }
}

impl fmt::Display for CacheStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAME)?;
        let forwarded = match self {
            CacheStatus::Hit { ttl } => return write!(f, "{HIT}{}", whole(*ttl)),
            CacheStatus::Fwd(forwarded) => forwarded,
        };
        write!(f, "; fwd={}", forwarded.reason.as_str())?;
        if let Some(status) = forwarded.fwd_status {
            write!(f, "; fwd-status={}", status.as_u16())?;
        }
        if let Some(ttl) = forwarded.ttl {
            write!(f, "; ttl={}", whole(ttl))?;
        }
        if forwarded.stored {
            f.write_str("; stored")?;
        }
        if forwarded.collapsed {
            f.write_str("; collapsed")?;
        }
        match forwarded.detail {
            Some(detail) => write!(f, "; detail={detail:.DETAIL_BYTES_MAX$}"),
            None => Ok(()),
        }
    }
}

/// Structured fields have integers of fifteen digits (RFC 9651 section 3.3.1).
fn whole(number: i64) -> i64 {
    number.clamp(-999_999_999_999_999, 999_999_999_999_999)
}

const NAME: &str = "tidegate";
const HIT: &str = "; hit; ttl=";
const DETAIL_BYTES_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_member_is_written_as_rfc_9211_says() {
        let forwarded = Forwarded::from(Fwd::UriMiss);
        for (status, text) in [
            (CacheStatus::Hit { ttl: 11 }, "tidegate; hit; ttl=11"),
            (CacheStatus::Hit { ttl: 0 }, "tidegate; hit; ttl=0"),
            (CacheStatus::Hit { ttl: -30 }, "tidegate; hit; ttl=-30"),
            (CacheStatus::Hit { ttl: i64::MAX }, "tidegate; hit; ttl=999999999999999"),
            (CacheStatus::Hit { ttl: i64::MIN }, "tidegate; hit; ttl=-999999999999999"),
            (CacheStatus::Fwd(forwarded), "tidegate; fwd=uri-miss"),
            (
                CacheStatus::Fwd(Forwarded { collapsed: true, ..forwarded }),
                "tidegate; fwd=uri-miss; collapsed",
            ),
            (
                CacheStatus::Fwd(Forwarded { stored: true, ttl: Some(60), ..forwarded }),
                "tidegate; fwd=uri-miss; ttl=60; stored",
            ),
            (
                CacheStatus::Fwd(Forwarded {
                    reason: Fwd::Stale,
                    fwd_status: Some(StatusCode::NOT_MODIFIED),
                    ttl: Some(60),
                    stored: true,
                    collapsed: true,
                    detail: Some("ram"),
                }),
                "tidegate; fwd=stale; fwd-status=304; ttl=60; stored; collapsed; detail=ram",
            ),
        ] {
            assert_eq!(status.to_string(), text);
            assert_eq!(status.to_header(), text);
        }
    }

    #[test]
    fn each_member_is_a_structured_field() {
        for reason in [
            Fwd::Bypass,
            Fwd::Method,
            Fwd::UriMiss,
            Fwd::VaryMiss,
            Fwd::Miss,
            Fwd::Request,
            Fwd::Stale,
            Fwd::Partial,
        ] {
            let longest = CacheStatus::Fwd(Forwarded {
                reason,
                fwd_status: Some(StatusCode::NOT_MODIFIED),
                ttl: Some(i64::MIN),
                stored: true,
                collapsed: true,
                detail: Some("a-word-that-is-longer-than-any-that-is-in-use"),
            });
            let text = longest.to_header();
            let list: sfv::List = sfv::Parser::new(text.to_str().unwrap()).parse().unwrap();
            assert_eq!(list.len(), 1);
            let sfv::ListEntry::Item(item) = &list[0] else { panic!("an item") };
            assert_eq!(item.bare_item.as_token().map(|token| token.as_str()), Some(NAME));
            let fwd = item.params.get("fwd").and_then(|item| item.as_token()).unwrap();
            assert_eq!(fwd.as_str(), reason.as_str());
            assert_eq!(item.params.len(), 6);
        }
    }

    #[test]
    fn it_is_the_last_member() {
        let mut headers = HeaderMap::new();
        let origin = HeaderValue::from_static("OriginCache; hit; ttl=1100");
        headers.append(CACHE_STATUS, origin.clone());
        let ours = CacheStatus::Hit { ttl: 11 };
        ours.append_to(&mut headers);
        let members: Vec<_> = headers.get_all(CACHE_STATUS).iter().cloned().collect();
        assert_eq!(members, [origin, ours.to_header()]);
    }
}
