//! A restart by a service manager that keeps listening sockets refuses nobody: who connects while
//! no process is there is answered by the next one, however many workers that has.

use std::fs;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::net::sockopt::set_socket_passcred;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{
    Pid, Signal, WaitOptions, getpid, kill_process, kill_process_group, set_child_subreaper,
    waitpid,
};
use tempfile::TempDir;
use tokio::task::{JoinSet, block_in_place};

use crate::support::{
    BLOCK, Client, Ending, HOST, Origin, PATIENCE, PIECE, Process, Script, Verdict, configured,
    follow, judge,
};

const WHOLE: Verdict = Verdict::Whole { version: 1 };

/// What it keeps, by its names.
type Held = Arc<Mutex<Vec<(String, OwnedFd)>>>;

/// A service manager: keeps what it is given (`FDSTORE=1`), and passes it on (`LISTEN_FDS`). It
/// hears the main process alone (`NotifyAccess=main`), which may name another (`MAINPID=`), and
/// kills what is left of the service when that one has ended (`KillMode=mixed`). At a stop it waits
/// for a main process that was its child when it became that, and kills another one at once.
#[derive(Clone)]
struct Manager {
    notify: PathBuf,
    held: Held,
    heard: Arc<Mutex<Vec<String>>>,
    main: Arc<Mutex<Option<Main>>>,
}

/// The main process of a service, and the group of all that it has started.
#[derive(Clone, Copy, PartialEq)]
struct Main {
    process: Pid,
    group: Pid,
    is_child: bool,
}

impl Manager {
    fn start(folder: &Path) -> Manager {
        // Whoever follows a process becomes our child when that one has left.
        set_child_subreaper(Some(getpid())).unwrap();
        let notify = folder.join("notify");
        let socket = UnixDatagram::bind(&notify).unwrap();
        set_socket_passcred(&socket, true).unwrap();
        let (held, heard, main) = Default::default();
        let manager = Manager { notify, held, heard, main };
        let hears = manager.clone();
        thread::spawn(move || {
            loop {
                hears.hear(&socket)
            }
        });
        manager
    }

    /// Starts a process with all that is kept; the first one that says something.
    fn serve(&self, config: &Path) -> Process {
        assert!(self.main.lock().unwrap().is_none(), "the one before has not ended");
        let held = self.held.lock().unwrap();
        let inherited = held.iter().map(|(_, fd)| {
            let fd = fcntl_dupfd_cloexec(fd, 100).unwrap();
            fcntl_setfd(&fd, FdFlags::empty()).unwrap();
            fd
        });
        let inherited: Vec<OwnedFd> = inherited.collect();
        let moves = inherited.iter().enumerate().map(|(place, fd)| {
            let from = fd.as_raw_fd();
            format!("exec {}<&{from} {from}<&-\n", place + 3)
        });
        let script = moves.collect::<String>() + "export LISTEN_PID=$$\nexec \"$@\"";
        let names: Vec<String> = held.iter().map(|(name, _)| name.clone()).collect();
        // It hears what it is told meanwhile.
        drop(held);
        let mut command = Command::new("bash");
        command
            .args(["-c", &script, "bash", env!("CARGO_BIN_EXE_tidegate"), "serve", "--config"])
            .arg(config)
            .env("NOTIFY_SOCKET", &self.notify)
            .process_group(0);
        if !names.is_empty() {
            let count = names.len().to_string();
            command.env("LISTEN_FDS", count).env("LISTEN_FDNAMES", names.join(":"));
        }
        Process::start_passing(command, inherited)
    }

    /// Ends the service, which ends in order, and waits until all that it said was heard.
    fn stop(&self, process: Process) -> Vec<String> {
        let ending = self.end();
        let logged = process.ended();
        ending.join().unwrap();
        self.until_ended();
        assert!(logged.iter().any(|line| line.contains(" drained")), "{logged:#?}");
        logged
    }

    /// Ends the service, on a thread: by what the unit says (`ExecStop=`), then by a signal to who
    /// is left.
    fn end(&self) -> JoinHandle<()> {
        self.hear_out();
        let main = self.main.lock().unwrap().expect("it serves");
        self.end_as(main)
    }

