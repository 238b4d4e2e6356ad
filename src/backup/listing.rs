//! The names of a directory in the order of their bytes, in bounded memory.
//!
//! The kernel gives names in an order of its own, and a directory may hold any number. So the smallest names that fit
//! are kept; when they are used up the directory is read again for those that follow. A directory that fits is read
//! once; one of 100,000 names about sixty times, which is a few seconds.

use core::mem::MaybeUninit;
use rustix::fd::OwnedFd;
use rustix::fs::{RawDir, SeekFrom};
use rustix::io::Errno;

/// The longest name of a file: NAME_MAX of limits.h.
pub const LONGEST_NAME: usize = 255;

/// The least memory that a listing works in, in bytes: two names of any length must fit.
pub const LEAST: usize = 1024;

#[derive(Clone, Copy)]
struct Place {
    offset: u16,
    length: u16,
}

/// A directory's names, smallest first.
pub struct Listing {
    names: Vec<u8>,
    places: Vec<Place>,
    /// How many of the places were given out.
    used: usize,
    /// True when the directory has more names than these.
    more: bool,
}

/// A name that was copied out.
pub type Name = heapless::Vec<u8, LONGEST_NAME>;

impl Listing {
    /// An empty listing that never takes more than `memory` bytes, [`LEAST`] to 128 KiB.
    pub fn new(memory: usize) -> Result<Self, Errno> {
        // Two bytes of name for one of place suits the usual lengths.
        let bytes = (memory / 3 * 2).min(usize::from(u16::MAX));
        let mut names = Vec::new();
        let mut places = Vec::new();
        names.try_reserve_exact(bytes.max(2 * LONGEST_NAME)).map_err(|_| Errno::NOMEM)?;
        places.try_reserve_exact(memory / 3 / size_of::<Place>()).map_err(|_| Errno::NOMEM)?;
        Ok(Self { names, places, used: 0, more: true })
    }

    /// Gives back what the names that are held do not need, while the directory lies open above another; gives the
    /// bytes that are kept. A directory that must be read again keeps all.
    pub fn shrink(&mut self) -> usize {
        if !self.more {
            self.names.shrink_to_fit();
            self.places.shrink_to_fit();
        }
        self.names.capacity() + self.places.capacity() * size_of::<Place>()
    }

    /// The name that follows, or None at the end. The directory's own position is changed.
    pub fn next(&mut self, directory: &OwnedFd) -> Result<Option<Name>, Errno> {
        if self.used == self.places.len() {
            if !self.more {
                return Ok(None);
            }
            let last = self.places.last().map(|place| copy(self.name(*place)));
            self.fill(directory, last.unwrap_or_default())?;
        }
        let name = self.places.get(self.used).map(|place| copy(self.name(*place)));
        self.used += usize::from(name.is_some());
        Ok(name)
    }

    fn name(&self, place: Place) -> &[u8] {
        let start = usize::from(place.offset);
        self.names.get(start..start + usize::from(place.length)).unwrap_or_default()
    }

    /// Reads the smallest names that come after `last`.
    fn fill(&mut self, directory: &OwnedFd, last: Name) -> Result<(), Errno> {
        self.names.clear();
        self.places.clear();
        self.used = 0;
        // The smallest name that did not fit: what is not smaller waits for the next time.
        let mut bound: Option<Name> = None;
        rustix::fs::seek(directory, SeekFrom::Start(0))?;
        let mut buffer = [MaybeUninit::uninit(); 8192];
        let mut entries = RawDir::new(directory, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            let is_wanted = |bound: &Option<Name>| {
                name > last.as_slice() && bound.as_ref().is_none_or(|bound| name < bound.as_slice())
            };
            if matches!(name, b"." | b"..") || !is_wanted(&bound) {
                continue;
            }
            if name.len() > LONGEST_NAME {
                return Err(Errno::NAMETOOLONG);
            }
            if !self.fits(name) {
                bound = Some(self.drop_larger_half());
                if !is_wanted(&bound) {
                    continue;
                }
            }
            let place = Place { offset: self.names.len() as u16, length: name.len() as u16 };
            self.names.extend_from_slice(name);
            self.places.push(place);
        }
        self.sort();
        self.more = bound.is_some();
        Ok(())
    }

