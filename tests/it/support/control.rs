//! A control plane that does as it is told: it tells one box the truth, or fails in calls of it in
//! whatever way is wanted, by the authority that the box believes.
//!
//! On a thread of its own, so that nobody else is slower for it. What it sends without end comes
//! at the pace of a line of 50 Mbit/s: it is the box that has to bear it, not the machine.

#[path = "control_fault.rs"]
mod fault;

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate::control::issuer::Issuer;
use tidegate::control::plane::wire::Identity;
use tidegate::control::registry::fleet::Fleet;
use tidegate::control::snapshot::{Number, SigningKey, Snapshot};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{ServerConfig, crypto, sign::CertifiedKey, sign::SingleCertAndKey};
use tokio_rustls::server::TlsStream;

pub(crate) use self::fault::{Call, FAULTS, Fault};

/// What it says from some moment on.
#[derive(Clone)]
struct Says {
    number: Number,
    /// The snapshot of that number.
    snapshot: Arc<Vec<u8>>,
    /// By turns, in these calls; where there is none, all is true.
    faults: &'static [Fault],
    calls: &'static [Call],
    next: Arc<AtomicUsize>,
    /// How many calls of each kind have failed since.
    failed: [Arc<AtomicU64>; Call::ALL.len()],
}

/// It, of one box; its thread ends with the process.
pub(crate) struct Control {
    pub(crate) address: SocketAddr,
    name: String,
    authority: Arc<Authority>,
    says: watch::Sender<Says>,
}

/// By whom it is believed, and somebody else.
struct Authority {
    own: Issuer,
    stranger: Issuer,
    _folders: [TempDir; 2],
}

impl Control {
    /// Of the box of this name; by its snapshots there is this file of keys.
    pub(crate) fn start(name: &str, keys: (&str, &str)) -> Control {
        let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let [own, stranger] =
            [0, 1].map(|at: usize| Issuer::open(folders[at].path(), SystemTime::now()).unwrap());
        let authority = Arc::new(Authority { own, stranger, _folders: folders });
        let shown = authority.own.own(&["127.0.0.1".to_owned()], SystemTime::now()).unwrap();
        let provider = crypto::aws_lc_rs::default_provider().into();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(CertifiedKey::clone(&shown.key))));
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let number = Number { epoch: 3, counter: 7 };
        let says = watch::Sender::new(Says {
            number,
            snapshot: Arc::new(signed(number, Some(keys), authority.own.signing())),
            faults: &[],
            calls: &[],
            next: Arc::default(),
            failed: Default::default(),
        });
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (told, by) = (says.subscribe(), authority.clone());
        let name_of_box = name.to_owned();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                loop {
                    let Ok((stream, _)) = listener.accept().await else { continue };
                    let (acceptor, name) = (acceptor.clone(), name_of_box.clone());
                    let (told, by) = (told.clone(), by.clone());
                    tokio::spawn(async move {
                        let Ok(stream) = acceptor.accept(stream).await else { return };
                        let mut talk = Talk { stream, told, by, name };
                        while talk.answers().await.is_ok() {}
                    });
                }
            });
        });
        Control { address, name: name.to_owned(), authority, says }
    }

    /// Puts into a box's folder what its enrolment would.
    pub(crate) fn enrols(&self, folder: &Path) {
        fs::create_dir(folder).unwrap();
        let key = KeyPair::generate().unwrap();
        let csr = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
        let given = identity_by(&self.authority.own, &csr, &self.name, SystemTime::now());
        let kept = json!({ "key_pem": key.serialize_pem(), "given": given });
        fs::write(identity_in(folder), kept.to_string()).unwrap();
    }

    /// Has the box make every call anew: it has to renew its certificate, and did not know it.
    pub(crate) fn begins_anew(folder: &Path) {
        let path = identity_in(folder);
        let mut kept: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        // Each time it is another one.
        let before = kept["given"]["renew_at"].as_u64().filter(|at| *at < A_LONG_TIME_AGO);
        kept["given"]["renew_at"] = (before.unwrap_or_default() + 1).into();
        let new = folder.join("identity.json.told");
        fs::write(&new, kept.to_string()).unwrap();
        fs::rename(new, path).unwrap();
    }

    /// From now on these calls fail, in these ways by turns; what is under way too.
    pub(crate) fn fails(&self, calls: &'static [Call], faults: &'static [Fault]) {
        self.says.send_modify(|says| {
            *says = Says {
                calls,
                faults,
                next: Arc::default(),
                failed: Default::default(),
                ..says.clone()
            };
        });
    }

    /// From now on all is true, and there is a later snapshot with this file of keys.
    pub(crate) fn tells_the_truth(&self, keys: (&str, &str)) {
        self.fails(&[], &[]);
        self.says.send_modify(|says| {
            says.number.counter += 1;
            says.snapshot = Arc::new(signed(says.number, Some(keys), self.authority.own.signing()));
        });
    }

    /// How many such calls have failed since that was said.
    pub(crate) fn failed(&self, call: Call) -> u64 {
        self.says.borrow().failed[call as usize].load(Ordering::Relaxed)
    }
}

