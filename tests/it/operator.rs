//! What an operator asks the binary about a running appliance, and what it answers.

use std::process::{Command, Output};

use crate::support::{Edge, Origin, PIECE, Script};

/// Runs the binary itself; blocks.
fn tidegate(words: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_tidegate")).args(words).output();
    output.unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn status_tells_what_a_running_appliance_does_and_that_one_does_not_run() {
    let origin = Origin::serving("/a", Script::of(PIECE));
    let mut edge = Edge::in_front_of(&origin).start();
    for _ in 0..2 {
        edge.get("/a").send().await;
    }
    let admin = format!("http://{}", edge.admin().address());
    let shown = tidegate(&["status", "--admin", &admin]);
    let words = text(&shown.stdout);
    assert!(shown.status.success(), "{}", text(&shown.stderr));
    assert!(words.contains(": ready, up "), "{words}");
    assert!(words.contains("sent         128.0 KiB: "), "{words}");
    assert!(words.contains("offload      50.0%; 64.0 KiB from origins in 1 request\n"), "{words}");

    let shown = tidegate(&["status", "--admin", &admin, "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!((&status["phase"], &status["requests"]), (&"ready".into(), &2.into()));
    assert!(status["ssd"].is_null(), "there is no ssd tier: {status}");

    edge.drain().await;
    let shown = tidegate(&["status", "--admin", &admin]);
    let line = text(&shown.stderr);
    assert_eq!(shown.status.code(), Some(1));
    assert!(line.ends_with("connection refused; is it running?\n"), "{line}");
    assert_eq!((line.lines().count(), shown.stdout.len()), (1, 0), "{line}");
}
