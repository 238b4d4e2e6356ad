//! The mount table of a process: /proc/PID/mountinfo (proc(5)).

use super::device::Number;
use crate::error::{Doing, Error};
use crate::files;
use core::ffi::CStr;
use core::time::Duration;
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

/// One mount.
#[derive(Clone, Copy, Debug)]
pub struct Mount<'a> {
    /// The mount's own number: two processes that see the same one see the same mount.
    pub id: u32,
    /// The device number of its file system.
    pub device: Number,
    /// Which directory of the file system is mounted, escaped as in the file.
    pub root: &'a str,
    /// Where, escaped as in the file.
    point: &'a str,
    /// The options of this mount.
    pub options: &'a str,
    /// The type of the file system.
    pub file_system: &'a str,
    /// What was mounted, as it was called then.
    pub source: &'a str,
}

impl Mount<'_> {
    /// Where it is mounted.
    pub fn point(&self) -> Result<crate::text::PathText, Error> {
        unescape(self.point)
    }
}

/// A copy of a mount table.
pub struct Mounts<'a>(&'a str);

impl<'a> Mounts<'a> {
    /// Reads this process's table into `buffer`. What does not fit is missing from the end: tables of hundreds of
    /// mounts need some 100 KiB.
    pub fn read(buffer: &'a mut [u8]) -> Result<Self, Error> {
        Self::read_from("/proc/self/mountinfo", buffer)
    }

    /// Reads the table of another process.
    pub fn read_from(path: &str, buffer: &'a mut [u8]) -> Result<Self, Error> {
        let bytes = files::read(path, buffer).doing("reading", path)?;
        Ok(Self::parse(bytes))
    }

    /// A table that was read already. A byte that is not UTF-8 ends it.
    pub fn parse(bytes: &'a [u8]) -> Self {
        Self(match core::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let valid = bytes.get(..error.valid_up_to()).unwrap_or_default();
                core::str::from_utf8(valid).unwrap_or_default()
            }
        })
    }

    /// The mounts, oldest first; the last one at a place is the one that is seen.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Mount<'a>> + use<'a> {
        self.0.lines().filter_map(mount)
    }

    /// The mount that is seen at `point`.
    pub fn at(&self, point: &str) -> Option<Mount<'a>> {
        self.iter().rfind(|mount| mount.point().is_ok_and(|path| &*path == point))
    }
}

fn mount(line: &str) -> Option<Mount<'_>> {
    // 36 35 98:0 /root /point options [optional fields] - type source super-options
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ');
    let id = left.next()?.parse().ok()?;
    let device = Number::parse(left.nth(1)?)?;
    let root = left.next()?;
    let point = left.next()?;
    let options = left.next()?;
    let mut right = right.split(' ');
    let file_system = right.next()?;
    let source = right.next()?;
    Some(Mount { id, device, root, point, options, file_system, source })
}

/// Undoes the kernel's escapes: a backslash and three octal digits (mangle() in fs/proc_namespace.c).
fn unescape(text: &str) -> Result<crate::text::PathText, Error> {
    let mut path = heapless::Vec::<u8, 256>::new();
    let too_long = || crate::text::path_too_long(text);
    let mut bytes = text.as_bytes().iter();
    while let Some(&byte) = bytes.next() {
        let digits = bytes.as_slice().get(..3).filter(|_| byte == b'\\');
        let value = digits.and_then(octal);
        if value.is_some() {
            bytes.nth(2);
        }
        path.push(value.unwrap_or(byte)).map_err(|_| too_long())?;
    }
    match core::str::from_utf8(&path) {
        Ok(path) => crate::path!("{}", path),
        Err(_) => Err(Error::failed("reading the mount point", text, "it is not UTF-8")),
    }
}

fn octal(digits: &[u8]) -> Option<u8> {
    let value = digits.iter().try_fold(0u32, |sum, digit| {
        let digit = char::from(*digit).to_digit(8)?;
        Some(sum << 3 | digit)
    })?;
    u8::try_from(value).ok()
}

