//! One dialogue, spoken line by line.

use std::collections::VecDeque;
use std::time::Duration;

use http::{HeaderMap, Method};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::origin::Heard;
use super::read::{Case, Expected, Field, Speech};
use crate::support::{Client, HOST, Response, until_runs};

/// Speaks a case about the object `/number`.
///
/// # Errors
/// The line that was not kept to, and what was said instead.
pub(super) async fn case(
    case: &Case,
    number: usize,
    (client, admin): (&Client, &Client),
    heard: mpsc::Receiver<Heard>,
) -> Result<(), String> {
    let path = format!("/{number}");
    let (asked, early, asking) = Default::default();
    let mut speaking = Speaking { path, client, admin, heard, asked, early, asking };
    for line in &case.lines {
        let spoken = speaking.say(&line.speech).await;
        spoken.map_err(|why| format!("line {}: {why}", line.number))?;
    }
    match speaking.early.pop_front().map_or_else(|| speaking.heard.try_recv(), Ok) {
        Ok(request) => Err(format!("the origin was asked in the end: {:?}", request.fields)),
        Err(_) => Ok(()),
    }
}

/// A dialogue under way.
struct Speaking<'a> {
    path: String,
    client: &'a Client,
    admin: &'a Client,
    heard: mpsc::Receiver<Heard>,
    /// Viewers who wait for an answer, and what was explained before they asked.
    asked: VecDeque<(JoinHandle<Response>, Option<Value>)>,
    /// What the origin has heard and nobody has spoken of yet.
    early: VecDeque<Heard>,
    /// Requests that the origin has not answered, by their method.
    asking: VecDeque<(String, oneshot::Sender<Vec<u8>>)>,
}

impl Speaking<'_> {
    async fn say(&mut self, speech: &Speech) -> Result<(), String> {
        match speech {
            Speech::Asks { method, target, fields } => self.ask(method, target, fields).await,
            Speech::Forwarded(expected) => return self.forwarded(expected).await,
            Speech::Answers { status, fields, body } => {
                let (method, answer) =
                    self.asking.pop_front().expect("an answer follows a request");
                let _ = answer.send(written(&method, *status, fields, body));
            }
            Speech::Closes => {
                drop(self.asking.pop_front().expect("it was asked before it closes"));
            }
            Speech::Passes(time) => tokio::time::sleep(*time).await,
            Speech::Gets(expected) => return self.gets(expected).await,
        }
        Ok(())
    }

    async fn ask(&mut self, method: &str, target: &str, fields: &[(String, String)]) {
        let path = &self.path;
        let mut explained = None;
        if self.asked.is_empty() {
            // Whoever comes before a body is all there waits for the rest of it.
            until_runs(self.admin, |runs| !runs.iter().any(|(of, _)| is_of(of, path))).await;
            if method == "GET" {
                explained = Some(self.explained(target, fields).await);
            }
        }
        let path = &self.path;
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let request = self.client.request(method, &format!("{path}{target}"));
        let request =
            fields.iter().fold(request, |request, (name, value)| request.header(name, value));
        self.asked.push_back((tokio::spawn(async move { request.send().await }), explained));
    }

    /// What the appliance says it would do.
    async fn explained(&self, target: &str, fields: &[(String, String)]) -> Value {
        let url = format!("/explain?url=http://{HOST}{}{target}", self.path);
        let question = fields
            .iter()
            .fold(self.admin.get(&url), |question, (name, value)| question.header(name, value));
        serde_json::from_slice(&question.send().await.body).expect("an explanation is JSON")
    }

    async fn forwarded(&mut self, expected: &Expected) -> Result<(), String> {
        let request = match self.early.pop_front() {
            Some(request) => request,
            None => timeout(PATIENCE, self.heard.recv())
                .await
                .map_err(|_| "the origin was not asked".to_owned())?
                .expect("the origin listens as long as the case speaks"),
        };
        let target = request.target.strip_prefix(&self.path).unwrap_or(&request.target);
        let start = [&*request.method, target];
        let start: Vec<_> = start.into_iter().filter(|word| !word.is_empty()).collect();
        check(expected, &start, &request.fields)?;
        self.asking.push_back((request.method, request.answer));
        Ok(())
    }

    async fn gets(&mut self, expected: &Expected) -> Result<(), String> {
        let asked = self.asked.pop_front().expect("a viewer asks before he gets something");
        let (mut viewer, explained) = asked;
        let response = loop {
            tokio::select! {
                response = &mut viewer => break response,
                // Behind his back, or he waits for it in vain.
                request = self.heard.recv() => self.early.extend(request),
                () = tokio::time::sleep(IN_VAIN), if !self.early.is_empty() => {
                    let Heard { method, fields, .. } = &self.early[0];
                    return Err(format!("the origin was asked: {method} {fields:?}"));
                }
            }
        };
        let response = response.map_err(|error| error.to_string())?;
        let status = response.status.to_string();
        check(expected, &[&status], &response.headers)?;
        check_body(expected, &response)?;
        explained.map_or(Ok(()), |told| check_explained(&told, &response))
    }
}

/// Whether what was explained is what came.
fn check_explained(told: &Value, response: &Response) -> Result<(), String> {
    let answer = &told["answer"];
    let is_so = match answer["how"].as_str() {
        Some("stored" | "stored-and-refreshed") => {
            let cache_status = response.header("cache-status");
            answer["status"] == response.status
                && (cache_status.contains("; hit") || cache_status.is_empty())
        }
        Some("stored-in-part") => {
            let is_part = response.header("cache-status").contains("; fwd=partial");
            answer["status"] == response.status && is_part
        }
        Some("confirm" | "fetch" | "pass") => !response.header("cache-status").contains("; hit"),
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

fn check(expected: &Expected, start: &[&str], fields: &HeaderMap) -> Result<(), String> {
    if expected.start != start {
        return Err(format!("it is {}: {fields:?}", start.join(" ")));
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
            Field::Within(name, least, most) => {
                (name, found(name).parse().is_ok_and(|number| (*least..=*most).contains(&number)))
            }
            Field::Absent(name) => (name, !fields.contains_key(name.as_str())),
            Field::Parts(_) => continue,
        };
        if !holds {
            return Err(format!("{field:?} is not so: {:?} in {fields:?}", found(name)));
        }
    }
    Ok(())
}

fn check_body(expected: &Expected, response: &Response) -> Result<(), String> {
    if !response.complete {
        return Err("the body is cut short".to_owned());
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

/// An answer as it goes over the wire; its length is told unless the fields say how it is framed.
fn written(method: &str, status: u16, fields: &[(String, String)], body: &[u8]) -> Vec<u8> {
    let is = |name: &str| fields.iter().any(|(field, _)| field.eq_ignore_ascii_case(name));
    let mut head = format!("HTTP/1.1 {status} as dictated\r\n");
    for (name, value) in fields {
        head += &format!("{name}: {value}\r\n");
    }
    let bodiless = matches!(status, 204 | 304);
    if !bodiless && !is("content-length") && !is("transfer-encoding") {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    let mut written = (head + "\r\n").into_bytes();
    if method != "HEAD" && !bodiless {
        let chunked = is("transfer-encoding");
        if chunked {
            written.extend_from_slice(format!("{:x}\r\n", body.len()).as_bytes());
        }
        written.extend_from_slice(body);
        if chunked {
            written.extend_from_slice(b"\r\n0\r\n\r\n");
        }
    }
    written
}

const PATIENCE: Duration = Duration::from_secs(10);
/// An answer that does not come for so long will not come by itself.
const IN_VAIN: Duration = Duration::from_secs(2);
