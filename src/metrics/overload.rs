//! The series of whom load balancers bring, and of who is refused because there is too much to do.

use super::series::{Series, counter, gauge, labelled};

/// How connections from load balancers began: `viewer`, `nobody`, `missing`, `version_1`,
/// `malformed`, `late`.
pub const PROXY_HEADERS: Series = labelled(
    "result",
    counter(
        "tidegate_proxy_headers_total",
        "Connections from `proxies.proxy_protocol`, by how they began.",
    ),
);
/// Who was refused because there was too much to do, by why.
pub const REFUSALS: Series = labelled(
    "reason",
    counter(
        "tidegate_overload_refusals_total",
        "Connections, handshakes and requests refused because there was too much to do, by why.",
    ),
);
/// How many new viewers are refused: because what is sent is too much (`egress`), because a worker
/// is late (`lag`, the latest one's), because memory is waited for (`memory`); and of sites with
/// more than their shares (`egress_beyond_share` and so on).
pub const PRESSURE: Series = labelled(
    "of",
    gauge(
        "tidegate_overload_pressure_ratio",
        "The share of new viewers that are refused; above 1 of misses, or of a site's requests.",
    ),
);
/// Sites that have more than their shares: of what workers do (`work`), of what is sent (`egress`),
/// of the memory that is held to send it (`memory`).
pub const BEYOND_SHARE: Series = labelled(
    "of",
    gauge(
        "tidegate_sites_beyond_share",
        "Sites that have more than their share, of memory of what is lent, while others want some.",
    ),
);
/// Whether what is sent is near what may be.
pub const EGRESS_NEAR: Series = gauge(
    "tidegate_egress_near_limit",
    "1 from 90 % of `limits.egress` on until it is below 80 %, else 0.",
);
/// What may be sent.
pub const EGRESS_MAX: Series = gauge(
    "tidegate_egress_limit_bytes_per_second",
    "What `limits.egress` lets be sent; 0 where it is not set.",
);
/// What was not counted of clients.
pub const CLIENTS_UNCOUNTED: Series = counter(
    "tidegate_clients_uncounted_total",
    "Connections and requests of clients that `limits.client` had no room to count.",
);
