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
/// The delivery directives of a playlist.
const DIRECTIVES: [&str; 3] = [UPDATE, "_HLS_part", "_HLS_skip"];

/// The parameters that name a resource at `path` whatever the rule's `query` says. Elsewhere they
/// would only be a way around it.
pub fn directives(path: &str, content: Content) -> &'static [&'static str] {
    match content == Content::Live || is_playlist(path) {
        true => &DIRECTIVES,
        false => &[],
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
    let mut names = query.split('&').filter_map(|one| one.split_once('=')).map(|(name, _)| name);
    is_playlist(path) && names.any(|name| name == UPDATE)
}

fn is_playlist(path: &str) -> bool {
    path.ends_with(".m3u8") || path.ends_with(".m3u")
}

#[cfg(test)]
mod tests {
    use super::*;

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
            ("/live/v.m3u8", false),
            ("/live/v.m4s?_HLS_msn=7", false),
            ("/live/v.m4s?x=.m3u8&_HLS_msn=7", false),
        ] {
            assert_eq!(is_blocking_reload(target), expected, "{target}");
        }
    }
}
