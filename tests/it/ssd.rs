//! What is on a volume is served from there: after a restart, after ram has let go of it, and never
//! once it is no longer what the origin has.

use std::collections::BTreeSet;
use std::path::Path;

use tempfile::TempDir;
use tidegate::store::survey::glance;
use tokio::task::JoinSet;

use crate::support::{
    BLOCK, Configured, Edge, Framing, Origin, PIECE, Script, Validators, Verdict, judge, status_of,
};

const WHOLE: Verdict = Verdict::Whole { version: 1 };

/// In front of `origin`, with one volume that keeps everything.
fn keeping_all(origin: &Origin, folder: &Path) -> Configured {
    Edge::in_front_of(origin)
        .setting("memory.total", "256 MiB")
        .setting("ssd.admission", "all")
        .setting("ssd.state", &folder.join("state.json").to_string_lossy())
        .volume(folder, "volume")
}

#[tokio::test]
async fn a_restart_serves_what_was_there_without_asking_the_origin() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    let lengths = [1, 1000, PIECE, PIECE + 1, BLOCK, 3 * BLOCK + 2 * PIECE + 123];
    for (number, length) in lengths.iter().enumerate() {
        origin.serve(&format!("/{number}"), Script::of(*length));
    }
    let mut edge = keeping_all(&origin, folder.path()).start();
    for number in 0..lengths.len() {
        let path = format!("/{number}");
        assert_eq!(judge(&origin, &path, &edge.get(&path).send().await), WHOLE, "{path}");
    }
    edge.until_entries(3 + 2 + 2 + 5).await;
    edge.drain().await;
    origin.forget_requests();

    let edge = keeping_all(&origin, folder.path()).start();
    for number in 0..lengths.len() {
        let path = format!("/{number}");
        let response = edge.get(&path).send().await;
        assert_eq!(judge(&origin, &path, &response), WHOLE, "{path}");
        assert!(response.header("cache-status").contains("hit"), "{path}");
    }
    assert_eq!(origin.all_requests().len(), 0);
}

#[tokio::test]
async fn the_metrics_say_at_how_many_records_a_volume_refuses_more() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    let edge = keeping_all(&origin, folder.path()).start();
    origin.serve("/a", Script::of(1));
    edge.get("/a").send().await;
    edge.until_entries(1).await;
    let written = glance(&folder.path().join("volume")).unwrap();
    let bound = written.geometry().index_entries_max();
    assert_eq!(edge.metric("tidegate_ssd_index_entries_max", &[]).await, bound as f64);
}

#[tokio::test]
async fn what_ram_has_no_room_for_comes_from_the_volume() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    let edge = keeping_all(&origin, folder.path()).start();
    let paths: Vec<String> = (0..24).map(|number| format!("/{number}")).collect();
    for (path, records) in paths.iter().zip((8..).step_by(8)) {
        origin.serve(path, Script::of(6 * BLOCK + 5));
        assert_eq!(judge(&origin, path, &edge.get(path).send().await), WHOLE, "{path}");
        edge.until_entries(records).await;
    }
    origin.forget_requests();
    for path in paths.iter().rev() {
        assert_eq!(judge(&origin, path, &edge.get(path).send().await), WHOLE, "{path}");
    }
    assert_eq!(origin.all_requests().len(), 0);
    let from_ssd = edge.metric("tidegate_response_body_bytes_total", &["tier=\"ssd\""]).await;
    assert!(from_ssd >= (24 * 6 * BLOCK - (64 << 20)) as f64, "{from_ssd}");
}

#[tokio::test]
async fn a_range_reads_the_pieces_it_touches_and_the_record_header() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    origin.serve("/film", Script::of(4 * BLOCK));
    let edge = keeping_all(&origin, folder.path()).start();
    assert_eq!(judge(&origin, "/film", &edge.get("/film").send().await), WHOLE);
    edge.until_entries(5).await;
    edge.evict(100);
    origin.forget_requests();
    let read = ["tidegate_ssd_read_bytes_total", "tidegate_ssd_reads_total"];
    let before = [edge.metric(read[0], &[]).await, edge.metric(read[1], &[]).await];

    let range = 2 * BLOCK + 5 * PIECE + 7..2 * BLOCK + 7 * PIECE - 9;
    let response = edge.get("/film").range(range.clone()).send().await;

    assert_eq!(judge(&origin, "/film", &response), WHOLE);
    assert_eq!(response.content_range(), Some((range.start, range.end - 1, Some(4 * BLOCK))));
    let bytes = edge.metric(read[0], &[]).await - before[0];
    assert_eq!(bytes, (2 * PIECE + 4096) as f64, "two pieces and a header");
    let reads = edge.metric(read[1], &[]).await - before[1];
    assert_eq!(reads, 2.0, "one of the header, one of both pieces");
    assert_eq!(origin.all_requests().len(), 0);
}

