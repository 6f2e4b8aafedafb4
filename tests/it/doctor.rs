//! `tidegate doctor` before real origins and beside a running appliance: what it finds, what it
//! advises, what it exits with.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls_pki_types::PrivateKeyDer;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{self, ServerConfig};

use crate::support::{
    Ending, HOST, HeadFault, Origin, PIECE, Process, Ranges, Script, Validators, text, tidegate,
};

/// A configuration whose one site has these origins, in TOML.
fn configured(folder: &Path, origins: &str) -> PathBuf {
    let path = folder.join("edge.toml");
    let settings = format!(
        "listeners.http = ['127.0.0.1:0']\nlisteners.admin = ['127.0.0.1:0']\nlog.access = 'off'\n\
         memory.ram = '64 MiB'\nfill.connect_timeout = '5s'\n[[sites]]\nname = 'media'\n\
         hosts = [{HOST:?}]\norigins = {origins}\n"
    );
    fs::write(&path, settings).unwrap();
    path
}

/// What it says of origins, and its exit code.
struct Told {
    json: Value,
    code: Option<i32>,
    stderr: String,
}

impl Told {
    fn of(config: &Path, words: &[&str]) -> Told {
        let config = config.to_str().unwrap();
        let output = tidegate(&[&["doctor", "--config", config, "--json"], words].concat());
        let stderr = text(&output.stderr);
        let json = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {stderr}\n{}", text(&output.stdout)));
        Told { json, code: output.status.code(), stderr }
    }

    /// Of origins, asked for `/a`.
    fn of_origins(folder: &TempDir, origins: &str, words: &[&str]) -> Told {
        let config = configured(folder.path(), origins);
        Told::of(&config, &[&["--only", "origins", "--path", "/a"], words].concat())
    }

    fn findings(&self) -> &[Value] {
        self.json["findings"].as_array().unwrap()
    }

    /// The states of all findings, in order.
    fn states(&self) -> Vec<&str> {
        self.findings().iter().map(|finding| finding["state"].as_str().unwrap()).collect()
    }

    /// The one finding that says `words` has this state, and says what to do unless it is well.
    #[track_caller]
    fn has(&self, state: &str, words: &str) {
        let says = |finding: &&Value| finding["found"].as_str().unwrap().contains(words);
        let found: Vec<_> = self.findings().iter().filter(says).collect();
        assert_eq!(found.len(), 1, "{words:?} in {:#}", self.json);
        assert_eq!(found[0]["state"], state, "{:#}", found[0]);
        assert_eq!(found[0]["to_do"].is_null(), state == "ok", "{:#}", found[0]);
    }
}

fn plain(address: SocketAddr) -> String {
    format!("['http://{address}']")
}

/// Two origins at one port of two addresses of this machine.
fn two_addresses() -> (Origin, Origin) {
    let first = Origin::start();
    let second = Origin::at((Ipv4Addr::new(127, 0, 0, 2), first.address().port()).into());
    (first, second)
}

const BOTH: [&str; 2] = ["--resolve", "origin.test=127.0.0.1,127.0.0.2"];

fn named(port: u16) -> String {
    format!("['http://origin.test:{port}']")
}

#[test]
fn an_origin_that_is_well_is_asked_once_at_each_address_for_one_byte() {
    let (folder, (first, second)) = (TempDir::new().unwrap(), two_addresses());
    for origin in [&first, &second] {
        origin.serve("/a", Script::of(PIECE));
    }
    let told = Told::of_origins(&folder, &named(first.address().port()), &BOTH);
    told.has("ok", "it answers at 127.0.0.1, 127.0.0.2");
    told.has("ok", "it honours ranges of /a");
    told.has("ok", "its validator is strong and the same from each address: ETag \"");
    assert_eq!((told.states().len(), told.code, &told.json["serves"]), (3, Some(0), &true.into()));
    for origin in [&first, &second] {
        let asked = origin.all_requests();
        assert_eq!((asked.len(), origin.bytes_sent("/a")), (1, 1));
    }
}

