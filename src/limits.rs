//! Every hard bound on what others can make us hold: memory, connections, queues, retries,
//! configuration. Tied together by compile-time asserts.
//!
//! A setting may lower most of these, none may raise them. What bounds one file's own work (a
//! batch, a buffer on the stack) is a named constant of that file.

mod entrance;
mod fleet;
mod tokens;

use std::time::Duration;

pub use self::entrance::*;
pub use self::fleet::*;
pub use self::tokens::*;

/// One piece: the unit of ram, checksum, ssd read, presence and publication.
pub const PIECE_SIZE_BYTES: u64 = 64 << 10;
/// Pieces in the largest block.
pub const PIECES_PER_BLOCK_MAX: u32 = 16;
/// One slot of the ram tier's mapping: the largest block.
pub const SLOT_SIZE_BYTES: u64 = PIECE_SIZE_BYTES * PIECES_PER_BLOCK_MAX as u64;
/// Bodies up to this size share a piece with others (slab pages).
pub const SLAB_BODY_BYTES_MAX: u64 = 32 << 10;
/// The smallest slab cell.
pub const SLAB_CELL_BYTES_MIN: u64 = 1 << 10;

/// What an SSD is read and written in: 4 KiB, aligned.
pub const GRANULE_SIZE_BYTES: u64 = 4 << 10;
/// Granules of a piece.
pub const PIECE_GRANULES: u32 = (PIECE_SIZE_BYTES / GRANULE_SIZE_BYTES) as u32;
/// The unit of append and reclaim on a volume.
pub const REGION_SIZE_BYTES: u64 = 64 << 20;
/// The same on a small volume.
pub const REGION_SIZE_BYTES_MIN: u64 = 8 << 20;
/// The shortest time that something must stay fresh, from now on, to be worth a write to a volume.
pub const SSD_LIFETIME_MIN: Duration = Duration::from_secs(60);
/// Blocks being read ahead of viewers, of all volumes together.
pub const SSD_READ_AHEAD_MAX: usize = 64;
/// Blocks and heads that failed reads lost, and that are filled at the pace of `ssd.bypass`.
pub const SSD_LOST_MAX: usize = 16_384;
/// The smallest volume: a region that is written, one that is reclaimed, and two that are read.
pub const VOLUME_BYTES_MIN: u64 = 4 * REGION_SIZE_BYTES;
/// The largest volume: an index entry names a region in 20 bits.
pub const VOLUME_BYTES_MAX: u64 = REGION_SIZE_BYTES << 20;
/// The least that may be written to a volume in a day: a region.
pub const WRITES_PER_DAY_BYTES_MIN: u64 = REGION_SIZE_BYTES;
/// Volumes of one appliance; each has a thread or more, and series of its own.
pub const VOLUMES_MAX: usize = 64;
/// Volumes that have failed and are remembered; then the oldest is forgotten.
pub const VOLUMES_REMEMBERED_MAX: usize = 256;
/// What one entry of the ssd index is paid for with, the space between entries included.
pub const INDEX_ENTRY_BYTES: u64 = 16;
/// Entries for each MiB of volumes where the index's size is not set: blocks of half a MiB.
pub const INDEX_ENTRIES_PER_MIB: u64 = 2;
/// The least the ssd index may have; small volumes of small objects fit too.
pub const INDEX_BYTES_MIN: u64 = 1 << 20;

/// Bytes that wait to be written to one volume, or are being written; what comes then is refused.
pub const VOLUME_QUEUE_BYTES_MAX: u64 = 64 << 20;
/// Records that wait to be written to one volume, heads apart from blocks.
pub const VOLUME_QUEUE_RECORDS_MAX: usize = 4_096;
/// Record writes under way at once on one volume.
pub const VOLUME_WRITES_MAX: usize = 4;
/// Regions of one volume of which it is remembered that a read failed.
pub const VOLUME_ILL_REGIONS_MAX: usize = 1_024;

/// The least `memory.total` may be.
pub const MEMORY_TOTAL_BYTES_MIN: u64 = 192 << 20;
/// The least `memory.ram` may be: one shard of the ram tier.
pub const MEMORY_RAM_BYTES_MIN: u64 = 64 << 20;
/// What the process needs beside its ram tier: this, or a quarter of the tier if that is more.
pub const MEMORY_MARGIN_BYTES_MIN: u64 = 128 << 20;

