//! Whose fault it was: the only place that chooses a status for a viewer.
//!
//! Grouped by who must act, because status, log level and metric depend on that. A viewer is told
//! the reason in a few words, never our cause.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode};

use crate::door;
use crate::fill::error::{BodyFault, FillError};
use crate::message::head::HeadFault;
use crate::message::request::RequestError;
use crate::metrics::labels::Refused;
use crate::overload::{Reason, Refusal};
use crate::purge::PurgeError;
use crate::site::Barred;

/// Why a request is not answered with what it asked for.
#[derive(Debug)]
pub enum DeliveryError {
    /// The request itself.
    Request(RequestError),
    /// No site has this host.
    UnknownHost,
    /// The connection was opened for another host.
    OtherHost,
    /// There is more to do than can be done.
    Overload(Refusal),
    /// The request has been here before: an origin leads back to this appliance.
    Loop,
    /// A body came with the request.
    BodyRefused,
    /// The viewer does not come in from where he is, or now.
    Barred(Barred),
    /// Another box is for the viewer; where he is sent to it, where that has it.
    OffRoute(Option<HeaderValue>),
    /// The viewer is not let in.
    Denied(Box<door::Refused>),
    /// Who asks for a purge may not.
    PurgeRefused,
    /// What was to be purged was not.
    NotPurged(PurgeError),
    /// Nobody is served any more: the operator drains the appliance.
    TurnedAway,
    /// The range lies outside the object.
    Unsatisfiable {
        /// The object's length in bytes, if known.
        length_bytes: Option<u64>,
    },
    /// A condition of the request does not hold.
    PreconditionFailed,
    /// It is not stored, or not as the request wants it, and nothing else was wanted.
    OnlyIfCached,
    /// What is stored is stale, may not be used so, and its origin does not confirm it.
    Unconfirmed(Arc<FillError>),
    /// The origin, or the way to it.
    Fill(Arc<FillError>),
}

/// What the viewer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The status.
    pub status: StatusCode,
    /// A short text for people.
    pub reason: &'static str,
    /// When it is worth trying again.
    pub retry_after: Option<Duration>,
    /// Whether the connection can be used for another request.
    pub connection: After,
}

/// What becomes of the connection after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It stays.
    Keep,
    /// It is closed: what follows on it cannot be trusted to be a request.
    Close,
}

impl DeliveryError {
    /// What to tell the viewer.
    pub fn verdict(&self) -> Verdict {
        let (status, reason) = match self {
            DeliveryError::Request(error) => return request_verdict(error),
            DeliveryError::UnknownHost => {
                (StatusCode::MISDIRECTED_REQUEST, "no site of this name is served here")
            }
            // RFC 9110 section 7.4: he asks again on another connection.
            DeliveryError::OtherHost => {
                (StatusCode::MISDIRECTED_REQUEST, "the connection was opened for another host")
            }
            // RFC 5842 section 7.2.
            DeliveryError::Loop => (
                StatusCode::LOOP_DETECTED,
                "the request has been here before: see the origin's address",
            ),
            DeliveryError::PurgeRefused => {
                (StatusCode::FORBIDDEN, "not from here, or not with this token")
            }
            DeliveryError::NotPurged(PurgeError::Journal { .. }) => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "it is not purged for good: the journal cannot be written",
            ),
            DeliveryError::NotPurged(PurgeError::Elsewhere) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "it is purged, but perhaps not by the process beside this one; purge again",
            ),
            DeliveryError::NotPurged(PurgeError::Late) => {
                (StatusCode::SERVICE_UNAVAILABLE, "it may be purged or not; purge again")
            }
            DeliveryError::NotPurged(PurgeError::Busy | PurgeError::Draining) => {
                (StatusCode::SERVICE_UNAVAILABLE, "it was not purged; try again")
            }
            DeliveryError::Barred(barred) => (StatusCode::FORBIDDEN, barred.reason()),
            DeliveryError::OffRoute(to) => {
                let is_sent = to.is_some();
                let status = if is_sent { StatusCode::FOUND } else { StatusCode::FORBIDDEN };
                (status, "another box is for you")
            }
            DeliveryError::Denied(refused) => return denied_verdict(refused),
            DeliveryError::TurnedAway => return fill_verdict(&FillError::Draining),
            DeliveryError::BodyRefused => return request_verdict(&RequestError::BodyRefused),
            DeliveryError::Unsatisfiable { .. } => {
                (StatusCode::RANGE_NOT_SATISFIABLE, "the range lies outside the object")
            }
            DeliveryError::PreconditionFailed => {
                (StatusCode::PRECONDITION_FAILED, "a condition of the request does not hold")
            }
            // RFC 9111 section 5.2.1.7.
            DeliveryError::OnlyIfCached => {
                (StatusCode::GATEWAY_TIMEOUT, "it is not cached, and only that was asked for")
            }
            // RFC 9111 section 5.2.2.2.
            DeliveryError::Unconfirmed(_) => {
                (StatusCode::GATEWAY_TIMEOUT, "it is stale, and the origin does not confirm it")
            }
            DeliveryError::Fill(error) => return fill_verdict(error),
            DeliveryError::Overload(refusal) => return overload_verdict(refusal),
        };
        Verdict { status, reason, retry_after: None, connection: After::Keep }
    }
}

