//! What the kernel itself lends of the disk to other machines: NFS and SMB shares, USB gadgets, NVMe targets. Their
//! threads are none that a signal reaches, and what they hold keeps its file system mounted and the disk busy.
//!
//! Each is told by its own files to let go; what the kernel does not have is passed over. Nothing is loaded. (LIO's
//! targets are refused in stage 1.)

use super::unmount;
use crate::disk::mounts;
use crate::error::Error;
use crate::files;
use crate::progress::Shared;
use crate::sys::process;
use core::ops::ControlFlow;
use rustix::fs::OFlags;
use rustix::mount::MountFlags;
use rustix::process::Signal;

/// How long all that may take, in milliseconds: a thread ends with the request that it serves.
const PATIENCE: u64 = 15_000;

/// The file systems by which the kernel is told, what shows that one is mounted, and where it belongs.
const CONTROLS: [(&str, &str, &str); 2] = [
    ("nfsd", "/proc/fs/nfsd/threads", "/proc/fs/nfsd"),
    ("configfs", "/sys/kernel/config/usb_gadget", "/sys/kernel/config"),
];

/// What is written to which files below `/`; a `*` stands for the rest of a name.
///
/// nfsd(7) for threads, exportfs(8) for the caches, which are flushed up to a time that never comes;
/// Documentation/ABI/testing/configfs-usb-gadget and configfs-usb-gadget-mass-storage: a line without a name unbinds a
/// gadget, and takes the file from a unit, which the other side may have locked; sysfs has the units of the gadget that
/// is a module of its own; Documentation/filesystems/smb/ksmbd.rst; drivers/nvme/target/configfs.c.
const ORDERS: [(&str, &str); 9] = [
    ("proc/fs/nfsd/threads", "0\n"),
    ("proc/net/rpc/nfsd.export/flush", "2147483647\n"),
    ("proc/net/rpc/nfsd.fh/flush", "2147483647\n"),
    ("sys/class/ksmbd-control/kill_server", "hard"),
    ("sys/kernel/config/usb_gadget/*/UDC", "\n"),
    ("sys/kernel/config/usb_gadget/*/functions/mass_storage.*/lun.*/forced_eject", "1\n"),
    ("sys/kernel/config/usb_gadget/*/functions/mass_storage.*/lun.*/file", "\n"),
    ("sys/class/udc/*/device/gadget*/lun*/file", "\n"),
    ("sys/kernel/config/nvmet/subsystems/*/namespaces/*/enable", "0\n"),
];

/// Makes the kernel let go of what it lends. In a child, which may be left behind in the kernel; not in a PID
/// namespace, where it is another machine's.
pub fn withdraw(shared: &Shared) {
    if !process::in_first_pid_namespace() {
        return;
    }
    let child = || {
        mount_controls();
        for &(pattern, order) in &ORDERS {
            give("", pattern, order);
        }
        0
    };
    match process::spawn(child) {
        Ok(id) if unmount::ends_in_time(id, PATIENCE, shared) => {}
        Ok(id) => {
            crate::warn!("the kernel does not let go of what it lends over a network or a cable");
            // It listens as soon as the kernel lets it.
            let _ = rustix::process::kill_process(id, Signal::KILL);
        }
        Err(errno) => {
            crate::warn!("{}", Error::os("starting a process for", "what is exported", errno))
        }
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
    if let Ok(file) = files::open(&path, OFlags::WRONLY)
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
        ];
        let others = [
            "proc/fs/nfsd/versions",
            &format!("{gadget}functions/ffs.0/lun.0/file"),
            &format!("{gadget}functions/mass_storage.0/lun.0/ro"),
            "sys/class/udc/dwc2/device/driver/lun0/file",
        ];
        for path in orders.iter().map(|(path, _)| *path).chain(others) {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        for &(pattern, order) in &ORDERS {
            give(root.to_str().unwrap(), pattern, order);
        }
        let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
        for (path, order) in orders {
            assert_eq!(read(path), order, "{path}");
        }
        for path in others {
            assert_eq!(read(path), "", "{path}");
        }
        assert!(!root.join("proc/net/rpc/nfsd.fh").exists(), "what is not there is not made");
        std::fs::remove_dir_all(root).unwrap();
    }
}