#[tokio::test]
async fn a_byte_that_changed_on_the_volume_is_a_miss() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    origin.serve("/film", Script::of(3 * BLOCK));
    let mut edge = keeping_all(&origin, folder.path()).start();
    let film = edge.get("/film").send().await;
    assert_eq!(judge(&origin, "/film", &film), WHOLE);
    edge.until_entries(4).await;
    edge.drain().await;
    origin.forget_requests();
    let changed = film.body.slice((BLOCK + 3 * PIECE) as usize..).slice(..4096);
    let volume = folder.path().join("volume");
    let mut bytes = std::fs::read(&volume).unwrap();
    let at = bytes.chunks(4096).position(|granule| granule == changed).unwrap() * 4096;
    bytes[at + 1234] ^= 1;
    std::fs::write(&volume, bytes).unwrap();

    let edge = keeping_all(&origin, folder.path()).start();
    assert_eq!(judge(&origin, "/film", &edge.get("/film").send().await), WHOLE);

    let asked: Vec<_> = origin.requests("/film").iter().map(|r| r.head.range()).collect();
    assert_eq!(asked, [Some((BLOCK, Some(2 * BLOCK - 1)))], "the block it lies in, and no other");
    assert_eq!(
        edge.metric("tidegate_ssd_records_dropped_total", &["reason=\"mismatch\""]).await,
        1.0
    );
}

/// Has a piece of `/film` kept; whether that is on `volume`.
async fn kept_on_volume(origin: &Origin, edge: &Edge, start: u64) -> bool {
    let of_volume = ["volume=\"volume\""];
    let entries = async |labels| edge.metric("tidegate_ssd_index_entries", labels).await;
    let (all, here) = (entries(&[]).await, entries(&of_volume).await);
    let response = edge.get("/film").range(start..start + PIECE).send().await;
    assert_eq!(judge(origin, "/film", &response), WHOLE, "{start}");
    edge.until_entries(all as u64 + 1).await;
    entries(&of_volume).await > here
}

#[tokio::test]
async fn a_large_object_goes_on_in_stripes_of_a_gibibyte_whatever_the_size_of_blocks() {
    const MIB: u64 = 1 << 20;
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    origin.serve("/film", Script::of(28 << 30));
    let edge = keeping_all(&origin, folder.path())
        .volume(folder.path(), "other")
        .setting("block_size", "64 KiB")
        .start();
    // Its head comes with it.
    edge.get("/film").range(0..1).send().await;
    edge.until_entries(2).await;
    let home = kept_on_volume(&origin, &edge, PIECE).await;
    for start in (256 * MIB..4096 * MIB).step_by(320 << 20) {
        assert_eq!(kept_on_volume(&origin, &edge, start).await, home, "from {start} on");
    }
    let mut homes = BTreeSet::new();
    for start in (4096 * MIB..28_672 * MIB).step_by(1 << 30) {
        let home = kept_on_volume(&origin, &edge, start).await;
        for offset in [64 * MIB, 1023 * MIB] {
            let start = start + offset;
            assert_eq!(kept_on_volume(&origin, &edge, start).await, home, "from {start} on");
        }
        homes.insert(home);
    }
    assert_eq!(homes.len(), 2, "24 stripes lie on both volumes");
}

