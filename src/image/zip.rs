//! Zip archives: where the one deflated entry lies (APPNOTE.TXT 6.3.10, PKWARE; zip64 included).
//!
//! The central directory at the end decides, as it does for every unpacker. More than one file, encryption and other
//! methods are refused.

use super::source::Source;
use super::stream::{Format, Stream};
use crate::error::Error;

const END_OF_DIRECTORY: &[u8] = b"PK\x05\x06";
const END_OF_DIRECTORY_64: &[u8] = b"PK\x06\x06";
const LOCATOR_64: &[u8] = b"PK\x06\x07";
const DIRECTORY_ENTRY: &[u8] = b"PK\x01\x02";
const LOCAL_ENTRY: &[u8] = b"PK\x03\x04";
const END_LENGTH: usize = 22;
/// How far from the end the end record is looked for: it carries a comment of at most 64 KiB, and real ones are
/// short.
const SEARCH: usize = 4096;

/// Finds the packed image in a zip archive.
pub fn find_entry(source: &impl Source, name: &str) -> Result<Stream, Error> {
    let refuse = |why: &str| {
        Error::refused("reading the zip archive", name, why)
            .advice("make an archive with one deflated file, the image")
    };
    let (count, directory) = find_directory(source)?
        .ok_or_else(|| refuse("its directory is missing: the file is cut short or damaged"))?;
    if count != 1 {
        let why: crate::text::Text<80> = crate::text!("it holds {} entries instead of one", count);
        return Err(refuse(&why));
    }
    let mut entry = [0; 46];
    read_exact(source, directory, &mut entry)?
        .filter(|()| entry.starts_with(DIRECTORY_ENTRY))
        .ok_or_else(|| refuse("its directory is damaged"))?;
    if u16_at(&entry, 8) & 1 != 0 {
        return Err(refuse("its entry is encrypted"));
    }
    if u16_at(&entry, 10) != 8 {
        let why: crate::text::Text<80> =
            crate::text!("its entry is packed with method {}, not deflated", u16_at(&entry, 10));
        return Err(refuse(&why));
    }
    let sizes = read_sizes(source, directory, &entry)?
        .ok_or_else(|| refuse("its directory entry is damaged"))?;
    let offset = data_offset(source, sizes.local_offset)?
        .ok_or_else(|| refuse("the entry's local header is damaged"))?;
    let end = offset.checked_add(sizes.packed);
    if end.is_none_or(|end| end > directory) {
        return Err(refuse("its entry reaches beyond the file"));
    }
    Ok(Stream {
        format: Format::Zip,
        offset,
        length: sizes.packed,
        promised_crc: u32_at(&entry, 16),
        promised_length: sizes.unpacked,
    })
}

/// The number of entries, and where the central directory begins.
fn find_directory(source: &impl Source) -> Result<Option<(u64, u64)>, Error> {
    let mut tail = [0; SEARCH];
    let start = source.length().saturating_sub(SEARCH as u64);
    let count = source.read_at(start, &mut tail)?;
    let tail = tail.get(..count).unwrap_or_default();
    let last = tail.len().saturating_sub(END_LENGTH);
    for position in (0..=last).rev() {
        let Some(end) = tail.get(position..position + END_LENGTH) else {
            continue;
        };
        if !end.starts_with(END_OF_DIRECTORY) {
            continue;
        }
        let (count, offset) = (u16_at(end, 10), u32_at(end, 16));
        if count == u16::MAX || offset == u32::MAX {
            return find_directory_64(source, start + position as u64);
        }
        return Ok(Some((count.into(), offset.into())));
    }
    Ok(None)
}

