//! Asking upstream: with everybody who asks for the same at the same time, or for one viewer alone.

use std::mem::take;
use std::sync::{Arc, Mutex, PoisonError};

use http::StatusCode;
use http::header::{
    HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE,
};
use tokio::time::{sleep, timeout};

use crate::access_log::{Decision, REQUEST_ID_FIELD, Text};
use crate::cache::heads::{Head, Known};
use crate::cache::ssd::{Asks, Recalled};
use crate::delivery::answer::covers;
use crate::delivery::error::DeliveryError;
use crate::delivery::kept::ASK_AGAIN;
use crate::delivery::reply::{Found, Reply};
use crate::delivery::viewer::Viewer;
use crate::delivery::{Attempt, Resort, Shared, Transaction};
use crate::fill::client::Ask;
use crate::fill::error::FillError;
use crate::fill::run::{Reader, Sharing};
use crate::fill::{Opened, Place, Wanted};
use crate::limits::PIECE_SIZE_BYTES;
use crate::message::cache_status::{Forwarded, Fwd};
use crate::message::live;
use crate::message::range::RangeRequest;
use crate::message::response;
use crate::message::reuse::Reuse;
use crate::metrics::labels::Lookup;
use crate::object::ObjectKey;
use crate::overload::Sharer;
use crate::site::Site;

impl Shared {
    /// The request upstream for what a viewer asks: his fields end to end, edited by the rule.
    pub(super) fn ask(&self, viewer: &Viewer, site: &Arc<Site>, key: &ObjectKey) -> Ask {
        let rule = site.rule_for(key.path());
        let mut fields = response::forwarded_request_fields(&viewer.parts.headers, rule);
        rule.request.apply_to(&mut fields);
        fields.insert(REQUEST_ID_FIELD, viewer.request_id.to_header_value());
        Ask {
            site: site.clone(),
            method: http::Method::GET,
            target: Arc::from(key.target()),
            fields,
            conditions: Vec::new(),
            hold: live::hold(rule, key.target()),
        }
    }
}

