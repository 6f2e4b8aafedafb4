//! What the log says.

use super::*;
use crate::store::device::{DeviceFigures, Done, Engine, Operation, Transfer};

/// What was logged, as text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Of this thread, while the second is held.
    fn begin() -> (Log, tracing::subscriber::DefaultGuard) {
        let log = Log::default();
        let writer = log.clone();
        let writes = tracing_subscriber::fmt().with_ansi(false).without_time().with_target(false);
        let writes = writes.with_writer(move || writer.clone()).finish();
        (log, tracing::subscriber::set_default(writes))
    }

    fn lines(&self) -> Vec<String> {
        let bytes = std::mem::take(&mut *self.0.lock().unwrap());
        String::from_utf8(bytes).unwrap().lines().map(|line| line.trim().to_owned()).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn the_log_says_which_volume_it_is_and_what_was_found_on_it() {
    let (device, volume) = fresh(32).await;
    append_whole(&volume, 1).await;
    volume.append_head(head_of(1, "one")).unwrap();
    settled(&volume).await;
    let (log, _logged) = Log::begin();

    let remedy = "`mend /dev/nvme0n1`";
    let (name, words) = ("nvme0n1".to_owned(), remedy.to_owned());
    let named = || VolumeSettings { name: name.clone(), remedy: words.clone(), ..settings() };
    let killed = after_kill(&device, 1);
    let again = Volume::open(disk(&killed), named()).await.unwrap();
    let told = log.lines();
    let line = ": it holds 2 records (0 by its saved index, 2 written after that was saved); 0 \
                that a crash cut short or that are damaged are left out";
    let begins = "INFO volume nvme0n1 was read in ";
    assert!(told.len() == 1 && told[0].starts_with(begins), "{told:#?}");
    assert!(told[0].ends_with(line), "{told:#?}");

    // It opens its region while it is well.
    again.append_head(head_of(2, "two")).unwrap();
    settled(&again).await;
    killed.set_faults(Faults { fail_writes: Share::ALL, ..Faults::default() });
    again.append_head(head_of(3, "three")).unwrap();
    settled(&again).await;
    let told = log.lines();
    let begins = "ERROR volume nvme0n1 is read-only from now on: a write failed: ";
    assert!(told.len() == 1 && told[0].starts_with(begins), "{told:#?}");
    assert!(told[0].ends_with(remedy), "{told:#?}");

    for slot in 0..2 {
        let at = volume.geometry().checkpoint(slot).start;
        let from = vec![Buffer::Own(Granules::holding(&[1; 4096]))];
        disk(&device).write(at, from, Urgency::Write).await.unwrap();
    }
    Volume::open(disk(&after_kill(&device, 2)), named()).await.unwrap();
    let told = log.lines();
    assert!(told.iter().all(|line| line.contains(" volume nvme0n1")), "{told:#?}");
    let is_said = |words| told.iter().any(|line| line.contains(words));
    assert!(is_said("2 records (read one by one: its saved index is missing"), "{told:#?}");
    assert!(is_said("WARN volume nvme0n1 may know heads that were replaced since"), "{told:#?}");
}

#[tokio::test(start_paused = true)]
async fn reads_that_fail_are_told_once_a_minute_with_their_place_and_their_count() {
    let (device, volume) = fresh(32).await;
    for n in 0..5 {
        append_whole(&volume, n).await;
    }
    settled(&volume).await;
    let (log, _logged) = Log::begin();
    device.set_faults(Faults { fail_reads: Share::ALL, ..Faults::default() });
    for n in 0..3 {
        assert!(!reads_whole(&volume, n).await);
    }
    let first = log.lines();
    assert_eq!(first.len(), 1, "{first:#?}");
    let told = first[0].split_once(": a read at byte ").and_then(|(_, told)| told.split_once(' '));
    let (at, why) = told.expect("it names the byte");
    assert!(volume.geometry().checkpoint(1).end < at.parse().unwrap(), "{first:#?}");
    assert!(why.starts_with("failed: ") && why.ends_with("(os error 5)"), "{first:#?}");

    tokio::time::sleep(Duration::from_secs(61)).await;
    log.lines();
    assert!(!reads_whole(&volume, 3).await);
    let later = log.lines();
    assert_eq!(later.len(), 1, "{later:#?}");
    assert!(later[0].ends_with("; 2 more since the last such line"), "{later:#?}");
}

/// A device of which reads of some places fail.
#[derive(Debug)]
struct BadSectors {
    inner: Arc<Simulated>,
    at: Vec<u64>,
}

impl Device for BadSectors {
    fn submit(&self, transfer: Transfer) -> Result<(), Box<Transfer>> {
        let Transfer { operation, urgency, done } = transfer;
        match operation {
            Operation::Read { at, into } if self.hits(at, &into) => {
                let result = Err(std::io::Error::from_raw_os_error(5));
                done(Done { result, buffers: into });
                Ok(())
            }
            operation => self.inner.submit(Transfer { operation, urgency, done }),
        }
    }

    fn size_bytes(&self) -> u64 {
        self.inner.size_bytes()
    }

    fn engine(&self) -> Engine {
        self.inner.engine()
    }

    fn figures(&self) -> DeviceFigures {
        self.inner.figures()
    }
}

impl BadSectors {
    fn hits(&self, start: u64, into: &[Buffer]) -> bool {
        let end = start + into.iter().map(|buffer| buffer.bytes().len() as u64).sum::<u64>();
        self.at.iter().any(|at| (start..end).contains(at))
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_at_the_start_is_told_with_its_place_and_the_words_of_the_device() {
    let (device, volume) = fresh(32).await;
    append_whole(&volume, 1).await;
    volume.checkpoint().await;
    let geometry = *volume.geometry();
    volume.close().await;
    let [a, b] = [PageCopy::A, PageCopy::B].map(|copy| TablePage::place(&geometry, 0, copy));
    let [first, second] = [0, 1].map(|slot| geometry.checkpoint(slot).start);
    let eio = "the device failed: Input/output error (os error 5)";
    let torn = "the checksum is wrong: torn or damaged";
    let one_page = |at, why| {
        format!(
            "a copy of a page of the region table is bad, at byte {at}: {why}; the other copy \
             counts, and what its regions say of themselves that is newer"
        )
    };
    let both_pages = format!(
        "both copies of a page of the region table are bad, at byte {a}: {eio}; at byte {b}: \
         {torn}; it is made anew, by what its regions say of themselves"
    );
    let header = format!("the header of the checkpoint at byte {second} cannot be read: {eio}");
    let section = format!("at byte {first} cannot be read: {eio}");
    let damaged = format!("checkpoint at byte {second}: {torn}");
    for (unread, flipped, said) in [
        (vec![a], vec![], one_page(a, eio)),
        (vec![], vec![b], one_page(b, torn)),
        (vec![a], vec![b], both_pages),
        (vec![second], vec![], header),
        (vec![first + 4096, second], vec![], section),
        (vec![], vec![second], damaged),
    ] {
        let mut image = device.image();
        flipped.iter().for_each(|at| image.flip(at + 60, 3));
        let inner = Arc::new(Simulated::from_image(image, 1, Faults::default()));
        let bad: Arc<dyn Device> = Arc::new(BadSectors { inner, at: unread.clone() });
        let (log, _logged) = Log::begin();
        Volume::open(Disk::new(bad), settings()).await.unwrap();
        let told = log.lines();
        let lines = told.iter().filter(|line| line.starts_with("WARN") && line.ends_with(&said));
        assert_eq!(lines.count(), 1, "{said}: {told:#?}");
        let bad = unread.len() + flipped.len();
        let about = told.iter().filter(|line| line.contains(" at byte ")).count();
        assert!(about == 1 || (about, bad) == (2, 2), "each once: {told:#?}");
    }
}

#[tokio::test(start_paused = true)]
async fn heads_that_are_in_doubt_are_told_of_at_each_start_until_none_is_left() {
    const LINE: &str = "holds heads that are in doubt since an earlier start: the origin is asked";
    let (device, volume) = fresh(32).await;
    assert!(volume.doubt_heads().await);
    assert!(!volume.figures().heads_in_doubt, "there were none");
    for n in 0..3 {
        volume.append_head(head_of(n, "before")).unwrap();
        append_whole(&volume, n).await;
    }
    settled(&volume).await;
    assert!(!volume.figures().heads_in_doubt, "they are newer");
    volume.close().await;
    let (log, _logged) = Log::begin();
    let in_doubt_and_told = |volume: &Volume| {
        let told = log.lines();
        let lines = told.iter().filter(|line| line.contains(LINE) && line.starts_with("WARN "));
        (volume.figures().heads_in_doubt, lines.count())
    };
    let mut again = opened(&device).await;
    assert_eq!(in_doubt_and_told(&again), (false, 0));
    assert!(again.doubt_heads().await && again.figures().heads_in_doubt);
    for n in 0..3 {
        let killed = opened(&after_kill(&device, n)).await;
        assert_eq!(in_doubt_and_told(&killed), (true, 1), "killed, {n}");
        again.close().await;
        again = opened(&device).await;
        assert_eq!(in_doubt_and_told(&again), (true, 1), "{n}");
        again.append_head(head_of(n, "confirmed")).unwrap();
        settled(&again).await;
    }
    let killed = opened(&after_kill(&device, 9)).await;
    assert_eq!(in_doubt_and_told(&killed), (false, 0));
    again.close().await;
    let again = opened(&device).await;
    assert_eq!(in_doubt_and_told(&again), (false, 0));
    for n in 0..3 {
        assert_eq!(head_now(&again, n).await, Some(("confirmed".to_owned(), Trust::Newest)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_region_is_out_of_use_until_the_volume_is_formatted_anew_and_the_log_says_so() {
    let (device, volume) = fresh(32).await;
    for n in 0..4 {
        append_whole(&volume, n).await;
    }
    let region = volume.core.index().blocks_of(volume.core.block_key(block(0)))[0].location.region;
    let (log, _logged) = Log::begin();
    for _ in 0..2 {
        volume.core.read_failed(region, &"EIO");
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let told = log.lines();
    let line = "is out of use until the volume is formatted anew (`tidegate volume format`";
    assert!(told.iter().filter(|told| told.contains(line)).count() == 1, "{told:#?}");
    assert_eq!(volume.figures().regions_quarantined, 1);
    volume.close().await;
    let again = opened(&device).await;
    assert_eq!(again.figures().regions_quarantined, 1, "a start does not bring it back");
    again.close().await;
    formatted(&device).await;
    assert_eq!(opened(&device).await.figures().regions_quarantined, 0);
}
