//! Entries of a FAT directory, 32 bytes each: files, directories and the label by their short names, and the parts of
//! long names before them (FAT specification, sections 6 and 7).

use crate::bytes::little_endian;
use crate::text::Text;

/// The bytes of an entry.
pub type Entry = [u8; LENGTH];
pub const LENGTH: usize = 32;

/// The first byte of an entry that was deleted. One that was never used, and so the end of a directory, begins with 0.
pub const DELETED: u8 = 0xe5;

/// What an entry is, at byte 11.
pub const ATTRIBUTES: usize = 11;
pub const READ_ONLY: u8 = 0x01;
pub const LABEL: u8 = 0x08;
pub const DIRECTORY: u8 = 0x10;
pub const ARCHIVE: u8 = 0x20;
/// A part of a long name. With other bits set it is none to the kernel (ATTR_EXT in fs/fat/dir.c).
pub const PART: u8 = 0x0f;

/// Where the units of UTF-16 lie in a part of a long name.
pub const UNITS: [usize; 13] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
/// The bit at the ordinal of the last part of a long name, which comes first.
pub const LAST: u8 = 0x40;
/// The most parts of a long name: 255 units.
const MAX_PARTS: usize = 20;

/// True for an entry that nothing is in.
pub fn is_free(entry: &Entry) -> bool {
    matches!(entry[0], 0 | DELETED)
}

/// The length of a file in bytes.
pub fn length(entry: &Entry) -> u32 {
    little_endian::<4>(entry, 28) as u32
}

/// Sets the length of a file in bytes.
pub fn set_length(entry: &mut Entry, length: u32) {
    entry[28..32].copy_from_slice(&length.to_le_bytes());
}

/// Sets the first cluster, whose upper half is 0 where clusters have 16 bits or fewer.
pub fn set_first_cluster(entry: &mut Entry, cluster: u32) {
    let [a, b, c, d] = cluster.to_le_bytes();
    entry[26..28].copy_from_slice(&[a, b]);
    entry[20..22].copy_from_slice(&[c, d]);
}

/// The checksum of a short name, which the parts of its long name have.
pub fn checksum(entry: &Entry) -> u8 {
    entry[..11].iter().fold(0, |sum: u8, byte| sum.rotate_right(1).wrapping_add(*byte))
}

/// The short name of an entry, with its dot.
pub fn short_name(entry: &Entry) -> Text<12> {
    let base = crate::text::printable::<8>(entry[..8].trim_ascii_end());
    let extension = crate::text::printable::<3>(entry[8..11].trim_ascii_end());
    if extension.is_empty() {
        return crate::text!("{}", base);
    }
    crate::text!("{}.{}", base, extension)
}

/// The names of a directory's entries, which are taken in one after the other: the parts of a long name stand right
/// before the short one that they belong to, the last part first. Parts that are out of order, or whose short name
/// has gone, are no name.
pub struct Names {
    units: [u16; UNITS.len() * MAX_PARTS],
    /// The ordinal of the part that came last; 0 when there was none.
    ordinal: u8,
    sum: u8,
    /// The units are the name of the entry that was taken in last.
    is_long: bool,
    short: Text<12>,
}

impl Names {
    /// Those at the beginning of a directory.
    pub const fn new() -> Self {
        let units = [0; UNITS.len() * MAX_PARTS];
        Self { units, ordinal: 0, sum: 0, is_long: false, short: Text::new() }
    }

    /// Takes in the next entry. True for one that has a name, false for a free one and for a part.
    pub fn take(&mut self, entry: &Entry) -> bool {
        if entry[ATTRIBUTES] == PART && !is_free(entry) {
            self.add(entry);
            return false;
        }
        self.is_long = self.ordinal == 1 && self.sum == checksum(entry);
        self.ordinal = 0;
        if is_free(entry) {
            return false;
        }
        self.short = short_name(entry);
        true
    }

    fn add(&mut self, part: &Entry) {
        let is_first = part[0] & LAST != 0;
        let ordinal = part[0] & !LAST;
        let goes_on = ordinal + 1 == self.ordinal && part[13] == self.sum;
        let is_in_order = is_first || goes_on;
        self.ordinal = 0;
        if !is_in_order || !(1..=MAX_PARTS).contains(&usize::from(ordinal)) {
            return;
        }
        if is_first {
            // A name that fills its last part has no 0 at its end there.
            self.units.fill(0);
        }
        let places = self.units.iter_mut().skip(UNITS.len() * (usize::from(ordinal) - 1));
        for (to, &from) in places.zip(&UNITS) {
            *to = little_endian::<2>(part, from) as u16;
        }
        (self.ordinal, self.sum) = (ordinal, part[13]);
    }

    /// True when the entry that was taken in last has this name, as its long or as its short one. The case of ASCII
    /// letters does not matter. All others are compared as they are: what is another case of them depends on who
    /// looks. A short name that is not of ASCII is in a code page that nobody tells, and equal to nothing.
    pub fn are(&self, name: &str) -> bool {
        if self.short.eq_ignore_ascii_case(name) {
            return true;
        }
        let units = self.units.iter().take_while(|unit| **unit != 0).map(|unit| lower(*unit));
        self.is_long && units.eq(name.encode_utf16().map(lower))
    }
}

/// A unit of UTF-16, in lower case when it is an ASCII letter.
fn lower(unit: u16) -> u16 {
    u8::try_from(unit).map_or(unit, |byte| byte.to_ascii_lowercase().into())
}
