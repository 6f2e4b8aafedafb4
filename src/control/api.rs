//! What the admin listener answers: metrics, health, status, explanations, and where the rest is.
//!
//! Read-only: GET and HEAD, but for `/purge`, `/reload`, `/upgrade`, `/drain` and `/undrain`. These
//! have files of their own, and what is told of requests is in `log.rs`; who may ask what is in
//! `asking.rs`. Nothing here waits for a viewer or a fill, and nothing but an explanation, a purge,
//! a reload or an upgrade for a disk: it answers while the appliance is overloaded. `openapi.json`
//! beside it says all of that to programs.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use http::header::{
    ACCEPT, ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ORIGIN,
    WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use serde::Serialize;

use super::asking::{
    AskedBody, From, JSON, Said, is_of_another_site, may_look, may_look_closely, may_operate,
    may_purge, may_read_of_requests, refusal,
};
use super::drain::Drainer;
use super::explained::{ExplainSource, Unexplained};
use super::history::History;
use super::log::{LiveLog, LogSource};
use super::page::{HTML, PAGE};
use super::purge::Purger;
use super::reload::{Order, Reloader};
use super::status::{Detail, Status, StatusSource};
use super::usage::UsageSource;
use super::{Phase, Readiness, page};
use crate::metrics::{Format, Metrics};
use crate::purge::Tokens;
use crate::server::{ConnectionFacts, Handler};

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// What everybody may ask: load balancers, who wants to know what there is to be asked, and for the
/// page, which shows nothing to who may not look.
const OPEN: [&str; 4] = ["/", "/health/live", "/health/ready", "/openapi.json"];
/// What no page in a browser of this machine is told that asks by a name of its own.
const CLOSELY: [&str; 2] = ["/status.json", "/history.json"];
/// What is done for operators.
const DONE: [&str; 5] = ["/purge", "/reload", "/upgrade", "/drain", "/undrain"];
/// What is looked for, or followed, when somebody asks.
const SEARCHED: [&str; 4] = ["/log", "/session", "/top", "/usage"];
const OPENAPI: &str = include_str!("openapi.json");

/// The admin listener's handler; one serves any number of connections.
pub struct Admin {
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Whether viewers are wanted.
    pub readiness: Readiness,
    /// Whose word counts.
    pub tokens: Arc<ArcSwapOption<Tokens>>,
    /// What the status page shows.
    pub status: StatusSource,
    /// What is told of one object.
    pub explain: ExplainSource,
    /// Who purges.
    pub purger: Purger,
    /// Who reloads.
    pub reloader: Reloader,
    /// Who plans drains.
    pub drainer: Drainer,
    /// What is told of requests.
    pub log: LogSource,
    /// What each site was served.
    pub usage: UsageSource,
    /// What the status page draws.
    pub history: Rc<History>,
}

/// What is sent: a page, or the log as it comes.
pub type AdminBody = Either<Full<Bytes>, LiveLog>;

impl Admin {
    /// Answers one request, of who asks from there; its body is read of a purge and a drain alone.
    /// Safe to drop.
    pub async fn answer<B: AskedBody>(
        &self,
        request: Request<B>,
        from: From,
    ) -> Response<AdminBody> {
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        let path = request.uri().path();
        // The fields of a request for /explain are those of the one that is explained.
        let is_open = ["/metrics", "/explain"].contains(&path) || OPEN.contains(&path);
        if !is_open && is_of_another_site(request.headers()) {
            let text = "a page of another site asks, which a browser shows; ask by `tidegate`, \
                        curl, or the page that is here at /";
            return told(refusal(StatusCode::FORBIDDEN, text)).map(Either::Left);
        }
        if is_of_a_page(&request) && !self.may_page(request.headers()) {
            let text = "a page that a browser shows has nothing done without the token; ask by \
                        `tidegate` or curl";
            return told(refusal(StatusCode::FORBIDDEN, text)).map(Either::Left);
        }
        if DONE.contains(&path) {
            let done = self.have_done(request, from).await;
            return told(done.unwrap_or_else(|refusal| refusal)).map(Either::Left);
        }
        if is_read && SEARCHED.contains(&path) {
            let found = self.search(&request, from).await;
            return found.unwrap_or_else(|refusal| told(refusal).map(Either::Left));
        }
        self.page(request, from).await.map(Either::Left)
    }

