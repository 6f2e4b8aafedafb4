//! Whose turn it is to fill: as many runs at once as may be, shared between sites.
//!
//! Who comes while there is room begins at once, however many of his site run already: what nobody
//! needs is borrowed. When there is none, the next place is for the site with the fewest for its
//! `share`, so that a flood of one waits behind itself. An eighth is kept free of any one site:
//! another's first run waits for nobody, also where all of the flood's hang.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::object::SiteId;
use crate::overload::{SHARERS_MAX, Sharer, Shares};

/// Places for runs.
pub struct Turns {
    state: Mutex<State>,
    shares: Arc<Shares>,
}

struct State {
    free: usize,
    /// The most that one site may have.
    of_one_max: usize,
    sites: HashMap<SiteId, OfSite>,
    /// Places that were given to who waited.
    given: u64,
}

#[derive(Default)]
struct OfSite {
    running: usize,
    /// Which place was the last one it was given.
    given: u64,
    /// Those who gave up waiting are still among them.
    waiting: VecDeque<oneshot::Sender<Turn>>,
}

/// A place, until it is dropped.
pub struct Turn {
    turns: Arc<Turns>,
    site: SiteId,
}

impl Turns {
    /// So many at once.
    pub fn new(runs_max: usize, shares: Arc<Shares>) -> Arc<Turns> {
        let (free, of_one_max) = (runs_max, runs_max - runs_max / 8);
        let state = Mutex::new(State { free, of_one_max, sites: HashMap::new(), given: 0 });
        Arc::new(Turns { state, shares })
    }

    /// Whether all places are taken.
    pub fn are_taken(&self) -> bool {
        self.state().free == 0
    }

    /// Waits for a place. Safe to drop: it is another's turn then.
    pub async fn take(self: &Arc<Self>, site: SiteId) -> Turn {
        let waiting = {
            let mut state = self.state();
            let of_one_max = state.of_one_max;
            let has_room = state.free > 0;
            let of_site = state.sites.entry(site).or_default();
            if has_room && of_site.running < of_one_max {
                of_site.running += 1;
                state.free -= 1;
                return Turn { turns: Arc::clone(self), site };
            }
            let (give, waiting) = oneshot::channel();
            of_site.waiting.push_back(give);
            waiting
        };
        waiting.await.expect("who waits is given a place, and nobody else takes him out")
    }

    fn give_back(self: &Arc<Self>, site: SiteId) {
        let mut state = self.state();
        state.free += 1;
        let of_site = state.sites.get_mut(&site).expect("a site with a run is known");
        of_site.running -= 1;
        let mut given = Vec::new();
        while let Some((next, give)) = state.next(&self.shares) {
            given.push((give, Turn { turns: Arc::clone(self), site: next }));
        }
        state.sites.retain(|_, of_site| !of_site.is_idle());
        // Who left meanwhile gives his back, for which the state must be free.
        drop(state);
        given.into_iter().for_each(|(give, turn)| drop(give.send(turn)));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes a place for who is next, if there is room for anybody who waits.
    fn next(&mut self, shares: &Shares) -> Option<(SiteId, oneshot::Sender<Turn>)> {
        let mut running = [0; SHARERS_MAX];
        for (site, of_site) in &self.sites {
            running[Sharer::of(*site).index()] += of_site.running;
        }
        while self.free > 0 {
            let most = self.of_one_max;
            let may = |one: &OfSite| one.running < most && !one.waiting.is_empty();
            let sites = self.sites.iter_mut().filter(|(_, of_site)| may(of_site));
            // As it would be with this one: who has none is not served before all who have one.
            // Sites without a share of their own have one together, and of them who has the fewest,
            // or has waited longest.
            let load = |sharer: Sharer| {
                (running[sharer.index()] as u64 + 1) * LOADS / shares.weight(sharer)
            };
            let (site, of_site) = sites.min_by_key(|(site, one)| {
                (load(Sharer::of(**site)), one.running, one.given, **site)
            })?;
            let give = of_site.waiting.pop_front()?;
            if give.is_closed() {
                continue;
            }
            of_site.running += 1;
            self.given += 1;
            of_site.given = self.given;
            self.free -= 1;
            return Some((*site, give));
        }
        None
    }
}

impl OfSite {
    fn is_idle(&self) -> bool {
        self.running == 0 && self.waiting.is_empty()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.give_back(self.site);
    }
}

/// Runs are compared in such parts, so that shares up to a thousand tell.
const LOADS: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    const FLOOD: SiteId = SiteId(0);
    const OTHER: SiteId = SiteId(1);

    fn turns_of(runs_max: usize, weights: [u32; 2]) -> Arc<Turns> {
        let shares = Shares::default();
        shares.set([FLOOD, OTHER].into_iter().zip(weights));
        Turns::new(runs_max, Arc::new(shares))
    }

    type Waiting = Pin<Box<dyn Future<Output = Turn>>>;

    fn asks(turns: &Arc<Turns>, site: SiteId) -> Waiting {
        let turns = Arc::clone(turns);
        let mut waiting: Waiting = Box::pin(async move { turns.take(site).await });
        // A wait that is over at once is asked again below.
        match poll(&mut waiting) {
            Some(turn) => Box::pin(std::future::ready(turn)),
            None => waiting,
        }
    }

