//! What an unsafe request ends has ended for whoever comes when it is answered.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::*;
use crate::support::{Client, Process, keeping, until_ready};

const OLD: &str =
    "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nETag: \"1\"\r\nContent-Length: 3\r\n\r\nold";
const NEW: &str =
    "HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nETag: \"2\"\r\nContent-Length: 3\r\n\r\nnew";

/// Asks for `/a` in the background.
fn got(edge: &Edge) -> tokio::task::JoinHandle<Response> {
    let request = edge.get("/a");
    tokio::spawn(async move { request.send().await })
}

/// Changes `/a`; the origin has said so, and the viewer knows.
async fn change(origin: &Driven, edge: &Edge) {
    let mut viewer = Said::to(edge).await;
    viewer.say(posted("/a", "")).await;
    let mut asked = origin.asked().await;
    assert!(asked.head.starts_with("POST /a "), "{}", asked.head);
    asked.said.say(NO_CONTENT).await;
    assert!(viewer.head().await.starts_with("HTTP/1.1 204 "));
}

#[tokio::test]
async fn an_answer_that_was_asked_for_before_is_kept_for_nobody() {
    let origin = Driven::start();
    let edge = origin.edge().start();
    let before = got(&edge);
    let mut asked_before = origin.asked().await;
    change(&origin, &edge).await;

    // He does not even wait for it: it is held back still.
    let after = got(&edge);
    let mut asked_after = origin.asked().await;
    asked_after.said.say(NEW).await;
    assert_eq!(after.await.unwrap().body, "new");

    asked_before.said.say(OLD).await;
    assert_eq!(before.await.unwrap().body, "old", "he came before");
    assert_eq!(edge.get("/a").send().await.body, "new", "it takes no one's place");
    assert!(origin.is_left_alone().await);
}

#[tokio::test]
async fn an_answer_that_comes_alone_after_it_is_not_found_by_others() {
    let origin = Driven::start();
    let edge = origin.edge().start();
    let before = got(&edge);
    let mut asked = origin.asked().await;
    change(&origin, &edge).await;
    asked.said.say(OLD).await;
    assert_eq!(before.await.unwrap().body, "old", "he came before");
    let after = got(&edge);
    origin.asked().await.said.say(NEW).await;
    assert_eq!(after.await.unwrap().body, "new");
}

#[tokio::test]
async fn a_304_that_was_asked_for_before_confirms_nothing() {
    let origin = Driven::start();
    let edge = origin.edge().start();
    let first = got(&edge);
    origin.asked().await.said.say(OLD.replace("max-age=600", "max-age=0")).await;
    assert_eq!(first.await.unwrap().body, "old");
    let before = got(&edge);
    let mut asked = origin.asked().await;
    assert_eq!(field(&asked.head, "if-none-match"), Some("\"1\""));
    change(&origin, &edge).await;
    asked.said.say("HTTP/1.1 304 Same\r\nETag: \"1\"\r\nCache-Control: max-age=600\r\n\r\n").await;
    assert_eq!(before.await.unwrap().body, "old", "he came before");
    let after = got(&edge);
    let mut asked = origin.asked().await;
    assert_eq!(field(&asked.head, "if-none-match"), None, "it is not asked about");
    asked.said.say(NEW).await;
    assert_eq!(after.await.unwrap().body, "new");
}

#[tokio::test]
async fn a_body_on_its_way_goes_on_for_who_came_before_and_is_not_found_by_others() {
    let origin = Driven::start();
    let edge = origin.edge().start();
    let mut before = {
        let request = edge.get("/a");
        let opening = tokio::spawn(async move { request.open().await });
        let mut asked = origin.asked().await;
        let length = 4 << 20;
        let head = OLD.replace("Content-Length: 3\r\n\r\nold", "");
        let said = format!("{head}Content-Length: {length}\r\n\r\n{}", "o".repeat(1 << 20));
        asked.said.say(said).await;
        (opening.await.unwrap(), asked)
    };
    assert_eq!(before.0.read_exactly(1 << 20).await.unwrap().len(), 1 << 20);
    change(&origin, &edge).await;
    let after = got(&edge);
    origin.asked().await.said.say(NEW).await;
    assert_eq!(after.await.unwrap().body, "new");
    before.1.said.say("o".repeat(3 << 20)).await;
    let rest = before.0.finish().await.unwrap();
    assert!(rest.complete && rest.body.len() == 3 << 20);
    assert_eq!(edge.get("/a").send().await.body, "new");
}

