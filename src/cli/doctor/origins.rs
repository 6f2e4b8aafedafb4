//! The origins: whether each answers at every address it has, by which certificate, whether ranges
//! can be had of it, and by what its versions are told apart.
//!
//! Each address is asked for one byte of each object that was named, else for `/` alone.

mod ask;
mod judge;

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use self::ask::Question;
use super::Subject;
use super::finding::Finding;
use super::resolve;
use crate::limits::DOCTOR_ASKS_MAX;
use crate::site::Origin;

/// Of one origin no more are asked.
const ADDRESSES_MAX: usize = 16;

/// One origin, and the answers of its addresses to each thing they were asked for.
struct Examined {
    origin: Origin,
    answers: Result<Vec<judge::Asked>, String>,
}

impl Examined {
    fn is_silent(&self) -> bool {
        let answers = self.answers.iter().flatten().flat_map(|asked| &asked.answers);
        !answers.into_iter().any(|(_, seen)| seen.is_ok())
    }
}

/// Each origin.
pub(super) async fn look(subject: &Subject) -> Vec<Finding> {
    let Asked { origins, sites, paths } = Asked::of(subject);
    let (mut asking, turns) = (JoinSet::new(), Arc::new(Semaphore::new(DOCTOR_ASKS_MAX)));
    for (place, (origin, paths)) in origins.into_iter().zip(paths).enumerate() {
        let (known, turns) = (resolve::known(subject, &origin.address), Arc::clone(&turns));
        let (origin, patience) = (origin.clone(), subject.config.fill);
        let question = |path| Question { origin: origin.clone(), path, patience };
        let questions = paths.into_iter().map(question).collect();
        asking.spawn(async move {
            let _turn = turns.acquire().await;
            (place, examine(origin, questions, known).await)
        });
    }
    let mut examined = asking.join_all().await;
    examined.sort_by_key(|(place, _)| *place);
    let needed = needed(sites, |place| examined[*place].1.is_silent());
    let judged = examined.iter().flat_map(|(place, one)| {
        let called = match &one.origin.host_header {
            Some(host) => format!("{} as {host}", url(&one.origin)),
            None => url(&one.origin),
        };
        let findings = judge::all(&one.answers, subject, needed.contains(place));
        findings.into_iter().map(move |found| found.of(&called))
    });
    judged.collect()
}

/// What is asked: each origin once, by their places here those of each site, and what each origin
/// is asked for: objects of its sites, each once, or `None`.
struct Asked<'a> {
    origins: Vec<&'a Origin>,
    sites: Vec<Vec<usize>>,
    paths: Vec<Vec<Option<String>>>,
}

impl Asked<'_> {
    fn of(subject: &Subject) -> Asked<'_> {
        let mut asked = Asked { origins: Vec::new(), sites: Vec::new(), paths: Vec::new() };
        let mut by_url: HashMap<String, Vec<usize>> = HashMap::new();
        for site in subject.config.sites.iter() {
            let mut places = Vec::new();
            let its = subject.paths.iter().filter(|(of, _)| of.is_none_or(|of| of == site.id));
            for origin in &site.origins {
                let same_url = by_url.entry(url(origin)).or_default();
                let known = same_url.iter().find(|at| is_same(asked.origins[**at], origin));
                let place = known.copied().unwrap_or(asked.origins.len());
                if place == asked.origins.len() {
                    asked.origins.push(origin);
                    asked.paths.push(Vec::new());
                    same_url.push(place);
                }
                for (_, path) in its.clone() {
                    if !asked.paths[place].iter().flatten().any(|known| known == path) {
                        asked.paths[place].push(Some(path.clone()));
                    }
                }
                places.push(place);
            }
            asked.sites.push(places);
        }
        asked.paths.iter_mut().filter(|paths| paths.is_empty()).for_each(|none| none.push(None));
        asked
    }
}

