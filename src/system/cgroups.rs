//! The control groups of this process (cgroups(7)), version 1 and 2: their limits of processes and
//! memory.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A limit that this process shares with others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    /// The name that administrators know.
    pub(crate) name: &'static str,
    pub(crate) max: u64,
    /// What all processes together use now.
    pub(crate) used: u64,
}

impl Limit {
    /// What is left of the limit.
    pub(crate) fn left(&self) -> u64 {
        self.max.saturating_sub(self.used)
    }
}

/// Limits above this number of bytes mean "no limit" in version 1.
const MAX_V1_BYTES: u64 = 1 << 60;

/// The files of a controller in one version.
struct Controller {
    name: &'static str,
    /// Files of the limit and the use, in version 2 and in version 1.
    files: [[&'static str; 2]; 2],
}

const PIDS: Controller = Controller {
    name: "pids",
    files: [["pids.max", "pids.current"], ["pids.max", "pids.current"]],
};

const MEMORY: Controller = Controller {
    name: "memory",
    files: [["memory.max", "memory.current"], ["memory.limit_in_bytes", "memory.usage_in_bytes"]],
};

/// Where the control groups of a process stand, as the kernel describes it.
pub(super) struct Cgroups {
    /// `/proc/self/cgroup`.
    groups: String,
    /// `/proc/self/mountinfo`.
    mounts: String,
}

impl Cgroups {
    /// The control groups of this process.
    pub(super) fn of_this_process() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self { groups: read("/proc/self/cgroup"), mounts: read("/proc/self/mountinfo") }
    }

    /// The limits of processes and threads, of the group and all groups above it.
    pub(super) fn processes(&self) -> Vec<Limit> {
        self.limits(&PIDS, |_| 0)
    }

    /// The limits of memory in bytes. Memory that the kernel takes back from its cache of files
    /// counts as free.
    pub(super) fn memory(&self) -> Vec<Limit> {
        self.limits(&MEMORY, |directory| {
            let text = fs::read_to_string(directory.join("memory.stat")).unwrap_or_default();
            let value = |name: &str| -> u64 {
                let find = |name: &str| {
                    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
                    lines.find(|(known, _)| *known == name)?.1.parse().ok()
                };
                // Version 1 has the sum with the groups below under another name.
                find(&format!("total_{name}")).or_else(|| find(name)).unwrap_or(0)
            };
            value("inactive_file") + value("active_file")
        })
    }

    fn limits(&self, controller: &Controller, reclaimable: impl Fn(&Path) -> u64) -> Vec<Limit> {
        let mut limits = Vec::new();
        for (is_v1, [limit, usage]) in [false, true].into_iter().zip(controller.files) {
            let Some((mount, group)) = self.directory(controller.name, is_v1) else { continue };
            for directory in group.ancestors().take_while(|path| path.starts_with(&mount)) {
                let number = |file: &str| -> Option<u64> {
                    fs::read_to_string(directory.join(file)).ok()?.trim().parse().ok()
                };
                // `max` is no number: the group has no limit.
                let (Some(max), Some(used)) = (number(limit), number(usage)) else { continue };
                if max < MAX_V1_BYTES {
                    let used = used.saturating_sub(reclaimable(directory));
                    limits.push(Limit { name: limit, max, used });
                }
            }
        }
        limits
    }

    /// The directory of the group for `controller`, below the directory where its hierarchy is
    /// mounted.
    fn directory(&self, controller: &str, is_v1: bool) -> Option<(PathBuf, PathBuf)> {
        let group = self.groups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            let is_it = if is_v1 {
                controllers.split(',').any(|known| known == controller)
            } else {
                controllers.is_empty()
            };
            is_it.then_some(path)
        })?;
        self.mounts.lines().find_map(|line| {
            let (place, kind) = line.split_once(" - ")?;
            let mut kind = kind.split(' ');
            let (file_system, options) = (kind.next()?, kind.nth(1).unwrap_or_default());
            let is_it = if is_v1 {
                file_system == "cgroup" && options.split(',').any(|known| known == controller)
            } else {
                file_system == "cgroup2"
            };
            let mut place = place.split(' ').skip(3);
            let (root, mount) = (place.next()?, place.next()?);
            // A container may see only its own group, which is mounted under another name.
            let below = Path::new(group).strip_prefix(root).unwrap_or(Path::new(""));
            let is_inside = !below.iter().any(|part| part == "..");
            let mount = PathBuf::from(mount);
            let directory = if is_inside { mount.join(below) } else { mount.clone() };
            is_it.then_some((mount, directory))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hierarchy mounted at a temporary directory, with the group `/site/app` of this process.
    fn groups(kind: &str, groups: &str, files: &[(&str, &str)]) -> (tempfile::TempDir, Cgroups) {
        let mount = tempfile::TempDir::new().unwrap();
        for (path, content) in files {
            let path = mount.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let mounts = format!("30 23 0:28 / {} rw shared:9 - {kind}\n", mount.path().display());
        (mount, Cgroups { groups: groups.to_owned(), mounts })
    }

    #[test]
    fn the_limits_of_version_2_include_those_of_the_groups_above() {
        let (_mount, groups) = groups(
            "cgroup2 cgroup2 rw",
            "0::/site/app\n",
            &[
                ("site/pids.max", "100\n"),
                ("site/pids.current", "40\n"),
                ("site/app/pids.max", "max\n"),
                ("site/app/pids.current", "30\n"),
                ("site/app/memory.max", "536870912\n"),
                ("site/app/memory.current", "104857600\n"),
                ("site/app/memory.stat", "anon 5\nactive_file 1048576\ninactive_file 2097152\n"),
            ],
        );
        assert_eq!(groups.processes(), [Limit { name: "pids.max", max: 100, used: 40 }]);
        let memory = Limit { name: "memory.max", max: 512 << 20, used: 97 << 20 };
        assert_eq!(groups.memory(), [memory]);
    }

    #[test]
    fn the_limits_of_version_1_are_read_from_the_hierarchy_of_the_controller() {
        let (_mount, groups) = groups(
            "cgroup cgroup rw,memory",
            "3:cpu,cpuacct:/other\n2:memory:/site/app\n0::/\n",
            &[
                ("memory.limit_in_bytes", "9223372036854771712\n"),
                ("memory.usage_in_bytes", "1\n"),
                ("site/app/memory.limit_in_bytes", "1048576\n"),
                ("site/app/memory.usage_in_bytes", "5000\n"),
                ("site/app/memory.stat", "total_inactive_file 1000\ninactive_file 1\n"),
            ],
        );
        let memory = Limit { name: "memory.limit_in_bytes", max: 1 << 20, used: 4000 };
        assert_eq!(groups.memory(), [memory]);
        assert_eq!(groups.processes(), []);
    }

    #[test]
    fn a_container_sees_its_group_at_the_mount_point() {
        for group in ["0::/\n", "0::/../../other\n", "0::/elsewhere\n"] {
            let files = [("pids.max", "10\n"), ("pids.current", "4\n")];
            let (_mount, groups) = groups("cgroup2 cgroup2 rw", group, &files);
            assert_eq!(
                groups.processes(),
                [Limit { name: "pids.max", max: 10, used: 4 }],
                "{group}"
            );
        }
    }
}
