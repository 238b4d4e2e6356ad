//! The RAMFS: a private memory file system that holds all that stage 2 needs.
//!
//! Mode 0700, its size set, under a fresh directory whose name cannot be guessed. It carries executables and device
//! nodes, so it must be a mount of its own: /run is often noexec and nodev.

use super::undo::{Change, Undo};
use crate::crc32;
use crate::disk::device::{self, Number};
use crate::disk::mounts;
use crate::error::{Doing, Error};
use crate::files;
use crate::plan::names;
use crate::stage1::look::watchdogs;
use crate::text::{PathText, Text, Writer};
use rustix::fd::OwnedFd;
use rustix::fs::{FileType, FlockOperation, Mode, OFlags};
use rustix::mount::MountFlags;

/// Where the fresh directory may be made: memory first, since there it leaves no trace on a disk.
const PLACES: [&str; 4] = ["/run", "/dev/shm", "/tmp", "/"];

/// The most changes that a RAMFS is: its directory, the bind mount of that, itself, /proc, /sys, the console, the
/// kernel's log, and the watchdogs.
pub const MOST_CHANGES: usize = 7 + watchdogs::MOST;

/// A mounted RAMFS.
pub struct Ramfs {
    /// Where it is mounted.
    pub path: PathText,
    /// Its directory, locked for as long as somebody needs the RAMFS: `is_abandoned` asks for that.
    _lock: Option<OwnedFd>,
}

impl Ramfs {
    /// Mounts a RAMFS of at most `size` bytes and makes its directories, with /proc and /sys.
    pub fn mount(size: u64, undo: &mut Undo) -> Result<Self, Error> {
        let path = fresh_directory()?;
        undo.note(Change::MadeDirectory(path.clone()))?;
        // What is mounted at a place that is shared appears in every copy of it (`mount --rbind`, the namespaces of
        // services), and so would the RAMFS. In its stead an empty directory appears there, mounted over itself: where
        // that is seen here, it is shared with no copy that is there already, and with those to come, so that all of
        // them lose what is unmounted here.
        mounts::bind(&path, &path).doing("binding", &path)?;
        undo.note(Change::Mounted(path.clone()))?;
        mounts::make_shared_anew(&path).doing("making shared anew", &path)?;
        let noswap = if mounts::tmpfs_knows_noswap() { ",noswap" } else { "" };
        let data: Text<60> = crate::text!("size={},mode=0700{}", size, noswap);
        mounts::mount_at(mounts::RAMFS, &path, "tmpfs", MountFlags::empty(), &data)
            .doing("mounting a tmpfs at", &path)?;
        undo.note(Change::Mounted(path.clone()))?;
        // Before anything is in it: without directories it is not taken for abandoned.
        let lock = files::open(&path, OFlags::DIRECTORY).doing("opening", &path)?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).doing("locking", &path)?;
        let ramfs = Self { path, _lock: Some(lock) };
        for name in [names::DEV, "proc", "sys", names::OLD, names::MOUNT, names::FILES] {
            let directory = ramfs.inside(name)?;
            files::make_directory(&directory).doing("making", &directory)?;
        }
        for (kind, name) in [("proc", "proc"), ("sysfs", "sys")] {
            let point = ramfs.inside(name)?;
            let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
            mounts::mount_at(kind, &point, kind, flags, "").doing("mounting", &point)?;
            undo.note(Change::Mounted(point))?;
        }
        Ok(ramfs)
    }

    /// The directory `path` as a RAMFS, for unit tests: nothing is mounted.
    #[cfg(test)]
    pub fn at(path: &str) -> Self {
        Self { path: path.into(), _lock: None }
    }

    /// Gives up its lock, for all to be undone now by who made it: another flash that begins meanwhile must not take it
    /// for abandoned, and undo the same.
    pub fn leave(self) {
        // Not the one of the nodes: consoles are mounted in it, and are unmounted by their paths.
        if let (Ok(last), Ok(other)) = (self.inside(names::FILES), self.inside("ended")) {
            // Without it, both may find that a mount has gone already.
            let _ = files::rename(&last, &other);
        }
    }

    /// The number of its mount.
    pub fn mount_id(&self) -> Option<u32> {
        mounts::id_at(&self.path)
    }

    /// The bytes that are free in it.
    pub fn free(&self) -> Result<u64, Error> {
        let space = files::space(&self.path).doing("looking at the space in", &self.path)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }

    /// The path of a file in it, as stage 1 sees it.
    pub fn inside(&self, name: &str) -> Result<PathText, Error> {
        crate::path!("{}/{}", self.path.as_str(), name)
    }

    /// Makes the device nodes that stage 2 opens: the disk, null, the console, the kernel's log.
    pub fn make_nodes(&self, disk: &str, number: Number, undo: &mut Undo) -> Result<(), Error> {
        let node = self.inside(names::DEV)?;
        let disk = crate::path!("{}/{}", node, disk)?;
        device::make_node(&disk, number)?;
        let null = crate::path!("{}/null", node)?;
        make_character_node(&null, rustix::fs::makedev(1, 3))?;
        for name in ["console", "kmsg"] {
            self.adopt_node(name, undo)?;
        }
        Ok(())
    }

    /// Makes the nodes of the watchdogs that stage 2 may open. Where the kernel tells which run, stage 2 asks again; of
    /// the others those that run by now, and all of them when one is to be started and none runs.
    pub fn adopt_watchdogs(&self, starts_one: bool, undo: &mut Undo) -> Result<(), Error> {
        let all = watchdogs::all();
        let runs = all.iter().any(|watchdog| watchdog.runs);
        for watchdog in all {
            if watchdog.is_told || watchdog.runs || (starts_one && !runs) {
                self.adopt_node(&watchdog.name, undo)?;
            }
        }
        Ok(())
    }

    /// Makes a node like the one in /dev; nothing when there is none.
    ///
    /// A device node is made anew: a bind mount of one on the root file system would keep that busy. What is no
    /// device node, or one of a pseudo terminal (containers have such consoles, bound over /dev/console), works only
    /// where it is, so that is bound.
    fn adopt_node(&self, name: &str, undo: &mut Undo) -> Result<(), Error> {
        /// Unix98 pseudo terminals have the major numbers 136 to 143; they work in devpts alone.
        const TERMINALS: core::ops::Range<u32> = 136..144;
        let old = crate::path!("/dev/{}", name)?;
        let Ok(status) = files::status(&old) else {
            crate::debug!("there is no {}", old.as_str());
            return Ok(());
        };
        let new = crate::path!("{}/{}/{}", self.path.as_str(), names::DEV, name)?;
        let is_device = FileType::from_raw_mode(status.st_mode).is_char_device();
        if is_device && !TERMINALS.contains(&rustix::fs::major(status.st_rdev)) {
            return make_character_node(&new, status.st_rdev);
        }
        files::create(&new, b"")?;
        mounts::bind(&old, &new).doing("binding", &old)?;
        undo.note(Change::Mounted(new))
    }

    /// Copies this program, mode 0700, and reads the copy back.
    pub fn copy_program(&self, buffer: &mut [u8]) -> Result<(), Error> {
        let own = "/proc/self/exe";
        let from = files::open(own, OFlags::RDONLY).doing("opening", own)?;
        let path = self.inside(names::PROGRAM)?;
        let to = files::create(&path, b"")?;
        let mut crc = 0;
        loop {
            let count = files::read_to_end(&from, buffer).doing("reading", own)?;
            if count == 0 {
                break;
            }
            let piece = buffer.get(..count).unwrap_or_default();
            crc = crc32::extend(crc, piece);
            files::write_all(&to, piece).doing("writing", &path)?;
        }
        rustix::fs::fchmod(&to, Mode::RWXU).doing("making executable", &path)?;
        // While somebody may still write to it, the kernel does not execute it.
        drop(to);
        if crc_of(&path, buffer)? != crc {
            return Err(Error::failed("reading back", &path, "it differs from this program")
                .advice("the memory of this device is bad"));
        }
        Ok(())
    }
}

