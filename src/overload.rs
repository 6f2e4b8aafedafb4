//! What is refused when there is more to do than can be done, and in which order.
//!
//! 1. What one client asks for beyond `limits.client`: a connection is closed, a request gets 429.
//! 2. Handshakes beyond `limits.handshakes`: closed before anything is reckoned.
//! 3. Of a site with more than its share (`overload/shares.rs`): new viewers in the last eighth of
//!    `limits.connections`; a growing share of new viewers, then of requests, while more is sent
//!    than `limits.egress`, workers are later than `limits.lag` or memory is waited for: 503.
//! 4. New viewers of all sites, a growing share, where none has more than its share, or workers are
//!    late all the same: 503. Over TLS and late: closed before the handshake.
//! 5. Misses, a growing share, when no new viewer is let in and workers are still late: 503. Of ten
//!    one is let in at the worst: viewers who are served need new segments too.
//!
//! How much may be sent and held is known: who has more than his share of it is decided each time,
//! each site is pressed by itself, the greatest first, and one that never had more is never refused
//! for another's flood. How much can be done is not: while another site has more than its share,
//! one that has not is spared 4 and 5 as long as it wants little, since who is refused costs work
//! too. What has begun is never refused, nor a hit to who has been let in, but where his site has
//! more than its share at another's cost. Each answer has a `Retry-After`. What memory is for has
//! an order of its own (`memory.rs`), and so have volumes (`ssd.bypass`). Nothing here sleeps or
//! reads a clock; one [`Gate`] for each worker is asked.

mod clients;
mod connected;
mod pressure;
mod rate;
mod refusal;
mod shares;
mod watch;

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

pub use clients::{ClientLimits, Place};
pub use connected::Connected;
pub use pressure::{ALL_NEW_AND_MISSES, Egress, Lag, Near, PERIOD, Pressed, Pressures, SAMPLES};
pub use refusal::{Reason, Refusal};
pub use shares::{RAM_OWNED, Resource, SHARERS_MAX, Sharer, Shares, WHOLE};
pub use watch::{InUse, NOTHING_SERVED, Seen, ServedOfEach, Watch};

use self::clients::Clients;
use self::connected::Connections;
use self::pressure::{ALL_NEW, PressedOfEach, Pressing, PressingOfEach, Turn, Turns};
use self::rate::Bucket;
use crate::network::Network;

/// What is too much.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Later than this, for half a second, a worker has too much to do; none: never.
    pub lag_max: Option<Duration>,
    /// More than this is too much to send; none: nothing is.
    pub egress_bytes_per_second: Option<u64>,
    /// TLS handshakes in a second; none: as many as come.
    pub handshakes_per_second: Option<u32>,
    /// Connections there may be; of the last eighth each site has its share. 0: as many as come.
    pub connections_max: usize,
    /// What one client may have.
    pub client: ClientLimits,
    /// Who asks for many and is no client: proxies.
    pub proxies: Vec<Network>,
}

/// What all workers share.
pub struct Overload {
    settings: ArcSwap<Settings>,
    clients: Clients,
    handshakes: Mutex<Bucket>,
    shares: Arc<Shares>,
    connections: Arc<Connections>,
    egress: PressingOfEach,
    memory: PressingOfEach,
    is_near_egress: AtomicBool,
    /// Whether a client may ask as often as he likes: looked at for each request.
    asks_are_free: AtomicBool,
    began: Instant,
}

impl Overload {
    /// At rest.
    pub fn new(settings: Settings, shares: Arc<Shares>, now: Instant) -> Arc<Overload> {
        Arc::new(Overload {
            asks_are_free: (settings.client.requests_per_second == 0).into(),
            settings: ArcSwap::from_pointee(settings),
            clients: Clients::new(),
            handshakes: Mutex::default(),
            shares,
            connections: Arc::default(),
            egress: PressingOfEach::default(),
            memory: PressingOfEach::default(),
            is_near_egress: AtomicBool::new(false),
            began: now,
        })
    }

    /// Where nobody is refused.
    pub fn unlimited(now: Instant) -> Arc<Overload> {
        Overload::new(Settings::default(), Arc::default(), now)
    }

