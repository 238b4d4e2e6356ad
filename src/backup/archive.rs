//! Walks the sources of a description and writes the archive.
//!
//! The order is that of the description, and within a directory that of the bytes of the names. Every volume begins
//! with its own directory. Symbolic links are followed; one that leads back into a directory that is being read is left
//! out, as is what cannot be kept: sockets, pipes, devices, the kernel's own file systems. Mounts of real file systems
//! are part of their directory, those over a network too. What cannot be read ends the backup: half a backup is none.
//!
//! There is no recursion: the open directories are a list of bounded length, and so are the names that are kept of
//! each.

use super::description::{Description, Item, Volume};
use super::listing::{self, Listing, Name};
use super::pack::Packer;
use super::tar::{self, Attributes, Kind};
use crate::disk::copies::{COPIES, is_copies};
use crate::error::{Doing, Error};
use crate::text::Text;
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

/// How many directories may be open inside each other.
pub const DEEPEST: usize = 100;

/// The longest path, in bytes: PATH_MAX of limits.h.
const LONGEST_PATH: usize = 4095;

/// What the listings of all open directories may take, besides the least that each needs, in bytes.
const LISTINGS: usize = 128 * 1024;

/// How much of a file is read at once, in bytes.
const PIECE: usize = 32 * 1024;

/// More warnings than this say nothing new.
const MOST_WARNINGS: u64 = 50;

/// What an archive holds.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Summary {
    /// The archive's length in bytes.
    pub bytes: u64,
    /// Bytes of files in it, unpacked.
    pub content: u64,
    /// Files in it.
    pub files: u64,
    /// Directories in it, those of the volumes included.
    pub directories: u64,
    /// Volumes in it.
    pub volumes: u64,
    /// What was left out or may be torn, each with a warning.
    pub warnings: u64,
}

/// Is called often with how far things are; an error from it ends the backup.
pub type Progress<'a> = dyn FnMut(&Summary) -> Result<(), Error> + 'a;

/// Writes what `description` asks for to `output`, tar and gzip. Sources are looked for below `root`, `/` usually;
/// symbolic links are always those of this system. An archive that would be longer than `limit` bytes is an error.
///
/// `output` stands at its end afterwards. The same files give the same bytes. Two items that put something at the same
/// place are an error, unless both put a directory there: it is found at the second one, when part of the archive is
/// written already, which harms nothing.
pub fn write(
    description: &Description,
    root: &str,
    output: &OwnedFd,
    limit: u64,
    progress: &mut Progress,
) -> Result<Summary, Error> {
    let mut archive = Archive {
        packer: Packer::start(output, limit)?,
        root: root.trim_end_matches('/'),
        canonical_root: Vec::new(),
        device_nodes: device_of_dev(),
        source: Vec::with_capacity(LONGEST_PATH),
        entry: Vec::with_capacity(LONGEST_PATH),
        levels: Vec::with_capacity(DEEPEST),
        free: LISTINGS,
        buffer: vec![0; PIECE],
        text: String::new(),
        summary: Summary::default(),
        progress,
    };
    archive.canonical_root = archive.canonical(&open_path(root.as_bytes(), root)?);
    for volume in &description.volumes {
        archive.volume(volume)?;
    }
    archive.finish()
}

/// A directory that is being read.
struct Level {
    directory: OwnedFd,
    device: u64,
    inode: u64,
    attributes: Attributes,
    listing: Listing,
    /// What the listing took of the memory that all share.
    memory: usize,
    /// How long the paths are that lead here.
    source: usize,
    entry: usize,
    /// True when the archive has it. With a filter only those directories get there that a file needs.
    is_written: bool,
}

struct Archive<'a, 'b> {
    packer: Packer<'a>,
    root: &'a str,
    canonical_root: Vec<u8>,
    device_nodes: Option<u64>,
    /// The path of what is looked at, links at the item's source resolved: what filters see. Empty for `/`.
    source: Vec<u8>,
    /// Its path in the archive.
    entry: Vec<u8>,
    levels: Vec<Level>,
    free: usize,
    buffer: Vec<u8>,
    text: String,
    summary: Summary,
    progress: &'a mut Progress<'b>,
}

impl Archive<'_, '_> {
    fn volume(&mut self, volume: &Volume) -> Result<(), Error> {
        let mut attributes = Attributes { mode: 0o755, user: 0, group: 0, modified: 0 };
        let mut is_adopted = false;
        for (index, item) in volume.items.iter().enumerate() {
            let status = self.source_status(item)?;
            let own = attributes_of(&status);
            if index == 0 {
                attributes.modified = own.modified;
            }
            // The volume is the new place of the directory whose contents it gets.
            if is_directory(&status) && item.target.is_empty() && !is_adopted {
                attributes = own;
                is_adopted = true;
            }
        }
        self.entry.clear();
        self.append_entry(volume.name.as_bytes())?;
        self.put_directory(&attributes)?;
        self.summary.volumes += 1;
        for index in 0..volume.items.len() {
            self.item(volume, index)?;
        }
        Ok(())
    }

    fn item(&mut self, volume: &Volume, index: usize) -> Result<(), Error> {
        let Some(item) = volume.items.get(index) else { return Ok(()) };
        let path = self.source_path(item);
        let file = open_path(&path, &item.source)?;
        let status = rustix::fs::fstat(&file).doing("looking at", &item.source)?;
        if self.is_pseudo(&file, status.st_dev) {
            return Err(refused(&item.source, "it is part of a file system of the kernel"));
        }
        self.source = self.canonical(&file);
        if let Some(rest) = self.source.strip_prefix(&*self.canonical_root) {
            self.source = rest.to_vec();
        }
        self.entry.clear();
        self.append_entry(volume.name.as_bytes())?;
        let place = place_of(item, is_directory(&status));
        self.parents(volume, index, place, &status)?;
        if !place.is_empty() {
            self.entry.truncate(volume.name.len());
            self.append_entry(place.as_bytes())?;
        }
        if !is_directory(&status) {
            if item.filter.is_some() {
                crate::warn!("backup: {} is a file, so its filter has no meaning", &*item.source);
            }
            self.claim(volume, index, false)?;
            return self.put_file(&file, &status);
        }
        if !place.is_empty() {
            self.claim(volume, index, true)?;
            self.put_directory(&attributes_of(&status))?;
        }
        let before = self.summary.files;
        self.open_level(file, &status, true)?;
        while self.step(volume, index)? {}
        if item.filter.is_some() && self.summary.files == before {
            self.warn_of(item.source.as_bytes(), "has no file that matches its filter");
        }
        Ok(())
    }

