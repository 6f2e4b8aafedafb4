//! The listeners' ports: free, or held by whom.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{self, Path, PathBuf};

use http::Request;

use super::Subject;
use super::finding::Finding;
use super::root::Root;
use crate::cli::{USUAL_CONFIG, admin};
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
            let holders = holders(root, listener.address);
            taken(&holders, Path::new(&config.file), || answers_as_tidegate(config))
        }
        io::ErrorKind::PermissionDenied => Finding::unknown(
            "this user may not bind it, so whether it is free cannot be told",
            "ask again as root; the unit has CAP_NET_BIND_SERVICE",
        ),
        _ => Finding::fail(listener.refusal(error), "set `[listeners]` right"),
    }
}

/// A process that listens.
struct Holder {
    number: u32,
    name: String,
    /// Of a tidegate that serves, as far as it can be told: the file that it serves by.
    file: Option<PathBuf>,
    /// Which file that is where the process finds it, whatever it is called here.
    identity: Option<Identity>,
}

/// Device and inode.
type Identity = (u64, u64);

fn identity(file: &Path) -> Option<Identity> {
    let file = fs::metadata(file).ok()?;
    Some((file.dev(), file.ino()))
}

/// `holders` are empty where this user may not see them.
fn taken(holders: &[Holder], file: &Path, answers: impl Fn() -> bool) -> Finding {
    let ours = identity(file);
    let is_other = |one: &&Holder| match (ours, one.identity, &one.file) {
        (Some(ours), Some(other), _) => ours != other,
        // It is gone from there, or not for this user to see: the name has to do.
        (Some(_), None, Some(other)) => path::absolute(file).is_ok_and(|file| file != *other),
        (Some(_), None, None) | (None, _, _) => false,
    };
    let mut tidegates = holders.iter().filter(|one| one.name == "tidegate");
    if let Some(Holder { number, file: Some(other), .. }) = tidegates.clone().find(is_other) {
        let of_its_own = match other.as_path() == file {
            true => " in a root of its own",
            false => "",
        };
        let other = other.display();
        return Finding::fail(
            format!("held by the tidegate of another configuration: {number}, {other}{of_its_own}"),
            format!("stop process {number}, or choose another port under `[listeners]`"),
        );
    }
    if tidegates.next().is_some() {
        return Finding::ok("held by a tidegate that is running");
    }
    if holders.iter().any(|one| one.name == "systemd") {
        let to_do = "see in `systemctl list-sockets` that it is tidegate.socket";
        return Finding::note("held by systemd", to_do);
    }
    match holders.first() {
        Some(Holder { name, .. }) => Finding::fail(
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

/// The programs that listen there, as far as this user may see them.
fn holders(root: &Root, address: SocketAddr) -> Vec<Holder> {
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
    let holder = |(number, name)| Holder::of(root, number, name);
    root.processes().filter(|(number, _)| holds(number)).map(holder).collect()
}

impl Holder {
    fn of(root: &Root, number: u32, name: String) -> Holder {
        let written = written(root, number);
        let identity = written.as_ref().and_then(|file| {
            let from = if file.is_absolute() { "root" } else { "cwd" };
            let there = root.path(format!("proc/{number}/{from}"));
            identity(&there.join(file.strip_prefix("/").unwrap_or(file)))
        });
        let file = written.and_then(|file| {
            if file.is_absolute() {
                return Some(file);
            }
            Some(fs::read_link(root.path(format!("proc/{number}/cwd"))).ok()?.join(file))
        });
        Holder { number, name, file, identity }
    }
}

/// The configuration that a process serves by, as its command line has it, if that says that it
/// does.
fn written(root: &Root, number: u32) -> Option<PathBuf> {
    let line = root.text(format!("proc/{number}/cmdline"))?;
    let mut words = line.split('\0').skip_while(|word| *word != "serve").skip(1);
    words.clone().next()?;
    let written = words.find_map(|word| word.strip_prefix("--config"));
    let file = match written {
        Some("") => words.next()?,
        Some(file) => file.strip_prefix('=')?,
        None => USUAL_CONFIG,
    };
    Some(PathBuf::from(file))
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
        let names = |address: &str| holders(address).into_iter().map(|one| one.name);
        assert_eq!(names("127.0.0.1:80").collect::<Vec<_>>(), ["nginx"]);
        assert_eq!(names("0.0.0.0:80").collect::<Vec<_>>(), ["nginx"]);
        assert!(holders("127.0.0.2:80").is_empty() && holders("127.0.0.1:81").is_empty());
    }

    #[test]
    fn who_holds_a_port_decides() {
        let none = Path::new("/no/such");
        for (holders, answers, state) in [
            (&["tidegate", "systemd"][..], false, State::Ok),
            (&["systemd"], false, State::Note),
            (&["nginx"], true, State::Fail),
            (&[], true, State::Ok),
            (&[], false, State::Fail),
        ] {
            let named = |name: &&str| {
                let name = (*name).to_owned();
                Holder { number: 1, name, file: None, identity: None }
            };
            let found = taken(&holders.iter().map(named).collect::<Vec<_>>(), none, || answers);
            assert_eq!(found.state, state, "{holders:?}");
        }
    }

    #[test]
    fn a_tidegate_of_another_file_is_in_the_way_and_named() {
        let (own, root) = with(&[
            ("proc/11/cmdline", "/usr/bin/tidegate\0serve\0--config\0own.toml\0"),
            ("proc/12/cmdline", "tidegate\0serve\0--config=/etc/other.toml\0"),
            ("proc/13/cmdline", "tidegate\0serve\0"),
            ("proc/14/cmdline", "tidegate\0demo\0"),
            ("proc/15/cmdline", "tidegate\0serve\0--config\0/etc/mounted.toml\0"),
            ("proc/15/root/etc/x", ""),
            ("own.toml", ""),
        ]);
        symlink(own.path(), own.path().join("proc/11/cwd")).unwrap();
        let file = own.path().join("own.toml");
        let served_by = |number| Holder::of(&root, number, String::new()).file;
        let files = [11, 12, 13, 14].map(served_by);
        let expected = [file.to_str().unwrap(), "/etc/other.toml", USUAL_CONFIG];
        let expected = expected.map(|file| Some(PathBuf::from(file)));
        assert_eq!(files[..3], expected);
        assert_eq!(files[3], None);
        let held = |numbers: &[u32]| {
            let one = |number: &u32| Holder::of(&root, *number, "tidegate".to_owned());
            taken(&numbers.iter().map(one).collect::<Vec<_>>(), &file, || true)
        };
        assert_eq!([held(&[11]).state, held(&[14]).state], [State::Ok; 2]);
        let other = held(&[11, 12]);
        assert_eq!(other.state, State::Fail);
        assert!(other.found.ends_with(": 12, /etc/other.toml"), "{other:?}");
        assert!(other.to_do.unwrap().starts_with("stop process 12, "));

        // In a root of its own it has our file by another name, then another by our file's name.
        fs::hard_link(&file, own.path().join("proc/15/root/etc/mounted.toml")).unwrap();
        assert_eq!(held(&[15]).state, State::Ok);
        let line = format!("tidegate\0serve\0--config\0{}\0", file.display());
        fs::write(own.path().join("proc/15/cmdline"), line).unwrap();
        let private = own.path().join("proc/15/root").join(file.strip_prefix("/").unwrap());
        fs::create_dir_all(private.parent().unwrap()).unwrap();
        fs::write(private, "").unwrap();
        let other = held(&[15]);
        assert!(other.found.ends_with("own.toml in a root of its own"), "{other:?}");
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
