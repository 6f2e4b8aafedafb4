//! One dialogue, spoken line by line.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use http::{HeaderMap, Method};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::origin::{Answer, Heard};
use super::read::{Case, Expected, Field, Said, Speech, Weight};
use super::written::written;
use crate::support::{Client, HOST, Response, until_runs};

/// A server that a dialogue is held with.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) client: Client,
    /// Where Tidegate tells of its runs; `None`: it is another's, which shows no `Cache-Status` and
    /// asks an origin in its own words.
    pub(crate) admin: Option<Client>,
}

/// How a dialogue went another way.
pub(crate) enum Deviation {
    /// The origin was asked for what a cache may have, or without a condition it may use.
    AskedMore(String),
    /// Something else was said.
    Wrong(String),
}

impl Deviation {
    pub(crate) fn why(&self) -> &str {
        match self {
            Deviation::AskedMore(why) | Deviation::Wrong(why) => why,
        }
    }

    /// In the line of this number.
    fn at(self, line: usize) -> Deviation {
        let at = |why| format!("line {line}: {why}");
        match self {
            Deviation::AskedMore(why) => Deviation::AskedMore(at(why)),
            Deviation::Wrong(why) => Deviation::Wrong(at(why)),
        }
    }
}

/// Speaks a case about the object `/number`.
///
/// # Errors
/// The line that was not kept to, and what was said instead.
pub(crate) async fn case(
    case: &Case,
    number: usize,
    server: &Server,
    heard: mpsc::Receiver<Heard>,
) -> Result<(), Deviation> {
    let path = format!("/{number}");
    let (asked, early, asking, interim, always) = Default::default();
    let demands = server.admin.is_some() || case.weight != Weight::Must;
    let mut speaking =
        Speaking { path, server, demands, heard, asked, early, asking, interim, always };
    for line in &case.lines {
        speaking.say(&line.speech).await.map_err(|deviation| deviation.at(line.number))?;
    }
    match speaking.early.pop_front().map_or_else(|| speaking.heard.try_recv(), Ok) {
        Ok(request) => {
            let why = format!("the origin was asked in the end: {:?}", request.fields);
            Err(Deviation::AskedMore(why))
        }
        Err(_) => Ok(()),
    }
}

/// A dialogue under way.
struct Speaking<'a> {
    path: String,
    server: &'a Server,
    /// Whether the origin must be asked with just the conditions that the case has.
    demands: bool,
    heard: mpsc::Receiver<Heard>,
    /// Viewers who wait for an answer, and what was explained before they asked.
    asked: VecDeque<(JoinHandle<std::io::Result<Response>>, Option<Value>)>,
    /// What the origin has heard and nobody has spoken of yet.
    early: VecDeque<Heard>,
    /// Requests that the origin has not answered: method and fields.
    asking: VecDeque<(String, HeaderMap, oneshot::Sender<Answer>)>,
    /// What it says before its answer.
    interim: Vec<u8>,
    /// What it answers to whatever it is asked until the viewer has his answer.
    always: Option<&'a Speech>,
}

impl<'a> Speaking<'a> {
    async fn say(&mut self, speech: &'a Speech) -> Result<(), Deviation> {
        match speech {
            Speech::Asks { method, target, fields, body } => {
                self.ask(method, target, fields, body).await;
            }
            Speech::Forwarded(expected) => return self.forwarded(expected).await,
            Speech::Always(speech) => {
                self.always = Some(speech);
                if !self.asking.is_empty() {
                    return Box::pin(self.say(speech)).await;
                }
            }
            Speech::Answers(said) if matches!(said.status, Some(100 | 102..200)) => {
                self.interim.extend(written("GET", &HeaderMap::new(), said));
            }
            Speech::Answers(said) => {
                let (method, fields, answer) =
                    self.asking.pop_front().expect("an answer follows a request");
                let is_conditional = CONDITIONS.iter().any(|name| fields.contains_key(*name));
                if said.status == Some(304) && !is_conditional {
                    let why = "the origin was asked for it anew".to_owned();
                    return Err(Deviation::AskedMore(why));
                }
                let mut bytes = std::mem::take(&mut self.interim);
                bytes.extend(written(&method, &fields, &self.about_this(said)));
                let _ = answer.send(Answer { bytes, closes: said.closes });
            }
            Speech::Raw(bytes) => {
                let (_, _, answer) = self.asking.pop_front().expect("it answers a request");
                let _ = answer.send(Answer { bytes: bytes.clone(), closes: true });
            }
            Speech::Closes => {
                drop(self.asking.pop_front().expect("it was asked before it closes"));
            }
            Speech::Passes(time) => tokio::time::sleep(*time).await,
            Speech::Gets(expected) => return self.gets(expected).await,
        }
        Ok(())
    }

    /// With the path of the case's object where a field names it.
    fn about_this(&self, said: &Said) -> Said {
        let mut said = said.clone();
        for (_, value) in &mut said.fields {
            *value = value.replace("{path}", &self.path);
        }
        said
    }