    /// Other settings from now on.
    pub fn adopt(&self, settings: Settings) {
        let is_free = settings.client.requests_per_second == 0;
        self.settings.store(Arc::new(settings));
        self.asks_are_free.store(is_free, Ordering::Release);
    }

    /// The settings of now.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// What each site may count on.
    pub fn shares(&self) -> &Arc<Shares> {
        &self.shares
    }

    /// The connections of one site.
    pub fn connected(&self, sharer: Sharer) -> u32 {
        self.connections.of(sharer)
    }

    /// How many are refused because of what is sent.
    pub fn egress_pressure(&self) -> Pressed {
        self.egress.load()
    }

    /// How many are refused because memory is waited for.
    pub fn memory_pressure(&self) -> Pressed {
        self.memory.load()
    }

    /// Whether what is sent is near what may be.
    pub fn is_near_egress(&self) -> bool {
        self.is_near_egress.load(Ordering::Relaxed)
    }

    /// Connections and requests of clients that were not counted, because there was no room.
    pub fn uncounted(&self) -> u64 {
        self.clients.uncounted()
    }

    /// Says how many of each site's are refused because of what is sent.
    fn egress_is(&self, pressed: &PressedOfEach, is_near: bool) {
        self.egress.store(pressed);
        self.is_near_egress.store(is_near, Ordering::Relaxed);
    }

    /// Says how many of each site's are refused because memory is waited for.
    fn memory_is(&self, pressed: &PressedOfEach) {
        self.memory.store(pressed);
    }

    fn since(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.began)
    }
}

/// Where one worker asks.
pub struct Gate {
    shared: Arc<Overload>,
    lag: Pressing,
    is_late: AtomicBool,
    turns: Turns,
    refused: [AtomicU64; Reason::ALL.len()],
}

impl Gate {
    /// Nobody waits at it.
    pub fn new(shared: Arc<Overload>) -> Gate {
        let (lag, is_late, turns, refused) = Default::default();
        Gate { shared, lag, is_late, turns, refused }
    }

    /// What it shares with the others.
    pub fn shared(&self) -> &Arc<Overload> {
        &self.shared
    }

    /// Says whether the worker is late, and the pressure that [`Pressures`] made of it.
    pub fn lag_is(&self, pressure: Pressed, is_late: bool) {
        self.is_late.store(is_late, Ordering::Relaxed);
        self.lag.store(pressure);
    }

    /// Whether the worker is late now.
    pub fn is_late(&self) -> bool {
        self.is_late.load(Ordering::Relaxed)
    }

    /// How many are refused because the worker is late.
    pub fn lag_pressure(&self) -> Pressed {
        self.lag.load()
    }

    /// How many were refused so.
    pub fn refused(&self, reason: Reason) -> u64 {
        self.refused[reason as usize].load(Ordering::Relaxed)
    }

    /// Lets a client have one connection more, as long as the place is held.
    ///
    /// # Errors
    /// He has as many as he may.
    pub fn connect(&self, client: IpAddr) -> Result<Option<Place>, Refusal> {
        let settings = self.shared.settings.load();
        if settings.client.connections_max == 0 || is_proxy(&settings, client) {
            return Ok(None);
        }
        let place = Clients::connect(&self.shared, client, &settings.client);
        place.map_err(|()| self.refusal(Reason::ClientConnections, RETRY_AFTER))
    }

    /// Lets a client ask once more.
    ///
    /// # Errors
    /// He asks more often than he may.
    pub fn admit_request(&self, client: IpAddr, now: Instant) -> Result<(), Refusal> {
        if self.shared.asks_are_free.load(Ordering::Acquire) {
            return Ok(());
        }
        let settings = self.shared.settings.load();
        if settings.client.requests_per_second == 0 || is_proxy(&settings, client) {
            return Ok(());
        }
        let asked = self.shared.clients.ask(client, &settings.client, self.shared.since(now));
        asked.map_err(|wait| self.refusal(Reason::ClientRequests, wait))
    }

