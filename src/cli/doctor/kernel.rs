//! The kernel: its version, whether io_uring works, how many files may be open.

use std::io;

use super::Subject;
use super::finding::Finding;
use super::root::Root;
use crate::config::{Config, EngineChoice};
use crate::store::device;

/// From here on connections that wait at a closed listener can move to another.
const MIGRATES_REQUESTS: (u32, u32) = (5, 14);
/// From here on io_uring has all that volumes need of it.
const HAS_IO_URING: (u32, u32) = (5, 6);
/// Descriptors beside connections, volumes and listeners: logs, runtimes, admin.
const FILES_BESIDE: u64 = 256;
/// What a volume takes: its file, its ring, its bell.
const FILES_PER_VOLUME: u64 = 3;

/// The version.
pub(super) fn version(subject: &Subject) -> Vec<Finding> {
    let release = subject.root.text("proc/sys/kernel/osrelease");
    vec![match release {
        Some(release) => judge_version(&release),
        None => Finding::unknown("its version cannot be read", "look at `uname -r`"),
    }]
}

fn judge_version(release: &str) -> Finding {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        return Finding::unknown(format!("{release}, which is no version"), "look at `uname -r`");
    };
    match (major, minor) {
        version if version < HAS_IO_URING => Finding::warn(
            format!("{release}: io_uring is too young, so volumes are read by threads"),
            "run a kernel from 5.14 on",
        ),
        version if version < MIGRATES_REQUESTS => Finding::note(
            format!("{release}: connections that wait at a closed listener are lost"),
            "run a kernel from 5.14 on",
        ),
        _ => Finding::ok(release),
    }
}

/// Whether a ring really reads.
pub(super) fn io_uring(subject: &Subject) -> Vec<Finding> {
    vec![judge_ring(device::try_uring(), &subject.config, &subject.root)]
}

fn judge_ring(tried: io::Result<()>, config: &Config, root: &Root) -> Finding {
    let error = match tried {
        Ok(()) => return Finding::ok("a ring was made and read through"),
        Err(error) => error,
    };
    let to_do = match root.number::<u32>("proc/sys/kernel/io_uring_disabled") {
        Some(1) => {
            "`sysctl -w kernel.io_uring_disabled=0`, or put the user into \
                    kernel.io_uring_group"
        }
        Some(2) => "`sysctl -w kernel.io_uring_disabled=0`",
        _ => {
            "let the container or the unit make the system calls io_uring_setup, io_uring_enter \
              and io_uring_register"
        }
    };
    let found = format!("no ring can be used: {error}");
    match (config.ssd.volumes.is_empty(), config.ssd.engine) {
        (true, _) => Finding::note(format!("{found}; no volume needs one"), to_do),
        (_, EngineChoice::Uring) => {
            let to_do = format!("{to_do}, or set `ssd.engine` to \"auto\"");
            Finding::fail(format!("{found}, and `ssd.engine` wants no other"), to_do)
        }
        (_, EngineChoice::Auto) => {
            Finding::warn(format!("{found}; volumes are read by threads, which costs more"), to_do)
        }
        (_, EngineChoice::Threads) => {
            Finding::note(format!("{found}; `ssd.engine` wants threads"), to_do)
        }
    }
}

/// How many files may be open, of the running appliance or else of this shell.
pub(super) fn files(subject: &Subject) -> Vec<Finding> {
    let Subject { config, root, .. } = subject;
    let running = root.appliance();
    let limits = match running {
        Some(number) => root.text(format!("proc/{number}/limits")),
        None => root.text("proc/self/limits"),
    };
    let of = if running.is_some() { "the running appliance" } else { "this shell" };
    let needs = files_needed(config);
    vec![match limits.as_deref().and_then(files_max) {
        Some(allowed) => judge_files(allowed, needs, of),
        None => Finding::unknown(
            format!("how many {of} may open cannot be read; {needs} are needed"),
            "look at `ulimit -Hn`",
        ),
    }]
}

