//! Reading at any place of an image that may be packed.
//!
//! A packed image is decoded forward to the place, and from its beginning when the place lies behind: whoever looks at
//! several places looks at them in their order, and learns here how far it is when that takes long. One range can be
//! kept in a file (in memory): to read it again costs no step back. After the scan each chunk is compared with it, so
//! that what is read is what will be flashed.

use super::decode::{Decoder, Filled, WINDOW};
use super::map::{ChunkMap, Record};
use super::stream::Format;
use super::{CHUNK, chunk_length, gzip, is_zero};
use crate::crc32;
use crate::disk::reader::ReadAt;
use crate::error::{Doing, Error};
use crate::files;
use crate::progress::Rate;
use rustix::fd::OwnedFd;

/// The longest range that is kept, in bytes: a table of a FAT and what lies before it.
const MAX_KEPT: u64 = 9 << 20;
/// How much of it is read at once, in bytes.
const PIECE: usize = 4096;

/// A range of the image that was named, and how much of it is in the file.
struct Kept {
    file: OwnedFd,
    start: u64,
    length: u64,
    filled: u64,
}

/// A view of the disk that the image will become.
pub struct ImageReader<'a, 's> {
    decoder: &'a mut Decoder<'s>,
    buffer: &'a mut [u8],
    /// Where the chunk in the buffer begins on the disk, and its length.
    start: u64,
    held: usize,
    rate: Rate,
    kept: Option<Kept>,
    /// What the chunks must be, once that is known.
    map: Option<&'a ChunkMap>,
    /// How many chunks have been seen, where this is the first look at them.
    seen: Option<u32>,
}

impl<'a, 's> ImageReader<'a, 's> {
    /// A reader; `buffer` is [`super::decode::BUFFER`] long. With a map it takes nothing but what the scan has seen.
    pub fn new(
        decoder: &'a mut Decoder<'s>,
        buffer: &'a mut [u8],
        map: Option<&'a ChunkMap>,
    ) -> Self {
        decoder.restart();
        let rate = Rate::start("looking into the image", 0);
        Self { decoder, buffer, start: 0, held: 0, rate, kept: None, map, seen: None }
    }

    /// A reader before the scan, which goes on where this one ends: what each chunk is goes into `map`. For a packed
    /// image that should be decoded once only.
    pub fn before_scan(
        decoder: &'a mut Decoder<'s>,
        buffer: &'a mut [u8],
        map: &'a ChunkMap,
    ) -> Self {
        Self { seen: Some(0), ..Self::new(decoder, buffer, Some(map)) }
    }

    /// How many chunks the map has by now.
    pub fn seen(&self) -> u32 {
        self.seen.unwrap_or(0)
    }

    /// What lies in the range that is kept, after that was filled as far as it takes.
    fn read_kept(&mut self, offset: u64, wanted: &mut [u8]) -> Result<bool, Error> {
        let end = offset.saturating_add(wanted.len() as u64);
        let Some(mut kept) =
            self.kept.take_if(|kept| offset >= kept.start && end <= kept.start + kept.length)
        else {
            return Ok(false);
        };
        let mut piece = [0; PIECE];
        while kept.start + kept.filled < end {
            let left = (kept.length - kept.filled).min(PIECE as u64) as usize;
            let piece = piece.get_mut(..left).unwrap_or_default();
            let count = self.read_at(kept.start + kept.filled, piece)?;
            if count == 0 {
                // Behind the end of the image: whoever asks is told.
                return Ok(false);
            }
            files::write_all(&kept.file, piece.get(..count).unwrap_or_default())
                .doing("keeping a part of", "the image")?;
            kept.filled += count as u64;
        }
        let count = rustix::io::pread(&kept.file, &mut *wanted, offset - kept.start)
            .doing("reading a part of", "the image")?;
        self.kept = Some(kept);
        Ok(count == wanted.len())
    }

    /// How long a packed image is, as far as its first chunk tells: all of a shorter one, else not known (`u64::MAX`).
    pub fn length_seen(&mut self) -> Result<u64, Error> {
        self.chunk_at(0)?;
        Ok(if self.held < CHUNK { self.held as u64 } else { u64::MAX })
    }

