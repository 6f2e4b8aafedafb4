//! What can go wrong on the way from an origin. Which status a viewer gets is decided in
//! `delivery`.

use std::fmt;

use crate::metrics::labels::OriginError;

/// Why a fill brought nothing, or not all of it.
#[derive(Debug)]
pub enum FillError {
    /// No connection to the origin, or it broke before a response came.
    Connect {
        /// `host:port` that was asked.
        origin: String,
        /// The cause, as the client tells it.
        reason: String,
    },
    /// The origin accepted the request and stayed silent.
    FirstByteTimeout {
        /// `host:port` that was asked.
        origin: String,
    },
    /// The body stopped coming.
    ProgressTimeout {
        /// Where in the object.
        offset: u64,
    },
    /// The body broke off.
    Closed {
        /// Where in the object.
        offset: u64,
        /// The cause, as the client tells it.
        reason: String,
    },
    /// A partial answer that is not the part asked for, or contradicts itself.
    WrongRange {
        /// What was asked.
        asked: String,
        /// What came.
        answered: String,
    },
    /// Bytes that are not those its digest is of (RFC 9530).
    Digest {
        /// Where in the object they end.
        end: u64,
    },
    /// The origin now has another body than the one being filled.
    Changed,
    /// The viewer's own body, which was passed on, broke off.
    RequestBody(BodyFault),
    /// An answer that makes no sense here.
    Unusable {
        /// What about it.
        reason: String,
    },
    /// More redirects than are followed, or one that leads nowhere.
    Redirect {
        /// Where it pointed.
        location: String,
    },
    /// No memory, run or connection came free in time.
    Overload {
        /// What there was too little of.
        what: &'static str,
    },
    /// The appliance is draining.
    Draining,
}

impl FillError {
    /// The metrics label of what the origin did; `None` where it was not the origin.
    pub fn of_origin(&self) -> Option<OriginError> {
        Some(match self {
            FillError::Connect { .. } => OriginError::Connect,
            FillError::FirstByteTimeout { .. } => OriginError::TimeoutFirstByte,
            FillError::ProgressTimeout { .. } => OriginError::TimeoutProgress,
            FillError::Closed { .. } => OriginError::Closed,
            FillError::WrongRange { .. } => OriginError::BadRange,
            FillError::Digest { .. } => OriginError::BadDigest,
            FillError::Changed => OriginError::Changed,
            FillError::Unusable { .. } | FillError::Redirect { .. } => OriginError::Status,
            FillError::RequestBody(_) | FillError::Overload { .. } | FillError::Draining => {
                return None;
            }
        })
    }

    /// Whether it is logged where it happens, once for the origin or fill and not for each request,
    /// or nobody need look at it.
    pub fn is_told(&self) -> bool {
        let is_silence =
            matches!(self, FillError::Connect { .. } | FillError::FirstByteTimeout { .. });
        is_silence || matches!(self, FillError::Digest { .. } | FillError::RequestBody(_))
    }

    /// Whether it could not be asked, or gave no whole answer, as RFC 5861 section 4 has it.
    pub fn is_failure(&self) -> bool {
        !matches!(self, FillError::Changed | FillError::Draining)
    }

    /// One word for the access log.
    pub fn word(&self) -> &'static str {
        match self {
            FillError::Overload { .. } => "overload",
            FillError::Draining => "draining",
            FillError::RequestBody(_) => "request_body",
            error => error.of_origin().map_or("unknown", OriginError::label),
        }
    }
}

impl fmt::Display for FillError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FillError::Connect { origin, reason } => {
                write!(f, "origin {origin} cannot be reached: {reason}")
            }
            FillError::FirstByteTimeout { origin } => {
                write!(f, "origin {origin} did not answer in time")
            }
            FillError::ProgressTimeout { offset } => {
                write!(f, "the origin's body stopped coming at byte {offset}")
            }
            FillError::Closed { offset, reason } => {
                write!(f, "the origin's body broke off at byte {offset}: {reason}")
            }
            FillError::WrongRange { asked, answered } => {
                write!(f, "the origin was asked for {asked} and answered {answered}")
            }
            FillError::Digest { end } => {
                write!(f, "what the origin sent up to byte {end} is not what its digest is of")
            }
            FillError::Changed => write!(f, "the origin has another version"),
            FillError::RequestBody(fault) => write!(f, "the request was not passed on: {fault}"),
            FillError::Unusable { reason } => {
                write!(f, "the origin's answer cannot be used: {reason}")
            }
            FillError::Redirect { location } => {
                // A query may hold a signature.
                let (shown, _) = location.split_once('?').unwrap_or((location, ""));
                write!(f, "the origin's redirect to {shown:?} is not followed")
            }
            FillError::Overload { what } => write!(f, "no {what} came free in time"),
            FillError::Draining => write!(f, "the appliance is draining"),
        }
    }
}

impl std::error::Error for FillError {}

/// What is wrong with a request's body that is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFault {
    /// It is longer than its rule allows.
    TooLong,
    /// The viewer sends it no more, or too slowly.
    Stopped,
    /// He left, or sent what is no body.
    BrokenOff,
}

impl fmt::Display for BodyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BodyFault::TooLong => "its body is too long",
            BodyFault::Stopped => "its body stopped coming",
            BodyFault::BrokenOff => "its body broke off",
        })
    }
}

impl std::error::Error for BodyFault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_is_told_without_what_may_be_secret() {
        let location = "ftp://a.example/b?signature=s&c=d".to_owned();
        let told = FillError::Redirect { location }.to_string();
        assert_eq!(told, "the origin's redirect to \"ftp://a.example/b\" is not followed");
    }
}