fn judge_files(allowed: u64, needs: u64, of: &str) -> Finding {
    if allowed >= needs {
        let allowed = if allowed == u64::MAX { "any number".into() } else { allowed.to_string() };
        return Finding::ok(format!("{of} may open {allowed}, {needs} are needed"));
    }
    Finding::warn(
        format!("{of} may open {allowed}; `limits.connections` and all else need {needs}"),
        format!("set LimitNOFILE={needs} in the unit, or lower `limits.connections`"),
    )
}

/// Serving raises the soft limit to the hard one.
fn files_max(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().nth(1)? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

fn files_needed(config: &Config) -> u64 {
    let origins = config.sites.iter().flat_map(|site| &site.origins);
    let to_origins: u64 = origins.map(|origin| origin.connections_max as u64).sum();
    let listeners = (config.listeners.len() * config.threads.workers) as u64;
    let volumes = FILES_PER_VOLUME * config.ssd.volumes.len() as u64;
    config.limits.connections_max as u64 + to_origins + listeners + volumes + FILES_BESIDE
}

#[cfg(test)]
mod tests {
    use super::super::finding::State;
    use super::super::tests::{configured, subject, with};
    use super::*;

    #[test]
    fn a_version_is_judged_by_what_is_missing_in_it() {
        for (release, state) in [
            ("6.18.44-cloud", State::Ok),
            ("5.14", State::Ok),
            ("5.10.0-30-amd64", State::Note),
            ("4.19.0", State::Warn),
            ("unknown", State::Unknown),
        ] {
            assert_eq!(judge_version(release).state, state, "{release}");
        }
    }

    #[test]
    fn a_ring_that_does_not_work_matters_as_far_as_volumes_need_it() {
        let (_folder, root) = with(&[("proc/sys/kernel/io_uring_disabled", "2\n")]);
        let folder = tempfile::tempdir().unwrap();
        let volume = format!(
            "[[ssd.volumes]]\npath = {:?}\nsize = '1 GiB'\nwrites_per_day = '1x'",
            folder.path().join("volume")
        );
        let refused = || Err(io::Error::from_raw_os_error(libc::EPERM));
        for (settings, state) in [
            (String::new(), State::Note),
            (volume.clone(), State::Warn),
            (format!("ssd.engine = 'threads'\n{volume}"), State::Note),
            (format!("ssd.engine = 'uring'\n{volume}"), State::Fail),
        ] {
            let finding = judge_ring(refused(), &configured(&settings), &root);
            assert_eq!(finding.state, state, "{settings}");
            let to_do = finding.to_do.unwrap();
            assert!(to_do.starts_with("`sysctl -w kernel.io_uring_disabled=0`"), "{to_do}");
        }
        assert_eq!(judge_ring(Ok(()), &configured(""), &root).state, State::Ok);
    }

    #[test]
    fn the_running_appliances_limit_counts_before_this_shells() {
        let limits =
            |hard: &str| format!("Limit  Soft  Hard\nMax open files  1024  {hard}  files\n");
        let own = ("proc/self/limits", limits("1048576"));
        let files = |files: &[(&str, String)]| {
            let files: Vec<_> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
            let (_folder, root) = with(&files);
            super::files(&subject("limits.connections = 2000", root)).remove(0)
        };
        assert_eq!(files(std::slice::from_ref(&own)).state, State::Ok);
        let appliance = [
            own,
            ("proc/9/comm", "tidegate".to_owned()),
            ("proc/9/cmdline", "tidegate\0serve\0".to_owned()),
            ("proc/9/limits", limits("2048")),
        ];
        let found = files(&appliance);
        assert_eq!(found.state, State::Warn);
        assert!(found.found.starts_with("the running appliance may open 2048"), "{found:?}");
        assert_eq!(files(&[]).state, State::Unknown);
        assert_eq!(files_max(&limits("unlimited")), Some(u64::MAX));
    }
}