    fn fits(&self, name: &[u8]) -> bool {
        self.places.len() < self.places.capacity()
            && name.len() <= self.names.capacity() - self.names.len()
    }

    fn sort(&mut self) {
        let names = core::mem::take(&mut self.names);
        self.places.sort_unstable_by_key(|place| {
            let start = usize::from(place.offset);
            names.get(start..start + usize::from(place.length)).unwrap_or_default()
        });
        self.names = names;
    }

    /// Makes room, and gives the smallest name that was dropped.
    fn drop_larger_half(&mut self) -> Name {
        self.sort();
        let kept = self.places.len() / 2;
        let bound = self.places.get(kept).map(|place| copy(self.name(*place)));
        self.places.truncate(kept);
        // In the order in which they lie, so that moving down never overwrites one that is still to be moved.
        self.places.sort_unstable_by_key(|place| place.offset);
        let mut end = 0;
        for place in &mut self.places {
            let start = usize::from(place.offset);
            let length = usize::from(place.length);
            self.names.copy_within(start..start + length, end);
            place.offset = end as u16;
            end += length;
        }
        self.names.truncate(end);
        bound.unwrap_or_default()
    }
}

fn copy(name: &[u8]) -> Name {
    // Longer ones were refused before they were kept.
    Name::from_slice(name).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files;
    use rustix::fs::OFlags;

    fn list(path: &std::path::Path, memory: usize) -> Vec<String> {
        let directory =
            files::open(path.to_str().unwrap(), OFlags::RDONLY | OFlags::DIRECTORY).unwrap();
        let mut listing = Listing::new(memory).unwrap();
        let capacity = (listing.names.capacity(), listing.places.capacity());
        let mut names = Vec::new();
        while let Some(name) = listing.next(&directory).unwrap() {
            names.push(String::from_utf8(name.to_vec()).unwrap());
        }
        assert_eq!(capacity, (listing.names.capacity(), listing.places.capacity()), "it has grown");
        names
    }

    #[test]
    fn names_come_in_order_whatever_the_memory() {
        let path = std::env::temp_dir().join(format!("takeover-listing-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        let mut expected: Vec<String> = (0..5000u32)
            .map(|i| format!("{:x}-{}", i.wrapping_mul(2_654_435_761), "x".repeat(i as usize % 23)))
            .collect();
        expected.push("y".repeat(LONGEST_NAME));
        expected.push("z".repeat(LONGEST_NAME));
        expected.push(".hidden".into());
        for name in &expected {
            std::fs::write(path.join(name), b"").unwrap();
        }
        expected.sort();
        for memory in [LEAST, 10_000, 128 * 1024] {
            assert!(list(&path, memory) == expected, "with {memory} bytes");
        }
        std::fs::remove_dir_all(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(list(&path, LEAST).is_empty());
        std::fs::remove_dir(&path).unwrap();
    }
    #[test]
    fn a_listing_keeps_only_what_it_needs_unless_it_must_be_read_again() {
        let path = std::env::temp_dir().join(format!("takeover-shrink-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        let expected: Vec<String> = (0..100).map(|index| format!("{index:03}")).collect();
        for name in &expected {
            std::fs::write(path.join(name), b"").unwrap();
        }
        let directory =
            files::open(path.to_str().unwrap(), OFlags::RDONLY | OFlags::DIRECTORY).unwrap();
        // 300 bytes of names and 400 of places; the smaller one holds less than half of them.
        for (memory, most) in [(64 * 1024, 700), (LEAST, LEAST)] {
            let mut listing = Listing::new(memory).unwrap();
            for (index, name) in expected.iter().enumerate() {
                assert_eq!(listing.next(&directory).unwrap().unwrap(), name.as_bytes());
                if index == 0 {
                    let kept = listing.shrink();
                    assert!(kept <= most && kept * 10 >= most * 9, "{kept} of {memory} bytes");
                }
            }
            assert!(listing.next(&directory).unwrap().is_none());
        }
        std::fs::remove_dir_all(&path).unwrap();
    }
}
