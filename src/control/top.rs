//! `GET /top?seconds=N`: what was hot a moment ago: objects, sites and their origins, clients'
//! networks, failures. Reckoned from what is remembered of the latest requests, when it is asked.
//!
//! Of each kind a bounded number is counted, by space-saving (Metwally et al. 2005): whatever has
//! more than its share of the requests is among them, and by how much a count may be too high is
//! told.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::task::yield_now;

use super::session::Remembered;
use crate::access_log::{ClientBits, Lines};
use crate::limits::{TOP_COUNTED_MAX, TOP_TOLD_MAX};

/// What there is most of comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Requests,
    Bytes,
}

/// What was hot.
#[derive(Debug, Serialize)]
pub(super) struct Top {
    remembered: Remembered,
    /// How long before now is looked at; less than asked where less is remembered.
    covered_ms: u64,
    /// Whether that is less because the process has run for no longer.
    is_since_start: bool,
    all: Sums,
    objects: Vec<Told>,
    sites: Vec<Told>,
    clients: Vec<Told>,
    failures: Vec<Told>,
}

/// One of the most.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Told {
    name: String,
    /// By how much what it is ranked by may be too high.
    surplus: u64,
    #[serde(flatten)]
    sums: Sums,
}

/// Of requests that ended within the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Sums {
    requests: u64,
    bytes: u64,
    /// Answered from what was there.
    hits: u64,
    failed: u64,
    /// Requests upstream.
    origin_requests: u64,
    origin_wait_us: u64,
}

/// What is read of a line.
#[derive(Debug, Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    client: Cow<'a, str>,
    #[serde(borrow)]
    site: Option<Cow<'a, str>>,
    #[serde(borrow)]
    host: Cow<'a, str>,
    #[serde(borrow)]
    path: Cow<'a, str>,
    status: Option<u16>,
    bytes: u64,
    #[serde(borrow)]
    lookup: Option<Cow<'a, str>>,
    duration_us: u64,
    #[serde(default)]
    origin_wait_us: u64,
    origin: u64,
    #[serde(borrow)]
    outcome: Cow<'a, str>,
}

impl Line<'_> {
    fn sums(&self) -> Sums {
        let cut_short = self.outcome.starts_with("cut_short");
        Sums {
            requests: 1,
            bytes: self.bytes,
            hits: matches!(self.lookup.as_deref(), Some("hit" | "hit_ssd")).into(),
            failed: (cut_short || self.status.is_none_or(|status| status >= 400)).into(),
            origin_requests: self.origin,
            origin_wait_us: self.origin_wait_us,
        }
    }

    fn failure(&self) -> String {
        let site = self.site.as_deref().unwrap_or("no site");
        let status = self.status.map_or("no status".to_owned(), |status| status.to_string());
        match &*self.outcome {
            "complete" => format!("{site}: {status}"),
            outcome => format!("{site}: {status}, {outcome}"),
        }
    }

    /// His network: a house or an office has one.
    fn network(&self) -> Option<String> {
        let address = self.client.parse::<IpAddr>().ok()?;
        let bits = if address.is_ipv4() { NETWORK.v4 } else { NETWORK.v6 };
        Some(format!("{}/{bits}", NETWORK.of(address)))
    }
}

/// How far to look back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) asked_ms: u64,
    /// For how long every request is remembered, where none was forgotten.
    pub(super) whole_ms: Option<u64>,
}

/// Looks at the requests that ended within a window before now, the newest first. Gives way to
/// others after every few lines.
pub(super) async fn look(
    mut lines: VecDeque<Arc<Lines>>,
    now_ms: u64,
    Window { asked_ms, whole_ms }: Window,
    by: By,
) -> Top {
    let remembered = Remembered::of(&lines);
    let mut counting = Counting::new(by);
    let from_ms = now_ms.saturating_sub(asked_ms);
    let mut is_covered = false;
    while let Some(some) = lines.pop_back().filter(|_| !is_covered) {
        for (at_ms, line) in some.all().rev() {
            let Ok(line) = serde_json::from_str::<Line<'_>>(line) else { continue };
            if at_ms + line.duration_us / 1_000 < from_ms {
                is_covered = true;
                break;
            }
            counting.count(&line);
        }
        drop(some);
        yield_now().await;
    }
    // Before the first request that is remembered there was none, or nobody knows.
    let covered_ms = match (whole_ms, remembered.since_ms) {
        _ if is_covered => asked_ms,
        (Some(whole_ms), _) => whole_ms,
        (None, Some(since_ms)) => now_ms.saturating_sub(since_ms),
        (None, None) => 0,
    };
    let is_since_start = !is_covered && whole_ms.is_some_and(|whole_ms| whole_ms < asked_ms);
    counting.told(remembered, covered_ms.min(asked_ms), is_since_start)
}

/// Counts of each kind.
struct Counting {
    by: By,
    all: Sums,
    objects: Most,
    sites: Most,
    clients: Most,
    failures: Most,
}

impl Counting {
    fn new(by: By) -> Counting {
        let [objects, sites, clients, failures] = [(); 4].map(|()| Most::new(TOP_COUNTED_MAX));
        Counting { by, all: Sums::default(), objects, sites, clients, failures }
    }

    fn count(&mut self, line: &Line<'_>) {
        let sums = line.sums();
        self.all.add(sums);
        let weight = match self.by {
            By::Requests => 1,
            By::Bytes => sums.bytes,
        };
        self.objects.count(&format!("{}{}", line.host, line.path), weight, sums);
        self.sites.count(line.site.as_deref().unwrap_or("no site"), weight, sums);
        if let Some(network) = line.network() {
            self.clients.count(&network, weight, sums);
        }
        if sums.failed > 0 {
            self.failures.count(&line.failure(), 1, sums);
        }
    }

