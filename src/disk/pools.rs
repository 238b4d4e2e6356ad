//! File systems of several devices, of which a mount table names one at most: btrfs, bcachefs and ZFS.
//!
//! A mounted btrfs names its devices in /sys/fs/btrfs/UUID/devices (fs/btrfs/sysfs.c in Linux), a bcachefs in
//! /sys/fs/bcachefs/UUID/dev-N/block (fs/bcachefs/super.c). ZFS names them nowhere outside of its own tools: a member
//! is told by its label and by the claim that is on it.

use super::device::{self, Disk, Number};
use super::stack;
use crate::error::Error;
use crate::files;
use crate::text::Text;
use core::ops::ControlFlow;
use rustix::fs::OFlags;
use rustix::io::Errno;

const BTRFS: &str = "/sys/fs/btrfs";

/// Calls `visit` with the name of each device of the mounted btrfs that the device called `name` is one of.
pub fn for_each_btrfs_member(name: &str, visit: &mut dyn FnMut(&str)) {
    for_each_member_in(BTRFS, name, visit);
}

fn for_each_member_in(top: &str, name: &str, visit: &mut dyn FnMut(&str)) {
    // Without that folder there is no btrfs; what goes away meanwhile has no members.
    if name.is_empty() {
        return;
    }
    let _ = files::for_each_entry(top, &mut |file_system: &str| {
        let devices = crate::path!("{}/{}/devices", top, file_system);
        let Some(devices) = devices.ok().filter(|devices| files::is_below(devices, name)) else {
            return ControlFlow::Continue(());
        };
        let _ = files::for_each_entry(&devices, &mut |member: &str| {
            visit(member);
            ControlFlow::Continue(())
        });
        ControlFlow::Break(())
    });
}

/// True when a part of the file system that is on this device lies on a disk.
pub fn file_system_lies_on(number: Number, disk: Number) -> Result<bool, Error> {
    if stack::lies_on(number, disk)? {
        return Ok(true);
    }
    let mut result = Ok(false);
    // A device without a name is none that a file system is on.
    let name = device::name_of(number).unwrap_or_default();
    for_each_btrfs_member(&name, &mut |member| {
        if let Some(other) = device::number_in_class(member)
            && matches!(result, Ok(false))
        {
            result = stack::lies_on(other, disk);
        }
    });
    result
}

/// The whole disks that the file system on this device lies on; each once.
pub fn disks_below(number: Number) -> Result<heapless::Vec<Number, { stack::MAX_DISKS }>, Error> {
    let mut disks = stack::disks_below(number)?;
    let mut result = Ok(());
    let name = device::name_of(number).unwrap_or_default();
    for_each_btrfs_member(&name, &mut |member| {
        if let Some(other) = device::number_in_class(member)
            && result.is_ok()
        {
            result = stack::add_disks_below(other, &mut disks);
        }
    });
    result.map(|()| disks)
}

/// What holds a disk inside the kernel and cannot be taken down: the pool's kind, and the device that is in it.
pub fn pool_on(disk: &Disk) -> Option<(&'static str, Text<32>)> {
    bcachefs_on(disk.number)
        .map(|name| ("bcachefs", name))
        .or_else(|| zfs_on(&disk.name).map(|name| ("ZFS", name)))
}

fn bcachefs_on(disk: Number) -> Option<Text<32>> {
    let top = "/sys/fs/bcachefs";
    let mut found = None;
    let _ = files::for_each_entry(top, &mut |file_system: &str| {
        let Ok(folder) = files::below(top, file_system) else {
            return ControlFlow::Continue(());
        };
        let _ = files::for_each_entry(&folder, &mut |entry: &str| {
            if let Some(number) = device::number_in(&folder, entry, "block/dev")
                && stack::lies_on(number, disk).unwrap_or(false)
            {
                found = device::name_of(number).ok();
            }
            ControlFlow::Continue(())
        });
        ControlFlow::Continue(())
    });
    found
}

/// The part of a disk, or the disk itself, that a pool of ZFS has and that is claimed. (A pool that was exported has a
/// label, too, and holds nothing.)
fn zfs_on(disk: &str) -> Option<Text<32>> {
    let mut found = None;
    let mut look = |name: &str| {
        if name.starts_with(disk)
            && let Ok(node) = files::below("/dev", name)
            && is_claimed(&node)
            && has_zfs_label(&node)
        {
            found = Some(Text::from(name));
        }
        ControlFlow::Continue(())
    };
    let _ = look(disk);
    let folder = files::below("/sys/block", disk).ok()?;
    let _ = files::for_each_entry(&folder, &mut look);
    found
}

/// Asks for the claim that a mount would ask for, for a moment (open(2), O_EXCL of block devices).
pub fn is_claimed(node: &str) -> bool {
    matches!(files::open(node, OFlags::RDONLY | OFlags::EXCL), Err(Errno::BUSY))
}

/// The first of a vdev's labels begins with 16 KiB for others, then has a list of names and values whose first is the
/// version ("ZFS On-Disk Specification", section 1.3; the encoding is that of nvlist_pack in OpenZFS).
fn has_zfs_label(node: &str) -> bool {
    const PLACE: u64 = 16 * 1024;
    let mut start = [0; 32];
    let read = files::open(node, OFlags::RDONLY)
        .and_then(|device| rustix::io::pread(&device, &mut start, PLACE));
    read == Ok(start.len()) && is_zfs_label(&start)
}

fn is_zfs_label(start: &[u8]) -> bool {
    /// NV_ENCODE_XDR.
    const XDR: u8 = 1;
    start.first() == Some(&XDR) && start.get(24..31) == Some(b"version")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_devices_of_a_btrfs_are_found_by_one_of_them() {
        let top = std::env::temp_dir().join(format!("takeover-btrfs-{}", std::process::id()));
        for (file_system, devices) in [("a", &["sda2", "sdb", "sdc1"][..]), ("b", &["sdd2"])] {
            for device in devices {
                std::fs::create_dir_all(top.join(file_system).join("devices").join(device))
                    .unwrap();
            }
        }
        std::fs::create_dir(top.join("features")).unwrap();
        let members = |name: &str| {
            let mut found = Vec::new();
            for_each_member_in(top.to_str().unwrap(), name, &mut |member| {
                found.push(member.to_string())
            });
            found.sort();
            found
        };
        assert_eq!(members("sdb"), ["sda2", "sdb", "sdc1"]);
        assert_eq!(members("sdd2"), ["sdd2"]);
        assert!(members("sda").is_empty() && members("sde").is_empty());
        std::fs::remove_dir_all(&top).unwrap();
        assert!(members("sdb").is_empty());
    }

    #[test]
    fn a_label_of_zfs_is_told_from_others() {
        let mut label = [0; 32];
        label[..12].copy_from_slice(&[1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        label[12..24].copy_from_slice(&[0, 0, 0, 0x24, 0, 0, 0, 0x20, 0, 0, 0, 7]);
        label[24..31].copy_from_slice(b"version");
        assert!(is_zfs_label(&label));
        label[24] = b'V';
        assert!(!is_zfs_label(&label) && !is_zfs_label(&[0; 32]) && !is_zfs_label(&[1]));
    }
}
