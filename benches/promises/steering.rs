//! What an answer to a viewer costs, of a thousand boxes and a million prefixes: to decide, and all
//! of what is sent. And how many viewers one box more, or one less, moves.

use std::cell::RefCell;
use std::hint::black_box;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;
use http::Method;
use serde_json::json;
use tidegate::control::content_steering::Pace;
use tidegate::control::content_steering::signature::Secret;
use tidegate::control::registry::appliance::Appliance;
use tidegate::control::registry::fleet::{Fleet, Member};
use tidegate::control::routes::{Format, Plan, RouteFile, Routes};
use tidegate::control::steer::{From as Asking, Settings, Steer};
use tidegate::control::steering::{self, Asked};
use tidegate::message::forwarded::Forwarders;

use crate::disk::cpu_seconds;
use crate::figure::{Measure, Promise, Unit};
use crate::routes::{BOXES_PER_CLUSTER, CLUSTERS, boxes, lines, viewer};

const ANSWERS: u32 = 20_000;
const ANSWER_MAX_US: f64 = 100.0;
/// A hundred of each box: fewer would tell more of luck than of it.
const SESSIONS: u32 = 100_000;
/// Of viewers, times the boxes there are.
const MOVED_MAX: f64 = 1.2;

/// The boxes and the table.
pub(crate) struct Steering {
    steer: Steer,
}

impl Steering {
    pub(crate) fn start(folder: &Path) -> Steering {
        let folder = tempfile::tempdir_in(folder).expect("the folder can be written to");
        let path = folder.path().join("prefixes");
        std::fs::write(&path, lines()).unwrap();
        let files = vec![RouteFile { path, format: Format::Prefixes }];
        let routes = Routes::default();
        let outcome = routes.reread(&Plan { files, ..Plan::default() }, SystemTime::now());
        assert_eq!((outcome.read, outcome.refused.len()), (1, 0));
        let names: Vec<String> = (0..CLUSTERS).flat_map(boxes).collect();
        let settings = Settings {
            url: Some("https://steer.example.com".to_owned()),
            secret: Secret::random(),
            seal: None,
            spread: NonZeroU32::new(2).unwrap(),
            pace: Pace { steady_seconds: 300, unsettled_seconds: 20 },
            answers_per_second: u32::MAX,
            sites: ["film".to_owned()].into(),
            ended: Default::default(),
        };
        let field = http::header::FORWARDED;
        let forwarders = Forwarders { networks: Vec::new(), field };
        Steering {
            steer: Steer {
                fleet: Arc::new(ArcSwap::from_pointee(fleet(&names))),
                table: routes.current(),
                settings: Arc::new(ArcSwap::from_pointee(settings)),
                forwarders: Arc::new(ArcSwap::from_pointee(forwarders)),
                figures: Arc::default(),
                rate: RefCell::default(),
            },
        }
    }

    pub(crate) fn round(&self, round: u32) -> Vec<Measure> {
        let (fleet, table) = (self.steer.fleet.load(), self.steer.table.load());
        let decided = each(|number| {
            let session = number.to_string();
            let asked = asked(number, &session);
            let answer = steering_by(&fleet, &**table).answer(&asked);
            assert!(!black_box(answer).ranked.is_empty());
        });
        let sent = |kind: &str| {
            each(|number| {
                let from = Asking {
                    viewer: viewer(number),
                    scheme: "https",
                    host: Some("steer.example"),
                    now_seconds: number.into(),
                };
                let target = format!("/steer/v1/{kind}/film/film/{number}.m3u8?known=o&base=o");
                let response = self.steer.answer(&Method::GET, &target, from);
                assert!(response.status().as_u16() < 400);
            })
        };
        let promised = |name, value| {
            let measure = Measure::shown(name, Unit::Microseconds, value);
            measure.promised(Promise::MedianAtMost(ANSWER_MAX_US))
        };
        let mut measures = vec![
            promised("one of 1000 boxes and a million prefixes: decide, processor", decided),
            promised("a redirect, processor", sent("go")),
            promised("a manifest with clones, processor", sent("hls")),
            promised("ranked JSON, processor", sent("rank")),
        ];
        measures.extend(self.moved(round));
        measures
    }

