//! A question to an origin that is under way: its end, and who waits for it.

use std::sync::Arc;

use tokio::sync::watch;

use crate::fill::error::FillError;
use crate::fill::{Filler, Opened};
use crate::object::ObjectKey;

/// Closes an opening whatever happens to the one who asks.
pub(super) struct Close {
    filler: Arc<Filler>,
    key: ObjectKey,
    answer: watch::Receiver<Option<Arc<Opened>>>,
}

impl Close {
    pub(super) fn new(
        filler: &Arc<Filler>,
        key: &ObjectKey,
        answer: &watch::Receiver<Option<Arc<Opened>>>,
    ) -> Close {
        Close { filler: filler.clone(), key: key.clone(), answer: answer.clone() }
    }
}

impl Drop for Close {
    fn drop(&mut self) {
        self.filler.openings.close(&self.key, &self.answer);
    }
}

/// What came of a question.
pub(super) async fn wait(mut answer: watch::Receiver<Option<Arc<Opened>>>) -> Arc<Opened> {
    match answer.wait_for(Option::is_some).await {
        Ok(opened) => opened.clone().expect("it was waited for"),
        // The one who asked is gone without an answer: only a stop of the appliance does that.
        Err(_) => Arc::new(Opened::Failed(Arc::new(FillError::Draining))),
    }
}
