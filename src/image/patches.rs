//! Patches: sectors of the image that are replaced before anything sees them.
//!
//! The files of the new OS reach its boot partition that way: who reads the image (scan, flash, repair, read-back)
//! reads image and patches as one, and nothing is mounted. Kept in a file (in memory), in the order of their sectors:
//! the sector's number in 64 bits, little-endian, and its 512 bytes.

use super::CHUNK;
use crate::crc32;
use crate::disk::table::SECTOR;
use crate::error::{Doing, Error};
use crate::files;
use rustix::fd::OwnedFd;
use rustix::fs::OFlags;

/// Bytes of a sector's number in the file.
const NUMBER: usize = 8;
/// Bytes per patch in the file.
pub const RECORD: usize = NUMBER + SECTOR as usize;

/// The patches of an image.
pub struct Patches {
    /// None where the image is taken as it is.
    file: Option<OwnedFd>,
    count: u32,
    /// The sector of the last one.
    last: u64,
}

impl Patches {
    /// The image as it is.
    pub const fn none() -> Self {
        Self { file: None, count: 0, last: 0 }
    }

    /// No patches yet, in anonymous memory (memfd_create(2)).
    pub fn create() -> Result<Self, Error> {
        let file = files::in_memory(c"patches").doing("making", "the patches of the image")?;
        Ok(Self { file: Some(file), count: 0, last: 0 })
    }

    /// Opens patches that were stored; there are `count` of them.
    pub fn open(path: &str, count: u32) -> Result<Self, Error> {
        if count == 0 {
            return Ok(Self::none());
        }
        let file = files::opened(path, OFlags::RDONLY)?;
        let mut patches = Self { file: Some(file), count, last: 0 };
        patches.last = patches.sector(count - 1)?;
        Ok(patches)
    }

