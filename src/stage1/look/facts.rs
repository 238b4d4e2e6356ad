//! What the running system is: the disk under the root, mounts, swap, memory, the init that must be replaced.
//!
//! Reads only.

use crate::disk::device::{Disk, Number};
use crate::disk::mounts::{self, Found};
use crate::disk::{pools, stack, swaps};
use crate::error::{Doing, Error};
use crate::files;
use crate::stage1::look::leftovers;
use crate::stage1::look::tracing::{self, Obstacle};
use crate::text::{PathText, Size, Text, kib_in};
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

/// The most swap areas that are handled; the kernel has room for 29.
pub const MAX_SWAPS: usize = 29;
/// The kernel's list of swap areas (proc(5)).
const SWAPS: &str = "/proc/swaps";
/// Where sysvinit listens.
const CONTROL_PIPES: [&str; 2] = ["/run/initctl", "/dev/initctl"];
/// Where openrc-init does: RC_INIT_FIFO of OpenRC.
pub const OPENRC_PIPE: &str = "/run/openrc/init.ctl";
/// Upstart's own socket, as /proc/net/unix shows it: DBUS_ADDRESS_UPSTART of Upstart.
const UPSTART_SOCKET: &str = "@/com/ubuntu/upstart";

/// A swap area that must be turned off.
pub struct SwapArea {
    /// The file or device.
    pub path: PathText,
    /// Its priority.
    pub priority: i32,
    /// What must be read back into memory, in bytes.
    pub used: u64,
    /// It lies on the target.
    pub is_on_target: bool,
    /// What it discards, as flags of swapon(2), where /etc/fstab says it.
    pub discard: Option<u32>,
}

/// The swap areas that must be turned off, those of the lowest priority first.
pub type SwapAreas = heapless::Vec<SwapArea, MAX_SWAPS>;

/// An init that executes itself again when it is asked to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flavour {
    /// systemd.
    Systemd,
    /// sysvinit.
    Sysvinit,
    /// Upstart.
    Upstart,
    /// openrc-init.
    Openrc,
}

impl Flavour {
    /// What people call it.
    pub const fn name(self) -> &'static str {
        match self {
            Flavour::Systemd => "systemd",
            Flavour::Sysvinit => "sysvinit",
            Flavour::Upstart => "upstart",
            Flavour::Openrc => "openrc-init",
        }
    }
}

/// The init that must be replaced.
pub struct Init {
    /// Its kind; none when it knows no such request.
    pub flavour: Option<Flavour>,
    /// The file it executes itself from.
    pub path: PathText,
    /// Something is mounted over that file; what a killed takeover has left there, and the next one removes, does not
    /// count.
    pub is_covered: bool,
    /// What keeps it from being made to execute a program by ptrace.
    pub obstacle: Option<Obstacle>,
}

impl Init {
    /// What people call it: the name of its file, where we have none.
    pub fn name(&self) -> &str {
        match self.flavour {
            Some(flavour) => flavour.name(),
            None => file_name(&self.path),
        }
    }

    /// The request that it is asked by to execute itself again, if it can be: this program must be found in the place
    /// of its own file.
    pub fn asked(&self) -> Option<Flavour> {
        self.flavour.filter(|_| !self.is_covered)
    }
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// The file system that `/` is.
pub struct Root {
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
    /// Swap that must be turned off.
    pub swaps: SwapAreas,
    /// MemAvailable, and what is available once the leftovers of a killed takeover are removed, in bytes.
    pub available: u64,
    /// MemTotal, in bytes.
    pub total: u64,
}

impl Facts {
    /// Looks at everything; `root` is the mount of `/`, and `target` the disk that is written.
    pub fn gather(root: &Found, target: Disk) -> Result<Self, Error> {
        let root = Root { device: root.lies_on(), file_system: root.file_system.clone() };
        let init = init()?;
        let swaps = swaps_to_turn_off(Some(target.number))?;
        let (available, total) = memory()?;
        Ok(Self { target, root, init, swaps, available, total })
    }

