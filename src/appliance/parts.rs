//! What every thread of the appliance shares, built once from the configuration.
//!
//! Reserves what is reserved for good: heads and connections. Starts no thread and binds no port.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::doors::doors_bytes;
use super::drain::Drains;
use super::entrances::Places;
use super::groundwork::Groundwork;
use super::reload::Current;
use super::steering::{self, Steering};
use super::takeover::{Hurried, PredecessorState};
use super::{ApplianceError, control_plane, fleet, load, routed, ssd, usage};
use crate::access_log::{self, AccessLog};
use crate::acme::{Challenges, Orders};
use crate::cache::heads::Heads;
use crate::cache::ram::Ram;
use crate::cache::ssd::{Ssd, SsdParts};
use crate::config::{Certificates, Config, Limits, ListenerKind, SsdVolume};
use crate::control::Readiness;
use crate::delivery::{Delivery, Shared};
use crate::door::CurrentDoors;
use crate::fill::collapse::{Openings, Runs};
use crate::fill::{Filler, Turns};
use crate::limits::{
    CLIENTS_BYTES, CONNECTION_BYTES, PIECE_SIZE_BYTES, PREFETCHES_MAX, PROCESS_BYTES, PURGES_BYTES,
    RECENT_BYTES_MAX, RECENT_BYTES_MIN, RECENT_SHARE, SLOT_SIZE_BYTES, TLS_CONNECTION_BYTES,
};
use crate::memory::{Class, Governor, Limit, Reservation, Use};
use crate::message::forwarded::Forwarders;
use crate::metrics::Metrics;
use crate::moment::unix_seconds;
use crate::object::VersionNumbers;
use crate::overload::Gate;
use crate::purge::{Keeper, Purges, Tokens};
use crate::server::{ConnectionCounts, ServerContext, ServerSettings, Wishes};
use crate::shipping::held_bytes;
use crate::site::CurrentSites;
use crate::usage::keeper::Usage;

/// What every thread shares.
pub(super) struct Parts {
    pub(super) config: Config,
    pub(super) heads: Arc<Heads>,
    pub(super) ram: Arc<Ram>,
    pub(super) ssd: Arc<Ssd>,
    pub(super) ssd_watch: ssd::Watch,
    pub(super) purges: Arc<Purges>,
    /// Taken at the end.
    pub(super) keeper: Mutex<Option<Keeper>>,
    pub(super) governor: Arc<Governor>,
    pub(super) budget: Budget,
    pub(super) filler: Arc<Filler>,
    pub(super) metrics: Arc<Metrics>,
    /// Of sites, where it is kept.
    pub(super) usage: Option<Arc<Usage>>,
    /// How it stands as a box, where it is one.
    pub(super) fleet: Option<Arc<fleet::Standing>>,
    pub(super) log: AccessLog,
    /// Whoever follows this process ships what waits, to the receiver that is named now.
    pub(super) stop_shipping: CancellationToken,
    pub(super) readiness: Readiness,
    /// What is wanted of viewers' connections.
    pub(super) wishes: Wishes,
    /// What an operator wants of the appliance.
    pub(super) drains: Drains,
    /// The process before this one.
    pub(super) predecessor: PredecessorState,
    /// What has begun is to end sooner, when another process serves.
    pub(super) hurried: Hurried,
    pub(super) permits: Arc<Semaphore>,
    pub(super) connections: Vec<Arc<ConnectionCounts>>,
    /// One for each worker.
    pub(super) gates: Vec<Arc<Gate>>,
    pub(super) started: Instant,
    pub(super) live: Live,
    _heads_reserved: Option<Reservation>,
    _connections_reserved: Option<Reservation>,
}

/// What a reload puts in the place of what was; who has begun goes on with what was.
pub(super) struct Live {
    pub(super) current: Mutex<Current>,
    /// Permits there are for viewers' connections.
    pub(super) connections_max: AtomicUsize,
    /// When the configuration that is served by was read, in seconds since 1970.
    pub(super) read_at: AtomicU64,
    /// The one that was read last was refused.
    pub(super) is_refused: AtomicBool,
    pub(super) sites: Arc<CurrentSites>,
    pub(super) certificates: Arc<ArcSwap<Certificates>>,
    pub(super) challenges: Arc<Challenges>,
    pub(super) orders: Orders,
    pub(super) server: Arc<ArcSwap<ServerSettings>>,
    pub(super) token: Arc<ArcSwapOption<Tokens>>,
    /// What it and the control plane beside it know of each other, if there is one.
    pub(super) control: control_plane::Beside,
    pub(super) forwarders: Arc<ArcSwap<Forwarders>>,
    /// Who is let in where tokens are asked for.
    pub(super) doors: Arc<CurrentDoors>,
    /// Where viewers are, where that decides whether they come in.
    pub(super) places: Places,
    /// The snapshot that it goes by as a box of a fleet, if there is one.
    pub(super) fleet: Arc<fleet::Current>,
    /// The volumes in use, as they are written.
    pub(super) volumes: Arc<ArcSwap<Vec<SsdVolume>>>,
    pub(super) steering: Steering,
}

