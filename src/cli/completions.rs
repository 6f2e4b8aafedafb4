//! `tidegate completions`: what a shell needs to complete the command line, made from the command
//! line itself.

use clap::CommandFactory;
use clap_complete::Shell;

use super::{CommandLine, Failure};

const EXAMPLES: &str = "\
Examples:
  tidegate completions bash > /etc/bash_completion.d/tidegate
  tidegate completions zsh > /usr/local/share/zsh/site-functions/_tidegate
  tidegate completions fish > ~/.config/fish/completions/tidegate.fish

The Debian package brings those of bash, zsh and fish.

Exit codes: 0 printed, 1 not, 64 misused";

/// Print what a shell needs to complete commands
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The shell
    shell: Shell,
}

/// What is to be printed.
pub(super) fn run(args: &Args) -> Result<String, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut CommandLine::command(), "tidegate", &mut script);
    String::from_utf8(script)
        .map_err(|error| Failure::Failed(format!("the completions are no text: {error}")))
}
