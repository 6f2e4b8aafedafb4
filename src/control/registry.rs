//! The registry: the appliances of a fleet, what each last said of itself, and so how each is.
//!
//! Pure: every moment is an argument. [`Registry::fleet`] tells what steering goes by, which is a
//! value of its own that can be kept and sent to others. Appliances, their names and what they say
//! are bounded.

pub mod appliance;
pub mod fleet;
mod health;
mod room;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::Phase;
use crate::limits::APPLIANCES_MAX;
use appliance::{Appliance, Pathway};
use fleet::{Fleet, Judged};
use health::Health;
pub use room::Room;

/// One of the two kinds of addresses; an appliance may be well in one and ill in the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl Family {
    /// Both.
    pub const ALL: [Family; 2] = [Family::Ipv4, Family::Ipv6];

    /// That of an address; one of IPv4 that is written as IPv6 is of IPv4.
    pub fn of(address: IpAddr) -> Family {
        if address.to_canonical().is_ipv4() { Family::Ipv4 } else { Family::Ipv6 }
    }
}

/// When an appliance counts as ill, well, and full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// So many bad heartbeats in a row make it ill.
    pub bad_heartbeats: u32,
    /// So many good ones in a row make it well.
    pub good_heartbeats: u32,
    /// So long without one makes it ill.
    pub silent_after: Duration,
    /// Of those that are wanted and have been well, at most this share is taken out for illness.
    pub removed_share_percent_max: u8,
    /// From this much of its capacity on it gets less than its share of viewers.
    pub tight_percent: u8,
    /// From this much on it gets no new ones,
    pub full_percent: u8,
    /// until it is no more than this.
    pub open_percent: u8,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            bad_heartbeats: 3,
            good_heartbeats: 3,
            silent_after: Duration::from_secs(15),
            removed_share_percent_max: 50,
            tight_percent: 80,
            full_percent: 95,
            open_percent: 85,
        }
    }
}

/// What an appliance says of itself every few seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Whether it wants viewers.
    pub phase: Phase,
    /// How busy its busiest resource but for the network is; more than 100 is as full as 100.
    pub load_percent: u8,
    /// What it could send beyond what it sends.
    pub free_bits_per_second: u64,
    /// Of the bytes it sent lately, those no origin was asked for.
    pub hit_percent: u8,
    /// Volumes that work.
    pub volumes_online: u16,
    /// Volumes that do not.
    pub volumes_failed: u16,
    /// Whether it answers viewers at its address of IPv4, as it finds itself.
    pub answers_ipv4: bool,
    /// The same of IPv6.
    pub answers_ipv6: bool,
}

impl Heartbeat {
    fn answers(&self, family: Family) -> bool {
        self.phase != Phase::Starting
            && match family {
                Family::Ipv4 => self.answers_ipv4,
                Family::Ipv6 => self.answers_ipv6,
            }
    }
}

/// Why the registry does not take what it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryError {
    /// Two appliances cannot be told apart by players.
    PathwayTaken {
        /// The pathway both have.
        pathway: String,
        /// Whose it is.
        by: String,
    },
    /// There is no room for another one.
    Full,
    /// A heartbeat of who has not registered.
    Unknown {
        /// As it calls itself.
        name: String,
    },
}

impl fmt::Display for RegistryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RegistryError::PathwayTaken { pathway, by } => {
                write!(f, "pathway `{pathway}` is that of `{by}`: choose another one")
            }
            RegistryError::Full => {
                write!(f, "a fleet has {APPLIANCES_MAX} appliances at most: remove one first")
            }
            RegistryError::Unknown { name } => {
                write!(f, "no appliance is called `{name}`: register before the first heartbeat")
            }
        }
    }
}

impl std::error::Error for RegistryError {}

/// All appliances, by name.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    rules: Rules,
    entries: BTreeMap<String, Entry>,
    /// Names, by pathway.
    pathways: BTreeMap<Pathway, String>,
}

