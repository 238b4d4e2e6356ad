//! Where the bytes of a file are on its disk, piece by piece, as the file system tells it (FIEMAP).
//!
//! Only pieces of which that is known are given. What a file system keeps otherwise (in memory still, packed,
//! encrypted, inside of an inode) is refused by its name: whoever reads the disk would read something else.

use super::segments::{FINDING, Segments};
use crate::error::{Doing, Error};
use crate::sys::extents::{self, BATCH, FileExtent};
use linux_raw_sys::ioctl as flag;
use rustix::fd::OwnedFd;

/// Where a piece of a file is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// On the disk, from this byte on.
    Disk(u64),
    /// Nowhere: it reads as zeros.
    Zeros,
}

/// A piece of a file; in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Where it begins in the file.
    pub start: u64,
    /// Its length.
    pub length: u64,
    /// Where it is.
    pub place: Place,
}

impl Piece {
    /// Its first `length` bytes, and the rest.
    pub fn split(self, length: u64) -> (Self, Self) {
        let length = length.min(self.length);
        let place = match self.place {
            Place::Disk(at) => Place::Disk(at + length),
            Place::Zeros => Place::Zeros,
        };
        let rest = Self { start: self.start + length, length: self.length - length, place };
        (Self { length, ..self }, rest)
    }
}

/// Gives pieces one after the other.
pub trait Pull {
    /// The next one; nothing behind the last.
    fn next(&mut self) -> Result<Option<Piece>, Error>;
}

/// The pieces of a range of a file, in its order and with nothing left out.
pub struct Pieces<'a> {
    file: &'a OwnedFd,
    segments: &'a Segments,
    /// Where the next piece begins in the file, and where the range ends.
    at: u64,
    end: u64,
    batch: [FileExtent; BATCH],
    unread: core::ops::Range<usize>,
    /// Unwritten blocks of it are on the disk, too, where they will be written: for a file that was set aside.
    is_set_aside: bool,
}

impl<'a> Pieces<'a> {
    /// Those of the range from `start` to `end` of an open file, whose device these segments are.
    pub fn new(file: &'a OwnedFd, segments: &'a Segments, start: u64, end: u64) -> Self {
        let batch = [FileExtent::default(); BATCH];
        Self { file, segments, at: start, end, batch, unread: 0..0, is_set_aside: false }
    }

    /// Those of a whole file of `length` bytes whose blocks are set aside, written or not.
    pub fn set_aside(file: &'a OwnedFd, segments: &'a Segments, length: u64) -> Self {
        Self { is_set_aside: true, ..Self::new(file, segments, 0, length) }
    }

    /// The extent that the byte at `at` is in, or the next one behind it.
    fn extent(&mut self) -> Result<Option<FileExtent>, Error> {
        loop {
            while let Some(extent) =
                self.batch.get(self.unread.start).filter(|_| !self.unread.is_empty())
            {
                if extent.logical.saturating_add(extent.length) > self.at {
                    return Ok(Some(*extent));
                }
                self.unread.start += 1;
            }
            let count = extents::of_file(self.file, self.at, &mut self.batch)
                .doing("asking the file system where it keeps", "the image file")
                .map_err(Error::as_refusal)?;
            self.unread = 0..count;
            let last = self.batch.get(..count).and_then(<[_]>::last);
            if last.is_none_or(|last| last.logical.saturating_add(last.length) <= self.at) {
                return Ok(None);
            }
        }
    }
}

impl Pull for Pieces<'_> {
    fn next(&mut self) -> Result<Option<Piece>, Error> {
        if self.at >= self.end {
            return Ok(None);
        }
        let extent = self.extent()?;
        let piece = first(extent, self.segments, self.at..self.end, self.is_set_aside)?;
        self.at += piece.length;
        Ok(Some(piece))
    }
}

/// The first piece of a range, of which `extent` is the first or the next extent.
fn first(
    extent: Option<FileExtent>,
    segments: &Segments,
    range: core::ops::Range<u64>,
    is_set_aside: bool,
) -> Result<Piece, Error> {
    let zeros = |end: u64| Piece {
        start: range.start,
        length: end.min(range.end) - range.start,
        place: Place::Zeros,
    };
    let Some(extent) = extent else {
        return Ok(zeros(range.end));
    };
    if extent.logical > range.start {
        return Ok(zeros(extent.logical));
    }
    let refuse = |why| Err(Error::refused(FINDING, "the image file", why));
    let end = extent.logical.saturating_add(extent.length).min(range.end);
    if let Some(why) = refusal(extent.flags) {
        return refuse(why);
    }
    if extent.flags & flag::FIEMAP_EXTENT_UNWRITTEN != 0 && !is_set_aside {
        return Ok(zeros(end));
    }
    let at = extent.physical.checked_add(range.start - extent.logical);
    let Some((on_disk, there)) = at.and_then(|at| segments.place(at)) else {
        return refuse("the file system tells a place that its device does not have");
    };
    let length = (end - range.start).min(there);
    Ok(Piece { start: range.start, length, place: Place::Disk(on_disk) })
}

