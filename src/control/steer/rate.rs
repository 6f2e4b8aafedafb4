//! How much there is to answer, so that with too much to do players are told to ask less often.
//! Counted by seconds; a clock that is set back begins anew.

/// Answers in this second and the one before it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rate {
    second: u64,
    count: u32,
    before: u32,
}

impl Rate {
    /// One more; as many as in the busier one of both.
    pub(super) fn after_one(&mut self, now_seconds: u64) -> u32 {
        if self.second != now_seconds {
            let is_next = self.second.checked_add(1) == Some(now_seconds);
            self.before = if is_next { self.count } else { 0 };
            (self.second, self.count) = (now_seconds, 0);
        }
        self.count = self.count.saturating_add(1);
        self.count.max(self.before)
    }
}