/// Ranges of one request that are looked at; who asks for more gets the whole object.
pub const RANGES_READ_MAX: usize = 64;
/// Parts of one answer.
pub const RANGES_ANSWERED_MAX: usize = 8;
/// A silent origin's response is fresh for this part of the time since it was last changed
/// (RFC 9111 section 4.2.2).
pub const HEURISTIC_SHARE: u32 = 10;
/// Nothing is fresh for longer than this on a guess.
pub const HEURISTIC_LIFETIME_MAX: Duration = Duration::from_secs(86_400);

/// Serving threads.
pub const WORKERS_MAX: usize = 256;
/// Threads of the fill runtime.
pub const FILL_THREADS_MAX: usize = 64;

/// A request head: line and fields together.
pub const REQUEST_HEAD_BYTES_MAX: usize = 32 << 10;
/// Fields in a request head.
pub const REQUEST_FIELDS_MAX: usize = 100;
/// A request target: longer ones are answered 414.
pub const REQUEST_TARGET_BYTES_MAX: usize = 8 << 10;
/// The body of a request that is passed on, where its rule says nothing.
pub const REQUEST_BODY_BYTES_DEFAULT: u64 = 16 << 20;
/// The most that a rule may say.
pub const REQUEST_BODY_BYTES_MAX: u64 = 1 << 40;
/// What such a body has on its way at once: the viewer's read buffer, one part of it, and what
/// waits to be written to the origin.
pub const REQUEST_BODY_BUFFER_BYTES: u64 = 3 * (64 << 10);
/// What its answer has on its way beside the origin's read buffer: a part that the viewer takes,
/// and the next one for him.
pub const PASSED_ANSWER_BYTES: u64 = 2 * (64 << 10);
/// What is read of a refused body, so that the refusal arrives before the reset.
pub const DISCARDED_BYTES_MAX: usize = 4 << 20;
/// Streams of one HTTP/2 connection.
pub const H2_STREAMS_MAX: u32 = 64;
/// Streams reset by the viewer before we took them.
pub const H2_RESETS_PENDING_MAX: usize = 20;
/// Streams we reset because the viewer broke the protocol (RUSTSEC-2024-0003, CVE-2025-8671).
pub const H2_RESETS_OF_OURS_MAX: usize = 128;
/// Requests an HTTP/2 viewer may cancel beyond those he let finish (CVE-2023-44487).
pub const H2_CANCELLED_MAX: u32 = 128;
/// One HTTP/2 field section, decoded.
pub const H2_HEADER_LIST_BYTES_MAX: u32 = 16 << 10;
/// An HTTP/2 body frame: with its 9-byte head it fills one TLS record (RFC 8446 section 5.1).
pub const H2_BODY_FRAME_BYTES: usize = 16_375;
/// What a connection may hold unsent before its body is asked for more.
pub const SEND_BUFFER_BYTES_MAX: usize = 64 << 10;
/// Sealed TLS records waiting for a socket: what a slow viewer over TLS holds beside his slice.
pub const TLS_BUFFER_BYTES_MAX: usize = 64 << 10;
/// What is remembered of a request while it is answered, without its head, in bytes.
pub const REQUEST_BYTES: u64 = 4 << 10;
/// What a plain connection takes: hyper's read and write buffers, its task and its state.
pub const CONNECTION_BYTES: u64 = 24 << 10;
/// What a TLS connection takes beside that, buffers of a viewer who reads slowly included.
pub const TLS_CONNECTION_BYTES: u64 = 24 << 10;
/// What the process takes before its first viewer: code, stacks, tables, the allocator's own.
pub const PROCESS_BYTES: u64 = 32 << 20;
/// Connections that may be set for one appliance.
pub const CONNECTIONS_MAX: usize = 1_000_000;
/// Clients whose connections and requests are counted.
pub const CLIENTS_MAX: usize = 65_536;
/// What that takes.
pub const CLIENTS_BYTES: u64 = 2 << 20;
/// Connections dealt out to a worker and not yet taken by it.
pub const DEALT_OUT_WAITING_MAX: usize = 64;
/// Connections of operators.
pub const ADMIN_CONNECTIONS_MAX: usize = 64;

