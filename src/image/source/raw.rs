//! The packed image as it waits on a raw disk, in the pieces of a list: read past the cache, from whatever file system
//! it was in.
//!
//! Every piece that is read from its beginning to its end is compared with its CRC, each time.

use super::Source;
use crate::crc32;
use crate::error::Error;
use crate::image::pieces::{Piece, PieceList};
use crate::text::Text;
use core::cell::RefCell;
use core::ops::Range;
use rustix::fd::OwnedFd;
use rustix::io::Errno;

/// How much is read of the disk at once, in bytes: how long the buffer is that the source is given.
pub const BUFFER: usize = 256 * 1024;

/// Bytes of a disk that are an image file together.
pub struct RawSource<'a> {
    disk: OwnedFd,
    list: &'a PieceList,
    length: u64,
    /// What the disk reads in, in bytes.
    block: u64,
    inner: RefCell<Inner<'a>>,
}

/// Where it stands.
struct Inner<'a> {
    /// Page-aligned, for O_DIRECT.
    buffer: &'a mut [u8],
    /// What of the disk is in the buffer.
    held: Range<u64>,
    /// The number of the piece that is read, and where it begins in the file.
    index: u32,
    start: u64,
    /// How much of it was read from its beginning on, and the CRC-32 of that.
    seen: u64,
    crc: u32,
}

impl<'a> RawSource<'a> {
    /// The pieces of `list` on an open disk (O_DIRECT), which reads in blocks of `block` bytes. `buffer` has [`BUFFER`]
    /// bytes and is page-aligned.
    pub fn new(
        disk: OwnedFd,
        list: &'a PieceList,
        block: u32,
        buffer: &'a mut [u8],
    ) -> Result<Self, Error> {
        let mut length = 0;
        for index in 0..list.count() {
            length += list.get(index)?.map_or(0, |piece| piece.length);
        }
        let held = 0..0;
        let inner = RefCell::new(Inner { buffer, held, index: 0, start: 0, seen: 0, crc: 0 });
        Ok(Self { disk, list, length, block: block.into(), inner })
    }

    /// Reads into `to` what of the piece that the byte at `offset` is in follows there; gives how much that is.
    fn read_piece(&self, offset: u64, to: &mut [u8]) -> Result<usize, Error> {
        let inner = &mut *self.inner.borrow_mut();
        let Some(piece) = inner.find(offset, self.list)? else {
            return Ok(0);
        };
        let inside = offset - inner.start;
        let wanted = (piece.length - inside).min(to.len() as u64) as usize;
        let to = to.get_mut(..wanted).unwrap_or_default();
        let count = match piece.place {
            None => {
                to.fill(0);
                to.len()
            }
            Some(place) => {
                inner.copy(&self.disk, self.block, place + inside..place + piece.length, to)?
            }
        };
        inner.compare(&piece, inside, to.get(..count).unwrap_or_default())?;
        Ok(count)
    }

    /// Reads the whole file once and gives the CRC-32 of each piece to `tell`, whatever the list says of it.
    pub fn for_each_crc(
        &self,
        tell: &mut dyn FnMut(u32, Piece) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for index in 0..self.list.count() {
            let Some(piece) = self.list.get(index)? else {
                break;
            };
            tell(index, Piece { crc: self.crc_of(&piece)?, ..piece })?;
        }
        Ok(())
    }

    /// The CRC-32 of a piece as it is read now.
    fn crc_of(&self, piece: &Piece) -> Result<u32, Error> {
        let Some(place) = piece.place else {
            return Ok(crc32::of_zeros(piece.length));
        };
        let inner = &mut *self.inner.borrow_mut();
        let (mut crc, mut at) = (0, place);
        while at < place + piece.length {
            let held = inner.hold(&self.disk, self.block, at..place + piece.length)?;
            crc = crc32::extend(crc, held);
            at += held.len() as u64;
        }
        Ok(crc)
    }
}

