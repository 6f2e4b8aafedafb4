//! Volumes that are given up: closed at the end, or handed over to the process that follows, and
//! taken back from one that follows no more.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::roll::Roll;
use super::{
    CLOSED_WITHIN, Known, LOOKED_AT_WITHIN, Start, Watch, bring_online, ill, look, paths_of,
};
use crate::cache::ssd::{Ssd, TierVolume};
use crate::config::Config;
use crate::store::Volume;
use crate::store::remembered::Remembered;

/// Writes what is known of every volume, so that the next start is a warm one.
pub(in crate::appliance) async fn close(ssd: &Ssd, watch: &Watch) {
    watch.end().await;
    for tier_volume in ssd.volumes().all() {
        let Some(volume) = tier_volume.opened() else { continue };
        if timeout(CLOSED_WITHIN, volume.close()).await.is_err() {
            tracing::warn!(
                "volume {} did not close in time: it starts from its log",
                tier_volume.name
            );
        }
    }
}

/// Writes what is known of every volume, and lets the process that follows have them. They can be
/// read on.
pub(in crate::appliance) async fn hand_over(ssd: &Ssd, watch: &Watch) {
    watch.end().await;
    // Together: however many disks are late, who follows waits for one.
    let mut handing = JoinSet::new();
    for tier_volume in ssd.volumes().all() {
        let Some(volume) = tier_volume.opened() else { continue };
        handing.spawn(async move {
            if timeout(CLOSED_WITHIN, volume.hand_over()).await.is_err() {
                tracing::warn!("volume {} is not handed over in time", tier_volume.name);
            }
        });
    }
    handing.join_all().await;
}

/// Opens again what was handed over to a process that follows no more, and writes to it from now
/// on; until it is open it can be read. What nobody told the volumes meanwhile is asked about once.
/// Blocks.
///
/// # Errors
/// The volumes that nothing is written to, for now at least.
pub(in crate::appliance) fn take_back(
    config: &Config,
    ssd: &Arc<Ssd>,
    watch: &Watch,
    runtime: &Handle,
) -> Result<(), Vec<String>> {
    let (file, block_size) = (Remembered::at(&config.ssd.state), config.block_size);
    let all = ssd.volumes().all();
    let before: Vec<_> = all.iter().map(|one| one.opened()).collect();
    all.iter().for_each(|one| one.comes_back());
    ill::begin(&file, BTreeSet::new(), file.paths());
    let looked = look(&config.ssd, ssd, (block_size, Start::Again), &file.paths(), runtime);
    let (mut looked_at, _) = looked.unwrap_or_default();
    let roll = Arc::new(Mutex::new(Roll::new(&config.ssd, block_size)));
    let until = Instant::now() + LOOKED_AT_WITHIN;
    for one in &mut looked_at {
        one.judged = runtime.block_on(one.judge(&roll, until));
    }
    let (ill, in_use) = (Arc::new(file.all().0), Arc::new(Some(BTreeSet::new())));
    let known = Known { file: file.clone(), roll, ill, in_use };
    let told = bring_online(looked_at, &known, TAKEN_BACK_WITHIN, runtime);
    ill::begin(&file, told, paths_of(&config.ssd));
    watch.start_again(file, ssd.clone(), runtime);
    let is_same = |before: &Option<Arc<Volume>>, now: &TierVolume| {
        before.as_ref().zip(now.opened()).is_some_and(|(before, now)| Arc::ptr_eq(before, &now))
    };
    let lost = before.iter().zip(&all).filter(|(before, now)| is_same(before, now));
    let lost: Vec<String> = lost.map(|(_, now)| now.name.clone()).collect();
    if lost.is_empty() { Ok(()) } else { Err(lost) }
}

/// Notes that nobody tells the volumes of what changes: what they know is asked about when they are
/// opened again. Blocks.
pub(in crate::appliance) fn leave_untold(config: &Config) {
    let file = Remembered::at(&config.ssd.state);
    if !file.in_use().is_empty() {
        ill::begin(&file, BTreeSet::new(), file.paths());
    }
}

/// How long it takes at most until they are open again: who asked for an upgrade waits.
const TAKEN_BACK_WITHIN: Duration = Duration::from_secs(30);
