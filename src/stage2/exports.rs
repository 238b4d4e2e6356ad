//! What the kernel itself lends of the disk to other machines: NFS and SMB shares, USB gadgets, NVMe targets; and the
//! programs that it is to set probes in, or runs others with. Its threads are none that a signal reaches, and what it
//! holds keeps its file system mounted and the disk busy.
//!
//! Each is told by its own files to let go; what the kernel does not have is passed over. Nothing is loaded. (LIO's
//! targets are refused in stage 1.)

use super::child;
use crate::disk::mounts;
use crate::files;
use crate::progress::Shared;
use crate::sys::process;
use core::ops::ControlFlow;
use rustix::fs::OFlags;
use rustix::mount::MountFlags;

/// How long all that may take, in milliseconds: a thread ends with the request that it serves.
const PATIENCE: u64 = 15_000;

/// The file systems by which the kernel is told, what shows that one is mounted, and where it belongs.
const CONTROLS: [(&str, &str, &str); 5] = [
    ("nfsd", "/proc/fs/nfsd/threads", "/proc/fs/nfsd"),
    ("configfs", "/sys/kernel/config/usb_gadget", "/sys/kernel/config"),
    ("tracefs", "/sys/kernel/tracing/events", "/sys/kernel/tracing"),
    ("binfmt_misc", "/proc/sys/fs/binfmt_misc/status", "/proc/sys/fs/binfmt_misc"),
    // It may be empty: it is mounted again, should a worker before this one have done so.
    ("fusectl", "", "/sys/fs/fuse/connections"),
];

/// What is written to which files below `/`; a `*` stands for the rest of a name.
pub type Order = (&'static str, &'static str);

/// What makes it let go.
///
/// nfsd(7) for threads, exportfs(8) for the caches, which are flushed up to a time that never comes;
/// Documentation/ABI/testing/configfs-usb-gadget and configfs-usb-gadget-mass-storage: a line without a name unbinds a
/// gadget, and takes the file from a unit, which the other side may have locked; sysfs has the units of the gadget that
/// is a module of its own; Documentation/filesystems/smb/ksmbd.rst; drivers/nvme/target/configfs.c;
/// Documentation/trace/uprobetracer.rst: to empty the list of probes ends them all, when none is on;
/// Documentation/admin-guide/binfmt-misc.rst: -1 removes all entries, and with them the interpreters that those with
/// the flag F hold open.
const ORDERS: [Order; 13] = [
    ("proc/fs/nfsd/threads", "0\n"),
    ("proc/net/rpc/nfsd.export/flush", "2147483647\n"),
    ("proc/net/rpc/nfsd.fh/flush", "2147483647\n"),
    ("sys/class/ksmbd-control/kill_server", "hard"),
    ("sys/kernel/config/usb_gadget/*/UDC", "\n"),
    ("sys/kernel/config/usb_gadget/*/functions/mass_storage.*/lun.*/forced_eject", "1\n"),
    ("sys/kernel/config/usb_gadget/*/functions/mass_storage.*/lun.*/file", "\n"),
    ("sys/class/udc/*/device/gadget*/lun*/file", "\n"),
    ("sys/kernel/config/nvmet/subsystems/*/namespaces/*/enable", "0\n"),
    ("sys/kernel/tracing/instances/*/events/enable", "0\n"),
    ("sys/kernel/tracing/events/enable", "0\n"),
    ("sys/kernel/tracing/uprobe_events", "\n"),
    ("proc/sys/fs/binfmt_misc/status", "-1\n"),
];

/// Makes the kernel let go of what it lends. In a child, which may be left behind in the kernel; not in a PID
/// namespace, where it is another machine's.
pub fn withdraw(shared: &Shared) {
    if !process::in_first_pid_namespace() {
        return;
    }
    if !child::ends("what is exported", PATIENCE, shared, &|| give_all(&ORDERS)) {
        crate::warn!("the kernel does not let go of what it lends over a network or a cable");
    }
}

