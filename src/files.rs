//! Small files: those of the kernel, read into the caller's buffer, and those of ours, written whole and synced.

use crate::error::{Doing, Error};
use crate::text::{Format, PathText};
use core::ffi::CStr;
use core::mem::MaybeUninit;
use core::ops::ControlFlow;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{CWD, Dev, FileType, MemfdFlags, Mode, OFlags, RawDir, Stat, StatVfs};
use rustix::io::Errno;

/// The longest path that is passed to the kernel, in bytes: one of 255 with a name behind it.
pub const LONGEST_PATH: usize = 512;

/// A path as the kernel takes it, in `place`: no path of ours takes a heap.
#[inline(never)]
pub fn terminated<'a>(path: &str, place: &'a mut [u8; LONGEST_PATH]) -> Result<&'a CStr, Errno> {
    let room = place.get_mut(..path.len()).filter(|room| room.len() < LONGEST_PATH);
    room.ok_or(Errno::NAMETOOLONG)?.copy_from_slice(path.as_bytes());
    let found = CStr::from_bytes_until_nul(place).map_err(|_| Errno::INVAL)?;
    if found.count_bytes() == path.len() { Ok(found) } else { Err(Errno::INVAL) }
}

/// Opens a file, closed on exec; a new one gets mode 0600. This and its neighbours are not generic: the copying of a
/// path for the kernel is compiled once.
#[inline(never)]
pub fn open(path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let (flags, mode) = (flags | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::RUSR | Mode::WUSR);
    rustix::fs::open(terminated(path, &mut [0; LONGEST_PATH])?, flags, mode)
}

/// The same, with the error in words.
#[inline(never)]
pub fn opened(path: &str, flags: OFlags) -> Result<OwnedFd, Error> {
    open(path, flags).doing("opening", path)
}

/// Opens or makes a plain file below the directory `base`, and nothing else: on the way from there no symbolic link is
/// followed, and a device, a named pipe or a file with a second name is refused. A new file gets mode 0600.
///
/// Directory by directory: openat2(2) came with Linux 5.6.
pub fn open_plain(base: &str, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let on_the_way = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut directory = open(base, OFlags::PATH | OFlags::DIRECTORY)?;
    let (folders, name) = crate::text::split_last(path, b'/').unwrap_or(("", path));
    for folder in folders.split('/').filter(|folder| !folder.is_empty()) {
        if folder == ".." {
            return Err(Errno::INVAL);
        }
        directory = rustix::fs::openat(&directory, folder, on_the_way, Mode::empty())?;
    }
    // Not to be held up by a named pipe that nobody reads.
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = rustix::fs::openat(&directory, name, flags, Mode::RUSR | Mode::WUSR)?;
    let status = rustix::fs::fstat(&file)?;
    if !FileType::from_raw_mode(status.st_mode).is_file() || status.st_nlink != 1 {
        return Err(Errno::LOOP);
    }
    Ok(file)
}

/// What is at `path`, symbolic links followed.
#[inline(never)]
pub fn status(path: &str) -> Result<Stat, Errno> {
    rustix::fs::stat(terminated(path, &mut [0; LONGEST_PATH])?)
}

/// The space of the file system at `path`.
#[inline(never)]
pub fn space(path: &str) -> Result<StatVfs, Errno> {
    rustix::fs::statvfs(terminated(path, &mut [0; LONGEST_PATH])?)
}

/// True for a file system in memory: TMPFS_MAGIC and RAMFS_MAGIC of include/uapi/linux/magic.h.
#[cfg(feature = "core")]
pub fn is_in_memory(status: &rustix::fs::StatFs) -> bool {
    [0x0102_1994, 0x8584_58f6_u32].contains(&(status.f_type as u32))
}

/// Makes a directory, mode 0700.
#[inline(never)]
pub fn make_directory(path: &str) -> Result<(), Errno> {
    rustix::fs::mkdir(terminated(path, &mut [0; LONGEST_PATH])?, Mode::RWXU)
}

