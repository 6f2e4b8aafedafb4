//! `tidegate steer`: where a viewer is sent, and why.
//!
//! Decides here, by the configuration and its files of routes, as the appliance of it would: by the
//! appliances that are written there, all of which count as well. Asks nobody.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::SystemTime;

use clap::Subcommand;
use serde_json::{Value, json};

use super::routes::{read, shown};
use super::{Failure, USUAL_CONFIG};
use crate::config::{self, Config};
use crate::control::registry::appliance::Pathway;
use crate::control::registry::fleet::{Fleet, Member};
use crate::control::routes::Explained;
use crate::control::steering::{Answer, Asked, Ranked, Steering};
use crate::message::target::normalised_path;
use crate::moment::unix_seconds;

const EXAMPLES: &str = "\
Examples:
  tidegate steer explain --viewer 192.0.2.7 --path /film/1.m4s
  tidegate steer explain --viewer 2001:db8::7 --path /film/1.m4s --site film --json
  curl http://steer.example.com/steer/v1/rank/film/film/1.m4s

Exit codes: 0 shown, 1 nobody is left or a file cannot be used, 64 misused";

/// Say where viewers are sent, and why
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Explain(ExplainArgs),
}

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  tidegate steer explain --viewer 192.0.2.7 --path /film/1.m4s
  tidegate steer explain --viewer 192.0.2.7 --path /film/1.m4s --plays-from fra-1
  tidegate steer explain --viewer 192.0.2.7 --path /film/1.m4s --config tidegate.toml --json

Each appliance is told with what moved it up or down, or left it out: the best first. Those of the
configuration count as well and ready; a running appliance that hears of them knows more.

Exit codes: 0 shown, 1 nobody is left or a file cannot be used, 64 misused";

/// Explain where one viewer is sent for one object
#[derive(Debug, clap::Args)]
#[command(after_help = EXPLAIN_EXAMPLES)]
struct ExplainArgs {
    /// The viewer's address
    #[arg(long, value_name = "IP")]
    viewer: IpAddr,
    /// The object's path
    #[arg(long, value_name = "PATH")]
    path: String,
    /// The site's name; may be left out where there is one
    #[arg(long, value_name = "NAME")]
    site: Option<String>,
    /// The playback's name; left out: as for one who is to be sent on, his address
    #[arg(long, value_name = "SID")]
    session: Option<String>,
    /// The pathway he plays from by now
    #[arg(long, value_name = "PATHWAY", value_parser = pathway)]
    plays_from: Option<Pathway>,
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = USUAL_CONFIG)]
    config: PathBuf,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

fn pathway(text: &str) -> Result<Pathway, String> {
    Pathway::new(text).ok_or_else(|| "write 1 to 64 of A-Z, a-z, 0-9, `.`, `_` and `-`".to_owned())
}

/// Does what was asked for.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let Command::Explain(args) = &args.command;
    let config = config::load(&args.config).map_err(|it| Failure::Misused(it.to_string()))?;
    let site = site(args.site.as_deref(), &config)?;
    let path = normalised_path(&args.path).ok_or_else(|| {
        Failure::Misused(format!("{:?} is no path; write one such as /film/1.m4s", args.path))
    })?;
    let (routes, outcome) = read(&config.routes.plan);
    let (table, fleet) = (routes.table(), Fleet::from(config.steering.appliances.clone()));
    let session = args.session.clone().unwrap_or_else(|| args.viewer.to_string());
    let steering = Steering {
        fleet: &fleet,
        routes: &*table,
        holds: &|_: &Member| None,
        spread: config.steering.settings.spread,
    };
    let answer = steering.explained(&Asked {
        viewer: args.viewer,
        session: &session,
        site,
        path: &path,
        plays_from: args.plays_from.as_ref(),
        among: None,
        now_seconds: unix_seconds(SystemTime::now()),
    });
    let explained = Explained::of(&table, args.viewer);
    let notice = config.control.is_some().then_some(OF_A_FLEET);
    let text = match args.json {
        true => {
            let mut told = as_json(&answer, &explained, site, &path);
            told["notice"] = notice.into();
            format!("{told:#}\n")
        }
        false => {
            let notice = notice.map(|notice| format!("\nnotice: {notice}\n"));
            in_words(&answer, &explained, site, &path) + &notice.unwrap_or_default()
        }
    };
    shown(&text, &outcome)?;
    match answer.ranked.is_empty() {
        true => Err(Failure::Failed("no appliance is there that this viewer reaches".to_owned())),
        false => Ok(()),
    }
}

/// Where a control plane is beside it.
const OF_A_FLEET: &str = "`control` is written, so viewers are sent to the boxes that are enrolled \
    there and not to `steering.appliances`; ask the running appliance: /steer/v1/rank/SITE/PATH";

/// The one that is named, or the only one.
fn site<'a>(named: Option<&str>, config: &'a Config) -> Result<&'a str, Failure> {
    let names: Vec<&str> = config.sites.iter().map(|site| site.name.as_str()).collect();
    let found = match (named, &*names) {
        (Some(named), names) => names.iter().find(|name| **name == named).copied(),
        (None, [only]) => Some(*only),
        (None, _) => None,
    };
    let all = names.join(", ");
    found.ok_or_else(|| Failure::Misused(format!("name one of the sites with --site: {all}")))
}

fn as_json(answer: &Answer<'_>, explained: &Explained, site: &str, path: &str) -> Value {
    json!({
        "viewer": explained.viewer,
        "country": explained.country,
        "as_number": explained.as_number,
        "site": site,
        "path": path,
        "answer": answer,
        "matches": explained.matches,
    })
}

fn in_words(answer: &Answer<'_>, explained: &Explained, site: &str, path: &str) -> String {
    let Explained { viewer, country, as_number, matches, .. } = explained;
    let mut text = format!("viewer       {viewer}");
    country.iter().for_each(|country| text.push_str(&format!(", in {country}")));
    as_number.iter().for_each(|number| text.push_str(&format!(", of AS{number}")));
    let held: Vec<String> = matches.iter().map(|one| one.viewers.to_string()).collect();
    let held = if held.is_empty() { "nothing".to_owned() } else { held.join(", ") };
    let _ = write!(text, "\nannounced    {held}\nasks for     {path} of {site}\n");
    if answer.last_resort {
        text.push_str("last resort  nobody he could be sent to is well\n");
    }
    if answer.unsettled {
        text.push_str("unsettled    one that he could be sent to leaves or seems ill\n");
    }
    for (rank, one) in answer.ranked.iter().enumerate() {
        appliance(&mut text, &format!("{}", rank + 1), one);
    }
    for one in &answer.left_out {
        appliance(&mut text, "out", one);
    }
    text
}

fn appliance(text: &mut String, rank: &str, one: &Ranked<'_>) {
    let pathway = match one.pathway.as_str() == one.appliance {
        true => String::new(),
        false => format!(", pathway {}", one.pathway),
    };
    let _ = writeln!(text, "\n{rank:<4} {}  at {}{pathway}", one.appliance, one.host);
    for rule in &one.reasons {
        let _ = writeln!(text, "     {:<6} {}", rule.moved, rule.reason);
    }
}
