//! The command line of the replay.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use tidegate::cache::admission::Mode;

/// Replay request traces through the ram policy, the admission and the log; exit 1 when a hit ratio
/// is below what is promised
#[derive(Debug, Parser)]
#[command(name = "cargo bench --bench replay --", after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The folder with the traces, NAME.txt.zst each
    #[arg(long, value_name = "DIR", default_value = "../shared/traces")]
    pub(crate) traces: PathBuf,
    /// A trace; may be given several times; left out: the three that have promises
    #[arg(long = "trace", value_name = "NAME")]
    names: Vec<String>,
    /// Cache sizes in percent of the footprint
    #[arg(long, value_delimiter = ',', default_values_t = [1, 5, 10, 20])]
    pub(crate) sizes: Vec<u64>,
    /// One mode of admission instead of both
    #[arg(long)]
    mode: Option<ModeName>,
    /// The write budget of mode budget, in percent of the bytes asked for; 0: none
    #[arg(long, value_name = "PERCENT", default_value_t = 25.0)]
    writes: f64,
    /// Let shadow caches choose the mode, and hold their curve against replays of other sizes
    #[arg(long)]
    pub(crate) shadow: bool,
    /// Flood a hot set with objects that are asked for once
    #[arg(long)]
    pub(crate) flood: bool,
    /// Print one JSON document instead of tables
    #[arg(long)]
    pub(crate) json: bool,
    /// Said by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

const EXAMPLES: &str = "Examples:
  cargo bench --bench replay
  cargo bench --bench replay -- --trace video-a --mode budget --writes 15
  cargo bench --bench replay -- --shadow
  cargo bench --bench replay -- --flood";

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ModeName {
    Budget,
    All,
}

impl Arguments {
    /// The traces to replay.
    pub(crate) fn names(&self) -> Vec<String> {
        let promised = ["video-a", "akamai-video-model", "cdn-sample-a"];
        // The third is too small for a sample of its keys.
        let count = if self.shadow { 2 } else { 3 };
        match self.names.is_empty() {
            true => promised[..count].iter().map(|name| (*name).to_owned()).collect(),
            false => self.names.clone(),
        }
    }

    /// The write budget of a mode, in percent of the bytes asked for.
    pub(crate) fn writes(&self, mode: Mode) -> Option<f64> {
        (mode == Mode::Budget && self.writes > 0.0).then_some(self.writes)
    }

    /// The modes to replay them in.
    pub(crate) fn modes(&self) -> Vec<Mode> {
        match self.mode {
            None => vec![Mode::Budget, Mode::All],
            Some(ModeName::Budget) => vec![Mode::Budget],
            Some(ModeName::All) => vec![Mode::All],
        }
    }
}
