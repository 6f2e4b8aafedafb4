//! Parts of an object over random sequences of right, wrong, failing and changing answers of its
//! origin (RFC 9111 sections 3.3 and 3.4): what is given is of one version and the bytes that were
//! asked for, what is held and fresh is not asked for again, and nothing of a lie is stored.
//!
//! Many sequences at once before one appliance, each about an object of its own. `TIDEGATE_SEED`
//! makes another run, `TIDEGATE_SEQUENCES` asks for more of them; one that fails is made as
//! short as it can be and told as a dialogue.

mod model;
mod sequence;

use std::rc::Rc;
use std::time::Duration;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{sleep, timeout};

use self::model::{Model, Shown};
use self::sequence::{Says, Sequence, sequences};
use crate::support::{Edge, Origin, PATIENCE, Recorded, runs_of};

/// What a run has shown.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    requests: u64,
    upstream: u64,
    from_held: u64,
    only_missing: u64,
    old: u64,
    wrong: u64,
}

/// One appliance before one origin.
struct Stage {
    origin: Origin,
    edge: Edge,
    glance: watch::Sender<Glance>,
}

/// What is being filled, looked at for all sequences together.
#[derive(Default)]
struct Glance {
    number: u64,
    paths: Vec<String>,
}

impl Stage {
    fn start() -> Stage {
        let origin = Origin::start();
        let edge = Edge::in_front_of(&origin)
            .ram("512 MiB")
            .setting("memory.total", "1 GiB")
            .rule("**", "lifetime = { errors = '0s', stale_if_error = '0s' }")
            .start();
        Stage { origin, edge, glance: watch::Sender::default() }
    }

    /// Looks again and again at what is being filled.
    async fn look(&self) {
        let admin = self.edge.admin();
        loop {
            let paths = runs_of(&admin).await.into_iter().map(|(path, _)| path).collect();
            self.glance.send_modify(|glance| {
                (glance.number, glance.paths) = (glance.number + 1, paths);
            });
            sleep(BETWEEN_GLANCES).await;
        }
    }

    /// Until all that is asked of the object at `path` has come and is kept: a viewer may have the
    /// last bytes before.
    async fn until_kept(&self, path: &str) {
        let mut glances = self.glance.subscribe();
        let now = glances.borrow().number;
        // The next may have begun before.
        let is_kept = |glance: &Glance| {
            glance.number > now + 1 && !glance.paths.iter().any(|filled| filled == path)
        };
        timeout(PATIENCE, glances.wait_for(is_kept)).await.expect("the run ends").unwrap();
    }

    /// Plays a sequence about the object at `path`; what was said is added to `dialogue`.
    ///
    /// # Errors
    /// What is wrong with the last answer.
    async fn play(
        &self,
        sequence: &Sequence,
        path: &str,
        dialogue: &mut Vec<String>,
    ) -> Result<Counts, String> {
        let mut model = Model::of(sequence, path);
        let mut counts = Counts::default();
        let client = self.edge.client();
        let mut before = 0;
        for step in &sequence.steps {
            model.version += u32::from(step.changes);
            let (version, length) = (model.version, model.length(model.version));
            let script = step.origin.script(length).version(version);
            let script = script.validators(sequence.validators);
            let script = match (step.origin, step.fresh) {
                (Says::Fails(_), _) => script.without("Cache-Control"),
                (_, true) => script,
                (_, false) => script.cache_control("max-age=0"),
            };
            self.origin.serve(path, script);
            let method = if step.ask.is_head { http::Method::HEAD } else { http::Method::GET };
            let request = step.ask.written(client.request(method, path), version);
            dialogue.push(format!(
                "-- version {version} of {length} bytes, fresh {}, {:?}",
                step.fresh, step.origin
            ));
            dialogue.push(format!("> {request} {:?}", step.ask.wish));
            let response = request.try_send().await.map_err(|error| error.to_string())?;
            self.origin.until_idle(path).await;
            let recorded = self.origin.requests(path);
            let asked: &[Recorded] = &recorded[before..];
            dialogue.extend(asked.iter().map(told));
            let range = response.header("content-range");
            let (status, tag) = (response.status, response.header("etag"));
            let bytes = response.body.len();
            dialogue.push(format!("< {status} {tag} {range}, {bytes} bytes"));
            let shown = model.take(step, &response, asked)?;
            if !asked.is_empty() {
                self.until_kept(path).await;
            }
            before += asked.len();
            if step.origin.lingers() {
                before = self.origin.requests(path).len();
            }
            counts.add(shown, !step.origin.is_right(), asked.len());
        }
        Ok(counts)
    }
}

