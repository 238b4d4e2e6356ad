//! The files that the new OS gets, gathered while the old one can still be asked: config.json, network settings, the
//! backup.
//!
//! Their bytes are kept in anonymous memory (they hold keys) until the RAMFS is there; of the backup only its length is
//! known by then. Nothing here knows what is in them.

use crate::error::{Doing, Error};
use crate::files;
use crate::plan::{self, MAX_NEW_FILES, NewFile, Place};
use crate::text::Text;
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::MemfdFlags;
use std::os::fd::AsFd;

/// The files, in the order in which they were added.
pub struct NewFiles {
    store: OwnedFd,
    used: u64,
    files: heapless::Vec<File, MAX_NEW_FILES>,
}

/// A file for the new boot partition.
pub struct ForBoot<'a> {
    /// Its path there.
    pub to: &'a str,
    /// Its length in bytes.
    pub length: u64,
}

/// Where the bytes of a file are.
pub struct Stored<'a> {
    /// Which file it is.
    pub index: usize,
    /// The open file that has its bytes.
    pub source: BorrowedFd<'a>,
    /// Where they begin in that.
    pub start: u64,
    /// How many there are.
    pub length: u64,
}

struct File {
    to: heapless::String<128>,
    label: Text<64>,
    place: Place,
    kept: Kept,
    length: u64,
}

enum Kept {
    /// In the store, from here on.
    InStore(u64),
    /// Not yet: the backup is made when all else is prepared.
    #[cfg_attr(not(feature = "backup"), allow(dead_code))]
    Nowhere,
}

impl NewFiles {
    /// None yet.
    pub fn new() -> Result<Self, Error> {
        let store = rustix::fs::memfd_create("new_files", MemfdFlags::CLOEXEC)
            // Before Linux 3.17 there is none.
            .or_else(|_| files::unnamed("/run"))
            .doing("making", "the store of new_files")?;
        Ok(Self { store, used: 0, files: heapless::Vec::new() })
    }

