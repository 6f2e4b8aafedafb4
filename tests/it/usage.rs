//! What each site was served is told of its month: all of it, once, whatever becomes of a process.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    BLOCK, Client, Edge, Ending, Origin, PIECE, Process, Script, configured, follow, text, tidegate,
};

/// What is told of all sites and of each.
async fn told(admin: &Client) -> Value {
    let said = admin.get("/usage").send().await;
    assert_eq!(said.status, 200, "{:?}", said.body);
    serde_json::from_slice(&said.body).unwrap()
}

/// Of one site: bytes served, bytes of origins, requests.
fn of(told: &Value, site: &str) -> [u64; 3] {
    let sites = told["sites"].as_array().unwrap().iter().chain(told.get("all"));
    let found = sites.into_iter().find(|one| one["site"] == site);
    let found = found.unwrap_or_else(|| panic!("{site} is not in {told}"));
    ["served_bytes", "origin_bytes", "requests"].map(|what| found[what].as_u64().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_site_is_told_by_itself_however_many_there_are() {
    let (origin, folder) = (Origin::serving("/a", Script::of(PIECE)), TempDir::new().unwrap());
    let state = folder.path().join("state.json");
    let mut edge = Edge::in_front_of(&origin)
        .setting("usage.months", "2")
        .setting("ssd.state", state.to_str().unwrap());
    let names: Vec<_> = (0..60).map(|number| format!("site-{number}")).collect();
    for name in &names {
        edge = edge.site(name);
    }
    let edge = edge.start();
    for (number, name) in names.iter().enumerate() {
        for _ in 0..=number % 3 {
            let viewer = edge.client().host(&format!("{name}.test"));
            assert_eq!(viewer.get("/a").send().await.status, 200);
        }
    }
    let told = told(&edge.admin()).await;
    for (number, name) in names.iter().enumerate() {
        let requests = 1 + number as u64 % 3;
        assert_eq!(of(&told, name), [requests * PIECE, PIECE, requests], "{name}");
    }
    let served = edge.metric("tidegate_response_body_bytes_total", &[]).await;
    let fetched = edge.metric("tidegate_origin_body_bytes_total", &[]).await;
    let [all_served, all_fetched, requests] = of(&told, "*");
    assert_eq!((all_served as f64, all_fetched as f64), (served, fetched));
    assert_eq!(requests, 120);
}

#[tokio::test]
async fn a_reload_an_upgrade_and_a_restart_lose_nothing_and_count_nothing_twice() {
    let folder = TempDir::new().unwrap();
    let origin = Origin::serving("/a", Script::of(PIECE));
    origin.serve("/b", Script::of(PIECE));
    origin.serve("/held", Script::of(4 * BLOCK).ending(Ending::HeldAt(BLOCK)));
    let site = |name: &str| {
        let at = origin.address();
        format!(
            "[[sites]]\nname = {name:?}\nhosts = [\"{name}.test\"]\norigins = [\"http://{at}\"]\n"
        )
    };
    let config = configured(folder.path(), &(site("film") + &site("gone")));
    let mut process = Process::start(&config);
    let [film, gone] = ["film.test", "gone.test"].map(|host| Client::plain(process.http, host));
    for viewer in [&film, &gone] {
        assert_eq!(viewer.get("/a").send().await.status, 200);
    }
    configured(folder.path(), &(site("film") + &site("new")));
    let admin = process.admin.to_string();
    let reloaded = tidegate(&["reload", "--admin", &admin]);
    assert!(reloaded.status.success(), "{}", text(&reloaded.stderr));
    assert_eq!(gone.get("/a").send().await.status, 421);
    let new = Client::plain(process.http, "new.test");
    assert_eq!(new.get("/a").send().await.status, 200);
    let asked = Client::plain(process.admin, "localhost");
    let before = told(&asked).await;
    for site in ["film", "gone", "new"] {
        assert_eq!(of(&before, site), [PIECE, PIECE, 1], "{before}");
    }

    // The one before goes on serving, and both count.
    let mut under_way = film.get("/held").open().await;
    under_way.read_exactly(PIECE as usize).await.unwrap();
    assert_eq!(process.upgrade().0, 0);
    // Whichever of the two accepts it has not got this one.
    assert_eq!(film.get("/b").send().await.status, 200);
    origin.release("/held");
    let came = follow(&mut under_way, origin.content("/held", 1), PIECE).await;
    assert_eq!(came, (4 * BLOCK - PIECE, true));
    drop(under_way);
    process.until_left().await;
    let film_served = [2 * PIECE + 4 * BLOCK, 2 * PIECE + 4 * BLOCK, 3];
    let after = told(&asked).await;
    assert_eq!(of(&after, "film"), film_served, "{after}");
    assert_eq!(of(&after, "gone"), [PIECE, PIECE, 1], "{after}");
    assert_eq!(after["damaged_lines"], 0);
    process.stop();

    let process = Process::start(&config);
    let [film, asked] = [(process.http, "film.test"), (process.admin, "localhost")]
        .map(|(address, host)| Client::plain(address, host));
    assert_eq!(film.get("/a").send().await.status, 200);
    let [served, fetched, requests] = film_served;
    let again = told(&asked).await;
    assert_eq!(of(&again, "film"), [served + PIECE, fetched + PIECE, requests + 1], "{again}");
    let silent = asked.get("/usage?month=2020-01").send().await;
    let silent: Value = serde_json::from_slice(&silent.body).unwrap();
    assert_eq!(silent["sites"], serde_json::json!([]), "nobody knows of it: {silent}");
    assert!(silent.get("all").or(silent.get("counted_since")).is_none(), "nor is it 0: {silent}");
    // A new box: nothing of the month before it was installed is due, or missing.
    let since = again["counted_since"].as_str().unwrap();
    assert!(since >= again["start"].as_str().unwrap(), "{again}");
    let due = again["samples_due"].as_u64().unwrap();
    assert!(due < 12 && again["samples_missing"] == 0, "{again}");
    process.stop();
    by_commands(folder.path(), &config, served + PIECE);
}

/// The box is down: its files are read, exported and verified, and what was changed is refused.
fn by_commands(folder: &Path, config: &Path, served: u64) {
    let config = config.to_str().unwrap();
    let shown = tidegate(&["usage", "--config", config, "--csv"]);
    let csv = text(&shown.stdout);
    let film = csv.lines().find(|line| line.contains(",film,")).unwrap_or_else(|| panic!("{csv}"));
    assert!(film.contains(&format!(",{served},")), "{film}");
    assert!(text(&shown.stderr).contains("read from"), "{}", text(&shown.stderr));

    let nobody = tidegate(&["usage", "--config", config, "--site", "nobodys"]);
    assert_eq!(nobody.status.code(), Some(1), "{}", text(&nobody.stdout));
    let said = text(&nobody.stderr);
    assert!(said.contains("nothing is kept of a site \"nobodys\""), "{said}");
    assert!(said.contains(", and none is configured; "), "{said}");
    let silent = ["usage", "--config", config, "--month", "2020-01", "--site", "film"];
    let silent = tidegate(&silent);
    assert_eq!(silent.status.code(), Some(1), "{}", text(&silent.stdout));
    assert!(text(&silent.stderr).contains("nothing is kept of 2020-01 on "));

    let in_folder = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let names = ["key.pem", "public.pem", "film.json", "none.json"];
    let [key, public, out, none] = names.map(in_folder);
    fs::write(&key, include_str!("../../src/usage/signed/key.pem")).unwrap();
    fs::write(&public, include_str!("../../src/usage/signed/public.pem")).unwrap();
    let export = ["usage", "export", "--config", config, "--site", "film", "--samples"];
    let done = tidegate(&[&export[..], &["--key", &key, "--out", &out]].concat());
    assert!(done.status.success(), "{}", text(&done.stderr));
    let none = [&export[..4], &["--site", "nobodys", "--key", &key, "--out", &none]].concat();
    assert_eq!(tidegate(&none).status.code(), Some(1));
    assert!(!folder.join("none.json").exists(), "nothing is signed");
    let verify = || tidegate(&["usage", "verify", &out, "--key", &public]);
    let verified = verify();
    assert!(verified.status.success(), "{}", text(&verified.stderr));
    let document = fs::read_to_string(&out).unwrap();
    let told: Value = serde_json::from_str(&document).unwrap();
    let since = told["counted_since"].as_str().unwrap();
    let says = text(&verified.stdout).contains(&format!(", counted since {since}"));
    assert_eq!(says, since > told["start"].as_str().unwrap(), "{}", text(&verified.stdout));
    assert!(!document.contains("\"*\""), "who gets it learns nothing of others: {document}");
    let samples = told["sites"][0]["samples"].as_array().unwrap();
    let sum: u64 = samples.iter().map(|sample| sample[1][0].as_u64().unwrap()).sum();
    assert_eq!((of(&told, "film")[0], sum), (served, served));
    fs::write(&out, document.replace(&served.to_string(), "1")).unwrap();
    let refused = verify();
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused.stdout));
    assert!(text(&refused.stderr).contains("is not as it was signed"));
}