#[test]
fn an_origin_that_ignores_ranges_or_answers_others_is_told() {
    let (folder, origin) = (TempDir::new().unwrap(), Origin::start());
    for (ranges, state, words) in [
        (Ranges::Ignored, "warn", "it ignores ranges: asked for bytes=1-1 of /a it gave all"),
        (Ranges::Other(0, 99), "warn", "asked for bytes=1-1 of /a it gave bytes 0-"),
        (Ranges::Longer(9), "warn", "asked for bytes=1-1 of /a it gave bytes 1-10/"),
        (Ranges::Unlabelled, "warn", "without a right Content-Range"),
        (Ranges::Refused, "note", "/a is too small"),
    ] {
        origin.serve("/a", Script::of(PIECE).ranges(ranges));
        let told = Told::of_origins(&folder, &plain(origin.address()), &[]);
        told.has(state, words);
        told.has("ok", "it answers at 127.0.0.1");
        assert_eq!(told.code, Some(0), "it can be served from");
    }
    origin.serve("/a", Script::of(PIECE).ending(Ending::SurplusDeclared(1)));
    let told = Told::of_origins(&folder, &plain(origin.address()), &[]);
    told.has("warn", "it said bytes 1-1/65536 of /a, and gave more than that or broke off");
    for (status, state, words) in [
        (404, "note", "it answers 404 to /a"),
        (302, "note", "/a redirects to /b"),
        (403, "warn", "it answers 403 to /a"),
        (500, "warn", "it answers 500 to /a"),
    ] {
        let script = Script::of(PIECE).status(status);
        origin.serve("/a", if status == 302 { script.field("Location", "/b") } else { script });
        let told = Told::of_origins(&folder, &plain(origin.address()), &[]);
        told.has(state, words);
        assert_eq!(told.states(), ["ok", state]);
    }
}

#[test]
fn validators_that_are_weak_missing_or_others_at_another_address_are_told() {
    let (folder, origin) = (TempDir::new().unwrap(), Origin::start());
    for (validators, words) in [
        (Validators::Weak, "ETag W/\""),
        (Validators::None, "no validator from 127.0.0.1, which is not strong"),
    ] {
        origin.serve("/a", Script::of(PIECE).validators(validators));
        let told = Told::of_origins(&folder, &plain(origin.address()), &[]);
        told.has("warn", words);
        assert_eq!((told.states(), told.code), (vec!["ok", "ok", "warn"], Some(0)));
    }
    let (first, second) = two_addresses();
    for (script, words) in [
        (Script::of(PIECE).version(2), "its addresses differ: ETag \""),
        (Script::of(PIECE + 1), ", 65537 bytes from 127.0.0.2"),
        (Script::of(PIECE).validators(Validators::Weak), " from 127.0.0.2, which is not strong"),
    ] {
        first.serve("/a", Script::of(PIECE));
        second.serve("/a", script);
        let told = Told::of_origins(&folder, &named(first.address().port()), &BOTH);
        told.has("warn", words);
        assert_eq!(told.states(), ["ok", "ok", "warn"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_that_is_down_fails_unless_its_sites_have_another() {
    let (folder, (first, second)) = (TempDir::new().unwrap(), two_addresses());
    for origin in [&first, &second] {
        origin.serve("/a", Script::of(PIECE));
    }
    first.refuse_connections().await;
    let told = Told::of_origins(&folder, &plain(first.address()), &[]);
    told.has("fail", "127.0.0.1: connection refused");
    assert_eq!((told.states().len(), told.code), (1, Some(1)));
    assert_eq!(told.stderr, "one thing is wrong that it does not serve without\n");
    assert_eq!((&told.json["serves"], &told.json["counts"]["fail"]), (&false.into(), &1.into()));

    let both = format!("['http://{}', 'http://{}']", first.address(), second.address());
    let told = Told::of_origins(&folder, &both, &[]);
    told.has("warn", "connection refused; its sites have another origin");
    assert_eq!((told.states(), told.code), (vec!["warn", "ok", "ok", "ok"], Some(0)));

    let told = Told::of_origins(&folder, &named(first.address().port()), &BOTH);
    told.has("warn", "127.0.0.1: connection refused; 1 of 2 addresses answer");
    assert_eq!((told.states(), told.code), (vec!["warn", "ok", "ok"], Some(0)));

    second.refuse_connections().await;
    let told = Told::of_origins(&folder, &both, &[]);
    assert_eq!((told.states(), told.code), (vec!["fail", "fail"], Some(1)));
    assert_eq!(told.stderr, "2 things are wrong that it does not serve without\n");
}

#[test]
fn an_origin_whose_answer_a_fill_would_not_believe_fails() {
    let (folder, origin) = (TempDir::new().unwrap(), Origin::start());
    origin.serve("/a", Script::of(PIECE).head(HeadFault::Garbled));
    let told = Told::of_origins(&folder, &plain(origin.address()), &[]);
    told.has("fail", "its answer is not believed: ");
    origin.serve("/a", Script::of(PIECE).field("Content-Length", "+1"));
    let told = Told::of_origins(&folder, &plain(origin.address()), &[]);
    told.has("fail", "its answer is not believed: Content-Length is no number");
    origin.serve("/a", Script::of(PIECE).head(HeadFault::Held));
    let config = configured(folder.path(), &plain(origin.address()));
    let settings = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("fill.first_byte_timeout = '100ms'\n{settings}")).unwrap();
    let told = Told::of(&config, &["--only", "origins", "--path", "/a"]);
    told.has("fail", "connected, and no answer in 0.1 s");
}

#[test]
fn without_an_object_it_is_said_that_ranges_were_not_judged() {
    let (folder, origin) = (TempDir::new().unwrap(), Origin::start());
    let config = configured(folder.path(), &plain(origin.address()));
    let told = Told::of(&config, &["--only", "origins"]);
    told.has("note", "no object was named");
    assert_eq!((told.states(), told.code), (vec!["ok", "note"], Some(0)));
}

/// Speaks TLS for `origin`, by a certificate that is valid until `not_after`; in `folder` its file.
async fn tls(origin: SocketAddr, folder: &Path, not_after: (i32, u8, u8)) -> (SocketAddr, String) {
    let mut params = CertificateParams::new([HOST.to_owned()]).unwrap();
    params.not_before = date_time_ymd(2001, 1, 1);
    params.not_after = date_time_ymd(not_after.0, not_after.1, not_after.2);
    let pair = KeyPair::generate().unwrap();
    let made = params.self_signed(&pair).unwrap();
    let file = folder.join(format!("{}.pem", not_after.0));
    fs::write(&file, made.pem()).unwrap();
    let key = PrivateKeyDer::try_from(pair.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let config = config.with_single_cert(vec![made.der().clone()], key).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Refused by who does not trust it.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut behind = TcpStream::connect(origin).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut stream, &mut behind).await });
        }
    });
    (address, file.to_string_lossy().into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origins_certificate_is_told_good_expired_for_another_or_by_a_stranger() {
    let (folder, origin) = (TempDir::new().unwrap(), Origin::serving("/a", Script::of(PIECE)));
    let (good, ca) = tls(origin.address(), folder.path(), (2099, 1, 1)).await;
    let of = |address: SocketAddr, rest: &str| {
        Told::of_origins(&folder, &format!("[{{ url = 'https://{address}'{rest} }}]"), &[])
    };
    let told = of(good, &format!(", ca = {ca:?}, server_name = {HOST:?}"));
    told.has("ok", "its certificate is trusted and expires in ");
    assert_eq!((told.states(), told.code), (vec!["ok"; 4], Some(0)));
    let told = of(good, &format!(", ca = {ca:?}"));
    told.has("fail", "its certificate is not for 127.0.0.1");

    let (expired, old) = tls(origin.address(), folder.path(), (2020, 2, 29)).await;
    let told = of(expired, &format!(", ca = {old:?}, server_name = {HOST:?}"));
    told.has("fail", "its certificate expired on Sat, 29 Feb 2020 00:00:00 GMT");
    assert_eq!((told.states().len(), told.code), (1, Some(1)));
    let told = of(good, &format!(", ca = {old:?}, server_name = {HOST:?}"));
    told.has("fail", "its certificate is by an authority that is not trusted here");

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let no_tls = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut stream = listener.accept().await.unwrap().0;
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    });
    of(no_tls, &format!(", ca = {ca:?}")).has("fail", "no TLS: ");
}

