//! What lends a disk to other machines from inside the kernel: LIO, the NVMe target and SCST. No process holds the disk
//! then, and ending every process does not free it.
//!
//! Reads only. What LIO and the NVMe target have is in configfs, which is looked into even where nobody has mounted it.

use crate::disk::device::{self, Number};
use crate::disk::{detached, mounts, pools, stack};
use crate::error::Error;
use crate::text::PathText;
use crate::{bytes, files};
use core::ops::ControlFlow;
use rustix::fs::FileType;

/// Where configfs is mounted (Documentation/filesystems/configfs.rst in Linux).
const CONFIGFS: &str = "/sys/kernel/config";

/// What lends a disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exporter {
    /// The SCSI target of the kernel (drivers/target).
    Lio,
    /// The NVMe target of the kernel (drivers/nvme/target).
    Nvmet,
    /// The other SCSI target, which is not part of the kernel.
    Scst,
}

/// Something that is lent.
pub struct Export {
    /// By what.
    pub exporter: Exporter,
    /// The device, or the file.
    pub path: PathText,
}

/// What of a disk is lent to others; nothing when nothing is.
pub fn of_disk(disk: Number) -> Result<Option<Export>, Error> {
    let mut found = None;
    let mut look = |exporter, path: &str| {
        if is_on(path, disk)
            && let Ok(path) = crate::path!("{}", path)
        {
            found = Some(Export { exporter, path });
        }
    };
    for_each_in_configfs(&mut look)?;
    for_each_of_scst("/sys/kernel/scst_tgt/devices", &mut look);
    Ok(found)
}

/// Whether a device, or the file system that a file lies on, is part of a disk. By the path alone where nothing is
/// there any more.
fn is_on(path: &str, disk: Number) -> bool {
    let is_block = files::status(path)
        .is_ok_and(|status| FileType::from_raw_mode(status.st_mode).is_block_device());
    let number = if is_block || path.starts_with("/dev/") {
        device::number_of(path).ok().or_else(|| device::number_of_node(path))
    } else {
        let mount = mounts::above(path).ok().flatten();
        return mount
            .and_then(|mount| mount.lies_on())
            .is_some_and(|number| pools::file_system_lies_on(number, disk).unwrap_or(false));
    };
    number.is_some_and(|number| stack::lies_on(number, disk).unwrap_or(false))
}

type Visit<'a> = dyn FnMut(Exporter, &str) + 'a;

/// Calls `visit` with everything that LIO and the NVMe target have. An error when they are there, and configfs cannot
/// be looked into.
fn for_each_in_configfs(visit: &mut Visit) -> Result<(), Error> {
    let modules = &[("target", "target_core_mod"), ("nvmet", "nvmet")];
    for (folder, module) in modules {
        if files::is_below(CONFIGFS, folder) {
            for_each_of(CONFIGFS, folder, visit);
        } else if files::is_below("/sys/module", module) {
            let mount = detached::mount("configfs").map_err(|errno| {
                Error::os("looking into configfs for what is lent by", module, errno)
                    .as_refusal()
                    .advice("mount it (mount -t configfs none /sys/kernel/config), or unload that module")
            })?;
            for_each_of(&mount.path, folder, visit);
        }
    }
    Ok(())
}

fn for_each_of(top: &str, folder: &str, visit: &mut Visit) {
    if folder == "target" {
        for_each_of_lio(top, visit);
    } else {
        for_each_of_nvmet(top, visit);
    }
}

/// Calls `visit` with the path of each entry of a folder.
fn for_each_below(folder: &str, visit: &mut dyn FnMut(&str)) {
    // What is not there has no entries.
    let _ = files::for_each_entry(folder, &mut |name: &str| {
        if let Ok(path) = files::below(folder, name) {
            visit(&path);
        }
        ControlFlow::Continue(())
    });
}

/// Calls `visit` with what a file says, when it is there.
fn with_text(folder: &str, name: &str, visit: &mut dyn FnMut(&str)) {
    let mut buffer = [0; 4096];
    if let Some(text) = files::text_below(folder, name, &mut buffer)
        && !text.is_empty()
    {
        visit(text);
    }
}