#[tokio::test]
async fn the_shadow_caches_are_shown_each_block_that_a_viewer_comes_to_once() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    origin.serve("/film", Script::of(3 * BLOCK));
    let edge = keeping_all(&origin, folder.path()).start();
    let shown = || async {
        let of = |reader| edge.metric("tidegate_ssd_shadow_requests_total", reader);
        [of(&["enters"]).await, of(&["inside"]).await]
    };
    // From the origin, from ram, and from the volume.
    for (number, evicted) in [(1.0, 0), (2.0, 0), (3.0, 100)] {
        edge.evict(evicted);
        assert_eq!(judge(&origin, "/film", &edge.get("/film").send().await), WHOLE);
        assert_eq!(shown().await, [3.0 * number, 0.0]);
        edge.until_entries(4).await;
    }
    let inside = edge.get("/film").range(BLOCK + PIECE..2 * BLOCK + 5);
    assert_eq!(judge(&origin, "/film", &inside.send().await), WHOLE);
    assert_eq!(shown().await, [10.0, 1.0], "the second block from inside, the third at its start");
}

#[tokio::test]
async fn pieces_that_no_volume_holds_are_filled_and_the_others_are_not_asked_for() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    origin.serve("/film", Script::of(3 * BLOCK));
    let mut edge = keeping_all(&origin, folder.path()).start();
    for range in [3 * PIECE..5 * PIECE, BLOCK..2 * BLOCK] {
        let response = edge.get("/film").range(range).send().await;
        assert_eq!(judge(&origin, "/film", &response), WHOLE);
    }
    edge.until_entries(3).await;
    edge.drain().await;
    origin.forget_requests();

    let edge = keeping_all(&origin, folder.path()).start();
    assert_eq!(judge(&origin, "/film", &edge.get("/film").send().await), WHOLE);

    let mut asked: Vec<_> = origin.requests("/film").iter().map(|r| r.head.range()).collect();
    asked.sort_unstable();
    let expected = [(0, 3 * PIECE), (5 * PIECE, BLOCK), (2 * BLOCK, 3 * BLOCK)];
    let expected: Vec<_> =
        expected.iter().map(|(start, end)| Some((*start, Some(end - 1)))).collect();
    assert_eq!(asked, expected);
}

#[tokio::test]
async fn an_object_of_no_bytes_is_found_again_while_its_origin_is_down() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    origin.serve("/plain", Script::of(0));
    origin.serve("/chunked", Script::of(0).framing(Framing::Chunked));
    origin.serve("/emptied", stale(5000));
    let paths = ["/plain", "/chunked", "/emptied"];
    let mut edge = keeping_all(&origin, folder.path()).start();
    for path in paths {
        assert_eq!(judge(&origin, path, &edge.get(path).send().await), WHOLE, "{path}");
    }
    edge.until_entries(3).await;
    origin.serve("/emptied", Script::of(0).version(2));
    assert_eq!(edge.get("/emptied").send().await.header("content-length"), "0");
    edge.until_entries(3).await;
    edge.drain().await;
    origin.forget_requests();
    origin.refuse_connections().await;

    let edge = keeping_all(&origin, folder.path()).start();
    for path in paths {
        for asked in [edge.get(path), edge.head(path), edge.get(path).suffix(5)] {
            let response = asked.send().await;
            let told = (response.status, response.header("content-length"), response.body.len());
            assert_eq!(told, (200, "0".to_owned(), 0), "{path}");
            let cache_status = response.header("cache-status");
            assert!(cache_status.starts_with("tidegate; hit"), "{path}: {cache_status}");
        }
        // RFC 9110 section 14.1.2: its first byte is not less than the length.
        for asked in [edge.get(path).range(0..1), edge.get(path).range_from(0)] {
            let response = asked.send().await;
            let told = (response.status, response.header("content-range"));
            assert_eq!(told, (416, "bytes */0".to_owned()), "{path}");
        }
    }
    let errors = edge.metric("tidegate_origin_errors_total", &[]).await;
    assert_eq!((origin.all_requests().len(), errors), (0, 0.0));
}

/// Kept, and to be asked about at once.
fn stale(length: u64) -> Script {
    Script::of(length).cache_control("max-age=100").field("Age", "100")
}