    /// Has it done, for who may.
    async fn have_done<B: AskedBody>(&self, request: Request<B>, from: From) -> Result<Said, Said> {
        let (path, fields) = (request.uri().path(), request.headers());
        if request.method() != Method::POST {
            return Err(refusal(StatusCode::METHOD_NOT_ALLOWED, &format!("send POST {path}")));
        }
        let tokens = self.tokens.load_full();
        if path == "/purge" {
            let by = may_purge(&tokens, fields)?;
            return self.purger.purge(request, &by).await;
        }
        may_operate(path, &tokens, fields, from)?;
        match path {
            "/reload" => self.reloader.have_done(Order::Reload).await,
            "/upgrade" => self.reloader.have_done(Order::Upgrade).await,
            _ => self.drainer.drain(request).await,
        }
    }

    /// Tells who may of requests, and of usage.
    async fn search<B>(
        &self,
        request: &Request<B>,
        from: From,
    ) -> Result<Response<AdminBody>, Said> {
        let (path, fields) = (request.uri().path(), request.headers());
        let tokens = self.tokens.load_full();
        match path {
            "/usage" => may_look_closely(&tokens, fields, from)?,
            _ => may_read_of_requests(&tokens, fields, from)?,
        }
        let said = match path {
            "/log" => return Ok(self.log.follow(request)?.map(Either::Right)),
            "/session" => self.log.session(request).await,
            "/top" => self.log.top(request).await,
            _ => self.usage.answer(request).await,
        };
        Ok(told(said?).map(Either::Left))
    }

    async fn page<B>(&self, request: Request<B>, from: From) -> Response<Full<Bytes>> {
        let send_body = match *request.method() {
            Method::GET => SendBody::Yes,
            Method::HEAD => SendBody::No,
            _ => return self.method_not_allowed(),
        };
        let (path, fields) = (request.uri().path(), request.headers());
        let tokens = self.tokens.load();
        let may = match path {
            path if OPEN.contains(&path) => Ok(()),
            path if CLOSELY.contains(&path) => may_look_closely(&tokens, fields, from),
            "/explain" => may_read_of_requests(&tokens, fields, from),
            _ => may_look(&tokens, fields, from),
        };
        if let Err(refusal) = may {
            return told(refusal);
        }
        let page = match path {
            "/" => return status_page(send_body),
            "/metrics" => self.measured(request.headers()),
            "/health/live" => Page::new(StatusCode::OK, TEXT, "live\n"),
            "/health/ready" => ready_page(self.readiness.phase()),
            "/status.json" => Page::json(StatusCode::OK, &self.status(request.uri(), fields, from)),
            "/history.json" => Page::json(StatusCode::OK, &self.history.told(Instant::now())),
            "/openapi.json" => Page::new(StatusCode::OK, JSON, OPENAPI),
            "/explain" => self.explained(request.into_parts().0).await,
            _ => Page::new(StatusCode::NOT_FOUND, TEXT, "not found\n"),
        };
        page.into_response(send_body)
    }

    fn method_not_allowed(&self) -> Response<Full<Bytes>> {
        let page = Page::new(StatusCode::METHOD_NOT_ALLOWED, TEXT, "method not allowed\n");
        let mut response = page.into_response(SendBody::Yes);
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        response
    }

    /// Every series, in the format that is asked for.
    fn measured(&self, asked: &HeaderMap) -> Page {
        let accept = asked.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let format = Format::of_accept(&accept.collect::<Vec<_>>().join(","));
        let content_type = HeaderValue::from_static(format.content_type());
        Page::new(StatusCode::OK, content_type, self.metrics.encode(format))
    }

