//! Purges that outlive the process: what a volume kept does not bring back what was purged.

use tidegate::limits::PURGE_PREFIXES_PER_SITE_MAX;

use super::*;
use crate::support::{Client, Process};

/// With one volume that keeps everything, and its state beside it.
fn keeping(origin: &Origin, folder: &Path) -> Configured {
    purging(origin, folder)
        .setting("memory.total", "256 MiB")
        .setting("ssd.admission", "all")
        .setting("ssd.state", &folder.join("state.json").to_string_lossy())
        .volume(folder, "volume")
}

fn journal(folder: &Path) -> PathBuf {
    folder.join("state.purges")
}

/// Objects of which one holds a block and one lies in a record with its head.
const KEPT: [&str; 4] = ["/a/one", "/a/small", "/b/two", "/c"];
const RECORDS: u64 = 2 + 1 + 2 + 1;

fn serve_kept(origin: &Origin) {
    for (path, length) in KEPT.iter().zip([BLOCK, 100, BLOCK, 100]) {
        let script = Script::of(length).field("Cache-Tag", if *path == "/c" { "red" } else { "" });
        origin.serve(path, script);
    }
}

/// Has everything on the volume, and the edge stopped.
async fn kept(origin: &Origin, folder: &Path) {
    serve_kept(origin);
    let mut edge = keeping(origin, folder).start();
    warm(origin, &edge, &KEPT).await;
    edge.until_entries(RECORDS).await;
    edge.drain().await;
}

#[tokio::test]
async fn a_restart_remembers_what_was_purged_on_volumes_that_do_not() {
    for soft in [false, true] {
        let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
        kept(&origin, folder.path()).await;
        let mut edge = keeping(&origin, folder.path()).start();
        let document = json!({ "prefixes": [url("/a/")], "tags": ["red"], "soft": soft });
        assert_eq!(purge(&edge, document).await, 2);
        edge.drain().await;
        origin.forget_requests();

        let mut edge = keeping(&origin, folder.path()).start();
        assert_eq!(asked_again(&origin, &edge, &KEPT).await, [1, 1, 0, 1], "{soft}");
        assert_eq!(asked_again(&origin, &edge, &KEPT).await, [0; 4], "{soft}");
        edge.until_entries(if soft { RECORDS } else { RECORDS - 1 }).await;
        // The numbers go on where they were.
        assert_eq!(purge(&edge, json!({ "urls": [url("/b/two")] })).await, 3);
        edge.drain().await;
        let edge = keeping(&origin, folder.path()).start();
        assert_eq!(asked_again(&origin, &edge, &["/b/two", "/a/one"]).await, [1, 0], "{soft}");
    }
}

#[tokio::test]
async fn a_volume_that_was_away_brings_nothing_back() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    kept(&origin, folder.path()).await;
    let (volume, away) = (folder.path().join("volume"), folder.path().join("away"));
    fs::rename(&volume, &away).unwrap();
    let with_another = || {
        let other = folder.path().join("other");
        purging(&origin, folder.path())
            .setting("memory.total", "256 MiB")
            .setting("ssd.state", &folder.path().join("state.json").to_string_lossy())
            .volume(other.parent().unwrap(), "other")
    };
    let mut edge = with_another().start();
    purge(&edge, json!({ "urls": [url("/a/one"), url("/a/small")] })).await;
    edge.drain().await;
    fs::rename(&away, &volume).unwrap();
    origin.forget_requests();
    let edge = keeping(&origin, folder.path()).start();
    for path in &KEPT[..2] {
        edge.get(path).send().await;
        let asked = origin.requests(path);
        assert_eq!(asked.len(), 1, "{path}");
        let conditional = !asked[0].head.header("if-none-match").is_empty();
        assert!(!conditional, "it is gone, and not only in doubt: {path}");
    }
}

