//! `tidegate usage verify`: whether an exported month is as it was signed. Asks nobody.

use std::path::PathBuf;

use serde_json::json;

use super::export::{read, signature_of};
use crate::cli::Failure;
use crate::usage::signed::{SignatureError, verify};
use crate::usage::told::{FORMAT, MonthTold};

const EXAMPLES: &str = "\
Examples:
  tidegate usage verify usage-2026-11.json --key public.pem
  tidegate usage verify film.json --signature film.json.sig --key public.pem --json

Exit codes: 0 it is as it was signed, 1 it is not, 64 misused";

/// Say whether an exported month is as it was signed
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The exported month
    #[arg(value_name = "FILE")]
    document: PathBuf,
    /// The public key of who signed it: Ed25519, PEM
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Its signature; left out: the file of the same name with .sig behind it
    #[arg(long, value_name = "FILE")]
    signature: Option<PathBuf>,
    /// Print what it is as JSON
    #[arg(long)]
    json: bool,
}

/// Verifies it; what is to be printed.
pub(super) fn run(args: &Args) -> Result<String, Failure> {
    let file = args.document.display();
    let (document, key) = (read(&args.document)?, read(&args.key)?);
    let beside = args.signature.clone().unwrap_or_else(|| signature_of(&args.document));
    let signature = read(&beside)?;
    verify(&document, &signature, &key).map_err(|error| match error {
        SignatureError::NoKey | SignatureError::NoPrivateKey => {
            Failure::Misused(format!("{} {error}", args.key.display()))
        }
        SignatureError::Other => Failure::Failed(format!("{file} {error}")),
    })?;
    let told: Option<MonthTold> = serde_json::from_slice(&document).ok();
    let told = told.filter(|told| told.format == FORMAT).ok_or_else(|| {
        let text = "is as it was signed, and is no usage that this version understands";
        Failure::Failed(format!("{file} {text}"))
    })?;
    let MonthTold { month, machine, told_at, counted_since, .. } = &told;
    Ok(match args.json {
        true => {
            let known = json!({
                "machine": machine, "month": month, "told_at": told_at,
                "counted_since": counted_since,
            });
            format!("{known}\n")
        }
        false => {
            let since = told.begun_within().map(|since| format!(", counted since {since}"));
            format!(
                "{file} is as it was signed: usage of {month} on {machine}, as of {told_at}{}\n",
                since.unwrap_or_default()
            )
        }
    })
}
