//! How much is too much, made of what is measured ten times a second, and whose turn it is to be
//! refused for it. Pure.
//!
//! `Pressure..` finds what share is refused, `Pressed..` is what was found, and `Pressing..` is it
//! for all threads to read: of those beyond their shares and of all, or, `..OfEach`, of each.
//!
//! Pressure goes up while there is too much, after half a second of it, and down while there is
//! not: the share of those refused finds the point where what is let in can be borne, and swings
//! little around it: where it is known how much too much there is, it goes up by as much, and by
//! more the longer there is. From the most to none it takes 3.2 seconds.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::shares::{SHARERS_MAX, Sharer};

/// All new viewers are refused.
pub(super) const ALL_NEW: u32 = 1_000;
/// All misses too.
pub const ALL_NEW_AND_MISSES: u32 = 2_000;
/// Of one site all new viewers and all requests that can be refused.
pub(super) const ALL_OF_ONE: u32 = 2_000;
/// How often it is measured.
pub const PERIOD: Duration = Duration::from_millis(100);
/// How often within a period it is looked how late a worker is.
pub const SAMPLES: u32 = 4;

/// A share of those refused, in thousandths.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pressure {
    thousandths: u32,
    periods_above: u32,
}

impl Pressure {
    /// After another period: by how much it goes up, if there was too much; never above `most`.
    pub(super) fn after(&mut self, up: Option<u32>, most: u32) -> u32 {
        let Some(up) = up else {
            self.periods_above = 0;
            self.thousandths = self.thousandths.saturating_sub(DOWN);
            return self.thousandths;
        };
        self.periods_above = self.periods_above.saturating_add(1);
        // What comes at once and is soon done is no overload.
        if self.thousandths > 0 || self.periods_above >= PERIODS_BORNE {
            let longer = self.periods_above.saturating_sub(PERIODS_BORNE).min(PERIODS_LONG);
            self.thousandths = (self.thousandths + up.max(UP * longer / PERIODS_LONG)).min(most);
        }
        self.thousandths
    }
}

/// What is refused of whom, in thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressed {
    /// Of sites that have more than their shares: new viewers, and above a thousand requests of
    /// those who have been let in.
    pub beyond: u32,
    /// Of all: new viewers, and above a thousand misses.
    pub all: u32,
}

/// What is refused of whom now, for all threads to read.
#[derive(Default)]
pub(super) struct Pressing {
    beyond: AtomicU32,
    all: AtomicU32,
}

impl Pressing {
    pub(super) fn load(&self) -> Pressed {
        Pressed { beyond: self.beyond(), all: self.all.load(Ordering::Relaxed) }
    }

    pub(super) fn beyond(&self) -> u32 {
        self.beyond.load(Ordering::Relaxed)
    }

    pub(super) fn store(&self, Pressed { beyond, all }: Pressed) {
        self.beyond.store(beyond, Ordering::Relaxed);
        self.all.store(all, Ordering::Relaxed);
    }
}

/// Pressure on those who have more than their shares, and where that does not help, on all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pressures {
    beyond: Pressure,
    all: Pressure,
}

impl Pressures {
    /// After another period; `beyond_max`: of those beyond their shares, `most`: of all.
    pub fn after(&mut self, is_too_much: bool, beyond_max: u32, most: u32) -> Pressed {
        let helps = self.beyond.thousandths < beyond_max;
        Pressed {
            beyond: self.beyond.after((is_too_much && beyond_max > 0).then_some(UP), beyond_max),
            all: self.all.after((is_too_much && !helps).then_some(UP), most),
        }
    }
}

/// What is refused of each, in thousandths: of new viewers, and above a thousand of the requests of
/// those who have been let in.
#[derive(Clone, Debug)]
pub(super) struct PressedOfEach {
    pub(super) of: [u32; SHARERS_MAX],
    /// A bit for each of whom it is for others: they wanted some too, when he had too much.
    pub(super) for_others: u64,
}

/// Who bears it that there is too much: a bit for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bearing {
    /// Who begins to bear it, when he has had too much for half a second.
    pub(super) first: u64,
    /// Who has more than his share: he bears more, where he bears some or the first can bear no
    /// more.
    pub(super) further: u64,
    /// Who has more than his share, where others want some.
    pub(super) beyond: u64,
    /// By how many thousandths they bear more.
    pub(super) up: u32,
}

