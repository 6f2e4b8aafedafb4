//! Any range of any object, in any order, at any concurrency, amid evictions and restarts: the
//! right bytes, from the origin, from ram and from a volume.
//!
//! One case is an object and a few requests for it at once. The seed is printed; `TIDEGATE_SEED`
//! repeats a run, `TIDEGATE_CASES` asks for more of them.

mod parts;

use std::time::{SystemTime, UNIX_EPOCH};

use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::support::{
    BLOCK, Client, Edge, Framing, Origin, PIECE, Ranges, Request, Script, Speaks, Validators,
    Verdict, judge, mixed,
};

/// A stream of numbers that a seed repeats.
#[derive(Clone, Copy)]
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(1);
        mixed(mixed(self.0)) % bound
    }

    fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// From nothing to 40 MiB, as often small as large, as often on a border as off it.
    fn length(&mut self) -> u64 {
        let largest = match self.below(16) {
            0 => return self.below(3),
            1..=5 => PIECE,
            6..=10 => 2 * BLOCK,
            11..=14 => 8 * BLOCK,
            _ => 40 * BLOCK,
        };
        let length = self.below(largest) + 1;
        match self.below(4) {
            0 => length.next_multiple_of(PIECE),
            1 => length.next_multiple_of(PIECE) - 1,
            2 => length.next_multiple_of(PIECE).min(largest) + 1,
            _ => length,
        }
    }

    /// Honest, each in its way.
    ///
    /// And the statuses a range of it may get: where the end is not told, the whole may come.
    fn script(&mut self) -> (Script, &'static [u16]) {
        let script = Script::of(self.length());
        let kind = self.below(10);
        let statuses: &[u16] = if matches!(kind, 1..=3) { &[206, 200] } else { &[206] };
        (Chance::scripted(script, kind), statuses)
    }

    fn scripted(script: Script, kind: u64) -> Script {
        match kind {
            0 => script.ranges(Ranges::Ignored),
            1 => script.framing(Framing::Chunked).ranges(Ranges::Ignored),
            2 => script.framing(Framing::Close).ranges(Ranges::Ignored),
            3 => script.framing(Framing::Chunked),
            4 => script.validators(Validators::Weak),
            5 => script.validators(Validators::LastModified),
            6 => script.validators(Validators::None),
            7 => script.cache_control("max-age=0"),
            _ => script,
        }
    }

    /// A request for an object of this length.
    fn request(&mut self, client: &Client, path: &str, length: u64) -> Request {
        let asked = client.get(path);
        let first = self.below(length.max(1));
        let border = first - first % PIECE;
        let few = self.below(2 * PIECE) + 1;
        match self.below(10) {
            0 => asked,
            1 => asked.suffix(few),
            2 => asked.range_from(length.saturating_sub(few)),
            3 => asked.range(border..border + PIECE),
            4 => asked.range(border.saturating_sub(1)..border + 1),
            5 => asked.range(first..first + 1),
            6 => asked.range_from(length + self.below(3)),
            7 => asked.range(first..first + BLOCK + few),
            _ => asked.range(first..first + few),
        }
    }
}

/// An honest object.
#[derive(Clone)]
struct Object {
    path: String,
    length: u64,
    /// What a range within it may get.
    range_statuses: &'static [u16],
}

/// The statuses that a request for an honest object may get.
fn expected_status(asked: &Request, object: &Object) -> &'static [u16] {
    let length = object.length;
    let field = asked.range_field();
    let first: Option<u64> = field.strip_prefix("bytes=").and_then(|range| {
        let first = range.split('-').next().unwrap_or("");
        first.parse().ok()
    });
    match first {
        _ if field.is_empty() => &[200],
        // A range of nothing, or beyond an end that may not be known yet.
        _ if length == 0 => &[200, 416],
        Some(first) if first >= length => &[416, 200],
        _ => object.range_statuses,
    }
}

/// One case; panics with its seed where a byte is wrong.
async fn case(origin: &Origin, clients: &[Client], object: &Object, chance: &mut Chance) {
    let (path, length) = (object.path.as_str(), object.length);
    let mut asking = JoinSet::new();
    for _ in 0..=chance.below(5) {
        let client = &clients[chance.below(clients.len() as u64) as usize];
        let asked = chance.request(client, path, length);
        asking.spawn(async move { (asked.send().await, asked) });
    }
    while let Some(answered) = asking.join_next().await {
        let (response, asked) = answered.unwrap();
        let verdict = judge(origin, path, &response);
        let expected = expected_status(&asked, object);
        assert!(expected.contains(&response.status), "{asked} of {length}: {}", response.status);
        let whole = Verdict::Whole { version: 1 };
        assert!(verdict == whole || response.status == 416, "{asked} of {length}: {verdict:?}");
    }
}

async fn cases(workers: usize) {
    let seed = std::env::var("TIDEGATE_SEED").ok().and_then(|seed| seed.parse().ok());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let seed = seed.unwrap_or(now) + workers as u64;
    let count = std::env::var("TIDEGATE_CASES").ok().and_then(|count| count.parse().ok());
    let count: u64 = count.unwrap_or(700);
    println!("TIDEGATE_SEED={} with {workers} workers", seed - workers as u64);

    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    let configured = || {
        let state = folder.path().join("state.json");
        Edge::in_front_of(&origin)
            .workers(workers)
            .ram("64 MiB")
            .setting("memory.total", "256 MiB")
            .setting("fill.window", "2 MiB")
            .setting("ssd.admission", "all")
            .setting("ssd.state", &state.to_string_lossy())
            .volume(folder.path(), "volume")
    };
    let speaking =
        |edge: &Edge| [edge.client(), edge.client(), edge.client_over_tls(Speaks::Http2)];
    let mut edge = configured().start();
    let mut clients = speaking(&edge);
    let mut chance = Chance(mixed(seed));
    let mut objects: Vec<Object> = vec![];
    for number in 0..count {
        if chance.one_in(25) {
            edge.evict(chance.below(101));
        }
        if chance.one_in(150) {
            edge.drain().await;
            edge = configured().start();
            clients = speaking(&edge);
        }
        // New, or one of before: then in ram, or evicted, or in part.
        if objects.is_empty() || !chance.one_in(3) {
            let (script, range_statuses) = chance.script();
            let (path, length) = (format!("/{seed}/{number}"), script.length_bytes());
            origin.serve(&path, script);
            objects.push(Object { path, length, range_statuses });
            case(&origin, &clients, &objects[objects.len() - 1], &mut chance).await;
        } else {
            let before = chance.below(objects.len() as u64) as usize;
            case(&origin, &clients, &objects[before], &mut chance).await;
        }
        // The origin's list is not for ever.
        if number % 100 == 99 {
            origin.forget_requests();
        }
    }
    assert!(count < 300 || edge.metric("tidegate_ssd_read_bytes_total", &[]).await > 0.0);
    println!("{count} cases with {workers} workers");
}

#[tokio::test]
async fn random_ranges_of_random_objects_are_right_with_one_worker() {
    cases(1).await;
}

#[tokio::test]
async fn random_ranges_of_random_objects_are_right_with_two_workers() {
    cases(2).await;
}

#[tokio::test]
async fn random_ranges_of_random_objects_are_right_with_eight_workers() {
    cases(8).await;
}