/// Removes an empty directory.
#[inline(never)]
pub fn remove_directory(path: &str) -> Result<(), Errno> {
    rustix::fs::rmdir(terminated(path, &mut [0; LONGEST_PATH])?)
}

/// Removes a file.
#[inline(never)]
pub fn remove(path: &str) -> Result<(), Errno> {
    rustix::fs::unlink(terminated(path, &mut [0; LONGEST_PATH])?)
}

/// Renames a file, in place of another if there is one.
#[inline(never)]
pub fn rename(from: &str, to: &str) -> Result<(), Errno> {
    let [old, new] = &mut [[0; LONGEST_PATH]; 2];
    rustix::fs::rename(terminated(from, old)?, terminated(to, new)?)
}

/// Makes a device node, mode 0600. mknod(2).
#[inline(never)]
pub fn make_node(path: &str, kind: FileType, device: Dev) -> Result<(), Errno> {
    let place = &mut [0; LONGEST_PATH];
    let path = terminated(path, place)?;
    rustix::fs::mknodat(CWD, path, kind, Mode::RUSR | Mode::WUSR, device)
}

/// Reads a file into `buffer`, whole; EFBIG for one that is larger. Nobody takes a part for all.
pub fn read<'a>(path: &str, buffer: &'a mut [u8]) -> Result<&'a [u8], Errno> {
    read_piece(path, buffer, true)
}

/// Reads the beginning of a file, as much as fits into `buffer`: for devices, which have no end, and where what is
/// wanted stands in front.
pub fn read_start<'a>(path: &str, buffer: &'a mut [u8]) -> Result<&'a [u8], Errno> {
    read_piece(path, buffer, false)
}

fn read_piece<'a>(path: &str, buffer: &'a mut [u8], whole: bool) -> Result<&'a [u8], Errno> {
    let file = open(path, OFlags::RDONLY)?;
    let count = read_to_end(&file, buffer)?;
    if whole && count == buffer.len() && read_to_end(&file, &mut [0])? > 0 {
        return Err(Errno::FBIG);
    }
    Ok(buffer.get(..count).unwrap_or_default())
}

/// What is given one thing after the other: any closure that takes it. Not `dyn FnMut`, for the reason of
/// [`Format`].
pub trait Visit<T: ?Sized, R = ()> {
    /// Takes the next one.
    fn visit(&mut self, what: &T) -> R;
}

impl<T: ?Sized, R, F: FnMut(&T) -> R> Visit<T, R> for F {
    fn visit(&mut self, what: &T) -> R {
        self(what)
    }
}

/// The longest line that [`for_each_line`] gives whole, in bytes. A line of a mount table has options, a source and
/// two paths, of a page each at most, but for an overlay of more layers than fit into a page.
const LONGEST_LINE: usize = 20 * 1024;

/// Calls `visit` with each line of a file of any length, without the line feed. Of a line that is longer than 20 KiB it
/// gets the beginning.
pub fn for_each_line(path: &str, visit: &mut dyn Visit<[u8]>) -> Result<(), Errno> {
    let file = open(path, OFlags::RDONLY)?;
    let mut buffer = [0; LONGEST_LINE];
    let mut filled = 0;
    // The beginning of the line was visited.
    let mut in_rest = false;
    loop {
        let count = match rustix::io::read(&file, buffer.get_mut(filled..).unwrap_or_default()) {
            Err(Errno::INTR) => continue,
            result => result?,
        };
        filled += count;
        let mut held = buffer.get(..filled).unwrap_or_default();
        while let Some(end) = held.iter().position(|byte| *byte == b'\n') {
            if !in_rest {
                visit.visit(held.get(..end).unwrap_or_default());
            }
            in_rest = false;
            held = held.get(end + 1..).unwrap_or_default();
        }
        if count == 0 || held.len() == LONGEST_LINE {
            if !in_rest && !held.is_empty() {
                visit.visit(held);
            }
            in_rest = true;
            held = &[];
        }
        let left = held.len();
        buffer.copy_within(filled - left..filled, 0);
        filled = left;
        if count == 0 {
            return Ok(());
        }
    }
}

