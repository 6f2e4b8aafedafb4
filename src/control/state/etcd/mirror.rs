//! What is on etcd, as it is seen: every key that is watched, at one revision. Pure.
//!
//! Two kinds of keys are watched: those of the state, and what lives as long as a lease does, which
//! are the control planes there are, the one that leads, and what they hear of boxes.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::values::{Pointer, Value};
use crate::control::registry::Heartbeat;
use crate::control::state::{Entry, StateError};
use crate::limits::ETCD_NODES_MAX;

/// A key as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// Without what all keys begin with.
    pub(super) key: String,
    /// The revision of its last change.
    pub(super) version: i64,
    /// `None`: it is there no more.
    pub(super) value: Option<Vec<u8>>,
}

/// All that is watched.
#[derive(Clone, Debug, Default)]
pub(super) struct Mirror {
    /// Of what is seen.
    pub(super) revision: i64,
    /// Parts that a value names and that are gone, by their names: they do not come back.
    pub(super) gone: BTreeSet<String>,
    entries: BTreeMap<String, (i64, Vec<u8>)>,
}

/// What several changes are about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct About {
    /// The state.
    pub(super) state: bool,
    /// Who there is, and who leads.
    pub(super) seats: bool,
    /// What others heard of boxes.
    pub(super) heard: Vec<(String, Heartbeat)>,
}

/// A control plane that is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seat {
    /// What nothing else is called.
    pub(super) id: String,
    /// By what it is asked.
    pub(super) names: Vec<String>,
    /// Since when, in seconds since 1970.
    pub(super) since: u64,
}

/// The control planes that share a state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seats {
    /// All of them.
    pub(super) all: Vec<Seat>,
    /// The one that publishes snapshots.
    pub(super) leader: Option<Leader>,
}

impl Seats {
    /// Whether somebody who is there leads.
    pub(super) fn is_led(&self) -> bool {
        let leader = self.leader.as_ref();
        leader.is_some_and(|leader| self.all.iter().any(|seat| seat.id == leader.id))
    }
}

/// The key that says who leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leader {
    /// Who does.
    pub(super) id: String,
    /// The revision since when.
    pub(super) version: i64,
}

/// Keys with their versions, whose values nobody can tell.
pub(super) type Untold = Vec<(String, u64)>;

impl Mirror {
    /// As it was read, at one revision.
    pub(super) fn of(revision: i64, all: impl IntoIterator<Item = Seen>) -> Mirror {
        let mut mirror = Mirror::default();
        // What was heard before is of no use any more.
        drop(mirror.apply(all, ""));
        mirror.revision = revision;
        mirror
    }

    /// Learns what has changed; what `own` has heard itself it knows.
    pub(super) fn apply(&mut self, changes: impl IntoIterator<Item = Seen>, own: &str) -> About {
        let (mut about, before) = (About::default(), self.revision);
        for Seen { key, version, value } in changes {
            if version <= before {
                continue;
            }
            self.revision = self.revision.max(version);
            about.state |= key.starts_with(STATE);
            about.seats |= key.starts_with(SEATS) || key == LEADER;
            if let Some(rest) = key.strip_prefix(HEARD) {
                let is_own = rest.split('/').next() == Some(own);
                let beats = value.filter(|_| !is_own);
                let beats = beats.and_then(|json| serde_json::from_slice(&json).ok());
                about.heard.extend(beats.unwrap_or_else(Vec::new));
                continue;
            }
            match value {
                Some(value) => drop(self.entries.insert(key, (version, value))),
                None => drop(self.entries.remove(&key)),
            }
        }
        about
    }

    /// Who there is.
    pub(super) fn seats(&self) -> Seats {
        let all = self.under(SEATS).filter_map(|(_, (_, json))| serde_json::from_slice(json).ok());
        let leader = self.entries.get(LEADER);
        let leader = leader.and_then(|(version, id)| {
            Some(Leader { id: String::from_utf8(id.clone()).ok()?, version: *version })
        });
        Seats { all: all.take(ETCD_NODES_MAX).collect(), leader }
    }

    /// The pointers among the values of the state.
    pub(super) fn pointers(&self) -> Vec<Pointer> {
        let values = self.under(STATE).map(|(_, (_, value))| Value::parse(value));
        values
            .filter_map(|value| if let Some(Value::Parted(it)) = value { Some(it) } else { None })
            .collect()
    }

    /// What one key of the state has.
    pub(super) fn value(&self, key: &str) -> Option<Value> {
        self.entries.get(&format!("{STATE}{key}")).and_then(|(_, value)| Value::parse(value))
    }