#[test]
fn what_is_chosen_is_told_as_text_too_and_a_faulty_configuration_is_misuse() {
    let (folder, origin) = (TempDir::new().unwrap(), Origin::serving("/a", Script::of(PIECE)));
    let config = configured(folder.path(), &plain(origin.address()));
    let file = config.to_str().unwrap();
    let asked = ["doctor", "--config", file, "--only", "config,dns,ports"];
    let output = tidegate(&asked);
    let expected = format!(
        "\
ok       config        it is understood, without a warning
ok       ports         http 127.0.0.1:0: the system chooses the port
ok       ports         admin 127.0.0.1:0: the system chooses the port
ok       dns           127.0.0.1: an address, which nobody is asked for

{file}: 4 ok, 0 note, 0 warn, 0 fail, 0 unknown
"
    );
    assert_eq!((text(&output.stdout), output.status.code()), (expected, Some(0)));
    assert!(origin.all_requests().is_empty(), "origins were left out");

    let all = Told::of(&config, &["--path", "/a"]);
    let names = all.findings().iter().map(|finding| finding["check"].as_str().unwrap());
    let mut names: Vec<_> = names.collect();
    names.dedup();
    assert_eq!(names.len(), 14, "every check has its rows: {names:?}");

    fs::write(&config, "[memory]\nrma = '1 GiB'\n").unwrap();
    let output = tidegate(&asked);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(64), 0));
    assert!(text(&output.stderr).contains("edge.toml:2:1: "), "{}", text(&output.stderr));
}

