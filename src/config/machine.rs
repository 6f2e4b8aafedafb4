//! What this machine has: processors and memory, as far as this process may use them.
//!
//! A container's or unit's limit counts as the machine's memory: the ram tier is a share of what
//! can be had, not of what is built in.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

/// Processors and memory this process may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Processors, by affinity and control group.
    pub cores: usize,
    /// Bytes of memory, by control group; `None` if the system does not say.
    pub memory_bytes: Option<u64>,
}

impl Machine {
    /// This one, now.
    pub fn here() -> Machine {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let built_in = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_of(&text));
        let limit = fs::read_to_string("/proc/self/cgroup").ok().and_then(|text| limit_of(&text));
        let memory_bytes = built_in.map(|bytes| bytes.min(limit.unwrap_or(u64::MAX)));
        Machine { cores, memory_bytes }
    }
}

/// `MemTotal` of `/proc/meminfo`.
fn total_of(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The least memory limit of the control groups this process is in, and of those around them.
fn limit_of(cgroups: &str) -> Option<u64> {
    let files = cgroups.lines().filter_map(limit_file);
    files.flat_map(|(root, group, file)| limits_up(&root, &group, file)).min()
}

/// Of one line of `/proc/self/cgroup`: where memory limits of its group lie.
fn limit_file(line: &str) -> Option<(PathBuf, PathBuf, &'static str)> {
    let mut fields = line.splitn(3, ':');
    let (_, controllers, group) = (fields.next()?, fields.next()?, fields.next()?);
    let group = PathBuf::from(group.trim_start_matches('/'));
    match controllers {
        "" => Some((PathBuf::from("/sys/fs/cgroup"), group, "memory.max")),
        "memory" => Some((PathBuf::from("/sys/fs/cgroup/memory"), group, "memory.limit_in_bytes")),
        _ => None,
    }
}

fn limits_up(root: &Path, group: &Path, file: &str) -> Vec<u64> {
    let folders = group.ancestors().map(|folder| root.join(folder).join(file));
    folders.filter_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_the_systems_words() {
        assert_eq!(total_of("MemTotal:       24504 kB\nMemFree: 1 kB\n"), Some(24_504 << 10));
        assert_eq!(total_of("MemFree: 1 kB\n"), None);
        let file = limit_file("0::/system.slice/tidegate.service").unwrap();
        assert_eq!(file.1, Path::new("system.slice/tidegate.service"));
        assert_eq!(limit_file("5:memory:/").unwrap().2, "memory.limit_in_bytes");
        assert_eq!(limit_file("3:cpu,cpuacct:/"), None);
    }

    #[test]
    fn the_least_limit_around_a_group_counts() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("a/b")).unwrap();
        fs::write(root.path().join("a/memory.max"), "1000\n").unwrap();
        fs::write(root.path().join("a/b/memory.max"), "max\n").unwrap();
        assert_eq!(limits_up(root.path(), Path::new("a/b"), "memory.max"), [1_000]);
    }
}
