//! `tidegate enrol`: makes this machine a box of a fleet, by a code that an operator was shown.
//!
//! The private key is made here and stays here. Whoever serves meanwhile notices, and needs no
//! restart.

use std::path::PathBuf;
use std::time::SystemTime;

use super::{Failure, USUAL_CONFIG, admin};
use crate::appliance::{Before, EnrolError, Enrolled, enrol};
use crate::config;
use crate::moment::unix_seconds;

const EXAMPLES: &str = "\
Examples:
  tidegate enrol --code 4f1c...9ab2
  tidegate enrol --config tidegate.toml --code 4f1c...9ab2 --again --json

The code is what `tidegate control code NAME` shows at the control plane, all of it, where NAME is
`fleet.name` here; it counts once. By it this machine knows whom it speaks with, and gets a
certificate, which it renews by itself. All it is known by lies in the folder `fleet.state`, which
nobody else may read. A process that serves takes it up within seconds.

Exit codes: 0 enrolled, 1 not enrolled, 64 misused, or a fault in the configuration";

/// Make this machine a box of a fleet
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The configuration, with a section `fleet`
    #[arg(long, value_name = "FILE", default_value = USUAL_CONFIG)]
    config: PathBuf,
    /// What `tidegate control code` shows
    #[arg(long)]
    code: String,
    /// Though it is enrolled: what it is known by is replaced
    #[arg(long)]
    again: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Enrols; what is to be printed.
pub(super) fn run(args: &Args) -> Result<String, Failure> {
    let config =
        config::load_before_start(&args.config).map_err(|e| Failure::Misused(e.to_string()))?;
    let Some(fleet) = &config.fleet else {
        let text = format!(
            "{}: there is no fleet; write `fleet.control = [\"https://control.example.com:9443\"]`",
            config.file
        );
        return Err(Failure::Misused(text));
    };
    let before = if args.again { Before::IsReplaced } else { Before::Stays };
    let enrolled = admin::runtime()?.block_on(enrol(fleet, args.code.trim(), before));
    let Enrolled { name, control, path, not_after } = enrolled.map_err(|error| match error {
        EnrolError::NoCode => Failure::Misused(error.to_string()),
        error => Failure::Failed(error.to_string()),
    })?;
    let days = not_after.saturating_sub(unix_seconds(SystemTime::now())) / 86_400;
    Ok(match args.json {
        true => {
            let told = serde_json::json!({
                "name": name,
                "control": control,
                "identity": path,
                "certificate_ends_at": not_after,
            });
            format!("{told:#}\n")
        }
        false => format!(
            "{control} has enrolled this box as {name}; its certificate counts for {days} days, \
             and is renewed before\n"
        ),
    })
}
