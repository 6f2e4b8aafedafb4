//! THE DOOR: who is let in to what is behind a token, before the cache or an origin is touched.
//!
//! A [`Door`] is one site's. It finds the token a viewer shows and takes it out of his request, so
//! that no key, no log and no origin ever sees it ([`Shown`]); and says whether it lets him in
//! ([`Door::admit`]). What is dear about a token is done once and kept by the token's text
//! (`verdicts.rs`), for as long as the keys are those it was verified by. Nothing here waits: what
//! outlives the process is written by a thread of its own (`uses.rs`).

mod bearers;
mod found;
pub mod fuzz;
mod given;
mod judging;
mod shown;
mod uses;
mod verdicts;

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use http::HeaderMap;

use crate::geo::Geo;
use crate::object::SiteId;
use crate::site::{Scheme, Sites};
use crate::token::cat;
use crate::token::key_file::{KeyFile, KeyFileError, Keys};
use crate::token::uri_signing;

use bearers::Bearers;
pub use bearers::{Allowance, Bearer, Connected, Exhausted};
pub use found::{Admitted, Found, Instead, Refused};
pub use given::Given;
pub use shown::Shown;
pub use uses::Uses;
use verdicts::Verdicts;

/// What a site demands of its tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Demands {
    /// The attribute of URIs, and the cookie, that a token is in.
    pub name: String,
    /// Where its keys are from.
    pub source: KeySource,
    /// What is said there; of a fleet, nothing yet.
    pub keys: Secret,
    /// What is compared with what.
    pub settings: uri_signing::Settings,
    /// The parameter that a Common Access Token is in, beside its header and cookie; `None`: none
    /// is looked at.
    pub cat: Option<String>,
    /// How URIs begin that tokens are for, wherever they are asked; `None`: as they are asked.
    pub scheme: Option<Scheme>,
    /// What who bears one may have.
    pub allowance: Allowance,
}

/// Where keys are from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A file.
    File(PathBuf),
    /// What the control plane of the fleet has under this name.
    Fleet(String),
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeySource::File(path) => path.display().fmt(f),
            KeySource::Fleet(name) => write!(f, "the fleet's {name:?}"),
        }
    }
}

/// A text that is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Arc<[u8]>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

/// The doors of now: a reload puts others in their place.
pub type CurrentDoors = ArcSwap<Doors>;

/// The doors of all sites that have one.
#[derive(Debug, Default)]
pub struct Doors {
    of: HashMap<SiteId, Arc<Door>>,
    bearers: Arc<Bearers>,
}

impl Doors {
    /// A door for each of `demands`, by the names of `sites`. What is the same as `before` stays,
    /// with what it knows. `verdicts_bytes`: of all doors.
    ///
    /// # Errors
    /// A key file that is none, with its path.
    pub fn new(
        sites: &Sites,
        demands: &[(String, Demands)],
        before: &Doors,
        uses: &Arc<Uses>,
        verdicts_bytes: u64,
    ) -> Result<Doors, String> {
        let verdicts_bytes = verdicts_bytes / (demands.len() as u64).max(1);
        let mut of = HashMap::new();
        for (name, demands) in demands {
            let Some(site) = sites.iter().find(|site| site.name == *name) else { continue };
            let former = before.of.get(&site.id);
            let stays = |door: &&Arc<Door>| {
                door.demands == *demands
                    && door.verdicts_bytes == verdicts_bytes
                    && Arc::ptr_eq(&door.uses, uses)
            };
            let door = match former.filter(stays) {
                Some(former) => {
                    // They may have been others meanwhile.
                    if let KeySource::File(_) = demands.source {
                        let _ = former.adopt(demands.keys.clone());
                    }
                    former.clone()
                }
                None => {
                    let (bearers, uses) = (before.bearers.clone(), uses.clone());
                    let made = Door::new(name, demands.clone(), verdicts_bytes, bearers, uses);
                    let source = &demands.source;
                    let made = made.map_err(|error| format!("{source}: {error}"))?;
                    if let (KeySource::Fleet(_), Some(former)) = (source, former)
                        && former.demands.source == *source
                    {
                        // Only those who had them know what they are.
                        let _ = made.adopt(former.known.load().text.clone());
                    }
                    Arc::new(made)
                }
            };
            of.insert(site.id, door);
        }
        Ok(Doors { of, bearers: before.bearers.clone() })
    }

