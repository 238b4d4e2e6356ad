//! Zip archives: where the one entry lies that is an image (APPNOTE.TXT 6.3.10, PKWARE; zip64 included).
//!
//! The central directory at the end decides, as it does for every unpacker: for the sizes, too, since whoever writes to
//! a pipe knows none when an entry begins. More than one file, encryption, several volumes and all methods but deflate
//! and "stored" are refused.

use super::source::Source;
use super::stream::{Format, Stream};
use crate::bytes::little_endian;
use crate::error::Error;
use crate::text::Text;

const END_OF_DIRECTORY: &[u8] = b"PK\x05\x06";
const END_OF_DIRECTORY_64: &[u8] = b"PK\x06\x06";
const LOCATOR_64: &[u8] = b"PK\x06\x07";
const DIRECTORY_ENTRY: &[u8] = b"PK\x01\x02";
const LOCAL_ENTRY: &[u8] = b"PK\x03\x04";
const END_LENGTH: u64 = 22;
/// How far before the end of the file the end record may begin, in bytes: behind it lie a comment of up to 64 KiB and
/// what fills the last block. Unzip looks at least as far.
const SEARCH: u64 = 66_000;
/// The flag of an entry that is encrypted.
const ENCRYPTED: u64 = 1;
/// The flag of an entry whose CRC and sizes follow its data: those in the local header are zeros.
const STREAMED: u64 = 8;
/// The methods that are taken.
const STORED: u64 = 0;
const DEFLATED: u64 = 8;
/// Other methods that are in use, by number.
const METHODS: [(u64, &str); 8] = [
    (6, "Implode"),
    (9, "Deflate64"),
    (12, "bzip2"),
    (14, "LZMA"),
    (20, "Zstandard"),
    (93, "Zstandard"),
    (95, "xz"),
    (98, "PPMd"),
];

/// Finds the image in a zip archive.
pub fn find_entry(source: &dyn Source, name: &str) -> Result<Stream, Error> {
    locate(source).map_err(|error| error.about(name))
}

/// True when a file, whatever it begins with, ends in the directory of a zip archive: one that unpacks itself begins
/// with a program.
pub fn has_directory(source: &dyn Source) -> bool {
    let mut first = [0; 4];
    find_directory(source).is_ok_and(|directory| {
        read(source, directory.start, &mut first).unwrap_or(false) && first == *DIRECTORY_ENTRY
    })
}

fn locate(source: &dyn Source) -> Result<Stream, Error> {
    let directory = find_directory(source)?;
    let entry = find_image(source, &directory)?;
    let flags = little_endian::<2>(&entry.record, 8);
    if flags & ENCRYPTED != 0 {
        return Err(unpack_it("its entry is encrypted"));
    }
    let format = match little_endian::<2>(&entry.record, 10) {
        DEFLATED => Format::Zip,
        STORED => Format::Raw,
        method => return Err(other_method(method)),
    };
    let sizes = read_sizes(source, &entry)?;
    if format == Format::Raw && sizes.packed != sizes.unpacked {
        return Err(damaged("the two sizes of its stored entry differ"));
    }
    let offset = data_offset(source, &directory, sizes.local_offset, &entry.record)?;
    if offset.checked_add(sizes.packed).is_none_or(|end| end > directory.start) {
        return Err(damaged("its entry reaches beyond the file"));
    }
    Ok(Stream {
        format,
        offset,
        length: sizes.packed,
        promised_crc: little_endian::<4>(&entry.record, 16) as u32,
        promised_length: sizes.unpacked,
    })
}

/// The central directory.
struct Directory {
    /// Where it begins and ends in the file.
    start: u64,
    end: u64,
    /// How many entries the end record promises, modulo 2^16.
    entries: u64,
    /// How much further back everything lies than the archive says: a program that unpacks the archive lies before it.
    shift: u64,
}

