//! What each site was served, and what follows for its shares: who has more than his, how many of
//! whose viewers are refused, and what of ram is his own.
//!
//! Looked at ten times a second. Nothing here reads a clock.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::limits::PIECE_SIZE_BYTES;

use super::pressure::{ALL_NEW, Bearing, PressureOfEach, UP, step_up};
use super::shares::{Counts, Left, RAM_OWNED, Resource, SHARERS_MAX, Sharer, Shares, WHOLE};
use super::{Gate, RETRY_AFTER};

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
pub(super) struct Measured {
    /// Millionths of ram that are each one's own.
    pub(super) ram_own: [u32; SHARERS_MAX],
    /// Of each resource a bit for each who has more than his share.
    pub(super) beyond: [u64; Resource::ALL.len()],
    /// Of each resource what each had.
    pub(super) had: [[u64; SHARERS_MAX]; Resource::ALL.len()],
    /// A bit for each who had less than half his share of the work for some seconds.
    pub(super) had_little: u64,
    /// Who bears it that more is sent than may be, if it is.
    sent: Bearing,
}

/// Memory that is held while it is filled and sent (`memory.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InUse {
    /// What each has.
    pub bytes: [u64; SHARERS_MAX],
    /// A bit for each whose new viewers find none, because he has more than his share.
    pub beyond: u64,
}

/// What is seen at the end of a tenth of a second.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// What was counted of each site's viewers.
    pub served: ServedOfEach,
    /// Bytes that all were sent in the last second.
    pub sent_bytes: u64,
    /// How many may be; none: as many as there are.
    pub sent_bytes_max: Option<u64>,
    /// Whether it is near that.
    pub is_near: bool,
    /// Memory that is held.
    pub in_use: InUse,
    /// Whether more is waited for.
    pub is_short: bool,
    /// What all share of ram.
    pub ram_bytes: u64,
}

/// Looks at what was counted.
#[derive(Debug, Default)]
pub struct Watch {
    egress: PressureOfEach,
    memory: PressureOfEach,
    /// What had been served at the beginning of each period of the last second, and now.
    second: VecDeque<ServedOfEach>,
    /// A bit for each of whom somebody was refused, in each of the last periods.
    refused: VecDeque<u64>,
    /// A bit for each who had less than half his share of the work, likewise.
    little: VecDeque<u64>,
    /// What had been served at the beginning of each of the last minutes.
    minutes: VecDeque<ServedOfEach>,
    periods: u64,
}

impl Watch {
    /// Says what follows to all who ask at the gates.
    ///
    /// Where more is sent than may be, or memory is waited for, those are refused more and more who
    /// have more than their share of it, who has most first, and all others less and less: who
    /// never had more is never refused for it, whatever others do or have done.
    pub fn look(&mut self, seen: &Seen, gates: &[Arc<Gate>]) {
        let all = gates[0].shared();
        let shares = all.shares();
        let measured = self.after(seen, shares);
        let workers = gates.iter().map(|gate| (gate.is_late(), gate.lag_pressure()));
        shares.measured(&measured, Counts::of_all(workers, shares.pressed_max(Resource::Work)));
        let most = |resource| shares.pressed_max(resource).max(ALL_NEW);
        all.egress_is(&self.egress.after(measured.sent, most(Resource::Egress)), seen.is_near);
        let beyond = seen.in_use.beyond;
        let held = match (seen.is_short, beyond) {
            (false, _) => Bearing::default(),
            // Where nobody has more than his share of memory, whoever comes bears it.
            (true, 0) => Bearing { first: u64::MAX, up: UP, ..Bearing::default() },
            (true, first) => Bearing { first, beyond, up: UP, ..Bearing::default() },
        };
        all.memory_is(&self.memory.after(held, most(Resource::Memory)));
    }

