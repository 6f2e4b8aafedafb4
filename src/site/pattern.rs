//! Path patterns: which rule a path falls under. Pure, never slower than pattern times path length.
//!
//! `*` stands for any characters but `/`, `**` for any characters, `/**/` also for a single `/`.
//! A pattern that does not begin with `/` may begin at any segment: `*.m3u8` is `/**/*.m3u8`.
//! Letters are compared exactly.

use std::fmt;
use std::sync::Arc;

use crate::limits::PATH_PATTERN_BYTES_MAX;

/// A checked path pattern, e.g. `*.m3u8`, `/live/*`, `**`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    written: Arc<str>,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    /// `*`: any characters but `/`.
    InSegment,
    /// `**`: any characters.
    Anything,
    /// `**/` after a `/`: any number of whole segments.
    Segments,
}

/// Why a pattern is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatternError {
    /// Nothing is written.
    Empty,
    /// Longer than [`PATH_PATTERN_BYTES_MAX`].
    TooLong {
        /// Its length.
        length_bytes: usize,
    },
    /// A character that no normalised path holds.
    Character {
        /// The first such character.
        character: char,
    },
    /// Three or more stars in a row.
    Stars,
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PatternError::Empty => write!(f, "an empty pattern matches nothing"),
            PatternError::TooLong { length_bytes } => {
                write!(f, "the pattern has {length_bytes} bytes, at most {PATH_PATTERN_BYTES_MAX}")
            }
            PatternError::Character { character } => write!(
                f,
                "no path holds {character:?}: a pattern is matched against the path alone, \
                 percent-encoded"
            ),
            PatternError::Stars => write!(f, "`*` or `**`, never more stars in a row"),
        }
    }
}

impl std::error::Error for PatternError {}

impl PathPattern {
    /// The pattern that matches every path: `**`.
    pub fn everything() -> PathPattern {
        PathPattern { written: "**".into(), parts: vec![Part::Anything] }
    }

    /// Checks and compiles a pattern.
    pub fn parse(written: &str) -> Result<PathPattern, PatternError> {
        if written.is_empty() {
            return Err(PatternError::Empty);
        }
        if written.len() > PATH_PATTERN_BYTES_MAX {
            return Err(PatternError::TooLong { length_bytes: written.len() });
        }
        let foreign = |c: &char| !c.is_ascii_graphic() || matches!(c, '?' | '#' | '\\');
        if let Some(character) = written.chars().find(foreign) {
            return Err(PatternError::Character { character });
        }
        if written.contains("***") {
            return Err(PatternError::Stars);
        }
        if written == "**" {
            return Ok(PathPattern::everything());
        }
        let mut parts = Vec::new();
        if !written.starts_with('/') {
            parts.extend([Part::Literal("/".to_owned()), Part::Segments]);
        }
        compile(written, &mut parts);
        Ok(PathPattern { written: written.into(), parts })
    }

    /// Whether `path` (normalised, beginning with `/`) falls under the pattern.
    pub fn matches(&self, path: &str) -> bool {
        // As most are written, `*.m4s`: what is before the end may be anything.
        if let [Part::Literal(root), Part::Segments, Part::InSegment, Part::Literal(end)] =
            self.parts.as_slice()
            && root == "/"
        {
            return path.len() > end.len() && path.starts_with('/') && path.ends_with(end.as_str());
        }
        matches(&self.parts, path)
    }

    /// As it was written.
    pub fn text(&self) -> Arc<str> {
        self.written.clone()
    }

    /// Whether it is `**`, so that no later rule is ever reached.
    pub fn is_everything(&self) -> bool {
        self.parts == [Part::Anything]
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.written)
    }
}

fn compile(written: &str, parts: &mut Vec<Part>) {
    let mut rest = written;
    while !rest.is_empty() {
        let after_slash = match parts.last() {
            Some(Part::Literal(text)) => text.ends_with('/'),
            Some(Part::Segments) => true,
            _ => false,
        };
        if after_slash && rest.starts_with("**/") {
            parts.push(Part::Segments);
            rest = &rest[3..];
        } else if let Some(after) = rest.strip_prefix("**") {
            parts.push(Part::Anything);
            rest = after;
        } else if let Some(after) = rest.strip_prefix('*') {
            parts.push(Part::InSegment);
            rest = after;
        } else {
            let end = rest.find('*').unwrap_or(rest.len());
            parts.push(Part::Literal(rest[..end].to_owned()));
            rest = &rest[end..];
        }
    }
}

/// Greedy, with one place to fall back to for the last `*` and one for the last wider wildcard.
/// Earlier ones need none: where a later one can begin, it can begin at the earliest such place.
fn matches(parts: &[Part], path: &str) -> bool {
    let (mut part, mut at) = (0, 0);
    let mut narrow: Option<(usize, usize)> = None;
    let mut wide: Option<(usize, usize)> = None;
    loop {
        let holds = match parts.get(part) {
            None if at == path.len() => return true,
            None => false,
            Some(Part::Literal(text)) => {
                let holds = path.as_bytes()[at..].starts_with(text.as_bytes());
                at += if holds { text.len() } else { 0 };
                holds
            }
            Some(Part::InSegment) => {
                narrow = Some((part + 1, at));
                true
            }
            Some(Part::Anything) if part + 1 == parts.len() => return true,
            Some(Part::Anything | Part::Segments) => {
                (narrow, wide) = (None, Some((part + 1, at)));
                true
            }
        };
        if holds {
            part += 1;
            continue;
        }
        let Some((next_part, next_at)) = step_narrow(path, &mut narrow)
            .or_else(|| step_wide(parts, path, &mut narrow, &mut wide))
        else {
            return false;
        };
        (part, at) = (next_part, next_at);
    }
}

