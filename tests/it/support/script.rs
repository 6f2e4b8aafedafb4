//! What the origin does with requests for one path: honest by default, each lie one builder method.
//!
//! Offsets are those of the object, not of the response: a body cut at 65,536 is cut there whatever
//! range was asked for. A script is a value; a running origin takes a new one at any time.

use std::time::Duration;

use super::content::Content;

/// How the origin answers for one path.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(super) length_bytes: u64,
    pub(super) next_length_bytes: Option<u64>,
    pub(super) version: u32,
    pub(super) change: Change,
    pub(super) validators: Validators,
    pub(super) framing: Framing,
    pub(super) ranges: Ranges,
    pub(super) ending: Ending,
    pub(super) head: HeadFault,
    pub(super) status: Option<u16>,
    pub(super) fields: Vec<(String, String)>,
    pub(super) vary: Option<&'static str>,
    pub(super) not_modified: NotModified,
    pub(super) first_byte_after: Duration,
    pub(super) rate_bytes_per_second: Option<u64>,
    pub(super) together: usize,
}

/// When the object becomes its next version: new bytes, new validators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Never,
    /// Every request gets a version of its own: the first 1, the second 2.
    EachRequest,
    /// From the n-th request for the path on, counted from 1.
    FromRequest(u64),
    /// For requests that start at this offset or beyond.
    FromOffset(u64),
    /// Once a body has reached this offset: it is cut there, later requests see the next version.
    AtByte(u64),
}

/// What tells versions apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Validators {
    Strong,
    /// A strong one, and no date: how long it is fresh cannot be guessed.
    EtagAlone,
    Weak,
    LastModified,
    None,
}

/// How the body's end is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    Length,
    Chunked,
    Close,
}

/// What becomes of a `Range`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ranges {
    Honoured,
    /// 200 and everything.
    Ignored,
    /// Honoured whatever `If-Range` says.
    Unconditional,
    /// The bytes asked for, under a `Content-Range` moved by this many bytes.
    Shifted(i64),
    /// The bytes asked for, with another complete length in `Content-Range`.
    WrongComplete(u64),
    /// `bytes a-b/*`.
    UnknownComplete,
    /// This range whatever was asked for, truthfully labelled.
    Other(u64, u64),
    /// At most so many bytes, truthfully labelled.
    AtMost(u64),
    /// The bytes asked for, labelled as the last ones of the longest object that can be written.
    Endless,
    /// The bytes asked for, under a `Content-Range` that ends so many bytes later.
    Longer(u64),
    /// 206 with the first half to who asks for no range.
    Unasked,
    /// 206 without `Content-Range`.
    Unlabelled,
    /// 206 with a `Content-Range` that says nothing.
    Garbled,
    /// 416 whatever was asked for.
    Refused,
}

/// How the body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Whole,
    /// Closed at this offset.
    CutAt(u64),
    /// Closed after the last byte, before what tells that it is the last.
    CutAtEnd,
    /// Reset at this offset.
    ResetAt(u64),
    /// Nothing more from this offset on until the test releases the path.
    HeldAt(u64),
    /// So many bytes follow the end that `Content-Length` told.
    Surplus(u64),
    /// `Content-Length` and the body are so many bytes longer than `Content-Range` says.
    SurplusDeclared(u64),
}

/// What is wrong with the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeadFault {
    Nothing,
    /// Closed where the head should be.
    Closed,
    /// Nothing is sent until the test releases the path.
    Held,
    /// No HTTP at all.
    Garbled,
}

/// Whether a conditional request can be answered 304.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotModified {
    Known,
    Unknown,
}

