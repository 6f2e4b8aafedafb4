//! Expressions that publishers write (POSIX, extended): which texts they match.
//!
//! They are written by whoever signs tokens and keys of him are known here; no expression takes
//! more than time in the length of a text, nor more than bounded memory.

use memchr::memmem::find;
use regex::bytes::{Regex, RegexBuilder};

use crate::limits::{TOKEN_PATTERN_BYTES_MAX, TOKEN_PATTERN_COMPILED_BYTES_MAX};

/// An expression.
#[derive(Clone, Debug)]
pub struct Expression(Kind);

#[derive(Clone, Debug)]
enum Kind {
    /// What begins with the first of these, goes on with the others in their order, anything
    /// between them, and ends with the last: of `Matching::Full`. Else, what has them somewhere.
    Pieces(Vec<Box<str>>, Matching),
    /// Any other.
    Regex(Regex),
}

/// How much of a text an expression has to match. The RFC does not say; others search, for which
/// publishers have to anchor what they write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Matching {
    /// All of it.
    #[default]
    Full,
    /// Any part of it.
    Search,
}

impl Expression {
    /// Reads one. It may cost time: the caller has verified who wrote it.
    ///
    /// # Errors
    /// It is none, or too large, in words.
    pub fn parse(text: &str, matching: Matching) -> Result<Expression, String> {
        if text.len() > TOKEN_PATTERN_BYTES_MAX {
            return Err(format!("`regex:` has over {TOKEN_PATTERN_BYTES_MAX} bytes"));
        }
        if let Some(pieces) = pieces(text) {
            return Ok(Expression(Kind::Pieces(pieces, matching)));
        }
        let pattern = from_posix(text).ok_or("`regex:` is no POSIX expression")?;
        let searched = compiled(&pattern)?;
        // By itself first: `a)|(b` is none, and would be one between the anchors.
        Ok(Expression(Kind::Regex(match matching {
            Matching::Full => compiled(&format!("^(?:{pattern})$"))?,
            Matching::Search => searched,
        })))
    }

    /// Whether it matches a text.
    pub fn matches(&self, text: &[u8]) -> bool {
        match &self.0 {
            Kind::Pieces(pieces, matching) => lie_in(pieces, *matching, text),
            Kind::Regex(regex) => regex.is_match(text),
        }
    }

    /// What it takes in memory, in bytes, about: one that is compiled, what it may grow to.
    pub(super) fn bytes(&self) -> usize {
        match &self.0 {
            Kind::Pieces(pieces, _) => pieces.iter().map(|piece| 16 + piece.len()).sum(),
            Kind::Regex(_) => TOKEN_PATTERN_COMPILED_BYTES_MAX,
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

fn lie_in(pieces: &[Box<str>], matching: Matching, text: &[u8]) -> bool {
    let (mut rest, mut between) = (text, pieces);
    if matching == Matching::Full {
        let Some((first, others)) = pieces.split_first() else { return false };
        let Some((last, inner)) = others.split_last() else { return text == first.as_bytes() };
        let inside = text.strip_prefix(first.as_bytes());
        let Some(inside) = inside.and_then(|rest| rest.strip_suffix(last.as_bytes())) else {
            return false;
        };
        (rest, between) = (inside, inner);
    }
    between.iter().all(|piece| match find(rest, piece.as_bytes()) {
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
                let is = |matching| lie_in(&all, matching, uri.as_bytes());
                let expected = [&whole, &anywhere].map(|regex| regex.is_match(uri.as_bytes()));
                assert_eq!([is(Matching::Full), is(Matching::Search)], expected, "{pattern} {uri}");
            }
        }
        for other in ["a.b", "a*", ".*?", "[a]", "a|b", "^a", "a$", "\\d", "a{2}", ".*{2}", "(a)"] {
            assert!(pieces(other).is_none(), "{other}");
        }
    }
}
