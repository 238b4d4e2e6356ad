//! The files that the new OS gets, gathered while the old one can still be asked: config.json, network settings, the
//! backup.
//!
//! Their bytes are kept in memory of our own, which is locked: they hold keys, and nothing of them may get into swap.
//! Of the backup only its length is known until it is made. Nothing here knows what is in them.

use crate::error::{Doing, Error};
use crate::plan::{self, MAX_NEW_FILES, NewFile, Place};
use crate::sys::map;
use crate::text::Text;

/// The files, in the order in which they were added.
pub struct NewFiles {
    files: heapless::Vec<File, MAX_NEW_FILES>,
}

/// A file for the new boot partition.
pub struct ForBoot<'a> {
    /// Its path there.
    pub to: &'a str,
    /// Its length in bytes.
    pub length: u64,
}

struct File {
    to: heapless::String<128>,
    label: Text<64>,
    place: Place,
    kept: Kept,
    length: u64,
}

impl File {
    /// Its bytes, as far as they are known.
    fn bytes(&self) -> &[u8] {
        match self.kept {
            Kept::Bytes(bytes) => bytes,
            Kept::Nowhere => &[],
        }
    }
}

enum Kept {
    /// These bytes, mapped for ever.
    Bytes(&'static [u8]),
    /// Not yet: the backup is made when all else is prepared.
    #[cfg_attr(not(feature = "backup"), allow(dead_code))]
    Nowhere,
}

impl Default for NewFiles {
    fn default() -> Self {
        Self::new()
    }
}

impl NewFiles {
    /// None yet.
    pub const fn new() -> Self {
        Self { files: heapless::Vec::new() }
    }

    /// Adds a file for the new boot partition; `label` is what people call it. Names are compared as FAT does: a second
    /// file of the same name is an error.
    pub fn add(&mut self, to: &str, label: &str, bytes: &[u8]) -> Result<(), Error> {
        let kept: &'static mut [u8] = if bytes.is_empty() {
            &mut []
        } else {
            map::buffer(bytes.len()).doing("reserving memory for", to)?
        };
        kept.copy_from_slice(bytes);
        self.push(to, label, Place::Boot, Kept::Bytes(kept), bytes.len() as u64)
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
    pub fn for_each_unlike(&self, there: &Self, visit: &mut dyn FnMut(&str, bool)) {
        for file in self.of_boot() {
            let other = there.of_boot().find(|other| other.to == file.to);
            if other.map(File::bytes) != Some(file.bytes()) {
                visit(&file.to, other.is_some());
            }
        }
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

    /// Logs which files the new boot partition gets.
    pub fn log(&self) {
        for file in self.of_boot() {
            crate::info!("put into the image: /{}", file.to.as_str());
        }
    }

    /// Fills `bytes` from byte `offset` of number `index` of those for the boot partition; what lies behind its end
    /// stays as it is.
    pub fn read_for_boot(&self, index: usize, offset: u64, bytes: &mut [u8]) {
        if let Some(Kept::Bytes(kept)) = self.of_boot().nth(index).map(|file| &file.kept) {
            let rest = kept.get(offset as usize..).unwrap_or_default();
            for (to, from) in bytes.iter_mut().zip(rest) {
                *to = *from;
            }
        }
    }

    fn of_boot(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.place == Place::Boot)
    }

    /// The bytes of config.json; empty for none.
    pub fn config(&self) -> &[u8] {
        let mut files = self.of_boot();
        files.find(|file| file.to == "config.json").map(File::bytes).unwrap_or_default()
    }

    /// The bytes of each keyfile.
    pub fn connections(&self) -> impl Iterator<Item = &[u8]> {
        self.named_connections().map(|(_, bytes)| bytes)
    }

    /// The path and the bytes of each keyfile.
    pub fn named_connections(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let is_connection = |file: &&File| file.to.starts_with("system-connections/");
        self.of_boot().filter(is_connection).map(|file| (file.to.as_str(), file.bytes()))
    }

    /// What people call the files that have a name for them.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        let named = self.files.iter().filter(|file| !file.label.is_empty());
        named.map(|file| (&*file.label, file.to.as_str()))
    }

    /// What those that stage 2 places take in a memory file system, in bytes.
    pub fn staged_length(&self, is_boot_mounted: bool) -> u64 {
        let page = map::page_size() as u64;
        let staged = self.files.iter().filter(|file| is_boot_mounted || file.place == Place::Data);
        staged.map(|file| file.length.next_multiple_of(page)).sum()
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

    /// The number and the bytes of each file that stage 2 places, but for the backup; those for the boot partition only
    /// when that is mounted for them.
    pub fn placed(&self, is_boot_mounted: bool) -> impl Iterator<Item = (usize, &[u8])> {
        self.files.iter().enumerate().filter_map(move |(index, file)| match file.kept {
            Kept::Bytes(bytes) if is_boot_mounted => Some((index, bytes)),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_name_twice_is_refused_in_any_case() {
        let mut files = NewFiles::new();
        files.add("system-connections/a", "", b"one").unwrap();
        assert!(files.add("system-connections/A", "", b"two").is_err());
        assert_eq!(files.count(Place::Boot), (1, 3));
        assert_eq!(files.count(Place::Data), (0, 0));
    }

    #[test]
    fn what_has_changed_since_is_told() {
        let set = |files: &[(&str, &[u8])]| {
            let mut set = NewFiles::new();
            for (name, bytes) in files {
                set.add(name, "", bytes).unwrap();
            }
            set
        };
        let unlike = |a: &NewFiles, b: &NewFiles| {
            let mut names = Vec::new();
            a.for_each_unlike(b, &mut |name, other| names.push(format!("{name} {other}")));
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
        let mut files = NewFiles::new();
        for index in 0..MAX_NEW_FILES {
            files.add(&index.to_string(), "", b"x").unwrap();
        }
        assert!(files.add("one more", "", b"x").is_err());
        assert_eq!(files.plan(true).unwrap().len(), MAX_NEW_FILES);
    }
}
