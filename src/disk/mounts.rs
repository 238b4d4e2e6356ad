//! The mount table of a process: /proc/PID/mountinfo (proc(5)).

use super::device::{self, Number};
use crate::error::{Doing, Error};
use crate::files::{self, LONGEST_PATH};
use crate::sys::terminated;
use crate::text::{PathText, Text};
use core::ffi::CStr;
use core::time::Duration;
use rustix::fd::AsRawFd;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::mount::{FsOpenFlags, MountFlags, MountPropagationFlags, UnmountFlags};

/// A file system that the kernel mounts for us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileSystem {
    /// FAT of any width.
    Vfat,
    /// ext2, ext3 and ext4.
    Ext4,
}

impl FileSystem {
    /// The name that mount(2) takes.
    pub const fn name(self) -> &'static str {
        match self {
            FileSystem::Vfat => "vfat",
            FileSystem::Ext4 => "ext4",
        }
    }
}

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
    /// The options of the file system itself.
    pub file_system_options: &'a str,
}

impl Mount<'_> {
    /// Where it is mounted.
    pub fn point(&self) -> Result<PathText, Error> {
        unescape(self.point)
    }

    /// True when this is mounted at `point`.
    pub fn is_at(&self, point: &str) -> bool {
        self.point().is_ok_and(|path| &*path == point)
    }

    /// True when a server answers for this file system, one elsewhere or a process here: when it has gone, whoever
    /// looks into the file system may wait for ever. The types are those of systemd's fstype_is_network that a kernel
    /// mounts without a block device, and FUSE; but not the one that a host of containers lends to all of them, where
    /// to end one's connection is to end everybody's.
    pub fn has_server(&self) -> bool {
        let (kind, name) = self.file_system.split_once('.').unwrap_or((self.file_system, ""));
        let is_server = matches!(
            kind,
            "nfs" | "nfs4" | "cifs" | "smb3" | "ceph" | "9p" | "afs" | "fuse" | "virtiofs"
        );
        is_server && name != "lxcfs"
    }

    /// True for a file system that lies on a disk. Btrfs has a device number that is no disk's.
    pub fn is_on_disk(&self) -> bool {
        self.device.major != 0 || self.file_system == "btrfs"
    }

    /// The device that it lies on; none for what lies on no device.
    pub fn lies_on(&self) -> Option<Number> {
        device_of(self.device, self.source)
    }

    fn found(&self) -> Result<Found, Error> {
        Ok(Found {
            id: self.id,
            device: self.device,
            point: self.point()?,
            file_system: Text::from(self.file_system),
            source: Text::from(self.source),
        })
    }
}

/// A mount that was found, with what is asked of it afterwards.
#[derive(Clone, Debug)]
pub struct Found {
    /// The mount's own number.
    pub id: u32,
    /// The device number of its file system.
    pub device: Number,
    /// Where it is mounted.
    pub point: PathText,
    /// The type of the file system.
    pub file_system: Text<16>,
    /// What was mounted, as it was called then.
    pub source: Text<128>,
}

impl Found {
    /// The device that it lies on; none for what lies on no device.
    pub fn lies_on(&self) -> Option<Number> {
        device_of(self.device, &self.source)
    }
}

/// btrfs and others have device numbers of their own; what was mounted is a device all the same, and the mount table
/// has its path.
fn device_of(number: Number, source: &str) -> Option<Number> {
    match number.major {
        0 if source.starts_with("/dev/") => device::number_of_node(source),
        0 => None,
        _ => Some(number),
    }
}

/// This process's mount table.
pub const OWN: &str = "/proc/self/mountinfo";

