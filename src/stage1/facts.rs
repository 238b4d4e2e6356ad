//! What the running system is: the disk under the root, mounts, swap, memory, the init that must be replaced.
//!
//! Reads only.

use super::origin;
use crate::cli::{Flag, Options};
use crate::disk::device::{self, Disk, Number};
use crate::disk::mounts::{self, Found};
use crate::disk::{loops, stack, swaps};
use crate::error::{Doing, Error};
use crate::files;
use crate::text::{PathText, Size, Text, kib_in};
use rustix::fs::FileType;

/// The most swap areas that are handled; the kernel has room for 29.
pub const MAX_SWAPS: usize = 29;
/// Where sysvinit listens.
const CONTROL_PIPES: [&str; 2] = ["/run/initctl", "/dev/initctl"];

/// A swap area that lies on the target.
pub struct SwapOnTarget {
    /// The file or device.
    pub path: PathText,
    /// Its priority.
    pub priority: i32,
    /// What must be read back into memory, in bytes.
    pub used: u64,
}

/// Which init runs as PID 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flavour {
    /// systemd.
    Systemd,
    /// sysvinit.
    Sysvinit,
}

impl Flavour {
    /// What people call it.
    pub const fn name(self) -> &'static str {
        match self {
            Flavour::Systemd => "systemd",
            Flavour::Sysvinit => "sysvinit",
        }
    }
}

/// The init that must be replaced.
pub struct Init {
    /// Its kind.
    pub flavour: Flavour,
    /// The file it executes itself from.
    pub path: PathText,
}

/// The file system that `/` is.
pub struct Root {
    /// Its device, as the mount table has it; major 0 for file systems without one of their own.
    pub number: Number,
    /// What it lies on, if that is a device.
    pub device: Option<Number>,
    /// Its type.
    pub file_system: Text<16>,
}

/// Everything that is known before the first question.
pub struct Facts {
    /// The disk that is written.
    pub target: Disk,
    /// The file system that `/` is.
    pub root: Root,
    /// The init.
    pub init: Init,
    /// Swap on the target.
    pub swaps: heapless::Vec<SwapOnTarget, MAX_SWAPS>,
    /// MemAvailable, in bytes.
    pub available: u64,
    /// MemTotal, in bytes.
    pub total: u64,
}

impl Facts {
    /// Looks at everything.
    pub fn gather(options: &Options) -> Result<Self, Error> {
        let root_mount = root_mount()?;
        let root = Root {
            number: root_mount.device,
            device: root_mount.lies_on(),
            file_system: root_mount.file_system.clone(),
        };
        let in_namespace = options.has(Flag::InNamespace);
        let number = match options.flash_to.as_deref() {
            Some(path) => asked_for(path)?,
            None => under_root(&root_mount, in_namespace)?,
        };
        let target = free_to_be_written(number)?;
        if !in_namespace {
            startable(&target.name)?;
        }
        let init = init()?;
        let swaps = swaps_on(target.number)?;
        let (available, total) = memory()?;
        Ok(Self { target, root, init, swaps, available, total })
    }

    /// Logs what was found.
    pub fn log(&self) {
        crate::info!(
            "this device: {} available of {}, init is {} ({}), / is {}",
            Size(self.available),
            Size(self.total),
            self.init.flavour.name(),
            self.init.path.as_str(),
            self.root.file_system
        );
        crate::info!("the disk: /dev/{}, {}", self.target.name, Size(self.target.size));
    }
}

fn root_mount() -> Result<Found, Error> {
    let root = mounts::at("/")?
        .ok_or_else(|| Error::failed("looking for", "/", "it is not in the mount table"))?;
    if &*root.file_system == "rootfs" {
        return Err(Error::refused(
            "looking at",
            "/",
            "it is the kernel's initramfs, which cannot be left",
        )
        .advice("this system runs from memory already: use takeover flash"));
    }
    Ok(root)
}

/// The facts about a disk that can be written, and on which nothing lies that stage 2 cannot take down.
pub fn free_to_be_written(number: Number) -> Result<Disk, Error> {
    let disk = device::disk(number)?;
    if disk.read_only {
        return Err(Error::refused("looking at the target", &disk.name, "it is read-only")
            .advice("look for a write-protect switch, or at blockdev --getro"));
    }
    refuse_firmware_areas(&disk)?;
    refuse_unknown_stacks(&disk)?;
    Ok(disk)
}