/// Addresses of all listeners together.
pub const LISTENERS_MAX: usize = 64;
/// Certificates of one appliance.
pub const CERTIFICATES_MAX: usize = 4_096;
/// Names of one certificate that an authority is asked for; few take more.
pub const ACME_NAMES_MAX: usize = 100;
/// Whom an authority may write to.
pub const ACME_CONTACTS_MAX: usize = 8;
/// Orders for one certificate in an hour, whatever happens and however often we start: authorities
/// count failures too, and shut out for longer.
pub const ACME_ORDERS_PER_HOUR_MAX: usize = 5;
/// An answer of an authority: a chain of certificates is the longest.
pub const ACME_ANSWER_BYTES_MAX: usize = 1 << 20;
/// What is kept of the words of a hook that failed.
pub const ACME_HOOK_WORDS_BYTES_MAX: usize = 4 << 10;
/// Sites in one configuration.
pub const SITES_MAX: usize = 4_096;
/// Host names of one site.
pub const HOSTS_PER_SITE_MAX: usize = 1_024;
/// Origins of one site.
pub const ORIGINS_PER_SITE_MAX: usize = 16;
/// Rules of one site; each request tries them in order.
pub const RULES_PER_SITE_MAX: usize = 256;
/// A rule's path pattern.
pub const PATH_PATTERN_BYTES_MAX: usize = 1_024;
/// Tags (`Cache-Tag`, `Surrogate-Key`, `xkey`) remembered of one response; with more of them it
/// counts as having all.
pub const TAGS_PER_HEAD_MAX: usize = 64;
/// Things that were purged and are remembered; then the site with most of them is in doubt.
pub const PURGES_HELD_MAX: usize = 50_000;
/// What those take.
pub const PURGES_BYTES: u64 = 8 << 20;
/// Prefixes that were purged of one site and are remembered; then the site is in doubt.
pub const PURGE_PREFIXES_PER_SITE_MAX: usize = 256;
/// Things that one request may purge.
pub const PURGES_PER_REQUEST_MAX: usize = 256;
/// Objects that are looked through for those that a prefix, a tag or a site covers, to tell how
/// many they are: a fraction of a second.
pub const PURGE_LOOKED_AT_MAX: usize = 262_144;
/// A request to purge.
pub const PURGE_REQUEST_BYTES_MAX: usize = 256 << 10;
/// A tag that is purged.
pub const TAG_BYTES_MAX: usize = 1_024;
/// Requests to purge that wait for the journal; what comes then is refused.
pub const PURGES_WAITING_MAX: usize = 64;
/// Records of the journal that say nothing new, before it is written anew.
pub const PURGE_RECORDS_SPARE_MAX: usize = 65_536;
/// Methods that a rule passes on.
pub const METHODS_PER_RULE_MAX: usize = 32;
/// The marks by which an answer under way is known to be older than an unsafe request: the more,
/// the seldomer another object's is taken for one.
pub const INVALIDATION_MARKS: usize = 1 << 17;
/// Networks of one list: whose PURGE a rule listens to, which proxies are believed.
pub const NETWORKS_MAX: usize = 64;
/// What a load balancer may say in front of a connection.
pub const PROXY_HEADER_BYTES_MAX: usize = 4 << 10;
/// Proxies behind each other that are believed.
pub const FORWARDED_HOPS_MAX: usize = 16;
/// A token that says who asks.
pub const TOKEN_BYTES_MAX: usize = 4_096;
/// Tokens of one file.
pub const TOKENS_MAX: usize = 64;
/// A file of tokens.
pub const TOKEN_FILE_BYTES_MAX: usize = 64 << 10;
/// Variants (`Vary`) kept side by side of one object.
pub const VARIANTS_PER_OBJECT_MAX: usize = 8;
/// Fields in a response head.
pub const RESPONSE_FIELDS_MAX: usize = 100;

/// The longest object an origin is believed to have: positions in it can be reckoned with.
pub const OBJECT_BYTES_MAX: u64 = 1 << 62;
/// What a connection to an origin may read ahead, and its longest response head.
pub const ORIGIN_READ_BYTES_MAX: usize = 64 << 10;
/// Attempts of one fill run, the first included.
pub const FILL_ATTEMPTS_MAX: u32 = 3;
/// Runs at once that may be set for one appliance.
pub const FILL_RUNS_MAX: usize = 65_536;
/// Objects brought ahead of who wants them, because players say that they will: at once, of one
/// connection, and of one request.
pub const PREFETCHES_MAX: usize = 64;
/// The same of one connection.
pub const PREFETCHES_PER_VIEWER_MAX: u32 = 4;
/// The same of one request.
pub const PREFETCHES_PER_REQUEST_MAX: usize = 2;
/// Connections that may be set for one origin.
pub const ORIGIN_CONNECTIONS_MAX: usize = 65_536;
/// How long an origin may hold a request for what it is about to make, beside what it takes anyway:
/// three target durations (RFC 8216bis section 6.2.5.2) of ten seconds.
pub const LIVE_HOLD_MAX: Duration = Duration::from_secs(30);
/// What of live content is not there now may be there after this.
pub const LIVE_ABSENCE_MAX: Duration = Duration::from_secs(1);
/// Redirects followed for one fill, where a site follows them.
pub const REDIRECTS_MAX: u32 = 3;
/// How long a viewer waits for the memory his first piece is sent from, before he is told to come
/// again.
pub const FIRST_MEMORY_WITHIN: Duration = Duration::from_secs(2);
/// What a run may ask for ahead of its readers; `fill.window` may set less.
pub const FILL_WINDOW_BYTES_MAX: u64 = 64 << 20;

