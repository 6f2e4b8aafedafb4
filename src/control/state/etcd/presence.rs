//! That a control plane is there, and which one leads: keys that live as long as a lease, which is
//! kept alive; when it ends they are gone, and another one leads.

use std::mem;
use std::time::{Duration, Instant, SystemTime};

use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp};
use tokio::time::sleep;

use super::client::CallError;
use super::mirror::{LEADER, SEATS, Seat, Seats};
use super::{Held, Shared};
use crate::control::state::json;
use crate::moment::unix_seconds;

impl Shared {
    /// Is there, as soon as it takes part, for ever. Safe to drop.
    pub(super) async fn attend(&self) {
        let mut attends = self.attends.subscribe();
        let Ok(names) = attends.wait_for(Option::is_some).await.map(|names| names.clone()) else {
            return;
        };
        let since = unix_seconds(SystemTime::now());
        let node = Seat { id: self.node.clone(), names: names.unwrap_or_default(), since };
        let mut is_told = false;
        loop {
            if let Err(error) = self.be_there(&node).await {
                *self.held() = Held::default();
                tracing::debug!("not among the control planes: {error:?}");
                // All else passes.
                if let CallError::Refused(why) = error
                    && !mem::replace(&mut is_told, true)
                {
                    tracing::warn!("this control plane takes no part, etcd refuses it: {why}");
                }
            }
            sleep(self.settings.lease / 4).await;
        }
    }

    /// Ends when its lease has.
    async fn be_there(&self, node: &Seat) -> Result<(), CallError> {
        let seconds = self.settings.lease.as_secs().max(1) as i64;
        let grant = |mut client: etcd_client::Client| async move {
            client.lease_grant(seconds, None).await
        };
        let mut asked = Instant::now();
        let lease = self.client.call(grant).await?.id();
        let (key, value) = (self.key(&format!("{SEATS}{}", node.id)), json(node));
        let put = |mut client: etcd_client::Client| {
            let (key, value) = (key.clone(), value.clone());
            let options = PutOptions::new().with_lease(lease);
            async move { client.put(key, value, Some(options)).await }
        };
        self.client.call(put).await?;
        self.held().lease = Some(lease);
        loop {
            self.look_who_leads(asked + self.settings.lease);
            if self.seats.load().leader.is_none() && self.held().leads.is_none() {
                self.lead(lease, asked).await?;
            }
            self.until_leaderless(self.settings.lease / 4).await;
            let keep = |mut client: etcd_client::Client| async move {
                client.lease_keep_alive(lease).await
            };
            let kept = Instant::now();
            match self.client.call(keep).await {
                Ok(_) => asked = kept,
                // Until then it may come back.
                Err(CallError::Away(_)) if asked.elapsed() < self.settings.lease => continue,
                Err(error) => return Err(error),
            }
            if let Some((_, until)) = &mut self.held().leads {
                *until = asked + self.settings.lease;
            }
        }
    }