/// The newest mount in a table for which `wanted` says true: the one that is seen, of several at a place.
///
/// The table is read line by line, so its length does not matter: hosts of containers have hundreds of mounts, and
/// what is newest stands last. A line that is not UTF-8 (the kernel escapes blanks, not foreign bytes) is stepped over.
pub fn find(table: &str, wanted: &mut dyn FnMut(&Mount) -> bool) -> Result<Option<Found>, Error> {
    let mut newest = Ok(None);
    let mut look = |line: &[u8]| {
        if let Some(mount) = parsed(line)
            && newest.is_ok()
            && wanted(&mount)
        {
            newest = mount.found().map(Some);
        }
    };
    files::for_each_line(table, &mut look).doing("reading", table)?;
    newest
}

/// The mount that a path lies on: the one with the longest mount point above it.
pub fn above(path: &str) -> Result<Option<Found>, Error> {
    let mut longest = 0;
    find(OWN, &mut |mount| {
        let Ok(point) = mount.point() else {
            return false;
        };
        let rest = path.strip_prefix(point.strip_suffix('/').unwrap_or(&point));
        let is_above = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let is_longest = is_above && point.len() >= longest;
        if is_longest {
            longest = point.len();
        }
        is_longest
    })
}

/// The mount that is seen at `point`.
pub fn at(point: &str) -> Result<Option<Found>, Error> {
    find(OWN, &mut |mount| mount.is_at(point))
}

/// What our own memory file systems are called in a mount table.
pub const RAMFS: &str = "takeover";

/// The mount of our memory file system that holds `program`: mounted whole, not the bind mount of one file. Of several
/// the oldest, which is the one that stage 1 has made: copies of it, as others' bind mounts are, are younger, and lack
/// what is mounted in it. (The kernel appends a mount to the table, and copies behind what they are copies of:
/// commit_tree() in fs/namespace.c; since Linux 6.8 the table is in the order of the mounts' making.)
pub fn ramfs_of(program: &str) -> Result<Option<Found>, Error> {
    let status = files::status(program).doing("looking at", program)?;
    let device = Number::from_stat(status.st_dev);
    let mut is_found = false;
    find(OWN, &mut |mount| {
        let is_ours = mount.device == device && mount.root == "/" && mount.source == RAMFS;
        is_ours && !core::mem::replace(&mut is_found, true)
    })
}

/// The number of the mount that is seen at a path: /proc/PID/fdinfo, since Linux 3.15 (proc(5)). Not statx(2)'s, which
/// came with 5.8.
pub fn id_at(path: &str) -> Option<u32> {
    let file = files::open(path, OFlags::PATH).ok()?;
    let info = crate::path!("/proc/self/fdinfo/{}", file.as_raw_fd()).ok()?;
    let mut buffer = [0; 512];
    let text = files::read_text(&info, &mut buffer).ok()?;
    let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:"))?;
    id.trim_ascii().parse().ok()
}

/// Calls `visit` with the mounts of this process for which `wanted` says true: as many of the newest as fit into
/// `buffer`, then those before them, until all were there. A host of containers has thousands.
///
/// `visit` may unmount what it gets, and the mounts below that: none of those before is left out for it. (The mounts
/// that are wanted are counted from the oldest on, so that what goes away moves older ones into sight, never out.)
pub fn for_each_window(
    buffer: &mut [u8],
    wanted: &dyn Fn(&Mount) -> bool,
    visit: &mut dyn FnMut(Mounts),
) -> Result<(), Error> {
    let mut before = usize::MAX;
    while before > 0 {
        let (mounts, left_out) = Mounts::read_before(OWN, buffer, before, wanted)?;
        visit(mounts);
        before = left_out;
    }
    Ok(())
}

/// A copy of a mount table, or of a part of it.
pub struct Mounts<'a>(&'a [u8]);

