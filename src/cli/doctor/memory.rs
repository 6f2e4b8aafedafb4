//! Memory: what there is against `memory.total`, for slow readers and for two processes in an
//! upgrade, and huge pages.

use super::Subject;
use super::finding::Finding;
use super::root::Root;
use crate::appliance::{beside_bytes, connections_affordable, readers_affordable};
use crate::config::units::bytes_about;
use crate::config::{Config, Memory};

/// What the kernel and all other programs are left.
const SHARE_MAX_PERCENT: u64 = 90;

/// Each of them.
pub(super) fn look(subject: &Subject) -> Vec<Finding> {
    let Subject { config, root, allowed_bytes, .. } = subject;
    let total = total(&config.memory, root, *allowed_bytes).of("memory.total");
    let huge_pages = [
        shared_huge_pages(root).of("huge pages of the ram tier"),
        huge_pages(root).of("huge pages of all else"),
    ];
    let upgrade = upgrade(config, root).map(|finding| finding.of("memory for an upgrade"));
    let slow_readers = slow_readers(config).of("memory for slow readers");
    [total, slow_readers].into_iter().chain(upgrade).chain(huge_pages).collect()
}

/// `allowed_bytes`: what control groups leave this process, as a container's do.
fn total(memory: &Memory, root: &Root, allowed_bytes: Option<u64>) -> Finding {
    let meminfo = root.text("proc/meminfo").unwrap_or_default();
    let wanted_bytes = memory.total_bytes;
    let wanted = bytes_about(wanted_bytes);
    let Some(built_in_bytes) = kib_of(&meminfo, "MemTotal") else {
        return Finding::unknown(
            format!("{wanted}; what this machine has cannot be read"),
            "look at `free -h`",
        );
    };
    let huge_bytes = taken_by_huge_pages(&meminfo);
    let has_bytes = built_in_bytes.saturating_sub(huge_bytes);
    let mut has = bytes_about(has_bytes);
    if huge_bytes > 0 {
        has += &format!(" beside {} of huge pages that it never uses", bytes_about(huge_bytes));
    }
    let allowed_bytes = allowed_bytes.filter(|bytes| *bytes < has_bytes);
    let has_bytes = has_bytes.min(allowed_bytes.unwrap_or(u64::MAX));
    if let Some(bytes) = allowed_bytes {
        has = format!("{} that its control group may have", bytes_about(bytes));
    }
    let found = format!("{wanted} of {has}");
    if wanted_bytes > has_bytes {
        return Finding::fail(
            format!("{found}: the kernel would kill it"),
            "lower `memory.total`, or give back huge pages (vm.nr_hugepages)",
        );
    }
    if wanted_bytes > has_bytes / 100 * SHARE_MAX_PERCENT {
        return Finding::warn(
            format!("{found}: little is left for the kernel's sockets and all else"),
            format!("lower `memory.total` to {SHARE_MAX_PERCENT}% of the machine or less"),
        );
    }
    // Of one that runs, what it holds is no longer available, and need not be.
    let available_bytes = kib_of(&meminfo, "MemAvailable").unwrap_or(u64::MAX);
    if available_bytes < wanted_bytes && root.appliance().is_none() {
        return Finding::warn(
            format!("{found}, of which {} are available now", bytes_about(available_bytes)),
            "stop what else takes memory, or lower `memory.total`",
        );
    }
    Finding::ok(found)
}

/// Whether the appliance that runs could be followed by one with this configuration.
fn upgrade(config: &Config, root: &Root) -> Option<Finding> {
    let meminfo = root.text("proc/meminfo")?;
    let available_bytes = kib_of(&meminfo, "MemAvailable")?;
    let status = root.text(format!("proc/{}/status", root.appliance()?))?;
    let needed_bytes = beside_bytes(config, kib_of(&status, "RssShmem")?);
    let (needed, available) = (bytes_about(needed_bytes), bytes_about(available_bytes));
    let found = format!("{needed} more while there are two processes, {available} are available");
    Some(match needed_bytes <= available_bytes {
        true => Finding::ok(found),
        false => Finding::warn(
            format!("{found}: `tidegate upgrade` is refused"),
            "stop what else takes memory, lower `memory.ram`, or restart the service instead",
        ),
    })
}

/// Whether all who may be connected may read slowly.
fn slow_readers(config: &Config) -> Finding {
    let (most, slow) = (connections_affordable(config), readers_affordable(config));
    let found = format!("{slow} of a site may read slowly, {most} may be connected");
    if most as u64 <= slow {
        return Finding::ok(found);
    }
    Finding::note(
        format!("{found}: where more do, new viewers are refused"),
        "raise `memory.ram`, lower `limits.connections`, or set `limits.client.connections`",
    )
}

fn kib_of(meminfo: &str, name: &str) -> Option<u64> {
    let mut fields = meminfo.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = fields.find(|(field, _)| *field == name)?;
    value.trim().trim_end_matches(" kB").parse::<u64>().ok()?.checked_mul(1_024)
}

