//! The other one of two processes that serve the same for a while: what ends here ends there.
//!
//! A thread hears what it says, another one says what there is to say: no viewer's thread waits for
//! the other process.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::parts::Parts;
use super::super::ssd;
use super::Message;
use super::carrying::Taking;
use super::channel::Channel;
use crate::cache::carried::Taken;
use crate::limits::TAKEOVER_MESSAGES_MAX;
use crate::object::ObjectKey;
use crate::purge::Purges;
use crate::purge::elsewhere::{Elsewhere, Ending, Said, Side};

/// The other process.
pub(super) struct Neighbour {
    /// What it says that somebody here waits for: what ends, and what comes along, is heard as it
    /// comes.
    said: Mutex<Receiver<Message>>,
    channel: Arc<Channel>,
    purges: Arc<Purges>,
    way: Arc<Elsewhere>,
    course: Arc<Course>,
}

/// How far the other process has come: for who waits for it and who hears it end, whatever is
/// known first.
#[derive(Debug, Default)]
struct Course {
    /// It has followed this one.
    follows: AtomicBool,
    is_gone: AtomicBool,
}

impl Neighbour {
    /// Until it is gone, on two threads: what it says has ended there ends here, and what ends here
    /// it is told as soon as it listens.
    pub(super) fn start(
        channel: Arc<Channel>,
        way: Arc<Elsewhere>,
        parts: &Arc<Parts>,
    ) -> io::Result<Neighbour> {
        let (say, said) = sync_channel(TAKEOVER_MESSAGES_MAX);
        let (purges, turn) = (parts.purges.clone(), way.expect());
        let course = Arc::<Course>::default();
        let taking = (way.side() == Side::Before).then(|| Taking::since(purges.birth()));
        let open = WayOpen {
            channel: channel.clone(),
            way: way.clone(),
            turn,
            purges: purges.clone(),
            course: course.clone(),
            parts: Arc::downgrade(parts),
        };
        let hearing = Hearing { open, taking, say };
        let (to, told) = (channel.clone(), way.clone());
        thread::Builder::new().name("neighbour".to_owned()).spawn(move || hearing.hear_all())?;
        let telling = thread::Builder::new()
            .name("neighbour-told".to_owned())
            .spawn(move || tell_all(&to, &told, turn));
        if let Err(error) = telling {
            channel.shut();
            return Err(error);
        }
        Ok(Neighbour { said: Mutex::new(said), channel, purges, way, course })
    }

    /// From now on what ends waits until it listens.
    pub(super) fn hold(&self) {
        self.purges.set_elsewhere(self.way.clone());
    }

    /// It listens.
    pub(super) fn listens(&self) {
        self.way.listens();
    }

    /// It serves from now on, and nobody comes in its place.
    pub(super) fn follows(&self, parts: &Parts) {
        self.course.follows.store(true, Ordering::SeqCst);
        if self.course.is_gone.load(Ordering::SeqCst) {
            left_alone(parts);
        }
    }

    /// What it says next that is waited for.
    pub(super) fn hear(&self, within: Duration) -> Result<Message, RecvTimeoutError> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(within)
    }

    /// Says something to it, beside what ends.
    pub(super) fn say(&self, message: &Message) -> io::Result<()> {
        self.channel.send(message, None)
    }

    /// The same, with a file.
    pub(super) fn give(&self, message: &Message, file: BorrowedFd<'_>) -> io::Result<()> {
        self.channel.send(message, Some(file))
    }

    /// Hears nothing more of it.
    pub(super) fn part(&self) {
        self.channel.shut();
    }
}

fn tell_all(channel: &Channel, way: &Elsewhere, turn: u64) {
    while let Some(said) = way.next(turn) {
        let message = match said {
            Said::End(id, ending) => Message::End { id, ending: json!(ending) },
            Said::Ended(id) => Message::Ended { id },
            Said::Told => Message::Told,
        };
        while let Err(error) = channel.send(&message, None) {
            // One that is there and does not read serves on: it is not to be taken for gone.
            if error.kind() != io::ErrorKind::WouldBlock {
                // Who hears it finds out too.
                return channel.shut();
            }
        }
    }
}

