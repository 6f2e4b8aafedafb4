//! The clock: whether something sets it, and how it is read.
//!
//! What the kernel itself knows of it takes a system call that no crate here makes safely, so
//! `timedatectl` is asked, which makes it. An origin that tells another time is told of where
//! origins are.

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
/// Says `yes` or `no`, whichever program sets the clock (`STA_UNSYNC` of adjtimex(2)).
const ASK: (&str, [&str; 3]) =
    ("usr/bin/timedatectl", ["show", "--property=NTPSynchronized", "--value"]);
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
    let service = SERVICES.iter().find(|(name, _)| runs(name));
    let name = service.map_or("none that can be seen", |(name, _)| name);
    match root.told_by(ASK.0, &ASK.1).as_deref().map(str::trim) {
        Ok("yes") => return Finding::ok(format!("the kernel says that it is set ({name})")),
        Ok("no") => {
            let found = format!("the kernel says that nothing has set it ({name})");
            let to_do = "run chrony or systemd-timesyncd, and look what it says";
            return Finding::warn(found, service.map_or(to_do, |(_, to_do)| to_do));
        }
        _ => {}
    }
    if let Some((name, to_do)) = service {
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
    use super::super::tests::{program, with};
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
    fn what_the_kernel_says_is_asked_of_timedatectl() {
        for (says, state) in [("yes", State::Ok), ("no", State::Warn), ("", State::Unknown)] {
            let (folder, root) = with(&[("proc/5/comm", "chronyd\n")]);
            program(folder.path(), ASK.0, &format!("[ $2 = {} ] && echo {says}", ASK.1[1]));
            let finding = set_by(&root);
            assert_eq!(finding.state, state, "{says}");
            assert!(finding.found.contains("chronyd"), "{finding:?}");
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
