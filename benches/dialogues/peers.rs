//! Tidegate in this process, and the others from their Debian packages, each as a fair cache.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::dialogue::speak::Server;
use crate::support::{Client, Edge, HOST};

/// A server of another make: its program, how it is started, what it is told.
struct Peer {
    name: &'static str,
    /// Prints its version.
    version: &'static str,
    command: &'static str,
    /// Files of its folder.
    files: &'static [(&'static str, &'static str)],
}

/// `{dir}`, `{port}` and `{origin}` (its port) are filled in.
const PEERS: [Peer; 3] = [
    Peer {
        name: "nginx",
        version: "nginx -v",
        command: "nginx -e {dir}/log -p {dir} -c {dir}/nginx.conf",
        files: &[("nginx.conf", include_str!("conf/nginx.conf"))],
    },
    Peer {
        name: "varnish",
        version: "varnishd -V",
        command: "varnishd -F -j none -n {dir}/vsm -f {dir}/cache.vcl -s malloc,256m \
            -a 127.0.0.1:{port} -T none -p default_ttl=0 -p default_grace=0 -p default_keep=3600",
        files: &[("cache.vcl", include_str!("conf/cache.vcl"))],
    },
    Peer {
        name: "trafficserver",
        version: "traffic_server -V",
        command: "traffic_server",
        files: &[
            ("runroot.yaml", include_str!("conf/runroot.yaml")),
            ("records.config", include_str!("conf/records.config")),
            ("ip_allow.yaml", include_str!("conf/ip_allow.yaml")),
            ("remap.config", "map / http://127.0.0.1:{origin}/\n"),
            ("storage.config", "{dir}/cache 256M\n"),
        ],
    },
];

/// A server that runs until it is dropped.
pub(crate) struct Started {
    /// Its name and version.
    pub(crate) version: String,
    /// `None`: it is Tidegate, started for each table with the rules that the table asks for.
    peer: Option<(Child, SocketAddr, TempDir)>,
}

impl Started {
    /// # Errors
    /// It is not known, not installed or does not come up.
    pub(crate) async fn new(name: &str, origin: SocketAddr) -> Result<Started, String> {
        if name == "tidegate" {
            let version = format!("tidegate {}", env!("CARGO_PKG_VERSION"));
            return Ok(Started { version, peer: None });
        }
        let peer = PEERS.iter().find(|peer| peer.name == name).ok_or("it is not known")?;
        let version = version_of(peer).ok_or("it is not installed")?;
        let folder = TempDir::new().unwrap();
        let port = free_port();
        let filled = |text: &str| {
            text.replace("{dir}", &folder.path().to_string_lossy())
                .replace("{port}", &port.to_string())
                .replace("{origin}", &origin.port().to_string())
        };
        fs::create_dir(folder.path().join("cache")).unwrap();
        for (file, text) in peer.files {
            fs::write(folder.path().join(file), filled(text)).unwrap();
        }
        let words: Vec<_> = peer.command.split_whitespace().map(filled).collect();
        let output = || fs::File::create(folder.path().join("output")).unwrap();
        let child = Command::new(&words[0])
            .args(&words[1..])
            .env("TS_RUNROOT", folder.path().join("runroot.yaml"))
            .stdout(output())
            .stderr(Stdio::null())
            .spawn();
        let child = child.map_err(|error| error.to_string())?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let started = Started { version, peer: Some((child, address, folder)) };
        let accepts = async {
            while TcpStream::connect(address).await.is_err() {
                sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(STARTING, accepts).await.map_err(|_| "it does not accept".to_owned())?;
        Ok(started)
    }

    /// Tidegate for one table.
    pub(crate) fn for_table(&self, rules: &[(String, String)], origin: SocketAddr) -> Option<Edge> {
        if self.peer.is_some() {
            return None;
        }
        let rule = |edge: crate::support::Configured, (pattern, settings): &(String, String)| {
            edge.rule(pattern, settings)
        };
        let configured = rules.iter().fold(Edge::at(origin), rule);
        Some(configured.start())
    }

    /// Whom to ask.
    pub(crate) fn server(&self) -> Server {
        let (_, address, _) = self.peer.as_ref().expect("Tidegate is asked table by table");
        Server { client: Client::plain(*address, HOST), admin: None }
    }
}

/// Whom to ask of Tidegate.
pub(crate) fn server_of(edge: &Edge) -> Server {
    Server { client: edge.client(), admin: Some(edge.admin()) }
}

impl Drop for Started {
    fn drop(&mut self) {
        let Some((child, _, _)) = &mut self.peer else { return };
        let pid = rustix::process::Pid::from_child(child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = child.wait();
    }
}

/// The first of its words that is a number with a dot.
fn version_of(peer: &Peer) -> Option<String> {
    let mut words = peer.version.split_whitespace();
    let output = Command::new(words.next()?).args(words).output().ok()?;
    let told = [output.stdout, output.stderr].concat();
    let told = String::from_utf8_lossy(&told);
    let mut words = told.split([' ', '/', '\n', '(', '-']);
    let version = words.find(|word| word.contains('.') && word.starts_with(char::is_numeric))?;
    Some(format!("{} {version}", peer.name))
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// How long one may take to come up.
const STARTING: Duration = Duration::from_secs(30);
