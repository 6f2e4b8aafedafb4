//! `tidegate routes`: which networks of viewers which appliances are for, as the files say.
//!
//! Reads the files that the configuration names, as a running appliance does, and asks nobody.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::Subcommand;
use serde_json::{Value, json};

use super::{Failure, USUAL_CONFIG, print};
use crate::config::{self, paths};
use crate::control::routes::{
    BoxForHim, Difference, Explained, Outcome, Plan, Route, RouteFile, Routes, Table, Viewers, Way,
};
use crate::limits::ROUTE_CHANGES_TOLD_MAX;

const EXAMPLES: &str = "\
Examples:
  tidegate routes show --config /etc/tidegate/tidegate.toml
  tidegate routes explain 192.0.2.7
  tidegate routes diff /etc/tidegate/fra.prefixes fra.new

Asks no appliance: the files are read here, judged by the same rules. What of them a running one
uses may be older, where a file is wrong by now: see its log and `tidegate_route_files`.

Exit codes: 0 shown, 1 a file cannot be used, 64 misused, or a fault in the configuration";

/// Show, explain and compare which viewers appliances are for
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Show(ShowArgs),
    Explain(ExplainArgs),
    Diff(DiffArgs),
}

const SHOW_EXAMPLES: &str = "\
Examples:
  tidegate routes show
  tidegate routes show --box fra-1 --all
  tidegate routes show --json | jq '.routes | length'

Of many routes the first thousand are shown, and all are counted; --all shows all of them.

Exit codes: 0 shown, 1 a file cannot be used, 64 misused, or a fault in the configuration";

/// Show the routes that the files tell
#[derive(Debug, clap::Args)]
#[command(after_help = SHOW_EXAMPLES)]
struct ShowArgs {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = USUAL_CONFIG)]
    config: PathBuf,
    /// Only what this appliance announces
    #[arg(long = "box", value_name = "NAME")]
    of_box: Option<String>,
    /// All of them
    #[arg(long)]
    all: bool,
    /// Print them as JSON
    #[arg(long)]
    json: bool,
}

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  tidegate routes explain 192.0.2.7
  tidegate routes explain 2001:db8::7 --config tidegate.toml --json

What holds the viewer is told, the most special first, and which boxes are for him by it. To whom
he is sent in the end depends on more: see `tidegate steer explain`.

Exit codes: 0 shown, 1 a file cannot be used, 64 misused, or a fault in the configuration";

/// Explain what routes say of one viewer
#[derive(Debug, clap::Args)]
#[command(after_help = EXPLAIN_EXAMPLES)]
struct ExplainArgs {
    /// The viewer's address
    #[arg(value_name = "IP")]
    viewer: IpAddr,
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = USUAL_CONFIG)]
    config: PathBuf,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

const DIFF_EXAMPLES: &str = "\
Examples:
  tidegate routes diff /etc/tidegate/fra.prefixes fra.new
  tidegate routes diff fra.mrt fra.mrt.new --config tidegate.toml --json

What would change if the second file took the place of the first, which the configuration names.
A file that would be refused is said so: look before you move it.

Exit codes: 0 shown, 1 a file cannot be used, 64 misused, or a fault in the configuration";

/// Tell what another file would change in the place of one that the configuration names
#[derive(Debug, clap::Args)]
#[command(after_help = DIFF_EXAMPLES)]
struct DiffArgs {
    /// A file of `routes.files`
    file: PathBuf,
    /// What would take its place
    new: PathBuf,
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = USUAL_CONFIG)]
    config: PathBuf,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

/// Does what was asked for.
pub(super) fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        Command::Show(args) => show(args),
        Command::Explain(args) => explain(args),
        Command::Diff(args) => diff(args),
    }
}

/// The routes that a configuration's files tell, and what came of reading them.
pub(super) fn read(plan: &Plan) -> (Routes, Outcome) {
    let routes = Routes::default();
    let outcome = routes.reread(plan, SystemTime::now());
    (routes, outcome)
}

fn plan(config: &Path) -> Result<Plan, Failure> {
    let config = config::load(config).map_err(|faults| Failure::Misused(faults.to_string()))?;
    Ok(config.routes.plan)
}

/// Prints it, and fails where a file could not be used.
pub(super) fn shown(text: &str, outcome: &Outcome) -> Result<(), Failure> {
    print(text)?;
    match &*outcome.refused {
        [] => Ok(()),
        refused => {
            let lines: Vec<String> = refused.iter().map(ToString::to_string).collect();
            Err(Failure::Failed(lines.join("\n")))
        }
    }
}

fn show(args: &ShowArgs) -> Result<(), Failure> {
    let (routes, outcome) = read(&plan(&args.config)?);
    let table = routes.table();
    let is_its = |route: &Route| match &args.of_box {
        Some(name) => route.boxes.contains(name),
        None => true,
    };
    let all = table.routes().filter_map(|(viewers, mut routes)| {
        routes.retain(is_its);
        (!routes.is_empty()).then_some((viewers, routes))
    });
    let most = if args.all { usize::MAX } else { ROUTE_CHANGES_TOLD_MAX };
    let (mut told, mut count) = (Vec::new(), 0_usize);
    for one in all {
        count += 1;
        if told.len() < most {
            told.push(one);
        }
    }
    let text = match args.json {
        true => {
            let routes = told
                .iter()
                .map(|(viewers, routes)| json!({ "viewers": viewers, "routes": routes }));
            let value = json!({
                "count": count,
                "routes": routes.collect::<Vec<_>>(),
                "notices": notices(&outcome),
            });
            format!("{value:#}\n")
        }
        false => as_table(&told, count, &table, &outcome),
    };
    shown(&text, &outcome)
}

