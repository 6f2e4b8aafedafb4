//! A sick volume costs nobody a wrong byte: what the others hold is served from there, what it
//! holds from an origin as far as `ssd.bypass` allows, and whoever comes then waits or is refused.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::Instant;

use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::support::{
    BLOCK, Configured, Edge, Origin, PIECE, Response, Script, Validators, Verdict, judge,
};

const WHOLE: Verdict = Verdict::Whole { version: 1 };
const REFUSED: Verdict = Verdict::Status(503);

/// In front of `origin`, with the volume `well`, a file, and `sick`, a device that may fall ill.
fn beside(origin: &Origin, folder: &Path, bypass: &str) -> Configured {
    let sick = folder.join("sick");
    Edge::in_front_of(origin)
        .setting("memory.total", "256 MiB")
        .setting("fill.connect_timeout", "1s")
        .setting("fill.first_byte_timeout", "2s")
        .setting("fill.progress_timeout", "2s")
        .setting("ssd.admission", "all")
        .setting("ssd.read_deadline", "100ms")
        .setting("ssd.bypass", bypass)
        .setting("ssd.state", &folder.join("state.json").to_string_lossy())
        .volume(folder, "well")
        .volume_with(&format!(
            "path = {sick:?}\nsize = \"256 MiB\"\nwrites_per_day = \"1000x\"\nsimulate = \"\""
        ))
}

/// Paths by the volume that holds them.
type Homes = HashMap<&'static str, Vec<String>>;

/// Has objects of `length` bytes kept one by one, until each volume holds `count` at least.
async fn keep(origin: &Origin, edge: &Edge, length: u64, count: usize) -> Homes {
    let mut homes = Homes::from([("well", vec![]), ("sick", vec![])]);
    let records = if length <= PIECE { 1.0 } else { 1.0 + length.div_ceil(BLOCK) as f64 };
    for number in 0.. {
        if homes.values().all(|paths| paths.len() >= count) {
            break;
        }
        let path = format!("/{length}/{number}");
        origin.serve(&path, Script::of(length));
        let before = entries(edge).await;
        assert_eq!(judge(origin, &path, &edge.get(&path).send().await), WHOLE, "{path}");
        let all = before[0] + before[1] + records;
        edge.until_metric("tidegate_ssd_index_entries", &[], |value| value >= all).await;
        let home = if entries(edge).await[0] > before[0] { "well" } else { "sick" };
        homes.get_mut(home).unwrap().push(path);
    }
    homes
}

/// Records on `well` and on `sick`.
async fn entries(edge: &Edge) -> [f64; 2] {
    let of = |name: &'static str| edge.metric("tidegate_ssd_index_entries", labels(name));
    [of("well").await, of("sick").await]
}

fn labels(name: &str) -> &'static [&'static str] {
    if name == "well" { &["volume=\"well\""] } else { &["volume=\"sick\""] }
}

async fn bypassed(edge: &Edge) -> u64 {
    edge.metric("tidegate_ssd_bypassed_bytes_total", &[]).await as u64
}

async fn until_sick_is(edge: &Edge, state: &str) {
    let state = format!("state={state:?}");
    edge.until_metric("tidegate_ssd_state", &["volume=\"sick\"", &state], |value| value == 1.0)
        .await;
}

fn sent(origin: &Origin, paths: &[String]) -> u64 {
    paths.iter().map(|path| origin.bytes_sent(path)).sum()
}

/// Asks for all of them at once.
async fn together(edge: &Edge, paths: &[String]) -> Vec<(String, Response)> {
    let mut viewers = JoinSet::new();
    for path in paths {
        let (asked, path) = (edge.get(path), path.clone());
        viewers.spawn(async move { (path, asked.send().await) });
    }
    viewers.join_all().await
}

/// What ram and the volume `well` hold is served, and nobody is asked for it.
async fn the_others_notice_nothing(origin: &Origin, edge: &Edge, homes: &Homes) {
    let before = sent(origin, &homes["well"]);
    for evicted in [100, 0] {
        edge.evict(evicted);
        for path in &homes["well"] {
            assert_eq!(judge(origin, path, &edge.get(path).send().await), WHOLE, "{path}");
        }
    }
    assert_eq!(sent(origin, &homes["well"]), before);
}