    /// Ends after this time, or when nobody leads.
    async fn until_leaderless(&self, pause: Duration) {
        let end = Instant::now() + pause;
        let mut seen = self.seen.subscribe();
        while self.seats.load().leader.is_some() || self.held().leads.is_some() {
            let left = end.saturating_duration_since(Instant::now());
            tokio::select! {
                () = sleep(left) => return,
                changed = seen.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Goes by the key that says who leads, where it does so until this moment.
    fn look_who_leads(&self, until: Instant) {
        let (seen, mut held) = (*self.seen.borrow(), self.held());
        let before = held.leads;
        held.leads = leading(before, &self.seats.load(), &self.node, seen, until);
        let begins = before.is_none() && held.leads.is_some();
        drop(held);
        if begins {
            self.begin_to_lead();
        }
    }

    fn begin_to_lead(&self) {
        tracing::info!("this control plane leads: it publishes snapshots");
        self.changed.notify_one();
    }

    /// Leads, if nobody does.
    async fn lead(&self, lease: i64, asked: Instant) -> Result<(), CallError> {
        let (key, id) = (self.key(LEADER), self.node.clone());
        let txn = |mut client: etcd_client::Client| {
            let nobody = Compare::create_revision(key.clone(), CompareOp::Equal, 0);
            let options = PutOptions::new().with_lease(lease);
            let put = TxnOp::put(key.clone(), id.clone(), Some(options));
            let txn = Txn::new().when([nobody]).and_then([put]);
            async move { client.txn(txn).await }
        };
        let answer = self.client.call(txn).await?;
        if !answer.succeeded() {
            // It may be this one's, by an answer that was lost: who leads is seen soon.
            sleep(AGAIN_AFTER).await;
            return Ok(());
        }
        let revision = answer.header().map_or(0, |header| header.revision());
        self.held().leads = Some((revision, asked + self.settings.lease));
        self.begin_to_lead();
        Ok(())
    }

    /// Says so once where nobody leads for long, for ever. Safe to drop.
    pub(super) async fn tell_leaderless(&self) {
        let (mut leaderless, prefix) = (Leaderless::default(), &self.settings.prefix);
        let long = self.settings.lease * LEADERLESS_LEASES;
        loop {
            sleep(self.settings.lease / 4).await;
            let takes_part = self.attends.borrow().is_some() && !self.is_away();
            let leads = self.held().leads.is_some_and(|(_, until)| Instant::now() < until);
            let is_led = leads || self.seats.load().is_led();
            if leaderless.tells(is_led || !takes_part, Instant::now(), long) {
                tracing::warn!(
                    "no control plane leads for {} s, and no snapshot is published: \
                     `etcdctl get --prefix {prefix}/live/` says who is there; where \
                     {prefix}/live/leader names none of them, remove it",
                    long.as_secs(),
                );
            }
        }
    }

    /// Has another one lead at once.
    pub(super) async fn leave(&self) {
        let Some(lease) = self.held().lease.take() else { return };
        let revoke =
            |mut client: etcd_client::Client| async move { client.lease_revoke(lease).await };
        if let Err(error) = self.client.call(revoke).await {
            tracing::debug!("its lease ends by itself: {error:?}");
        }
    }
}

/// For how long nobody leads.
#[derive(Debug, Default)]
struct Leaderless {
    since: Option<Instant>,
    is_told: bool,
}

impl Leaderless {
    /// Whether it is to be told now, that it has been so for long.
    fn tells(&mut self, is_led: bool, now: Instant, long: Duration) -> bool {
        if is_led {
            *self = Leaderless::default();
            return false;
        }
        let since = *self.since.get_or_insert(now);
        now.duration_since(since) >= long && !mem::replace(&mut self.is_told, true)
    }
}

/// What is held of leading after who leads is seen: the key may be gone, or this one's by an answer
/// that was lost. What was written is not seen at once.
fn leading(
    held: Option<(i64, Instant)>,
    seats: &Seats,
    node: &str,
    seen: i64,
    until: Instant,
) -> Option<(i64, Instant)> {
    match (held, seats.leader.as_ref().filter(|leader| leader.id == node)) {
        (None, Some(own)) => Some((own.version, until)),
        // After etcd has gone back it may be another one than was written.
        (Some((revision, until)), Some(own)) if seen >= revision => Some((own.version, until)),
        (held, Some(_)) => held,
        (held, None) => held.filter(|(revision, _)| seen < *revision),
    }
}

const AGAIN_AFTER: Duration = Duration::from_millis(200);
/// Longer than it takes another one to lead.
const LEADERLESS_LEASES: u32 = 4;

#[cfg(test)]
mod tests {
    use super::super::mirror::Leader;
    use super::*;

    #[test]
    fn where_nobody_leads_for_long_it_is_told_once_until_somebody_does() {
        let (begun, mut leaderless) = (Instant::now(), Leaderless::default());
        let told = [
            (0, false, false),
            (11, false, false),
            (12, false, true),
            (30, false, false),
            (31, true, false),
            (32, false, false),
            (43, false, false),
            (44, false, true),
        ];
        for (second, is_led, tells) in told {
            let now = begun + Duration::from_secs(second);
            let told = leaderless.tells(is_led, now, Duration::from_secs(12));
            assert_eq!(told, tells, "after {second} s");
        }
        // A key that names nobody who is there has nobody lead.
        let seat = |id: &str| Seat { id: id.to_owned(), names: Vec::new(), since: 1 };
        for (id, is_led) in [("me", true), ("gone", false)] {
            let leader = Some(Leader { id: id.to_owned(), version: 9 });
            assert_eq!(Seats { all: vec![seat("me")], leader }.is_led(), is_led);
        }
    }

    #[test]
    fn who_leads_knows_it_whether_the_answer_came_or_not_and_until_the_key_is_gone() {
        let (until, before) = (Instant::now() + AGAIN_AFTER, Instant::now());
        let leader = |id: &str| Some(Leader { id: id.to_owned(), version: 9 });
        let (none, own, other) = (None, leader("me"), leader("other"));
        for (held, leader, seen, leads) in [
            (None, &none, 9, None),
            (None, &own, 9, Some((9, until))),
            (None, &other, 9, None),
            (Some((9, before)), &own, 9, Some((9, before))),
            (Some((12, before)), &own, 11, Some((12, before))),
            (Some((7, before)), &own, 9, Some((9, before))),
            (Some((9, before)), &none, 8, Some((9, before))),
            (Some((9, before)), &none, 10, None),
            (Some((9, before)), &other, 10, None),
        ] {
            let seats = Seats { all: Vec::new(), leader: leader.clone() };
            assert_eq!(leading(held, &seats, "me", seen, until), leads, "{held:?} {leader:?}");
        }
    }
}
