//! Series told apart by names of the configuration: never more than `limits::SERIES_MAX` allows.
//!
//! Of sites the first have series of their own; the others are counted together, as `other`. Of
//! certificates those that expire first are told. Of volumes `ssd/folded.rs` decides. How many
//! series are left out is a series too.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::core::{Collector, Desc};
use prometheus::proto;

use super::counters::{OfSite, Tally};
use super::labels::{Labels, StatusClass, Tier};
use super::series::{self, Kind, Series};
use super::{Metrics, Threads};
use crate::limits::{
    CERTIFICATES_TOLD_MAX, SERIES_MAX, SERIES_OF_THE_REST_MAX, SITES_TOLD_MAX, VOLUME_SERIES_MAX,
};
use crate::object::SiteId;

/// What stands for all that have no series of their own.
pub(super) const OTHER: &str = "other";

/// Series of one site.
const SERIES_PER_SITE: usize = StatusClass::COUNT + Tier::COUNT + 2;

const _: () = assert!(
    (SITES_TOLD_MAX + 1) * SERIES_PER_SITE
        + VOLUME_SERIES_MAX
        + (CERTIFICATES_TOLD_MAX + 1)
        + SERIES_OF_THE_REST_MAX
        <= SERIES_MAX
);

/// What series are left out for: the values of one label.
#[derive(Clone, Copy)]
pub(super) enum LeftOutOf {
    Sites,
    Volumes,
    Certificates,
}

impl LeftOutOf {
    const WORDS: [&str; 3] = ["sites", "volumes", "certificates"];
}

/// How many series are left out.
#[derive(Default)]
pub(super) struct LeftOut {
    series: [AtomicU64; LeftOutOf::WORDS.len()],
}

impl LeftOut {
    pub(super) fn set(&self, of: LeftOutOf, series: usize) {
        self.series[of as usize].store(series as u64, Ordering::Relaxed);
    }

    fn family(&self) -> proto::MetricFamily {
        let words = LeftOutOf::WORDS.iter().zip(&self.series);
        let told = words.map(|(word, series)| {
            series::value(LEFT_OUT, &[("of", word)], series.load(Ordering::Relaxed))
        });
        series::family(LEFT_OUT, told.collect())
    }
}

impl Metrics {
    /// Adds the series of each site; `read` gives their names in the order of their ids, must be
    /// quick, and may not call these metrics.
    ///
    /// # Panics
    /// If they are there already.
    pub fn tell_sites(&self, read: impl Fn() -> Vec<String> + Send + Sync + 'static) {
        let left_out = Arc::clone(&self.left_out);
        let names = move || {
            let names = read();
            let more = names.len().saturating_sub(SITES_TOLD_MAX + 1);
            left_out.set(LeftOutOf::Sites, more * SERIES_PER_SITE);
            names_told(names)
        };
        names();
        let of_sites = CountedOfSites {
            names: Box::new(names),
            descriptions: [SITE_REQUESTS, SITE_BODY_BYTES, SITE_ORIGIN_BYTES, SITE_ORIGIN_ERRORS]
                .map(|series| series::description(&series::family(series, Vec::new()))),
            threads: Arc::clone(&self.threads),
        };
        self.register(Box::new(of_sites));
    }

    /// Adds when each certificate expires, in seconds since 1970; of several by one name the first
    /// to expire counts. `read` must be quick, and may not call these metrics.
    ///
    /// # Panics
    /// If they are there already.
    pub fn read_certificates_at_scrape(
        &self,
        read: impl Fn() -> Vec<(String, u64)> + Send + Sync + 'static,
    ) {
        let left_out = Arc::clone(&self.left_out);
        let metrics = move || {
            let (told, more) = soonest(read());
            left_out.set(LeftOutOf::Certificates, more);
            let one = |(name, time): &(String, u64)| {
                series::value(CERTIFICATE_EXPIRY, &[("name", name)], *time)
            };
            told.iter().map(one).collect()
        };
        self.register(Box::new(super::ReadAtScrape::new(CERTIFICATE_EXPIRY, Box::new(metrics))));
    }
}