#[tokio::test]
async fn reads_that_stall_go_to_the_origin_within_the_bypass() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    let edge = beside(&origin, folder.path(), "2 MiB").start();
    let homes = keep(&origin, &edge, BLOCK, 8).await;
    edge.falls_ill("sick", "stall-reads=2s");
    edge.evict(100);
    let (before, asked) = (sent(&origin, &homes["sick"]), Instant::now());

    let mut whole = 0;
    for (path, response) in together(&edge, &homes["sick"]).await {
        let verdict = judge(&origin, &path, &response);
        assert!([WHOLE, REFUSED].contains(&verdict), "{path}: {verdict:?}");
        whole += u64::from(verdict == WHOLE);
    }
    let seconds = asked.elapsed().as_secs() + 1;
    let from_origin = sent(&origin, &homes["sick"]) - before;

    assert!(whole >= 2, "{whole}");
    assert_eq!(from_origin, whole * BLOCK);
    assert_eq!(from_origin, bypassed(&edge).await, "each byte is accounted for");
    // One second's worth was there at the start, and the last one may overdraw.
    assert!(from_origin <= (seconds + 1) * 2 * BLOCK + BLOCK, "{from_origin} in {seconds} s");
    the_others_notice_nothing(&origin, &edge, &homes).await;
    let late = ["volume=\"sick\"", "kind=\"late\""];
    assert!(edge.metric("tidegate_ssd_errors_total", &late).await >= 1.0);
}

#[tokio::test]
async fn viewers_of_one_block_of_a_stalled_volume_cost_one_bypass() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    // With room for them all: a run that finds no memory ends, and the rest is paid for once more.
    let edge = beside(&origin, folder.path(), "64 MiB").ram("512 MiB");
    let edge = edge.setting("memory.total", "1 GiB").workers(1).start();
    let homes = keep(&origin, &edge, BLOCK, 4).await;
    edge.falls_ill("sick", "stall-reads=2s");
    edge.evict(100);
    let before = sent(&origin, &homes["sick"]);

    let viewers: Vec<_> = homes["sick"].iter().flat_map(|path| vec![path.clone(); 50]).collect();
    for (path, response) in together(&edge, &viewers).await {
        assert_eq!(judge(&origin, &path, &response), WHOLE);
    }

    let from_origin = sent(&origin, &homes["sick"]) - before;
    assert_eq!(from_origin, homes["sick"].len() as u64 * BLOCK);
    let parked = edge.metric("tidegate_fill_runs_finished_total", &["parked"]).await;
    assert_eq!((parked, bypassed(&edge).await), (0.0, from_origin));
}

/// RFC 9218 section 10: anybody may say that he is in no hurry.
#[tokio::test]
async fn nobody_waits_for_the_read_of_who_lets_others_go_first() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    let edge = beside(&origin, folder.path(), "0 MiB").setting("ssd.read_deadline", "20s").start();
    let paths = &keep(&origin, &edge, BLOCK, 4).await["sick"];
    edge.falls_ill("sick", "stall-reads=5s");
    edge.evict(100);
    let mut patient = JoinSet::new();
    for path in paths {
        let asked = edge.get(path).header("priority", "u=7");
        patient.spawn(async move { asked.send().await });
    }
    let depth = ["volume=\"sick\""];
    edge.until_metric("tidegate_ssd_queue_depth", &depth, |reads| reads >= 1.0).await;
    edge.falls_ill("sick", "");
    for (path, response) in together(&edge, paths).await {
        assert_eq!(judge(&origin, &path, &response), WHOLE);
    }
    let waits = std::iter::from_fn(|| patient.try_join_next()).count() < paths.len();
    assert!(waits, "his read has come first");
}

#[tokio::test]
async fn a_late_read_of_who_lets_others_go_first_is_not_held_against_its_volume() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    let edge = beside(&origin, folder.path(), "0 MiB").start();
    let paths = &keep(&origin, &edge, BLOCK, 4).await["sick"];
    edge.falls_ill("sick", "stall-reads=2s");
    edge.evict(100);
    let patient = edge.get(&paths[0]).header("priority", "u=7").send().await;
    let late = ["volume=\"sick\"", "kind=\"late\""];
    assert!(edge.metric("tidegate_ssd_errors_total", &late).await >= 1.0);
    assert_eq!(judge(&origin, &paths[0], &patient), REFUSED);
    edge.falls_ill("sick", "");
    for (path, response) in together(&edge, paths).await {
        assert_eq!(judge(&origin, &path, &response), WHOLE);
    }
}