    /// Logs what was found.
    pub fn log(&self) {
        crate::info!(
            "this device: {} available of {}, init is {} ({}), / is {}",
            Size(self.available),
            Size(self.total),
            self.init.name(),
            self.init.path.as_str(),
            self.root.file_system
        );
        crate::info!("the disk: /dev/{}, {}", self.target.name, Size(self.target.size));
    }
}

/// The mount that is seen at `/`.
pub fn root_mount() -> Result<Found, Error> {
    mounts::at("/")?
        .ok_or_else(|| Error::failed("looking for", "/", "it is not in the mount table"))
}

/// Which init runs, and from which file it will execute itself again.
fn init() -> Result<Init, Error> {
    let mut buffer = [0; 256];
    let link = files::read_link("/proc/1/exe", &mut buffer)
        .map_err(|error| error.advice("root needs CAP_SYS_PTRACE for it, in a container, too"))?;
    // After an upgrade of the package the running file is gone, and the new one is at the same place.
    let link = link.strip_suffix(" (deleted)").unwrap_or(link);
    let path = crate::path!("{}", link)?;
    let flavour = match file_name(&path) {
        "systemd" => Some(Flavour::Systemd),
        "init" if control_pipe().is_some() => Some(Flavour::Sysvinit),
        "init" if is_upstart("/proc/net/unix") => Some(Flavour::Upstart),
        "openrc-init" if is_pipe(OPENRC_PIPE) => Some(Flavour::Openrc),
        _ => None,
    };
    let is_covered = match mounts::at(&path)? {
        Some(cover) => !leftovers::is_of_ramfs(cover.device)?,
        None => false,
    };
    Ok(Init { flavour, path, is_covered, obstacle: tracing::obstacle()? })
}

/// sysvinit's named pipe for requests, when there is one.
pub fn control_pipe() -> Option<&'static str> {
    CONTROL_PIPES.iter().copied().find(|path| is_pipe(path))
}

fn is_pipe(path: &str) -> bool {
    let status = files::status(path);
    status.is_ok_and(|status| FileType::from_raw_mode(status.st_mode).is_fifo())
}

/// True when Upstart listens, from the list of the sockets (proc(5)).
fn is_upstart(sockets: &str) -> bool {
    let mut found = false;
    // A kernel without such sockets has no such list.
    let _ = files::for_each_line(sockets, &mut |line: &[u8]| {
        found |= line.ends_with(UPSTART_SOCKET.as_bytes());
    });
    found
}

/// The swap areas that must be turned off: those on the target, since they keep it busy, and where the kernel could
/// swap the RAMFS out, with the keys in it, all others that are on a disk.
pub fn swaps_to_turn_off(target: Option<Number>) -> Result<SwapAreas, Error> {
    swaps_of(SWAPS, target, !mounts::tmpfs_knows_noswap())
}

fn swaps_of(list: &str, target: Option<Number>, can_swap_ramfs: bool) -> Result<SwapAreas, Error> {
    let mut found = heapless::Vec::new();
    if target.is_none() && !can_swap_ramfs {
        return Ok(found);
    }
    let mut result = Ok(());
    let mut is_heading = true;
    let read = files::for_each_line(list, &mut |line: &[u8]| {
        if !is_heading && result.is_ok() {
            let odd = || Error::refused("reading", list, "it has a line that makes no sense");
            let swap = swaps::parse(files::as_text(line)).ok_or_else(odd);
            result = swap.and_then(|swap| add_swap(&swap, target, can_swap_ramfs, &mut found));
        }
        is_heading = false;
    });
    match read {
        // A kernel without swap has no such file.
        Ok(()) | Err(Errno::NOENT) => result.map(|()| found),
        Err(errno) => Err(Error::os("reading", list, errno)),
    }
}

/// Adds an area, the one of the lowest priority first.
fn add_swap(
    swap: &swaps::Swap,
    target: Option<Number>,
    can_swap_ramfs: bool,
    found: &mut SwapAreas,
) -> Result<(), Error> {
    let path = mounts::unescape(swap.path)?;
    let status = files::status(&path)
        .doing("looking at the swap area", &path)
        .map_err(|error| error.as_refusal().advice("turn it off first: swapoff"))?;
    let number = number_of_area(&path, &status)?;
    // On no device: not on this disk.
    let is_on_target = match (number, target) {
        (Some(number), Some(target)) => pools::file_system_lies_on(number, target)?,
        _ => false,
    };
    if !is_on_target && (!can_swap_ramfs || number.is_some_and(stack::is_memory)) {
        return Ok(());
    }
    let area = SwapArea {
        path,
        priority: swap.priority,
        used: swap.used * 1024,
        is_on_target,
        discard: discard_of(&status),
    };
    let is_above = |other: &SwapArea| other.priority > swap.priority;
    let place = found.iter().position(is_above).unwrap_or(found.len());
    found
        .insert(place, area)
        .map_err(|_| Error::refused("reading", SWAPS, "more than 29 swap areas"))
}

/// The device that a swap area is, or that the file system lies on which its file is in.
fn number_of_area(path: &str, status: &Stat) -> Result<Option<Number>, Error> {
    if FileType::from_raw_mode(status.st_mode).is_block_device() {
        return Ok(Some(Number::from_stat(status.st_rdev)));
    }
    // By the mount that it lies on: files of btrfs have device numbers that no mount has.
    Ok(mounts::above(path)?.and_then(|mount| mount.lies_on()))
}