    /// Reads up to `wanted.len()` bytes at `offset` of the image; fewer only at its end.
    pub fn read_at(&mut self, offset: u64, wanted: &mut [u8]) -> Result<usize, Error> {
        let mut copied = 0;
        while copied < wanted.len() {
            let piece = self.chunk_at(offset + copied as u64)?;
            let space = wanted.get_mut(copied..).unwrap_or_default();
            let count = piece.len().min(space.len());
            if count == 0 {
                break;
            }
            for (to, from) in space.iter_mut().zip(piece) {
                *to = *from;
            }
            copied += count;
        }
        Ok(copied)
    }

    /// Goes to the chunk of a raw image that has byte `offset`: nothing needs to be decoded before it.
    fn raw_chunk_at(&mut self, offset: u64) -> Result<(), Error> {
        let index = (offset / CHUNK as u64) as u32;
        let start = u64::from(index) * CHUNK as u64;
        if self.held > 0 && self.start == start {
            return Ok(());
        }
        (self.start, self.held) = (start, 0);
        let length = chunk_length(index, self.decoder.stream().length);
        let chunk = self.buffer.get_mut(WINDOW..WINDOW + length).unwrap_or_default();
        let from = self.decoder.stream().offset + start;
        if self.decoder.source().read_at(from, chunk)? < length {
            return Err(gzip::damaged("the file became shorter while it was read"));
        }
        let filled = Filled { length, crc: crc32::crc32(chunk), zero: is_zero(chunk) };
        self.compare(filled)?;
        self.held = length;
        Ok(())
    }

    fn compare(&mut self, filled: Filled) -> Result<(), Error> {
        let index = (self.start / CHUNK as u64) as u32;
        let (Some(map), record) = (self.map, Record::of(filled)) else {
            return Ok(());
        };
        if self.seen == Some(index) {
            self.seen = index.checked_add(1);
            return map.set(index, record);
        }
        map.check(index, record)
    }

    /// The rest of the decoded chunk from `offset` on; empty behind the end of the image.
    fn chunk_at(&mut self, offset: u64) -> Result<&[u8], Error> {
        if self.decoder.stream().format == Format::Raw {
            self.raw_chunk_at(offset)?;
            let skipped = (offset - self.start) as usize;
            return Ok(self.buffer.get(WINDOW + skipped..WINDOW + self.held).unwrap_or_default());
        }
        if offset < self.start {
            self.decoder.restart();
            (self.start, self.held) = (0, 0);
        }
        while offset >= self.start + self.held as u64 {
            self.start += self.held as u64;
            let filled = self.decoder.fill(self.buffer)?;
            self.held = filled.length;
            if self.held == 0 {
                return Ok(&[]);
            }
            self.compare(filled)?;
            self.rate.advance(self.decoder.consumed());
        }
        let skipped = (offset - self.start) as usize;
        let chunk = self.buffer.get(WINDOW + skipped..WINDOW + self.held);
        Ok(chunk.unwrap_or_default())
    }
}

