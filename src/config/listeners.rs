//! Where the appliance listens, and whether the ports can be had.
//!
//! Every address is one listener. An IPv6 address never stands for IPv4 too. Trying the ports
//! binds each without sharing it and lets go at once: a port another process holds is found before
//! this one holds any.

use std::fs;
use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};

use crate::limits::LISTENERS_MAX;
pub use crate::network::ListenerKind;

use super::error::{ConfigError, ConfigErrors, Place, cause};
use super::raw::Section;
use super::setting::Setting;

/// One address to listen at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// What is spoken there.
    pub kind: ListenerKind,
    /// Port 0: the system chooses.
    pub address: SocketAddr,
    /// Where it is written.
    pub place: Place,
}

impl Listener {
    /// Binds it without sharing it, and lets go at once.
    ///
    /// # Errors
    /// The system's: somebody else has it, or may not be told.
    pub fn try_bind(&self) -> io::Result<()> {
        try_bind(self.address)
    }

    /// Whether it cannot be bound while another socket listens at `other`.
    pub fn overlaps(&self, other: SocketAddr) -> bool {
        overlap(self.address, other)
    }

    /// What is wrong where it cannot be bound, and what would be right.
    pub fn refusal(&self, error: &io::Error) -> String {
        refusal(self, error)
    }
}

/// By which of its ways (TCP congestion control) the kernel finds out how fast it may send to the
/// viewers of each kind of listener; none: by the system's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Congestion {
    http: Option<String>,
    https: Option<String>,
}

impl Congestion {
    /// The one for listeners of this kind.
    pub fn of(&self, kind: ListenerKind) -> Option<&str> {
        match kind {
            ListenerKind::Http => self.http.as_deref(),
            ListenerKind::Https => self.https.as_deref(),
            ListenerKind::Admin | ListenerKind::Steering | ListenerKind::SteeringTls => None,
        }
    }

    /// What of it the kernel does not have by now, a line for each kind of listener. Blocks.
    pub fn lacking(&self) -> Vec<String> {
        let Some(available) = available() else { return Vec::new() };
        let has = |name: &str| available.split_whitespace().any(|one| one == name);
        let lacking = ListenerKind::ALL.into_iter().filter_map(|kind| {
            let name = self.of(kind).filter(|name| !has(name))?;
            Some(no_congestion_control(kind, name))
        });
        lacking.collect()
    }
}

/// What is wrong where the kernel has none of this name, and what would be right. Blocks.
pub fn no_congestion_control(kind: ListenerKind, name: &str) -> String {
    let wanted = format!("`listeners.congestion.{}` is {name:?}: the kernel has no", kind.name());
    match available() {
        Some(available) => {
            format!("{wanted} {name}; choose one of: {available}, or `modprobe tcp_{name}`")
        }
        None => format!("{wanted} {name}; see `tidegate doctor`"),
    }
}

/// The names of all that the kernel has now.
fn available() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control").ok()?;
    Some(text.trim().to_owned())
}

/// Reads what the section `listeners` says of it.
pub(super) fn congestion(section: &Section<'_>) -> Congestion {
    section.section("congestion", |of| Congestion {
        http: control(of, ListenerKind::Http.name()),
        https: control(of, ListenerKind::Https.name()),
    })
}

fn control(section: &Section<'_>, key: &'static str) -> Option<String> {
    let (setting, text) = section.setting(key).and_then(Setting::with_text)?;
    let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if text.is_empty() || text.len() > CONTROL_BYTES_MAX || !text.chars().all(letter) {
        setting.fail(format!("is {text:?}; write a name such as \"bbr\" or \"cubic\""));
        return None;
    }
    Some(text.to_owned())
}

/// Letters of such a name, as the kernel has them.
const CONTROL_BYTES_MAX: usize = 15;

