//! The status page: one file, which asks nobody but the admin listener it came from, and what a
//! browser lets it do.
//!
//! It holds no secret and no figure: who may have those `asking.rs` says, of what it asks for. What
//! viewers choose (paths, hosts) is text to it, and the policy lets nothing else become of it.

use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use http::HeaderMap;
use http::header::{CONTENT_SECURITY_POLICY, HeaderValue, REFERRER_POLICY};
use sfv::ItemSerializer;

pub(super) const PAGE: &str = include_str!("page.html");
pub(super) const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// Has a browser run the script that is in the page and no other, ask this listener alone, and show
/// the page in no other page.
pub(super) fn guard(fields: &mut HeaderMap) {
    fields.insert(CONTENT_SECURITY_POLICY, POLICY.clone());
    fields.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
}

/// Content Security Policy Level 3. With the last two directives a text cannot become markup.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; img-src data:; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'",
        hash(within("<script>", "</script>")),
        hash(within("<style>", "</style>")),
    );
    HeaderValue::try_from(policy).expect("a hash is in base64")
});

fn within(opens: &str, closes: &str) -> &'static str {
    let (_, rest) = PAGE.split_once(opens).expect("the page has one of each");
    rest.split_once(closes).expect("what is opened is closed").0
}

fn hash(text: &str) -> String {
    let hash = digest(&SHA256, text.as_bytes());
    // As a structured field it stands between colons (RFC 9651 section 3.3.5).
    let bytes = ItemSerializer::new().bare_item(hash.as_ref()).finish();
    bytes.trim_matches(':').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_one_file_that_asks_no_other_host_and_makes_no_markup_of_texts() {
        for (tag, times) in [("<script", 1), ("<style", 1), ("</script", 1), ("</style", 1)] {
            assert_eq!(PAGE.matches(tag).count(), times, "{tag}");
        }
        for elsewhere in ["http://", "https://", "//cdn", "url(", "@import", " src="] {
            let mut found = PAGE.match_indices(elsewhere).map(|(at, _)| &PAGE[at..]);
            assert!(found.all(|text| text.starts_with("http://www.w3.org/")), "{elsewhere}");
        }
        for markup in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!PAGE.contains(markup), "{markup}");
        }
        // Neither an attribute for style nor one for an event is let run.
        assert!(!PAGE.contains(" style=") && !PAGE.contains(" onclick="));
        assert!(PAGE.len() < 64 << 10, "{}", PAGE.len());
    }

    #[test]
    fn the_policy_is_of_this_page() {
        let mut fields = HeaderMap::new();
        guard(&mut fields);
        let policy = fields[CONTENT_SECURITY_POLICY].to_str().unwrap();
        // What `openssl dgst -sha256 -binary | base64` says of nothing.
        assert_eq!(hash(""), "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
        for (of, opens, closes) in
            [("script", "<script>", "</script>"), ("style", "<style>", "</style>")]
        {
            let source = format!("{of}-src 'sha256-{}'", hash(within(opens, closes)));
            assert!(policy.contains(&source), "{policy}");
        }
        assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"));
    }
}