/// Why what these flags say of an extent cannot be read from the disk.
fn refusal(flags: u32) -> Option<&'static str> {
    let has = |flag| flags & flag != 0;
    if has(flag::FIEMAP_EXTENT_DELALLOC) {
        Some("a part of it has no place there yet")
    } else if has(flag::FIEMAP_EXTENT_DATA_INLINE | flag::FIEMAP_EXTENT_DATA_TAIL) {
        Some("a part of it is inside of what belongs to the file system")
    } else if has(flag::FIEMAP_EXTENT_DATA_ENCRYPTED) {
        Some("it is encrypted there")
    } else if has(flag::FIEMAP_EXTENT_ENCODED) {
        Some("it is packed there, or encrypted")
    } else if has(flag::FIEMAP_EXTENT_UNKNOWN | flag::FIEMAP_EXTENT_NOT_ALIGNED) {
        Some("the file system does not tell where a part of it is")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::segments::Segment;

    fn disk() -> Segments {
        Segments::made_of(&[
            Segment { start: 0, length: 10_000, on_disk: 1_000_000 },
            Segment { start: 10_000, length: 10_000, on_disk: 500 },
        ])
    }

    #[test]
    fn what_is_not_on_the_disk_as_it_is_read_is_refused() {
        let look = |flags| first(Some(FileExtent::of(0, 0, 4096, flags)), &disk(), 0..4096, false);
        for flags in [2, 4, 8, 0x80, 0x88, 0x100, 0x200, 0x400, 6] {
            assert!(look(flags).is_err(), "{flags:#x}");
        }
        // The last, merged ones, and those that another file has, too, are where they are.
        for flags in [0, 1, 0x1000, 0x2000] {
            assert_eq!(look(flags).unwrap().place, Place::Disk(1_000_000), "{flags:#x}");
        }
        assert_eq!(look(0x800).unwrap().place, Place::Zeros, "unwritten");
        let extent = FileExtent::of(0, 0, 4096, 0x800);
        let set_aside = first(Some(extent), &disk(), 0..4096, true).unwrap();
        assert_eq!(set_aside.place, Place::Disk(1_000_000));
        let outside = FileExtent::of(0, 20_000, 4096, 0);
        assert!(first(Some(outside), &disk(), 0..4096, false).is_err());
    }

    #[test]
    fn holes_ends_and_parts_of_the_device_make_pieces_of_their_own() {
        let take = |extent, range| first(extent, &disk(), range, false).unwrap();
        let hole = Piece { start: 10, length: 90, place: Place::Zeros };
        assert_eq!(take(Some(FileExtent::of(100, 0, 50, 0)), 10..5000), hole);
        assert_eq!(take(None, 10..100), hole);
        let extent = FileExtent::of(100, 9000, 3000, 0);
        let piece = take(Some(extent), 150..5000);
        assert_eq!(piece, Piece { start: 150, length: 950, place: Place::Disk(1_009_050) });
        let piece = take(Some(extent), 1100..5000);
        assert_eq!(piece, Piece { start: 1100, length: 2000, place: Place::Disk(500) });
        assert_eq!(take(Some(extent), 1100..1107).length, 7);
        let (front, rest) = piece.split(30);
        assert_eq!(front, Piece { start: 1100, length: 30, place: Place::Disk(500) });
        assert_eq!(rest, Piece { start: 1130, length: 1970, place: Place::Disk(530) });
    }

    #[test]
    fn the_pieces_of_a_file_of_this_machine_hold_its_bytes() {
        let path = std::env::temp_dir().join(format!("takeover-extents-{}", std::process::id()));
        std::fs::write(&path, [7; 10_000]).unwrap();
        let path = path.to_str().unwrap();
        let file = crate::files::open(path, rustix::fs::OFlags::RDONLY).unwrap();
        let all = [Segment { start: 0, length: u64::MAX, on_disk: 0 }];
        let segments = Segments::made_of(&all);
        let mut pieces = Pieces::new(&file, &segments, 5, 10_000);
        let mut at = 5;
        loop {
            // A file system that knows no extents is refused.
            match pieces.next() {
                Ok(Some(piece)) => {
                    assert_eq!(piece.start, at);
                    assert!(piece.length > 0);
                    at += piece.length;
                }
                Ok(None) => break assert_eq!(at, 10_000),
                Err(error) => break assert_eq!(error.kind(), crate::error::Kind::Refused),
            }
        }
        std::fs::remove_file(path).unwrap();
    }
}
