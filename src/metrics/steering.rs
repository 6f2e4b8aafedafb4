//! The series of routes and of what viewers are told who ask where to go.
//!
//! Read at a scrape, where there are any.

use super::series::{Series, counter, gauge, labelled};

/// Prefixes that have routes: `ipv4`, `ipv6`.
pub const ROUTE_PREFIXES: Series = labelled(
    "family",
    gauge("tidegate_route_prefixes", "Prefixes of viewers that appliances were announced to."),
);
/// Files of routes: the words of `control::routes::FileState`.
pub const ROUTE_FILES: Series = labelled(
    "state",
    gauge(
        "tidegate_route_files",
        "Files of routes, by what is used of them: what they tell, what they told before because \
         they are wrong now (kept) or gone (held), or nothing.",
    ),
);
/// How old routes are.
pub const ROUTE_AGE: Series = gauge(
    "tidegate_route_age_seconds",
    "How long ago what is used of a file of routes was written, of the file with the oldest.",
);
/// What routes take.
pub const ROUTE_BYTES: Series =
    gauge("tidegate_route_table_bytes", "Memory of the table of routes, without databases.");
/// Files that were refused: the words of `control::routes::RoutesError`.
pub const ROUTES_REFUSED: Series = labelled(
    "reason",
    counter(
        "tidegate_route_files_refused_total",
        "Files of routes and databases that were read and not used, by why.",
    ),
);
/// What withdrew routes.
pub const ROUTES_WITHDRAWN: Series = counter(
    "tidegate_route_files_withdrawn_total",
    "Files of routes that were gone for so long that what they told counts no more.",
);
/// What viewers asked: the words of `control::steer::Kind`.
pub const ANSWERS: Series = labelled(
    "asked",
    counter("tidegate_steering_answers_total", "Questions of viewers answered, by what was asked."),
);
/// By what answers were made: the words of `control::steer::Decided`.
pub const DECISIONS: Series = labelled(
    "by",
    counter(
        "tidegate_steering_decisions_total",
        "Answers to viewers, by what puts the first appliance first; last_resort: nobody is well; \
         nothing: none was decided on.",
    ),
);
/// Among how many appliances answers were made: `none`, `one`, `more`.
pub const CANDIDATES: Series = labelled(
    "candidates",
    counter(
        "tidegate_steering_candidates_total",
        "Answers to viewers, by how many appliances were left to choose from; with one he has \
         nowhere to go when it fails.",
    ),
);
/// What players report wrongly: the words of `control::content_steering::reported::Flaw`.
pub const FLAWS: Series = labelled(
    "flaw",
    counter(
        "tidegate_steering_flaws_total",
        "What players brought along and could not be used, by what was wrong with it.",
    ),
);
/// Playbacks that began to ask.
pub const SESSIONS: Series = counter(
    "tidegate_steering_sessions_total",
    "Playbacks that asked for the first time, and were given a name.",
);
/// Manifests with a longer TTL.
pub const SLOWER: Series = counter(
    "tidegate_steering_slowed_total",
    "Manifests that told players to ask less often, because there was too much to do.",
);
/// Appliances that are steered to: ready and well for IPv4, and all.
pub const APPLIANCES: Series = labelled(
    "state",
    gauge("tidegate_steering_appliances", "Appliances that are known, by whether viewers may go."),
);
/// What was looked up, by why the viewer asks here and whether it was there.
pub(super) const STEERED: Series = counter(
    "tidegate_steered_requests_total",
    "Look-ups of objects, by why the viewer is here (content: nowhere better; health, route: not \
     there for this; viewer: by his own choice) and whether the cache had it.",
);

/// All that are read at a scrape.
#[cfg(test)]
pub(super) const READ_AT_SCRAPE: &[Series] = &[
    ROUTE_PREFIXES,
    ROUTE_FILES,
    ROUTE_AGE,
    ROUTE_BYTES,
    ROUTES_REFUSED,
    ROUTES_WITHDRAWN,
    ANSWERS,
    DECISIONS,
    CANDIDATES,
    FLAWS,
    SESSIONS,
    SLOWER,
    APPLIANCES,
];