impl Counts {
    fn add(&mut self, shown: Shown, wrong: bool, upstream: usize) {
        self.requests += 1;
        self.upstream += upstream as u64;
        self.from_held += u64::from(shown.from_held);
        self.only_missing += u64::from(shown.only_missing);
        self.old += u64::from(shown.old);
        self.wrong += u64::from(wrong);
    }

    fn plus(self, other: Counts) -> Counts {
        Counts {
            requests: self.requests + other.requests,
            upstream: self.upstream + other.upstream,
            from_held: self.from_held + other.from_held,
            only_missing: self.only_missing + other.only_missing,
            old: self.old + other.old,
            wrong: self.wrong + other.wrong,
        }
    }
}

fn told(request: &Recorded) -> String {
    let field = |name| request.head.header(name).to_owned();
    let said = match request.answered() {
        Some((status, bytes)) => format!("<< {status} {bytes:?}"),
        None => "<< nothing".to_owned(),
    };
    format!(
        ">> {} {} If-Range: {} If-None-Match: {}\n{said}",
        request.head.method,
        field("range"),
        field("if-range"),
        field("if-none-match")
    )
}

/// Plays the shortest form of a sequence that still fails, and tells it.
async fn shortest(stage: &Stage, tree: &mut dyn ValueTree<Value = Sequence>, name: &str) -> String {
    let mut shown = String::new();
    for attempt in 0..SHRINKS_MAX {
        let mut dialogue = vec![];
        let sequence = tree.current();
        let path = format!("/{name}/{attempt}");
        let goes_on = match stage.play(&sequence, &path, &mut dialogue).await {
            Ok(_) => tree.complicate(),
            Err(why) => {
                let (validators, lengths) = (sequence.validators, &sequence.lengths);
                let said = dialogue.join("\n");
                shown = format!("{validators:?} {lengths:?}\n{said}\n{why}");
                tree.simplify()
            }
        };
        if !goes_on {
            break;
        }
    }
    shown
}

#[tokio::test]
async fn parts_are_joined_and_kept_as_a_model_of_rfc_9111_has_it() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("TIDEGATE_SEED").unwrap_or(11);
    let sequences_max = number("TIDEGATE_SEQUENCES").unwrap_or(5_000);
    println!("TIDEGATE_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut counts = Counts::default();
    let mut played = 0;
    while played < sequences_max {
        let many = SEQUENCES_PER_STAGE.min(sequences_max - played);
        let names = played..played + many;
        let trees = names.map(|name| (name, sequences().new_tree(&mut runner).unwrap()));
        counts = counts.plus(play_all(trees.collect()).await);
        played += many;
    }
    println!("{played} sequences: {counts:?}");
    // A model that knows nothing finds nothing.
    assert!(counts.from_held * 5 > counts.requests, "{counts:?}");
    assert!(counts.only_missing * 500 > counts.requests, "{counts:?}");
    assert!(counts.old * 50 > counts.requests, "{counts:?}");
}

/// Plays these sequences side by side before one appliance.
async fn play_all<T: ValueTree<Value = Sequence>>(mut trees: Vec<(u64, T)>) -> Counts {
    let stage = Rc::new(Stage::start());
    let mut counts = Counts::default();
    let mut failed = vec![];
    let here = LocalSet::new();
    here.run_until(async {
        let looking = tokio::task::spawn_local({
            let stage = stage.clone();
            async move { stage.look().await }
        });
        let mut playing = JoinSet::new();
        let mut waiting = trees.iter().enumerate();
        loop {
            while playing.len() < AT_ONCE
                && let Some((at, (name, tree))) = waiting.next()
            {
                let (stage, sequence, path) = (stage.clone(), tree.current(), format!("/{name}"));
                playing.spawn_local(async move {
                    let mut dialogue = vec![];
                    let played = stage.play(&sequence, &path, &mut dialogue).await;
                    (at, played.map_err(|why| format!("{}\n{why}", dialogue.join("\n"))))
                });
            }
            let Some(done) = playing.join_next().await else { break };
            match done.unwrap() {
                (_, Ok(shown)) => counts = counts.plus(shown),
                (at, Err(why)) => failed.push((at, why)),
            }
        }
        for (at, why) in failed.iter().take(SHOWN) {
            let (name, tree) = &mut trees[*at];
            let shown = shortest(&stage, tree, &name.to_string()).await;
            println!("sequence {name}: {why}\nshortest: {shown}\n");
        }
        looking.abort();
    })
    .await;
    assert!(failed.is_empty(), "{} of {} sequences fail", failed.len(), trees.len());
    counts
}

/// So many that ram holds all of it.
const SEQUENCES_PER_STAGE: u64 = 500;
const AT_ONCE: usize = 96;
const BETWEEN_GLANCES: Duration = Duration::from_millis(2);
const SHRINKS_MAX: u32 = 400;
const SHOWN: usize = 5;