    /// What is told of `/explain?url=URL`, asked with the other fields of this request. The URL is
    /// all that follows, as it is.
    async fn explained(&self, mut head: Parts) -> Page {
        let url = head.uri.query().and_then(|query| query.strip_prefix("url="));
        let Some(url) = url.and_then(|url| url.parse::<Uri>().ok()) else {
            let error = Unexplained {
                error: "ask for /explain?url=https://host/path, with the fields of the request"
                    .to_owned(),
            };
            return Page::json(StatusCode::BAD_REQUEST, &error);
        };
        head.uri = url;
        if self.tokens.load().is_some() {
            // It is for us.
            head.headers.remove(AUTHORIZATION);
        }
        match (self.explain)(head).await {
            Ok(explanation) => Page::json(StatusCode::OK, &explanation),
            Err(error) => Page::json(StatusCode::NOT_FOUND, &error),
        }
    }

    /// Runs, requests and objects are told to who may read of requests alone.
    fn status(&self, asked: &Uri, fields: &HeaderMap, from: From) -> Status {
        let tokens = self.tokens.load();
        let is_brief =
            asked.query() == Some("brief") || may_read_of_requests(&tokens, fields, from).is_err();
        Status {
            phase: self.readiness.phase().word(),
            has_tokens: tokens.is_some(),
            ..(self.status)(if is_brief { Detail::Brief } else { Detail::Whole })
        }
    }

    /// Whether a page may have something done: it shows a token, and there are tokens to be shown.
    /// Where there is none, every token would do, and any page could make one up.
    fn may_page(&self, fields: &HeaderMap) -> bool {
        fields.contains_key(AUTHORIZATION) && self.tokens.load().is_some()
    }
}

impl Handler for Admin {
    type Body = AdminBody;

    async fn handle(
        &self,
        request: Request<Incoming>,
        connection: &Rc<ConnectionFacts>,
    ) -> Response<AdminBody> {
        let ip = connection.viewer.ip().to_canonical();
        // Who asks an address of this machine from it has that one too.
        let is_local = ip.is_loopback() || ip == connection.local.ip().to_canonical();
        self.answer(request, if is_local { From::Here } else { From::Elsewhere }).await
    }
}

/// Whether a page in a browser asks for something to be done: a name that leads to this machine all
/// of a sudden makes any page one of ours, but browsers say whose it is (Fetch section 3.2).
fn is_of_a_page<B>(request: &Request<B>) -> bool {
    !request.method().is_safe() && request.headers().contains_key(ORIGIN)
}

fn status_page(send_body: SendBody) -> Response<Full<Bytes>> {
    let mut response = Page::new(StatusCode::OK, HTML, PAGE).into_response(send_body);
    page::guard(response.headers_mut());
    response
}

/// The answer to who asked for something to be done: one line of JSON.
fn told((status, value): Said) -> Response<Full<Bytes>> {
    let page = Page::new(status, JSON, format!("{value}\n"));
    let mut response = page.into_response(SendBody::Yes);
    let fields = response.headers_mut();
    match status {
        StatusCode::UNAUTHORIZED => {
            fields.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            fields.insert(ALLOW, HeaderValue::from_static("POST"));
        }
        _ => {}
    }
    response
}

/// A load balancer takes an appliance out on any code but 200.
fn ready_page(phase: Phase) -> Page {
    let status = match phase {
        Phase::Ready => StatusCode::OK,
        Phase::Starting | Phase::Draining | Phase::Drained => StatusCode::SERVICE_UNAVAILABLE,
    };
    Page::new(status, TEXT, format!("{}\n", phase.word()))
}

/// Whether the body is sent or only described.
enum SendBody {
    Yes,
    No,
}

struct Page {
    status: StatusCode,
    content_type: HeaderValue,
    body: Bytes,
}

impl Page {
    fn json(status: StatusCode, value: &impl Serialize) -> Page {
        let text = serde_json::to_string(value);
        Page::new(status, JSON, text.expect("it is made of strings, numbers and lists"))
    }

    fn new(status: StatusCode, content_type: HeaderValue, body: impl Into<Bytes>) -> Page {
        Page { status, content_type, body: body.into() }
    }

    fn into_response(self, send_body: SendBody) -> Response<Full<Bytes>> {
        let length = self.body.len();
        let mut response = Response::new(match send_body {
            SendBody::Yes => Full::new(self.body),
            SendBody::No => Full::default(),
        });
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, self.content_type);
        headers.insert(CONTENT_LENGTH, length.into());
        // Always this moment's, and paths in it are whatever viewers asked for.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::{BodyExt, Empty};
    use serde_json::{Value, json};
    use tokio::sync::{Semaphore, mpsc};

