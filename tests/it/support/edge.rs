//! The appliance itself, in front of an origin, on ports of its own choosing.
//!
//! Its configuration is written as an operator would write it, as TOML. Its figures are read as he
//! would read them, from `/metrics`. It is stopped when dropped.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tidegate::appliance::{Appliance, Running};
use tidegate::config::Config;
use tidegate::store::device::Simulation;
use tokio_rustls::rustls::RootCertStore;

use super::client::{Client, Request, Speaks};
use super::origin::{Origin, PATIENCE};

/// The host every edge has a site for.
pub(crate) const HOST: &str = "media.test";

/// An edge being configured.
#[derive(Debug)]
pub(crate) struct Configured {
    origin: SocketAddr,
    settings: BTreeMap<String, String>,
    origin_settings: Vec<String>,
    site_settings: Vec<String>,
    rules: Vec<String>,
    volumes: Vec<String>,
    more_sites: Vec<String>,
}

impl Configured {
    /// A volume of the ssd tier, kept in a file of `folder` that outlives the edge.
    pub(crate) fn volume(self, folder: &Path, name: &str) -> Configured {
        let path = folder.join(name);
        self.volume_with(&format!(
            "path = {path:?}\nsize = \"256 MiB\"\nwrites_per_day = \"1000x\""
        ))
    }

    /// A volume of the ssd tier, in TOML.
    pub(crate) fn volume_with(mut self, settings: &str) -> Configured {
        self.volumes.push(format!("[[ssd.volumes]]\n{settings}\n"));
        self
    }

    /// Serving threads.
    pub(crate) fn workers(self, workers: usize) -> Configured {
        self.setting("threads.workers", &workers.to_string())
    }

    /// The ram tier; at least 64 MiB.
    pub(crate) fn ram(self, size: &str) -> Configured {
        self.setting("memory.ram", size)
    }

    /// Any setting by its full name; numbers and booleans are written bare.
    pub(crate) fn setting(mut self, name: &str, value: &str) -> Configured {
        self.settings.insert(name.to_owned(), written(value));
        self
    }

    /// A setting of the one origin.
    pub(crate) fn origin_setting(mut self, name: &str, value: &str) -> Configured {
        self.origin_settings.push(format!("{name} = {}", written(value)));
        self
    }

    /// A setting of the one site, in TOML.
    pub(crate) fn site_setting(mut self, setting: &str) -> Configured {
        self.site_settings.push(setting.to_owned());
        self
    }

    /// A rule for the paths under a pattern, in TOML; the first that matches counts.
    pub(crate) fn rule(mut self, pattern: &str, settings: &str) -> Configured {
        self.rules.push(format!("[[sites.rules]]\npath = {pattern:?}\n{settings}\n"));
        self
    }

    /// Another site of this name with the same origin, at the host `NAME.test`.
    pub(crate) fn site(mut self, name: &str) -> Configured {
        self.more_sites.push(name.to_owned());
        self
    }

    /// Starts it.
    pub(crate) fn start(self) -> Edge {
        self.try_start().unwrap_or_else(|error| panic!("{error}"))
    }

    /// Starts it, or says why it does not start.
    pub(crate) fn try_start(mut self) -> Result<Edge, String> {
        let folder = TempDir::new().unwrap();
        let state = folder.path().join("volumes.json").to_string_lossy().into_owned();
        self.settings.entry("ssd.state".to_owned()).or_insert(written(&state));
        let certified = rcgen::generate_simple_self_signed([HOST.to_owned()]).unwrap();
        let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        std::fs::write(&certificate, certified.cert.pem()).unwrap();
        std::fs::write(&key, certified.signing_key.serialize_pem()).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certified.cert.der().clone()).unwrap();

