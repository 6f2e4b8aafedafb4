//! Another process that answers viewers of the same sites too: the one before this one, or the one
//! that follows. What ends here ends there before anybody is told that it has.
//!
//! What ends is kept until the other one says that it has ended there too; one that follows and is
//! gone before is followed by another, which is told all of it. Nothing is ever left out: where
//! there would be too much to keep, all of the site with most of it ends. Nobody here waits for the
//! other process to read: a thread takes what is to be said to it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Purges;
use super::keeper::PurgeError;
use super::scope::{Hardness, Scope};
use super::table::Purge;
use crate::limits::{ENDINGS_BYTES_MAX, ENDINGS_HELD_MAX};
use crate::object::ObjectKey;

/// What ends there. It is sent to the other process, perhaps of another version, as it is written
/// here: its names stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// Whatever is held.
    All,
    /// Whatever is held of the site of this name.
    Site {
        /// The site's name.
        site: String,
    },
    /// Objects of the site of this name, by their targets.
    Objects {
        /// The site's name.
        site: String,
        /// Path and canonical query of each.
        targets: Vec<String>,
    },
}

/// Which of the two the other process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It was there before this one.
    Before,
    /// It follows, and has read the journal when it says something.
    After,
}

/// What is to be said to the other process, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Something ends; it is to answer with the number when it has.
    End(u64, Ending),
    /// What it gave this number has ended here.
    Ended(u64),
    /// All that had ended when it began to listen was said.
    Told,
}

/// The way to the other process.
#[derive(Debug)]
pub struct Elsewhere {
    side: Side,
    state: Mutex<State>,
    /// There is something to say, or nobody to say it to.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// What has not ended there, as far as is known, by number.
    pending: BTreeMap<u64, Pending>,
    /// The number given last.
    last: u64,
    /// Up to this number it was told.
    told: u64,
    to_say: VecDeque<Next>,
    listens: bool,
    is_gone: bool,
    /// Counts those that were on this way.
    turn: u64,
}

#[derive(Debug)]
struct Pending {
    ending: Ending,
    waiting: Vec<oneshot::Sender<()>>,
}

#[derive(Debug, PartialEq, Eq)]
enum Next {
    End(u64),
    Ended(u64),
    Told,
}

impl Elsewhere {
    /// To a process of this side, which does not listen yet.
    pub fn new(side: Side) -> Arc<Elsewhere> {
        Arc::new(Elsewhere { side, state: Mutex::default(), changed: Condvar::new() })
    }

    /// Which process is at its other end.
    pub fn side(&self) -> Side {
        self.side
    }

    /// Another one comes; whose turn it is then.
    pub fn expect(&self) -> u64 {
        let mut state = self.state();
        (state.is_gone, state.turn) = (false, state.turn + 1);
        self.changed.notify_all();
        state.turn
    }

    /// It listens from now on, and is told what had not ended there yet.
    pub fn listens(&self) {
        let mut state = self.state();
        state.listens = true;
        let untold: Vec<Next> = state.pending.keys().copied().map(Next::End).collect();
        // One that was there before serves already, and waits for nothing.
        let told = (self.side == Side::After).then_some(Next::Told);
        // It may have said what ends before it says that it listens: it waits for those answers.
        state.to_say.retain(|next| matches!(next, Next::Ended(_)));
        state.to_say.extend(untold.into_iter().chain(told));
        self.changed.notify_all();
    }

    /// Whose turn it was is gone: nobody waits for it. What it did not say has ended is kept for
    /// another one.
    fn part(&self, turn: u64) {
        let mut state = self.state();
        if state.turn != turn {
            return;
        }
        (state.listens, state.is_gone, state.told) = (false, true, 0);
        state.to_say.clear();
        state.pending.values_mut().for_each(|pending| pending.waiting.clear());
        self.changed.notify_all();
    }

