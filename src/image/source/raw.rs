//! The packed image as it waits on a raw disk, in the pieces of a list: read past the cache, from whatever file system
//! it was in.
//!
//! A piece is read whole and compared with its CRC before any of it is given out. One that cannot be read, or reads
//! otherwise, is read again from the disk opened anew: connections fail for a moment, and a stick that resets itself
//! comes back under another number.

use super::Source;
use crate::crc32;
use crate::error::Error;
use crate::image::pieces::{ALIGNED, LONGEST, Piece, PieceList};
use crate::text::Text;
use core::cell::RefCell;
use core::time::Duration;
use rustix::fd::OwnedFd;
use rustix::io::Errno;

/// How long the buffer is that the source is given, in bytes: for the longest piece, and the rest of a block at either
/// end.
pub const BUFFER: usize = (LONGEST + 2 * ALIGNED) as usize;

/// How often a piece is tried.
const TRIES: u32 = 3;
/// The pause before it is tried again: a USB disk that resets itself is away for so long.
const PAUSE: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 2000 });

/// Opens the disk (O_DIRECT), wherever it is now.
pub type Open<'a> = &'a dyn Fn() -> Result<OwnedFd, Error>;

/// Bytes of a disk that are an image file together.
pub struct RawSource<'a> {
    open: Open<'a>,
    list: &'a PieceList,
    length: u64,
    /// What the disk reads in, in bytes.
    block: u64,
    inner: RefCell<Inner<'a>>,
}

/// Where it stands.
struct Inner<'a> {
    disk: Option<OwnedFd>,
    /// Page-aligned, for O_DIRECT.
    buffer: &'a mut [u8],
    /// The number of the piece that is in the buffer, as it must be, and where in the buffer it begins.
    held: Option<u32>,
    skip: usize,
    /// The number of the piece that is looked at, and where it begins in the file.
    index: u32,
    start: u64,
}

impl<'a> RawSource<'a> {
    /// The pieces of `list` on a disk that reads in blocks of `block` bytes. `buffer` has [`BUFFER`] bytes and is
    /// page-aligned.
    pub fn new(
        open: Open<'a>,
        list: &'a PieceList,
        block: u32,
        buffer: &'a mut [u8],
    ) -> Result<Self, Error> {
        let mut length = 0;
        for index in 0..list.count() {
            length += list.get(index)?.map_or(0, |piece| piece.length);
        }
        let inner = Inner { disk: None, buffer, held: None, skip: 0, index: 0, start: 0 };
        Ok(Self { open, list, length, block: block.into(), inner: RefCell::new(inner) })
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
        let Some(place) = piece.place else {
            to.fill(0);
            return Ok(wanted);
        };
        if inner.held != Some(inner.index) {
            self.load(inner, place, piece, Some(piece.crc))?;
            inner.held = Some(inner.index);
        }
        let start = inner.skip + inside as usize;
        if let Some(from) = inner.buffer.get(start..start + wanted) {
            to.copy_from_slice(from);
        }
        Ok(wanted)
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
            let inner = &mut *self.inner.borrow_mut();
            let crc = match piece.place {
                None => crc32::of_zeros(piece.length),
                Some(place) => self.load(inner, place, piece, None)?,
            };
            tell(index, Piece { crc, ..piece })?;
        }
        Ok(())
    }

    /// Reads a piece, which begins at `place` of the disk, into the buffer; gives its CRC-32, which must be `wanted`.
    fn load(
        &self,
        inner: &mut Inner,
        place: u64,
        piece: Piece,
        wanted: Option<u32>,
    ) -> Result<u32, Error> {
        inner.held = None;
        let mut tries = 0;
        loop {
            tries += 1;
            let error = match self.try_load(inner, place, piece.length) {
                Ok(crc) if wanted.is_none_or(|wanted| wanted == crc) => return Ok(crc),
                Ok(_) => changed(inner.index, place, piece.length),
                Err(error) => error,
            };
            if tries == TRIES {
                return Err(error);
            }
            crate::warn!("{} (try {} of {})", error, tries, TRIES);
            // Before it is opened anew: it may be ours alone.
            inner.disk = None;
            crate::sys::clock::sleep(PAUSE);
        }
    }

    fn try_load(&self, inner: &mut Inner, place: u64, length: u64) -> Result<u32, Error> {
        let disk = match &mut inner.disk {
            Some(disk) => disk,
            none => none.insert((self.open)()?),
        };
        inner.skip = (place % self.block) as usize;
        let end = inner.skip + length as usize;
        let whole = end.next_multiple_of(self.block as usize);
        let buffer = inner.buffer.get_mut(..whole).unwrap_or_default();
        let count = read_at(disk, place - inner.skip as u64, buffer)?;
        let piece = buffer.get(inner.skip..end).filter(|_| count >= end);
        piece.map(crc32::crc32).ok_or_else(|| Error::failed("reading", PACKED, SHORT))
    }
}

impl Inner<'_> {
    /// The piece that the byte at `offset` of the file is in.
    fn find(&mut self, offset: u64, list: &PieceList) -> Result<Option<Piece>, Error> {
        if offset < self.start {
            (self.index, self.start) = (0, 0);
        }
        while let Some(piece) = list.get(self.index)? {
            if offset - self.start < piece.length {
                return Ok(Some(piece));
            }
            self.start += piece.length;
            self.index += 1;
        }
        Ok(None)
    }
}

const PACKED: &str = "the image on its disk";
const SHORT: &str = "the disk ends too early";