fn signed(number: Number, keys: Option<(&str, &str)>, key: &SigningKey) -> Vec<u8> {
    let keys = keys.map(|(name, text)| (name.to_owned(), text.to_owned()));
    let (fleet, keys, revoked) = (Fleet::default(), keys.into_iter().collect(), Default::default());
    Snapshot { number, made_at: 1, fleet, keys, revoked }.sign(key).unwrap()
}

fn identity_in(folder: &Path) -> PathBuf {
    folder.join("identity.json")
}

/// What a box is given by who issues certificates.
fn identity_by(issuer: &Issuer, csr: &str, name: &str, now: SystemTime) -> Identity {
    let issued = issuer.issue(csr, name, now).unwrap();
    Identity {
        certificate_pem: issued.pem,
        renew_at: issued.renew_at,
        ca_pem: issuer.pem().to_owned(),
        snapshot_keys: vec![issuer.signing().public()],
    }
}

/// One connection of the box.
struct Talk {
    stream: TlsStream<TcpStream>,
    told: watch::Receiver<Says>,
    by: Arc<Authority>,
    name: String,
}

/// What was asked.
struct Asked {
    call: Call,
    /// The snapshot that the box has.
    after: Number,
    body: Vec<u8>,
}

impl Talk {
    /// One call; an error where there is no other one on this connection.
    async fn answers(&mut self) -> io::Result<()> {
        let asked = self.asked().await?;
        let until = tokio::time::Instant::now() + HELD_FOR;
        loop {
            let says = self.told.borrow_and_update().clone();
            if says.calls.contains(&asked.call) && !says.faults.is_empty() {
                let next = says.next.fetch_add(1, Ordering::Relaxed);
                says.failed[asked.call as usize].fetch_add(1, Ordering::Relaxed);
                return self.fails(says.faults[next % says.faults.len()], &asked, &says).await;
            }
            if asked.call != Call::Follows || says.number > asked.after {
                let body = self.truth(&asked, &says);
                return self.sends("200 OK", &body).await;
            }
            if tokio::time::timeout_at(until, self.told.changed()).await.is_err() {
                return self.sends("204 No Content", b"").await;
            }
        }
    }

