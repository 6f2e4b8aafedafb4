//! Who may purge, and what is said to those who may not.

use std::io;

use super::*;
use crate::support::{Client, Process, configured, text, tidegate};

/// Whom the admin listener lets purge what, and what it says.
#[tokio::test]
async fn only_who_bears_the_token_purges() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    origin.serve("/film", Script::of(10));
    let edge = purging(&origin, folder.path()).start();
    warm(&origin, &edge, &["/film"]).await;
    let (right, body) = (format!("Bearer {TOKEN}"), json!({ "urls": [url("/film")] }));
    let long = json!({ "urls": ["x".repeat(tidegate::limits::PURGE_REQUEST_BYTES_MAX)] });
    let many = json!({ "tags": vec!["t"; tidegate::limits::PURGES_PER_REQUEST_MAX + 1] });
    let table = [
        ("POST", "", body.clone(), 401, "who changes anything shows the token"),
        ("POST", "Bearer another-token-than-that", body.clone(), 401, "this is not the token"),
        ("POST", "Basic YTpi", body.clone(), 401, "this is not the token"),
        ("GET", right.as_str(), Value::Null, 405, "send POST"),
        ("PUT", &right, body.clone(), 405, "send POST"),
        ("POST", &right, Value::Null, 400, "not understood"),
        ("POST", &right, json!("x"), 400, "not understood"),
        ("POST", &right, json!({ "url": "x" }), 400, "unknown field `url`"),
        ("POST", &right, json!({ "urls": "x" }), 400, "not understood"),
        ("POST", &right, json!({}), 400, "nothing is named"),
        ("POST", &right, json!({ "soft": true }), 400, "nothing is named"),
        ("POST", &right, json!({ "urls": ["/film"] }), 400, "\"/film\" is no URL"),
        ("POST", &right, json!({ "urls": ["ftp://media.test/"] }), 400, "is no URL"),
        ("POST", &right, json!({ "urls": ["http://a@media.test/"] }), 400, "is no URL"),
        ("POST", &right, json!({ "urls": ["http://media.test/%zz"] }), 400, "is no URL"),
        ("POST", &right, json!({ "urls": ["http://other.test/a"] }), 400, "no site has the host"),
        ("POST", &right, json!({ "prefixes": [url("/a?b")] }), 400, "has a query"),
        ("POST", &right, json!({ "site": "other" }), 400, "no site is called \"other\""),
        ("POST", &right, json!({ "tags": [""] }), 400, "is no tag"),
        ("POST", &right, json!({ "tags": [" a"] }), 400, "is no tag"),
        ("POST", &right, many, 400, "at most 256"),
        ("POST", &right, json!({ "site": "media", "urls": [url("/")] }), 400, "alone or with tags"),
        ("POST", &right, long, 413, "bytes at most"),
    ];
    for (method, bearer, document, status, words) in table {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = edge.admin().request(method, "/purge");
        if !bearer.is_empty() {
            request = request.header("authorization", bearer);
        }
        if document != Value::Null {
            request = request.json(&document);
        }
        let answer = request.send().await;
        let said = text(&answer.body);
        assert_eq!(answer.status, status, "{said}");
        assert!(said.contains(words) || said.contains(&words.replace('"', "\\\"")), "{said}");
        assert!(said.ends_with("\"}\n") && said.lines().count() == 1, "{said}");
        let challenge = answer.header("www-authenticate");
        assert_eq!(challenge, if status == 401 { "Bearer" } else { "" });
    }
    assert_eq!(asked_again(&origin, &edge, &["/film"]).await, [0], "nothing of that purged it");
    assert_eq!(purge(&edge, body).await, 1);
    assert_eq!(asked_again(&origin, &edge, &["/film"]).await, [1]);
}

#[tokio::test]
async fn without_a_token_nobody_purges() {
    let origin = Origin::start();
    let edge = Edge::in_front_of(&origin).start();
    let (status, said) = asked(&edge, &json!({ "site": "media" })).await;
    assert_eq!(status, 403);
    assert!(said["error"].as_str().unwrap().contains("write `admin.token_file`"), "{said}");
    // Viewers' listeners know nothing of it.
    let viewer = Client::plain(edge.client().address(), HOST);
    assert_eq!(viewer.request(Method::POST, "/purge").send().await.status, 405);
}