#[cold]
fn changed(index: u32, place: u64, length: u64) -> Error {
    let (sector, last) = (place / 512, (place + length - 1) / 512);
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
        (Some(1_000_037), LONGEST),
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
            let open = || Ok(disk.try_clone().unwrap().into());
            let source = RawSource::new(&open, &list, block, &mut buffer).unwrap();
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
            for at in [260_000, 3, LONGEST as usize - 1, 0, file.len() - 1, file.len(), 1 << 40] {
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
        let open = || Ok(disk.try_clone().unwrap().into());
        let source = RawSource::new(&open, &list, 512, &mut buffer).unwrap();
        let read = || source.read_at(0, &mut vec![0; file.len()]);
        assert_eq!(read().unwrap(), file.len());
        for (at, number) in
            [(1_000_037, 0), (1_000_037 + LONGEST - 1, 0), (512, 1), (12_287, 3), (1_999_999, 4)]
        {
            let mut old = [0];
            disk.read_exact_at(&mut old, at).unwrap();
            disk.write_all_at(&[old[0] ^ 1], at).unwrap();
            // What the buffer holds from before is older than that.
            source.inner.borrow_mut().held = None;
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
        source.inner.borrow_mut().held = None;
        assert!(read().is_err(), "the disk has become shorter");
    }

    #[test]
    fn what_cannot_be_read_or_reads_otherwise_is_read_again_from_the_disk_opened_anew() {
        let (disk, file, list) = case("again", &PIECES);
        let (other, ..) = case("other", &PIECES);
        other.write_all_at(b"otherwise", 1_100_000).unwrap();
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&disk));
        let good = || Ok(OwnedFd::from(disk.try_clone().unwrap()));
        let unreadable = || Ok(crate::files::open(&path, rustix::fs::OFlags::WRONLY).unwrap());
        let lying = || Ok(OwnedFd::from(other.try_clone().unwrap()));
        let away = || Err(Error::failed("looking for the disk", "", "it is not there"));
        for (disks, is_read) in [
            ([&lying as Open, &good, &away], true),
            ([&unreadable, &lying, &good], true),
            ([&away, &unreadable, &good], true),
            ([&lying, &away, &lying], false),
        ] {
            let opened = core::cell::Cell::new(0);
            let open = || disks[opened.replace(opened.get() + 1)]();
            let mut buffer = vec![0; BUFFER];
            let source = RawSource::new(&open, &list, 512, &mut buffer).unwrap();
            let mut read = vec![0; file.len()];
            // By little: nothing of a piece is given out before it is known to be good.
            let first = source.read_at(0, &mut read[..100]);
            assert_eq!(first.is_ok(), is_read);
            if is_read {
                assert_eq!(source.read_at(0, &mut read).unwrap(), file.len());
                assert!(read == file);
            } else {
                assert_eq!((opened.get(), &read[..100]), (3, &[0; 100][..]));
            }
        }
    }

    /// What a file in these pieces of a disk has.
    #[cfg(feature = "core")]
    fn bytes_of(pieces: &[crate::disk::extents::Piece], disk: &[u8]) -> Vec<u8> {
        use crate::disk::extents::Place;
        let mut file = Vec::new();
        for piece in pieces {
            match piece.place {
                Place::Disk(at) => file.extend(&disk[at as usize..(at + piece.length) as usize]),
                Place::Zeros => file.resize(file.len() + piece.length as usize, 0),
            }
        }
        file
    }

    #[cfg(feature = "core")]
    #[test]
    fn whatever_the_layout_the_file_is_read_whole_when_the_rest_of_the_disk_is_overwritten() {
        use crate::disk::extents::Place;
        use crate::disk::room::tests::{Given, Random, layout, overwritten};
        use crate::disk::room::{Step, arrange};
        let mut whole = 0;
        for seed in 1000..1012 {
            let mut random = Random(seed);
            let size = 4 << 20;
            let over = overwritten(&mut random, size);
            let (pieces, spaces) = layout(&mut random, size);
            let mut disk: Vec<u8> = (0..size).map(|at| (at ^ at >> 9 ^ seed) as u8).collect();
            let file = bytes_of(&pieces, &disk);
            let mut list = list("layout", &[]);
            let arranged =
                arrange(&mut Given::of(&pieces), &mut Given::of(&spaces), over, &mut |step| {
                    let (from, length, place) = match step {
                        Step::Stays(piece) => match piece.place {
                            Place::Disk(at) => (piece.start, piece.length, Some(at)),
                            Place::Zeros => (piece.start, piece.length, None),
                        },
                        Step::Copied { from, length, place, .. } => (from, length, Some(place)),
                    };
                    let mut bytes = &file[from as usize..(from + length) as usize];
                    if let (Step::Copied { .. }, Some(at)) = (step, place) {
                        disk[at as usize..(at + length) as usize].copy_from_slice(bytes);
                    }
                    let first = list.count();
                    list.add(place, length)?;
                    for index in first..list.count() {
                        let piece = list.get(index)?.unwrap();
                        let (part, rest) = bytes.split_at(piece.length as usize);
                        list.set(index, Piece { crc: crc32::crc32(part), ..piece })?;
                        bytes = rest;
                    }
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
            let open = || Ok(medium.try_clone().unwrap());
            let mut buffer = vec![0; BUFFER];
            let source = RawSource::new(&open, &list, 512, &mut buffer).unwrap();
            let mut read = vec![0; file.len()];
            assert_eq!(source.read_at(0, &mut read).unwrap(), file.len());
            assert!(read == file, "seed {seed}");
            whole += 1;
        }
        assert!(whole > 3, "{whole}");
    }
}
