//! An appliance as it registers: what it is called, where viewers reach it, what it can bear.
//!
//! One that exists is valid: what is [`Written`] is checked where it is read, and nowhere else.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

use super::Family;
use crate::geo::Position;
use crate::limits::{
    APPLIANCE_CAPACITY_MAX, APPLIANCE_HOST_BYTES_MAX, APPLIANCE_SITES_MAX, APPLIANCE_TAGS_MAX,
    APPLIANCE_WEIGHT_MAX, PATHWAY_BYTES_MAX,
};
use crate::message::target::host_and_port;

/// What players call a way to the bytes: an appliance, or another delivery service of the same
/// content. Of `A-Z a-z 0-9 . _ -`, 64 at most.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Pathway(Arc<str>);

impl Pathway {
    /// The one of this name, if it is one.
    pub fn new(name: &str) -> Option<Pathway> {
        is_name(name).then(|| Pathway(name.into()))
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Pathway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Pathway {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl TryFrom<String> for Pathway {
    type Error = Mistake;

    fn try_from(name: String) -> Result<Pathway, Mistake> {
        Pathway::new(&name).ok_or(Mistake::Name { field: "pathway", name })
    }
}

/// Who it is offered to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Audience {
    /// Everybody; who is not in the networks announced to it comes to it only behind those they
    /// are announced to.
    #[default]
    Everyone,
    /// Who is in a network that was announced to it.
    Announced,
}

/// One of a fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct Appliance {
    name: String,
    pathway: Pathway,
    host: String,
    ipv4: Option<Ipv4Addr>,
    ipv6: Option<Ipv6Addr>,
    capacity_bits_per_second: u64,
    weight: u32,
    tags: BTreeSet<String>,
    sites: Option<BTreeSet<String>>,
    audience: Audience,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<Position>,
}

impl Appliance {
    /// What operators call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What players call it.
    pub fn pathway(&self) -> &Pathway {
        &self.pathway
    }

    /// Where viewers reach it: a host name, with a port where it is not the usual one.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether it has an address that such viewers reach.
    pub fn has(&self, family: Family) -> bool {
        match family {
            Family::Ipv4 => self.ipv4.is_some(),
            Family::Ipv6 => self.ipv6.is_some(),
        }
    }

    /// What it can send.
    pub fn capacity_bits_per_second(&self) -> u64 {
        self.capacity_bits_per_second
    }

    /// Its part among its equals: what it can send, in hundredths as its weight says.
    pub fn share(&self) -> f64 {
        self.capacity_bits_per_second as f64 * f64::from(self.weight) / 100.0
    }

    /// What operators tell it from others by.
    pub fn tags(&self) -> impl Iterator<Item = &str> {
        self.tags.iter().map(String::as_str)
    }

    /// Whether it serves the site of this name.
    pub fn serves(&self, site: &str) -> bool {
        self.sites.as_ref().is_none_or(|sites| sites.contains(site))
    }

    /// Who it is offered to.
    pub fn audience(&self) -> Audience {
        self.audience
    }

    /// Where it stands, if that was said.
    pub fn position(&self) -> Option<Position> {
        self.position
    }

    /// The same, serving these sites and no others; of more than are told all count.
    pub fn serving(&self, sites: impl ExactSizeIterator<Item = String>) -> Appliance {
        let sites = (sites.len() <= APPLIANCE_SITES_MAX).then(|| sites.collect());
        Appliance { sites, ..self.clone() }
    }

    /// The same, sending no more than this.
    pub fn sending_at_most(self, bits_per_second: u64) -> Appliance {
        let most = self.capacity_bits_per_second.min(bits_per_second.max(1));
        Appliance { capacity_bits_per_second: most, ..self }
    }
}

/// The same, as an operator or the appliance itself writes it. One of a later version may say more,
/// and who reads what a later control plane has published goes on with what he knows.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Written {
    /// What operators call it.
    pub name: String,
    /// What players call it; its name where it is not written.
    pub pathway: Option<Pathway>,
    /// Where viewers reach it; its name where it is not written.
    pub host: Option<String>,
    /// Its address for viewers who have one of IPv4.
    pub ipv4: Option<Ipv4Addr>,
    /// The same of IPv6.
    pub ipv6: Option<Ipv6Addr>,
    /// What it can send.
    pub capacity_bits_per_second: u64,
    /// In hundredths; 100 where it is not written.
    pub weight: Option<u32>,
    /// What operators tell it from others by.
    #[serde(default)]
    pub tags: BTreeSet<String>,
    /// All where they are not written.
    pub sites: Option<BTreeSet<String>>,
    /// Who it is offered to.
    #[serde(default)]
    pub audience: Audience,
    /// Where it stands, if that is known.
    pub position: Option<Position>,
}