    use super::*;
    use crate::access_log::{AccessLog, Destination, Recent, Settings};
    use crate::control::explained::Explaining;
    use crate::control::purge::Found;
    use crate::control::status::{BlockStatus, ObjectStatus, RunStatus, SsdStatus};
    use crate::memory::Governor;
    use crate::metrics::labels::{Lookup, Tier, Wait};
    use crate::metrics::ssd::{Latency, SsdSample, VolumeSample};
    use crate::object::PieceMap;
    use crate::purge::Purges;
    use crate::site::CurrentSites;

    fn admin() -> Admin {
        let metrics = Metrics::new();
        let counters = metrics.for_thread();
        counters.lookups.count(Lookup::Hit);
        counters.sites.none().body_bytes.add(Tier::Ram, 65_536);
        counters.observe_first_byte(Wait::Hit, Duration::from_micros(200));
        let for_status = Arc::clone(&metrics);
        let status = move |detail| Status {
            uptime_seconds: 12,
            ssd: Some(SsdStatus::of(&tier())),
            runs: match detail {
                Detail::Brief => Vec::new(),
                Detail::Whole => vec![RunStatus {
                    path: "/b.m4s".to_owned(),
                    first: 65_536,
                    end: None,
                    written_bytes: 10,
                    viewers: 2,
                }],
            },
            objects: vec![ObjectStatus {
                path: "/a.m4s".to_owned(),
                length_bytes: Some(3 << 20),
                block_size_bytes: 1 << 20,
                blocks: vec![BlockStatus::new(2, PieceMap::run(0, 16))],
            }],
            ..Status::counted(&for_status.totals())
        };
        let explain = |head: Parts| -> Explaining {
            let error = format!("asked for {} with {:?}", head.uri, head.headers.get("range"));
            Box::pin(async { Err(Unexplained { error }) })
        };
        let sites = Arc::<CurrentSites>::default();
        let (purges, _) = Purges::start(sites.clone(), None).unwrap();
        let find = Arc::new(|_: &_| Found::default());
        let look = || Semaphore::new(1);
        let purger = Purger { purges, sites: sites.clone(), find, look: Arc::new(look()) };
        let reloader = Reloader { ask: mpsc::channel(1).0 };
        let (status, explain) = (Box::new(status), Box::new(explain));
        let drainer = Drainer { planning: Box::new(|_| Ok(None)) };
        let readiness = Readiness::new();
        let settings = Settings::of(Destination::Off, Recent::NotKept);
        let (log, _) = AccessLog::start(&settings).unwrap();
        let governor = Governor::new(0, 0, Arc::default());
        let usage = UsageSource { usage: None, sites, governor: governor.clone(), look: look() };
        let log = LogSource { log, governor, look: look() };
        let history = Rc::default();
        Admin {
            metrics,
            readiness,
            tokens: Arc::default(),
            status,
            explain,
            purger,
            reloader,
            drainer,
            log,
            history,
            usage,
        }
    }

    const BOUNDS: &[Duration] = &[Duration::from_millis(1)];

    /// One volume that has failed.
    fn tier() -> SsdSample {
        let volume = VolumeSample {
            volume: "nvme0n1".to_owned(),
            engine: "uring",
            state: "read-only",
            why: Some("20 writes failed".to_owned()),
            size_bytes: Some(1 << 40),
            writes_per_day_bytes: Some(1 << 39),
            used_bytes: 1 << 30,
            reads: vec![("viewer", 3), ("promote", 2)],
            read_latency: Latency {
                bounds: BOUNDS,
                counts: vec![5, 0],
                sum: Duration::from_millis(2),
            },
            written: vec![("demand", 4), ("reappend", 3)],
            life_days: Some(12.5),
            ..VolumeSample::default()
        };
        SsdSample {
            admitted: 1,
            rejected: vec![("once", 2)],
            volumes: vec![volume],
            ..SsdSample::default()
        }
    }