/// A disk that was named: there, a block device, not a partition, and nothing that is stacked on disks. A volume of LVM
/// or an opened LUKS container would be written and verified, and no firmware would ever find it. (Multipath is another
/// way to the disk itself.)
pub fn asked_for(path: &str) -> Result<Number, Error> {
    let number = device::number_of(path)?;
    let refuse = |what: &str, disk: Number| {
        let disk = device::name_of(disk)?;
        let why: Text<120> =
            crate::text!("it {}; the image replaces a whole disk (/dev/{})", what, disk);
        Err(Error::refused("looking at the target", path, &why).advice("name the disk"))
    };
    if device::is_partition(number)? {
        return refuse("is a partition", device::whole_disk(number)?);
    }
    match stack::disks_below(number)?.first() {
        Some(disk) if *disk != number && !device::is_multipath(number) => {
            refuse("lies on a disk", *disk)
        }
        _ => Ok(number),
    }
}

/// Memory, files, volumes of a pool and other machines' disks: the program that runs would lose them with the old OS,
/// or no firmware knows them. (In a container's tests the disk is a file.)
fn startable(name: &str) -> Result<(), Error> {
    const KINDS: [&str; 8] = ["loop", "ram", "zram", "nbd", "mtdblock", "zd", "rbd", "drbd"];
    match KINDS.into_iter().any(|kind| name.starts_with(kind)) {
        true => Err(Error::refused("looking at the target", name, "no device starts from that")
            .advice("name the disk that this device starts from")),
        false => Ok(()),
    }
}

