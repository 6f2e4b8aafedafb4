//! What memory is wanted for, and how badly: what each use is called, which pool it is of, and how
//! full that may be when a class is still granted some. Pure.

/// What a reservation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Pieces a fill run is writing or still holds for its readers.
    Fill,
    /// Slices handed to a viewer's connection and not yet sent.
    Client,
    /// Heads of objects.
    Heads,
    /// Connections of viewers: their protocol and TLS buffers.
    Connections,
    /// Connections to origins: their read buffers.
    Origins,
    /// Requests being answered: their heads, and what is remembered of each.
    Requests,
    /// Pieces being read from or written to an ssd.
    Ssd,
    /// The table of routes.
    Routes,
}

impl Use {
    /// Every use, in the order of the metrics.
    pub const ALL: [Use; 8] = [
        Use::Fill,
        Use::Client,
        Use::Heads,
        Use::Connections,
        Use::Origins,
        Use::Requests,
        Use::Ssd,
        Use::Routes,
    ];

    /// The metrics label.
    pub fn label(self) -> &'static str {
        match self {
            Use::Fill => "fill",
            Use::Client => "client",
            Use::Heads => "heads",
            Use::Connections => "connections",
            Use::Origins => "origins",
            Use::Requests => "requests",
            Use::Ssd => "ssd",
            Use::Routes => "routes",
        }
    }

    pub(super) fn pool(self) -> usize {
        match self {
            Use::Fill | Use::Client | Use::Ssd => WORKING,
            Use::Heads | Use::Connections | Use::Origins | Use::Requests | Use::Routes => REST,
        }
    }
}

/// How badly a reservation is wanted; the first to be refused comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Larger slices and read-ahead: a comfort.
    Prefetch,
    /// Keeping what passes through.
    Admission,
    /// A viewer's first piece of something not held.
    Miss,
    /// The next piece of a response already begun.
    Viewer,
}

impl Class {
    /// Every class, in the order of refusal.
    pub const ALL: [Class; 4] = [Class::Prefetch, Class::Admission, Class::Miss, Class::Viewer];

    /// The metrics label.
    pub fn label(self) -> &'static str {
        match self {
            Class::Prefetch => "prefetch",
            Class::Admission => "admission",
            Class::Miss => "miss",
            Class::Viewer => "viewer",
        }
    }

    /// How much of a pool may be in use when this class is still granted some.
    pub fn limit_bytes(self, budget_bytes: u64, limit: Limit) -> u64 {
        let sixteenths = match limit {
            Limit::Lent => self.lent_sixteenths(),
            Limit::Whole => self.whole_sixteenths(),
        };
        budget_bytes / 16 * sixteenths
    }

    /// Whether a site that has no more than its share is refused later than the others.
    pub(super) fn is_refused_later(self) -> bool {
        self.lent_sixteenths() < self.whole_sixteenths()
    }

    /// The part of its pool, in sixteenths, above which this class is refused.
    fn whole_sixteenths(self) -> u64 {
        match self {
            Class::Prefetch => 8,
            Class::Admission => 12,
            Class::Miss => 14,
            Class::Viewer => 16,
        }
    }

    /// The same, to a site that has more than its share of what is lent.
    fn lent_sixteenths(self) -> u64 {
        match self {
            Class::Prefetch => 8,
            Class::Admission => 10,
            Class::Miss => 11,
            Class::Viewer => 12,
        }
    }
}

/// How much a class is granted of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// To whichever of many sites asks: what is lent.
    Lent,
    /// To a site that has no more than its share, or is alone, or to none: all that the class may
    /// use.
    Whole,
}

/// The pool of what is filled and sent.
pub(super) const WORKING: usize = 0;
/// The pool of all else.
const REST: usize = 1;
