//! The variables of the firmware, as efivarfs shows them: files of NAME-VENDOR, each four bytes of attributes and the
//! value (Documentation/filesystems/efivarfs.rst in Linux).
//!
//! One write(2) is one SetVariable, so a value is written in one piece. What is written is read back.

use super::change::{self, name_of};
use super::load_option;
use crate::error::{Doing, Error};
use crate::files;
use crate::text::PathText;
use core::ops::ControlFlow;
use rustix::fs::{IFlags, OFlags};
use rustix::io::Errno;

/// Where a system has them mounted.
pub const FOLDER: &str = "/sys/firmware/efi/efivars";
/// The vendor of the variables that the UEFI specification defines (section 3.3).
pub const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// How much of an entry is looked at, in bytes. Description and device path stand in front; behind them there may be
/// kilobytes of data.
pub const LOOKED_AT: usize = 2048;
/// Attributes of what the firmware starts by (section 3.3): kept without power, there before and after the start of an
/// operating system.
const ATTRIBUTES: [u8; ATTRIBUTES_LENGTH] = [7, 0, 0, 0];
const ATTRIBUTES_LENGTH: usize = 4;
/// The longest value that is written, in bytes.
const LONGEST: usize = change::LONGEST_ORDER;

const _: () = assert!(load_option::LONGEST <= LONGEST);

/// The variables below a folder.
pub struct Variables<'a> {
    /// The folder: efivarfs, mounted somewhere.
    pub folder: &'a str,
}

impl Variables<'_> {
    fn path(&self, name: &str) -> Result<PathText, Error> {
        crate::path!("{}/{}-{}", self.folder, name, GLOBAL)
    }

    /// The beginning of the entry with this number, up to [`LOOKED_AT`] bytes; nothing when there is none.
    pub fn entry<'a>(
        &self,
        number: u16,
        buffer: &'a mut [u8; ATTRIBUTES_LENGTH + LOOKED_AT],
    ) -> Result<Option<&'a [u8]>, Error> {
        value(&self.path(&name_of(number))?, buffer)
    }

    /// The value of a variable, whole; nothing when there is none. One that does not fit in the buffer, behind its
    /// attributes, is an error.
    pub fn read<'a>(&self, name: &str, buffer: &'a mut [u8]) -> Result<Option<&'a [u8]>, Error> {
        let length = buffer.len();
        let value = value(&self.path(name)?, buffer)?;
        if value.is_some_and(|value| value.len() + ATTRIBUTES_LENGTH == length) {
            return Err(Error::os("reading the EFI variable", name, Errno::FBIG));
        }
        Ok(value)
    }

    /// Writes a variable, and reads it back. What a failed try to make a new one leaves is removed.
    pub fn write(&self, name: &str, new: &[u8]) -> Result<(), Error> {
        let path = self.path(name)?;
        let is_new = !files::exists(&path);
        let result = self.write_and_compare(name, &path, new);
        if result.is_err() && is_new {
            // An empty file of a variable that does not exist.
            let _ = files::remove(&path);
        }
        result
    }

    fn write_and_compare(&self, name: &str, path: &str, new: &[u8]) -> Result<(), Error> {
        let mut bytes = heapless::Vec::<u8, { ATTRIBUTES_LENGTH + LONGEST }>::new();
        let whole =
            bytes.extend_from_slice(&ATTRIBUTES).and_then(|()| bytes.extend_from_slice(new));
        whole.map_err(|_| Error::os("writing the EFI variable", name, Errno::FBIG))?;
        make_mutable(path);
        let mut flags = OFlags::WRONLY | OFlags::CREATE;
        if cfg!(test) {
            // A plain file would keep the rest of a longer one; a variable is replaced.
            flags |= OFlags::TRUNC;
        }
        files::open(path, flags)
            .and_then(|file| files::write_all(file, &bytes))
            .doing("writing the EFI variable", name)?;
        let mut buffer = [0; ATTRIBUTES_LENGTH + LONGEST + 1];
        if self.read(name, &mut buffer)? == Some(new) {
            return Ok(());
        }
        let why = "it differs from what was written";
        Err(Error::failed("reading back the EFI variable", name, why))
    }

    /// Removes a variable.
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        let path = self.path(name)?;
        make_mutable(&path);
        files::remove(&path).doing("removing the EFI variable", name)
    }

    /// The smallest number that no entry has.
    pub fn free_number(&self) -> Result<u16, Error> {
        for number in 0..=u16::MAX {
            if !files::exists(&self.path(&name_of(number))?) {
                return Ok(number);
            }
        }
        Err(Error::failed("looking for", "a number for a boot entry", "none is free"))
    }

    /// Calls `visit` with the number of each entry, until it breaks.
    pub fn for_each_entry(
        &self,
        visit: &mut dyn FnMut(u16) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let take = &mut |file: &str| match number_in(file) {
            Some(number) => visit(number),
            None => ControlFlow::Continue(()),
        };
        files::for_each_entry(self.folder, take).doing("listing", self.folder)
    }
}