    /// What is to be said next to the one whose turn it was; `None` when it is gone. Blocks.
    pub fn next(&self, turn: u64) -> Option<Said> {
        let mut state = self.state();
        loop {
            if state.is_gone || state.turn != turn {
                return None;
            }
            match state.to_say.pop_front() {
                Some(Next::Ended(number)) => return Some(Said::Ended(number)),
                Some(Next::Told) => return Some(Said::Told),
                Some(Next::End(number)) => {
                    let Some(pending) = state.pending.get(&number) else { continue };
                    let ending = pending.ending.clone();
                    state.told = number;
                    return Some(Said::End(number, ending));
                }
                None => {
                    let waited = self.changed.wait(state);
                    state = waited.unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// What was said to it under this number has ended there.
    pub fn has_ended(&self, number: u64) {
        let ended = self.state().pending.remove(&number);
        for told in ended.into_iter().flat_map(|ended| ended.waiting) {
            // Who waited may have left.
            let _ = told.send(());
        }
    }

    /// What was said under this number by the one whose turn it was has ended here.
    pub fn answer(&self, turn: u64, number: u64) {
        let mut state = self.state();
        // It waits for no more than it may hold itself.
        let is_there = !state.is_gone && state.turn == turn;
        if is_there && state.to_say.len() < 2 * ENDINGS_HELD_MAX {
            state.to_say.push_back(Next::Ended(number));
            self.changed.notify_all();
        }
    }

    /// Has something end there; who is told when it has, if one is there or expected: what nobody
    /// but it can write is on no disk before.
    fn end(&self, ending: Ending) -> Option<oneshot::Receiver<()>> {
        let mut state = self.state();
        let state = &mut *state;
        let place = match state.untold(&ending) {
            Some(place) => place,
            None => state.add(within_bytes(ending)),
        };
        self.changed.notify_all();
        let pending = state.pending.get_mut(&place).filter(|_| !state.is_gone)?;
        let (tell, told) = oneshot::channel();
        if pending.waiting.len() >= ENDINGS_HELD_MAX {
            pending.waiting.retain(|waiting| !waiting.is_closed());
        }
        pending.waiting.push(tell);
        Some(told)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What is not told yet and covers it already.
    fn untold(&self, ending: &Ending) -> Option<u64> {
        let covers = |known: &Ending| match (known, ending) {
            (Ending::All, _) => true,
            (Ending::Site { site: known }, Ending::Objects { site, .. }) => known == site,
            (known, ending) => known == ending,
        };
        let mut untold = self.pending.range(self.told + 1..);
        untold.find(|(_, pending)| covers(&pending.ending)).map(|(number, _)| *number)
    }

    fn add(&mut self, ending: Ending) -> u64 {
        let added = self.push(ending, Vec::new());
        if self.pending.len() <= ENDINGS_HELD_MAX {
            return added;
        }
        let instead = self.end_largest();
        if self.pending.contains_key(&added) { added } else { instead }
    }

    fn push(&mut self, ending: Ending, waiting: Vec<oneshot::Sender<()>>) -> u64 {
        self.last += 1;
        self.pending.insert(self.last, Pending { ending, waiting });
        if self.listens {
            self.to_say.push_back(Next::End(self.last));
        }
        self.last
    }

    /// All of the site with most to end takes the place of that, or all of every site.
    fn end_largest(&mut self) -> u64 {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for pending in self.pending.values() {
            if let Ending::Objects { site, .. } | Ending::Site { site } = &pending.ending {
                *counts.entry(site).or_default() += 1;
            }
        }
        let most = counts.into_iter().max_by_key(|(_, count)| *count);
        let most = most.filter(|(_, count)| *count > 1).map(|(site, _)| site.to_owned());
        let is_covered = |ending: &Ending| match (ending, &most) {
            (Ending::Objects { site, .. } | Ending::Site { site }, Some(most)) => site == most,
            (_, None) => true,
            (Ending::All, Some(_)) => false,
        };
        let covered = self.pending.extract_if(.., |_, pending| is_covered(&pending.ending));
        let mut waiting: Vec<_> = covered.flat_map(|(_, pending)| pending.waiting).collect();
        waiting.retain(|waiting| !waiting.is_closed());
        let pending = &self.pending;
        self.to_say.retain(|next| match next {
            Next::End(number) => pending.contains_key(number),
            Next::Ended(_) | Next::Told => true,
        });
        self.push(most.map_or(Ending::All, |site| Ending::Site { site }), waiting)
    }
}

/// What is too long to be said ends with all of its site.
fn within_bytes(ending: Ending) -> Ending {
    match ending {
        Ending::Objects { site, targets }
            if targets.iter().map(String::len).sum::<usize>() > ENDINGS_BYTES_MAX =>
        {
            Ending::Site { site }
        }
        ending => ending,
    }
}

impl Purges {
    /// The way to the next process that follows: it is to hear what the one before it did not.
    pub fn way_after(&self) -> Arc<Elsewhere> {
        let known = self.elsewhere.load_full().filter(|known| known.side == Side::After);
        known.unwrap_or_else(|| Elsewhere::new(Side::After))
    }

    /// From now on what ends here ends there.
    pub fn set_elsewhere(&self, elsewhere: Arc<Elsewhere>) {
        self.elsewhere.store(Some(elsewhere));
    }

    /// From now on nobody is told what ends.
    pub fn tell_nobody(&self) {
        self.elsewhere.store(None);
    }

    /// The process on the other end of `way`, whose turn it was, is gone.
    pub fn part(&self, way: &Arc<Elsewhere>, turn: u64) {
        way.part(turn);
        let known = self.elsewhere.load();
        let is_it = known.as_ref().is_some_and(|known| Arc::ptr_eq(known, way));
        // Nobody comes in the place of one that was there before.
        if is_it && way.side == Side::Before {
            self.elsewhere.compare_and_swap(&known, None);
        }
    }

    /// Whether the process before this one is still there.
    pub fn has_before(&self) -> bool {
        let known = self.elsewhere.load();
        known.as_ref().is_some_and(|known| known.side == Side::Before && !known.state().is_gone)
    }

    /// Whether purges are to be told to the other process too: one that follows reads the journal.
    pub(super) fn are_told(&self) -> bool {
        self.elsewhere.load().as_ref().is_some_and(|known| known.side == Side::Before)
    }

    /// Ends it there too. Dropping it midway is safe: it ends all the same.
    ///
    /// # Errors
    /// [`PurgeError::Elsewhere`]: it is not known whether it has. A process that is gone holds
    /// nothing.
    pub async fn end_elsewhere(&self, ending: Ending) -> Result<(), PurgeError> {
        let Some(elsewhere) = self.elsewhere.load_full() else { return Ok(()) };
        let Some(told) = elsewhere.end(ending) else { return Ok(()) };
        timeout(ENDED_WITHIN, told).await.map(drop).map_err(|_| PurgeError::Elsewhere)
    }

    /// As [`Purges::end_elsewhere`] for objects of one site.
    ///
    /// # Errors
    /// As there.
    pub async fn end_objects_elsewhere(&self, keys: &[ObjectKey]) -> Result<(), PurgeError> {
        let Some(site) = keys.first().map(ObjectKey::site) else { return Ok(()) };
        if self.elsewhere.load().is_none() {
            return Ok(());
        }
        let sites = self.sites.load_full();
        let site = sites.get(site).expect("a key is of a site that is, or was").name.clone();
        let targets = keys.iter().map(|key| key.target().to_owned()).collect();
        self.end_elsewhere(Ending::Objects { site, targets }).await
    }

    /// Purges all there is of the site of this name, or of every site, because the other process
    /// says so: by the journal where it is ours, else in this process alone.
    ///
    /// # Errors
    /// As [`Purges::purge`].
    pub async fn end_sites(&self, name: Option<&str>) -> Result<(), PurgeError> {
        let sites = self.sites.load_full();
        let named = sites.iter().filter(|site| name.is_none_or(|name| site.name == name));
        let scopes: Vec<Scope> = named.map(|site| Scope::site(&site.name)).collect();
        match self.purge_here(scopes.clone(), Hardness::Hard).await {
            // Who keeps the journal is the other one, and nobody numbers purges here any more.
            Err(PurgeError::Draining) => self.purge_unkept(&scopes),
            purged => drop(purged?),
        }
        Ok(())
    }

    fn purge_unkept(&self, scopes: &[Scope]) {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        let mut number = self.count();
        for &scope in scopes {
            number += 1;
            table.apply(&Purge { number, at_seconds: 0, scope, hardness: Hardness::Hard });
        }
        self.count.store(number, Ordering::Release);
    }
}

/// Another process of this machine answers in less, or hangs.
const ENDED_WITHIN: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn object(site: &str, target: u64) -> Ending {
        Ending::Objects { site: site.to_owned(), targets: vec![format!("/{target}")] }
    }

    /// What was to be said, up to the word that all was.
    fn said(way: &Elsewhere, turn: u64) -> Vec<Ending> {
        let next = || match way.next(turn) {
            Some(Said::End(_, ending)) => Some(ending),
            Some(Said::Told) => None,
            other => panic!("{other:?}"),
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn what_is_said_before_who_says_it_listens_is_answered() {
        let way = Elsewhere::new(Side::After);
        let turn = way.expect();
        let mut told = way.end(object("a", 1)).expect("it is to write that");
        way.answer(turn, 7);
        way.listens();
        way.answer(turn, 8);
        let said: Vec<_> = (0..3).map(|_| way.next(turn)).collect();
        let expected = [Said::Ended(7), Said::End(1, object("a", 1)), Said::Told];
        assert_eq!(said, expected.map(Some));
        assert!(told.try_recv().is_err());
        way.has_ended(1);
        assert_eq!(told.try_recv(), Ok(()));
    }

    #[test]
    fn what_one_process_did_not_end_before_it_was_gone_the_next_one_is_told() {
        let way = Elsewhere::new(Side::After);
        let first = way.expect();
        let _told = way.end(object("a", 1)).expect("it is waited for");
        way.listens();
        let mut told = way.end(object("a", 2)).expect("it is waited for");
        assert_eq!(way.next(first), Some(Said::End(1, object("a", 1))));
        assert_eq!(way.next(first), Some(Said::Told));
        assert_eq!(way.next(first), Some(Said::End(2, object("a", 2))));
        assert!(told.try_recv().is_err());
        way.has_ended(1);
        way.part(first);
        assert_eq!(told.try_recv(), Err(oneshot::error::TryRecvError::Closed), "it is gone");
        assert_eq!(way.next(first), None);
        assert!(way.end(object("a", 3)).is_none());

        let second = way.expect();
        way.listens();
        assert_eq!(said(&way, second), [object("a", 2), object("a", 3)]);
        way.part(first);
        way.answer(first, 7);
        way.answer(second, 8);
        assert_eq!(way.next(second), Some(Said::Ended(8)), "what is late is not said to others");
        let mut told = way.end(object("a", 4)).unwrap();
        way.has_ended(4);
        assert_eq!(told.try_recv(), Ok(()));
    }

    #[test]
    fn too_much_ends_with_all_of_its_site_and_nothing_is_left_out() {
        let way = Elsewhere::new(Side::After);
        let turn = way.expect();
        way.end(object("b", 0));
        let most = ENDINGS_HELD_MAX as u64;
        (0..most - 1).for_each(|target| drop(way.end(object("a", target))));
        way.end(object("a", 0));
        way.listens();
        assert_eq!(said(&way, turn).len(), ENDINGS_HELD_MAX, "what is the same ends once");

        let mut waiting: Vec<_> =
            (most..2 * most).map(|target| way.end(object("a", target)).unwrap()).collect();
        assert!(way.state().pending.len() <= ENDINGS_HELD_MAX);
        let site = Ending::Site { site: "a".to_owned() };
        assert_eq!(way.next(turn), Some(Said::End(most + 2, site)));
        way.has_ended(most + 2);
        assert!(waiting.iter_mut().all(|told| told.try_recv() == Ok(())));
        way.part(turn);
        let turn = way.expect();
        way.listens();
        assert_eq!(said(&way, turn), [object("b", 0)], "one site's flood is its own");

        let way = Elsewhere::new(Side::After);
        let turn = way.expect();
        (0..=most).for_each(|site| drop(way.end(object(&format!("{site}"), 0))));
        let long = Ending::Objects { site: "c".to_owned(), targets: vec!["x".repeat(1 << 20)] };
        way.end(long.clone());
        way.listens();
        assert_eq!(said(&way, turn), [Ending::All]);
        way.end(long);
        assert_eq!(
            way.next(turn),
            Some(Said::End(most + 3, Ending::Site { site: "c".to_owned() }))
        );
    }
}