/// A small object and a large one, on the volumes of an appliance that has ended.
async fn stale_and_kept(origin: &Origin, folder: &TempDir) -> [(&'static str, u64); 2] {
    let objects = [("/small", 5000), ("/large", 2 * BLOCK)];
    for (path, length) in objects {
        origin.serve(path, stale(length));
    }
    let mut edge = keeping_all(origin, folder.path()).start();
    for (path, _) in objects {
        assert_eq!(judge(origin, path, &edge.get(path).send().await), WHOLE);
    }
    edge.until_entries(4).await;
    edge.drain().await;
    objects
}

#[tokio::test]
async fn a_version_that_was_replaced_does_not_come_back() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    let objects = stale_and_kept(&origin, &folder).await;

    for (path, length) in objects {
        origin.serve(path, Script::of(length).version(2));
    }
    let mut edge = keeping_all(&origin, folder.path()).start();
    for (path, _) in objects {
        let response = edge.get(path).send().await;
        assert_eq!(judge(&origin, path, &response), Verdict::Whole { version: 2 }, "{path}");
    }
    edge.drain().await;

    let edge = keeping_all(&origin, folder.path()).start();
    for (path, _) in objects {
        let response = edge.get(path).send().await;
        assert_eq!(judge(&origin, path, &response), Verdict::Whole { version: 2 }, "{path}");
    }
}

#[tokio::test]
async fn what_is_confirmed_is_served_from_the_volume() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    let objects = stale_and_kept(&origin, &folder).await;
    origin.forget_requests();

    let edge = keeping_all(&origin, folder.path()).start();
    for (path, _) in objects {
        let sent = origin.bytes_sent(path);
        assert_eq!(judge(&origin, path, &edge.get(path).send().await), WHOLE, "{path}");
        let asked = origin.requests(path);
        assert_eq!(asked.len(), 1, "{path}");
        assert!(!asked[0].head.header("if-none-match").is_empty(), "{path}");
        assert_eq!(origin.bytes_sent(path), sent, "a 304 has no body");
    }
}

#[tokio::test]
async fn what_was_kept_is_judged_by_the_rules_of_now() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    let paths = ["/given", "/most", "/no-store", "/ram", "/same"];
    for path in paths {
        let silent = if path == "/given" {
            Script::of(BLOCK).cache_control("public").validators(Validators::EtagAlone)
        } else {
            Script::of(BLOCK)
        };
        origin.serve(path, silent);
    }
    let mut edge =
        keeping_all(&origin, folder.path()).rule("/given", "lifetime = { given = '1h' }").start();
    for path in paths {
        assert_eq!(judge(&origin, path, &edge.get(path).send().await), WHOLE, "{path}");
    }
    edge.until_entries(10).await;
    edge.drain().await;
    origin.forget_requests();

    let mut edge = keeping_all(&origin, folder.path())
        .rule("/most", "lifetime = { most = '0s' }")
        .rule("/no-store", "response = { add = { Cache-Control = 'no-store' } }")
        .rule("/ram", "keep = 'ram'")
        .start();
    for path in paths {
        assert_eq!(judge(&origin, path, &edge.get(path).send().await), WHOLE, "{path}");
    }
    edge.drain().await;
    let asked = |path| {
        let requests = origin.requests(path);
        requests.iter().map(|one| !one.head.header("if-none-match").is_empty()).collect()
    };
    let (confirmed, anew, not_asked): ([bool; 1], [bool; 1], [bool; 0]) = ([true], [false], []);
    let all: Vec<Vec<bool>> = paths.map(asked).into();
    assert_eq!(all, [&confirmed[..], &confirmed, &anew, &anew, &not_asked]);
    origin.forget_requests();

    // What was not kept by the rules of then does not come back either.
    let edge = keeping_all(&origin, folder.path()).start();
    for path in ["/no-store", "/ram", "/same"] {
        assert_eq!(judge(&origin, path, &edge.get(path).send().await), WHOLE, "{path}");
    }
    assert_eq!(["/no-store", "/ram", "/same"].map(|path| origin.requests(path).len()), [1, 1, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_that_was_away_is_not_believed_before_the_origin_confirms() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    let (here, away) = (folder.path().join("here"), folder.path().join("away"));
    std::fs::create_dir_all(&here).unwrap();
    std::fs::create_dir_all(&away).unwrap();
    let with = |volume: &Path| {
        Edge::in_front_of(&origin)
            .setting("memory.total", "256 MiB")
            .setting("ssd.admission", "all")
            .setting("ssd.state", &folder.path().join("state.json").to_string_lossy())
            .volume(volume, "volume")
    };
    let paths = ["/replaced", "/same"];
    paths.iter().for_each(|path| origin.serve(path, Script::of(2 * BLOCK)));
    let mut edge = with(&away).start();
    for path in paths {
        assert_eq!(judge(&origin, path, &edge.get(path).send().await), WHOLE);
    }
    edge.until_entries(6).await;
    let is_in_doubt = |edge: &Edge| {
        let (words, volumes) = status_of(edge);
        let is_told = words.contains("\n  volume: heads of it are in doubt: the origin is asked ");
        assert_eq!(volumes[0]["heads_in_doubt"], is_told, "{words}");
        is_told
    };
    assert!(!is_in_doubt(&edge));
    edge.drain().await;
    with(&here).start().drain().await;
    for start in 0..2 {
        let mut edge = with(&away).start();
        assert!(is_in_doubt(&edge), "start {start}");
        assert_eq!(edge.metric("tidegate_ssd_heads_in_doubt", &[]).await, 1.0);
        edge.drain().await;
    }
    origin.serve("/replaced", Script::of(2 * BLOCK).version(2));
    let sent = origin.bytes_sent("/same");
    let mut before = paths.map(|path| origin.requests(path).len());

    // The second time it was there all the while.
    for asked in [[1, 1], [0, 0]] {
        let mut edge = with(&away).start();
        assert_eq!(is_in_doubt(&edge), asked == [1, 1], "as long as it is so");
        let replaced = judge(&origin, "/replaced", &edge.get("/replaced").send().await);
        assert_eq!(replaced, Verdict::Whole { version: 2 });
        assert_eq!(judge(&origin, "/same", &edge.get("/same").send().await), WHOLE);
        let now = paths.map(|path| origin.requests(path).len());
        assert_eq!([now[0] - before[0], now[1] - before[1]], asked);
        before = now;
        edge.until_metric("tidegate_ssd_index_entries", &[], |value| value >= 8.0).await;
        edge.drain().await;
    }
    assert_eq!(origin.bytes_sent("/same"), sent, "a 304 has no body");
}

#[tokio::test]
async fn what_became_private_is_forgotten_on_the_volume() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    origin.serve("/a", stale(2 * BLOCK));
    let mut edge = keeping_all(&origin, folder.path()).start();
    assert_eq!(judge(&origin, "/a", &edge.get("/a").send().await), WHOLE);
    edge.until_entries(3).await;
    origin.serve("/a", Script::of(2 * BLOCK).cache_control("private"));
    assert_eq!(judge(&origin, "/a", &edge.get("/a").send().await), WHOLE);
    edge.drain().await;
    origin.forget_requests();

    let edge = keeping_all(&origin, folder.path()).start();
    assert_eq!(judge(&origin, "/a", &edge.get("/a").send().await), WHOLE);

    let asked = origin.requests("/a");
    assert_eq!(asked.len(), 1);
    assert!(asked[0].head.header("if-none-match").is_empty(), "nothing is known of it any more");
}

