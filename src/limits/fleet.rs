//! Bounds of a fleet: of what is told of its boxes, of routes to them, and of steering.

use std::time::Duration;

/// Routes that all files tell together: a box of a thousand may announce eight thousand prefixes.
pub const ROUTES_MAX: usize = 8_000_000;
/// Routes that one file tells; all prefixes of the Internet are fewer.
pub const ROUTES_PER_FILE_MAX: usize = 2_000_000;
/// A file of routes: ways to all prefixes of the Internet by several peers.
pub const ROUTE_FILE_BYTES_MAX: u64 = 2 << 30;
/// A line of a prefix file.
pub const ROUTE_LINE_BYTES_MAX: usize = 64 << 10;
/// A record of a dump: some thousand ways to one prefix.
pub const ROUTE_RECORD_BYTES_MAX: usize = 4 << 20;
/// A coverage zone file, which is read whole.
pub const COVERAGE_ZONES_BYTES_MAX: u64 = 128 << 20;
/// A database of countries, ASes and positions, which stays in memory.
pub const PLACES_BYTES_MAX: u64 = 512 << 20;
/// Files of routes, and databases beside them.
pub const ROUTE_FILES_MAX: usize = 1_024;
/// Changes between two tables of routes that are told; all are counted.
pub const ROUTE_CHANGES_TOLD_MAX: usize = 1_000;

/// Appliances of a fleet.
pub const APPLIANCES_MAX: usize = 4_096;
/// What an appliance, a pathway or a tag may be called.
pub const PATHWAY_BYTES_MAX: usize = 64;
/// The host name of an appliance and its port.
pub const APPLIANCE_HOST_BYTES_MAX: usize = 260;
/// Tags of an appliance.
pub const APPLIANCE_TAGS_MAX: usize = 32;
/// Sites that an appliance may be told to serve alone.
pub const APPLIANCE_SITES_MAX: usize = 1_024;
/// What an appliance may say that it can send: ten terabits a second.
pub const APPLIANCE_CAPACITY_MAX: u64 = 10_000_000_000_000;
/// How much more than what it can send an appliance's part may be, in hundredths.
pub const APPLIANCE_WEIGHT_MAX: u32 = 10_000;
/// Appliances that one answer of steering ranks.
pub const STEERED_MAX: usize = 8;
/// Pathways that an asset may have beside those it is given.
pub const PATHWAYS_KNOWN_MAX: usize = 16;
/// Pathways that are read of what a player reports.
pub const PATHWAYS_REPORTED_MAX: usize = 32;
/// The name of a playback.
pub const STEERING_SESSION_BYTES_MAX: usize = 64;
/// Connections of players that ask where to go on, at once.
pub const STEERING_CONNECTIONS_MAX: u64 = 4_096;
/// What they may take: this part of `memory.total`.
pub const STEERING_SHARE: u64 = 16;
/// The file of the secret that sessions are signed with.
pub const STEERING_SECRET_BYTES_MAX: usize = 4_096;
/// The least it is: a secret that nobody tries out.
pub const STEERING_SECRET_BYTES_MIN: usize = 16;
/// Where players ask about one asset.
pub const STEERING_ENDPOINT_BYTES_MAX: usize = 1_024;
/// Seconds until a player asks again while an appliance leaves or is ill: at least
pub const STEERING_UNSETTLED_TTL_MIN: u64 = 10;
/// and at most; within them all players have left it.
pub const STEERING_UNSETTLED_TTL_MAX: u64 = 30;
/// A decision of steering as a URL carries it and the log repeats it.
pub const DECISION_BYTES_MAX: usize = 66;
/// So long a decision counts after it was made: a film that was begun by it is over.
pub const DECISION_SECONDS_MAX: u64 = 6 * 3_600;
/// So far clocks may be apart.
pub const DECISION_EARLY_SECONDS_MAX: u64 = 300;
/// The longest playlist or MPD that steering is put into.
pub const MANIFEST_REWRITTEN_BYTES_MAX: usize = 2 << 20;
/// What steering adds to one at most.
pub const MANIFEST_STEERING_BYTES_MAX: usize = 64 << 10;
/// The longest that it is put into for each viewer who is served it.
pub const MANIFEST_SERVED_BYTES_MAX: u64 = 256 << 10;