impl Live {
    pub(super) fn new(config: &Config, budget: &Budget) -> Live {
        let server = viewer_settings(config);
        Live {
            current: Mutex::new(Current::new(config.clone(), budget.connections_max)),
            connections_max: AtomicUsize::new(budget.connections_max),
            read_at: AtomicU64::new(unix_seconds(SystemTime::now())),
            is_refused: AtomicBool::new(false),
            sites: Arc::new(CurrentSites::from_pointee(config.sites.clone())),
            certificates: Arc::new(ArcSwap::from_pointee(config.certificates.clone())),
            challenges: Arc::default(),
            orders: Orders::default(),
            server: Arc::new(ArcSwap::from_pointee(server)),
            token: Arc::new(ArcSwapOption::from_pointee(config.admin.token.clone())),
            control: control_plane::Beside::of(config.control.as_ref()),
            forwarders: Arc::new(ArcSwap::from_pointee(forwarders(config))),
            doors: Arc::default(),
            places: Places::default(),
            fleet: Arc::default(),
            volumes: Arc::new(ArcSwap::from_pointee(config.ssd.volumes.clone())),
            steering: Steering::of(config),
        }
    }
}

impl Parts {
    /// # Errors
    /// The volume that cannot be used, or the thread that cannot be had.
    pub(super) fn build(
        config: Config,
        groundwork: Groundwork,
        fill_runtime: &Runtime,
        log: AccessLog,
        start: ssd::Start,
    ) -> Result<Parts, ApplianceError> {
        let Groundwork { budget, shares, governor, ram, client, live } = groundwork;
        let (heads, metrics) = (Arc::new(Heads::new(budget.heads_bytes)), Metrics::new());
        let tier = SsdParts {
            ram: ram.clone(),
            heads: heads.clone(),
            governor: governor.clone(),
            block_size: config.block_size,
            runtime: fill_runtime.handle().clone(),
            sites: live.sites.clone(),
            bypass_bytes_per_second: config.ssd.bypass_bytes,
        };
        let (ssd, ssd_watch) = ssd::start(&config, tier, start)?;
        let (purges, keeper) = purges(&config, live.sites.clone())?;
        let filler = Arc::new(Filler {
            runtime: fill_runtime.handle().clone(),
            heads: heads.clone(),
            ram: ram.clone(),
            ssd: ssd.clone(),
            purges: purges.clone(),
            client,
            governor: governor.clone(),
            block_size: config.block_size,
            window_bytes: config.fill.window_bytes,
            turns: Turns::new(config.fill.runs_max, shares.clone()),
            prefetches: Arc::new(Semaphore::new(PREFETCHES_MAX)),
            versions: VersionNumbers::of_epoch(epoch()),
            counters: metrics.for_thread(),
            runs: Runs::new(),
            openings: Openings::new(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        let reserve = |purpose, bytes| governor.try_reserve(purpose, Class::Viewer, bytes);
        Ok(Parts {
            _heads_reserved: reserve(Use::Heads, budget.heads_bytes),
            _connections_reserved: reserve(Use::Connections, budget.connections_bytes()),
            permits: Arc::new(Semaphore::new(budget.connections_max)),
            heads,
            ram,
            ssd,
            ssd_watch,
            purges,
            keeper: Mutex::new(Some(keeper)),
            filler,
            usage: usage::of(&config, &metrics, &live.sites),
            fleet: fleet::resumed(&config, &live.fleet, &live.steering.fleet),
            metrics,
            log,
            stop_shipping: CancellationToken::new(),
            readiness: Readiness::new(),
            wishes: Wishes::default(),
            drains: Drains::default(),
            predecessor: PredecessorState::default(),
            hurried: Hurried::default(),
            connections: (0..config.threads.workers).map(|_| Arc::default()).collect(),
            gates: load::gates(&config, budget.connections_max, shares),
            started: Instant::now(),
            live,
            budget,
            governor,
            config,
        })
    }

    pub(super) fn context(&self, worker: usize) -> Arc<ServerContext> {
        Arc::new(ServerContext {
            settings: self.live.server.clone(),
            permits: self.permits.clone(),
            counts: self.connections[worker].clone(),
            wishes: self.wishes.clone(),
            gate: self.gates[worker].clone(),
        })
    }

    pub(super) fn delivery(&self, worker: usize) -> Delivery {
        let patience = self.config.fill.connect_timeout + self.config.fill.first_byte_timeout;
        Delivery::new(Shared {
            sites: self.live.sites.clone(),
            heads: self.heads.clone(),
            ram: self.ram.clone(),
            ssd: self.ssd.clone(),
            filler: self.filler.clone(),
            token: self.live.token.clone(),
            forwarders: self.live.forwarders.clone(),
            doors: self.live.doors.clone(),
            steering: self.live.steering.served.clone(),
            places: self.live.places.geo.clone(),
            better: routed::better(&self.live, self.fleet.as_ref()),
            challenges: self.live.challenges.clone(),
            gate: self.gates[worker].clone(),
            governor: self.governor.clone(),
            block_size: self.config.block_size,
            patience: patience + self.config.fill.progress_timeout,
            limits: self.live.server.clone(),
            log: self.log.clone(),
            counters: self.metrics.for_thread(),
        })
    }
}

/// What was purged; where nothing outlives the process, nothing of that comes back either.
fn purges(
    config: &Config,
    sites: Arc<CurrentSites>,
) -> Result<(Arc<Purges>, Keeper), ApplianceError> {
    let journal = (!config.ssd.volumes.is_empty()).then(|| config.ssd.purges());
    let started = Purges::start(sites, journal.as_deref());
    started.map_err(|source| ApplianceError::System { what: "a thread", source })
}

/// Viewers' connections at once: as many as `limits.connections` says, or as the memory beside the
/// ram tier has room for.
pub fn connections_affordable(config: &Config) -> usize {
    Budget::of(config).connections_max
}

/// What the ram tier keeps at most; the rest of it is always there for what comes and goes.
pub fn ram_kept_bytes(config: &Config) -> u64 {
    Budget::of(config).cached_bytes
}

/// How many viewers of a site may read slowly, each with the two pieces of ram that he may hold,
/// before a new one finds none.
pub fn readers_affordable(config: &Config) -> u64 {
    let limit = if config.sites.iter().count() > 1 { Limit::Lent } else { Limit::Whole };
    Class::Miss.limit_bytes(Budget::of(config).working_bytes, limit) / (2 * PIECE_SIZE_BYTES)
}

/// What `memory.total` is shared out to.
pub(super) struct Budget {
    /// Of the mapping: what the tier may keep.
    pub(super) cached_bytes: u64,
    /// Of the mapping: what fills and pinned slices may hold. Together more than the mapping: what
    /// is kept makes room.
    pub(super) working_bytes: u64,
    /// Beside the mapping and what the ssd tier knows in memory: heads, connections, connections
    /// to origins.
    pub(super) rest_bytes: u64,
    /// Beside all of that, for good: the batch of the log that is being shipped.
    pub(super) shipping_bytes: u64,
    /// Of the rest, for good.
    pub(super) heads_bytes: u64,
    /// Connections that the rest can pay for.
    pub(super) affordable: usize,
    /// As many as are set, or as the rest can pay for.
    connections_max: usize,
    /// What one connection takes.
    pub(super) connection_bytes: u64,
}

impl Budget {
    pub(super) fn of(config: &Config) -> Budget {
        let (memory, counts_bytes) = (&config.memory, usage::counts_bytes(config));
        let tier_bytes = config.ssd.index_bytes + ssd::beside_index_bytes(config);
        let asking_bytes = CLIENTS_BYTES + steering::connections_bytes(config);
        let kept_bytes = PURGES_BYTES
            + asking_bytes
            + counts_bytes
            + recent_bytes(config) as u64
            + doors_bytes(config);
        let shipping_bytes = config.log.shipping.as_ref().map_or(0, held_bytes);
        let elsewhere = memory.ram_bytes + tier_bytes + PROCESS_BYTES + kept_bytes + shipping_bytes;
        let rest_bytes = memory.total_bytes.saturating_sub(elsewhere);
        let tls = config.listeners.iter().any(|listener| listener.kind == ListenerKind::Https);
        let connection_bytes = CONNECTION_BYTES + if tls { TLS_CONNECTION_BYTES } else { 0 };
        // Beside this half and the eighth for heads, three eighths are left for origins.
        let affordable = ((rest_bytes / 2 / connection_bytes) as usize).max(1);
        let connections_max = config.limits.connections_max.min(affordable);
        Budget {
            cached_bytes: (memory.ram_bytes / 16 * 15).max(SLOT_SIZE_BYTES),
            working_bytes: memory.ram_bytes / 4 * 3,
            rest_bytes,
            shipping_bytes,
            heads_bytes: rest_bytes / 8,
            affordable,
            connections_max,
            connection_bytes,
        }
    }

    /// Says what memory has no room for.
    pub(super) fn saying(self, config: &Config) -> Budget {
        let connections_max = self.connections_max;
        if connections_max < config.limits.connections_max {
            tracing::info!(connections_max, "memory allows fewer connections than the limit set");
        }
        self
    }

    pub(super) fn connections_bytes(&self) -> u64 {
        self.connections_max as u64 * self.connection_bytes
    }
}

/// The time in the upper half, so that versions can be told apart by age; a random lower half.
fn epoch() -> u64 {
    let random = RandomState::new().hash_one(std::process::id());
    unix_seconds(SystemTime::now()) << 32 | random & u64::from(u32::MAX)
}

/// For viewers' connections.
pub(super) fn viewer_settings(config: &Config) -> ServerSettings {
    let proxy_protocol = config.proxies.proxy_protocol.clone();
    ServerSettings { proxy_protocol, ..server_settings(&config.limits) }
}

pub(super) fn forwarders(config: &Config) -> Forwarders {
    let (networks, field) = (config.proxies.forwarded.clone(), &config.proxies.forwarded_field);
    Forwarders { networks, field: field.clone() }
}

pub(super) fn server_settings(limits: &Limits) -> ServerSettings {
    ServerSettings {
        header_timeout: limits.header_timeout,
        idle_timeout: limits.idle_timeout,
        handshake_timeout: limits.header_timeout,
        slow_reader_bytes: limits.slow_reader.bytes,
        slow_reader_period: limits.slow_reader.period,
        drain_timeout: limits.drain_timeout,
        proxy_protocol: Vec::new(),
    }
}

/// What the lines of the latest requests may take; nothing where nobody could ask for them.
fn recent_bytes(config: &Config) -> usize {
    if config.listeners.iter().all(|listener| listener.kind != ListenerKind::Admin) {
        return 0;
    }
    let share = usize::try_from(config.memory.total_bytes / RECENT_SHARE).unwrap_or(usize::MAX);
    share.clamp(RECENT_BYTES_MIN, RECENT_BYTES_MAX)
}

pub(super) fn log_settings(config: &Config) -> access_log::Settings {
    access_log::Settings {
        destination: config.log.access.clone(),
        format: config.log.format,
        rotation: config.log.rotation,
        personal: config.log.personal,
        spool: config.log.shipping.as_ref().map(|shipping| shipping.spool.clone()),
        recent: match recent_bytes(config) {
            0 => access_log::Recent::NotKept,
            bytes => access_log::Recent::Kept { bytes },
        },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cache::admission::{Admission, AdmissionSizes};
    use crate::cache::shadow::Shadows;
    use crate::config::SlowReader;

    #[test]
    fn a_handshake_may_take_as_long_as_a_head() {
        let [header_timeout, idle_timeout, period, drain_timeout] =
            [3, 5, 7, 11].map(Duration::from_secs);
        let slow_reader = SlowReader { bytes: 13, period };
        let text = "listeners.http = [\"127.0.0.1:0\"]\n[[sites]]\nname = \"a\"\nhosts = [\"a\"]\n\
                    origins = [\"http://o\"]\n";
        let limits = Config::from_toml(text, "test.toml").unwrap().limits;
        let limits = Limits { header_timeout, idle_timeout, slow_reader, drain_timeout, ..limits };
        assert_eq!(server_settings(&limits).handshake_timeout, header_timeout);
    }

    #[test]
    fn what_the_ssd_tier_knows_beside_its_index_is_not_given_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let rest_with = |volumes: u32| {
            let mut text = "memory = { total = \"1 GiB\", ram = \"64 MiB\" }\n".to_owned();
            text += "listeners.http = [\"127.0.0.1:0\"]\nblock_size = \"64 KiB\"\n";
            text += "[[sites]]\nname = \"a\"\nhosts = [\"a\"]\n";
            text += "[[sites.origins]]\nurl = \"http://o\"\n";
            for n in 0..volumes {
                let path = folder.path().join(n.to_string());
                text += &format!("[[ssd.volumes]]\npath = {path:?}\nsize = \"256 MiB\"\n");
            }
            let config = Config::from_toml(&text, "test.toml").unwrap();
            Budget::of(&config).rest_bytes + config.ssd.index_bytes
        };
        let (volume_bytes, blocks_max) = (256 << 20, (256 << 20) / (64 << 10));
        let seen = Admission::bytes_for(&AdmissionSizes { volume_bytes, blocks_max });
        assert!(seen >= 5 * blocks_max, "{seen}");
        assert!(Shadows::bytes_for(1 << 24) > 30 << 20, "seven caches of some 5 MiB");
        for volumes in [1, 3] {
            let shadows = Shadows::bytes_for(u64::from(volumes) * blocks_max);
            let known = u64::from(volumes) * 2 * seen + shadows;
            assert_eq!(rest_with(volumes) + known, rest_with(0), "{volumes} volumes");
        }
    }
}
