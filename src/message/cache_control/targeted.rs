//! A response's directives for caches like ours alone (RFC 9213): they count instead of
//! `Cache-Control` and `Expires`.
//!
//! Structured fields. One that is empty or broken counts as if it were not there; a directive whose
//! argument is of another type than it should be is skipped, unless it forbids something.

use std::time::Duration;

use http::{HeaderMap, HeaderName};
use sfv::{BareItem, Dictionary, ListEntry, Parser};

use crate::message::cache_control::{CacheControl, capped_seconds};

/// The fields that address us, the narrower target first.
const TARGETS: [HeaderName; 2] = [
    HeaderName::from_static("tidegate-cache-control"),
    HeaderName::from_static("cdn-cache-control"),
];

/// What the first sound field of [`TARGETS`] says.
pub(super) fn of(headers: &HeaderMap) -> Option<CacheControl> {
    TARGETS.iter().find_map(|name| read(headers, name))
}

fn read(headers: &HeaderMap, name: &HeaderName) -> Option<CacheControl> {
    let mut lines = headers.get_all(name).iter().map(|line| line.as_bytes());
    let first = lines.next()?;
    let whole = lines.fold(first.to_vec(), |whole, line| [&whole, &b", "[..], line].concat());
    let directives: Dictionary = Parser::new(&whole).parse().ok()?;
    if directives.is_empty() {
        return None;
    }
    let mut found = CacheControl { is_targeted: true, ..CacheControl::default() };
    for (name, value) in &directives {
        found.add_structured(name.as_str(), value);
    }
    Some(found)
}

impl CacheControl {
    fn add_structured(&mut self, name: &str, value: &ListEntry) {
        let argument = match value {
            ListEntry::Item(item) => Some(&item.bare_item),
            ListEntry::InnerList(_) => None,
        };
        let is_denied = matches!(argument, Some(BareItem::Boolean(false)));
        let is_true = matches!(argument, Some(BareItem::Boolean(true)));
        let fields = match argument {
            Some(BareItem::String(names)) => Some(names.as_str().as_bytes()),
            _ => None,
        };
        match name {
            "no-store" => self.no_store |= !is_denied,
            "no-cache" => self.no_cache |= !is_denied && !self.withhold(fields),
            "private" => self.private |= !is_denied && !self.withhold(fields),
            "must-revalidate" => self.must_revalidate |= !is_denied,
            "proxy-revalidate" => self.proxy_revalidate |= !is_denied,
            "must-understand" => self.must_understand |= !is_denied,
            "public" => self.public |= is_true,
            "immutable" => self.immutable |= is_true,
            "max-age" => self.max_age = seconds(argument),
            "s-maxage" => self.s_maxage = seconds(argument),
            "stale-while-revalidate" => self.stale_while_revalidate = seconds(argument),
            "stale-if-error" => self.stale_if_error = seconds(argument),
            _ => {}
        }
    }
}

/// Less than nothing is nothing.
fn seconds(argument: Option<&BareItem>) -> Option<Duration> {
    let Some(BareItem::Integer(seconds)) = argument else { return None };
    let seconds = u64::try_from(i64::from(*seconds)).unwrap_or(0);
    Some(Duration::from_secs(capped_seconds(seconds)))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn of(lines: &[(&'static str, &str)]) -> CacheControl {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            headers.append(HeaderName::from_static(name), value);
        }
        CacheControl::of(&headers)
    }

    #[test]
    fn the_narrowest_sound_target_counts_alone() {
        // RFC 9213 2.2; the lifetime that was found tells which field counted.
        let (ours, cdn, all) = ("tidegate-cache-control", "cdn-cache-control", "cache-control");
        for (lines, max_age, is_targeted) in [
            (&[(all, "max-age=1")][..], Some(1), false),
            (&[(cdn, "max-age=2"), (all, "max-age=1")], Some(2), true),
            (&[(all, "no-store, max-age=1"), (cdn, "max-age=2")], Some(2), true),
            (&[(cdn, "max-age=2"), (ours, "max-age=3"), (all, "max-age=1")], Some(3), true),
            (&[(ours, "max-age=3")], Some(3), true),
            // Lines are one field.
            (&[(cdn, "must-revalidate"), (cdn, "max-age=2")], Some(2), true),
            // Of a key that is there twice the last counts (RFC 9651 3.2).
            (&[(cdn, "max-age=7, max-age=2")], Some(2), true),
            // Without a lifetime it still counts alone.
            (&[(cdn, "public"), (all, "max-age=1")], None, true),
            (&[(cdn, "unheard-of"), (all, "max-age=1")], None, true),
            // Empty or broken: as if it were not there (2.1).
            (&[(cdn, ""), (all, "max-age=1")], Some(1), false),
            (&[(cdn, "  "), (all, "max-age=1")], Some(1), false),
            (&[(cdn, "max-age=2,"), (all, "max-age=1")], Some(1), false),
            (&[(cdn, "max-age=2, &&&&&"), (all, "max-age=1")], Some(1), false),
            (&[(cdn, "Max-Age=2"), (all, "max-age=1")], Some(1), false),
            (&[(cdn, "max-age=2; a=\""), (all, "max-age=1")], Some(1), false),
            (&[(cdn, "max-age =2"), (all, "max-age=1")], Some(1), false),
            (&[(ours, "&"), (cdn, "max-age=2"), (all, "max-age=1")], Some(2), true),
            (&[(cdn, "max-age=2"), (cdn, "&"), (all, "max-age=1")], Some(1), false),
            // Another type than a number.
            (&[(cdn, "max-age=\"2\""), (all, "max-age=1")], None, true),
            (&[(cdn, "max-age=2.0"), (all, "max-age=1")], None, true),
            (&[(cdn, "max-age"), (all, "max-age=1")], None, true),
            (&[(cdn, "max-age=(2)"), (all, "max-age=1")], None, true),
            (&[(cdn, "max-age=-2"), (all, "max-age=1")], Some(0), true),
            (&[(cdn, "max-age=999999999999999")], Some(1 << 31), true),
            (&[(cdn, "max-age=2;unheard=of")], Some(2), true),
        ] {
            let found = of(lines);
            let seconds = found.max_age.map(|age| age.as_secs());
            assert_eq!((seconds, found.is_targeted), (max_age, is_targeted), "{lines:?}");
        }
    }

    #[test]
    fn what_forbids_forbids_whatever_its_type() {
        let of = |line| of(&[("cdn-cache-control", line)]);
        assert!(of("no-store").no_store && of("no-store=1").no_store && of("no-store=?1").no_store);
        assert!(!of("no-store=?0").no_store);
        assert!(of("private").private && of("private=x").private && !of("private=?0").private);
        assert!(of("no-cache, max-age=1").no_cache && of("no-cache=(a)").no_cache);
        assert!(of("must-revalidate").must_revalidate && of("proxy-revalidate").proxy_revalidate);
        assert!(of("public").public && !of("public=1").public && !of("public=?0").public);
        let named = of("private=\"a, b\", no-cache=\"c\"");
        assert!(!named.private && !named.no_cache && named.withheld == ["a", "b", "c"]);
        assert!(of("private=\"a b\"").private);
        let stale = of("max-age=1, stale-while-revalidate=2, stale-if-error=3, immutable");
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(stale.stale_while_revalidate, seconds(2));
        assert_eq!((stale.stale_if_error, stale.immutable), (seconds(3), true));
    }
}
