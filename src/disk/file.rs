//! A file as it lies on a whole disk, below its file system, and the room that the file system has.

use super::device::{self, Disk, Number};
use super::extents::Pieces;
use super::mounts;
use super::room::{self, Overwritten};
use super::segments::{FINDING, Segments};
use crate::error::{Doing, Error};
use crate::files;
use crate::sys::extents::{self, BATCH, Space};
use crate::text::{PathText, Text};
use rustix::fd::OwnedFd;
use rustix::fs::IFlags;
use rustix::io::Errno;

/// The file systems of which it is known that what they tell of a file is where its bytes stay: others move them about
/// (f2fs), count in places of their own (btrfs), or tell nothing (those on servers).
const KNOWN: [&str; 5] = ["ext2", "ext3", "ext4", "xfs", FAT];
/// It sets no room aside: where nothing need be moved, as on a stick, that is no matter.
const FAT: &str = "vfat";

/// FS_ENCRYPT_FL of <linux/fs.h>: fscrypt, whose FIEMAP does not tell of it.
const ENCRYPTED: u32 = 0x800;

/// How large a file system is, and how much of it is free; in bytes.
pub struct Room {
    /// All of it.
    pub size: u64,
    /// What is free for root.
    pub free: u64,
    /// What of that everybody may use.
    pub for_all: u64,
}

/// An open file or directory and the disk that it lies on.
pub struct FileOnDisk {
    /// The file itself.
    pub file: OwnedFd,
    /// Where it is, as the kernel calls it.
    pub path: PathText,
    /// The type of its file system.
    pub file_system: Text<16>,
    /// The disk.
    pub disk: Disk,
    segments: Segments,
    device: Number,
}

impl FileOnDisk {
    /// Finds where an open file or directory lies. What is on no plain disk, or in a file system that keeps its bytes
    /// otherwise, is refused by the reason.
    pub fn find(file: OwnedFd) -> Result<Self, Error> {
        let path = files::path_of(&file)?;
        let refuse = |why: &str| Error::refused(FINDING, &path, why);
        let status = rustix::fs::fstat(&file).doing("looking at", &path)?;
        let device = Number::from_stat(status.st_dev);
        let mut is_journalled = false;
        let found = mounts::find(mounts::OWN, &mut |mount| {
            let is_it = mount.device == device;
            is_journalled |= is_it && mount.file_system_options.split(',').any(is_journal_option);
            is_it
        })?;
        // Files of btrfs have device numbers that no mount has.
        let found = match found {
            Some(found) => Some(found),
            None => mounts::above(&path)?,
        };
        let file_system = found.map(|found| found.file_system).unwrap_or_default();
        if device.major == 0 || !KNOWN.contains(&&*file_system) {
            let why: Text<120> =
                crate::text!("it is on {}, which does not tell where on a disk", file_system);
            return Err(refuse(&why));
        }
        if is_journalled || is_journalled_by_default(device)? {
            return Err(refuse("its file system keeps new data in its journal (data=journal)"));
        }
        if let Some(why) = kept_otherwise(&file) {
            return Err(refuse(why));
        }
        if extents::is_realtime(&file) {
            return Err(refuse("it is on the realtime device of its file system"));
        }
        let segments = Segments::of(device)?;
        let disk = device::disk(segments.disk)?;
        Ok(Self { file, path, file_system, disk, segments, device })
    }

    /// Where `path`, which is beside it, is once the old root is gone: the partition that its file system is on, and
    /// the path there. Nothing of what is in LVM or dm-crypt, which are taken down with the old OS.
    pub fn on_partition(&self, path: &str) -> Result<Option<(Number, PathText)>, Error> {
        let (mut below, mut longest) = (None, 0);
        mounts::find(mounts::OWN, &mut |mount| {
            let point = mount.point().unwrap_or_default();
            let rest = path.strip_prefix(point.strip_suffix('/').unwrap_or(&point));
            let is_it = mount.device == self.device && point.len() >= longest;
            if let Some(rest) = rest.filter(|rest| is_it && rest.starts_with('/')) {
                longest = point.len();
                let root = mounts::unescape(mount.root).unwrap_or_default();
                below = crate::path!("{}{}", root.strip_suffix('/').unwrap_or(&root), rest).ok();
            }
            false
        })?;
        let is_partition = device::is_partition(self.device)?;
        Ok(below.filter(|_| is_partition).map(|path| (self.device, path)))
    }