impl DeliveryError {
    /// What it is counted as, if the request was refused before anything was looked up.
    pub fn refused(&self) -> Option<Refused> {
        Some(match self {
            DeliveryError::Request(error) => match error {
                RequestError::Malformed(fault) => match fault {
                    HeadFault::LineEnd => Refused::LineEnd,
                    HeadFault::StartLine => Refused::StartLine,
                    HeadFault::Folded | HeadFault::FieldName | HeadFault::FieldValue => {
                        Refused::Field
                    }
                    HeadFault::Length | HeadFault::LengthAndCoding | HeadFault::Coding => {
                        Refused::Framing
                    }
                },
                RequestError::MethodRefused => Refused::Method,
                RequestError::TargetTooLong { .. } => Refused::TargetLength,
                RequestError::TooManyFields { .. } => Refused::Fields,
                RequestError::BodyRefused => Refused::Body,
                RequestError::ExpectationFailed => Refused::Expectation,
                RequestError::BadTarget => Refused::Target,
                RequestError::HostMissing
                | RequestError::HostRepeated
                | RequestError::BadHost
                | RequestError::HostsDiffer => Refused::Host,
            },
            DeliveryError::BodyRefused => Refused::Body,
            DeliveryError::Fill(error) if matches!(**error, FillError::RequestBody(_)) => {
                Refused::Body
            }
            DeliveryError::PurgeRefused => Refused::Method,
            DeliveryError::UnknownHost | DeliveryError::OtherHost => Refused::Misdirected,
            DeliveryError::Loop => Refused::Loop,
            DeliveryError::TurnedAway => Refused::Draining,
            _ => return None,
        })
    }
}

fn request_verdict(error: &RequestError) -> Verdict {
    let (status, reason, connection) = match error {
        RequestError::Malformed(fault) => (StatusCode::BAD_REQUEST, fault.words(), After::Close),
        RequestError::MethodRefused => {
            (StatusCode::METHOD_NOT_ALLOWED, "the method is not allowed here", After::Keep)
        }
        RequestError::BodyRefused => {
            (StatusCode::PAYLOAD_TOO_LARGE, "a request must not have a body", After::Close)
        }
        RequestError::ExpectationFailed => {
            (StatusCode::EXPECTATION_FAILED, "this expectation is not met", After::Close)
        }
        RequestError::TargetTooLong { .. } => {
            (StatusCode::URI_TOO_LONG, "the target is too long", After::Close)
        }
        RequestError::TooManyFields { .. } => {
            (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "too many fields", After::Close)
        }
        _ => (StatusCode::BAD_REQUEST, "the request cannot be understood", After::Close),
    };
    Verdict { status, reason, retry_after: None, connection }
}