    /// The state but for `without`; what was split is in `whole`, by its name. Also what is there
    /// and cannot be told, as its parts are gone: keys and their versions.
    pub(super) fn entries(
        &self,
        whole: &BTreeMap<String, Bytes>,
        without: &str,
    ) -> Result<(Vec<Entry>, Untold), StateError> {
        let (mut entries, mut untold) = (Vec::new(), Vec::new());
        for (key, (version, value)) in self.under(STATE) {
            let name = key.strip_prefix(STATE).unwrap_or(key);
            if name == without {
                continue;
            }
            let bad = || {
                let what = "it names parts that are not there".to_owned();
                StateError::Malformed { key: name.to_owned(), what }
            };
            let value = match Value::parse(value).ok_or_else(bad)? {
                Value::Here(value) => value,
                Value::Parted(pointer) if self.gone.contains(&pointer.name) => {
                    untold.push((name.to_owned(), *version as u64));
                    continue;
                }
                Value::Parted(pointer) => whole.get(&pointer.name).ok_or_else(bad)?.to_vec(),
            };
            entries.push(Entry { key: name.to_owned(), version: *version as u64, value });
        }
        Ok((entries, untold))
    }

    fn under(&self, start: &str) -> impl Iterator<Item = (&String, &(i64, Vec<u8>))> {
        self.entries.range(start.to_owned()..).take_while(move |(key, _)| key.starts_with(start))
    }
}

/// How keys of the state begin,
pub(super) const STATE: &str = "state/";
/// those of what lives as long as a lease,
pub(super) const LIVE: &str = "live/";
/// of control planes,
pub(super) const SEATS: &str = "live/nodes/";
/// and of what they heard.
pub(super) const HEARD: &str = "live/heard/";
/// Who leads.
pub(super) const LEADER: &str = "live/leader";
/// From [`LIVE`] to here is watched: the letter after the slash of [`STATE`].
pub(super) const WATCHED_END: &str = "state0";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn put(key: &str, version: i64, value: &str) -> Seen {
        Seen { key: key.to_owned(), version, value: Some(value.as_bytes().to_vec()) }
    }

    fn gone(key: &str, version: i64) -> Seen {
        Seen { key: key.to_owned(), version, value: None }
    }

    fn read(mirror: &Mirror) -> Vec<(String, u64)> {
        let (entries, _) = mirror.entries(&BTreeMap::new(), "snapshot").unwrap();
        entries.into_iter().map(|entry| (entry.key, entry.version)).collect()
    }

    #[test]
    fn what_was_read_already_is_not_learned_again() {
        let mut mirror = Mirror::of(7, [put("state/a", 3, "1"), put("state/snapshot", 7, "x")]);
        let about = mirror.apply([gone("state/a", 5), put("state/b", 7, "old")], "me");
        assert_eq!((about, mirror.revision), (About::default(), 7));
        assert_eq!(read(&mirror), [("a".to_owned(), 3)]);
        // One revision may be of several keys.
        let about = mirror.apply([put("state/b", 9, "2"), gone("state/a", 9)], "me");
        assert!(about.state && !about.seats);
        assert_eq!((read(&mirror), mirror.revision), (vec![("b".to_owned(), 9)], 9));
    }

    #[test]
    fn who_there_is_and_who_leads_comes_and_goes() {
        let node = json!({ "id": "n1", "names": ["c1"], "since": 5 }).to_string();
        let mut mirror = Mirror::of(1, []);
        let about = mirror.apply([put("live/nodes/n1", 2, &node), put(LEADER, 3, "n1")], "n2");
        assert!(about.seats && !about.state);
        let seats = mirror.seats();
        let leader = Leader { id: "n1".to_owned(), version: 3 };
        assert_eq!((seats.all[0].id.as_str(), seats.leader), ("n1", Some(leader)));
        assert!(mirror.apply([gone("live/nodes/n1", 4), gone(LEADER, 4)], "n2").seats);
        assert_eq!(mirror.seats(), Seats::default());
    }

    #[test]
    fn beats_of_others_are_heard_once_and_never_those_of_before() {
        let beats = json!([["edge-1", {
            "phase": "ready", "load_percent": 1, "free_bits_per_second": 1, "hit_percent": 1,
            "volumes_online": 0, "volumes_failed": 0, "answers_ipv4": true, "answers_ipv6": false,
        }]])
        .to_string();
        let mut mirror = Mirror::of(1, [put("live/heard/n1/0", 1, &beats)]);
        let changes = [
            put("live/heard/n1/0", 2, &beats),
            put("live/heard/n2/0", 3, &beats),
            put("live/heard/n3/0", 4, "nonsense"),
            gone("live/heard/n1/0", 5),
        ];
        let heard = mirror.apply(changes.clone(), "n2").heard;
        assert_eq!(heard.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["edge-1"]);
        assert_eq!(mirror.apply(changes, "n2"), About::default());
    }
}