/// One character more for the last `*`, unless that is a `/` or the end.
fn step_narrow(path: &str, narrow: &mut Option<(usize, usize)>) -> Option<(usize, usize)> {
    let (part, at) = (*narrow)?;
    match path.as_bytes().get(at) {
        None | Some(b'/') => None,
        Some(_) => {
            *narrow = Some((part, at + 1));
            *narrow
        }
    }
}

/// One character or one segment more for the last wide wildcard.
fn step_wide(
    parts: &[Part],
    path: &str,
    narrow: &mut Option<(usize, usize)>,
    wide: &mut Option<(usize, usize)>,
) -> Option<(usize, usize)> {
    let (part, at) = (*wide)?;
    let rest = &path.as_bytes()[at..];
    let step = match parts[part - 1] {
        Part::Segments => rest.iter().position(|byte| *byte == b'/')? + 1,
        _ if rest.is_empty() => return None,
        _ => 1,
    };
    *narrow = None;
    *wide = Some((part, at + step));
    *wide
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(written: &str) -> PathPattern {
        PathPattern::parse(written).unwrap()
    }

    #[test]
    fn patterns_and_the_paths_under_them() {
        let table: &[(&str, &[&str], &[&str])] = &[
            ("**", &["/", "/a/b.ts"], &[]),
            ("*", &["/", "/a", "/a/b"], &[]),
            ("*.m3u8", &["/a.m3u8", "/x/y/a.m3u8", "/.m3u8"], &["/a.m3u8x", "/a.m3u8/b", "/m3u8"]),
            ("master.m3u8", &["/master.m3u8", "/f/master.m3u8"], &["/xmaster.m3u8"]),
            ("live/*.ts", &["/live/1.ts", "/eu/live/1.ts"], &["/alive/1.ts", "/live/a/1.ts"]),
            ("/live/*", &["/live/", "/live/a"], &["/live", "/live/a/b", "/x/live/a"]),
            ("/live/**", &["/live/", "/live/a", "/live/a/b"], &["/live", "/live2/a"]),
            ("/live/**/*.ts", &["/live/1.ts", "/live/a/b/1.ts"], &["/live/a", "/x/live/1.ts"]),
            ("/a/*/c/*.ts", &["/a/b/c/d.ts"], &["/a/c/d.ts", "/a/b/b/c/d.ts"]),
            ("/a**z", &["/az", "/a/b/z", "/a/zz"], &["/a/b/zy"]),
            ("/*ab*c", &["/abc", "/ababc", "/xabxc"], &["/ab/c", "/acb"]),
            ("/film.mp4", &["/film.mp4"], &["/Film.mp4", "/film.mp4/", "/x/film.mp4"]),
        ];
        for (written, matching, others) in table {
            for path in *matching {
                assert!(pattern(written).matches(path), "{written} {path}");
            }
            for path in *others {
                assert!(!pattern(written).matches(path), "{written} {path}");
            }
        }
    }

    #[test]
    fn what_is_no_pattern_says_why() {
        let error = |written: &str| PathPattern::parse(written).unwrap_err();
        assert_eq!(error(""), PatternError::Empty);
        assert_eq!(error("/a?b"), PatternError::Character { character: '?' });
        assert_eq!(error("/a b"), PatternError::Character { character: ' ' });
        assert_eq!(error("/***"), PatternError::Stars);
        assert_eq!(error(&"a".repeat(1025)), PatternError::TooLong { length_bytes: 1025 });
    }

    /// The meaning, written without regard for time.
    fn oracle(parts: &[Part], path: &str) -> bool {
        let Some((first, rest)) = parts.split_first() else { return path.is_empty() };
        match first {
            Part::Literal(text) => {
                path.strip_prefix(text.as_str()).is_some_and(|p| oracle(rest, p))
            }
            Part::InSegment => {
                let end = path.find('/').unwrap_or(path.len());
                (0..=end).any(|at| oracle(rest, &path[at..]))
            }
            Part::Anything => (0..=path.len()).any(|at| oracle(rest, &path[at..])),
            Part::Segments => (0..=path.len())
                .filter(|at| *at == 0 || path.as_bytes()[at - 1] == b'/')
                .any(|at| oracle(rest, &path[at..])),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]
        #[test]
        fn the_quick_matcher_agrees_with_the_plain_one(
            written in "/?([ab]|/|\\*|\\*\\*/|\\*\\*){1,7}",
            path in "/[ab/]{0,9}",
        ) {
            if let Ok(pattern) = PathPattern::parse(&written) {
                let expected = oracle(&pattern.parts, &path);
                prop_assert_eq!(pattern.matches(&path), expected, "{} {}", written, path);
            }
        }
    }
}
