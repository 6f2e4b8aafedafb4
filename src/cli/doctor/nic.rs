//! Network cards: link, speed, queues, errors. Interfaces without a device behind them are left
//! out, unless they bond such.

use super::Subject;
use super::finding::Finding;
use super::root::Root;

/// A slower card is hardly meant for video.
const SPEED_MIN_MBITS: i64 = 1_000;

/// Each card.
pub(super) fn look(subject: &Subject) -> Vec<Finding> {
    let root = &subject.root;
    let folder = |name: &str| format!("sys/class/net/{name}");
    let names = root.names("sys/class/net");
    let is_card = |name: &&String| {
        root.exists(folder(name) + "/device") || root.exists(folder(name) + "/bonding")
    };
    let cards: Vec<&String> = names.iter().filter(is_card).collect();
    if cards.is_empty() {
        return vec![Finding::unknown("no network card is seen", "look at `ip link`")];
    }
    let mut up = 0;
    let mut findings = Vec::new();
    for name in cards {
        let card = Card::read(root, &folder(name));
        up += usize::from(card.is_up());
        findings.extend(card.judge(name, subject.cores).into_iter().map(|found| found.of(name)));
    }
    if up == 0 {
        findings.push(Finding::warn("no card has a link", "look at cables and at `ip link`"));
    }
    findings
}

/// What one card says of itself.
#[derive(Debug, Default, PartialEq, Eq)]
struct Card {
    state: String,
    /// `None` where a card knows none, as virtual ones do not.
    speed_mbits: Option<i64>,
    is_half_duplex: bool,
    mtu: Option<u32>,
    receive_queues: usize,
    /// Frames that came broken.
    crc_errors: u64,
}

impl Card {
    fn read(root: &Root, folder: &str) -> Card {
        let queues = root.names(format!("{folder}/queues"));
        let speed = root.number::<i64>(format!("{folder}/speed"));
        Card {
            state: root.text(format!("{folder}/operstate")).unwrap_or_default(),
            speed_mbits: speed.filter(|mbits| *mbits > 0),
            is_half_duplex: root.text(format!("{folder}/duplex")).as_deref() == Some("half"),
            mtu: root.number(format!("{folder}/mtu")),
            receive_queues: queues.iter().filter(|queue| queue.starts_with("rx-")).count(),
            crc_errors: root.number(format!("{folder}/statistics/rx_crc_errors")).unwrap_or(0),
        }
    }

    fn is_up(&self) -> bool {
        self.state == "up"
    }

    fn judge(&self, name: &str, cores: usize) -> Vec<Finding> {
        if !self.is_up() {
            let state = if self.state.is_empty() { "unknown" } else { &self.state };
            let to_do = "plug it in or set it up, if it is meant to be used";
            return vec![Finding::note(format!("its link is {state}"), to_do)];
        }
        let mut findings = vec![self.link()];
        if self.receive_queues > 0 && self.receive_queues < cores {
            let queues = self.receive_queues;
            let found = format!("{queues} of {cores} processors take what it receives");
            let to_do = format!(
                "`ethtool -L {name} combined {cores}` if `ethtool -l {name}` says that it can, \
                 else receive packet steering (rps_cpus)"
            );
            findings.push(Finding::note(found, to_do));
        }
        if self.crc_errors > 0 {
            let found = format!("{} frames came broken since it started", self.crc_errors);
            findings.push(Finding::warn(found, "change the cable or the optics"));
        }
        findings
    }

    fn link(&self) -> Finding {
        let mtu = self.mtu.map(|mtu| format!(", frames of {mtu} bytes")).unwrap_or_default();
        let Some(mbits) = self.speed_mbits else {
            let found = format!("up{mtu}; it does not tell its speed");
            return Finding::unknown(found, "ask who runs the host; virtual cards know none");
        };
        let found = format!("up at {}{mtu}", speed_text(mbits));
        match () {
            () if self.is_half_duplex => {
                let to_do = "set both ends to negotiate, or both to full duplex";
                Finding::warn(format!("{found}, half duplex"), to_do)
            }
            () if mbits < SPEED_MIN_MBITS => {
                Finding::warn(found, "use a faster port, or look why both ends agreed on this")
            }
            () => Finding::ok(found),
        }
    }
}

fn speed_text(mbits: i64) -> String {
    match mbits % 1_000 {
        0 => format!("{} Gbit/s", mbits / 1_000),
        _ => format!("{mbits} Mbit/s"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::super::tests::{states, subject, with};
    use super::*;

    #[test]
    fn cards_are_told_by_link_speed_and_queues_and_what_is_no_card_is_not() {
        let (_folder, root) = with(&[
            ("sys/class/net/lo/operstate", "unknown"),
            ("sys/class/net/br0/operstate", "up"),
            ("sys/class/net/eth0/device/vendor", "0x8086"),
            ("sys/class/net/eth0/operstate", "up\n"),
            ("sys/class/net/eth0/speed", "25000\n"),
            ("sys/class/net/eth0/duplex", "full\n"),
            ("sys/class/net/eth0/mtu", "1500\n"),
            ("sys/class/net/eth0/queues/rx-0/x", ""),
            ("sys/class/net/eth0/queues/tx-0/x", ""),
            ("sys/class/net/eth1/device/vendor", "0x8086"),
            ("sys/class/net/eth1/operstate", "down\n"),
        ]);
        let findings = look(&Subject { cores: 4, ..subject("", root) });
        assert_eq!(findings[0], Finding::ok("up at 25 Gbit/s, frames of 1500 bytes").of("eth0"));
        assert_eq!(findings[1].found, "1 of 4 processors take what it receives");
        assert_eq!(findings[2].of, "eth1");
        assert_eq!(states(&findings), [State::Ok, State::Note, State::Note]);
    }

    #[test]
    fn what_slows_a_card_is_a_warning_and_what_it_does_not_tell_is_unknown() {
        let up = || Card { state: "up".to_owned(), ..Card::default() };
        let fast = || Card { speed_mbits: Some(10_000), ..up() };
        for (card, expected) in [
            (fast(), vec![State::Ok]),
            (up(), vec![State::Unknown]),
            (Card { speed_mbits: Some(100), ..up() }, vec![State::Warn]),
            (Card { is_half_duplex: true, ..fast() }, vec![State::Warn]),
            (Card { crc_errors: 7, ..fast() }, vec![State::Ok, State::Warn]),
        ] {
            assert_eq!(states(&card.judge("eth0", 4)), expected, "{card:?}");
        }
    }

    #[test]
    fn a_machine_without_a_link_is_told_so() {
        let (_folder, root) = with(&[("sys/class/net/eth0/device/vendor", "0x8086")]);
        let findings = look(&subject("", root));
        assert_eq!(states(&findings), [State::Note, State::Warn]);
        let (_folder, root) = with(&[]);
        assert_eq!(states(&look(&subject("", root))), [State::Unknown]);
    }
}