async fn examine(origin: Origin, questions: Vec<Question>, known: Option<Vec<IpAddr>>) -> Examined {
    let answers = match resolve::addresses(&origin.address, origin.port, known).await {
        Ok(mut addresses) => {
            addresses.truncate(ADDRESSES_MAX);
            let mut asked = Vec::new();
            for question in questions {
                let (path, question) = (question.path.clone(), Arc::new(question));
                asked.push(judge::Asked { path, answers: answers(&question, &addresses).await });
            }
            Ok(asked)
        }
        Err(why) => Err(why),
    };
    Examined { origin, answers }
}

/// Every address at once, in order.
async fn answers(question: &Arc<Question>, addresses: &[SocketAddr]) -> Vec<judge::Answer> {
    let mut asking = JoinSet::new();
    for address in addresses.iter().copied() {
        let question = Arc::clone(question);
        asking.spawn(async move { (address, ask::ask(&question, address).await) });
    }
    let mut answers = asking.join_all().await;
    answers.sort_by_key(|(address, _)| *address);
    answers
}

/// Of those that fail, the ones whose sites have no other: `sites` is what each of them asks.
pub(super) fn needed<K: Ord>(
    sites: impl IntoIterator<Item = Vec<K>>,
    fails: impl Fn(&K) -> bool,
) -> BTreeSet<K> {
    sites.into_iter().filter(|asked| asked.iter().all(&fails)).flatten().collect()
}

/// Whether asking one tells all of the other.
fn is_same(one: &Origin, other: &Origin) -> bool {
    url(one) == url(other)
        && one.authority() == other.authority()
        && one.tls_name() == other.tls_name()
        && one.fields == other.fields
        && one.roots == other.roots
}

fn url(origin: &Origin) -> String {
    let Origin { scheme, address, port, .. } = origin;
    match *port == scheme.default_port() {
        true => format!("{}://{address}", scheme.as_str()),
        false => format!("{}://{address}:{port}", scheme.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::root::Root;
    use super::super::tests::subject;
    use super::*;
    use crate::object::SiteId;

    #[test]
    fn an_origin_of_several_sites_is_asked_once_and_needed_by_one_that_has_no_other() {
        let settings = "[[sites]]\nname = 'film'\nhosts = ['film.test']\n\
             origins = ['http://127.0.0.1:9', 'http://127.0.0.1:10']\n\
             [[sites]]\nname = 'live'\nhosts = ['live.test']\n\
             origins = ['http://127.0.0.1:10', { url = 'http://127.0.0.1:10', host = 'b.test' }]";
        let mut subject = subject(settings, Root::at("/"));
        let Asked { origins, sites, paths } = Asked::of(&subject);
        assert_eq!(paths, [const { &[None] }; 3], "no object is named");
        assert_eq!(origins.iter().map(|o| o.port).collect::<Vec<_>>(), [9, 10, 10]);
        assert_eq!(sites, [vec![0, 1], vec![1, 2], vec![0]]);
        for (failing, expected) in
            [(vec![0], vec![0]), (vec![1], vec![]), (vec![1, 2], vec![1, 2]), (vec![], vec![])]
        {
            let needed = needed(sites.clone(), |place| failing.contains(place));
            assert_eq!(needed.into_iter().collect::<Vec<_>>(), expected, "{failing:?}");
        }
        for (site, path) in [(Some(0), "/film"), (Some(1), "/live"), (None, "/all"), (None, "/all")]
        {
            subject.paths.push((site.map(SiteId), path.to_owned()));
        }
        let of = |paths: &[&str]| paths.iter().map(|path| Some((*path).to_owned())).collect();
        let expected: [Vec<_>; 3] =
            [of(&["/film", "/all"]), of(&["/film", "/all", "/live"]), of(&["/live", "/all"])];
        // The first is that of the third site too, which has nothing of its own.
        assert_eq!(Asked::of(&subject).paths, expected);
    }
}
