//! Why viewers are where they are served, told by the decision that they come by: in the log and
//! in a metric, never to an origin, and whatever they write into it.

use std::fs;
use std::path::Path;
use std::time::Instant;

use serde_json::Value;
use tempfile::TempDir;

use super::asking;
use crate::support::{Client, Origin, PATIENCE, Process, Script, configured, text};

/// One appliance under the name `here`, which steers too; `there` is another one.
fn steered(folder: &Path, origin: &Origin, more: &str) -> Process {
    let settings = format!(
        "listeners.steering = [\"127.0.0.1:0\"]\n[steering]\n{more}\n[[sites]]\n\
         name = \"media\"\nhosts = [\"here\", \"there\"]\norigins = \"http://{}\"\n\
         [[steering.appliances]]\nname = \"here\"\naddresses = [\"192.0.2.1\"]\n\
         capacity = \"10 Gbit/s\"\n",
        origin.address(),
    );
    let path = configured(folder, &settings);
    let log = format!("log.access = {:?}", folder.join("access.log"));
    let written = fs::read_to_string(&path).unwrap().replace("log.access = \"off\"", &log);
    fs::write(&path, written).unwrap();
    Process::start(&path)
}

/// The lines of the log, once there are so many.
async fn logged(folder: &Path, count: usize) -> Vec<Value> {
    let asked = Instant::now();
    loop {
        let lines = fs::read_to_string(folder.join("access.log")).unwrap_or_default();
        let lines: Vec<&str> = lines.lines().collect();
        if lines.len() >= count {
            return lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        }
        assert!(asked.elapsed() < PATIENCE, "{} lines, not {count}", lines.len());
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

async fn counted(process: &Process) -> Vec<String> {
    let metrics = Client::plain(process.admin, "admin").get("/metrics").send().await;
    let prefix = "tidegate_steered_requests_total";
    let metrics = text(&metrics.body);
    let lines = metrics.lines().filter_map(|line| line.strip_prefix(prefix));
    lines.filter(|line| !line.ends_with(" 0")).map(str::to_owned).collect()
}

/// How many came as they should, and how many by their own choice. Who comes while the last of it
/// is being stored is told that others had it brought, so how it was served does not count.
fn by_cause(counted: &[String]) -> (u64, u64) {
    let of = |cause: &str| {
        let his = counted.iter().filter(|line| line.contains(cause));
        his.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    };
    (of("\"content\""), of("\"viewer\""))
}

/// Where a viewer of that address is sent, without the host.
async fn sent(process: &Process) -> String {
    let steering = asking(process, " steering at ").await;
    let response = steering.get("/steer/v1/go/media/film/1.m4s?a=b").send().await;
    assert_eq!(response.status, 302);
    response.header("location").strip_prefix("http://here").unwrap().to_owned()
}

#[tokio::test]
async fn a_miss_is_counted_by_why_its_viewer_is_there_and_no_origin_sees_the_decision() {
    let (folder, origin) = (TempDir::new().unwrap(), Origin::start());
    origin.serve("/film/1.m4s?a=b", Script::of(1_000));
    let process = steered(folder.path(), &origin, "");
    let target = sent(&process).await;
    let (here, there) = (Client::plain(process.http, "here"), Client::plain(process.http, "there"));
    for (client, target) in [
        (&here, &*target),
        (&here, &target),
        (&there, &target),
        (&here, "/film/1.m4s?a=b"),
        (&here, "/film/1.m4s?a=b&tidegate-decision=a%0ab"),
    ] {
        let response = client.get(target).send().await;
        assert_eq!((response.status, response.body.len()), (200, 1_000), "{target}");
    }
    let asked: Vec<_> = origin.all_requests().into_iter().map(|one| one.head.target).collect();
    assert_eq!(asked, ["/film/1.m4s?a=b"]);
    let lines = logged(folder.path(), 5).await;
    let decision = target.split_once("tidegate-decision=").unwrap().1;
    let told = |line: &Value| (line["decision"].clone(), line["steered"].clone());
    assert_eq!(told(&lines[0]), (decision.into(), "content".into()));
    assert_eq!(told(&lines[0]), told(&lines[1]));
    assert_eq!(lines[2]["steered"], "viewer", "it was made for another one");
    assert_eq!(told(&lines[3]), (Value::Null, Value::Null));
    assert_eq!(told(&lines[4]), (Value::Null, Value::Null));
    assert!(lines.iter().all(|line| line["path"] == "/film/1.m4s?a="), "{lines:?}");
    let counted = counted(&process).await;
    assert_eq!(by_cause(&counted), (2, 3), "{counted:?}");
    assert!(counted[0].starts_with("{cause=\"content\""), "{counted:?}");
    process.stop();
}

#[tokio::test]
async fn where_there_is_a_secret_a_forged_decision_is_the_viewers_choice() {
    let (folder, origin) = (TempDir::new().unwrap(), Origin::start());
    origin.serve("/film/1.m4s?a=b", Script::of(1_000));
    fs::write(folder.path().join("secret"), "0123456789abcdef\n").unwrap();
    let process = steered(folder.path(), &origin, "secret_file = \"secret\"");
    let (target, here) = (sent(&process).await, Client::plain(process.http, "here"));
    let forged = target.replace(".0c.", ".0h.");
    let bare = target.rsplit_once('.').unwrap().0;
    for target in [&*target, &forged, bare] {
        assert_eq!(here.get(target).send().await.status, 200, "{target}");
    }
    assert_eq!(by_cause(&counted(&process).await), (1, 2));
    process.stop();
}