/// Reads the section `listeners`.
pub(super) fn read(section: &Section<'_>) -> Vec<Listener> {
    let mut listeners: Vec<Listener> = Vec::new();
    let mut viewers = false;
    for kind in ListenerKind::ALL {
        let Some(setting) = section.setting(kind.name()) else { continue };
        viewers |= kind.is_of_workers();
        for (setting, text) in setting.texts() {
            let Some(address) = address(&setting, text) else { continue };
            let place = section.source.place(setting.at);
            if let Some(taken) = listeners.iter().find(|l| overlap(l.address, address)) {
                let Place { line, column } = taken.place;
                let taken = taken.address;
                setting.fail(format!(
                    "{address} is taken by {taken} at {line}:{column}; each address once"
                ));
                continue;
            }
            listeners.push(Listener { kind, address, place });
        }
    }
    if !viewers {
        section.fail(
            "no listener for viewers; write `http = [\"0.0.0.0:80\", \"[::]:80\"]` \
             or `https = ...` under `[listeners]`",
        );
    }
    if listeners.len() > LISTENERS_MAX {
        section.fail(format!("{} listeners; at most {LISTENERS_MAX}", listeners.len()));
    }
    listeners
}

/// The address that a text is.
pub(super) fn address(setting: &Setting<'_>, text: &str) -> Option<SocketAddr> {
    let address = text.parse().ok();
    if address.is_none() {
        setting.fail(format!(
            "is {text:?}; write an IP address and a port such as \"0.0.0.0:443\" or \"[::]:443\""
        ));
    }
    address
}

/// Whether both cannot be bound at once. IPv6 sockets take IPv6 alone.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let same_family = a.is_ipv4() == b.is_ipv4();
    let same_ip = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() != 0 && a.port() == b.port() && same_family && same_ip
}

/// Binds every address and lets go. `inherited`: addresses already passed to this process.
pub(super) fn try_ports(
    file: &str,
    listeners: &[Listener],
    inherited: &[SocketAddr],
) -> Result<(), ConfigErrors> {
    let ours = |address| inherited.iter().any(|held| overlap(*held, address));
    let wanted = listeners.iter().filter(|l| l.address.port() != 0 && !ours(l.address));
    let fault = |listener: &Listener| {
        let error = try_bind(listener.address).err()?;
        Some(ConfigError {
            file: file.to_owned(),
            place: Some(listener.place),
            text: refusal(listener, &error),
        })
    };
    let mut faults: Vec<ConfigError> = wanted.filter_map(fault).collect();
    faults.sort_by_key(|fault| fault.place);
    if faults.is_empty() { Ok(()) } else { Err(ConfigErrors(faults)) }
}

/// Fails where another socket listens, also one that would share; old connections do not matter.
fn try_bind(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())
}

fn refusal(listener: &Listener, error: &io::Error) -> String {
    let name = listener.kind.name();
    let Listener { address, .. } = listener;
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("`listeners.{name}` {address} is taken by another socket; choose a free port")
        }
        io::ErrorKind::AddrNotAvailable => format!(
            "`listeners.{name}` {address} is no address of this machine; \
             write one it has, or 0.0.0.0 or [::] for all"
        ),
        io::ErrorKind::PermissionDenied => format!(
            "`listeners.{name}` {address} is not allowed to this user; \
             run with CAP_NET_BIND_SERVICE or choose a port above 1023"
        ),
        _ => format!("`listeners.{name}` {address} cannot be bound: {}", cause(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_overlap_by_port_family_and_wildcard() {
        let table = [
            ("0.0.0.0:80", "0.0.0.0:80", true),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("127.0.0.2:80", "127.0.0.1:80", false),
            ("0.0.0.0:80", "[::]:80", false),
            ("[::]:80", "[::1]:80", true),
            ("0.0.0.0:80", "0.0.0.0:81", false),
            ("0.0.0.0:0", "0.0.0.0:0", false),
        ];
        for (a, b, expected) in table {
            assert_eq!(overlap(a.parse().unwrap(), b.parse().unwrap()), expected, "{a} {b}");
        }
    }

    #[test]
    fn a_port_is_taken_unless_it_is_free_or_was_passed_to_us() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        socket.listen(1).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let place = Place { line: 3, column: 9 };
        let listeners = [Listener { kind: ListenerKind::Http, address, place }];

        let errors = try_ports("t.toml", &listeners, &[]).unwrap_err();
        let taken = "is taken by another socket; choose a free port";
        assert_eq!(errors.to_string(), format!("t.toml:3:9: `listeners.http` {address} {taken}"));
        assert_eq!(try_ports("t.toml", &listeners, &[address]), Ok(()));
        drop(socket);
        assert_eq!(try_ports("t.toml", &listeners, &[]), Ok(()));
    }
}
