//! THE DOOR: who is let in to what is behind a token, before the cache or an origin is touched.
//!
//! A [`Door`] is one site's. It finds the token a viewer shows and takes it out of his request, so
//! that no key, no log and no origin ever sees it ([`Shown`]); and says whether it lets him in
//! ([`Door::admit`]). What is dear about a token is done once and kept by the token's text
//! (`verdicts.rs`), for as long as the keys are those it was verified by. Nothing here waits: what
//! outlives the process is written by a thread of its own (`uses.rs`).

mod bearers;
mod shown;
mod uses;
mod verdicts;

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;

use crate::message::target::canonical_query;
use crate::object::SiteId;
use crate::site::{QueryPolicy, Scheme, Sites};
use crate::token::key_file::{Auth, KeyFile, KeyFileError, Keys};
use crate::token::uri_signing::{self, Denied, Transport, uri_of};

use bearers::Bearers;
pub use bearers::{Allowance, Bearer, Connected, Exhausted};
pub use shown::Shown;
pub use uses::Uses;
use verdicts::Verdicts;

/// What a site demands of its tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct Demands {
    /// The attribute of URIs, and the cookie, that a token is in.
    pub name: String,
    /// Where its keys are from.
    pub key_file: PathBuf,
    /// What that file says.
    pub keys: Secret,
    /// What is compared with what.
    pub settings: uri_signing::Settings,
    /// How URIs begin that tokens are for, wherever they are asked; `None`: as they are asked.
    pub scheme: Option<Scheme>,
    /// What who bears one may have.
    pub allowance: Allowance,
}

/// A text that is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub Arc<[u8]>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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
                door.demands == *demands && door.verdicts_bytes == verdicts_bytes
            };
            let door = match former.filter(stays) {
                Some(former) => former.clone(),
                None => {
                    let (bearers, uses) = (before.bearers.clone(), uses.clone());
                    let made = Door::new(name, demands.clone(), verdicts_bytes, bearers, uses);
                    let path = demands.key_file.display();
                    Arc::new(made.map_err(|error| format!("{path}: {error}"))?)
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
    verdicts: Verdicts,
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
    /// Who asks.
    pub client: IpAddr,
    /// When.
    pub now: SystemTime,
}

/// That somebody is let in.
#[derive(Debug, Default)]
pub struct Admitted {
    /// Whether a token says so; else it is for everybody.
    pub by_token: bool,
    /// What he is to have in its place.
    pub renewed: Option<Given>,
    /// What he may have, where that is bounded.
    pub bearer: Option<Arc<Bearer>>,
}

/// A token that comes with an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// In what.
    pub transport: Transport,
    /// The attribute's or the cookie's name.
    pub name: String,
    /// The token.
    pub token: String,
    /// For which paths, of a cookie.
    pub path: String,
    /// For how long.
    pub age: Duration,
}

/// That he is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// By what his token says, or as he has none.
    Denied(Denied),
    /// By a directive of the key file, whatever his token says.
    Directed,
    /// What one token is good for is used up for now.
    Exhausted(Exhausted),
}

impl Refused {
    /// `s-uri-signing` of RFC 9246 section 4.5.
    pub fn code(self) -> u16 {
        match self {
            Refused::Denied(denied) => denied.code(),
            Refused::Directed => Denied::Container.code(),
            // The token itself is good.
            Refused::Exhausted(_) => VERIFIED,
        }
    }

    /// `s-uri-signing-deny-reason`.
    pub fn reason(self) -> &'static str {
        match self {
            Refused::Denied(denied) => denied.reason(),
            Refused::Directed => "a directive of the key file denies it to all",
            Refused::Exhausted(exhausted) => exhausted.reason(),
        }
    }
}

/// `s-uri-signing` of a token that lets its bearer in.
pub const VERIFIED: u16 = 200;
/// `s-uri-signing` where no token was looked at.
pub const UNCHECKED: u16 = 0;

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
        Shown::take(parts, &self.demands.name)
    }

    /// Whether a viewer is let in who shows this.
    ///
    /// # Errors
    /// He is not.
    pub fn admit(&self, shown: &Shown, asking: &Asking<'_>) -> Result<Admitted, Refused> {
        let Ok(in_uri) = &shown.in_uri else { return Err(Refused::Denied(Denied::Malformed)) };
        let known = self.known.load();
        let scheme = self.demands.scheme.unwrap_or(asking.scheme);
        // What players and steering add is for nobody but who serves.
        let query = asking
            .query
            .and_then(|query| canonical_query(Some(query), &QueryPolicy::All, |_| false));
        let uri = uri_of(scheme.as_str(), asking.host, asking.port, asking.path, query.as_deref())
            .ok_or(Refused::Denied(Denied::Malformed))?;
        match known.keys.directed(&uri, &self.demands.settings) {
            Some(Auth::Deny) => return Err(Refused::Directed),
            Some(Auth::Allow) => return Ok(Admitted::default()),
            None => {}
        }
        let of = |token: &str| self.admit_by(&known, token, &uri, asking);
        // A player that asks for the same playlist again shows the one its URI had at first.
        match (in_uri, &shown.in_cookie) {
            (None, None) => Err(Refused::Denied(Denied::Malformed)),
            (Some(token), None) | (None, Some(token)) => of(token),
            (Some(token), Some(cookie)) => of(token).or_else(|first| match first {
                Refused::Exhausted(_) => Err(first),
                _ => of(cookie).map_err(|_| first),
            }),
        }
    }

    fn admit_by(
        &self,
        known: &Known,
        token: &str,
        uri: &str,
        asking: &Asking<'_>,
    ) -> Result<Admitted, Refused> {
        let now = asking.now.duration_since(UNIX_EPOCH).unwrap_or_default();
        if now < SET_CLOCKS_SAY {
            // What has expired could not be told from what has not.
            return Err(Refused::Denied(Denied::Early));
        }
        let settings = &self.demands.settings;
        let verified = known.verdicts.of(token, &known.keys, settings).map_err(Refused::Denied)?;
        let asked = uri_signing::Asked {
            uri,
            path: asking.path,
            client: asking.client,
            now: now.as_secs_f64(),
        };
        let is_first = |used: uri_signing::Use<'_>| self.uses.is_first(&self.site, &used, now);
        let renewal = verified.admits(&asked, is_first).map_err(Refused::Denied)?;
        let bearer = self.bearers.of(&self.site, token, &self.demands.allowance);
        if let Some(bearer) = &bearer {
            bearer.ask(now).map_err(Refused::Exhausted)?;
        }
        let renewed = renewal.and_then(|renewal| {
            let renewed = verified.renewed(renewal, &asked, &known.keys)?;
            Some(Given {
                transport: renewal.transport,
                name: self.demands.name.clone(),
                token: renewed.token,
                path: renewed.path,
                age: Duration::try_from_secs_f64(renewal.seconds).unwrap_or(Duration::MAX),
            })
        });
        Ok(Admitted { by_token: true, renewed, bearer })
    }
}

impl Known {
    fn of(text: &Secret, demands: &Demands, bytes: u64) -> Result<Known, KeyFileError> {
        let keys = KeyFile::parse(&text.0)?.keys(demands.settings.matching)?;
        Ok(Known { text: text.clone(), keys, verdicts: Verdicts::of_bytes(bytes) })
    }
}

/// 2020: a clock that says less was never set.
pub const SET_CLOCKS_SAY: Duration = Duration::from_secs(1_577_836_800);
