//! The access log: in each format, moved without a line lost, telling no more of viewers than set.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::{Configured, Edge, HeadFault, Origin, PATIENCE, PIECE, Script, Speaks};

/// Waits until the files together have so many lines, and gives them, the oldest file first.
async fn logged(log: &Path, lines: usize) -> Vec<String> {
    let asked = Instant::now();
    loop {
        let moved = |number: &u32| fs::read_to_string(format!("{}.{number}", log.display())).ok();
        let mut files: Vec<String> = (1..).map_while(|number| moved(&number)).collect();
        files.reverse();
        files.push(fs::read_to_string(log).unwrap_or_default());
        let found: Vec<String> =
            files.iter().flat_map(|file| file.split_inclusive('\n')).map(str::to_owned).collect();
        if found.len() >= lines && found.iter().all(|line| line.ends_with('\n')) {
            return found;
        }
        assert!(asked.elapsed() < PATIENCE, "{} lines of {lines}", found.len());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn logging(origin: &Origin, folder: &TempDir) -> Configured {
    let log = folder.path().join("access.log");
    Edge::in_front_of(origin).setting("log.access", &log.to_string_lossy())
}

#[tokio::test]
async fn a_request_is_a_line_of_the_format_that_is_set() {
    let origin = Origin::serving("/a", Script::of(PIECE));
    for (format, expected) in [
        (
            "combined",
            [
                "127.0.0.0 - - [",
                " +0000] \"GET /a HTTP/1.1\" 200 65536 \"http://p/w\" \"a\\x22b\"\n",
            ],
        ),
        (
            "cdni",
            ["\t127.0.0.0/16\tGET\thttp://media.test/a\t", "\t\"a%22b\"\t\"http://p/w\"\t0\r\n"],
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let edge = logging(&origin, &folder)
            .setting("log.format", format)
            .setting("log.client_bits_v4", "16")
            .start();
        let asking = edge.get("/a").header("user-agent", "a\"b");
        assert_eq!(asking.header("referer", "http://p/w?secret").send().await.status, 200);
        let heads = if format == "cdni" { 5 } else { 0 };
        let lines = logged(&folder.path().join("access.log"), heads + 1).await;
        let line = lines.last().unwrap();
        assert!(lines.len() == heads + 1 && line.contains(expected[0]), "{lines:?}");
        assert!(line.ends_with(expected[1]), "{line}");
        // What operators ask of the appliance itself does not depend on it.
        assert_eq!(edge.status().await["recent"][0]["path"], "/a");
    }
}

#[tokio::test]
async fn who_leaves_before_there_is_a_status_is_listed_without_one() {
    let origin = Origin::serving("/a", Script::of(PIECE).head(HeadFault::Held));
    let edge = Edge::in_front_of(&origin).start();
    origin.serve("/b", Script::of(PIECE).head(HeadFault::Held));
    let leaving = [("/a", edge.client()), ("/b", edge.client_over_tls(Speaks::Http2))];
    for (number, (path, client)) in leaving.into_iter().enumerate() {
        let asked = client.get(path);
        let viewer = tokio::spawn(async move { asked.send().await });
        origin.until_requested(path, 1).await;
        viewer.abort();
        let asked = Instant::now();
        loop {
            let told = edge.status().await;
            let recent = told["recent"].as_array().unwrap();
            if recent.len() == number + 1 {
                let newest = &recent[0];
                assert_eq!((&newest["path"], &newest["outcome"]), (&path.into(), &LEFT.into()));
                assert!(newest["status"].is_null(), "{newest}");
                break;
            }
            assert!(asked.elapsed() < PATIENCE, "{path} is not listed");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

const LEFT: &str = "client_left";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_moved_while_it_is_written_loses_no_line() {
    const VIEWERS: usize = 4;
    const REQUESTS: usize = 700;
    let origin = Origin::serving("/a", Script::of(10));
    let folder = tempfile::tempdir().unwrap();
    let edge = logging(&origin, &folder)
        .setting("log.rotate", "{ size = \"1 MiB\", keep = 9 }")
        .setting("log.personal", "{ query = \"off\" }")
        .start();
    let long = format!("/a?{}", "x".repeat(10));
    let viewer = |number: usize| {
        let (client, long) = (edge.client(), &long);
        async move {
            for request in 0..REQUESTS {
                let name = format!("{number}-{request}-{}", "y".repeat(200));
                let page = format!("http://{}/", "z".repeat(600));
                let asking = client.get(long).header("user-agent", &name);
                assert_eq!(asking.header("referer", &page).send().await.status, 200);
            }
        }
    };
    tokio::join!(viewer(0), viewer(1), viewer(2), viewer(3));
    let log = folder.path().join("access.log");
    let lines = logged(&log, VIEWERS * REQUESTS).await;
    let told = |line: &String| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["path"], "/a");
        let name = line["user_agent"].as_str().unwrap().rsplit_once('-').unwrap().0.to_owned();
        let (viewer, request) = name.split_once('-').unwrap();
        (viewer.parse::<usize>().unwrap(), request.parse::<usize>().unwrap())
    };
    let mut told: Vec<_> = lines.iter().map(told).collect();
    told.sort_unstable();
    let asked = (0..VIEWERS).flat_map(|viewer| (0..REQUESTS).map(move |one| (viewer, one)));
    assert!(told.into_iter().eq(asked), "each request is one line of one file");
    assert!(log.with_extension("log.1").exists(), "it was moved");
    assert_eq!(edge.metric("tidegate_access_log_lines_dropped_total", &[]).await, 0.0);
}
