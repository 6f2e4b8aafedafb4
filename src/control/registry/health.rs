//! Whether an appliance is well, in one family of addresses: slow to change its mind.
//!
//! One bad heartbeat makes nobody ill and one good one nobody well; silence makes ill. The moment
//! is an argument.

use std::time::{Duration, Instant};

use super::Rules;
use super::fleet::Standing;

/// What is thought of it, and how much speaks against that by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Health {
    state: State,
    /// Heartbeats in a row that speak against it.
    against: u32,
    /// When it was last heard of, or might have been for the first time.
    heard: Instant,
}

/// What is thought of an appliance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It has never been well.
    New,
    /// Viewers can be sent there.
    Well,
    /// They should not be.
    Ill { since: Instant },
}

impl Health {
    /// Of one that nothing is known of.
    pub(super) fn new(now: Instant) -> Health {
        Health { state: State::New, against: 0, heard: now }
    }

    /// Of one that was thought of so by who knew it. Who was taken out has been ill for longer than
    /// who was kept although he seemed so, and it stays like that.
    pub(super) fn presumed(standing: Option<Standing>, now: Instant) -> Health {
        let state = match standing {
            None | Some(Standing::New) => State::New,
            Some(Standing::Well) => State::Well,
            Some(Standing::Ill) => State::Ill { since: now },
            Some(Standing::Kept) => State::Ill { since: now + AFTER_OTHERS },
        };
        Health { state, against: 0, heard: now }
    }

    /// What is thought of it.
    pub(super) fn state(self) -> State {
        self.state
    }

    /// After a heartbeat.
    pub(super) fn after(self, is_good: bool, now: Instant, rules: &Rules) -> Health {
        let Health { state, against, .. } = self.at(now, rules);
        let is_well = state == State::Well;
        let against = if is_good == is_well { 0 } else { against + 1 };
        let needed = if is_well { rules.bad_heartbeats } else { rules.good_heartbeats };
        let (state, against) = match against >= needed.max(1) {
            true if is_well => (State::Ill { since: now }, 0),
            true => (State::Well, 0),
            false => (state, against),
        };
        Health { state, against, heard: now }
    }

    /// After no heartbeat until now.
    pub(super) fn at(self, now: Instant, rules: &Rules) -> Health {
        let silent = now.saturating_duration_since(self.heard);
        if silent <= rules.silent_after {
            return self;
        }
        let since = self.heard.checked_add(rules.silent_after + Duration::from_nanos(1));
        let state = match self.state {
            State::Well => State::Ill { since: since.unwrap_or(now) },
            other => other,
        };
        Health { state, against: 0, heard: self.heard }
    }
}

/// Later than all that were ill when a control plane started.
const AFTER_OTHERS: Duration = Duration::from_nanos(1);
