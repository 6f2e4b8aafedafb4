//! `tidegate token`: mints, verifies and explains viewers' tokens by a key file. Asks nobody.
//!
//! Which of the two kinds a token is, its form tells.

mod cat;
mod url;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Subcommand;
use serde_json::{Map, Value, json};

use self::url::{CAT_PARAMETER, PARAMETER, Place, Shown, Url};
use super::{Failure, duration, keys};
use crate::access_log::RequestId;
use crate::moment::since_1970;
use crate::token::cat::is_one;
use crate::token::key::Key;
use crate::token::key_file::Keys;
use crate::token::uri_signing::{Asked, Denied, Matching, Settings, Verified, mint, unverified};

const EXAMPLES: &str = "\
Examples:
  tidegate token mint --keys keys.json --issuer 'Film Co' https://v.example.com/film/a.m3u8
  tidegate token verify --keys keys.json 'https://v.example.com/film/a.m3u8?URISigningPackage=..'
  tidegate token explain 'https://v.example.com/film/a.m3u8?URISigningPackage=..'
  tidegate token mint --cat --keys keys.json --issuer Co https://v.example.com/film/a.m3u8

Tokens are those of URI signing (RFC 9246), and Common Access Tokens (CTA-5007).

Exit codes: 0 done, or it lets in; 1 it does not; 64 misused, or a fault in the key file";

/// Mint, verify and explain the tokens that let viewers in
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Mint(MintArgs),
    Verify(VerifyArgs),
    Explain(ExplainArgs),
}

const MINT_EXAMPLES: &str = "\
Examples:
  tidegate token mint --keys keys.json --issuer 'Film Co' https://v.example.com/film/a.m3u8
  tidegate token mint --keys keys.json --issuer Co --pattern 'https://v\\.test/.*' https://v.test/a
  tidegate token mint --keys keys.json --issuer Co --valid 30s --renew 30s https://v.test/a.m3u8
  tidegate token mint --keys keys.json --issuer Co --once --json https://v.test/film/a.m3u8
  tidegate token mint --cat --keys keys.json --issuer Co --renew 5m https://v.test/film/a.m3u8
  tidegate token mint --cat --keys k.json --issuer Co --claims '{\"catv\":1}' https://v.test/a

Prints the URL with the token in its query. With --pattern the token is for all URLs that the
expression matches whole (POSIX extended), else for this one alone. With --renew each answer brings
a token for so long again, in a cookie for the first --depth segments of the path. With --cat it is
a Common Access Token: --claims says more, or otherwise, with the names of CTA-5007, and --renew
renews it when half of that time is left.

Exit codes: 0 minted, 1 not minted, 64 misused, or a fault in the key file";

/// Mint a token for a URL, and print that URL with it
#[derive(Debug, clap::Args)]
#[command(after_help = MINT_EXAMPLES)]
struct MintArgs {
    /// The URL
    url: String,
    /// The key file
    #[arg(long, value_name = "FILE")]
    keys: PathBuf,
    /// Who issues it: signed with the key that this issuer signs with
    #[arg(long, value_name = "NAME")]
    issuer: String,
    /// How long it lets in from now on
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    valid: Duration,
    /// The URLs it is for; left out: this one
    #[arg(long, value_name = "EXPRESSION", conflicts_with = "cat")]
    pattern: Option<String>,
    /// Who is to take it, as `aud`
    #[arg(long, value_name = "NAME")]
    audience: Option<String>,
    /// It is to be used once for each URL
    #[arg(long)]
    once: bool,
    /// Each use renews it for so long
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    renew: Option<Duration>,
    /// For so many segments of the path the renewed one is; 0: for all paths
    #[arg(long, value_name = "N", default_value_t = 0, requires = "renew", conflicts_with = "cat")]
    depth: u64,
    /// Make a Common Access Token
    #[arg(long)]
    cat: bool,
    /// What else it is to say, or otherwise: claims by their names, as JSON
    #[arg(long, value_name = "JSON", requires = "cat")]
    claims: Option<String>,
    #[command(flatten)]
    place: Place,
    /// Print token, claims and URL as JSON
    #[arg(long)]
    json: bool,
}

const VERIFY_EXAMPLES: &str = "\
Examples:
  tidegate token verify --keys keys.json 'https://v.example.com/film/a.m3u8?URISigningPackage=..'
  tidegate token verify --keys keys.json --client 192.0.2.7 'https://v.test/a?URISigningPackage=..'
  tidegate token verify --keys keys.json --json --at 1798761600 'https://v.test/a?token=..'
  tidegate token verify --keys keys.json --method HEAD --country SE 'https://v.test/a?cat=..'
  tidegate token verify --keys keys.json --token 2D3R.. https://v.test/film/a.m3u8

