//! The real binary: serving, when what it logs is kept and it is killed when dropped; or asked
//! something by an operator, and waited for.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::client::Client;
use super::edge::{Edge, HOST};
use super::origin::PATIENCE;

/// Writes the configuration of a process that listens where there is room; `more` begins with what
/// belongs to no table.
pub(crate) fn configured(folder: &Path, more: &str) -> PathBuf {
    let path = folder.join("edge.toml");
    let text = format!(
        r#"
listeners.http = ["127.0.0.1:0"]
listeners.admin = ["127.0.0.1:0"]
log.access = "off"
log.level = "info"
limits.lag = "1h"
threads.workers = 2
memory.ram = "80 MiB"
memory.total = "256 MiB"
ssd.state = {state:?}
{more}
"#,
        state = folder.join("state.json"),
    );
    fs::write(&path, text).unwrap();
    path
}

/// The same with a volume of `size` in `folder` that keeps everything; `site` is what its one site
/// says beside its name.
pub(crate) fn keeping(folder: &Path, size: &str, site: &str) -> PathBuf {
    let volume = folder.join("volume");
    let more = format!(
        r#"ssd.admission = "all"

[[ssd.volumes]]
path = {volume:?}
size = "{size}"
writes_per_day = "1000x"

[[sites]]
name = "media"
hosts = [{HOST:?}]
{site}"#
    );
    configured(folder, &more)
}

/// A process of its own.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// Where viewers ask.
    pub(crate) http: SocketAddr,
    /// Where viewers ask over TLS, if they can.
    pub(crate) https: Option<SocketAddr>,
    /// Where operators ask.
    pub(crate) admin: SocketAddr,
    logged: Arc<Mutex<Vec<String>>>,
    /// Reads what it logs until it ends; none when that has been waited for.
    reader: Option<JoinHandle<()>>,
}

impl Process {
    /// Serves by `config`, whose `log.level` is "info"; returns when it listens.
    pub(crate) fn start(config: &Path) -> Process {
        Process::start_from(Path::new(env!("CARGO_BIN_EXE_tidegate")), config)
    }

    /// The same, from a binary that is a copy of ours.
    pub(crate) fn start_from(binary: &Path, config: &Path) -> Process {
        let mut command = Command::new(binary);
        command.args(["serve", "--config"]).arg(config);
        Process::start_by(command)
    }

    /// The same, by a command that becomes it.
    pub(crate) fn start_by(command: Command) -> Process {
        Process::start_passing(command, Vec::new())
    }