    /// Writes the directories between the volume and the place of an item, but for those that an earlier item made.
    fn parents(
        &mut self,
        volume: &Volume,
        index: usize,
        place: &str,
        status: &Stat,
    ) -> Result<(), Error> {
        let attributes = Attributes { mode: 0o755, user: 0, group: 0, ..attributes_of(status) };
        let earlier = volume.items.get(..index).unwrap_or_default();
        for (end, _) in place.match_indices('/') {
            let parent = place.get(..end).unwrap_or_default();
            if earlier.iter().any(|item| below(item.target.as_bytes(), parent.as_bytes()).is_some())
            {
                continue;
            }
            self.entry.truncate(volume.name.len());
            self.append_entry(parent.as_bytes())?;
            self.claim(volume, index, true)?;
            self.put_directory(&attributes)?;
        }
        Ok(())
    }

    /// Takes the next name of the innermost directory; false when there is no directory any more.
    fn step(&mut self, volume: &Volume, index: usize) -> Result<bool, Error> {
        (self.progress)(&self.summary)?;
        let Some(level) = self.levels.last_mut() else { return Ok(false) };
        self.source.truncate(level.source);
        self.entry.truncate(level.entry);
        match level.listing.next(&level.directory) {
            Ok(Some(name)) => self.visit(volume, index, &name)?,
            Ok(None) => {
                self.free += level.memory;
                self.levels.pop();
            }
            Err(errno) => return Err(self.unreadable(errno)),
        }
        Ok(true)
    }

    fn visit(&mut self, volume: &Volume, index: usize, name: &Name) -> Result<(), Error> {
        append(&mut self.source, name)?;
        self.append_entry(name)?;
        let Some(level) = self.levels.last() else { return Ok(()) };
        let device = level.device;
        let filter = volume.items.get(index).and_then(|item| item.filter.as_ref());
        let kind = match rustix::fs::statat(&level.directory, name.as_slice(), AtFlags::empty()) {
            // As large as the image, and of no use to the new OS.
            Ok(status) if name.as_slice() == COPIES.as_bytes() && is_copies(&status) => {
                return Ok(());
            }
            Ok(status) => FileType::from_raw_mode(status.st_mode),
            Err(errno) => return self.vanished(errno),
        };
        match kind {
            FileType::Directory => {}
            FileType::RegularFile => {
                if filter.is_some_and(|filter| !filter.matches(&self.source, &mut self.text)) {
                    return Ok(());
                }
            }
            _ => return self.leave_out("it is a socket, a pipe or a device"),
        }
        let opened = rustix::fs::openat(&level.directory, name.as_slice(), FLAGS, Mode::empty());
        let file = match opened {
            Ok(file) => file,
            Err(errno) => return self.vanished(errno),
        };
        let status = rustix::fs::fstat(&file).map_err(|errno| self.unreadable(errno))?;
        if FileType::from_raw_mode(status.st_mode) != kind {
            return self.leave_out("it was replaced while it was being looked at");
        }
        if status.st_dev != device && self.is_pseudo(&file, status.st_dev) {
            return self.leave_out("it is part of a file system of the kernel");
        }
        if kind == FileType::RegularFile {
            self.pending()?;
            self.claim(volume, index, false)?;
            return self.put_file(&file, &status);
        }
        let is_open = |level: &Level| (level.device, level.inode) == (status.st_dev, status.st_ino);
        if self.levels.iter().any(is_open) {
            return self.leave_out("it leads back to a directory that it lies in");
        }
        self.claim(volume, index, true)?;
        if filter.is_none() {
            self.put_directory(&attributes_of(&status))?;
        }
        self.open_level(file, &status, filter.is_none())
    }

    fn open_level(
        &mut self,
        directory: OwnedFd,
        status: &Stat,
        is_written: bool,
    ) -> Result<(), Error> {
        if self.levels.len() == DEEPEST {
            let why: Text<80> = crate::text!("it is more than {} directories deep", DEEPEST);
            return Err(refused(&self.shown(), &why));
        }
        // Most directories have few names: then the innermost, where the many files are, has half of all the memory.
        if let Some(outer) = self.levels.last_mut() {
            let kept = outer.listing.shrink().saturating_sub(listing::LEAST).min(outer.memory);
            self.free += outer.memory - kept;
            outer.memory = kept;
        }
        let memory = self.free / 2;
        let listing = Listing::new(listing::LEAST + memory)
            .doing("reserving memory for", "the names in a directory")?;
        self.free -= memory;
        self.levels.push(Level {
            directory,
            device: status.st_dev,
            inode: status.st_ino,
            attributes: attributes_of(status),
            listing,
            memory,
            source: self.source.len(),
            entry: self.entry.len(),
            is_written,
        });
        Ok(())
    }

    /// Writes the directories that a file needs and the archive has not.
    fn pending(&mut self) -> Result<(), Error> {
        for index in 0..self.levels.len() {
            let Some(level) = self.levels.get_mut(index) else { break };
            if core::mem::replace(&mut level.is_written, true) {
                continue;
            }
            let (end, attributes) = (level.entry, level.attributes);
            let rest = self.entry.split_off(end);
            self.put_directory(&attributes)?;
            self.entry.extend_from_slice(&rest);
        }
        Ok(())
    }