#[tokio::test]
async fn without_a_bypass_no_origin_is_asked_for_what_a_stalled_volume_holds() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    let edge = beside(&origin, folder.path(), "0 MiB").start();
    let large = keep(&origin, &edge, 2 * BLOCK + 5, 2).await;
    let small = keep(&origin, &edge, 60_000, 2).await;
    let paths: Vec<String> = [&large["sick"][..], &small["sick"][..]].concat();
    edge.falls_ill("sick", "stall-reads=60s");
    edge.evict(100);
    let before = sent(&origin, &paths);

    let viewers = [&paths[..], &paths[..]].concat();
    let mut refused = 0;
    for (path, response) in together(&edge, &viewers).await {
        assert_eq!(judge(&origin, &path, &response), REFUSED, "{path}");
        assert!(!response.header("retry-after").is_empty(), "{path}");
        refused += 1;
    }

    assert!(refused >= 4, "{refused}");
    let told = edge.metric("tidegate_ssd_bypass_refused_total", &[]).await;
    assert_eq!(told, f64::from(refused), "each is one, however often it looked again");
    assert_eq!(sent(&origin, &paths), before);
    assert_eq!(bypassed(&edge).await, 0);
    the_others_notice_nothing(&origin, &edge, &large).await;
    the_others_notice_nothing(&origin, &edge, &small).await;
}

#[tokio::test]
async fn what_a_failed_read_lost_is_asked_for_within_the_bypass_too() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    let edge = beside(&origin, folder.path(), "0 MiB").start();
    let homes = keep(&origin, &edge, BLOCK, 4).await;
    edge.falls_ill("sick", "fail-reads=100%");
    edge.evict(100);
    let before = sent(&origin, &homes["sick"]);
    let path = &homes["sick"][0];
    for _ in 0..2 {
        assert_eq!(judge(&origin, path, &edge.get(path).send().await), REFUSED);
    }
    assert_eq!(sent(&origin, &homes["sick"]), before);
}

#[tokio::test]
async fn a_body_that_cannot_be_asked_for_in_parts_stays_within_the_bypass() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    let edge = beside(&origin, folder.path(), "0 MiB").start();
    let mut paths = Vec::new();
    for number in 0..12 {
        let path = format!("/bare/{number}");
        origin.serve(&path, Script::of(BLOCK).validators(Validators::None));
        let before = entries(&edge).await;
        assert_eq!(judge(&origin, &path, &edge.get(&path).send().await), WHOLE);
        let all = before[0] + before[1] + 2.0;
        edge.until_metric("tidegate_ssd_index_entries", &[], |value| value >= all).await;
        if entries(&edge).await[1] > before[1] {
            paths.push(path);
        }
    }
    assert!(!paths.is_empty());
    edge.falls_ill("sick", "stall-reads=60s");
    edge.evict(100);
    let before = sent(&origin, &paths);
    let mut refused = 0;
    for (path, response) in together(&edge, &paths).await {
        let verdict = judge(&origin, &path, &response);
        assert!([WHOLE, REFUSED].contains(&verdict), "{path}: {verdict:?}");
        refused += u32::from(verdict == REFUSED);
    }
    assert!(refused >= 1);
    assert_eq!(sent(&origin, &paths), before);
}

#[tokio::test]
async fn reads_that_fail_are_filled_and_the_volume_becomes_read_only() {
    for (share, reads) in [("5%", 400), ("100%", 0)] {
        let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
        let edge = beside(&origin, folder.path(), "64 MiB").start();
        let homes = keep(&origin, &edge, BLOCK, 10).await;
        edge.falls_ill("sick", &format!("fail-reads={share}"));
        let (mut asked, mut failed) = (0, 0.0);
        while asked < reads || failed < 8.0 {
            edge.evict(100);
            for (path, response) in together(&edge, &homes["sick"]).await {
                assert_eq!(judge(&origin, &path, &response), WHOLE, "{share}: {path}");
                asked += 1;
            }
            let read = ["volume=\"sick\"", "kind=\"read\""];
            failed = edge.metric("tidegate_ssd_errors_total", &read).await;
            assert!(asked < 4_000, "{share}: {failed} reads failed");
            if share == "100%" && failed >= 8.0 {
                break;
            }
        }
        until_sick_is(&edge, "read-only").await;
        // What is lost is kept on the other volume: in the end nothing is asked for any more.
        let mut rounds = 0;
        loop {
            let before = sent(&origin, &homes["sick"]);
            edge.evict(100);
            for (path, response) in together(&edge, &homes["sick"]).await {
                assert_eq!(judge(&origin, &path, &response), WHOLE, "{share}: {path}");
            }
            if sent(&origin, &homes["sick"]) == before {
                break;
            }
            rounds += 1;
            assert!(rounds < 100, "{share}: it is asked for again and again");
        }
        the_others_notice_nothing(&origin, &edge, &homes).await;
    }
}