fn notices(outcome: &Outcome) -> Vec<String> {
    let uneven = outcome.uneven.iter().map(ToString::to_string);
    outcome.notices.iter().cloned().chain(uneven).collect()
}

fn as_table(
    told: &[(Viewers, Vec<Route>)],
    count: usize,
    table: &Table,
    outcome: &Outcome,
) -> String {
    let mut text = String::new();
    if !told.is_empty() {
        line(&mut text, ["VIEWERS", "AS PATH", "ORIGIN", "MED", "BOXES", "FILE"]);
    }
    for (viewers, routes) in told {
        let mut whom = viewers.to_string();
        for Route { boxes, way, source } in routes {
            let Way { as_path, origin, med } = way;
            let [as_path, origin, med] = [as_path.to_string(), origin.to_string(), med.to_string()];
            line(&mut text, [&whom, &as_path, &origin, &med, &boxes.join(" "), source]);
            whom.clear();
        }
    }
    let mib = table.bytes() as f64 / f64::from(1 << 20);
    let shown =
        if told.len() < count { format!("{} shown of ", told.len()) } else { String::new() };
    let _ = writeln!(
        text,
        "{shown}{count} prefixes, ASes and countries, of {} files; {mib:.1} MiB",
        outcome.read
    );
    notices(outcome).iter().for_each(|notice| text.extend(["notice: ", notice, "\n"]));
    text
}

fn line(text: &mut String, [viewers, as_path, origin, med, boxes, file]: [&str; 6]) {
    let columns = format!("{viewers:<24} {as_path:<8} {origin:<11} {med:<6} {boxes:<24} {file}");
    text.extend([columns.trim_end(), "\n"]);
}

fn explain(args: &ExplainArgs) -> Result<(), Failure> {
    let (routes, outcome) = read(&plan(&args.config)?);
    let explained = Explained::of(&routes.table(), args.viewer);
    let text = match args.json {
        true => format!("{:#}\n", as_json(&explained)),
        false => in_words(&explained),
    };
    shown(&text, &outcome)
}

fn as_json(explained: &Explained) -> Value {
    serde_json::to_value(explained).expect("it is made of texts, numbers and lists")
}

fn in_words(explained: &Explained) -> String {
    let Explained { viewer, country, as_number, matches, boxes } = explained;
    let country = country.map(|country| format!(", in {country}"));
    let as_number = as_number.map(|number| format!(", of AS{number}"));
    let (country, as_number) = (country.unwrap_or_default(), as_number.unwrap_or_default());
    let mut text = format!("viewer {viewer}{country}{as_number}\n");
    if matches.is_empty() {
        text.push_str("nothing that was announced holds him: he is for whoever is for everybody\n");
    }
    for one in matches {
        let _ = writeln!(text, "\n{}", one.viewers);
        let for_him = |named: &&BoxForHim| named.viewers == one.viewers;
        for Route { boxes: announcing, way, source } in &one.routes {
            let (named, Way { as_path, origin, med }) = (announcing.join(" "), way);
            let _ = writeln!(
                text,
                "  {named}: AS path {as_path}, origin {origin}, MED {med}, by {source}"
            );
        }
        let names: Vec<&str> = boxes.iter().filter(for_him).map(|one| &*one.name).collect();
        if !names.is_empty() {
            let _ = writeln!(text, "  counts for {}", names.join(" "));
        }
    }
    text
}

fn diff(args: &DiffArgs) -> Result<(), Failure> {
    let plan = plan(&args.config)?;
    let wanted = paths::absolute(&args.file);
    let found = plan.files.iter().find(|file| paths::absolute(&file.path) == wanted);
    let file = found.ok_or_else(|| {
        let names = plan.files.iter().map(|file| file.path.display().to_string());
        let names = names.collect::<Vec<_>>().join(", ");
        let wanted = args.file.display();
        Failure::Misused(format!("{wanted} is no file of `routes.files`, which has: {names}"))
    })?;
    let new = RouteFile { path: args.new.clone(), format: file.format.clone() };
    // By one name: a route that another file tells is another one.
    let table = |one: &RouteFile| {
        let read = Routes::read_alone(one, &file.path.display().to_string(), plan.guards);
        read.map_err(|error| Failure::Failed(format!("\"{}\": {error}", one.path.display())))
    };
    let ((before, _), (after, notices)) = (table(file)?, table(&new)?);
    let difference = Difference::between(&before, &after);
    print(&match args.json {
        true => format!("{:#}\n", json!({ "difference": difference, "notices": notices })),
        false => difference_in_words(&difference, &notices),
    })
}

fn difference_in_words(difference: &Difference, notices: &[String]) -> String {
    let Difference { came, gone, changed, changes } = difference;
    let mut text = String::new();
    for change in changes {
        for (sign, routes) in [("-", &change.before), ("+", &change.after)] {
            for Route { boxes, way, .. } in routes {
                let (boxes, viewers) = (boxes.join(" "), change.viewers);
                let _ = writeln!(
                    text,
                    "{sign} {viewers} {boxes} as-path={} med={}",
                    way.as_path, way.med
                );
            }
        }
    }
    let told = changes.len() as u64;
    let all = came + gone + changed;
    let shown = if told < all { format!("{told} shown; ") } else { String::new() };
    let _ = writeln!(text, "{shown}{came} would come, {gone} go, {changed} change");
    notices.iter().for_each(|notice| text.extend(["notice: ", notice, "\n"]));
    text
}