    /// Status, body and the answer's head.
    async fn ask(admin: &Admin, method: &str, target: &str) -> (u16, String, Response<()>) {
        let request = Request::builder().method(method).uri(target);
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let (parts, body) = admin.answer(request, From::Here).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(body.to_vec()).unwrap();
        (parts.status.as_u16(), text, Response::from_parts(parts, ()))
    }

    /// The status for who asks from another machine, and shows a token or none.
    async fn from_elsewhere(admin: &Admin, method: &str, target: &str, token: &str) -> u16 {
        asked(admin, method, target, (From::Elsewhere, token)).await.0
    }

    /// Status and body for who asks from there, and shows a token or none.
    async fn asked(
        admin: &Admin,
        method: &str,
        target: &str,
        (from, token): (From, &str),
    ) -> (u16, Bytes) {
        let request = Request::builder().method(method).uri(target);
        let request = request.header("authorization", format!("Bearer {token}"));
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let (head, body) = admin.answer(request, from).await.into_parts();
        (head.status.as_u16(), body.collect().await.unwrap().to_bytes())
    }

    #[tokio::test]
    async fn who_may_not_read_of_requests_is_told_of_none_in_the_status() {
        let admin = admin();
        let operator = "an-operators-token";
        let is_told = async |from, token| {
            let (status, body) = asked(&admin, "GET", "/status.json", (from, token)).await;
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!((status, &body["uptime_seconds"]), (200, &json!(12)));
            body["runs"] != json!([])
        };
        assert!(is_told(From::Here, "no").await);
        assert!(!is_told(From::Elsewhere, "no").await);
        admin.tokens.store(Some(Arc::new(Tokens::of(operator).unwrap())));
        assert!(!is_told(From::Here, "no").await);
        assert!(!is_told(From::Elsewhere, "no").await);
        assert!(is_told(From::Here, operator).await && is_told(From::Elsewhere, operator).await);
    }

    #[tokio::test]
    async fn who_asks_from_elsewhere_shows_a_token_where_viewers_have_one() {
        let admin = admin();
        let tokens = |text: &str| {
            admin.tokens.store(Some(Arc::new(Tokens::of(text).unwrap())));
        };
        let (operator, viewer) = ("an-operators-token", "a-viewers-own-token");
        // Nobody's, then operators' alone: whoever reaches the listener may look.
        assert_eq!(from_elsewhere(&admin, "GET", "/status.json", "no").await, 200);
        assert_eq!(from_elsewhere(&admin, "POST", "/purge", "no").await, 403);
        assert_eq!(from_elsewhere(&admin, "POST", "/reload", "no").await, 403);
        let document: Value = serde_json::from_str(OPENAPI).unwrap();
        for (path, of) in document["paths"].as_object().unwrap() {
            for (method, of) in of.as_object().unwrap() {
                // Without a token what is told of requests, and what is done, is for who is here.
                // To look at more than metrics is refused by a name alone.
                let is_looked_at = path == "/usage" || CLOSELY.contains(&path.as_str());
                let refuses = !of["responses"]["403"].is_null() && !is_looked_at;
                let status = from_elsewhere(&admin, &method.to_uppercase(), path, "no").await;
                assert_eq!(status == 403, refuses, "{method} {path}: {status}");
            }
        }
        tokens(operator);
        assert_eq!(from_elsewhere(&admin, "GET", "/status.json", "no").await, 200);
        assert_eq!(from_elsewhere(&admin, "POST", "/reload", "no").await, 401);
        tokens(&format!("operator anna {operator}\nviewer grafana {viewer}"));
        for (path, of) in document["paths"].as_object().unwrap() {
            let shown = |token: &'static str| from_elsewhere(&admin, "GET", path, token);
            let may = [shown("no").await, shown(viewer).await, shown(operator).await];
            let refuses = !of["get"]["responses"]["401"].is_null();
            assert_eq!(may.map(|status| status == 401), [refuses, false, false], "{path}: {may:?}");
            let is_told = of["get"]["security"].as_array().is_some_and(|ways| !ways.is_empty());
            assert_eq!(is_told, refuses, "{path}: who may is what the document says");
            let mut may = [0; 3];
            for (status, token) in may.iter_mut().zip(["no", viewer, operator]) {
                *status = from_elsewhere(&admin, "POST", path, token).await;
            }
            let expected = if of["post"].is_null() { [405, 405] } else { [401, 403] };
            assert_eq!(may[..2], expected, "{path}");
            assert!(may[2] != 401 && may[2] != 403, "{path}: {may:?}");
        }
        // What is not there is told to nobody either.
        assert_eq!(from_elsewhere(&admin, "GET", "/nothing", "no").await, 401);
    }

