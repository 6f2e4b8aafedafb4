//! What boxes say to one control plane, told to the others: gathered for a moment, then put under
//! keys that go with its lease. Nobody reads them later: who sees them change hears the boxes.

use std::collections::BTreeMap;
use std::mem;
use std::time::Duration;

use etcd_client::PutOptions;
use tokio::time::sleep;

use super::mirror::HEARD;
use super::{Beats, Shared};
use crate::control::registry::Heartbeat;
use crate::control::state::json;
use crate::limits::{ETCD_BEATS_MAX, ETCD_BEATS_PER_KEY};

impl Beats {
    /// Of several of one box the last one counts.
    pub(super) fn tell(&mut self, name: &str, beat: &Heartbeat) {
        if self.ours.len() < ETCD_BEATS_MAX || self.ours.contains_key(name) {
            self.ours.insert(name.to_owned(), beat.clone());
        }
    }
}

impl Shared {
    /// Tells what was heard, for ever. Safe to drop.
    pub(super) async fn tell_beats(&self) {
        loop {
            sleep(GATHERED_FOR).await;
            let Some(lease) = self.held().lease else {
                // Who does not know it is not there; boxes say it again.
                self.beats().ours.clear();
                continue;
            };
            let beats: BTreeMap<_, _> = mem::take(&mut self.beats().ours);
            let beats: Vec<_> = beats.into_iter().collect();
            for (number, some) in beats.chunks(ETCD_BEATS_PER_KEY).enumerate() {
                let key = self.key(&format!("{HEARD}{}/{number}", self.node));
                let value = json(&some);
                let put = |mut client: etcd_client::Client| {
                    let (key, value) = (key.clone(), value.clone());
                    let options = PutOptions::new().with_lease(lease);
                    async move { client.put(key, value, Some(options)).await }
                };
                if let Err(error) = self.client.call(put).await {
                    tracing::debug!("heartbeats are not told to others: {error:?}");
                    break;
                }
            }
        }
    }
}

const GATHERED_FOR: Duration = Duration::from_millis(500);