    /// Its pieces from `start` to `end`, in bytes.
    pub fn pieces(&self, start: u64, end: u64) -> Pieces<'_> {
        Pieces::new(&self.file, &self.segments, start, end)
    }

    /// The pieces of another file of its file system, of `length` bytes, whose blocks were set aside.
    pub fn set_aside<'a>(&'a self, file: &'a OwnedFd, length: u64) -> Pieces<'a> {
        Pieces::set_aside(file, &self.segments, length)
    }

    /// True when its file system can set room aside, for a copy.
    pub fn sets_room_aside(&self) -> bool {
        &*self.file_system != FAT
    }

    /// True when another open file is on the same file system.
    pub fn is_beside(&self, other: &OwnedFd) -> bool {
        rustix::fs::fstat(other).is_ok_and(|status| Number::from_stat(status.st_dev) == self.device)
    }

    /// The free bytes of its file system that outlive, as far as everybody may use them. Where the file system does not
    /// tell which are free, those that outlive in any case.
    pub fn free(&self, over: Overwritten) -> Result<u64, Error> {
        let room = self.room()?;
        let lost = match self.lost_as_told(over) {
            Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::INVAL) => {
                let parts = self.segments.parts().iter();
                let lost = |part: &super::segments::Segment| {
                    part.length - over.outlived(part.on_disk, part.length)
                };
                parts.map(lost).sum()
            }
            result => result.doing("asking which blocks are free beside", &self.path)?,
        };
        Ok(room.free.saturating_sub(lost).min(room.for_all))
    }

    /// How large its file system is, and how much of it is free.
    pub fn room(&self) -> Result<Room, Error> {
        let space = rustix::fs::fstatvfs(&self.file).doing("looking at", &self.path)?;
        let [size, free, for_all] = [space.f_blocks, space.f_bfree, space.f_bavail]
            .map(|blocks| blocks.saturating_mul(space.f_frsize));
        Ok(Room { size, free, for_all })
    }

    /// How many bytes of another file of its file system, which was set aside, outlive.
    pub fn outlived_of(&self, file: &OwnedFd, over: Overwritten) -> Result<u64, Error> {
        let status = rustix::fs::fstat(file).doing("looking at", "what was set aside")?;
        room::usable(&mut self.set_aside(file, status.st_size as u64), over)
    }

    /// The free bytes that do not outlive, as the file system tells which are free. What of them it keeps for itself is
    /// taken to be behind.
    fn lost_as_told(&self, over: Overwritten) -> Result<u64, Errno> {
        // new_encode_dev() in include/linux/kdev_t.h of Linux.
        let Number { major, minor } = self.device;
        let device = minor & 0xff | major << 8 | (minor & !0xff) << 12;
        let mut records = [Space::default(); BATCH];
        let mut last = Space::default();
        let mut lost = 0;
        loop {
            let count = extents::of_file_system(&self.file, last, &mut records)?;
            let found = records.get(..count).unwrap_or_default();
            for space in found.iter().filter(|space| space.is_free() && space.device == device) {
                lost += space.length - outlived(&self.segments, space, over);
            }
            match found.last() {
                Some(space) if !space.is_last() => last = *space,
                _ => return Ok(lost),
            }
        }
    }

    /// True when a file can be made beside it: its file system is not read-only.
    pub fn is_writable(&self) -> bool {
        let space = rustix::fs::fstatvfs(&self.file);
        space.is_ok_and(|space| !space.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
    }
}

fn is_journal_option(option: &str) -> bool {
    option == "data=journal"
}

/// True when ext4 keeps all data in its journal first. Its mount options leave out what is the default of the file
/// system itself (tune2fs -o journal_data); this file has all of them.
fn is_journalled_by_default(device: Number) -> Result<bool, Error> {
    let path = crate::path!("/proc/fs/ext4/{}/options", &*device::name_of(device)?)?;
    let mut buffer = [0; 2048];
    let options = files::read_text(&path, &mut buffer).unwrap_or_default();
    Ok(options.lines().any(is_journal_option))
}

/// Why the bytes of a file, or of those that a folder will have, are not on the disk as they are read.
pub fn kept_otherwise(file: &OwnedFd) -> Option<&'static str> {
    // Where there are no such flags, there are none of these.
    let flags = rustix::fs::ioctl_getflags(file).map_or(0, |flags| flags.bits());
    if flags & ENCRYPTED != 0 {
        Some("it is encrypted there (fscrypt)")
    } else if flags & IFlags::JOURNALING.bits() != 0 {
        Some("what is written to it waits in the journal of its file system (chattr +j)")
    } else {
        None
    }
}

fn outlived(segments: &Segments, space: &Space, over: Overwritten) -> u64 {
    let (mut sum, mut done) = (0, 0);
    while done < space.length
        && let Some((place, there)) = segments.place(space.physical + done)
    {
        let length = there.min(space.length - done);
        sum += over.outlived(place, length);
        done += length;
    }
    sum
}
