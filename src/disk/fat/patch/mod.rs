//! Files onto a FAT file system without a mount: which sectors of the disk change, and to what.
//!
//! Writes nothing. The caller lays what comes out over the disk that it read. What is not understood is refused:
//! nothing is planned in part.
//!
//! What is there stays as it is and where it is, but for the files that are replaced. The second table becomes a copy
//! of the first where that changes. The marks of an unclean volume (in the boot sector and in entry 1 of the table) are
//! not touched: a clean volume is as clean afterwards, and one that was left unclean is still to be looked at by
//! somebody.

mod changes;
mod directory;
mod name;
mod refusal;
mod volume;

pub use changes::{Content, SECTOR};

use super::entry::{self, ARCHIVE, ATTRIBUTES, DIRECTORY, Entry, READ_ONLY};
use super::{Fat, Width};
use crate::disk::reader::ReadAt;
use crate::error::Error;
use crate::text::Text;
use changes::Changes;
use directory::Directory;
use refusal::{FEWER, damaged, refuse};
use volume::Volume;

/// The most directories that files may be wanted in, the root being one.
const DIRECTORIES: usize = 4;
/// The most files that may be wanted.
pub const FILES: usize = 128;

/// A file that is wanted on the volume.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// A name in the root directory, or a directory of the root, a slash and a name. What is not there is made, what is
    /// there is replaced. The case of ASCII letters does not matter.
    pub path: &'a str,
    /// Its length in bytes.
    pub length: u32,
}

impl<'a> Wanted<'a> {
    /// The directory, empty for the root, and the name.
    fn split(&self) -> (&'a str, &'a str) {
        self.path.split_once('/').unwrap_or(("", self.path))
    }
}

/// The memory that planning needs, and its result: some 80 KiB, all zeros at first.
pub struct Memory {
    changes: Changes,
    directories: heapless::Vec<Directory, DIRECTORIES>,
    /// What was placed: the directory, and the place of the entry in it.
    placed: heapless::Vec<(u8, u32), FILES>,
}

impl Memory {
    /// With no result.
    pub const fn new() -> Self {
        Self {
            changes: Changes::new(),
            directories: heapless::Vec::new(),
            placed: heapless::Vec::new(),
        }
    }

    fn clear(&mut self) {
        self.changes.clear();
        self.directories.clear();
        self.placed.clear();
    }
}

impl Default for Memory {
    fn default() -> Self {
        Self::new()
    }
}