    fn put_directory(&mut self, attributes: &Attributes) -> Result<(), Error> {
        self.entry.push(b'/');
        let result = self.put_header(Kind::Directory, attributes, 0);
        self.entry.pop();
        self.summary.directories += 1;
        result
    }

    fn put_file(&mut self, file: &OwnedFd, status: &Stat) -> Result<(), Error> {
        let size = status.st_size as u64;
        self.put_header(Kind::File, &attributes_of(status), size)?;
        let mut left = size;
        while left > 0 {
            let wanted = left.min(PIECE as u64) as usize;
            let piece = self.buffer.get_mut(..wanted).unwrap_or_default();
            let count = match rustix::io::read(file, piece) {
                Ok(0) => break,
                Ok(count) => count,
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(self.unreadable(errno)),
            };
            self.packer.put(self.buffer.get(..count).unwrap_or_default())?;
            left -= count as u64;
            self.summary.content += count as u64;
            (self.progress)(&self.summary)?;
        }
        // The header has promised a length, and the file may have changed since.
        if left > 0 {
            self.warn("became shorter while it was read: zeros stand for the rest");
        } else if rustix::io::read(file, &mut [0; 1][..]) == Ok(1) {
            self.warn("became longer while it was read: the new part is missing");
        }
        self.packer.put_zeros(left + tar::padding(size))?;
        self.summary.files += 1;
        Ok(())
    }

    fn put_header(&mut self, kind: Kind, attributes: &Attributes, size: u64) -> Result<(), Error> {
        if self.entry.len() > tar::SHORT_NAME {
            let length = self.entry.len() as u64 + 1;
            let nobody = Attributes { mode: 0o644, user: 0, group: 0, modified: 0 };
            self.packer.put(&tar::header(LONG_LINK, Kind::LongName, &nobody, length))?;
            self.packer.put(&self.entry)?;
            self.packer.put_zeros(1 + tar::padding(length))?;
        }
        self.packer.put(&tar::header(&self.entry, kind, attributes, size))
    }

    fn finish(mut self) -> Result<Summary, Error> {
        // POSIX: two blocks of zeros; filled up to a record of twenty blocks, as tar does, would be for tapes.
        self.packer.put_zeros(2 * tar::BLOCK as u64)?;
        if self.summary.warnings > MOST_WARNINGS {
            crate::warn!("backup: {} warnings in all", self.summary.warnings);
        }
        self.summary.bytes = self.packer.finish()?;
        Ok(self.summary)
    }

    /// An error when an earlier item of the volume puts something where `self.entry` is to be, unless both are
    /// directories. The supervisor's tar cannot unpack a file over a directory and would be tried again for ever.
    fn claim(&mut self, volume: &Volume, index: usize, directory: bool) -> Result<(), Error> {
        let mut path = Vec::new();
        let entry = self.entry.get(volume.name.len() + 1..).unwrap_or_default();
        for earlier in volume.items.get(..index).unwrap_or_default() {
            let is_there = match self.source_status(earlier) {
                Ok(status) => {
                    let is_tree = is_directory(&status);
                    let place = place_of(earlier, is_tree).as_bytes();
                    match below(entry, place) {
                        // Inside of the earlier one, or the very same.
                        Some(rest) if is_tree => {
                            path.clear();
                            path.extend_from_slice(&self.source_path(earlier));
                            path.push(b'/');
                            path.extend_from_slice(rest);
                            self.collides(earlier, &path, rest, directory)?
                        }
                        Some(_) => true,
                        None => !directory && below(place, entry).is_some(),
                    }
                }
                Err(_) => false,
            };
            if is_there {
                let entry: Text<160> = crate::text::printable(&self.entry);
                let (one, other): (Text<90>, Text<90>) =
                    (Text::from(&*earlier.source), crate::text::printable(&self.source));
                let why: Text<240> = crate::text!("both {} and {} belong there", one, other);
                return Err(Error::refused("backing up to", &entry, &why)
                    .advice("give one of them another target"));
            }
        }
        Ok(())
    }

    /// True when the tree of an earlier item has something else than a directory (or anything, for a file) at `path`.
    fn collides(
        &self,
        earlier: &Item,
        path: &[u8],
        rest: &[u8],
        directory: bool,
    ) -> Result<bool, Error> {
        let Ok(status) = rustix::fs::stat(path) else { return Ok(false) };
        match FileType::from_raw_mode(status.st_mode) {
            FileType::Directory => Ok(!directory),
            FileType::RegularFile => {
                let Some(filter) = &earlier.filter else { return Ok(true) };
                let file = open_path(&self.source_path(earlier), &earlier.source)?;
                let mut seen = self.canonical(&file);
                if let Some(rest) = seen.strip_prefix(&*self.canonical_root) {
                    seen = rest.to_vec();
                }
                seen.push(b'/');
                seen.extend_from_slice(rest);
                Ok(filter.matches(&seen, &mut String::new()))
            }
            _ => Ok(false),
        }
    }

    /// Where the source of an item is looked for.
    fn source_path(&self, item: &Item) -> Vec<u8> {
        let mut path = self.root.as_bytes().to_vec();
        path.extend_from_slice(item.source.as_bytes());
        path
    }

    fn source_status(&self, item: &Item) -> Result<Stat, Error> {
        rustix::fs::stat(self.source_path(item)).map_err(|errno| cannot_open(&item.source, errno))
    }

    /// The path of an open file without links in it, empty for `/` and for what is not known.
    fn canonical(&self, file: &OwnedFd) -> Vec<u8> {
        let link: Text<40> = crate::text!("/proc/self/fd/{}", file.as_raw_fd());
        let mut buffer = [0; LONGEST_PATH];
        let path = rustix::fs::readlinkat_raw(CWD, &*link, &mut buffer[..]);
        let length = path.unwrap_or(0);
        let path = buffer.get(..length).unwrap_or_default();
        path.strip_suffix(b"/").unwrap_or(path).to_vec()
    }

