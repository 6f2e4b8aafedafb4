//! `tidegate demo --smoke`: the demo without a person, every byte compared with the embedded file.
//!
//! Each round of requests is made twice, over HTTP/1.1 and over HTTP/2. The origin's own counts say
//! whether the second time cost it anything; a 304 to a short-lived playlist is no cost. Where
//! there is an ssd tier, ram is emptied then, and a third round comes from there.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use http::{StatusCode, Version, header};

use super::origin::{Origin, Served};
use super::viewer::{Answer, EdgeAddress, Viewer, ViewerError};
use crate::limits::{PIECE_SIZE_BYTES, SLOT_SIZE_BYTES};
use crate::page;

const MASTER: &str = "/film/master.m3u8";
const PROBLEMS_SHOWN_MAX: usize = 10;

/// What the smoke test found; its text is a short table.
#[derive(Debug)]
pub struct Report {
    rounds: Vec<Round>,
}

/// Plays a rendition and asks for ranges, twice each, over HTTP/1.1 and HTTP/2; and once more from
/// the ssd tier, if `empty_ram` says that there is one and everything is on it.
///
/// Nobody else may ask the origin for the film meanwhile. Dropped midway, it only leaves its bytes
/// in the cache.
pub async fn run(
    edge: &EdgeAddress,
    origin: &Origin,
    empty_ram: impl AsyncFnOnce() -> bool,
) -> Report {
    let mut rounds = Vec::new();
    let scripts = || {
        // Another rendition and another object for HTTP/2: it too has something to fill.
        let versions = [
            (Version::HTTP_11, 0, page::BLOCKS_PATH.to_string()),
            (Version::HTTP_2, 1, format!("{}?over=h2", page::BLOCKS_PATH)),
        ];
        versions.into_iter().flat_map(|(version, rendition, object)| {
            [(version, Script::Rendition(rendition)), (version, Script::Ranges(object))]
        })
    };
    for (version, script) in scripts() {
        for turn in [Turn::First, Turn::Second] {
            rounds.push(Round::made(edge, origin, version, &script, turn).await);
        }
    }
    if empty_ram().await {
        for (version, script) in scripts() {
            rounds.push(Round::made(edge, origin, version, &script, Turn::FromSsd).await);
        }
    }
    Report { rounds }
}

impl Report {
    /// Whether every byte was right, and every second turn cost the origin nothing, and what came
    /// from the ssd tier next to nothing.
    pub fn passed(&self) -> bool {
        self.rounds.iter().all(|round| round.problems.is_empty())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<10} {:<7} {:<9} {:>8} {:>10} {:>14} {:>12} {:>12}  result",
            "what",
            "turn",
            "protocol",
            "requests",
            "bytes",
            "origin asked",
            "origin sent",
            "first byte"
        )?;
        for round in &self.rounds {
            writeln!(f, "{round}")?;
        }
        let problems: Vec<_> = self.rounds.iter().flat_map(|round| &round.problems).collect();
        for problem in problems.iter().take(PROBLEMS_SHOWN_MAX) {
            writeln!(f, "  {problem}")?;
        }
        if problems.len() > PROBLEMS_SHOWN_MAX {
            writeln!(f, "  and {} more", problems.len() - PROBLEMS_SHOWN_MAX)?;
        }
        let failed = self.rounds.iter().filter(|round| !round.problems.is_empty()).count();
        write!(f, "{} passed, {failed} failed", self.rounds.len() - failed)
    }
}

/// What a round asks for.
#[derive(Debug)]
enum Script {
    /// The master playlist, one of its media playlists by index, and all that this one names.
    Rendition(usize),
    /// Ranges of the object at this path, across the borders of its pieces and blocks.
    Ranges(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    First,
    Second,
    FromSsd,
}

impl Turn {
    fn word(self) -> &'static str {
        match self {
            Turn::First => "first",
            Turn::Second => "second",
            Turn::FromSsd => "ssd",
        }
    }
}

/// One round of requests.
#[derive(Debug)]
struct Round {
    what: &'static str,
    turn: Turn,
    version: Version,
    requests: u64,
    bytes: u64,
    first_bytes: Vec<Duration>,
    cost: Cost,
    problems: Vec<Problem>,
}

/// What a round cost the origin: requests it answered with content, and the content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cost {
    requests: u64,
    bytes: u64,
}