/// Mounts a file system. mount(2). Like its neighbours not generic: the copying of paths for the kernel is compiled
/// once.
#[inline(never)]
pub fn mount_at(
    source: &str,
    point: &str,
    kind: &str,
    flags: MountFlags,
    data: &str,
) -> Result<(), Errno> {
    let mut bytes = [0; 64];
    let data = terminated(data, &mut bytes)?;
    rustix::mount::mount(source, point, kind, flags, data)
}

/// Changes the flags of a mount, and the options of its file system. Flags that are not repeated are dropped.
#[inline(never)]
pub fn remount(point: &str, flags: MountFlags, data: &str) -> Result<(), Errno> {
    let mut bytes = [0; 64];
    rustix::mount::mount_remount(point, flags, terminated(data, &mut bytes)?)
}

/// Makes a file or directory appear in another place too.
#[inline(never)]
pub fn bind(source: &str, point: &str) -> Result<(), Errno> {
    rustix::mount::mount_bind(source, point)
}

/// Keeps mounts made below from spreading to other namespaces, and the other way round.
#[inline(never)]
pub fn make_private(point: &str, below_too: bool) -> Result<(), Errno> {
    let recursive =
        if below_too { MountPropagationFlags::REC } else { MountPropagationFlags::empty() };
    rustix::mount::mount_change(point, MountPropagationFlags::PRIVATE | recursive)
}

/// Unmounts. umount2(2), never through a symbolic link.
#[inline(never)]
pub fn unmount(point: &str) -> Result<(), Errno> {
    rustix::mount::unmount(point, UnmountFlags::NOFOLLOW)
}

/// Takes a mount out of sight; what it shows stays alive for those who use it.
#[inline(never)]
pub fn detach(point: &str) -> Result<(), Errno> {
    rustix::mount::unmount(point, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)
}

/// Unmounts, giving those who look at every new mount (udev, a file manager) two seconds to finish.
pub fn unmount_patiently(point: &str) -> Result<(), Errno> {
    for _ in 0..20 {
        match unmount(point) {
            Err(Errno::BUSY) => std::thread::sleep(Duration::from_millis(100)),
            result => return result,
        }
    }
    Err(Errno::BUSY)
}

/// Mount data as the kernel takes it.
fn terminated<'a>(data: &str, bytes: &'a mut [u8; 64]) -> Result<&'a CStr, Errno> {
    let place =
        bytes.get_mut(..data.len()).filter(|_| data.len() < 64).ok_or(Errno::NAMETOOLONG)?;
    place.copy_from_slice(data.as_bytes());
    CStr::from_bytes_until_nul(bytes).map_err(|_| Errno::INVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
22 1 8:2 / / rw,relatime shared:1 - ext4 /dev/sda2 rw
23 22 0:5 / /proc rw shared:2 master:3 - proc proc rw
24 22 8:3 /sub /mnt/a\\040b\\134c rw - ext4 /dev/root rw
25 22 8:4 / /mnt/twice rw - ext4 /dev/sda4 rw
26 25 8:5 / /mnt/twice rw - vfat /dev/sda5 rw
";

    #[test]
    fn fields_and_escapes() {
        let mounts = Mounts::parse(TABLE.as_bytes());
        let all: Vec<_> = mounts.iter().collect();
        assert_eq!(all.len(), 5);
        assert_eq!(&*all[2].point().unwrap(), "/mnt/a b\\c");
        assert_eq!((all[2].root, all[2].source), ("/sub", "/dev/root"));
        assert_eq!(mounts.at("/").unwrap().device, Number { major: 8, minor: 2 });
    }

    #[test]
    fn the_last_mount_at_a_place_is_the_one_seen() {
        let mounts = Mounts::parse(TABLE.as_bytes());
        assert_eq!(mounts.at("/mnt/twice").unwrap().file_system, "vfat");
    }

    #[test]
    fn lines_that_make_no_sense_are_stepped_over() {
        assert_eq!(Mounts::parse(b"x\n1 2 3\n\xff - a b\n").iter().count(), 0);
    }
}
