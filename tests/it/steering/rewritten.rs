//! Playlists and MPDs that are served with steering in them: what players are told, and that it is
//! correct HTTP for a representation of its own, while what is held stays the origin's.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::asking;
use crate::support::{Client, Process, Request, Response, configured, text};

const MASTER: &str = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1280000\n720p.m3u8\n";
const MPD: &str = "<MPD type=\"static\"><Period id=\"1\"/></MPD>\n";
const BROKEN: &str = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1,CODECS=\"a\n720p.m3u8\n";
const TAGS: &str = "cache-control: max-age=60\r\netag: \"one\"\r\n\
    last-modified: Sun, 06 Nov 1994 08:49:37 GMT\r\ncontent-md5: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
    repr-digest: unixsum=:AAAA:\r\nvary: Accept-Encoding\r\n";

/// An origin of a few texts, and what it was asked for.
struct Texts {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Texts {
    async fn start() -> Texts {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let texts = Texts { address: listener.local_addr().unwrap(), asked: Arc::default() };
        let asked = texts.asked.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answered(stream, asked.clone()));
            }
        });
        texts
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// Answers one request and closes.
async fn answered(mut stream: TcpStream, asked: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let line = text(&head).lines().next().unwrap().to_owned();
    let path = line.split(' ').nth(1).unwrap().to_owned();
    let large = format!("{MASTER}{}", "#".repeat(300 << 10));
    let (body, more) = match &*path {
        "/master.m3u8" | "/plain/master.m3u8" => (MASTER, ""),
        "/chunked.m3u8" => (MASTER, "transfer-encoding: chunked\r\n"),
        "/film.mpd" => (MPD, ""),
        "/coded.m3u8" => (MASTER, "content-encoding: br\r\n"),
        "/large.m3u8" => (&*large, ""),
        "/kept.m3u8" => (MASTER, "cache-control: no-transform\r\n"),
        "/private.m3u8" => (MASTER, "cache-control: private\r\n"),
        "/broken.m3u8" | "/short.m3u8" => (BROKEN, ""),
        _ => ("#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\na.ts\n", ""),
    };
    asked.lock().unwrap().push(line.clone());
    let length = body.len() + if path == "/short.m3u8" { 10 } else { 0 };
    let answer = match path == "/chunked.m3u8" {
        true => {
            let (one, other) = body.split_at(20);
            format!(
                "HTTP/1.1 200 OK\r\n{TAGS}{more}connection: close\r\n\r\n{:x}\r\n{one}\r\n\
                 {:x}\r\n{other}\r\n0\r\n\r\n",
                one.len(),
                other.len()
            )
        }
        false => format!(
            "HTTP/1.1 200 OK\r\n{TAGS}{more}content-length: {length}\r\nconnection: close\r\n\r\n\
             {body}"
        ),
    };
    let is_head = line.starts_with("HEAD");
    let end = if is_head { answer.find("\r\n\r\n").unwrap() + 4 } else { answer.len() };
    let _ = stream.write_all(&answer.as_bytes()[..end]).await;
    let _ = stream.shutdown().await;
}

struct Served {
    process: Process,
    origin: Texts,
    client: Client,
    _folder: TempDir,
}

impl Served {
    async fn start() -> Served {
        let (folder, origin) = (TempDir::new().unwrap(), Texts::start().await);
        let settings = format!(
            "listeners.steering = [\"127.0.0.1:0\"]\n[steering]\nurl = \"https://s.example\"\n\
             pathway = \"here\"\n[[sites]]\nname = \"media\"\nhosts = [\"media.test\"]\n\
             origins = \"http://{}\"\nsteering = \"tags\"\n[[sites.rules]]\n\
             path = \"/plain/**\"\nsteering = \"off\"\n[[steering.appliances]]\nname = \"here\"\n\
             addresses = [\"192.0.2.1\"]\ncapacity = \"10 Gbit/s\"\n",
            origin.address,
        );
        let process = Process::start(&configured(folder.path(), &settings));
        let client = Client::plain(process.http, "media.test");
        Served { process, origin, client, _folder: folder }
    }