/// Connections the kernel completes for us before we accept them, for each listener socket.
pub const LISTEN_BACKLOG: i32 = 4_096;
/// Origins and names that `tidegate doctor` asks for at once.
pub const DOCTOR_ASKS_MAX: usize = 64;
/// Origins that an appliance that starts calls on at once.
pub const TURN_UP_ASKS_MAX: usize = 64;
/// Lines of diagnostics waiting for standard error; what comes then is lost.
pub const LOG_LINES_WAITING_MAX: usize = 1_024;
/// Warnings about requests that were not answered, or cut short, for each worker.
pub const WARNINGS_PER_SECOND_MAX: u32 = 5;
/// Access-log lines that may wait for the writer; more are dropped and counted.
pub const ACCESS_LOG_LINES_WAITING_MAX: usize = 16_384;
/// What those lines may take together.
pub const ACCESS_LOG_BYTES_WAITING_MAX: usize = 16 << 20;
/// What is written of it at once: lines are gathered up to 64 KiB, and the last may be long.
pub const ACCESS_LOG_WRITE_BYTES_MAX: u64 = 128 << 10;
/// Files of the access log that were moved, and stay.
pub const ACCESS_LOG_FILES_MAX: u64 = 1_000;
/// What a batch of the log may be set to have, to be shipped; there is always memory for one.
pub const SHIPPING_BATCH_BYTES_MAX: u64 = 8 << 20;
/// Batches that wait, however small; with the usual period more than a day's.
pub const SHIPPING_BATCHES_MAX: usize = 20_000;
/// A file of fields that are sent with it.
pub const SHIPPING_HEADERS_BYTES_MAX: u64 = 64 << 10;
/// How often in a row a batch is answered with 401, 403 or 404 until another is sent before it.
pub const SHIPPING_DENIALS_MAX: u32 = 2;
/// How often it is denied then, each time after another was taken, until it is lost.
pub const SHIPPING_TRIALS_MAX: u32 = 5;
/// Readers who follow the log live.
pub const LOG_READERS_MAX: usize = 4;
/// Requests that wait for one of them; what comes then is lost to him, and counted.
pub const LOG_READER_LINES_MAX: usize = 256;
/// What one of them takes: what waits for him, what he was told last, and two of what he is told
/// for his connection.
pub const LOG_READER_BYTES: u64 = 2 << 20;
/// Decisions told of one request.
pub const TRACE_DECISIONS_MAX: usize = 48;
/// What they take while it is answered.
pub const TRACE_BYTES: u64 = 16 << 10;
/// The filter of one reader.
pub const LOG_FILTER_BYTES_MAX: usize = 1_024;
/// Parentheses and `not` within each other in a filter.
pub const LOG_FILTER_DEPTH_MAX: usize = 16;
/// Series of `/metrics`, however many sites, volumes and certificates there are. What would be more
/// is summed up under `other`.
pub const SERIES_MAX: usize = 2_050;
/// Sites with series of their own: the first of the configuration.
pub const SITES_TOLD_MAX: usize = 40;
/// Series told apart by volume, those that sum up all volumes included.
pub const VOLUME_SERIES_MAX: usize = 1_110;
/// Certificates with a series of their own: those that expire first.
pub const CERTIFICATES_TOLD_MAX: usize = 50;
/// Series that are told apart by none of these.
pub const SERIES_OF_THE_REST_MAX: usize = 438;
/// The longest time that viewers may be given to leave.
pub const DRAIN_WITHIN_MAX: Duration = Duration::from_secs(86_400);
/// What has ended and is to end in another process too; beyond, all of a site ends there.
pub const ENDINGS_HELD_MAX: usize = 1_024;
/// The targets that end there by one request; a socket takes more in one message.
pub const ENDINGS_BYTES_MAX: usize = 64 << 10;
/// What a process that takes over may say before it is listened to.
pub const TAKEOVER_MESSAGES_MAX: usize = 16;
/// What it says of certificates that viewers refuse; a socket takes more in one message.
pub const OUTDATED_BYTES_MAX: usize = 64 << 10;
/// What of the ram tier goes along at once to a process that takes over.
pub const CARRIED_BATCH_BYTES_MAX: usize = 4 << 20;
/// Batches of that on their way at once.
pub const CARRIED_BATCHES_MAX: usize = 2;
/// An object whose heads are longer as they are written does not go along.
pub const CARRIED_RECORD_BYTES_MAX: usize = 1 << 20;
/// What has not gone along by then is given up: who leaves is not held up by it.
pub const CARRIED_WITHIN: Duration = Duration::from_secs(30);
/// A request for a drain.
pub const DRAIN_REQUEST_BYTES_MAX: usize = 1 << 10;
/// Requests the status page shows.
pub const RECENT_REQUESTS_MAX: usize = 256;
/// The lines of the latest requests may take this part of `memory.total`.
pub const RECENT_SHARE: u64 = 256;
/// And no less than this: some 1,800 requests.
pub const RECENT_BYTES_MIN: usize = 1 << 20;
/// Nor more: some 450,000 requests.
pub const RECENT_BYTES_MAX: usize = 256 << 20;
/// What it takes to look through them, once at a time.
pub const LOOK_BYTES: u64 = 4 << 20;
/// Objects, and networks of clients, that are counted of the latest requests; of more those that
/// there is most of.
pub const TOP_COUNTED_MAX: usize = 1_024;
/// Those of them that are told.
pub const TOP_TOLD_MAX: usize = 32;
/// How far back it is looked for them.
pub const TOP_WINDOW_MAX: Duration = Duration::from_secs(3_600);
/// Requests told of one playback; of more the latest.
pub const SESSION_REQUESTS_MAX: usize = 4_096;
/// Months of which usage may be kept.
pub const USAGE_MONTHS_MAX: u64 = 120;
/// What one thread takes to count one site.
pub const SITE_COUNTS_BYTES: u64 = 96;
/// Objects the status page lists.
pub const STATUS_OBJECTS_MAX: usize = 256;
/// Blocks the status page looks at of one object: it is a glance, not an inventory.
pub const STATUS_BLOCKS_MAX: u64 = 64;
/// Origins the status page lists: those that do not answer first.
pub const STATUS_ORIGINS_MAX: usize = 64;
/// Certificates that are waited for, of those the status page lists.
pub const STATUS_ORDERS_MAX: usize = 64;
/// Sites the status page lists: those that were sent most.
pub const STATUS_SITES_MAX: usize = 64;
/// Between two moments of what the status page draws.
pub const HISTORY_EVERY: Duration = Duration::from_secs(10);
/// Moments that are remembered for it: an hour.
pub const HISTORY_MOMENTS_MAX: usize = 361;
/// Blocks an explanation looks for of what a request takes: others wait for the admin thread.
pub const EXPLAINED_BLOCKS_MAX: usize = 1 << 14;