/// An entry of the central directory.
struct Entry {
    /// Where it begins in the file.
    at: u64,
    /// Its part of fixed length.
    record: [u8; 46],
}

impl Entry {
    fn name_length(&self) -> u64 {
        little_endian::<2>(&self.record, 28)
    }

    fn extra_length(&self) -> u64 {
        little_endian::<2>(&self.record, 30)
    }

    fn end(&self) -> u64 {
        self.at
            + 46
            + self.name_length()
            + self.extra_length()
            + little_endian::<2>(&self.record, 32)
    }
}

/// The one entry that is a file. Folders are passed over, and what macOS keeps beside each file.
fn find_image(source: &dyn Source, directory: &Directory) -> Result<Entry, Error> {
    let mut image = None;
    let (mut entries, mut files) = (0, 0);
    let mut at = directory.start;
    while at < directory.end {
        let mut entry = Entry { at, record: [0; 46] };
        if !read(source, at, &mut entry.record)? || !entry.record.starts_with(DIRECTORY_ENTRY) {
            return Err(damaged("its directory is damaged"));
        }
        at = entry.end();
        entries += 1;
        if !is_beside(source, &entry)? {
            files += 1;
            image = Some(entry);
        }
    }
    if at != directory.end || entries & 0xffff != directory.entries {
        return Err(damaged("its directory has not the length that is recorded: it is damaged"));
    }
    image.filter(|_| files == 1).ok_or_else(|| {
        let why: Text<80> = crate::text!("it holds {} files instead of one", files);
        unpack_it(&why)
    })
}

/// True for a folder, and for the folder of macOS with what its own file systems know of a file.
fn is_beside(source: &dyn Source, entry: &Entry) -> Result<bool, Error> {
    let mut name = [0; 9];
    let mut last = [0];
    source.read_at(entry.at + 46, &mut name)?;
    source.read_at(entry.at + 45 + entry.name_length(), &mut last)?;
    Ok(last == *b"/" || entry.name_length() > 9 && name == *b"__MACOSX/")
}

/// Where the end record begins: the last one that is in the file.
fn find_end(source: &dyn Source) -> Result<Option<u64>, Error> {
    let mut window = [0; 4096];
    let mut end = source.length();
    let last = end.saturating_sub(SEARCH);
    while end > last {
        let start = end.saturating_sub(window.len() as u64);
        let count = source.read_at(start, &mut window)?.min((end - start) as usize);
        let found = window.get(..count).unwrap_or_default();
        if let Some(place) = found.windows(4).rposition(|bytes| bytes == END_OF_DIRECTORY) {
            return Ok(Some(start + place as u64));
        }
        // The next window ends behind the first three bytes of this one: a signature may begin before them.
        end = if start == 0 { 0 } else { start + 3 };
    }
    Ok(None)
}

fn find_directory(source: &dyn Source) -> Result<Directory, Error> {
    let missing = "its directory is missing: the file is cut short, or one of several volumes";
    let mut record = [0; END_LENGTH as usize];
    let end = find_end(source)?.ok_or_else(|| damaged(missing))?;
    if !read(source, end, &mut record)? {
        return Err(damaged(missing));
    }
    let volume = little_endian::<2>(&record, 4);
    let entries = little_endian::<2>(&record, 10);
    let size = little_endian::<4>(&record, 12);
    let offset = little_endian::<4>(&record, 16);
    let is_wide = entries == 0xffff || size == 0xffff_ffff || offset == 0xffff_ffff;
    if is_wide {
        return find_directory_64(source, end);
    }
    Directory::new(volume, entries, size, offset, end)
}

