//! `tidegate check`: what is wrong with a configuration, or what it means.
//!
//! It starts nothing and listens nowhere. Of the volumes it reads what says that they are volumes,
//! and tells which ones a start would leave out, or have failed before. With `--request` it says
//! what one request would get, by the code that serves.

use std::path::PathBuf;
use std::time::SystemTime;

use http::request::Parts;
use http::{Request, Version};
use serde_json::{Value, json};

use crate::appliance::{LeftOut, look_at_failed, look_at_shipping, look_at_volumes};
use crate::config::{self, Certificate, Config, ConfigError};
use crate::message::request::ObjectRequest;
use crate::site::{Rule, Site};

use super::Failure;

mod as_json;
mod as_text;
mod control;
mod fleet;
mod steering;

const EXAMPLES: &str = "\
Examples:
  tidegate check tidegate.toml
  tidegate check tidegate.toml --without-ports          while the appliance is running
  tidegate check tidegate.toml --json | jq .memory
  tidegate check tidegate.toml --request 'GET https://video.example.com/film/a.m3u8'

Each fault is one line, FILE:LINE:COLUMN: what is wrong and what would be right; exit code 64.
A volume that would be left out is a warning; exit code 0. So is a certificate that viewers refuse;
a reload that adds one is refused.

Exit codes: 0 it would be served by, 1 --request would be refused, 64 a fault in it, or misused";

/// Check a configuration and print what it means
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The configuration, TOML
    file: PathBuf,
    /// Print JSON: sizes in bytes, durations in milliseconds
    #[arg(long)]
    json: bool,
    /// Do not try whether the ports are free (the appliance of this file is running)
    #[arg(long)]
    without_ports: bool,
    /// Print what this request would get instead: 'GET https://host/path?query'
    #[arg(long, value_name = "REQUEST")]
    request: Option<String>,
}

/// Checks the file; what is to be printed.
pub(super) fn run(args: &Args) -> Result<String, Failure> {
    let misused = |errors: config::ConfigErrors| Failure::Misused(errors.to_string());
    if args.request.is_none() && config::is_control_alone(&args.file) {
        let file = config::load_control(&args.file).map_err(misused)?;
        return Ok(match args.json {
            true => line(&control::alone_as_json(&file)),
            false => control::alone(&args.file.to_string_lossy(), &file),
        });
    }
    let mut config = config::load_before_start(&args.file).map_err(misused)?;
    if let Some(request) = &args.request {
        let outcome = Outcome::of(request, &config)?;
        return Ok(if args.json { line(&outcome.json()) } else { outcome.text() });
    }
    if !args.without_ports {
        config.try_ports(&[]).map_err(|faults| {
            Failure::Misused(format!(
                "{faults}\n(while the appliance of this file is running: --without-ports)"
            ))
        })?;
    }
    look_at_shipping(&config).map_err(|fault| Failure::Misused(fault.to_string()))?;
    let left_out = look_at_volumes(&config).map_err(|fault| Failure::Misused(fault.to_string()))?;
    for LeftOut { index, why } in &left_out {
        let volume = &config.ssd.volumes[*index];
        let text = format!(
            "volume {} would be left out, and a reload that adds it refused: {why}",
            volume.name
        );
        let (file, place) = (config.file.clone(), Some(volume.place));
        config.warnings.push(ConfigError { file, place, text });
    }
    let out = config.ssd.volumes.iter().filter(|volume| volume.kind.is_out());
    let now = SystemTime::now();
    let is_refused =
        |one: &&Certificate| one.judged(now).is_some() && !config.certificates.is_ordered(one);
    let refused = config.certificates.iter().filter(is_refused).map(|one| one.place);
    let out: Vec<_> = out.map(|volume| Some(volume.place)).chain(refused).collect();
    for warning in config.warnings.iter_mut().filter(|one| out.contains(&one.place)) {
        warning.text += "; a reload that adds it is refused";
    }
    let state_fault = config.ssd.state_fault().filter(|_| !config.ssd.volumes.is_empty());
    let lacking = config.congestion.lacking();
    let failed = look_at_failed(&config).unwrap_or_else(|why| vec![why]);
    for text in state_fault.into_iter().chain(failed).chain(lacking) {
        config.warnings.push(ConfigError { file: config.file.clone(), place: None, text });
    }
    Ok(match args.json {
        true => line(&as_json::config(&config, &left_out)),
        false => as_text::config(&config, &left_out),
    })
}

fn line(value: &Value) -> String {
    format!("{value:#}\n")
}

/// What a request would get.
struct Outcome<'a> {
    config: &'a Config,
    site: &'a Site,
    /// The rule and its place in the site, counted from 1.
    rule: (usize, &'a Rule),
    host: String,
    /// Path and canonical query: the object's key, together with the site.
    target: String,
    is_tls: bool,
}

