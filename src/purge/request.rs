//! What an operator asks to be purged, as the admin listener reads it: a small JSON document.
//!
//! `{"urls": [..], "prefixes": [..], "tags": [..], "site": "..", "soft": false}`: at least one of
//! the first four. A site is purged whole, unless there are tags: then it says whose they are. A
//! URL means the object a viewer would get under it, with all its variants, whatever its scheme and
//! port are. A prefix is compared byte by byte with paths in their one spelling; a `*` is a letter.

use std::error::Error;
use std::fmt;

use http::Uri;
use serde::{Deserialize, Serialize};

use super::Sought;
use super::scope::{Hardness, Scope};
use crate::limits::{PURGES_PER_REQUEST_MAX, REQUEST_TARGET_BYTES_MAX, TAG_BYTES_MAX};
use crate::message::target::{canonical_target, host_and_port, normalised_path};
use crate::object::ObjectKey;
use crate::site::{Site, Sites};

/// As it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PurgeRequest {
    /// Objects, by a URL of each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// URLs that those of the objects begin with.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<String>,
    /// Tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// A site's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// Whether it is only stale from then on.
    pub soft: bool,
}

/// How much of what; a URL's query may be a secret.
impl fmt::Display for PurgeRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |things: &[String], name: &str, plural: &str| match things.len() {
            0 => None,
            1 => Some(format!("1 {name}")),
            many => Some(format!("{many} {plural}")),
        };
        let counts = [
            count(&self.urls, "URL", "URLs"),
            count(&self.prefixes, "prefix", "prefixes"),
            count(&self.tags, "tag", "tags"),
        ];
        let counts = counts.into_iter().flatten().collect::<Vec<_>>().join(" and ");
        f.write_str(&counts)?;
        if let Some(site) = &self.site {
            let of = if counts.is_empty() { "site" } else { " of site" };
            write!(f, "{of} {site}")?;
        }
        f.write_str(if self.soft { " softly" } else { "" })
    }
}

/// Why a request purges nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestFault {
    /// It is no such document.
    NotJson(String),
    /// Nothing is named.
    Nothing,
    /// More than may be purged at once.
    TooMany(usize),
    /// A site goes alone or with tags.
    SiteBesideUrls,
    /// No site has this name.
    UnknownSite(String),
    /// No site has the host of this URL.
    UnknownHost(String),
    /// It is no URL that a viewer could ask for.
    NotUrl(String),
    /// A prefix with a query: paths alone are compared.
    QueryInPrefix(String),
    /// Empty, or longer than any tag.
    BadTag(String),
}

impl fmt::Display for RequestFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequestFault::NotJson(why) => write!(f, "the request is not understood: {why}"),
            RequestFault::Nothing => {
                f.write_str("nothing is named; say urls, prefixes, tags or a site")
            }
            RequestFault::TooMany(count) => {
                write!(f, "{count} things at once; at most {PURGES_PER_REQUEST_MAX}")
            }
            RequestFault::SiteBesideUrls => {
                f.write_str("a site goes alone or with tags; URLs and prefixes name theirs")
            }
            RequestFault::UnknownSite(name) => write!(f, "no site is called {name:?}"),
            RequestFault::UnknownHost(url) => write!(f, "no site has the host of {url:?}"),
            RequestFault::NotUrl(url) => {
                write!(
                    f,
                    "{url:?} is no URL; write one such as \"https://video.example.com/a.mp4\""
                )
            }
            RequestFault::QueryInPrefix(url) => {
                write!(f, "the prefix {url:?} has a query; it is compared with paths alone")
            }
            RequestFault::BadTag(tag) => {
                let start: String = tag.chars().take(40).collect();
                write!(
                    f,
                    "{start:?} is no tag; one has 1 to {TAG_BYTES_MAX} bytes, no spaces around"
                )
            }
        }
    }
}

impl Error for RequestFault {}