/// The name that each site is told by, in the order of their ids.
pub fn names_told(mut names: Vec<String>) -> Vec<String> {
    if names.len() > SITES_TOLD_MAX + 1 {
        names[SITES_TOLD_MAX..].fill(OTHER.to_owned());
    }
    names
}

/// Those that expire first, and how many more there are; the first of these is told as `other`.
fn soonest(certificates: Vec<(String, u64)>) -> (Vec<(String, u64)>, usize) {
    let mut by_name = BTreeMap::new();
    for (name, time) in certificates {
        let soonest = by_name.entry(name).or_insert(time);
        *soonest = time.min(*soonest);
    }
    let mut told: Vec<_> = by_name.into_iter().collect();
    told.sort_by_key(|(_, time)| *time);
    let more = told.len().saturating_sub(CERTIFICATES_TOLD_MAX);
    if more > 0 {
        let (_, soonest) = told[CERTIFICATES_TOLD_MAX];
        told.truncate(CERTIFICATES_TOLD_MAX);
        // One that is called so and expires sooner stands for them.
        if !told.iter().any(|(name, _)| name == OTHER) {
            told.push((OTHER.to_owned(), soonest));
        }
    }
    (told, more)
}

/// What threads count of sites, for the registry.
struct CountedOfSites {
    /// A site may come while they are counted.
    names: Box<dyn Fn() -> Vec<String> + Send + Sync>,
    descriptions: [Desc; 4],
    threads: Arc<Threads>,
}

impl Collector for CountedOfSites {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        let (counted, names) = (self.threads.sum().sites, (self.names)());
        // By name: a site that is called `other` is one of the others.
        let mut sites: BTreeMap<&str, OfSite> = BTreeMap::new();
        for (id, name) in names.iter().enumerate() {
            let told = sites.entry(name).or_default();
            if let Some(site) = counted.counted(SiteId(id as u16)) {
                told.absorb(site);
            }
        }
        vec![
            by_site(SITE_REQUESTS, &sites, |site| &site.requests),
            by_site(SITE_BODY_BYTES, &sites, |site| &site.body_bytes),
            by_site(SITE_ORIGIN_BYTES, &sites, |site| &site.origin_bytes),
            by_site(SITE_ORIGIN_ERRORS, &sites, |site| &site.origin_errors),
        ]
    }
}

fn by_site<L: Labels, const N: usize>(
    of: Series,
    sites: &BTreeMap<&str, OfSite>,
    tally: fn(&OfSite) -> &Tally<L, N>,
) -> proto::MetricFamily {
    let each = sites.iter().flat_map(|(name, site)| {
        tally(site).each().map(move |(labels, count)| {
            let mut words = Vec::new();
            labels.append_to(&mut words);
            let pairs: Vec<(&str, &str)> = [("site", *name)].into_iter().chain(words).collect();
            series::value(of, &pairs, count)
        })
    });
    series::family(of, each.collect())
}

/// How many series are left out, for the registry.
pub(super) struct TellLeftOut {
    left_out: Arc<LeftOut>,
    description: Desc,
}

impl TellLeftOut {
    pub(super) fn new(left_out: Arc<LeftOut>) -> TellLeftOut {
        let description = series::description(&left_out.family());
        TellLeftOut { left_out, description }
    }
}

impl Collector for TellLeftOut {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.description]
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        vec![self.left_out.family()]
    }
}

const fn series(kind: Kind, name: &'static str, help: &'static str) -> Series {
    Series { name, help, kind, label: None }
}

const LEFT_OUT: Series = series(
    Kind::Gauge,
    "tidegate_series_left_out",
    "Series that are not told but summed up under other names, because they would be too many.",
);
const SITE_REQUESTS: Series =
    series(Kind::Counter, "tidegate_site_requests_total", "Requests answered, by site.");
const SITE_BODY_BYTES: Series = series(
    Kind::Counter,
    "tidegate_site_response_body_bytes_total",
    "Response body bytes handed to viewers' connections, by site and the tier they came from.",
);
const SITE_ORIGIN_BYTES: Series = series(
    Kind::Counter,
    "tidegate_site_origin_body_bytes_total",
    "Response body bytes received from origins, by site.",
);
const SITE_ORIGIN_ERRORS: Series =
    series(Kind::Counter, "tidegate_site_origin_errors_total", "What origins did wrong, by site.");
