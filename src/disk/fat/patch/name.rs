//! Names for new entries: the parts of a long one, and a short alias (FAT specification, sections 6 and 7).

use super::super::entry::{self, Entry, LAST, PART, UNITS};
use super::refusal::refuse;
use crate::error::Error;
use crate::text::{Text, split_last};

/// The most units of UTF-16 that a name has.
const MAX_UNITS: usize = 255;

/// Refuses a name that FAT cannot hold.
pub fn check(name: &str) -> Result<(), Error> {
    let is_bad = |c: char| {
        c.is_control() || matches!(c, '"' | '*' | '/' | ':' | '<' | '>' | '?' | '\\' | '|')
    };
    let why = if name.is_empty() {
        "is empty"
    } else if name.contains(is_bad) {
        "has a control character, or one of \" * / : < > ? \\ |"
    } else if name.ends_with(['.', ' ']) {
        "ends with a dot or a blank"
    } else if units(name) > MAX_UNITS {
        "is longer than 255 units of UTF-16"
    } else {
        return Ok(());
    };
    let shown: Text<64> = crate::text::printable(name.as_bytes());
    let why: Text<200> = crate::text!("the name `{}` {}, which FAT does not take", shown, why);
    Err(refuse(&why).advice("give the file another name"))
}

fn units(name: &str) -> usize {
    name.encode_utf16().count()
}

/// The entries that a long name takes, besides the short one.
pub fn parts(name: &str) -> usize {
    units(name).div_ceil(UNITS.len())
}

/// Part `ordinal` of a long name, of 1 to [`parts`]; `sum` is the checksum of its short name. Behind the name comes a 0
/// when there is room, and then only ones.
pub fn part(name: &str, ordinal: usize, sum: u8) -> Entry {
    let mut part = [0; entry::LENGTH];
    part[0] = ordinal as u8;
    if ordinal == parts(name) {
        part[0] |= LAST;
    }
    part[entry::ATTRIBUTES] = PART;
    part[13] = sum;
    let rest = name.encode_utf16().chain([0]).chain(core::iter::repeat(u16::MAX));
    for (place, unit) in UNITS.iter().zip(rest.skip(UNITS.len() * (ordinal - 1))) {
        part[*place..place + 2].copy_from_slice(&unit.to_le_bytes());
    }
    part
}

/// Gives an entry short name `number` for a name, from 1 on, and the same as a text: `NAME~1.EXT`. Always with a
/// number: so it is never the name itself, and which names need none is a table of its own. The extension is what is
/// behind the last dot; dots at the beginning begin none.
pub fn alias(name: &str, number: u32, entry: &mut Entry) -> Text<12> {
    let name = name.trim_start_matches('.');
    let (base, extension) = split_last(name, b'.').unwrap_or((name, ""));
    let tail: Text<7> = crate::text!("~{}", number);
    entry[..11].fill(b' ');
    let length = spell(&mut entry[..8 - tail.len()], base);
    entry[length..length + tail.len()].copy_from_slice(tail.as_bytes());
    spell(&mut entry[8..11], extension);
    entry::short_name(entry)
}

/// Writes as much of a name as fits, in capitals, and gives its length. Blanks and dots are left out, and all that is
/// no letter or digit of ASCII becomes `_`: short names are in a code page that nobody tells.
fn spell(place: &mut [u8], name: &str) -> usize {
    let characters = name.chars().filter(|character| !matches!(character, ' ' | '.'));
    let mut length = 0;
    for (to, from) in place.iter_mut().zip(characters) {
        let byte = u8::try_from(from).unwrap_or(b'_').to_ascii_uppercase();
        *to = if byte.is_ascii_alphanumeric() { byte } else { b'_' };
        length += 1;
    }
    length
}
