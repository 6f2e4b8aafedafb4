//! `tidegate status`: what a running appliance is doing, in a few lines.
//!
//! Asks the admin listener for its status, once, and changes nothing. What an appliance of another
//! version says is shown as far as it is understood.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::{Failure, USUAL_CONFIG};
use crate::config::{self, ConfigErrors, ListenerKind};

mod ask;
mod table;

const EXAMPLES: &str = "\
Examples:
  tidegate status
  tidegate status --config tidegate.toml
  tidegate status --admin http://127.0.0.1:9180
  tidegate status --json | jq '.ssd.volumes[] | {name, state}'

Exit codes: 0 shown, 1 no appliance answers, 64 misused";

/// Show what the running appliance is doing
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The configuration it runs with: its admin listener is asked
    #[arg(long, value_name = "FILE", default_value = USUAL_CONFIG)]
    config: PathBuf,
    /// Ask this admin listener instead; no configuration is read
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    /// Print the status as JSON: sizes in bytes
    #[arg(long)]
    json: bool,
}

/// Asks; what is to be printed.
pub(super) fn run(args: &Args) -> Result<String, Failure> {
    let addresses = match &args.admin {
        Some(url) => vec![authority(url)?],
        None => of_config(&args.config)?,
    };
    let status = ask::status(&addresses)?;
    Ok(match args.json {
        true => format!("{:#}\n", status.value),
        false => table::of(&understood(&status)?, &status.address),
    })
}

/// What can be shown of it; what is missing is nothing.
fn understood(status: &ask::Answer) -> Result<table::Shown, Failure> {
    serde_json::from_value(status.value.clone()).map_err(|error| {
        let address = &status.address;
        Failure::Failed(format!(
            "the appliance at {address} says something that this version does not understand \
             ({error}); `--json` shows it as it is"
        ))
    })
}

/// Host and port of a URL, or host and port as they are.
fn authority(url: &str) -> Result<String, Failure> {
    let authority = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
    let port = authority.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    if port.is_none() || authority.contains('/') {
        return Err(Failure::Misused(format!(
            "--admin is {url:?}; write one such as \"http://127.0.0.1:9180\""
        )));
    }
    Ok(authority.to_owned())
}

/// The admin listeners of a configuration.
fn of_config(file: &Path) -> Result<Vec<String>, Failure> {
    let config = match config::load(file) {
        Ok(config) => config,
        Err(errors) => {
            let addresses = admins_as_written(file);
            return if addresses.is_empty() { Err(unusable(&errors)) } else { Ok(addresses) };
        }
    };
    let admins = config.listeners.iter().filter(|listener| listener.kind == ListenerKind::Admin);
    let addresses: Vec<String> =
        admins.filter(|admin| admin.address.port() != 0).map(|admin| here(admin.address)).collect();
    if addresses.is_empty() {
        return Err(Failure::Misused(format!(
            "{}: no admin listener with a port of its own; write `admin = [\"127.0.0.1:9180\"]` \
             under `[listeners]`, or say --admin",
            file.display()
        )));
    }
    Ok(addresses)
}

fn unusable(errors: &ConfigErrors) -> Failure {
    Failure::Misused(format!("{errors}\n(or say where to ask: --admin http://127.0.0.1:9180)"))
}

/// The admin listeners of a configuration that is not right any more, or not to this user: a volume
/// that is ill is a reason to ask.
fn admins_as_written(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let table = text.parse::<toml::Table>().unwrap_or_default();
    let admin = table.get("listeners").and_then(|listeners| listeners.get("admin"));
    let admins = match admin {
        Some(toml::Value::Array(admins)) => admins.as_slice(),
        Some(one) => std::slice::from_ref(one),
        None => &[],
    };
    let addresses = admins.iter().filter_map(|admin| admin.as_str()?.parse::<SocketAddr>().ok());
    addresses.filter(|address| address.port() != 0).map(here).collect()
}

/// Where a listener of this machine is reached from it.
fn here(listener: SocketAddr) -> String {
    let ip = match listener.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listener.port()).to_string()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn a_url_or_an_address_says_where_to_ask() {
        for (url, expected) in [
            ("http://127.0.0.1:9180/", "127.0.0.1:9180"),
            ("[::1]:9180", "[::1]:9180"),
            ("http://edge-7.example.com:9180", "edge-7.example.com:9180"),
        ] {
            assert_eq!(authority(url).unwrap(), expected);
        }
        for wrong in ["https://127.0.0.1:9180", "127.0.0.1", "http://a:1/status.json", "a:b", ""] {
            assert!(matches!(authority(wrong), Err(Failure::Misused(_))), "{wrong}");
        }
        assert_eq!(here("0.0.0.0:9180".parse().unwrap()), "127.0.0.1:9180");
        assert_eq!(here("[::]:9180".parse().unwrap()), "[::1]:9180");
    }

    #[test]
    fn the_admin_listener_is_found_in_a_configuration_that_is_not_right_any_more() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("t.toml");
        let volume = "[[ssd.volumes]]\npath = \"/nowhere/volume\"\n";
        for (admin, expected) in [
            ("\"0.0.0.0:9180\"", vec!["127.0.0.1:9180"]),
            ("[\"127.0.0.1:0\", \"[::]:29180\"]", vec!["[::1]:29180"]),
        ] {
            fs::write(&file, format!("[listeners]\nadmin = {admin}\n{volume}")).unwrap();
            assert_eq!(of_config(&file).ok().unwrap(), expected);
        }
        fs::write(&file, volume).unwrap();
        assert!(matches!(of_config(&file), Err(Failure::Misused(_))));
    }

    #[test]
    fn an_appliance_that_does_not_run_is_one_clear_line() {
        // Bound and let go: nobody listens there.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let args = Args { config: PathBuf::new(), admin: Some(free.to_string()), json: false };
        let Err(Failure::Failed(text)) = run(&args) else { panic!("nobody is there") };
        let expected =
            format!("no appliance answers at {free}: connection refused; is it running?");
        assert_eq!(text, expected);
    }

    #[test]
    fn who_is_no_admin_listener_is_told_so_in_one_clear_line() {
        let body = "HTTP/1.1 200 OK\r\ncontent-length: ";
        for (answer, why) in [
            (format!("{body}2\r\n\r\n{{}}"), "what it answers is no status"),
            (format!("{body}15\r\n\r\n<html>hi</html>"), "what it answers is no status"),
            (format!("{body}9\r\n\r\n{{}}"), "its answer has no end"),
            (
                "HTTP/1.1 421 Misdirected Request\r\ncontent-length: 0\r\n\r\n".to_owned(),
                "it answers 421 Misdirected Request",
            ),
            ("SSH-2.0-OpenSSH_9.2\r\n".to_owned(), "it does not speak plain HTTP"),
            (String::new(), "it does not speak plain HTTP"),
        ] {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap().to_string();
            let answering = std::thread::spawn(move || {
                let mut stream = listener.accept().unwrap().0;
                let asked = stream.read(&mut [0; 4096]).unwrap();
                stream.write_all(answer.as_bytes()).unwrap();
                asked
            });
            let args = Args { config: PathBuf::new(), admin: Some(address.clone()), json: true };
            let Err(Failure::Failed(text)) = run(&args) else { panic!("{why}") };
            let expected = format!(
                "{address} is no admin listener of Tidegate: {why}; ask where `listeners.admin` \
                 says"
            );
            assert_eq!(text, expected);
            assert!(answering.join().unwrap() > 0);
        }
    }
}