/// Pressure on each, where it is known how much there is to share: each finds his own point.
#[derive(Clone, Debug)]
pub(super) struct PressureOfEach {
    of: [Pressure; SHARERS_MAX],
    for_others: u64,
}

impl Default for PressureOfEach {
    fn default() -> PressureOfEach {
        PressureOfEach { of: [Pressure::default(); SHARERS_MAX], for_others: 0 }
    }
}

impl PressureOfEach {
    /// After another period; never more than `most`.
    pub(super) fn after(&mut self, bearing: Bearing, most: u32) -> PressedOfEach {
        let (bears, mut of) = (bearing.first | bearing.further, [0; SHARERS_MAX]);
        let first = Sharer::all().filter(|one| bearing.first & one.bit() != 0);
        let can_bear_more =
            first.map(|one| &self.of[one.index()]).any(|his| his.thousandths < most);
        for one in Sharer::all() {
            let (his, bit) = (&mut self.of[one.index()], one.bit());
            // Who is not among the first waits while they can bear more: it may be enough.
            let waits = his.thousandths == 0 && bearing.first & bit == 0 && can_bear_more;
            let up = (bears & bit != 0).then_some(bearing.up);
            let pressed = his.after(up, if waits { 0 } else { most });
            match pressed {
                0 => self.for_others &= !bit,
                _ if bears & bit != 0 && bearing.beyond != 0 => self.for_others |= bit,
                _ => {}
            }
            of[one.index()] = pressed;
        }
        PressedOfEach { of, for_others: self.for_others }
    }
}

/// What is refused of each now, for all threads to read.
pub(super) struct PressingOfEach {
    of: [AtomicU32; SHARERS_MAX],
    most: AtomicU32,
    for_others: AtomicU64,
}

impl Default for PressingOfEach {
    fn default() -> PressingOfEach {
        let of = [const { AtomicU32::new(0) }; SHARERS_MAX];
        PressingOfEach { of, most: AtomicU32::new(0), for_others: AtomicU64::new(0) }
    }
}

impl PressingOfEach {
    /// Of one site: as of who is beyond his share where it is for others, else as of all.
    pub(super) fn of(&self, sharer: Sharer) -> Pressed {
        let thousandths = self.of[sharer.index()].load(Ordering::Relaxed);
        match self.for_others.load(Ordering::Relaxed) & sharer.bit() {
            0 => Pressed { beyond: 0, all: thousandths },
            _ => Pressed { beyond: thousandths, all: 0 },
        }
    }

    /// Of who is pressed most.
    pub(super) fn most(&self) -> u32 {
        self.most.load(Ordering::Relaxed)
    }

    /// As it is told: of who is pressed most for others, and of who is otherwise.
    pub(super) fn load(&self) -> Pressed {
        Sharer::all().map(|one| self.of(one)).fold(Pressed::default(), |most, one| Pressed {
            beyond: most.beyond.max(one.beyond),
            all: most.all.max(one.all),
        })
    }

    pub(super) fn store(&self, pressed: &PressedOfEach) {
        for (kept, pressed) in self.of.iter().zip(pressed.of) {
            kept.store(pressed, Ordering::Relaxed);
        }
        self.most.store(pressed.of.into_iter().max().unwrap_or_default(), Ordering::Relaxed);
        self.for_others.store(pressed.for_others, Ordering::Relaxed);
    }
}

/// Who is refused of many who come, where a share of them is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Turn {
    Handshake,
    /// Of whom it is not known whose viewers they are.
    Unknown,
    Miss,
    /// New viewers of a site.
    New(Sharer),
    /// The same, of one that has more than its share.
    NewBeyond(Sharer),
    /// Requests to such a site by who has been let in.
    Again(Sharer),
}

impl Turn {
    const COUNT: usize = 3 + 3 * SHARERS_MAX;

    /// Its place among all of them: each site has turns of its own, so that who is refused more
    /// takes none of another's.
    fn index(self) -> usize {
        match self {
            Turn::Handshake => 0,
            Turn::Unknown => 1,
            Turn::Miss => 2,
            Turn::New(sharer) => 3 + sharer.index(),
            Turn::NewBeyond(sharer) => 3 + SHARERS_MAX + sharer.index(),
            Turn::Again(sharer) => 3 + 2 * SHARERS_MAX + sharer.index(),
        }
    }
}