    fn told(self, remembered: Remembered, covered_ms: u64, is_since_start: bool) -> Top {
        let Counting { all, objects, sites, clients, failures, .. } = self;
        let [objects, sites, clients, failures] =
            [objects, sites, clients, failures].map(Most::told);
        Top { remembered, covered_ms, is_since_start, all, objects, sites, clients, failures }
    }
}

impl Sums {
    fn add(&mut self, other: Sums) {
        self.requests += other.requests;
        self.bytes += other.bytes;
        self.hits += other.hits;
        self.failed += other.failed;
        self.origin_requests += other.origin_requests;
        self.origin_wait_us += other.origin_wait_us;
    }
}

/// Those there is most of: space-saving. Who is new takes the place of the least, and its weight.
struct Most {
    counted_max: usize,
    counted: Vec<Counted>,
    places: HashMap<Rc<str>, usize>,
    /// By weight, the least first, and place.
    order: BTreeSet<(u64, usize)>,
}

struct Counted {
    name: Rc<str>,
    weight: u64,
    surplus: u64,
    sums: Sums,
}

impl Most {
    fn new(counted_max: usize) -> Most {
        let (counted, places, order) = (Vec::new(), HashMap::new(), BTreeSet::new());
        Most { counted_max, counted, places, order }
    }

    fn count(&mut self, name: &str, weight: u64, sums: Sums) {
        let place = match self.places.get(name) {
            Some(place) => *place,
            None => self.place_for(name),
        };
        let counted = &mut self.counted[place];
        self.order.remove(&(counted.weight, place));
        counted.weight += weight;
        counted.sums.add(sums);
        self.order.insert((counted.weight, place));
    }

    fn place_for(&mut self, name: &str) -> usize {
        let name: Rc<str> = name.into();
        let (place, weight) = match self.order.first() {
            Some((weight, place)) if self.counted.len() == self.counted_max => (*place, *weight),
            _ => (self.counted.len(), 0),
        };
        let new = Counted { name: name.clone(), weight, surplus: weight, sums: Sums::default() };
        match self.counted.get_mut(place) {
            Some(counted) => {
                self.places.remove(&counted.name);
                *counted = new;
            }
            None => self.counted.push(new),
        }
        self.places.insert(name, place);
        place
    }

    fn told(self) -> Vec<Told> {
        let most = self.order.iter().rev().take(TOP_TOLD_MAX).map(|(_, place)| {
            let Counted { name, surplus, sums, .. } = &self.counted[*place];
            Told { name: name.to_string(), surplus: *surplus, sums: *sums }
        });
        most.collect()
    }
}

const NETWORK: ClientBits = ClientBits { v4: 24, v6: 48 };

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whatever_has_more_than_its_share_is_found_and_no_count_is_too_low() {
        let mut most = Most::new(8);
        let one = Sums { requests: 1, ..Sums::default() };
        // "hot" and "warm" among a thousand that come once.
        for number in 0..1_000 {
            most.count(&number.to_string(), 1, one);
            if number % 2 == 0 {
                most.count("hot", 1, one);
            }
            if number % 3 == 0 {
                most.count("warm", 1, one);
            }
        }
        let told = most.told();
        assert_eq!((told.len(), &*told[0].name, &*told[1].name), (8, "hot", "warm"));
        for (told, true_count) in told.iter().zip([500, 334]) {
            let most = told.sums.requests + told.surplus;
            assert!(told.sums.requests <= true_count && true_count <= most, "{told:?}");
        }
    }

    fn line(path: &str, client: &str, status: u16, bytes: u64) -> String {
        json!({
            "client": client, "site": "films", "host": "a", "path": path, "status": status,
            "bytes": bytes, "lookup": "hit", "duration_us": 1_000, "origin_wait_us": 7,
            "origin": 1, "outcome": if status == 200 { "complete" } else { "client_left" },
        })
        .to_string()
    }

    #[test]
    fn what_there_is_most_of_comes_first() {
        for (by, first) in [(By::Requests, "a/small"), (By::Bytes, "a/large")] {
            let mut counting = Counting::new(by);
            for (path, client, status, bytes) in [
                ("/small", "192.0.2.7", 200, 1),
                ("/small", "192.0.2.8", 200, 1),
                ("/large", "2001:db8:1:2::3", 502, 1_000),
            ] {
                let line = line(path, client, status, bytes);
                counting.count(&serde_json::from_str(&line).unwrap());
            }
            let top = counting.told(Remembered::default(), 60_000, false);
            assert_eq!((top.objects.len(), &*top.objects[0].name), (2, first));
            let clients: BTreeSet<_> = top.clients.iter().map(|told| &*told.name).collect();
            assert_eq!(clients, BTreeSet::from(["192.0.2.0/24", "2001:db8:1::/48"]));
            assert_eq!(top.failures[0].name, "films: 502, client_left");
            let all = Sums {
                requests: 3,
                bytes: 1_002,
                hits: 3,
                failed: 1,
                origin_requests: 3,
                origin_wait_us: 21,
            };
            assert_eq!((top.all, top.sites[0].sums), (all, all));
        }
    }

    #[tokio::test]
    async fn a_rate_is_of_the_time_since_the_start_where_that_is_shorter() {
        let looked = async |whole_ms| {
            let window = Window { asked_ms: 60_000, whole_ms };
            let top = look(VecDeque::new(), 1_000_000, window, By::Requests).await;
            (top.covered_ms, top.is_since_start)
        };
        assert_eq!(looked(Some(7_000)).await, (7_000, true));
        assert_eq!(looked(Some(61_000)).await, (60_000, false));
        assert_eq!(looked(None).await, (0, false), "what was is not known");
    }
}