    /// The same, where this was the main process when that began.
    fn end_as(&self, main: Main) -> JoinHandle<()> {
        let (manager, mut first) = (self.clone(), Some(main));
        thread::spawn(move || {
            let left = || manager.main.lock().unwrap().filter(|main| is_there(main.process));
            end_by_unit(|| first.take().or_else(left));
            let Some(main) = *manager.main.lock().unwrap() else { return };
            let _ = kill_process(main.process, Signal::TERM);
            if !main.is_child {
                let _ = kill_process_group(main.group, Signal::KILL);
            }
        })
    }

    /// Waits until there is no main process any more, nor what was left of it.
    fn until_ended(&self) {
        let asked = Instant::now();
        while self.main.lock().unwrap().is_some() {
            assert!(asked.elapsed() < PATIENCE, "it stays");
            thread::sleep(LOOK_AGAIN);
        }
    }

    /// From now on this one is the main process, until it names another or has ended.
    fn follow(&self, main: Main) {
        *self.main.lock().unwrap() = Some(main);
        let manager = self.clone();
        thread::spawn(move || {
            while is_there(main.process) {
                thread::sleep(LOOK_AGAIN);
            }
            // It may have named another with its last words.
            manager.hear_out();
            let mut now = manager.main.lock().unwrap();
            if *now == Some(main) {
                // Nobody may be left.
                let _ = kill_process_group(main.group, Signal::KILL);
                *now = None;
            }
        });
    }

    /// Waits until all is heard that was said before.
    fn hear_out(&self) {
        let words = format!("MARK={:?}", Instant::now());
        UnixDatagram::unbound().unwrap().send_to(words.as_bytes(), &self.notify).unwrap();
        let asked = Instant::now();
        while !self.heard.lock().unwrap().contains(&words) {
            assert!(asked.elapsed() < PATIENCE, "it hears nothing");
            thread::yield_now();
        }
    }

