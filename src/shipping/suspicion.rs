//! Whose fault it is that a batch is denied: its own, or that of none.
//!
//! Where who sends is not known, or the receiver has moved, all batches are denied, and none is
//! lost for it. What stands before a receiver may turn away one that looks like an attack. So a
//! batch that is denied is put aside, and another is sent to see; when that has arrived, the one
//! before is sent again. It is lost when it is denied so again and again. Nothing here sends or
//! waits.

use std::mem;

use crate::access_log::Batch;
use crate::limits::SHIPPING_TRIALS_MAX;

/// Who is suspected, from one batch to the next.
#[derive(Default)]
pub(super) struct Suspicion {
    suspect: Suspect,
    /// Which other was denied while one is aside: the next time it is the one after that.
    tried: Option<Batch>,
    /// Who was denied although others are taken, and how often.
    accused_of: Option<(Batch, u32)>,
}

#[derive(Default)]
enum Suspect {
    #[default]
    Nobody,
    /// Another one is sent before it, to see whose fault it is.
    Aside(Batch),
    /// Another one has arrived since: if it is denied again, it is its own, perhaps.
    Accused(Batch),
}

/// What became of a batch that was sent.
pub(super) enum Outcome {
    Arrived,
    Refused,
    /// Nothing yet.
    Denied,
}

/// What is done with it.
pub(super) enum Verdict {
    /// It has arrived.
    Arrived,
    /// It was refused, and is lost.
    Refused,
    /// It was denied time and again while others are taken, and is lost.
    Guilty,
    /// It waits: another is sent.
    PutAside,
    /// It waits as the one before it does: nothing is sent for a while.
    DeniedToo,
}

impl Suspicion {
    /// The batch after which the next to be sent is looked for; `None`: the oldest is next.
    pub(super) fn after(&self) -> Option<&Batch> {
        match &self.suspect {
            Suspect::Aside(batch) => Some(self.tried.as_ref().unwrap_or(batch)),
            Suspect::Nobody | Suspect::Accused(_) => None,
        }
    }

    /// There is no such batch, and so nobody to suspect. Whether one was aside, which waits still.
    pub(super) fn lift(&mut self) -> bool {
        self.tried = None;
        matches!(mem::take(&mut self.suspect), Suspect::Aside(_))
    }

    /// Whether it shows whose fault a denial was, if this one is sent.
    pub(super) fn is_tried_by(&self, batch: &Batch) -> bool {
        match &self.suspect {
            Suspect::Nobody => false,
            Suspect::Aside(_) => true,
            Suspect::Accused(accused) => accused == batch,
        }
    }

    /// What is done with a batch of which that became.
    pub(super) fn judge(&mut self, batch: &Batch, outcome: Outcome) -> Verdict {
        match (outcome, mem::take(&mut self.suspect)) {
            (Outcome::Arrived, Suspect::Aside(aside)) => {
                self.suspect = Suspect::Accused(aside);
                Verdict::Arrived
            }
            (Outcome::Arrived, _) => {
                self.tried = None;
                Verdict::Arrived
            }
            (Outcome::Refused, _) => Verdict::Refused,
            (Outcome::Denied, Suspect::Accused(accused)) if accused == *batch => self.accuse(batch),
            (Outcome::Denied, Suspect::Aside(_)) => {
                self.tried = Some(batch.clone());
                Verdict::DeniedToo
            }
            (Outcome::Denied, _) => {
                self.suspect = Suspect::Aside(batch.clone());
                Verdict::PutAside
            }
        }
    }

    /// It was denied once more, after another had arrived.
    fn accuse(&mut self, batch: &Batch) -> Verdict {
        let before = self.accused_of.take().filter(|(of, _)| of == batch);
        let times = before.map_or(1, |(_, times)| times + 1);
        if times >= SHIPPING_TRIALS_MAX {
            self.tried = None;
            return Verdict::Guilty;
        }
        self.accused_of = Some((batch.clone(), times));
        self.suspect = Suspect::Aside(batch.clone());
        Verdict::PutAside
    }
}
