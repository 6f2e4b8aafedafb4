//! Drains on purpose: keeps what an operator plans, and tells those whom it concerns.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

use super::figures;
use super::parts::Parts;
use crate::control::Phase;
use crate::control::drain::{Drain, DrainStatus, Plan, PlanError, Stage};
use crate::moment::Moment;
use crate::server;

/// What is planned, if anything is.
#[derive(Default)]
pub(super) struct Drains {
    drain: Mutex<Option<Drain>>,
    /// Another process is taking over, from this one or this one from it: whatever were planned
    /// now, the one of the two that serves then would not know of it.
    held: AtomicBool,
    asked: Notify,
}

impl Drains {
    /// What is told of it.
    pub(super) fn status(&self) -> Option<DrainStatus> {
        self.drain().as_ref().map(|drain| drain.status(Moment::now()))
    }

    /// How far it has come.
    pub(super) fn stage(&self) -> Option<Stage> {
        self.drain().as_ref().map(Drain::stage)
    }

    /// Has nothing planned from now on; whether nothing is.
    pub(super) fn hold(&self) -> bool {
        let drain = self.drain();
        if drain.is_none() {
            self.held.store(true, Ordering::Relaxed);
        }
        drain.is_none()
    }

    /// What is planned counts again.
    pub(super) fn release(&self) {
        self.held.store(false, Ordering::Relaxed);
    }

    fn drain(&self) -> MutexGuard<'_, Option<Drain>> {
        self.drain.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Parts {
    /// Plans a drain, or takes back what was planned; what there is then.
    ///
    /// # Errors
    /// It drains already, and cannot begin at another time, or another process is taking over:
    /// nothing has changed.
    pub(super) fn plan_drain(&self, plan: Option<Plan>) -> Result<Option<DrainStatus>, PlanError> {
        let now = Moment::now();
        let mut drain = self.drains.drain();
        if plan.is_some() && self.drains.held.load(Ordering::Relaxed) {
            return Err(PlanError::Upgrading);
        }
        if self.readiness.is_ending() {
            // More is asked of viewers already than any plan would.
            return Ok(None);
        }
        if plan.is_some_and(|plan| plan.begins.is_some())
            && drain.as_ref().is_some_and(Drain::has_begun)
        {
            return Err(PlanError::HasBegun);
        }
        match plan {
            Some(plan) => {
                let refusing = self.live.server.load().drain_timeout;
                let planned = Drain::new(plan, refusing, now.time);
                let before = drain.take();
                *drain = Some(match before {
                    Some(before) => planned.in_place_of(&before),
                    None => planned,
                });
                self.step_drain(&mut drain, now);
                self.drains.asked.notify_one();
            }
            None if drain.take().is_some() => self.enter(Stage::Over),
            None => {}
        }
        Ok(drain.as_ref().map(|drain| drain.status(now)))
    }

    /// Ends what was planned: the appliance ends itself.
    pub(super) fn end_drain(&self) {
        let mut drain = self.drains.drain();
        self.readiness.set_ending();
        *drain = None;
    }

    /// Goes on if it is time. Who holds the plan tells of it: nobody is told of two at once.
    fn step_drain(&self, drain: &mut MutexGuard<'_, Option<Drain>>, now: Moment) {
        let Some(going) = drain.as_mut() else { return };
        let before = going.stage();
        let stage = going.step(now, figures::connections_open(self));
        if stage == Stage::Over {
            **drain = None;
        }
        if stage != before {
            self.enter(stage);
        }
    }

    fn enter(&self, stage: Stage) {
        let connections = figures::connections_open(self);
        let (phase, wish) = match stage {
            Stage::Planned => return,
            Stage::Leaving => (Phase::Draining, server::Wish::Leaving),
            Stage::Refusing => (Phase::Draining, server::Wish::Refusing),
            Stage::Cutting => (Phase::Draining, server::Wish::Abandoned),
            Stage::Drained => (Phase::Drained, server::Wish::Refusing),
            Stage::Over => (Phase::Ready, server::Wish::Serving),
        };
        self.readiness.turn(phase);
        self.wishes.send_replace(wish);
        match stage {
            Stage::Planned => {}
            Stage::Leaving => tracing::info!("draining: {connections} viewers are told to leave"),
            Stage::Refusing => tracing::info!("draining: who comes is refused from now on"),
            Stage::Cutting => {
                tracing::warn!("draining: the time is over, {connections} connections are cut");
            }
            Stage::Drained => tracing::info!("drained: safe to power off"),
            Stage::Over => tracing::info!("the drain is over: viewers are served"),
        }
    }
}

/// Goes on with what is planned until the appliance stops.
pub(super) fn start(parts: &Arc<Parts>) {
    let (weak, stop) = (Arc::downgrade(parts), parts.filler.stop.clone());
    let going = async move {
        while let Some(parts) = weak.upgrade() {
            let is_planned = {
                let mut drain = parts.drains.drain();
                parts.step_drain(&mut drain, Moment::now());
                drain.is_some()
            };
            tokio::select! {
                () = sleep(LOOKED_AT_EVERY), if is_planned => {}
                () = parts.drains.asked.notified() => {}
                () = stop.cancelled() => return,
            }
        }
    };
    parts.filler.tasks.spawn_on(going, &parts.filler.runtime);
}

const LOOKED_AT_EVERY: Duration = Duration::from_millis(250);
