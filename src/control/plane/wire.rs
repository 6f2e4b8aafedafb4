//! What boxes, operators and the control plane say to each other: the JSON of each request and
//! answer.
//!
//! A box says who it is by its certificate; only [`Enrol`] comes before it has one. What is asked
//! of us is refused with a member that is not known. What a box says of itself may say more, and
//! so may what we are answered: one of a fleet is always of a later version than another.

use serde::{Deserialize, Serialize};

use crate::control::registry::Heartbeat;
use crate::control::registry::appliance::Appliance;
use crate::control::snapshot::Number;

/// `POST /v1/enrol`, without a certificate: gives a box its identity for a code. `201`,
/// [`Identity`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrol {
    /// What an operator was shown, as in [`Code`]; it counts once.
    pub code: String,
    /// What the box is called: the name that the code was made for.
    pub name: String,
    /// A certificate signing request (PKCS #10, PEM): the private key stays on the box.
    pub csr_pem: String,
}

/// `POST /v1/renew`, by a certificate that is to end: another one of the same name. `200`,
/// [`Identity`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Renew {
    /// As in [`Enrol`]; the key may be another one, and should be.
    pub csr_pem: String,
}

/// What a box is given, and believes from then on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its certificate.
    pub certificate_pem: String,
    /// When it should ask for the next one, in seconds since 1970: two thirds of its life.
    pub renew_at: u64,
    /// Who has issued it: control planes of the fleet show a certificate of the same.
    pub ca_pem: String,
    /// By which snapshots are verified: Ed25519 public keys, in base64.
    pub snapshot_keys: Vec<String>,
}

/// `PUT /v1/appliances/NAME`, by the certificate of that name: takes it in, or what has changed of
/// it. `200`, [`Beaten`]. `position` is of the same.
pub type Registration = Appliance;

/// `POST /v1/heartbeat`, by a certificate. `200`, [`Beaten`].
pub type Beat = Heartbeat;

/// What a box is told when it was heard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beaten {
    /// The next heartbeat is expected within.
    pub beat_seconds: u64,
    /// The snapshot of now.
    pub number: Number,
}

/// `POST /v1/codes`, by operators. `201`, [`Code`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewCode {
    /// What the box will be called.
    pub name: String,
    /// How long the code counts; a day where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_seconds: Option<u64>,
}

/// A code as it is shown, once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Code {
    /// What the box shows: a secret, a dot, and the SHA-256 of the certificate of who issues
    /// certificates (its DER, in hexadecimal). The control plane shows that one at the end of its
    /// chain; where operators gave it another certificate, the usual authorities say whose it is.
    pub code: String,
    /// Which box.
    pub name: String,
    /// Until when it counts, in seconds since 1970.
    pub expires_at: u64,
}

/// `POST /v1/epoch`, by operators: numbers snapshots in a later epoch. `200`, [`Number`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewEpoch {
    /// Which one; the next where it is not said.
    #[serde(default)]
    pub to: Option<u64>,
}

/// Why something is refused, with a status of 400 or more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// In one line.
    pub error: String,
}

/// Where the snapshot is: `GET /v1/snapshot?after=EPOCH.COUNTER&wait=SECONDS`, by a certificate.
/// `200` with its bytes (`application/vnd.tidegate.snapshot`) as soon as there is one after that
/// number; `204` when there was none in time; `409` when what the box holds is later than what the
/// control plane has, as it is after a backup was restored.
pub const SNAPSHOT_PATH: &str = "/v1/snapshot";
/// What a snapshot is said to be.
pub const SNAPSHOT_TYPE: &str = "application/vnd.tidegate.snapshot";
/// Where a box is enrolled.
pub const ENROL_PATH: &str = "/v1/enrol";
/// Where its certificate is renewed.
pub const RENEW_PATH: &str = "/v1/renew";
/// Where appliances are; one is below, by its name.
pub const APPLIANCES_PATH: &str = "/v1/appliances";
/// Where heartbeats go.
pub const HEARTBEAT_PATH: &str = "/v1/heartbeat";
/// Where operators have codes made.
pub const CODES_PATH: &str = "/v1/codes";
/// Where operators get a copy of the state.
pub const EXPORT_PATH: &str = "/v1/export";
/// Where operators raise the epoch.
pub const EPOCH_PATH: &str = "/v1/epoch";
