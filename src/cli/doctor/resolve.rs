//! The names of origins: which addresses they have.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Subject;
use super::finding::Finding;
use super::origins::needed;
use crate::limits::DOCTOR_ASKS_MAX;

const RESOLVED_WITHIN: Duration = Duration::from_secs(5);

/// Each name.
pub(super) async fn look(subject: &Subject) -> Vec<Finding> {
    let origins = subject.config.sites.iter().flat_map(|site| &site.origins);
    let names: BTreeSet<String> = origins.map(|origin| origin.address.clone()).collect();
    let (mut looking, turns) = (JoinSet::new(), Arc::new(Semaphore::new(DOCTOR_ASKS_MAX)));
    for name in names {
        let (known, turns) = (known(subject, &name), Arc::clone(&turns));
        looking.spawn(async move {
            let _turn = turns.acquire().await;
            (addresses(&name, 0, known).await, name)
        });
    }
    let mut found = looking.join_all().await;
    found.sort_by(|(_, one), (_, other)| one.cmp(other));
    let without: BTreeSet<String> = found
        .iter()
        .filter(|(addresses, _)| addresses.is_err())
        .map(|(_, name)| name.clone())
        .collect();
    let sites = subject.config.sites.iter();
    let sites = sites.map(|site| site.origins.iter().map(|o| o.address.clone()).collect());
    let needed = needed(sites, |name: &String| without.contains(name));
    let judged = found
        .into_iter()
        .map(|(addresses, name)| judge(&name, addresses, needed.contains(&name)).of(&name));
    judged.collect()
}

fn judge(name: &str, addresses: Result<Vec<SocketAddr>, String>, is_needed: bool) -> Finding {
    let to_do = "look at the name in the configuration, and at /etc/resolv.conf";
    match addresses {
        Ok(_) if literal(name).is_some() => Finding::ok("an address, which nobody is asked for"),
        Ok(addresses) => {
            let addresses: Vec<_> = addresses.iter().map(|one| one.ip().to_string()).collect();
            Finding::ok(addresses.join(", "))
        }
        Err(error) if is_needed => Finding::fail(error, to_do),
        Err(error) => Finding::warn(format!("{error}; its sites have another origin"), to_do),
    }
}

/// What a name has on the command line.
pub(super) fn known(subject: &Subject, name: &str) -> Option<Vec<IpAddr>> {
    subject.resolve.get(name).cloned()
}

fn literal(name: &str) -> Option<IpAddr> {
    name.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// The addresses of a name, each once; at least one.
///
/// # Errors
/// Why there are none.
pub(super) async fn addresses(
    name: &str,
    port: u16,
    known: Option<Vec<IpAddr>>,
) -> Result<Vec<SocketAddr>, String> {
    if let Some(ips) = known.or_else(|| Some(vec![literal(name)?])) {
        return Ok(ips.into_iter().map(|ip| SocketAddr::new(ip, port)).collect());
    }
    let looked_up = match timeout(RESOLVED_WITHIN, lookup_host((name, port))).await {
        Ok(looked_up) => looked_up.map_err(|error| format!("it has no address: {error}"))?,
        Err(_) => {
            return Err(format!("no name server answered in {} s", RESOLVED_WITHIN.as_secs()));
        }
    };
    let found: BTreeSet<SocketAddr> = looked_up.collect();
    match found.is_empty() {
        true => Err("it has no address".to_owned()),
        false => Ok(found.into_iter().collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::super::root::Root;
    use super::super::tests::subject;
    use super::*;

    #[tokio::test]
    async fn names_have_addresses_of_their_own_or_those_they_are_given() {
        let site = "[[sites]]\nname = 'film'\nhosts = ['a.test']\n\
                    origins = ['http://given.test', 'http://[::1]:81']\n";
        let mut subject = subject(site, Root::at("/"));
        let given = vec!["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()];
        subject.resolve.insert("given.test".to_owned(), given);
        let findings = look(&subject).await;
        let told: Vec<_> = findings.iter().map(|one| (one.of.as_str(), one.state)).collect();
        let ok = State::Ok;
        assert_eq!(told, [("127.0.0.1", ok), ("[::1]", ok), ("given.test", ok)]);
        assert_eq!(findings[2].found, "192.0.2.1, 192.0.2.2");
    }

    #[test]
    fn a_name_without_addresses_fails_where_no_other_origin_can_be_asked() {
        let none = || Err("it has no address".to_owned());
        assert_eq!(judge("a.test", none(), true).state, State::Fail);
        assert_eq!(judge("a.test", none(), false).state, State::Warn);
    }
}
