//! `tidegate explain`: what a running appliance knows of an object, and what it would do with a
//! request for it now.
//!
//! Asks the admin listener, which asks the same rules as delivery does; changes nothing.

use http::header::AUTHORIZATION;
use http::{HeaderName, HeaderValue, Uri};
use serde_json::Value;

use super::admin::Reach;
use super::{Failure, admin};

mod as_text;

const EXAMPLES: &str = "\
Examples:
  tidegate explain https://video.example.com/film/1.m4s
  tidegate explain https://video.example.com/film/1.m4s --field 'Range: bytes=0-99'
  tidegate explain https://video.example.com/live/a.m3u8 --json | jq .variants[0].freshness
  curl 'http://127.0.0.1:9180/explain?url=https://video.example.com/film/1.m4s'
Where there is an `admin.token_file`, add to curl: -H \"Authorization: Bearer $(cat token)\"

Of an object of more than 64 blocks, the pieces of 64 are shown: from the first on that the request
asks for by its Range, if it has one.

Exit codes: 0 explained, 1 no appliance answers or it would refuse the request, 64 misused";

/// Explain what the running appliance knows of a URL, and what it would answer now
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The URL as a viewer asks for it
    url: String,
    /// A field of the request, such as 'Range: bytes=0-99'; may be given several times
    #[arg(long = "field", value_name = "NAME: VALUE")]
    fields: Vec<String>,
    #[command(flatten)]
    reach: Reach,
    /// Print the explanation as JSON: times in seconds, sizes in bytes
    #[arg(long)]
    json: bool,
}

/// Asks; what is to be printed.
pub(super) fn run(args: &Args) -> Result<String, Failure> {
    let uri = args.url.parse::<Uri>().ok();
    if !uri.is_some_and(|uri| uri.scheme().is_some() && uri.authority().is_some()) {
        return Err(Failure::Misused(format!(
            "{:?} is no URL; write one such as https://video.example.com/film/1.m4s",
            args.url
        )));
    }
    let fields = args.fields.iter().map(|line| field(line)).collect::<Result<Vec<_>, _>>()?;
    // What comes after a `#` is not sent, here neither.
    let url = args.url.split('#').next().unwrap_or_default();
    let (addresses, mut request) = args.reach.get(&format!("/explain?url={url}"))?;
    if request.headers().contains_key(AUTHORIZATION)
        && fields.iter().any(|(name, _)| name == AUTHORIZATION)
    {
        return Err(Failure::Misused(
            "`Authorization` has the token by which this is asked for, and nothing beside it"
                .to_owned(),
        ));
    }
    request.headers_mut().extend(fields);
    let told = admin::told(&addresses, &request, is_explanation)?;
    if let Some(error) = told.value.get("error").and_then(Value::as_str) {
        return Err(Failure::Failed(format!("{}: {error}", args.url)));
    }
    match args.json {
        true => Ok(format!("{:#}\n", told.value)),
        false => Ok(as_text::of(&admin::understood(&told)?, &args.url)),
    }
}

fn is_explanation(value: &Value) -> bool {
    value.get("answer").is_some_and(Value::is_object)
        || value.get("error").is_some_and(Value::is_string)
}

fn field(line: &str) -> Result<(HeaderName, HeaderValue), Failure> {
    let parsed = line.split_once(':').and_then(|(name, value)| {
        let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
        Some((name, HeaderValue::from_str(value.trim()).ok()?))
    });
    parsed.ok_or_else(|| {
        let example = "'Range: bytes=0-99'";
        Failure::Misused(format!("{line:?} is no field; write one such as {example}"))
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Parsed {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn what_is_no_url_or_no_field_is_said_so() {
        for wrong in ["", "/film/1.m4s", "video.example.com/a", "https:///a", "not a url"] {
            let args = Parsed::parse_from(["explain", wrong]).args;
            assert!(matches!(run(&args), Err(Failure::Misused(_))), "{wrong}");
        }
        for wrong in ["", "Range", "Ra nge: a", ": a", "Range: a\nb"] {
            assert!(matches!(field(wrong), Err(Failure::Misused(_))), "{wrong}");
        }
        assert_eq!(field("Range:bytes=0-1").unwrap().1, "bytes=0-1");
    }
}
