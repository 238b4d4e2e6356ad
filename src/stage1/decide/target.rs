//! Which disk is written, and whether it can be: the one that was named, else the one under `/`.
//!
//! Refuses what no device starts from, what is no whole disk, and what stage 2 could not take down.

use crate::cli::{Flag, Options};
use crate::disk::device::{self, Disk, Number};
use crate::disk::mounts::Found;
use crate::disk::{loops, pools, stack, writable};
use crate::error::Error;
use crate::stage1::look::exports::{self, Exporter};
use crate::stage1::look::origin;
use crate::stage1::look::transport::{self, Transport};
use crate::text::Text;

/// The disk that is written: the one that was named, else the one under `/`, which is mounted as `root`.
pub fn choose(options: &Options, root: &Found) -> Result<Disk, Error> {
    let in_namespace = options.has(Flag::InNamespace);
    let number = match options.flash_to.as_deref() {
        Some(path) => named(path)?,
        None => under_root(root, in_namespace)?,
    };
    let target = free_to_be_written(number)?;
    if !in_namespace {
        startable(&target.name)?;
    }
    let Transport::Network(protocol) = transport(&target)? else {
        return Ok(target);
    };
    let why: Text<160> =
        crate::text!("it is reached by {}, over a network that ends with the old OS", protocol);
    Err(Error::refused("looking at the target", &target.name, &why)
        .advice("flash it from a system whose network stays up: takeover flash"))
}

/// The disk that was named.
pub fn named(path: &str) -> Result<Number, Error> {
    writable::asked_for(path).map_err(|error| {
        error.or_advice("name the disk by its path, as /dev/sda: lsblk lists them")
    })
}

/// How a disk is reached; of one with several ways, what is not local in them.
pub fn transport(target: &Disk) -> Result<Transport, Error> {
    for disk in stack::disks_below(target.number)? {
        let transport = transport::of(&device::name_of(disk)?);
        if transport != Transport::Local {
            return Ok(transport);
        }
    }
    Ok(Transport::Local)
}

/// For `takeover flash`, on which everything goes on running: a disk that is reached over a network is the user's own
/// affair.
// Not in the large frame of its caller (size-report/README.md).
#[inline(never)]
pub fn warn_of_network(target: &Disk, warn: &mut dyn FnMut(&str)) -> Result<(), Error> {
    if let Transport::Network(protocol) = transport(target)? {
        let text: Text<160> = crate::text!(
            "{} is reached by {}: the network must stay up, and only some firmware starts from such a disk",
            target.name,
            protocol
        );
        warn(&text);
    }
    Ok(())
}

/// The facts about a disk that can be written, and on which nothing lies that stage 2 cannot take down.
pub fn free_to_be_written(number: Number) -> Result<Disk, Error> {
    let disk = writable::facts(number)?;
    refuse_unknown_stacks(&disk)?;
    refuse_pools(&disk)?;
    refuse_exports(&disk)?;
    Ok(disk)
}

/// Memory, files, volumes of a pool and other machines' disks: the program that runs would lose them with the old OS,
/// or no firmware knows them. (In a container's tests the disk is a file.)
fn startable(name: &str) -> Result<(), Error> {
    const KINDS: [&str; 11] =
        ["loop", "ram", "zram", "nbd", "mtdblock", "zd", "rbd", "drbd", "rnbd", "etherd", "ublkb"];
    if KINDS.iter().any(|kind| name.starts_with(kind)) {
        Err(Error::refused("looking at the target", name, "no device starts from that")
            .advice("name the disk that this device starts from"))
    } else {
        Ok(())
    }
}

/// The disk under `/`. A whole disk without partitions, or a loop device, is not taken for granted.
fn under_root(root: &Found, in_namespace: bool) -> Result<Number, Error> {
    let refuse = |why: &str| {
        Error::refused("looking for the disk under", "/", why).advice("name the disk with -f DEV")
    };
    // Both hold their disks inside the kernel, in ways of their own.
    if matches!(&*root.file_system, "zfs" | "bcachefs") {
        let why: Text<120> = crate::text!(
            "it is on {}, which holds its disks when it is unmounted",
            root.file_system
        );
        return Err(Error::refused("looking for the disk under", "/", &why)
            .advice("flash the disk from a rescue system: takeover flash"));
    }
    let number = origin::device_of_root(root)?.ok_or_else(|| {
        let why: Text<120> = crate::text!("it is {} on no device", root.file_system);
        refuse(&why)
    })?;
    let disk = match *pools::disks_below(number)? {
        [disk] => disk,
        [first, second, ref more @ ..] => {
            let (first, second) = (device::name_of(first)?, device::name_of(second)?);
            let rest = if more.is_empty() { "" } else { ", …" };
            let why: Text<160> = crate::text!(
                "its {} lies on several disks: {}, {}{}",
                root.file_system,
                first,
                second,
                rest
            );
            return Err(refuse(&why));
        }
        [] => return Err(refuse("it lies on none")),
    };
    if disk == number {
        let name = device::name_of(number)?;
        let why: Text<80> = crate::text!("{} is no partition of a disk", name);
        return Err(refuse(&why));
    }
    if disk.major == loops::MAJOR && !in_namespace {
        return Err(refuse("it lies on a loop device"));
    }
    Ok(disk)
}

/// What is stacked on the disk must be something that stage 2 can take down.
fn refuse_unknown_stacks(disk: &Disk) -> Result<(), Error> {
    let Some(name) = stack::unknown_on(disk.number) else {
        return Ok(());
    };
    let why: Text<160> = crate::text!("{} lies on it, which cannot be taken down", name);
    Err(Error::refused("looking at the target", &disk.name, &why).advice(
        "LVM, dm-crypt, zram and md can be, but for an array that mdmon keeps: take it down first",
    ))
}

/// A pool holds the disk inside the kernel, whatever is unmounted.
fn refuse_pools(disk: &Disk) -> Result<(), Error> {
    let Some((kind, name)) = pools::pool_on(disk) else {
        return Ok(());
    };
    let why: Text<160> =
        crate::text!("{} has {} in a pool, which cannot be taken down", kind, name);
    Err(Error::refused("looking at the target", &disk.name, &why)
        .advice("unmount it or export it first (umount, zpool export), or use a rescue system"))
}

/// What is lent to other machines is held inside the kernel, whatever process ends.
fn refuse_exports(disk: &Disk) -> Result<(), Error> {
    let Some(export) = exports::of_disk(disk.number)? else {
        return Ok(());
    };
    let (kind, advice) = match export.exporter {
        Exporter::Lio => ("LIO", "end that first: targetcli clearconfig confirm=True"),
        Exporter::Nvmet => ("the NVMe target", "end that first: nvmetcli clear"),
        Exporter::Scst => ("SCST", "end that first: scstadmin -clear_config"),
    };
    let why: Text<240> =
        crate::text!("{} of the kernel lends {} to other machines", kind, export.path);
    Err(Error::refused("looking at the target", &disk.name, &why).advice(advice))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_starts_from_memory_files_and_pools() {
        for name in [
            "loop0",
            "zram0",
            "ram1",
            "nbd0",
            "zd16",
            "rbd0",
            "drbd1",
            "mtdblock3",
            "rnbd0",
            "etherd!e1.0",
            "ublkb0",
        ] {
            assert!(startable(name).is_err(), "{name}");
        }
        for name in ["sda", "mmcblk0", "nvme0n1", "vda", "dm-0", "md126", "xvda"] {
            startable(name).unwrap();
        }
    }
}
