//! Every site, found by host, and by an id that is never another's.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use http::HeaderName;

use super::{Rule, Site};
use crate::object::SiteId;

/// The sites of now: a reload puts others in their place. Who has begun with one keeps it.
pub type CurrentSites = ArcSwap<Sites>;

/// Every site, found by host.
#[derive(Clone, Debug, Default)]
pub struct Sites {
    all: Vec<Arc<Site>>,
    /// Those that there are and those that there were, by their ids.
    by_id: Vec<Arc<Site>>,
    exact: HashMap<String, SiteId>,
    /// By what follows the star: `.example.com` for `*.example.com`.
    under: HashMap<String, SiteId>,
    any: Option<SiteId>,
}

impl Sites {
    /// Indexes `sites`; the id of each is its position. Of two with one host the later is found.
    pub fn new(sites: Vec<Site>) -> Sites {
        let mut found = Sites::default();
        for site in &sites {
            for host in &site.hosts {
                if host == "*" {
                    found.any = Some(site.id);
                } else if let Some(suffix) = host.strip_prefix('*') {
                    found.under.insert(suffix.to_owned(), site.id);
                } else {
                    found.exact.insert(host.clone(), site.id);
                }
            }
        }
        found.all = sites.into_iter().map(Arc::new).collect();
        found.by_id.clone_from(&found.all);
        found
    }

    /// The same sites in the place of `before`: one whose name was known keeps its id, and the id
    /// of one that is gone is nobody else's, as what is held of it is found by it.
    ///
    /// `now`: from when on these are asked for; what is asked for already is answered soon after.
    pub fn succeeding(&self, before: &Sites, now: SystemTime) -> Sites {
        let mut known_max = before.by_id.len();
        let mut renumbered = Vec::with_capacity(self.all.len());
        for site in &self.all {
            let former = before.by_id.iter().find(|former| former.name == site.name);
            let id = former.map_or(SiteId(known_max as u16), |former| former.id);
            known_max += usize::from(former.is_none());
            let edited_before = former.map_or_else(Vec::new, |former| edited(former, now));
            renumbered.push(Site { id, edited_before, ..Site::clone(site) });
        }
        let mut next = Sites::new(renumbered);
        let mut by_id = before.by_id.clone();
        // The same, not copies: who has begun is told apart by which one he has.
        for site in &next.all {
            match by_id.get_mut(usize::from(site.id.0)) {
                Some(former) => *former = site.clone(),
                None => by_id.push(site.clone()),
            }
        }
        next.by_id = by_id;
        next
    }

    /// All that there are and that there were, in the order of their ids.
    pub fn known(&self) -> impl ExactSizeIterator<Item = &Arc<Site>> {
        self.by_id.iter()
    }

    /// The site with this id, which may be gone.
    pub fn get(&self, id: SiteId) -> Option<&Arc<Site>> {
        self.by_id.get(usize::from(id.0))
    }

    /// The site of `host` (lower case, without port): exact name, then longest wildcard, then `*`.
    pub fn find(&self, host: &str) -> Option<&Arc<Site>> {
        let host = host.strip_suffix('.').unwrap_or(host);
        let wildcard = || {
            let dots = host.match_indices('.').map(|(dot, _)| dot).filter(|dot| *dot > 0);
            dots.map(|dot| &host[dot..]).find_map(|suffix| self.under.get(suffix))
        };
        let id = self.exact.get(host).or_else(wildcard).or(self.any.as_ref())?;
        self.get(*id)
    }

    /// All that there are, in the order they were configured.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Site>> {
        self.all.iter()
    }
}

/// What the rules of a site, and those before them, edit in answers that come until a little after
/// `now`.
fn edited(site: &Site, now: SystemTime) -> Vec<(SystemTime, HeaderName)> {
    let until = now + ANSWERED_WITHIN;
    let names = site.rules.iter().flat_map(Rule::edited).cloned();
    let mut edited: Vec<_> = names.map(|name| (until, name)).collect();
    for (until, name) in &site.edited_before {
        if !edited.iter().any(|(_, known)| known == name) {
            edited.push((*until, name.clone()));
        }
    }
    edited
}

/// What was asked for by the rules of before is answered by then.
const ANSWERED_WITHIN: Duration = Duration::from_secs(3_600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::tests::site;

    #[test]
    fn the_exact_host_wins_then_the_longest_wildcard_then_any() {
        let mut sites = vec![site(0, &["a.example.com", "[::1]"]), site(1, &["*.example.com"])];
        sites.push(site(2, &["*.b.example.com"]));
        let id = |sites: &Sites, host| sites.find(host).map(|site| site.id.0);
        let narrow = Sites::new(sites.clone());
        sites.push(site(3, &["*"]));
        let wide = Sites::new(sites);
        let table = [
            ("a.example.com", Some(0), Some(0)),
            ("a.example.com.", Some(0), Some(0)),
            ("[::1]", Some(0), Some(0)),
            ("c.example.com", Some(1), Some(1)),
            ("d.c.example.com", Some(1), Some(1)),
            ("b.example.com", Some(1), Some(1)),
            ("x.b.example.com", Some(2), Some(2)),
            ("example.com", None, Some(3)),
            (".example.com", None, Some(3)),
            ("", None, Some(3)),
        ];
        for (host, without_any, with_any) in table {
            assert_eq!(id(&narrow, host), without_any, "{host}");
            assert_eq!(id(&wide, host), with_any, "{host}");
        }
    }

    #[test]
    fn a_site_keeps_its_id_and_gives_it_to_nobody() {
        let named = |id: u16, name: &str| Site {
            name: name.to_owned(),
            hosts: vec![format!("{name}.test")],
            ..site(id, &[])
        };
        let ids = |sites: &Sites| sites.iter().map(|site| site.id.0).collect::<Vec<_>>();
        let first = Sites::new(vec![named(0, "a"), named(1, "b")]);
        let second = Sites::new(vec![named(0, "b"), named(1, "c")])
            .succeeding(&first, SystemTime::UNIX_EPOCH);
        assert_eq!(ids(&second), [1, 2]);
        assert_eq!(second.find("b.test").unwrap().id, SiteId(1));
        assert!(second.find("a.test").is_none());
        assert_eq!(second.get(SiteId(0)).unwrap().name, "a");
        let third = Sites::new(vec![named(0, "a"), named(1, "d")])
            .succeeding(&second, SystemTime::UNIX_EPOCH);
        assert_eq!((ids(&third), third.known().len()), (vec![0, 3], 4));
        let is_found = |site| std::ptr::eq(&**third.find("a.test").unwrap(), site);
        assert!(third.iter().any(|site| is_found(&**site)), "what is found is what there is");
    }
}
