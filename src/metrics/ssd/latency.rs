//! How long transfers of a device took, by bucket.

use std::time::Duration;

/// A histogram of durations.
#[derive(Clone, Debug, Default)]
pub struct Latency {
    /// Upper bounds, growing.
    pub bounds: &'static [Duration],
    /// How many fell below each bound and above the one before; the last one below none.
    pub counts: Vec<u64>,
    /// All of them together.
    pub sum: Duration,
}

impl Latency {
    /// An estimate of what `share` (0 to 1) of all did not pass: the upper bound of its bucket.
    /// `None` when nothing was counted.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let all: u64 = self.counts.iter().sum();
        let rank = ((all as f64 * share).ceil() as u64).max(1);
        let mut below = 0;
        let bucket = self.counts.iter().position(|count| {
            below += count;
            below >= rank
        })?;
        self.bounds.get(bucket).or(self.bounds.last()).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: &[Duration] = &[Duration::from_micros(250), Duration::from_millis(1)];

    #[test]
    fn a_quantile_is_the_bound_of_its_bucket() {
        let latency =
            Latency { bounds: BOUNDS, counts: vec![2, 3, 1], sum: Duration::from_millis(9) };
        for (share, expected) in [(0.0, 250), (0.33, 250), (0.5, 1_000), (0.99, 1_000)] {
            assert_eq!(latency.quantile(share), Some(Duration::from_micros(expected)), "{share}");
        }
        assert_eq!(Latency::default().quantile(0.5), None);
        let empty = Latency { bounds: BOUNDS, counts: vec![0; 3], sum: Duration::ZERO };
        assert_eq!(empty.quantile(0.5), None);
    }
}
