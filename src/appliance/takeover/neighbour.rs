//! The other one of two processes that serve the same for a while: what ends here ends there.

use std::collections::HashMap;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::super::parts::Parts;
use super::Message;
use super::channel::Channel;
use crate::limits::{PURGES_WAITING_MAX, TAKEOVER_MESSAGES_MAX};
use crate::object::ObjectKey;
use crate::purge::Purges;
use crate::purge::elsewhere::{Elsewhere, Ended, Ending};

/// [`Ending`] as it is said.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ends {
    All,
    Objects { site: String, targets: Vec<String> },
}

/// The other process.
pub(super) struct Neighbour {
    /// What it says that is about neither of this.
    pub(super) said: Receiver<Message>,
    channel: Arc<Channel>,
    purges: Arc<Purges>,
    waiting: Arc<Waiting>,
}

/// Who waits for what to have ended there.
type Waiting = Mutex<HashMap<u64, oneshot::Sender<()>>>;

impl Neighbour {
    /// Ends what it tells until it is gone, on a thread.
    pub(super) fn start(channel_to: Arc<Channel>, parts: &Arc<Parts>) -> io::Result<Neighbour> {
        let (say, said) = sync_channel(TAKEOVER_MESSAGES_MAX);
        let waiting = Arc::new(Waiting::default());
        let (from, known, weak) = (channel_to.clone(), waiting.clone(), Arc::downgrade(parts));
        thread::Builder::new()
            .name("neighbour".to_owned())
            .spawn(move || hear_all(&from, &known, &weak, &say))?;
        Ok(Neighbour { said, channel: channel_to, purges: parts.purges.clone(), waiting })
    }

    /// From now on what ends waits to be told to it.
    pub(super) fn hold(&self) -> Held {
        let (tell, ended) = mpsc::channel(PURGES_WAITING_MAX);
        self.purges.set_elsewhere(Some(Elsewhere::new(tell)));
        Held(ended)
    }

    /// Tells it what has waited and what ends from now on, until it is gone: on a thread.
    pub(super) fn tell(&self, Held(ended): Held) -> io::Result<()> {
        let (to, known) = (self.channel.clone(), self.waiting.clone());
        thread::Builder::new()
            .name("neighbour-told".to_owned())
            .spawn(move || tell_all(&to, &known, ended))
            .map(drop)
    }

    /// Hears nothing more of it.
    pub(super) fn part(&self) {
        self.channel.shut();
    }
}

/// What has ended and is not told yet.
pub(super) struct Held(mpsc::Receiver<Ended>);

fn tell_all(channel: &Channel, waiting: &Waiting, mut ended: mpsc::Receiver<Ended>) {
    let mut id = 0;
    while let Some((ending, told)) = ended.blocking_recv() {
        id += 1;
        waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id, told);
        let ending = match ending {
            Ending::All => Ends::All,
            Ending::Objects { site, targets } => Ends::Objects { site, targets },
        };
        let message = Message::End { id, ending };
        while let Err(error) = channel.send(&message, None) {
            // One that is there and does not read serves on: it is not to be taken for gone.
            if error.kind() != io::ErrorKind::WouldBlock {
                // Whoever hears it notices too, and lets go of those who wait.
                return;
            }
        }
    }
}

fn hear_all(
    channel: &Arc<Channel>,
    waiting: &Waiting,
    parts: &Weak<Parts>,
    say: &SyncSender<Message>,
) {
    while let Ok(Some((message, _))) = channel.receive(None) {
        match message {
            Message::Ended { id } => {
                let told = waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
                // Who waited may have left.
                let _ = told.map(|told| told.send(()));
            }
            Message::End { id, ending } => {
                let Some(parts) = parts.upgrade() else { break };
                end(channel, &parts, id, ending);
            }
            // Nobody listens who is only waited for, and what is said too often is not waited for.
            message => drop(say.try_send(message)),
        }
    }
    if let Some(parts) = parts.upgrade() {
        parts.purges.set_elsewhere(None);
    }
    waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

fn end(channel: &Arc<Channel>, parts: &Arc<Parts>, id: u64, ending: Ends) {
    let done = move |channel: &Channel| {
        // Who is gone does not wait.
        let _ = channel.send(&Message::Ended { id }, None);
    };
    match ending {
        Ends::All => {
            parts.purges.end_all();
            done(channel);
        }
        Ends::Objects { site, targets } => {
            let sites = parts.live.sites.load();
            let Some(site) = sites.iter().find(|known| known.name == site) else {
                return done(channel);
            };
            let key = |target: &String| ObjectKey::new(site.id, target);
            let keys: Vec<ObjectKey> = targets.iter().map(key).collect();
            let (channel, filler) = (channel.clone(), parts.filler.clone());
            parts.filler.runtime.spawn(async move {
                filler.end(&keys).await;
                done(&channel);
            });
        }
    }
}