#[tokio::test]
async fn a_body_that_cannot_be_asked_for_in_parts_is_kept_too() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    let script = Script::of(3 * BLOCK + 7).validators(Validators::None);
    origin.serve("/film", script);
    let mut edge = keeping_all(&origin, folder.path()).start();
    assert_eq!(judge(&origin, "/film", &edge.get("/film").send().await), WHOLE);
    edge.until_entries(5).await;
    edge.drain().await;
    origin.forget_requests();

    let edge = keeping_all(&origin, folder.path()).start();
    assert_eq!(judge(&origin, "/film", &edge.get("/film").send().await), WHOLE);
    assert_eq!(origin.all_requests().len(), 0);
}

#[tokio::test]
async fn five_hundred_viewers_of_a_block_cost_one_read() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    origin.serve("/film", Script::of(BLOCK));
    let mut edge = keeping_all(&origin, folder.path()).start();
    assert_eq!(judge(&origin, "/film", &edge.get("/film").send().await), WHOLE);
    edge.until_entries(2).await;
    edge.drain().await;
    let edge = keeping_all(&origin, folder.path()).start();
    assert_eq!(judge(&origin, "/film", &edge.get("/film").range(0..1).send().await), WHOLE);
    let before = edge.metric("tidegate_ssd_read_bytes_total", &[]).await;
    let mut viewers = JoinSet::new();
    for _ in 0..500 {
        let asked = edge.get("/film");
        viewers.spawn(async move { asked.send().await });
    }
    for response in viewers.join_all().await {
        assert_eq!(judge(&origin, "/film", &response), WHOLE);
    }
    let bytes = edge.metric("tidegate_ssd_read_bytes_total", &[]).await - before;
    // The first piece of it is in ram.
    assert_eq!(bytes, (BLOCK - PIECE + 4096) as f64);
    assert_eq!(origin.requests("/film").len(), 1);
}

