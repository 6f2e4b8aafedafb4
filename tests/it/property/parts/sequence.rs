//! What a sequence is made of: an object, how its origin answers from step to step, what a viewer
//! asks at each.

use std::fmt;
use std::ops::Range;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::support::{
    Ending, Framing, HeadFault, PIECE, Ranges, Request, Script, Validators, etag,
};

/// An object and what happens to it.
#[derive(Clone, Debug)]
pub(super) struct Sequence {
    pub(super) validators: Validators,
    /// Of each version in turn.
    pub(super) lengths: Vec<u64>,
    pub(super) steps: Vec<Step>,
}

/// One request of a viewer, and how the origin answers whatever it is asked meanwhile.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// The object becomes its next version first.
    pub(super) changes: bool,
    /// What the origin gives now is fresh for a year, or not at all.
    pub(super) fresh: bool,
    pub(super) origin: Says,
    pub(super) ask: Ask,
}

/// How the origin answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Says {
    /// As an RFC has it.
    Right(Framing),
    /// 200 where a range was asked for.
    Ignored,
    /// The range, of whatever version there is, in spite of `If-Range`.
    Unconditional,
    /// Another range, truthfully labelled.
    Other(u64, u64),
    /// No more than so many bytes of the range, truthfully labelled.
    Short(u64),
    /// `bytes a-b/*`.
    UnknownComplete,
    /// 416, whatever was asked for.
    Refused,
    /// The right bytes under a wrong label.
    Shifted(i64),
    /// A label that promises more than the body has.
    Longer(u64),
    Unlabelled,
    Garbled,
    /// 206 to a request without `Range`.
    Unasked,
    /// This error.
    Fails(u16),
    /// Closed instead of a head.
    Closed,
    /// Closed at this byte of the object.
    Cut(u64),
}

impl Says {
    pub(super) fn is_right(self) -> bool {
        matches!(self, Says::Right(_))
    }

    /// Says of bytes what they are not: none of a part so labelled is to be stored.
    pub(super) fn lies(self, range_was_asked: bool) -> bool {
        use Says::{Garbled, Longer, Shifted, Unasked, Unlabelled};
        matches!(self, Shifted(_) | Longer(_) | Unlabelled | Garbled)
            || self == Unasked && !range_was_asked
    }

    /// Work may be left when the viewer has his answer.
    pub(super) fn lingers(self) -> bool {
        use Says::{Closed, Cut, Ignored, Longer, Other, Right, Short, UnknownComplete};
        matches!(self, Ignored | Other(..) | Short(_) | UnknownComplete | Longer(_) | Closed)
            || matches!(self, Cut(_) | Right(Framing::Chunked | Framing::Close))
    }

    /// The script for a version of this length.
    pub(super) fn script(self, length: u64) -> Script {
        let script = Script::of(length);
        match self {
            Says::Right(framing) => script.framing(framing),
            Says::Ignored => script.ranges(Ranges::Ignored),
            Says::Unconditional => script.ranges(Ranges::Unconditional),
            Says::Other(first, more) => {
                let first = first % length.max(1);
                let last = (first + more).min(length.saturating_sub(1));
                script.ranges(Ranges::Other(first, last))
            }
            Says::Short(bytes) => script.ranges(Ranges::AtMost(bytes)),
            Says::UnknownComplete => script.ranges(Ranges::UnknownComplete),
            Says::Refused => script.ranges(Ranges::Refused),
            Says::Shifted(by) => script.ranges(Ranges::Shifted(by)),
            Says::Longer(by) => script.ranges(Ranges::Longer(by)),
            Says::Unlabelled => script.ranges(Ranges::Unlabelled),
            Says::Garbled => script.ranges(Ranges::Garbled),
            Says::Unasked => script.ranges(Ranges::Unasked),
            Says::Fails(status) => script.status(status),
            Says::Closed => script.head(HeadFault::Closed),
            Says::Cut(at) => script.ending(Ending::CutAt(at % length.max(1))),
        }
    }
}

/// What a viewer asks for.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) is_head: bool,
    pub(super) ranges: Vec<Span>,
    pub(super) wish: Wish,
}

/// One range, as it is written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Span {
    FromTo(u64, u64),
    From(u64),
    Suffix(u64),
}

/// What else a request says; a version is counted from the origin's, so that 0 is that one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Nothing,
    NoCache,
    IfNoneMatch(i32),
    IfRange(i32),
}

impl Span {
    /// The bytes of an object of this length; empty where there are none.
    pub(super) fn within(self, length: u64) -> Range<u64> {
        match self {
            Span::FromTo(first, last) => first..(last + 1).min(length),
            Span::From(first) => first..length,
            Span::Suffix(bytes) => length.saturating_sub(bytes)..length,
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Span::FromTo(first, last) => write!(f, "{first}-{last}"),
            Span::From(first) => write!(f, "{first}-"),
            Span::Suffix(bytes) => write!(f, "-{bytes}"),
        }
    }
}

