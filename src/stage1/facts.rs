//! What the running system is: the disk under the root, mounts, swap, memory, the init that must be replaced.
//!
//! Reads only.

use crate::cli::Options;
use crate::disk::device::{self, Disk, Number};
use crate::disk::mounts::Mounts;
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
    /// Looks at everything. `buffer` is for tables of the kernel.
    pub fn gather(options: &Options, buffer: &mut [u8]) -> Result<Self, Error> {
        let mounts = Mounts::read(buffer)?;
        let root = root(&mounts)?;
        let target = target(options.flash_to.as_deref(), &mounts)?;
        let init = init(&mounts)?;
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

fn root(mounts: &Mounts) -> Result<Root, Error> {
    let mount = mounts
        .at("/")
        .ok_or_else(|| Error::failed("looking for", "/", "it is not in the mount table"))?;
    Ok(Root { number: mount.device, file_system: Text::from(mount.file_system) })
}

/// The disk to write: the one that was asked for, or the one under `/`.
fn target(asked: Option<&str>, mounts: &Mounts) -> Result<Disk, Error> {
    let number = match asked {
        Some(path) => asked_for(path)?,
        None => under_root(mounts)?,
    };
    let disk = device::disk(number)?;
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

fn under_root(mounts: &Mounts) -> Result<Number, Error> {
    let refuse = |object: &str, why: &str| {
        Error::refused("looking for the disk under", object, why)
            .advice("name the disk with -f DEV")
    };
    let root = mounts.at("/").ok_or_else(|| refuse("/", "it is not in the mount table"))?;
    let number = match root.device.major {
        // btrfs and others have numbers of their own; what was mounted is a device all the same.
        0 if root.source.starts_with("/dev/") => device::number_of(root.source)?,
        0 => {
            let why: Text<120> = crate::text!("it is {} on no device", root.file_system);
            return Err(refuse("/", &why));
        }
        _ => root.device,
    };
    if !device::slaves(number)?.is_empty() && !device::is_partition(number)? {
        let name = device::name_of(number)?;
        let why: Text<160> =
            crate::text!("{} is put together by LVM, dm-crypt or md, which is not supported", name);
        return Err(refuse("/", &why));
    }
    device::whole_disk(number)
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
fn init(mounts: &Mounts) -> Result<Init, Error> {
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
    if mounts.at(&path).is_some() {
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
        if !lies_on(swap.path, target) {
            continue;
        }
        let entry = SwapOnTarget {
            path: crate::path!("{}", swap.path)?,
            priority: swap.priority,
            used: swap.used * 1024,
        };
        found
            .push(entry)
            .map_err(|_| Error::refused("reading", "/proc/swaps", "more than 29 swap areas"))?;
    }
    Ok(found)
}

/// True when a device, or the file system that a file lies on, is part of a disk.
fn lies_on(path: &str, disk: Number) -> bool {
    let Ok(status) = files::status(path) else {
        return false;
    };
    let device = match FileType::from_raw_mode(status.st_mode).is_block_device() {
        true => status.st_rdev,
        false => status.st_dev,
    };
    device::whole_disk(Number::from_stat(device)).is_ok_and(|whole| whole == disk)
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
    let available = field("MemAvailable").or_else(|| Some(field("MemFree")? + field("Cached")?));
    match (available, field("MemTotal")) {
        (Some(available), Some(total)) => Ok((available, total)),
        _ => Err(Error::failed("reading", path, "it does not tell the memory")),
    }
}
