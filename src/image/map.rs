//! The chunk map: the CRC-32 of each chunk and whether it is all zeros, as the scan found them.
//!
//! Kept in a file (in memory) and not in an array, so that no process grows with the image: eight bytes a chunk, the
//! CRC and then flags, little-endian.

use super::decode::Filled;
use crate::crc32;
use crate::error::{Doing, Error};
use crate::files;
use rustix::fd::OwnedFd;
use rustix::fs::OFlags;

/// Bytes per chunk in the file.
pub const RECORD: u64 = 8;

const ZERO: u32 = 1;

/// What the scan found for one chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    /// The chunk's CRC-32.
    pub crc: u32,
    /// True when all its bytes are zero.
    pub zero: bool,
}

impl Record {
    /// Of a chunk that was decoded.
    pub fn of(filled: Filled) -> Self {
        Self { crc: filled.crc, zero: filled.zero }
    }
}

/// The map of an image.
pub struct ChunkMap {
    file: OwnedFd,
}

impl ChunkMap {
    /// A new map in anonymous memory (memfd_create(2)).
    pub fn create() -> Result<Self, Error> {
        let file = files::in_memory(c"chunk-map").doing("making", "the chunk map")?;
        Ok(Self { file })
    }

    /// A copy of the first `chunks` records.
    pub fn copy(&self, chunks: u32) -> Result<Self, Error> {
        let copy = Self::create()?;
        for index in 0..chunks {
            copy.set(index, self.get(index)?)?;
        }
        Ok(copy)
    }

    /// Opens a map that was stored.
    pub fn open(path: &str) -> Result<Self, Error> {
        let file = files::opened(path, OFlags::RDONLY)?;
        Ok(Self { file })
    }

    /// Writes the record of chunk `index`.
    pub fn set(&self, index: u32, record: Record) -> Result<(), Error> {
        let [a, b, c, d] = record.crc.to_le_bytes();
        let [e, f, g, h] = u32::from(record.zero).to_le_bytes();
        let offset = u64::from(index) * RECORD;
        rustix::io::pwrite(&self.file, &[a, b, c, d, e, f, g, h], offset)
            .doing("writing", "the chunk map")?;
        Ok(())
    }

    /// Reads the record of chunk `index`.
    pub fn get(&self, index: u32) -> Result<Record, Error> {
        let mut bytes = [0; RECORD as usize];
        let count = rustix::io::pread(&self.file, &mut bytes, u64::from(index) * RECORD)
            .doing("reading", "the chunk map")?;
        if count != bytes.len() {
            return Err(Error::failed("reading", "the chunk map", "it is too short"));
        }
        let [a, b, c, d, e, f, g, h] = bytes;
        Ok(Record {
            crc: u32::from_le_bytes([a, b, c, d]),
            zero: u32::from_le_bytes([e, f, g, h]) & ZERO != 0,
        })
    }

    /// Chunk `index` must be what the scan found; if not, the file has changed since, or was read wrongly.
    pub fn check(&self, index: u32, found: Record) -> Result<(), Error> {
        if self.get(index)? == found {
            return Ok(());
        }
        let object: crate::text::Text<40> = crate::text!("chunk {} of the image", index);
        Err(Error::failed("decoding", &object, "it differs from what was scanned")
            .advice("the file was changed meanwhile, or its medium or the memory is bad"))
    }

    /// The CRC-32 of the first `chunks` records, by which a stored map is proven.
    pub fn crc(&self, chunks: u32) -> Result<u32, Error> {
        let mut crc = 0;
        let mut at = 0;
        let end = u64::from(chunks) * RECORD;
        let mut buffer = [0; 4096];
        while at < end {
            let wanted = (end - at).min(buffer.len() as u64) as usize;
            let piece = buffer.get_mut(..wanted).unwrap_or_default();
            let count =
                rustix::io::pread(&self.file, &mut *piece, at).doing("reading", "the chunk map")?;
            if count == 0 {
                return Err(Error::failed("reading", "the chunk map", "it is too short"));
            }
            crc = crc32::extend(crc, piece.get(..count).unwrap_or_default());
            at += count as u64;
        }
        Ok(crc)
    }

    /// The open file.
    pub fn descriptor(&self) -> &OwnedFd {
        &self.file
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_and_change_the_crc() {
        let map = ChunkMap::create().unwrap();
        for index in 0..1000 {
            let record = Record { crc: index * 7, zero: index % 3 == 0 };
            map.set(index, record).unwrap();
        }
        assert_eq!(map.get(999).unwrap(), Record { crc: 6993, zero: true });
        let crc = map.crc(1000).unwrap();
        map.set(500, Record { crc: 1, zero: false }).unwrap();
        assert_ne!(map.crc(1000).unwrap(), crc);
        let copy = map.copy(1000).unwrap();
        assert_eq!(copy.crc(1000).unwrap(), map.crc(1000).unwrap());
        copy.set(0, Record { crc: 1, zero: true }).unwrap();
        assert_eq!(map.get(0).unwrap().crc, 0, "the copy is the map itself");
        assert!(map.get(1000).is_err());
        assert!(map.crc(1001).is_err());
    }
}