impl Ask {
    /// With the fields it has while the origin's version is `version`.
    pub(super) fn written(&self, mut request: Request, version: u32) -> Request {
        if !self.ranges.is_empty() {
            let spans: Vec<_> = self.ranges.iter().map(Span::to_string).collect();
            request = request.header("range", &format!("bytes={}", spans.join(",")));
        }
        match self.wish {
            Wish::Nothing => request,
            Wish::NoCache => request.header("cache-control", "no-cache"),
            Wish::IfNoneMatch(by) => request.header("if-none-match", &named(version, by)),
            Wish::IfRange(by) => request.header("if-range", &named(version, by)),
        }
    }
}

/// The entity tag of the version that is so many after `version`.
pub(super) fn named(version: u32, by: i32) -> String {
    etag(version.saturating_add_signed(by))
}

pub(super) fn sequences() -> impl Strategy<Value = Sequence> {
    let validators = prop_oneof![
        6 => Just(Validators::Strong),
        1 => Just(Validators::EtagAlone),
        1 => Just(Validators::LastModified),
        1 => Just(Validators::Weak),
        1 => Just(Validators::None),
    ];
    (validators, vec(lengths(), 1..4), vec(step(), 1..10))
        .prop_map(|(validators, lengths, steps)| Sequence { validators, lengths, steps })
}

fn lengths() -> impl Strategy<Value = u64> {
    prop_oneof![
        1 => 0..3u64,
        2 => 3..2000u64,
        6 => (1..=LENGTH_MAX / PIECE, 0..3u64).prop_map(|(pieces, by)| pieces * PIECE - 1 + by),
        6 => 2000..LENGTH_MAX,
    ]
}

/// A byte of an object, as often on a border as off it.
fn place() -> impl Strategy<Value = u64> {
    prop_oneof![
        (0..=LENGTH_MAX / PIECE, 0..3u64)
            .prop_map(|(piece, by)| (piece * PIECE + by).saturating_sub(1)),
        0..2000u64,
        0..LENGTH_MAX,
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let origin = prop_oneof![
        16 => Just(Says::Right(Framing::Length)),
        1 => Just(Says::Right(Framing::Chunked)),
        1 => Just(Says::Right(Framing::Close)),
        8 => wrong(),
    ];
    let changes = prop::bool::weighted(0.2);
    let fresh = prop::bool::weighted(0.7);
    (changes, fresh, origin, ask()).prop_map(|(changes, fresh, origin, ask)| Step {
        changes,
        fresh,
        origin,
        ask,
    })
}

fn wrong() -> impl Strategy<Value = Says> {
    let by = prop_oneof![Just(1), Just(-1), Just(PIECE as i64), Just(-(PIECE as i64))];
    prop_oneof![
        Just(Says::Ignored),
        Just(Says::Unconditional),
        (place(), place()).prop_map(|(first, more)| Says::Other(first, more)),
        (1..2 * PIECE).prop_map(Says::Short),
        Just(Says::UnknownComplete),
        Just(Says::Refused),
        by.prop_map(Says::Shifted),
        (1..2 * PIECE).prop_map(Says::Longer),
        Just(Says::Unlabelled),
        Just(Says::Garbled),
        Just(Says::Unasked),
        prop_oneof![Just(404), Just(500), Just(503)].prop_map(Says::Fails),
        Just(Says::Closed),
        place().prop_map(Says::Cut),
    ]
}

fn ask() -> impl Strategy<Value = Ask> {
    let span = || {
        prop_oneof![
            4 => (place(), place()).prop_map(|(a, b)| Span::FromTo(a.min(b), a.max(b))),
            4 => (place(), 0..5000u64).prop_map(|(first, more)| Span::FromTo(first, first + more)),
            1 => place().prop_map(Span::From),
            1 => (0..LENGTH_MAX).prop_map(Span::Suffix),
        ]
    };
    let ranges = prop_oneof![
        3 => Just(vec![]),
        6 => span().prop_map(|span| vec![span]),
        1 => vec(span(), 2..5),
    ];
    let wish = prop_oneof![
        12 => Just(Wish::Nothing),
        1 => Just(Wish::NoCache),
        2 => (-1..2).prop_map(Wish::IfNoneMatch),
        2 => (-1..2).prop_map(Wish::IfRange),
    ];
    (prop::bool::weighted(0.07), ranges, wish).prop_map(|(is_head, ranges, wish)| Ask {
        is_head,
        ranges,
        wish,
    })
}

/// Four pieces and a little.
const LENGTH_MAX: u64 = 4 * PIECE + 1000;
