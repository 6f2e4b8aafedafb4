//! Every question that there is, and which of them a request asks.

use http::{Method, StatusCode};

use super::wire;
use crate::control::asking::{Said, refusal};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    Enrol,
    Renew,
    Register,
    Beat,
    Snapshot,
    Appliances,
    Remove,
    NewCode,
    KeyNames,
    PutKeys,
    RemoveKeys,
    Audit,
    Export,
    RaiseEpoch,
    Nodes,
    Metrics,
    OpenApi,
    Live,
}

/// Every question there is; `{NAME}` stands for a name.
pub(super) const ROUTES: [(Method, &str, Ask); 18] = [
    (Method::POST, wire::ENROL_PATH, Ask::Enrol),
    (Method::POST, wire::RENEW_PATH, Ask::Renew),
    (Method::PUT, "/v1/appliances/{NAME}", Ask::Register),
    (Method::POST, wire::HEARTBEAT_PATH, Ask::Beat),
    (Method::GET, wire::SNAPSHOT_PATH, Ask::Snapshot),
    (Method::GET, wire::APPLIANCES_PATH, Ask::Appliances),
    (Method::DELETE, "/v1/appliances/{NAME}", Ask::Remove),
    (Method::POST, wire::CODES_PATH, Ask::NewCode),
    (Method::GET, "/v1/keys", Ask::KeyNames),
    (Method::PUT, "/v1/keys/{NAME}", Ask::PutKeys),
    (Method::DELETE, "/v1/keys/{NAME}", Ask::RemoveKeys),
    (Method::GET, "/v1/audit", Ask::Audit),
    (Method::GET, wire::EXPORT_PATH, Ask::Export),
    (Method::POST, wire::EPOCH_PATH, Ask::RaiseEpoch),
    (Method::GET, "/v1/nodes", Ask::Nodes),
    (Method::GET, "/v1/metrics", Ask::Metrics),
    (Method::GET, "/openapi.json", Ask::OpenApi),
    (Method::GET, "/health/live", Ask::Live),
];

/// What is asked for, and of whom or what.
pub(super) fn route<'a>(method: &Method, path: &'a str) -> Result<(Ask, &'a str), Said> {
    let mut others = Vec::new();
    for (of, template, ask) in &ROUTES {
        match named(template, path) {
            Some(name) if of == method => return Ok((*ask, name)),
            Some(_) => others.push(of.as_str()),
            None => {}
        }
    }
    match others.is_empty() {
        true => Err(refusal(StatusCode::NOT_FOUND, "there is nothing at this path")),
        false => {
            let text = format!("send {}", others.join(" or "));
            Err(refusal(StatusCode::METHOD_NOT_ALLOWED, &text))
        }
    }
}

/// Which of [`ROUTES`] it is.
pub(super) fn place(method: &Method, path: &str) -> Option<usize> {
    let is_it =
        |(of, template, _): &(Method, &str, Ask)| of == method && named(template, path).is_some();
    ROUTES.iter().position(is_it)
}

/// What stands for `{NAME}` in a path; nothing where there is no place for it.
fn named<'a>(template: &str, path: &'a str) -> Option<&'a str> {
    match template.strip_suffix("{NAME}") {
        Some(folder) => path.strip_prefix(folder).filter(|name| !name.contains('/')),
        None => (path == template).then_some(""),
    }
}
