//! What one purge covers: a site, an object, the paths that begin with some bytes, or a tag.
//!
//! Names are kept as hashes: of two that are alike by chance one is purged for nothing, and no
//! purge is ever missed. They are the same in every process.

use xxhash_rust::xxh3::{xxh3_64, xxh3_128_with_seed};

/// Whether what is purged may still be of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hardness {
    /// It is gone.
    Hard,
    /// It is stale: used again when its origin says so.
    Soft,
}

impl Hardness {
    /// Its label.
    pub fn as_str(self) -> &'static str {
        match self {
            Hardness::Hard => "hard",
            Hardness::Soft => "soft",
        }
    }
}

/// By what something is purged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Everything of a site.
    Site = 1,
    /// One URL's object.
    Object = 2,
    /// The paths that begin so.
    Prefix = 3,
    /// What carries a tag.
    Tag = 4,
    /// A soft purge of a site, in place of everything that was remembered of it.
    Fold = 5,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 5] = [Kind::Site, Kind::Object, Kind::Prefix, Kind::Tag, Kind::Fold];

    /// Its label.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Site => "site",
            Kind::Object => "url",
            Kind::Prefix => "prefix",
            Kind::Tag => "tag",
            Kind::Fold => "overflow",
        }
    }
}

/// What one purge covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    pub(super) kind: Kind,
    /// A hash of its name, or [`ALL_SITES`].
    pub(super) site: u64,
    /// What is named, with its kind and its site.
    pub(super) name: u128,
    /// Of a prefix: its length.
    pub(super) prefix_bytes: u16,
}

/// Stands for a site in what is purged of every site.
pub(super) const ALL_SITES: u64 = 0;

impl Scope {
    /// Everything of a site.
    pub fn site(site: &str) -> Scope {
        Scope::whole(Kind::Site, site_hash(site))
    }

    /// The object of a path and its canonical query.
    pub fn object(site: &str, target: &str) -> Scope {
        let site = site_hash(site);
        let name = object_name(site, target);
        Scope { kind: Kind::Object, site, name, prefix_bytes: 0 }
    }

    /// What lies under paths that begin with these bytes; `None` for more than a path can have.
    pub fn prefix(site: &str, prefix: &str) -> Option<Scope> {
        let site = site_hash(site);
        let prefix_bytes = u16::try_from(prefix.len()).ok()?;
        let name = prefix_name(site, prefix.as_bytes());
        Some(Scope { kind: Kind::Prefix, site, name, prefix_bytes })
    }

    /// What carries a tag, of one site or of all.
    pub fn tag(site: Option<&str>, tag: &str) -> Scope {
        let site = site.map_or(ALL_SITES, site_hash);
        let name = tag_name(site, tag_hash(tag.as_bytes()));
        Scope { kind: Kind::Tag, site, name, prefix_bytes: 0 }
    }

    pub(super) fn whole(kind: Kind, site: u64) -> Scope {
        Scope { kind, site, name: site_name(site), prefix_bytes: 0 }
    }

    /// What it was asked by.
    pub fn kind(&self) -> Kind {
        self.kind
    }
}

pub(super) fn site_hash(name: &str) -> u64 {
    xxh3_64(name.as_bytes()).max(1)
}

pub(super) fn tag_hash(tag: &[u8]) -> u64 {
    xxh3_64(tag)
}

pub(super) fn site_name(site: u64) -> u128 {
    name(site, Kind::Site, b"")
}

pub(super) fn object_name(site: u64, target: &str) -> u128 {
    name(site, Kind::Object, target.as_bytes())
}

pub(super) fn prefix_name(site: u64, prefix: &[u8]) -> u128 {
    name(site, Kind::Prefix, prefix)
}

pub(super) fn tag_name(site: u64, tag: u64) -> u128 {
    name(site, Kind::Tag, &tag.to_le_bytes())
}

/// Stands for each tag of a site: for heads with more of them than are remembered.
pub(super) fn any_tag_name(site: u64) -> u128 {
    name(site, Kind::Tag, b"")
}

fn name(site: u64, kind: Kind, bytes: &[u8]) -> u128 {
    xxh3_128_with_seed(bytes, site.wrapping_mul(8).wrapping_add(kind as u64))
}
