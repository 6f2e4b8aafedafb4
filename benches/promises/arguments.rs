//! The command line of the measurement.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Measure what Tidegate promises; exit 1 when a promise is broken
#[derive(Debug, Parser)]
#[command(name = "cargo bench --bench promises --", after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The cases to run; left out: those that take seconds: `together` and
    /// `seek`
    cases: Vec<CaseName>,
    /// Run every case
    #[arg(long)]
    all: bool,
    /// Rounds of each case, interleaved
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// Where those that read a volume make their files
    #[arg(long, value_name = "FOLDER", default_value = env!("CARGO_TARGET_TMPDIR"))]
    pub(crate) folder: PathBuf,
    /// Print one JSON document instead of a table
    #[arg(long)]
    pub(crate) json: bool,
    /// Said by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

const EXAMPLES: &str = "Examples:
  cargo bench --bench promises
  cargo bench --bench promises -- seek --rounds 20
  cargo bench --bench promises -- live memory
  cargo bench --bench promises -- seen --rounds 3
  cargo bench --bench promises -- overload --rounds 3
  cargo bench --bench promises -- routes --rounds 3
  cargo bench --bench promises -- steering --rounds 3
  cargo bench --bench promises -- tokens --rounds 20
  cargo bench --bench promises -- door --rounds 5
  cargo bench --bench promises -- control-fails --rounds 3
  cargo bench --bench promises -- disk --rounds 3 --folder /mnt/ssd
  cargo bench --bench promises -- sick reclaim --folder /mnt/ssd
  cargo bench --bench promises -- cold restart --rounds 3 --folder /mnt/ssd
  cargo bench --bench promises -- purge --rounds 3 --folder /mnt/ssd
  cargo bench --bench promises -- --all --json";

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CaseName {
    /// 500 viewers at once of a cold object
    Together,
    /// A seek to 5 GB of a cold 8 GB object while another reads it from the start
    Seek,
    /// 2,000 slow readers and a crawl within `memory.total`
    Memory,
    /// Reads of a volume at a depth, beside `fio` if that is installed
    Disk,
    /// Hits in ram and on a volume beside another that stalls, fails, is full, or gone
    Sick,
    /// Reads of a volume that reclaims, beside one that need not
    Reclaim,
    /// The start on a volume of two million blocks, and an index of 16.8 million entries
    Restart,
    /// Cold reads through the edge, beside `fio` and nginx if those are installed
    Cold,
    /// What a live origin flushes, on its way to 100 viewers
    Live,
    /// A purge by tag where two million objects are known
    Purge,
    /// Hits at full load while somebody follows the log
    Seen,
    /// Three times the viewers that can be borne, and one site's floods beside another's viewers
    Overload,
    /// A table of a million prefixes: read, held, looked up in
    Routes,
    /// Whom a viewer is sent to, of a thousand boxes and a million prefixes
    Steering,
    /// A viewer's token: verified, and seen before
    Tokens,
    /// Hits by a token, beside hits that take none
    Door,
    /// 1,000 viewers while control stalls, lies and dies in every call
    ControlFails,
}

impl Arguments {
    /// The cases chosen, each once.
    pub(crate) fn cases(&self) -> Vec<CaseName> {
        let small = |case: &CaseName| matches!(case, CaseName::Together | CaseName::Seek);
        let chosen = |case: &CaseName| match self.cases.is_empty() {
            true => self.all || small(case),
            false => self.all || self.cases.contains(case),
        };
        CaseName::value_variants().iter().copied().filter(chosen).collect()
    }
}