/// Reads from where the file stands to its end or until the buffer is full.
pub fn read_to_end(file: impl AsFd, buffer: &mut [u8]) -> Result<usize, Errno> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match rustix::io::read(&file, rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(filled)
}

/// Reads a file of the kernel, whole, as text without the white space around it; what is not UTF-8 reads as empty.
pub fn read_text<'a>(path: &str, buffer: &'a mut [u8]) -> Result<&'a str, Errno> {
    read(path, buffer).map(as_text)
}

/// The path of what a folder has by this name, or names with slashes between.
#[inline(never)]
pub fn below(folder: &str, name: &str) -> Result<PathText, Error> {
    crate::path!("{}/{}", folder, name)
}

/// What [`read_text`] reads from the file that `path` names; None where there is none, or its path is too long.
#[inline(never)]
pub fn text_at<'a>(path: &mut dyn Format, buffer: &'a mut [u8]) -> Option<&'a str> {
    read_text(&crate::path::build(path).ok()?, buffer).ok()
}

/// The same of a file in a folder.
#[inline(never)]
pub fn text_below<'a>(folder: &str, name: &str, buffer: &'a mut [u8]) -> Option<&'a str> {
    text_at(crate::format!("{}/{}", folder, name), buffer)
}

/// What [`read_number`] reads from a file in a folder.
#[inline(never)]
pub fn number_below(folder: &str, name: &str) -> Option<u64> {
    read_number(&below(folder, name).ok()?)
}

/// True when a folder has something by this name, symbolic links followed.
#[inline(never)]
pub fn is_below(folder: &str, name: &str) -> bool {
    below(folder, name).is_ok_and(|path| exists(&path))
}

/// Bytes of the kernel as text without the white space around it; what is not UTF-8 reads as empty.
pub fn as_text(bytes: &[u8]) -> &str {
    core::str::from_utf8(bytes).unwrap_or_default().trim_ascii()
}

/// Reads a file of the kernel that holds one decimal number.
pub fn read_number(path: &str) -> Option<u64> {
    let mut buffer = [0; 32];
    crate::text::decimal(read_text(path, &mut buffer).ok()?)
}

/// Where a symbolic link leads, as the link says.
pub fn read_link<'a>(path: &str, buffer: &'a mut [u8; 256]) -> Result<&'a str, Error> {
    let length = terminated(path, &mut [0; LONGEST_PATH])
        .and_then(|path| rustix::fs::readlinkat_raw(CWD, path, &mut buffer[..]))
        .doing("reading the link", path)?;
    if length == buffer.len() {
        return Err(Error::os("reading the link", path, Errno::NAMETOOLONG));
    }
    let bytes = buffer.get(..length).unwrap_or_default();
    core::str::from_utf8(bytes)
        .map_err(|_| Error::failed("reading the link", path, "it is not UTF-8"))
}

/// The path of an open file, as the kernel has it.
pub fn path_of(file: &OwnedFd) -> Result<PathText, Error> {
    let link = crate::path!("/proc/self/fd/{}", file.as_raw_fd())?;
    crate::path!("{}", read_link(&link, &mut [0; 256])?)
}

/// True when there is something at `path`, symbolic links followed.
pub fn exists(path: &str) -> bool {
    status(path).is_ok()
}

/// Writes all bytes where the file stands.
pub fn write_all(file: impl AsFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(&file, bytes) {
            Ok(0) => return Err(Errno::IO),
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Makes a file that must not exist yet, mode 0600, with these bytes.
pub fn create(path: &str, bytes: &[u8]) -> Result<OwnedFd, Error> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    let file = open(path, flags).doing("making", path)?;
    write_all(&file, bytes).doing("writing", path)?;
    Ok(file)
}

/// A file in memory, of this name where the kernel shows one: memfd_create(2). Before Linux 3.17 there is none.
#[inline(never)]
pub fn in_memory(name: &CStr) -> Result<OwnedFd, Errno> {
    let file = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC);
    // Rescue systems are made with newer ones.
    if crate::IS_WHOLE { file.or_else(|_| unnamed("/run")) } else { file }
}

