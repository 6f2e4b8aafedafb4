//! The clock: whether something sets it, and how it is read.
//!
//! What the kernel itself knows of it takes a system call that no crate here makes safely, so some
//! of it cannot be told. An origin that tells another time is told of where origins are.

use super::Subject;
use super::finding::Finding;
use super::root::Root;

/// Programs that set clocks, each with what tells whether it has.
const SERVICES: [(&str, &str); 5] = [
    ("chronyd", "look at `chronyc tracking`"),
    ("ntpd", "look at `ntpq -p`"),
    ("openntpd", "look at `ntpctl -s status`"),
    ("ptp4l", "look at what it logs"),
    ("phc2sys", "look at what it logs"),
];
/// As the kernel cuts it.
const TIMESYNCD: &str = "systemd-timesyn";
/// Which systemd's own service makes when it has set the clock.
const IS_SET: &str = "run/systemd/timesync/synchronized";

/// Each of them.
pub(super) fn look(subject: &Subject) -> Vec<Finding> {
    vec![set_by(&subject.root).of("set by"), source(&subject.root).of("source")]
}

fn set_by(root: &Root) -> Finding {
    let runs = |name: &str| root.processes().any(|(_, found)| found == name);
    if root.exists(IS_SET) {
        return Finding::ok("systemd-timesyncd has set it");
    }
    if let Some((name, to_do)) = SERVICES.iter().find(|(name, _)| runs(name)) {
        let found = format!("{name} runs; this cannot tell whether it has set the clock");
        return Finding::unknown(found, *to_do);
    }
    if runs(TIMESYNCD) {
        return Finding::warn(
            "systemd-timesyncd runs and has not set the clock",
            "look at `timedatectl timesync-status`: lifetimes and certificates need the time",
        );
    }
    Finding::unknown(
        "cannot tell: no service that sets it can be seen",
        "run chrony or systemd-timesyncd: lifetimes and certificates need the time",
    )
}

fn source(root: &Root) -> Finding {
    let path = "sys/devices/system/clocksource/clocksource0/current_clocksource";
    match root.text(path).as_deref() {
        Some(slow @ ("acpi_pm" | "hpet" | "jiffies" | "refined-jiffies")) => Finding::warn(
            format!("{slow}: each look at the clock is slow, and each request takes several"),
            "look in `dmesg` why the kernel does not trust tsc",
        ),
        Some(source) => Finding::ok(source),
        None => Finding::unknown("this kernel does not say", format!("look at /{path}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::super::tests::with;
    use super::*;

    #[test]
    fn what_sets_the_clock_is_told_and_what_cannot_be_told_too() {
        for (files, state, words) in [
            (&[(IS_SET, "")][..], State::Ok, "has set it"),
            (&[("proc/5/comm", "chronyd\n")], State::Unknown, "chronyd runs"),
            (&[("proc/5/comm", "systemd-timesyn\n")], State::Warn, "has not set"),
            (&[("proc/5/comm", "sshd\n")], State::Unknown, "cannot tell"),
        ] {
            let (_folder, root) = with(files);
            let finding = set_by(&root);
            assert_eq!(finding.state, state, "{files:?}");
            assert!(finding.found.contains(words), "{finding:?}");
        }
    }

    #[test]
    fn a_slow_source_is_told() {
        let path = "sys/devices/system/clocksource/clocksource0/current_clocksource";
        for (text, state) in [("tsc\n", State::Ok), ("kvm-clock", State::Ok), ("hpet", State::Warn)]
        {
            assert_eq!(source(&with(&[(path, text)]).1).state, state, "{text}");
        }
    }
}