    /// Of viewers that were announced to nobody: how many another box, or one less, moves, of what
    /// is its share. Each round has others.
    fn moved(&self, round: u32) -> Vec<Measure> {
        let sessions: Vec<String> =
            (round * SESSIONS..(round + 1) * SESSIONS).map(|number| number.to_string()).collect();
        let all: Vec<String> = (0..CLUSTERS).flat_map(boxes).collect();
        let (fewer, more) = (&all[1..], [&all[..], &["box-more".to_owned()]].concat());
        let [all, fewer, more] = [&all[..], fewer, &more].map(fleet);
        let begun = Instant::now();
        let [was, left, joined] = [&all, &fewer, &more].map(|fleet| firsts(fleet, &sessions));
        let took_ms = begun.elapsed().as_secs_f64() * 1e3;
        let share = f64::from(SESSIONS) / f64::from(CLUSTERS * BOXES_PER_CLUSTER);
        // What moves was with the one that is gone, or is with the one that came.
        let gone = was.iter().zip(&left).filter(|(was, now)| was != now);
        let came = was.iter().zip(&joined).filter(|(was, now)| was != now);
        let needless = gone.clone().filter(|(was, _)| **was != "box-0-0").count()
            + came.clone().filter(|(_, now)| **now != "box-more").count();
        let of_its_share = |name, moved: usize| {
            let measure = Measure::shown(name, Unit::Ratio, moved as f64 / share);
            measure.promised(Promise::MedianAtMost(MOVED_MAX))
        };
        vec![
            of_its_share("one box leaves: moved, of its share", gone.count()),
            of_its_share("one box joins: moved, of its share", came.count()),
            Measure::shown("  moved otherwise", Unit::Count, needless as f64)
                .promised(Promise::Exactly(0.0)),
            Measure::shown("300000 viewers decided on", Unit::Milliseconds, took_ms),
        ]
    }
}

/// Whom each is sent to first.
fn firsts<'a>(fleet: &'a Fleet, sessions: &[String]) -> Vec<&'a str> {
    let first = |(number, session): (usize, &String)| {
        let asked = asked(number as u32, session);
        steering_by(fleet, &steering::NoRoutes).answer(&asked).ranked[0].appliance
    };
    sessions.iter().enumerate().map(first).collect()
}

fn steering_by<'a>(fleet: &'a Fleet, routes: &'a dyn steering::Routes) -> steering::Steering<'a> {
    steering::Steering { fleet, routes, holds: &nobody_knows, spread: NonZeroU32::MAX }
}

fn nobody_knows(_: &Member) -> Option<bool> {
    None
}

fn asked(number: u32, session: &str) -> Asked<'_> {
    Asked {
        viewer: viewer(number),
        session,
        site: "film",
        path: "/film/master.m3u8",
        plays_from: None,
        among: None,
        now_seconds: number.into(),
    }
}

/// Boxes of these names, all alike.
fn fleet(names: &[String]) -> Fleet {
    let appliance = |name: &String| -> Appliance {
        let written = json!({
            "name": name, "host": format!("{name}.example.com"), "ipv4": "192.0.2.1",
            "capacity_bits_per_second": 10_000_000_000_u64, "position": [50.0, 8.0],
        });
        serde_json::from_value(written).unwrap()
    };
    Fleet::from(names.iter().map(appliance).collect::<Vec<_>>())
}

/// What one time takes of the processor, in microseconds.
fn each(once: impl Fn(u32)) -> f64 {
    let before = cpu_seconds();
    (0..ANSWERS).for_each(once);
    (cpu_seconds() - before) * 1e6 / f64::from(ANSWERS)
}