#[tokio::test]
async fn half_a_record_of_the_journal_costs_nothing_and_damage_has_everything_asked_about() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    kept(&origin, folder.path()).await;
    let mut edge = keeping(&origin, folder.path()).start();
    purge(&edge, json!({ "urls": [url("/a/one")] })).await;
    purge(&edge, json!({ "urls": [url("/nothing")] })).await;
    edge.drain().await;
    let whole = fs::read(journal(folder.path())).unwrap();
    assert_eq!(whole.len(), 3 * 64);

    fs::write(journal(folder.path()), &whole[..3 * 64 - 20]).unwrap();
    let mut edge = keeping(&origin, folder.path()).start();
    let paths = &KEPT[1..];
    assert_eq!(asked_again(&origin, &edge, paths).await, [0; 3], "half a record says nothing");
    edge.drain().await;

    let mut damaged = whole.clone();
    damaged[64 + 40] ^= 1;
    fs::write(journal(folder.path()), &damaged).unwrap();
    let mut edge = keeping(&origin, folder.path()).start();
    assert_eq!(asked_again(&origin, &edge, &KEPT).await, [1; 4], "who knows what was purged");
    for path in KEPT {
        let asked = &origin.requests(path)[0];
        assert!(!asked.head.header("if-none-match").is_empty(), "{path} is in doubt");
    }
    assert_eq!(fs::read(folder.path().join("state.purges.damaged")).unwrap(), damaged);
    edge.drain().await;
    // It is said once, and what was confirmed since counts.
    let edge = keeping(&origin, folder.path()).start();
    assert_eq!(asked_again(&origin, &edge, &["/a/one", "/b/two"]).await, [0; 2]);
}

#[tokio::test]
async fn what_is_purged_beyond_what_is_remembered_leaves_the_site_in_doubt_and_says_so() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    kept(&origin, folder.path()).await;
    let mut edge = keeping(&origin, folder.path()).start();
    let prefixes = |range: std::ops::Range<usize>| -> Vec<String> {
        range.map(|number| url(&format!("/nothing/{number}/"))).collect()
    };
    let most = PURGE_PREFIXES_PER_SITE_MAX;
    let number = purge(&edge, json!({ "prefixes": prefixes(0..most) })).await;
    assert_eq!(number, most as u64);
    assert_eq!(asked_again(&origin, &edge, &["/b/two"]).await, [0]);

    let (status, said) = asked(&edge, &json!({ "prefixes": prefixes(most..most + 1) })).await;
    assert_eq!((status, &said["overflowed"]), (200, &json!(["media"])), "{said}");
    assert_eq!(said["number"], json!(number + 2), "the site, and what was asked for");
    assert_eq!(edge.metric("tidegate_purges_soft_total", &["overflow"]).await, 1.0);
    assert_eq!(edge.metric("tidegate_purge_entries", &[]).await, 2.0);
    edge.drain().await;
    let edge = keeping(&origin, folder.path()).start();
    assert_eq!(asked_again(&origin, &edge, &KEPT).await, [1; 4]);
    let conditional = |path: &&str| {
        origin.requests(path).iter().all(|r| !r.head.header("if-none-match").is_empty())
    };
    assert!(KEPT.iter().all(conditional));
}

#[tokio::test]
async fn a_journal_that_cannot_be_written_refuses_to_purge_and_says_why() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    let mut edge = keeping(&origin, folder.path()).start();
    edge.drain().await;
    fs::remove_file(journal(folder.path())).unwrap();
    fs::create_dir(journal(folder.path())).unwrap();
    let edge = keeping(&origin, folder.path()).start();
    let (status, said) = asked(&edge, &json!({ "site": "media" })).await;
    let error = said["error"].as_str().unwrap();
    assert_eq!(status, 500, "{said}");
    assert!(error.starts_with("not purged for good: the journal cannot be written: "), "{error}");
    // Once it can be, there is nothing more to do than to ask again. The refused one keeps its
    // number: what is stored meanwhile was stored after it.
    fs::remove_dir(journal(folder.path())).unwrap();
    assert_eq!(purge(&edge, json!({ "site": "media" })).await, 2);
}

