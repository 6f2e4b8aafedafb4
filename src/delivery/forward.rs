//! Requests that are not GET or HEAD: what a rule passes on, PURGE, and a browser's question.
//!
//! What is passed on is nobody else's: neither the request nor the answer is looked up or kept.

use std::rc::Rc;
use std::sync::Arc;

use http::header::{CONTENT_LENGTH, EXPECT, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Response, StatusCode, Version};
use hyper::body::{Body, Incoming};

use crate::access_log::REQUEST_ID_FIELD;
use crate::delivery::body::ViewerBody;
use crate::delivery::door::Named;
use crate::delivery::error::DeliveryError;
use crate::delivery::record::Record;
use crate::delivery::viewer::Viewer;
use crate::delivery::{Delivery, Done};
use crate::fill::client::{OnceAnswer, Pace, RequestBody};
use crate::fill::error::{BodyFault, FillError};
use crate::fill::forward::Forward;
use crate::message::cache_status::{CacheStatus, Forwarded, Fwd};
use crate::message::cors;
use crate::message::head::HeadFault;
use crate::message::invalidation::UriOrigin;
use crate::message::passed;
use crate::message::request::{PassedRequest, RequestError, host_of};
use crate::message::target::canonical_target;
use crate::object::ObjectKey;
use crate::server::{BodyRead, leave};
use crate::site::{Rule, Scheme, Site};

/// An origin's answer on its way to the viewer.
pub(super) struct Passed {
    answer: OnceAnswer,
    fields: HeaderMap,
}

impl Delivery {
    /// Does what is asked by another method than GET and HEAD.
    pub(super) async fn act(
        &self,
        viewer: &Rc<Viewer>,
        body: Incoming,
        record: &mut Record,
    ) -> Result<Done, DeliveryError> {
        let parts = &viewer.parts;
        if let Some(fields) = self.preflight(parts, &body, record) {
            return Ok(Done::Preflight(fields));
        }
        let site = self.site_of(parts);
        let rule = site.as_ref().map(|(site, path)| (site, site.rule_for(path)));
        match rule {
            _ if parts.method.as_str() == "PURGE" => {
                let purged = self.purge(viewer, &body, record).await;
                leave(body, parts.version);
                purged.map(|()| Done::Purged)
            }
            Some((site, rule)) if rule.methods.pass(&parts.method) => {
                self.pass_on(viewer, body, record, (site, rule)).await
            }
            _ => {
                let read = self.read(viewer, &body, record);
                leave(body, parts.version);
                read.and(Err(DeliveryError::Request(RequestError::MethodRefused)))
            }
        }
    }

    /// What may be asked by, where this asks.
    pub(super) fn allowed(&self, parts: &Parts) -> HeaderValue {
        let site = self.site_of(parts);
        let methods = site.map(|(site, path)| site.rule_for(&path).methods.clone());
        methods.unwrap_or_default().allow().clone()
    }

    /// The answer to a browser's question what a page may ask for, where a rule has one.
    fn preflight(&self, parts: &Parts, body: &Incoming, record: &mut Record) -> Option<HeaderMap> {
        let sound = || body.is_end_stream() && parts.extensions.get::<HeadFault>().is_none();
        if !cors::is_preflight(&parts.method, &parts.headers) || !sound() {
            return None;
        }
        let (site, path) = self.site_of(parts)?;
        let rule = site.rule_for(&path);
        let cors = rule.cors.as_ref()?;
        record.host = host_of(parts).ok()?.into_owned();
        record.site = Some(site.clone());
        Some(cors::preflight(cors, &rule.methods, &parts.headers))
    }