    /// The same, with what it inherits, which is closed here then.
    pub(crate) fn start_passing(mut command: Command, inherited: Vec<OwnedFd>) -> Process {
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        drop(inherited);
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let (mut http, mut https, mut admin, mut said) = (None, None, None, Vec::new());
        while http.is_none() || admin.is_none() {
            let line = lines.next().unwrap_or_else(|| panic!("it does not listen: {said:#?}"));
            let line = line.unwrap();
            let after = |words: &str| line.split_once(words)?.1.trim().parse().ok();
            http = http.or_else(|| after(" http at "));
            https = https.or_else(|| after(" https at "));
            admin = admin.or_else(|| after(" admin at "));
            said.push(line);
        }
        let logged = Arc::new(Mutex::new(said));
        let log = Arc::clone(&logged);
        // Unread, a full pipe would stop it.
        let reader = thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| log.lock().unwrap().push(line));
        });
        let (http, admin) = (http.unwrap(), admin.unwrap());
        Process { child, http, https, admin, logged, reader: Some(reader) }
    }

    /// Records on its volume.
    pub(crate) async fn entries(&self) -> u64 {
        let admin = Client::plain(self.admin, "admin.test");
        let text = admin.get("/metrics").send().await.body;
        let text = String::from_utf8_lossy(&text).into_owned();
        let line = text.lines().find(|line| line.starts_with("tidegate_ssd_index_entries{"));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).expect("there is a volume")
    }

    /// Waits until its volume holds so many records.
    pub(crate) async fn until_entries(&self, wanted: u64) {
        let asked = Instant::now();
        loop {
            let there = self.entries().await;
            if there >= wanted {
                return;
            }
            assert!(asked.elapsed() < PATIENCE, "{there} records are kept, not {wanted}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// What it has logged, once a line of that says `words`.
    pub(crate) async fn logged_until(&self, words: &str) -> Vec<String> {
        self.logged_times(words, 1).await
    }

    /// The same, once so many lines say `words`.
    pub(crate) async fn logged_times(&self, words: &str, times: usize) -> Vec<String> {
        let asked = Instant::now();
        loop {
            let logged = self.logged.lock().unwrap().clone();
            if logged.iter().filter(|line| line.contains(words)).count() >= times {
                return logged;
            }
            assert!(asked.elapsed() < PATIENCE, "no line says {words:?}: {logged:#?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Sends it a signal; the one that has taken over, if one has.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.id()).unwrap(), signal).unwrap();
    }

    /// Sends a signal to the one that was started first, whoever serves.
    pub(crate) fn signal_first(&self, signal: Signal) {
        let first = Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        kill_process(first, signal).unwrap();
    }

    /// The process that serves.
    pub(crate) fn id(&self) -> i32 {
        let own = || self.child.id().try_into().unwrap();
        self.followed_by().map_or_else(own, Pid::as_raw_pid)
    }

    /// The process that has taken over, as the log has it.
    fn followed_by(&self) -> Option<Pid> {
        let logged = self.logged.lock().unwrap();
        let mut told = logged.iter().rev().filter_map(|line| {
            let (before, _) = line.split_once(" serves, version ")?;
            before.rsplit_once(" process ")?.1.parse().ok()
        });
        told.next().and_then(Pid::from_raw)
    }

    /// Has another process take over: exit code, and all that was said.
    pub(crate) fn upgrade(&self) -> (i32, String) {
        self.answers(&["upgrade"])
    }

    /// What a command that asks it ends with: exit code, and all that was said. Blocks.
    pub(crate) fn answers(&self, words: &[&str]) -> (i32, String) {
        let admin = format!("http://{}", self.admin);
        let done = tidegate(&[words, &["--admin", &admin]].concat());
        (done.status.code().unwrap(), text(&done.stdout) + &text(&done.stderr))
    }

    /// Waits until the process that was started first has ended, in order.
    pub(crate) async fn until_left(&mut self) {
        assert_eq!(self.left_with().await, Some(0));
    }

    /// The exit code of the process that was started first, when it has ended.
    pub(crate) async fn left_with(&mut self) -> Option<i32> {
        let asked = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(asked.elapsed() < PATIENCE, "it stays");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Tells it to stop, and waits until it has: all that it logged.
    pub(crate) fn stop(self) -> Vec<String> {
        self.signal(Signal::TERM);
        self.ended()
    }

    /// Waits until it has ended, and the one that serves too: all that was logged. Blocks.
    pub(crate) fn ended(mut self) -> Vec<String> {
        self.reader.take().unwrap().join().unwrap();
        let logged = std::mem::take(&mut *self.logged.lock().unwrap());
        assert!(self.child.wait().unwrap().success(), "{logged:#?}");
        logged
    }

    /// Waits until nobody logs any more: the one that serves has ended too.
    pub(crate) fn until_silent(&mut self) {
        self.reader.take().unwrap().join().unwrap();
    }

    /// As the kernel kills what takes too much: no handler runs.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(id) = self.followed_by() {
            let _ = kill_process(id, Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the binary itself; blocks.
pub(crate) fn tidegate(words: &[&str]) -> Output {
    tidegate_in(Path::new("."), words)
}

/// The same in a folder.
pub(crate) fn tidegate_in(folder: &Path, words: &[&str]) -> Output {
    let mut binary = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    let output = binary.args(words).current_dir(folder).output();
    output.unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What `tidegate status` says of the volumes, as text and as JSON.
pub(crate) fn status_of(edge: &Edge) -> (String, serde_json::Value) {
    let admin = format!("http://{}", edge.admin().address());
    let shown = tidegate(&["status", "--admin", &admin]);
    assert!(shown.status.success(), "{}", text(&shown.stderr));
    let json = tidegate(&["status", "--admin", &admin, "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    (text(&shown.stdout), status["ssd"]["volumes"].clone())
}

/// The row of a volume: its name and its state.
pub(crate) fn has_row(words: &str, name: &str, state: &str) -> bool {
    words.lines().any(|line| line.split_whitespace().take(2).eq([name, state]))
}
