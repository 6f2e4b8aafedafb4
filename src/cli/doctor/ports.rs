//! The listeners' ports: free, or held by whom.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::Request;

use super::Subject;
use super::finding::Finding;
use super::root::Root;
use crate::cli::admin;
use crate::config::{Config, Listener};

/// The state of a socket that listens, as `/proc/net/tcp` has it.
const LISTENS: &str = "0A";

/// Each listener.
pub(super) fn look(subject: &Subject) -> Vec<Finding> {
    let Subject { config, root, .. } = subject;
    let of_each = config.listeners.iter().map(|listener| {
        let of = format!("{} {}", listener.kind.name(), listener.address);
        let finding = match listener.try_bind() {
            Ok(()) if listener.address.port() == 0 => Finding::ok("the system chooses the port"),
            Ok(()) => Finding::ok("free"),
            Err(error) => refused(config, root, listener, &error),
        };
        finding.of(of)
    });
    of_each.collect()
}

fn refused(config: &Config, root: &Root, listener: &Listener, error: &io::Error) -> Finding {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            taken(&holders(root, listener.address), || answers_as_tidegate(config))
        }
        io::ErrorKind::PermissionDenied => Finding::unknown(
            "this user may not bind it, so whether it is free cannot be told",
            "ask again as root; the unit has CAP_NET_BIND_SERVICE",
        ),
        _ => Finding::fail(listener.refusal(error), "set `[listeners]` right"),
    }
}

/// `holders` are empty where this user may not see them.
fn taken(holders: &[String], answers: impl Fn() -> bool) -> Finding {
    if holders.iter().any(|name| name == "tidegate") {
        return Finding::ok("held by a tidegate that is running");
    }
    if holders.iter().any(|name| name == "systemd") {
        let to_do = "see in `systemctl list-sockets` that it is tidegate.socket";
        return Finding::note("held by systemd", to_do);
    }
    match holders.first() {
        Some(name) => Finding::fail(
            format!("held by {name}"),
            format!("stop {name}, or choose another port under `[listeners]`"),
        ),
        None if answers() => {
            Finding::ok("taken; a tidegate answers at this configuration's admin listener")
        }
        None => Finding::fail(
            "taken by another socket",
            "`ss -ltnp` as root says whose; stop it, or choose another port",
        ),
    }
}

fn answers_as_tidegate(config: &Config) -> bool {
    let addresses = admin::Admins::of(config).addresses;
    let request = Request::get("/status.json").body(Default::default());
    let request = request.expect("a path without fields is a request");
    admin::told(&addresses, &request, admin::is_status).is_ok()
}

/// The names of the programs that listen there, as far as this user may see them.
fn holders(root: &Root, address: SocketAddr) -> Vec<String> {
    let tables =
        ["proc/net/tcp", "proc/net/tcp6"].map(|table| root.text(table).unwrap_or_default());
    let sockets: Vec<String> = tables.iter().flat_map(|table| listening(table, address)).collect();
    if sockets.is_empty() {
        return Vec::new();
    }
    let holds = |number: &u32| {
        let folder = root.path(format!("proc/{number}/fd"));
        let files = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut open = files.filter_map(|file| fs::read_link(file.path()).ok());
        open.any(|file| sockets.iter().any(|socket| *socket == file.to_string_lossy()))
    };
    root.processes().filter(|(number, _)| holds(number)).map(|(_, name)| name).collect()
}

/// The sockets of a table of the kernel that listen where `address` is, as their descriptors are
/// called.
fn listening(table: &str, address: SocketAddr) -> Vec<String> {
    let socket = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (ip, port) = fields.get(1)?.split_once(':')?;
        let is_here = u16::from_str_radix(port, 16).ok()? == address.port()
            && *fields.get(3)? == LISTENS
            && may_be(ip, address.ip());
        is_here.then(|| fields.get(9).map(|inode| format!("socket:[{inode}]")))?
    };
    table.lines().skip(1).filter_map(socket).collect()
}

/// Whether one who listens at `written` may take what comes to `ip`.
fn may_be(written: &str, ip: IpAddr) -> bool {
    match (u32::from_str_radix(written, 16), ip) {
        (Ok(bits), IpAddr::V4(ip)) => {
            let listens = Ipv4Addr::from(bits.to_ne_bytes());
            listens == ip || listens.is_unspecified() || ip.is_unspecified()
        }
        (Ok(_), IpAddr::V6(_)) => false,
        // Written in 32 digits: one for IPv6, which may take IPv4 too.
        (Err(_), _) => true,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::fs::symlink;

    use super::super::finding::State;
    use super::super::tests::{subject, with};
    use super::*;

    #[test]
    fn a_port_is_free_or_told_by_whom_it_is_held() {
        let loopback = u32::from_ne_bytes([127, 0, 0, 1]);
        let table = format!(
            "  sl  local_address rem_address   st\n   0: {loopback:08X}:0050 00000000:0000 0A \
             0:0 0:0 0 0 0 4711 1\n   1: {loopback:08X}:0050 00000000:0000 01 0:0 0:0 0 0 0 \
             4712 1\n"
        );
        let (folder, root) = with(&[
            ("proc/net/tcp", &table),
            ("proc/12/comm", "nginx\n"),
            ("proc/12/fd/x", ""),
            ("proc/13/comm", "curl\n"),
            ("proc/13/fd/x", ""),
        ]);
        symlink("socket:[4712]", folder.path().join("proc/13/fd/3")).unwrap();
        symlink("socket:[4711]", folder.path().join("proc/12/fd/6")).unwrap();
        let holders = |address: &str| holders(&root, address.parse().unwrap());
        assert_eq!(holders("127.0.0.1:80"), ["nginx"]);
        assert_eq!(holders("0.0.0.0:80"), ["nginx"]);
        assert!(holders("127.0.0.2:80").is_empty() && holders("127.0.0.1:81").is_empty());
    }

    #[test]
    fn who_holds_a_port_decides() {
        for (holders, answers, state) in [
            (&["tidegate", "systemd"][..], false, State::Ok),
            (&["systemd"], false, State::Note),
            (&["nginx"], true, State::Fail),
            (&[], true, State::Ok),
            (&[], false, State::Fail),
        ] {
            let holders: Vec<String> = holders.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(taken(&holders, || answers).state, state, "{holders:?}");
        }
    }

    #[test]
    fn listeners_are_tried_as_they_are_written() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let settings = format!("listeners.admin = ['{}']", held.local_addr().unwrap());
        let (_folder, root) = with(&[]);
        let findings = look(&subject(&settings, root));
        let told: Vec<_> = findings.iter().map(|one| (one.of.as_str(), one.state)).collect();
        let admin = format!("admin {}", held.local_addr().unwrap());
        assert_eq!(told, [("http 127.0.0.1:0", State::Ok), (admin.as_str(), State::Fail)]);
    }
}
