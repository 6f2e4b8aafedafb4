//! `tidegate demo`: an embedded origin with a film, an edge in front of it, and a page to watch
//! both.
//!
//! The edge is the real appliance, configured by a file like any other; only its origin lives in
//! the same process and its certificate was made a moment ago. Nothing outlives the demo but that
//! certificate's folder, which is removed at the end.

pub mod origin;
mod paced;
pub mod smoke;
pub mod viewer;

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{CertifiedKey, KeyPair};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use super::Failure;
use super::serve::log_to_stderr;
use crate::appliance::{Appliance, Running};
use crate::config::{Config, LogLevel};
use crate::control::status::Status;

use self::origin::{Distance, Origin};
use self::viewer::EdgeAddress;

const EXAMPLES: &str = "\
Examples:
  tidegate demo                        until Ctrl-C or SIGTERM
  tidegate demo --smoke                without a person
  tidegate demo --origin-delay 200     what a distant origin costs the first viewer alone

Exit codes: 0 told to stop, or --smoke found every byte right, 1 not, 64 misused";

/// Play a film through an edge on this machine, and watch what the edge does
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct Args {
    /// The page's port; another one if it is taken
    #[arg(long, default_value_t = 8443)]
    port: u16,
    /// Fetch the film twice without a person, compare every byte, and exit 0 or 1
    #[arg(long)]
    smoke: bool,
    /// Print the links as one line of JSON
    #[arg(long)]
    json: bool,
    /// Milliseconds the origin waits before each answer
    #[arg(long, value_name = "MS", default_value_t = 0)]
    origin_delay: u64,
}

/// Runs the demo until a signal says stop, or the smoke test until it is done.
pub(in crate::cli) fn run(args: &Args) -> Result<(), Failure> {
    let _written_at_exit =
        log_to_stderr(if args.smoke || args.json { LogLevel::Warn } else { LogLevel::Info });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("demo-origin")
        .enable_all()
        .build()
        .map_err(failed("a runtime"))?;
    let distance = Distance {
        first_byte_after: Duration::from_millis(args.origin_delay),
        ..Distance::default()
    };
    let origin = runtime.block_on(Origin::start(distance)).map_err(failed("an origin"))?;
    let folder = Folder::create().map_err(failed("a folder for its files"))?;
    let port = if args.smoke { 0 } else { args.port };
    let edge = start_somehow(&folder, origin.address(), port).map_err(Failure::Failed)?;
    let status = edge.status_source();
    origin.forget_with(edge.ram_emptier());
    origin.show_status_of(move || {
        serde_json::to_string(&status()).expect("a status is made of strings, numbers and lists")
    });
    let outcome = match args.smoke {
        true => runtime.block_on(smoke(&folder, &edge, &origin)),
        false => runtime.block_on(show(args, &folder, &edge)),
    };
    edge.drain();
    runtime.block_on(origin.stop());
    outcome
}

async fn smoke(folder: &Folder, edge: &Running, origin: &Origin) -> Result<(), Failure> {
    let certificate = CertificateDer::from_pem_file(folder.certificate())
        .map_err(|error| Failure::Failed(format!("the demo's certificate: {error}")))?;
    let address = first(&edge.https_addresses())?;
    let (status, empty_ram) = (edge.status_source(), edge.ram_emptier());
    let edge = EdgeAddress { address, host: "localhost".to_owned(), certificate };
    let on_ssd = async || {
        let kept = all_is_kept(&status).await;
        if kept {
            empty_ram();
        }
        kept
    };
    let report = smoke::run(&edge, origin, on_ssd).await;
    super::print(&format!("{report}\n"))?;
    match report.passed() {
        true => Ok(()),
        false => Err(Failure::Failed("the smoke test failed; see the table above".to_owned())),
    }
}

/// Waits until the ssd tier has written what it was given; whether there is one.
async fn all_is_kept(status: &impl Fn() -> Status) -> bool {
    let mut before = None;
    for _ in 0..LOOKS_MAX {
        let Some(ssd) = status().ssd.filter(|ssd| !ssd.volumes.is_empty()) else { return false };
        let writes: u64 = ssd.volumes.iter().map(|volume| volume.writes).sum();
        let waiting: u64 = ssd.volumes.iter().map(|volume| volume.queue_depth).sum();
        if waiting == 0 && before.replace(writes) == Some(writes) {
            return true;
        }
        sleep(LOOK_EVERY).await;
    }
    true
}

/// Longer than heads wait for each other to be written together.
const LOOK_EVERY: Duration = Duration::from_millis(300);
const LOOKS_MAX: usize = 30;

