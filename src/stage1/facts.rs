//! What the running system is: the disk under the root, mounts, swap, memory, the init that must be replaced.
//!
//! Reads only.

use crate::cli::Options;
use crate::disk::device::{self, Disk, Number};
use crate::disk::mounts::{self, Found};
use crate::disk::swaps;
use crate::error::{Doing, Error};
use crate::files;
use crate::text::{PathText, Size, Text};
use core::ops::ControlFlow;
use rustix::fs::FileType;

/// The most swap areas that are handled; the kernel has room for 29.
pub const MAX_SWAPS: usize = 29;

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
        let root = Root { number: root_mount.device, file_system: root_mount.file_system.clone() };
        let number = match options.flash_to.as_deref() {
            Some(path) => asked_for(path)?,
            None => under_root(&root_mount, options.in_namespace)?,
        };
        let target = free_to_be_written(number)?;
        let init = init()?;
        let swaps = swaps_on(target.number)?;
        let (available, total) = memory()?;
        Ok(Self { target, root, init, swaps, available, total })
    }

    /// Logs what was found.
    pub fn log(&self) {
        let flavour = match self.init.flavour {
            Flavour::Systemd => "systemd",
            Flavour::Sysvinit => "sysvinit",
        };
        crate::info!(
            "this device: {} available of {}, init is {} ({}), / is {}",
            Size(self.available),
            Size(self.total),
            flavour,
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

/// The facts about a disk that nothing lies on and that can be written.
pub fn free_to_be_written(number: Number) -> Result<Disk, Error> {
    let disk = device::disk(number)?;
    if disk.read_only {
        return Err(Error::refused("looking at the target", &disk.name, "it is read-only")
            .advice("look for a write-protect switch, or at blockdev --getro"));
    }
    refuse_stacks(&disk)?;
    Ok(disk)
}

/// A disk that was named: there, a block device, and not a partition.
pub fn asked_for(path: &str) -> Result<Number, Error> {
    let number = device::number_of(path)?;
    if device::is_partition(number)? {
        let disk = device::name_of(device::whole_disk(number)?)?;
        let why: Text<120> =
            crate::text!("it is a partition; the image replaces a whole disk (/dev/{})", disk);
        return Err(Error::refused("looking at the target", path, &why).advice("name the disk"));
    }
    Ok(number)
}

/// The disk whose partition `/` is. A whole disk, or a loop device, is not taken for granted.
fn under_root(root: &Found, in_namespace: bool) -> Result<Number, Error> {
    const LOOP_MAJOR: u32 = 7;
    let refuse = |why: &str| {
        Error::refused("looking for the disk under", "/", why).advice("name the disk with -f DEV")
    };
    let number = mounted_device(root)?.ok_or_else(|| {
        let why: Text<120> = crate::text!("it is {} on no device", root.file_system);
        refuse(&why)
    })?;
    let name = device::name_of(number)?;
    if !device::is_partition(number)? {
        let why: Text<160> = match device::slaves(number)?.is_empty() {
            true => crate::text!("{} is no partition of a disk", name),
            false => crate::text!(
                "{} is put together by LVM, dm-crypt or md, which is not supported",
                name
            ),
        };
        return Err(refuse(&why));
    }
    let disk = device::whole_disk(number)?;
    if disk.major == LOOP_MAJOR && !in_namespace {
        return Err(refuse("it lies on a loop device"));
    }
    Ok(disk)
}

/// The device of a mount. btrfs and others have numbers of their own; what was mounted is a device all the same.
fn mounted_device(mount: &Found) -> Result<Option<Number>, Error> {
    match mount.device.major {
        0 if mount.source.starts_with("/dev/") => device::number_of(&mount.source).map(Some),
        0 => Ok(None),
        _ => Ok(Some(mount.device)),
    }
}

/// A disk that others are stacked on cannot be set free yet.
fn refuse_stacks(disk: &Disk) -> Result<(), Error> {
    let folder = crate::path!("/sys/class/block/{}", disk.name)?;
    let mut holder: Text<64> = Text::new();
    let mut look_below = |place: &str| {
        let Ok(path) = crate::path!("{}/holders", place) else {
            return ControlFlow::Break(());
        };
        // A place without that folder has no holders.
        let _ = files::for_each_entry(&path, &mut |name| {
            holder = Text::from(name);
            ControlFlow::Break(())
        });
        if holder.is_empty() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    if look_below(&folder).is_continue() {
        files::for_each_entry(&folder, &mut |name| match crate::path!("{}/{}", folder, name) {
            Ok(place) => look_below(&place),
            Err(_) => ControlFlow::Continue(()),
        })
        .doing("listing", &folder)?;
    }
    if holder.is_empty() {
        return Ok(());
    }
    let why: Text<160> =
        crate::text!("{} (LVM, dm-crypt or md) lies on it, which is not supported", holder);
    Err(Error::refused("looking at the target", &disk.name, &why))
}

/// Which init runs, and from which file it will execute itself again.
fn init() -> Result<Init, Error> {
    let mut buffer = [0; 256];
    let link = read_link("/proc/1/exe", &mut buffer)?;
    // After an upgrade of the package the running file is gone, and the new one is at the same place.
    let link = link.strip_suffix(" (deleted)").unwrap_or(link);
    let path = crate::path!("{}", link)?;
    let name = path.rsplit('/').next().unwrap_or_default();
    let flavour = match name {
        "systemd" => Flavour::Systemd,
        "init" if super::handover::control_pipe().is_some() => Flavour::Sysvinit,
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

/// Where a symbolic link leads, as the link says.
fn read_link<'a>(path: &str, buffer: &'a mut [u8; 256]) -> Result<&'a str, Error> {
    let length = rustix::fs::readlinkat_raw(rustix::fs::CWD, path, &mut buffer[..])
        .doing("reading the link", path)?;
    let bytes = buffer.get(..length).unwrap_or_default();
    core::str::from_utf8(bytes)
        .map_err(|_| Error::failed("reading the link", path, "it is not UTF-8"))
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
        true => Number::from_stat(status.st_rdev),
        false => Number::from_stat(status.st_dev),
    };
    let number = match number.major {
        0 => mounts::find(mounts::OWN, &mut |mount| mount.device == number)?
            .map_or(Ok(None), |mount| mounted_device(&mount))?,
        _ => Some(number),
    };
    // On no device: not on this disk.
    number.map_or(Ok(false), |number| Ok(device::whole_disk(number)? == disk))
}

/// MemAvailable and MemTotal in bytes: /proc/meminfo, proc(5).
pub fn memory() -> Result<(u64, u64), Error> {
    let path = "/proc/meminfo";
    let mut buffer = [0; 4096];
    let text = files::read_text(path, &mut buffer).doing("reading", path)?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib = line.and_then(|line| crate::text::decimal(line.trim().strip_suffix("kB")?));
        kib.map(|kib| kib * 1024)
    };
    // Before Linux 3.14 there is no MemAvailable.
    let older = || {
        let cached = field("Cached")?.saturating_sub(field("Shmem").unwrap_or(0));
        Some(field("MemFree")? + cached)
    };
    let available = field("MemAvailable").or_else(older);
    match (available, field("MemTotal")) {
        (Some(available), Some(total)) => Ok((available, total)),
        _ => Err(Error::failed("reading", path, "it does not tell the memory")),
    }
}
