//! A drain takes no more work, finishes what is there within a bound, and ends.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::thread;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::support::{
    BLOCK, Edge, Ending, Origin, PATIENCE, PIECE, Process, Script, Speaks, Verdict, configured,
    follow, judge, text,
};

const LENGTH: u64 = 8 * BLOCK;
/// What a command says before anybody reads it.
const LINES_MAX: usize = 16;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_under_way_finish_and_nobody_new_is_let_in() {
    let origin = Origin::serving("/a", Script::of(LENGTH).ending(Ending::HeldAt(BLOCK)));
    let mut edge = Edge::in_front_of(&origin).setting("limits.drain_timeout", "1h").start();
    let clients =
        [edge.client(), edge.client_over_tls(Speaks::Http1), edge.client_over_tls(Speaks::Http2)];
    let mut readers = vec![];
    for client in &clients {
        let mut reader = client.get("/a").open().await;
        reader.read_exactly(PIECE as usize).await.unwrap();
        readers.push(reader);
    }
    let draining = tokio::spawn(async move {
        edge.drain().await;
    });
    until_refused(&clients[0]).await;
    assert!(!draining.is_finished(), "bodies are under way");
    origin.release("/a");
    for (number, mut reader) in readers.into_iter().enumerate() {
        let came = follow(&mut reader, origin.content("/a", 1), PIECE).await;
        assert_eq!(came, (LENGTH - PIECE, true), "client {number}");
    }
    draining.await.unwrap();
}

