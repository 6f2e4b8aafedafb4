//! Settings of the kernel that decide how viewers are served.

use super::Subject;
use super::finding::Finding;
use super::root::Root;
use crate::config::{Config, ListenerKind};
use crate::limits::LISTEN_BACKLOG;

/// A viewer 100 ms away gets 320 Mbit/s through this much.
const SEND_BUFFER_BYTES_MIN: u64 = 4 << 20;
/// One fill from an origin 100 ms away gets 480 Mbit/s through this much.
const RECEIVE_BUFFER_BYTES_MIN: u64 = 6 << 20;
const SWAPPINESS_MAX: u64 = 10;

/// How one setting is judged, by what it says.
type Judge = fn(&str, &Facts) -> Finding;

/// What else counts.
struct Facts<'a> {
    config: &'a Config,
    root: &'a Root,
}

const SETTINGS: [(&str, Judge); 10] = [
    ("net.core.somaxconn", somaxconn),
    ("net.ipv4.tcp_max_syn_backlog", syn_backlog),
    ("net.ipv4.tcp_congestion_control", congestion_control),
    ("net.core.default_qdisc", qdisc),
    ("net.ipv4.tcp_wmem", send_buffer),
    ("net.ipv4.tcp_rmem", receive_buffer),
    ("net.ipv4.ip_local_port_range", ports),
    ("net.ipv4.tcp_slow_start_after_idle", slow_start),
    ("net.ipv4.tcp_migrate_req", migrate),
    ("vm.swappiness", swappiness),
];

/// Each of them.
pub(super) fn look(subject: &Subject) -> Vec<Finding> {
    let facts = Facts { config: &subject.config, root: &subject.root };
    let judged = |(name, judge): &(&str, Judge)| {
        let path = format!("proc/sys/{}", name.replace('.', "/"));
        let finding = match facts.root.text(path) {
            Some(text) => judge(&text.replace('\t', " "), &facts),
            None => Finding::unknown("it cannot be read here", "look at it on the host"),
        };
        finding.of(*name)
    };
    SETTINGS.iter().map(judged).chain([tracked(&facts)]).collect()
}

/// A firewall that keeps every connection in mind drops what is beyond its table.
fn tracked(facts: &Facts<'_>) -> Finding {
    let name = "net.netfilter.nf_conntrack_max";
    let Some(text) = facts.root.text("proc/sys/net/netfilter/nf_conntrack_max") else {
        return Finding::ok("no firewall keeps connections in mind").of(name);
    };
    // Twice: one that was closed is kept in mind for a while.
    let needs = 2 * facts.config.limits.connections_max as u64 + ports_needed(facts.config);
    let lost = "beyond that the firewall drops viewers; or let it not track their ports (notrack)";
    at_least(name, &text, needs, lost).of(name)
}

fn set(name: &str, value: impl std::fmt::Display) -> String {
    format!("`sysctl -w {name}={value}`, and in /etc/sysctl.d too")
}

/// At least `least`, or what is lost by less.
fn at_least(name: &str, text: &str, least: u64, lost: &str) -> Finding {
    match text.parse::<u64>() {
        Ok(number) if number >= least => Finding::ok(text),
        Ok(_) => Finding::warn(format!("{text}: {lost}"), set(name, least)),
        Err(_) => odd(text),
    }
}

fn odd(text: &str) -> Finding {
    Finding::unknown(format!("{text:?}, which this does not understand"), "look at it")
}

fn somaxconn(text: &str, _: &Facts<'_>) -> Finding {
    let lost = "fewer connections wait to be accepted than could, the others are dropped";
    at_least("net.core.somaxconn", text, LISTEN_BACKLOG.unsigned_abs().into(), lost)
}

fn syn_backlog(text: &str, _: &Facts<'_>) -> Finding {
    let lost = "in a rush of viewers connections that begin are dropped";
    at_least("net.ipv4.tcp_max_syn_backlog", text, LISTEN_BACKLOG.unsigned_abs().into(), lost)
}

