//! Image files: formats, gzip, zip.

use std::sync::Mutex;
use takeover::crc32;
use takeover::error::Error;
use takeover::image::decode::{BUFFER, Decoder, WINDOW};
use takeover::image::format::{self, Format, Stream};
use takeover::image::gzip;
use takeover::image::source::Source;
use takeover::image::{CHUNK, is_zero};

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

/// The input as a file.
pub struct File<'a>(pub &'a [u8]);

impl Source for File<'_> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, Error> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = self.0.get(start..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
    fn length(&self) -> u64 {
        self.0.len() as u64
    }
}

/// More output is not looked at: it has a chunk and the window behind it, and each MiB takes its time.
const MOST_OUTPUT: usize = CHUNK + 2 * WINDOW;

/// The decoder's buffer, and what another decoder made of the same input. Not on the heap, which has its cap.
struct Room {
    buffer: [u8; BUFFER],
    expected: [u8; MOST_OUTPUT],
}

static ROOM: Mutex<Room> = Mutex::new(Room { buffer: [0; BUFFER], expected: [0; MOST_OUTPUT] });

/// Any file: the packed bytes lie in it.
pub fn format(bytes: &[u8]) -> bool {
    let Ok(stream) = format::detect(&File(bytes), "x") else {
        return false;
    };
    assert!(!bytes.is_empty());
    lies_in(bytes, stream);
    match stream.format {
        Format::Gzip => assert!(bytes.starts_with(&[0x1f, 0x8b])),
        // An archive may have a program before it.
        Format::Zip => assert!(bytes.windows(4).any(|bytes| bytes == b"PK\x05\x06")),
        Format::Raw if stream.offset == 0 => assert_eq!(stream.length, bytes.len() as u64),
        // The stored entry of an archive.
        Format::Raw => assert_eq!(stream.length, stream.promised_length),
    }
    true
}

fn lies_in(bytes: &[u8], stream: Stream) {
    let end = stream.offset.checked_add(stream.length);
    assert!(end.is_some_and(|end| end <= bytes.len() as u64), "{stream:?}");
}

/// Where the gzip header at the beginning of `bytes` ends; nothing where there is none, or not all of it.
fn header_length(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    let whole = gzip::read_header(&mut || {
        let byte = bytes.get(at).copied();
        at += usize::from(byte.is_some());
        Ok(byte)
    });
    whole.ok().map(|()| at)
}

/// A gzip header: its end does not depend on what follows, and no part of it is a whole one.
pub fn gzip_header(bytes: &[u8]) -> bool {
    let header = header_length(bytes);
    let cuts = [0, 1, 2, 3, 4, 9, 10, 11, super::hash(bytes) % (bytes.len() + 1)];
    for cut in cuts.into_iter().filter(|cut| *cut < bytes.len()) {
        let expected = header.filter(|length| *length <= cut);
        assert_eq!(header_length(&bytes[..cut]), expected, "cut at {cut}");
    }
    let Some(length) = header else {
        return false;
    };
    assert!((10..=bytes.len()).contains(&length));
    assert_eq!(header_length(&bytes[..length]), Some(length));
    assert_eq!(header_length(&bytes[..length - 1]), None);
    true
}

/// A gzip file: decodes to what another decoder makes of it, or is refused by both; a second pass gives the same.
pub fn gzip(bytes: &[u8]) -> bool {
    let room = &mut *ROOM.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let stream = Stream {
        format: Format::Gzip,
        offset: 0,
        length: bytes.len() as u64,
        promised_crc: 0,
        promised_length: 0,
    };
    let (mended, expected) = mended_gzip(bytes, &mut room.expected);
    if expected == MOST_OUTPUT {
        return false;
    }
    let Some(mended) = mended else {
        assert!(!passes(bytes, stream, room, None), "a broken gzip file is taken");
        return false;
    };
    // Zeros may follow the last member.
    let behind = bytes.strip_prefix(&mended[..]);
    let is_whole = behind.is_some_and(is_zero);
    assert_eq!(passes(bytes, stream, room, is_whole.then_some(expected)), is_whole);
    let stream = Stream { length: mended.len() as u64, ..stream };
    assert!(passes(&mended, stream, room, Some(expected)), "a good gzip file is refused");
    is_whole
}

