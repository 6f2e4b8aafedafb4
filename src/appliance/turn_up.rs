//! What an appliance waits for before it says that viewers are wanted: its volumes, a certificate
//! that they would accept, an origin of each site that takes connections.
//!
//! It serves whoever comes meanwhile, and waits no longer than [`WAITED_FOR_AT_MOST`]: it is better
//! than none. A ring that `ssd.engine` demands is there when its volume is online.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::parts::Parts;
use crate::config::Certificates;
use crate::limits::TURN_UP_ASKS_MAX;
use crate::site::{Origin, Site};

/// Says that viewers are wanted as soon as they should be.
pub(super) fn start(parts: &Arc<Parts>) {
    let (parts, stop) = (parts.clone(), parts.filler.stop.clone());
    let (tasks, runtime) = (parts.filler.tasks.clone(), parts.filler.runtime.clone());
    let turn_up = async move {
        let until = Instant::now() + WAITED_FOR_AT_MOST;
        let waited = async {
            let (here, silent) = tokio::join!(look(&parts, until), silent_sites(&parts, until));
            for missing in here.into_iter().chain(silent) {
                tracing::warn!("ready, but {missing}; `tidegate doctor` says more");
            }
            parts.readiness.set_ready();
        };
        tokio::select! {
            () = waited => {}
            () = stop.cancelled() => {}
        }
    };
    tasks.spawn_on(turn_up, &runtime);
}

/// What is missing of this machine at the end.
async fn look(parts: &Parts, until: Instant) -> Vec<String> {
    loop {
        let missing: Vec<String> = volumes(parts).chain(certificates(parts)).collect();
        if missing.is_empty() || Instant::now() >= until {
            return missing;
        }
        sleep(LOOKED_AT_EVERY).await;
    }
}

/// Those that are neither online nor left out, which was told of.
fn volumes(parts: &Parts) -> impl Iterator<Item = String> {
    let waiting = parts.ssd.volumes().all().into_iter();
    let waiting = waiting.filter(|one| one.opened().is_none() && one.left_out().is_none());
    waiting.map(|one| format!("volume {} is not online yet", one.name))
}

/// None that viewers would accept, where one is shown.
fn certificates(parts: &Parts) -> Option<String> {
    let certificates = parts.live.certificates.load();
    let shows_one = parts.config.listeners.iter().any(|one| one.kind.is_tls());
    let judged = || certificates.iter().map(|one| one.judged(SystemTime::now()));
    if !shows_one || judged().any(|fault| fault.is_none()) {
        return None;
    }
    let why = judged().flatten().next().map(|why| format!("certificate {why}"));
    Some(why.unwrap_or_else(|| none_yet(&certificates)))
}

fn none_yet(certificates: &Certificates) -> String {
    let names: Vec<&str> =
        certificates.managed().flat_map(|one| &one.names).map(String::as_str).collect();
    match names.is_empty() {
        true => "no certificate can be shown yet".to_owned(),
        false => format!("no certificate can be shown yet: {}", names.join(", ")),
    }
}

/// The sites of which no origin takes a connection. Nothing is asked for: they are called on alone.
async fn silent_sites(parts: &Parts, until: Instant) -> Vec<String> {
    let sites = parts.live.sites.load_full();
    let mut silent: BTreeSet<String> = sites.iter().map(|site| site.name.clone()).collect();
    let turns = Arc::new(Semaphore::new(TURN_UP_ASKS_MAX));
    let mut calling = JoinSet::new();
    for site in sites.iter() {
        calling.spawn(until_one_answers(site.clone(), turns.clone()));
    }
    while let Ok(Some(answered)) = timeout_at(until, calling.join_next()).await {
        if let Ok(name) = answered {
            silent.remove(&name);
        }
    }
    let told = silent.iter().map(|name| format!("no origin of site {name} has answered yet"));
    told.collect()
}

/// The site's name, then.
async fn until_one_answers(site: Arc<Site>, turns: Arc<Semaphore>) -> String {
    loop {
        for origin in &site.origins {
            let _turn = turns.acquire().await;
            if takes_connections(origin).await {
                return site.name.clone();
            }
        }
        sleep(LOOKED_AT_EVERY).await;
    }
}

async fn takes_connections(origin: &Origin) -> bool {
    let host = origin.address.trim_start_matches('[').trim_end_matches(']');
    let connected = timeout(CALLED_FOR, TcpStream::connect((host, origin.port)));
    matches!(connected.await, Ok(Ok(_)))
}

/// Whoever sends viewers here has others meanwhile, and no longer than this fewer of them.
const WAITED_FOR_AT_MOST: Duration = Duration::from_secs(10);
const LOOKED_AT_EVERY: Duration = Duration::from_millis(200);
/// An origin that takes longer may do so the next time.
const CALLED_FOR: Duration = Duration::from_secs(2);

#[cfg(feature = "acme")]
#[cfg(test)]
mod tests {
    use crate::config::{Config, Machine};

    use super::*;

    #[test]
    fn a_certificate_that_is_not_issued_yet_is_named() {
        let text = "acme = { terms = \"agreed\", state = \"/tmp\" }\n\
                    listeners.http = \"[::1]:0\"\n\
                    [[certificates]]\nacme = [\"a.test\", \"b.test\"]\n\
                    [[sites]]\nname = \"s\"\nhosts = \"a\"\norigins = \"http://o\"\n";
        let machine = Machine { cores: 4, memory_bytes: Some(16 << 30) };
        let config = Config::on_machine(text, "t.toml", &machine).unwrap();
        let expected = "no certificate can be shown yet: a.test, b.test";
        assert_eq!(none_yet(&config.certificates), expected);
        assert_eq!(none_yet(&Certificates::default()), "no certificate can be shown yet");
    }
}
