//! What is refused when there is more to do than can be done, and in which order.
//!
//! 1. What one client asks for beyond `limits.client`: a connection is closed, a request gets 429.
//! 2. Handshakes beyond `limits.handshakes`: closed before anything is reckoned.
//! 3. New viewers, a growing share of them, while more is sent than `limits.egress` or workers are
//!    later than `limits.lag`: 503. Over TLS and late: closed before the handshake.
//! 4. Misses, a growing share, when no new viewer is let in and workers are still late: 503.
//!
//! What has begun is never refused, nor a hit to who has been let in. Each answer has a
//! `Retry-After`. Memory has an order of its own (`memory.rs`), and so have volumes (`ssd.bypass`).
//! Nothing here sleeps or reads a clock; one [`Gate`] for each worker is asked.

mod clients;
mod pressure;
mod rate;

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

pub use clients::{ClientLimits, Place};
pub use pressure::{ALL_NEW, ALL_NEW_AND_MISSES, Egress, Lag, Near, PERIOD, Pressure, SAMPLES};

use self::clients::Clients;
use self::rate::Bucket;
use crate::network::Network;

/// Why somebody is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// One client has as many connections as he may.
    ClientConnections,
    /// One client asks more often than he may.
    ClientRequests,
    /// There were as many handshakes in this second as there may be.
    Handshakes,
    /// A new viewer, and a worker that is late.
    Lag,
    /// A new viewer, and more is sent than may be.
    Egress,
    /// A miss, and a worker that is late.
    Miss,
}

impl Reason {
    /// In the order in which they are refused.
    pub const ALL: [Reason; 6] = [
        Reason::ClientConnections,
        Reason::ClientRequests,
        Reason::Handshakes,
        Reason::Lag,
        Reason::Egress,
        Reason::Miss,
    ];

    /// As metrics call it.
    pub fn word(self) -> &'static str {
        match self {
            Reason::ClientConnections => "client_connections",
            Reason::ClientRequests => "client_requests",
            Reason::Handshakes => "handshakes",
            Reason::Lag => "lag",
            Reason::Egress => "egress",
            Reason::Miss => "miss",
        }
    }
}

/// A refusal, and when it is worth asking again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// After this.
    pub retry_after: Duration,
}

/// What is too much.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Later than this, for half a second, a worker has too much to do; none: never.
    pub lag_max: Option<Duration>,
    /// More than this is too much to send; none: nothing is.
    pub egress_bytes_per_second: Option<u64>,
    /// TLS handshakes in a second; none: as many as come.
    pub handshakes_per_second: Option<u32>,
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
    egress: AtomicU32,
    is_near_egress: AtomicBool,
    /// Whether a client may ask as often as he likes: looked at for each request.
    asks_are_free: AtomicBool,
    began: Instant,
}

impl Overload {
    /// At rest.
    pub fn new(settings: Settings, now: Instant) -> Arc<Overload> {
        Arc::new(Overload {
            asks_are_free: (settings.client.requests_per_second == 0).into(),
            settings: ArcSwap::from_pointee(settings),
            clients: Clients::new(),
            handshakes: Mutex::default(),
            egress: AtomicU32::new(0),
            is_near_egress: AtomicBool::new(false),
            began: now,
        })
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

    /// How many new viewers are refused because of what is sent, in thousandths.
    pub fn egress_pressure(&self) -> u32 {
        self.egress.load(Ordering::Relaxed)
    }

    /// Whether what is sent is near what may be.
    pub fn is_near_egress(&self) -> bool {
        self.is_near_egress.load(Ordering::Relaxed)
    }

    /// Connections and requests of clients that were not counted, because there was no room.
    pub fn uncounted(&self) -> u64 {
        self.clients.uncounted()
    }

    /// Says what was measured of what is sent.
    pub fn egress_is(&self, pressure: u32, is_near: bool) {
        self.egress.store(pressure, Ordering::Relaxed);
        self.is_near_egress.store(is_near, Ordering::Relaxed);
    }

    fn since(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.began)
    }
}

/// Where one worker asks.
pub struct Gate {
    shared: Arc<Overload>,
    lag: AtomicU32,
    /// What was not refused of a share yet, in thousandths of a viewer and of a miss.
    turns: [AtomicU32; 2],
    refused: [AtomicU64; Reason::ALL.len()],
}

