//! What each site was served, and what follows for its shares: who has more than his, and what of
//! ram is his own.
//!
//! Looked at ten times a second. Nothing here reads a clock.

use std::collections::VecDeque;

use crate::limits::PIECE_SIZE_BYTES;

use super::RETRY_AFTER;
use super::shares::{Left, RAM_OWNED, Resource, SHARERS_MAX, Sharer, Shares, WHOLE};

/// What was counted of the viewers of one site since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Requests that were answered.
    pub requests: u64,
    /// Bytes that were sent to answer them.
    pub bytes: u64,
}

impl Served {
    fn since(self, before: Served) -> Served {
        Served {
            requests: self.requests.saturating_sub(before.requests),
            bytes: self.bytes.saturating_sub(before.bytes),
        }
    }

    fn work(self) -> u64 {
        self.requests + self.bytes / PIECE_SIZE_BYTES
    }

    fn egress(self) -> u64 {
        self.requests * HEAD_BYTES + self.bytes
    }
}

/// The same of each of them.
pub type ServedOfEach = [Served; SHARERS_MAX];

/// At the start.
pub const NOTHING_SERVED: ServedOfEach = [Served { requests: 0, bytes: 0 }; SHARERS_MAX];

/// What follows from what was counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Millionths of ram that are each one's own.
    pub(super) ram_own: [u32; SHARERS_MAX],
    /// Of each resource a bit for each who has more than his share.
    pub(super) beyond: [u64; Resource::ALL.len()],
    /// Of each resource what each had.
    pub(super) had: [[u64; SHARERS_MAX]; Resource::ALL.len()],
}

/// Memory that is held while it is filled and sent (`memory.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InUse {
    /// What each has.
    pub bytes: [u64; SHARERS_MAX],
    /// A bit for each whose new viewers find none, because he has more than his share.
    pub beyond: u64,
}

/// Looks at what was counted.
#[derive(Debug, Default)]
pub struct Watch {
    /// What had been served at the beginning of each period of the last second, and now.
    second: VecDeque<ServedOfEach>,
    /// A bit for each of whom somebody was refused, in each of the last periods.
    refused: VecDeque<u64>,
    /// What had been served at the beginning of each of the last minutes.
    minutes: VecDeque<ServedOfEach>,
    periods: u64,
}

impl Watch {
    /// After another tenth of a second, where `ram_bytes` are what all share of ram.
    ///
    /// What is kept of a site is worth what it is asked for: nobody keeps from others what his
    /// viewers did not want for ten minutes. So a share of ram is lent by whoever is idle.
    pub fn after(
        &mut self,
        served: ServedOfEach,
        in_use: InUse,
        shares: &Shares,
        ram_bytes: u64,
    ) -> Measured {
        if self.periods.is_multiple_of(PERIODS_A_MINUTE) {
            remember(&mut self.minutes, served, MINUTES + 1);
        }
        self.periods += 1;
        remember(&mut self.second, served, PERIODS_A_SECOND + 1);
        let weights = shares.weights();
        let lately = since(&served, self.minutes.front());
        let second = since(&served, self.second.front());
        let had = Resource::ALL.map(|resource| match resource {
            Resource::Work => second.map(Served::work),
            Resource::Egress => second.map(Served::egress),
            Resource::Memory => in_use.bytes,
        });
        remember(&mut self.refused, shares.take_refused(), REFUSED_PERIODS);
        let refused = self.refused.iter().fold(0, |bits, more| bits | more);
        Measured {
            ram_own: ram_own(&lately, &weights, ram_bytes),
            beyond: Resource::ALL.map(|resource| match resource {
                Resource::Memory => in_use.beyond,
                _ => beyond(&had[resource as usize], &weights, refused),
            }),
            had,
        }
    }
}