fn congestion_control(text: &str, facts: &Facts<'_>) -> Finding {
    let available = "proc/sys/net/ipv4/tcp_available_congestion_control";
    let available = facts.root.text(available).unwrap_or_default();
    let offers = |name: &str| available.split_whitespace().any(|one| one == name);
    let kinds = [ListenerKind::Http, ListenerKind::Https];
    let set_for = |kind: ListenerKind| Some((kind.name(), facts.config.congestion.of(kind)?));
    let wanted: Vec<_> = kinds.into_iter().filter_map(set_for).collect();
    if let Some((kind, name)) = wanted.iter().find(|(_, name)| !offers(name)) {
        return Finding::warn(
            format!("{text}: the kernel has no {name}, which `listeners.congestion.{kind}` wants"),
            format!("`modprobe tcp_{name}`, or choose one of: {}", available.trim()),
        );
    }
    if wanted.len() == kinds.len() {
        let told: Vec<String> =
            wanted.iter().map(|(kind, name)| format!("{name} for {kind}")).collect();
        return Finding::ok(format!("{text}; `listeners.congestion`: {}", told.join(", ")));
    }
    let load = match offers("bbr") {
        true => "",
        false => "`modprobe tcp_bbr`, then ",
    };
    let to_do = format!("{load}{}", set("net.ipv4.tcp_congestion_control", "bbr"));
    match text {
        "bbr" => Finding::ok(text),
        "reno" => Finding::warn("reno: viewers far away or by radio get little", to_do),
        _ => {
            Finding::note(format!("{text}: bbr often gets more to viewers who lose packets"), to_do)
        }
    }
}

fn qdisc(text: &str, _: &Facts<'_>) -> Finding {
    let to_do = || set("net.core.default_qdisc", "fq") + ", then set the link down and up";
    match text {
        "fq" => Finding::ok(text),
        _ => Finding::note(
            format!("{text}: fq sends each viewer's packets at an even pace"),
            to_do(),
        ),
    }
}

fn send_buffer(text: &str, _: &Facts<'_>) -> Finding {
    let lost = "a fast viewer far away gets less than his line";
    buffer("net.ipv4.tcp_wmem", text, SEND_BUFFER_BYTES_MIN, lost)
}

fn receive_buffer(text: &str, _: &Facts<'_>) -> Finding {
    let lost = "a fill from far away is slower than the line";
    buffer("net.ipv4.tcp_rmem", text, RECEIVE_BUFFER_BYTES_MIN, lost)
}

/// Least, usual and most; the most counts.
fn buffer(name: &str, text: &str, most_bytes: u64, lost: &str) -> Finding {
    let numbers: Vec<u64> = text.split_whitespace().flat_map(str::parse).collect();
    match numbers[..] {
        [_, _, most] if most >= most_bytes => Finding::ok(text),
        [least, usual, _] => {
            let wanted = format!("'{least} {usual} {most_bytes}'");
            Finding::warn(format!("{text}: {lost}"), set(name, wanted))
        }
        _ => odd(text),
    }
}

/// Each connection to one address of an origin has a port of its own.
fn ports(text: &str, facts: &Facts<'_>) -> Finding {
    let numbers: Vec<u64> = text.split_whitespace().flat_map(str::parse).collect();
    let [first, last] = numbers[..] else { return odd(text) };
    let needs = ports_needed(facts.config);
    let has = last.saturating_sub(first) + 1;
    if has >= needs {
        return Finding::ok(format!("{text}: {has} ports"));
    }
    Finding::warn(
        format!("{text}: {has} ports, and connections to origins may take {needs}"),
        set("net.ipv4.ip_local_port_range", "'1024 65535'"),
    )
}

fn ports_needed(config: &Config) -> u64 {
    let origins = config.sites.iter().flat_map(|site| &site.origins);
    // Twice: one that was closed keeps its port for a while.
    origins.map(|origin| 2 * origin.connections_max as u64).sum()
}

fn slow_start(text: &str, _: &Facts<'_>) -> Finding {
    match text {
        "0" => Finding::ok(text),
        _ => Finding::warn(
            format!(
                "{text}: after each pause between segments a viewer's connection begins slowly"
            ),
            set("net.ipv4.tcp_slow_start_after_idle", 0),
        ),
    }
}

fn migrate(text: &str, _: &Facts<'_>) -> Finding {
    match text {
        "1" => Finding::ok(text),
        _ => Finding::note(
            format!("{text}: who waits to be accepted when a listener closes is refused"),
            set("net.ipv4.tcp_migrate_req", 1),
        ),
    }
}

