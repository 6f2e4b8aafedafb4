//! URI containers (RFC 9246 section 2.1.15): which URIs a token is for.

use aws_lc_rs::digest::{self, SHA256};
use regex::bytes::{Regex, RegexBuilder};

use crate::limits::{TOKEN_PATTERN_BYTES_MAX, TOKEN_PATTERN_COMPILED_BYTES_MAX};

use super::super::jwk::encoded;

/// What `cdniuc` says, and directives of a key file.
#[derive(Clone, Debug)]
pub enum Container {
    /// The URI of this SHA-256 (RFC 6920), in base64url.
    Hash(String),
    /// Those that begin with the first of these, go on with the others in their order, anything
    /// between them, and end with the last: of `Matching::Full`. Else, that have them somewhere.
    Pieces(Vec<Box<str>>, Matching),
    /// Those that the expression matches.
    Pattern(Regex),
}

/// How much of a URI an expression has to match. The RFC does not say; others search, for which
/// publishers have to anchor what they write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Matching {
    /// All of it.
    #[default]
    Full,
    /// Any part of it.
    Search,
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
        if pattern.len() > TOKEN_PATTERN_BYTES_MAX {
            return Err(format!("`regex:` has over {TOKEN_PATTERN_BYTES_MAX} bytes"));
        }
        if let Some(pieces) = pieces(pattern) {
            return Ok(Container::Pieces(pieces, matching));
        }
        let pattern = from_posix(pattern).ok_or("`regex:` is no POSIX expression")?;
        let searched = compiled(&pattern)?;
        // By itself first: `a)|(b` is none, and would be one between the anchors.
        Ok(Container::Pattern(match matching {
            Matching::Full => compiled(&format!("^(?:{pattern})$"))?,
            Matching::Search => searched,
        }))
    }

    /// Whether `uri`, normalised, is one of those.
    pub fn holds(&self, uri: &str) -> bool {
        match self {
            Container::Hash(hash) => {
                *hash == encoded(digest::digest(&SHA256, uri.as_bytes()).as_ref())
            }
            Container::Pieces(pieces, matching) => lie_in(pieces, *matching, uri),
            Container::Pattern(pattern) => pattern.is_match(uri.as_bytes()),
        }
    }

    /// What it takes in memory, in bytes, about: an expression by what it may grow to.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Container::Hash(hash) => hash.len(),
            Container::Pieces(pieces, _) => pieces.iter().map(|piece| 16 + piece.len()).sum(),
            Container::Pattern(_) => TOKEN_PATTERN_COMPILED_BYTES_MAX,
        }
    }
}

/// The literal pieces of an expression of nothing but them and `.*` between, which most are: they
/// take no memory to speak of, and no time. `None`: it is another one.
fn pieces(pattern: &str) -> Option<Vec<Box<str>>> {
    let mut pieces = vec![String::new()];
    let mut chars = pattern.chars().peekable();
    while let Some(char) = chars.next() {
        let literal = match char {
            '.' => {
                chars.next_if_eq(&'*')?;
                if chars.peek().is_some_and(|next| "*+?{".contains(*next)) {
                    return None;
                }
                pieces.push(String::new());
                continue;
            }
            '\\' => chars.next().filter(char::is_ascii_punctuation)?,
            '[' | '(' | ')' | '*' | '+' | '?' | '{' | '|' | '^' | '$' => return None,
            char => char,
        };
        pieces.last_mut()?.push(literal);
    }
    Some(pieces.into_iter().map(String::into_boxed_str).collect())
}

fn lie_in(pieces: &[Box<str>], matching: Matching, uri: &str) -> bool {
    let mut rest = uri;
    let mut between = pieces;
    if matching == Matching::Full {
        let (Some((first, others)), Some(last)) = (pieces.split_first(), pieces.last()) else {
            return false;
        };
        if others.is_empty() {
            return uri == &**first;
        }
        let Some(inner) = rest.strip_prefix(&**first).and_then(|rest| rest.strip_suffix(&**last))
        else {
            return false;
        };
        (rest, between) = (inner, &others[..others.len() - 1]);
    }
    between.iter().all(|piece| match rest.find(&**piece) {
        Some(at) => {
            rest = &rest[at + piece.len()..];
            true
        }
        None => false,
    })
}