/// What is wrong with what was written of an appliance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// A name, pathway or tag of other characters, or too many of them.
    Name {
        /// Where it stands.
        field: &'static str,
        /// What stands there.
        name: String,
    },
    /// Viewers could not be sent there.
    Host {
        /// What stands there.
        host: String,
    },
    /// No viewer reaches it.
    NoAddress,
    /// It could send nothing, or more than any machine does.
    Capacity {
        /// What stands there.
        capacity_bits_per_second: u64,
    },
    /// It would have no part, or all of it.
    Weight {
        /// What stands there.
        weight: u32,
    },
    /// More tags or sites than are kept.
    TooMany {
        /// Where they stand.
        field: &'static str,
        /// How many may.
        max: usize,
    },
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mistake::Name { field, name } => write!(
                f,
                "`{field}` is {name:?}: write 1 to {PATHWAY_BYTES_MAX} of A-Z, a-z, 0-9, `.`, `_` \
                 and `-`"
            ),
            Mistake::Host { host } => write!(
                f,
                "`host` is {host:?}: write the name viewers reach it by, such as edge-1.example, \
                 and `:port` where it is not the usual one"
            ),
            Mistake::NoAddress => write!(f, "no viewer reaches it: write `ipv4`, `ipv6` or both"),
            Mistake::Capacity { capacity_bits_per_second } => write!(
                f,
                "`capacity_bits_per_second` is {capacity_bits_per_second}: write what it can send, \
                 1 to {APPLIANCE_CAPACITY_MAX}"
            ),
            Mistake::Weight { weight } => {
                write!(f, "`weight` is {weight}: write 1 to {APPLIANCE_WEIGHT_MAX}, 100 is usual")
            }
            Mistake::TooMany { field, max } => {
                write!(f, "`{field}` has more than {max}: write fewer")
            }
        }
    }
}

impl std::error::Error for Mistake {}

impl TryFrom<Written> for Appliance {
    type Error = Mistake;

    fn try_from(written: Written) -> Result<Appliance, Mistake> {
        let Written { name, pathway, host, ipv4, ipv6, capacity_bits_per_second, .. } = written;
        let Written { weight, tags, sites, audience, position, .. } = written;
        let pathway = match (pathway, Pathway::new(&name)) {
            (_, None) => return Err(Mistake::Name { field: "name", name }),
            (Some(pathway), _) | (None, Some(pathway)) => pathway,
        };
        let host = host.unwrap_or_else(|| name.clone());
        if host.len() > APPLIANCE_HOST_BYTES_MAX || host_and_port(host.as_bytes()).is_none() {
            return Err(Mistake::Host { host });
        }
        if ipv4.is_none() && ipv6.is_none() {
            return Err(Mistake::NoAddress);
        }
        if !(1..=APPLIANCE_CAPACITY_MAX).contains(&capacity_bits_per_second) {
            return Err(Mistake::Capacity { capacity_bits_per_second });
        }
        let weight = weight.unwrap_or(100);
        if !(1..=APPLIANCE_WEIGHT_MAX).contains(&weight) {
            return Err(Mistake::Weight { weight });
        }
        if let Some(tag) = tags.iter().find(|tag| !is_name(tag)) {
            return Err(Mistake::Name { field: "tags", name: tag.clone() });
        }
        if tags.len() > APPLIANCE_TAGS_MAX {
            return Err(Mistake::TooMany { field: "tags", max: APPLIANCE_TAGS_MAX });
        }
        if sites.as_ref().is_some_and(|sites| sites.len() > APPLIANCE_SITES_MAX) {
            return Err(Mistake::TooMany { field: "sites", max: APPLIANCE_SITES_MAX });
        }
        Ok(Appliance {
            name,
            pathway,
            host,
            ipv4,
            ipv6,
            capacity_bits_per_second,
            weight,
            tags,
            sites,
            audience,
            position,
        })
    }
}

/// Whether something of a fleet may be called so.
pub fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=PATHWAY_BYTES_MAX).contains(&name.len()) && name.bytes().all(fits)
}
