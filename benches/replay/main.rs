//! Hit ratios on request traces, by the code that serves: the ram policy, the admission and the
//! ledger of the log, driven with weights instead of bytes and by the trace's own clock.
//!
//! The rules of the replay are those of the traces' own notes. Where a scaled region would be
//! smaller than a few blocks, blocks are cut smaller too.

// A measurement that cannot go on has failed: it says where.
#![allow(clippy::unwrap_used)]

mod arguments;
mod flood;
mod promises;
mod run;
mod shadowed;
mod table;
mod trace;

use std::process::ExitCode;

use clap::Parser as _;
use serde_json::json;

use crate::arguments::Arguments;
use crate::flood::Flooded;
use crate::run::Size;
use crate::shadowed::Shadowed;
use crate::table::Row;
use crate::trace::Trace;

/// Strangers for each request of the hot set.
const FLOODS: [u64; 3] = [1, 4, 16];

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (mut rows, mut shadowed, mut flooded) = (Vec::new(), Vec::new(), Vec::new());
    if arguments.flood {
        flooded.extend(FLOODS.map(Flooded::run));
    } else {
        for name in arguments.names() {
            let mut trace = match Trace::read(&arguments.traces, &name) {
                Ok(trace) => trace,
                Err(error) => {
                    let folder = arguments.traces.display();
                    eprintln!("replay: no trace {name} in {folder} (--traces DIR): {error}");
                    return ExitCode::from(2);
                }
            };
            for percent in &arguments.sizes {
                replay(&arguments, &mut trace, *percent, &mut rows, &mut shadowed);
            }
        }
        // By trace and mode, as they are read.
        rows.sort_by_key(|row| {
            let place = arguments.names().iter().position(|name| *name == row.trace);
            (place, row.mode != tidegate::cache::admission::Mode::Budget)
        });
    }
    match arguments.json {
        true => println!(
            "{}",
            json!({
                "replays": table::as_json(&rows),
                "shadows": shadowed.iter().map(Shadowed::as_json).collect::<serde_json::Value>(),
                "floods": flooded.iter().map(Flooded::as_json).collect::<serde_json::Value>(),
            })
        ),
        false => {
            if !rows.is_empty() {
                print!("{}", table::as_text(&rows));
            }
            shadowed.iter().for_each(|shadowed| print!("{}", shadowed.as_text()));
            flooded.iter().for_each(|flooded| print!("{}", flooded.as_text()));
        }
    }
    let hold = rows.iter().all(Row::holds)
        && shadowed.iter().all(Shadowed::holds)
        && flooded.iter().all(Flooded::holds);
    if hold { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn replay(
    arguments: &Arguments,
    trace: &mut Trace,
    percent: u64,
    rows: &mut Vec<Row>,
    shadowed: &mut Vec<Shadowed>,
) {
    let size = Size::of(trace, percent);
    trace.cut(size.block_bytes());
    eprintln!("{} at {percent} %: {} requests", trace.name, trace.requests());
    if arguments.shadow {
        shadowed.push(Shadowed::replay(trace, percent));
        return;
    }
    rows.extend(arguments.modes().into_iter().map(|mode| Row {
        trace: trace.name.clone(),
        mode,
        percent,
        figures: run::replay(trace, size, run::settings(trace, mode, arguments.writes(mode))),
    }));
}
