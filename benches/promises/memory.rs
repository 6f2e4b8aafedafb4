//! 2,000 slow readers and a crawl within `memory.total`: what the kernel says the process holds
//! stays within it, nobody who keeps reading is cut off, and everybody else is served.

mod readers;
mod resident;
mod traffic;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use self::readers::Readers;
use self::resident::Sampler;
use self::traffic::{Crawled, Served};
use crate::edge::{Edge, Resident};
use crate::figure::{Measure, Promise, Unit};
use crate::origin::{Behaviour, Origin};

const TOTAL_MIB: f64 = 512.0;
/// What resident memory may be above `memory.total`: the kernel rounds, and so do allocators.
const ABOVE_TOTAL: f64 = 1.05;
const CRAWL: Duration = Duration::from_secs(60);
/// Beyond one period of the edge's limit for slow readers after the last of them came.
const READ_ON: Duration = Duration::from_secs(15);
const FAST: Behaviour = Behaviour { first_byte_after: Duration::ZERO, bytes_per_second: u64::MAX };

/// An edge and its fast origin.
pub(crate) struct Memory {
    origin: Origin,
    edge: Arc<Edge>,
}

impl Memory {
    pub(crate) fn start() -> Memory {
        let origin = Origin::start(FAST);
        let edge = Edge::start(origin.address(), "[memory]\ntotal = \"512 MiB\"");
        Memory { origin, edge: Arc::new(edge) }
    }

    pub(crate) async fn round(&mut self) -> Vec<Measure> {
        let sampler = Sampler::start(self.edge.pid());
        let address = self.edge.http();
        let readers = Readers::open(address).await;
        self.say("all slow readers are there").await;
        let (stop, stopped) = watch::channel(false);
        let crawl = traffic::crawl(address, stopped.clone());
        let viewers = traffic::view(address, stopped);
        let crawled_and_served = tokio::spawn(async move { tokio::join!(crawl, viewers) });
        sleep(CRAWL).await;
        self.say("the crawl ends").await;
        stop.send_replace(true);
        let (crawled, served) = crawled_and_served.await.unwrap();
        sleep(READ_ON).await;
        self.say("the slow readers leave").await;
        let client = self.edge.metric(USED, "use=\"client\"").await;
        let mut measures = of_memory(sampler.peak(), client);
        measures.extend(readers.close().await.measures());
        measures.extend(of_others(&crawled, &served));
        measures
    }

    async fn say(&self, what: &str) {
        let count = async |name| self.edge.metric(name, "").await;
        let runs = count("tidegate_fill_runs_in_flight").await;
        let open = count("tidegate_connections_open").await;
        let client = self.edge.metric(USED, "use=\"client\"").await / f64::from(1 << 20);
        let fill = self.edge.metric(USED, "use=\"fill\"").await / f64::from(1 << 20);
        let resident = Resident::of(self.edge.pid()).unwrap_or_default().all >> 20;
        let asked = self.origin.requests();
        eprintln!(
            "{what}: {resident} MiB resident, {client:.0} MiB of slices, {fill:.0} MiB of fills, \
             {runs} runs, {open} connections, {asked} origin requests"
        );
    }
}

fn of_memory(peak: Resident, client_bytes: f64) -> Vec<Measure> {
    let mib = |name, bytes: u64| Measure::shown(name, Unit::MiB, bytes as f64 / MIB);
    vec![
        mib("peak of resident memory", peak.all).promised(Promise::AtMost(TOTAL_MIB * ABOVE_TOTAL)),
        mib("of it the ram tier's mapping", peak.shared),
        mib("of it heap and stacks", peak.anonymous),
        mib("of it the program", peak.file),
        Measure::shown("slices pinned at the end", Unit::MiB, client_bytes / MIB),
    ]
}

fn of_others(crawled: &Crawled, served: &Served) -> Vec<Measure> {
    let count = |name, count: usize| Measure::shown(name, Unit::Count, count as f64);
    let time = |name, at: usize| {
        let waited = served.waited.get(at).copied().unwrap_or(Duration::MAX);
        Measure::shown(name, Unit::Milliseconds, waited.as_secs_f64() * 1e3)
    };
    vec![
        count("objects crawled", crawled.objects),
        Measure::shown("bytes crawled", Unit::MiB, crawled.bytes as f64 / MIB),
        count("crawled objects refused or cut short", crawled.failures),
        count("other viewers' requests", served.waited.len() + served.failures),
        count("other viewers refused or cut short", served.failures)
            .promised(Promise::Exactly(0.0)),
        time("other viewers' median first byte", served.waited.len() / 2),
        time("other viewers' slowest first byte", served.waited.len().saturating_sub(1)),
    ]
}

const USED: &str = "tidegate_memory_used_bytes";
const MIB: f64 = (1 << 20) as f64;
