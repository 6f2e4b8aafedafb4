//! What a connection is doing, and since when: the one place that decides that it has taken too
//! long.
//!
//! Plain cells, written on the way of the bytes without reading the clock; the connection's task
//! looks at them when its alarm goes off. hyper's own header timeout is not used: it cannot tell a
//! slow head from an idle connection, knows no slow reader, and allocates a timer for each
//! request.

use std::cell::Cell;
use std::os::fd::RawFd;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::Instant;

use super::outgoing::Outcome;
use super::transport;
use super::{Protocol, ServerSettings};
use crate::limits::H2_CANCELLED_MAX;

/// The state of one connection, shared by its socket, its bodies and its task.
pub(super) struct Activity {
    protocol: Cell<Protocol>,
    /// Heads seen without an end of their response.
    requests_open: Cell<u32>,
    requests_seen: Cell<bool>,
    finished: Cell<u32>,
    cancelled: Cell<u32>,
    /// When the last response ended, or the connection began.
    idle_since: Cell<Instant>,
    /// When the first byte of a head that is not yet whole came.
    head_since: Cell<Option<Instant>>,
    /// Buffers handed to the protocol and not yet sent.
    buffers_waiting: Cell<u32>,
    /// The body that waits until they are.
    body: Cell<Option<Waker>>,
    /// Written to the socket: what of it the viewer has, the kernel knows.
    written_bytes: Cell<u64>,
    /// The viewer's socket, as long as it is open.
    socket: Cell<Option<RawFd>>,
    /// The alarm already goes off every tick.
    ticking: Cell<bool>,
    /// Ticks of the current period at which bytes were waiting, and what had been taken when it
    /// began.
    ticks: Cell<u32>,
    taken_before: Cell<u64>,
    /// When we decided to close.
    closing_since: Cell<Option<Instant>>,
    body_refused: Cell<bool>,
    cut: Cell<bool>,
}

/// What the alarm finds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing is wrong; look again then.
    Wait(Instant),
    /// Nothing is asked of us: close as the protocol does.
    CloseIdle,
    /// Drop the connection.
    Cut(Overdue),
}

/// What took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    Head,
    Reader,
    /// Our own close, which the viewer did not answer.
    Close,
}

impl Activity {
    pub(super) fn new() -> Activity {
        Activity {
            protocol: Cell::new(Protocol::Http1),
            requests_open: Cell::new(0),
            requests_seen: Cell::new(false),
            finished: Cell::new(0),
            cancelled: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
            head_since: Cell::new(None),
            buffers_waiting: Cell::new(0),
            body: Cell::new(None),
            written_bytes: Cell::new(0),
            socket: Cell::new(None),
            ticking: Cell::new(false),
            ticks: Cell::new(0),
            taken_before: Cell::new(0),
            closing_since: Cell::new(None),
            body_refused: Cell::new(false),
            cut: Cell::new(false),
        }
    }

    /// The protocol is known and its first head is awaited.
    pub(super) fn begin(&self, protocol: Protocol, now: Instant) {
        self.protocol.set(protocol);
        self.idle_since.set(now);
        self.head_since.set(Some(now));
    }

    pub(super) fn bytes_came(&self) {
        // On HTTP/2 an idle viewer may well send: pings, window updates.
        let between_requests = self.requests_open.get() == 0 && self.head_since.get().is_none();
        if between_requests && self.protocol.get() == Protocol::Http1 {
            self.head_since.set(Some(Instant::now()));
        }
    }

    pub(super) fn request_opened(&self) {
        self.head_since.set(None);
        self.requests_seen.set(true);
        self.requests_open.set(self.requests_open.get() + 1);
    }

    pub(super) fn request_closed(&self, outcome: Outcome) {
        let count = match outcome {
            Outcome::Finished => &self.finished,
            Outcome::Cancelled => &self.cancelled,
        };
        count.set(count.get().saturating_add(1));
        self.requests_open.set(self.requests_open.get() - 1);
        if self.requests_open.get() == 0 {
            self.idle_since.set(Instant::now());
        }
    }