/// What a swap area discards, as /etc/fstab has it. systemd's units for swap are made from that, as a rule.
fn discard_of(status: &Stat) -> Option<u32> {
    let mut buffer = [0; 8192];
    let fstab = files::read_text("/etc/fstab", &mut buffer).ok()?;
    swaps::discard(fstab, &|source| is_same(source, status))
}

/// True when a source, as fstab(5) has it, is this device or file.
fn is_same(source: &str, status: &Stat) -> bool {
    let (folder, name) = match source.split_once('=') {
        Some(("UUID", name)) => ("/dev/disk/by-uuid/", name),
        Some(("LABEL", name)) => ("/dev/disk/by-label/", name),
        Some(("PARTUUID", name)) => ("/dev/disk/by-partuuid/", name),
        _ => ("", source),
    };
    let other = crate::path!("{}{}", folder, name);
    other.is_ok_and(|other| {
        files::status(&other).is_ok_and(|other| {
            let is_node = FileType::from_raw_mode(other.st_mode).is_block_device();
            let is_same_device = is_node && other.st_rdev == status.st_rdev;
            is_same_device || (other.st_dev, other.st_ino) == (status.st_dev, status.st_ino)
        })
    })
}

/// MemAvailable and MemTotal in bytes: /proc/meminfo, proc(5). What a killed takeover has left is counted as available:
/// a takeover has removed it by now, and a dry run tells what a takeover will have. (Of a memory file system nothing is
/// in MemAvailable: si_mem_available() in mm/show_mem.c.)
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
        (Some(available), Some(total)) => Ok((available + leftovers::memory()?, total)),
        _ => Err(Error::failed("reading", path, "it does not tell the memory")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::device;

    #[test]
    fn upstart_is_told_by_its_socket() {
        let path = std::env::temp_dir().join(format!("takeover-sockets-{}", std::process::id()));
        let is_upstart = |list: &str| {
            std::fs::write(&path, list).unwrap();
            is_upstart(path.to_str().unwrap())
        };
        let heading = "Num       RefCount Protocol Flags    Type St Inode Path\n";
        let line = "00000000: 00000002 00000000 00010000 0001 01  7000 @/com/ubuntu/upstart";
        assert!(is_upstart(&format!("{heading}{line}\n")));
        assert!(!is_upstart(&format!("{heading}{line}-session/1000\n")));
        assert!(!is_upstart(heading));
        std::fs::remove_file(&path).unwrap();
        assert!(!super::is_upstart("/nowhere"), "a kernel without such sockets");
    }

    #[test]
    fn an_init_is_asked_where_this_program_can_be_in_its_place() {
        let init = |flavour, is_covered| Init {
            flavour,
            path: PathText::from("/usr/bin/s6-svscan"),
            is_covered,
            obstacle: None,
        };
        let upstart = Some(Flavour::Upstart);
        assert_eq!(init(upstart, false).asked(), upstart);
        assert_eq!((init(upstart, true).asked(), init(None, false).asked()), (None, None));
        assert_eq!(
            (init(upstart, false).name(), init(None, false).name()),
            ("upstart", "s6-svscan")
        );
    }

    #[test]
    fn a_swap_area_at_the_end_of_a_long_list_is_found_and_an_odd_line_is_refused() {
        let root = root_mount().unwrap().lies_on();
        let Some(disk) = root.and_then(|root| device::whole_disk(root).ok()) else {
            return;
        };
        let path = std::env::temp_dir().join(format!("takeover-swaps-{}", std::process::id()));
        let mut list = String::from("Filename\tType\tSize\tUsed\tPriority\n");
        // On no disk.
        for _ in 0..200 {
            list += &format!("{:60}file\t65532\t12\t-2\n", "/proc/version");
        }
        list += "/ file\t65532\t12\t5\n";
        let read = |list: &str| {
            std::fs::write(&path, list).unwrap();
            let found = swaps_of(path.to_str().unwrap(), Some(disk), false);
            std::fs::remove_file(&path).unwrap();
            found
        };
        let found = read(&list).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((&*found[0].path, found[0].used, found[0].priority), ("/", 12 * 1024, 5));
        assert!(read(&(list + "what is this\n")).is_err());
        assert!(read("Filename\n").unwrap().is_empty());
        assert!(
            swaps_of("/nowhere", Some(disk), false).unwrap().is_empty(),
            "a kernel without swap"
        );
    }
}