impl Inner<'_> {
    /// The piece that the byte at `offset` of the file is in.
    fn find(&mut self, offset: u64, list: &PieceList) -> Result<Option<Piece>, Error> {
        if offset < self.start {
            (self.index, self.start, self.seen) = (0, 0, 0);
        }
        while let Some(piece) = list.get(self.index)? {
            if offset - self.start < piece.length {
                return Ok(Some(piece));
            }
            self.start += piece.length;
            self.index += 1;
            self.seen = 0;
        }
        Ok(None)
    }

    /// Bytes of the disk from the beginning of `range` on, one at least.
    fn hold(&mut self, disk: &OwnedFd, block: u64, range: Range<u64>) -> Result<&[u8], Error> {
        if !self.held.contains(&range.start) {
            let start = range.start - range.start % block;
            let wanted = (range.end.next_multiple_of(block) - start).min(self.buffer.len() as u64);
            self.held = 0..0;
            let buffer = self.buffer.get_mut(..wanted as usize).unwrap_or_default();
            let count = read_at(disk, start, buffer)?;
            self.held = start..start + count as u64;
            if !self.held.contains(&range.start) {
                return Err(Error::failed("reading", PACKED, "the disk ends too early"));
            }
        }
        let end = self.held.end.min(range.end);
        let [from, to] = [range.start, end].map(|at| (at - self.held.start) as usize);
        Ok(self.buffer.get(from..to).unwrap_or_default())
    }

    fn copy(
        &mut self,
        disk: &OwnedFd,
        block: u64,
        range: Range<u64>,
        to: &mut [u8],
    ) -> Result<usize, Error> {
        let held = self.hold(disk, block, range)?;
        let count = held.len().min(to.len());
        let from = held.get(..count).unwrap_or_default();
        to.get_mut(..count).unwrap_or_default().copy_from_slice(from);
        Ok(count)
    }

    /// Takes in bytes of a piece; those that end it must give its CRC.
    fn compare(&mut self, piece: &Piece, inside: u64, bytes: &[u8]) -> Result<(), Error> {
        if inside == 0 {
            (self.seen, self.crc) = (0, 0);
        }
        if self.seen == inside {
            self.crc = crc32::extend(self.crc, bytes);
            self.seen += bytes.len() as u64;
            if self.seen == piece.length && self.crc != piece.crc {
                // What is held may be wrong: the next one reads it anew.
                self.held = 0..0;
                return Err(changed(self.index, piece));
            }
        }
        Ok(())
    }
}

const PACKED: &str = "the image on its disk";

#[cold]
fn changed(index: u32, piece: &Piece) -> Error {
    let sector = piece.place.unwrap_or(0) / 512;
    let last = (piece.place.unwrap_or(0) + piece.length - 1) / 512;
    let why: Text<160> =
        crate::text!("piece {} (sectors {} to {}) is not what was left there", index, sector, last);
    Error::failed("reading", PACKED, &why)
        .advice("the file was changed meanwhile, or the medium is bad")
}

fn read_at(disk: &OwnedFd, offset: u64, buffer: &mut [u8]) -> Result<usize, Error> {
    loop {
        match rustix::io::pread(disk, &mut *buffer, offset) {
            Err(Errno::INTR) => {}
            Err(errno) => {
                let object: Text<80> = crate::text!("{} at sector {}", PACKED, offset / 512);
                return Err(Error::os("reading", &object, errno));
            }
            Ok(count) => return Ok(count),
        }
    }
}