    async fn get(&self, target: &str, fields: &[(&str, &str)]) -> Response {
        let request = self.client.get(target);
        let add = |request: Request, (name, value): &(&str, &str)| request.header(name, value);
        fields.iter().fold(request, add).send().await
    }
}

#[tokio::test]
async fn a_playlist_is_served_with_steering_as_a_representation_of_its_own() {
    let served = Served::start().await;
    let expected = "#EXTM3U\n#EXT-X-CONTENT-STEERING:SERVER-URI=\"https://s.example/steer/v1/hls/\
        media/master.m3u8?known=here&base=here\",PATHWAY-ID=\"here\"\n\
        #EXT-X-STREAM-INF:BANDWIDTH=1280000,PATHWAY-ID=\"here\"\n720p.m3u8\n";
    let whole = served.get("/master.m3u8", &[]).await;
    assert_eq!((whole.status, &*text(&whole.body)), (200, expected));
    assert_eq!(whole.header("content-length"), expected.len().to_string());
    let admin = Client::plain(served.process.admin, "admin.test");
    let metrics = text(&admin.get("/metrics").send().await.body);
    let of_site = "tidegate_site_response_body_bytes_total{site=\"media\"";
    let sent = metrics.lines().filter(|line| line.starts_with(of_site));
    let sent = sent.map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap());
    assert_eq!(sent.sum::<usize>(), expected.len(), "it counts as sent by its site:\n{metrics}");
    let etag = whole.header("etag");
    assert!(etag.starts_with("\"steered-"), "{etag}");
    for name in ["last-modified", "content-md5", "repr-digest"] {
        assert!(!whole.headers.contains_key(name), "{name} is of other bytes");
    }
    assert_eq!(whole.header("vary"), "Accept-Encoding");

    let etags = [("if-none-match", &*etag)];
    let unchanged = served.get("/master.m3u8", &etags).await;
    assert_eq!((unchanged.status, unchanged.body.len()), (304, 0));
    assert_eq!(unchanged.header("etag"), etag);
    let of_origin = served.get("/master.m3u8", &[("if-none-match", "\"one\"")]).await;
    assert_eq!((of_origin.status, of_origin.header("etag")), (200, etag.clone()));
    let since = [("if-modified-since", "Sun, 06 Nov 2044 08:49:37 GMT")];
    assert_eq!(served.get("/master.m3u8", &since).await.status, 200, "no date is known of it");
    assert_eq!(served.get("/master.m3u8", &[("if-match", "\"one\"")]).await.status, 412);

    let part = served.get("/master.m3u8", &[("range", "bytes=8-30")]).await;
    assert_eq!((part.status, &*text(&part.body)), (206, &expected[8..31]));
    assert_eq!(part.header("content-range"), format!("bytes 8-30/{}", expected.len()));
    let last = [("range", "bytes=-6"), ("if-range", &*etag)];
    assert_eq!(text(&served.get("/master.m3u8", &last).await.body), ".m3u8\n");
    let other = [("range", "bytes=0-1"), ("if-range", "\"one\"")];
    assert_eq!(served.get("/master.m3u8", &other).await.status, 200);
    let several = served.get("/master.m3u8", &[("range", "bytes=0-1,4-5")]).await;
    assert_eq!((several.status, &*text(&several.body)), (200, expected));
    let beyond = format!("bytes={}-", expected.len());
    let beyond = served.get("/master.m3u8", &[("range", &beyond)]).await;
    assert_eq!(beyond.status, 416);
    assert_eq!(beyond.header("content-range"), format!("bytes */{}", expected.len()));

    let head = served.client.head("/master.m3u8").send().await;
    assert_eq!((head.status, head.body.len(), head.header("etag")), (200, 0, etag));
    assert_eq!(head.header("content-length"), expected.len().to_string());
    assert_eq!(served.origin.asked(), ["GET /master.m3u8 HTTP/1.1"], "it is held as it was sent");
    served.process.stop();
}