    /// Lets a handshake begin.
    ///
    /// # Errors
    /// There were as many as there may be, or the worker is late and this one is to be refused.
    pub fn admit_handshake(&self, now: Instant) -> Result<(), Refusal> {
        // As long as it is not known who has more than his share, some of each are let in: nobody
        // sees before the handshake whose viewer he is.
        let shares = &self.shared.shares;
        let is_known = shares.beyond_count(Resource::Work) > 0 || !shares.are_many();
        let most = if is_known { ALL_NEW } else { NOT_ALL };
        if self.turns.is_refused(Turn::Handshake, self.lag_pressure().all.min(most)) {
            return Err(self.refusal(Reason::Lag, RETRY_AFTER));
        }
        let Some(per_second) = self.shared.settings.load().handshakes_per_second else {
            return Ok(());
        };
        let mut bucket = self.shared.handshakes.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = bucket.take(self.shared.since(now), per_second);
        taken.map_err(|wait| self.refusal(Reason::Handshakes, wait))
    }

    /// Lets in who asks for the first time, as a viewer of a site.
    ///
    /// # Errors
    /// This one is to be refused.
    pub fn admit_viewer(&self, arrived: Arrived, sharer: Sharer) -> Result<Connected, Refusal> {
        let let_in = self.let_in(arrived, sharer);
        if let_in.is_err() {
            self.shared.shares.was_refused(sharer);
        }
        let_in
    }

    fn let_in(&self, arrived: Arrived, sharer: Sharer) -> Result<Connected, Refusal> {
        // First what he bears for others: he is told so.
        if self.turns.is_refused(Turn::NewBeyond(sharer), self.pressure_beyond(sharer)) {
            return Err(self.refusal(Reason::Share, RETRY_AFTER));
        }
        self.admit_new(arrived, Some(sharer))?;
        let (shares, most) = (&self.shared.shares, self.shared.settings.load().connections_max);
        let connected = self.shared.connections.enter(sharer, shares, most);
        connected.ok_or_else(|| self.refusal(Reason::Connections, RETRY_AFTER))
    }

    /// Whether it matters now which site is asked for by who has been let in.
    pub fn asks_whose(&self) -> bool {
        let (egress, memory) = (self.shared.egress.most(), self.shared.memory.most());
        self.lag.beyond().max(egress).max(memory) > ALL_NEW
    }

    /// Lets who has been let in ask once more, of a site.
    ///
    /// # Errors
    /// This one is to be refused: the site has more than its share.
    pub fn admit_again(&self, sharer: Sharer) -> Result<(), Refusal> {
        let pressure = self.pressure_beyond(sharer).saturating_sub(ALL_NEW);
        match self.turns.is_refused(Turn::Again(sharer), pressure.min(NEXT_TO_ALL)) {
            true => Err(self.refusal(Reason::ShareAgain, RETRY_AFTER)),
            false => Ok(()),
        }
    }

    fn pressure_beyond(&self, sharer: Sharer) -> u32 {
        let is_beyond = self.shared.shares.is_beyond(Resource::Work, sharer);
        let lag = if is_beyond { self.lag.beyond() } else { 0 };
        let [egress, memory] = [&self.shared.egress, &self.shared.memory].map(|of| of.of(sharer));
        lag.max(egress.beyond).max(memory.beyond)
    }

    /// What all bear where the worker is late, but for a site that has no more than its share while
    /// another has. Who is refused costs work too, so that he may seem to have more than he gets:
    /// where the others want much of it, they are not spared.
    fn lag_of_all(&self, sharer: Option<Sharer>) -> u32 {
        let (shares, work) = (&self.shared.shares, Resource::Work);
        let is_spared = |sharer| {
            let wants_little = shares.pressed_max(work) < pressure::ALL_OF_ONE;
            shares.beyond_count(work) > 0 && !shares.is_beyond(work, sharer) && wants_little
        };
        match sharer.is_some_and(is_spared) {
            true => 0,
            false => self.lag_pressure().all,
        }
    }

    /// Lets in who asks for the first time, where it is not known whose viewer he is.
    ///
    /// # Errors
    /// This one is to be refused.
    pub fn admit_unknown(&self, arrived: Arrived) -> Result<(), Refusal> {
        self.admit_new(arrived, None)
    }