/// Adds the latest; of more than `most` the oldest goes.
fn remember<T>(all: &mut VecDeque<T>, latest: T, most: usize) {
    all.push_back(latest);
    if all.len() > most {
        all.pop_front();
    }
}

fn since(served: &ServedOfEach, before: Option<&ServedOfEach>) -> ServedOfEach {
    let before = before.copied().unwrap_or(NOTHING_SERVED);
    std::array::from_fn(|index| served[index].since(before[index]))
}

/// A bit for each who had more than his share of what those had who wanted any.
fn beyond(had: &[u64; SHARERS_MAX], weights: &[u64; SHARERS_MAX], refused: u64) -> u64 {
    let wants = |sharer: &Sharer| had[sharer.index()] > 0 || refused & sharer.bit() != 0;
    let wanting = Sharer::all().filter(wants).fold(0, |bits, one| bits | one.bit());
    let left = Left::of(had.iter().sum(), had, weights, wanting);
    // Where all have the same, nobody has more than his share.
    if left.who == wanting { 0 } else { left.who }
}

/// Millionths of ram that are each one's own: his share of what may be, among those who were asked
/// for anything, and no more than was sent of his.
fn ram_own(
    served: &ServedOfEach,
    weights: &[u64; SHARERS_MAX],
    ram_bytes: u64,
) -> [u32; SHARERS_MAX] {
    let asked = served.iter().zip(weights).filter(|(one, _)| one.bytes > 0);
    let shared: u64 = asked.map(|(_, weight)| *weight.max(&1)).sum();
    std::array::from_fn(|index| {
        let (bytes, weight) = (served[index].bytes, weights[index].max(1));
        let used = u128::from(bytes) * u128::from(WHOLE) / u128::from(ram_bytes.max(1));
        let share = u64::from(RAM_OWNED) * weight / shared.max(1);
        used.min(share.into()) as u32
    })
}

const PERIODS_A_SECOND: usize = 10;
/// Who is refused wants some until he has come again, when he was told to, and a second more.
const REFUSED_PERIODS: usize = (RETRY_AFTER.as_secs() as usize + 1) * PERIODS_A_SECOND;
/// What the head of an answer takes, or a refusal, as a rule.
const HEAD_BYTES: u64 = 300;
const PERIODS_A_MINUTE: u64 = 600;
const MINUTES: usize = 10;

#[cfg(test)]
mod tests {
    use super::super::shares::Counts;
    use super::*;
    use crate::object::SiteId;

    const MIB: u64 = 1 << 20;
    const NONE_IN_USE: InUse = InUse { bytes: [0; SHARERS_MAX], beyond: 0 };

    impl Shares {
        /// After a second in which the viewers of each were served so much: requests, bytes.
        pub(crate) fn after_a_second(&self, served: &[(u64, u64)], ram_bytes: u64) {
            let mut watch = Watch::default();
            watch.after(NOTHING_SERVED, NONE_IN_USE, self, ram_bytes);
            let measured = watch.after(of_each(served), NONE_IN_USE, self, ram_bytes);
            self.measured(&measured, |_| Counts::Anew);
        }
    }

    fn of_each(served: &[(u64, u64)]) -> ServedOfEach {
        let mut all = NOTHING_SERVED;
        for (one, (requests, bytes)) in all.iter_mut().zip(served) {
            *one = Served { requests: *requests, bytes: *bytes };
        }
        all
    }

    /// Shares of these weights, and who has looked once when nothing was served.
    fn watched(weights: &[u32]) -> (Shares, Watch) {
        let (shares, mut watch) = (Shares::of_weights(weights), Watch::default());
        watch.after(NOTHING_SERVED, NONE_IN_USE, &shares, MIB);
        (shares, watch)
    }

    fn is_beyond(shares: &Shares, resource: Resource) -> Vec<u16> {
        (0..3).filter(|site| shares.is_beyond(resource, Sharer::of(SiteId(*site)))).collect()
    }