const _: () = assert!(SLOT_SIZE_BYTES == 1 << 20);
const _: () = assert!(PIECE_SIZE_BYTES.is_multiple_of(GRANULE_SIZE_BYTES));
const _: () = assert!(REGION_SIZE_BYTES.is_multiple_of(SLOT_SIZE_BYTES));
const _: () = assert!(VOLUME_BYTES_MIN.is_multiple_of(SLOT_SIZE_BYTES));
const _: () = assert!(SITES_MAX <= 1 << 16, "a site's id is a u16");
const _: () = assert!(MEMORY_RAM_BYTES_MIN + MEMORY_MARGIN_BYTES_MIN == MEMORY_TOTAL_BYTES_MIN);
const _: () = assert!(MEMORY_RAM_BYTES_MIN.is_multiple_of(SLOT_SIZE_BYTES));
const _: () = assert!(SLAB_BODY_BYTES_MAX < PIECE_SIZE_BYTES);
const _: () =
    assert!(PIECE_SIZE_BYTES / SLAB_CELL_BYTES_MIN <= 64, "a slab page's cells fit one u64");
const _: () =
    assert!(CARRIED_RECORD_BYTES_MAX + SLOT_SIZE_BYTES as usize + 1_024 < CARRIED_BATCH_BYTES_MAX);
const _: () = assert!(SEND_BUFFER_BYTES_MAX > REQUEST_HEAD_BYTES_MAX);
const _: () = assert!(REQUEST_TARGET_BYTES_MAX < REQUEST_HEAD_BYTES_MAX);
const _: () = assert!(FILL_WINDOW_BYTES_MAX >= SLOT_SIZE_BYTES);
