//! What is counted of sites, for who keeps their usage.

use std::sync::Arc;

use crate::config::Config;
use crate::limits::SITE_COUNTS_BYTES;
use crate::metrics::{Metrics, OfSite};
use crate::moment::Moment;
use crate::site::CurrentSites;
use crate::usage::keeper::Usage;
use crate::usage::{Counts, Folder};

/// The usage of an appliance that keeps it.
pub(super) fn of(
    config: &Config,
    metrics: &Arc<Metrics>,
    sites: &Arc<CurrentSites>,
) -> Option<Arc<Usage>> {
    if config.usage_months == 0 {
        return None;
    }
    let (metrics, sites) = (metrics.clone(), sites.clone());
    let read = move || {
        let totals = metrics.totals();
        let sites = sites.load();
        let counts = |site| totals.sites.counted(site).map(counts).unwrap_or_default();
        sites.known().map(|site| (site.name.clone(), counts(site.id))).collect()
    };
    let folder = Folder::at(config.ssd.usage());
    Some(Arc::new(Usage::new(folder, config.usage_months, Box::new(read), Moment::now())))
}

/// What it takes to count sites.
pub(super) fn counts_bytes(config: &Config) -> u64 {
    // Threads that serve, what those that fill count by, and the sum of all.
    let counting = config.threads.workers as u64 + 2;
    config.sites.iter().len() as u64 * SITE_COUNTS_BYTES * counting
}

fn counts(counted: &OfSite) -> Counts {
    Counts {
        served_bytes: counted.body_bytes.sum(),
        origin_bytes: counted.origin_bytes.sum(),
        requests: counted.requests.sum(),
    }
}