    fn admit_new(&self, arrived: Arrived, sharer: Option<Sharer>) -> Result<(), Refusal> {
        // Who has shaken hands was asked about the worker before.
        let lag = if arrived == Arrived::Plain { self.lag_of_all(sharer) } else { 0 };
        let pressed = |pressing: &PressingOfEach| match sharer {
            // About what is for others he was asked before.
            Some(sharer) => pressing.of(sharer).all,
            None => pressing.most(),
        };
        let (memory, egress) = (pressed(&self.shared.memory), pressed(&self.shared.egress));
        let pressures = [(lag, Reason::Lag), (memory, Reason::Memory), (egress, Reason::Egress)];
        let turn = sharer.map_or(Turn::Unknown, Turn::New);
        match pressures.into_iter().max_by_key(|(pressure, _)| *pressure) {
            Some((pressure, reason)) if self.turns.is_refused(turn, pressure) => {
                Err(self.refusal(reason, RETRY_AFTER))
            }
            _ => Ok(()),
        }
    }

    /// Lets an origin be asked for who has been let in, of a site.
    ///
    /// # Errors
    /// This one is to be refused.
    pub fn admit_miss(&self, sharer: Sharer) -> Result<(), Refusal> {
        let pressure = self.lag_of_all(Some(sharer)).saturating_sub(ALL_NEW);
        match self.turns.is_refused(Turn::Miss, pressure.min(NOT_ALL)) {
            true => Err(self.refusal(Reason::Miss, RETRY_AFTER)),
            false => Ok(()),
        }
    }

    fn refusal(&self, reason: Reason, retry_after: Duration) -> Refusal {
        self.refused[reason as usize].fetch_add(1, Ordering::Relaxed);
        Refusal { reason, retry_after }
    }
}

/// How a new viewer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrived {
    /// Without TLS.
    Plain,
    /// By a handshake.
    ShakenHands,
}

fn is_proxy(settings: &Settings, client: IpAddr) -> bool {
    settings.proxies.iter().any(|network| network.holds(client))
}