    #[test]
    fn every_path_of_the_server_stands_in_the_document() {
        let document: Value = serde_json::from_str(OPENAPI).unwrap();
        let documented = document["paths"].as_object().unwrap();
        let code = include_str!("api.rs").split("#[cfg(test)]").next().unwrap();
        let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        let mut paths = 0;
        for line in code {
            let texts = line.split('"').skip(1).step_by(2);
            for path in texts.filter(|text| text.starts_with('/')) {
                assert!(documented.contains_key(path), "{path} is not in openapi.json");
                paths += 1;
            }
        }
        assert!(paths >= documented.len(), "it reads the paths");
    }

    async fn get(admin: &Admin, target: &str) -> (u16, String) {
        let (status, body, _) = ask(admin, "GET", target).await;
        (status, body)
    }

    #[tokio::test]
    async fn metrics_are_prometheus_text() {
        let (status, body, head) = ask(&admin(), "GET", "/metrics?any=thing").await;
        assert_eq!(status, 200);
        assert_eq!(head.headers()[CONTENT_TYPE], "text/plain; version=0.0.4");
        assert!(body.contains("tidegate_lookups_total{result=\"hit\"} 1\n"), "{body}");
    }

    #[tokio::test]
    async fn health_says_live_always_and_ready_only_while_it_is() {
        let admin = admin();
        assert_eq!(get(&admin, "/health/ready").await, (503, "starting\n".to_owned()));
        admin.readiness.set_ready();
        assert_eq!(get(&admin, "/health/ready").await, (200, "ready\n".to_owned()));
        for (phase, told) in [(Phase::Draining, "draining\n"), (Phase::Drained, "drained\n")] {
            admin.readiness.turn(phase);
            assert_eq!(get(&admin, "/health/ready").await, (503, told.to_owned()));
        }
        assert_eq!(get(&admin, "/health/live").await, (200, "live\n".to_owned()));
    }