fn swappiness(text: &str, facts: &Facts<'_>) -> Finding {
    // A heading, then a line for each.
    let swaps = facts.root.text("proc/swaps").unwrap_or_default();
    if swaps.lines().count() < 2 {
        return Finding::ok(format!("{text}, and there is no swap"));
    }
    match text.parse::<u64>() {
        Ok(number) if number <= SWAPPINESS_MAX => Finding::ok(text),
        Ok(_) => Finding::warn(
            format!("{text}: the ram tier may be swapped out, and viewers wait for it"),
            set("vm.swappiness", SWAPPINESS_MAX) + ", or `swapoff -a`",
        ),
        Err(_) => odd(text),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::super::tests::{configured, subject, with};
    use super::*;

    #[test]
    fn each_setting_is_judged_and_told_how_to_set() {
        let (_folder, root) = with(&[("proc/swaps", "Filename Type\n/dev/sda2 partition\n")]);
        let config = configured("");
        let facts = Facts { config: &config, root: &root };
        let table: &[(&str, &str, State)] = &[
            ("net.core.somaxconn", "4096", State::Ok),
            ("net.core.somaxconn", "128", State::Warn),
            ("net.core.somaxconn", "many", State::Unknown),
            ("net.ipv4.tcp_max_syn_backlog", "1024", State::Warn),
            ("net.ipv4.tcp_congestion_control", "bbr", State::Ok),
            ("net.ipv4.tcp_congestion_control", "cubic", State::Note),
            ("net.ipv4.tcp_congestion_control", "reno", State::Warn),
            ("net.core.default_qdisc", "fq", State::Ok),
            ("net.core.default_qdisc", "fq_codel", State::Note),
            ("net.ipv4.tcp_wmem", "4096 16384 4194304", State::Ok),
            ("net.ipv4.tcp_wmem", "4096 16384 262144", State::Warn),
            ("net.ipv4.tcp_rmem", "4096 131072 4194304", State::Warn),
            ("net.ipv4.tcp_rmem", "4096", State::Unknown),
            ("net.ipv4.ip_local_port_range", "32768 60999", State::Ok),
            ("net.ipv4.ip_local_port_range", "60000 60099", State::Warn),
            ("net.ipv4.tcp_slow_start_after_idle", "1", State::Warn),
            ("net.ipv4.tcp_slow_start_after_idle", "0", State::Ok),
            ("net.ipv4.tcp_migrate_req", "0", State::Note),
            ("net.ipv4.tcp_migrate_req", "1", State::Ok),
            ("vm.swappiness", "60", State::Warn),
            ("vm.swappiness", "1", State::Ok),
        ];
        for (name, text, state) in table {
            let (_, judge) = SETTINGS.iter().find(|(known, _)| known == name).unwrap();
            let finding = judge(text, &facts);
            assert_eq!(finding.state, *state, "{name} = {text}");
            if matches!(state, State::Warn | State::Note) {
                let to_do = finding.to_do.unwrap();
                assert!(to_do.contains(&format!("`sysctl -w {name}=")), "{to_do}");
            }
        }
    }

    #[test]
    fn a_congestion_control_that_is_set_is_looked_for_in_this_kernel() {
        let of = |settings: &str| {
            let available = "proc/sys/net/ipv4/tcp_available_congestion_control";
            let (_folder, root) = with(&[(available, "reno cubic\n")]);
            let config = configured(settings);
            congestion_control("reno", &Facts { config: &config, root: &root })
        };
        assert_eq!(
            of("listeners.congestion = { http = 'cubic', https = 'reno' }").state,
            State::Ok
        );
        assert_eq!(of("listeners.congestion.http = 'cubic'").state, State::Warn, "https has reno");
        let finding = of("listeners.congestion.https = 'bbr'");
        assert!(finding.found.contains("`listeners.congestion.https`"), "{}", finding.found);
        assert_eq!(finding.to_do.unwrap(), "`modprobe tcp_bbr`, or choose one of: reno cubic");
    }

    #[test]
    fn what_cannot_be_read_is_unknown_and_without_swap_nothing_is_swapped_out() {
        let (_folder, root) = with(&[
            ("proc/swaps", "Filename Type\n"),
            ("proc/sys/vm/swappiness", "60\n"),
            ("proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t4194304\n"),
        ]);
        let findings = look(&subject("", root));
        let of = |name: &str| findings.iter().find(|finding| finding.of == name).unwrap();
        assert_eq!(of("vm.swappiness").state, State::Ok);
        assert_eq!(of("net.ipv4.tcp_wmem").found, "4096 16384 4194304");
        let unknown = findings.iter().filter(|finding| finding.state == State::Unknown);
        assert_eq!((findings.len(), unknown.count()), (11, 8));
    }

    #[test]
    fn a_firewalls_table_is_held_against_the_connections_where_there_is_one() {
        for (table, state) in [
            (None, State::Ok),
            (Some("262144\n"), State::Ok),
            (Some("4255\n"), State::Warn),
            (Some("4256\n"), State::Ok),
        ] {
            let files = table.map(|text| ("proc/sys/net/netfilter/nf_conntrack_max", text));
            let (_folder, root) = with(files.as_slice());
            let config = configured("limits.connections = 2000");
            let facts = Facts { config: &config, root: &root };
            assert_eq!(tracked(&facts).state, state, "{table:?}");
        }
    }
}
