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
        let built_in =
            fs::read_to_string("/proc/meminfo").ok().and_then(|text| bytes_of(&text, "MemTotal"));
        let limit = fs::read_to_string("/proc/self/cgroup").ok().and_then(|text| limit_of(&text));
        let memory_bytes = built_in.map(|bytes| bytes.min(limit.unwrap_or(u64::MAX)));
        Machine { cores, memory_bytes }
    }
}

/// Bytes of memory that can be had now without anything else giving up its own, by control group;
/// `None` if the system does not say.
pub fn available_bytes() -> Option<u64> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let machine = bytes_of(&meminfo, "MemAvailable")?;
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let left = groups.lines().filter_map(Group::of).flat_map(|group| group.left_up());
    Some(left.fold(machine, u64::min))
}

/// What this process holds of shared memory, as the ram tier is; `None` if the system does not say.
pub fn shared_bytes_held() -> Option<u64> {
    bytes_of(&fs::read_to_string("/proc/self/status").ok()?, "RssShmem")
}

/// What a line of `/proc/meminfo`, or of a process's status, says.
fn bytes_of(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = lines.find(|(found, _)| *found == name)?;
    value.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The least memory limit of the control groups this process is in, and of those around them.
fn limit_of(groups: &str) -> Option<u64> {
    groups.lines().filter_map(Group::of).flat_map(|group| group.limits_up()).min()
}

/// A control group that memory is counted of.
struct Group {
    root: PathBuf,
    group: PathBuf,
    words: &'static Words,
}

/// What its files are called.
#[derive(Debug, PartialEq, Eq)]
struct Words {
    limit: &'static str,
    used: &'static str,
    /// Lines of `memory.stat`: what is kept of files, and given up when it is wanted.
    spare: [&'static str; 2],
}

const SECOND: Words =
    Words { limit: "memory.max", used: "memory.current", spare: ["active_file", "inactive_file"] };
const FIRST: Words = Words {
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    spare: ["total_active_file", "total_inactive_file"],
};

impl Group {
    /// Of one line of `/proc/self/cgroup`.
    fn of(line: &str) -> Option<Group> {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, group) = (fields.next()?, fields.next()?, fields.next()?);
        let group = PathBuf::from(group.trim_start_matches('/'));
        let (root, words) = match controllers {
            "" => ("/sys/fs/cgroup", &SECOND),
            "memory" => ("/sys/fs/cgroup/memory", &FIRST),
            _ => return None,
        };
        Some(Group { root: PathBuf::from(root), group, words })
    }

    /// Its folder and those around it.
    fn folders(&self) -> impl Iterator<Item = PathBuf> {
        self.group.ancestors().map(|folder| self.root.join(folder))
    }

    fn limits_up(&self) -> Vec<u64> {
        self.folders().filter_map(|folder| number_in(&folder.join(self.words.limit))).collect()
    }

    /// What each of them leaves.
    fn left_up(&self) -> Vec<u64> {
        self.folders().filter_map(|folder| self.left_in(&folder)).collect()
    }

    fn left_in(&self, folder: &Path) -> Option<u64> {
        let limit = number_in(&folder.join(self.words.limit))?;
        let used = number_in(&folder.join(self.words.used))?;
        let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
        let lines = stat.lines().filter_map(|line| line.split_once(' '));
        let spare = lines.filter(|(name, _)| self.words.spare.contains(name));
        let spare: u64 = spare.filter_map(|(_, value)| value.trim().parse::<u64>().ok()).sum();
        Some(limit.saturating_sub(used.saturating_sub(spare)))
    }
}

fn number_in(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_the_systems_words() {
        let text = "MemTotal:       24504 kB\nMemFree: 1 kB\n";
        assert_eq!(bytes_of(text, "MemTotal"), Some(24_504 << 10));
        assert_eq!(bytes_of(text, "MemAvailable"), None);
        let group = |line| Group::of(line).map(|group| (group.group, group.words));
        let unit = PathBuf::from("system.slice/tidegate.service");
        assert_eq!(group("0::/system.slice/tidegate.service"), Some((unit, &SECOND)));
        assert_eq!(group("5:memory:/"), Some((PathBuf::new(), &FIRST)));
        assert_eq!(group("3:cpu,cpuacct:/"), None);
    }

    #[test]
    fn the_least_limit_around_a_group_counts_and_what_it_leaves() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| fs::write(root.path().join(path), text).unwrap();
        fs::create_dir_all(root.path().join("a/b")).unwrap();
        write("a/memory.max", "1000\n");
        write("a/b/memory.max", "max\n");
        let path = root.path().to_owned();
        let group = Group { root: path, group: PathBuf::from("a/b"), words: &SECOND };
        assert_eq!((group.limits_up(), group.left_up()), (vec![1_000], vec![]));
        write("a/memory.current", "900\n");
        assert_eq!(group.left_up(), [100]);
        write("a/memory.stat", "anon 500\ninactive_file 200\nactive_file 50\nshmem 150\n");
        assert_eq!(group.left_up(), [350]);
        write("a/memory.current", "1200\n");
        assert_eq!(group.left_up(), [50]);
        assert!(available_bytes().is_none_or(|bytes| bytes > 0));
    }
}