impl<'a> Mounts<'a> {
    /// Of the mounts in a table for which `wanted` says true, and of those only the first `before`, as many of the
    /// newest as fit into `buffer`. With them how many before them were left out.
    fn read_before(
        table: &str,
        buffer: &'a mut [u8],
        before: usize,
        wanted: &dyn Fn(&Mount) -> bool,
    ) -> Result<(Self, usize), Error> {
        let (mut filled, mut seen, mut left_out) = (0, 0, 0);
        let mut keep = |line: &[u8]| {
            if seen >= before || !parsed(line).is_some_and(|mount| wanted(&mount)) {
                return;
            }
            seen += 1;
            let line = line.get(..buffer.len().saturating_sub(1)).unwrap_or(line);
            if buffer.len() - filled <= line.len() {
                // More than it needs: what stays is moved each time.
                let least = filled.min((line.len() + 1).max(buffer.len() / 4));
                let mut dropped = 0;
                for old in buffer.get(..filled).unwrap_or_default().split_inclusive(|b| *b == b'\n')
                {
                    if dropped >= least {
                        break;
                    }
                    dropped += old.len();
                    left_out += 1;
                }
                buffer.copy_within(dropped..filled, 0);
                filled -= dropped;
            }
            let space = buffer.get_mut(filled..).unwrap_or_default();
            for (to, from) in space.iter_mut().zip(line.iter().chain(b"\n")) {
                *to = *from;
                filled += 1;
            }
        };
        files::for_each_line(table, &mut keep).doing("reading", table)?;
        Ok((Self(buffer.get(..filled).unwrap_or_default()), left_out))
    }

    /// A table that was read already.
    pub fn parse(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The mounts, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Mount<'a>> + use<'a> {
        self.0.split(|byte| *byte == b'\n').filter_map(parsed)
    }
}

fn parsed(line: &[u8]) -> Option<Mount<'_>> {
    mount(core::str::from_utf8(line).ok()?)
}

fn mount(line: &str) -> Option<Mount<'_>> {
    // 36 35 98:0 /root /point options [optional fields] - type source super-options
    let mut fields = line.split(' ');
    let id = fields.next()?.parse().ok()?;
    let device = Number::parse(fields.nth(1)?)?;
    let root = fields.next()?;
    let point = fields.next()?;
    let options = fields.next()?;
    fields.find(|field| *field == "-")?;
    let file_system = fields.next()?;
    let source = fields.next()?;
    let file_system_options = fields.next().unwrap_or_default();
    Some(Mount { id, device, root, point, options, file_system, source, file_system_options })
}

/// Undoes the kernel's escapes: a backslash and three octal digits (mangle() in fs/proc_namespace.c).
pub fn unescape(text: &str) -> Result<PathText, Error> {
    let mut path = heapless::Vec::<u8, 256>::new();
    let too_long = || crate::path::too_long(text);
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
    let data = terminated::<64>(data)?;
    let [from, to] = &mut [[0; LONGEST_PATH]; 2];
    let kind = terminated::<64>(kind)?;
    rustix::mount::mount(
        files::terminated(source, from)?,
        files::terminated(point, to)?,
        as_c_string(&kind)?,
        flags,
        as_c_string(&data)?,
    )
}

/// Changes the flags of a mount, and the options of its file system. Flags that are not repeated are dropped.
#[inline(never)]
pub fn remount(point: &str, flags: MountFlags, data: &str) -> Result<(), Errno> {
    let data = terminated::<64>(data)?;
    rustix::mount::mount_remount(
        files::terminated(point, &mut [0; LONGEST_PATH])?,
        flags,
        as_c_string(&data)?,
    )
}

fn as_c_string(data: &[u8]) -> Result<&CStr, Errno> {
    CStr::from_bytes_until_nul(data).map_err(|_| Errno::INVAL)
}

/// Makes a file or directory appear in another place too.
#[inline(never)]
pub fn bind(source: &str, point: &str) -> Result<(), Errno> {
    let [from, to] = &mut [[0; LONGEST_PATH]; 2];
    rustix::mount::mount_bind(files::terminated(source, from)?, files::terminated(point, to)?)
}

