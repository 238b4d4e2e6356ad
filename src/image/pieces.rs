//! The list of pieces: where on a disk the packed image waits, when it waits there and not in memory.
//!
//! Kept in a file in memory, as the chunk map is, so that no process grows with the number of pieces: 24 bytes a piece,
//! in the order of the packed image, with nothing left out between them.

use crate::crc32;
use crate::error::{Doing, Error};
use crate::files;
use rustix::fd::OwnedFd;
use rustix::fs::OFlags;

/// Bytes per piece in the file.
pub const RECORD: u64 = 24;

/// The longest piece that lies on a disk, in bytes: it is read whole, so that its CRC is known before it is used.
pub const LONGEST: u64 = 248 * 1024;

/// What a piece that is divided is divided at, in bytes: the longest logical block of a disk.
pub const ALIGNED: u64 = 4096;

/// Stands for the place of zeros.
const ZEROS: u64 = u64::MAX;

/// A piece of the packed image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// The byte of the disk that it begins at; nothing for zeros, which lie nowhere.
    pub place: Option<u64>,
    /// Its length in bytes.
    pub length: u64,
    /// The CRC-32 of its bytes.
    pub crc: u32,
}

impl Piece {
    fn to_bytes(self) -> [u8; RECORD as usize] {
        let mut bytes = [0; RECORD as usize];
        let fields = (self.place.unwrap_or(ZEROS).to_le_bytes().into_iter())
            .chain(self.length.to_le_bytes())
            .chain(self.crc.to_le_bytes());
        for (to, from) in bytes.iter_mut().zip(fields) {
            *to = from;
        }
        bytes
    }

    fn from_bytes(bytes: &[u8; RECORD as usize]) -> Self {
        let number = |at| crate::bytes::little_endian::<8>(bytes, at);
        let place = Some(number(0)).filter(|place| *place != ZEROS);
        Self { place, length: number(8), crc: crate::bytes::little_endian::<4>(bytes, 16) as u32 }
    }
}

/// The pieces of a packed image.
pub struct PieceList {
    file: OwnedFd,
    count: u32,
}

impl PieceList {
    /// A new list, in a new file.
    pub fn create(path: &str) -> Result<Self, Error> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        Ok(Self { file: files::open(path, flags).doing("making", path)?, count: 0 })
    }

    /// Opens a list that was stored, of so many pieces.
    pub fn open(path: &str, count: u32) -> Result<Self, Error> {
        Ok(Self { file: files::opened(path, OFlags::RDONLY)?, count })
    }

    /// How many pieces there are.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Adds a piece at the end.
    pub fn push(&mut self, piece: Piece) -> Result<(), Error> {
        self.set(self.count, piece)?;
        self.count += 1;
        Ok(())
    }

    /// Adds a piece at the end, without its CRC; in parts, when it lies on a disk and is too long.
    pub fn add(&mut self, place: Option<u64>, length: u64) -> Result<(), Error> {
        let Some(start) = place else {
            return self.push(Piece { place, length, crc: 0 });
        };
        let (mut at, end) = (start, start + length);
        while at < end {
            let length = (end - at).min(LONGEST - at % ALIGNED);
            self.push(Piece { place: Some(at), length, crc: 0 })?;
            at += length;
        }
        Ok(())
    }

    /// Writes piece `index`.
    pub fn set(&self, index: u32, piece: Piece) -> Result<(), Error> {
        let count = rustix::io::pwrite(&self.file, &piece.to_bytes(), u64::from(index) * RECORD)
            .doing("writing", LIST)?;
        if count == RECORD as usize { Ok(()) } else { Err(Error::failed("writing", LIST, CUT)) }
    }

    /// Reads piece `index`; nothing behind the last.
    pub fn get(&self, index: u32) -> Result<Option<Piece>, Error> {
        if index >= self.count {
            return Ok(None);
        }
        let mut bytes = [0; RECORD as usize];
        let count = rustix::io::pread(&self.file, &mut bytes, u64::from(index) * RECORD)
            .doing("reading", LIST)?;
        if count != bytes.len() {
            return Err(Error::failed("reading", LIST, CUT));
        }
        Ok(Some(Piece::from_bytes(&bytes)))
    }

    /// The CRC-32 of the list.
    pub fn crc(&self) -> Result<u32, Error> {
        let mut crc = 0;
        for index in 0..self.count {
            if let Some(piece) = self.get(index)? {
                crc = crc32::extend(crc, &piece.to_bytes());
            }
        }
        Ok(crc)
    }
}

const LIST: &str = "the list of pieces";
const CUT: &str = "it is too short";

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A list in a file that is gone already.
    pub fn list(name: &str, pieces: &[Piece]) -> PieceList {
        let path = format!("takeover-pieces-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(path);
        let mut list = PieceList::create(path.to_str().unwrap()).unwrap();
        std::fs::remove_file(path).unwrap();
        for piece in pieces {
            list.push(*piece).unwrap();
        }
        list
    }

    #[test]
    fn a_long_piece_is_added_in_parts_that_begin_with_blocks() {
        let mut list = list("parts", &[]);
        let (start, length) = (4096 * 5 + 37, 10_000_000);
        list.add(Some(start), length).unwrap();
        let (mut at, mut index) = (start, 0);
        while let Some(piece) = list.get(index).unwrap() {
            assert_eq!(piece.place, Some(at));
            assert!(piece.length <= LONGEST && (index == 0 || at % ALIGNED == 0), "{piece:?}");
            at += piece.length;
            index += 1;
        }
        assert_eq!((at, list.count()), (start + length, index));
        assert!(u64::from(index) <= length / (LONGEST - ALIGNED) + 1, "{index}");
        // Zeros are read from nowhere.
        list.add(None, length).unwrap();
        assert_eq!(list.count(), index + 1);
    }

    #[test]
    fn pieces_come_back_and_a_change_shows() {
        let piece = Piece { place: Some(1 << 40), length: 5 << 33, crc: 0xdead_beef };
        let zeros = Piece { place: None, length: 7, crc: 0 };
        let list = list("back", &[piece, zeros]);
        assert_eq!((list.get(0).unwrap(), list.get(1).unwrap()), (Some(piece), Some(zeros)));
        assert_eq!((list.get(2).unwrap(), list.count()), (None, 2));
        let crc = list.crc().unwrap();
        list.set(1, Piece { length: 8, ..zeros }).unwrap();
        assert_ne!(list.crc().unwrap(), crc);
        rustix::fs::ftruncate(&list.file, RECORD + 5).unwrap();
        assert!(list.get(1).is_err() && list.crc().is_err());
    }
}