fn compiled(pattern: &str) -> Result<Regex, String> {
    let compiled = RegexBuilder::new(pattern)
        .unicode(false)
        .dot_matches_new_line(true)
        .size_limit(TOKEN_PATTERN_COMPILED_BYTES_MAX)
        .dfa_size_limit(TOKEN_PATTERN_COMPILED_BYTES_MAX)
        .build();
    compiled.map_err(|_| "`regex:` is no expression, or too large".to_owned())
}

/// Of SHA-256 in base64url.
const SHA256_CHARACTERS: usize = 43;

/// A POSIX extended regular expression as the `regex` crate writes it; `None` where it is none.
/// Brackets differ, in which a backslash stands for itself and sets are not combined, and there are
/// no flags. Whether there is a match is the same; which of several is not asked.
fn from_posix(pattern: &str) -> Option<String> {
    let mut written = String::with_capacity(pattern.len() + 16);
    let (mut rest, mut depth) = (pattern, 0_u32);
    while let Some(char) = rest.chars().next() {
        rest = &rest[char.len_utf8()..];
        written.push(char);
        match char {
            '\\' => {
                let escaped = rest.chars().next()?;
                rest = &rest[escaped.len_utf8()..];
                written.push(escaped);
            }
            '[' => rest = bracket(rest, &mut written)?,
            '(' if rest.starts_with('?') => return None,
            '(' => depth += 1,
            // One that closes nothing would close what stands around the expression.
            ')' => depth = depth.checked_sub(1)?,
            _ => {}
        }
    }
    (depth == 0).then_some(written)
}

/// Writes a bracket expression behind its `[`; gives what follows it.
fn bracket<'a>(text: &'a str, written: &mut String) -> Option<&'a str> {
    let mut rest = text;
    if let Some(tail) = rest.strip_prefix('^') {
        written.push('^');
        rest = tail;
    }
    let mut is_first = true;
    loop {
        if rest.starts_with(']') && !is_first {
            written.push(']');
            return Some(&rest[1..]);
        }
        is_first = false;
        if let Some(named) = rest.strip_prefix("[:") {
            let (name, tail) = named.split_once(":]")?;
            CLASSES.contains(&name).then(|| written.extend(["[:", name, ":]"]))?;
            rest = tail;
            continue;
        }
        let low = member(&mut rest)?;
        escape(low, written);
        if rest.starts_with('-') && !rest.starts_with("-]") {
            rest = &rest[1..];
            written.push('-');
            escape(member(&mut rest)?, written);
        }
    }
}

/// One character of a bracket expression; none of several that collate as one.
fn member(rest: &mut &str) -> Option<char> {
    if ["[.", "[=", "[:"].iter().any(|opens| rest.starts_with(opens)) {
        return None;
    }
    let char = rest.chars().next()?;
    *rest = &rest[char.len_utf8()..];
    Some(char)
}

fn escape(char: char, written: &mut String) {
    if char.is_ascii_punctuation() {
        written.push('\\');
    }
    written.push(char);
}

/// The classes that POSIX names.
const CLASSES: [&str; 12] = [
    "alnum", "alpha", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space",
    "upper", "xdigit",
];

#[cfg(test)]
mod tests {
    use super::*;

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

    /// All short expressions of their kind, and all short URIs.
    #[test]
    fn pieces_hold_what_the_same_expression_holds() {
        let words = |letters: &[&str], count: usize| {
            let mut all = vec![String::new()];
            for _ in 0..count {
                let more = |one: &String| letters.iter().map(|two| format!("{one}{two}")).collect();
                let longer: Vec<String> =
                    all.iter().flat_map(|one| -> Vec<_> { more(one) }).collect();
                all.extend(longer);
            }
            all.sort_unstable();
            all.dedup();
            all
        };
        let uris = words(&["a", "b", "."], 4);
        for pattern in words(&["a", "b", ".*", "\\."], 4) {
            let all = pieces(&pattern).unwrap();
            let whole = compiled(&format!("^(?:{pattern})$")).unwrap();
            let anywhere = compiled(&pattern).unwrap();
            for uri in &uris {
                let is = |matching| lie_in(&all, matching, uri);
                let expected = [&whole, &anywhere].map(|regex| regex.is_match(uri.as_bytes()));
                assert_eq!([is(Matching::Full), is(Matching::Search)], expected, "{pattern} {uri}");
            }
        }
        for other in ["a.b", "a*", ".*?", "[a]", "a|b", "^a", "a$", "\\d", "a{2}", ".*{2}", "(a)"] {
            assert!(pieces(other).is_none(), "{other}");
        }
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