/// Keeps mounts made below from spreading to other namespaces, and the other way round.
#[inline(never)]
pub fn make_private(point: &str, below_too: bool) -> Result<(), Errno> {
    let recursive =
        if below_too { MountPropagationFlags::REC } else { MountPropagationFlags::empty() };
    rustix::mount::mount_change(
        files::terminated(point, &mut [0; LONGEST_PATH])?,
        MountPropagationFlags::PRIVATE | recursive,
    )
}

/// Makes mounts below spread to copies of this mount that are made from now on, and so to be unmounted in them, too;
/// but not to those that are there already. mount_namespaces(7).
#[inline(never)]
pub fn make_shared_anew(point: &str) -> Result<(), Errno> {
    make_private(point, false)?;
    rustix::mount::mount_change(
        files::terminated(point, &mut [0; LONGEST_PATH])?,
        MountPropagationFlags::SHARED,
    )
}

/// True when a tmpfs can be kept out of swap (`noswap`, Linux 6.4; shmem_parse_one() in mm/shmem.c). Asked of a file
/// system that is never made; a kernel without fsopen(2) has no such tmpfs.
pub fn tmpfs_knows_noswap() -> bool {
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC);
    context.is_ok_and(|context| rustix::mount::fsconfig_set_flag(&context, "noswap").is_ok())
}

/// Unmounts. umount2(2), never through a symbolic link.
#[inline(never)]
pub fn unmount(point: &str) -> Result<(), Errno> {
    rustix::mount::unmount(
        files::terminated(point, &mut [0; LONGEST_PATH])?,
        UnmountFlags::NOFOLLOW,
    )
}

/// Takes a mount out of sight; what it shows stays alive for those who use it.
#[inline(never)]
pub fn detach(point: &str) -> Result<(), Errno> {
    rustix::mount::unmount(
        files::terminated(point, &mut [0; LONGEST_PATH])?,
        UnmountFlags::NOFOLLOW | UnmountFlags::DETACH,
    )
}

/// Takes a mount and all below it out of sight without waiting for its server: what was asked of that is given up. May
/// hang all the same, after the mount is out of sight. umount2(2), MNT_FORCE.
#[inline(never)]
pub fn abandon(point: &str) -> Result<(), Errno> {
    let flags = UnmountFlags::NOFOLLOW | UnmountFlags::DETACH | UnmountFlags::FORCE;
    rustix::mount::unmount(files::terminated(point, &mut [0; LONGEST_PATH])?, flags)
}