impl Gate {
    /// Nobody waits at it.
    pub fn new(shared: Arc<Overload>) -> Gate {
        let (lag, turns, refused) = Default::default();
        Gate { shared, lag, turns, refused }
    }

    /// What it shares with the others.
    pub fn shared(&self) -> &Arc<Overload> {
        &self.shared
    }

    /// Says how late the worker is: the pressure that [`Pressure`] made of it.
    pub fn lag_is(&self, pressure: u32) {
        self.lag.store(pressure, Ordering::Relaxed);
    }

    /// How many are refused because the worker is late, in thousandths: of new viewers, and above
    /// a thousand of misses too.
    pub fn lag_pressure(&self) -> u32 {
        self.lag.load(Ordering::Relaxed)
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
        if self.is_refused(NEW, self.lag_pressure()) {
            return Err(self.refusal(Reason::Lag, RETRY_AFTER));
        }
        let Some(per_second) = self.shared.settings.load().handshakes_per_second else {
            return Ok(());
        };
        let mut bucket = self.shared.handshakes.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = bucket.take(self.shared.since(now), per_second);
        taken.map_err(|wait| self.refusal(Reason::Handshakes, wait))
    }

    /// Lets in who asks for the first time.
    ///
    /// # Errors
    /// This one is to be refused.
    pub fn admit_viewer(&self, arrived: Arrived) -> Result<(), Refusal> {
        let egress = self.shared.egress_pressure();
        // Who has shaken hands was asked about the worker before.
        let lag = if arrived == Arrived::Plain { self.lag_pressure() } else { 0 };
        if !self.is_refused(NEW, egress.max(lag)) {
            return Ok(());
        }
        let reason = if lag > egress { Reason::Lag } else { Reason::Egress };
        Err(self.refusal(reason, RETRY_AFTER))
    }

    /// Lets an origin be asked for who has been let in.
    ///
    /// # Errors
    /// This one is to be refused.
    pub fn admit_miss(&self) -> Result<(), Refusal> {
        match self.is_refused(MISS, self.lag_pressure().saturating_sub(ALL_NEW)) {
            true => Err(self.refusal(Reason::Miss, RETRY_AFTER)),
            false => Ok(()),
        }
    }

    /// Whether it is the turn of this one, where so many thousandths are refused. One thread asks.
    fn is_refused(&self, kind: usize, thousandths: u32) -> bool {
        if thousandths == 0 {
            return false;
        }
        let turn = self.turns[kind].load(Ordering::Relaxed) + thousandths.min(ALL_NEW);
        self.turns[kind].store(turn % ALL_NEW, Ordering::Relaxed);
        turn >= ALL_NEW
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

const NEW: usize = 0;
const MISS: usize = 1;
const RETRY_AFTER: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(settings: Settings) -> (Gate, Instant) {
        let now = Instant::now();
        (Gate::new(Overload::new(settings, now)), now)
    }

    /// Who is refused of a hundred that ask: of plain new viewers, of those after a handshake, of
    /// handshakes, of misses.
    fn refused(gate: &Gate, now: Instant) -> [usize; 4] {
        let of = |ask: &dyn Fn() -> bool| (0..100).filter(|_| ask()).count();
        [
            of(&|| gate.admit_viewer(Arrived::Plain).is_err()),
            of(&|| gate.admit_viewer(Arrived::ShakenHands).is_err()),
            of(&|| gate.admit_handshake(now).is_err()),
            of(&|| gate.admit_miss().is_err()),
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
            (2000, 1000, [100, 100, 100, 100]),
        ] {
            let (gate, now) = gate(Settings::default());
            gate.lag_is(lag);
            gate.shared().egress_is(egress, false);
            assert_eq!(refused(&gate, now), expected, "lag {lag}, egress {egress}");
        }
    }

    #[test]
    fn the_greater_pressure_is_the_reason() {
        let (gate, _) = gate(Settings::default());
        gate.lag_is(900);
        gate.shared().egress_is(1000, true);
        assert_eq!(gate.admit_viewer(Arrived::Plain).unwrap_err().reason, Reason::Egress);
        gate.lag_is(1100);
        let refusal = gate.admit_viewer(Arrived::Plain).unwrap_err();
        assert_eq!(refusal, Refusal { reason: Reason::Lag, retry_after: RETRY_AFTER });
        let counts = Reason::ALL.map(|reason| gate.refused(reason));
        assert_eq!(counts, [0, 0, 0, 1, 1, 0]);
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
