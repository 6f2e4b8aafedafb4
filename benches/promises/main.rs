//! What is promised with a time in it: each case measures its figures and says whether they hold.
//!
//! The edge is the real binary as a process of its own, the origin and the viewers live here. The
//! rounds of the cases are interleaved, so that a machine that slows down slows all of them.

// A measurement that cannot go on has failed: it says where.
#![allow(clippy::unwrap_used)]

mod arguments;
mod cold;
// Shared with the tests, which use all of it.
#[allow(dead_code)]
#[path = "../../tests/it/support/content.rs"]
mod content;
#[path = "../../tests/it/support/control.rs"]
mod control;
mod control_fails;
mod disk;
mod door;
mod edge;
mod figure;
mod live;
mod memory;
mod origin;
mod overload;
mod purge;
mod restart;
mod routes;
mod seek;
mod seen;
mod sick;
mod steering;
mod together;
mod tokens;
mod viewer;

use std::process::ExitCode;

use clap::Parser as _;
use tokio::runtime::Runtime;

use crate::arguments::{Arguments, CaseName};
use crate::figure::{Figures, Measure};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // One thread for all viewers: the processors are for the edge.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("the system gives a process a runtime");
    let mut cases: Vec<Case> =
        arguments.cases().into_iter().map(|name| Case::start(name, &arguments, &runtime)).collect();
    let mut figures = Figures::default();
    for round in 1..=arguments.rounds {
        for case in cases.iter_mut().filter(|case| round == 1 || case.repeats()) {
            eprintln!("{} round {round} of {}", case.name(), arguments.rounds);
            figures.add(case.name(), runtime.block_on(case.round(round)));
        }
    }
    match arguments.json {
        true => println!("{}", figures.as_json()),
        false => print!("{}", figures.as_text()),
    }
    if figures.hold() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A promise and what it is measured on.
enum Case {
    Together(together::Together),
    Seek(seek::Seek),
    Memory(memory::Memory),
    Disk(Box<disk::DiskReads>),
    Sick(Box<sick::Sick>),
    Reclaim(Box<sick::Reclaim>),
    Restart(restart::Restart),
    Cold(Box<cold::Cold>),
    Live(live::Live),
    Purge(purge::Purge),
    Seen(seen::Seen),
    Overload(overload::Overload),
    Routes(routes::Read),
    Steering(Box<steering::Steering>),
    Tokens(tokens::Tokens),
    Door(door::Door),
    ControlFails(control_fails::ControlFails),
}

impl Case {
    fn start(name: CaseName, arguments: &Arguments, runtime: &Runtime) -> Case {
        let _inside = runtime.enter();
        match name {
            CaseName::Together => Case::Together(together::Together::start()),
            CaseName::Seek => Case::Seek(seek::Seek::start()),
            CaseName::Memory => Case::Memory(memory::Memory::start()),
            CaseName::Disk => Case::Disk(Box::new(disk::DiskReads::start(&arguments.folder))),
            CaseName::Sick => {
                Case::Sick(Box::new(runtime.block_on(sick::Sick::start(&arguments.folder))))
            }
            CaseName::Reclaim => {
                Case::Reclaim(Box::new(runtime.block_on(sick::Reclaim::start(&arguments.folder))))
            }
            CaseName::Restart => Case::Restart(restart::Restart::start(&arguments.folder)),
            CaseName::Purge => Case::Purge(purge::Purge::start(&arguments.folder)),
            CaseName::Cold => Case::Cold(Box::new(cold::Cold::start(&arguments.folder))),
            CaseName::Live => Case::Live(live::Live::start()),
            CaseName::Seen => Case::Seen(seen::Seen::start()),
            CaseName::Overload => Case::Overload(overload::Overload::start()),
            CaseName::Routes => Case::Routes(routes::Read::start(&arguments.folder)),
            CaseName::Steering => {
                Case::Steering(Box::new(steering::Steering::start(&arguments.folder)))
            }
            CaseName::Tokens => Case::Tokens(tokens::Tokens::start()),
            CaseName::Door => Case::Door(door::Door::start()),
            CaseName::ControlFails => Case::ControlFails(control_fails::ControlFails::start()),
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Case::Together(_) => "together",
            Case::Seek(_) => "seek",
            Case::Memory(_) => "memory",
            Case::Disk(_) => "disk",
            Case::Sick(_) => "sick",
            Case::Reclaim(_) => "reclaim",
            Case::Restart(_) => "restart",
            Case::Cold(_) => "cold",
            Case::Live(_) => "live",
            Case::Purge(_) => "purge",
            Case::Seen(_) => "seen",
            Case::Overload(_) => "overload",
            Case::Routes(_) => "routes",
            Case::Steering(_) => "steering",
            Case::Tokens(_) => "tokens",
            Case::Door(_) => "door",
            Case::ControlFails(_) => "control-fails",
        }
    }

    /// Minutes long: once is enough.
    fn repeats(&self) -> bool {
        !matches!(self, Case::Memory(_))
    }

    async fn round(&mut self, round: u32) -> Vec<Measure> {
        match self {
            Case::Together(case) => case.round(round).await,
            Case::Seek(case) => case.round(round).await,
            Case::Memory(case) => case.round().await,
            Case::Disk(case) => case.round(round).await,
            Case::Sick(case) => case.round(round).await,
            Case::Reclaim(case) => case.round(round).await,
            Case::Restart(case) => case.round(round).await,
            Case::Cold(case) => case.round(round).await,
            Case::Live(case) => case.round(round).await,
            Case::Purge(case) => case.round(round).await,
            Case::Seen(case) => case.round().await,
            Case::Overload(case) => case.round().await,
            Case::Routes(case) => case.round(),
            Case::Steering(case) => case.round(round),
            Case::Tokens(case) => case.round(),
            Case::Door(case) => case.round().await,
            Case::ControlFails(case) => case.round().await,
        }
    }
}