#[test]
fn the_ports_of_a_running_appliance_are_told_as_its_own() {
    let (folder, origin) = (TempDir::new().unwrap(), Origin::start());
    let config = configured(folder.path(), &plain(origin.address()));
    let settings = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("log.level = 'info'\n{settings}")).unwrap();
    let running = Process::start(&config);
    let taken = origin.address();
    let settings = settings
        .replace(
            "listeners.http = ['127.0.0.1:0']",
            &format!("listeners.http = ['{}', '{taken}']", running.http),
        )
        .replace("127.0.0.1:0", &running.admin.to_string());
    fs::write(&config, settings).unwrap();
    let told = Told::of(&config, &["--only", "ports"]);
    assert_eq!((told.states(), told.code), (vec!["ok", "fail", "ok"], Some(1)));
}

#[test]
fn credentials_that_a_start_brings_hold_up_no_other_check() {
    let (folder, origin) = (TempDir::new().unwrap(), Origin::start());
    let config = configured(folder.path(), &plain(origin.address()));
    let given = "/run/credentials/tidegate-of-no-machine.service";
    let more = format!(
        "listeners.https = ['127.0.0.1:0']\nadmin.token_file = '{given}/token'\n\
         [[certificates]]\ncert = '{given}/video.crt'\nkey = '{given}/video.key'\n[[sites]]"
    );
    let written = fs::read_to_string(&config).unwrap().replace("[[sites]]", &more);
    fs::write(&config, written).unwrap();

    let told = Told::of(&config, &["--only", "config,certificates,ports"]);
    for file in ["token", "video.crt", "video.key"] {
        told.has("warn", &format!("names {given}/{file}, which a start brings (LoadCredential)"));
    }
    told.has("unknown", "no certificate is here to look at");
    assert_eq!((told.states().len(), told.code), (7, Some(0)), "{:#}", told.json);
    let checked = tidegate(&["check", config.to_str().unwrap()]);
    assert!(checked.status.success(), "{}", text(&checked.stderr));
    assert!((text(&checked.stdout) + &text(&checked.stderr)).contains("which a start brings"));
    let served = tidegate(&["serve", "--config", config.to_str().unwrap()]);
    assert_eq!(served.status.code(), Some(64));
    assert_eq!(text(&served.stderr).lines().count(), 3, "{}", text(&served.stderr));

    // Anywhere else a file that is not there is a fault.
    let elsewhere = fs::read_to_string(&config).unwrap().replace("/run/credentials", "/run/other");
    fs::write(&config, elsewhere).unwrap();
    assert_eq!(tidegate(&["check", config.to_str().unwrap()]).status.code(), Some(64));
}

#[test]
fn a_url_is_asked_of_the_origins_of_its_site_and_a_path_of_all() {
    let (folder, [film, live]) = (TempDir::new().unwrap(), [Origin::start(), Origin::start()]);
    film.serve("/film", Script::of(PIECE));
    live.serve("/live", Script::of(PIECE).validators(Validators::None));
    for origin in [&film, &live] {
        origin.serve("/both", Script::of(PIECE));
    }
    let config = configured(folder.path(), &plain(film.address()));
    let more = format!(
        "[[sites]]\nname = 'live'\nhosts = ['live.test']\norigins = {}\n",
        plain(live.address())
    );
    fs::write(&config, fs::read_to_string(&config).unwrap() + &more).unwrap();
    let of_film = format!("https://{HOST}/film");
    let words = ["--only", "origins", "--path", &of_film, "--path", "http://LIVE.test:81/live"];
    let told = Told::of(&config, &[&words[..], &["--path", "/both"]].concat());
    told.has("ok", "it honours ranges of /film");
    told.has("ok", "/film: its validator is strong");
    told.has("ok", "it honours ranges of /live");
    told.has("warn", "/live: no validator from 127.0.0.1");
    // Of each origin: that it answers, and of two objects their ranges and validators.
    assert_eq!((told.states().len(), told.code), (10, Some(0)), "{:#}", told.json);
    for (origin, own) in [(&film, "/film"), (&live, "/live")] {
        let asked: Vec<_> =
            origin.all_requests().into_iter().map(|asked| asked.head.target).collect();
        assert_eq!(asked, [own, "/both"]);
    }

    let config = config.to_str().unwrap();
    let nobody = ["doctor", "--config", config, "--path", "https://nobody.test/a"];
    let nobody = tidegate(&nobody);
    let expected = format!(
        "--path https://nobody.test/a: no site of {config} has the host \"nobody.test\"; write one \
         of `sites.hosts`, or a path alone to ask every origin\n"
    );
    assert_eq!((nobody.status.code(), text(&nobody.stderr)), (Some(64), expected));
}