/// Stale is used where the origin fails, and where a viewer takes it: not what nobody knows of.
#[tokio::test]
async fn what_may_have_been_purged_is_never_used_without_the_origins_word() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    kept(&origin, folder.path()).await;
    // Another journal takes the place of the one that the heads are numbered by.
    fs::write(journal(folder.path()), b"no journal").unwrap();
    let edge = keeping(&origin, folder.path()).start();
    assert_eq!(purge(&edge, json!({ "site": "media", "soft": true })).await, 1);
    let before = origin.requests(KEPT[0]).len();
    let taken = edge.get(KEPT[0]).header("cache-control", "max-stale").send().await;
    assert_eq!(taken.status, 200);
    assert_eq!(origin.requests(KEPT[0]).len(), before + 1, "{:?}", taken.headers);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_was_purged_is_served_after_a_kill() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    serve_kept(&origin);
    let config = folder.path().join("edge.toml");
    let file = |name: &str| folder.path().join(name);
    fs::write(file("token"), TOKEN).unwrap();
    let text = format!(
        "listeners.http = [\"127.0.0.1:0\"]\nlisteners.admin = [\"127.0.0.1:0\"]\n\
         log.access = \"off\"\nlog.level = \"info\"\nthreads.workers = 2\n\
         memory.ram = \"64 MiB\"\nmemory.total = \"256 MiB\"\nssd.admission = \"all\"\n\
         ssd.state = {state:?}\nadmin.token_file = {token:?}\n\
         [[ssd.volumes]]\npath = {volume:?}\nsize = \"512 MiB\"\nwrites_per_day = \"1000x\"\n\
         [[sites]]\nname = \"media\"\nhosts = [{HOST:?}]\norigins = [\"http://{origin}\"]\n",
        state = file("state.json"),
        token = file("token"),
        volume = file("volume"),
        origin = origin.address(),
    );
    fs::write(&config, text).unwrap();
    let edge = Process::start(&config);
    for path in KEPT {
        Client::plain(edge.http, HOST).get(path).send().await;
    }
    edge.until_entries(RECORDS).await;
    // So that only the journal knows of a purge, whatever else is written in time.
    let bearer = format!("Bearer {TOKEN}");
    let document = json!({ "tags": ["red"], "urls": [url("/a/one"), url("/a/small")] });
    let request = Client::plain(edge.admin, "admin.test").request(Method::POST, "/purge");
    let request = request.json(&document).header("authorization", &bearer);
    assert_eq!(request.send().await.status, 200);
    edge.kill();
    origin.forget_requests();

    let edge = Process::start(&config);
    for path in KEPT {
        let answer = Client::plain(edge.http, HOST).get(path).send().await;
        assert_eq!(judge(&origin, path, &answer), WHOLE, "{path}");
    }
    let asked: Vec<_> = KEPT.iter().map(|path| origin.requests(path).len()).collect();
    assert_eq!(asked, [1, 1, 0, 1]);
}

#[tokio::test]
async fn what_a_volume_alone_knows_is_told_of_a_url_and_not_counted_of_what_is_wider() {
    let (origin, folder) = (Origin::start(), TempDir::new().unwrap());
    kept(&origin, folder.path()).await;
    let edge = keeping(&origin, folder.path()).start();
    // Until then nobody knows what the volume holds.
    edge.until_entries(RECORDS).await;
    for (document, found) in [
        (json!({ "urls": [url("/a/one"), url("/nothing")] }), (1, true)),
        (json!({ "prefixes": [url("/a/")] }), (0, false)),
    ] {
        let (status, said) = asked(&edge, &document).await;
        let told = (said["found"].as_u64().unwrap(), said["found_all"] == true);
        assert_eq!((status, told), (200, found), "{said}");
    }
}
