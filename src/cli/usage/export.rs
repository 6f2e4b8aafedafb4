//! `tidegate usage export`: a month as a file, and beside it who said so.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::Which;
use crate::cli::Failure;
use crate::config::cause;
use crate::usage::signed::sign;

const EXAMPLES: &str = "\
Examples:
  tidegate usage export --month 2026-11 --key key.pem
  tidegate usage export --month 2026-11 --site film --samples --key key.pem --out film.json
  tidegate usage export --key key.pem --admin http://edge-7.example.com:9180 --token-file token
  openssl genpkey -algorithm ed25519 -out key.pem
  openssl pkey -in key.pem -pubout -out public.pem
  openssl pkeyutl -verify -rawin -pubin -inkey public.pem -in U.json -sigfile U.json.sig

What is told is written as JSON, and its signature (Ed25519, 64 bytes) beside it, in a file of the
same name with .sig behind it. The key stays where this command runs. Whoever has the public one
verifies it by `tidegate usage verify`, or by openssl, as in the last line (U.json is the file).

Exit codes: 0 written, 1 nothing is kept, or something cannot be read or written, 64 misused";

/// Write a month as a signed file
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    which: Which,
    /// The private key to sign with: Ed25519, PEM
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Where to write it; left out: usage-MONTH.json in this folder
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print where it was written as JSON
    #[arg(long)]
    json: bool,
}

/// Writes both files; what is to be printed.
pub(super) fn run(args: &Args) -> Result<String, Failure> {
    let told = args.which.told()?;
    let document = format!("{:#}\n", json!(told)).into_bytes();
    let key = read(&args.key)?;
    let wrong = |error| Failure::Misused(format!("{} {error}", args.key.display()));
    let signature = sign(&document, &key).map_err(wrong)?;
    let usual = || PathBuf::from(format!("usage-{}.json", told.month));
    let file = args.out.clone().unwrap_or_else(usual);
    let beside = signature_of(&file);
    write(&file, &document)?;
    write(&beside, &signature)?;
    let (file, beside) = (file.display().to_string(), beside.display().to_string());
    let is_over = told.told_at >= told.end;
    if args.json {
        let since = &told.counted_since;
        let written = json!({
            "document": file, "signature": beside, "is_over": is_over, "counted_since": since,
        });
        return Ok(format!("{written}\n"));
    }
    let so_far = if is_over { "" } else { " so far: the month is not over" };
    let since = told.begun_within().map(|since| format!(", counted since {since}"));
    let since = since.unwrap_or_default();
    Ok(format!("{file} and {beside} have {} of {}{since}{so_far}\n", told.month, told.machine))
}

/// Where the signature of a file lies.
pub(super) fn signature_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".sig");
    PathBuf::from(name)
}

/// What is in a file.
pub(super) fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let name = file.display();
    fs::read(file)
        .map_err(|error| Failure::Misused(format!("{name} cannot be read: {}", cause(&error))))
}

fn write(file: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let name = file.display();
    fs::write(file, bytes)
        .map_err(|error| Failure::Failed(format!("{name} cannot be written: {}", cause(&error))))
}