        let text = self.text(&certificate.to_string_lossy(), &key.to_string_lossy());
        // A thread of its own: starting blocks, and no runtime may be entered inside another.
        let started = std::thread::spawn(move || {
            let config = Config::from_toml(&text, "test.toml");
            let config = config.unwrap_or_else(|errors| panic!("{errors}\nin\n{text}"));
            Appliance::start(config).map_err(|error| error.to_string())
        });
        let running = started.join().unwrap()?;
        Ok(Edge { running: Some(running), roots, _folder: folder })
    }

    fn text(&self, certificate: &str, key: &str) -> String {
        let mut text = String::new();
        for (name, value) in &self.settings {
            writeln!(text, "{name} = {value}").unwrap();
        }
        for volume in &self.volumes {
            writeln!(text, "\n{volume}").unwrap();
        }
        writeln!(text, "\n[[certificates]]\ncert = {certificate:?}\nkey = {key:?}").unwrap();
        writeln!(text, "\n[[sites]]\nname = \"media\"\nhosts = [{HOST:?}]").unwrap();
        for setting in &self.site_settings {
            writeln!(text, "{setting}").unwrap();
        }
        writeln!(text, "\n[[sites.origins]]\nurl = \"http://{}\"", self.origin).unwrap();
        for setting in &self.origin_settings {
            writeln!(text, "{setting}").unwrap();
        }
        for rule in &self.rules {
            writeln!(text, "\n{rule}").unwrap();
        }
        for site in &self.more_sites {
            let (host, origin) = (format!("{site}.test"), format!("http://{}", self.origin));
            writeln!(text, "\n[[sites]]\nname = {site:?}\nhosts = [{host:?}]").unwrap();
            writeln!(text, "origins = [{origin:?}]").unwrap();
        }
        text
    }
}

/// A running edge.
pub(crate) struct Edge {
    running: Option<Running>,
    roots: RootCertStore,
    _folder: TempDir,
}

impl Edge {
    /// One site, one origin, two workers, ports the system chooses.
    pub(crate) fn in_front_of(origin: &Origin) -> Configured {
        Edge::at(origin.address())
    }

    /// The same, by the origin's address.
    pub(crate) fn at(origin: SocketAddr) -> Configured {
        let settings = BTreeMap::new();
        let configured = Configured {
            origin,
            settings,
            origin_settings: Vec::new(),
            site_settings: Vec::new(),
            rules: Vec::new(),
            volumes: Vec::new(),
            more_sites: Vec::new(),
        };
        let any_port = "[\"127.0.0.1:0\"]";
        configured
            .setting("listeners.http", any_port)
            .setting("listeners.https", any_port)
            .setting("listeners.admin", any_port)
            .setting("log.access", "off")
            .setting("log.level", "error")
            .setting("limits.drain_timeout", "100ms")
            .setting("limits.lag", "1h")
            .setting("usage.months", "0")
            .workers(2)
            .ram("64 MiB")
    }

    /// A viewer over plain HTTP/1.1.
    pub(crate) fn client(&self) -> Client {
        Client::plain(self.running().http_addresses()[0], HOST)
    }

    /// A viewer over HTTPS.
    pub(crate) fn client_over_tls(&self, speaks: Speaks) -> Client {
        let address = self.running().https_addresses()[0];
        Client::tls(address, HOST, self.roots.clone(), speaks)
    }

    /// A GET over plain HTTP/1.1.
    pub(crate) fn get(&self, target: &str) -> Request {
        self.client().get(target)
    }

    /// A HEAD over plain HTTP/1.1.
    pub(crate) fn head(&self, target: &str) -> Request {
        self.client().head(target)
    }

    /// Someone who asks the admin listener.
    pub(crate) fn admin(&self) -> Client {
        Client::plain(self.running().admin_addresses()[0], "localhost")
    }

    /// What operators are told of it.
    pub(crate) async fn status(&self) -> Value {
        status_of(&self.admin()).await
    }