impl Cost {
    fn between(before: Served, after: Served) -> Cost {
        let answered = |served: Served| served.film_requests - served.film_not_modified;
        Cost {
            requests: answered(after) - answered(before),
            bytes: after.film_bytes - before.film_bytes,
        }
    }
}

impl Round {
    async fn made(
        edge: &EdgeAddress,
        origin: &Origin,
        version: Version,
        script: &Script,
        turn: Turn,
    ) -> Round {
        let mut round = Round {
            what: if let Script::Rendition(_) = script { "rendition" } else { "ranges" },
            turn,
            version,
            requests: 0,
            bytes: 0,
            first_bytes: Vec::new(),
            cost: Cost::default(),
            problems: Vec::new(),
        };
        let before = origin.served();
        if let Err(error) = round.play(edge, script).await {
            round.problems.push(Problem::NoAnswer(error));
        }
        round.cost = Cost::between(before, origin.served());
        // Playlists are too short-lived for the ssd tier: they may be asked for again.
        let dear = match turn {
            Turn::First => false,
            Turn::Second => round.cost != Cost::default(),
            Turn::FromSsd => round.cost.bytes > round.bytes / 20,
        };
        if dear {
            round.problems.push(Problem::Cost(round.cost));
        }
        round
    }

    async fn play(&mut self, edge: &EdgeAddress, script: &Script) -> Result<(), ViewerError> {
        let mut viewer = Viewer::connect(edge, self.version).await?;
        match script {
            Script::Rendition(index) => {
                let master = self.ask(&mut viewer, MASTER, None).await?;
                let Some(name) = uris(&master).into_iter().nth(*index) else {
                    self.problems.push(Problem::NoRendition { index: *index });
                    return Ok(());
                };
                let playlist = self.ask(&mut viewer, &beside(MASTER, &name), None).await?;
                for name in uris(&playlist) {
                    self.ask(&mut viewer, &beside(MASTER, &name), None).await?;
                }
            }
            Script::Ranges(path) => {
                for range in ranges(page::BLOCKS_LENGTH_BYTES) {
                    self.ask(&mut viewer, path, Some(range)).await?;
                }
            }
        }
        Ok(())
    }

    /// Asks for `path`, or a range of it, and compares what comes with the embedded file.
    async fn ask(
        &mut self,
        viewer: &mut Viewer,
        path: &str,
        range: Option<Ranged>,
    ) -> Result<Bytes, ViewerError> {
        let answer = viewer.get(path, range.as_ref().map(|range| range.field.as_str())).await?;
        self.requests += 1;
        self.bytes += answer.body.len() as u64;
        self.first_bytes.push(answer.first_byte);
        self.problems.extend(difference(&answer, path, range).err());
        Ok(answer.body)
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut waits = self.first_bytes.clone();
        waits.sort();
        let median = waits.get(waits.len() / 2).copied().unwrap_or_default();
        write!(
            f,
            "{:<10} {:<7} {:<9} {:>8} {:>10} {:>14} {:>12} {:>9.2} ms  {}",
            self.what,
            self.turn.word(),
            if self.version == Version::HTTP_2 { "HTTP/2" } else { "HTTP/1.1" },
            self.requests,
            self.bytes,
            self.cost.requests,
            self.cost.bytes,
            median.as_secs_f64() * 1e3,
            if self.problems.is_empty() { "ok" } else { "FAILED" },
        )
    }
}

/// A `Range` field, and the bytes that answer it; `None` when none can.
#[derive(Clone, Debug)]
struct Ranged {
    field: String,
    expected: Option<Range<usize>>,
}

/// Ranges of an object of `length` bytes: around borders of pieces and blocks, and at its ends.
fn ranges(length: usize) -> Vec<Ranged> {
    let (piece, block) = (PIECE_SIZE_BYTES as usize, SLOT_SIZE_BYTES as usize);
    let within = |start: usize, end: usize| Ranged {
        field: format!("bytes={start}-{}", end - 1),
        expected: Some(start..end),
    };
    let borders = [2 * block, piece, block - piece, block, block + piece, 3 * block];
    let mut list: Vec<_> = borders
        .into_iter()
        .flat_map(|border| {
            let around = [(border - 1, border + 1), (border - 1, border), (border, border + 1)];
            around.into_iter().chain([(border - 1000, border + 1000)])
        })
        .map(|(start, end)| within(start, end))
        .collect();
    list.extend([within(block, 2 * block), within(block - 1, 2 * block + 1), within(0, length)]);
    let other = |spec: String, expected| Ranged { field: format!("bytes={spec}"), expected };
    list.extend([
        other(format!("{}-", 3 * block), Some(3 * block..length)),
        other("-1".to_string(), Some(length - 1..length)),
        other("-12346".to_string(), Some(length - 12_346..length)),
        other(format!("-{}", length + 1), Some(0..length)),
        other(format!("{}-{}", length - 1, 2 * length), Some(length - 1..length)),
        other(format!("{length}-"), None),
    ]);
    list
}