/// What was not refused of a share yet, in thousandths of one of each kind.
pub(super) struct Turns([AtomicU32; Turn::COUNT]);

impl Default for Turns {
    fn default() -> Turns {
        Turns([const { AtomicU32::new(0) }; Turn::COUNT])
    }
}

impl Turns {
    /// Whether it is the turn of this one, where so many thousandths are refused. One thread asks.
    pub(super) fn is_refused(&self, turn: Turn, thousandths: u32) -> bool {
        if thousandths == 0 {
            return false;
        }
        let left = &self.0[turn.index()];
        let sum = left.load(Ordering::Relaxed) + thousandths.min(ALL_NEW);
        left.store(sum % ALL_NEW, Ordering::Relaxed);
        sum >= ALL_NEW
    }
}

/// How late a worker comes to what is ready.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lag {
    least: Option<Duration>,
    samples: u32,
}

impl Lag {
    /// It was so late now. At the end of a period the least of it: one delay alone, of whatever
    /// kind, is no queue.
    pub fn sample(&mut self, late: Duration) -> Option<Duration> {
        let least = self.least.map_or(late, |least| least.min(late));
        let samples = self.samples + 1;
        *self = match samples {
            SAMPLES => Lag::default(),
            _ => Lag { least: Some(least), samples },
        };
        (samples == SAMPLES).then_some(least)
    }
}

/// What is sent, over the last second.
#[derive(Clone, Debug, Default)]
pub struct Egress {
    /// All that was ever sent, and when it was read.
    read: VecDeque<(u64, Duration)>,
    is_near: bool,
}

/// Whether what is sent has come near to what may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Near {
    /// As before.
    AsBefore,
    /// It has.
    Began,
    /// It is no longer.
    Ended,
}

impl Egress {
    /// Bytes in a second, where `total_bytes` have ever been sent at `now`.
    pub fn after(&mut self, total_bytes: u64, now: Duration) -> u64 {
        self.read.push_back((total_bytes, now));
        if self.read.len() > PERIODS_MEASURED + 1 {
            self.read.pop_front();
        }
        let Some((first_bytes, first)) = self.read.front() else { return 0 };
        let (sent, took) = (total_bytes.saturating_sub(*first_bytes), now.saturating_sub(*first));
        // Of less than a second nothing is said: it began fast.
        (sent as f64 / took.max(Duration::from_secs(1)).as_secs_f64()) as u64
    }

    /// Near is what has come to nine tenths and not gone below eight since.
    pub fn near(&mut self, bytes_per_second: u64, most: Option<u64>) -> Near {
        let tenths = |tenths: u64| most.is_some_and(|most| bytes_per_second >= most / 10 * tenths);
        let was_near = self.is_near;
        self.is_near = if was_near { tenths(8) } else { tenths(9) };
        match (was_near, self.is_near) {
            (false, true) => Near::Began,
            (true, false) => Near::Ended,
            _ => Near::AsBefore,
        }
    }

    /// Whether it is near now.
    pub fn is_near(&self) -> bool {
        self.is_near
    }
}

/// By how much pressure goes up where so many bytes are sent and so many may be: by large steps it
/// would swing, as what comes of them is seen a second later.
pub(super) fn step_up(sent_bytes: u64, most_bytes: u64) -> u32 {
    let excess_bytes = u128::from(sent_bytes.saturating_sub(most_bytes));
    let up = excess_bytes * u128::from(UP) / u128::from(most_bytes.max(1));
    up.clamp(UP_MIN.into(), UP.into()) as u32
}

/// Thousandths by which pressure goes up in a period, at most.
pub(super) const UP: u32 = 125;
/// And at least.
const UP_MIN: u32 = 8;
/// Thousandths by which it goes down.
const DOWN: u32 = 63;
/// In a row, in the last of which pressure begins.
const PERIODS_BORNE: u32 = 5;
/// So many more, and it goes up by the most: what was refused by then did not help.
const PERIODS_LONG: u32 = 12;
/// A second of them.
const PERIODS_MEASURED: usize = 10;

#[cfg(test)]
mod tests {
    use crate::object::SiteId;

    use super::*;