    async fn ask(&mut self, method: &str, target: &str, fields: &[(String, String)], body: &[u8]) {
        let path = &self.path;
        let target = match target.contains("{path}") || target == "*" {
            true => target.replace("{path}", path),
            false => format!("{path}{target}"),
        };
        let mut explained = None;
        if let Some(admin) = self.server.admin.as_ref().filter(|_| self.asked.is_empty()) {
            // Whoever comes before a body is all there waits for the rest of it.
            until_runs(admin, |runs| !runs.iter().any(|(of, _)| is_of(of, path))).await;
            let is_plain =
                target.starts_with('/') && !fields.iter().any(|(name, _)| name == "Host");
            if method == "GET" && is_plain {
                explained = Some(explain(admin, &target, fields).await);
            }
        } else if self.asked.is_empty() {
            // Others do not tell when they have stored a body that their viewer has.
            tokio::time::sleep(SETTLING).await;
        }
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let request = self.server.client.request(method, &target).body(body.to_vec());
        let request =
            fields.iter().fold(request, |request, (name, value)| request.header(name, value));
        self.asked.push_back((tokio::spawn(async move { request.try_send().await }), explained));
    }

    async fn forwarded(&mut self, expected: &Expected) -> Result<(), Deviation> {
        let request = match self.early.pop_front() {
            Some(request) => request,
            None => self
                .next_heard()
                .await
                .ok_or_else(|| Deviation::Wrong("the origin was not asked".to_owned()))?,
        };
        let target = request.target.strip_prefix(&self.path).unwrap_or(&request.target);
        let start = [&*request.method, target];
        let start: Vec<_> = start.into_iter().filter(|word| !word.is_empty()).collect();
        let others = self.server.admin.is_none();
        let skipped = |name: &str| {
            let name = name.to_ascii_lowercase();
            let is_condition = CONDITIONS.contains(&&*name);
            others && !(name == "x-hop" || self.demands && is_condition)
        };
        check(expected, &start, &request.fields, &skipped).map_err(|why| match others {
            true => Deviation::AskedMore(why),
            false => Deviation::Wrong(why),
        })?;
        if let Some(body) = expected.body.as_ref().filter(|body| **body != request.body) {
            let (came, body) = (String::from_utf8_lossy(&request.body), body.len());
            return Err(Deviation::Wrong(format!("the origin got {came:?}, and not {body} bytes")));
        }
        self.asking.push_back((request.method, request.fields, request.answer));
        Ok(())
    }

    /// The next request, unless the viewer has an answer without one.
    async fn next_heard(&mut self) -> Option<Heard> {
        let waited_since = Instant::now();
        loop {
            if let Ok(heard) = timeout(LOOK_AGAIN, self.heard.recv()).await {
                return heard;
            }
            let is_answered = self.asked.front().is_some_and(|(viewer, _)| viewer.is_finished());
            if is_answered || waited_since.elapsed() > PATIENCE {
                return None;
            }
        }
    }

    async fn gets(&mut self, expected: &Expected) -> Result<(), Deviation> {
        let asked = self.asked.pop_front().expect("a viewer asks before he gets something");
        let (mut viewer, explained) = asked;
        let response = loop {
            tokio::select! {
                response = &mut viewer => break response,
                // Behind his back, or he waits for it in vain.
                request = self.heard.recv() => {
                    self.early.extend(request);
                    if let Some(speech) = self.always {
                        let Heard { method, fields, answer, .. } =
                            self.early.pop_front().expect("it has just come");
                        self.asking.push_back((method, fields, answer));
                        Box::pin(self.say(speech)).await?;
                    }
                }
                () = tokio::time::sleep(IN_VAIN), if !self.early.is_empty() => {
                    let Heard { method, fields, .. } = &self.early[0];
                    let why = format!("the origin was asked: {method} {fields:?}");
                    return Err(Deviation::AskedMore(why));
                }
            }
        };
        self.always = None;
        let response = match response.map_err(|error| Deviation::Wrong(error.to_string()))? {
            Ok(response) => response,
            // Of what breaks off at once not even the head need come.
            Err(_) if expected.is_cut => return Ok(()),
            Err(error) => return Err(Deviation::Wrong(error.to_string())),
        };
        let status = response.status.to_string();
        let others = self.server.admin.is_none();
        let ours = |name: &str| others && name.eq_ignore_ascii_case("cache-status");
        check(expected, &[&status], &response.headers, &ours)
            .and_then(|()| check_body(expected, &response))
            .and_then(|()| explained.map_or(Ok(()), |told| check_explained(&told, &response)))
            .map_err(Deviation::Wrong)
    }
}

/// What the appliance says it would do.
async fn explain(admin: &Client, target: &str, fields: &[(String, String)]) -> Value {
    let question = admin.get(&format!("/explain?url=http://{HOST}{target}"));
    let question =
        fields.iter().fold(question, |question, (name, value)| question.header(name, value));
    serde_json::from_slice(&question.send().await.body).expect("an explanation is JSON")
}