fn denied_verdict(refused: &door::Refused) -> Verdict {
    let (status, reason, retry_after) = match refused {
        // RFC 9246 section 5: whatever the reason is.
        door::Refused::Denied(_) | door::Refused::Cat(_) | door::Refused::Directed => {
            (StatusCode::FORBIDDEN, "it takes a token that is for this, and good now", None)
        }
        // CTA-5007 section 4.9: as who issued it says.
        door::Refused::Answered(instead) => (instead.status, "see the token", None),
        door::Refused::Exhausted(exhausted) => {
            (StatusCode::TOO_MANY_REQUESTS, exhausted.reason(), Some(exhausted.retry_after()))
        }
    };
    Verdict { status, reason, retry_after, connection: After::Keep }
}

fn fill_verdict(error: &FillError) -> Verdict {
    let (status, reason, retry_after) = match error {
        FillError::RequestBody(fault) => return body_verdict(*fault),
        FillError::FirstByteTimeout { .. } | FillError::ProgressTimeout { .. } => {
            (StatusCode::GATEWAY_TIMEOUT, "the origin did not answer in time", None)
        }
        FillError::Overload { .. } => {
            (StatusCode::SERVICE_UNAVAILABLE, "too busy just now", Some(RETRY_AFTER))
        }
        FillError::Draining => {
            (StatusCode::SERVICE_UNAVAILABLE, "this appliance is draining", Some(RETRY_AFTER))
        }
        FillError::Connect { .. } => {
            (StatusCode::BAD_GATEWAY, "the origin cannot be reached", None)
        }
        FillError::Closed { .. }
        | FillError::WrongRange { .. }
        | FillError::Digest { .. }
        | FillError::Changed
        | FillError::Unusable { .. }
        | FillError::Redirect { .. } => {
            (StatusCode::BAD_GATEWAY, "the origin's answer cannot be used", None)
        }
    };
    Verdict { status, reason, retry_after, connection: After::Keep }
}

fn overload_verdict(refusal: &Refusal) -> Verdict {
    let retry_after = Some(refusal.retry_after);
    let (status, reason, connection) = match refusal.reason {
        // RFC 6585 section 4.
        Reason::ClientRequests => {
            (StatusCode::TOO_MANY_REQUESTS, "too many requests from here", After::Keep)
        }
        Reason::Miss => (StatusCode::SERVICE_UNAVAILABLE, "too busy to fetch it now", After::Keep),
        // What comes next on it may be another site's, and a new one would cost more.
        Reason::ShareAgain => {
            (StatusCode::SERVICE_UNAVAILABLE, "too busy for this site now", After::Keep)
        }
        Reason::ClientConnections
        | Reason::Handshakes
        | Reason::Connections
        | Reason::Share
        | Reason::Lag
        | Reason::Egress
        | Reason::Memory => {
            (StatusCode::SERVICE_UNAVAILABLE, "too busy for new viewers now", After::Close)
        }
    };
    Verdict { status, reason, retry_after, connection }
}

fn body_verdict(fault: BodyFault) -> Verdict {
    let (status, reason) = match fault {
        BodyFault::TooLong => (StatusCode::PAYLOAD_TOO_LARGE, "the body is longer than is taken"),
        // RFC 9110 section 15.5.9.
        BodyFault::Stopped => (StatusCode::REQUEST_TIMEOUT, "the body does not come"),
        BodyFault::BrokenOff => (StatusCode::BAD_REQUEST, "the body broke off"),
    };
    Verdict { status, reason, retry_after: None, connection: After::Close }
}

const RETRY_AFTER: Duration = Duration::from_secs(2);