    /// True for the file systems that the kernel makes up, /dev included: they have no data, and no end.
    fn is_pseudo(&self, file: &OwnedFd, device: u64) -> bool {
        // It looks like any tmpfs.
        if Some(device) == self.device_nodes {
            return true;
        }
        rustix::fs::fstatfs(file).is_ok_and(|status| PSEUDO.contains(&(status.f_type as u32)))
    }

    fn append_entry(&mut self, name: &[u8]) -> Result<(), Error> {
        if self.entry.is_empty() {
            self.entry.extend_from_slice(name)
        } else {
            append(&mut self.entry, name)?
        }
        Ok(())
    }

    /// What could be listed and cannot be opened.
    fn vanished(&mut self, errno: Errno) -> Result<(), Error> {
        match errno {
            Errno::NOENT | Errno::LOOP | Errno::NOTDIR => {
                self.leave_out("it is a link to nothing, or is gone")
            }
            Errno::NXIO => self.leave_out("it is a socket, a pipe or a device"),
            errno => Err(self.unreadable(errno)),
        }
    }

    fn leave_out(&mut self, why: &str) -> Result<(), Error> {
        let what: Text<80> = crate::text!("was left out: {}", why);
        self.warn(&what);
        Ok(())
    }

    fn warn(&mut self, what: &str) {
        let source = core::mem::take(&mut self.source);
        self.warn_of(&source, what);
        self.source = source;
    }

    fn warn_of(&mut self, path: &[u8], what: &str) {
        self.summary.warnings += 1;
        if self.summary.warnings <= MOST_WARNINGS {
            let path: Text<300> = crate::text::printable(path);
            crate::warn!("backup: {} {}", path, what);
        }
    }

    fn unreadable(&self, errno: Errno) -> Error {
        Error::os("reading for the backup", &self.shown(), errno)
            .advice("make it readable, or leave it out of the backup description")
    }

    fn shown(&self) -> Text<160> {
        crate::text::printable(&self.source)
    }
}

const FLAGS: OFlags =
    OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NOCTTY).union(OFlags::NONBLOCK);

/// The name that GNU tar gives to entries that hold the name of the next.
const LONG_LINK: &[u8] = b"././@LongLink";

/// What statfs(2) and linux/magic.h call file systems without data: proc, sysfs, devpts, cgroup and cgroup2, debugfs,
/// tracefs, securityfs, configfs, pstore, bpf, mqueue, efivarfs, selinuxfs, smackfs, binfmt_misc, fusectl, nsfs,
/// hugetlbfs, an autofs that is not mounted, usbdevfs, rpc_pipefs.
const PSEUDO: [u32; 22] = [
    0x9fa0,
    0x6265_6572,
    0x1cd1,
    0x27_e0eb,
    0x6367_7270,
    0x6462_6720,
    0x7472_6163,
    0x7363_6673,
    0x6265_6570,
    0x6165_676c,
    0xcafe_4a11,
    0x1980_0202,
    0xde5e_81e4,
    0xf97c_ff8c,
    0x4341_5d53,
    0x4249_4e4d,
    0x6573_5543,
    0x6e73_6673,
    0x9584_58f6,
    0x0187,
    0x9fa2,
    0x6759_6969,
];

/// The device number of /dev, where that is a file system of its own.
fn device_of_dev() -> Option<u64> {
    let device = |path| rustix::fs::stat(path).ok().map(|status: Stat| status.st_dev);
    device("/dev").filter(|dev| Some(*dev) != device("/"))
}

/// Opens a source. What is neither a file nor a directory is not opened: opening does something to some devices.
fn open_path(path: &[u8], shown: &str) -> Result<OwnedFd, Error> {
    let status = rustix::fs::stat(path).map_err(|errno| cannot_open(shown, errno))?;
    match FileType::from_raw_mode(status.st_mode) {
        FileType::Directory | FileType::RegularFile => {}
        _ => return Err(refused(shown, "it is neither a file nor a directory")),
    }
    rustix::fs::open(path, FLAGS, Mode::empty()).map_err(|errno| cannot_open(shown, errno))
}

fn cannot_open(source: &str, errno: Errno) -> Error {
    Error::os("backing up", source, errno)
        .as_refusal()
        .advice("correct the source in the backup description")
}

fn refused(source: &str, why: &str) -> Error {
    Error::refused("backing up", source, why).advice("correct the backup description")
}

fn is_directory(status: &Stat) -> bool {
    FileType::from_raw_mode(status.st_mode).is_dir()
}

fn attributes_of(status: &Stat) -> Attributes {
    Attributes {
        mode: status.st_mode,
        user: status.st_uid,
        group: status.st_gid,
        modified: status.st_mtime,
    }
}

/// Where an item goes, below its volume: its target, or its own name when it is a file.
fn place_of(item: &Item, is_tree: bool) -> &str {
    match item.source.rsplit('/').next() {
        Some(name) if item.target.is_empty() && !is_tree => name,
        _ => &item.target,
    }
}

/// What is left of `path` below `ancestor`, empty when they are the same; None when it is not below.
fn below<'a>(path: &'a [u8], ancestor: &[u8]) -> Option<&'a [u8]> {
    if ancestor.is_empty() {
        return Some(path);
    }
    match path.strip_prefix(ancestor)? {
        [] => Some(&[]),
        [b'/', rest @ ..] => Some(rest),
        _ => None,
    }
}