A token that may be used once is told to let in: whether it was used, only the appliance knows.

Exit codes: 0 it lets in, 1 it does not, 64 misused, or a fault in the key file";

/// Say whether a URL's token lets in who asks for it
#[derive(Debug, clap::Args)]
#[command(after_help = VERIFY_EXAMPLES)]
struct VerifyArgs {
    /// The URL with its token
    url: String,
    /// The key file
    #[arg(long, value_name = "FILE")]
    keys: PathBuf,
    /// Who asks
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    client: IpAddr,
    /// When, in seconds of Unix time; left out: now
    #[arg(long, value_name = "SECONDS")]
    at: Option<u64>,
    /// Who we are, as `aud` has to name us; left out: the key file's `id`
    #[arg(long, value_name = "NAME")]
    audience: Option<String>,
    #[command(flatten)]
    request: cat::Request,
    #[command(flatten)]
    shown: Shown,
}

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  tidegate token explain 'https://v.example.com/film/a.m3u8?URISigningPackage=..'
  tidegate token explain --json 'https://v.example.com/film/a.m3u8?URISigningPackage=..'

Nothing is verified: `verify` does that, by a key file.

Exit codes: 0 shown, 1 there is no token that can be read, 64 misused";

/// Show what a URL's token says, whoever signed it
#[derive(Debug, clap::Args)]
#[command(after_help = EXPLAIN_EXAMPLES)]
struct ExplainArgs {
    /// The URL with its token
    url: String,
    #[command(flatten)]
    shown: Shown,
}

/// Does what is asked for; what is to be printed.
pub(super) fn run(args: &Args) -> Result<String, Failure> {
    match &args.command {
        Command::Mint(args) => minted(args),
        Command::Verify(args) => verified(args),
        Command::Explain(args) => explained(args),
    }
}

fn minted(args: &MintArgs) -> Result<String, Failure> {
    let keys = keys_of(&args.keys)?;
    let key = keys.renewal(&args.issuer).ok_or_else(|| {
        let (file, issuer) = (args.keys.display(), &args.issuer);
        let to_do = "`tidegate keys new` or `rotate` makes one";
        Failure::Misused(format!("{file} has no key that {issuer:?} signs with: {to_do}"))
    })?;
    let asked = Url::parse(&args.url, &args.place)?;
    let usual = if args.cat { CAT_PARAMETER } else { PARAMETER };
    let parameter = args.place.parameter.as_deref().unwrap_or(usual);
    if asked.token.is_some() {
        return Err(Failure::Misused(format!("{} has a token already", args.url)));
    }
    let now = now();
    let (token, claims) = match args.cat {
        true => cat::minted(args, &asked, &keys, key, now)?,
        false => signed(args, &asked, &keys, key, now)?,
    };
    let join = if args.url.contains('?') { '&' } else { '?' };
    let url = format!("{}{join}{parameter}={token}", args.url);
    Ok(match args.json {
        true => format!("{:#}\n", json!({ "token": token, "claims": claims, "url": url })),
        false => format!("{url}\n"),
    })
}

/// A token of URI signing, and what it says.
fn signed(
    args: &MintArgs,
    asked: &Url,
    keys: &Keys,
    key: &Key,
    now: u64,
) -> Result<(String, Map<String, Value>), Failure> {
    let mut claims = Map::new();
    let mut claim = |name: &str, value: Value| claims.insert(name.to_owned(), value);
    claim("iss", key.issuer().into());
    claim("iat", now.into());
    claim("exp", (now + args.valid.as_secs()).into());
    claim(
        "cdniuc",
        match &args.pattern {
            Some(pattern) => format!("regex:{pattern}").into(),
            None => asked.container().into(),
        },
    );
    if let Some(audience) = &args.audience {
        claim("aud", audience.as_str().into());
    }
    if args.once {
        claim("jti", RequestId::assign().to_string().into());
    }
    if let Some(renew) = args.renew {
        claim("cdniets", renew.as_secs().into());
        claim("cdnistt", 1.into());
        claim("cdnistd", args.depth.into());
    }
    let unable = || Failure::Failed("the key does not sign".to_owned());
    let token = mint(&claims, key).ok_or_else(unable)?;
    // A pattern that does not match its own URL is a mistake more often than not.
    let verified = Verified::of(&token, keys, &settings(args.audience.clone()));
    let admits = verified.and_then(|one| one.admits(&asked.asked(now), |_| true).map(drop));
    match admits {
        Ok(()) => Ok((token, claims)),
        Err(denied) => {
            Err(Failure::Misused(format!("it would not let in to {}: {denied}", args.url)))
        }
    }
}

