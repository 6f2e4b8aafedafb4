//! What the appliance counts, and its Prometheus text.
//!
//! Threads count in [`Counters`] of their own, which are summed when someone asks; what another
//! part already knows (memory in use, runs in flight) is read at scrape by a closure. Labels are
//! closed sets: the number of series is known at the start and does not grow with traffic.

mod bounded;
mod counters;
pub mod fleet;
mod format;
pub mod labels;
pub mod log;
pub mod overload;
pub mod series;
pub mod ssd;
pub mod steering;
mod tokens;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::core::{Collector, Desc};
use prometheus::{Registry, TextEncoder, proto};

pub use self::bounded::names_told;
use self::bounded::{LeftOut, TellLeftOut};
pub use self::counters::{
    Counters, Durations, Levels, OfSite, Players, RequestLabels, Sites, Tally,
};
pub use self::format::Format;
pub use self::series::{Kind, Series};
use crate::limits;
use crate::object::SiteId;

/// Threads with counters of their own: workers, fill threads, and a few beside them.
const COUNTERS_MAX: usize = limits::WORKERS_MAX + limits::FILL_THREADS_MAX + 8;

/// The counts of one appliance; several may live in one process.
pub struct Metrics {
    registry: Registry,
    threads: Arc<Threads>,
    left_out: Arc<LeftOut>,
}