fn taken_by_huge_pages(meminfo: &str) -> u64 {
    kib_of(meminfo, "Hugetlb").unwrap_or(0)
}

/// The ram tier is a mapping of shared memory: pages that are larger than a piece are held whole
/// for any piece in them, which the budget does not know.
fn shared_huge_pages(root: &Root) -> Finding {
    let switch = "sys/kernel/mm/transparent_hugepage/shmem_enabled";
    match root.choice(switch).as_deref() {
        Some(set @ ("always" | "within_size" | "force")) => Finding::warn(
            format!("{set}: the ram tier may hold more memory than `memory.total` knows of"),
            format!("`echo advise > /{switch}`, and at boot too"),
        ),
        Some(set) => Finding::ok(set),
        None => Finding::unknown("this kernel does not say", format!("look at /{switch}")),
    }
}

fn huge_pages(root: &Root) -> Finding {
    let switch = "sys/kernel/mm/transparent_hugepage/enabled";
    match root.choice(switch).as_deref() {
        Some("always") => Finding::note(
            "always: what many connections hold may take more memory than they need",
            format!("`echo madvise > /{switch}`, and at boot too"),
        ),
        Some(set) => Finding::ok(set),
        None => Finding::unknown("this kernel does not say", format!("look at /{switch}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::super::tests::{configured, with};
    use super::*;

    const GIB: u64 = 1 << 30;

    fn of(total_gib: u64, files: &[(&str, &str)]) -> Finding {
        within(total_gib, files, None)
    }

    fn within(total_gib: u64, files: &[(&str, &str)], allowed_bytes: Option<u64>) -> Finding {
        let (_folder, root) = with(files);
        total(&Memory { total_bytes: total_gib * GIB, ram_bytes: GIB }, &root, allowed_bytes)
    }

    #[test]
    fn memory_total_is_held_against_what_there_is() {
        let meminfo = "MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\nHugetlb: 2097152 kB\n";
        let machine = [("proc/meminfo", meminfo)];
        for (total_gib, state) in
            [(4, State::Ok), (10, State::Warn), (13, State::Warn), (15, State::Fail)]
        {
            assert_eq!(of(total_gib, &machine).state, state, "{total_gib} GiB");
        }
        let running =
            [machine[0], ("proc/9/comm", "tidegate"), ("proc/9/cmdline", "tidegate\0serve")];
        assert_eq!(of(10, &running).state, State::Ok, "it holds what is not available");
        assert_eq!(of(4, &[]).state, State::Unknown);
        let (allowed, refused) =
            (within(4, &machine, Some(8 * GIB)), within(4, &machine, Some(GIB)));
        assert_eq!((allowed.state, refused.state), (State::Ok, State::Fail));
        assert!(refused.found.contains("1.0 GiB that its control group may have"), "{refused:?}");
    }

    #[test]
    fn who_could_not_be_followed_for_want_of_memory_is_warned() {
        let of = |files: &[(&str, &str)]| {
            let (_folder, root) = with(files);
            upgrade(&configured("memory.total = '1 GiB'"), &root).map(|found| found.state)
        };
        let machine = ("proc/meminfo", "MemTotal: 16777216 kB\nMemAvailable: 65536 kB\n");
        let process = [("proc/9/comm", "tidegate"), ("proc/9/cmdline", "tidegate\0serve")];
        let holds = |status| of(&[machine, process[0], process[1], ("proc/9/status", status)]);
        assert_eq!(holds("Name:\ttidegate\nRssShmem:\t   65536 kB\n"), Some(State::Ok));
        assert_eq!(holds("RssShmem:\t   16384 kB\n"), Some(State::Warn));
        assert_eq!(of(&[machine]), None, "none runs");
    }

    #[test]
    fn it_is_told_where_slow_readers_could_hold_all_that_others_need() {
        for (connections, state) in [(336, State::Ok), (337, State::Note)] {
            let found = slow_readers(&configured(&format!("limits.connections = {connections}")));
            assert_eq!(found.state, state, "{found:?}");
        }
    }

    #[test]
    fn huge_pages_that_the_budget_does_not_know_are_told() {
        let folder = "sys/kernel/mm/transparent_hugepage";
        for (set, ram_tier, all_else) in [
            ("[always] advise madvise never", State::Warn, State::Note),
            ("always [never]", State::Ok, State::Ok),
            ("", State::Unknown, State::Unknown),
        ] {
            let (shared, other) = (format!("{folder}/shmem_enabled"), format!("{folder}/enabled"));
            let (_folder, root) = with(&[(&shared, set), (&other, set)]);
            assert_eq!(shared_huge_pages(&root).state, ram_tier, "{set}");
            assert_eq!(huge_pages(&root).state, all_else, "{set}");
        }
    }
}