/// Waits until no connection is taken any more, or none is answered.
async fn until_refused(client: &crate::support::Client) {
    let asked = tokio::time::Instant::now();
    while client.get("/a").range(0..1).try_send().await.is_ok() {
        assert!(asked.elapsed().as_secs() < 20, "new viewers are still let in");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_body_that_does_not_end_is_cut_at_the_bound() {
    let origin = Origin::serving("/a", Script::of(LENGTH).ending(Ending::HeldAt(BLOCK)));
    let mut edge = Edge::in_front_of(&origin).setting("limits.drain_timeout", "300ms").start();
    let mut reader = edge.get("/a").open().await;
    reader.read_exactly(PIECE as usize).await.unwrap();
    edge.drain().await;
    let (bytes, complete) = follow(&mut reader, origin.content("/a", 1), PIECE).await;
    assert!(!complete && bytes <= BLOCK - PIECE);
}

#[tokio::test]
async fn an_idle_edge_drains_at_once_though_connections_are_open() {
    let origin = Origin::serving("/a", Script::of(PIECE));
    let mut edge = Edge::in_front_of(&origin).setting("limits.drain_timeout", "1h").start();
    let mut idle = vec![];
    for client in [edge.client(), edge.client_over_tls(Speaks::Http2)] {
        let connection = client.connect().await.unwrap();
        let streaming = client.get("/a").on(connection).await.unwrap();
        let (response, connection) = streaming.finish_and_keep().await.unwrap();
        assert_eq!(judge(&origin, "/a", &response), Verdict::Whole { version: 1 });
        idle.push(connection.expect("it is kept"));
    }
    let drained = tokio::time::timeout(std::time::Duration::from_secs(20), edge.drain()).await;
    drained.expect("idle connections hold no drain up");
}

#[tokio::test]
async fn health_tells_what_a_load_balancer_needs() {
    let origin = Origin::serving("/a", Script::of(PIECE));
    let edge = Edge::in_front_of(&origin).start();
    for path in ["/health/live", "/health/ready"] {
        assert_eq!(edge.admin().get(path).send().await.status, 200, "{path}");
    }
    // Viewers are not shown what operators are.
    assert_eq!(edge.get("/metrics").send().await.status, 404);
}

/// Asks for something that an operator may; what is said of the drain.
async fn operate(edge: &Edge, path: &str, asked: &Value) -> Value {
    let request = edge.admin().request(http::Method::POST, path).json(asked);
    let response = request.header("content-type", "application/json").send().await;
    assert_eq!(response.status, 200, "{}", text(&response.body));
    let said: Value = serde_json::from_slice(&response.body).unwrap();
    said["drain"].clone()
}

async fn ready(edge: &Edge) -> (u16, String) {
    let response = edge.admin().get("/health/ready").send().await;
    (response.status, text(&response.body))
}

async fn until_stage(edge: &Edge, stage: &str) {
    let label = format!("stage=\"{stage}\"");
    edge.until_metric("tidegate_drain_stage", &[&label], |value| value == 1.0).await;
}

#[tokio::test]
async fn viewers_are_told_to_leave_with_an_answer_and_who_comes_is_served() {
    let origin = Origin::serving("/a", Script::of(PIECE));
    let edge = Edge::in_front_of(&origin).setting("limits.drain_timeout", "1s").start();
    let [plain, h2] = [edge.client(), edge.client_over_tls(Speaks::Http2)];
    let mut kept = vec![];
    for client in [&plain, &h2] {
        let streaming = client.get("/a").on(client.connect().await.unwrap()).await.unwrap();
        assert_eq!(streaming.header("connection"), "");
        kept.push(streaming.finish_and_keep().await.unwrap().1.expect("it is kept"));
    }

    let drain = operate(&edge, "/drain", &json!({ "within_seconds": 3_600 })).await;
    assert_eq!(drain["stage"], "leaving");
    assert_eq!(drain["safe_to_power_off"], false);
    assert_eq!(ready(&edge).await, (503, "draining\n".to_owned()));
    // HTTP/2 says goodbye by itself; HTTP/1.1 with the next answer, and until then it waits for it.
    edge.until_metric("tidegate_connections_open", &[], |open| open == 1.0).await;
    let (_, first) = (kept.pop(), kept.pop().unwrap());
    let streaming = plain.get("/a").on(first).await.unwrap();
    assert_eq!(streaming.header("connection"), "close");
    let (response, connection) = streaming.finish_and_keep().await.unwrap();
    assert_eq!(judge(&origin, "/a", &response), Verdict::Whole { version: 1 });
    edge.until_metric("tidegate_connections_open", &[], |open| open == 0.0).await;
    drop(connection);
    for client in [&plain, &h2] {
        let response = client.get("/a").send().await;
        assert_eq!(judge(&origin, "/a", &response), Verdict::Whole { version: 1 });
    }

    assert_eq!(operate(&edge, "/undrain", &json!({})).await, Value::Null);
    assert_eq!(ready(&edge).await, (200, "ready\n".to_owned()));
    let streaming = plain.get("/a").on(plain.connect().await.unwrap()).await.unwrap();
    assert_eq!(streaming.header("connection"), "");
}

#[tokio::test]
async fn at_the_end_who_comes_is_refused_and_what_runs_is_finished() {
    let origin = Origin::serving("/a", Script::of(LENGTH).ending(Ending::HeldAt(BLOCK)));
    let edge = Edge::in_front_of(&origin).setting("limits.drain_timeout", "1h").start();
    let clients = [edge.client(), edge.client_over_tls(Speaks::Http2)];
    let mut readers = vec![];
    for client in &clients {
        let mut reader = client.get("/a").open().await;
        reader.read_exactly(PIECE as usize).await.unwrap();
        readers.push(reader);
    }
    operate(&edge, "/drain", &json!({ "within_seconds": 3_600 })).await;
    until_stage(&edge, "refusing").await;
    for client in &clients {
        let response = client.get("/a").send().await;
        assert_eq!((response.status, response.header("retry-after").as_str()), (503, "2"));
    }
    origin.release("/a");
    for mut reader in readers {
        let came = follow(&mut reader, origin.content("/a", 1), PIECE).await;
        assert_eq!(came, (LENGTH - PIECE, true));
    }
    until_stage(&edge, "drained").await;
    assert_eq!(ready(&edge).await, (503, "drained\n".to_owned()));
    assert_eq!(edge.get("/a").send().await.status, 503);
    let refused = edge.metric("tidegate_requests_refused_total", &["draining"]).await;
    assert_eq!(refused, 3.0);

    operate(&edge, "/undrain", &json!({})).await;
    assert_eq!(edge.get("/a").range(0..9).send().await.status, 206);
    assert_eq!(edge.metric("tidegate_drain_stage", &[]).await, 0.0);
}

#[tokio::test]
async fn what_still_runs_when_the_time_is_over_is_cut_and_the_appliance_stays() {
    let origin = Origin::serving("/a", Script::of(LENGTH).ending(Ending::HeldAt(BLOCK)));
    let edge = Edge::in_front_of(&origin).start();
    let mut reader = edge.get("/a").open().await;
    reader.read_exactly(PIECE as usize).await.unwrap();
    operate(&edge, "/drain", &json!({ "within_seconds": 0 })).await;
    let (bytes, complete) = follow(&mut reader, origin.content("/a", 1), PIECE).await;
    assert!(!complete && bytes <= BLOCK - PIECE);
    until_stage(&edge, "drained").await;
    assert_eq!(edge.metric("tidegate_connections_closed_total", &["drain"]).await, 1.0);
    operate(&edge, "/undrain", &json!({})).await;
    assert_eq!(edge.get("/a").range(0..9).send().await.status, 206);
}

#[tokio::test]
async fn an_operator_drains_waits_looks_and_takes_it_back() {
    let folder = TempDir::new().unwrap();
    let origin = Origin::serving("/a", Script::of(10));
    let site = format!(
        "[[sites]]\nname = \"a\"\nhosts = [\"a\"]\norigins = [\"http://{}\"]\n",
        origin.address()
    );
    let token = folder.path().join("token");
    fs::write(&token, "0123456789abcdef0123456789abcdef").unwrap();
    let more = format!("limits.drain_timeout = \"1h\"\nadmin.token_file = {token:?}\n{site}");
    let process = Process::start(&configured(folder.path(), &more));
    let command = |words: &[&str]| process.answers(words);
    let bearing =
        |words: &[&str]| command(&[words, &["--token-file", token.to_str().unwrap()]].concat());
    let (code, said) = command(&["drain"]);
    assert!(code == 1 && said.contains("not drained: "), "{said}");

    let (code, said) = bearing(&["drain", "--within", "1h", "--for", "3h", "--wait"]);
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("draining: viewers are told to leave; who comes is"), "{said}");
    assert_eq!((code, lines[1]), (0, "drained: safe to power off"));
    let (_, status) = command(&["status"]);
    assert!(status.contains(": drained, up "), "{status}");
    assert!(
        status.contains("drained: safe to power off; viewers are served again in "),
        "{status}"
    );

    assert_eq!(bearing(&["undrain"]), (0, "viewers are served\n".to_owned()));
    let (code, said) = bearing(&["drain", "--at", "2125-01-01T00:00:00Z"]);
    assert_eq!((code, said.as_str()), (64, "not drained: that is more than a year from now\n"));
    let (code, said) = bearing(&["drain", "--within", "10m", "--for", "5m"]);
    assert!(code == 64 && said.contains("it would be over before the 10 minutes are"), "{said}");
    let (code, said) = bearing(&["undrain", "--json"]);
    assert_eq!((code, said.as_str()), (0, "{\"drain\":null}\n"));
    let logged = process.stop();
    let told = |words: &str| logged.iter().any(|line| line.contains(words));
    assert!(told("draining: 0 viewers are told to leave") && told("drained: safe to power off"));
    assert!(told("the drain is over: viewers are served"));
}

#[tokio::test]
async fn who_waits_off_a_terminal_is_told_at_once_and_at_each_change_how_many_are_left() {
    let origin = Origin::serving("/a", Script::of(LENGTH).ending(Ending::HeldAt(BLOCK)));
    let edge = Edge::in_front_of(&origin).setting("limits.drain_timeout", "1h").start();
    let mut reader = edge.get("/a").open().await;
    reader.read_exactly(PIECE as usize).await.unwrap();
    let admin = edge.admin().address().to_string();
    let mut waiting = Command::new(env!("CARGO_BIN_EXE_tidegate"))
        .args(["drain", "--within", "2h", "--wait", "--admin", &admin])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let told = BufReader::new(waiting.stderr.take().unwrap()).lines();
    let (tell, mut told_by) = mpsc::channel(LINES_MAX);
    let telling = thread::spawn(move || {
        told.for_each(|line| tell.blocking_send(line.unwrap()).unwrap());
    });
    let mut next = async || {
        let told = timeout(PATIENCE, told_by.recv()).await;
        told.expect("it says something at once").expect("it says something")
    };
    let leaving = next().await;
    assert!(leaving.starts_with("draining: viewers are told to leave; who comes"), "{leaving}");
    assert!(leaving.ends_with("; 1 viewer left"), "{leaving}");

    operate(&edge, "/drain", &json!({ "within_seconds": 3_600 })).await;
    let refusing = next().await;
    assert!(refusing.starts_with("draining: who comes is refused; what is left"), "{refusing}");
    assert!(refusing.ends_with("; 1 viewer left"), "{refusing}");

    origin.release("/a");
    let came = follow(&mut reader, origin.content("/a", 1), PIECE).await;
    assert_eq!(came, (LENGTH - PIECE, true));
    drop(reader);
    let ended = tokio::task::spawn_blocking(move || waiting.wait_with_output().unwrap());
    let ended = ended.await.unwrap();
    telling.join().unwrap();
    assert!(ended.status.success());
    let said = text(&ended.stdout);
    assert_eq!(said.lines().last(), Some("drained: safe to power off"), "{said}");
}