    /// Adds a file for the new boot partition; `label` is what people call it. Names are compared as FAT does: a second
    /// file of the same name is an error.
    pub fn add(&mut self, to: &str, label: &str, bytes: &[u8]) -> Result<(), Error> {
        let start = self.used;
        let mut written = 0;
        while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
            written += rustix::io::pwrite(&self.store, rest, start + written as u64)
                .doing("keeping", to)?;
        }
        self.used += bytes.len() as u64;
        self.push(to, label, Place::Boot, Kept::InStore(start), bytes.len() as u64)
    }

    /// Adds the backup, of so many bytes when it was counted, for the new data partition.
    #[cfg_attr(not(feature = "backup"), allow(dead_code))]
    pub fn add_backup(&mut self, length: u64) -> Result<(), Error> {
        self.push("backup.tgz", "", Place::Data, Kept::Nowhere, length)
    }

    /// The number and the counted length of the backup, if there is one.
    pub fn backup(&self) -> Option<(usize, u64)> {
        let is_backup = |(_, file): &(usize, &File)| matches!(file.kept, Kept::Nowhere);
        self.files.iter().enumerate().find(is_backup).map(|(index, file)| (index, file.length))
    }

    /// Calls `visit` with the path of each file for the boot partition that is not there as it is here, and with
    /// whether another one of that path is.
    pub fn for_each_unlike(
        &self,
        there: &Self,
        visit: &mut dyn FnMut(&str, bool),
    ) -> Result<(), Error> {
        for (index, file) in self.of_boot().enumerate() {
            let other = there.of_boot().position(|other| other.to == file.to);
            let same = match other {
                Some(other) => self.has_same_bytes(index, there, other, file.length)?,
                None => false,
            };
            if !same {
                visit(&file.to, other.is_some());
            }
        }
        Ok(())
    }

    /// Number `index` of those for the boot partition has the bytes of number `other` there.
    fn has_same_bytes(
        &self,
        index: usize,
        there: &Self,
        other: usize,
        length: u64,
    ) -> Result<bool, Error> {
        if there.of_boot().nth(other).is_none_or(|file| file.length != length) {
            return Ok(false);
        }
        let mut done = 0;
        while done < length {
            let (mut ours, mut theirs) = ([0; 512], [0; 512]);
            self.read_for_boot(index, done, &mut ours)?;
            there.read_for_boot(other, done, &mut theirs)?;
            if ours != theirs {
                return Ok(false);
            }
            done += ours.len() as u64;
        }
        Ok(true)
    }

    fn push(
        &mut self,
        to: &str,
        label: &str,
        place: Place,
        kept: Kept,
        length: u64,
    ) -> Result<(), Error> {
        let refuse = |why| Error::refused("planning the file", to, why);
        if self.files.iter().any(|file| file.place == place && file.to.eq_ignore_ascii_case(to)) {
            return Err(refuse("there are two of this name").advice("rename one of them"));
        }
        let to_kept = plan::bounded("use a shorter name", to)?;
        let file = File { to: to_kept, label: Text::from(label), place, kept, length };
        self.files
            .push(file)
            .map_err(|_| refuse("there are more than 64").advice("name those that matter: --wifi"))
    }

    /// How many there are for a partition, and their bytes.
    pub fn count(&self, place: Place) -> (usize, u64) {
        let of_place = || self.files.iter().filter(|file| file.place == place);
        (of_place().count(), of_place().map(|file| file.length).sum())
    }

    /// Those for the boot partition, in their order.
    pub fn for_boot(&self) -> impl Iterator<Item = ForBoot<'_>> {
        self.of_boot().map(|file| ForBoot { to: &file.to, length: file.length })
    }

    /// Reads from byte `offset` of number `index` of those for the boot partition; what lies behind its end stays as it
    /// is in `bytes`.
    pub fn read_for_boot(&self, index: usize, offset: u64, bytes: &mut [u8]) -> Result<(), Error> {
        let Some(file) = self.of_boot().nth(index) else {
            return Ok(());
        };
        let Kept::InStore(start) = file.kept else {
            return Ok(());
        };
        let left = file.length.saturating_sub(offset).min(bytes.len() as u64) as usize;
        let place = bytes.get_mut(..left).unwrap_or_default();
        let count = rustix::io::pread(&self.store, place, start + offset)
            .doing("reading what is kept of", &file.to)?;
        if count == left {
            return Ok(());
        }
        Err(Error::failed("reading what is kept of", &file.to, "it is shorter than it was"))
    }

    fn of_boot(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.place == Place::Boot)
    }

    /// What people call the files that have a name for them.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        let named = self.files.iter().filter(|file| !file.label.is_empty());
        named.map(|file| (&*file.label, file.to.as_str()))
    }

    /// What they take in a memory file system, in bytes.
    pub fn staged_length(&self) -> u64 {
        let page = crate::sys::map::page_size() as u64;
        self.files.iter().map(|file| file.length.next_multiple_of(page)).sum()
    }

    /// As the plan names them; those for the boot partition only when that is mounted for them.
    pub fn plan(
        &self,
        is_boot_mounted: bool,
    ) -> Result<heapless::Vec<NewFile, MAX_NEW_FILES>, Error> {
        let mut new_files = heapless::Vec::new();
        for (index, file) in self.files.iter().enumerate() {
            if file.place == Place::Boot && !is_boot_mounted {
                continue;
            }
            let from: Text<8> = crate::text!("{}", index);
            let from = plan::bounded("", &from)?;
            let file = NewFile { from, to: file.to.clone(), place: file.place };
            // As many places as files.
            let _ = new_files.push(file);
        }
        Ok(new_files)
    }

    /// Calls `visit` with the bytes of each file that is kept here, in their order.
    pub fn for_each(
        &self,
        visit: &mut dyn FnMut(Stored<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for (index, file) in self.files.iter().enumerate() {
            if let Kept::InStore(start) = file.kept {
                visit(Stored { index, source: self.store.as_fd(), start, length: file.length })?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_name_twice_is_refused_in_any_case() {
        let mut files = NewFiles::new().unwrap();
        files.add("system-connections/a", "", b"one").unwrap();
        assert!(files.add("system-connections/A", "", b"two").is_err());
        assert_eq!(files.count(Place::Boot), (1, 3));
        assert_eq!(files.count(Place::Data), (0, 0));
    }

    #[test]
    fn what_has_changed_since_is_told() {
        let set = |files: &[(&str, &[u8])]| {
            let mut set = NewFiles::new().unwrap();
            for (name, bytes) in files {
                set.add(name, "", bytes).unwrap();
            }
            set
        };
        let unlike = |a: &NewFiles, b: &NewFiles| {
            let mut names = Vec::new();
            a.for_each_unlike(b, &mut |name, other| names.push(format!("{name} {other}"))).unwrap();
            names
        };
        let long = [7; 1200];
        let mut changed = long;
        changed[1100] = 8;
        let before = set(&[("a", b"1"), ("b", &long), ("c", b"")]);
        assert!(unlike(&before, &set(&[("c", b""), ("b", &long), ("a", b"1")])).is_empty());
        let after = set(&[("a", b"12"), ("b", &changed), ("d", b"")]);
        assert_eq!(unlike(&before, &after), ["a true", "b true", "c false"]);
        assert_eq!(unlike(&after, &before), ["a true", "b true", "d false"]);
        assert_eq!(before.backup(), None);
        let mut with_backup = set(&[("a", b"1")]);
        with_backup.add_backup(900).unwrap();
        assert_eq!(with_backup.backup(), Some((1, 900)));
        assert!(unlike(&with_backup, &before).is_empty());
    }

    #[test]
    fn more_than_there_is_room_for_is_refused_not_left_out() {
        let mut files = NewFiles::new().unwrap();
        for index in 0..MAX_NEW_FILES {
            files.add(&index.to_string(), "", b"x").unwrap();
        }
        assert!(files.add("one more", "", b"x").is_err());
        assert_eq!(files.plan(true).unwrap().len(), MAX_NEW_FILES);
    }
}