    #[test]
    fn pressure_rises_after_half_a_second_and_falls_at_once() {
        let too_much = |word: &str, most| {
            let mut pressure = Pressure::default();
            let ups = word.chars().map(|mark| (mark == '+').then_some(UP));
            ups.map(|up| pressure.after(up, most)).collect::<Vec<u32>>()
        };
        for (marks, most, expected) in [
            ("++++-++++", ALL_NEW, &[0; 9][..]),
            ("++++++-+--", ALL_NEW, &[0, 0, 0, 0, 125, 250, 187, 312, 249, 186]),
            (
                "+++++++++++++++",
                ALL_NEW,
                &[0, 0, 0, 0, 125, 250, 375, 500, 625, 750, 875, 1000, 1000, 1000, 1000],
            ),
        ] {
            assert_eq!(too_much(marks, most), expected, "{marks}");
        }
        let all = too_much(&"+".repeat(40), ALL_NEW_AND_MISSES);
        assert_eq!(*all.last().unwrap(), ALL_NEW_AND_MISSES);
        let marks = format!("{}{}", "+".repeat(40), "-".repeat(32));
        assert_eq!(*too_much(&marks, ALL_NEW_AND_MISSES).last().unwrap(), 0, "within 3.2 s");
    }

    #[test]
    fn the_more_is_sent_than_may_be_the_faster_pressure_goes_up() {
        for (sent, most, expected) in [
            (1_001, 1_000, 8),
            (1_100, 1_000, 12),
            (1_500, 1_000, 62),
            (2_000, 1_000, 125),
            (u64::MAX, 1, 125),
            (1, 0, 125),
        ] {
            assert_eq!(step_up(sent, most), expected, "{sent} of {most}");
        }
    }

    #[test]
    fn who_has_more_than_his_share_bears_it_before_all_do() {
        let mut pressures = Pressures::default();
        let mut after = |periods: u32, is_too_much, beyond| {
            let mut last = Pressed::default();
            (0..periods).for_each(|_| last = pressures.after(is_too_much, beyond, ALL_NEW));
            [last.beyond, last.all]
        };
        assert_eq!(after(12, true, ALL_OF_ONE), [1_000, 0]);
        assert_eq!(after(8, true, ALL_OF_ONE), [2_000, 0]);
        assert_eq!(after(10, true, ALL_OF_ONE), [2_000, 750], "it did not help");
        assert_eq!(after(4, true, 0), [1_748, 1_000], "nobody is beyond any more");
        assert_eq!(after(32, false, 0), [0, 0], "within 3.2 s");
        assert_eq!(after(12, true, 0), [0, 1_000]);
        assert_eq!(after(32, false, 0), [0, 0]);
        assert_eq!(after(24, true, ALL_NEW), [1_000, 1_000], "not of who has been let in");
    }

    #[test]
    fn each_is_pressed_by_himself_and_for_others_where_they_want_some() {
        let mut pressure = PressureOfEach::default();
        let mut after = |periods: u32, first, further, beyond| {
            let (bearing, mut last) = (Bearing { first, further, beyond, up: UP }, None);
            (0..periods).for_each(|_| last = Some(pressure.after(bearing, ALL_NEW)));
            let PressedOfEach { of, for_others } = last.unwrap();
            ([of[0], of[1], of[2]], for_others)
        };
        assert_eq!(after(6, 0b001, 0b001, 0), ([250, 0, 0], 0), "he is alone");
        assert_eq!(after(3, 0b010, 0b110, 0b110), ([61, 0, 0], 0), "his falls as it was");
        assert_eq!(after(3, 0b010, 0b110, 0b110), ([0, 250, 0], 0b010));
        assert_eq!(after(2, 0b001, 0b011, 0b001), ([0, 500, 0], 0b010), "he bears more");
        assert_eq!(after(1, 0b001, 0b001, 0), ([0, 437, 0], 0b010), "the same refusals go on");
        assert_eq!(after(40, 0, 0, 0), ([0, 0, 0], 0));
        assert_eq!(after(6, 0b100, 0b100, 0), ([0, 0, 250], 0));
    }