/// Decodes twice with one decoder. With `expected`, that many bytes of the room are what must come out.
fn passes(bytes: &[u8], stream: Stream, room: &mut Room, expected: Option<usize>) -> bool {
    let file = File(bytes);
    let mut decoder = Decoder::new(&file, stream);
    let first = pass(&mut decoder, room, expected);
    decoder.restart();
    assert_eq!(first, pass(&mut decoder, room, expected), "the second pass differs");
    if expected.is_some() && first.is_some() {
        assert_eq!(decoder.consumed(), stream.length);
        assert_eq!(
            decoder.packed_crc(),
            crc32::crc32(&bytes[stream.offset as usize..][..stream.length as usize])
        );
    }
    first.is_some()
}

/// The length and CRC of what was decoded; nothing when it was refused.
fn pass(decoder: &mut Decoder, room: &mut Room, expected: Option<usize>) -> Option<(usize, u32)> {
    let (mut length, mut crc) = (0, 0);
    loop {
        let filled = decoder.fill(&mut room.buffer).ok()?;
        let chunk = &room.buffer[WINDOW..WINDOW + filled.length];
        // Of a whole chunk it takes long, and the CRC of the member is made of it.
        assert!(chunk.len() == CHUNK || filled.crc == crc32::crc32(chunk));
        assert_eq!(filled.zero, is_zero(chunk));
        if filled.length == 0 {
            assert!(expected.is_none_or(|expected| expected == length), "bytes are missing");
            return Some((length, crc));
        }
        assert!(length.is_multiple_of(CHUNK), "a chunk behind the last one");
        if expected.is_some() {
            assert!(chunk == &room.expected[length..length + chunk.len()], "other bytes");
        }
        length += chunk.len();
        crc = crc32::combine(crc, filled.crc, chunk.len() as u64);
        // Deflate cannot pack better than 1032 : 1.
        assert!(length <= 1032 * decoder.stream().length as usize, "more than deflate can hold");
    }
}

/// The file with every CRC and length put right and what follows the last whole member cut off, if it is made of gzip
/// members, and how long its content in `output` is.
fn mended_gzip(bytes: &[u8], output: &mut [u8]) -> (Option<Vec<u8>>, usize) {
    let mut mended = Vec::new();
    let mut filled = 0;
    let mut rest = bytes;
    while let Some(header) = header_length(rest) {
        let packed = &rest[header..];
        let Some((read, written)) = inflated(packed, &mut output[filled..]) else {
            return (None, output.len());
        };
        if read == 0 {
            break;
        }
        mended.extend(&rest[..header + read]);
        mended.extend(crc32::crc32(&output[filled..filled + written]).to_le_bytes());
        mended.extend((written as u32).to_le_bytes());
        filled += written;
        rest = packed.get(read + 8..).unwrap_or_default();
    }
    (Some(mended).filter(|mended| !mended.is_empty()), filled)
}

/// How many bytes a deflate stream has and gives: (0, 0) when it is broken, nothing when `output` is too short.
fn inflated(packed: &[u8], output: &mut [u8]) -> Option<(usize, usize)> {
    let mut inflate = DecompressorOxide::new();
    let flags = TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    match decompress(&mut inflate, packed, output, 0, flags) {
        (TINFLStatus::Done, read, written) => Some((read, written)),
        (TINFLStatus::HasMoreOutput, ..) => None,
        _ => Some((0, 0)),
    }
}

/// A zip archive: the entry lies in it, and decodes to what its directory promises.
pub fn zip(bytes: &[u8]) -> bool {
    let Ok(stream) = takeover::image::zip::find_entry(&File(bytes), "x") else {
        return false;
    };
    lies_in(bytes, stream);
    let room = &mut *ROOM.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let packed = &bytes[stream.offset as usize..][..stream.length as usize];
    let unpacked = match stream.format {
        Format::Raw => {
            room.expected[..packed.len()].copy_from_slice(packed);
            Some((packed.len(), packed.len()))
        }
        _ => inflated(packed, &mut room.expected),
    };
    let Some((read, written)) = unpacked else {
        return true;
    };
    let crc = crc32::crc32(&room.expected[..written]);
    // Bytes behind the deflate stream are left out; of the length the lower half counts.
    let promised = (stream.promised_crc, stream.promised_length as u32);
    let is_kept = (read != 0 || packed.is_empty() && stream.format == Format::Raw)
        && promised == (crc, written as u32);
    assert_eq!(passes(bytes, stream, room, is_kept.then_some(written)), is_kept);
    if read != 0 {
        let right = Stream { promised_crc: crc, promised_length: written as u64, ..stream };
        assert!(passes(bytes, right, room, Some(written)), "a good zip entry is refused");
    }
    true
}
