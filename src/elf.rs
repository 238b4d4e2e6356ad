//! The sections of an ELF file (elf(5), <elf.h>), as far as it takes to find one by its name.
//!
//! Reads headers from wherever they claim to be, each by itself, and believes none of them.

use crate::bytes::little_endian;
use crate::error::Error;
use crate::image::source::Source;
use core::ops::Range;

/// The longest name that is looked for, its NUL included.
const LONGEST_NAME: usize = 32;
/// A section without bytes in the file.
const SHT_NOBITS: u64 = 8;

/// Where the fields are that differ between the two classes: the table of sections, in the header of the file, and
/// what is where in the header of a section.
struct Class {
    table: usize,
    counts: usize,
    header: usize,
    offset: usize,
    length: usize,
    is_wide: bool,
}

const CLASS_32: Class =
    Class { table: 32, counts: 46, header: 40, offset: 16, length: 20, is_wide: false };
const CLASS_64: Class =
    Class { table: 40, counts: 58, header: 64, offset: 24, length: 32, is_wide: true };

impl Class {
    fn number(&self, bytes: &[u8], at: usize) -> u64 {
        if self.is_wide { little_endian::<8>(bytes, at) } else { little_endian::<4>(bytes, at) }
    }
}

/// Where the bytes of the section of this name lie in a little-endian file; nothing where there is no such section, or
/// where it has no bytes. All of it is in the file.
pub fn find_section(file: &dyn Source, name: &str) -> Result<Option<Range<u64>>, Error> {
    let mut start = [0; 64];
    read(file, 0, &mut start)?;
    let class = match start {
        [0x7f, b'E', b'L', b'F', 1, 1, ..] => CLASS_32,
        [0x7f, b'E', b'L', b'F', 2, 1, ..] => CLASS_64,
        _ => return Err(broken("it does not begin as a little-endian ELF file")),
    };
    let table = class.number(&start, class.table);
    let [size, count, names] =
        [0, 2, 4].map(|field| little_endian::<2>(&start, class.counts + field));
    if table == 0 || count == 0 {
        return Ok(None);
    }
    if size != class.header as u64 || names >= count {
        return Err(broken("the header of the file is wrong"));
    }
    // The product is of two numbers of 16 bits.
    let section = |index| section_at(file, &class, table.saturating_add(index * size));
    let names = section(names)?;
    for index in 0..count {
        let section = section(index)?;
        if section.kind != SHT_NOBITS && is_named(file, &names, section.name, name)? {
            let end = section.offset.checked_add(section.length);
            return match end.filter(|end| *end <= file.length()) {
                Some(_) if section.length == 0 => Ok(None),
                Some(end) => Ok(Some(section.offset..end)),
                None => Err(broken("the section is cut short")),
            };
        }
    }
    Ok(None)
}

/// The header of a section.
struct Section {
    name: u64,
    kind: u64,
    offset: u64,
    length: u64,
}

fn section_at(file: &dyn Source, class: &Class, at: u64) -> Result<Section, Error> {
    let mut header = [0; CLASS_64.header];
    let header = header.get_mut(..class.header).unwrap_or_default();
    read(file, at, header)?;
    Ok(Section {
        name: little_endian::<4>(header, 0),
        kind: little_endian::<4>(header, 4),
        offset: class.number(header, class.offset),
        length: class.number(header, class.length),
    })
}

/// True when this name stands at `at` in the section of names, and ends there.
fn is_named(file: &dyn Source, names: &Section, at: u64, name: &str) -> Result<bool, Error> {
    let mut found = [0; LONGEST_NAME];
    let found = found.get_mut(..name.len() + 1).unwrap_or_default();
    // The last names may be shorter than ours.
    if at.saturating_add(found.len() as u64) > names.length {
        return Ok(false);
    }
    read(file, names.offset.saturating_add(at), found)?;
    Ok(found.strip_suffix(b"\0") == Some(name.as_bytes()))
}

fn read(file: &dyn Source, at: u64, bytes: &mut [u8]) -> Result<(), Error> {
    if file.read_at(at, bytes)? == bytes.len() {
        return Ok(());
    }
    Err(broken("it ends before its headers do"))
}