/// The same from the zip64 records, which lie before the end record at `end`.
fn find_directory_64(source: &impl Source, end: u64) -> Result<Option<(u64, u64)>, Error> {
    let mut locator = [0; 20];
    let Some(at) = end.checked_sub(20) else {
        return Ok(None);
    };
    if read_exact(source, at, &mut locator)?.is_none() || !locator.starts_with(LOCATOR_64) {
        return Ok(None);
    }
    let mut record = [0; 56];
    let found = read_exact(source, u64_at(&locator, 8), &mut record)?;
    if found.is_none() || !record.starts_with(END_OF_DIRECTORY_64) {
        return Ok(None);
    }
    Ok(Some((u64_at(&record, 32), u64_at(&record, 48))))
}

struct Sizes {
    packed: u64,
    unpacked: u64,
    local_offset: u64,
}

/// The sizes of a directory entry: 32 bits each, or 64 in the zip64 extra field (id 1), in the order unpacked,
/// packed, offset, each only when its 32-bit form is all ones.
fn read_sizes(source: &impl Source, at: u64, entry: &[u8; 46]) -> Result<Option<Sizes>, Error> {
    let mut sizes = Sizes {
        packed: u32_at(entry, 20).into(),
        unpacked: u32_at(entry, 24).into(),
        local_offset: u32_at(entry, 42).into(),
    };
    let name_length = u64::from(u16_at(entry, 28));
    let extra_length = usize::from(u16_at(entry, 30));
    let mut extra = [0; 512];
    let Some(extra) = extra.get_mut(..extra_length) else {
        return Ok(None);
    };
    if read_exact(source, at + 46 + name_length, extra)?.is_none() {
        return Ok(None);
    }
    let mut wide = zip64_fields(extra).as_chunks::<8>().0.iter();
    for size in [&mut sizes.unpacked, &mut sizes.packed, &mut sizes.local_offset] {
        if *size == u64::from(u32::MAX) {
            let Some(value) = wide.next() else {
                return Ok(None);
            };
            *size = u64::from_le_bytes(*value);
        }
    }
    Ok(Some(sizes))
}

/// The content of the zip64 extra field, empty when there is none.
fn zip64_fields(mut extra: &[u8]) -> &[u8] {
    while let Some((header, rest)) = extra.split_at_checked(4) {
        let length = usize::from(u16_at(header, 2)).min(rest.len());
        let (content, next) = rest.split_at(length);
        if u16_at(header, 0) == 1 {
            return content;
        }
        extra = next;
    }
    &[]
}

/// Where the packed bytes begin: behind the local header, whose name and extra field have lengths of their own.
fn data_offset(source: &impl Source, local: u64) -> Result<Option<u64>, Error> {
    let mut header = [0; 30];
    if read_exact(source, local, &mut header)?.is_none() || !header.starts_with(LOCAL_ENTRY) {
        return Ok(None);
    }
    let skipped = 30 + u64::from(u16_at(&header, 26)) + u64::from(u16_at(&header, 28));
    Ok(local.checked_add(skipped))
}