    async fn asked(&mut self) -> io::Result<Asked> {
        let mut read = Vec::new();
        let end = loop {
            if let Some(at) = read.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            self.reads(&mut read).await?;
        };
        let head = String::from_utf8_lossy(&read[..end]).into_owned();
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-length").then(|| value.parse().ok())?
        });
        while read.len() < end + length.unwrap_or(0_usize) {
            self.reads(&mut read).await?;
        }
        let call = match &head {
            head if head.starts_with("PUT /v1/appliances/") => Call::Registers,
            head if head.starts_with("POST /v1/heartbeat ") => Call::Beats,
            head if head.starts_with("GET /v1/snapshot?") => Call::Follows,
            head if head.starts_with("POST /v1/renew ") => Call::Renews,
            head => panic!("no box asks that: {head}"),
        };
        let after = head.split_once("?after=").and_then(|(_, tail)| tail.split_once('&'));
        let after = after.map_or(Number::default(), |(number, _)| number.parse().unwrap());
        Ok(Asked { call, after, body: read.split_off(end) })
    }

    async fn reads(&mut self, into: &mut Vec<u8>) -> io::Result<()> {
        match self.stream.read_buf(into).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    fn truth(&self, asked: &Asked, says: &Says) -> Vec<u8> {
        match asked.call {
            Call::Follows => says.snapshot.to_vec(),
            Call::Renews => self.identity(&self.by.own, asked, SystemTime::now()),
            Call::Registers | Call::Beats => beaten(1, says.number),
        }
    }

    fn identity(&self, by: &Issuer, asked: &Asked, now: SystemTime) -> Vec<u8> {
        let asked: Value = serde_json::from_slice(&asked.body).unwrap();
        let given = identity_by(by, asked["csr_pem"].as_str().unwrap(), &self.name, now);
        serde_json::to_vec(&given).unwrap()
    }

    /// What never is true: of who is not believed, and far in the future.
    fn forged(&self, asked: &Asked, says: &Says) -> Vec<u8> {
        let number = Number { epoch: u64::MAX, counter: u64::MAX };
        match asked.call {
            Call::Follows => {
                let next = Number { counter: says.number.counter + 1, ..says.number };
                signed(next, None, self.by.stranger.signing())
            }
            Call::Renews => self.identity(&self.by.stranger, asked, SystemTime::now()),
            Call::Registers | Call::Beats => beaten(u64::MAX, number),
        }
    }

    /// What is signed as it should be, and is of before what the box has: it may not have the
    /// latest yet, after it was told so many lies.
    fn older(&self, asked: &Asked, says: &Says) -> Vec<u8> {
        let before = |of: Number| Number { counter: of.counter.saturating_sub(1), ..of };
        match asked.call {
            Call::Follows => signed(before(asked.after), None, self.by.own.signing()),
            Call::Renews => self.identity(&self.by.own, asked, SystemTime::now() - ENDED_LONG_AGO),
            Call::Registers | Call::Beats => beaten(0, before(says.number)),
        }
    }

    async fn sends(&mut self, status: &str, body: &[u8]) -> io::Result<()> {
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", body.len());
        self.says(head.as_bytes()).await?;
        self.says(body).await
    }

    async fn says(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Ends when the box has had enough of it.
    async fn fails(&mut self, fault: Fault, asked: &Asked, says: &Says) -> io::Result<()> {
        let length = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", usize::MAX >> 1);
        let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let begun = "HTTP/1.1 200 OK\r\nx: ";
        match fault {
            Fault::Silent => {}
            Fault::SilentAfterHead => self.says(length.as_bytes()).await?,
            Fault::DripsHead => return self.drips(begun).await,
            Fault::DripsBody => return self.drips(&length).await,
            Fault::EndlessHead => return self.floods(begun, b"x").await,
            Fault::EndlessBody => return self.floods(&length, b"x").await,
            Fault::EndlessCrumbs => return self.floods(chunked, b"1\r\n \r\n").await,
            Fault::EndlessPromises => {
                return self.floods("", b"HTTP/1.1 100 Continue\r\n\r\n").await;
            }
            Fault::NoHttp => self.says(b"SSH-2.0-OpenSSH_9.2\r\n").await?,
            Fault::Nonsense => self.sends("200 OK", b"<html>hi\n").await?,
            Fault::BrokenChunks => self.says(format!("{chunked}g;\r\n").as_bytes()).await?,
            Fault::Status(204) => self.sends("204 No Content", b"").await?,
            Fault::Status(status) => {
                let status = format!("{status} No\r\nlocation: https://127.0.0.1:1/");
                self.sends(&status, br#"{"error":"no,\r\nnever"}"#).await?;
            }
            Fault::Forged => return self.sends("200 OK", &self.forged(asked, says)).await,
            Fault::Older => return self.sends("200 OK", &self.older(asked, says)).await,
            Fault::Half => {
                let truth = self.truth(asked, says);
                self.sends("200 OK", &truth[..truth.len() / 2]).await?;
            }
            Fault::Resets => self.stream.get_ref().0.set_zero_linger()?,
            Fault::EndsInHead => self.says(begun.as_bytes()).await?,
            Fault::EndsInBody => self.says(format!("{length}{{").as_bytes()).await?,
        }
        // Who says nothing more stays; all others are gone, without taking leave.
        if matches!(fault, Fault::Silent | Fault::SilentAfterHead) {
            while self.stream.read(&mut [0; 64]).await? > 0 {}
        }
        Err(io::ErrorKind::ConnectionAborted.into())
    }

    async fn drips(&mut self, begun: &str) -> io::Result<()> {
        self.says(begun.as_bytes()).await?;
        loop {
            self.says(b" ").await?;
            tokio::time::sleep(DRIPS_EVERY).await;
        }
    }

    async fn floods(&mut self, begun: &str, one: &[u8]) -> io::Result<()> {
        self.says(begun.as_bytes()).await?;
        let many = one.repeat(FLOOD_BYTES / one.len());
        loop {
            self.says(&many).await?;
            tokio::time::sleep(FLOODS_EVERY).await;
        }
    }
}

fn beaten(beat_seconds: u64, number: Number) -> Vec<u8> {
    json!({ "beat_seconds": beat_seconds, "number": number }).to_string().into_bytes()
}

/// How long there may be no later snapshot before that is said.
const HELD_FOR: Duration = Duration::from_secs(20);
const DRIPS_EVERY: Duration = Duration::from_millis(50);
const FLOOD_BYTES: usize = 64 << 10;
const FLOODS_EVERY: Duration = Duration::from_millis(10);
/// More than a certificate of a box lives.
const ENDED_LONG_AGO: Duration = Duration::from_secs(40 * 86_400);
/// No certificate is to be renewed so early, in seconds since 1970.
const A_LONG_TIME_AGO: u64 = 1_000_000_000;