#[tokio::test]
async fn a_volume_whose_making_was_interrupted_is_made_by_the_next_start() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    origin.serve("/film", Script::of(BLOCK));
    std::fs::write(folder.path().join(".volume.tidegate-unfinished"), [0; 8192]).unwrap();
    std::fs::write(folder.path().join("volume.new"), "another's").unwrap();
    let edge = keeping_all(&origin, folder.path()).start();
    assert_eq!(judge(&origin, "/film", &edge.get("/film").send().await), WHOLE);
    edge.until_entries(2).await;
    assert!(!folder.path().join(".volume.tidegate-unfinished").exists());
    assert_eq!(std::fs::read(folder.path().join("volume.new")).unwrap(), b"another's");
}

#[tokio::test]
async fn an_appliance_serves_without_a_device_that_is_gone() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    origin.serve("/film", Script::of(2 * BLOCK));
    let edge = keeping_all(&origin, folder.path())
        .volume_with("path = \"/dev/disk/by-id/nvme-that-died\"")
        .start();
    assert_eq!(judge(&origin, "/film", &edge.get("/film").send().await), WHOLE);
    edge.until_entries(3).await;
    let state = ["volume=\"nvme-that-died\"", "state=\"offline\""];
    assert_eq!(edge.metric("tidegate_ssd_state", &state).await, 1.0);
}

#[tokio::test]
async fn an_index_larger_than_the_setting_allows_is_refused() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    let mut edge = keeping_all(&origin, folder.path()).setting("ssd.index", "3 MiB").start();
    edge.drain().await;
    let refused = keeping_all(&origin, folder.path()).try_start().err().unwrap();
    let says = "was made with an index of 3145728 bytes, and the other volumes leave 1048576 of \
                `ssd.index`; write `ssd.index = \"3 MiB\"`";
    assert!(refused.ends_with(says), "{refused}");
}

#[tokio::test]
async fn a_volume_of_blocks_of_another_size_is_refused_and_left_alone() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    origin.serve("/film", Script::of(4 * BLOCK));
    let mut edge = keeping_all(&origin, folder.path()).start();
    assert_eq!(judge(&origin, "/film", &edge.get("/film").send().await), WHOLE);
    edge.until_entries(5).await;
    edge.drain().await;
    origin.forget_requests();

    let other = keeping_all(&origin, folder.path()).setting("block_size", "256 KiB").try_start();
    let refused = other.err().expect("its blocks would be taken for others");
    assert!(refused.contains("blocks of 1 MiB, and block_size is 256 KiB"), "{refused}");

    let edge = keeping_all(&origin, folder.path()).start();
    assert_eq!(judge(&origin, "/film", &edge.get("/film").send().await), WHOLE);
    assert_eq!(origin.all_requests().len(), 0);
}

/// The name of each series and its labels, without those that depend on the machine.
fn series_of(text: &str) -> BTreeSet<String> {
    let told = text.lines().filter(|line| line.starts_with("tidegate_ssd_"));
    let told = told.filter_map(|line| line.rsplit_once(' ')).map(|(series, _)| series.to_owned());
    let depends = ["le=", "engine=", "tidegate_ssd_life_seconds", "tidegate_ssd_shadow"];
    told.filter(|series| !depends.iter().any(|word| series.contains(word))).collect()
}

#[tokio::test]
async fn the_words_of_the_metrics_are_those_that_are_written_down() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    let edge = Edge::in_front_of(&origin).volume(folder.path(), "nvme0n1").start();
    let told = edge.admin().get("/metrics").send().await.body;
    let told = series_of(&String::from_utf8_lossy(&told));
    let written = series_of(include_str!("../../src/metrics/ssd.txt"));
    assert!(written.len() > 50, "{written:#?}");
    let only = |one: &BTreeSet<String>, other| one.difference(other).cloned().collect::<Vec<_>>();
    assert_eq!((only(&told, &written), only(&written, &told)), (vec![], vec![]));
}
