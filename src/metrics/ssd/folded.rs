//! Where there are many volumes, what is missed least is told of all of them together.
//!
//! Which metrics these are depends on the number of volumes alone, so no series comes or goes but
//! with a volume. Counts are summed, and so are states: `other` has as many volumes offline.

use std::collections::BTreeMap;

use prometheus::proto::{Metric, MetricFamily, MetricType};

use super::{
    DROPPED, ENGINE, ERRORS, FOUND, HEADS_IN_DOUBT, INDEX_ENTRIES, INDEX_ENTRIES_MAX, LIFE,
    PATH_LOST, QUEUE_DEPTH, READ_BYTES, READ_SECONDS, READS, RECOVERY, REGIONS, SIZE, STATE, USED,
    VOLUME, WRITE_QUEUE, WRITES, WRITES_PER_DAY, WRITES_REFUSED, WRITTEN, WRITTEN_TODAY,
};
use crate::limits::VOLUME_SERIES_MAX;
use crate::metrics::bounded::OTHER;
use crate::metrics::series::Series;

/// What is told of volumes, and how many series one of them has; what is missed least stands last.
const BY_VOLUME: [(Series, usize); 24] = [
    (STATE, 4),
    (PATH_LOST, 1),
    (HEADS_IN_DOUBT, 1),
    (ERRORS, 6),
    (SIZE, 1),
    (USED, 1),
    (WRITTEN_TODAY, 1),
    (WRITES_PER_DAY, 1),
    (LIFE, 1),
    (READ_BYTES, 1),
    (WRITTEN, 6),
    (REGIONS, 4),
    (QUEUE_DEPTH, 1),
    (READ_SECONDS, 13),
    (DROPPED, 2),
    (WRITE_QUEUE, 1),
    (WRITES_REFUSED, 5),
    (INDEX_ENTRIES, 1),
    (INDEX_ENTRIES_MAX, 1),
    (READS, 6),
    (WRITES, 6),
    (RECOVERY, 1),
    (FOUND, 3),
    (ENGINE, 1),
];

/// How many of these are told volume by volume, and how many series are not.
fn told_each(volumes: usize) -> (usize, usize) {
    let all: usize = BY_VOLUME.iter().map(|(_, series)| series).sum();
    let (mut series_total, mut folded) = (all * volumes, 0);
    let mut told = BY_VOLUME.len();
    while series_total > VOLUME_SERIES_MAX && told > 0 {
        told -= 1;
        let spared = BY_VOLUME[told].1 * (volumes - 1);
        (series_total, folded) = (series_total - spared, folded + spared);
    }
    (told, folded)
}

/// How many series of so many volumes are not told.
pub(super) fn left_out(volumes: usize) -> usize {
    told_each(volumes).1
}

/// Folds what would be too much of so many volumes.
pub(super) fn fit(families: &mut [MetricFamily], volumes: usize) {
    let (told, _) = told_each(volumes);
    for (series, _) in &BY_VOLUME[told..] {
        for family in families.iter_mut().filter(|family| family.name() == series.name) {
            fold(family, join_of(*series));
        }
    }
}

/// How the figures of two volumes are one.
type Join = fn(f64, f64) -> f64;

fn join_of(series: Series) -> Join {
    if series.name == LIFE.name {
        // The one that ends first.
        f64::min
    } else if [RECOVERY.name, ENGINE.name].contains(&series.name) {
        // The one that took longest; and of what only informs the number is always one.
        f64::max
    } else {
        |one, other| one + other
    }
}

fn fold(family: &mut MetricFamily, join: Join) {
    let kind = family.get_field_type();
    let mut folded: BTreeMap<Vec<(String, String)>, Metric> = BTreeMap::new();
    for mut metric in family.take_metric() {
        for label in metric.mut_label().iter_mut().filter(|label| label.name() == VOLUME) {
            label.set_value(OTHER.to_owned());
        }
        let labels = metric.get_label().iter();
        let labels = labels.map(|l| (l.name().to_owned(), l.value().to_owned())).collect();
        match folded.entry(labels) {
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert(metric);
            }
            std::collections::btree_map::Entry::Occupied(mut sum) => {
                add(sum.get_mut(), &metric, kind, join);
            }
        }
    }
    family.set_metric(folded.into_values().collect());
}