/// One in ten is never refused.
const NOT_ALL: u32 = 900;
/// One in a hundred is never refused: a machine that comes back at once comes a hundred times.
const NEXT_TO_ALL: u32 = 990;
const RETRY_AFTER: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use crate::object::SiteId;

    use super::*;

    fn gate(settings: Settings) -> (Gate, Instant) {
        let now = Instant::now();
        (Gate::new(Overload::new(settings, Arc::default(), now)), now)
    }

    const SITE: Sharer = Sharer::of(SiteId(0));
    const FLOOD: Sharer = Sharer::of(SiteId(1));

    fn on_all(all: u32) -> Pressed {
        Pressed { beyond: 0, all }
    }

    fn on(sharer: Sharer, thousandths: u32) -> PressedOfEach {
        let mut of = [0; SHARERS_MAX];
        of[sharer.index()] = thousandths;
        PressedOfEach { of, for_others: FLOOD.bit() }
    }

    /// A gate where one site has had a tenth, and the other the rest.
    fn gate_of_two(settings: Settings) -> Gate {
        let (gate, _) = gate(settings);
        let shares = gate.shared().shares();
        shares.set([(SiteId(0), 1), (SiteId(1), 1)]);
        shares.after_a_second(&[(10, 0), (90, 0)], 1);
        gate
    }

    #[test]
    fn who_has_more_than_his_share_is_refused_and_the_other_is_not() {
        for (beyond, expected) in
            [(0, [0, 0]), (500, [50, 0]), (1_500, [100, 50]), (2_000, [100, 99])]
        {
            let gate = gate_of_two(Settings::default());
            gate.lag_is(Pressed { beyond, all: 0 }, true);
            assert_eq!(gate.asks_whose(), beyond > 1_000);
            let of = |ask: &dyn Fn() -> bool| (0..100).filter(|_| ask()).count();
            let refused = |sharer| {
                [
                    of(&|| gate.admit_viewer(Arrived::ShakenHands, sharer).is_err()),
                    of(&|| gate.admit_again(sharer).is_err()),
                ]
            };
            assert_eq!((refused(FLOOD), refused(SITE)), (expected, [0, 0]), "{beyond}");
            let counted = [Reason::Share, Reason::ShareAgain].map(|reason| gate.refused(reason));
            assert_eq!(counted, expected.map(|refused| refused as u64));
        }
    }

    #[test]
    fn who_has_more_memory_than_his_share_is_refused_where_it_is_waited_for() {
        let gate = gate_of_two(Settings::default());
        let refused = |sharer| gate.admit_viewer(Arrived::ShakenHands, sharer).map(drop);
        gate.shared().memory_is(&on(FLOOD, 1_000));
        assert_eq!(refused(FLOOD).unwrap_err().reason, Reason::Share);
        assert_eq!(refused(SITE), Ok(()), "he has less");
        assert_eq!(gate.admit_unknown(Arrived::Plain).unwrap_err().reason, Reason::Memory);

        let (alone, _) = self::gate(Settings::default());
        alone.shared().memory_is(&on(SITE, 1_000));
        let refusal = alone.admit_viewer(Arrived::ShakenHands, SITE).unwrap_err();
        assert_eq!(refusal, Refusal { reason: Reason::Memory, retry_after: RETRY_AFTER });
    }

    #[test]
    fn who_comes_while_another_is_sent_too_much_is_let_in() {
        let (gate, _) = gate(Settings::default());
        let gates = [Arc::new(gate)];
        gates[0].shared().shares().set([(SiteId(0), 1), (SiteId(1), 1)]);
        let (mut watch, mut is_let_in, mut asked) = (Watch::default(), false, vec![]);
        let mut seen = Seen {
            served: NOTHING_SERVED,
            sent_bytes: 10 << 20,
            sent_bytes_max: Some(9 << 20),
            is_near: true,
            in_use: InUse { bytes: [0; SHARERS_MAX], beyond: 0 },
            is_short: false,
            ram_bytes: 1,
        };
        for period in 1..200 {
            // The flood's viewers were there first, and alone are sent more than may be.
            seen.served[1].bytes += 1 << 20;
            seen.served[0].bytes += if is_let_in { 1 << 10 } else { 0 };
            watch.look(&seen, &gates);
            if period % 20 == 0 {
                is_let_in = gates[0].admit_viewer(Arrived::ShakenHands, SITE).is_ok();
                asked.push(is_let_in);
                assert!(gates[0].admit_viewer(Arrived::ShakenHands, FLOOD).is_err(), "{period}");
            }
        }
        assert_eq!(asked, [true; 9]);
    }

    #[test]
    fn before_it_is_known_whose_viewers_make_a_worker_late_some_shake_hands() {
        let now = Instant::now();
        for (weights, served, expected) in [
            (&[1][..], &[(90, 0)][..], 0),
            (&[1, 1], &[(90, 0)], 10),
            (&[1, 1], &[(90, 0), (10, 0)], 0),
        ] {
            let gate = Gate::new(Overload::new(Settings::default(), Arc::default(), now));
            let shares = gate.shared().shares();
            shares.set((0..).map(SiteId).zip(weights.iter().copied()));
            shares.after_a_second(served, 1);
            gate.lag_is(on_all(2_000), true);
            let let_in = (0..100).filter(|_| gate.admit_handshake(now).is_ok()).count();
            assert_eq!(let_in, expected, "{weights:?} {served:?}");
        }
    }

    #[test]
    fn who_is_refused_for_others_is_told_so_and_nobody_else_is() {
        let gate = gate_of_two(Settings::default());
        let mut of = [0; SHARERS_MAX];
        (of[SITE.index()], of[FLOOD.index()]) = (1_000, 900);
        gate.shared().egress_is(&PressedOfEach { of, for_others: FLOOD.bit() }, true);
        let why = |sharer| gate.admit_viewer(Arrived::ShakenHands, sharer).unwrap_err().reason;
        assert!(gate.admit_viewer(Arrived::ShakenHands, FLOOD).is_ok(), "one of ten");
        assert_eq!([SITE, FLOOD].map(why), [Reason::Egress, Reason::Share]);
        assert_eq!(gate.shared().egress_pressure(), Pressed { beyond: 900, all: 1_000 });
    }

    #[test]
    fn where_each_bears_it_by_himself_nobody_takes_a_turn_of_another() {
        let gate = gate_of_two(Settings::default());
        let mut of = [0; SHARERS_MAX];
        (of[SITE.index()], of[FLOOD.index()]) = (100, 900);
        gate.shared().egress_is(&PressedOfEach { of, for_others: 0 }, true);
        let mut refused = [0; 2];
        for _ in 0..100 {
            for (refused, sharer) in refused.iter_mut().zip([SITE, FLOOD]) {
                *refused += u32::from(gate.admit_viewer(Arrived::ShakenHands, sharer).is_err());
            }
        }
        assert_eq!(refused, [10, 90]);
    }

    #[test]
    fn what_is_refused_for_one_reason_takes_no_turn_of_another() {
        let gate = gate_of_two(Settings::default());
        gate.lag_is(Pressed { beyond: 1_000, all: 500 }, true);
        let asked = (0..100).map(|_| {
            assert!(gate.admit_viewer(Arrived::Plain, FLOOD).is_err());
            assert!(gate.admit_viewer(Arrived::Plain, SITE).is_ok(), "who is within his share");
            gate.admit_unknown(Arrived::Plain)
        });
        assert_eq!(asked.filter(Result::is_ok).count(), 50, "of those nobody knows");
        assert_eq!(gate.refused(Reason::Share), 100);

        let (gate, now) = self::gate(Settings::default());
        gate.lag_is(on_all(500), true);
        gate.shared().egress_is(&on(SITE, 500), true);
        let shaken = (0..100).filter_map(|_| gate.admit_handshake(now).ok());
        let asked = shaken.map(|()| gate.admit_viewer(Arrived::ShakenHands, SITE).is_ok());
        let asked: Vec<bool> = asked.collect();
        assert_eq!((asked.len(), asked.iter().filter(|is_let_in| **is_let_in).count()), (50, 25));
    }

    #[test]
    fn who_has_no_more_than_his_share_is_spared_what_another_has() {
        for (his, egress, work) in [(10, 0, 0), (20, 0, 50)] {
            let (gate, _) = gate(Settings::default());
            let shares = gate.shared().shares();
            shares.set([(SiteId(0), 1), (SiteId(1), 1)]);
            shares.after_a_second(&[(his, his), (100 - his, 100 - his)], 1);
            let refused = |sharer| {
                let asked = (0..100).map(|_| gate.admit_viewer(Arrived::Plain, sharer));
                asked.filter(Result::is_err).count()
            };
            gate.shared().egress_is(&on(FLOOD, 500), true);
            assert_eq!((refused(SITE), refused(FLOOD)), (egress, 50), "{his}: by egress");
            gate.shared().egress_is(&on(FLOOD, 0), true);
            gate.lag_is(on_all(500), true);
            assert_eq!((refused(SITE), refused(FLOOD)), (work, 50), "{his}: by work");
        }
    }

    #[test]
    fn of_the_last_eighth_of_connections_each_site_has_its_share() {
        let gate = gate_of_two(Settings { connections_max: 16, ..Settings::default() });
        let connect = |sharer, count: usize| -> Vec<Connected> {
            (0..count).filter_map(|_| gate.admit_viewer(Arrived::Plain, sharer).ok()).collect()
        };
        let mut flood = connect(FLOOD, 20);
        let others = connect(SITE, 20);
        assert_eq!((flood.len(), others.len()), (14, 8), "borrowed, but for an eighth");
        flood.truncate(2);
        drop(others);
        assert_eq!(connect(SITE, 20).len(), 12, "given back");
        drop(flood);
        let connected = [SITE, FLOOD].map(|sharer| gate.shared().connected(sharer));
        assert_eq!((connected, gate.refused(Reason::Connections)), ([0, 0], 6 + 12 + 8));
        let alone = gate_of_two(Settings { connections_max: 16, ..Settings::default() });
        alone.shared().shares().set([(SiteId(0), 1)]);
        let all: Vec<_> =
            (0..16).map(|_| alone.admit_viewer(Arrived::Plain, SITE).unwrap()).collect();
        assert_eq!(all.len(), 16, "a site alone has them all");
    }

    #[test]
    fn of_the_last_connections_any_site_has_one() {
        let gate = gate_of_two(Settings { connections_max: 1_000, ..Settings::default() });
        gate.shared().shares().set([(SiteId(0), 1), (SiteId(1), 1_000)]);
        let enter = |sharer| gate.admit_viewer(Arrived::Plain, sharer);
        let flood: Vec<Connected> = (0..900).filter_map(|_| enter(FLOOD).ok()).collect();
        let first = enter(SITE);
        assert!(flood.len() == 900 && first.is_ok(), "{}", flood.len());
        assert_eq!(enter(SITE).unwrap_err().reason, Reason::Connections);
    }

    /// Who is refused of a hundred that ask: of plain new viewers, of those after a handshake, of
    /// handshakes, of misses.
    fn refused(gate: &Gate, now: Instant) -> [usize; 4] {
        let of = |ask: &dyn Fn() -> bool| (0..100).filter(|_| ask()).count();
        [
            of(&|| gate.admit_viewer(Arrived::Plain, SITE).is_err()),
            of(&|| gate.admit_viewer(Arrived::ShakenHands, SITE).is_err()),
            of(&|| gate.admit_handshake(now).is_err()),
            of(&|| gate.admit_miss(SITE).is_err()),
        ]
    }

    #[test]
    fn new_viewers_are_refused_before_misses_and_shares_are_exact() {
        for (lag, egress, expected) in [
            (0, 0, [0, 0, 0, 0]),
            (0, 250, [25, 25, 0, 0]),
            (500, 0, [50, 0, 50, 0]),
            (500, 250, [50, 25, 50, 0]),
            (0, 1000, [100, 100, 0, 0]),
            (1000, 0, [100, 0, 100, 0]),
            (1100, 0, [100, 0, 100, 10]),
            (2000, 1000, [100, 100, 100, 90]),
        ] {
            let (gate, now) = gate(Settings::default());
            gate.lag_is(on_all(lag), true);
            gate.shared().egress_is(&on(SITE, egress), false);
            assert_eq!(refused(&gate, now), expected, "lag {lag}, egress {egress}");
        }
    }

    #[test]
    fn the_greater_pressure_is_the_reason() {
        let (gate, _) = gate(Settings::default());
        gate.lag_is(on_all(900), true);
        gate.shared().egress_is(&on(SITE, 1000), true);
        assert_eq!(gate.admit_viewer(Arrived::Plain, SITE).unwrap_err().reason, Reason::Egress);
        gate.lag_is(on_all(1100), true);
        let refusal = gate.admit_viewer(Arrived::Plain, SITE).unwrap_err();
        assert_eq!(refusal, Refusal { reason: Reason::Lag, retry_after: RETRY_AFTER });
        let counts = Reason::ALL.map(|reason| gate.refused(reason));
        assert_eq!(counts, [0, 0, 0, 0, 0, 0, 1, 1, 0, 0]);
    }

    #[test]
    fn handshakes_are_refused_beyond_their_rate() {
        let settings = Settings { handshakes_per_second: Some(10), ..Settings::default() };
        let (gate, now) = gate(settings);
        let let_in = |at: u64| {
            let at = now + Duration::from_secs(at);
            (0..100).filter(|_| gate.admit_handshake(at).is_ok()).count()
        };
        assert_eq!([let_in(0), let_in(1), let_in(1), let_in(60)], [20, 10, 0, 20]);
    }

    #[test]
    fn other_settings_count_from_then_on() {
        let (gate, now) = gate(Settings::default());
        let client = "192.0.2.1".parse().unwrap();
        let let_in = || (0..50).filter(|_| gate.admit_request(client, now).is_ok()).count();
        let free = let_in();
        let limits = ClientLimits { requests_per_second: 1, ..Default::default() };
        gate.shared().adopt(Settings { client: limits, ..Settings::default() });
        let limited = let_in();
        gate.shared().adopt(Settings::default());
        assert_eq!([free, limited, let_in()], [50, 2, 50]);
    }

    #[test]
    fn a_proxy_is_no_client() {
        let client =
            ClientLimits { connections_max: 1, requests_per_second: 1, ..Default::default() };
        let proxies = vec!["10.0.0.0/8".parse().unwrap()];
        let (gate, now) = gate(Settings { client, proxies, ..Settings::default() });
        let many = |ip: &str| {
            let ip: IpAddr = ip.parse().unwrap();
            let asked = (0..50).filter(|_| gate.admit_request(ip, now).is_ok()).count();
            let places: Vec<_> = (0..50).filter_map(|_| gate.connect(ip).ok()).collect();
            (asked, places.len())
        };
        assert_eq!([many("10.0.0.1"), many("192.0.2.1")], [(50, 50), (2, 1)]);
    }
}