    /// What follows after another tenth of a second.
    ///
    /// What is kept of a site is worth what it is asked for: nobody keeps from others what his
    /// viewers did not want for ten minutes. So a share of ram is lent by whoever is idle.
    pub(super) fn after(&mut self, seen: &Seen, shares: &Shares) -> Measured {
        let Seen { served, in_use, .. } = *seen;
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
        let [work, egress, _] = &had;
        let did = Most::of(work.iter().sum(), work, &weights, refused);
        let sent = Most::of(egress.iter().sum(), egress, &weights, refused);
        let bears = |whole| {
            let further = Most::of(whole, egress, &weights, refused).who;
            let first = greatest(further, egress, &weights);
            let up = step_up(seen.sent_bytes, seen.sent_bytes_max.unwrap_or_default());
            Bearing { first, further, beyond: sent.beyond(), up }
        };
        Measured {
            ram_own: ram_own(&lately, &weights, seen.ram_bytes),
            beyond: Resource::ALL.map(|resource| match resource {
                Resource::Work => did.beyond(),
                Resource::Egress => sent.beyond(),
                Resource::Memory => in_use.beyond,
            }),
            had_little: self.had_little(work, shares),
            sent: seen.whole_sent(egress.iter().sum()).map(bears).unwrap_or_default(),
            had,
        }
    }

    fn had_little(&mut self, had: &[u64; SHARERS_MAX], shares: &Shares) -> u64 {
        let is_little = |one: &Sharer| shares.is_within_part(*one, had, 2);
        remember(&mut self.little, Sharer::bits(is_little), LITTLE_PERIODS);
        match self.little.len() < LITTLE_PERIODS {
            true => 0,
            false => self.little.iter().fold(u64::MAX, |bits, these| bits & these),
        }
    }
}

impl Seen {
    /// How much there is to share where too much was sent, of which `sent` is counted of sites:
    /// what may be, in the same measure, which leaves out what is around their bodies.
    fn whole_sent(&self, sent: u64) -> Option<u64> {
        let most = self.sent_bytes_max.filter(|most| self.sent_bytes > *most)?;
        Some((u128::from(sent) * u128::from(most) / u128::from(self.sent_bytes)) as u64)
    }
}

fn remember<T>(all: &mut VecDeque<T>, last: T, most: usize) {
    all.push_back(last);
    if all.len() > most {
        all.pop_front();
    }
}

fn since(served: &ServedOfEach, before: Option<&ServedOfEach>) -> ServedOfEach {
    let before = before.copied().unwrap_or(NOTHING_SERVED);
    std::array::from_fn(|index| served[index].since(before[index]))
}

/// Who had at least his share of a whole, of those who wanted any: a bit for each.
struct Most {
    who: u64,
    wanting: u64,
}

impl Most {
    fn of(
        whole: u64,
        had: &[u64; SHARERS_MAX],
        weights: &[u64; SHARERS_MAX],
        refused: u64,
    ) -> Most {
        let wants = |sharer: &Sharer| had[sharer.index()] > 0 || refused & sharer.bit() != 0;
        let wanting = Sharer::bits(wants);
        Most { who: Left::of(whole, had, weights, wanting).who, wanting }
    }

    /// Where all have the same, nobody has more than his share.
    fn beyond(&self) -> u64 {
        if self.who == self.wanting { 0 } else { self.who }
    }
}

