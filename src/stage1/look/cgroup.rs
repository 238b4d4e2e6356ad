//! The memory that the control groups of this process leave it: what it writes into a memory file system counts against
//! them, and the kernel ends somebody when it is too much, however much the device has.
//!
//! Reads only.

use crate::disk::mounts;
use crate::files;

/// A generation of control groups, by the names of its files.
struct Hierarchy {
    /// The controller, as /proc/self/cgroup and the mount's options have it; the second generation has none to name.
    controller: &'static str,
    file_system: &'static str,
    limits: &'static [&'static str],
    usage: &'static str,
    /// Lines of memory.stat: what the kernel takes back before it ends anybody.
    reclaimable: [&'static str; 2],
}

/// Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
const HIERARCHIES: [Hierarchy; 2] = [
    Hierarchy {
        controller: "",
        file_system: "cgroup2",
        limits: &["memory.max", "memory.high"],
        usage: "memory.current",
        reclaimable: ["inactive_file", "active_file"],
    },
    Hierarchy {
        controller: "memory",
        file_system: "cgroup",
        limits: &["memory.limit_in_bytes"],
        usage: "memory.usage_in_bytes",
        reclaimable: ["total_inactive_file", "total_active_file"],
    },
];

/// How much this process may still take, in bytes; nothing when no control group limits it.
pub fn left() -> Option<u64> {
    HIERARCHIES.iter().filter_map(Hierarchy::left).min()
}

impl Hierarchy {
    fn left(&self) -> Option<u64> {
        let mut group = None;
        files::for_each_line("/proc/self/cgroup", &mut |line: &[u8]| {
            if let Some(found) = self.group(files::as_text(line)) {
                group = crate::path!("{}", found).ok();
            }
        })
        .ok()?;
        let group = group?;
        let mount = mounts::find(mounts::OWN, &mut |mount| {
            let mut options = mount.file_system_options.split(',');
            let has_controller =
                self.controller.is_empty() || options.any(|option| option == self.controller);
            mount.file_system == self.file_system && has_controller
        });
        self.least_left(&mount.ok()??.point, &group)
    }

    /// The path of this process's group: proc(5), /proc/PID/cgroup, `number:controllers:path`.
    fn group<'a>(&self, groups: &'a str) -> Option<&'a str> {
        groups.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            controllers.split(',').any(|controller| controller == self.controller).then_some(path)
        })
    }

    /// The least that a group or one above it leaves; `top` is where the hierarchy is mounted.
    fn least_left(&self, top: &str, group: &str) -> Option<u64> {
        let mut least = None;
        let mut group = group.trim_end_matches('/');
        loop {
            let folder = crate::path!("{}{}", top, group).ok()?;
            least = [least, self.left_in(&folder)].into_iter().flatten().min();
            match group.rsplit_once('/') {
                Some((above, _)) => group = above,
                None => return least,
            }
        }
    }

    fn left_in(&self, folder: &str) -> Option<u64> {
        // "max" is no number: no limit.
        let number = |name: &str| files::number_below(folder, name);
        let limit = self.limits.iter().filter_map(|name| number(name)).min()?;
        let path = files::below(folder, "memory.stat").ok()?;
        let mut reclaimable = 0_u64;
        // Without that file nothing is taken back. It has a line a figure, and each kernel more of them.
        let _ = files::for_each_line(&path, &mut |line: &[u8]| {
            let (name, figure) = files::as_text(line).split_once(' ').unwrap_or_default();
            if self.reclaimable.contains(&name) {
                let figure = crate::text::decimal(figure).unwrap_or(0);
                reclaimable = reclaimable.saturating_add(figure);
            }
        });
        Some(limit.saturating_sub(number(self.usage)?.saturating_sub(reclaimable)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str, groups: &[(&str, &[(&str, &str)])]) -> std::path::PathBuf {
        let top =
            std::env::temp_dir().join(format!("takeover-cgroup-{}-{name}", std::process::id()));
        for (group, files) in groups {
            std::fs::create_dir_all(top.join(group)).unwrap();
            for (file, content) in *files {
                std::fs::write(top.join(group).join(file), content).unwrap();
            }
        }
        top
    }

    #[test]
    fn the_tightest_group_on_the_way_up_counts_and_what_is_cached_is_free() {
        // The figures that count stand behind more of them than anybody has room for.
        let statistics = "anon 1\nfile 9\nshmem 3\n".repeat(9000)
            + "inactive_file 20000000\nactive_file 1000000\nslab 7\n";
        let groups: [(&str, &[(&str, &str)]); 3] = [
            ("a", &[("memory.max", "90000000\n"), ("memory.current", "30000000\n")]),
            (
                "a/b",
                &[
                    ("memory.max", "max\n"),
                    ("memory.high", "50000000\n"),
                    ("memory.current", "30000000\n"),
                    ("memory.stat", &statistics),
                ],
            ),
            ("a/b/c", &[("memory.max", "max\n"), ("memory.current", "1\n")]),
        ];
        let top = folder("v2", &groups);
        let [second, first] = &HIERARCHIES;
        let path = top.to_str().unwrap();
        assert_eq!(second.least_left(path, "/a/b/c"), Some(41_000_000));
        assert_eq!(second.least_left(path, "/a"), Some(60_000_000));
        assert_eq!(second.least_left(path, "/"), None);
        assert_eq!(first.least_left(path, "/a/b/c"), None);
        std::fs::remove_dir_all(top).unwrap();
    }

    #[test]
    fn the_group_is_found_among_both_generations() {
        let text = "12:cpu,cpuacct:/x\n4:memory:/docker/abc\n0::/init.scope\n";
        let [second, first] = &HIERARCHIES;
        assert_eq!(
            (second.group(text), first.group(text)),
            (Some("/init.scope"), Some("/docker/abc"))
        );
        assert_eq!(first.group("0::/user.slice\n"), None);
    }
}
