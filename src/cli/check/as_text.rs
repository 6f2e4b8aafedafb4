//! A configuration in words, aligned, for people. Values of origin fields may be secrets: unsaid.

mod sites;

use std::path::Path;

use crate::access_log::{Destination, Format, Personal, Rotation, Shown};
use crate::appliance::{LeftOut, connections_affordable, ram_kept_bytes};
use crate::config::units::{bytes_about, bytes_text, duration_text, rate_text};
use crate::config::{
    Certificate, Config, Limits, ListenerKind, Log, Overload, Proxies, Shipping, SsdVolume,
};
use crate::limits::INDEX_ENTRY_BYTES;

use self::sites::site;
pub(super) use self::sites::{origin, rule};
use super::steering;

/// The width of the names.
const NAME_WIDTH: usize = 17;

/// All of it.
pub(super) fn config(config: &Config, left_out: &[LeftOut]) -> String {
    let but = match left_out.len() {
        0 => "",
        1 => "; a volume would be left out, see the warnings",
        _ => "; volumes would be left out, see the warnings",
    };
    let mut text = format!("{} is right{but}\n", config.file);
    section(&mut text, "listeners", &listeners(config));
    section(&mut text, "proxies", &proxies(&config.proxies));
    section(&mut text, "certificates", &certificates(config));
    section(&mut text, "resources", &resources(config));
    section(&mut text, "ssd", &ssd(config, left_out));
    section(&mut text, "fill", &fill(config));
    section(&mut text, "limits", &limits(&config.limits, connections_affordable(config)));
    section(&mut text, "log", &log(&config.log));
    section(&mut text, "usage", &usage(config));
    let control = config.control.as_ref().map(super::control::lines);
    section(&mut text, "control", &control.unwrap_or_default());
    section(&mut text, "routes", &steering::routes(config));
    section(&mut text, "steering", &steering::steering(config));
    let fleet = config.fleet.as_ref().map(super::fleet::lines);
    section(&mut text, "fleet", &fleet.unwrap_or_default());
    for one in config.sites.iter() {
        section(&mut text, &format!("site {}", one.name), &site(one));
        for (index, one) in one.rules.iter().enumerate() {
            text.push_str(&line("  ", &format!("rule {}", index + 1), &one.pattern.to_string()));
            text.extend(rule(one).iter().map(|(name, value)| line("    ", name, value)));
        }
    }
    if !config.warnings.is_empty() {
        text.push_str("\nwarnings\n");
        text.extend(config.warnings.iter().map(|warning| format!("  {warning}\n")));
    }
    text
}

fn section(text: &mut String, head: &str, lines: &[(&str, String)]) {
    if !lines.is_empty() {
        text.push_str(&format!("\n{head}\n"));
        text.extend(lines.iter().map(|(name, value)| line("  ", name, value)));
    }
}

/// One name and its value.
pub(super) fn line(indent: &str, name: &str, value: &str) -> String {
    let width = NAME_WIDTH - indent.len();
    format!("{indent}{name:<width$}{value}\n")
}

fn listeners(config: &Config) -> Vec<(&'static str, String)> {
    let kinds = ListenerKind::ALL;
    let addresses = |kind| {
        let of_kind = config.listeners.iter().filter(move |l| l.kind == kind);
        join(of_kind.map(|listener| listener.address.to_string()))
    };
    let lines = kinds.map(|kind| (kind.name(), addresses(kind)));
    let mut lines: Vec<_> =
        lines.into_iter().filter(|(_, addresses)| !addresses.is_empty()).collect();
    let controls =
        kinds.map(|kind| Some(format!("{} {}", kind.name(), config.congestion.of(kind)?)));
    let controls = join(controls.into_iter().flatten());
    lines.extend((!controls.is_empty()).then_some(("congestion", controls)));
    lines
}