/// The first way in which `answer` is not the embedded file at `path`, or the range asked of it.
fn difference(answer: &Answer, path: &str, range: Option<Ranged>) -> Result<(), Problem> {
    let file_path = path.split_once('?').map_or(path, |(path, _)| path);
    let Some((_, whole)) = page::file(file_path) else {
        return Err(Problem::NoSuchFile { path: path.to_string() });
    };
    let asked = range.as_ref().map_or(path.to_string(), |range| format!("{path} {}", range.field));
    let (status, content_range, expected) = match range.map(|range| range.expected) {
        None => (StatusCode::OK, None, 0..whole.len()),
        Some(Some(part)) => {
            let said = format!("bytes {}-{}/{}", part.start, part.end - 1, whole.len());
            (StatusCode::PARTIAL_CONTENT, Some(said), part)
        }
        Some(None) => {
            (StatusCode::RANGE_NOT_SATISFIABLE, Some(format!("bytes */{}", whole.len())), 0..0)
        }
    };
    if answer.status != status {
        return Err(Problem::Status { asked, expected: status, got: answer.status });
    }
    let field = answer.fields.get(header::CONTENT_RANGE);
    let got = field.map(|field| String::from_utf8_lossy(field.as_bytes()).into_owned());
    if got != content_range {
        return Err(Problem::ContentRange { asked, expected: content_range, got });
    }
    if status == StatusCode::RANGE_NOT_SATISFIABLE {
        return Ok(()); // What it says in words is its own affair.
    }
    let expected = &whole[expected];
    if answer.body.len() != expected.len() {
        return Err(Problem::Length { asked, expected: expected.len(), got: answer.body.len() });
    }
    match answer.body.iter().zip(expected).position(|(got, expected)| got != expected) {
        Some(offset) => Err(Problem::Byte { asked, offset }),
        None => Ok(()),
    }
}

/// What a playlist names, in order: media segments and playlists, and the initialisation section.
fn uris(playlist: &[u8]) -> Vec<String> {
    let named = |line: &str| match line.strip_prefix("#EXT-X-MAP:URI=\"") {
        Some(rest) => rest.split('"').next().map(str::to_string),
        None => (!line.is_empty() && !line.starts_with('#')).then(|| line.to_string()),
    };
    String::from_utf8_lossy(playlist).lines().filter_map(|line| named(line.trim())).collect()
}

/// `name` in the folder of `path`.
fn beside(path: &str, name: &str) -> String {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    format!("{folder}/{name}")
}

