//! What every device promises, shown on each of them.

use std::fs::{self, File};
use std::io::{PipeWriter, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::thread;

use bytes::Bytes;
use tempfile::TempDir;

use super::open::Locked;
use super::queue::Lanes;
use super::threads::Threads;
use super::uring::Uring;
use super::*;

const SIZE: u64 = 4 << 20;
const ONE: Lanes = Lanes { reads: 1, writes: 1 };

/// Every engine there is here: containers may forbid io_uring.
fn engines() -> impl Iterator<Item = Engine> {
    let all = [Engine::Uring, Engine::Threads, Engine::Simulated];
    all.into_iter().filter(|engine| *engine != Engine::Uring || uring_is_allowed())
}

fn uring_is_allowed() -> bool {
    let file = Locked::unlocked(tempfile::tempfile().unwrap());
    match Uring::start(file, SIZE, ONE) {
        Ok(_) => true,
        Err(error) => {
            eprintln!("io_uring is not shown: {error}");
            false
        }
    }
}

/// A device and the folder its file is in.
struct Subject {
    device: Arc<dyn Device>,
    folder: TempDir,
}

impl Subject {
    fn disk(&self) -> Disk {
        Disk::new(Arc::clone(&self.device))
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("volume")
    }
}

/// Beside the test's own binary: on a real filesystem, where `/tmp` may be none.
fn folder() -> TempDir {
    let program = std::env::current_exe().unwrap();
    tempfile::tempdir_in(program.parent().unwrap()).unwrap()
}

/// A device of `SIZE` zeros, as it is opened.
fn opened(engine: Engine) -> Subject {
    let folder = folder();
    let path = folder.path().join("volume");
    let open_as = |engine| {
        create(&path, SIZE).unwrap();
        open(&path, &Options { engine, ..Options::default() }).unwrap()
    };
    let device = match engine {
        Engine::Uring => open_as(EngineChoice::Uring),
        Engine::Threads => open_as(EngineChoice::Threads),
        Engine::Simulated => Arc::new(Simulated::new(&healthy())),
    };
    assert_eq!((device.engine(), device.size_bytes()), (engine, SIZE));
    Subject { device, folder }
}

/// The same, where one read and one write may be under way.
fn narrow(engine: Engine) -> Subject {
    let folder = folder();
    let path = folder.path().join("volume");
    let file = || {
        create(&path, SIZE).unwrap();
        Locked::unlocked(File::options().read(true).write(true).open(&path).unwrap())
    };
    let device: Arc<dyn Device> = match engine {
        Engine::Uring => Arc::new(Uring::start(file(), SIZE, ONE).unwrap()),
        Engine::Threads => Arc::new(Threads::start(file(), SIZE, ONE).unwrap()),
        Engine::Simulated => {
            Arc::new(Simulated::with_lanes(Image::empty(SIZE), 0, Faults::default(), ONE))
        }
    };
    Subject { device, folder }
}

fn healthy() -> Simulation {
    Simulation { size_bytes: SIZE, seed: 0, faults: Faults::default() }
}

fn filled(granules: usize, byte: u8) -> Granules {
    let mut memory = Granules::zeroed(granules);
    memory.bytes_mut().fill(byte);
    memory
}

fn empty(granules: usize) -> Buffer {
    Buffer::Own(Granules::zeroed(granules))
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn read_transfer(at: u64, urgency: Urgency, done: impl FnOnce(Done) + Send + 'static) -> Transfer {
    let operation = Operation::Read { at, into: vec![empty(1)] };
    Transfer { operation, urgency, done: Box::new(done) }
}

/// Memory that says when it is no longer needed.
struct Watched {
    memory: Granules,
    gone: Arc<AtomicBool>,
}

// SAFETY: the granules own their memory, aligned and initialised; nobody else has them.
#[allow(unsafe_code)]
unsafe impl Lent for Watched {
    fn start(&self) -> NonNull<u8> {
        NonNull::from(&self.memory.bytes()[0])
    }

    fn length_bytes(&self) -> usize {
        self.memory.bytes().len()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.gone.store(true, Ordering::SeqCst);
    }
}

fn watched(granules: usize) -> (Buffer, Arc<AtomicBool>) {
    let gone = Arc::new(AtomicBool::new(false));
    let memory = Watched { memory: Granules::zeroed(granules), gone: Arc::clone(&gone) };
    (Buffer::Lent(Box::new(memory)), gone)
}

#[tokio::test]
async fn bytes_come_back_as_they_were_written() {
    for engine in engines() {
        let subject = opened(engine);
        let disk = subject.disk();
        let shared = Buffer::shared(Bytes::from_owner(filled(2, 2))).unwrap();
        let from = vec![Buffer::Own(filled(1, 1)), shared, Buffer::Own(filled(3, 3))];
        disk.write(65_536, from, Urgency::Write).await.unwrap();
        disk.flush(Urgency::Write).await.unwrap();
        let into = vec![empty(2), watched(4).0, empty(1)];
        let back = disk.read(65_536, into, Urgency::Viewer, soon()).await.unwrap();
        let bytes: Vec<u8> = back.iter().flat_map(|buffer| buffer.bytes()).copied().collect();
        let granules: Vec<u8> = bytes.chunks(4096).map(|granule| granule[0]).collect();
        assert_eq!(granules, [1, 2, 2, 3, 3, 3, 0], "{engine:?}");
        assert!(bytes.chunks(4096).all(|g| g.iter().all(|byte| *byte == g[0])), "{engine:?}");

        let figures = subject.device.figures();
        // Opening has read a granule.
        let opening = u64::from(engine != Engine::Simulated);
        assert_eq!(figures.reads, [1 + opening, 0, 0, 0, 0, 0], "{engine:?}");
        assert_eq!(figures.read_bytes, (7 + opening) * 4096, "{engine:?}");
        assert_eq!(figures.writes, [0, 0, 0, 1, 0, 0], "{engine:?}");
        assert_eq!((figures.written_bytes, figures.flushes), (6 * 4096, 1), "{engine:?}");
        assert_eq!((figures.errors, figures.depth), (0, 0), "{engine:?}");
        assert_eq!(figures.read_latency.iter().sum::<u64>(), 1 + opening, "{engine:?}");
    }
}

#[tokio::test]
async fn many_transfers_at_once_each_bring_their_own_bytes() {
    for engine in engines() {
        let subject = opened(engine);
        let disk = subject.disk();
        let mut tasks = tokio::task::JoinSet::new();
        for index in 0..48u8 {
            let disk = disk.clone();
            tasks.spawn(async move {
                let at = u64::from(index) * 65_536;
                let mark = index + 1;
                for round in 0..8u8 {
                    let byte = mark.wrapping_mul(round + 1);
                    let from = vec![Buffer::Own(filled(16, byte))];
                    disk.write(at, from, Urgency::Write).await.unwrap();
                    let into = vec![empty(1), empty(15)];
                    let back = disk.read(at, into, Urgency::Viewer, soon()).await.unwrap();
                    let right = |b: &Buffer| b.bytes().iter().all(|found| *found == byte);
                    assert!(back.iter().all(right), "{engine:?} {index} {round}");
                }
            });
        }
        tasks.join_all().await;
        assert_eq!(subject.device.figures().depth, 0);
    }
}

#[tokio::test]
async fn what_lies_outside_the_volume_is_an_error_and_the_buffers_come_back() {
    for engine in engines() {
        let subject = opened(engine);
        let (tell, told) = tokio::sync::oneshot::channel();
        let transfer = read_transfer(SIZE, Urgency::Viewer, |done| tell.send(done).unwrap());
        subject.device.submit(transfer).unwrap();
        let done = told.await.unwrap();
        assert_eq!(done.result.unwrap_err().kind(), io::ErrorKind::InvalidInput, "{engine:?}");
        assert_eq!(done.buffers.len(), 1, "{engine:?}");
        let written = subject.disk().write(SIZE, vec![empty(1)], Urgency::Write).await;
        assert!(matches!(written, Err(DeviceError::Failed(_))), "{engine:?}");
        assert_eq!(subject.device.figures().errors, 2, "{engine:?}");
        subject.disk().read(0, vec![empty(1)], Urgency::Viewer, soon()).await.unwrap();
    }
}

#[tokio::test]
async fn a_file_that_was_cut_gives_an_error_where_bytes_are_missing() {
    for engine in engines().filter(|engine| *engine != Engine::Simulated) {
        let subject = opened(engine);
        let file = File::options().write(true).open(subject.path()).unwrap();
        file.set_len(SIZE - 4096).unwrap();
        let at = SIZE - 8192;
        let read = subject.disk().read(at, vec![empty(2)], Urgency::Viewer, soon()).await;
        let Err(DeviceError::Failed(error)) = read else { panic!("{engine:?} {read:?}") };
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{engine:?}");
        subject.disk().read(at, vec![empty(1)], Urgency::Viewer, soon()).await.unwrap();
    }
}

/// Occupies the only place of a narrow device until the sender is dropped.
fn occupy(device: &dyn Device) -> std::sync::mpsc::SyncSender<()> {
    let (release, released) = sync_channel::<()>(0);
    let (say, inside) = sync_channel(1);
    let first = read_transfer(0, Urgency::Viewer, move |_| {
        let _ = say.send(());
        let _ = released.recv();
    });
    device.submit(first).unwrap();
    // A simulated device runs on this very thread: it can do nothing before we wait.
    if device.engine() != Engine::Simulated {
        inside.recv().unwrap();
    }
    release
}

#[tokio::test]
async fn a_full_queue_gives_the_transfer_back() {
    for engine in engines() {
        let subject = narrow(engine);
        let release = occupy(&*subject.device);
        let ended = Arc::new(AtomicUsize::new(0));
        let mut queued = 0;
        let refused = loop {
            let ended = Arc::clone(&ended);
            let count = move |done: Done| {
                done.result.unwrap();
                ended.fetch_add(1, Ordering::SeqCst);
            };
            match subject.device.submit(read_transfer(4096 * queued, Urgency::Viewer, count)) {
                Ok(()) => queued += 1,
                Err(transfer) => break transfer,
            }
        };
        assert_eq!(queued, 192, "{engine:?}");
        let Operation::Read { at, into } = refused.operation else { panic!("{engine:?}") };
        assert_eq!((at, into.len()), (4096 * queued, 1), "{engine:?}");
        let late = subject.disk().read(0, vec![empty(1)], Urgency::Viewer, soon()).await;
        assert!(matches!(late, Err(DeviceError::Busy)), "{engine:?} {late:?}");
        drop(release);
        // Goes last, so all others are over when it is.
        let last = loop {
            match subject.disk().read(0, vec![empty(1)], Urgency::Verify, soon()).await {
                Err(DeviceError::Busy) => tokio::task::yield_now().await,
                read => break read,
            }
        };
        last.unwrap();
        assert_eq!(ended.load(Ordering::SeqCst), 192, "{engine:?}");
    }
}

#[tokio::test]
async fn the_most_urgent_goes_first() {
    for engine in engines() {
        let subject = narrow(engine);
        let release = occupy(&*subject.device);
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut waiting = Vec::new();
        for urgency in Urgency::ALL.into_iter().rev() {
            let order = Arc::clone(&order);
            let (tell, told) = tokio::sync::oneshot::channel::<()>();
            let note = move |_| {
                order.lock().unwrap().push(urgency);
                drop(tell);
            };
            subject.device.submit(read_transfer(0, urgency, note)).unwrap();
            waiting.push(told);
        }
        drop(release);
        for told in waiting {
            let _ = told.await;
        }
        assert_eq!(*order.lock().unwrap(), Urgency::ALL, "{engine:?}");
    }
}

#[tokio::test]
async fn who_panics_when_told_does_not_stop_the_others() {
    for engine in engines() {
        let subject = narrow(engine);
        let panics = read_transfer(0, Urgency::Viewer, |_| panic!("on purpose"));
        subject.device.submit(panics).unwrap();
        subject.disk().read(0, vec![empty(1)], Urgency::Viewer, soon()).await.unwrap();
    }
}

/// A block device over a file, as long as it lives; only a superuser can have one.
struct Loop(PathBuf);

impl Loop {
    fn over(file: &Path) -> Option<Loop> {
        let made = Command::new("losetup").args(["--find", "--show"]).arg(file).output().ok()?;
        let named = String::from_utf8_lossy(&made.stdout).trim().to_owned();
        made.status.success().then(|| Loop(PathBuf::from(named)))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_block_device_that_is_released_is_another_process_s_and_can_be_read() {
    let folder = folder();
    let path = folder.path().join("volume");
    File::create(&path).unwrap().set_len(SIZE).unwrap();
    let Some(device) = Loop::over(&path) else {
        return eprintln!("block devices are not shown: there is no loop device to be had");
    };
    let opened = || open(&device.0, &Options::default());
    let before = opened().unwrap();
    assert!(opened().is_err(), "it has an owner");
    before.release();
    let after = Disk::new(opened().unwrap());
    after.write(0, vec![empty(1)], Urgency::Write).await.unwrap();
    let before = Disk::new(before);
    before.read(0, vec![empty(1)], Urgency::Viewer, soon()).await.unwrap();
    before.write(0, vec![empty(1)], Urgency::Write).await.unwrap_err();
}

/// A ring over a pipe: the kernel holds a read of it until something is written.
fn over_a_pipe() -> Option<(Arc<dyn Device>, PipeWriter)> {
    if !uring_is_allowed() {
        return None;
    }
    let (from, to) = io::pipe().unwrap();
    let from = Locked::unlocked(OwnedFd::from(from).into());
    let device = Uring::start(from, SIZE, uring::LANES).unwrap();
    Some((Arc::new(device), to))
}

/// Returns when all that was queued before is under way.
async fn settled(disk: &Disk) {
    let error = disk.write(0, vec![empty(1)], Urgency::Write).await.unwrap_err();
    assert!(matches!(error, DeviceError::Failed(_)), "nobody writes to this end of a pipe");
}

#[tokio::test]
async fn memory_stays_the_devices_when_its_reader_has_left() {
    let Some((device, mut pipe)) = over_a_pipe() else { return };
    let disk = Disk::new(Arc::clone(&device));
    let (into, gone) = watched(1);
    let deadline = Instant::now() + Duration::from_millis(1);
    let late = disk.read(0, vec![into], Urgency::Viewer, deadline).await;
    assert!(matches!(late, Err(DeviceError::Late)), "{late:?}");
    settled(&disk).await;
    assert!(!gone.load(Ordering::SeqCst), "the kernel may still write to it");
    assert_eq!(device.figures().depth, 1);
    pipe.write_all(&[7; 4096]).unwrap();
    drop((disk, device));
    assert!(gone.load(Ordering::SeqCst), "it is not needed any more");
}

#[tokio::test]
async fn a_device_that_is_dropped_waits_for_what_the_kernel_holds() {
    let Some((device, mut pipe)) = over_a_pipe() else { return };
    let disk = Disk::new(device);
    let (into, gone) = watched(1);
    let (tell, told) = tokio::sync::oneshot::channel();
    let done = Box::new(|done| drop(tell.send(done)));
    let operation = Operation::Read { at: 0, into: vec![into] };
    disk.device().submit(Transfer { operation, urgency: Urgency::Viewer, done }).unwrap();
    settled(&disk).await;
    let dropping = thread::spawn(move || drop(disk));
    assert!(!gone.load(Ordering::SeqCst));
    pipe.write_all(&[7; 4096]).unwrap();
    dropping.join().unwrap();
    let done = told.await.unwrap();
    done.result.unwrap();
    assert_eq!(done.buffers[0].bytes(), [7; 4096]);
}

#[tokio::test]
async fn a_device_that_is_dropped_answers_everything_and_leaves_the_file_free() {
    for engine in engines().filter(|engine| *engine != Engine::Simulated) {
        for round in 0..20 {
            let Subject { device, folder } = opened(engine);
            let ended = Arc::new(AtomicUsize::new(0));
            for index in 0..150 {
                let ended = Arc::clone(&ended);
                let count = move |done: Done| {
                    assert_eq!(done.buffers.len(), 1);
                    ended.fetch_add(1, Ordering::SeqCst);
                };
                device.submit(read_transfer(index * 4096, Urgency::Viewer, count)).unwrap();
            }
            drop(device);
            assert_eq!(ended.load(Ordering::SeqCst), 150, "{engine:?} {round}");
            open(&folder.path().join("volume"), &Options::default()).unwrap();
        }
    }
}

#[test]
fn the_last_that_holds_a_device_may_be_a_callback_of_it() {
    for engine in engines().filter(|engine| *engine != Engine::Simulated) {
        let Subject { device, folder: _folder } = opened(engine);
        let (tell, told) = sync_channel(1);
        let (say, dropped) = sync_channel::<()>(0);
        let held = Arc::clone(&device);
        let done = move |_| {
            let _ = dropped.recv();
            drop(held);
            tell.send(()).unwrap();
        };
        device.submit(read_transfer(0, Urgency::Viewer, done)).unwrap();
        drop(device);
        drop(say);
        told.recv().unwrap();
    }
}

#[test]
fn without_io_uring_there_are_threads() {
    let Subject { device, folder } = opened(Engine::Threads);
    drop(device);
    let device = open(&folder.path().join("volume"), &Options::default()).unwrap();
    let expected = if uring_is_allowed() { Engine::Uring } else { Engine::Threads };
    assert_eq!(device.engine(), expected);
}

#[test]
fn a_volume_belongs_to_one_process() {
    let folder = folder();
    let path = folder.path().join("volume");
    create(&path, SIZE).unwrap();
    let read_only = Options { access: Access::ReadOnly, ..Options::default() };
    let held = open(&path, &Options::default()).unwrap();
    for options in [Options::default(), read_only] {
        let error = open(&path, &options).unwrap_err();
        assert_eq!(error.to_string(), format!("{} is in use by another process", path.display()));
    }
    drop(held);
    let first = open(&path, &read_only).unwrap();
    let second = open(&path, &read_only).unwrap();
    assert!(matches!(open(&path, &Options::default()), Err(OpenError::InUse { .. })));
    drop((first, second));
    open(&path, &Options::default()).unwrap();
}

#[test]
fn what_is_no_volume_is_refused_in_one_line() {
    let folder = folder();
    let file = folder.path().join("file");
    fs::write(&file, b"short").unwrap();
    let refused = |path: &Path| open(path, &Options::default()).unwrap_err().to_string();
    let says = |path: &Path, what: &str| format!("{} {what}", path.display());
    assert_eq!(
        refused(&file),
        says(&file, "has 5 bytes, which is no volume: that has 256 MiB at least")
    );
    let missing = folder.path().join("missing");
    assert_eq!(refused(&missing), says(&missing, "does not exist"));
    let directory = says(folder.path(), "is a directory, not a file or a block device");
    assert_eq!(refused(folder.path()), directory);
    let null = Path::new("/dev/null");
    assert_eq!(refused(null), says(null, "is neither a file nor a block device"));
    assert_eq!(fs::read(&file).unwrap(), b"short");
}

#[test]
fn a_new_file_has_all_its_space() {
    use std::os::unix::fs::MetadataExt as _;
    let folder = folder();
    let path = folder.path().join("volume");
    create(&path, SIZE).unwrap();
    let file = fs::metadata(&path).unwrap();
    assert_eq!(file.len(), SIZE);
    assert!(file.blocks() * 512 >= SIZE);
}

#[test]
fn a_file_that_can_not_be_made_leaves_everything_as_it_was() {
    let folder = folder();
    let path = folder.path().join("volume");
    let huge = 1 << 62;
    assert!(matches!(create(&path, huge), Err(CreateError::NoSpace { .. })));
    assert!(!path.exists());
    assert!(matches!(create(&path, 4095), Err(CreateError::Size { .. })));
    assert!(!path.exists());
    fs::write(&path, b"mine").unwrap();
    assert!(matches!(create(&path, SIZE), Err(CreateError::Exists { .. })));
    assert_eq!(fs::read(&path).unwrap(), b"mine");
    let nowhere = folder.path().join("nowhere/volume");
    assert!(matches!(create(&nowhere, SIZE), Err(CreateError::NoDirectory { .. })));
}