    pub(super) fn buffer_waits(&self) {
        self.buffers_waiting.set(self.buffers_waiting.get() + 1);
    }

    pub(super) fn buffer_sent(&self) {
        self.buffers_waiting.set(self.buffers_waiting.get() - 1);
        if self.buffers_waiting.get() == 0
            && let Some(body) = self.body.take()
        {
            body.wake();
        }
    }

    /// Whether the body may give more. On HTTP/1 only when what it gave is sent: hyper asks as soon
    /// as a little of it is, and a slow viewer would pin two slices. What the kernel still holds
    /// then keeps the line busy. HTTP/2 takes many small frames of one slice.
    pub(super) fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        if self.buffers_waiting.get() == 0 || self.protocol.get() == Protocol::Http2 {
            return Poll::Ready(());
        }
        self.body.set(Some(cx.waker().clone()));
        Poll::Pending
    }

    pub(super) fn protocol(&self) -> Protocol {
        self.protocol.get()
    }

    pub(super) fn socket_opened(&self, socket: Option<RawFd>) {
        self.socket.set(socket);
    }

    pub(super) fn socket_closed(&self) {
        self.socket.set(None);
    }

    pub(super) fn bytes_written(&self, bytes: u64) {
        self.written_bytes.set(self.written_bytes.get() + bytes);
    }

    /// What the viewer's end has confirmed. What the kernel takes from us is no measure: it takes
    /// nothing for minutes while a slow viewer reads what it holds for him, then 64 KiB at once.
    fn taken_bytes(&self) -> u64 {
        let unconfirmed = self.socket.get().map_or(0, transport::unconfirmed_bytes);
        self.written_bytes.get().saturating_sub(unconfirmed)
    }

    pub(super) fn refuse_body(&self) {
        self.body_refused.set(true);
    }

    /// Whether the viewer may still be sending what nobody will read.
    pub(super) fn has_unread_input(&self) -> bool {
        self.body_refused.get() || self.head_since.get().is_some()
    }

    /// Whether a drain may ask the protocol to close: a viewer who has just come is answered once.
    pub(super) fn may_drain(&self) -> bool {
        self.requests_seen.get()
    }

    /// Whether far more requests were cancelled than finished (CVE-2023-44487 and its kin).
    pub(super) fn is_cancel_flood(&self) -> bool {
        let bound = self.finished.get().saturating_add(H2_CANCELLED_MAX);
        self.protocol.get() == Protocol::Http2 && self.cancelled.get() > bound
    }

    /// Our side began to close.
    pub(super) fn closing(&self) {
        if self.closing_since.get().is_none() {
            self.closing_since.set(Some(Instant::now()));
        }
    }

    /// What is still unsent is to be thrown away with the socket.
    pub(super) fn cut(&self) {
        self.cut.set(true);
    }

    pub(super) fn is_cut(&self) -> bool {
        self.cut.get()
    }

    /// When the alarm has to go off at the latest, if what happened may have brought that forward.
    pub(super) fn due(&self, settings: &ServerSettings) -> Option<Instant> {
        if let Some(since) = self.closing_since.get() {
            return Some(since + CLOSE_TIMEOUT);
        }
        if self.buffers_waiting.get() > 0 {
            let began = !self.ticking.replace(true);
            return began.then(|| Instant::now() + tick(settings));
        }
        self.head_since.get().map(|since| since + settings.header_timeout)
    }

    /// Judges the connection; called when the alarm goes off.
    pub(super) fn check(&self, settings: &ServerSettings, now: Instant) -> Verdict {
        self.ticking.set(false);
        if let Some(since) = self.closing_since.get() {
            return due_at(since + CLOSE_TIMEOUT, now, Verdict::Cut(Overdue::Close));
        }
        if self.buffers_waiting.get() > 0 {
            return self.check_reader(settings, now);
        }
        if self.requests_open.get() > 0 {
            // The handler has its own limits; `due` rings again once it has bytes to send.
            return Verdict::Wait(now + settings.idle_timeout);
        }
        match self.head_since.get() {
            Some(since) => {
                due_at(since + settings.header_timeout, now, Verdict::Cut(Overdue::Head))
            }
            None => due_at(self.idle_since.get() + settings.idle_timeout, now, Verdict::CloseIdle),
        }
    }

    /// A period is made of ticks at which bytes waited, so that waiting for an origin does not
    /// count.
    fn check_reader(&self, settings: &ServerSettings, now: Instant) -> Verdict {
        let ticks = self.ticks.get() + 1;
        if ticks < TICKS_PER_PERIOD {
            self.ticks.set(ticks);
        } else {
            let taken = self.taken_bytes();
            if taken - self.taken_before.get() < settings.slow_reader_bytes {
                return Verdict::Cut(Overdue::Reader);
            }
            self.ticks.set(0);
            self.taken_before.set(taken);
        }
        self.ticking.set(true);
        Verdict::Wait(now + tick(settings))
    }
}