/// Gives each of these orders. May hang.
pub fn give_all(orders: &[Order]) {
    mount_controls();
    for (pattern, order) in orders {
        give("", pattern, order);
    }
}

/// Our /proc and /sys are fresh: what the old root had mounted below its own is not there.
fn mount_controls() {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let mut buffer = [0; 4096];
    let known = files::read_text("/proc/filesystems", &mut buffer).unwrap_or_default();
    for &(kind, sign, point) in &CONTROLS {
        // Asked for by name, a file system that is not there would be loaded.
        let is_known = known.split_ascii_whitespace().any(|name| name == kind);
        if is_known && !files::exists(sign) {
            // Without it nothing can be told to those; whether the disk is free is proven later.
            let _ = mounts::mount_at(kind, point, kind, flags, "");
        }
    }
}

/// Writes an order to every file that fits a pattern below `folder`.
fn give(folder: &str, pattern: &str, order: &str) {
    let (name, rest) = pattern.split_once('/').unwrap_or((pattern, ""));
    let Some(start) = name.strip_suffix('*') else {
        return give_to(folder, name, rest, order);
    };
    // A folder that is not there has nothing in it.
    let _ = files::for_each_entry(folder, &mut |entry: &str| {
        if entry.starts_with(start) {
            give_to(folder, entry, rest, order);
        }
        ControlFlow::Continue(())
    });
}

fn give_to(folder: &str, name: &str, rest: &str, order: &str) {
    let Ok(path) = files::below(folder, name) else {
        return;
    };
    if !rest.is_empty() {
        return give(&path, rest, order);
    }
    if let Ok(file) = files::open(&path, OFlags::WRONLY | OFlags::TRUNC)
        // What had nothing to let go of says so by an error.
        && files::write_all(&file, order.as_bytes()).is_ok()
    {
        crate::debug!("{} is told to let go", path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_an_order_is_written_and_no_other() {
        let root = std::env::temp_dir().join(format!("takeover-exports-{}", std::process::id()));
        let gadget = "sys/kernel/config/usb_gadget/g1/";
        let orders = [
            ("proc/fs/nfsd/threads", "0\n"),
            ("proc/net/rpc/nfsd.export/flush", "2147483647\n"),
            (&*format!("{gadget}UDC"), "\n"),
            (&format!("{gadget}functions/mass_storage.0/lun.0/file"), "\n"),
            (&format!("{gadget}functions/mass_storage.0/lun.1/file"), "\n"),
            (&format!("{gadget}functions/mass_storage.0/lun.1/forced_eject"), "1\n"),
            ("sys/class/udc/dwc2/device/gadget/lun0/file", "\n"),
            ("sys/class/udc/musb/device/gadget.0/lun1/file", "\n"),
            ("sys/kernel/config/nvmet/subsystems/x/namespaces/1/enable", "0\n"),
            ("sys/kernel/tracing/instances/x/events/enable", "0\n"),
            ("sys/kernel/tracing/events/enable", "0\n"),
            ("sys/kernel/tracing/uprobe_events", "\n"),
            ("proc/sys/fs/binfmt_misc/status", "-1\n"),
        ];
        let others = [
            "proc/fs/nfsd/versions",
            "proc/sys/fs/binfmt_misc/register",
            &format!("{gadget}functions/ffs.0/lun.0/file"),
            &format!("{gadget}functions/mass_storage.0/lun.0/ro"),
            "sys/class/udc/dwc2/device/driver/lun0/file",
        ];
        for path in orders.iter().map(|(path, _)| *path).chain(others) {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            // The list of probes is emptied by whoever opens it as a new file.
            std::fs::write(path, "old words").unwrap();
        }
        for &(pattern, order) in &ORDERS {
            give(root.to_str().unwrap(), pattern, order);
        }
        let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
        for (path, order) in orders {
            assert_eq!(read(path), order, "{path}");
        }
        for path in others {
            assert_eq!(read(path), "old words", "{path}");
        }
        assert!(!root.join("proc/net/rpc/nfsd.fh").exists(), "what is not there is not made");
        std::fs::remove_dir_all(root).unwrap();
    }
}
