//! What a box calls its control plane for, and every way in which one of these calls may fail.

/// What a box calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Registers,
    Beats,
    Follows,
    Renews,
}

impl Call {
    pub(crate) const ALL: [Call; 4] = [Call::Registers, Call::Beats, Call::Follows, Call::Renews];
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It says nothing.
    Silent,
    /// It says nothing after the head, which promises as much as can be promised.
    SilentAfterHead,
    /// A byte of the head from time to time.
    DripsHead,
    /// A byte of the body from time to time, none of which is wrong.
    DripsBody,
    /// A head without an end.
    EndlessHead,
    /// A body without an end.
    EndlessBody,
    /// The same in chunks of one byte.
    EndlessCrumbs,
    /// That it will say something, without end.
    EndlessPromises,
    /// What is no answer of HTTP.
    NoHttp,
    /// What is no answer of a control plane.
    Nonsense,
    /// Chunks whose lengths are none.
    BrokenChunks,
    /// A status, and whatever goes with it.
    Status(u16),
    /// What would be true by another authority, with numbers as large as there can be.
    Forged,
    /// What was true.
    Older,
    /// Half of what is true, as if that were all.
    Half,
    /// The connection is reset when all is asked.
    Resets,
    /// It ends in the head.
    EndsInHead,
    /// It ends in the body.
    EndsInBody,
}

/// All of them.
pub(crate) const FAULTS: [Fault; 23] = [
    Fault::Silent,
    Fault::Forged,
    Fault::Resets,
    Fault::EndlessBody,
    Fault::Older,
    Fault::SilentAfterHead,
    Fault::Status(204),
    Fault::DripsBody,
    Fault::EndsInBody,
    Fault::Nonsense,
    Fault::EndlessHead,
    Fault::Status(302),
    Fault::DripsHead,
    Fault::Half,
    Fault::Status(403),
    Fault::EndlessCrumbs,
    Fault::EndsInHead,
    Fault::Status(404),
    Fault::EndlessPromises,
    Fault::BrokenChunks,
    Fault::Status(409),
    Fault::NoHttp,
    Fault::Status(500),
];