    /// Waits until it keeps so many: their names.
    async fn until_kept(&self, count: usize) -> Vec<String> {
        let asked = Instant::now();
        loop {
            let mut names = self.names();
            names.sort();
            if names.len() == count {
                return names;
            }
            assert!(asked.elapsed() < PATIENCE, "it keeps {names:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn names(&self) -> Vec<String> {
        self.held.lock().unwrap().iter().map(|(name, _)| name.clone()).collect()
    }

    fn keep(&self, name: &str, fd: impl Into<OwnedFd>) {
        self.held.lock().unwrap().push((name.to_owned(), fd.into()));
    }
}

impl Manager {
    /// Hears what is said next.
    fn hear(&self, socket: &UnixDatagram) {
        let mut bytes = [0; 4096];
        let mut space =
            [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64), ScmCredentials(1))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let into = &mut [IoSliceMut::new(&mut bytes)];
        let received = recvmsg(socket, into, &mut beside, RecvFlags::CMSG_CLOEXEC).unwrap();
        let words = String::from_utf8(bytes[..received.bytes].to_vec()).unwrap();
        let (mut given, mut said_by) = (Vec::new(), None);
        for message in beside.drain() {
            match message {
                RecvAncillaryMessage::ScmRights(fds) => given.extend(fds),
                RecvAncillaryMessage::ScmCredentials(who) => said_by = Some(who.pid),
                _ => {}
            }
        }
        if self.is_heard(said_by.expect("the kernel says who")) {
            self.note(&words, given);
        }
    }

    /// Whether the main process says it, as which the first one counts that was started; or the
    /// manager itself.
    fn is_heard(&self, said_by: Pid) -> bool {
        let is_own = said_by == getpid();
        // One that has ended is nobody's child.
        if self.main.lock().unwrap().is_none() && is_child(said_by) {
            // All that it starts is of its group.
            self.follow(Main { process: said_by, group: said_by, is_child: true });
        }
        is_own || self.main.lock().unwrap().is_some_and(|main| main.process == said_by)
    }

    fn note(&self, words: &str, given: Vec<OwnedFd>) {
        let has = |line: &str| words.lines().any(|one| one == line);
        let value = |name| words.lines().find_map(|line| line.strip_prefix(name));
        let name = value("FDNAME=").unwrap_or("stored");
        let mut held = self.held.lock().unwrap();
        if has("FDSTOREREMOVE=1") {
            held.retain(|(kept, _)| kept != name);
        }
        let inode = |fd: &OwnedFd| rustix::fs::fstat(fd.as_fd()).unwrap().st_ino;
        let is_kept = has("FDSTORE=1");
        assert!(given.is_empty() || is_kept || has("BARRIER=1"), "{words}");
        for fd in given {
            // As systemd does: each of them once.
            if is_kept && held.iter().all(|(_, kept)| inode(kept) != inode(&fd)) {
                held.push((name.to_owned(), fd));
            }
        }
        drop(held);
        let followed_by = value("MAINPID=").map(|id| Pid::from_raw(id.parse().unwrap()).unwrap());
        let main = *self.main.lock().unwrap();
        if let Some((process, main)) = followed_by.zip(main) {
            self.follow(Main { process, is_child: is_child(process), ..main });
        }
        self.heard.lock().unwrap().push(words.trim_end().to_owned());
    }
}

/// Runs what the unit has run at a stop, one after another with the main process that is `left`
/// then, and waits until each is done.
fn end_by_unit(mut left: impl FnMut() -> Option<Main>) {
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/tidegate.service");
    let unit = fs::read_to_string(unit).unwrap();
    unit.lines().filter_map(|line| line.strip_prefix("ExecStop=")).for_each(|written| {
        end_by(written, left());
    });
}

fn end_by(written: &str, main: Option<Main>) {
    let mut command = Command::new("sh");
    command.arg("-c").arg(written.replace("$$", "$")).env_remove("MAINPID");
    if let Some(main) = main {
        command.env("MAINPID", main.process.to_string());
    }
    let (mut running, since) = (command.spawn().unwrap(), Instant::now());
    let status = loop {
        // Of the others the test has the end.
        if let Some(main) = main.filter(|main| !main.is_child) {
            let _ = waitpid(Some(main.process), WaitOptions::NOHANG);
        }
        if let Some(status) = running.try_wait().unwrap() {
            break status;
        }
        assert!(since.elapsed() < PATIENCE, "it is not stopped");
        thread::sleep(LOOK_AGAIN);
    };
    assert!(status.success(), "{status}");
}

/// Whether a process has not ended.
fn is_there(process: Pid) -> bool {
    parent(process).is_some()
}

fn is_child(process: Pid) -> bool {
    parent(process) == Some(getpid().as_raw_pid())
}

/// Whose child a process is that has not ended; one that nobody has waited for has.
fn parent(process: Pid) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_pid())).ok()?;
    // Behind the name, which is in parentheses.
    let mut words = stat.rsplit_once(") ")?.1.split(' ');
    words.next().filter(|state| !matches!(*state, "Z" | "X"))?;
    words.next()?.parse().ok()
}

const LOOK_AGAIN: Duration = Duration::from_millis(5);

fn configuration(folder: &Path, origin: &Origin) -> PathBuf {
    let origin = origin.address();
    let site = format!(
        "[[sites]]\nname = \"media\"\nhosts = [{HOST:?}]\norigins = [\"http://{origin}\"]\n"
    );
    configured(folder, &site)
}

fn with_workers(config: &Path, workers: usize) {
    let text = fs::read_to_string(config).unwrap();
    let from = text.lines().find(|line| line.starts_with("threads.workers")).unwrap().to_owned();
    fs::write(config, text.replace(&from, &format!("threads.workers = {workers}"))).unwrap();
}

