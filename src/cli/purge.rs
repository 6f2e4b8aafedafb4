//! `tidegate purge`: has a running appliance purge objects, by URL, prefix, tag or site.
//!
//! Asks the admin listener of the configuration, with its token, once. What is named is judged by
//! the appliance, by the sites it runs with.

use std::path::PathBuf;

use http::header::AUTHORIZATION;
use http::{Request, StatusCode};
use serde_json::Value;

use super::admin::{ANSWER_WITHIN, Admins, ask_for, authority, refused, token_in};
use super::{Failure, USUAL_CONFIG};
use crate::config::units::counted;
use crate::control::purge::PURGED_WITHIN;
use crate::purge::request::PurgeRequest;

const EXAMPLES: &str = "\
Examples:
  tidegate purge https://video.example.com/film/a.m3u8
  tidegate purge --prefix https://video.example.com/film/ --soft
  tidegate purge --tag season-3 --tag trailers
  tidegate purge --tag season-3 --site film
  tidegate purge --site film --json
  tidegate purge --site film --admin http://edge-7.example.com:9180 --token-file purge-token
  curl -H \"Authorization: Bearer $(cat token)\" -d '{\"site\": \"film\"}' http://127.0.0.1:9180/purge

A prefix is compared with paths byte by byte: /film also begins /films, and a * is a letter. Tags
are those of Cache-Tag, Surrogate-Key and xkey. What is purged holds when the command ends, after a
crash too, and also for what is on its way from an origin, or on a volume that is away. How many
objects were held is told, if any; of a prefix, a tag or a site those that ram knows of.

Exit codes: 0 purged, 1 not purged, 64 misused";

/// Purge objects, by URL, prefix, tag or site
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Objects, with all their variants
    #[arg(value_name = "URL")]
    urls: Vec<String>,
    /// All objects whose URL begins so; may be repeated
    #[arg(long, value_name = "URL")]
    prefix: Vec<String>,
    /// All objects with this tag; may be repeated
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// All objects of this site; with --tag, those with a tag
    #[arg(long, value_name = "NAME")]
    site: Option<String>,
    /// Only make it stale: used again when its origin says so, and where its origin fails
    #[arg(long)]
    soft: bool,
    /// Print what the appliance says, as JSON
    #[arg(long)]
    json: bool,
    /// The configuration it runs with: its admin listener is asked, with its token
    #[arg(long, value_name = "FILE", default_value = USUAL_CONFIG)]
    config: PathBuf,
    /// Ask the admin listener at this URL instead, such as that of another machine
    #[arg(long, value_name = "URL", requires = "token_file")]
    admin: Option<String>,
    /// Show the token in this file, instead of the one that the configuration names
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// Has it purged; what is to be printed.
pub(super) fn run(args: &Args) -> Result<String, Failure> {
    let asked = PurgeRequest {
        urls: args.urls.clone(),
        prefixes: args.prefix.clone(),
        tags: args.tag.clone(),
        site: args.site.clone(),
        soft: args.soft,
    };
    if asked == (PurgeRequest { soft: args.soft, ..PurgeRequest::default() }) {
        let text = "nothing to purge; say a URL, --prefix, --tag or --site";
        return Err(Failure::Misused(text.to_owned()));
    }
    let Admins { addresses, token } = match &args.admin {
        Some(url) => Admins { addresses: vec![authority(url)?], token: None },
        None => Admins::of_config(&args.config)?,
    };
    let shown = args.token_file.as_deref().map(token_in).transpose()?;
    let token = shown.or(token).ok_or_else(|| {
        Failure::Misused(format!(
            "{}: no token to show; make one with `openssl rand -hex 32 > FILE`, write the path of \
             the file as `admin.token_file`, and reload",
            args.config.display()
        ))
    })?;
    let body = serde_json::to_vec(&asked).expect("texts and lists are JSON");
    let request = Request::post("/purge")
        .header(AUTHORIZATION, format!("Bearer {}", token.as_str()))
        .body(body.into())
        .expect("a token is printable");
    let answer = ask_for(&addresses, &request, PURGED_WITHIN + ANSWER_WITHIN)?;
    let said: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
    match answer.status {
        StatusCode::OK if said["number"].is_u64() => Ok(match args.json {
            true => format!("{said}\n"),
            false => told(&asked, &said),
        }),
        _ => Err(refused(&answer)),
    }
}

/// What was purged, in a line.
fn told(asked: &PurgeRequest, said: &Value) -> String {
    let sites = said["overflowed"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let sites = sites.collect::<Vec<_>>().join(", ");
    let overflowed = match sites.is_empty() {
        true => String::new(),
        false => format!(
            "; more was purged than is remembered, and so all of site {sites} is asked about"
        ),
    };
    let hint = said["hint"].as_str().map(|hint| format!("{hint}\n")).unwrap_or_default();
    format!("purged {asked}{}{overflowed}\n{hint}", held(said))
}

/// What of it was held; an older appliance does not say.
fn held(said: &Value) -> String {
    let Some(found) = said["found"].as_u64() else { return String::new() };
    let (objects, were) = (counted(found, "object"), if found == 1 { "was" } else { "were" });
    match (found, said["found_all"] == true) {
        (0, true) => ": nothing of it was held".to_owned(),
        (0, false) => {
            ": nothing of it was found in ram; what volumes hold is purged too".to_owned()
        }
        (_, true) => format!(": {objects} {were} held"),
        (_, false) => format!(": {objects} {were} found in ram; what else is held is purged too"),
    }
}
