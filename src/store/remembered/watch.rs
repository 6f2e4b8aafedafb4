//! Volumes that fall ill while they are in use are remembered, and what is remembered counts when
//! they are opened again.
//!
//! A file that cannot be written costs a line in the log: the volume is as ill as it was, only the
//! next process does not know.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{IllState, Illness, Remembered};
use crate::moment::{http_date, since_1970};
use crate::store::Volume;
use crate::store::volume::State;

/// How long a volume may be ill before it is remembered. It is looked at in memory, which costs
/// nothing; a process that is killed within a second only leaves the next one to find out.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Illness {
    /// What a volume is now, if it is ill.
    fn of(state: &State, since: SystemTime) -> Option<Illness> {
        let (state, why) = match state {
            State::Online => return None,
            State::ReadOnly { why } => (IllState::ReadOnly, why),
            State::Offline { why } => (IllState::Offline, why),
        };
        Some(Illness { state, reason: why.clone(), since })
    }

    /// What the volume is when it is opened again. Earlier versions put words before a reason, once
    /// more at each start.
    pub fn brought_back(&self) -> State {
        let reason = self.reason.trim_start_matches("it failed before: ");
        let why = format!("since {}: {reason}", http_date(since_1970(self.since)));
        match self.state {
            IllState::ReadOnly => State::ReadOnly { why },
            IllState::Offline => State::Offline { why },
        }
    }
}

impl Remembered {
    /// Remembers each volume that falls ill, until `stop`; then once more. `volumes` names those
    /// that are open. Volumes must not be closed before it returns: a closed one is offline too.
    ///
    /// What a volume was when it was opened is remembered already, or was: one that is forgiven
    /// meanwhile stays so.
    ///
    /// Dropping it midway loses what was not remembered yet.
    pub async fn watch(self, volumes: impl Fn() -> Vec<Arc<Volume>>, stop: CancellationToken) {
        let mut known: BTreeMap<u128, Option<IllState>> = BTreeMap::new();
        loop {
            let stopped = stop.run_until_cancelled(sleep(LOOK_EVERY)).await.is_none();
            for volume in volumes() {
                let ill = |state| Illness::of(state, SystemTime::now());
                let opened_as = || ill(volume.opened_as()).map(|illness| illness.state);
                let known = known.entry(volume.id().0).or_insert_with(opened_as);
                let Some(illness) = ill(&volume.state()) else { continue };
                if known.replace(illness.state) != Some(illness.state) {
                    self.clone().remember_change(&volume, illness).await;
                }
            }
            if stopped {
                return;
            }
        }
    }