/// A file without a name, mode 0600, that goes away with its last user, on the file system of `folder`.
///
/// Made and removed, not O_TMPFILE: FAT and overlays of older kernels have none.
pub fn unnamed(folder: &str) -> Result<OwnedFd, Errno> {
    // Two threads may ask for one within the clock's step.
    static MADE: AtomicU32 = AtomicU32::new(0);
    let now = crate::sys::clock::since_boot().unwrap_or(0);
    let count = MADE.fetch_add(1, Relaxed);
    let name: crate::text::Text<48> =
        crate::text!("takeover-{}-{}-{}", std::process::id(), now, count);
    let path: crate::text::Text<300> = crate::text!("{}/{}", folder, name);
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    let file = open(&path, flags)?;
    remove(&path)?;
    Ok(file)
}

/// Calls `visit` with the name of each entry of a directory, dot entries left out, until it breaks.
pub fn for_each_entry(
    path: &str,
    visit: &mut dyn Visit<str, ControlFlow<()>>,
) -> Result<(), Errno> {
    let directory = open(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
    let mut buffer = [MaybeUninit::uninit(); 2048];
    let mut entries = RawDir::new(&directory, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_str().unwrap_or_default();
        if name.starts_with('.') || name.is_empty() {
            continue;
        }
        if visit.visit(name).is_break() {
            break;
        }
    }
    Ok(())
}

/// Whether a folder is there and has an entry.
pub fn has_entry(folder: &str) -> bool {
    let mut found = false;
    let visited = for_each_entry(folder, &mut |_: &str| {
        found = true;
        ControlFlow::Break(())
    });
    visited.is_ok() && found
}

/// Calls `visit` with the number of each process, as a text, until it breaks.
pub fn for_each_process(visit: &mut dyn Visit<str, ControlFlow<()>>) {
    // Without /proc there is nobody to be seen.
    let _ = for_each_entry("/proc", &mut |name: &str| match name.parse::<u32>() {
        Ok(_) => visit.visit(name),
        Err(_) => ControlFlow::Continue(()),
    });
}

/// Calls `visit` with the link of each open file of a process and where that leads, until it breaks. What is not UTF-8
/// leads nowhere.
pub fn for_each_open(
    id: &str,
    visit: &mut dyn FnMut(&str, &str) -> ControlFlow<()>,
) -> Result<(), Error> {
    let folder = crate::path!("/proc/{}/fd", id)?;
    let visited = for_each_entry(&folder, &mut |number: &str| {
        let mut buffer = [0; 256];
        let Ok(link) = crate::path!("{}/{}", folder, number) else {
            return ControlFlow::Continue(());
        };
        visit(&link, read_link(&link, &mut buffer).unwrap_or_default())
    });
    visited.doing("listing", &folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_without_a_name_are_made_by_many_at_once() {
        let folder = std::env::temp_dir();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        unnamed(folder.to_str().unwrap()).unwrap();
                    }
                });
            }
        });
    }

    #[test]
    fn a_file_without_a_name_has_none() {
        let file = unnamed(std::env::temp_dir().to_str().unwrap()).unwrap();
        let status = rustix::fs::fstat(&file).unwrap();
        assert_eq!((status.st_nlink, status.st_mode & 0o777), (0, 0o600));
    }

    #[test]
    fn what_is_no_plain_file_is_not_written_to() {
        let folder = std::env::temp_dir().join(format!("takeover-plain-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("base/var/log")).unwrap();
        let base = folder.join("base");
        let open = |path| {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND;
            open_plain(base.to_str().unwrap(), path, flags).map(drop)
        };
        open("var/log/new").unwrap();
        open("top").unwrap();
        std::os::unix::fs::symlink(folder.join("elsewhere"), base.join("var/log/link")).unwrap();
        std::os::unix::fs::symlink(base.join("var"), base.join("way")).unwrap();
        std::fs::write(folder.join("other"), b"").unwrap();
        std::fs::hard_link(folder.join("other"), base.join("second-name")).unwrap();
        rustix::fs::mknodat(CWD, base.join("pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        assert_eq!(open("var/log/link"), Err(Errno::LOOP));
        assert_eq!(open("way/log/new"), Err(Errno::NOTDIR));
        assert_eq!(open("second-name"), Err(Errno::LOOP));
        assert_eq!(open("pipe"), Err(Errno::NXIO));
        assert_eq!(open("../escaped"), Err(Errno::INVAL));
        assert!(!folder.join("elsewhere").exists() && !folder.join("escaped").exists());
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn lines_of_a_file_of_any_length() {
        let path = std::env::temp_dir().join(format!("takeover-lines-{}", std::process::id()));
        let long = LONGEST_LINE;
        let lines = [0, 1, long - 1, 2, long, long + 1, 0, 5, 3 * long, 7, 60_000, 9]
            .map(|length| vec![b'a' + (length % 26) as u8; length]);
        let text = lines.join(&b'\n');
        for end in ["\n", ""] {
            std::fs::write(&path, [&text, end.as_bytes()].concat()).unwrap();
            let mut read = Vec::new();
            for_each_line(path.to_str().unwrap(), &mut |line: &[u8]| read.push(line.to_vec()))
                .unwrap();
            let wanted: Vec<_> =
                lines.iter().map(|line| line[..line.len().min(long)].to_vec()).collect();
            assert!(read == wanted, "{:?}", read.iter().map(Vec::len).collect::<Vec<_>>());
        }
        std::fs::write(&path, "").unwrap();
        for_each_line(path.to_str().unwrap(), &mut |_: &[u8]| panic!("there is no line")).unwrap();
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_created_file_is_private_and_never_overwritten() {
        let directory = std::env::temp_dir().join(std::process::id().to_string());
        std::fs::create_dir(&directory).unwrap();
        let path = directory.join("plan");
        let path = path.to_str().unwrap();
        create(path, b"one").unwrap();
        assert!(create(path, b"two").is_err());
        let mut buffer = [0; 10];
        assert_eq!(read(path, &mut buffer).unwrap(), b"one");
        // What just fits is whole; what does not is an error, where its beginning was not asked for.
        assert_eq!(read(path, &mut [0; 3]).unwrap(), b"one");
        assert_eq!(read(path, &mut [0; 2]).unwrap_err(), Errno::FBIG);
        assert_eq!(read_start(path, &mut [0; 2]).unwrap(), b"on");
        assert_eq!(rustix::fs::stat(path).unwrap().st_mode & 0o777, 0o600);
        let mut names = Vec::new();
        for_each_entry(directory.to_str().unwrap(), &mut |name: &str| {
            names.push(name.to_string());
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!(names, ["plan"]);
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn what_is_in_a_folder() {
        let folder = std::env::temp_dir().join(format!("takeover-below-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let path = folder.to_str().unwrap();
        assert!(!has_entry(path) && !is_below(path, "dev/size"));
        std::fs::create_dir(folder.join("dev")).unwrap();
        std::fs::write(folder.join("dev/size"), " 12\n").unwrap();
        assert!(has_entry(path) && is_below(path, "dev/size") && !is_below(path, "dev/other"));
        assert_eq!(number_below(path, "dev/size"), Some(12));
        assert_eq!(number_below(path, "dev"), None);
        assert_eq!(text_below(path, "dev/size", &mut [0; 8]), Some("12"));
        // Neither a part of a file nor one of a path is taken for the whole.
        assert_eq!(text_below(path, "dev/size", &mut [0; 3]), None);
        let long = format!("dev{}size", "/".repeat(255));
        assert!(!is_below(path, &long) && number_below(path, &long).is_none());
        assert_eq!(text_below(path, &long, &mut [0; 8]), None);
        assert!(!has_entry(&format!("{path}/nothing")));
        std::fs::remove_dir_all(folder).unwrap();
    }
}
