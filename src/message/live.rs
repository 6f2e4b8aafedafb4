//! Low-latency HLS as an edge sees it (RFC 8216bis section 6.2.5).
//!
//! A player adds directives to a playlist's URL: the update it waits for, which makes the origin
//! hold the request until there is one, and whether it wants all of it or what is new. Each set of
//! them is a resource of its own; a cache that dropped them would give one player's answer to
//! another, and would not know a hold from an origin that hangs.

use std::time::Duration;

use crate::limits::LIVE_HOLD_MAX;
use crate::site::{Content, Rule};

/// Asks to hold the request until the playlist has this segment.
const UPDATE: &str = "_HLS_msn";
/// Whether a query parameter names a resource at `path` whatever the rule's `query` says: one of a
/// playlist's delivery directives. Elsewhere they would only be a way around it, and so would one
/// that says what no player does.
pub fn directives(path: &str, content: Content) -> fn(&str) -> bool {
    match content == Content::Live || is_playlist(path) {
        true => is_directive,
        false => |_| false,
    }
}

/// What RFC 8216bis section 6.2.5.1 lets a delivery directive be.
fn is_directive(parameter: &str) -> bool {
    match parameter.split_once('=') {
        Some((UPDATE | "_HLS_part", value)) => {
            (1..=DIGITS_MAX).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_digit())
        }
        Some(("_HLS_skip", value)) => matches!(value, "YES" | "v2"),
        _ => false,
    }
}

/// How long the origin may hold a request for `target` on purpose.
pub fn hold(rule: &Rule, target: &str) -> Duration {
    match rule.content == Content::Live || is_blocking_reload(target) {
        true => LIVE_HOLD_MAX,
        false => Duration::ZERO,
    }
}

/// Whether it is a playlist's next update that is asked for: nothing that is held can stand for it.
pub fn is_blocking_reload(target: &str) -> bool {
    let Some((path, query)) = target.split_once('?') else { return false };
    let is_update = |one: &str| one.starts_with(UPDATE) && is_directive(one);
    is_playlist(path) && query.split('&').any(is_update)
}

fn is_playlist(path: &str) -> bool {
    path.ends_with(".m3u8") || path.ends_with(".m3u")
}

/// A 64-bit integer has no more.
const DIGITS_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directive_counts_only_if_a_player_can_have_written_it() {
        for (parameter, expected) in [
            ("_HLS_msn=18446744073709551615", true),
            ("_HLS_part=0", true),
            ("_HLS_skip=YES", true),
            ("_HLS_skip=v2", true),
            ("_HLS_skip=yes", false),
            ("_HLS_skip=", false),
            ("_HLS_part=1a", false),
            ("_HLS_part=", false),
            ("_HLS_part", false),
            ("_HLS_other=1", false),
            ("x_HLS_part=1", false),
        ] {
            assert_eq!(
                directives("/v.m3u8", Content::OnDemand)(parameter),
                expected,
                "{parameter}"
            );
            assert_eq!(directives("/v.mpd", Content::Live)(parameter), expected, "{parameter}");
            assert!(!directives("/v.m4s", Content::OnDemand)(parameter), "{parameter}");
        }
    }

    #[test]
    fn the_next_update_of_a_playlist_is_known_by_its_directive() {
        for (target, expected) in [
            ("/live/v.m3u8?_HLS_msn=7", true),
            ("/live/v.m3u8?_HLS_msn=7&_HLS_part=2", true),
            ("/live/v.m3u8?token=x&_HLS_msn=7", true),
            ("/live/v.m3u?_HLS_msn=7", true),
            ("/live/v.m3u8?_HLS_skip=YES", false),
            ("/live/v.m3u8?_hls_msn=7", false),
            ("/live/v.m3u8?a_HLS_msn=7", false),
            ("/live/v.m3u8?_HLS_msn", false),
            ("/live/v.m3u8?_HLS_msn=", false),
            ("/live/v.m3u8?_HLS_msn=x", false),
            ("/live/v.m3u8?_HLS_msn=-7", false),
            ("/live/v.m3u8?_HLS_msn=000000000000000000007", false),
            ("/live/v.m3u8?_HLS_msn2=7", false),
            ("/live/v.m3u8", false),
            ("/live/v.m4s?_HLS_msn=7", false),
            ("/live/v.m4s?x=.m3u8&_HLS_msn=7", false),
        ] {
            assert_eq!(is_blocking_reload(target), expected, "{target}");
        }
    }
}