    /// What is remembered already stays as it is: its reason and its time are the first ones.
    async fn remember_change(self, volume: &Volume, illness: Illness) {
        let (id, name) = (volume.id().0, volume.name());
        let written = spawn_blocking(move || {
            let known = self.all().0.get(&id).map(|known| known.state);
            let result = match known == Some(illness.state) {
                true => Ok(()),
                false => self.remember(id, illness),
            };
            result.map_err(|error| format!("{}: {error}", self.file().display()))
        });
        let written = written.await.map_err(|error| error.to_string());
        if let Err(error) = written.and_then(|written| written) {
            tracing::error!("volume {name} failed, and the next start will not know: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::object::BlockSize;
    use crate::store::device::{Disk, Faults, Share, Simulated, Simulation};
    use crate::store::volume::{HeadWrite, VolumeSettings};
    use crate::store::{Geometry, ObjectHash, SiteHash, VolumeId};

    async fn volume(device: &Arc<Simulated>, id: u128, left_as: State) -> Arc<Volume> {
        let disk = Disk::new(device.clone());
        let geometry = Geometry::new(32 << 20, 2 << 20, BlockSize::MAX, 1_000).unwrap();
        Volume::format(&disk, geometry, VolumeId(id)).await.unwrap();
        Volume::open(disk, VolumeSettings { left_as, ..Default::default() }).await.unwrap()
    }

    fn device(seed: u64) -> Arc<Simulated> {
        let (size_bytes, faults) = (32 << 20, Faults::default());
        Arc::new(Simulated::new(&Simulation { size_bytes, seed, faults }))
    }

    fn head() -> HeadWrite {
        HeadWrite {
            object: ObjectHash(1),
            site: SiteHash(1),
            birth: 0,
            payload: bytes::Bytes::from_static(b"a head"),
            body: None,
            guard: Box::new(()),
        }
    }

    #[tokio::test]
    async fn a_volume_that_falls_ill_is_remembered_and_ill_when_it_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let remembered = Remembered::at(&folder.path().join("volumes.json"));
        let (well, sick) = (device(1), device(2));
        let volumes =
            vec![volume(&well, 7, State::Online).await, volume(&sick, 8, State::Online).await];
        let (stop, watched) = (CancellationToken::new(), volumes.clone());
        let watching = remembered.clone().watch(move || watched.clone(), stop.clone());
        let watching = tokio::spawn(watching);
        sick.set_faults(Faults { fail_writes: Share::ALL, ..Faults::default() });
        volumes[1].append_head(head()).unwrap();
        while volumes[1].state() == State::Online {
            sleep(Duration::from_millis(5)).await;
        }
        // Before it looked: it looks once more.
        stop.cancel();
        watching.await.unwrap();
        for volume in &volumes {
            volume.close().await;
        }
        let (all, _) = remembered.all();
        assert_eq!(all.keys().collect::<Vec<_>>(), [&8], "the other one was only closed");

        let again = volume(&device(3), 8, all[&8].brought_back()).await;
        let since = httpdate::fmt_http_date(all[&8].since);
        let expected = format!("since {since}: {}", all[&8].reason);
        match (again.state(), all[&8].state) {
            (State::ReadOnly { why }, IllState::ReadOnly)
            | (State::Offline { why }, IllState::Offline) => assert_eq!(why, expected),
            (state, _) => panic!("{state} and {all:?}"),
        }
        let before = all;
        looked_at_once(&remembered, &again).await;
        assert_eq!(remembered.all().0, before, "the first reason stays");
        assert!(remembered.forgive(8).unwrap());
        looked_at_once(&remembered, &again).await;
        assert!(remembered.all().0.is_empty(), "forgiven stays forgiven");
    }

    #[tokio::test]
    async fn a_volume_that_was_ill_when_it_was_opened_is_remembered_when_it_gets_worse() {
        let folder = tempfile::tempdir().unwrap();
        let remembered = Remembered::at(&folder.path().join("volumes.json"));
        let left_as = State::ReadOnly { why: "a test".to_owned() };
        let volume = volume(&device(4), 9, left_as).await;
        looked_at_once(&remembered, &volume).await;
        assert!(remembered.all().0.is_empty(), "it was forgiven meanwhile");
        volume.lose();
        looked_at_once(&remembered, &volume).await;
        assert_eq!(remembered.all().0[&9].state, IllState::Offline);
    }

    async fn looked_at_once(remembered: &Remembered, volume: &Arc<Volume>) {
        let (stop, volume) = (CancellationToken::new(), volume.clone());
        stop.cancel();
        remembered.clone().watch(move || vec![volume.clone()], stop).await;
    }

    #[test]
    fn words_that_were_put_before_a_reason_at_each_start_are_left_out() {
        let reason = "it failed before: it failed before: 8 errors".to_owned();
        for (seconds, date) in [
            (1_795_262_128, "Sat, 21 Nov 2026 11:55:28 GMT"),
            (u64::MAX >> 8, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            let since = UNIX_EPOCH + Duration::from_secs(seconds);
            let (state, reason) = (IllState::Offline, reason.clone());
            let why = format!("since {date}: 8 errors");
            assert_eq!(Illness { state, reason, since }.brought_back(), State::Offline { why });
        }
    }
}