/// The number in the name of an entry's file; nothing when it is none.
fn number_in(file: &str) -> Option<u16> {
    let (name, vendor) = file.split_once('-')?;
    let number = u16::from_str_radix(name.strip_prefix("Boot")?, 16).ok()?;
    (vendor == GLOBAL && *name_of(number) == *name).then_some(number)
}

fn value<'a>(path: &str, buffer: &'a mut [u8]) -> Result<Option<&'a [u8]>, Error> {
    match files::read_start(path, buffer) {
        Err(Errno::NOENT) => Ok(None),
        result => Ok(result.doing("reading", path)?.get(ATTRIBUTES_LENGTH..)),
    }
}

/// Takes the immutable flag from a file, which efivarfs gives to variables that it does not know, and anybody may give
/// (chattr(1)). Where that fails, what follows tells why.
fn make_mutable(path: &str) {
    let Ok(file) = files::open(path, OFlags::RDONLY) else {
        return;
    };
    if let Ok(flags) = rustix::fs::ioctl_getflags(&file)
        && flags.contains(IFlags::IMMUTABLE)
    {
        let _ = rustix::fs::ioctl_setflags(&file, flags - IFlags::IMMUTABLE);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A folder in place of efivarfs, removed when done.
    pub struct Folder(pub std::path::PathBuf);

    impl Folder {
        pub fn new() -> Self {
            static NUMBER: core::sync::atomic::AtomicU32 = core::sync::atomic::AtomicU32::new(0);
            let number = NUMBER.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
            let name = format!("takeover-variables-{}-{number}", std::process::id());
            let folder = Folder(std::env::temp_dir().join(name));
            std::fs::create_dir_all(&folder.0).unwrap();
            folder
        }

        pub fn path(&self) -> &str {
            self.0.to_str().unwrap()
        }

        pub fn put(&self, name: &str, value: &[u8]) {
            let bytes = [&ATTRIBUTES, value].concat();
            std::fs::write(self.0.join(format!("{name}-{GLOBAL}")), bytes).unwrap();
        }

        /// Every variable by its name, without attributes.
        pub fn all(&self) -> std::collections::BTreeMap<String, Vec<u8>> {
            let entries = std::fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap());
            entries
                .map(|entry| {
                    let bytes = std::fs::read(entry.path()).unwrap();
                    assert_eq!(bytes[..4], ATTRIBUTES);
                    let name = entry.file_name().into_string().unwrap();
                    (name.split('-').next().unwrap().to_string(), bytes[4..].to_vec())
                })
                .collect()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = Folder::new();
        let variables = Variables { folder: folder.path() };
        let mut buffer = [0; 64];
        assert_eq!(variables.read("BootOrder", &mut buffer).unwrap(), None);
        for value in [&[1, 2, 3, 4][..], &[5, 6]] {
            variables.write("BootOrder", value).unwrap();
            assert_eq!(variables.read("BootOrder", &mut buffer).unwrap(), Some(value));
        }
        variables.remove("BootOrder").unwrap();
        assert!(variables.remove("BootOrder").is_err());
        assert!(folder.all().is_empty());
    }

    #[test]
    fn what_is_too_long_is_an_error_and_leaves_nothing() {
        let folder = Folder::new();
        let variables = Variables { folder: folder.path() };
        assert!(variables.write("BootOrder", &[0; LONGEST + 1]).is_err());
        variables.write("BootOrder", &[1; LONGEST]).unwrap();
        let mut buffer = [0; LONGEST + 4];
        assert!(variables.read("BootOrder", &mut buffer).is_err(), "it may be longer");
        let nowhere = Variables { folder: "/nowhere" };
        assert!(nowhere.write("BootOrder", &[1]).is_err() && nowhere.remove("BootNext").is_err());
        // A value that cannot be what was written.
        std::os::unix::fs::symlink("/dev/zero", folder.0.join(format!("Boot0000-{GLOBAL}")))
            .unwrap();
        let error = variables.write("Boot0000", b"x").unwrap_err();
        let text: crate::text::Text<200> = crate::text!("{}", error);
        assert!(text.contains("file too large"), "{}", &*text);
    }

    #[test]
    fn only_entries_of_the_specification_are_listed() {
        let folder = Folder::new();
        for name in [
            "Boot0003",
            "Boot00AF",
            "Boot00af",
            "Boot003",
            "BootOrder",
            "Boot00003",
            "xBoot0001",
            "Boot+001",
        ] {
            folder.put(name, b"x");
        }
        std::fs::write(folder.0.join("Boot0004-01234567-93ca-11d2-aa0d-00e098032b8c"), "x")
            .unwrap();
        let variables = Variables { folder: folder.path() };
        let mut numbers = Vec::new();
        variables
            .for_each_entry(&mut |number| {
                numbers.push(number);
                ControlFlow::Continue(())
            })
            .unwrap();
        numbers.sort();
        assert_eq!(numbers, [3, 0xaf]);
        for (taken, free) in [("Boot0000", 1), ("Boot0001", 2), ("Boot0002", 4)] {
            folder.put(taken, b"x");
            assert_eq!(variables.free_number().unwrap(), free);
        }
    }
}