impl Script {
    /// An honest object of so many bytes: version 1, strong ETag, a year of freshness, ranges.
    pub(crate) fn of(length_bytes: u64) -> Script {
        Script {
            length_bytes,
            next_length_bytes: None,
            version: 1,
            change: Change::Never,
            validators: Validators::Strong,
            framing: Framing::Length,
            ranges: Ranges::Honoured,
            ending: Ending::Whole,
            head: HeadFault::Nothing,
            status: None,
            fields: vec![("Cache-Control".into(), "max-age=31536000".into())],
            vary: None,
            not_modified: NotModified::Known,
            first_byte_after: Duration::ZERO,
            rate_bytes_per_second: None,
            together: 0,
        }
    }

    /// The version served, the first being 1.
    pub(crate) fn version(self, version: u32) -> Script {
        Script { version, ..self }
    }

    /// When the next version takes its place.
    pub(crate) fn change(self, change: Change) -> Script {
        Script { change, ..self }
    }

    /// The next version's length, where it is another.
    pub(crate) fn next_length(self, length_bytes: u64) -> Script {
        Script { next_length_bytes: Some(length_bytes), ..self }
    }

    /// What tells versions apart.
    pub(crate) fn validators(self, validators: Validators) -> Script {
        Script { validators, ..self }
    }

    /// How the body's end is told.
    pub(crate) fn framing(self, framing: Framing) -> Script {
        Script { framing, ..self }
    }

    /// What becomes of a `Range`.
    pub(crate) fn ranges(self, ranges: Ranges) -> Script {
        Script { ranges, ..self }
    }

    /// How the body ends.
    pub(crate) fn ending(self, ending: Ending) -> Script {
        Script { ending, ..self }
    }

    /// What is wrong with the head.
    pub(crate) fn head(self, head: HeadFault) -> Script {
        Script { head, ..self }
    }

    /// This status and a line of text instead of the object.
    pub(crate) fn status(self, status: u16) -> Script {
        Script { status: Some(status), ..self }
    }

    /// Replaces a response field, or adds it; `{n}` in it becomes the request's number.
    pub(crate) fn field(mut self, name: &str, value: &str) -> Script {
        self = self.without(name);
        self.fields.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Removes a response field.
    pub(crate) fn without(mut self, name: &str) -> Script {
        self.fields.retain(|(held, _)| !held.eq_ignore_ascii_case(name));
        self
    }

    /// `Cache-Control` with this value.
    pub(crate) fn cache_control(self, value: &str) -> Script {
        self.field("Cache-Control", value)
    }

    /// Other bytes for each value of this request field, which is named in `Vary`.
    pub(crate) fn varying_on(self, field: &'static str) -> Script {
        Script { vary: Some(field), ..self }.field("Vary", field)
    }

    /// Whether a conditional request can be answered 304.
    pub(crate) fn not_modified(self, not_modified: NotModified) -> Script {
        Script { not_modified, ..self }
    }

    /// The head waits so long.
    pub(crate) fn first_byte_after(self, delay: Duration) -> Script {
        Script { first_byte_after: delay, ..self }
    }

    /// The body goes no faster.
    pub(crate) fn rate(self, bytes_per_second: u64) -> Script {
        Script { rate_bytes_per_second: Some(bytes_per_second), ..self }
    }

    /// No head before so many requests for the path wait for one at the same time.
    ///
    /// Whoever sends them one after another waits for ever: what must not be serialised is held to
    /// it without a clock.
    pub(crate) fn together(self, requests: usize) -> Script {
        Script { together: requests, ..self }
    }

    /// The first version's length.
    pub(crate) fn length_bytes(&self) -> u64 {
        self.length_bytes
    }

    /// The length of `version`.
    pub(super) fn length_of(&self, version: u32) -> u64 {
        let next = self.next_length_bytes.filter(|_| version > self.version);
        next.unwrap_or(self.length_bytes)
    }
}

/// The bytes of `version` at `path`, for requests whose varying field has the value `variant`.
pub(crate) fn content_of(path: &str, variant: Option<&str>, version: u32) -> Content {
    match variant {
        None => Content::of(path, version),
        Some(value) => Content::of(&format!("{path}#{value}"), version),
    }
}