#[tokio::test]
async fn a_volume_that_vanishes_leaves_the_others() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    let edge = beside(&origin, folder.path(), "64 MiB").start();
    let homes = keep(&origin, &edge, 2 * BLOCK, 8).await;
    let state = ["volume=\"sick\"", "state=\"offline\""];
    assert_eq!(edge.metric("tidegate_ssd_state", &state).await, 0.0, "it is there until now");
    edge.falls_ill("sick", "vanish-after=0");
    let mut asked = 0;
    while edge.metric("tidegate_ssd_state", &state).await == 0.0 {
        edge.evict(100);
        let all = [&homes["sick"][..], &homes["well"][..]].concat();
        for (path, response) in together(&edge, &all).await {
            assert_eq!(judge(&origin, &path, &response), WHOLE, "{path}");
            asked += 1;
        }
        assert!(asked < 4_000, "it does not vanish");
    }
    // Everything is there again: what it held lies on the other one now.
    for path in &homes["sick"] {
        assert_eq!(judge(&origin, path, &edge.get(path).send().await), WHOLE, "{path}");
    }
    edge.until_metric("tidegate_ssd_index_entries", labels("well"), |value| {
        value >= 3.0 * (homes["well"].len() + homes["sick"].len()) as f64
    })
    .await;
    let before = sent(&origin, &homes["sick"]);
    edge.evict(100);
    for path in &homes["sick"] {
        assert_eq!(judge(&origin, path, &edge.get(path).send().await), WHOLE, "{path}");
    }
    assert_eq!(sent(&origin, &homes["sick"]), before);
    the_others_notice_nothing(&origin, &edge, &homes).await;
}

#[tokio::test]
async fn what_a_vanished_volume_held_is_asked_for_within_the_bypass() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    let edge = beside(&origin, folder.path(), "0 MiB").start();
    let homes = keep(&origin, &edge, 2 * BLOCK, 4).await;
    let unknown = keep(&origin, &edge, 60_000, 2).await;
    let paths = [&homes["sick"][..], &unknown["sick"][..]].concat();
    edge.falls_ill("sick", "vanish-after=0");
    let mut asked = 0;
    while edge.metric("tidegate_ssd_state", &["volume=\"sick\"", "offline"]).await == 0.0 {
        edge.evict(100);
        together(&edge, &homes["sick"]).await;
        asked += 1;
        assert!(asked < 1_000, "it does not vanish");
    }
    edge.evict(100);
    let before = sent(&origin, &paths);
    // A few may have stayed in ram: whoever saw them there had them kept on the other volume.
    let mut stayed = HashSet::new();
    for forgotten in [false, true] {
        if forgotten {
            edge.forget_heads();
        }
        let mut refused = 0;
        for (path, response) in together(&edge, &paths).await {
            let verdict = judge(&origin, &path, &response);
            refused += u32::from(verdict == REFUSED);
            if verdict != REFUSED {
                assert!(!forgotten || stayed.contains(&path), "{path}: {verdict:?}");
                stayed.insert(path);
            }
        }
        assert!(refused >= 4, "{refused}");
    }
    assert_eq!(sent(&origin, &paths), before);
    assert_eq!(bypassed(&edge).await, 0);
    // It had never heard of this one.
    origin.serve("/another", Script::of(3 * BLOCK));
    assert_eq!(judge(&origin, "/another", &edge.get("/another").send().await), WHOLE);
    the_others_notice_nothing(&origin, &edge, &homes).await;
}