/// The disk under `/`. A whole disk without partitions, or a loop device, is not taken for granted.
fn under_root(root: &Found, in_namespace: bool) -> Result<Number, Error> {
    let refuse = |why: &str| {
        Error::refused("looking for the disk under", "/", why).advice("name the disk with -f DEV")
    };
    let number = origin::device_of_root(root)?.ok_or_else(|| {
        let why: Text<120> = crate::text!("it is {} on no device", root.file_system);
        refuse(&why)
    })?;
    let disk = match *stack::disks_below(number)? {
        [disk] => disk,
        [first, second, ..] => {
            let (first, second) = (device::name_of(first)?, device::name_of(second)?);
            let why: Text<160> = crate::text!("it lies on several disks: {}, {}, …", first, second);
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

/// Boot partitions of an eMMC hold the firmware's loader, and are no place for an operating system: mmcblk0boot0 and
/// its sisters, and the replay-protected block.
fn refuse_firmware_areas(disk: &Disk) -> Result<(), Error> {
    let area = disk
        .name
        .strip_prefix("mmcblk")
        .map(|rest| rest.trim_start_matches(|digit: char| digit.is_ascii_digit()));
    match area {
        None | Some("") => Ok(()),
        Some(_) => Err(Error::refused(
            "looking at the target",
            &disk.name,
            "it is a boot or replay-protected area of an eMMC",
        )
        .advice("name the disk itself, as /dev/mmcblk0")),
    }
}

/// What is stacked on the disk must be something that stage 2 can take down.
fn refuse_unknown_stacks(disk: &Disk) -> Result<(), Error> {
    let Some(name) = stack::unknown_on(disk.number) else {
        return Ok(());
    };
    let why: Text<160> = crate::text!("{} lies on it, which cannot be taken down", name);
    Err(Error::refused("looking at the target", &disk.name, &why)
        .advice("LVM, dm-crypt, md and zram can be; take this one down first"))
}

/// Which init runs, and from which file it will execute itself again.
fn init() -> Result<Init, Error> {
    let mut buffer = [0; 256];
    let link = files::read_link("/proc/1/exe", &mut buffer)?;
    // After an upgrade of the package the running file is gone, and the new one is at the same place.
    let link = link.strip_suffix(" (deleted)").unwrap_or(link);
    let path = crate::path!("{}", link)?;
    let name = path.rsplit('/').next().unwrap_or_default();
    let flavour = match name {
        "systemd" => Flavour::Systemd,
        "init" if control_pipe().is_some() => Flavour::Sysvinit,
        _ => {
            return Err(Error::refused("looking at PID 1", &path, "this init is not known")
                .advice("systemd and sysvinit can be replaced"));
        }
    };
    if mounts::at(&path)?.is_some() {
        return Err(Error::refused(
            "looking at PID 1",
            &path,
            "something is mounted over it already",
        )
        .advice("another takeover may be running; restart the device if not"));
    }
    Ok(Init { flavour, path })
}

/// sysvinit's named pipe for requests, when there is one.
pub fn control_pipe() -> Option<&'static str> {
    CONTROL_PIPES.into_iter().find(|path| {
        let status = files::status(path);
        status.is_ok_and(|status| FileType::from_raw_mode(status.st_mode).is_fifo())
    })
}

/// The swap areas on a disk: its partitions, and files on its file systems.
fn swaps_on(target: Number) -> Result<heapless::Vec<SwapOnTarget, MAX_SWAPS>, Error> {
    let mut buffer = [0; 4096];
    let mut found = heapless::Vec::new();
    // A kernel without swap has no such file.
    let Ok(text) = files::read_text("/proc/swaps", &mut buffer) else {
        return Ok(found);
    };
    for swap in swaps::parse(text) {
        let path = mounts::unescape(swap.path)?;
        if !lies_on(&path, target)? {
            continue;
        }
        let entry = SwapOnTarget { path, priority: swap.priority, used: swap.used * 1024 };
        found
            .push(entry)
            .map_err(|_| Error::refused("reading", "/proc/swaps", "more than 29 swap areas"))?;
    }
    Ok(found)
}

/// True when a device, or the file system that a file lies on, is part of a disk.
fn lies_on(path: &str, disk: Number) -> Result<bool, Error> {
    let status = files::status(path)
        .doing("looking at the swap area", path)
        .map_err(|error| error.as_refusal().advice("turn it off first: swapoff"))?;
    let number = match FileType::from_raw_mode(status.st_mode).is_block_device() {
        true => Some(Number::from_stat(status.st_rdev)),
        // By the mount that it lies on: files of btrfs have device numbers that no mount has.
        false => mounts::above(path)?.and_then(|mount| mount.lies_on()),
    };
    // On no device: not on this disk.
    number.map_or(Ok(false), |number| stack::lies_on(number, disk))
}

/// MemAvailable and MemTotal in bytes: /proc/meminfo, proc(5).
pub fn memory() -> Result<(u64, u64), Error> {
    let path = "/proc/meminfo";
    let mut buffer = [0; 4096];
    let text = files::read_text(path, &mut buffer).doing("reading", path)?;
    let field = |word| kib_in(text, word).map(|kib| kib * 1024);
    // Before Linux 3.14 there is no MemAvailable.
    let older = || {
        let cached = field("Cached:")?.saturating_sub(field("Shmem:").unwrap_or(0));
        Some(field("MemFree:")? + cached)
    };
    match (field("MemAvailable:").or_else(older), field("MemTotal:")) {
        (Some(available), Some(total)) => Ok((available, total)),
        _ => Err(Error::failed("reading", path, "it does not tell the memory")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_starts_from_memory_files_and_pools() {
        for name in ["loop0", "zram0", "ram1", "nbd0", "zd16", "rbd0", "drbd1", "mtdblock3"] {
            assert!(startable(name).is_err(), "{name}");
        }
        for name in ["sda", "mmcblk0", "nvme0n1", "vda", "dm-0", "md126", "xvda"] {
            startable(name).unwrap();
        }
    }

    #[test]
    fn boot_areas_of_an_emmc_are_no_disks() {
        let disk = |name: &str| Disk {
            name: Text::from(name),
            number: Number { major: 179, minor: 0 },
            size: 4 << 20,
            logical_block: 512,
            read_only: false,
        };
        for name in ["mmcblk0", "mmcblk12", "sda", "nvme0n1", "vda"] {
            refuse_firmware_areas(&disk(name)).unwrap();
        }
        for name in ["mmcblk0boot0", "mmcblk1boot1", "mmcblk0rpmb", "mmcblk0gp0"] {
            assert!(refuse_firmware_areas(&disk(name)).is_err(), "{name}");
        }
    }
}
