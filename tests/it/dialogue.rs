//! HTTP as it is spoken: tables of dialogues between a viewer, the edge and its origin.
//!
//! A file of `dialogues/` is a table for one part of an RFC; a case says what each of the three
//! says, in order, and the edge must keep to it. `dialogues/README.md` has the notation.

mod origin;
mod read;
mod speak;
mod written;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::support::Edge;
use origin::Dictated;
use read::Table;
use speak::Server;

/// Every case of a table, each about an object of its own, side by side.
async fn hold(name: &str) {
    let (_, text) = TABLES.into_iter().find(|(file, _)| *file == name).expect("it is a table");
    let table = Table::read(name, text);
    assert!(!table.cases.is_empty(), "{name} has no case");
    let origin = Dictated::start().await;
    let mut configured = Edge::at(origin.address());
    for (pattern, settings) in &table.rules {
        configured = configured.rule(pattern, settings);
    }
    let edge = configured.start();
    let mut speaking = tokio::task::JoinSet::new();
    let mut failures = BTreeMap::new();
    for (number, case) in table.cases.into_iter().enumerate() {
        if speaking.len() == CASES_AT_ONCE
            && let Some(spoken) = speaking.join_next().await
        {
            failures.extend(spoken.unwrap());
        }
        let heard = origin.hears(&format!("/{number}"));
        let server = Server { client: edge.client(), admin: Some(edge.admin()) };
        speaking.spawn(async move {
            let failure = speak::case(&case, number, &server, heard).await.err();
            failure.map(|failure| ((case.line, case.title), failure.why().to_owned()))
        });
    }
    while let Some(spoken) = speaking.join_next().await {
        failures.extend(spoken.unwrap());
    }
    let told: Vec<_> = failures
        .iter()
        .map(|((line, title), why)| format!("tests/it/dialogues/{name}:{line}: {title}\n  {why}"))
        .collect();
    assert!(told.is_empty(), "{} cases fail:\n{}", told.len(), told.join("\n"));
}

const CASES_AT_ONCE: usize = 16;

const TABLES: [(&str, &str); 29] = [
    ("storing.http", include_str!("dialogues/storing.http")),
    ("response_directives.http", include_str!("dialogues/response_directives.http")),
    ("freshness.http", include_str!("dialogues/freshness.http")),
    ("age.http", include_str!("dialogues/age.http")),
    ("targeted.http", include_str!("dialogues/targeted.http")),
    ("validation.http", include_str!("dialogues/validation.http")),
    ("stale.http", include_str!("dialogues/stale.http")),
    ("immutable.http", include_str!("dialogues/immutable.http")),
    ("request_directives.http", include_str!("dialogues/request_directives.http")),
    ("vary.http", include_str!("dialogues/vary.http")),
    ("keys.http", include_str!("dialogues/keys.http")),
    ("targets.http", include_str!("dialogues/targets.http")),
    ("methods.http", include_str!("dialogues/methods.http")),
    ("passed.http", include_str!("dialogues/passed.http")),
    ("invalidation.http", include_str!("dialogues/invalidation.http")),
    ("conditions.http", include_str!("dialogues/conditions.http")),
    ("ranges.http", include_str!("dialogues/ranges.http")),
    ("multirange.http", include_str!("dialogues/multirange.http")),
    ("partial.http", include_str!("dialogues/partial.http")),
    ("intermediaries.http", include_str!("dialogues/intermediaries.http")),
    ("framing.http", include_str!("dialogues/framing.http")),
    ("interim.http", include_str!("dialogues/interim.http")),
    ("cache_status.http", include_str!("dialogues/cache_status.http")),
    ("live.http", include_str!("dialogues/live.http")),
    ("unkeyed.http", include_str!("dialogues/unkeyed.http")),
    ("cors.http", include_str!("dialogues/cors.http")),
    ("cmcd.http", include_str!("dialogues/cmcd.http")),
    ("digest.http", include_str!("dialogues/digest.http")),
    ("cmsd.http", include_str!("dialogues/cmsd.http")),
];

#[tokio::test]
async fn storing() {
    hold("storing.http").await;
}

#[tokio::test]
async fn response_directives() {
    hold("response_directives.http").await;
}

#[tokio::test]
async fn freshness() {
    hold("freshness.http").await;
}

#[tokio::test]
async fn age() {
    hold("age.http").await;
}

#[tokio::test]
async fn targeted() {
    hold("targeted.http").await;
}

#[tokio::test]
async fn validation() {
    hold("validation.http").await;
}

#[tokio::test]
async fn stale() {
    hold("stale.http").await;
}

#[tokio::test]
async fn immutable() {
    hold("immutable.http").await;
}

#[tokio::test]
async fn requests_own_directives() {
    hold("request_directives.http").await;
}

#[tokio::test]
async fn choosing() {
    hold("vary.http").await;
}

#[tokio::test]
async fn keys() {
    hold("keys.http").await;
}

#[tokio::test]
async fn targets() {
    hold("targets.http").await;
}

#[tokio::test]
async fn methods() {
    hold("methods.http").await;
}

#[tokio::test]
async fn what_is_passed_on() {
    hold("passed.http").await;
}

#[tokio::test]
async fn invalidation() {
    hold("invalidation.http").await;
}

#[tokio::test]
async fn conditions() {
    hold("conditions.http").await;
}

#[tokio::test]
async fn ranges() {
    hold("ranges.http").await;
}

#[tokio::test]
async fn multirange() {
    hold("multirange.http").await;
}

#[tokio::test]
async fn partial() {
    hold("partial.http").await;
}

#[tokio::test]
async fn intermediaries() {
    hold("intermediaries.http").await;
}

#[tokio::test]
async fn framing() {
    hold("framing.http").await;
}

#[tokio::test]
async fn interim() {
    hold("interim.http").await;
}

#[tokio::test]
async fn cache_status() {
    hold("cache_status.http").await;
}

#[tokio::test]
async fn live() {
    hold("live.http").await;
}

#[tokio::test]
async fn what_is_no_part_of_the_key() {
    hold("unkeyed.http").await;
}

#[tokio::test]
async fn pages_of_other_origins() {
    hold("cors.http").await;
}

#[tokio::test]
async fn what_players_tell() {
    hold("cmcd.http").await;
}

#[tokio::test]
async fn digests() {
    hold("digest.http").await;
}

#[tokio::test]
async fn what_players_are_told() {
    hold("cmsd.http").await;
}

#[test]
fn each_table_is_held() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/dialogues");
    for file in std::fs::read_dir(folder).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        let is_listed = TABLES.iter().any(|(table, _)| *table == name);
        let is_held = include_str!("dialogue.rs").contains(&format!("hold({name:?}).await"));
        assert!(name == "README.md" || is_listed && is_held, "{name}");
    }
}

#[test]
fn there_are_many_cases_and_each_has_a_title_of_its_own() {
    let mut titles = BTreeSet::new();
    for (name, text) in TABLES {
        for case in Table::read(name, text).cases {
            assert!(titles.insert((name, case.title.clone())), "{name}: {} twice", case.title);
        }
    }
    println!("{} dialogues", titles.len());
    assert!(titles.len() >= CASES_MIN, "{} dialogues", titles.len());
}

const CASES_MIN: usize = 1_200;