/// PURGE by a viewers' listener: what the rule says, the token shown, the answer.
#[tokio::test]
async fn the_method_purges_where_a_rule_lets_it_from_where_and_with_the_token() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    origin.serve("/film", Script::of(10));
    let bearer = format!("Bearer {TOKEN}");
    let here = "purge_from = [\"127.0.0.0/8\"]";
    for (rule, shown, status) in [
        ("", bearer.as_str(), 405),
        ("purge_from = []", &bearer, 405),
        (here, "", 403),
        (here, "Bearer another-token-than-that", 403),
        ("purge_from = [\"127.0.0.2\", \"::/0\"]", &bearer, 403),
        (here, &bearer, 200),
    ] {
        let edge = purging(&origin, folder.path()).rule("/film", rule).start();
        warm(&origin, &edge, &["/film"]).await;
        let purge = Method::from_bytes(b"PURGE").unwrap();
        let mut request = edge.client().request(purge.clone(), "/film");
        if !shown.is_empty() {
            request = request.header("authorization", shown);
        }
        let answer = request.send().await;
        assert_eq!(answer.status, status, "{rule} {shown}");
        assert_eq!(answer.header("allow"), if status == 405 { "GET, HEAD" } else { "" });
        let asked = asked_again(&origin, &edge, &["/film"]).await;
        assert_eq!(asked, [usize::from(status == 200)], "{rule} {shown}");
        let other = edge.client().request(purge, "/other").header("authorization", &bearer);
        assert_eq!(other.send().await.status, 405, "another rule");
    }
    // Who has no token cannot show one.
    let edge = Edge::in_front_of(&origin).rule("/film", here).start();
    let purge = Method::from_bytes(b"PURGE").unwrap();
    let request = edge.client().request(purge, "/film").header("authorization", &bearer);
    assert_eq!(request.send().await.status, 403);
}

/// Whoever purges leaves a line with the number of it: none is missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_purge_is_logged_with_who_did_it_whichever_way_it_was_asked_for() {
    let (origin, folder) = (Origin::serving("/film", Script::of(10)), TempDir::new().unwrap());
    let tokens = folder.path().join("token");
    fs::write(&tokens, format!("operator anna {TOKEN}\n")).unwrap();
    let more = format!(
        "admin.token_file = {tokens:?}\n[[sites]]\nname = \"media\"\nhosts = {HOST:?}\n\
         origins = \"http://{}\"\n[[sites.rules]]\npath = \"/film\"\n\
         purge_from = [\"127.0.0.0/8\"]\n",
        origin.address()
    );
    let process = Process::start(&configured(folder.path(), &more));
    let (viewers, admin) = (Client::plain(process.http, HOST), process.admin.to_string());
    let purge = viewers.request(Method::from_bytes(b"PURGE").unwrap(), "/film?secret=1");
    let purge = purge.header("authorization", &format!("Bearer {TOKEN}"));
    assert_eq!(purge.send().await.status, 200);
    let words = ["purge", &url("/film"), "--admin", &admin, "--token-file"];
    let asked = tidegate(&[&words[..], &[tokens.to_str().unwrap()]].concat());
    assert!(asked.status.success(), "{}", text(&asked.stderr));
    let logged = process.stop();
    for (how, by) in [
        ("purged by PURGE: site media, \"/film\" ", "by=anna client=127.0.0.1 number=1"),
        ("purged by POST /purge: 1 URL ", "by=anna number=2"),
    ] {
        let is_of = |line: &&String| line.contains(how) && line.ends_with(by);
        assert_eq!(logged.iter().filter(is_of).count(), 1, "{how}{by}: {logged:#?}");
    }
}

/// What `tidegate log` tells of who comes first after a purge.
#[tokio::test]
async fn who_meets_what_was_purged_is_told_so_by_the_log() {
    let (origin, folder) = (Origin::serving("/film", Script::of(10)), TempDir::new().unwrap());
    let edge = purging(&origin, folder.path()).start();
    warm(&origin, &edge, &["/film"]).await;
    let bearer = format!("Bearer {TOKEN}");
    let mut log = edge.admin().get("/log").header("authorization", &bearer).open().await;
    let mut lines = Vec::new();
    for (soft, words) in
        [(true, "it was purged softly: stale from then on"), (false, "what was stored was purged")]
    {
        purge(&edge, json!({ "urls": [url("/film")], "soft": soft })).await;
        edge.get("/film").send().await;
        while !lines.contains(&b'\n') {
            lines.extend(log.read(1 << 16).await.unwrap().expect("the appliance runs"));
        }
        let told: Value = serde_json::from_slice(&std::mem::take(&mut lines)).unwrap();
        let decisions = told["decisions"].as_array().unwrap();
        let purges: Vec<&Value> = decisions.iter().filter(|one| one["what"] == "purge").collect();
        assert!(purges.len() == 1 && purges[0]["how"] == words, "{told}");
    }
}

