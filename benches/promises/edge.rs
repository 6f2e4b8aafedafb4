//! The edge: the real binary as a process of its own, with a configuration of its own.
//!
//! It is measured as an operator would: its memory by the kernel, its counters by `/metrics`.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::viewer::Connection;

/// A running edge; it is killed when dropped.
pub(crate) struct Edge {
    child: Child,
    http: SocketAddr,
    admin: SocketAddr,
    _folder: TempDir,
}

impl Edge {
    /// Starts one in front of `origin`; `settings` are added as TOML tables.
    pub(crate) fn start(origin: SocketAddr, settings: &str) -> Edge {
        Edge::start_with_site(origin, settings, "")
    }

    /// The same with more settings of its site.
    pub(crate) fn start_with_site(origin: SocketAddr, settings: &str, site: &str) -> Edge {
        let folder = TempDir::new().unwrap();
        let config = folder.path().join("edge.toml");
        std::fs::write(&config, text(origin, settings, site)).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_tidegate"))
            .args(["serve", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (mut http, mut admin) = (None, None);
        while http.is_none() || admin.is_none() {
            let line = lines.next().expect("the edge says where it listens").unwrap();

            http = http.or_else(|| address_in(&line, " http at "));
            admin = admin.or_else(|| address_in(&line, " admin at "));
        }
        // What it says next is worth seeing, all of it is not; unread, a full pipe would stop it.
        std::thread::spawn(move || {
            for (number, line) in lines.map_while(Result::ok).enumerate() {
                if number < LINES_SHOWN {
                    eprintln!("{line}");
                }
            }
        });
        Edge { child, http: http.unwrap(), admin: admin.unwrap(), _folder: folder }
    }

    /// Where viewers are served.
    pub(crate) fn http(&self) -> SocketAddr {
        self.http
    }

    /// Where operators ask.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it in order, as `systemctl stop` does.
    pub(crate) async fn end(mut self) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).unwrap();
        let until = Instant::now() + ENDED_WITHIN;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < until, "the edge ends when it is told to");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Sends a document to the admin listener, with the token; how long the answer, a 200, took.
    pub(crate) async fn post(&self, path: &str, token: &str, document: &str) -> Duration {
        let mut stream = TcpStream::connect(self.admin).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let length = document.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n\
             Content-Length: {length}\r\n\r\n{document}"
        );
        let began = Instant::now();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        let took = began.elapsed();
        assert_eq!(&answer, b"HTTP/1.1 200");
        took
    }

    /// The sum of a metric's series whose labels hold `label`.
    pub(crate) async fn metric(&self, name: &str, label: &str) -> f64 {
        let mut connection = Connection::open(self.admin, None).await.unwrap();
        let head = connection.ask("/metrics", None).await.unwrap();
        let body = connection.read_text(head.body_bytes).await.unwrap();
        let of_name = |line: &&str| {
            let tail = line.strip_prefix(name);
            tail.is_some_and(|tail| tail.starts_with([' ', '{'])) && line.contains(label)
        };
        let values = body.lines().filter(of_name).filter_map(|line| line.split(' ').next_back());
        values.filter_map(|value| value.parse::<f64>().ok()).sum()
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const ENDED_WITHIN: Duration = Duration::from_secs(30);
const LINES_SHOWN: usize = 20;

fn address_in(line: &str, before: &str) -> Option<SocketAddr> {
    line.split_once(before)?.1.trim().parse().ok()
}

fn text(origin: SocketAddr, settings: &str, site: &str) -> String {
    format!(
        r#"
[listeners]
http = "127.0.0.1:0"
admin = "127.0.0.1:0"

[log]
access = "off"
level = "info"

{settings}

[[sites]]
name = "promises"
hosts = ["127.0.0.1"]
origins = "http://{origin}"
{site}
"#
    )
}

/// What the kernel says a process holds, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Resident {
    pub(crate) all: u64,
    /// The heap and stacks.
    pub(crate) anonymous: u64,
    /// The ram tier's mapping.
    pub(crate) shared: u64,
    /// The program.
    pub(crate) file: u64,
}

impl Resident {
    /// Of a process, while it lives.
    pub(crate) fn of(pid: u32) -> Option<Resident> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let bytes = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib << 10)
        };
        Some(Resident {
            all: bytes("VmRSS:")?,
            anonymous: bytes("RssAnon:")?,
            shared: bytes("RssShmem:")?,
            file: bytes("RssFile:")?,
        })
    }

    /// What the process has had of the processors so far, in its own code and in the kernel.
    pub(crate) fn cpu_seconds(pid: u32) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let ticks = |n: usize| fields[n].parse::<f64>().unwrap();
        // proc_pid_stat(5): utime and stime, in hundredths on every Linux Tidegate runs on.
        (ticks(11) + ticks(12)) / 100.0
    }

    /// The same of the threads it has now, as the scheduler counts it: to the nanosecond.
    pub(crate) fn cpu_time(pid: u32) -> Duration {
        let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let nanos = threads.map(|thread| {
            let stat = std::fs::read_to_string(thread.unwrap().path().join("schedstat"));
            // One that has ended meanwhile has none.
            let stat = stat.unwrap_or_default();
            stat.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0)
        });
        Duration::from_nanos(nanos.sum())
    }
}
