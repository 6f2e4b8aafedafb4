//! What the fuzz target of `fuzz/` runs: whatever a request says, no token is left in it.
//!
//! Here so that the seeds can be replayed by ordinary tests too. Not part of the appliance.

use http::header::{COOKIE, HeaderValue, REFERER};
use http::{Request, Uri};

use super::shown::Shown;
use crate::limits::ACCESS_TOKEN_BYTES_MAX;

/// The target on the first line, then cookies, a referer and the header of a Common Access Token:
/// what is taken out is bounded, and nothing is left to be taken.
pub fn shown(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let Ok(uri) = Uri::try_from(lines.next().unwrap_or_default()) else { return };
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.uri = uri;
    for (line, name) in lines.zip([COOKIE.as_str(), REFERER.as_str(), CAT, COOKIE.as_str(), CAT]) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            parts.headers.append(name, value);
        }
    }
    let shown = Shown::take(&mut parts, "token", Some("cat"));
    let in_uri = shown.in_uri.iter().flatten();
    let cats = shown.cats.iter().flatten().map(|(_, token)| token);
    let tokens = in_uri.chain(&shown.in_cookies);
    assert!(tokens.chain(cats).all(|token| token.len() <= ACCESS_TOKEN_BYTES_MAX));
    let left = parts.clone();
    let again = Shown::take(&mut parts, "token", Some("cat"));
    assert!(again.is_nothing(), "{left:?}");
    assert_eq!((parts.uri, parts.headers), (left.uri, left.headers));
}

const CAT: &str = "cta-common-access-token";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::message::fuzz::tests::seeds;

    #[test]
    fn the_seeds_keep_its_promises() {
        seeds("shown", 5).iter().for_each(|seed| shown(seed));
    }

    proptest! {
        #[test]
        fn no_bytes_break_a_promise(
            bytes in "(/|http://a/)(/|[;?&](token|cat)=|token|cat|[a=,%\u{e9};?&]|\n|; ){0,24}",
        ) {
            shown(bytes.as_bytes());
        }
    }
}