impl Transaction<'_> {
    /// What is known of the object, in ram or else on a volume.
    ///
    /// # Errors
    /// `Overload` when the volume is ill, and origins are asked for as much as they may be already.
    pub(super) async fn known(&mut self) -> Result<Known, DeliveryError> {
        let find = || self.find();
        let known = find();
        self.viewer.tell(|| Decision::of("object", known_as(&known)));
        if !matches!(known, Known::Nothing) {
            return Ok(known);
        }
        let recalled = timeout(self.shared.patience, self.recalled()).await;
        if self.shared.ssd.is_in_use() {
            self.viewer.tell(|| Decision::of("volumes", recalled_as(&recalled)));
        }
        match recalled {
            Ok((Recalled::Found, _)) => Ok(find()),
            Ok((Recalled::NotHeld | Recalled::Ill, bypassed_bytes)) => {
                self.bypassed_bytes = bypassed_bytes;
                Ok(known)
            }
            Ok((Recalled::NoMemory, _)) => Err(overload("memory")),
            Err(_) => Err(overload("ssd")),
        }
    }

    /// What volumes know; `Ill` once an origin may be asked instead, for so many bytes first.
    async fn recalled(&self) -> (Recalled, Option<u64>) {
        let (ssd, key) = (&self.shared.ssd, &self.asked.key);
        let mut asks = Asks::First;
        loop {
            let recalled = ssd.recall(key).await;
            if recalled != Recalled::Ill {
                return (recalled, None);
            }
            // How much will be asked for is not known yet: a block, or less if he wants less.
            let bytes = match self.range_wanted() {
                Some(RangeRequest::FromTo { first, last: Some(last) }) => {
                    last.saturating_sub(first).saturating_add(1)
                }
                Some(RangeRequest::Suffix { length }) => length,
                _ => u64::MAX,
            };
            let bytes = bytes.clamp(PIECE_SIZE_BYTES, self.shared.block_size.bytes());
            if self.shared.filler.openings.are_asked(key)
                || ssd.may_bypass(&ssd.subject(key), None, bytes, asks)
            {
                return (recalled, Some(bytes));
            }
            asks = Asks::Waiting;
            sleep(ASK_AGAIN).await;
        }
    }

    /// Lets the origin be asked, or says that there is too much to do.
    pub(super) fn admit_miss(&self) -> Result<(), DeliveryError> {
        let sharer = Sharer::of(self.asked.site.id);
        self.shared.gate.admit_miss(sharer).map_err(DeliveryError::Overload)
    }

    /// Asks what the object is, together with whoever asks at the same time.
    pub(super) async fn open(
        &mut self,
        stale: Option<Arc<Head>>,
        reason: Fwd,
    ) -> Result<Attempt, DeliveryError> {
        if !self.shared.filler.openings.are_asked(&self.asked.key) {
            self.admit_miss()?;
        }
        let wanted = self.wanted(stale.clone())?;
        self.viewer.tell(|| Decision::of("origin", "is to be asked").because(reason.as_str()));
        let asking = self.shared.filler.open(wanted);
        let Some((opened, place)) = self.in_time(asking, stale.as_deref()).await else {
            self.viewer.tell(|| Decision::of("origin", "is slow, and what is stale serves"));
            let stale = stale.expect("only a stored response is worth no wait");
            return self.answer_stale(stale, Forwarded::from(reason)).await;
        };
        let collapsed = place == Place::Behind;
        self.viewer.tell(|| {
            let because = if collapsed { "asked by another" } else { "asked by this request" };
            Decision::of("origin", opened_as(&opened)).because(because)
        });
        if collapsed && self.was_purged(&opened) {
            return Ok(Attempt::Again);
        }
        if !collapsed {
            self.viewer.count_origin_requests(1);
            self.withheld = opened.withheld().cloned().unwrap_or_default();
        }
        let forwarded = Forwarded { collapsed, ..Forwarded::from(reason) };
        match &*opened {
            // What came with it is for another.
            Opened::Confirmed { sharing: Sharing::Alone, .. } if collapsed => Ok(Attempt::Alone),
            Opened::Stored { .. } | Opened::Confirmed { .. } => {
                self.answer_opened(&opened, forwarded).await
            }
            Opened::Stale { head, status } => {
                let forwarded = Forwarded { fwd_status: *status, ..forwarded };
                self.answer_stale(head.clone(), forwarded).await
            }
            Opened::Private { head, span, body, .. } => {
                // It was somebody else's answer, or only a part of what he wants.
                let several = self.asked.ranges.is_some();
                if collapsed || several || !covers(self.asked.range, head, *span) {
                    return Ok(Attempt::Alone);
                }
                self.answer_alone(head, *span, taken(body), forwarded).await
            }
            Opened::Unsatisfiable { length_bytes }
                if !self.asks_whole && self.may_be_satisfied(*length_bytes) =>
            {
                self.asks_whole = true;
                Ok(Attempt::Again)
            }
            Opened::Unsatisfiable { .. } if collapsed || self.has(&[IF_RANGE]) => {
                Ok(Attempt::Alone)
            }
            Opened::Unsatisfiable { length_bytes } => {
                Err(DeliveryError::Unsatisfiable { length_bytes: *length_bytes })
            }
            Opened::Failed(error) if matches!(**error, FillError::Changed) => Ok(Attempt::Again),
            Opened::Failed(error) => {
                let must = stale.is_some_and(|head| head.freshness.must_revalidate);
                Err(match error.of_origin().filter(|_| must) {
                    Some(_) => DeliveryError::Unconfirmed(error.clone()),
                    None => DeliveryError::Fill(error.clone()),
                })
            }
        }
    }

    /// Asks for this viewer alone: what comes then is all there will be.
    pub(super) async fn pass(&mut self) -> Result<Reply, DeliveryError> {
        self.resort = Resort::Last;
        let mut wanted = self.wanted(None)?;
        if self.asked.ranges.take().is_some() {
            // Of what is not kept there is one answer: he gets the whole (RFC 9110 section 14.2).
            (self.asked.range, wanted.range) = (None, None);
        }
        wanted.if_range = self.viewer.parts.headers.get(IF_RANGE).cloned();
        let mut attempt = self.ask_alone(wanted.clone()).await?;
        if wanted.if_range.is_some() && !matches!(attempt, Attempt::Answered(_)) {
            // A part all the same, of another version: he gets the whole.
            wanted.range = None;
            attempt = self.ask_alone(wanted).await?;
        }
        match attempt {
            Attempt::Answered(reply) => Ok(reply.saying(take(&mut self.withheld))),
            Attempt::Again | Attempt::Alone => {
                let reason = "it answers another request".to_owned();
                Err(DeliveryError::Fill(Arc::new(FillError::Unusable { reason })))
            }
        }
    }

    /// Whether a range that the origin has nothing of is not all there is to the request: its
    /// conditions come before the range (RFC 9110 section 14.2), and of several ranges one that has
    /// bytes is enough (section 14.1.2), of which the first was asked for.
    fn may_be_satisfied(&self, length_bytes: Option<u64>) -> bool {
        let several = self.asked.ranges.as_ref();
        self.has(&[IF_MATCH, IF_UNMODIFIED_SINCE, IF_NONE_MATCH, IF_MODIFIED_SINCE])
            || several.is_some_and(|ranges| {
                self.has(&[IF_RANGE])
                    || length_bytes.is_none_or(|length| ranges.resolve(length).is_ok())
            })
    }

    fn has(&self, fields: &[HeaderName]) -> bool {
        fields.iter().any(|field| self.viewer.parts.headers.contains_key(field))
    }

    async fn ask_alone(&mut self, wanted: Wanted) -> Result<Attempt, DeliveryError> {
        self.viewer.tell(|| Decision::of("origin", "is to be asked").because("for him alone"));
        let (opened, _) = self.shared.filler.open_alone(wanted.clone()).await;
        self.viewer.tell(|| Decision::of("origin", opened_as(&opened)));
        self.viewer.count_origin_requests(1);
        self.withheld = opened.withheld().cloned().unwrap_or_default();
        let forwarded = Forwarded::from(Fwd::Miss);
        match &*opened {
            Opened::Stored { .. } | Opened::Confirmed { .. } | Opened::Stale { .. } => {
                self.answer_opened(&opened, forwarded).await
            }
            Opened::Private { head, span, body, .. } => {
                self.answer_alone(head, *span, taken(body), forwarded).await
            }
            Opened::Unsatisfiable { length_bytes }
                if wanted.range.is_some() && self.may_be_satisfied(*length_bytes) =>
            {
                Box::pin(self.ask_alone(Wanted { range: None, if_range: None, ..wanted })).await
            }
            Opened::Unsatisfiable { length_bytes } => {
                Err(DeliveryError::Unsatisfiable { length_bytes: *length_bytes })
            }
            Opened::Failed(error) => Err(DeliveryError::Fill(error.clone())),
        }
    }

    /// Answers with what upstream was asked about, if it is this viewer's variant.
    async fn answer_opened(
        &mut self,
        opened: &Opened,
        forwarded: Forwarded,
    ) -> Result<Attempt, DeliveryError> {
        let (head, fwd_status) = match opened {
            Opened::Stored { head, run, .. } => {
                let brought = |reader: &Reader| reader.run().standing().bounds.all();
                self.filled = run.as_ref().map(brought).unwrap_or_default();
                (head, None)
            }
            Opened::Confirmed { head, .. } => (head, Some(StatusCode::NOT_MODIFIED)),
            _ => return Ok(Attempt::Alone),
        };
        // A 304 answers the one who asked, whatever it says of who else may be given this.
        let is_told = fwd_status.is_some() && !forwarded.collapsed;
        if !is_told && !head.is_selected_by(&self.viewer.parts.headers) {
            return Ok(Attempt::Alone);
        }
        self.record.found(match (fwd_status, forwarded.collapsed) {
            (Some(_), _) => Lookup::Revalidated,
            (None, true) => Lookup::Collapsed,
            (None, false) => Lookup::Miss,
        });
        let ttl = Some(head.freshness.ttl_seconds(self.viewer.time));
        let stored = fwd_status.is_none() && !forwarded.collapsed;
        let found = Found::Asked(Forwarded { stored, fwd_status, ttl, ..forwarded });
        self.answer(head.clone(), found).await
    }

    /// HEAD: from what is known and fresh, else asked upstream and passed on.
    pub(super) async fn answer_head(&mut self) -> Result<Reply, DeliveryError> {
        let (head, found) = match self.known().await? {
            Known::Variant(head) => match self.reuse(&head) {
                Reuse::Now => (head, Found::Stored),
                Reuse::WhileRevalidated => {
                    self.refresh(head.clone());
                    (head, Found::Stored)
                }
                Reuse::OnceConfirmed(reason) => self.ask_head(Some(head), reason).await?,
            },
            Known::Nothing => self.ask_head(None, Fwd::UriMiss).await?,
            Known::OtherVariants => self.ask_head(None, Fwd::VaryMiss).await?,
            Known::Uncacheable => self.ask_head(None, Fwd::Miss).await?,
        };
        self.record.found(match found {
            Found::Stored => Lookup::Hit,
            Found::Asked(_) => Lookup::Miss,
        });
        let reply = self.reply_without_body(&head, found)?;
        Ok(reply.saying(take(&mut self.withheld)))
    }

    async fn ask_head(
        &mut self,
        stale: Option<Arc<Head>>,
        reason: Fwd,
    ) -> Result<(Arc<Head>, Found), DeliveryError> {
        let mut wanted = self.wanted(stale)?;
        wanted.ask.method = http::Method::HEAD;
        self.viewer.count_origin_requests(1);
        let (opened, _) = self.shared.filler.open_alone(wanted).await;
        self.viewer.tell(|| Decision::of("origin", opened_as(&opened)).because("asked by HEAD"));
        self.withheld = opened.withheld().cloned().unwrap_or_default();
        match &*opened {
            Opened::Stored { head, .. }
            | Opened::Confirmed { head, .. }
            | Opened::Private { head, .. } => Ok((head.clone(), Found::Asked(reason.into()))),
            Opened::Stale { head, status } => {
                let forwarded = Forwarded { fwd_status: *status, ..reason.into() };
                Ok((head.clone(), Found::Asked(forwarded)))
            }
            Opened::Unsatisfiable { length_bytes } => {
                Err(DeliveryError::Unsatisfiable { length_bytes: *length_bytes })
            }
            // What it was asked about is forgotten by now.
            Opened::Failed(error) if matches!(**error, FillError::Changed) => {
                Box::pin(self.ask_head(None, reason)).await
            }
            Opened::Failed(error) => Err(DeliveryError::Fill(error.clone())),
        }
    }

    /// The question for the origin.
    ///
    /// # Errors
    /// `OnlyIfCached`: no origin is to be asked.
    pub(super) fn wanted(&self, stale: Option<Arc<Head>>) -> Result<Wanted, DeliveryError> {
        let asked = &self.asked;
        if asked.control.only_if_cached {
            return Err(DeliveryError::OnlyIfCached);
        }
        Ok(Wanted {
            key: asked.key.clone(),
            site: asked.site.clone(),
            path: asked.path.clone(),
            ask: self.shared.ask(self.viewer, &asked.site, &asked.key),
            viewer_fields: self.viewer.parts.headers.clone(),
            range: self.range_wanted(),
            if_range: None,
            window_bytes: self.shared.filler.window_bytes,
            bypassed_bytes: self.bypassed_bytes,
            stale,
            has_authorization: asked.has_authorization,
            no_store: asked.control.no_store,
        })
    }
}