fn verified(args: &VerifyArgs) -> Result<String, Failure> {
    let keys = keys_of(&args.keys)?;
    let url = Url::with_token(&args.url, &args.shown)?;
    let now = args.at.unwrap_or_else(now);
    if url.token.as_deref().is_some_and(is_one) {
        let (told, line) = cat::verified(args, &url, &keys, now)?;
        return verdict(&told, line, args.shown.json);
    }
    let asked = Asked { client: args.client, ..url.asked(now) };
    let judged = url.token.as_deref().ok_or(Denied::Malformed).and_then(|token| {
        let verified = Verified::of(token, &keys, &settings(args.audience.clone()))?;
        let renewal = verified.admits(&asked, |_| true)?.copied();
        Ok((verified, renewal))
    });
    let told = match &judged {
        Ok((verified, renewal)) => json!({
            "lets_in": true, "code": 200, "issuer": verified.issuer(),
            "claims": verified.claims(), "renews_for_seconds": renewal.map(|it| it.seconds),
        }),
        Err(denied) => {
            json!({ "lets_in": false, "code": denied.code(), "reason": denied.reason() })
        }
    };
    let line = match judged {
        Ok((verified, _)) => Ok(format!("it lets in: signed by {:?}\n", verified.issuer())),
        Err(denied) => Err(format!("it does not let in: {denied}")),
    };
    verdict(&told, line, args.shown.json)
}

/// A verdict as JSON or in a line, with the exit code that goes with it.
fn verdict(told: &Value, line: Result<String, String>, as_json: bool) -> Result<String, Failure> {
    match (line, as_json) {
        (Ok(_), true) => Ok(format!("{told:#}\n")),
        (Err(_), true) => {
            super::print(&format!("{told:#}\n"))?;
            Err(Failure::Failed(String::new()))
        }
        (line, false) => line.map_err(Failure::Failed),
    }
}

fn explained(args: &ExplainArgs) -> Result<String, Failure> {
    let url = Url::with_token(&args.url, &args.shown)?;
    let none = || Failure::Failed(format!("there is no token that can be read in {}", args.url));
    let is_cat = url.token.as_deref().is_some_and(is_one);
    let parts = url.token.as_deref().and_then(|token| match is_cat {
        true => crate::token::cat::unverified(token).ok(),
        false => unverified(token).ok(),
    });
    let [header, claims] = parts.ok_or_else(none)?;
    if args.shown.json {
        let text = format!("{:#}\n", json!({ "header": header, "claims": claims }));
        // JSON escapes the others itself; whoever wrote it may mean the terminal.
        return Ok(text.chars().fold(String::new(), |mut told, char| {
            match char.is_control() && char > '\u{1f}' {
                true => told.push_str(&format!("\\u{:04x}", u32::from(char))),
                false => told.push(char),
            }
            told
        }));
    }
    let mut text = format!("not verified; it is for {}\n", url.uri);
    for (part, all) in [("header", &header), ("claims", &claims)] {
        text.push_str(&format!("{part}\n"));
        for (name, value) in all {
            let words = match cat::meaning(name) {
                words if is_cat && !words.is_empty() => words,
                _ => meaning(name, value),
            };
            let line = format!("  {name:<10} {value}{words}");
            // Whoever wrote it may mean the terminal.
            let harmless = |char: char| if char.is_control() { '\u{fffd}' } else { char };
            text.extend(line.chars().map(harmless).chain(['\n']));
        }
    }
    Ok(text)
}

/// What a claim of RFC 9246 means, in a few words.
fn meaning(name: &str, value: &Value) -> String {
    let time = || {
        let time = time::OffsetDateTime::from_unix_timestamp(value.as_f64()? as i64).ok()?;
        time.format(&time::format_description::well_known::Rfc3339).ok()
    };
    let words = match (name, time()) {
        ("exp", Some(time)) => format!("lets in until {time}"),
        ("nbf", Some(time)) => format!("lets in from {time} on"),
        ("iat", Some(time)) => format!("issued at {time}"),
        ("iss", _) => "who issued it".to_owned(),
        ("aud", _) => "who is to take it".to_owned(),
        ("sub" | "cdniip", _) => "sealed".to_owned(),
        ("jti", _) => "may be used once for each URI".to_owned(),
        ("cdniuc", _) => "the URIs it is for".to_owned(),
        ("cdniets", _) => "each use renews it for so many seconds".to_owned(),
        ("cdnistt", _) => "how it is renewed: 1 by a cookie, 2 in the query".to_owned(),
        ("cdnistd", _) => "for so many segments of the path".to_owned(),
        _ => return String::new(),
    };
    format!("  # {words}")
}