/// Whether what was explained is what came.
fn check_explained(told: &Value, response: &Response) -> Result<(), String> {
    let answer = &told["answer"];
    let cache_status = response.header("cache-status");
    let ours = cache_status.split(", ").find(|member| member.starts_with("tidegate;"));
    let is_hit = ours.is_some_and(|ours| ours.contains("; hit"));
    let is_so = match answer["how"].as_str() {
        Some("stored" | "stored-and-refreshed") => {
            answer["status"] == response.status && (is_hit || ours.is_none())
        }
        // Its origin may have another version by now.
        Some("stored-in-part" | "confirm" | "fetch" | "pass") => !is_hit,
        Some("refuse") => answer["status"] == response.status,
        _ => told["error"].is_string() && (400..500).contains(&response.status),
    };
    match is_so {
        true => Ok(()),
        false => Err(format!("it is explained as {told}")),
    }
}

/// Whether a target is of the object at `path`.
fn is_of(target: &str, path: &str) -> bool {
    let rest = target.strip_prefix(path);
    rest.is_some_and(|rest| !rest.starts_with(|next: char| next.is_ascii_digit()))
}

fn check(
    expected: &Expected,
    start: &[&str],
    fields: &HeaderMap,
    skipped: &dyn Fn(&str) -> bool,
) -> Result<(), String> {
    if !is_one_of(&expected.start, start) {
        return Err(format!("it is {}: {fields:?}", start.join(" ")));
    }
    if is_another(expected, start[0]) {
        return Ok(());
    }
    for field in &expected.fields {
        let found = |name: &str| {
            let lines = fields.get_all(name).iter();
            let lines = lines.map(|line| String::from_utf8_lossy(line.as_bytes()).into_owned());
            lines.collect::<Vec<_>>().join(", ")
        };
        let (name, holds) = match field {
            Field::Is(name, value) => (name, found(name) == *value),
            Field::Contains(name, part) => (name, found(name).contains(part)),
            Field::Lacks(name, part) => (name, !found(name).contains(part)),
            Field::Within(name, least, most) => {
                (name, found(name).parse().is_ok_and(|number| (*least..=*most).contains(&number)))
            }
            Field::Absent(name) => (name, !fields.contains_key(name.as_str())),
            Field::Parts(_) => continue,
        };
        if !holds && !skipped(name) {
            return Err(format!("{field:?} is not so: {:?} in {fields:?}", found(name)));
        }
    }
    Ok(())
}

/// Whether a head begins as it must; of several statuses it may be any.
fn is_one_of(expected: &[String], start: &[&str]) -> bool {
    expected == start || start.len() == 1 && expected[0].split(',').any(|one| one == start[0])
}

/// Whether it is another than the first of several statuses: what else is said is not of it.
fn is_another(expected: &Expected, start: &str) -> bool {
    expected.start[0].split(',').next() != Some(start)
}

fn check_body(expected: &Expected, response: &Response) -> Result<(), String> {
    if is_another(expected, &response.status.to_string()) {
        return Ok(());
    }
    if response.complete == expected.is_cut {
        let whole = if response.complete { "whole" } else { "cut short" };
        return Err(format!("the body is {whole}, {} bytes", response.body.len()));
    }
    for field in &expected.fields {
        if let Field::Parts(parts) = field {
            check_parts(parts, response)?;
        }
    }
    match &expected.body {
        Some(body) if *body != response.body => Err(format!(
            "the body has {} bytes: {:?}",
            response.body.len(),
            String::from_utf8_lossy(&response.body[..response.body.len().min(60)])
        )),
        _ => Ok(()),
    }
}

/// Reads a `multipart/byteranges` body as RFC 2046 section 5.1 has it.
fn check_parts(expected: &str, response: &Response) -> Result<(), String> {
    let content_type = response.header("content-type");
    let boundary = content_type.strip_prefix("multipart/byteranges; boundary=");
    let boundary = boundary.ok_or(format!("its type is {content_type}"))?;
    let (ranges, complete) = expected.split_once('/').expect("parts RANGES/LENGTH");
    let mut body = Vec::new();
    for range in ranges.split(',') {
        let (first, last) = range.split_once('-').expect("FIRST-LAST");
        let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
        body.extend_from_slice(format!("\r\n--{boundary}\r\n").as_bytes());
        body.extend_from_slice(b"Content-Type: video/mp4\r\n");
        body.extend_from_slice(
            format!("Content-Range: bytes {range}/{complete}\r\n\r\n").as_bytes(),
        );
        body.extend_from_slice(&super::read::pattern(first, last + 1));
    }
    body.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    match body == response.body {
        true => Ok(()),
        false => Err(format!("its parts are {:?}", String::from_utf8_lossy(&response.body))),
    }
}

const LOOK_AGAIN: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(10);
/// An answer that does not come for so long will not come by itself.
const IN_VAIN: Duration = Duration::from_secs(2);
/// Until another's cache has what its viewer has.
const SETTLING: Duration = Duration::from_millis(40);
/// What makes an origin answer with 304.
const CONDITIONS: [&str; 2] = ["if-none-match", "if-modified-since"];