/// The backstores: `target/core/HBA/NAME`. `udev_path` is what their maker wrote there; `info` is the kernel's own word
/// (iblock_show_configfs_dev_params and fd_show_configfs_dev_params in drivers/target).
fn for_each_of_lio(top: &str, visit: &mut Visit) {
    let Ok(core) = files::below(top, "target/core") else { return };
    for_each_below(&core, &mut |adapter| {
        for_each_below(adapter, &mut |store| {
            with_text(store, "udev_path", &mut |path| visit(Exporter::Lio, path));
            with_text(store, "info", &mut |info| {
                let after = |mark: &str, end: &str| {
                    let (_, rest) = bytes::split_at_word(info, mark)?;
                    let found = bytes::split_at_word(rest, end).map_or(rest, |(found, _)| found);
                    Some(found.trim_ascii())
                };
                if let Some(name) = after("iBlock device: ", " ")
                    && let Ok(path) = files::below("/dev", name)
                {
                    visit(Exporter::Lio, &path);
                }
                if let Some(path) = after("File: ", "  Size: ") {
                    visit(Exporter::Lio, path);
                }
            });
        });
    });
}

/// The namespaces that are turned on: `nvmet/subsystems/NAME/namespaces/NUMBER`.
fn for_each_of_nvmet(top: &str, visit: &mut Visit) {
    let Ok(subsystems) = files::below(top, "nvmet/subsystems") else { return };
    for_each_below(&subsystems, &mut |subsystem| {
        let Ok(namespaces) = files::below(subsystem, "namespaces") else { return };
        for_each_below(&namespaces, &mut |namespace| {
            if files::number_below(namespace, "enable") == Some(1) {
                with_text(namespace, "device_path", &mut |path| visit(Exporter::Nvmet, path));
            }
        });
    });
}

/// Its devices have a path in the first line of `filename`.
fn for_each_of_scst(devices: &str, visit: &mut Visit) {
    for_each_below(devices, &mut |device| {
        with_text(device, "filename", &mut |text| {
            visit(Exporter::Scst, text.lines().next().unwrap_or_default());
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_the_kernel_lends_is_found() {
        let top = std::env::temp_dir().join(format!("takeover-exports-{}", std::process::id()));
        for (path, text) in [
            ("target/core/iblock_0/disk/udev_path", "/dev/sda3\n"),
            (
                "target/core/iblock_0/bare/info",
                "Status: ACTIVATED  Max Queue Depth: 0  SectorSize: 512  HwMaxSectors: 256\n        \
                 iBlock device: sdb1  UDEV PATH: /dev/sdb1  readonly: 0\n        Major: 8 Minor: 17\n",
            ),
            ("target/core/iblock_0/bare/udev_path", "\n"),
            ("target/core/iblock_0/hba_info", "HBA Index: 1\n"),
            (
                "target/core/fileio_1/file/info",
                "Status: ACTIVATED\n        TCM FILEIO ID: 0        File: /srv/a b.img  Size: 1048576  Mode: O_DSYNC\n",
            ),
            ("nvmet/subsystems/nqn/namespaces/1/device_path", "/dev/nvme0n1\n"),
            ("nvmet/subsystems/nqn/namespaces/1/enable", "1\n"),
            ("nvmet/subsystems/nqn/namespaces/2/device_path", "/dev/sdz\n"),
            ("nvmet/subsystems/nqn/namespaces/2/enable", "0\n"),
            ("scst/disk1/filename", "/dev/sdc\n[key]\n"),
        ] {
            let path = top.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let mut found = Vec::new();
        let mut note = |exporter, path: &str| found.push((exporter, path.to_string()));
        let place = top.to_str().unwrap();
        for_each_of(place, "target", &mut note);
        for_each_of(place, "nvmet", &mut note);
        for_each_of_scst(&format!("{place}/scst"), &mut note);
        found.sort_by(|one, other| one.1.cmp(&other.1));
        let found: Vec<_> = found.iter().map(|(by, path)| (*by, path.as_str())).collect();
        assert_eq!(
            found,
            [
                (Exporter::Nvmet, "/dev/nvme0n1"),
                (Exporter::Lio, "/dev/sda3"),
                (Exporter::Lio, "/dev/sdb1"),
                (Exporter::Scst, "/dev/sdc"),
                (Exporter::Lio, "/srv/a b.img"),
            ]
        );
        std::fs::remove_dir_all(top).unwrap();
    }

    #[test]
    fn what_lies_on_the_disk_is_told_by_devices_files_and_names() {
        let root = mounts::above("/").unwrap().unwrap().lies_on();
        let Some(disk) = root.and_then(|root| device::whole_disk(root).ok()) else {
            return;
        };
        let other = Number { major: 1, minor: 200 };
        let name = device::name_of(disk).unwrap().to_string();
        for path in ["/no/such/file", "/", &format!("/dev/{name}"), &format!("/dev/nowhere/{name}")]
        {
            assert!(is_on(path, disk), "{path}");
            assert!(!is_on(path, other), "{path}");
        }
        assert!(!is_on("/proc/version", disk) && !is_on("/dev/null", disk));
    }
}