    async fn pass_on(
        &self,
        viewer: &Rc<Viewer>,
        body: Incoming,
        record: &mut Record,
        (site, rule): (&Arc<Site>, &Rule),
    ) -> Result<Done, DeliveryError> {
        let (parts, shared) = (&viewer.parts, &self.shared);
        (record.cors, record.site) = (rule.cors.clone(), Some(site.clone()));
        let request = match self.passed(viewer, record, (site, rule)) {
            Ok(request) => request,
            Err(error) => {
                leave(body, parts.version);
                return Err(error);
            }
        };
        let target = canonical_target(&request.path, request.query, &rule.query, rule.content);
        let key = ObjectKey::new(site.id, &target);
        (record.cmsd, record.key) = (rule.cmsd, Some(key.clone()));
        let mut fields = passed::request_fields(&parts.headers, rule);
        if !passed::may_go_on(&parts.method, &mut fields) {
            leave(body, parts.version);
            return Ok(Done::Options(rule.methods.allow().clone()));
        }
        fields.insert(REQUEST_ID_FIELD, viewer.request_id.to_header_value());
        let scheme = if viewer.connection.tls.is_some() { Scheme::Https } else { Scheme::Http };
        let port = request.port.unwrap_or(scheme.default_port());
        let forward = Forward {
            site: site.clone(),
            key,
            origin: UriOrigin { scheme, host: request.host.into_owned(), port },
            method: parts.method.clone(),
            fields,
            expects_continue: parts.version > Version::HTTP_10
                && parts.headers.contains_key(EXPECT),
            body: self.taken(body, parts.version, rule)?,
        };
        viewer.count_origin_requests(1);
        let failed = |error| DeliveryError::Fill(Arc::new(error));
        let answer = shared.filler.forward(forward).await.map_err(failed)?;
        let fields = passed::answer_fields(&answer.fields, rule);
        Ok(Done::Passed(Box::new(Passed { answer, fields })))
    }

    /// What is to be passed on, if it may be.
    fn passed<'a>(
        &self,
        viewer: &'a Viewer,
        record: &mut Record,
        (site, rule): (&Site, &Rule),
    ) -> Result<PassedRequest<'a>, DeliveryError> {
        let parts = &viewer.parts;
        let request = PassedRequest::parse(parts).map_err(DeliveryError::Request)?;
        record.host = request.host.to_string();
        if self.shared.filler.client.via().has_passed(&parts.headers) {
            return Err(DeliveryError::Loop);
        }
        if viewer.connection.is_for_another(&request.host) {
            return Err(DeliveryError::OtherHost);
        }
        let (host, path) = (&*request.host, &*request.path);
        let (port, query) = (request.port, request.query);
        let object = &*canonical_target(path, query, &rule.query, rule.content);
        let named = Named { site: site.id, host, port, path, query, object };
        self.let_in(viewer, record, rule, &named)?;
        viewer.reserve(self.shared.governor.of(site.id))?;
        Ok(request)
    }

    /// The viewer's body, if it is none that is too long already.
    fn taken(
        &self,
        body: Incoming,
        version: Version,
        rule: &Rule,
    ) -> Result<RequestBody, DeliveryError> {
        let bytes_max = rule.request_body_bytes_max;
        if body.size_hint().lower() > bytes_max {
            leave(body, version);
            let error = FillError::RequestBody(BodyFault::TooLong);
            return Err(DeliveryError::Fill(Arc::new(error)));
        }
        let limits = self.shared.limits.load();
        let pace = Pace { bytes: limits.slow_reader_bytes, period: limits.slow_reader_period };
        Ok(RequestBody::new(body, version, bytes_max, pace))
    }
}

impl Passed {
    /// The response hyper sends; the record is written when its body ends.
    pub(super) fn with(self, mut record: Record) -> Response<ViewerBody> {
        let Passed { answer, mut fields } = self;
        let status = answer.status;
        let forwarded = Forwarded { fwd_status: Some(status), ..Forwarded::from(Fwd::Method) };
        let told = CacheStatus::Fwd(forwarded);
        told.append_to(&mut fields);
        record.cache = Some(told.to_header());
        record.answered(status);
        let is_read = answer.is_read;
        let body = match passed::has_body(status) {
            true => ViewerBody::passed(record, answer.body),
            false => ViewerBody::empty(record),
        };
        if status == StatusCode::RESET_CONTENT {
            // RFC 9110 section 15.3.6.
            fields.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = fields;
        if is_read {
            response.extensions_mut().insert(BodyRead);
        }
        response
    }
}
