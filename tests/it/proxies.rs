//! Who is in front of the appliance and says whom he brings: he is believed if he is listed, and
//! nobody else is.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Client, Edge, HOST, Origin, PIECE, Script, Speaks, Verdict, judge};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A header of version 2 that brings `viewer`, with a name beside his address.
pub(crate) fn header(viewer: SocketAddr) -> Vec<u8> {
    let (family, mut addresses) = match viewer.ip() {
        IpAddr::V4(ip) => (0x11, [ip.octets(), [10, 0, 0, 1]].concat()),
        IpAddr::V6(ip) => (0x21, [ip.octets(), [9; 16]].concat()),
    };
    addresses.extend(viewer.port().to_be_bytes());
    addresses.extend([0, 80, 2, 0, 4]);
    addresses.extend(b"name");
    let length = (addresses.len() as u16).to_be_bytes();
    [SIGNATURE, &[0x21, family], &length, &addresses].concat()
}

fn local() -> Vec<u8> {
    [SIGNATURE, &[0x20, 0, 0, 0]].concat()
}

/// An edge that logs, and the addresses in its log once it has ended.
struct Logged {
    edge: Edge,
    folder: TempDir,
}

impl Logged {
    fn start(origin: &Origin, settings: &[(&str, &str)]) -> Logged {
        let folder = TempDir::new().unwrap();
        let log = folder.path().join("access.log");
        let configured = Edge::in_front_of(origin).setting("log.access", log.to_str().unwrap());
        let set = |edge: crate::support::Configured, (name, value): &(&str, &str)| {
            edge.setting(name, value)
        };
        Logged { edge: settings.iter().fold(configured, set).start(), folder }
    }

    async fn clients(mut self) -> Vec<String> {
        self.edge.drain().await;
        let lines = std::fs::read_to_string(self.folder.path().join("access.log")).unwrap();
        let client = |line: &str| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            line["client"].as_str().unwrap().to_owned()
        };
        lines.lines().map(client).collect()
    }
}

/// Whether the edge closes the connection without a byte.
async fn is_closed(client: &Client, bytes: &[u8]) -> bool {
    client.raw(bytes).await.unwrap_or_default().is_empty()
}