/// While what the other one says is heard; then it is gone for this one, and hears that it is.
struct WayOpen {
    channel: Arc<Channel>,
    way: Arc<Elsewhere>,
    turn: u64,
    purges: Arc<Purges>,
    course: Arc<Course>,
    parts: Weak<Parts>,
}

impl Drop for WayOpen {
    fn drop(&mut self) {
        self.channel.shut();
        self.course.is_gone.store(true, Ordering::SeqCst);
        let parts = self.parts.upgrade();
        // Before anybody is told that something has ended, which nobody hears any more.
        if let Some(parts) = parts.as_ref().filter(|_| self.course.follows.load(Ordering::SeqCst)) {
            left_alone(parts);
        }
        self.purges.part(&self.way, self.turn);
        if let Some(parts) = parts {
            parts.predecessor.gone();
        }
    }
}

/// Who follows is gone before this process: nobody hears any more what ends here, and nobody takes
/// who comes before another one is started, for which the end of this one may be awaited.
fn left_alone(parts: &Parts) {
    tracing::warn!(
        "the process that follows is gone before this one has left, which is hurried: what volumes \
         hold is asked about once after the next start"
    );
    parts.hurried.note_left_alone();
    ssd::leave_untold(&parts.config);
}

struct Hearing {
    open: WayOpen,
    /// What comes along of what it keeps, if that may, and until all has.
    taking: Option<Taking>,
    say: SyncSender<Message>,
}

impl Hearing {
    fn hear_all(mut self) {
        while let Ok(Some((message, beside))) = self.open.channel.receive(None) {
            match message {
                Message::Ended { id } => self.open.way.has_ended(id),
                Message::Listening => self.open.way.listens(),
                Message::End { id, ending } => {
                    let Some(parts) = self.open.parts.upgrade() else { break };
                    self.end(&parts, id, ending);
                }
                Message::Leaving { connections } => {
                    let Some(parts) = self.open.parts.upgrade() else { continue };
                    parts.predecessor.leaves(connections);
                }
                Message::Carried { bytes } => {
                    let Some(parts) = self.open.parts.upgrade() else { break };
                    let taken = self.take(&parts, bytes, beside);
                    // Who does not hear it gives up soon.
                    let _ = self.open.channel.send(&taken, None);
                }
                Message::CarriedAll => self.taking = None,
                Message::Hurry => {
                    let Some(parts) = self.open.parts.upgrade() else { continue };
                    match self.open.way.side() {
                        Side::Before => tracing::info!("the process before this one stops too"),
                        Side::After => tracing::info!(
                            "the process that follows stops: what has begun is hurried"
                        ),
                    }
                    parts.hurried.note_other_stops();
                }
                Message::Unknown => {}
                // Nobody listens who is only waited for, and what is said too often is not waited
                // for.
                message => drop(self.say.try_send(message)),
            }
        }
    }

    /// In the order in which it comes: what ended before was heard of before.
    fn take(&mut self, parts: &Parts, bytes: usize, file: Option<OwnedFd>) -> Message {
        let taken = match (&mut self.taking, file) {
            (Some(taking), Some(file)) => taking.take(parts, bytes, file),
            _ => Err(io::ErrorKind::InvalidData.into()),
        };
        let refused = taken.as_ref().err().map(ToString::to_string);
        let Taken { blocks, bytes } = taken.unwrap_or_default();
        Message::Taken { blocks, bytes, refused }
    }

