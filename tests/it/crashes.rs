//! Promise: whatever a crash leaves of a volume, nothing wrong is ever read from it, and nothing
//! is lost that was safe. The store itself over a simulated device, from seeds.
//!
//! `TIDEGATE_SEED=7 cargo nextest run --test it crashes` runs one seed. As many crashes as one
//! wants, from `TIDEGATE_SEED` on if that is set; it says how often each fault has happened:
//! `TIDEGATE_CRASH_POINTS=200000 cargo nextest run --release --test it --no-capture \
//! crashes::a_run_of`. With `--test it` only this binary is built, none of the benches.

mod chance;
mod covered;
mod model;
mod restart;
mod run;
mod truth;
mod witness;
mod workload;

use std::collections::BTreeMap;
use std::env;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use self::covered::Covered;
use self::run::{Outcome, Sickness, run};

/// Of one process of one seed.
const POINTS_MAX: usize = 24;
/// What each test may take; a few seeds are run however long they take.
const TIME_BOX: Duration = Duration::from_secs(6);
const SEEDS_MIN: u64 = 6;
const SEEDS_MAX: u64 = 40;
/// What is run when nobody has asked for more: a second or two.
const SHORT_RUN_POINTS: u64 = 20;
/// How often a long run says how far it is.
const PROGRESS_EVERY: u64 = 10_000;

fn number(name: &str) -> Option<u64> {
    let value = env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is a number, not `{value}`")))
}

/// The fixed seeds, or the one that was asked for.
fn run_seeds(sickness: Sickness) {
    if let Some(seed) = number("TIDEGATE_SEED") {
        let outcome = run(seed, sickness, POINTS_MAX);
        println!("seed {seed}: {} crashes\n{}", outcome.points, outcome.covered);
        return assert_right(seed, sickness, &outcome);
    }
    let (began, mut points, mut covered) = (Instant::now(), 0, Covered::default());
    for seed in 0..SEEDS_MAX {
        if seed >= SEEDS_MIN && began.elapsed() > TIME_BOX {
            break;
        }
        let outcome = run(seed, sickness, POINTS_MAX);
        assert_right(seed, sickness, &outcome);
        points += outcome.points;
        covered.add_all(&outcome.covered);
        if seed + 1 == SEEDS_MIN {
            assert_eq!(covered.never(sickness), [""; 0], "{sickness:?}: all of it happens");
        }
    }
    println!("{points} crashes in {:?}\n{covered}", began.elapsed());
    assert!(points >= SEEDS_MIN * 10, "there were crashes to judge");
}

fn assert_right(seed: u64, sickness: Sickness, outcome: &Outcome) {
    let Outcome { wrong, .. } = outcome;
    assert!(wrong.is_empty(), "seed {seed}, {sickness:?}:\n{}", wrong.join("\n"));
}

#[test]
fn what_was_safe_is_found_after_a_crash_and_nothing_else() {
    run_seeds(Sickness::None);
}

#[test]
fn nothing_old_or_wrong_is_found_after_a_crash_of_a_failing_device() {
    run_seeds(Sickness::Failing);
}

#[test]
fn nothing_wrong_is_read_from_a_device_that_lies() {
    run_seeds(Sickness::Lying);
}

#[test]
fn a_seed_gives_the_same_crashes_again() {
    for sickness in [Sickness::None, Sickness::Failing, Sickness::Lying] {
        let [first, again] = [(); 2].map(|()| run(1, sickness, 8));
        assert_eq!((first.trace, first.covered), (again.trace, again.covered), "{sickness:?}");
        assert_eq!((first.points, first.wrong), (again.points, again.wrong), "{sickness:?}");
    }
}

#[test]
fn a_run_of_as_many_crashes_as_are_asked_for_finds_nothing() {
    let wanted = number("TIDEGATE_CRASH_POINTS").unwrap_or_else(|| {
        println!("a short run of {SHORT_RUN_POINTS} crashes: TIDEGATE_CRASH_POINTS asks for more");
        SHORT_RUN_POINTS
    });
    let first = number("TIDEGATE_SEED").unwrap_or(1_000);
    let (began, next, points) = (Instant::now(), AtomicU64::new(first), AtomicU64::new(0));
    let (wrong, covered) = (Mutex::new(Vec::new()), Mutex::new(BTreeMap::new()));
    let threads = thread::available_parallelism().map_or(1, |count| count.get());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while points.load(Ordering::Relaxed) < wanted && wrong.lock().unwrap().is_empty() {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let sickness = sickness_of(seed);
                    let outcome = run(seed, sickness, POINTS_MAX);
                    let before = points.fetch_add(outcome.points, Ordering::Relaxed);
                    let so_far = before + outcome.points;
                    if before / PROGRESS_EVERY < so_far / PROGRESS_EVERY {
                        println!("{so_far} crashes, seed {seed}, {:?}", began.elapsed());
                    }
                    let mut covered = covered.lock().unwrap();
                    let of = covered.entry(sickness).or_insert_with(Covered::default);
                    of.add_all(&outcome.covered);
                    if !outcome.wrong.is_empty() {
                        wrong.lock().unwrap().push((seed, sickness, outcome));
                    }
                }
            });
        }
    });
    let (points, seeds) = (points.into_inner(), next.into_inner() - first);
    let per_second = points as f64 / began.elapsed().as_secs_f64();
    for (sickness, covered) in covered.into_inner().unwrap() {
        println!("{sickness:?}\n{covered}");
    }
    println!("{points} crashes of {seeds} seeds from {first} on, {per_second:.0} per second");
    let wrong = wrong.into_inner().unwrap();
    assert!(points >= wanted || !wrong.is_empty(), "{points} crashes of {wanted}");
    for (seed, sickness, outcome) in wrong {
        assert_right(seed, sickness, &outcome);
    }
}

/// Half of the seeds are run on a healthy device.
fn sickness_of(seed: u64) -> Sickness {
    match seed % 4 {
        0 => Sickness::Failing,
        1 => Sickness::Lying,
        _ => Sickness::None,
    }
}