/// Calls `visit` with each sector that a plan for this volume changes, once and in ascending order, and with what it
/// becomes. Sectors are of 512 bytes and counted from the disk's start. They lie in the boot sector's volume
/// ([`Fat::length`]).
pub fn for_each(
    fat: &Fat,
    memory: &Memory,
    visit: &mut dyn FnMut(u32, Content<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    memory.changes.for_each(fat, visit)
}

/// Plans for `wanted`, whose times will be `stamp`: date and time of a directory entry, the date in the upper half (FAT
/// specification, section 6; the least date is 0x0021, 1 January 1980).
///
/// Reads forward: FSInfo, the first table to its end, the root directory, and the wanted directories that are there in
/// the order of their first clusters. Between them and behind only the table is read again.
pub fn plan(
    disk: &mut dyn ReadAt,
    fat: &Fat,
    wanted: &[Wanted<'_>],
    stamp: u32,
    memory: &mut Memory,
) -> Result<(), Error> {
    memory.clear();
    check(fat, wanted)?;
    let clusters = |file: &Wanted| u64::from(file.length).div_ceil(fat.cluster) as u32 + 1;
    // The directories that are made, and one more cluster for each; what does not fit is found out later.
    let most = wanted.iter().map(clusters).sum::<u32>() + 2 * DIRECTORIES as u32;
    let Memory { changes, directories, placed } = memory;
    let volume = Volume::open(disk, fat, changes, most)?;
    let names = heapless::Vec::new();
    let mut planner = Planner { volume, directories, names, placed, stamp };
    planner.open_root(wanted)?;
    planner.open_directories(wanted)?;
    planner.check_room(wanted)?;
    planner.make_directories()?;
    for (index, file) in (0..).zip(wanted) {
        planner.put(index, file)?;
    }
    planner.volume.close()
}

/// Refuses what can be refused without a look at the disk.
fn check(fat: &Fat, wanted: &[Wanted<'_>]) -> Result<(), Error> {
    // The kernel mounts no such volume, and others disagree where its data begins.
    if fat.data - fat.root != u64::from(fat.root_entries) * super::ENTRY {
        return Err(damaged("its root directory ends within a sector"));
    }
    if fat.is_unusual {
        return Err(refuse("its tables are no copies of each other, or it is of a later version")
            .advice("take an image with a usual FAT32"));
    }
    if (fat.start + fat.length) / SECTOR as u64 > u32::MAX.into() {
        return Err(refuse("it ends behind 2 TiB").advice("take a smaller image"));
    }
    if wanted.len() > FILES {
        let why: Text<64> = crate::text!("{} files are more than {}", wanted.len(), FILES);
        return Err(refuse(&why).advice("give fewer files"));
    }
    for file in wanted {
        let (directory, name) = file.split();
        if file.path.as_bytes().contains(&b'/') {
            name::check(directory)?;
        }
        name::check(name)?;
    }
    Ok(())
}

struct Planner<'a> {
    volume: Volume<'a>,
    /// The root directory first.
    directories: &'a mut heapless::Vec<Directory, DIRECTORIES>,
    /// Their names, that of the root being empty.
    names: heapless::Vec<&'a str, DIRECTORIES>,
    placed: &'a mut heapless::Vec<(u8, u32), FILES>,
    stamp: u32,
}

impl<'a> Planner<'a> {
    /// Reads the root directory, whose entries say where the others are.
    fn open_root(&mut self, wanted: &[Wanted<'a>]) -> Result<(), Error> {
        let fat = self.volume.fat;
        let mut root = match fat.width {
            Width::Fat32 => Directory::open(&mut self.volume, fat.root_cluster)?,
            _ => Directory::fixed(fat.root_entries),
        };
        let entries = wanted.iter().map(|file| match file.split() {
            ("", name) => name::parts(name) + 1,
            (directory, _) => name::parts(directory) + 1,
        });
        root.load(&mut self.volume, entries.sum())?;
        self.add_directory("", root)
    }

    /// Reads the other directories, as far as they are there: all chains before the first of them.
    fn open_directories(&mut self, wanted: &[Wanted<'a>]) -> Result<(), Error> {
        // In the rescue set there is but config.json.
        for file in wanted.iter().filter(|_| crate::IS_WHOLE) {
            let (name, _) = file.split();
            if self.directory_of(file).is_none() {
                let directory = self.open_directory(name)?;
                self.add_directory(name, directory)?;
            }
        }
        let mut order: heapless::Vec<usize, DIRECTORIES> = (1..self.names.len()).collect();
        order.sort_unstable_by_key(|index| self.directories[*index].first());
        for index in order {
            let name = self.names[index];
            let of_directory = |file: &&Wanted| file.split().0.eq_ignore_ascii_case(name);
            let entries =
                wanted.iter().filter(of_directory).map(|file| name::parts(file.split().1) + 1);
            self.directories[index].load(&mut self.volume, entries.sum())?;
        }
        Ok(())
    }

    /// The directory of the root that has this name, not loaded yet.
    fn open_directory(&mut self, name: &str) -> Result<Directory, Error> {
        let Some((_, entry)) = self.directories[0].find(&mut self.volume, name)? else {
            return Ok(Directory::MISSING);
        };
        if entry[ATTRIBUTES] & DIRECTORY == 0 {
            return Err(in_the_way(name, "a file has the name of a directory"));
        }
        let first = self.volume.fat.first_cluster(&entry);
        Directory::open(&mut self.volume, first)
    }

    fn add_directory(&mut self, name: &'a str, directory: Directory) -> Result<(), Error> {
        let is_added = self.directories.push(directory).is_ok() && self.names.push(name).is_ok();
        if is_added {
            return Ok(());
        }
        let most = DIRECTORIES - 1;
        let why: Text<64> = crate::text!("files are wanted in more than {} directories", most);
        Err(refuse(&why).advice("give fewer directories"))
    }

    /// The index of the directory of a file.
    fn directory_of(&self, file: &Wanted) -> Option<usize> {
        let (name, _) = file.split();
        self.names.iter().position(|other| other.eq_ignore_ascii_case(name))
    }

    /// Counts the clusters that files and new directories need beyond those that files of the same names have.
    fn check_room(&mut self, wanted: &[Wanted<'_>]) -> Result<(), Error> {
        let is_missing = |directory: &&Directory| directory.is_missing();
        let mut missing = self.directories.iter().filter(is_missing).count() as u32;
        for file in wanted {
            let index = self.directory_of(file).unwrap_or_default();
            let found = self.directories[index].find(&mut self.volume, file.split().1)?;
            let mut cluster = found.map_or(0, |(_, entry)| self.volume.fat.first_cluster(&entry));
            let mut clusters = self.volume.clusters_for(file.length);
            while clusters > 0 && cluster != 0 {
                cluster = self.volume.following(cluster)?;
                clusters -= 1;
            }
            missing += clusters;
        }
        if missing <= self.volume.free {
            return Ok(());
        }
        let first: Text<64> = Text::from(wanted.first().map_or("", |file| file.path));
        let (missing, free) = (self.volume.size(missing), self.volume.size(self.volume.free));
        let why: Text<200> = crate::text!(
            "{} and {} more need {} in clusters, {} are free",
            first,
            wanted.len() - 1,
            missing,
            free
        );
        Err(refuse(&why).advice(FEWER))
    }

    fn make_directories(&mut self) -> Result<(), Error> {
        for index in 1..self.names.len() {
            if !self.directories[index].is_missing() {
                continue;
            }
            let name = self.names[index];
            if self.directories[0].find(&mut self.volume, name)?.is_some() {
                return Err(in_the_way(name, TWICE));
            }
            let mut entry = [0; entry::LENGTH];
            self.stamp(&mut entry, true);
            let first = self.directories[index].make(&mut self.volume, entry)?;
            entry[ATTRIBUTES] = DIRECTORY;
            entry::set_first_cluster(&mut entry, first);
            self.directories[0].insert(&mut self.volume, name, entry)?;
        }
        Ok(())
    }

    /// Places a wanted file. One that is there keeps its entry, and its chain as far as it is needed.
    fn put(&mut self, index: u8, file: &Wanted) -> Result<(), Error> {
        let at = self.directory_of(file).unwrap_or_default();
        let (_, name) = file.split();
        let found = self.directories[at].find(&mut self.volume, name)?;
        let mut entry = found.map_or([0; entry::LENGTH], |(_, entry)| entry);
        if entry[ATTRIBUTES] & DIRECTORY != 0 {
            return Err(in_the_way(name, "a directory has the name of a file"));
        }
        if found.is_some_and(|(place, _)| self.placed.contains(&(at as u8, place as u32))) {
            return Err(in_the_way(name, TWICE));
        }
        let first = self.volume.fat.first_cluster(&entry);
        let first = self.volume.lay(index, file.length, first)?;
        entry[ATTRIBUTES] = entry[ATTRIBUTES] & !READ_ONLY | ARCHIVE;
        entry::set_first_cluster(&mut entry, first);
        entry::set_length(&mut entry, file.length);
        self.stamp(&mut entry, found.is_none());
        let directory = &mut self.directories[at];
        let place = match found {
            Some((place, _)) => directory.set(&mut self.volume, place, &entry).map(|()| place)?,
            None => directory.insert(&mut self.volume, name, entry)?,
        };
        // As many as there are files, and those were counted.
        let _ = self.placed.push((at as u8, place as u32));
        Ok(())
    }

    /// The times of the last change and look, and those of the making of a new entry.
    fn stamp(&self, entry: &mut Entry, is_new: bool) {
        let stamp = self.stamp.to_le_bytes();
        entry[22..26].copy_from_slice(&stamp);
        entry[18..20].copy_from_slice(&stamp[2..]);
        if is_new {
            entry[14..18].copy_from_slice(&stamp);
        }
    }
}

/// Why a wanted name is none: it, or its short alias.
const TWICE: &str = "two wanted names are the same to FAT";

fn in_the_way(name: &str, why: &str) -> Error {
    let name: Text<64> = crate::text::printable(name.as_bytes());
    let why: Text<160> = crate::text!("{}: {}", why, name);
    refuse(&why).advice("give the file another name, or take another image")
}

#[cfg(test)]
mod tests;