impl Metrics {
    /// Metrics with everything at zero, and the figures of the process itself.
    pub fn new() -> Arc<Metrics> {
        let (registry, threads, left_out) = (Registry::new(), Arc::default(), Arc::default());
        let metrics = Metrics { registry, threads, left_out };
        metrics.register(Box::new(TellLeftOut::new(Arc::clone(&metrics.left_out))));
        let counted = Counted::new(Arc::clone(&metrics.threads));
        metrics.register(Box::new(counted));
        #[cfg(target_os = "linux")]
        metrics.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()));
        Arc::new(metrics)
    }

    /// Counters for one thread; they stay part of the sum after the thread has ended.
    pub fn for_thread(&self) -> Arc<Counters> {
        self.threads.add()
    }

    /// The sum of what all threads have counted so far, not one instant's: counting goes on.
    pub fn totals(&self) -> Counters {
        self.threads.sum()
    }

    /// Shows what each thread counts of each site.
    pub fn each_site(&self, mut see: impl FnMut(SiteId, &OfSite)) {
        for counters in self.threads.counters.lock().unwrap_or_else(PoisonError::into_inner).iter()
        {
            counters.sites.each().for_each(|(site, counted)| see(site, counted));
        }
    }

    /// Adds a metric of one series whose value is read at each scrape.
    ///
    /// `read` must be quick and may not call these metrics.
    ///
    /// # Panics
    /// If a metric of that name is there already.
    pub fn read_at_scrape(&self, series: Series, read: impl Fn() -> u64 + Send + Sync + 'static) {
        assert!(series.label.is_none(), "{}: a labelled series is read as a list", series.name);
        let metrics = move || vec![series::value(series, &[], read())];
        self.register(Box::new(ReadAtScrape::new(series, Box::new(metrics))));
    }

    /// Adds a metric with one series for each label value that `read` names at each scrape.
    ///
    /// `read` must be quick, name each value once and always the same ones, and may not call these
    /// metrics.
    ///
    /// # Panics
    /// If a metric of that name is there already.
    pub fn read_each_at_scrape(
        &self,
        series: Series,
        read: impl Fn() -> Vec<(&'static str, u64)> + Send + Sync + 'static,
    ) {
        let label = series.label.expect("a series read as a list names its label");
        let metrics = move || {
            let each = read().into_iter();
            each.map(|(word, value)| series::value(series, &[(label, word)], value)).collect()
        };
        self.register(Box::new(ReadAtScrape::new(series, Box::new(metrics))));
    }

    /// The same of shares, in thousandths.
    ///
    /// # Panics
    /// If a metric of that name is there already.
    pub fn read_shares_at_scrape(
        &self,
        series: Series,
        read: impl Fn() -> Vec<(&'static str, u32)> + Send + Sync + 'static,
    ) {
        let label = series.label.expect("a series read as a list names its label");
        let metrics = move || {
            let each = read().into_iter();
            each.map(|(word, share)| series::share(series, &[(label, word)], share)).collect()
        };
        self.register(Box::new(ReadAtScrape::new(series, Box::new(metrics))));
    }

    /// Every series, sorted by name and labels.
    pub fn encode(&self, format: Format) -> String {
        let families = self.registry.gather();
        match format {
            Format::OpenMetrics => format::openmetrics(&families),
            Format::Prometheus => TextEncoder::new()
                .encode_to_string(&families)
                .expect("every metric has a name and at least one series"),
        }
    }

    fn register(&self, collector: Box<dyn Collector>) {
        self.registry
            .register(collector)
            .expect("each metric is registered once, with valid names");
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// The counters of all threads.
#[derive(Default)]
struct Threads {
    counters: Mutex<Vec<Arc<Counters>>>,
}

impl Threads {
    fn add(&self) -> Arc<Counters> {
        let mut counters = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        if counters.len() == COUNTERS_MAX {
            // Shared counters count as well, only slower.
            return Arc::clone(&counters[COUNTERS_MAX - 1]);
        }
        let new = Arc::new(Counters::default());
        counters.push(Arc::clone(&new));
        new
    }

    fn sum(&self) -> Counters {
        let sum = Counters::default();
        for counters in self.counters.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            sum.absorb(counters);
        }
        sum
    }
}

/// What threads count, for the registry.
struct Counted {
    threads: Arc<Threads>,
    descriptions: Vec<Desc>,
}

impl Counted {
    fn new(threads: Arc<Threads>) -> Counted {
        let families = series::families(&Counters::default());
        Counted { threads, descriptions: families.iter().map(series::description).collect() }
    }
}

impl Collector for Counted {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        series::families(&self.threads.sum())
    }
}

type ReadMetrics = Box<dyn Fn() -> Vec<proto::Metric> + Send + Sync>;

/// What somebody else knows, for the registry.
struct ReadAtScrape {
    series: Series,
    description: Desc,
    read: ReadMetrics,
}

impl ReadAtScrape {
    fn new(series: Series, read: ReadMetrics) -> ReadAtScrape {
        let description = series::description(&series::family(series, Vec::new()));
        ReadAtScrape { series, description, read }
    }
}

impl Collector for ReadAtScrape {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.description]
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        vec![series::family(self.series, (self.read)())]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use super::labels::*;
    use super::*;
    use crate::object::SiteId;

    /// A dashboard's price: raise it knowingly.
    const SERIES_MAX: usize = 350;

    fn complete() -> Arc<Metrics> {
        let metrics = Metrics::new();
        let read = series::READ_AT_SCRAPE.iter().chain(steering::READ_AT_SCRAPE);
        for series in read.chain(fleet::ALL).copied() {
            if series.label.is_some() {
                metrics.read_each_at_scrape(series, || vec![("ram", 1 << 30), ("fill", 0)]);
            } else {
                metrics.read_at_scrape(series, || 7);
            }
        }
        metrics.tell_sites(|| vec!["film".to_owned()]);
        metrics.read_certificates_at_scrape(|| vec![("media.test".to_owned(), 1_795_355_101)]);
        metrics
    }

    /// The text without the process's own figures, which no script decides.
    fn own_text(metrics: &Metrics) -> String {
        let text = metrics.encode(Format::Prometheus);
        let own = text.lines().filter(|line| line.contains("tidegate_"));
        let text: String = own.map(|line| format!("{line}\n")).collect();
        text.replace(env!("CARGO_PKG_VERSION"), "VERSION")
    }

    fn samples(text: &str) -> Vec<&str> {
        text.lines().filter(|line| !line.starts_with('#')).collect()
    }

    fn of<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
        samples(text).into_iter().filter(|line| line.starts_with(name)).collect()
    }

    #[test]
    fn a_scripted_set_of_counts_gives_exactly_this_text() {
        let metrics = complete();
        let counters = metrics.for_thread();
        let request = |protocol, scheme, method, status| {
            counters.requests.count(((protocol, scheme), (method, status)));
        };
        request(Protocol::Http1, Scheme::Plain, Method::Get, StatusClass::Success);
        request(Protocol::Http1, Scheme::Plain, Method::Get, StatusClass::Success);
        request(Protocol::Http2, Scheme::Tls, Method::Head, StatusClass::ClientError);
        counters.sites.none().body_bytes.add(Tier::Fill, 65_536);
        counters.lookups.count(Lookup::Hit);
        counters.lookups.count(Lookup::Miss);
        counters.steered.count((Cause::Viewer, Cached::Hit));
        counters.steered.count((Cause::Health, Cached::Miss));
        counters.bodies.count(BodyEnd::ClientLeft);
        counters.runs_started.count(());
        counters.runs_finished.count(RunEnd::Parked);
        counters.origin_requests.count(());
        counters.origin_bytes.add((), 65_536);
        counters.origin_errors.count(OriginError::BadRange);
        let site = counters.sites.of(SiteId(0));
        site.requests.count(StatusClass::Success);
        site.body_bytes.add(Tier::Ram, 5_000_000_000);
        site.origin_bytes.add((), 65_536);
        site.origin_errors.count(());
        counters.players.requests.count(ObjectType::Video);
        counters.players.observe_buffer_ms(700);
        counters.players.observe_throughput_kbps(20_000);
        counters.players.prefetches.count(Prefetch::Busy);
        counters.observe_first_byte(Wait::Hit, Duration::from_micros(250));
        counters.observe_first_byte(Wait::Miss, Duration::from_millis(20));
        assert_eq!(own_text(&metrics), include_str!("metrics/expected.txt"));
    }

    #[test]
    fn names_and_help_texts_keep_to_the_house_rules() {
        let families = complete().registry.gather();
        for family in families.iter().filter(|family| !family.name().starts_with("process_")) {
            let name = family.name();
            let rest = name.strip_prefix("tidegate_").expect(name);
            assert!(rest.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            let counter = family.get_field_type() == proto::MetricType::COUNTER;
            assert_eq!(name.ends_with("_total"), counter, "{name}");
            assert!(family.help().len() > 10 && family.help().ends_with('.'), "{name}");
        }
    }

    #[test]
    fn the_number_of_series_is_bounded_and_does_not_grow_with_traffic() {
        let metrics = complete();
        let before = samples(&metrics.encode(Format::Prometheus)).len();
        assert!(before <= SERIES_MAX, "{before} series");
        for _ in 0..2 * COUNTERS_MAX {
            let counters = metrics.for_thread();
            for (labels, _) in Counters::default().requests.each() {
                counters.requests.count(labels);
            }
        }
        let text = metrics.encode(Format::Prometheus);
        let names: HashSet<_> =
            samples(&text).iter().map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect();
        assert_eq!((samples(&text).len(), names.len()), (before, before));
    }

    #[test]
    fn the_counts_of_all_threads_are_summed_also_past_the_last_own_counters() {
        let metrics = Metrics::new();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..COUNTERS_MAX {
                        metrics.for_thread().lookups.count(Lookup::Hit);
                    }
                });
            }
        });
        assert_eq!(metrics.totals().lookups.of(Lookup::Hit), 8 * COUNTERS_MAX as u64);
        assert_eq!(
            of(&metrics.encode(Format::Prometheus), "tidegate_lookups_total{result=\"hit\"}"),
            [format!("tidegate_lookups_total{{result=\"hit\"}} {}", 8 * COUNTERS_MAX)]
        );
    }

    #[test]
    fn the_process_tells_its_own_memory() {
        let text = Metrics::new().encode(Format::Prometheus);
        assert_eq!(of(&text, "process_resident_memory_bytes").len(), 1);
    }

    #[test]
    #[should_panic(expected = "each metric is registered once")]
    fn a_name_is_taken_once() {
        let metrics = Metrics::new();
        metrics.read_at_scrape(series::RAM_BYTES, || 0);
        metrics.read_at_scrape(series::RAM_BYTES, || 0);
    }
}