/// The same from the zip64 records, which lie before the end record at `end`.
fn find_directory_64(source: &dyn Source, end: u64) -> Result<Directory, Error> {
    let mut locator = [0; 20];
    let mut record = [0; 56];
    let at = end.saturating_sub(20);
    if read(source, at, &mut locator)? && locator.starts_with(LOCATOR_64) {
        // Where the locator says, or right before it when something lies before the archive.
        for record_at in [little_endian::<8>(&locator, 8), at.saturating_sub(56)] {
            if read(source, record_at, &mut record)? && record.starts_with(END_OF_DIRECTORY_64) {
                let number = |at| little_endian::<8>(&record, at);
                let volume = little_endian::<4>(&record, 16);
                return Directory::new(volume, number(32), number(40), number(48), record_at);
            }
        }
    }
    Err(damaged("its zip64 directory is missing"))
}

impl Directory {
    /// The directory of `size` bytes that ends at `end` and begins, as the archive says, at `offset`.
    fn new(volume: u64, entries: u64, size: u64, offset: u64, end: u64) -> Result<Self, Error> {
        if volume != 0 {
            return Err(refused("it is the last of several volumes")
                .advice("make one archive of them (zip -s 0 ARCHIVE --out WHOLE)"));
        }
        let start = end.checked_sub(size);
        let shift = start.and_then(|start| start.checked_sub(offset));
        let (Some(start), Some(shift)) = (start, shift) else {
            return Err(damaged("its directory lies before its beginning: bytes are missing"));
        };
        Ok(Self { start, end, entries: entries & 0xffff, shift })
    }
}

struct Sizes {
    packed: u64,
    unpacked: u64,
    local_offset: u64,
}

/// The sizes of a directory entry: 32 bits each, or 64 in the zip64 extra field, in the order unpacked, packed, offset,
/// each only when its 32-bit form is all ones.
fn read_sizes(source: &dyn Source, entry: &Entry) -> Result<Sizes, Error> {
    let number = |at| little_endian::<4>(&entry.record, at);
    let mut sizes = Sizes { packed: number(20), unpacked: number(24), local_offset: number(42) };
    let fields = zip64_fields(source, entry)?;
    let mut wide = fields.as_chunks::<8>().0.iter();
    for size in [&mut sizes.unpacked, &mut sizes.packed, &mut sizes.local_offset] {
        if *size == 0xffff_ffff {
            let value = wide.next().ok_or_else(|| damaged("a size of its entry is missing"))?;
            *size = u64::from_le_bytes(*value);
        }
    }
    Ok(sizes)
}

/// What of the zip64 extra field (id 1) can be needed; empty when there is none.
fn zip64_fields(source: &dyn Source, entry: &Entry) -> Result<heapless::Vec<u8, 24>, Error> {
    let mut fields = heapless::Vec::new();
    let mut at = entry.at + 46 + entry.name_length();
    let end = at + entry.extra_length();
    while at + 4 <= end {
        let mut header = [0; 4];
        let mut content = [0; 24];
        if !read(source, at, &mut header)? {
            break;
        }
        let length = little_endian::<2>(&header, 2).min(end - at - 4);
        if little_endian::<2>(&header, 0) == 1 {
            let count = source.read_at(at + 4, &mut content)?.min(length as usize);
            let _ = fields.extend_from_slice(content.get(..count).unwrap_or_default());
            break;
        }
        at += 4 + length;
    }
    Ok(fields)
}

/// Where the packed bytes begin: behind the local header, whose name and extra field have lengths of their own. Fails
/// where it contradicts the directory: unpackers believe the one or the other.
fn data_offset(
    source: &dyn Source,
    directory: &Directory,
    local: u64,
    entry: &[u8; 46],
) -> Result<u64, Error> {
    let mut header = [0; 30];
    // The second one is for archives beyond 4 GiB, whose directory is said to lie at a place modulo 2^32.
    for at in [local.saturating_add(directory.shift), local] {
        if !read(source, at, &mut header)? || !header.starts_with(LOCAL_ENTRY) {
            continue;
        }
        let is_streamed = little_endian::<2>(&header, 6) & STREAMED != 0;
        let differs = |at, in_entry| header.get(at..at + 4) != entry.get(in_entry..in_entry + 4);
        if little_endian::<2>(&header, 8) != little_endian::<2>(entry, 10)
            || !is_streamed && differs(14, 16)
        {
            return Err(damaged("its directory and the header of its entry differ"));
        }
        return Ok(at + 30 + little_endian::<2>(&header, 26) + little_endian::<2>(&header, 28));
    }
    Err(damaged("the header of its entry is damaged"))
}