/// What was not as it must be.
#[derive(Debug)]
enum Problem {
    NoAnswer(ViewerError),
    NoRendition { index: usize },
    NoSuchFile { path: String },
    Status { asked: String, expected: StatusCode, got: StatusCode },
    ContentRange { asked: String, expected: Option<String>, got: Option<String> },
    Length { asked: String, expected: usize, got: usize },
    Byte { asked: String, offset: usize },
    Cost(Cost),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = |field: &Option<String>| field.clone().unwrap_or("no content-range".to_string());
        match self {
            Problem::NoAnswer(error) => write!(f, "{error}"),
            Problem::NoRendition { index } => {
                write!(f, "the master playlist names no rendition {index}")
            }
            Problem::NoSuchFile { path } => write!(f, "{path}: named by a playlist, not embedded"),
            Problem::Status { asked, expected, got } => {
                write!(f, "{asked}: status {}, not {}", got.as_u16(), expected.as_u16())
            }
            Problem::ContentRange { asked, expected, got } => {
                write!(f, "{asked}: {}, not {}", said(got), said(expected))
            }
            Problem::Length { asked, expected, got } => {
                write!(f, "{asked}: {got} bytes, not {expected}")
            }
            Problem::Byte { asked, offset } => write!(f, "{asked}: wrong from its byte {offset}"),
            Problem::Cost(cost) => write!(
                f,
                "asking again cost the origin {} requests and {} bytes",
                cost.requests, cost.bytes
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    use http::{Request, Response};
    use http_body_util::{BodyExt, Full};
    use hyper::body::Incoming;
    use hyper::service::service_fn;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use hyper_util::server::conn::auto;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::cli::demo::origin::Distance;

    /// What stands in for an edge: content of `source`, changed by `spoil`, over TLS.
    async fn front(source: Arc<Origin>, spoil: fn(&str, Vec<u8>) -> Vec<u8>) -> EdgeAddress {
        let made = rcgen::generate_simple_self_signed(["localhost".to_string()]).unwrap();
        let certificate = made.cert.der().clone();
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key.unwrap())
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(stream) = acceptor.accept(stream).await else { continue };
                let source = Arc::clone(&source);
                let service = service_fn(move |request: Request<Incoming>| {
                    let source = Arc::clone(&source);
                    async move {
                        let path = request.uri().path().to_string();
                        let (mut head, body) = source.answer(&request).into_parts();
                        let body = spoil(&path, body.collect().await?.to_bytes().to_vec());
                        head.headers.remove(header::CONTENT_LENGTH);
                        Ok::<_, Infallible>(Response::from_parts(
                            head,
                            Full::new(Bytes::from(body)),
                        ))
                    }
                });
                tokio::spawn(async move {
                    let server = auto::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        EdgeAddress { address, host: "localhost".to_string(), certificate }
    }

    async fn origin() -> Arc<Origin> {
        Arc::new(Origin::start(Distance::default()).await.unwrap())
    }

    #[tokio::test]
    async fn an_edge_that_holds_everything_passes() {
        let edge = front(origin().await, |_, body| body).await;
        let report = run(&edge, &*origin().await, async || false).await;
        assert!(report.passed(), "{report}");
        assert_eq!(report.rounds.len(), 8);
        assert!(report.to_string().ends_with("8 passed, 0 failed"), "{report}");
        // The master playlist, the media playlist, the initialisation section, fifteen segments.
        assert_eq!(report.rounds[0].requests, 18);
        assert_eq!(report.rounds[2].requests, ranges(page::BLOCKS_LENGTH_BYTES).len() as u64);
    }

    #[tokio::test]
    async fn an_edge_that_holds_nothing_fails_each_second_turn() {
        let origin = origin().await;
        let edge = front(Arc::clone(&origin), |_, body| body).await;
        let report = run(&edge, &origin, async || false).await;
        assert!(!report.passed());
        for round in &report.rounds {
            assert_eq!(round.problems.is_empty(), round.turn == Turn::First, "{report}");
        }
    }

    #[tokio::test]
    async fn what_an_ssd_tier_does_not_hold_fails_the_third_turn() {
        let origin = origin().await;
        let edge = front(Arc::clone(&origin), |_, body| body).await;
        let report = run(&edge, &origin, async || true).await;
        let third: Vec<_> =
            report.rounds.iter().filter(|round| round.turn == Turn::FromSsd).collect();
        assert_eq!(third.len(), 4);
        assert!(third.iter().all(|round| !round.problems.is_empty()), "{report}");
    }

    #[tokio::test]
    async fn one_wrong_byte_or_one_missing_fails() {
        fn spoil(path: &str, mut body: Vec<u8>) -> Vec<u8> {
            match path {
                "/film/seg-0-00007.m4s" => body[100_000] ^= 1,
                "/film/seg-1-00015.m4s" => drop(body.pop()),
                _ => {}
            }
            body
        }
        let edge = front(origin().await, spoil).await;
        let report = run(&edge, &*origin().await, async || false).await;
        let text = report.to_string();
        assert!(text.contains("/film/seg-0-00007.m4s: wrong from its byte 100000\n"), "{text}");
        assert!(text.contains("/film/seg-1-00015.m4s: 95702 bytes, not 95703\n"), "{text}");
        assert!(text.ends_with("4 passed, 4 failed"), "{text}");
    }

    #[tokio::test]
    async fn a_certificate_that_is_not_the_demos_is_refused() {
        let mut edge = front(origin().await, |_, body| body).await;
        let other = rcgen::generate_simple_self_signed(["localhost".to_string()]).unwrap();
        edge.certificate = other.cert.der().clone();
        let report = run(&edge, &*origin().await, async || false).await;
        assert!(report.to_string().contains("cannot connect with HTTP/1.1"), "{report}");
        assert!(report.to_string().ends_with("0 passed, 8 failed"), "{report}");
    }
}