fn proxies(proxies: &Proxies) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    if !proxies.proxy_protocol.is_empty() {
        let networks = join(proxies.proxy_protocol.iter().map(ToString::to_string));
        lines.push(("header", format!("PROXY protocol version 2, from {networks}")));
    }
    if !proxies.forwarded.is_empty() {
        let networks = join(proxies.forwarded.iter().map(ToString::to_string));
        lines.push(("field", format!("{}, from {networks}", proxies.forwarded_field)));
    }
    lines
}

fn certificates(config: &Config) -> Vec<(&'static str, String)> {
    let told = |(index, certificate): (usize, &Certificate)| {
        let names = certificate.names.join(", ");
        let shown = if index == 0 { "first" } else { "further" };
        (shown, format!("{}  for {names}", path(&certificate.path)))
    };
    let files = config.certificates.iter().enumerate().map(told);
    let ordered = config.certificates.managed().map(|one| {
        let challenge = config.certificates.acme().map(|acme| acme.challenge.as_str());
        let names = one.names.join(", ");
        ("by acme", format!("{}  for {names}, by {}", path(&one.path), challenge.unwrap_or("")))
    });
    files.chain(ordered).collect()
}

fn resources(config: &Config) -> Vec<(&'static str, String)> {
    let memory = config.memory;
    let kept = bytes_about(ram_kept_bytes(config));
    let beside = memory.total_bytes - memory.ram_bytes - config.ssd.index_bytes;
    let mut lines = vec![
        ("workers", config.threads.workers.to_string()),
        ("fill threads", config.threads.fill.to_string()),
        ("memory", bytes_text(memory.total_bytes)),
        ("  ram", format!("{}, {kept} of it for what is kept", bytes_text(memory.ram_bytes))),
        ("  beside it", bytes_text(beside)),
        ("block size", bytes_text(config.block_size.bytes())),
    ];
    if config.ssd.index_bytes > 0 {
        lines.insert(4, ("  ssd index", bytes_text(config.ssd.index_bytes)));
    }
    lines
}

fn ssd(config: &Config, left_out: &[LeftOut]) -> Vec<(&'static str, String)> {
    let ssd = &config.ssd;
    if ssd.volumes.is_empty() {
        return Vec::new();
    }
    let entries = ssd.index_bytes / INDEX_ENTRY_BYTES;
    let deadline = duration_text(ssd.read_deadline);
    let bypass = bytes_text(ssd.bypass_bytes);
    let mut lines = vec![
        ("admission", ssd.admission.as_str().to_owned()),
        ("engine", ssd.engine.as_str().to_owned()),
        ("index", format!("{}, {entries} entries", bytes_text(ssd.index_bytes))),
        ("reads", format!("deadline {deadline}, bypass {bypass} per second")),
        ("state", path(&ssd.state)),
    ];
    let is_out = |at| left_out.iter().any(|one| one.index == at);
    let volumes = ssd.volumes.iter().enumerate();
    lines.extend(volumes.map(|(at, one)| ("volume", volume(one, is_out(at)))));
    lines
}

fn volume(volume: &SsdVolume, is_left_out: bool) -> String {
    let SsdVolume { size_bytes, writes_per_day_bytes, weight, .. } = *volume;
    if is_left_out || volume.kind.is_out() {
        let why = if is_left_out { "left out" } else { volume.kind.as_str() };
        return format!("{}  {why}", path(&volume.path));
    }
    format!(
        "{}  {} of {}, {} written per day at most, weight {weight}",
        path(&volume.path),
        volume.kind.as_str(),
        bytes_text(size_bytes),
        bytes_exact_and_about(writes_per_day_bytes),
    )
}

/// What is no round number is hard to read.
fn bytes_exact_and_about(bytes: u64) -> String {
    let (exact, about) = (bytes_text(bytes), bytes_about(bytes));
    let is_round = !exact.ends_with(" B") || exact == about;
    if is_round { exact } else { format!("{exact} ({about})") }
}

fn fill(config: &Config) -> Vec<(&'static str, String)> {
    let fill = config.fill;
    vec![
        ("window", bytes_text(fill.window_bytes)),
        (
            "timeouts",
            format!(
                "connect {}, first byte {}, progress {}",
                duration_text(fill.connect_timeout),
                duration_text(fill.first_byte_timeout),
                duration_text(fill.progress_timeout),
            ),
        ),
        ("runs", format!("{} at once", fill.runs_max)),
        ("retries", fill.retries.to_string()),
    ]
}

