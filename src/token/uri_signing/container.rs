//! URI containers (RFC 9246 section 2.1.15): which URIs a token is for.

use aws_lc_rs::digest::{self, SHA256};

use super::super::expression::{Expression, Matching};
use super::super::jwk::encoded;

/// What `cdniuc` says, and directives of a key file.
#[derive(Clone, Debug)]
pub enum Container {
    /// The URI of this SHA-256 (RFC 6920), in base64url.
    Hash(String),
    /// Those that the expression matches.
    Pattern(Expression),
}

impl Container {
    /// Reads a container. An expression costs time to compile: the caller has verified who wrote
    /// it.
    ///
    /// # Errors
    /// It is none that is known here, in words.
    pub fn parse(text: &str, matching: Matching) -> Result<Container, String> {
        if let Some(name) = text.strip_prefix("hash:") {
            let (algorithm, digest) = name.split_once(';').ok_or("`hash:` names no algorithm")?;
            let is_digest = digest.len() == SHA256_CHARACTERS;
            return match algorithm {
                "sha-256" if is_digest => Ok(Container::Hash(digest.to_owned())),
                "sha-256" => Err("`hash:sha-256` has no digest of that length".to_owned()),
                other => Err(format!("`hash:` by {other:?} is not known here")),
            };
        }
        let Some(pattern) = text.strip_prefix("regex:") else {
            return Err("it begins with neither `hash:` nor `regex:`".to_owned());
        };
        Ok(Container::Pattern(Expression::parse(pattern, matching)?))
    }

    /// Whether `uri`, normalised, is one of those.
    pub fn holds(&self, uri: &str) -> bool {
        match self {
            Container::Hash(hash) => {
                *hash == encoded(digest::digest(&SHA256, uri.as_bytes()).as_ref())
            }
            Container::Pattern(expression) => expression.matches(uri.as_bytes()),
        }
    }

    /// What it takes in memory, in bytes, about.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Container::Hash(hash) => hash.len(),
            Container::Pattern(expression) => expression.bytes(),
        }
    }
}

/// Of SHA-256 in base64url.
const SHA256_CHARACTERS: usize = 43;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::TOKEN_PATTERN_BYTES_MAX;

    fn holds(container: &str, uri: &str) -> bool {
        Container::parse(container, Matching::Full).unwrap().holds(uri)
    }

    /// RFC 9246 appendix A.
    #[test]
    fn the_examples_of_the_rfc_hold_what_they_are_for() {
        let hash = "hash:sha-256;2tderfWPa86Ku7YnzW51YUp7dGUjBS_3SW3ELx4hmWY";
        assert!(holds(hash, "http://cdni.example/foo/bar"));
        assert!(!holds(hash, "http://cdni.example/foo/baz"));
        let pattern = r"regex:http://cdni\.example/foo/bar/[0-9]{3}\.ts";
        assert!(holds(pattern, "http://cdni.example/foo/bar/123.ts"));
        for uri in [
            "http://cdni.example/foo/bar/1234.ts",
            "http://cdnixexample/foo/bar/123.ts",
            "http://other.test/?http://cdni.example/foo/bar/123.ts",
            "http://cdni.example/foo/bar/123.ts?x",
        ] {
            assert!(!holds(pattern, uri), "{uri}");
        }
        let searched = Container::parse(pattern, Matching::Search).unwrap();
        assert!(searched.holds("http://cdni.example/foo/bar/123.ts?x"));
    }

    #[test]
    fn brackets_are_read_as_posix_says() {
        for (pattern, held, not) in [
            (r"[\.]", r"\.", "a"),
            (r"[]a]", "]a", "b"),
            (r"[^]a]", "b", "]a"),
            (r"[a[b]", "a[b", "c"),
            (r"[a&&b]", "a&b", "c"),
            (r"[[:digit:]_-]", "7_-", "a"),
            (r"[-a]", "-a", "b"),
            (r"[a-c]", "abc", "-"),
            (r".", "a\n", ""),
            (r"[^!--/]", "a", "!,-/"),
            (r"[^^-z]", "A", "^az"),
            (r"[a[-z]", "a[bz", "-A"),
            (r"[+--]", "+,-", "."),
        ] {
            let container = format!("regex:{pattern}");
            for one in held.chars() {
                assert!(holds(&container, &one.to_string()), "{pattern} {one}");
            }
            for one in not.chars() {
                assert!(!holds(&container, &one.to_string()), "{pattern} {one}");
            }
        }
    }

    #[test]
    fn what_is_no_container_is_refused_and_none_takes_long() {
        let long = format!("regex:{}", "a".repeat(TOKEN_PATTERN_BYTES_MAX + 1));
        for text in [
            "",
            "http://a/",
            "hash:",
            "hash:sha-256",
            "hash:sha-256;short",
            "hash:md5;aaaa",
            "regex:[a",
            "regex:[[:digit:",
            "regex:(",
            "regex:a)|(b",
            "regex:http://a/x)|(.*b",
            "regex:(?i)a",
            "regex:[[.-.]]",
            "regex:[[=a=]]",
            "regex:[[:foo:]]",
            "regex:[[:^alpha:]]",
            "regex:[[:a]])|(:]]",
            "regex:[z-a]",
            "regex:\\",
            "regex:((((a{1000}){1000}){1000}){1000})",
            &long,
        ] {
            assert!(Container::parse(text, Matching::Full).is_err(), "{text}");
        }
        // Backtracking would take for ever.
        let uri = format!("{}!", "a".repeat(4_000));
        assert!(!holds("regex:(a+)+b", &uri));
    }
}