#[tokio::test]
async fn a_load_balancer_that_is_listed_brings_viewers_and_must() {
    let origin = Origin::serving("/a", Script::of(PIECE + 5));
    let listed = [("proxies.proxy_protocol", "[\"127.0.0.0/8\"]")];
    let logged = Logged::start(&origin, &listed);
    let edge = &logged.edge;
    let viewers = ["192.0.2.7:4660", "[2001:db8::7]:4660"].map(|text| text.parse().unwrap());
    for viewer in viewers {
        let plain = edge.client();
        let [over_1, over_2] = [Speaks::Http1, Speaks::Http2].map(|it| edge.client_over_tls(it));
        for client in [plain, over_1, over_2] {
            let answer = client.saying_first(&header(viewer)).get("/a").send().await;
            assert_eq!(judge(&origin, "/a", &answer), Verdict::Whole { version: 1 });
        }
    }
    // Its own question whether we live.
    let answer = edge.client().saying_first(&local()).get("/a").send().await;
    assert_eq!(answer.status, 200);

    let request = format!("GET /a HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let version_1 = format!("PROXY TCP4 192.0.2.7 10.0.0.1 4660 80\r\n{request}");
    let mut broken = header(viewers[0]);
    broken[13] = 0x12;
    broken.extend(request.as_bytes());
    let too_long = [SIGNATURE, &[0x21, 0x11, 0xff, 0xff], &[0; 100]].concat();
    for bytes in [request.as_bytes(), version_1.as_bytes(), &broken, &too_long] {
        assert!(is_closed(&edge.client(), bytes).await, "{bytes:?}");
    }
    assert!(edge.client_over_tls(Speaks::Http1).connect().await.is_err());
    for (began, count) in
        [("viewer", 6.0), ("nobody", 1.0), ("missing", 2.0), ("version_1", 1.0), ("malformed", 2.0)]
    {
        let label = format!("\"{began}\"");
        let counted = edge.metric("tidegate_proxy_headers_total", &[&label]).await;
        assert_eq!(counted, count, "{began}");
    }
    let mut clients = logged.clients().await;
    clients.dedup();
    assert_eq!(clients, ["192.0.2.7", "2001:db8::7", "127.0.0.1"]);
}

#[tokio::test]
async fn who_is_not_listed_is_not_believed_whatever_he_says() {
    let origin = Origin::serving("/a", Script::of(PIECE));
    let others = ["[\"10.0.0.0/8\", \"::1\"]"; 2];
    let settings = ["proxies.proxy_protocol", "proxies.forwarded"];
    let settings: Vec<_> = settings.into_iter().zip(others).collect();
    let logged = Logged::start(&origin, &settings);
    let edge = &logged.edge;
    let viewer = "192.0.2.7:4660".parse().unwrap();
    let answer = edge.client().saying_first(&header(viewer)).get("/a").send().await;
    assert_eq!(answer.status, 400, "a header is no request");
    assert!(
        edge.client_over_tls(Speaks::Http1).saying_first(&header(viewer)).connect().await.is_err()
    );
    let answer = edge.get("/a").header("x-forwarded-for", "192.0.2.7").send().await;
    assert_eq!(answer.status, 200);
    let began = edge.metric("tidegate_proxy_headers_total", &[]).await;
    assert_eq!(began, 0.0);
    assert_eq!(logged.clients().await, ["127.0.0.1", "127.0.0.1"]);
}

#[tokio::test]
async fn a_header_that_does_not_come_is_not_waited_for_and_one_that_comes_slowly_is_read() {
    let origin = Origin::serving("/a", Script::of(PIECE));
    let edge = Edge::in_front_of(&origin)
        .setting("proxies.proxy_protocol", "[\"127.0.0.1\"]")
        .setting("limits.header_timeout", "1s")
        .start();
    let mut silent = TcpStream::connect(edge.client().address()).await.unwrap();
    silent.write_all(&SIGNATURE[..5]).await.unwrap();
    let mut received = Vec::new();
    let _ = silent.read_to_end(&mut received).await;
    assert!(received.is_empty(), "{received:?}");
    edge.until_metric("tidegate_proxy_headers_total", &["\"late\""], |n| n == 1.0).await;

    let mut slow = TcpStream::connect(edge.client().address()).await.unwrap();
    slow.set_nodelay(true).unwrap();
    let request = format!("GET /a HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
    let sent = [header("192.0.2.7:1".parse().unwrap()), request.into_bytes()].concat();
    for byte in sent {
        slow.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut received = Vec::new();
    slow.read_to_end(&mut received).await.unwrap();
    assert!(received.starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&received));
}

#[tokio::test]
async fn the_field_that_is_set_says_who_asks_and_the_other_does_not() {
    let origin = Origin::serving("/a", Script::of(PIECE));
    for (field, other) in [("X-Forwarded-For", "Forwarded"), ("Forwarded", "X-Forwarded-For")] {
        let settings = [
            ("proxies.forwarded", "[\"127.0.0.1\", \"10.0.0.0/8\"]"),
            ("proxies.forwarded_field", field),
        ];
        let logged = Logged::start(&origin, &settings);
        let said = |field: &str, ip: &str| match (field, ip.contains(':')) {
            ("Forwarded", true) => format!("for=\"[{ip}]\""),
            ("Forwarded", false) => format!("for={ip}"),
            _ => ip.to_owned(),
        };
        for ip in ["192.0.2.7", "2001:db8::7"] {
            let [first, last] = [said(field, ip), said(field, "10.0.0.3")];
            let request = logged.edge.get("/a").header(other, &said(other, "203.0.113.9"));
            let request = request.header(field, &said(field, "203.0.113.9"));
            let answer = request.header(field, &format!("{first}, {last}")).send().await;
            assert_eq!(answer.status, 200);
        }
        assert_eq!(logged.clients().await, ["192.0.2.7", "2001:db8::7"], "{field}");
    }
}

#[tokio::test]
async fn who_may_purge_is_told_by_whom_a_proxy_brings() {
    let folder = TempDir::new().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "0123456789abcdef\n").unwrap();
    let origin = Origin::serving("/a", Script::of(PIECE));
    let edge = Edge::in_front_of(&origin)
        .setting("proxies.forwarded", "[\"127.0.0.1\"]")
        .setting("admin.token_file", &path(&token))
        .rule("**", "purge_from = [\"192.0.2.0/24\"]")
        .start();
    for (from, status) in [("192.0.2.7", 200), ("198.51.100.1", 403), ("192.0.2.7, ::1", 403)] {
        let purge = edge.client().request("PURGE".parse().unwrap(), "/a");
        let purge = purge.header("authorization", "Bearer 0123456789abcdef");
        assert_eq!(purge.header("x-forwarded-for", from).send().await.status, status, "{from}");
    }
}

fn path(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn viewers_come_by_ipv6_and_are_told_from_each_other() {
    let origin = Origin::serving("/a", Script::of(PIECE));
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return eprintln!("no IPv6 here");
    }
    let settings = [
        ("listeners.http", "[\"[::1]:0\"]"),
        ("proxies.proxy_protocol", "[\"::1\"]"),
        ("proxies.forwarded", "[\"2001:db8::/32\"]"),
    ];
    let logged = Logged::start(&origin, &settings);
    let proxy = header("[2001:db8::1]:9".parse().unwrap());
    let client = logged.edge.client().saying_first(&proxy);
    let answer = client.get("/a").header("x-forwarded-for", "2a00::5").send().await;
    assert_eq!(answer.status, 200);
    let mapped = header(SocketAddr::new(Ipv4Addr::new(192, 0, 2, 7).to_ipv6_mapped().into(), 9));
    let answer = logged.edge.client().saying_first(&mapped).get("/a").send().await;
    assert_eq!(answer.status, 200);
    assert_eq!(logged.clients().await, ["2a00::5", "192.0.2.7"]);
}