fn broken(why: &str) -> Error {
    Error::refused("looking for sections in", "the program", why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Text;

    /// An ELF file with these sections, the names' own among them; what comes after the class of 64 bits is as long.
    fn elf(is_wide: bool, sections: &[(&str, &[u8])]) -> Vec<u8> {
        let class = if is_wide { CLASS_64 } else { CLASS_32 };
        let number = |file: &mut Vec<u8>, at: usize, value: u64| {
            let length = if is_wide { 8 } else { 4 };
            file[at..at + length].copy_from_slice(&value.to_le_bytes()[..length]);
        };
        let mut file = vec![0; 64];
        file[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 1 + u8::from(is_wide), 1]);
        let mut names = b"\0.shstrtab\0".to_vec();
        let mut headers = vec![(0, 0, 0), (1, 0, 0)];
        for (name, bytes) in sections {
            headers.push((names.len(), file.len(), bytes.len()));
            names.extend(name.as_bytes());
            names.push(0);
            file.extend(*bytes);
        }
        headers[1] = (1, file.len(), names.len());
        file.extend(names);
        let table = file.len() as u64;
        number(&mut file, class.table, table);
        for (field, value) in [class.header, headers.len(), 1].into_iter().enumerate() {
            file[class.counts + 2 * field..][..2].copy_from_slice(&(value as u16).to_le_bytes());
        }
        for (name, offset, length) in headers {
            let at = file.len();
            file.resize(at + class.header, 0);
            file[at..at + 4].copy_from_slice(&(name as u32).to_le_bytes());
            file[at + 4] = 1;
            number(&mut file, at + class.offset, offset as u64);
            number(&mut file, at + class.length, length as u64);
        }
        file
    }

    fn find(file: &[u8], name: &str) -> Result<Option<Vec<u8>>, String> {
        let file = file.to_vec();
        match find_section(&file, name) {
            Ok(range) => {
                Ok(range.map(|range| file[range.start as usize..range.end as usize].to_vec()))
            }
            Err(error) => {
                let text: Text<300> = crate::text!("{}", error);
                Err(text.to_string())
            }
        }
    }

    #[test]
    fn a_section_is_found_by_its_whole_name() {
        for is_wide in [false, true] {
            let sections: [(&str, &[u8]); 5] = [
                (".textual", b"1"),
                (".text", b"22"),
                (".tex", b"3"),
                (".none", b""),
                (".l", b"4"),
            ];
            let file = elf(is_wide, &sections);
            assert_eq!(find(&file, ".text"), Ok(Some(b"22".to_vec())));
            assert_eq!(find(&file, ".l"), Ok(Some(b"4".to_vec())), "the last name");
            for other in [".texts", "text", "", ".none", ".longer-than-all-that-is-there"] {
                assert_eq!(find(&file, other), Ok(None), "{other}");
            }
        }
    }

    #[test]
    fn a_file_without_sections_has_none() {
        let mut file = elf(true, &[(".text", b"1")]);
        file[CLASS_64.table..CLASS_64.table + 8].fill(0);
        assert_eq!(find(&file, ".text"), Ok(None));
        let mut file = elf(false, &[(".text", b"1")]);
        file[CLASS_32.counts + 2] = 0;
        assert_eq!(find(&file, ".text"), Ok(None));
    }

    #[test]
    fn broken_headers_are_errors() {
        for is_wide in [false, true] {
            let good = elf(is_wide, &[(".text", b"123")]);
            for cut in [0, 63, good.len() - 1] {
                assert!(find(&good[..cut], ".text").is_err(), "{cut}");
            }
            let class = if is_wide { CLASS_64 } else { CLASS_32 };
            let table = class.number(&good, class.table) as usize;
            for (what, at) in [
                ("the magic number", 0),
                ("the class", 4),
                ("big-endian", 5),
                ("the place of the table", class.table + 3),
                ("the size of a header", class.counts),
                ("which one has the names", class.counts + 5),
                ("where the section is", table + 2 * class.header + class.offset + 3),
                ("its length", table + 2 * class.header + class.length + 3),
            ] {
                let mut file = good.clone();
                file[at] |= 0x80;
                assert!(find(&file, ".text").is_err(), "{what}");
            }
        }
    }

    /// What is executed here was linked by somebody else.
    #[test]
    fn the_sections_of_this_very_program_are_found() {
        let program = crate::image::source::FileSource::open("/proc/self/exe").unwrap();
        assert!(find_section(&program, ".text").unwrap().is_some());
        // It has no bytes in the file.
        assert_eq!(find_section(&program, ".bss").unwrap(), None);
        assert_eq!(find_section(&program, ".config_json_section").unwrap(), None);
    }
}