impl<'a> Outcome<'a> {
    fn of(request: &str, config: &'a Config) -> Result<Outcome<'a>, Failure> {
        let head = head(request)?;
        let asked = ObjectRequest::parse(&head)
            .map_err(|error| Failure::Failed(format!("it would be refused: {error}")))?;
        let site = config.sites.find(&asked.host).ok_or_else(|| {
            let host = &asked.host;
            Failure::Failed(format!("no site has the host {host:?}; it would be answered 421"))
        })?;
        let rule = site.rule_for(&asked.path);
        let place = site.rules.iter().position(|other| std::ptr::eq(other, rule));
        Ok(Outcome {
            config,
            site,
            rule: (place.map_or(0, |place| place + 1), rule),
            host: asked.host.clone().into_owned(),
            target: asked.target(&rule.query, rule.content).into_owned(),
            is_tls: head.uri.scheme_str() == Some("https"),
        })
    }

    fn certificate(&self) -> Option<String> {
        let found = self.config.certificates.find(Some(&self.host)).filter(|_| self.is_tls)?;
        Some(found.path.display().to_string())
    }

    fn text(&self) -> String {
        let (place, rule) = self.rule;
        let mut lines = vec![
            ("site", self.site.name.clone()),
            ("rule", format!("{}  ({place} of {})", rule.pattern, self.site.rules.len())),
            ("key", format!("{} {}", self.site.name, self.target)),
        ];
        lines.extend(as_text::rule(rule));
        lines.extend(self.site.origins.iter().map(|origin| ("origin", as_text::origin(origin))));
        lines.extend(self.certificate().map(|path| ("certificate", path)));
        lines.iter().map(|(name, value)| as_text::line("", name, value)).collect()
    }

    fn json(&self) -> Value {
        json!({
            "site": self.site.name,
            "rule": as_json::rule(self.rule.1),
            "rule_number": self.rule.0,
            "key": { "site": self.site.name, "target": self.target },
            "origins": self.site.origins.iter().map(as_json::origin).collect::<Vec<_>>(),
            "certificate": self.certificate(),
        })
    }
}

/// The head that 'GET https://host/path' stands for. HTTP/2 has the host in its target.
fn head(request: &str) -> Result<Parts, Failure> {
    let (method, url) = request.trim().split_once(' ').unwrap_or(("GET", request.trim()));
    let head = Request::builder().method(method).uri(url.trim()).version(Version::HTTP_2).body(());
    match head.map(|head| head.into_parts().0) {
        Ok(head) if head.uri.scheme().is_some() => Ok(head),
        _ => {
            let example = "'GET https://video.example.com/film/a.m3u8'";
            Err(Failure::Misused(format!("{request:?} is no request; write one such as {example}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(request: &str) -> Result<String, Failure> {
        let text = include_str!("../../config/tidegate.toml");
        let config = Config::from_toml(text, "config/tidegate.toml").unwrap();
        Outcome::of(request, &config).map(|outcome| outcome.text())
    }

    #[test]
    fn a_request_is_told_its_site_rule_key_and_lifetime() {
        let expected = "\
site             film
rule             *.m3u8  (1 of 4)
key              film /live/a.m3u8?t=1&s=2
lifetime         given 2s, most 10s, errors 1s, stale if error 1m
query            all
keep             ram
origin           https://origin.example.com
";
        assert_eq!(reference("GET https://LocalHost:8443/live/a.m3u8?t=1&s=2").unwrap(), expected);
        let segment = reference("https://localhost/live/1.m4s?t=1").unwrap();
        assert!(segment.contains("key              film /live/1.m4s\n"), "{segment}");
        assert!(segment.contains("keep             ssd\n"), "{segment}");
        let unusual = reference("GET https://localhost/a/../%6c/1.m3u8").unwrap();
        assert!(unusual.contains("key              film /l/1.m3u8\n"), "{unusual}");
        assert!(segment.contains("response         remove set-cookie\n"), "{segment}");
    }

    #[test]
    fn who_checks_while_it_runs_is_told_how() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let text = include_str!("../../config/tidegate.toml");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("t.toml");
        let site = &text[text.find("[[sites]]").unwrap()..];
        std::fs::write(&file, format!("listeners.http = [\"{address}\"]\n{site}")).unwrap();
        let checked = |without_ports| {
            run(&Args { file: file.clone(), json: false, without_ports, request: None })
        };
        let Err(Failure::Misused(why)) = checked(false) else { panic!("the port is taken") };
        assert!(why.contains("is taken by another socket"), "{why}");
        assert!(why.ends_with("is running: --without-ports)"), "{why}");
        assert!(checked(true).is_ok());
    }

    #[test]
    fn a_request_that_gets_nothing_is_told_why() {
        let error = |request: &str| reference(request).unwrap_err();
        assert_eq!(
            error("GET https://elsewhere/"),
            Failure::Failed(
                "no site has the host \"elsewhere\"; it would be answered 421".to_owned()
            )
        );
        assert!(matches!(error("POST https://localhost/"), Failure::Failed(_)));
        assert!(matches!(error("GET /a"), Failure::Misused(_)));
        assert!(matches!(error("GET ftp://localhost/a"), Failure::Failed(_)));
        assert!(matches!(error("GET https://localhost/%zz"), Failure::Failed(_)));
    }
}
