//! What makes the kernel panic although it could go on: left as the host set it until the first write, since a panic
//! brings the old OS back, and off from then on, since memory holds the only copy of the new one.

use crate::files;
use crate::sys::process;
use rustix::fs::OFlags;

/// Every such switch; 0 is off in each. Documentation/admin-guide/sysctl/kernel.rst and vm.rst, and
/// drivers/edac/edac_mc.c, and Documentation/admin-guide/xfs.rst for old file systems that are still there.
///
/// `oops_limit` and `warn_limit` count: 0 is no limit. A counter such as
/// `max_rcu_stall_to_panic` and what is printed (`panic_print`) are nothing without the switch.
const SWITCHES: [(&str, &[&str]); 4] = [
    (
        "proc/sys/kernel",
        &[
            "panic_on_oops",
            "oops_limit",
            "panic_on_warn",
            "warn_limit",
            "softlockup_panic",
            "hardlockup_panic",
            "hung_task_panic",
            "panic_on_rcu_stall",
            "panic_on_stackoverflow",
            "panic_on_io_nmi",
            "panic_on_unrecovered_nmi",
            "unknown_nmi_panic",
            "pause_on_oops",
        ],
    ),
    ("proc/sys/vm", &["panic_on_oom"]),
    ("proc/sys/fs/xfs", &["panic_mask"]),
    ("sys/module/edac_core/parameters", &["edac_mc_panic_on_ue"]),
];

/// From here on the kernel lives with its faults as well as it can. In a PID namespace it is another machine's.
pub fn outlive() {
    if process::in_first_pid_namespace() {
        outlive_below("");
    }
}

fn outlive_below(root: &str) {
    for &(folder, switches) in &SWITCHES {
        for switch in switches {
            let path = crate::path!("{}/{}/{}", root, folder, *switch).ok();
            // Which there are depends on the kernel and the machine; each makes things better, no more.
            let _ = path
                .and_then(|path| files::open(&path, OFlags::WRONLY).ok())
                .map(|file| files::write_all(&file, b"0\n"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_switch_that_is_there_is_off_and_none_is_made() {
        let root = std::env::temp_dir().join(format!("takeover-faults-{}", std::process::id()));
        let there = [
            "proc/sys/kernel/panic_on_oops",
            "proc/sys/kernel/unknown_nmi_panic",
            "proc/sys/kernel/oops_limit",
            "proc/sys/vm/panic_on_oom",
            "proc/sys/fs/xfs/panic_mask",
        ];
        // Not a switch: that a kernel which panics restarts stays.
        for file in there.into_iter().chain(["proc/sys/kernel/panic"]) {
            let path = root.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "9\n").unwrap();
        }
        outlive_below(root.to_str().unwrap());
        let read = |file: &str| std::fs::read_to_string(root.join(file)).unwrap();
        for file in there {
            assert_eq!(read(file), "0\n", "{file}");
        }
        assert_eq!(read("proc/sys/kernel/panic"), "9\n");
        assert!(!root.join("proc/sys/kernel/panic_on_warn").exists());
        std::fs::remove_dir_all(root).unwrap();
    }

    /// The list is whole, as far as this kernel knows.
    #[test]
    fn what_this_kernel_has_of_them_is_in_the_list() {
        for (folder, switches) in &SWITCHES[..2] {
            for entry in std::fs::read_dir(format!("/{folder}")).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                let is_other = matches!(
                    name.as_str(),
                    "panic" | "panic_print" | "panic_sys_info" | "max_rcu_stall_to_panic"
                );
                let is_switch = name.contains("panic") || name == "oops_limit";
                assert!(
                    is_other || !is_switch || switches.contains(&name.as_str()),
                    "{folder}/{name}"
                );
            }
        }
    }
}