    /// These, and those of `before` that are no more: who has begun goes by them.
    pub fn and(&self, before: &Doors) -> Doors {
        let mut of = before.of.clone();
        of.extend(self.of.iter().map(|(site, door)| (*site, door.clone())));
        Doors { of, bearers: self.bearers.clone() }
    }

    /// Whether no site has one.
    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// A site's.
    pub fn of(&self, site: SiteId) -> Option<&Arc<Door>> {
        self.of.get(&site)
    }

    /// Takes out of a request whatever could be a token at one of them, where nobody looks at it.
    pub fn forget(&self, parts: &mut http::request::Parts) {
        let mut names: Vec<(&str, Option<&str>)> = Vec::new();
        for Demands { name, cat, .. } in self.iter().map(|door| &door.demands) {
            let names_of = (name.as_str(), cat.as_deref());
            if !names.contains(&names_of) {
                names.push(names_of);
                drop(Shown::take(parts, names_of.0, names_of.1));
            }
        }
    }

    /// All there are.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Door>> {
        self.of.values()
    }
}

/// A site's door.
#[derive(Debug)]
pub struct Door {
    site: String,
    demands: Demands,
    verdicts_bytes: u64,
    /// Swapped whole: no verdict is of other keys than those beside it.
    known: ArcSwap<Known>,
    bearers: Arc<Bearers>,
    uses: Arc<Uses>,
}

#[derive(Debug)]
struct Known {
    text: Secret,
    keys: Keys,
    uris: Verdicts<uri_signing::Verified>,
    cats: Verdicts<cat::Verified>,
}

/// What a viewer asks for, as tokens are compared with it.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    /// By what he asks.
    pub scheme: Scheme,
    /// In lower case.
    pub host: &'a str,
    /// That of the target or of `Host`.
    pub port: Option<u16>,
    /// Normalised, without the token.
    pub path: &'a str,
    /// As it was written, without the token.
    pub query: Option<&'a str>,
    /// Path and query as they name an object, whatever scheme and port it is asked by.
    pub object: &'a str,
    /// What he wants done.
    pub method: &'a str,
    /// All fields, without the token.
    pub fields: &'a HeaderMap,
    /// What TLS has agreed to speak.
    pub protocol: Option<&'static [u8]>,
    /// Who asks.
    pub client: IpAddr,
    /// Where he is, as far as it is known.
    pub places: &'a Geo,
    /// When.
    pub now: SystemTime,
}

impl Door {
    fn new(
        site: &str,
        demands: Demands,
        verdicts_bytes: u64,
        bearers: Arc<Bearers>,
        uses: Arc<Uses>,
    ) -> Result<Door, KeyFileError> {
        let known = Known::of(&demands.keys, &demands, verdicts_bytes)?;
        let (site, known) = (site.to_owned(), ArcSwap::from_pointee(known));
        Ok(Door { site, demands, verdicts_bytes, known, bearers, uses })
    }

    /// What it demands.
    pub fn demands(&self) -> &Demands {
        &self.demands
    }

    /// Whether its keys are from the control plane of a fleet.
    pub fn is_of_fleet(&self) -> bool {
        matches!(self.demands.source, KeySource::Fleet(_))
    }

    /// Whose it is.
    pub fn site(&self) -> &str {
        &self.site
    }

    /// Goes by these keys from now on; whether they are others.
    ///
    /// # Errors
    /// They are none; it goes by those of before.
    pub fn adopt(&self, keys: Secret) -> Result<bool, KeyFileError> {
        if self.known.load().text == keys {
            return Ok(false);
        }
        self.known.store(Arc::new(Known::of(&keys, &self.demands, self.verdicts_bytes)?));
        Ok(true)
    }

    /// Takes the token out of a request, wherever it is shown.
    pub fn take(&self, parts: &mut http::request::Parts) -> Shown {
        Shown::take(parts, &self.demands.name, self.demands.cat.as_deref())
    }
}

impl Known {
    fn of(text: &Secret, demands: &Demands, bytes: u64) -> Result<Known, KeyFileError> {
        let keys = KeyFile::parse(&text.0)?.keys(demands.settings.matching)?;
        let cat_bytes = if demands.cat.is_some() { bytes / 2 } else { 0 };
        let uris = Verdicts::of_bytes(bytes - cat_bytes);
        Ok(Known { text: text.clone(), keys, uris, cats: Verdicts::of_bytes(cat_bytes) })
    }
}

/// 2020: a clock that says less was never set.
pub const SET_CLOCKS_SAY: Duration = Duration::from_secs(1_577_836_800);