    /// The sum of the series of this name whose labels contain all of `labels`.
    ///
    /// Panics where there is none: a metric misspelt would else be zero for ever.
    pub(crate) async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self.admin().get("/metrics").send().await.body;
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let series = lines.filter_map(|line| line.rsplit_once(' '));
        let named = |series: &str| {
            let matches = labels.iter().all(|label| series.contains(label));
            series.split('{').next() == Some(name) && matches
        };
        let values: Vec<f64> =
            series.filter(|(series, _)| named(series)).map(|(_, value)| number(value)).collect();
        assert!(!values.is_empty(), "no metric {name} {labels:?}");
        values.into_iter().sum()
    }

    /// Waits until a metric is as it must become; panics when it does not.
    pub(crate) async fn until_metric(
        &self,
        name: &str,
        labels: &[&str],
        holds: impl Fn(f64) -> bool,
    ) {
        let asked = tokio::time::Instant::now();
        loop {
            let value = self.metric(name, labels).await;
            if holds(value) {
                return;
            }
            assert!(asked.elapsed() < PATIENCE, "{name} {labels:?} stays at {value}");
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until so many records are on its volumes: one for each block, and one for each
    /// object's head; a small object lies in one with its head. Panics when they are not.
    pub(crate) async fn until_entries(&self, wanted: u64) {
        let there = |value: f64| value >= wanted as f64;
        self.until_metric("tidegate_ssd_index_entries", &[], there).await;
    }

    /// Waits until so many viewers follow runs of `path`: none of them reads it from elsewhere.
    /// Panics when they do not.
    pub(crate) async fn until_followed(&self, path: &str, viewers: u64) {
        let following = |runs: &[(String, u64)]| -> u64 {
            runs.iter().filter(|(of, _)| of == path).map(|(_, viewers)| viewers).sum()
        };
        until_runs(&self.admin(), |runs| following(runs) == viewers).await;
    }

    /// Puts this share of what ram holds out of it.
    pub(crate) fn evict(&self, share_percent: u64) {
        self.running().evict(share_percent);
    }

    /// Makes a simulated volume ill from now on, as its `simulate` says it.
    pub(crate) fn falls_ill(&self, volume: &str, faults: &str) {
        let simulation = format!("size=4KiB,{faults}").parse::<Simulation>().unwrap();
        self.running().simulate(volume, simulation.faults);
    }

    /// Takes what is known of objects out of ram.
    pub(crate) fn forget_heads(&self) {
        self.running().forget_heads();
    }

    /// Takes no more work and finishes what is there; blocks, so on a thread of its own.
    pub(crate) async fn drain(&mut self) {
        let running = self.running.take().expect("an edge is drained once");
        tokio::task::spawn_blocking(move || running.drain()).await.unwrap();
    }

    fn running(&self) -> &Running {
        self.running.as_ref().expect("an edge that was drained is not asked")
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            // On a thread of its own: draining blocks, and the test's runtime forbids that here.
            let drained = std::thread::spawn(move || running.drain()).join();
            assert!(drained.is_ok() || std::thread::panicking(), "draining panicked");
        }
    }
}

fn written(value: &str) -> String {
    let bare = value.parse::<i64>().is_ok() || value.parse::<bool>().is_ok();
    let bare = bare || value.starts_with('[') || value.starts_with('{');
    if bare { value.to_owned() } else { format!("{value:?}") }
}

fn number(value: &str) -> f64 {
    value.parse().unwrap_or_else(|_| panic!("a metric's value: {value}"))
}

const POLL: Duration = Duration::from_millis(10);

/// Waits until the runs in flight, by their target and number of viewers, are as they must become;
/// panics when they do not.
pub(crate) async fn until_runs(admin: &Client, holds: impl Fn(&[(String, u64)]) -> bool) {
    let asked = tokio::time::Instant::now();
    loop {
        let runs = runs_of(admin).await;
        if holds(&runs) {
            return;
        }
        assert!(asked.elapsed() < PATIENCE, "runs stay {runs:?}");
        tokio::time::sleep(POLL).await;
    }
}

/// Waits until it is ready; panics when it is not.
pub(crate) async fn until_ready(admin: &Client) {
    let asked = tokio::time::Instant::now();
    while admin.get("/health/ready").send().await.status != 200 {
        assert!(asked.elapsed() < PATIENCE, "it does not get ready");
        tokio::time::sleep(POLL).await;
    }
}

async fn status_of(admin: &Client) -> Value {
    serde_json::from_slice(&admin.get("/status.json").send().await.body).unwrap()
}

/// The paths of the runs in flight, each with its viewers.
pub(crate) async fn runs_of(admin: &Client) -> Vec<(String, u64)> {
    let of =
        |run: &Value| (run["path"].as_str().unwrap().to_owned(), run["viewers"].as_u64().unwrap());
    status_of(admin).await["runs"].as_array().unwrap().iter().map(of).collect()
}
