//! What a viewer asks, as his request's target says it. Pure.

use std::borrow::Cow;

use super::{Kind, ROOT};
use crate::message::target::normalised_path;

/// One question.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Question<'a> {
    pub(super) kind: Kind,
    /// The site's name, as it is written.
    pub(super) site: &'a str,
    /// The object's normalised path; `None`: an escape in it is broken.
    pub(super) path: Option<Cow<'a, str>>,
    /// Without the `?`.
    pub(super) query: &'a str,
}

impl Question<'_> {
    /// What a request's target asks; `None`: none of these.
    pub(super) fn of(target: &str) -> Option<Question<'_>> {
        let (asked, query) = target.split_once('?').unwrap_or((target, ""));
        let (kind, rest) = asked.strip_prefix(ROOT)?.split_once('/')?;
        let kind = Kind::ALL.into_iter().find(|one| one.word() == kind)?;
        let (site, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let path = if path.is_empty() { "/" } else { path };
        Some(Question { kind, site, path: normalised_path(path), query })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_read_and_what_is_none_is_not() {
        let asked = |kind, site, path: Option<&'static str>, query| {
            Some(Question { kind, site, path: path.map(Cow::from), query })
        };
        for (target, expected) in [
            ("/steer/v1/go/film/a/b.mp4", asked(Kind::Go, "film", Some("/a/b.mp4"), "")),
            ("/steer/v1/rank/film/a?b=c?", asked(Kind::Rank, "film", Some("/a"), "b=c?")),
            ("/steer/v1/hls/film", asked(Kind::Hls, "film", Some("/"), "")),
            ("/steer/v1/dash/film/a/../%41", asked(Kind::Dash, "film", Some("/A"), "")),
            (
                "/steer/v1/go/film//evil.example/a",
                asked(Kind::Go, "film", Some("//evil.example/a"), ""),
            ),
            ("/steer/v1/hls/film/%zz", asked(Kind::Hls, "film", None, "")),
            ("/steer/v1/hls/", asked(Kind::Hls, "", Some("/"), "")),
            ("/steer/v1/hls", None),
            ("/steer/v1/other/film/a", None),
            ("/steer/v2/go/film/a", None),
            ("/", None),
        ] {
            assert_eq!(Question::of(target), expected, "{target}");
        }
    }
}