fn limits(limits: &Limits, affordable: usize) -> Vec<(&'static str, String)> {
    let slow = limits.slow_reader;
    let connections = match limits.connections_max {
        max if max > affordable => {
            format!("{max}, and memory beside the ram tier has room for {affordable}")
        }
        max => max.to_string(),
    };
    let mut lines = vec![
        ("connections", connections),
        (
            "timeouts",
            format!(
                "header {}, idle {}, drain {}",
                duration_text(limits.header_timeout),
                duration_text(limits.idle_timeout),
                duration_text(limits.drain_timeout),
            ),
        ),
        (
            "slow reader",
            format!("cut off below {} in {}", bytes_text(slow.bytes), duration_text(slow.period)),
        ),
    ];
    lines.extend(overload(&limits.overload));
    lines
}

fn overload(overload: &Overload) -> Vec<(&'static str, String)> {
    let Overload { lag, egress_bytes, handshakes, client } = overload;
    let mut much = vec![format!("workers later than {}", duration_text(*lag))];
    much.extend(egress_bytes.map(|bytes| format!("more than {} sent", rate_text(bytes))));
    much.extend(handshakes.map(|count| format!("{count} handshakes a second")));
    let mut lines = vec![("too much is", much.join(", "))];
    let limit = |count: u32, of: &str| (count > 0).then(|| format!("{count} {of}"));
    let one =
        [limit(client.connections, "connections"), limit(client.requests, "requests a second")];
    let one: Vec<_> = one.into_iter().flatten().collect();
    if !one.is_empty() {
        let bits = format!("{} bits of IPv4, {} of IPv6", client.bits_v4, client.bits_v6);
        lines.push(("one client", format!("{}; told by {bits}", one.join(", "))));
    }
    lines
}

fn usage(config: &Config) -> Vec<(&'static str, String)> {
    match config.usage_months {
        0 => vec![("kept", "not at all".to_owned())],
        months => vec![("kept", format!("{months} months, in {}", path(&config.ssd.usage())))],
    }
}

fn log(log: &Log) -> Vec<(&'static str, String)> {
    let access = match &log.access {
        Destination::Off => "off".to_owned(),
        Destination::Stdout => "standard output".to_owned(),
        Destination::File(file) => path(file),
    };
    let mut lines = vec![("access", access)];
    lines.extend((log.format != Format::Json).then(|| ("format", log.format.word().to_owned())));
    lines.extend(log.rotation.map(|one| ("moved", rotation(one))));
    lines.extend(log.shipping.as_ref().map(|one| ("shipped", shipping(one))));
    lines.push(("level", log.level.as_str().to_owned()));
    let Personal { client_bits, query, referer, user_agent, session } = log.personal;
    let bits = format!("{} bits of IPv4 addresses, {} of IPv6", client_bits.v4, client_bits.v6);
    lines.push(("viewers", bits));
    let fields =
        [("query", query), ("referer", referer), ("user agent", user_agent), ("session", session)];
    let less = fields.into_iter().filter(|(_, shown)| *shown != Shown::Whole);
    lines.extend(less.map(|(name, shown)| (name, shown.word().to_owned())));
    lines
}

fn shipping(shipping: &Shipping) -> String {
    let spool = &shipping.spool;
    format!(
        "to {}, in batches of {} or {}; at most {} wait in {}",
        shipping.receiver,
        bytes_text(spool.batch_bytes),
        duration_text(spool.batch_period),
        bytes_text(spool.bytes_max),
        path(&spool.folder),
    )
}

fn rotation(rotation: Rotation) -> String {
    let size = rotation.bytes_max.map(|bytes| format!("before it exceeds {}", bytes_text(bytes)));
    let every = rotation.every.map(|every| format!("every {}", duration_text(every)));
    let due: Vec<_> = [size, every].into_iter().flatten().collect();
    format!("{}; {} stay", due.join(" and "), rotation.keep)
}