fn due_at(at: Instant, now: Instant, overdue: Verdict) -> Verdict {
    if now < at { Verdict::Wait(at) } else { overdue }
}

fn tick(settings: &ServerSettings) -> Duration {
    settings.slow_reader_period / TICKS_PER_PERIOD
}

/// How often within a period a slow reader is looked at.
const TICKS_PER_PERIOD: u32 = 8;
/// How long a viewer has to answer our close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_reader_is_judged_by_what_it_took_over_a_whole_period() {
        let settings = ServerSettings { slow_reader_bytes: 100, ..ServerSettings::default() };
        let activity = Activity::new();
        activity.begin(Protocol::Http1, Instant::now());
        activity.request_opened();
        activity.buffer_waits();

        assert!(activity.due(&settings).is_some());
        assert_eq!(activity.due(&settings), None, "the alarm is set once");
        for taken_bytes in [100, 99] {
            activity.bytes_written(taken_bytes);
            for _ in 1..TICKS_PER_PERIOD {
                assert!(matches!(activity.check(&settings, Instant::now()), Verdict::Wait(_)));
            }
            let slow = activity.check(&settings, Instant::now()) == Verdict::Cut(Overdue::Reader);
            assert_eq!(slow, taken_bytes < 100);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_that_waits_for_its_origin_is_no_slow_reader() {
        let settings = ServerSettings::default();
        let activity = Activity::new();
        activity.begin(Protocol::Http1, Instant::now());
        activity.request_opened();

        for _ in 0..100 {
            assert!(matches!(activity.check(&settings, Instant::now()), Verdict::Wait(_)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_and_an_idle_connection_have_limits_of_their_own() {
        let settings = ServerSettings::default();
        let activity = Activity::new();
        let began = Instant::now();
        activity.begin(Protocol::Http1, began);
        let head_limit = began + settings.header_timeout;

        assert_eq!(activity.due(&settings), Some(head_limit));
        assert_eq!(activity.check(&settings, began), Verdict::Wait(head_limit));
        assert_eq!(activity.check(&settings, head_limit), Verdict::Cut(Overdue::Head));

        activity.request_opened();
        activity.request_closed(Outcome::Finished);
        let idle_limit = Instant::now() + settings.idle_timeout;
        assert_eq!(activity.check(&settings, began), Verdict::Wait(idle_limit));
        assert_eq!(activity.check(&settings, idle_limit), Verdict::CloseIdle);

        activity.bytes_came();
        assert_eq!(activity.check(&settings, idle_limit), Verdict::Cut(Overdue::Head));
    }

    #[tokio::test(start_paused = true)]
    async fn requests_cancelled_beyond_those_finished_are_a_flood() {
        let activity = Activity::new();
        activity.begin(Protocol::Http2, Instant::now());
        for _ in 0..H2_CANCELLED_MAX {
            activity.request_opened();
            activity.request_closed(Outcome::Cancelled);
        }
        activity.request_opened();
        activity.request_closed(Outcome::Finished);
        activity.request_opened();
        activity.request_closed(Outcome::Cancelled);
        assert!(!activity.is_cancel_flood());

        activity.request_opened();
        activity.request_closed(Outcome::Cancelled);
        assert!(activity.is_cancel_flood());
    }
}