/// Asks on a new connection each time, until it is told to stop: how many answers there were.
async fn view(origin: Arc<Origin>, viewer: Client, stop: Arc<AtomicBool>) -> usize {
    let mut answers = 0;
    while !stop.load(Ordering::Relaxed) {
        let connection = viewer.connect().await.expect("nobody is refused");
        // One that was accepted and had not asked yet when the process was told to end may be
        // closed: he asks again.
        let Ok(streaming) = viewer.get("/a").on(connection).await else { continue };
        let response = streaming.finish().await.unwrap();
        assert_eq!(judge(&origin, "/a", &response), WHOLE);
        answers += 1;
    }
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_under_load_refuses_nobody_however_many_workers_there_are() {
    let folder = TempDir::new().unwrap();
    let origin = Arc::new(Origin::serving("/a", Script::of(BLOCK)));
    let (manager, config) = (Manager::start(folder.path()), configuration(folder.path(), &origin));
    let mut process = manager.serve(&config);
    let (http, admin) = (process.http, process.admin);
    let viewer = Client::plain(http, HOST);
    let stop = Arc::new(AtomicBool::new(false));
    let mut viewers = JoinSet::new();
    for _ in 0..8 {
        viewers.spawn(view(origin.clone(), viewer.clone(), stop.clone()));
    }
    for workers in [4, 1, 2] {
        with_workers(&config, workers);
        block_in_place(|| manager.stop(process));
        // No process is there; each of the sockets has some of them.
        let mut waiting = JoinSet::new();
        for _ in 0..32 {
            let connection = viewer.connect().await.expect("nobody is refused");
            let asked = viewer.get("/a");
            waiting
                .spawn(async move { asked.on(connection).await.unwrap().finish().await.unwrap() });
        }
        process = block_in_place(|| manager.serve(&config));
        assert_eq!((process.http, process.admin), (http, admin));
        for response in waiting.join_all().await {
            assert_eq!(judge(&origin, "/a", &response), WHOLE, "{workers} workers");
        }
    }
    stop.store(true, Ordering::Relaxed);
    assert!(viewers.join_all().await.into_iter().sum::<usize>() > 0);
    let logged = block_in_place(|| manager.stop(process));
    let bad = logged.iter().filter(|line| line.contains("WARN") || line.contains("ERROR"));
    assert_eq!(bad.count(), 0, "{logged:#?}");
    // Four of the time when there were four workers, each of which somebody accepted from.
    let names = ["bound-admin-127.0.0.1_0", "bound-http-127.0.0.1_0"];
    let count = |name| manager.names().iter().filter(|one| *one == name).count();
    assert_eq!(names.map(count), [1, 4], "{:?}", manager.names());
}

#[tokio::test]
async fn what_is_no_longer_listened_at_is_closed_and_forgotten() {
    let folder = TempDir::new().unwrap();
    let origin = Origin::serving("/a", Script::of(10));
    let (manager, config) = (Manager::start(folder.path()), configuration(folder.path(), &origin));
    let one = fs::read_to_string(&config).unwrap();
    let two = one.replace("http = [", "http = [\"127.0.0.2:0\", ");
    fs::write(&config, two).unwrap();
    let process = manager.serve(&config);
    let gone = process.http;
    assert_eq!(gone.ip().to_string(), "127.0.0.2");
    manager.stop(process);
    assert!(manager.names().contains(&"bound-http-127.0.0.2_0".to_owned()));
    drop(TcpStream::connect(gone).expect("it is kept"));
    // Of who stored something else, or of another version.
    manager.keep("stored", fs::File::open("/dev/null").unwrap());
    manager.keep("bound-quic-127.0.0.1_443", TcpListener::bind("127.0.0.1:0").unwrap());
    let elsewhere = TcpListener::bind("127.0.0.3:0").unwrap();
    let elsewhere_address: SocketAddr = elsewhere.local_addr().unwrap();
    manager.keep("bound-http-127.0.0.1_0", elsewhere);
    let connected = TcpStream::connect(manager_address(&manager)).unwrap();
    manager.keep("bound-admin-127.0.0.1_0", connected);

    fs::write(&config, &one).unwrap();
    let process = manager.serve(&config);
    let response = Client::plain(process.http, HOST).get("/a").send().await;
    assert_eq!(judge(&origin, "/a", &response), WHOLE);
    let logged = process.logged_until("is not a listening TCP socket").await;
    for told in [
        format!("is closed: nothing is to listen at {gone} for http"),
        "stored, which the service manager kept, is closed: its name is none of ours".to_owned(),
        "bound-quic-127.0.0.1_443, which".to_owned(),
        format!("is closed: it listens at {elsewhere_address}"),
    ] {
        assert!(logged.iter().any(|line| line.contains(&told)), "{told}: {logged:#?}");
    }
    manager.hear_out();
    for closed in [gone, elsewhere_address] {
        assert!(TcpStream::connect(closed).is_err(), "{closed}");
    }
    manager.stop(process);
    let mut names = manager.names();
    names.sort();
    names.dedup();
    assert_eq!(names, ["bound-admin-127.0.0.1_0", "bound-http-127.0.0.1_0"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_is_not_in_the_way_of_who_is_to_listen_there_now() {
    let folder = TempDir::new().unwrap();
    let origin = Origin::serving("/a", Script::of(10));
    let (manager, config) = (Manager::start(folder.path()), configuration(folder.path(), &origin));
    let written = fs::read_to_string(&config).unwrap();
    fs::write(&config, written.replace("\"127.0.0.1:0\"", "\"0.0.0.0:0\"")).unwrap();
    let process = block_in_place(|| manager.serve(&config));
    let (http, admin) = (process.http.port(), process.admin.port());
    block_in_place(|| manager.stop(process));

    let [here_http, here_admin] = [http, admin].map(|port| format!("127.0.0.1:{port}"));
    let here = written.replace("http = [\"127.0.0.1:0\"]", &format!("http = [{here_http:?}]"));
    let here = here.replace("admin = [\"127.0.0.1:0\"]", &format!("admin = [{here_admin:?}]"));
    fs::write(&config, here).unwrap();
    let process = block_in_place(|| manager.serve(&config));
    assert_eq!(process.http.to_string(), here_http);
    let response = Client::plain(process.http, HOST).get("/a").send().await;
    assert_eq!(judge(&origin, "/a", &response), WHOLE);
    block_in_place(|| manager.stop(process));
    let mut names = manager.names();
    names.sort();
    names.dedup();
    let kept = |kind: &str, port: u16| format!("bound-{kind}-127.0.0.1_{port}");
    assert_eq!(names, [kept("admin", admin), kept("http", http)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_passed_sockets_is_followed_by_one_that_is_given_them_and_both_by_a_start() {
    let folder = TempDir::new().unwrap();
    let origin = Origin::serving("/a", Script::of(10));
    let (manager, config) = (Manager::start(folder.path()), configuration(folder.path(), &origin));
    let of_a_unit = TcpListener::bind("127.0.0.1:0").unwrap();
    let viewer = Client::plain(of_a_unit.local_addr().unwrap(), HOST);
    manager.keep("http", of_a_unit);
    for _ in 0..2 {
        let mut process = manager.serve(&config);
        assert_eq!(block_in_place(|| process.upgrade()).0, 0);
        process.until_left().await;
        let response = viewer.get("/a").send().await;
        assert_eq!(judge(&origin, "/a", &response), WHOLE);
        block_in_place(|| manager.stop(process));
        let mut names = manager.names();
        names.dedup();
        assert_eq!(names, ["http", "bound-admin-127.0.0.1_0"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_taken_over_and_is_killed_leaves_its_sockets_with_those_who_wait() {
    let folder = TempDir::new().unwrap();
    let origin = Origin::serving("/a", Script::of(10));
    let (manager, config) = (Manager::start(folder.path()), configuration(folder.path(), &origin));
    let mut process = manager.serve(&config);
    let (http, names) = (process.http, manager.until_kept(3).await);
    assert_eq!(block_in_place(|| process.upgrade()).0, 0);
    process.until_left().await;
    manager.hear_out();
    assert_eq!(manager.until_kept(3).await, names);
    process.signal(Signal::KILL);
    process.until_silent();
    block_in_place(|| manager.until_ended());
    let viewer = Client::plain(http, HOST);
    let connection = viewer.connect().await.expect("nobody is refused");
    let process = manager.serve(&config);
    assert_eq!(process.http, http);
    let response = viewer.get("/a").on(connection).await.unwrap().finish().await.unwrap();
    assert_eq!(judge(&origin, "/a", &response), WHOLE);
    block_in_place(|| manager.stop(process));
}

/// A service in front of an origin that holds the end of a film back until it is released.
fn serving_what_is_held_back(folder: &TempDir) -> (Origin, Manager, Process) {
    let held = Script::of(4 * BLOCK).ending(Ending::HeldAt(BLOCK));
    let origin = Origin::serving("/held", held);
    let (manager, config) = (Manager::start(folder.path()), configuration(folder.path(), &origin));
    let process = manager.serve(&config);
    (origin, manager, process)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_while_the_process_before_still_sends_cuts_nothing_that_ends_in_time() {
    let folder = TempDir::new().unwrap();
    let (origin, manager, mut process) = serving_what_is_held_back(&folder);
    let mut under_way = Client::plain(process.http, HOST).get("/held").open().await;
    under_way.read_exactly(PIECE as usize).await.unwrap();
    assert_eq!(block_in_place(|| process.upgrade()).0, 0);
    process.logged_until("what has begun is finished").await;

    let ending = block_in_place(|| manager.end());
    process.logged_until("what has begun is hurried").await;
    // As both are told who are in one group.
    process.signal_first(Signal::TERM);
    process.logged_until("told to stop: what has begun").await;
    let logged = process.logged_until("it is waited for").await;
    assert!(!logged.iter().any(|line| line.contains("drained")), "{logged:#?}");
    origin.release("/held");
    let came = follow(&mut under_way, origin.content("/held", 1), PIECE).await;
    assert_eq!(came, (4 * BLOCK - PIECE, true));
    process.until_left().await;
    let logged = process.logged_until(" drained").await;
    let place = |words| logged.iter().position(|line| line.contains(words));
    assert!(place("what had begun is finished") < place(" drained"), "{logged:#?}");
    block_in_place(|| ending.join().unwrap());
    block_in_place(|| manager.until_ended());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_taken_over_and_is_stopped_finishes_what_it_has_begun() {
    let folder = TempDir::new().unwrap();
    let (origin, manager, mut process) = serving_what_is_held_back(&folder);
    assert_eq!(block_in_place(|| process.upgrade()).0, 0);
    process.until_left().await;
    let mut under_way = Client::plain(process.http, HOST).get("/held").open().await;
    under_way.read_exactly(PIECE as usize).await.unwrap();

    let ending = block_in_place(|| manager.end());
    process.logged_until("draining").await;
    origin.release("/held");
    let came = follow(&mut under_way, origin.content("/held", 1), PIECE).await;
    assert_eq!(came, (4 * BLOCK - PIECE, true));
    process.logged_until(" drained").await;
    block_in_place(|| ending.join().unwrap());
    block_in_place(|| manager.until_ended());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_over_just_when_its_service_is_stopped_finishes_what_it_has_begun() {
    let folder = TempDir::new().unwrap();
    let (origin, manager, mut process) = serving_what_is_held_back(&folder);
    manager.hear_out();
    let before = manager.main.lock().unwrap().expect("it serves");
    assert_eq!(block_in_place(|| process.upgrade()).0, 0);
    process.until_left().await;
    let mut under_way = Client::plain(process.http, HOST).get("/held").open().await;
    under_way.read_exactly(PIECE as usize).await.unwrap();

    let ending = block_in_place(|| manager.end_as(before));
    process.logged_until("draining").await;
    origin.release("/held");
    let came = follow(&mut under_way, origin.content("/held", 1), PIECE).await;
    assert_eq!(came, (4 * BLOCK - PIECE, true));
    process.logged_until(" drained").await;
    block_in_place(|| ending.join().unwrap());
    block_in_place(|| manager.until_ended());
}

#[test]
fn a_service_that_has_ended_by_itself_is_stopped_in_order() {
    end_by_unit(|| None);
}

/// Where one of the sockets that are kept listens.
fn manager_address(manager: &Manager) -> SocketAddr {
    let held = manager.held.lock().unwrap();
    let (_, fd) = held.iter().find(|(name, _)| name == "bound-http-127.0.0.1_0").unwrap();
    TcpListener::from(fd.try_clone().unwrap()).local_addr().unwrap()
}
