//! Who keeps to HTTP: the tables of `tests/it/dialogues/`, spoken with Tidegate, nginx, Varnish and
//! Traffic Server, as a matrix of what each keeps to. `benches/README.md` has the last one.
//!
//! A case that every shared cache is bound by counts for a server that could be asked; where it had
//! the origin asked for what a cache may have, there was nothing to judge. A `may` counts always.

// As in tests: what cannot be unwrapped has failed.
#![allow(clippy::unwrap_used)]

mod arguments;
mod dialogue;
mod peers;
#[path = "../../tests/it/support/mod.rs"]
#[allow(dead_code, unused_imports)]
mod support;

use std::collections::BTreeMap;
use std::process::ExitCode;

use arguments::Arguments;
use dialogue::origin::Dictated;
use dialogue::read::{Case, Table, Weight};
use dialogue::speak::{self, Deviation, Server};
use peers::Started;

/// What a server kept to, of one table: so many of so many.
#[derive(Clone, Copy, Default)]
struct Kept {
    must: (usize, usize),
    may: (usize, usize),
    /// What Tidegate alone promises.
    own: (usize, usize),
}

/// Each table's columns, in the order of the servers.
type Matrix = BTreeMap<String, Vec<Kept>>;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = match Arguments::read(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(why) => {
            eprintln!("{why}\n{}", arguments::USAGE);
            return ExitCode::from(64);
        }
    };
    let mut matrix = Matrix::new();
    let mut versions = Vec::new();
    for name in &arguments.servers {
        let origin = Dictated::start().await;
        let started = match Started::new(name, origin.address()).await {
            Ok(started) => started,
            Err(why) => {
                eprintln!("{name}: {why}");
                return ExitCode::FAILURE;
            }
        };
        versions.push(started.version.clone());
        let tells = arguments.failures.as_deref() == Some(name);
        // Every case is about an object of its own, on a server that has seen other tables too.
        let mut number = 0;
        for (table, text) in &arguments.tables {
            let table_of = Table::read(table, text);
            let edge = started.for_table(&table_of.rules, origin.address());
            let server = edge.as_ref().map_or_else(|| started.server(), peers::server_of);
            let kept = hold(table_of.cases, &server, &origin, &mut number, |line, why| {
                if tells {
                    println!("{table}:{line}: {why}");
                }
            });
            matrix.entry(table.clone()).or_default().push(kept.await);
        }
    }
    print(&matrix, &versions);
    ExitCode::SUCCESS
}

/// Speaks the cases of a table, some at once.
async fn hold(
    cases: Vec<Case>,
    server: &Server,
    origin: &Dictated,
    number: &mut usize,
    tell: impl Fn(usize, String),
) -> Kept {
    let mut kept = Kept::default();
    let mut speaking = tokio::task::JoinSet::new();
    let is_ours = server.admin.is_some();
    let mut judge = |(case, spoken): (Case, Result<(), Deviation>)| {
        let counts = match (case.weight, &spoken) {
            (Weight::Must, Err(Deviation::AskedMore(_))) if !is_ours => return,
            (Weight::Must, _) => &mut kept.must,
            (Weight::May, _) => &mut kept.may,
            (Weight::Own, _) => &mut kept.own,
        };
        counts.1 += 1;
        match spoken {
            Ok(()) => counts.0 += 1,
            Err(deviation) => {
                let weight = format!("{:?}", case.weight).to_lowercase();
                tell(case.line, format!("{weight} {}\n    {}", case.title, deviation.why()));
            }
        }
    };
    for case in cases.into_iter().filter(|case| is_ours || case.weight != Weight::Own) {
        if speaking.len() == CASES_AT_ONCE
            && let Some(spoken) = speaking.join_next().await
        {
            judge(spoken.unwrap());
        }
        *number += 1;
        let (number, server) = (*number, server.clone());
        let heard = origin.hears(&format!("/{number}"));
        speaking.spawn(async move {
            let spoken = speak::case(&case, number, &server, heard).await;
            (case, spoken)
        });
    }
    while let Some(spoken) = speaking.join_next().await {
        judge(spoken.unwrap());
    }
    kept
}

fn print(matrix: &Matrix, versions: &[String]) {
    println!("| table | {} |", versions.join(" | "));
    println!("|---|{}", "---|".repeat(versions.len()));
    let mut all = vec![Kept::default(); versions.len()];
    let add = |(a, b): (usize, usize), (c, d): (usize, usize)| (a + c, b + d);
    for (table, columns) in matrix {
        let name = table.trim_end_matches(".http");
        println!("| {name} | {} |", columns.iter().map(told).collect::<Vec<_>>().join(" | "));
        for (sum, kept) in all.iter_mut().zip(columns) {
            let (must, may) = (add(sum.must, kept.must), add(sum.may, kept.may));
            *sum = Kept { must, may, own: add(sum.own, kept.own) };
        }
    }
    println!("| all | {} |", all.iter().map(told).collect::<Vec<_>>().join(" | "));
}

fn told(Kept { must, may, own }: &Kept) -> String {
    let told = format!("{}/{}, {}/{}", must.0, must.1, may.0, may.1);
    if own.1 == 0 { told } else { format!("{told}, own {}/{}", own.0, own.1) }
}

const CASES_AT_ONCE: usize = 32;