impl Source for RawSource<'_> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, Error> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.read_piece(offset + filled as u64, rest)? {
                0 => break,
                count => filled += count,
            }
        }
        Ok(filled)
    }

    fn length(&self) -> u64 {
        self.length
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::pieces::tests::list;
    use std::os::unix::fs::FileExt;

    /// A disk of pseudo-random bytes, and a file of these pieces of it.
    fn case(name: &str, pieces: &[(Option<u64>, u64)]) -> (std::fs::File, Vec<u8>, PieceList) {
        let disk = crate::files::unnamed(std::env::temp_dir().to_str().unwrap()).unwrap();
        let disk = std::fs::File::from(disk);
        let bytes: Vec<u8> =
            (0..2_000_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        disk.write_all_at(&bytes, 0).unwrap();
        let (mut file, mut records) = (Vec::new(), Vec::new());
        for (place, length) in pieces {
            let piece = match place {
                Some(at) => bytes[*at as usize..(at + length) as usize].to_vec(),
                None => vec![0; *length as usize],
            };
            records.push(Piece { place: *place, length: *length, crc: crc32::crc32(&piece) });
            file.extend(piece);
        }
        (disk, file, list(name, &records))
    }

    const PIECES: [(Option<u64>, u64); 6] = [
        (Some(1_000_037), 700_000),
        (Some(512), 1),
        (None, 5000),
        (Some(4095), 8193),
        (Some(1_999_999), 1),
        (Some(0), 512),
    ];

    #[test]
    fn pieces_anywhere_are_read_as_the_file_that_they_are() {
        let (disk, file, list) = case("read", &PIECES);
        for block in [512, 4096] {
            let mut buffer = vec![0; BUFFER];
            let source =
                RawSource::new(disk.try_clone().unwrap().into(), &list, block, &mut buffer)
                    .unwrap();
            assert_eq!(source.length(), file.len() as u64);
            for step in [1000, 32 * 1024, 1 << 20] {
                let mut read: Vec<u8> = Vec::new();
                let mut piece = vec![0; step];
                loop {
                    let count = source.read_at(read.len() as u64, &mut piece).unwrap();
                    if count == 0 {
                        break;
                    }
                    read.extend(&piece[..count]);
                }
                assert!(read == file, "{block} {step}");
            }
            // Anywhere, and back.
            for at in [710_000, 3, 699_999, 0, file.len() - 1, file.len(), 1 << 40] {
                let mut bytes = [0; 3000];
                let count = source.read_at(at as u64, &mut bytes).unwrap();
                let start = at.min(file.len());
                assert_eq!(bytes[..count], file[start..(start + 3000).min(file.len())], "{at}");
            }
        }
    }

    #[test]
    fn a_piece_that_has_changed_is_told_by_its_place_each_time_until_it_is_good_again() {
        let (disk, file, list) = case("changed", &PIECES);
        let mut buffer = vec![0; BUFFER];
        let source =
            RawSource::new(disk.try_clone().unwrap().into(), &list, 512, &mut buffer).unwrap();
        let read = || source.read_at(0, &mut vec![0; file.len()]);
        assert_eq!(read().unwrap(), file.len());
        for (at, number) in [(1_000_037, 0), (1_700_036, 0), (512, 1), (12_287, 3), (1_999_999, 4)]
        {
            let mut old = [0];
            disk.read_exact_at(&mut old, at).unwrap();
            disk.write_all_at(&[old[0] ^ 1], at).unwrap();
            // What the buffer holds from before is older than that.
            source.inner.borrow_mut().held = 0..0;
            for _ in 0..2 {
                let text: Text<400> = crate::text!("{}", read().unwrap_err());
                let wanted: Text<40> = crate::text!("piece {} (sectors ", number);
                assert!(text.contains(wanted.as_str()), "{}", text.as_str());
            }
            disk.write_all_at(&old, at).unwrap();
            assert_eq!(read().unwrap(), file.len(), "{at}");
        }
        let mut crcs = Vec::new();
        source
            .for_each_crc(&mut |index, piece| {
                crcs.push(list.get(index).unwrap() == Some(piece));
                Ok(())
            })
            .unwrap();
        assert_eq!(crcs, [true; 6]);
        disk.set_len(1_999_999).unwrap();
        source.inner.borrow_mut().held = 0..0;
        assert!(read().is_err(), "the disk has become shorter");
    }

    #[cfg(feature = "core")]
    #[test]
    fn whatever_the_layout_the_file_is_read_whole_when_the_rest_of_the_disk_is_overwritten() {
        use crate::disk::extents::Place;
        use crate::disk::room::tests::{Given, Random, layout};
        use crate::disk::room::{Overwritten, Step, arrange};
        let mut whole = 0;
        for seed in 1000..1012 {
            let mut random = Random(seed);
            let size = 4 << 20;
            let over = Overwritten::of(size, random.below(2 << 20));
            let (pieces, spaces) = layout(&mut random, size);
            let mut disk: Vec<u8> = (0..size).map(|at| (at ^ at >> 9 ^ seed) as u8).collect();
            let mut file = Vec::new();
            for piece in &pieces {
                match piece.place {
                    Place::Disk(at) => {
                        file.extend(&disk[at as usize..(at + piece.length) as usize])
                    }
                    Place::Zeros => file.resize(file.len() + piece.length as usize, 0),
                }
            }
            let mut records = Vec::new();
            let arranged =
                arrange(&mut Given::of(&pieces), &mut Given::of(&spaces), over, &mut |step| {
                    let (from, length, place) = match step {
                        Step::Stays(piece) => match piece.place {
                            Place::Disk(at) => (piece.start, piece.length, Some(at)),
                            Place::Zeros => (piece.start, piece.length, None),
                        },
                        Step::Copied { from, length, place, .. } => (from, length, Some(place)),
                    };
                    let bytes = &file[from as usize..(from + length) as usize];
                    if let (Step::Copied { .. }, Some(at)) = (step, place) {
                        disk[at as usize..(at + length) as usize].copy_from_slice(bytes);
                    }
                    records.push(Piece { place, length, crc: crc32::crc32(bytes) });
                    Ok(())
                });
            if arranged.is_err() {
                continue;
            }
            for at in 0..size {
                if over.outlived(at, 1) == 0 {
                    disk[at as usize] = 0xee;
                }
            }
            let medium = crate::files::unnamed(std::env::temp_dir().to_str().unwrap()).unwrap();
            std::fs::File::from(medium.try_clone().unwrap()).write_all_at(&disk, 0).unwrap();
            let list = list("layout", &records);
            let mut buffer = vec![0; BUFFER];
            let source = RawSource::new(medium, &list, 512, &mut buffer).unwrap();
            let mut read = vec![0; file.len()];
            assert_eq!(source.read_at(0, &mut read).unwrap(), file.len());
            assert!(read == file, "seed {seed}");
            whole += 1;
        }
        assert!(whole > 3, "{whole}");
    }
}