    #[test]
    fn who_is_refused_wants_some_though_he_is_sent_nothing() {
        let (shares, mut watch) = watched(&[1, 3]);
        let mut sent = 0;
        let mut after_a_period = || {
            sent += 100;
            let measured = watch.after(of_each(&[(0, sent)]), NONE_IN_USE, &shares, MIB);
            shares.measured(&measured, |_| Counts::Anew);
            is_beyond(&shares, Resource::Egress)
        };
        assert!(after_a_period().is_empty(), "nobody else wants any");
        shares.was_refused(Sharer::of(SiteId(1)));
        for _ in 0..REFUSED_PERIODS {
            assert_eq!(after_a_period(), [0]);
        }
        assert!(after_a_period().is_empty(), "he does not come again");
    }

    #[test]
    fn who_has_more_than_his_share_of_what_is_wanted_is_beyond_it() {
        for (weights, served, work, egress) in [
            (&[1, 1][..], &[(90, 0), (10, 0)][..], &[0][..], &[0][..]),
            (&[1, 1], &[(50, 50), (50, 50)], &[], &[]),
            // One who is alone borrows all there is.
            (&[1, 1], &[(90, 9 << 20), (0, 0)], &[], &[]),
            (&[9, 1], &[(90, 90), (10, 10)], &[], &[]),
            (&[9, 1], &[(89, 89), (11, 11)], &[1], &[1]),
            (&[1, 1, 2], &[(10, 0), (30, 0), (60, 0)], &[1, 2], &[1, 2]),
            // What others do not need is shared by those who do.
            (&[1, 1, 1, 1, 1], &[(95, 95), (9, 9), (1, 1), (1, 1), (1, 1)], &[0], &[0]),
            // A piece that is sent is as much work as a request.
            (&[1, 1], &[(10, 0), (1, 20 * PIECE_SIZE_BYTES)], &[1], &[1]),
        ] {
            let shares = Shares::of_weights(weights);
            shares.after_a_second(served, MIB);
            assert_eq!(is_beyond(&shares, Resource::Work), work, "{weights:?} {served:?}");
            assert_eq!(is_beyond(&shares, Resource::Egress), egress, "{weights:?} {served:?}");
        }
    }

    #[test]
    fn what_was_served_a_second_ago_is_forgotten() {
        let (shares, mut watch) = watched(&[1, 1]);
        let flood = of_each(&[(900, 0), (1, 0)]);
        for period in 0..12 {
            shares.measured(&watch.after(flood, NONE_IN_USE, &shares, MIB), |_| Counts::Anew);
            let expected: &[u16] = if period < 10 { &[0] } else { &[] };
            assert_eq!(is_beyond(&shares, Resource::Work), expected, "{period}");
        }
    }

    #[test]
    fn ram_is_ones_own_by_his_share_and_by_what_was_sent_of_his_for_ten_minutes() {
        let (shares, mut watch) = (Shares::of_weights(&[3, 1]), Watch::default());
        let mut ram = |served: &[(u64, u64)]| {
            let measured = watch.after(of_each(served), NONE_IN_USE, &shares, 100 * MIB);
            shares.measured(&measured, |_| Counts::Anew);
            [0, 1].map(|site| shares.ram_own(Sharer::of(SiteId(site))))
        };
        assert_eq!(ram(&[]), [0, 0]);
        assert_eq!(ram(&[(1, 500 * MIB)]), [RAM_OWNED, 0], "nobody else wants any");
        assert_eq!(ram(&[(1, 500 * MIB), (1, 9 * MIB)]), [300_000, 90_000]);
        assert_eq!(ram(&[(1, 500 * MIB), (1, 90 * MIB)]), [300_000, 100_000]);
        let idle = (0..6_600).map(|_| ram(&[(1, 500 * MIB), (1, 90 * MIB)]));
        assert_eq!(idle.last(), Some([0, 0]), "lent by who is idle");
    }
}