    #[tokio::test]
    async fn status_is_what_the_page_reads() {
        let (status, body) = get(&admin(), "/status.json").await;
        let body: Value = serde_json::from_str(&body).unwrap();
        let errors = json!({
            "bad_digest": 0, "bad_range": 0, "changed": 0, "closed": 0, "connect": 0,
            "status": 0, "timeout_first_byte": 0, "timeout_progress": 0,
        });
        let ssd = json!({
            "admitted": 1, "rejected": { "once": 2 }, "bypassed_bytes": 0, "shadows": [],
            "volumes": [{
                "name": "nvme0n1", "state": "read-only", "why": "20 writes failed",
                "notice": null, "heads_in_doubt": false,
                "regions": {}, "engine": "uring",
                "size_bytes": 1u64 << 40, "used_bytes": 1 << 30,
                "records": 0, "reads": 5, "writes": 0, "read_bytes": 0, "written_bytes": 7,
                "errors": 0, "queue_depth": 0, "read_p99_us": 1_000,
                "written_today_bytes": 0,
                "writes_per_day_bytes": 1u64 << 39, "life_days": 12.5,
            }],
        });
        let overload = json!({
            "refused": {}, "refused_memory": {}, "pressure": {},
            "egress_max_bytes_per_second": null, "is_near_egress": false,
        });
        let expected = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "phase": "starting",
            "drain": null,
            "fleet": null,
            "control": null,
            "predecessor": null,
            "uptime_seconds": 12,
            "has_tokens": false,
            "config": { "read_at": 0, "is_refused": false, "certificates": {}, "orders": [] },
            "requests": 0,
            "responses": { "2xx": 0, "3xx": 0, "4xx": 0, "5xx": 0, "other": 0 },
            "bodies": { "complete": 0, "client_left": 0, "cut_short": 0 },
            "lookups": {
                "hit": 1, "hit_ssd": 0, "miss": 0, "partial": 0, "revalidated": 0,
                "collapsed": 0, "uncacheable": 0, "stale": 0,
            },
            "bytes": { "ram": 65_536, "ssd": 0, "fill": 0, "pass": 0 },
            "ttfb": { "p50_us": 175, "p90_us": 235 },
            "origin": { "requests": 0, "bytes": 0, "errors": errors },
            "origins": [],
            "sites": [],
            "overload": overload,
            "memory": { "total_bytes": 0, "by_use": {}, "budget_by_use": {} },
            "ssd": ssd,
            "shipping": null,
            "connections": 0,
            "connections_max": 0,
            "shares": [],
            "runs": [
                { "path": "/b.m4s", "first": 65_536, "end": null, "written_bytes": 10,
                  "viewers": 2 },
            ],
            "recent": [],
            "objects": [{
                "path": "/a.m4s", "length_bytes": 3 << 20, "block_size_bytes": 1 << 20,
                "blocks": [{ "index": 2, "pieces": 65_535 }],
            }],
        });
        assert_eq!((status, body), (200, expected));
        let (_, brief) = get(&admin(), "/status.json?brief").await;
        let brief: Value = serde_json::from_str(&brief).unwrap();
        assert_eq!((&brief["runs"], &brief["uptime_seconds"]), (&json!([]), &json!(12)));
    }

    #[tokio::test]
    async fn the_page_is_shown_to_everybody_and_a_browser_lets_it_do_little() {
        let (status, body, head) = ask(&admin(), "GET", "/").await;
        assert_eq!((status, body.as_str()), (200, PAGE));
        assert_eq!(head.headers()[CONTENT_TYPE], "text/html; charset=utf-8");
        let policy = head.headers()["content-security-policy"].to_str().unwrap();
        for rule in ["default-src 'none'", "connect-src 'self'", "frame-ancestors 'none'"] {
            assert!(policy.contains(rule), "{policy}");
        }
        for (name, value) in [
            ("cache-control", "no-store"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "no-referrer"),
        ] {
            assert_eq!(head.headers()[name], value);
        }
        let (status, body, _) = ask(&admin(), "GET", "/history.json").await;
        assert_eq!((status, body.as_str()), (200, r#"{"every_seconds":10,"moments":[]}"#));
    }

    #[tokio::test]
    async fn the_url_to_explain_is_all_that_follows() {
        let admin = admin();
        for (target, url) in [
            ("/explain?url=https://a/b?c=d&url=e", "https://a/b?c=d&url=e"),
            ("/explain?url=/b", "/b"),
        ] {
            let request = Request::builder()
                .uri(target)
                .header("range", "bytes=0-1")
                .body(Full::<Bytes>::default());
            let response = admin.answer(request.unwrap(), From::Here).await;
            assert_eq!(response.status(), 404);
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let body: Value = serde_json::from_slice(&body).unwrap();
            let told = format!("asked for {url} with Some(\"bytes=0-1\")");
            assert_eq!(body, json!({ "error": told }));
        }
        for target in ["/explain", "/explain?", "/explain?uri=https://a/", "/explain?url="] {
            assert_eq!(get(&admin, target).await.0, 400, "{target}");
        }
    }

    #[tokio::test]
    async fn a_head_is_answered_like_a_get_without_the_body() {
        let admin = admin();
        for target in ["/health/live", "/health/ready", "/status.json", "/nothing"] {
            let (status, body, head) = ask(&admin, "HEAD", target).await;
            let (expected_status, expected) = get(&admin, target).await;
            assert_eq!((status, body.as_str()), (expected_status, ""), "{target}");
            assert_eq!(head.headers()[CONTENT_LENGTH], expected.len().to_string(), "{target}");
        }
    }

    #[tokio::test]
    async fn a_page_that_a_browser_shows_has_nothing_done_without_the_token() {
        let admin = admin();
        let shown = "Bearer an-operators-token";
        let table = [
            ("/reload", vec![], 503),
            ("/reload", vec![("origin", "http://rebound.test:9180")], 403),
            ("/reload", vec![("origin", "null")], 403),
            ("/purge", vec![("origin", "http://127.0.0.1:9180")], 403),
            // Where nobody has one, one that is made up is none.
            ("/reload", vec![("origin", "http://a.test"), ("authorization", "Bearer a")], 403),
            ("/reload", vec![("origin", "http://a.test"), ("authorization", shown)], 503),
            ("/reload", vec![("origin", "http://a.test")], 403),
            ("/drain", vec![("origin", "http://127.0.0.1:9180"), ("authorization", shown)], 200),
        ];
        for (number, (target, fields, status)) in table.into_iter().enumerate() {
            if number == 5 {
                admin.tokens.store(Some(Arc::new(Tokens::of(&shown[7..]).unwrap())));
            }
            let request = Request::post(target).header(CONTENT_TYPE, JSON);
            let with = |request: http::request::Builder, (name, value)| request.header(name, value);
            let request = fields.clone().into_iter().fold(request, with);
            let response = admin.answer(request.body(Empty::<Bytes>::new()).unwrap(), From::Here);
            assert_eq!(response.await.status(), status, "{target} {fields:?}");
        }
        let read = Request::get("/metrics").header("origin", "http://a.test");
        let response = admin.answer(read.body(Empty::<Bytes>::new()).unwrap(), From::Here).await;
        assert_eq!(response.status(), 200);
    }

    #[tokio::test]
    async fn a_page_of_another_site_is_refused_all_that_costs_or_does_something() {
        let admin = admin();
        let document: Value = serde_json::from_str(OPENAPI).unwrap();
        let asked = async |method: &str, path: &str, sites: &[&str]| {
            let request = Request::builder().method(method).uri(path);
            let with = |request: http::request::Builder, site: &&str| {
                request.header("sec-fetch-site", *site)
            };
            let request = sites.iter().fold(request, with).body(Empty::<Bytes>::new());
            admin.answer(request.unwrap(), From::Here).await
        };
        let mut refused = 0;
        for (path, of) in document["paths"].as_object().unwrap() {
            for (method, of) in of.as_object().unwrap() {
                let method = method.to_uppercase();
                // Its fields are those of the request that is explained.
                let refuses = !of["responses"]["403"].is_null() && path != "/explain";
                for sites in [&["cross-site"][..], &["same-site"], &["none", "cross-site"], &[""]] {
                    let response = asked(&method, path, sites).await;
                    let status = response.status().as_u16();
                    assert_eq!(status == 403, refuses, "{method} {path} {sites:?}: {status}");
                    let body = match refuses {
                        true => response.into_body().collect().await.unwrap().to_bytes(),
                        false => continue,
                    };
                    assert!(
                        body.starts_with(b"{\"error\":\"a page of another site asks"),
                        "{body:?}"
                    );
                    assert_eq!(body.iter().filter(|byte| **byte == b'\n').count(), 1);
                    refused += 1;
                }
                if method == "GET" {
                    for sites in [&["same-origin"][..], &["none"], &[]] {
                        let status = asked("GET", path, sites).await.status();
                        assert_ne!(status, 403, "{path} {sites:?}");
                    }
                }
            }
        }
        assert_eq!(refused, 4 * 11);
        assert_eq!(asked("HEAD", "/log", &["cross-site"]).await.status(), 403);
    }

    #[tokio::test]
    async fn everything_else_is_refused() {
        let admin = admin();
        for target in
            ["/index.html", "/metrics/", "/health", "/health/ready/", "/METRICS", "//metrics"]
        {
            assert_eq!(get(&admin, target).await, (404, "not found\n".to_owned()), "{target}");
        }
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "get"] {
            let (status, _, head) = ask(&admin, method, "/metrics").await;
            assert_eq!((status, head.headers()[ALLOW].to_str().unwrap()), (405, "GET, HEAD"));
        }
        let (_, _, head) = ask(&admin, "GET", "/status.json").await;
        assert_eq!(head.headers()[CACHE_CONTROL], "no-store");
    }
}
