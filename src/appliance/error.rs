//! Why an appliance does not start, in one line.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::SocketAddr;

use super::takeover::NoRoom;
use crate::access_log::AccessLogError;
use crate::config::ConfigError;
use crate::control::plane::PlaneError;

/// Why an appliance does not start.
#[derive(Debug)]
pub enum ApplianceError {
    /// A runtime, a thread or the ram tier could not be had from the system.
    System {
        /// What was asked for.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A listener could not be bound.
    Bind {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The certificates or an origin's TLS settings cannot be used.
    Tls(String),
    /// A volume of the ssd tier cannot be used.
    Volume {
        /// As the configuration calls it.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The volumes that there are show a mistake in the configuration.
    Settings(ConfigError),
    /// Two processes at once need more memory than there is.
    Room(NoRoom),
    /// The access log could not be opened.
    Log(AccessLogError),
    /// There is no control plane.
    Control(PlaneError),
}

impl fmt::Display for ApplianceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ApplianceError::System { what, source } => write!(f, "cannot have {what}: {source}"),
            ApplianceError::Bind { address, source } => {
                write!(f, "cannot listen at {address}: {source}")
            }
            ApplianceError::Tls(reason) => write!(f, "TLS cannot be set up: {reason}"),
            ApplianceError::Volume { name, reason } => {
                write!(f, "volume {name} cannot be used: {reason}")
            }
            ApplianceError::Settings(fault) => fault.fmt(f),
            ApplianceError::Room(none) => none.fmt(f),
            ApplianceError::Log(source) => write!(f, "{source}"),
            ApplianceError::Control(source) => write!(f, "no control plane: {source}"),
        }
    }
}

impl Error for ApplianceError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            ApplianceError::System { source, .. } | ApplianceError::Bind { source, .. } => {
                Some(source)
            }
            ApplianceError::Log(source) => Some(source),
            ApplianceError::Control(source) => Some(source),
            ApplianceError::Tls(_)
            | ApplianceError::Volume { .. }
            | ApplianceError::Room(_)
            | ApplianceError::Settings(_) => None,
        }
    }
}