fn read_exact(source: &impl Source, at: u64, buffer: &mut [u8]) -> Result<Option<()>, Error> {
    Ok((source.read_at(at, buffer)? == buffer.len()).then_some(()))
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::text::Text;

    /// An archive with `count` entries of the same packed bytes; `method` as in the specification.
    pub fn archive(
        packed: &[u8],
        unpacked: u64,
        crc: u32,
        count: u16,
        method: u16,
        wide: bool,
    ) -> Vec<u8> {
        let mut file = Vec::new();
        let mut directory = Vec::new();
        for _ in 0..count {
            let local = file.len() as u64;
            file.extend(LOCAL_ENTRY);
            file.extend([20, 0, 0, 0]);
            file.extend(method.to_le_bytes());
            file.extend([0; 4]);
            file.extend(crc.to_le_bytes());
            file.extend((packed.len() as u32).to_le_bytes());
            file.extend((unpacked as u32).to_le_bytes());
            file.extend([3, 0, 5, 0]);
            file.extend(b"imgEXTRA");
            file[local as usize + 28..local as usize + 30].copy_from_slice(&5u16.to_le_bytes());
            file.extend(packed);
            directory.extend(DIRECTORY_ENTRY);
            directory.extend([20, 0, 20, 0, 0, 0]);
            directory.extend(method.to_le_bytes());
            directory.extend([0; 4]);
            directory.extend(crc.to_le_bytes());
            let small = |value: u64| if wide { u32::MAX } else { value as u32 }.to_le_bytes();
            directory.extend(small(packed.len() as u64));
            directory.extend(small(unpacked));
            directory.extend(3u16.to_le_bytes());
            directory.extend((if wide { 28u16 } else { 0 }).to_le_bytes());
            directory.extend([0; 10]);
            directory.extend(small(local));
            directory.extend(b"img");
            if wide {
                directory.extend([1, 0, 24, 0]);
                for value in [unpacked, packed.len() as u64, local] {
                    directory.extend(value.to_le_bytes());
                }
            }
        }
        let start = file.len() as u64;
        file.extend(&directory);
        if wide {
            let record = file.len() as u64;
            file.extend(END_OF_DIRECTORY_64);
            file.extend(44u64.to_le_bytes());
            file.extend([0; 20]);
            file.extend(u64::from(count).to_le_bytes());
            file.extend((directory.len() as u64).to_le_bytes());
            file.extend(start.to_le_bytes());
            file.extend(LOCATOR_64);
            file.extend([0; 4]);
            file.extend(record.to_le_bytes());
            file.extend([1, 0, 0, 0]);
        }
        file.extend(END_OF_DIRECTORY);
        file.extend([0; 4]);
        for _ in 0..2 {
            file.extend((if wide { u16::MAX } else { count }).to_le_bytes());
        }
        file.extend((directory.len() as u32).to_le_bytes());
        file.extend((if wide { u32::MAX } else { start as u32 }).to_le_bytes());
        file.extend([7, 0]);
        file.extend(b"comment");
        file
    }

    fn refusal(file: Vec<u8>) -> String {
        let text: Text<500> = crate::text!("{}", find_entry(&file, "x.zip").unwrap_err());
        text.to_string()
    }

    #[test]
    fn the_entry_is_found_in_both_widths() {
        for wide in [false, true] {
            let file = archive(b"packed", 99, 7, 1, 8, wide);
            let stream = find_entry(&file, "x.zip").unwrap();
            let start = stream.offset as usize;
            assert_eq!(&file[start..start + stream.length as usize], b"packed");
            assert_eq!((stream.promised_length, stream.promised_crc), (99, 7));
        }
    }

    #[test]
    fn what_is_not_one_deflated_entry_is_refused() {
        assert!(refusal(archive(b"a", 1, 0, 2, 8, false)).contains("2 entries"));
        assert!(refusal(archive(b"a", 1, 0, 1, 0, false)).contains("method 0"));
        assert!(refusal(b"PK\x03\x04 and then nothing".to_vec()).contains("cut short"));
        let mut encrypted = archive(b"a", 1, 0, 1, 8, false);
        let at = encrypted.windows(4).position(|w| w == DIRECTORY_ENTRY).unwrap();
        encrypted[at + 8] = 1;
        assert!(refusal(encrypted).contains("encrypted"));
    }

    #[test]
    fn no_cut_or_flipped_archive_panics() {
        let file = archive(b"packed", 6, 7, 1, 8, true);
        for end in 0..file.len() {
            let _ = find_entry(&file[..end].to_vec(), "x");
        }
        for position in 0..file.len() {
            let mut damaged = file.clone();
            damaged[position] ^= 0xff;
            let _ = find_entry(&damaged, "x");
        }
    }

    #[test]
    fn an_entry_that_reaches_into_the_directory_is_refused() {
        let mut file = archive(b"packed", 99, 7, 1, 8, false);
        let at = file.windows(4).position(|w| w == DIRECTORY_ENTRY).unwrap();
        file[at + 20] += 1;
        assert!(refusal(file).contains("beyond the file"));
    }
}