fn join(texts: impl Iterator<Item = String>) -> String {
    texts.collect::<Vec<_>>().join(", ")
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Machine;

    const EXPECTED: &str = "\
t.toml is right

listeners
  http           0.0.0.0:80, [::]:80
  admin          127.0.0.1:9180
  congestion     http bbr

proxies
  header         PROXY protocol version 2, from 10.0.0.0/8
  field          x-forwarded-for, from 10.0.0.0/8, ::1/128

resources
  workers        2
  fill threads   2
  memory         1 GiB
    ram          793 MiB, 743.4 MiB of it for what is kept
    ssd index    32 MiB
    beside it    199 MiB
  block size     1 MiB

ssd
  admission      budget
  engine         auto
  index          32 MiB, 2097152 entries
  reads          deadline 2s, bypass 25 MiB per second
  state          /volumes.json
  volume         /ssd  simulated of 1 TiB, 1 TiB written per day at most, weight 1048576

fill
  window         8 MiB
  timeouts       connect 5s, first byte 15s, progress 15s
  runs           1024 at once
  retries        2

limits
  connections    16384, and memory beside the ram tier has room for 2214
  timeouts       header 10s, idle 1m, drain 30s
  slow reader    cut off below 16 KiB in 1m
  too much is    workers later than 250ms, more than 40 Gbit/s sent, 900 handshakes a second
  one client     50 requests a second; told by 32 bits of IPv4, 64 of IPv6

log
  access         standard output
  level          info
  viewers        32 bits of IPv4 addresses, 128 of IPv6

usage
  kept           13 months, in /usage

site film
  hosts          *
  origin         https://o:444  Host h, fields authorization, redirects passed on
  ssd share      40%
  rule 1         *.mp4
    lifetime     errors 1s, stale if error 1m
    query        all but t
    keep         ram
    pace         20 Mbit/s
    request      add token
  rule 2         **
    lifetime     errors 1s, stale if error 1m
    query        all
    keep         ssd

warnings
  t.toml:6:28: `memory` may grow to 1.0 GiB, and this machine has 512.0 MiB
";

    #[test]
    fn a_size_that_is_not_round_is_told_both_ways() {
        for (bytes, text) in
            [(5 << 30, "5 GiB"), (5_368_709_000, "5368709000 B (5.0 GiB)"), (1_000, "1000 B")]
        {
            assert_eq!(bytes_exact_and_about(bytes), text);
        }
    }

    #[test]
    fn what_was_meant_is_told_in_words_and_secrets_are_not() {
        let text = r#"
            listeners.http = ["0.0.0.0:80", "[::]:80"]
            listeners.admin = "127.0.0.1:9180"
            listeners.congestion.http = "bbr"
            proxies = { proxy_protocol = "10.0.0.0/8", forwarded = ["10.0.0.0/8", "::1"] }
            memory.total = "1 GiB"
            limits = { egress = "40 Gbit/s", handshakes = 900, client = { requests = 50 } }
            ssd.volumes = [{ path = "/ssd", size = "1 TiB", simulate = "" }]
            ssd.state = "/"
            [[sites]]
            name = "film"
            hosts = "*"
            ssd_share = "40%"
            [[sites.rules]]
            path = "*.mp4"
            keep = "ram"
            query.except = ["t"]
            request.add = { Token = "secret" }
            pace = "20 Mbit/s"
            [[sites.origins]]
            url = "https://o:444"
            host = "h"
            fields = { Authorization = "secret" }
            redirects = "pass-on"
        "#;
        let machine = Machine { cores: 2, memory_bytes: Some(512 << 20) };
        let meant = Config::on_machine(text, "t.toml", &machine).unwrap();
        assert_eq!(config(&meant, &[]), EXPECTED);
        let json = super::super::as_json::config(&meant, &[]).to_string();
        assert!(!json.contains("secret"), "{json}");
        assert!(json.contains("\"fields\":[\"authorization\"]"), "{json}");
    }
}