impl ReadAt for ImageReader<'_, '_> {
    fn read_exact_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        if self.read_kept(offset, buffer)? {
            return Ok(());
        }
        let wanted = buffer.len();
        if self.read_at(offset, buffer)? == wanted {
            Ok(())
        } else {
            Err(Error::refused("reading", "the image", "a structure in it lies beyond its end")
                .advice("the image is cut short or damaged"))
        }
    }

    fn keep(&mut self, start: u64, length: u64) -> Result<(), Error> {
        let is_kept = |kept: &Kept| (kept.start, kept.length) == (start, length);
        if self.decoder.stream().format == Format::Raw
            || length > MAX_KEPT
            || self.kept.as_ref().is_some_and(is_kept)
        {
            return Ok(());
        }
        let file = files::in_memory(c"kept").doing("keeping a part of", "the image")?;
        self.kept = Some(Kept { file, start, length, filled: 0 });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::decode::{BUFFER, tests as fixtures};
    use crate::image::{CHUNK, format};

    #[test]
    fn forward_and_backward_reads_of_a_packed_image() {
        let image = fixtures::sample(3 * CHUNK + 10);
        let file = fixtures::member(&image);
        let mut decoder = Decoder::new(&file, format::detect(&file, "x").unwrap());
        let mut buffer = vec![0; BUFFER];
        let mut reader = ImageReader::new(&mut decoder, &mut buffer, None);
        for offset in [0, 2 * CHUNK - 5, 10, 3 * CHUNK, CHUNK, 5] {
            let mut bytes = [0; 10];
            reader.read_exact_at(offset as u64, &mut bytes).unwrap();
            assert_eq!(bytes, image[offset..offset + 10]);
        }
        let mut bytes = [0; 20];
        let consumed = |reader: &ImageReader| reader.decoder.consumed();
        reader.keep(10, 2 * CHUNK as u64).unwrap();
        for offset in [10, CHUNK, 2 * CHUNK - 10, CHUNK + 7, 30] {
            reader.read_exact_at(offset as u64, &mut bytes).unwrap();
            assert_eq!(bytes, image[offset..offset + 20]);
        }
        let before = consumed(&reader);
        reader.read_exact_at(11, &mut bytes).unwrap();
        assert_eq!(consumed(&reader), before, "what is kept was decoded again");
        reader.keep(3 * CHUNK as u64, 100).unwrap();
        assert!(reader.read_exact_at(3 * CHUNK as u64, &mut bytes).is_err());
        let mut bytes = [0; 20];
        assert_eq!(reader.read_at(3 * CHUNK as u64, &mut bytes).unwrap(), 10);
        assert!(reader.read_exact_at(3 * CHUNK as u64, &mut bytes).is_err());
    }

    #[test]
    fn after_the_scan_nothing_is_read_that_it_has_not_seen() {
        let image = fixtures::sample(2 * CHUNK + 700);
        for mut file in [fixtures::stored_member(&image, u16::MAX), image.clone()] {
            let stream = format::detect(&file, "x").unwrap();
            let (map, mut buffer) = (ChunkMap::create().unwrap(), vec![0; BUFFER]);
            crate::image::scan::scan(&mut Decoder::new(&file, stream), &mut buffer, &map).unwrap();
            let read = |file: &Vec<u8>, offset: usize| {
                let mut buffer = vec![0; BUFFER];
                let mut decoder = Decoder::new(file, stream);
                let mut reader = ImageReader::new(&mut decoder, &mut buffer, Some(&map));
                let mut bytes = [0; 10];
                reader.read_exact_at(offset as u64, &mut bytes).map(|()| bytes)
            };
            for offset in [0, CHUNK - 5, 2 * CHUNK + 600] {
                assert_eq!(read(&file, offset).unwrap(), image[offset..offset + 10]);
            }
            file[CHUNK + CHUNK / 2] ^= 1;
            assert_eq!(read(&file, 10).unwrap(), image[10..20]);
            let error = read(&file, CHUNK + 5).unwrap_err();
            let text: crate::text::Text<300> = crate::text!("{}", error);
            assert!(text.contains("chunk 1 of the image: it differs"), "{text:?}");
        }
    }

    #[test]
    fn a_stored_image_begins_and_ends_in_its_archive() {
        let image = fixtures::sample(3000);
        let crc = crate::crc32::crc32(&image);
        let file = crate::image::zip::tests::archive(&image, 3000, crc, 1, 0, false);
        let mut decoder = Decoder::new(&file, format::detect(&file, "x").unwrap());
        let mut buffer = vec![0; BUFFER];
        let mut reader = ImageReader::new(&mut decoder, &mut buffer, None);
        let mut bytes = [0; 20];
        for (offset, count) in [(0, 20), (2980, 20), (2990, 10), (3000, 0), (u64::MAX, 0)] {
            assert_eq!(reader.read_at(offset, &mut bytes).unwrap(), count);
            let start = image.len().min(offset as usize);
            assert_eq!(bytes[..count], image[start..start + count]);
        }
    }
}
