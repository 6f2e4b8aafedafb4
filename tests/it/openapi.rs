//! The admin listener's OpenAPI document and the process agree: every answer it names is given, as
//! it says. That every path of the server stands in it, and who is refused from another machine,
//! `src/control/api.rs` tests.

use std::collections::BTreeSet;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate::limits::LOG_READERS_MAX;

use crate::support::{
    Client, HOST, Origin, Process, Request, Response, Script, configured, until_ready,
};

const OPERATOR: &str = "Bearer an-operators-token";
const VIEWER: &str = "Bearer a-viewers-own-token";
const TOKENS: &str = "operator anna an-operators-token\nviewer grafana a-viewers-own-token\n";

/// The document, and what of it was found to be so.
struct Judged {
    document: Value,
    given: BTreeSet<(String, String, String)>,
}

impl Judged {
    /// Asks `target` and holds the answer against what the document says of `status` there.
    async fn ask(&mut self, request: &Request, of: (&str, &str), status: u16) {
        let (method, target) = of;
        let path = target.split('?').next().unwrap();
        let response = request.send().await;
        assert_eq!(response.status, status, "{method} {target}: {:?}", response.body);
        let said = &self.document["paths"][path][method]["responses"][status.to_string()];
        let said = match said["$ref"].as_str() {
            Some(named) => self.document.pointer(&named[1..]).unwrap(),
            None => said,
        };
        self.hold(said, &response, &format!("{method} {target}, {status}"));
        self.given.insert((method.to_owned(), path.to_owned(), status.to_string()));
    }

    fn hold(&self, said: &Value, response: &Response, what: &str) {
        let contents = said["content"].as_object().unwrap_or_else(|| panic!("{what}: not there"));
        let (kind, content) = contents.iter().next().unwrap();
        assert_eq!(&response.header("content-type"), kind, "{what}");
        let Some(named) = content["schema"]["$ref"].as_str() else { return };
        let schema = self.document.pointer(&named[1..]).unwrap();
        let keys = |value: &Value| -> BTreeSet<String> {
            value.as_object().unwrap().keys().cloned().collect()
        };
        let body: Value = serde_json::from_slice(&response.body).unwrap();
        let (given, named) = (keys(&body), keys(&schema["properties"]));
        let Some(required) = schema["required"].as_array() else {
            return assert_eq!(given, named, "{what}");
        };
        let required = required.iter().map(|key| key.as_str().unwrap().to_owned()).collect();
        assert!(given.is_superset(&required) && given.is_subset(&named), "{what}: {given:?}");
    }

    /// What the document names and nobody was given.
    fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        for (path, operations) in self.document["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                for status in operation["responses"].as_object().unwrap().keys() {
                    let was = self.given.contains(&(method.clone(), path.clone(), status.clone()));
                    // From this machine everybody may look, two who look at once meet by chance,
                    // what takes over is another process (`upgrade`), and `default` stands for
                    // what fails.
                    let is_elsewhere = matches!(
                        (method.as_str(), path.as_str(), status.as_str()),
                        ("get", _, "401" | "403")
                            | (_, "/upgrade", "200")
                            | ("get", "/session" | "/top" | "/usage", "503")
                    );
                    if !was && !is_elsewhere && status != "default" {
                        left.push(format!("{method} {path} {status}"));
                    }
                }
            }
        }
        left
    }
}