async fn show(args: &Args, folder: &Folder, edge: &Running) -> Result<(), Failure> {
    let port = first(&edge.https_addresses())?.port();
    let https = format!("https://localhost:{port}");
    let taken = format!("Port {} is taken: the page is at port {port}.", args.port);
    let is_elsewhere = args.port != 0 && args.port != port;
    if is_elsewhere && args.json {
        // The line of JSON stays alone on standard output.
        let _ = writeln!(io::stderr(), "{taken}");
    }
    let note = if is_elsewhere && !args.json { format!("\n  {taken}\n") } else { String::new() };
    let http = format!("http://localhost:{}", first(&edge.http_addresses())?.port());
    let admin = format!("http://localhost:{}", first(&edge.admin_addresses())?.port());
    let certificate = folder.certificate();
    let text = match args.json {
        true => {
            let page = format!("{https}/");
            let links = json!({
                "page": page, "https": https, "http": http, "admin": admin,
                "certificate": certificate,
            });
            format!("{links}\n")
        }
        false => format!(
            "{note}\n  The film, and what the edge does   {https}/\n  \
             The status page                    {admin}/\n  \
             Metrics                            {admin}/metrics\n\n  \
             The certificate was made a moment ago: let your browser accept it, or trust\n  {0}\n  \
             By hand, and a part of it; what the edge did is in Cache-Status:\n  \
             curl --cacert {0} {https}/film/master.m3u8\n  \
             curl --cacert {0} -r 65536-131071 -o /dev/null -D - {https}/film/seg-0-00001.m4s\n\n  \
             Ctrl-C ends the demo.\n\n",
            certificate.display()
        ),
    };
    super::print(&text)?;
    let _ = io::stdout().flush();
    let waiting = |error| Failure::Failed(format!("signals cannot be waited for: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(waiting)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(waiting)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

fn first(addresses: &[SocketAddr]) -> Result<SocketAddr, Failure> {
    let missing = || Failure::Failed("the demo has no listener of this kind".to_owned());
    addresses.first().copied().ok_or_else(missing)
}

/// With the port that was asked for, or another; with a small ssd tier, or none where a temporary
/// folder cannot hold one (no direct I/O, no room).
fn start_somehow(folder: &Folder, origin: SocketAddr, port: u16) -> Result<Running, String> {
    let with = |ssd| start(folder, origin, port, ssd).or_else(|_| start(folder, origin, 0, ssd));
    with(SSD).or_else(|error| {
        tracing::info!("the demo does without an ssd tier: {error}");
        with("")
    })
}

/// Everything is written to it, as often as it likes: the demo is over before a drive wears.
const SSD: &str = r#"
[ssd]
admission = "all"
state = "volumes.json"

[[ssd.volumes]]
path = "demo.volume"
size = "256 MiB"
writes_per_day = "1000x"
"#;

/// The edge: an ordinary appliance on loopback, with the demo's origin.
fn start(folder: &Folder, origin: SocketAddr, port: u16, ssd: &str) -> Result<Running, String> {
    let text = format!(
        r#"{ssd}
[listeners]
http = "127.0.0.1:0"
https = "127.0.0.1:{port}"
admin = "127.0.0.1:0"

[[certificates]]
cert = "{FILE_CERTIFICATE}"
key = "{FILE_KEY}"

[memory]
ram = "128 MiB"

[log]
access = "off"

[limits]
drain_timeout = "2s"

[usage]
months = 0

[[sites]]
name = "demo"
hosts = ["localhost", "127.0.0.1"]
origins = ["http://{origin}"]
"#
    );
    let name = folder.0.join("demo.toml");
    let config =
        Config::from_toml(&text, &name.to_string_lossy()).map_err(|error| error.to_string())?;
    Appliance::start(config).map_err(|error| error.to_string())
}

const FILE_CERTIFICATE: &str = "certificate.pem";
const FILE_KEY: &str = "key.pem";

/// Where certificate and volume lie as long as the demo runs.
struct Folder(PathBuf);

impl Folder {
    fn create() -> io::Result<Folder> {
        let name = format!("tidegate-demo-{}", std::process::id());
        let folder = Folder(std::env::temp_dir().join(name));
        fs::create_dir_all(&folder.0)?;
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(names).map_err(io::Error::other)?;
        fs::write(folder.certificate(), cert.pem())?;
        private_write(&folder.0.join(FILE_KEY), &signing_key)?;
        Ok(folder)
    }

    fn certificate(&self) -> PathBuf {
        self.0.join(FILE_CERTIFICATE)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is a key for this machine's loopback, of no use to anyone.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn private_write(path: &Path, key: &KeyPair) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(key.serialize_pem().as_bytes())
}

fn failed<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> Failure {
    move |error| Failure::Failed(format!("the demo cannot have {what}: {error}"))
}
