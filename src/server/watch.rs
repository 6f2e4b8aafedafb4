//! Watches over a connection while hyper speaks: its one alarm, its drain, its end.
//!
//! What is overdue is [`Activity`]'s to say; this asks it when the alarm goes off and does what
//! follows. A connection is closed as its protocol does where that costs the viewer nothing, else
//! dropped.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use hyper_util::server::graceful::GracefulConnection;
use tokio::sync::watch;
use tokio::time::{Instant, Sleep, sleep};

use super::activity::{Activity, Overdue, Verdict};
use super::{ConnectionFacts, Cut, Protocol, ServerContext, ServerSettings, Wish};

/// Sees to it that a connection comes to its end.
pub(super) struct Watch<'a> {
    pub(super) activity: &'a Activity,
    pub(super) settings: &'a ServerSettings,
    pub(super) wishes: watch::Receiver<Wish>,
    pub(super) facts: &'a ConnectionFacts,
}

impl Watch<'_> {
    /// Runs the connection to its end, which its handler can be told before its bodies are dropped.
    pub(super) async fn over<C: GracefulConnection>(mut self, connection: Pin<&mut C>) -> End {
        let end = self.run(connection).await;
        self.facts.cut.set(end.cut());
        end
    }

    async fn run<C: GracefulConnection>(&mut self, mut connection: Pin<&mut C>) -> End {
        // The limit of the first head, or of idleness if that is set shorter.
        let first = self.settings.header_timeout.min(self.settings.idle_timeout);
        let mut alarm = pin!(sleep(first));
        let mut close = Close::NotAsked;
        loop {
            let wish = *self.wishes.borrow_and_update();
            self.facts.wish.set(wish);
            match wish {
                Wish::Serving => close = close.not_any_more(),
                // A viewer may be sending his next request just now: he is answered, and told.
                Wish::Leaving if self.facts.protocol == Protocol::Http1 => {}
                Wish::Leaving | Wish::Refusing | Wish::Draining => close = close.at_drain(),
                Wish::Abandoned => {
                    self.activity.cut();
                    return End::Abandoned;
                }
            }
            let (activity, settings) = (self.activity, self.settings);
            let end = poll_fn(|cx| {
                let mut step = Step { connection: connection.as_mut(), close: &mut close };
                step.poll(cx, alarm.as_mut(), activity, settings)
            });
            tokio::select! {
                biased;
                end = end => return end,
                changed = self.wishes.changed() => {
                    changed.expect("the server's context outlives its connections");
                }
            }
        }
    }
}

/// Whether, and why, we asked the protocol to close.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Close {
    NotAsked,
    /// As soon as the viewer has been answered once.
    Wanted,
    AskedAtDrain,
    AskedWhenIdle,
}

impl Close {
    fn at_drain(self) -> Close {
        if self == Close::NotAsked { Close::Wanted } else { self }
    }

    /// What was asked cannot be taken back.
    fn not_any_more(self) -> Close {
        if self == Close::Wanted { Close::NotAsked } else { self }
    }
}

struct Step<'a, C> {
    connection: Pin<&'a mut C>,
    close: &'a mut Close,
}

impl<C: GracefulConnection> Step<'_, C> {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut alarm: Pin<&mut Sleep>,
        activity: &Activity,
        settings: &ServerSettings,
    ) -> Poll<End> {
        loop {
            if self.connection.as_mut().poll(cx).is_ready() {
                let idle = *self.close == Close::AskedWhenIdle;
                return Poll::Ready(if idle { End::Idle } else { End::Over });
            }
            if activity.is_cancel_flood() {
                activity.cut();
                return Poll::Ready(End::CancelFlood);
            }
            if *self.close == Close::Wanted && activity.may_drain() {
                self.ask_to_close(Close::AskedAtDrain);
                continue;
            }
            match activity.due(settings) {
                Some(due) if due < alarm.deadline() => alarm.as_mut().reset(due),
                _ => {}
            }
            if alarm.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            match activity.check(settings, Instant::now()) {
                Verdict::Wait(at) => {
                    let at = at.min(Instant::now() + settings.idle_timeout);
                    alarm.as_mut().reset(at);
                }
                Verdict::CloseIdle => {
                    activity.closing();
                    self.ask_to_close(Close::AskedWhenIdle);
                }
                Verdict::Cut(overdue) => {
                    if overdue == Overdue::Reader {
                        activity.cut();
                    }
                    return Poll::Ready(End::Cut(overdue));
                }
            }
        }
    }

    fn ask_to_close(&mut self, why: Close) {
        self.connection.as_mut().graceful_shutdown();
        *self.close = why;
    }
}

/// How a connection came to its end.
pub(super) enum End {
    /// By itself: the viewer closed it, or it broke, or it was done.
    Over,
    Idle,
    Cut(Overdue),
    CancelFlood,
    Abandoned,
}

impl End {
    /// Why we cut off what was still being sent, if we did.
    fn cut(&self) -> Option<Cut> {
        match self {
            End::Cut(Overdue::Reader) => Some(Cut::SlowReader),
            End::Abandoned => Some(Cut::Drain),
            End::CancelFlood => Some(Cut::CancelFlood),
            End::Over | End::Idle | End::Cut(Overdue::Head | Overdue::Close) => None,
        }
    }

    pub(super) fn count(&self, context: &ServerContext) {
        let counts = &context.counts;
        let count = match self {
            End::Over | End::Cut(Overdue::Close) => return,
            End::Idle => &counts.idle_timeouts,
            End::Cut(Overdue::Head) => &counts.header_timeouts,
            End::Cut(Overdue::Reader) => &counts.slow_readers,
            End::CancelFlood => &counts.cancel_floods,
            End::Abandoned => &counts.abandoned,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }
}