fn add(sum: &mut Metric, more: &Metric, kind: MetricType, join: Join) {
    match kind {
        MetricType::COUNTER => {
            let mut counter = sum.get_counter().clone();
            counter.set_value(join(counter.get_value(), more.get_counter().get_value()));
            sum.set_counter(counter);
        }
        MetricType::HISTOGRAM => {
            let (mut histogram, more) = (sum.get_histogram().clone(), more.get_histogram());
            let mut buckets = histogram.get_bucket().to_vec();
            for (bucket, more) in buckets.iter_mut().zip(more.get_bucket()) {
                bucket.set_cumulative_count(bucket.cumulative_count() + more.cumulative_count());
            }
            // A volume that is not there has no buckets.
            let buckets = if buckets.is_empty() { more.get_bucket().to_vec() } else { buckets };
            histogram.set_bucket(buckets);
            histogram.set_sample_count(histogram.get_sample_count() + more.get_sample_count());
            histogram.set_sample_sum(histogram.get_sample_sum() + more.get_sample_sum());
            sum.set_histogram(histogram);
        }
        _ => {
            let mut gauge = sum.get_gauge().clone();
            gauge.set_value(join(gauge.get_value(), more.get_gauge().get_value()));
            sum.set_gauge(gauge);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::VOLUMES_MAX;
    use crate::metrics::ssd::families;
    use crate::metrics::ssd::tests::{sample, volume};

    #[test]
    fn what_is_told_of_volumes_stays_within_its_bound_and_their_state_is_told_of_each() {
        for volumes in 1..=VOLUMES_MAX {
            let (told, folded) = told_each(volumes);
            let all: usize = BY_VOLUME.iter().map(|(_, series)| series).sum();
            assert!(all * volumes - folded <= VOLUME_SERIES_MAX, "{volumes} volumes");
            assert!(told >= 8, "{volumes} volumes, {told} metrics");
        }
        assert_eq!(left_out(16), 0, "of few volumes everything is told");
    }

    #[test]
    fn what_is_reckoned_of_a_volume_is_what_it_has() {
        let families = families(&sample(vec![volume("a")]));
        for (series, reckoned) in BY_VOLUME.iter().filter(|(one, _)| one.name != READ_SECONDS.name)
        {
            let family = families.iter().find(|family| family.name() == series.name);
            let has = family.map_or(0, |family| family.get_metric().len());
            assert_eq!(has, *reckoned, "{}", series.name);
        }
        let of_volumes = |family: &&MetricFamily| {
            family.get_metric()[0].get_label().iter().any(|label| label.name() == VOLUME)
        };
        assert_eq!(families.iter().filter(of_volumes).count(), BY_VOLUME.len());
    }

    #[test]
    fn what_is_told_of_all_volumes_together_is_what_they_have_together() {
        let (mut short_lived, mut silent) = (volume("b"), volume("c"));
        short_lived.life_days = Some(1.0);
        silent.read_latency = Default::default();
        let mut families = families(&sample(vec![silent, volume("a"), short_lived]));
        for family in &mut families {
            let of = BY_VOLUME.iter().find(|(series, _)| series.name == family.name());
            fold(family, of.map_or(f64::max, |(series, _)| join_of(*series)));
        }
        let told = |name: &str, word: &str| -> Vec<Metric> {
            let family = families.iter().find(|family| family.name() == name).unwrap();
            let has = |metric: &&Metric| metric.get_label().iter().any(|l| l.value() == word);
            family.get_metric().iter().filter(has).cloned().collect()
        };
        assert_eq!(told(STATE.name, "read-only")[0].get_gauge().get_value(), 3.0);
        assert_eq!(told(ERRORS.name, "read")[0].get_counter().get_value(), 6.0);
        assert_eq!(told(ENGINE.name, OTHER)[0].get_gauge().get_value(), 1.0, "it is no number");
        assert_eq!(told(LIFE.name, OTHER)[0].get_gauge().get_value(), 86_400.0);
        let reads = told(READ_SECONDS.name, OTHER);
        let reads = reads[0].get_histogram();
        assert_eq!((reads.get_sample_count(), reads.get_sample_sum()), (12, 0.018));
        let below: Vec<_> = reads.get_bucket().iter().map(|b| b.cumulative_count()).collect();
        assert_eq!(below, [4, 10]);
        assert_eq!(told(ERRORS.name, OTHER).len(), 6, "of each kind one");
    }
}