#[tokio::test]
async fn an_object_that_a_slow_volume_does_not_tell_of_pays_for_all_that_is_fetched() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    let edge = beside(&origin, folder.path(), "1 MiB").start();
    let homes = keep(&origin, &edge, 6 * BLOCK, 3).await;
    edge.falls_ill("sick", "stall-reads=60s");
    edge.evict(100);
    edge.forget_heads();
    let read = || async { edge.metric("tidegate_origin_body_bytes_total", &[]).await as u64 };
    let (before, asked) = (read().await, Instant::now());

    for (path, response) in together(&edge, &homes["sick"]).await {
        judge(&origin, &path, &response);
    }

    let from_origin = read().await - before;
    let seconds = asked.elapsed().as_secs() + 1;
    // A second's worth was there at the start, and the last one may overdraw.
    assert!(from_origin <= (seconds + 2) * BLOCK, "{from_origin} in {seconds} s");
    // A frame of each run may have come before it was seen that it is not paid for.
    let frames = homes["sick"].len() as u64 * PIECE;
    assert!(bypassed(&edge).await + frames >= from_origin, "{from_origin}");
    assert!(from_origin >= 2 * BLOCK, "and they do go on: {from_origin}");
}

#[tokio::test]
async fn a_volume_whose_writes_fail_is_read_only_and_the_others_take_its_objects() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    let edge = beside(&origin, folder.path(), "64 MiB").start();
    let homes = keep(&origin, &edge, BLOCK, 4).await;
    edge.falls_ill("sick", "fail-writes=100%");
    let mut number = 0;
    let ill = ["volume=\"sick\"", "state=\"online\""];
    while edge.metric("tidegate_ssd_state", &ill).await == 1.0 {
        let path = format!("/new/{number}");
        origin.serve(&path, Script::of(BLOCK));
        assert_eq!(judge(&origin, &path, &edge.get(&path).send().await), WHOLE, "{path}");
        number += 1;
        assert!(number < 1_000, "it is still written to");
    }
    let later = keep_all(&origin, &edge, 8).await;
    edge.evict(100);
    let before = sent(&origin, &later);
    for path in &later {
        assert_eq!(judge(&origin, path, &edge.get(path).send().await), WHOLE, "{path}");
    }
    assert_eq!(sent(&origin, &later), before);
    the_others_notice_nothing(&origin, &edge, &homes).await;
    for path in &homes["sick"] {
        assert_eq!(judge(&origin, path, &edge.get(path).send().await), WHOLE, "{path}");
    }
}

/// Has objects kept, on whatever volume takes them.
async fn keep_all(origin: &Origin, edge: &Edge, count: usize) -> Vec<String> {
    let paths: Vec<String> = (0..count).map(|number| format!("/later/{number}")).collect();
    for path in &paths {
        origin.serve(path, Script::of(BLOCK));
        let before = entries(edge).await;
        assert_eq!(judge(origin, path, &edge.get(path).send().await), WHOLE, "{path}");
        let all = before[0] + 2.0;
        edge.until_metric("tidegate_ssd_index_entries", labels("well"), |value| value >= all).await;
    }
    paths
}

#[tokio::test]
async fn a_volume_that_is_full_gives_up_the_oldest_and_nothing_fails() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    let edge = beside(&origin, folder.path(), "0 MiB").start();
    let homes = keep(&origin, &edge, BLOCK, 4).await;
    let full = |name: &'static str| async {
        edge.metric("tidegate_ssd_records_dropped_total", &[labels(name)[0], "reclaimed"]).await
            > 0.0
    };
    let mut number = 0;
    while !full("sick").await {
        let mut viewers = JoinSet::new();
        for _ in 0..8 {
            let path = format!("/more/{number}");
            origin.serve(&path, Script::of(4 * BLOCK));
            let asked = edge.get(&path);
            viewers.spawn(async move { (path, asked.send().await) });
            number += 1;
        }
        for (path, response) in viewers.join_all().await {
            assert_eq!(judge(&origin, &path, &response), WHOLE, "{path}");
        }
        assert!(number < 1_000, "it is never full");
    }
    for path in homes.values().flatten() {
        assert_eq!(judge(&origin, path, &edge.get(path).send().await), WHOLE, "{path}");
    }
    for number in 0..number {
        let path = format!("/more/{number}");
        assert_eq!(judge(&origin, &path, &edge.get(&path).send().await), WHOLE, "{path}");
    }
    assert_eq!(edge.metric("tidegate_ssd_state", &["state=\"online\""]).await, 2.0);
    assert_eq!(bypassed(&edge).await, 0);
}
