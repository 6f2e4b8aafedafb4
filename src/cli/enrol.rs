//! `tidegate enrol`: makes this machine a box of a fleet, by a code that an operator was shown.
//!
//! The private key is made here and stays here. Whoever serves meanwhile notices, and needs no
//! restart.

use std::io::{self, BufRead};
use std::path::PathBuf;
use std::time::SystemTime;

use super::{Failure, USUAL_CONFIG, admin};
use crate::appliance::{Before, EnrolError, Enrolled, enrol};
use crate::config;
use crate::moment::unix_seconds;

const EXAMPLES: &str = "\
Examples:
  tidegate enrol --code - < code
  tidegate enrol --code 4f1c...9ab2
  tidegate enrol --config tidegate.toml --code 4f1c...9ab2 --again --json

The code is what `tidegate control code NAME` shows at the control plane, all of it, where NAME is
`fleet.name` here; it counts once. `-` reads it from standard input: whoever may list processes
here sees what is typed after a command. By it this machine knows whom it speaks with, and gets a
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
    /// What `tidegate control code` shows; `-`: a line of standard input
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
    let code = match args.code.as_str() {
        "-" => read(io::stdin().lock()).map_err(|error| {
            Failure::Misused(format!("no code can be read from standard input: {error}"))
        })?,
        code => code.to_owned(),
    };
    let before = if args.again { Before::IsReplaced } else { Before::Stays };
    let enrolled = admin::runtime()?.block_on(enrol(fleet, code.trim(), before));
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

/// The first line.
fn read(from: impl BufRead) -> io::Result<String> {
    let mut code = String::new();
    from.take(LINE_BYTES_MAX).read_line(&mut code)?;
    Ok(code)
}

/// Longer than any code.
const LINE_BYTES_MAX: u64 = 1 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_the_first_line_and_is_not_read_without_end() {
        assert_eq!(read(&b"00ff.ab\nmore"[..]).unwrap(), "00ff.ab\n");
        assert_eq!(read(&b""[..]).unwrap(), "");
        assert_eq!(read(io::BufReader::new(io::repeat(b'a'))).unwrap().len(), 1 << 10);
        assert!(read(&b"\xff\n"[..]).is_err());
    }
}