/// A snapshot as it is sent: four thousand appliances and all their keys.
pub const SNAPSHOT_BYTES_MAX: usize = 32 << 20;
/// What is written of snapshots that say no more than how appliances are; etcd keeps what it was
/// sent for some minutes, and has two gigabytes.
pub const SNAPSHOT_BYTES_PER_SECOND: usize = 1 << 20;
/// The same where one of them gets no viewers any more, which waits for less.
pub const SNAPSHOT_BYTES_PER_SECOND_ILL: usize = 4 << 20;
/// The last epoch: who raises it for ever by one never gets there, and a slip of the pen does not
/// end all counting.
pub const EPOCH_MAX: u64 = 1 << 32;
/// The last snapshot of an epoch, which nobody reaches; more is taken over from nowhere.
pub const COUNTER_MAX: u64 = 1 << 53;
/// How long a box that asks for the next snapshot waits at most.
pub const SNAPSHOT_WAIT_MAX: Duration = Duration::from_secs(60);
/// Keys that a box believes snapshots by: the one of now, the next, and those of before.
pub const SNAPSHOT_KEYS_MAX: usize = 4;
/// Key files of a fleet.
pub const KEY_FILES_MAX: usize = 1_024;
/// All of them together.
pub const KEY_FILES_BYTES_MAX: usize = 8 << 20;
/// Certificates that are revoked and have not ended yet.
pub const REVOKED_MAX: usize = 16_384;
/// Codes that have been made and not shown yet.
pub const CODES_MAX: usize = 1_024;
/// Certificates that have not ended: four of each appliance.
pub const CERTIFICATES_ISSUED_MAX: usize = 4 * APPLIANCES_MAX;
/// Those of them that one box has, and that were not revoked: two are usual.
pub const CERTIFICATES_OF_ONE_MAX: usize = 8;
/// Boxes that were removed, as far as that is remembered.
pub const REMOVED_MAX: usize = APPLIANCES_MAX;
/// All that is written of appliances, as JSON: a snapshot has them, and how they are.
pub const APPLIANCES_BYTES_MAX: usize = 16 << 20;
/// Changes by operators that are remembered, with who made them.
pub const AUDIT_RECORDS_MAX: usize = 10_000;
/// The same of boxes: their certificates, and what they say of themselves.
pub const AUDIT_OF_BOXES_MAX: usize = 10_000;
/// What is told of one of them.
pub const AUDIT_TEXT_BYTES_MAX: usize = 512;
/// A request to the control plane, but for one that brings keys.
pub const PLANE_BODY_BYTES_MAX: usize = 64 << 10;
/// What a control plane exports, as JSON: keys and appliances at their bounds, escaped, and four
/// certificates of each appliance.
pub const EXPORT_BYTES_MAX: usize = 128 << 20;
/// So long an answer of the control plane on this machine may take; an export is the longest.
pub const EXPORT_WITHIN: Duration = Duration::from_secs(120);
/// Connections to the control plane: two of each appliance, and operators.
pub const PLANE_CONNECTIONS_MAX: usize = 2 * APPLIANCES_MAX + 256;
/// Those of them from one address: a site of five hundred boxes may have one.
pub const PLANE_CONNECTIONS_PER_CLIENT_MAX: u32 = PLANE_CONNECTIONS_MAX as u32 / 8;
/// Addresses a control plane listens at.
pub const PLANE_LISTENERS_MAX: usize = 16;
/// Names it is asked by.
pub const PLANE_NAMES_MAX: usize = 64;
/// Clients of the control plane whose rate is watched at once.
pub const PLANE_CLIENTS_MAX: usize = 16_384;
/// How often another control plane may be first in a change before one gives up.
pub const STATE_TRIES_MAX: usize = 16;
/// Members of etcd that are asked in turn.
pub const ETCD_ENDPOINTS_MAX: usize = 16;
/// A value that stands in its own key on etcd; a larger one is split.
pub const ETCD_VALUE_BYTES_MAX: usize = 16 << 10;
/// A part of a larger one: a request to etcd has 1.5 MiB at most.
pub const ETCD_PART_BYTES_MAX: usize = 1 << 20;
/// What one transaction says of keys, so many of each; etcd takes 128.
pub const ETCD_TXN_OPS_MAX: usize = 100;
/// All that one transaction puts.
pub const ETCD_TXN_BYTES_MAX: usize = 1 << 20;
/// What etcd answers at once.
pub const ETCD_ANSWER_BYTES_MAX: usize = 64 << 20;
/// Keys that are read at once.
pub const ETCD_PAGE_KEYS: usize = 1_000;
/// Heartbeats that stand in one key on etcd.
pub const ETCD_BEATS_PER_KEY: usize = 48;
/// Heartbeats that wait to be told to other control planes, and those of theirs to be looked at.
pub const ETCD_BEATS_MAX: usize = 4 * APPLIANCES_MAX;
/// Control planes that share a state, as they are told.
pub const ETCD_NODES_MAX: usize = 64;
/// Control planes that a box asks in turn.
pub const FLEET_CONTROLS_MAX: usize = 8;
/// What a control plane answers a box, but for a snapshot.
pub const FLEET_ANSWER_BYTES_MAX: usize = 64 << 10;

const _: () = assert!(ETCD_VALUE_BYTES_MAX <= ETCD_TXN_BYTES_MAX);
const _: () = assert!(ROUTES_PER_FILE_MAX <= ROUTES_MAX);
// Keys leave most of a snapshot to appliances.
const _: () = assert!(4 * KEY_FILES_BYTES_MAX <= SNAPSHOT_BYTES_MAX);
