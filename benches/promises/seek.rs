//! A seek to 5 GB of a cold 8 GB object while another reads it from the start: the viewer waits for
//! the origin, not for us, and the origin is asked for a window.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::edge::Edge;
use crate::figure::{Measure, Promise, Unit};
use crate::origin::{self, Behaviour, Origin};
use crate::viewer::Connection;

const LENGTH: u64 = 8_000_000_000;
const FAR: u64 = 5_000_000_000;
const WINDOW: u64 = 8 << 20;
/// What may come on top of the origin's own time.
const ADDED_MAX_MS: f64 = 50.0;
const SLOW: Behaviour =
    Behaviour { first_byte_after: Duration::from_millis(100), bytes_per_second: 16 << 20 };

/// An edge and its slow origin.
pub(crate) struct Seek {
    origin: Origin,
    edge: Edge,
}

impl Seek {
    pub(crate) fn start() -> Seek {
        let origin = Origin::start(SLOW);
        let settings = "[memory]\nram = \"512 MiB\"\n\n[fill]\nwindow = \"8 MiB\"";
        let edge = Edge::start(origin.address(), settings);
        Seek { origin, edge }
    }

    pub(crate) async fn round(&mut self, round: u32) -> Vec<Measure> {
        let path = format!("/{LENGTH}/seek-{round}");
        let mut reader = Connection::open(self.edge.http(), None).await.unwrap();
        let head = reader.ask(&path, None).await.unwrap();
        assert_eq!((head.status, head.body_bytes), (200, LENGTH));
        reader.read_to(origin::content(&path), 0, 1 << 20).await.unwrap();
        let reading_path = path.clone();
        let reading = tokio::spawn(async move {
            let content = origin::content(&reading_path);
            reader.read_to(content, 1 << 20, LENGTH).await.expect("the reader is not disturbed");
        });

        let mut viewer = Connection::open(self.edge.http(), None).await.unwrap();
        let began = Instant::now();
        viewer.send(&path, Some(FAR)).await.unwrap();
        let head = viewer.read_head().await.unwrap();
        assert_eq!((head.status, head.body_bytes), (206, LENGTH - FAR));
        let mut first = [0];
        timeout(PATIENCE, viewer.read(&mut first)).await.expect("the seek is answered").unwrap();
        let waited = began.elapsed();
        let asked = self.origin.asked(&path);
        assert_eq!(origin::content(&path).first_difference(FAR, &first), None);
        assert!(!reading.is_finished(), "the other still reads");
        reading.abort();

        let far: Vec<_> = asked.iter().filter(|asked| asked.start + WINDOW > FAR).collect();
        let bytes: u64 = far.iter().map(|asked| asked.end - asked.start).sum();
        let of_origin = far.first().expect("the seek is asked for").answered_after;
        let time = |name, time: Duration| {
            Measure::shown(name, Unit::Milliseconds, time.as_secs_f64() * 1e3)
        };
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        vec![
            time("origin's first byte", of_origin),
            time("added to it by the edge", waited.saturating_sub(of_origin))
                .promised(Promise::MedianAtMost(ADDED_MAX_MS)),
            Measure::shown("origin requests for the seek", Unit::Count, far.len() as f64)
                .promised(Promise::Exactly(1.0)),
            Measure::shown("asked for by the seek", Unit::MiB, mib(bytes))
                .promised(Promise::AtMost(mib(WINDOW))),
        ]
    }
}

const PATIENCE: Duration = Duration::from_secs(10);