#[derive(Clone, Debug)]
struct Entry {
    appliance: Appliance,
    /// By family, in the order of [`Family::ALL`].
    health: [Health; 2],
    room: Room,
    heard: Option<Heartbeat>,
}

impl Registry {
    /// One without appliances.
    pub fn new(rules: Rules) -> Registry {
        Registry { rules, ..Registry::default() }
    }

    /// One that begins with what was known: each counts as it did, and has from now on the usual
    /// time to be heard of. A control plane that starts again takes nobody out by it.
    pub fn resumed(rules: Rules, known: &Fleet, now: Instant) -> Registry {
        let entry = |member: &fleet::Member| {
            let health = Family::ALL.map(|family| Health::presumed(member.standing(family), now));
            let (appliance, room) = (member.appliance.clone(), member.room);
            let entry = Entry { appliance, health, room, heard: member.heard.clone() };
            (member.appliance.name().to_owned(), entry)
        };
        let entries: BTreeMap<String, Entry> = known.members().iter().map(entry).collect();
        let pathway =
            |(name, entry): (&String, &Entry)| (entry.appliance.pathway().clone(), name.clone());
        let pathways = entries.iter().map(pathway).collect();
        Registry { rules, entries, pathways }
    }

    /// Whether it is known just so.
    pub fn has(&self, appliance: &Appliance) -> bool {
        self.entries.get(appliance.name()).is_some_and(|entry| entry.appliance == *appliance)
    }

    /// Takes an appliance in, or what has changed of one. One that is new has to be heard of before
    /// it gets viewers; one that is known stays as well as it was.
    pub fn register(&mut self, appliance: Appliance, now: Instant) -> Result<(), RegistryError> {
        let (name, pathway) = (appliance.name().to_owned(), appliance.pathway().clone());
        if let Some(by) = self.pathways.get(&pathway).filter(|by| **by != name) {
            let (pathway, by) = (pathway.to_string(), by.clone());
            return Err(RegistryError::PathwayTaken { pathway, by });
        }
        if let Some(entry) = self.entries.get_mut(&name) {
            self.pathways.remove(entry.appliance.pathway());
            self.pathways.insert(pathway, name);
            entry.appliance = appliance;
            return Ok(());
        }
        if self.entries.len() >= APPLIANCES_MAX {
            return Err(RegistryError::Full);
        }
        self.pathways.insert(pathway, name.clone());
        let health = [Health::new(now); 2];
        let entry = Entry { appliance, health, room: Room::Open, heard: None };
        self.entries.insert(name, entry);
        Ok(())
    }

    /// What the appliances are called.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Forgets an appliance; whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        let gone = self.entries.remove(name);
        gone.map(|entry| self.pathways.remove(entry.appliance.pathway())).is_some()
    }

    /// Learns what an appliance says of itself.
    pub fn hear(
        &mut self,
        name: &str,
        heartbeat: Heartbeat,
        now: Instant,
    ) -> Result<(), RegistryError> {
        let Some(entry) = self.entries.get_mut(name) else {
            return Err(RegistryError::Unknown { name: name.to_owned() });
        };
        for (health, family) in entry.health.iter_mut().zip(Family::ALL) {
            *health = health.after(heartbeat.answers(family), now, &self.rules);
        }
        let capacity = entry.appliance.capacity_bits_per_second();
        entry.room = entry.room.after(room::used_percent(&heartbeat, capacity), &self.rules);
        entry.heard = Some(heartbeat);
        Ok(())
    }

    /// How each is now, which is what steering goes by.
    pub fn fleet(&self, now: Instant) -> Fleet {
        let judged = |entry: &Entry| Judged {
            appliance: entry.appliance.clone(),
            health: entry.health.map(|health| health.at(now, &self.rules)),
            room: entry.room,
            heard: entry.heard.clone(),
        };
        Fleet::judged(self.entries.values().map(judged).collect(), &self.rules)
    }
}

#[cfg(test)]
pub(in crate::control) mod tests;