fn keys_of(file: &Path) -> Result<Keys, Failure> {
    let fault = |error| Failure::Misused(format!("{}: {error}", file.display()));
    keys::read(file)?.keys(Matching::Full).map_err(fault)
}

fn settings(audience: Option<String>) -> Settings {
    Settings { audience, ..Settings::default() }
}

fn now() -> u64 {
    since_1970(SystemTime::now()).as_secs()
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
    use clap::Parser as _;

    use super::*;
    use crate::token::jwk::Jwk;
    use crate::token::key::Algorithm;
    use crate::token::key_file::{IssuerFile, KeyFile};

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    pub(super) fn typed(words: &[&str]) -> Result<String, Failure> {
        run(&Line::parse_from(["token"].iter().chain(words)).args)
    }

    /// A key file of the issuer `a`, in a folder that is there as long as it is held.
    pub(super) fn key_file() -> (tempfile::TempDir, String) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys.json");
        let (mut keys, mut issuer) = (KeyFile::default(), IssuerFile::default());
        issuer.keys.push(Jwk::generate(Algorithm::EdDsa, "k").unwrap());
        issuer.renewal_kid = Some("k".to_owned());
        keys.issuers.insert("a".to_owned(), issuer);
        std::fs::write(&file, serde_json::to_vec(&keys).unwrap()).unwrap();
        let file = file.to_str().unwrap().to_owned();
        (folder, file)
    }

    #[test]
    fn what_is_minted_lets_in_where_it_is_for_and_is_explained() {
        let (_folder, file) = key_file();
        let mint = ["mint", "--keys", &file, "--issuer", "a"];
        let url = "https://v.test/film/a.m3u8?x=1";
        let minted = |more: &[&str]| typed(&[&mint[..], more].concat());
        let verify = |url: &str, more: &[&str]| {
            typed(&[&["verify", "--keys", &file, url][..], more].concat())
        };

        let signed = minted(&[url]).unwrap();
        let signed = signed.trim();
        assert!(signed.starts_with(&format!("{url}&URISigningPackage=ey")), "{signed}");
        assert_eq!(verify(signed, &[]).unwrap(), "it lets in: signed by \"a\"\n");
        let (rest, end) = signed.split_at(signed.len() - 10);
        let forged = [rest, if end.starts_with('A') { "B" } else { "A" }, &end[1..]].concat();
        for (url, more, code) in [
            (signed.replace("film", "other"), &[][..], "411"),
            (signed.to_owned(), &["--at", "99999999999"], "404"),
            (url.to_owned(), &[], "500"),
            (forged, &[], "400"),
        ] {
            let refused = verify(&url, more).unwrap_err().to_string();
            assert!(refused.starts_with(&format!("it does not let in: {code}: ")), "{refused}");
        }
        let explained = typed(&["explain", signed]).unwrap();
        for words in ["  alg        \"EdDSA\"", "# lets in until 20", "# who issued it"] {
            assert!(explained.contains(words), "{explained}");
        }

        let harm = BASE64.encode("{\"a\":\"\u{9b}2J\u{7f}\\u001b\"}");
        let harm = format!("{url}&URISigningPackage={harm}.{harm}.x");
        let told = typed(&["explain", "--json", &harm]).unwrap();
        assert!(told.contains(r#""a": "\u009b2J\u007f\u001b""#), "{told}");
        assert!(serde_json::from_str::<Value>(&told).is_ok());

        let pattern = ["--pattern", "https://v\\.test/film/[^?]*\\?x=1", "--renew", "30s", url];
        let signed = minted(&pattern).unwrap();
        let told = verify(signed.trim(), &["--json"]).unwrap();
        let told: Value = serde_json::from_str(&told).unwrap();
        assert_eq!((&told["code"], &told["renews_for_seconds"]), (&200.into(), &30.0.into()));
        let refused = minted(&["--pattern", "/film/.*", url]).unwrap_err().to_string();
        assert!(refused.contains("would not let in"), "{refused}");
        let refused = minted(&[signed.trim()]).unwrap_err().to_string();
        assert!(refused.contains("has a token already"), "{refused}");
    }
}