/// What `tidegate purge` is called with, its exit code, and what it says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_purges_and_says_what_is_wrong_in_one_line() -> io::Result<()> {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    serve_all(&origin);
    let edge = purging(&origin, folder.path()).start();
    let config = |name: &str, port: u16, token: &str| {
        let text = format!(
            "listeners.http = [\"127.0.0.1:0\"]\n\
             listeners.admin = [\"127.0.0.1:{port}\"]\n{token}\n\
             [[sites]]\nname = \"media\"\nhosts = [{HOST:?}]\norigins = [\"http://o.test\"]\n"
        );
        let file = folder.path().join(name);
        fs::write(&file, text).map(|()| file.to_string_lossy().into_owned())
    };
    let token = "admin.token_file = \"token\"";
    let right = config("right.toml", edge.admin().address().port(), token)?;
    let without = config("without.toml", edge.admin().address().port(), "")?;
    fs::write(folder.path().join("wrong"), "a-token-of-somebody-else")?;
    let wrong = "admin.token_file = \"wrong\"";
    let wrong = config("wrong.toml", edge.admin().address().port(), wrong)?;
    let free = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let nobody = config("nobody.toml", free, token)?;
    let (one, prefix) = (url("/a/one"), url("/a/"));
    let in_folder = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (token, none) = (&in_folder("token"), &in_folder("right.toml"));
    let admin = &format!("http://{}", edge.admin().address());
    let table: &[(&str, &[&str], i32, &str)] = &[
        (&right, &[&one], 0, "purged 1 URL"),
        (&right, &[&one, "--soft"], 0, "purged 1 URL softly"),
        (&right, &[&one, &url("/b"), "--prefix", &prefix], 0, "purged 2 URLs and 1 prefix"),
        (&right, &["--tag", "red", "--tag", "blue"], 0, "purged 2 tags"),
        (&right, &["--tag", "red", "--site", "media"], 0, "purged 1 tag of site media"),
        (&right, &["--site", "media"], 0, "purged site media"),
        (&right, &["--site", "media", "--json"], 0, "\"number\":"),
        (&right, &[], 64, "nothing to purge"),
        (&right, &["/film"], 64, "\"/film\" is no URL"),
        (&right, &["--site", "other"], 64, "no site is called \"other\""),
        (&right, &["http://other.test/"], 64, "no site has the host"),
        (&without, &[&one], 64, "`admin.token_file`"),
        (&wrong, &[&one], 1, "this is not the token"),
        (&nobody, &[&one], 1, "no appliance answers"),
        ("no/such.toml", &[&one], 64, "no/such.toml"),
        ("no/such.toml", &[&one, "--admin", admin, "--token-file", token], 0, "purged 1 URL"),
        (&without, &[&one, "--token-file", token], 0, "purged 1 URL"),
        (&right, &[&one, "--token-file", "no/token"], 64, "no/token cannot be read"),
        (&right, &[&one, "--token-file", none], 64, "holds no token"),
        (&right, &[&one, "--admin", "edge", "--token-file", token], 64, "--admin is"),
    ];
    for (config, words, code, said) in table {
        let all = [&["purge", "--config", config][..], words].concat();
        let output = tokio::task::block_in_place(|| tidegate(&all));
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(*code), "{words:?}: {out}{err}");
        let line = if *code == 0 { out } else { err };
        assert!(line.contains(said), "{words:?}: {line}");
        assert!(line.lines().count() == 1, "{words:?}: {line}");
    }
    assert_eq!(asked_again(&origin, &edge, &PATHS).await, [1; 5]);
    let help = text(&tidegate(&["purge", "--help"]).stdout);
    assert!(help.contains("tidegate purge --tag"), "{help}");
    Ok(())
}

/// What was held is told, by the command and by the listener, and a `*` is no pattern.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn how_many_objects_were_held_is_told_and_that_a_star_is_a_letter() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    serve_all(&origin);
    let edge = purging(&origin, folder.path()).start();
    let admin = format!("http://{}", edge.admin().address());
    let token = folder.path().join("token").to_string_lossy().into_owned();
    let purged = |words: &[&str]| {
        let reach = ["--admin", &admin, "--token-file", &token];
        let output =
            tokio::task::block_in_place(|| tidegate(&[&["purge"][..], words, &reach].concat()));
        assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    let (one, star, prefix) = (url("/a/one"), url("/a/*"), url("/a"));
    let none = "nothing of it was held";
    assert_eq!(purged(&[&one]), format!("purged 1 URL: {none}\n"));
    warm(&origin, &edge, &PATHS).await;
    for (words, said) in [
        (&[one.as_str(), &one][..], "purged 2 URLs: 1 object was held"),
        (&[&one], &format!("purged 1 URL: {none}")),
        (&["--tag", "yellow"], &format!("purged 1 tag: {none}")),
        // "/a/one" has been purged, and nobody has met it since.
        (&["--tag", "blue", "--soft"], "purged 1 tag softly: 1 object was held"),
        (&["--prefix", &prefix], "purged 1 prefix: 3 objects were held"),
        (&["--site", "media"], "purged site media: 1 object was held"),
        (&["--site", "media"], &format!("purged site media: {none}")),
    ] {
        assert_eq!(purged(words), format!("{said}\n"), "{words:?}");
    }
    let said = purged(&[&star]);
    let (line, hint) = said.split_once('\n').unwrap();
    assert_eq!(line, format!("purged 1 URL: {none}"));
    let beginning = url("/a/");
    assert!(hint.starts_with("a `*` in a URL is a letter like any other"), "{hint}");
    assert!(hint.contains(&format!("begins with {beginning} is purged by that as a prefix (--")));
    let (_, said) = asked(&edge, &json!({ "urls": [star, one] })).await;
    assert_eq!((&said["found"], &said["found_all"]), (&json!(0), &json!(true)), "{said}");
    assert!(said["hint"].as_str().is_some_and(|hint| hint.contains("prefixes")), "{said}");
    assert_eq!(purged(&[&one, "--json"]).matches("\"hint\"").count(), 0);
}