fn crc_of(path: &str, buffer: &mut [u8]) -> Result<u32, Error> {
    let file = files::open(path, OFlags::RDONLY).doing("opening", path)?;
    let mut crc = 0;
    loop {
        let count = files::read_to_end(&file, buffer).doing("reading back", path)?;
        if count == 0 {
            return Ok(crc);
        }
        crc = crc32::extend(crc, buffer.get(..count).unwrap_or_default());
    }
}

fn make_character_node(path: &str, device: rustix::fs::Dev) -> Result<(), Error> {
    files::make_node(path, FileType::CharacterDevice, device).doing("making the device node", path)
}

/// True for a RAMFS whose maker has ended: nobody has its lock. One that was just mounted is not abandoned: its maker
/// asks for the lock first, and makes the directories then.
pub fn is_abandoned(path: &str) -> bool {
    let Ok(directory) = files::open(path, OFlags::DIRECTORY) else {
        return false;
    };
    let is_free = rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive).is_ok();
    let is_made = crate::path!("{}/{}", path, names::FILES).is_ok_and(|last| files::exists(&last));
    is_free && is_made
}

fn fresh_directory() -> Result<PathText, Error> {
    let mut random = [0; 8];
    files::read_start("/dev/urandom", &mut random).doing("reading", "/dev/urandom")?;
    let name = u64::from_ne_bytes(random);
    let mut last = Error::failed("making a directory", "", "there is no place for it");
    for place in PLACES {
        // By this form a later run knows what a killed one has left.
        let path = crate::path::build(&mut |writer: &mut Writer| {
            ufmt::uwrite!(writer, "{}/takeover-{:016x}", place.trim_end_matches('/'), name)
        })?;
        match files::make_directory(&path).doing("making the directory", &path) {
            Ok(()) => return Ok(path),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_undoes_it_needs_no_help_of_one_that_begins() {
        let path = std::env::temp_dir().join(format!("takeover-ramfs-{}", std::process::id()));
        std::fs::create_dir_all(path.join(names::FILES)).unwrap();
        let text = path.to_str().unwrap();
        assert!(is_abandoned(text), "nobody has its lock");
        Ramfs::at(text).leave();
        assert!(!is_abandoned(text));
        std::fs::remove_dir_all(path).unwrap();
    }
}