/// Fills `buffer`; false when the file ends before. What damage makes of a place, no system call has to take.
fn read(source: &dyn Source, at: u64, buffer: &mut [u8]) -> Result<bool, Error> {
    Ok(at < source.length() && source.read_at(at, buffer)? == buffer.len())
}

/// Of which archive, [`find_entry`] says.
fn refused(why: &str) -> Error {
    Error::refused("reading the zip archive", "", why)
}

fn damaged(why: &str) -> Error {
    refused(why).advice("fetch it again and compare its checksum")
}

/// An archive that is whole, and holds more or other things than are read here.
fn unpack_it(why: &str) -> Error {
    refused(why).advice("unpack it, and give the image that was in it")
}

fn other_method(method: u64) -> Error {
    let known = METHODS.iter().find(|(number, _)| *number == method);
    let name = known.map_or("one that is not known here", |(_, name)| *name);
    let why: Text<120> =
        crate::text!("its entry is packed with method {} ({}), not with deflate", method, name);
    unpack_it(&why)
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
        assert!(refusal(archive(b"a", 1, 0, 2, 8, false)).contains("2 files"));
        for (method, name) in METHODS.into_iter().chain([(97, "not known")]) {
            let why = refusal(archive(b"a", 1, 0, 1, method as u16, false));
            assert!(why.contains(name) && why.contains("unpack it"), "{why}");
        }
        assert!(refusal(b"PK\x03\x04 and then nothing".to_vec()).contains("cut short"));
        let mut encrypted = archive(b"a", 1, 0, 1, 8, false);
        let at = encrypted.windows(4).position(|w| w == DIRECTORY_ENTRY).unwrap();
        encrypted[at + 8] = 1;
        assert!(refusal(encrypted).contains("encrypted"));
    }

    /// The archive with this comment instead of its own of seven bytes.
    fn with_comment(file: &[u8], comment: &[u8]) -> Vec<u8> {
        let (front, _) = file.split_at(file.len() - 9);
        [front, &(comment.len() as u16).to_le_bytes(), comment].concat()
    }

    #[test]
    fn the_end_record_is_found_behind_what_follows_it() {
        for wide in [false, true] {
            let file = archive(b"packed", 99, 7, 1, 8, wide);
            let expected = find_entry(&file, "x").unwrap();
            for length in (4060..4110).chain([0, 1, 8189, 65_535]) {
                let commented = with_comment(&file, &vec![b'c'; length]);
                assert_eq!(find_entry(&commented, "x").unwrap(), expected, "{length}");
                let padded = [&file[..], &vec![0; length]].concat();
                assert_eq!(find_entry(&padded, "x").unwrap(), expected, "{length} zeros");
            }
            let far = [&file[..], &vec![0; 80_000]].concat();
            assert!(refusal(far).contains("directory is missing"));
        }
    }

    #[test]
    fn a_program_before_the_archive_moves_all_of_it() {
        for wide in [false, true] {
            let file = archive(b"packed", 99, 7, 1, 8, wide);
            let expected = find_entry(&file, "x").unwrap();
            let whole = [&b"MZ and a program"[..], &file].concat();
            let found = find_entry(&whole, "x").unwrap();
            assert_eq!(found, Stream { offset: expected.offset + 16, ..expected });
            assert_eq!(crate::image::format::detect(&whole, "x").unwrap(), found);
            let two = [b"MZ and a program", &archive(b"packed", 99, 7, 2, 8, wide)[..]].concat();
            let why: Text<500> =
                crate::text!("{}", crate::image::format::detect(&two, "x").unwrap_err());
            assert!(why.contains("2 files"), "{}", &*why);
            // A disk is no archive, whatever lies at its end.
            let mut disk = vec![0; 512];
            disk[510..].copy_from_slice(&[0x55, 0xaa]);
            disk.extend(&file);
            let found = crate::image::format::detect(&disk, "x").unwrap();
            assert_eq!((found.format, found.length), (Format::Raw, disk.len() as u64));
            let why = refusal(file[10..].to_vec());
            assert!(why.contains("bytes are missing") || why.contains("damaged"), "{why}");
        }
    }

    /// An archive with entries of these names, all with the same content.
    fn named(names: &[&str]) -> Vec<u8> {
        let (mut file, mut directory) = (Vec::new(), Vec::new());
        for name in names {
            let local = (file.len() as u32).to_le_bytes();
            let length = (name.len() as u16).to_le_bytes();
            let numbers =
                [&[20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 9, 9, 9, 2, 0, 0, 0, 2, 0, 0, 0], &length[..]]
                    .concat();
            file.extend([LOCAL_ENTRY, &numbers, &[0, 0], name.as_bytes(), b"ab"].concat());
            directory.extend(
                [DIRECTORY_ENTRY, &[20, 0], &numbers, &[0; 12], &local, name.as_bytes()].concat(),
            );
        }
        let (start, size) =
            ((file.len() as u32).to_le_bytes(), (directory.len() as u32).to_le_bytes());
        file.extend(directory);
        let count = (names.len() as u16).to_le_bytes();
        file.extend([END_OF_DIRECTORY, &[0; 4], &count, &count, &size, &start, &[0, 0]].concat());
        file
    }

    #[test]
    fn folders_and_what_macos_keeps_are_passed_over() {
        for names in [
            &["a.img"][..],
            &["images/", "images/a.img"],
            &["a.img", "__MACOSX/", "__MACOSX/._a.img"],
            &["/", "a.img", "z/"],
        ] {
            let file = named(names);
            let stream = find_entry(&file, "x").unwrap();
            assert_eq!((stream.format, stream.length), (Format::Raw, 2));
            assert_eq!(file[stream.offset as usize..][..2], *b"ab");
        }
        for (names, count) in [
            (&[][..], "0 files"),
            (&["images/"], "0 files"),
            (&["a.img", "b.img"], "2 files"),
            (&["a.img", "__MACOSX"], "2 files"),
            (&["a.img", "", "c/", "README"], "3 files"),
        ] {
            let why = refusal(named(names));
            assert!(why.contains(count) && why.contains("unpack it"), "{why}");
        }
    }

    #[test]
    fn a_directory_that_contradicts_itself_or_the_entry_is_damaged() {
        let file = named(&["a.img"]);
        let (entry, end) = (file.len() - 22 - 51, file.len() - 22);
        for (at, why) in [
            (8, "header of its entry differ"),
            (14, "header of its entry differ"),
            (entry + 20, "two sizes"),
            (entry + 32, "length that is recorded"),
            (entry + 42, "header of its entry is damaged"),
            (end + 10, "length that is recorded"),
            (end + 12, "bytes are missing"),
            (end + 16, "bytes are missing"),
        ] {
            let mut damaged = file.clone();
            damaged[at] += 1;
            let error = refusal(damaged);
            assert!(error.contains(why) && error.contains("fetch it again"), "{at}: {error}");
        }
        let mut volumes = file.clone();
        volumes[end + 4] = 2;
        let error = refusal(volumes);
        assert!(error.contains("several volumes") && error.contains("zip -s 0"), "{error}");
        // One that was written to a pipe: the CRC and the sizes follow the data.
        let mut streamed = file.clone();
        streamed[6] = STREAMED as u8;
        streamed[14..26].fill(0);
        assert_eq!(find_entry(&streamed, "x").unwrap(), find_entry(&file, "x").unwrap());
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