/// Unmounts, giving those who look at every new mount (udev, a file manager) two seconds to finish.
pub fn unmount_patiently(point: &str) -> Result<(), Errno> {
    for _ in 0..200 {
        match unmount(point) {
            Err(Errno::BUSY) => crate::sys::clock::sleep(Duration::from_millis(10)),
            result => return result,
        }
    }
    Err(Errno::BUSY)
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
    }

    #[test]
    fn mounts_with_a_server_are_told_from_others() {
        let has_server = |kind: &str| {
            let line = format!("36 22 0:50 / /mnt/x rw - {kind} source rw\n");
            Mounts::parse(line.as_bytes()).iter().all(|mount| mount.has_server())
        };
        for kind in ["nfs", "nfs4", "cifs", "smb3", "ceph", "9p", "fuse.sshfs", "fuse"] {
            assert!(has_server(kind), "{kind}");
        }
        // A FUSE file system on a block device may lie on the target; "nfsd" is a server's own.
        for kind in
            ["ext4", "fuseblk", "fuse.lxcfs", "fusectl", "nfsd", "tmpfs", "overlay", "autofs"]
        {
            assert!(!has_server(kind), "{kind}");
        }
    }

    #[test]
    fn file_systems_on_disks_are_told_from_others() {
        let table = "\
22 1 8:2 / / rw - ext4 /dev/sda2 rw
23 22 0:40 / /b rw - btrfs /dev/sda3 rw
24 22 0:5 / /proc rw - proc proc rw
25 22 0:50 / /net rw - nfs4 server:/x rw
26 22 0:51 / /m rw - tmpfs m rw
";
        let mounts = Mounts::parse(table.as_bytes());
        let found: Vec<_> = mounts.iter().filter(Mount::is_on_disk).map(|mount| mount.id).collect();
        assert_eq!(found, [22, 23]);
    }

    #[test]
    fn the_newest_of_a_long_table_is_found_behind_foreign_bytes() {
        let path = std::env::temp_dir().join(format!("takeover-mounts-{}", std::process::id()));
        let mut table = TABLE.as_bytes().to_vec();
        table.extend(b"27 22 8:6 / /media/caf\xe9 rw - vfat /dev/sdb1 rw\n");
        for number in 0..2000 {
            let options = "lowerdir=/a:/b".repeat(40);
            table.extend(
                format!("{} 22 0:9 / /c/{number} rw - overlay x {options}\n", 100 + number).bytes(),
            );
        }
        table.extend(b"9999 22 0:77 / /run/takeover-1 rw - tmpfs takeover rw\n");
        std::fs::write(&path, &table).unwrap();
        let path = path.to_str().unwrap();
        let found = find(path, &mut |mount| mount.source == "takeover").unwrap().unwrap();
        assert_eq!((found.id, &*found.point), (9999, "/run/takeover-1"));
        let found = find(path, &mut |mount| mount.is_at("/mnt/twice")).unwrap().unwrap();
        assert_eq!(&*found.file_system, "vfat", "the last mount at a place is the one seen");
        assert!(find(path, &mut |mount| mount.is_at("/nowhere")).unwrap().is_none());
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn the_mount_at_a_path_is_told_by_its_number() {
        for path in ["/", "/proc"] {
            assert_eq!(id_at(path), Some(at(path).unwrap().unwrap().id), "{path}");
        }
        assert_eq!(id_at("/nowhere"), None);
    }

    #[test]
    fn a_table_of_any_length_is_seen_whole_in_a_buffer_of_any_length() {
        let path = std::env::temp_dir().join(format!("takeover-windows-{}", std::process::id()));
        let mut table = String::new();
        for number in 0..700 {
            let kind = if number % 3 == 0 { "proc" } else { "overlay" };
            let options = "x".repeat(number % 90);
            table += &format!("{number} 22 0:9 / /old/c/{number} rw - {kind} x {options}\n");
        }
        std::fs::write(&path, &table).unwrap();
        let path = path.to_str().unwrap();
        let wanted = |mount: &Mount| mount.file_system == "overlay";
        for length in [150, 151, 200, 1000, 7777, 40_000, 1 << 20] {
            let mut buffer = vec![0; length];
            let mut seen = Vec::new();
            let (mut before, mut windows) = (usize::MAX, 0);
            while before > 0 {
                let (mounts, left_out) =
                    Mounts::read_before(path, &mut buffer, before, &wanted).unwrap();
                seen.extend(mounts.iter().rev().map(|mount| mount.id));
                assert!(left_out < before, "{left_out} of {before}");
                before = left_out;
                windows += 1;
            }
            assert!(seen.iter().copied().eq((0..700).rev().filter(|id| id % 3 != 0)), "{length}");
            assert_eq!(windows == 1, length > 20_000, "{windows} windows of {length}");
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn lines_that_make_no_sense_are_stepped_over() {
        assert_eq!(Mounts::parse(b"x\n1 2 3\n\xff - a b\n").iter().count(), 0);
    }

    #[test]
    fn a_path_lies_on_no_mount_that_only_begins_like_it() {
        assert_eq!(&*above("/proc/version").unwrap().unwrap().point, "/proc");
        assert_eq!(&*above("/proc").unwrap().unwrap().point, "/proc");
        assert_ne!(&*above("/processes").unwrap().unwrap().point, "/proc");
    }
}