    fn poll(waiting: &mut Waiting) -> Option<Turn> {
        match waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(turn) => Some(turn),
            Poll::Pending => None,
        }
    }

    #[test]
    fn one_site_borrows_what_nobody_needs_but_an_eighth() {
        let turns = turns_of(16, [1, 1]);
        let mut flood: Vec<_> = (0..20).map(|_| asks(&turns, FLOOD)).collect();
        let mut running: Vec<_> = flood.iter_mut().filter_map(poll).collect();
        assert_eq!(running.len(), 14);
        assert!(!turns.are_taken());
        assert!(poll(&mut asks(&turns, OTHER)).is_some(), "at once");
        running.pop();
        let now: Vec<_> = flood[14..].iter_mut().filter_map(poll).collect();
        assert_eq!(now.len(), 1, "the one that waited longest, in the place of the one that ended");
        assert_eq!(turns_of(1, [1, 1]).state().of_one_max, 1);
    }

    #[test]
    fn the_next_place_is_for_the_site_with_the_fewest() {
        let turns = turns_of(8, [1, 1]);
        let mut flood: Vec<_> = (0..30).map(|_| asks(&turns, FLOOD)).collect();
        let mut running: Vec<_> = flood.iter_mut().filter_map(poll).collect();
        let mut others: Vec<_> = (0..4).map(|_| asks(&turns, OTHER)).collect();
        let mut served: Vec<_> = others.iter_mut().take(1).filter_map(poll).collect();
        assert_eq!((running.len(), served.len()), (7, 1));
        let mut waits = flood.split_off(7);
        for expected in 2..=4 {
            drop(running.pop());
            assert_eq!(waits.iter_mut().filter_map(poll).count(), 0, "the flood waits");
            served.extend(others[1..].iter_mut().skip(expected - 2).take(1).filter_map(poll));
            assert_eq!(served.len(), expected);
        }
        // Both have four: nobody else waits, and the flood has what comes free.
        drop(served);
        let now: Vec<_> = waits.iter_mut().take(3).filter_map(poll).collect();
        assert_eq!(now.len(), 3);
    }

    #[test]
    fn places_are_shared_out_by_the_shares_of_those_who_wait() {
        for (weights, expected) in [([1, 1], [4, 4]), ([3, 1], [6, 2]), ([1, 7], [1, 7])] {
            let turns = turns_of(8, weights);
            let first: Vec<_> = (0..8)
                .map(|n| poll(&mut asks(&turns, SiteId(10 + n))).expect("there is room"))
                .collect();
            let mut waits: Vec<_> =
                [FLOOD, OTHER].into_iter().cycle().take(32).map(|one| asks(&turns, one)).collect();
            drop(first);
            let running: Vec<_> = waits.iter_mut().filter_map(poll).collect();
            let of = |site| running.iter().filter(|turn| turn.site == site).count();
            assert_eq!([of(FLOOD), of(OTHER)], expected, "{weights:?}");
        }
    }

    #[test]
    fn sites_without_a_share_of_their_own_have_the_places_of_one() {
        let turns = turns_of(8, [1, 1]);
        let first: Vec<_> = (0..8)
            .map(|n| poll(&mut asks(&turns, SiteId(10 + n))).expect("there is room"))
            .collect();
        let sites = [FLOOD, SiteId(1_000), SiteId(1_001), SiteId(1_002)];
        let mut waits: Vec<_> =
            sites.into_iter().cycle().take(32).map(|one| asks(&turns, one)).collect();
        drop(first);
        let running: Vec<_> = waits.iter_mut().filter_map(poll).collect();
        let of = |site| running.iter().filter(|turn| turn.site == site).count();
        assert_eq!(sites.map(of), [4, 2, 1, 1]);
    }

    #[test]
    fn of_sites_with_as_few_the_one_is_next_that_has_waited_longest() {
        let turns = turns_of(2, [1, 1]);
        let _held = poll(&mut asks(&turns, FLOOD)).unwrap();
        let mut turn = poll(&mut asks(&turns, OTHER));
        let sites = [SiteId(1_000), SiteId(1_001), SiteId(1_002)];
        let mut waits: Vec<_> =
            sites.into_iter().cycle().take(9).map(|one| asks(&turns, one)).collect();
        let mut order = vec![];
        for _ in 0..9 {
            drop(turn.take());
            let next = waits.iter_mut().position(|one| {
                turn = poll(one);
                turn.is_some()
            });
            drop(waits.remove(next.unwrap()));
            order.extend(turn.as_ref().map(|turn| turn.site));
        }
        assert_eq!(order, sites.repeat(3));
    }

    #[test]
    fn who_gives_up_waiting_takes_nobodys_turn() {
        let turns = turns_of(1, [1, 1]);
        let first = poll(&mut asks(&turns, FLOOD)).unwrap();
        let gone = asks(&turns, FLOOD);
        let mut waits = asks(&turns, FLOOD);
        drop(gone);
        drop(first);
        let second = poll(&mut waits).expect("his turn");
        // He is given a place and leaves before he looks.
        let gone = asks(&turns, OTHER);
        let mut last = asks(&turns, FLOOD);
        drop(second);
        drop(gone);
        drop(poll(&mut last).expect("the place came back"));
        let state = turns.state();
        assert_eq!((state.free, state.sites.len()), (1, 0));
    }
}