    #[test]
    fn who_comes_to_be_among_the_first_has_waited_while_he_was_not() {
        let mut pressure = PressureOfEach::default();
        let mut after = |first| {
            let bearing = Bearing { first, further: 0b111, beyond: first, up: UP };
            let of = pressure.after(bearing, ALL_NEW).of;
            [of[0], of[1], of[2]]
        };
        // They take turns at being first.
        let turns = [0b001, 0b010, 0b100, 0b001, 0b010, 0b100, 0b001].map(&mut after);
        assert_eq!(turns[3..], [[0; 3], [0, 125, 0], [0, 250, 125], [125, 375, 250]]);
    }

    #[test]
    fn who_has_more_than_his_share_waits_only_while_those_before_him_can_bear_more() {
        let mut pressure = PressureOfEach::default();
        let bearing = Bearing { first: 0b01, further: 0b11, beyond: 0b11, up: UP };
        let mut after = |periods: u32| {
            let (mut of, most) = ([0; SHARERS_MAX], ALL_OF_ONE);
            (0..periods).for_each(|_| of = pressure.after(bearing, most).of);
            [of[0], of[1]]
        };
        assert_eq!([after(19), after(1)], [[1_875, 0], [2_000, 0]]);
        assert_eq!(after(2), [2_000, 250], "what has begun is never refused");
    }

    #[test]
    fn who_is_refused_more_takes_no_turn_of_who_is_refused_less() {
        let turns = Turns::default();
        let mut refused = [0; 4];
        for _ in 0..1_000 {
            let [much, little] = [0, 1].map(|site| Sharer::of(SiteId(site)));
            let asked = [
                (Turn::NewBeyond(much), 900),
                (Turn::NewBeyond(little), 100),
                (Turn::Again(much), 900),
                (Turn::Again(little), 100),
            ];
            for (refused, (turn, thousandths)) in refused.iter_mut().zip(asked) {
                *refused += u32::from(turns.is_refused(turn, thousandths));
            }
        }
        assert_eq!(refused, [900, 100, 900, 100]);
    }

    /// Three times what can be borne comes: what is let in is what can be, within an eighth.
    #[test]
    fn the_share_that_is_refused_finds_what_can_be_borne() {
        let (mut pressure, mut share) = (Pressure::default(), 0);
        let (mut let_in, mut waiting) = (0.0, 0.0_f64);
        for period in 0..600 {
            let came = 3.0 * f64::from(ALL_NEW - share) / f64::from(ALL_NEW);
            waiting = (waiting + came - 1.0).max(0.0);
            share = pressure.after((waiting > 0.5).then_some(UP), ALL_NEW);
            let_in += if period >= 100 { came } else { 0.0 };
        }
        let mean = let_in / 500.0;
        assert!((0.875..1.125).contains(&mean), "{mean}");
        assert!(waiting < 5.0, "{waiting}");
    }

    #[test]
    fn a_worker_is_as_late_as_it_was_at_least() {
        let ms = Duration::from_millis;
        let mut lag = Lag::default();
        let said: Vec<_> =
            [90, 80, 100, 70, 300, 1, 300, 300].map(|late| lag.sample(ms(late))).into();
        let expected = [None, None, None, Some(ms(70)), None, None, None, Some(ms(1))];
        assert_eq!(said, expected);
    }

    #[test]
    fn what_is_sent_is_told_of_the_last_second() {
        let mut egress = Egress::default();
        let mut total = 0;
        let mut at = |tenth: u64, bytes: u64| {
            total += bytes;
            egress.after(total, Duration::from_millis(tenth * 100))
        };
        assert_eq!(at(0, 5_000), 0, "what was before");
        assert_eq!([at(1, 1_000), at(2, 1_000)], [1_000, 2_000], "not more than of a second");
        let steady: Vec<u64> = (3..=14).map(|tenth| at(tenth, 1_000)).collect();
        assert_eq!(steady[7..], [10_000; 5]);
        assert_eq!(at(24, 0), 4_736, "a pause is a pause");
    }

    #[test]
    fn near_begins_at_nine_tenths_and_ends_below_eight() {
        let mut egress = Egress::default();
        let said =
            [890, 900, 850, 800, 950, 799, 890, 2_000].map(|rate| egress.near(rate, Some(1_000)));
        use Near::{AsBefore, Began, Ended};
        assert_eq!(said, [AsBefore, Began, AsBefore, AsBefore, AsBefore, Ended, AsBefore, Began]);
        assert_eq!(egress.near(2_000, None), Ended, "there is no limit any more");
    }
}