fn append(path: &mut Vec<u8>, name: &[u8]) -> Result<(), Error> {
    if path.len() + 1 + name.len() > LONGEST_PATH {
        let start: Text<160> = crate::text::printable(path);
        return Err(refused(&start, "a path in it is longer than 4095 bytes"));
    }
    path.push(b'/');
    path.extend_from_slice(name);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::parse;
    use crate::files::unnamed as temporary;
    use std::collections::BTreeMap;
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
    use std::path::{Path, PathBuf};
    use std::process::Command;

    /// A directory that is removed at the end; its files are the sources.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("takeover-{name}-{}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn file(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
            let path = self.0.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, content).unwrap();
            path
        }

        fn link(&self, name: &str, to: &str) {
            symlink(to, self.0.join(name)).unwrap();
        }

        fn pack_with(
            &self,
            description: &str,
            limit: u64,
            progress: &mut Progress,
        ) -> Result<(Summary, Vec<u8>), Error> {
            let description = parse(description.as_bytes()).ok().unwrap();
            let output = temporary(self.0.parent().unwrap().to_str().unwrap()).unwrap();
            let summary = write(&description, self.0.to_str().unwrap(), &output, limit, progress)?;
            let mut bytes = vec![0; summary.bytes as usize];
            let output = fs::File::from(output);
            assert_eq!(output.metadata().unwrap().len(), summary.bytes);
            output.read_exact_at(&mut bytes, 0).unwrap();
            Ok((summary, bytes))
        }

        fn pack(&self, description: &str) -> Result<(Summary, Vec<u8>), Error> {
            self.pack_with(description, u64::MAX, &mut |_| Ok(()))
        }

        fn refused(&self, description: &str, why: &str) {
            let error = self.pack(description).expect_err("it was accepted");
            let text: Text<600> = crate::text!("{}", error);
            assert!(text.contains(why), "{}", &*text);
            assert_eq!(error.kind().exit_code(), 3);
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn all(path: &str) -> String {
        format!("- volume: data\n  items:\n  - source: {path}\n")
    }

    #[derive(PartialEq, Eq, Debug, Clone)]
    struct Entry {
        directory: bool,
        mode: u32,
        owner: (u32, u32),
        modified: i64,
        content: Vec<u8>,
    }

    type Tree = BTreeMap<Vec<u8>, Entry>;

    /// What is below a directory, links followed.
    fn tree(path: &Path) -> Tree {
        let mut found = Tree::new();
        let mut open = vec![path.to_path_buf()];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(&directory).unwrap() {
                let entry = entry.unwrap().path();
                let Ok(status) = fs::metadata(&entry) else { continue };
                let name = entry.strip_prefix(path).unwrap().as_os_str().as_bytes().to_vec();
                if status.is_dir() {
                    open.push(entry.clone());
                }
                let content = if status.is_file() { fs::read(&entry).unwrap() } else { vec![] };
                found.insert(
                    name,
                    Entry {
                        directory: status.is_dir(),
                        mode: status.mode() & 0o7777,
                        owner: (status.uid(), status.gid()),
                        modified: status.mtime(),
                        content,
                    },
                );
            }
        }
        found
    }

    /// What a program unpacks an archive to, and that it had nothing to say.
    fn unpacked(program: &[&str], bytes: &[u8]) -> Tree {
        let place = Place::new(&format!("unpacked-{}-{:p}", program.len(), bytes));
        let archive = place.file("backup.tgz", bytes);
        let target = place.0.join("backup");
        fs::create_dir(&target).unwrap();
        let output = Command::new(program[0])
            .args(&program[1..])
            .arg("-xzf")
            .arg(&archive)
            .arg("-C")
            .arg(&target)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{program:?}: {said}");
        tree(&target)
    }

    const GNU: [&str; 1] = ["tar"];

    /// The names and types in an archive, in order.
    fn listed(bytes: &[u8]) -> Vec<(String, u8)> {
        let plain = miniz_oxide::inflate::decompress_to_vec(&bytes[10..bytes.len() - 8]).unwrap();
        assert_eq!(plain.len() % tar::BLOCK, 0);
        let (mut at, mut found, mut long) = (0, Vec::new(), None);
        while plain[at] != 0 {
            let block = &plain[at..at + tar::BLOCK];
            let until_nul = |bytes: &[u8]| {
                let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
                String::from_utf8_lossy(&bytes[..end]).into_owned()
            };
            let size = u64::from_str_radix(&until_nul(&block[124..136]), 8).unwrap();
            let content = &plain[at + tar::BLOCK..at + tar::BLOCK + size as usize];
            if block[156] == b'L' {
                long = Some(until_nul(content));
            } else {
                let name = long.take().unwrap_or_else(|| until_nul(&block[..100]));
                found.push((name, block[156]));
            }
            at += tar::BLOCK + (size + tar::padding(size)) as usize;
        }
        assert!(plain[at..].iter().all(|byte| *byte == 0) && plain.len() == at + 1024);
        found
    }

    fn names(bytes: &[u8]) -> Vec<String> {
        listed(bytes).into_iter().map(|(name, _)| name).collect()
    }

    fn set_time(path: &Path, seconds: u64) {
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        let times = std::fs::FileTimes::new().set_modified(time);
        fs::File::open(path).unwrap().set_times(times).unwrap();
    }

    /// A tree with about everything that can be kept.
    fn rich(name: &str) -> Place {
        let place = Place::new(name);
        place.file("home/a.txt", "text");
        place.file("home/.hidden", "");
        place.file("home/block", [7; 512]);
        place.file(
            "home/large",
            (0..200_000u32).map(|i| (i.wrapping_mul(i) >> 5) as u8).collect::<Vec<_>>(),
        );
        let deep = format!("home/{}/{}/{}", "d".repeat(99), "e".repeat(120), "f".repeat(255));
        place.file(&deep, "deep");
        place.file(format!("home/{}", "n".repeat(95)), "just fits");
        place.file(format!("home/{}", "n".repeat(96)), "just does not");
        place.file(Path::new("home").join(OsStr::from_bytes(b"caf\xe9 \n")), "latin");
        place.file("home/été/ü", "utf");
        fs::create_dir_all(place.0.join("home/empty/inside")).unwrap();
        place.file("elsewhere/shared/x", "through a link");
        place.link("home/tree", "../elsewhere/shared");
        place.link("home/file", "../elsewhere/shared/x");
        fs::hard_link(place.0.join("home/a.txt"), place.0.join("home/b.txt")).unwrap();
        let holes = fs::File::create(place.0.join("home/holes")).unwrap();
        holes.set_len(300_000).unwrap();
        holes.write_all_at(b"end", 299_000).unwrap();
        fs::set_permissions(place.0.join("home/a.txt"), PermissionsExt::from_mode(0o4750)).unwrap();
        fs::set_permissions(place.0.join("home/empty"), PermissionsExt::from_mode(0o1700)).unwrap();
        if rustix::process::geteuid().is_root() {
            let path = place.0.join("home/large");
            std::os::unix::fs::chown(path, Some(1000), Some(3_000_000)).unwrap();
        }
        set_time(&place.0.join("home/block"), 86_400);
        set_time(&place.0.join("home/empty"), 1_000_000_000);
        place
    }

    #[test]
    fn gnu_tar_unpacks_what_was_there() {
        let place = rich("gnu");
        let (summary, bytes) = place.pack(&all("/home")).unwrap();
        let mut expected = tree(&place.0.join("home"));
        let files = expected.values().filter(|entry| !entry.directory).count() as u64;
        assert_eq!((summary.files, summary.volumes, summary.warnings), (files, 1, 0));
        assert_eq!(summary.directories, expected.len() as u64 - files + 1);
        let content = expected.values().map(|entry| entry.content.len() as u64).sum::<u64>();
        assert_eq!(summary.content, content);
        let unpacked = unpacked(&GNU, &bytes);
        assert_eq!(
            unpacked[&b"data"[..]].modified,
            fs::metadata(place.0.join("home")).unwrap().mtime()
        );
        let mut inside = Tree::new();
        for (name, entry) in &unpacked {
            if let Some(name) = name.strip_prefix(b"data/") {
                inside.insert(name.to_vec(), entry.clone());
            }
        }
        // Without root tar sets neither owners nor the bits that go with them.
        if !rustix::process::geteuid().is_root() {
            for entry in expected.values_mut().chain(inside.values_mut()) {
                entry.mode &= 0o700;
                entry.owner = (0, 0);
            }
        }
        assert_eq!(inside.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
        assert!(inside == expected);
    }

    #[test]
    fn the_supervisors_tar_unpacks_the_same() {
        // Alpine's: busybox.
        let place = rich("busybox");
        let (_, bytes) = place.pack(&all("/home")).unwrap();
        let mut busybox = unpacked(&["busybox", "tar"], &bytes);
        let mut gnu = unpacked(&GNU, &bytes);
        // busybox sets the times of directories while it fills them.
        for entry in busybox.values_mut().chain(gnu.values_mut()).filter(|entry| entry.directory) {
            entry.modified = 0;
        }
        assert_eq!(busybox.keys().collect::<Vec<_>>(), gnu.keys().collect::<Vec<_>>());
        assert!(busybox == gnu);
    }

    #[test]
    fn sizes_beyond_eight_gib_are_read() {
        let place = Place::new("size");
        let some = Attributes { mode: 0o600, user: 3_000_000, group: 7, modified: 1 };
        let size = 9 << 30;
        let path = place.file("big.tar", tar::header(b"data/big", Kind::File, &some, size));
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_len(size + 512 + 1024).unwrap();
        for program in [&["tar"][..], &["busybox", "tar"]] {
            let mut command = Command::new(program[0]);
            let listing = command.args(&program[1..]).arg("-tvf").arg(&path).output();
            let listing = listing.unwrap_or_else(|error| panic!("{program:?}: {error}"));
            let text = String::from_utf8_lossy(&listing.stdout);
            assert!(text.contains("9663676416") && text.contains("3000000/7"), "{text}");
        }
    }

    /// loadBackupFromMigration of balena-supervisor: each entry at the top must be a directory called like a volume.
    fn obeys_the_supervisor(bytes: &[u8], volumes: &[&str]) {
        let mut seen = Vec::new();
        for (name, kind) in listed(bytes) {
            let (top, rest) =
                name.split_once('/').expect("something else than a directory at the top");
            assert!(volumes.contains(&top), "{name}");
            assert!(!name.starts_with('/') && !name.contains("//"), "{name}");
            assert!(name.split('/').all(|part| !matches!(part, "." | "..")), "{name}");
            assert_eq!(name.ends_with('/'), kind == b'5', "{name}");
            assert!(matches!(kind, b'0' | b'5'));
            if !seen.contains(&top.to_string()) {
                assert!(rest.is_empty(), "{name} comes before the directory of its volume");
                seen.push(top.to_string());
            }
        }
        assert_eq!(seen, volumes);
        let unpacked = unpacked(&GNU, bytes);
        let top: Vec<_> = unpacked.iter().filter(|(name, _)| !name.contains(&b'/')).collect();
        assert_eq!(top.len(), volumes.len());
        assert!(top.iter().all(|(_, entry)| entry.directory));
    }

    #[test]
    fn the_top_holds_the_volumes_and_nothing_else() {
        let place = rich("rules");
        place.file("etc/app.conf", "conf");
        place.file("etc/site.yaml", "site");
        let (summary, bytes) = place
            .pack(
                "- volume: data\n  items: [{source: /home}, {source: /elsewhere, target: other/place}]\n\
                 - volume: config\n  items:\n  - {source: /etc/app.conf}\n  - {source: /etc/site.yaml, target: etc/main}\n\
                 - volume: none\n  items: []\n\
                 - volume: nothing\n  items: [{source: /elsewhere, filter: '^$'}]\n\
                 - volume: \"with space\"\n  items: [{source: /etc}]\n",
            )
            .unwrap();
        let volumes = ["data", "config", "none", "nothing", "with space"];
        obeys_the_supervisor(&bytes, &volumes);
        assert_eq!(summary.volumes, 5);
        let names = names(&bytes);
        let start = names.iter().position(|name| name == "config/").unwrap();
        let expected = [
            "config/",
            "config/app.conf",
            "config/etc/",
            "config/etc/main",
            "none/",
            "nothing/",
            "with space/",
            "with space/app.conf",
            "with space/site.yaml",
        ];
        assert_eq!(names[start..], expected);
        for name in ["data/other/", "data/other/place/", "data/other/place/shared/x"] {
            assert!(names.iter().any(|found| found == name), "{name}");
        }
    }

    #[test]
    fn the_same_files_give_the_same_bytes() {
        let orders = [[0, 1, 2, 3], [3, 1, 0, 2]];
        let archives = orders.map(|order| {
            let place = Place::new(&format!("same-{}", order[0]));
            for index in order {
                let path = place.file(format!("home/{}/f", index * 7), [index as u8; 600]);
                set_time(&path, 1000 + index);
                fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
                set_time(path.parent().unwrap(), 2000);
            }
            set_time(&place.0.join("home"), 3000);
            place.pack(&all("/home")).unwrap().1
        });
        assert!(archives[0] == archives[1]);
        assert_eq!(archives[0][4..8], [0; 4], "there is a time in the header of gzip");
    }

    #[test]
    fn names_are_in_order_however_many_there_are() {
        let place = Place::new("many");
        for index in 0..5000u32 {
            place.file(format!("home/{:08x}", index.wrapping_mul(2_654_435_761)), "");
        }
        let (summary, bytes) = place.pack(&all("/home")).unwrap();
        assert_eq!(summary.files, 5000);
        let names = names(&bytes);
        assert!(names.is_sorted() && names.len() == 5001);
    }

    #[test]
    fn links_that_lead_back_are_left_out() {
        let place = Place::new("loops");
        place.file("home/a/b/file", "x");
        place.link("home/here", ".");
        place.link("home/a/b/up", "../..");
        place.link("home/a/b/top", place.0.join("home").to_str().unwrap());
        place.link("home/self", "self");
        place.link("home/nowhere", "/no/such/file");
        place.link("home/under-file", "a/b/file/x");
        // Twice the same, but not inside of itself, is no loop.
        place.link("home/again", "a/b");
        let (summary, bytes) = place.pack(&all("/home")).unwrap();
        assert_eq!(
            names(&bytes),
            ["data/", "data/a/", "data/a/b/", "data/a/b/file", "data/again/", "data/again/file"]
        );
        assert_eq!(summary.warnings, 1 + 2 + 2 + 3);
    }

    #[test]
    fn a_maze_of_links_ends_at_the_limit() {
        let place = Place::new("maze");
        for level in 0..60 {
            for door in ["a", "b"] {
                fs::create_dir_all(place.0.join(format!("{level}"))).unwrap();
                place.link(&format!("{level}/{door}"), &format!("../{}", level + 1));
            }
        }
        fs::create_dir(place.0.join("60")).unwrap();
        let limited = place.pack_with(&all("/0"), 10_000, &mut |_| Ok(()));
        let error = limited.unwrap_err();
        let text: Text<300> = crate::text!("{}", error);
        assert!(text.contains("larger than 10 KiB"), "{}", &*text);
    }

    #[test]
    fn too_deep_is_refused() {
        let place = Place::new("deep");
        place.file(format!("ok/{}f", "d/".repeat(DEEPEST - 1)), "x");
        assert_eq!(place.pack(&all("/ok")).unwrap().0.files, 1);
        place.file(format!("no/{}f", "d/".repeat(DEEPEST)), "x");
        place.refused(&all("/no"), "more than 100 directories deep");
        let name = "n".repeat(250);
        place.file("long/x", "");
        let mut path = place.0.join("long");
        // One step after the other: no path may be that long at once.
        for _ in 0..17 {
            let directory = open_path(path.as_os_str().as_bytes(), "").unwrap();
            let _ = rustix::fs::mkdirat(&directory, &*name, Mode::RWXU);
            path = PathBuf::from(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()));
            std::mem::forget(directory);
        }
        place.refused(&all("/long"), "longer than 4095 bytes");
    }

    #[test]
    fn the_copies_of_an_image_are_left_out_and_what_others_have_of_that_name_is_not() {
        let place = Place::new("copies");
        for (folder, mode) in [("of-a-takeover", 0o600), ("of-others", 0o644)] {
            let file = place.file(format!("{folder}/{COPIES}"), "x");
            fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
        }
        let (summary, bytes) = place.pack(&all("/")).unwrap();
        assert!(names(&bytes).contains(&format!("data/of-others/{COPIES}")));
        // Of users other than root nothing is a takeover's.
        let is_root = fs::metadata(&place.0).unwrap().uid() == 0;
        assert_eq!(names(&bytes).contains(&format!("data/of-a-takeover/{COPIES}")), !is_root);
        assert_eq!((summary.files, summary.warnings), (1 + u64::from(!is_root), 0));
    }

    #[test]
    fn what_is_no_file_is_left_out() {
        let place = Place::new("special");
        place.file("home/file", "x");
        rustix::fs::mknodat(CWD, place.0.join("home/pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(place.0.join("home/socket")).unwrap();
        place.link("home/device", "/dev/null");
        place.link("home/proc", "/proc");
        place.link("home/version", "/proc/version");
        let (summary, bytes) = place.pack(&all("/home")).unwrap();
        assert_eq!(names(&bytes), ["data/", "data/file"]);
        assert_eq!(summary.warnings, 5);
        place.refused(&all("/home/pipe"), "neither a file nor a directory");
        place.refused(&all("/home/device"), "neither a file nor a directory");
        place.refused(&all("/home/proc"), "a file system of the kernel");
        place.refused(&all("/home/version"), "a file system of the kernel");
        place.refused(&all("/home/missing"), "/home/missing: no such file");
        place.refused(&all("/home/file/x"), "not a directory");
    }

    #[test]
    fn the_filter_is_for_files_and_sees_the_whole_path() {
        let place = Place::new("filter");
        for name in ["home/a.db", "home/a.txt", "home/x/y/b.db", "home/x/c", "home/db/d.txt"] {
            place.file(name, "x");
        }
        place.link("link", "home");
        let pack = |source: &str, filter: &str| {
            let text =
                format!("- volume: v\n  items: [{{source: {source}, filter: '{filter}'}}]\n");
            names(&place.pack(&text).unwrap().1)
        };
        assert_eq!(pack("/home", r"\.db$"), ["v/", "v/a.db", "v/x/", "v/x/y/", "v/x/y/b.db"]);
        assert_eq!(pack("/home", "^/home/x/"), ["v/", "v/x/", "v/x/c", "v/x/y/", "v/x/y/b.db"]);
        assert_eq!(pack("/home", "/db/"), ["v/", "v/db/", "v/db/d.txt"]);
        // As in the original, links at the source itself are resolved before.
        assert_eq!(pack("/link", "^/home/a"), ["v/", "v/a.db", "v/a.txt"]);
        assert_eq!(pack("/home", "^x"), ["v/"]);
        // And a file that is named is wanted.
        assert_eq!(pack("/home/a.txt", "db"), ["v/", "v/a.txt"]);
    }

    #[test]
    fn a_volume_has_the_attributes_of_the_directory_that_it_replaces() {
        let place = Place::new("adopted");
        place.file("file", "x");
        place.file("home/a", "x");
        fs::set_permissions(place.0.join("home"), PermissionsExt::from_mode(0o2770)).unwrap();
        set_time(&place.0.join("file"), 5000);
        let mode = |items: &str| {
            let (_, bytes) = place.pack(&format!("- volume: v\n  items: [{items}]\n")).unwrap();
            let plain =
                miniz_oxide::inflate::decompress_to_vec(&bytes[10..bytes.len() - 8]).unwrap();
            String::from_utf8(plain[100..107].to_vec()).unwrap()
        };
        assert_eq!(mode("{source: /home}"), "0002770");
        assert_eq!(mode("{source: /file}, {source: /home}"), "0002770");
        assert_eq!(mode("{source: /file}"), "0000755");
        assert_eq!(mode("{source: /home, target: x}"), "0000755");
        assert_eq!(mode(""), "0000755");
    }

    #[test]
    fn two_items_for_one_place_are_refused() {
        let place = Place::new("collision");
        for name in ["one/a", "one/d/x", "two/a", "two/e/y", "three/d", "four/d/z"] {
            place.file(name, "x");
        }
        let both =
            |first: &str, second: &str| format!("- volume: v\n  items: [{first}, {second}]\n");
        let why = "belong there; give one of them another target";
        for (first, second) in [
            ("{source: /one}", "{source: /two}"),
            ("{source: /one}", "{source: /three}"),
            ("{source: /three}", "{source: /one}"),
            ("{source: /one}", "{source: /three/d}"),
            ("{source: /one/a}", "{source: /two/a}"),
            ("{source: /one/a}", "{source: /two, target: a}"),
            ("{source: /one/a}", "{source: /two, target: a/b}"),
            ("{source: /one}", "{source: /two, target: a/b}"),
            ("{source: /two, target: a/b}", "{source: /one}"),
            ("{source: /one}", "{source: /three/d, target: d/x}"),
            ("{source: /one, filter: /a}", "{source: /two}"),
        ] {
            place.refused(&both(first, second), why);
        }
        for (first, second, last) in [
            ("{source: /one}", "{source: /four}", "v/d/z"),
            ("{source: /one}", "{source: /two, target: d}", "v/d/e/y"),
            ("{source: /two, target: d/t}", "{source: /one}", "v/d/x"),
            ("{source: /one/a}", "{source: /two/a, target: b}", "v/b"),
            ("{source: /one, filter: /x}", "{source: /two}", "v/e/y"),
            ("{source: /one, target: s/t}", "{source: /two, target: s/u}", "v/s/u/e/y"),
        ] {
            let (_, bytes) = place.pack(&both(first, second)).unwrap();
            assert_eq!(names(&bytes).last().unwrap(), last);
            unpacked(&GNU, &bytes);
        }
        let other_volume =
            "- volume: v\n  items: [{source: /one}]\n- volume: w\n  items: [{source: /one}]\n";
        assert!(place.pack(other_volume).is_ok());
    }

    #[test]
    fn a_file_that_changes_meanwhile_leaves_the_archive_whole() {
        for (length, kept) in [(100_000, 100_000), (400_000, 200_000)] {
            let place = Place::new("changing");
            let path = place.file("home/log", vec![b'x'; 200_000]);
            place.file("home/then", "after");
            let mut change = |summary: &Summary| {
                if summary.content > 0 && summary.files == 0 {
                    fs::File::options().write(true).open(&path).unwrap().set_len(length).unwrap();
                }
                Ok(())
            };
            let (summary, bytes) = place.pack_with(&all("/home"), u64::MAX, &mut change).unwrap();
            assert_eq!((summary.files, summary.warnings), (2, 1));
            let unpacked = unpacked(&GNU, &bytes);
            let mut expected = vec![b'x'; kept];
            expected.resize(200_000, 0);
            assert!(unpacked[&b"data/log"[..]].content == expected);
            assert_eq!(unpacked[&b"data/then"[..]].content, b"after");
        }
    }

    #[test]
    fn what_cannot_be_read_ends_the_backup() {
        // Root reads everything.
        if rustix::process::geteuid().is_root() {
            return;
        }
        let place = Place::new("unreadable");
        let path = place.file("home/secret", "x");
        fs::set_permissions(&path, PermissionsExt::from_mode(0o0)).unwrap();
        let text: Text<300> = crate::text!("{}", place.pack(&all("/home")).unwrap_err());
        assert!(text.contains("/home/secret: permission denied; make it readable"), "{}", &*text);
    }

    #[test]
    fn whoever_watches_can_end_it() {
        let place = rich("interrupted");
        let stop = place.pack_with(&all("/home"), u64::MAX, &mut |summary| match summary.files {
            3 => Err(Error::failed("taking over", "this device", "it was interrupted")),
            _ => Ok(()),
        });
        let error = stop.unwrap_err();
        let text: Text<300> = crate::text!("{}", error);
        assert!(text.contains("interrupted"));
    }
}