#[tokio::test]
async fn who_begins_with_head_or_a_range_and_who_is_sent_it_in_chunks_get_the_same() {
    let served = Served::start().await;
    let head = served.client.head("/master.m3u8").send().await;
    let length: usize = head.header("content-length").parse().unwrap();
    assert!(length > MASTER.len() && head.body.is_empty());
    let behind = format!("bytes={}-", MASTER.len());
    let part = served.get("/film.mpd", &[("range", &behind)]).await;
    assert_eq!(part.status, 206, "the origin's is shorter");
    let whole = served.get("/film.mpd", &[]).await;
    let location = "<BaseURL serviceLocation=\"here\">./</BaseURL>";
    let (mpd, uri) = (text(&whole.body), "https://s.example/steer/v1/dash/media/film.mpd?known=");
    assert!(mpd.contains(location) && mpd.contains(uri), "{mpd}");
    assert_eq!(text(&part.body), mpd[MASTER.len()..]);
    for _ in 0..2 {
        let chunked = served.get("/chunked.m3u8", &[]).await;
        assert!(text(&chunked.body).contains("#EXT-X-CONTENT-STEERING"), "{chunked:?}");
        assert_eq!(chunked.header("content-length"), chunked.body.len().to_string());
    }
    served.process.stop();
}

#[tokio::test]
async fn what_cannot_be_steered_is_served_as_the_origin_sent_it() {
    let served = Served::start().await;
    for (target, body) in [
        ("/broken.m3u8", BROKEN),
        ("/plain/master.m3u8", MASTER),
        ("/coded.m3u8", MASTER),
        ("/private.m3u8", MASTER),
        ("/kept.m3u8", MASTER),
        ("/media.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\na.ts\n"),
        ("/other.ts", "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\na.ts\n"),
    ] {
        let whole = served.get(target, &[]).await;
        assert_eq!((whole.status, &*text(&whole.body)), (200, body), "{target}");
        assert_eq!(whole.header("etag"), "\"one\"", "{target}");
        let head = served.client.head(target).send().await;
        assert_eq!((head.status, head.body.len()), (200, 0), "{target}");
        assert_eq!(head.header("etag"), "\"one\"", "{target}");
        assert_eq!(head.header("content-length"), body.len().to_string(), "{target}");
    }
    for target in ["/media.m3u8", "/coded.m3u8", "/broken.m3u8", "/kept.m3u8", "/new.m3u8"] {
        let part = served.get(target, &[("range", "bytes=0-6")]).await;
        assert_eq!((part.status, &*text(&part.body)), (206, "#EXTM3U"), "{target}");
        let parts = served.get(target, &[("range", "bytes=0-1,4-5")]).await;
        assert_eq!(parts.status, 206, "{target}");
    }
    let large = served.get("/large.m3u8", &[]).await;
    assert!(large.body.len() > 300 << 10 && large.body.starts_with(MASTER.as_bytes()));
    assert_eq!(large.header("etag"), "\"one\"");
    let short = served.client.get("/short.m3u8").try_send().await;
    let is_whole = short.is_ok_and(|short| short.complete && short.status < 500);
    assert!(!is_whole, "all of it never comes");
    served.process.stop();
}

#[tokio::test]
async fn who_asks_where_a_playlist_says_begins_a_playback_of_his_own() {
    let served = Served::start().await;
    let playlist = text(&served.get("/master.m3u8", &[]).await.body);
    let uri = playlist.split_once("SERVER-URI=\"").unwrap().1.split_once('"').unwrap().0;
    let target = uri.strip_prefix("https://s.example").unwrap();
    let steering = asking(&served.process, " steering at ").await;
    let mut sessions = Vec::new();
    for _ in 0..2 {
        let response = steering.get(&format!("{target}&_HLS_pathway=here")).send().await;
        let told: Value = serde_json::from_slice(&response.body).unwrap();
        assert_eq!(told["PATHWAY-PRIORITY"], serde_json::json!(["here"]));
        sessions.push(told["RELOAD-URI"].as_str().unwrap().to_owned());
    }
    assert_ne!(sessions[0], sessions[1]);
    served.process.stop();
}