fn known_as(known: &Known) -> &'static str {
    match known {
        Known::Nothing => "is not known in ram",
        Known::OtherVariants => "has other variants",
        Known::Variant(_) => "is known",
        Known::Uncacheable => "may not be shared",
    }
}

fn recalled_as<E>(recalled: &Result<(Recalled, Option<u64>), E>) -> &'static str {
    match recalled {
        Ok((Recalled::Found, _)) => "know it",
        Ok((Recalled::NotHeld, _)) => "do not know it",
        Ok((Recalled::Ill, _)) => "are ill: the origin is asked instead",
        Ok((Recalled::NoMemory, _)) => "cannot be read: there is no memory",
        Err(_) => "did not answer in time",
    }
}

fn opened_as(opened: &Opened) -> Text {
    match opened {
        Opened::Stored { .. } => "answered, and it is kept".into(),
        Opened::Confirmed { .. } => "says that it is still good".into(),
        Opened::Stale { .. } => "failed, and what is stale serves".into(),
        Opened::Private { .. } => "answered for one viewer".into(),
        Opened::Unsatisfiable { .. } => "has no such range".into(),
        Opened::Failed(error) => Text::Written(format!("failed: {error}").into()),
    }
}

fn overload(what: &'static str) -> DeliveryError {
    DeliveryError::Fill(Arc::new(FillError::Overload { what }))
}

/// The body of an answer for one viewer, which he takes.
fn taken(body: &Mutex<Option<Reader>>) -> Option<Reader> {
    body.lock().unwrap_or_else(PoisonError::into_inner).take()
}