#[tokio::test]
async fn every_answer_that_the_document_names_is_given() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    origin.serve("/film", Script::of(10));
    let token_file = folder.path().join("tokens");
    fs::write(&token_file, TOKENS).unwrap();
    let site = format!(
        "[[sites]]\nname = \"media\"\nhosts = [{HOST:?}]\norigins = [\"http://{}\"]\n",
        origin.address()
    );
    let config = configured(folder.path(), &format!("admin.token_file = {token_file:?}\n{site}"));
    let process = Process::start(&config);
    let admin = Client::plain(process.admin, "localhost");
    let document = admin.get("/openapi.json").send().await.body;
    let document: Value = serde_json::from_slice(&document).unwrap();
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let mut judged = Judged { document, given: BTreeSet::new() };

    until_ready(&admin).await;
    let explain = format!("/explain?url=https://{HOST}/film");
    for (target, status) in [
        ("/metrics", 200),
        ("/health/live", 200),
        ("/health/ready", 200),
        ("/", 200),
        ("/status.json", 200),
        ("/history.json", 200),
        ("/openapi.json", 200),
        ("/usage?month=2026-11", 200),
        ("/usage?month=2026-11&site=media&samples=yes", 200),
        ("/usage?month=November", 400),
        ("/usage?sites=media", 400),
    ] {
        judged.ask(&admin.get(target), ("get", target), status).await;
    }
    read_of_requests(&mut judged, &admin, &explain).await;
    have_done(&mut judged, &admin).await;
    judged.ask(&admin.get("/health/ready"), ("get", "/health/ready"), 503).await;
    let undrain = admin.request(Method::POST, "/undrain").header("authorization", OPERATOR);
    judged.ask(&undrain, ("post", "/undrain"), 200).await;
    let reload = admin.request(Method::POST, "/reload").header("authorization", OPERATOR);
    fs::write(&config, "colour = \"red\"\n").unwrap();
    judged.ask(&reload, ("post", "/reload"), 422).await;
    let upgrade = admin.request(Method::POST, "/upgrade").header("authorization", OPERATOR);
    judged.ask(&upgrade, ("post", "/upgrade"), 422).await;

    // Without a token it is enough to be here, and to say what a page in a browser cannot.
    let other = TempDir::new().unwrap();
    let open = Process::start(&configured(other.path(), &format!("usage.months = 0\n{site}")));
    let by_a_name = Client::plain(open.admin, "admin.test");
    for target in ["/status.json", "/history.json", &explain, "/usage"] {
        judged.ask(&by_a_name.get(target), ("get", target), 403).await;
    }
    assert_eq!(by_a_name.get("/metrics").send().await.status, 200);
    let open = by_a_name.host("localhost");
    judged.ask(&open.get("/usage"), ("get", "/usage"), 404).await;
    for target in ["/reload", "/upgrade", "/drain", "/undrain"] {
        judged.ask(&open.request(Method::POST, target), ("post", target), 415).await;
    }
    assert_eq!(judged.left(), Vec::<String>::new());
}

/// Asks for what is told of requests, and once more than may follow the log at once.
async fn read_of_requests(judged: &mut Judged, admin: &Client, explain: &str) {
    for (target, status) in [
        (explain, 200),
        ("/explain", 400),
        ("/explain?url=https://elsewhere.test/film", 404),
        ("/log?filter=", 200),
        ("/log?filter=colour", 400),
        ("/session?sid=nobodys", 200),
        ("/session", 400),
        ("/top", 200),
        ("/top?by=colour", 400),
    ] {
        // What has no end has a head.
        let has_no_end = target.starts_with("/log") && status == 200;
        let request = if has_no_end { admin.head(target) } else { admin.get(target) };
        judged.ask(&request.header("authorization", VIEWER), ("get", target), status).await;
    }
    let mut followers = Vec::new();
    for _ in 0..LOG_READERS_MAX {
        let follower = admin.get("/log").header("authorization", VIEWER).open().await;
        assert_eq!(follower.status, 200);
        followers.push(follower);
    }
    let one_more = admin.get("/log").header("authorization", VIEWER);
    judged.ask(&one_more, ("get", "/log"), 503).await;
    drop(followers);
}

/// Asks for all that can be done, by who may and who may not; it drains then.
async fn have_done(judged: &mut Judged, admin: &Client) {
    let purge = json!({ "urls": [format!("https://{HOST}/film")] });
    let long = json!({ "urls": ["x".repeat(tidegate::limits::PURGE_REQUEST_BYTES_MAX)] });
    let tomorrow = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 86_400;
    let later = json!({ "at_unix_seconds": tomorrow });
    let nothing = Value::Null;
    for (target, bearer, body, status) in [
        ("/purge", OPERATOR, &purge, 200),
        ("/purge", OPERATOR, &json!({}), 400),
        ("/purge", "", &purge, 401),
        ("/purge", VIEWER, &purge, 403),
        ("/purge", OPERATOR, &long, 413),
        ("/reload", OPERATOR, &nothing, 200),
        ("/reload", "", &nothing, 401),
        ("/reload", VIEWER, &nothing, 403),
        ("/upgrade", "", &nothing, 401),
        ("/upgrade", VIEWER, &nothing, 403),
        ("/drain", OPERATOR, &json!({ "colour": "red" }), 400),
        ("/drain", "", &nothing, 401),
        ("/drain", VIEWER, &nothing, 403),
        ("/drain", OPERATOR, &long, 413),
        ("/drain?within_seconds=600", OPERATOR, &nothing, 400),
        ("/drain", OPERATOR, &later, 200),
        ("/drain", OPERATOR, &json!({ "within_seconds": 600 }), 200),
        ("/drain", OPERATOR, &later, 409),
        ("/undrain", "", &nothing, 401),
        ("/undrain", VIEWER, &nothing, 403),
    ] {
        let request = admin.request(Method::POST, target).json(body);
        let request = request.header("authorization", bearer);
        judged.ask(&request, ("post", target), status).await;
    }
}