/// Who of these had at least half as much for his share as who had most: a bit for each.
///
/// No two ever have the same: one alone would be pressed at a time, and each in his turn no longer.
fn greatest(who: u64, had: &[u64; SHARERS_MAX], weights: &[u64; SHARERS_MAX]) -> u64 {
    let of = |one: Sharer| [had[one.index()], weights[one.index()].max(1)].map(u128::from);
    let all = Sharer::all().filter(|one| who & one.bit() != 0).map(of);
    let most = all.max_by(|[one, his], [other, others]| (one * others).cmp(&(other * his)));
    let [most, whose] = most.unwrap_or_default();
    let is_great = |[had, his]: [u128; 2]| 2 * had * whose >= most * his;
    Sharer::bits(|one| who & one.bit() != 0 && is_great(of(*one)))
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
pub(super) const REFUSED_PERIODS: usize = (RETRY_AFTER.as_secs() as usize + 1) * PERIODS_A_SECOND;
/// Longer than it takes pressure to fall.
pub(super) const LITTLE_PERIODS: usize = 5 * PERIODS_A_SECOND;
/// What the head of an answer takes, or a refusal, as a rule.
const HEAD_BYTES: u64 = 300;
const PERIODS_A_MINUTE: u64 = 600;
const MINUTES: usize = 10;

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use crate::object::SiteId;

    use super::super::pressure::{ALL_NEW_AND_MISSES, Egress, PERIOD, Pressures};
    use super::super::{Arrived, Connected, Overload, Reason, Settings};
    use super::*;

    /// What a viewer is sent in a period.
    const BYTES: u64 = 30_000;
    /// So many viewers at a time can be sent that.
    const VIEWERS_MAX: u64 = 200;
    const SENT_BYTES_MAX: u64 = VIEWERS_MAX * BYTES * PERIODS_A_SECOND as u64;

    /// A box with one worker and some sites, to which viewers come and stay for a while.
    struct Played<const N: usize> {
        gates: Vec<Arc<Gate>>,
        watch: Watch,
        egress: Egress,
        lag: Pressures,
        seen: Seen,
        sent_bytes: u64,
        /// Until when each is there.
        viewers: [VecDeque<(u32, Connected)>; N],
        stay_periods: u32,
        /// Above so many answers in a period the worker is late.
        answers_max: u64,
        period: u32,
    }

    /// What became of who asked, of each site.
    #[derive(Clone, Copy, Debug)]
    struct Asked<const N: usize> {
        new_refused: [u64; N],
        again_refused: [u64; N],
        served: [u64; N],
    }

    impl<const N: usize> Asked<N> {
        fn nobody() -> Asked<N> {
            Asked { new_refused: [0; N], again_refused: [0; N], served: [0; N] }
        }

        /// Viewers that were served at a time, in so many periods.
        fn served_at_a_time(&self, periods: u64) -> [u64; N] {
            self.served.map(|served| served / periods)
        }

        fn refused(&self) -> [u64; N] {
            std::array::from_fn(|site| self.new_refused[site] + self.again_refused[site])
        }
    }

    impl<const N: usize> Played<N> {
        fn new(weights: [u32; N], stay_periods: u32) -> Played<N> {
            let (shares, now) = (Arc::<Shares>::default(), Instant::now());
            shares.set((0..).map(SiteId).zip(weights));
            let in_use = InUse { bytes: [0; SHARERS_MAX], beyond: 0 };
            Played {
                gates: vec![Gate::new(Overload::new(Settings::default(), shares, now)).into()],
                watch: Watch::default(),
                egress: Egress::default(),
                lag: Pressures::default(),
                seen: Seen {
                    served: NOTHING_SERVED,
                    sent_bytes: 0,
                    sent_bytes_max: None,
                    is_near: false,
                    in_use,
                    is_short: false,
                    ram_bytes: 1,
                },
                sent_bytes: 0,
                viewers: [const { VecDeque::new() }; N],
                stay_periods,
                answers_max: u64::MAX,
                period: 0,
            }
        }

        /// Where so much may be sent as `VIEWERS_MAX` are.
        fn of_egress(weights: [u32; N], stay_periods: u32) -> Played<N> {
            let mut played = Played::new(weights, stay_periods);
            played.seen.sent_bytes_max = Some(SENT_BYTES_MAX);
            played
        }

        /// So many new viewers come to each site in each of some periods.
        fn play(&mut self, periods: u32, new: [u32; N]) -> Asked<N> {
            let mut asked = Asked::nobody();
            (0..periods).for_each(|_| self.play_one(new, &mut asked));
            asked
        }

        fn play_one(&mut self, new: [u32; N], asked: &mut Asked<N>) {
            self.period += 1;
            let (gate, served_before) = (&self.gates[0], asked.served);
            for (site, count) in new.into_iter().enumerate() {
                let sharer = Sharer::of(SiteId(site as u16));
                let viewers = &mut self.viewers[site];
                while viewers.front().is_some_and(|(until, _)| *until <= self.period) {
                    viewers.pop_front();
                }
                let served = &mut self.seen.served[site];
                for _ in 0..count {
                    match gate.admit_viewer(Arrived::Plain, sharer) {
                        Ok(let_in) => {
                            viewers.push_back((self.period + self.stay_periods, let_in));
                        }
                        Err(_) => {
                            asked.new_refused[site] += 1;
                            served.requests += 1;
                        }
                    }
                }
                for _ in 0..viewers.len() {
                    served.requests += 1;
                    match gate.admit_again(sharer) {
                        Ok(()) => {
                            asked.served[site] += 1;
                            served.bytes += BYTES;
                        }
                        Err(_) => asked.again_refused[site] += 1,
                    }
                }
            }
            let answers = asked.served.iter().sum::<u64>() - served_before.iter().sum::<u64>();
            let is_late = answers > self.answers_max;
            let beyond_max = gate.shared().shares().pressed_max(Resource::Work);
            gate.lag_is(self.lag.after(is_late, beyond_max, ALL_NEW_AND_MISSES), is_late);
            // Around bodies more is sent than is counted of them.
            self.sent_bytes += answers * (BYTES + BYTES / 50);
            self.seen.sent_bytes = self.egress.after(self.sent_bytes, PERIOD * self.period);
            self.watch.look(&self.seen, &self.gates);
        }
    }

    #[test]
    fn who_is_sent_most_for_his_share_bears_it_first_and_who_has_more_bears_more() {
        let same = &[1, 1, 1];
        for (weights, sent, max, first, further) in [
            (same, [600, 900, 0], 1_500, 0b000, 0b000),
            (same, [600, 900, 0], 1_499, 0b010, 0b010),
            (same, [600, 900, 0], 1_000, 0b011, 0b011),
            (same, [449, 900, 0], 500, 0b010, 0b011),
            (same, [600, 600, 0], 1_000, 0b011, 0b011),
            (same, [900, 0, 0], 899, 0b001, 0b001),
            (same, [200, 900, 450], 1_000, 0b110, 0b110),
            (same, [200, 900, 449], 1_000, 0b010, 0b110),
            (same, [200, 900, 450], 1_200, 0b010, 0b010),
            (&[3, 1, 1], [600, 900, 0], 1_000, 0b010, 0b010),
            (&[3, 1, 1], [800, 200, 0], 999, 0b001, 0b001),
            (&[3, 1, 1], [900, 600, 0], 800, 0b011, 0b011),
            (&[3, 1, 1], [900, 601, 0], 800, 0b010, 0b011),
        ] {
            let shares = Shares::default();
            shares.set((0..).map(SiteId).zip(*weights));
            let mut seen = Played::new([1], 1).seen;
            let mut watch = Watch::default();
            watch.after(&seen, &shares);
            for (served, bytes) in seen.served.iter_mut().zip(sent) {
                served.bytes = bytes;
            }
            // Twice what is counted is sent, and so may be.
            seen.sent_bytes = 2 * sent.iter().sum::<u64>();
            seen.sent_bytes_max = Some(2 * max);
            let bearing = watch.after(&seen, &shares).sent;
            let told = (bearing.first, bearing.further);
            assert_eq!(told, (first, further), "{weights:?}: {sent:?} of {max}");
        }
    }

    /// How much is sent in the mean of what may be, where viewers come as they like to some sites:
    /// all but the first, which wants little, want nearly the same, and so much of it together.
    fn sent_in_the_mean<const N: usize>(stay_periods: u32, wanted: f64) -> f64 {
        let (viewers_max, periods) = (2 * VIEWERS_MAX, 1_500);
        let mut played = Played::of_egress([1; N], stay_periods);
        played.seen.sent_bytes_max = Some(2 * SENT_BYTES_MAX);
        let share = viewers_max as f64 / N as f64 / f64::from(stay_periods);
        let mut random = 1_u32;
        let mut play = |periods| {
            let mut asked = Asked::nobody();
            for _ in 0..periods {
                let new = std::array::from_fn(|site| {
                    random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let chance = f64::from(random >> 8) / f64::from(1 << 24);
                    let nearly = wanted * (0.95 + 0.1 * site as f64 / N as f64);
                    (share * if site == 0 { 0.25 } else { nearly } + chance) as u32
                });
                played.play_one(new, &mut asked);
            }
            assert_eq!(asked.refused()[0], 0, "{N} sites, {stay_periods}, {wanted}");
            asked.served.iter().sum::<u64>() as f64
        };
        play(400);
        play(periods) / f64::from(periods) / viewers_max as f64
    }

    #[test]
    fn however_many_sites_want_more_than_may_be_sent_no_more_is_and_who_wants_little_has_it() {
        for stay_periods in [3, 30, 200] {
            for wanted in [1.5, 3.0] {
                let of_ten = sent_in_the_mean::<10>(stay_periods, wanted);
                let of_many = sent_in_the_mean::<31>(stay_periods, wanted);
                let are_held = [of_ten, of_many].iter().all(|sent| (0.75..1.1).contains(sent));
                assert!(are_held, "{stay_periods}, {wanted}: {of_ten}, {of_many}");
            }
        }
    }

    #[test]
    fn where_a_little_more_than_may_be_sent_is_wanted_what_may_be_sent_is() {
        for stay_periods in [3, 12, 30] {
            for wanted in [110, 120, 150] {
                let mut played = Played::of_egress([1], stay_periods);
                let (mut come, mut asked) = (0, Asked::nobody());
                for period in 0..1_900 {
                    asked = if period == 400 { Asked::nobody() } else { asked };
                    come += wanted * VIEWERS_MAX as u32 / 100;
                    played.play_one([come / stay_periods], &mut asked);
                    come %= stay_periods;
                }
                let [sent] = asked.served_at_a_time(1_500);
                assert!((165..=215).contains(&sent), "{stay_periods}, {wanted}: {sent}");
            }
        }
    }

    // Where a site is refused, what it is sent swings around its share: two thirds of it at least.

    #[test]
    fn two_sites_that_both_want_more_than_may_be_sent_are_both_sent_their_shares() {
        for stay_periods in [3, 10, 30] {
            let mut played = Played::of_egress([1, 1], stay_periods);
            let new = [141, 139].map(|wanted| wanted / stay_periods);
            played.play(200, new);
            let sent = played.play(600, new).served_at_a_time(600);
            assert!(sent.iter().all(|sent| *sent >= 67), "{stay_periods}: {sent:?} of 100 each");
        }
    }

    #[test]
    fn a_site_that_comes_to_want_less_than_its_share_is_refused_no_longer() {
        for stay_periods in [3, 10, 30] {
            let mut played = Played::of_egress([1, 1], stay_periods);
            let flood = [400, 300].map(|wanted| wanted / stay_periods);
            assert!(played.play(300, flood).refused()[1] > 0);
            played.play(100, [flood[0], 1]);
            let asked = played.play(600, [flood[0], 1]);
            assert_eq!(asked.refused()[1], 0, "{stay_periods}: {asked:?}");
            assert!(asked.refused()[0] > 0 && asked.served[0] > 600 * 100, "{asked:?}");
        }
    }

    #[test]
    fn a_site_that_wants_more_than_its_share_keeps_it_beside_a_flood() {
        for stay_periods in [3, 10, 30] {
            let mut played = Played::of_egress([1, 1], stay_periods);
            let before = [140, 112].map(|wanted| wanted / stay_periods);
            let flood = [before[0], 600 / stay_periods];
            played.play(300, before);
            played.play(100, flood);
            let sent = played.play(600, flood).served_at_a_time(600);
            assert!(sent[0] >= 67, "{stay_periods}: {sent:?} of 100 each");
        }
    }

    #[test]
    fn who_is_sent_no_more_than_his_share_is_never_refused_for_a_flood() {
        // Of little more than may be sent, and of three times that.
        for flood in [201, 220, 600] {
            for (weights, within) in [([1, 1], 70), ([3, 1], 120), ([1, 9], 10)] {
                let mut played = Played::of_egress(weights, 10);
                let mut refused = [0; 2];
                for (periods, new) in [
                    (20, [within / 10, 0]),
                    (100, [within / 10, flood / 10]),
                    // They come again when none of them is there any more.
                    (40, [0, flood / 10]),
                    (1, [1, flood / 10]),
                    (100, [within / 10, flood / 10]),
                    (100, [within / 10, 0]),
                ] {
                    let asked = played.play(periods, new).refused();
                    refused = [0, 1].map(|site| refused[site] + asked[site]);
                }
                assert_eq!(refused[0], 0, "{weights:?}, {flood}");
                assert!(refused[1] > 0 || flood < 220, "{weights:?}, {flood}");
            }
        }
    }

    #[test]
    fn a_site_alone_is_sent_what_may_be_sent_and_who_has_been_let_in_is_served() {
        for weights in [[1, 0], [1, 1]] {
            let mut played = Played::of_egress(weights, 10);
            played.play(100, [60, 0]);
            let asked = played.play(600, [60, 0]);
            let [sent, _] = asked.served_at_a_time(600);
            assert!((160..=240).contains(&sent), "{sent} of {VIEWERS_MAX}");
            assert!(asked.new_refused[0] > 0 && asked.again_refused[0] == 0, "{asked:?}");
            let gate = &played.gates[0];
            assert!(gate.refused(Reason::Egress) > 0 && gate.refused(Reason::Share) == 0);
            let recovering = played.play(60, [10, 0]);
            assert!(recovering.new_refused[0] > 0, "by and by");
            assert_eq!(played.play(100, [10, 0]).refused(), [0, 0]);
        }
    }

    #[test]
    fn who_holds_no_more_than_his_share_of_memory_is_never_refused_for_it() {
        for periods in [8, 20, 60] {
            let mut played = Played::new([1, 1], 10);
            played.seen.in_use.bytes[..2].copy_from_slice(&[10, 1_000]);
            (played.seen.in_use.beyond, played.seen.is_short) = (Sharer::of(SiteId(1)).bit(), true);
            let short = played.play(periods, [5, 5]).refused();
            assert!(short[0] == 0 && short[1] > 0, "{short:?}");
            (played.seen.in_use.beyond, played.seen.is_short) = (0, false);
            let after = played.play(60, [5, 5]).refused();
            assert!(after[0] == 0 && after[1] > 0, "{periods}: {after:?}, by and by");
            assert_eq!(played.play(10, [5, 5]).refused(), [0, 0]);
        }
    }

    #[test]
    fn who_wants_little_of_late_workers_is_not_refused_when_the_flood_is_over_either() {
        let mut played = Played::new([1, 1], 10);
        played.play(20, [1, 200]);
        played.answers_max = 0;
        let late = played.play(100, [1, 200]).refused();
        assert!(late[0] == 0 && late[1] > 0, "{late:?}");
        played.answers_max = u64::MAX;
        assert_eq!(played.play(100, [1, 0]).refused()[0], 0);
        assert_eq!(played.play(1, [0, 1]).refused(), [0, 0], "nor is the other by now");
    }

    #[test]
    fn who_has_had_little_of_the_work_for_some_seconds_is_refused_no_longer() {
        for stay_periods in [3, 10] {
            let mut played = Played::new([1, 1], stay_periods);
            played.answers_max = VIEWERS_MAX;
            let flood = [400, 300].map(|wanted| wanted / stay_periods);
            assert!(played.play(300, flood).refused()[1] > 0);
            played.play(100, [flood[0], 1]);
            let asked = played.play(600, [flood[0], 1]);
            assert_eq!(asked.refused()[1], 0, "{stay_periods}: {asked:?}");
        }
    }
}