    /// In the order in which it is told: when `Told` comes, nobody is served any more of what was
    /// told before.
    fn end(&self, parts: &Arc<Parts>, id: u64, ending: Value) {
        let (filler, way, turn) = (parts.filler.clone(), self.open.way.clone(), self.open.turn);
        let name = match ending_of(ending) {
            Ending::All => None,
            Ending::Site { site } => Some(site),
            Ending::Objects { site, targets } => {
                let sites = parts.live.sites.load();
                let Some(site) = sites.iter().find(|known| known.name == site) else {
                    return way.answer(turn, id);
                };
                let key = |target: &String| ObjectKey::new(site.id, target);
                let keys: Vec<ObjectKey> = targets.iter().map(key).collect();
                let _inside = parts.filler.runtime.enter();
                filler.end_here(&keys);
                tokio::spawn(async move {
                    filler.ended(&keys).await;
                    way.answer(turn, id);
                });
                return;
            }
        };
        match filler.runtime.block_on(self.open.purges.end_sites(name.as_deref())) {
            Ok(()) => way.answer(turn, id),
            Err(error) => tracing::error!("what ended in the other process has not here: {error}"),
        }
    }
}

/// What ends; all does where a later version says something else.
fn ending_of(said: Value) -> Ending {
    serde_json::from_value(said).unwrap_or(Ending::All)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd as _;

    use arc_swap::ArcSwap;
    use tokio::runtime::Runtime;

    use super::super::super::groundwork::Groundwork;
    use super::super::super::parts::log_settings;
    use super::super::super::ssd::Start;
    use super::super::carrying::Takes;
    use super::*;
    use crate::access_log::AccessLog;
    use crate::config::Config;
    use crate::memory::Use;

    #[test]
    fn what_a_later_version_says_is_known_for_what_it_is() {
        let site = || "a".to_owned();
        let objects = Ending::Objects { site: site(), targets: vec!["/x".to_owned()] };
        for (said, expected) in [
            (json!("all"), Some(Ending::All)),
            (json!({"site": {"site": "a"}}), Some(Ending::Site { site: site() })),
            (json!({"objects": {"site": "a", "targets": ["/x"]}}), Some(objects)),
            (json!({"moon": {"phase": 1}}), None),
        ] {
            let text = json!({"say": "end", "id": 7, "ending": said, "when": "now"}).to_string();
            let Ok(Message::End { id: 7, ending }) = serde_json::from_str(&text) else {
                panic!("{text}")
            };
            let is_known = expected.is_some();
            let heard = ending_of(ending);
            assert_eq!(is_known.then(|| json!(heard)), is_known.then_some(said), "{text}");
            assert_eq!(heard, expected.unwrap_or(Ending::All), "{text}");
        }
        let other = r#"{"say":"weather","ending":"all","id":7}"#;
        assert!(matches!(serde_json::from_str(other), Ok(Message::Unknown)));
    }

    #[test]
    fn who_wants_of_ram_what_only_a_later_version_knows_serves_all_the_same() {
        let takes = json!({"format": 1, "block_bytes": 2, "bytes": 3});
        let others = [json!({"format": "moon"}), json!(["all"]), json!(null)];
        for (takes, is_known) in [(takes, true)].into_iter().chain(others.map(|one| (one, false))) {
            let text = json!({"say": "serving", "version": "9", "takes": takes}).to_string();
            let Ok(Message::Serving { takes: said, .. }) = serde_json::from_str(&text) else {
                panic!("{text}")
            };
            let known = said.and_then(Takes::said);
            assert_eq!(known.is_some(), is_known, "{text}");
            assert_eq!(known.map(Takes::to_said), is_known.then_some(takes), "{text}");
        }
        let Ok(Message::Serving { takes: None, .. }) =
            serde_json::from_str(r#"{"say":"serving","version":"1"}"#)
        else {
            panic!("an earlier version says nothing of it")
        };
    }

    /// Of the other process one end, of this one who hears it, and what is known of purges here.
    fn heard(way: &Arc<Elsewhere>) -> (Channel, Hearing, Arc<Purges>, Receiver<Message>) {
        let (purges, _keeper) = Purges::start(Arc::new(ArcSwap::default()), None).unwrap();
        purges.set_elsewhere(way.clone());
        let (channel, theirs) = Channel::pair().unwrap();
        let (say, said) = sync_channel(TAKEOVER_MESSAGES_MAX);
        let (channel, turn, taking) = (Arc::new(channel), way.expect(), None);
        let (way, purges_here) = (way.clone(), purges.clone());
        let (course, parts) = (Arc::default(), Weak::new());
        let open = WayOpen { channel, way, turn, purges, course, parts };
        let hearing = Hearing { open, taking, say };
        (Channel::inherited(theirs).unwrap(), hearing, purges_here, said)
    }

    const SOON: Duration = Duration::from_secs(20);

    /// What a process has, where it keeps nothing but in ram.
    fn parts(runtime: &Runtime) -> Arc<Parts> {
        let text = "listeners.http = '127.0.0.1:0'\nlog.access = 'off'\nmemory.ram = '64 MiB'\n\
                    [[sites]]\nname = 'a'\nhosts = 'a'\norigins = 'http://o'\n";
        let config = Config::from_toml(text, "t.toml").unwrap();
        let (log, _) = AccessLog::start(&log_settings(&config)).unwrap();
        let groundwork = Groundwork::of(&config).unwrap();
        Arc::new(Parts::build(config, groundwork, runtime, log, Start::Alone).unwrap())
    }

    #[test]
    fn what_is_remembered_of_what_came_along_is_forgotten_with_the_last_of_it() {
        let runtime = Runtime::new().unwrap();
        let (way, parts) = (Elsewhere::new(Side::Before), parts(&runtime));
        let (theirs, mut hearing, purges, _said) = heard(&way);
        hearing.taking = Some(Taking::since(purges.birth()));
        hearing.open.parts = Arc::downgrade(&parts);
        let hears = thread::spawn(move || hearing.hear_all());
        let reserved = || parts.governor.used_bytes(Use::Heads);
        let give = || {
            let nothing = File::open("/dev/null").unwrap();
            theirs.send(&Message::Carried { bytes: 0 }, Some(nothing.as_fd())).unwrap();
            match theirs.receive(Some(SOON)) {
                Ok(Some((Message::Taken { refused, .. }, _))) => refused,
                other => panic!("{other:?}"),
            }
        };
        let before = reserved();
        assert_eq!((give(), give()), (None, None));
        let heads = parts.heads.heads_max() as u64;
        assert_eq!((reserved() - before) % heads, 0);
        assert!(reserved() > before);
        theirs.send(&Message::CarriedAll, None).unwrap();
        assert!(give().is_some(), "nothing more comes");
        assert_eq!(reserved(), before);
        drop(theirs);
        hears.join().unwrap();
    }

    #[test]
    fn the_way_is_open_while_it_is_heard_and_no_longer() {
        // It leaves, or this process does.
        for leaves in [true, false] {
            let way = Elsewhere::new(Side::Before);
            let (theirs, hearing, purges, said) = heard(&way);
            let turn = hearing.open.turn;
            let hears = thread::spawn(move || hearing.hear_all());
            theirs.send(&Message::Checked { outdated: Vec::new() }, None).unwrap();
            assert!(matches!(said.recv_timeout(SOON), Ok(Message::Checked { .. })));
            assert!(purges.has_before());
            let theirs = (!leaves).then_some(theirs);
            if let Some(theirs) = &theirs {
                // What it has left is of no use to nobody, and what ends is for somebody to end.
                theirs.send(&Message::Leaving { connections: 1 }, None).unwrap();
                let end = Message::End { id: 1, ending: json!(Ending::All) };
                theirs.send(&end, None).unwrap();
                let heard = theirs.receive::<Message>(Some(SOON));
                assert!(matches!(heard, Ok(None)), "{heard:?}");
            }
            hears.join().unwrap();
            assert!(!purges.has_before() && way.next(turn).is_none());
        }
    }

    #[test]
    fn the_way_ends_with_who_panics_on_it() {
        let way = Elsewhere::new(Side::Before);
        let (theirs, hearing, purges, _said) = heard(&way);
        let turn = hearing.open.turn;
        assert!(purges.has_before());
        let heard = thread::spawn(move || {
            let _hearing = hearing;
            panic!("as a fault would");
        });
        assert!(heard.join().is_err());
        assert!(!purges.has_before() && way.next(turn).is_none());
        assert!(matches!(theirs.receive::<Message>(Some(SOON)), Ok(None)));
    }
}