    /// Adds a sector, behind all that were added.
    pub fn push(&mut self, sector: u64, bytes: &[u8; SECTOR as usize]) -> Result<(), Error> {
        let Some(file) = self.file.as_ref().filter(|_| self.count == 0 || sector > self.last)
        else {
            return Err(Error::failed("patching", "the image", "its sectors are out of order"));
        };
        let mut record = [0; RECORD];
        let (number, content) = record.split_at_mut(NUMBER);
        number.copy_from_slice(&sector.to_le_bytes());
        content.copy_from_slice(bytes);
        files::write_all(file, &record).doing("keeping", "the patches of the image")?;
        (self.count, self.last) = (self.count + 1, sector);
        Ok(())
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Where the last one ends on the disk, in bytes; 0 when there is none.
    pub fn end(&self) -> u64 {
        if self.count == 0 { 0 } else { (self.last + 1) * SECTOR }
    }

    /// What they take in a file, in bytes.
    pub fn length(&self) -> u64 {
        u64::from(self.count) * RECORD as u64
    }

    /// The file, unless the image is taken as it is.
    pub fn descriptor(&self) -> Option<&OwnedFd> {
        self.file.as_ref()
    }

    /// The CRC-32 of them all, by which a stored copy is proven.
    pub fn crc(&self) -> Result<u32, Error> {
        let mut crc = 0;
        let mut record = [0; RECORD];
        for index in 0..self.count {
            self.read(index, 0, &mut record)?;
            crc = crc32::extend(crc, &record);
        }
        Ok(crc)
    }

    /// True when there is a patch at or behind `next` in the chunk that begins at byte `start`.
    pub fn meets(&self, next: u32, start: u64) -> Result<bool, Error> {
        Ok(next < self.count && self.sector(next)? * SECTOR < start + CHUNK as u64)
    }

    /// Lays the patches from `next` on over a chunk that begins at byte `start` of the disk, as far as they lie in it.
    /// Gives the number of the first that lies behind.
    pub fn lay_over(&self, mut next: u32, start: u64, chunk: &mut [u8]) -> Result<u32, Error> {
        while next < self.count {
            let at = usize::try_from((self.sector(next)? * SECTOR).wrapping_sub(start)).ok();
            let rest = at.and_then(|at| chunk.get_mut(at..));
            let Some(place) = rest.and_then(|rest| rest.get_mut(..SECTOR as usize)) else {
                break;
            };
            self.read(next, NUMBER, place)?;
            next += 1;
        }
        Ok(next)
    }

    /// The sector of patch `index`.
    fn sector(&self, index: u32) -> Result<u64, Error> {
        let mut number = [0; NUMBER];
        self.read(index, 0, &mut number)?;
        Ok(u64::from_le_bytes(number))
    }

    /// Reads a part of a record, from its byte `at` on.
    fn read(&self, index: u32, at: usize, bytes: &mut [u8]) -> Result<(), Error> {
        const DOING: &str = "reading";
        const WHAT: &str = "the patches of the image";
        let short = || Error::failed(DOING, WHAT, "there are fewer than there were");
        let file = self.file.as_ref().ok_or_else(short)?;
        let offset = u64::from(index) * RECORD as u64 + at as u64;
        let wanted = bytes.len();
        let count = rustix::io::pread(file, bytes, offset).doing(DOING, WHAT)?;
        if count == wanted { Ok(()) } else { Err(short()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Patches {
        let mut patches = Patches::create().unwrap();
        for sector in [1, 2047, 2048] {
            patches.push(sector, &[sector as u8; 512]).unwrap();
        }
        patches
    }

    #[test]
    fn a_chunk_gets_the_sectors_that_lie_in_it() {
        let patches = three();
        let mut chunk = vec![9; CHUNK];
        assert!(patches.meets(0, 0).unwrap() && patches.meets(2, CHUNK as u64).unwrap());
        assert!(!patches.meets(2, 0).unwrap() && !patches.meets(3, CHUNK as u64).unwrap());
        assert_eq!(patches.lay_over(0, 0, &mut chunk).unwrap(), 2);
        assert!(chunk[..512].iter().all(|byte| *byte == 9));
        assert_eq!(chunk[512..1024], [1; 512]);
        assert!(chunk[1024..CHUNK - 512].iter().all(|byte| *byte == 9));
        assert_eq!(chunk[CHUNK - 512..], [2047u16 as u8; 512]);
        let mut chunk = vec![9; 700];
        assert_eq!(patches.lay_over(2, CHUNK as u64, &mut chunk).unwrap(), 3);
        assert_eq!(chunk[..512], [0; 512]);
        assert_eq!(chunk[512..], [9; 188]);
        assert_eq!(patches.lay_over(3, CHUNK as u64, &mut chunk).unwrap(), 3);
    }

    #[test]
    fn they_are_in_order_and_come_back_from_a_file() {
        let mut patches = three();
        assert!(patches.push(2048, &[0; 512]).is_err() && patches.push(5, &[0; 512]).is_err());
        assert_eq!((patches.count(), patches.end()), (3, 2049 * 512));
        let path = std::env::temp_dir().join(format!("takeover-patches-{}", std::process::id()));
        let mut bytes = vec![0; patches.length() as usize];
        rustix::io::pread(patches.descriptor().unwrap(), &mut bytes, 0).unwrap();
        std::fs::write(&path, &bytes).unwrap();
        let stored = Patches::open(path.to_str().unwrap(), 3).unwrap();
        assert_eq!(stored.crc().unwrap(), patches.crc().unwrap());
        assert_eq!(stored.end(), patches.end());
        bytes[600] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_ne!(stored.crc().unwrap(), patches.crc().unwrap());
        assert!(Patches::open(path.to_str().unwrap(), 4).is_err());
        std::fs::remove_file(&path).unwrap();
        assert_eq!(Patches::open("/nowhere", 0).unwrap().count(), 0);
        assert!(Patches::none().push(1, &[0; 512]).is_err());
    }
}