#[tokio::test]
async fn it_ends_although_the_viewer_who_changed_it_has_left() {
    let origin = Driven::start();
    let edge = origin.edge().start();
    let first = got(&edge);
    origin.asked().await.said.say(OLD).await;
    assert_eq!(first.await.unwrap().body, "old");
    let mut viewer = Said::to(&edge).await;
    viewer.say(posted("/a", "Content-Length: 5\r\n") + "hello").await;
    let mut asked = origin.asked().await;
    assert_eq!(asked.said.exactly(5).await, b"hello");
    drop(viewer);
    edge.until_metric("tidegate_connections_open", &[], |open| open <= 1.0).await;
    asked.said.say(NO_CONTENT).await;
    assert_eq!(asked.said.rest().await, "", "the edge has read it");
    let after = got(&edge);
    origin.asked().await.said.say(NEW).await;
    assert_eq!(after.await.unwrap().body, "new");
}

/// With an origin before it that nobody can reach.
fn config(folder: &Path, origin: &Driven) -> PathBuf {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let origin = origin.0.local_addr().unwrap();
    let origins = format!("origins = [\"http://{closed}\", \"http://{origin}\"]");
    keeping(folder, "256 MiB", &format!("{origins}\nmethods = [\"POST\"]"))
}

async fn get_of(edge: &Process, path: &str, origin: &Driven, answer: &str) -> String {
    let request = Client::plain(edge.http, HOST).get(path);
    let asking = tokio::spawn(async move { request.send().await });
    let mut asked = origin.asked().await;
    assert_eq!(field(&asked.head, "if-none-match"), None, "{path}");
    asked.said.say(answer).await;
    String::from_utf8(asking.await.unwrap().body.to_vec()).unwrap()
}

/// A process that has called on its origin, which it does when it starts.
async fn ready(config: &Path) -> Process {
    let process = Process::start(config);
    until_ready(&Client::plain(process.admin, HOST)).await;
    process
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_volume_kept_does_not_come_back_after_a_kill() {
    let (origin, folder) = (Driven::start(), TempDir::new().unwrap());
    let config = config(folder.path(), &origin);
    let large = |letter: &str| {
        let head = OLD.replace("Content-Length: 3\r\n\r\nold", "");
        let body = letter.repeat(200_000);
        format!("{head}Content-Length: 200000\r\n\r\n{body}")
    };
    let mut edge = ready(&config).await;
    assert_eq!(get_of(&edge, "/small", &origin, OLD).await, "old");
    assert_eq!(get_of(&edge, "/large", &origin, &large("o")).await, "o".repeat(200_000));
    assert_eq!(get_of(&edge, "/other", &origin, OLD).await, "old");
    edge.until_entries(4).await;
    for path in ["/small", "/large"] {
        let request = Client::plain(edge.http, HOST).request(Method::POST, path).body("hello");
        let asking = tokio::spawn(async move { request.send().await });
        let mut asked = origin.asked().await;
        assert_eq!(asked.said.exactly(5).await, b"hello", "who could not be reached got nothing");
        asked.said.say(NO_CONTENT).await;
        assert_eq!(asking.await.unwrap().status, 204);
        // At once: what the viewer knows counts.
        edge.kill();
        edge = ready(&config).await;
        if path == "/small" {
            assert_eq!(get_of(&edge, path, &origin, NEW).await, "new");
        }
    }
    assert_eq!(get_of(&edge, "/large", &origin, &large("n")).await, "n".repeat(200_000));
    let other = Client::plain(edge.http, HOST).get("/other").send().await;
    assert_eq!(other.body, "old", "what nobody changed is kept");
    assert!(origin.is_left_alone().await);
    edge.kill();
}

#[tokio::test]
async fn however_many_there_are_nothing_is_purged_and_nothing_written() {
    let (origin, folder) = (Driven::start(), TempDir::new().unwrap());
    let edge = origin
        .edge()
        .setting("memory.total", "256 MiB")
        .setting("ssd.state", &folder.path().join("state.json").to_string_lossy())
        .volume(folder.path(), "volume")
        .start();
    let journal = folder.path().join("state.purges");
    let before = fs::metadata(&journal).unwrap().len();
    for _ in 0..200 {
        change(&origin, &edge).await;
    }
    assert_eq!(edge.metric("tidegate_purge_entries", &[]).await, 0.0);
    assert_eq!(fs::metadata(&journal).unwrap().len(), before);
    assert_eq!(edge.metric("tidegate_ssd_index_entries", &[]).await, 0.0);
}