const CERTIFICATE_EXPIRY: Series = series(
    Kind::Gauge,
    "tidegate_certificate_expiry_timestamp_seconds",
    "When the certificate expires, as a Unix time.",
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Format;

    fn lines(metrics: &Metrics, name: &str) -> Vec<String> {
        let text = metrics.encode(Format::Prometheus);
        text.lines().filter(|line| line.starts_with(name)).map(str::to_owned).collect()
    }

    fn site(number: usize) -> String {
        format!("site-{number}")
    }

    #[test]
    fn the_first_sites_have_series_of_their_own_and_the_others_one_together() {
        for (sites, own, left_out) in [
            (1, 1, 0),
            (SITES_TOLD_MAX + 1, SITES_TOLD_MAX + 1, 0),
            (SITES_TOLD_MAX + 2, SITES_TOLD_MAX + 1, SERIES_PER_SITE),
            (500, SITES_TOLD_MAX + 1, (499 - SITES_TOLD_MAX) * SERIES_PER_SITE),
        ] {
            let metrics = Metrics::new();
            metrics.tell_sites(move || (0..sites).map(site).collect());
            let counters = metrics.for_thread();
            for id in 0..sites as u16 {
                counters.sites.of(SiteId(id)).origin_errors.count(());
            }
            let told = lines(&metrics, "tidegate_site_origin_errors_total{");
            assert_eq!(told.len(), own, "{sites} sites");
            let counted = told.iter().map(|line| line.rsplit_once(' ').unwrap().1);
            let counted: usize = counted.map(|count| count.parse::<usize>().unwrap()).sum();
            assert_eq!(counted, sites, "{told:?}");
            let told = lines(&metrics, "tidegate_series_left_out{of=\"sites\"}");
            assert!(told[0].ends_with(&format!(" {left_out}")), "{told:?}");
        }
    }

    #[test]
    fn a_site_that_is_called_other_is_one_of_the_others() {
        let metrics = Metrics::new();
        let named = |n| if n == 3 { OTHER.to_owned() } else { site(n) };
        metrics.tell_sites(move || (0..500).map(named).collect());
        let counters = metrics.for_thread();
        for id in [3, 400] {
            counters.sites.of(SiteId(id)).origin_errors.count(());
        }
        let told = lines(&metrics, "tidegate_site_origin_errors_total{site=\"other\"}");
        assert_eq!(told, ["tidegate_site_origin_errors_total{site=\"other\"} 2"]);
    }

    #[test]
    fn of_many_certificates_those_that_expire_first_are_told() {
        let certificates = |count: u64| (0..count).rev().map(|n| (format!("name-{n}"), 1_000 + n));
        let max = CERTIFICATES_TOLD_MAX as u64;
        let (told, more) = soonest(certificates(max).collect());
        assert_eq!((told.len(), more), (CERTIFICATES_TOLD_MAX, 0));
        let (told, more) = soonest(certificates(max + 10).collect());
        assert_eq!((told.len(), more), (CERTIFICATES_TOLD_MAX + 1, 10));
        assert_eq!(told[0], ("name-0".to_owned(), 1_000));
        assert_eq!(told[CERTIFICATES_TOLD_MAX], (OTHER.to_owned(), 1_000 + max));
        let named = certificates(max + 1).map(|(name, time)| match time {
            1_000 => (OTHER.to_owned(), time),
            _ => (name, time),
        });
        let (told, _) = soonest(named.collect());
        let others: Vec<_> = told.iter().filter(|(name, _)| name == OTHER).collect();
        assert_eq!(others, [&(OTHER.to_owned(), 1_000)], "one series has one value");
        let twice = vec![("a".to_owned(), 2), ("a".to_owned(), 1)];
        assert_eq!(soonest(twice).0, [("a".to_owned(), 1)], "two of one name");
    }
}