impl PurgeRequest {
    /// Reads the document.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(json: &[u8]) -> Result<PurgeRequest, RequestFault> {
        serde_json::from_slice(json).map_err(|error| RequestFault::NotJson(error.to_string()))
    }

    /// How much of what is named is lost.
    pub fn hardness(&self) -> Hardness {
        if self.soft { Hardness::Soft } else { Hardness::Hard }
    }

    /// What is to be purged of these sites.
    ///
    /// # Errors
    /// The first thing that cannot be meant.
    pub fn scopes(&self, sites: &Sites) -> Result<Vec<Scope>, RequestFault> {
        let count = self.urls.len() + self.prefixes.len() + self.tags.len();
        if count > PURGES_PER_REQUEST_MAX {
            return Err(RequestFault::TooMany(count));
        }
        let mut scopes = Vec::with_capacity(count.max(1));
        if let Some(name) = &self.site {
            // One that is gone may come back, with what is kept of it.
            if !sites.known().any(|site| site.name == *name) {
                return Err(RequestFault::UnknownSite(name.clone()));
            }
            if !self.urls.is_empty() || !self.prefixes.is_empty() {
                return Err(RequestFault::SiteBesideUrls);
            }
            if self.tags.is_empty() {
                scopes.push(Scope::site(name));
            }
        }
        for url in &self.urls {
            scopes.push(object_of(url, sites)?.0);
        }
        for url in &self.prefixes {
            scopes.push(prefix_of(url, sites)?);
        }
        for tag in &self.tags {
            if tag.is_empty() || tag.len() > TAG_BYTES_MAX || tag.trim() != tag {
                return Err(RequestFault::BadTag(tag.clone()));
            }
            scopes.push(Scope::tag(self.site.as_deref(), tag));
        }
        match scopes.is_empty() {
            true => Err(RequestFault::Nothing),
            false => Ok(scopes),
        }
    }

    /// What is to be purged, to be looked for: it is what these cover, its own [`Self::scopes`].
    pub fn sought(&self, scopes: &[Scope], sites: &Sites) -> Sought {
        let are_alone = self.prefixes.is_empty() && self.tags.is_empty() && self.site.is_none();
        let mut objects = Vec::new();
        for url in &self.urls {
            let object = object_of(url, sites).ok().map(|(_, object)| object);
            objects.extend(object.filter(|object| !objects.contains(object)));
        }
        Sought::new(scopes, are_alone.then_some(objects))
    }

    /// What whoever asked may not know of what was asked.
    pub fn hint(&self) -> Option<String> {
        let url = self.urls.iter().chain(&self.prefixes).find(|url| url.contains('*'))?;
        let beginning = url.split('*').next().unwrap_or_default();
        Some(format!(
            "a `*` in a URL is a letter like any other; all that begins with {beginning} is purged \
             by that as a prefix (--prefix, `prefixes`)"
        ))
    }
}

fn object_of(url: &str, sites: &Sites) -> Result<(Scope, ObjectKey), RequestFault> {
    let (uri, site) = site_of(url, sites)?;
    let not_url = || RequestFault::NotUrl(url.to_owned());
    let path = normalised_path(path_of(&uri)).ok_or_else(not_url)?;
    let rule = site.rule_for(&path);
    let target = canonical_target(&path, uri.query(), &rule.query, rule.content);
    Ok((Scope::object(&site.name, &target), ObjectKey::new(site.id, &target)))
}

fn prefix_of(url: &str, sites: &Sites) -> Result<Scope, RequestFault> {
    let (uri, site) = site_of(url, sites)?;
    if uri.query().is_some() {
        return Err(RequestFault::QueryInPrefix(url.to_owned()));
    }
    let path = normalised_path(path_of(&uri));
    let prefix = path.and_then(|path| Scope::prefix(&site.name, &path));
    prefix.ok_or_else(|| RequestFault::NotUrl(url.to_owned()))
}

fn site_of<'a>(url: &str, sites: &'a Sites) -> Result<(Uri, &'a Site), RequestFault> {
    let not_url = || RequestFault::NotUrl(url.to_owned());
    let uri = url.parse::<Uri>().ok().filter(|_| url.len() <= URL_BYTES_MAX);
    let uri = uri.ok_or_else(not_url)?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(not_url());
    }
    let authority = uri.authority().ok_or_else(not_url)?;
    let (host, _) = host_and_port(authority.as_str().as_bytes()).ok_or_else(not_url)?;
    let site = sites.find(&host).ok_or_else(|| RequestFault::UnknownHost(url.to_owned()))?;
    Ok((uri.clone(), site))
}

fn path_of(uri: &Uri) -> &str {
    match uri.path() {
        "" => "/",
        path => path,
    }
}

/// A target and what stands before it.
const URL_BYTES_MAX: usize = REQUEST_TARGET_BYTES_MAX + 512;
