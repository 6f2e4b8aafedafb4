//! `kill -9` under load: what comes after the next start is right, and what was kept is still
//! there.
//!
//! A few rounds in the usual run; `TIDEGATE_ROUNDS=50 cargo nextest run killed` for more of them.
//! `TIDEGATE_SEED` repeats a choice of requests, though not the moment of the kill.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::support::{
    BLOCK, Client, HOST, Origin, PIECE, Process, Script, Verdict, judge, keeping, mixed,
};

/// Each start seals what was open at the kill: a volume for many rounds has many regions, so that
/// none is given up.
fn config(folder: &Path, origin: &Origin, rounds: u64) -> PathBuf {
    let size = if rounds > 8 { "16 GiB" } else { "512 MiB" };
    keeping(folder, size, &format!("origins = [\"http://{}\"]", origin.address()))
}

/// The objects: small ones and large ones, each of a length of its own.
const OBJECTS: u64 = 60;

fn length_of(object: u64) -> u64 {
    match object % 4 {
        0 => 1 + mixed(object) % PIECE,
        1 => 1 + mixed(object) % BLOCK,
        _ => 1 + mixed(object) % (4 * BLOCK),
    }
}

/// Asks for whole objects and parts of them until it is told that the edge is gone.
async fn view(origin: &Origin, client: Client, mut chance: u64) -> u64 {
    let mut answers = 0;
    loop {
        chance = mixed(chance);
        let object = chance % OBJECTS;
        let (path, length) = (format!("/{object}"), length_of(object));
        let first = mixed(chance + 1) % length;
        let asked = match mixed(chance + 2) % 3 {
            0 => client.get(&path),
            1 => client.get(&path).range(first..first + 1 + mixed(chance + 3) % BLOCK),
            _ => client.get(&path).range_from(first),
        };
        let Ok(response) = asked.try_send().await else { return answers };
        match judge(origin, &path, &response) {
            Verdict::Whole { .. } => answers += 1,
            Verdict::Cut { .. } => return answers,
            Verdict::Status(status) => panic!("{path}: {status}"),
        }
        if answers >= ANSWERS_MAX {
            return answers;
        }
    }
}

/// Asks for a new object and waits until it is on the volume: its head and two blocks.
async fn keep(origin: &Origin, edge: &Process, round: u64) -> String {
    let path = format!("/kept/{round}");
    origin.serve(&path, Script::of(BLOCK + 1 + mixed(round) % BLOCK));
    let before = edge.entries().await;
    let response = Client::plain(edge.http, HOST).get(&path).send().await;
    assert_eq!(judge(origin, &path, &response), Verdict::Whole { version: 1 }, "{path}");
    edge.until_entries(before + 3).await;
    path
}

const ANSWERS_MAX: u64 = 2_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_killed_comes_back_with_what_it_kept() {
    let number = |name: &str, usual: u64| {
        std::env::var(name).map_or(usual, |text| text.parse().expect("a number"))
    };
    let (rounds, seed) = (number("TIDEGATE_ROUNDS", 3), number("TIDEGATE_SEED", 1));
    let folder = TempDir::new().unwrap();
    let origin = Arc::new(Origin::start());
    for object in 0..OBJECTS {
        // Some lose their freshness at once, some keep it: both are asked about as they should.
        let script = Script::of(length_of(object));
        let script = match object % 5 {
            0 => script.cache_control("max-age=100").field("Age", "100"),
            _ => script,
        };
        origin.serve(&format!("/{object}"), script);
    }
    let config = config(folder.path(), &origin, rounds);
    let (mut kept, mut answered) = (Vec::<String>::new(), 0);
    for round in 0..rounds {
        let edge = Process::start(&config);
        // What was written before a kill costs the origin nothing after it.
        for path in &kept {
            let response = Client::plain(edge.http, HOST).get(path).send().await;
            assert_eq!(judge(&origin, path, &response), Verdict::Whole { version: 1 }, "{path}");
            assert_eq!(origin.requests(path).len(), 1, "round {round}, seed {seed}: {path}");
        }
        kept.push(keep(&origin, &edge, round).await);
        let mut viewers = JoinSet::new();
        for viewer in 0..8 {
            let (origin, client) = (Arc::clone(&origin), Client::plain(edge.http, HOST));
            let chance = mixed(seed ^ mixed(round * 8 + viewer));
            viewers.spawn(async move { view(&origin, client, chance).await });
        }
        // The moment is another in each round; what is asserted does not depend on it.
        let pause = Duration::from_millis(100 + mixed(seed + round) % 700);
        tokio::time::sleep(pause).await;
        edge.kill();
        let answers: u64 = viewers.join_all().await.into_iter().sum();
        println!("round {round}: {} objects kept, {answers} answers judged", kept.len());
        answered += answers;
    }
    assert!(answered > 0, "no kill came under load, seed {seed}");
}
