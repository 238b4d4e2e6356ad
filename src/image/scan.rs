//! The scan: one full decode, before anything is changed.
//!
//! It proves that the image can be decoded to its end, and leaves its length, the CRC-32 and the zero flag of each
//! chunk. What is in the image is looked at afterwards, through [`super::reader`].

use super::decode::{Decoder, WINDOW};
use super::map::{ChunkMap, Record};
use super::stream::Format;
use super::{CHUNK, is_zero};
use crate::error::Error;
use crate::progress::Rate;

/// What an image is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scan {
    /// The image's length on the disk, in bytes.
    pub length: u64,
    /// How many chunks it has.
    pub chunks: u32,
    /// How many of them are all zeros.
    pub zero_chunks: u32,
    /// The CRC-32 of the chunk map.
    pub map_crc: u32,
    /// How much memory the packed image takes in a memory file system, zero pages of raw images left out.
    pub staged_length: u64,
    /// The CRC-32 of the packed bytes, by which a copy of them is proven.
    pub packed_crc: u32,
}

/// Decodes the whole image and fills `map`. `buffer` is [`super::decode::BUFFER`] long.
pub fn scan(decoder: &mut Decoder, buffer: &mut [u8], map: &ChunkMap) -> Result<Scan, Error> {
    decoder.restart();
    scan_on(decoder, buffer, map, 0)
}

/// The same from where the decoder of a packed image is on; the first `seen` chunks are in the map already.
pub fn scan_on(
    decoder: &mut Decoder,
    buffer: &mut [u8],
    map: &ChunkMap,
    seen: u32,
) -> Result<Scan, Error> {
    let stream = decoder.stream();
    // What memory file systems are made of: 4 KiB mostly, 16 or 64 on some arm64 kernels.
    let page_size = crate::sys::map::page_size();
    let first = decoder.produced().div_ceil(CHUNK as u64) as u32;
    let mut scan = Scan {
        length: 0,
        chunks: first,
        zero_chunks: 0,
        map_crc: 0,
        packed_crc: 0,
        staged_length: stream.length.next_multiple_of(page_size as u64),
    };
    for index in 0..first {
        scan.zero_chunks += u32::from(map.get(index)?.zero);
    }
    let mut pages = 0;
    // Whoever fetches it says how far that is.
    let is_here = decoder.source().to_come() == 0;
    let mut rate = Rate::start_from("scan", stream.length, decoder.consumed());
    loop {
        let filled = decoder.fill(buffer)?;
        if filled.length == 0 {
            break;
        }
        let record = Record::of(filled);
        if scan.chunks < seen {
            map.check(scan.chunks, record)?;
        } else {
            map.set(scan.chunks, record)?;
        }
        scan.chunks = next_index(scan.chunks)?;
        scan.zero_chunks += u32::from(filled.zero);
        if stream.format == Format::Raw {
            let chunk = buffer.get(WINDOW..WINDOW + filled.length).unwrap_or_default();
            pages += chunk.chunks(page_size).filter(|page| !is_zero(page)).count() as u64;
        }
        if is_here {
            rate.advance(decoder.consumed());
        }
    }
    if is_here {
        rate.end("looking into it");
    }
    if stream.format == Format::Raw {
        scan.staged_length = pages * page_size as u64;
    }
    scan.length = decoder.produced();
    scan.packed_crc = decoder.packed_crc();
    scan.map_crc = map.crc(scan.chunks)?;
    Ok(scan)
}

/// Chunks are numbered with 32 bits: 4 PiB.
fn next_index(index: u32) -> Result<u32, Error> {
    index
        .checked_add(1)
        .ok_or_else(|| Error::refused("scanning", "the image", "it is larger than 4 PiB"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crc32;
    use crate::image::decode::{BUFFER, tests as fixtures};
    use crate::image::format;

    #[test]
    fn length_zeros_and_crcs_of_each_chunk() {
        let mut image = fixtures::sample(4 * CHUNK + 512);
        image[CHUNK..3 * CHUNK].fill(0);
        let page = crate::sys::map::page_size();
        image[3 * CHUNK + page..3 * CHUNK + 2 * page].fill(0);
        let file = fixtures::member(&image);
        for file in [file, image.clone()] {
            let stream = format::detect(&file, "x").unwrap();
            let map = ChunkMap::create().unwrap();
            let mut decoder = Decoder::new(&file, stream);
            let found = scan(&mut decoder, &mut vec![0; BUFFER], &map).unwrap();
            assert_eq!(found.packed_crc, crc32::crc32(&file));
            assert_eq!((found.length, found.chunks, found.zero_chunks), (image.len() as u64, 5, 2));
            for (index, chunk) in image.chunks(CHUNK).enumerate() {
                let record = map.get(index as u32).unwrap();
                assert_eq!(record.crc, crc32::crc32(chunk));
                assert_eq!(record.zero, index == 1 || index == 2);
            }
            // Of a raw one two chunks but for a page, and the page with the last 512 bytes.
            let staged = match stream.format {
                Format::Raw => 2 * CHUNK,
                _ => file.len().next_multiple_of(page),
            };
            assert_eq!(found.staged_length, staged as u64);
        }
    }
}
